// SPDX-License-Identifier: GPL-2.0

//! Reading what can be read.

use kernel::sync::atomic::Relaxed;

use crate::{
    abstractions::{
        block::{
            self,
            BlkStatus, //
        },
        util, //
    },
    logic::{
        bisect::{
            Bisect,
            Segment, //
        },
        classify::Operation,
        limit::Limit,
        table::RunKind, //
    },
    remap::repair::relocate::{
        push,
        ListedBlock,
        SLOW_MS, //
    }, //
};

use super::{
    Repair,
    CHUNK_BLOCKS,
    READ, //
};

impl Repair<'_> {
    /// Reads what can be read, and notes the rest as lost.
    pub(super) fn read(&mut self) -> block::IoResult {
        let mut status = Ok(());
        let mut at = 0;
        while at < self.blocks() {
            let main_block = self.first().saturating_add(u64::from(at));
            let left = self.blocks().saturating_sub(at).min(CHUNK_BLOCKS);
            let run = self.state.run(main_block, left);
            if matches!(run.kind, RunKind::Doubt) {
                self.settle(main_block)?;
                continue;
            }
            let part = match run.kind {
                // Its spare was given up.
                RunKind::Lost { .. } => Err(BlkStatus::IOERR),
                kind => self.read_run(kind, main_block, at, run.count),
            };
            status = status.and(part);
            let hopeless = self.verdicts.get(READ) == Some(&Some(false));
            if status.is_err() && (hopeless || self.is_late()) {
                // It is not the medium, or there is no time.
                break;
            }
            at = at.saturating_add(run.count);
        }
        status
    }

    fn read_run(&mut self, kind: RunKind, main_block: u64, at: u32, count: u32) -> block::IoResult {
        let mut status = Ok(());
        let mut search = Bisect::new(count).ok_or(BlkStatus::INVAL)?;
        while let Some(part) = search.next_try() {
            if self.is_late() {
                return Err(self.error_for_bio());
            }
            let begun = util::monotonic_ms();
            let result = self.read_part(kind, main_block, at, part);
            let mut good = self.judge(Operation::Read, kind, begun, result)?;
            let slow = util::monotonic_ms().saturating_sub(begun) > SLOW_MS;
            if !good && part.count == 1 {
                let served_by_main =
                    !matches!(kind, RunKind::Slots { .. } | RunKind::Failing { .. });
                if served_by_main && !self.blames_medium(READ) {
                    return result;
                }
                good = self.read_again(kind, main_block, at, part)?;
                let block = ListedBlock::new(at.saturating_add(part.first));
                if good {
                    self.note_weak(kind, block);
                } else {
                    self.note_lost(kind, block);
                    status = status.and(result);
                }
            }
            if !good && slow {
                search.one_by_one();
            }
            search.report(good);
        }
        status
    }

    /// Tries again to read a block that has failed by itself.
    fn read_again(
        &mut self,
        kind: RunKind,
        main_block: u64,
        at: u32,
        block: Segment,
    ) -> Result<bool, BlkStatus> {
        for _ in 0..self.state.limits.get(Limit::ReadRetries) {
            if self.is_late() {
                break;
            }
            let begun = util::monotonic_ms();
            let result = self.read_part(kind, main_block, at, block);
            if self.judge(Operation::Read, kind, begun, result)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tries to read a part of a run that starts at block `at` of the bio.
    fn read_part(&self, kind: RunKind, main_block: u64, at: u32, part: Segment) -> block::IoResult {
        let (_, device, sector) = self.place(kind, main_block, false)?;
        self.state.pool.read_slice(
            self.bio,
            self.source()
                .offset(self.state, at.saturating_add(part.first)),
            self.state.bytes(part.count),
            device,
            sector.saturating_add(u64::from(self.state.sectors(part.first))),
        )
    }

    fn note_lost(&mut self, kind: RunKind, block: ListedBlock) {
        match kind {
            RunKind::Slots { .. } | RunKind::Failing { .. } => {
                self.state.counters.spare_read_errors.add(1);
                // What finds no room is found out again by the next read.
                let _ = push(&mut self.lists.unreadable, block.mark_if(true));
            }
            RunKind::Main if self.state.auto_remap.load(Relaxed) => {
                // The same.
                let _ = push(&mut self.lists.unreadable, block);
            }
            _ => (),
        }
    }

    fn note_weak(&mut self, kind: RunKind, block: ListedBlock) {
        match kind {
            RunKind::Main | RunKind::Pending { .. } if self.state.auto_remap.load(Relaxed) => {
                // The same.
                let _ = push(&mut self.lists.weak, block);
            }
            _ => (),
        }
    }
}
