// SPDX-License-Identifier: GPL-2.0

//! The numbers of commits and entries (M4, M5).
//!
//! A *sequence* is the activation epoch and a counter. Table blocks carry one, and so do entries, as their generation.
//! No two that this activation gives out are the same, and each is larger than all before:
//! - the epoch of what is written is in every live superblock before it is written (M4), as is everything that the
//!   superblock says;
//! - an activation has no epoch of its own before its first commit, so that one that changes nothing writes nothing. A
//!   generation that is given out before that is of the epoch that the commit begins;
//! - whatever is written off begins another epoch, so that a superblock copy that was not told is known by that.

use super::{
    super::{
        super::format::{
            sequence,
            sequence_epoch, //
        },
        Failure, //
    },
    Metadata, //
};

/// How far an activation has counted.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Epoch {
    /// The last counter given out in this activation.
    counter: u64,
    /// Whether the superblock's epoch is this activation's own.
    own: bool,
}

impl Epoch {
    /// Nothing was counted.
    pub(super) const NONE: Epoch = Epoch {
        counter: 0,
        own: false,
    };
}

impl Metadata {
    /// A generation for entries that the next commit adds or changes: larger than all before (M5).
    /// None if the counters are at their end.
    pub fn next_generation(&mut self) -> Option<u64> {
        let epoch = if self.epoch.own {
            self.superblock.epoch
        } else {
            self.superblock.epoch.checked_add(1)?
        };
        self.epoch.counter = self.epoch.counter.checked_add(1)?;
        sequence(epoch, self.epoch.counter)
    }

    /// A sequence for table blocks. The epoch is this activation's own.
    pub(in super::super) fn next_sequence(&mut self) -> Result<u64, Failure> {
        self.epoch.counter = self.epoch.counter.saturating_add(1);
        sequence(self.superblock.epoch, self.epoch.counter).ok_or(Failure::Exhausted)
    }

    /// Whether a table block's sequence is one that this activation has neither found nor given out.
    pub fn is_newer(&self, found: u64) -> bool {
        let own = sequence(self.superblock.epoch, self.epoch.counter);
        sequence_epoch(found) > self.superblock.epoch
            || self.epoch.own && own.is_some_and(|own| found > own)
    }

    /// Begins this activation's own epoch, if it has none so far.
    pub(in super::super) fn own_epoch(&mut self) -> Result<(), Failure> {
        match self.epoch.own {
            true => Ok(()),
            false => self.raise_epoch(),
        }
    }

    /// Begins a new epoch: of this activation, or because something is written off.
    pub(in super::super) fn raise_epoch(&mut self) -> Result<(), Failure> {
        let epoch = self.superblock.epoch.saturating_add(1);
        if sequence(epoch, 0).is_none() {
            return Err(Failure::Exhausted);
        }
        self.superblock.epoch = epoch;
        self.superblock.clean = false;
        self.epoch.own = true;
        self.stale = true;
        Ok(())
    }

    /// Says whether the activation is ended in order. Gets to the spare with the next
    /// [`Metadata::sync`]; the first commit takes it back, as it begins a new epoch.
    pub fn set_clean(&mut self, clean: bool) {
        self.superblock.clean = clean;
        self.epoch.own &= !clean;
    }

    /// Whether this activation wrote anything that a clean end should be recorded for.
    pub fn is_touched(&self) -> bool {
        self.epoch.own
    }
}
