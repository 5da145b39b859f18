// SPDX-License-Identifier: GPL-2.0

//! Changing the map, in memory and on the spare, so that no crash shows a state that never was.
//!
//! Every change goes the same way, which is P3's order:
//!
//! 1. The data is on the slots and flushed. The caller has seen to that.
//! 2. *Stage* the changes of the slots' entries. Nobody sees them yet.
//! 3. *Commit*: the table blocks with these entries go to the spare, one replica after the other.
//! 4. *Publish* in memory: presence bits, the slots' words, buckets.
//! 5. The caller acknowledges the bio.
//!
//! A crash before 3 leaves the old state. A crash in 3 leaves old or new, and loading makes both
//! replicas agree before anybody reads; the bio was not acknowledged. After 3 there is only the new
//! state.
//!
//! A commit that fails before its first write was issued is forgotten, and the slots are given back.
//! One that fails later is rolled forward (M6): the entries are published as doubtful, so that reads
//! and writes of their blocks go to the worker, and fail there until a later commit of the same
//! table blocks succeeds ([`Writer::settle`]). A removal in doubt is rolled back instead: main has
//! the same content, so both are true, and what is served stays what it was.
//!
//! A slot that is replaced is retired by a commit of its own, after the one that added its
//! replacement (M5): with one replica torn, either the old slot still claims the block, and loses
//! against the newer claim, or it does not.

pub(in crate::remap) mod growth;
mod losses;
mod members;
mod news;
pub(in crate::remap) mod recheck;
mod records;
mod slots;

use core::ops::Range;

use kernel::prelude::*;

use crate::{
    abstractions::trace,
    logic::{
        commit::{
            Failure,
            Metadata,
            Outcome,
            COMMIT_BLOCKS_MAX, //
        },
        event::Event,
        format::{
            table_block::{
                self,
                ENTRIES, //
            },
            BlockId,
            Statistics, //
        },
        pool::{
            Kind,
            Pools,
            SlotRun, //
        },
        presence::{
            Presence,
            SMALL, //
        },
        reach,
        repair::BATCH_BLOCKS,
        slot::{
            Entry,
            Origin,
            SlotState,
            SlotWord, //
        },
        table::Counts,
        text::Uuid, //
    },
    remap::{
        path::{
            map::Map,
            state::PathState, //
        },
        repair::state::RepairState,
        setup::load::Rewrite,
        user::{
            names::Show,
            state::UserState, //
        }, //
    }, //
};

use super::io::SpareIo;
pub(in crate::remap) use members::Restored;
use news::Copies;
use slots::Shortage;

/// The most changes that are staged for one commit.
pub(in crate::remap) const STAGED_MAX: usize = 1024;

/// How many slots are looked at while others wait for the lock.
const LOOKED_AT_MAX: u32 = 1 << 14;

/// Of how many MiB the presence bits are taken back at a time.
const PLACES_MAX: u32 = 64;

/// What becomes of the buckets when a staged change is published.
#[derive(Clone, Copy)]
pub(in crate::remap) enum Publish {
    /// The slot gets a bucket.
    Insert,
    /// It takes over the bucket of the slot that served its block before.
    Replace(u32),
    /// Nothing: the slot has its bucket already, or must not have one.
    Keep,
    /// The slot loses its bucket, which it had for this main block, and is held until
    /// [`Writer::give_back`].
    Remove(u64),
}

/// A change that is not on the spare yet: of one slot, or of several that follow each other, for blocks that do, too,
/// and that all get a slot.
#[derive(Clone, Copy)]
struct Staged {
    slot: u32,
    count: u32,
    /// That of the first one.
    entry: Entry,
    publish: Publish,
}

impl Staged {
    /// The slots.
    fn slots(&self) -> Range<u32> {
        self.slot..self.slot.saturating_add(self.count)
    }

    /// The new entry of a slot, if this changes it.
    fn entry_of(&self, slot: u32) -> Option<Entry> {
        let index = slot.checked_sub(self.slot)?;
        let entry = Entry {
            word: match index {
                0 => self.entry.word,
                index => self.entry.word.behind(index),
            },
            ..self.entry
        };
        (index < self.count).then_some(entry)
    }

