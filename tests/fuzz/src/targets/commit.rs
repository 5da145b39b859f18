// SPDX-License-Identifier: GPL-2.0

//! The commit protocol, from any superblock that is accepted, through any operations and faults.
//!
//! What is on the disks is known here only as far as it takes to hold each step against the rules in the
//! documentation of `commit`. Histories on whole model disks are what `tests/logic` has.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use dm_remap_logic::commit::Content;
use dm_remap_logic::commit::Fault;
use dm_remap_logic::commit::Metadata;
use dm_remap_logic::commit::Op;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::commit::Step;
use dm_remap_logic::commit::COMMIT_BLOCKS_MAX;
use dm_remap_logic::commit::RUN_BLOCKS_MAX;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Place;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_SECTORS;
use dm_remap_logic::format::MEMBERS_MAX;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::load::Chosen;
use dm_remap_logic::text::MainId;

use super::Verdict;
use crate::check;
use crate::image;
use crate::image::MEMBERS;
use crate::Input;

/// More steps than any operation takes that ends: with the most blocks, each a few times.
const STEPS_MAX: usize = 20_000;
/// The most blocks that all tables have together.
const BLOCKS_MAX: u32 = 1000;

/// A superblock, what of its set is there and how well, and what is done with it.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let superblock = image::superblock(input);
    let Some(mut world) = World::open(superblock, input) else {
        return Verdict::Refused;
    };
    world.check();
    for _ in 0..input.below(4) {
        world.equalise(input);
    }
    for _ in 0..input.below(24) {
        world.change(input);
        world.check();
    }
    // Whatever happened, without faults the metadata gets into good order; or it can't be written.
    let mut none = Input::new(&[]);
    let settled = world.drive(&mut none, Do::Commit(&[]));
    let synced = world.drive(&mut none, Do::Sync);
    if settled == Outcome::Committed && synced == Outcome::Committed {
        assert!(!world.metadata.is_unsettled() && !world.metadata.is_stale());
    }
    world.check();
    Verdict::Accepted
}

/// An operation.
#[derive(Clone, Copy)]
enum Do<'a> {
    Commit(&'a [BlockId]),
    Extend(u8, u32),
    Sync,
    Rewrite(u8, BlockId),
    Rebuild,
}

