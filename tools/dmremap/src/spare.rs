// SPDX-License-Identifier: GPL-2.0

//! A spare as this tool sees it: a block device or an image file, the window on it, and what is to
//! be written to it.
//!
//! Nothing gets to the device when it is written here. Writes are kept in order, and reads see
//! them; so a command first does all its work as if, shows what that comes to, saves what it will
//! overwrite, and only then applies it ([`Spare::apply`]). A place that does not take its write is
//! remembered: the work is then done again, with that place known as bad.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use dm_remap_logic::format::geometry::WINDOW_SECTORS_MIN;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::BLOCK_SECTORS;
use dm_remap_logic::format::SECTOR_BYTES;
use dm_remap_logic::load;

use crate::error::Error;
use crate::error::Result;
use crate::sysfs;

/// How much is read at a time where nothing is wrong.
const CHUNK_BYTES: usize = 64 * BLOCK_BYTES;

/// How many chunks are kept: the replicas are read side by side.
const CHUNKS: usize = 4;

/// How much of a spare is read at least to see whether it is blank: 512 MiB at either end, as the
/// module does it.
pub const BLANK_SECTORS: u64 = 1 << 20;

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading, whoever uses it.
    Read,
    /// Writing, alone.
    Write,
}

/// The part of a device that is the spare, as the user gave it; in sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// First sector; the start of the device if not given.
    pub start: Option<u64>,
    /// Number of sectors; up to the device's end if not given.
    pub len: Option<u64>,
}

/// A write that was not applied yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Where to, in the spare's window.
    pub sector: u64,
    /// What.
    pub content: Box<Block>,
    /// What it is, for people.
    pub what: String,
    /// Its place among all writes to all spares.
    pub order: usize,
}

/// An opened spare.
#[derive(Debug)]
pub struct Spare {
    path: PathBuf,
    file: File,
    physical_block: Option<u32>,
    logical_block: Option<u32>,
    busy: bool,
    device_sectors: u64,
    start: u64,
    sectors: u64,
    chunks: Vec<(u64, Vec<u8>)>,
    /// Chunks that can't be read at one go: not tried again, for a disk takes its time over that.
    broken: BTreeSet<u64>,
    seen: BTreeMap<u64, Box<Block>>,
    pending: Vec<Pending>,
    bad: BTreeSet<u64>,
}

