// SPDX-License-Identifier: GPL-2.0
//! Writes that fail are served from the spare from then on.
//!
//! Also on the oldest kernel.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use vmtest::guest::eventually;
use vmtest::guest::identify;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Entry;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::superblocks;
use vmtest::guest::Content;
use vmtest::guest::Dice;
use vmtest::guest::Direct;
use vmtest::guest::Remap;

/// P1: a failed write completes without error, and can be read back.
#[test]
fn a_failed_write_is_remapped() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let remap = Remap::new(block);
        let device = remap.open();
        device.write(0, &stamps(0, 64, 1)).unwrap();
        remap.main.disk().spoil(16, 8, Fault::bad(Direction::Both));
        device.write(8, &stamps(8, 24, 2)).unwrap();

        let mut expected = stamps(0, 8, 1);
        expected.extend(stamps(8, 24, 2));
        expected.extend(stamps(32, 32, 1));
        assert!(device.read(0, 64).unwrap() == expected, "blocks of {block}");
        let blocks = 8 * 512 / u64::from(block);
        assert_eq!(remap.device().remapped(), blocks, "blocks of {block}");
        assert_eq!(remap.device().status_fraction(2).0, blocks);
        assert_eq!(
            remap.device().status_value("auto_remaps"),
            Some(blocks.to_string())
        );
        let errors = remap.device().status_value("errors").unwrap();
        assert!(!errors.starts_with("W0:"), "{errors}");
    }
}

/// P1, P2: writing again reaches the slot, reading it too, and main is not asked any more.
#[test]
fn a_remapped_block_is_written_again() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(100, 1, Fault::bad(Direction::Both));
    for generation in 1..6 {
        device.write(100, &stamps(100, 1, generation)).unwrap();
        assert!(device.read(100, 1).unwrap() == stamps(100, 1, generation));
    }
    assert_eq!(remap.device().remapped(), 1);
    remap.record();
    device.write(100, &stamps(100, 1, 6)).unwrap();
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 6));
    assert_eq!(remap.main.disk().record().writes, 0);
    assert_eq!(remap.main.disk().record().reads, 0);
}

/// P3: data on the spare, flush, metadata with FUA in both replicas one after the other, and only
/// then the acknowledgement.
#[test]
fn a_remap_is_durable_before_it_is_acknowledged() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    let bad = Fault::bad(Direction::Both);
    // The first remap may also raise the epoch and initialise blocks.
    for sector in [100, 200] {
        remap.main.disk().spoil(sector, 1, bad);
        remap.record();
        device.write(sector, &stamps(sector, 1, 1)).unwrap();
    }
    let spare = remap.spare.disk();
    let entries = spare.record().entries();
    let content = |entry: &Entry| {
        let mut data = vec![0; 512];
        spare.peek(entry.sector, &mut data).unwrap();
        identify(&data)[0]
    };
    let data = entries
        .iter()
        .position(|entry| {
            entry.operation == Operation::Write
                && matches!(content(entry), Content::Stamp { sector: 200, .. })
        })
        .unwrap_or_else(|| panic!("no data on the spare: {entries:?}"));
    let metadata: Vec<usize> = (0..entries.len())
        .filter(|&at| entries[at].operation == Operation::Write && at != data)
        .collect();
    assert!(metadata.len() >= 2, "one write a replica: {entries:?}");
    assert!(
        metadata.iter().all(|&at| at > data && entries[at].fua),
        "metadata comes with FUA, behind the data: {entries:?}"
    );
    let durable = entries[data].fua
        || entries[data..metadata[0]]
            .iter()
            .any(|entry| entry.operation == Operation::Flush);
    assert!(durable, "data is durable before metadata: {entries:?}");
}

/// What reached the spare since its record was restarted.
#[derive(Debug, Default)]
struct Cost {
    /// How many writes brought data, and how many sectors in all.
    data_writes: u64,
    data_sectors: u64,
    flushes: u64,
    /// Writes of the slot table to each replica, of one block or of several that follow each other.
    replicas: [u64; 2],
    /// How many blocks these were.
    blocks: [u64; 2],
    supers: u64,
}

