// SPDX-License-Identifier: GPL-2.0

//! Ranges of main that nobody writes to or repairs, for as long as their blocks are moved (E3, E5).
//!
//! The order: the ranges at the desk, so that no repairer has them; the gate, so that no further write
//! enters them; then those that are under way are waited for. Only for who has the mover's lock, as there
//! is one gate. It is opened, and the ranges given back, when the value is dropped, and what came to the
//! gate meanwhile is served then.

use kernel::{
    prelude::*,
    sync::CondVarTimeoutResult,
    time::msecs_to_jiffies, //
};

use crate::{
    abstractions::util,
    logic::{
        desk::Range,
        message::Blocks, //
    },
    remap::{
        path::{
            size::BlockSize,
            state::PathState, //
        },
        repair::{
            crew,
            state::RepairState, //
        }, //
    }, //
};

use super::state::JobsState;

/// How long users' writes are waited for at first, in milliseconds, while the gate is closed.
const DRAIN_MS: u64 = 200;

/// How long is waited for repairers before the time is looked at, in milliseconds.
const LOOK_MS: u64 = 1000;

/// Keeps writes and repairers out of a range while it exists, and has waited for those that were in
/// it. Only for who has the mover's lock.
pub(in crate::remap) struct Closed<'a> {
    path: &'a PathState,
    repair: &'a RepairState,
}

impl<'a> Closed<'a> {
    /// Waits for repairers and for users' writes. Not for the worker. Fails with [`EINTR`] if the
    /// caller is interrupted.
    pub(in crate::remap) fn wait(
        path: &'a PathState,
        repair: &'a RepairState,
        jobs: &JobsState,
        blocks: &[Blocks],
    ) -> Result<Self> {
        let closed = Self { path, repair };
        closed.take_ranges(jobs, blocks)?;
        // Users' writes anywhere on the device are waited for, and some may be slow. What comes to the
        // gate meanwhile must not be.
        let mut patience = DRAIN_MS;
        loop {
            closed.gate(blocks);
            if path.readers().synchronize_within(patience) {
                return Ok(closed);
            }
            path.gate.open();
            // Those that came to the gate have the range now, and are done when we have it again.
            repair.desk.lock().move_end();
            crew::dispatch(repair);
            if jobs.must_stop() {
                return Err(EINTR);
            }
            closed.take_ranges(jobs, blocks)?;
            patience = patience.saturating_mul(2);
        }
    }

    /// Waits until no repairer has the ranges. Of several, those that are free are given back now and then, as repairs
    /// there wait meanwhile. Fails with [`EINTR`] if the caller is interrupted.
    fn take_ranges(&self, jobs: &JobsState, blocks: &[Blocks]) -> Result {
        let Self { path, repair } = *self;
        let mut patience = match blocks {
            [_] => u64::MAX,
            _ => DRAIN_MS,
        };
        loop {
            let begun = util::monotonic_ms();
            let mut desk = repair.desk.lock();
            desk.move_begin(ranges(path.size, blocks));
            while !desk.move_clear() {
                let waited = util::monotonic_ms().saturating_sub(begun);
                let left = patience.saturating_sub(waited).min(LOOK_MS) as u32;
                if left == 0 {
                    break;
                }
                let woken = (repair.desk_changed)
                    .wait_interruptible_timeout(&mut desk, msecs_to_jiffies(left));
                if matches!(woken, CondVarTimeoutResult::Signal { .. }) {
                    return Err(EINTR);
                }
            }
            if desk.move_clear() {
                return Ok(());
            }
            desk.move_end();
            drop(desk);
            crew::dispatch(repair);
            if jobs.must_stop() {
                return Err(EINTR);
            }
            patience = patience.saturating_mul(2);
        }
    }

    /// Gives up if a repairer has the range, or if users' writes take longer than `milliseconds`.
    pub(in crate::remap) fn attempt(
        path: &'a PathState,
        repair: &'a RepairState,
        blocks: Blocks,
        milliseconds: u64,
    ) -> Option<Self> {
        let closed = Self::begin(path, repair, &[blocks])?;
        closed.drain(&[blocks], milliseconds).then_some(closed)
    }

    /// Takes the ranges, and gives up if a repairer has one of them. The gate is still open.
    pub(super) fn begin(
        path: &'a PathState,
        repair: &'a RepairState,
        blocks: &[Blocks],
    ) -> Option<Self> {
        let mut desk = repair.desk.lock();
        desk.move_begin(ranges(path.size, blocks));
        if !desk.move_clear() {
            desk.move_end();
            drop(desk);
            // Somebody may have come to the desk meanwhile.
            crew::dispatch(repair);
            return None;
        }
        Some(Self { path, repair })
    }

    /// Closes the gate, and waits for users' writes. False if these take longer than `milliseconds`.
    pub(super) fn drain(&self, blocks: &[Blocks], milliseconds: u64) -> bool {
        self.gate(blocks);
        self.path.readers().synchronize_within(milliseconds)
    }

    fn gate(&self, blocks: &[Blocks]) {
        let path = self.path;
        let sectors = |blocks: &Blocks| {
            let count = blocks.count << path.size.shift;
            (path.size.sector_of(blocks.first), count)
        };
        path.gate.close(blocks.iter().map(sectors));
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.path.gate.open();
        self.repair.desk.lock().move_end();
        // What came to the gate meanwhile waits for the range.
        crew::dispatch(self.repair);
    }
}

/// The range at the desk that blocks are in.
pub(in crate::remap) fn range(size: BlockSize, blocks: Blocks) -> Range {
    // Parts are small.
    let sectors = u32::try_from(blocks.count << size.shift).unwrap_or(u32::MAX);
    Range::new(size.sector_of(blocks.first), sectors)
}

fn ranges<'a>(size: BlockSize, blocks: &'a [Blocks]) -> impl Iterator<Item = Range> + 'a {
    blocks.iter().map(move |blocks| range(size, *blocks))
}
