// SPDX-License-Identifier: GPL-2.0

//! Moving blocks of main to slots: whatever the reason, it is done here.
//!
//! The order is P3's: data to the slots, flush, commit, publish. The caller has the blocks' range at
//! the desk, so that nobody else changes where they are served from. Only the commit is made under
//! the writer's lock; data goes to slots that are held for it meanwhile. From the flush on, one does it for all
//! who have come as far ([`commit`]):
//!
//! ```text
//!   take slots (lock)    write data  |  flush    stage, commit, publish (lock)    retire (lock)
//!        ^                   |       |
//!        +--- a slot fails --+       |  together
//! ```
//!
//! A crash before the commit leaves the old state, and slots that nobody knows of.
//!
//! Who has the writer's lock may wait for a spare that hangs. So a bio waits for it no longer than it can be
//! held (P10), and fails then; the slots that it had are given back by whoever has the lock next. It waits as long
//! for room in the map, if the others that fail at the same time have taken that.
//!
//! The flush or the commit may find out that a spare is gone, with the data that it has just taken: that goes
//! to others then, in the same way, before the caller acknowledges anything.

mod commit;

pub(in crate::remap) use commit::Request;

use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        block::{
            self,
            BlkStatus, //
        },
        dm,
        util, //
    },
    logic::{
        bisect::Bisect,
        classify::Operation,
        format::{
            member_bit,
            MEMBERS_MAX, //
        },
        message::Blocks,
        pool::SlotRun,
        repair::{
            CHUNK_BLOCKS,
            SLOW_MS, //
        },
        slot::{
            Origin,
            SlotWord, //
        }, //
    },
    remap::{
        health::life::Direction,
        meta::{
            io::{
                is_suspect,
                SpareIo, //
            },
            writer::{
                Writer,
                STAGED_MAX, //
            }, //
        },
        session::state::State,
        setup::spares::Spares,
        DmRemap, //
    }, //
};

/// How many slots of a spare may fail for one bio, one after the other without one there that takes data in between:
/// more, and it is the spare that failed and not its medium.
const SLOTS_TRIED: usize = 16;

/// After how many of these others are tried that are far away.
const SLOTS_NEAR: usize = 4;

/// A block of a bio or another source, by its number from the first one on, with a mark. There are many lists of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::remap) struct ListedBlock(u32);

impl ListedBlock {
    const MARK: u32 = 1 << 31;

    /// One that is not marked. No source has as many blocks as would reach the mark.
    pub(in crate::remap) const fn new(index: u32) -> Self {
        Self(index & !Self::MARK)
    }

    /// The same one, marked if `mark` says so, or if it was before.
    pub(in crate::remap) const fn mark_if(self, mark: bool) -> Self {
        match mark {
            true => Self(self.0 | Self::MARK),
            false => self,
        }
    }

    pub(in crate::remap) const fn is_marked(self) -> bool {
        self.0 & Self::MARK != 0
    }

    pub(in crate::remap) const fn index(self) -> u32 {
        self.0 & !Self::MARK
    }

    /// The block of main that it is, if that of the first one is `first`.
    pub(in crate::remap) const fn of_main(self, first: u64) -> u64 {
        first.saturating_add(self.index() as u64)
    }
}

/// Which blocks of main a source stands for; their ranges are the caller's.
#[derive(Clone, Copy)]
pub(in crate::remap) enum Own<'a> {
    /// Those that follow each other.
    Range(Blocks),
    /// Any. They have slots already, so that none has to be taken from others for them.
    List(&'a [u64]),
}

impl Own<'_> {
    /// The block of main that one of the source is.
    fn main_block(&self, block: ListedBlock) -> u64 {
        match self {
            Own::Range(blocks) => block.of_main(blocks.first),
            // Whoever lists a block has it in the list.
            Own::List(blocks) => (blocks.get(block.index() as usize).copied()).unwrap_or(u64::MAX),
        }
    }

    /// The range, if it is one.
    fn range(&self) -> Option<Blocks> {
        match self {
            Own::Range(blocks) => Some(*blocks),
            Own::List(_) => None,
        }
    }
}

/// A block whose data is on a slot.
#[derive(Clone, Copy)]
struct Placed {
    main_block: u64,
    slot: u32,
}

