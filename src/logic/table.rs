// SPDX-License-Identifier: GPL-2.0

//! The remap table: which slot serves a block of main?
//!
//! A hash table with open addressing in two flat slices that the caller owns:
//! - `buckets`, a power of two of 32-bit words: 0 is empty, 1 is a tombstone, and `n + 2` stands
//!   for slot `n`. There is no key: it stands in the slot's word.
//! - `slots`, the word of every slot below the high-water mark ([`SlotWord`]).
//!
//! One writer, any number of readers, no locks:
//! - Every change is one store to one word. A reader sees a bucket, follows it to the slot, and
//!   believes it only if the slot's word names the block that it looks for; both halves of that
//!   word come from one load. So there is no torn pair.
//! - Removal leaves a tombstone: a reader in the middle of a probe sequence walks on over it.
//! - Replacing the slot of a block is one store to its bucket: readers see the old slot or the new
//!   one, never none.
//! - A slot's word changes its meaning only after every reader that could have looked it up is
//!   gone (M7); that is the caller's part, as is keeping replaced slices until then.
//! - Nothing is ever moved. To grow, or to get rid of tombstones, the writer rebuilds the table in
//!   fresh buckets ([`View::rebuild`]) and publishes these.

mod fill;

pub use self::fill::Stopped;

use core::marker::PhantomData;

use super::slot::SlotWord;
use super::slot::State;
use super::word::Word;

const EMPTY: u32 = 0;
const TOMBSTONE: u32 = 1;
const FIRST_SLOT: u32 = 2;

/// The fewest buckets that a table has.
pub const BUCKETS_MIN: usize = 64;

/// What the writer knows about the buckets; belongs to the same lock as the right to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Buckets that name a slot.
    pub used: u32,
    /// Buckets that are tombstones.
    pub tombstones: u32,
}

/// Why a block can't be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// There is a slot for it already.
    Exists {
        /// That slot.
        slot: u32,
    },
    /// No bucket is left: the caller did not reserve capacity.
    Full,
}

/// How a range of main is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// By main.
    Main,
    /// By consecutive slots.
    Slots {
        /// The slot of the range's first block.
        first: u32,
    },
    /// By consecutive slots that could not be read lately; the next write goes to others.
    Failing {
        /// The slot of the range's first block.
        first: u32,
    },
    /// Reads by main; the next write goes to consecutive slots that are set aside.
    Pending {
        /// The slot of the range's first block.
        first: u32,
    },
    /// Not at all, until a commit settles what holds (M6).
    Doubt,
}

/// The longest part of a range, from its start, that is served in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How it is served.
    pub kind: RunKind,
    /// How many blocks it has; at least one, unless none were asked for.
    pub count: u32,
}

/// How many buckets a table for `remaps` entries has, so that half of them stay empty or more.
/// None if that is more than can be addressed.
pub fn buckets_for(remaps: u32) -> Option<usize> {
    usize::try_from(u64::from(remaps) * 2)
        .ok()?
        .max(BUCKETS_MIN)
        .checked_next_power_of_two()
}

/// Whether a table of `buckets` should be rebuilt before `more` entries are added: probe sequences
/// get long when less than a quarter of all buckets is empty.
pub fn needs_rebuild(counts: &Counts, buckets: usize, more: u32) -> bool {
    let taken = u64::from(counts.used) + u64::from(counts.tombstones) + u64::from(more);
    taken * 4 > buckets as u64 * 3
}

/// For how many remaps the table of `buckets` is to be rebuilt so that `room` more fit in and it need not be
/// rebuilt again soon; none if it has that room. To be asked again when the new one is there, as the
/// old one may have changed: [`is_enough`].
pub fn rebuild_for(counts: &Counts, buckets: usize, room: u32) -> Option<u32> {
    let twice = room.saturating_mul(2);
    needs_rebuild(counts, buckets, room).then(|| counts.used.saturating_add(twice))
}

