// SPDX-License-Identifier: GPL-2.0
//! P8: write-zeroes and discards over good, remapped, pending and failing blocks.

use std::path::Path;

use super::bad;
use super::generations;
use super::unreadable;
use super::unwritable;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Entry;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::Remap;

/// Zeroes sectors as `fallocate` does it for a block device.
#[track_caller]
fn zero(path: &Path, sector: u64, sectors: u64) {
    let (offset, length) = (sector * 512, sectors * 512);
    succeed(&format!(
        "fallocate --zero-range -o {offset} -l {length} {}",
        path.display()
    ));
}

/// Blocks 0 to 64 of generation 1, of which 16 to 24 are remapped and 32 to 40 pending.
fn mixed(block: u32) -> Remap {
    let unit = u64::from(block) / 512;
    let remap = Remap::new(block);
    let device = remap.open();
    device.write(0, &stamps(0, 64 * unit, 1)).unwrap();
    remap.main.disk().spoil(16 * unit, 8 * unit, bad());
    device
        .write(16 * unit, &stamps(16 * unit, 8 * unit, 1))
        .unwrap();
    remap.main.disk().spoil(32 * unit, 8 * unit, unreadable());
    assert!(device.read(32 * unit, 8 * unit).is_err());
    assert_eq!(
        (remap.device().remapped(), remap.device().pending()),
        (8, 8)
    );
    remap
}

/// What was zeroed reads as zeroes wherever it was, and nothing else does.
#[test]
fn zeroes_reach_main_slots_and_pending_blocks() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = mixed(block);
        zero(&remap.path(), 8 * unit, 48 * unit);
        let device = remap.open();
        let found = generations(0, &device.read(0, 64 * unit).unwrap());
        for (sector, generation) in (0..).zip(found) {
            let zeroed = (8 * unit..56 * unit).contains(&sector);
            assert_eq!(generation, u64::from(!zeroed), "sector {sector}");
        }
        assert_eq!(remap.device().pending(), 0, "blocks of {block}");
        assert_eq!(remap.device().remapped(), 16, "blocks of {block}");
    }
}

/// Zeroes that main does not take are moved like any write: only where it fails.
#[test]
fn failed_zeroes_are_moved() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = Remap::new(block);
        let device = remap.open();
        device.write(0, &stamps(0, 64 * unit, 1)).unwrap();
        remap.main.disk().spoil(20 * unit, 3 * unit, unwritable());
        zero(&remap.path(), 8 * unit, 48 * unit);
        let found = generations(0, &device.read(0, 64 * unit).unwrap());
        for (sector, generation) in (0..).zip(found) {
            let zeroed = (8 * unit..56 * unit).contains(&sector);
            assert_eq!(generation, u64::from(!zeroed), "sector {sector}");
        }
        assert_eq!(remap.device().remapped(), 3, "blocks of {block}");
    }
}

/// After a discard each sector holds what it held, or zeroes; what was not discarded holds what it
/// held; what was lost is not found again; and all of it can be written.
#[test]
fn a_discard_makes_nothing_up() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = mixed(block);
        let (offset, length) = (8 * unit * 512, 48 * unit * 512);
        let path = remap.path();
        succeed(&format!(
            "blkdiscard --force -o {offset} -l {length} {}",
            path.display()
        ));
        let device = remap.open();
        for number in 0..64 {
            let sector = number * unit;
            let read = device.read(sector, unit);
            match number {
                32..40 => assert!(read.is_err(), "block {number}"),
                _ => {
                    let found = generations(sector, &read.unwrap());
                    let discarded = (8..56).contains(&number);
                    let true_one =
                        |&generation: &u64| generation == 1 || (discarded && generation == 0);
                    assert!(found.iter().all(true_one), "block {number}: {found:?}");
                }
            }
        }
        device.write(0, &stamps(0, 64 * unit, 2)).unwrap();
        assert!(device.read(0, 64 * unit).unwrap() == stamps(0, 64 * unit, 2));
    }
}

