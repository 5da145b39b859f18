// SPDX-License-Identifier: GPL-2.0

//! Metadata blocks as they may be found on a spare, made of an [`Input`].
//!
//! An input of nothing gives a whole block of plain values. This is the place that knows how
//! superblocks and table blocks are made.

use dm_remap_logic::commit::Metadata;
use dm_remap_logic::format::head;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::Area;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::MEMBERS_MAX;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::message::Blocks;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;

use super::Input;

/// The spare that most blocks belong to.
pub const MEMBER: Uuid = Uuid(*b"0123456789abcdef");
/// All spares of the set.
pub const MEMBERS: [Uuid; MEMBERS_MAX as usize] = [
    MEMBER,
    Uuid(*b"1123456789abcdef"),
    Uuid(*b"2123456789abcdef"),
    Uuid(*b"3123456789abcdef"),
];
/// The set that they are of.
pub const SET: Uuid = Uuid(*b"fedcba9876543210");
/// The first copy on the first spare.
pub const FIRST: CopyId = CopyId { member: 0, copy: 0 };

/// A block of zeroes.
pub const ZERO: Block = [0; BLOCK_BYTES];

/// A superblock of plain values, for one small window.
pub fn plain() -> Superblock {
    let geometry = Geometry::new(4096, 8, 8).expect("a legal size");
    let mut superblock = Superblock::new(SET, MEMBER, geometry, 1 << 20, MainId::NONE);
    superblock.sequence = 99;
    superblock.epoch = 3;
    if let Some(first) = superblock.member_mut(0) {
        first.high_water = 1;
    }
    superblock
}

/// A superblock of values as they may be, or just may not be.
pub fn superblock(input: &mut Input<'_>) -> Superblock {
    let mut superblock = set(input);
    edit(&mut superblock, input);
    superblock
}

/// The superblock of a set of one to four spares, as it may be.
pub fn set(input: &mut Input<'_>) -> Superblock {
    let mut superblock = plain();
    let kind = input.u8();
    if kind & 1 != 0 {
        let slot = 1 << input.below(4);
        if let Some(geometry) = geometry(slot, input) {
            superblock = Superblock::new(SET, MEMBER, geometry, 1 << 20, MainId::NONE);
        }
    }
    for index in 1..=(kind >> 1 & 3) {
        if let Some(geometry) = geometry(superblock.slot_sectors, input) {
            // Numbers in between are free, as they are when a spare has left.
            let number = usize::from(index);
            let member = Member::new(index, MEMBERS[number], geometry);
            superblock.members[number] = Some(member);
        }
    }
    for _ in 0..(kind >> 3 & 3) {
        take_in(&mut superblock, input);
    }
    superblock
}

/// The layout of a spare, mostly a small one.
pub fn geometry(slot_sectors: u32, input: &mut Input<'_>) -> Option<Geometry> {
    let kind = input.u8();
    let window = match kind & 7 {
        0..5 => 1024 + input.below(1 << 14),
        5 => 1024 + input.below(1 << 18),
        6 => 1024 + input.below(1 << 26),
        _ => input.number(),
    };
    let align = if kind & 8 == 0 {
        8
    } else {
        1 << input.below(12)
    };
    Geometry::new(window, slot_sectors, align).ok()
}

/// A replica of one spare's table goes to another spare.
fn take_in(superblock: &mut Superblock, input: &mut Input<'_>) {
    let [member, host] = [0; 2].map(|_| input.below(MEMBERS_MAX.into()) as u8);
    let replica = input.below(REPLICAS.into()) as u8;
    let mut metadata = Metadata::EMPTY;
    *metadata.superblock_mut() = superblock.clone();
    metadata.create();
    let Some(slots) = metadata.slots_beside(host, member) else {
        return;
    };
    if metadata.rehost(member, replica, host, slots).is_ok() {
        *superblock = metadata.superblock().clone();
        if let Some(member) = superblock.member_mut(member) {
            member.void_replicas &= input.u8();
        }
    }
}

