// SPDX-License-Identifier: GPL-2.0

//! Does an error suspect the medium, or is it passed up? (E2, P6)
//!
//! Only media errors cause remaps. The block layer has no honest name for them: drives report
//! failed writes and ATA faults as plain I/O errors or as errors of the target, so these are
//! suspects, too, and what becomes of a suspect is decided by trying each block by itself.

/// The status of a finished bio, named as in the kernel (`BLK_STS_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the block layer's own.
pub enum Status {
    Ok,
    NotSupp,
    Timeout,
    NoSpc,
    Transport,
    Target,
    ResvConflict,
    Medium,
    Protection,
    Resource,
    IoErr,
    DmRequeue,
    Again,
    DevResource,
    ZoneOpenResource,
    ZoneActiveResource,
    Offline,
    DurationLimit,
    Inval,
    /// One that this list does not know.
    Other,
}

/// What the bio wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the block layer's own.
pub enum Operation {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    /// Anything else.
    Other,
}

/// What to do with a finished bio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing went wrong.
    Done,
    /// Hand the error to whoever sent the bio, unchanged.
    PassUp,
    /// The medium may be at fault: try every block by itself.
    Suspect,
    /// A failed flush: try it once more, then latch the failure (E6).
    RetryFlush,
}

/// What to do with a bio that finished with `status`. A failed read-ahead never costs a remap:
/// whoever needs the data will ask again.
#[inline]
pub fn classify(operation: Operation, status: Status, read_ahead: bool) -> Verdict {
    if status == Status::Ok {
        return Verdict::Done;
    }
    match (operation, status) {
        (Operation::Read, Status::Medium | Status::IoErr | Status::Target) => {
            if read_ahead {
                Verdict::PassUp
            } else {
                Verdict::Suspect
            }
        }
        (Operation::Write, Status::Medium | Status::IoErr | Status::Target) => Verdict::Suspect,
        // Writing zeroes is writing: the blocks can be moved and be zero there. Those drives that
        // can't do it say NotSupp or Target, and the block layer then writes plain zeroes.
        (Operation::WriteZeroes, Status::Medium | Status::IoErr) => Verdict::Suspect,
        // A drive that stays away, or says that it can't, will say it again.
        (
            Operation::Flush,
            Status::Medium | Status::IoErr | Status::Target | Status::Timeout | Status::Resource,
        ) => Verdict::RetryFlush,
        _ => Verdict::PassUp,
    }
}

#[cfg(test)]
mod tests {
    use super::classify;
    use super::Operation;
    use super::Operation::*;
    use super::Status;
    use super::Verdict;
    use super::Verdict::*;

    const OPERATIONS: [Operation; 6] = [Read, Write, Flush, Discard, WriteZeroes, Operation::Other];

    /// One row for each status, one column for each operation above.
    const ROWS: [(Status, [Verdict; 6]); 20] = [
        (Status::Ok, [Done, Done, Done, Done, Done, Done]),
        (Status::NotSupp, [PassUp; 6]),
        (
            Status::Timeout,
            [PassUp, PassUp, RetryFlush, PassUp, PassUp, PassUp],
        ),
        (Status::NoSpc, [PassUp; 6]),
        (Status::Transport, [PassUp; 6]),
        (
            Status::Target,
            [Suspect, Suspect, RetryFlush, PassUp, PassUp, PassUp],
        ),
        (Status::ResvConflict, [PassUp; 6]),
        (
            Status::Medium,
            [Suspect, Suspect, RetryFlush, PassUp, Suspect, PassUp],
        ),
        (Status::Protection, [PassUp; 6]),
        (
            Status::Resource,
            [PassUp, PassUp, RetryFlush, PassUp, PassUp, PassUp],
        ),
        (
            Status::IoErr,
            [Suspect, Suspect, RetryFlush, PassUp, Suspect, PassUp],
        ),
        (Status::DmRequeue, [PassUp; 6]),
        (Status::Again, [PassUp; 6]),
        (Status::DevResource, [PassUp; 6]),
        (Status::ZoneOpenResource, [PassUp; 6]),
        (Status::ZoneActiveResource, [PassUp; 6]),
        (Status::Offline, [PassUp; 6]),
        (Status::DurationLimit, [PassUp; 6]),
        (Status::Inval, [PassUp; 6]),
        (Status::Other, [PassUp; 6]),
    ];

    #[test]
    fn every_row() {
        for (status, verdicts) in ROWS {
            for (operation, verdict) in OPERATIONS.into_iter().zip(verdicts) {
                let found = classify(operation, status, false);
                assert_eq!(found, verdict, "{operation:?} {status:?}");
            }
        }
    }

    #[test]
    fn read_ahead_never_suspects() {
        for (status, _) in ROWS {
            assert_ne!(classify(Read, status, true), Suspect, "{status:?}");
        }
    }
}
