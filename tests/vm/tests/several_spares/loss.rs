// SPDX-License-Identifier: GPL-2.0
//! A spare that is lost, and one that comes back (M9).

use super::set::Set;
use super::set::BLOCK;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::stamps;
use vmtest::guest::Uevents;

/// How many sectors of main are bad in these tests.
fn spoil(set: &Set) -> u64 {
    let (_, capacity) = set.device().status_fraction(0);
    let sectors = capacity * 3 / 4 * BLOCK;
    set.main
        .disk()
        .spoil(0, sectors + 64, Fault::bad(Direction::Write));
    sectors
}

/// Sectors at the start of main that are good again, and whose slots on the first spare are free.
const FREED: u64 = 32 * BLOCK;

/// Two spares with remaps on both. Returns one past the last sector that the first one serves, and one past
/// the last that the second one does.
fn two() -> (Set, u64, u64) {
    let set = Set::new(&[1, 2]);
    let sectors = spoil(&set);
    set.write_in_parts(0, sectors);
    let first = (0..sectors / BLOCK)
        .map(|block| block * BLOCK)
        .find(|sector| set.member_of(*sector) == Some(1))
        .expect("the second one serves some");
    // Room on the first one.
    set.main.disk().heal(0, FREED);
    let line = format!("remove_remap 0 {FREED}");
    set.device().message(&line).expect("moved back");
    (set, first, sectors)
}

/// M9: a spare is lost while the device is used: what it held is an error and never main's old content,
/// what is written goes elsewhere, and the rest goes on.
#[test]
fn a_spare_is_lost_in_use() {
    let _test = vmtest::begin!();
    let (mut set, middle, end) = two();
    let uevents = Uevents::listen();
    set.kill(1);
    let device = set.open();
    // Main could be read there, but its content is old.
    device.read(middle, BLOCK).unwrap_err();
    assert!(device.read(0, middle).unwrap() == stamps(0, middle, 1));
    // One more bad sector needs the metadata, and that makes it known.
    let fresh = end;
    device.write(fresh, &stamps(fresh, BLOCK, 1)).unwrap();
    set.expect("spares", "1/2");
    assert_ne!(
        set.device().status_value("condition").as_deref(),
        Some("good")
    );
    uevents.wait_for("spare_lost");
    assert_eq!(set.member_of(fresh), Some(0));
    device.read(middle, BLOCK).unwrap_err();
    device.write(middle, &stamps(middle, BLOCK, 2)).unwrap();
    assert_eq!(set.member_of(middle), Some(0));
    assert!(device.read(middle, BLOCK).unwrap() == stamps(middle, BLOCK, 2));
    drop(device);
    set.deactivate();
    let refusal = set.try_activate(&[0], "").unwrap_err();
    assert!(
        refusal.reason.contains("number 1 of the set"),
        "{refusal:?}"
    );
    set.activate(&[0], "degraded");
    let device = set.open();
    assert!(device.read(0, middle).unwrap() == stamps(0, middle, 1));
    assert!(device.read(middle, BLOCK).unwrap() == stamps(middle, BLOCK, 2));
    device.read(middle + BLOCK, BLOCK).unwrap_err();
    assert!(device.read(fresh, BLOCK).unwrap() == stamps(fresh, BLOCK, 1));
}

