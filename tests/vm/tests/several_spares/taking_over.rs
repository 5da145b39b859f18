// SPDX-License-Identifier: GPL-2.0
//! P15, M9b: all spares of a device in use are dead, and it gets new ones: what the dead ones had is lost until it
//! is written, and never what main had before.

use std::ops::Range;
use std::time::Duration;
use std::time::Instant;

use super::set::Set;
use super::set::BLOCK;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Power;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;

/// What was on the dead spares.
const MOVED: Range<u64> = 0..40;
/// A block that main could not read, and that has a slot for its next write.
const PENDING: u64 = 3990;
/// Blocks of main that nothing is wrong with.
const WELL: Range<u64> = 4000..4064;
/// Blocks of main that fail later.
const LATER: Range<u64> = 4100..4104;

/// A device whose spares, of so many MiB, are dead. Main could be read again everywhere, and must not answer for what
/// it did not get.
fn orphaned(mib: &[u64], moved: &Range<u64>) -> Set {
    let set = Set::new(mib);
    set.remap(moved.clone(), 1);
    set.spoil(PENDING..PENDING + 1);
    set.open().read(PENDING * BLOCK, BLOCK).unwrap_err();
    set.write(WELL, 1).unwrap();
    set.open().flush().unwrap();
    // What comes after the answer has ended then.
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    for spare in 0..mib.len() {
        set.kill(spare);
    }
    set.heal(moved.clone());
    set
}

impl Set {
    #[track_caller]
    fn is_taking_over(&self) -> bool {
        let told = self.device().message("metadata_status").unwrap();
        told.contains("taking_over=yes")
    }

    #[track_caller]
    fn expect_taken_over(&self, spares: usize, moved: &Range<u64>) {
        self.expect_whole(spares);
        assert!(!self.is_taking_over());
        let blocks = moved.end - moved.start;
        self.expect("lost", &blocks.to_string());
        assert_eq!(self.device().remapped(), blocks);
        let pending = self.device().pending();
        assert_eq!(pending, blocks + 1, "{}", self.device().status());
        self.check_lost(moved.clone());
        self.check(WELL, 1);
    }

    /// Remaps again, and has what was lost again where it is written.
    #[track_caller]
    fn expect_used(&mut self, spares: &[usize], moved: &Range<u64>) {
        self.remap(LATER, 5);
        let half = moved.start..moved.start + 20;
        self.write(half.clone(), 5).unwrap();
        self.write(PENDING..PENDING + 1, 5).unwrap();
        self.open().flush().unwrap();
        for power in [false, true] {
            self.again_after(power, spares);
            self.expect_whole(spares.len());
            self.check(LATER, 5);
            self.check(half.clone(), 5);
            self.check(PENDING..PENDING + 1, 5);
            self.check_lost(half.end..moved.end);
            self.expect("lost", &(moved.end - half.end).to_string());
            self.check(WELL, 1);
        }
    }
}

/// One or several new spares in the place of one or several dead ones, with so many blocks that all of them have
/// some. Afterwards the set is whole, and needs no `degraded`; the dead ones are strangers.
#[test]
fn new_spares_take_over_from_dead_ones() {
    let _test = vmtest::begin!();
    let cases: [(&[u64], &[u64], u64); 3] =
        [(&[1], &[1], 40), (&[1, 1], &[2], 260), (&[2], &[1, 1], 220)];
    for (old, new, blocks) in cases {
        let moved = 0..blocks;
        let mut set = orphaned(old, &moved);
        let uuid = set.uuid();
        let heirs: Vec<usize> = new.iter().map(|mib| set.add_disk(*mib)).collect();
        set.reload(&heirs, "degraded").unwrap();
        set.expect_taken_over(new.len(), &moved);
        assert_eq!(set.uuid(), uuid);
        set.expect_used(&heirs, &moved);
        set.revive(0);
        let mut all = heirs.clone();
        all.push(0);
        for more in ["", "degraded"] {
            let refusal = set.device().load(&set.line(&all, more)).unwrap_err();
            assert!(
                refusal.reason.contains("left") || refusal.reason.contains("not blank"),
                "{refusal:?}"
            );
        }
    }
}

