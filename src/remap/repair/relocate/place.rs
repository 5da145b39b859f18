// SPDX-License-Identifier: GPL-2.0

//! Writing the data of moves to slots: does what [`Placing`](crate::logic::repair::Placing) asks for.
//!
//! The queue of its blocks is `lists.queue`. Slots are taken, and spares left, under the writer's lock; data is written
//! without any.

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
        util, //
    },
    logic::{
        event::Event,
        repair::{
            MemberRun,
            PlaceAnswer,
            PlaceStep, //
        }, //
    },
    remap::{
        health::life::Direction,
        meta::{
            io::SpareIo,
            writer::Writer, //
        }, //
    }, //
};

use super::{
    push,
    ListedBlock,
    Placed,
    Relocation, //
};

impl Relocation<'_> {
    /// Writes the data of all moves to slots. After an error some are in `lists.placed`.
    pub(super) fn place_moves(&mut self) -> block::IoResult {
        let moves = &self.lists.moves;
        self.lists.queue.clear();
        for block in moves.iter() {
            push(&mut self.lists.queue, *block)?;
        }
        self.lists.filling.placing.begin(self.lists.queue.len());
        let mut answer = PlaceAnswer::Good;
        loop {
            let slots_left = self.state.user.counters.left.get() != 0;
            let step = self
                .lists
                .filling
                .placing
                .advance(util::monotonic_ms(), slots_left, answer);
            answer = match step {
                PlaceStep::Done => return Ok(()),
                PlaceStep::Failed => return Err(self.error),
                step => self.step(step).unwrap_or_else(PlaceAnswer::Failed),
            };
        }
    }

    /// Does a step.
    fn step(&mut self, step: PlaceStep) -> Result<PlaceAnswer<BlkStatus>, BlkStatus> {
        let state = self.state;
        match step {
            PlaceStep::AskOwn { at } => {
                let own = self.own_slot(at)?;
                return Ok(own.map_or(PlaceAnswer::Yes(false), PlaceAnswer::Slots));
            }
            PlaceStep::Take { at } => return Ok(PlaceAnswer::Slots(self.take_slots(at)?)),
            PlaceStep::AskGone { member } => {
                let gone = state.with_writer_by(self.patience, self.spares, |writer, io| {
                    writer.lose_if_gone(io, member)
                });
                self.tell |= gone == Some(true);
                return Ok(PlaceAnswer::Yes(gone == Some(true)));
            }
            PlaceStep::Rest { member } => {
                // If it is lost, the commit that follows finds that out.
                let rests =
                    |writer: &mut Writer, _: &mut SpareIo<'_>| writer.let_rest(&state.user, member);
                let rests = state.with_writer_by(self.patience, self.spares, rests);
                return Ok(PlaceAnswer::Yes(rests == Some(true)));
            }
            PlaceStep::Write { at, slots } => self.write(at, slots)?,
            PlaceStep::Placed { at, slots, begun } => {
                self.tell |=
                    state
                        .life
                        .proven(&state.user, Direction::SpareWrite(slots.member), begun);
                for index in 0..slots.count {
                    let main_block = self.own.main_block(self.block_at(at, index)?);
                    self.note_placed(main_block, slots.first.saturating_add(index))?;
                }
            }
            PlaceStep::PutOff { at, count, marked } => {
                for index in 0..count {
                    let block = self.block_at(at, index)?.mark_if(marked);
                    push(&mut self.lists.queue, block)?;
                }
            }
            PlaceStep::Advance { at } => {
                let last = self.lists.queue.len().saturating_sub(1);
                if at < last {
                    self.lists.queue.swap(at, last);
                }
            }
            PlaceStep::Bad { slot, member, own } => {
                // Where so many fail, some are found out again.
                if !own && push(&mut self.lists.retired, slot).is_err() {
                    self.give_back(core::iter::once(slot));
                }
                state.life.note_failed_slot(member);
            }
            PlaceStep::Jump => {
                let jump = |writer: &mut Writer, _: &mut SpareIo<'_>| writer.jump();
                let _ = state.with_writer_by(self.patience, self.spares, jump);
            }
            PlaceStep::GiveUp { member } => self.give_up_spare(member),
            PlaceStep::GiveBack { first, count } => {
                self.give_back(first..first.saturating_add(count));
            }
            PlaceStep::Forget { count } => {
                let mut number = 0usize;
                self.lists.queue.retain(|_| {
                    number = number.saturating_add(1);
                    number > count
                });
            }
            PlaceStep::Done | PlaceStep::Failed => (),
        }
        Ok(PlaceAnswer::Good)
    }

    /// Lists a block whose data is on a slot: with the last one, if that is possible.
    fn note_placed(&mut self, main_block: u64, slot: u32) -> block::IoResult {
        let state = self.state;
        let is_new = |main_block| state.path.slot_of(main_block).is_none();
        let of_member = |slot| state.path.with_map(|map| map.extents().slot(slot));
        // Where that is not so, numbers that follow each other are of slots that do not.
        let follows = |last: &Placed| {
            let (first, own) = (of_member(last.slot), of_member(slot));
            first.map(|(member, first)| (member, first.saturating_add(last.count))) == own
        };
        if let Some(last) = self.lists.placed.last_mut() {
            let next = last.main_block.saturating_add(u64::from(last.count));
            if next == main_block
                && last.slots().end == slot
                && follows(last)
                && is_new(last.main_block)
                && is_new(main_block)
            {
                last.count = last.count.saturating_add(1);
                return Ok(());
            }
        }
        let placed = Placed {
            main_block,
            slot,
            count: 1,
        };
        push(&mut self.lists.placed, placed)
    }

    /// The block at a place of the queue, or the one that is `index` places behind it.
    fn block_at(&self, at: usize, index: u32) -> Result<ListedBlock, BlkStatus> {
        let block = self.lists.queue.get(at.saturating_add(index as usize));
        block.copied().ok_or(BlkStatus::IOERR)
    }

    /// The slot that is set aside for a block, if it is of use.
    fn own_slot(&self, at: usize) -> Result<Option<MemberRun>, BlkStatus> {
        let (state, block) = (self.state, self.block_at(at, 0)?);
        let main_block = self.own.main_block(block);
        if state.path.slot_of(main_block).is_none() {
            // It gets none meanwhile, as its range is the caller's.
            return Ok(None);
        }
        // Under the lock: a slot that is set aside may be taken away, if it is not in use (`steal_slots`).
        let own = state.with_writer_by(self.patience, self.spares, |writer, io| {
            let settled = writer.settle(&state.path, &state.repair, io, main_block);
            settled.map_err(|_| self.error)?;
            let own = state.path.slot_of(main_block);
            let own = own.filter(|(_, word)| word.is_set_aside() && !block.is_marked());
            let slots = own.and_then(|(slot, _)| self.slots_from(slot, 1));
            Ok(slots.filter(|slots| {
                !self.lists.filling.placing.has_left(slots.member)
                    && state
                        .path
                        .locate(&state.life, self.spares, slots.first, true)
                        .is_some()
            }))
        });
        own.unwrap_or(Err(self.error))
    }

    /// Slots of a member, if there is one.
    fn slots_from(&self, first: u32, count: u32) -> Option<MemberRun> {
        let member = self.state.path.member_of(first)?;
        Some(MemberRun {
            first,
            count,
            member,
        })
    }

    /// Writes blocks of the queue, which follow each other, to slots.
    fn write(&self, at: usize, slots: MemberRun) -> block::IoResult {
        let state = self.state;
        let data = (
            self.source
                .offset(state.path.size, self.block_at(at, 0)?.index()),
            state.path.size.bytes(slots.count),
        );
        let (member, device, sector) =
            (state
                .path
                .locate(&state.life, self.spares, slots.first, true))
            .ok_or(BlkStatus::OFFLINE)?;
        (state.life).write_slots(member, || {
            (self.source).write(&state.pool, data, device, sector, block::Opf::WRITE.sync())
        })
    }

    /// A spare takes nothing at all: that says nothing about those of its slots that failed.
    fn give_up_spare(&mut self, member: u8) {
        let state = self.state;
        self.tell |= state
            .life
            .disproved(&state.user, Direction::SpareWrite(member));
        let of_member = |slot: &u32| state.path.member_of(*slot) == Some(member);
        self.give_back(self.lists.retired.iter().copied().filter(of_member));
        self.lists.retired.retain(|slot| !of_member(slot));
    }

    /// Gives back slots that were taken. Waits for nobody: it may be late.
    pub(super) fn give_back(&self, slots: impl Iterator<Item = u32>) {
        self.state
            .repair
            .leave_slots(&self.state.meta, &self.state.path, slots);
    }

    /// How many blocks from a place on follow each other and can go to new slots together.
    fn run_length(&self, at: usize) -> u32 {
        let rest = self.lists.queue.get(at..).unwrap_or(&[]);
        let Some(first) = rest.first() else {
            return 0;
        };
        let mut count = 1u32;
        for block in rest.iter().skip(1) {
            let before = self.state.path.slot_of(self.own.main_block(*block));
            if block.index() != first.index().saturating_add(count)
                || before.is_some_and(|(_, word)| word.is_set_aside())
            {
                break;
            }
            count = count.saturating_add(1);
        }
        count
    }

    /// Finds slots for the blocks from a place on, in need those that are only set aside: as many of
    /// these as all of them need.
    fn take_slots(&mut self, at: usize) -> Result<MemberRun, BlkStatus> {
        let want = self.run_length(at);
        let rest = self.lists.queue.len().saturating_sub(at);
        let all = u32::try_from(rest).unwrap_or(want);
        let state = self.state;
        loop {
            let taken = state.with_writer_by(self.patience, self.spares, |writer, io| match writer
                .take_slots(&state.path, &state.repair, io, want)
            {
                Err(error) if error == ENOSPC => {
                    writer.steal_slots(&state.path, &state.repair, io, self.own.range(), all)?;
                    writer.take_slots(&state.path, &state.repair, io, want)
                }
                other => other,
            });
            match taken {
                Some(Ok(run)) => return self.slots_from(run.first, run.count).ok_or(self.error),
                Some(Err(error)) if error == ENOMEM && self.waits_for_room() => (),
                Some(Err(error)) => {
                    if error == ENOSPC {
                        match self.target {
                            Some(_) => state.user.announce(Event::Refused),
                            // No bio has failed for that.
                            None => state.user.complain("no free slot is left"),
                        }
                    }
                    return Err(self.error);
                }
                None => return Err(self.error),
            }
        }
    }

    /// Has the map enlarged, and waits for a moment. False if that was for too long, or nobody can.
    pub(super) fn waits_for_room(&self) -> bool {
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
}
