// SPDX-License-Identifier: GPL-2.0

//! How a block I/O ended.
//!
//! C header: [`include/linux/blk_types.h`](srctree/include/linux/blk_types.h)

use kernel::{
    error::{
        Error,
        Result, //
    },
    fmt, //
};

use crate::abstractions::bindings;

/// The result of a block I/O, the kernel's `blk_status_t`.
///
/// This is finer than an errno: a medium error and a transport error are both `EIO` to user space,
/// but they are different things to a target.
///
/// # Examples
///
/// ```
/// # use kernel::block::BlkStatus;
/// # use kernel::error::code::*;
/// assert_eq!(BlkStatus::MEDIUM.to_result(), Err(ENODATA));
/// assert_eq!(BlkStatus::from(EAGAIN), BlkStatus::AGAIN);
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlkStatus(u8);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:ident;)*) => {
        impl BlkStatus {
            $($(#[$doc])* pub const $name: Self = Self(bindings::$value);)*

            /// Returns the name, as the C code spells it after `BLK_STS_`.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $(bindings::$value => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

statuses! {
    /// No error.
    OK = DM_STS_OK;
    /// The device does not support this operation.
    NOTSUPP = DM_STS_NOTSUPP;
    /// The command took too long.
    TIMEOUT = DM_STS_TIMEOUT;
    /// The device has no space left (thin provisioning).
    NOSPC = DM_STS_NOSPC;
    /// The way to the device failed; another path may work.
    TRANSPORT = DM_STS_TRANSPORT;
    /// The device failed in a way that retrying does not help. ATA faults arrive so.
    TARGET = DM_STS_TARGET;
    /// Someone else holds a reservation.
    RESV_CONFLICT = DM_STS_RESV_CONFLICT;
    /// The medium is bad at this place.
    MEDIUM = DM_STS_MEDIUM;
    /// A protection information check failed.
    PROTECTION = DM_STS_PROTECTION;
    /// The kernel ran out of a resource, retry later.
    RESOURCE = DM_STS_RESOURCE;
    /// An error that nobody could tell more about.
    IOERR = DM_STS_IOERR;
    /// Device mapper's own: give the bio back to be mapped anew.
    DM_REQUEUE = DM_STS_DM_REQUEUE;
    /// The bio said `NOWAIT` and would have to wait.
    AGAIN = DM_STS_AGAIN;
    /// The device ran out of a resource, retry when one of its I/Os ended.
    DEV_RESOURCE = DM_STS_DEV_RESOURCE;
    /// Too many open zones.
    ZONE_OPEN_RESOURCE = DM_STS_ZONE_OPEN_RESOURCE;
    /// Too many active zones.
    ZONE_ACTIVE_RESOURCE = DM_STS_ZONE_ACTIVE_RESOURCE;
    /// The device is offline.
    OFFLINE = DM_STS_OFFLINE;
    /// A command duration limit was exceeded.
    DURATION_LIMIT = DM_STS_DURATION_LIMIT;
    /// The I/O itself is malformed: size or alignment.
    INVAL = DM_STS_INVAL;
}

impl BlkStatus {
    /// Takes over a raw `blk_status_t`. Values that this kernel does not know are kept.
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Self {
        Self(raw)
    }

    /// Returns the raw `blk_status_t`.
    #[inline(always)]
    pub const fn as_raw(self) -> u8 {
        self.0
    }

    /// Whether the I/O succeeded.
    #[inline(always)]
    pub const fn is_ok(self) -> bool {
        self.0 == bindings::DM_STS_OK
    }

    /// Whether the I/O failed.
    #[inline(always)]
    pub const fn is_err(self) -> bool {
        !self.is_ok()
    }

    /// Returns the negative errno that user space sees, 0 for success: `blk_status_to_errno()`.
    pub fn to_errno(self) -> i32 {
        // SAFETY: The function takes any value; it warns about unknown ones and returns `-EIO`.
        unsafe { bindings::blk_status_to_errno(self.0) }
    }

    /// Returns the errno that user space sees, as a [`Result`].
    pub fn to_result(self) -> Result {
        kernel::error::to_result(self.to_errno())
    }

    /// Returns `Ok(())` or the status itself as the error.
    pub const fn ok(self) -> core::result::Result<(), BlkStatus> {
        if self.is_ok() {
            Ok(())
        } else {
            Err(self)
        }
    }
}

impl From<Error> for BlkStatus {
    fn from(error: Error) -> Self {
        // SAFETY: The function takes any errno; unknown ones become `BLK_STS_IOERR`.
        Self(unsafe { bindings::errno_to_blk_status(error.to_errno()) })
    }
}

impl From<BlkStatus> for Result {
    fn from(status: BlkStatus) -> Self {
        status.to_result()
    }
}

impl fmt::Debug for BlkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::fmt::Display for BlkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kernel's own macros want their own trait.
impl fmt::Display for BlkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
