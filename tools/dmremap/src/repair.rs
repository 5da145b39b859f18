// SPDX-License-Identifier: GPL-2.0

//! Mending the metadata of a set, as if (see [`crate::spare`]).
//!
//! Good copies are trusted as an activation trusts them, and damaged ones are written anew from
//! them, through the same commit protocol. Where no copy can be trusted, only the user can say how
//! to go on: each such place takes a [`Choice`] that names it.

use std::fmt;
use std::str::FromStr;

use dm_remap_logic::format::head;
use dm_remap_logic::format::sequence;
use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::slot::Entry;

use crate::driver::Writer;
use crate::error::Error;
use crate::error::Kind;
use crate::error::Result;
use crate::set::names;
use crate::set::read;
use crate::set::read_supers;
use crate::set::write;
use crate::set::Copy;
use crate::set::Place;
use crate::set::Problem;
use crate::set::Set;
use crate::set::SlotId;
use crate::set::State;
use crate::set::Supers;
use crate::spare::Spare;
use crate::spare::BLANK_SECTORS;

/// The user's word on something that can't be told from what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Go by this superblock copy, whatever others or the slot tables say.
    Super {
        /// The spare, by its number among those given.
        spare: u8,
        /// The copy.
        copy: u8,
    },
    /// Go by this replica's copy of a table block, even with a wrong checksum.
    Replica {
        /// The block.
        id: BlockId,
        /// The replica.
        replica: u8,
    },
    /// Give up a table block: none of its slots is in use.
    Empty {
        /// The block.
        id: BlockId,
    },
    /// Free a slot.
    Free {
        /// The slot.
        id: SlotId,
    },
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Super { spare, copy } => write!(f, "super:{spare}.{copy}"),
            Choice::Replica { id, replica } => {
                write!(f, "table:{}.{}=replica{replica}", id.member, id.block)
            }
            Choice::Empty { id } => write!(f, "table:{}.{}=empty", id.member, id.block),
            Choice::Free { id } => write!(f, "slot:{}.{}=free", id.member, id.slot),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            "super:SPARE.COPY, table:SPARE.BLOCK=replica0, table:SPARE.BLOCK=replica1, \
             table:SPARE.BLOCK=empty and slot:SPARE.SLOT=free are allowed"
                .into()
        })
    }
}

fn parse(text: &str) -> Option<Choice> {
    let (what, rest) = text.split_once(':')?;
    let (at, word) = match rest.split_once('=') {
        Some((at, word)) => (at, Some(word)),
        None => (rest, None),
    };
    let (spare, number) = at.split_once('.')?;
    let (member, number): (u8, u32) = (spare.parse().ok()?, number.parse().ok()?);
    let id = BlockId {
        member,
        block: number,
    };
    Some(match (what, word) {
        ("super", None) => Choice::Super {
            spare: member,
            copy: u8::try_from(number)
                .ok()
                .filter(|copy| *copy < SUPER_COPIES)?,
        },
        ("table", Some("empty")) => Choice::Empty { id },
        ("table", Some("replica0")) => Choice::Replica { id, replica: 0 },
        ("table", Some("replica1")) => Choice::Replica { id, replica: 1 },
        ("slot", Some("free")) => Choice::Free {
            id: SlotId {
                member,
                slot: number,
            },
        },
        _ => return None,
    })
}

/// Mends what can be mended.
pub fn repair(spares: &mut [Spare], choices: &[Choice]) -> Result<()> {
    for choice in choices {
        if let Choice::Super { spare, copy } = *choice {
            take_super(spares, spare, copy)?;
        }
    }
    let supers = read_supers(spares)?;
    refuse_supers(spares, &supers)?;
    let set = Set::load_table(spares, supers)?;
    set.refuse_absent(
        spares,
        "a set is repaired as a whole, name all of its spares",
    )?;
    if set.superblock.is_read_only() {
        return Err(Error::foreign(format!(
            "{}: uses features that this version can only read",
            names(spares)
        )));
    }
    for choice in choices {
        choose_block(spares, &set, choice)?;
    }
    let set = Set::load(spares)?;
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
    check_joining(spares, &set)?;
    let mut writer = Writer::open(spares, &set)?;
    writer.tidy(&set)?;
    writer.end()?;
    let set = Set::load(spares)?;
    set.refuse_problems(
        spares,
        "and the repair did not mend it, which it should have",
    )
}

/// A spare that is taken for one that was about to join has nothing on it but the beginnings of
/// superblocks.
fn check_joining(spares: &[Spare], set: &Set) -> Result<()> {
    for (index, member) in set.superblock.members() {
        let number = set.chosen.spare_of(index);
        let Some(number) = number.filter(|n| set.chosen.joining & (1 << n) != 0) else {
            continue;
        };
        let Some(spare) = spares.get(usize::from(number)) else {
            continue;
        };
        let start = member.geometry.data_start();
        let end = member.geometry.data_end();
        if let Some(why) = spare.not_zero(start, end.min(start.saturating_add(BLANK_SECTORS)))? {
            return Err(Error::foreign(format!(
                "{}: not blank ({why}), so it is not the spare that was about to join the set: leave it out",
                spare.path().display()
            )));
        }
    }
    Ok(())
}

