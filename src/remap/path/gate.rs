// SPDX-License-Identifier: GPL-2.0

//! Keeping writes out of some ranges while their content is moved (E3, E5, M7).
//!
//! ```text
//!   mover                                     writer of a bio
//!   close the gate                            register as reader
//!   wait for all registered readers           is its range behind the gate?
//!   read, write, commit, publish                yes: unregister, leave the bio to the worker
//!   open the gate                               no:  look up, submit; unregister in end_io
//! ```
//!
//! A bio that does not see the closed gate registered before the mover began to wait, so the mover
//! waits for it. A bio that sees it is queued for the worker, which needs the range at the desk that the
//! mover has, so it finds the gate open.
//!
//! The bounds are not read together. What a reader makes of parts of them does no harm: the gate
//! closes before the mover waits, and a bio that is left to the worker without need is submitted by
//! it.

use kernel::sync::atomic::{
    Atomic,
    Relaxed,
    Release, //
};

use crate::{
    abstractions::sync,
    logic::desk::MOVING_MAX, //
};

/// A range of sectors.
struct Bounds {
    start: Atomic<u64>,
    /// One past the last sector.
    end: Atomic<u64>,
}

impl Bounds {
    const fn nothing() -> Self {
        Self {
            start: Atomic::new(0),
            end: Atomic::new(0),
        }
    }

    #[inline(always)]
    fn overlap(&self, end: u64, sector: u64, sectors: u32) -> bool {
        sector < end && sync::load_relaxed(&self.start) < sector.saturating_add(u64::from(sectors))
    }
}

/// The ranges that writes have to stay out of, if any. Changed under the mover's lock.
pub(in crate::remap) struct Gate {
    /// What all of them are in. Its end is 0 if the gate is open.
    all: Bounds,
    /// Those behind the last one end at 0.
    each: [Bounds; MOVING_MAX],
}

impl Gate {
    /// An open gate.
    pub(in crate::remap) const fn new() -> Self {
        Self {
            all: Bounds::nothing(),
            each: [const { Bounds::nothing() }; MOVING_MAX],
        }
    }

    /// Whether a part of the range is behind the closed gate.
    #[inline(always)]
    pub(in crate::remap) fn covers(&self, sector: u64, sectors: u32) -> bool {
        let end = sync::load_acquire(&self.all.end);
        end != 0 && self.all.overlap(end, sector, sectors) && self.is_in_any(sector, sectors)
    }

    #[inline(never)]
    fn is_in_any(&self, sector: u64, sectors: u32) -> bool {
        let in_this = |bounds: &Bounds| {
            let end = sync::load_relaxed(&bounds.end);
            bounds.overlap(end, sector, sectors)
        };
        self.each.iter().any(in_this)
    }

    /// Closes it for ranges, none of which may be empty: first sectors, and numbers of sectors. There are at most
    /// [`MOVING_MAX`].
    pub(in crate::remap) fn close(&self, ranges: impl Iterator<Item = (u64, u64)>) {
        let (mut start, mut end) = (u64::MAX, 0);
        let mut ranges = ranges.map(|(sector, sectors)| (sector, sector.saturating_add(sectors)));
        for bounds in &self.each {
            let (from, to) = ranges.next().unwrap_or((0, 0));
            bounds.start.store(from, Relaxed);
            bounds.end.store(to, Relaxed);
            if to != 0 {
                (start, end) = (from.min(start), to.max(end));
            }
        }
        self.all.start.store(start, Relaxed);
        self.all.end.store(end, Release);
    }

    /// Opens it.
    pub(in crate::remap) fn open(&self) {
        self.all.end.store(0, Release);
    }
}