/// An old one that answers again when the table is resumed is not given up: it may have taken writes since.
#[test]
fn an_old_spare_that_is_back_in_time() {
    let _test = vmtest::begin!();
    let mut set = orphaned(&[1], &MOVED);
    let new = set.add_disk(1);
    set.device().load(&set.line(&[new], "degraded")).unwrap();
    set.revive(0);
    set.write(MOVED, 2).unwrap();
    set.open().flush().unwrap();
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    for again in [false, true] {
        if again {
            // Nor later, without a new word, and not by the same words.
            set.device().suspend().unwrap();
            set.device().resume().unwrap();
            let refusal = set
                .device()
                .load(&set.line(&[new], "degraded"))
                .unwrap_err();
            assert!(refusal.reason.contains("only good copy"), "{refusal:?}");
        }
        assert!(!set.is_taking_over());
        set.check(WELL, 1);
        set.check_lost(MOVED);
    }
    set.reload(&[0], "").unwrap();
    set.expect_whole(1);
    set.check(MOVED, 2);
    set.remap(LATER, 2);
    set.again(&[0], "");
    set.check(MOVED, 2);
    set.check(LATER, 2);
}

/// The same of two, each of which has something: the one or the other, or both are back, and are used as before.
#[test]
fn some_of_several_old_spares_are_back() {
    let _test = vmtest::begin!();
    let moved = 0..260;
    for back in [&[0][..], &[1], &[0, 1]] {
        let mut set = orphaned(&[1, 1], &moved);
        let homes: Vec<Option<u8>> = moved.clone().map(|block| set.place(block)).collect();
        assert!([0, 1].iter().all(|home| homes.contains(&Some(*home))));
        let new = set.add_disk(2);
        set.device().load(&set.line(&[new], "degraded")).unwrap();
        for spare in back {
            set.revive(*spare);
        }
        set.device().suspend().unwrap();
        set.device().resume().unwrap();
        assert!(!set.is_taking_over());
        set.check(WELL, 1);
        set.check_lost(moved.clone());
        let word = if back.len() == 1 { "degraded" } else { "" };
        set.reload(back, word).unwrap();
        for power in [false, true] {
            if power {
                set.power_cut(|_| PowerCut::Drop);
                for spare in (0..2).filter(|spare| !back.contains(spare)) {
                    set.kill(spare);
                }
                set.activate(back, word);
            }
            set.expect("spares", &format!("{}/2", back.len()));
            set.check(WELL, 1);
            for (block, home) in moved.clone().zip(&homes) {
                match home.filter(|home| back.contains(&usize::from(*home))) {
                    Some(_) => set.check(block..block + 1, 1),
                    None => set.check_lost(block..block + 1),
                }
            }
            // One of the two is full. A spare that failed is asked once a second.
            set.wear_out(LATER);
            let is_back = |home: &&Option<u8>| home.is_some_and(|home| back.contains(&home.into()));
            if homes.iter().filter(is_back).count() < 150 * back.len() {
                assert!(eventually(|| set.write(LATER, 2).is_ok()));
                set.check(LATER, 2);
            }
        }
    }
}

/// One of two new ones dies at some time: the other one goes on, if it is a member by then.
#[test]
fn one_of_two_new_spares_dies() {
    let _test = vmtest::begin!();
    let moved = 0..300;
    let mut goes_on = 0;
    for writes in (2..60).step_by(3) {
        let mut set = orphaned(&[2], &moved);
        let heirs = [set.add_disk(2), set.add_disk(2)];
        let (victim, other) = (heirs[writes as usize % 2], heirs[1 - writes as usize % 2]);
        set.spares[victim].disk().die_after(writes, Status::Offline);
        set.device().load(&set.line(&heirs, "degraded")).unwrap();
        set.device().suspend().unwrap();
        set.device().resume().unwrap();
        let begun = set.device().status_value("spares").as_deref() != Some("1/1");
        set.check(WELL, 1);
        set.check_lost(moved.clone());
        if !begun {
            continue;
        }
        assert!(eventually(|| !set.is_taking_over()), "after {writes}");
        goes_on += 1;
        set.kill(victim);
        assert!(eventually(|| {
            set.wear_out(LATER);
            set.write(LATER, 2).is_ok()
        }));
        set.check_lost(moved.clone());
        set.power_cut(|_| PowerCut::Drop);
        set.kill(victim);
        set.activate(&[other], "degraded");
        set.check_lost(moved.clone());
        set.check(WELL, 1);
        set.check(LATER, 2);
    }
    assert!(goes_on > 5, "{goes_on}");
}

