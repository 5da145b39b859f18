// SPDX-License-Identifier: GPL-2.0

//! Arrays of cells that are read without any lock, and get longer.

use core::slice;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::Atomic,
        Mutex, //
    }, //
};

use super::load::{
    load_acquire,
    load_relaxed,
    store_release, //
};

/// An array that is read without locks, and replaced by longer ones.
///
/// Nobody waits for its readers: all arrays that there were are kept as long as this is. So it is for what
/// grows seldom, and by much.
///
/// # Examples
///
/// ```
/// # use kernel::sync::Growing;
/// # use kernel::prelude::*;
/// # fn example(longer: KVVec<u32>) -> Result {
/// let cells = KBox::pin_init(Growing::new(KVVec::<u32>::from_elem(0, 16, GFP_KERNEL)?), GFP_KERNEL)?;
/// let first = cells.get().first(); // in `map`, say
/// cells.grow(longer)?; // and what was read stays
/// # let _ = first;
/// # Ok(())
/// # }
/// ```
///
/// # Invariants
///
/// `start` points to the elements of an array in `all`, which has at least `len` of them. No array in `all`
/// is changed or taken out, but with `self`.
#[pin_data]
pub struct Growing<T: Send + Sync + 'static> {
    start: Atomic<*mut T>,
    len: Atomic<usize>,
    #[pin]
    all: Mutex<KVec<KVVec<T>>>,
}

// SAFETY: This owns arrays of `T`, and hands out `&T` to whoever has a reference.
unsafe impl<T: Send + Sync + 'static> Send for Growing<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Growing<T> {}

impl<T: Send + Sync + 'static> Growing<T> {
    /// Makes one that begins with the array `first`. Sleeps for memory.
    pub fn new(first: KVVec<T>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let (start, len) = (first.as_ptr().cast_mut(), first.len());
            let mut all = KVec::new();
            all.push(first, GFP_KERNEL)?;
            // INVARIANT: The array is in `all`. Its elements stay where they are.
            Ok(try_pin_init!(Self {
                start: Atomic::new(start),
                len: Atomic::new(len),
                all <- new_mutex!(all, "dm_growing"),
            }))
        })
    }

    /// Returns the present array. From any context.
    #[inline(always)]
    pub fn get(&self) -> &[T] {
        // In this order: a length from before does for what is longer.
        let len = load_acquire(&self.len);
        let start = load_relaxed(&self.start);
        // SAFETY: By the type invariants, `start` points to elements that stay as long as `self` does, and
        // nobody has a mutable reference to them. They are `len` at least: arrays only get longer, and the length
        // of each is stored behind its start.
        unsafe { slice::from_raw_parts(start, len) }
    }

    /// Goes on with a longer array; one that is not longer is not used. Whoever reads the old one sees no more
    /// of what is changed. Fails if there is no memory. May sleep.
    pub fn grow(&self, longer: KVVec<T>) -> Result {
        let mut all = self.all.lock();
        let (start, len) = (longer.as_ptr().cast_mut(), longer.len());
        if len > load_relaxed(&self.len) {
            all.push(longer, GFP_KERNEL)?;
            // INVARIANT: The array is in `all`, and is longer than the one before. Only who has the lock gets here.
            store_release(&self.start, start);
            store_release(&self.len, len);
        }
        Ok(())
    }
}
