// SPDX-License-Identifier: GPL-2.0
//! Doing I/O and counting the instructions that it takes.
//!
//! This is what fio does, and much less of it. fio tells the time of a run in milliseconds, which here are
//! a million instructions, and it takes a varying number of them to begin and to end: a figure that is
//! good to ten instructions would take a quarter of a million I/Os.
#![allow(unsafe_code)]

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use io_uring::opcode;
use io_uring::types::Fd;
use io_uring::IoUring;

use crate::rows::Engine;
use crate::rows::Job;
use crate::rows::Op;

/// How many I/Os io_uring has at a time.
const DEPTH: u32 = 32;

/// How many parts a run is measured in: most are so short that no timer interrupts them, and what timers do in
/// the meantime is nothing that an I/O costs.
const LAPS: u64 = 100;

/// Pages are as large as that where the kernel can make them: it takes an I/O one step, then, and not one
/// that depends on how the memory of this run happens to lie.
const HUGE_PAGE: usize = 2 << 20;

/// Memory for data.
pub(crate) struct Data(Vec<u8>);

impl Data {
    pub(crate) fn new() -> Self {
        let mut data = Self(Vec::with_capacity(2 * HUGE_PAGE));
        let start = data.0.as_ptr().align_offset(HUGE_PAGE);
        let address = data.0.as_mut_ptr().wrapping_add(start).cast();
        // SAFETY: this only gives advice, about memory that is ours.
        unsafe { libc::madvise(address, HUGE_PAGE, libc::MADV_HUGEPAGE) };
        data.0.resize(2 * HUGE_PAGE, 0x5a);
        data
    }

    fn get(&mut self) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(HUGE_PAGE);
        &mut self.0[start..start + HUGE_PAGE]
    }
}

/// Whatever is needed later is there now: nothing is to be waited for then.
pub(crate) fn stay_in_memory() -> io::Result<()> {
    // SAFETY: this takes no pointers.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Instructions so far: with `-icount shift=0` each takes a nanosecond, and each of those is a tick of the
/// processor's counter.
fn instructions() -> u64 {
    // SAFETY: all processors that run this program have that instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Places for I/O, but not at multiples of `avoided` bytes, a power of two: in this part of the device, aligned to their size, in no order, and always the same.
struct Places {
    state: u64,
    first: u64,
    count: u64,
    bs: u64,
    avoided: u64,
}

impl Places {
    fn new(bytes: &Range<u64>, bs: u32, avoided: u64) -> Self {
        let bs = u64::from(bs);
        let first = bytes.start.div_ceil(bs);
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            first,
            count: bytes.end / bs - first,
            bs,
            avoided,
        }
    }

    /// As many instructions for each: `xorshift64*`, and a multiplication instead of a division.
    #[inline(always)]
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let chosen = (u128::from(random) * u128::from(self.count)) >> 64;
        let place = (self.first + chosen as u64) * self.bs;
        // Without a division and without a branch.
        let avoid = u64::from(place & (self.avoided - 1) == 0);
        place + avoid * self.bs
    }
}

/// What parts of a run took. The same run has the same parts again.
struct Laps {
    begun: u64,
    /// Done in this lap; a lap ends when that is at least `length`.
    done: u64,
    length: u64,
    /// Thousandths of an instruction for each I/O.
    costs: Vec<u64>,
}

impl Laps {
    /// Begins the first one.
    fn new(count: u64) -> Self {
        Self {
            done: 0,
            length: (count / LAPS).max(1),
            costs: Vec::with_capacity(LAPS as usize + 1),
            begun: instructions(),
        }
    }

    #[inline(always)]
    fn done(&mut self, count: u64) {
        self.done += count;
        if self.done >= self.length {
            self.next();
        }
    }

    #[inline(never)]
    fn next(&mut self) {
        self.costs
            .push((instructions() - self.begun) * 1000 / self.done);
        self.done = 0;
        self.begun = instructions();
    }
}

