// SPDX-License-Identifier: GPL-2.0

//! What is on the spares of a set, read as the module reads it when it loads.
//!
//! What is true is decided by [`dm_remap_logic::load`] and nowhere else. This file is the only one
//! that knows how the copies of superblock and slot table are spread over the spares; everything
//! else here speaks of copies by what they are ([`Copy`]) and of places by spare and sector
//! ([`Place`]). Unlike the module, which refuses at the first fault, it goes on and writes down all
//! of them.

use std::collections::BTreeMap;
use std::fmt;

use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::load;
use dm_remap_logic::load::Chosen;
use dm_remap_logic::load::Claim;
use dm_remap_logic::load::Found;
use dm_remap_logic::load::Image;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::load::Resolved;
use dm_remap_logic::slot::Entry;

use crate::error::Error;
use crate::error::Result;
use crate::spare::Spare;
use crate::torn;

/// One copy of a metadata block, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Copy {
    /// A copy of the superblock.
    Super {
        /// Its number.
        copy: u8,
    },
    /// A block of the slot table.
    Table {
        /// The block.
        block: u32,
        /// The replica.
        replica: u8,
    },
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Copy::Super { copy } => write!(f, "superblock copy {copy}"),
            Copy::Table { block, replica } => write!(f, "table block {block} of replica {replica}"),
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

/// A copy with its place and state.
#[derive(Clone, Copy, Debug)]
pub struct CopyFound {
    /// What it is.
    pub copy: Copy,
    /// Where it is.
    pub place: Place,
    /// What it is found to be.
    pub state: State,
}

/// What the superblock copies say.
#[derive(Debug)]
pub struct Supers {
    /// All copies.
    pub copies: Vec<CopyFound>,
    /// What each says, if it is whole.
    pub said: Vec<Option<Superblock>>,
    /// The truth, or why there is none.
    pub truth: Result<Found, LoadError>,
}

/// What is true about one block of the slot table.
#[derive(Clone, Copy, Debug)]
pub struct TableFound {
    /// Its sequence; none if nothing can be believed.
    pub sequence: Option<u64>,
    /// The replica that the truth is taken from.
    pub truth: u8,
    /// The copies.
    pub copies: [CopyFound; REPLICAS as usize],
}

/// A set of spares, as it was found.
#[derive(Debug)]
pub struct Set {
    /// The superblock copies.
    pub supers: Supers,
    /// The superblock to go by, and which copies differ from it.
    pub chosen: Chosen,
    /// The blocks of the slot table that are in use.
    pub table: Vec<TableFound>,
    /// The entries of these blocks. Those of a block that can't be believed are unused.
    pub entries: Vec<Entry>,
    /// Which slot serves or is set aside for a block of main.
    pub claims: BTreeMap<u64, u32>,
    /// Slots whose claim lost against a newer one: the loser and the winner.
    pub lost_claims: Vec<(u32, u32)>,
    /// All for which the module would refuse to activate.
    pub problems: Vec<LoadError>,
}

/// Where a slot's data lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPlace {
    /// The spare, by its number among those given.
    pub spare: usize,
    /// The sector on the device (not in the window).
    pub sector: u64,
}

