// SPDX-License-Identifier: GPL-2.0

//! What is left of a spare none of whose superblock copies is whole.
//!
//! Without a superblock nobody knows where everything lies, and there is no going on but by a dump. But blocks of
//! the slot table say themselves what they are, and most have one of a few places: so the remains of a spare
//! are told from a stranger's disk, which nobody has lost anything on.

use dm_remap_logic::format::bytes;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::BLOCK_SECTORS;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::text::Uuid;

use crate::error::Result;
use crate::spare::Spare;

/// Where a block of the slot table names its member, and itself; docs/format.md.
const AT_UUID: usize = 16;
const AT_NUMBER: usize = 32;

/// How much of each replica is looked at: what a spare has from the beginning.
const BLOCKS: u64 = 64;

/// Whole blocks of a slot table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The member that most of them are about.
    pub uuid: Uuid,
    /// How many of its blocks there are.
    pub blocks: usize,
    /// Where the first of them lies, in sectors of the device.
    pub sector: u64,
}

/// Looks where a spare's own slot table would be.
pub(crate) fn find(spare: &mut Spare) -> Result<Option<Remains>> {
    let mut found: Vec<Remains> = Vec::new();
    for sector in places(spare.sectors()) {
        let Some(uuid) = spare.read(sector)?.and_then(|block| owner(&block)) else {
            continue;
        };
        match found.iter_mut().find(|remains| remains.uuid == uuid) {
            Some(remains) => remains.blocks += 1,
            None => found.push(Remains {
                uuid,
                blocks: 1,
                sector: spare.start() + sector,
            }),
        }
    }
    Ok(found.into_iter().max_by_key(|remains| remains.blocks))
}

/// Where the first blocks of both replicas lie, and their reserve blocks, for each size of a slot.
fn places(window: u64) -> Vec<u64> {
    let mut places = Vec::new();
    let reserve = u64::from(RESERVE_BLOCKS);
    for slot_sectors in [1, 2, 4, 8] {
        let Ok(geometry) = Geometry::new(window, slot_sectors, BLOCK_SECTORS as u32) else {
            continue;
        };
        let blocks = BLOCKS.min(geometry.table_blocks().into());
        for replica in 0..REPLICAS {
            let Some((first_reserve, table)) = geometry.home(replica) else {
                continue;
            };
            places.extend((0..reserve).map(|block| first_reserve + block * BLOCK_SECTORS));
            places.extend((0..blocks).map(|block| table + block * BLOCK_SECTORS));
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// The member that a block of a slot table is about, if it is one and whole.
fn owner(block: &Block) -> Option<Uuid> {
    let uuid = Uuid(bytes::get(block, AT_UUID));
    let number = bytes::get_u32(block, AT_NUMBER);
    TableBlock::decode(block, &uuid, number).ok()?;
    (!uuid.is_nil()).then_some(uuid)
}
