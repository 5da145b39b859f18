// SPDX-License-Identifier: GPL-2.0

//! The module's parameters: what new devices begin with.
//!
//! A device has its limits from the first table that names its spares on, until it is removed. So a table that is loaded
//! for a device in use changes nothing but what its line says, whatever the parameters are by then, and a parameter is
//! nothing of a line: a table prints back what was loaded.

use core::fmt::{
    self,
    Write, //
};

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

use crate::{
    abstractions::params::{
        parameter,
        Parameter, //
    },
    logic::limit::Limit,
    remap::user::limits::DEFAULTS, //
};

/// A limit.
struct DefaultLimit(Limit);

impl Parameter for DefaultLimit {
    fn set(&self, text: &str) -> Result {
        let value = self.0.parse(text).map_err(|wrong| {
            let complaint = self.0.complaint(wrong).to_str().unwrap_or("");
            pr_err!("{complaint}\n");
            EINVAL
        })?;
        DEFAULTS.set(self.0, value);
        Ok(())
    }

    fn show(&self, f: &mut dyn Write) -> fmt::Result {
        write!(f, "{}", DEFAULTS.get(self.0))
    }
}

/// `auto_remap`.
struct DefaultSwitch(Atomic<bool>);

impl Parameter for DefaultSwitch {
    fn set(&self, text: &str) -> Result {
        let on = match text {
            "on" => true,
            "off" => false,
            _ => {
                pr_err!("auto_remap is on or off\n");
                return Err(EINVAL);
            }
        };
        self.0.store(on, Relaxed);
        Ok(())
    }

    fn show(&self, f: &mut dyn Write) -> fmt::Result {
        f.write_str(match auto_remap() {
            true => "on",
            false => "off",
        })
    }
}

static AUTO_REMAP: DefaultSwitch = DefaultSwitch(Atomic::new(true));
static READ_RETRIES: DefaultLimit = DefaultLimit(Limit::ReadRetries);
static ERROR_THRESHOLD: DefaultLimit = DefaultLimit(Limit::ErrorThreshold);
static LOW_WATER: DefaultLimit = DefaultLimit(Limit::LowWater);
static DEADLINE_MS: DefaultLimit = DefaultLimit(Limit::DeadlineMs);
static AUTOSAVE_SECONDS: DefaultLimit = DefaultLimit(Limit::AutosaveSeconds);

parameter!(
    auto_remap: switch, &AUTO_REMAP,
    "Whether failed writes and weak blocks are moved to the spare, on or off: what new devices begin with (default on)"
);
parameter!(read_retries: uint, &READ_RETRIES, Limit::ReadRetries.describes());
parameter!(error_threshold: uint, &ERROR_THRESHOLD, Limit::ErrorThreshold.describes());
parameter!(low_water: uint, &LOW_WATER, Limit::LowWater.describes());
parameter!(deadline_ms: uint, &DEADLINE_MS, Limit::DeadlineMs.describes());
parameter!(autosave_seconds: uint, &AUTOSAVE_SECONDS, Limit::AutosaveSeconds.describes());

/// Whether failed I/O of new devices leads to remaps.
pub(in crate::remap) fn auto_remap() -> bool {
    AUTO_REMAP.0.load(Relaxed)
}
