// SPDX-License-Identifier: GPL-2.0
//! What benchmarks share.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;

use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::table::buckets_for;
use dm_remap_logic::table::remaps_for;
use dm_remap_logic::table::Counts;
use dm_remap_logic::table::View;

/// How many more remaps the module keeps room for.
pub const ROOM: u32 = 4096;

/// A remap table with memory of its own, as large as the module makes it.
#[derive(Debug)]
pub struct Table {
    buckets: Vec<AtomicU32>,
    slots: Vec<AtomicU64>,
    counts: Counts,
}

impl Table {
    /// Remaps these blocks, and has slots for [`ROOM`] more.
    pub fn new(blocks: impl ExactSizeIterator<Item = u64>) -> Self {
        let used = blocks.len() as u32;
        let counts = Counts {
            used,
            tombstones: 0,
        };
        let buckets = buckets_for(remaps_for(&counts, ROOM)).expect("not too many");
        let mut table = Self {
            buckets: words(buckets),
            slots: (0..used + ROOM).map(|_| AtomicU64::new(0)).collect(),
            counts: Counts::default(),
        };
        for (block, slot) in blocks.zip(0..) {
            table.insert(block, slot);
        }
        table
    }

    /// The table as readers see it.
    pub fn view(&self) -> View<'_, AtomicU32, AtomicU64> {
        View::new(&self.buckets, &self.slots)
    }

    /// Remaps a block, which is not remapped, to a slot that serves none.
    pub fn insert(&mut self, block: u64, slot: u32) {
        let word = SlotWord::new(block, SlotState::Valid, Origin::Auto).expect("in range");
        let view = View::new(&self.buckets, &self.slots);
        view.set_slot(slot, word);
        view.insert(&mut self.counts, block, slot).expect("room");
    }

    /// Takes that back.
    pub fn remove(&mut self, block: u64, slot: u32) {
        let view = View::new(&self.buckets, &self.slots);
        assert!(view.remove(&mut self.counts, block, slot));
        view.set_slot(slot, SlotWord::FREE);
    }

    /// Enters everything into fresh buckets, twice as many, and returns these.
    pub fn rebuild(&self) -> Vec<AtomicU32> {
        let fresh = words(self.buckets.len() * 2);
        self.view().rebuild(&fresh).expect("room");
        fresh
    }

    /// Bytes that it has in the module's memory: the slots' generations are there, too.
    pub fn bytes(&self) -> usize {
        self.buckets.len() * 4 + (self.slots.len() - ROOM as usize) * 16
    }
}

fn words(count: usize) -> Vec<AtomicU32> {
    (0..count).map(|_| AtomicU32::new(0)).collect()
}
