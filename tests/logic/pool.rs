// SPDX-License-Identifier: GPL-2.0

//! Pools of slots against the plainest possible searches and counts.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use dm_remap_logic::extents::Extents;
use dm_remap_logic::format::member_bit;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Member;
use dm_remap_logic::pool::chunks_for;
use dm_remap_logic::pool::Kind;
use dm_remap_logic::pool::Pools;
use dm_remap_logic::pool::Slots;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::Uuid;
use dm_remap_logic::word::Word;
use proptest::prelude::*;

fn claim(state: SlotState) -> SlotWord {
    SlotWord::new(7, state, Origin::Auto).unwrap()
}

/// Slots of several members, in their order, with a number left out between two of them.
struct World {
    words: Vec<AtomicU64>,
    chunks: Vec<AtomicU64>,
    extents: Extents,
    pools: Pools,
}

impl World {
    fn new(members: &[&[SlotWord]]) -> Self {
        let mut extents = Extents::new(0);
        let mut words = Vec::new();
        for (index, own) in (0u8..).zip(members) {
            if index != 0 {
                words.push(SlotWord::FREE_HELD);
            }
            let geometry = Geometry::new(1 << 25, 8, 8).unwrap();
            let member = Member::new(index, Uuid([index + 1; 16]), geometry);
            assert!(extents.grow(index, &member, own.len() as u32));
            words.extend_from_slice(own);
        }
        let words: Vec<AtomicU64> = words
            .iter()
            .map(|word| AtomicU64::new(word.to_memory()))
            .collect();
        let chunks = (0..chunks_for(words.len()))
            .map(|_| AtomicU64::new(0))
            .collect();
        let mut world = World {
            words,
            chunks,
            extents,
            pools: Pools::default(),
        };
        world.slots().count();
        world.pools = Pools::new(&world.slots());
        world
    }

    fn slots(&self) -> Slots<'_, AtomicU64, AtomicU64> {
        Slots::new(&self.words, &self.chunks, &self.extents)
    }

    fn word(&self, slot: u32) -> SlotWord {
        SlotWord::from_memory(self.words[slot as usize].load(Ordering::Relaxed))
    }

    /// Does something with slots and pools.
    fn with<R>(
        &mut self,
        what: impl FnOnce(&Slots<'_, AtomicU64, AtomicU64>, &mut Pools) -> R,
    ) -> R {
        let slots = Slots::new(&self.words, &self.chunks, &self.extents);
        what(&slots, &mut self.pools)
    }

    fn take(&mut self, giving: u8, want: u32) -> Option<(u32, u32)> {
        let run = self.with(|slots, pools| slots.take(pools, giving, want));
        run.map(|run| (run.first, run.count))
    }

    fn all(&self, kind: Kind) -> Vec<u32> {
        let slots = self.slots();
        let found = slots.of_kind(kind, 0..self.words.len() as u32);
        found.map(|(slot, _)| slot).collect()
    }

    /// All counts are what they are if everything is counted anew.
    fn check(&self) {
        let anew = Pools::new(&self.slots());
        for member in 0..8 {
            let bit = member_bit(member);
            assert_eq!(self.pools.available(bit), anew.available(bit));
            assert_eq!(self.pools.claims(member), anew.claims(member));
            assert_eq!(self.pools.serving(member), anew.serving(member));
        }
        for kind in Kind::ALL {
            let plain = (0..self.words.len() as u32).filter(|slot| kind.has(self.word(*slot)));
            assert_eq!(self.all(kind), plain.collect::<Vec<_>>(), "{kind:?}");
        }
    }
}

fn some_word() -> impl Strategy<Value = SlotWord> {
    prop_oneof![
        4 => Just(SlotWord::FREE),
        1 => Just(SlotWord::FREE_HELD),
        1 => Just(SlotWord::FREE_HELD.with_doubt(true)),
        1 => Just(SlotWord::BAD),
        2 => Just(claim(SlotState::Valid)),
        1 => Just(claim(SlotState::Valid).with_failing()),
        1 => Just(claim(SlotState::Valid).with_replaced()),
        1 => Just(claim(SlotState::Valid).with_doubt(true)),
        1 => Just(claim(SlotState::Lost)),
        1 => Just(claim(SlotState::Pending)),
        1 => Just(claim(SlotState::Pending).with_doubt(true)),
    ]
}

