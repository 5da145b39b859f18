// SPDX-License-Identifier: GPL-2.0
//! Readers hammer a device while its remap table grows from nothing to 250,000 remaps and shrinks back (P12). A
//! million of them is in `load_time`.

use std::fs::File;
use std::fs::OpenOptions;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use vmtest::guest::eventually;
use vmtest::guest::identify;
use vmtest::guest::kernel_kind;
use vmtest::guest::load;
use vmtest::guest::message_here;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::slowness;
use vmtest::guest::stamps;
use vmtest::guest::timed;
use vmtest::guest::Content;
use vmtest::guest::Dice;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Need;
use vmtest::guest::NullBlk;
use vmtest::guest::Remap;

/// How many sectors get a slot, each for itself.
fn remaps() -> u64 {
    250_000 / u64::from(slowness())
}

/// How many of them with one message.
const STEP: u64 = 12_500;

/// Readers look at 8 sectors, a page of the disks' memory, out of so many.
const EVERY: u64 = 128;

const READERS: u64 = 2;

/// How many reads they do without a pause, and how long that is.
const BURST: u64 = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// What main holds at first, and what the slots hold.
const ON_MAIN: u64 = 1;
const ON_SPARE: u64 = 2;

/// How far the one who changes the table has come: a sector below `asked` may have its slot, one below `done`
/// has it.
#[derive(Default)]
struct Progress {
    asked: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

/// What a reader has seen.
struct Seen {
    reads: u64,
    longest: Duration,
    /// How often it went to sleep while it was reading.
    waits: i64,
}

/// How often the calling thread has given up the processor to wait for something. Asking waits for nothing, as
/// reading it from /proc may.
#[allow(unsafe_code)]
fn waits() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: The call fills in what it is given.
    let asked = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    assert_eq!(asked, 0, "getrusage");
    // SAFETY: It was just filled in, and before, all was zero.
    unsafe { usage.assume_init() }.ru_nvcsw
}

/// Reads what is there, and knows what it must be.
fn hammer(path: &Path, progress: &Progress, seed: u64) -> Seen {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .expect("open");
    // All that is used is there beforehand, so that there is nothing else to wait for.
    let mut memory = vec![1; 8192];
    let start = memory.as_ptr().align_offset(4096);
    let data = &mut memory[start..start + 512];
    let mut dice = Dice::new(seed);
    let mut seen = Seen {
        reads: 0,
        longest: Duration::ZERO,
        waits: 0,
    };
    read(&file, data, 0);
    let mut before = waits();
    while !progress.stop.load(Ordering::Acquire) {
        // The one who changes the table needs the processor, too.
        if seen.reads % BURST == 0 {
            seen.waits += waits() - before;
            std::thread::sleep(PAUSE);
            before = waits();
        }
        let sector = dice.roll(remaps() / EVERY) * EVERY + dice.roll(8);
        let done = progress.done.load(Ordering::Acquire);
        let begun = Instant::now();
        read(&file, data, sector);
        seen.longest = seen.longest.max(begun.elapsed());
        let asked = progress.asked.load(Ordering::Acquire);
        let what = identify(data);
        let holds = |generation| what == [Content::Stamp { sector, generation }];
        let right = (holds(ON_MAIN) && sector >= done) || (holds(ON_SPARE) && sector < asked);
        assert!(right, "sector {sector}: {what:?} ({done} to {asked})");
        seen.reads += 1;
    }
    seen.waits += waits() - before;
    seen
}

fn read(file: &File, data: &mut [u8], sector: u64) {
    let length = file.read_at(data, sector * 512).expect("read");
    assert_eq!(length, data.len());
}

/// Puts stamps where readers will look.
fn fill(path: &Path, start: u64, generation: u64) {
    let disk = Direct::open(path);
    for sector in (0..remaps()).step_by(EVERY as usize) {
        let data = stamps(sector, 8, generation);
        disk.write(start + sector, &data).expect("write");
    }
}

/// What the kernel's log says of the table's size.
fn sizes(log: &str) -> Vec<(u64, u64)> {
    let told = log
        .lines()
        .filter_map(|line| line.split_once("Adaptive hash table: "));
    let parsed = told.map(|(_, sizes)| {
        let (from, rest) = sizes.split_once(" -> ").expect("two sizes");
        let (to, why) = rest.split_once(" buckets, for ").expect("why");
        assert!(why.ends_with(" more"), "{why}");
        (from.parse().expect("from"), to.parse().expect("to"))
    });
    parsed.collect()
}

