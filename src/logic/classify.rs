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
    /// A failed flush: what the cache held may be lost, so remember it (E6).
    Latch,
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
        // Whatever the reason is: what the cache holds is not durable. Only one that was not tried is
        // as if it had not been sent.
        (Operation::Flush, Status::Again | Status::DmRequeue) => Verdict::PassUp,
        (Operation::Flush, _) => Verdict::Latch,
        _ => Verdict::PassUp,
    }
}

/// Whether an error tells of the device, or the way to it, rather than of what was asked for: if nothing else
/// comes back, the device is gone.
#[inline]
pub const fn tells_of_device(status: Status) -> bool {
    matches!(
        status,
        Status::Timeout
            | Status::Transport
            | Status::Target
            | Status::ResvConflict
            | Status::Medium
            | Status::IoErr
            | Status::Offline
    )
}

/// Whether a spare that answers a write with `status`, again and again, takes none, while what it has can be read:
/// others have to do without it. One that lacks memory for a moment, or does not know an operation, is used.
#[inline]
pub const fn refuses(status: Status) -> bool {
    tells_of_device(status) || matches!(status, Status::NoSpc)
}

/// Whether an I/O that ended with `status` may have reached the medium, or the disk's cache. If not, it
/// was refused on its way.
#[inline]
pub const fn may_have_begun(status: Status) -> bool {
    !matches!(
        status,
        Status::NotSupp
            | Status::NoSpc
            | Status::ResvConflict
            | Status::Resource
            | Status::DmRequeue
            | Status::Again
            | Status::DevResource
            | Status::ZoneOpenResource
            | Status::ZoneActiveResource
            | Status::Inval
    )
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{
        classify,
        may_have_begun,
        Operation::{
            self,
            *, //
        },
        Status,
        Verdict::{
            self,
            *, //
        }, //
    };

    const OPERATIONS: [Operation; 6] = [Read, Write, Flush, Discard, WriteZeroes, Operation::Other];

    /// One row for each status, one column for each operation above.
    const ROWS: [(Status, [Verdict; 6]); 20] = [
        (Status::Ok, [Done, Done, Done, Done, Done, Done]),
        (Status::NotSupp, ONLY_FLUSH),
        (Status::Timeout, ONLY_FLUSH),
        (Status::NoSpc, ONLY_FLUSH),
        (Status::Transport, ONLY_FLUSH),
        (
            Status::Target,
            [Suspect, Suspect, Latch, PassUp, PassUp, PassUp],
        ),
        (Status::ResvConflict, ONLY_FLUSH),
        (
            Status::Medium,
            [Suspect, Suspect, Latch, PassUp, Suspect, PassUp],
        ),
        (Status::Protection, ONLY_FLUSH),
        (Status::Resource, ONLY_FLUSH),
        (
            Status::IoErr,
            [Suspect, Suspect, Latch, PassUp, Suspect, PassUp],
        ),
        (Status::DmRequeue, [PassUp; 6]),
        (Status::Again, [PassUp; 6]),
        (Status::DevResource, ONLY_FLUSH),
        (Status::ZoneOpenResource, ONLY_FLUSH),
        (Status::ZoneActiveResource, ONLY_FLUSH),
        (Status::Offline, ONLY_FLUSH),
        (Status::DurationLimit, ONLY_FLUSH),
        (Status::Inval, ONLY_FLUSH),
        (Status::Other, ONLY_FLUSH),
    ];

    /// Nobody's business but of those who flush.
    const ONLY_FLUSH: [Verdict; 6] = [PassUp, PassUp, Latch, PassUp, PassUp, PassUp];

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
    fn what_is_refused_has_not_begun() {
        let begun: Vec<Status> = ROWS
            .iter()
            .map(|(status, _)| *status)
            .filter(|status| may_have_begun(*status))
            .collect();
        let expected = [
            Status::Ok,
            Status::Timeout,
            Status::Transport,
            Status::Target,
            Status::Medium,
            Status::Protection,
            Status::IoErr,
            Status::Offline,
            Status::DurationLimit,
            Status::Other,
        ];
        assert_eq!(begun, expected);
    }

    #[test]
    fn read_ahead_never_suspects() {
        for (status, _) in ROWS {
            assert_ne!(classify(Read, status, true), Suspect, "{status:?}");
        }
    }
}
