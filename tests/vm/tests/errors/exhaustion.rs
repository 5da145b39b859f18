// SPDX-License-Identifier: GPL-2.0
//! P7: what happens when slots run out or go bad, and when the spare does not work.

use super::bad;
use super::number;
use super::slots_used;
use super::unreadable;
use super::unwritable;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Remap;
use vmtest::guest::Uevents;

/// Main of 16 MiB, and a spare with few slots. Returns how many.
fn small(arguments: &str) -> (Remap, u64) {
    let main = Options::memory(16 << 20).logical_block(4096);
    let spare = Options::memory(1 << 20).logical_block(4096);
    let remap = Remap::on(main, spare, arguments);
    let (_, capacity) = remap.device().status_fraction(0);
    assert!(capacity > 20 && capacity < 256, "capacity {capacity}");
    (remap, capacity)
}

/// The first sector of block number `number`.
fn at(number: u64) -> u64 {
    number * 8
}

/// One event at the low-water mark, one when the last slot is taken, and none without cause.
#[test]
fn events_at_low_water_and_at_exhaustion() {
    let _test = vmtest::begin!();
    let (remap, capacity) = small("2 low_water 20");
    let low = capacity - capacity * 20 / 100;
    let device = remap.device();
    let seen = device.events();
    let message = |first: u64, blocks: u64| {
        let (first, sectors) = (at(first), at(blocks));
        device.message(&format!("remap {first} {sectors}")).unwrap();
    };
    message(0, low - 1);
    assert_eq!(device.events(), seen, "more than the mark is left");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| device.wait_for_event(seen));
        std::thread::sleep(std::time::Duration::from_millis(200));
        message(low - 1, 2);
        assert!(waiter.join().unwrap(), "nobody was told of the mark");
    });
    assert_eq!(device.events(), seen + 1, "the mark");
    message(low + 1, capacity - low - 2);
    assert_eq!(device.events(), seen + 1, "one slot is left");
    message(capacity - 1, 1);
    assert_eq!(device.events(), seen + 2, "no slot is left");
    assert_eq!(device.remapped(), capacity);
}

/// The same for slots that the worker takes.
#[test]
fn events_come_from_failed_writes_too() {
    let _test = vmtest::begin!();
    let (remap, capacity) = small("");
    let device = remap.device();
    let seen = device.events();
    let sectors = at(capacity);
    remap.main.disk().spoil(0, sectors, unwritable());
    let opened = remap.open();
    let half = sectors / 2;
    let uevents = Uevents::listen();
    opened.write(0, &stamps(0, half, 1)).unwrap();
    let told = uevents.wait_for("remap");
    assert_eq!(told.count("low_water"), 0, "more than the mark is left");
    opened
        .write(half, &stamps(half, sectors - half, 1))
        .unwrap();
    uevents.wait_for("exhausted");
    assert!(device.wait_for_event(seen + 1));
    assert_eq!(device.remapped(), capacity);
    assert!(opened.read(0, sectors).unwrap() == stamps(0, sectors, 1));
}

/// With no slot left, a failed write is an error with the drive's own number, a lost block stays an
/// error, and everything that was remapped is served.
#[test]
fn errors_are_true_when_the_spare_is_full() {
    let _test = vmtest::begin!();
    let (remap, capacity) = small("");
    let device = remap.open();
    let full = at(capacity);
    device.write(0, &stamps(0, full + 64, 1)).unwrap();
    remap.device().message(&format!("remap 0 {full}")).unwrap();
    for status in [Status::Medium, Status::Io, Status::Target] {
        remap.main.disk().spoil(full, 8, bad().status(status));
        let error = device.read(full, 8).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(status.errno()),
            "read, {status:?}"
        );
        assert!(
            device.write(full, &stamps(full, 8, 2)).is_err(),
            "{status:?}"
        );
        remap.main.disk().heal(full, 8);
        assert_eq!(slots_used(&remap), capacity);
    }
    // A part that fails does not take the rest with it for ever.
    device.write(0, &stamps(0, full + 64, 3)).unwrap();
    assert!(device.read(0, full + 64).unwrap() == stamps(0, full + 64, 3));
    let condition = remap.device().status_value("condition");
    assert_ne!(
        condition.as_deref(),
        Some("good"),
        "{}",
        remap.device().status()
    );
}

