// SPDX-License-Identifier: GPL-2.0
//! M9a, P15, P16: redundancy is made again in the background, and nobody waits for it.

use super::set::Set;
use super::set::BLOCK;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::stamps;
use vmtest::guest::Direct;

/// The second replica of a slot table of one block, where there is only one spare.
const SECOND_HOME: u64 = 1776;

/// A resume does not make replicas again: here that would take for ever, as the spare that is back hangs there.
#[test]
fn a_resume_does_not_wait_for_redundancy() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1, 1]);
    set.remap(0..10, 1);
    set.kill(1);
    set.remap(20..30, 2);
    set.expect("spares", "1/2");
    set.wait_until_restored();
    set.revive(1);
    // All but the superblock copies.
    for part in [8..256, 264..1784, 1792..2040] {
        set.spares[1].disk().hold(part, Direction::Write);
    }
    set.device().suspend().unwrap();
    let (resumed, waits) = std::thread::scope(|scope| {
        let resuming = scope.spawn(|| set.device().resume());
        let resumed = eventually(|| resuming.is_finished());
        let waits = eventually(|| !set.spares[1].disk().waiting().is_empty());
        if resumed {
            set.write(100..110, 3).unwrap();
            set.check(100..110, 3);
            set.check(0..10, 1);
        }
        set.spares[1].disk().release();
        resuming.join().unwrap().unwrap();
        (resumed, waits)
    });
    assert!(resumed, "it waited for the spare");
    assert!(waits, "nobody made it again");
    set.expect_whole(2);
    set.again(&[0, 1], "");
    set.check(0..10, 1);
    set.check(20..30, 2);
}

/// Nor does who noticed a loss keep others out of the region where that was.
#[test]
fn who_noticed_a_loss_holds_no_range() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1, 1]);
    set.remap(0..10, 1);
    // What an activation looks for is not looked for in the middle of this.
    set.wait_until_restored();
    set.wear_out(20..30);
    // With one spare left, both replicas are there, and making the second one hangs.
    let table = SECOND_HOME..SECOND_HOME + 8;
    set.spares[0].disk().hold(table, Direction::Write);
    set.kill(1);
    set.write(20..30, 2).unwrap();
    let waits = eventually(|| !set.spares[0].disk().waiting().is_empty());
    // In the same region, a write that fails and works when it is tried again.
    let bad = Fault::bad(Direction::Write).times(1);
    set.main.disk().spoil(40 * BLOCK, 1, bad);
    let path = set.device().path();
    let written = std::thread::scope(|scope| {
        let write = || Direct::open(&path).write(40 * BLOCK, &stamps(40 * BLOCK, BLOCK, 3));
        let writing = scope.spawn(write);
        let written = eventually(|| writing.is_finished());
        set.spares[0].disk().release();
        writing.join().unwrap().unwrap();
        written
    });
    assert!(waits, "nobody made it again");
    assert!(written, "it waited for the spare");
    set.check(40..41, 3);
    set.check(20..30, 2);
    set.expect("replicas", "2");
}
