// SPDX-License-Identifier: GPL-2.0
//! P15: a spare that does not answer at all, not even with an error. Whoever has the writer's lock does not wait for
//! it longer than `deadline_ms`.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Disk;
use vmtest::guest::sickdisk::PowerCut;

use super::set::Set;
use super::set::TINY;

/// On the first spare from the beginning.
const BEFORE: Range<u64> = 0..8;
/// Blocks of main that fail while a spare hangs.
const MEANWHILE: Range<u64> = 100..104;
/// The same, in another region, after it was lost.
const AFTERWARDS: Range<u64> = 3000..3016;

/// How long a spare is waited for.
const DEADLINE: Duration = Duration::from_millis(1500);

/// What a disk does not do any more.
const KINDS: [fn(&mut Disk); 3] = [
    |disk| disk.hold(0..TINY, Direction::Both),
    |disk| disk.hold(0..TINY, Direction::Write),
    |disk| {
        disk.hold(0..TINY, Direction::Both);
        disk.hold_flushes();
    },
];

fn set(mib: &[u64]) -> Set {
    let mut set = Set::inactive(mib);
    let all: Vec<usize> = (0..mib.len()).collect();
    set.activate(&all, "");
    set.remap(BEFORE, 1);
    set.wear_out(MEANWHILE);
    set.wear_out(AFTERWARDS);
    // What comes after an answer has ended then.
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    set.wait_until_restored();
    set.be_impatient();
    set
}

impl Set {
    fn be_impatient(&self) {
        let limit = format!("set deadline_ms {}", DEADLINE.as_millis());
        self.device().message(&limit).unwrap();
    }
}

/// The set goes on without it, and so do those who waited. It is taken back when it answers, with what it missed.
#[test]
fn the_others_go_on_without_it() {
    let _test = vmtest::begin!();
    for hang in KINDS {
        let mut set = set(&[1, 1]);
        hang(&mut set.spares[1].disk());
        std::thread::scope(|scope| {
            let _released = set.spares[1].release_at_end();
            set.write(MEANWHILE, 2).unwrap();
            set.write(AFTERWARDS, 2).unwrap();
            set.write(BEFORE, 2).unwrap();
            set.open().flush().unwrap();
            set.expect("spares", "1/2");
            let hanging = set.spares[1].disk().waiting().len();
            assert_eq!(hanging, 1, "no more is sent there");
            // It waits for what is under way, and so would a removal.
            let suspending = scope.spawn(|| set.device().suspend().unwrap());
            sleep(Duration::from_millis(200));
            assert!(!suspending.is_finished());
            set.spares[1].disk().release();
            suspending.join().unwrap();
        });
        set.device().resume().unwrap();
        set.reload(&[0, 1], "").unwrap();
        set.expect_whole(2);
        set.power_cut(|_| PowerCut::Drop);
        set.activate(&[1, 0], "");
        for blocks in [BEFORE, MEANWHILE, AFTERWARDS] {
            set.check(blocks, 2);
        }
        set.expect_whole(2);
    }
}

/// Where slots are made ready ahead of need, that is flushed before it counts.
#[test]
fn a_flush_of_metadata_that_hangs() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[128, 4]);
    let rest = 300..14_600;
    // Nearly all of main takes no writes, which it is not asked to prove; all of it can be read, which shows life.
    set.device().message("set error_threshold 0").unwrap();
    set.wear_out(rest.clone());
    // There are 16128 slots, and more are made ready when 2048 are left.
    set.write(rest.start..14_000, 1).unwrap();
    set.wear_out(MEANWHILE);
    set.be_impatient();
    set.spares[1].disk().hold_flushes();
    std::thread::scope(|_| {
        let _released = set.spares[1].release_at_end();
        set.write(14_000..rest.end, 1).unwrap();
        set.expect("spares", "1/2");
        set.write(MEANWHILE, 2).unwrap();
    });
    set.reload(&[0, 1], "").unwrap();
    set.expect_whole(2);
    set.again(&[1, 0], "");
    set.check(rest, 1);
    set.check(MEANWHILE, 2);
}

/// Whose slot it is that hangs waits, as its data is on the way. Who comes after the deadline gets a slot elsewhere.
#[test]
fn a_slot_that_hangs_keeps_nobody_else() {
    let _test = vmtest::begin!();
    for direction in [Direction::Both, Direction::Write] {
        let mut set = set(&[1, 1]);
        let (hangs, slots) = (100..101, set.spares[0].disk().sectors());
        set.spares[0].disk().hold(0..slots, direction);
        std::thread::scope(|scope| {
            let _released = set.spares[0].release_at_end();
            let first = scope.spawn(|| set.write(hangs.clone(), 2));
            assert!(eventually(|| !set.spares[0].disk().waiting().is_empty()));
            // From here on it is past its time.
            sleep(DEADLINE + Duration::from_millis(100));
            set.write(AFTERWARDS, 2).unwrap();
            assert!(!first.is_finished());
            for block in AFTERWARDS {
                assert_eq!(set.place(block), Some(1));
            }
            set.spares[0].disk().release();
            first.join().unwrap().unwrap();
        });
        set.check(hangs.clone(), 2);
        set.reload(&[0, 1], "").unwrap();
        set.expect_whole(2);
        set.power_cut(|_| PowerCut::Keep);
        set.activate(&[0, 1], "");
        set.check(hangs.clone(), 2);
        set.check(AFTERWARDS, 2);
        set.check(BEFORE, 1);
    }
}

/// Where there is no other spare, what needs it fails, and works again when it answers.
#[test]
fn the_only_spare_hangs() {
    let _test = vmtest::begin!();
    let mut set = set(&[1]);
    let hold = |set: &Set| {
        let end = set.slot_of(BEFORE.start);
        set.spares[0].disk().hold(0..end, Direction::Both);
    };
    hold(&set);
    std::thread::scope(|scope| {
        let _released = set.spares[0].release_at_end();
        set.write(MEANWHILE, 2).unwrap_err();
        // It does not wait for the spare once more.
        set.write(AFTERWARDS, 2).unwrap_err();
        set.device().message("sync").unwrap_err();
        // What it serves can be had, and so can what is main's.
        set.check(BEFORE, 1);
        set.write(300..310, 2).unwrap();
        set.check(300..310, 2);
        let removing = scope.spawn(|| set.device().suspend().unwrap());
        sleep(Duration::from_millis(200));
        assert!(!removing.is_finished());
        set.spares[0].disk().release();
        removing.join().unwrap();
    });
    set.device().resume().unwrap();
    assert!(eventually(|| set.write(MEANWHILE, 3).is_ok()));
    set.write(AFTERWARDS, 3).unwrap();
    set.expect_whole(1);
    set.power_cut(|_| PowerCut::Drop);
    set.activate(&[0], "");
    set.check(MEANWHILE, 3);
    set.check(AFTERWARDS, 3);
}
