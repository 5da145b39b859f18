// SPDX-License-Identifier: GPL-2.0

//! Giving up what main cannot read, because a user says so (`zero`).
//!
//! Nobody may have written a block since it was found to be unreadable, and a bad block is not asked behind the gate, as
//! that may take seconds. So it is set aside first, if it is not: its next write goes to its slot from then on, which
//! shows. Then writes from before are waited for, and main is asked again:
//!
//! ```text
//!   main cannot read it       it is set aside          drain, main cannot read it   gate: is it still?  zeroes, commit
//!   ------------------------->|----------------------->|--------------------------->|------------------------------->
//!   a write goes to main,     a write goes to the slot: it is served by that, and is left alone
//!   which can read it then
//! ```
//!
//! Only an error of the medium counts, with proof that main, or the spare, lives otherwise (E2).

use kernel::prelude::*;

use crate::{
    abstractions::{
        block::BlkStatus,
        dm, //
    },
    logic::{
        classify::Operation,
        format::INCOMPAT_GIVEN_UP,
        limit::Limit,
        message::{
            reply::Tally,
            Blocks,
            Denial, //
        },
        slot::Origin,
        table::RunKind, //
    },
    remap::{
        meta::io::is_suspect,
        repair::relocate::{
            push,
            ListedBlock,
            Own,
            Relocation,
            Source, //
        },
        DmRemap, //
    }, //
};

use super::{
    closed::Closed,
    mover::{
        in_parts,
        read_often,
        to_error,
        Mover, //
    }, //
};

/// Moves blocks to the spare like [`to_spare`](super::mover::to_spare), and gives up what main cannot read there: from now on it reads as zeroes.
/// What a slot serves stays as it is, unless it is lost. Ends at the first error that no bad medium explains. However it
/// ends, `total` tells what was done, with what was given up as what failed, and `next` which block comes next.
pub(in crate::remap) fn zero(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    total: &mut Tally,
    next: &mut u64,
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    if let Some(block) = state.path.first_avoided(blocks) {
        let sector = state.path.size.sector_of(block);
        return Err(Denial::Avoided { sector });
    }
    in_parts(target, ti, blocks, next, |mover, part| {
        let retries = state.user.limits.get(Limit::ReadRetries);
        mover.tries = retries.saturating_add(1);
        let zeroed = mover.zero(part, total);
        // What was not tried as often as it had to be is not known to be bad.
        zeroed.map_err(|error| if state.jobs.must_stop() { EINTR } else { error })
    })?;
    Ok(())
}

impl Mover<'_> {
    /// Does a step of [`zero`]: the first blocks of a part, as far as they are of a kind. Returns how many are done.
    fn zero(&mut self, part: Blocks, total: &mut Tally) -> Result<u64> {
        let state = self.state;
        let count = u32::try_from(part.count).map_err(|_| ERANGE)?;
        let run = state.path.run(part.first, count);
        match run.kind {
            // Somebody has said so since.
            RunKind::Avoided => return Err(EBUSY),
            RunKind::Lost { .. } => (),
            RunKind::Failing { first } => {
                self.drain(part.first)?;
                if self.is_slot_readable(first)? {
                    total.there = total.there.saturating_add(1);
                    return Ok(1);
                }
            }
            RunKind::Pending { .. } => {
                self.drain(part.first)?;
                if self.readable(part.first, 1)? != 0 {
                    return self.copy(part, total);
                }
            }
            _ => return self.copy(part, total),
        }
        let given_up = u64::from(self.give_up(part.first, run.kind)?);
        total.failed = total.failed.saturating_add(given_up);
        Ok(given_up)
    }

    /// Moves the blocks that can be read. Returns how many are done: none if one cannot, which is set aside by now, and
    /// comes again.
    fn copy(&mut self, part: Blocks, total: &mut Tally) -> Result<u64> {
        let before = total.failed;
        let done = self.copy_to_spare(part, total)?;
        if total.failed == before {
            return Ok(done);
        }
        total.failed = before;
        Ok(0)
    }

    /// Waits for writes of a block that are on their way to where it was before it was seen to be set aside, or failing.
    fn drain(&self, main_block: u64) -> Result {
        let block = Blocks {
            first: main_block,
            count: 1,
        };
        Closed::wait(
            &self.state.path,
            &self.state.repair,
            &self.state.jobs,
            &[block],
        )
        .map(drop)
    }

    /// Whether a slot that could not be read lately can be read now. Fails if that says nothing of the slot.
    fn is_slot_readable(&mut self, slot: u32) -> Result<bool> {
        let state = self.state;
        let spares = &self.target.spares;
        let (member, device, sector) = state
            .path
            .locate(&state.life, spares, slot, false)
            .ok_or(EIO)?;
        let tries = self.tries;
        let (at, data) = ((device, sector), &mut self.tools.data);
        let Err(status) = read_often(&state.jobs, &state.pool, at, data, self.bytes, tries) else {
            return Ok(true);
        };
        let alive = || {
            state.with_writer(spares, |writer, io| {
                io.is_alive(writer.metadata.superblock(), member, None)
            })
        };
        match is_suspect(Operation::Read, status) && alive() {
            true => Ok(false),
            false => Err(to_error(status)),
        }
    }

    /// Serves a block by zeroes, unless anything has become of it since it was seen to be as `seen`. Returns whether it
    /// does.
    fn give_up(&mut self, main_block: u64, seen: RunKind) -> Result<bool> {
        let state = self.state;
        let block = Blocks {
            first: main_block,
            count: 1,
        };
        let spares = &self.target.spares;
        state.with_writer(spares, |writer, io| {
            writer.announce(io, (INCOMPAT_GIVEN_UP, 0))
        })?;
        let _closed = Closed::wait(&state.path, &state.repair, &state.jobs, &[block])?;
        if state.path.run(main_block, 1).kind != seen {
            return Ok(false);
        }
        if let RunKind::Failing { first } = seen {
            // With no other slot left, a write goes to this one, and the mark may outlive it.
            if self.is_slot_readable(first)? {
                return Ok(false);
            }
        }
        let lists = &mut self.tools.lists;
        lists.moves.clear();
        push(&mut lists.moves, ListedBlock::new(0)).map_err(to_error)?;
        let (source, own) = (Source::Zeroes(&state.repair.zeroes), Own::Range(block));
        let (origin, error) = (Origin::Manual, BlkStatus::IOERR);
        let mut relocation = Relocation::new(state, spares, lists, (source, own), origin, error);
        relocation.tells = false;
        relocation.gives_up = true;
        let moved = relocation.run();
        moved.map_err(|_| self.why())?;
        state.user.counters.manual_remaps.add(1);
        Ok(true)
    }
}
