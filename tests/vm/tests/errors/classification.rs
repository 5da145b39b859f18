// SPDX-License-Identifier: GPL-2.0
//! P6, E2: which errors lead to remaps. Each status meets each operation, and only what says that
//! the medium is bad, about blocks that fail by themselves, costs a slot.

use std::path::Path;

use super::bad;
use super::number;
use super::slots_used;
use super::unreadable;
use super::unwritable;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Remap;

/// What drives say about a bad place on their medium.
const SUSPECTS: [Status; 3] = [Status::Medium, Status::Io, Status::Target];

/// Everything else that they say.
fn innocents() -> impl Iterator<Item = Status> {
    let all = Status::ALL.into_iter().map(|(status, _)| status);
    all.filter(|status| !SUSPECTS.contains(status))
}

/// A suspect error of a write moves the blocks that fail, and only these; it is not told.
#[test]
fn a_suspect_write_error_moves_what_is_bad() {
    let _test = vmtest::begin!();
    for status in SUSPECTS {
        let remap = Remap::new(512);
        let device = remap.open();
        let fault = unwritable().status(status);
        remap.main.disk().spoil(105, 2, fault);
        remap.main.disk().spoil(120, 1, fault);
        device.write(96, &stamps(96, 32, 1)).unwrap();
        assert!(device.read(96, 32).unwrap() == stamps(96, 32, 1));
        assert_eq!(remap.device().remapped(), 3, "{status:?}");
        for (sector, spare) in [
            (104, false),
            (105, true),
            (106, true),
            (107, false),
            (120, true),
        ] {
            assert_eq!(remap.slot_of(sector).is_some(), spare, "sector {sector}");
        }
    }
}

/// A suspect error of a read is told as it is, and costs no more than a mark: nothing is moved.
#[test]
fn a_suspect_read_error_is_told_as_it_is() {
    let _test = vmtest::begin!();
    for status in SUSPECTS {
        let remap = Remap::new(512);
        let device = remap.open();
        device.write(96, &stamps(96, 16, 1)).unwrap();
        remap.main.disk().spoil(100, 1, unreadable().status(status));
        let error = device.read(96, 16).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(status.errno()), "{status:?}");
        assert_eq!(remap.device().remapped(), 0, "{status:?}");
        assert_eq!(remap.device().pending(), 1, "{status:?}");
    }
}

/// Any other error of a read or a write that was redirected goes up as it is, and the slot keeps
/// its place and its content.
#[test]
fn innocent_errors_of_the_spare_pass_up_unchanged() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(100, 8, bad());
    device.write(96, &stamps(96, 16, 1)).unwrap();
    let slot = remap.slot_of(100).expect("a slot");
    for status in innocents() {
        let fault = Fault::bad(Direction::Both).status(status);
        remap.spare.disk().spoil(slot, 8, fault);
        let error = device.read(100, 1).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(status.errno()),
            "read, {status:?}"
        );
        let error = device.write(100, &stamps(100, 1, 9)).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(status.errno()),
            "write, {status:?}"
        );
        remap.spare.disk().heal(slot, 8);
        assert!(
            device.read(96, 16).unwrap() == stamps(96, 16, 1),
            "{status:?}"
        );
        assert_eq!(number(&remap, "bad_slots"), 0, "{status:?}");
        assert_eq!(remap.slot_of(100), Some(slot), "{status:?}");
    }
}

/// An innocent error in the middle of a repair ends it with that error; nothing is moved.
#[test]
fn a_repair_that_meets_an_innocent_error_passes_it_up() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    for status in innocents() {
        // The first failure is met in the middle, the other when parts are tried.
        remap.main.disk().spoil(100, 1, bad());
        let other = bad().status(status);
        remap.main.disk().spoil(101, 1, other);
        let error = device.write(96, &stamps(96, 16, 1)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(status.errno()), "{status:?}");
        assert_eq!(slots_used(&remap), 0, "{status:?}");
        remap.main.disk().heal(100, 2);
    }
    device.write(96, &stamps(96, 16, 2)).unwrap();
    assert!(device.read(96, 16).unwrap() == stamps(96, 16, 2));
}

/// A failed discard is told, whatever the error, and costs nothing: nobody lost anything.
#[test]
fn a_failed_discard_passes_up_unchanged() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let path = remap.path();
    remap.open().write(0, &stamps(0, 64, 1)).unwrap();
    for (status, name) in Status::ALL {
        // The kernel itself takes this one for "done".
        if status == Status::Unsupported {
            continue;
        }
        remap.main.disk().spoil(8, 1, unwritable().status(status));
        let ran = run(&format!(
            "blkdiscard --force -o 0 -l 32768 {}",
            path.display()
        ));
        assert_ne!(ran.status, 0, "{name}");
        remap.main.disk().heal(8, 1);
        assert_eq!(slots_used(&remap), 0, "{name}");
    }
    assert!(remap.open().read(0, 64).unwrap() == stamps(0, 64, 1));
}

/// A main that got smaller fails beyond its end, which says nothing about any medium.
#[test]
fn a_main_that_shrinks_costs_no_slot() {
    let _test = vmtest::begin!();
    vmtest::guest::load();
    let disk = SickDisk::start(Options::memory(32 << 20)).unwrap();
    let spare = SickDisk::start(Options::memory(8 << 20)).unwrap();
    let volume = |sectors: u64| format!("0 {sectors} linear {} 0", disk.path().display());
    let main = Mapped::new(&volume(65536));
    let table = |main: &Path| {
        let (main, spare) = (main.display(), spare.path());
        format!("0 65536 dm-remap {main} {}", spare.display())
    };
    let mapped = Mapped::new(&table(&main.path()));
    let device = Direct::open(&mapped.path());
    main.load(&volume(32768)).unwrap();
    main.resume().unwrap();
    assert!(device.write(40000, &stamps(40000, 8, 1)).is_err());
    assert!(device.read(40000, 8).is_err());
    assert_eq!(mapped.status_fraction(2).0, 0, "{}", mapped.status());
    device.write(0, &stamps(0, 8, 1)).unwrap();
    drop(device);
    mapped.remove();
    main.remove();
}

/// Read errors in the background of nobody's asking are not counted as pending: only the worker's
/// own try of the block itself does that.
#[test]
fn a_read_that_works_when_tried_again_leaves_nothing() {
    let _test = vmtest::begin!();
    for status in SUSPECTS {
        let remap = Remap::new(512);
        let device = remap.open();
        device.write(96, &stamps(96, 16, 1)).unwrap();
        let once = unreadable().status(status).times(1);
        remap.main.disk().spoil(100, 1, once);
        assert!(device.read(96, 16).unwrap() == stamps(96, 16, 1));
        assert_eq!(slots_used(&remap), 0, "{status:?}");
    }
}
