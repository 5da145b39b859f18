// SPDX-License-Identifier: GPL-2.0
//! E6: a failed flush is told once, at once, and nothing is called durable until another one has
//! succeeded there.

use std::fs::File;
use std::io::Write;

use super::bad;
use super::number;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Direct;
use vmtest::guest::Remap;

#[track_caller]
fn flush_is(remap: &Remap, expected: &str) {
    let value = remap.device().status_value("flush");
    assert_eq!(
        value.as_deref(),
        Some(expected),
        "{}",
        remap.device().status()
    );
}

/// A device with one remapped sector, 100, and both of its disks.
fn remapped() -> Remap {
    let remap = Remap::new(512);
    remap.main.disk().spoil(100, 1, bad());
    remap.open().write(96, &stamps(96, 16, 1)).unwrap();
    remap
}

fn disks(remap: &Remap) -> [(&'static str, &SickDisk, u64); 2] {
    // With a sector that the disk serves.
    [("main", &remap.main, 96), ("spare", &remap.spare, 100)]
}

/// Whatever the error: it goes up unchanged, after one try.
#[test]
fn a_failed_flush_is_told_at_once() {
    let _test = vmtest::begin!();
    let remap = remapped();
    let device = remap.open();
    for (name, disk, sector) in disks(&remap) {
        for (status, _) in Status::ALL {
            // A disk that has no cache to flush, as the kernel sees it.
            if status == Status::Unsupported {
                continue;
            }
            // The spare is asked only if it holds something.
            device.write(sector, &stamps(sector, 1, 2)).unwrap();
            disk.disk().fail_flushes(status, 1);
            disk.disk().record_mut().restart(false);
            let error = device.flush().unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(status.errno()),
                "{name}, {status:?}"
            );
            assert_eq!(disk.disk().record().flushes, 1, "{name}, {status:?}");
            device.flush().unwrap();
            flush_is(&remap, "good");
        }
    }
    assert_eq!(remap.device().status_fraction(2).0, 1);
}

/// It is latched for its disk: FUA writes there fail, plain ones do not, until a flush succeeds.
#[test]
fn fua_writes_fail_until_a_flush_succeeds() {
    let _test = vmtest::begin!();
    let remap = remapped();
    let plain = remap.open();
    let durable = Direct::open_dsync(&remap.path());
    for (name, disk, sector) in disks(&remap) {
        flush_is(&remap, "good");
        plain.write(sector, &stamps(sector, 1, 2)).unwrap();
        disk.disk().fail_flushes(Status::Io, 1);
        assert!(plain.flush().is_err(), "{name}");
        flush_is(&remap, "failed");
        assert_eq!(number(&remap, "health"), 0, "{name}");
        disk.disk().record_mut().restart(false);
        for _ in 0..2 {
            let written = durable.write(sector, &stamps(sector, 1, 2));
            assert!(written.is_err(), "{name}: durable after a failed flush?");
        }
        assert_eq!(
            disk.disk().record().flushes,
            0,
            "the FUA write itself failed"
        );
        plain.write(sector, &stamps(sector, 1, 3)).unwrap();
        assert!(plain.read(sector, 1).unwrap() == stamps(sector, 1, 3));
        flush_is(&remap, "failed");

        plain.flush().unwrap();
        flush_is(&remap, "good");
        assert_eq!(number(&remap, "health"), 1, "{name}");
        durable.write(sector, &stamps(sector, 1, 4)).unwrap();
        assert!(plain.read(sector, 1).unwrap() == stamps(sector, 1, 4));
    }
}

/// A flush that fails again keeps it latched.
#[test]
fn a_flush_that_fails_again_keeps_the_latch() {
    let _test = vmtest::begin!();
    let remap = remapped();
    let device = remap.open();
    remap.main.disk().fail_flushes(Status::Medium, 3);
    for _ in 0..3 {
        assert!(device.flush().is_err());
        flush_is(&remap, "failed");
    }
    device.flush().unwrap();
    flush_is(&remap, "good");
}

/// Device mapper drops the error of a flush that comes with data (REQ_PREFLUSH|REQ_FUA), which is
/// what a journal's commit is: it fails nevertheless, as its data does.
#[test]
fn a_commit_whose_preflush_fails_is_an_error() {
    let _test = vmtest::begin!();
    for main_fails in [true, false] {
        let main = Options::memory(10 << 20).logical_block(4096);
        let spare = Options::memory(16 << 20).logical_block(4096);
        let remap = Remap::on(main, spare, "");
        if !main_fails {
            // All that is written is on the spare.
            remap.device().message("remap 0 20480").unwrap();
        }
        let path = remap.path();
        let path = path.display();
        succeed(&format!("mkfs.ext4 -q -J size=4 {path}"));
        succeed("mkdir -p /mnt/flush");
        succeed(&format!("mount {path} /mnt/flush"));
        let mut file = File::create("/mnt/flush/file").unwrap();
        file.write_all(&stamps(0, 64, 1)).unwrap();
        file.sync_all().unwrap();
        file.write_all(&stamps(0, 64, 2)).unwrap();
        let disk = if main_fails {
            &remap.main
        } else {
            &remap.spare
        };
        // The one in front of the commit; those that come later are good.
        disk.disk().fail_flushes(Status::Io, 1);
        let synced = file.sync_all();
        drop(file);
        let left = run("umount /mnt/flush");
        assert!(
            synced.is_err(),
            "main {main_fails}: a commit without its flush"
        );
        assert_eq!(left.status, 0, "{left:?}");
    }
}

