// SPDX-License-Identifier: GPL-2.0
//! P14: spares are read, mended and made without the module, and data is reached without it.
//!
//! The tool runs here as the library that the program is made of.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use vmtest::guest::read_only;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::unload;
use vmtest::guest::Dice;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Partition;
use vmtest::guest::Remap;

/// What became of a command.
#[derive(Debug)]
struct Ran {
    status: u8,
    out: String,
    err: String,
}

/// Runs `dmremap` with these arguments.
fn dmremap(words: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = [&["dmremap"], words].concat();
    println!("{words:?}");
    let status = dmremap::cli::run(words.clone(), &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let ran = Ran {
        status,
        out: text(out),
        err: text(err),
    };
    println!("{words:?}: {ran:?}");
    ran
}

#[track_caller]
fn must(words: &[&str]) -> String {
    let ran = dmremap(words);
    assert_eq!(ran.status, 0, "{ran:?}");
    ran.out
}

fn name(disk: &SickDisk) -> String {
    disk.path().display().to_string()
}

/// A folder for a test, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new("/tmp").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("make a folder");
    path
}

fn content(number: usize) -> Vec<u8> {
    stamps(number as u64 * 10_000, 400 + 13 * number as u64, 7)
}

const FILES: usize = 40;

/// Copies files to a filesystem while blocks of its disk go bad.
fn fill(remap: &Remap) {
    let path = remap.path();
    succeed(&format!("mkfs.ext4 -q -F {}", path.display()));
    succeed(&format!("mount {} /mnt", path.display()));
    let mut dice = Dice::new(3);
    for number in 0..FILES {
        for _ in 0..20 {
            let sector = 2048 + dice.roll(Remap::MAIN_SECTORS - 4096);
            let mut disk = remap.main.disk();
            let mut old = vec![0; 8 * 512];
            let blank = disk.peek(sector & !7, &mut old).is_ok() && old.iter().all(|b| *b == 0);
            // What holds data is read, but takes no more writes.
            let direction = if blank {
                Direction::Both
            } else {
                Direction::Write
            };
            disk.spoil(sector & !7, 8, Fault::bad(direction));
        }
        fs::write(format!("/mnt/{number}"), content(number)).expect("write a file");
        if number % 5 == 0 {
            succeed("sync -f /mnt");
        }
    }
    succeed("umount /mnt");
}

/// Compares the files of a filesystem.
#[track_caller]
fn compare(device: &str) {
    succeed(&format!("e2fsck -fn {device}"));
    succeed(&format!("mount -o ro {device} /mnt"));
    for number in 0..FILES {
        let found = fs::read(format!("/mnt/{number}")).expect("read a file");
        assert!(found == content(number), "file {number} differs");
    }
    succeed("umount /mnt");
}

/// The devices that a script of the tool makes; removed when dropped.
struct Tables {
    folder: String,
}

impl Tables {
    #[track_caller]
    fn create(folder: &str) -> Self {
        let tables = Self {
            folder: folder.into(),
        };
        // No udev is there to make nodes.
        succeed(&format!(
            "env DM_DISABLE_UDEV=1 sh {folder}/create.sh --readonly"
        ));
        tables
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        // The filesystem, where a test failed; else nothing is mounted.
        run("umount /mnt");
        let script = format!("env DM_DISABLE_UDEV=1 sh {}/remove.sh", self.folder);
        let removed = run(&script);
        if removed.status != 0 {
            eprintln!("{script}: {removed:?}");
        }
    }
}

