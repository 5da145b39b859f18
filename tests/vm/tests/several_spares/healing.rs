// SPDX-License-Identifier: GPL-2.0
//! A replica of the slot table that cannot be written any more is made again, here or there.

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;

use super::set::Set;

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
