// SPDX-License-Identifier: GPL-2.0

//! The map while it is being filled, block by block in the order of the slots.

use kernel::prelude::*;

use crate::{
    logic::{
        format::{
            table_block::{
                TableBlock,
                ENTRIES, //
            },
            Superblock, //
        },
        load::{
            self,
            Claim, //
        },
        slot::{
            Entry,
            SlotWord, //
        },
        table::{
            self,
            Counts,
            InsertError,
            View, //
        }, //
    },
    remap::{
        meta::writer::growth::ROOM,
        path::{
            cells::{
                Cell32,
                Cell64, //
            },
            map::{
                buckets_for,
                patient,
                UNKNOWN, //
            }, //
        }, //
    }, //
};

use super::Refused;

/// A map that nobody reads so far. Remaps are entered as soon as they are known: that takes about as long as
/// reading them, and so is done meanwhile.
pub(super) struct Filling {
    pub(super) buckets: KVVec<Cell32>,
    pub(super) counts: Counts,
    pub(super) slots: KVVec<Cell64>,
    pub(super) generations: KVVec<u64>,
    /// Slots whose claims lost against newer ones (M5).
    pub(super) lost: KVec<u32>,
    /// Whether there was no memory for more buckets.
    cramped: bool,
}

impl Filling {
    /// Makes one without slots.
    pub(super) fn new() -> Self {
        Self {
            buckets: KVVec::new(),
            counts: Counts::default(),
            slots: KVVec::new(),
            generations: KVVec::new(),
            lost: KVec::new(),
            cramped: false,
        }
    }

    /// Makes room for this many slots, of which at most so many serve blocks. If more do than is guessed, that
    /// only takes longer.
    pub(super) fn reserve(&mut self, slots: u32, used: u32) -> Result {
        if self.len() == 0 {
            let guess = buckets_for(table::guess_for(used, ROOM), patient());
            self.buckets = guess.or_else(|_| buckets_for(ROOM, patient()))?;
            self.slots = KVVec::with_capacity(slots as usize, patient())?;
            self.generations = KVVec::with_capacity(slots as usize, patient())?;
        }
        Ok(())
    }

    /// How many slots there are so far.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds slots that there are none of so far.
    pub(super) fn add_unknown(&mut self, count: u32) -> Result {
        for _ in 0..count {
            self.slots
                .push(Cell64::new(UNKNOWN.to_memory()), GFP_KERNEL)?;
        }
        let len = self.slots.len();
        self.generations.resize(len, 0, GFP_KERNEL)?;
        Ok(())
    }

    /// Takes back all slots from the one with the number `len` on, which must not claim anything.
    pub(super) fn truncate(&mut self, len: usize) {
        self.slots.truncate(len);
        self.generations.truncate(len);
    }

    /// Adds the slots from `first` to before `end` of a spare, which are those of a block of its slot table.
    pub(super) fn add_block(
        &mut self,
        superblock: &Superblock,
        (first, end): (u32, u32),
        block: &TableBlock<'_>,
    ) -> Result<(), Refused> {
        self.slots.reserve(ENTRIES as usize, GFP_KERNEL)?;
        self.generations.reserve(ENTRIES as usize, GFP_KERNEL)?;
        let start = self.slots.len();
        for (slot, entry) in (first..end).zip(block.entries()) {
            load::check_entry(superblock, slot, &entry)?;
            let cell = Cell64::new(entry.word.to_memory());
            self.slots.push_within_capacity(cell).map_err(|_| EINVAL)?;
            self.generations
                .push_within_capacity(entry.generation)
                .map_err(|_| EINVAL)?;
        }
        if table::needs_rebuild(&self.counts, self.buckets.len(), ENTRIES) && !self.cramped {
            let used = self.counts.used;
            let made = self.rebuild(used.saturating_mul(2).saturating_add(ROOM));
            let made = made.or_else(|_| self.rebuild(used.saturating_add(ROOM)));
            // It goes on as it is until it is full.
            self.cramped = made.is_err();
        }
        self.enter(start)
    }

    fn view(&self) -> View<'_, Cell32, Cell64> {
        View::new(&self.buckets, &self.slots)
    }

    /// Enters the claims of all slots from `start` on.
    fn enter(&mut self, start: usize) -> Result<(), Refused> {
        let mut next = u32::try_from(start).map_err(|_| ENOMEM)?;
        let end = u32::try_from(self.slots.len()).map_err(|_| ENOMEM)?;
        let mut counts = self.counts;
        while let Err(stopped) = self.view().insert_all(&mut counts, next..end) {
            let InsertError::Exists { slot: other } = stopped.error else {
                return Err(ENOMEM.into());
            };
            self.settle(stopped.word.main_block(), other, stopped.at)?;
            next = stopped.at.saturating_add(1);
        }
        self.counts = counts;
        Ok(())
    }

    /// Decides which of two slots serves a block that both claim, of which only `first` has a bucket.
    fn settle(&mut self, main_block: u64, first: u32, second: u32) -> Result<(), Refused> {
        let entry = |slot: u32| Entry {
            word: self.view().slot(slot).unwrap_or(SlotWord::BAD),
            generation: self.generations.get(slot as usize).copied().unwrap_or(0),
        };
        let lost = match load::settle_claims(&entry(first), &entry(second))? {
            Claim::First => second,
            Claim::Second => {
                self.view().replace(main_block, first, second);
                first
            }
        };
        self.view().set_slot(lost, SlotWord::FREE);
        if let Some(generation) = self.generations.get_mut(lost as usize) {
            *generation = 0;
        }
        self.lost.push(lost, GFP_KERNEL)?;
        Ok(())
    }

    fn rebuild(&mut self, remaps: u32) -> Result {
        let fresh = buckets_for(remaps, patient())?;
        self.counts = self.view().rebuild(&fresh).map_err(|_| ENOMEM)?;
        self.buckets = fresh;
        Ok(())
    }

    /// Gives back buckets that it does not take, when all remaps are there. If there is no memory to do so,
    /// it keeps them.
    pub(super) fn trim(&mut self) {
        let remaps = table::remaps_for(&self.counts, ROOM);
        if table::buckets_for(remaps).is_some_and(|few| few < self.buckets.len()) {
            let _ = self.rebuild(remaps);
        }
    }
}
