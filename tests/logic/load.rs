// SPDX-License-Identifier: GPL-2.0

//! Loading: which copy is believed, which is repaired, and what is refused.

use dm_remap_logic::commit::Metadata;
use dm_remap_logic::errno::Errno;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::load::check_entry;
use dm_remap_logic::load::check_expected;
use dm_remap_logic::load::check_main;
use dm_remap_logic::load::check_renamed;
use dm_remap_logic::load::check_window;
use dm_remap_logic::load::choose_superblock;
use dm_remap_logic::load::resolve_block;
use dm_remap_logic::load::settle_claims;
use dm_remap_logic::load::superblock_sectors;
use dm_remap_logic::load::window_sectors;
use dm_remap_logic::load::Chosen;
use dm_remap_logic::load::Claim;
use dm_remap_logic::load::Expected;
use dm_remap_logic::load::Found;
use dm_remap_logic::load::Image;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::load::Resolved;
use dm_remap_logic::load::SuperImage;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;
use proptest::prelude::*;

use super::format::first;
use super::format::seal;
use super::format::superblock;
use super::format::MEMBER;

const ZERO: Block = [0; BLOCK_BYTES];

fn copies(of: &Superblock) -> [Block; 4] {
    std::array::from_fn(|copy| {
        let mut image = ZERO;
        let copy = copy as u8;
        of.encode(&mut image, CopyId { member: 0, copy });
        image
    })
}

/// What is chosen of one spare's copies, and which are to be written again.
#[derive(Debug)]
struct Choice {
    superblock: Superblock,
    rewrite: u16,
}

/// None if the spare is blank.
fn choose(images: &[Option<Block>; 4]) -> Result<Option<Choice>, LoadError> {
    let images: [SuperImage<'_>; 4] = std::array::from_fn(|i| SuperImage {
        spare: 0,
        copy: i as u8,
        image: match &images[i] {
            Some(block) => Image::Read(block),
            None => Image::Unreadable,
        },
    });
    let mut superblock = Superblock::EMPTY;
    Ok(match choose_superblock(&images, &mut superblock)? {
        Found::Blank => None,
        Found::Ours(chosen) => {
            assert_eq!(chosen.spares, [Some(0), None, None, None]);
            let rewrite = chosen.rewrite;
            Some(Choice {
                superblock,
                rewrite,
            })
        }
    })
}

fn chosen(images: &[Option<Block>; 4]) -> Choice {
    choose(images).unwrap().expect("ours")
}

#[test]
fn all_copies_alike() {
    let found = chosen(&copies(&superblock()).map(Some));
    assert_eq!(found.superblock, superblock());
    assert_eq!(found.rewrite, 0);
}

#[test]
fn one_good_copy_is_enough() {
    for good in 0..4 {
        for bad in [None, Some(ZERO), Some([0x55; BLOCK_BYTES])] {
            let mut images = [bad; 4];
            images[good] = Some(copies(&superblock())[good]);
            let found = chosen(&images);
            assert_eq!(found.superblock, superblock());
            assert_eq!(found.rewrite, 15 & !(1 << good));
        }
    }
}

#[test]
fn the_newest_copy_wins() {
    let mut newer = superblock();
    newer.sequence += 1;
    first(&mut newer).high_water = 0;
    for which in 0..4 {
        let mut images = copies(&superblock()).map(Some);
        images[which] = Some(copies(&newer)[which]);
        let found = chosen(&images);
        assert_eq!(found.superblock, newer);
        assert_eq!(found.rewrite, 15 & !(1 << which));
    }
}

#[test]
fn void_copies_are_not_asked_for() {
    let mut s = superblock();
    first(&mut s).void_supers = 0b0100;
    let mut images = copies(&s).map(Some);
    images[2] = None;
    assert_eq!(chosen(&images).rewrite, 0);
    // It reads again, and is as old as when it was written off.
    images[2] = Some(copies(&superblock())[2]);
    let found = chosen(&images);
    assert_eq!((found.superblock, found.rewrite), (s, 0));
}

#[test]
fn contradictions_are_refused() {
    let mut other = superblock();
    other.main_sectors += 8;
    let mut images = copies(&superblock()).map(Some);
    images[3] = Some(copies(&other)[3]);
    assert_eq!(
        choose(&images).unwrap_err(),
        LoadError::SuperblockContradiction {
            copy: CopyId { member: 0, copy: 3 }
        }
    );
    // They do not matter if a newer one says what is true.
    let mut newer = superblock();
    newer.sequence += 1;
    let swapped = [
        images[0],
        Some(copies(&other)[1]),
        images[2],
        Some(copies(&newer)[3]),
    ];
    assert_eq!(chosen(&swapped).superblock, newer);
    images = copies(&superblock()).map(Some);
    other = superblock();
    first(&mut other).uuid = Uuid([1; 16]);
    other.sequence += 10;
    images[3] = Some(copies(&other)[3]);
    assert_eq!(
        choose(&images).unwrap_err(),
        LoadError::MixedSpares { spare: 0 }
    );
}

