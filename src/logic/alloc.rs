// SPDX-License-Identifier: GPL-2.0

//! Which slots take new data?
//!
//! Next fit: the search goes on where the last one ended, so that slots are worn evenly and blocks
//! that fail one after the other come to lie one after the other, where one I/O reaches them all.

use super::{
    slot::{
        SlotState,
        SlotWord, //
    },
    word::Word, //
};

/// How many slots a search looks at before it is content with less than it was asked for.
const PATIENCE: usize = 1 << 16;

/// A run of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRun {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Where to search next, and whether it is worth it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocator {
    cursor: u32,
    available: u32,
}

impl Allocator {
    /// Counts the slots that can be given out.
    pub fn new<S: Word<u64>>(slots: &[S]) -> Self {
        let word = |cell: &S| SlotWord::from_memory(cell.load());
        let available = slots.iter().filter(|cell| word(cell).is_available());
        // Go on behind the last one that was given out, as far as can be told.
        let last = slots.iter().rposition(|cell| word(cell).is_claim());
        let cursor = last.map_or(0, |last| last.saturating_add(1));
        Allocator {
            cursor: u32::try_from(cursor).unwrap_or(u32::MAX),
            available: u32::try_from(available.count()).unwrap_or(u32::MAX),
        }
    }

    /// How many slots can be given out.
    pub fn available(&self) -> u32 {
        self.available
    }

    /// Says that `count` more can be given out: freed, or behind a raised high-water mark.
    pub fn add(&mut self, count: u32) {
        self.available = self.available.saturating_add(count);
    }

    /// Says that `count` fewer can be given out: somebody else has marked them as held.
    pub fn remove(&mut self, count: u32) {
        self.available = self.available.saturating_sub(count);
    }

    /// Finds up to `want` consecutive slots and marks them as held. If there is no such run, finds
    /// a shorter one, the longest that it came across. None if no slot can be given out.
    pub fn take<S: Word<u64>>(&mut self, slots: &[S], want: u32) -> Option<SlotRun> {
        if self.available == 0 || want == 0 {
            return None;
        }
        let run = self.find(slots, want);
        let Some(run) = run else {
            // The count was wrong, which costs one search and not one for every error.
            self.available = 0;
            return None;
        };
        for cell in slots
            .iter()
            .skip(run.first as usize)
            .take(run.count as usize)
        {
            cell.store(SlotWord::FREE.with_held(true).to_memory());
        }
        self.available = self.available.saturating_sub(run.count);
        self.cursor = run.first.saturating_add(run.count);
        Some(run)
    }

    /// Goes on searching somewhere else, of `slots` slots: far from where the last ones were found.
    pub fn jump(&mut self, slots: u32) {
        let far = u64::from(self.cursor) + u64::from(slots / 3) + 1;
        self.cursor = (far % u64::from(slots.max(1))) as u32;
    }

    /// Marks one given slot as held; false if it is not to be had.
    pub fn take_slot<S: Word<u64>>(&mut self, slots: &[S], slot: u32) -> bool {
        let Some(cell) = slots.get(slot as usize) else {
            return false;
        };
        if !SlotWord::from_memory(cell.load()).is_available() {
            return false;
        }
        cell.store(SlotWord::FREE.with_held(true).to_memory());
        self.available = self.available.saturating_sub(1);
        true
    }

    /// Gives back a slot that is held and free; of any other it changes nothing.
    pub fn give_back<S: Word<u64>>(&mut self, slots: &[S], slot: u32) {
        let Some(cell) = slots.get(slot as usize) else {
            return;
        };
        let word = SlotWord::from_memory(cell.load());
        if word.state() == SlotState::Free && word.is_held() {
            let word = word.with_held(false);
            cell.store(word.to_memory());
            // Nobody knows yet what the spare says of one that is in doubt.
            if word.is_available() {
                self.add(1);
            }
        }
    }

    fn find<S: Word<u64>>(&self, slots: &[S], want: u32) -> Option<SlotRun> {
        let cursor = (self.cursor as usize).min(slots.len());
        let (before, behind) = slots.split_at(cursor);
        let mut best: Option<SlotRun> = None;
        let mut seen = 0usize;
        // A run does not go round the end.
        for (part, start) in [(behind, cursor), (before, 0)] {
            let mut run = SlotRun { first: 0, count: 0 };
            for (cell, slot) in part.iter().zip(start..) {
                seen = seen.saturating_add(1);
                if !SlotWord::from_memory(cell.load()).is_available() {
                    run.count = 0;
                    if seen > PATIENCE && best.is_some() {
                        return best;
                    }
                    continue;
                }
                if run.count == 0 {
                    run.first = u32::try_from(slot).ok()?;
                }
                run.count += 1;
                if run.count >= want {
                    return Some(run);
                }
                if best.is_none_or(|best| run.count > best.count) {
                    best = Some(run);
                }
            }
        }
        best
    }
}

/// Finds a slot from `first` on that is only set aside, for when no other is left: what it is set aside for is
/// a hint, and a write that fails now needs it more (E4). Only those that `wanted` accepts. Returns the
/// slot and its word.
pub fn find_pending<S: Word<u64>>(
    slots: &[S],
    first: u32,
    wanted: impl Fn(u32, SlotWord) -> bool,
) -> Option<(u32, SlotWord)> {
    let slots = slots.get(first as usize..)?;
    slots.iter().zip(first..).find_map(|(cell, slot)| {
        let word = SlotWord::from_memory(cell.load());
        let pending = word.state() == SlotState::Pending && !word.is_doubt() && !word.is_held();
        (pending && wanted(slot, word)).then_some((slot, word))
    })
}
