// SPDX-License-Identifier: GPL-2.0

//! Which slots take new data, and what the others are used for?
//!
//! Each member of the set has a pool of slots, with a [`state`] of its own. From which pools slots are given out is
//! asked when some are taken: [`Pools::giving`] has a bit for each. A spare that rests, is idle or lost has the same
//! words as before, and so a change of that costs nothing, however many slots there are.
//!
//! Nor does a search look at all slots. Pools count what they have, and so does each [chunk](Slots) of the
//! array of words: where there is nothing of a kind, nobody looks; and who looks for many in a row is content with
//! fewer after a while.
//!
//! Slots are taken by next fit: the search goes on where the last one ended, so that slots are worn evenly
//! and blocks that fail one after the other come to lie one after the other, where one I/O reaches them all.

pub mod state;

use core::ops::Range;

use super::{
    extents::{
        Extent,
        Extents, //
    },
    format::{
        member_bit,
        MEMBERS_MAX, //
    },
    slot::{
        SlotState,
        SlotWord, //
    },
    word::Word, //
};

use state::{
    PoolEvent,
    PoolState,
    Shut, //
};

/// How many slots a search looks at before it is content with less than it was asked for.
const PATIENCE: usize = 1 << 14;

/// How many slots are counted together.
const CHUNK: usize = 1 << 8;

/// A bit of what is counted for a chunk, beside the counts: one of its words has changed since it was copied.
const CHANGED: u64 = 1 << 63;

/// A run of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRun {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// What a slot is to who looks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It can take new data, if its pool gives slots.
    Available,
    /// It is free, and held: by who is about to fill it, for those who may be on the way to it, or as nobody has
    /// made anything of it so far.
    Held,
    /// It serves a block of main, is set aside for one, or is still said to.
    Claim,
    /// It is only set aside, and that is not in doubt.
    Pending,
    /// What the spare says of it is in doubt.
    Doubt,
    /// It serves a block, with what can be read, as far as is known.
    Serving,
    /// It failed, and is not used again.
    Bad,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Available,
        Kind::Held,
        Kind::Claim,
        Kind::Pending,
        Kind::Doubt,
        Kind::Serving,
        Kind::Bad,
    ];

    /// Bits of a chunk's count.
    const BITS: u32 = 9;

    /// Whether a word is one of these.
    pub fn has(self, word: SlotWord) -> bool {
        match self {
            Kind::Available => word.is_available(),
            Kind::Held => word == SlotWord::FREE_HELD,
            Kind::Claim => word.is_claim(),
            Kind::Pending => {
                word.state() == SlotState::Pending && !word.is_doubt() && !word.is_held()
            }
            Kind::Doubt => word.is_doubt(),
            Kind::Bad => word.state() == SlotState::Bad,
            Kind::Serving => {
                word.state() == SlotState::Valid
                    && !word.is_failing()
                    && word.claims(word.main_block())
            }
        }
    }

    const fn one(self) -> u64 {
        1 << (self as u32 * Self::BITS)
    }

    /// What a word adds to the counts of its chunk.
    fn counts_of(word: SlotWord) -> u64 {
        if word.is_plain() && word.claims(word.main_block()) {
            // As nearly all are that are loaded.
            return Kind::Claim.one() | Kind::Serving.one();
        }
        let own = Self::ALL.iter().filter(|kind| kind.has(word));
        own.fold(0, |counts, kind| counts | kind.one())
    }

    const fn of(self, counts: u64) -> u64 {
        counts >> (self as u32 * Self::BITS) & ((1 << Self::BITS) - 1)
    }
}

/// What a member's slots are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    available: u32,
    claims: u32,
    serving: u32,
}

/// The slots of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pool {
    counts: Counts,
    state: PoolState,
    /// Until when it rests, if it does, in milliseconds.
    rests_until: u64,
}

impl Pool {
    /// Its state at a time: one that has rested for long enough is used.
    fn state_at(&self, now: u64) -> PoolState {
        match self.state {
            PoolState::Resting if now >= self.rests_until => PoolState::Used,
            state => state,
        }
    }
}

