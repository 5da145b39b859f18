// SPDX-License-Identifier: GPL-2.0

//! Slot allocation against the plainest possible search.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use dm_remap_logic::alloc::find_pending;
use dm_remap_logic::alloc::Allocator;
use dm_remap_logic::alloc::SlotRun;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use proptest::prelude::*;

fn word(state: SlotState) -> u64 {
    SlotWord::new(7, state, Origin::Auto).unwrap().to_memory()
}

fn slots(states: &[bool]) -> Vec<AtomicU64> {
    let free = SlotWord::FREE.to_memory();
    let taken = word(SlotState::Valid);
    states
        .iter()
        .map(|is_free| AtomicU64::new(if *is_free { free } else { taken }))
        .collect()
}

proptest! {
    #![proptest_config(super::random::config())]

    #[test]
    fn takes_what_is_free_and_the_longest(
        states in prop::collection::vec(any::<bool>(), 0..60),
        wants in prop::collection::vec(1u32..12, 0..20),
    ) {
        let slots = slots(&states);
        let mut model = states.clone();
        let mut allocator = Allocator::new(&slots);
        for want in wants {
            let free = model.iter().filter(|f| **f).count();
            prop_assert_eq!(allocator.available() as usize, free);
            let longest = model
                .split(|is_free| !is_free)
                .map(|run| run.len() as u32)
                .max()
                .unwrap_or(0);
            match allocator.take(&slots, want) {
                None => prop_assert_eq!(free, 0),
                Some(run) => {
                    let range = run.first as usize..(run.first + run.count) as usize;
                    prop_assert!(model[range.clone()].iter().all(|f| *f));
                    prop_assert!(run.count <= want);
                    // The search goes round the end, a run does not: of a run that the cursor cuts
                    // in two, the longer half counts.
                    prop_assert!(run.count >= want.min(longest.div_ceil(2)));
                    model[range.clone()].fill(false);
                    for slot in range {
                        let word = SlotWord::from_memory(slots[slot].load(Ordering::Relaxed));
                        prop_assert!(word.is_held() && !word.is_available());
                    }
                }
            }
        }
    }
}

#[test]
fn next_fit() {
    let slots = slots(&[true; 10]);
    let mut allocator = Allocator::new(&slots);
    let run = |first, count| Some(SlotRun { first, count });
    assert_eq!(allocator.take(&slots, 4), run(0, 4));
    assert_eq!(allocator.take(&slots, 2), run(4, 2));
    allocator.give_back(&slots, 0);
    allocator.give_back(&slots, 1);
    // Given back twice counts once.
    allocator.give_back(&slots, 1);
    assert_eq!(allocator.available(), 6);
    assert_eq!(allocator.take(&slots, 3), run(6, 3));
    assert_eq!(allocator.take(&slots, 2), run(0, 2));
    assert_eq!(allocator.take(&slots, 2), run(9, 1));
    assert_eq!(allocator.take(&slots, 1), None);
    assert_eq!(allocator.take(&slots, 0), None);
}

#[test]
fn jumps_reach_everything() {
    for count in [1u32, 2, 3, 7, 100] {
        let slots = slots(&vec![true; count as usize]);
        let mut allocator = Allocator::new(&slots);
        let mut seen = vec![false; count as usize];
        let mut last = None;
        for left in (0..count).rev() {
            allocator.jump(count);
            let run = allocator.take(&slots, 1).unwrap();
            assert!(!std::mem::replace(&mut seen[run.first as usize], true));
            assert_eq!(allocator.available(), left);
            if let (Some(last), true) = (last, left > count / 2) {
                assert!(run.first.abs_diff(last) > count / 8, "{last} {run:?}");
            }
            last = Some(run.first);
        }
        assert_eq!(allocator.take(&slots, 1), None);
        allocator.jump(0);
    }
}

#[test]
fn starts_behind_the_last_one_in_use() {
    let mut states = [true; 10];
    states[6] = false;
    let slots = slots(&states);
    let taken = Allocator::new(&slots).take(&slots, 2);
    assert_eq!(taken, Some(SlotRun { first: 7, count: 2 }));
}

#[test]
fn a_wrong_count_is_found_out() {
    let slots = slots(&[false; 4]);
    let mut allocator = Allocator::new(&slots);
    allocator.add(3);
    assert_eq!(allocator.take(&slots, 1), None);
    assert_eq!(allocator.available(), 0);
}

#[test]
fn a_slot_of_the_users_choice() {
    let slots = slots(&[true, false, true]);
    let mut allocator = Allocator::new(&slots);
    assert!(allocator.take_slot(&slots, 2));
    assert_eq!(allocator.available(), 1);
    for taken in [1, 2, 3] {
        assert!(!allocator.take_slot(&slots, taken));
    }
    allocator.give_back(&slots, 2);
    assert!(allocator.take_slot(&slots, 2));
}

#[test]
fn what_is_in_doubt_is_not_given_out() {
    let slots = slots(&[true]);
    let mut allocator = Allocator::new(&slots);
    assert!(allocator.take_slot(&slots, 0));
    let doubt = SlotWord::FREE.with_held(true).with_doubt(true);
    slots[0].store(doubt.to_memory(), Ordering::Relaxed);
    allocator.give_back(&slots, 0);
    assert_eq!(allocator.available(), 0);
    assert_eq!(allocator.take(&slots, 1), None);
}

#[test]
fn pending_slots_are_found() {
    let slots = slots(&[true, false, false]);
    let any = |_, _| true;
    assert_eq!(find_pending(&slots, 0, any), None);
    let pending = SlotWord::new(7, SlotState::Pending, Origin::Auto).unwrap();
    slots[1].store(pending.with_doubt(true).to_memory(), Ordering::Relaxed);
    assert_eq!(find_pending(&slots, 0, any), None);
    slots[2].store(pending.to_memory(), Ordering::Relaxed);
    assert_eq!(find_pending(&slots, 0, any), Some((2, pending)));
    assert_eq!(find_pending(&slots, 2, any), Some((2, pending)));
    assert_eq!(find_pending(&slots, 3, any), None);
    assert_eq!(find_pending(&slots, 4, any), None);
    assert_eq!(find_pending(&slots, 0, |_, word| word != pending), None);
    assert_eq!(find_pending(&slots, 0, |slot, _| slot != 2), None);
}