/// Changes some of what a superblock says.
pub fn edit(superblock: &mut Superblock, input: &mut Input<'_>) {
    for _ in 0..input.below(6) {
        match input.below(16) {
            0 => superblock.sequence = superblock.sequence.wrapping_add(input.below(4)),
            1 => superblock.sequence = input.number(),
            2 => superblock.epoch = input.number() as u32,
            3 => superblock.set_epoch = superblock.set_epoch.wrapping_add(input.below(3)),
            4 => superblock.set_epoch = input.number(),
            5 => superblock.main_sectors = input.number(),
            6 => superblock.set_uuid = uuid(input),
            7 => features(superblock, input),
            8 => {
                let text: String = input.array::<6>().iter().map(|b| char::from(*b)).collect();
                superblock.main_id = MainId::new(&text).unwrap_or_default();
            }
            9 => {
                superblock.clean = input.u8() & 1 != 0;
                superblock.statistics.lost = input.u64();
            }
            10 => {
                let index = input.below(MEMBERS_MAX.into()) as usize;
                superblock.members[index] = None;
            }
            11 => take_in(superblock, input),
            12 => records(superblock, input),
            _ => {
                let index = input.below(MEMBERS_MAX.into()) as u8;
                if let Some(member) = superblock.member_mut(index) {
                    edit_member(member, input);
                }
            }
        }
    }
}

fn edit_member(member: &mut Member, input: &mut Input<'_>) {
    match input.below(12) {
        0 => member.high_water = input.number() as u32,
        1 => member.high_water = member.table_blocks(),
        2 => member.void_replicas = input.u8() & 7,
        3 => member.void_supers = input.u8() & 31,
        4 => member.missing = input.u8() & 1 != 0,
        5 => {
            // As when it is lost.
            member.missing = true;
            member.void_supers = (1 << SUPER_COPIES) - 1;
        }
        6 => member.uuid = uuid(input),
        7 => member.slots = input.number() as u32,
        8 => {
            let area = &mut member.areas[input.below(REPLICAS.into()) as usize];
            match input.below(4) {
                0 => area.host = input.u8() & 7,
                1 => area.reserve = input.number(),
                2 => area.table = area.table.wrapping_add(8 * input.below(64)),
                _ => *area = Area::guest(area.host, input.number()),
            }
        }
        _ => move_block(member, input),
    }
}

/// What users have said, with its features, or without one of them.
fn records(superblock: &mut Superblock, input: &mut Input<'_>) {
    superblock.ro_compat |= u64::from(input.u8());
    superblock.switches.auto_remap = match input.below(3) {
        0 => None,
        kind => Some(kind == 1),
    };
    for _ in 0..input.below(8) {
        let (first, count) = (input.below(1 << 17), input.below(1 << 10));
        // There is room for more.
        let added = superblock.avoided.add(Blocks { first, count });
        assert_eq!(added, Ok(()));
    }
}

fn features(superblock: &mut Superblock, input: &mut Input<'_>) {
    let bits = input.u64();
    match input.below(3) {
        0 => superblock.compat = bits,
        1 => superblock.ro_compat = bits,
        _ => superblock.incompat = bits,
    }
}

fn move_block(member: &mut Member, input: &mut Input<'_>) {
    let replica = usize::from(input.u8() % REPLICAS);
    let index = input.u8() % RESERVE_BLOCKS;
    let reserve = match input.below(4) {
        0 => Reserve::Free,
        1 => Reserve::Bad,
        kind => Reserve::Holds {
            block: input.number() as u32,
            home_bad: kind == 3,
        },
    };
    member.reserve[replica].set(index, reserve);
}

/// The UUID of a spare or of the set, none, or another.
pub fn uuid(input: &mut Input<'_>) -> Uuid {
    match input.below(7) {
        4 => SET,
        5 => Uuid::NIL,
        6 => Uuid([input.u8(); 16]),
        index => MEMBERS[index as usize],
    }
}

