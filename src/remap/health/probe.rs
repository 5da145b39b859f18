// SPDX-License-Identifier: GPL-2.0

//! Does main still work as such? (E2)
//!
//! Blocks are asked where users have succeeded lately, and then anywhere else, other ones each time
//! ([`places`](crate::logic::places)): media fail in patterns, and the answer should not take the time
//! of a bad block.

use kernel::{
    alloc::KBox,
    sync::{
        atomic::Relaxed,
        lock::{
            mutex::MutexBackend,
            Guard, //
        }, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        block,
        util, //
    },
    logic::{
        message::Blocks,
        places::Places,
        repair::Found, //
    },
    remap::{
        jobs::{
            closed::{
                self,
                Closed, //
            },
            mover,
            state::JobsState, //
        },
        DmRemap, //
    }, //
};

use super::life::{
    Direction,
    Life, //
};

/// How many blocks are asked however late it is.
const READS: u32 = 3;

/// How many blocks may fail to be written before the answer is no, and how many may be busy before there is
/// none.
const WRITES: u32 = 6;
const BUSY: u32 = 4;

/// How many places are drawn.
const PLACES: usize = 16;

/// How long writes that are under way are waited for, in milliseconds.
const DRAIN_MS: u64 = 500;

/// Whether any block of main can be read, other than those in question and those that are known to
/// be bad. Waits for I/O, but begins none after `deadline`, save for the first few; `buffer` holds a
/// block.
pub(in crate::remap) fn can_read(
    target: &DmRemap,
    suspects: Blocks,
    deadline: u64,
    buffer: &mut block::IoBuffer,
) -> Found {
    let mut tried = 0;
    for block in candidates(target, suspects) {
        if tried >= READS && util::monotonic_ms() >= deadline {
            return Found::Unknown;
        }
        tried += 1;
        if read(target, block, buffer) {
            return Found::Alive;
        }
    }
    // A main of one block has no other.
    if tried == 0 {
        Found::Unknown
    } else {
        Found::Dead
    }
}

/// Whether any block of main can be written. One that can be read is written back, behind the gate,
/// with what was just read. The range of the bio in question is at the desk, so another one is chosen.
///
/// Nobody can be asked whether writes work but the disk; this is done when many in a row have failed,
/// and not before. What another probe has found out after `since` will do.
pub(in crate::remap) fn can_write(
    target: &DmRemap,
    suspects: Blocks,
    (since, deadline): (u64, u64),
    buffer: &mut block::IoBuffer,
) -> Found {
    let state = &**target.state;
    let _mover = match lock_mover(&state.life, &state.jobs, since, deadline) {
        Ok(guard) => guard,
        Err(found) => return found,
    };
    let (mut failed, mut busy) = (0, 0);
    let own = closed::range(state.path.size, suspects);
    for block in candidates(target, suspects) {
        if failed >= WRITES {
            return Found::Dead;
        }
        if busy >= BUSY || (failed != 0 && util::monotonic_ms() >= deadline) {
            break;
        }
        let one = Blocks {
            first: block,
            count: 1,
        };
        if closed::range(state.path.size, one).overlaps(&own) {
            // Busy as long as this is asked, which says nothing of the others: of a small main there are many such.
            continue;
        }
        let Some(_closed) = Closed::attempt(&state.path, &state.repair, one, DRAIN_MS) else {
            busy += 1;
            continue;
        };
        if !read(target, block, buffer) {
            continue;
        }
        if write_back(target, block, buffer) {
            return Found::Alive;
        }
        failed += 1;
    }
    if failed >= WRITES {
        Found::Dead
    } else {
        Found::Unknown
    }
}

/// Takes the mover's lock. Its holder may wait for the blocks that the caller has, so this gives up when
/// the deadline is over; or when somebody else has found out.
fn lock_mover<'a>(
    life: &Life,
    jobs: &'a JobsState,
    since: u64,
    deadline: u64,
) -> Result<Guard<'a, KBox<mover::MoverBuffers>, MutexBackend>, Found> {
    let deadline = deadline.max(util::monotonic_ms().saturating_add(PATIENCE_MS));
    jobs.probing.fetch_add(1, Relaxed);
    let found = loop {
        if life.is_proven_since(Direction::MainWrite, since) {
            break Err(Found::Alive);
        }
        if let Some(guard) = jobs.mover.try_lock() {
            break Ok(guard);
        }
        if util::monotonic_ms() >= deadline {
            break Err(Found::Unknown);
        }
        fsleep(Delta::from_millis(1));
    };
    jobs.probing.fetch_sub(1, Relaxed);
    found
}

/// How long one probe waits for another, in milliseconds, however late it is.
const PATIENCE_MS: u64 = 2000;

/// Blocks that may be good: where users have succeeded lately, anywhere, and last the nearest ones that are
/// not at the desk, as a small main has few others.
fn candidates(target: &DmRemap, suspects: Blocks) -> impl Iterator<Item = u64> + '_ {
    let state = &**target.state;
    // Not those behind the target's end: they belong to somebody else.
    let blocks = target.len >> state.path.size.shift;
    let behind = suspects.first.saturating_add(suspects.count);
    let region = REGION_SECTORS >> state.path.size.shift;
    let near = [
        suspects.first.wrapping_sub(region),
        behind.saturating_add(region),
        suspects.first.wrapping_sub(1),
        behind,
    ];
    let drawn = Places::new(state.life.seed(), blocks).take(PLACES);
    let lately = state.life.last_good().into_iter();
    lately.chain(drawn).chain(near).filter(move |block| {
        let in_question = block.wrapping_sub(suspects.first) < suspects.count;
        *block < blocks
            && !in_question
            && state.path.slot_of(*block).is_none()
            && !state.path.is_avoided(*block, 1)
    })
}

/// Twice as much as is at the desk for a bio besides its own blocks.
const REGION_SECTORS: u64 = 2 << 11;

fn read(target: &DmRemap, block: u64, buffer: &mut block::IoBuffer) -> bool {
    let state = &**target.state;
    let begun = util::monotonic_ms();
    let sector = state.path.size.sector_of(block);
    let good = buffer
        .slice_mut(0..state.path.size.bytes(1) as usize)
        .is_ok_and(|data| {
            let opf = block::Opf::READ.sync();
            state.pool.read(&target.main, sector, data, opf).is_ok()
        });
    if good {
        state.life.proven(&state.user, Direction::MainRead, begun);
    }
    good
}

fn write_back(target: &DmRemap, block: u64, buffer: &block::IoBuffer) -> bool {
    let state = &**target.state;
    let begun = util::monotonic_ms();
    let sector = state.path.size.sector_of(block);
    let good = buffer
        .slice(0..state.path.size.bytes(1) as usize)
        .is_ok_and(|data| {
            let opf = block::Opf::WRITE.sync();
            state.pool.write(&target.main, sector, data, opf).is_ok()
        });
    if good {
        state.life.proven(&state.user, Direction::MainWrite, begun);
    }
    good
}
