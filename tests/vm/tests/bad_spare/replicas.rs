// SPDX-License-Identifier: GPL-2.0
//! Copies that went different ways: written half, not written, written by others.

use super::bad;
use super::bench::check_sector;
use super::bench::need;
use super::bench::Bench;
use super::bench::Check;
use super::bench::Saved;
use super::bench::WORN;
use super::image;
use super::unreadable;
use super::unwritable;
use vmtest::guest::eventually;
use vmtest::guest::identify;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Content;
use vmtest::guest::Uevents;

/// A bench with a few remaps, not in use.
fn with_remaps() -> (Bench, Saved) {
    let mut bench = Bench::new();
    bench.write(0, 4, 1).unwrap();
    bench.remap.deactivate();
    let saved = bench.save();
    (bench, saved)
}

/// Makes the device, which must be refused for this reason and without a write.
#[track_caller]
fn refused(bench: &mut Bench, reason: &str) {
    bench.remap.record();
    match bench.remap.try_activate() {
        Ok(()) => panic!("the device came up, {reason}: {}", bench.device().status()),
        Err(refusal) => assert!(
            refusal.reason.contains(reason),
            "{refusal:?}, and not {reason}"
        ),
    }
    assert_eq!(bench.remap.spare.disk().record().writes, 0, "{reason}");
}

/// M2: a replica's block that takes writes no more is written off before anybody is told. What can be
/// read there later is old, and is not believed when the other replica is lost.
#[test]
fn a_table_block_that_took_no_writes_is_never_believed_again() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    for replica in [0, 1] {
        for power_cut in [false, true] {
            bench.restore(&saved);
            bench.activate().unwrap();
            let superblock = image::superblock(&bench.remap.spare);
            let home = image::home_sector(&superblock, replica, 0);
            bench.remap.spare.disk().spoil(home, 8, unwritable());
            bench.write(100, 4, 2).unwrap();
            if power_cut {
                bench.remap.power_off();
                bench.remap.power_on(PowerCut::Drop);
            } else {
                bench.remap.deactivate();
            }
            let spare = &bench.remap.spare;
            spare.disk().heal(home, 8);
            assert_eq!(
                image::table_at(spare, &superblock, home, 0).map(|table| table.sequence),
                Some(image::table(spare, &superblock, replica, 0).sequence),
                "a good block of before"
            );
            let superblock = image::superblock(spare);
            assert!(image::is_moved(&superblock, replica, 0));
            let other = image::table_sector(&superblock, 1 - replica, 0);
            spare.disk().spoil(other, 8, bad());
            let checked = bench.activate().and_then(|()| bench.check_content());
            checked.unwrap_or_else(|what| panic!("replica {replica}, cut {power_cut}: {what}"));
            bench.remap.deactivate();
        }
    }
}

/// M2, P4: the same for a whole replica that has no place left for a block. It is made again in another
/// place.
#[test]
fn a_replica_that_took_no_writes_is_never_believed_again() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    for replica in [0, 1] {
        bench.restore(&saved);
        bench.activate().unwrap();
        let uevents = Uevents::listen();
        spoil_replica(&bench, replica);
        bench.write(100, 4, 2).unwrap();
        uevents.wait_for("degraded");
        bench.write(110, 4, 3).unwrap();
        bench.expect_made_again(replica);
        bench.remap.deactivate();
        let sectors = bench.remap.spare.disk().sectors();
        bench.remap.spare.disk().heal(0, sectors);
        // It can be read again, and may be written again: but it is not asked.
        bench.activate().unwrap();
        bench.check_content().unwrap();
        bench.remap.deactivate();
    }
}

impl Bench {
    /// Waits until a replica that was void is complete again, in another place than it had at first.
    #[track_caller]
    fn expect_made_again(&self, replica: u8) {
        let whole = || self.number("replicas") == 2;
        assert!(eventually(whole), "{}", self.device().status());
        let metadata = self.device().status_value("metadata");
        assert_eq!(metadata.as_deref(), Some("enabled"));
        let superblock = image::superblock(&self.remap.spare);
        assert!(image::is_elsewhere(&superblock, replica));
    }
}

/// Takes all places away that a replica could write its blocks to.
fn spoil_replica(bench: &Bench, replica: u8) {
    let spare = &bench.remap.spare;
    let superblock = image::superblock(spare);
    let blocks = 0..image::table_blocks(&superblock);
    let homes = blocks.map(|block| image::home_sector(&superblock, replica, block));
    for sector in homes.chain(image::reserve_sectors(&superblock, replica)) {
        spare.disk().spoil(sector, 8, unwritable());
    }
}

