// SPDX-License-Identifier: GPL-2.0

//! Knowing when all bios that came before are done: sleepable RCU, fast up/down flavour.
//!
//! C header: [`include/linux/srcu.h`](srctree/include/linux/srcu.h)
//!
//! A target gives each bio a [`SrcuTicket`] in `map` and takes it back in `end_io`, on whichever CPU
//! and in whatever context that is. [`Srcu::synchronize`] then waits until all tickets that were out
//! when it was called are back. Giving out and taking back cost an increment of per-CPU memory each.
//!
//! This depends on `TREE_SRCU`, where a reader is named by the address of a counter. That is the SRCU
//! of all kernels but the smallest, which have one CPU and no preemption (`TINY_SRCU`).

use super::bindings;
use super::util::monotonic_ms;
use super::warn::warn_once;
use core::num::NonZeroUsize;
use kernel::prelude::*;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::types::Opaque;

/// A domain of readers and whoever waits for them: `struct srcu_struct`.
///
/// Dropping it waits for all readers; if a ticket was lost, it waits for ever.
///
/// # Invariants
///
/// The inside is initialised as a fast up/down SRCU domain.
#[pin_data(PinnedDrop)]
pub struct Srcu {
    #[pin]
    inner: Opaque<bindings::srcu_struct>,
}

// SAFETY: An SRCU domain may be used from all threads.
unsafe impl Send for Srcu {}
// SAFETY: An SRCU domain may be used from all threads.
unsafe impl Sync for Srcu {}

impl Srcu {
    /// Makes a domain without readers.
    pub fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: The helper initialises it with this flavour.
            inner <- Opaque::try_ffi_init(|slot: *mut bindings::srcu_struct| {
                // SAFETY: `slot` is memory of the right size, which does not move.
                kernel::error::to_result(unsafe { bindings::dm_rust_srcu_init(slot) })
            }),
        })
    }

    /// Registers a reader. Does not wait, and may be called from any context but an NMI.
    ///
    /// The ticket must be given back to this domain with [`up_read`](Srcu::up_read). It may be
    /// lost, which is safe, but whoever waits then waits for ever.
    #[inline(always)]
    pub fn down_read(&self) -> SrcuTicket {
        // SAFETY: By the type invariants, the domain is of this flavour.
        let reader = unsafe { bindings::dm_rust_srcu_down_read(self.inner.get()) };
        // SAFETY: What names a reader is the address of a counter.
        SrcuTicket(unsafe { NonZeroUsize::new_unchecked(reader) })
    }

    /// Unregisters a reader. May be called from any context but an NMI.
    ///
    /// If the ticket came from another domain, there is a warning, and nothing happens.
    #[inline(always)]
    pub fn up_read(&self, ticket: SrcuTicket) {
        // SAFETY: By the type invariants, the domain is of this flavour, and the helper refuses
        // readers of other domains. A ticket cannot be copied, so the reader was not given back yet.
        if !unsafe { bindings::dm_rust_srcu_up_read(self.inner.get(), ticket.0.get()) } {
            warn_once!(c"an SRCU ticket came back to another domain");
        }
    }

    /// Waits for all readers that are registered now. Later ones do not matter.
    ///
    /// The caller must not hold what one of the readers needs to get to its end.
    pub fn synchronize(&self) {
        // SAFETY: By the type invariants, the domain is initialised.
        unsafe { bindings::synchronize_srcu(self.inner.get()) };
    }

    /// Like [`synchronize`](Srcu::synchronize), faster and at the expense of all other CPUs.
    pub fn synchronize_expedited(&self) {
        // SAFETY: By the type invariants, the domain is initialised.
        unsafe { bindings::synchronize_srcu_expedited(self.inner.get()) };
    }
}

impl Srcu {
    /// Like [`synchronize`](Srcu::synchronize), but gives up after `milliseconds`. Returns whether all
    /// readers are gone.
    pub fn synchronize_within(&self, milliseconds: u64) -> bool {
        // SAFETY: By the type invariants, the domain is initialised.
        let cookie = unsafe { bindings::start_poll_synchronize_srcu(self.inner.get()) };
        // SAFETY: By the type invariants, the domain is initialised. This queues a callback in it, which
        // is waited for before it goes.
        unsafe { bindings::srcu_expedite_current(self.inner.get()) };
        let begun = monotonic_ms();
        loop {
            // SAFETY: By the type invariants, the domain is initialised; the cookie is from it.
            if unsafe { bindings::poll_state_synchronize_srcu(self.inner.get(), cookie) } {
                return true;
            }
            if monotonic_ms().saturating_sub(begun) >= milliseconds {
                return false;
            }
            fsleep(Delta::from_millis(1));
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Srcu {
    fn drop(self: Pin<&mut Self>) {
        // With readers left, `cleanup_srcu_struct` would give up and leave the domain in use.
        self.synchronize();
        // Nor may callbacks be left, of `synchronize_within`.
        //
        // SAFETY: By the type invariants, the domain is initialised.
        unsafe { bindings::srcu_barrier(self.inner.get()) };
        // SAFETY: By the type invariants, the domain is initialised. There are no readers, nor can
        // there be new ones, as nobody else has a reference.
        unsafe { bindings::cleanup_srcu_struct(self.inner.get()) };
    }
}

/// A registered reader of a [`Srcu`] domain, as small as a pointer, also as an `Option`. This flavour
/// lets a reader end in another context than where it began.
///
/// This has no destructor, so that it can be part of a bio's data: see [`Target::PerBio`].
///
/// [`Target::PerBio`]: super::Target::PerBio
#[must_use]
pub struct SrcuTicket(NonZeroUsize);
