// SPDX-License-Identifier: GPL-2.0
//! P6, E2: what is done about devices that fail as a whole: nothing is moved without proof of life,
//! breakers open, errors pass up, and the first success closes them.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::bad;
use super::number;
use super::slots_used;
use super::unreadable;
use super::unwritable;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Remap;

#[track_caller]
fn breaker(remap: &Remap) -> String {
    let value = remap.device().status_value("breaker");
    value.unwrap_or_else(|| panic!("no breaker in {}", remap.device().status()))
}

#[track_caller]
fn health(remap: &Remap) -> u64 {
    number(remap, "health")
}

/// A healthy device says so.
#[test]
fn all_breakers_are_closed_at_first() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    remap.open().write(0, &stamps(0, 64, 1)).unwrap();
    assert_eq!(breaker(&remap), "none");
    assert_eq!(health(&remap), 1);
}

/// A main that fails as a whole opens both breakers, costs no slot, and is asked once for each bio;
/// the first success of each direction closes its breaker.
#[test]
fn a_dead_main_opens_the_breakers() {
    let _test = vmtest::begin!();
    for status in [Status::Medium, Status::Io, Status::Target] {
        let remap = Remap::new(512);
        let device = remap.open();
        device.write(0, &stamps(0, 2048, 1)).unwrap();
        remap.main.disk().die(status, Direction::Both);
        for sector in (0..1024).step_by(64) {
            let error = device.write(sector, &stamps(sector, 64, 2)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(status.errno()));
            let error = device.read(sector, 64).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(status.errno()));
        }
        assert_eq!(breaker(&remap), "main_read,main_write", "{status:?}");
        assert_eq!(health(&remap), 0);
        assert_eq!(slots_used(&remap), 0, "{status:?}");

        // From now on nothing is tried again, but for a probe now and then.
        remap.record();
        for sector in (0..1024).step_by(16) {
            assert!(device.write(sector, &stamps(sector, 16, 2)).is_err());
            assert!(device.read(sector, 16).is_err());
        }
        let (reads, writes) = {
            let main = remap.main.disk();
            (main.record().reads, main.record().writes)
        };
        assert!((64..=128).contains(&writes), "{writes} writes for 64");
        assert!((64..=256).contains(&reads), "{reads} reads for 64");

        remap.main.disk().revive();
        device.write(0, &stamps(0, 64, 3)).unwrap();
        assert_eq!(breaker(&remap), "main_read");
        assert!(device.read(0, 64).unwrap() == stamps(0, 64, 3));
        assert_eq!(breaker(&remap), "none");
        assert_eq!(health(&remap), 1);
        // And what is bad is moved again.
        remap.main.disk().spoil(100, 1, bad());
        device.write(96, &stamps(96, 16, 3)).unwrap();
        assert_eq!(remap.device().remapped(), 1);
    }
}

/// A probe closes the breaker without any success of the user's: a failing bio is let through now
/// and then, and is served like any other if main lives.
#[test]
fn a_failing_bio_probes_once_a_second() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().die(Status::Medium, Direction::Both);
    for sector in (0..1024).step_by(64) {
        assert!(device.write(sector, &stamps(sector, 64, 1)).is_err());
    }
    assert_eq!(breaker(&remap), "main_write");
    remap.main.disk().revive();
    // All that the user ever writes to is bad, so that only a probe can succeed.
    remap.main.disk().spoil(0, 1024, bad());
    let mut sector = 0;
    let served = eventually(|| {
        sector = (sector + 8) % 1024;
        device.write(sector, &stamps(sector, 8, 2)).is_ok()
    });
    assert!(
        served,
        "no bio was let through: {}",
        remap.device().status()
    );
    assert!(device.read(sector, 8).unwrap() == stamps(sector, 8, 2));
    assert_eq!(breaker(&remap), "none");
}

