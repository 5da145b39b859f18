// SPDX-License-Identifier: GPL-2.0
//! Which spare belongs to what: the wrong main, copies of a spare, several users of one spare, and
//! formats of other versions. Who has mixed up disks is told what is on them, and nothing is lost.

use vmtest::guest::forge_superblocks;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::superblocks;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Refusal;
use vmtest::guest::Remap;

const MAIN: u64 = Remap::MAIN_SECTORS;
const SPARE: u64 = Remap::SPARE_SECTORS;

const BUSY: &str = "Device or resource busy";

/// Where the features stand in a superblock: to be ignored, to be ignored for reading, and not to be
/// ignored.
const COMPAT: usize = 16;
const RO_COMPAT: usize = 24;
const INCOMPAT: usize = 32;

fn bad() -> Fault {
    Fault::bad(Direction::Both)
}

fn disk(sectors: u64) -> SickDisk {
    SickDisk::start(Options::memory(sectors * 512)).expect("start a disk")
}

fn content(disk: &SickDisk) -> Vec<u8> {
    let mut content = vec![0; (disk.disk().sectors() * 512) as usize];
    disk.disk().peek(0, &mut content).expect("read a disk");
    content
}

fn line(main: &SickDisk, spare: &SickDisk, arguments: &str) -> String {
    let sectors = main.disk().sectors();
    let (main, spare) = (main.path(), spare.path());
    format!(
        "0 {sectors} dm-remap {} {} {arguments}",
        main.display(),
        spare.display()
    )
}

/// The UUID of the spare of a device.
fn uuid(device: &Mapped) -> String {
    let told = device.message("metadata_status").unwrap();
    let mut words = told.split_whitespace();
    words
        .find_map(|word| word.strip_prefix("set_uuid="))
        .unwrap()
        .to_string()
}

#[track_caller]
fn refused(table: &str, error: &str, says: &[&str]) -> Refusal {
    let refusal = Mapped::try_new(table).expect_err(table);
    assert_eq!(refusal.error, error, "{table}: {refusal:?}");
    for text in says {
        assert!(
            refusal.reason.contains(text),
            "{table}: {refusal:?}: {text}"
        );
    }
    refusal
}

/// P5: the spare of another main is refused, and both sides are named; nothing is written. Main itself,
/// larger or under its name, is welcome.
#[test]
fn the_wrong_main_is_told_both_sides() {
    let _test = vmtest::begin!();
    let mut remap = Remap::with(512, "2 main_id disk-1");
    remap.device().message("remap 100 8").unwrap();
    let found = uuid(remap.device());
    remap.deactivate();
    let (small, large) = (disk(MAIN / 2), disk(MAIN * 2));
    let spare = &remap.spare;
    let before = content(spare);
    let nobody = "01234567-89ab-4def-8edc-ba9876543210";
    let wrong = "No such device";
    refused(
        &line(&remap.main, spare, "2 main_id disk-2"),
        wrong,
        &["another main_id", "disk-1", "disk-2"],
    );
    refused(
        &line(&small, spare, ""),
        wrong,
        &["larger main", "131072 sectors", "65536"],
    );
    refused(
        &line(&remap.main, spare, &format!("2 uuid {nobody}")),
        wrong,
        &["uuid argument", &found, nobody],
    );
    let path = spare.path();
    refused(
        &format!(
            "0 {MAIN} remap {} {} 0 8192",
            remap.main.path().display(),
            path.display()
        ),
        "No space left on device",
        &["smaller than it was", "16384 sectors", "8192"],
    );
    let blocks = Options::memory(MAIN * 512).logical_block(4096);
    let blocks = SickDisk::start(blocks).unwrap();
    refused(
        &line(&blocks, spare, ""),
        "Operation not supported",
        &["other logical blocks", "512 bytes", "4096"],
    );
    assert!(content(spare) == before, "the spare was written to");
    Mapped::new(&line(&remap.main, spare, "")).remove();
    Mapped::new(&line(
        &remap.main,
        spare,
        &format!("4 main_id disk-1 uuid {found}"),
    ))
    .remove();
    let device = Mapped::new(&line(&large, spare, "2 main_id disk-1"));
    assert_eq!(device.remapped(), 8);
}

