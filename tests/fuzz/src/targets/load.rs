// SPDX-License-Identifier: GPL-2.0

//! Which copy is the truth, of whatever stands on the spares of a set: four superblocks on each, then
//! blocks of the slot tables. The answers are held against the rules in the documentation of `load`,
//! one by one.

use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::FormatError;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::MEMBERS_MAX;
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
use dm_remap_logic::load::SuperImage;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;

use super::Verdict;
use crate::check;
use crate::image;
use crate::Input;

const BOTH: usize = REPLICAS as usize;

/// What was read of a superblock copy, and what decoding says of it: the member that it lies on,
/// and the rest.
struct Copy {
    spare: u8,
    copy: u8,
    image: Option<Block>,
    decoded: Option<Result<(u8, Superblock), FormatError>>,
}

/// What was read of all superblock copies on all spares.
struct Copies(Vec<Copy>);

/// A good copy.
#[derive(Clone, Copy)]
struct Good<'a> {
    spare: u8,
    id: CopyId,
    image: &'a Block,
    superblock: &'a Superblock,
}

/// Up to three states of a superblock, on how many spares, in which state and how well each copy is,
/// and the same for blocks of the tables.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let copies = copies(input);
    let mut superblock = Superblock::EMPTY;
    let chosen = match load::choose_superblock(&copies.images(), &mut superblock) {
        Ok(Found::Ours(chosen)) => chosen,
        Ok(Found::Blank) => {
            assert!(copies.0.iter().all(Copy::is_zero));
            return Verdict::Refused;
        }
        Err(error) => {
            copies.refused(&error);
            return Verdict::Refused;
        }
    };
    copies.chose(&superblock, &chosen);
    expectations(&superblock, input);
    let mut accepted = true;
    for _ in 0..=input.below(2) {
        accepted &= table_block(&superblock, input);
    }
    Verdict::accepted(accepted)
}

fn copies(input: &mut Input<'_>) -> Copies {
    let mut states = vec![image::superblock(input)];
    for _ in 0..input.below(3) {
        let mut next = states[states.len() - 1].clone();
        next.sequence = next.sequence.wrapping_add(input.below(3));
        image::edit(&mut next, input);
        states.push(next);
    }
    let mut copies = Vec::new();
    for spare in 0..=input.below(MEMBERS_MAX.into()) as u8 {
        // Mostly the members in their order; with the sign, one that is blank.
        let kind = input.u8();
        let member = (kind & 0x7f).wrapping_add(spare) % MEMBERS_MAX;
        for copy in 0..SUPER_COPIES {
            let state = &states[input.below(states.len() as u64) as usize];
            let meant = match state.member(member) {
                Some(_) if kind & 0x80 == 0 => image::copy(state, CopyId { member, copy }),
                _ => image::ZERO,
            };
            let image = image::as_read(meant, input);
            let decoded = image.as_ref().map(|image| {
                let mut found = Superblock::EMPTY;
                let own = found.decode_into(image, copy)?;
                Ok((own, found))
            });
            copies.push(Copy {
                spare,
                copy,
                image,
                decoded,
            });
        }
    }
    Copies(copies)
}

impl Copy {
    fn is_zero(&self) -> bool {
        self.image.is_some_and(|i| i.iter().all(|b| *b == 0))
    }

    fn good(&self) -> Option<Good<'_>> {
        let (member, superblock) = self.decoded.as_ref()?.as_ref().ok()?;
        let id = CopyId {
            member: *member,
            copy: self.copy,
        };
        Some(Good {
            spare: self.spare,
            id,
            image: self.image.as_ref()?,
            superblock,
        })
    }

    fn fault(&self) -> Option<FormatError> {
        self.decoded.as_ref()?.as_ref().err().copied()
    }
}

impl Good<'_> {
    /// What orders superblocks.
    fn age(&self) -> (u64, u64) {
        (self.superblock.set_epoch, self.superblock.sequence)
    }

    /// The spare that it lies on, as it says.
    fn owner(&self) -> Uuid {
        self.superblock.member(self.id.member).expect("own").uuid
    }

    /// Whether it says the same as another, to the byte.
    fn agrees(&self, other: &Good<'_>) -> bool {
        Superblock::content(self.image) == Superblock::content(other.image)
    }

    fn writes_off(&self, other: &Good<'_>) -> bool {
        self.superblock.live_supers() & other.id.bit() == 0
    }

    /// Whether it holds against another of the same age: they agree, or this one calls the other
    /// void, and not the other way round.
    fn holds_against(&self, other: &Good<'_>) -> bool {
        self.agrees(other) || self.writes_off(other) && !other.writes_off(self)
    }
}