/// M3: of two that agree against a third, that one must have written off both. Otherwise the other
/// would stay as it is.
#[test]
fn a_contradiction_is_not_overlooked() {
    let mut other = superblock();
    other.epoch += 1;
    for (void, agrees) in [(0b0001, false), (0b0101, true), (0b0100, false)] {
        first(&mut other).void_supers = void;
        for (ours, theirs) in [([0, 2], 3), ([0, 2], 1)] {
            let mut images = [None; 4];
            for copy in ours {
                images[copy] = Some(copies(&superblock())[copy]);
            }
            images[theirs] = Some(copies(&other)[theirs]);
            match choose(&images) {
                Ok(Some(found)) => assert!(agrees && found.superblock == other),
                Err(LoadError::SuperblockContradiction { .. }) => assert!(!agrees),
                answer => panic!("{answer:?}"),
            }
        }
    }
}

/// What was superseded does not matter.
#[test]
fn older_copies_may_contradict_each_other() {
    let mut other = superblock();
    other.main_sectors += 8;
    let mut newer = other.clone();
    newer.sequence += 1;
    for newest in 0..4 {
        let mut images = copies(&superblock()).map(Some);
        images[(newest + 1) % 4] = Some(copies(&other)[(newest + 1) % 4]);
        images[newest] = Some(copies(&newer)[newest]);
        let found = chosen(&images);
        assert_eq!(found.superblock, newer);
        assert_eq!(found.rewrite, 15 & !(1 << newest));
    }
}

#[test]
fn blank_foreign_damaged_unreadable() {
    assert!(matches!(choose(&[Some(ZERO); 4]), Ok(None)));
    let mut foreign = ZERO;
    foreign[1080] = 0x53;
    let error = choose(&[Some(ZERO), Some(ZERO), Some(foreign), Some(ZERO)]).unwrap_err();
    let expected = LoadError::Superblock {
        spare: 0,
        copy: 2,
        error: FormatError::Foreign,
    };
    assert_eq!((error, error.errno()), (expected, Errno::Foreign));
    assert_eq!(
        error.to_string(),
        "superblock copy 2: not dm-remap metadata"
    );
    // Unreadable is not zero.
    let error = choose(&[Some(ZERO), None, Some(ZERO), None]).unwrap_err();
    assert_eq!(error, LoadError::SuperblockUnreadable { spare: 0, copy: 1 });
    assert_eq!(choose(&[None; 4]).unwrap_err().errno(), Errno::Io);
    // The remains of one of ours are no foreign data.
    let mut damaged = copies(&superblock())[1];
    damaged[500] ^= 1;
    let error = choose(&[Some(ZERO), Some(damaged), Some(foreign), None]).unwrap_err();
    let expected = LoadError::Superblock {
        spare: 0,
        copy: 1,
        error: FormatError::Checksum,
    };
    assert_eq!(error, expected);
}

#[test]
fn a_newer_format_is_refused_whatever_else_is_there() {
    let mut images = copies(&superblock());
    images[2][12] = 2;
    seal(&mut images[2]);
    let error = choose(&images.map(Some)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "superblock copy 2: format 2 is newer than this module's 1"
    );
}

/// A spare under another name is the one that was left if it is no newer than the set in memory.
#[test]
fn a_spare_under_another_name_was_used_by_nobody_else() {
    let memory = superblock();
    let durable = memory.sequence;
    let check = |found: &Superblock, memory: &Superblock| check_renamed(memory, durable, found, 0);
    let another = Err(LoadError::Another {
        member: 0,
        uuid: MEMBER,
    });
    assert_eq!(check(&memory, &memory), Ok(()));
    // A copy from before.
    let mut older = memory.clone();
    older.sequence -= 1;
    assert_eq!(check(&older, &memory), another);
    // Commits that failed got no further than to memory.
    let mut ahead = memory.clone();
    ahead.sequence += 3;
    assert_eq!(check(&memory, &ahead), Ok(()));
    assert_eq!(check(&ahead, &memory), another);
    ahead.epoch += 1;
    ahead.clean = false;
    assert_eq!(check(&memory, &ahead), Ok(()));
    // Another one has got as far and ended in order.
    let mut ended = memory.clone();
    ended.epoch = ahead.epoch;
    ended.sequence = ahead.sequence;
    ended.clean = true;
    assert_eq!(check(&ended, &ahead), another);
    let mut raised = memory.clone();
    raised.epoch += 1;
    assert_eq!(check(&raised, &memory), another);
    let mut without = memory.clone();
    without.set_epoch += 1;
    assert_eq!(check(&without, &memory), another);
    assert_eq!(check(&memory, &without), another);
    let mut other = memory.clone();
    other.set_uuid = Uuid([9; 16]);
    assert_eq!(check(&other, &memory), another);
}

