// SPDX-License-Identifier: GPL-2.0

//! Work queues of a target's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::bindings;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::ffi::c_int;
use kernel::ffi::c_uint;
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::workqueue::Queue;

/// Where the work of a queue runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// On the CPU that queued it.
    PerCpu,
    /// Anywhere; for work that takes long.
    Unbound,
}

/// A work queue that makes progress even if the system is out of memory (`WQ_MEM_RECLAIM`), which is
/// what everything below a file system needs.
///
/// It is used like any [`Queue`]. Dropping it waits for all work, so it must not be dropped by its own
/// work: let it be owned by the target or the module, rather than by what the work items keep alive.
///
/// # Examples
///
/// ```ignore
/// let queue = WorkQueue::new(c"repair", Placement::Unbound, 1)?;
/// queue.enqueue(state.clone()); // an `Arc` with a `kernel::workqueue::Work`
/// queue.flush();
/// ```
///
/// # Invariants
///
/// `inner` is a work queue that `self` owns.
pub struct WorkQueue {
    inner: NonNull<bindings::workqueue_struct>,
}

// SAFETY: Work queues may be used from any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: Work queues may be used from any thread.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Makes a queue that runs at most `max_active` items at a time, 0 for the kernel's default.
    pub fn new(name: &CStr, placement: Placement, max_active: u16) -> Result<Self> {
        let placement = match placement {
            Placement::PerCpu => bindings::wq_flags_WQ_PERCPU,
            Placement::Unbound => bindings::wq_flags_WQ_UNBOUND,
        };
        // SAFETY: The format takes one string, which is terminated, and copied.
        let inner = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                (placement | bindings::wq_flags_WQ_MEM_RECLAIM) as c_uint,
                c_int::from(max_active),
                name.as_char_ptr(),
            )
        };
        // INVARIANT: The queue was just made.
        Ok(Self {
            inner: NonNull::new(inner).ok_or(ENOMEM)?,
        })
    }

    /// Waits for all work that was queued before.
    pub fn flush(&self) {
        // SAFETY: By the type invariants, this is a work queue.
        unsafe { bindings::__flush_workqueue(self.inner.as_ptr()) };
    }

    /// Waits until there is no work, including such as is queued by other work meanwhile. What is
    /// queued from elsewhere meanwhile is dropped with a warning.
    pub fn drain(&self) {
        // SAFETY: By the type invariants, this is a work queue.
        unsafe { bindings::drain_workqueue(self.inner.as_ptr()) };
    }
}

impl Deref for WorkQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariants, this is a work queue, and it exists as long as `self`.
        unsafe { Queue::from_raw(self.inner.as_ptr()) }
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this is a work queue of ours; nobody can use it any more.
        unsafe { bindings::destroy_workqueue(self.inner.as_ptr()) };
    }
}
