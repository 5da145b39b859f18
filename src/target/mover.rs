// SPDX-License-Identifier: GPL-2.0

//! Moving blocks that did not fail, because a user says so: to the spare, and back.
//!
//! The content is copied, and a write must not get lost in between. So writes to the range are kept
//! out, and those that are under way are waited for, before anything is read (E3):
//!
//! ```text
//!   to the spare                          back to main (M7)
//!   close the gate, drain                 close the gate, drain
//!   read main                             read the slot
//!   write slots, flush                    write main, flush, read again and compare
//!   commit: the slots are valid           commit: the slots are free
//!   publish                               unpublish, drain: nobody is on the way to the slots
//!   open the gate                         the slots can be used; open the gate
//! ```
//!
//! Reads go on all the time: both places have the same content whenever a reader can be sent to
//! either. A crash leaves the block where it was or where it was to go, with the same content.
//!
//! All of this runs in the context of a message: process context, which may sleep, and holds what a
//! suspend waits for. Lock order: the writer's lock, then the gate.

use super::io::is_suspect;
use super::io::read_twice;
use super::io::SpareIo;
use super::probe;
use super::state::Locked;
use super::state::State;
use super::writer::Publish;
use super::writer::Writer;
use super::DmRemap;
use crate::dm;
use crate::logic::classify::Operation;
use crate::logic::message::Blocks;
use crate::logic::slot::Origin;
use crate::logic::slot::SlotWord;
use crate::logic::slot::State as SlotState;
use crate::logic::table::RunKind;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;

/// Bytes that are copied at a time.
pub(super) const DATA_BYTES: usize = 64 * 1024;

/// What became of a range.
#[derive(Default)]
pub(super) struct Tally {
    /// Blocks that were moved.
    pub(super) moved: u64,
    /// Blocks that were where they were to go.
    pub(super) there: u64,
    /// Blocks that could not be read.
    pub(super) unreadable: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.moved = self.moved.saturating_add(other.moved);
        self.there = self.there.saturating_add(other.there);
        self.unreadable = self.unreadable.saturating_add(other.unreadable);
    }
}

/// Keeps writes out of a range while it exists, and has waited for those that were in it.
struct Closed<'a> {
    state: &'a State,
    target: &'a DmRemap,
}

impl<'a> Closed<'a> {
    fn new(target: &'a DmRemap, blocks: Blocks) -> Self {
        let state = &*target.state;
        let sectors = blocks.count << state.block_shift;
        state.gate.close(state.sector_of(blocks.first), sectors);
        state.readers.synchronize_expedited();
        Self { state, target }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.state.gate.open();
        // The worker has what came to the gate meanwhile, and waits for the writer's lock.
        self.target.kick();
    }
}

/// Copies blocks of main to the spare and serves them from there.
pub(super) fn to_spare(target: &DmRemap, ti: &dm::TargetInfo, blocks: Blocks) -> Result<Tally> {
    in_parts(target, ti, blocks, |mover, part, tally| {
        let mut done = 0;
        let result = mover.copy_to_slots(part, tally, &mut done);
        mover.flush_and_commit(result)?;
        mover.state.counters.manual_remaps.add(tally.moved);
        Ok(done)
    })
}

/// Copies blocks back to main and serves them from there. Stops at the first that fails.
pub(super) fn to_main(target: &DmRemap, ti: &dm::TargetInfo, blocks: Blocks) -> Result<Tally> {
    in_parts(target, ti, blocks, |mover, part, tally| {
        mover.copy_back(part, tally)
    })
}

/// Serves blocks of main from slots that hold what they are to hold already.
pub(super) fn redirect(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    first_slot: u32,
) -> Result {
    let count = u32::try_from(blocks.count).map_err(|_| ERANGE)?;
    let slot_of = |main_block: u64| {
        // The range has less than 2^32 blocks, and its slots were checked to exist.
        first_slot.saturating_add(main_block.saturating_sub(blocks.first) as u32)
    };
    // Refuse what can be refused before anything is done.
    let mut locked = target.lock_active(ti)?;
    let mut mover = Mover::new(target, &mut locked);
    mover.check_redirect(blocks, slot_of)?;
    let last = first_slot.saturating_add(count.saturating_sub(1));
    mover.writer.extend_to(mover.state, &mut mover.io, last)?;
    drop(locked);

    in_parts(target, ti, blocks, |mover, part, _| {
        mover.check_redirect(part, slot_of)?;
        let mut range = part.first..part.first.saturating_add(part.count);
        let staged = range.try_for_each(|block| mover.redirect_one(block, slot_of(block)));
        mover.flush_and_commit(staged)?;
        mover.state.counters.manual_remaps.add(part.count);
        Ok(part.count)
    })?;
    Ok(())
}

