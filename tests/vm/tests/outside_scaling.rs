// SPDX-License-Identifier: GPL-2.0
//! One, two and four jobs on four processors: the more there are, the less may not be left of
//! what dm-linear does (P10, P11).
//!
//! This runs outside; what runs in the machine is `inside`, at the end. Its processors take turns, and its clock
//! counts the instructions of all of them together. So what is seen is work that is done twice or again,
//! such as waiting for a lock; that no cache line is shared is seen by `shared_lines`. The jobs are threads of
//! this program: fio's are as good, but fio tells the time in milliseconds, a million instructions each, and what
//! is still to be fetched of it for that is waited for, in which time does not stand still.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;
use std::time::Instant;

use vmtest::guest::load;
use vmtest::guest::Dice;
use vmtest::guest::Need;
use vmtest::guest::NullBlk;
use vmtest::guest::QuickDevice;
use vmtest::machine::Machine;

const PROCESSORS: u32 = 4;
const MAIN_MIB: u32 = 4096;

/// The I/Os of all jobs together.
const IOS: u32 = 8_000;

/// How often they are done at the most. The least time of each counts: what else the machine does, such as a
/// timer that ends in one run and not in the other, adds to some runs, and work that is done twice to all.
const TIMES: u32 = 20;

/// What the ratio to dm-linear may lose from one job to several.
const LOSS: f64 = 0.02;

/// The ratio to dm-linear does not fall with the number of jobs.
#[test]
fn the_ratio_to_dm_linear_does_not_fall_with_jobs() {
    vmtest::needs!(Need::Clock);
    let outcome = Machine::inside()
        .unwrap()
        .processors(PROCESSORS)
        .counting()
        .time_limit(Duration::from_secs(600))
        .start()
        .unwrap()
        .wait()
        .unwrap();
    println!("{}", outcome.output);
    assert!(outcome.passed(), "{outcome}");
}

/// The time of all I/Os of 4 KiB, divided among so many jobs: from the begin of the first job to the end of the
/// last, as they see it. Who only waits for them may be told of either late, when a good part is done.
fn time(path: &Path, op: Op, jobs: u32) -> Duration {
    let ready = &Barrier::new(jobs as usize);
    let times: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..jobs)
            .map(|job| scope.spawn(move || work(path, op, job, IOS / jobs, ready)))
            .collect();
        let jobs = jobs.into_iter();
        jobs.map(|job| job.join().expect("a job")).collect()
    });
    let begun = times.iter().map(|(begun, _)| *begun).min();
    let ended = times.iter().map(|(_, ended)| *ended).max();
    ended.expect("a job") - begun.expect("a job")
}

/// The least times on a device and on dm-linear.
struct Least {
    jobs: u32,
    ours: Duration,
    theirs: Duration,
}

impl Least {
    fn ratio(&self) -> f64 {
        self.theirs.as_secs_f64() / self.ours.as_secs_f64()
    }
}

/// Whether the ratio falls with the number of jobs. As soon as it does not, that is the answer.
fn falls(remap: &Path, linear: &Path, op: Op) -> bool {
    let mut all = [1, 2, 4].map(|jobs| Least {
        jobs,
        ours: Duration::MAX,
        theirs: Duration::MAX,
    });
    for run in 1..=TIMES {
        for least in &mut all {
            least.ours = least.ours.min(time(remap, op, least.jobs));
            least.theirs = least.theirs.min(time(linear, op, least.jobs));
        }
        let one = all[0].ratio();
        for least in &all {
            let Least { jobs, ours, theirs } = least;
            let ratio = least.ratio();
            println!("{op:?}, {run}, {jobs} jobs: {ours:?}, {theirs:?} on dm-linear, {ratio:.4}");
        }
        if run > 1 && all.iter().all(|least| least.ratio() > one - LOSS) {
            return false;
        }
    }
    true
}

/// One of the jobs. All of them begin when they are ready to. Tells when it began and ended.
fn work(path: &Path, op: Op, job: u32, ios: u32, ready: &Barrier) -> (Instant, Instant) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_NOATIME)
        .open(path)
        .expect("open");
    let mut memory = vec![1; 8192];
    let start = memory.as_ptr().align_offset(4096);
    let data = &mut memory[start..start + 4096];
    let mut dice = Dice::new(u64::from(job) + 1);
    ready.wait();
    let begun = Instant::now();
    for _ in 0..ios {
        let place = dice.roll(u64::from(MAIN_MIB) << 8) * 4096;
        let done = match op {
            Op::Read => file.read_at(data, place),
            Op::Write => file.write_at(data, place),
        };
        assert_eq!(done.expect("I/O"), data.len());
    }
    (begun, Instant::now())
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Read,
    Write,
}

#[test]
#[ignore = "runs in the machine of the test above"]
fn inside() {
    let _test = vmtest::begin!();
    load();
    let main = NullBlk::hollow(MAIN_MIB, 4096);
    let spare = NullBlk::inline(64, 4096);
    let sectors = u64::from(MAIN_MIB) << 11;
    let (disk, slots) = (main.path(), spare.path());
    let (disk, slots) = (disk.display(), slots.display());
    let linear = QuickDevice::new(sectors, "linear", &format!("{disk} 0")).expect("linear");
    let remap = QuickDevice::new(sectors, "dm-remap", &format!("{disk} {slots}"));
    let remap = remap.expect("dm-remap");
    for remaps in [0, MAIN_MIB] {
        // One in each MiB, if there are any.
        for mib in 0..remaps {
            let sector = (u64::from(mib) << 11) + 8;
            remap.message(&format!("remap {sector}")).expect("remap");
        }
        for op in [Op::Read, Op::Write] {
            let falls = falls(remap.path(), linear.path(), op);
            assert!(!falls, "{remaps} remaps, {op:?}");
        }
    }
    remap.remove().expect("remove");
    linear.remove().expect("remove");
}
