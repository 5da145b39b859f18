// SPDX-License-Identifier: GPL-2.0

//! What users wait for: whoever has changed the metadata asks here whether an event is due, and
//! raises it (see [`Teller`](crate::remap::repair::crew::Teller)). What nobody asked for is told with the
//! next.

use crate::{
    logic::{
        event::Event,
        format::Superblock, //
    },
    remap::user::state::UserState, //
};

use super::Writer;

/// How the copies of the metadata are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Copies {
    /// Blocks that were repaired or moved so far.
    repairs: u64,
    /// How many replicas and superblock copies are void.
    void: u32,
    /// Members that are missing; a bit each.
    missing: u8,
    /// Whether it could not be written last.
    stuck: bool,
}

impl Copies {
    pub(super) fn of(superblock: &Superblock, stuck: bool) -> Self {
        Self {
            repairs: superblock.statistics.metadata_repairs,
            void: superblock.members().fold(0, |void, (_, member)| {
                void + member.void_replicas.count_ones() + member.void_supers.count_ones()
            }),
            missing: superblock.members().fold(0, |mask, (index, member)| {
                mask | u8::from(member.missing) << index.min(7)
            }),
            stuck,
        }
    }
}

impl Copies {
    /// What users are told. Whoever finds that a member is missing says so at once.
    fn event(&self, before: &Self) -> Option<Event> {
        let whole = |copies: &Self| copies.void == 0 && !copies.stuck;
        if self.stuck && !before.stuck {
            Some(Event::MetadataFailed)
        } else if self.void > before.void {
            Some(Event::Degraded)
        } else if whole(self) && !whole(before) {
            Some(Event::Restored)
        } else if self.repairs != before.repairs || self.void != before.void || before.stuck {
            Some(Event::Repaired)
        } else {
            None
        }
    }
}

impl Writer {
    /// Whether users have to be told of slots that run low, or of copies of the metadata.
    pub(in crate::remap) fn has_news(&mut self, user: &UserState, low_water: u32) -> bool {
        let short = self.crosses_low_water(low_water);
        if let Some(event) = short {
            user.announce(event);
        }
        short.is_some() | self.copies_changed(user)
    }

    /// Whether users have to be told that copies of the metadata were lost, repaired or moved, that the
    /// metadata can't be written, or can be again (P4).
    pub(in crate::remap) fn copies_changed(&mut self, user: &UserState) -> bool {
        let stuck = user.counters.stuck.get() != 0 || self.metadata.is_foreign();
        let now = Copies::of(self.metadata.superblock(), stuck);
        let before = core::mem::replace(&mut self.told_copies, now);
        match now.event(&before) {
            // The log has said why.
            Some(Event::MetadataFailed) => user.news.note(Event::MetadataFailed, 1, None),
            Some(event) => user.announce(event),
            None => (),
        }
        now != before
    }
}
