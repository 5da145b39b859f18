// SPDX-License-Identifier: GPL-2.0

//! What is on the spares of a set, read as the module reads it when it loads.
//!
//! What is true is decided by [`dm_remap_logic::load`] and nowhere else. Unlike the module, which
//! refuses at the first fault, this goes on and writes down all of them.
//!
//! Two numberings meet here: spares are counted as they are given on the command line, members as the
//! superblock counts them. [`Place`] is of the former, [`format::Place`]
//! of the latter.

mod remains;
mod supers;

use std::collections::BTreeMap;
use std::fmt;

use dm_remap_logic::format;
use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::MEMBERS_MAX;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::load;
use dm_remap_logic::load::Chosen;
use dm_remap_logic::load::Claim;
use dm_remap_logic::load::Found;
use dm_remap_logic::load::Image;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::load::Resolved;
use dm_remap_logic::slot::Entry;

pub use self::remains::Remains;
pub use self::supers::read_supers;
pub use self::supers::Refusal;
pub use self::supers::Said;
pub use self::supers::Supers;

use crate::error::Error;
use crate::error::Result;
use crate::spare::Spare;
use crate::torn;

/// One copy of a metadata block, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// A copy of the superblock.
    Super {
        /// Its number on its spare.
        copy: u8,
    },
    /// A block of a slot table.
    Table {
        /// The block.
        id: BlockId,
        /// The replica.
        replica: u8,
    },
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Copy::Super { copy } => write!(f, "superblock copy {copy}"),
            Copy::Table { id, replica } => write!(f, "{id}, replica {replica}"),
        }
    }
}

/// Where a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The spare, by its number among those given.
    pub spare: usize,
    /// The sector in that spare's window.
    pub sector: u64,
}

/// One slot of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId {
    /// The member that has it.
    pub member: u8,
    /// Its number there.
    pub slot: u32,
}

impl SlotId {
    /// The table block that has its entry.
    pub fn block(self) -> BlockId {
        BlockId {
            member: self.member,
            block: self.slot / ENTRIES,
        }
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} of spare {}", self.slot, self.member)
    }
}

/// What a copy is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It says what is true.
    True,
    /// Whole, but older than the truth.
    Behind {
        /// Its own sequence.
        sequence: u64,
    },
    /// The truth says that this copy does not count. Nobody looks at it.
    Void,
    /// The spare that it is on is not there.
    Absent,
    /// The medium can't give it.
    Unreadable,
    /// Its checksum is wrong as it is when a write was interrupted: parts of it are older than others.
    Torn,
    /// It is not what it should be.
    Bad(FormatError),
    /// Whole, but there is no telling whether it is true.
    Doubtful {
        /// Its own sequence.
        sequence: u64,
    },
}

impl State {
    /// Whether the copy is to be written anew from the truth.
    pub fn is_to_be_rewritten(self) -> bool {
        match self {
            State::True | State::Void | State::Absent | State::Doubtful { .. } => false,
            State::Behind { .. } | State::Unreadable | State::Torn | State::Bad(_) => true,
        }
    }
}

/// A copy with its place and state.
#[derive(Clone, Copy, Debug)]
pub struct CopyFound {
    /// What it is.
    pub copy: Copy,
    /// Where it is; nowhere if the spare is not there.
    pub place: Option<Place>,
    /// What it is found to be.
    pub state: State,
}

/// What is true about one block of a slot table.
#[derive(Clone, Copy, Debug)]
pub struct TableFound {
    /// The block.
    pub id: BlockId,
    /// Its sequence; none if nothing can be believed.
    pub sequence: Option<u64>,
    /// The copies.
    pub copies: [CopyFound; REPLICAS as usize],
}

/// Something for which the module would refuse to activate the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub error: LoadError,
    /// The slot that it is about, if there is one.
    pub slot: Option<SlotId>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.slot, self.error) {
            (Some(id), LoadError::OutOfRange { main_block, .. }) => {
                write!(
                    f,
                    "{id} claims block {main_block}, which main does not have"
                )
            }
            _ => self.error.fmt(f),
        }
    }
}

/// A set of spares, as it was found.
#[derive(Debug)]
pub struct Set {
    /// The superblock copies.
    pub supers: Supers,
    /// The superblock to go by.
    pub superblock: Box<Superblock>,
    /// Which spare each member is, and which copies differ.
    pub chosen: Chosen,
    /// The blocks of the slot tables that are in use.
    pub table: Vec<TableFound>,
    /// For each member, the entries of these blocks. Those of a block that can't be believed are
    /// unused.
    pub entries: [Vec<Entry>; MEMBERS_MAX as usize],
    /// Which slot serves or is set aside for a block of main.
    pub claims: BTreeMap<u64, SlotId>,
    /// Slots whose claim lost against a newer one: the loser and the winner.
    pub lost_claims: Vec<(SlotId, SlotId)>,
    /// All for which the module would refuse to activate, but for members that are not there.
    pub problems: Vec<Problem>,
}