impl<'a> Do<'a> {
    fn begin(self, metadata: &'a mut Metadata) -> Op<'a> {
        match self {
            Do::Commit(blocks) => metadata.commit(blocks),
            Do::Extend(member, blocks) => metadata.extend(member, blocks),
            Do::Sync => metadata.sync(),
            Do::Rewrite(replica, block) => metadata.rewrite(replica, block),
            Do::Rebuild => metadata.rebuild(),
        }
    }
}

/// A block of a replica.
type At = (BlockKey, u8);
type BlockKey = (u8, u32);

fn key(id: BlockId) -> BlockKey {
    (id.member, id.block)
}

struct World {
    metadata: Metadata,
    /// What the superblock copies say that are good.
    supers: BTreeMap<u16, Superblock>,
    /// The last superblock that was written anywhere.
    issued: Option<Block>,
    /// The activation epoch of those that were here before.
    epoch: u32,
    /// The highest sequence of a table block that was written.
    sequence: u64,
    /// Members with writes that were not flushed.
    unflushed: BTreeSet<u8>,
    /// Blocks that a failed commit left older than the other replica's, or damaged.
    suspect: BTreeSet<At>,
    /// Blocks of void replicas that were copied from the others, and where to.
    copied: BTreeMap<At, Place>,
}

/// What is known of an operation under way.
#[derive(Default)]
struct Progress {
    /// The second copies that were read, and whether they were good.
    checked: BTreeMap<At, (Place, bool)>,
    /// The blocks that were written with what is in memory, or empty.
    written: BTreeMap<At, Place>,
    /// The blocks that such a write was issued for.
    issued: BTreeSet<BlockKey>,
    /// The last sequence before this operation.
    before: u64,
}

impl World {
    fn open(superblock: Superblock, input: &mut Input<'_>) -> Option<Self> {
        let first = CopyId::lowest(superblock.live_supers())?;
        let image = image::copy(&superblock, first);
        if Superblock::decode(&image, first.copy).as_ref() != Ok(&superblock) {
            return None;
        }
        let blocks = superblock.members().map(|(_, m)| m.geometry.table_blocks());
        if blocks.fold(0u32, u32::saturating_add) > BLOCKS_MAX {
            return None;
        }
        let away = input.u8();
        let mut there = 0;
        let mut table_blocks = [0; MEMBERS_MAX as usize];
        let mut chosen = Chosen {
            rewrite: 0,
            spares: [None; MEMBERS_MAX as usize],
            blank: 0,
            joining: 0,
            begun: 0,
        };
        for (index, member) in superblock.members() {
            let place = usize::from(index);
            let lives = (0..REPLICAS).any(|replica| member.replica_lives(replica));
            let more = input.u8() & u8::from(lives);
            table_blocks[place] = (member.high_water + u32::from(more)).min(member.table_blocks());
            if away & (1 << index) == 0 {
                chosen.spares[place] = Some(index);
                there |= 0xf << (4 * index);
            }
        }
        // The one that says all this is good.
        let readable = superblock.live_supers() & there;
        let best = CopyId::lowest(readable)?;
        chosen.rewrite = input.u16() & readable & !best.bit();
        let good = readable & !chosen.rewrite;
        let supers = (0..16).map(|i| 1u16 << i).filter(|bit| good & bit != 0);
        let mut world = World {
            supers: supers.map(|bit| (bit, superblock.clone())).collect(),
            issued: None,
            epoch: superblock.epoch,
            sequence: 0,
            unflushed: BTreeSet::new(),
            suspect: BTreeSet::new(),
            copied: BTreeMap::new(),
            metadata: Metadata::EMPTY,
        };
        let absent = |index: &u8| superblock.member(*index).is_some() && away & (1 << index) != 0;
        *world.metadata.superblock_mut() = superblock.clone();
        world.metadata.open(&chosen, &table_blocks);
        for index in (0..MEMBERS_MAX).filter(absent) {
            assert!(!world.metadata.is_present(index));
            world.metadata.lose_member(index).ok()?;
        }
        Some(world)
    }

    /// What stands in memory can be written and read again, and means nothing impossible.
    fn check(&self) {
        let superblock = self.metadata.superblock();
        let mut live = superblock.live_supers();
        let first = CopyId::lowest(live).expect("a live copy");
        check::superblock(superblock, first, 0);
        while let Some(copy) = CopyId::lowest(live) {
            live &= !copy.bit();
            let image = image::copy(superblock, copy);
            let mut again = Superblock::EMPTY;
            assert_eq!(again.decode_into(&image, copy.copy), Ok(copy.member));
            assert_eq!(&again, superblock);
        }
        for (index, member) in superblock.members() {
            let usable = self.metadata.is_present(index) && !member.missing;
            assert_eq!(self.metadata.is_usable(index), usable);
        }
        for (index, replica) in self.metadata.void_replicas() {
            let member = superblock.member(index).expect("whose replica is void");
            assert!(!member.replica_lives(replica));
            assert!(self
                .metadata
                .is_present(member.areas[usize::from(replica)].host));
        }
    }

    fn member(&self, index: u8) -> Option<&Member> {
        self.metadata.superblock().member(index)
    }

    /// A block that loading found to differ is made equal in both replicas.
    fn equalise(&mut self, input: &mut Input<'_>) {
        let replica = input.u8() % REPLICAS;
        let id = self.block(input);
        let differs = |m: &Member| m.void_replicas == 0 && id.block < m.high_water;
        if self.member(id.member).is_some_and(differs) {
            self.drive(input, Do::Rewrite(replica, id));
            self.check();
        }
    }

