// SPDX-License-Identifier: GPL-2.0

//! All that a set's metadata says, as JSON.
//!
//! The form has a version of its own, [`VERSION`]. Fields that are added later are optional; a field
//! that this version does not know is refused, because a dump that is restored must be restored
//! whole.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use dm_remap_logic::avoid::AVOIDED_MAX;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::reserve::Reserves;
use dm_remap_logic::format::Area;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Statistics;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::message::Blocks;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;
use serde::Deserialize;
use serde::Serialize;

use crate::set::Set;
use crate::set::SlotId;

/// The version of the form.
pub const VERSION: u32 = 1;

/// The largest dump that is read: two thousand million bytes hold twenty million entries.
pub const BYTES_MAX: u64 = 2_000_000_000;

/// A dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// The version of the form.
    pub dmremap_dump: u32,
    /// The version of the format on the spare.
    pub format: u32,
    /// What is said about the whole set.
    pub set: SetSaid,
    /// What is said about each spare.
    pub members: Vec<MemberSaid>,
    /// The entries of the slot table that were ever used.
    pub entries: Vec<EntrySaid>,
}

/// What the superblock says about the whole set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of Superblock")]
pub struct SetSaid {
    pub uuid: String,
    pub set_epoch: u64,
    pub sequence: u64,
    pub epoch: u32,
    pub clean: bool,
    pub compat: u64,
    pub ro_compat: u64,
    pub incompat: u64,
    pub slot_sectors: u32,
    pub main_sectors: u64,
    pub main_block_bytes: u32,
    pub main_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_remap: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoided: Vec<RangeSaid>,
    pub statistics: StatisticsSaid,
}

/// Blocks of main that are not to be read there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of Blocks")]
pub struct RangeSaid {
    pub first: u64,
    pub count: u64,
}

/// The part of [`SetSaid`] that tells of which set and how old a dump is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of Superblock")]
pub struct HeadSaid {
    pub uuid: String,
    pub set_epoch: u64,
    pub sequence: u64,
}

/// What the superblock says about one spare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the names are those of Superblock and Geometry"
)]
pub struct MemberSaid {
    pub uuid: String,
    pub index: u8,
    pub missing: bool,
    pub window_sectors: u64,
    pub align_sectors: u32,
    pub data_start: u64,
    pub slots: u32,
    pub table_blocks: u32,
    pub high_water: u32,
    pub void_replicas: Vec<u8>,
    pub void_superblocks: Vec<u8>,
    /// Where its replicas lie, and what their reserve blocks are used for.
    pub replicas: Vec<ReplicaSaid>,
}

/// Where a replica lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaSaid {
    /// The member that it lies on.
    pub host: u8,
    /// First sector of its reserve blocks there.
    pub reserve: u64,
    /// First sector of its table blocks.
    pub table: u64,
    /// Its reserve blocks that are not free.
    pub reserves: Vec<ReserveSaid>,
}

/// What a reserve block is used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveSaid {
    /// Its number.
    pub reserve: u8,
    /// The table block that it holds; none if it failed.
    pub holds: Option<u32>,
    /// Whether that block's own place is bad.
    pub home_bad: bool,
}

