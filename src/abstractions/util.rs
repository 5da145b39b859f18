// SPDX-License-Identifier: GPL-2.0

//! Small things that targets need and the `kernel` crate does not have.
//!
//! C headers: [`include/linux/uuid.h`](srctree/include/linux/uuid.h),
//! [`include/linux/crc32.h`](srctree/include/linux/crc32.h),
//! [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use core::mem::MaybeUninit;

use kernel::{
    ffi::c_int,
    prelude::*,
    str::CStr,
    time::msecs_to_jiffies,
    types::Opaque, //
};

use super::bindings;

/// Returns a new random UUID (version 4): `generate_random_uuid()`. From any context.
pub fn random_uuid() -> [u8; 16] {
    let mut uuid = [0; 16];
    // SAFETY: The function writes 16 bytes.
    unsafe { bindings::generate_random_uuid(uuid.as_mut_ptr()) };
    uuid
}

/// Returns the CRC-32C of `data`, by the processor's own instruction where it has one: `crc32c()`, but begun and
/// ended with all bits inverted, as the standard has it. From any context.
pub fn crc32c(data: &[u8]) -> u32 {
    // SAFETY: The function reads these bytes.
    unsafe { bindings::dm_rust_crc32c(data.as_ptr().cast(), data.len()) }
}

/// Returns the version of the module that this is part of, `MODULE_VERSION()`; none if it has none.
pub fn module_version() -> Option<&'static CStr> {
    // SAFETY: There are no demands.
    let version = unsafe { bindings::dm_rust_module_version() };
    // SAFETY: What is not null is terminated, and stays as long as the module.
    (!version.is_null()).then(|| unsafe { CStr::from_char_ptr(version) })
}

/// Returns how many milliseconds ago the machine was started, not counting sleep. From any context.
pub fn monotonic_ms() -> u64 {
    // SAFETY: There are no demands.
    let nanoseconds = unsafe { bindings::ktime_get() };
    // It begins at 0 and does not go back.
    nanoseconds.unsigned_abs() / 1_000_000
}

/// Initialises a place with what is in a box. So a large value is made once, and is on no stack: neither on that of
/// who makes it nor on that of who has it put into its place. Frees memory when that is done.
pub fn unboxed<T, E>(boxed: KBox<T>) -> impl Init<T, E> {
    let init = move |slot: *mut T| {
        let content = KBox::into_raw(boxed);
        // SAFETY: Both are valid for a `T`, and the slot is no part of the box.
        unsafe { content.copy_to_nonoverlapping(slot, 1) };
        // SAFETY: The pointer comes from a box. Its content is in the slot now, and is not dropped here.
        drop(unsafe { KBox::from_raw(content.cast::<MaybeUninit<T>>()) });
        Ok(())
    };
    // SAFETY: The closure initialises the slot, and never fails. A value out of a box may be moved.
    unsafe { pin_init::init_from_closure(init) }
}

/// Limits how often something is said: `struct ratelimit_state`.
///
/// # Examples
///
/// ```
/// # use kernel::util::RateLimit;
/// # use kernel::prelude::*;
/// # fn example(log: &RateLimit) {
/// if log.allow() {
///     pr_warn!("...\n");
/// }
/// # }
/// ```
///
/// # Invariants
///
/// `state` is initialised.
#[pin_data]
pub struct RateLimit {
    #[pin]
    state: Opaque<bindings::ratelimit_state>,
}

// SAFETY: The state has its own lock.
unsafe impl Send for RateLimit {}
// SAFETY: The state has its own lock.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    /// Allows `burst` times within `seconds` seconds.
    pub fn new(seconds: u16, burst: u16) -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: It is initialised here.
            state <- Opaque::ffi_init(move |slot: *mut bindings::ratelimit_state| {
                let interval = msecs_to_jiffies(u32::from(seconds).saturating_mul(1000));
                let interval = c_int::try_from(interval).unwrap_or(c_int::MAX);
                // SAFETY: `slot` is memory of the right size.
                unsafe { bindings::dm_rust_ratelimit_init(slot, interval, c_int::from(burst)) };
            }),
        })
    }

    /// Whether it may be said now: `___ratelimit()`. If it was not for a while, the kernel log tells how often.
    /// From any context.
    pub fn allow(&self) -> bool {
        // SAFETY: By the type invariants, the state is initialised, and the name is terminated.
        unsafe { bindings::___ratelimit(self.state.get(), c"device-mapper".as_char_ptr()) != 0 }
    }
}
