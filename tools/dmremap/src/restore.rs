// SPDX-License-Identifier: GPL-2.0

//! Writing the metadata of a spare anew from a dump, as if (see [`crate::spare`]).
//!
//! What is left of older metadata must not come back: the new blocks and superblocks are of a
//! later activation than anything that is there, and blocks behind the high-water mark, which
//! loading would read on to, are blanked.

use dm_remap_logic::commit::EXTEND_BLOCKS_MAX;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::sequence;
use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::slot::Entry;

use crate::driver::read;
use crate::dump::Decoded;
use crate::error::Error;
use crate::error::Result;
use crate::set::names;
use crate::set::Copy;
use crate::set::Place;
use crate::set::Supers;
use crate::spare::Spare;

/// Refuses to overwrite what is of another set, or newer than the dump.
pub fn check(spares: &[Spare], supers: &Supers, dump: &Decoded) -> Result<()> {
    let name = names(spares);
    let wanted = &dump.superblock;
    for said in supers.said.iter().flatten() {
        if said.set_uuid != wanted.set_uuid {
            return Err(Error::foreign(format!(
                "{name}: this is the spare of set {}, the dump is of {}; --force overwrites it",
                said.set_uuid, wanted.set_uuid
            )));
        }
        if said.sequence > wanted.sequence {
            return Err(Error::damage(format!(
                "{name}: superblock sequence {} is newer than the dump's {}: what was remapped \
                 since would be lost; dmremap repair may do without a dump, --force goes back to it",
                said.sequence, wanted.sequence
            )));
        }
    }
    Ok(())
}

/// Writes what the dump says.
pub fn restore(spares: &mut [Spare], supers: &Supers, dump: &Decoded) -> Result<()> {
    let mut superblock = dump.superblock.clone();
    let formatted = superblock.geometry.window_sectors();
    if spares.first().map_or(0, Spare::sectors) < formatted {
        return Err(Error::usage(format!(
            "{}: smaller than the {formatted} sectors of the spare that the dump is of",
            names(spares)
        )));
    }
    let end = end_of_old(spares, &superblock)?;
    let said = supers.said.iter().flatten();
    let newest = said.clone().map(|said| said.sequence).max().unwrap_or(0);
    let epoch = said
        .map(|said| said.epoch)
        .max()
        .unwrap_or(0)
        .max(end.epoch);
    let exhausted = || Error::damage("sequence numbers are exhausted");
    superblock.epoch = superblock.epoch.max(epoch).saturating_add(1);
    superblock.sequence = superblock
        .sequence
        .max(newest)
        .checked_add(1)
        .ok_or_else(exhausted)?;
    superblock.void_replicas = 0;
    superblock.void_supers = 0;
    superblock.clean = true;
    let sequence = sequence(superblock.epoch, 1).ok_or_else(exhausted)?;
    for block in 0..superblock.high_water {
        write_block(spares, &mut superblock, &dump.entries, block, sequence)?;
    }
    for block in superblock.high_water..end.block {
        for replica in 0..2 {
            if let Some(sector) = superblock.table_sector(replica, block) {
                let what = Copy::Table { block, replica };
                write(spares, sector, &[0; BLOCK_BYTES], what);
            }
        }
    }
    write_supers(spares, superblock)
}

/// Where older metadata of the same spare ends.
struct Old {
    /// One past the last table block.
    block: u32,
    /// The highest epoch.
    epoch: u32,
}

fn end_of_old(spares: &mut [Spare], superblock: &Superblock) -> Result<Old> {
    let mut old = Old { block: 0, epoch: 0 };
    let mut block = 0;
    // Blocks are made in chunks of this size at most.
    while block
        < superblock
            .high_water
            .max(old.block)
            .saturating_add(EXTEND_BLOCKS_MAX)
    {
        for replica in 0..2 {
            let Some(sector) = superblock.table_sector(replica, block) else {
                return Ok(old);
            };
            let Some(image) = read(spares, Place { spare: 0, sector })? else {
                continue;
            };
            if let Ok(found) = TableBlock::decode(&image, &superblock.member_uuid, block) {
                old.block = block.saturating_add(1);
                old.epoch = old.epoch.max(sequence_epoch(found.sequence()));
            }
        }
        block += 1;
    }
    Ok(old)
}

/// Writes a table block to both replicas: where it belongs, or to a reserve block.
fn write_block(
    spares: &mut [Spare],
    superblock: &mut Superblock,
    entries: &std::collections::BTreeMap<u32, Entry>,
    block: u32,
    sequence: u64,
) -> Result<()> {
    let (first, end) = superblock.geometry.block_slots(block);
    let entries = (first..end).map(|slot| entries.get(&slot).copied().unwrap_or_default());
    let mut image = [0; BLOCK_BYTES];
    table_block::encode(
        &mut image,
        &superblock.member_uuid,
        block,
        sequence,
        entries,
    );
    for replica in 0..2u8 {
        if superblock.replica_lives(replica)
            && !place_block(spares, superblock, replica, block, &image)
        {
            superblock.void_replicas |= 1 << replica;
            if superblock.void_replicas == 3 {
                return Err(Error::damage(format!(
                    "{}: no place takes table block {block}",
                    names(spares)
                )));
            }
        }
    }
    Ok(())
}

fn place_block(
    spares: &mut [Spare],
    superblock: &mut Superblock,
    replica: u8,
    block: u32,
    image: &Block,
) -> bool {
    let what = Copy::Table { block, replica };
    loop {
        let Some(sector) = superblock.table_sector(replica, block) else {
            return false;
        };
        if write(spares, sector, image, what) {
            return true;
        }
        let moved = superblock.relocation(replica, block);
        let Some(reserves) = superblock.reserve.get_mut(usize::from(replica)) else {
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
        reserves.set(index, Reserve::Holds { block, home_bad });
    }
}

/// Writes the superblock copies. Those that do not take it are written off in the others.
fn write_supers(spares: &mut [Spare], mut superblock: Superblock) -> Result<()> {
    let places: Vec<(u8, u64)> = (0..4)
        .filter_map(|copy| Some((copy, superblock.geometry.superblock_sector(copy)?)))
        .collect();
    for (copy, sector) in &places {
        let mut image = [0; BLOCK_BYTES];
        superblock.encode(&mut image, *copy);
        if !write(spares, *sector, &image, Copy::Super { copy: *copy }) {
            superblock.void_supers |= 1 << copy;
        }
    }
    if superblock.void_supers.count_ones() > 2 {
        return Err(Error::damage(format!(
            "{}: too few places take a superblock copy",
            names(spares)
        )));
    }
    if superblock.void_supers == 0 {
        return Ok(());
    }
    // Those that were written do not say it yet.
    for (copy, sector) in &places {
        if superblock.super_lives(*copy) {
            let mut image = [0; BLOCK_BYTES];
            superblock.encode(&mut image, *copy);
            write(spares, *sector, &image, Copy::Super { copy: *copy });
        }
    }
    Ok(())
}

fn write(spares: &mut [Spare], sector: u64, image: &Block, what: Copy) -> bool {
    let spare = spares.first_mut();
    spare.is_some_and(|spare| spare.write(sector, image, &what.to_string()))
}
