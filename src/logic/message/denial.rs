// SPDX-License-Identifier: GPL-2.0

//! Why is a message not carried out? For each reason an errno, and words that say what is wrong and what helps.

use core::fmt;

use super::{
    super::{
        avoid::AVOIDED_MAX,
        errno::Errno, //
    },
    reply::Done,
    MessageError, //
};

/// Why a message is not carried out, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial<'a> {
    /// Its words are wrong.
    Words(MessageError<'a>),
    /// It is not UTF-8.
    NotText,
    /// This version does not do it.
    NotYet,
    /// The table is read-only.
    ReadOnlyTable,
    /// The device is suspended.
    Suspended,
    /// New spares take over from dead ones.
    TakingOver,
    /// Somebody else has written the metadata.
    Foreign,
    /// No member of the set has this number, or none of those that are in the table.
    NoSpare {
        /// The number.
        spare: u64,
    },
    /// The set goes on without this spare.
    SpareLost {
        /// Its number.
        spare: u8,
    },
    /// A table is loaded that leaves out this spare.
    SpareLeaves {
        /// Its number.
        spare: u8,
    },
    /// There is no other one that slots are taken from.
    LastSpare {
        /// Its number.
        spare: u8,
    },
    /// The others have too few slots left for what this spare has.
    NoRoom {
        /// Its number.
        spare: u8,
        /// How many blocks it has.
        blocks: u32,
        /// How many slots the others have left.
        room: u32,
    },
    /// One that is in use is not given up.
    SpareInUse {
        /// Its number.
        spare: u8,
    },
    /// One that the table names is not given up.
    SpareNamed {
        /// Its number.
        spare: u8,
    },
    /// A block has a slot already.
    HasSlot {
        /// Its first sector.
        sector: u64,
    },
    /// These sectors are no slots of a spare.
    NotSlots {
        /// The first one that is.
        first: u64,
        /// The last one that is.
        last: u64,
        /// A slot in sectors.
        block_sectors: u32,
    },
    /// A slot is not free.
    NotFree {
        /// Its first sector on the spare.
        sector: u64,
        /// As many slots in a row that are: the first and the last sector.
        free: Option<(u64, u64)>,
    },
    /// Main is not to be read there.
    Avoided {
        /// The first sector of those.
        sector: u64,
    },
    /// There would be too many ranges that main is not read in.
    TooManyAvoided,
    /// No slot is left.
    Full {
        /// What was done before.
        done: Option<Done>,
    },
    /// Something failed.
    Failed {
        /// The positive Linux error number.
        errno: i32,
        /// What was done before.
        done: Option<Done>,
        /// Where that ended, if it is a sector of main.
        at: Option<u64>,
    },
}

impl<'a> From<MessageError<'a>> for Denial<'a> {
    fn from(error: MessageError<'a>) -> Self {
        Denial::Words(error)
    }
}

impl Denial<'_> {
    /// The positive Linux error number for the user.
    pub fn errno(&self) -> i32 {
        let errno = match self {
            Denial::Words(error) => error.errno(),
            Denial::NotText => Errno::NotText,
            Denial::NotYet => Errno::NotYet,
            Denial::ReadOnlyTable => Errno::ReadOnly,
            Denial::Suspended
            | Denial::TakingOver
            | Denial::SpareLeaves { .. }
            | Denial::SpareInUse { .. }
            | Denial::SpareNamed { .. }
            | Denial::NotFree { .. }
            | Denial::Avoided { .. } => Errno::Busy,
            Denial::Foreign => Errno::Foreign,
            Denial::NoSpare { .. } => Errno::WrongDevice,
            Denial::SpareLost { .. } => Errno::Io,
            Denial::LastSpare { .. }
            | Denial::NoRoom { .. }
            | Denial::TooManyAvoided
            | Denial::Full { .. } => Errno::NoSpace,
            Denial::HasSlot { .. } => Errno::Exists,
            Denial::NotSlots { .. } => Errno::Range,
            Denial::Failed { errno, .. } => return *errno,
        };
        errno.number()
    }
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::Words(error) => write!(f, "{error}"),
            Denial::NotText => f.write_str("the message is not UTF-8 text"),
            Denial::NotYet => f.write_str("not available yet"),
            Denial::ReadOnlyTable => {
                f.write_str("the table is read-only: load one that is not, and resume")
            }
            Denial::Suspended => {
                f.write_str("not while the device is suspended: resume it, and try again")
            }
            Denial::TakingOver => f.write_str(
                "new spares are taking over, and nothing is remapped until they have: \
                 see taking_over in metadata_status",
            ),
            Denial::Foreign => f.write_str(
                "somebody else has written the metadata, so nothing is written there any more: \
                 remove this device, and find out who uses its spare",
            ),
            Denial::NoSpare { spare } => {
                write!(f, "no spare {spare}: metadata_status tells the numbers")
            }
            Denial::SpareLost { spare } => write!(f, "spare {spare} is lost"),
            Denial::SpareLeaves { spare } => {
                write!(f, "a table is loaded that leaves out spare {spare}")
            }
            Denial::LastSpare { spare } => {
                write!(f, "spare {spare} is the last one in use: add another one first")
            }
            Denial::NoRoom {
                spare,
                blocks,
                room,
            } => write!(
                f,
                "spare {spare} has {blocks} blocks, others have room for {room}: add another one first"
            ),
            Denial::SpareInUse { spare } => {
                write!(f, "spare {spare} is in use: evacuate it instead")
            }
            Denial::SpareNamed { spare } => write!(
                f,
                "the table names spare {spare}: load one without it first, with degraded"
            ),
            Denial::HasSlot { sector } => {
                write!(f, "sector {sector} is remapped already: remove_remap it first")
            }
            Denial::NotSlots {
                first,
                last,
                block_sectors,
            } => write!(
                f,
                "spare sectors {first} to {last} are allowed, in whole blocks of {block_sectors}"
            ),
            Denial::NotFree { sector, free } => {
                write!(f, "spare sector {sector} is not free, ")?;
                match free {
                    Some((first, last)) => write!(f, "{first} to {last} are"),
                    None => f.write_str("nor are as many others in a row"),
                }
            }
            Denial::Avoided { sector } => write!(
                f,
                "sector {sector} is avoided, so main is not asked: retry it first"
            ),
            Denial::TooManyAvoided => write!(
                f,
                "there is room for {AVOIDED_MAX} ranges to avoid: retry some, or name larger ones"
            ),
            Denial::Full { done } => {
                after(f, done)?;
                f.write_str("no slot is left: add a spare")
            }
            Denial::Failed { errno, done, at } => {
                after(f, done)?;
                f.write_str(what_failed(*errno))?;
                match at {
                    Some(sector) => write!(f, " at sector {sector}"),
                    None => Ok(()),
                }
            }
        }
    }
}