/// What each part of a run took at the least, of several such runs: what interrupts one of them hardly ever
/// comes at the same place again.
#[derive(Default)]
pub(crate) struct Least(Vec<u64>);

impl Least {
    /// One more run, in thousandths of an instruction for each I/O.
    pub(crate) fn with(&mut self, costs: Vec<u64>) {
        if self.0.len() != costs.len() {
            self.0 = costs;
            return;
        }
        for (least, cost) in self.0.iter_mut().zip(costs) {
            *least = cost.min(*least);
        }
    }

    /// The instructions that an I/O takes, rounded. Of small ones, each costs the same, and the part in the
    /// middle counts; not all of the larger ones do.
    pub(crate) fn instructions(&self, job: Job) -> u64 {
        let count = self.0.len().max(1);
        let cost = if job.bs <= 4096 {
            let mut costs = self.0.clone();
            costs.sort_unstable();
            costs.get(count / 2).copied().unwrap_or(0)
        } else {
            self.0.iter().sum::<u64>() / count as u64
        };
        (cost + 500) / 1000
    }
}

/// Does `count` I/Os in this part of a device, in bytes, none of them at multiples of `avoided`. Returns what
/// each part of that took, in thousandths of an instruction for each I/O.
pub(crate) fn run(
    path: &Path,
    bytes: &Range<u64>,
    avoided: u64,
    job: Job,
    count: u64,
    data: &mut Data,
) -> io::Result<Vec<u64>> {
    let file = OpenOptions::new()
        .read(true)
        .write(job.op == Op::Randwrite)
        // How long it takes to see that the time of the last access need not be noted down depends on
        // whether it is in the same second as that of the last change.
        .custom_flags(libc::O_DIRECT | libc::O_NOATIME)
        .open(path)?;
    let places = Places::new(bytes, job.bs, avoided);
    let data = &mut data.get()[..job.bs as usize];
    let laps = match job.engine {
        Engine::Psync => psync(&file, places, job, count, data)?,
        Engine::IoUring => io_uring(&file, places, job, count, data)?,
    };
    Ok(laps.costs)
}

fn psync(
    file: &File,
    mut places: Places,
    job: Job,
    count: u64,
    data: &mut [u8],
) -> io::Result<Laps> {
    let mut laps = Laps::new(count);
    for _ in 0..count {
        let place = places.next();
        let done = match job.op {
            Op::Randread => file.read_at(data, place)?,
            Op::Randwrite => file.write_at(data, place)?,
        };
        check(done, data.len())?;
        laps.done(1);
    }
    Ok(laps)
}

/// All that is under way reads into the same memory, or writes from it.
fn io_uring(
    file: &File,
    mut places: Places,
    job: Job,
    count: u64,
    data: &mut [u8],
) -> io::Result<Laps> {
    let mut ring = IoUring::new(DEPTH)?;
    let fd = Fd(file.as_raw_fd());
    let length = data.len() as u32;
    let (mut begun, mut ended) = (0, 0);
    let mut laps = Laps::new(count);
    while ended < count {
        while begun < count && begun - ended < u64::from(DEPTH) {
            let place = places.next();
            let entry = match job.op {
                Op::Randread => opcode::Read::new(fd, data.as_mut_ptr(), length)
                    .offset(place)
                    .build(),
                Op::Randwrite => opcode::Write::new(fd, data.as_ptr(), length)
                    .offset(place)
                    .build(),
            };
            // SAFETY: the memory is there until all I/O has ended: this function ends after that, or with
            // an error and the program.
            unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
            begun += 1;
        }
        ring.submit_and_wait(1)?;
        let before = ended;
        for entry in ring.completion() {
            let done = usize::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(-entry.result()))?;
            check(done, data.len())?;
            ended += 1;
        }
        laps.done(ended - before);
    }
    Ok(laps)
}

#[inline(always)]
fn check(done: usize, wanted: usize) -> io::Result<()> {
    match done == wanted {
        true => Ok(()),
        false => Err(io::Error::other(format!("{done} of {wanted} bytes"))),
    }
}
