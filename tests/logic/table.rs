// SPDX-License-Identifier: GPL-2.0

//! The remap table against a map of the standard library, and under readers that don't wait.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::table::buckets_for;
use dm_remap_logic::table::guess_for;
use dm_remap_logic::table::is_enough;
use dm_remap_logic::table::needs_rebuild;
use dm_remap_logic::table::rebuild_for;
use dm_remap_logic::table::remaps_for;
use dm_remap_logic::table::Counts;
use dm_remap_logic::table::InsertError;
use dm_remap_logic::table::Run;
use dm_remap_logic::table::RunKind;
use dm_remap_logic::table::View;
use dm_remap_logic::table::BUCKETS_MIN;
use dm_remap_logic::table::GUESS_MAX;
use dm_remap_logic::table::SLOT_LAST;
use proptest::prelude::*;

use super::random::Random;

const SLOTS: u32 = 40;

/// What a tombstone looks like where there are so many slots: like the bucket of the last one.
const TOMBSTONE: u32 = SLOTS;

type Small<'a> = View<'a, AtomicU32, AtomicU64, { SLOTS - 1 }>;

fn cells32(n: usize) -> Vec<AtomicU32> {
    (0..n).map(|_| AtomicU32::new(0)).collect()
}

fn cells64(n: usize) -> Vec<AtomicU64> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

fn word(main: u64, state: SlotState) -> SlotWord {
    SlotWord::new(main, state, Origin::Auto).unwrap()
}

#[derive(Clone, Debug)]
enum Action {
    Insert {
        main: u64,
        slot: u32,
    },
    Replace {
        main: u64,
        slot: u32,
    },
    Remove {
        main: u64,
    },
    /// What is done at some time with slots that were replaced.
    Retire,
    Rebuild,
    State {
        main: u64,
        state: u8,
    },
}

fn actions() -> impl Strategy<Value = Action> {
    let main = 0u64..48;
    // The last one is special, so let it be used often.
    let slot = prop_oneof![4 => 0..SLOTS, 1 => Just(SLOTS - 1)];
    prop_oneof![
        4 => (main.clone(), slot.clone()).prop_map(|(main, slot)| Action::Insert { main, slot }),
        1 => (main.clone(), slot).prop_map(|(main, slot)| Action::Replace { main, slot }),
        3 => main.clone().prop_map(|main| Action::Remove { main }),
        1 => Just(Action::Retire),
        1 => Just(Action::Rebuild),
        1 => (main, 0u8..4).prop_map(|(main, state)| Action::State { main, state }),
    ]
}

/// How a block is served, by the model.
fn kind(model: &BTreeMap<u64, (u32, u8)>, main: u64) -> RunKind {
    match model.get(&main) {
        None => RunKind::Main,
        Some((first, 0)) => RunKind::Slots { first: *first },
        // Main answers reads whether the spare has a note of that or not.
        Some((first, 1 | 3)) => RunKind::Pending { first: *first },
        Some(_) => RunKind::Doubt,
    }
}

fn follows(kind: RunKind, next: RunKind, by: u32) -> bool {
    match (kind, next) {
        (RunKind::Slots { first }, RunKind::Slots { first: n })
        | (RunKind::Pending { first }, RunKind::Pending { first: n }) => first + by == n,
        (kind, next) => kind == next,
    }
}

