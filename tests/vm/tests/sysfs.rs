// SPDX-License-Identifier: GPL-2.0
//! P17: what users see in `/sys/kernel/dm_remap` and `/sys/kernel/debug/dm_remap`, and what they set there.
//!
//! More in test-system: a thousand devices that come and go.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use vmtest::guest::load;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::slowness;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::thorough;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::Remap;
use vmtest::guest::SpareSet;

const SYSFS: &str = "/sys/kernel/dm_remap";
const DEBUGFS: &str = "/sys/kernel/debug/dm_remap";

/// What all may read, and what root may set.
const READABLE: [&str; 38] = [
    "name",
    "uuid",
    "set_uuid",
    "why",
    "all_stats",
    "health",
    "condition",
    "remapped",
    "capacity",
    "pending",
    "lost",
    "slots_used",
    "bad_slots",
    "write_errors",
    "read_errors",
    "spare_write_errors",
    "spare_read_errors",
    "auto_remaps",
    "manual_remaps",
    "weak_moves",
    "scan",
    "metadata",
    "autosave",
    "saves",
    "saves_done",
    "replicas",
    "superblocks",
    "metadata_repairs",
    "breaker",
    "flush",
    "spares",
    "spares_all",
    "idle",
    "slots_left",
    "taking_over",
    "stuck",
    "foreign",
    "refused_messages",
];
const SETTABLE: [&str; 6] = [
    "auto_remap",
    "read_retries",
    "error_threshold",
    "low_water",
    "deadline_ms",
    "autosave_seconds",
];
const LISTINGS: [&str; 5] = ["remap_table", "slots", "desk", "pools", "metadata"];

/// The name of a device's folder.
fn folder(path: &Path) -> String {
    let name = path.file_name().expect("a name");
    name.to_str().expect("text").into()
}

fn sysfs(device: &Mapped, file: &str) -> PathBuf {
    Path::new(SYSFS).join(folder(&device.path())).join(file)
}

#[track_caller]
fn see(device: &Mapped, file: &str) -> String {
    let path = sysfs(device, file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.strip_suffix('\n').expect("a newline").into()
}

fn set(device: &Mapped, file: &str, text: &str) -> io::Result<()> {
    fs::write(sysfs(device, file), text)
}

/// The rows of a file in debugfs, each as its words, without the header.
#[track_caller]
fn rows(file: &str) -> Vec<Vec<String>> {
    let path = Path::new(DEBUGFS).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let words = |line: &str| line.split(' ').map(String::from).collect();
    text.lines().skip(1).map(words).collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().expect("text"))
        .collect();
    names.sort();
    names
}

