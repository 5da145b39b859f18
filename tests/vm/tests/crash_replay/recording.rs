// SPDX-License-Identifier: GPL-2.0
//! Recording: a device on a main and a spare that lie on one disk, one behind the other, under
//! which dm-log-writes keeps all that is written. What fails, fails above it, so that the log has
//! only what reached the medium.
//!
//! Before and after each step of a workload there is a mark, in the log and in the trace, with the
//! step's number. What the step was and what came of it is kept in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;

use vmtest::guest::message;
use vmtest::guest::BlockTrace;
use vmtest::guest::Direct;
use vmtest::guest::LogWrites;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::Patched;

use crate::timeline::Disk;
use crate::timeline::Timeline;

/// Where things lie. All in sectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bytes of a logical block.
    pub(crate) block: u32,
    /// Of main.
    pub(crate) main: u64,
    /// Of the spare, which lies behind main.
    pub(crate) spare: u64,
}

impl Shape {
    /// Sectors of a logical block.
    pub(crate) fn unit(&self) -> u64 {
        u64::from(self.block) / 512
    }

    fn mib(&self) -> u32 {
        ((self.main + self.spare) >> 11) as u32
    }

    /// A disk for both, blank.
    pub(crate) fn disk(&self) -> NullBlk {
        NullBlk::new(self.mib(), self.block)
    }
}

/// Areas: first sector and how many.
pub(crate) type Areas = Vec<(u64, u64)>;

/// What is done.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The device is made, for the first time or again.
    Activate,
    /// Sectors are written, with stamps of this generation.
    Write {
        sector: u64,
        sectors: u64,
        generation: u64,
        /// With FUA.
        fua: bool,
    },
    /// What was written is made durable.
    Flush,
    /// A file is written, with a content that its number tells, and fsynced.
    File(u64),
    /// A message that may move these blocks (by their first sectors).
    Message(Vec<u64>),
    /// From now on these areas cannot be written.
    Unwritable(Disk, Areas),
    /// Something that changes nothing.
    Nothing,
}

/// A step, and how it went.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) step: Step,
    /// The blocks of which it is certain now whether they are remapped.
    pub(crate) remapped: BTreeMap<u64, bool>,
}

/// A device whose disks are being recorded.
pub(crate) struct Recording {
    // The order is that in which they have to go.
    device: Option<Mapped>,
    pub(crate) main: Patched,
    pub(crate) spare: Patched,
    log: LogWrites,
    trace: BlockTrace,
    base: Vec<u8>,
    pub(crate) shape: Shape,
    steps: RefCell<Vec<Done>>,
    _disk: NullBlk,
    _log_disk: NullBlk,
}

/// Everything that is to be known about it afterwards.
pub(crate) struct Recorded {
    pub(crate) shape: Shape,
    /// What was on the disk before.
    pub(crate) base: Vec<u8>,
    pub(crate) timeline: Timeline,
    pub(crate) steps: Vec<Done>,
}

/// The table line.
pub(crate) fn table(shape: Shape, main: &std::path::Path, spare: &std::path::Path) -> String {
    format!(
        "0 {} dm-remap {} {}",
        shape.main,
        main.display(),
        spare.display()
    )
}

impl Recording {
    /// Blank disks, or what `prepare` makes of them on a device that is not recorded yet.
    pub(crate) fn new(shape: Shape, prepare: Option<&dyn Fn(&Mapped)>) -> Self {
        let disk = shape.disk();
        vmtest::guest::load();
        let log_disk = NullBlk::new(256, shape.block);
        if let Some(prepare) = prepare {
            let main = Patched::new(&disk.path(), 0, shape.main);
            let spare = Patched::new(&disk.path(), shape.main, shape.spare);
            let device = Mapped::new(&table(shape, &main.path(), &spare.path()));
            prepare(&device);
            device.remove();
        }
        let base = read_all(&Direct::open(&disk.path()), shape.main + shape.spare);
        let log = LogWrites::new(&disk.path(), shape.main + shape.spare, &log_disk.path());
        let main = Patched::new(&log.path(), 0, shape.main);
        let spare = Patched::new(&log.path(), shape.main, shape.spare);
        // Data as the log has it; flushes as the two disks are given them.
        let trace = BlockTrace::start(&[&main.path(), &spare.path(), &log.path()]);
        Self {
            device: None,
            main,
            spare,
            log,
            trace,
            base,
            shape,
            steps: RefCell::new(Vec::new()),
            _disk: disk,
            _log_disk: log_disk,
        }
    }

