// SPDX-License-Identifier: GPL-2.0

//! A table that changes while it is copied in parts: the copy is what the table is in the end.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;

use dm_remap_logic::extents::Extents;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Member;
use dm_remap_logic::pool::chunks_for;
use dm_remap_logic::pool::Pools;
use dm_remap_logic::pool::Slots;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::table::Counted;
use dm_remap_logic::table::Counts;
use dm_remap_logic::table::Progress;
use dm_remap_logic::table::View;
use dm_remap_logic::text::Uuid;

use super::random::Random;

/// No multiple of what is counted together.
const SLOTS: u32 = 1900;

/// Blocks of main.
const BLOCKS: u64 = 400;

struct Memory {
    buckets: Vec<AtomicU32>,
    words: Vec<AtomicU64>,
    chunks: Vec<AtomicU64>,
    extents: Extents,
}

type Table<'a> = Counted<'a, AtomicU32, AtomicU64, AtomicU64>;

impl Memory {
    fn new(buckets: usize, slots: u32) -> Self {
        let cells = |count: usize, word: u64| (0..count).map(move |_| AtomicU64::new(word));
        let member = Member::new(0, Uuid([1; 16]), Geometry::new(1 << 25, 8, 8).unwrap());
        let mut extents = Extents::new(0);
        assert!(extents.grow(0, &member, slots));
        let memory = Memory {
            buckets: (0..buckets).map(|_| AtomicU32::new(0)).collect(),
            words: cells(slots as usize, SlotWord::FREE_HELD.to_memory()).collect(),
            chunks: cells(chunks_for(slots as usize), 0).collect(),
            extents,
        };
        memory.table().slots.count();
        memory
    }

    fn table(&self) -> Table<'_> {
        Counted {
            view: View::new(&self.buckets, &self.words),
            slots: Slots::new(&self.words, &self.chunks, &self.extents),
        }
    }
}

/// A table, and what it should be.
struct World<'a> {
    table: Table<'a>,
    counts: Counts,
    pools: Pools,
    served: BTreeMap<u64, u32>,
    /// Slots that say what they have served.
    replaced: BTreeSet<u32>,
    unused: BTreeSet<u32>,
}

impl<'a> World<'a> {
    fn new(memory: &'a Memory) -> Self {
        World {
            table: memory.table(),
            counts: Counts::default(),
            pools: Pools::new(&memory.table().slots),
            served: BTreeMap::new(),
            replaced: BTreeSet::new(),
            unused: (0..SLOTS).collect(),
        }
    }

    fn set(&mut self, slot: u32, word: SlotWord) {
        self.table.slots.set(&mut self.pools, slot, word).unwrap();
    }

    /// Changes something, as the writer does it.
    fn change(&mut self, random: &mut Random) {
        let Table { view, slots } = &self.table;
        let block = random.next() % BLOCKS;
        let any = |set: &BTreeSet<u32>, random: &mut Random| {
            set.iter()
                .nth(random.next() as usize % set.len().max(1))
                .copied()
        };
        let fresh = any(&self.unused, random);
        let word = SlotWord::new(block, SlotState::Valid, Origin::Auto).unwrap();
        match (random.next() % 8, self.served.get(&block).copied(), fresh) {
            (0..4, None, Some(slot)) => {
                slots.set(&mut self.pools, slot, word).unwrap();
                view.insert(&mut self.counts, block, slot).unwrap();
                self.unused.remove(&slot);
                self.served.insert(block, slot);
            }
            (0..3, Some(old), Some(slot)) => {
                slots.set(&mut self.pools, slot, word).unwrap();
                let before = view.slot(old).unwrap();
                assert!(view.replace(block, old, slot));
                slots.changed(&mut self.pools, old, before, view.slot(old).unwrap());
                self.unused.remove(&slot);
                self.served.insert(block, slot);
                self.replaced.insert(old);
            }
            (3..5, Some(slot), _) => {
                assert!(view.remove(&mut self.counts, block, slot));
                self.served.remove(&block);
                self.unused.insert(slot);
                self.set(slot, SlotWord::FREE_HELD);
            }
            (5, Some(slot), _) => {
                let doubt = random.next() % 2 == 0;
                self.set(slot, word.with_doubt(doubt));
            }
            _ => {
                if let Some(slot) = any(&self.replaced, random) {
                    self.replaced.remove(&slot);
                    self.unused.insert(slot);
                    self.set(slot, SlotWord::FREE);
                }
            }
        }
    }
}

#[test]
fn a_copy_is_what_the_table_is() {
    let (mut parts, mut longest) = (0u32, 0u32);
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let (old, new) = (Memory::new(1024, SLOTS), Memory::new(2048, SLOTS + 700));
        let mut world = World::new(&old);
        for _ in 0..random.next() % 2000 {
            world.change(&mut random);
        }
        let (copy, mut progress) = (new.table(), Progress::default());
        let mut generations = vec![0u32; SLOTS as usize];
        let mut rounds = 0;
        loop {
            rounds += 1;
            let part = 1 + random.next() as usize % 4;
            let copied = |numbers: std::ops::Range<u32>| {
                for slot in numbers {
                    generations[slot as usize] = rounds;
                }
            };
            if copy
                .copy_part(&world.table, &mut progress, part, copied)
                .unwrap()
            {
                break;
            }
            parts += 1;
            // There are ever fewer, so that this ends.
            for _ in 0..40 / rounds {
                world.change(&mut random);
            }
        }
        longest = longest.max(rounds);
        assert!(generations.iter().all(|round| *round != 0));
        for slot in 0..SLOTS {
            assert_eq!(
                copy.view.slot(slot),
                world.table.view.slot(slot),
                "{seed}: slot {slot}"
            );
        }
        for block in 0..BLOCKS {
            let found = copy.view.lookup(block).map(|(slot, _)| slot);
            assert_eq!(
                found,
                world.served.get(&block).copied(),
                "{seed}: block {block}"
            );
        }
        assert_eq!(progress.counts.used, world.counts.used);
        let counted = Pools::new(&copy.slots);
        assert_eq!(
            (counted.available(1), counted.claims(0)),
            (world.pools.available(1), world.pools.claims(0))
        );
        // It goes on as the table.
        let mut next = World {
            table: copy,
            counts: progress.counts,
            ..world
        };
        for _ in 0..500 {
            next.change(&mut random);
        }
        for block in 0..BLOCKS {
            let found = next.table.view.lookup(block).map(|(slot, _)| slot);
            assert_eq!(found, next.served.get(&block).copied());
        }
    }
    assert!(
        parts > 1000 && longest > 10,
        "{parts} parts, {longest} rounds at most"
    );
}
