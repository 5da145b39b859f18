// SPDX-License-Identifier: GPL-2.0

//! Writing the metadata of a spare anew from a dump, as if (see [`crate::spare`]).
//!
//! What is left of older metadata must not come back: the new blocks and superblocks are of a
//! later activation than anything that is there, and blocks behind the high-water mark, which
//! loading would read on to, are blanked.

use dm_remap_logic::commit::EXTEND_BLOCKS_MAX;
use dm_remap_logic::format;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::sequence;
use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::REPLICAS;

use crate::dump::Decoded;
use crate::error::Error;
use crate::error::Result;
use crate::set::names;
use crate::set::read;
use crate::set::write;
use crate::set::Copy;
use crate::set::CopyFound;
use crate::set::Place;
use crate::set::Said;
use crate::set::SlotId;
use crate::set::State;
use crate::set::Supers;
use crate::spare::Spare;

/// Checks that the spares given are, in their order, those of the dump, as far as they say what they
/// are.
pub fn check_order(spares: &[Spare], supers: &Supers, dump: &Decoded) -> Result<()> {
    let members: Vec<_> = dump.superblock.members().collect();
    if members.len() != spares.len() {
        let list: Vec<String> = members.iter().map(|(_, m)| m.uuid.to_string()).collect();
        return Err(Error::usage(format!(
            "the dump is of {} spares, and {} are given: name them in the order of the dump, {}",
            members.len(),
            spares.len(),
            list.join(", ")
        )));
    }
    for ((_, member), spare) in members.iter().zip(spares) {
        spare.check_window(member).map_err(Error::usage)?;
    }
    for (spare, said) in said(supers) {
        let Some(own) = said.superblock.member(said.member) else {
            continue;
        };
        let place = members
            .iter()
            .position(|(_, member)| member.uuid == own.uuid);
        let name = spares.get(spare).map(|s| s.path().display().to_string());
        if let Some(place) = place.filter(|place| *place != spare) {
            return Err(Error::usage(format!(
                "{}: this is spare {}, which is number {} in the dump: name the spares in that order",
                name.unwrap_or_default(),
                own.uuid,
                place + 1
            )));
        }
    }
    Ok(())
}

/// Refuses to overwrite what is of another set, or newer than the dump, or not ours at all: that may be something
/// else that is of value.
pub fn check_content(spares: &[Spare], supers: &Supers, dump: &Decoded) -> Result<()> {
    let wanted = &dump.superblock;
    for (spare, said) in said(supers) {
        let name = spares.get(spare).map(|s| s.path().display().to_string());
        let name = name.unwrap_or_default();
        let found = &said.superblock;
        if found.set_uuid != wanted.set_uuid {
            return Err(Error::foreign(format!(
                "{name}: this is a spare of set {}, the dump is of {}; --force overwrites it",
                found.set_uuid, wanted.set_uuid
            )));
        }
        if found.sequence > wanted.sequence {
            return Err(Error::damage(format!(
                "{name}: superblock sequence {} is newer than the dump's {}: what was remapped \
                 since would be lost; dmremap repair may do without a dump, --force goes back to it",
                found.sequence, wanted.sequence
            )));
        }
    }
    check_remains(spares, supers, dump)
}

