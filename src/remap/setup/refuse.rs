// SPDX-License-Identifier: GPL-2.0

//! What a constructor refuses, and in which words.

use kernel::prelude::*;

use crate::{
    abstractions::dm::CtrError,
    logic::{
        errno::Errno,
        format::{
            FormatError,
            Superblock, //
        },
        load::LoadError, //
    },
    remap::user::names::Show, //
};

use super::{
    line::Line,
    load::Refused, //
};

pub(super) const HAS_METADATA: &CStr =
    c"Spare has valid dm-remap metadata, which the format argument does not overwrite";

pub(super) const LARGER: &CStr =
    c"Spare is larger than main and not blank: are the two mixed up? If not, zero it";

pub(super) const MAIN_IN_USE: &CStr = c"Main, or a part of it, is used by another device";

pub(super) const SPARE_IN_USE: &CStr = c"Spare, or a part of it, is used by another device";

pub(super) const ZONED: &CStr = c"Zoned devices are not supported";

pub(super) const READ_ONLY: &CStr = c"A blank spare cannot be formatted read-only";

pub(super) const NO_ROOM: &CStr =
    c"Spare is too small for what the dead ones had: a slot is needed for each of their blocks";

pub(super) const STILL_SERVES: &CStr =
    c"A spare that is left out still serves blocks: evacuate it, or use degraded";

pub(super) const TOO_MANY: &CStr = c"A set has four spares at most";

pub(super) const NOT_BLANK: &CStr =
    c"Spare is not blank: zero it, or use the format argument to overwrite what is there";

pub(super) type CtrResult<T> = core::result::Result<T, CtrError>;

pub(super) fn refuse(errno: Errno, message: &'static CStr) -> CtrError {
    CtrError::new(Error::from_errno(-errno.number()), message)
}

impl Line<'_> {
    /// Checks that a table which may write has spares that this version may write to.
    pub(super) fn check_writable(&self, superblock: &Superblock) -> CtrResult<()> {
        if superblock.is_read_only() && !self.read_only {
            return Err(refuse(
                Errno::ReadOnly,
                c"Spare has features that this version can only read: load the table read-only",
            ));
        }
        Ok(())
    }

    pub(super) fn refuse_read(&self, refused: Refused) -> CtrError {
        match refused {
            Refused::Content(error) => self.refuse_content(&error),
            Refused::Text(errno, text) => refuse(errno, text),
            Refused::Errno(error) if error == ENOMEM => error.into(),
            Refused::Errno(error) => CtrError::new(error, c"Spare cannot be read"),
        }
    }

    /// Says what is wrong with the spare, with all its numbers, in the log.
    pub(super) fn refuse_content(&self, error: &LoadError) -> CtrError {
        let expected = self.expected();
        pr_err!("{}: {}\n", self.name, Show(error.against(&expected)));
        let text = match error {
            LoadError::Superblock {
                error: FormatError::Foreign,
                ..
            } => NOT_BLANK,
            LoadError::Superblock { .. }
            | LoadError::SuperblockUnreadable { .. }
            | LoadError::SuperblockContradiction { .. }
            | LoadError::SuperblockStale { .. }
            | LoadError::MixedSpares { .. } => c"No usable superblock on the spare",
            LoadError::Apart { .. } => c"Spares were used without each other",
            LoadError::Twice { .. } => c"Spare is a copy of another one that is in use",
            LoadError::NotMember { .. } => c"Spare has left its set",
            LoadError::Another { .. } => {
                c"Spare is not the one that was lost: leave it out with degraded, then add it"
            }
            LoadError::TooMany => TOO_MANY,
            LoadError::Unfinished { .. } => {
                c"Spare was to take over from a dead one and has not: use that, or format this one anew"
            }
            LoadError::MainIsSpare { .. } => c"Main is a spare: are main and spare mixed up?",
            LoadError::TableBlock { .. }
            | LoadError::TableContradiction { .. }
            | LoadError::OutOfRange { .. }
            | LoadError::Unresolvable { .. } => c"Slot table on the spare is damaged",
            LoadError::WrongUuid { .. } => c"Spare is not the one that the uuid argument names",
            LoadError::OtherMainId { .. } => c"Spare belongs to a main device of another main_id",
            LoadError::OtherMainSize { .. } => c"Spare belongs to a larger main device",
            LoadError::MainBlockSize { .. } => c"Main had other logical blocks before",
            LoadError::Shrunk { .. } => c"Spare is smaller than it was formatted",
            LoadError::Incomplete { .. } => {
                c"A spare of the set is missing: name it with the spare argument, or use degraded"
            }
        };
        refuse(error.errno(), text)
    }
}

/// Why a spare cannot be registered.
pub(super) fn in_use(error: Error) -> CtrError {
    let text = if error == EBUSY {
        SPARE_IN_USE
    } else if error == EEXIST {
        c"Spare is a copy of one that is in use: it has the same uuid"
    } else {
        return error.into();
    };
    refuse(Errno::Busy, text)
}

/// Whether there is nothing of ours that formatting would overwrite.
pub(super) fn may_be_formatted(error: &LoadError) -> bool {
    matches!(
        error,
        LoadError::Superblock {
            error: FormatError::Foreign | FormatError::Checksum,
            ..
        } | LoadError::Unfinished { .. }
    )
}

pub(super) fn too_many() -> CtrError {
    refuse(Errno::TooMany, TOO_MANY)
}