impl Cost {
    fn of(remap: &Remap) -> Self {
        let supers = superblocks(&remap.spare);
        let disk = remap.spare.disk();
        let mut cost = Self::default();
        for entry in disk.record().entries() {
            assert_eq!(entry.error, None, "{entry:?}");
            match entry.operation {
                Operation::Read => (),
                Operation::Flush => cost.flushes += 1,
                Operation::Write if supers.contains(&entry.sector) => cost.supers += 1,
                Operation::Write => {
                    let mut start = [0; 512];
                    disk.peek(entry.sector, &mut start).unwrap();
                    if start.starts_with(b"DMRMPTBL") {
                        assert!(entry.fua, "{entry:?}");
                        // One is at the start and one at the end.
                        let replica = usize::from(entry.sector > disk.sectors() / 2);
                        cost.replicas[replica] += 1;
                        cost.blocks[replica] += entry.sectors / 8;
                    } else {
                        cost.data_writes += 1;
                        cost.data_sectors += entry.sectors;
                    }
                }
                other => panic!("{other:?}: {entry:?}"),
            }
        }
        cost
    }
}

/// A device that has done what only its first repair does: raise the epoch, initialise blocks.
fn warm(block: u32) -> Remap {
    let remap = Remap::new(block);
    let bad = Fault::bad(Direction::Both);
    remap.main.disk().spoil(64, 8, bad);
    remap.open().write(64, &stamps(64, 8, 1)).unwrap();
    remap.main.disk().spoil(4096, 2048, bad);
    remap.record();
    remap
}

/// P13: one data pass, one flush, and three metadata writes for each replica at most, for a megabyte that
/// fails as a whole.
#[test]
fn a_failed_megabyte_costs_little() {
    let _test = vmtest::begin!();
    let remap = warm(4096);
    let device = remap.open();
    device.write(4096, &stamps(4096, 2048, 1)).unwrap();
    let cost = Cost::of(&remap);
    println!("1 MiB of 4096 byte blocks: {cost:?}");
    assert!(device.read(4096, 2048).unwrap() == stamps(4096, 2048, 1));
    assert_eq!(remap.device().remapped(), 257);
    assert_eq!(cost.data_sectors, 2048, "one data pass: {cost:?}");
    assert!(cost.flushes <= 1, "{cost:?}");
    let writes = cost.replicas.map(|blocks| blocks + cost.supers);
    assert!(
        writes.iter().all(|writes| (1..=3).contains(writes)),
        "{cost:?}"
    );
}

/// P13, with blocks of which eight times as many are in a megabyte: no more than above, as blocks of the slot table that
/// follow each other are one write.
#[test]
fn a_failed_megabyte_of_small_blocks_costs_little() {
    let _test = vmtest::begin!();
    let remap = warm(512);
    let device = remap.open();
    device.write(4096, &stamps(4096, 2048, 1)).unwrap();
    let cost = Cost::of(&remap);
    println!("1 MiB of 512 byte blocks: {cost:?}");
    assert!(device.read(4096, 2048).unwrap() == stamps(4096, 2048, 1));
    assert_eq!(remap.device().remapped(), 2056);
    assert_eq!(cost.data_sectors, 2048, "one data pass: {cost:?}");
    assert_eq!((cost.data_writes, cost.flushes), (8, 1), "{cost:?}");
    let writes = cost.replicas.map(|writes| writes + cost.supers);
    assert!(
        writes.iter().all(|writes| (1..=3).contains(writes)),
        "{cost:?}"
    );
    // 252 entries are in a block.
    assert!(
        cost.blocks.iter().all(|blocks| (9..=10).contains(blocks)),
        "{cost:?}"
    );
}