/// The same for spares that have no superblock copy any more. Each is looked at by itself: that others are
/// ours says nothing about it.
fn check_remains(spares: &[Spare], supers: &Supers, dump: &Decoded) -> Result<()> {
    let members = dump.superblock.members();
    for ((number, spare), (_, member)) in spares.iter().enumerate().zip(members) {
        let name = spare.path().display();
        if supers.of(number).any(|(_, said)| said.is_some()) {
            continue;
        }
        match supers.remains.get(number).and_then(Option::as_ref) {
            Some(remains) if remains.uuid == member.uuid => continue,
            Some(remains) => {
                return Err(Error::foreign(format!(
                    "{name}: has {} blocks of the slot table of spare {}, and the dump is of {}; \
                     --force overwrites them",
                    remains.blocks, remains.uuid, member.uuid
                )))
            }
            None => (),
        }
        let is_strange = |error: &FormatError| {
            matches!(
                error,
                FormatError::Foreign | FormatError::Newer { .. } | FormatError::Features { .. }
            )
        };
        let errors = supers
            .of(number)
            .filter_map(|(found, _)| match found.state {
                State::Bad(error) => Some(error),
                _ => None,
            });
        let errors: Vec<FormatError> = errors.collect();
        let was_ours = |error: &FormatError| !is_strange(error) && *error != FormatError::Blank;
        if let (Some(error), false) = (
            errors.iter().find(|error| is_strange(error)),
            errors.iter().any(was_ours),
        ) {
            return Err(Error::foreign(format!(
                "{name}: {error}; --force overwrites it"
            )));
        }
    }
    Ok(())
}

/// What is said by which spare.
fn said(supers: &Supers) -> impl Iterator<Item = (usize, &Said)> {
    let all = supers.copies.iter().zip(&supers.said);
    all.filter_map(|(found, said): (&CopyFound, &Option<Said>)| {
        Some((found.place?.spare, said.as_ref()?))
    })
}

/// Writes what the dump says.
pub fn restore(spares: &mut [Spare], supers: &Supers, dump: &Decoded) -> Result<()> {
    let members = dump.superblock.members();
    let members: Vec<u8> = members.map(|(index, _)| index).collect();
    let mut job = Job {
        spares,
        superblock: dump.superblock.clone(),
        members,
    };
    let old = job.old_tables()?;
    let mut newest = job.superblock.sequence;
    let mut set_epoch = job.superblock.set_epoch;
    let mut epoch = job.superblock.epoch.max(old.epoch);
    for (_, said) in said(supers) {
        newest = newest.max(said.superblock.sequence);
        set_epoch = set_epoch.max(said.superblock.set_epoch);
        epoch = epoch.max(said.superblock.epoch);
    }
    let exhausted = || Error::damage("sequence numbers are exhausted");
    job.superblock.epoch = epoch.saturating_add(1);
    job.superblock.sequence = newest.checked_add(1).ok_or_else(exhausted)?;
    job.superblock.set_epoch = set_epoch;
    job.superblock.clean = true;
    for member in job.superblock.members.iter_mut().flatten() {
        member.void_replicas = 0;
        member.void_supers = 0;
        member.missing = false;
    }
    let sequence = sequence(job.superblock.epoch, 1).ok_or_else(exhausted)?;
    for index in job.members.clone() {
        let mark = job.superblock.member(index).map_or(0, |m| m.high_water);
        for block in 0..mark {
            let id = BlockId {
                member: index,
                block,
            };
            job.write_block(dump, id, sequence)?;
        }
    }
    for id in old.behind {
        job.blank(id);
    }
    job.write_supers()
}

/// What is left of older tables.
struct Old {
    /// Blocks behind the high-water marks.
    behind: Vec<BlockId>,
    /// The highest epoch.
    epoch: u32,
}

struct Job<'a> {
    spares: &'a mut [Spare],
    superblock: Superblock,
    /// The members, in the order of the spares given.
    members: Vec<u8>,
}

