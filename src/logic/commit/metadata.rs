// SPDX-License-Identifier: GPL-2.0

//! What an activation knows about the spare's metadata, and what can be done with it.

use super::super::format::reserve::Reserve;
use super::super::format::sequence;
use super::super::format::Block;
use super::super::format::Statistics;
use super::super::format::Superblock;
use super::super::load::Chosen;
use super::super::text::MainId;
use super::op::Job;
use super::step::Failure;
use super::Op;
use super::ALL_REPLICAS;
use super::ALL_SUPERS;
use super::COMMIT_BLOCKS_MAX;
use super::EXTEND_BLOCKS_MAX;

/// A block that a failed commit left in two states.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    pub(super) block: u32,
    /// The replica that is to be written first, the other one having a good copy.
    pub(super) suspect: u8,
}

/// What an activation knows about the spare's metadata, and must know to change it.
#[derive(Clone, Debug)]
pub struct Metadata {
    pub(super) superblock: Superblock,
    /// The last counter given out in this activation.
    pub(super) counter: u64,
    /// Whether the superblock's epoch is this activation's own.
    pub(super) raised: bool,
    /// Whether some live copy does not have the superblock as it is here. Nothing else is written
    /// before they do.
    pub(super) stale: bool,
    /// Void superblock copies that this activation has not tried to write; a bit each.
    pub(super) revive: u8,
    /// Superblock copies that loading found to be damaged or behind; a bit each.
    pub(super) damaged: u8,
    pub(super) unsettled: [Unsettled; COMMIT_BLOCKS_MAX],
    pub(super) unsettled_count: usize,
}

impl Metadata {
    /// Starts with what loading found: the superblock, and the number of table blocks in use,
    /// which is the high-water mark or more (M8).
    pub fn open(chosen: Chosen, table_blocks: u32) -> Self {
        let mut metadata = Self::create(chosen.superblock);
        metadata.stale = chosen.rewrite != 0;
        metadata.revive = metadata.superblock.void_supers;
        metadata.damaged = chosen.rewrite;
        if table_blocks > metadata.superblock.high_water {
            metadata.superblock.high_water = table_blocks;
            metadata.stale = true;
        }
        metadata
    }

    /// Starts with a new superblock. The spare is formatted when [`Metadata::sync`] succeeded, and
    /// can be used after a first [`Metadata::extend`].
    pub fn create(superblock: Superblock) -> Self {
        Metadata {
            superblock,
            counter: 0,
            raised: false,
            stale: true,
            revive: 0,
            damaged: 0,
            unsettled: [Unsettled {
                block: 0,
                suspect: 0,
            }; COMMIT_BLOCKS_MAX],
            unsettled_count: 0,
        }
    }

    /// The superblock as it is in memory.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The statistics; what is changed gets to the spare whenever the superblock is written.
    pub fn statistics_mut(&mut self) -> &mut Statistics {
        &mut self.superblock.statistics
    }

    /// Whether the superblock should be written soon ([`Metadata::sync`]): some live copy is older
    /// than others.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether a commit failed in between and another one is needed to settle it
    /// ([`Metadata::commit`], of no blocks if there is nothing else to commit).
    pub fn is_unsettled(&self) -> bool {
        self.unsettled_count != 0
    }

    /// Says how large main is, if that is larger than ever before, and what the user calls it, if
    /// that is new. Entries may name the additional blocks after the next [`Metadata::sync`].
    pub fn set_main(&mut self, sectors: u64, id: Option<&MainId>) {
        if sectors > self.superblock.main_sectors {
            self.superblock.main_sectors = sectors;
            self.stale = true;
        }
        if let Some(id) = id.filter(|id| **id != self.superblock.main_id) {
            self.superblock.main_id = *id;
            self.stale = true;
        }
    }

    /// Says whether the activation is ended in order. Gets to the spare with the next
    /// [`Metadata::sync`]; the first commit takes it back, as it begins a new epoch.
    pub fn set_clean(&mut self, clean: bool) {
        self.superblock.clean = clean;
        self.raised &= !clean;
    }

    /// Whether this activation wrote anything that a clean end should be recorded for.
    pub fn is_touched(&self) -> bool {
        self.raised
    }

    /// A generation for entries that the next commit adds or changes: larger than all before (M5).
    /// None if the counters are at their end.
    pub fn next_generation(&mut self) -> Option<u64> {
        let epoch = if self.raised {
            self.superblock.epoch
        } else {
            self.superblock.epoch.checked_add(1)?
        };
        self.counter = self.counter.checked_add(1)?;
        sequence(epoch, self.counter)
    }

