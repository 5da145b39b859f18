// SPDX-License-Identifier: GPL-2.0
//! The device, its disks and everything that is known about them: does what the plan says, and
//! judges each answer.
//!
//! Locks: the book, then a disk. The book is never held while the device is waited for.

mod events;
mod judge;

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use vmtest::guest::identify;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::Dice;
use vmtest::guest::Remap;

use crate::history::History;
use crate::log::Log;
use crate::plan;
use crate::plan::Area;
use crate::plan::Shape;
use crate::plan::Sick;
use crate::plan::Step;
use crate::plan::Which;
use crate::sickness::Sickness;
use crate::sys::Control;
use crate::sys::Device;
use crate::sys::Flags;

/// Sectors of main.
pub(crate) const MAIN_SECTORS: u64 = 8 << 11;

/// How many threads read and write at a time.
pub(crate) const THREADS: usize = 8;

/// Sectors that are read at a time when everything is.
const LOOK: u64 = 64;

/// After how many steps something rare has its turn.
const RARE: u64 = 50;

/// What is wrong everywhere.
const NOWHERE: Area = Area {
    first: 0,
    sectors: 0,
};

/// What is known.
struct Book {
    history: History,
    sickness: Sickness,
    log: Log,
}

/// What slots are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slots {
    remapped: u64,
    pending: u64,
    used: u64,
    capacity: u64,
}

/// The device and its disks.
pub(crate) struct World {
    remap: Remap,
    /// Another spare; nothing is wrong with it.
    second: Option<SickDisk>,
    control: Control,
    shape: Shape,
    /// Where the slots begin on the spare.
    data_start: u64,
    book: Mutex<Book>,
    wrong: AtomicBool,
    slowest: AtomicU64,
    /// Which block of metadata was spoilt last; only one may be at a time (P4).
    metadata_spoilt: AtomicU64,
    /// How many reads, writes and flushes succeeded and failed.
    answers: [[AtomicU64; 2]; 3],
    /// Names the scenario and its seed.
    title: String,
}

impl World {
    /// A device with blocks of `shape.block` sectors, and a spare of so many sectors.
    pub(crate) fn new(title: String, mut shape: Shape, spare_sectors: u64) -> Self {
        let block = shape.block as u32 * 512;
        let disk = |sectors: u64| Options::memory(sectors * 512).logical_block(block);
        let second = shape
            .two_spares
            .then(|| SickDisk::start(disk(spare_sectors)).expect("start the second spare"));
        let named = |second: &SickDisk| format!("2 spare {}", second.path().display());
        let arguments = second.as_ref().map_or_else(String::new, named);
        let mut remap = Remap::inactive(disk(MAIN_SECTORS), disk(spare_sectors), &arguments);
        remap.spare.disk().record_mut().restart(true);
        remap.activate();
        let control = Control::open();
        let told = control
            .message(remap.device().name(), "metadata_status")
            .expect("metadata_status");
        let number = |key: &str| {
            let mut words = told.split_whitespace();
            let found = words.find_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
            found.unwrap_or_else(|| panic!("no {key} in {told}"))
        };
        shape.slots = number("slots=") * shape.block;
        Self {
            remap,
            second,
            control,
            shape,
            data_start: number("data_start="),
            book: Mutex::new(Book {
                history: History::new(MAIN_SECTORS),
                sickness: Sickness::new(MAIN_SECTORS, !shape.alone),
                log: Log::default(),
            }),
            wrong: AtomicBool::new(false),
            slowest: AtomicU64::new(0),
            metadata_spoilt: AtomicU64::new(0),
            answers: Default::default(),
            title,
        }
    }

    /// The device, opened.
    pub(crate) fn open(&self) -> Device {
        Device::open(&self.remap.path(), self.shape.longest.max(2 * LOOK))
    }

    /// What happened: how often the device said yes and no, how long the slowest answer took, and
    /// the status.
    pub(crate) fn summary(&self) -> String {
        let slowest = Duration::from_micros(self.slowest.load(Ordering::Relaxed));
        let count = |what: usize| {
            let [good, failed] = &self.answers[what];
            let [good, failed] = [good, failed].map(|count| count.load(Ordering::Relaxed));
            format!("{good}+{failed}")
        };
        format!(
            "reads {}, changes {}, flushes {}, slowest {slowest:?}, {}",
            count(0),
            count(1),
            count(2),
            self.say("status").unwrap_or_default()
        )
    }

