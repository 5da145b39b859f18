// SPDX-License-Identifier: GPL-2.0

//! The superblock: what the spare is, and where its metadata lies.
//!
//! ```text
//!  offset  size
//!       0     8  magic "DM-REMAP"
//!       8     4  crc32c of everything behind it
//!      12     4  format version
//!      16     8  features that may be ignored
//!      24     8  features that may be ignored for reading
//!      32     8  features that may not be ignored
//!      40    16  UUID of the set of spares
//!      56    16  UUID of this spare
//!      72     2  number of this spare in its set
//!      74     2  number of spares in the set
//!      76     1  number of this copy, 0 to 3
//!      77     1  number of replicas, 2
//!      78     2  zero
//!      80     8  set epoch
//!      88     8  sequence: orders the versions of the superblock
//!      96     4  activation epoch: the highest that any commit may have used
//!     100     4  zero
//!     104     8  window, in sectors
//!     112     4  slot, in sectors
//!     116     4  alignment of the data area, in sectors
//!     120     8  first sector of the data area
//!     128     4  number of slots
//!     132     4  blocks of the slot table in each replica
//!     136     4  reserve blocks of each replica, 31
//!     140     4  logical block of main, in bytes
//!     144     8  size of main in sectors, the largest there ever was
//!     152    64  what the user calls main, padded with zeroes
//!     216     4  high-water mark: blocks of the slot table that were initialised
//!     220     1  replicas that are void, a bit each
//!     221     1  superblock copies that are void, a bit each
//!     222     1  1 if the last activation was ended in order
//!     223    33  zero
//!     256   128  statistics, 8 bytes each (see `Statistics`)
//!     384   128  zero
//!     512   124  replica 0: what its 31 reserve blocks are used for, 4 bytes each
//!     636   124  replica 1: the same
//!     760  3336  zero
//! ```
//!
//! A reserve block is 0 (free), 0xffffffff (bad), or holds a table block: bits 0 to 30 give the
//! block's number plus one, bit 31 says that the block's own place is bad.

use super::super::text::MainId;
use super::super::text::Uuid;
use super::bytes;
use super::geometry::Geometry;
use super::geometry::GeometryError;
use super::head;
use super::reserve::Reserves;
use super::statistics::Statistics;
use super::Block;
use super::FormatError;
use super::REPLICAS;
use super::RESERVE_BLOCKS;
use super::SUPER_COPIES;

const MAGIC: [u8; 8] = *b"DM-REMAP";

const AT_COMPAT: usize = 16;
const AT_RO_COMPAT: usize = 24;
const AT_INCOMPAT: usize = 32;
const AT_SET_UUID: usize = 40;
const AT_MEMBER_UUID: usize = 56;
const AT_MEMBER_INDEX: usize = 72;
const AT_MEMBER_COUNT: usize = 74;
const AT_COPY: usize = 76;
const AT_REPLICAS: usize = 77;
const AT_SET_EPOCH: usize = 80;
const AT_SEQUENCE: usize = 88;
const AT_EPOCH: usize = 96;
const AT_WINDOW: usize = 104;
const AT_SLOT_SECTORS: usize = 112;
const AT_ALIGN: usize = 116;
const AT_DATA_START: usize = 120;
const AT_SLOTS: usize = 128;
const AT_TABLE_BLOCKS: usize = 132;
const AT_RESERVE_BLOCKS: usize = 136;
const AT_MAIN_BLOCK_BYTES: usize = 140;
const AT_MAIN_SECTORS: usize = 144;
const AT_MAIN_ID: usize = 152;
const AT_HIGH_WATER: usize = 216;
const AT_VOID_REPLICAS: usize = 220;
const AT_VOID_SUPERS: usize = 221;
const AT_CLEAN: usize = 222;
const AT_STATISTICS: usize = 256;
const AT_RESERVE: usize = 512;