    fn block(&self, input: &mut Input<'_>) -> BlockId {
        let member = input.u8() % MEMBERS_MAX;
        let block = input.u16();
        let mark = self.member(member).map_or(1, |m| m.high_water.max(1));
        BlockId {
            member,
            block: u32::from(block) % mark,
        }
    }

    /// Does something.
    fn change(&mut self, input: &mut Input<'_>) {
        let kind = input.u8();
        let index = (kind >> 4) % MEMBERS_MAX;
        let replica = kind >> 6 & 1;
        match kind & 15 {
            0 | 1 => {
                let count = input.below(COMMIT_BLOCKS_MAX as u64 + 2);
                let mut blocks: Vec<_> = (0..count).map(|_| self.block(input)).collect();
                // Each is named once.
                blocks.sort_unstable_by_key(|id| key(*id));
                blocks.dedup();
                let generation = self.metadata.next_generation();
                let legal = blocks.len() <= COMMIT_BLOCKS_MAX
                    && blocks.iter().all(|id| {
                        let member = self.member(id.member);
                        member.is_some_and(|m| id.block < m.high_water)
                    });
                let outcome = self.drive(input, Do::Commit(&blocks));
                assert!(legal || outcome != Outcome::Committed);
                let later = self.metadata.next_generation();
                assert!(later > generation || later.is_none());
            }
            2 => {
                let blocks = input.u8().into();
                self.drive(input, Do::Extend(index, blocks));
            }
            3 => {
                self.drive(input, Do::Sync);
            }
            4 | 5 => {
                if self.metadata.rebuilding().is_none() {
                    let void: Vec<_> = self.metadata.void_replicas().collect();
                    if void.is_empty() {
                        return;
                    }
                    let (member, replica) = input.one_of(&void);
                    self.metadata.begin_rebuild(member, replica);
                }
                self.drive(input, Do::Rebuild);
            }
            6 => {
                let host = input.u8() % MEMBERS_MAX;
                let usable = self.metadata.is_usable(host) && !self.metadata.is_unsettled();
                let slots = self.metadata.slots_beside(host, index);
                if let (Some(slots), true) = (slots, usable) {
                    let _ = self.metadata.rehost(index, replica, host, slots);
                }
            }
            7 if self.metadata.is_present(index) && !self.metadata.is_unsettled() => {
                let _ = self.metadata.rehome(index, replica);
            }
            8 if self.metadata.lose_member(index).is_ok() => {
                self.metadata.set_present(index, false);
            }
            9 => self.add(input),
            10 => self.remove(index),
            11 if self.member(index).is_some_and(|m| m.missing) => {
                self.metadata.set_present(index, true);
            }
            12 if self.is_whole(index) => self.metadata.return_member(index),
            13 => {
                let id = MainId::new("b");
                let sectors = input.number() & ((1 << 48) - 1);
                self.metadata.set_main(sectors, id.as_ref());
            }
            14 => self.metadata.set_clean(kind & 0x10 != 0),
            15 => self.metadata.give_up_rebuild(),
            _ => (),
        }
    }

    fn add(&mut self, input: &mut Input<'_>) {
        let superblock = self.metadata.superblock();
        let mut names = MEMBERS.iter();
        let name = names.find(|name| superblock.find_member(name).is_none());
        let slot_sectors = superblock.slot_sectors;
        let geometry = image::geometry(slot_sectors, input);
        let (Some(name), Some(geometry)) = (name, geometry) else {
            return;
        };
        let Some(index) = (0..4).find(|index| self.member(*index).is_none()) else {
            return;
        };
        if geometry.table_blocks() <= BLOCKS_MAX {
            let added = self.metadata.add_member(index, *name, geometry);
            if added.is_ok() {
                self.forget(index);
                assert!(self.metadata.is_present(index));
                assert_eq!(self.metadata.superblock().find_member(name), Some(index));
            }
        }
    }