    /// How many changes failed.
    pub(crate) fn failed_changes(&self) -> u64 {
        self.answers[1][1].load(Ordering::Relaxed)
    }

    fn count(&self, what: usize, good: bool) {
        self.answers[what][usize::from(!good)].fetch_add(1, Ordering::Relaxed);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self, which: Which) -> &SickDisk {
        match which {
            Which::Main => &self.remap.main,
            Which::Spare => &self.remap.spare,
        }
    }

    fn say(&self, text: &str) -> io::Result<String> {
        self.control.message(self.remap.device().name(), text)
    }

    /// Tells what is wrong, and ends the test.
    fn accuse(&self, book: MutexGuard<'_, Book>, area: Area, what: &str) -> ! {
        let told = book.log.tell(area);
        drop(book);
        if self.wrong.swap(true, Ordering::SeqCst) {
            // One is enough.
            panic!("{what}");
        }
        let verify = self.say(&format!("verify {}", area.first));
        let status = self.say("status");
        let mut held = vec![0; 512];
        let on_main = match self.remap.main.disk().peek(area.first, &mut held) {
            Ok(()) => format!("{:?}", identify(&held)),
            Err(error) => error.to_string(),
        };
        eprintln!(
            "{}: {what}\nstatus: {status:?}\nverify: {verify:?}\nmain holds: {on_main}\n\
             history (time from..to, [thread], what, outcome):\n{told}",
            self.title
        );
        panic!("{}: {what}", self.title);
    }

    /// Reads everything, block by block where that is needed.
    pub(crate) fn look_everywhere(&self) {
        let mut device = self.open();
        let flags = Flags::default();
        for first in (0..MAIN_SECTORS).step_by(LOOK as usize) {
            if device.read(first, LOOK, flags).is_ok() {
                let area = Area {
                    first,
                    sectors: LOOK,
                };
                self.transfer(&mut device, 0, Step::Read(area, flags));
                continue;
            }
            for first in (first..first + LOOK).step_by(self.shape.block as usize) {
                let area = Area {
                    first,
                    sectors: self.shape.block,
                };
                self.transfer(&mut device, 0, Step::Read(area, flags));
            }
        }
    }

    /// The fractions of the status line.
    fn slots(&self) -> Slots {
        let status = self.say("status").unwrap_or_default();
        let read = || {
            let mut words = status.split_whitespace().skip_while(|word| *word != "v3.0");
            let mut fraction = |skip| {
                let (part, whole) = words.nth(skip)?.split_once('/')?;
                Some((part.parse().ok()?, whole.parse().ok()?))
            };
            let (remapped, capacity) = fraction(1)?;
            let (pending_or_lost, _): (u64, u64) = fraction(0)?;
            let (used, _) = fraction(0)?;
            let mut rest = status.split_whitespace();
            let lost = rest.find_map(|word| word.strip_prefix("lost=")?.parse::<u64>().ok())?;
            // That a slot cannot be read is found out anew by each activation.
            let pending = pending_or_lost - lost;
            Some(Slots {
                remapped,
                pending,
                used,
                capacity,
            })
        };
        read().unwrap_or_else(|| panic!("{}: no fractions in {status:?}", self.title))
    }

    /// A value of the status line.
    fn status_word(&self, key: &str) -> String {
        let status = self.say("status").unwrap_or_default();
        let mut words = status.split_whitespace();
        let found = words.find_map(|word| word.strip_prefix(key));
        found.unwrap_or_default().into()
    }

    /// Heals both disks.
    pub(crate) fn heal_everything(&self) {
        self.event(Step::Revive);
        self.event(Step::HealSpare);
        self.event(Step::HealMain(Area {
            first: 0,
            sectors: MAIN_SECTORS,
        }));
    }

