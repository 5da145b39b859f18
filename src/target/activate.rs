// SPDX-License-Identifier: GPL-2.0

//! The first writes of an activation, before any bio is served.
//!
//! The order, and what a crash after each step finds:
//! 1. A new spare gets its superblocks, with no table block in use: a complete, empty spare.
//! 2. Replicas that differ are made equal (M3): the truth was chosen before, and is chosen again.
//! 3. Claims that lost against newer ones are freed (M5): they lose again.
//! 4. Superblock copies that miss something are written.
//! 5. The first slots are initialised, if there are none.
//!
//! A spare in good order is not written to at all (M4).

use super::io::SpareIo;
use super::load::Rewrite;
use super::names::Show;
use super::state::Locked;
use super::state::State;
use crate::dm;
use crate::logic::commit::COMMIT_BLOCKS_MAX;
use kernel::prelude::*;

/// What the constructor found that has to be done first.
pub(super) struct Start {
    /// The spare has no metadata.
    pub(super) format: bool,
    /// Replicas that differ.
    pub(super) rewrites: KVec<Rewrite>,
    /// Table blocks with claims that lost.
    pub(super) dirty: KVec<u32>,
}

/// Does what `locked.start` says, once.
pub(super) fn activate(state: &State, locked: &mut Locked, spare: &dm::Device) -> Result {
    let Locked {
        writer,
        block,
        start,
        ..
    } = locked;
    let mut io = SpareIo::new(state, spare, block);
    if let Some(todo) = start {
        if todo.format {
            writer.sync(state, &mut io)?;
            pr_info!("{}: formatted spare {}\n", state.name, Show(state.uuid));
        }
        for rewrite in &todo.rewrites {
            writer.equalise(state, &mut io, rewrite)?;
        }
        for blocks in todo.dirty.chunks(COMMIT_BLOCKS_MAX) {
            writer.commit_blocks(state, &mut io, blocks)?;
        }
        if !todo.rewrites.is_empty() || !todo.dirty.is_empty() {
            pr_info!(
                "{}: repaired {} metadata blocks\n",
                state.name,
                todo.rewrites.len().saturating_add(todo.dirty.len())
            );
        }
    }
    *start = None;
    if writer.metadata.is_unsettled() {
        writer.commit_blocks(state, &mut io, &[])?;
    }
    writer.refresh(state, &mut io)?;
    if writer.metadata.superblock().high_water == 0 {
        writer.extend(state, &mut io)?;
    }
    Ok(())
}

/// Writes down that everything is in order. If this fails, nothing is lost: the metadata is good
/// without it.
pub(super) fn deactivate(state: &State, locked: &mut Locked, spare: &dm::Device) {
    if !locked.writer.metadata.is_touched() {
        return;
    }
    let mut io = SpareIo::new(state, spare, &mut locked.block);
    let unsettled = locked.writer.metadata.is_unsettled();
    locked.writer.metadata.set_clean(!unsettled);
    let _ = locked.writer.sync(state, &mut io);
}
