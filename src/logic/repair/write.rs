// SPDX-License-Identifier: GPL-2.0

//! Writing what can be written where it belongs, and moving the rest.

use super::{
    super::{
        bisect::{
            Bisect,
            Segment, //
        },
        classify::Operation,
        table::RunKind, //
    },
    step::{
        Error,
        Now,
        Step, //
    },
    Repair,
    Stage, //
};

impl<E: Error> Repair<E> {
    /// Begins with as many blocks as are placed at a time.
    pub(super) fn next_chunk(&mut self, now: Now) -> Step<E> {
        let done = self.chunk_end;
        if done >= self.bio.blocks {
            if self.placed {
                return self.commit();
            }
            return match self.bio.fua {
                true => self.ask(Stage::Flush, Step::Flush),
                false => self.end(Ok(())),
            };
        }
        if done != 0 && self.bio.operation == Operation::WriteZeroes {
            // There can be gigabytes of them. Each part has the time of a bio of its own.
            self.times.deadline = now.ms.saturating_add(self.allowance);
        }
        self.chunk_end = done.saturating_add(self.bio.part).min(self.bio.blocks);
        self.next_run()
    }

    /// Begins with a run, up to the first block that is noted as unreadable.
    pub(super) fn write_run(&mut self, now: Now, noted: Option<u32>) -> Step<E> {
        let run = &mut self.run;
        // With no slot left, main may take it.
        let takes = run.kind == RunKind::Main && now.slots_left;
        let noted = noted.filter(|noted| takes && *noted < run.count);
        // Up to there it is main's.
        run.count = match noted {
            Some(0) => 1,
            Some(before) => before,
            None => run.count,
        };
        let moves = match run.kind {
            RunKind::Main => noted == Some(0),
            RunKind::Pending { .. } | RunKind::Lost { .. } | RunKind::Avoided => true,
            // With no other slot left, these are better than none.
            RunKind::Failing { .. } => now.slots_left,
            RunKind::Slots { .. } | RunKind::Doubt => false,
        };
        if !moves {
            return self.search(now);
        }
        let whole = Segment {
            first: 0,
            count: self.run.count,
        };
        self.list_moves(Stage::Run, whole)
    }

    /// Lists a part of the run as blocks that have to move.
    pub(super) fn list_moves(&mut self, stage: Stage, part: Segment) -> Step<E> {
        let at = self.at.saturating_add(part.first);
        let count = part.count;
        self.listed = true;
        self.ask(stage, Step::ListMoves { at, count })
    }

    /// There is no time for the rest of a run.
    pub(super) fn end_late(&mut self, now: Now) -> Step<E> {
        if !self.is_on_main() || self.bio.operation == Operation::WriteZeroes {
            // The spare is slow, so that moving there would not be in time. Zeroes are many,
            // and nobody's data is lost with them.
            return self.end(Err(self.error));
        }
        self.list_rest(now)
    }

    /// Lists all that is not known to be good as blocks that have to move.
    pub(super) fn list_rest(&mut self, now: Now) -> Step<E> {
        match self.search.as_mut().and_then(Bisect::rest) {
            Some(rest) => self.list_moves(Stage::Rest, rest),
            None => self.end_run(now),
        }
    }

    /// What follows from a try, if it is known whether the spare is `gone` that it went to.
    pub(super) fn judge_write(&mut self, now: Now, good: bool, gone: bool) -> Step<E> {
        let innocent = self.innocent_error(Operation::Write);
        // What is gone is like a slot that failed: what is written goes elsewhere.
        if let Some(error) = innocent.filter(|_| !gone) {
            return self.end(Err(error));
        }
        if good {
            return match self.run.kind {
                RunKind::Failing { first } => {
                    let (first, count) = (first.saturating_add(self.part.first), self.part.count);
                    self.ask(Stage::Part { good }, Step::Mend { first, count })
                }
                _ => self.end_part(now, good),
            };
        }
        self.slow = self.took_long(now);
        self.slow_before |= self.slow;
        self.spare_slow |= self.slow && !self.is_on_main();
        if self.part.count != 1 {
            return self.end_part(now, good);
        }
        self.explained = true;
        match self.slot() {
            Some(slot) if self.fault.is_some() && innocent.is_none() => {
                self.ask(Stage::Part { good }, Step::CountFailedSlot { slot })
            }
            Some(_) => self.end_part(now, good),
            None => self.blame(now),
        }
    }

    /// Moves what was listed: `new` if some of it was served by main so far, and not known to be bad.
    pub(super) fn move_listed(&mut self, now: Now, new: bool) -> Step<E> {
        match new {
            false => self.place(),
            true if now.auto_remap => self.blame(now),
            true => self.end(Err(self.error)),
        }
    }

    /// Places what was listed.
    pub(super) fn place(&mut self) -> Step<E> {
        self.placed |= core::mem::take(&mut self.listed);
        self.ask(Stage::Place, Step::Place)
    }

    /// Commits what was placed.
    pub(super) fn commit(&mut self) -> Step<E> {
        self.placed = false;
        self.ask(Stage::Commit, Step::Commit)
    }

    /// What was placed is committed; if it is not `good`, some of it went to a spare that is lost.
    pub(super) fn committed(&mut self, now: Now, good: bool) -> Step<E> {
        match (self.status, good) {
            // It had come to its end before.
            (Err(error), _) => return self.end(Err(error)),
            (Ok(()), true) => self.served = self.chunk_end,
            (Ok(()), false) => {
                self.in_vain = true;
                self.at = self.served;
                self.chunk_end = self.served;
            }
        }
        self.next_chunk(now)
    }
}