/// The way out for a system without the module: all data is reached through dm-linear alone, by
/// one table and by stacked ones.
#[test]
fn a_filesystem_is_reached_without_the_module() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let mut remap = Remap::new(block);
        fill(&remap);
        let remapped = remap.device().remapped();
        assert!(remapped > 20, "{remapped} remaps");
        remap.deactivate();
        unload();
        let (main, spare) = (name(&remap.main), name(&remap.spare));
        let check = must(&["check", &spare]);
        assert!(check.contains(&format!("{remapped} remaps")), "{check}");
        let folder = folder("linear");
        let in_folder = |name: &str| folder.join(name).display().to_string();
        for max in ["1048576", "16"] {
            let at = in_folder(max);
            let at = at.as_str();
            let words = ["--main", &main, "--output-dir", at, "--max-lines", max];
            must(&[&["linear-table", &spare], words.as_slice()].concat());
            let _tables = Tables::create(at);
            compare("/dev/mapper/rescued");
        }
        // What is printed is the same as what is written.
        let words = ["linear-table", &spare, "--main", &main];
        let table = must(&words);
        let at = in_folder("1048576");
        // Not over what is there.
        let again = [&words[..], &["--output-dir", &at]].concat();
        assert_eq!(dmremap(&again).status, 16);
        let written = fs::read_to_string(format!("{at}/rescued.table")).expect("read the table");
        assert_eq!(written, table);
        let linear = table.lines().filter(|line| line.contains(&spare)).count();
        assert!(linear > 0, "{table}");
    }
}

#[test]
fn a_formatted_spare_is_activated() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let main = Options::memory(Remap::MAIN_SECTORS * 512).logical_block(block);
        let spare = Options::memory(Remap::SPARE_SECTORS * 512).logical_block(block);
        let uuid = "01234567-89ab-4def-8edc-ba9876543210";
        let arguments = format!("4 uuid {uuid} main_id ours");
        let mut remap = Remap::inactive(main, spare, &arguments);
        let spare = name(&remap.spare);
        // A table line that names a set does not make one.
        assert!(remap.try_activate().is_err());
        let main = name(&remap.main);
        let words = ["--main", &main, "--uuid", uuid, "--main-id", "ours"];
        let words = [&["format", &spare], words.as_slice()].concat();
        assert_eq!(must(&words).trim(), uuid);
        must(&["check", &spare]);
        remap.activate();
        remap.main.disk().spoil(80, 16, Fault::bad(Direction::Both));
        remap.open().write(64, &stamps(64, 64, 1)).unwrap();
        let unit = u64::from(block) / 512;
        assert_eq!(remap.device().remapped(), 16 / unit);
        // Not while it is in use, and not over what is good.
        let ran = dmremap(&words);
        assert_eq!(ran.status, 16, "{ran:?}");
        assert!(ran.err.contains("in use"), "{ran:?}");
        let check = must(&["check", &spare]);
        assert!(check.contains("in use"), "{check}");
        remap.deactivate();
        let ran = dmremap(&[words.as_slice(), &["--force"]].concat());
        assert_eq!(ran.status, 32, "{ran:?}");
        remap.activate();
        assert!(remap.open().read(64, 64).unwrap() == stamps(64, 64, 1));
    }
}

/// A spare whose metadata is damaged in several places, some of which take no more writes.
#[test]
fn a_repaired_spare_is_activated() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    remap.main.disk().spoil(80, 16, Fault::bad(Direction::Both));
    remap.open().write(64, &stamps(64, 64, 1)).unwrap();
    remap.deactivate();
    let spare = name(&remap.spare);
    let dump = must(&["dump", &spare]);
    println!("{dump}");
    let sectors = |copy: &str| -> u64 {
        let line = dump
            .lines()
            .find(|line| line.trim_start().starts_with(copy));
        let rest = line.and_then(|line| line.split("sector ").nth(1));
        let word = rest.and_then(|rest| rest.split([' ', ':']).next());
        word.and_then(|word| word.parse().ok()).expect("a sector")
    };
    let (super0, super2) = (sectors("copy 0"), sectors("copy 2"));
    let (replica0, replica1) = (sectors("replica 0"), sectors("replica 1"));
    {
        let mut disk = remap.spare.disk();
        disk.poke(super0, &[0x55; 4096]).unwrap();
        disk.poke(replica1, &[0; 4096]).unwrap();
        disk.spoil(super2 + 3, 1, Fault::bad(Direction::Both));
        disk.spoil(replica0 + 8, 1, Fault::bad(Direction::Both));
    }
    assert_eq!(dmremap(&["check", &spare]).status, 4);
    let backup = folder("repair").join("backup");
    let backup = backup.to_str().expect("text");
    must(&["repair", &spare, "--backup", backup]);
    let ran = dmremap(&["check", &spare]);
    // The copy that takes no writes is written off, and tried again some time.
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(
        ran.out.contains("superblock copy 2: written off"),
        "{ran:?}"
    );
    assert!(
        ran.out.contains("1 table blocks moved to reserve blocks"),
        "{ran:?}"
    );
    remap.activate();
    assert_eq!(remap.device().remapped(), 16);
    assert!(remap.open().read(64, 64).unwrap() == stamps(64, 64, 1));
    remap.open().write(64, &stamps(64, 64, 2)).unwrap();
    remap.reactivate();
    assert!(remap.open().read(64, 64).unwrap() == stamps(64, 64, 2));
}