impl Counts {
    /// Counts more and fewer words, as chunks count them.
    fn change(&mut self, more: u64, fewer: u64) {
        for (kind, field) in [
            (Kind::Available, &mut self.available),
            (Kind::Claim, &mut self.claims),
            (Kind::Serving, &mut self.serving),
        ] {
            let change = |counts| kind.of(counts) as u32;
            *field = field
                .saturating_add(change(more))
                .saturating_sub(change(fewer));
        }
    }
}

/// The pools of all members, and where to search next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    of: [Pool; MEMBERS_MAX as usize],
    cursor: u32,
    /// Members to whose slots writes do not end, a bit each.
    stalled: u8,
}

impl Pools {
    /// Takes over what chunks have counted. Nobody is a member so far.
    pub fn new<S: Word<u64>, C: Word<u64>>(slots: &Slots<'_, S, C>) -> Self {
        let mut pools = Pools::default();
        let mut last = 0..0;
        for extent in slots.extents.iter() {
            let end = extent.first.saturating_add(extent.count);
            for (of_chunk, numbers) in slots.by_chunks(extent.first..end) {
                let counts = match numbers.len() {
                    CHUNK => of_chunk,
                    _ => count(slots.words_of(numbers.clone())),
                };
                pools.change(extent.member, counts, 0);
                if Kind::Claim.of(counts) != 0 {
                    last = numbers;
                }
            }
        }
        // Go on behind the last one that was given out, as far as can be told.
        let last = slots.of_kind(Kind::Claim, last).last();
        pools.cursor = last.map_or(0, |(last, _)| last.saturating_add(1));
        pools
    }

    /// Counts more and fewer words of a member, as chunks count them. Of one that has left, nothing is counted.
    fn change(&mut self, member: u8, more: u64, fewer: u64) {
        if let Some(pool) = self.of.get_mut(usize::from(member)) {
            pool.counts.change(more, fewer);
        }
    }

    /// Nothing of a member is in use any more, as it leaves.
    pub fn forget(&mut self, member: u8) {
        if let Some(pool) = self.of.get_mut(usize::from(member)) {
            pool.counts = Counts::default();
        }
    }

    fn pool(&self, member: u8) -> Pool {
        let pool = self.of.get(usize::from(member));
        pool.copied().unwrap_or_default()
    }

    /// Something happens to a member. Returns whether its state takes that; if not, it is what it was.
    pub fn apply(&mut self, member: u8, event: PoolEvent) -> bool {
        let Some(pool) = self.of.get_mut(usize::from(member)) else {
            return false;
        };
        match pool.state.after(event) {
            Some(state) => {
                pool.state = state;
                true
            }
            None => false,
        }
    }

    /// The same of all members.
    pub fn apply_to_all(&mut self, event: PoolEvent) {
        for member in 0..MEMBERS_MAX {
            self.apply(member, event);
        }
    }

    /// Writes to a member have failed: it rests from `now` on, for so many milliseconds. Returns whether it gave slots
    /// before.
    pub fn rest(&mut self, member: u8, now: u64, for_ms: u64) -> bool {
        let gave = self.pool(member).state_at(now).gives_slots();
        if self.apply(member, PoolEvent::Fail) {
            if let Some(pool) = self.of.get_mut(usize::from(member)) {
                pool.rests_until = now.saturating_add(for_ms);
            }
        }
        gave
    }

    /// Those that rest give slots again. Returns whether there were any.
    pub fn end_rests(&mut self, now: u64) -> bool {
        let any = self.resting(now) != 0;
        self.apply_to_all(PoolEvent::Recover);
        any
    }

    /// Writes to the slots of these members, a bit each, do not end; to those of all others they do.
    pub fn set_stalled(&mut self, members: u8) {
        self.stalled = members;
    }

    /// The members to whose slots writes do not end, a bit each.
    pub fn stalled(&self) -> u8 {
        self.stalled
    }

    /// The state of a member.
    pub fn state(&self, member: u8) -> PoolState {
        self.pool(member).state
    }

