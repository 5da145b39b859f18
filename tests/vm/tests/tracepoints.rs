// SPDX-License-Identifier: GPL-2.0
//! The tracepoints `dm_remap:*`. docs/dm-remap.rst has these tests in its table.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use vmtest::guest::device_number;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Need;
use vmtest::guest::Remap;

/// A trace of all our events.
struct Trace {
    folder: PathBuf,
    device: String,
}

impl Trace {
    /// Begins, for a device.
    #[track_caller]
    fn of(remap: &Remap) -> Self {
        let number = device_number(&remap.path()).expect("a device");
        let trace = Self {
            folder: PathBuf::from("/sys/kernel/tracing/instances/dm_remap_test"),
            device: number.replace(':', ","),
        };
        fs::create_dir(&trace.folder).expect("make a trace");
        trace.set("events/dm_remap/enable", "1");
        trace
    }

    #[track_caller]
    fn set(&self, file: &str, value: &str) {
        let path = self.folder.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// What was traced so far, oldest first: the event, without what all begin with, and the rest.
    fn lines(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.folder.join("trace")).expect("read the trace");
        let parse = |line: &str| {
            let (_, own) = line.split_once(": dm_remap_")?;
            let (event, rest) = own.split_once(": ")?;
            let (device, rest) = rest.split_once(' ')?;
            (device == self.device).then(|| (event.to_string(), rest.to_string()))
        };
        text.lines().filter_map(parse).collect()
    }

    /// Waits for an event like this.
    #[track_caller]
    fn expect(&self, event: &str, rest: &str) {
        let own = |(name, told): &(String, String)| name == event && told == rest;
        let found = eventually(|| self.lines().iter().any(own));
        assert!(found, "no {event} {rest}, but {:#?}", self.lines());
    }

    /// How many there were of an event.
    fn count(&self, event: &str) -> usize {
        self.lines()
            .iter()
            .filter(|(name, _)| name == event)
            .count()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("events/dm_remap/enable"), "0");
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

/// A failed write, from the disk to the spare.
#[test]
fn a_failed_write_can_be_followed() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    remap
        .main
        .disk()
        .spoil(808, 8, Fault::bad(Direction::Write));
    let trace = Trace::of(&remap);
    device.write(800, &stamps(800, 24, 1)).unwrap();
    let slot = remap.slot_of(808).expect("a slot");
    trace.expect("verdict", "write 800 + 24 served error=0");
    let lines = trace.lines();
    let place = |event: &str, rest: &str| {
        let own = |(name, told): &(String, String)| name == event && told.starts_with(rest);
        let place = lines.iter().position(own);
        place.unwrap_or_else(|| panic!("no {event} {rest} in {lines:#?}"))
    };
    let way = [
        place("bio_failed", "write 800 + 24 disk=-1 error=-61"),
        place("verdict", "write 800 + 24 repair error=-61"),
        place("remap", &format!("808 + 8 disk=0 disk_sector={slot} auto")),
        place("commit", "sequence="),
        place("verdict", "write 800 + 24 served error=0"),
    ];
    // The map changes while the commit ends.
    assert!(
        way[0] < way[1] && way[1] < way[2] && way[3] < way[4],
        "{lines:#?}"
    );
    assert_eq!(trace.count("remap"), 1);
}

/// An error that goes up as it is, an unreadable block, and one that is moved by hand and back.
#[test]
fn what_else_becomes_of_blocks_can_be_followed() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    device.write(0, &stamps(0, 256, 1)).unwrap();
    let trace = Trace::of(&remap);
    remap.main.disk().spoil(16, 8, Fault::bad(Direction::Read));
    device.read(16, 8).unwrap_err();
    trace.expect("pending", "16 + 8");
    trace.expect("verdict", "read 16 + 8 failed error=-61");
    assert_eq!(trace.count("pending"), 1);

    remap.device().message("remap 32 8").unwrap();
    let slot = remap.slot_of(32).expect("a slot");
    trace.expect("remap", &format!("32 + 8 disk=0 disk_sector={slot} manual"));
    remap
        .spare
        .disk()
        .spoil(slot, 8, Fault::bad(Direction::Write));
    device.write(32, &stamps(32, 8, 2)).unwrap();
    let other = remap.slot_of(32).expect("another slot");
    let moved = format!("32 + 8 from=0 from_sector={slot} disk=0 disk_sector={other}");
    trace.expect("move", &moved);
    remap.device().message("remove_remap 32 8").unwrap();
    let moved = format!("32 + 8 from=0 from_sector={other} disk=-1 disk_sector=32");
    trace.expect("move", &moved);

    let away = Fault::bad(Direction::Both).status(Status::Transport);
    remap.main.disk().spoil(64, 8, away);
    device.write(64, &stamps(64, 8, 2)).unwrap_err();
    let errno = Status::Transport.errno();
    trace.expect(
        "bio_failed",
        &format!("write 64 + 8 disk=-1 error=-{errno}"),
    );
    trace.expect("verdict", &format!("write 64 + 8 passed_up error=-{errno}"));
}