/// Lists that it takes, made beforehand: there may be no memory then.
pub(in crate::remap) struct Lists {
    /// Blocks that have to go to slots.
    pub(in crate::remap) moves: KVec<ListedBlock>,
    /// Those of them that have none so far, and those that are just being written; marked if the slot that was set
    /// aside for it failed.
    queue: KVec<ListedBlock>,
    placed: KVec<Placed>,
    /// Slots that failed, or that are replaced.
    retired: KVec<u32>,
    /// Blocks that cannot be read: from their slots if they are marked, else from main.
    pub(in crate::remap) unreadable: KVec<ListedBlock>,
    /// Blocks of main that could only be read after several tries.
    pub(in crate::remap) weak: KVec<ListedBlock>,
}

impl Lists {
    /// Makes the lists.
    pub(in crate::remap) fn new() -> Result<Self> {
        Ok(Self {
            moves: KVec::with_capacity(MOVES_MAX, GFP_KERNEL)?,
            queue: KVec::with_capacity(QUEUE_MAX, GFP_KERNEL)?,
            placed: KVec::with_capacity(MOVES_MAX, GFP_KERNEL)?,
            retired: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            unreadable: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            weak: KVec::with_capacity(WEAK_MAX, GFP_KERNEL)?,
        })
    }

    /// The blocks of main that cannot be read, from their slots or from main, if that of the first one of the bio
    /// is `first`.
    pub(in crate::remap) fn unreadable_blocks(
        &self,
        first: u64,
        from_slots: bool,
    ) -> impl Iterator<Item = u64> + '_ {
        let blocks = self.unreadable.iter();
        let blocks = blocks.filter(move |block| block.is_marked() == from_slots);
        blocks.map(move |block| block.of_main(first))
    }
}

/// How many blocks are moved at a time, so that their changes fit into one commit with room for what bad slots add.
pub(in crate::remap) const MOVES_MAX: usize = STAGED_MAX / 2;

/// As many as there are moves, and all of those that are being written once more at its end.
const QUEUE_MAX: usize = 2 * MOVES_MAX;

/// How many weak blocks of one bio are moved; the others will be found again.
const WEAK_MAX: usize = 64;

// All that is served at a time may have to move.
const _: () = assert!(CHUNK_BLOCKS as usize <= MOVES_MAX);

/// Adds to a list that was made large enough.
pub(in crate::remap) fn push<T>(list: &mut KVec<T>, value: T) -> block::IoResult {
    list.push_within_capacity(value)
        .map_err(|_| BlkStatus::RESOURCE)
}

/// Where data comes from.
#[derive(Clone, Copy)]
pub(in crate::remap) enum Source<'a> {
    /// A write.
    Bio(&'a dm::OwnedBio<DmRemap>),
    /// What was read before.
    Buffer(&'a block::IoBuffer),
    /// There is none: zeroes are written.
    Zeroes,
}

impl Source<'_> {
    /// Where a block is in it, in bytes. Zeroes have no data, and may be longer.
    pub(in crate::remap) fn offset(&self, state: &State, block: u32) -> u32 {
        match self {
            Source::Zeroes => 0,
            _ => state.bytes(block),
        }
    }

    /// Writes `bytes` from byte `offset` of the source on to `sector` of a device. Waits for it.
    pub(in crate::remap) fn write(
        &self,
        state: &State,
        (offset, bytes): (u32, u32),
        device: &dm::Device,
        sector: u64,
        opf: block::Opf,
    ) -> block::IoResult {
        let pool = &state.pool;
        match self {
            Source::Bio(bio) => pool.write_slice(bio, offset, bytes, device, sector, opf),
            Source::Buffer(buffer) => {
                let start = offset as usize;
                let end = start.saturating_add(bytes as usize);
                pool.write(device, sector, buffer.slice(start..end)?, opf)
            }
            Source::Zeroes => {
                let mut done = 0usize;
                while done < bytes as usize {
                    let step = state
                        .zeroes
                        .len()
                        .min((bytes as usize).saturating_sub(done));
                    let at = sector.saturating_add(done as u64 >> 9);
                    pool.write(device, at, state.zeroes.slice(0..step)?, opf)?;
                    done = done.saturating_add(step);
                }
                Ok(())
            }
        }
    }
}

