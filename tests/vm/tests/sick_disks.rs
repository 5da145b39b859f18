// SPDX-License-Identifier: GPL-2.0
//! The disks that the other tests rely on fail as they are told, before anything of ours stands
//! on them.

use std::path::Path;

use vmtest::guest::eventually;
use vmtest::guest::identify;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Content;
use vmtest::guest::Direct;
use vmtest::guest::NullBlk;
use vmtest::guest::ScsiDebug;

/// 64 MiB.
fn disk() -> SickDisk {
    SickDisk::start(Options::memory(64 << 20)).expect("start a sick disk")
}

fn queue_attribute(disk: &SickDisk, name: &str) -> String {
    let path = format!("/sys/block/ublkb{}/queue/{name}", disk.number());
    let text = std::fs::read_to_string(&path).expect(&path);
    text.trim().to_string()
}

#[test]
fn a_healthy_one_keeps_what_it_is_given() {
    let _test = vmtest::begin!();
    let disk = disk();
    let device = Direct::open(&disk.path());
    device.write(1000, &stamps(1000, 2048, 1)).unwrap();
    let data = device.read(1000, 2048).unwrap();
    assert!(data == stamps(1000, 2048, 1), "{:?}", &identify(&data)[..4]);
}

#[test]
fn a_bad_sector_gives_a_medium_error() {
    let mut test = vmtest::begin!();
    let disk = disk();
    disk.disk().spoil(2000, 1, Fault::bad(Direction::Both));
    let device = Direct::open(&disk.path());
    assert!(device.read(1992, 8).is_ok());
    let error = device.read(2000, 8).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(ENODATA));
    let error = device.write(1996, &stamps(1996, 8, 1)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(ENODATA));
    let log = test.kernel_log();
    assert!(log.contains("critical medium error"), "{log}");

    disk.disk().heal(2000, 1);
    assert!(device.read(2000, 8).is_ok());
}

/// What BLK_STS_MEDIUM becomes.
const ENODATA: i32 = 61;

#[test]
fn every_error_arrives_as_itself() {
    let mut test = vmtest::begin!();
    let disk = disk();
    let device = Direct::open(&disk.path());
    for (status, name) in Status::ALL {
        disk.disk()
            .spoil(64, 8, Fault::bad(Direction::Both).status(status));
        let error = device.read(64, 8).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(status.errno()), "{name}");
        disk.disk().heal(64, 8);
    }
    let log = test.kernel_log();
    assert!(log.contains("recoverable transport error"), "{log}");
}

#[test]
fn a_dead_one_fails_until_it_is_revived() {
    let _test = vmtest::begin!();
    let disk = disk();
    let device = Direct::open(&disk.path());
    disk.disk().die(Status::Offline, Direction::Both);
    assert!(device.read(0, 8).is_err());
    assert!(device.write(0, &stamps(0, 8, 1)).is_err());
    disk.disk().revive();
    assert!(device.write(0, &stamps(0, 8, 1)).is_ok());
}

#[test]
fn flush_and_fua_reach_it() {
    let _test = vmtest::begin!();
    let disk = disk();
    assert_eq!(queue_attribute(&disk, "write_cache"), "write back");
    assert_eq!(queue_attribute(&disk, "fua"), "1");
    let device = Direct::open_dsync(&disk.path());
    disk.disk().record_mut().restart(true);
    device.write(8, &stamps(8, 8, 1)).unwrap();
    let device = Direct::open(&disk.path());
    device.write(16, &stamps(16, 8, 1)).unwrap();
    device.flush().unwrap();
    let disk = disk.disk();
    let seen: Vec<(Operation, u64, bool)> = disk
        .record()
        .entries()
        .iter()
        .map(|entry| (entry.operation, entry.sector, entry.fua))
        .filter(|entry| entry.0 != Operation::Read)
        .collect();
    assert_eq!(
        seen,
        [
            (Operation::Write, 8, true),
            // The kernel's habit for O_DSYNC on a block device.
            (Operation::Flush, 0, false),
            (Operation::Write, 16, false),
            (Operation::Flush, 0, false),
        ]
    );
}

#[test]
fn a_power_cut_takes_what_was_not_flushed() {
    let _test = vmtest::begin!();
    let disk = disk();
    let device = Direct::open(&disk.path());
    device.write(0, &stamps(0, 8, 1)).unwrap();
    device.flush().unwrap();
    device.write(0, &stamps(0, 8, 2)).unwrap();
    disk.disk().power_cut(PowerCut::Drop).unwrap();
    assert!(device.read(0, 8).unwrap() == stamps(0, 8, 1));
}

#[test]
fn blocks_of_4096_bytes() {
    let _test = vmtest::begin!();
    let disk = SickDisk::start(Options::memory(64 << 20).logical_block(4096)).unwrap();
    assert_eq!(queue_attribute(&disk, "logical_block_size"), "4096");
    let device = Direct::open(&disk.path());
    assert!(device.read(1, 8).is_err());
    assert!(device.write(8, &stamps(8, 8, 1)).is_ok());
    assert_eq!(
        identify(&device.read(8, 8).unwrap())[1],
        Content::Stamp {
            sector: 9,
            generation: 1
        }
    );
}

#[test]
fn what_is_held_happens_when_it_is_released() {
    let _test = vmtest::begin!();
    let disk = disk();
    disk.disk().hold(0..8, Direction::Write);
    std::thread::scope(|scope| {
        let path = disk.path();
        let writer = scope.spawn(move || Direct::open(&path).write(0, &stamps(0, 8, 1)));
        let device = Direct::open(&disk.path());
        assert!(eventually(|| disk.disk().waiting().len() == 1));
        assert_eq!(identify(&device.read(0, 8).unwrap())[0], Content::Blank);
        assert!(!writer.is_finished());
        disk.disk().release();
        writer.join().unwrap().unwrap();
        assert!(device.read(0, 8).unwrap() == stamps(0, 8, 1));
    });
}

#[test]
fn a_file_outlives_its_disk() {
    let _test = vmtest::begin!();
    let path = Path::new("/tmp/sick");
    std::fs::write(path, vec![0; 1 << 20]).unwrap();
    {
        let disk = SickDisk::start(Options::file(path)).unwrap();
        let device = Direct::open(&disk.path());
        device.write(8, &stamps(8, 8, 1)).unwrap();
    }
    let content = std::fs::read(path).unwrap();
    assert!(content[4096..8192] == stamps(8, 8, 1));
}

#[test]
fn null_blk_has_bad_blocks() {
    let _test = vmtest::begin!();
    let disk = NullBlk::new(16, 512);
    disk.spoil(100, 4);
    let device = Direct::open(&disk.path());
    assert!(device.write(104, &stamps(104, 8, 1)).is_ok());
    assert!(device.write(96, &stamps(96, 8, 1)).is_err());
    assert!(device.read(96, 8).is_err());
    disk.heal(100, 4);
    assert!(device.write(96, &stamps(96, 8, 1)).is_ok());
}

#[test]
fn scsi_debug_has_sense_data() {
    let mut test = vmtest::begin!();
    let disk = ScsiDebug::new(16, 2000, 4);
    let device = Direct::open(&disk.path());
    assert!(device.read(1992, 8).is_ok());
    assert!(device.read(2000, 8).is_err());
    let log = test.kernel_log();
    assert!(log.contains("Medium Error"), "{log}");
}