    /// The members whose state is as asked for, a bit each.
    pub fn members(&self, wanted: impl Fn(PoolState) -> bool) -> u8 {
        self.members_by(|pool| wanted(pool.state))
    }

    fn members_by(&self, wanted: impl Fn(&Pool) -> bool) -> u8 {
        let pools = (0..MEMBERS_MAX).zip(&self.of);
        let members = pools.filter(|(_, pool)| wanted(pool));
        members.fold(0, |mask, (member, _)| mask | member_bit(member))
    }

    /// The members that give slots at a time, in milliseconds; a bit each.
    pub fn giving(&self, now: u64) -> u8 {
        self.members_by(|pool| pool.state_at(now).gives_slots()) & !self.stalled
    }

    /// The members that rest at a time.
    pub fn resting(&self, now: u64) -> u8 {
        self.members_by(|pool| pool.state_at(now) == PoolState::Resting)
    }

    /// What readers of the map have to know.
    pub fn shut(&self) -> Shut {
        Shut::new(
            self.members(PoolState::is_lost),
            self.members(PoolState::is_unread),
        )
    }

    /// How many slots can be given out of some members, a bit each.
    pub fn available(&self, members: u8) -> u32 {
        let own = (0..MEMBERS_MAX).filter(|member| members & member_bit(*member) != 0);
        own.fold(0, |sum, member| {
            sum.saturating_add(self.pool(member).counts.available)
        })
    }

    /// How many blocks of main the slots of a member serve or are set aside for.
    pub fn claims(&self, member: u8) -> u32 {
        self.pool(member).counts.claims
    }

    /// How many of these have content, as far as the spare can be read.
    pub fn serving(&self, member: u8) -> u32 {
        self.pool(member).counts.serving
    }

    /// Goes on searching somewhere else, of `slots` slots: far from where the last ones were found.
    pub fn jump(&mut self, slots: u32) {
        let far = u64::from(self.cursor) + u64::from(slots / 3) + 1;
        self.cursor = (far % u64::from(slots.max(1))) as u32;
    }
}

/// What some words add to the counts of their chunk.
fn count<S: Word<u64>>(words: &[S]) -> u64 {
    let words = words.iter().map(|cell| SlotWord::from_memory(cell.load()));
    words.fold(0, |sum, word| sum.wrapping_add(Kind::counts_of(word)))
}

/// How many chunks there are of `slots` slots.
pub const fn chunks_for(slots: usize) -> usize {
    slots.div_ceil(CHUNK)
}

/// The words of all slots, and what is counted for each chunk of them.
#[derive(Debug)]
pub struct Slots<'a, S, C> {
    words: &'a [S],
    chunks: &'a [C],
    extents: &'a Extents,
}

impl<'a, S: Word<u64>, C: Word<u64>> Slots<'a, S, C> {
    /// Those of `extents`, with [`chunks_for`] as many chunks.
    pub fn new(words: &'a [S], chunks: &'a [C], extents: &'a Extents) -> Self {
        Slots {
            words,
            chunks,
            extents,
        }
    }

