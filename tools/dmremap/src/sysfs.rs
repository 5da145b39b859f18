// SPDX-License-Identifier: GPL-2.0

//! What the kernel tells about block devices in /sys.

use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

/// The folder of a block device's queue; a partition has its disk's.
fn queue(device: &Metadata) -> Option<PathBuf> {
    if !device.file_type().is_block_device() {
        return None;
    }
    let number = device.rdev();
    let (major, minor) = (libc::major(number), libc::minor(number));
    let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let own = folder.join("queue");
    if own.is_dir() {
        return Some(own);
    }
    Some(folder.parent()?.join("queue"))
}

fn number(folder: &Path, name: &str) -> Option<u32> {
    let text = fs::read_to_string(folder.join(name)).ok()?;
    text.trim().parse().ok()
}

/// The logical block of a device in bytes; none for a file.
pub(crate) fn logical_block_bytes(device: &Metadata) -> Option<u32> {
    number(&queue(device)?, "logical_block_size")
}

/// The physical block of a device in bytes; none for a file.
pub(crate) fn physical_block_bytes(device: &Metadata) -> Option<u32> {
    number(&queue(device)?, "physical_block_size")
}

/// The loop device that a file is behind, if there is one.
pub(crate) fn loop_device_of(file: &Path) -> Option<PathBuf> {
    let wanted = fs::metadata(file).ok()?;
    let devices = fs::read_dir("/sys/block").ok()?;
    devices.flatten().find_map(|device| {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        let found = fs::metadata(backing.trim_end_matches('\n')).ok()?;
        let same = (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
        same.then(|| Path::new("/dev").join(device.file_name()))
    })
}
