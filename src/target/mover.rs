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

use super::io::read_twice;
use super::io::SpareIo;
use super::state::Locked;
use super::state::State;
use super::writer::Publish;
use super::writer::Writer;
use super::DmRemap;
use crate::dm;
use crate::logic::message::Blocks;
use crate::logic::slot::Origin;
use crate::logic::slot::SlotWord;
use crate::logic::slot::State as SlotState;
use kernel::prelude::*;

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
        state.readers.synchronize();
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
pub(super) fn to_spare(target: &DmRemap, locked: &mut Locked, blocks: Blocks) -> Result<Tally> {
    let mut tally = Tally::default();
    for part in parts(target, blocks) {
        let _closed = Closed::new(target, part);
        let mut mover = Mover::new(target, locked);
        let result = mover.copy_to_slots(part, &mut tally);
        let finished = mover.flush_and_commit(result.is_ok());
        result.and(finished)?;
    }
    target.state.counters.manual_remaps.add(tally.moved);
    Ok(tally)
}

/// Copies blocks back to main and serves them from there. Stops at the first that fails.
pub(super) fn to_main(target: &DmRemap, locked: &mut Locked, blocks: Blocks) -> Result<Tally> {
    let mut tally = Tally::default();
    for part in parts(target, blocks) {
        let _closed = Closed::new(target, part);
        let mut mover = Mover::new(target, locked);
        let result = mover.copy_back(part, &mut tally);
        // Nothing that was not committed behind the closed gate may be committed later.
        mover.writer.forget_staged(&target.state);
        result?;
    }
    Ok(tally)
}

/// Serves blocks of main from slots that hold what they are to hold already.
pub(super) fn redirect(
    target: &DmRemap,
    locked: &mut Locked,
    blocks: Blocks,
    first_slot: u32,
) -> Result {
    let state = &*target.state;
    let count = u32::try_from(blocks.count).map_err(|_| ERANGE)?;
    for index in 0..count {
        let main_block = blocks.first.saturating_add(u64::from(index));
        if state.slot_of(main_block).is_some() {
            return Err(EEXIST);
        }
    }
    let _closed = Closed::new(target, blocks);
    let mut mover = Mover::new(target, locked);
    for index in 0..count {
        let result = mover.redirect_one(
            blocks.first.saturating_add(u64::from(index)),
            first_slot.saturating_add(index),
        );
        if result.is_err() {
            mover.writer.forget_staged(state);
            return result;
        }
        if mover.writer.is_half_full() {
            mover.flush_and_commit(true)?;
        }
    }
    mover.flush_and_commit(true)?;
    state.counters.manual_remaps.add(u64::from(count));
    Ok(())
}

/// Parts of a range that fit into the buffer.
fn parts(target: &DmRemap, blocks: Blocks) -> impl Iterator<Item = Blocks> {
    let step = (DATA_BYTES >> 9 >> target.state.block_shift) as u64;
    let mut done = 0;
    core::iter::from_fn(move || {
        let count = step.min(blocks.count.checked_sub(done)?);
        let first = blocks.first.saturating_add(done);
        done = done.saturating_add(count);
        (count != 0).then_some(Blocks { first, count })
    })
}

struct Mover<'a> {
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
            state,
            main: &target.main,
            io: SpareIo {
                pool: &state.pool,
                spare: &target.spare,
                window_start: state.window_start,
                buffer: &mut locked.block,
            },
            writer: &mut locked.writer,
            data: &mut locked.data,
            bytes: 512 << state.block_shift,
        }
    }

    fn copy_to_slots(&mut self, blocks: Blocks, tally: &mut Tally) -> Result {
        for main_block in blocks.first..blocks.first.saturating_add(blocks.count) {
            let old = self.state.slot_of(main_block);
            let pending = match old {
                Some((_, word)) if word.state() != SlotState::Pending => {
                    tally.there = tally.there.saturating_add(1);
                    continue;
                }
                Some((slot, _)) => Some(slot),
                None => None,
            };
            let sector = self.state.sector_of(main_block);
            let read = read_twice(self.io.pool, self.main, sector, self.data, self.bytes);
            let state = match read {
                Ok(()) => SlotState::Valid,
                Err(_) => SlotState::Pending,
            };
            if state == SlotState::Pending {
                tally.unreadable = tally.unreadable.saturating_add(1);
                if pending.is_some() {
                    continue;
                }
            }
            let (slot, publish) = match pending {
                Some(slot) => (slot, Publish::Keep),
                None => {
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
                return staged;
            }
            if state == SlotState::Valid {
                tally.moved = tally.moved.saturating_add(1);
            }
        }
        Ok(())
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

    fn redirect_one(&mut self, main_block: u64, slot: u32) -> Result {
        self.writer.take_slot(self.state, &mut self.io, slot)?;
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

    /// Data before metadata (P3). If not all went well, what did is not committed.
    fn flush_and_commit(&mut self, all_well: bool) -> Result {
        if !all_well {
            self.writer.forget_staged(self.state);
            return Ok(());
        }
        if let Err(status) = self.io.pool.flush(self.io.spare) {
            self.writer.forget_staged(self.state);
            return Err(to_error(status));
        }
        self.writer.commit(self.state, &mut self.io)
    }

    fn copy_back(&mut self, blocks: Blocks, tally: &mut Tally) -> Result {
        let mut held = KVec::with_capacity(blocks.count as usize, GFP_KERNEL)?;
        let mut result = Ok(());
        let range = blocks.first..blocks.first.saturating_add(blocks.count);
        for main_block in range.clone() {
            if let Some((slot, _)) = self.state.slot_of(main_block) {
                self.writer
                    .make_sole_claim(self.state, &mut self.io, main_block, slot)?;
            }
        }
        for main_block in range {
            let Some((slot, word)) = self.state.slot_of(main_block) else {
                tally.there = tally.there.saturating_add(1);
                continue;
            };
            result = match word.state() {
                SlotState::Pending => Ok(()),
                _ => self.copy_one_back(main_block, slot),
            };
            if result.is_err() {
                break;
            }
            held.push_within_capacity(slot).map_err(|_| ENOMEM)?;
            self.writer.stage(
                self.state,
                slot,
                SlotWord::FREE,
                Publish::Remove(main_block),
            )?;
            tally.moved = tally.moved.saturating_add(1);
        }
        // What was copied back is on main and the same as on the slot: it may be committed.
        if let Err(status) = self.io.pool.flush(self.main) {
            self.writer.forget_staged(self.state);
            return Err(to_error(status));
        }
        self.writer.commit(self.state, &mut self.io)?;
        self.state.readers.synchronize();
        for slot in held {
            self.writer.give_back(self.state, slot);
        }
        result
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
