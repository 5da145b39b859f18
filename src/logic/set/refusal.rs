// SPDX-License-Identifier: GPL-2.0

//! Why a table does not get the spares that it names.

use core::{
    ffi::CStr,
    fmt, //
};

use super::super::{
    errno::Errno,
    format::GeometryError,
    load::{
        LoadError,
        NOT_BLANK, //
    }, //
};

/// What is refused of a table that leaves out who serves blocks.
pub const STILL_SERVES: &CStr =
    c"A spare that is left out still serves blocks: evacuate it, or use degraded";

/// Why a table is refused for its spares. Displayed, it is a text for the log, with numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What is on a spare, or is not.
    Content(LoadError),
    /// There is nothing to be formatted.
    HasMetadata,
    /// There is something on a spare that is to join.
    NotBlank,
    /// There is something on a spare that is to be formatted, and it could be main.
    LargerThanMain,
    /// A spare has nothing, and the line names a set.
    BlankWithUuid,
    /// A spare that is to join cannot be laid out.
    Size(GeometryError),
    /// A spare would have to be formatted for a table that writes nothing.
    ReadOnly,
    /// Only a later version may write to the set.
    NewerFeatures,
    /// A spare of another set, or one that has left this one, or that others take over from.
    Stranger,
    /// By a table that was not resumed, a spare was to be a member, and it cannot be that one any more.
    NotResumed,
    /// Two spares are the same member.
    SameMember,
    /// A spare that is left out serves blocks.
    StillServes {
        /// The member.
        member: u8,
        /// How many.
        claims: u32,
    },
    /// A spare that is left out has something that no other one has.
    OnlyCopy {
        /// The member.
        member: u8,
    },
    /// New spares cannot remember all that dead ones had.
    NoRoom {
        /// How many blocks that is.
        blocks: u64,
        /// For how many there is room.
        room: u64,
    },
    /// The spares are new, and what the table before has remapped is on others.
    LeavesRemaps,
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        Refusal::Content(error)
    }
}

impl Refusal {
    /// What the user is told.
    pub fn message(&self) -> &'static CStr {
        match self {
            Refusal::Content(error) => error.message(),
            Refusal::HasMetadata => {
                c"Spare has valid dm-remap metadata, which the format argument does not overwrite"
            }
            Refusal::NotBlank => NOT_BLANK,
            Refusal::LargerThanMain => {
                c"Spare is larger than main and not blank: are the two mixed up? If not, zero it"
            }
            Refusal::BlankWithUuid => {
                c"Spare is blank, but the uuid argument names one that was formatted"
            }
            Refusal::Size(_) => c"Spare is too small or too large",
            Refusal::ReadOnly => c"A blank spare cannot be formatted read-only",
            Refusal::NewerFeatures => {
                c"Spare has features that this version can only read: load the table read-only"
            }
            Refusal::Stranger => c"Spare belongs to another set, or has left this one",
            Refusal::NotResumed => {
                c"A spare was to join by a table that was not resumed: clear that first"
            }
            Refusal::SameMember => c"Two spares are the same member of the set",
            Refusal::StillServes { .. } => STILL_SERVES,
            Refusal::OnlyCopy { .. } => {
                c"A spare that is left out has the only good copy of metadata"
            }
            Refusal::NoRoom { .. } => {
                c"Spare is too small for what the dead ones had: a slot is needed for each of their blocks"
            }
            Refusal::LeavesRemaps => {
                c"The device has remaps on another spare: name that, too, and evacuate it later, or, if it is dead, use degraded"
            }
        }
    }

    /// The error number for the user.
    pub fn errno(&self) -> Errno {
        match self {
            Refusal::Content(error) => error.errno(),
            Refusal::Size(error) => error.errno(),
            Refusal::HasMetadata | Refusal::SameMember => Errno::Exists,
            Refusal::NotBlank | Refusal::LargerThanMain => Errno::Foreign,
            Refusal::BlankWithUuid => Errno::NoData,
            Refusal::ReadOnly | Refusal::NewerFeatures => Errno::ReadOnly,
            Refusal::Stranger => Errno::WrongDevice,
            Refusal::NotResumed | Refusal::StillServes { .. } | Refusal::LeavesRemaps => {
                Errno::Busy
            }
            Refusal::OnlyCopy { .. } => Errno::Io,
            Refusal::NoRoom { .. } => Errno::NoSpace,
        }
    }

    /// Whether the log says more than the user is told.
    pub fn has_more(&self) -> bool {
        matches!(
            self,
            Refusal::Content(_)
                | Refusal::Size(_)
                | Refusal::StillServes { .. }
                | Refusal::OnlyCopy { .. }
                | Refusal::NoRoom { .. }
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Content(error) => error.fmt(f),
            Refusal::Size(error) => error.fmt(f),
            Refusal::StillServes { member, claims } => {
                write!(f, "spare {member} has {claims} blocks: evacuate it first")
            }
            Refusal::OnlyCopy { member } => {
                write!(f, "spare {member} has the only good copy of metadata")
            }
            Refusal::NoRoom { blocks, room } => write!(
                f,
                "{blocks} blocks are to be remembered, and there is room for {room}"
            ),
            other => f.write_str(other.message().to_str().unwrap_or("")),
        }
    }
}