impl Spare {
    /// Opens a device or an image file.
    pub fn open(path: &Path, part: Part, access: Access) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|e| Error::io(path, "open it", &e))?;
        let is_device = kind.file_type().is_block_device();
        if !is_device && !kind.is_file() {
            return Err(Error::usage(format!(
                "{}: neither a block device nor an image file",
                path.display()
            )));
        }
        if let (false, Access::Write, Some(device)) =
            (is_device, access, sysfs::loop_device_of(path))
        {
            return Err(Error::usage(format!(
                "{}: in use as {}: name that device, or detach it (losetup -d)",
                path.display(),
                device.display()
            )));
        }
        let (mut file, busy) = open_file(path, is_device, access)?;
        let bytes = file
            .seek(SeekFrom::End(0))
            .map_err(|e| Error::io(path, "tell its size", &e))?;
        let device_sectors = bytes / SECTOR_BYTES;
        let (start, sectors) = window(path, part, device_sectors)?;
        Ok(Self {
            path: path.into(),
            file,
            physical_block: sysfs::physical_block_bytes(&kind),
            logical_block: sysfs::logical_block_bytes(&kind),
            busy,
            device_sectors,
            start,
            sectors,
            chunks: Vec::new(),
            broken: BTreeSet::new(),
            seen: BTreeMap::new(),
            pending: Vec::new(),
            bad: BTreeSet::new(),
        })
    }

    /// What the user calls it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody else uses the device, so that what is read may be changing.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// First sector of the window on the device.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Size of the window in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Size of the device in sectors.
    pub fn device_sectors(&self) -> u64 {
        self.device_sectors
    }

    /// The device's physical block in bytes; none for a file.
    pub fn physical_block(&self) -> Option<u32> {
        self.physical_block
    }

    /// The device's logical block in bytes; none for a file.
    pub fn logical_block(&self) -> Option<u32> {
        self.logical_block
    }

    /// Refuses a window that is smaller than what was formatted.
    pub fn check_window(&self, member: &Member) -> Result<(), String> {
        load::check_window(member, self.sectors).map_err(|error| {
            let end = self.start + member.geometry.window_sectors();
            format!(
                "{}: {error}; make it as long again, an image by truncate --size {}, or copy it to a device \
                 that is: dmremap repair mends the end",
                self.path.display(),
                end * SECTOR_BYTES
            )
        })
    }

    /// The metadata block at `sector` of the window, as it will be; none if the medium can't give
    /// it. Fails if that says nothing about the medium.
    pub fn read(&mut self, sector: u64) -> Result<Option<Box<Block>>> {
        if let Some(block) = self.seen.get(&sector) {
            return Ok(Some(block.clone()));
        }
        self.read_as_it_is(sector)
    }

    /// The metadata block at `sector` of the window, as it is on the device.
    pub fn read_as_it_is(&mut self, sector: u64) -> Result<Option<Box<Block>>> {
        if sector.saturating_add(BLOCK_SECTORS) > self.sectors {
            return Ok(None);
        }
        // The window begins at a whole metadata block.
        let at = (self.start + sector) * SECTOR_BYTES;
        let chunk = at - at % CHUNK_BYTES as u64;
        if let Some(block) = self.cached(chunk, at) {
            return Ok(Some(block));
        }
        let room = self.device_sectors * SECTOR_BYTES - chunk;
        // Direct I/O asks for whole blocks.
        let len = usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let len = len - len % BLOCK_BYTES;
        if !self.broken.contains(&chunk) {
            match self.read_bytes(chunk, len) {
                Ok(bytes) => {
                    if self.chunks.len() >= CHUNKS {
                        self.chunks.remove(0);
                    }
                    self.chunks.push((chunk, bytes));
                    return Ok(self.cached(chunk, at));
                }
                Err(_) => self.broken.insert(chunk),
            };
        }
        match self.read_bytes(at, BLOCK_BYTES) {
            Ok(bytes) => Ok(bytes.first_chunk::<BLOCK_BYTES>().map(|b| Box::new(*b))),
            Err(error) if is_medium(&error) => Ok(None),
            Err(error) => Err(Error::io(&self.path, "read", &error)),
        }
    }

    fn cached(&self, chunk: u64, at: u64) -> Option<Box<Block>> {
        let (_, bytes) = self.chunks.iter().find(|(start, _)| *start == chunk)?;
        let offset = usize::try_from(at - chunk).ok()?;
        let block = bytes.get(offset..)?.first_chunk::<BLOCK_BYTES>()?;
        Some(Box::new(*block))
    }

    fn read_bytes(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let (mut memory, from) = aligned(len);
        let bytes = memory.get_mut(from..from + len).unwrap_or(&mut []);
        self.file.read_exact_at(bytes, at)?;
        memory.drain(..from);
        memory.truncate(len);
        Ok(memory)
    }

    /// Why a range of the window does not read as zero, in words; none if it does. Unreadable is not
    /// zero.
    pub fn not_zero(&self, from: u64, to: u64) -> Result<Option<String>> {
        let mut at = from;
        while at < to {
            let sectors = (to - at).min(CHUNK_BYTES as u64 / SECTOR_BYTES);
            let len = usize::try_from(sectors * SECTOR_BYTES).unwrap_or(0);
            let sector = self.start + at;
            match self.read_bytes(sector * SECTOR_BYTES, len) {
                Ok(bytes) if dm_remap_logic::format::is_zero(&bytes) => (),
                Ok(bytes) => {
                    let before = bytes.iter().take_while(|byte| **byte == 0).count() as u64;
                    let sector = sector + before / SECTOR_BYTES;
                    return Ok(Some(format!("there is something at sector {sector}")));
                }
                Err(error) if is_medium(&error) => {
                    return Ok(Some(format!(
                        "sectors {sector} to {} cannot all be read",
                        sector + sectors - 1
                    )))
                }
                Err(error) => return Err(Error::io(&self.path, "read", &error)),
            }
            at += sectors;
        }
        Ok(None)
    }

    /// Notes that the metadata block at `sector` of the window is to be written, as number `order` of
    /// all writes to all spares. False if that place is known not to take writes.
    pub fn write(&mut self, sector: u64, content: &Block, what: &str, order: usize) -> bool {
        if self.bad.contains(&sector) || sector.saturating_add(BLOCK_SECTORS) > self.sectors {
            return false;
        }
        self.seen.insert(sector, Box::new(*content));
        self.pending.push(Pending {
            sector,
            content: Box::new(*content),
            what: what.into(),
            order,
        });
        true
    }

    /// What is to be written, in order.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// Forgets what was to be written.
    pub fn forget(&mut self) {
        self.seen.clear();
        self.pending.clear();
        self.chunks.clear();
    }

    /// Takes what is to be written, and forgets it here.
    pub fn take_pending(&mut self) -> Vec<Pending> {
        let pending = std::mem::take(&mut self.pending);
        self.forget();
        pending
    }

    /// Makes a write durable. False if the place does not take it: it is known as bad from then on.
    pub fn apply(&mut self, write: &Pending) -> Result<bool> {
        let at = (self.start + write.sector) * SECTOR_BYTES;
        let (mut memory, from) = aligned(BLOCK_BYTES);
        let bytes = memory.get_mut(from..from + BLOCK_BYTES).unwrap_or(&mut []);
        bytes.copy_from_slice(&write.content[..]);
        let written = self.file.write_all_at(bytes, at);
        match written.and_then(|()| self.file.sync_data()) {
            Ok(()) => Ok(true),
            Err(error) if is_medium(&error) => {
                self.bad.insert(write.sector);
                Ok(false)
            }
            Err(error) => Err(Error::io(&self.path, "write", &error)),
        }
    }
}

