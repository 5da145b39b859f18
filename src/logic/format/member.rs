// SPDX-License-Identifier: GPL-2.0

//! One spare of a set, as the superblock knows it.
//!
//! ```text
//!  offset  size
//!       0    16  UUID; all zero: no member
//!      16     8  window, in sectors
//!      24     4  alignment of the data area, in sectors
//!      28     4  number of slots; behind them lie replicas of other members
//!      32     8  first sector of the data area
//!      40     4  blocks of the slot table in each replica
//!      44     4  high-water mark: blocks of the slot table that were initialised
//!      48     1  replicas that are void, a bit each
//!      49     1  superblock copies on it that are void, a bit each
//!      50     1  1: missing; the set was used without it
//!      51     1  number of the member that holds replica 0
//!      52     1  number of the member that holds replica 1
//!      53     3  zero
//!      56     8  replica 0: first sector of its reserve blocks, in the window that holds it
//!      64     8  replica 0: first sector of its table blocks
//!      72     8  replica 1: first sector of its reserve blocks
//!      80     8  replica 1: first sector of its table blocks
//!      88   124  replica 0: what its 31 reserve blocks are used for, 4 bytes each
//!     212   124  replica 1: the same
//!     336    16  zero
//! ```
//!
//! A reserve block is 0 (free), 0xffffffff (bad), or holds a table block: bits 0 to 30 give the
//! block's number plus one, bit 31 says that the block's own place is bad.

use super::{
    super::text::Uuid,
    bytes,
    geometry::{
        Geometry,
        GeometryError, //
    },
    reserve::Reserves,
    table_block::ENTRIES,
    Block,
    FormatError,
    BLOCK_SECTORS,
    MEMBERS_MAX,
    REPLICAS,
    RESERVE_BLOCKS,
    SUPER_COPIES, //
};

/// The bit of a member in a mask of members.
pub fn member_bit(index: u8) -> u8 {
    1u8.checked_shl(index.into()).unwrap_or(0)
}

/// Bytes of a member's record in the superblock.
pub const RECORD_BYTES: usize = 352;

const AT_UUID: usize = 0;
const AT_WINDOW: usize = 16;
const AT_ALIGN: usize = 24;
const AT_SLOTS: usize = 28;
const AT_DATA_START: usize = 32;
const AT_TABLE_BLOCKS: usize = 40;
const AT_HIGH_WATER: usize = 44;
const AT_VOID_REPLICAS: usize = 48;
pub(super) const AT_VOID_SUPERS: usize = 49;
const AT_MISSING: usize = 50;
const AT_HOSTS: usize = 51;
const AT_AREAS: usize = 56;
const AT_RESERVE: usize = 88;

/// Where a replica of a slot table lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The member that holds it.
    pub host: u8,
    /// First sector of its reserve blocks, in the window of that member.
    pub reserve: u64,
    /// First sector of its table blocks.
    pub table: u64,
}

impl Area {
    /// One that begins at `start`, in the data area of member `host`.
    pub fn guest(host: u8, start: u64) -> Self {
        Area {
            host,
            reserve: start,
            table: start.saturating_add(u64::from(RESERVE_BLOCKS) * BLOCK_SECTORS),
        }
    }

    /// How many sectors one has that holds a table of `table_blocks`.
    pub fn guest_sectors(table_blocks: u32) -> u64 {
        (u64::from(RESERVE_BLOCKS) + u64::from(table_blocks)) * BLOCK_SECTORS
    }
}

/// One spare of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Names it.
    pub uuid: Uuid,
    /// Where everything lies on it.
    pub geometry: Geometry,
    /// How many slots there are: those of the geometry, less what other members' replicas take.
    pub slots: u32,
    /// How many blocks of the slot table were initialised.
    pub high_water: u32,
    /// The replicas that are void, a bit each.
    pub void_replicas: u8,
    /// The superblock copies on it that are void, a bit each.
    pub void_supers: u8,
    /// The set was used without it: what is on it is not believed, and no slot of it can be used.
    pub missing: bool,
    /// Where the replicas of its slot table lie.
    pub areas: [Area; REPLICAS as usize],
    /// What the reserve blocks of each replica are used for.
    pub reserve: [Reserves; REPLICAS as usize],
}

