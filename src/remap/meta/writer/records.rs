// SPDX-License-Identifier: GPL-2.0

//! What the superblock says besides the set: which ranges of main are not read, and what users have switched.
//!
//! Entries and records that older modules do not know are announced by a feature first ([`Writer::announce`]). The order,
//! and what a crash after each step finds:
//!
//! 1. All superblocks say that there may be such (M11). Nothing else has changed, and an older module refuses the set,
//!    or only reads it.
//! 2. All superblocks have the record. It counts if one of them has it, as the newest is the truth.
//! 3. The record is shown to bios, and the user is told.
//!
//! If 2 fails, what bios see stays, and so does what the next superblock says.

use kernel::prelude::*;

use crate::{
    logic::{
        avoid::Avoided,
        format::{
            RO_COMPAT_AVOIDED,
            RO_COMPAT_SWITCHES, //
        },
        message::{
            Blocks,
            Denial, //
        },
        presence::SMALL, //
    },
    remap::{
        meta::io::SpareIo,
        path::{
            avoided::mark_avoided,
            state::PathState, //
        }, //
    }, //
};

use super::{
    Writer,
    PLACES_MAX, //
};

impl Writer {
    /// Sees to it that all superblocks say that there may be entries or records of some features (M11).
    pub(in crate::remap) fn announce(
        &mut self,
        io: &mut SpareIo<'_>,
        (incompat, ro_compat): (u64, u64),
    ) -> Result {
        self.check_open(io.user)?;
        match self.metadata.announce(incompat, ro_compat) {
            true => self.sync(io),
            false => Ok(()),
        }
    }

    /// Has main not read any more in a range (E4), from now on and in later activations.
    pub(in crate::remap) fn avoid(
        &mut self,
        path: &PathState,
        io: &mut SpareIo<'_>,
        blocks: Blocks,
    ) -> Result<(), Denial<'static>> {
        self.announce(io, (0, RO_COMPAT_AVOIDED))?;
        // If there are too many, this is not the first one, and nothing has changed.
        let added = self.metadata.change_avoided(|all| all.add(blocks));
        added.map_err(|_| Denial::TooManyAvoided)?;
        Ok(self.record_avoided(path, io)?)
    }

    /// Lets main be read again in a range. Returns how many of its blocks were not.
    pub(in crate::remap) fn end_avoiding(
        &mut self,
        path: &PathState,
        io: &mut SpareIo<'_>,
        blocks: Blocks,
    ) -> Result<u64, Denial<'static>> {
        self.check_open(io.user)?;
        let removed = self.metadata.change_avoided(|all| all.remove(blocks));
        let removed = removed.map_err(|_| Denial::TooManyAvoided)?;
        self.record_avoided(path, io)?;
        let step = (SMALL >> path.size.shift) as usize;
        let end = blocks.first.saturating_add(blocks.count);
        // It is not looked at many places, as the lock is held. What is left costs I/O there a look-up.
        for block in (blocks.first..end).step_by(step).take(PLACES_MAX as usize) {
            Self::forget_presence(path, block);
        }
        Self::forget_presence(path, end.saturating_sub(1));
        Ok(removed)
    }

    /// Makes durable what is to be avoided, and then visible.
    fn record_avoided(&mut self, path: &PathState, io: &mut SpareIo<'_>) -> Result {
        if let Err(error) = self.sync(io) {
            let _ = self.metadata.change_avoided(|all| {
                path.avoided.with(|before| all.load(before));
                Ok(())
            });
            return Err(error);
        }
        let avoided: &Avoided = &self.metadata.superblock().avoided;
        mark_avoided(avoided, path.presence.get(), path.size.shift);
        path.avoided.publish(avoided);
        io.life.set_avoiding(!avoided.is_empty());
        Ok(())
    }

    /// Records whether blocks that fail are to be moved when the device is used again.
    pub(in crate::remap) fn record_auto_remap(&mut self, io: &mut SpareIo<'_>, on: bool) -> Result {
        let recorded = self.metadata.superblock().switches.auto_remap;
        if recorded == Some(on) && !self.metadata.is_stale() {
            return Ok(());
        }
        self.announce(io, (0, RO_COMPAT_SWITCHES))?;
        // If that fails, it gets there with the next superblock: it is what holds.
        self.metadata.switches_mut().auto_remap = Some(on);
        self.sync(io)
    }
}
