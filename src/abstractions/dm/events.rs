// SPDX-License-Identifier: GPL-2.0

//! What may be asked of a table by who lives longer: events, which tell user space that something happened to a mapped
//! device, and the names of that.
//!
//! C sources: [`drivers/md/dm-table.c`](srctree/drivers/md/dm-table.c), `dm_table_event()`;
//! [`drivers/md/dm-ioctl.c`](srctree/drivers/md/dm-ioctl.c), `dm_copy_name_and_uuid()`
//!
//! Lock order: the lock in [`OwnTable`], then device mapper's own locks for events and for names. All are mutexes.

use kernel::{
    error::to_result,
    new_mutex,
    prelude::*,
    str::CStr,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use crate::abstractions::bindings;

/// The table that a target is in, while it is.
///
/// # Invariants
///
/// While the value is not null, it is a valid `struct dm_table`.
#[pin_data]
pub(super) struct OwnTable {
    #[pin]
    table: Mutex<*mut bindings::dm_table>,
}

// SAFETY: The pointer is used under the mutex only, and what it is used for may be done by any
// thread.
unsafe impl Send for OwnTable {}
// SAFETY: See the `Send` implementation.
unsafe impl Sync for OwnTable {}

impl OwnTable {
    /// # Safety
    ///
    /// `table` must be valid until `end` is called, and `end` must be called.
    pub(super) unsafe fn new(table: *mut bindings::dm_table) -> Result<Arc<Self>> {
        // INVARIANT: The caller vouches for the table.
        Arc::pin_init(
            pin_init!(Self {
                table <- new_mutex!(table, "dm_own_table"),
            }),
            GFP_KERNEL,
        )
    }

    /// Ends the use of the table: once this returns, nobody uses it and nobody will.
    pub(super) fn end(&self) {
        // INVARIANT: A null pointer promises nothing.
        *self.table.lock() = core::ptr::null_mut();
    }
}

/// Raises the events of a mapped device, as `dmsetup wait` and other programs wait for them.
///
/// This may be kept by whatever lives longer than the target, a worker for instance: after the
/// target's table is destroyed, raising an event does nothing.
#[derive(Clone)]
pub struct Events(Arc<OwnTable>);

impl Events {
    pub(super) fn new(table: Arc<OwnTable>) -> Self {
        Self(table)
    }

    /// Raises an event: `dm_table_event()`. What happened is told by the status line.
    ///
    /// Sleeps for mutexes, so this is nothing for [`Target::map`] and [`Target::end_io`].
    ///
    /// [`Target::map`]: super::Target::map
    /// [`Target::end_io`]: super::Target::end_io
    pub fn raise(&self) {
        let table = self.0.table.lock();
        if !table.is_null() {
            // SAFETY: By the invariants, the table is valid while it is not null, and it cannot
            // become null, nor the table be destroyed, while we hold the lock.
            unsafe { bindings::dm_table_event(*table) };
        }
    }
}

/// The names of a mapped device, which users may change at any time.
///
/// Like [`Events`], this may be kept by whatever lives longer than the target.
#[derive(Clone)]
pub struct DeviceNames(Arc<OwnTable>);

impl DeviceNames {
    pub(super) fn new(table: Arc<OwnTable>) -> Self {
        Self(table)
    }

    /// Calls `with` with the present name and UUID of the mapped device: `dm_copy_name_and_uuid()`. The UUID is empty if
    /// there is none. Fails with [`ENXIO`] when the device is being removed, or the target's table is gone.
    ///
    /// Sleeps for mutexes that are held for a moment, though perhaps by who waits for memory; this is nothing for
    /// [`Target::map`] and [`Target::end_io`]. The locks are free again when `with` is called.
    ///
    /// [`Target::map`]: super::Target::map
    /// [`Target::end_io`]: super::Target::end_io
    pub fn read<R>(&self, with: impl FnOnce(&CStr, &CStr) -> R) -> Result<R> {
        let mut name = [0; bindings::DM_NAME_BYTES as usize];
        let mut uuid = [0; bindings::DM_UUID_BYTES as usize];
        let table = self.0.table.lock();
        if table.is_null() {
            return Err(ENXIO);
        }
        // SAFETY: By the invariants, the table is valid while it is not null, and so is its mapped device; that cannot change
        // while we hold the lock. The buffers have the sizes that device mapper has for both.
        to_result(unsafe {
            bindings::dm_copy_name_and_uuid(
                bindings::dm_table_get_md(*table),
                name.as_mut_ptr(),
                uuid.as_mut_ptr(),
            )
        })?;
        drop(table);
        // SAFETY: Device mapper has terminated both.
        let (name, uuid) = unsafe {
            (
                CStr::from_char_ptr(name.as_ptr()),
                CStr::from_char_ptr(uuid.as_ptr()),
            )
        };
        Ok(with(name, uuid))
    }
}
