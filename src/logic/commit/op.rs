// SPDX-License-Identifier: GPL-2.0

//! An operation under way: from the driver's last result to its next step.
//!
//! Whatever it is for, its [`job`](super::jobs) goes on only while all live superblock copies have what is known in
//! memory: before each of its steps there is a [`Pass`], if there has to be.

use super::{
    jobs::Job,
    metadata::copies::Event,
    step::{
        Failure,
        Fault,
        Outcome,
        Step, //
    },
    supers::Pass,
    Metadata, //
};

/// An operation under way. It borrows the metadata until it is done.
#[derive(Debug)]
pub struct Op<'a> {
    metadata: &'a mut Metadata,
    supers: Pass,
    job: Job<'a>,
    /// The step that the driver is at.
    at: Option<Step>,
    outcome: Option<Outcome>,
}

impl<'a> Op<'a> {
    /// Does a job. If it `needs_epoch`, it writes blocks with sequence numbers of its own. One that is not `legal` fails
    /// before anything is written.
    pub(super) fn new(
        metadata: &'a mut Metadata,
        job: Job<'a>,
        legal: bool,
        needs_epoch: bool,
    ) -> Self {
        let begun = match (legal, needs_epoch) {
            (false, _) => Err(Failure::Blocks),
            _ if metadata.foreign => Err(Failure::Foreign),
            _ if metadata.superblock.is_read_only() => Err(Failure::ReadOnly),
            (true, true) => metadata.own_epoch(),
            (true, false) => Ok(()),
        };
        let refused = |why| Outcome::Failed { issued: false, why };
        Self {
            metadata,
            supers: Pass::NONE,
            job,
            at: None,
            outcome: begun.err().map(refused),
        }
    }

    /// The metadata that is operated on.
    pub fn metadata(&self) -> &Metadata {
        self.metadata
    }

    /// Takes the result of the last step (of the first call, nothing) and tells the next one.
    /// After [`Step::Done`] it tells the same again.
    pub fn advance(&mut self, last: Result<(), Fault>) -> Step {
        if let Some(outcome) = self.outcome {
            return Step::Done(outcome);
        }
        let step = self.absorb(last).and_then(|()| self.next());
        match step {
            Ok(Some(step)) => {
                self.at = Some(step);
                step
            }
            Ok(None) => self.end(Outcome::Committed),
            Err(why) => self.fail(why),
        }
    }

    fn absorb(&mut self, last: Result<(), Fault>) -> Result<(), Failure> {
        let Some(step) = self.at.take() else {
            return Ok(());
        };
        match (step, last) {
            (_, Err(Fault::Other)) | (Step::Flush { .. }, Err(Fault::Media)) => {
                Err(Failure::Device)
            }
            (_, Err(Fault::Gone)) => self.go_without(step.member().ok_or(Failure::Device)?),
            (Step::WriteSuper { copy, .. }, _) => {
                self.supers.absorb(self.metadata, copy, last.is_ok())
            }
            _ => self.job.absorb(self.metadata, step, last.is_ok()),
        }
    }

    /// The next step; none if all is done.
    fn next(&mut self) -> Result<Option<Step>, Failure> {
        loop {
            if let Some(step) = self.supers.next(self.metadata)? {
                return Ok(Some(step));
            }
            let step = self.job.next(self.metadata)?;
            if step.is_some() || !self.metadata.stale {
                return Ok(step);
            }
        }
    }

    /// The spare of a member fails as a whole: go on without it (M9).
    fn go_without(&mut self, member: u8) -> Result<(), Failure> {
        self.metadata.note_all_copies(Event::Failed);
        self.job.go_without(self.metadata, member)?;
        self.supers.restart();
        Ok(())
    }

    fn fail(&mut self, why: Failure) -> Step {
        self.metadata.note_all_copies(Event::Failed);
        self.job.failed(self.metadata);
        self.end(Outcome::Failed {
            issued: self.job.is_issued(),
            why,
        })
    }

    fn end(&mut self, outcome: Outcome) -> Step {
        if outcome == Outcome::Committed {
            self.job.succeeded(self.metadata);
        }
        self.outcome = Some(outcome);
        Step::Done(outcome)
    }
}