    /// The changes of each slot.
    fn each(self) -> impl Iterator<Item = Staged> {
        self.slots().filter_map(move |slot| {
            Some(Staged {
                slot,
                count: 1,
                entry: self.entry_of(slot)?,
                ..self
            })
        })
    }
}

/// What only one at a time may do, and what is needed for it.
pub(in crate::remap) struct Writer {
    /// Whether a table with this state is resumed.
    pub(in crate::remap) active: bool,
    pub(in crate::remap) metadata: KBox<Metadata>,
    pools: Pools,
    counts: Counts,
    /// The generation of each slot's entry.
    generations: KVVec<u64>,
    staged: KVec<Staged>,
    /// How many slots these change.
    staged_slots: u32,
    /// Slots that were set aside and are freed for others.
    stolen: KVec<u32>,
    /// How short of slots the spare was when users were told last.
    told: Shortage,
    /// How its metadata was then.
    told_copies: Copies,
    /// Whether slots that were replaced may still claim their blocks on the spare, and from which number on they are
    /// looked for.
    older_claims: Option<u32>,
    /// Whether this activation has not restored redundancy yet.
    unrestored: bool,
    /// Whether that has failed lately.
    restoring_failed: bool,
    /// Which activation this is.
    activation: u64,
    /// Replicas that cannot be made again where they are; a bit each.
    failed_places: u16,
    /// Replicas that cannot be made again anywhere, as the other one cannot be read; a bit each.
    hopeless: u16,
    /// How many blocks were written anew in this activation for replicas that were made again from them.
    mends: u8,
    /// Whether what is made again failed, and its source is to be looked at.
    is_source_bad: bool,
    /// How far a replica was looked through: whose table, which, and the next block.
    looked: Option<(u8, u8, u32)>,
    /// How many metadata blocks had been repaired when redundancy was restored last.
    restored_at: u64,
    /// The sequence of the last superblock that was written to its end.
    durable: u64,
    /// How many replicas were given another place in this activation.
    moves: u8,
    /// Members that are dead, and that new ones take over from; a bit each.
    inherited: u8,
    /// Members that answered when new ones were to take over from them; a bit each.
    answered: u8,
    /// A dead member, and from which slot on its blocks are not recorded as lost.
    lost_from: Option<(u8, u32)>,
    /// Whether such blocks are recorded, which nothing else is meanwhile.
    recording: bool,
}

impl Writer {
    /// Starts with what was loaded, which is all that `map` holds.
    pub(in crate::remap) fn new(
        metadata: KBox<Metadata>,
        map: &Map,
        counts: Counts,
        generations: KVVec<u64>,
    ) -> Result<Self> {
        let told_copies = Copies::of(metadata.superblock(), false);
        let durable = metadata.superblock().sequence;
        Ok(Self {
            active: false,
            pools: Pools::new(&map.slots()),
            metadata,
            counts,
            generations,
            staged: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            staged_slots: 0,
            stolen: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            told: Shortage::None,
            told_copies,
            older_claims: None,
            unrestored: false,
            restoring_failed: false,
            activation: 0,
            failed_places: 0,
            hopeless: 0,
            mends: 0,
            is_source_bad: false,
            looked: None,
            restored_at: u64::MAX,
            durable,
            moves: 0,
            inherited: 0,
            answered: 0,
            lost_from: None,
            recording: false,
        })
    }

