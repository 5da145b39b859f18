// SPDX-License-Identifier: GPL-2.0
//! System calls that the standard library has no names for.
#![allow(unsafe_code)]

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const SECTOR: u64 = 512;

/// Direct I/O wants memory that is aligned to the device's blocks.
const ALIGNMENT: usize = 4096;

/// How a write is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// Durable before it is answered.
    pub(crate) fua: bool,
    /// Fails rather than waits.
    pub(crate) nowait: bool,
}

impl Flags {
    fn bits(self) -> i32 {
        let fua = if self.fua { libc::RWF_DSYNC } else { 0 };
        let nowait = if self.nowait { libc::RWF_NOWAIT } else { 0 };
        fua | nowait
    }
}

/// A block device, and aligned memory for one transfer at a time.
pub(crate) struct Device {
    file: File,
    memory: Vec<u8>,
}

impl Device {
    /// Opens a device for transfers of at most so many sectors.
    pub(crate) fn open(path: &Path, sectors: u64) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self {
            file,
            memory: vec![0; (sectors * SECTOR) as usize + ALIGNMENT],
        }
    }

    /// Reads sectors.
    pub(crate) fn read(&mut self, sector: u64, sectors: u64, flags: Flags) -> io::Result<&[u8]> {
        let length = (sectors * SECTOR) as usize;
        let start = self.memory.as_ptr().align_offset(ALIGNMENT);
        let data = &mut self.memory[start..start + length];
        // What is left from an earlier transfer must not look like an answer.
        data.fill(0xee);
        let part = libc::iovec {
            iov_base: data.as_mut_ptr().cast(),
            iov_len: length,
        };
        let offset = (sector * SECTOR) as i64;
        // SAFETY: the memory is ours, writable, and as long as it says.
        let count = unsafe { libc::preadv2(self.file.as_raw_fd(), &part, 1, offset, flags.bits()) };
        whole(count, length)?;
        Ok(data)
    }

    /// Writes sectors.
    pub(crate) fn write(&mut self, sector: u64, content: &[u8], flags: Flags) -> io::Result<()> {
        let start = self.memory.as_ptr().align_offset(ALIGNMENT);
        let data = &mut self.memory[start..start + content.len()];
        data.copy_from_slice(content);
        let part = libc::iovec {
            iov_base: data.as_mut_ptr().cast(),
            iov_len: data.len(),
        };
        let offset = (sector * SECTOR) as i64;
        // SAFETY: the memory is ours and as long as it says.
        let count =
            unsafe { libc::pwritev2(self.file.as_raw_fd(), &part, 1, offset, flags.bits()) };
        whole(count, content.len())
    }

    /// Makes sectors zero (`BLKZEROOUT`).
    pub(crate) fn zero(&self, sector: u64, sectors: u64) -> io::Result<()> {
        self.range(0x127f, sector, sectors)
    }

    /// Discards sectors (`BLKDISCARD`).
    pub(crate) fn discard(&self, sector: u64, sectors: u64) -> io::Result<()> {
        self.range(0x1277, sector, sectors)
    }

    fn range(&self, request: u64, sector: u64, sectors: u64) -> io::Result<()> {
        let range = [sector * SECTOR, sectors * SECTOR];
        // SAFETY: both requests read two numbers.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), request, range.as_ptr()) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Flushes.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A transfer that ended early has failed behind that place.
fn whole(count: isize, length: usize) -> io::Result<()> {
    match usize::try_from(count) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(count) if count == length => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EIO)),
    }
}

/// Device mapper's control device: include/uapi/linux/dm-ioctl.h.
pub(crate) struct Control(File);

/// `struct dm_ioctl` with room behind it.
#[repr(C, align(8))]
struct Command([u8; 4096]);

const HEADER: usize = 312;
const FLAGS: usize = 28;
const DEV_SUSPEND: u32 = 6;
const TARGET_MESSAGE: u32 = 14;
const FLAG_SUSPEND: u32 = 1 << 1;
const FLAG_SKIP_LOCKFS: u32 = 1 << 10;
const FLAG_NOFLUSH: u32 = 1 << 11;
const FLAG_DATA_OUT: u32 = 1 << 16;

impl Control {
    /// Opens it.
    pub(crate) fn open() -> Self {
        Self(File::open("/dev/mapper/control").expect("open device mapper's control device"))
    }

    /// Sends a message to the first target, and returns the reply.
    pub(crate) fn message(&self, name: &str, text: &str) -> io::Result<String> {
        let mut command = Command::new(name, 0);
        command.put(HEADER + 8, text.as_bytes());
        command.run(&self.0, TARGET_MESSAGE)?;
        if command.number(FLAGS) & FLAG_DATA_OUT == 0 {
            return Ok(String::new());
        }
        let reply = command.0[command.number(16) as usize..].split(|&byte| byte == 0);
        let reply = reply.take(1).flatten().copied().collect();
        Ok(String::from_utf8(reply).unwrap_or_default())
    }

    /// Suspends.
    pub(crate) fn suspend(&self, name: &str, noflush: bool) -> io::Result<()> {
        let flags = match noflush {
            true => FLAG_SUSPEND | FLAG_NOFLUSH | FLAG_SKIP_LOCKFS,
            false => FLAG_SUSPEND,
        };
        Command::new(name, flags).run(&self.0, DEV_SUSPEND)
    }

    /// Resumes.
    pub(crate) fn resume(&self, name: &str) -> io::Result<()> {
        Command::new(name, 0).run(&self.0, DEV_SUSPEND)
    }
}

impl Command {
    fn new(name: &str, flags: u32) -> Box<Self> {
        let mut command = Box::new(Self([0; 4096]));
        let size = command.0.len() as u32;
        command.put(0, &4_u32.to_ne_bytes());
        command.put(12, &size.to_ne_bytes());
        command.put(16, &(HEADER as u32).to_ne_bytes());
        command.put(FLAGS, &flags.to_ne_bytes());
        command.put(48, name.as_bytes());
        command
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn number(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }

    fn run(&mut self, control: &File, number: u32) -> io::Result<()> {
        // _IOWR(DM_IOCTL, number, struct dm_ioctl)
        let request = (3 << 30) | ((HEADER as u32) << 16) | (0xfd << 8) | number;
        // SAFETY: the buffer is as long as it says, and the kernel stays inside that.
        let result =
            unsafe { libc::ioctl(control.as_raw_fd(), request.into(), self.0.as_mut_ptr()) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
