// SPDX-License-Identifier: GPL-2.0

//! Finding the truth in what was read from a spare.
//!
//! Nothing here reads or writes. The driver hands over what it read, or that it could not, and is
//! told which copy is the truth and which others have to be written again before any I/O is served
//! (M3): served from one copy, a later crash in the middle of a commit could otherwise fall back
//! to a copy that is older than what readers already saw.
//!
//! What makes a copy the truth:
//! - Its checksum, its own place and its spare are right.
//! - Of several such, the highest sequence wins. A replica is written only after the other one is
//!   known to be good, so the winner is whole, and all that the loser has was superseded.
//! - Two with the same sequence have the same content, or nothing can be believed.
//! - A copy that the winning superblock calls void is never looked at (M2).
//! - A table block with an epoch that its superblock does not know means that the superblock is
//!   an old one that stopped taking writes: epochs are durable in every live superblock before
//!   they are used (M4).

use core::fmt;

use super::errno::Errno;
use super::format::geometry;
use super::format::sequence_epoch;
use super::format::table_block::TableBlock;
use super::format::Block;
use super::format::FormatError;
use super::format::Superblock;
use super::format::REPLICAS;
use super::format::SUPER_COPIES;
use super::slot::Entry;
use super::text::MainId;
use super::text::Uuid;

/// What reading one metadata block gave.
#[derive(Clone, Copy, Debug)]
pub enum Image<'a> {
    /// Its bytes.
    Read(&'a Block),
    /// The medium could not give them. (Other failures, of a spare that is offline for instance,
    /// are no result: loading fails with them.)
    Unreadable,
}

/// What the superblock copies say.
// On the stack once per activation, from where it is moved into the driver's state.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Found {
    /// All copies were read and are zero.
    Blank,
    /// A spare of ours.
    Ours(Chosen),
}

/// The superblock to go by.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What it says.
    pub superblock: Superblock,
    /// The copies that say something else or nothing, and are not known as void; a bit each.
    pub rewrite: u8,
}

/// The truth about one block of the slot table.
#[derive(Clone, Copy, Debug)]
pub enum Resolved<'a> {
    /// It is this.
    Block {
        /// The image to go by.
        truth: TableBlock<'a>,
        /// The replica that it was read from.
        replica: u8,
        /// The replicas that have something else or nothing; a bit each.
        rewrite: u8,
    },
    /// It is not in use: it lies behind the high-water mark and no replica has it.
    End,
}

/// Of two entries that claim one main block, the one to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The first.
    First,
    /// The second.
    Second,
}

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
    /// The spare holds the remaps of another main device.
    OtherMain,
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
            LoadError::MixedSpares | LoadError::WrongUuid { .. } | LoadError::OtherMain => {
                Errno::WrongDevice
            }
            LoadError::MainBlockSize { .. } | LoadError::Incomplete { .. } => Errno::NotSupported,
            LoadError::Shrunk { .. } => Errno::NoSpace,
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
            LoadError::OtherMain => f.write_str("spare belongs to another main device"),
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

