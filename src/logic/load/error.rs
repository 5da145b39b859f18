// SPDX-License-Identifier: GPL-2.0

//! Why a spare is not activated.

use core::{
    ffi::CStr,
    fmt, //
};

use super::{
    super::{
        errno::Errno,
        format::{
            BlockId,
            CopyId,
            FormatError,
            Superblock,
            MEMBERS_MAX, //
        },
        text::{
            MainId,
            Uuid, //
        }, //
    },
    Expected, //
};

/// What is refused of a spare that may hold something else.
pub const NOT_BLANK: &CStr =
    c"Spare is not blank: zero it, or use the format argument to overwrite what is there";

/// Why a set of spares is not activated. Spares are counted as the table line names them, from 0;
/// where a block of the slot table is named, as the superblock does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// No superblock copy of a spare is usable; this is what is wrong with the most telling one.
    Superblock {
        /// The spare.
        spare: u8,
        /// The copy.
        copy: u8,
        /// What is wrong with it.
        error: FormatError,
    },
    /// Superblock copies can't be read and no other one is ours: can't tell what the spare is.
    SuperblockUnreadable {
        /// The spare.
        spare: u8,
        /// The first such copy.
        copy: u8,
    },
    /// Superblock copies of different sets, or of different spares on one device.
    MixedSpares {
        /// The spare that does not belong to the others.
        spare: u8,
    },
    /// One member of the set is there twice: one of them is a copy.
    Twice {
        /// The member's name.
        uuid: Uuid,
    },
    /// A spare was once a member of the set, and is not any more.
    NotMember {
        /// The spare.
        spare: u8,
    },
    /// In the place of a member that was lost there is something else now.
    Another {
        /// Its number in the set.
        member: u8,
        /// Its name.
        uuid: Uuid,
    },
    /// Two spares were used without each other: each has remaps that the other does not know of.
    Apart {
        /// The spare that was used without the others.
        spare: u8,
    },
    /// Two copies with the same sequence say different things.
    SuperblockContradiction {
        /// The later of the two.
        copy: CopyId,
    },
    /// The table has blocks from an epoch that the superblock does not know of.
    SuperblockStale {
        /// A block of the slot table that is newer.
        block: BlockId,
    },
    /// No replica has a usable copy of a block of the slot table.
    TableBlock {
        /// The block.
        block: BlockId,
        /// What is wrong with one of the copies; none if no copy could be read.
        error: Option<FormatError>,
    },
    /// Two replicas have the same sequence and different content.
    TableContradiction {
        /// The block.
        block: BlockId,
    },
    /// An entry names a block that main does not have.
    OutOfRange {
        /// The slot, as the spare counts it.
        slot: u32,
        /// The main block that it claims.
        main_block: u64,
    },
    /// Two slots claim one main block with the same right.
    Unresolvable {
        /// The main block.
        main_block: u64,
    },
    /// The table line names another set.
    WrongUuid {
        /// What the spare says.
        found: Uuid,
    },
    /// The spare holds the remaps of a main device that the table line calls otherwise.
    OtherMainId {
        /// What it was called.
        was: MainId,
    },
    /// The spare holds the remaps of a larger main device: a table used more than there is.
    OtherMainSize {
        /// How many sectors it used.
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
        /// The size that there is.
        found: u64,
    },
    /// A member of the set is not there.
    Incomplete {
        /// Its number in the set.
        member: u8,
        /// Its name.
        uuid: Uuid,
    },
    /// What is to be main is a spare of some set.
    MainIsSpare {
        /// The set; none if only a later version can tell.
        set: Option<Uuid>,
    },
    /// A new spare was to take over from dead ones, and has not got to the end of it.
    Unfinished {
        /// The spare.
        spare: u8,
    },
    /// There are more spares than a set can have.
    TooMany,
}

