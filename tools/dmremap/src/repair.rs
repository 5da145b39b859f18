// SPDX-License-Identifier: GPL-2.0

//! Mending the metadata of a set, as if (see [`crate::spare`]).
//!
//! Good copies are trusted as an activation trusts them, and damaged ones are written anew from
//! them, through the same commit protocol. Where no copy can be trusted, only the user can say how
//! to go on: each such place takes a [`Choice`] that names it.

use std::fmt;
use std::str::FromStr;

use dm_remap_logic::commit::Metadata;
use dm_remap_logic::format::head;
use dm_remap_logic::format::sequence;
use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::slot::Entry;

use crate::driver::read;
use crate::driver::Writer;
use crate::error::Error;
use crate::error::Result;
use crate::set::names;
use crate::set::read_supers;
use crate::set::Copy;
use crate::set::Place;
use crate::set::Set;
use crate::set::State;
use crate::set::Supers;
use crate::spare::Spare;

/// The user's word on something that can't be told from what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Go by this superblock copy, whatever others or the slot table say.
    Super(u8),
    /// Go by this replica's copy of a table block, even with a wrong checksum.
    Replica {
        /// The block.
        block: u32,
        /// The replica.
        replica: u8,
    },
    /// Give up a table block: none of its slots is in use.
    Empty {
        /// The block.
        block: u32,
    },
    /// Free a slot.
    Free {
        /// The slot.
        slot: u32,
    },
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Super(copy) => write!(f, "super:{copy}"),
            Choice::Replica { block, replica } => write!(f, "table:{block}=replica{replica}"),
            Choice::Empty { block } => write!(f, "table:{block}=empty"),
            Choice::Free { slot } => write!(f, "slot:{slot}=free"),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (what, rest) = text.split_once(':')?;
            Some(match (what, rest.split_once('=')) {
                ("super", None) => Choice::Super(rest.parse().ok().filter(|copy| *copy < 4)?),
                ("table", Some((block, "empty"))) => Choice::Empty {
                    block: block.parse().ok()?,
                },
                ("table", Some((block, replica))) => Choice::Replica {
                    block: block.parse().ok()?,
                    replica: match replica {
                        "replica0" => 0,
                        "replica1" => 1,
                        _ => return None,
                    },
                },
                ("slot", Some((slot, "free"))) => Choice::Free {
                    slot: slot.parse().ok()?,
                },
                _ => return None,
            })
        };
        parse().ok_or_else(|| {
            "super:COPY (0 to 3), table:BLOCK=replica0, table:BLOCK=replica1, table:BLOCK=empty \
             and slot:SLOT=free are allowed"
                .into()
        })
    }
}

/// Mends what can be mended.
pub fn repair(spares: &mut [Spare], choices: &[Choice]) -> Result<()> {
    for choice in choices {
        if let Choice::Super(copy) = choice {
            take_super(spares, *copy)?;
        }
    }
    let supers = read_supers(spares)?;
    refuse_supers(&names(spares), &supers)?;
    if let Ok(found) = &supers.truth {
        // For the places of table blocks.
        if let dm_remap_logic::load::Found::Ours(chosen) = found {
            for choice in choices {
                choose_block(spares, &chosen.superblock, choice)?;
            }
        }
    }
    let set = Set::load(spares)?;
    if set.superblock().is_read_only() {
        return Err(Error::foreign(format!(
            "{}: uses features that this version can only read",
            names(spares)
        )));
    }
    free_slots(spares, &set, choices)?;
    let set = Set::load(spares)?;
    if !set.problems.is_empty() {
        let mut text = format!(
            "{}: no copy makes up for this; choose, by --choose:",
            names(spares)
        );
        for problem in &set.problems {
            text.push_str(&format!("\n  {problem}: {}", options(&set, problem)));
        }
        return Err(Error::damage(text));
    }
    let blocks = u32::try_from(set.table.len()).unwrap_or(u32::MAX);
    let metadata = Metadata::open(set.chosen.clone(), blocks);
    let mut writer = Writer::new(spares, metadata);
    writer.tidy(&set)?;
    writer.end()?;
    let set = Set::load(spares)?;
    set.refuse_problems(
        spares,
        "and the repair did not mend it, which it should have",
    )
}

