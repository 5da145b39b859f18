// SPDX-License-Identifier: GPL-2.0

//! What users are told of what was done: in the reply, or with the reason if it could not be done to the end.

use core::fmt;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// `remap`.
    Remap,
    /// `remove_remap`.
    RemoveRemap,
    /// `clear_all`.
    ClearAll,
    /// `add_remap`.
    AddRemap,
    /// `evacuate`.
    Evacuate,
    /// `forget_spare`.
    ForgetSpare,
    /// `zero`; what is given up counts as unreadable.
    Zero,
    /// `retry`.
    Retry,
    /// `recheck`.
    Recheck,
}

/// What became of the blocks of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those for which it was done.
    pub moved: u64,
    /// Those for which there was nothing to do.
    pub there: u64,
    /// Those that could not be read, or that main could not take back.
    pub failed: u64,
}

/// What was done, and with how many blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done(pub Work, pub Tally);

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            moved,
            there,
            failed,
        } = self.1;
        match self.0 {
            Work::Remap => write!(
                f,
                "{moved} blocks remapped, {there} remapped before, {failed} unreadable"
            ),
            Work::RemoveRemap => write!(
                f,
                "{moved} blocks moved back, {there} not remapped, {failed} unreadable"
            ),
            Work::ClearAll => {
                write!(f, "{moved} blocks moved back, {failed} stay on the spare")
            }
            Work::AddRemap => write!(f, "{moved} blocks redirected"),
            Work::Evacuate => {
                write!(f, "{moved} blocks moved to other spares, {failed} stay")
            }
            Work::ForgetSpare => {
                write!(f, "{moved} blocks are lost until they are written")
            }
            Work::Zero => write!(
                f,
                "{failed} blocks given up, {moved} copied, {there} left alone"
            ),
            Work::Retry => write!(
                f,
                "{moved} blocks can be read again, {failed} still cannot, {there} are served by a spare"
            ),
            Work::Recheck => write!(
                f,
                "{} copies read, {failed} damaged or old, {moved} written again",
                there
            ),
        }
    }
}

/// Why a long message ended before it was done to the end. What was done stays done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The first sector of the range that is not done, if it has one.
    pub next: Option<u64>,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped by a suspend or a signal: ")?;
        match self.next {
            Some(next) => write!(f, "next={next}"),
            None => f.write_str("send it again to go on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{
        Done,
        Stopped,
        Tally,
        Work, //
    };

    /// Scripts read these.
    #[test]
    fn replies_that_users_know() {
        let tally = Tally {
            moved: 5,
            there: 2,
            failed: 1,
        };
        for (work, says) in [
            (
                Work::Remap,
                "5 blocks remapped, 2 remapped before, 1 unreadable",
            ),
            (
                Work::RemoveRemap,
                "5 blocks moved back, 2 not remapped, 1 unreadable",
            ),
            (Work::ClearAll, "5 blocks moved back, 1 stay on the spare"),
            (Work::Evacuate, "5 blocks moved to other spares, 1 stay"),
            (Work::AddRemap, "5 blocks redirected"),
            (Work::Zero, "1 blocks given up, 5 copied, 2 left alone"),
        ] {
            assert_eq!(Done(work, tally).to_string(), says);
        }
    }

    #[test]
    fn where_to_go_on() {
        let next = Stopped { next: Some(4096) };
        assert!(next.to_string().ends_with(": next=4096"));
        let again = Stopped { next: None };
        assert!(again.to_string().ends_with("send it again to go on"));
    }
}