impl LoadError {
    /// A member is not there.
    pub fn incomplete(superblock: &Superblock, member: u8) -> Self {
        let uuid = superblock.member(member).map(|member| member.uuid);
        LoadError::Incomplete {
            member,
            uuid: uuid.unwrap_or(Uuid::NIL),
        }
    }

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
            | LoadError::Unresolvable { .. }
            | LoadError::Unfinished { .. } => Errno::Damaged,
            LoadError::MixedSpares { .. }
            | LoadError::NotMember { .. }
            | LoadError::Another { .. }
            | LoadError::Apart { .. }
            | LoadError::WrongUuid { .. }
            | LoadError::OtherMainId { .. }
            | LoadError::OtherMainSize { .. }
            | LoadError::MainIsSpare { .. } => Errno::WrongDevice,
            LoadError::Twice { .. } => Errno::Exists,
            LoadError::MainBlockSize { .. } => Errno::NotSupported,
            LoadError::Shrunk { .. } => Errno::NoSpace,
            LoadError::Incomplete { .. } => Errno::NoData,
            LoadError::TooMany => Errno::TooMany,
        }
    }

    /// What the user is told. The numbers that belong to it are in what it displays.
    pub fn message(&self) -> &'static CStr {
        match self {
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
            LoadError::TooMany => c"A set has four spares at most",
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
        }
    }

    /// Whether there is nothing of ours that formatting would overwrite.
    pub fn may_be_formatted(&self) -> bool {
        matches!(
            self,
            LoadError::Superblock {
                error: FormatError::Foreign | FormatError::Checksum,
                ..
            } | LoadError::Unfinished { .. }
        )
    }

    /// The error in words, with both sides of it where the spare and `expected` disagree.
    pub fn against<'a>(&'a self, expected: &'a Expected<'a>) -> Disagreement<'a> {
        Disagreement {
            error: self,
            expected,
        }
    }
}

/// Puts the number of a spare before a message, where there may be several.
struct Nth(u8);

impl fmt::Display for Nth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            spare => write!(f, "spare {spare}: "),
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
            _ => Ok(()),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Superblock { spare, copy, error } => {
                write!(f, "{}superblock copy {copy}: {error}", Nth(*spare))
            }
            LoadError::SuperblockUnreadable { spare, copy } => {
                write!(
                    f,
                    "{}superblock copy {copy}: unreadable, and no other is usable",
                    Nth(*spare)
                )
            }
            LoadError::MixedSpares { spare } => {
                write!(f, "{}superblock copies of different spares", Nth(*spare))
            }
            LoadError::Twice { uuid } => {
                write!(f, "spare {uuid} is there twice, one of them is a copy")
            }
            LoadError::NotMember { spare } => {
                write!(f, "spare {spare} has left its set")
            }
            LoadError::Another { member, uuid } => {
                write!(
                    f,
                    "spare {uuid}, number {member} of the set, was lost, \
                     and what is in its place now is not that spare"
                )
            }
            LoadError::Apart { spare } => {
                write!(
                    f,
                    "spare {spare} and the others were used without each other: leave out one side"
                )
            }
            LoadError::SuperblockContradiction { copy } => {
                write!(
                    f,
                    "superblock copy {} of spare {}: contradicts another of the same age",
                    copy.copy, copy.member
                )
            }
            LoadError::SuperblockStale { block } => {
                write!(f, "superblock is older than {block}")
            }
            LoadError::TableBlock { block, error } => {
                write!(f, "{block}: bad in every replica: ")?;
                match error {
                    Some(error) => error.fmt(f),
                    None => f.write_str("unreadable"),
                }
            }
            LoadError::TableContradiction { block } => {
                write!(f, "{block}: replicas of the same age contradict each other")
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
                write!(
                    f,
                    "spare belongs to a main device of which {was} sectors were used"
                )
            }
            LoadError::MainBlockSize { was } => {
                write!(
                    f,
                    "main had logical blocks of {was} bytes and has others now"
                )
            }
            LoadError::Shrunk { formatted, found } => {
                write!(
                    f,
                    "spare is smaller than the {formatted} sectors it was formatted with: {found}"
                )
            }
            LoadError::Incomplete { member, uuid } => {
                write!(
                    f,
                    "spare {uuid}, number {member} of the set, is not there: \
                     name it, or go without what it holds by the degraded argument"
                )
            }
            LoadError::MainIsSpare { set } => {
                f.write_str("main is a spare of ")?;
                match set {
                    Some(uuid) => write!(f, "set {uuid}")?,
                    None => f.write_str("a later version")?,
                }
                f.write_str(": are the two mixed up? spare_as_main takes it all the same")
            }
            LoadError::Unfinished { spare } => {
                write!(
                    f,
                    "spare {spare} was to take over from a dead one, and does not know all that was on that: \
                     use the old one, or format this one anew"
                )
            }
            LoadError::TooMany => {
                write!(f, "a set has {MEMBERS_MAX} spares at most")
            }
        }
    }
}
