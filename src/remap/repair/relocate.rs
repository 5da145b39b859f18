// SPDX-License-Identifier: GPL-2.0

//! Moving blocks of main to slots: whatever the reason, it is done here.
//!
//! The order is P3's: data to the slots, flush, commit, publish. The caller has the blocks' range at
//! the desk, so that nobody else changes where they are served from. Only the commit is made under
//! the writer's lock; data goes to slots that are held for it meanwhile:
//!
//! ```text
//!   take slots (lock)    write data    flush    stage, commit, publish (lock)    retire (lock)
//!        ^                   |
//!        +--- a slot fails --+
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
        limit::Limit,
        message::Blocks,
        pool::SlotRun,
        slot::{
            Origin,
            SlotState,
            SlotWord, //
        }, //
    },
    remap::{
        health::life::{
            Direction,
            SpareTickets, //
        },
        meta::{
            io::{
                is_suspect,
                SpareIo, //
            },
            writer::{
                Publish,
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

/// A failure that took longer, in milliseconds, is worth to be met once only.
pub(in crate::remap) const SLOW_MS: u64 = 100;

/// A block that has to go to a slot.
#[derive(Clone, Copy)]
pub(in crate::remap) struct Move {
    pub(in crate::remap) main_block: u64,
    /// Where its data is in the source, in bytes.
    pub(in crate::remap) offset: u32,
    /// Whether the slot that was set aside for it failed.
    own_failed: bool,
}

impl Move {
    pub(in crate::remap) fn new(main_block: u64, offset: u32) -> Self {
        Self {
            main_block,
            offset,
            own_failed: false,
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
    pub(in crate::remap) moves: KVec<Move>,
    /// Those of them that have none so far, and those that are just being written.
    queue: KVec<Move>,
    placed: KVec<Placed>,
    /// Slots that failed, or that are replaced.
    retired: KVec<u32>,
    /// Blocks of main that cannot be read.
    pub(in crate::remap) lost: KVec<u64>,
    /// Blocks of main whose slots cannot be read.
    pub(in crate::remap) failing: KVec<u64>,
    /// Blocks of main that could only be read after several tries.
    pub(in crate::remap) weak: KVec<u64>,
}

impl Lists {
    /// Makes the lists.
    pub(in crate::remap) fn new() -> Result<Self> {
        Ok(Self {
            moves: KVec::with_capacity(MOVES_MAX, GFP_KERNEL)?,
            queue: KVec::with_capacity(QUEUE_MAX, GFP_KERNEL)?,
            placed: KVec::with_capacity(MOVES_MAX, GFP_KERNEL)?,
            retired: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            lost: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            failing: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            weak: KVec::with_capacity(WEAK_MAX, GFP_KERNEL)?,
        })
    }
}

/// How many blocks are moved at a time, so that their changes fit into one commit with room for what bad slots add.
pub(in crate::remap) const MOVES_MAX: usize = STAGED_MAX / 2;

/// As many as there are moves, and all of those that are being written once more at its end.
const QUEUE_MAX: usize = 2 * MOVES_MAX;

/// How many weak blocks of one bio are moved; the others will be found again.
const WEAK_MAX: usize = 64;

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
    /// The blocks that the source stands for; their range is the caller's.
    pub(in crate::remap) own: Blocks,
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
        (source, own): (Source<'a>, Blocks),
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
            self.state
                .report("moved to the spare", count, first.main_block);
        }
        // Whoever sent the data to main gets to know what main said.
        placed.and(committed).map_err(|_| self.error)
    }

    /// Leaves out the moves that were committed to spares which are there.
    fn leave_out_placed(&mut self) {
        let state = self.state;
        let Lists { moves, placed, .. } = &mut *self.lists;
        let is_done = |block: &Move| {
            let mut placed = placed.iter();
            let own = placed.find(|placed| placed.main_block == block.main_block);
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
    fn own_slot(&self, block: Move) -> Result<Option<SlotRun>, BlkStatus> {
        let state = self.state;
        // Under the lock: a slot that is set aside may be taken away, if it is not in use (`steal_slots`).
        let own = state.with_writer_by(self.patience, self.spares, |writer, io| {
            let settled = writer.settle(state, io, block.main_block);
            settled.map_err(|_| self.error)?;
            Ok(match state.slot_of(block.main_block) {
                Some((slot, word))
                    if word.is_set_aside()
                        && !block.own_failed
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

    /// How many moves from number `next` on are of consecutive blocks with consecutive data and can
    /// go to new slots together.
    fn run_length(&self, next: usize) -> u32 {
        let rest = self.lists.queue.get(next..).unwrap_or(&[]);
        let Some(first) = rest.first() else {
            return 0;
        };
        // Zeroes are all the same.
        let step = match self.source {
            Source::Zeroes => 0,
            _ => self.state.bytes(1),
        };
        let mut count = 1u32;
        for block in rest.iter().skip(1) {
            let pending = |(_, word): (u32, SlotWord)| word.is_set_aside();
            let distance = count.saturating_mul(step);
            if block.main_block != first.main_block.saturating_add(u64::from(count))
                || block.offset != first.offset.saturating_add(distance)
                || self.state.slot_of(block.main_block).is_some_and(pending)
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
            let offset = first.offset.saturating_add(self.state.bytes(part.first));
            let place = self.state.locate(self.spares, slot, true);
            let bytes = self.state.bytes(part.count);
            let write = || {
                let (_, device, sector) = place.ok_or(BlkStatus::OFFLINE)?;
                let opf = block::Opf::WRITE.sync();
                self.source
                    .write(self.state, (offset, bytes), device, sector, opf)
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
            let mut block = self.move_at(next, index)?;
            block.own_failed |= own;
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
            main_block: block.main_block,
            slot: first.saturating_add(index),
        };
        push(&mut self.lists.placed, placed)
    }

    /// A slot cannot take data: its block needs another one.
    fn slot_failed(&mut self, first: u32, index: u32, next: usize, own: bool) -> block::IoResult {
        let mut block = self.move_at(next, index)?;
        block.own_failed |= own;
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

    fn move_at(&self, next: usize, index: u32) -> Result<Move, BlkStatus> {
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
                    writer.steal_slots(state, io, self.own, all)?;
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

    /// Waits until the map takes what was placed.
    fn have_room(&self) -> block::IoResult {
        let count = u32::try_from(self.lists.placed.len()).unwrap_or(u32::MAX);
        loop {
            let room = self
                .state
                .with_writer_by(self.patience, self.spares, |writer, _| {
                    writer.has_room(self.state, count)
                });
            match room {
                Some(true) => return Ok(()),
                Some(false) if self.waits_for_room() => (),
                // Those that have a slot already need none.
                Some(false) => return Ok(()),
                None => return Err(self.error),
            }
        }
    }

    /// Whether the set goes on without one of the spares that have taken data.
    fn find_gone(&self) -> bool {
        let state = self.state;
        let written = |member: u8| self.written & member_bit(member) != 0;
        let gone = state.with_writer_by(self.patience, self.spares, |writer, io| {
            let mut spares = self.spares.iter().filter(|(member, _)| written(*member));
            spares.any(|(member, _)| writer.lose_if_gone(state, io, member))
        });
        gone.unwrap_or(false)
    }

    /// Nothing becomes of what was placed.
    fn give_up(&self, status: BlkStatus) -> BlkStatus {
        self.give_back(self.lists.placed.iter().map(|placed| placed.slot));
        self.give_back(self.lists.retired.iter().copied());
        status
    }

    /// Data before metadata (P3). `tickets` were taken before the data was written.
    fn commit(&mut self, tickets: &SpareTickets) -> Result<usize, BlkStatus> {
        if self.lists.placed.is_empty() {
            self.give_back(self.lists.retired.iter().copied());
            return Ok(0);
        }
        let flushed = self.state.flush_spares(self.spares, self.written, tickets);
        if let Err(status) = flushed {
            self.again = self.find_gone();
            return Err(self.give_up(status));
        }
        if let Err(status) = self.have_room() {
            return Err(self.give_up(status));
        }
        let (state, origin, leaves) = (self.state, self.origin, self.leaves);
        let (placed, retired) = (&self.lists.placed, &mut self.lists.retired);
        let low_water = state.limits.get(Limit::LowWater);
        let done = state.with_writer_by(self.patience, self.spares, |writer, io| {
            let mut staged = Ok(());
            for Placed { main_block, slot } in placed {
                let publish = match state.slot_of(*main_block) {
                    Some((old, _)) if old == *slot => Publish::Keep,
                    Some((old, _)) => Publish::Replace(old),
                    None => Publish::Insert,
                };
                let word = SlotWord::new(*main_block, SlotState::Valid, origin).ok_or(ERANGE);
                let done = word.and_then(|word| writer.stage(state, *slot, word, publish));
                match (done, publish) {
                    (Err(error), _) => {
                        writer.give_back(state, *slot);
                        staged = Err(error);
                    }
                    (Ok(()), Publish::Replace(old)) => {
                        // Unless very many slots have failed, there is room for it.
                        if push(retired, old).is_err() {
                            writer.note_older_claims();
                        }
                    }
                    _ => (),
                }
            }
            let committed = writer.commit(state, io);
            if committed.is_ok() {
                for slot in retired.iter() {
                    let leaves = leaves || !is_to_blame(state, *slot);
                    if leaves && state.is_held(*slot) {
                        // No commit has known it, and no bio was ever on the way to it.
                        writer.give_back(state, *slot);
                        continue;
                    }
                    // Not marked as bad, it is found out again.
                    if writer.stage_retirement(state, *slot, leaves).is_err() {
                        writer.note_older_claims();
                        break;
                    }
                    if !leaves {
                        state.counters.spare_write_errors.add(1);
                    }
                }
                // If this fails, loading finds two claims and frees the older, and the slot fails
                // again when it is written.
                if writer.commit(state, io).is_err() {
                    writer.note_older_claims();
                }
            } else {
                // They may be replaced by now, as far as the commit went.
                writer.note_older_claims();
                for slot in retired.iter() {
                    writer.give_back(state, *slot);
                }
            }
            (
                committed.and(staged),
                self.tells && writer.has_news(state, low_water),
            )
        });
        let Some((result, short)) = done else {
            return Err(self.give_up(self.error));
        };
        self.tell |= short;
        match result {
            Ok(()) => {
                // The commit may have found out that a spare is gone. Nobody knows yet that it has them.
                let mut placed = self.lists.placed.iter();
                self.again = placed.any(|placed| is_lost(state, placed.slot));
                Ok(self.lists.placed.len())
            }
            Err(_) => Err(self.error),
        }
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
