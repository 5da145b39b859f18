// SPDX-License-Identifier: GPL-2.0

//! What must hold for anything that was accepted.

use std::fmt::Display;

use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_SECTORS;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::slot::SlotWord;

/// An error has words for users.
pub fn says_something(error: &dyn Display) {
    assert!(!error.to_string().trim().is_empty());
}

/// Everything lies in the window and nothing over anything else. Of the blocks and slots, which may
/// be many, the first, the last and one that `probe` gives are looked at.
pub fn geometry(geometry: &Geometry, probe: u64) {
    let blocks = geometry.table_blocks();
    let mut places = vec![(geometry.data_start(), geometry.data_end(), "data")];
    for copy in 0..SUPER_COPIES {
        let start = geometry.superblock_sector(copy).expect("a copy");
        places.push((start, start + BLOCK_SECTORS, "superblock"));
    }
    assert_eq!(geometry.superblock_sector(SUPER_COPIES), None);
    for replica in 0..REPLICAS {
        for index in 0..RESERVE_BLOCKS {
            let start = geometry.reserve_block_sector(replica, index);
            let start = start.expect("a reserve block");
            places.push((start, start + BLOCK_SECTORS, "reserve"));
        }
        let at = |block| geometry.table_block_sector(replica, block);
        let first = at(0).expect("a table block");
        for block in [probe as u32 % blocks, blocks - 1] {
            let place = first + u64::from(block) * BLOCK_SECTORS;
            assert_eq!(at(block), Some(place));
        }
        let end = first + u64::from(blocks) * BLOCK_SECTORS;
        places.push((first, end, "table"));
        assert_eq!(at(blocks), None);
        assert_eq!(at(u32::MAX), None);
        assert_eq!(geometry.reserve_block_sector(replica, RESERVE_BLOCKS), None);
    }
    assert_eq!(geometry.table_block_sector(REPLICAS, 0), None);
    assert_eq!(geometry.reserve_block_sector(REPLICAS, 0), None);

    places.sort_unstable();
    let mut free = 0;
    for (start, end, what) in &places {
        assert!(free <= *start && start < end, "{what}: {places:?}");
        free = *end;
        if *what != "data" {
            let [head, tail] = geometry.metadata_ranges();
            let inside = |range: (u64, u64)| range.0 <= *start && *end <= range.1;
            assert!(inside(head) || inside(tail), "{what}: {places:?}");
        }
    }
    assert!(free <= geometry.window_sectors(), "{places:?}");
    slots(geometry, probe);
}

fn slots(geometry: &Geometry, probe: u64) {
    let (slots, size) = (geometry.slots(), u64::from(geometry.slot_sectors()));
    let align = u64::from(geometry.align_sectors());
    assert!(align >= BLOCK_SECTORS && geometry.data_start() % align == 0);
    assert_ne!(slots, 0);
    for slot in [0, (probe >> 32) as u32 % slots, slots - 1] {
        let start = geometry.slot_sector(slot).expect("a slot");
        assert!(start >= geometry.data_start() && start % size == 0);
        assert!(start + size <= geometry.data_end());
        assert_eq!(geometry.slot_at(start), Some(slot));
        assert_eq!(geometry.slot_at(start + size - 1), Some(slot));
        let (block, index) = geometry.entry_place(slot);
        assert!(block < geometry.table_blocks() && index < ENTRIES);
        let (first, end) = geometry.block_slots(block);
        assert!(first + index == slot && slot < end && end <= slots);
    }
    assert_eq!(geometry.slot_sector(slots), None);
    assert_eq!(geometry.slot_sector(u32::MAX), None);
    for outside in [geometry.data_start() - 1, geometry.data_end(), u64::MAX] {
        assert_eq!(geometry.slot_at(outside), None);
    }
}

/// What a superblock says can be relied on without another look. `copy` is where it was read.
pub fn superblock(superblock: &Superblock, copy: u8, probe: u64) {
    let layout = &superblock.geometry;
    geometry(layout, probe);
    assert!(!superblock.set_uuid.is_nil() && !superblock.member_uuid.is_nil());
    assert!(superblock.member_index < superblock.member_count);
    assert!(superblock.super_lives(copy), "it calls itself void");
    assert!((0..REPLICAS).any(|replica| superblock.replica_lives(replica)));
    assert!(!superblock.super_lives(SUPER_COPIES) && !superblock.replica_lives(REPLICAS));
    assert!(superblock.high_water <= layout.table_blocks());
    assert!(superblock.usable_slots() <= layout.slots());
    assert!(superblock.main_sectors > 0);
    assert!(superblock.main_blocks() <= SlotWord::MAIN_BLOCKS_MAX);
    assert_eq!(superblock.main_block_bytes, layout.slot_sectors() * 512);
    assert!(superblock.main_id.as_str().len() <= 64);
    assert!(dm_remap_logic::format::sequence(superblock.epoch, 0).is_some());

    let mut moved: Vec<_> = superblock.relocations().collect();
    moved.sort_unstable();
    for (replica, block) in &moved {
        let (index, _) = superblock.relocation(*replica, *block).expect("moved");
        let place = superblock.table_sector(*replica, *block);
        assert!(place.is_some());
        assert_eq!(place, layout.reserve_block_sector(*replica, index));
    }
    moved.dedup_by_key(|(replica, block)| superblock.table_sector(*replica, *block));
    assert_eq!(moved.len(), superblock.relocations().count());
    for replica in 0..REPLICAS {
        let block = probe as u32 % layout.table_blocks();
        let place = superblock.table_sector(replica, block).expect("in range");
        let home = layout.table_block_sector(replica, block);
        let is_moved = superblock
            .relocations()
            .any(|moved| moved == (replica, block));
        assert_eq!(home != Some(place), is_moved);
        assert_eq!(superblock.table_sector(replica, u32::MAX), None);
    }
}