/// P4, P13: if a write of several blocks of the slot table fails, each is written by itself, and the one whose place is
/// bad goes to another; in whichever replica.
#[test]
fn a_bad_table_block_among_several_is_moved() {
    let _test = vmtest::begin!();
    for replica in 0..2 {
        let mut remap = warm(512);
        remap.open().write(4096, &stamps(4096, 2048, 1)).unwrap();
        // The last block that was written gets more entries, and those behind it.
        let tables = |remap: &Remap| -> Vec<u64> {
            let supers = superblocks(&remap.spare);
            let disk = remap.spare.disk();
            let half = disk.sectors() / 2;
            let entries = disk.record().entries();
            let mut ends = Vec::new();
            for entry in entries {
                let mut start = [0; 512];
                disk.peek(entry.sector, &mut start).unwrap();
                let own = usize::from(entry.sector > half) == replica;
                if entry.operation == Operation::Write
                    && own
                    && !supers.contains(&entry.sector)
                    && start.starts_with(b"DMRMPTBL")
                {
                    ends.push(entry.sector + entry.sectors);
                }
            }
            ends
        };
        let end = *tables(&remap).iter().max().expect("a commit");
        // The third block from there on, and one sector of it.
        let bad = Fault::bad(Direction::Write);
        remap.spare.disk().spoil(end + 2 * 8 + 3, 1, bad);
        let (first, sectors) = (16384, 2048);
        remap
            .main
            .disk()
            .spoil(first, sectors, Fault::bad(Direction::Both));
        let device = remap.open();
        device.write(first, &stamps(first, sectors, 2)).unwrap();
        assert!(device.read(first, sectors).unwrap() == stamps(first, sectors, 2));
        let number = |key: &str| remap.device().status_value(key);
        assert_ne!(number("metadata_repairs").as_deref(), Some("0"));
        assert_eq!(number("replicas").as_deref(), Some("2"), "{replica}");
        drop(device);
        remap.reactivate();
        let device = remap.open();
        assert!(device.read(4096, 2048).unwrap() == stamps(4096, 2048, 1));
        assert!(device.read(first, sectors).unwrap() == stamps(first, sectors, 2));
        assert_eq!(remap.device().remapped(), 8 + 2 * 2048);
    }
}

/// P13: what a message moves it moves in parts of 64 KiB, so that nobody waits long. Each is one data pass,
/// one flush and two metadata writes for each replica at most.
#[test]
fn moving_a_megabyte_costs_little() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let remap = warm(block);
        remap.main.disk().heal(4096, 2048);
        remap.device().message("remap 4096 2048").unwrap();
        let cost = Cost::of(&remap);
        println!("remap of 1 MiB of {block} byte blocks: {cost:?}");
        assert_eq!(cost.data_sectors, 2048, "one data pass: {cost:?}");
        assert!(cost.flushes <= 16, "{cost:?}");
        let writes = cost.replicas.map(|blocks| blocks + cost.supers);
        assert!(
            writes.iter().all(|writes| (1..=32).contains(writes)),
            "{cost:?}"
        );
    }
}

/// P3: one whose data comes while the spare is being flushed has no part in that flush, nor in the commit
/// behind it, though it waits for both.
#[test]
fn data_that_comes_amid_a_flush_is_flushed_by_itself() {
    let _test = vmtest::begin!();
    let remap = warm(4096);
    let regions = [8192, 16384];
    for sector in regions {
        remap
            .main
            .disk()
            .spoil(sector, 8, Fault::bad(Direction::Both));
    }
    let holding = remap.spare.release_at_end();
    remap.spare.disk().hold_flushes();
    let came = |operation: Operation| {
        let disk = remap.spare.disk();
        let waits = disk
            .waiting()
            .iter()
            .any(|request| request.operation == operation);
        waits
            || disk
                .record()
                .entries()
                .iter()
                .any(|entry| entry.operation == operation)
    };
    thread::scope(|scope| {
        let write = |sector| {
            let device = remap.open();
            scope.spawn(move || device.write(sector, &stamps(sector, 8, 1)).unwrap())
        };
        write(regions[0]);
        assert!(eventually(|| came(Operation::Flush)));
        remap.record();
        write(regions[1]);
        assert!(eventually(|| came(Operation::Write)));
        // Whoever took it into the batch before would have to have seen it by then.
        thread::sleep(Duration::from_millis(300));
        drop(holding);
    });
    let cost = Cost::of(&remap);
    assert_eq!((cost.data_writes, cost.flushes), (1, 2), "{cost:?}");
    assert_eq!(cost.replicas, [2, 2], "{cost:?}");
    let device = remap.open();
    for sector in regions {
        assert!(device.read(sector, 8).unwrap() == stamps(sector, 8, 1));
    }
}

