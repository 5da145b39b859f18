// SPDX-License-Identifier: GPL-2.0

//! What a constructor refuses, and in which words.

use kernel::prelude::*;

use crate::{
    abstractions::dm::CtrError,
    logic::{
        errno::Errno,
        format::Superblock,
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
        refuse(error.errno(), error.message())
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

pub(super) fn too_many() -> CtrError {
    refuse(LoadError::TooMany.errno(), LoadError::TooMany.message())
}
