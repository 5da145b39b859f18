// SPDX-License-Identifier: GPL-2.0

//! What the kernel tells about block devices in /sys.

use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use dm_remap_logic::format::SECTOR_BYTES;

/// The folder of a block device.
fn folder(device: u64) -> Option<PathBuf> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
}

/// The folder of a block device's queue; a partition has its disk's.
fn queue(device: &Metadata) -> Option<PathBuf> {
    if !device.file_type().is_block_device() {
        return None;
    }
    let folder = folder(device.rdev())?;
    let own = folder.join("queue");
    if own.is_dir() {
        return Some(own);
    }
    Some(folder.parent()?.join("queue"))
}

fn number<N: std::str::FromStr>(folder: &Path, name: &str) -> Option<N> {
    let text = fs::read_to_string(folder.join(name)).ok()?;
    text.trim().parse().ok()
}

/// The number of the device that a folder is about.
fn device(folder: &Path) -> Option<u64> {
    let text = fs::read_to_string(folder.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The logical block of a device in bytes; none for a file.
pub(crate) fn logical_block_bytes(device: &Metadata) -> Option<u32> {
    number(&queue(device)?, "logical_block_size")
}

/// The physical block of a device in bytes; none for a file.
pub(crate) fn physical_block_bytes(device: &Metadata) -> Option<u32> {
    number(&queue(device)?, "physical_block_size")
}

/// The size of a device.
pub(crate) fn sectors(device: u64) -> Option<u64> {
    number(&folder(device)?, "size")
}

/// The disk of a partition, and the sector that it begins at there.
pub(crate) fn disk_of(partition: u64) -> Option<(u64, u64)> {
    let folder = folder(partition)?;
    if !folder.join("partition").exists() {
        return None;
    }
    Some((device(folder.parent()?)?, number(&folder, "start")?))
}

/// The devices that a device is put together from.
pub(crate) fn slaves(of: u64) -> Vec<u64> {
    let found = folder(of).and_then(|folder| fs::read_dir(folder.join("slaves")).ok());
    let found = found.into_iter().flatten().flatten();
    found.filter_map(|slave| device(&slave.path())).collect()
}

/// The file of a loop device.
fn backing_file(folder: &Path) -> Option<Metadata> {
    let backing = fs::read_to_string(folder.join("loop/backing_file")).ok()?;
    fs::metadata(backing.trim_end_matches('\n')).ok()
}

/// What a loop device stands for, and the sector that it begins at there.
pub(crate) fn file_behind(device: u64) -> Option<(Metadata, u64)> {
    let folder = folder(device)?;
    let offset: u64 = number(&folder, "loop/offset")?;
    Some((backing_file(&folder)?, offset / SECTOR_BYTES))
}

/// The loop device that a file is behind, if there is one.
pub(crate) fn loop_device_of(file: &Path) -> Option<PathBuf> {
    let wanted = fs::metadata(file).ok()?;
    let devices = fs::read_dir("/sys/block").ok()?;
    devices.flatten().find_map(|device| {
        let found = backing_file(&device.path())?;
        let same = (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
        same.then(|| Path::new("/dev").join(device.file_name()))
    })
}