/// There is nothing of any device.
#[track_caller]
fn expect_no_device() {
    assert_eq!(names(SYSFS), ["targets", "version"]);
    assert_eq!(names(DEBUGFS), ["remap_table"]);
    assert_eq!(
        fs::read_to_string(format!("{SYSFS}/targets")).unwrap(),
        "0\n"
    );
    assert_eq!(rows("remap_table"), Vec::<Vec<String>>::new());
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

/// Files, modes, and who may do what; nothing is left when the device is gone.
#[test]
fn each_file_has_its_mode() {
    let _test = vmtest::begin!();
    load();
    expect_no_device();
    let remap = Remap::new(512);
    let device = remap.device();
    let own = folder(&device.path());
    let mut expected: Vec<&str> = [&READABLE[..], &SETTABLE].concat();
    expected.sort_unstable();
    assert_eq!(names(&format!("{SYSFS}/{own}")), expected);
    for file in READABLE {
        assert_eq!(mode(sysfs(device, file)), 0o444, "{file}");
        assert_eq!(
            set(device, file, "1").unwrap_err().raw_os_error(),
            Some(libc::EACCES)
        );
    }
    for file in SETTABLE {
        assert_eq!(mode(sysfs(device, file)), 0o644, "{file}");
    }
    for file in ["version", "targets"] {
        assert_eq!(mode(format!("{SYSFS}/{file}")), 0o444, "{file}");
    }
    let mut expected = LISTINGS;
    expected.sort_unstable();
    assert_eq!(names(&format!("{DEBUGFS}/{own}")), expected);
    for file in LISTINGS.map(|file| format!("{own}/{file}")) {
        assert_eq!(mode(format!("{DEBUGFS}/{file}")), 0o400, "{file}");
        rows(&file);
    }
    assert_eq!(mode(format!("{DEBUGFS}/remap_table")), 0o400);
    assert_eq!(
        fs::read_to_string(format!("{SYSFS}/targets")).unwrap(),
        "1\n"
    );
    let version = fs::read_to_string(format!("{SYSFS}/version")).unwrap();
    let module = fs::read_to_string("/sys/module/dm_remap/version").unwrap();
    assert_eq!(version, module);
    drop(remap);
    expect_no_device();
}

/// Every value is that of the status line.
#[track_caller]
fn expect_status(device: &Mapped) {
    let line = device.status();
    let fraction = |place| device.status_fraction(place);
    let mut expected = BTreeMap::from([
        ("remapped", fraction(0).0.to_string()),
        ("capacity", fraction(0).1.to_string()),
        ("slots_used", fraction(2).0.to_string()),
    ]);
    for word in line.split_whitespace().filter(|word| word.contains('=')) {
        let (key, value) = word.split_once('=').unwrap();
        let part = |text: &str, mark| {
            let (first, second) = text.split_once(mark).unwrap();
            (first.to_string(), second.to_string())
        };
        let mut put = |key, value| assert_eq!(expected.insert(key, value), None);
        match key {
            "errors" | "spare_errors" => {
                let (write, read) = part(value, ":");
                let [writes, reads] = match key {
                    "errors" => ["write_errors", "read_errors"],
                    _ => ["spare_write_errors", "spare_read_errors"],
                };
                put(writes, write[1..].to_string());
                put(reads, read[1..].to_string());
            }
            "saves" => {
                let (done, all) = part(value, "/");
                put("saves_done", done);
                put("saves", all);
            }
            "spares" => {
                let (used, all) = part(value, "/");
                put("spares", used);
                put("spares_all", all);
            }
            "scan" => put(key, value.trim_end_matches('%').to_string()),
            _ => put(key, value.to_string()),
        }
    }
    let told = fraction(1).0;
    let lost: u64 = expected["lost"].parse().unwrap();
    expected.insert("pending", (told - lost).to_string());
    for (file, value) in expected {
        assert_eq!(see(device, file), value, "{file}: {line}");
    }
}

/// What Prometheus reads, by metric; and its labels are these.
#[track_caller]
fn metrics(device: &Mapped) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(sysfs(device, "all_stats")).expect("all_stats");
    let labels = format!(
        "device=\"{}\",name=\"{}\"",
        folder(&device.path()),
        device.name()
    );
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, rest) = line.split_once('{').expect(line);
            let rest = rest.strip_prefix(&labels).expect(line);
            let value = rest.rsplit(' ').next().expect(line);
            (name.to_string(), value.parse().expect(line))
        })
        .collect()
}