/// What the user can say about a problem.
fn options(set: &Set, problem: &Problem) -> String {
    let either = |choices: &[Choice]| {
        let list: Vec<String> = choices.iter().map(ToString::to_string).collect();
        list.join(" or ")
    };
    match problem.error {
        LoadError::SuperblockStale { block } => {
            let copies = set.supers.copies.iter();
            let mut good = copies.filter(|copy| copy.state == State::True);
            let choice = good.find_map(|found| match (found.copy, found.place) {
                (Copy::Super { copy }, Some(place)) => Some(Choice::Super {
                    spare: u8::try_from(place.spare).ok()?,
                    copy,
                }),
                _ => None,
            });
            format!(
                "{} goes by the superblock nevertheless, and what was moved since is not found then; \
                 {} gives up that block",
                either(choice.as_slice()),
                Choice::Empty { id: block }
            )
        }
        LoadError::TableBlock { block: id, .. } | LoadError::TableContradiction { block: id } => {
            let [replica0, replica1] = [0, 1].map(|replica| Choice::Replica { id, replica });
            let member = set.superblock.member(id.member);
            let (first, end) = member.map_or((0, 0), |member| member.block_slots(id.block));
            format!(
                "{}; it has slots {first} to {}, and what they serve reads as it is on main once it \
                 is empty, which may be old",
                either(&[replica0, replica1, Choice::Empty { id }]),
                end.saturating_sub(1)
            )
        }
        LoadError::OutOfRange { .. } => {
            let choices: Vec<Choice> = problem
                .slot
                .map(|id| Choice::Free { id })
                .into_iter()
                .collect();
            either(&choices)
        }
        LoadError::Unresolvable { main_block } => {
            let claims = set
                .slots()
                .filter(|(_, entry)| entry.word.claims(main_block));
            let choices: Vec<Choice> = claims.map(|(id, _)| Choice::Free { id }).collect();
            format!("{} (the other one keeps the block)", either(&choices))
        }
        _ => String::from("nothing that repair can do"),
    }
}

fn refuse_supers(spares: &[Spare], supers: &Supers) -> Result<()> {
    let Some(refusal) = supers.refusal(spares) else {
        return Ok(());
    };
    let base = refusal.error;
    if base.kind() == Kind::Foreign || refusal.takes_dump {
        return Err(base);
    }
    let whole: Vec<String> = supers
        .copies
        .iter()
        .zip(&supers.said)
        .filter_map(|(found, said)| {
            let (Copy::Super { copy }, Some(place), Some(said)) = (found.copy, found.place, said)
            else {
                return None;
            };
            let spare = u8::try_from(place.spare).ok()?;
            Some(format!(
                "\n  {}: on {}, set {}, sequence {}, epoch {}",
                Choice::Super { spare, copy },
                spares.get(place.spare)?.path().display(),
                said.superblock.set_uuid,
                said.superblock.sequence,
                said.superblock.epoch
            ))
        })
        .collect();
    Err(Error::damage(match whole.is_empty() {
        true => format!("{base}; only a dump can help: dmremap restore"),
        false => format!(
            "{base}; choose the superblock to go by, by --choose:{}",
            whole.concat()
        ),
    }))
}

/// Makes one superblock copy the truth: newer than all others, and aware of every epoch in use.
fn take_super(spares: &mut [Spare], spare: u8, copy: u8) -> Result<()> {
    let supers = read_supers(spares)?;
    let index = usize::from(spare) * usize::from(SUPER_COPIES) + usize::from(copy);
    let Some(Some(said)) = supers.said.get(index) else {
        return Err(Error::damage(format!(
            "{}: there is no such superblock copy, or it is not whole",
            Choice::Super { spare, copy }
        )));
    };
    let mut superblock = said.superblock.clone();
    let places = members(spares, &supers, &superblock, said.member, spare)?;
    let whole = supers.said.iter().flatten();
    let newest = whole
        .map(|said| said.superblock.sequence)
        .max()
        .unwrap_or(0);
    superblock.sequence = newest.saturating_add(1);
    let whole = supers.said.iter().flatten();
    let newest = whole.map(|said| said.superblock.set_epoch).max();
    superblock.set_epoch = superblock.set_epoch.max(newest.unwrap_or(0));
    superblock.epoch = superblock
        .epoch
        .max(epoch_in_use(spares, &superblock, &places)?);
    superblock.clean = false;
    for (member, _) in &places {
        if let Some(member) = superblock.member_mut(*member) {
            member.void_supers = 0;
        }
    }
    for (member, spare) in &places {
        for copy in 0..SUPER_COPIES {
            let id = CopyId {
                member: *member,
                copy,
            };
            let Some(at) = superblock.super_place(id) else {
                continue;
            };
            let mut image = [0; BLOCK_BYTES];
            superblock.encode(&mut image, id);
            let place = Place {
                spare: *spare,
                sector: at.sector,
            };
            write(spares, place, &image, Copy::Super { copy });
        }
    }
    Ok(())
}