    /// Counts the words of each chunk.
    pub fn count(&self) {
        for (part, chunk) in self.words.chunks(CHUNK).zip(self.chunks) {
            chunk.store(count(part));
        }
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> usize {
        chunks_for(self.words.len()).min(self.chunks.len())
    }

    /// The numbers of a chunk's slots.
    pub fn numbers_of(&self, chunk: usize) -> Range<u32> {
        let number = |chunk: usize| chunk.saturating_mul(CHUNK).min(self.words.len()) as u32;
        number(chunk)..number(chunk.saturating_add(1))
    }

    /// Whether a word of a chunk has changed since [`Slots::take_changed`].
    pub fn has_changed(&self, chunk: usize) -> bool {
        let chunk = self.chunks.get(chunk);
        chunk.is_some_and(|chunk| chunk.load() & CHANGED != 0)
    }

    /// A chunk is about to be copied: what changes from here on has changed.
    pub fn take_changed(&self, chunk: usize) {
        if let Some(chunk) = self.chunks.get(chunk) {
            chunk.store(chunk.load() & !CHANGED);
        }
    }

    /// Takes over the words of a chunk that `old` has, and counts them.
    pub fn copy_chunk(&self, old: &Slots<'_, S, C>, chunk: usize) {
        let numbers = old.numbers_of(chunk);
        let first = numbers.start as usize;
        let words = self.words.get(first..).unwrap_or(&[]);
        for (place, cell) in words.iter().zip(old.words_of(numbers)) {
            place.store(cell.load());
        }
        let own = self.words_of(self.numbers_of(chunk));
        if let Some(chunk) = self.chunks.get(chunk) {
            chunk.store(count(own));
        }
    }

    /// The words of some numbers, as far as there are any.
    fn words_of(&self, numbers: Range<u32>) -> &'a [S] {
        let words = self.words.get(numbers.start as usize..numbers.end as usize);
        words.unwrap_or(&[])
    }

    fn word(&self, slot: u32) -> Option<SlotWord> {
        let cell = self.words.get(slot as usize)?;
        Some(SlotWord::from_memory(cell.load()))
    }

    /// Changes the word of a slot. Returns what it was; none if there is no such slot.
    pub fn set(&self, pools: &mut Pools, slot: u32, word: SlotWord) -> Option<SlotWord> {
        let cell = self.words.get(slot as usize)?;
        let before = SlotWord::from_memory(cell.load());
        cell.store(word.to_memory());
        self.changed(pools, slot, before, word);
        Some(before)
    }

    /// Counts that the word of a slot has changed.
    pub fn changed(&self, pools: &mut Pools, slot: u32, before: SlotWord, after: SlotWord) {
        let (more, fewer) = (Kind::counts_of(after), Kind::counts_of(before));
        if let Some(chunk) = self.chunks.get(slot as usize / CHUNK) {
            let counts = chunk.load().wrapping_sub(fewer).wrapping_add(more);
            chunk.store(counts | CHANGED);
        }
        if let Some((member, _)) = self.extents.slot(slot) {
            pools.change(member, more, fewer);
        }
    }

    /// Some numbers by chunks, and what is counted for the whole of each of these.
    fn by_chunks(
        &self,
        numbers: Range<u32>,
    ) -> impl Iterator<Item = (u64, Range<u32>)> + use<'_, 'a, S, C> {
        const STEP: u32 = CHUNK as u32;
        let words = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
        let end = numbers.end.min(words);
        (numbers.start / STEP..end.div_ceil(STEP)).filter_map(move |chunk| {
            let counts = self.chunks.get(chunk as usize)?.load();
            let first = chunk.saturating_mul(STEP);
            let own = first.max(numbers.start)..first.saturating_add(STEP).min(end);
            Some((counts, own))
        })
    }

    /// The slots of a kind among some numbers, in this order.
    pub fn of_kind(
        &self,
        kind: Kind,
        numbers: Range<u32>,
    ) -> impl Iterator<Item = (u32, SlotWord)> + use<'_, 'a, S, C> {
        let mut chunks = self.by_chunks(numbers);
        let mut rest = 0..0;
        // No chain of adapters: objtool takes no names of functions as long as theirs.
        core::iter::from_fn(move || loop {
            for number in rest.by_ref() {
                let word = self.word(number)?;
                if kind.has(word) {
                    return Some((number, word));
                }
            }
            (_, rest) = chunks.find(|(counts, _)| kind.of(*counts) != 0)?;
        })
    }

    /// The slots of a kind from number `first` on, of some members, a bit each; in this order.
    pub fn of_members(
        &self,
        kind: Kind,
        members: u8,
        first: u32,
    ) -> impl Iterator<Item = (u32, SlotWord)> + use<'_, 'a, S, C> {
        let own = move |extent: &&Extent| members & member_bit(extent.member) != 0;
        let extents = self.extents.iter().filter(own);
        extents.flat_map(move |extent| {
            let end = extent.first.saturating_add(extent.count);
            self.of_kind(kind, first.max(extent.first)..end)
        })
    }