impl Member {
    /// A new member, number `index` of its set, with both replicas on itself.
    pub fn new(index: u8, uuid: Uuid, geometry: Geometry) -> Self {
        Member {
            uuid,
            geometry,
            slots: geometry.slots(),
            high_water: 0,
            void_replicas: 0,
            void_supers: 0,
            missing: false,
            areas: [0, 1].map(|replica| home(index, &geometry, replica)),
            reserve: [Reserves::FREE; REPLICAS as usize],
        }
    }

    /// How many blocks its slot table has.
    pub fn table_blocks(&self) -> u32 {
        self.slots
            .div_ceil(ENTRIES)
            .min(self.geometry.table_blocks())
    }

    /// How many slots the first `blocks` blocks of the slot table stand for.
    pub fn slots_in(&self, blocks: u32) -> u32 {
        blocks.saturating_mul(ENTRIES).min(self.slots)
    }

    /// The slots that table block `block` has entries for: the first, and one past the last.
    pub fn block_slots(&self, block: u32) -> (u32, u32) {
        (self.slots_in(block), self.slots_in(block.saturating_add(1)))
    }

    /// How many slots have an entry in an initialised block of the slot table.
    pub fn usable_slots(&self) -> u32 {
        self.slots_in(self.high_water)
    }

    /// One past the last sector that slots take.
    pub fn slots_end(&self) -> u64 {
        let sectors = u64::from(self.slots) * u64::from(self.geometry.slot_sectors());
        self.geometry.data_start().saturating_add(sectors)
    }

    /// Whether replica `replica` of its table is in use.
    pub fn replica_lives(&self, replica: u8) -> bool {
        replica < REPLICAS && self.void_replicas & (1 << replica) == 0
    }

    /// Whether a replica of its table that is in use lies on member `host`.
    pub fn lives_on(&self, host: u8) -> bool {
        let mut areas = self.areas.iter().zip(0u8..);
        areas.any(|(area, replica)| area.host == host && self.replica_lives(replica))
    }

    /// Whether no superblock copy on it is in use.
    fn is_silent(&self) -> bool {
        (0..SUPER_COPIES).all(|copy| !self.super_lives(copy))
    }

    /// Whether it is about to become a member: the others know of it, and nothing lies on it yet.
    pub fn is_joining(&self) -> bool {
        self.is_silent() && !self.missing && self.high_water == 0
    }

    /// Whether nobody has to ask for it: the set goes on without it, and its slots never served
    /// anything.
    pub fn is_dispensable(&self) -> bool {
        self.missing && self.high_water == 0
    }

    /// Whether the set goes on without telling it.
    pub fn is_left_out(&self) -> bool {
        self.is_silent() && !self.is_joining()
    }

    /// Whether superblock copy `copy` on it is in use.
    pub fn super_lives(&self, copy: u8) -> bool {
        copy < SUPER_COPIES && self.void_supers & (1 << copy) == 0
    }

    /// Whether enough superblock copies on it are in use that one may fail.
    pub fn has_supers(&self) -> bool {
        let live = (0..SUPER_COPIES).filter(|copy| self.super_lives(*copy));
        live.count() >= 2
    }

    /// The reserve block of `replica` that stands in for table block `block`, and whether the
    /// block's own place is bad.
    pub fn relocation(&self, replica: u8, block: u32) -> Option<(u8, bool)> {
        self.reserve.get(usize::from(replica))?.find(block)
    }

