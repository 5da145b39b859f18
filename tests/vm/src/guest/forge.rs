// SPDX-License-Identifier: GPL-2.0
//! Metadata that no version of ours has written: changed on the spare, with a checksum that is right.

use dm_remap_logic::format::head;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::BLOCK_SECTORS;
use sickdisk::SickDisk;

const SUPERBLOCK: &[u8] = b"DM-REMAP";
const TABLE_BLOCK: &[u8] = b"DMRMPTBL";

/// The sectors of all superblock copies on a disk.
pub fn superblocks(disk: &SickDisk) -> Vec<u64> {
    find(disk, SUPERBLOCK)
}

/// The sectors of all blocks of slot tables on a disk.
pub fn table_blocks(disk: &SickDisk) -> Vec<u64> {
    find(disk, TABLE_BLOCK)
}

/// Puts bytes into every superblock copy of a disk.
pub fn forge_superblocks(disk: &SickDisk, at: usize, bytes: &[u8]) {
    forge(disk, SUPERBLOCK, at, bytes);
}

/// Puts bytes into every block of the slot table on a disk.
pub fn forge_table_blocks(disk: &SickDisk, at: usize, bytes: &[u8]) {
    forge(disk, TABLE_BLOCK, at, bytes);
}

#[track_caller]
fn forge(disk: &SickDisk, magic: &[u8], at: usize, bytes: &[u8]) {
    let blocks = find(disk, magic);
    assert!(!blocks.is_empty(), "nothing to forge");
    for sector in blocks {
        let mut image: Block = [0; BLOCK_BYTES];
        disk.disk().peek(sector, &mut image).expect("read a block");
        image[at..at + bytes.len()].copy_from_slice(bytes);
        head::seal(&mut image);
        disk.disk().poke(sector, &image).expect("write a block");
    }
}

fn find(disk: &SickDisk, magic: &[u8]) -> Vec<u64> {
    let disk = disk.disk();
    let mut found = Vec::new();
    let mut sector = 0;
    while sector + BLOCK_SECTORS <= disk.sectors() {
        let mut image = [0; BLOCK_BYTES];
        disk.peek(sector, &mut image).expect("read a block");
        if image.starts_with(magic) {
            found.push(sector);
        }
        sector += BLOCK_SECTORS;
    }
    found
}