/// M2, M4: a superblock copy that missed something is not believed when it is the only one that can be
/// read: the table is newer than it knows.
#[test]
fn a_superblock_copy_that_took_no_writes_is_never_believed_again() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    for copy in 0..4 {
        bench.restore(&saved);
        bench.activate().unwrap();
        let spare = &bench.remap.spare;
        let sector = image::super_sector(spare, copy);
        spare.disk().spoil(sector, 8, unwritable());
        bench.write(100, 4, 2).unwrap();
        assert_eq!(bench.number("superblocks"), 3);
        bench.remap.deactivate();
        let spare = &bench.remap.spare;
        spare.disk().heal(sector, 8);
        assert!(image::super_copy(spare, copy).is_some(), "a good block");
        let others = (0..4).filter(|other| *other != copy);
        let others: Vec<u64> = others
            .map(|other| image::super_sector(spare, other))
            .collect();
        for other in &others {
            spare.disk().spoil(*other, 8, unreadable());
        }
        refused(&mut bench, "superblock is older than");
        // Any one that knows is enough, and makes it good.
        for other in &others {
            bench.remap.spare.disk().heal(*other, 8);
            let checked = bench.activate().and_then(|()| bench.check_content());
            checked.unwrap_or_else(|what| panic!("copy {copy}, with {other}: {what}"));
            bench.remap.deactivate();
        }
        bench.activate().unwrap();
        bench.device().message("save").unwrap();
        bench.check_redundancy(4).unwrap();
        bench.remap.deactivate();
    }
}

/// M3: a block that is bad in every replica may have named any sector of main: the device does not come
/// up, and says which block it is. One good copy is enough.
#[test]
fn a_block_that_is_bad_in_every_replica_is_refused_by_name() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    let superblock = image::superblock(&bench.remap.spare);
    let marked = image::high_water(&superblock);
    assert!(marked > 2);
    for block in 0..marked {
        for rotten in [false, true] {
            bench.restore(&saved);
            let sectors = [0, 1].map(|replica| image::table_sector(&superblock, replica, block));
            let spare = &bench.remap.spare;
            spare.disk().spoil(sectors[0], 8, unreadable());
            if rotten {
                spare.disk().poke(sectors[1], &[1; 512]).unwrap();
            } else {
                spare.disk().spoil(sectors[1] + 7, 1, unreadable());
            }
            refused(
                &mut bench,
                &format!("table block {block} of spare 0: bad in every replica"),
            );
            bench.remap.spare.disk().heal(sectors[0], 8);
            bench.activate().unwrap();
            bench.check_content().unwrap();
            bench.remap.deactivate();
        }
    }
}

/// M3: two copies of the same age that say different things: nothing can be believed.
#[test]
fn copies_of_the_same_age_that_differ_are_refused() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    let superblock = image::superblock(&bench.remap.spare);
    for replica in [0, 1] {
        bench.restore(&saved);
        let spare = &bench.remap.spare;
        let mut table = image::table(spare, &superblock, replica, 0);
        table.entries[200].generation += 1;
        image::forge_table(spare, &superblock, replica, 0, &table);
        refused(
            &mut bench,
            "table block 0 of spare 0: replicas of the same age contradict each other",
        );
    }
    for copy in 0..4 {
        bench.restore(&saved);
        let mut other = superblock.clone();
        other.main_sectors += 8;
        image::forge_super(&bench.remap.spare, copy, &other);
        refused(&mut bench, "contradicts another of the same age");
    }
    // And the true ones are taken.
    bench.restore(&saved);
    bench.activate().unwrap();
    bench.check_content().unwrap();
    bench.remap.deactivate();
}

