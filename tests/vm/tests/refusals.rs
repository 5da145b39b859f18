// SPDX-License-Identifier: GPL-2.0
//! D2, P9: a table that is refused leaves the live one whole, whatever is wrong with it. Every refusal
//! that there is, over a device in use: the errno and the log say what is wrong, the live table stays,
//! no other one is left behind, and what refused it was not written to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use vmtest::guest::forge_superblocks;
use vmtest::guest::forge_table_blocks;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Kmsg;
use vmtest::guest::Mapped;
use vmtest::guest::Need;
use vmtest::guest::NullBlk;
use vmtest::guest::Partition;
use vmtest::guest::Refusal;
use vmtest::guest::Remap;
use vmtest::guest::Traffic;

const MAIN: u64 = Remap::MAIN_SECTORS;
const SPARE: u64 = Remap::SPARE_SECTORS;

const INVALID: &str = "Invalid argument";
const RANGE: &str = "Numerical result out of range";
const BUSY: &str = "Device or resource busy";
const UNSUPPORTED: &str = "Operation not supported";

/// A table line behind its length, errno in words, and what the log must say.
type Case<'a> = (&'a str, &'a str, &'a str);

/// The live device, and other disks by the letter that they have in table lines.
struct Scene {
    live: Remap,
    others: Vec<(&'static str, String)>,
}

impl Scene {
    fn new() -> Self {
        let live = Remap::new(512);
        let others = vec![
            ("M", live.main.path().display().to_string()),
            ("S", live.spare.path().display().to_string()),
        ];
        Self { live, others }
    }

    fn add(&mut self, letter: &'static str, path: &std::path::Path) {
        self.others.push((letter, path.display().to_string()));
    }

