// SPDX-License-Identifier: GPL-2.0

//! Which members the set goes on without, as bios and the worker see it.
//!
//! It is one word, a [`Shut`], which the writer's lock is needed to change.

use kernel::sync::atomic::Full;

use crate::{
    abstractions::{
        dm,
        sync, //
    },
    logic::{
        pool::state::Shut,
        slot::SlotState, //
    },
    remap::{
        path::map::Map,
        setup::spares::Spares, //
    }, //
};

use super::life::{
    Direction,
    Life, //
};

impl Life {
    /// Whether the slots of a member must not be read, or written.
    #[inline(always)]
    fn is_shut(&self, member: u8, write: bool) -> bool {
        self.shut().has(member, write)
    }

    /// Which members' slots must not be read, or written.
    #[inline(always)]
    pub(in crate::remap) fn shut(&self) -> Shut {
        Shut::from_word(sync::load_relaxed(&self.shut))
    }

    /// Sets that, and orders what follows behind it. Returns what it was. For who has the writer's lock.
    pub(in crate::remap) fn set_shut(&self, shut: Shut) -> Shut {
        Shut::from_word(self.shut.xchg(shut.to_word(), Full))
    }

    /// Whether the set goes on without a member.
    #[inline]
    pub(in crate::remap) fn is_lost(&self, member: u8) -> bool {
        self.is_shut(member, true)
    }

    /// A write to the spare of a member has succeeded: its cache may hold it from here on. False if the set
    /// goes on without that one, and so what is written there counts for nothing.
    pub(in crate::remap) fn note_written(&self, member: u8) -> bool {
        if self.is_lost(member) {
            return false;
        }
        self.spare_written(member);
        // Of this and `leave_lost`, one sees what the other has done: there the cache is looked at last.
        !self.is_lost(member)
    }

    /// Whether a write may be moved to some spare: one that is not lost and works, as far as anybody knows, or
    /// is to be asked again.
    pub(in crate::remap) fn admits_to_spares(&self, spares: &Spares) -> bool {
        self.usable(spares)
            .any(|member| self.admits(Direction::SpareWrite(member)))
    }

    /// Whether all spares that are not lost fail to be written.
    pub(in crate::remap) fn all_spares_fail(&self, spares: &Spares) -> bool {
        self.usable(spares)
            .all(|member| self.is_open(Direction::SpareWrite(member)))
    }

    fn usable<'a>(&'a self, spares: &'a Spares) -> impl Iterator<Item = u8> + 'a {
        let members = spares.iter().map(|(member, _)| member);
        members.filter(|member| !self.is_lost(*member))
    }

    /// Whether a slot serves a block of main, and its content is lost until that is written.
    pub(in crate::remap) fn is_content_lost(&self, map: &Map, slot: u32) -> bool {
        let word = map.word(slot);
        if word.state() == SlotState::Lost {
            return word.claims(word.main_block());
        }
        let serves = word.state() == SlotState::Valid && word.claims(word.main_block());
        let away = || {
            let place = map.extents().place(slot);
            place.is_some_and(|place| self.is_lost(place.member))
        };
        serves && (word.is_failing() || away())
    }

    /// See [`PathState::locate`](crate::remap::path::state::PathState::locate): the same for who has the map already.
    #[inline(always)]
    pub(in crate::remap) fn locate<'a>(
        &self,
        map: &Map,
        spares: &'a Spares,
        slot: u32,
        write: bool,
    ) -> Option<(u8, &'a dm::Device, u64)> {
        let place = map.extents().place(slot)?;
        if self.is_shut(place.member, write) {
            return None;
        }
        let (device, sector) = spares.locate(place)?;
        Some((place.member, device, sector))
    }
}