    fn remove(&mut self, index: u8) {
        if self.member(index).is_some() && self.metadata.remove_member(index).is_ok() {
            self.forget(index);
            assert!(self.member(index).is_none() && !self.metadata.is_present(index));
        }
    }

    /// Whatever was on the spare of that number, it is another one now.
    fn forget(&mut self, index: u8) {
        self.supers
            .retain(|bit, _| *bit & (0xf << (4 * index)) == 0);
        self.copied
            .retain(|((member, _), _), place| *member != index && place.member != index);
        self.unflushed.remove(&index);
    }

    /// Whether everything of a missing member was made again.
    fn is_whole(&self, index: u8) -> bool {
        let mut members = self.metadata.superblock().members();
        let there = self.metadata.is_present(index);
        let own = |m: &Member| m.missing && m.void_replicas == 0 && m.void_supers == 0;
        let here = |(_, m): (u8, &Member)| {
            let mut areas = m.areas.iter().zip(0..);
            areas.all(|(area, replica)| area.host != index || m.replica_lives(replica))
        };
        there && self.member(index).is_some_and(own) && members.all(here)
    }

    /// Carries out an operation, and holds each step against the rules.
    fn drive(&mut self, input: &mut Input<'_>, what: Do<'_>) -> Outcome {
        let mut metadata = std::mem::replace(&mut self.metadata, Metadata::EMPTY);
        let blocks: &[BlockId] = match what {
            Do::Commit(blocks) => blocks,
            _ => &[],
        };
        let outcome = self.steps(input, what.begin(&mut metadata), blocks);
        self.metadata = metadata;
        outcome
    }

    fn steps(&mut self, input: &mut Input<'_>, mut op: Op<'_>, blocks: &[BlockId]) -> Outcome {
        let mut progress = Progress {
            before: self.sequence,
            ..Progress::default()
        };
        let mut faults = Faults { good: 0 };
        let mut last = Ok(());
        for _ in 0..STEPS_MAX {
            let before = op.metadata().superblock().clone();
            let step = op.advance(last);
            self.changed(&before, op.metadata().superblock(), &progress);
            if let Step::Done(outcome) = step {
                assert_eq!(op.advance(Err(Fault::Media)), step);
                self.done(&op, outcome, blocks, &progress);
                return outcome;
            }
            last = faults.next(input);
            match step {
                Step::WriteSuper { copy, place } => self.write_super(&op, copy, place, last),
                Step::CheckTable { block, place } => {
                    let replica = self.told(&op, block, place);
                    let now = op.metadata().superblock().table_place(replica, block);
                    assert_eq!(now, Some(place), "what is read is elsewhere");
                    let at = (key(block), replica);
                    progress.checked.insert(at, (place, last.is_ok()));
                }
                Step::WriteTable {
                    block,
                    count,
                    place,
                    content,
                    fua,
                    verify,
                } => {
                    let member = op.metadata().superblock().member(block.member);
                    let only = member.is_none_or(|m| m.void_replicas != 0);
                    let copied = matches!(content, Content::Copy { .. });
                    assert!((1..=RUN_BLOCKS_MAX).contains(&count));
                    for step in 0..count {
                        let (block, place) = (block.behind(step), place.behind(step));
                        let content = match content {
                            Content::Copy { from } => Content::Copy {
                                from: from.behind(step),
                            },
                            content => content,
                        };
                        let at = (key(block), self.told(&op, block, place));
                        let bad = progress.checked.get(&at) == Some(&(place, false));
                        assert_eq!(verify, bad || only || copied, "{at:?} is read back");
                        self.write_table(&op, at, place, content, &mut progress);
                        if last.is_ok() {
                            if copied {
                                self.copied.insert(at, place);
                            } else {
                                progress.written.insert(at, place);
                                self.suspect.remove(&at);
                            }
                            if !fua {
                                self.unflushed.insert(place.member);
                            }
                        } else if matches!(content, Content::Current { .. }) {
                            self.suspect.insert(at);
                        }
                    }
                }
                Step::Flush { member } => {
                    assert!(op.metadata().is_present(member));
                    if last.is_ok() {
                        self.unflushed.remove(&member);
                    }
                }
                Step::Done(_) => unreachable!(),
            }
        }
        panic!("it does not end");
    }

