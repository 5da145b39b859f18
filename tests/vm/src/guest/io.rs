// SPDX-License-Identifier: GPL-2.0
//! I/O past the page cache.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::nowait;

const SECTOR: u64 = 512;

/// Direct I/O needs memory that is aligned to the device's blocks.
const ALIGNMENT: usize = 4096;

/// A block device, opened for direct I/O.
pub struct Direct {
    file: File,
}

impl Direct {
    /// Opens it for reading and writing.
    #[track_caller]
    pub fn open(path: &Path) -> Self {
        Self::try_open(path, 0).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The same; each write has the FUA flag, or is followed by a flush where there is no FUA.
    #[track_caller]
    pub fn open_dsync(path: &Path) -> Self {
        Self::try_open(path, libc::O_DSYNC)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn try_open(path: &Path, flags: i32) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT | flags)
            .open(path)?;
        Ok(Self { file })
    }

    /// Reads sectors: one request, as long as the device takes that much.
    pub fn read(&self, sector: u64, sectors: u64) -> io::Result<Vec<u8>> {
        self.read_by(sectors, |data| self.file.read_at(data, sector * SECTOR))
    }

    /// The same with `RWF_NOWAIT`: an error of `EAGAIN` rather than a wait.
    pub fn read_nowait(&self, sector: u64, sectors: u64) -> io::Result<Vec<u8>> {
        self.read_by(sectors, |data| {
            nowait::read(&self.file, data, sector * SECTOR)
        })
    }

    fn read_by(
        &self,
        sectors: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Vec<u8>> {
        let length = (sectors * SECTOR) as usize;
        let mut memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        let aligned = &mut memory[start..start + length];
        if read(aligned)? != length {
            return Err(short());
        }
        Ok(aligned.to_vec())
    }

    /// Writes sectors: one request, as long as the device takes that much.
    pub fn write(&self, sector: u64, data: &[u8]) -> io::Result<()> {
        self.write_by(data, |data| self.file.write_at(data, sector * SECTOR))
    }

    /// The same with `RWF_NOWAIT`: an error of `EAGAIN` rather than a wait.
    pub fn write_nowait(&self, sector: u64, data: &[u8]) -> io::Result<()> {
        self.write_by(data, |data| {
            nowait::write(&self.file, data, sector * SECTOR)
        })
    }

    fn write_by(
        &self,
        data: &[u8],
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut memory = vec![0; data.len() + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        let aligned = &mut memory[start..start + data.len()];
        aligned.copy_from_slice(data);
        if write(aligned)? != data.len() {
            return Err(short());
        }
        Ok(())
    }

    /// Flushes.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Reads sectors of a device that cannot be opened for writing, past the page cache.
pub fn read_only(path: &Path, sector: u64, sectors: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    Direct { file }.read(sector, sectors)
}

/// A request that succeeded in part has failed behind that part.
fn short() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// Forgets everything that is cached and not dirty.
pub fn drop_caches() {
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("drop caches");
}
