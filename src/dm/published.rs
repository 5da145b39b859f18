// SPDX-License-Identifier: GPL-2.0

//! Replacing data that others are reading: a pointer under SRCU and RCU.
//!
//! C headers: [`include/linux/srcu.h`](srctree/include/linux/srcu.h),
//! [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use super::bindings;
use super::load::load_relaxed;
use super::srcu::Srcu;
use super::srcu::SrcuTicket;
use super::warn::warn_once;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::atomic::Full;
use kernel::sync::atomic::Relaxed;
use kernel::sync::rcu;

/// A value that is read without locks and replaced as a whole.
///
/// There are two kinds of readers. Bios are registered, from when they are mapped to when they are
/// answered, and may remember something from the value meanwhile; everybody else holds the RCU read lock
/// for a moment.
///
/// # Examples
///
/// ```ignore
/// let map = KBox::pin_init(Published::new(KBox::new(Map::new(), GFP_KERNEL)?), GFP_KERNEL)?;
/// {
///     let guard = rcu::read_lock();
///     map.load(&guard).find(sector);
/// }
/// let ticket = map.readers().down_read();
/// map.load_registered(&ticket).map(|map| map.find(sector));
/// drop(ticket);
/// // Waits for those that still read the old map, and frees it.
/// drop(map.replace(larger));
/// ```
///
/// # Invariants
///
/// `value` comes from `KBox::into_raw`, and is freed only after it was replaced and then a grace period
/// of `readers` and one of RCU came to their ends.
#[pin_data(PinnedDrop)]
pub struct Published<T: Send + Sync + 'static> {
    value: Atomic<*mut T>,
    #[pin]
    readers: Srcu,
    _owned: PhantomData<KBox<T>>,
}

// SAFETY: This owns a `KBox<T>`, and hands out `&T` to whoever has a reference.
unsafe impl<T: Send + Sync + 'static> Send for Published<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Published<T> {}

impl<T: Send + Sync + 'static> Published<T> {
    /// Publishes the first value.
    pub fn new(value: KBox<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            readers <- Srcu::new(),
            // INVARIANT: The value comes from `KBox::into_raw`.
            value: Atomic::new(KBox::into_raw(value)),
            _owned: PhantomData,
        })
    }

    /// Returns where readers are registered.
    #[inline(always)]
    pub fn readers(&self) -> &Srcu {
        &self.readers
    }

    /// Returns the present value, which stays as long as the reader is registered.
    ///
    /// `ticket` must be one of [`readers`](Published::readers). With another one, there is a warning, and
    /// nothing is returned.
    #[inline(always)]
    pub fn load_registered<'a>(&'a self, ticket: &'a SrcuTicket) -> Option<&'a T> {
        if !self.readers.has_issued(ticket) {
            return wrong_ticket();
        }
        // Orders nothing but what depends on it as an address, as in `load`.
        let value = load_relaxed(&self.value);
        // SAFETY: By the type invariants, it points to a value that is not freed before a grace period
        // of `readers` after its replacement, and the ticket keeps that from ending during `'a`.
        Some(unsafe { &*value })
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
    pub fn replace(&self, value: KBox<T>) -> Retired<'_, T> {
        // Readers who see the new pointer see the value, as the exchange is fully ordered.
        let old = self.value.xchg(KBox::into_raw(value), Full);
        // SAFETY: By the type invariants, this pointer is not null.
        let old = unsafe { NonNull::new_unchecked(old) };
        // INVARIANT: The value was just replaced.
        Retired {
            value: old,
            readers: &self.readers,
            _owned: PhantomData,
        }
    }
}

#[cold]
#[inline(never)]
fn wrong_ticket<'a, T>() -> Option<&'a T> {
    warn_once!(c"a value was read with an SRCU ticket of another domain");
    None
}

#[pinned_drop]
impl<T: Send + Sync + 'static> PinnedDrop for Published<T> {
    fn drop(self: Pin<&mut Self>) {
        let value = self.value.load(Relaxed);
        // SAFETY: By the type invariants, this comes from `KBox::into_raw`. Whoever reads it borrows
        // `self`, and so there is nobody any more.
        drop(unsafe { KBox::from_raw(value) });
    }
}

/// A value that was replaced, and may still be read.
///
/// Dropping this waits for the readers, which takes milliseconds, or as long as the bios that are
/// registered, and frees the value. It must not be done by a reader: not while the same thread has an
/// [`rcu::Guard`], nor by anybody whom a registered bio waits for.
///
/// # Invariants
///
/// `value` was replaced in the [`Published`] that `readers` is a part of, and belongs to `self`.
#[must_use]
pub struct Retired<'a, T: Send + Sync + 'static> {
    value: NonNull<T>,
    readers: &'a Srcu,
    _owned: PhantomData<KBox<T>>,
}

// SAFETY: This owns a `KBox<T>`, and an `Srcu` can be used by any thread.
unsafe impl<T: Send + Sync + 'static> Send for Retired<'_, T> {}
// SAFETY: This only hands out `&T`.
unsafe impl<T: Send + Sync + 'static> Sync for Retired<'_, T> {}

impl<T: Send + Sync + 'static> Deref for Retired<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, the value is ours. Readers share it.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Send + Sync + 'static> Drop for Retired<'_, T> {
    fn drop(&mut self) {
        self.readers.synchronize();
        synchronize_rcu();
        // SAFETY: By the type invariants, the value is ours, and was replaced before the grace periods
        // began, so there are no readers any more; and `self` is not used any more.
        drop(unsafe { KBox::from_raw(self.value.as_ptr()) });
    }
}

/// Waits for all who hold the RCU read lock now, among whom the caller must not be.
pub fn synchronize_rcu() {
    // SAFETY: There are no demands but that it may sleep.
    unsafe { bindings::synchronize_rcu() };
}