    fn write_super(&mut self, op: &Op<'_>, copy: CopyId, place: Place, last: Result<(), Fault>) {
        let metadata = op.metadata();
        let superblock = metadata.superblock();
        assert_eq!(superblock.super_place(copy), Some(place));
        assert!(metadata.is_present(place.member), "it is not there");
        assert!(superblock.live_supers() & copy.bit() != 0, "it is void");
        let mut image = image::ZERO;
        metadata.encode_superblock(&mut image, copy);
        let found = Superblock::decode(&image, copy.copy);
        assert_eq!(found.as_ref(), Ok(superblock));
        // All that have one sequence are the same.
        if let Some(issued) = self.issued {
            let same = Superblock::content(&image) == Superblock::content(&issued);
            let issued = sequence_of(&issued);
            assert!(superblock.sequence >= issued);
            assert!(superblock.sequence > issued || same, "two of one sequence");
        }
        self.issued = Some(image);
        // The only good one is not rewritten.
        let known = self.supers.keys().any(|bit| *bit == copy.bit());
        let others = self.supers.keys().any(|bit| *bit != copy.bit());
        assert!(others || !known, "the only good superblock is rewritten");
        match last {
            Ok(()) => self.supers.insert(copy.bit(), superblock.clone()),
            Err(_) => self.supers.remove(&copy.bit()),
        };
    }

    /// The replica whose block a step is about. All that is written was told to all superblocks before.
    fn told(&self, op: &Op<'_>, block: BlockId, place: Place) -> u8 {
        let metadata = op.metadata();
        let superblock = metadata.superblock();
        assert!(metadata.is_present(place.member), "it is not there");
        let mut live = superblock.live_supers();
        while let Some(copy) = CopyId::lowest(live) {
            live &= !copy.bit();
            let told = self.supers.get(&copy.bit()).expect("a good copy");
            assert_eq!(told.members, superblock.members, "{copy:?} was not told");
            assert_eq!(told.epoch, superblock.epoch, "{copy:?} was not told");
        }
        let member = superblock.member(block.member).expect("a member");
        assert!(block.block < member.geometry.table_blocks());
        let holds = |replica: &u8| {
            let area = member.areas[usize::from(*replica)];
            let own = area.table + u64::from(block.block) * BLOCK_SECTORS;
            let reserve = 0..u64::from(RESERVE_BLOCKS) * BLOCK_SECTORS;
            let index = place.sector.wrapping_sub(area.reserve);
            area.host == place.member && (place.sector == own || reserve.contains(&index))
        };
        let replica = (0..REPLICAS).find(holds).expect("a place of that table");
        let now = superblock.table_place(replica, block);
        let area = member.areas[usize::from(replica)];
        let index = place.sector.wrapping_sub(area.reserve) / BLOCK_SECTORS;
        if now != Some(place) && index < RESERVE_BLOCKS.into() {
            let reserve = member.reserve[usize::from(replica)]
                .iter()
                .nth(index as usize);
            assert_eq!(reserve, Some(Reserve::Free), "it holds another block");
        }
        replica
    }

