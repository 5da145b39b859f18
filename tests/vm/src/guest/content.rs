// SPDX-License-Identifier: GPL-2.0
//! What stands on a spare, seen past all faults. Places and bytes are asked of the module's own logic.

use dm_remap_logic::format::Block;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::load::superblock_sectors;
use sickdisk::SickDisk;

/// The block at `sector`, as it was written last.
pub fn peek(spare: &SickDisk, sector: u64) -> Block {
    let mut block = [0; BLOCK_BYTES];
    spare.disk().peek(sector, &mut block).unwrap();
    block
}

/// Where superblock copy `copy` lies.
pub fn super_sector(spare: &SickDisk, copy: u8) -> u64 {
    let sectors = spare.disk().sectors();
    superblock_sectors(sectors).expect("a spare")[usize::from(copy)]
}

/// What superblock copy `copy` says, if it is good.
pub fn super_copy(spare: &SickDisk, copy: u8) -> Option<Superblock> {
    Superblock::decode(&peek(spare, super_sector(spare, copy)), copy).ok()
}

/// The superblock to go by.
#[track_caller]
pub fn superblock(spare: &SickDisk) -> Superblock {
    (0..SUPER_COPIES)
        .filter_map(|copy| super_copy(spare, copy))
        .max_by_key(|superblock| superblock.sequence)
        .expect("a superblock")
}
