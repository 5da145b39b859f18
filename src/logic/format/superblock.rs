// SPDX-License-Identifier: GPL-2.0

//! The superblock: what the set of spares is, and where its metadata lies.
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
//!      56    16  UUID of the spare that this copy lies on
//!      72     1  number of that spare in the set
//!      73     1  number of this copy, 0 to 3
//!      74     1  replicas of each slot table, 2
//!      75     1  reserve blocks of each replica, 31
//!      76     4  zero
//!      80     8  set epoch: raised when the set is used without one of its members
//!      88     8  sequence: orders the versions of the superblock
//!      96     4  activation epoch: the highest that any commit may have used
//!     100     4  slot, in sectors
//!     104     4  logical block of main, in bytes
//!     108     4  zero
//!     112     8  sectors of main, the most that were ever used
//!     120    64  what the user calls main, padded with zeroes
//!     184     1  1 if the last activation was ended in order
//!     185     1  what users have switched on or off
//!     186    70  zero
//!     256   128  statistics, 8 bytes each (see `Statistics`)
//!     384   128  zero
//!     512   352  member 0 (see `Member`)
//!     864   352  member 1
//!    1216   352  member 2
//!    1568   352  member 3
//!    1920  1024  ranges of main that are not read, 16 bytes each: first block, number of blocks
//!    2944  1152  zero
//! ```

use super::{
    super::{
        avoid::{
            Avoided,
            AVOIDED_MAX, //
        },
        message::Blocks,
        text::{
            MainId,
            Uuid, //
        }, //
    },
    bytes,
    geometry::Geometry,
    head,
    is_zero,
    member::{
        Area,
        Member,
        AT_VOID_SUPERS,
        RECORD_BYTES, //
    },
    Block,
    BlockId,
    FormatError,
    Place,
    Statistics,
    BLOCK_SECTORS,
    MEMBERS_MAX,
    REPLICAS,
    RESERVE_BLOCKS,
    SUPER_COPIES, //
};

const MAGIC: [u8; 8] = *b"DM-REMAP";

const AT_COMPAT: usize = 16;
const AT_RO_COMPAT: usize = 24;
const AT_INCOMPAT: usize = 32;
const AT_SET_UUID: usize = 40;
const AT_OWN_UUID: usize = 56;
const AT_OWN_INDEX: usize = 72;
const AT_COPY: usize = 73;
const AT_REPLICAS: usize = 74;
const AT_RESERVE_BLOCKS: usize = 75;
const AT_SET_EPOCH: usize = 80;
const AT_SEQUENCE: usize = 88;
const AT_EPOCH: usize = 96;
const AT_SLOT_SECTORS: usize = 100;
const AT_MAIN_BLOCK_BYTES: usize = 104;
const AT_MAIN_SECTORS: usize = 112;
const AT_MAIN_ID: usize = 120;
const AT_CLEAN: usize = 184;
const AT_SWITCHES: usize = 185;
const AT_STATISTICS: usize = 256;
const AT_MEMBERS: usize = 512;
const AT_AVOIDED: usize = 1920;
const RANGE_BYTES: usize = 16;
// The rest is for what a device has been through, once that is kept.
const _: () = assert!(AT_AVOIDED + RANGE_BYTES * AVOIDED_MAX == 2944);

/// Features that may be ignored, known to this version.
pub const COMPAT_KNOWN: u64 = 0;
/// Features that may be ignored for reading, known to this version.
pub const RO_COMPAT_KNOWN: u64 = RO_COMPAT_AVOIDED | RO_COMPAT_SWITCHES;
/// There may be ranges of main that are not read: who does not know them would drop them.
pub const RO_COMPAT_AVOIDED: u64 = 1;
/// What users have switched on or off may be there: the same.
pub const RO_COMPAT_SWITCHES: u64 = 2;
/// Features that may not be ignored, known to this version.
pub const INCOMPAT_KNOWN: u64 = INCOMPAT_LOST | INCOMPAT_UNFINISHED | INCOMPAT_GIVEN_UP;
/// There may be entries of lost blocks: who does not know them would take a slot without content for the truth.
pub const INCOMPAT_LOST: u64 = 1;
/// A new spare is about to take over from dead ones, and does not have all that is lost with them yet: without the
/// rest, main would answer for it. Such a set is not used.
pub const INCOMPAT_UNFINISHED: u64 = 2;
/// There may be entries of blocks that users gave up: who does not know them would take their table blocks for damaged.
pub const INCOMPAT_GIVEN_UP: u64 = 4;

