// SPDX-License-Identifier: GPL-2.0

//! The remap table in the kernel's memory: what readers look at, and how the writer replaces it.

use core::ops::Range;

use kernel::{
    alloc::Flags,
    prelude::*, //
};

use crate::logic::{
    extents::Extents,
    pool::{
        chunks_for,
        Kind,
        Slots, //
    },
    presence::Presence,
    slot::SlotWord,
    table::{
        self,
        Counted,
        Progress,
        View, //
    },
    word::Word, //
};

use super::cells::{
    cells32,
    cells64,
    Cell32,
    Cell64, //
};

/// One generation of the remap table's arrays.
///
/// Bios find it as readers under SRCU, all others under RCU for a moment. The writer changes words in place, one
/// store at a time; when the arrays have to grow or shrink it makes new ones (`meta/writer/growth.rs`), publishes
/// these, and the old ones are freed after grace periods of both.
pub(in crate::remap) struct Map {
    buckets: KVVec<Cell32>,
    slots: KVVec<Cell64>,
    /// What there is of each kind of slots, for the writer.
    chunks: KVVec<Cell64>,
    extents: Extents,
}

/// The word of a slot that there is none of so far.
pub(in crate::remap) const UNKNOWN: SlotWord = SlotWord::FREE_HELD;

/// How many chunks of slots are copied to another map at a time, while others wait for the writer's lock.
const PART: usize = 64;

/// How memory for the map is asked for by who may wait for it. The kernel warns of what it thinks too large,
/// and we go on without.
pub(in crate::remap) fn patient() -> Flags {
    GFP_KERNEL | __GFP_NOWARN
}

/// Makes the buckets of a table without remaps, with room for `remaps` of them.
pub(in crate::remap) fn buckets_for(remaps: u32, flags: Flags) -> Result<KVVec<Cell32>> {
    let buckets = table::buckets_for(remaps).ok_or(ENOMEM)?;
    Ok(cells32(buckets, flags)?)
}

impl Map {
    /// Makes a table without remaps, with room for `remaps` of them, over the slots of `extents`, which are
    /// not to be used so far.
    #[inline(never)]
    pub(in crate::remap) fn new(extents: &Extents, remaps: u32, flags: Flags) -> Result<Self> {
        let buckets = buckets_for(remaps, flags)?;
        let words = core::iter::repeat(UNKNOWN.to_memory());
        let slots = cells64(words, extents.end() as usize, flags)?;
        Self::from_parts(buckets, slots, *extents, flags)
    }

    /// Makes a table of what it consists of. Each number of `extents` must be one of `slots`.
    pub(in crate::remap) fn from_parts(
        buckets: KVVec<Cell32>,
        slots: KVVec<Cell64>,
        extents: Extents,
        flags: Flags,
    ) -> Result<Self> {
        let chunks = cells64(core::iter::empty(), chunks_for(slots.len()), flags)?;
        let map = Self {
            buckets,
            slots,
            chunks,
            extents,
        };
        map.slots().count();
        Ok(map)
    }

    /// Returns where slots are.
    #[inline(always)]
    pub(in crate::remap) fn extents(&self) -> &Extents {
        &self.extents
    }

    /// Takes over a part of what `old` holds into this one, which must be new, with as many slots at least: see
    /// [`Counted::copy_part`]. Does not sleep. For the writer.
    pub(in crate::remap) fn copy_part(
        &self,
        old: &Map,
        progress: &mut Progress,
        copied: impl FnMut(Range<u32>),
    ) -> Result<bool> {
        let part = self.counted();
        let part = part.copy_part(&old.counted(), progress, PART, copied);
        part.map_err(|_| ENOMEM)
    }

    fn counted(&self) -> Counted<'_, Cell32, Cell64, Cell64> {
        Counted {
            view: self.view(),
            slots: self.slots(),
        }
    }

    /// Returns the table.
    #[inline(always)]
    pub(in crate::remap) fn view(&self) -> View<'_, Cell32, Cell64> {
        View::new(&self.buckets, &self.slots)
    }

    /// Returns the words of all slots.
    pub(in crate::remap) fn slots(&self) -> Slots<'_, Cell64, Cell64> {
        Slots::new(&self.slots, &self.chunks, &self.extents)
    }

    /// Returns the word of each slot: for who has to see them all.
    pub(in crate::remap) fn words(&self) -> impl Iterator<Item = SlotWord> + '_ {
        let cells = self.slots.iter();
        cells.map(|cell| SlotWord::from_memory(cell.load()))
    }

    /// Returns one past the highest number of a slot.
    pub(in crate::remap) fn end(&self) -> u32 {
        self.extents.end()
    }

    /// Returns the first slot from `first` on that serves a block or is set aside for one, of some members, a bit
    /// each, and its word.
    pub(in crate::remap) fn next_claim(&self, members: u8, first: u32) -> Option<(u32, SlotWord)> {
        let slots = self.slots();
        let mut claims = slots.of_members(Kind::Claim, members, first);
        claims.find(|(slot, word)| {
            let serves = self.view().lookup(word.main_block());
            serves.is_some_and(|(other, _)| other == *slot)
        })
    }

    /// Returns the first sector of main behind all blocks that slots claim. No table makes a claim beyond its own main, and
    /// a block that moves stays the same block: so bits up to there, or to the end of the largest main that there is
    /// afterwards, are bits for all claims.
    pub(in crate::remap) fn claimed_sectors(&self, block_shift: u32) -> u64 {
        let claims = self.words().filter(|word| word.is_claim());
        let last = claims.map(SlotWord::main_block).max();
        last.map_or(0, |last| last.saturating_add(1) << block_shift)
    }

    /// Sets the presence bits of all blocks that slots claim.
    pub(in crate::remap) fn mark_presence(&self, words: &[Cell64], block_shift: u32) {
        let presence = Presence::new(words);
        for word in self.words().filter(|word| word.is_claim()) {
            presence.set(word.main_block() << block_shift, 1 << block_shift);
        }
    }

    /// Returns how many buckets there are.
    pub(in crate::remap) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Returns the word of a slot; a slot without one is not to be used.
    pub(in crate::remap) fn word(&self, slot: u32) -> SlotWord {
        self.view().slot(slot).unwrap_or(SlotWord::BAD)
    }
}
