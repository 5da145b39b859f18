// SPDX-License-Identifier: GPL-2.0

//! The error numbers that users see, one for each kind of refusal.

/// A kind of refusal, and the Linux error number that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Errno {
    /// EIO: a device failed.
    Io = 5,
    /// E2BIG: more arguments than there can be.
    TooMany = 7,
    /// EBUSY: somebody else uses it, or it can't be done right now.
    Busy = 16,
    /// EEXIST: the place is taken.
    Exists = 17,
    /// ENODEV: the devices do not belong together.
    WrongDevice = 19,
    /// EINVAL: malformed or contradictory.
    Invalid = 22,
    /// ENOSPC: no room.
    NoSpace = 28,
    /// EROFS: only reading is possible.
    ReadOnly = 30,
    /// ERANGE: a number that is too large, or outside of the device.
    Range = 34,
    /// ENOSYS: known, but not there yet.
    NotYet = 38,
    /// ENODATA: nothing is there.
    NoData = 61,
    /// EBADMSG: the metadata is damaged.
    Damaged = 74,
    /// EILSEQ: bytes that are no text.
    NotText = 84,
    /// EOPNOTSUPP: known, but not possible with this device or this version.
    NotSupported = 95,
    /// EMEDIUMTYPE: the spare holds something else.
    Foreign = 124,
}

impl Errno {
    /// The positive Linux error number.
    pub const fn number(self) -> i32 {
        self as i32
    }
}
