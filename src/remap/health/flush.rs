// SPDX-License-Identifier: GPL-2.0

//! Flushes of our own, and whether they vouch for what was written before.
//!
//! A flush that failed is not tried again, nor is one trusted that comes after a failure: a disk may drop what it could
//! not write, and report success for the rest.

use crate::{
    abstractions::{
        block,
        dm, //
    },
    logic::latch::FlushTicket,
    remap::{
        setup::spares::Spares,
        user::state::UserState, //
    }, //
};

use super::life::{
    Disk,
    Life,
    SpareTickets, //
};

impl Life {
    /// Flushes the cache of a disk, for what was written since the ticket `since` was taken.
    pub(in crate::remap) fn flush(
        &self,
        user: &UserState,
        pool: &block::BioPool,
        (disk, device): (Disk, &dm::Device),
        since: FlushTicket,
    ) -> block::IoResult {
        let flushed = self.flush_cache(user, pool, disk, device);
        self.vouched(disk, since, flushed)
    }

    /// Whether a flush that has ended vouches for what was written since the ticket `since` was taken.
    pub(in crate::remap) fn vouched(
        &self,
        disk: Disk,
        since: FlushTicket,
        flushed: block::IoResult,
    ) -> block::IoResult {
        match self.is_unbroken(disk, since) {
            true => flushed,
            false => flushed.and(Err(block::BlkStatus::IOERR)),
        }
    }

    /// Flushes the cache of a disk. That vouches only for what was written since the last flush that failed.
    fn flush_cache(
        &self,
        user: &UserState,
        pool: &block::BioPool,
        disk: Disk,
        device: &dm::Device,
    ) -> block::IoResult {
        self.note_flushed(user, disk, pool.flush(device))
    }

    /// A flush of our own has ended.
    pub(in crate::remap) fn note_flushed(
        &self,
        user: &UserState,
        disk: Disk,
        flushed: block::IoResult,
    ) -> block::IoResult {
        if flushed.is_err() {
            self.own_flush_failed(disk);
            user.tell_unflushed(disk);
        }
        flushed
    }

    /// Flushes the caches of those spares that `members` names, a bit each, as [`Life::flush`] does.
    pub(in crate::remap) fn flush_spares(
        &self,
        user: &UserState,
        pool: &block::BioPool,
        (spares, members): (&Spares, u8),
        since: &SpareTickets,
    ) -> block::IoResult {
        self.flush_caches(user, pool, (spares, members))?;
        match self.are_unbroken(spares, members, since) {
            true => Ok(()),
            false => Err(block::BlkStatus::IOERR),
        }
    }

    /// Flushes the caches of all of them, also if one fails. That vouches only for what was written since the last flush
    /// that failed.
    pub(in crate::remap) fn flush_caches(
        &self,
        user: &UserState,
        pool: &block::BioPool,
        (spares, members): (&Spares, u8),
    ) -> block::IoResult {
        let mut result = Ok(());
        for (member, spare) in spares.named(members) {
            let flushed = self.flush_cache(user, pool, Disk::Spare(member), &spare.device);
            result = result.and(flushed);
        }
        result
    }

    /// Whether no flush of any of them has failed since the tickets were taken.
    pub(in crate::remap) fn are_unbroken(
        &self,
        spares: &Spares,
        members: u8,
        since: &SpareTickets,
    ) -> bool {
        let unbroken = |member| self.is_unbroken(Disk::Spare(member), since.of(member));
        spares.named(members).all(|(member, _)| unbroken(member))
    }
}