    fn write_table(
        &mut self,
        op: &Op<'_>,
        at: At,
        place: Place,
        content: Content,
        progress: &mut Progress,
    ) {
        let superblock = op.metadata().superblock();
        let ((member, block), replica) = at;
        let id = BlockId { member, block };
        let table = superblock.member(member).expect("a member");
        let other = (at.0, replica ^ 1);
        let other_place = superblock.table_place(other.1, id);
        match content {
            Content::Copy { from } => {
                assert_eq!(Some(from), other_place);
                assert!(table.replica_lives(other.1), "a copy of what is void");
                return;
            }
            Content::Empty { sequence } => {
                assert!(block >= table.high_water, "entries are lost");
                self.next_sequence(sequence, superblock, progress);
            }
            Content::Current { sequence } => {
                assert!(block < table.high_water);
                self.next_sequence(sequence, superblock, progress);
                // One that is void and being made again has to get this anew.
                self.copied.remove(&at);
                self.copied.remove(&other);
                if table.replica_lives(other.1) {
                    let checked = progress.checked.get(&other);
                    let good = checked == other_place.map(|place| (place, true)).as_ref();
                    let new = progress.written.contains_key(&other);
                    let bad = progress.checked.get(&at).is_some_and(|(_, good)| !good)
                        || self.suspect.contains(&at);
                    assert!(good || new || bad, "the only good copy may be rewritten");
                } else {
                    let now = superblock.table_place(replica, id);
                    assert_ne!(now, Some(place), "the only copy is rewritten");
                }
            }
        }
        assert!(table.replica_lives(replica), "it is void");
        progress.issued.insert(at.0);
    }

    fn next_sequence(&mut self, sequence: u64, superblock: &Superblock, progress: &Progress) {
        let epoch = sequence_epoch(sequence);
        assert!(epoch > self.epoch, "an epoch of an earlier activation");
        assert!(epoch <= superblock.epoch);
        assert!(sequence > progress.before && sequence >= self.sequence);
        self.sequence = sequence;
    }

    /// What changed in memory was done before.
    fn changed(&mut self, before: &Superblock, after: &Superblock, progress: &Progress) {
        let all = before.members.iter().zip(&after.members).zip(0u8..);
        for ((before, after), index) in all {
            let (Some(before), Some(after)) = (before, after) else {
                assert!(before.is_none() && after.is_none());
                continue;
            };
            for replica in (0..REPLICAS).filter(|replica| after.replica_lives(*replica)) {
                let host = after.areas[usize::from(replica)].host;
                let durable = !self.unflushed.contains(&host);
                for block in before.high_water..after.high_water {
                    let at = ((index, block), replica);
                    assert!(durable && progress.written.contains_key(&at));
                }
                if before.replica_lives(replica) {
                    continue;
                }
                assert!(durable, "it may not be there");
                for block in 0..after.high_water {
                    let at = ((index, block), replica);
                    assert!(self.copied.contains_key(&at), "{at:?} was not copied");
                }
            }
        }
    }

    fn done(&mut self, op: &Op<'_>, outcome: Outcome, blocks: &[BlockId], progress: &Progress) {
        match outcome {
            Outcome::Committed => {
                for id in blocks {
                    let member = op.metadata().superblock().member(id.member);
                    let lives = |r: &u8| member.is_some_and(|m| m.replica_lives(*r));
                    for replica in (0..REPLICAS).filter(lives) {
                        let at = (key(*id), replica);
                        assert!(progress.written.contains_key(&at), "{id} is not durable");
                    }
                }
                assert!(!op.metadata().is_stale());
            }
            Outcome::Failed { issued, why } => {
                check::says_something(&why);
                for (block, replica) in progress.written.keys() {
                    let other = (*block, replica ^ 1);
                    if !progress.written.contains_key(&other) {
                        self.suspect.insert(other);
                    }
                }
                let were = blocks.iter().any(|id| progress.issued.contains(&key(*id)));
                assert_eq!(issued, were);
            }
        }
    }
}

fn sequence_of(image: &Block) -> u64 {
    let bytes = image[88..96].try_into().expect("8 bytes");
    u64::from_le_bytes(bytes)
}

/// How steps end: mostly well.
struct Faults {
    good: u16,
}

impl Faults {
    fn next(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        if self.good > 0 {
            self.good -= 1;
            return Ok(());
        }
        let kind = input.u8();
        match kind >> 5 {
            0..4 => self.good = (kind & 0x7f).into(),
            4 | 5 => return Err(Fault::Media),
            6 => return Err(Fault::Gone),
            _ => return Err(Fault::Other),
        }
        Ok(())
    }
}