/// What is to be main is told from a spare by any copy that is left.
#[test]
fn a_spare_is_not_main() {
    let known = superblock();
    let good = copies(&known);
    let mut newer = good[0];
    newer[12..16].copy_from_slice(&7_u32.to_le_bytes());
    seal(&mut newer);
    let mut scratch = Superblock::EMPTY;
    let mut check = |images: [Option<&Block>; 4]| {
        let images: Vec<SuperImage<'_>> = images
            .into_iter()
            .zip(0..)
            .map(|(image, copy)| SuperImage {
                spare: 0,
                copy,
                image: image.map_or(Image::Unreadable, Image::Read),
            })
            .collect();
        check_main(&images, &mut scratch)
    };
    let (blank, foreign) = ([0; BLOCK_BYTES], [7; BLOCK_BYTES]);
    assert_eq!(
        check([Some(&blank), Some(&foreign), None, Some(&blank)]),
        Ok(())
    );
    let set = Some(known.set_uuid);
    for (copy, image) in good.iter().enumerate() {
        let mut images = [Some(&foreign), None, Some(&blank), Some(&foreign)];
        images[copy] = Some(image);
        assert_eq!(check(images), Err(LoadError::MainIsSpare { set }));
        // In another's place it is what a user may have written there.
        images.rotate_left(1);
        assert_eq!(check(images), Ok(()));
    }
    let later = LoadError::MainIsSpare { set: None };
    assert_eq!(check([Some(&newer), None, None, None]), Err(later));
}

#[test]
fn the_window_is_found_from_its_head() {
    let images = copies(&superblock());
    let head = |a, b| window_sectors(&[a, b], &mut Superblock::EMPTY.clone());
    let (first, second) = (Image::Read(&images[0]), Image::Read(&images[1]));
    assert_eq!(head(first, Image::Unreadable), Some(4096));
    assert_eq!(head(Image::Unreadable, second), Some(4096));
    assert_eq!(head(Image::Unreadable, Image::Read(&ZERO)), None);
    assert_eq!(superblock_sectors(4096), Some([0, 256, 4088, 4088 - 256]));
    assert_eq!(superblock_sectors(1023), None);
}

fn id(block: u32) -> BlockId {
    BlockId { member: 0, block }
}

fn table(number: u32, sequence: u64, main: u64) -> Block {
    let mut image = ZERO;
    let word = SlotWord::new(main, SlotState::Valid, Origin::Auto).unwrap();
    let entry = Entry {
        word,
        generation: sequence,
    };
    table_block::encode(&mut image, &MEMBER, number, sequence, [entry].into_iter());
    image
}

/// Resolves block 0 and tells the truth's sequence, where it is from, and what to rewrite.
fn resolve(s: &Superblock, images: [Option<&Block>; 2]) -> Result<(u64, u8, u8), LoadError> {
    let images = images.map(|i| i.map_or(Image::Unreadable, Image::Read));
    match resolve_block(s, id(0), &images)? {
        Resolved::Block {
            truth,
            replica,
            rewrite,
        } => Ok((truth.sequence(), replica, rewrite)),
        Resolved::End => Ok((0, 0, 0)),
    }
}

#[test]
fn replicas_resolved() {
    let s = superblock();
    let (old, new) = (table(0, 5, 1), table(0, 6, 2));
    let mut torn = new;
    torn[512..].copy_from_slice(&old[512..]);
    torn[100] ^= 1;
    assert_eq!(resolve(&s, [Some(&new), Some(&new)]), Ok((6, 0, 0)));
    assert_eq!(resolve(&s, [Some(&new), Some(&old)]), Ok((6, 0, 2)));
    assert_eq!(resolve(&s, [Some(&old), Some(&new)]), Ok((6, 1, 1)));
    assert_eq!(resolve(&s, [Some(&torn), Some(&old)]), Ok((5, 1, 1)));
    assert_eq!(resolve(&s, [Some(&old), None]), Ok((5, 0, 2)));
    let error = |error| {
        Err(LoadError::TableBlock {
            block: id(0),
            error,
        })
    };
    assert_eq!(resolve(&s, [None, None]), error(None));
    let checksum = error(Some(FormatError::Checksum));
    assert_eq!(resolve(&s, [Some(&torn), None]), checksum);
    let blank = error(Some(FormatError::Blank));
    assert_eq!(resolve(&s, [Some(&ZERO), Some(&ZERO)]), blank);
    let contradiction = Err(LoadError::TableContradiction { block: id(0) });
    assert_eq!(
        resolve(&s, [Some(&table(0, 6, 3)), Some(&new)]),
        contradiction
    );
}