proptest! {
    #![proptest_config(super::random::config())]

    #[test]
    fn like_a_map(actions in prop::collection::vec(actions(), 0..200), spread in 0u32..40) {
        // Multiples of a power of two are the worst that the hash can get.
        let key = |main: u64| main << spread;
        let mut buckets = cells32(64);
        let slots = cells64(SLOTS as usize);
        let mut counts = Counts::default();
        let mut model: BTreeMap<u64, (u32, u8)> = BTreeMap::new();
        let mut replaced: Vec<u32> = Vec::new();
        // While the last slot is in use, tombstones stay.
        let mut stayed = false;
        for action in actions {
            let table = Small::with_last(&buckets, &slots);
            let taken = |slot: u32| {
                replaced.contains(&slot) || model.values().any(|(s, _)| *s == slot)
            };
            match action {
                Action::Insert { main, slot } => match model.get(&main) {
                    Some((slot, _)) => {
                        let found = table.insert(&mut counts, key(main), 0);
                        prop_assert_eq!(found, Err(InsertError::Exists { slot: *slot }));
                    }
                    None if taken(slot) => (),
                    None => {
                        if needs_rebuild(&counts, buckets.len(), 1) {
                            let fresh = cells32(64);
                            counts = table.rebuild(&fresh).unwrap();
                            (buckets, stayed) = (fresh, false);
                        }
                        let table = Small::with_last(&buckets, &slots);
                        table.set_slot(slot, word(key(main), SlotState::Valid));
                        prop_assert_eq!(table.insert(&mut counts, key(main), slot), Ok(()));
                        model.insert(main, (slot, 0));
                    }
                },
                Action::Replace { main, slot } => {
                    if let (Some((old, _)), false) = (model.get(&main).copied(), taken(slot)) {
                        table.set_slot(slot, word(key(main), SlotState::Valid));
                        prop_assert!(table.replace(key(main), old, slot));
                        // Its word goes on to name the block for a while.
                        replaced.push(old);
                        model.insert(main, (slot, 0));
                    }
                }
                Action::Retire => {
                    for slot in replaced.drain(..) {
                        table.set_slot(slot, SlotWord::FREE);
                    }
                }
                Action::Remove { main } => {
                    let slot = model.remove(&main).map(|(slot, _)| slot);
                    let removed = table.remove(&mut counts, key(main), slot.unwrap_or(0));
                    prop_assert_eq!(removed, slot.is_some());
                    if let Some(slot) = slot {
                        table.set_slot(slot, SlotWord::FREE);
                    }
                }
                Action::Rebuild => {
                    let fresh = cells32(128);
                    counts = table.rebuild(&fresh).unwrap();
                    prop_assert_eq!(counts.tombstones, 0);
                    (buckets, stayed) = (fresh, false);
                }
                Action::State { main, state } => {
                    if let Some((slot, is)) = model.get_mut(&main) {
                        *is = state;
                        let word = match state {
                            0 => word(key(main), SlotState::Valid),
                            1 => word(key(main), SlotState::Pending),
                            3 => word(key(main), SlotState::Pending).with_doubt(true),
                            _ => word(key(main), SlotState::Valid).with_doubt(true),
                        };
                        table.set_slot(*slot, word);
                    }
                }
            }
            prop_assert_eq!(counts.used as usize, model.len());
            let table = Small::with_last(&buckets, &slots);
            for main in 0..50 {
                let found = table.lookup(key(main)).map(|(slot, _)| slot);
                prop_assert_eq!(found, model.get(&main).map(|(slot, _)| *slot));
            }
            let last_used = model.values().any(|(slot, _)| *slot == SLOTS - 1);
            stayed |= last_used;
            let all: Vec<u32> = buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
            let tombstones = all.iter().filter(|bucket| **bucket == TOMBSTONE).count();
            prop_assert_eq!(tombstones as u32, counts.tombstones + u32::from(last_used));
            let next = all.iter().cycle().skip(1);
            let useless = all.iter().zip(next).any(|pair| pair == (&TOMBSTONE, &0));
            prop_assert!(stayed || !useless, "a tombstone before an empty bucket");
        }
        if spread == 0 {
            let table = Small::with_last(&buckets, &slots);
            for main in 0..50 {
                for count in [1, 2, 50] {
                    let run = table.run(main, count);
                    let first = kind(&model, main);
                    let like = |n: &u32| follows(first, kind(&model, main + u64::from(*n)), *n);
                    let expected = 1 + (1..count).take_while(like).count() as u32;
                    prop_assert_eq!(run, Run { kind: first, count: expected });
                }
            }
        }
    }
}

