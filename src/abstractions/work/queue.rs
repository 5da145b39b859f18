// SPDX-License-Identifier: GPL-2.0

//! Work queues of a target's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use core::ptr::NonNull;

use kernel::{
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*,
    str::CStr,
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue::{
        Queue,
        RawWorkItem,
        Work, //
    }, //
};

use crate::abstractions::bindings;

/// A work queue of one's own, `struct workqueue_struct`, that makes progress even if the system is out of
/// memory (`WQ_MEM_RECLAIM`), which is what everything below a file system needs.
///
/// Dropping it waits for all work, so it must not be dropped by its own work: let it be owned by the
/// target or the module, rather than by what the work items keep alive.
///
/// This takes no delayed work as [`Queue`] does: nothing waits for work whose time has not come, and
/// it would be queued where there is no queue any more.
///
/// # Examples
///
/// ```
/// # use kernel::work::WorkQueue;
/// # use kernel::prelude::*;
/// # use kernel::sync::Arc;
/// # use kernel::workqueue::Work;
/// # #[pin_data]
/// # struct State {
/// #     #[pin]
/// #     work: Work<State>,
/// # }
/// # kernel::impl_has_work! { impl HasWork<Self> for State { self.work } }
/// # impl kernel::workqueue::WorkItem for State {
/// #     type Pointer = Arc<State>;
/// #     fn run(_state: Arc<State>) {}
/// # }
/// # fn example(state: Arc<State>) -> Result {
/// let queue = WorkQueue::new(c"repair", 1)?;
/// let _ = queue.enqueue(state.clone()); // an `Arc` with a `kernel::workqueue::Work`
/// queue.flush();
/// # Ok(())
/// # }
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
    /// Makes a queue that runs at most `max_active` items at a time, 0 for the kernel's default, on any CPU:
    /// `alloc_workqueue()`. Sleeps for memory.
    pub fn new(name: &CStr, max_active: u16) -> Result<Self> {
        // SAFETY: The format takes one string, which is terminated, and copied.
        let inner = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                (bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_MEM_RECLAIM) as c_uint,
                c_int::from(max_active),
                name.as_char_ptr(),
            )
        };
        // INVARIANT: The queue was just made.
        Ok(Self {
            inner: NonNull::new(inner).ok_or(ENOMEM)?,
        })
    }

    /// Waits for all work that was queued before: `flush_workqueue()`. Whoever has work that waits for I/O calls
    /// [`wait_until_idle`] before, as this sleeps at one go and may be taken for a hung task.
    pub fn flush(&self) {
        // SAFETY: By the type invariants, this is a work queue.
        unsafe { bindings::__flush_workqueue(self.inner.as_ptr()) };
    }

    /// Queues a work item, see [`Queue::enqueue`]. It may be queued already, and then runs once. From any context.
    pub fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the type invariants, this is a work queue, and it exists as long as `self`.
        let queue = unsafe { Queue::from_raw(self.inner.as_ptr()) };
        queue.enqueue(work)
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this is a work queue of ours; nobody can use it any more.
        unsafe { bindings::destroy_workqueue(self.inner.as_ptr()) };
    }
}

/// Waits until a work item seems to be neither queued nor running, by `work_busy()`. Sleeps in steps, so that it
/// may take as long as a disk likes.
///
/// It may have been queued again when this returns, and still be about to end: only
/// [`WorkQueue::flush`] tells for sure.
pub fn wait_until_idle<T, const ID: u64>(work: &Work<T, ID>) {
    // SAFETY: The reference is a valid pointer.
    let work = unsafe { Work::raw_get(work) };
    // SAFETY: The item was initialised, as it could not be borrowed otherwise. This looks at one word of it.
    while unsafe { bindings::work_busy(work) } != 0 {
        fsleep(Delta::from_millis(1));
    }
}
