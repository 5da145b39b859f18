// SPDX-License-Identifier: GPL-2.0
//! A spare that fails for a moment, not for its medium: others take what it cannot, and it is used again.

use std::time::Duration;

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Status;

use super::losing::both_in_use;
use super::set::Set;
use super::set::BLOCK;

/// Has the next write to the slot behind that of a block time out, once.
fn disturb(set: &Set, block: u64) {
    let next = set.slot_of(block) + BLOCK;
    let fault = Fault::bad(Direction::Write)
        .status(Status::Timeout)
        .times(1);
    set.spares[1].disk().spoil(next, 1, fault);
}

/// It is the only one with free slots: the write fails. The breaker lets one through a second later, and all is
/// well again.
#[test]
fn one_error_of_the_only_spare_with_slots() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    disturb(&set, second.end - 1);
    set.spoil(300..330);
    let written = || set.write(300..301, 1).is_ok();
    assert!(eventually(written));
    for block in 301..330 {
        set.write(block..block + 1, 1).unwrap();
        assert_eq!(set.place(block), Some(1));
    }
    set.check(300..330, 1);
    set.expect_whole(2);
}

/// Others have some: these take what fails, and when they are full the first one has its turn again.
#[test]
fn one_error_while_others_have_slots() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    let (_, capacity) = set.device().status_fraction(0);
    set.free_slots(40..44);
    disturb(&set, second.end - 1);
    set.remap(300..310, 1);
    assert_eq!(set.place(300), Some(0));
    assert_eq!(set.place(309), Some(1));
    set.check(300..310, 1);
    // No slot is lost with it.
    let left = capacity - set.device().remapped();
    set.remap(400..400 + left, 1);
    assert_eq!(set.device().remapped(), capacity);
    set.check(0..40, 1);
    set.check(second, 1);
    set.check(300..310, 1);
    set.check(400..400 + left, 1);
    set.expect("bad_slots", "0");
}

/// It has its turn again after a second, too, while others have some still.
#[test]
fn a_spare_that_has_rested() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    set.free_slots(120..140);
    disturb(&set, second.end - 1);
    set.remap(300..301, 1);
    assert_eq!(set.place(300), Some(0));
    // The search comes to these after all slots of the second spare.
    set.free_slots(40..80);
    std::thread::sleep(Duration::from_millis(1100));
    set.remap(301..340, 1);
    assert_eq!(set.place(339), Some(1));
    set.check(300..340, 1);
}
