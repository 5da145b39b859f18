// SPDX-License-Identifier: GPL-2.0
//! P9: suspend, resume, reload, remove, with the device in use.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vmtest::guest::eventually;
use vmtest::guest::load;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::unload;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Remap;

/// Writes and reads all over the device while `job` runs; nothing may fail or be wrong. What the job is given
/// waits until some of that was done.
fn under_load(remap: &Remap, job: impl FnOnce(&dyn Fn())) {
    let end = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let path = remap.path();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let device = Direct::open(&path);
            let mut generation = 0;
            let mut sector = 0;
            while !end.load(Ordering::Relaxed) {
                generation += 1;
                let bad = Fault::bad(Direction::Write);
                remap.main.disk().spoil(sector + 3, 2, bad);
                let data = stamps(sector, 64, generation);
                device.write(sector, &data).unwrap();
                assert!(device.read(sector, 64).unwrap() == data);
                sector = (sector + 64) % 65536;
                rounds.store(generation, Ordering::Relaxed);
            }
        });
        job(&|| {
            let before = rounds.load(Ordering::Relaxed);
            let goes_on = || rounds.load(Ordering::Relaxed) > before + 1;
            assert!(eventually(goes_on), "an I/O is stuck");
        });
        end.store(true, Ordering::Relaxed);
        worker.join().expect("I/O while the job ran");
    });
}

#[test]
fn suspend_and_resume_under_load() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    under_load(&remap, |go_on| {
        for round in 0..10 {
            go_on();
            match round % 2 {
                0 => remap.device().suspend().unwrap(),
                _ => remap.device().suspend_noflush().unwrap(),
            }
            remap.device().resume().unwrap();
        }
    });
    assert!(remap.device().remapped() > 0);
}

#[test]
fn reload_under_load() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    under_load(&remap, |go_on| {
        for _ in 0..10 {
            go_on();
            remap.device().load(&remap.line()).unwrap();
            remap.device().resume().unwrap();
        }
    });
    assert!(remap.device().remapped() > 0);
}

/// A table that is refused leaves the one in use whole.
#[test]
fn a_refused_reload_changes_nothing() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    let bad = Fault::bad(Direction::Both);
    remap.main.disk().spoil(100, 1, bad);
    device.write(100, &stamps(100, 1, 1)).unwrap();
    let table = remap.device().table();
    let line = remap.line();
    for broken in [
        format!("{line} 2 auto_remap maybe"),
        line.replace("dm-remap", "nonsense"),
        line.replace(
            &remap.spare.path().display().to_string(),
            "/dev/nonexistent",
        ),
    ] {
        assert!(remap.device().load(&broken).is_err(), "{broken}");
    }
    assert_eq!(remap.device().table(), table);
    assert_eq!(remap.device().remapped(), 1);
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 1));
    remap.main.disk().spoil(200, 1, bad);
    device.write(200, &stamps(200, 1, 1)).unwrap();
    assert_eq!(remap.device().remapped(), 2);
}

/// A loaded table that is never used goes away again.
#[test]
fn a_loaded_table_can_be_cleared() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    remap.device().message("remap 100").unwrap();
    remap.device().load(&remap.line()).unwrap();
    remap.device().message("remap 200").unwrap();
    succeed(&format!("dmsetup clear {}", remap.device().name()));
    assert_eq!(remap.device().remapped(), 2);
    remap.device().message("remap 300").unwrap();
    assert_eq!(remap.device().remapped(), 3);
}

/// A longer table of the same main keeps the remaps, a shorter one, too.
#[test]
fn a_table_may_change_its_length() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let full = remap.line();
    let short = full.replacen(&Remap::MAIN_SECTORS.to_string(), "65536", 1);
    remap.device().message("remap 100").unwrap();
    remap.device().message("remap 100000").unwrap();
    for (table, sectors) in [(&short, 65536), (&full, Remap::MAIN_SECTORS)] {
        remap.device().load(table).unwrap();
        remap.device().resume().unwrap();
        let size = succeed(&format!("blockdev --getsz {}", remap.path().display()));
        assert_eq!(size.trim(), sectors.to_string());
        assert_eq!(remap.device().remapped(), 2);
    }
    let told = remap.device().message("verify 100000").unwrap();
    assert!(told.contains("spare"), "{told}");
}

/// P5, P9: blocks that main did not have before are remapped like others, and are there again after
/// the next activation.
#[test]
fn main_may_grow_while_in_use() {
    let _test = vmtest::begin!();
    load();
    let disk = SickDisk::start(Options::memory(64 << 20)).unwrap();
    let spare = SickDisk::start(Options::memory(8 << 20)).unwrap();
    let volume = |sectors: u64| format!("0 {sectors} linear {} 0", disk.path().display());
    let main = Mapped::new(&volume(65536));
    let line = |sectors: u64| {
        let (main, spare) = (main.path(), spare.path());
        format!(
            "0 {sectors} dm-remap {} {}",
            main.display(),
            spare.display()
        )
    };
    let remap = Mapped::new(&line(65536));
    main.load(&volume(131_072)).unwrap();
    main.resume().unwrap();
    remap.load(&line(131_072)).unwrap();
    remap.resume().unwrap();
    Direct::open(&remap.path())
        .write(100_000, &stamps(100_000, 8, 1))
        .unwrap();
    remap.message("remap 100000 8").unwrap();
    remap.remove();

    let remap = Mapped::new(&line(131_072));
    assert_eq!(remap.remapped(), 8);
    let read = Direct::open(&remap.path()).read(100_000, 8).unwrap();
    assert!(read == stamps(100_000, 8, 1));
    remap.remove();
    main.remove();
}

