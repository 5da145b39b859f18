// SPDX-License-Identifier: GPL-2.0

//! The ranges of main that are not read (E4), as bios see them.
//!
//! ```text
//!   the writer                               a bio whose presence bit is set
//!   superblocks say it (durable)             load `now`: which bank, and how much of it
//!   presence bits                            look into that bank, under RCU
//!   wait for RCU: nobody is in the
//!     bank that is not used
//!   fill it, store `now`
//! ```
//!
//! There are two banks, made beforehand, as nothing is allocated under the writer's lock.
//!
//! `map` looks here only while [`Life`](crate::remap::health::life::Life) says that there are any, and only where presence
//! bits are set, so that other I/O costs as much as without them.

use kernel::{
    prelude::*,
    sync::{
        atomic::Atomic,
        rcu, //
    }, //
};

use crate::{
    abstractions::sync,
    logic::{
        avoid::{
            Avoided,
            Ranges,
            CELLS, //
        },
        presence::Presence,
        table::Run, //
    }, //
};

use super::cells::{
    cells64,
    Cell64, //
};

/// The bit of `now` that is set if the second bank is used. Below it is how many cells are.
const SECOND: u32 = 1 << 16;

/// Ranges of main that are not read.
pub(in crate::remap) struct AvoidedRanges {
    banks: KVVec<Cell64>,
    now: Atomic<u32>,
}

impl AvoidedRanges {
    /// Begins with some.
    pub(in crate::remap) fn new(avoided: &Avoided) -> Result<Self> {
        let banks = cells64(core::iter::empty(), 2 * CELLS, GFP_KERNEL)?;
        let used = avoided.store(banks.get(..CELLS).unwrap_or(&[]));
        Ok(Self {
            banks,
            // There are few.
            now: Atomic::new(used as u32),
        })
    }

    /// Whether there are none.
    pub(in crate::remap) fn is_empty(&self) -> bool {
        self.with(|ranges| ranges.is_empty())
    }

    /// Shows readers other ones. For who has the writer's lock. Sleeps for milliseconds.
    pub(in crate::remap) fn publish(&self, avoided: &Avoided) {
        let bank = (sync::load_relaxed(&self.now) & SECOND) ^ SECOND;
        // Until the last change, readers may have looked into it.
        sync::synchronize_rcu();
        let used = avoided.store(self.bank(bank).get(..CELLS).unwrap_or(&[]));
        sync::store_release(&self.now, bank | used as u32);
    }

    /// Calls `look` with the ranges. Must not sleep in there.
    pub(in crate::remap) fn with<R>(&self, look: impl FnOnce(&Ranges<'_, Cell64>) -> R) -> R {
        let _guard = rcu::read_lock();
        let now = sync::load_acquire(&self.now);
        let cells = self.bank(now & SECOND).get(..(now & !SECOND) as usize);
        look(&Ranges::new(cells.unwrap_or(&[])))
    }

    /// The first of some blocks that is not to be read.
    pub(in crate::remap) fn first_in(&self, first: u64, count: u64) -> Option<u64> {
        self.with(|ranges| ranges.first_in(first, count))
    }

    /// See [`Ranges::cut`].
    pub(in crate::remap) fn cut(&self, first: u64, run: Run) -> Run {
        self.with(|ranges| ranges.cut(first, run))
    }

    fn bank(&self, bank: u32) -> &[Cell64] {
        let start = if bank == 0 { 0 } else { CELLS };
        self.banks.get(start..).unwrap_or(&[])
    }
}

/// Sets the presence bits of what is not to be read.
pub(in crate::remap) fn mark_avoided(avoided: &Avoided, words: &[Cell64], block_shift: u32) {
    let presence = Presence::new(words);
    for range in avoided.ranges() {
        presence.set(range.first << block_shift, range.count << block_shift);
    }
}