/// A copy of a superblock.
pub fn copy(superblock: &Superblock, id: CopyId) -> Block {
    let mut image = ZERO;
    superblock.encode(&mut image, id);
    image
}

/// A block of the slot table, with up to 32 entries in use.
pub fn table(member: &Uuid, number: u32, sequence: u64, entries: &[Entry]) -> Block {
    let mut image = ZERO;
    let entries = entries.iter().copied();
    table_block::encode(&mut image, member, number, sequence, entries);
    image
}

/// Entries of slots.
pub fn entries(input: &mut Input<'_>) -> Vec<Entry> {
    let count = input.below(33);
    (0..count).map(|_| entry(input)).collect()
}

/// The entry of a slot.
pub fn entry(input: &mut Input<'_>) -> Entry {
    let kind = input.u8();
    let state = [
        SlotState::Free,
        SlotState::Valid,
        SlotState::Pending,
        SlotState::Bad,
    ][usize::from(kind & 3)];
    let origin = if kind & 4 != 0 {
        Origin::Manual
    } else {
        Origin::Auto
    };
    let main_block = input.number() % SlotWord::MAIN_BLOCKS_MAX;
    let mut word = SlotWord::new(main_block, state, origin).expect("it is in range");
    if kind & 8 != 0 {
        word = word.with_raw();
    }
    if kind & 64 != 0 {
        word = word.with_given_up();
    }
    // What is meant for memory must not get to the spare.
    word = word.with_held(kind & 16 != 0).with_doubt(kind & 32 != 0);
    let generation = input.number();
    Entry { word, generation }
}

/// The block that was meant is not always the block that is read. None is an unreadable one.
pub fn as_read(mut image: Block, input: &mut Input<'_>) -> Option<Block> {
    match input.below(16) {
        9 => image = ZERO,
        10 => image = [0x5a; BLOCK_BYTES],
        11 => return None,
        // Torn.
        12 => image[512 * input.below(8) as usize..].fill(input.u8()),
        13 => patch(&mut image, input),
        14 | 15 => {
            patch(&mut image, input);
            head::seal(&mut image);
        }
        _ => (),
    }
    Some(image)
}

/// Changes some bytes.
pub fn patch(image: &mut Block, input: &mut Input<'_>) {
    for _ in 0..=input.below(4) {
        let at = input.below(BLOCK_BYTES as u64) as usize;
        let bytes = input.u8();
        let bytes = input.bytes(1 + usize::from(bytes & 7));
        for (place, byte) in image[at..].iter_mut().zip(bytes) {
            *place = *byte;
        }
    }
}

/// Whether all bits of `again`, made of what `image` was decoded to, stand in `image`, too: each field
/// was looked at. What has no meaning yet may be lost. The checksum is another.
pub fn keeps(image: &Block, again: &Block) -> bool {
    let after = head::AT_VERSION;
    let mut bytes = image[after..].iter().zip(&again[after..]);
    image[..8] == again[..8] && bytes.all(|(byte, again)| byte & again == *again)
}

/// A block of the kind of `model` that begins with whatever stands in the input: if its first
/// `head` bytes are like the model's and its checksum is right, then not by luck.
pub fn raw(model: &Block, head: usize, input: &mut Input<'_>) -> Block {
    let leave = input.u8();
    let bytes = input.bytes(BLOCK_BYTES);
    let mut image = ZERO;
    image[..bytes.len()].copy_from_slice(bytes);
    if leave & 1 == 0 {
        image[..head].copy_from_slice(&model[..head]);
    }
    if leave & 2 == 0 {
        head::seal(&mut image);
    }
    image
}

/// The bytes for [`raw`] that give `image`, as short as they can be.
pub fn raw_input(image: &Block) -> Vec<u8> {
    let used = image.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    let mut bytes = vec![0];
    bytes.extend_from_slice(&image[..used]);
    bytes
}