/// A main that only fails writes uses up no more than a few slots: after the threshold, a healthy
/// block is written to see whether writes work at all. What was acknowledged is there.
#[test]
fn a_main_that_takes_no_writes_uses_up_few_slots() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 2048, 1)).unwrap();
    remap.main.disk().die(Status::Medium, Direction::Write);
    let mut served = Vec::new();
    for sector in (0..2048).step_by(64) {
        if device.write(sector, &stamps(sector, 1, 2)).is_ok() {
            served.push(sector);
        }
    }
    assert!(served.len() < 8, "{} writes were moved", served.len());
    assert_eq!(slots_used(&remap), served.len() as u64);
    assert_eq!(breaker(&remap), "main_write");
    assert_eq!(health(&remap), 0);
    for sector in (0..2048).step_by(64) {
        let read = device.read(sector, 1).unwrap();
        let generation = if served.contains(&sector) { 2 } else { 1 };
        assert!(read == stamps(sector, 1, generation), "sector {sector}");
    }
    remap.main.disk().revive();
    device.write(64, &stamps(64, 64, 3)).unwrap();
    assert_eq!(breaker(&remap), "none");
}

/// The threshold is the user's to set: 2 bios in a row, or no counting at all.
#[test]
fn the_threshold_is_heeded() {
    let _test = vmtest::begin!();
    for (threshold, moved) in [(2, 0..2), (0, 32..33)] {
        let remap = Remap::with(512, &format!("2 error_threshold {threshold}"));
        let device = remap.open();
        remap.main.disk().die(Status::Medium, Direction::Write);
        let written = (0..2048).step_by(64).filter(|&sector| {
            let data = stamps(sector, 1, 2);
            device.write(sector, &data).is_ok()
        });
        let written = written.count() as u64;
        assert!(
            moved.contains(&written),
            "{threshold}: {written} were moved"
        );
        assert_eq!(remap.device().remapped(), written);
    }
}

/// Half of main is dead: that is the medium, and all of it is moved; no breaker opens. Reads there
/// are pending, as the rest proves that main lives.
#[test]
fn half_of_main_may_be_dead() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let half = Remap::MAIN_SECTORS / 2;
    remap.main.disk().spoil(0, half, bad());
    let device = remap.open();
    for sector in (0..40 * 512).step_by(512) {
        device.write(sector, &stamps(sector, 8, 1)).unwrap();
    }
    assert_eq!(remap.device().remapped(), 40);
    for sector in (256..40 * 512).step_by(512) {
        assert!(device.read(sector, 8).is_err());
    }
    for sector in (0..40 * 512).step_by(512) {
        assert!(device.read(sector, 8).unwrap() == stamps(sector, 8, 1));
    }
    assert_eq!(remap.device().pending(), 40);
    assert_eq!(breaker(&remap), "none");
}