/// P12: no reader gets a wrong answer, and none waits, as it would show in how often it slept: the disks
/// answer at once, and so a read has nothing of its own to wait for.
#[test]
fn a_quarter_of_a_million_remaps_comes_and_goes_unnoticed() {
    // User Mode Linux may panic ('time goes backwards') where the kernel works for long and its clock travels.
    vmtest::needs!(Need::Clock);
    let mut test = vmtest::begin!();
    load();
    let main = NullBlk::inline(512, 512);
    let spare = NullBlk::inline(600, 512);
    let line = format!(
        "0 {} dm-remap {} {}",
        512 << 11,
        main.path().display(),
        spare.path().display()
    );
    fill(&main.path(), 0, ON_MAIN);
    let mapped = Mapped::new(&line);
    let status = mapped.message("metadata_status").expect("metadata_status");
    let words = || status.split_whitespace();
    let data_start = words().find_map(|word| word.strip_prefix("data_start="));
    let data_start: u64 = data_start.expect("data_start").parse().expect("a number");
    fill(&spare.path(), data_start, ON_SPARE);
    let begin = sizes(&test.kernel_log()).last().expect("a size").1;

    let all = remaps();
    let progress = Progress::default();
    let path = mapped.path();
    std::thread::scope(|scope| {
        let hammer = |seed| {
            let (path, progress) = (&path, &progress);
            scope.spawn(move || hammer(path, progress, seed))
        };
        let readers: Vec<_> = (0..READERS).map(hammer).collect();
        // Here, as a new thread would change the memory that readers have in common, and they wait for that.
        let say = |what: &str| message_here(mapped.name(), what).expect("a message");
        let ((), growing) = timed(|| {
            for sector in (0..all).step_by(STEP as usize) {
                progress.asked.store(sector + STEP, Ordering::Release);
                let slot = data_start + sector;
                say(&format!("add_remap {sector} {slot} {STEP}"));
                progress.done.store(sector + STEP, Ordering::Release);
            }
        });
        assert_eq!(mapped.remapped(), all);
        // What is moved back is what the slots hold.
        let (reply, shrinking) = timed(|| say("clear_all"));
        progress.stop.store(true, Ordering::Release);
        println!("{growing:?} for {all} remaps, {shrinking:?} back: {reply}");
        for reader in readers {
            let seen = reader.join().expect("a reader");
            println!(
                "{} reads, {} waits, the longest took {:?}",
                seen.reads, seen.waits, seen.longest
            );
            assert!(seen.reads > 1000);
            // A kernel that is a program looks for the reader's memory under the lock of all of it, which others of
            // this program take, too.
            let by_itself = match kernel_kind().is_program() {
                true => 3,
                false => 0,
            };
            assert!(seen.waits <= by_itself, "a reader had to wait");
        }
    });
    assert_eq!(mapped.remapped(), 0);
    let sizes = sizes(&test.kernel_log());
    println!("{sizes:?}");
    assert!(sizes.windows(2).all(|pair| pair[0].1 == pair[1].0));
    let largest = sizes.iter().map(|size| size.1).max();
    assert!(largest >= Some(all * 4 / 3), "not large enough");
    assert_eq!(sizes.last().map(|size| size.1), Some(begin));
    mapped.remove();
}

/// P7, P9: a write that hangs is waited for neither by the table when it grows, more than once, nor by
/// another one that is loaded, nor by events.
#[test]
fn nothing_waits_for_a_bio_that_hangs() {
    let mut test = vmtest::begin!();
    // Blocks of 512 bytes, of which so many fail.
    const FAILING: u64 = 32 << 10;
    const HANGS: u64 = 64 << 10;
    let disk = || Options::memory(64 << 20);
    let remap = Remap::on(disk(), disk(), "2 low_water 90");
    let unwritable = Fault::bad(Direction::Write);
    remap.main.disk().spoil(0, FAILING, unwritable);
    let seen = remap.device().events();
    let before = sizes(&test.kernel_log()).len();

    let device = remap.open();
    let hangs = HANGS..HANGS + 8;
    remap.main.disk().hold(hangs, Direction::Write);
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| device.write(HANGS, &stamps(HANGS, 8, 1)));
        assert!(eventually(|| remap.main.disk().waiting().len() == 1));
        let mut sectors = (0..FAILING).step_by(2048);
        let failed = sectors.find_map(|sector| {
            // Main is alive, as probing it would have to wait.
            let good = FAILING + 8;
            device
                .write(good, &stamps(good, 8, 1))
                .expect("a good write");
            let written = device.write(sector, &stamps(sector, 2048, 1));
            written
                .err()
                .map(|error| format!("sector {sector}: {error}"))
        });
        let told = remap.device().wait_for_event(seen);
        let loading = scope.spawn(|| remap.device().load(&remap.line()));
        let loaded = eventually(|| loading.is_finished());
        let hung = !hanging.is_finished();
        remap.main.disk().release();
        assert!(hung);
        assert_eq!(failed, None);
        assert!(told, "no event");
        assert!(loaded, "the table waited");
        loading.join().unwrap().unwrap();
        hanging.join().unwrap().unwrap();
    });
    assert_eq!(remap.device().remapped(), FAILING);
    let sizes = sizes(&test.kernel_log());
    assert!(sizes.len() >= before + 2, "{sizes:?}");
    remap.device().suspend().unwrap();
    remap.device().resume().unwrap();
    let read = remap.open().read(0, FAILING).unwrap();
    assert!(read == stamps(0, FAILING, 1));
}