    /// Sees to it that no slot claims a block that another one serves, on the spare either (M5). One
    /// that was replaced still does if it could not be retired then; once the newer claim is
    /// removed, loading would take it for the truth. Nothing else may be staged.
    ///
    /// Nobody knows which slots these are, so all of them may be looked at: some at a time, as others wait for the
    /// lock (P16). Returns whether that was not all yet.
    pub(in crate::remap) fn retire_older_claims(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
    ) -> Result<bool> {
        if self.metadata.is_unsettled() {
            self.commit_blocks(path, repair, io, &[])?;
        }
        let Some(from) = self.older_claims else {
            return Ok(false);
        };
        // A retirement in doubt may not have got anywhere: write it again.
        if self.commit_again(path, repair, io, |word| !word.is_claim())? {
            return Ok(true);
        }
        let end = path.with_map(Map::end);
        let until = from.saturating_add(LOOKED_AT_MAX).min(end);
        let (slots, count) = self.first_slots(path, Kind::Claim, from..until, |map, slot, word| {
            let serves = map.view().lookup(word.main_block());
            serves.is_none_or(|(other, _)| other != slot)
        });
        if count == 0 {
            self.older_claims = (until < end).then_some(until);
            return Ok(until < end);
        }
        for slot in slots.iter().take(count) {
            self.stage(
                io.user,
                path,
                *slot,
                self.retired(path, *slot),
                Publish::Keep,
            )?;
        }
        // There may be more of them in the same table blocks.
        self.commit(path, repair, io).map(|()| true)
    }

    /// Commits the first table blocks with slots in doubt that `wanted` picks once more. Returns whether there were
    /// any.
    fn commit_again(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        wanted: impl Fn(SlotWord) -> bool,
    ) -> Result<bool> {
        let all = 0..path.with_map(Map::end);
        let (slots, count) = self.first_slots(path, Kind::Doubt, all, |_, _, word| wanted(word));
        // Each block once, though many of the slots may be in it.
        let mut ids = [NO_BLOCK; COMMIT_BLOCKS_MAX];
        let mut used = 0usize;
        for slot in slots.iter().take(count) {
            let id = path
                .with_map(|map| map.extents().block(*slot))
                .ok_or(EINVAL)?;
            if ids.iter().take(used).all(|known| *known != id) {
                if let Some(place) = ids.get_mut(used) {
                    *place = id;
                    used = used.saturating_add(1);
                }
            }
        }
        if used != 0 {
            self.commit_blocks(path, repair, io, ids.get(..used).unwrap_or(&[]))?;
        }
        Ok(used != 0)
    }

    /// The first slots of a kind among these that `wanted` picks, one in each table block, and how many these are.
    fn first_slots(
        &self,
        path: &PathState,
        kind: Kind,
        numbers: Range<u32>,
        wanted: impl Fn(&Map, u32, SlotWord) -> bool,
    ) -> ([u32; COMMIT_BLOCKS_MAX], usize) {
        let mut slots = [0u32; COMMIT_BLOCKS_MAX];
        let mut count = 0usize;
        path.with_map(|map| {
            let mut block = None;
            for (slot, word) in map.slots().of_kind(kind, numbers) {
                if !wanted(map, slot, word) {
                    continue;
                }
                let own = map.extents().block(slot);
                if own == block {
                    continue;
                }
                block = own;
                let Some(place) = slots.get_mut(count) else {
                    break;
                };
                *place = slot;
                count = count.saturating_add(1);
            }
        });
        (slots, count)
    }

    /// Changes what a slot is used for, in memory.
    pub(in crate::remap) fn set_word(
        &mut self,
        user: &UserState,
        path: &PathState,
        slot: u32,
        word: SlotWord,
    ) {
        let before = path.with_map(|map| map.slots().set(&mut self.pools, slot, word));
        if let Some(before) = before {
            user.counters.changed(before, word);
        }
    }

    /// What becomes of a slot that failed: of a spare that is lost, nobody knows.
    fn retired(&self, path: &PathState, slot: u32) -> SlotWord {
        let member = path.with_map(|map| map.extents().slot(slot));
        if member.is_some_and(|(member, _)| !self.pools.state(member).is_usable()) {
            SlotWord::FREE_HELD
        } else {
            SlotWord::BAD
        }
    }

    /// Whether slots that were replaced may still claim their blocks on the spare.
    pub(in crate::remap) fn has_older_claims(&self) -> bool {
        self.older_claims.is_some() || self.metadata.is_unsettled()
    }

