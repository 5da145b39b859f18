// SPDX-License-Identifier: GPL-2.0
//! The kernel's side: the parts of include/uapi/linux/ublk_cmd.h that we need, and nothing else.
//! All `unsafe` of this crate is here.
//!
//! The data of requests is copied by reading and writing the character device
//! (`UBLK_F_USER_COPY`), so no buffer's address is ever given to the kernel for longer than a
//! call.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::cqueue;
use io_uring::opcode;
use io_uring::squeue;
use io_uring::types;
use io_uring::IoUring;

const CONTROL: &str = "/dev/ublk-control";
const NO_QUEUE: u16 = u16::MAX;

const WRITE: u32 = 1;
const READ: u32 = 2;

/// `_IOC()`.
const fn ioctl(direction: u32, number: u32, size: usize) -> u32 {
    (direction << 30) | ((size as u32) << 16) | ((b'u' as u32) << 8) | number
}

const CONTROL_COMMAND: usize = std::mem::size_of::<ControlCommand>();
const IO_COMMAND: usize = std::mem::size_of::<IoCommand>();
const ADD_DEV: u32 = ioctl(READ | WRITE, 0x04, CONTROL_COMMAND);
const DEL_DEV: u32 = ioctl(READ | WRITE, 0x05, CONTROL_COMMAND);
const START_DEV: u32 = ioctl(READ | WRITE, 0x06, CONTROL_COMMAND);
const STOP_DEV: u32 = ioctl(READ | WRITE, 0x07, CONTROL_COMMAND);
const SET_PARAMS: u32 = ioctl(READ | WRITE, 0x08, CONTROL_COMMAND);
const FETCH: u32 = ioctl(READ | WRITE, 0x20, IO_COMMAND);
const COMMIT_AND_FETCH: u32 = ioctl(READ | WRITE, 0x21, IO_COMMAND);

const FLAG_CMD_IOCTL_ENCODE: u64 = 1 << 6;
const FLAG_USER_COPY: u64 = 1 << 7;
const FLAG_NO_AUTO_PART_SCAN: u64 = 1 << 18;

const PARAM_TYPE_BASIC: u32 = 1 << 0;
const PARAM_TYPE_DISCARD: u32 = 1 << 1;

/// Attributes of a disk, `UBLK_ATTR_*`.
pub(crate) const ATTR_READ_ONLY: u32 = 1 << 0;
/// Writes must be flushed to be durable.
pub(crate) const ATTR_VOLATILE_CACHE: u32 = 1 << 2;
/// The disk knows FUA.
pub(crate) const ATTR_FUA: u32 = 1 << 3;

/// Operations, `UBLK_IO_OP_*`.
pub(crate) const OP_READ: u32 = 0;
/// See above.
pub(crate) const OP_WRITE: u32 = 1;
/// See above.
pub(crate) const OP_FLUSH: u32 = 2;
/// See above.
pub(crate) const OP_DISCARD: u32 = 3;
/// See above.
pub(crate) const OP_WRITE_ZEROES: u32 = 5;
/// `UBLK_IO_F_FUA`.
pub(crate) const FLAG_FUA: u32 = 1 << 13;

const IO_BUFFER_OFFSET: u64 = 0x8000_0000;
const TAG_SHIFT: u32 = 25;
const PAGE: usize = 4096;

/// `struct ublksrv_ctrl_cmd`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ControlCommand {
    device: u32,
    queue: u16,
    length: u16,
    address: u64,
    data: u64,
    path_length: u16,
    pad: u16,
    reserved: u32,
}

/// `struct ublksrv_ctrl_dev_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DeviceInfo {
    queues: u16,
    depth: u16,
    state: u16,
    pad0: u16,
    max_io_bytes: u32,
    device: u32,
    server: i32,
    pad1: u32,
    flags: u64,
    server_flags: u64,
    uid: u32,
    gid: u32,
    reserved: [u64; 2],
}

/// `struct ublk_params`, as far as we set it; the kernel takes shorter ones.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Parameters {
    /// Filled in by `Control::set_parameters`, like `types`.
    pub(crate) length: u32,
    pub(crate) types: u32,
    pub(crate) attributes: u32,
    pub(crate) logical_block_shift: u8,
    pub(crate) physical_block_shift: u8,
    pub(crate) io_opt_shift: u8,
    pub(crate) io_min_shift: u8,
    pub(crate) max_sectors: u32,
    pub(crate) chunk_sectors: u32,
    pub(crate) sectors: u64,
    pub(crate) virt_boundary_mask: u64,
    pub(crate) discard_alignment: u32,
    pub(crate) discard_granularity: u32,
    pub(crate) max_discard_sectors: u32,
    pub(crate) max_write_zeroes_sectors: u32,
    pub(crate) max_discard_segments: u16,
    pub(crate) reserved: u16,
    pub(crate) pad: u32,
}

