// SPDX-License-Identifier: GPL-2.0

//! What must hold for anything that was accepted.

use std::fmt::Display;

use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_SECTORS;
use dm_remap_logic::format::MEMBERS_MAX;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::slot::SlotWord;

/// An error has words for users.
pub fn says_something(error: &dyn Display) {
    assert!(!error.to_string().trim().is_empty());
}

/// Everything lies in the window and nothing over anything else. Of the slots, which may be many, the
/// first, the last and one that `probe` gives are looked at.
pub fn geometry(geometry: &Geometry, probe: u64) {
    let blocks = geometry.table_blocks();
    let mut places = vec![(geometry.data_start(), geometry.data_end(), "data")];
    for copy in 0..SUPER_COPIES {
        let start = geometry.superblock_sector(copy).expect("a copy");
        places.push((start, start + BLOCK_SECTORS, "superblock"));
    }
    assert_eq!(geometry.superblock_sector(SUPER_COPIES), None);
    assert!(blocks > 0);
    for replica in 0..REPLICAS {
        let (reserve, table) = geometry.home(replica).expect("a replica");
        let sectors = u64::from(RESERVE_BLOCKS) * BLOCK_SECTORS;
        places.push((reserve, reserve + sectors, "reserve"));
        let sectors = u64::from(blocks) * BLOCK_SECTORS;
        places.push((table, table + sectors, "table"));
    }
    assert_eq!(geometry.home(REPLICAS), None);

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
pub fn superblock(superblock: &Superblock, copy: CopyId, probe: u64) {
    let own = superblock.member(copy.member).expect("the copy's member");
    assert!(own.super_lives(copy.copy), "it calls itself void");
    assert_eq!(superblock.find_member(&own.uuid), Some(copy.member));
    assert!(superblock.live_supers() & copy.bit() != 0);
    assert!(!superblock.set_uuid.is_nil());
    assert!(superblock.main_sectors > 0);
    assert!(superblock.main_blocks() <= SlotWord::MAIN_BLOCKS_MAX);
    assert_eq!(superblock.main_block_bytes, superblock.slot_sectors * 512);
    assert!(superblock.main_id.as_str().len() <= 64);
    assert!(dm_remap_logic::format::sequence(superblock.epoch, 0).is_some());
    for (index, of_it) in superblock.members() {
        assert!(index < MEMBERS_MAX && !of_it.uuid.is_nil());
        assert_eq!(of_it.geometry.slot_sectors(), superblock.slot_sectors);
        geometry(&of_it.geometry, probe);
        member(superblock, index, of_it, probe);
    }
    let mut free = 0;
    for range in superblock.avoided.ranges() {
        assert!(range.count != 0 && range.first >= free, "{superblock:?}");
        free = range.first + range.count + 1;
        assert!(free <= superblock.main_blocks() + 1);
    }
    nothing_overlaps(superblock);
}

fn member(superblock: &Superblock, index: u8, member: &Member, probe: u64) {
    assert_eq!(superblock.find_member(&member.uuid), Some(index));
    let used = member.high_water != 0;
    assert!(!used || (0..REPLICAS).any(|replica| member.replica_lives(replica)));
    assert!(!member.super_lives(SUPER_COPIES) && !member.replica_lives(REPLICAS));
    assert!(member.slots <= member.geometry.slots());
    assert!(member.slots_end() <= member.geometry.data_end());
    assert!(member.high_water <= member.table_blocks());
    assert!(member.table_blocks() <= member.geometry.table_blocks());
    assert!(member.usable_slots() <= member.slots);
    assert_eq!(member.slots_in(member.table_blocks()), member.slots);
    let place = |replica, block| {
        let id = BlockId {
            member: index,
            block,
        };
        let now = superblock.table_place(replica, id);
        (now, superblock.own_place(replica, id))
    };
    let moved: Vec<_> = member.relocations().collect();
    for (replica, block) in &moved {
        let (reserve, _) = member.relocation(*replica, *block).expect("moved");
        let expected = superblock.reserve_place(*replica, index, reserve);
        assert!(expected.is_some());
        assert_eq!(place(*replica, *block).0, expected);
    }
    let mut places: Vec<_> = moved.iter().map(|(r, b)| place(*r, *b).0).collect();
    places.sort_unstable_by_key(|place| place.map(|p| (p.member, p.sector)));
    places.dedup();
    assert_eq!(places.len(), moved.len(), "two blocks in one place");
    for replica in 0..REPLICAS {
        let block = probe as u32 % member.geometry.table_blocks();
        let (now, own) = place(replica, block);
        assert!(now.is_some() && own.is_some());
        assert_eq!(now != own, moved.contains(&(replica, block)));
        assert_eq!(place(replica, u32::MAX), (None, None));
        let none = superblock.reserve_place(replica, index, RESERVE_BLOCKS);
        assert_eq!(none, None);
    }
    assert_eq!(place(REPLICAS, 0), (None, None));
}

/// All that lies on the spares of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A superblock copy.
    Super(u8),
    /// The slots.
    Slots,
    /// The reserve blocks of a replica, and whose it is.
    Reserve(u8, u8),
    /// The table blocks of a replica, and whose it is.
    Table(u8, u8),
}

/// Where it lies: the member, first sector and one past the last.
pub fn places(superblock: &Superblock) -> Vec<(u8, u64, u64, What)> {
    let mut places = Vec::new();
    for (index, member) in superblock.members() {
        let layout = &member.geometry;
        for copy in 0..SUPER_COPIES {
            let id = CopyId {
                member: index,
                copy,
            };
            let place = superblock.super_place(id).expect("a copy");
            assert_eq!(place.member, index);
            let end = place.sector + BLOCK_SECTORS;
            places.push((index, place.sector, end, What::Super(copy)));
        }
        if member.slots != 0 {
            let (start, end) = (layout.data_start(), member.slots_end());
            places.push((index, start, end, What::Slots));
        }
        for (area, replica) in member.areas.iter().zip(0..) {
            let end = area.reserve + u64::from(RESERVE_BLOCKS) * BLOCK_SECTORS;
            let what = What::Reserve(index, replica);
            places.push((area.host, area.reserve, end, what));
            let end = area.table + u64::from(layout.table_blocks()) * BLOCK_SECTORS;
            places.push((area.host, area.table, end, What::Table(index, replica)));
        }
    }
    places.sort_unstable();
    places
}

fn nothing_overlaps(superblock: &Superblock) {
    let places = places(superblock);
    for pair in places.windows(2) {
        let [(a, _, end, _), (b, start, ..)] = pair else {
            unreachable!()
        };
        assert!(a != b || end <= start, "{pair:?}");
    }
    for (host, _, end, what) in &places {
        let host = superblock.member(*host).expect("what lies on a member");
        assert!(*end <= host.geometry.window_sectors(), "{what:?}");
    }
    for (index, _) in superblock.members() {
        for (member, replica, (start, end)) in superblock.guests(index) {
            let of = |what: What| places.iter().find(|place| place.3 == what);
            let reserve = of(What::Reserve(member, replica)).expect("a guest");
            let table = of(What::Table(member, replica)).expect("a guest");
            assert_eq!((reserve.0, reserve.1), (index, start));
            assert_eq!((table.0, table.2), (index, end));
        }
    }
}