/// M3: a write that one copy has acknowledged and lost: the newer copy wins, and both are equal before
/// anybody reads, so that it does not matter which is lost next.
#[test]
fn a_metadata_write_that_is_lost_costs_nothing() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    for replica in [0, 1] {
        for then_lost in [0, 1] {
            bench.restore(&saved);
            bench.activate().unwrap();
            let superblock = image::superblock(&bench.remap.spare);
            let sectors = [0, 1].map(|replica| image::table_sector(&superblock, replica, 0));
            let wrong = sectors[replica];
            bench.remap.spare.disk().lose_writes(wrong..wrong + 8, 1);
            bench.write(100, 4, 2).unwrap();
            bench.remap.power_off();
            bench.remap.power_on(PowerCut::Drop);
            let spare = &bench.remap.spare;
            assert_eq!(spare.disk().writes_to_lose(), 0, "no write was lost");
            let [a, b] = sectors.map(|sector| image::peek(spare, sector));
            assert!(a != b, "no write was lost");
            bench.activate().unwrap();
            bench.check_redundancy(4).unwrap();
            bench.check_content().unwrap();
            bench.remap.deactivate();
            let lost = sectors[then_lost];
            bench.remap.spare.disk().spoil(lost, 8, bad());
            let checked = bench.activate().and_then(|()| bench.check_content());
            checked.unwrap_or_else(|what| panic!("{replica}, then {then_lost}: {what}"));
            bench.remap.deactivate();
        }
    }
    for copy in 0..4 {
        bench.restore(&saved);
        bench.activate().unwrap();
        let spare = &bench.remap.spare;
        let sector = image::super_sector(spare, copy);
        spare.disk().lose_writes(sector..sector + 8, 1);
        bench.write(100, 4, 2).unwrap();
        assert_eq!(bench.remap.spare.disk().writes_to_lose(), 0);
        bench.remap.power_off();
        bench.remap.power_on(PowerCut::Drop);
        bench.activate().unwrap();
        bench.check_content().unwrap();
        bench.device().message("save").unwrap();
        bench.check_redundancy(4).unwrap();
        bench.remap.deactivate();
    }
}

/// M1, P5: the power fails at each write to the spare in turn, and leaves rubbish where the drive was
/// about to write. The other replica is whole, also where one was made again in another place.
#[test]
fn power_cuts_tear_each_metadata_write_in_turn() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    let mut cuts = 0;
    for void in [None, Some(0), Some(1)] {
        bench.restore(&saved);
        if let Some(replica) = void {
            bench.activate().unwrap();
            spoil_replica(&bench, replica);
            bench.write(20, 4, 2).unwrap();
            bench.expect_made_again(replica);
            bench.remap.deactivate();
        }
        let state = bench.save();
        for writes in 0.. {
            bench.restore(&state);
            let ended = cut_after(&mut bench, writes);
            match ended {
                Ok(true) => break,
                Ok(false) => cuts += 1,
                Err(what) => panic!("void {void:?}, after {writes} writes: {what}"),
            }
        }
    }
    super::say(&format!(
        "power cuts that tear a metadata write: {cuts} survived"
    ));
    assert!(cuts > 12, "{cuts} cuts");
}

/// Cuts the power after so many writes to the spare, and tears the next one. Tells whether there were no
/// more.
fn cut_after(bench: &mut Bench, writes: u32) -> Result<bool, String> {
    bench.activate()?;
    bench.remap.record();
    bench.remap.spare.disk().die_after(writes, Status::Offline);
    let sector = WORN + 100;
    let opened = bench.remap.open();
    let acknowledged = opened.write(sector, &stamps(sector, 1, 3)).is_ok();
    drop(opened);
    let torn = {
        let spare = bench.remap.spare.disk();
        let mut entries = spare.record().entries().iter();
        let failed = |status| status == Some(Status::Offline);
        entries
            .find(|entry| entry.operation == Operation::Write && failed(entry.error))
            .copied()
    };
    bench.remap.power_off();
    bench.remap.power_on(PowerCut::Drop);
    if let Some(torn) = torn {
        // Of a metadata block, the checksum is old and what follows is not.
        let rubbish = vec![0x5a; (torn.sectors.div_ceil(2) * 512) as usize];
        let half = torn.sector + torn.sectors / 2;
        bench.remap.spare.disk().poke(half, &rubbish).unwrap();
    }
    bench.activate()?;
    let device = bench.remap.open();
    for (&sector, &generation) in &bench.content {
        check_sector(&device, sector, generation)?;
    }
    let read = device.read(sector, 1).map_err(|error| error.to_string())?;
    let generation = match identify(&read)[0] {
        Content::Blank => 0,
        Content::Stamp {
            sector: place,
            generation,
        } if place == sector => generation,
        other => return Err(format!("{other:?}")),
    };
    need(
        generation == 3 || (!acknowledged && generation == 0),
        || format!("generation {generation}, acknowledged: {acknowledged}"),
    )?;
    drop(device);
    // What was read stays.
    bench.remap.reactivate();
    let device = bench.remap.open();
    if generation == 3 {
        check_sector(&device, sector, 3)?;
    }
    drop(device);
    bench.remap.deactivate();
    let ended: Check = need(torn.is_some() || acknowledged, || {
        "no reason to fail".into()
    });
    ended.map(|()| torn.is_none())
}