/// P2, D1: a copy of a spare that is in use is known by its UUID, whoever wants it and however; it is left
/// alone, and the spare goes on. Once that is out of use, the copy is as good as it was.
#[test]
fn a_copy_of_a_spare_in_use_is_refused() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    remap.main.disk().spoil(100, 8, bad());
    remap.open().write(96, &stamps(96, 16, 1)).unwrap();
    let id = uuid(remap.device());
    let (copy, other) = (disk(SPARE), disk(MAIN));
    copy.disk().poke(0, &content(&remap.spare)).unwrap();
    let before = content(&copy);
    let says = ["Spare is a copy of one that is in use", id.as_str()];
    for arguments in ["", &format!("2 uuid {id}")] {
        refused(&line(&other, &copy, arguments), BUSY, &says);
    }
    // Not even for reading, nor for the same device: what is on it is old already.
    let refusal = Mapped::try_read_only(&line(&other, &copy, "")).unwrap_err();
    assert!(refusal.reason.contains(says[0]), "{refusal:?}");
    let refusal = remap
        .device()
        .load(&line(&remap.main, &copy, ""))
        .unwrap_err();
    assert!(refusal.reason.contains(says[0]), "{refusal:?}");
    assert_eq!(remap.device().loaded_table(), "");
    assert!(content(&copy) == before, "the copy was written to");
    assert_eq!(other.disk().record().writes, 0);

    remap.main.disk().spoil(200, 8, bad());
    remap.open().write(200, &stamps(200, 8, 1)).unwrap();
    assert_eq!(remap.device().remapped(), 16);
    remap.deactivate();
    let device = Mapped::new(&line(&remap.main, &copy, ""));
    assert_eq!(device.remapped(), 8);
    let opened = Direct::open(&device.path());
    assert!(opened.read(96, 16).unwrap() == stamps(96, 16, 1));
    // Now that one is the copy.
    refused(&line(&other, &remap.spare, ""), BUSY, &says);
}

/// P2, D1: a second way to a spare that is in use, over a volume on the same disk, is no second spare.
#[test]
fn another_way_to_a_spare_in_use_is_refused() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let id = uuid(remap.device());
    let volume = Mapped::new(&format!(
        "0 {SPARE} linear {} 0",
        remap.spare.path().display()
    ));
    let other = disk(MAIN);
    let table = format!(
        "0 {MAIN} dm-remap {} {}",
        other.path().display(),
        volume.path().display()
    );
    refused(&table, BUSY, &["copy of one that is in use", &id]);
    // Of the two targets of one table, neither.
    let half = MAIN / 2;
    let (main, spare) = (remap.main.path(), remap.spare.path());
    let twice = format!(
        "0 {half} dm-remap {} {}\n{half} {half} dm-remap {} {}",
        main.display(),
        spare.display(),
        other.path().display(),
        volume.path().display()
    );
    let refusal = remap.device().load(&twice).unwrap_err();
    assert_eq!(refusal.error, BUSY, "{refusal:?}");
    remap.device().message("remap 100").unwrap();
    assert_eq!(remap.device().remapped(), 1);
    volume.remove();
}

/// D1: each part of a spare serves one target. The same part and overlapping ones are refused, to another
/// device and within one table; disjoint parts are not, in both forms of a table line.
#[test]
fn one_part_of_a_spare_serves_one_target() {
    let _test = vmtest::begin!();
    vmtest::guest::load();
    let (main, other, third) = (disk(MAIN), disk(MAIN), disk(MAIN));
    let spare = disk(SPARE);
    let [m, o, t] = [&main, &other, &third].map(|disk| disk.path().display().to_string());
    let s = spare.path();
    let s = s.display();
    let short =
        |main: &str, start: u64, length: u64| format!("0 65536 remap {main} {s} {start} {length}");
    let long = |main: &str, start: u64, length: u64| {
        format!("0 65536 dm-remap {main} {s} 4 spare_start {start} spare_len {length}")
    };
    type Form<'a> = &'a dyn Fn(&str, u64, u64) -> String;
    let forms: [(Form<'_>, Form<'_>); 2] = [(&short, &long), (&long, &short)];
    let says = ["Spare, or a part of it, is used by another device"];
    for (mine, its) in forms {
        let first = Mapped::new(&mine(&m, 4096, 4096));
        for form in [mine, its] {
            for (start, length) in [
                (4096, 4096),
                (0, 4104),
                (8184, 4096),
                (5120, 2048),
                (0, SPARE),
            ] {
                refused(&form(&o, start, length), BUSY, &says);
            }
        }
        refused(&format!("0 65536 dm-remap {o} {s}"), BUSY, &says);
        // Up to its border on either side.
        let before = Mapped::new(&its(&o, 0, 4096));
        let behind = Mapped::new(&its(&t, 8192, 8192));
        for device in [&first, &before, &behind] {
            device.message("remap 100 64").unwrap();
            assert_eq!(device.remapped(), 64);
        }
        behind.remove();
        before.remove();
        first.remove();
        let zeroes = vec![0; (SPARE * 512) as usize];
        spare.disk().poke(0, &zeroes).unwrap();
    }
    let second = |line: &str| line.replacen("0 65536", "65536 65536", 1);
    for (start, length) in [(0, 8192), (8184, 8192), (4096, 2048)] {
        let line = second(&long(&o, start, length));
        refused(&format!("{}\n{line}", short(&m, 0, 8192)), BUSY, &says);
    }
    let line = second(&long(&o, 8192, 8192));
    let table = format!("{}\n{line}", short(&m, 0, 8192));
    let device = Mapped::new(&table);
    main.disk().spoil(65528, 8, bad());
    other.disk().spoil(0, 8, bad());
    let opened = Direct::open(&device.path());
    opened.write(65520, &stamps(65520, 32, 1)).unwrap();
    for _ in 0..2 {
        // Each half finds its own state again.
        device.load(&table).unwrap();
        device.resume().unwrap();
        assert!(opened.read(65520, 32).unwrap() == stamps(65520, 32, 1));
        assert_eq!(device.status().matches("v3.0 8/").count(), 2);
    }
}