/// Reads the superblock copies of all spares given.
pub fn read_supers(spares: &mut [Spare]) -> Result<Supers> {
    let spare = the_only(spares)?;
    let sectors = super_sectors(spare)?;
    let mut blocks = Vec::new();
    for sector in sectors {
        blocks.push(spare.read(sector)?);
    }
    let images: [Image<'_>; SUPER_COPIES as usize] = std::array::from_fn(|i| image(blocks.get(i)));
    let truth = load::choose_superblock(&images);
    let said: Vec<Option<Superblock>> = images
        .iter()
        .zip(0u8..)
        .map(|(image, copy)| match image {
            Image::Read(block) => Superblock::decode(block, copy).ok(),
            Image::Unreadable => None,
        })
        .collect();
    let copies = images
        .iter()
        .zip(sectors)
        .zip(0u8..)
        .map(|((image, sector), copy)| CopyFound {
            copy: Copy::Super { copy },
            place: Place { spare: 0, sector },
            state: super_state(image, copy, truth.as_ref().ok()),
        })
        .collect();
    Ok(Supers {
        copies,
        said,
        truth,
    })
}

/// Where the copies are: where those at the head say, or at the end of the window.
fn super_sectors(spare: &mut Spare) -> Result<[u64; SUPER_COPIES as usize]> {
    let places = |window| {
        load::superblock_sectors(window)
            .ok_or_else(|| Error::usage(format!("{}: too small", spare.path().display())))
    };
    let mut sectors = places(spare.sectors())?;
    let head = [spare.read(sectors[0])?, spare.read(sectors[1])?];
    let head = [image(Some(&head[0])), image(Some(&head[1]))];
    if let Some(known) = load::window_sectors(&head) {
        if known <= spare.sectors() {
            if let Some(known) = load::superblock_sectors(known) {
                sectors = known;
            }
        }
    }
    Ok(sectors)
}

fn super_state(image: &Image<'_>, copy: u8, truth: Option<&Found>) -> State {
    let chosen = match truth {
        Some(Found::Ours(chosen)) => Some(chosen),
        _ => None,
    };
    if chosen.is_some_and(|chosen| !chosen.superblock.super_lives(copy)) {
        return State::Void;
    }
    let Image::Read(block) = image else {
        return State::Unreadable;
    };
    match (Superblock::decode(block, copy), chosen) {
        (Ok(_), Some(chosen)) if chosen.rewrite & (1 << copy) == 0 => State::True,
        (Ok(found), Some(_)) => State::Behind {
            sequence: found.sequence,
        },
        (Ok(found), None) => State::Doubtful {
            sequence: found.sequence,
        },
        (Err(FormatError::Checksum), Some(chosen))
            if torn::is_torn_super(block, &chosen.superblock, copy) =>
        {
            State::Torn
        }
        (Err(error), _) => State::Bad(error),
    }
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
        let names = names(spares);
        let spare = the_only(spares)?;
        let chosen = match &supers.truth {
            Ok(Found::Ours(chosen)) => chosen.clone(),
            Ok(Found::Blank) => {
                return Err(Error::foreign(format!(
                    "{names}: blank: no dm-remap spare, or not the part of the device that is one"
                )))
            }
            Err(error) => return Err(no_superblock(&names, error)),
        };
        let formatted = chosen.superblock.geometry.window_sectors();
        if formatted > spare.sectors() {
            let error = LoadError::Shrunk { formatted };
            return Err(Error::damage(format!(
                "{names}: {error}, it has {} now",
                spare.sectors()
            )));
        }
        let mut set = Set {
            supers,
            chosen,
            table: Vec::new(),
            entries: Vec::new(),
            claims: BTreeMap::new(),
            lost_claims: Vec::new(),
            problems: Vec::new(),
        };
        set.read_table(spare)?;
        set.enter_claims();
        Ok(set)
    }

    fn read_table(&mut self, spare: &mut Spare) -> Result<()> {
        let superblock = self.chosen.superblock.clone();
        for block in 0..superblock.geometry.table_blocks() {
            let mut blocks = Vec::new();
            let mut places = [Place {
                spare: 0,
                sector: 0,
            }; REPLICAS as usize];
            for (place, replica) in places.iter_mut().zip(0..) {
                place.sector = superblock
                    .table_sector(replica, block)
                    .ok_or_else(|| Error::damage("a table block without a place"))?;
                blocks.push(spare.read(place.sector)?);
            }
            let images: [Image<'_>; REPLICAS as usize] =
                std::array::from_fn(|i| image(blocks.get(i)));
            let resolved = load::resolve_block(&superblock, block, &images);
            if matches!(resolved, Ok(Resolved::End)) {
                break;
            }
            let (sequence, truth) = match &resolved {
                Ok(Resolved::Block { truth, replica, .. }) => (Some(truth.sequence()), *replica),
                _ => (None, 0),
            };
            let copies = std::array::from_fn(|i| {
                // There are two.
                let replica = i as u8;
                CopyFound {
                    copy: Copy::Table { block, replica },
                    place: places[i],
                    state: table_state(&superblock, block, replica, &images[i], &resolved),
                }
            });
            self.table.push(TableFound {
                sequence,
                truth,
                copies,
            });
            let (first, end) = superblock.geometry.block_slots(block);
            match resolved {
                Ok(Resolved::Block { truth, .. }) => self
                    .entries
                    .extend((first..end).zip(truth.entries()).map(|(_, entry)| entry)),
                Ok(Resolved::End) => (),
                Err(error) => {
                    self.problems.push(error);
                    self.entries.extend((first..end).map(|_| Entry::UNUSED));
                }
            }
        }
        Ok(())
    }

    fn enter_claims(&mut self) {
        let superblock = &self.chosen.superblock;
        for (slot, entry) in (0u32..).zip(&self.entries) {
            if let Err(error) = load::check_entry(superblock, slot, entry) {
                self.problems.push(error);
                continue;
            }
            if !entry.word.is_claim() {
                continue;
            }
            let main_block = entry.word.main_block();
            let Some(other) = self.claims.insert(main_block, slot) else {
                continue;
            };
            let before = self.entries.get(other as usize).copied();
            match load::settle_claims(&before.unwrap_or_default(), entry) {
                Ok(Claim::First) => {
                    self.claims.insert(main_block, other);
                    self.lost_claims.push((slot, other));
                }
                Ok(Claim::Second) => self.lost_claims.push((other, slot)),
                Err(error) => self.problems.push(error),
            }
        }
    }

    /// The superblock to go by.
    pub fn superblock(&self) -> &Superblock {
        &self.chosen.superblock
    }

    /// The highest activation epoch of any block of the slot table.
    pub fn table_epoch(&self) -> Option<u32> {
        let sequences = self.table.iter().filter_map(|block| block.sequence);
        sequences.map(sequence_epoch).max()
    }

    /// Whether a replica has something else than the truth about a block, or nothing.
    pub fn is_to_be_rewritten(&self, block: u32, replica: u8) -> bool {
        let found = self.table.get(block as usize);
        let copy = found.and_then(|found| found.copies.get(usize::from(replica)));
        copy.is_some_and(|copy| {
            !matches!(
                copy.state,
                State::True | State::Void | State::Doubtful { .. }
            )
        })
    }

    /// Sectors of main that one slot holds.
    pub fn slot_sectors(&self) -> u64 {
        u64::from(self.superblock().geometry.slot_sectors())
    }

    /// Where a slot's data lies.
    pub fn slot_place(&self, spares: &[Spare], slot: u32) -> Option<SlotPlace> {
        let sector = self.superblock().geometry.slot_sector(slot)?;
        Some(SlotPlace {
            spare: 0,
            sector: spares.first()?.start() + sector,
        })
    }

    /// What a set is refused for if it is not in order: a text with all of it.
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
}

fn table_state(
    superblock: &Superblock,
    block: u32,
    replica: u8,
    image: &Image<'_>,
    resolved: &Result<Resolved<'_>, LoadError>,
) -> State {
    if !superblock.replica_lives(replica) {
        return State::Void;
    }
    let Image::Read(bytes) = image else {
        return State::Unreadable;
    };
    let truth = match resolved {
        Ok(Resolved::Block { truth, rewrite, .. }) => Some((truth, rewrite)),
        _ => None,
    };
    match (
        TableBlock::decode(bytes, &superblock.member_uuid, block),
        truth,
    ) {
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

/// Why a set without a usable superblock can't be read.
pub fn no_superblock(names: &str, error: &LoadError) -> Error {
    match error {
        LoadError::Superblock {
            error:
                FormatError::Blank
                | FormatError::Foreign
                | FormatError::Newer { .. }
                | FormatError::Features { .. },
            ..
        }
        | LoadError::Incomplete { .. } => Error::foreign(format!("{names}: {error}")),
        _ => Error::damage(format!("{names}: {error}")),
    }
}

/// The names of all spares given.
pub fn names(spares: &[Spare]) -> String {
    let names: Vec<String> = spares
        .iter()
        .map(|spare| spare.path().display().to_string())
        .collect();
    names.join(", ")
}

fn the_only(spares: &mut [Spare]) -> Result<&mut Spare> {
    match spares {
        [spare] => Ok(spare),
        _ => Err(Error::usage(format!(
            "{} spares are given, but sets of this format have one",
            spares.len()
        ))),
    }
}

fn image(block: Option<&Option<Box<Block>>>) -> Image<'_> {
    match block {
        Some(Some(block)) => Image::Read(block),
        _ => Image::Unreadable,
    }
}
