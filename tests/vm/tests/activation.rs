// SPDX-License-Identifier: GPL-2.0
//! Making a device: table lines, formatting, and everything that is refused.
//!
//! Also on the oldest kernel.

use std::fs::OpenOptions;
use std::os::unix::fs::symlink;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use vmtest::guest::device_number;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Remap;

const MAIN: u64 = Remap::MAIN_SECTORS;
const SPARE: u64 = Remap::SPARE_SECTORS;

/// `O_EXCL`, which claims a block device.
const O_EXCL: i32 = 0o200;

fn disks() -> Remap {
    Remap::inactive(
        Options::memory(MAIN * 512),
        Options::memory(SPARE * 512),
        "",
    )
}

/// Words of a table line, with M and S for the two disks.
fn line(remap: &Remap, words: &str) -> String {
    let main = remap.main.path().display().to_string();
    let spare = remap.spare.path().display().to_string();
    words
        .split(' ')
        .map(|word| match word {
            "M" => main.as_str(),
            "S" => spare.as_str(),
            word => word,
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// A table line with the disks as device mapper prints them.
fn by_number(remap: &Remap, line: &str) -> String {
    let mut line = line.to_string();
    for disk in [&remap.main, &remap.spare] {
        let path = disk.path();
        let number = device_number(&path).expect("a disk");
        line = line.replace(&path.display().to_string(), &number);
    }
    line
}

/// P9: every form of a table line works, and prints back to what was loaded.
#[test]
fn table_lines_work_and_print_back() {
    let _test = vmtest::begin!();
    for words in [
        "0 131072 dm-remap M S",
        "0 131072 dm-remap M S 0",
        "0 131072 remap M S 0 16384",
        "0 131072 remap M S 2048 8192",
        "0 1000 dm-remap M S",
        "0 131072 dm-remap M S 2 auto_remap off",
        "0 131072 dm-remap M S 2 auto_remap on",
        "0 131072 dm-remap M S 4 spare_start 2048 spare_len 4096",
        "0 131072 dm-remap M S 8 low_water 20 error_threshold 50 read_retries 3 main_id disk-1",
    ] {
        let remap = disks();
        let device = Mapped::new(&line(&remap, words));
        let table = device.table();
        let expected = by_number(&remap, &line(&remap, words));
        // A count of no arguments may be left out.
        let expected = match words.ends_with("S 0") && !table.ends_with(" 0") {
            true => expected.trim_end_matches(" 0"),
            false => &expected,
        };
        assert_eq!(by_number(&remap, &table), expected, "{words}");
        // And what is printed can be loaded.
        device.load(&table).unwrap();
        device.resume().unwrap();
        assert_eq!(device.table(), table);
        let opened = Direct::open(&device.path());
        opened.write(0, &stamps(0, 8, 1)).unwrap();
        assert!(opened.read(0, 8).unwrap() == stamps(0, 8, 1));
    }
}

/// M10: `format` is for once; a table that is loaded again must not format again.
#[test]
fn format_is_not_printed_back() {
    let _test = vmtest::begin!();
    let remap = disks();
    remap.spare.disk().poke(0, &stamps(0, 64, 1)).unwrap();
    let device = Mapped::new(&line(&remap, "0 131072 dm-remap M S 1 format"));
    assert!(!device.table().contains("format"), "{}", device.table());
}

/// Everything stays inside the part of the spare that the line names.
#[test]
fn a_window_is_kept() {
    let _test = vmtest::begin!();
    let remap = disks();
    let around = stamps(0, SPARE, 9);
    remap.spare.disk().poke(0, &around).unwrap();
    remap.spare.disk().poke(2048, &vec![0; 4096 * 512]).unwrap();
    let device = Mapped::new(&line(&remap, "0 131072 remap M S 2048 4096"));
    remap.main.disk().spoil(0, 64, Fault::bad(Direction::Both));
    Direct::open(&device.path())
        .write(0, &stamps(0, 64, 1))
        .unwrap();
    assert_eq!(device.remapped(), 64);
    device.remove();
    let mut content = vec![0; around.len()];
    remap.spare.disk().peek(0, &mut content).unwrap();
    let (window, end) = (2048 * 512, (2048 + 4096) * 512);
    assert!(
        content[..window] == around[..window],
        "in front of the window"
    );
    assert!(content[end..] == around[end..], "behind the window");
}

/// "Bad input": each line is refused with its own errno and words, and writes nothing.
#[test]
fn bad_lines_are_refused() {
    let _test = vmtest::begin!();
    let remap = disks();
    remap.record();
    let mut wrong = Vec::new();
    let invalid = "Invalid argument";
    let range = "Numerical result out of range";
    for (words, error, reason) in [
        // Wrong counts.
        ("0 131072 dm-remap", invalid, "Two devices"),
        ("0 131072 dm-remap M", invalid, "Two devices"),
        ("0 131072 remap M S", invalid, "Four arguments"),
        ("0 131072 remap M S 0", invalid, "Four arguments"),
        (
            "0 131072 remap M S 0 16384 1",
            invalid,
            "main_start, the second",
        ),
        ("0 131072 remap M 0 S 0 16384 1", invalid, "Four arguments"),
        ("0 131072 dm-remap M S 1", invalid, "does not match"),
        ("0 131072 dm-remap M S 0 format", invalid, "does not match"),
        (
            "0 131072 dm-remap M S 1 format format",
            invalid,
            "does not match",
        ),
        (
            "0 131072 dm-remap M S 99",
            "Argument list too long",
            "too large",
        ),
        (
            "0 131072 dm-remap M S 1 auto_remap",
            invalid,
            "lacks its value",
        ),
        // Unknown arguments.
        (
            "0 131072 dm-remap M S 1 frob",
            "Operation not supported",
            "Unknown",
        ),
        (
            "0 131072 dm-remap M S 2 auto_remap maybe",
            invalid,
            "neither on nor off",
        ),
        (
            "0 131072 dm-remap M S 2 format format",
            "File exists",
            "twice",
        ),
        // Non-numbers.
        ("0 131072 dm-remap M S x", invalid, "not a decimal number"),
        ("0 131072 dm-remap M S -1", invalid, "not a decimal number"),
        ("0 131072 remap M S x 16384", invalid, "spare_start is not"),
        ("0 131072 remap M S 0 x", invalid, "spare_len is not"),
        (
            "0 131072 remap M S 0x10 16384",
            invalid,
            "spare_start is not",
        ),
        (
            "0 131072 dm-remap M S 2 low_water ten",
            invalid,
            "low_water is not",
        ),
        ("0 131072 dm-remap M S 2 uuid 1234", invalid, "uuid"),
        // Numbers that overflow.
        (
            "0 131072 remap M S 18446744073709551616 16384",
            range,
            "spare_start is too large",
        ),
        (
            "0 131072 remap M S 0 99999999999999999999999",
            range,
            "spare_len is too large",
        ),
        (
            "0 131072 remap M S 18446744073709551615 1",
            range,
            "too large",
        ),
        (
            "0 131072 dm-remap M S 2 read_retries 101",
            range,
            "read_retries",
        ),
        ("0 131072 dm-remap M S 2 low_water 101", range, "low_water"),
        // Beyond the devices.
        ("0 131072 remap M S 16384 2048", "", ""),
        ("0 131072 remap M S 8192 16384", "", ""),
        ("0 131072 remap M S 0 0", invalid, "spare_len is 0"),
        ("0 131080 dm-remap M S", "", ""),
        // Main and spare.
        (
            "0 131072 dm-remap M M",
            "Device or resource busy",
            "same device",
        ),
        ("0 131072 dm-remap M /dev/nonexistent", "No such", ""),
        ("0 131072 dm-remap /dev/nonexistent S", "No such", ""),
        (
            "0 131072 remap M S 0 8",
            "No space left on device",
            "too small",
        ),
        // Another spare than the one that is there.
        (
            "0 131072 dm-remap M S 2 uuid 01234567-89ab-4def-8edc-ba9876543210",
            "",
            "",
        ),
    ] {
        match Mapped::try_new(&line(&remap, words)) {
            Err(refusal) => {
                let as_expected = refusal.error.contains(error)
                    && refusal.reason.contains(reason)
                    && !refusal.reason.is_empty();
                if !as_expected {
                    wrong.push(format!("`{words}`: {refusal:?}, not {error}: {reason}"));
                }
            }
            Ok(_) => wrong.push(format!("`{words}` was accepted")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(remap.main.disk().record().writes, 0);
    assert_eq!(remap.spare.disk().record().writes, 0);
    assert!(!succeed("dmsetup ls").contains("test"));
    // And the disks are free.
    for disk in [&remap.main, &remap.spare] {
        claim(&disk.path());
    }
}

/// Claims a block device as a filesystem would, until dropped.
fn claim(path: &Path) -> std::fs::File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_EXCL)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn main_by_another_name_is_not_a_spare() {
    let _test = vmtest::begin!();
    let remap = disks();
    let name = "/tmp/main-by-another-name";
    let _ = std::fs::remove_file(name);
    symlink(remap.main.path(), name).unwrap();
    let words = format!("0 131072 dm-remap M {name}");
    let refusal = Mapped::try_new(&line(&remap, &words)).unwrap_err();
    assert_eq!(refusal.error, "Device or resource busy", "{refusal:?}");
}

#[test]
fn a_spare_in_use_is_refused() {
    let _test = vmtest::begin!();
    let mut remap = disks();
    remap.record();
    {
        let _claim = claim(&remap.spare.path());
        let refusal = remap.try_activate().unwrap_err();
        assert_eq!(refusal.error, "Device or resource busy", "{refusal:?}");
        assert!(!refusal.reason.is_empty());
    }
    assert_eq!(remap.spare.disk().record().writes, 0);
    remap.activate();
}

/// P9: one part of a spare serves one device; disjoint parts serve several.
#[test]
fn windows_must_not_overlap() {
    let _test = vmtest::begin!();
    let remap = disks();
    let other = SickDisk::start(Options::memory(MAIN * 512)).unwrap();
    let first = Mapped::new(&line(&remap, "0 131072 remap M S 0 8192"));
    let words = |start: u64| {
        let words = format!("0 131072 remap O S {start} 8192");
        line(&remap, &words).replace(" O ", &format!(" {} ", other.path().display()))
    };
    for start in [0, 4096, 8184] {
        let refusal = Mapped::try_new(&words(start)).unwrap_err();
        assert_eq!(refusal.error, "Device or resource busy", "{refusal:?}");
    }
    let second = Mapped::new(&words(8192));
    for (disk, device) in [(&remap.main, &first), (&other, &second)] {
        disk.disk().spoil(8, 8, Fault::bad(Direction::Both));
        Direct::open(&device.path())
            .write(8, &stamps(8, 8, 1))
            .unwrap();
        assert_eq!(device.remapped(), 8);
    }
}

/// M10: what is not blank and not ours is somebody's data.
#[test]
fn a_foreign_spare_is_refused() {
    let _test = vmtest::begin!();
    let ext4 = |remap: &Remap| {
        succeed(&format!("mkfs.ext4 -q -F {}", remap.spare.path().display()));
    };
    let swap = |remap: &Remap| {
        succeed(&format!("mkswap -q {}", remap.spare.path().display()));
    };
    // The magic of md's oldest metadata, near the end.
    let md = |remap: &Remap| {
        let magic = 0xa92b_4efc_u32.to_le_bytes();
        let mut block = vec![0; 4096];
        block[..4].copy_from_slice(&magic);
        remap.spare.disk().poke(SPARE - 128, &block).unwrap();
    };
    type Make<'a> = &'a dyn Fn(&Remap);
    let kinds: [(&str, Make<'_>); 3] = [("ext4", &ext4), ("swap", &swap), ("md", &md)];
    for (kind, make) in kinds {
        let mut remap = disks();
        make(&remap);
        let mut before = vec![0; (SPARE * 512) as usize];
        remap.spare.disk().peek(0, &mut before).unwrap();
        remap.record();
        let refusal = remap.try_activate().unwrap_err();
        assert_eq!(refusal.error, "Wrong medium type", "{kind}: {refusal:?}");
        assert!(!refusal.reason.is_empty());
        assert_eq!(remap.spare.disk().record().writes, 0, "{kind}");
        let mut after = vec![0; before.len()];
        remap.spare.disk().peek(0, &mut after).unwrap();
        assert!(before == after, "{kind}");
    }
}

/// M10: unreadable is not zero.
#[test]
fn an_unreadable_spare_is_not_blank() {
    let _test = vmtest::begin!();
    for sector in [0, SPARE - 8] {
        let mut remap = disks();
        remap
            .spare
            .disk()
            .spoil(sector, 8, Fault::bad(Direction::Read));
        assert!(remap.try_activate().is_err(), "sector {sector}");
        assert_eq!(remap.spare.disk().record().writes, 0);
    }
}

#[test]
fn the_spare_of_another_main_is_refused() {
    let _test = vmtest::begin!();
    let remap = disks();
    let with = |id: &str| line(&remap, &format!("0 131072 dm-remap M S 2 main_id {id}"));
    Mapped::new(&with("disk-1")).remove();
    remap.record();
    let refusal = Mapped::try_new(&with("disk-2")).unwrap_err();
    assert_eq!(refusal.error, "No such device", "{refusal:?}");
    assert!(refusal.reason.contains("main"), "{refusal:?}");
    assert_eq!(remap.spare.disk().record().writes, 0);
    Mapped::new(&with("disk-1")).remove();
}

/// D3: main's blocks must fit the spare's.
#[test]
fn a_spare_with_larger_blocks_is_refused() {
    let _test = vmtest::begin!();
    let mut remap = Remap::inactive(
        Options::memory(MAIN * 512),
        Options::memory(SPARE * 512).logical_block(4096),
        "",
    );
    let refusal = remap.try_activate().unwrap_err();
    assert!(refusal.reason.contains("block"), "{refusal:?}");
    assert_eq!(remap.spare.disk().record().writes, 0);
}

/// P9: a table that may write needs devices that take writes.
#[test]
fn read_only_devices_are_refused() {
    let _test = vmtest::begin!();
    let disk = |sectors: u64| Options::memory(sectors * 512);
    for (main, spare, says) in [
        (
            disk(MAIN),
            disk(SPARE).read_only(),
            "Spare device is read-only",
        ),
        (
            disk(MAIN).read_only(),
            disk(SPARE),
            "Main device is read-only",
        ),
    ] {
        let mut remap = Remap::inactive(main, spare, "");
        let refusal = remap.try_activate().unwrap_err();
        assert!(refusal.reason.contains(says), "{refusal:?}");
        assert_eq!(refusal.error, "Read-only file system", "{refusal:?}");
    }
}

/// P5: metadata that is damaged in all copies is refused, with the fault named, and left alone.
#[test]
fn damaged_metadata_is_refused() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    remap.device().message("remap 100").unwrap();
    remap.deactivate();
    let mut content = vec![0; (SPARE * 512) as usize];
    remap.spare.disk().peek(0, &mut content).unwrap();
    let copies: Vec<u64> = (0..SPARE)
        .step_by(8)
        .filter(|sector| content[(sector * 512) as usize..].starts_with(b"DM-REMAP"))
        .collect();
    assert!(copies.len() >= 2, "superblocks at {copies:?}");
    // One bit of each.
    for &sector in &copies {
        let at = (sector * 512) as usize + 150;
        let mut block = content[(sector * 512) as usize..][..512].to_vec();
        block[150] = content[at] ^ 1;
        remap.spare.disk().poke(sector, &block).unwrap();
    }
    remap.record();
    let refusal = remap.try_activate().unwrap_err();
    assert_eq!(refusal.error, "Bad message", "{refusal:?}");
    assert!(refusal.reason.contains("superblock"), "{refusal:?}");
    assert_eq!(remap.spare.disk().record().writes, 0);
    // One good copy is enough, and makes the others good again.
    let first = (copies[0] * 512) as usize;
    remap
        .spare
        .disk()
        .poke(copies[0], &content[first..first + 512])
        .unwrap();
    remap.activate();
    assert_eq!(remap.device().remapped(), 1);
}