/// What the user can say about a problem.
fn options(set: &Set, problem: &LoadError) -> String {
    let either = |choices: &[Choice]| {
        let list: Vec<String> = choices.iter().map(ToString::to_string).collect();
        list.join(" or ")
    };
    match *problem {
        LoadError::SuperblockStale { block } => {
            let copies = set.supers.copies.iter();
            let good = copies.filter(|copy| copy.state == State::True);
            let choices: Vec<Choice> = good
                .filter_map(|copy| match copy.copy {
                    Copy::Super { copy } => Some(Choice::Super(copy)),
                    Copy::Table { .. } => None,
                })
                .take(1)
                .collect();
            format!(
                "{} goes by the superblock nevertheless; blocks that were moved since are not found then, and table:{block}=empty gives up that block",
                either(&choices)
            )
        }
        LoadError::TableBlock { block, .. } | LoadError::TableContradiction { block } => {
            let [replica0, replica1] = [0, 1].map(|replica| Choice::Replica { block, replica });
            let empty = Choice::Empty { block };
            let (first, end) = set.superblock().geometry.block_slots(block);
            format!(
                "{}; it has slots {first} to {}, and what they serve reads as it is on main once it is empty, which may be old",
                either(&[replica0, replica1, empty]),
                end.saturating_sub(1)
            )
        }
        LoadError::OutOfRange { slot, .. } => either(&[Choice::Free { slot }]),
        LoadError::Unresolvable { main_block } => {
            let slots = (0u32..).zip(&set.entries);
            let claims = slots.filter(|(_, entry)| entry.word.claims(main_block));
            let choices: Vec<Choice> = claims.map(|(slot, _)| Choice::Free { slot }).collect();
            format!("{} (the other one keeps the block)", either(&choices))
        }
        _ => String::from("nothing that repair can do"),
    }
}

