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
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;

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

/// A large write meets bad slots of a spare that then has to rest, and more of them on the other one: each block
/// gets its slot, however often it had to look for another one.
#[test]
fn a_large_write_meets_bad_slots_and_a_spare_that_rests() {
    let _test = vmtest::begin!();
    let disk = |mib: u64| SickDisk::start(Options::memory(mib << 20)).expect("start a disk");
    let mut set = Set {
        device: None,
        main: disk(64),
        spares: vec![disk(8), disk(8)],
    };
    vmtest::guest::load();
    set.activate(&[0, 1], "");
    let device = set.open();
    let unwritable = Fault::bad(Direction::Write);
    set.main.disk().spoil(0, 4096, unwritable);
    let slot_of = |block: u64| {
        let told = set.device().message(&format!("verify {block}")).unwrap();
        let sector = told.split_whitespace().rev().nth(1).unwrap();
        sector.parse::<u64>().unwrap()
    };
    // The slots of both: the first spare refuses once, and so the second one has its turn.
    device.write(0, &stamps(0, 1, 1)).unwrap();
    let first = slot_of(0) + 1;
    let refusing = unwritable.status(Status::Timeout);
    set.spares[0].disk().spoil(first, 1, refusing.times(1));
    device.write(1, &stamps(1, 1, 1)).unwrap();
    assert_eq!(set.member_of(1), Some(1));
    let second = slot_of(1) + 1;
    std::thread::sleep(Duration::from_millis(1100));
    // Where the next ones are looked for.
    set.spares[1].disk().spoil(second, 3, unwritable);
    set.spares[1].disk().spoil(second + 3, 1, refusing);
    for number in 0..10 {
        set.spares[0]
            .disk()
            .spoil(first + 20 * number, 1, unwritable);
    }
    device.write(1024, &stamps(1024, 512, 1)).unwrap();
    assert_eq!(set.member_of(1024 + 511), Some(0));
    assert!(device.read(1024, 512).unwrap() == stamps(1024, 512, 1));
    assert_eq!(set.device().remapped(), 514);
}

/// A scratch under many slots that are set aside, on a spare that has no others: other spares take the blocks, all of
/// them in one write.
#[test]
fn a_scratch_under_slots_that_are_set_aside_and_no_other_is_free_there() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1, 8]);
    let lost = 0..60;
    let unreadable = Fault::bad(Direction::Read);
    set.main.disk().spoil(0, lost.end * BLOCK, unreadable);
    let device = set.open();
    for block in lost.clone() {
        device.read(block * BLOCK, BLOCK).unwrap_err();
    }
    // They get their slots in the background, which a suspend waits for.
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    assert_eq!(set.device().pending(), lost.end);
    // The others of the first spare.
    let filled = (100..).find(|block| {
        set.remap(*block..*block + 1, 1);
        set.place(*block) == Some(1)
    });
    let filled = 100..filled.expect("it gets full") + 1;

    let slots = set.of(0, "data_start").expect("told");
    let slots: u64 = slots.parse().expect("a number");
    let unwritable = Fault::bad(Direction::Write);
    set.spares[0]
        .disk()
        .spoil(slots, lost.end * BLOCK, unwritable);
    set.write(lost.clone(), 2).unwrap();
    set.check(lost.clone(), 2);
    assert!(lost.clone().all(|block| set.place(block) == Some(1)));
    set.check(filled, 1);
    assert_eq!(set.device().pending(), 0);
}