/// Discards of odd places and lengths, across everything, with neighbours that stay.
#[test]
fn discards_of_any_size_stay_in_their_range() {
    let _test = vmtest::begin!();
    let remap = mixed(512);
    let device = remap.open();
    device.write(0, &stamps(0, 64, 2)).unwrap();
    for (first, length) in [
        (0, 1),
        (15, 2),
        (15, 10),
        (23, 2),
        (24, 1),
        (31, 10),
        (63, 1),
    ] {
        device.write(0, &stamps(0, 64, 3)).unwrap();
        let path = remap.path();
        succeed(&format!(
            "blkdiscard --force -o {} -l {} {}",
            first * 512,
            length * 512,
            path.display()
        ));
        let found = generations(0, &device.read(0, 64).unwrap());
        for (sector, generation) in (0..).zip(found) {
            let discarded = (first..first + length).contains(&sector);
            assert!(
                generation == 3 || (discarded && generation == 0),
                "sector {sector} holds {generation} after {first}+{length}"
            );
        }
    }
}

/// Discards of main that reach the end of the device, in one request and in many.
#[test]
fn the_whole_device_can_be_discarded() {
    let _test = vmtest::begin!();
    let remap = mixed(512);
    let ran = run(&format!("blkdiscard --force {}", remap.path().display()));
    assert_eq!(ran.status, 0, "{ran:?}");
    let discards = remap.main.disk().record().discards;
    assert!(
        discards >= Remap::MAIN_SECTORS / 2048,
        "{discards} reached main"
    );
}

/// Zeroes go to main as what they are, if it knows them, and a punched hole is offered, too; where
/// main does not, the kernel writes them.
#[test]
fn zeroes_are_offered_if_main_has_them() {
    let _test = vmtest::begin!();
    let remap = mixed(512);
    remap.record();
    zero(&remap.path(), 0, 64);
    let zeroes = {
        let main = remap.main.disk();
        let entries = main.record().entries().iter();
        let zeroes = |entry: &&Entry| entry.operation == Operation::WriteZeroes;
        entries.filter(zeroes).count()
    };
    assert!(zeroes > 0, "main got no write-zeroes");
    remap.open().write(0, &stamps(0, 64, 2)).unwrap();
    succeed(&format!(
        "fallocate --punch-hole -o 4096 -l 24576 {}",
        remap.path().display()
    ));
    let found = generations(0, &remap.open().read(0, 64).unwrap());
    for (sector, generation) in (0..).zip(found) {
        let expected = if (8..56).contains(&sector) { 0 } else { 2 };
        assert_eq!(generation, expected, "sector {sector}");
    }

    let main = NullBlk::new(16, 512);
    let spare = NullBlk::new(8, 512);
    let mapped = Mapped::new(&format!(
        "0 32768 dm-remap {} {}",
        main.path().display(),
        spare.path().display()
    ));
    let device = Direct::open(&mapped.path());
    device.write(0, &stamps(0, 64, 1)).unwrap();
    main.spoil(20, 2);
    zero(&mapped.path(), 8, 48);
    let found = generations(0, &device.read(0, 64).unwrap());
    assert!(found[8..56].iter().all(|&generation| generation == 0));
    assert!(found[..8]
        .iter()
        .chain(&found[56..])
        .all(|&generation| generation == 1));
    assert_eq!(mapped.remapped(), 2);
}

/// An error of zeroes that says nothing about the medium is told, and moves nothing.
#[test]
fn innocent_errors_of_zeroes_pass_up() {
    let _test = vmtest::begin!();
    let remap = mixed(512);
    for status in [Status::Transport, Status::Offline, Status::NoSpace] {
        remap.main.disk().spoil(50, 1, unwritable().status(status));
        let ran = run(&format!(
            "fallocate --zero-range -o 24576 -l 4096 {}",
            remap.path().display()
        ));
        assert_ne!(ran.status, 0, "{status:?}");
        remap.main.disk().heal(50, 1);
        assert_eq!(remap.device().remapped(), 8, "{status:?}");
    }
}