proptest! {
    #![proptest_config(super::random::config())]

    #[test]
    fn takes_what_is_free_and_the_longest(
        states in prop::collection::vec(any::<bool>(), 1..60),
        wants in prop::collection::vec(1u32..12, 0..20),
    ) {
        let words: Vec<_> = states
            .iter()
            .map(|free| if *free { SlotWord::FREE } else { claim(SlotState::Valid) })
            .collect();
        let mut model = states.clone();
        let mut world = World::new(&[&words]);
        for want in wants {
            let free = model.iter().filter(|f| **f).count();
            prop_assert_eq!(world.pools.available(1) as usize, free);
            let longest = model
                .split(|is_free| !is_free)
                .map(|run| run.len() as u32)
                .max()
                .unwrap_or(0);
            match world.take(1, want) {
                None => prop_assert_eq!(free, 0),
                Some((first, count)) => {
                    let range = first as usize..(first + count) as usize;
                    prop_assert!(model[range.clone()].iter().all(|f| *f));
                    prop_assert!(count <= want);
                    // The search goes round the end, a run does not: of a run that the cursor cuts
                    // in two, the longer half counts.
                    prop_assert!(count >= want.min(longest.div_ceil(2)));
                    model[range.clone()].fill(false);
                    for slot in range {
                        let word = world.word(slot as u32);
                        prop_assert!(word.is_held() && !word.is_available());
                    }
                }
            }
        }
    }

    #[test]
    fn counts_are_right_whatever_happens(
        first in prop::collection::vec(some_word(), 1..40),
        second in prop::collection::vec(some_word(), 1..40),
        steps in prop::collection::vec((0u32..80, some_word(), 0u8..6), 0..40),
    ) {
        // The second one reaches into another chunk.
        let far = vec![claim(SlotState::Valid); 1000];
        let second = [far, second].concat();
        let mut world = World::new(&[&first, &second]);
        world.check();
        for (slot, word, what) in steps {
            let slot = if slot < 40 { slot } else { 960 + slot };
            world.with(|slots, pools| match what {
                0 => {
                    slots.set(pools, slot, word);
                }
                1 => {
                    slots.take(pools, slot as u8 & 3, slot % 7);
                }
                2 => {
                    slots.take_slot(pools, slot);
                }
                3 => slots.give_back(pools, slot),
                4 => slots.change_all(pools, 1, (slot, slot + 20), (Kind::Held, SlotWord::FREE)),
                _ => pools.jump(slot),
            });
            world.check();
        }
    }
}

#[test]
fn next_fit() {
    let mut world = World::new(&[&[SlotWord::FREE; 10]]);
    assert_eq!(world.take(1, 4), Some((0, 4)));
    assert_eq!(world.take(1, 2), Some((4, 2)));
    // Given back twice counts once.
    for slot in [0, 1, 1] {
        world.with(|slots, pools| slots.give_back(pools, slot));
    }
    assert_eq!(world.pools.available(1), 6);
    assert_eq!(world.take(1, 3), Some((6, 3)));
    assert_eq!(world.take(1, 2), Some((0, 2)));
    assert_eq!(world.take(1, 2), Some((9, 1)));
    assert_eq!(world.take(1, 1), None);
    assert_eq!(world.take(1, 0), None);
}

#[test]
fn jumps_reach_everything() {
    for count in [1u32, 2, 3, 7, 100] {
        let mut world = World::new(&[&vec![SlotWord::FREE; count as usize]]);
        let mut seen = vec![false; count as usize];
        let mut last = None;
        for left in (0..count).rev() {
            world.pools.jump(count);
            let (first, _) = world.take(1, 1).unwrap();
            assert!(!std::mem::replace(&mut seen[first as usize], true));
            assert_eq!(world.pools.available(1), left);
            if let (Some(last), true) = (last, left > count / 2) {
                assert!(first.abs_diff(last) > count / 8, "{last} {first}");
            }
            last = Some(first);
        }
        assert_eq!(world.take(1, 1), None);
        world.pools.jump(0);
    }
}

#[test]
fn starts_behind_the_last_one_in_use() {
    let mut words = [SlotWord::FREE; 10];
    words[6] = claim(SlotState::Valid);
    assert_eq!(World::new(&[&words]).take(1, 2), Some((7, 2)));
}

/// What a member does is a matter of who asks, and no slot changes with it.
#[test]
fn only_members_that_give_some_are_searched() {
    let mut world = World::new(&[&[SlotWord::FREE; 3], &[SlotWord::FREE; 3]]);
    assert_eq!(world.pools.available(0), 0);
    assert_eq!(world.take(0, 1), None);
    assert_eq!(world.take(2, 2), Some((4, 2)));
    assert_eq!(world.take(2, 2), Some((6, 1)));
    assert_eq!(world.take(2, 1), None);
    assert_eq!(world.pools.available(3), 3);
    // A run is one member's.
    world.with(|slots, pools| slots.give_back(pools, 4));
    assert_eq!(world.take(3, 6), Some((0, 3)));
    assert_eq!(world.take(3, 6), Some((4, 1)));
}

