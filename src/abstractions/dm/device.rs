// SPDX-License-Identifier: GPL-2.0

//! The block devices below a target.
//!
//! C source: [`drivers/md/dm-table.c`](srctree/drivers/md/dm-table.c), `dm_get_device()`
//!
//! Device mapper opens a device for a table and closes it with the table. A target needs it for
//! longer now and then: its worker may still be at it. So a [`Device`] holds the open file too and is
//! good for as long as anyone has it, and what device mapper needs to be told (`dm_put_device`) is
//! kept by the abstraction, which tells it when the target is gone.

use core::ptr::NonNull;

use kernel::{
    fmt,
    prelude::*,
    str::CStr,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

use crate::abstractions::bindings;

/// An open block device below a target: `struct dm_dev`, and a reference to its file.
///
/// What can be asked of it does not sleep. The last clone may be dropped in any context: the file is closed later
/// then (`fput()`).
///
/// Made by [`Constructor::device`](super::Constructor::device). Clones are cheap and refer to the
/// same open file. The device is closed when both the table that it was opened for and the last
/// clone are gone; so as not to keep a device busy that its user took out, give clones away only to
/// what ends in [`Target::postsuspend`](super::Target::postsuspend).
///
/// # Invariants
///
/// - `file` is an open block device file, and `self` owns one of its references.
/// - `bdev` is the block device of `file`, which is valid as long as the file is.
/// - Device mapper has the device open until the last bio of the target `owner` is done.
pub struct Device {
    bdev: NonNull<bindings::block_device>,
    file: NonNull<bindings::file>,
    owner: Owner,
}

/// Names the one target, of all that ever were, for which a device was opened.
///
/// A bio may go to a device of its own target only: that one stays open until the target's last bio
/// is done, whatever becomes of the [`Device`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner(u64);

impl Owner {
    pub(super) fn new() -> Self {
        static NEXT: Atomic<u64> = Atomic::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

// SAFETY: The references of a file are counted atomically, and what is done with the block device
// here may be done from any thread.
unsafe impl Send for Device {}
// SAFETY: See the `Send` implementation; no method changes anything without the kernel's own locks.
unsafe impl Sync for Device {}

/// Reads one of the queue limits of a [`Device`].
macro_rules! limit {
    ($device:expr, $field:ident) => {
        // SAFETY: By the type invariants, the block device is valid, and so are its queue and that one's
        // limits. They may change at any time, and are read once, like `READ_ONCE` does it in C.
        unsafe {
            let limits = bindings::dm_rust_bdev_limits($device.bdev());
            (&raw const (*limits).$field).read_volatile()
        }
    };
}

impl Device {
    /// Takes another reference to the file of a device that device mapper has opened.
    ///
    /// # Safety
    ///
    /// `dm_dev` must be valid and open, and stay open until the last bio of `owner` is done.
    unsafe fn from_dm_dev(dm_dev: NonNull<bindings::dm_dev>, owner: Owner) -> Self {
        // SAFETY: The caller vouches for the pointer. A `dm_dev` has both pointers set.
        let (bdev, file) = unsafe {
            (
                NonNull::new_unchecked((*dm_dev.as_ptr()).bdev),
                NonNull::new_unchecked((*dm_dev.as_ptr()).bdev_file),
            )
        };
        // SAFETY: The file is open, as device mapper holds a reference.
        unsafe { bindings::get_file(file.as_ptr()) };
        // INVARIANT: The reference was taken just now, and `bdev` belongs to `file`. The caller
        // vouches for the last point.
        Self { bdev, file, owner }
    }

    #[inline(always)]
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    #[inline(always)]
    pub(crate) fn bdev(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }

    /// Returns the device number, `bdev->bd_dev`, which also stands for the device in table lines.
    pub fn number(&self) -> DeviceNumber {
        // SAFETY: By the type invariants, the block device is valid. Its number does not change.
        DeviceNumber(unsafe { (*self.bdev()).bd_dev })
    }

    /// Returns the size in sectors of 512 bytes: `bdev_nr_sectors()`. It may change while the device is open.
    pub fn sectors(&self) -> u64 {
        // SAFETY: By the type invariants, the block device is valid.
        unsafe { bindings::dm_rust_bdev_nr_sectors(self.bdev()) }
    }

    /// Whether the device refuses writes: `bdev_read_only()`.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: By the type invariants, the block device is valid.
        unsafe { bindings::dm_rust_bdev_read_only(self.bdev()) }
    }

    /// Whether the device has a volatile write cache, `bdev_write_cache()`, so that flushes and FUA mean something.
    pub fn has_write_cache(&self) -> bool {
        // SAFETY: By the type invariants, the block device is valid.
        unsafe { bindings::dm_rust_bdev_write_cache(self.bdev()) }
    }

    /// Whether the block layer makes FUA of a write and a flush for this device, so that a FUA write that
    /// fails may be a flush that failed. Stacked devices may do so without saying it.
    pub fn emulates_fua(&self) -> bool {
        let features = limit!(self, features);
        self.has_write_cache() && features & bindings::DM_FEAT_FUA == 0
    }

    /// Whether both are on the same disk, if perhaps in different partitions.
    pub fn is_same_disk(&self, other: &Device) -> bool {
        // SAFETY: By the type invariants, both block devices are valid.
        unsafe { bindings::dm_rust_bdev_same_disk(self.bdev(), other.bdev()) }
    }

    /// Returns the first sector of the partition on its disk, 0 for a whole disk: `get_start_sect()`.
    pub fn partition_start(&self) -> u64 {
        // SAFETY: By the type invariants, the block device is valid. A partition that is open cannot
        // be moved.
        unsafe { (*self.bdev()).bd_start_sect }
    }

    /// Returns the logical block size in bytes, `bdev_logical_block_size()`: the unit that can be addressed.
    pub fn logical_block_size(&self) -> u32 {
        limit!(self, logical_block_size)
    }

    /// Returns the physical block size in bytes, `bdev_physical_block_size()`: the unit that is written without
    /// reading.
    pub fn physical_block_size(&self) -> u32 {
        limit!(self, physical_block_size)
    }

    /// Returns the largest discard in sectors of 512 bytes, 0 if the device does not support them: `bdev_max_discard_sectors()`.
    pub fn max_discard_sectors(&self) -> u32 {
        limit!(self, max_discard_sectors)
    }

    /// Whether this is a zoned device: `bdev_is_zoned()`.
    pub fn is_zoned(&self) -> bool {
        limit!(self, features) & bindings::DM_FEAT_ZONED != 0
    }
}

impl Clone for Device {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariants, the file is open.
        unsafe { bindings::get_file(self.file.as_ptr()) };
        // INVARIANT: The reference was taken just now.
        Self {
            bdev: self.bdev,
            file: self.file,
            owner: self.owner,
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, `self` owns this reference.
        unsafe { bindings::fput(self.file.as_ptr()) };
    }
}

/// Two handles are equal if they stand for the same block device.
impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Device {}

/// The number of a block device, `dev_t`, written `major:minor`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber(bindings::dev_t);

impl DeviceNumber {
    /// Returns the number of a whole disk: `disk_devt()`.
    ///
    /// # Safety
    ///
    /// `disk` must be a valid `struct gendisk`.
    pub(super) unsafe fn of_disk(disk: *mut bindings::gendisk) -> Self {
        // SAFETY: The caller vouches for the disk. Both are set before anybody sees it.
        let (major, minor) = unsafe { ((*disk).major, (*disk).first_minor) };
        Self((major as u32) << bindings::MINORBITS | minor as u32)
    }

    /// Returns it as the kernel has it: `dev_t`.
    pub const fn as_raw(self) -> u32 {
        self.0
    }

    /// Returns the major number.
    pub const fn major(self) -> u32 {
        self.0 >> bindings::MINORBITS
    }

    /// Returns the minor number.
    pub const fn minor(self) -> u32 {
        self.0 & bindings::MINORMASK
    }
}

impl core::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major(), self.minor())
    }
}