/// Values follow what happens, and the tables of remaps too.
#[test]
fn what_is_told_follows_what_happens() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    expect_status(remap.device());
    let own = folder(&remap.path());
    assert_eq!(
        rows(&format!("{own}/remap_table")),
        Vec::<Vec<String>>::new()
    );
    remap
        .main
        .disk()
        .spoil(100, 4, Fault::bad(Direction::Write));
    remap
        .main
        .disk()
        .spoil(5000, 1, Fault::bad(Direction::Read));
    remap.open().write(96, &stamps(96, 16, 1)).unwrap();
    remap.device().message("remap 700").unwrap();
    remap.open().read(5000, 1).unwrap_err();
    remap.device().message("verify 5000").unwrap();
    let device = remap.device();
    expect_status(device);
    assert_eq!(see(device, "remapped"), "5");
    assert_eq!(see(device, "auto_remaps"), "4");
    assert_eq!(see(device, "pending"), "1");
    assert_eq!(see(device, "health"), "0");
    let told = metrics(device);
    println!(
        "{}",
        fs::read_to_string(sysfs(device, "all_stats")).unwrap()
    );
    assert_eq!(told["dm_remap_remapped_blocks"], 5.0);
    assert_eq!(told["dm_remap_pending_blocks"], 1.0);
    assert_eq!(told["dm_remap_healthy"], 0.0);
    assert_eq!(told["dm_remap_limit_deadline_seconds"], 30.0);

    let mut table = rows(&format!("{own}/remap_table"));
    for row in &table {
        let [sector, spare, place, _, _, doubt] = &row[..] else {
            panic!("{row:?}");
        };
        assert_eq!((&**spare, &**doubt), ("0", "-"));
        let place: u64 = place.parse().unwrap();
        let sector: u64 = sector.parse().unwrap();
        let verified = device.message(&format!("verify {sector}")).unwrap();
        assert!(
            verified.contains(&format!("spare sector {place} ")),
            "{verified}"
        );
    }
    table.sort_by_key(|row| row[0].parse::<u64>().unwrap());
    let columns = |row: &Vec<String>| (row[0].clone(), row[3].clone(), row[4].clone());
    let told: Vec<_> = table.iter().map(columns).collect();
    let row =
        |sector: u64, how: &str, who: &str| (sector.to_string(), how.to_string(), who.to_string());
    let mut expected: Vec<_> = (100..104)
        .map(|sector| row(sector, "remapped", "auto"))
        .collect();
    expected.push(row(700, "remapped", "manual"));
    expected.push(row(5000, "pending", "auto"));
    assert_eq!(told, expected);
    let slots = rows(&format!("{own}/slots"));
    assert!(
        slots.iter().filter(|row| row[1] != "-").count() == 6,
        "{slots:?}"
    );

    // All devices in one file, by their present names, each of which is one word.
    let before = folder(&remap.path());
    for name in ["plain", "with a \"blank\"", "back\\slash"] {
        remap.device_mut().rename(name);
        let device = remap.device();
        assert_eq!(see(device, "name"), name);
        assert_eq!(folder(&device.path()), before);
        let column = name.replace('\\', "\\134").replace(' ', "\\040");
        let all = rows("remap_table");
        assert_eq!(all.len(), 6);
        assert!(
            all.iter().all(|row| row[0] == column && row.len() == 7),
            "{all:?}"
        );
        let text = fs::read_to_string(sysfs(device, "all_stats")).unwrap();
        let label = name.replace('\\', "\\\\").replace('"', "\\\"");
        let sample = format!("remapped_blocks{{device=\"{before}\",name=\"{label}\"}} ");
        assert!(text.contains(&sample), "{text}");
    }
}

/// What root sets is in force, and what cannot be is refused, says why, and changes nothing.
#[test]
fn what_can_be_set() {
    let mut test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.device();
    for (file, values) in [
        ("read_retries", ["0", "100", "2"]),
        ("error_threshold", ["0", "1000000", "8"]),
        ("low_water", ["0", "100", "10"]),
        ("deadline_ms", ["100", "600000", "30000"]),
        ("autosave_seconds", ["1", "86400", "0"]),
    ] {
        for value in values {
            set(device, file, value).unwrap();
            assert_eq!(see(device, file), value, "{file}");
            set(device, file, &format!("{value}\n")).unwrap();
            let mark = test.kernel_log().len();
            for (wrong, errno) in [
                ("1000001", libc::ERANGE),
                ("99999999999999999999", libc::ERANGE),
                ("-1", libc::EINVAL),
                ("x", libc::EINVAL),
                ("", libc::EINVAL),
                (" 5", libc::EINVAL),
                ("5 6", libc::EINVAL),
                ("5\n\n", libc::EINVAL),
                ("\0", libc::EINVAL),
            ] {
                // Nothing is written if there is nothing.
                let wrong = if wrong.is_empty() { "\n" } else { wrong };
                let error = set(device, file, wrong).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(errno), "{file} {wrong:?}");
                assert_eq!(see(device, file), value, "{file} {wrong:?}");
            }
            let log = test.kernel_log()[mark..].to_string();
            assert!(log.contains(&format!("{file} is out of range, ")), "{log}");
            assert!(log.contains(" are allowed"), "{log}");
        }
    }
    for (word, told) in [
        ("0", "off"),
        ("1", "on"),
        ("off", "off"),
        ("on\n", "on"),
        ("0\n", "off"),
    ] {
        set(device, "auto_remap", word).unwrap();
        assert_eq!(see(device, "auto_remap"), told);
        assert_eq!(device.status_value("auto_remap").as_deref(), Some(told));
        for wrong in ["2", "On", "yes", "\n", "on off", "1 "] {
            let error = set(device, "auto_remap", wrong).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{wrong:?}");
            assert_eq!(see(device, "auto_remap"), told, "{wrong:?}");
        }
    }
    // It is off, and so nothing is remapped.
    remap
        .main
        .disk()
        .spoil(100, 1, Fault::bad(Direction::Write));
    remap.open().write(100, &stamps(100, 1, 1)).unwrap_err();
    assert_eq!(see(device, "remapped"), "0");
    set(device, "auto_remap", "on").unwrap();
    remap.open().write(100, &stamps(100, 1, 1)).unwrap();
    assert_eq!(see(device, "remapped"), "1");
}