#[test]
fn a_slot_of_the_users_choice() {
    let taken = claim(SlotState::Valid);
    let mut world = World::new(&[&[SlotWord::FREE, taken, SlotWord::FREE]]);
    let mut take = |slot| world.with(|slots, pools| slots.take_slot(pools, slot));
    assert!(take(2));
    for taken in [1, 2, 3] {
        assert!(!take(taken));
    }
    world.with(|slots, pools| slots.give_back(pools, 2));
    assert!(world.with(|slots, pools| slots.take_slot(pools, 2)));
}

#[test]
fn what_is_in_doubt_is_not_given_out() {
    let mut world = World::new(&[&[SlotWord::FREE_HELD.with_doubt(true)]]);
    world.with(|slots, pools| slots.give_back(pools, 0));
    assert_eq!(world.pools.available(1), 0);
    assert_eq!(world.take(1, 1), None);
}

#[test]
fn claims_of_some_members_from_a_number_on() {
    let taken = claim(SlotState::Valid);
    let world = World::new(&[&[taken, SlotWord::FREE, taken], &[taken]]);
    let slots = world.slots();
    let found = |members, first| {
        let claims = slots.of_members(Kind::Claim, members, first);
        claims.map(|(slot, _)| slot).collect::<Vec<_>>()
    };
    assert_eq!(found(u8::MAX, 0), [0, 2, 4]);
    assert_eq!(found(u8::MAX, 1), [2, 4]);
    assert_eq!(found(1, 1), [2]);
    assert_eq!(found(2, 0), [4]);
    assert_eq!(found(1, 3), []);
    assert_eq!(found(4, 0), []);
}

/// A cell that counts who looks at it.
struct Seen<'a>(AtomicU64, &'a AtomicU64);

impl Word<u64> for Seen<'_> {
    fn load(&self) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.load(Ordering::Relaxed)
    }

    fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// P16: whatever a spare of millions of slots is nearly full of, a search looks at few words.
#[test]
fn a_search_looks_at_few_words() {
    const SLOTS: usize = 1 << 22;
    let looks = AtomicU64::new(0);
    let far = SLOTS - 7;
    let cells = |value: u64, count: usize| -> Vec<_> {
        let cell = |_| Seen(AtomicU64::new(value), &looks);
        (0..count).map(cell).collect()
    };
    let words = cells(claim(SlotState::Valid).to_memory(), SLOTS);
    let chunks = cells(0, chunks_for(SLOTS));
    words[far].store(SlotWord::FREE.to_memory());
    words[far + 1].store(claim(SlotState::Pending).to_memory());
    words[far + 2].store(SlotWord::FREE_HELD.to_memory());
    words[far + 3].store(SlotWord::BAD.with_doubt(true).to_memory());
    let geometry = Geometry::new(1 << 26, 8, 8).unwrap();
    let mut extents = Extents::new(3);
    let member = Member::new(0, Uuid([1; 16]), geometry);
    assert!(extents.grow(0, &member, SLOTS as u32));
    let slots = Slots::new(&words, &chunks, &extents);
    slots.count();
    let mut pools = Pools::new(&slots);
    pools.jump(1);
    let bounded = |what: &str| {
        let looked = looks.swap(0, Ordering::Relaxed);
        assert!(looked < SLOTS as u64 / 200, "{what}: {looked} words");
    };
    // What was looked at so far does not count.
    looks.store(0, Ordering::Relaxed);
    let run = slots.take(&mut pools, 1, 64).map(|run| run.first as usize);
    assert_eq!(run, Some(far));
    bounded("the last free slot");
    assert!(slots.take(&mut pools, 1, 64).is_none());
    bounded("no slot is free");
    for (kind, place) in [(Kind::Pending, far + 1), (Kind::Doubt, far + 3)] {
        let found: Vec<_> = slots.of_members(kind, 1, 0).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0 as usize, place);
        bounded("one of a kind");
    }
    // One that is free here and there is as bad as none for who wants many.
    for slot in (0..SLOTS as u32).step_by(100) {
        slots.set(&mut pools, slot, SlotWord::FREE);
    }
    looks.store(0, Ordering::Relaxed);
    assert_eq!(slots.take(&mut pools, 1, 64).map(|run| run.count), Some(1));
    let looked = looks.swap(0, Ordering::Relaxed);
    assert!(looked < 40_000, "scattered ones: {looked} words");
    let available = pools.available(1);
    slots.change_all(
        &mut pools,
        0,
        (0, SLOTS as u32),
        (Kind::Held, SlotWord::FREE),
    );
    bounded("what is held");
    assert_eq!(pools.available(1), available + 3);
}