/// Moves what is in `lists.moves`.
pub(in crate::remap) struct Relocation<'a> {
    pub(in crate::remap) state: &'a State,
    pub(in crate::remap) spares: &'a Spares,
    pub(in crate::remap) lists: &'a mut Lists,
    pub(in crate::remap) source: Source<'a>,
    pub(in crate::remap) own: Own<'a>,
    pub(in crate::remap) origin: Origin,
    /// What the blocks fail with if they cannot be moved.
    pub(in crate::remap) error: BlkStatus,
    /// When to give up, in milliseconds.
    pub(in crate::remap) deadline: u64,
    /// Until when others are waited for who have the writer's lock, or the room in the map.
    pub(in crate::remap) patience: u64,
    /// Whose map is enlarged if there is no room in it.
    pub(in crate::remap) target: Option<&'a DmRemap>,
    /// Whether this is to find out whether the spare works again.
    pub(in crate::remap) probes: bool,
    /// Whether the slots that served the blocks before are in order, and are just left.
    pub(in crate::remap) leaves: bool,
    /// The members whose slots have taken data; a bit each.
    written: u8,
    /// The members whose spares others have stood in for; a bit each.
    left: u8,
    /// How many slots of each member have failed since one there has taken data.
    failed: [usize; MEMBERS_MAX as usize],
    /// Whether one took long to fail.
    slow: bool,
    /// Whether everything has to be done once more.
    again: bool,
    /// Whether the caller can tell users; if not, whoever comes next does.
    pub(in crate::remap) tells: bool,
    /// Whether something happened that users wait for.
    pub(in crate::remap) tell: bool,
}

impl<'a> Relocation<'a> {
    pub(in crate::remap) fn new(
        state: &'a State,
        spares: &'a Spares,
        lists: &'a mut Lists,
        (source, own): (Source<'a>, Own<'a>),
        origin: Origin,
        error: BlkStatus,
    ) -> Self {
        Self {
            state,
            spares,
            lists,
            source,
            own,
            origin,
            error,
            deadline: u64::MAX,
            patience: u64::MAX,
            target: None,
            probes: false,
            leaves: false,
            written: 0,
            left: 0,
            failed: [0; MEMBERS_MAX as usize],
            slow: false,
            again: false,
            tells: true,
            tell: false,
        }
    }

    /// Moves the blocks. Returns how many were moved; after an error, it may have been some.
    pub(in crate::remap) fn run(&mut self) -> Result<usize, BlkStatus> {
        if self.lists.moves.is_empty() {
            return Ok(0);
        }
        if !self.probes && !self.state.admits_to_spares(self.spares) {
            return Err(self.error);
        }
        // How many are where they are to go, while others have to be moved once more.
        let mut done = 0usize;
        let (placed, committed) = loop {
            self.lists.placed.clear();
            self.lists.retired.clear();
            let tickets = self.state.life.spares_sent();
            let placed = self.place();
            // What was placed is complete in itself, even if the rest found no place.
            let committed = self.commit(&tickets);
            if !self.again {
                break (placed, committed.map(|count| done.saturating_add(count)));
            }
            // A spare was lost with what it had taken: once more, to others.
            let moves = self.lists.moves.len();
            if committed.is_ok() {
                self.leave_out_placed();
            }
            done = done.saturating_add(moves.saturating_sub(self.lists.moves.len()));
            (self.written, self.failed, self.again) = (0, Default::default(), false);
        };
        if let (Ok(count @ 1..), Some(first)) = (committed, self.lists.moves.first()) {
            let main_block = self.own.main_block(*first);
            self.state.report("moved to the spare", count, main_block);
        }
        // Whoever sent the data to main gets to know what main said.
        placed.and(committed).map_err(|_| self.error)
    }

    /// Leaves out the moves that were committed to spares which are there.
    fn leave_out_placed(&mut self) {
        let (state, own) = (self.state, self.own);
        let Lists { moves, placed, .. } = &mut *self.lists;
        let is_done = |block: &ListedBlock| {
            let (mut placed, main_block) = (placed.iter(), own.main_block(*block));
            let own = placed.find(|placed| placed.main_block == main_block);
            own.is_some_and(|placed| !is_lost(state, placed.slot))
        };
        moves.retain(|block| !is_done(block));
    }

