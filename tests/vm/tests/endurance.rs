// SPDX-License-Identifier: GPL-2.0
//! What is done a thousand times, and what is a thousand times as large: nothing leaks, and what is not
//! used costs nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use vmtest::guest::drop_caches;
use vmtest::guest::eventually;
use vmtest::guest::load;
use vmtest::guest::make_and_remove;
use vmtest::guest::run;
use vmtest::guest::slowness;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::unload;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::Quick;

/// Main of 64 MiB and a spare of 1 MiB, in the kernel, as it is to be quick.
struct Disks {
    main: NullBlk,
    spare: NullBlk,
}

impl Disks {
    const SECTORS: u64 = 64 << 11;

    fn new() -> Self {
        load();
        Self {
            main: NullBlk::new(64, 512),
            spare: NullBlk::new(1, 512),
        }
    }

    /// What stands behind the target's name.
    fn words(&self, arguments: &str) -> String {
        let (main, spare) = (self.main.path(), self.spare.path());
        format!("{} {} {arguments}", main.display(), spare.display())
    }

    /// Makes a device and removes it, and has another one refused, `count` times.
    fn make_and_remove(&self, name: &str, count: usize) {
        let make = |arguments: &str| {
            make_and_remove(name, Self::SECTORS, "dm-remap", &self.words(arguments))
        };
        make("2 main_id this-one").unwrap();
        let refused = [
            "2 auto_remap maybe",
            "2 main_id another",
            "1 format",
            "2 uuid 01234567-89ab-4def-8edc-ba9876543210",
        ];
        for bad in refused.iter().cycle().take(count) {
            make("").unwrap();
            assert!(make(bad).is_err(), "{bad}");
        }
    }

    /// Nobody holds them any more.
    fn are_free(&self) {
        for path in [self.main.path(), self.spare.path()] {
            let name = path.file_name().unwrap();
            let holders = Path::new("/sys/class/block").join(name).join("holders");
            assert_eq!(
                fs::read_dir(holders).unwrap().count(),
                0,
                "{name:?} is held"
            );
        }
    }
}

/// What the kernel holds for itself.
#[derive(Debug)]
struct Usage {
    /// KiB of memory by kind.
    kib: BTreeMap<String, u64>,
    /// Objects of each slab cache.
    objects: BTreeMap<String, u64>,
    threads: usize,
}

impl Usage {
    fn now() -> Self {
        succeed("sync");
        drop_caches();
        std::thread::sleep(std::time::Duration::from_millis(500));
        Self {
            kib: memory(),
            objects: slabs(),
            threads: threads(),
        }
    }

    /// What has become more since then, and stays so: some of what is freed goes later.
    fn growth(&self, rounds: u64) -> Vec<String> {
        let mut grown = Vec::new();
        eventually(|| {
            grown = Self::now().grown(self, rounds);
            grown.is_empty()
        });
        grown
    }

    /// What has become more in so many rounds than comes and goes by itself: by an object for every other
    /// round, a MiB, or a few threads.
    fn grown(&self, before: &Self, rounds: u64) -> Vec<String> {
        let mut grown = Vec::new();
        // The debug kernel keeps what is freed for a while, and looks for leaks by itself.
        let objects = self.objects.iter().filter(|_| slowness() == 1);
        for (name, count) in objects {
            // Ranges of addresses are given back when there are many; see VmallocUsed for memory.
            if name == "vmap_area" {
                continue;
            }
            let was = before.objects.get(name).copied().unwrap_or(0);
            if *count > was + rounds / 2 {
                grown.push(format!("{name}: {count} objects, {was} before"));
            }
        }
        for (name, kib) in &self.kib {
            let was = before.kib.get(name).copied().unwrap_or(0);
            if *kib > was + 1024 {
                grown.push(format!("{name}: {kib} KiB, {was} before"));
            }
        }
        if self.threads > before.threads + 8 {
            grown.push(format!(
                "{} threads, {} before",
                self.threads, before.threads
            ));
        }
        grown
    }
}

/// Fewer where everything takes longer.
fn rounds(count: u64) -> u64 {
    count / u64::from(slowness())
}