    fn line(&self, words: &str) -> String {
        let known = |word| self.others.iter().find(|(letter, _)| *letter == word);
        let words = words.split(' ');
        let words = words.map(|word| known(word).map_or(word, |(_, path)| path.as_str()));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Loads each of these tables while the device is in use.
    #[track_caller]
    fn refuses(&self, cases: &[Case<'_>]) {
        let loads = |words: &str| self.live.device().load(&self.line(words));
        self.refuses_by(cases, loads);
    }

    #[track_caller]
    fn refuses_by(&self, cases: &[Case<'_>], load: impl Fn(&str) -> Result<(), Refusal>) {
        let device = self.live.device();
        let table = device.table();
        let mut wrong = Vec::new();
        let known = Traffic::during(&self.live.path(), 0..16384, |traffic| {
            for (number, &(words, error, reason)) in (0..).zip(cases) {
                match load(words) {
                    Err(found) if found.error == error && found.reason.contains(reason) => (),
                    Err(found) => {
                        wrong.push(format!("`{words}`: {found:?}, not {error}: {reason}"));
                    }
                    Ok(()) => {
                        wrong.push(format!("`{words}` was loaded"));
                        succeed(&format!("dmsetup clear {}", device.name()));
                    }
                }
                let left = device.loaded_table();
                assert_eq!(left, "", "`{words}` is still loaded");
                traffic.goes_on();
                // Repairs go on as well.
                if number % 8 > 0 {
                    continue;
                }
                let bad = 20_000 + 8 * number;
                let repaired = device.remapped();
                self.live
                    .main
                    .disk()
                    .spoil(bad, 1, Fault::bad(Direction::Both));
                let opened = self.live.open();
                opened.write(bad, &stamps(bad, 8, 1)).unwrap();
                assert_eq!(device.remapped(), repaired + 1, "{words}");
            }
        });
        assert_eq!(device.table(), table);
        known.verify(&self.live.open());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // What was refused leaves nothing behind that would be in the way of what is right.
        device.load(&self.live.line()).unwrap();
        device.resume().unwrap();
        known.verify(&self.live.open());
    }
}

fn disk(sectors: u64) -> Options {
    Options::memory(sectors * 512)
}

fn start(options: Options) -> SickDisk {
    SickDisk::start(options).expect("start a disk")
}

/// All that the words of a line can be refused for.
#[test]
fn bad_words_leave_the_table_whole() {
    let _test = vmtest::begin!();
    let scene = Scene::new();
    let id = format!("0 131072 dm-remap M S 2 main_id {}", "x".repeat(65));
    let uuid = "01234567-89ab-4def-8edc-ba9876543210";
    let both = format!("0 131072 dm-remap M S 3 format uuid {uuid}");
    let cases = [
        ("0 131072 dm-remap M", INVALID, "Two devices are needed"),
        ("0 131072 remap M S 0", INVALID, "Four arguments are needed"),
        (
            "0 131072 dm-remap M S x",
            INVALID,
            "arguments is not a decimal number",
        ),
        (
            "0 131072 dm-remap M S 99",
            "Argument list too long",
            "arguments is too large",
        ),
        (
            "0 131072 dm-remap M S 1",
            INVALID,
            "does not match what follows",
        ),
        (
            "0 131072 dm-remap M S 1 frob",
            UNSUPPORTED,
            "Unknown argument",
        ),
        (
            "0 131072 dm-remap M S 1 low_water",
            INVALID,
            "lacks its value",
        ),
        (
            "0 131072 dm-remap M S 2 format format",
            "File exists",
            "given twice",
        ),
        (
            "0 131072 dm-remap M S 2 auto_remap maybe",
            INVALID,
            "neither on nor off",
        ),
        ("0 131072 remap M S x 16384", INVALID, "spare_start is not"),
        (
            "0 131072 remap M S 36028797018963969 8",
            RANGE,
            "spare_start is too large",
        ),
        ("0 131072 remap M S 0 x", INVALID, "spare_len is not"),
        (
            "0 131072 remap M S 0 36028797018963969",
            RANGE,
            "spare_len is too large",
        ),
        ("0 131072 remap M S 0 0", INVALID, "spare_len is 0"),
        (
            "0 131072 remap M S 36028797018963968 36028797018963968",
            RANGE,
            "spare_start + spare_len is too large",
        ),
        (
            "0 131072 dm-remap M S 2 uuid 1234",
            INVALID,
            "uuid is not of the form",
        ),
        (&id, INVALID, "main_id is longer than 64"),
        (
            "0 131072 dm-remap M S 2 read_retries x",
            INVALID,
            "read_retries is not",
        ),
        (
            "0 131072 dm-remap M S 2 read_retries 101",
            RANGE,
            "read_retries is out of range",
        ),
        (
            "0 131072 dm-remap M S 2 low_water 101",
            RANGE,
            "low_water is out of range",
        ),
        (
            "0 131072 dm-remap M S 2 error_threshold 1000001",
            RANGE,
            "error_threshold is out",
        ),
        (
            "0 131072 dm-remap M S 2 deadline_ms 99",
            RANGE,
            "deadline_ms is out of range",
        ),
        (
            "0 131072 dm-remap M S 2 autosave_seconds 86401",
            RANGE,
            "autosave_seconds is out of range",
        ),
        (
            "0 131072 remap M 8 S 0 4096",
            UNSUPPORTED,
            "main_start is not 0: name a partition",
        ),
        (
            "0 131072 remap M x S 0 4096",
            INVALID,
            "main_start, the second of five",
        ),
        (&both, INVALID, "contradict each other"),
        (
            "0 131072 dm-remap M M",
            BUSY,
            "Main and spare are the same device",
        ),
        (NO_TEXT, INVALID, "Arguments are not in UTF-8"),
    ];
    scene.refuses_by(&cases, |words| match words {
        NO_TEXT => load_no_text(&scene),
        _ => scene.live.device().load(&scene.line(words)),
    });
}

const NO_TEXT: &str = "no text at all";

/// Loads a line that is none.
fn load_no_text(scene: &Scene) -> Result<(), Refusal> {
    let mut line = scene.line("0 131072 dm-remap M S 2 main_id ").into_bytes();
    line.push(0xff);
    let mut log = Kmsg::from_now();
    let load = Command::new("dmsetup")
        .args([
            "--noudevsync",
            "load",
            scene.live.device().name(),
            "--table",
        ])
        .arg(OsStr::from_bytes(&line))
        .output()
        .expect("run dmsetup");
    let told = String::from_utf8_lossy(&load.stderr).into_owned();
    match load.status.success() {
        true => Ok(()),
        false => Err(Refusal {
            error: if told.contains(INVALID) {
                INVALID.into()
            } else {
                told
            },
            reason: log.text(),
        }),
    }
}

/// All that the devices can be refused for.
#[test]
fn bad_devices_leave_the_table_whole() {
    vmtest::needs!(Need::Zones);
    let _test = vmtest::begin!();
    let mut scene = Scene::new();
    let (small, large_blocks) = (start(disk(65536)), start(disk(MAIN).logical_block(4096)));
    let read_only = start(disk(MAIN).read_only());
    let (blank, other) = (start(disk(SPARE)), start(disk(MAIN)));
    let (whole, used) = (start(disk(MAIN)), start(disk(SPARE)));
    let zoned = NullBlk::zoned(64);
    let part = Partition::new(&whole.path(), 8192, 65536);
    for (letter, path) in [
        ("SMALL", small.path()),
        ("4K", large_blocks.path()),
        ("RO", read_only.path()),
        ("BLANK", blank.path()),
        ("OTHER", other.path()),
        ("ZONED", zoned.path()),
        ("WHOLE", whole.path()),
        ("PART", part.path()),
        ("USED", used.path()),
    ] {
        scene.add(letter, &path);
    }
    let user = Mapped::new(&scene.line("0 131072 remap OTHER USED 0 8192"));
    for disk in [&small, &large_blocks, &blank, &whole, &used] {
        disk.disk().record_mut().restart(false);
    }
    let two = "0 65536 remap M S 0 16384\n65536 65536 remap M S 0 16384";
    scene.refuses(&[
        (
            "0 131072 dm-remap /dev/none S",
            "No such file or directory",
            "Main device cannot be opened",
        ),
        (
            "0 131072 dm-remap M /dev/none",
            "No such file or directory",
            "Spare device cannot be opened",
        ),
        (
            "0 131072 dm-remap M ZONED",
            UNSUPPORTED,
            "Zoned devices are not supported",
        ),
        (
            "0 131072 dm-remap ZONED S",
            UNSUPPORTED,
            "Zoned devices are not supported",
        ),
        (
            "0 131072 dm-remap M 4K",
            UNSUPPORTED,
            "Spare has larger logical blocks",
        ),
        (
            "0 131071 dm-remap 4K S",
            INVALID,
            "not a multiple of main's logical block",
        ),
        (
            "0 131080 dm-remap M S",
            RANGE,
            "Main is smaller than the target",
        ),
        (
            "0 131072 dm-remap RO S",
            "Read-only file system",
            "Main device is read-only",
        ),
        (
            "0 131072 dm-remap M RO",
            "Read-only file system",
            "Spare device is read-only",
        ),
        (
            "0 131072 remap M S 16384 8",
            RANGE,
            "outside of the spare device",
        ),
        (
            "0 131072 remap M S 8192 16384",
            RANGE,
            "outside of the spare device",
        ),
        (
            "0 131072 remap M S 0 8",
            "No space left on device",
            "Spare is too small",
        ),
        (
            "0 131072 dm-remap WHOLE PART",
            BUSY,
            "Spare device cannot be opened",
        ),
        (
            "0 65536 dm-remap PART WHOLE",
            BUSY,
            "Spare device cannot be opened",
        ),
        (
            "0 131072 remap M USED 0 8192",
            BUSY,
            "used by another device",
        ),
        (
            "0 131072 remap M USED 8184 8192",
            BUSY,
            "used by another device",
        ),
        (
            "0 131072 remap M S 2048 8192",
            BUSY,
            "used by another device",
        ),
        (two, BUSY, "used by another device"),
    ]);
    for disk in [&small, &large_blocks, &blank, &whole, &used] {
        assert_eq!(disk.disk().record().writes, 0);
    }
    user.remove();
}

/// A spare of 8 MiB that was used once, for another main.
fn used_once(block: u32) -> SickDisk {
    let mut remap = Remap::on(disk(MAIN).logical_block(block), disk(SPARE), "");
    remap.device().message("remap 64 8").unwrap();
    remap.deactivate();
    remap.spare
}

/// All that the content of a spare can be refused for.
#[test]
fn bad_spares_leave_the_table_whole() {
    let _test = vmtest::begin!();
    let mut scene = Scene::new();
    let (blank, foreign, dead) = (start(disk(SPARE)), start(disk(SPARE)), start(disk(SPARE)));
    foreign.disk().poke(0, &stamps(0, 64, 1)).unwrap();
    dead.disk().die(Status::Offline, Direction::Both);
    let unreadable = start(disk(SPARE));
    unreadable
        .disk()
        .spoil(0, SPARE, Fault::bad(Direction::Read));

    let rotten = used_once(512);
    for sector in vmtest::guest::superblocks(&rotten) {
        rotten
            .disk()
            .poke(sector + 1, &stamps(sector, 1, 1))
            .unwrap();
    }
    let newer = used_once(512);
    forge_superblocks(&newer, 12, &7_u32.to_le_bytes());
    let incompatible = used_once(512);
    forge_superblocks(&incompatible, 32, &0x4000_u64.to_le_bytes());
    let only_readable = used_once(512);
    forge_superblocks(&only_readable, 24, &0x4000_u64.to_le_bytes());
    let table = used_once(512);
    // An epoch that no superblock knows.
    forge_table_blocks(&table, 40, &(9_u64 << 40).to_le_bytes());
    let newer_table = used_once(512);
    forge_table_blocks(&newer_table, 12, &7_u32.to_le_bytes());
    let blocks = used_once(4096);

    let disks = [
        ("BLANK", &blank),
        ("FOREIGN", &foreign),
        ("DEAD", &dead),
        ("UNREADABLE", &unreadable),
        ("ROTTEN", &rotten),
        ("NEWER", &newer),
        ("INCOMPATIBLE", &incompatible),
        ("ONLY-READABLE", &only_readable),
        ("TABLE", &table),
        ("NEWER-TABLE", &newer_table),
        ("BLOCKS", &blocks),
    ];
    let content = |disk: &SickDisk| {
        let mut content = vec![0; (SPARE * 512) as usize];
        disk.disk().peek(0, &mut content).unwrap();
        content
    };
    let mut before = Vec::new();
    for (letter, disk) in disks {
        scene.add(letter, &disk.path());
        before.push(content(disk));
    }
    let wrong = "01234567-89ab-4def-8edc-ba9876543210";
    let named = format!("0 131072 dm-remap M BLANK 2 uuid {wrong}");
    let other = format!("0 131072 dm-remap M S 2 uuid {wrong}");
    scene.refuses(&[
        (
            "0 131072 dm-remap M FOREIGN",
            "Wrong medium type",
            "Spare is not blank",
        ),
        (
            &named,
            "No data available",
            "Spare is blank, but the uuid argument",
        ),
        (
            "0 131072 dm-remap M DEAD",
            "No such device",
            "Spare cannot be read",
        ),
        (
            "0 131072 dm-remap M UNREADABLE",
            "Input/output error",
            "No usable superblock",
        ),
        ("0 131072 dm-remap M ROTTEN", "Bad message", "bad checksum"),
        (
            "0 131072 dm-remap M NEWER",
            UNSUPPORTED,
            "format 7 is newer",
        ),
        (
            "0 131072 dm-remap M NEWER 1 format",
            UNSUPPORTED,
            "format 7 is newer",
        ),
        (
            "0 131072 dm-remap M INCOMPATIBLE",
            UNSUPPORTED,
            "uses features 0x4000",
        ),
        (
            "0 131072 dm-remap M INCOMPATIBLE 1 format",
            UNSUPPORTED,
            "uses features 0x4000",
        ),
        (
            "0 131072 dm-remap M ONLY-READABLE",
            "Read-only file system",
            "can only read",
        ),
        (
            "0 131072 dm-remap M TABLE",
            "Bad message",
            "superblock is older than table block 0",
        ),
        (
            "0 131072 dm-remap M NEWER-TABLE",
            UNSUPPORTED,
            "format 7 is newer",
        ),
        (
            "0 131072 dm-remap M BLOCKS",
            UNSUPPORTED,
            "4096 bytes and has others now: 512",
        ),
        (
            "0 131072 dm-remap M S 1 format",
            "File exists",
            "format argument does not overwrite",
        ),
        (&other, "No such device", wrong),
        (
            "0 131072 remap M S 0 8192",
            "No space left on device",
            "the 16384 sectors",
        ),
    ]);
    dead.disk().revive();
    for ((letter, disk), before) in disks.iter().zip(before) {
        assert!(content(disk) == before, "{letter} was written to");
    }
}

/// What only a read-only table is refused for.
#[test]
fn a_refused_read_only_table_leaves_the_live_one_whole() {
    let _test = vmtest::begin!();
    let mut scene = Scene::new();
    let blank = start(disk(SPARE));
    scene.add("BLANK", &blank.path());
    let case = (
        "0 131072 dm-remap M BLANK",
        "Read-only file system",
        "cannot be formatted",
    );
    scene.refuses_by(&[case], |words| {
        scene.live.device().load_read_only(&scene.line(words))
    });
    assert_eq!(blank.disk().record().writes, 0);
}

/// The main that a spare belongs to, by size and by name.
#[test]
fn other_mains_leave_the_table_whole() {
    let _test = vmtest::begin!();
    let mut scene = Scene::new();
    let (small, same) = (start(disk(65536)), start(disk(MAIN)));
    let blocks = start(disk(MAIN).logical_block(1024));
    scene.add("SMALL", &small.path());
    scene.add("SAME", &same.path());
    scene.add("1K", &blocks.path());
    let named = scene.line("0 131072 dm-remap M S 2 main_id disk-1");
    scene.live.device().load(&named).unwrap();
    scene.live.device().resume().unwrap();
    scene.refuses(&[
        (
            "0 65536 dm-remap SMALL S",
            "No such device",
            "of which 131072 sectors were used, this one has 65536",
        ),
        (
            "0 131072 dm-remap SAME S 2 main_id disk-2",
            "No such device",
            "main device disk-1, this one is disk-2",
        ),
        (
            "0 131072 dm-remap 1K S",
            UNSUPPORTED,
            "512 bytes and has others now: 1024",
        ),
    ]);
    for disk in [&small, &same] {
        assert_eq!(disk.disk().record().writes, 0);
    }
}