/// D1: each place of a device has its folder, which is that of its tables, one after the other.
#[test]
fn each_place_has_its_folder() {
    let _test = vmtest::begin!();
    load();
    let disk = |mib: u64| Options::memory(mib << 20);
    let first = Remap::inactive(disk(8), disk(2), "");
    let second = Remap::inactive(disk(8), disk(2), "");
    let sectors = first.main.disk().sectors();
    let line = |remap: &Remap, begin: u64| {
        let line = remap.line();
        let (_, rest) = line.split_once(' ').unwrap();
        format!("{begin} {rest}")
    };
    let both = format!("{}\n{}", line(&first, 0), line(&second, sectors));
    let mapped = Mapped::new(&both);
    let own = folder(&mapped.path());
    let later = format!("{own}-{sectors}");
    let folders = || {
        let mut names = names(SYSFS);
        names.retain(|name| name.starts_with("dm-"));
        let mut listed = self::names(DEBUGFS);
        listed.retain(|name| name.starts_with("dm-"));
        assert_eq!(names, listed);
        names
    };
    let read = |folder: &str, file: &str| {
        let text = fs::read_to_string(format!("{SYSFS}/{folder}/{file}")).unwrap();
        text.trim_end().to_string()
    };
    let targets = || fs::read_to_string(format!("{SYSFS}/targets")).unwrap();
    assert_eq!(folders(), [own.clone(), later.clone()]);
    assert_eq!(targets(), "2\n");
    let sets = [read(&own, "set_uuid"), read(&later, "set_uuid")];
    assert_ne!(sets[0], sets[1]);
    assert_eq!(read(&later, "name"), mapped.name());
    let stats = read(&later, "all_stats");
    assert!(stats.contains(&format!("device=\"{later}\",")), "{stats}");

    // A load that fails leaves nothing, and one that is taken back, neither.
    let wrong = format!("{both}\n{} 8 dm-remap /dev/null /dev/null", 2 * sectors);
    mapped.load(&wrong).unwrap_err();
    assert_eq!((folders().len(), targets()), (2, "2\n".into()));
    mapped.load(&both).unwrap();
    assert_eq!((folders().len(), targets()), (2, "4\n".into()));
    // The same set in another place is there, and in its old one until the table is in use.
    let moved = line(&first, 0);
    let gap = format!(
        "{moved}\n{sectors} 16 zero\n{}",
        line(&second, sectors + 16)
    );
    mapped.load(&gap).unwrap();
    let new = format!("{own}-{}", sectors + 16);
    let mut expected = vec![own.clone(), later.clone(), new.clone()];
    expected.sort();
    assert_eq!(folders(), expected);
    mapped.suspend().unwrap();
    mapped.resume().unwrap();
    assert_eq!(folders(), [own.clone(), new.clone()]);
    assert_eq!(read(&new, "set_uuid"), sets[1]);

    // Another set in the same place is shown once its table is in use.
    mapped.load(&moved).unwrap();
    mapped.suspend().unwrap();
    mapped.resume().unwrap();
    assert_eq!(folders(), [own.clone()]);
    let third = Remap::inactive(disk(8), disk(2), "");
    mapped.load(&line(&third, 0)).unwrap();
    assert_eq!(read(&own, "set_uuid"), sets[0]);
    let mut open = File::open(format!("{SYSFS}/{own}/set_uuid")).unwrap();
    mapped.suspend().unwrap();
    mapped.resume().unwrap();
    let other = read(&own, "set_uuid");
    assert!(!sets.contains(&other), "{other}");
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text.trim_end(), other);
    assert_eq!(targets(), "1\n");
    mapped.remove();
    expect_no_device();
}

