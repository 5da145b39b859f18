// SPDX-License-Identifier: GPL-2.0
//! A spare that is replaced by another one while the device is in use.

use vmtest::guest::eventually;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::superblocks;
use vmtest::guest::Traffic;

use super::losing::both_in_use;
use super::set::disk;
use super::set::Set;
use super::set::BLOCK;
use super::set::TINY;

/// Whether nobody has a disk open.
fn is_free(disk: &SickDisk) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let options = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(disk.path());
    options.is_ok()
}

/// New one in, data over, old one out; and in use all the time.
#[test]
fn a_spare_is_replaced_while_in_use() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1]);
    set.activate(&[0], "");
    let path = set.device().path();
    let known = Traffic::during(&path, 0..2048 * BLOCK, |traffic| {
        set.wear_out(0..60);
        traffic.goes_on();
        set.remap_in_traffic(traffic);
        set.reload(&[0, 1], "").unwrap();
        traffic.goes_on();
        let table = set.device().table();

        // It still serves blocks.
        let refusal = set.reload(&[1], "").unwrap_err();
        assert!(refusal.error.contains("busy"), "{refusal:?}");
        assert!(refusal.reason.contains("evacuate"), "{refusal:?}");
        assert_eq!(set.device().table(), table);
        traffic.goes_on();
        set.expect_whole(2);

        let remapped = set.device().remapped();
        let told = set.device().message("evacuate 0").unwrap();
        assert!(told.contains(", 0 stay"), "{told}");
        assert!(set.device().remapped() >= remapped);
        set.wear_out(200..220);
        traffic.goes_on();
        set.reload(&[1], "").unwrap();
        traffic.goes_on();
        set.expect_whole(1);
    });
    known.verify(&set.open());
    assert_eq!(superblocks(&set.spares[0]), []);
    assert!(is_free(&set.spares[0]), "the old spare is still open");
    set.again(&[1], "");
    known.verify(&set.open());
    set.expect_whole(1);

    // It is nothing of ours any more.
    let refusal = set.reload(&[1, 0], "").unwrap_err();
    assert!(refusal.reason.contains("not blank"), "{refusal:?}");
    set.reload(&[1, 0], "format").unwrap();
    set.expect_whole(2);
    known.verify(&set.open());
}

/// Spares come and go without end, also under numbers that others had.
#[test]
fn numbers_are_used_again() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1]);
    set.activate(&[0], "");
    set.remap(0..50, 1);
    let mut here = 0;
    for round in 0..8 {
        // Sizes differ, so that what lies where on one does not fit the other.
        set.spares.push(disk(TINY + 512 * (round % 3)));
        let next = set.spares.len() - 1;
        set.reload(&[here, next], "").unwrap();
        set.expect_whole(2);
        let number = set.place(0).expect("a remap");
        let told = set.device().message(&format!("evacuate {number}")).unwrap();
        assert!(told.contains(", 0 stay"), "{told}");
        set.check(0..50, 1);
        set.reload(&[next], "").unwrap();
        set.expect_whole(1);
        set.check(0..50, 1);
        set.remap(100 + 5 * round..105 + 5 * round, 1);
        assert!(is_free(&set.spares[here]));
        here = next;
    }
    set.check(100..140, 1);
    set.again(&[here], "");
    set.check(0..50, 1);
    set.check(100..140, 1);
    assert_eq!(set.device().remapped(), 90);
}

/// Who evacuates a spare and keeps it after all can use it.
#[test]
fn a_spare_that_stays_after_all() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1, 1]);
    let slots = set.device().status_fraction(0).1;
    set.remap(0..20, 1);
    set.device().message("evacuate 0").unwrap();
    assert_eq!(set.place(0), Some(1));
    set.reload(&[0, 1], "").unwrap();
    set.remap(100..100 + slots - 20, 2);
    assert_eq!(set.device().remapped(), slots);
    set.check(0..20, 1);
    set.check(100..100 + slots - 20, 2);
    set.again(&[0, 1], "");
    assert_eq!(set.device().remapped(), slots);
}

/// Others have no room for what is on a spare: it stays, and the spare is used as before.
#[test]
fn an_evacuation_without_room() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    let (_, capacity) = set.device().status_fraction(0);
    let remapped = set.device().remapped();
    set.device().message("evacuate 0").unwrap_err();
    assert_eq!(set.place(0), Some(0));
    set.free_slots(40..60);
    let left = capacity - remapped + 20;
    set.remap(300..300 + left, 1);
    assert_eq!(set.device().remapped(), capacity);
    set.check(0..40, 1);
    set.check(second, 1);
    set.check(300..300 + left, 1);
}

/// An evacuation ends in an error: what it has not moved stays, and the spare is used as before.
#[test]
fn an_evacuation_that_fails() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    let (_, capacity) = set.device().status_fraction(0);
    set.free_slots(40..100);
    let slot = set.slot_of(second.start + 10);
    let fault = Fault::bad(Direction::Read).status(Status::Timeout);
    set.spares[1].disk().spoil(slot, BLOCK, fault);
    set.device().message("evacuate 1").unwrap_err();
    assert_eq!(set.place(second.start + 5), Some(0));
    assert_eq!(set.place(second.start + 15), Some(1));
    set.spares[1].disk().heal(slot, BLOCK);
    let left = capacity - set.device().remapped();
    set.remap(300..300 + left, 1);
    set.check(0..40, 1);
    set.check(second, 1);
    set.check(300..300 + left, 1);
}

/// D2: a table that leaves a spare out and is never used, or refused, changes nothing.
#[test]
fn a_table_without_it_that_is_not_used() {
    let _test = vmtest::begin!();
    for number in 0..3 {
        let mut set = Set::new(&[1, 1, 1]);
        let slots = set.device().status_fraction(0).1;
        set.device().load(&set.line(&[0], "")).unwrap();
        match number {
            0 => {
                let name = set.device().name().to_string();
                assert_eq!(run(&format!("dmsetup clear {name}")).status, 0);
            }
            // The next one needs them.
            1 => set.device().load(&set.line(&[2, 1, 0], "")).unwrap(),
            // And goes where it is told to, with the last of them.
            _ => {
                set.device().load(&set.line(&[0, 1], "")).unwrap();
                set.remap(0..20, 1);
                set.reload(&[0, 1], "").unwrap();
                set.expect_whole(2);
                assert!(is_free(&set.spares[2]));
                set.check(0..20, 1);
                continue;
            }
        }
        set.spoil(0..slots);
        set.write_in_parts(0, slots * BLOCK);
        set.check(0..slots, 1);
        set.again(&[0, 1, 2], "");
        set.expect_whole(3);
        set.check(0..slots, 1);
    }
}

impl Set {
    /// Has the users of a device meet bad blocks until some are remapped.
    fn remap_in_traffic(&self, traffic: &Traffic) {
        let some = || self.device().remapped() > 20;
        assert!(eventually(some), "{}", self.device().status());
        traffic.goes_on();
    }
}
