// SPDX-License-Identifier: GPL-2.0

//! Moving the bad blocks of a write to slots.

use super::push;
use super::Move;
use super::Repair;
use crate::dm;
use crate::dm::BlkStatus;
use crate::logic::alloc::SlotRun;
use crate::logic::bisect::Bisect;
use crate::logic::classify::Operation;
use crate::logic::slot::Origin;
use crate::logic::slot::SlotWord;
use crate::logic::slot::State as SlotState;
use crate::logic::table::RunKind;
use crate::target::writer::Publish;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;

/// How many slots may fail for one bio before any has taken data: more, and it is the spare that
/// failed and not its medium.
const SLOTS_TRIED: usize = 16;

impl Repair<'_> {
    /// Moves blocks to slots: data, flush, commit, publish.
    pub(super) fn move_blocks(&mut self) -> dm::IoResult {
        if self.scratch.moves.is_empty() {
            return Ok(());
        }
        let fresh = self
            .scratch
            .moves
            .iter()
            .any(|block| self.state.slot_of(block.main_block).is_none());
        if fresh && (!self.state.auto_remap.load(Relaxed) || !self.proof_of_life()) {
            return Err(self.error_for_bio());
        }
        let written = self.write_to_slots();
        // What is staged is complete in itself, even if the rest found no place.
        let committed = self.flush_and_commit();
        if committed.is_ok() && self.spare_alive {
            if let Some(first) = self.scratch.moves.first() {
                let count = self.scratch.moves.len();
                self.state
                    .report("moved to the spare", count, first.main_block);
            }
            self.retire();
        } else {
            self.forget_retired();
        }
        written.and(committed)
    }

    /// Writes the data of all moves to slots and stages their entries. A block whose slot fails goes
    /// to the end of the queue and gets another one.
    fn write_to_slots(&mut self) -> dm::IoResult {
        let mut next = 0;
        while let Some(block) = self.scratch.moves.get(next).copied() {
            let old = self.state.slot_of(block.main_block);
            let own =
                old.filter(|(_, word)| word.state() == SlotState::Pending && !block.own_failed);
            let run = match own {
                Some((slot, _)) => SlotRun {
                    first: slot,
                    count: 1,
                },
                None => self.take_slots(self.run_length(next))?,
            };
            self.fill_slots(run, next, own.is_some())?;
            next = next.saturating_add(run.count as usize);
        }
        Ok(())
    }

    /// How many moves from number `next` on are of consecutive blocks with consecutive data and can
    /// go to new slots together.
    fn run_length(&self, next: usize) -> u32 {
        let rest = self.scratch.moves.get(next..).unwrap_or(&[]);
        let Some(first) = rest.first() else {
            return 0;
        };
        let mut count = 1u32;
        for block in rest.iter().skip(1) {
            let pending = |(_, word): (u32, SlotWord)| word.state() == SlotState::Pending;
            if block.main_block != first.main_block.saturating_add(u64::from(count))
                || self.state.slot_of(block.main_block).is_some_and(pending)
            {
                break;
            }
            count = count.saturating_add(1);
        }
        count
    }

    /// Writes the data of as many moves from number `next` on as there are slots in `run`.
    fn fill_slots(&mut self, run: SlotRun, next: usize, own: bool) -> dm::IoResult {
        let first = *self.scratch.moves.get(next).ok_or(BlkStatus::IOERR)?;
        let kind = RunKind::Slots { first: run.first };
        let mut search = Bisect::new(run.count).ok_or(BlkStatus::INVAL)?;
        // Slots before this one are staged, bad, or given back.
        let mut settled = 0u32;
        while let Some(part) = search.next_try() {
            let result = self.io.pool.write_slice(
                self.bio,
                first.offset.saturating_add(self.bytes(part.first)),
                self.bytes(part.count),
                self.io.spare,
                self.state.slot_sector(run.first.saturating_add(part.first)),
                dm::Opf::WRITE.sync(),
            );
            let good = self.judge(Operation::Write, kind, result);
            let taken = match good {
                Ok(true) => (part.first..part.first.saturating_add(part.count))
                    .try_for_each(|index| self.stage_slot(run.first, index, next)),
                Ok(false) if part.count == 1 => self.slot_failed(run.first, part.first, next, own),
                Ok(false) => {
                    search.report(false);
                    continue;
                }
                Err(status) => Err(status),
            };
            if let Err(status) = taken {
                if !own {
                    for index in settled..run.count {
                        let slot = run.first.saturating_add(index);
                        self.writer.give_back_unless_staged(self.state, slot);
                    }
                }
                return Err(status);
            }
            search.report(matches!(good, Ok(true)));
            settled = part.first.saturating_add(part.count);
        }
        Ok(())
    }

    /// Stages that a slot serves its block from now on.
    fn stage_slot(&mut self, first: u32, index: u32, next: usize) -> dm::IoResult {
        let slot = first.saturating_add(index);
        let block = self.move_at(next, index)?;
        let publish = match self.state.slot_of(block.main_block) {
            Some((old, _)) if old == slot => Publish::Keep,
            Some((old, _)) => Publish::Replace(old),
            None => Publish::Insert,
        };
        self.spare_alive = true;
        let word = SlotWord::new(block.main_block, SlotState::Valid, Origin::Auto)
            .ok_or(BlkStatus::IOERR)?;
        self.writer
            .stage(self.state, slot, word, publish)
            .map_err(|_| BlkStatus::RESOURCE)?;
        match publish {
            Publish::Replace(old) => push(&mut self.scratch.retired, old),
            _ => Ok(()),
        }
    }

    /// A slot cannot take data: its block needs another one.
    fn slot_failed(&mut self, first: u32, index: u32, next: usize, own: bool) -> dm::IoResult {
        let mut block = self.move_at(next, index)?;
        block.own_failed |= own;
        push(&mut self.scratch.moves, block)?;
        // One that has a claim is retired together with being replaced, and not before.
        if !own {
            push(&mut self.scratch.retired, first.saturating_add(index))?;
        }
        if !self.spare_alive && self.scratch.retired.len() > SLOTS_TRIED {
            self.state.complain("the spare fails everywhere");
            return Err(self.error_for_bio());
        }
        Ok(())
    }

    fn move_at(&self, next: usize, index: u32) -> Result<Move, BlkStatus> {
        self.scratch
            .moves
            .get(next.saturating_add(index as usize))
            .copied()
            .ok_or(BlkStatus::IOERR)
    }

    /// Data before metadata (P3). A flush that failed is not tried again: a disk may drop what it
    /// could not write, and report success for the rest.
    fn flush_and_commit(&mut self) -> dm::IoResult {
        let staged = self.writer.staged();
        let done = match self.io.pool.flush(self.io.spare) {
            Ok(()) => self
                .writer
                .commit(self.state, &mut self.io)
                .map_err(|_| BlkStatus::IOERR),
            Err(status) => {
                self.writer.forget_staged(self.state);
                Err(status)
            }
        };
        match done {
            Ok(()) => self.state.counters.auto_remaps.add(staged as u64),
            // What was to replace them did not make it.
            Err(_) => self.forget_retired(),
        }
        done
    }

    /// Gives back slots that failed, to be found out again. Those that were to be replaced may be
    /// by now, as far as the commit went.
    fn forget_retired(&mut self) {
        self.writer.note_older_claims();
        while let Some(slot) = self.scratch.retired.pop() {
            self.writer.give_back(self.state, slot);
        }
    }

    /// Marks slots as bad, in a commit of their own (M5).
    fn retire(&mut self) {
        for slot in &self.scratch.retired {
            let staged = self.writer.stage_retirement(self.state, *slot);
            if staged.is_err() {
                break;
            }
            self.state.counters.spare_write_errors.add(1);
        }
        // If this fails, loading finds two claims and frees the older, and the slot fails again
        // when it is written.
        if self.writer.commit(self.state, &mut self.io).is_err() {
            self.writer.note_older_claims();
        }
    }

    /// Finds slots, in need those that are only set aside.
    fn take_slots(&mut self, want: u32) -> Result<SlotRun, BlkStatus> {
        match self.writer.take_slots(self.state, &mut self.io, want) {
            Ok(run) => return Ok(run),
            Err(error) if error != ENOSPC => return Err(self.error_for_bio()),
            Err(_) => (),
        }
        // Taking one away is a commit, which takes along what is staged.
        self.flush_and_commit()?;
        self.writer
            .steal_slot(self.state, &mut self.io)
            .map_err(|_| {
                self.state.complain("no free slot is left");
                self.error_for_bio()
            })
    }
}