/// What is not at the user's word, or cannot be done, changes nothing.
#[test]
fn refusals_to_take_over() {
    let _test = vmtest::begin!();
    let mut set = orphaned(&[2], &MOVED);
    let new = set.add_disk(2);
    let uuid = set.uuid();
    let refused = |set: &Set, spares: &[usize], more: &str, why: &str| {
        let refusal = set.device().load(&set.line(spares, more)).unwrap_err();
        assert!(refusal.reason.contains(why), "{more}: {refusal:?}");
    };
    refused(&set, &[new], "", "use degraded");
    refused(
        &set,
        &[new],
        &format!("degraded uuid {uuid}"),
        "is blank, but",
    );
    // It answers: it is to be evacuated.
    set.revive(0);
    refused(&set, &[new], "degraded", "only good copy");
    set.check(MOVED, 1);
    // The new one has too little room.
    set.remap(300..600, 1);
    set.kill(0);
    let small = set.add_disk(1);
    refused(&set, &[small], "degraded", "too small");
    // Somebody else's.
    set.spares[new].disk().poke(0, &[7; 4096]).unwrap();
    refused(&set, &[new], "degraded", "not blank");
    set.revive(0);
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    set.check(MOVED, 1);
    set.check(300..600, 1);
    set.expect_whole(1);
    // By the user's word.
    set.kill(0);
    set.reload(&[new], "degraded format").unwrap();
    set.expect_whole(1);
    set.expect("lost", "340");
}

/// Main is read and written meanwhile, whatever becomes of the new spare, and so it is suspended and resumed.
#[test]
fn a_take_over_amid_suspends() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[16]);
    let blocks = 0..3000;
    set.remap(blocks.clone(), 1);
    let started = Instant::now();
    set.write(WELL, 0).unwrap();
    set.check(WELL, 0);
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    let round = started.elapsed();
    set.kill(0);
    let new = set.add_disk(16);
    // No single write of what is taken over is faster than a round of what goes on meanwhile.
    let everywhere = || 0..16 << 11;
    set.spares[new]
        .disk()
        .lag(everywhere(), Direction::Write, round);
    set.device().load(&set.line(&[new], "degraded")).unwrap();
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    let (mut rounds, mut refused) = (0, 0);
    set.wear_out(LATER);
    while !set.is_restored() {
        rounds += 1;
        set.write(WELL, rounds).unwrap();
        set.check(WELL, rounds);
        // After a crash nobody would know of it.
        let moved = set.write(LATER, rounds).is_ok();
        if set.is_taking_over() {
            assert!(!moved, "it was acknowledged");
            refused += 1;
        }
        set.device().suspend().unwrap();
        set.device().resume().unwrap();
    }
    assert!(refused > 0, "it was over at once, in {rounds} rounds");
    let everywhere = everywhere();
    set.spares[new]
        .disk()
        .lag(everywhere, Direction::Write, Duration::ZERO);
    set.expect_whole(1);
    set.expect("lost", "3000");
    set.check_lost(0..16);
    set.check_lost(2984..3000);
    set.again(&[new], "");
    set.check_lost(0..16);
    set.check_lost(2984..3000);
    set.expect("lost", "3000");
    set.write(blocks.clone(), 4).unwrap();
    set.check(blocks, 4);
}

