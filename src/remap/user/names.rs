// SPDX-License-Identifier: GPL-2.0

//! Text for the kernel log.

use kernel::{
    fmt,
    prelude::*,
    str::CString, //
};

/// How the kernel log calls the mapped device.
pub(in crate::remap) struct LogName(CString);

impl LogName {
    /// Makes it of the device's number, `major:minor`.
    pub(in crate::remap) fn new(device: &CStr) -> Result<Self> {
        let device = device.to_str().unwrap_or("?");
        Ok(Self(CString::try_from_fmt(fmt!("dm-remap {device}"))?))
    }

    /// The same.
    pub(in crate::remap) fn try_clone(&self) -> Result<Self> {
        Ok(Self(CString::try_from_fmt(fmt!("{self}"))?))
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or("dm-remap"))
    }
}

/// Lets the kernel's printing show what [`logic`](crate::logic) can show.
pub(in crate::remap) struct Show<T>(pub(in crate::remap) T);

impl<T: core::fmt::Display> fmt::Display for Show<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}