/// P13: writes that fail together share flushes and commits, wherever they are: of those that are under way, 64 at
/// a time, ten cost a flush and three metadata writes for each replica at most.
#[test]
fn scattered_writes_share_flushes_and_commits() {
    const WRITES: u64 = 600;
    const APART: u64 = 1 << 11;
    let _test = vmtest::begin!();
    let main = Options::memory((WRITES + 1) * APART * sickdisk::SECTOR).logical_block(4096);
    let spare = Options::memory(Remap::SPARE_SECTORS * sickdisk::SECTOR).logical_block(4096);
    let remap = Remap::on(main, spare, "");
    let bad = Fault::bad(Direction::Both);
    let first = WRITES * APART;
    remap.main.disk().spoil(first, 8, bad);
    remap.open().write(first, &stamps(first, 8, 1)).unwrap();
    for number in 0..WRITES {
        remap.main.disk().spoil(number * APART, 8, bad);
    }
    // Commits take longer than whatever else the machine does.
    let sectors = remap.spare.disk().sectors();
    let late = Duration::from_millis(100);
    for part in [0..sectors / 16, sectors - sectors / 16..sectors] {
        remap.spare.disk().lag(part, Direction::Write, late);
    }
    remap.record();
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let device = remap.open();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= WRITES {
                        break;
                    }
                    let sector = number * APART;
                    device.write(sector, &stamps(sector, 8, 1)).unwrap();
                }
            });
        }
    });
    let cost = Cost::of(&remap);
    println!("{WRITES} scattered blocks: {cost:?}");
    assert_eq!(remap.device().remapped(), WRITES + 1);
    assert_eq!(cost.data_sectors, WRITES * 8, "one data pass: {cost:?}");
    assert!(cost.flushes <= WRITES / 10, "{cost:?}");
    let writes = cost.replicas.map(|blocks| blocks + cost.supers);
    assert!(
        writes.iter().all(|writes| *writes <= WRITES * 3 / 10),
        "{cost:?}"
    );
    let device = remap.open();
    for number in 0..WRITES {
        let sector = number * APART;
        assert!(device.read(sector, 8).unwrap() == stamps(sector, 8, 1));
    }
}

/// P1, P3: a flush of the spare that fails is an error, and a later one does not vouch for the data
/// that it lost.
#[test]
fn a_spare_that_cannot_flush_takes_no_remaps() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap
        .main
        .disk()
        .spoil(100, 1, Fault::bad(Direction::Write));
    remap.spare.disk().fail_flushes(Status::Io, 1);
    assert!(device.write(96, &stamps(96, 8, 1)).is_err());
    assert_eq!(remap.device().remapped(), 0);
    device.write(96, &stamps(96, 8, 2)).unwrap();
    assert_eq!(remap.device().remapped(), 1);
    assert!(device.read(96, 8).unwrap() == stamps(96, 8, 2));
}

/// P6: a sector that only failed once is not moved.
#[test]
fn what_works_when_tried_again_stays() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    let weak = Fault::bad(Direction::Write).times(1);
    remap.main.disk().spoil(100, 1, weak);
    device.write(96, &stamps(96, 8, 1)).unwrap();
    assert!(device.read(96, 8).unwrap() == stamps(96, 8, 1));
    assert_eq!(remap.device().remapped(), 0);
    let mut content = vec![0; 512];
    remap.main.disk().peek(100, &mut content).unwrap();
    assert!(content == stamps(100, 1, 1), "main has it");
}

/// P6: errors that say nothing about the medium pass up as they are, and cost no slot.
#[test]
fn other_errors_pass_up_unchanged() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    let medium = [Status::Medium, Status::Io, Status::Target];
    for (status, name) in Status::ALL {
        if medium.contains(&status) {
            continue;
        }
        let fault = Fault::bad(Direction::Both).status(status);
        remap.main.disk().spoil(100, 8, fault);
        let error = device.write(100, &stamps(100, 8, 1)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(status.errno()), "write, {name}");
        let error = device.read(100, 8).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(status.errno()), "read, {name}");
        remap.main.disk().heal(100, 8);
        assert_eq!(remap.device().remapped(), 0, "{name}");
        assert_eq!(remap.device().pending(), 0, "{name}");
        assert_eq!(remap.device().status_fraction(2).0, 0, "{name}");
    }
    device.write(100, &stamps(100, 8, 2)).unwrap();
    assert!(device.read(100, 8).unwrap() == stamps(100, 8, 2));
}

/// P6: a drive that fails as a whole costs no slot, even if it calls that a medium error.
#[test]
fn a_dead_main_does_not_use_up_the_spare() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    for status in [Status::Medium, Status::Io] {
        remap.main.disk().die(status, Direction::Both);
        for sector in (0..1024).step_by(64) {
            assert!(device.write(sector, &stamps(sector, 64, 1)).is_err());
        }
        assert_eq!(remap.device().remapped(), 0, "{status:?}");
        remap.main.disk().revive();
        device.write(0, &stamps(0, 64, 2)).unwrap();
        assert!(device.read(0, 64).unwrap() == stamps(0, 64, 2));
    }
}

