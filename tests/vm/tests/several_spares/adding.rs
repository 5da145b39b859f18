// SPDX-License-Identifier: GPL-2.0
//! A spare that is added while the device is in use.

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Power;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::superblocks;
use vmtest::guest::Mapped;
use vmtest::guest::Traffic;

use super::set::Set;
use super::set::BLOCK;

/// More room and more redundancy, and nobody above notices.
#[test]
fn a_spare_is_added_while_in_use() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1, 1]);
    set.activate(&[0], "");
    let before = set.device().status_fraction(0).1;
    let path = set.device().path();
    let known = Traffic::during(&path, 0..2048 * BLOCK, |traffic| {
        for round in 0..4 {
            set.wear_out(100 * round..100 * round + 20);
            traffic.goes_on();
        }
        set.reload(&[0, 1], "").unwrap();
        traffic.goes_on();
        set.expect_whole(2);
        for round in 4..8 {
            set.wear_out(100 * round..100 * round + 20);
            traffic.goes_on();
        }
        set.reload(&[0, 1, 2], "").unwrap();
        traffic.goes_on();
        set.expect_whole(3);
    });
    let after = set.device().status_fraction(0).1;
    assert!(after > 2 * before, "{before} {after}");
    // Until all is used but a few.
    set.remap(1000..1000 + 250, 5);
    let remapped = set.device().remapped();
    assert!(remapped > before, "{remapped}");
    set.again(&[2, 1, 0], "");
    assert_eq!(set.device().remapped(), remapped);
    set.check(1000..1250, 5);
    set.expect_whole(3);
    drop(known);
}

/// What the traffic wrote is all there after a spare was added.
#[test]
fn what_was_written_meanwhile_is_there() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1]);
    set.activate(&[0], "");
    let path = set.device().path();
    let known = Traffic::during(&path, 0..2048 * BLOCK, |traffic| {
        set.wear_out(0..100);
        traffic.goes_on();
        set.reload(&[1, 0], "").unwrap();
        set.wear_out(500..600);
        traffic.goes_on();
    });
    known.verify(&set.open());
    set.again(&[0, 1], "");
    known.verify(&set.open());
    set.expect_whole(2);
}

/// A table that is loaded twice before it is used, and one that takes the place of another which named
/// fewer spares: all of them join.
#[test]
fn tables_that_are_loaded_again() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1, 1]);
    set.activate(&[0], "");
    set.remap(0..30, 1);
    set.device().load(&set.line(&[0, 1], "")).unwrap();
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.check(0..30, 1);

    let mut set = Set::inactive(&[1, 1, 1]);
    set.activate(&[0], "");
    set.device().load(&set.line(&[0, 1], "")).unwrap();
    // They get numbers, and one of them has one already.
    set.reload(&[0, 2, 1], "").unwrap();
    set.expect_whole(3);
    set.again(&[0, 1, 2], "");
    set.expect_whole(3);

    // And others that do not name it any more.
    let mut set = Set::inactive(&[1, 1, 1]);
    set.activate(&[0], "");
    set.device().load(&set.line(&[0, 1], "")).unwrap();
    set.reload(&[0, 2], "").unwrap();
    set.expect_whole(2);
    set.reload(&[0, 2, 1], "").unwrap();
    set.expect_whole(3);

    // Of two that were to join, the second one does, under the number that it has.
    let mut set = Set::inactive(&[1, 1, 1]);
    set.activate(&[0], "");
    set.device().load(&set.line(&[0, 1, 2], "")).unwrap();
    set.reload(&[0, 2], "").unwrap();
    set.expect_whole(2);
    set.again(&[2, 0], "");
    set.expect_whole(2);
}

/// The same of a device that is new.
#[test]
fn the_first_table_is_loaded_again() {
    let _test = vmtest::begin!();
    for order in [[0, 1], [1, 0]] {
        let mut set = Set::inactive(&[1, 1]);
        let nothing = format!("0 {} error", set.main.disk().sectors());
        set.device = Some(Mapped::new(&nothing));
        set.device().load(&set.line(&[0, 1], "")).unwrap();
        set.reload(&order, "").unwrap();
        set.expect_whole(2);
        set.remap(0..30, 1);
        set.again(&[0, 1], "");
        set.expect_whole(2);
        set.check(0..30, 1);
    }
}

/// P15: one that cannot join takes nothing along, and joins when it works again.
#[test]
fn a_spare_joins_at_the_second_try() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1]);
    set.activate(&[0], "");
    set.remap(0..30, 1);
    set.device().load(&set.line(&[0, 1], "")).unwrap();
    set.kill(1);
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    set.expect_whole(1);
    set.check(0..30, 1);
    set.remap(30..40, 1);
    set.revive(1);
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.check(30..40, 1);
    set.check(0..30, 1);
}