    /// Remembers that a retirement failed.
    pub(in crate::remap) fn note_older_claims(&mut self) {
        self.older_claims = Some(0);
    }

    /// Stages that a slot failed, or is just not used any more, unless it is still what serves its
    /// block: then its replacement did not make it.
    pub(in crate::remap) fn stage_retirement(
        &mut self,
        user: &UserState,
        path: &PathState,
        slot: u32,
        good: bool,
    ) -> Result {
        let word = path.with_map(|map| map.word(slot));
        let serving = path.slot_of(word.main_block());
        match serving {
            Some((other, serving)) if word.is_claim() && (other == slot || serving.is_doubt()) => {
                self.note_older_claims();
                Ok(())
            }
            _ => {
                let word = match good {
                    // Bios may be on their way to it until the next activation.
                    true => SlotWord::FREE_HELD,
                    false => self.retired(path, slot),
                };
                self.stage(user, path, slot, word, Publish::Keep)
            }
        }
    }

    /// Stages a change of a slot's entry for the next [`Writer::commit`].
    pub(in crate::remap) fn stage(
        &mut self,
        user: &UserState,
        path: &PathState,
        slot: u32,
        word: SlotWord,
        publish: Publish,
    ) -> Result {
        let run = SlotRun {
            first: slot,
            count: 1,
        };
        self.stage_run(user, path, run, word, publish)
    }

    /// The same of slots of one member that follow each other; `word` is that of the first one. If these are several,
    /// all of them are for blocks that had none ([`Publish::Insert`]). They have one generation, as no two are for
    /// the same block.
    pub(in crate::remap) fn stage_run(
        &mut self,
        user: &UserState,
        path: &PathState,
        run: SlotRun,
        word: SlotWord,
        publish: Publish,
    ) -> Result {
        self.check_open(user)?;
        let staged = self.staged_slots.saturating_add(run.count);
        if matches!(publish, Publish::Insert | Publish::Replace(_)) {
            // It grows long before that.
            if !self.has_room(path, staged) {
                return Err(ENOMEM);
            }
        }
        let others = run.count.checked_sub(1).ok_or(EINVAL)?;
        // What the spare says main has must hold for every entry, or loading refuses them.
        let superblock = self.metadata.superblock();
        let last_block = word.main_block().saturating_add(u64::from(others));
        if word.is_claim() && last_block >= superblock.main_blocks() {
            return Err(ERANGE);
        }
        if path.slot_place(run.first).is_none() {
            return Err(ENOSPC);
        }
        let of_member = |slot| path.with_map(|map| map.extents().slot(slot));
        let (first, last) = (run.first, run.first.saturating_add(others));
        let end = of_member(first).map(|(member, slot)| (member, slot.saturating_add(others)));
        let fits = run.count <= BATCH_BLOCKS && of_member(last) == end;
        if !fits || others != 0 && !matches!(publish, Publish::Insert) {
            return Err(EINVAL);
        }
        let entry = Entry {
            word,
            generation: self.metadata.next_generation().ok_or(ENOSPC)?,
        };
        let change = Staged {
            slot: first,
            count: run.count,
            entry,
            publish,
        };
        self.staged
            .push_within_capacity(change)
            .map_err(|_| ENOSPC)?;
        self.staged_slots = staged;
        Ok(())
    }

    /// Fails with `EMEDIUMTYPE` if somebody else has written the metadata: slots may be theirs, too.
    pub(in crate::remap) fn check_own(&self) -> Result {
        match self.metadata.is_foreign() {
            true => Err(Error::from_errno(-Failure::Foreign.errno().number())),
            false => Ok(()),
        }
    }

