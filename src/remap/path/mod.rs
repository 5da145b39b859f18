// SPDX-License-Identifier: GPL-2.0

//! A bio, there and back. Nothing on its way sleeps or takes a lock.
//!
//! | file      | what it does                                                                     |
//! |-----------|----------------------------------------------------------------------------------|
//! | `submit`  | `map`: where a bio goes                                                          |
//! | `end_io`  | what becomes of a bio that came back                                             |
//! | `state`   | what bios are looked up in, in one place                                         |
//! | `map`     | the remap table in memory, and where the spares' slots are                       |
//! | `cells`   | its arrays                                                                       |
//! | `avoided` | ranges of main that are not read                                                 |
//! | `size`    | counting in blocks                                                               |
//! | `gate`    | keeps writes out of a range whose blocks are moved                               |
//!
//! The way of a bio:
//!
//! ```text
//!   map: read, presence bit clear ---------------------------------> main; end_io sees errors only
//!   map: write, or presence bit set: register as reader (E5)
//!          write to a range behind the gate -------------> worker
//!          served by main --------------------------------------> main
//!          served by slots --------------------------------------> their spare
//!          served by slots of a spare that is not there ----------> worker, or an error
//!          pending: reads --------------------------------------> main
//!                   writes ------------------------------> worker
//!          lost: reads -----------------------------------------> an error
//!                writes ---------------------------------> worker
//!          in doubt -------------------------------------> worker
//!   end_io: unregister
//!          good, or an error that the medium did not make -------> done
//!          suspect --------------------------------------> worker
//! ```

pub(super) mod avoided;
pub(super) mod cells;
mod end_io;
pub(super) mod gate;
pub(super) mod map;
pub(super) mod size;
pub(super) mod state;
mod submit;

use crate::abstractions::dm;

use super::{
    health::life::Disk,
    DmRemap, //
};

/// What goes with every bio.
#[derive(Default)]
pub(crate) struct BioData {
    /// For a flush, how the latch of its device was; for a bio that has failed, when that was, in
    /// milliseconds and without the higher bits.
    stamp: u32,
    /// For a flush, the epoch of its device's cache that it ends.
    epoch: u32,
    /// The bio has failed.
    pub(in crate::remap) failed: bool,
    /// It has to find out whether main works again.
    pub(in crate::remap) probes: bool,
    /// The device that it went to: main, or a spare by its number and one more.
    disk: u8,
}

impl BioData {
    /// When the bio failed, in milliseconds, if it did. That is not long ago.
    pub(in crate::remap) fn failed_at(&self, now: u64) -> Option<u64> {
        let age = (now as u32).wrapping_sub(self.stamp);
        self.failed.then(|| now.saturating_sub(u64::from(age)))
    }

    /// The member of the set that it went to; none if that was main.
    #[inline(always)]
    pub(in crate::remap) fn member(&self) -> Option<u8> {
        self.disk.checked_sub(1)
    }
}

impl DmRemap {
    /// Where a flush goes: there is one for each device, and the first number is for main.
    pub(in crate::remap) fn flushed(&self, number: u32) -> Option<(Disk, &dm::Device)> {
        match number.checked_sub(1) {
            None => self.disk(None),
            Some(index) => self.disk(Some(self.spares.nth(index as usize)?)),
        }
    }

    /// Main, or the spare of a member.
    pub(in crate::remap) fn disk(&self, member: Option<u8>) -> Option<(Disk, &dm::Device)> {
        match member {
            None => Some((Disk::Main, &self.main)),
            Some(member) => Some((Disk::Spare(member), &self.spares.get(member)?.device)),
        }
    }

    /// Lets the worker look at what is deferred.
    pub(in crate::remap) fn kick(&self) {
        // If the work is queued already, it will see what is deferred now.
        let _ = self.queue.enqueue::<_, 0>((*self.state).clone());
    }
}