/// Whether a new table of `buckets` has `room` for more once it has taken over what one with `counts` holds.
/// What was removed there does not come along.
pub fn is_enough(counts: &Counts, buckets: usize, room: u32) -> bool {
    let counts = Counts {
        used: counts.used,
        tombstones: 0,
    };
    !needs_rebuild(&counts, buckets, room)
}

/// A remap table in the caller's memory.
pub struct View<'a, B: Word<u32>, S: Word<u64>> {
    buckets: &'a [B],
    slots: &'a [S],
    _words: PhantomData<(u32, u64)>,
}

impl<B: Word<u32>, S: Word<u64>> Clone for View<'_, B, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Word<u32>, S: Word<u64>> Copy for View<'_, B, S> {}

impl<'a, B: Word<u32>, S: Word<u64>> View<'a, B, S> {
    /// Looks at a table. The number of buckets is a power of two; of another number, only the
    /// largest power of two that it contains is used.
    #[inline(always)]
    pub fn new(buckets: &'a [B], slots: &'a [S]) -> Self {
        View {
            buckets,
            slots,
            _words: PhantomData,
        }
    }

    /// The word of slot `slot`.
    #[inline(always)]
    pub fn slot(&self, slot: u32) -> Option<SlotWord> {
        let word = self.slots.get(slot as usize)?;
        Some(SlotWord::from_memory(word.load()))
    }

    /// Changes the word of slot `slot`; false if there is no such slot. For the writer.
    pub fn set_slot(&self, slot: u32, word: SlotWord) -> bool {
        match self.slots.get(slot as usize) {
            Some(cell) => {
                cell.store(word.to_memory());
                true
            }
            None => false,
        }
    }

    /// The slot that serves `main_block` or is set aside for it, and its word. For readers.
    #[inline]
    pub fn lookup(&self, main_block: u64) -> Option<(u32, SlotWord)> {
        let mut probe = Probe::new(main_block, self.buckets.len())?;
        loop {
            match self.buckets.get(probe.at)?.load() {
                EMPTY => return None,
                TOMBSTONE => (),
                bucket => {
                    let slot = bucket - FIRST_SLOT;
                    if let Some(word) = self.slot(slot) {
                        if word.claims(main_block) {
                            return Some((slot, word));
                        }
                    }
                }
            }
            probe.step()?;
        }
    }

    /// How the blocks from `main_block` on are served: the longest uniform part of `count` blocks.
    /// For readers.
    pub fn run(&self, main_block: u64, count: u32) -> Run {
        let kind = self.kind(main_block);
        let mut length = count.min(1);
        while length < count {
            let Some(next) = main_block.checked_add(u64::from(length)) else {
                break;
            };
            let same = match (kind, self.kind(next)) {
                (RunKind::Main, RunKind::Main) | (RunKind::Doubt, RunKind::Doubt) => true,
                (RunKind::Slots { first }, RunKind::Slots { first: slot })
                | (RunKind::Failing { first }, RunKind::Failing { first: slot })
                | (RunKind::Pending { first }, RunKind::Pending { first: slot }) => {
                    first.checked_add(length) == Some(slot)
                }
                _ => false,
            };
            if !same {
                break;
            }
            length += 1;
        }
        Run {
            kind,
            count: length,
        }
    }

    fn kind(&self, main_block: u64) -> RunKind {
        match self.lookup(main_block) {
            None => RunKind::Main,
            // Main says itself whether it can read, whatever the spare says of the block.
            Some((_, word)) if word.is_doubt() && word.state() != State::Pending => RunKind::Doubt,
            Some((slot, word)) if word.state() == State::Pending => {
                RunKind::Pending { first: slot }
            }
            Some((slot, word)) if word.is_failing() => RunKind::Failing { first: slot },
            Some((slot, _)) => RunKind::Slots { first: slot },
        }
    }