/// E8: a message that takes long does not hold up a suspend, and what it has done stays done.
#[test]
fn a_suspend_ends_a_long_message() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let sectors = remap.main.disk().sectors();
    // By itself it takes half a minute.
    let slow = Duration::from_millis(250);
    remap.main.disk().slow(0..sectors, slow);
    std::thread::scope(|scope| {
        let message = scope.spawn(|| remap.device().message("remap 0 16000"));
        assert!(eventually(|| remap.device().remapped() > 0));
        remap.device().suspend().unwrap();
        let reply = message.join().unwrap().unwrap();
        let moved = remap.device().remapped();
        let told = format!("{moved} blocks remapped, 0 remapped before, 0 unreadable\nstopped ");
        assert!(reply.starts_with(&told), "{reply}");
        assert!(reply.ends_with(&format!("next={moved}")), "{reply}");
    });
    let moved = remap.device().remapped();
    assert!(0 < moved && moved < 16000, "{moved}");
    remap.device().resume().unwrap();
    assert_eq!(remap.device().remapped(), moved);
}

#[test]
fn a_device_in_use_is_not_removed() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    let removed = run(&format!(
        "dmsetup --noudevsync remove {}",
        remap.device().name()
    ));
    assert_ne!(removed.status, 0);
    device.write(0, &stamps(0, 8, 1)).unwrap();
}

/// Removal waits for a repair that is under way.
#[test]
fn removal_during_a_repair() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let bad = Fault::bad(Direction::Both);
    remap.main.disk().spoil(0, 2048, bad);
    let spare = remap.spare.disk().sectors();
    let slow = Duration::from_millis(20);
    remap.spare.disk().slow(0..spare, slow);
    let device = remap.open();
    device.write(0, &stamps(0, 256, 1)).unwrap();
    drop(device);
    remap.deactivate();
    remap.spare.disk().slow(0..spare, Duration::ZERO);
    remap.activate();
    assert_eq!(remap.device().remapped(), 256);
    assert!(remap.open().read(0, 256).unwrap() == stamps(0, 256, 1));
}

/// D1: several of our targets in one table, each with its own part of the spare.
#[test]
fn two_targets_in_one_table() {
    let _test = vmtest::begin!();
    load();
    let main = SickDisk::start(Options::memory(64 << 20)).unwrap();
    let other = SickDisk::start(Options::memory(64 << 20)).unwrap();
    let spare = SickDisk::start(Options::memory(8 << 20)).unwrap();
    let (m, o, s) = (main.path(), other.path(), spare.path());
    let (m, o, s) = (m.display(), o.display(), s.display());
    let device = Mapped::new(&format!(
        "0 65536 remap {m} {s} 0 8192\n65536 65536 remap {o} {s} 8192 8192"
    ));
    let opened = Direct::open(&device.path());
    let bad = Fault::bad(Direction::Both);
    main.disk().spoil(65528, 8, bad);
    other.disk().spoil(0, 8, bad);
    opened.write(65520, &stamps(65520, 32, 1)).unwrap();
    assert!(opened.read(65520, 32).unwrap() == stamps(65520, 32, 1));
    let status = device.status();
    assert_eq!(status.matches("v3.0 8/").count(), 2, "{status}");
}

/// A read-only device is read, and writes nothing.
#[test]
fn a_read_only_table_writes_nothing() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let bad = Fault::bad(Direction::Both);
    remap.main.disk().spoil(100, 1, bad);
    remap.open().write(96, &stamps(96, 16, 1)).unwrap();
    remap.deactivate();
    remap.record();
    {
        let device = Mapped::try_read_only(&remap.line()).expect("make it read-only");
        let mut content = vec![0; 112 * 512];
        let mut file = File::open(device.path()).unwrap();
        file.read_exact(&mut content).unwrap();
        assert!(content[96 * 512..] == stamps(96, 16, 1));
    }
    assert_eq!(remap.main.disk().record().writes, 0);
    assert_eq!(remap.spare.disk().record().writes, 0);
}

/// The module goes when nobody uses it, and not before.
#[test]
fn the_module_can_be_unloaded() {
    let _test = vmtest::begin!();
    {
        let _remap = Remap::new(512);
        assert_ne!(run("rmmod dm_remap").status, 0);
    }
    for _ in 0..5 {
        unload();
        load();
    }
}