/// P5: what a power cut leaves is no damage.
#[test]
fn a_power_cut_does_not_alarm() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let spare = name(&remap.spare);
    let mut dice = Dice::new(5);
    for round in 0..12 {
        let device = remap.open();
        for generation in 0..1 + dice.roll(6) {
            let sector = dice.roll(4096);
            let bad = Fault::bad(Direction::Write);
            remap.main.disk().spoil(sector, 1 + dice.roll(8), bad);
            device
                .write(sector, &stamps(sector, 16, generation))
                .unwrap();
        }
        drop(device);
        remap.power_off();
        remap.power_on(PowerCut::Tear(round));
        let ran = dmremap(&["check", &spare]);
        assert!(ran.status <= 1, "{ran:?}");
        remap.activate();
    }
}

/// Copies a disk to another one, as ddrescue does: what cannot be read stays zero there.
fn copy(from: &SickDisk, to: &SickDisk) {
    // Large parts, and small ones where a large one fails.
    const LARGE: u64 = 2048;
    const SMALL: u64 = 8;
    let end = from.disk().sectors();
    let (from, to) = (Direct::open(&from.path()), Direct::open(&to.path()));
    let copy = |at, sectors| {
        let data = from.read(at, sectors);
        data.map(|data| to.write(at, &data).expect("write the copy"))
    };
    for part in (0..end).step_by(LARGE as usize) {
        let sectors = LARGE.min(end - part);
        if copy(part, sectors).is_err() {
            for at in (part..part + sectors).step_by(SMALL as usize) {
                // What cannot be read stays as it is.
                let _ = copy(at, SMALL.min(part + sectors - at));
            }
        }
    }
}

fn disk(sectors: u64) -> SickDisk {
    SickDisk::start(Options::memory(sectors * 512)).expect("start a disk")
}

/// Main is replaced by a copy of what can be read of it, and then does without the spare.
#[test]
fn a_copy_of_main_takes_over() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 256, 1)).unwrap();
    remap.main.disk().spoil(80, 16, Fault::bad(Direction::Both));
    device.write(64, &stamps(64, 64, 2)).unwrap();
    drop(device);
    remap.deactivate();
    let fresh = disk(Remap::MAIN_SECTORS);
    copy(&remap.main, &fresh);
    remap.main = fresh;
    remap.activate();
    let expected = [stamps(0, 64, 1), stamps(64, 64, 2), stamps(128, 128, 1)].concat();
    assert!(remap.open().read(0, 256).unwrap() == expected);
    // Everything goes home.
    assert_eq!(remap.device().remapped(), 16);
    remap.device().message("clear_all").unwrap();
    assert_eq!(remap.device().remapped(), 0);
    remap.deactivate();
    assert!(Direct::open(&remap.main.path()).read(0, 256).unwrap() == expected);
}