/// A device with remaps, taken out of use.
fn used() -> Remap {
    let mut remap = Remap::new(512);
    remap.main.disk().spoil(100, 4, bad());
    remap.open().write(96, &stamps(96, 16, 1)).unwrap();
    remap.deactivate();
    remap
}

/// P5: a feature that may be ignored is ignored, and is still there when the superblock was written.
#[test]
fn a_compatible_feature_is_ignored_and_kept() {
    let _test = vmtest::begin!();
    let mut remap = used();
    forge_superblocks(&remap.spare, COMPAT, &0x8001_u64.to_le_bytes());
    remap.activate();
    let device = remap.open();
    assert!(device.read(96, 16).unwrap() == stamps(96, 16, 1));
    remap.device().message("remap 1000 8").unwrap();
    remap.device().message("save").unwrap();
    drop(device);
    remap.reactivate();
    assert_eq!(remap.device().remapped(), 12);
    let copies = superblocks(&remap.spare);
    assert_eq!(copies.len(), 4);
    for sector in copies {
        let mut image = [0; 512];
        remap.spare.disk().peek(sector, &mut image).unwrap();
        assert_eq!(image[COMPAT..COMPAT + 8], 0x8001_u64.to_le_bytes());
    }
}

/// P5, P9: a feature that may be ignored for reading is no obstacle to a read-only table, which serves what
/// is there and writes nothing; and forbids another one.
#[test]
fn a_feature_for_reading_only_loads_read_only() {
    let _test = vmtest::begin!();
    let mut remap = used();
    forge_superblocks(&remap.spare, RO_COMPAT, &0x4000_u64.to_le_bytes());
    let before = content(&remap.spare);
    let refusal = remap.try_activate().unwrap_err();
    assert_eq!(refusal.error, "Read-only file system", "{refusal:?}");
    assert!(refusal.reason.contains("features"), "{refusal:?}");
    {
        let device = Mapped::try_read_only(&remap.line()).unwrap();
        let read = vmtest::guest::read_only(&device.path(), 96, 16).unwrap();
        assert!(read == stamps(96, 16, 1));
        // Nor does it become a table that writes.
        let refusal = device.load(&remap.line()).unwrap_err();
        assert!(refusal.reason.contains("can only read"), "{refusal:?}");
    }
    assert!(content(&remap.spare) == before, "the spare was written to");
}

/// P5: what a later version wrote, or with features that must be known, is refused with what was found,
/// and is not overwritten, not even by `format`, nor read.
#[test]
fn what_is_not_understood_is_left_alone() {
    let _test = vmtest::begin!();
    for (at, bytes, says) in [
        (
            INCOMPAT,
            &0x10_0040_u64.to_le_bytes()[..],
            "uses features 0x100040",
        ),
        (
            12,
            &2_u32.to_le_bytes()[..],
            "format 2 is newer than this module's 1",
        ),
        (
            12,
            &u32::MAX.to_le_bytes()[..],
            "format 4294967295 is newer",
        ),
    ] {
        let remap = used();
        forge_superblocks(&remap.spare, at, bytes);
        let before = content(&remap.spare);
        for arguments in ["", "1 format"] {
            let table = line(&remap.main, &remap.spare, arguments);
            refused(&table, "Operation not supported", &[says]);
        }
        let refusal = Mapped::try_read_only(&remap.line()).unwrap_err();
        assert!(refusal.reason.contains(says), "{refusal:?}");
        assert!(content(&remap.spare) == before, "{says}: written to");
    }
}

/// P5: one copy from a later version is enough. Others may be what it left behind.
#[test]
fn one_newer_copy_is_enough() {
    let _test = vmtest::begin!();
    let remap = used();
    let old = content(&remap.spare);
    forge_superblocks(&remap.spare, INCOMPAT, &0x40_u64.to_le_bytes());
    let new = content(&remap.spare);
    for keep in superblocks(&remap.spare) {
        remap.spare.disk().poke(0, &old).unwrap();
        let (start, end) = ((keep * 512) as usize, (keep * 512 + 4096) as usize);
        remap.spare.disk().poke(keep, &new[start..end]).unwrap();
        let before = content(&remap.spare);
        refused(
            &remap.line(),
            "Operation not supported",
            &["uses features 0x40 "],
        );
        assert!(content(&remap.spare) == before, "copy at {keep}");
    }
}
