// SPDX-License-Identifier: GPL-2.0

//! What a constructor refuses, and in which words.

use kernel::prelude::*;

use crate::{
    abstractions::dm::CtrError,
    logic::{
        errno::Errno,
        set::Refusal, //
    },
    remap::user::names::Show, //
};

use super::{
    line::Line,
    load::Refused, //
};

pub(super) const MAIN_IN_USE: &CStr = c"Main, or a part of it, is used by another device";

pub(super) const SPARE_IN_USE: &CStr = c"Spare, or a part of it, is used by another device";

pub(super) const ZONED: &CStr = c"Zoned devices are not supported";

pub(super) type CtrResult<T> = core::result::Result<T, CtrError>;

pub(super) fn refuse(errno: Errno, message: &'static CStr) -> CtrError {
    CtrError::new(Error::from_errno(-errno.number()), message)
}

impl Line<'_> {
    pub(super) fn refuse_read(&self, refused: Refused) -> CtrError {
        match refused {
            Refused::Why(refusal) => self.refuse_spares(&refusal),
            Refused::Errno(error) if error == ENOMEM => error.into(),
            Refused::Errno(error) => CtrError::new(error, c"Spare cannot be read"),
        }
    }

    /// Says what is wrong with the spares, with all its numbers, in the log.
    pub(super) fn refuse_spares(&self, refusal: &Refusal) -> CtrError {
        let name = &self.name;
        match refusal {
            Refusal::Content(error) => {
                let expected = self.expected();
                pr_err!("{name}: {}\n", Show(error.against(&expected)));
            }
            other if other.has_more() => pr_err!("{name}: {}\n", Show(other)),
            _ => (),
        }
        refuse(refusal.errno(), refusal.message())
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