/// M3: replicas are the same only if all of their bytes are, and not if their checksums are.
#[test]
fn any_difference_is_a_contradiction() {
    // The polynomial itself, lowest bit first, which has no remainder.
    let unseen = 1u64 | 0x82f6_3b78 << 1;
    let s = superblock();
    let one = table(0, 6, 2);
    for entry in 0..table_block::ENTRIES as usize {
        // Generations may have any value.
        let at = 64 + 16 * entry + 8;
        let mut other = one;
        for (byte, change) in other[at..].iter_mut().zip(unseen.to_le_bytes()) {
            *byte ^= change;
        }
        assert_eq!(
            resolve(&s, [Some(&other), None]),
            Ok((6, 0, 2)),
            "a good block"
        );
        let contradiction = Err(LoadError::TableContradiction { block: id(0) });
        assert_eq!(
            resolve(&s, [Some(&one), Some(&other)]),
            contradiction,
            "{entry}"
        );
    }
}

#[test]
fn a_void_replica_is_never_believed() {
    let mut s = superblock();
    first(&mut s).void_replicas = 0b10;
    let (old, new) = (table(0, 5, 1), table(0, 6, 2));
    assert_eq!(resolve(&s, [Some(&old), Some(&new)]), Ok((5, 0, 0)));
    assert!(resolve(&s, [None, Some(&new)]).is_err());
}

#[test]
fn an_old_superblock_is_noticed() {
    let s = superblock();
    let newer = table(0, 4 << 40, 1);
    let stale = Err(LoadError::SuperblockStale { block: id(0) });
    assert_eq!(resolve(&s, [Some(&newer), Some(&newer)]), stale);
    let same = table(0, (3 << 40) + 1, 1);
    assert!(resolve(&s, [Some(&same), Some(&same)]).is_ok());
}

#[test]
fn behind_the_high_water_mark() {
    let s = superblock();
    let resolve = |images: [Image<'_>; 2]| match resolve_block(&s, id(1), &images).unwrap() {
        Resolved::End => None,
        Resolved::Block { rewrite, .. } => Some(rewrite),
    };
    let block = table(1, 5, 1);
    assert_eq!(resolve([Image::Read(&ZERO), Image::Unreadable]), None);
    assert_eq!(resolve([Image::Read(&block), Image::Read(&block)]), Some(0));
    assert_eq!(resolve([Image::Read(&block), Image::Unreadable]), Some(2));
}

proptest! {
    #![proptest_config(super::random::config())]

    /// Whatever stands on a spare, with checksums that fit: an answer, and no panic.
    #[test]
    fn anything_at_all(
        supers in prop::collection::vec((0usize..4, 12usize..800, any::<u8>()), 0..12),
        tables in prop::collection::vec((0usize..2, 12usize..200, any::<u8>()), 0..12),
        unreadable in prop::collection::vec(any::<bool>(), 6),
    ) {
        let mut images = copies(&superblock());
        for (copy, at, byte) in supers {
            images[copy][at] = byte;
        }
        let mut tables_images = [table(0, 5, 1), table(0, 6, 2)];
        for (replica, at, byte) in tables {
            tables_images[replica][at] = byte;
        }
        images.iter_mut().chain(&mut tables_images).for_each(seal);
        let readable = |i: usize| (!unreadable[i]).then_some(());
        let images: [Option<Block>; 4] = std::array::from_fn(|i| readable(i).map(|()| images[i]));
        if let Ok(Some(chosen)) = choose(&images) {
            let s = chosen.superblock;
            let replicas = [0, 1].map(|i| readable(4 + i).map(|()| &tables_images[i]));
            let _ = resolve(&s, replicas);
            for entry in tables_images.iter().filter_map(|image| {
                dm_remap_logic::format::table_block::TableBlock::decode(image, &MEMBER, 0).ok()
            }).flat_map(|block| block.entries()) {
                let _ = check_entry(&s, 0, &entry);
            }
            let mut metadata = Metadata::EMPTY;
            *metadata.superblock_mut() = s;
            let chosen = Chosen { rewrite: 0, spares: [Some(0), None, None, None], blank: 0, joining: 0, begun: 0 };
            metadata.open(&chosen, &[1, 0, 0, 0]);
            let _ = metadata.commit(&[id(0)]).advance(Ok(()));
        }
    }
}

