// SPDX-License-Identifier: GPL-2.0

//! Why a spare is not activated.

use core::fmt;

use super::super::errno::Errno;
use super::super::format::FormatError;
use super::super::text::MainId;
use super::super::text::Uuid;
use super::Expected;

/// Why a spare is not activated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// No superblock copy is usable; this is what is wrong with the most telling one.
    Superblock {
        /// The copy.
        copy: u8,
        /// What is wrong with it.
        error: FormatError,
    },
    /// Superblock copies can't be read and no other one is ours: can't tell what the spare is.
    SuperblockUnreadable {
        /// The first such copy.
        copy: u8,
    },
    /// Superblock copies of different spares.
    MixedSpares,
    /// Two copies with the same sequence say different things.
    SuperblockContradiction {
        /// The later of the two.
        copy: u8,
    },
    /// The table has blocks from an epoch that the superblock does not know of.
    SuperblockStale {
        /// A block of the slot table that is newer.
        block: u32,
    },
    /// No replica has a usable copy of a block of the slot table.
    TableBlock {
        /// The block.
        block: u32,
        /// What is wrong with one of the copies; none if no copy could be read.
        error: Option<FormatError>,
    },
    /// Two replicas have the same sequence and different content.
    TableContradiction {
        /// The block.
        block: u32,
    },
    /// An entry names a block that main does not have.
    OutOfRange {
        /// The slot.
        slot: u32,
        /// The main block that it claims.
        main_block: u64,
    },
    /// Two slots claim one main block with the same right.
    Unresolvable {
        /// The main block.
        main_block: u64,
    },
    /// The table line names another spare.
    WrongUuid {
        /// What the spare says.
        found: Uuid,
    },
    /// The spare holds the remaps of a main device that the table line calls otherwise.
    OtherMainId {
        /// What it was called.
        was: MainId,
    },
    /// The spare holds the remaps of a larger main device.
    OtherMainSize {
        /// Its size in sectors.
        was: u64,
    },
    /// Main's logical block is not what it was.
    MainBlockSize {
        /// What it was, in bytes.
        was: u32,
    },
    /// The window is smaller than what was formatted.
    Shrunk {
        /// The formatted size in sectors.
        formatted: u64,
    },
    /// One of several spares, which this version can't combine.
    Incomplete {
        /// How many spares the set has.
        members: u16,
    },
}

impl LoadError {
    /// The error number for the user.
    pub fn errno(&self) -> Errno {
        match self {
            LoadError::Superblock { error, .. } => error.errno(),
            LoadError::SuperblockUnreadable { .. } => Errno::Io,
            LoadError::TableBlock { error, .. } => error.map_or(Errno::Io, |e| e.errno()),
            LoadError::SuperblockContradiction { .. }
            | LoadError::SuperblockStale { .. }
            | LoadError::TableContradiction { .. }
            | LoadError::OutOfRange { .. }
            | LoadError::Unresolvable { .. } => Errno::Damaged,
            LoadError::MixedSpares
            | LoadError::WrongUuid { .. }
            | LoadError::OtherMainId { .. }
            | LoadError::OtherMainSize { .. } => Errno::WrongDevice,
            LoadError::MainBlockSize { .. } | LoadError::Incomplete { .. } => Errno::NotSupported,
            LoadError::Shrunk { .. } => Errno::NoSpace,
        }
    }

    /// The error in words, with both sides of it where the spare and `expected` disagree.
    pub fn against<'a>(&'a self, expected: &'a Expected<'a>) -> Disagreement<'a> {
        Disagreement {
            error: self,
            expected,
        }
    }
}

/// An error and what the spare was held against. An error alone only has the spare's side: two names
/// of main are much for a kernel's stack.
pub struct Disagreement<'a> {
    error: &'a LoadError,
    expected: &'a Expected<'a>,
}

impl fmt::Display for Disagreement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        let expected = self.expected;
        match self.error {
            LoadError::WrongUuid { .. } => match expected.uuid {
                Some(uuid) => write!(f, ": {uuid}"),
                None => Ok(()),
            },
            LoadError::OtherMainId { .. } => match expected.main_id {
                Some(id) => write!(f, ", this one is {}", id.as_str()),
                None => Ok(()),
            },
            LoadError::OtherMainSize { .. } => {
                write!(f, ", this one has {}", expected.main_sectors)
            }
            LoadError::MainBlockSize { .. } => {
                write!(f, ": {}", expected.main_block_bytes)
            }
            LoadError::Shrunk { .. } => write!(f, ": {}", expected.window_sectors),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Superblock { copy, error } => {
                write!(f, "superblock copy {copy}: {error}")
            }
            LoadError::SuperblockUnreadable { copy } => {
                write!(
                    f,
                    "superblock copy {copy}: unreadable, and no other is usable"
                )
            }
            LoadError::MixedSpares => f.write_str("superblock copies of different spares"),
            LoadError::SuperblockContradiction { copy } => {
                write!(
                    f,
                    "superblock copy {copy}: contradicts another of the same age"
                )
            }
            LoadError::SuperblockStale { block } => {
                write!(f, "superblock is older than table block {block}")
            }
            LoadError::TableBlock { block, error } => {
                write!(f, "table block {block}: bad in every replica: ")?;
                match error {
                    Some(error) => error.fmt(f),
                    None => f.write_str("unreadable"),
                }
            }
            LoadError::TableContradiction { block } => {
                write!(
                    f,
                    "table block {block}: replicas of the same age contradict each other"
                )
            }
            LoadError::OutOfRange { slot, main_block } => {
                write!(
                    f,
                    "slot {slot} claims block {main_block}, which main does not have"
                )
            }
            LoadError::Unresolvable { main_block } => {
                write!(
                    f,
                    "two slots claim block {main_block} of main with the same right"
                )
            }
            LoadError::WrongUuid { found } => {
                write!(f, "spare is {found}, not the one that was named")
            }
            LoadError::OtherMainId { was } => {
                write!(f, "spare belongs to the main device {}", was.as_str())
            }
            LoadError::OtherMainSize { was } => {
                write!(f, "spare belongs to a main device of {was} sectors")
            }
            LoadError::MainBlockSize { was } => {
                write!(
                    f,
                    "main had logical blocks of {was} bytes and has others now"
                )
            }
            LoadError::Shrunk { formatted } => {
                write!(
                    f,
                    "spare is smaller than the {formatted} sectors it was formatted with"
                )
            }
            LoadError::Incomplete { members } => {
                write!(f, "spare is one of a set of {members}")
            }
        }
    }
}