/// Does a part of the range at a time, each with the lock taken and the gate closed anew: whoever
/// waits for these waits for one part. `work` tells how many blocks it has done. Ends early if the
/// device is to be suspended (E8) or the caller was interrupted; what was moved by then stays moved.
fn in_parts(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    mut work: impl FnMut(&mut Mover<'_>, Blocks, &mut Tally) -> Result<u64>,
) -> Result<Tally> {
    let step = (DATA_BYTES >> 9 >> target.state.block_shift) as u64;
    let end = blocks.first.saturating_add(blocks.count);
    let mut total = Tally::default();
    let mut first = blocks.first;
    while first < end {
        let part = Blocks {
            first,
            count: step.min(end.saturating_sub(first)),
        };
        let mut locked = target.lock_active(ti)?;
        if must_stop(&target.state) {
            return Err(EINTR);
        }
        let _closed = Closed::new(target, part);
        let mut tally = Tally::default();
        let done = work(&mut Mover::new(target, &mut locked), part, &mut tally)?;
        total.add(&tally);
        first = first.saturating_add(done);
    }
    Ok(total)
}

/// Whether to come to an end.
fn must_stop(state: &State) -> bool {
    state.stopping.load(Relaxed) || kernel::current!().signal_pending()
}

struct Mover<'a> {
    target: &'a DmRemap,
    state: &'a State,
    main: &'a dm::Device,
    io: SpareIo<'a>,
    writer: &'a mut Writer,
    data: &'a mut dm::IoBuffer,
    /// Bytes of a block.
    bytes: usize,
}

impl<'a> Mover<'a> {
    fn new(target: &'a DmRemap, locked: &'a mut Locked) -> Self {
        let state = &*target.state;
        Self {
            target,
            state,
            main: &target.main,
            io: SpareIo::new(state, &target.spare, &mut locked.block),
            writer: &mut locked.writer,
            data: &mut locked.data,
            bytes: state.bytes(1) as usize,
        }
    }

    /// Copies the blocks of a part. An unreadable block took its time, so the part ends with it;
    /// `done` gets the number of blocks that are done.
    fn copy_to_slots(&mut self, blocks: Blocks, tally: &mut Tally, done: &mut u64) -> Result {
        for main_block in blocks.first..blocks.first.saturating_add(blocks.count) {
            self.writer.settle(self.state, &mut self.io, main_block)?;
            match self.state.slot_of(main_block) {
                Some((_, word)) if word.state() != SlotState::Pending => {
                    tally.there = tally.there.saturating_add(1);
                }
                old => self.copy_to_slot(main_block, old.map(|(slot, _)| slot), tally)?,
            }
            *done = done.saturating_add(1);
            if tally.unreadable != 0 || must_stop(self.state) {
                break;
            }
        }
        Ok(())
    }

    /// Copies a block to a slot: to the one that is set aside for it, if there is one. A block that
    /// main cannot read becomes pending.
    fn copy_to_slot(&mut self, main_block: u64, pending: Option<u32>, tally: &mut Tally) -> Result {
        let sector = self.state.sector_of(main_block);
        let state = match read_twice(self.io.pool, self.main, sector, self.data, self.bytes) {
            Ok(()) => SlotState::Valid,
            Err(status) => {
                let block = Blocks {
                    first: main_block,
                    count: 1,
                };
                if !is_suspect(Operation::Read, status)
                    || !probe::is_alive(self.target, block, self.data)
                {
                    return Err(to_error(status));
                }
                tally.unreadable = tally.unreadable.saturating_add(1);
                SlotState::Pending
            }
        };
        let (slot, publish) = match (pending, state) {
            (Some(_), SlotState::Pending) => return Ok(()),
            (Some(slot), _) => (slot, Publish::Keep),
            (None, _) => {
                let run = self.writer.take_slots(self.state, &mut self.io, 1)?;
                (run.first, Publish::Insert)
            }
        };
        let stored = match state {
            SlotState::Valid => self.write_slot(slot),
            _ => Ok(()),
        };
        let staged = stored.and_then(|()| {
            let word = SlotWord::new(main_block, state, Origin::Manual).ok_or(ERANGE)?;
            self.writer.stage(self.state, slot, word, publish)
        });
        if staged.is_err() {
            self.writer.give_back(self.state, slot);
        } else if state == SlotState::Valid {
            tally.moved = tally.moved.saturating_add(1);
        }
        staged
    }

    fn write_slot(&mut self, slot: u32) -> Result {
        let data = self.data.slice(0..self.bytes)?;
        let opf = dm::Opf::WRITE.sync();
        let sector = self.state.slot_sector(slot);
        self.io
            .pool
            .write(self.io.spare, sector, data, opf)
            .map_err(to_error)
    }