/// One entry of the slot table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of SlotWord and Entry")]
pub struct EntrySaid {
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spare: u8,
    pub slot: u32,
    pub state: StateSaid,
    pub main_block: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    pub manual: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub raw: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub given_up: bool,
    pub generation: u64,
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of SlotState")]
pub enum StateSaid {
    Free,
    Valid,
    Pending,
    Bad,
    Lost,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u8) -> bool {
    *value == 0
}

macro_rules! statistics {
    ($($name:ident),*) => {
        /// What is counted.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "the names are those of Statistics")]
        pub struct StatisticsSaid {
            $(pub $name: u64,)*
            pub reserved: [u64; 2],
        }

        impl From<Statistics> for StatisticsSaid {
            fn from(from: Statistics) -> Self {
                Self { $($name: from.$name,)* reserved: from.reserved }
            }
        }

        impl From<&StatisticsSaid> for Statistics {
            fn from(from: &StatisticsSaid) -> Self {
                Self { $($name: from.$name,)* reserved: from.reserved }
            }
        }

        impl StatisticsSaid {
            /// Names and values.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

statistics!(
    saves,
    saves_done,
    auto_remaps,
    manual_remaps,
    write_errors,
    read_errors,
    spare_write_errors,
    spare_read_errors,
    lost,
    removed,
    metadata_repairs,
    activations,
    redirected_reads,
    redirected_writes
);

/// Why a dump is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpError(String);

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DumpError {}

fn wrong<T>(text: impl Into<String>) -> Result<T, DumpError> {
    Err(DumpError(text.into()))
}

/// What a dump stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The superblock.
    pub superblock: Superblock,
    /// The entries that are listed; all others are unused.
    pub entries: BTreeMap<SlotId, Entry>,
}

/// Makes the dump of a set.
pub fn encode(set: &Set) -> Dump {
    let superblock = &set.superblock;
    let blocks = set.table_blocks();
    Dump {
        dmremap_dump: VERSION,
        format: dm_remap_logic::format::FORMAT_VERSION,
        set: SetSaid {
            uuid: superblock.set_uuid.to_string(),
            set_epoch: superblock.set_epoch,
            sequence: superblock.sequence,
            epoch: superblock.epoch,
            clean: superblock.clean,
            compat: superblock.compat,
            ro_compat: superblock.ro_compat,
            incompat: superblock.incompat,
            slot_sectors: superblock.slot_sectors,
            main_sectors: superblock.main_sectors,
            main_block_bytes: superblock.main_block_bytes,
            main_id: superblock.main_id.as_str().into(),
            auto_remap: superblock.switches.auto_remap,
            avoided: encode_ranges(superblock.avoided.ranges()),
            statistics: superblock.statistics.into(),
        },
        members: superblock
            .members()
            .map(|(index, member)| {
                let found = blocks.get(usize::from(index)).copied();
                encode_member(index, member, found.unwrap_or(0))
            })
            .collect(),
        entries: set
            .slots()
            .filter(|(_, entry)| **entry != Entry::UNUSED)
            .map(|(id, entry)| encode_entry(id, entry))
            .collect(),
    }
}

fn encode_ranges(ranges: &[Blocks]) -> Vec<RangeSaid> {
    let said = ranges.iter().map(|range| RangeSaid {
        first: range.first,
        count: range.count,
    });
    said.collect()
}

fn encode_member(index: u8, member: &Member, blocks: u32) -> MemberSaid {
    let geometry = &member.geometry;
    let bits = |mask: u8, count: u8| (0..count).filter(|bit| mask & (1 << bit) != 0).collect();
    MemberSaid {
        uuid: member.uuid.to_string(),
        index,
        missing: member.missing,
        window_sectors: geometry.window_sectors(),
        align_sectors: geometry.align_sectors(),
        data_start: geometry.data_start(),
        slots: member.slots,
        table_blocks: geometry.table_blocks(),
        high_water: member.high_water.max(blocks),
        void_replicas: bits(member.void_replicas, REPLICAS),
        void_superblocks: bits(member.void_supers, SUPER_COPIES),
        replicas: member
            .areas
            .iter()
            .zip(&member.reserve)
            .map(|(area, reserves)| ReplicaSaid {
                host: area.host,
                reserve: area.reserve,
                table: area.table,
                reserves: encode_reserves(reserves),
            })
            .collect(),
    }
}

fn encode_reserves(reserves: &Reserves) -> Vec<ReserveSaid> {
    let said = reserves.iter().zip(0u8..);
    said.filter_map(|(reserve, number)| match reserve {
        Reserve::Free => None,
        Reserve::Bad => Some(ReserveSaid {
            reserve: number,
            holds: None,
            home_bad: false,
        }),
        Reserve::Holds { block, home_bad } => Some(ReserveSaid {
            reserve: number,
            holds: Some(block),
            home_bad,
        }),
    })
    .collect()
}

fn encode_entry(id: SlotId, entry: &Entry) -> EntrySaid {
    let word = entry.word;
    EntrySaid {
        spare: id.member,
        slot: id.slot,
        state: match word.state() {
            SlotState::Free => StateSaid::Free,
            SlotState::Valid => StateSaid::Valid,
            SlotState::Pending => StateSaid::Pending,
            SlotState::Bad => StateSaid::Bad,
            SlotState::Lost => StateSaid::Lost,
        },
        main_block: word.main_block(),
        manual: word.origin() == Origin::Manual,
        raw: word.is_raw(),
        given_up: word.is_given_up(),
        generation: entry.generation,
    }
}

/// What a dump begins with; none if it is no dump of this version.
pub fn head(json: impl Read) -> Option<HeadSaid> {
    #[derive(Deserialize)]
    struct Head {
        dmremap_dump: u32,
        set: HeadSaid,
    }
    let head: Head = serde_json::from_reader(json).ok()?;
    (head.dmremap_dump == VERSION).then_some(head.set)
}

/// Reads a dump and checks all of it: what it stands for could be written to a spare.
pub fn decode(json: &[u8]) -> Result<Decoded, DumpError> {
    /// Read first, so that a later version is told as one.
    #[derive(Deserialize)]
    struct Head {
        dmremap_dump: Option<u32>,
    }
    let head: Head = match serde_json::from_slice(json) {
        Ok(head) => head,
        Err(error) => return wrong(format!("no dump of dmremap: {error}")),
    };
    match head.dmremap_dump {
        Some(VERSION) => (),
        Some(version) => {
            return wrong(format!(
                "a dump of version {version}; this dmremap reads version {VERSION}"
            ))
        }
        None => return wrong("no dump of dmremap: there is no dmremap_dump in it"),
    }
    let dump: Dump = match serde_json::from_slice(json) {
        Ok(dump) => dump,
        Err(error) => return wrong(error.to_string()),
    };
    decode_dump(&dump)
}

fn decode_dump(dump: &Dump) -> Result<Decoded, DumpError> {
    let said = &dump.set;
    if dump.format != dm_remap_logic::format::FORMAT_VERSION {
        return wrong(format!(
            "of format {}; this dmremap writes {}",
            dump.format,
            dm_remap_logic::format::FORMAT_VERSION
        ));
    }
    let mut superblock = Superblock::EMPTY;
    superblock.set_uuid = uuid(&said.uuid, "set uuid")?;
    superblock.main_id = match (said.main_id.as_str(), MainId::new(&said.main_id)) {
        ("", _) => MainId::NONE,
        (_, Some(id)) => id,
        (_, None) => {
            return wrong("main_id: up to 64 visible ASCII characters without blanks are allowed")
        }
    };
    superblock.compat = said.compat;
    superblock.ro_compat = said.ro_compat;
    superblock.incompat = said.incompat;
    superblock.set_epoch = said.set_epoch;
    superblock.sequence = said.sequence;
    superblock.epoch = said.epoch;
    superblock.clean = said.clean;
    superblock.switches.auto_remap = said.auto_remap;
    for said in &said.avoided {
        let (first, count) = (said.first, said.count);
        if !superblock.avoided.push(Blocks { first, count }) {
            return wrong(format!(
                "avoided: {count} blocks from {first} on: up to {AVOIDED_MAX} ranges in order are allowed, with others between"
            ));
        }
    }
    superblock.slot_sectors = said.slot_sectors;
    superblock.main_sectors = said.main_sectors;
    superblock.main_block_bytes = said.main_block_bytes;
    superblock.statistics = (&said.statistics).into();
    if dump.members.is_empty() {
        return wrong("members: there is none");
    }
    for said in &dump.members {
        let member = decode_member(said, superblock.slot_sectors)?;
        match superblock.members.get_mut(usize::from(said.index)) {
            Some(place @ None) => *place = Some(member),
            Some(Some(_)) => return wrong(format!("member {}: listed twice", said.index)),
            None => return wrong(format!("member {}: {}", said.index, LoadError::TooMany)),
        }
    }
    check_superblock(&superblock)?;
    let entries = decode_entries(&superblock, &dump.entries)?;
    Ok(Decoded {
        superblock,
        entries,
    })
}

fn uuid(text: &str, name: &str) -> Result<Uuid, DumpError> {
    match Uuid::parse(text) {
        Some(uuid) if !uuid.is_nil() => Ok(uuid),
        _ => wrong(format!("{name}: {text:?} is no UUID")),
    }
}

fn decode_member(said: &MemberSaid, slot_sectors: u32) -> Result<Member, DumpError> {
    let geometry = match Geometry::new(said.window_sectors, slot_sectors, said.align_sectors) {
        Ok(geometry) => geometry,
        Err(error) => return wrong(format!("member {}: {error}", said.index)),
    };
    let stated = (said.data_start, said.table_blocks);
    if stated != (geometry.data_start(), geometry.table_blocks()) {
        return wrong(format!(
            "member {}: sizes and places do not fit together",
            said.index
        ));
    }
    let mut member = Member::new(said.index, uuid(&said.uuid, "member uuid")?, geometry);
    member.missing = said.missing;
    member.slots = said.slots;
    member.high_water = said.high_water;
    member.void_replicas = mask(&said.void_replicas, REPLICAS, "void_replicas")?;
    member.void_supers = mask(&said.void_superblocks, SUPER_COPIES, "void_superblocks")?;
    if said.replicas.len() != usize::from(REPLICAS) {
        return wrong(format!("replicas: there are {REPLICAS} of each table"));
    }
    let places = member.areas.iter_mut().zip(&mut member.reserve);
    for ((area, reserves), said) in places.zip(&said.replicas) {
        *area = Area {
            host: said.host,
            reserve: said.reserve,
            table: said.table,
        };
        for said in &said.reserves {
            decode_reserve(reserves, said)?;
        }
    }
    Ok(member)
}

fn mask(bits: &[u8], count: u8, name: &str) -> Result<u8, DumpError> {
    bits.iter().try_fold(0, |mask, bit| match bit {
        bit if *bit < count => Ok(mask | 1 << bit),
        bit => wrong(format!("{name}: {bit}; there are {count}, from 0")),
    })
}

fn decode_reserve(reserves: &mut Reserves, said: &ReserveSaid) -> Result<(), DumpError> {
    let reserve = match said.holds {
        None => Reserve::Bad,
        // Reserve's word has 31 bits for it, of which two values mean something else.
        Some(block) if block >= (1 << 31) - 2 => {
            return wrong(format!(
                "reserve block {}: no such table block",
                said.reserve
            ));
        }
        Some(block) => Reserve::Holds {
            block,
            home_bad: said.home_bad,
        },
    };
    if !reserves.set(said.reserve, reserve) {
        return wrong(format!(
            "reserve block {}: there are {RESERVE_BLOCKS}, from 0",
            said.reserve
        ));
    }
    Ok(())
}

/// The format's own checks, which are those of its decoder.
fn check_superblock(superblock: &Superblock) -> Result<(), DumpError> {
    let first = superblock.members().next();
    let member = first.map_or(0, |(index, _)| index);
    let mut image = [0; BLOCK_BYTES];
    superblock.encode(&mut image, CopyId { member, copy: 0 });
    match Superblock::decode(&image, 0) {
        Ok(found) if found == *superblock => Ok(()),
        Ok(_) => wrong("what it says can't be stored"),
        Err(error) => wrong(error.to_string()),
    }
}

fn decode_entries(
    superblock: &Superblock,
    said: &[EntrySaid],
) -> Result<BTreeMap<SlotId, Entry>, DumpError> {
    let mut entries = BTreeMap::new();
    for said in said {
        let id = SlotId {
            member: said.spare,
            slot: said.slot,
        };
        let Some(member) = superblock.member(said.spare) else {
            return wrong(format!("{id}: there is no such spare"));
        };
        let count = member.usable_slots();
        if said.slot >= count {
            return wrong(format!(
                "{id}: {count} are below the high-water mark, from 0"
            ));
        }
        let entry = decode_entry(said)?;
        if let Err(error) = dm_remap_logic::load::check_entry(superblock, said.slot, &entry) {
            return wrong(error.to_string());
        }
        if entries.insert(id, entry).is_some() {
            return wrong(format!("{id}: listed twice"));
        }
    }
    Ok(entries)
}

fn decode_entry(said: &EntrySaid) -> Result<Entry, DumpError> {
    let origin = match said.manual {
        true => Origin::Manual,
        false => Origin::Auto,
    };
    let state = match said.state {
        StateSaid::Free => SlotState::Free,
        StateSaid::Valid => SlotState::Valid,
        StateSaid::Pending => SlotState::Pending,
        StateSaid::Bad => SlotState::Bad,
        StateSaid::Lost => SlotState::Lost,
    };
    let Some(word) = SlotWord::new(said.main_block, state, origin) else {
        return wrong(format!(
            "slot {}: main block {} is too large",
            said.slot, said.main_block
        ));
    };
    if said.given_up && state != SlotState::Valid {
        return wrong(format!("slot {}: given_up, and not valid", said.slot));
    }
    let word = if said.raw { word.with_raw() } else { word };
    let given_up = word.with_given_up();
    Ok(Entry {
        word: if said.given_up { given_up } else { word },
        generation: said.generation,
    })
}