/// The new one dies, too, after each of its writes: the device goes on, and the old one is what it was. Nothing is
/// ever served by main that was on a spare.
#[test]
fn a_new_spare_dies_while_it_takes_over() {
    let _test = vmtest::begin!();
    let (mut undone, mut unfinished) = (0, 0);
    for writes in 0..60 {
        let mut set = orphaned(&[1], &MOVED);
        let new = set.add_disk(1);
        set.spares[new].disk().die_after(writes, Status::Offline);
        set.reload(&[new], "degraded").unwrap();
        set.check(WELL, 1);
        set.check_lost(MOVED);
        set.wear_out(LATER);
        let remapped = set.write(LATER, 2).is_ok();
        set.spares[new].disk().die(Status::Offline, Direction::Both);
        set.device().suspend().unwrap();
        set.device().resume().unwrap();
        set.write(WELL, 2).unwrap();
        set.check_lost(MOVED);
        if set.is_taking_over() {
            let last = LATER.end * BLOCK;
            for message in [&format!("remap {last}")[..], "evacuate 1", "forget_spare 0"] {
                assert!(set.device().message(message).is_err(), "{message}");
            }
            assert!(set.is_taking_over());
        }
        if writes % 3 == 2 && !remapped {
            // Another new one takes over, from both.
            let third = set.add_disk(1);
            set.reload(&[third], "degraded").unwrap();
            set.expect_whole(1);
            set.check_lost(MOVED);
            set.again(&[third], "");
            set.check_lost(MOVED);
            set.check(WELL, 2);
            continue;
        }
        // The old one is back: it is taken as long as the new one is no member.
        set.revive(0);
        match set.reload(&[0], "") {
            Ok(()) => undone += 1,
            Err(refusal) => {
                unfinished += u32::from(!remapped);
                assert!(refusal.reason.contains("has left"), "{refusal:?}");
                set.check_lost(MOVED);
                set.again(&[0], "");
            }
        }
        set.check(MOVED, 1);
        set.check(WELL, 2);
        // A spare that failed is asked once a second.
        assert!(eventually(|| set.write(LATER, 3).is_ok()));
        set.expect_whole(1);
        if remapped {
            break;
        }
        assert!(writes < 59, "it does not end");
    }
    assert!(undone > 1 && unfinished > 1, "{undone}, {unfinished}");
}

/// The power fails after each write of it: the new one has it all, or is refused, and nothing was acknowledged that
/// the old one does not have.
#[test]
fn the_power_fails_while_a_new_spare_takes_over() {
    let _test = vmtest::begin!();
    let mut unfinished = 0;
    for writes in 0..60 {
        let mut set = orphaned(&[1], &MOVED);
        let new = set.add_disk(1);
        set.wear_out(LATER);
        let power = Power::for_writes(writes);
        set.run_on(&power);
        let _ = set.reload(&[new], "degraded");
        let remapped = set.write(LATER, 2).is_ok();
        let ended = !power.is_off();
        set.power_cut(|disk| match (disk + u64::from(writes)) % 3 {
            0 => PowerCut::Drop,
            1 => PowerCut::Tear(writes.into()),
            _ => PowerCut::Keep,
        });
        let uuid = "uuid 00000000-0000-0000-0000-000000000001";
        let refusal = set.try_activate(&[new], uuid).unwrap_err();
        if refusal.reason.contains("not the one") {
            set.activate(&[new], "");
            set.expect_whole(1);
            set.check_lost(MOVED);
            if remapped {
                set.check(LATER, 2);
            }
            // Both are there: the old one is none of them.
            set.deactivate();
            let refusal = set.try_activate(&[new, 0], "").unwrap_err();
            assert!(refusal.reason.contains("left"), "{refusal:?}");
        } else {
            assert!(!remapped, "after {writes}: {refusal:?}");
            unfinished += u32::from(refusal.reason.contains("take over"));
            if refusal.reason.contains("take over") {
                let refusal = set.try_activate(&[0, new], "").unwrap_err();
                assert!(refusal.reason.contains("take over"), "{refusal:?}");
            }
            set.activate(&[0], "");
            set.expect_whole(1);
            set.check(MOVED, 1);
            if refusal.reason.contains("take over") {
                // What is on it is of no use, and can be overwritten.
                set.reload(&[0, new], "format").unwrap();
                set.expect_whole(2);
            }
        }
        if ended {
            assert!(unfinished > 3, "{unfinished} of {writes}");
            return;
        }
    }
    panic!("it does not end");
}
