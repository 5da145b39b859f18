// SPDX-License-Identifier: GPL-2.0

//! Blocks that main could not read, until they are pending (E4, E7).
//!
//! Whoever reads them is told at once. To set them aside takes the writer's lock and a commit, for which a spare that
//! hangs may be waited for; that is done afterwards, by work of its own. But whoever has another copy, md or btrfs,
//! writes it in the instant in which the error comes, and that has to go to the spare. So the blocks stand here
//! before the error is told:
//!
//! ```text
//!   repairer: note -> answer             noter: set aside, commit, publish -> taken out here
//!   write meanwhile:     map sees the note -> worker: to a slot, as if it were pending
//! ```
//!
//! A block that is noted counts as pending. If there is no slot for it, it is forgotten, and found out again by the
//! next read.
//!
//! `map` looks here only while [`Life`](crate::remap::health::life::Life) is watched, which it is as long as there is a note.

use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full, //
    }, //
};

use crate::{
    logic::word::Word,
    remap::path::cells::{
        cells64,
        Cell64, //
    }, //
};

/// How many blocks are noted at a time; others are found out again.
const NOTES_MAX: usize = 4096;

/// The blocks. All but looking is for who has the desk's lock.
pub(in crate::remap) struct Notes {
    /// The blocks, each and one more; 0 where there is none.
    blocks: KVVec<Cell64>,
    count: Atomic<u32>,
}

impl Notes {
    /// None so far.
    pub(in crate::remap) fn new() -> Result<Self> {
        Ok(Self {
            blocks: cells64(core::iter::empty(), NOTES_MAX, GFP_KERNEL)?,
            count: Atomic::new(0),
        })
    }

    /// Whether there are none.
    #[inline]
    pub(in crate::remap) fn is_empty(&self) -> bool {
        // Who sees that the last one is gone sees its slot.
        self.count.load(Acquire) == 0
    }

    /// The first noted block of a range, if there is one.
    pub(in crate::remap) fn first_in(&self, block: u64, count: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let noted = self
            .blocks
            .iter()
            .filter_map(|cell| cell.load().checked_sub(1));
        noted
            .filter(|noted| noted.wrapping_sub(block) < count)
            .min()
    }

    /// Whether a block is noted.
    pub(in crate::remap) fn has(&self, block: u64) -> bool {
        self.first_in(block, 1).is_some()
    }

    /// Notes a block. False if there is no room, or it is noted already.
    pub(in crate::remap) fn add(&self, block: u64) -> bool {
        if self.has(block) {
            return false;
        }
        let Some(cell) = self.blocks.iter().find(|cell| cell.load() == 0) else {
            return false;
        };
        cell.store(block.saturating_add(1));
        self.count.fetch_add(1, Full);
        true
    }

    /// Takes a block out. Returns whether it was noted.
    pub(in crate::remap) fn remove(&self, block: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let noted = block.saturating_add(1);
        let Some(cell) = self.blocks.iter().find(|cell| cell.load() == noted) else {
            return false;
        };
        cell.store(0);
        self.count.fetch_sub(1, Full);
        true
    }

    /// The first one from `from` on that `wanted` picks.
    pub(in crate::remap) fn next(&self, from: u64, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        let noted = self
            .blocks
            .iter()
            .filter_map(|cell| cell.load().checked_sub(1));
        noted.filter(|block| *block >= from && wanted(*block)).min()
    }
}