/// The kernel's own macros want their own trait.
impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// The devices that device mapper has opened for one target.
///
/// # Invariants
///
/// - `ti` is valid as long as `self` exists.
/// - Each entry of `devices` stands for one successful `dm_get_device` that was not put yet.
/// - Each of them is valid as long as no target of the table opens the same device in a wider mode.
///
/// That nobody does is taken for granted, as by targets in C: `dm_get_device` frees and replaces a `dm_dev`
/// that is in use, without telling (`upgrade_mode()`). Here the mode is always the table's, as nearly
/// everywhere. Only in a read-only table can another target ask for more, as cache, clone and era do
/// whatever the table says, and the two would have to share a device.
pub(super) struct OpenDevices {
    ti: *mut bindings::dm_target,
    owner: Owner,
    devices: KVec<NonNull<bindings::dm_dev>>,
}

impl OpenDevices {
    /// # Safety
    ///
    /// `ti` must be a valid target with its table set, and stay so until the result is dropped.
    /// The table must be changed by one thread at a time, which holds in constructors and
    /// destructors.
    pub(super) unsafe fn new(ti: *mut bindings::dm_target) -> Self {
        // INVARIANT: The caller vouches for `ti`, and there are no devices yet.
        Self {
            ti,
            owner: Owner::new(),
            devices: KVec::new(),
        }
    }

    /// Opens `path`, or finds it among the devices of the table, in the mode of the table.
    pub(super) fn open(&mut self, path: &CStr) -> Result<Device> {
        self.devices.reserve(1, GFP_KERNEL)?;

        let mut dm_dev = core::ptr::null_mut();
        // The mode is always the table's, so that we do not widen the mode of what others have, nor of
        // what was opened here before: see the type invariants.
        //
        // SAFETY: `ti` is valid by the type invariants, the path is terminated, and `dm_dev` is ours.
        kernel::error::to_result(unsafe {
            bindings::dm_get_device(
                self.ti,
                path.as_char_ptr(),
                bindings::dm_table_get_mode((*self.ti).table),
                &mut dm_dev,
            )
        })?;
        let dm_dev = NonNull::new(dm_dev).ok_or(ENODEV)?;

        // INVARIANT: `dm_get_device` succeeded.
        self.devices.push(dm_dev, GFP_KERNEL)?;
        // SAFETY: Device mapper has just opened the device and keeps it open until it is put, which
        // is when `self` is dropped, after the target and so after all its bios.
        Ok(unsafe { Device::from_dm_dev(dm_dev, self.owner) })
    }

    #[inline(always)]
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// Returns what device mapper knows `device` by.
    pub(super) fn find(&self, device: &Device) -> Option<NonNull<bindings::dm_dev>> {
        self.devices.iter().copied().find(|dm_dev| {
            // SAFETY: By the type invariants, the entries are valid, as nobody asks for a wider mode.
            unsafe { (*dm_dev.as_ptr()).bdev == device.bdev() }
        })
    }
}

impl Drop for OpenDevices {
    fn drop(&mut self) {
        for dm_dev in &self.devices {
            // SAFETY: By the type invariants, the target is valid, and each entry stands for one
            // `dm_get_device` that was not put yet, and is valid, as nobody asks for a wider mode.
            unsafe { bindings::dm_put_device(self.ti, dm_dev.as_ptr()) };
        }
    }
}