    /// Fails with [`EBUSY`] if nothing is to change while new spares take over, and as [`Writer::check_own`] does.
    pub(in crate::remap) fn check_open(&self, user: &UserState) -> Result {
        self.check_own()?;
        if self.is_taking_over() && !self.recording {
            user.complain("new spares are taking over, and nothing is remapped until they have");
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Forgets all that was staged.
    pub(in crate::remap) fn forget_staged(&mut self, path: &PathState) {
        while let Some(change) = self.staged.pop() {
            change.slots().for_each(|slot| self.give_back(path, slot));
        }
        self.staged_slots = 0;
    }

    /// Makes all that was staged durable, then visible. After an error some of it may be, the rest
    /// is in doubt or forgotten.
    pub(in crate::remap) fn commit(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
    ) -> Result {
        let mut staged = core::mem::take(&mut self.staged);
        let mut result = Ok(());
        let mut rest = staged.as_slice();
        while !rest.is_empty() {
            let (blocks, count, end) = first_blocks(path, rest);
            let blocks = blocks.get(..count).unwrap_or(&[]);
            let (now, later) = rest.split_at(end.min(rest.len()));
            rest = later;
            // After one failure the others are forgotten without a try.
            let outcome = match result {
                Ok(()) => self.write_blocks(path, io, blocks, now),
                Err(_) => NOT_TRIED,
            };
            let fate = self.finish(path, repair, io, blocks, now, &outcome);
            result = result.and(fate);
        }
        staged.clear();
        self.staged = staged;
        self.staged_slots = 0;
        self.show_left(io.user);
        result
    }

    /// Tries to settle the doubt about a block of main: afterwards it is served as the map says.
    pub(in crate::remap) fn settle(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        main_block: u64,
    ) -> Result {
        match path.slot_of(main_block) {
            Some((slot, word)) if word.is_doubt() => {
                let block = path.with_map(|map| map.extents().block(slot));
                self.commit_blocks(path, repair, io, &[block.ok_or(EINVAL)?])
            }
            _ => Ok(()),
        }
    }

    /// Writes the superblock with the present statistics.
    pub(in crate::remap) fn sync(&mut self, io: &mut SpareIo<'_>) -> Result {
        let outcome = self.write_superblock(io);
        self.note(io, &outcome)
    }

    /// Writes the superblock if some copy is behind. With too few copies left, what is on the spare
    /// can still be served, if not changed.
    pub(in crate::remap) fn refresh(&mut self, io: &mut SpareIo<'_>) -> Result {
        if !self.metadata.is_stale() {
            return Ok(());
        }
        let outcome = self.write_superblock(io);
        let noted = self.note(io, &outcome);
        match outcome {
            Outcome::Failed {
                why: Failure::NoSuperblock,
                ..
            } => Ok(()),
            _ => noted,
        }
    }

    fn write_superblock(&mut self, io: &mut SpareIo<'_>) -> Outcome {
        *self.metadata.statistics_mut() = self.statistics(io.user);
        io.drive(self.metadata.sync(), |_, _, _| ())
    }

    /// What the next superblock is to count.
    fn statistics(&self, user: &UserState) -> Statistics {
        let counters = &user.counters;
        Statistics {
            auto_remaps: counters.auto_remaps.get(),
            manual_remaps: counters.manual_remaps.get(),
            write_errors: counters.write_errors.get(),
            read_errors: counters.read_errors.get(),
            spare_write_errors: counters.spare_write_errors.get(),
            spare_read_errors: counters.spare_read_errors.get(),
            ..self.metadata.superblock().statistics
        }
    }

    /// Whether something was counted since a superblock was written with the counters.
    pub(in crate::remap) fn counters_are_newer(&self, user: &UserState) -> bool {
        self.statistics(user) != self.metadata.superblock().statistics
    }

    /// Writes to a replica what another has, as loading decided (M3).
    #[inline(never)]
    pub(in crate::remap) fn equalise(&mut self, io: &mut SpareIo<'_>, rewrite: &Rewrite) -> Result {
        let op = self.metadata.rewrite(rewrite.replica, rewrite.block);
        let outcome = io.drive(op, |_, _, _| ());
        self.note(io, &outcome)
    }

    /// Commits table blocks as they are in memory.
    pub(in crate::remap) fn commit_blocks(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        blocks: &[BlockId],
    ) -> Result {
        let outcome = self.write_blocks(path, io, blocks, &[]);
        self.finish(path, repair, io, blocks, &[], &outcome)
    }

    /// Writes table blocks as they are in memory, with the changes in `staged`.
    fn write_blocks(
        &mut self,
        path: &PathState,
        io: &mut SpareIo<'_>,
        blocks: &[BlockId],
        staged: &[Staged],
    ) -> Outcome {
        let generations = &self.generations;
        // The layout of members does not change in a commit.
        let members = self.metadata.member_names();
        io.drive(self.metadata.commit(blocks), |image, id, sequence| {
            let name = members.get(usize::from(id.member));
            let name = name.copied().unwrap_or(Uuid::NIL);
            path.with_map(|map| {
                let entries = entries(map, generations, staged, id);
                table_block::encode(image, &name, id.block, sequence, entries);
            });
        })
    }

    /// Publishes, puts in doubt or forgets what was staged, as the commit of `blocks` ended.
    fn finish(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &SpareIo<'_>,
        blocks: &[BlockId],
        staged: &[Staged],
        outcome: &Outcome,
    ) -> Result {
        match outcome {
            Outcome::Failed { issued: false, .. } => {
                for slot in staged.iter().flat_map(Staged::slots) {
                    self.give_back(path, slot);
                }
            }
            Outcome::Failed { issued: true, .. } => {
                for change in staged.iter().flat_map(|change| change.each()) {
                    self.publish(path, repair, io, &change, true);
                }
            }
            Outcome::Committed => {
                for change in staged.iter().flat_map(|change| change.each()) {
                    self.publish(path, repair, io, &change, false);
                }
                self.clear_doubt(path, blocks);
                self.clear_presence(path, staged);
            }
        }
        self.note(io, outcome)
    }

    /// Shows readers a change of one slot that is durable, or in doubt.
    fn publish(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &SpareIo<'_>,
        change: &Staged,
        doubt: bool,
    ) {
        let (counts, pools) = (&mut self.counts, &mut self.pools);
        let Staged { slot, entry, .. } = *change;
        let main_block = entry.word.main_block();
        let replaced = match change.publish {
            Publish::Replace(old) => Some(old),
            _ => None,
        };
        let gets_slot = matches!(change.publish, Publish::Insert | Publish::Replace(_));
        let followed = !doubt && io.user.trace.follows_slots();
        let was = followed.then(|| path.with_map(|map| map.word(slot)));
        let noted = gets_slot && repair.notes.has(main_block);
        let mut twice = false;
        path.with_map(|map| {
            let (table, slots) = (map.view(), map.slots());
            let before = match noted {
                // It counts as pending so far.
                true => PENDING,
                false => map.word(slot),
            };
            let lost = || {
                let slots = [Some(slot), replaced].into_iter().flatten();
                slots
                    .filter(|slot| io.life.is_content_lost(map, *slot))
                    .count() as u64
            };
            let lost_before = lost();
            match change.publish {
                Publish::Keep => {
                    slots.set(pools, slot, entry.word.with_doubt(doubt));
                }
                Publish::Insert | Publish::Replace(_) => {
                    Presence::new(path.presence.get()).set(
                        path.size.sector_of(main_block),
                        u64::from(path.size.sectors(1)),
                    );
                    slots.set(pools, slot, entry.word.with_doubt(doubt));
                    let replaced = match change.publish {
                        Publish::Replace(old) => {
                            let before = map.word(old);
                            let replaced = table.replace(main_block, old, slot);
                            slots.changed(pools, old, before, map.word(old));
                            replaced
                        }
                        _ => false,
                    };
                    if !replaced && table.insert(counts, main_block, slot).is_err() {
                        // Room was reserved, and no other slot claims the block.
                        pr_err!("{}: block {main_block} has two slots\n", io.user.name);
                        twice = true;
                    }
                }
                Publish::Remove(_) if doubt => {
                    slots.set(pools, slot, map.word(slot).with_doubt(true));
                }
                Publish::Remove(main_block) => {
                    table.remove(counts, main_block, slot);
                    slots.set(pools, slot, entry.word.with_held(true));
                }
            }
            io.user.counters.changed(before, map.word(slot));
            io.user.counters.lost.add(lost());
            io.user.counters.lost.sub(lost_before);
        });
        if noted {
            repair.forget_note(io.life, main_block);
        }
        if let Some(was) = was {
            Self::trace(io.user, path, change, noted, was);
        }
        // Only one of them serves, and the other one must not be what loading finds.
        if twice {
            self.note_older_claims();
        }
        // A removal in doubt is committed again as what it was, with a new generation.
        if let Some(place) = self.generations.get_mut(slot as usize) {
            *place = entry.generation;
        }
    }

    /// Takes back the presence bits of blocks that main serves again. It is not looked at many places, as the lock
    /// is held.
    fn clear_presence(&self, path: &PathState, staged: &[Staged]) {
        let removed = staged.iter().filter_map(|change| match change.publish {
            Publish::Remove(main_block) => Some(main_block),
            _ => None,
        });
        let (mut last, mut places) = (None, 0u32);
        for main_block in removed {
            let place = path.size.sector_of(main_block) / u64::from(SMALL);
            if last == Some(place) {
                continue;
            }
            (last, places) = (Some(place), places.saturating_add(1));
            if places > PLACES_MAX {
                return;
            }
            Self::forget_presence(path, main_block);
        }
    }

    /// The same of one place.
    fn forget_presence(path: &PathState, main_block: u64) {
        let presence = Presence::new(path.presence.get());
        path.with_map(|map| {
            path.avoided.with(|avoided| {
                reach::forget(&presence, &map.view(), avoided, main_block, path.size.shift);
            });
        });
    }

    /// What is in these table blocks is durable everywhere now.
    fn clear_doubt(&mut self, path: &PathState, blocks: &[BlockId]) {
        let pools = &mut self.pools;
        path.with_map(|map| {
            for block in blocks {
                let first = block.block.saturating_mul(ENTRIES);
                let range = (first, first.saturating_add(ENTRIES));
                for slot in map.extents().numbers(block.member, range).flatten() {
                    let word = map.word(slot);
                    if word.is_doubt() {
                        map.slots().set(pools, slot, word.with_doubt(false));
                    }
                }
            }
        });
    }

    /// Counts and tells how an operation on the metadata ended.
    fn note(&mut self, io: &SpareIo<'_>, outcome: &Outcome) -> Result {
        let statistics = &self.metadata.superblock().statistics;
        io.user.counters.saves.set(statistics.saves);
        io.user.counters.saves_done.set(statistics.saves_done);
        io.user
            .counters
            .metadata_repairs
            .set(statistics.metadata_repairs);
        self.show_members(io.user, io.life);
        match outcome {
            Outcome::Committed => {
                // Where one that failed came before, this may be too high, and a spare is refused in doubt.
                self.durable = self.metadata.superblock().sequence;
                io.user.counters.stuck.set(0);
                io.user.trace.commit(self.durable, 0);
                Ok(())
            }
            Outcome::Failed { why, .. } => {
                io.user.counters.stuck.set(1);
                if io.user.log.allow() {
                    let what = Event::MetadataFailed.what();
                    pr_err!("{}: {what}: {}\n", io.user.name, Show(why));
                }
                let errno = -why.errno().number();
                let sequence = self.metadata.superblock().sequence;
                io.user.trace.commit(sequence, errno);
                Err(Error::from_errno(errno))
            }
        }
    }

    /// Says in tracepoints what a change of the map was, to whoever listens: a slot that had `before` has `after`.
    fn trace(user: &UserState, path: &PathState, change: &Staged, noted: bool, before: SlotWord) {
        let place = |slot| {
            let place = path.slot_place(slot);
            place.map(|place| (trace::Disk::of(Some(place.member)), place.sector))
        };
        let Some(own) = place(change.slot) else {
            return;
        };
        let word = change.entry.word;
        let (block, tracer) = (path.size.traced(word.main_block()), user.trace);
        let serves = word.state() == SlotState::Valid;
        match change.publish {
            // Of what is noted it was said then.
            Publish::Insert if word.state() == SlotState::Pending && !noted => {
                tracer.pending(block)
            }
            Publish::Keep if serves && before.is_set_aside() => {
                tracer.remap(block, own.0, own.1, word.origin() == Origin::Manual);
            }
            Publish::Insert if serves => {
                tracer.remap(block, own.0, own.1, word.origin() == Origin::Manual);
            }
            Publish::Replace(old) => {
                if let Some(from) = place(old) {
                    tracer.moved(block, from, own);
                }
            }
            Publish::Remove(main_block) if before.state() == SlotState::Valid => {
                let block = path.size.traced(main_block);
                tracer.moved(block, own, (trace::Disk::MAIN, block.sector));
            }
            _ => (),
        }
    }
}

/// The entries of a table block as they are in memory, with the changes in `staged`.
fn entries<'a>(
    map: &'a Map,
    generations: &'a [u64],
    staged: &'a [Staged],
    id: BlockId,
) -> impl Iterator<Item = Entry> + 'a {
    let first = id.block.saturating_mul(ENTRIES);
    let range = (first, first.saturating_add(ENTRIES));
    let slots = map.extents().numbers(id.member, range);
    slots.map(move |slot| {
        let Some(slot) = slot else {
            return Entry::UNUSED;
        };
        match staged.iter().find_map(|change| change.entry_of(slot)) {
            Some(entry) => entry,
            None => Entry {
                word: map.word(slot),
                generation: generations.get(slot as usize).copied().unwrap_or(0),
            },
        }
    })
}

