// SPDX-License-Identifier: GPL-2.0
//! Reads and writes that would rather fail than wait.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `preadv2()` with `RWF_NOWAIT`.
pub(super) fn read(file: &File, data: &mut [u8], offset: u64) -> io::Result<usize> {
    let piece = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: the piece is `data`, which nobody else uses during the call.
    let count = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &piece,
            1,
            offset as libc::off_t,
            libc::RWF_NOWAIT,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// `pwritev2()` with `RWF_NOWAIT`.
pub(super) fn write(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    let piece = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    // SAFETY: the piece is `data`, which the call only reads.
    let count = unsafe {
        libc::pwritev2(
            file.as_raw_fd(),
            &piece,
            1,
            offset as libc::off_t,
            libc::RWF_NOWAIT,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
