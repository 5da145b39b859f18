// SPDX-License-Identifier: GPL-2.0

//! The format of spares, version 1.
//!
//! ```text
//!  metadata blocks of 4096 bytes, counted from the start of the spare's window
//!
//!  0    1..32     32   33..33+T       …              B-33-T..B-33  B-33  B-32..B-1  B-1
//!  S0 | reserve | S1 | slot table   | data area    | slot table  | S3 | reserve   | S2
//!     | of r. 0 |    | replica 0    | (slots)      | replica 1   |    | of r. 1   |
//!
//!  the data area of a spare that holds a replica of another one's slot table
//!
//!  slots                                          | reserve | slot table | (maybe more of these)
//! ```
//!
//! A **set** of one to four spares belongs to one main device. All that holds for the set stands in
//! its superblock, and so do the spares that are its **members** ([`member`]).
//!
//! - Four copies of the **superblock** ([`superblock`]) on each member: one at either end, and an
//!   alternate of each 128 KiB further in. The first two lie at places that are known without
//!   knowing anything else, also not the size of the device. All copies on all members are the
//!   same, but for the member and the number of the copy, so that one write decides for the whole
//!   set: the copy with the highest sequence is the truth.
//! - Each member has a **slot table** ([`table_block`]): for every slot one entry saying what it is
//!   used for. Blocks at and behind the high-water mark were never written. It has two replicas, as
//!   far apart as possible: at either end of its window if it is the only member; otherwise one of
//!   them lies on another member, behind what slots are left there, so that a member that is lost
//!   leaves behind what it was used for.
//! - 31 **reserve blocks** for each replica take the place of table blocks whose own place went
//!   bad; the superblock says which.
//! - The **data area** ([`geometry`]), aligned to the spare's physical blocks: the slots, each as
//!   large as one logical block of main.
//!
//! All numbers are little-endian. Every block carries a checksum over all that follows it, and its
//! own place, so that a block written to the wrong place is noticed.

use core::fmt;

pub mod bytes;
pub mod error;
pub mod geometry;
pub mod head;
pub mod member;
pub mod reserve;
pub mod statistics;
pub mod superblock;
pub mod table_block;

pub use self::{
    error::FormatError,
    geometry::{
        Geometry,
        GeometryError, //
    },
    member::{
        member_bit,
        Area,
        Member, //
    },
    reserve::Reserve,
    statistics::Statistics,
    superblock::{
        CopyId,
        Superblock,
        Switches,
        INCOMPAT_GIVEN_UP,
        INCOMPAT_LOST,
        INCOMPAT_UNFINISHED,
        RO_COMPAT_AVOIDED,
        RO_COMPAT_SWITCHES, //
    }, //
};

/// Bytes in a sector.
pub const SECTOR_BYTES: u64 = 512;

/// Bytes in a metadata block.
pub const BLOCK_BYTES: usize = 4096;

/// Sectors in a metadata block.
pub const BLOCK_SECTORS: u64 = 8;

/// One metadata block.
pub type Block = [u8; BLOCK_BYTES];

/// The version of the format that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// How many members a set of spares can have.
pub const MEMBERS_MAX: u8 = 4;

/// How many superblock copies each member has.
pub const SUPER_COPIES: u8 = 4;

/// How many replicas each slot table has.
pub const REPLICAS: u8 = 2;

/// How many reserve blocks each replica has.
pub const RESERVE_BLOCKS: u8 = 31;

/// One block of a member's slot table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId {
    /// The member whose slots it is about.
    pub member: u8,
    /// Its number in that member's table.
    pub block: u32,
}

impl BlockId {
    /// The block that comes `blocks` behind this one in the table.
    pub const fn behind(self, blocks: u32) -> Self {
        Self {
            block: self.block.saturating_add(blocks),
            ..self
        }
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table block {} of spare {}", self.block, self.member)
    }
}

/// A place in the window of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The member.
    pub member: u8,
    /// The sector, counted from the start of its window.
    pub sector: u64,
}

impl Place {
    /// Where the metadata block lies that comes `blocks` behind the one here.
    pub const fn behind(self, blocks: u32) -> Self {
        let sectors = (blocks as u64).saturating_mul(BLOCK_SECTORS);
        Self {
            sector: self.sector.saturating_add(sectors),
            ..self
        }
    }
}

/// Whether `bytes` are all zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Eight bytes at a time: this runs over whole spares before they are formatted.
    let mut words = bytes.chunks_exact(8);
    let whole = words.by_ref().all(|w| {
        w.first_chunk::<8>()
            .is_some_and(|w| u64::from_ne_bytes(*w) == 0)
    });
    whole && words.remainder().iter().all(|b| *b == 0)
}

/// A number that orders commits: of the activation that made it, and its place therein (M4).
///
/// 24 bits of activation epoch above a counter of 40 bits. None if either is exhausted, which
/// takes 16 million activations, or a trillion commits in one.
pub fn sequence(epoch: u32, counter: u64) -> Option<u64> {
    if epoch >= 1 << 24 || counter >= 1 << 40 {
        return None;
    }
    Some((u64::from(epoch) << 40) | counter)
}

/// The activation epoch in a sequence number or in an entry's generation.
pub fn sequence_epoch(sequence: u64) -> u32 {
    // 24 bits remain.
    (sequence >> 40) as u32
}