/// A table that was never in use shows what its spare holds.
#[test]
fn a_table_that_is_not_in_use_is_shown() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    remap.device().message("remap 8 4").unwrap();
    remap.deactivate();
    expect_no_device();
    let device = Mapped::new("0 8 zero");
    device.load(&remap.line()).unwrap();
    assert_eq!(see(&device, "remapped"), "4");
    assert_eq!(
        rows(&format!("{}/remap_table", folder(&device.path()))).len(),
        4
    );
    // Taken back without having been in use.
    device.load("0 8 zero").unwrap();
    expect_no_device();
}

/// P15: with a spare that hangs, everything can be read, what is set is in force, and when its I/O returns, removing the
/// device ends.
#[test]
fn a_spare_that_hangs_keeps_nobody_from_reading_and_setting() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let name = remap.device().name().to_string();
    let own = folder(&remap.path());
    let sectors = remap.spare.disk().sectors();
    remap.spare.disk().hold(0..sectors, Direction::Both);
    std::thread::scope(|scope| {
        let released = remap.spare.release_at_end();
        let saving = scope.spawn(|| vmtest::guest::message(&name, "save"));
        assert!(vmtest::guest::eventually(|| !remap
            .spare
            .disk()
            .waiting()
            .is_empty()));
        let device = remap.device();
        for file in READABLE {
            see(device, file);
        }
        for file in SETTABLE.into_iter().skip(1) {
            let value = see(device, file);
            set(device, file, &value).unwrap();
        }
        set(device, "auto_remap", "off").unwrap();
        assert_eq!(see(device, "auto_remap"), "off");
        for file in ["remap_table", "slots", "desk"] {
            rows(&format!("{own}/{file}"));
        }
        // What the writer's lock protects is not waited for.
        for file in ["pools", "metadata"] {
            let error = fs::read_to_string(format!("{DEBUGFS}/{own}/{file}")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{file}");
        }
        assert!(!saving.is_finished());
        drop(released);
        saving.join().unwrap().unwrap();
    });
    remap.deactivate();
    expect_no_device();
}

/// Devices come, are renamed and go while others read all of their files and hold them open. Whoever
/// has one open is told that the device is gone.
#[test]
fn files_come_and_go_while_they_are_read() {
    let _test = vmtest::begin!();
    let rounds = if thorough() { 1000 } else { 60 / slowness() };
    let disk = |mib: u64| Options::memory(mib << 20);
    let remap = Remap::inactive(disk(4), disk(2), "");
    let line = remap.line();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read_all = || {
            let (mut whole, mut gone) = (0u64, 0u64);
            let mut held: Vec<File> = Vec::new();
            while !ended.load(Relaxed) {
                held.truncate(64);
                for top in [SYSFS, DEBUGFS] {
                    let folders = fs::read_dir(top)
                        .unwrap()
                        .flatten()
                        .map(|entry| entry.path());
                    let files = folders.flat_map(|folder| match fs::read_dir(&folder) {
                        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
                        Err(_) => vec![folder],
                    });
                    for file in files.collect::<Vec<_>>() {
                        let Ok(mut open) = File::open(&file) else {
                            gone += 1;
                            continue;
                        };
                        let mut text = String::new();
                        match open.read_to_string(&mut text) {
                            Ok(_) if file.ends_with("all_stats") => {
                                assert!(text.is_empty() || text.ends_with('\n'), "{text}");
                                whole += 1;
                            }
                            Ok(_) => whole += 1,
                            Err(error) => {
                                let errno = error.raw_os_error();
                                let known = [libc::ENODEV, libc::EIO, libc::EBUSY];
                                assert!(
                                    errno.is_some_and(|errno| known.contains(&errno)),
                                    "{error}"
                                );
                                gone += 1;
                            }
                        }
                        held.insert(0, open);
                    }
                }
                // Others want the processor, too.
                std::thread::sleep(std::time::Duration::from_millis(5));
                // What was read before may be of a device that is gone.
                for open in &mut held {
                    let _ = open.seek(SeekFrom::Start(0));
                    let _ = open.read(&mut [0; 64]);
                }
            }
            (whole, gone)
        };
        let readers = [scope.spawn(read_all), scope.spawn(read_all)];
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let end = End(&ended);
        for round in 0..rounds {
            let mut device = Mapped::new(&line);
            let mut held: Vec<File> = ["name", "all_stats", "remapped", "auto_remap"]
                .map(|file| File::open(sysfs(&device, file)).expect("open"))
                .into();
            let listed = Path::new(DEBUGFS).join(folder(&device.path()));
            held.extend(LISTINGS.map(|file| File::open(listed.join(file)).expect("open")));
            device.rename(&format!("another{round}"));
            assert_eq!(see(&device, "name"), format!("another{round}"));
            device.remove();
            for mut open in held {
                let error = open.read(&mut [0; 64]).expect_err("it is gone");
                let errno = error.raw_os_error();
                assert!(
                    [Some(libc::ENODEV), Some(libc::EIO)].contains(&errno),
                    "{error}"
                );
            }
        }
        drop(end);
        for reader in readers {
            let (whole, gone) = reader.join().unwrap();
            println!("{whole} files were read, {gone} had gone");
            assert!(whole > 0);
        }
    });
    expect_no_device();
}