/// A slot that is free again is used again, and its old content never shows.
#[test]
fn freed_slots_are_used_again() {
    let _test = vmtest::begin!();
    let (mut remap, capacity) = small("");
    let full = at(capacity);
    {
        let device = remap.open();
        device.write(0, &stamps(0, full + 64, 1)).unwrap();
        remap.device().message(&format!("remap 0 {full}")).unwrap();
        remap.main.disk().spoil(full, 64, bad());
        assert!(device.write(full, &stamps(full, 64, 2)).is_err());
        remap
            .device()
            .message(&format!("remove_remap 0 {}", at(8)))
            .unwrap();
        assert_eq!(remap.device().remapped(), capacity - 8);
        device.write(full, &stamps(full, 64, 3)).unwrap();
        assert_eq!(remap.device().remapped(), capacity);
    }
    for _ in 0..2 {
        let device = remap.open();
        assert!(device.read(0, full).unwrap() == stamps(0, full, 1));
        assert!(device.read(full, 64).unwrap() == stamps(full, 64, 3));
        drop(device);
        remap.reactivate();
    }
}

/// A remap of a remap: a slot that fails a write is marked bad and another takes its place, as often
/// as it happens, also over an activation.
#[test]
fn slots_that_fail_are_replaced_again_and_again() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    remap.main.disk().spoil(96, 16, bad());
    remap.open().write(96, &stamps(96, 16, 1)).unwrap();
    for round in 1..6 {
        let slot = remap.slot_of(100).expect("a slot");
        remap.spare.disk().spoil(slot, 1, bad());
        let device = remap.open();
        device.write(96, &stamps(96, 16, round + 1)).unwrap();
        assert!(device.read(96, 16).unwrap() == stamps(96, 16, round + 1));
        let another = remap.slot_of(100).expect("another slot");
        assert_ne!(another, slot, "round {round}");
        assert_eq!(number(&remap, "bad_slots"), round);
        assert_eq!(remap.device().remapped(), 16);
        drop(device);
        if round == 3 {
            remap.reactivate();
        }
    }
}

/// Several free slots in a row that fail, met by one bio: each is marked, and the bio succeeds.
#[test]
fn slots_that_fail_at_first_use_are_passed_over() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    remap.device().message("remap 0").unwrap();
    let first = remap.slot_of(0).expect("a slot");
    // Every second one of those that come next.
    for slot in 1..6 {
        remap.spare.disk().spoil(first + 2 * slot, 1, unwritable());
    }
    remap.main.disk().spoil(100, 8, bad());
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    assert!(device.read(96, 16).unwrap() == stamps(96, 16, 1));
    assert_eq!(remap.device().remapped(), 9);
    let marked = number(&remap, "bad_slots");
    assert!((1..=5).contains(&marked), "{marked} slots are marked");
}

/// A slot that cannot be read any more is an error until its block is written, which moves it.
#[test]
fn a_slot_that_becomes_unreadable_is_an_error_until_it_is_written() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(96, 4, bad());
    device.write(96, &stamps(96, 4, 1)).unwrap();
    let slot = remap.slot_of(97).expect("a slot");
    remap.spare.disk().spoil(slot, 1, unreadable());
    for _ in 0..2 {
        assert!(device.read(97, 1).is_err());
        assert!(device.read(96, 4).is_err());
        assert!(device.read(98, 2).unwrap() == stamps(98, 2, 1));
    }
    remap.spare.disk().spoil(slot, 1, bad());
    device.write(97, &stamps(97, 1, 2)).unwrap();
    assert!(device.read(97, 1).unwrap() == stamps(97, 1, 2));
    assert_ne!(remap.slot_of(97), Some(slot));
}

