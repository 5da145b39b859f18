// SPDX-License-Identifier: GPL-2.0
//! The side in the virtual machine: makes one device after the other, and does I/O on it.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use vmtest::guest::load;
use vmtest::guest::succeed;
use vmtest::guest::NullBlk;
use vmtest::guest::QuickDevice;
use vmtest::guest::SpareSet;

use crate::engine;
use crate::engine::Data;
use crate::engine::Least;
use crate::rows::Job;
use crate::rows::Measured;
use crate::rows::DEVICES;
use crate::rows::LINEAR;
use crate::rows::LINEAR_ON_SPARE;
use crate::rows::REDIRECTED;

/// Of main, which has no memory behind it.
const MAIN_MIB: u32 = 1 << 20;

/// Of the spare, for a million blocks of 4096 bytes.
const SPARE_MIB: u32 = 4500;

const MILLION: u32 = 1_000_000;

/// How much of what is remapped is read and written: it has to fit into memory.
const REDIRECTED_BYTES: u64 = 256 << 20;

/// A kind of I/O is measured again until that makes no difference: at least so often, so that everything that is
/// made once is there, and no more often than this, which is not steady.
const AT_LEAST: u32 = 3;
const AT_MOST: u32 = 12;

/// What makes no difference, of so many instructions.
pub(crate) fn same(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= 1 + one / 10_000
}

/// How many I/Os are done at a time: the more, the less it means that one of them is interrupted. Where
/// data is copied, it does not take many until that is a small part.
fn count(device: &str, job: Job) -> u64 {
    let copied = [LINEAR_ON_SPARE, REDIRECTED].contains(&device);
    match job.bs {
        0..=4096 => 10_000,
        4097..=65_536 if copied => 1_000,
        4097..=65_536 => 5_000,
        _ if copied => 100,
        _ => 1_000,
    }
}

const SETTLE: Duration = Duration::from_secs(30);

struct Bench<'a> {
    only: &'a str,
    block: u32,
    data: Data,
}

/// Everything, for disks with these logical blocks.
pub(crate) fn run(block: u32, only: &str) {
    load();
    for module in ["dm_flakey", "dm_unstripe", "null_blk nr_devices=0"] {
        succeed(&format!("modprobe {module}"));
    }
    let mut bench = Bench {
        only,
        block,
        data: Data::new(),
    };
    engine::stay_in_memory().expect("mlockall");
    bench.others();
    bench.elsewhere("remap-0", 0);
    bench.elsewhere("remap-1k", 1_000);
    bench.elsewhere("remap-1m-elsewhere", MILLION);
    bench.spread("remap-1m-spread");
    bench.redirected();
}

/// As far from each other as they can be: one for each MiB.
fn spread(slot: u32, blocks: u64) -> u64 {
    u64::from(slot) * (blocks / u64::from(MAIN_MIB))
}

/// I/O of single blocks goes to others than those that are spread: what it costs to be redirected is seen
/// by itself. Larger I/O cannot avoid them.
fn avoided(job: Job) -> u64 {
    match job.bs {
        0..=4096 => 1 << 20,
        _ => 1 << 63,
    }
}

