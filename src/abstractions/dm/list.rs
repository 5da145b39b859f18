// SPDX-License-Identifier: GPL-2.0

//! Handing bios from `end_io` to a worker.
//!
//! C header: [`include/linux/llist.h`](srctree/include/linux/llist.h), which does the same for what has an
//! `llist_node`
//!
//! `end_io` may run in an interrupt, so there is no lock here. The bios are linked by `bi_next`,
//! which belongs to whoever has a bio, and is null again when a bio leaves the list.

use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Relaxed,
    Release, //
};

use crate::abstractions::bindings;

use super::{
    owned::OwnedBio,
    target::Target, //
};

/// A list of bios that anyone adds to, from any context, and that is emptied at one go.
///
/// # Invariants
///
/// `head` and the `bi_next` pointers after it link bios that satisfy the invariants of
/// [`OwnedBio<T>`], but for `bi_next`, and belong to the list; the last pointer is null.
pub struct BioList<T: Target> {
    head: Atomic<*mut bindings::bio>,
    _bios: PhantomData<OwnedBio<T>>,
}

// SAFETY: The list is a place for `OwnedBio<T>`, which is `Send`.
unsafe impl<T: Target> Send for BioList<T> {}
// SAFETY: Bios are moved in and out by atomic operations; no reference to one is handed out.
unsafe impl<T: Target> Sync for BioList<T> {}

impl<T: Target> BioList<T> {
    /// Makes an empty list.
    pub const fn new() -> Self {
        // INVARIANT: There are no bios.
        Self {
            head: Atomic::new(ptr::null_mut()),
            _bios: PhantomData,
        }
    }

    /// Adds a bio: `llist_add()`. From any context. Returns `true` if the list was empty, and so whoever
    /// empties it has to be told.
    pub fn push(&self, bio: OwnedBio<T>) -> bool {
        let bio = bio.into_raw().as_ptr();
        let mut head = self.head.load(Relaxed);
        loop {
            // SAFETY: The bio is ours until the exchange below succeeds.
            unsafe { (*bio).bi_next = head };
            // INVARIANT: The bio becomes the head and links to what was there before. `Release` lets
            // whoever takes it see the link, and all that was written to the bio.
            match self.head.cmpxchg(head, bio, Release) {
                Ok(_) => return head.is_null(),
                Err(other) => head = other,
            }
        }
    }

    /// Whether there is nothing in the list.
    pub fn is_empty(&self) -> bool {
        self.head.load(Relaxed).is_null()
    }

    /// Takes all bios, the oldest first: `llist_del_all()` and `llist_reverse_order()`. From any context.
    pub fn take_all(&self) -> TakenBios<T> {
        // INVARIANT: The list is empty, and the bios belong to us.
        let mut newest = self.head.xchg(ptr::null_mut(), Acquire);
        let mut oldest = ptr::null_mut();
        while let Some(bio) = NonNull::new(newest) {
            // SAFETY: By the type invariants, this is a bio, and now it is ours.
            unsafe {
                newest = (*bio.as_ptr()).bi_next;
                (*bio.as_ptr()).bi_next = oldest;
            }
            oldest = bio.as_ptr();
        }
        // INVARIANT: The same bios, linked in the other direction.
        TakenBios {
            next: oldest,
            _bios: PhantomData,
        }
    }
}

impl<T: Target> Default for BioList<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Target> Drop for BioList<T> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

/// The bios that were taken out of a [`BioList`].
///
/// # Invariants
///
/// `next` and the `bi_next` pointers after it link bios that satisfy the invariants of
/// [`OwnedBio<T>`], but for `bi_next`, and belong to `self`; the last pointer is null.
pub struct TakenBios<T: Target> {
    next: *mut bindings::bio,
    _bios: PhantomData<OwnedBio<T>>,
}

// SAFETY: This is a list of `OwnedBio<T>`, which is `Send`.
unsafe impl<T: Target> Send for TakenBios<T> {}

impl<T: Target> Iterator for TakenBios<T> {
    type Item = OwnedBio<T>;

    fn next(&mut self) -> Option<OwnedBio<T>> {
        let bio = NonNull::new(self.next)?;
        // SAFETY: By the type invariants, this is a bio of ours.
        unsafe {
            // INVARIANT: The bio is not in the list any more, and has a null `bi_next`, as outside of
            // lists.
            self.next = (*bio.as_ptr()).bi_next;
            (*bio.as_ptr()).bi_next = ptr::null_mut();
        }
        // SAFETY: By the type invariants, the bio satisfies what `OwnedBio` needs; it is handed on.
        Some(unsafe { OwnedBio::from_raw(bio) })
    }
}

impl<T: Target> Drop for TakenBios<T> {
    fn drop(&mut self) {
        // Each of them warns and fails: nobody wants to lose bios.
        self.for_each(drop);
    }
}
