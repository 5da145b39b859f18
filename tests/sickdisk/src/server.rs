// SPDX-License-Identifier: GPL-2.0
//! Serves a disk to the kernel.
//!
//! Two threads know a [`SickDisk`]: its owner's, and the one that answers the kernel. They share
//! the model under a mutex, which is held for one request or one change at a time; so a change
//! comes before or after a request as a whole. Nothing waits while it is held.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::model::Disk;
use crate::model::Operation;
use crate::model::Request;
use crate::store::Store;
use crate::ublk;
use crate::ublk::Control;
use crate::ublk::Event;
use crate::ublk::Queue;
use crate::SECTOR;

const DEPTH: u16 = 64;
const MAX_IO_BYTES: u32 = 1 << 20;

/// The most sectors that are discarded or zeroed at a time by a disk that has long ones: 2 GiB.
const LONG_SECTORS: u32 = 4 << 20;

/// How often held requests are looked at.
const HOLD_POLL: Duration = Duration::from_millis(2);

/// What a disk shall be like.
#[derive(Clone, Debug)]
pub struct Options {
    size: Option<u64>,
    file: Option<PathBuf>,
    logical_block: u32,
    physical_block: u32,
    caches: bool,
    fua: bool,
    read_only: bool,
    without_data: u32,
}

impl Options {
    /// A disk in memory, of `size` bytes, all zeroes.
    pub fn memory(size: u64) -> Self {
        Self {
            size: Some(size),
            file: None,
            logical_block: 512,
            physical_block: 512,
            caches: true,
            fua: true,
            read_only: false,
            without_data: MAX_IO_BYTES / SECTOR as u32,
        }
    }

    /// A disk whose content is a file or another block device.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            size: None,
            file: Some(path.into()),
            ..Self::memory(0)
        }
    }

    /// Sets the size of a logical block (and of a physical one): 512, 1024, 2048 or 4096.
    #[must_use]
    pub fn logical_block(mut self, bytes: u32) -> Self {
        self.logical_block = bytes;
        self.physical_block = self.physical_block.max(bytes);
        self
    }

    /// Sets the size of a physical block alone.
    #[must_use]
    pub fn physical_block(mut self, bytes: u32) -> Self {
        self.physical_block = bytes.max(self.logical_block);
        self
    }

    /// Without a volatile cache: each write is durable when it is answered, nobody flushes.
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        self.caches = false;
        self
    }

    /// Without FUA: the kernel flushes behind such a write instead, as it does for most disks.
    #[must_use]
    pub fn without_fua(mut self) -> Self {
        self.fua = false;
        self
    }

    /// Discards and zeroes 2 GiB at a time, as most disks do that have these at all.
    #[must_use]
    pub fn long_discards(mut self) -> Self {
        self.without_data = LONG_SECTORS;
        self
    }

    /// Cannot be written.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    fn open(&self) -> io::Result<(Store, u64)> {
        let Some(path) = &self.file else {
            let size = self.size.unwrap_or(0);
            return Ok((Store::memory(size), size));
        };
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = if file.metadata()?.file_type().is_block_device() {
            use std::io::Seek;
            (&file).seek(io::SeekFrom::End(0))?
        } else {
            file.metadata()?.len()
        };
        Ok((Store::File(file), size))
    }

    fn parameters(&self, sectors: u64) -> ublk::Parameters {
        let mut attributes = 0;
        if self.caches {
            attributes |= ublk::ATTR_VOLATILE_CACHE;
            if self.fua {
                attributes |= ublk::ATTR_FUA;
            }
        }
        if self.read_only {
            attributes |= ublk::ATTR_READ_ONLY;
        }
        let physical_shift = self.physical_block.trailing_zeros() as u8;
        ublk::Parameters {
            attributes,
            logical_block_shift: self.logical_block.trailing_zeros() as u8,
            physical_block_shift: physical_shift,
            io_opt_shift: physical_shift,
            io_min_shift: physical_shift,
            max_sectors: MAX_IO_BYTES / SECTOR as u32,
            sectors,
            discard_granularity: self.logical_block,
            max_discard_sectors: self.without_data,
            max_write_zeroes_sectors: self.without_data,
            max_discard_segments: 1,
            ..ublk::Parameters::default()
        }
    }
}

/// A disk that the kernel sees. Dropping it takes it away, whoever still uses it.
pub struct SickDisk {
    device: u32,
    control: Control,
    disk: Arc<Mutex<Disk>>,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl SickDisk {
    /// Makes a disk and shows it to the kernel.
    pub fn start(options: Options) -> io::Result<Self> {
        let (store, size) = options.open()?;
        let sectors = size / SECTOR;
        let disk = Arc::new(Mutex::new(Disk::new(store, sectors, options.caches)));

        if !Path::new("/dev/ublk-control").exists() {
            Command::new("modprobe").arg("ublk_drv").status()?;
        }
        let mut control = Control::open()?;
        let device = control.add(DEPTH, MAX_IO_BYTES)?;
        // From here on dropping it undoes what was done.
        let mut sick = Self {
            device,
            control,
            disk,
            server: None,
        };
        sick.control
            .set_parameters(device, options.parameters(sectors))?;
        let disk = Arc::clone(&sick.disk);
        sick.server = Some(
            std::thread::Builder::new()
                .name(format!("sickdisk{device}"))
                // The thread that fetches is the one that must answer.
                .spawn(move || serve(Queue::open(device, DEPTH)?, &disk))?,
        );
        sick.control.start(device)?;
        Ok(sick)
    }

    /// The number in its name.
    pub fn number(&self) -> u32 {
        self.device
    }

    /// The block device.
    pub fn path(&self) -> PathBuf {
        format!("/dev/ublkb{}", self.device).into()
    }

    /// Has nothing wait for the disk any more when what this returns goes out of scope: for tests with threads that
    /// wait, so that one that fails does not wait for these.
    pub fn release_at_end(&self) -> impl Drop + '_ {
        struct Release<'a>(&'a SickDisk);

        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.disk().release();
            }
        }

        Release(self)
    }

    /// The model, to change it or to ask it. The kernel waits meanwhile.
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }
}