#[test]
fn claims() {
    let word = SlotWord::new(9, SlotState::Valid, Origin::Auto).unwrap();
    let of = |generation| Entry { word, generation };
    assert_eq!(settle_claims(&of(2), &of(1)), Ok(Claim::First));
    assert_eq!(settle_claims(&of(1), &of(2)), Ok(Claim::Second));
    let tie = Err(LoadError::Unresolvable { main_block: 9 });
    assert_eq!(settle_claims(&of(1), &of(1)), tie);
    let mut s = superblock();
    assert_eq!(check_entry(&s, 3, &of(1)), Ok(()));
    s.main_sectors = 9 * 8 + 7;
    let outside = Err(LoadError::OutOfRange {
        slot: 3,
        main_block: 9,
    });
    assert_eq!(check_entry(&s, 3, &of(1)), outside);
    let free = Entry {
        word: word.with_state(SlotState::Free),
        generation: 1,
    };
    assert_eq!(check_entry(&s, 3, &free), Ok(()));
}

#[test]
fn the_spare_of_another() {
    let s = superblock();
    let same = Expected {
        uuid: None,
        main_id: None,
        main_sectors: 1 << 20,
        main_block_bytes: 4096,
    };
    let id = |text| MainId::new(text).unwrap();
    assert_eq!(check_expected(&s, &same), Ok(()));
    let longer = Expected {
        main_sectors: 1 << 21,
        ..same
    };
    assert_eq!(check_expected(&s, &longer), Ok(()));
    let shorter = Expected {
        main_sectors: 1 << 19,
        ..same
    };
    let was = LoadError::OtherMainSize { was: 1 << 20 };
    assert_eq!(check_expected(&s, &shorter), Err(was));
    let same_id = id("ata-x");
    let named = Expected {
        main_id: Some(&same_id),
        ..shorter
    };
    assert_eq!(check_expected(&s, &named), Ok(()));
    let other_id = id("ata-y");
    let other = Expected {
        main_id: Some(&other_id),
        ..same
    };
    let was = LoadError::OtherMainId { was: same_id };
    assert_eq!(check_expected(&s, &other), Err(was));
    let uuid = Expected {
        uuid: Some(Uuid([7; 16])),
        ..same
    };
    assert_eq!(check_expected(&s, &uuid), Ok(()));
    let uuid = Expected {
        uuid: Some(MEMBER),
        ..same
    };
    let found = Uuid([7; 16]);
    assert_eq!(
        check_expected(&s, &uuid),
        Err(LoadError::WrongUuid { found })
    );
    let blocks = Expected {
        main_block_bytes: 512,
        ..same
    };
    let was = LoadError::MainBlockSize { was: 4096 };
    assert_eq!(check_expected(&s, &blocks), Err(was));
    let member = s.member(0).unwrap();
    assert_eq!(check_window(member, 4096), Ok(()));
    assert_eq!(check_window(member, 8192), Ok(()));
    let formatted = LoadError::Shrunk {
        formatted: 4096,
        found: 4095,
    };
    assert_eq!(check_window(member, 4095), Err(formatted));
}

/// P5: whoever has the wrong disk is told what the spare says and what the disk is.
#[test]
fn a_disagreement_has_two_sides() {
    let s = superblock();
    let id = MainId::new("ata-y").unwrap();
    let same = Expected {
        uuid: None,
        main_id: None,
        main_sectors: 1 << 20,
        main_block_bytes: 4096,
    };
    for (expected, spare, line) in [
        (
            Expected {
                uuid: Some(MEMBER),
                ..same
            },
            s.set_uuid.to_string(),
            MEMBER.to_string(),
        ),
        (
            Expected {
                main_id: Some(&id),
                ..same
            },
            "ata-x".into(),
            "ata-y".into(),
        ),
        (
            Expected {
                main_sectors: 77777,
                ..same
            },
            "1048576".into(),
            "77777".into(),
        ),
        (
            Expected {
                main_block_bytes: 512,
                ..same
            },
            "4096".into(),
            "512".into(),
        ),
    ] {
        let error = check_expected(&s, &expected).unwrap_err();
        let text = error.against(&expected).to_string();
        assert!(text.contains(&spare) && text.contains(&line), "{text}");
    }
    let text = check_window(s.member(0).unwrap(), 4088)
        .unwrap_err()
        .to_string();
    assert!(text.contains("4096") && text.contains("4088"), "{text}");
}
