// SPDX-License-Identifier: GPL-2.0

//! The remap table: which slot serves a block of main?
//!
//! A hash table with open addressing in two flat slices that the caller owns:
//! - `buckets`, a power of two of 32-bit words: 0 is empty, and `n + 1` stands for slot `n`. There
//!   is no key: it stands in the slot's word.
//! - `slots`, the word of every slot below the high-water mark ([`SlotWord`]).
//!
//! One writer, any number of readers, no locks:
//! - Every change is one store to one word. A reader sees a bucket, follows it to the slot, and
//!   believes it only if the slot's word names the block that it looks for; both halves of that
//!   word come from one load. So there is no torn pair.
//! - Removal leaves a tombstone: a reader in the middle of a probe sequence walks on over it. Where
//!   the next bucket is empty no probe sequence goes on, and removal leaves an empty bucket, too.
//! - Replacing the slot of a block is one store to its bucket: readers see the old slot or the new
//!   one, never none. The old slot may be taken out of use while a reader is between the two words. So
//!   one that walks on over a bucket looks at it again first: what replaced it was stored before.
//! - A slot's word changes its meaning only after every reader that could have looked it up is
//!   gone (M7); that is the caller's part, as is keeping replaced slices until then.
//! - Nothing is ever moved. To grow, to shrink, or to get rid of tombstones, the writer makes another
//!   table, with fresh buckets, and publishes that: at once where nobody waits ([`View::rebuild`]), and in
//!   parts where others do ([`Counted::copy_part`]).
//!
//! A tombstone is the bucket of the last slot that there can be, so that all values but 0 name slots
//! (P12). Readers need not know: they walk over every bucket whose slot serves another block, or is
//! not there. If that last slot is in use, a tombstone in the way to its block is as good as its
//! bucket. So the writer leaves all tombstones where they are then. And a slot that was replaced is
//! marked so, as it goes on to name its block, and no bucket may lead to it any more.

mod copy;
mod fill;

pub use self::{
    copy::{
        Counted,
        Progress, //
    },
    fill::Stopped, //
};

use core::marker::PhantomData;

use super::{
    slot::{
        SlotState,
        SlotWord, //
    },
    word::Word, //
};

const EMPTY: u32 = 0;

/// The number of the last slot that a table can have.
pub const SLOT_LAST: u32 = u32::MAX - 1;

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
    /// Not at all, until the next write, which goes to consecutive slots that are set aside: the spare that had
    /// them was given up (M9b).
    Lost {
        /// The slot of the range's first block.
        first: u32,
    },
    /// By nobody, until the next write, which goes to a slot: main is not to be read there (E4).
    Avoided,
    /// Not at all, until a commit settles what holds (M6).
    Doubt,
}

impl RunKind {
    /// How a block is served of which this was found.
    #[inline(always)]
    fn of(found: Option<(u32, SlotWord)>) -> Self {
        match found {
            None => RunKind::Main,
            // Main says itself whether it can read, whatever the spare says of the block.
            Some((_, word)) if word.is_doubt() && word.state() != SlotState::Pending => {
                RunKind::Doubt
            }
            Some((slot, word)) if word.state() == SlotState::Pending => {
                RunKind::Pending { first: slot }
            }
            Some((slot, word)) if word.state() == SlotState::Lost => RunKind::Lost { first: slot },
            Some((slot, word)) if word.is_failing() => RunKind::Failing { first: slot },
            Some((slot, _)) => RunKind::Slots { first: slot },
        }
    }