    /// Writes the data of all moves to slots. A block whose slot fails goes to the end of the queue and
    /// gets another one.
    fn place(&mut self) -> block::IoResult {
        let Lists { moves, queue, .. } = &mut *self.lists;
        queue.clear();
        moves.iter().try_for_each(|block| push(queue, *block))?;
        let mut next = 0;
        while let Some(block) = self.lists.queue.get(next).copied() {
            let own = self.own_slot(block)?;
            let run = match own {
                Some(run) => run,
                None => self.take_slots(next)?,
            };
            self.fill_slots(run, next, own.is_some())?;
            next = next.saturating_add(run.count as usize);
            if self.lists.queue.len() > MOVES_MAX {
                // Many had to look for another slot. No block is in the rest twice.
                let mut number = 0usize;
                self.lists.queue.retain(|_| {
                    number = number.saturating_add(1);
                    number > next
                });
                next = 0;
            }
        }
        Ok(())
    }

    /// The slot that is set aside for a block, if it is of use.
    fn own_slot(&self, block: ListedBlock) -> Result<Option<SlotRun>, BlkStatus> {
        let (state, main_block) = (self.state, self.own.main_block(block));
        if state.slot_of(main_block).is_none() {
            // It gets none meanwhile, as its range is the caller's.
            return Ok(None);
        }
        // Under the lock: a slot that is set aside may be taken away, if it is not in use (`steal_slots`).
        let own = state.with_writer_by(self.patience, self.spares, |writer, io| {
            let settled = writer.settle(state, io, main_block);
            settled.map_err(|_| self.error)?;
            Ok(match state.slot_of(main_block) {
                Some((slot, word))
                    if word.is_set_aside()
                        && !block.is_marked()
                        && !self.has_left(slot)
                        && state.locate(self.spares, slot, true).is_some() =>
                {
                    Some(SlotRun {
                        first: slot,
                        count: 1,
                    })
                }
                _ => None,
            })
        });
        own.unwrap_or(Err(self.error))
    }

    /// Whether others have stood in for the spare that has this slot.
    fn has_left(&self, slot: u32) -> bool {
        let member = self.state.member_of(slot);
        member.is_some_and(|member| self.left & member_bit(member) != 0)
    }

    /// How many moves from number `next` on are of consecutive blocks and can go to new slots together.
    fn run_length(&self, next: usize) -> u32 {
        let rest = self.lists.queue.get(next..).unwrap_or(&[]);
        let Some(first) = rest.first() else {
            return 0;
        };
        let mut count = 1u32;
        for block in rest.iter().skip(1) {
            let pending = |(_, word): (u32, SlotWord)| word.is_set_aside();
            if block.index() != first.index().saturating_add(count)
                || (self.state.slot_of(self.own.main_block(*block))).is_some_and(pending)
            {
                break;
            }
            count = count.saturating_add(1);
        }
        count
    }

    /// Writes the data of as many moves from number `next` on as there are slots in `run`.
    fn fill_slots(&mut self, run: SlotRun, next: usize, own: bool) -> block::IoResult {
        let first = *self.lists.queue.get(next).ok_or(BlkStatus::IOERR)?;
        let mut search = Bisect::new(run.count).ok_or(BlkStatus::INVAL)?;
        // Slots before this one are placed or have failed.
        let mut settled = 0u32;
        while let Some(part) = search.next_try() {
            let begun = util::monotonic_ms();
            if begun >= self.deadline && self.slow {
                self.give_back_rest(run, settled, own);
                return Err(self.error);
            }
            let slot = run.first.saturating_add(part.first);
            if settled != 0 && self.is_scratched(slot) {
                // These may be on a scratch: the others try somewhere else.
                self.give_back_rest(run, settled, own);
                return self.put_off(run, settled, next, own);
            }
            let index = first.index().saturating_add(part.first);
            let offset = self.source.offset(self.state, index);
            let place = self.state.locate(self.spares, slot, true);
            let bytes = self.state.bytes(part.count);
            let write = || {
                let (member, device, sector) = place.ok_or(BlkStatus::OFFLINE)?;
                let (state, opf) = (self.state, block::Opf::WRITE.sync());
                let data = (offset, bytes);
                (state.life).write_slots(member, || {
                    self.source.write(state, data, device, sector, opf)
                })
            };
            let mut result = write();
            let suspect = |status| is_suspect(Operation::Write, status);
            if part.count == 1 && result.is_err_and(suspect) {
                // A slot is written off for good, so it gets another chance.
                result = write();
            }
            let took = util::monotonic_ms().saturating_sub(begun);
            self.slow |= result.is_err() && took > SLOW_MS;
            if result.is_err() && self.is_gone(slot) {
                // Not the slots have failed, but their spare: the others take what is left.
                self.tell = true;
                self.give_back_rest(run, settled, own);
                return self.put_off(run, settled, next, own);
            }
            let taken = match result {
                Ok(()) => {
                    let member = place.map_or(0, |(member, _, _)| member);
                    self.written |= member_bit(member);
                    if let Some(failed) = self.failed.get_mut(usize::from(member)) {
                        *failed = 0;
                    }
                    self.tell |= self.state.proven(Direction::SpareWrite(member), begun);
                    (part.first..part.first.saturating_add(part.count))
                        .try_for_each(|index| self.note_placed(run.first, index, next))
                }
                Err(status) if !is_suspect(Operation::Write, status) => {
                    if self.leave_spare(slot) {
                        // Another one may work.
                        self.give_back_rest(run, settled, own);
                        return self.put_off(run, settled, next, own);
                    }
                    self.give_up_spare(slot);
                    Err(self.error)
                }
                Err(_) if part.count == 1 => {
                    let failed = self.slot_failed(run.first, part.first, next, own);
                    if failed.is_err() {
                        // This slot is given back already.
                        let settled = part.first.saturating_add(1);
                        self.give_back_rest(run, settled, own);
                        if self.leave_spare(slot) {
                            // Its spare takes nothing, and another one may.
                            return self.put_off(run, settled, next, own);
                        }
                        return failed;
                    }
                    failed
                }
                Err(_) => {
                    if took > SLOW_MS {
                        search.one_by_one();
                    }
                    search.report(false);
                    continue;
                }
            };
            if let Err(status) = taken {
                self.give_back_rest(run, settled, own);
                return Err(status);
            }
            search.report(result.is_ok());
            settled = part.first.saturating_add(part.count);
        }
        Ok(())
    }

