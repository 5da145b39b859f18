// SPDX-License-Identifier: GPL-2.0

//! Reading what can be read.

use super::{
    super::{
        classify::Operation,
        table::RunKind, //
    },
    step::{
        Error,
        Now,
        Step, //
    },
    Again,
    Repair,
    Stage, //
};

impl<E: Error> Repair<E> {
    pub(super) fn read_run(&mut self, now: Now) -> Step<E> {
        self.run_status = Ok(());
        self.again = None;
        match self.run.kind {
            // Its spare was given up.
            RunKind::Lost { .. } => {
                self.run_status = Err(E::IO);
                self.end_run(now)
            }
            RunKind::Avoided => {
                self.run_status = Err(E::MEDIUM);
                self.end_run(now)
            }
            _ => self.search(now),
        }
    }

    /// What follows from a try.
    pub(super) fn judge_read(&mut self, now: Now, good: bool) -> Step<E> {
        if let Some(error) = self.innocent_error(Operation::Read) {
            self.run_status = Err(error);
            return self.end_run(now);
        }
        if self.again.is_some() {
            return match good {
                true => self.end_block(now, good),
                false => self.read_again(now),
            };
        }
        self.slow = self.took_long(now);
        if good || self.part.count != 1 {
            return self.end_part(now, good);
        }
        match self.slot() {
            Some(_) => self.read_again(now),
            None => self.blame(now),
        }
    }

    /// Tries again to read a block that has failed by itself.
    pub(super) fn read_again(&mut self, now: Now) -> Step<E> {
        let late = self.is_late(now);
        let again = self.again.get_or_insert(Again {
            left: now.read_retries,
            error: self.fault.unwrap_or(self.error),
        });
        match again.left.checked_sub(1) {
            Some(left) if !late => {
                again.left = left;
                self.try_part(now)
            }
            _ => self.end_block(now, false),
        }
    }

    /// Whether a block that has failed by itself could be read in the end.
    fn end_block(&mut self, now: Now, good: bool) -> Step<E> {
        let at = self.at.saturating_add(self.part.first);
        if let (Some(again), false) = (self.again.take(), good) {
            self.run_status = self.run_status.and(Err(again.error));
        }
        let from_slot = self.slot().is_some();
        let step = match (good, self.run.kind) {
            (true, RunKind::Main | RunKind::Pending { .. }) if now.auto_remap => {
                Step::ListWeak { at }
            }
            (false, _) if from_slot => Step::ListUnreadable { at, from_slot },
            (false, RunKind::Main) if now.auto_remap => Step::ListUnreadable { at, from_slot },
            _ => return self.end_part(now, good),
        };
        self.ask(Stage::Part { good }, step)
    }
}