#[test]
fn a_full_table_ends() {
    let buckets = cells32(64);
    let slots = cells64(100);
    let table = View::new(&buckets, &slots);
    let mut counts = Counts::default();
    for slot in 0..64 {
        table.set_slot(slot, word(slot.into(), SlotState::Valid));
        assert_eq!(table.insert(&mut counts, slot.into(), slot), Ok(()));
    }
    assert_eq!(table.insert(&mut counts, 64, 64), Err(InsertError::Full));
    assert_eq!(table.lookup(64), None);
    assert_eq!(table.lookup(63).map(|found| found.0), Some(63));
    assert!(!table.remove(&mut counts, 64, 64));
    for slot in 0..64 {
        assert!(table.remove(&mut counts, slot.into(), slot));
    }
    assert_eq!(
        counts,
        Counts {
            used: 0,
            tombstones: 64
        }
    );
    assert_eq!(table.lookup(3), None);
    table.set_slot(70, word(64, SlotState::Valid));
    assert_eq!(table.insert(&mut counts, 64, 70), Ok(()));
    assert_eq!(
        counts,
        Counts {
            used: 1,
            tombstones: 63
        }
    );
}

#[test]
fn slots_that_fail_are_a_run_of_their_own() {
    let buckets = cells32(64);
    let slots = cells64(100);
    let table = View::new(&buckets, &slots);
    let mut counts = Counts::default();
    for slot in 0..6 {
        table.set_slot(slot, word(slot.into(), SlotState::Valid));
        table.insert(&mut counts, slot.into(), slot).unwrap();
    }
    for slot in [2, 3] {
        table.set_slot(slot, word(slot.into(), SlotState::Valid).with_failing());
    }
    let runs = [
        (0, RunKind::Slots { first: 0 }, 2),
        (2, RunKind::Failing { first: 2 }, 2),
        (4, RunKind::Slots { first: 4 }, 2),
    ];
    for (block, kind, count) in runs {
        assert_eq!(table.run(block, 6 - block as u32), Run { kind, count });
    }
}

#[test]
fn no_table_at_all() {
    let none: [AtomicU32; 0] = [];
    let slots: [AtomicU64; 0] = [];
    let table = View::new(&none, &slots);
    assert_eq!(table.lookup(1), None);
    assert_eq!(
        table.insert(&mut Counts::default(), 1, 1),
        Err(InsertError::Full)
    );
    assert_eq!(
        table.run(0, 8),
        Run {
            kind: RunKind::Main,
            count: 8
        }
    );
    assert_eq!(
        table.run(0, 0),
        Run {
            kind: RunKind::Main,
            count: 0
        }
    );
    assert!(!table.set_slot(0, SlotWord::FREE));
}

#[test]
fn capacity() {
    assert_eq!(buckets_for(0), Some(BUCKETS_MIN));
    assert_eq!(buckets_for(33), Some(128));
    // P11, P12: a million remaps take 16 bytes of slot and 8 of buckets each.
    assert_eq!(buckets_for(1_000_000), Some(1 << 21));
    assert_eq!(buckets_for(u32::MAX), Some(1 << 33));
    let half = Counts {
        used: 30,
        tombstones: 18,
    };
    assert!(!needs_rebuild(&half, 64, 0));
    assert!(needs_rebuild(&half, 64, 1));
    assert!(needs_rebuild(&half, 64, u32::MAX));
}

/// A table that is to be filled has room for a million remaps if there may be so many, and for no more
/// however many slots a disk says that there are.
#[test]
fn what_is_made_on_a_guess() {
    let room = 4096;
    let counts = |used| Counts {
        used,
        tombstones: 0,
    };
    for slots in [0, 1, room, 100_000, 1_000_000, GUESS_MAX] {
        let buckets = buckets_for(guess_for(slots, room)).unwrap();
        assert!(!needs_rebuild(&counts(slots), buckets, room), "{slots}");
        let right = buckets_for(remaps_for(&counts(slots), room)).unwrap();
        assert_eq!(buckets, right, "{slots}");
    }
    let most = buckets_for(guess_for(u32::MAX, room)).unwrap();
    assert!(most <= 1 << 22, "{most}");
    assert_eq!(most, buckets_for(guess_for(GUESS_MAX, room)).unwrap());
}

