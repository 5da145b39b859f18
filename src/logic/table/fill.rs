// SPDX-License-Identifier: GPL-2.0

//! Filling a table with what was read from a spare: many remaps, and no readers so far.

use core::ops::Range;

use super::{
    super::{
        slot::SlotWord,
        word::Word, //
    },
    Counts,
    InsertError,
    Probe,
    View,
    EMPTY, //
};

/// Why filling has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The slot that could not be entered. Those before it were.
    pub at: u32,
    /// Its word.
    pub word: SlotWord,
    /// Why.
    pub error: InsertError,
}

impl<B: Word<u32>, S: Word<u64>> View<'_, B, S> {
    /// Makes all those of `slots` that claim a block serve it, like [`View::insert`] does, and faster. Stops at
    /// a slot whose block another one serves. The table must have as many empty buckets and one more, and no
    /// tombstones. For the writer.
    pub fn insert_all(&self, counts: &mut Counts, slots: Range<u32>) -> Result<(), Stopped> {
        let mut used = 0u32;
        let words = self.slots.get(slots.start as usize..slots.end as usize);
        let mut result = Ok(());
        for (cell, slot) in words.unwrap_or(&[]).iter().zip(slots) {
            let word = SlotWord::from_memory(cell.load());
            if !word.is_claim() {
                continue;
            }
            if let Err(error) = self.insert_new(word, slot) {
                let at = slot;
                result = Err(Stopped { at, word, error });
                break;
            }
            used = used.wrapping_add(1);
        }
        counts.used = counts.used.saturating_add(used);
        result
    }

    #[inline(always)]
    fn insert_new(&self, word: SlotWord, slot: u32) -> Result<(), InsertError> {
        let bucket = Self::bucket(slot).ok_or(InsertError::Full)?;
        let main_block = word.main_block();
        let mut probe = Probe::new(main_block, self.buckets.len()).ok_or(InsertError::Full)?;
        loop {
            let cell = self.buckets.get(probe.at).ok_or(InsertError::Full)?;
            match cell.load() {
                EMPTY => {
                    cell.store(bucket);
                    return Ok(());
                }
                taken => {
                    let slot = taken - 1;
                    if self.slot(slot).is_some_and(|word| word.claims(main_block)) {
                        return Err(InsertError::Exists { slot });
                    }
                }
            }
            probe.step().ok_or(InsertError::Full)?;
        }
    }
}