/// A flush of the worker's own that fails has taken what a user would have been told: the write is
/// an error, and so is the user's next flush; the one after that is good.
#[test]
fn a_failed_flush_of_ours_is_told_to_the_next() {
    let _test = vmtest::begin!();
    let remap = remapped();
    let device = remap.open();
    remap.main.disk().spoil(200, 1, bad());
    remap.spare.disk().fail_flushes(Status::Io, 1);
    assert!(device.write(200, &stamps(200, 1, 1)).is_err());
    flush_is(&remap, "failed");
    assert!(device.flush().is_err(), "it stands for the one that failed");
    device.flush().unwrap();
    flush_is(&remap, "good");
    device.write(200, &stamps(200, 1, 2)).unwrap();
    assert!(device.read(200, 1).unwrap() == stamps(200, 1, 2));
}

/// The latch is of the disks, not of the table: a reload does not open it.
#[test]
fn a_reload_keeps_the_latch() {
    let _test = vmtest::begin!();
    let remap = remapped();
    let device = remap.open();
    remap.main.disk().fail_flushes(Status::Io, 1);
    assert!(device.flush().is_err());
    remap.device().load(&remap.line()).unwrap();
    remap.device().suspend_noflush().unwrap();
    remap.device().resume().unwrap();
    flush_is(&remap, "failed");
    let written = Direct::open_dsync(&remap.path()).write(96, &stamps(96, 1, 2));
    assert!(written.is_err());
    device.flush().unwrap();
    flush_is(&remap, "good");
}

/// A spare that is gone has nothing to flush as long as nothing was written to it: the filesystem on
/// main need not hear of it.
#[test]
fn a_dead_spare_that_holds_nothing_fails_no_flush() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let plain = remap.open();
    plain.write(0, &stamps(0, 64, 1)).unwrap();
    plain.flush().unwrap();
    remap.spare.disk().die(Status::Offline, Direction::Both);
    let durable = Direct::open_dsync(&remap.path());
    for generation in 2..5 {
        plain.write(0, &stamps(0, 64, generation)).unwrap();
        plain.flush().unwrap();
        durable.write(64, &stamps(64, 8, generation)).unwrap();
    }
    flush_is(&remap, "good");
}

/// Most disks have no FUA, and the kernel flushes behind such a write. If that flush fails, the disk
/// may have dropped what others wrote: somebody has to hear of it, although the write itself does
/// well when it is tried again.
#[test]
fn a_flush_inside_of_a_fua_write_is_not_swallowed() {
    let _test = vmtest::begin!();
    let main = Options::memory(64 << 20).without_fua();
    let spare = Options::memory(8 << 20).without_fua();
    let remap = Remap::on(main, spare, "");
    remap.main.disk().spoil(100, 1, bad());
    let plain = remap.open();
    plain.write(96, &stamps(96, 16, 1)).unwrap();
    plain.flush().unwrap();
    let durable = Direct::open_dsync(&remap.path());
    for (name, disk, sector) in disks(&remap) {
        plain.write(sector, &stamps(sector, 1, 2)).unwrap();
        disk.disk().fail_flushes(Status::Io, 1);
        // This flushes twice: within the write, and behind it.
        let written = durable.write(sector, &stamps(sector, 1, 3));
        let heard = written.is_err() || plain.flush().is_err();
        assert!(heard, "{name}: nobody heard of the flush that failed");
        let _ = plain.flush();
        flush_is(&remap, "good");
        durable.write(sector, &stamps(sector, 1, 4)).unwrap();
    }
    // A repair's own, which makes metadata durable.
    remap.main.disk().spoil(200, 1, bad());
    remap.spare.disk().fail_flushes(Status::Io, 2);
    let written = plain.write(200, &stamps(200, 1, 1));
    let heard = written.is_err() || plain.flush().is_err();
    assert!(heard, "nobody heard of the repair's flush");
}

/// A FUA write whose block is bad, and that no slot is left for, is a true error of that write. Its
/// flush did not fail, and nobody else's does.
#[test]
fn a_true_error_of_a_fua_write_fails_no_flush() {
    let _test = vmtest::begin!();
    let main = Options::memory(16 << 20).logical_block(4096).without_fua();
    let spare = Options::memory(1 << 20).logical_block(4096).without_fua();
    let remap = Remap::on(main, spare, "");
    let (_, capacity) = remap.device().status_fraction(0);
    let full = capacity * 8;
    remap.device().message(&format!("remap 0 {full}")).unwrap();
    remap.main.disk().spoil(full, 8, bad());
    let plain = remap.open();
    let durable = Direct::open_dsync(&remap.path());
    for generation in 1..4 {
        assert!(durable.write(full, &stamps(full, 8, generation)).is_err());
        plain.write(0, &stamps(0, 8, generation)).unwrap();
        plain.flush().unwrap();
        durable.write(8, &stamps(8, 8, generation)).unwrap();
    }
}
