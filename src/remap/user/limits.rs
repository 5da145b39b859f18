// SPDX-License-Identifier: GPL-2.0

//! The limits that are in force: from the module's parameters, the table line, and by message while it is in use. Their names, defaults and
//! ranges are in [`logic::limit`](crate::logic::limit).

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

use crate::{
    abstractions::util,
    logic::{
        args::Options,
        limit::Limit, //
    }, //
};

/// How long a commit may take that has to do without a spare, in milliseconds.
const COMMIT_MS: u64 = 1000;

/// What new devices begin with.
pub(super) static DEFAULTS: Limits = Limits::defaults();

/// What is in force.
pub(in crate::remap) struct Limits {
    read_retries: Atomic<u32>,
    error_threshold: Atomic<u32>,
    low_water: Atomic<u32>,
    deadline_ms: Atomic<u32>,
    autosave_seconds: Atomic<u32>,
}

impl Limits {
    /// What a device begins with, as the module's parameters say.
    pub(in crate::remap) fn new() -> Self {
        let limits = Self::defaults();
        for limit in Limit::ALL {
            limits.set(limit, DEFAULTS.get(limit));
        }
        limits
    }

    const fn defaults() -> Self {
        Self {
            read_retries: Atomic::new(Limit::ReadRetries.default()),
            error_threshold: Atomic::new(Limit::ErrorThreshold.default()),
            low_water: Atomic::new(Limit::LowWater.default()),
            deadline_ms: Atomic::new(Limit::DeadlineMs.default()),
            autosave_seconds: Atomic::new(Limit::AutosaveSeconds.default()),
        }
    }

    fn cell(&self, limit: Limit) -> &Atomic<u32> {
        match limit {
            Limit::ReadRetries => &self.read_retries,
            Limit::ErrorThreshold => &self.error_threshold,
            Limit::LowWater => &self.low_water,
            Limit::DeadlineMs => &self.deadline_ms,
            Limit::AutosaveSeconds => &self.autosave_seconds,
        }
    }

    pub(in crate::remap) fn get(&self, limit: Limit) -> u32 {
        self.cell(limit).load(Relaxed)
    }

    pub(in crate::remap) fn set(&self, limit: Limit, value: u32) {
        self.cell(limit).store(value, Relaxed);
    }

    /// Until when the writer's lock is worth waiting for, in milliseconds: whoever has it waits `deadline_ms` at most for
    /// a spare that hangs, and then does what the others need.
    pub(in crate::remap) fn patience(&self) -> u64 {
        let deadline = u64::from(self.get(Limit::DeadlineMs));
        let patience = deadline.saturating_add(COMMIT_MS);
        util::monotonic_ms().saturating_add(patience)
    }

    /// Takes over what a table line says.
    pub(in crate::remap) fn set_from(&self, options: &Options) {
        for limit in Limit::ALL {
            if let Some(value) = options.limit(limit) {
                self.set(limit, value);
            }
        }
    }
}