    /// Whether a range that is served so goes on, after `length` blocks, with one that is served in that
    /// way.
    fn goes_on_with(self, next: RunKind, length: u32) -> bool {
        match (self, next) {
            (RunKind::Main, RunKind::Main) | (RunKind::Doubt, RunKind::Doubt) => true,
            (RunKind::Slots { first }, RunKind::Slots { first: slot })
            | (RunKind::Failing { first }, RunKind::Failing { first: slot })
            | (RunKind::Pending { first }, RunKind::Pending { first: slot })
            | (RunKind::Lost { first }, RunKind::Lost { first: slot }) => {
                first.checked_add(length) == Some(slot)
            }
            _ => false,
        }
    }
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

/// How many times more buckets than remaps there are before a table is rebuilt with fewer.
const SPARSE: u64 = 16;

/// For how many remaps a table is built, so that there is `room` for more.
pub fn remaps_for(counts: &Counts, room: u32) -> u32 {
    counts.used.max(room).saturating_add(room)
}

/// For how many remaps a table is made before it is known how many there are. That some spare has more
/// slots in use says little, and comes from a disk.
pub const GUESS_MAX: u32 = 1 << 20;

/// For how many remaps a table is made that is to be filled with what `slots` slots say, with `room` for
/// more. It may have to be rebuilt then.
pub fn guess_for(slots: u32, room: u32) -> u32 {
    slots.clamp(room, GUESS_MAX.max(room)).saturating_add(room)
}

/// For how many remaps the table of `buckets` is to be rebuilt, so that `room` more fit in; none if it need
/// not be. To be asked again when the new one is there, as the old one may have changed: [`is_enough`].
///
/// It is rebuilt when what it has and `room` would take more than three quarters of its buckets, and when
/// it has less than a remap for every 16 of them and fewer would do. Of T buckets that it then gets, that
/// and `room` take half at the most; and an eighth at the least, or T is what an empty table has. So at least
/// a quarter of T has to be added, or a sixteenth removed, until it is rebuilt again: it does not go to and
/// fro, and rebuilding costs each addition and removal the same, however many there are.
pub fn rebuild_for(counts: &Counts, buckets: usize, room: u32) -> Option<u32> {
    let remaps = remaps_for(counts, room);
    let sparse = u64::from(counts.used) * SPARSE <= buckets as u64
        && buckets_for(remaps).is_some_and(|fewer| fewer < buckets);
    (sparse || needs_rebuild(counts, buckets, room)).then_some(remaps)
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

/// A remap table in the caller's memory. `LAST` is the number of the last slot that can be named, which
/// tests choose where they can have as many.
pub struct View<'a, B: Word<u32>, S: Word<u64>, const LAST: u32 = SLOT_LAST> {
    buckets: &'a [B],
    slots: &'a [S],
    _words: PhantomData<(u32, u64)>,
}

impl<B: Word<u32>, S: Word<u64>, const LAST: u32> Clone for View<'_, B, S, LAST> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Word<u32>, S: Word<u64>, const LAST: u32> Copy for View<'_, B, S, LAST> {}

impl<'a, B: Word<u32>, S: Word<u64>> View<'a, B, S> {
    /// Looks at a table. The number of buckets is a power of two; of another number, only the
    /// largest power of two that it contains is used.
    #[inline(always)]
    pub fn new(buckets: &'a [B], slots: &'a [S]) -> Self {
        Self::with_last(buckets, slots)
    }
}

impl<'a, B: Word<u32>, S: Word<u64>, const LAST: u32> View<'a, B, S, LAST> {
    const TOMBSTONE: u32 = LAST + 1;