/// A copy of the spare takes its place, and a spare whose metadata is gone gets it back from a dump.
#[test]
fn a_copy_of_the_spare_and_a_dump_take_over() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    remap.main.disk().spoil(80, 16, Fault::bad(Direction::Both));
    remap.open().write(64, &stamps(64, 64, 1)).unwrap();
    remap.deactivate();
    let dump = folder("dump").join("dump.json");
    let dump = dump.to_str().expect("text");
    let spare = name(&remap.spare);
    let words = ["dump", "--json", &spare, "--output", dump];
    must(&words);
    let good = fs::read(dump).expect("read the dump");
    // Larger, as the one that happens to be at hand.
    let fresh = disk(2 * Remap::SPARE_SECTORS);
    copy(&remap.spare, &fresh);
    remap.spare = fresh;
    remap.activate();
    assert!(remap.open().read(64, 64).unwrap() == stamps(64, 64, 1));
    remap.deactivate();
    // All that is in front of the slots and behind them.
    {
        let mut disk = remap.spare.disk();
        disk.poke(0, &vec![0; 744 * 512]).unwrap();
        disk.poke(15640, &vec![0; 744 * 512]).unwrap();
    }
    let spare = name(&remap.spare);
    assert_eq!(dmremap(&["check", &spare]).status, 32);
    // The dump that is needed now is not replaced by nothing.
    assert_eq!(
        dmremap(&["dump", "--json", &spare, "--output", dump]).status,
        32
    );
    assert!(fs::read(dump).expect("read the dump") == good);
    let backup = folder("restore").join("backup");
    let backup = backup.to_str().expect("text");
    must(&["restore", &spare, dump, "--backup", backup]);
    must(&["check", &spare]);
    remap.activate();
    assert_eq!(remap.device().remapped(), 16);
    assert!(remap.open().read(64, 64).unwrap() == stamps(64, 64, 1));
}

/// A set of two spares, made by the tool, used by the module, and read by the tool.
#[test]
fn a_set_of_two_spares() {
    let _test = vmtest::begin!();
    let second = disk(Remap::SPARE_SECTORS);
    let main = Options::memory(Remap::MAIN_SECTORS * 512);
    let spare = Options::memory(Remap::SPARE_SECTORS * 512);
    let uuid = "01234567-89ab-4def-8edc-ba9876543210";
    let arguments = format!("4 spare {} uuid {uuid}", name(&second));
    let mut remap = Remap::inactive(main, spare, &arguments);
    let (main, first, second) = (name(&remap.main), name(&remap.spare), name(&second));
    must(&["format", &first, &second, "--main", &main, "--uuid", uuid]);
    must(&["check", &first, &second]);
    remap.activate();
    remap.main.disk().spoil(80, 16, Fault::bad(Direction::Both));
    remap.open().write(64, &stamps(64, 64, 1)).unwrap();
    remap.deactivate();
    let check = must(&["check", &second, &first]);
    assert!(check.contains("16 remaps"), "{check}");
    let words = ["linear-table", &first, "--main", &main];
    let table = must(&[words.as_slice(), &["--spare", &second]].concat());
    let mapped = folder("set");
    let at = mapped.to_str().expect("text");
    must(&[words.as_slice(), &["--spare", &second, "--output-dir", at]].concat());
    {
        let _tables = Tables::create(at);
        let linear = Direct::open(Path::new("/dev/mapper/rescued"));
        assert!(linear.read(64, 64).unwrap() == stamps(64, 64, 1), "{table}");
    }
    assert_eq!(dmremap(&words).status, 8);
    assert_eq!(dmremap(&["check", &first]).status, 8);
    // The one that has the blocks is gone; what the other knows of it is enough for errors.
    let (there, gone) = match table.contains(&format!("linear {first}")) {
        true => (&second, &first),
        false => (&first, &second),
    };
    let words = ["linear-table", there, "--main", &main, "--degraded"];
    let degraded = must(&words);
    assert!(degraded.contains("80 16 error\n"), "{degraded}");
    assert!(!degraded.contains(gone.as_str()));
}

