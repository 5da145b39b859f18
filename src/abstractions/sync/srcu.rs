// SPDX-License-Identifier: GPL-2.0

//! Knowing when all bios that came before are done: sleepable RCU, fast up/down flavour.
//!
//! C header: [`include/linux/srcu.h`](srctree/include/linux/srcu.h)
//!
//! A target registers a [`SrcuReader`] for a bio in `map` and sends it along ([`MapBio::remap_with`]). It
//! ends when the bio comes back, on whichever CPU and in whatever context that is. [`Srcu::synchronize`] waits
//! until all readers have ended that were registered when it was called. Registering one and ending it cost an
//! increment of per-CPU memory each.
//!
//! [`MapBio::remap_with`]: crate::abstractions::dm::MapBio::remap_with

use core::num::NonZeroUsize;

use kernel::{
    ffi::c_ulong,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    },
    types::Opaque, //
};

use crate::abstractions::{
    bindings,
    compat,
    util::monotonic_ms, //
};

/// A domain of readers and whoever waits for them: `struct srcu_struct`.
///
/// Dropping it waits for all readers; if one was lost, it waits for ever.
///
/// # Examples
///
/// ```
/// # use kernel::sync::Srcu;
/// # use kernel::prelude::*;
/// # fn example() -> Result {
/// let domain = KBox::pin_init(Srcu::new(), GFP_KERNEL)?;
/// let reader = domain.down_read(); // goes with a bio, say
/// assert!(!domain.synchronize_within(1));
/// drop(reader); // in an interrupt, perhaps
/// domain.synchronize();
/// # Ok(())
/// # }
/// ```
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
    /// Makes a domain without readers: `init_srcu_struct_fast_updown()`. Sleeps for memory.
    pub fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: The helper initialises it with this flavour.
            inner <- Opaque::try_ffi_init(|slot: *mut bindings::srcu_struct| {
                // SAFETY: `slot` is memory of the right size, which does not move.
                kernel::error::to_result(unsafe { bindings::dm_rust_srcu_init(slot) })
            }),
        })
    }

    /// Registers a reader: `srcu_down_read_fast()`. Does not wait, and may be called from any context but an NMI.
    ///
    /// The reader is registered until it is dropped. It may be lost, which is safe, but whoever waits then
    /// waits for ever.
    #[inline(always)]
    pub fn down_read(&self) -> SrcuReader {
        // SAFETY: By the type invariants, the domain is of this flavour.
        let reader = unsafe { compat::srcu::down_read(self.inner.get()) };
        // SAFETY: It has an address in it, of a counter or of the domain.
        let reader = unsafe { NonZeroUsize::new_unchecked(reader) };
        // INVARIANT: The reader was just registered.
        SrcuReader(reader)
    }

    /// Whether a reader is registered in this domain.
    #[inline(always)]
    pub(super) fn has(&self, reader: &SrcuReader) -> bool {
        // SAFETY: By the type invariants, the domain is of this flavour.
        unsafe { compat::srcu::is_reader(self.inner.get(), reader.0.get()) }
    }

    /// Waits for all readers that are registered now: `synchronize_srcu()`. Later ones do not matter. Sleeps.
    ///
    /// The caller must not hold what one of the readers needs to get to its end. This waits in steps: readers
    /// may take as long as a disk likes, and whoever sleeps for that long at one go is taken for a hung task.
    pub fn synchronize(&self) {
        self.synchronize_unless(|_| false);
    }
}

/// A time that ends when all readers are gone that were registered when it began.
///
/// It belongs to the domain where it began, and means nothing to another one.
#[derive(Clone, Copy)]
pub(super) struct GracePeriod(c_ulong);

impl Srcu {
    /// Waits for all readers that are registered now, but gives up after `milliseconds`. Returns whether all of
    /// them are gone. Sleeps.
    pub fn synchronize_within(&self, milliseconds: u64) -> bool {
        self.synchronize_unless(|waited| waited >= milliseconds)
    }

    /// Waits for all readers that are registered now, but gives up when `stop` says so, which is asked each
    /// millisecond and told how many have passed. Returns whether all of the readers are gone. Sleeps.
    pub fn synchronize_unless(&self, mut stop: impl FnMut(u64) -> bool) -> bool {
        let period = self.begin_grace_period();
        // SAFETY: By the type invariants, the domain is initialised. This queues a callback in it, which
        // is waited for before it goes.
        unsafe { bindings::srcu_expedite_current(self.inner.get()) };
        let begun = monotonic_ms();
        loop {
            if self.is_over(period) {
                return true;
            }
            if stop(monotonic_ms().saturating_sub(begun)) {
                return false;
            }
            fsleep(Delta::from_millis(1));
        }
    }

    /// Has the domain look for the end of the readers that are registered now, without waiting for it.
    pub(super) fn begin_grace_period(&self) -> GracePeriod {
        // SAFETY: By the type invariants, the domain is initialised.
        GracePeriod(unsafe { bindings::start_poll_synchronize_srcu(self.inner.get()) })
    }

    /// Whether all readers are gone that were registered when a grace period of this domain began. What they
    /// did is then seen by the caller.
    pub(super) fn is_over(&self, period: GracePeriod) -> bool {
        // SAFETY: By the type invariants, the domain is initialised.
        unsafe { bindings::poll_state_synchronize_srcu(self.inner.get(), period.0) }
    }
}

#[pinned_drop]
impl PinnedDrop for Srcu {
    fn drop(self: Pin<&mut Self>) {
        // With readers left, `cleanup_srcu_struct` would give up and leave the domain in use. Only lost
        // readers can be left, and a report of a hung task is right for these.
        //
        // SAFETY: By the type invariants, the domain is initialised.
        unsafe { bindings::synchronize_srcu(self.inner.get()) };
        // Nor may callbacks be left, of `synchronize_unless`. One that was asked for again while it waited
        // queues itself once more when it runs, which is behind the first barrier where the CPU that waits
        // here has another list of callbacks. The second barrier is behind that.
        for _ in 0..2 {
            // SAFETY: By the type invariants, the domain is initialised.
            unsafe { bindings::srcu_barrier(self.inner.get()) };
        }
        // SAFETY: By the type invariants, the domain is initialised. There are no readers, nor can
        // there be new ones, as nobody else has a reference.
        unsafe { bindings::cleanup_srcu_struct(self.inner.get()) };
    }
}

/// A registered reader of a [`Srcu`] domain, as small as a pointer, also as an `Option`. This flavour
/// lets a reader end in another context than where it began. It ends when this is dropped, which may be
/// done in any context but an NMI.
///
/// The domain exists as long as it has a reader, as it is not dropped before.
///
/// # Invariants
///
/// This says where in an initialised domain a reader is counted, which is registered and belongs to `self`.
#[must_use]
pub struct SrcuReader(NonZeroUsize);

impl Drop for SrcuReader {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the reader is registered, and it is ours.
        unsafe { compat::srcu::up_read(self.0.get()) };
    }
}
