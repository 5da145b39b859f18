// SPDX-License-Identifier: GPL-2.0

//! Replacing a table by one of another size while it is in use: copied in parts, with changes in between.
//!
//! Whoever changes the old one, and who copies, have the same lock; but the lock is given up between two parts, as
//! there may be millions of slots. Each chunk of slots knows whether one of its words has changed since it was copied
//! ([`Slots::take_changed`]). So after all of them were copied once, those are that have changed meanwhile, until
//! there are none; and in the same hold of the lock, the new table takes the old one's place.
//!
//! A bucket changes only together with the word of its slot, so the words tell of buckets, too.

use core::ops::Range;

use super::{
    super::{
        pool::Slots,
        word::Word, //
    },
    Counts,
    InsertError,
    View, //
};

/// A table, and what is counted of its slots.
pub struct Counted<'a, B: Word<u32>, S: Word<u64>, C> {
    /// The table.
    pub view: View<'a, B, S>,
    /// Its slots.
    pub slots: Slots<'a, S, C>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// What the new table has.
    pub counts: Counts,
    /// The chunks before this one were copied.
    next: usize,
}

impl<B: Word<u32>, S: Word<u64>, C: Word<u64>> Counted<'_, B, S, C> {
    /// Copies up to `chunks` chunks of `old`, those that have changed since they were copied at last. Says `copied`
    /// which numbers these were. Returns whether this table is what that one is. It must have been empty at first,
    /// with as many slots or more, and is no one else's. For the writer of `old`.
    pub fn copy_part(
        &self,
        old: &Self,
        progress: &mut Progress,
        mut chunks: usize,
        mut copied: impl FnMut(Range<u32>),
    ) -> Result<bool, InsertError> {
        let all = old.slots.chunks();
        while progress.next < all {
            if chunks == 0 {
                return Ok(false);
            }
            old.slots.take_changed(progress.next);
            copied(self.copy_chunk(old, &mut progress.counts, progress.next)?);
            progress.next += 1;
            chunks -= 1;
        }
        for chunk in (0..all).filter(|chunk| old.slots.has_changed(*chunk)) {
            if chunks == 0 {
                return Ok(false);
            }
            old.slots.take_changed(chunk);
            copied(self.copy_chunk(old, &mut progress.counts, chunk)?);
            chunks -= 1;
        }
        Ok(true)
    }

    /// Makes a chunk what it is in `old`. Returns the numbers of its slots.
    fn copy_chunk(
        &self,
        old: &Self,
        counts: &mut Counts,
        chunk: usize,
    ) -> Result<Range<u32>, InsertError> {
        let numbers = old.slots.numbers_of(chunk);
        for slot in numbers.clone() {
            match self.served_by(slot) {
                Some(block) if old.served_by(slot) != Some(block) => {
                    self.view.remove(counts, block, slot);
                }
                _ => (),
            }
        }
        self.slots.copy_chunk(&old.slots, chunk);
        for slot in numbers.clone() {
            let Some(block) = old.served_by(slot) else {
                continue;
            };
            if self.served_by(slot).is_some() {
                continue;
            }
            match self.view.insert(counts, block, slot) {
                // That one has changed, too, and its chunk's turn comes later.
                Err(InsertError::Exists { slot: stale }) => {
                    self.view.remove(counts, block, stale);
                    self.view.insert(counts, block, slot)?;
                }
                inserted => inserted?,
            }
        }
        Ok(numbers)
    }

    /// The block that a slot serves, or is set aside for.
    fn served_by(&self, slot: u32) -> Option<u64> {
        let block = self.view.slot(slot)?.main_block();
        let (serves, _) = self.view.lookup(block)?;
        (serves == slot).then_some(block)
    }
}