    /// Makes superblock copy `copy` for [`Step::WriteSuper`](super::Step::WriteSuper).
    pub fn encode_superblock(&self, image: &mut Block, copy: u8) {
        self.superblock.encode(image, copy);
    }

    /// Makes the entries of `blocks` durable as they are in memory. First settles what an earlier
    /// commit left behind.
    pub fn commit<'a>(&'a mut self, blocks: &'a [u32]) -> Op<'a> {
        let statistics = &mut self.superblock.statistics;
        statistics.saves = statistics.saves.saturating_add(1);
        let legal = blocks.len() <= COMMIT_BLOCKS_MAX
            && blocks.iter().all(|b| *b < self.superblock.high_water);
        let op = Op::new(self, Job::Commit(blocks));
        if legal {
            op
        } else {
            op.refused(Failure::Blocks)
        }
    }

    /// Initialises the next `blocks` blocks of the slot table, or what is left of it, and raises
    /// the high-water mark over them.
    pub fn extend(&mut self, blocks: u32) -> Op<'_> {
        let mark = self.superblock.high_water;
        let to = mark
            .saturating_add(blocks.min(EXTEND_BLOCKS_MAX))
            .min(self.superblock.geometry.table_blocks());
        let job = Job::Extend { from: mark, to };
        if to > mark {
            Op::new(self, job)
        } else {
            Op::new(self, job).refused(Failure::Blocks)
        }
    }

    /// Writes the superblock to every live copy.
    pub fn sync(&mut self) -> Op<'_> {
        self.stale = true;
        Op::new(self, Job::Sync)
    }

    /// Writes the truth about `block`, as loading found it, to `replica`, which has something else
    /// or nothing (M3). Does nothing if that replica became void meanwhile. If the replica would
    /// have to become void but has the only good copy of another block, this one is left to the
    /// first commit ([`Metadata::is_unsettled`]).
    pub fn rewrite(&mut self, replica: u8, block: u32) -> Op<'_> {
        let legal = block < self.superblock.geometry.table_blocks();
        let op = Op::new(self, Job::Rewrite { replica, block });
        if legal {
            op
        } else {
            op.refused(Failure::Blocks)
        }
    }

    /// Begins a new epoch: of this activation, or because something is written off.
    pub(super) fn raise_epoch(&mut self) -> Result<(), Failure> {
        let epoch = self.superblock.epoch.saturating_add(1);
        if sequence(epoch, 0).is_none() {
            return Err(Failure::Exhausted);
        }
        self.superblock.epoch = epoch;
        self.superblock.clean = false;
        self.raised = true;
        self.stale = true;
        Ok(())
    }

    pub(super) fn next_sequence(&mut self) -> Result<u64, Failure> {
        self.counter = self.counter.saturating_add(1);
        sequence(self.superblock.epoch, self.counter).ok_or(Failure::Exhausted)
    }

    pub(super) fn count_repair(&mut self) {
        let statistics = &mut self.superblock.statistics;
        statistics.metadata_repairs = statistics.metadata_repairs.saturating_add(1);
    }

    pub(super) fn live_replicas(&self) -> u8 {
        ALL_REPLICAS & !self.superblock.void_replicas
    }

    pub(super) fn live_supers(&self) -> u8 {
        ALL_SUPERS & !self.superblock.void_supers
    }

    pub(super) fn set_reserve(&mut self, replica: u8, index: u8, value: Reserve) {
        if let Some(reserves) = self.superblock.reserve.get_mut(usize::from(replica)) {
            self.stale |= reserves.set(index, value);
        }
    }

    pub(super) fn free_reserve(&self, replica: u8) -> Option<u8> {
        self.superblock
            .reserve
            .get(usize::from(replica))?
            .first_free()
    }

    /// Remembers one more block that is not the same in both replicas. If there is no room, it is
    /// found again when it matters.
    pub(super) fn leave_unsettled(&mut self, unsettled: Unsettled) {
        if self.suspect(unsettled.block).is_some() {
            return;
        }
        if let Some(place) = self.unsettled.get_mut(self.unsettled_count) {
            *place = unsettled;
            self.unsettled_count += 1;
        }
    }

    pub(super) fn suspect(&self, block: u32) -> Option<u8> {
        self.unsettled
            .iter()
            .take(self.unsettled_count)
            .find(|u| u.block == block)
            .map(|u| u.suspect)
    }
}