/// The size of the window, as far as the two copies at its head know it. With it the driver finds
/// the copies at the tail; without, it takes the window that the table line gives.
pub fn window_sectors(head: &[Image<'_>; 2]) -> Option<u64> {
    head.iter()
        .zip(0u8..)
        .find_map(|(image, copy)| match image {
            Image::Read(block) => Superblock::decode(block, copy)
                .ok()
                .map(|superblock| superblock.geometry.window_sectors()),
            Image::Unreadable => None,
        })
}

/// Where the four superblock copies of a window lie.
pub fn superblock_sectors(window_sectors: u64) -> Option<[u64; SUPER_COPIES as usize]> {
    Some([
        geometry::super_sector_at_head(0)?,
        geometry::super_sector_at_head(1)?,
        geometry::super_sector_at_tail(2, window_sectors)?,
        geometry::super_sector_at_tail(3, window_sectors)?,
    ])
}

/// Chooses the superblock to go by, from what was read of its four copies.
pub fn choose_superblock(images: &[Image<'_>; SUPER_COPIES as usize]) -> Result<Found, LoadError> {
    let mut best: Option<(u8, Superblock)> = None;
    for (image, copy) in images.iter().zip(0u8..) {
        let Image::Read(block) = image else {
            continue;
        };
        match Superblock::decode(block, copy) {
            Ok(found) => {
                best = match best {
                    None => Some((copy, found)),
                    Some(best) => Some(better(best, (copy, found))?),
                };
            }
            // Written by a later version in good order: no other copy can be trusted to say all.
            Err(error @ (FormatError::Newer { .. } | FormatError::Features { .. })) => {
                return Err(LoadError::Superblock { copy, error });
            }
            Err(_) => (),
        }
    }
    let Some((_, superblock)) = best else {
        return no_superblock(images);
    };
    let mut rewrite = 0;
    for (image, copy) in images.iter().zip(0u8..) {
        let same = match image {
            Image::Read(block) => Superblock::decode(block, copy)
                .is_ok_and(|found| found.sequence == superblock.sequence),
            Image::Unreadable => false,
        };
        if !same && superblock.super_lives(copy) {
            rewrite |= 1 << copy;
        }
    }
    if superblock.member_count != 1 {
        return Err(LoadError::Incomplete {
            members: superblock.member_count,
        });
    }
    Ok(Found::Ours(Chosen {
        superblock,
        rewrite,
    }))
}

fn better(old: (u8, Superblock), new: (u8, Superblock)) -> Result<(u8, Superblock), LoadError> {
    if old.1.set_uuid != new.1.set_uuid || old.1.member_uuid != new.1.member_uuid {
        return Err(LoadError::MixedSpares);
    }
    if old.1.sequence != new.1.sequence {
        return Ok(if old.1.sequence > new.1.sequence {
            old
        } else {
            new
        });
    }
    if old.1 == new.1 {
        return Ok(old);
    }
    // One of them may be a copy that failed, was written off by the others and reads again.
    match (new.1.super_lives(old.0), old.1.super_lives(new.0)) {
        (false, true) => Ok(new),
        (true, false) => Ok(old),
        _ => Err(LoadError::SuperblockContradiction { copy: new.0 }),
    }
}

/// Tells why there is no superblock, by the copy that says most.
fn no_superblock(images: &[Image<'_>; SUPER_COPIES as usize]) -> Result<Found, LoadError> {
    let mut telling: Option<(u8, FormatError)> = None;
    let mut unreadable = None;
    for (image, copy) in images.iter().zip(0u8..) {
        match image {
            Image::Unreadable => {
                unreadable = unreadable.or(Some(copy));
            }
            Image::Read(block) => {
                let Err(error) = Superblock::decode(block, copy) else {
                    continue;
                };
                let weight = |e: &FormatError| match e {
                    FormatError::Blank => 0,
                    FormatError::Foreign => 1,
                    _ => 2,
                };
                if telling.is_none_or(|(_, t)| weight(&error) > weight(&t)) {
                    telling = Some((copy, error));
                }
            }
        }
    }
    match (telling, unreadable) {
        (Some((_, FormatError::Blank)) | None, Some(copy)) => {
            Err(LoadError::SuperblockUnreadable { copy })
        }
        (Some((_, FormatError::Blank)) | None, None) => Ok(Found::Blank),
        (Some((copy, error)), _) => Err(LoadError::Superblock { copy, error }),
    }
}

/// What the table line and the devices say, to be held against the superblock.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The spare set that the table line names.
    pub uuid: Option<Uuid>,
    /// What the table line calls main.
    pub main_id: Option<&'a MainId>,
    /// Size of the main device.
    pub main_sectors: u64,
    /// Main's logical block.
    pub main_block_bytes: u32,
    /// Size of the window that there is for the spare.
    pub window_sectors: u64,
}

/// Checks that the spare belongs to what the table line names.
pub fn check_expected(superblock: &Superblock, expected: &Expected<'_>) -> Result<(), LoadError> {
    if expected
        .uuid
        .is_some_and(|uuid| uuid != superblock.set_uuid)
    {
        return Err(LoadError::WrongUuid {
            found: superblock.set_uuid,
        });
    }
    match expected.main_id {
        Some(id) if !superblock.main_id.is_none() => {
            if *id != superblock.main_id {
                return Err(LoadError::OtherMain);
            }
        }
        // Nobody said what main is. A disk that is too small for its own remaps is not the one.
        _ => {
            if expected.main_sectors < superblock.main_sectors {
                return Err(LoadError::OtherMain);
            }
        }
    }
    if expected.main_block_bytes != superblock.main_block_bytes {
        return Err(LoadError::MainBlockSize {
            was: superblock.main_block_bytes,
        });
    }
    let formatted = superblock.geometry.window_sectors();
    if expected.window_sectors < formatted {
        return Err(LoadError::Shrunk { formatted });
    }
    Ok(())
}

/// Finds the truth about table block `block`, from what was read of each replica at the place that
/// [`Superblock::table_sector`] gives. What is handed over for a void replica does not matter.
///
/// The driver asks for all blocks up to the high-water mark, and on from there until the answer is
/// [`Resolved::End`] or the table is at its end (M8).
pub fn resolve_block<'a>(
    superblock: &Superblock,
    block: u32,
    images: &[Image<'a>; REPLICAS as usize],
) -> Result<Resolved<'a>, LoadError> {
    let mut best: Option<(u8, TableBlock<'a>)> = None;
    let mut same = 0u8;
    let mut fault = None;
    for (image, replica) in images.iter().zip(0u8..) {
        let (Image::Read(bytes), true) = (image, superblock.replica_lives(replica)) else {
            continue;
        };
        let found = match TableBlock::decode(bytes, &superblock.member_uuid, block) {
            Ok(found) => found,
            Err(error @ FormatError::Newer { .. }) => {
                return Err(LoadError::TableBlock {
                    block,
                    error: Some(error),
                });
            }
            Err(error) => {
                fault = Some(error);
                continue;
            }
        };
        match best {
            Some((_, truth)) if truth.sequence() == found.sequence() => {
                if truth.image() != found.image() {
                    return Err(LoadError::TableContradiction { block });
                }
                same |= 1 << replica;
            }
            Some((_, truth)) if truth.sequence() > found.sequence() => (),
            _ => {
                best = Some((replica, found));
                same = 1 << replica;
            }
        }
    }
    let Some((replica, truth)) = best else {
        return if block >= superblock.high_water {
            Ok(Resolved::End)
        } else {
            Err(LoadError::TableBlock {
                block,
                error: fault,
            })
        };
    };
    if sequence_epoch(truth.sequence()) > superblock.epoch {
        return Err(LoadError::SuperblockStale { block });
    }
    let alive = ((1 << REPLICAS) - 1) & !superblock.void_replicas;
    Ok(Resolved::Block {
        truth,
        replica,
        rewrite: alive & !same,
    })
}

/// Checks that the entry of `slot` names a block that main has, or once had.
pub fn check_entry(superblock: &Superblock, slot: u32, entry: &Entry) -> Result<(), LoadError> {
    let main_block = entry.word.main_block();
    if entry.word.is_claim() && main_block >= superblock.main_blocks() {
        return Err(LoadError::OutOfRange { slot, main_block });
    }
    Ok(())
}

/// Of two entries that claim the same main block, tells which one to keep. The other is freed, and
/// that is committed before anything else is (M5): once the newer one is removed, the older must
/// not come back.
pub fn settle_claims(first: &Entry, second: &Entry) -> Result<Claim, LoadError> {
    match first.generation.cmp(&second.generation) {
        core::cmp::Ordering::Greater => Ok(Claim::First),
        core::cmp::Ordering::Less => Ok(Claim::Second),
        core::cmp::Ordering::Equal => Err(LoadError::Unresolvable {
            main_block: first.word.main_block(),
        }),
    }
}
