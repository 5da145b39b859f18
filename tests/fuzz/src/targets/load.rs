// SPDX-License-Identifier: GPL-2.0

//! Which copy is the truth, of whatever stands on a spare: the four superblocks, then blocks of the
//! slot table. The answers are held against the rules in the documentation of `load`, one by one.

use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::load;
use dm_remap_logic::load::Chosen;
use dm_remap_logic::load::Claim;
use dm_remap_logic::load::Expected;
use dm_remap_logic::load::Found;
use dm_remap_logic::load::Image;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::load::Resolved;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::text::MainId;

use super::Verdict;
use crate::check;
use crate::image;
use crate::Input;

const COPIES: usize = SUPER_COPIES as usize;
const BOTH: usize = REPLICAS as usize;

/// What was read of the superblock copies, and what decoding says of each.
struct Copies {
    images: [Option<Block>; COPIES],
    decoded: [Option<Result<Superblock, FormatError>>; COPIES],
}

/// Up to three states of a superblock, in which state and how well each copy is, and the same for
/// blocks of the table.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let copies = copies(input);
    let chosen = match load::choose_superblock(&copies.images()) {
        Ok(Found::Ours(chosen)) => chosen,
        Ok(Found::Blank) => {
            let zero = |image: &Option<Block>| image.is_some_and(|i| i.iter().all(|b| *b == 0));
            assert!(copies.images.iter().all(zero));
            return Verdict::Refused;
        }
        Err(error) => {
            copies.refused(&error);
            return Verdict::Refused;
        }
    };
    copies.chose(&chosen);
    expectations(&chosen.superblock, input);
    let mut accepted = true;
    for _ in 0..=input.below(2) {
        accepted &= table_block(&chosen.superblock, input);
    }
    Verdict::accepted(accepted)
}

fn copies(input: &mut Input<'_>) -> Copies {
    let first = image::superblock(input);
    let mut states = vec![first];
    for _ in 0..input.below(3) {
        let mut next = states[states.len() - 1].clone();
        next.sequence = next.sequence.wrapping_add(input.below(3));
        image::edit(&mut next, input);
        states.push(next);
    }
    let images: [_; COPIES] = std::array::from_fn(|copy| {
        let state = &states[input.below(states.len() as u64) as usize];
        image::as_read(image::copy(state, copy as u8), input)
    });
    let decoded = std::array::from_fn(|copy| {
        let image = images[copy].as_ref()?;
        Some(Superblock::decode(image, copy as u8))
    });
    Copies { images, decoded }
}

impl Copies {
    fn images(&self) -> [Image<'_>; COPIES] {
        std::array::from_fn(|i| image_of(&self.images[i]))
    }

    /// The good copies.
    fn good(&self) -> impl Iterator<Item = (usize, &Superblock)> + Clone {
        let decoded = self.decoded.iter().enumerate();
        decoded.filter_map(|(copy, found)| Some((copy, found.as_ref()?.as_ref().ok()?)))
    }

    fn fault(&self, copy: u8) -> Option<FormatError> {
        self.decoded[usize::from(copy)]
            .as_ref()?
            .as_ref()
            .err()
            .copied()
    }

    /// Whether two copies say the same, to the byte.
    fn same(&self, a: usize, b: usize) -> bool {
        let content = |copy: usize| self.images[copy].as_ref().and_then(Superblock::content);
        content(a) == content(b)
    }

    /// All pairs of good copies.
    fn pairs(&self) -> impl Iterator<Item = [(usize, &Superblock); 2]> {
        self.good().flat_map(|a| self.good().map(move |b| [a, b]))
    }

    fn mixed(&self) -> bool {
        self.pairs()
            .any(|[(_, a), (_, b)]| (a.set_uuid, a.member_uuid) != (b.set_uuid, b.member_uuid))
    }

    /// Whether two good copies of one sequence differ.
    fn differ(&self, [(a, of_a), (b, of_b)]: [(usize, &Superblock); 2]) -> bool {
        of_a.sequence == of_b.sequence && !self.same(a, b)
    }

    /// Whether two good copies of one sequence differ, and nothing says which one is right; or all
    /// copies of the highest sequence are wrong by what others say.
    fn contradictory(&self) -> bool {
        let unsettled = |pair| self.differ(pair) && !settles(pair) && !settles([pair[1], pair[0]]);
        let newest = self.good().map(|(_, found)| found.sequence).max();
        let right =
            |a: (usize, &Superblock)| self.good().all(|b| !self.differ([a, b]) || settles([a, b]));
        let mut newest = self
            .good()
            .filter(|(_, found)| Some(found.sequence) == newest);
        self.pairs().any(unsettled) || !newest.any(right)
    }

    fn newer(&self) -> bool {
        (0..SUPER_COPIES).any(|copy| {
            let fault = self.fault(copy);
            matches!(
                fault,
                Some(FormatError::Newer { .. } | FormatError::Features { .. })
            )
        })
    }

