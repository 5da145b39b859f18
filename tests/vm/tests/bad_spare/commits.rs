// SPDX-License-Identifier: GPL-2.0
//! What a commit writes and in which order, and what becomes of one that failed half way.

use std::ops::Range;

use super::bench::check_sector;
use super::bench::need;
use super::bench::Bench;
use super::bench::Check;
use super::bench::Saved;
use super::bench::WORN;
use super::image;
use super::unwritable;
use vmtest::guest::identify;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Content;
use vmtest::guest::Direct;

/// A bench with a few remaps, not in use.
fn with_remaps() -> (Bench, Saved) {
    let mut bench = Bench::new();
    bench.write(0, 4, 1).unwrap();
    bench.remap.deactivate();
    let saved = bench.save();
    (bench, saved)
}

/// M4: a device that is made, read, asked and removed leaves the spare as it was, to the byte.
#[test]
fn use_without_a_change_writes_nothing() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    for _ in 0..3 {
        bench.remap.record();
        bench.activate().unwrap();
        bench.check_content().unwrap();
        for message in ["verify 1000", "status", "metadata_status", "ping"] {
            bench.device().message(message).unwrap();
        }
        // Of main, as much as anybody likes.
        let device = bench.remap.open();
        device.write(0, &stamps(0, 64, 1)).unwrap();
        device.flush().unwrap();
        drop(device);
        bench.device().suspend().unwrap();
        bench.device().resume().unwrap();
        assert_eq!(bench.device().events(), 0);
        bench.remap.deactivate();
        assert_eq!(bench.remap.spare.disk().record().writes, 0);
        assert!(bench.save() == saved);
    }
}

/// M4: the epoch of an activation is durable in every superblock copy before its first commit.
#[test]
fn the_epoch_is_durable_before_the_first_commit() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    let before = image::superblock(&bench.remap.spare);
    bench.restore(&saved);
    bench.activate().unwrap();
    bench.remap.record();
    bench.write(100, 4, 2).unwrap();
    let after = image::superblock(&bench.remap.spare);
    assert!(after.epoch > before.epoch);
    let copies = [0, 1, 2, 3].map(|copy| image::super_sector(&bench.remap.spare, copy));
    let tables = [0, 1].map(|replica| image::table_sector(&after, replica, 0));
    let spare = bench.remap.spare.disk();
    let writes = spare.record().entries().iter();
    let metadata: Vec<u64> = writes
        .filter(|entry| entry.operation == Operation::Write && entry.fua)
        .map(|entry| entry.sector)
        .collect();
    let first = |sector: u64| metadata.iter().position(|written| *written == sector);
    let first_table = tables.map(|sector| first(sector).expect("a table block is written"));
    for sector in copies {
        let superblock = first(sector).expect("each superblock copy is written");
        assert!(superblock < first_table[0] && superblock < first_table[1]);
    }
    drop(spare);
    bench.remap.deactivate();
}

/// What comes after a commit that failed half way.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The spare works again.
    Healed,
    /// The power fails.
    PowerCut,
    /// The device is removed while the spare still fails, and made when it works again.
    Removed,
}

/// M6: the write to one replica was issued, and the other replica failed for a reason that is not the
/// medium's. Until that is settled reads of the block fail; afterwards it has its old or its new
/// content, and keeps it.
#[test]
fn a_commit_that_failed_half_way_is_settled_before_it_is_read() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    for replica in [0, 1] {
        for replaced in [false, true] {
            for next in [Next::Healed, Next::PowerCut, Next::Removed] {
                bench.restore(&saved);
                let result = doubt(&mut bench, replica, replaced, next);
                result.unwrap_or_else(|what| {
                    panic!("replica {replica}, replaced {replaced}, {next:?}: {what}")
                });
            }
        }
    }
}