    /// Sends the blocks of a run that are not settled to the end of the queue. Slots of their own (`own`)
    /// are of no use to them.
    fn put_off(&mut self, run: SlotRun, settled: u32, next: usize, own: bool) -> block::IoResult {
        for index in settled..run.count {
            let block = self.move_at(next, index)?.mark_if(own);
            push(&mut self.lists.queue, block)?;
        }
        Ok(())
    }

    /// Whether the spare of a slot is one that the set goes on without.
    fn is_gone(&self, slot: u32) -> bool {
        let member = self.state.member_of(slot);
        member.is_some_and(|member| {
            let state = self.state;
            let gone = state.with_writer_by(self.patience, self.spares, |writer, io| {
                writer.lose_if_gone(state, io, member)
            });
            gone.unwrap_or(false)
        })
    }

    /// Uses no slots of the spare that has this one for a while, if others have some. If it is lost, the
    /// commit that follows finds that out. Not twice: then there was no other in the end.
    fn leave_spare(&mut self, slot: u32) -> bool {
        let state = self.state;
        let member = state.member_of(slot).unwrap_or(u8::MAX);
        let bit = member_bit(member);
        let first = self.left & bit == 0;
        self.left |= bit;
        let rests = |writer: &mut Writer, _: &mut SpareIo<'_>| writer.let_rest(state, member);
        first && state.with_writer_by(self.patience, self.spares, rests) == Some(true)
    }

    fn note_placed(&mut self, first: u32, index: u32, next: usize) -> block::IoResult {
        let block = self.move_at(next, index)?;
        let placed = Placed {
            main_block: self.own.main_block(block),
            slot: first.saturating_add(index),
        };
        push(&mut self.lists.placed, placed)
    }

    /// A slot cannot take data: its block needs another one.
    fn slot_failed(&mut self, first: u32, index: u32, next: usize, own: bool) -> block::IoResult {
        let block = self.move_at(next, index)?.mark_if(own);
        push(&mut self.lists.queue, block)?;
        // One that has a claim is retired together with being replaced, and not before. Where so many fail,
        // some are found out again.
        let slot = first.saturating_add(index);
        if !own && push(&mut self.lists.retired, slot).is_err() {
            self.give_back(core::iter::once(slot));
        }
        let Some(member) = self.state.member_of(slot) else {
            return Ok(());
        };
        self.state.life.note_failed_slot(member);
        let Some(failed) = self.failed.get_mut(usize::from(member)) else {
            return Ok(());
        };
        *failed = failed.saturating_add(1);
        if *failed > SLOTS_TRIED {
            *failed = 0;
            self.give_up_spare(slot);
            return Err(self.error);
        }
        if !self.is_scratched(slot) {
            return Ok(());
        }
        if own && self.state.counters.left.get() != 0 {
            // What comes next may have its own slots on the same scratch: a block that needs another slot goes
            // first, which tells whether the spare takes anything elsewhere.
            let last = self.lists.queue.len().saturating_sub(1);
            let following = next.saturating_add(index as usize).saturating_add(1);
            if following < last {
                self.lists.queue.swap(following, last);
            }
        } else if !own {
            let jump = |writer: &mut Writer, _: &mut SpareIo<'_>| writer.jump();
            let _ = self.state.with_writer_by(self.patience, self.spares, jump);
        }
        Ok(())
    }

