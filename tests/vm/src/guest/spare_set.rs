// SPDX-License-Identifier: GPL-2.0
//! Spares that hold a great many remaps, made without a write that fails for each.

use std::path::PathBuf;

use dm_remap_logic::format::sequence;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::Uuid;

use super::device::Mapped;
use super::disks::NullBlk;
use super::io::Direct;

/// Sectors in a metadata block.
const BLOCK_SECTORS: u64 = 8;

/// A main device and a set of spares.
pub struct SpareSet {
    /// The main device.
    pub main: NullBlk,
    /// Its spares, the first one with all remaps.
    pub spares: Vec<NullBlk>,
    /// The main device's size, in sectors.
    pub sectors: u64,
    /// The size of a slot and of a block of main, in sectors.
    pub slot_sectors: u64,
    /// The block of main that a slot serves, of so many blocks.
    pub place: fn(u32, u64) -> u64,
}

/// The used part of a replica of a slot table.
pub struct Used {
    /// The block device.
    pub spare: PathBuf,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

impl SpareSet {
    /// The place of slots that are scattered over main: an odd number of blocks further on for each.
    pub fn scattered(slot: u32, blocks: u64) -> u64 {
        u64::from(slot) * 7919 % blocks
    }

    /// The place of slots that serve main's first blocks.
    pub fn in_front(slot: u32, _blocks: u64) -> u64 {
        slot.into()
    }

    /// What stands in a table line.
    pub fn parameters(&self, option: &str) -> String {
        let [first, more @ ..] = &self.spares[..] else {
            panic!("no spare");
        };
        let mut options = String::new();
        let mut count = 0;
        for spare in more {
            options += &format!(" spare {}", spare.path().display());
            count += 2;
        }
        if !option.is_empty() {
            options += &format!(" {option}");
            count += 1;
        }
        let (main, spare) = (self.main.path(), first.path());
        format!("{} {} {count}{options}", main.display(), spare.display())
    }

    /// Formats the spares and puts `remaps` remaps into the first one's table. Returns
    /// what that takes of the replicas.
    pub fn forge(&self, remaps: u32) -> [Used; 2] {
        self.forge_beyond(remaps, 0)
    }

    /// The same, with a high-water mark that is so many blocks behind what is there.
    pub fn forge_beyond(&self, remaps: u32, beyond: u32) -> [Used; 2] {
        let parameters = self.parameters("format");
        Mapped::new(&format!("0 {} dm-remap {parameters}", self.sectors)).remove();
        let mut superblock = self.superblock();
        let member = superblock.member_mut(0).expect("the first");
        let uuid = member.uuid;
        let blocks = remaps.div_ceil(ENTRIES).max(member.high_water);
        member.high_water = blocks - beyond;
        self.put_superblock(&superblock);

        let newest = sequence(superblock.epoch, 1 << 32).expect("a legal number");
        let mut table = Vec::new();
        for block in 0..blocks {
            table.extend_from_slice(&self.table_block(&uuid, block, remaps, newest));
        }
        let first = BlockId {
            member: 0,
            block: 0,
        };
        [0, 1].map(|replica| {
            let place = superblock.own_place(replica, first).expect("there");
            let spare = self.spares[usize::from(place.member)].path();
            // Past the page cache, whose pages would be missing when memory is counted.
            let file = Direct::open(&spare);
            let mut at = place.sector;
            for part in table.chunks(64 * BLOCK_BYTES) {
                file.write(at, part).expect("write");
                at += part.len() as u64 / 512;
            }
            Used {
                spare,
                start: place.sector * 512,
                bytes: table.len() as u64,
            }
        })
    }

    /// Block `block` of a table whose first slots serve `remaps` blocks.
    fn table_block(&self, uuid: &Uuid, block: u32, remaps: u32, sequence: u64) -> Block {
        let slots = block * ENTRIES..(block + 1) * ENTRIES;
        let entries = slots.map(|slot| match slot < remaps {
            true => Entry {
                word: SlotWord::new(self.block_of(slot), SlotState::Valid, Origin::Auto)
                    .expect("in range"),
                generation: sequence,
            },
            false => Entry::UNUSED,
        });
        let mut image = [0; BLOCK_BYTES];
        table_block::encode(&mut image, uuid, block, sequence, entries);
        image
    }

    /// The block of main that a slot serves.
    pub fn block_of(&self, slot: u32) -> u64 {
        (self.place)(slot, self.sectors / self.slot_sectors)
    }

    /// Makes a block of the first spare's table what it was before a replica's last write: with nothing in it.
    pub fn age(&self, used: &Used, block: u32) {
        let superblock = self.superblock();
        let uuid = superblock.member(0).expect("the first").uuid;
        let older = sequence(superblock.epoch, 1).expect("a legal number");
        let image = self.table_block(&uuid, block, 0, older);
        let sector = used.start / 512 + u64::from(block) * BLOCK_SECTORS;
        Direct::open(&used.spare)
            .write(sector, &image)
            .expect("write");
    }

    /// The sector of the first spare where its slots begin.
    pub fn slots_start(&self) -> u64 {
        let superblock = self.superblock();
        superblock
            .member(0)
            .expect("the first")
            .geometry
            .data_start()
    }

    fn superblock(&self) -> Superblock {
        let spare = Direct::open(&self.spares[0].path());
        let image = spare.read(0, BLOCK_SECTORS).expect("read");
        let image = image.first_chunk().expect("a block");
        Superblock::decode(image, 0).expect("a superblock")
    }

    fn put_superblock(&self, superblock: &Superblock) {
        for (member, spare) in (0..).zip(&self.spares) {
            let spare = Direct::open(&spare.path());
            for copy in 0..SUPER_COPIES {
                let id = CopyId { member, copy };
                let mut image = [0; BLOCK_BYTES];
                superblock.encode(&mut image, id);
                let place = superblock.super_place(id).expect("there");
                spare.write(place.sector, &image).expect("write");
            }
        }
    }
}