impl Copies {
    fn images(&self) -> Vec<SuperImage<'_>> {
        let copies = self.0.iter();
        copies
            .map(|copy| SuperImage {
                spare: copy.spare,
                copy: copy.copy,
                image: image_of(&copy.image),
            })
            .collect()
    }

    /// The good copies.
    fn good(&self) -> impl Iterator<Item = Good<'_>> + Clone {
        self.0.iter().filter_map(Copy::good)
    }

    fn good_on(&self, spare: u8) -> impl Iterator<Item = Good<'_>> + Clone {
        self.good().filter(move |good| good.spare == spare)
    }

    /// The good copies that are newer than all others.
    fn newest(&self) -> impl Iterator<Item = Good<'_>> + Clone {
        let newest = self.good().map(|good| good.age()).max();
        self.good().filter(move |good| Some(good.age()) == newest)
    }

    fn spares(&self) -> std::ops::RangeInclusive<u8> {
        0..=self.0.last().expect("a spare").spare
    }

    fn at(&self, spare: u8, copy: u8) -> &Copy {
        let mut all = self.0.iter();
        all.find(|read| (read.spare, read.copy) == (spare, copy))
            .expect("what was read")
    }

    /// Whether there are copies of several sets, or of several members on one spare.
    fn mixed(&self) -> bool {
        let pair = |a: Good<'_>, b: Good<'_>| {
            let sets = [a, b].map(|good| good.superblock.set_uuid);
            sets[0] != sets[1] || a.spare == b.spare && a.owner() != b.owner()
        };
        self.good().any(|a| self.good().any(|b| pair(a, b)))
    }

    /// Whether one member is there on two spares.
    fn twice(&self, uuid: Uuid) -> bool {
        let mut spares = self.spares().filter(|spare| {
            let mut good = self.good_on(*spare);
            good.any(|good| good.owner() == uuid)
        });
        spares.nth(1).is_some()
    }

    /// Whether none of the newest copies holds against all the others.
    fn contradictory(&self) -> bool {
        let right = |a: Good<'_>| self.newest().all(|b| a.holds_against(&b));
        !self.newest().any(right)
    }

    /// Whether a later version wrote one of them.
    fn newer(&self) -> bool {
        self.0.iter().any(|copy| {
            let fault = copy.fault();
            matches!(
                fault,
                Some(FormatError::Newer { .. } | FormatError::Features { .. })
            )
        })
    }

    /// The right one was chosen.
    fn chose(&self, truth: &Superblock, chosen: &Chosen) {
        assert!(!self.newer() && !self.mixed() && !self.contradictory());
        let best = self.newest().find(|good| good.superblock == truth);
        let best = best.expect("one of the newest");
        check::superblock(truth, best.id, truth.set_epoch);
        for other in self.newest() {
            let (id, truth) = (other.id, best.id);
            assert!(best.holds_against(&other), "{id:?} contradicts {truth:?}");
        }
        let mut rewrite = 0;
        for spare in self.spares() {
            let Some(owner) = self.good_on(spare).map(|good| good.owner()).next() else {
                self.blank(truth, chosen, spare);
                continue;
            };
            assert_eq!((chosen.blank | chosen.joining) & (1 << spare), 0);
            assert!(!self.twice(owner));
            let member = truth.find_member(&owner).expect("a member");
            assert_eq!(chosen.spare_of(member), Some(spare));
            self.together(truth, member, spare);
            // Written again is what lives and says anything else.
            for copy in 0..SUPER_COPIES {
                let id = CopyId { member, copy };
                let good = self.at(spare, copy).good();
                let same = good.is_some_and(|good| good.agrees(&best));
                if truth.live_supers() & id.bit() != 0 && !same {
                    rewrite |= id.bit();
                }
            }
            self.window(spare, truth.member(member).expect("a member"));
        }
        assert_eq!(chosen.rewrite, rewrite);
        let there = chosen.spares.iter().flatten().count();
        let blank = chosen.blank.count_ones() as usize;
        assert_eq!(there + blank, self.spares().count());
        let absent = truth
            .members()
            .map(|(index, _)| index)
            .find(|index| chosen.spare_of(*index).is_none());
        assert_eq!(chosen.absent(truth), absent);
    }

    /// A spare without a good copy has nothing else, either, unless it was about to join when the
    /// first ones were written.
    fn blank(&self, truth: &Superblock, chosen: &Chosen, spare: u8) {
        let zero = (0..SUPER_COPIES).all(|copy| self.at(spare, copy).is_zero());
        let of = |index: &u8| chosen.spare_of(*index) == Some(spare);
        let member = (0..MEMBERS_MAX).find(of);
        if chosen.joining & (1 << spare) == 0 {
            assert!(chosen.blank & (1 << spare) != 0 && member.is_none());
            assert!(zero, "it is not blank");
            return;
        }
        assert_eq!(chosen.blank & (1 << spare), 0);
        let member = member.and_then(|index| truth.member(index));
        let member = member.expect("the member that it is about to be");
        assert!(member.is_joining());
        for copy in 0..SUPER_COPIES {
            let copy = self.at(spare, copy);
            assert!(copy.fault().is_some());
            assert!(copy.image.is_some(), "unreadable is not zero");
        }
    }

    /// The spare of a member that the truth goes without was not used without all the others.
    fn together(&self, truth: &Superblock, member: u8, spare: u8) {
        let apart = |good: Good<'_>| {
            let mut others = good.superblock.members();
            let lost = |index| good.superblock.member(index).is_some_and(is_lost);
            good.id.member == member
                && others.all(|(index, _)| index == member || lost(index))
                && self.newest().all(|newest| lost(newest.id.member))
        };
        let truth_is_elsewhere = self.newest().all(|good| good.spare != spare);
        let lost = truth.member(member).is_some_and(is_lost);
        if lost && truth_is_elsewhere {
            assert!(!self.good_on(spare).all(apart), "used apart");
        }
    }

    /// The driver found the copies at the tail, if one at the head was good.
    fn window(&self, spare: u8, member: &Member) {
        let head = [0, 1].map(|copy| self.at(spare, copy));
        let first = head.iter().find_map(|copy| copy.good());
        let window = first.and_then(|good| {
            let member = good.superblock.member(good.id.member)?;
            Some(member.geometry.window_sectors())
        });
        let mut scratch = Superblock::EMPTY;
        let images = head.map(|copy| image_of(&copy.image));
        assert_eq!(load::window_sectors(&images, &mut scratch), window);
        let sectors = load::superblock_sectors(member.geometry.window_sectors());
        let sectors = sectors.expect("a window of legal size");
        for (sector, copy) in sectors.into_iter().zip(0..) {
            assert_eq!(member.geometry.superblock_sector(copy), Some(sector));
        }
    }

    /// There was a reason to choose none.
    fn refused(&self, error: &LoadError) {
        check::says_something(error);
        match error {
            LoadError::Superblock { spare, copy, error } => {
                assert_eq!(self.at(*spare, *copy).fault(), Some(*error));
                assert!(self.good_on(*spare).next().is_none() || self.newer());
            }
            LoadError::SuperblockUnreadable { spare, copy } => {
                assert!(self.at(*spare, *copy).image.is_none());
                assert!(self.good_on(*spare).next().is_none());
            }
            LoadError::MixedSpares { .. } => assert!(self.mixed()),
            LoadError::Twice { uuid } => assert!(self.twice(*uuid)),
            LoadError::NotMember { spare } => {
                let owner = self.good_on(*spare).map(|good| good.owner()).next();
                let owner = owner.expect("the name of what is no member");
                let knows = |good: Good<'_>| good.superblock.find_member(&owner).is_some();
                assert!(!self.newest().all(knows));
            }
            LoadError::Apart { .. } => {
                let lost = |good: Good<'_>| good.superblock.members().any(|(_, m)| m.is_left_out());
                assert!(self.good().any(lost));
            }
            LoadError::SuperblockContradiction { copy } => {
                assert!(self.contradictory());
                assert!(self.newest().any(|good| good.id == *copy));
            }
            LoadError::Unfinished { .. } => {
                assert!(self.good().any(|good| good.superblock.is_unfinished()));
            }
            other => panic!("{other}"),
        }
    }
}