/// P6, P7: a spare that is gone: what lies on it is an error, main works as ever, nothing is marked
/// bad; and when it is back, so is everything.
#[test]
fn a_spare_that_is_gone_takes_nothing_else_with_it() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(96, 4, bad());
    device.write(64, &stamps(64, 64, 1)).unwrap();
    remap.main.disk().spoil(256, 4, bad());
    for status in [
        Status::Offline,
        Status::Transport,
        Status::Io,
        Status::Medium,
    ] {
        remap.spare.disk().die(status, Direction::Both);
        for _ in 0..3 {
            assert!(device.read(96, 4).is_err(), "{status:?}");
            assert!(device.write(96, &stamps(96, 4, 9)).is_err(), "{status:?}");
            assert!(device.write(256, &stamps(256, 4, 9)).is_err(), "{status:?}");
            device.write(512, &stamps(512, 64, 1)).unwrap();
            assert!(device.read(512, 64).unwrap() == stamps(512, 64, 1));
            assert!(device.read(64, 32).unwrap() == stamps(64, 32, 1));
        }
        assert_eq!(number(&remap, "bad_slots"), 0, "{status:?}");
        assert_eq!(remap.device().remapped(), 4, "{status:?}");
        remap.spare.disk().revive();
        let read = device.read(64, 64).unwrap();
        assert!(
            read == stamps(64, 64, 1),
            "{status:?}: what failed was not written"
        );
    }
    // The first write that the spare takes again shows that it lives.
    device.write(96, &stamps(96, 4, 2)).unwrap();
    device.write(256, &stamps(256, 4, 2)).unwrap();
    assert!(device.read(256, 4).unwrap() == stamps(256, 4, 2));
    assert_eq!(remap.device().remapped(), 8);
}

/// A spare that takes no writes any more: what lies on it is read, writes to it are errors, no slot
/// is marked bad, and main works as ever.
#[test]
fn a_spare_that_became_read_only_is_still_read() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(96, 4, bad());
    device.write(64, &stamps(64, 64, 1)).unwrap();
    remap.main.disk().spoil(256, 40, bad());
    for status in [Status::Target, Status::Io] {
        remap.spare.disk().die(status, Direction::Write);
        for _ in 0..3 {
            assert!(device.read(64, 64).unwrap() == stamps(64, 64, 1));
            assert!(device.write(96, &stamps(96, 4, 9)).is_err(), "{status:?}");
            assert!(
                device.write(256, &stamps(256, 40, 9)).is_err(),
                "{status:?}"
            );
        }
        device.write(512, &stamps(512, 64, 1)).unwrap();
        assert_eq!(number(&remap, "bad_slots"), 0, "{status:?}");
        remap.spare.disk().revive();
        assert!(
            device.read(64, 64).unwrap() == stamps(64, 64, 1),
            "{status:?}"
        );
    }
    // The first write that the spare takes again shows that it lives.
    device.write(96, &stamps(96, 4, 2)).unwrap();
    device.write(256, &stamps(256, 40, 2)).unwrap();
    assert!(device.read(96, 4).unwrap() == stamps(96, 4, 2));
    assert_eq!(remap.device().remapped(), 44);
}

/// P4: a scratch on the spare, of more slots in a row than anybody wants to try one by one, is passed
/// over: there are good slots behind it.
#[test]
fn a_scratch_on_the_spare_is_passed_over() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    remap.device().message("remap 0").unwrap();
    let first = remap.slot_of(0).expect("a slot");
    remap.spare.disk().spoil(first + 1, 200, unwritable());
    let device = remap.open();
    for sector in (100..1000).step_by(100) {
        remap.main.disk().spoil(sector, 2, bad());
        device
            .write(sector, &stamps(sector, 2, 1))
            .unwrap_or_else(|error| panic!("sector {sector}: {error}"));
        assert!(device.read(sector, 2).unwrap() == stamps(sector, 2, 1));
    }
    assert_eq!(
        remap.device().status_value("breaker").as_deref(),
        Some("none")
    );
    assert_eq!(remap.device().remapped(), 19);
}

/// A write that main failed and the spare cannot take either fails with main's error, not with the
/// spare's.
#[test]
fn the_error_that_is_told_is_that_of_main() {
    let _test = vmtest::begin!();
    for status in [Status::Transport, Status::Offline, Status::Io] {
        let remap = Remap::new(512);
        let device = remap.open();
        remap.main.disk().spoil(100, 1, unwritable());
        remap.spare.disk().fail_flushes(status, 1);
        let error = device.write(100, &stamps(100, 1, 1)).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(61),
            "the flush failed: {status:?}"
        );
        let _ = device.flush();
        remap.spare.disk().die(status, Direction::Write);
        let error = device.write(100, &stamps(100, 1, 1)).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(61),
            "the write failed: {status:?}"
        );
    }
}