/// What users have switched on or off, and is to be so when the device is used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// Whether blocks that fail are moved without being asked for; none if nobody has said so.
    pub auto_remap: Option<bool>,
}

impl Switches {
    /// Nobody has said anything.
    pub const NONE: Switches = Switches { auto_remap: None };

    const fn to_byte(self) -> u8 {
        match self.auto_remap {
            None => 0,
            Some(false) => 1,
            Some(true) => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        Some(Switches {
            auto_remap: match byte {
                0 => None,
                1 => Some(false),
                3 => Some(true),
                _ => return None,
            },
        })
    }
}

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Features that may be ignored.
    pub compat: u64,
    /// Features that may be ignored for reading.
    pub ro_compat: u64,
    /// Features that may not be ignored.
    pub incompat: u64,
    /// Names the set.
    pub set_uuid: Uuid,
    /// Raised when the set is used without one of its members.
    pub set_epoch: u64,
    /// Orders the versions of the superblock.
    pub sequence: u64,
    /// The highest activation epoch that any commit may have used.
    pub epoch: u32,
    /// The size of a slot.
    pub slot_sectors: u32,
    /// Main's logical block, in bytes.
    pub main_block_bytes: u32,
    /// Main's size, the largest there ever was.
    pub main_sectors: u64,
    /// What the user calls main.
    pub main_id: MainId,
    /// Whether the last activation was ended in order. Just told to users: no step of loading is
    /// left out for it.
    pub clean: bool,
    /// What users have switched on or off. Not there without [`RO_COMPAT_SWITCHES`].
    pub switches: Switches,
    /// Which ranges of main are not read. Not there without [`RO_COMPAT_AVOIDED`].
    pub avoided: Avoided,
    /// What is counted.
    pub statistics: Statistics,
    /// The spares, by number. Of one that has left the set, the number is free.
    pub members: [Option<Member>; MEMBERS_MAX as usize],
}

/// Which copy of the superblock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyId {
    /// The member that it lies on.
    pub member: u8,
    /// Its number there.
    pub copy: u8,
}

impl CopyId {
    /// The bit that stands for it in a mask of all copies.
    pub fn bit(self) -> u16 {
        let index = u32::from(self.member) * u32::from(SUPER_COPIES) + u32::from(self.copy);
        1u16.checked_shl(index).unwrap_or(0)
    }

    /// The copy with the lowest bit in a mask.
    pub fn lowest(mask: u16) -> Option<Self> {
        let index = u8::try_from(mask.trailing_zeros()).ok()?;
        (mask != 0).then_some(CopyId {
            member: index / SUPER_COPIES,
            copy: index % SUPER_COPIES,
        })
    }
}

impl Superblock {
    /// The superblock of no set at all, to be overwritten.
    pub const EMPTY: Superblock = Superblock {
        compat: 0,
        ro_compat: 0,
        incompat: 0,
        set_uuid: Uuid::NIL,
        set_epoch: 0,
        sequence: 0,
        epoch: 0,
        slot_sectors: 0,
        main_block_bytes: 0,
        main_sectors: 0,
        main_id: MainId::NONE,
        clean: false,
        switches: Switches::NONE,
        avoided: Avoided::NOTHING,
        statistics: Statistics::ZERO,
        members: [const { None }; MEMBERS_MAX as usize],
    };

    /// Makes this the superblock of a new set of one spare.
    pub fn begin(
        &mut self,
        set_uuid: Uuid,
        member_uuid: Uuid,
        geometry: Geometry,
        main_sectors: u64,
        main_id: MainId,
    ) {
        *self = Self::EMPTY;
        self.set_uuid = set_uuid;
        self.set_epoch = 1;
        self.slot_sectors = geometry.slot_sectors();
        // A slot has at most 8 sectors.
        self.main_block_bytes = geometry.slot_sectors().saturating_mul(512);
        self.main_sectors = main_sectors;
        self.main_id = main_id;
        self.clean = true;
        if let Some(first) = self.members.first_mut() {
            *first = Some(Member::new(0, member_uuid, geometry));
        }
    }