fn doubt(bench: &mut Bench, replica: u8, replaced: bool, next: Next) -> Check {
    bench.activate()?;
    // A block that has a slot whose medium fails, or one that has none yet.
    let (sector, old) = match replaced {
        true => (WORN + 1, 1),
        false => (WORN + 100, 0),
    };
    let spare = &bench.remap.spare;
    if replaced {
        let slot = bench.remap.slot_of(sector).expect("a slot");
        spare.disk().spoil(slot, 1, unwritable());
    }
    let superblock = image::superblock(spare);
    let away = Fault::bad(Direction::Write).status(Status::Transport);
    let table = image::table_sector(&superblock, replica, 0);
    spare.disk().spoil(table, 8, away);
    let seen = bench.device().events();
    let device = bench.remap.open();
    let written = device.write(sector, &stamps(sector, 1, 2));
    need(written.is_err(), || {
        "a write was acknowledged whose remap is not durable".into()
    })?;
    for _ in 0..2 {
        need(device.read(sector, 1).is_err(), || {
            "what is in doubt was read".into()
        })?;
    }
    check_sector(&device, WORN + 2, 1)?;
    let metadata = bench.device().status_value("metadata");
    need(metadata.as_deref() == Some("degraded"), || {
        bench.device().status()
    })?;
    need(bench.device().wait_for_event(seen), || {
        "nobody was told".into()
    })?;
    drop(device);
    let heal = |bench: &Bench| bench.remap.spare.disk().heal(table, 8);
    match next {
        Next::Healed => heal(bench),
        Next::PowerCut => {
            bench.remap.power_off();
            heal(bench);
            bench.remap.power_on(PowerCut::Drop);
            bench.activate()?;
        }
        Next::Removed => {
            bench.remap.deactivate();
            heal(bench);
            bench.activate()?;
        }
    }
    let found = generation(&bench.remap.open(), sector)?;
    let rolled_forward = matches!(next, Next::Healed);
    need(found == 2 || (found == old && !rolled_forward), || {
        format!("generation {found}")
    })?;
    // Whatever it is, it stays so, and both replicas say so.
    bench.check_redundancy(4)?;
    for power_cut in [true, false] {
        if power_cut {
            bench.remap.power_cut(PowerCut::Drop);
        } else {
            bench.remap.reactivate();
        }
        let again = generation(&bench.remap.open(), sector)?;
        need(again == found, || format!("{found}, and then {again}"))?;
        check_sector(&bench.remap.open(), WORN + 2, 1)?;
    }
    bench.remap.deactivate();
    Ok(())
}

/// The generation of a sector, 0 if it was never written.
fn generation(device: &Direct, sector: u64) -> Result<u64, String> {
    let read = device.read(sector, 1).map_err(|error| error.to_string())?;
    match identify(&read)[0] {
        Content::Blank => Ok(0),
        Content::Stamp {
            sector: place,
            generation,
        } if place == sector => Ok(generation),
        other => Err(format!("{other:?}")),
    }
}