/// A commit that is given up because one before it failed.
const NOT_TRIED: Outcome = Outcome::Failed {
    issued: false,
    why: Failure::Device,
};

/// Any block that is pending.
const PENDING: SlotWord = match SlotWord::new(0, SlotState::Pending, Origin::Auto) {
    Some(word) => word,
    None => SlotWord::BAD,
};

/// No block at all.
const NO_BLOCK: BlockId = BlockId {
    member: u8::MAX,
    block: 0,
};

/// The table blocks of the first changes in `staged`, as many as go into one commit, in order; their number;
/// and the number of these changes.
fn first_blocks(
    path: &PathState,
    staged: &[Staged],
) -> ([BlockId; COMMIT_BLOCKS_MAX], usize, usize) {
    let mut blocks = [NO_BLOCK; COMMIT_BLOCKS_MAX];
    let mut count = 0usize;
    for (index, change) in staged.iter().enumerate() {
        let of = |slot| path.with_map(|map| map.extents().block(slot));
        let ends = of(change.slot).zip(of(change.slots().end.saturating_sub(1)));
        // Of slots that nobody has, the commit fails.
        let ends = ends.filter(|(first, last)| first.member == last.member);
        let (first, last) = ends.unwrap_or((NO_BLOCK, NO_BLOCK));
        let own = || (first.block..=last.block).map(move |block| BlockId { block, ..first });
        let known = blocks.get(..count).unwrap_or(&[]);
        let more = own().filter(|block| !known.contains(block)).count();
        if count.saturating_add(more) > COMMIT_BLOCKS_MAX {
            return (blocks, count, index);
        }
        for block in own() {
            add_in_order(&mut blocks, &mut count, block);
        }
    }
    (blocks, count, staged.len())
}

/// Adds a block to those in a list, unless it is there, so that those that follow each other are written at a time.
fn add_in_order(blocks: &mut [BlockId; COMMIT_BLOCKS_MAX], count: &mut usize, block: BlockId) {
    let known = blocks.get(..*count).unwrap_or(&[]);
    if known.contains(&block) {
        return;
    }
    let mut at = *count;
    if let Some(place) = blocks.get_mut(at) {
        *place = block;
        *count = count.saturating_add(1);
    }
    let order = |id: &BlockId| (id.member, id.block);
    while let Some([before, own]) = blocks.get_mut(at.saturating_sub(1)..=at) {
        if order(before) < order(own) {
            break;
        }
        core::mem::swap(before, own);
        at = at.saturating_sub(1);
    }
}
