// SPDX-License-Identifier: GPL-2.0

//! The format: nothing overlaps, what is written is read, and nothing else is believed.

use dm_remap_logic::crc32c::crc32c;
use dm_remap_logic::errno::Errno;
use dm_remap_logic::format::geometry;
use dm_remap_logic::format::is_zero;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::GeometryError;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Place;
use dm_remap_logic::format::Statistics;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::Switches;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::INCOMPAT_GIVEN_UP;
use dm_remap_logic::format::INCOMPAT_LOST;
use dm_remap_logic::format::INCOMPAT_UNFINISHED;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::format::RO_COMPAT_AVOIDED;
use dm_remap_logic::format::RO_COMPAT_SWITCHES;
use dm_remap_logic::message::Blocks;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;
use proptest::prelude::*;

/// The first superblock copy of all.
const FIRST: CopyId = CopyId { member: 0, copy: 0 };

pub(super) const MEMBER: Uuid = Uuid(*b"0123456789abcdef");

pub(super) fn superblock() -> Superblock {
    let geometry = Geometry::new(4096, 8, 8).unwrap();
    let mut superblock = Superblock::new(
        Uuid([7; 16]),
        MEMBER,
        geometry,
        1 << 20,
        MainId::new("ata-x").unwrap(),
    );
    superblock.sequence = 99;
    superblock.epoch = 3;
    first(&mut superblock).high_water = 1;
    superblock
}

/// The first member.
pub(super) fn first(superblock: &mut Superblock) -> &mut Member {
    superblock.member_mut(0).expect("the first")
}