    /// All relocated blocks: replica and table block.
    pub fn relocations(&self) -> impl Iterator<Item = (u8, u32)> + '_ {
        let replicas = self.reserve.iter().zip(0u8..);
        replicas.flat_map(|(reserves, replica)| reserves.held().map(move |block| (replica, block)))
    }

    /// Whether `replica` lies where it does when this is the only member.
    pub fn is_home(&self, index: u8, replica: u8) -> bool {
        let area = self.areas.get(usize::from(replica));
        area.is_some_and(|area| *area == home(index, &self.geometry, replica))
    }

    /// Reads the record at `at`; none if there is no member.
    pub(super) fn decode_into(
        place: &mut Option<Self>,
        image: &Block,
        at: usize,
        slot_sectors: u32,
    ) -> Result<(), FormatError> {
        *place = None;
        let uuid = Uuid(bytes::get(image, at + AT_UUID));
        if uuid.is_nil() {
            return Ok(());
        }
        let geometry = decode_geometry(image, at, slot_sectors)?;
        let area = |replica: usize| Area {
            host: bytes::get_u8(image, at + AT_HOSTS + replica),
            reserve: bytes::get_u64(image, at + AT_AREAS + 16 * replica),
            table: bytes::get_u64(image, at + AT_AREAS + 16 * replica + 8),
        };
        // In place: the kernel's stack is small.
        let member = place.insert(Member {
            uuid,
            geometry,
            slots: bytes::get_u32(image, at + AT_SLOTS),
            high_water: bytes::get_u32(image, at + AT_HIGH_WATER),
            void_replicas: bytes::get_u8(image, at + AT_VOID_REPLICAS),
            void_supers: bytes::get_u8(image, at + AT_VOID_SUPERS),
            missing: bytes::get_u8(image, at + AT_MISSING) & 1 != 0,
            areas: [area(0), area(1)],
            reserve: [Reserves::FREE; REPLICAS as usize],
        });
        let words = member.reserve.iter_mut().flat_map(Reserves::words_mut);
        for (word, i) in words.zip(0usize..) {
            *word = bytes::get_u32(image, at + AT_RESERVE + 4 * i);
        }
        member.check()
    }

    /// Writes the record at `at`.
    pub(super) fn encode(&self, image: &mut Block, at: usize) {
        let g = &self.geometry;
        bytes::put(image, at + AT_UUID, &self.uuid.0);
        bytes::put(image, at + AT_WINDOW, &g.window_sectors().to_le_bytes());
        bytes::put(image, at + AT_ALIGN, &g.align_sectors().to_le_bytes());
        bytes::put(image, at + AT_SLOTS, &self.slots.to_le_bytes());
        bytes::put(image, at + AT_DATA_START, &g.data_start().to_le_bytes());
        bytes::put(image, at + AT_TABLE_BLOCKS, &g.table_blocks().to_le_bytes());
        bytes::put(image, at + AT_HIGH_WATER, &self.high_water.to_le_bytes());
        bytes::put(image, at + AT_VOID_REPLICAS, &[self.void_replicas]);
        bytes::put(image, at + AT_VOID_SUPERS, &[self.void_supers]);
        bytes::put(image, at + AT_MISSING, &[u8::from(self.missing)]);
        for (area, replica) in self.areas.iter().zip(0usize..) {
            bytes::put(image, at + AT_HOSTS + replica, &[area.host]);
            let at = at + AT_AREAS + 16 * replica;
            bytes::put(image, at, &area.reserve.to_le_bytes());
            bytes::put(image, at + 8, &area.table.to_le_bytes());
        }
        let mut at = at + AT_RESERVE;
        for word in self.reserve.iter().flat_map(Reserves::words) {
            bytes::put(image, at, &word.to_le_bytes());
            at += 4;
        }
    }

    /// Checks what can be checked without the other members.
    fn check(&self) -> Result<(), FormatError> {
        let field = |name| Err(FormatError::Field { name });
        if self.slots > self.geometry.slots() {
            return field("number of slots");
        }
        if self.high_water > self.table_blocks() {
            return field("high-water mark");
        }
        // What has no replica must not be in use.
        let all = (1 << REPLICAS) - 1;
        if self.void_replicas > all || self.void_replicas == all && self.high_water != 0 {
            return field("void replicas");
        }
        if self.void_supers >= 1 << SUPER_COPIES {
            return field("void superblock copies");
        }
        if self.areas.iter().any(|area| area.host >= MEMBERS_MAX) {
            return field("place of a replica");
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

/// Where `replica` of a member's table lies if it is the only one.
pub fn home(index: u8, geometry: &Geometry, replica: u8) -> Area {
    let (reserve, table) = geometry.home(replica).unwrap_or((0, 0));
    Area {
        host: index,
        reserve,
        table,
    }
}

/// The places are stored, so that others can read them without computing, and are checked against
/// what they must be.
fn decode_geometry(image: &Block, at: usize, slot_sectors: u32) -> Result<Geometry, FormatError> {
    let align = bytes::get_u32(image, at + AT_ALIGN);
    let geometry = Geometry::new(bytes::get_u64(image, at + AT_WINDOW), slot_sectors, align)?;
    let same = geometry.align_sectors() == align
        && geometry.data_start() == bytes::get_u64(image, at + AT_DATA_START)
        && geometry.table_blocks() == bytes::get_u32(image, at + AT_TABLE_BLOCKS);
    if same {
        Ok(geometry)
    } else {
        Err(GeometryError::Mismatch.into())
    }
}
