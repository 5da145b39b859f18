// SPDX-License-Identifier: GPL-2.0

//! What the status line says.

use kernel::sync::atomic::Relaxed;

use crate::{
    logic::{
        limit::Limit,
        status::Status, //
    },
    remap::{
        health::life::Life,
        DmRemap, //
    }, //
};

use super::state::UserState;

impl DmRemap {
    /// What the status line says.
    pub(in crate::remap) fn status_line(&self) -> Status {
        self.state.user.status(&self.state.life)
    }
}

impl UserState {
    /// How everything is. From any context: this takes no lock.
    pub(in crate::remap) fn status(&self, life: &Life) -> Status {
        let counters = &self.counters;
        let capacity = counters.capacity.get();
        let (remapped, pending) = (counters.remapped.get(), counters.pending.get());
        let bad = counters.bad.get();
        let lost = counters.lost.get();
        let left = counters.left.get();
        let percent = u64::from(self.limits.get(Limit::LowWater));
        Status {
            remapped,
            capacity,
            pending,
            lost,
            slots_used: remapped.saturating_add(pending).saturating_add(bad),
            write_errors: counters.write_errors.get(),
            read_errors: counters.read_errors.get(),
            auto_remaps: counters.auto_remaps.get(),
            manual_remaps: counters.manual_remaps.get(),
            scan_percent: 0,
            slots_left: left,
            is_low: left.saturating_mul(100) < capacity.saturating_mul(percent),
            degraded: counters.degraded.get() != 0,
            stuck: counters.stuck.get() != 0,
            foreign: counters.foreign.get() != 0,
            taking_over: counters.taking_over.get() != 0,
            refused: counters.refused.get(),
            autosave: true,
            saves_done: counters.saves_done.get(),
            saves: counters.saves.get(),
            auto_remap: self.auto_remap.load(Relaxed),
            slots_bad: bad,
            spare_write_errors: counters.spare_write_errors.get(),
            spare_read_errors: counters.spare_read_errors.get(),
            replicas: counters.replicas.get() as u8,
            superblocks: counters.superblocks.get() as u8,
            metadata_repairs: counters.metadata_repairs.get(),
            breakers: life.breakers(),
            flush_failed: life.is_flush_latched(),
            weak_moves: counters.weak_moves.get(),
            spares: counters.spares.get() as u8,
            spares_all: counters.spares_all.get() as u8,
            idle: counters.idle.get() as u8,
        }
    }
}