    /// Does a step. `act` tells the blocks of which it made certain whether they are remapped.
    pub(crate) fn step<T>(&self, step: Step, act: impl FnOnce() -> (T, BTreeMap<u64, bool>)) -> T {
        let number = self.steps.borrow().len();
        self.mark(&format!("begin:{number}"));
        let (result, remapped) = act();
        self.steps.borrow_mut().push(Done { step, remapped });
        self.mark(&format!("end:{number}"));
        result
    }

    fn mark(&self, text: &str) {
        self.log.mark(text);
        self.trace.mark(text);
    }

    /// Makes the device.
    pub(crate) fn activate(&mut self) {
        let line = table(self.shape, &self.main.path(), &self.spare.path());
        self.device = Some(self.step(Step::Activate, || (Mapped::new(&line), BTreeMap::new())));
    }

    /// Removes it.
    pub(crate) fn deactivate(&mut self) {
        let device = self.device.take().expect("a device");
        self.step(Step::Nothing, || (device.remove(), BTreeMap::new()));
    }

    pub(crate) fn device(&self) -> &Mapped {
        self.device.as_ref().expect("a device")
    }

    /// Where each of these blocks is served from.
    pub(crate) fn remapped(&self, blocks: impl IntoIterator<Item = u64>) -> BTreeMap<u64, bool> {
        let name = self.device().name();
        blocks
            .into_iter()
            .map(|block| (block, is_remapped(name, block).expect("verify")))
            .collect()
    }

    /// Makes areas unwritable, and only these.
    pub(crate) fn unwritable(&self, disk: Disk, areas: &Areas) {
        let patched = match disk {
            Disk::Main => &self.main,
            Disk::Spare => &self.spare,
        };
        self.step(Step::Unwritable(disk, areas.clone()), || {
            (patched.unwritable(areas), BTreeMap::new())
        });
    }

    /// What was written durably to the spare so far: the first sectors of such writes, on the
    /// spare.
    pub(crate) fn durable_places(&self) -> Vec<u64> {
        let entries = self.log.so_far();
        entries
            .iter()
            .filter_map(|entry| match entry {
                vmtest::guest::Entry::Write {
                    sector, fua: true, ..
                } => sector.checked_sub(self.shape.main),
                _ => None,
            })
            .collect()
    }

    /// Ends it.
    pub(crate) fn end(mut self) -> Recorded {
        self.deactivate();
        let Self {
            main,
            spare,
            log,
            trace,
            base,
            shape,
            steps,
            ..
        } = self;
        let traced = trace.end();
        drop((main, spare));
        let entries = log.end();
        Recorded {
            shape,
            base,
            timeline: Timeline::new(shape.main, &traced, entries),
            steps: steps.into_inner(),
        }
    }
}

/// Asks a device whether it serves a sector from the spare.
pub(crate) fn is_remapped(device: &str, sector: u64) -> Result<bool, String> {
    let told = message(device, &format!("verify {sector}")).map_err(|error| error.to_string())?;
    match told.split_once(": ") {
        Some((_, "main")) => Ok(false),
        Some((_, place)) if place.starts_with("spare sector ") => Ok(true),
        _ => Err(told),
    }
}

/// Reads a whole device.
pub(crate) fn read_all(device: &Direct, sectors: u64) -> Vec<u8> {
    let mut all = Vec::with_capacity((sectors * 512) as usize);
    for first in (0..sectors).step_by(512) {
        all.extend(device.read(first, 512.min(sectors - first)).expect("read"));
    }
    all
}