    /// Checks that blocks are served by main and that their slots are free.
    fn check_redirect(&self, blocks: Blocks, slot_of: impl Fn(u64) -> u32) -> Result {
        for main_block in blocks.first..blocks.first.saturating_add(blocks.count) {
            if self.state.slot_of(main_block).is_some() {
                return Err(EEXIST);
            }
            if !self.writer.is_free(self.state, slot_of(main_block)) {
                return Err(EBUSY);
            }
        }
        Ok(())
    }

    fn redirect_one(&mut self, main_block: u64, slot: u32) -> Result {
        self.writer.take_slot(self.state, slot)?;
        let staged = SlotWord::new(main_block, SlotState::Valid, Origin::Manual)
            .ok_or(ERANGE)
            .and_then(|word| {
                self.writer
                    .stage(self.state, slot, word.with_raw(), Publish::Insert)
            });
        if staged.is_err() {
            self.writer.give_back(self.state, slot);
        }
        staged
    }

    /// Data before metadata (P3). If what was done before failed, nothing is committed, and that
    /// error is handed on.
    fn flush_and_commit(&mut self, before: Result) -> Result {
        if before.is_ok() && self.writer.staged() == 0 {
            return Ok(());
        }
        let flushed = before.and_then(|()| self.io.pool.flush(self.io.spare).map_err(to_error));
        if flushed.is_err() {
            self.writer.forget_staged(self.state);
            return flushed;
        }
        self.writer.commit(self.state, &mut self.io)
    }

    /// Copies the blocks of a part back, and returns how many are done.
    fn copy_back(&mut self, blocks: Blocks, tally: &mut Tally) -> Result<u64> {
        let count = u32::try_from(blocks.count).map_err(|_| ERANGE)?;
        let run = self.state.run(blocks.first, count);
        if run.kind == RunKind::Main {
            // Nothing to do for these.
            tally.there = tally.there.saturating_add(u64::from(run.count));
            return Ok(u64::from(run.count));
        }
        self.writer.retire_older_claims(self.state, &mut self.io)?;
        let mut freed = KVec::with_capacity(blocks.count as usize, GFP_KERNEL)?;
        let mut done = 0;
        let copied = self.stage_removals(blocks, &mut freed, tally, &mut done);
        // What was copied before an error is on main and the same as on the slot, so it may be
        // committed; nothing may be left staged when the gate opens.
        let committed = match self.io.pool.flush(self.main) {
            Ok(()) => self.writer.commit(self.state, &mut self.io),
            Err(status) => {
                self.writer.forget_staged(self.state);
                Err(to_error(status))
            }
        };
        // Those that still serve are not given back by this.
        self.state.readers.synchronize_expedited();
        for slot in freed {
            self.writer.give_back(self.state, slot);
        }
        copied.and(committed)?;
        Ok(done)
    }

    /// Copies blocks back to main and stages that their slots are free.
    fn stage_removals(
        &mut self,
        blocks: Blocks,
        freed: &mut KVec<u32>,
        tally: &mut Tally,
        done: &mut u64,
    ) -> Result {
        for main_block in blocks.first..blocks.first.saturating_add(blocks.count) {
            self.writer.settle(self.state, &mut self.io, main_block)?;
            if let Some((slot, word)) = self.state.slot_of(main_block) {
                if word.state() != SlotState::Pending {
                    self.copy_one_back(main_block, slot)?;
                }
                freed.push_within_capacity(slot).map_err(|_| ENOMEM)?;
                self.writer.stage(
                    self.state,
                    slot,
                    SlotWord::FREE,
                    Publish::Remove(main_block),
                )?;
                tally.moved = tally.moved.saturating_add(1);
            } else {
                tally.there = tally.there.saturating_add(1);
            }
            *done = done.saturating_add(1);
            if must_stop(self.state) {
                break;
            }
        }
        Ok(())
    }

    fn copy_one_back(&mut self, main_block: u64, slot: u32) -> Result {
        let (from, to) = (
            self.state.slot_sector(slot),
            self.state.sector_of(main_block),
        );
        let bytes = self.bytes;
        let pool = self.io.pool;
        read_twice(pool, self.io.spare, from, self.data, bytes).map_err(to_error)?;
        let data = self.data.slice(0..bytes)?;
        pool.write(self.main, to, data, dm::Opf::WRITE.sync().fua())
            .map_err(to_error)?;
        // The metadata block's buffer is free between commits and larger than a block of main.
        read_twice(pool, self.main, to, self.io.buffer, bytes).map_err(to_error)?;
        let same = self.io.buffer.as_slice().get(..bytes) == self.data.as_slice().get(..bytes);
        if same {
            Ok(())
        } else {
            Err(EIO)
        }
    }
}

fn to_error(status: dm::BlkStatus) -> Error {
    Error::from_errno(status.to_errno())
}