/// P15: a disk that can be read only takes no superblock and is no spare: the set goes on without it.
#[test]
fn a_spare_that_takes_no_writes() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1]);
    set.activate(&[0], "");
    set.remap(0..30, 1);
    let sectors = set.spares[1].disk().sectors();
    let bad = Fault::bad(Direction::Write);
    set.spares[1].disk().spoil(0, sectors, bad);
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(1);
    set.check(0..30, 1);
    set.reload(&[0], "").unwrap();
    set.expect_whole(1);
    set.check(0..30, 1);
    // Nobody asks for it.
    set.again(&[0], "");
    set.expect_whole(1);
    set.spares[1].disk().heal(0, sectors);
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
}

/// P2: the power fails while a spare joins, and another blank one is named in its place: what that
/// holds is never looked for on the first, whatever this one has got by then.
#[test]
fn another_one_joins_instead() {
    let _test = vmtest::begin!();
    let mut known = 0;
    for writes in 0..14 {
        let mut set = Set::inactive(&[1, 1, 1]);
        set.activate(&[0], "");
        set.remap(0..30, 1);
        let power = Power::for_writes(writes);
        set.device().load(&set.line(&[0, 1], "")).unwrap();
        set.run_on(&power);
        let _ = set.device().resume();
        set.power_cut(|_| PowerCut::Drop);
        if set.try_activate(&[0, 2], "").is_err() {
            // The first one is a member by now.
            continue;
        }
        set.expect_whole(2);
        set.wear_out(0..30);
        set.device().message("evacuate 0").unwrap();
        set.deactivate();
        if superblocks(&set.spares[1]).is_empty() {
            continue;
        }
        known += 1;
        let refusal = set.try_activate(&[0, 1], "").unwrap_err();
        assert!(refusal.reason.contains("left its set"), "{refusal:?}");
        set.activate(&[0, 2], "");
        set.check(0..30, 1);
    }
    assert!(known > 0);
}

/// A read-only table does not write what a spare needs that joins, and so names none.
#[test]
fn a_read_only_table_has_no_new_spares() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1]);
    set.activate(&[0], "");
    let line = set.line(&[0, 1], "");
    for _ in 0..2 {
        let refusal = set.device().load_read_only(&line).unwrap_err();
        assert!(refusal.reason.contains("read-only"), "{refusal:?}");
        // Also where it is known from a table that was not used so far.
        set.device().load(&line).unwrap();
    }
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
}

/// P5: the power fails at some write of the join: the old set is there, or the new one, and all that was
/// remapped.
#[test]
fn a_crash_while_a_spare_joins() {
    let _test = vmtest::begin!();
    let (mut old, mut new) = (0, 0);
    let mut writes = 0;
    loop {
        let mut set = Set::inactive(&[1, 1]);
        set.activate(&[0], "");
        set.remap(0..30, 1);
        let power = Power::for_writes(writes);
        set.device().load(&set.line(&[0, 1], "")).unwrap();
        set.run_on(&power);
        let resumed = set.device().resume();
        // The rest comes in the background.
        assert!(eventually(|| power.is_off() || set.is_restored()));
        if resumed.is_ok() && !power.is_off() {
            set.expect_whole(2);
            break;
        }
        set.power_cut(|number| match writes % 3 {
            0 => PowerCut::Drop,
            1 => PowerCut::Some(u64::from(writes) + number),
            _ => PowerCut::Tear(u64::from(writes) + number),
        });
        if writes % 2 == 0 {
            // As the table line was before, which may name too little by now.
            match set.try_activate(&[0], "") {
                Ok(()) => {
                    old += 1;
                    set.check(0..30, 1);
                    set.deactivate();
                }
                Err(refusal) => {
                    new += 1;
                    assert!(refusal.reason.contains("missing"), "{refusal:?}");
                }
            }
        }
        if let Err(refusal) = set.try_activate(&[0, 1], "") {
            panic!("after {writes} writes: {refusal:?}");
        }
        set.expect_whole(2);
        assert_eq!(set.device().remapped(), 30);
        set.check(0..30, 1);
        set.remap(40..50, 2);
        set.check(40..50, 2);
        // Once in each part of it, and at each write of the beginning, where it is decided.
        writes += 1 + writes / 6;
    }
    assert!(old > 0 && new > 0, "{old} {new}: {writes} writes");
}