/// M9: a set goes without a spare on the user's word only; the spare comes back old and is brought up to
/// date; then the other one may be lost.
#[test]
fn a_spare_comes_back() {
    let _test = vmtest::begin!();
    let (mut set, middle, end) = two();
    set.deactivate();
    set.try_activate(&[0], "").unwrap_err();
    set.activate(&[0], "degraded");
    set.expect("spares", "1/2");
    let device = set.open();
    device.read(middle, BLOCK).unwrap_err();
    let kept = middle + BLOCK;
    device.write(middle, &stamps(middle, BLOCK, 2)).unwrap();
    assert_eq!(set.member_of(middle), Some(0));
    drop(device);
    set.deactivate();
    set.activate(&[0, 1], "");
    set.expect_whole(2);
    for member in 0..2 {
        let hosts = set.of(member, "replicas_on").expect("told");
        assert!(hosts == "0,1" || hosts == "1,0", "{hosts}");
    }
    let device = set.open();
    assert!(device.read(middle, BLOCK).unwrap() == stamps(middle, BLOCK, 2));
    let rest = end - kept;
    assert!(device.read(kept, rest).unwrap() == stamps(kept, rest, 1));
    assert!(device.read(0, middle).unwrap() == stamps(0, middle, 1));
    drop(device);
    set.deactivate();
    set.activate(&[1], "degraded");
    let device = set.open();
    assert!(device.read(kept, rest).unwrap() == stamps(kept, rest, 1));
    // All that the first one held is known to be there.
    for sector in [FREED, middle - BLOCK, middle] {
        device.read(sector, BLOCK).unwrap_err();
    }
}

/// The same without removing the device: a reload with the spare in the line.
#[test]
fn a_spare_comes_back_by_a_reload() {
    let _test = vmtest::begin!();
    let (mut set, middle, end) = two();
    set.deactivate();
    set.activate(&[0], "degraded");
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    let device = set.open();
    assert!(device.read(0, end).unwrap() == stamps(0, end, 1));
    device.write(middle, &stamps(middle, BLOCK, 3)).unwrap();
    assert!(device.read(middle, BLOCK).unwrap() == stamps(middle, BLOCK, 3));
}

/// A spare that fails and works again is taken back by a suspend and resume.
#[test]
fn a_spare_comes_back_by_a_resume() {
    let _test = vmtest::begin!();
    let (set, middle, end) = two();
    set.kill(1);
    let device = set.open();
    device.write(end, &stamps(end, BLOCK, 1)).unwrap();
    set.expect("spares", "1/2");
    set.revive(1);
    // What it holds is true still.
    assert!(device.read(middle, BLOCK).unwrap() == stamps(middle, BLOCK, 1));
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    set.expect_whole(2);
    assert!(device.read(0, end).unwrap() == stamps(0, end, 1));
}

/// M9: two that were used without each other are not put together.
#[test]
fn used_without_each_other() {
    let _test = vmtest::begin!();
    let (mut set, middle, end) = two();
    set.deactivate();
    set.activate(&[0], "degraded");
    set.open().write(end, &stamps(end, BLOCK, 2)).unwrap();
    set.deactivate();
    set.activate(&[1], "degraded");
    set.open()
        .write(end + BLOCK, &stamps(end, BLOCK, 3))
        .unwrap();
    set.deactivate();
    let refusal = set.try_activate(&[0, 1], "").unwrap_err();
    assert!(refusal.reason.contains("without each other"), "{refusal:?}");
    let refusal = set.try_activate(&[1, 0], "degraded").unwrap_err();
    assert!(refusal.reason.contains("without each other"), "{refusal:?}");
    // One side goes on.
    set.activate(&[0], "degraded");
    assert!(set.open().read(0, middle).unwrap() == stamps(0, middle, 1));
}

/// A spare that is lost and serves nothing is not waited for.
#[test]
fn a_lost_spare_that_served_nothing() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[2, 1]);
    set.main.disk().spoil(0, 64, Fault::bad(Direction::Both));
    set.open().write(0, &stamps(0, 64, 1)).unwrap();
    assert_eq!(set.member_of(0), Some(0));
    set.deactivate();
    set.activate(&[0], "degraded");
    set.expect_whole(1);
    set.deactivate();
    set.activate(&[0], "");
    set.expect_whole(1);
    assert!(set.open().read(0, 64).unwrap() == stamps(0, 64, 1));
    set.deactivate();
    let refusal = set.try_activate(&[0, 1], "").unwrap_err();
    assert!(refusal.reason.contains("left its set"), "{refusal:?}");
}
