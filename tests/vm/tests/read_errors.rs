// SPDX-License-Identifier: GPL-2.0
//! Reads that fail: what can be read is read, what cannot is an honest error until it is written.

use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;

use vmtest::guest::drop_caches;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

/// ENODATA: what a medium error becomes.
const MEDIUM: Option<i32> = Some(61);

/// P2: an unreadable sector is an error, each time, and its neighbours are not.
#[test]
fn an_unreadable_sector_is_an_honest_error() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = Remap::new(block);
        let device = remap.open();
        device.write(0, &stamps(0, 128, 1)).unwrap();
        remap.main.disk().spoil(64, 1, Fault::bad(Direction::Read));
        for _ in 0..3 {
            let error = device.read(64, unit).unwrap_err();
            assert_eq!(error.raw_os_error(), MEDIUM);
        }
        assert!(device.read(0, 128).is_err());
        assert!(device.read(0, 64).unwrap() == stamps(0, 64, 1));
        let behind = 64 + unit;
        assert!(device.read(behind, 32).unwrap() == stamps(behind, 32, 1));
        assert_eq!(remap.device().pending(), 1);
        assert_eq!(remap.device().remapped(), 0);
        let errors = remap.device().status_value("errors").unwrap();
        assert!(!errors.ends_with("R0"), "{errors}");
    }
}

/// E4: the next write of a pending block goes to the spare, also if main would take it, and heals.
#[test]
fn writing_a_lost_sector_heals_it() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    let unreadable = Fault::bad(Direction::Read);
    remap.main.disk().spoil(100, 1, unreadable);
    assert!(device.read(100, 1).is_err());
    assert_eq!(remap.device().pending(), 1);

    device.write(100, &stamps(100, 1, 2)).unwrap();
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 2));
    assert_eq!(remap.device().pending(), 0);
    assert_eq!(remap.device().remapped(), 1);
    let mut expected = stamps(96, 4, 1);
    expected.extend(stamps(100, 1, 2));
    expected.extend(stamps(101, 11, 1));
    assert!(device.read(96, 16).unwrap() == expected);
}

/// E4: pending is a hint: a sector that can be read again is read.
#[test]
fn a_sector_that_recovers_is_read() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(100, &stamps(100, 1, 1)).unwrap();
    remap.main.disk().spoil(100, 1, Fault::bad(Direction::Read));
    assert!(device.read(100, 1).is_err());
    remap.main.disk().heal(100, 1);
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 1));
}

/// P2: a weak sector is tried again, and read.
#[test]
fn a_weak_sector_is_read() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    let weak = Fault::bad(Direction::Read).times(1);
    remap.main.disk().spoil(100, 1, weak);
    assert!(device.read(96, 16).unwrap() == stamps(96, 16, 1));
}

/// P8: a failed read-ahead never costs anything: nobody asked for that data.
#[test]
fn read_ahead_costs_nothing() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 2048, 1)).unwrap();
    // Far enough for the first page not to be it, near enough to be read ahead.
    let dead_end = Fault::bad(Direction::Read);
    remap.main.disk().spoil(64, 8, dead_end);
    drop_caches();
    let mut file = std::fs::File::open(remap.path()).unwrap();
    let mut page = vec![0; 4096];
    for _ in 0..4 {
        file.read_exact(&mut page).unwrap();
    }
    file.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(remap.device().remapped(), 0);
    assert_eq!(remap.device().pending(), 0);
    // Who really asks is told, through the page cache, too.
    let mut all = Vec::new();
    assert!(file.read_to_end(&mut all).is_err());
    assert_eq!(remap.device().remapped(), 0);
}

/// P4: a slot that becomes unreadable loses its block, honestly, until it is written again.
#[test]
fn an_unreadable_slot_loses_its_block_only() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    let bad = Fault::bad(Direction::Both);
    remap.main.disk().spoil(100, 4, bad);
    device.write(96, &stamps(96, 16, 1)).unwrap();
    let slot = {
        let spare = remap.spare.disk();
        (0..spare.sectors())
            .find(|&sector| {
                let mut data = vec![0; 512];
                spare.peek(sector, &mut data).unwrap();
                data == stamps(101, 1, 1)
            })
            .expect("the slot of sector 101")
    };
    remap.spare.disk().spoil(slot, 1, bad);
    assert!(device.read(101, 1).is_err());
    for sector in [100, 102, 103] {
        assert!(device.read(sector, 1).unwrap() == stamps(sector, 1, 1));
    }
    device.write(101, &stamps(101, 1, 2)).unwrap();
    assert!(device.read(101, 1).unwrap() == stamps(101, 1, 2));
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 1));
}

/// P6: a dead main makes no block pending.
#[test]
fn a_dead_main_leaves_nothing_pending() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 512, 1)).unwrap();
    for status in [Status::Offline, Status::Io] {
        remap.main.disk().die(status, Direction::Both);
        for sector in (0..512).step_by(64) {
            assert!(device.read(sector, 64).is_err());
        }
        remap.main.disk().revive();
        assert_eq!(remap.device().pending(), 0, "{status:?}");
        assert!(device.read(0, 512).unwrap() == stamps(0, 512, 1));
    }
}
