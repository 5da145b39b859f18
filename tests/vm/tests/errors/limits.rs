// SPDX-License-Identifier: GPL-2.0
//! P6, P9: the numbers that say how errors are met: in the table line, by message, and over reloads.

use std::time::Duration;

use super::unreadable;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

const NAMES: [&str; 4] = [
    "read_retries",
    "error_threshold",
    "low_water",
    "deadline_ms",
];

/// Each can be set by message, answers with what it is now, and refuses what it may not be.
#[test]
fn limits_are_set_by_message() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.device();
    for (name, good, wrong) in [
        (NAMES[0], ["0", "100"], ["101", "-1"]),
        (NAMES[1], ["0", "1000000"], ["1000001", "x"]),
        (NAMES[2], ["0", "100"], ["101", "1.5"]),
        (NAMES[3], ["100", "600000"], ["99", "600001"]),
    ] {
        for value in good {
            let reply = device.message(&format!("set {name} {value}")).unwrap();
            assert_eq!(reply, format!("{name}={value}"));
        }
        for value in wrong {
            let refusal = device.message(&format!("set {name} {value}")).unwrap_err();
            assert!(!refusal.reason.is_empty(), "{name} {value}");
        }
    }
    for message in ["set", "set low_water", "set frob 1", "set low_water 1 2"] {
        assert!(device.message(message).is_err(), "{message}");
    }
}

/// A number in the line of a table counts when that is first resumed; later a message does; a table
/// that says nothing leaves it; the next one that names it has its way again.
#[test]
fn what_was_said_last_counts() {
    let _test = vmtest::begin!();
    let remap = Remap::with(512, "2 error_threshold 0");
    let opened = remap.open();
    let device = remap.device();
    // How many writes are moved before main is found not to take any.
    let mut place = 0;
    let mut moved = || {
        remap.main.disk().die(Status::Medium, Direction::Write);
        let mut moved = 0;
        for _ in 0..12 {
            place += 64;
            moved += u64::from(opened.write(place, &stamps(place, 1, 1)).is_ok());
        }
        remap.main.disk().revive();
        opened.write(0, &stamps(0, 1, 1)).unwrap();
        moved
    };
    assert_eq!(moved(), 12, "nothing is counted");
    device.message("set error_threshold 3").unwrap();
    assert!(moved() < 3, "the message");
    let plain = remap.line().replace(" 2 error_threshold 0", "");
    for line in [&plain, &plain] {
        device.load(line).unwrap();
        device.resume().unwrap();
        assert!(moved() < 3, "a table that says nothing");
    }
    device.suspend().unwrap();
    device.resume().unwrap();
    assert!(moved() < 3, "the same table");
    device.load(&remap.line()).unwrap();
    device.resume().unwrap();
    assert_eq!(moved(), 12, "a table that says 0");
}

/// So many times is a block tried again before it counts as unreadable.
#[test]
fn reads_are_tried_again_as_often_as_said() {
    let _test = vmtest::begin!();
    let remap = Remap::with(512, "2 read_retries 0");
    let device = remap.open();
    device.write(0, &stamps(0, 64, 1)).unwrap();
    for (retries, sector) in [(0, 8), (5, 16)] {
        let message = format!("set read_retries {retries}");
        remap.device().message(&message).unwrap();
        // The user's try, the worker's, and those.
        let tries = 2 + retries;
        remap
            .main
            .disk()
            .spoil(sector, 1, unreadable().times(tries));
        assert!(
            device.read(sector, 1).is_err(),
            "{retries}: {tries} failures"
        );
        let sector = sector + 32;
        remap
            .main
            .disk()
            .spoil(sector, 1, unreadable().times(tries - 1));
        let read = device.read(sector, 1);
        assert!(
            read.is_ok_and(|data| data == stamps(sector, 1, 1)),
            "{retries}"
        );
    }
}

/// The deadline that is set by message is the one that is kept.
#[test]
fn the_deadline_of_a_message_is_kept() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    device.write(0, &stamps(0, 512, 1)).unwrap();
    remap.main.disk().spoil(0, 512, unreadable());
    remap.main.disk().slow(0..512, Duration::from_millis(100));
    remap.device().message("set deadline_ms 300").unwrap();
    remap.main.disk().record_mut().restart(false);
    assert!(device.read(0, 512).is_err());
    // The first try, what fits into the time, and what is under way then; all of it would be more than 64.
    let asked = remap.main.disk().record().late;
    assert!(asked <= 1 + 3 + 2, "{asked} slow I/Os");
}
