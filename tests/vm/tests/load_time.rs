// SPDX-License-Identifier: GPL-2.0
//! How long it takes to load remaps, and how much memory they take (P12). How much is read is counted at the
//! disks. Times are compared with each other, in a machine with one processor, whose clock counts instructions
//! (`MEASURING` in the runner).

use std::fs;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use vmtest::guest::drop_caches;
use vmtest::guest::load;
use vmtest::guest::slowness;
use vmtest::guest::Mapped;
use vmtest::guest::Need;
use vmtest::guest::NullBlk;
use vmtest::guest::Quick;
use vmtest::guest::SpareSet;
use vmtest::guest::Used;

/// Sectors in a metadata block, and in a block of these disks.
const BLOCK_SECTORS: u64 = 8;

/// MiB of main and of each spare: a million blocks of 4096 bytes and some more.
const MIB: u32 = 4500;

const MILLION: u32 = 1_000_000;

/// Everything is timed a few times, and the best time counts: the kernel may be busy with something else.
const TRIES: u32 = 3;

fn set(spares: impl IntoIterator<Item = NullBlk>) -> SpareSet {
    SpareSet {
        main: NullBlk::new(MIB, 4096),
        spares: spares.into_iter().collect(),
        sectors: u64::from(MIB) << 11,
        slot_sectors: BLOCK_SECTORS,
        place: SpareSet::scattered,
    }
}

/// The time that `dd` takes to read the used part of a replica, as it says.
fn dd(used: &Used) -> Duration {
    let read = || {
        let ran = Command::new("dd")
            .arg(format!("if={}", used.spare.display()))
            .args(["of=/dev/null", "bs=1M"])
            .args(["iflag=direct,skip_bytes,count_bytes"])
            .arg(format!("skip={}", used.start))
            .arg(format!("count={}", used.bytes))
            .output()
            .expect("run dd");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(said.contains(&format!("{} bytes", used.bytes)), "{said}");
        // 16257024 bytes (16 MB, 16 MiB) copied, 0.0512 s, 317 MB/s
        let seconds = said
            .rsplit_once(" s,")
            .and_then(|(before, _)| before.rsplit_once(' '));
        let seconds = seconds.expect("a time").1.parse().expect("a number");
        Duration::from_secs_f64(seconds)
    };
    (0..TRIES).map(|_| read()).min().expect("a time")
}

/// Makes a device on the set, which is removed after `check`. Returns the time until it is resumed.
fn load_once(set: &SpareSet, check: impl FnOnce(&Quick)) -> Duration {
    let device = Quick::new("loaded").expect("create");
    let parameters = set.parameters("");
    let begun = Instant::now();
    device
        .load(set.sectors, "dm-remap", &parameters)
        .expect("load");
    device.resume().expect("resume");
    let took = begun.elapsed();
    check(&device);
    device.remove().expect("remove");
    took
}

fn loading(set: &SpareSet, remaps: u32) -> Duration {
    let check = |device: &Quick| {
        let health = device.message("status").expect("status");
        assert!(health.contains(&format!("{remaps}/")), "{health}");
    };
    (0..TRIES)
        .map(|_| load_once(set, check))
        .min()
        .expect("a time")
}

fn available() -> u64 {
    drop_caches();
    let info = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a number").parse::<u64>().expect("a number") * 1024
}

/// P12: a million remaps are all there, and take no more than 40 bytes each.
#[test]
fn remaps_take_little_memory() {
    vmtest::needs!(Need::Clock);
    let _test = vmtest::begin!();
    load();
    let mut empty = 0;
    for remaps in [0, 1000, MILLION] {
        let set = set([NullBlk::new(MIB, 4096)]);
        set.forge(remaps);
        let before = available();
        let mut used = 0;
        load_once(&set, |_| used = before.saturating_sub(available()));
        println!("{remaps} remaps: {} KiB of memory", used / 1024);
        if remaps == 0 {
            empty = used;
        } else if remaps == MILLION {
            let each = used.saturating_sub(empty) / u64::from(remaps);
            println!("{each} bytes for a remap");
            assert!(each <= 40, "{each} bytes for a remap");
        }
    }
}

/// M3, M8, P4: a table that is read in several parts, with what can be wrong with it in each of them: a block
/// that one replica cannot read, one that it did not get the last write of, and a mark that a crash left
/// behind. All remaps are there, replicas are made equal, and what was moved is found the next time.
#[test]
fn a_large_table_with_faults_is_complete() {
    vmtest::needs!(Need::Clock);
    let mut test = vmtest::begin!();
    test.expects("I/O error, dev nullb");
    load();
    let set = set([NullBlk::new(MIB, 4096)]);
    let replicas = set.forge_beyond(MILLION, 40);
    let unreadable = [(0, 70), (1, 71), (0, 1023), (1, 1024), (0, 2500), (1, 3967)];
    let aged = [(1, 0), (0, 1100), (1, 2047), (0, 3900)];
    for (replica, block) in unreadable {
        let used: &Used = &replicas[replica];
        let sector = used.start / 512 + block * BLOCK_SECTORS;
        set.spares[0].spoil(sector, BLOCK_SECTORS);
    }
    for (replica, block) in aged {
        set.age(&replicas[replica], block);
    }
    let slots = set.slots_start();
    let blocks = unreadable.iter().map(|(_, block)| *block as u32);
    let blocks: Vec<u32> = blocks.chain(aged.map(|(_, block)| block)).collect();
    let check = |device: &Quick| {
        let status = device.message("status").expect("status");
        assert!(status.contains(" 1000000/"), "{status}");
        for slot in blocks
            .iter()
            .flat_map(|block| [block * 252, block * 252 + 251])
        {
            let slot = slot.min(MILLION - 1);
            let asked = format!("verify {}", set.block_of(slot) * BLOCK_SECTORS);
            let told = device.message(&asked).expect("verify");
            let place = slots + u64::from(slot) * BLOCK_SECTORS;
            assert!(
                told.contains(&format!("spare sector {place}")),
                "{slot}: {told}"
            );
        }
    };
    load_once(&set, check);
    let log = test.kernel_log();
    let repaired = unreadable.len() + aged.len();
    let expected = format!("repaired {repaired} metadata blocks");
    assert!(log.contains(&expected), "{log}");
    load_once(&set, check);
    assert_eq!(test.kernel_log().matches(" metadata blocks").count(), 1);
}