/// `struct ublksrv_io_desc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Descriptor {
    flags: u32,
    pub(crate) sectors: u32,
    pub(crate) sector: u64,
    address: u64,
}

impl Descriptor {
    /// One of `OP_*`.
    pub(crate) fn operation(&self) -> u32 {
        self.flags & 0xff
    }

    /// Whether the request has the FUA flag.
    pub(crate) fn fua(&self) -> bool {
        self.flags & FLAG_FUA != 0
    }
}

/// `struct ublksrv_io_cmd`.
#[repr(C)]
#[derive(Clone, Copy)]
struct IoCommand {
    queue: u16,
    tag: u16,
    result: i32,
    address: u64,
}

/// `/dev/ublk-control`.
pub(crate) struct Control {
    file: File,
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
}

impl Control {
    /// Opens it; the driver is there.
    pub(crate) fn open() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        Ok(Self {
            file,
            ring: IoUring::builder().build(4)?,
        })
    }

    /// Adds a device with one queue of this depth, and returns its number.
    pub(crate) fn add(&mut self, depth: u16, max_io_bytes: u32) -> io::Result<u32> {
        let mut info = DeviceInfo {
            queues: 1,
            depth,
            max_io_bytes,
            device: u32::MAX,
            flags: FLAG_CMD_IOCTL_ENCODE | FLAG_USER_COPY | FLAG_NO_AUTO_PART_SCAN,
            ..DeviceInfo::default()
        };
        // SAFETY: `info` is writable, of the length that we tell, and outlives the call, which
        // ends when the command does.
        unsafe {
            self.command(
                ADD_DEV,
                ControlCommand {
                    device: u32::MAX,
                    length: std::mem::size_of::<DeviceInfo>() as u16,
                    address: &raw mut info as u64,
                    ..ControlCommand::default()
                },
            )?;
        }
        Ok(info.device)
    }

    /// Says what the device is like.
    pub(crate) fn set_parameters(
        &mut self,
        device: u32,
        mut parameters: Parameters,
    ) -> io::Result<()> {
        parameters.length = std::mem::size_of::<Parameters>() as u32;
        parameters.types = PARAM_TYPE_BASIC | PARAM_TYPE_DISCARD;
        // SAFETY: as in `add`, for `parameters`.
        unsafe {
            self.command(
                SET_PARAMS,
                ControlCommand {
                    device,
                    length: std::mem::size_of::<Parameters>() as u16,
                    address: &raw mut parameters as u64,
                    ..ControlCommand::default()
                },
            )
        }
    }

    /// Makes the block device appear; returns when its queue serves.
    pub(crate) fn start(&mut self, device: u32) -> io::Result<()> {
        self.plain(START_DEV, device, u64::from(std::process::id()))
    }

    /// Makes it disappear; what is under way must be answered for that.
    pub(crate) fn stop(&mut self, device: u32) -> io::Result<()> {
        self.plain(STOP_DEV, device, 0)
    }

    /// Frees the number; returns when the character device is closed.
    pub(crate) fn delete(&mut self, device: u32) -> io::Result<()> {
        self.plain(DEL_DEV, device, 0)
    }

    fn plain(&mut self, operation: u32, device: u32, data: u64) -> io::Result<()> {
        // SAFETY: without an address, the command touches no memory of ours.
        unsafe {
            self.command(
                operation,
                ControlCommand {
                    device,
                    data,
                    ..ControlCommand::default()
                },
            )
        }
    }

    /// Gives a command and waits for its end.
    ///
    /// # Safety
    ///
    /// `address` and `length` must tell of memory that the command may use until it ends.
    unsafe fn command(&mut self, operation: u32, mut command: ControlCommand) -> io::Result<()> {
        command.queue = NO_QUEUE;
        let mut bytes = [0; 80];
        // SAFETY: `ControlCommand` has no padding, and its 32 bytes fit.
        unsafe {
            bytes
                .as_mut_ptr()
                .cast::<ControlCommand>()
                .write_unaligned(command);
        }
        let entry = opcode::UringCmd80::new(types::Fd(self.file.as_raw_fd()), operation)
            .cmd(bytes)
            .build();
        // SAFETY: the file is open until we return, and so is, by our caller's word, the memory.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            break;
        }
        let done = self.ring.completion().next();
        match done.map(|entry| entry.result()) {
            Some(0..) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(-error)),
            None => Err(io::Error::other("no completion")),
        }
    }
}