impl Job<'_> {
    fn place(&self, at: format::Place) -> Option<Place> {
        let spare = self
            .members
            .iter()
            .position(|member| *member == at.member)?;
        Some(Place {
            spare,
            sector: at.sector,
        })
    }

    fn table_place(&self, replica: u8, id: BlockId) -> Option<Place> {
        self.place(self.superblock.table_place(replica, id)?)
    }

    fn old_tables(&mut self) -> Result<Old> {
        let mut old = Old {
            behind: Vec::new(),
            epoch: 0,
        };
        for (index, member) in self.superblock.clone().members() {
            // Blocks are made in chunks of this size at most.
            let mut end = member.high_water.saturating_add(EXTEND_BLOCKS_MAX);
            let mut block = 0;
            while block < end.min(member.table_blocks()) {
                let id = BlockId {
                    member: index,
                    block,
                };
                let mut found = false;
                for replica in 0..REPLICAS {
                    let Some(place) = self.table_place(replica, id) else {
                        continue;
                    };
                    let image = read(self.spares, place)?;
                    let whole = image
                        .as_deref()
                        .and_then(|image| TableBlock::decode(image, &member.uuid, block).ok());
                    if let Some(whole) = whole {
                        old.epoch = old.epoch.max(sequence_epoch(whole.sequence()));
                        found = true;
                    }
                }
                if found && block >= member.high_water {
                    old.behind.push(id);
                    end = block.saturating_add(1).saturating_add(EXTEND_BLOCKS_MAX);
                }
                block += 1;
            }
        }
        Ok(old)
    }

    fn blank(&mut self, id: BlockId) {
        for replica in 0..REPLICAS {
            if let Some(place) = self.table_place(replica, id) {
                let zeroes = [0; BLOCK_BYTES];
                write(self.spares, place, &zeroes, Copy::Table { id, replica });
            }
        }
    }

    /// Writes a table block to both replicas: where it belongs, or to a reserve block.
    fn write_block(&mut self, dump: &Decoded, id: BlockId, sequence: u64) -> Result<()> {
        let Some(member) = self.superblock.member(id.member) else {
            return Ok(());
        };
        let (first, end) = member.block_slots(id.block);
        let entries = (first..end).map(|slot| {
            let id = SlotId {
                member: id.member,
                slot,
            };
            dump.entries.get(&id).copied().unwrap_or_default()
        });
        let mut image = [0; BLOCK_BYTES];
        table_block::encode(&mut image, &member.uuid, id.block, sequence, entries);
        for replica in 0..REPLICAS {
            let lives = self
                .superblock
                .member(id.member)
                .is_some_and(|member| member.replica_lives(replica));
            if !lives || self.place_block(replica, id, &image) {
                continue;
            }
            if let Some(member) = self.superblock.member_mut(id.member) {
                member.void_replicas |= 1 << replica;
                if member.void_replicas == (1 << REPLICAS) - 1 {
                    return Err(Error::damage(format!("no place takes {id}")));
                }
            }
        }
        Ok(())
    }

    fn place_block(&mut self, replica: u8, id: BlockId, image: &Block) -> bool {
        loop {
            let Some(place) = self.table_place(replica, id) else {
                return false;
            };
            if write(self.spares, place, image, Copy::Table { id, replica }) {
                return true;
            }
            let Some(member) = self.superblock.member_mut(id.member) else {
                return false;
            };
            let moved = member.relocation(replica, id.block);
            let Some(reserves) = member.reserve.get_mut(usize::from(replica)) else {
                return false;
            };
            let home_bad = match moved {
                Some((index, home_bad)) => {
                    reserves.set(index, Reserve::Bad);
                    home_bad
                }
                None => true,
            };
            let Some(index) = reserves.first_free() else {
                return false;
            };
            let block = id.block;
            reserves.set(index, Reserve::Holds { block, home_bad });
        }
    }

    /// Writes the superblock copies. Those that do not take it are written off in the others, which
    /// are then written once more.
    fn write_supers(&mut self) -> Result<()> {
        loop {
            let mut failed = false;
            let mut live = self.superblock.live_supers();
            if live.count_ones() < 2 {
                return Err(Error::damage(format!(
                    "{}: too few places take a superblock copy",
                    names(self.spares)
                )));
            }
            while let Some(id) = CopyId::lowest(live) {
                live &= !id.bit();
                let mut image = [0; BLOCK_BYTES];
                self.superblock.encode(&mut image, id);
                let at = self.superblock.super_place(id);
                let Some(place) = at.and_then(|at| self.place(at)) else {
                    continue;
                };
                if !write(self.spares, place, &image, Copy::Super { copy: id.copy }) {
                    self.superblock.set_super(id, false);
                    failed = true;
                }
            }
            if !failed {
                return Ok(());
            }
        }
    }
}
