// SPDX-License-Identifier: GPL-2.0
//! Device mapper's own interface, for what is done too often for a process each time.
//! See include/uapi/linux/dm-ioctl.h.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::wait::eventually;

/// `struct dm_ioctl`, and room for a target behind it.
#[repr(C, align(8))]
struct Buffer([u8; Buffer::SIZE]);

impl Buffer {
    const HEADER: usize = 312;
    const TARGET: usize = 40;
    const SIZE: usize = 1024;

    fn new(name: &str) -> Self {
        let mut buffer = Self([0; Self::SIZE]);
        // Version 4.0.0 is what everybody speaks.
        buffer.put(0, &4_u32.to_ne_bytes());
        buffer.put(12, &(Self::SIZE as u32).to_ne_bytes());
        buffer.put(16, &(Self::HEADER as u32).to_ne_bytes());
        buffer.put(48, name.as_bytes());
        buffer
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn number(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }

    fn command(&mut self, control: &File, number: u32) -> io::Result<()> {
        // _IOWR(DM_IOCTL, number, struct dm_ioctl)
        let request = (3 << 30) | ((Self::HEADER as u32) << 16) | (0xfd << 8) | number;
        // SAFETY: the buffer is as long as it says, and the kernel stays inside that.
        let result =
            unsafe { libc::ioctl(control.as_raw_fd(), request.into(), self.0.as_mut_ptr()) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

const TARGET_MESSAGE: u32 = 14;
const FLAGS: usize = 28;
const FLAG_DATA_OUT: u32 = 1 << 16;

/// Sends a message to the first target of a device, and returns the reply.
pub fn message(name: &str, text: &str) -> io::Result<String> {
    let control = File::open("/dev/mapper/control")?;
    let mut buffer = Buffer::new(name);
    // Its sector is zero.
    buffer.put(Buffer::HEADER + 8, text.as_bytes());
    buffer.command(&control, TARGET_MESSAGE)?;
    if buffer.number(FLAGS) & FLAG_DATA_OUT == 0 {
        return Ok(String::new());
    }
    let reply = buffer.0.get(buffer.number(16) as usize..).unwrap_or(&[]);
    let reply = reply.split(|&byte| byte == 0).next().unwrap_or(&[]);
    Ok(String::from_utf8_lossy(reply).trim_end().to_string())
}

const DEV_CREATE: u32 = 3;
const DEV_REMOVE: u32 = 4;
const DEV_SUSPEND: u32 = 6;
const TABLE_LOAD: u32 = 9;
/// Where the kernel puts the device's number.
const DEVICE: usize = 40;

/// A device-mapper device with a table of one target, for tests that make hundreds of them. It is
/// removed when dropped.
pub struct QuickDevice {
    name: String,
    path: PathBuf,
    control: File,
    removed: bool,
}

impl QuickDevice {
    /// Makes it.
    pub fn new(sectors: u64, target: &str, parameters: &str) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("quick{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let control = File::open("/dev/mapper/control")?;
        let mut create = Buffer::new(&name);
        create.command(&control, DEV_CREATE)?;
        // Minor numbers below 256 are where they always were.
        let path = format!("/dev/dm-{}", create.number(DEVICE) & 0xff).into();
        let device = Self {
            name,
            path,
            control,
            removed: false,
        };
        let mut load = Buffer::new(&device.name);
        load.put(20, &1_u32.to_ne_bytes());
        load.put(Buffer::HEADER + 8, &sectors.to_ne_bytes());
        load.put(Buffer::HEADER + 24, target.as_bytes());
        load.put(Buffer::HEADER + Buffer::TARGET, parameters.as_bytes());
        load.command(&device.control, TABLE_LOAD)?;
        // Without the suspend flag it resumes.
        Buffer::new(&device.name).command(&device.control, DEV_SUSPEND)?;
        Ok(device)
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that it has for device mapper.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message and returns the reply.
    pub fn message(&self, text: &str) -> io::Result<String> {
        message(&self.name, text)
    }

    /// Removes it. It may be in use for a moment yet.
    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        remove(&self.control, &self.name)
    }
}

impl Drop for QuickDevice {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(error) = remove(&self.control, &self.name) {
            eprintln!("{} could not be removed: {error}", self.name);
        }
    }
}

fn remove(control: &File, name: &str) -> io::Result<()> {
    // It may be in use for a moment yet.
    let mut result = Ok(());
    eventually(|| {
        result = Buffer::new(name).command(control, DEV_REMOVE);
        !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EBUSY))
    });
    result
}

/// A device that is made, given tables and removed without a process for each step. Removed when
/// dropped.
pub struct Quick {
    control: File,
    name: String,
    removed: bool,
}

impl Quick {
    /// Makes the device, without a table.
    pub fn new(name: &str) -> io::Result<Self> {
        let control = File::open("/dev/mapper/control")?;
        Buffer::new(name).command(&control, DEV_CREATE)?;
        let name = name.to_string();
        Ok(Self {
            control,
            name,
            removed: false,
        })
    }

    /// Loads a table of one target.
    pub fn load(&self, sectors: u64, target: &str, parameters: &str) -> io::Result<()> {
        let mut load = Buffer::new(&self.name);
        load.put(20, &1_u32.to_ne_bytes());
        load.put(Buffer::HEADER + 8, &sectors.to_ne_bytes());
        load.put(Buffer::HEADER + 24, target.as_bytes());
        load.put(Buffer::HEADER + Buffer::TARGET, parameters.as_bytes());
        load.command(&self.control, TABLE_LOAD)
    }

    /// Resumes, with the table that was loaded last.
    pub fn resume(&self) -> io::Result<()> {
        // It is the suspend flag that makes it a suspend.
        Buffer::new(&self.name).command(&self.control, DEV_SUSPEND)
    }

    /// Sends a message and returns the reply.
    pub fn message(&self, text: &str) -> io::Result<String> {
        message(&self.name, text)
    }

    /// Removes it.
    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        Buffer::new(&self.name).command(&self.control, DEV_REMOVE)
    }
}

impl Drop for Quick {
    fn drop(&mut self) {
        if !self.removed {
            let _ = Buffer::new(&self.name).command(&self.control, DEV_REMOVE);
        }
    }
}

/// Makes a device with a table of this one target, and removes it, whatever came of it. Says
/// whether the device was there in between.
pub fn make_and_remove(name: &str, sectors: u64, target: &str, parameters: &str) -> io::Result<()> {
    let quick = Quick::new(name)?;
    let made = quick
        .load(sectors, target, parameters)
        .and_then(|()| quick.resume());
    quick.remove()?;
    made
}