/// Breakers.
#[test]
fn breakers_can_be_followed() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    let trace = Trace::of(&remap);
    remap.main.disk().die(Status::Offline, Direction::Both);
    for sector in (0..2560).step_by(128) {
        device.write(sector, &stamps(sector, 8, 1)).unwrap_err();
    }
    trace.expect("breaker", "disk=-1 write open");
    remap.main.disk().revive();
    device.write(0, &stamps(0, 8, 2)).unwrap();
    trace.expect("breaker", "disk=-1 write closed");
    assert_eq!(trace.count("breaker"), 2);
}

/// Spares that are lost and back, and what is made again.
#[test]
fn spares_and_redundancy_can_be_followed() {
    let _test = vmtest::begin!();
    let options = || Options::memory(16 << 20).logical_block(4096);
    let second = SickDisk::start(options()).expect("start the second spare");
    let arguments = format!("2 spare {}", second.path().display());
    let remap = Remap::on(options(), options(), &arguments);
    let trace = Trace::of(&remap);
    second.disk().die(Status::Offline, Direction::Both);
    remap.device().message("save").unwrap();
    trace.expect("spare", "disk=1 lost");
    second.disk().revive();
    remap.device().load(&remap.line()).unwrap();
    remap.device().suspend().unwrap();
    remap.device().resume().unwrap();
    trace.expect("spare", "disk=1 back");
    let restored =
        |(event, rest): &(String, String)| event == "restore" && rest.ends_with(" error=0");
    assert!(trace.lines().iter().any(restored), "{:#?}", trace.lines());
}

/// The table in memory.
#[test]
fn a_growing_table_can_be_followed() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let trace = Trace::of(&remap);
    const BLOCKS: u64 = 10_000;
    remap
        .device()
        .message(&format!("remap 0 {BLOCKS}"))
        .unwrap();
    let grows =
        |(event, rest): &(String, String)| event == "resize" && rest.starts_with("buckets ");
    assert!(
        eventually(|| trace.lines().iter().any(grows)),
        "{:#?}",
        trace.lines()
    );
}

/// With the two tools that the page names, as it does.
#[test]
fn trace_cmd_and_bpftrace_show_them() {
    let _test = vmtest::begin!();
    vmtest::needs!(Need::TracingTools);
    let remap = Remap::new(4096);
    let unwritable = Fault::bad(Direction::Write);
    remap.main.disk().spoil(800, 16, unwritable);
    let dd = |block: u32| {
        let path = remap.path();
        let path = path.display();
        format!("dd if=/dev/zero of={path} bs=4096 count=1 seek={block} oflag=direct")
    };
    let file = "/tmp/trace.dat";
    succeed(&format!(
        "trace-cmd record -e dm_remap -o {file} {}",
        dd(100)
    ));
    let report = succeed(&format!("trace-cmd report {file}"));
    for (event, words) in [
        ("dm_remap_bio_failed", "write 800 + 8 disk=-1"),
        ("dm_remap_verdict", "write 800 + 8 served"),
    ] {
        let told = |line: &str| line.contains(event) && line.contains(words);
        assert!(report.lines().any(told), "no {event} {words} in {report}");
    }
    let program = "tracepoint:dm_remap:dm_remap_verdict { @[args.verdict] = count(); }";
    let output = Command::new("bpftrace")
        .args(["-e", program, "-c", &dd(101)])
        .output()
        .expect("run bpftrace");
    let told = String::from_utf8_lossy(&output.stdout);
    // To be repaired, and served.
    for count in ["@[1]: 1", "@[2]: 1"] {
        assert!(told.contains(count), "no {count} in {output:?}");
    }
}

/// All that the module has is in the table of docs/dm-remap.rst, and nothing else.
#[test]
fn the_page_names_every_tracepoint() {
    let _test = vmtest::begin!();
    let _remap = Remap::new(4096);
    let folder = fs::read_dir("/sys/kernel/tracing/events/dm_remap").expect("our events");
    let names = folder.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("dm_remap_")).collect();
    names.sort_unstable();
    let page = include_str!("../../../docs/dm-remap.rst");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("``dm_remap_"));
    let mut told: Vec<String> = rows
        .filter_map(|row| row.split('`').next())
        .map(|name| format!("dm_remap_{name}"))
        .collect();
    told.sort_unstable();
    assert_eq!(names, told);
}