/// The write that shows whether main takes writes puts back what is there, also if somebody writes
/// there at the same time.
#[test]
fn a_probe_changes_nothing() {
    let _test = vmtest::begin!();
    // A small main, which is written all over, so that a probe meets somebody wherever it is.
    const PART: u64 = 256;
    let size = |mib: u64| Options::memory(mib << 20);
    let remap = Remap::on(size(4), size(8), "2 error_threshold 1");
    let device = remap.open();
    let bad = 64;
    remap.main.disk().spoil(bad, 8, unwritable());
    // Long enough for a write to come between the read of a probe and its write.
    let sectors = remap.main.disk().sectors();
    let slow = Duration::from_millis(30);
    remap.main.disk().slow(0..sectors, slow);
    let places = (4096..sectors).step_by(PART as usize);
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for place in places {
            let (remap, end) = (&remap, &end);
            scope.spawn(move || {
                let device = remap.open();
                for generation in 1.. {
                    let data = stamps(place, PART, generation);
                    device.write(place, &data).unwrap();
                    std::thread::sleep(2 * slow);
                    let read = device.read(place, PART).unwrap();
                    assert!(read == data, "an update from sector {place} on was lost");
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for sector in bad..bad + 8 {
            // It is no matter here whether the probe succeeds.
            let _ = device.write(sector, &stamps(sector, 1, 1));
        }
        end.store(true, Ordering::Relaxed);
    });
}

/// A spare that takes nothing opens its own breaker: moving is given up at once, no slot is marked
/// bad. The first write that it takes closes it.
#[test]
fn a_dead_spare_opens_its_own_breaker() {
    let _test = vmtest::begin!();
    for status in [Status::Medium, Status::Io] {
        let remap = Remap::new(512);
        let device = remap.open();
        remap.main.disk().spoil(0, 1, bad());
        device.write(0, &stamps(0, 8, 1)).unwrap();
        remap.main.disk().spoil(64, 1024, bad());
        remap.spare.disk().die(status, Direction::Both);
        for sector in (64..1024).step_by(64) {
            assert!(device.write(sector, &stamps(sector, 8, 2)).is_err());
        }
        assert_eq!(breaker(&remap), "spare", "{status:?}");
        assert_eq!(health(&remap), 0);
        assert_eq!(number(&remap, "bad_slots"), 0);
        assert_eq!(slots_used(&remap), 1);
        // Main works as ever.
        device.write(4096, &stamps(4096, 64, 1)).unwrap();

        remap.spare.disk().revive();
        device.write(0, &stamps(0, 8, 3)).unwrap();
        assert_eq!(breaker(&remap), "none");
        device.write(64, &stamps(64, 8, 3)).unwrap();
        assert!(device.read(64, 8).unwrap() == stamps(64, 8, 3));
    }
}

/// It is no different for one that stops in the middle of a large write: what it took is kept, and no slot is
/// written off for what it refused.
#[test]
fn a_spare_that_dies_under_a_large_write_has_no_bad_slots() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    let slots = remap.first_slot();
    remap.main.disk().spoil(64, 256, bad());
    let sectors = remap.spare.disk().sectors();
    let refused = slots + 4..sectors;
    let length = refused.end - refused.start;
    remap
        .spare
        .disk()
        .spoil(refused.start, length, unwritable());
    device.write(64, &stamps(64, 256, 1)).unwrap_err();
    assert_eq!(number(&remap, "bad_slots"), 0);
    assert_eq!(breaker(&remap), "spare");

    remap.spare.disk().heal(refused.start, length);
    device.write(64, &stamps(64, 256, 2)).unwrap();
    assert!(device.read(64, 256).unwrap() == stamps(64, 256, 2));
    assert_eq!(breaker(&remap), "none");
    assert_eq!(number(&remap, "bad_slots"), 0);
}

/// A scratch right under the slots that are set aside for a write is not a dead spare, however many of them are on it.
#[test]
fn a_scratch_under_slots_that_are_set_aside_is_left() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    let slots = remap.first_slot();
    remap.main.disk().spoil(64, 64, unreadable());
    for sector in 64..128 {
        device.read(sector, 1).unwrap_err();
    }
    // They get their slots in the background, which a suspend waits for.
    remap.device().suspend().unwrap();
    remap.device().resume().unwrap();
    assert_eq!(slots_used(&remap), 64);
    remap.spare.disk().spoil(slots, 40, unwritable());
    device.write(64, &stamps(64, 64, 1)).unwrap();
    assert!(device.read(64, 64).unwrap() == stamps(64, 64, 1));
    assert_eq!(number(&remap, "bad_slots"), 40);
    assert_eq!(breaker(&remap), "none");
}

/// A spare that is back is found out by moving itself, too, without a write to any slot.
#[test]
fn a_spare_that_is_back_is_found_out() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(64, 1024, bad());
    remap.spare.disk().die(Status::Io, Direction::Both);
    for sector in (64..1024).step_by(64) {
        assert!(device.write(sector, &stamps(sector, 8, 2)).is_err());
    }
    remap.spare.disk().revive();
    let served = || device.write(64, &stamps(64, 8, 3)).is_ok();
    assert!(eventually(served));
    assert_eq!(breaker(&remap), "none");
}