/// How much memory the kernel has in use, in KiB.
fn kernel_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let number = |key: &str| -> u64 {
        let line = info.lines().find(|line| line.starts_with(key)).expect(key);
        line.split_whitespace()
            .nth(1)
            .expect(key)
            .parse()
            .expect(key)
    };
    number("Slab:") + number("VmallocUsed:")
}

/// A million remaps are listed row by row, of one device and of all, without memory for them.
#[test]
fn a_million_rows_need_no_memory() {
    let _test = vmtest::begin!();
    load();
    let remaps = 1_000_000 / slowness();
    let set = SpareSet {
        main: NullBlk::new(4500, 4096),
        spares: vec![NullBlk::new(4500, 4096)],
        sectors: 4500 << 11,
        slot_sectors: 8,
        place: SpareSet::scattered,
    };
    set.forge(remaps);
    let device = Mapped::new(&format!(
        "0 {} dm-remap {}",
        set.sectors,
        set.parameters("")
    ));
    assert_eq!(see(&device, "remapped"), remaps.to_string());
    let own = folder(&device.path());
    succeed("echo 3 > /proc/sys/vm/drop_caches");
    for (file, name) in [
        (format!("{own}/remap_table"), ""),
        ("remap_table".into(), device.name()),
    ] {
        let mut open = File::open(Path::new(DEBUGFS).join(&file)).unwrap();
        let before = kernel_memory();
        let (mut bytes, mut rows, mut most) = (0, 0, 0);
        let mut part = vec![0; 1 << 20];
        let mut sum = 0u64;
        let mut rest = Vec::new();
        loop {
            let count = open.read(&mut part).unwrap();
            if count == 0 {
                break;
            }
            most = most.max(kernel_memory().saturating_sub(before));
            bytes += count;
            rest.extend_from_slice(&part[..count]);
            let whole = rest
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            for line in std::str::from_utf8(&rest[..whole]).unwrap().lines() {
                rows += 1;
                let line = line.strip_prefix(name).unwrap_or(line).trim_start();
                let sector = line.split(' ').next().unwrap();
                sum += sector.parse::<u64>().unwrap_or(0);
            }
            rest.drain(..whole);
        }
        println!("{file}: {rows} lines, {bytes} bytes, {most} KiB of memory at most");
        assert_eq!(rows, remaps + 1);
        let expected: u64 = (0..remaps).map(|slot| set.block_of(slot) * 8).sum();
        assert_eq!(sum, expected);
        // Other things may want a little meanwhile; the text has tens of megabytes.
        assert!(most < 2048, "{most} KiB");
    }
}