fn memory() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let kinds = ["SUnreclaim", "VmallocUsed", "Percpu", "KernelStack"];
    let known = lines.filter(|(name, _)| kinds.contains(name));
    let parsed = known.map(|(name, value)| {
        let number = value.split_whitespace().next().unwrap();
        (name.to_string(), number.parse().unwrap())
    });
    parsed.collect()
}

fn slabs() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/slabinfo").unwrap();
    let lines = text.lines().skip(2).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_string(), words.next()?.parse().ok()?))
    });
    lines.collect()
}

fn threads() -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let names = entries.map(|entry| entry.file_name());
    let is_task = |name: &std::ffi::OsString| name.to_string_lossy().parse::<u32>().is_ok();
    names.filter(is_task).count()
}

/// P9: a thousand times made and removed, and as often refused, early and late: no memory, thread, device
/// or reference is lost. Several at a time, as each waits most of its time.
#[test]
fn a_thousand_devices_leave_nothing() {
    let _test = vmtest::begin!();
    {
        let all: [Disks; 5] = std::array::from_fn(|_| Disks::new());
        let cycle = |count: usize| {
            let each = count / all.len();
            std::thread::scope(|scope| {
                for (number, disks) in all.iter().enumerate() {
                    scope.spawn(move || {
                        disks.make_and_remove(&format!("quick{number}"), each);
                    });
                }
            });
        };
        cycle(50);
        let before = Usage::now();
        cycle(rounds(1000) as usize);
        let grown = before.growth(rounds(1000));
        assert!(grown.is_empty(), "{grown:#?}");
        for disks in &all {
            disks.are_free();
        }
    }
    // No reference is left.
    unload();
    load();
}

/// P9: some hundred tables of one device, loaded and resumed, loaded and replaced, and refused.
#[test]
fn hundreds_of_tables_leave_nothing() {
    let _test = vmtest::begin!();
    {
        let disks = Disks::new();
        let quick = Quick::new("reloaded").unwrap();
        let good = [disks.words(""), disks.words("2 low_water 20")];
        let bad = disks.words("1 format");
        let load = |words: &str| quick.load(Disks::SECTORS, "dm-remap", words);
        let cycle = |count: usize| {
            for number in 0..count {
                // The first is replaced by the second before it was in use.
                load(&good[0]).unwrap();
                load(&good[number % 2]).unwrap();
                quick.resume().unwrap();
                assert!(load(&bad).is_err());
            }
        };
        cycle(50);
        succeed("dmsetup message reloaded 0 remap 1000 100");
        let before = Usage::now();
        cycle(rounds(300) as usize);
        let grown = before.growth(rounds(300));
        assert!(grown.is_empty(), "{grown:#?}");
        let status = succeed("dmsetup status reloaded");
        assert!(status.contains(" 100/"), "{status}");
        quick.remove().unwrap();
        disks.are_free();
    }
    unload();
    load();
}

/// P9: the module stays while there is a device: live, suspended, or with a table that is only loaded. It
/// goes with the last of them.
#[test]
fn the_module_stays_as_long_as_it_is_used() {
    let _test = vmtest::begin!();
    let disks = Disks::new();
    let line = format!("0 {} dm-remap {}", Disks::SECTORS, disks.words(""));
    let stays = |what: &str| {
        let unloaded = run("rmmod dm_remap");
        assert_ne!(unloaded.status, 0, "{what}");
        assert!(unloaded.errors.contains("in use"), "{what}: {unloaded:?}");
    };
    let mapped = Mapped::new(&line);
    stays("live");
    let opened = Direct::open(&mapped.path());
    opened.write(0, &stamps(0, 8, 1)).unwrap();
    mapped.suspend().unwrap();
    stays("suspended");
    mapped.resume().unwrap();
    assert!(opened.read(0, 8).unwrap() == stamps(0, 8, 1));
    drop(opened);
    mapped.load(&line).unwrap();
    succeed(&format!("dmsetup clear {}", mapped.name()));
    mapped.remove();
    unload();
    load();

    // Loaded, and never resumed.
    let quick = Quick::new("unused").unwrap();
    quick
        .load(Disks::SECTORS, "dm-remap", &disks.words(""))
        .unwrap();
    stays("only loaded");
    quick.remove().unwrap();
    disks.are_free();
    unload();
    load();

    // What replaced it does not need it.
    let mapped = Mapped::new(&line);
    let other = format!(
        "0 {} linear {} 0",
        Disks::SECTORS,
        disks.main.path().display()
    );
    mapped.load(&other).unwrap();
    stays("about to be replaced");
    mapped.resume().unwrap();
    unload();
    mapped.remove();
    disks.are_free();
    load();
}