/// Makes the checksum right again after `image` was changed.
pub(super) fn seal(image: &mut Block) {
    let crc = crc32c(&image[12..]);
    image[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn geometries() -> impl Strategy<Value = Geometry> {
    let size = prop_oneof![1024u64..5000, 5000u64..10_000_000, 0u64..1 << 48];
    (size, 0u32..4, 0u32..12).prop_filter_map("too small", |(size, slot, align)| {
        Geometry::new(size, 1 << slot, 1 << align).ok()
    })
}

proptest! {
    #![proptest_config(super::random::config())]

    #[test]
    fn nothing_overlaps(g in geometries()) {
        let reserve = u64::from(RESERVE_BLOCKS) * 8;
        let table = u64::from(g.table_blocks()) * 8;
        let slots = u64::from(g.slots()) * u64::from(g.slot_sectors());
        let mut areas = vec![
            (g.superblock_sector(0).unwrap(), 8),
            (g.superblock_sector(1).unwrap(), 8),
            (g.superblock_sector(2).unwrap(), 8),
            (g.superblock_sector(3).unwrap(), 8),
            (g.home(0).unwrap().0, reserve),
            (g.home(1).unwrap().0, reserve),
            (g.home(0).unwrap().1, table),
            (g.home(1).unwrap().1, table),
            (g.slot_sector(0).unwrap(), slots),
        ];
        areas.sort_unstable();
        for pair in areas.windows(2) {
            prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{areas:?}");
        }
        let last = areas.last().unwrap();
        prop_assert!(last.0 + last.1 <= g.window_sectors());
        // The last one of each is where the first and the length say.
        let end = |first: u64, length: u64, unit: u64| first + length - unit;
        let last = g.slot_sector(g.slots() - 1);
        prop_assert_eq!(last, Some(end(g.data_start(), slots, g.slot_sectors().into())));
        prop_assert_eq!(g.slot_at(last.unwrap()), Some(g.slots() - 1));
        prop_assert_eq!(g.data_end(), g.data_start() + slots);
        // Metadata ranges and data area cover everything.
        let [head, tail] = g.metadata_ranges();
        prop_assert_eq!(head, (0, g.data_start()));
        prop_assert_eq!(tail.0, g.data_end());
        prop_assert_eq!(tail.1, g.window_sectors() / 8 * 8);
    }

    #[test]
    fn every_slot_has_an_entry(g in geometries()) {
        prop_assert!(u64::from(g.slots()) <= u64::from(g.table_blocks()) * u64::from(ENTRIES));
        prop_assert_eq!(g.data_start() % u64::from(g.align_sectors()), 0);
        let m = Member::new(0, MEMBER, g);
        prop_assert!(m.slots_in(m.table_blocks()) == g.slots());
        let block = (g.slots() - 1) / ENTRIES;
        prop_assert_eq!(m.table_blocks(), block + 1);
        prop_assert_eq!(m.block_slots(block).1, g.slots());
        let (first, end) = m.block_slots(block / 2);
        prop_assert_eq!(first, block / 2 * ENTRIES);
        prop_assert_eq!((end - 1) / ENTRIES, block / 2);
        prop_assert_eq!(m.block_slots(m.table_blocks()), (g.slots(), g.slots()));
        // No more than a sixtieth of the window and the fixed ends goes to tables of 4 KiB slots.
        if g.slot_sectors() == 8 {
            prop_assert!(u64::from(g.table_blocks()) <= g.window_sectors() / 8 / 60 + 1);
        }
    }

    #[test]
    fn superblock_there_and_back(
        copy in 0u8..4,
        sequence: u64,
        epoch in 0u32..1 << 24,
        main_sectors in 8u64..1 << 48,
        high_water in 0u32..2,
        voids in (0u8..3, 0u8..15),
        reserve in (0usize..2, 0u8..31, 0u32..3, any::<bool>()),
        counters: [u64; 4],
        clean: bool,
    ) {
        let mut s = superblock();
        s.sequence = sequence;
        s.epoch = epoch;
        s.main_sectors = main_sectors;
        let m = first(&mut s);
        m.high_water = high_water;
        (m.void_replicas, m.void_supers) = (voids.0, voids.1 & !(1 << copy));
        s.clean = clean;
        s.statistics = Statistics {
            saves: counters[0],
            read_errors: counters[1],
            redirected_writes: counters[2],
            reserved: [0, counters[3]],
            ..Statistics::default()
        };
        let used = match reserve.2 {
            0 => Reserve::Free,
            1 => Reserve::Bad,
            _ => Reserve::Holds { block: 0, home_bad: reserve.3 },
        };
        prop_assert!(first(&mut s).reserve[reserve.0].set(reserve.1, used));
        prop_assert_eq!(first(&mut s).reserve[reserve.0].iter().nth(reserve.1.into()), Some(used));
        let found = first(&mut s).relocation(reserve.0 as u8, 0);
        let expected = (reserve.2 == 2).then_some((reserve.1, reserve.3));
        prop_assert_eq!(found, expected);
        let mut image = [0; BLOCK_BYTES];
        s.encode(&mut image, CopyId { member: 0, copy });
        prop_assert_eq!(Superblock::decode(&image, copy), Ok(s));
        prop_assert_eq!(
            Superblock::decode(&image, copy ^ 1),
            Err(FormatError::Misplaced { found: copy.into(), expected: (copy ^ 1).into() })
        );
    }

    #[test]
    fn table_block_there_and_back(
        number: u32,
        sequence: u64,
        entries in prop::collection::vec((0u64..1 << 48, 0u32..4, any::<u64>()), 0..253),
    ) {
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|(main, state, generation)| {
                let state = [SlotState::Free, SlotState::Valid, SlotState::Pending, SlotState::Bad][state as usize];
                let word = SlotWord::new(main, state, Origin::Manual).unwrap();
                Entry { word, generation }
            })
            .collect();
        let mut image = [0xaa; BLOCK_BYTES];
        table_block::encode(&mut image, &MEMBER, number, sequence, entries.iter().copied());
        let block = TableBlock::decode(&image, &MEMBER, number).unwrap();
        prop_assert_eq!(block.sequence(), sequence);
        let mut back: Vec<Entry> = block.entries().collect();
        prop_assert_eq!(back.len(), 252);
        prop_assert!(back.split_off(entries.len()).iter().all(|e| *e == Entry::UNUSED));
        prop_assert_eq!(back, entries);
    }

    #[test]
    fn any_changed_bit_is_noticed(bit in 0usize..BLOCK_BYTES * 8) {
        let mut image = [0; BLOCK_BYTES];
        superblock().encode(&mut image, FIRST);
        image[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Superblock::decode(&image, 0).is_err());
        table_block::encode(&mut image, &MEMBER, 5, 6, [].into_iter());
        image[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(TableBlock::decode(&image, &MEMBER, 5).is_err());
    }

    /// Bytes that pass the checksum and mean nothing must not do any harm.
    #[test]
    fn nonsense_is_survived(
        start: [u8; 32],
        changes in prop::collection::vec((12usize..BLOCK_BYTES, any::<u8>()), 0..40),
        whole: bool,
    ) {
        let mut image = [0; BLOCK_BYTES];
        superblock().encode(&mut image, FIRST);
        for (at, byte) in &changes {
            image[if whole { *at } else { 12 + *at % 860 }] = *byte;
        }
        seal(&mut image);
        if let Ok(s) = Superblock::decode(&image, 0) {
            // Whatever is accepted can be worked with.
            for (index, m) in s.members() {
                let _ = (m.usable_slots(), s.main_blocks(), m.relocations().count());
                let block = m.high_water.saturating_sub(1);
                let _ = s.table_place(0, BlockId { member: index, block });
                let _ = s.guests(index).count();
            }
            let mut again = [0; BLOCK_BYTES];
            s.encode(&mut again, FIRST);
            prop_assert_eq!(Superblock::decode(&again, 0), Ok(s));
        }
        table_block::encode(&mut image, &MEMBER, 5, 6, [].into_iter());
        for (at, byte) in &changes {
            image[*at] = *byte;
        }
        seal(&mut image);
        if let Ok(block) = TableBlock::decode(&image, &MEMBER, 5) {
            prop_assert_eq!(block.entries().count(), 252);
        }
        image[..32].copy_from_slice(&start);
        prop_assert!(Superblock::decode(&image, 0).is_err());
        prop_assert!(TableBlock::decode(&image, &MEMBER, 5).is_err());
    }
}

#[test]
fn an_entry_that_means_nothing_is_noticed() {
    for index in 0..table_block::ENTRIES {
        for bit in (50..52).chain(56..64) {
            let mut image = [0; BLOCK_BYTES];
            table_block::encode(&mut image, &MEMBER, 5, 6, [].into_iter());
            let at = 64 + 16 * index as usize;
            image[at..at + 8].copy_from_slice(&(1u64 << bit).to_le_bytes());
            seal(&mut image);
            let found = TableBlock::decode(&image, &MEMBER, 5).map(|_| ());
            assert_eq!(found, Err(FormatError::Entry { index }), "bit {bit}");
        }
    }
}

/// Changes 32 or 64 bits of a superblock and tells what is found wrong.
fn wrong(at: usize, value: &[u8]) -> FormatError {
    let mut image = [0; BLOCK_BYTES];
    superblock().encode(&mut image, FIRST);
    image[at..at + value.len()].copy_from_slice(value);
    seal(&mut image);
    Superblock::decode(&image, 0).unwrap_err()
}

#[test]
fn faults_are_named() {
    let field = |name| FormatError::Field { name };
    for (at, value, error, errno, text) in [
        (
            12,
            &[2u8, 0, 0, 0][..],
            FormatError::Newer { found: 2 },
            Errno::NotSupported,
            "format 2 is newer than this module's 1",
        ),
        (
            32,
            &[8, 0],
            FormatError::Features { unknown: 8 },
            Errno::NotSupported,
            "uses features 0x8 that this module does not know",
        ),
        (
            73,
            &[3],
            FormatError::Misplaced {
                found: 3,
                expected: 0,
            },
            Errno::Damaged,
            "block number 3 found where 0 belongs",
        ),
        (
            74,
            &[3],
            field("number of replicas"),
            Errno::Damaged,
            "impossible value of number of replicas",
        ),
        (
            512 + 40,
            &[0xff],
            FormatError::Geometry(GeometryError::Mismatch),
            Errno::Damaged,
            "sizes and places do not fit together",
        ),
        (
            512 + 44,
            &[200],
            field("high-water mark"),
            Errno::Damaged,
            "impossible value of high-water mark",
        ),
    ] {
        let found = wrong(at, value);
        assert_eq!(found, error);
        assert_eq!(found.errno(), errno);
        assert_eq!(found.to_string(), text);
    }
    for (at, value, name) in [
        (40, &[0u8; 16][..], "UUID"),
        (56, &[0u8; 16][..], "member index"),
        (72, &[1], "member index"),
        (75, &[1], "number of reserve blocks"),
        (99, &[1], "activation epoch"),
        (104, &[0, 2], "logical block of main"),
        (112, &[0; 8], "size of main"),
        (120, b" ", "main_id"),
        (512, &[0; 16], "void superblock copies"),
        (512 + 28, &[0xff, 0xff], "number of slots"),
        (512 + 48, &[3], "void replicas"),
        (512 + 48, &[4], "void replicas"),
        (512 + 49, &[15], "void superblock copies"),
        (512 + 49, &[1], "void superblock copies"),
        (512 + 49, &[16], "void superblock copies"),
        (512 + 51, &[1], "place of a replica"),
        (512 + 52, &[4], "place of a replica"),
        (512 + 56, &[16], "place of a replica"),
        (512 + 88, &[200], "reserve blocks"),
        (512 + 88, &[1, 0, 0, 0, 1], "reserve blocks"),
        (512 + 88, &[0, 0, 0, 0x80], "reserve blocks"),
    ] {
        assert_eq!(wrong(at, value), field(name), "at {at}");
    }
}

/// M9: what a member gets that was lost and is there again, before it is used.
#[test]
fn a_missing_member_has_superblocks() {
    let mut s = superblock();
    let m = first(&mut s);
    m.missing = true;
    m.void_supers = 0b1011;
    let mut image = [0; BLOCK_BYTES];
    s.encode(&mut image, CopyId { member: 0, copy: 2 });
    assert_eq!(Superblock::decode(&image, 2).as_ref(), Ok(&s));
    s.encode(&mut image, CopyId { member: 0, copy: 1 });
    let name = "void superblock copies";
    assert_eq!(
        Superblock::decode(&image, 1),
        Err(FormatError::Field { name })
    );
}

#[test]
fn features_that_only_forbid_writing() {
    let mut s = superblock();
    assert!(!s.is_read_only());
    s.compat = 1 << 63;
    s.ro_compat = 1 << 62;
    let mut image = [0; BLOCK_BYTES];
    s.encode(&mut image, CopyId { member: 0, copy: 2 });
    let found = Superblock::decode(&image, 2).unwrap();
    assert!(found.is_read_only());
    assert_eq!(found, s);
}

fn blocks(first: u64, count: u64) -> Blocks {
    Blocks { first, count }
}

/// M11: records lie where the documentation says, and count only with their features.
#[test]
fn records_come_with_features() {
    let mut s = superblock();
    s.ro_compat = RO_COMPAT_AVOIDED | RO_COMPAT_SWITCHES;
    s.switches.auto_remap = Some(false);
    assert!(!s.is_read_only());
    let end = s.main_blocks();
    for range in [blocks(0, 3), blocks(4, 1), blocks(end - 7, 7)] {
        s.avoided.add(range).unwrap();
    }
    let mut image = [0; BLOCK_BYTES];
    s.encode(&mut image, FIRST);
    assert_eq!(Superblock::decode(&image, 0).as_ref(), Ok(&s));
    assert_eq!(image[185], 1);
    let words = [0, 3, 4, 1, end - 7, 7, 0].map(u64::to_le_bytes);
    assert_eq!(image[1920..1920 + 56], *words.as_flattened());
    assert!(image[1920 + 56..].iter().all(|byte| *byte == 0));

    // As all there can be.
    let mut full = s.clone();
    for number in 0..61 {
        full.avoided.add(blocks(100 + 2 * number, 1)).unwrap();
    }
    full.switches.auto_remap = Some(true);
    full.encode(&mut image, FIRST);
    assert_eq!(Superblock::decode(&image, 0).as_ref(), Ok(&full));
    assert!(image[2944 - 16..2944].iter().any(|byte| *byte != 0));
    assert!(image[2944..].iter().all(|byte| *byte == 0), "for history");

    // Version 1 had nothing there, and what it had there meant nothing.
    image[24..32].fill(0);
    seal(&mut image);
    let found = Superblock::decode(&image, 0).unwrap();
    assert!(found.avoided.is_empty());
    assert_eq!(found.switches, Switches::NONE);
}

/// Ranges that no module writes are refused.
#[test]
fn ranges_that_mean_nothing_are_noticed() {
    let mut s = superblock();
    s.ro_compat = RO_COMPAT_AVOIDED | RO_COMPAT_SWITCHES;
    let mut image = [0; BLOCK_BYTES];
    s.encode(&mut image, FIRST);
    let end = s.main_blocks();
    let decode = |ranges: &[(u64, u64)]| {
        let mut image = image;
        for (place, (first, count)) in image[1920..].chunks_mut(16).zip(ranges) {
            place[..8].copy_from_slice(&first.to_le_bytes());
            place[8..].copy_from_slice(&count.to_le_bytes());
        }
        seal(&mut image);
        Superblock::decode(&image, 0).map(|s| s.avoided.ranges().len())
    };
    assert_eq!(decode(&[]), Ok(0));
    assert_eq!(decode(&[(3, 1), (5, end - 5)]), Ok(2));
    let name = "avoided ranges";
    for ranges in [
        &[(3, 0)][..],
        &[(0, 0), (3, 1)],
        &[(3, 1), (4, 1)],
        &[(3, 1), (3, 1)],
        &[(5, 1), (3, 1)],
        &[(5, end - 4)],
        &[(u64::MAX, 1)],
        &[(5, u64::MAX)],
    ] {
        let refused = Err(FormatError::Field { name });
        assert_eq!(decode(ranges), refused, "{ranges:?}");
    }
    for byte in [2, 4, 5, 7, 255] {
        let mut image = image;
        image[185] = byte;
        seal(&mut image);
        let name = "switches";
        let refused = Err(FormatError::Field { name });
        assert_eq!(Superblock::decode(&image, 0), refused);
    }
}

/// M11: the bits by which an older module refuses the set, or only reads it, and by which this one does so with a newer
/// one.
#[test]
fn features_are_these() {
    assert_eq!(
        (INCOMPAT_LOST, INCOMPAT_UNFINISHED, INCOMPAT_GIVEN_UP),
        (1, 2, 4)
    );
    assert_eq!((RO_COMPAT_AVOIDED, RO_COMPAT_SWITCHES), (1, 2));
    let mut s = superblock();
    let mut image = [0; BLOCK_BYTES];
    s.incompat = 15;
    s.encode(&mut image, FIRST);
    let unknown = 8;
    let refused = Err(FormatError::Features { unknown });
    assert_eq!(Superblock::decode(&image, 0), refused);
    (s.incompat, s.ro_compat) = (7, 7);
    s.encode(&mut image, FIRST);
    assert!(Superblock::decode(&image, 0).unwrap().is_read_only());
}

#[test]
fn sizes_at_the_limits() {
    let too_small = |window_sectors| Err(GeometryError::TooSmall { window_sectors });
    assert_eq!(Geometry::new(0, 8, 8), too_small(0));
    assert_eq!(Geometry::new(1023, 8, 8), too_small(1023));
    // 128 metadata blocks, of which 66 are superblocks and reserve, and 2 hold the table.
    assert_eq!(Geometry::new(1024, 8, 8).unwrap().slots(), 60);
    assert_eq!(Geometry::new(1024, 1, 1).unwrap().slots(), 58 * 8);
    assert_eq!(Geometry::new(1031, 8, 8).unwrap().slots(), 60);
    // 1 MiB.
    assert_eq!(Geometry::new(2048, 8, 8).unwrap().slots(), 188);
    // The alignment takes all the room that there is.
    assert_eq!(Geometry::new(1024, 8, 2048), too_small(1024));
    let too_large = 1 << 49;
    assert_eq!(
        Geometry::new(too_large, 8, 8),
        Err(GeometryError::TooLarge {
            window_sectors: too_large
        })
    );
    assert_eq!(
        Geometry::new(1 << 48, 1, 8).unwrap().slots(),
        geometry::SLOTS_MAX
    );
    for slot_sectors in [0, 3, 16] {
        let error = Err(GeometryError::SlotSize { slot_sectors });
        assert_eq!(Geometry::new(4096, slot_sectors, 8), error);
    }
    for align_sectors in [0, 9, 4096] {
        let error = Err(GeometryError::Alignment { align_sectors });
        assert_eq!(Geometry::new(4096, 8, align_sectors), error);
    }
}

/// Someone who reads a spare without this code relies on it.
#[test]
fn places_are_as_documented() {
    let g = Geometry::new(1 << 20, 8, 8).unwrap();
    assert_eq!(g.superblock_sector(0), Some(0));
    assert_eq!(g.superblock_sector(1), Some(256));
    assert_eq!(g.superblock_sector(2), Some((1 << 20) - 8));
    assert_eq!(g.superblock_sector(3), Some((1 << 20) - 8 - 256));
    assert_eq!(g.superblock_sector(4), None);
    let end = (1 << 20) - 8 * 33;
    let table = end - 8 * u64::from(g.table_blocks());
    assert_eq!(g.home(0), Some((8, 264)));
    assert_eq!(g.home(1), Some((end + 8, table)));
    assert_eq!(g.home(2), None);
    let s = Superblock::new(Uuid([7; 16]), MEMBER, g, 1 << 20, MainId::NONE);
    let place = |sector| Some(Place { member: 0, sector });
    assert_eq!(s.reserve_place(0, 0, 0), place(8));
    assert_eq!(s.reserve_place(1, 0, 0), place(end + 8));
    assert_eq!(s.reserve_place(1, 0, 30), place((1 << 20) - 16));
    assert_eq!(s.reserve_place(0, 0, 31), None);
    assert_eq!(s.reserve_place(2, 0, 0), None);
    assert_eq!(s.reserve_place(0, 1, 0), None);
    let own = |replica, block| s.own_place(replica, BlockId { member: 0, block });
    assert_eq!(own(0, 0), place(264));
    assert_eq!(own(1, g.table_blocks() - 1), place(end - 8));
    assert_eq!(own(0, g.table_blocks()), None);
    assert_eq!(own(2, 0), None);
    assert_eq!(g.slot_sector(g.slots()), None);
    assert_eq!(g.slot_at(g.data_start() - 1), None);
    assert_eq!(g.slot_at(g.data_end()), None);
}

#[test]
fn zero_is_zero() {
    assert!(is_zero(&[]));
    assert!(is_zero(&[0; 4097]));
    for at in [0, 7, 8, 4095, 4096] {
        let mut bytes = [0; 4097];
        bytes[at] = 1;
        assert!(!is_zero(&bytes));
    }
}