    /// Where the slots from `first` to before `end` of a member have their numbers.
    fn runs(
        &self,
        member: u8,
        (first, end): (u32, u32),
    ) -> impl Iterator<Item = Range<u32>> + use<'_, 'a, S, C> {
        let own = self.extents.iter().filter(move |e| e.member == member);
        own.filter_map(move |extent| {
            let from = first.max(extent.slot);
            let to = end.min(extent.slot.saturating_add(extent.count));
            let number = |slot: u32| extent.first.saturating_add(slot - extent.slot);
            (from < to).then(|| number(from)..number(to))
        })
    }

    /// Whether all slots from `first` to before `end` of a member that have a number are available.
    pub fn are_available(&self, member: u8, range: (u32, u32)) -> bool {
        self.runs(member, range).all(|numbers| {
            let count = numbers.len();
            self.of_kind(Kind::Available, numbers).count() == count
        })
    }

    /// Gives all of a kind from `first` to before `end` of a member's slots another word.
    pub fn change_all(
        &self,
        pools: &mut Pools,
        member: u8,
        range: (u32, u32),
        (kind, word): (Kind, SlotWord),
    ) {
        for numbers in self.runs(member, range) {
            for (number, _) in self.of_kind(kind, numbers) {
                self.set(pools, number, word);
            }
        }
    }

    /// Finds up to `want` consecutive slots of the members that give some, a bit each, and marks them as held.
    /// If there is no such run, finds a shorter one, the longest that it came across. None if no slot
    /// can be given out.
    pub fn take(&self, pools: &mut Pools, giving: u8, want: u32) -> Option<SlotRun> {
        if want == 0 || pools.available(giving) == 0 {
            return None;
        }
        let run = self.find(pools.cursor, giving, want)?;
        let end = run.first.saturating_add(run.count);
        for slot in run.first..end {
            self.set(pools, slot, SlotWord::FREE_HELD);
        }
        pools.cursor = end;
        Some(run)
    }

    /// Marks one given slot as held; false if it is not available.
    pub fn take_slot(&self, pools: &mut Pools, slot: u32) -> bool {
        let available = self.word(slot).is_some_and(SlotWord::is_available);
        if available {
            self.set(pools, slot, SlotWord::FREE_HELD);
        }
        available
    }

    /// Gives back a slot that is held and free; of any other it changes nothing.
    pub fn give_back(&self, pools: &mut Pools, slot: u32) {
        let Some(word) = self.word(slot) else {
            return;
        };
        if word.state() == SlotState::Free && word.is_held() {
            // Nobody knows yet what the spare says of one that is in doubt, and it stays unavailable.
            self.set(pools, slot, word.with_held(false));
        }
    }

    fn find(&self, cursor: u32, giving: u8, want: u32) -> Option<SlotRun> {
        let mut best: Option<SlotRun> = None;
        let mut seen = 0usize;
        // A run does not go round the end.
        for part in [cursor..u32::MAX, 0..cursor] {
            for extent in self.extents.iter() {
                let end = extent.first.saturating_add(extent.count);
                let numbers = extent.first.max(part.start)..end.min(part.end);
                if giving & member_bit(extent.member) == 0 {
                    continue;
                }
                let mut run = SlotRun { first: 0, count: 0 };
                for (counts, numbers) in self.by_chunks(numbers) {
                    if Kind::Available.of(counts) == 0 {
                        continue;
                    }
                    seen = seen.saturating_add(numbers.len());
                    for (slot, _) in self.of_kind(Kind::Available, numbers) {
                        if run.first.saturating_add(run.count) != slot {
                            run = SlotRun {
                                first: slot,
                                count: 0,
                            };
                        }
                        run.count += 1;
                        if run.count >= want {
                            return Some(run);
                        }
                        if best.is_none_or(|best| run.count > best.count) {
                            best = Some(run);
                        }
                    }
                    if seen > PATIENCE {
                        return best;
                    }
                }
            }
        }
        best
    }
}
