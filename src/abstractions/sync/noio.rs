// SPDX-License-Identifier: GPL-2.0

//! Allocating memory without starting I/O.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use kernel::{
    ffi::c_uint,
    types::NotThreadSafe, //
};

use crate::abstractions::bindings;

/// As long as this exists, allocations of the current thread do not start I/O to get memory:
/// `memalloc_noio_save()`.
///
/// Whoever others wait for to get their I/O done must not wait for I/O itself. Values of this must be
/// dropped in the opposite order of their creation, as scopes do it.
///
/// # Examples
///
/// ```
/// # use kernel::sync::NoIoScope;
/// # use kernel::prelude::*;
/// # fn example() -> Result<KBox<u64>> {
/// let _scope = NoIoScope::enter();
/// Ok(KBox::new(0, GFP_KERNEL)?) // as with GFP_NOIO
/// # }
/// ```
///
/// # Invariants
///
/// `saved` is what the current thread was set to before.
#[must_use]
pub struct NoIoScope {
    saved: c_uint,
    _thread: NotThreadSafe,
}

impl NoIoScope {
    /// Begins the scope, for the current thread: in process context.
    pub fn enter() -> Self {
        // INVARIANT: This returns the setting before.
        Self {
            // SAFETY: This changes a flag of the current thread.
            saved: unsafe { bindings::dm_rust_memalloc_noio_save() },
            _thread: NotThreadSafe,
        }
    }
}

impl Drop for NoIoScope {
    fn drop(&mut self) {
        // SAFETY: This restores a flag of the current thread; by the type invariants, to what it was.
        unsafe { bindings::dm_rust_memalloc_noio_restore(self.saved) };
    }
}
