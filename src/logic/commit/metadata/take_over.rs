// SPDX-License-Identifier: GPL-2.0

//! New spares take over from dead ones (M9b).
//!
//! Nobody answers of the dead members, and the only replicas of their tables are gone with them. What they had is what
//! memory knows, and is recorded as lost on those that join. Until that is done the set is *unfinished*: of no use
//! after a crash, and the superblocks say so, so nothing that users are told may depend on it. Nothing was written to the
//! dead ones, which are what they were if the one that joins dies, too, and this is forgotten.

use super::{
    super::{
        super::format::{
            member_bit,
            Member,
            INCOMPAT_LOST,
            INCOMPAT_UNFINISHED,
            MEMBERS_MAX,
            SUPER_COPIES, //
        },
        Failure,
        ALL_REPLICAS, //
    },
    copies::Event,
    Metadata, //
};

impl Metadata {
    /// Has members that join take over from these, a bit each, which are all others. [`Metadata::end_take_over`] once
    /// what those had is recorded.
    pub fn begin_take_over(&mut self, dead: u8) -> Result<(), Failure> {
        let is_dead = |index: u8| dead & member_bit(index) != 0;
        let heirs = || self.superblock.members().filter(|(i, _)| !is_dead(*i));
        if heirs().next().is_none() || !heirs().all(|(_, heir)| heir.is_joining()) {
            return Err(Failure::Blocks);
        }
        for index in (0..MEMBERS_MAX).filter(|index| is_dead(*index)) {
            if let Some(member) = self.superblock.member_mut(index) {
                *member = Member {
                    missing: true,
                    void_supers: (1 << SUPER_COPIES) - 1,
                    void_replicas: ALL_REPLICAS,
                    ..Member::new(index, member.uuid, member.geometry)
                };
            }
            self.note_copies_on(index, Event::Lost);
        }
        self.present &= !dead;
        self.rebuild = None;
        self.unsettled.clear();
        self.superblock.incompat |= INCOMPAT_LOST | INCOMPAT_UNFINISHED;
        self.raise_set_epoch();
        self.raise_epoch()
    }

    /// Takes back what [`Metadata::begin_take_over`] did: all is as it is in `before`, but for the sequence, as the one
    /// that joined may have superblocks.
    pub fn undo_take_over(&mut self, before: &Metadata) {
        let sequence = self.superblock.sequence;
        self.copy_from(before);
        self.superblock.sequence = self.superblock.sequence.max(sequence);
    }

    /// Whether members that joined have to record what is lost with those that they take over from.
    pub fn is_unfinished(&self) -> bool {
        self.superblock.is_unfinished()
    }

    /// All is recorded, and the dead ones are no members any more. That holds after the next
    /// [`Metadata::sync`]; if it fails, [`Metadata::stay_unfinished`] takes this back.
    pub fn end_take_over(&mut self) {
        self.superblock.incompat &= !INCOMPAT_UNFINISHED;
        self.stale = true;
    }

    /// Not all superblocks say so: users are not to count on it.
    pub fn stay_unfinished(&mut self) {
        self.superblock.incompat |= INCOMPAT_UNFINISHED;
        self.stale = true;
    }

    /// Says that there may be entries of lost blocks. There may be when the next [`Metadata::sync`] has
    /// succeeded (M11).
    pub fn announce_lost(&mut self) {
        self.superblock.incompat |= INCOMPAT_LOST;
        self.stale = true;
    }
}