/// Whether the set is used without a member, and tells it nothing.
fn is_lost(member: &Member) -> bool {
    member.missing && (0..SUPER_COPIES).all(|copy| !member.super_lives(copy))
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
    };
    let uuid = expected.uuid.is_none_or(|uuid| uuid == superblock.set_uuid);
    let main = match expected.main_id {
        Some(id) if !superblock.main_id.is_none() => *id == superblock.main_id,
        _ => expected.main_sectors >= superblock.main_sectors,
    };
    let block = expected.main_block_bytes == superblock.main_block_bytes;
    match load::check_expected(superblock, &expected) {
        Ok(()) => assert!(uuid && main && block),
        Err(error) => {
            check::says_something(&error);
            assert!(!(uuid && main && block), "{error}");
        }
    }
    for (_, member) in superblock.members() {
        let formatted = member.geometry.window_sectors();
        let there = near(formatted, input);
        match load::check_window(member, there) {
            Ok(()) => assert!(there >= formatted),
            Err(error) => {
                check::says_something(&error);
                let found = there;
                let shrunk = LoadError::Shrunk { formatted, found };
                assert!(error == shrunk && there < formatted);
            }
        }
    }
}

/// Makes and resolves a block of a table; whether there was a truth.
fn table_block(superblock: &Superblock, input: &mut Input<'_>) -> bool {
    let members = superblock.members().count() as u64;
    let which = input.below(members) as usize;
    let (index, member) = superblock.members().nth(which).expect("a member");
    let blocks = member.geometry.table_blocks();
    let block = match input.below(4) {
        0 => 0,
        1 => member.high_water.saturating_sub(1),
        2 => member.high_water.min(blocks - 1),
        _ => input.u32() % blocks,
    };
    // Two states of it, the second mostly later than the first.
    let epoch = u64::from(superblock.epoch);
    let sequence = (epoch << 40) + input.below(256);
    let names = [member.uuid, superblock.set_uuid];
    let first = state(names, block, sequence, input);
    let second = match input.below(4) {
        0 => first,
        1 => state(names, block, sequence, input),
        2 => state(names, block, input.number(), input),
        _ => state(names, block, sequence + 1, input),
    };
    let images: [_; BOTH] = std::array::from_fn(|_| {
        let image = if input.u8() & 1 == 0 { first } else { second };
        image::as_read(image, input)
    });
    let id = BlockId {
        member: index,
        block,
    };
    resolve(superblock, member, id, &images)
}