/// P12, on disks that take no time at all: what one waits for is the processor, and here an emulated one,
/// for which a million places in memory that do not lie side by side are the slowest thing there is.
#[test]
fn loading_takes_the_processor_little_time() {
    vmtest::needs!(Need::Clock);
    let _test = vmtest::begin!();
    load();
    for remaps in [0, 1000, MILLION] {
        let set = set([NullBlk::new(MIB, 4096)]);
        let [used, _] = set.forge(remaps);
        let times = ratio("memory", &set, &used, remaps);
        assert!(
            remaps < MILLION || times < 16.0,
            "{times:.2} times as long as dd"
        );
    }
}

/// P12: a million remaps load about as fast as disks give them. Both replicas are read, once. On two disks that
/// takes as long as it takes `dd` to read one of them; on one disk it takes twice as long, and nobody who
/// reads both can be faster. What comes on top of that is looking at the last part, when all was read.
///
/// These disks are slow because the processor is: emulation makes it about ten times slower, and this is a
/// tenth of what a disk gives.
#[test]
fn a_million_remaps_load_as_fast_as_disks_are_read() {
    vmtest::needs!(Need::Clock);
    let _test = vmtest::begin!();
    load();
    for (spares, limit) in [(1, 2.5), (2, 2.0)] {
        let disk = || NullBlk::throttled(MIB, 4096, 20);
        let set = set((0..spares).map(|_| disk()));
        let [used, _] = set.forge(MILLION);
        let before: Vec<u64> = set.spares.iter().map(NullBlk::bytes_read).collect();
        load_once(&set, |_| ());
        for (spare, before) in set.spares.iter().zip(before) {
            // One of them has both, or each has one.
            let once = used.bytes * 2 / spares;
            let read = spare.bytes_read() - before;
            println!("{read} bytes were read of {once} on one of {spares}");
            assert!(
                (once..once + once / 20).contains(&read),
                "{read} bytes were read, of {once} that are used, on {spares} spares"
            );
        }
        let times = ratio(&format!("{spares} slow disks"), &set, &used, MILLION);
        assert!(
            times < limit,
            "{times:.2} times as long as dd, on {spares} spares"
        );
    }
}

/// P16: what is decided about a spare as a whole, and a resume, looks at no slot: it takes no longer with a million of
/// them in use.
#[test]
fn no_slot_is_looked_at_for_what_is_decided_about_a_spare() {
    vmtest::needs!(Need::Clock);
    let _test = vmtest::begin!();
    load();
    let cases = [(4000, 64, 8), (MILLION, MIB, 3000)];
    let [few, many] = cases.map(|(remaps, first, second)| {
        // The second one has no room for what the first one has.
        let set = set([NullBlk::new(first, 4096), NullBlk::new(second, 4096)]);
        set.forge(remaps);
        let mut times = [Duration::MAX; 2];
        let parameters = set.parameters("");
        let device = Mapped::new(&format!("0 {} dm-remap {parameters}", set.sectors));
        assert_eq!(device.remapped(), u64::from(remaps));
        for _ in 0..4 * TRIES {
            let begun = Instant::now();
            device.message("evacuate 0").unwrap_err();
            times[0] = times[0].min(begun.elapsed());
            let begun = Instant::now();
            device.suspend().expect("suspend");
            device.resume().expect("resume");
            times[1] = times[1].min(begun.elapsed());
        }
        times
    });
    for (what, few, many) in [
        ("a message that is refused", few[0], many[0]),
        ("suspend and resume", few[1], many[1]),
    ] {
        println!("{what}: {few:?} with few slots in use, {many:?} with a million");
        assert!(
            many < 2 * few,
            "{what}: {few:?}, and {many:?} with a million"
        );
    }
}

/// How many times as long as `dd` takes for one replica it takes to load `remaps`, in a fair comparison: a
/// kernel that looks for mistakes is slow at everything but reading.
fn ratio(what: &str, set: &SpareSet, used: &Used, remaps: u32) -> f64 {
    let (reading, loading) = (dd(used), loading(set, remaps));
    let times = loading.as_secs_f64() / reading.as_secs_f64();
    println!("{what}, {remaps} remaps: loaded in {loading:?}, dd takes {reading:?}: {times:.2}");
    times / f64::from(slowness())
}
