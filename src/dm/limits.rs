// SPDX-License-Identifier: GPL-2.0

//! The limits that a mapped device tells its users.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use super::bindings;

/// What the block layer may send to a mapped device: `struct queue_limits`.
///
/// A target sees these after device mapper has combined the limits of the devices that
/// [`Target::iterate_devices`](super::Target::iterate_devices) named, and before it combines those
/// of several targets.
#[repr(transparent)]
pub struct QueueLimits(bindings::queue_limits);

/// What a queue can do, for [`QueueLimits::clear_feature`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueFeature {
    /// It is a rotating disk.
    Rotational,
    /// `NOWAIT` bios are heeded.
    Nowait,
    /// Memory can be accessed directly.
    Dax,
    /// Large writes can be atomic.
    AtomicWrites,
}

impl QueueFeature {
    const fn bit(self) -> bindings::blk_features_t {
        match self {
            QueueFeature::Rotational => bindings::DM_FEAT_ROTATIONAL,
            QueueFeature::Nowait => bindings::DM_FEAT_NOWAIT,
            QueueFeature::Dax => bindings::DM_FEAT_DAX,
            QueueFeature::AtomicWrites => bindings::DM_FEAT_ATOMIC_WRITES,
        }
    }
}

impl QueueLimits {
    /// # Safety
    ///
    /// `limits` must be valid and used by nobody else during `'a`.
    pub(super) unsafe fn from_raw<'a>(limits: *mut bindings::queue_limits) -> &'a mut Self {
        // SAFETY: The caller vouches for the pointer, and the type is `repr(transparent)`.
        unsafe { &mut *limits.cast::<Self>() }
    }

    /// Returns the logical block size in bytes.
    pub fn logical_block_size(&self) -> u32 {
        self.0.logical_block_size
    }

    /// Returns the physical block size in bytes.
    pub fn physical_block_size(&self) -> u32 {
        self.0.physical_block_size
    }

    /// Raises the logical block size to at least `bytes`, and what depends on it.
    ///
    /// `bytes` must be a power of two from 512 on; anything else is ignored.
    pub fn raise_logical_block_size(&mut self, bytes: u32) {
        if !bytes.is_power_of_two() || bytes < 512 {
            return;
        }
        let limits = &mut self.0;
        limits.logical_block_size = limits.logical_block_size.max(bytes);
        limits.physical_block_size = limits.physical_block_size.max(limits.logical_block_size);
        limits.io_min = limits.io_min.max(limits.physical_block_size);
    }

    /// Returns the smallest size, in bytes, that random I/O should have.
    pub fn io_min(&self) -> u32 {
        self.0.io_min
    }

    /// Raises the size, in bytes, that random I/O should have.
    pub fn raise_io_min(&mut self, bytes: u32) {
        self.0.io_min = self.0.io_min.max(bytes);
    }

    /// Returns the largest I/O, in sectors, that the hardware takes.
    pub fn max_hw_sectors(&self) -> u32 {
        self.0.max_hw_sectors
    }

    /// Returns the largest discard in sectors.
    pub fn max_discard_sectors(&self) -> u32 {
        self.0.max_discard_sectors
    }

    /// Lets no discard be larger than `sectors`; 0 means that none are supported.
    pub fn limit_discard_sectors(&mut self, sectors: u32) {
        let limits = &mut self.0;
        limits.max_hw_discard_sectors = limits.max_hw_discard_sectors.min(sectors);
        limits.max_discard_sectors = limits.max_discard_sectors.min(sectors);
    }

    /// Lets no write-zeroes be larger than `sectors`; 0 means that none are supported.
    pub fn limit_write_zeroes_sectors(&mut self, sectors: u32) {
        let limits = &mut self.0;
        limits.max_write_zeroes_sectors = limits.max_write_zeroes_sectors.min(sectors);
        limits.max_hw_wzeroes_unmap_sectors = limits.max_hw_wzeroes_unmap_sectors.min(sectors);
    }

    /// Says that completions come by themselves: the block layer fails bios that someone polls for.
    pub(super) fn never_poll(&mut self) {
        self.0.features &= !bindings::DM_FEAT_POLL;
    }

    /// Says that the mapped device does not have `feature`, whatever the devices below have.
    pub fn clear_feature(&mut self, feature: QueueFeature) {
        self.0.features &= !feature.bit();
    }
}
