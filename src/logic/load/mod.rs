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

mod error;

pub use self::error::LoadError;

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

/// What is compared between superblock copies. A whole superblock is large for a kernel's stack, so
/// there is never more than one of them.
#[derive(Clone, Copy)]
struct Summary {
    copy: u8,
    set_uuid: Uuid,
    member_uuid: Uuid,
    sequence: u64,
    void_supers: u8,
}

impl Summary {
    #[inline(never)]
    fn of(image: &Image<'_>, copy: u8) -> Option<Result<Self, FormatError>> {
        let Image::Read(block) = image else {
            return None;
        };
        Some(Superblock::decode(block, copy).map(|found| Summary {
            copy,
            set_uuid: found.set_uuid,
            member_uuid: found.member_uuid,
            sequence: found.sequence,
            void_supers: found.void_supers,
        }))
    }

    fn writes_off(&self, other: &Summary) -> bool {
        self.void_supers & (1 << other.copy) != 0
    }

    /// Of two that say different things with the same sequence: one may be a copy that failed, was
    /// written off by the others and reads again.
    fn prevails_over(&self, other: &Summary) -> bool {
        self.writes_off(other) && !other.writes_off(self)
    }
}

/// Chooses the superblock to go by, from what was read of its four copies.
pub fn choose_superblock(images: &[Image<'_>; SUPER_COPIES as usize]) -> Result<Found, LoadError> {
    let mut best: Option<Summary> = None;
    for (image, copy) in images.iter().zip(0u8..) {
        match Summary::of(image, copy) {
            Some(Ok(found)) => {
                best = match best {
                    None => Some(found),
                    Some(best) => Some(better(images, best, found)?),
                };
            }
            // Written by a later version in good order: no other copy can be trusted to say all.
            Some(Err(error @ (FormatError::Newer { .. } | FormatError::Features { .. }))) => {
                return Err(LoadError::Superblock { copy, error });
            }
            Some(Err(_)) | None => (),
        }
    }
    let Some(best) = best else {
        return no_superblock(images);
    };
    let mut rewrite = 0;
    for (image, copy) in images.iter().zip(0u8..) {
        let same = match Summary::of(image, copy) {
            Some(Ok(found)) if found.sequence == best.sequence => {
                let same = say_the_same(images, best.copy, copy);
                // The best one was not held against each of the others until now.
                if !same && !best.prevails_over(&found) {
                    return Err(LoadError::SuperblockContradiction { copy });
                }
                same
            }
            _ => false,
        };
        if !same && best.void_supers & (1 << copy) == 0 {
            rewrite |= 1 << copy;
        }
    }
    take(images, best.copy, rewrite)
}

#[inline(never)]
fn take(
    images: &[Image<'_>; SUPER_COPIES as usize],
    copy: u8,
    rewrite: u8,
) -> Result<Found, LoadError> {
    let Some(Image::Read(block)) = images.get(usize::from(copy)) else {
        return Err(LoadError::SuperblockUnreadable { copy });
    };
    let superblock = match Superblock::decode(block, copy) {
        Ok(superblock) => superblock,
        Err(error) => return Err(LoadError::Superblock { copy, error }),
    };
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

fn better(
    images: &[Image<'_>; SUPER_COPIES as usize],
    old: Summary,
    new: Summary,
) -> Result<Summary, LoadError> {
    if old.set_uuid != new.set_uuid || old.member_uuid != new.member_uuid {
        return Err(LoadError::MixedSpares);
    }
    if old.sequence != new.sequence {
        return Ok(if old.sequence > new.sequence {
            old
        } else {
            new
        });
    }
    if say_the_same(images, old.copy, new.copy) {
        return Ok(old);
    }
    if new.prevails_over(&old) {
        Ok(new)
    } else if old.prevails_over(&new) {
        Ok(old)
    } else {
        Err(LoadError::SuperblockContradiction { copy: new.copy })
    }
}

/// Whether two good copies say the same. They differ in their number, and so in their checksum.
fn say_the_same(images: &[Image<'_>; SUPER_COPIES as usize], a: u8, b: u8) -> bool {
    let content = |copy: u8| match images.get(usize::from(copy)) {
        Some(Image::Read(block)) => Superblock::content(block),
        _ => None,
    };
    content(a) == content(b)
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
