// SPDX-License-Identifier: GPL-2.0

//! Replies to messages, and the reasons of those that are refused.

use core::fmt::{
    self,
    Write, //
};

use kernel::prelude::*;

use crate::{
    abstractions::dm,
    logic::{
        errno::Errno,
        message::{
            reply::{
                Done,
                Stopped,
                Tally,
                Work, //
            },
            Denial, //
        }, //
    },
    remap::DmRemap, //
};

/// How a message ends.
pub(super) type Heard<'a> = Result<(), Denial<'a>>;

impl From<Error> for Denial<'_> {
    fn from(error: Error) -> Self {
        Denial::Failed {
            errno: error.to_errno().saturating_neg(),
            done: None,
            at: None,
        }
    }
}

/// A reply, of one or several lines.
pub(super) struct Answer<'a, 'b>(pub(super) &'a mut dm::ReplyBuffer<'b>);

impl Answer<'_, '_> {
    /// Adds a line.
    pub(super) fn line(&mut self, text: fmt::Arguments<'_>) {
        let separator = if self.0.is_empty() { "" } else { "\n" };
        // Writing to the buffer does not fail.
        let _ = write!(self.0, "{separator}{text}");
    }

    /// How many bytes can be added so that the caller gets them.
    pub(super) fn room(&self) -> usize {
        self.0.room()
    }

    /// Whether there is no line so far.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells how a long message ended. One that had to stop tells what it did (E8); so does one that failed, with the
    /// reason. `next` is the first sector that is not done, if the message is about a range.
    pub(super) fn conclude<'d>(
        &mut self,
        (work, tally): (Work, Tally),
        next: Option<u64>,
        result: Heard<'d>,
    ) -> Heard<'d> {
        let done = Done(work, tally);
        match result {
            Ok(()) => self.line(format_args!("{done}")),
            Err(Denial::Failed { errno, .. }) if errno == -EINTR.to_errno() => {
                self.line(format_args!("{done}"));
                self.line(format_args!("{}", Stopped { next }));
            }
            Err(Denial::Failed { errno, .. }) if errno == -ENOSPC.to_errno() => {
                return Err(Denial::Full { done: Some(done) });
            }
            Err(Denial::Failed { errno, .. }) => {
                return Err(Denial::Failed {
                    errno,
                    done: Some(done),
                    at: next,
                });
            }
            denied => return denied,
        }
        Ok(())
    }
}

/// The reason that the state of the device gives for a failure, if there is one that says more than the errno.
pub(super) fn explain<'a>(target: &DmRemap, ti: &dm::TargetInfo, denial: Denial<'a>) -> Denial<'a> {
    let Denial::Failed { errno, .. } = denial else {
        return denial;
    };
    let is = |error: Error| errno == error.to_errno().saturating_neg();
    if ti.is_read_only() && is(EROFS) {
        return Denial::ReadOnlyTable;
    }
    let locked = target.state.meta.writer.lock();
    match () {
        () if errno == Errno::Foreign.number() && locked.writer.metadata.is_foreign() => {
            Denial::Foreign
        }
        () if is(EBUSY) && !locked.writer.active => Denial::Suspended,
        () if is(EBUSY) && locked.writer.is_taking_over() => Denial::TakingOver,
        () => denial,
    }
}
