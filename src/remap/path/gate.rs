// SPDX-License-Identifier: GPL-2.0

//! Keeping writes out of a range while its content is moved (E3, E5, M7).
//!
//! ```text
//!   mover                                     writer of a bio
//!   close the gate                            register as reader
//!   wait for all registered readers           is the range behind the gate?
//!   read, write, commit, publish                yes: unregister, leave the bio to the worker
//!   open the gate                               no:  look up, submit; unregister in end_io
//! ```
//!
//! A bio that does not see the closed gate registered before the mover began to wait, so the mover
//! waits for it. A bio that sees it is queued for the worker, which needs the range at the desk that the
//! mover has, so it finds the gate open.
//!
//! The two bounds are not read together. What a reader makes of two halves does no harm: the gate
//! closes before the mover waits, and a bio that is left to the worker without need is submitted by
//! it.

use kernel::sync::atomic::{
    Atomic,
    Relaxed,
    Release, //
};

use crate::abstractions::sync;

/// The range that writes have to stay out of, if any. Changed under the mover's lock.
pub(in crate::remap) struct Gate {
    start: Atomic<u64>,
    /// One past the last sector; 0 if the gate is open.
    end: Atomic<u64>,
}

impl Gate {
    /// An open gate.
    pub(in crate::remap) const fn new() -> Self {
        Self {
            start: Atomic::new(0),
            end: Atomic::new(0),
        }
    }

    /// Whether a part of the range is behind the closed gate.
    #[inline(always)]
    pub(in crate::remap) fn covers(&self, sector: u64, sectors: u32) -> bool {
        let end = sync::load_acquire(&self.end);
        end != 0
            && sector < end
            && sync::load_relaxed(&self.start) < sector.saturating_add(u64::from(sectors))
    }

    /// Closes it for a range, which must not be empty.
    pub(in crate::remap) fn close(&self, sector: u64, sectors: u64) {
        self.start.store(sector, Relaxed);
        self.end.store(sector.saturating_add(sectors), Release);
    }

    /// Opens it.
    pub(in crate::remap) fn open(&self) {
        self.end.store(0, Release);
    }
}