/// Lines that divide the blocks of one of the devices: the tool refuses what the kernel refuses, and no more. A
/// loop device with small blocks is the way out that it names.
#[test]
fn tables_go_with_the_blocks_of_all_devices() {
    let _test = vmtest::begin!();
    succeed("modprobe loop");
    let mut dice = Dice::new(8);
    // One remap at a whole block of 4096 bytes, the others anywhere.
    for (first, count) in [(1000, 8), (1000, 16), (1001, 1), (1001, 8), (1004, 8)] {
        let mut remap = Remap::new(512);
        remap.open().write(992, &stamps(992, 64, 1)).unwrap();
        let message = format!("remap {first} {count}");
        remap.device().message(&message).unwrap();
        if dice.roll(2) == 0 {
            remap.device().message("remap 5000 8").unwrap();
        }
        remap.deactivate();
        let large = |from: &SickDisk| {
            let options = Options::memory(from.disk().sectors() * 512).logical_block(4096);
            let to = SickDisk::start(options.physical_block(4096)).expect("start a disk");
            copy(from, &to);
            to
        };
        let (main, spare) = (large(&remap.main), large(&remap.spare));
        let small = [name(&remap.main), name(&remap.spare)];
        let large = [name(&main), name(&spare)];
        let table = must(&["linear-table", &small[1], "--main", &small[0]]);
        for (main, spare) in [
            (&small[0], &small[1]),
            (&small[0], &large[1]),
            (&large[0], &small[1]),
            (&large[0], &large[1]),
        ] {
            let mine = table.replace(&small[0], main).replace(&small[1], spare);
            let kernel = Mapped::try_read_only(mine.trim());
            println!("{mine}: {kernel:?}");
            let ran = dmremap(&["linear-table", spare, "--main", main]);
            assert_eq!(
                ran.status == 0,
                kernel.is_ok(),
                "{mine}: {ran:?} {kernel:?}"
            );
            if kernel.is_ok() {
                assert_eq!(ran.out, mine);
                continue;
            }
            assert_eq!((ran.status, ran.out.as_str()), (16, ""), "{ran:?}");
            assert!(ran.err.contains("--sector-size 512"), "{ran:?}");
        }
        // As it says.
        let lines = large.each_ref().map(|disk| {
            let made = succeed(&format!("losetup --find --show --sector-size 512 {disk}"));
            made.trim().to_string()
        });
        let table = must(&["linear-table", &lines[1], "--main", &lines[0]]);
        let linear = Mapped::try_read_only(table.trim()).expect("a table");
        let found = read_only(&linear.path(), 992, 64).unwrap();
        assert!(found == stamps(992, 64, 1), "{table}");
        linear.remove();
        for device in lines {
            succeed(&format!("losetup --detach {device}"));
        }
    }
}

/// A main with smaller blocks than before: the table is as good.
#[test]
fn a_main_with_smaller_blocks_is_reached() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(4096);
    remap.open().write(992, &stamps(992, 64, 1)).unwrap();
    remap.device().message("remap 1000 8").unwrap();
    remap.deactivate();
    let main = disk(Remap::MAIN_SECTORS);
    copy(&remap.main, &main);
    let (main, spare) = (name(&main), name(&remap.spare));
    let ran = dmremap(&["linear-table", &spare, "--main", &main]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.err.contains("main had 4096"), "{ran:?}");
    let linear = Mapped::try_read_only(ran.out.trim()).expect("a table");
    let found = read_only(&linear.path(), 992, 64).unwrap();
    assert!(found == stamps(992, 64, 1));
}