/// M8: whatever the superblock copies say about the high-water mark, all initialised blocks are used:
/// none with a remap is passed over, and none is initialised again.
#[test]
fn marks_that_disagree_lose_no_remap() {
    let _test = vmtest::begin!();
    let (mut bench, _) = with_remaps();
    let superblock = image::superblock(&bench.remap.spare);
    let marked = image::high_water(&superblock);
    assert!(marked > 3);
    // One remap in each table block.
    bench.activate().unwrap();
    for block in 1..marked {
        let slot = image::first_slot(&superblock, block) + 3;
        let sector = WORN + 200 + u64::from(block);
        let place = image::slot_sector(&superblock, slot);
        let message = format!("add_remap {sector} {place} 1");
        bench.device().message(&message).unwrap();
        bench.write(200 + u64::from(block), 1, 2).unwrap();
    }
    bench.remap.deactivate();
    let saved = bench.save();
    let newest = image::superblock(&bench.remap.spare);
    let marks: [(&[u8], Range<u32>); 4] = [
        // All say too little.
        (&[0, 1, 2, 3], 1..marked),
        // The newest one does.
        (&[2], 1..marked),
        (&[0, 3], 1..marked),
        // None is initialised, as far as they know.
        (&[0, 1, 2, 3], 0..1),
    ];
    for (copies, lower) in marks {
        for mark in lower {
            bench.restore(&saved);
            let spare = &bench.remap.spare;
            let mut less = image::with_high_water(&newest, mark);
            less.sequence += 1;
            for copy in copies {
                image::forge_super(spare, *copy, &less);
            }
            let what = format!("copies {copies:?} say {mark}");
            let checked = bench.activate().and_then(|()| bench.check_content());
            checked.unwrap_or_else(|error| panic!("{what}: {error}"));
            bench.device().message("save").unwrap();
            bench.check_redundancy(4).unwrap();
            let now = image::high_water(&image::superblock(&bench.remap.spare));
            assert_eq!(now, marked, "{what}");
            bench.remap.deactivate();
        }
    }
    // The newest is right and others are behind: older versions, as a crash leaves them.
    for mark in 0..marked {
        bench.restore(&saved);
        let spare = &bench.remap.spare;
        let mut less = image::with_high_water(&newest, mark);
        less.sequence -= 1;
        for copy in [1, 2, 3] {
            image::forge_super(spare, copy, &less);
        }
        let checked = bench.activate().and_then(|()| bench.check_content());
        checked.unwrap_or_else(|error| panic!("others say {mark}: {error}"));
        bench.check_redundancy(4).unwrap();
        bench.remap.deactivate();
    }
}

/// M8: blocks behind the mark that were never written are no damage; they are initialised when they are
/// needed, and then the mark is raised, in that order.
#[test]
fn blocks_are_initialised_before_the_mark_is_raised() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    let superblock = image::superblock(&bench.remap.spare);
    let marked = image::high_water(&superblock);
    for garbage in [0, 0xff] {
        bench.restore(&saved);
        let spare = &bench.remap.spare;
        let mut less = image::with_high_water(&superblock, 1);
        less.sequence += 1;
        for copy in 0..4 {
            image::forge_super(spare, copy, &less);
        }
        for block in 1..marked {
            for replica in [0, 1] {
                let sector = image::table_sector(&superblock, replica, block);
                image::poke(spare, sector, &[garbage; 4096]);
            }
        }
        bench.activate().unwrap();
        bench.check_content().unwrap();
        bench.remap.record();
        let slot = image::first_slot(&superblock, marked - 1);
        let place = image::slot_sector(&superblock, slot);
        let sector = WORN + 300;
        let message = format!("add_remap {sector} {place} 1");
        bench.device().message(&message).unwrap();
        bench.write(300, 1, 2).unwrap();
        assert_eq!(bench.remap.slot_of(sector), Some(place));
        order_of_initialising(&bench, marked);
        bench.remap.reactivate();
        bench.check_content().unwrap();
        bench.check_redundancy(4).unwrap();
        bench.remap.deactivate();
    }
}

/// Checks that the blocks were written, then flushed, then the superblock.
fn order_of_initialising(bench: &Bench, marked: u32) {
    let spare = &bench.remap.spare;
    let superblock = image::superblock(spare);
    let blocks: Vec<u64> = (1..marked)
        .flat_map(|block| [(0, block), (1, block)])
        .map(|(replica, block)| image::table_sector(&superblock, replica, block))
        .collect();
    let last_super = image::super_sector(spare, 3);
    let disk = spare.disk();
    let entries = disk.record().entries();
    let initialised = entries
        .iter()
        .rposition(|entry| {
            let written = entry.operation == Operation::Write && !entry.fua;
            written && blocks.contains(&entry.sector)
        })
        .expect("blocks are initialised");
    let rest = &entries[initialised..];
    let flushed = rest
        .iter()
        .position(|entry| entry.operation == Operation::Flush)
        .expect("a flush");
    let raised = rest
        .iter()
        .position(|entry| entry.fua && entry.sector == last_super)
        .expect("the mark is raised");
    assert!(flushed < raised);
}
