// SPDX-License-Identifier: GPL-2.0

//! What the superblock says besides the set: which kinds of entries and records there may be (M11), which ranges of main
//! are not read, and what users have switched.
//!
//! All of that is changed in memory here, and holds after the next [`Metadata::sync`]. A kind is announced, and durable
//! in all live copies, before the first of that kind is written.

use super::{
    super::super::{
        avoid::{
            Avoided,
            TooMany, //
        },
        format::Switches, //
    },
    Metadata, //
};

impl Metadata {
    /// Says that there may be entries and records of some features. There may be when the next [`Metadata::sync`] has
    /// succeeded. False if all superblocks say so already.
    pub fn announce(&mut self, incompat: u64, ro_compat: u64) -> bool {
        let superblock = &mut self.superblock;
        let known = superblock.incompat & incompat == incompat
            && superblock.ro_compat & ro_compat == ro_compat;
        superblock.incompat |= incompat;
        superblock.ro_compat |= ro_compat;
        self.stale |= !known;
        self.stale
    }

    /// Changes which ranges of main are not read.
    pub fn change_avoided<R>(
        &mut self,
        change: impl FnOnce(&mut Avoided) -> Result<R, TooMany>,
    ) -> Result<R, TooMany> {
        let changed = change(&mut self.superblock.avoided)?;
        self.stale = true;
        Ok(changed)
    }

    /// What users have switched on or off, to be changed.
    pub fn switches_mut(&mut self) -> &mut Switches {
        self.stale = true;
        &mut self.superblock.switches
    }
}
