// SPDX-License-Identifier: GPL-2.0
//! Flushes, while spares are lost or leave: whoever relies on one hears of what may be gone, once, and not
//! for ever.

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Direct;

use super::losing::both_in_use;
use super::set::Set;
use super::set::BLOCK;
use super::set::TINY;

/// Whether flushes and FUA writes are good again, after one error at most.
#[track_caller]
fn comes_right(set: &Set) {
    let device = set.open();
    let _ = device.flush();
    device.flush().unwrap();
    set.expect("flush", "good");
    Direct::open_dsync(&set.device().path())
        .write(1000 * BLOCK, &stamps(1000 * BLOCK, BLOCK, 1))
        .unwrap();
}

/// A spare dies with what is in its cache, and the next table does without it.
#[test]
fn a_dead_spare_that_is_left_out_fails_no_flush() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    set.write(second, 2).unwrap();
    set.kill(1);
    set.open().flush().unwrap_err();
    set.reload(&[0], "degraded").unwrap();
    comes_right(&set);
    set.reload(&[0], "degraded").unwrap();
    set.open().flush().unwrap();
}

/// A spare that works is left out together with what is in its cache. Whoever wrote that hears of it: the
/// spare may come back without.
#[test]
fn what_is_in_the_cache_of_a_spare_that_is_left_out() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    set.reload(&[0], "degraded").unwrap();
    set.open().flush().unwrap();
    set.reload(&[0, 1], "").unwrap();
    set.write(second.clone(), 2).unwrap();
    set.reload(&[0], "degraded").unwrap();
    set.open().flush().unwrap_err();
    comes_right(&set);
    set.reload(&[0, 1], "").unwrap();
    set.open().flush().unwrap();
    set.check(second, 2);
}

/// A flush fails on a spare, which then leaves in order.
#[test]
fn a_spare_leaves_after_a_failed_flush() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    set.free_slots(40..100);
    set.write(second.clone(), 2).unwrap();
    set.spares[1].disk().fail_flushes(Status::Io, 1);
    set.open().flush().unwrap_err();
    set.expect("flush", "failed");
    let told = set.device().message("evacuate 1").unwrap();
    assert!(told.contains(", 0 stay"), "{told}");
    set.reload(&[0], "").unwrap();
    comes_right(&set);
    set.expect_whole(1);
    set.check(second, 2);
}

/// `sync` does not ask a spare that is lost, of which nobody has anything to hear.
#[test]
fn sync_with_a_lost_spare() {
    let _test = vmtest::begin!();
    let (set, _) = both_in_use();
    set.kill(1);
    for _ in 0..2 {
        let told = set.device().message("sync").unwrap();
        assert_eq!(told, "synced");
        set.expect("spares", "1/2");
        set.expect("flush", "good");
        set.open().flush().unwrap();
    }
    comes_right(&set);
}

/// A write hangs on its way to a spare while that is given up, and succeeds then: it is durable all the
/// same once it was flushed (P1).
#[test]
fn a_write_that_is_late_for_a_lost_spare() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    set.free_slots(40..60);
    let block = second.start;
    let slot = set.slot_of(block);
    set.spares[1]
        .disk()
        .hold(slot..slot + BLOCK, Direction::Write);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| set.write(block..block + 1, 2));
        assert!(eventually(|| set.spares[1].disk().waiting().len() == 1));
        set.kill(1);
        set.device().message("save").unwrap();
        set.expect("spares", "1/2");
        set.revive(1);
        assert!(!writer.is_finished());
        set.spares[1].disk().release();
        writer.join().unwrap().unwrap();
    });
    set.open().flush().unwrap();
    set.spares[1].disk().power_cut(PowerCut::Drop).unwrap();
    set.check(block..block + 1, 2);
    set.expect("flush", "good");
    // It comes back, and is what it was but for that.
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.check(block..block + 1, 2);
    set.check(block + 1..second.end, 1);
}

/// Writes to a spare at the very moment at which it is lost: what a flush has called durable is.
#[test]
fn writes_while_a_spare_is_lost() {
    let _test = vmtest::begin!();
    for round in 0..2 {
        let (set, second) = both_in_use();
        set.free_slots(40..60);
        let before = set.spares[1].disk().record().flushes;
        let block = second.start;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (mut durable, mut last) = (1, 1);
                for generation in 2..4000 {
                    last = generation;
                    let written = set.write(block..block + 1, generation);
                    if written.is_ok() && set.open().flush().is_ok() {
                        durable = generation;
                    }
                    if set.place(block) == Some(0) {
                        break;
                    }
                }
                (durable, last)
            });
            let at_work = || set.spares[1].disk().record().flushes > before + round;
            assert!(eventually(at_work), "nothing is written");
            set.kill(1);
            let lost = || set.device().status().contains("spares=1/2");
            assert!(eventually(lost), "nobody noticed");
            set.revive(1);
            let (durable, last) = writer.join().unwrap();
            set.spares[1].disk().power_cut(PowerCut::Drop).unwrap();
            // Or a later one: what was written before a flush that failed may be there.
            let found = set.generation_of(block, 0..=last);
            assert!(
                found >= Some(durable),
                "found {found:?}, and {durable} was durable, {last} the last"
            );
        });
        comes_right(&set);
    }
}

/// E7: a flush that has failed is of no region: what fails elsewhere does not wait for its end.
#[test]
fn a_failed_flush_keeps_no_region() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    set.write(second, 2).unwrap();
    // It is asked whether the spare is there, and that hangs.
    set.spares[1].disk().fail_flushes(Status::Io, 1);
    set.spares[1].disk().hold(0..TINY, Direction::Read);
    let device = set.open();
    let sector = 250 * BLOCK;
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| device.flush());
        assert!(eventually(|| set.spares[1].disk().waiting().len() == 1));
        let once = Fault::bad(Direction::Read).times(1);
        set.main.disk().spoil(sector, 1, once);
        let reader = scope.spawn(|| set.open().read(sector, BLOCK).is_ok());
        let served = eventually(|| reader.is_finished());
        assert!(!flush.is_finished());
        set.spares[1].disk().release();
        assert!(served, "the read waits for the flush");
        assert!(reader.join().unwrap());
        flush.join().unwrap().unwrap_err();
    });
}

/// E6: of two spares one holds nothing, and dies after a write that nobody has flushed. Nothing is lost with it, and
/// so no flush fails; also if the device is suspended before anybody asks.
#[test]
fn a_spare_that_never_held_anything_dies() {
    let _test = vmtest::begin!();
    for suspends in [true, false] {
        let set = Set::new(&[8, 8]);
        set.write(0..1, 1).unwrap();
        set.kill(1);
        if suspends {
            set.device().suspend().unwrap();
            set.device().resume().unwrap();
        } else {
            set.remap(0..1, 1);
        }
        set.expect("spares", "1/2");
        set.expect("flush", "good");
        set.open().flush().unwrap();
        set.write(0..1, 2).unwrap();
        set.open().flush().unwrap();
    }
}

/// The only one, which holds nothing, is dead before anybody has flushed.
#[test]
fn a_spare_that_never_held_anything_and_is_alone() {
    let _test = vmtest::begin!();
    let set = Set::new(&[8]);
    set.write(0..1, 1).unwrap();
    set.kill(0);
    set.open().flush().unwrap();
    set.expect("flush", "good");
}

/// What the table before had written to a spare may be in its cache still.
#[test]
fn a_spare_that_was_used_before() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[8, 8]);
    set.remap(0..1, 1);
    set.write(0..1, 2).unwrap();
    set.again(&[0, 1], "");
    set.kill(0);
    set.open().flush().unwrap_err();
}