/// Which spares are which members of the chosen superblock. Each must be one, by its own copies, or
/// be the only one.
fn members(
    spares: &[Spare],
    supers: &Supers,
    superblock: &Superblock,
    member: u8,
    chosen: u8,
) -> Result<Vec<(u8, usize)>> {
    let mut places = vec![(member, usize::from(chosen))];
    let copies = usize::from(SUPER_COPIES);
    for (number, spare) in spares.iter().enumerate() {
        if number == usize::from(chosen) {
            continue;
        }
        let own = supers
            .said
            .iter()
            .skip(number * copies)
            .take(copies)
            .flatten();
        let found = own.filter_map(|said| {
            let uuid = said.superblock.member(said.member)?.uuid;
            superblock.find_member(&uuid)
        });
        match found.clone().next() {
            Some(member) if places.iter().all(|(other, _)| *other != member) => {
                places.push((member, number));
            }
            _ => {
                return Err(Error::foreign(format!(
                    "{}: no member of the set of the superblock that was chosen: leave it out",
                    spare.path().display()
                )))
            }
        }
    }
    Ok(places)
}

/// The highest epoch of any block of the slot tables, as far as this superblock knows where they are.
fn epoch_in_use(
    spares: &mut [Spare],
    superblock: &Superblock,
    places: &[(u8, usize)],
) -> Result<u32> {
    let mut epoch = 0;
    for (index, member) in superblock.members() {
        for block in 0..member.table_blocks() {
            let mut used = block < member.high_water;
            let id = BlockId {
                member: index,
                block,
            };
            for replica in 0..REPLICAS {
                let Some(at) = superblock.table_place(replica, id) else {
                    continue;
                };
                let Some((_, spare)) = places.iter().find(|(host, _)| *host == at.member) else {
                    continue;
                };
                let place = Place {
                    spare: *spare,
                    sector: at.sector,
                };
                let image = read(spares, place)?;
                let found = image
                    .as_deref()
                    .and_then(|image| TableBlock::decode(image, &member.uuid, block).ok());
                if let Some(found) = found {
                    epoch = epoch.max(sequence_epoch(found.sequence()));
                    used = true;
                }
            }
            if !used {
                break;
            }
        }
    }
    Ok(epoch)
}

/// Writes the chosen content of a table block into every live replica.
fn choose_block(spares: &mut [Spare], set: &Set, choice: &Choice) -> Result<()> {
    let (id, from) = match *choice {
        Choice::Replica { id, replica } => (id, Some(replica)),
        Choice::Empty { id } => (id, None),
        Choice::Super { .. } | Choice::Free { .. } => return Ok(()),
    };
    let superblock = &set.superblock;
    let refuse = |why: &str| Error::damage(format!("{choice}: the block can't be used: {why}"));
    let Some(member) = superblock.member(id.member) else {
        return Err(refuse("there is no such spare"));
    };
    let place = |replica| {
        let at = superblock.table_place(replica, id);
        at.and_then(|at| set.place(at))
    };
    let mut image: Box<Block> = Box::new([0; BLOCK_BYTES]);
    match from {
        Some(replica) => {
            let place = place(replica).ok_or_else(|| refuse("there is no such block"))?;
            image = read(spares, place)?.ok_or_else(|| refuse("unreadable"))?;
            head::seal(&mut image);
            TableBlock::decode(&image, &member.uuid, id.block)
                .map_err(|error| refuse(&error.to_string()))?;
        }
        None => {
            let sequence = sequence(superblock.epoch, 0)
                .ok_or_else(|| refuse("sequence numbers are exhausted"))?;
            let nothing = std::iter::empty();
            table_block::encode(&mut image, &member.uuid, id.block, sequence, nothing);
        }
    }
    let mut written = false;
    for replica in (0..REPLICAS).filter(|replica| member.replica_lives(*replica)) {
        if let Some(place) = place(replica) {
            written |= write(spares, place, &image, Copy::Table { id, replica });
        }
    }
    match written {
        // Where one replica did not take it, the repair goes on from the other.
        true => Ok(()),
        false => Err(refuse("no replica takes it")),
    }
}

fn free_slots(spares: &mut [Spare], set: &Set, choices: &[Choice]) -> Result<()> {
    let mut entries = set.entries.clone();
    let mut blocks = Vec::new();
    for choice in choices {
        let Choice::Free { id } = *choice else {
            continue;
        };
        let block = id.block();
        let mut table = set.table.iter();
        let known = table.any(|found| found.id == block && found.sequence.is_some());
        let own = entries.get_mut(usize::from(id.member));
        match own.and_then(|own| own.get_mut(id.slot as usize)) {
            Some(entry) if known => *entry = Entry::UNUSED,
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
    Writer::open(spares, set)?.commit(&entries, blocks)
}