    /// The right one was chosen.
    fn chose(&self, chosen: &Chosen) {
        let truth = &chosen.superblock;
        assert!(!self.newer() && !self.mixed());
        assert_eq!(truth.member_count, 1);
        let sequences = self.good().map(|(_, found)| found.sequence);
        assert_eq!(
            sequences.max(),
            Some(truth.sequence),
            "an older copy was chosen"
        );
        let alike = || self.good().filter(|(_, found)| *found == truth);
        let copy = alike()
            .map(|(copy, _)| copy)
            .find(|c| truth.super_lives(*c as u8));
        let copy = copy.expect("all copies that say this are void, as they say");
        check::superblock(truth, copy as u8, truth.set_epoch);
        for (other, found) in self.good() {
            if found.sequence == truth.sequence && !self.same(copy, other) {
                let settled = settles([(copy, truth), (other, found)]);
                assert!(settled, "{other} contradicts {copy}");
            }
        }
        // Written again is what lives and says anything else.
        for other in 0..COPIES {
            let lives = truth.super_lives(other as u8);
            let good = self.good().any(|(good, _)| good == other);
            let rewrite = lives && !(good && self.same(copy, other));
            assert_eq!(chosen.rewrite & (1 << other) != 0, rewrite, "copy {other}");
        }
        assert_eq!(chosen.rewrite >> COPIES, 0);
        self.window(truth);
    }

    /// The driver found the copies at the tail, if one at the head was good.
    fn window(&self, truth: &Superblock) {
        let [first, second, ..] = self.images();
        let head = self.good().find(|(copy, _)| *copy < 2);
        let window = head.map(|(_, found)| found.geometry.window_sectors());
        assert_eq!(load::window_sectors(&[first, second]), window);
        let sectors = load::superblock_sectors(truth.geometry.window_sectors());
        let sectors = sectors.expect("a window of legal size");
        for (sector, copy) in sectors.into_iter().zip(0..) {
            assert_eq!(truth.geometry.superblock_sector(copy), Some(sector));
        }
    }

    /// There was a reason to choose none.
    fn refused(&self, error: &LoadError) {
        check::says_something(error);
        match error {
            LoadError::Superblock { copy, error } => {
                assert_eq!(self.fault(*copy), Some(*error));
                assert!(self.good().next().is_none() || self.newer());
            }
            LoadError::SuperblockUnreadable { copy } => {
                assert!(self.images[usize::from(*copy)].is_none());
                assert!(self.good().next().is_none());
            }
            LoadError::MixedSpares => assert!(self.mixed()),
            LoadError::SuperblockContradiction { .. } => assert!(self.contradictory()),
            LoadError::Incomplete { members } => {
                assert_ne!(*members, 1);
                assert!(self.good().any(|(_, found)| found.member_count == *members));
            }
            other => panic!("{other}"),
        }
    }
}

/// Whether the first copy calls the second void, and not the other way round.
fn settles([(a, of_a), (b, of_b)]: [(usize, &Superblock); 2]) -> bool {
    !of_a.super_lives(b as u8) && of_b.super_lives(a as u8)
}

fn image_of(read: &Option<Block>) -> Image<'_> {
    read.as_ref().map_or(Image::Unreadable, Image::Read)
}

/// Held against another table line and other devices.
fn expectations(superblock: &Superblock, input: &mut Input<'_>) {
    let main_id = match input.below(4) {
        0 => None,
        1 => Some(superblock.main_id),
        _ => MainId::new("ata-x"),
    };
    let near =
        |value: u64, input: &mut Input<'_>| value.wrapping_add(input.below(3)).wrapping_sub(1);
    let expected = Expected {
        uuid: (input.below(3) != 0).then(|| image::uuid(input)),
        main_id: main_id.as_ref().filter(|id| !id.is_none()),
        main_sectors: near(superblock.main_sectors, input),
        main_block_bytes: input.one_of(&[4096, 512, 1024]),
        window_sectors: near(superblock.geometry.window_sectors(), input),
    };
    let uuid = expected.uuid.is_none_or(|uuid| uuid == superblock.set_uuid);
    let main = match expected.main_id {
        Some(id) if !superblock.main_id.is_none() => *id == superblock.main_id,
        _ => expected.main_sectors >= superblock.main_sectors,
    };
    let fits = expected.window_sectors >= superblock.geometry.window_sectors();
    let block = expected.main_block_bytes == superblock.main_block_bytes;
    match load::check_expected(superblock, &expected) {
        Ok(()) => assert!(uuid && main && fits && block),
        Err(error) => {
            check::says_something(&error);
            assert!(!(uuid && main && fits && block), "{error}");
        }
    }
}

