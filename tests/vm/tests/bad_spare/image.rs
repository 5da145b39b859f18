// SPDX-License-Identifier: GPL-2.0
//! What stands on a spare, seen and changed past all faults. Everything about places and bytes is
//! asked of the module's own logic, and only here.

use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Reserve;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use vmtest::guest::sickdisk::SickDisk;

pub(crate) use vmtest::guest::peek;
pub(crate) use vmtest::guest::super_copy;
pub(crate) use vmtest::guest::super_sector;
pub(crate) use vmtest::guest::superblock;

/// Puts a block at `sector` that nobody has written.
pub(crate) fn poke(spare: &SickDisk, sector: u64, block: &Block) {
    spare.disk().poke(sector, block).unwrap();
}

/// The only spare of the set.
fn only(superblock: &Superblock) -> &Member {
    superblock.member(0).expect("the only spare")
}

/// Writes a superblock copy.
pub(crate) fn forge_super(spare: &SickDisk, copy: u8, superblock: &Superblock) {
    let mut block = [0; BLOCK_BYTES];
    superblock.encode(&mut block, CopyId { member: 0, copy });
    poke(spare, super_sector(spare, copy), &block);
}

/// A superblock copy that might be written next, with changes in its first two sectors.
pub(crate) fn next_super(superblock: &Superblock, copy: u8) -> Block {
    let mut next = superblock.clone();
    next.sequence += 1;
    let reserve = &mut next.member_mut(0).expect("the only spare").reserve;
    assert!(reserve[0].set(RESERVE_BLOCKS - 1, Reserve::Bad));
    let mut block = [0; BLOCK_BYTES];
    next.encode(&mut block, CopyId { member: 0, copy });
    block
}

/// The superblock copies in use.
pub(crate) fn live_supers(superblock: &Superblock) -> Vec<u8> {
    let copies = 0..SUPER_COPIES;
    copies
        .filter(|copy| only(superblock).super_lives(*copy))
        .collect()
}

/// How many replicas of the slot table are void.
pub(crate) fn void_replicas(superblock: &Superblock) -> u32 {
    only(superblock).void_replicas.count_ones()
}

/// How many table blocks are in use, as far as the superblock knows.
pub(crate) fn high_water(superblock: &Superblock) -> u32 {
    only(superblock).high_water
}

/// The same superblock, with another mark.
pub(crate) fn with_high_water(superblock: &Superblock, mark: u32) -> Superblock {
    let mut other = superblock.clone();
    other.member_mut(0).expect("the only spare").high_water = mark;
    other
}

/// How many table blocks there can be.
pub(crate) fn table_blocks(superblock: &Superblock) -> u32 {
    only(superblock).table_blocks()
}

/// Where a replica has a table block now.
pub(crate) fn table_sector(superblock: &Superblock, replica: u8, block: u32) -> u64 {
    let place = superblock.table_place(replica, BlockId { member: 0, block });
    place.expect("a table block").sector
}

/// Where it is unless it was moved.
pub(crate) fn home_sector(superblock: &Superblock, replica: u8, block: u32) -> u64 {
    let place = superblock.own_place(replica, BlockId { member: 0, block });
    place.expect("a table block").sector
}

/// Whether a replica has a table block somewhere else than at home.
pub(crate) fn is_moved(superblock: &Superblock, replica: u8, block: u32) -> bool {
    only(superblock).relocation(replica, block).is_some()
}

/// Whether a replica lies somewhere else than on a spare that was just formatted.
pub(crate) fn is_elsewhere(superblock: &Superblock, replica: u8) -> bool {
    !only(superblock).is_home(0, replica)
}

/// Where a replica's reserve blocks are.
pub(crate) fn reserve_sectors(superblock: &Superblock, replica: u8) -> Vec<u64> {
    (0..RESERVE_BLOCKS)
        .map(|index| superblock.reserve_place(replica, 0, index))
        .map(|place| place.expect("a reserve block").sector)
        .collect()
}

/// The slot at a sector of the spare.
pub(crate) fn slot_at(superblock: &Superblock, sector: u64) -> u32 {
    only(superblock).geometry.slot_at(sector).expect("a slot")
}

/// Where a slot is on the spare.
pub(crate) fn slot_sector(superblock: &Superblock, slot: u32) -> u64 {
    only(superblock).geometry.slot_sector(slot).expect("a slot")
}

/// What the entry of a slot says that serves a block of main.
pub(crate) fn claim_of(main_block: u64) -> SlotWord {
    SlotWord::new(main_block, SlotState::Valid, Origin::Auto).expect("a block of main")
}

/// The table block that has the entry of a slot, and the entry's place in it.
pub(crate) fn entry_place(slot: u32) -> (u32, usize) {
    (slot / ENTRIES, (slot % ENTRIES) as usize)
}

/// The first slot of a table block.
pub(crate) fn first_slot(superblock: &Superblock, block: u32) -> u32 {
    only(superblock).block_slots(block).0
}

/// A table block, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// The commit that wrote it.
    pub(crate) sequence: u64,
    /// Its entries.
    pub(crate) entries: Vec<Entry>,
}

/// Table block `block`, if what stands at `sector` is one.
pub(crate) fn table_at(
    spare: &SickDisk,
    superblock: &Superblock,
    sector: u64,
    block: u32,
) -> Option<Table> {
    let image = peek(spare, sector);
    let table = TableBlock::decode(&image, &only(superblock).uuid, block).ok()?;
    Some(Table {
        sequence: table.sequence(),
        entries: table.entries().collect(),
    })
}

/// What a replica has of a table block.
#[track_caller]
pub(crate) fn table(spare: &SickDisk, superblock: &Superblock, replica: u8, block: u32) -> Table {
    let sector = table_sector(superblock, replica, block);
    table_at(spare, superblock, sector, block)
        .unwrap_or_else(|| panic!("replica {replica} has no block {block} at sector {sector}"))
}

/// The bytes of a table block.
pub(crate) fn encode_table(superblock: &Superblock, block: u32, table: &Table) -> Block {
    let mut image = [0; BLOCK_BYTES];
    let entries = table.entries.iter().copied();
    let member = &only(superblock).uuid;
    table_block::encode(&mut image, member, block, table.sequence, entries);
    image
}

/// Writes a table block where a replica has it.
pub(crate) fn forge_table(
    spare: &SickDisk,
    superblock: &Superblock,
    replica: u8,
    block: u32,
    table: &Table,
) {
    let sector = table_sector(superblock, replica, block);
    poke(spare, sector, &encode_table(superblock, block, table));
}