fn after(f: &mut fmt::Formatter<'_>, done: &Option<Done>) -> fmt::Result {
    match done {
        Some(done) => write!(f, "{done}, then: "),
        None => Ok(()),
    }
}

/// What an error number says of a device that failed.
fn what_failed(errno: i32) -> &'static str {
    match errno {
        4 => "interrupted by a suspend or a signal",
        5 => "an I/O failed, or metadata cannot be written: the kernel log has more",
        6 | 19 => "a device is not there",
        12 => "no memory",
        16 => "somebody else is at these blocks, or the device is suspended",
        28 => "no slot is left: add a spare",
        30 => "the spare can only be read",
        61 => "the medium cannot be read or written",
        110 => "a device does not answer in time",
        121 => "a device refuses it",
        _ => "a device failed: the kernel log has more",
    }
}

#[cfg(test)]
mod tests {
    use std::{
        string::ToString,
        vec::Vec, //
    };

    use super::{
        super::{
            super::errno::Errno,
            reply::{
                Done,
                Tally,
                Work, //
            },
            MessageError, //
        },
        Denial, //
    };

    #[test]
    fn each_has_words_of_its_own() {
        let done = Some(Done(Work::Remap, Tally::default()));
        let all = [
            Denial::Words(MessageError::Zero),
            Denial::NotText,
            Denial::NotYet,
            Denial::ReadOnlyTable,
            Denial::Suspended,
            Denial::TakingOver,
            Denial::Foreign,
            Denial::NoSpare { spare: 9 },
            Denial::SpareLost { spare: 1 },
            Denial::SpareLeaves { spare: 1 },
            Denial::LastSpare { spare: 1 },
            Denial::NoRoom {
                spare: 1,
                blocks: 3,
                room: 2,
            },
            Denial::SpareInUse { spare: 1 },
            Denial::SpareNamed { spare: 1 },
            Denial::HasSlot { sector: 8 },
            Denial::NotSlots {
                first: 8,
                last: 15,
                block_sectors: 8,
            },
            Denial::NotFree {
                sector: 8,
                free: Some((16, 23)),
            },
            Denial::Avoided { sector: 8 },
            Denial::TooManyAvoided,
            Denial::Full { done: None },
            Denial::Failed {
                errno: 5,
                done,
                at: Some(8),
            },
        ];
        let texts: Vec<_> = all.iter().map(ToString::to_string).collect();
        for (index, text) in texts.iter().enumerate() {
            assert!(!text.is_empty() && text.len() < 300, "{text}");
            assert!(!texts[..index].contains(text), "{text}");
        }
        // What this version cannot do is told from what nobody knows, and both from nonsense.
        assert_eq!(Denial::NotYet.errno(), Errno::NotYet.number());
        assert_eq!(Denial::NotText.errno(), Errno::NotText.number());
        assert_eq!(
            Denial::Words(MessageError::Zero).errno(),
            Errno::Invalid.number()
        );
    }

    #[test]
    fn what_was_done_is_said() {
        let tally = Tally {
            moved: 3,
            ..Tally::default()
        };
        let failed = Denial::Failed {
            errno: 5,
            done: Some(Done(Work::Evacuate, tally)),
            at: Some(640),
        };
        assert_eq!(failed.errno(), 5);
        let text = failed.to_string();
        assert!(
            text.starts_with("3 blocks moved to other spares, 0 stay, then: an I/O failed"),
            "{text}"
        );
        assert!(text.ends_with("at sector 640"), "{text}");
    }
}