    /// Looks at everything as it is, with healthy disks, as a new device, and after the power was
    /// cut.
    pub(crate) fn finish(&mut self) {
        self.look_everywhere();
        self.again(Step::Recreate);
        self.look_everywhere();
        self.heal_everything();
        self.look_everywhere();
        let mut device = self.open();
        let all = Area {
            first: 0,
            sectors: self.shape.longest,
        };
        self.transfer(&mut device, 0, Step::Write(all, Flags::default()));
        self.transfer(&mut device, 0, Step::Flush);
        drop(device);
        // All is well and used, so nothing may be held against a disk any more.
        for (key, expected) in [("breaker=", "none"), ("flush=", "good")] {
            let found = self.status_word(key);
            assert!(found == expected, "{}: {key}{found}", self.title);
        }
        // What is moved when nobody waits for it any more.
        self.event(Step::Suspend {
            noflush: false,
            milliseconds: 0,
        });
        // And everything can go back to where it belongs.
        self.event(Step::ClearAll);
        let slots = self.slots();
        let bad = self.status_word("bad_slots=").parse().ok();
        assert!(
            slots.remapped == 0 && slots.pending == 0 && bad == Some(slots.used),
            "{}: not all was moved back: {}",
            self.title,
            self.summary()
        );
        self.look_everywhere();
        self.again(Step::Cut(PowerCut::Drop));
        self.look_everywhere();
        assert_eq!(self.slots(), slots, "{}", self.title);
    }

    /// Uses up the spare, and something more.
    pub(crate) fn fill(&self) {
        let mut device = self.open();
        let block = self.shape.block;
        let slots = self.slots().capacity * block;
        let bad = Area {
            first: 0,
            sectors: (slots + 16 * block).min(self.shape.bad),
        };
        self.event(Step::SpoilMain(
            bad,
            Sick::Bad(Direction::Write, Status::Medium),
        ));
        for first in bad.range().step_by(8 * block as usize) {
            let sectors = 8 * block;
            let area = Area { first, sectors };
            self.transfer(&mut device, 0, Step::Write(area, Flags::default()));
        }
    }

    /// Moves blocks back whose slots are the only free ones, for others that are at the other end, while they are
    /// read. Dice rarely find one with a slot and one without.
    pub(crate) fn reuse_slots(&self) {
        let sectors = self.shape.block;
        for number in 0..8 {
            let (first, last) = (number * sectors, self.shape.area - (number + 1) * sectors);
            let [from, to] = [first, last].map(|first| Area { first, sectors });
            self.event(Step::ReuseUnderReads(from, to, 20));
        }
    }

    /// So many transfers by each of several threads, while other things happen. The same seed
    /// gives the same transfers to each thread.
    pub(crate) fn rush(&self, seed: u64, transfers: u64) {
        let working = AtomicUsize::new(THREADS);
        std::thread::scope(|scope| {
            for who in 1..=THREADS {
                let working = &working;
                let mut device = self.open();
                scope.spawn(move || {
                    let _count = Countdown(working);
                    let mut dice = dice(seed, who);
                    for _ in 0..transfers {
                        if self.wrong.load(Ordering::Relaxed) {
                            break;
                        }
                        let step = self.shape.transfer(&mut dice);
                        self.transfer(&mut device, who, step);
                    }
                });
            }
            let mut dice = dice(seed, 0);
            while working.load(Ordering::SeqCst) != 0 && !self.wrong.load(Ordering::Relaxed) {
                self.event(self.shape.event(&mut dice));
                std::thread::sleep(plan::pause(&mut dice));
            }
        });
        let mut book = self.book();
        book.history.tidy();
    }

    /// Sectors go bad and are written, and the power is cut then, or after so many writes to the
    /// spare. Returns where metadata was written for that.
    fn cut_at_move(
        &mut self,
        mut device: Device,
        area: Area,
        writes: Option<u32>,
        how: PowerCut,
    ) -> (Device, Vec<u64>) {
        let flags = Flags::default();
        let before = self.remap.spare.disk().record().entries().len();
        let bad = Sick::Bad(Direction::Write, Status::Medium);
        self.event(Step::SpoilMain(area, bad));
        if let Some(writes) = writes {
            self.event(Step::DieAfter(Which::Spare, writes, Status::Offline));
        }
        self.transfer(&mut device, 1, Step::Write(area, flags));
        drop(device);
        let written = self.metadata_written(before);
        self.again(Step::Cut(how));
        device = self.open();
        self.transfer(&mut device, 1, Step::Read(area, flags));
        (device, written)
    }

