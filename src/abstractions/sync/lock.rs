// SPDX-License-Identifier: GPL-2.0

//! Mutexes whose holders wait for I/O.
//!
//! C header: [`include/linux/mutex.h`](srctree/include/linux/mutex.h)

use kernel::{
    prelude::*,
    sync::{
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Mutex, //
    }, //
};

use crate::abstractions::{
    bindings,
    compat, //
};

/// A mutex whose holder may wait for I/O.
///
/// Who waits for it waits as long as the disk takes, and is not taken for a hung task, as one is who waits for
/// a [`Mutex`].
///
/// # Examples
///
/// ```
/// # use kernel::sync::IoMutex;
/// # use kernel::new_mutex;
/// # use kernel::prelude::*;
/// # struct Writer;
/// # impl Writer {
/// #     fn commit(&mut self) {}
/// # }
/// # fn example() -> Result {
/// let writer = KBox::pin_init(IoMutex::new(new_mutex!(Writer, "writer")), GFP_KERNEL)?;
/// writer.lock().commit(); // which waits for the disk
/// # Ok(())
/// # }
/// ```
#[pin_data]
pub struct IoMutex<T> {
    #[pin]
    inner: Mutex<T>,
}

impl<T> IoMutex<T> {
    /// Makes one of an ordinary mutex, which brings its name and its lock class.
    pub fn new(mutex: impl PinInit<Mutex<T>>) -> impl PinInit<Self> {
        pin_init!(Self { inner <- mutex })
    }

    /// Takes the mutex: `mutex_lock()`, without being taken for hung. Sleeps, as long as I/O takes.
    pub fn lock(&self) -> Guard<'_, T, MutexBackend> {
        // SAFETY: The mutex is initialised, as `self` exists, and may be changed through a shared reference.
        unsafe { bindings::dm_rust_mutex_lock_io(compat::raw_mutex(&self.inner)) };
        // SAFETY: The mutex was just locked by the current thread.
        unsafe { Guard::new(&self.inner, ()) }
    }

    /// Takes the mutex if nobody has it: `mutex_trylock()`. Does not sleep, but is nothing for interrupts.
    #[must_use = "if unused, the mutex will be immediately unlocked"]
    pub fn try_lock(&self) -> Option<Guard<'_, T, MutexBackend>> {
        self.inner.try_lock()
    }
}