/// P9: a table that is shorter than main: what lies behind it is somebody else's, and is not written,
/// not even with what is there.
#[test]
fn probes_stay_inside_of_the_table() {
    let _test = vmtest::begin!();
    vmtest::guest::load();
    const LENGTH: u64 = 8192;
    let main = SickDisk::start(Options::memory(64 << 20)).unwrap();
    let spare = SickDisk::start(Options::memory(8 << 20)).unwrap();
    let mapped = Mapped::new(&format!(
        "0 {LENGTH} dm-remap {} {} 2 error_threshold 1",
        main.path().display(),
        spare.path().display()
    ));
    let device = Direct::open(&mapped.path());
    main.disk().spoil(0, LENGTH, unwritable());
    main.disk().record_mut().restart(true);
    for sector in (0..LENGTH).step_by(512) {
        let _ = device.write(sector, &stamps(sector, 8, 1));
    }
    let main = main.disk();
    let outside: Vec<_> = main
        .record()
        .entries()
        .iter()
        .filter(|entry| entry.operation == Operation::Write)
        .filter(|entry| entry.sector + entry.sectors > LENGTH)
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// An area that is worn out: it is read, but takes no writes. That is the medium, however many writes
/// in a row it fails, as the rest of main takes them.
#[test]
fn a_worn_area_is_the_medium() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    // 12 MiB in the middle.
    let (first, sectors) = (40_000, 24_576);
    remap.main.disk().spoil(first, sectors, unwritable());
    for round in 0..40 {
        let sector = first + round * 7919 % (sectors - 8);
        device
            .write(sector, &stamps(sector, 8, round + 1))
            .unwrap_or_else(|error| panic!("write {round}, sector {sector}: {error}"));
        assert!(device.read(sector, 8).unwrap() == stamps(sector, 8, round + 1));
    }
    assert_eq!(breaker(&remap), "none");
}

/// The same area of each MiB is bad, as a scratch across tracks makes it: what lies like the failed
/// block is no witness. That may be where anybody would look first: at the ends.
#[test]
fn regular_bad_areas_are_the_medium() {
    let _test = vmtest::begin!();
    for (fault, offset) in [(unwritable(), 1000), (bad(), 2016)] {
        let remap = Remap::new(512);
        let device = remap.open();
        for mib in 0..64 {
            remap.main.disk().spoil(mib * 2048 + offset, 32, fault);
        }
        for round in 0..60 {
            let sector = (round * 37 % 64) * 2048 + offset + (round / 16) * 8;
            device
                .write(sector, &stamps(sector, 8, 1))
                .unwrap_or_else(|error| panic!("write {round}, sector {sector}: {error}"));
        }
        let told = breaker(&remap);
        assert_eq!(told, "none", "from {offset} on");
    }
}

/// A message that moves blocks away from a main that takes no writes is no proof that it does.
#[test]
fn a_message_at_work_proves_nothing() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 2048, 1)).unwrap();
    remap.main.disk().die(Status::Medium, Direction::Write);
    // Each part takes long, so that there is always one under way.
    let (first, sectors) = (65_536, 32_768);
    remap
        .main
        .disk()
        .slow(first..first + sectors, Duration::from_millis(100));
    let message = format!("remap {first} {sectors}");
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| remap.device().message(&message));
        assert!(eventually(|| remap.main.disk().record().late > 0));
        let written = (0..2048).step_by(64).filter(|&sector| {
            let data = stamps(sector, 1, 2);
            device.write(sector, &data).is_ok()
        });
        let written = written.count();
        assert!(!mover.is_finished());
        remap.device().suspend_noflush().unwrap();
        remap.device().resume().unwrap();
        let _ = mover.join().unwrap();
        assert!(written < 16, "{written} blocks of a dead main were moved");
    });
}

/// A spare that was away, and is back with the one slot bad that is ever written: the write finds
/// another, and closes the breaker.
#[test]
fn a_bad_slot_does_not_keep_the_breaker_open() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(0, 1, bad());
    device.write(0, &stamps(0, 8, 1)).unwrap();
    let slot = remap.slot_of(0).expect("a slot");
    remap.main.disk().spoil(64, 1, bad());
    remap.spare.disk().die(Status::Transport, Direction::Both);
    assert!(device.write(64, &stamps(64, 8, 1)).is_err());
    remap.spare.disk().revive();
    remap.spare.disk().spoil(slot, 1, unwritable());
    let served = || device.write(0, &stamps(0, 8, 2)).is_ok();
    assert!(eventually(served), "{}", remap.device().status());
    assert!(device.read(0, 8).unwrap() == stamps(0, 8, 2));
    assert_ne!(remap.slot_of(0), Some(slot));
    assert_eq!(breaker(&remap), "none");
}
