// SPDX-License-Identifier: GPL-2.0

//! Events: telling user space that something happened to a mapped device.
//!
//! C source: [`drivers/md/dm-table.c`](srctree/drivers/md/dm-table.c), `dm_table_event()`
//!
//! Lock order: the lock in [`EventTable`], then device mapper's own event lock. Both are mutexes.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use crate::abstractions::bindings;

/// The table that events go to, while there is one.
///
/// # Invariants
///
/// While the value is not null, it is a valid `struct dm_table`.
#[pin_data]
pub(super) struct EventTable {
    #[pin]
    table: Mutex<*mut bindings::dm_table>,
}

// SAFETY: The pointer is used under the mutex only, and what it is used for may be done by any
// thread.
unsafe impl Send for EventTable {}
// SAFETY: See the `Send` implementation.
unsafe impl Sync for EventTable {}

impl EventTable {
    /// # Safety
    ///
    /// `table` must be valid until `end` is called, and `end` must be called.
    pub(super) unsafe fn new(table: *mut bindings::dm_table) -> Result<Arc<Self>> {
        // INVARIANT: The caller vouches for the table.
        Arc::pin_init(
            pin_init!(Self {
                table <- new_mutex!(table, "dm_events"),
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
pub struct Events(Arc<EventTable>);

impl Events {
    pub(super) fn new(table: Arc<EventTable>) -> Self {
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
