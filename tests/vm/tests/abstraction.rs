// SPDX-License-Identifier: GPL-2.0
//! The device-mapper abstraction by itself, shown on the example targets in tests/modules:
//! dm-linear in Rust, and a target that tries again elsewhere what failed.
//!
//! Needs: the example modules.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vmtest::guest::device_number;
use vmtest::guest::eventually;
use vmtest::guest::identify;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Need;

/// 16 MiB.
const SECTORS: u64 = 16 << 11;

/// An example module, built beside the module under test. Unloading it when the test is done shows
/// that nothing holds it any more.
struct Example(&'static str);

impl Example {
    #[track_caller]
    fn load(name: &'static str) -> Self {
        let module = std::env::var("DM_REMAP_MODULE").expect("DM_REMAP_MODULE");
        let folder = Path::new(&module).parent().expect("a folder");
        succeed("modprobe dm_mod");
        succeed(&format!("insmod {}/{name}/{name}.ko", folder.display()));
        Self(name)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let unloaded = run(&format!("rmmod {}", self.0));
        if !std::thread::panicking() {
            assert_eq!(unloaded.status, 0, "{}", unloaded.errors);
        }
    }
}

/// Makes a device, and its node: there is no udev to do it.
#[track_caller]
fn mapped(table: &str) -> Mapped {
    let mapped = Mapped::new(table);
    succeed("dmsetup mknodes");
    mapped
}

fn disk() -> SickDisk {
    SickDisk::start(Options::memory(SECTORS * 512)).expect("start a sick disk")
}

fn linear(disk: &SickDisk, start: u64) -> String {
    format!("0 8192 linear_rust {} {start}", disk.path().display())
}

#[test]
fn linear_maps_and_prints_back() {
    let _test = vmtest::begin!();
    let _module = Example::load("dm_linear_rust");
    let disk = disk();
    let mapped = mapped(&linear(&disk, 64));
    let device = Direct::open(&mapped.path());
    device.write(0, &stamps(0, 2048, 1)).unwrap();
    device.flush().unwrap();
    assert!(device.read(0, 2048).unwrap() == stamps(0, 2048, 1));
    let below = Direct::open(&disk.path());
    assert!(below.read(64, 2048).unwrap() == stamps(0, 2048, 1));

    let table = mapped.table();
    assert!(table.ends_with(" 64"), "{table}");
    mapped.load(&table).unwrap();
    mapped.suspend().unwrap();
    mapped.resume().unwrap();
    assert_eq!(mapped.table(), table);
    assert_eq!(mapped.status(), "0 8192 linear_rust");
    // What the integrity measurement architecture is told, as of targets in C.
    let measured = succeed(&format!("dmsetup measure {}", mapped.name()));
    let told = "linear_rust target_name=linear_rust,target_version=1.0.0,device_name=";
    assert!(measured.contains(told), "{measured}");
    assert!(measured.trim_end().ends_with(",start=64;"), "{measured}");
}

#[test]
fn the_module_stays_while_it_is_in_use() {
    let _test = vmtest::begin!();
    let _module = Example::load("dm_linear_rust");
    let disk = disk();
    let _mapped = mapped(&linear(&disk, 0));
    let refused = run("rmmod dm_linear_rust");
    assert_ne!(refused.status, 0);
}

#[test]
fn bad_table_lines_are_refused_with_a_reason() {
    let _test = vmtest::begin!();
    let _module = Example::load("dm_linear_rust");
    let disk = disk();
    let path = disk.path();
    let path = path.display();
    for (arguments, error, reason) in [
        (String::new(), "Invalid argument", "Invalid argument count"),
        (
            format!("{path}"),
            "Invalid argument",
            "Invalid argument count",
        ),
        (
            format!("{path} 0 0"),
            "Invalid argument",
            "Invalid argument count",
        ),
        (
            format!("{path} x"),
            "Invalid argument",
            "Invalid device sector",
        ),
        (
            format!("{path} -1"),
            "Invalid argument",
            "Invalid device sector",
        ),
        (
            format!("{path} 99999999999999999999"),
            "Invalid argument",
            "Invalid device sector",
        ),
        (
            "/dev/nothing 0".into(),
            "No such file or directory",
            "Device lookup failed",
        ),
        (format!("{path} 32000"), "Invalid argument", "too small"),
    ] {
        let line = format!("0 8192 linear_rust {arguments}");
        let refusal = Mapped::try_new(&line).expect_err(&line);
        assert!(refusal.error.contains(error), "{line}: {refusal:?}");
        assert!(refusal.reason.contains(reason), "{line}: {refusal:?}");
    }
}

#[test]
fn coming_and_going_leaves_nothing() {
    let _test = vmtest::begin!();
    let _module = Example::load("dm_linear_rust");
    let disk = disk();
    for _ in 0..30 {
        drop(mapped(&linear(&disk, 8)));
        Mapped::try_new("0 8192 linear_rust /dev/nothing 0").expect_err("no device");
    }
    // `Example` unloads the module, and `SickDisk` stops: both only if nobody has them.
}

#[test]
fn tables_are_replaced_under_load() {
    let _test = vmtest::begin!();
    let _module = Example::load("dm_linear_rust");
    let disk = disk();
    let mapped = mapped(&linear(&disk, 0));
    Direct::open(&disk.path())
        .write(0, &stamps(0, 2048, 1))
        .unwrap();
    let mut load = Command::new("dd")
        .arg(format!("if={}", mapped.path().display()))
        .args([
            "of=/dev/null",
            "bs=4096",
            "count=1024",
            "iflag=direct",
            "status=none",
        ])
        .spawn()
        .unwrap();
    for round in 0..6 {
        mapped.load(&linear(&disk, round)).unwrap();
        match round % 2 {
            0 => mapped.suspend().unwrap(),
            _ => mapped.suspend_noflush().unwrap(),
        }
        mapped.resume().unwrap();
    }
    assert!(load.wait().unwrap().success());
}

/// Main and spare, each behind a table of pieces, so that bios are split once more below the target.
struct Retry {
    device: Mapped,
    /// Where the target is in the table of `device`.
    begin: u64,
    main: Mapped,
    spare: Mapped,
    main_disk: SickDisk,
    spare_disk: SickDisk,
    _module: Example,
}

impl Retry {
    #[track_caller]
    fn new(mode: &str) -> Self {
        Self::behind(0, mode)
    }

    /// One that has something else in front of it, in the same table.
    #[track_caller]
    fn behind(begin: u64, mode: &str) -> Self {
        let module = Example::load("dm_retry_rust");
        let main_disk = SickDisk::start(Options::memory(SECTORS * 512).without_cache()).unwrap();
        let spare_disk = disk();
        let main = mapped(&pieces(&main_disk, &[0, 1030, 1060]));
        let spare = mapped(&pieces(&spare_disk, &[0, 1026, 1034, 1041, 1055, 1080]));
        let spare_path = spare.path();
        let front = match begin {
            0 => String::new(),
            _ => format!("0 {begin} linear {} 0\n", spare_path.display()),
        };
        let device = mapped(&format!(
            "{front}{begin} {SECTORS} retry_rust {} {} {mode}",
            main.path().display(),
            spare_path.display()
        ));
        Self {
            device,
            begin,
            main,
            spare,
            main_disk,
            spare_disk,
            _module: module,
        }
    }
}

/// Where every other piece of a scattered table is, so that neighbours are not merged again.
const ASIDE: u64 = SECTORS / 2;

/// A table that is linear in pieces, of which every other one before the last is elsewhere.
fn pieces(disk: &SickDisk, starts: &[u64]) -> String {
    let ends = starts.iter().skip(1).copied().chain([SECTORS]);
    let path = disk.path();
    let lines: Vec<String> = starts
        .iter()
        .zip(ends)
        .enumerate()
        .map(|(number, (start, end))| {
            let aside = (starts.len() - 1 - number) as u64 % 2 * ASIDE;
            let place = start + aside;
            format!("{start} {} linear {} {place}", end - start, path.display())
        })
        .collect();
    lines.join("\n")
}

#[test]
fn a_bio_that_failed_is_done_elsewhere_as_a_whole() {
    // One bio each: several may be merged, and fail together, for writing but not for reading.
    let ranges = [(1024, 64), (1025, 62), (1050, 3), (0, 1024)];
    failing_bios_are_done_elsewhere(Retry::new, "resubmit", &ranges);
}

#[test]
fn a_bio_that_was_deferred_and_failed_is_done_elsewhere() {
    let ranges = [(1024, 64), (1025, 62), (1050, 3), (0, 1024)];
    failing_bios_are_done_elsewhere(Retry::new, "deferred", &ranges);
}

#[test]
fn a_bio_that_failed_is_done_elsewhere_in_parts() {
    let ranges = [(0, 2048), (1024, 64), (1025, 62), (1050, 3), (960, 192)];
    failing_bios_are_done_elsewhere(Retry::new, "slices", &ranges);
}

#[test]
fn a_bio_that_failed_is_done_elsewhere_by_its_sector_of_the_target() {
    let behind = |mode: &str| Retry::behind(4096, mode);
    for mode in ["slices", "resubmit", "deferred"] {
        failing_bios_are_done_elsewhere(behind, mode, &[(1024, 64), (1025, 62)]);
    }
}

fn failing_bios_are_done_elsewhere(
    make: impl Fn(&str) -> Retry,
    mode: &str,
    ranges: &[(u64, u64)],
) {
    let _test = vmtest::begin!();
    let retry = make(mode);
    let begin = retry.begin;
    let bad = Fault::bad(Direction::Both);
    retry.main_disk.disk().spoil(ASIDE + 1032, 24, bad);
    let device = Direct::open(&retry.device.path());
    for &(sector, sectors) in ranges {
        let data = stamps(sector, sectors, sector + 7);
        device.write(begin + sector, &data).unwrap();
        let found = device.read(begin + sector, sectors).unwrap();
        assert!(found == data, "{sector}: {:?}", identify(&found));
    }
    device.flush().unwrap();
    // The last one with these sectors has left them on the spare.
    let &(sector, _) = ranges.iter().rfind(|range| covers(range, 1050)).unwrap();
    let found = Direct::open(&retry.spare.path()).read(1050, 1).unwrap();
    assert!(
        found == stamps(1050, 1, sector + 7),
        "{:?}",
        identify(&found)
    );
    assert_eq!(in_flight(&retry.device), [0, 0]);
    // With nothing to fall back on, an error is an error.
    retry.spare_disk.disk().spoil(1032, 24, bad);
    assert!(device.read(begin + 1032, 8).is_err());
    assert!(device.read(begin + 1064, 8).is_ok());
    assert_eq!(in_flight(&retry.device), [0, 0]);
}

fn covers(&(start, len): &(u64, u64), sector: u64) -> bool {
    (start..start + len).contains(&sector)
}

/// How many reads and writes are under way, as the kernel counts them.
fn in_flight(device: &Mapped) -> [u64; 2] {
    let path = device.path();
    let node = path.file_name().unwrap().to_str().unwrap();
    let counts = std::fs::read_to_string(format!("/sys/class/block/{node}/inflight")).unwrap();
    let mut counts = counts
        .split_whitespace()
        .map(|count| count.parse().unwrap());
    [counts.next().unwrap(), counts.next().unwrap()]
}

/// Neighbours are merged into requests on their way to a disk, and fail together. Each goes on by
/// itself, whatever it was linked to. What is merged is what is submitted at one go in several bios,
/// and so more than fits into one.
#[test]
fn bios_that_failed_together_are_done_elsewhere_one_by_one() {
    let _test = vmtest::begin!();
    let _module = Example::load("dm_retry_rust");
    let main = SickDisk::start(Options::memory(SECTORS * 512).without_cache()).unwrap();
    let spare_disk = disk();
    // Device mapper demands that a bio is linked to no other; a disk would merge them again.
    let spare = mapped(&pieces(&spare_disk, &[0]));
    let device = mapped(&format!(
        "0 {SECTORS} retry_rust {} {} resubmit",
        main.path().display(),
        spare.path().display()
    ));
    main.disk().spoil(0, 8192, Fault::bad(Direction::Both));
    let direct = Direct::open(&device.path());
    for round in 0..10 {
        let data = stamps(0, 4096, round);
        direct.write(0, &data).unwrap();
        assert!(direct.read(0, 4096).unwrap() == data);
    }
    assert_eq!(in_flight(&device), [0, 0]);
}

/// What is split on the way to main, fails, and is split on the way to the spare is done when all
/// of it is, and not when the first part is.
#[test]
fn a_bio_that_is_split_twice_is_done_as_a_whole() {
    let _test = vmtest::begin!();
    let retry = Retry::new("resubmit");
    let bad = Fault::bad(Direction::Both);
    retry.main_disk.disk().spoil(ASIDE + 1032, 24, bad);
    retry.spare_disk.disk().hold(1084..1088, Direction::Write);
    let path = retry.device.path();
    let write = std::thread::spawn(move || Direct::open(&path).write(1024, &stamps(1024, 64, 1)));
    let waits = || !retry.spare_disk.disk().waiting().is_empty();
    assert!(eventually(waits), "the spare is not asked");
    let early = write.is_finished();
    retry.spare_disk.disk().release();
    write.join().unwrap().unwrap();
    assert!(!early, "done while a part of it was not written");
}

#[test]
fn fua_survives_a_device_without_a_cache() {
    let _test = vmtest::begin!();
    let retry = Retry::new("resubmit");
    let bad = Fault::bad(Direction::Both);
    retry.main_disk.disk().spoil(ASIDE + 1032, 8, bad);
    retry.spare_disk.disk().record_mut().restart(true);
    let device = Direct::open_dsync(&retry.device.path());
    device.write(1032, &stamps(1032, 1, 1)).unwrap();
    assert_eq!(retry.spare_disk.disk().record().fua_writes, 1);
}

#[test]
fn suspending_waits_for_bios_that_are_tried_again() {
    let _test = vmtest::begin!();
    for mode in ["slices", "resubmit", "deferred"] {
        let retry = Retry::new(mode);
        let bad = Fault::bad(Direction::Both);
        retry.main_disk.disk().spoil(0, 4096, bad);
        let mut load = Command::new("dd")
            .arg(format!("of={}", retry.device.path().display()))
            .args([
                "if=/dev/zero",
                "bs=65536",
                "count=32",
                "oflag=direct",
                "status=none",
            ])
            .spawn()
            .unwrap();
        let table = retry.device.table();
        for round in 0..6 {
            retry.device.load(&table).unwrap();
            match round % 2 {
                0 => retry.device.suspend().unwrap(),
                _ => retry.device.suspend_noflush().unwrap(),
            }
            retry.device.resume().unwrap();
        }
        assert!(load.wait().unwrap().success());
    }
}

#[test]
fn io_of_its_own_and_messages() {
    let _test = vmtest::begin!();
    let retry = Retry::new("slices");
    let say = |text: &str| retry.device.message(text);
    assert_eq!(say("echo one two three").unwrap(), "<one><two><three>");
    say("pool 8192").unwrap();
    say("drain").unwrap();
    for generation in 0..3 {
        let told = say("replace").unwrap();
        let expected = format!("{generation} retry_rust ");
        assert!(told.starts_with(&expected), "{told}");
    }
    let all_freed = || say("reclaim").unwrap() == "freed=true";
    assert!(eventually(all_freed));
    let refusal = say("nonsense").unwrap_err();
    assert!(refusal.error.contains("Invalid argument"), "{refusal:?}");
    // Larger than one bio, and a medium error in one of them.
    let bad = Fault::bad(Direction::Both);
    retry.spare_disk.disk().spoil(8192 + 3000, 1, bad);
    let refusal = say("pool 8192").unwrap_err();
    assert!(refusal.error.contains("No data available"), "{refusal:?}");
}

/// A reply that is longer than the caller's buffer has the message sent again.
#[test]
fn a_long_reply_is_complete_and_the_message_came_twice() {
    let _test = vmtest::begin!();
    let retry = Retry::new("slices");
    let told = retry.device.message("long").unwrap();
    let words: Vec<_> = told.split_whitespace().collect();
    assert_eq!(words, ["2"; 10_000]);
}

/// Where the device may be suspended, memory is not got by I/O: that may be to this very device.
#[test]
fn nothing_is_written_for_memory_where_the_device_may_be_suspended() {
    let mut test = vmtest::begin!();
    let retry = Retry::new("slices");
    let table = retry.device.table();
    retry.device.suspend().unwrap();
    retry.device.load(&table).unwrap();
    retry.device.status();
    retry.device.message("echo suspended").unwrap();
    retry.device.resume().unwrap();
    retry.device.status();
    drop(retry);
    let log = test.kernel_log();
    assert!(!log.contains("may do I/O for memory"), "{log}");
}

/// A bio that goes to a second device is counted there as well, for the cgroup that sent it.
#[test]
fn cgroups_see_the_bytes_of_a_bio_on_each_device() {
    let _test = vmtest::begin!();
    let retry = Retry::new("resubmit");
    let bad = Fault::bad(Direction::Both);
    retry.main_disk.disk().spoil(0, 8, bad);
    let root = "/run/cgroup";
    succeed(&format!("mkdir -p {root}"));
    succeed(&format!("mount -t cgroup2 none {root}"));
    std::fs::write(format!("{root}/cgroup.subtree_control"), "+io").unwrap();
    succeed(&format!("mkdir -p {root}/retry"));
    let written = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "echo $$ >{root}/retry/cgroup.procs &&
            exec dd if=/dev/zero of={} bs=4096 count=1 oflag=direct",
            retry.device.path().display()
        ))
        .output()
        .unwrap();
    let counts = std::fs::read_to_string(format!("{root}/retry/io.stat")).unwrap();
    succeed(&format!("rmdir {root}/retry"));
    succeed(&format!("umount {root}"));
    assert!(written.status.success(), "{written:?}");
    for device in [&retry.main, &retry.spare] {
        let number = device_number(&device.path()).unwrap();
        let of_disk = |line: &&str| line.starts_with(&format!("{number} "));
        let line = counts.lines().find(of_disk).unwrap_or_default();
        assert!(line.contains(" wbytes=4096 "), "{number}: {counts}");
    }
}