/// Memory of `len` bytes that direct I/O accepts, and where in it they begin.
fn aligned(len: usize) -> (Vec<u8>, usize) {
    let memory = vec![0; len + BLOCK_BYTES];
    let from = memory.as_ptr().align_offset(BLOCK_BYTES);
    (memory, from.min(BLOCK_BYTES))
}

/// Whether an error says that the medium may be bad there, as the module takes it: I/O, medium (ENODATA)
/// and target errors (EREMOTEIO). Others, such as of a device that is gone, say nothing.
fn is_medium(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::ENODATA | libc::EREMOTEIO)
    )
}

/// Opens it, devices past the page cache. Tells whether somebody else uses it.
fn open_file(path: &Path, is_device: bool, access: Access) -> Result<(File, bool)> {
    let writing = access == Access::Write;
    let open = |flags: i32| {
        OpenOptions::new()
            .read(true)
            .write(writing)
            .custom_flags(flags)
            .open(path)
    };
    if !is_device {
        let file = open(0).map_err(|e| Error::io(path, "open it", &e))?;
        return Ok((file, false));
    }
    match open(libc::O_DIRECT | libc::O_EXCL) {
        Ok(file) => Ok((file, false)),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            if writing {
                return Err(Error::usage(format!(
                    "{}: in use: mounted, or part of a running device; unmount or remove that first",
                    path.display()
                )));
            }
            let file = open(libc::O_DIRECT).map_err(|e| Error::io(path, "open it", &e))?;
            Ok((file, true))
        }
        Err(error) => Err(Error::io(path, "open it", &error)),
    }
}

/// First sector and number of sectors of the window, by the rules of the module: metadata blocks
/// are aligned on the device.
fn window(path: &Path, part: Part, device_sectors: u64) -> Result<(u64, u64)> {
    let start = part.start.unwrap_or(0);
    if device_sectors == 0 && part == Part::default() {
        // A file may have some bytes. A device without a medium has none.
        return Err(Error::usage(format!(
            "{}: empty, or nearly so: a spare has sectors, {WINDOW_SECTORS_MIN} are needed",
            path.display()
        )));
    }
    let end = match part.len {
        Some(len) => start.checked_add(len),
        None => Some(device_sectors),
    };
    let end = end.filter(|end| *end <= device_sectors && start < *end);
    let Some(end) = end else {
        let len = part
            .len
            .map_or(String::new(), |len| format!(" and {len} long"));
        return Err(Error::usage(format!(
            "{}: a spare from sector {start}{len} is outside of the device, which has {device_sectors} sectors",
            path.display()
        )));
    };
    let start = start.next_multiple_of(BLOCK_SECTORS);
    let sectors = end.saturating_sub(start) / BLOCK_SECTORS * BLOCK_SECTORS;
    if sectors < WINDOW_SECTORS_MIN {
        return Err(Error::usage(format!(
            "{}: a spare of {sectors} sectors is too small, {WINDOW_SECTORS_MIN} are needed",
            path.display()
        )));
    }
    Ok((start, sectors))
}
