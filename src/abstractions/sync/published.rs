// SPDX-License-Identifier: GPL-2.0

//! Replacing data that others are reading: a pointer under SRCU and RCU.
//!
//! C headers: [`include/linux/srcu.h`](srctree/include/linux/srcu.h),
//! [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ops::Deref, //
};

use kernel::{
    alloc::{
        AllocError,
        Flags, //
    },
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        rcu,
        Mutex, //
    }, //
};

use crate::abstractions::{
    bindings,
    warn::warn_once, //
};

use super::{
    load::load_relaxed,
    srcu::{
        GracePeriod,
        Srcu,
        SrcuReader, //
    }, //
};

/// A value that is read without locks and replaced as a whole.
///
/// There are two kinds of readers. Bios are registered, from when they are mapped to when they are
/// answered, and may remember something from the value meanwhile; everybody else holds the RCU read lock
/// for a moment.
///
/// # Examples
///
/// ```
/// # use kernel::sync::Published;
/// # use kernel::sync::Replacement;
/// # use kernel::prelude::*;
/// # use kernel::sync::rcu;
/// # struct Map;
/// # impl Map {
/// #     fn new() -> Self {
/// #         Self
/// #     }
/// #     fn find(&self, _sector: u64) {}
/// # }
/// # fn example(sector: u64, larger: Map) -> Result {
/// let map = KBox::pin_init(Published::new(KBox::new(Map::new(), GFP_KERNEL)?), GFP_KERNEL)?;
/// {
///     let guard = rcu::read_lock();
///     map.load(&guard).find(sector);
/// }
/// let reader = map.readers().down_read();
/// map.load_registered(&reader).map(|map| map.find(sector));
/// drop(reader);
/// map.replace(Replacement::new(larger, GFP_KERNEL)?);
/// // Later, and again if some bio takes long: frees the old map if nobody reads it any more.
/// let all_freed = map.reclaim();
/// # Ok(())
/// # }
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
    /// What was replaced and may still be read.
    #[pin]
    retired: Mutex<List<T>>,
    _owned: PhantomData<KBox<T>>,
}

// SAFETY: This owns a `KBox<T>`, and hands out `&T` to whoever has a reference.
unsafe impl<T: Send + Sync + 'static> Send for Published<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Published<T> {}

impl<T: Send + Sync + 'static> Published<T> {
    /// Publishes the first value. Sleeps for memory.
    pub fn new(value: KBox<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            readers <- Srcu::new(),
            retired <- new_mutex!(None, "dm_published"),
            // INVARIANT: The value comes from `KBox::into_raw`.
            value: Atomic::new(KBox::into_raw(value)),
            _owned: PhantomData,
        })
    }

    /// Returns the domain in which bios are registered as readers of the value.
    #[inline(always)]
    pub fn readers(&self) -> &Srcu {
        &self.readers
    }

    /// Returns the present value, which stays as long as the reader is registered: `srcu_dereference()`. From any
    /// context.
    ///
    /// `reader` must be one of [`readers`](Published::readers). With another one, there is a warning, and
    /// nothing is returned.
    #[inline(always)]
    pub fn load_registered<'a>(&'a self, reader: &'a SrcuReader) -> Option<&'a T> {
        if !self.readers.has(reader) {
            return wrong_reader();
        }
        // Orders nothing but what depends on it as an address, as in `load`.
        let value = load_relaxed(&self.value);
        // SAFETY: By the type invariants, it points to a value that is not freed before a grace period
        // of `readers` after its replacement, and the reader keeps that from ending during `'a`.
        Some(unsafe { &*value })
    }

    /// Returns the present value, which stays as long as the RCU read lock is held: `rcu_dereference()`.
    #[inline(always)]
    pub fn load<'a>(&'a self, _guard: &'a rcu::Guard) -> &'a T {
        // This is `rcu_dereference()`, as the result is used as an address.
        let value = load_relaxed(&self.value);
        // SAFETY: By the type invariants, it points to a value that is not freed before a grace period
        // after its replacement, and the guard keeps that from ending during `'a`.
        unsafe { &*value }
    }

    /// Publishes another value. The one before is kept for those who still read it, until it is freed by
    /// [`reclaim`](Published::reclaim), or with `self`.
    ///
    /// If there are several writers, all values are published, in some order. May sleep for a moment, and does
    /// not allocate.
    pub fn replace(&self, next: Replacement<T>) {
        let Replacement { value, place } = next;
        // Readers who see the new pointer see the value, as the exchange is fully ordered.
        let old = self.value.xchg(KBox::into_raw(value), Full);
        let retired = Retired {
            // INVARIANT: The value was just replaced, and by the type invariants it comes from
            // `KBox::into_raw`. The grace period begins after that.
            value: old,
            unread: self.readers.begin_grace_period(),
            next: None,
        };
        push(&mut self.retired.lock(), KBox::write(place, retired));
    }

    /// Frees those values that were replaced and are read by no bio any more. Returns whether that was all.
    ///
    /// Does not wait for bios, but for those who hold the RCU read lock, if there is something to free: that
    /// takes milliseconds. The caller must not hold it.
    pub fn reclaim(&self) -> bool {
        let (mut unread, mut all) = (None, true);
        let mut rest = self.retired.lock().take();
        while let Some(retired) = pop(&mut rest) {
            if self.readers.is_over(retired.unread) {
                push(&mut unread, retired);
            } else {
                push(&mut self.retired.lock(), retired);
                all = false;
            }
        }
        if unread.is_some() {
            synchronize_rcu();
        }
        while let Some(retired) = pop(&mut unread) {
            // SAFETY: By the type invariants of `Retired`, this comes from `KBox::into_raw` and is ours. It
            // was replaced before both grace periods began, so there are no readers any more.
            drop(unsafe { KBox::from_raw(retired.value) });
        }
        all
    }
}

