// SPDX-License-Identifier: GPL-2.0

//! Values that all targets of a module share.
//!
//! C header: [`include/linux/mutex.h`](srctree/include/linux/mutex.h)

use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    }, //
};

use kernel::types::NotThreadSafe;

use crate::abstractions::bindings;

/// A value for a `static`, behind a mutex.
///
/// Unlike [`global_lock!`](kernel::sync::global_lock), this is initialised when the module is loaded and so needs
/// no `unsafe`, and who waits for it is not taken for a hung task while the holder waits for memory.
///
/// All values of this type in a module share one mutex, so no two of them may be locked by one
/// thread at a time. It is meant for what constructors and destructors look at for a moment.
///
/// A `static` is never dropped: what the value owns must be given up before the module is unloaded.
///
/// # Examples
///
/// ```
/// # use kernel::sync;
/// static USERS: sync::Global<u32> = sync::Global::new(0);
///
/// *USERS.lock() += 1;
/// ```
pub struct Global<T> {
    value: UnsafeCell<T>,
}

// SAFETY: The value is only reached by the holder of the mutex, so it moves between threads but is
// never shared by them.
unsafe impl<T: Send> Sync for Global<T> {}

impl<T> Global<T> {
    /// Makes the value, at compile time.
    pub const fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the mutex. Sleeps until it is free.
    pub fn lock(&self) -> GlobalGuard<'_, T> {
        // SAFETY: There are no demands but that it may sleep.
        unsafe { bindings::dm_rust_global_lock() };
        // INVARIANT: The mutex was just locked.
        GlobalGuard {
            global: self,
            _thread: NotThreadSafe,
        }
    }
}

/// Access to the value of a [`Global`].
///
/// # Invariants
///
/// The current thread holds the mutex of all `Global`s.
pub struct GlobalGuard<'a, T> {
    global: &'a Global<T>,
    _thread: NotThreadSafe,
}

impl<T> Deref for GlobalGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, nobody else has access.
        unsafe { &*self.global.value.get() }
    }
}

impl<T> DerefMut for GlobalGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariants, nobody else has access, and `self` is borrowed.
        unsafe { &mut *self.global.value.get() }
    }
}

impl<T> Drop for GlobalGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the current thread holds the mutex.
        unsafe { bindings::dm_rust_global_unlock() };
    }
}
