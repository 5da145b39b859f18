// SPDX-License-Identifier: GPL-2.0

//! What a target may ask about its own line of the table and the mapped device around it.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

use kernel::{
    fmt,
    prelude::*,
    str::CStr,
    types::Opaque, //
};

use crate::abstractions::bindings;

use super::device::DeviceNumber;

/// One line of a device-mapper table: `struct dm_target`, seen by its target.
///
/// A reference to it is handed to every callback and lives as long as that callback.
///
/// # Invariants
///
/// The pointee is a valid `struct dm_target` with its table and type set, from before the target's
/// constructor to after its destructor. Device mapper does not change `begin`, `len`, `table` and
/// `type` in that time.
#[repr(transparent)]
pub struct TargetInfo(Opaque<bindings::dm_target>);

// SAFETY: What can be called through a shared reference reads fields that do not change while a
// reference exists, or calls functions that may be called from any thread.
unsafe impl Send for TargetInfo {}
// SAFETY: See the `Send` implementation.
unsafe impl Sync for TargetInfo {}

impl TargetInfo {
    /// # Safety
    ///
    /// `ti` must be valid as the type invariants demand, for the whole of `'a`.
    #[inline(always)]
    pub(super) unsafe fn from_raw<'a>(ti: *mut bindings::dm_target) -> &'a Self {
        // SAFETY: The caller vouches for the pointer, and the type is `repr(transparent)`.
        unsafe { &*ti.cast::<Self>() }
    }

    #[inline(always)]
    pub(super) fn as_raw(&self) -> *mut bindings::dm_target {
        self.0.get()
    }

    /// Returns the mapped device's first sector that this target serves: `ti->begin`.
    #[inline(always)]
    pub fn begin(&self) -> u64 {
        // SAFETY: By the type invariants, the pointee is valid and this field does not change.
        unsafe { (*self.0.get()).begin }
    }

    /// Returns the number of sectors of 512 bytes that this target serves: `ti->len`.
    #[inline(always)]
    pub fn len(&self) -> u64 {
        // SAFETY: By the type invariants, the pointee is valid and this field does not change.
        unsafe { (*self.0.get()).len }
    }

    /// Device mapper refuses lines without a length, so this is `false`.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn mapped_device(&self) -> *mut bindings::mapped_device {
        // SAFETY: By the type invariants, the table is valid.
        unsafe { bindings::dm_table_get_md((*self.0.get()).table) }
    }

    /// Whether the table was loaded read-only: `dm_table_get_mode()`.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: By the type invariants, the table is valid.
        let mode = unsafe { bindings::dm_table_get_mode((*self.0.get()).table) };
        mode & bindings::DM_BLK_OPEN_WRITE == 0
    }

    /// Returns the name of the target as it stands in the table: `ti->type->name`.
    pub fn target_name(&self) -> &CStr {
        // SAFETY: By the type invariants, the type is valid, and so is its name, which is a
        // `&'static CStr` (see `TargetType::new`).
        unsafe { CStr::from_char_ptr((*(*self.0.get()).type_).name) }
    }

    /// Returns the number of the mapped device as `major:minor`, which names it in log messages:
    /// `dm_device_name()`.
    pub fn device_name(&self) -> &CStr {
        // SAFETY: The mapped device outlives its tables, and its name is set once, when it is made.
        unsafe { CStr::from_char_ptr(bindings::dm_device_name(self.mapped_device())) }
    }

    /// Returns the number of the mapped device: that of `dm_disk()`.
    pub fn device_number(&self) -> DeviceNumber {
        // SAFETY: The mapped device outlives its tables, and so does its disk, whose number is set when it is made.
        unsafe { DeviceNumber::of_disk(bindings::dm_disk(self.mapped_device())) }
    }

    /// Returns what identifies the mapped device among all that exist, whatever its table.
    pub fn device_id(&self) -> MappedDeviceId {
        MappedDeviceId(self.mapped_device() as usize)
    }

    /// Returns what identifies the table that the target is part of.
    pub fn table_id(&self) -> TableId {
        // SAFETY: By the type invariants, `self` is a valid target.
        TableId(unsafe { (*self.0.get()).table } as usize)
    }

    /// Whether the mapped device is suspended: `dm_suspended()`.
    pub fn is_suspended(&self) -> bool {
        // SAFETY: By the type invariants, `self` is a valid target.
        unsafe { bindings::dm_suspended(self.0.get()) != 0 }
    }
}

/// The identity of a mapped device, for comparing only.
///
/// Two tables of one mapped device have the same identity; that is how state is handed over when a
/// table is replaced. It may come back for another device after this one was removed, so whatever
/// is found by it has to be given up before the last table of the device is destroyed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MappedDeviceId(usize);

/// The identity of a table, for comparing only.
///
/// Like that of a mapped device, it may come back after the table was destroyed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TableId(usize);

/// Opaque, as the identity is an address in the kernel.
impl fmt::Debug for MappedDeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MappedDeviceId")
    }
}

/// Opaque, as the identity is an address in the kernel.
impl fmt::Debug for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TableId")
    }
}