/// The member that a spare is.
pub fn member_of(chosen: &Chosen, spare: usize) -> Option<u8> {
    (0..MEMBERS_MAX).find(|member| chosen.spare_of(*member).map(usize::from) == Some(spare))
}

impl Set {
    /// Reads everything. Fails if there is no superblock to go by; what else is wrong is written
    /// down in [`Set::problems`] and in the states of the copies.
    pub fn load(spares: &mut [Spare]) -> Result<Self> {
        let supers = read_supers(spares)?;
        Self::load_table(spares, supers)
    }

    /// The same, with the superblock copies at hand.
    pub fn load_table(spares: &mut [Spare], supers: Supers) -> Result<Self> {
        let refusal = supers.refusal(spares);
        let (chosen, superblock) = match (&supers.truth, refusal) {
            (Ok((Found::Ours(chosen), superblock)), None) => (*chosen, superblock.clone()),
            (_, Some(refusal)) => return Err(refusal.error),
            (_, None) => return Err(Error::foreign(format!("{}: no set", names(spares)))),
        };
        for (index, member) in superblock.members() {
            let spare = chosen.spare_of(index).map(usize::from);
            let Some(spare) = spare.and_then(|spare| spares.get(spare)) else {
                continue;
            };
            spare.check_window(member).map_err(Error::damage)?;
        }
        let mut set = Set {
            supers,
            superblock,
            chosen,
            table: Vec::new(),
            entries: Default::default(),
            claims: BTreeMap::new(),
            lost_claims: Vec::new(),
            problems: Vec::new(),
        };
        let members: Vec<(u8, Member)> = set
            .superblock
            .members()
            .map(|(index, member)| (index, *member))
            .collect();
        for (index, member) in &members {
            set.read_table(spares, *index, member)?;
        }
        set.enter_claims();
        Ok(set)
    }

    fn read_table(&mut self, spares: &mut [Spare], index: u8, member: &Member) -> Result<()> {
        for block in 0..member.table_blocks() {
            let id = BlockId {
                member: index,
                block,
            };
            let mut blocks = Vec::new();
            let mut places = [None; REPLICAS as usize];
            for (place, replica) in places.iter_mut().zip(0..) {
                let at = self.superblock.table_place(replica, id);
                let at = at.ok_or_else(|| Error::damage("a table block without a place"))?;
                *place = self.place(at);
                blocks.push(match (*place, member.replica_lives(replica)) {
                    (Some(place), true) => read(spares, place)?,
                    _ => None,
                });
            }
            let images: [Image<'_>; REPLICAS as usize] =
                std::array::from_fn(|i| blocks.get(i).map_or(Image::Unreadable, image));
            let resolved = load::resolve_block(&self.superblock, id, &images);
            if matches!(resolved, Ok(Resolved::End)) {
                break;
            }
            let copies = std::array::from_fn(|i| {
                // There are two.
                let replica = i as u8;
                let state = match places[i] {
                    _ if !member.replica_lives(replica) => State::Void,
                    None => State::Absent,
                    Some(_) => table_state(member, block, replica, &images[i], &resolved),
                };
                CopyFound {
                    copy: Copy::Table { id, replica },
                    place: places[i],
                    state,
                }
            });
            let sequence = match &resolved {
                Ok(Resolved::Block { truth, .. }) => Some(truth.sequence()),
                _ => None,
            };
            self.table.push(TableFound {
                id,
                sequence,
                copies,
            });
            let (first, end) = member.block_slots(block);
            let count = (end - first) as usize;
            let Some(entries) = self.entries.get_mut(usize::from(index)) else {
                continue;
            };
            match resolved {
                Ok(Resolved::Block { truth, .. }) => entries.extend(truth.entries().take(count)),
                Ok(Resolved::End) => (),
                Err(error) => {
                    self.problems.push(Problem { error, slot: None });
                    let nowhere = places.iter().all(Option::is_none);
                    if nowhere {
                        // Nothing of this table is there.
                        break;
                    }
                    entries.extend(std::iter::repeat_n(Entry::UNUSED, count));
                }
            }
        }
        Ok(())
    }

    fn enter_claims(&mut self) {
        for (index, entries) in (0u8..).zip(&self.entries) {
            for (slot, entry) in (0u32..).zip(entries) {
                let id = SlotId {
                    member: index,
                    slot,
                };
                if let Err(error) = load::check_entry(&self.superblock, slot, entry) {
                    let slot = Some(id);
                    self.problems.push(Problem { error, slot });
                    continue;
                }
                if !entry.word.is_claim() {
                    continue;
                }
                let main_block = entry.word.main_block();
                let Some(other) = self.claims.insert(main_block, id) else {
                    continue;
                };
                let before = self.entry(other).unwrap_or_default();
                match load::settle_claims(&before, entry) {
                    Ok(Claim::First) => {
                        self.claims.insert(main_block, other);
                        self.lost_claims.push((id, other));
                    }
                    Ok(Claim::Second) => self.lost_claims.push((other, id)),
                    Err(error) => {
                        let slot = Some(id);
                        self.problems.push(Problem { error, slot });
                    }
                }
            }
        }
    }

    /// A member's place on the spares given; none if that member is not there.
    pub fn place(&self, at: format::Place) -> Option<Place> {
        Some(Place {
            spare: self.chosen.spare_of(at.member)?.into(),
            sector: at.sector,
        })
    }

    /// The entry of a slot.
    pub fn entry(&self, id: SlotId) -> Option<Entry> {
        let entries = self.entries.get(usize::from(id.member))?;
        entries.get(id.slot as usize).copied()
    }

    /// All slots in use and their entries.
    pub fn slots(&self) -> impl Iterator<Item = (SlotId, &Entry)> {
        (0u8..).zip(&self.entries).flat_map(|(member, entries)| {
            (0u32..)
                .zip(entries)
                .map(move |(slot, entry)| (SlotId { member, slot }, entry))
        })
    }

    /// The members that are not there: number, and whether the set already goes on without it.
    pub fn absent(&self) -> impl Iterator<Item = (u8, &Member)> {
        self.superblock
            .members()
            .filter(|(index, _)| self.chosen.spare_of(*index).is_none())
    }

    /// How many table blocks of each member are in use.
    pub fn table_blocks(&self) -> [u32; MEMBERS_MAX as usize] {
        let mut blocks = [0; MEMBERS_MAX as usize];
        for found in &self.table {
            if let Some(count) = blocks.get_mut(usize::from(found.id.member)) {
                *count = found.id.block.saturating_add(1);
            }
        }
        blocks
    }

    /// The highest activation epoch of any block of a slot table.
    pub fn table_epoch(&self) -> Option<u32> {
        let sequences = self.table.iter().filter_map(|block| block.sequence);
        sequences.map(sequence_epoch).max()
    }

    /// Sectors of main that one slot holds.
    pub fn slot_sectors(&self) -> u64 {
        self.superblock.slot_sectors.into()
    }

    /// Where a slot's data lies: a spare, and a sector on its device (not in its window). None if
    /// that spare is not there.
    pub fn slot_place(&self, spares: &[Spare], id: SlotId) -> Option<Place> {
        let member = self.superblock.member(id.member)?;
        let sector = member.geometry.slot_sector(id.slot)?;
        let place = self.place(format::Place {
            member: id.member,
            sector,
        })?;
        Some(Place {
            sector: spares.get(place.spare)?.start() + place.sector,
            ..place
        })
    }

    /// Refuses a set that the module would refuse: a text with all that is wrong.
    pub fn refuse_problems(&self, spares: &[Spare], hint: &str) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        Err(Error::damage(format!(
            "{}: the metadata is damaged: {}; {hint}",
            names(spares),
            list.join("; ")
        )))
    }

