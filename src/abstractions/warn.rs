// SPDX-License-Identifier: GPL-2.0

//! Saying that a target has a bug.

/// Puts a warning with a backtrace into the kernel log, the first time that this place is reached.
macro_rules! warn_once {
    ($message:literal) => {{
        static DONE: ::kernel::sync::atomic::Atomic<bool> =
            ::kernel::sync::atomic::Atomic::new(false);
        if !DONE.xchg(true, ::kernel::sync::atomic::Relaxed) {
            // SAFETY: The message is terminated.
            unsafe {
                $crate::abstractions::bindings::dm_rust_warn(::kernel::str::CStrExt::as_char_ptr(
                    $message,
                ))
            };
        }
    }};
}

pub(super) use warn_once;