/// A device on disks that discard and zero 2 GiB at a time, in which one block of main, at 21 MiB, is
/// remapped.
fn long(block: u32) -> (Remap, u64) {
    let disk = |sectors: u64| {
        Options::memory(sectors * 512)
            .logical_block(block)
            .long_discards()
    };
    let (main, spare) = (disk(Remap::MAIN_SECTORS), disk(Remap::SPARE_SECTORS));
    let remap = Remap::on(main, spare, "");
    let (sector, unit) = (21 * 2048, u64::from(block) / 512);
    remap.main.disk().spoil(sector, unit, bad());
    let device = remap.open();
    device.write(sector, &stamps(sector, unit, 1)).unwrap();
    assert_eq!(remap.device().remapped(), 1);
    (remap, sector)
}

/// What reached a disk of an operation, by where and how much.
fn reached(disk: &SickDisk, operation: Operation) -> Vec<(u64, u64)> {
    let disk = disk.disk();
    let entries = disk.record().entries().iter();
    let of_kind = entries.filter(|entry| entry.operation == operation);
    of_kind.map(|entry| (entry.sector, entry.sectors)).collect()
}

/// P8, P11: what has no data goes to main in pieces as long as nothing is remapped in them, however
/// long that is.
#[test]
fn long_ones_are_cut_at_remaps_only() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let (remap, sector) = long(block);
        let unit = u64::from(block) / 512;
        let end = Remap::MAIN_SECTORS;
        let name = remap.path();
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        let read = |limit: &str| {
            let path = format!("/sys/block/{name}/queue/{limit}");
            let text = std::fs::read_to_string(&path).expect(&path);
            text.trim().parse::<u64>().expect(&path)
        };
        assert_eq!(read("write_zeroes_max_bytes"), 2 << 30);
        assert_eq!(read("discard_max_bytes"), 2 << 30);

        let pieces = [(0, sector), (sector + unit, end - sector - unit)];
        remap.record();
        succeed(&format!("blkdiscard --force {}", remap.path().display()));
        assert_eq!(reached(&remap.main, Operation::Discard), pieces);

        let device = remap.open();
        for at in [0, sector - unit, sector + unit, end - unit] {
            device.write(at, &stamps(at, unit, 1)).unwrap();
        }
        remap.record();
        zero(&remap.path(), 0, end);
        assert_eq!(reached(&remap.main, Operation::WriteZeroes), pieces);
        assert_eq!(reached(&remap.spare, Operation::WriteZeroes).len(), 1);
        for at in (0..end).step_by(2048) {
            let found = generations(at, &device.read(at, 2048).unwrap());
            assert!(found.iter().all(|&generation| generation == 0), "{at}");
        }
    }
}

/// P1, E7: of long zeroes that fail only the bad block moves, and the others are zeroed in place, as
/// zeroes and not as data.
#[test]
fn long_zeroes_that_fail_are_moved() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let (remap, _) = long(block);
        let unit = u64::from(block) / 512;
        let (end, sector) = (Remap::MAIN_SECTORS, 41 * 2048 + 80);
        let device = remap.open();
        for at in [sector - unit, sector, sector + unit, end - unit] {
            device.write(at, &stamps(at, unit, 1)).unwrap();
        }
        remap.main.disk().spoil(sector, unit, unwritable());
        remap.record();
        zero(&remap.path(), 0, end);
        assert_eq!(remap.device().remapped(), 2, "blocks of {block}");
        for at in (0..end).step_by(2048) {
            let found = generations(at, &device.read(at, 2048).unwrap());
            assert!(found.iter().all(|&generation| generation == 0), "{at}");
        }
        let data = reached(&remap.main, Operation::Write);
        let sectors: u64 = data.iter().map(|(_, sectors)| sectors).sum();
        assert!(sectors < 2048, "{sectors} were written as data");
    }
}