    /// Refuses a set of which a member is not given; those that it goes on without already do not
    /// count.
    pub fn refuse_absent(&self, spares: &[Spare], hint: &str) -> Result<()> {
        match self.absent().find(|(_, member)| !member.missing) {
            None => Ok(()),
            Some((index, member)) => Err(Error::damage(format!(
                "{}: spare {}, number {index} of the set, is not given: {hint}",
                names(spares),
                member.uuid
            ))),
        }
    }
}

fn table_state(
    member: &Member,
    block: u32,
    replica: u8,
    image: &Image<'_>,
    resolved: &Result<Resolved<'_>, LoadError>,
) -> State {
    let Image::Read(bytes) = image else {
        return State::Unreadable;
    };
    let truth = match resolved {
        Ok(Resolved::Block { truth, rewrite, .. }) => Some((truth, rewrite)),
        _ => None,
    };
    match (TableBlock::decode(bytes, &member.uuid, block), truth) {
        (Ok(_), Some((_, rewrite))) if rewrite & (1 << replica) == 0 => State::True,
        (Ok(found), Some(_)) => State::Behind {
            sequence: found.sequence(),
        },
        (Ok(found), None) => State::Doubtful {
            sequence: found.sequence(),
        },
        (Err(FormatError::Checksum), Some((truth, _)))
            if torn::is_torn_table(bytes, truth.image()) =>
        {
            State::Torn
        }
        (Err(error), _) => State::Bad(error),
    }
}

/// Reads a block.
pub fn read(spares: &mut [Spare], place: Place) -> Result<Option<Box<Block>>> {
    match spares.get_mut(place.spare) {
        Some(spare) => spare.read(place.sector),
        None => Ok(None),
    }
}

/// Notes that a block is to be written. False if its place does not take writes.
pub fn write(spares: &mut [Spare], place: Place, image: &Block, what: Copy) -> bool {
    let order = spares.iter().map(|spare| spare.pending().len()).sum();
    let spare = spares.get_mut(place.spare);
    spare.is_some_and(|spare| spare.write(place.sector, image, &what.to_string(), order))
}

/// The names of all spares given.
pub fn names(spares: &[Spare]) -> String {
    let names: Vec<String> = spares
        .iter()
        .map(|spare| spare.path().display().to_string())
        .collect();
    names.join(", ")
}

fn image(read: &Option<Box<Block>>) -> Image<'_> {
    match read {
        Some(block) => Image::Read(block),
        None => Image::Unreadable,
    }
}
