// SPDX-License-Identifier: GPL-2.0

//! Why a metadata block is not accepted.

use core::fmt;

use super::{
    super::{
        errno::Errno,
        text::Uuid, //
    },
    GeometryError,
    FORMAT_VERSION, //
};

/// What is wrong with a block that was read. Displayed, it is a short text for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// Nothing but zeroes.
    Blank,
    /// Not written by dm-remap.
    Foreign,
    /// The checksum does not match: damaged, or torn while it was written.
    Checksum,
    /// Written by a later version that this one does not understand.
    Newer {
        /// The format version found.
        found: u32,
    },
    /// It uses features that this version does not know and may not ignore.
    Features {
        /// The unknown feature bits.
        unknown: u64,
    },
    /// A block that belongs somewhere else.
    Misplaced {
        /// The number that the block gives for itself.
        found: u32,
        /// The number of the place that it was read from.
        expected: u32,
    },
    /// A block of another spare, or of this spare's life before it was formatted.
    OtherSpare {
        /// The spare that it belongs to.
        found: Uuid,
    },
    /// The sizes and places do not fit together.
    Geometry(GeometryError),
    /// A field holds what can't be.
    Field {
        /// The field's name.
        name: &'static str,
    },
    /// An entry of the slot table holds what can't be.
    Entry {
        /// The entry's place in the block.
        index: u32,
    },
}

impl FormatError {
    /// The error number for the user.
    pub fn errno(&self) -> Errno {
        match self {
            FormatError::Blank => Errno::NoData,
            FormatError::Foreign => Errno::Foreign,
            FormatError::Newer { .. } | FormatError::Features { .. } => Errno::NotSupported,
            FormatError::OtherSpare { .. } => Errno::WrongDevice,
            FormatError::Checksum
            | FormatError::Misplaced { .. }
            | FormatError::Geometry(_)
            | FormatError::Field { .. }
            | FormatError::Entry { .. } => Errno::Damaged,
        }
    }
}

impl From<GeometryError> for FormatError {
    fn from(error: GeometryError) -> Self {
        FormatError::Geometry(error)
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Blank => f.write_str("blank"),
            FormatError::Foreign => f.write_str("not dm-remap metadata"),
            FormatError::Checksum => f.write_str("bad checksum"),
            FormatError::Newer { found } => write!(
                f,
                "format {found} is newer than this module's {FORMAT_VERSION}"
            ),
            FormatError::Features { unknown } => write!(
                f,
                "uses features {unknown:#x} that this module does not know"
            ),
            FormatError::Misplaced { found, expected } => {
                write!(f, "block number {found} found where {expected} belongs")
            }
            FormatError::OtherSpare { found } => write!(f, "belongs to another spare, {found}"),
            FormatError::Geometry(error) => error.fmt(f),
            FormatError::Field { name } => write!(f, "impossible value of {name}"),
            FormatError::Entry { index } => write!(f, "impossible entry {index}"),
        }
    }
}