/// P4: a slot that fails a write loses nothing, also while no new remaps are wanted.
#[test]
fn a_bad_slot_is_replaced_without_auto_remap() {
    let _test = vmtest::begin!();
    let remap = Remap::with(512, "2 auto_remap off");
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    remap.device().message("remap 100").unwrap();
    let slot = remap.slot_of(100).expect("a slot");
    remap.spare.disk().spoil(slot, 1, bad());
    device.write(96, &stamps(96, 16, 2)).unwrap();
    assert!(device.read(96, 16).unwrap() == stamps(96, 16, 2));
    assert_ne!(remap.slot_of(100), Some(slot));
}

/// P13: a spare whose slots are all set aside for blocks that cannot be read gives as many away in one commit
/// as a write needs, be its bad blocks neighbours or not.
#[test]
fn slots_that_are_set_aside_are_taken_together() {
    let _test = vmtest::begin!();
    let (remap, capacity) = small("");
    let device = remap.open();
    remap.main.disk().spoil(0, at(capacity), unreadable());
    for block in 0..capacity {
        device.read(at(block), 8).unwrap_err();
    }
    assert_eq!(remap.device().pending(), capacity);
    // They get their slots in the background, which a suspend waits for.
    remap.device().suspend().unwrap();
    remap.device().resume().unwrap();
    let saves = || {
        let saves = remap.device().status_value("saves").expect("saves");
        let (done, _) = saves.split_once('/').expect("two numbers");
        done.parse::<u64>().expect("a number")
    };
    for (first, step) in [(1000, 1), (2000, 2)] {
        for block in (first..first + 64).step_by(step) {
            remap.main.disk().spoil(at(block), 8, unwritable());
        }
        let before = saves();
        device
            .write(at(first), &stamps(at(first), at(64), 1))
            .unwrap();
        let took = saves() - before;
        assert!(took <= 8, "{took} commits for every block in {step}");
        assert!(device.read(at(first), at(64)).unwrap() == stamps(at(first), at(64), 1));
    }
    assert_eq!(remap.device().remapped(), 96);
    assert_eq!(remap.device().pending(), capacity - 96);
    for block in 0..capacity {
        device.read(at(block), 8).unwrap_err();
    }
}

/// P10: many large writes that fail at once, and together need more room than the map in memory has: with a nearly
/// empty spare, none of them fails for want of it.
#[test]
fn there_is_room_for_all_that_fails_at_once() {
    let _test = vmtest::begin!();
    let remap = Remap::on(Options::memory(64 << 20), Options::memory(40 << 20), "");
    remap.main.disk().spoil(0, 12 * 4096, unwritable());
    // Each of them is one bio.
    std::thread::scope(|scope| {
        for number in 0..12 {
            let path = remap.path();
            scope.spawn(move || {
                let offset = number * 4096 * 512;
                vmtest::guest::succeed(&format!(
                    "fallocate --zero-range -o {offset} -l {} {}",
                    2 << 20,
                    path.display()
                ));
            });
        }
    });
    assert_eq!(remap.device().remapped(), 12 * 4096);
    let read = remap.open().read(0, 1024).unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
}

/// P16: a spare that does not answer is asked whether it lives once a second, and not by each who has to write
/// metadata.
#[test]
fn a_spare_that_is_silent_is_asked_now_and_then() {
    let _test = vmtest::begin!();
    for status in [Status::Medium, Status::Io, Status::Offline] {
        let remap = Remap::new(4096);
        for block in 0..40 {
            remap.main.disk().spoil(at(block), 8, unreadable());
        }
        let begun = std::time::Instant::now();
        let mut spare = remap.spare.disk();
        spare.die(status, Direction::Both);
        spare.record_mut().restart(false);
        drop(spare);
        for block in 0..40 {
            assert!(remap.open().read(at(block), 8).is_err());
        }
        remap.device().suspend().unwrap();
        let asked = remap.spare.disk().record().reads;
        // There are four copies of the superblock; and the block that is about to be written is read.
        let most = 2 * 41 + 4 * (begun.elapsed().as_secs() + 1);
        assert!(asked <= most, "{status:?}: asked {asked} times, not {most}");
        remap.spare.disk().revive();
        remap.device().resume().unwrap();
    }
}