    /// Whether so many slots near this one have failed that it is better to try elsewhere.
    fn is_scratched(&self, slot: u32) -> bool {
        let member = self.state.member_of(slot);
        let failed = member.and_then(|member| self.failed.get(usize::from(member)));
        failed.is_some_and(|failed| *failed != 0 && *failed % SLOTS_NEAR == 0)
    }

    /// The spare that has this slot takes nothing at all: that says nothing about those slots that failed.
    fn give_up_spare(&mut self, slot: u32) {
        let state = self.state;
        let Some(member) = state.member_of(slot) else {
            return;
        };
        self.tell |= state.disproved(Direction::SpareWrite(member));
        let of_member = |slot: &u32| state.member_of(*slot) == Some(member);
        self.give_back(self.lists.retired.iter().copied().filter(of_member));
        self.lists.retired.retain(|slot| !of_member(slot));
    }

    /// Gives back the slots of a run that nothing became of.
    fn give_back_rest(&self, run: SlotRun, settled: u32, own: bool) {
        if !own {
            let end = run.first.saturating_add(run.count);
            self.give_back(run.first.saturating_add(settled)..end);
        }
    }

    fn move_at(&self, next: usize, index: u32) -> Result<ListedBlock, BlkStatus> {
        self.lists
            .queue
            .get(next.saturating_add(index as usize))
            .copied()
            .ok_or(BlkStatus::IOERR)
    }

    /// Gives back slots that were taken. Waits for nobody: it may be late.
    fn give_back(&self, slots: impl Iterator<Item = u32>) {
        self.state.leave_slots(slots);
    }

    /// Finds slots for the moves from number `next` on, in need those that are only set aside: as many of
    /// these as all of them need.
    fn take_slots(&mut self, next: usize) -> Result<SlotRun, BlkStatus> {
        let want = self.run_length(next);
        let rest = self.lists.queue.len().saturating_sub(next);
        let all = u32::try_from(rest).unwrap_or(want);
        let state = self.state;
        loop {
            let taken = state.with_writer_by(self.patience, self.spares, |writer, io| match writer
                .take_slots(state, io, want)
            {
                Err(error) if error == ENOSPC => {
                    writer.steal_slots(state, io, self.own.range(), all)?;
                    writer.take_slots(state, io, want)
                }
                other => other,
            });
            match taken {
                Some(Ok(run)) => return Ok(run),
                Some(Err(error)) if error == ENOMEM && self.waits_for_room() => (),
                Some(Err(error)) => {
                    if error == ENOSPC {
                        state.complain("no free slot is left");
                    }
                    return Err(self.error);
                }
                None => return Err(self.error),
            }
        }
    }

    /// Has the map enlarged, and waits for a moment. False if that was for too long, or nobody can.
    fn waits_for_room(&self) -> bool {
        let Some(target) = self.target else {
            return false;
        };
        if util::monotonic_ms() >= self.patience {
            return false;
        }
        let _ = target.growth.enqueue::<_, 1>((*target.state).clone());
        fsleep(Delta::from_millis(1));
        true
    }

    /// Whether the set goes on without one of the spares that have taken data.
    fn find_gone(&self) -> bool {
        let state = self.state;
        let gone = state.with_writer_by(self.patience, self.spares, |writer, io| {
            let mut spares = self.spares.named(self.written);
            spares.any(|(member, _)| writer.lose_if_gone(state, io, member))
        });
        gone.unwrap_or(false)
    }
}

/// Whether a slot that failed is bad, as far as its spare is known to work.
fn is_to_blame(state: &State, slot: u32) -> bool {
    let member = state.member_of(slot);
    member.is_some_and(|member| state.life.blames_slots(member))
}

/// Whether the set goes on without the spare of a slot.
fn is_lost(state: &State, slot: u32) -> bool {
    let member = state.member_of(slot);
    member.is_some_and(|member| state.is_lost(member))
}