    /// The power is cut in a move, and what was read then is read again when the metadata block that was
    /// written last is bad.
    fn cut_and_spoil(&mut self, device: Device, area: Area, writes: u32, how: PowerCut) -> Device {
        self.commit_beside(area);
        let (device, written) = self.cut_at_move(device, area, Some(writes), how);
        let Some(place) = written.last() else {
            return device;
        };
        drop(device);
        let bad = Sick::Bad(Direction::Both, Status::Medium);
        self.event(Step::SpoilMetadataAt(*place, bad));
        self.again(Step::Recreate);
        let mut device = self.open();
        self.transfer(&mut device, 1, Step::Read(area, Flags::default()));
        device
    }

    /// The spare dies in a move. It is back when the same is written to a main that takes it.
    fn half_move(&mut self, mut device: Device, area: Area, writes: u32) -> Device {
        self.commit_beside(area);
        let write = Step::Write(area, Flags::default());
        let bad = Sick::Bad(Direction::Write, Status::Medium);
        self.event(Step::SpoilMain(area, bad));
        self.event(Step::DieAfter(Which::Spare, writes, Status::Offline));
        self.transfer(&mut device, 1, write);
        self.event(Step::Revive);
        self.event(Step::HealMain(area));
        self.transfer(&mut device, 1, write);
        drop(device);
        self.again(Step::Recreate);
        device = self.open();
        self.transfer(&mut device, 1, Step::Read(area, Flags::default()));
        device
    }

    /// Moves the block behind an area, as the first commit of an activation writes more than others.
    fn commit_beside(&self, area: Area) {
        self.event(Step::Revive);
        self.event(Step::Remap(Area {
            first: area.first + area.sectors,
            sectors: self.shape.block,
        }));
    }

    /// So many steps of all kinds, one after the other.
    pub(crate) fn stroll(&mut self, seed: u64, steps: u64) {
        let mut dice = dice(seed, 0);
        let mut device = self.open();
        let mut without = 0_u64;
        for number in 0..steps {
            self.look_what_is_over();
            if without == 1 {
                self.event(Step::Remapping);
            }
            without = without.saturating_sub(1);
            let event = match number % RARE {
                0 => self.shape.rare(number / RARE, &mut dice),
                _ if dice.roll(4) == 0 => self.shape.event(&mut dice),
                _ => {
                    let step = self.shape.transfer(&mut dice);
                    self.transfer(&mut device, 1, step);
                    continue;
                }
            };
            match event {
                step @ (Step::Recreate | Step::Cut(_)) => {
                    drop(device);
                    self.again(step);
                    device = self.open();
                }
                Step::CutAfterMove(area, how) => {
                    (device, _) = self.cut_at_move(device, area, None, how);
                }
                Step::CutDuringMove(area, writes, how) => {
                    (device, _) = self.cut_at_move(device, area, Some(writes), how);
                }
                Step::CutAfterFailedFlush(area, how) => {
                    self.event(Step::FailFlush(Which::Spare, 1));
                    (device, _) = self.cut_at_move(device, area, None, how);
                }
                Step::CutAndSpoil(area, writes, how) => {
                    device = self.cut_and_spoil(device, area, writes, how);
                }
                Step::HalfMove(area, writes) => device = self.half_move(device, area, writes),
                step @ (Step::Suspend { .. } | Step::Reload) => {
                    self.revive();
                    self.event(step);
                }
                step @ Step::NoRemapping(steps) => {
                    without = steps + 1;
                    self.event(step);
                }
                step => self.event(step),
            }
        }
    }
}

/// Counts down when its thread ends, however it does.
struct Countdown<'a>(&'a AtomicUsize);

impl Drop for Countdown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn dice(seed: u64, who: usize) -> Dice {
    let mut dice = Dice::new(seed.wrapping_mul(64).wrapping_add(who as u64 + 1));
    for _ in 0..16 {
        // Seeds that are near each other need some rolls to part.
        dice.roll(2);
    }
    dice
}