fn state([own, other]: [Uuid; 2], block: u32, sequence: u64, input: &mut Input<'_>) -> Block {
    let entries = image::entries(input);
    let (member, number) = match input.u8() {
        7 => (other, block),
        8 => (own, block ^ 1),
        _ => (own, block),
    };
    image::table(&member, number, sequence, &entries)
}

fn resolve(
    superblock: &Superblock,
    member: &Member,
    id: BlockId,
    images: &[Option<Block>; BOTH],
) -> bool {
    let lives = |replica: usize| member.replica_lives(replica as u8);
    let decoded: [_; BOTH] = std::array::from_fn(|replica| {
        let image = images[replica].as_ref().filter(|_| lives(replica))?;
        Some(TableBlock::decode(image, &member.uuid, id.block))
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
    match load::resolve_block(superblock, id, &read) {
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
            claims(superblock, member, truth, id.block);
            true
        }
        Ok(Resolved::End) => {
            assert!(newest.is_none() && !newer && id.block >= member.high_water);
            false
        }
        Err(error) => {
            check::says_something(&error);
            match error {
                LoadError::TableBlock { block: of, error } => {
                    assert!(newer || (newest.is_none() && id.block < member.high_water));
                    assert!(of == id && error.is_none_or(|e| faults().any(|f| *f == e)));
                }
                LoadError::TableContradiction { block: of } => {
                    assert!(contradiction && of == id)
                }
                LoadError::SuperblockStale { block: of } => assert!(stale && of == id),
                other => panic!("{other}"),
            }
            false
        }
    }
}

/// What the entries claim, each by itself and by twos.
fn claims(superblock: &Superblock, member: &Member, truth: TableBlock<'_>, block: u32) {
    let (first, end) = member.block_slots(block);
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