/// P12: whatever the number of the last slot, it has a bucket, and the number after it has none.
#[test]
fn the_last_slot_has_a_bucket() {
    assert_eq!(u64::from(SLOT_LAST) + 1, (1 << 32) - 1);
    let (buckets, slots) = (cells32(64), cells64(8));
    let table = View::new(&buckets, &slots);
    let mut counts = Counts::default();
    assert_eq!(table.insert(&mut counts, 5, SLOT_LAST), Ok(()));
    let full = Err(InsertError::Full);
    assert_eq!(table.insert(&mut counts, 6, SLOT_LAST + 1), full);
    assert_eq!(counts.used, 1);
    // All slots, and in every state of the table that there is one by one.
    let slots = cells64(SLOTS as usize);
    let buckets = cells32(128);
    let table = Small::with_last(&buckets, &slots);
    let mut counts = Counts::default();
    for slot in 0..SLOTS {
        table.set_slot(slot, word(slot.into(), SlotState::Valid));
        assert_eq!(table.insert(&mut counts, slot.into(), slot), Ok(()));
    }
    assert_eq!(counts.used, SLOTS);
    for slot in 0..SLOTS {
        assert_eq!(table.lookup(slot.into()).map(|found| found.0), Some(slot));
    }
    assert_eq!(table.insert(&mut counts, 99, SLOTS), full);
}

/// Removal in the order of insertion, in the other one, and by chance leaves no tombstones behind where
/// nothing is left.
#[test]
fn nothing_is_left_of_what_was_removed() {
    let many = 3000u32;
    let (buckets, slots) = (cells32(8192), cells64(many as usize));
    let table = View::new(&buckets, &slots);
    let mut counts = Counts::default();
    let mut random = Random::new(17);
    for round in 0..3 {
        for slot in 0..many {
            table.set_slot(slot, word(u64::from(slot) * 7, SlotState::Valid));
            table
                .insert(&mut counts, u64::from(slot) * 7, slot)
                .unwrap();
        }
        let mut order: Vec<u32> = (0..many).collect();
        match round {
            0 => (),
            1 => order.reverse(),
            _ => {
                for at in (1..order.len()).rev() {
                    order.swap(at, random.below(at as u64 + 1) as usize);
                }
            }
        }
        for slot in order {
            assert!(table.remove(&mut counts, u64::from(slot) * 7, slot));
            table.set_slot(slot, SlotWord::FREE);
        }
        assert_eq!(counts, Counts::default());
        assert!(buckets.iter().all(|b| b.load(Ordering::Relaxed) == 0));
    }
}

