// SPDX-License-Identifier: GPL-2.0

//! Asking main again for what it could not read (`retry`).
//!
//! A block is pending because main could not read it once. That may have been a cable, or the disk has found the sector
//! again since. Whoever says so has main asked again; a block that can be read then is pending no more, and its
//! slot is free. Nothing is copied, and what a slot serves is left alone: main has something else there.
//!
//! ```text
//!   find the next pending blocks -> read them on main -> under the writer's lock: is one still pending, and in
//!   nobody's range? -> stage that its slot is free -> commit
//! ```
//!
//! Whoever writes such a block meanwhile has its range at the desk, and looks for its slot under the writer's lock: it
//! finds the slot, or none.

use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        block,
        dm, //
    },
    logic::{
        classify::Operation,
        limit::Limit,
        listing::Kind,
        message::{
            reply::Tally,
            Blocks,
            Denial, //
        }, //
    },
    remap::{
        meta::io::is_suspect,
        session::walk::Walk,
        DmRemap, //
    }, //
};

/// How many blocks are taken back with one commit.
const PART: usize = 64;

/// Asks main again for the blocks of a range that it could not read. However it ends, `total` tells what was done, and
/// `next` which block comes next.
pub(in crate::remap) fn retry(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    total: &mut Tally,
    next: &mut u64,
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    target.check_active(ti)?;
    let mut buffer = block::IoBuffer::new(state.path.size.bytes(1) as usize, GFP_KERNEL)?;
    let mut readable = KVec::with_capacity(PART, GFP_KERNEL).map_err(Error::from)?;
    *next = blocks.first;
    let looked = look(target, &mut buffer, blocks, &mut readable, (total, next));
    let taken = take_back(target, &mut readable, total);
    if let Some(first) = readable.first() {
        // Whoever goes on has to begin with what is not done.
        *next = *first;
    }
    target.tell_news();
    looked.and(taken)
}

/// Asks main, and takes back what it can read, but for the last ones: these are left in `readable`.
fn look(
    target: &DmRemap,
    buffer: &mut block::IoBuffer,
    blocks: Blocks,
    readable: &mut KVec<u64>,
    (total, next): (&mut Tally, &mut u64),
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    let mut walk = Walk::new(blocks.first, blocks.first.saturating_add(blocks.count));
    loop {
        if state.jobs.must_stop() {
            *next = walk.position();
            return Err(EINTR.into());
        }
        let Some(part) = walk.next(&state.path, &state.life, &state.repair.notes) else {
            return Ok(());
        };
        match part.kind {
            Some(Kind::Pending) => (),
            kind => {
                if kind.is_some_and(Kind::is_served) {
                    total.there = total.there.saturating_add(part.count);
                }
                continue;
            }
        }
        for main_block in part.first..part.first.saturating_add(part.count) {
            *next = main_block;
            if state.jobs.must_stop() {
                return Err(EINTR.into());
            }
            // Somebody may have said so since.
            let is_avoided = state.path.is_avoided(main_block, 1);
            if !is_avoided && is_readable(target, main_block, buffer)? {
                // There is room for it.
                let _ = readable.push_within_capacity(main_block);
            } else {
                total.failed = total.failed.saturating_add(1);
            }
            if readable.len() == PART {
                take_back(target, readable, total)?;
            }
        }
    }
}

/// Whether main can read a block now. Fails if the error is none of the medium.
fn is_readable(
    target: &DmRemap,
    main_block: u64,
    buffer: &mut block::IoBuffer,
) -> Result<bool, Denial<'static>> {
    let state = &**target.state;
    let sector = state.path.size.sector_of(main_block);
    let tries = state.user.limits.get(Limit::ReadRetries).saturating_add(1);
    let mut last = Ok(());
    for _ in 0..tries {
        // The buffer may be larger, and what follows may be bad.
        let data = buffer.slice_mut(0..state.path.size.bytes(1) as usize)?;
        let opf = block::Opf::READ.sync();
        last = state.pool.read(&target.main, sector, data, opf);
        match last {
            Ok(()) => return Ok(true),
            Err(status) if !is_suspect(Operation::Read, status) => {
                return Err(Error::from_errno(status.to_errno()).into());
            }
            Err(_) if state.jobs.must_stop() => break,
            Err(_) => (),
        }
    }
    Ok(last.is_ok())
}

/// These blocks are pending no more, unless somebody was faster.
fn take_back(
    target: &DmRemap,
    blocks: &mut KVec<u64>,
    total: &mut Tally,
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    while !blocks.is_empty() {
        let before = blocks.len();
        state.meta.let_others_write();
        let taken = state.with_writer(&target.spares, |writer, io| {
            if !writer.active {
                return Err(Denial::Suspended);
            }
            writer.check_open(&state.user)?;
            Ok(writer.clear_pending(&state.path, &state.repair, io, blocks)?)
        })?;
        total.moved = total.moved.saturating_add(taken);
        if blocks.len() == before {
            if state.jobs.must_stop() {
                return Err(EINTR.into());
            }
            // Somebody has their range.
            fsleep(Delta::from_millis(1));
        }
    }
    Ok(())
}