    /// The superblock of a new set of one spare. Not for the kernel, whose stack is small.
    #[inline]
    pub fn new(
        set_uuid: Uuid,
        member_uuid: Uuid,
        geometry: Geometry,
        main_sectors: u64,
        main_id: MainId,
    ) -> Self {
        let mut superblock = Self::EMPTY;
        superblock.begin(set_uuid, member_uuid, geometry, main_sectors, main_id);
        superblock
    }

    /// Becomes what `other` is. In place, because a superblock is large for the kernel's stack.
    pub fn copy_from(&mut self, other: &Self) {
        // Named one by one, so that none is forgotten.
        let Self {
            compat,
            ro_compat,
            incompat,
            set_uuid,
            set_epoch,
            sequence,
            epoch,
            slot_sectors,
            main_block_bytes,
            main_sectors,
            main_id,
            clean,
            switches,
            avoided,
            statistics,
            members,
        } = other;
        self.compat = *compat;
        self.ro_compat = *ro_compat;
        self.incompat = *incompat;
        self.set_uuid = *set_uuid;
        self.set_epoch = *set_epoch;
        self.sequence = *sequence;
        self.epoch = *epoch;
        self.slot_sectors = *slot_sectors;
        self.main_block_bytes = *main_block_bytes;
        self.main_sectors = *main_sectors;
        self.main_id = *main_id;
        self.clean = *clean;
        self.switches = *switches;
        self.avoided = *avoided;
        self.statistics = *statistics;
        self.members = *members;
    }

    /// Whether features that this version does not know forbid writing anything to the spares.
    pub fn is_read_only(&self) -> bool {
        self.ro_compat & !RO_COMPAT_KNOWN != 0
    }

    /// Whether a new spare was about to take over from dead ones, and does not know all that they had.
    pub fn is_unfinished(&self) -> bool {
        self.incompat & INCOMPAT_UNFINISHED != 0
    }

    /// Member number `index`.
    pub fn member(&self, index: u8) -> Option<&Member> {
        self.members.get(usize::from(index))?.as_ref()
    }

    /// Member number `index`.
    pub fn member_mut(&mut self, index: u8) -> Option<&mut Member> {
        self.members.get_mut(usize::from(index))?.as_mut()
    }

