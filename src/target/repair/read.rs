// SPDX-License-Identifier: GPL-2.0

//! Reading what can be read.

use super::push;
use super::Repair;
use super::CHUNK_BLOCKS;
use crate::dm;
use crate::dm::BlkStatus;
use crate::logic::bisect::Bisect;
use crate::logic::bisect::Segment;
use crate::logic::classify::Operation;
use crate::logic::table::RunKind;
use kernel::sync::atomic::Relaxed;

impl Repair<'_> {
    /// Reads what can be read, and notes the rest as lost.
    pub(super) fn read(&mut self) -> dm::IoResult {
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
            let part = self.read_run(run.kind, main_block, at, run.count);
            status = status.and(part);
            at = at.saturating_add(run.count);
        }
        if !self.scratch.lost.is_empty() && !self.proof_of_life() {
            self.scratch.lost.clear();
        }
        status
    }

    fn read_run(&mut self, kind: RunKind, main_block: u64, at: u32, count: u32) -> dm::IoResult {
        let mut status = Ok(());
        let mut search = Bisect::new(count).ok_or(BlkStatus::INVAL)?;
        while let Some(part) = search.next_try() {
            let result = self.read_part(kind, main_block, at, part);
            let good = self.judge(Operation::Read, kind, result)?;
            if !good && part.count == 1 {
                self.note_lost(kind, main_block.saturating_add(u64::from(part.first)));
                status = status.and(result);
            }
            search.report(good);
        }
        status
    }

    /// Reads a part of a run that starts at block `at` of the bio. A single block is tried several
    /// times.
    fn read_part(
        &mut self,
        kind: RunKind,
        main_block: u64,
        at: u32,
        part: Segment,
    ) -> dm::IoResult {
        let (device, sector) = self.place(kind, main_block);
        let retries = match part.count {
            1 => self.bio.target().settings.read_retries,
            _ => 0,
        };
        let read = || {
            self.io.pool.read_slice(
                self.bio,
                self.bytes(at.saturating_add(part.first)),
                self.bytes(part.count),
                &device,
                sector.saturating_add(u64::from(self.state.sectors(part.first))),
            )
        };
        let mut result = read();
        for _ in 0..retries {
            if result.is_ok() {
                break;
            }
            result = read();
        }
        result
    }

    fn note_lost(&mut self, kind: RunKind, main_block: u64) {
        match kind {
            RunKind::Slots { .. } => self.state.counters.spare_read_errors.add(1),
            RunKind::Main if self.state.auto_remap.load(Relaxed) => {
                // What finds no room is found out again by the next read.
                let _ = push(&mut self.scratch.lost, main_block);
            }
            _ => (),
        }
    }
}