/// What the kernel tells a queue.
pub(crate) enum Event {
    /// There is a request at this tag.
    Request(u16),
    /// There will be none at this tag any more.
    End,
}

/// The queue of a device.
pub(crate) struct Queue {
    file: File,
    ring: IoUring,
    descriptors: NonNull<Descriptor>,
    depth: u16,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Queue {}

impl Queue {
    /// Opens the queue of a device that was added with the same depth.
    pub(crate) fn open(device: u32, depth: u16) -> io::Result<Self> {
        let path = format!("/dev/ublkc{device}");
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // SAFETY: a new mapping, which no other memory of ours can be part of.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::mapped(depth),
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let descriptors = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let ring = IoUring::new(u32::from(depth));
        let mut queue = Self {
            file,
            ring: match ring {
                Ok(ring) => ring,
                Err(error) => {
                    // SAFETY: the mapping from above, not used by anybody.
                    unsafe { libc::munmap(address, Self::mapped(depth)) };
                    return Err(error);
                }
            },
            descriptors,
            depth,
        };
        for tag in 0..depth {
            queue.push(FETCH, tag, 0)?;
        }
        Ok(queue)
    }

    fn mapped(depth: u16) -> usize {
        (usize::from(depth) * std::mem::size_of::<Descriptor>()).next_multiple_of(PAGE)
    }

    /// How many requests there can be at a time.
    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }

    /// Hands over what was answered, and waits for events, at most so long.
    pub(crate) fn wait(
        &mut self,
        limit: Option<Duration>,
        mut on: impl FnMut(Event),
    ) -> io::Result<()> {
        let submitted = match limit {
            None => self.ring.submit_and_wait(1),
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                let arguments = types::SubmitArgs::new().timespec(&limit);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match submitted {
            Ok(_) => (),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY) => (),
                _ => return Err(error),
            },
        }
        for entry in self.ring.completion() {
            match entry.result() {
                0 => on(Event::Request(entry.user_data() as u16)),
                _ => on(Event::End),
            }
        }
        Ok(())
    }

    /// The request at a tag.
    pub(crate) fn descriptor(&self, tag: u16) -> Descriptor {
        assert!(tag < self.depth);
        // SAFETY: there are `depth` of them in the mapping; the kernel wrote this one before it
        // told us of the tag, and changes it after our answer at the earliest.
        unsafe {
            self.descriptors
                .as_ptr()
                .add(usize::from(tag))
                .read_volatile()
        }
    }

    /// Fetches the data of a write.
    pub(crate) fn take_data(&self, tag: u16, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, Self::buffer(tag))
    }

    /// Delivers the data of a read.
    pub(crate) fn give_data(&self, tag: u16, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, Self::buffer(tag))
    }

    fn buffer(tag: u16) -> u64 {
        IO_BUFFER_OFFSET + (u64::from(tag) << TAG_SHIFT)
    }

    /// Answers a request: bytes done, or a negative error number. Goes out with the next `wait`.
    pub(crate) fn answer(&mut self, tag: u16, result: i32) -> io::Result<()> {
        self.push(COMMIT_AND_FETCH, tag, result)
    }

    fn push(&mut self, operation: u32, tag: u16, result: i32) -> io::Result<()> {
        let command = IoCommand {
            queue: 0,
            tag,
            result,
            address: 0,
        };
        // SAFETY: 16 bytes without padding.
        let bytes: [u8; 16] = unsafe { std::mem::transmute(command) };
        let entry = opcode::UringCmd16::new(types::Fd(self.file.as_raw_fd()), operation)
            .cmd(bytes)
            .build()
            .user_data(u64::from(tag));
        // SAFETY: the command names no memory, and the file is open as long as the ring.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: our mapping, whose only pointer goes away here.
        unsafe { libc::munmap(self.descriptors.as_ptr().cast(), Self::mapped(self.depth)) };
    }
}
