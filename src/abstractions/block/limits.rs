// SPDX-License-Identifier: GPL-2.0

//! The limits that a mapped device tells its users.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::abstractions::bindings;

/// What the block layer may send to a mapped device: `struct queue_limits`.
///
/// A target sees these after device mapper has combined the limits of the devices that
/// [`Target::iterate_devices`](crate::abstractions::dm::Target::iterate_devices) named, and before it combines those
/// of several targets.
#[repr(transparent)]
pub struct QueueLimits(bindings::queue_limits);

/// What a queue can do, for [`QueueLimits::clear_feature`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueFeature {
    /// Memory can be accessed directly.
    Dax,
    /// Large writes can be atomic.
    AtomicWrites,
}

impl QueueFeature {
    const fn bit(self) -> bindings::blk_features_t {
        match self {
            QueueFeature::Dax => bindings::DM_FEAT_DAX,
            QueueFeature::AtomicWrites => bindings::DM_FEAT_ATOMIC_WRITES,
        }
    }
}

impl QueueLimits {
    /// # Safety
    ///
    /// `limits` must be valid and used by nobody else during `'a`.
    pub(crate) unsafe fn from_raw<'a>(limits: *mut bindings::queue_limits) -> &'a mut Self {
        // SAFETY: The caller vouches for the pointer, and the type is `repr(transparent)`.
        unsafe { &mut *limits.cast::<Self>() }
    }

    /// Raises the size in bytes that random I/O should have: `io_min`.
    pub fn raise_io_min(&mut self, bytes: u32) {
        self.0.io_min = self.0.io_min.max(bytes);
    }

    /// Lets no discard be larger than `sectors` sectors of 512 bytes; 0 means that none are supported.
    pub fn limit_discard_sectors(&mut self, sectors: u32) {
        let limits = &mut self.0;
        limits.max_hw_discard_sectors = limits.max_hw_discard_sectors.min(sectors);
        limits.max_discard_sectors = limits.max_discard_sectors.min(sectors);
    }

    /// Says that completions come by themselves: the block layer fails bios that someone polls for.
    pub(crate) fn never_poll(&mut self) {
        self.0.features &= !bindings::DM_FEAT_POLL;
    }

    /// Says that the mapped device does not have `feature`, whatever the devices below have.
    pub fn clear_feature(&mut self, feature: QueueFeature) {
        self.0.features &= !feature.bit();
    }
}