/// P7: when the spare is full, errors are the truth and what was remapped keeps working.
#[test]
fn a_full_spare_tells_the_truth() {
    let _test = vmtest::begin!();
    let main = Options::memory(64 << 20).logical_block(4096);
    let spare = Options::memory(1 << 20).logical_block(4096);
    let remap = Remap::on(main, spare, "");
    let device = remap.open();
    let (_, capacity) = remap.device().status_fraction(0);
    assert!(capacity > 16 && capacity < 256, "capacity {capacity}");
    let sectors = (capacity + 8) * 8;
    remap
        .main
        .disk()
        .spoil(8, sectors, Fault::bad(Direction::Both));
    let mut served = Vec::new();
    for sector in (8..8 + sectors).step_by(8) {
        if device.write(sector, &stamps(sector, 8, 1)).is_ok() {
            served.push(sector);
        }
    }
    assert_eq!(served.len() as u64, capacity);
    assert_eq!(remap.device().remapped(), capacity);
    for sector in served {
        device.write(sector, &stamps(sector, 8, 2)).unwrap();
        assert!(device.read(sector, 8).unwrap() == stamps(sector, 8, 2));
    }
    // The rest of main works as ever.
    device.write(0, &stamps(0, 8, 1)).unwrap();
}

/// P1: without automatic remapping, a failed write is an error.
#[test]
fn nothing_is_moved_when_that_is_switched_off() {
    let _test = vmtest::begin!();
    let remap = Remap::with(512, "2 auto_remap off");
    let device = remap.open();
    remap.main.disk().spoil(100, 1, Fault::bad(Direction::Both));
    assert!(device.write(100, &stamps(100, 1, 1)).is_err());
    assert_eq!(remap.device().remapped(), 0);
    remap.device().message("set_auto_remap 1").unwrap();
    device.write(100, &stamps(100, 1, 1)).unwrap();
    assert_eq!(remap.device().remapped(), 1);
}

/// P1, P2: whatever is written where, with sectors going bad at any time: what is read is what was
/// written last, on every sector of the device, and after it was made again, too.
#[test]
fn a_long_random_life() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let sectors = 16 << 11;
        let main = Options::memory(sectors * 512).logical_block(block);
        let spare = Options::memory(8 << 20).logical_block(block);
        let mut remap = Remap::on(main, spare, "");
        let unit = u64::from(block) / 512;
        let mut model = vec![0_u64; sectors as usize];
        let mut dice = Dice::new(block.into());
        let mut generation = 0;
        for round in 0..2 {
            let device = remap.open();
            for _ in 0..120 {
                if dice.roll(4) == 0 {
                    let sector = dice.roll(sectors / unit) * unit;
                    let fault = match dice.roll(3) {
                        0 => Fault::bad(Direction::Write),
                        1 => Fault::bad(Direction::Write).times(1),
                        _ => Fault::bad(Direction::Write).times(4),
                    };
                    let mut disk = remap.main.disk();
                    disk.spoil(sector, (1 + dice.roll(40)) * unit, fault);
                }
                generation += 1;
                let length = (1 + dice.roll(96)) * unit;
                let sector = dice.roll((sectors - length) / unit) * unit;
                device
                    .write(sector, &stamps(sector, length, generation))
                    .unwrap();
                model[sector as usize..(sector + length) as usize].fill(generation);
                let length = (1 + dice.roll(96)) * unit;
                let sector = dice.roll((sectors - length) / unit) * unit;
                check(&device, sector, length, &model);
            }
            for sector in (0..sectors).step_by(2048) {
                check(&device, sector, 2048, &model);
            }
            assert!(remap.device().remapped() > 0, "round {round}");
            drop(device);
            remap.reactivate();
        }
    }
}

fn check(device: &Direct, sector: u64, length: u64, model: &[u64]) {
    let found = identify(&device.read(sector, length).unwrap());
    for (sector, found) in (sector..).zip(found) {
        let expected = match model[sector as usize] {
            0 => Content::Blank,
            generation => Content::Stamp { sector, generation },
        };
        assert_eq!(found, expected, "sector {sector}");
    }
}