    /// Makes `slot` serve `main_block`. Its word must name that block already. For the writer.
    pub fn insert(
        &self,
        counts: &mut Counts,
        main_block: u64,
        slot: u32,
    ) -> Result<(), InsertError> {
        let bucket = slot.checked_add(FIRST_SLOT).ok_or(InsertError::Full)?;
        let mut free = None;
        let mut probe = Probe::new(main_block, self.buckets.len()).ok_or(InsertError::Full)?;
        loop {
            let cell = self.buckets.get(probe.at).ok_or(InsertError::Full)?;
            match cell.load() {
                EMPTY => {
                    free = free.or(Some((cell, false)));
                    break;
                }
                TOMBSTONE => free = free.or(Some((cell, true))),
                taken => {
                    let slot = taken - FIRST_SLOT;
                    if self.slot(slot).is_some_and(|word| word.claims(main_block)) {
                        return Err(InsertError::Exists { slot });
                    }
                }
            }
            if probe.step().is_none() {
                break;
            }
        }
        let (cell, was_tombstone) = free.ok_or(InsertError::Full)?;
        cell.store(bucket);
        counts.used = counts.used.saturating_add(1);
        if was_tombstone {
            counts.tombstones = counts.tombstones.saturating_sub(1);
        }
        Ok(())
    }

    /// Makes `new` serve `main_block` instead of `old`, in one step for readers. Both slots' words
    /// must name that block. False if `old` did not serve it. For the writer.
    pub fn replace(&self, main_block: u64, old: u32, new: u32) -> bool {
        let Some(bucket) = new.checked_add(FIRST_SLOT) else {
            return false;
        };
        match self.bucket_of(main_block, old) {
            Some(cell) => {
                cell.store(bucket);
                true
            }
            None => false,
        }
    }

    /// Takes back that `slot` serves `main_block`; false if it did not. The slot's word must still
    /// name that block, and changes later. For the writer.
    pub fn remove(&self, counts: &mut Counts, main_block: u64, slot: u32) -> bool {
        match self.bucket_of(main_block, slot) {
            Some(cell) => {
                cell.store(TOMBSTONE);
                counts.used = counts.used.saturating_sub(1);
                counts.tombstones = counts.tombstones.saturating_add(1);
                true
            }
            None => false,
        }
    }

    /// Fills `fresh`, which must be empty and a power of two in number, with all that `self` holds.
    /// The caller then publishes a view of `fresh` over the same slots. For the writer.
    pub fn rebuild<F: Word<u32>>(&self, fresh: &[F]) -> Result<Counts, InsertError> {
        let target = View::new(fresh, self.slots);
        let mut counts = Counts::default();
        for cell in self.buckets {
            let Some(slot) = cell.load().checked_sub(FIRST_SLOT) else {
                continue;
            };
            if let Some(word) = self.slot(slot) {
                target.insert(&mut counts, word.main_block(), slot)?;
            }
        }
        Ok(counts)
    }

    fn bucket_of(&self, main_block: u64, slot: u32) -> Option<&'a B> {
        let bucket = slot.checked_add(FIRST_SLOT)?;
        if self.slot(slot)?.main_block() != main_block {
            return None;
        }
        let mut probe = Probe::new(main_block, self.buckets.len())?;
        loop {
            let cell = self.buckets.get(probe.at)?;
            match cell.load() {
                EMPTY => return None,
                found if found == bucket => return Some(cell),
                _ => probe.step()?,
            }
        }
    }
}

/// The buckets where a block may be found, in the order in which they are tried.
struct Probe {
    at: usize,
    mask: usize,
    left: usize,
}

impl Probe {
    /// None if there are no buckets.
    #[inline(always)]
    fn new(main_block: u64, buckets: usize) -> Option<Self> {
        let bits = buckets.checked_ilog2()?;
        let mask = (1usize << bits) - 1;
        // Fibonacci hashing, of which the highest bits are the good ones: blocks at any even
        // distance, the usual case, land far from each other. In two shifts, for `bits` may be 0.
        let hash = main_block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Some(Probe {
            at: ((hash >> 1) >> (63 - bits)) as usize,
            mask,
            left: mask,
        })
    }

    /// None if all buckets were tried.
    #[inline(always)]
    fn step(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        self.at = self.at.wrapping_add(1) & self.mask;
        Some(())
    }
}