/// Makes and resolves a block of the table; whether there was a truth.
fn table_block(superblock: &Superblock, input: &mut Input<'_>) -> bool {
    let blocks = superblock.geometry.table_blocks();
    let block = match input.below(4) {
        0 => 0,
        1 => superblock.high_water.saturating_sub(1),
        2 => superblock.high_water.min(blocks - 1),
        _ => input.u32() % blocks,
    };
    // Two states of it, the second mostly later than the first.
    let epoch = u64::from(superblock.epoch);
    let sequence = (epoch << 40) + input.below(256);
    let first = state(superblock, block, sequence, input);
    let second = match input.below(4) {
        0 => first,
        1 => state(superblock, block, sequence, input),
        2 => state(superblock, block, input.number(), input),
        _ => state(superblock, block, sequence + 1, input),
    };
    let images: [_; BOTH] = std::array::from_fn(|_| {
        let image = if input.u8() & 1 == 0 { first } else { second };
        image::as_read(image, input)
    });
    resolve(superblock, block, &images)
}

fn state(superblock: &Superblock, block: u32, sequence: u64, input: &mut Input<'_>) -> Block {
    let entries = image::entries(input);
    let (member, number) = match input.u8() {
        7 => (superblock.set_uuid, block),
        8 => (superblock.member_uuid, block ^ 1),
        _ => (superblock.member_uuid, block),
    };
    image::table(&member, number, sequence, &entries)
}

fn resolve(superblock: &Superblock, block: u32, images: &[Option<Block>; BOTH]) -> bool {
    let lives = |replica: usize| superblock.replica_lives(replica as u8);
    let decoded: [_; BOTH] = std::array::from_fn(|replica| {
        let image = images[replica].as_ref().filter(|_| lives(replica))?;
        Some(TableBlock::decode(image, &superblock.member_uuid, block))
    });
    let good = || decoded.iter().flatten().flatten();
    let newest = good().map(TableBlock::sequence).max();
    let of_newest = || good().filter(|found| Some(found.sequence()) == newest);
    let contradiction = of_newest().any(|a| of_newest().any(|b| a.image() != b.image()));
    let faults = || {
        decoded
            .iter()
            .flatten()
            .filter_map(|found| found.as_ref().err())
    };
    let newer = faults().any(|error| matches!(error, FormatError::Newer { .. }));
    let stale = newest.is_some_and(|sequence| sequence_epoch(sequence) > superblock.epoch);

    let read: [Image<'_>; BOTH] = std::array::from_fn(|i| image_of(&images[i]));
    match load::resolve_block(superblock, block, &read) {
        Ok(Resolved::Block {
            truth,
            replica,
            rewrite,
        }) => {
            assert!(!newer && !contradiction && !stale);
            let replica = usize::from(replica);
            assert!(lives(replica), "a void replica was believed");
            assert_eq!(images[replica].as_ref(), Some(truth.image()));
            assert_eq!(Some(truth.sequence()), newest, "an older block was chosen");
            for (image, other) in images.iter().zip(0..) {
                let same = image.as_ref() == Some(truth.image());
                assert_eq!(rewrite & (1 << other) != 0, lives(other) && !same);
            }
            assert_eq!(rewrite >> BOTH, 0);
            claims(superblock, truth, block);
            true
        }
        Ok(Resolved::End) => {
            assert!(newest.is_none() && !newer && block >= superblock.high_water);
            false
        }
        Err(error) => {
            check::says_something(&error);
            match error {
                LoadError::TableBlock { block: of, error } => {
                    assert!(newer || (newest.is_none() && block < superblock.high_water));
                    assert!(of == block && error.is_none_or(|e| faults().any(|f| *f == e)));
                }
                LoadError::TableContradiction { block: of } => {
                    assert!(contradiction && of == block)
                }
                LoadError::SuperblockStale { block: of } => assert!(stale && of == block),
                other => panic!("{other}"),
            }
            false
        }
    }
}

/// What the entries claim, each by itself and by twos.
fn claims(superblock: &Superblock, truth: TableBlock<'_>, block: u32) {
    let (first, end) = superblock.geometry.block_slots(block);
    let entries: Vec<Entry> = truth.entries().take((end - first) as usize).collect();
    let mut before: Option<&Entry> = None;
    for (entry, slot) in entries.iter().zip(first..) {
        let inside = entry.word.main_block() < superblock.main_blocks();
        match load::check_entry(superblock, slot, entry) {
            Ok(()) => assert!(inside || !entry.word.is_claim()),
            Err(error) => {
                check::says_something(&error);
                assert!(entry.word.is_claim() && !inside);
            }
        }
        if let Some(before) = before.filter(|_| entry.word.is_claim()) {
            let claim = load::settle_claims(before, entry);
            let swapped = load::settle_claims(entry, before);
            let expected = match before.generation.cmp(&entry.generation) {
                std::cmp::Ordering::Less => Some([Claim::Second, Claim::First]),
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => Some([Claim::First, Claim::Second]),
            };
            assert_eq!(
                [claim.ok(), swapped.ok()],
                [0, 1].map(|i| expected.map(|e| e[i]))
            );
        }
        before = Some(entry).filter(|entry| entry.word.is_claim()).or(before);
    }
}