    /// Looks at a table whose slots have numbers up to `LAST`.
    #[inline(always)]
    pub fn with_last(buckets: &'a [B], slots: &'a [S]) -> Self {
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
    #[inline(always)]
    pub fn lookup(&self, main_block: u64) -> Option<(u32, SlotWord)> {
        let mut probe = Probe::new(main_block, self.buckets.len())?;
        loop {
            let cell = self.buckets.get(probe.at)?;
            let bucket = cell.load();
            // None if it is empty.
            let slot = bucket.checked_sub(1)?;
            if let Some(word) = self.slot(slot) {
                if word.claims(main_block) {
                    return Some((slot, word));
                }
            }
            if cell.load() == bucket {
                probe.step()?;
            }
        }
    }

    /// How the blocks from `main_block` on are served: the longest uniform part of `count` blocks.
    /// For readers.
    pub fn run(&self, main_block: u64, count: u32) -> Run {
        let found = self.lookup(main_block);
        let kind = RunKind::of(found);
        let left = u64::from(count).min(u64::MAX - main_block);
        let mut length = count.min(1);
        while u64::from(length) < left {
            let next = self.lookup(main_block.wrapping_add(length.into()));
            let same = match (found, next) {
                (None, next) => next.is_none(),
                (Some(_), None) => false,
                // What is mostly so is seen at once.
                (Some((first, word)), Some((slot, next))) if word.is_plain() && next.is_plain() => {
                    slot == first.wrapping_add(length)
                }
                (Some(_), next) => kind.goes_on_with(RunKind::of(next), length),
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

    /// Makes `slot`, which has no bucket, serve `main_block`. Its word must name that block already. For the
    /// writer.
    pub fn insert(
        &self,
        counts: &mut Counts,
        main_block: u64,
        slot: u32,
    ) -> Result<(), InsertError> {
        let bucket = Self::bucket(slot).ok_or(InsertError::Full)?;
        let reuse = slot == LAST || !self.last_serves();
        let mut free = None;
        let mut probe = Probe::new(main_block, self.buckets.len()).ok_or(InsertError::Full)?;
        loop {
            let cell = self.buckets.get(probe.at).ok_or(InsertError::Full)?;
            match cell.load() {
                EMPTY => {
                    free = free.or(Some((cell, false)));
                    break;
                }
                taken if taken == Self::TOMBSTONE && reuse => free = free.or(Some((cell, true))),
                taken => {
                    let slot = taken - 1;
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
    /// must name that block; that of `old` is marked. False if `old` did not serve it. For the writer.
    pub fn replace(&self, main_block: u64, old: u32, new: u32) -> bool {
        let (Some(bucket), Some(word)) = (Self::bucket(new), self.slot(old)) else {
            return false;
        };
        let cell = self.find(main_block, old).map(|at| self.buckets.get(at));
        match cell {
            Some(Some(cell)) => {
                cell.store(bucket);
                self.set_slot(old, word.with_replaced())
            }
            _ => false,
        }
    }

    /// Takes back that `slot` serves `main_block`; false if it did not. The slot's word must still
    /// name that block, and changes later. For the writer.
    ///
    /// Whatever is in a bucket, all buckets from where its block belongs up to it are taken. If the bucket
    /// behind `slot`'s is empty, nobody is looking for anything there, and the same then holds for
    /// tombstones before it.
    pub fn remove(&self, counts: &mut Counts, main_block: u64, slot: u32) -> bool {
        let Some(mut at) = self.find(main_block, slot) else {
            return false;
        };
        counts.used = counts.used.saturating_sub(1);
        let next = self.buckets.get(self.after(at));
        if next.is_none_or(|next| next.load() != EMPTY) {
            self.set_bucket(at, Self::TOMBSTONE);
            counts.tombstones = counts.tombstones.saturating_add(1);
            return true;
        }
        self.set_bucket(at, EMPTY);
        while !self.last_serves() {
            at = self.before(at);
            let cell = self.buckets.get(at);
            let Some(cell) = cell.filter(|cell| cell.load() == Self::TOMBSTONE) else {
                break;
            };
            cell.store(EMPTY);
            counts.tombstones = counts.tombstones.saturating_sub(1);
        }
        true
    }

    /// Fills `fresh`, which must be empty and a power of two in number, with all that `self` holds.
    /// The caller then publishes a view of `fresh` over a copy of the slots' words: who still reads the old one
    /// must find them as they were, as replacing a slot in the new one does not change a bucket there. For the writer.
    pub fn rebuild<F: Word<u32>>(&self, fresh: &[F]) -> Result<Counts, InsertError> {
        let target = View::<F, S, LAST>::with_last(fresh, self.slots);
        let mut counts = Counts::default();
        for cell in self.buckets {
            // Those of the last slot may be tombstones.
            let slot = cell.load().checked_sub(1).filter(|slot| *slot != LAST);
            if let Some((slot, word)) = slot.and_then(|slot| Some((slot, self.slot(slot)?))) {
                target.append(&mut counts, word.main_block(), slot)?;
            }
        }
        if let Some(word) = self.slot(LAST).filter(|_| self.last_serves()) {
            target.append(&mut counts, word.main_block(), LAST)?;
        }
        Ok(counts)
    }

    /// Gives a bucket to a slot whose block has none, in a table without tombstones.
    fn append(&self, counts: &mut Counts, main_block: u64, slot: u32) -> Result<(), InsertError> {
        let bucket = Self::bucket(slot).ok_or(InsertError::Full)?;
        let mut probe = Probe::new(main_block, self.buckets.len()).ok_or(InsertError::Full)?;
        loop {
            let cell = self.buckets.get(probe.at).ok_or(InsertError::Full)?;
            if cell.load() == EMPTY {
                cell.store(bucket);
                counts.used = counts.used.saturating_add(1);
                return Ok(());
            }
            probe.step().ok_or(InsertError::Full)?;
        }
    }

    /// The place of a slot's bucket. For the last slot it is the last place that looks like it, be it a
    /// tombstone: who looks for its block may have passed tombstones when they were none yet, and does not
    /// pass the bucket itself.
    fn find(&self, main_block: u64, slot: u32) -> Option<usize> {
        let bucket = Self::bucket(slot)?;
        if self.slot(slot)?.main_block() != main_block {
            return None;
        }
        let mut probe = Probe::new(main_block, self.buckets.len())?;
        let mut found = None;
        loop {
            match self.buckets.get(probe.at)?.load() {
                EMPTY => return found,
                this if this == bucket && slot != LAST => return Some(probe.at),
                this if this == bucket => found = Some(probe.at),
                _ => (),
            }
            if probe.step().is_none() {
                return found;
            }
        }
    }

    /// What stands for a slot in its bucket.
    fn bucket(slot: u32) -> Option<u32> {
        (slot <= LAST).then(|| slot + 1)
    }

    /// Whether the slot whose bucket looks like a tombstone serves a block.
    fn last_serves(&self) -> bool {
        self.slot(LAST)
            .is_some_and(|word| word.claims(word.main_block()))
    }

    fn set_bucket(&self, at: usize, bucket: u32) {
        if let Some(cell) = self.buckets.get(at) {
            cell.store(bucket);
        }
    }

    /// The place that is tried after `at`.
    fn after(&self, at: usize) -> usize {
        at.wrapping_add(1) & mask(self.buckets.len())
    }

    /// The place that is tried before `at`.
    fn before(&self, at: usize) -> usize {
        at.wrapping_sub(1) & mask(self.buckets.len())
    }
}

/// What a place in a table of `buckets` is taken modulo.
#[inline(always)]
fn mask(buckets: usize) -> usize {
    match buckets.checked_ilog2() {
        Some(bits) => (1usize << bits) - 1,
        None => 0,
    }
}

/// The buckets where a block may be found, in the order in which they are tried.
struct Probe {
    at: usize,
    mask: usize,
    first: usize,
}

impl Probe {
    /// None if there are no buckets.
    #[inline(always)]
    fn new(main_block: u64, buckets: usize) -> Option<Self> {
        let bits = buckets.checked_ilog2()?;
        // Fibonacci hashing, of which the highest bits are the good ones: blocks at any even
        // distance, the usual case, land far from each other. In two shifts, for `bits` may be 0.
        let hash = main_block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let first = ((hash >> 1) >> (63 - bits)) as usize;
        Some(Probe {
            at: first,
            mask: (1 << bits) - 1,
            first,
        })
    }

    /// None if all buckets were tried.
    #[inline(always)]
    fn step(&mut self) -> Option<()> {
        self.at = self.at.wrapping_add(1) & self.mask;
        (self.at != self.first).then_some(())
    }
}