/// A table that is rebuilt as it is said has room, whatever was removed from it before: otherwise it would
/// be rebuilt for ever.
#[test]
fn one_rebuild_is_enough() {
    let room = 4096;
    for bits in 6..24 {
        let buckets = 1usize << bits;
        for used in [0, 1, 160, 8192, buckets as u32 / 2, buckets as u32 / 4 * 3] {
            for taken in [used, buckets as u32 / 4 * 3, buckets as u32 - 1] {
                let counts = Counts {
                    used,
                    tombstones: taken.saturating_sub(used),
                };
                let Some(remaps) = rebuild_for(&counts, buckets, room) else {
                    continue;
                };
                let buckets = buckets_for(remaps).unwrap();
                assert!(is_enough(&counts, buckets, room), "{counts:?}");
                let rebuilt = Counts {
                    used,
                    tombstones: 0,
                };
                assert_eq!(rebuild_for(&rebuilt, buckets, room), None, "{counts:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(super::random::config())]

    /// Hysteresis: after a rebuild, a quarter of the buckets has to be added or a sixteenth removed
    /// until the next one; and it comes before the buckets are full, or have less than a remap for 16.
    #[test]
    fn no_going_to_and_fro(used in 0u32..u32::MAX, bits in 0u32..32, room in 1u32..100_000) {
        let used = used >> bits;
        let counts = |used, tombstones| Counts { used, tombstones };
        let buckets = buckets_for(remaps_for(&counts(used, 0), room)).unwrap();
        let part = |of| u32::try_from(buckets / of).unwrap_or(u32::MAX);
        // Everything up to there: additions, removals that leave a tombstone, and those that do not.
        for more in [0, 1, part(8), part(4) - 1] {
            if let Some(used) = used.checked_add(more) {
                prop_assert_eq!(rebuild_for(&counts(used, 0), buckets, room), None);
            }
            let fewer = more.min(part(16) - 1).min(used);
            let tombstones = more - fewer;
            prop_assert_eq!(rebuild_for(&counts(used - fewer, tombstones), buckets, room), None);
        }
        // And not much more.
        let grown = u32::try_from(buckets as u64 / 4 * 3).unwrap_or(u32::MAX);
        if grown < u32::MAX {
            let larger = rebuild_for(&counts(grown, 0), buckets, room);
            prop_assert!(larger.is_some_and(|remaps| buckets_for(remaps).unwrap() > buckets));
        }
        let empty = buckets_for(remaps_for(&counts(0, 0), room)).unwrap();
        let shrunk = rebuild_for(&counts(part(16).min(used), 0), buckets, room);
        let smaller = shrunk.map(|remaps| buckets_for(remaps).unwrap());
        prop_assert!(buckets <= empty || used < part(16) || smaller < Some(buckets));
        // What is left is always found to fit where an empty table begins.
        let all_gone = rebuild_for(&counts(0, 0), buckets, room);
        prop_assert_eq!(all_gone.is_some(), buckets > empty);
        prop_assert!(all_gone.is_none_or(|remaps| buckets_for(remaps) == Some(empty)));
    }

    /// However remaps come and go, rebuilding costs each of them a few buckets.
    #[test]
    fn rebuilding_costs_each_change_the_same(
        steps in prop::collection::vec((any::<bool>(), 1u32..40_000), 1..60),
        room in 1u32..4096,
    ) {
        let mut counts = Counts::default();
        let first = buckets_for(remaps_for(&counts, room)).unwrap();
        let (mut buckets, mut changes, mut made) = (first, 0u64, 0u64);
        for (add, count) in steps {
            for _ in 0..count {
                match (add, counts.used) {
                    (true, _) => counts.used += 1,
                    (false, 0) => break,
                    (false, _) => {
                        counts.used -= 1;
                        counts.tombstones += u32::from(changes % 3 == 0);
                    }
                }
                changes += 1;
                if let Some(remaps) = rebuild_for(&counts, buckets, room) {
                    buckets = buckets_for(remaps).unwrap();
                    made += buckets as u64;
                    counts.tombstones = 0;
                }
                prop_assert!(is_enough(&counts, buckets, room));
            }
        }
        prop_assert!(made <= 16 * changes, "{made} buckets for {changes} changes");
    }
}

/// How far a million look-ups walk on average, for blocks that are consecutive, scattered, or
/// evenly spread: P12.
#[test]
fn probes_stay_short() {
    let many = 200_000u32;
    let mut random = Random::new(5);
    let scattered: Vec<u64> = (0..many).map(|_| random.next() >> 16).collect();
    let patterns: [(&str, Vec<u64>); 4] = [
        ("consecutive", (0..many.into()).collect()),
        ("every 64th", (0..many).map(|i| u64::from(i) * 64).collect()),
        (
            "every 1000th",
            (0..many).map(|i| u64::from(i) * 1000).collect(),
        ),
        ("scattered", scattered),
    ];
    for (name, blocks) in patterns {
        let buckets = cells32(buckets_for(many).unwrap());
        let slots = cells64(many as usize);
        let table = View::new(&buckets, &slots);
        let mut counts = Counts::default();
        for (main, slot) in blocks.iter().zip(0..) {
            table.set_slot(slot, word(*main, SlotState::Valid));
            table.insert(&mut counts, *main, slot).unwrap();
        }
        // A run of taken buckets is what an unsuccessful look-up walks over.
        let (mut sum, mut run) = (0u64, 0u64);
        for bucket in buckets.iter().rev() {
            run = if bucket.load(Ordering::Relaxed) == 0 {
                0
            } else {
                run + 1
            };
            sum += run;
        }
        let average = sum as f64 / buckets.len() as f64;
        assert!(average < 2.0, "{name}: {average} buckets walked on average");
    }
}

/// Readers look while the writer inserts, replaces, removes and rebuilds: they find a slot that
/// serves the block now or did a moment ago, and never lose a block that is always there.
#[test]
fn readers_never_wait_and_never_err() {
    const ALWAYS: u64 = 16;
    // Each with words of its own, as in the module.
    let arrays: Vec<(Vec<AtomicU32>, Vec<AtomicU64>)> =
        (0..200).map(|_| (cells32(64), cells64(64))).collect();
    let view = |array: usize| View::new(&arrays[array].0[..], &arrays[array].1[..]);
    let current = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    // How often the slot of each block began and ended to be replaced.
    let (begun, ended) = (cells32(ALWAYS as usize), cells32(ALWAYS as usize));
    let mut counts = Counts::default();
    for main in 0..ALWAYS {
        let table = view(0);
        table.set_slot(main as u32, word(main, SlotState::Valid));
        table.insert(&mut counts, main, main as u32).unwrap();
    }
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (view, current, stop) = (&view, &current, &stop);
            let (begun, ended) = (&begun, &ended);
            scope.spawn(move || {
                let mut random = Random::new(reader);
                while !stop.load(Ordering::Relaxed) {
                    let table = view(current.load(Ordering::Acquire) as usize);
                    let main = random.below(ALWAYS + 8);
                    let count = |of: &[AtomicU32]| {
                        let count = of.get(main as usize);
                        count.map_or(0, |count| count.load(Ordering::SeqCst))
                    };
                    let before = count(ended);
                    match table.lookup(main) {
                        Some((slot, word)) => {
                            assert!(word.claims(main));
                            assert!(slot < 64);
                        }
                        // Who is stopped in the middle may meet a slot that is used again. The module waits
                        // for readers before that (M7).
                        None if count(begun).wrapping_sub(before) > 1 => (),
                        None => assert!(main >= ALWAYS, "block {main} is lost"),
                    }
                }
            });
        }
        // The slot of every block alternates between two of its own, so that no slot gets another
        // meaning while a reader may look at it; blocks from ALWAYS on come and go.
        let mut random = Random::new(99);
        let mut there = [false; 8];
        let mut at: Vec<u32> = (0..ALWAYS as u32).collect();
        let mut array = 0usize;
        for _ in 0..200_000 {
            let table = view(array);
            if needs_rebuild(&counts, 64, 1) {
                if array + 1 == arrays.len() {
                    break;
                }
                for (word, copy) in arrays[array].1.iter().zip(&arrays[array + 1].1) {
                    copy.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                counts = table.rebuild(&arrays[array + 1].0).unwrap();
                array += 1;
                current.store(array as u32, Ordering::Release);
                continue;
            }
            let main = random.below(ALWAYS + 8);
            if main < ALWAYS {
                let old = at[main as usize];
                let new = (old + 32) % 64;
                begun[main as usize].fetch_add(1, Ordering::SeqCst);
                table.set_slot(new, word(main, SlotState::Valid));
                assert!(table.replace(main, old, new));
                ended[main as usize].fetch_add(1, Ordering::SeqCst);
                at[main as usize] = new;
            } else {
                let slot = main as u32;
                let is = &mut there[(main - ALWAYS) as usize];
                if *is {
                    assert!(table.remove(&mut counts, main, slot));
                } else {
                    table.set_slot(slot, word(main, SlotState::Valid));
                    table.insert(&mut counts, main, slot).unwrap();
                }
                *is = !*is;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