/// Features that may be ignored, known to this version.
pub const COMPAT_KNOWN: u64 = 0;
/// Features that may be ignored for reading, known to this version.
pub const RO_COMPAT_KNOWN: u64 = 0;
/// Features that may not be ignored, known to this version.
pub const INCOMPAT_KNOWN: u64 = 0;

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Features that may be ignored.
    pub compat: u64,
    /// Features that may be ignored for reading.
    pub ro_compat: u64,
    /// Features that may not be ignored.
    pub incompat: u64,
    /// The set of spares that this one belongs to.
    pub set_uuid: Uuid,
    /// This spare.
    pub member_uuid: Uuid,
    /// Its number in the set.
    pub member_index: u16,
    /// How many spares the set has.
    pub member_count: u16,
    /// Raised when the set was activated without all of its members.
    pub set_epoch: u64,
    /// Orders the versions of the superblock.
    pub sequence: u64,
    /// The highest activation epoch that any commit may have used.
    pub epoch: u32,
    /// Where everything lies.
    pub geometry: Geometry,
    /// Main's logical block, in bytes.
    pub main_block_bytes: u32,
    /// Main's size, the largest there ever was.
    pub main_sectors: u64,
    /// What the user calls main.
    pub main_id: MainId,
    /// How many blocks of the slot table were initialised.
    pub high_water: u32,
    /// The replicas that are void, a bit each.
    pub void_replicas: u8,
    /// The superblock copies that are void, a bit each.
    pub void_supers: u8,
    /// Whether the last activation was ended in order. Just told to users: no step of loading is
    /// left out for it.
    pub clean: bool,
    /// What is counted.
    pub statistics: Statistics,
    /// What the reserve blocks of each replica are used for.
    pub reserve: [Reserves; REPLICAS as usize],
}

impl Superblock {
    /// The superblock of a new set of one spare.
    pub fn new(
        set_uuid: Uuid,
        member_uuid: Uuid,
        geometry: Geometry,
        main_sectors: u64,
        main_id: MainId,
    ) -> Self {
        Superblock {
            compat: 0,
            ro_compat: 0,
            incompat: 0,
            set_uuid,
            member_uuid,
            member_index: 0,
            member_count: 1,
            set_epoch: 1,
            sequence: 0,
            epoch: 0,
            geometry,
            // A slot has at most 8 sectors.
            main_block_bytes: geometry.slot_sectors().saturating_mul(512),
            main_sectors,
            main_id,
            high_water: 0,
            void_replicas: 0,
            void_supers: 0,
            clean: true,
            statistics: Statistics::default(),
            reserve: [Reserves::FREE; REPLICAS as usize],
        }
    }

    /// Whether features that this version does not know forbid writing anything to the spare.
    pub fn is_read_only(&self) -> bool {
        self.ro_compat & !RO_COMPAT_KNOWN != 0
    }

    /// How many main blocks entries may name.
    pub fn main_blocks(&self) -> u64 {
        self.main_sectors >> self.geometry.slot_sectors().trailing_zeros()
    }

    /// How many slots have an entry in an initialised block of the slot table.
    pub fn usable_slots(&self) -> u32 {
        self.geometry.slots_in(self.high_water)
    }

    /// Whether `replica` is in use.
    pub fn replica_lives(&self, replica: u8) -> bool {
        replica < REPLICAS && self.void_replicas & (1 << replica) == 0
    }

    /// Whether superblock copy `copy` is in use.
    pub fn super_lives(&self, copy: u8) -> bool {
        copy < SUPER_COPIES && self.void_supers & (1 << copy) == 0
    }

    /// The reserve block of `replica` that stands in for table block `block`, and whether the
    /// block's own place is bad.
    pub fn relocation(&self, replica: u8, block: u32) -> Option<(u8, bool)> {
        self.reserve.get(usize::from(replica))?.find(block)
    }

    /// Where `replica` has table block `block` now.
    pub fn table_sector(&self, replica: u8, block: u32) -> Option<u64> {
        match self.relocation(replica, block) {
            Some((index, _)) => self.geometry.reserve_block_sector(replica, index),
            None => self.geometry.table_block_sector(replica, block),
        }
    }