/// A disk in a file of which only what was written takes room.
struct Sparse {
    file: PathBuf,
    path: PathBuf,
}

impl Sparse {
    fn new(name: &str, sectors: u64) -> Self {
        succeed("modprobe loop");
        let file = PathBuf::from("/tmp").join(name);
        fs::File::create(&file)
            .unwrap()
            .set_len(sectors * 512)
            .unwrap();
        let told = succeed(&format!("losetup --find --show {}", file.display()));
        let path = PathBuf::from(told.trim());
        Self { file, path }
    }

    /// Sectors that were read since the disk was made.
    fn sectors_read(&self) -> u64 {
        let name = self.path.file_name().unwrap();
        let stat = Path::new("/sys/class/block").join(name).join("stat");
        let stat = fs::read_to_string(stat).unwrap();
        stat.split_whitespace().nth(2).unwrap().parse().unwrap()
    }

    /// KiB that its content takes.
    fn kib(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&self.file).unwrap().blocks() / 2
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        let _ = run(&format!("losetup --detach {}", self.path.display()));
        let _ = fs::remove_file(&self.file);
    }
}

/// What it costs to have a spare of this size.
#[derive(Debug)]
struct Cost {
    /// MiB read to see that it is blank.
    blank_mib: u64,
    /// KiB of the spare that formatting takes.
    formatted_kib: u64,
    /// Sectors read to load it.
    load_sectors: u64,
    /// The same with a thousand remaps.
    used_sectors: u64,
    /// KiB of the kernel's memory for the device.
    memory_kib: u64,
}

fn cost(sectors: u64) -> Cost {
    let main = NullBlk::new(64, 512);
    let spare = Sparse::new("sparse-spare", sectors);
    let (m, s) = (main.path(), &spare.path);
    let line = format!("0 131072 dm-remap {} {}", m.display(), s.display());
    let reads = |what: &mut dyn FnMut()| {
        let before = spare.sectors_read();
        what();
        spare.sectors_read() - before
    };
    let blank = reads(&mut || Mapped::new(&line).remove());
    let formatted_kib = spare.kib();
    let load_sectors = reads(&mut || Mapped::new(&line).remove());
    let mapped = Mapped::new(&line);
    mapped.message("remap 0 1000").unwrap();
    mapped.remove();
    let used_sectors = reads(&mut || Mapped::new(&line).remove());
    let total = |usage: Usage| usage.kib.values().sum::<u64>();
    let before = total(Usage::now());
    let mapped = Mapped::new(&line);
    let memory_kib = total(Usage::now()).saturating_sub(before);
    assert_eq!(mapped.remapped(), 1000);
    mapped.remove();
    Cost {
        blank_mib: blank >> 11,
        formatted_kib,
        load_sectors,
        used_sectors,
        memory_kib,
    }
}

/// P12, M8, M10: a spare of a terabyte costs what is used of it. Loading it reads what loading a small one
/// reads and takes the memory that a small one takes; only formatting reads more, up to 1.5 GiB, to
/// see that it is blank.
#[test]
fn a_terabyte_costs_what_is_used_of_it() {
    let _test = vmtest::begin!();
    load();
    let small = cost(64 << 11);
    let large = cost(1 << 31);
    println!("64 MiB: {small:?}\n1 TiB: {large:?}");
    // See docs/architecture.md.
    assert!(large.blank_mib <= 1540, "{large:?}");
    assert!(
        large.formatted_kib <= 2 * small.formatted_kib,
        "{small:?} {large:?}"
    );
    assert!(
        large.load_sectors <= small.load_sectors + 64,
        "{small:?} {large:?}"
    );
    assert!(
        large.used_sectors <= small.used_sectors + 64,
        "{small:?} {large:?}"
    );
    assert!(
        large.memory_kib <= small.memory_kib + 1024,
        "{small:?} {large:?}"
    );
}