fn refuse_supers(names: &str, supers: &Supers) -> Result<()> {
    let error = match &supers.truth {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let whole: Vec<String> = (0u8..)
        .zip(&supers.said)
        .filter_map(|(copy, said)| {
            let said = said.as_ref()?;
            Some(format!(
                "\n  {}: set {}, spare {}, sequence {}, epoch {}",
                Choice::Super(copy),
                said.set_uuid,
                said.member_uuid,
                said.sequence,
                said.epoch
            ))
        })
        .collect();
    let base = crate::set::no_superblock(names, error);
    if base.kind() == crate::error::Kind::Foreign || whole.is_empty() {
        let more = match base.kind() {
            crate::error::Kind::Foreign => "",
            _ => "; only a dump can help: dmremap restore",
        };
        let text = format!("{base}{more}");
        return Err(match base.kind() {
            crate::error::Kind::Foreign => Error::foreign(text),
            _ => Error::damage(text),
        });
    }
    Err(Error::damage(format!(
        "{base}; choose the superblock to go by, by --choose:{}",
        whole.concat()
    )))
}

/// Makes one superblock copy the truth: newer than the others, and aware of every epoch in use.
fn take_super(spares: &mut [Spare], copy: u8) -> Result<()> {
    let supers = read_supers(spares)?;
    let said = supers.said.get(usize::from(copy));
    let Some(mut superblock) = said.and_then(Clone::clone) else {
        return Err(Error::damage(format!(
            "{}: superblock copy {copy} is not whole and can't be chosen",
            names(spares)
        )));
    };
    let whole = supers.said.iter().flatten();
    let newest = whole.map(|said| said.sequence).max().unwrap_or(0);
    superblock.sequence = newest.saturating_add(1);
    let mut block = 0;
    while let Some(epoch) = epoch_in_use(spares, &superblock, block)? {
        superblock.epoch = superblock.epoch.max(epoch);
        block += 1;
    }
    superblock.clean = false;
    superblock.void_supers = 0;
    for copy in &supers.copies {
        if let Copy::Super { copy: number } = copy.copy {
            let mut image = [0; BLOCK_BYTES];
            superblock.encode(&mut image, number);
            write(spares, copy.place, &image, copy.copy);
        }
    }
    Ok(())
}

/// The highest epoch of any copy of a table block, 0 if none is whole; none if the block is not in use
/// as far as this superblock knows.
fn epoch_in_use(spares: &mut [Spare], superblock: &Superblock, block: u32) -> Result<Option<u32>> {
    let known = (block < superblock.high_water).then_some(0);
    let mut best = known;
    for replica in 0..2 {
        let Some(sector) = superblock.table_sector(replica, block) else {
            return Ok(None);
        };
        let image = read(spares, Place { spare: 0, sector })?;
        let found = image
            .as_deref()
            .and_then(|image| TableBlock::decode(image, &superblock.member_uuid, block).ok());
        if let Some(found) = found {
            best = best.max(Some(sequence_epoch(found.sequence())));
        }
    }
    Ok(best)
}

/// Writes the chosen content of a table block into every live replica.
fn choose_block(spares: &mut [Spare], superblock: &Superblock, choice: &Choice) -> Result<()> {
    let (block, image) = match *choice {
        Choice::Replica { block, replica } => {
            let refuse = |why: &str| {
                Error::damage(format!(
                    "{choice}: {} can't be used: {why}",
                    Copy::Table { block, replica }
                ))
            };
            let sector = superblock
                .table_sector(replica, block)
                .ok_or_else(|| refuse("there is no such block"))?;
            let image = read(spares, Place { spare: 0, sector })?;
            let mut image = image.ok_or_else(|| refuse("unreadable"))?;
            head::seal(&mut image);
            TableBlock::decode(&image, &superblock.member_uuid, block)
                .map_err(|error| refuse(&error.to_string()))?;
            (block, image)
        }
        Choice::Empty { block } => {
            if block >= superblock.geometry.table_blocks() {
                return Err(Error::usage(format!("{choice}: there is no such block")));
            }
            let mut image: Box<Block> = Box::new([0; BLOCK_BYTES]);
            let sequence = sequence(superblock.epoch, 0)
                .ok_or_else(|| Error::damage("sequence numbers are exhausted"))?;
            let nothing = std::iter::empty();
            table_block::encode(
                &mut image,
                &superblock.member_uuid,
                block,
                sequence,
                nothing,
            );
            (block, image)
        }
        Choice::Super(_) | Choice::Free { .. } => return Ok(()),
    };
    let mut written = false;
    for replica in (0..2).filter(|replica| superblock.replica_lives(*replica)) {
        if let Some(sector) = superblock.table_sector(replica, block) {
            let place = Place { spare: 0, sector };
            written |= write(spares, place, &image, Copy::Table { block, replica });
        }
    }
    match written {
        // Where one replica did not take it, the repair goes on from the other.
        true => Ok(()),
        false => Err(Error::damage(format!(
            "{choice}: the block can't be written in any replica"
        ))),
    }
}

fn free_slots(spares: &mut [Spare], set: &Set, choices: &[Choice]) -> Result<()> {
    let mut entries = set.entries.clone();
    let mut blocks = Vec::new();
    for choice in choices {
        let Choice::Free { slot } = *choice else {
            continue;
        };
        let block = set.superblock().geometry.entry_place(slot).0;
        let known = set.table.get(block as usize).and_then(|b| b.sequence);
        match (entries.get_mut(slot as usize), known) {
            (Some(entry), Some(_)) => *entry = Entry::UNUSED,
            _ => {
                return Err(Error::usage(format!(
                    "{choice}: there is no such slot, or its table block is damaged"
                )))
            }
        }
        blocks.push(block);
    }
    if blocks.is_empty() {
        return Ok(());
    }
    let table_blocks = u32::try_from(set.table.len()).unwrap_or(u32::MAX);
    let metadata = Metadata::open(set.chosen.clone(), table_blocks);
    Writer::new(spares, metadata).commit(&entries, blocks)
}

fn write(spares: &mut [Spare], place: Place, image: &Block, what: Copy) -> bool {
    let spare = spares.get_mut(place.spare);
    spare.is_some_and(|spare| spare.write(place.sector, image, &what.to_string()))
}