impl Drop for SickDisk {
    fn drop(&mut self) {
        // Whatever waits must end, or the kernel waits for it.
        self.disk().release();
        // Errors: it is gone already, which is what we want.
        let _ = self.control.stop(self.device);
        if let Some(server) = self.server.take() {
            if let Ok(Err(error)) = server.join() {
                eprintln!("sickdisk {}: {error}", self.device);
            }
        }
        let _ = self.control.delete(self.device);
    }
}

/// A request that is decided, but not answered yet.
struct Late {
    due: Instant,
    tag: u16,
    result: i32,
}

/// A request that has not happened yet.
#[derive(Clone, Copy)]
struct Waiting {
    tag: u16,
    since: Instant,
}

fn serve(mut queue: Queue, disk: &Mutex<Disk>) -> io::Result<()> {
    let mut open = queue.depth();
    let mut buffer = vec![0; MAX_IO_BYTES as usize];
    let mut held: Vec<Waiting> = Vec::new();
    let mut late: Vec<Late> = Vec::new();
    let mut arrived: Vec<Waiting> = Vec::new();
    let mut told = 0;
    while open > 0 {
        let now = Instant::now();
        let mut index = 0;
        while index < late.len() {
            if late[index].due <= now {
                let answer = late.swap_remove(index);
                queue.answer(answer.tag, answer.result)?;
            } else {
                index += 1;
            }
        }
        arrived.append(&mut held);
        let mut requests = Vec::new();
        for waiting in arrived.drain(..) {
            let Waiting { tag, since } = waiting;
            match handle(&queue, disk, tag, since, &mut buffer) {
                Outcome::Waits(request) => {
                    requests.push(request);
                    held.push(waiting);
                }
                Outcome::Answer(result, Duration::ZERO) => queue.answer(tag, result)?,
                Outcome::Answer(result, delay) => late.push(Late {
                    due: Instant::now() + delay,
                    tag,
                    result,
                }),
            }
        }
        // Who asks for them sees all of them, or those of the round before.
        if told != 0 || !requests.is_empty() {
            told = requests.len();
            lock(disk).set_waiting(requests);
        }
        let next = late.iter().map(|answer| answer.due).min();
        let limit = match (held.is_empty(), next) {
            (false, _) => Some(HOLD_POLL),
            (true, Some(due)) => Some(due.saturating_duration_since(Instant::now())),
            (true, None) => None,
        };
        queue.wait(limit, |event| match event {
            Event::Request(tag) => arrived.push(Waiting {
                tag,
                since: Instant::now(),
            }),
            Event::End => open -= 1,
        })?;
    }
    Ok(())
}

/// What comes of a request.
enum Outcome {
    /// This answer, and how late it comes.
    Answer(i32, Duration),
    /// It has to wait.
    Waits(Request),
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Performs a request, if it need not wait.
fn handle(
    queue: &Queue,
    disk: &Mutex<Disk>,
    tag: u16,
    since: Instant,
    buffer: &mut [u8],
) -> Outcome {
    let descriptor = queue.descriptor(tag);
    let operation = match descriptor.operation() {
        ublk::OP_READ => Operation::Read,
        ublk::OP_WRITE => Operation::Write,
        ublk::OP_FLUSH => Operation::Flush,
        ublk::OP_DISCARD => Operation::Discard,
        ublk::OP_WRITE_ZEROES => Operation::WriteZeroes,
        _ => return Outcome::Answer(-libc::EOPNOTSUPP, Duration::ZERO),
    };
    // A flush is of everything, and its descriptor's place is undefined.
    let (sector, sectors) = match operation {
        Operation::Flush => (0, 0),
        _ => (descriptor.sector, u64::from(descriptor.sectors)),
    };
    let request = Request {
        operation,
        sector,
        sectors,
        fua: descriptor.fua(),
    };
    let bytes = match operation {
        Operation::Read | Operation::Write => (request.sectors * SECTOR) as usize,
        _ => 0,
    };
    let Some(data) = buffer.get_mut(..bytes) else {
        return Outcome::Answer(-libc::EINVAL, Duration::ZERO);
    };
    let mut disk = lock(disk);
    if disk.holds(&request, since) || since.elapsed() < disk.lag_of(&request) {
        return Outcome::Waits(request);
    }
    if operation == Operation::Write && queue.take_data(tag, data).is_err() {
        return Outcome::Answer(-libc::EIO, Duration::ZERO);
    }
    let answer = disk.serve(&request, data);
    drop(disk);
    let result = match answer.result {
        Err(status) => -status.errno(),
        Ok(()) if operation == Operation::Read && queue.give_data(tag, data).is_err() => -libc::EIO,
        Ok(()) => bytes as i32,
    };
    Outcome::Answer(result, answer.delay)
}