    /// All relocated blocks: replica and table block.
    pub fn relocations(&self) -> impl Iterator<Item = (u8, u32)> + '_ {
        let replicas = self.reserve.iter().zip(0u8..);
        replicas.flat_map(|(reserves, replica)| reserves.held().map(move |block| (replica, block)))
    }

    /// Checks all of `image`, read where copy `copy` belongs.
    pub fn decode(image: &Block, copy: u8) -> Result<Self, FormatError> {
        head::check(image, &MAGIC)?;
        let incompat = bytes::get_u64(image, AT_INCOMPAT);
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(FormatError::Features {
                unknown: incompat & !INCOMPAT_KNOWN,
            });
        }
        let found = bytes::get_u8(image, AT_COPY);
        if found != copy {
            return Err(FormatError::Misplaced {
                found: u32::from(found),
                expected: u32::from(copy),
            });
        }
        let geometry = decode_geometry(image)?;
        let mut superblock = Superblock {
            compat: bytes::get_u64(image, AT_COMPAT),
            ro_compat: bytes::get_u64(image, AT_RO_COMPAT),
            incompat,
            set_uuid: Uuid(bytes::get(image, AT_SET_UUID)),
            member_uuid: Uuid(bytes::get(image, AT_MEMBER_UUID)),
            member_index: bytes::get_u16(image, AT_MEMBER_INDEX),
            member_count: bytes::get_u16(image, AT_MEMBER_COUNT),
            set_epoch: bytes::get_u64(image, AT_SET_EPOCH),
            sequence: bytes::get_u64(image, AT_SEQUENCE),
            epoch: bytes::get_u32(image, AT_EPOCH),
            geometry,
            main_block_bytes: bytes::get_u32(image, AT_MAIN_BLOCK_BYTES),
            main_sectors: bytes::get_u64(image, AT_MAIN_SECTORS),
            main_id: MainId::from_bytes(bytes::get(image, AT_MAIN_ID))
                .ok_or(FormatError::Field { name: "main_id" })?,
            high_water: bytes::get_u32(image, AT_HIGH_WATER),
            void_replicas: bytes::get_u8(image, AT_VOID_REPLICAS),
            void_supers: bytes::get_u8(image, AT_VOID_SUPERS),
            clean: bytes::get_u8(image, AT_CLEAN) & 1 != 0,
            statistics: Statistics::from_words(core::array::from_fn(|i| {
                bytes::get_u64(image, AT_STATISTICS + 8 * i)
            })),
            reserve: [Reserves::FREE; REPLICAS as usize],
        };
        // In place: the kernel's stack is small.
        let words = superblock.reserve.iter_mut().flat_map(Reserves::words_mut);
        for (word, i) in words.zip(0usize..) {
            *word = bytes::get_u32(image, AT_RESERVE + 4 * i);
        }
        superblock.check(copy, bytes::get_u8(image, AT_REPLICAS))?;
        Ok(superblock)
    }

    /// The bytes that are the same in every copy: all but checksum and number.
    pub fn content(image: &Block) -> Option<(&[u8], &[u8])> {
        Some((
            image.get(head::AT_VERSION..AT_COPY)?,
            image.get(AT_COPY + 1..)?,
        ))
    }

    /// Makes copy `copy`.
    pub fn encode(&self, image: &mut Block, copy: u8) {
        head::begin(image, &MAGIC);
        bytes::put(image, AT_COMPAT, &self.compat.to_le_bytes());
        bytes::put(image, AT_RO_COMPAT, &self.ro_compat.to_le_bytes());
        bytes::put(image, AT_INCOMPAT, &self.incompat.to_le_bytes());
        bytes::put(image, AT_SET_UUID, &self.set_uuid.0);
        bytes::put(image, AT_MEMBER_UUID, &self.member_uuid.0);
        bytes::put(image, AT_MEMBER_INDEX, &self.member_index.to_le_bytes());
        bytes::put(image, AT_MEMBER_COUNT, &self.member_count.to_le_bytes());
        bytes::put(image, AT_COPY, &[copy]);
        bytes::put(image, AT_REPLICAS, &[REPLICAS]);
        bytes::put(image, AT_SET_EPOCH, &self.set_epoch.to_le_bytes());
        bytes::put(image, AT_SEQUENCE, &self.sequence.to_le_bytes());
        bytes::put(image, AT_EPOCH, &self.epoch.to_le_bytes());
        let g = &self.geometry;
        bytes::put(image, AT_WINDOW, &g.window_sectors().to_le_bytes());
        bytes::put(image, AT_SLOT_SECTORS, &g.slot_sectors().to_le_bytes());
        bytes::put(image, AT_ALIGN, &g.align_sectors().to_le_bytes());
        bytes::put(image, AT_DATA_START, &g.data_start().to_le_bytes());
        bytes::put(image, AT_SLOTS, &g.slots().to_le_bytes());
        bytes::put(image, AT_TABLE_BLOCKS, &g.table_blocks().to_le_bytes());
        bytes::put(
            image,
            AT_RESERVE_BLOCKS,
            &u32::from(RESERVE_BLOCKS).to_le_bytes(),
        );
        bytes::put(
            image,
            AT_MAIN_BLOCK_BYTES,
            &self.main_block_bytes.to_le_bytes(),
        );
        bytes::put(image, AT_MAIN_SECTORS, &self.main_sectors.to_le_bytes());
        bytes::put(image, AT_MAIN_ID, self.main_id.as_bytes());
        bytes::put(image, AT_HIGH_WATER, &self.high_water.to_le_bytes());
        bytes::put(image, AT_VOID_REPLICAS, &[self.void_replicas]);
        bytes::put(image, AT_VOID_SUPERS, &[self.void_supers]);
        bytes::put(image, AT_CLEAN, &[u8::from(self.clean)]);
        let mut at = AT_STATISTICS;
        for word in self.statistics.to_words() {
            bytes::put(image, at, &word.to_le_bytes());
            at += 8;
        }
        let mut at = AT_RESERVE;
        for word in self.reserve.iter().flat_map(Reserves::words) {
            bytes::put(image, at, &word.to_le_bytes());
            at += 4;
        }
        head::seal(image);
    }

    fn check(&self, copy: u8, replicas: u8) -> Result<(), FormatError> {
        let field = |name| Err(FormatError::Field { name });
        if replicas != REPLICAS {
            return field("number of replicas");
        }
        if self.set_uuid.is_nil() || self.member_uuid.is_nil() {
            return field("UUID");
        }
        if self.member_index >= self.member_count {
            return field("member index");
        }
        if self.epoch >= 1 << 24 {
            return field("activation epoch");
        }
        if u64::from(self.main_block_bytes) != u64::from(self.geometry.slot_sectors()) * 512 {
            return field("logical block of main");
        }
        if self.main_sectors == 0 || self.main_sectors > 1 << 48 {
            return field("size of main");
        }
        if self.high_water > self.geometry.table_blocks() {
            return field("high-water mark");
        }
        if self.void_replicas >= (1 << REPLICAS) - 1 {
            return field("void replicas");
        }
        // A copy that is void is not written, so none says so of itself.
        if self.void_supers >= (1 << SUPER_COPIES) - 1 || !self.super_lives(copy) {
            return field("void superblock copies");
        }
        for reserves in &self.reserve {
            let mut held = reserves.held();
            while let Some(block) = held.next() {
                let twice = held.clone().any(|other| other == block);
                if block >= self.geometry.table_blocks() || twice {
                    return field("reserve blocks");
                }
            }
        }
        Ok(())
    }
}

/// The places are stored, so that others can read them without computing, and are checked against
/// what they must be.
fn decode_geometry(image: &Block) -> Result<Geometry, FormatError> {
    let geometry = Geometry::new(
        bytes::get_u64(image, AT_WINDOW),
        bytes::get_u32(image, AT_SLOT_SECTORS),
        bytes::get_u32(image, AT_ALIGN),
    )?;
    let same = geometry.align_sectors() == bytes::get_u32(image, AT_ALIGN)
        && geometry.data_start() == bytes::get_u64(image, AT_DATA_START)
        && geometry.slots() == bytes::get_u32(image, AT_SLOTS)
        && geometry.table_blocks() == bytes::get_u32(image, AT_TABLE_BLOCKS)
        && bytes::get_u32(image, AT_RESERVE_BLOCKS) == u32::from(RESERVE_BLOCKS);
    if same {
        Ok(geometry)
    } else {
        Err(GeometryError::Mismatch.into())
    }
}