    /// All members and their numbers.
    pub fn members(&self) -> impl Iterator<Item = (u8, &Member)> + Clone + '_ {
        let numbered = (0u8..).zip(&self.members);
        numbered.filter_map(|(index, member)| Some((index, member.as_ref()?)))
    }

    /// The member of that name.
    pub fn find_member(&self, uuid: &Uuid) -> Option<u8> {
        self.members()
            .find_map(|(index, member)| (member.uuid == *uuid).then_some(index))
    }

    /// How many main blocks entries may name.
    pub fn main_blocks(&self) -> u64 {
        self.main_sectors
            .checked_shr(self.slot_sectors.trailing_zeros())
            .unwrap_or(0)
    }

    /// Whether the set has metadata that is not in use, or a member that is missing.
    pub fn is_degraded(&self) -> bool {
        self.members().any(|(_, member)| {
            member.missing || member.void_replicas != 0 || member.void_supers != 0
        })
    }

    /// Where `replica` has table block `id` now.
    pub fn table_place(&self, replica: u8, id: BlockId) -> Option<Place> {
        match self.member(id.member)?.relocation(replica, id.block) {
            Some((index, _)) => self.reserve_place(replica, id.member, index),
            None => self.own_place(replica, id),
        }
    }

    /// Where `replica` has table block `id` unless that was relocated.
    pub fn own_place(&self, replica: u8, id: BlockId) -> Option<Place> {
        let member = self.member(id.member)?;
        if id.block >= member.geometry.table_blocks() {
            return None;
        }
        let area = member.areas.get(usize::from(replica))?;
        Some(Place {
            member: area.host,
            sector: area
                .table
                .checked_add(u64::from(id.block) * BLOCK_SECTORS)?,
        })
    }

    /// Where reserve block `index` of `replica` lies, of the table of member `member`.
    pub fn reserve_place(&self, replica: u8, member: u8, index: u8) -> Option<Place> {
        let area = self.member(member)?.areas.get(usize::from(replica))?;
        if index >= RESERVE_BLOCKS {
            return None;
        }
        Some(Place {
            member: area.host,
            sector: area.reserve.checked_add(u64::from(index) * BLOCK_SECTORS)?,
        })
    }

    /// Where a superblock copy lies.
    pub fn super_place(&self, id: CopyId) -> Option<Place> {
        let geometry = &self.member(id.member)?.geometry;
        Some(Place {
            member: id.member,
            sector: geometry.superblock_sector(id.copy)?,
        })
    }

    /// All copies that there can be; a bit each.
    pub fn all_supers(&self) -> u16 {
        self.copies(|_| (1 << SUPER_COPIES) - 1)
    }

    /// The copies that are in use; a bit each.
    pub fn live_supers(&self) -> u16 {
        self.copies(|member| !member.void_supers & ((1 << SUPER_COPIES) - 1))
    }

    fn copies(&self, of: impl Fn(&Member) -> u8) -> u16 {
        self.members().fold(0, |mask, (index, member)| {
            let shift = u32::from(index) * u32::from(SUPER_COPIES);
            mask | u16::from(of(member)).checked_shl(shift).unwrap_or(0)
        })
    }

    /// Says that a copy is in use, or is not.
    pub fn set_super(&mut self, id: CopyId, lives: bool) {
        let bit = 1u8.checked_shl(id.copy.into()).unwrap_or(0);
        if let Some(member) = self.member_mut(id.member) {
            if lives {
                member.void_supers &= !bit;
            } else {
                member.void_supers |= bit;
            }
        }
    }

    /// Checks all of `image`, read where copy `copy` belongs, and takes over what it says. Returns
    /// the number of the member that the copy lies on. After an error, what is in here means nothing.
    ///
    /// In place, because a superblock is large for the kernel's stack.
    pub fn decode_into(&mut self, image: &Block, copy: u8) -> Result<u8, FormatError> {
        let field = |name| FormatError::Field { name };
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
        if bytes::get_u8(image, AT_REPLICAS) != REPLICAS {
            return Err(field("number of replicas"));
        }
        if bytes::get_u8(image, AT_RESERVE_BLOCKS) != RESERVE_BLOCKS {
            return Err(field("number of reserve blocks"));
        }
        self.compat = bytes::get_u64(image, AT_COMPAT);
        self.ro_compat = bytes::get_u64(image, AT_RO_COMPAT);
        self.incompat = incompat;
        self.set_uuid = Uuid(bytes::get(image, AT_SET_UUID));
        self.set_epoch = bytes::get_u64(image, AT_SET_EPOCH);
        self.sequence = bytes::get_u64(image, AT_SEQUENCE);
        self.epoch = bytes::get_u32(image, AT_EPOCH);
        self.slot_sectors = bytes::get_u32(image, AT_SLOT_SECTORS);
        self.main_block_bytes = bytes::get_u32(image, AT_MAIN_BLOCK_BYTES);
        self.main_sectors = bytes::get_u64(image, AT_MAIN_SECTORS);
        self.main_id = MainId::from_bytes(bytes::get(image, AT_MAIN_ID)).ok_or(field("main_id"))?;
        self.clean = bytes::get_u8(image, AT_CLEAN) & 1 != 0;
        self.decode_switches(image)?;
        self.decode_avoided(image)?;
        self.statistics = Statistics::from_words(core::array::from_fn(|i| {
            bytes::get_u64(image, AT_STATISTICS + 8 * i)
        }));
        for (member, i) in self.members.iter_mut().zip(0usize..) {
            let at = AT_MEMBERS + RECORD_BYTES * i;
            Member::decode_into(member, image, at, self.slot_sectors)?;
        }
        self.check()?;
        let own = bytes::get_u8(image, AT_OWN_INDEX);
        let own_uuid = Uuid(bytes::get(image, AT_OWN_UUID));
        match self.member(own) {
            Some(member) if member.uuid != own_uuid => Err(field("member index")),
            // A copy that is void is not written, so none says so of itself.
            Some(member) if !member.super_lives(copy) => Err(field("void superblock copies")),
            Some(_) => Ok(own),
            None => Err(field("member index")),
        }
    }

    fn decode_switches(&mut self, image: &Block) -> Result<(), FormatError> {
        let byte = match self.ro_compat & RO_COMPAT_SWITCHES {
            0 => 0,
            _ => bytes::get_u8(image, AT_SWITCHES),
        };
        let field = FormatError::Field { name: "switches" };
        self.switches = Switches::from_byte(byte).ok_or(field)?;
        Ok(())
    }

    /// The ranges end with the first one of no blocks.
    fn decode_avoided(&mut self, image: &Block) -> Result<(), FormatError> {
        self.avoided = Avoided::NOTHING;
        if self.ro_compat & RO_COMPAT_AVOIDED == 0 {
            return Ok(());
        }
        let mut ended = false;
        for index in 0..AVOIDED_MAX {
            let at = AT_AVOIDED + RANGE_BYTES * index;
            let range = Blocks {
                first: bytes::get_u64(image, at),
                count: bytes::get_u64(image, at + 8),
            };
            let nothing = (range.first, range.count) == (0, 0);
            ended |= nothing;
            let end = range.first.saturating_add(range.count);
            let legal = nothing || end <= self.main_blocks() && self.avoided.push(range);
            if !legal || ended && !nothing {
                return Err(FormatError::Field {
                    name: "avoided ranges",
                });
            }
        }
        Ok(())
    }

    /// Checks all of `image`, read where copy `copy` belongs. Not for the kernel, whose stack is small.
    #[inline]
    pub fn decode(image: &Block, copy: u8) -> Result<Self, FormatError> {
        let mut superblock = Self::EMPTY;
        superblock.decode_into(image, copy)?;
        Ok(superblock)
    }

    /// The bytes that are the same in every copy: all but the checksum and what the copy says of
    /// its own place.
    pub fn content(image: &Block) -> Option<(&[u8], &[u8])> {
        Some((
            image.get(head::AT_VERSION..AT_OWN_UUID)?,
            image.get(AT_REPLICAS..)?,
        ))
    }

    /// Whether `image` can be what a crash left of the first write of a copy to where all was zero, by
    /// what another copy, `whole`, says of the set.
    pub fn is_begun(image: &Block, whole: &Block) -> bool {
        let sectors = image.chunks(512).zip(whole.chunks(512));
        sectors.zip((0..).step_by(512)).all(|((part, whole), at)| {
            if is_zero(part) {
                return true;
            }
            if at == 0 {
                let set = AT_SET_UUID..AT_SET_UUID + 16;
                return part.starts_with(&MAGIC) && part.get(set.clone()) == whole.get(set);
            }
            // Which copies are in use is what changes from write to write.
            let changes = |at: usize| {
                let in_record = at.checked_sub(AT_MEMBERS).map(|at| at % RECORD_BYTES);
                in_record == Some(AT_VOID_SUPERS)
            };
            let mut bytes = part.iter().zip(whole).zip(at..);
            bytes.all(|((part, whole), at)| part == whole || changes(at))
        })
    }

    /// Makes a copy.
    pub fn encode(&self, image: &mut Block, id: CopyId) {
        head::begin(image, &MAGIC);
        bytes::put(image, AT_COMPAT, &self.compat.to_le_bytes());
        bytes::put(image, AT_RO_COMPAT, &self.ro_compat.to_le_bytes());
        bytes::put(image, AT_INCOMPAT, &self.incompat.to_le_bytes());
        bytes::put(image, AT_SET_UUID, &self.set_uuid.0);
        if let Some(own) = self.member(id.member) {
            bytes::put(image, AT_OWN_UUID, &own.uuid.0);
        }
        bytes::put(image, AT_OWN_INDEX, &[id.member]);
        bytes::put(image, AT_COPY, &[id.copy]);
        bytes::put(image, AT_REPLICAS, &[REPLICAS]);
        bytes::put(image, AT_RESERVE_BLOCKS, &[RESERVE_BLOCKS]);
        bytes::put(image, AT_SET_EPOCH, &self.set_epoch.to_le_bytes());
        bytes::put(image, AT_SEQUENCE, &self.sequence.to_le_bytes());
        bytes::put(image, AT_EPOCH, &self.epoch.to_le_bytes());
        bytes::put(image, AT_SLOT_SECTORS, &self.slot_sectors.to_le_bytes());
        let block_bytes = self.main_block_bytes.to_le_bytes();
        bytes::put(image, AT_MAIN_BLOCK_BYTES, &block_bytes);
        bytes::put(image, AT_MAIN_SECTORS, &self.main_sectors.to_le_bytes());
        bytes::put(image, AT_MAIN_ID, self.main_id.as_bytes());
        bytes::put(image, AT_CLEAN, &[u8::from(self.clean)]);
        bytes::put(image, AT_SWITCHES, &[self.switches.to_byte()]);
        let mut at = AT_AVOIDED;
        for range in self.avoided.ranges() {
            bytes::put(image, at, &range.first.to_le_bytes());
            bytes::put(image, at + 8, &range.count.to_le_bytes());
            at += RANGE_BYTES;
        }
        let mut at = AT_STATISTICS;
        for word in self.statistics.to_words() {
            bytes::put(image, at, &word.to_le_bytes());
            at += 8;
        }
        for (index, member) in self.members() {
            member.encode(image, AT_MEMBERS + RECORD_BYTES * usize::from(index));
        }
        head::seal(image);
    }

    fn check(&self) -> Result<(), FormatError> {
        let field = |name| Err(FormatError::Field { name });
        if self.set_uuid.is_nil() {
            return field("UUID");
        }
        if self.epoch >= 1 << 24 {
            return field("activation epoch");
        }
        if u64::from(self.main_block_bytes) != u64::from(self.slot_sectors) * 512 {
            return field("logical block of main");
        }
        if self.main_sectors == 0 || self.main_sectors > 1 << 48 {
            return field("size of main");
        }
        if self.live_supers() == 0 {
            return field("void superblock copies");
        }
        for (index, member) in self.members() {
            let twice = |(other, m): (u8, &Member)| other != index && m.uuid == member.uuid;
            if self.members().any(twice) {
                return field("UUID of a spare");
            }
            for replica in 0..REPLICAS {
                if !self.is_area_legal(index, member, replica) {
                    return field("place of a replica");
                }
            }
        }
        Ok(())
    }

    /// Whether a replica lies where nothing else does.
    fn is_area_legal(&self, index: u8, member: &Member, replica: u8) -> bool {
        if member.is_home(index, replica) {
            return true;
        }
        let Some((area, range)) = self.guest_range(member, replica) else {
            return false;
        };
        let Some(host) = self.member(area.host) else {
            return false;
        };
        let aligned = range.0 % BLOCK_SECTORS == 0;
        if !aligned || range.0 < host.slots_end() || range.1 > host.geometry.data_end() {
            return false;
        }
        self.guests(area.host).all(|(other, other_replica, taken)| {
            (other, other_replica) == (index, replica) || range.1 <= taken.0 || taken.1 <= range.0
        })
    }

    /// The place of a replica that is not at home, if its parts are where they should be.
    fn guest_range(&self, member: &Member, replica: u8) -> Option<(Area, (u64, u64))> {
        let area = *member.areas.get(usize::from(replica))?;
        let end = area
            .reserve
            .checked_add(Area::guest_sectors(member.geometry.table_blocks()))?;
        let whole = area == Area::guest(area.host, area.reserve);
        whole.then_some((area, (area.reserve, end)))
    }

    /// The replicas that lie in the data area of member `host`: whose table it is, which replica,
    /// and where: first sector and one past the last.
    pub fn guests(&self, host: u8) -> impl Iterator<Item = (u8, u8, (u64, u64))> + '_ {
        Guests {
            superblock: self,
            host,
            next: (0, 0),
        }
    }
}

/// See [`Superblock::guests`]. The same as a chain of adapters has names that are too long for objtool.
struct Guests<'a> {
    superblock: &'a Superblock,
    host: u8,
    /// Member and replica.
    next: (u8, u8),
}

impl Iterator for Guests<'_> {
    type Item = (u8, u8, (u64, u64));

    fn next(&mut self) -> Option<Self::Item> {
        while usize::from(self.next.0) < self.superblock.members.len() {
            let (index, replica) = self.next;
            self.next = match replica.checked_add(1) {
                Some(after) if after < REPLICAS => (index, after),
                _ => (index.checked_add(1)?, 0),
            };
            let Some(member) = self.superblock.member(index) else {
                continue;
            };
            let Some((area, range)) = self.superblock.guest_range(member, replica) else {
                continue;
            };
            if area.host == self.host && !member.is_home(index, replica) {
                return Some((index, replica, range));
            }
        }
        None
    }
}