impl Bench<'_> {
    fn wants(&self, device: &str) -> bool {
        Job::all().any(|job| self.wants_job(device, job))
    }

    /// What others are compared with is wanted with them.
    fn wants_job(&self, device: &str, job: Job) -> bool {
        let asked = |device: &str| format!("{device} {job}").contains(self.only);
        match device {
            LINEAR => DEVICES.iter().any(|device| asked(device)),
            LINEAR_ON_SPARE => asked(REDIRECTED),
            _ => asked(device),
        }
    }

    /// Does all kinds of I/O on a part of a device, in bytes.
    fn measure(&mut self, device: &str, path: &Path, bytes: &Range<u64>) {
        // What is still going on because of what was done before comes to its end.
        std::thread::sleep(SETTLE);
        // It is told at the end: the machine does nothing else meanwhile.
        let mut told = String::new();
        for job in Job::all() {
            if !self.wants_job(device, job) {
                continue;
            }
            let mut once = || {
                engine::run(
                    path,
                    bytes,
                    avoided(job),
                    job,
                    count(device, job),
                    &mut self.data,
                )
                .unwrap_or_else(|error| panic!("{device} {job}: {error}"))
            };
            let mut least = Least::default();
            let mut measured = Measured {
                device: device.into(),
                job,
                instructions: u64::MAX,
                before: u64::MAX,
            };
            // Of those that take long, a part is more often interrupted.
            let copied = [LINEAR_ON_SPARE, REDIRECTED].contains(&device);
            let more = if job.bs > 65_536 && !copied { 3 } else { 1 };
            for time in 1..=more * AT_MOST {
                least.with(once());
                measured.before = measured.instructions;
                measured.instructions = least.instructions(job);
                if time >= more * AT_LEAST && same(measured.instructions, measured.before) {
                    break;
                }
            }
            told += &format!("{measured}\n");
        }
        print!("{told}");
    }

    /// The disk itself, and the targets of others.
    fn others(&mut self) {
        let main = NullBlk::hollow(MAIN_MIB, self.block);
        let (path, sectors) = (main.path(), u64::from(MAIN_MIB) << 11);
        let bytes = 0..sectors << 9;
        self.measure("raw", &path, &bytes);
        let disk = path.display();
        let tables = [
            (LINEAR, "linear", format!("{disk} 0")),
            // One stripe, and as large as can be: nothing is to be split.
            (
                "unstriped",
                "unstriped",
                format!("1 {} 0 {disk} 0", 1 << 21),
            ),
            ("flakey", "flakey", format!("{disk} 0 3600 0")),
        ];
        for (device, target, parameters) in tables {
            if self.wants(device) {
                let mapped = QuickDevice::new(sectors, target, &parameters).expect(target);
                self.measure(device, mapped.path(), &bytes);
                mapped.remove().expect("remove");
            }
        }
    }

    /// A main device, and a spare with so many remaps on it.
    fn set(&self, remaps: u32, place: fn(u32, u64) -> u64) -> SpareSet {
        let set = SpareSet {
            main: NullBlk::hollow(MAIN_MIB, self.block),
            spares: vec![NullBlk::inline(SPARE_MIB, self.block)],
            sectors: u64::from(MAIN_MIB) << 11,
            slot_sectors: u64::from(self.block >> 9),
            place,
        };
        set.forge(remaps);
        set
    }

    /// I/O behind all remaps.
    fn elsewhere(&mut self, device: &str, remaps: u32) {
        if self.wants(device) {
            let set = self.set(remaps, SpareSet::in_front);
            let remapped = u64::from(remaps) * u64::from(self.block);
            let first = remapped.next_multiple_of(1 << 20);
            self.on(device, &set, remaps, first..set.sectors << 9);
        }
    }

    /// I/O on a device with remaps everywhere.
    fn spread(&mut self, device: &str) {
        if self.wants(device) {
            let set = self.set(MILLION, spread);
            self.on(device, &set, MILLION, 0..set.sectors << 9);
        }
    }

    fn on(&mut self, device: &str, set: &SpareSet, remaps: u32, bytes: Range<u64>) {
        let mapped = QuickDevice::new(set.sectors, "dm-remap", &set.parameters(""));
        let mapped = mapped.expect("a remapped device");
        let status = mapped.message("status").expect("status");
        assert!(status.contains(&format!(" {remaps}/")), "{status}");
        self.measure(device, mapped.path(), &bytes);
        mapped.remove().expect("remove");
    }

    /// I/O on what is remapped, and the same on the slots by themselves.
    fn redirected(&mut self) {
        if !self.wants(REDIRECTED) {
            return;
        }
        let set = self.set(MILLION, SpareSet::in_front);
        let bytes = 0..REDIRECTED_BYTES;
        let spare = set.spares[0].path();
        let slots = format!("{} {}", spare.display(), set.slots_start());
        let linear = QuickDevice::new(bytes.end >> 9, "linear", &slots).expect("linear");
        // What was never written is not there, and does not take as long to be read.
        let fill = "bs=1M oflag=direct status=none";
        let (to, count) = (linear.path().display(), bytes.end >> 20);
        succeed(&format!("dd if=/dev/zero of={to} {fill} count={count}"));
        self.measure(LINEAR_ON_SPARE, linear.path(), &bytes);
        linear.remove().expect("remove");
        self.on(REDIRECTED, &set, MILLION, bytes);
    }
}
