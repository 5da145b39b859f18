// SPDX-License-Identifier: GPL-2.0
//! P6, P17: a device that fails as a whole is told, whatever its errors are called: by `breaker=`,
//! `health=0`, the counters and an event. Only remapping depends on what the errors are.

use super::number;
use super::slots_used;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

#[track_caller]
fn expect(remap: &Remap, breaker: &str, health: u64) {
    let status = remap.device().status();
    let told = remap.device().status_value("breaker");
    assert_eq!(told.as_deref(), Some(breaker), "{status}");
    assert_eq!(number(remap, "health"), health, "{status}");
}

/// Errors that no medium makes go up as they are, and take no slot; many in a row are a main that is gone.
/// It is back with the first success of each direction.
#[test]
fn a_main_that_is_gone_is_told() {
    let _test = vmtest::begin!();
    for status in [
        Status::Offline,
        Status::Timeout,
        Status::Transport,
        Status::Reservation,
    ] {
        let remap = Remap::new(512);
        let device = remap.open();
        device.write(0, &stamps(0, 2048, 1)).unwrap();
        let seen = remap.device().events();
        remap.main.disk().die(status, Direction::Both);
        for sector in (0..1280).step_by(64) {
            let error = device.write(sector, &stamps(sector, 64, 2)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(status.errno()));
            let error = device.read(sector, 64).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(status.errno()));
        }
        expect(&remap, "main_read,main_write", 0);
        let told = remap.device().status_value("errors");
        assert_eq!(told.as_deref(), Some("W20:R20"), "{status:?}");
        assert_eq!(slots_used(&remap), 0, "{status:?}");
        assert!(
            remap.device().wait_for_event(seen),
            "{status:?}: nobody was told"
        );

        remap.main.disk().revive();
        device.write(0, &stamps(0, 64, 3)).unwrap();
        expect(&remap, "main_read", 0);
        assert!(device.read(0, 64).unwrap() == stamps(0, 64, 3));
        expect(&remap, "none", 1);
    }
}

/// A few such errors between successes are no reason to be alarmed.
#[test]
fn some_errors_are_no_death() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    for _ in 0..3 {
        for dead in [true, false] {
            match dead {
                true => remap.main.disk().die(Status::Transport, Direction::Both),
                false => remap.main.disk().revive(),
            }
            for sector in 0..5 {
                assert_eq!(device.read(sector, 1).is_err(), dead);
                assert_eq!(device.write(sector, &stamps(sector, 1, 1)).is_err(), dead);
            }
        }
        expect(&remap, "none", 1);
    }
}

/// Where nothing is remapped by itself, a main that fails as a whole is told all the same, and one that
/// is bad in places is not taken for it.
#[test]
fn without_auto_remap_it_is_told_too() {
    let _test = vmtest::begin!();
    for status in [Status::Medium, Status::Io, Status::Offline] {
        let remap = Remap::with(512, "2 auto_remap off");
        let device = remap.open();
        remap.main.disk().spoil(4096, 1024, super::bad());
        for sector in (4096..5120).step_by(32) {
            assert!(device.write(sector, &stamps(sector, 1, 1)).is_err());
            assert!(device.read(sector, 1).is_err());
        }
        expect(&remap, "none", 1);
        remap.main.disk().die(status, Direction::Both);
        for sector in (0..1280).step_by(64) {
            assert!(device.write(sector, &stamps(sector, 64, 2)).is_err());
            assert!(device.read(sector, 64).is_err());
        }
        expect(&remap, "main_read,main_write", 0);
        assert_eq!(slots_used(&remap), 0, "{status:?}");
    }
}

/// A spare that is only read is told, too.
#[test]
fn a_spare_that_is_gone_is_told_by_reads() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    remap.device().message("remap 0 64").unwrap();
    let seen = remap.device().events();
    remap.spare.disk().die(Status::Offline, Direction::Both);
    for round in 0..16 {
        assert!(device.read((round % 8) * 8, 8).is_err());
    }
    expect(&remap, "spare", 0);
    let told = remap.device().status_value("spare_errors");
    assert_eq!(told.as_deref(), Some("W0:R16"));
    assert!(remap.device().wait_for_event(seen), "nobody was told");
    // Main goes on as ever.
    device.write(4096, &stamps(4096, 64, 1)).unwrap();
    remap.spare.disk().revive();
    device.read(0, 8).unwrap();
    expect(&remap, "none", 1);
}

/// P17: blocks whose slots cannot be read are lost, and count as that until they are written.
#[test]
fn unreadable_slots_count_as_lost() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    device.write(0, &stamps(0, 128, 1)).unwrap();
    remap.device().message("remap 0 64").unwrap();
    let seen = remap.device().events();
    for sector in [8, 24] {
        let slot = remap.slot_of(sector).expect("a slot");
        remap.spare.disk().spoil(slot, 8, super::unreadable());
        for _ in 0..2 {
            assert!(device.read(sector, 8).is_err());
        }
    }
    assert_eq!(number(&remap, "lost"), 2);
    assert_eq!(remap.device().pending(), 2);
    expect(&remap, "none", 0);
    assert!(remap.device().wait_for_event(seen), "nobody was told");
    for (sector, left) in [(8, 1), (24, 0)] {
        device.write(sector, &stamps(sector, 8, 2)).unwrap();
        assert!(device.read(sector, 8).unwrap() == stamps(sector, 8, 2));
        assert_eq!(number(&remap, "lost"), left);
    }
    expect(&remap, "none", 1);
}
