// SPDX-License-Identifier: GPL-2.0
//! D1a: what one target has, as main or as a spare, no other one gets, from before anything is read until
//! the target is gone.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

use super::disk;
use super::line;
use super::refused;
use super::BUSY;
use super::MAIN;
use super::SPARE;
use vmtest::guest::device_number;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::succeed;
use vmtest::guest::Mapped;

/// Reads and writes so far.
fn asked(disk: &SickDisk) -> (u64, u64) {
    let disk = disk.disk();
    let record = disk.record();
    (record.reads, record.writes)
}

/// Main of one device is nobody else's, neither as main nor as a spare; and a spare is nobody's main. All of
/// them blank, which would be formatted. Who refuses is named, and nothing is read.
#[test]
fn what_one_device_has_another_one_does_not_get() {
    let _test = vmtest::begin!();
    let (main, spare) = (disk(MAIN), disk(MAIN));
    let (other, blank) = (disk(MAIN), disk(SPARE));
    let device = Mapped::new(&line(&main, &spare, ""));
    let name = format!("dm-remap {}", device_number(&device.path()).unwrap());
    let before = [&main, &spare, &other, &blank].map(asked);
    refused(
        &line(&main, &blank, ""),
        BUSY,
        &["Main, or a part of it, is used", "is main of", &name],
    );
    refused(
        &line(&other, &main, ""),
        BUSY,
        &["Spare, or a part of it, is used", "is main of", &name],
    );
    refused(
        &line(&spare, &blank, ""),
        BUSY,
        &["Main, or a part of it, is used", "is a spare of", &name],
    );
    refused(
        &line(&other, &spare, ""),
        BUSY,
        &["Spare, or a part of it, is used", "is a spare of", &name],
    );
    refused(
        &line(
            &other,
            &blank,
            &format!("2 spare {}", main.path().display()),
        ),
        BUSY,
        &["is main of", &name],
    );
    let after = [&main, &spare, &other, &blank].map(asked);
    assert_eq!(after, before, "reads and writes");
    device.remove();
    Mapped::new(&line(&main, &blank, "")).remove();
}

/// A table that is loaded and not in use holds its disks, too, until it is cleared or its device is gone.
#[test]
fn a_table_that_is_only_loaded_holds_its_disks() {
    let _test = vmtest::begin!();
    let (main, spare, other, blank) = (disk(MAIN), disk(SPARE), disk(MAIN), disk(SPARE));
    let device = Mapped::new(&format!("0 {MAIN} error"));
    for _ in 0..2 {
        device.load(&line(&main, &spare, "")).unwrap();
        refused(&line(&main, &blank, ""), BUSY, &["Main, or a part of it"]);
        refused(&line(&other, &spare, ""), BUSY, &["Spare, or a part of it"]);
        // The same device may think about it again.
        device.load(&line(&main, &spare, "")).unwrap();
        device.load(&line(&main, &blank, "")).unwrap();
        refused(&line(&main, &spare, ""), BUSY, &["Main, or a part of it"]);
        succeed(&format!("dmsetup clear {}", device.name()));
        Mapped::new(&line(&main, &blank, "1 format")).remove();
        blank
            .disk()
            .poke(0, &vec![0; SPARE as usize * 512])
            .unwrap();
    }
    device.load(&line(&main, &spare, "")).unwrap();
    device.remove();
    Mapped::new(&line(&main, &blank, "")).remove();
}

/// A spare that is being read is nobody else's: it could be used, and left again, before what was read is
/// believed.
#[test]
fn a_spare_that_is_being_read_is_claimed() {
    let _test = vmtest::begin!();
    let (main, other, spare) = (disk(MAIN), disk(MAIN), disk(SPARE));
    spare.disk().hold(0..SPARE, Direction::Read);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| Mapped::try_new(&line(&main, &spare, "")));
        assert!(eventually(|| is_claimed(&spare)));
        let second = scope.spawn(|| Mapped::try_new(&line(&other, &spare, "")).map(drop));
        let ended = eventually(|| second.is_finished());
        assert!(!first.is_finished());
        spare.disk().release();
        assert!(ended, "the spare was read for two");
        assert_eq!(second.join().unwrap().unwrap_err().error, BUSY);
        first.join().unwrap().unwrap().remove();
    });
}

/// Whether somebody has a disk for himself, as device mapper has the disks of a table.
fn is_claimed(disk: &SickDisk) -> bool {
    let options = File::options()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(disk.path());
    options.is_err()
}

/// Several targets of one table: each with disks of its own, or parts of them.
#[test]
fn targets_of_one_table_share_nothing() {
    let _test = vmtest::begin!();
    let (one, two, spare) = (disk(MAIN), disk(MAIN), disk(SPARE));
    let (o, t, s) = (one.path(), two.path(), spare.path());
    let (o, t, s) = (o.display(), t.display(), s.display());
    let first = format!("0 16384 remap {o} {s} 0 8192");
    refused(
        &format!("{first}\n16384 16384 remap {o} {s} 8192 8192"),
        BUSY,
        &["Main, or a part of it, is used"],
    );
    refused(
        &format!("{first}\n16384 16384 remap {t} {o} 0 8192"),
        BUSY,
        &["Spare, or a part of it, is used"],
    );
    let table = format!("{first}\n16384 16384 remap {t} {s} 8192 8192");
    let device = Mapped::new(&table);
    // Each finds its own again.
    device.load(&table).unwrap();
    device.resume().unwrap();
    device.remove();
}

/// What was main in the table in use does not become a spare in the next, nor the other way round.
#[test]
fn a_reload_does_not_turn_main_and_spare_round() {
    let _test = vmtest::begin!();
    let (main, spare, blank) = (disk(MAIN), disk(MAIN), disk(SPARE));
    let device = Mapped::new(&line(&main, &spare, ""));
    for table in [
        line(&spare, &main, "1 format"),
        line(&spare, &blank, ""),
        line(&main, &spare, &format!("2 spare {}", main.path().display())),
    ] {
        let refusal = device.load(&table).expect_err(&table);
        assert_eq!(refusal.error, BUSY, "{table}: {refusal:?}");
    }
    device.load(&line(&main, &spare, "")).unwrap();
    device.resume().unwrap();
}