#[cold]
#[inline(never)]
fn wrong_reader<'a, T>() -> Option<&'a T> {
    warn_once!(c"a value was read with a reader of another SRCU domain");
    None
}

#[pinned_drop]
impl<T: Send + Sync + 'static> PinnedDrop for Published<T> {
    fn drop(self: Pin<&mut Self>) {
        let value = self.value.load(Relaxed);
        // SAFETY: By the type invariants, this comes from `KBox::into_raw`. Whoever reads it borrows
        // `self`, and so there is nobody any more.
        drop(unsafe { KBox::from_raw(value) });
        let mut retired = self.retired.lock().take();
        while let Some(retired) = pop(&mut retired) {
            // SAFETY: By the type invariants of `Retired`, this comes from `KBox::into_raw` and is ours.
            // There are no readers, as above.
            drop(unsafe { KBox::from_raw(retired.value) });
        }
    }
}

/// A value that is to be published, and memory to note what it replaces.
pub struct Replacement<T> {
    value: KBox<T>,
    place: KBox<MaybeUninit<Retired<T>>>,
}

impl<T> Replacement<T> {
    /// Allocates memory for `value`, and for the note of what it replaces. Sleeps, if `flags` let it.
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            value: KBox::new(value, flags)?,
            place: KBox::new_uninit(flags)?,
        })
    }
}

impl<T> Deref for Replacement<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A value that was replaced, and may still be read.
///
/// # Invariants
///
/// `value` comes from `KBox::into_raw`, and belongs to `self`. It was replaced in the [`Published`] that
/// `self` is in before `unread` began there.
struct Retired<T> {
    value: *mut T,
    /// When this is over, no bio reads it.
    unread: GracePeriod,
    next: List<T>,
}

/// Some of them.
type List<T> = Option<KBox<Retired<T>>>;

fn push<T>(list: &mut List<T>, mut retired: KBox<Retired<T>>) {
    retired.next = list.take();
    *list = Some(retired);
}

fn pop<T>(list: &mut List<T>) -> List<T> {
    let mut first = list.take()?;
    *list = first.next.take();
    Some(first)
}

/// Waits for all who hold the RCU read lock now, among whom the caller must not be: `synchronize_rcu()`. Sleeps, for
/// milliseconds. 7.3 has it as `kernel::sync::rcu::synchronize_rcu()`, 7.2 does not.
pub fn synchronize_rcu() {
    // SAFETY: There are no demands but that it may sleep.
    unsafe { bindings::synchronize_rcu() };
}
