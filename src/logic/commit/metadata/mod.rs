// SPDX-License-Identifier: GPL-2.0

//! What an activation knows about the metadata of a set, and must know to change it.
//!
//! The superblock, and what does not stand in it. Each part has its file, with what holds for it:
//!
//! | part                     | question that it answers                                              |
//! |--------------------------|-----------------------------------------------------------------------|
//! | [`copies`]               | What is known of each copy of the superblock?                         |
//! | [`epoch`]                | Which numbers do commits and entries get?                             |
//! | [`members`]              | Who is a member, and whose spare is there?                            |
//! | [`mod@records`]          | Which kinds of entries may there be, what is avoided or switched?     |
//! | [`take_over`]            | What while new spares take over from dead ones?                       |
//! | [`mod@replicas`]         | Where does each replica lie, which are void, which is made again?     |
//! | [`unsettled`]            | Which blocks are not the same in both replicas?                       |
//!
//! The superblock in memory may be newer than its copies: it is *stale* then. Nothing else is written before all live
//! copies have it ([`Pass`](super::supers::Pass)), but for the statistics and for whether the last activation was ended in order,
//! which get to the spares when the occasion arises.

pub(super) mod copies;
pub(super) mod epoch;
mod members;
mod records;
mod replicas;
mod take_over;
pub(super) mod unsettled;

pub use self::replicas::Rebuild;

use self::{
    copies::{
        Copies,
        Copy,
        Event, //
    },
    epoch::Epoch,
    unsettled::UnsettledBlocks, //
};
use super::super::{
    format::{
        member_bit,
        Block,
        CopyId,
        Statistics,
        Superblock,
        MEMBERS_MAX, //
    },
    load::Chosen,
    text::MainId, //
};

/// What an activation knows about the metadata of a set. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Metadata {
    pub(super) superblock: Superblock,
    /// Whether some live copy does not have the superblock as it is here. Nothing else is written
    /// before they do.
    pub(super) stale: bool,
    pub(super) copies: Copies,
    epoch: Epoch,
    /// The members whose spares are there; a bit each.
    present: u8,
    /// Whether a member is not there, and nothing on the others says so that it could not know of.
    pub(super) without: bool,
    pub(super) rebuild: Option<Rebuild>,
    pub(super) unsettled: UnsettledBlocks,
    /// Somebody else has written the metadata: nothing is written any more.
    pub(super) foreign: bool,
}

impl Metadata {
    /// What there is before a superblock was found or made.
    pub const EMPTY: Metadata = Metadata {
        superblock: Superblock::EMPTY,
        stale: false,
        copies: Copies::NONE,
        epoch: Epoch::NONE,
        present: 0,
        without: false,
        rebuild: None,
        unsettled: UnsettledBlocks::NONE,
        foreign: false,
    };

    /// Becomes what `other` is. In place, because it is large for the kernel's stack.
    pub fn copy_from(&mut self, other: &Self) {
        let Self {
            superblock,
            stale,
            copies,
            epoch,
            present,
            without,
            rebuild,
            unsettled,
            foreign,
        } = other;
        self.superblock.copy_from(superblock);
        self.stale = *stale;
        self.copies = *copies;
        self.epoch = *epoch;
        self.present = *present;
        self.without = *without;
        self.rebuild = *rebuild;
        self.unsettled = *unsettled;
        self.foreign = *foreign;
    }

    /// The place for the superblock that loading chooses, or that is made. Afterwards
    /// [`Metadata::open`] or [`Metadata::create`] is called.
    pub fn superblock_mut(&mut self) -> &mut Superblock {
        &mut self.superblock
    }

    /// Starts with what loading found: the superblock, how what is there differs from it, and for
    /// each member the number of table blocks in use, which is its high-water mark or more (M8).
    pub fn open(&mut self, chosen: &Chosen, table_blocks: &[u32; MEMBERS_MAX as usize]) {
        self.stale = chosen.rewrite != 0;
        for (member, blocks) in self.superblock.members.iter_mut().zip(table_blocks) {
            if let Some(member) = member.as_mut().filter(|m| *blocks > m.high_water) {
                member.high_water = *blocks;
                self.stale = true;
            }
        }
        self.without = chosen.absent(&self.superblock).is_some();
        self.know_copies(chosen.rewrite);
        for index in (0..MEMBERS_MAX).filter(|index| chosen.spare_of(*index).is_some()) {
            self.present |= member_bit(index);
            self.note_there(index);
        }
        // One that is void otherwise is no reason to write anything (M4).
        self.stale |= self.copies.which(|copy| copy == Copy::Joining) != 0;
    }

    /// Starts with a new superblock. The set is formatted when [`Metadata::sync`] succeeded, and
    /// can be used after a first [`Metadata::extend`].
    pub fn create(&mut self) {
        self.stale = true;
        for (index, _) in self.superblock.members() {
            self.present |= member_bit(index);
        }
        self.know_copies(0);
    }

    /// The superblock as it is in memory.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Makes a superblock copy for [`Step::WriteSuper`](super::Step::WriteSuper).
    pub fn encode_superblock(&self, image: &mut Block, copy: CopyId) {
        self.superblock.encode(image, copy);
    }

    /// Whether the superblock should be written soon ([`Metadata::sync`]): some live copy is older
    /// than others.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether a commit failed in between and another one is needed to settle it
    /// ([`Metadata::commit`], of no blocks if there is nothing else to commit).
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Remembers that somebody else has written the metadata: every operation fails from here on, as what is on the
    /// spares is not what is in memory, and whoever wrote it may go on.
    pub fn set_foreign(&mut self) {
        self.foreign = true;
    }

    /// Whether somebody else has written the metadata.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// A superblock copy was found to be damaged or older: it is written again with the next [`Metadata::sync`].
    pub fn note_damaged(&mut self, copy: CopyId) {
        self.note_copy(copy, Event::Found);
        self.stale = true;
    }

    /// Says how much of main is used, if that is more than ever before, and what the user calls it, if
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

    /// The statistics; what is changed gets to the spare whenever the superblock is written.
    pub fn statistics_mut(&mut self) -> &mut Statistics {
        &mut self.superblock.statistics
    }

    /// One more metadata block was repaired or moved.
    pub(super) fn count_repair(&mut self) {
        let statistics = &mut self.superblock.statistics;
        statistics.metadata_repairs = statistics.metadata_repairs.saturating_add(1);
    }
}