/// Nothing is left of an SRCU domain whose end was asked for again and again, on another CPU than the
/// one that waits for it.
#[test]
fn domains_come_and_go() {
    vmtest::needs!(Need::Processors);
    let _test = vmtest::begin!();
    let retry = Retry::new("slices");
    let name = retry.device.name();
    for round in 0..40 {
        let cpu = round % 2;
        succeed(&format!("taskset -c {cpu} dmsetup message {name} 0 domain"));
        let cpu = 1 - cpu;
        succeed(&format!(
            "taskset -c {cpu} dmsetup message {name} 0 no_domain"
        ));
    }
}

/// What a bio may still read is neither freed nor waited for.
#[test]
fn what_was_replaced_stays_for_who_reads_it() {
    let _test = vmtest::begin!();
    let retry = Retry::new("slices");
    let say = |text: &str| retry.device.message(text).unwrap();
    retry.main_disk.disk().hold(0..SECTORS, Direction::Write);
    let path = retry.device.path();
    let write = std::thread::spawn(move || Direct::open(&path).write(0, &stamps(0, 8, 1)));
    let waits = || !retry.main_disk.disk().waiting().is_empty();
    assert!(eventually(waits), "nothing is written");
    for _ in 0..3 {
        assert!(say("replace").ends_with("freed=false"));
    }
    std::thread::sleep(Duration::from_secs(1));
    let early = say("reclaim");
    let held = !write.is_finished();
    retry.main_disk.disk().release();
    write.join().unwrap().unwrap();
    assert!(held);
    assert_eq!(early, "freed=false");
    let freed = || say("reclaim") == "freed=true";
    assert!(eventually(freed));
}

#[test]
fn events_wake_who_waits_for_them() {
    let _test = vmtest::begin!();
    let retry = Retry::new("slices");
    let mut waits = Command::new("dmsetup")
        .args(["--noudevsync", "wait", retry.device.name()])
        .spawn()
        .unwrap();
    // It may not wait yet when the first comes.
    while waits.try_wait().unwrap().is_none() {
        retry.device.message("event").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn one_target_may_have_several_names() {
    let _test = vmtest::begin!();
    let retry = Retry::new("slices");
    let table = retry.device.table();
    retry
        .device
        .load(&table.replace("retry_rust", "retry2_rust"))
        .unwrap();
    retry.device.suspend().unwrap();
    retry.device.resume().unwrap();
    let told = retry.device.message("replace").unwrap();
    assert!(told.starts_with("0 retry2_rust "), "{told}");
}