/// From another directory, by names that udev makes.
#[test]
fn a_table_finds_its_devices() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    remap.open().write(64, &stamps(64, 64, 1)).unwrap();
    remap.device().message("remap 80 8").unwrap();
    remap.deactivate();
    let folder = folder("names");
    let link = |name: &str, disk: &SickDisk| {
        let at = folder.join(name);
        std::os::unix::fs::symlink(disk.path(), &at).expect("make a link");
        at.display().to_string()
    };
    let main = link("My-disk", &remap.main);
    let spare = link("spare", &remap.spare);
    let at = folder.join("tables").display().to_string();
    must(&["linear-table", &spare, "--main", &main, "--output-dir", &at]);
    let _tables = Tables::create(&at);
    let linear = Direct::open(Path::new("/dev/mapper/rescued"));
    assert!(linear.read(64, 64).unwrap() == stamps(64, 64, 1));
}

/// What a disk cannot read is told as that, and not as something of value.
#[test]
fn unreadable_is_not_blank() {
    let _test = vmtest::begin!();
    let spare = disk(Remap::SPARE_SECTORS);
    spare.disk().spoil(5000, 1, Fault::bad(Direction::Both));
    let name = name(&spare);
    let words = [
        "format",
        &name,
        "--main-sectors",
        "8192",
        "--main-block",
        "512",
    ];
    let ran = dmremap(&words);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(ran.err.contains("cannot all be read"), "{ran:?}");
    must(&[&words[..], &["--force"]].concat());
    must(&["check", &name]);
}

/// One disk by several names: a node, a partition, a loop device, a device of device mapper.
#[test]
fn what_shares_sectors_makes_no_set() {
    let _test = vmtest::begin!();
    succeed("modprobe loop");
    let (a, b) = (disk(65536), disk(65536));
    let (whole, other) = (name(&a), name(&b));
    let node = folder("nodes").join("again").display().to_string();
    succeed(&format!("cp -a {whole} {node}"));
    let part = Partition::new(&a.path(), 2048, 16384);
    let part = part.path().display().to_string();
    let mapped = Mapped::new(&format!("0 16384 linear {whole} 32768"));
    let mapped = mapped.path().display().to_string();
    let refused = |spares: &[&str], more: &[&str]| {
        let main = ["--main-sectors", "100000", "--main-block", "512"];
        let main = if more.is_empty() { &main[..] } else { more };
        let ran = dmremap(&[&["format"], spares, main].concat());
        assert_eq!(ran.status, 16, "{ran:?}");
        let told = |text: &str| ran.err.contains(text);
        assert!(told("same device") || told("in common"), "{ran:?}");
        // Nothing of it was written.
        assert_eq!(dmremap(&["check", &other]).status, 32);
    };
    for twin in [&node, &part, &mapped] {
        refused(&[&whole, twin], &[]);
        refused(&[twin, &other, &whole], &[]);
        refused(&[&other, &whole], &["--main", twin]);
        refused(&[&other, twin], &["--main", &whole]);
        let ran = dmremap(&["check", &whole, twin]);
        assert_eq!(ran.status, 16, "{ran:?}");
    }
    // A part of the disk that the partition is not in.
    let ran = dmremap(&[
        "check",
        &part,
        &whole,
        "--spare-start",
        "0",
        "--spare-start",
        "18432",
    ]);
    assert_eq!(ran.status, 32, "{ran:?}");
    let ran = dmremap(&[
        "check",
        &part,
        &whole,
        "--spare-start",
        "0",
        "--spare-start",
        "18431",
    ]);
    assert_eq!(ran.status, 16, "{ran:?}");
    // A file, and a loop device on a part of it.
    let image = folder("image").join("image").display().to_string();
    succeed(&format!("truncate --size 8M {image}"));
    let loops = succeed(&format!("losetup --find --show --offset 4194304 {image}"));
    let ran = dmremap(&["check", &image, loops.trim()]);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("in common"), "{ran:?}");
    let ran = dmremap(&["check", &image, loops.trim(), "--spare-len", "8192"]);
    assert_eq!(ran.status, 32, "{ran:?}");
    succeed(&format!("losetup --detach {}", loops.trim()));
}
