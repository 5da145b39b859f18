// SPDX-License-Identifier: GPL-2.0

//! The words in which the commit protocol and the driver talk.

use core::fmt;

use super::super::{
    errno::Errno,
    format::{
        BlockId,
        CopyId,
        Place, //
    }, //
};

/// Why a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The medium is bad there; the spare as such works.
    Media,
    /// The spare fails as a whole, while another one of the set works.
    Gone,
    /// Anything else, such as a spare that is offline: tells nothing about the place (P6).
    Other,
}

/// What goes into a block of the slot table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The entries as they are in the driver's memory right now, with this sequence. Only
    /// [`Metadata::commit`](super::Metadata::commit) asks for it.
    Current {
        /// The block's sequence.
        sequence: u64,
    },
    /// Unused entries only, with this sequence.
    Empty {
        /// The block's sequence.
        sequence: u64,
    },
    /// The good block of the other replica, byte by byte. The driver reads it there, and checks it;
    /// if it is not good, that is a [`Fault::Other`] of the write. Those of several blocks follow each other, too.
    Copy {
        /// Where the first one is.
        from: Place,
    },
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read a block of the slot table and check it ([`TableBlock::decode`]). A block that does not
    /// pass is reported as [`Fault::Media`], like one that can't be read.
    ///
    /// [`TableBlock::decode`]: super::super::format::table_block::TableBlock::decode
    CheckTable {
        /// The block.
        block: BlockId,
        /// Where it is.
        place: Place,
    },
    /// Write blocks of a slot table that follow each other, in the table and where they go, with one write. If that fails
    /// and there are several, any of them may be the reason.
    WriteTable {
        /// The first block.
        block: BlockId,
        /// How many, up to [`RUN_BLOCKS_MAX`](super::RUN_BLOCKS_MAX).
        count: u32,
        /// Where the first one goes.
        place: Place,
        /// What to write.
        content: Content,
        /// Whether they must be on the medium before the step is done.
        fua: bool,
        /// Whether they must be read back, too: there is no other copy, or the place was bad before. If one
        /// has something else or nothing, that is reported as [`Fault::Media`].
        verify: bool,
    },
    /// Write a superblock copy ([`Metadata::encode_superblock`]), FUA, and read it back: nobody else does before the
    /// next activation.
    ///
    /// [`Metadata::encode_superblock`]: super::Metadata::encode_superblock
    WriteSuper {
        /// The copy.
        copy: CopyId,
        /// Where to.
        place: Place,
    },
    /// Flush a spare.
    Flush {
        /// The number of the member.
        member: u8,
    },
    /// Nothing: this is how it ended.
    Done(Outcome),
}

impl Step {
    /// The member whose spare it goes to, if it goes to any.
    pub(super) fn member(&self) -> Option<u8> {
        match self {
            Step::CheckTable { place, .. }
            | Step::WriteTable { place, .. }
            | Step::WriteSuper { place, .. } => Some(place.member),
            Step::Flush { member } => Some(*member),
            Step::Done(_) => None,
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is durable in every copy that counts.
    Committed,
    /// It is not.
    Failed {
        /// Whether a write was issued that carries the caller's changes. If so they are in doubt
        /// (M6); if not they never happened, and the caller takes them back.
        issued: bool,
        /// What went wrong.
        why: Failure,
    },
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The spare failed, for reasons other than its medium. May succeed when tried again.
    Device,
    /// Metadata blocks are bad and there is no place left to move them to.
    NoPlace,
    /// Too few superblock copies can be written.
    NoSuperblock,
    /// The superblock forbids this version to write.
    ReadOnly,
    /// A counter is at its end.
    Exhausted,
    /// The blocks asked for are too many, or are not in use.
    Blocks,
    /// There are more spares than a set can have.
    TooMany,
    /// Somebody else has written the metadata.
    Foreign,
}

impl Failure {
    /// The error number for the user.
    pub fn errno(self) -> Errno {
        match self {
            Failure::Device | Failure::NoPlace | Failure::NoSuperblock => Errno::Io,
            Failure::ReadOnly => Errno::ReadOnly,
            Failure::Exhausted => Errno::NoSpace,
            Failure::Blocks => Errno::Invalid,
            Failure::TooMany => Errno::TooMany,
            Failure::Foreign => Errno::Foreign,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Device => "the spare does not take writes",
            Failure::NoPlace => "metadata blocks are bad and no reserve block is left",
            Failure::NoSuperblock => "too few superblock copies can be written",
            Failure::ReadOnly => "the spare uses features that this module can only read",
            Failure::Exhausted => "sequence numbers are exhausted",
            Failure::Blocks => "no such metadata blocks",
            Failure::TooMany => "the set has as many spares as there can be",
            Failure::Foreign => "somebody else has written the metadata",
        })
    }
}
