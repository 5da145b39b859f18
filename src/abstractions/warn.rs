// SPDX-License-Identifier: GPL-2.0

//! Saying that a target has a bug.

/// Puts a warning with a backtrace into the kernel log, the first time that this place is reached: `WARN_ONCE()`.
///
/// `pr_warn_once!` of the kernel crate does not tell who was on the way here, nor does it end a machine that is
/// set to `panic_on_warn`; and its `warn_on!` has no text.
macro_rules! warn_once {
    ($message:literal) => {
        ::kernel::do_once_lite! {
            // SAFETY: The message is terminated.
            unsafe {
                $crate::abstractions::bindings::dm_rust_warn(::kernel::str::CStrExt::as_char_ptr(
                    $message,
                ))
            }
        }
    };
}

pub(super) use warn_once;
