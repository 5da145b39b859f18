// SPDX-License-Identifier: GPL-2.0
//! E4: what main cannot read is an error until somebody writes it, wherever it
//! lies.

use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::time::Duration;

use super::bad;
use super::unreadable;
use super::unwritable;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Mapped;
use vmtest::guest::Remap;

/// E4: a partial write of a pending area heals exactly the sectors written.
#[test]
fn a_partial_write_heals_exactly_what_it_writes() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let at = |blocks: u64| blocks * unit;
        let mut remap = Remap::new(block);
        let device = remap.open();
        device.write(0, &stamps(0, at(64), 1)).unwrap();
        remap.main.disk().spoil(at(16), at(16), unreadable());
        assert!(device.read(0, at(64)).is_err());
        assert_eq!(remap.device().pending(), 16);

        device.write(at(20), &stamps(at(20), at(3), 2)).unwrap();
        // One that begins before the area, and one that ends behind it.
        device.write(at(14), &stamps(at(14), at(3), 3)).unwrap();
        device.write(at(31), &stamps(at(31), at(3), 4)).unwrap();
        drop(device);
        for _ in 0..2 {
            let device = remap.open();
            for number in 0..64 {
                let read = device.read(at(number), unit);
                let generation = match number {
                    20..=22 => 2,
                    14..=16 => 3,
                    31..=33 => 4,
                    17..=30 => {
                        assert!(read.is_err(), "block {number} was never written");
                        continue;
                    }
                    _ => 1,
                };
                assert!(
                    read.unwrap() == stamps(at(number), unit, generation),
                    "block {number}"
                );
            }
            assert_eq!(remap.device().pending(), 11);
            assert_eq!(remap.device().remapped(), 5);
            drop(device);
            remap.reactivate();
        }
    }
}

/// E4, P8: one write across good, remapped, pending and newly bad blocks.
#[test]
fn a_write_across_everything() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 256, 1)).unwrap();
    remap.main.disk().spoil(32, 8, bad());
    device.write(32, &stamps(32, 8, 1)).unwrap();
    remap.main.disk().spoil(64, 8, unreadable());
    assert!(device.read(64, 8).is_err());
    remap.main.disk().spoil(96, 8, unwritable());
    assert_eq!(remap.device().remapped(), 8);
    assert_eq!(remap.device().pending(), 8);

    device.write(0, &stamps(0, 256, 2)).unwrap();
    assert!(device.read(0, 256).unwrap() == stamps(0, 256, 2));
    assert_eq!(remap.device().remapped(), 24);
    assert_eq!(remap.device().pending(), 0);
}

/// E4: a pending sector does not hide behind its mark: as long as main cannot read it, main says
/// so, with main's own error; when main can, that content is served.
#[test]
fn pending_never_turns_a_readable_sector_unreadable() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    {
        let device = remap.open();
        device.write(96, &stamps(96, 16, 1)).unwrap();
        remap.main.disk().spoil(100, 4, unreadable());
        assert!(device.read(96, 16).is_err());
    }
    remap.reactivate();
    assert_eq!(remap.device().pending(), 4);
    remap.main.disk().heal(100, 4);
    remap.record();
    assert!(remap.open().read(96, 16).unwrap() == stamps(96, 16, 1));
    assert!(remap.main.disk().record().reads > 0, "main was asked");
}

/// E4: a mark that could not be stored, as the spare does not work, hides nothing: what main can
/// read again is read, and what it cannot is main's own error.
#[test]
fn a_mark_that_is_not_stored_hides_nothing() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    // So that the metadata is as it will be.
    remap.device().message("remap 0").unwrap();
    remap.main.disk().spoil(100, 1, unreadable());
    // The way to the second replica, at the end of the spare.
    let end = remap.spare.disk().sectors();
    let away = unwritable().status(Status::Transport);
    remap.spare.disk().spoil(end - 1200, 1200, away);
    for _ in 0..3 {
        let error = device.read(96, 16).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(61), "main's error is another");
    }
    remap.main.disk().heal(100, 1);
    let read = device.read(96, 16);
    assert!(
        read.is_ok_and(|data| data == stamps(96, 16, 1)),
        "main can read it, {}",
        remap.device().status()
    );
    remap.spare.disk().heal(0, end);
    device.write(96, &stamps(96, 16, 2)).unwrap();
    assert!(device.read(96, 16).unwrap() == stamps(96, 16, 2));
}

/// P9: a read-only table writes nothing, whatever its reads come to.
#[test]
fn a_read_only_table_writes_nothing_when_reads_fail() {
    let _test = vmtest::begin!();
    let main = Options::memory(64 << 20);
    let spare = Options::memory(32 << 20);
    let mut remap = Remap::on(main, spare, "");
    // Few of the slots that are ready are left, which makes others ready when blocks are moved.
    for first in 0..15 {
        let message = format!("remap {} 1024", 1024 * first);
        remap.device().message(&message).unwrap();
    }
    remap.deactivate();
    remap.main.disk().spoil(40_000, 8, unreadable());
    remap.record();
    {
        let mapped = Mapped::try_read_only(&remap.line()).expect("make it read-only");
        let mut file = File::open(mapped.path()).unwrap();
        let mut data = vec![0; 4096];
        file.seek(SeekFrom::Start(40_000 * 512)).unwrap();
        assert!(file.read_exact(&mut data).is_err());
        file.seek(SeekFrom::Start(8 * 512)).unwrap();
        file.read_exact(&mut data).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(remap.main.disk().record().writes, 0);
    assert_eq!(remap.spare.disk().record().writes, 0);
}
