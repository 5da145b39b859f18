// SPDX-License-Identifier: GPL-2.0
//! A replica of the slot table that cannot be written any more is made again, here or there.

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::Mapped;

use super::set::Set;

/// Where the slot table of a spare with one table block is, and behind it another one that is not in use yet.
const TABLE: (u64, u64) = (33 * 8, 8);
/// Where the reserve blocks of that are.
const RESERVE: (u64, u64) = (8, 31 * 8);

/// With one spare, in the data area; with two, on either.
#[test]
fn a_void_replica_is_made_again() {
    let mut test = vmtest::begin!();
    for count in [1, 2] {
        let all: Vec<usize> = (0..count).collect();
        let mut set = Set::new(&vec![1; count]);
        set.remap(0..10, 1);
        // The head of the first spare, but for the superblock copies: reserve blocks and table.
        let bad = Fault::bad(Direction::Write);
        {
            let mut spare = set.spares[0].disk();
            spare.spoil(8, 31 * 8, bad);
            spare.spoil(33 * 8, 2 * 8, bad);
        }
        set.remap(20..30, 2);
        let whole = || set.device().status_value("metadata").as_deref() == Some("enabled");
        assert!(eventually(whole), "{}", set.device().status());
        set.again(&all, "");
        set.expect_whole(count);
        let log = test.kernel_log();
        let told = log.matches("replica 0 of the slot table of spare 0 is complete again");
        assert_eq!(told.count(), count, "it was not void");
        set.check(0..10, 1);
        set.check(20..30, 2);
        set.remap(40..50, 3);
        set.expect_whole(count);
        set.deactivate();
        // The other replica is bad, too: this one has to do.
        let sectors = set.spares[0].disk().sectors();
        let unreadable = Fault::bad(Direction::Read);
        match count {
            // In front of 32 reserve blocks and superblock copies, and one more copy.
            1 => set.spares[0].disk().spoil(sectors - 34 * 8, 8, unreadable),
            // Behind the slots of the other spare, and the same number of reserve blocks.
            _ => set.spares[1].disk().spoil(sectors - 35 * 8, 8, unreadable),
        }
        set.activate(&all, "");
        assert_eq!(set.device().remapped(), 30);
        set.check(40..50, 3);
    }
}

/// Where no place takes a replica, an end is made of it before all slots are gone.
#[test]
fn an_end_to_all_tries() {
    let _test = vmtest::begin!();
    let set = Set::new(&[8]);
    set.remap(0..10, 1);
    let told = |key| -> u64 {
        let value = set.of(0, key).expect("told");
        value.parse().expect("a number")
    };
    let (data, slots) = (told("data_start"), told("slots"));
    let bad = Fault::bad(Direction::Write);
    {
        let mut spare = set.spares[0].disk();
        // Reserve blocks and table at the head, and all but the first slots.
        spare.spoil(8, 31 * 8, bad);
        spare.spoil(33 * 8, data - 33 * 8, bad);
        spare.spoil(data + 100 * 8, (slots - 100) * 8, bad);
    }
    set.remap(20..30, 2);
    let mut before = 0;
    let settled = || {
        let now = told("slots");
        std::mem::replace(&mut before, now) == now && now < slots
    };
    assert!(eventually(settled));
    set.expect("metadata", "degraded");
    assert!(told("slots") > slots / 2, "{} of {slots}", told("slots"));
    // What there is goes on.
    set.remap(40..50, 3);
    set.check(0..10, 1);
    set.check(20..30, 2);
    set.check(40..50, 3);
}

/// M9a: a block of a replica cannot be read, wherever it is written: its places take writes. Making
/// redundancy again comes to an end, which is told if it is none, also by a resume.
#[test]
fn an_end_to_restoring_from_what_cannot_be_read() {
    let mut test = vmtest::begin!();
    for alone in [false, true] {
        let mut set = Set::new(&[1, 1]);
        set.remap(0..10, 1);
        if alone {
            // There is no place on the first spare for what the other one has: all but the first slots, the
            // superblock copies and what lies between them.
            let data: u64 = set.of(0, "data_start").expect("told").parse().unwrap();
            let mut spare = set.spares[0].disk();
            let bad = Fault::bad(Direction::Write);
            spare.spoil(data + 24 * 8, 1784 - data - 24 * 8, bad);
            spare.spoil(1792, 2040 - 1792, bad);
        }
        set.kill(1);
        set.remap(20..30, 2);
        set.expect("spares", "1/2");
        if !alone {
            // The first spare has both replicas by then.
            set.expect("replicas", "2");
        }
        for (first, sectors) in [RESERVE, TABLE] {
            let bad = Fault::bad(Direction::Read);
            set.spares[0].disk().spoil(first, sectors, bad);
        }
        set.revive(1);
        for _ in 0..2 {
            set.device().suspend().unwrap();
            resume(set.device());
            set.check(0..10, 1);
            set.check(20..30, 2);
            set.write(100..110, 3).unwrap();
            set.expect("metadata", if alone { "degraded" } else { "enabled" });
        }
        let told = || test.kernel_log().contains("cannot be made again");
        assert!(!alone || eventually(told), "{}", set.device().status());
        // That its places work again is found out by the next resume.
        let all = set.spares[0].disk().sectors();
        set.spares[0].disk().heal(0, all);
        set.device().suspend().unwrap();
        resume(set.device());
        set.expect_whole(2);
        set.again(&[0, 1], "");
        set.expect_whole(2);
        set.check(0..10, 1);
        set.check(20..30, 2);
    }
}

/// Resumes, unless that takes for ever.
#[track_caller]
fn resume(device: &Mapped) {
    std::thread::scope(|scope| {
        let resumed = scope.spawn(|| device.resume());
        assert!(eventually(|| resumed.is_finished()), "it does not end");
        resumed.join().unwrap().unwrap();
    });
}
