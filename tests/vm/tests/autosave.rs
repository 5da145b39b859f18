// SPDX-License-Identifier: GPL-2.0
//! Counters get to the spare while the device is in use: the limit `autosave_seconds`.

use std::thread::sleep;
use std::time::Duration;

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::superblock;
use vmtest::guest::Remap;

/// How many read errors the spare knows of.
fn on_spare(remap: &Remap) -> u64 {
    superblock(&remap.spare).statistics.read_errors
}

/// Has one read error more be counted, and nothing else happen.
#[track_caller]
fn count(remap: &Remap) {
    remap.open().read(800, 8).expect_err("an unreadable block");
}

#[track_caller]
fn assert_counted(remap: &Remap, errors: u64) {
    let counted = remap.device().status_value("errors");
    assert_eq!(counted, Some(format!("W0:R{errors}")));
}

/// A device that has counted a read error, which is on the spare.
#[track_caller]
fn counting(arguments: &str) -> Remap {
    let remap = Remap::with(4096, arguments);
    let unreadable = Fault::bad(Direction::Read);
    remap.main.disk().spoil(800, 8, unreadable);
    count(&remap);
    // From then on nothing is written because of it.
    assert!(eventually(|| remap.device().pending() == 1));
    remap.device().message("save").unwrap();
    assert_eq!(on_spare(&remap), 1);
    remap
}

/// P17: a power cut takes no counters away that are older than the limit.
#[test]
fn counters_survive_a_power_cut() {
    let _test = vmtest::begin!();
    let mut remap = counting("2 autosave_seconds 1");
    count(&remap);
    assert!(eventually(|| on_spare(&remap) == 2), "it was not saved");
    remap.power_cut(PowerCut::Drop);
    assert_counted(&remap, 2);
}

/// With 0 they are written at a suspend, a removal and by message, and the power cut comes before.
#[test]
fn none_are_saved_in_use_if_that_is_switched_off() {
    let _test = vmtest::begin!();
    let mut remap = counting("2 autosave_seconds 0");
    count(&remap);
    remap.power_cut(PowerCut::Drop);
    assert_counted(&remap, 1);
}

/// The limit can be set while the device is in use, and what the spare has is not written again.
#[test]
fn nothing_is_written_that_the_spare_has() {
    let _test = vmtest::begin!();
    let remap = counting("2 autosave_seconds 0");
    count(&remap);
    remap.device().message("set autosave_seconds 1").unwrap();
    assert!(eventually(|| on_spare(&remap) == 2), "it was not saved");
    let written = superblock(&remap.spare).sequence;
    // A few times of what was set; on a slow machine there may be fewer looks.
    sleep(Duration::from_secs(3));
    assert_eq!(superblock(&remap.spare).sequence, written);
    count(&remap);
    assert!(eventually(|| on_spare(&remap) == 3), "it was not saved");
}

/// A device may be suspended, changed and removed while its counters are being saved.
#[test]
fn it_ends_with_the_table() {
    let _test = vmtest::begin!();
    let mut remap = counting("2 autosave_seconds 1");
    for round in 2..6 {
        count(&remap);
        assert!(eventually(|| on_spare(&remap) == round));
        for _ in 0..round {
            remap.device().load(&remap.line()).unwrap();
            remap.device().suspend().unwrap();
            remap.device().resume().unwrap();
        }
        remap.reactivate();
        assert_counted(&remap, round);
    }
}
