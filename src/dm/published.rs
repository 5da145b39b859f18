// SPDX-License-Identifier: GPL-2.0

//! Replacing data that others are reading: a pointer under RCU.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use super::bindings;
use super::load::load_relaxed;
use super::srcu::Srcu;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::atomic::Full;
use kernel::sync::rcu;

/// A value that is read without locks and replaced as a whole.
///
/// # Examples
///
/// ```ignore
/// let map = Published::new(KBox::new(Map::new(), GFP_KERNEL)?);
/// {
///     let guard = rcu::read_lock();
///     map.load(&guard).find(sector);
/// }
/// // Waits for those that still read the old map, and frees it.
/// drop(map.replace(larger));
/// ```
///
/// # Invariants
///
/// `value` comes from `KBox::into_raw`, and is freed only an RCU grace period after it was replaced.
pub struct Published<T: Send + Sync + 'static> {
    value: Atomic<*mut T>,
    _owned: PhantomData<KBox<T>>,
}

// SAFETY: This owns a `KBox<T>`, and hands out `&T` to whoever has a reference.
unsafe impl<T: Send + Sync + 'static> Send for Published<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Published<T> {}

impl<T: Send + Sync + 'static> Published<T> {
    /// Publishes the first value.
    pub fn new(value: KBox<T>) -> Self {
        // INVARIANT: The value comes from `KBox::into_raw`.
        Self {
            value: Atomic::new(KBox::into_raw(value)),
            _owned: PhantomData,
        }
    }

    /// Returns the present value, which stays as long as the RCU read lock is held.
    #[inline(always)]
    pub fn load<'a>(&'a self, _guard: &'a rcu::Guard) -> &'a T {
        // This is `rcu_dereference()`, as the result is used as an address.
        let value = load_relaxed(&self.value);
        // SAFETY: By the type invariants, it points to a value that is not freed before a grace period
        // after its replacement, and the guard keeps that from ending during `'a`.
        unsafe { &*value }
    }

    /// Publishes another value.
    ///
    /// If there are several writers, all values are published, in some order. What was published
    /// before must be given up, as all results but this, without an [`rcu::Guard`]: see [`Retired`].
    pub fn replace(&self, value: KBox<T>) -> Retired<T> {
        // Readers who see the new pointer see the value, as the exchange is fully ordered.
        let old = self.value.xchg(KBox::into_raw(value), Full);
        // SAFETY: By the type invariants, this pointer is not null.
        let old = unsafe { NonNull::new_unchecked(old) };
        // INVARIANT: The value was just replaced.
        Retired {
            value: old,
            _owned: PhantomData,
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Published<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this comes from `KBox::into_raw`; as `load` borrows `self`,
        // there are no readers any more.
        drop(unsafe { KBox::from_raw(*self.value.get_mut()) });
    }
}

/// A value that was replaced, and may still be read.
///
/// Dropping this waits for the readers, which takes milliseconds, and frees the value. Like all that
/// sleeps, it must not be done by a reader: not while the same thread has an [`rcu::Guard`].
///
/// # Invariants
///
/// `value` was replaced in its [`Published`] and belongs to `self`.
#[must_use]
pub struct Retired<T: Send + Sync + 'static> {
    value: NonNull<T>,
    _owned: PhantomData<KBox<T>>,
}

// SAFETY: This owns a `KBox<T>`.
unsafe impl<T: Send + Sync + 'static> Send for Retired<T> {}
// SAFETY: This only hands out `&T`.
unsafe impl<T: Send + Sync + 'static> Sync for Retired<T> {}

impl<T: Send + Sync + 'static> Retired<T> {
    /// Waits for all readers and returns the value. Not for who has an [`rcu::Guard`].
    pub fn reclaim(self) -> KBox<T> {
        let this = ManuallyDrop::new(self);
        // SAFETY: There are no demands but that it may sleep.
        unsafe { bindings::synchronize_rcu() };
        // SAFETY: By the type invariants, the value is ours, and was replaced before the grace period
        // began, so there are no readers any more.
        unsafe { KBox::from_raw(this.value.as_ptr()) }
    }

    /// Waits for all readers and also for all tickets of `srcu`, and returns the value.
    ///
    /// For values that bios remember something from, and use it until they are done.
    pub fn reclaim_after(self, srcu: &Srcu) -> KBox<T> {
        srcu.synchronize();
        self.reclaim()
    }
}

impl<T: Send + Sync + 'static> Deref for Retired<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, the value is ours. Readers share it.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Send + Sync + 'static> Drop for Retired<T> {
    fn drop(&mut self) {
        // SAFETY: There are no demands but that it may sleep.
        unsafe { bindings::synchronize_rcu() };
        // SAFETY: As in `reclaim`; and `self` is not used any more.
        drop(unsafe { KBox::from_raw(self.value.as_ptr()) });
    }
}

/// Waits for all who hold the RCU read lock now, among whom the caller must not be.
pub fn synchronize_rcu() {
    // SAFETY: There are no demands but that it may sleep.
    unsafe { bindings::synchronize_rcu() };
}
