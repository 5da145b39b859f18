// SPDX-License-Identifier: GPL-2.0
//! P9, D1: the only spare is unplugged and back under another name, while its device is in use.

use std::fs::File;
use std::path::PathBuf;

use super::disk;
use super::line;
use super::line_of;
use super::MAIN;
use super::SPARE;
use vmtest::guest::eventually;
use vmtest::guest::forge_superblocks;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;

/// What disks of different names have in common.
struct Medium(PathBuf);

impl Medium {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(name);
        let file = File::create(&path).expect("a file");
        file.set_len(SPARE * 512).expect("its size");
        Self(path)
    }

    /// A disk of its own name. To be plugged before the device is made: one that is open cannot go.
    fn plug(&self) -> SickDisk {
        vmtest::guest::load();
        SickDisk::start(Options::file(&self.0)).expect("start a disk")
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn unplug(disk: &SickDisk) {
    disk.disk().die(Status::Offline, Direction::Both);
}

/// A device with a remap at sector 1000, of generation 1.
fn used(main: &SickDisk, spare: &SickDisk) -> Mapped {
    main.disk().spoil(1000, 8, Fault::bad(Direction::Both));
    let device = Mapped::new(&line(main, spare, ""));
    Direct::open(&device.path())
        .write(1000, &stamps(1000, 8, 1))
        .unwrap();
    device
}

/// It is taken, in any state of the table, and goes on with all that it holds.
#[test]
fn the_only_spare_is_back_under_another_name() {
    let _test = vmtest::begin!();
    for suspended in [false, true] {
        let (main, medium) = (disk(MAIN), Medium::new("renamed"));
        let (spare, again) = (medium.plug(), medium.plug());
        let device = used(&main, &spare);
        Direct::open(&device.path()).flush().unwrap();
        unplug(&spare);
        assert_ne!(again.path(), spare.path());
        if suspended {
            device.suspend_noflush().unwrap();
        }
        device.load(&line(&main, &again, "")).unwrap();
        device.resume().unwrap();
        let opened = Direct::open(&device.path());
        assert!(opened.read(1000, 8).unwrap() == stamps(1000, 8, 1));
        opened.flush().unwrap();
        // It takes what fails from now on, and the old one has no part in it.
        main.disk().spoil(2000, 8, Fault::bad(Direction::Both));
        opened.write(2000, &stamps(2000, 8, 2)).unwrap();
        drop(opened);
        drop(spare);
        assert_eq!(device.remapped(), 16);
        device.remove();
        let device = Mapped::new(&line(&main, &again, ""));
        let opened = Direct::open(&device.path());
        assert!(opened.read(1000, 8).unwrap() == stamps(1000, 8, 1));
        assert!(opened.read(2000, 8).unwrap() == stamps(2000, 8, 2));
    }
}

/// What was in its cache may be gone: the next flush tells.
#[test]
fn what_was_not_flushed_before_is_told() {
    let _test = vmtest::begin!();
    let (main, medium) = (disk(MAIN), Medium::new("cached"));
    let (spare, again) = (medium.plug(), medium.plug());
    let device = used(&main, &spare);
    let opened = Direct::open(&device.path());
    opened.flush().unwrap();
    // The remap is durable; this is in the cache.
    opened.write(1000, &stamps(1000, 8, 2)).unwrap();
    unplug(&spare);
    device.load(&line(&main, &again, "")).unwrap();
    device.suspend_noflush().unwrap();
    device.resume().unwrap();
    assert!(opened.flush().is_err(), "nobody heard of it");
    opened.flush().unwrap();
}

/// One that was used by somebody else meanwhile is another one by now, and so is a copy of a spare that
/// answers still.
#[test]
fn a_spare_that_was_used_meanwhile_is_refused() {
    let _test = vmtest::begin!();
    let (main, medium) = (disk(MAIN), Medium::new("foreign"));
    let (spare, again) = (medium.plug(), medium.plug());
    let device = used(&main, &spare);
    let table = line(&main, &again, "");
    let refusal = device.load(&table).unwrap_err();
    assert!(
        refusal.reason.contains("copy of one that is in use"),
        "{refusal:?}"
    );
    unplug(&spare);
    let sector = vmtest::guest::superblocks(&again)[0];
    let mut superblock = [0; 4096];
    again.disk().peek(sector, &mut superblock).unwrap();
    let epoch = u32::from_le_bytes(superblock[96..100].try_into().unwrap());
    forge_superblocks(&again, 96, &(epoch + 1).to_le_bytes());
    let refusal = device.load(&table).unwrap_err();
    assert!(
        refusal.reason.contains("not the one that was lost"),
        "{refusal:?}"
    );
    forge_superblocks(&again, 96, &epoch.to_le_bytes());
    device.load(&table).unwrap();
    device.resume().unwrap();
    let opened = Direct::open(&device.path());
    assert!(opened.read(1000, 8).unwrap() == stamps(1000, 8, 1));
}

/// The same of one of several spares that nobody has missed so far.
#[test]
fn one_of_several_spares_is_back_under_another_name() {
    let _test = vmtest::begin!();
    let (main, medium, other) = (disk(MAIN), Medium::new("one"), disk(SPARE));
    let (spare, again) = (medium.plug(), medium.plug());
    let both = |spare: &SickDisk| {
        let more = format!("2 spare {}", other.path().display());
        line_of(&main.path(), &spare.path(), &more)
    };
    main.disk().spoil(1000, 8, Fault::bad(Direction::Both));
    let device = Mapped::new(&both(&spare));
    Direct::open(&device.path())
        .write(1000, &stamps(1000, 8, 1))
        .unwrap();
    Direct::open(&device.path()).flush().unwrap();
    unplug(&spare);
    device.load(&both(&again)).unwrap();
    device.resume().unwrap();
    let opened = Direct::open(&device.path());
    assert!(opened.read(1000, 8).unwrap() == stamps(1000, 8, 1));
    // That is settled in the background.
    assert!(eventually(
        || device.status_value("spares").as_deref() == Some("2/2")
    ));
}
