// SPDX-License-Identifier: GPL-2.0
//! P15: no spare that is dead takes main along, not even the only one.

use std::ops::Range;

use super::set::Set;
use super::set::BLOCK;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Mapped;

/// What is on the spare, and main's blocks that nothing is wrong with.
const MOVED: Range<u64> = 0..8;
const WELL: Range<u64> = 100..164;

/// Blocks of main that fail later.
const LATER: Range<u64> = 200..204;

/// A device with blocks on its spares, all of which are durable.
fn used(mib: &[u64]) -> Set {
    let set = Set::new(mib);
    set.remap(MOVED, 1);
    set.write(WELL, 1).unwrap();
    set.open().flush().unwrap();
    // What comes after the answer has ended then.
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    set
}

/// Another table, or the same one, is resumed.
#[derive(Clone, Copy, Debug)]
enum Change {
    Resume,
    NoFlush,
    Reload,
}

const CHANGES: [Change; 3] = [Change::Resume, Change::NoFlush, Change::Reload];

impl Set {
    #[track_caller]
    fn go_through(&self, change: Change, spares: &[usize]) {
        let device = self.device();
        match change {
            Change::Resume => device.suspend().unwrap(),
            Change::NoFlush => device.suspend_noflush().unwrap(),
            Change::Reload => {
                device.load(&self.line(spares, "")).unwrap();
                device.suspend().unwrap();
            }
        }
        if let Err(refusal) = device.resume() {
            panic!("{change:?}: {refusal:?}");
        }
    }

    /// Main serves what it can, and what it cannot is an error.
    #[track_caller]
    fn expect_main_alone(&self, generation: u64) {
        self.check(WELL, generation - 1);
        self.write(WELL, generation).unwrap();
        self.check(WELL, generation);
        if let Err(error) = self.open().flush() {
            panic!("flush: {error}, {}", self.device().status());
        }
        self.check_lost(MOVED);
        self.wear_out(LATER);
        self.write(LATER, generation).unwrap_err();
        self.heal(LATER);
        self.expect("health", "0");
    }
}

/// Whatever the spare answers, suspend, resume and reload end well, again and again, and main's healthy
/// sectors are read and written. Once it works again, nothing was forgotten.
#[test]
fn main_goes_on_when_the_only_spare_is_dead() {
    let _test = vmtest::begin!();
    for (status, spares) in [
        (Status::Offline, 1),
        (Status::Transport, 1),
        (Status::Medium, 1),
        (Status::Io, 2),
    ] {
        let mut set = used(&vec![1; spares]);
        let all: Vec<usize> = (0..spares).collect();
        for spare in &all {
            set.spares[*spare].disk().die(status, Direction::Both);
        }
        set.expect_main_alone(2);
        for (change, generation) in CHANGES.into_iter().zip(3..) {
            set.go_through(change, &all);
            set.expect_main_alone(generation);
        }
        for spare in &all {
            set.revive(*spare);
        }
        set.go_through(Change::Resume, &all);
        set.check(MOVED, 1);
        // A spare that failed is asked once a second.
        set.wear_out(LATER);
        assert!(eventually(|| set.write(LATER, 9).is_ok()));
        set.expect_whole(spares);
        set.again(&all, "");
        set.check(MOVED, 1);
        set.check(LATER, 9);
        set.check(WELL, 5);
    }
}

/// M6: the same where the spare died amid a commit. What is in doubt stays an error until it is settled.
#[test]
fn what_is_in_doubt_stays_so_while_the_only_spare_is_dead() {
    let _test = vmtest::begin!();
    let mut doubted = 0;
    for writes in 1..8 {
        let mut set = used(&[1]);
        set.wear_out(LATER);
        let spare = &set.spares[0];
        spare.disk().die_after(writes, Status::Offline);
        let acknowledged = set.write(LATER, 2).is_ok();
        spare.disk().die(Status::Offline, Direction::Both);
        for change in CHANGES {
            set.go_through(change, &[0]);
            set.check(WELL, 1);
            set.check_lost(MOVED);
        }
        let is_doubtful = !acknowledged && set.open().read(LATER.start * BLOCK, BLOCK).is_err();
        doubted += u32::from(is_doubtful);
        set.revive(0);
        set.go_through(Change::Resume, &[0]);
        for again in [false, true] {
            for block in LATER {
                let generation = set.open().read(block * BLOCK, BLOCK).unwrap();
                let new = generation == stamps(block * BLOCK, BLOCK, 2);
                let old = !acknowledged && generation.iter().all(|byte| *byte == 0);
                assert!(new || old, "block {block} after {writes} writes");
            }
            set.check(MOVED, 1);
            if !again {
                set.again(&[0], "");
            }
        }
        set.expect_whole(1);
    }
    assert!(doubted > 0, "no commit failed half way");
}

/// M3: a first activation that cannot write what it has to is refused, and again until it can.
#[test]
fn a_first_activation_is_refused_while_the_spare_takes_no_writes() {
    let _test = vmtest::begin!();
    let mut refused = 0;
    for fresh in [true, false] {
        for writes in 0..3 {
            let mut set = match fresh {
                true => Set::inactive(&[1]),
                false => {
                    let mut set = used(&[1]);
                    // The replicas differ.
                    set.wear_out(LATER);
                    set.spares[0].disk().die_after(2, Status::Offline);
                    let _ = set.write(LATER, 2);
                    set.power_cut(|_| vmtest::guest::sickdisk::PowerCut::Keep);
                    set
                }
            };
            let sectors = set.main.disk().sectors();
            let device = Mapped::new(&format!("0 {sectors} error"));
            device.load(&set.line(&[0], "")).unwrap();
            set.spares[0].disk().die_after(writes, Status::Offline);
            device.suspend().unwrap();
            for _ in 0..2 {
                refused += u32::from(device.resume().is_err());
            }
            set.revive(0);
            device.resume().unwrap();
            set.device = Some(device);
            set.expect_whole(1);
            if !fresh {
                set.check(MOVED, 1);
                set.check(WELL, 1);
            }
        }
    }
    assert!(refused >= 8, "{refused}");
}
