// SPDX-License-Identifier: GPL-2.0
//! P1, P2, P8: fio writes blocks of random sizes all over each other, at depth, and reads back what
//! it wrote, while sectors of main go bad all the time. No mismatch, and no error.
//!
//! Sectors go bad for writes, or are weak for reads. One that cannot be read any more would lose
//! what was written to it before, and an error would be the truth.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::Dice;
use vmtest::guest::Ran;
use vmtest::guest::Remap;

/// Size of main in MiB; each of the four jobs has a quarter.
const MAIN_MIB: u64 = 16;

/// The most sectors that are bad at a time.
const BAD: usize = 3000;

fn device(block: u32) -> Remap {
    let disk = |mib: u64| Options::memory(mib << 20).logical_block(block);
    Remap::on(disk(MAIN_MIB), disk(MAIN_MIB + 4), "")
}

/// Runs fio with these options; in all of them, each job knows what it wrote where, and blocks of
/// one job that overlap are written one after the other.
fn fio(remap: &Remap, options: &str) -> Ran {
    run(&format!(
        "fio --filename={} --direct=1 --rw=randwrite --norandommap --serialize_overlap=1 \
         --verify=crc32c --verify_fatal=1 --verify_state_save=0 --size={}m --offset_increment={}m \
         --group_reporting --output-format=json {options}",
        remap.path().display(),
        MAIN_MIB / 4,
        MAIN_MIB / 4,
    ))
}

/// A number of fio's report: the first behind this key, behind that one.
fn number(report: &str, section: &str, key: &str) -> u64 {
    let find = || {
        let (_, rest) = report.split_once(&format!("\"{section}\" : {{"))?;
        let (_, rest) = rest.split_once(&format!("\"{key}\" : "))?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    find().unwrap_or_else(|| panic!("no {section}/{key} in {report}"))
}

/// Spoils sectors until told to stop.
fn spoil(remap: &Remap, block: u64, stop: &AtomicBool) {
    let mut dice = Dice::new(block);
    let blocks = MAIN_MIB * 2048 / block;
    while !stop.load(Ordering::Relaxed) {
        let sector = dice.roll(blocks - 8) * block;
        let (sectors, fault) = match dice.roll(8) {
            0..=3 => ((1 + dice.roll(8)) * block, Fault::bad(Direction::Write)),
            4 => (block, Fault::bad(Direction::Write).status(Status::Io)),
            5 => (block, Fault::bad(Direction::Write).status(Status::Target)),
            6 => (block, Fault::bad(Direction::Write).times(2)),
            // Two failures are overcome by trying again; but each sector has its own.
            _ => (1, Fault::bad(Direction::Read).times(2)),
        };
        let mut disk = remap.main.disk();
        if disk.spoilt() < BAD {
            disk.spoil_if_good(sector, sectors, fault);
        }
        drop(disk);
        std::thread::sleep(Duration::from_millis(4));
    }
}

fn sectors_go_bad_under_fio(block: u32, sizes: &str) {
    let remap = device(block);
    let stop = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| spoil(&remap, u64::from(block) / 512, &stop));
        let ran = fio(
            &remap,
            &format!(
                "--bssplit={sizes} --io_size=8m --runtime=300 --iodepth=8 --verify_backlog=24 --fsync=40 \
                 --name=uring --ioengine=io_uring --numjobs=2 \
                 --name=aio --ioengine=libaio --numjobs=2 --offset={}m",
                MAIN_MIB / 2
            ),
        );
        stop.store(true, Ordering::Relaxed);
        ran
    });
    assert_eq!(ran.status, 0, "{}\n{}", ran.output, ran.errors);
    let written = number(&ran.output, "write", "total_ios");
    let read = number(&ran.output, "read", "total_ios");
    let status = remap.device().status();
    eprintln!("{written} writes, {read} reads that compare, {status}");
    assert!(written > 100 && read > 100, "{}", ran.output);
    assert!(remap.device().remapped() > 20, "{status}");
    assert_eq!(remap.device().pending(), 0, "{status}");
}

#[test]
fn blocks_of_512_to_a_megabyte() {
    let _test = vmtest::begin!();
    sectors_go_bad_under_fio(512, "512/20:1536/10:4k/25:20k/20:64k/12:256k/8:1m/5");
}

#[test]
fn blocks_of_4096_to_a_megabyte() {
    let _test = vmtest::begin!();
    sectors_go_bad_under_fio(4096, "4k/40:12k/15:32k/20:64k/12:256k/8:1m/5");
}

/// What the others rely on: fio finds a sector that is not what it was.
#[test]
fn fio_finds_a_single_wrong_sector() {
    let _test = vmtest::begin!();
    let remap = device(512);
    let options = "--bs=64k --ioengine=libaio --iodepth=4 --name=one --io_size=4m --randseed=7";
    let ran = fio(&remap, options);
    assert_eq!(ran.status, 0, "{}\n{}", ran.output, ran.errors);
    let again = format!("{options} --verify_only");
    assert_eq!(fio(&remap, &again).status, 0);
    let mut wrong = 0;
    for sector in (0..2048).step_by(128) {
        let mut content = vec![0; 512];
        let mut main = remap.main.disk();
        main.peek(sector + 77, &mut content).unwrap();
        if content.iter().any(|byte| *byte != 0) && wrong == 0 {
            content[300] ^= 1;
            main.poke(sector + 77, &content).unwrap();
            wrong += 1;
        }
    }
    assert_eq!(wrong, 1, "fio wrote there");
    let ran = fio(&remap, &again);
    assert_ne!(ran.status, 0, "{}", ran.output);
}
