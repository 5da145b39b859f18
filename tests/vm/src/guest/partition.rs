// SPDX-License-Identifier: GPL-2.0
//! Partitions that no table on the disk tells of.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::path::PathBuf;

/// `struct blkpg_partition`.
#[repr(C)]
struct Entry {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut Entry,
}

const BLKPG: libc::Ioctl = 0x1269;
const BLKPG_ADD_PARTITION: i32 = 1;
const BLKPG_DEL_PARTITION: i32 = 2;

/// The first partition of a disk, gone when dropped.
#[derive(Debug)]
pub struct Partition {
    disk: PathBuf,
}

impl Partition {
    /// Makes it of these sectors.
    #[track_caller]
    pub fn new(disk: &Path, start: u64, sectors: u64) -> Self {
        command(disk, BLKPG_ADD_PARTITION, start, sectors)
            .unwrap_or_else(|error| panic!("a partition of {}: {error}", disk.display()));
        Self { disk: disk.into() }
    }

    /// The block device.
    pub fn path(&self) -> PathBuf {
        let mut path = self.disk.clone().into_os_string();
        path.push("p1");
        path.into()
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        if let Err(error) = command(&self.disk, BLKPG_DEL_PARTITION, 0, 0) {
            eprintln!("the partition of {}: {error}", self.disk.display());
        }
    }
}

fn command(disk: &Path, operation: i32, start: u64, sectors: u64) -> io::Result<()> {
    let mut entry = Entry {
        start: (start * 512) as i64,
        length: (sectors * 512) as i64,
        number: 1,
        names: [0; 128],
    };
    let mut argument = Argument {
        operation,
        flags: 0,
        length: std::mem::size_of::<Entry>() as i32,
        data: &raw mut entry,
    };
    let disk = File::open(disk)?;
    // SAFETY: the argument and what it points to are as the kernel expects them and outlive the
    // call.
    match unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
