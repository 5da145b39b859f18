// SPDX-License-Identifier: GPL-2.0
//! A disk that takes very long is no hung task: such reports are a reason to panic on some machines.

use std::time::Duration;

use super::unreadable;
use super::unwritable;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::stamps;
use vmtest::guest::HungTasks;
use vmtest::guest::Remap;

/// After this time tasks are taken for hung, while disks take three times as long.
const HUNG: Duration = Duration::from_secs(4);

/// A failing write waits for its slot.
#[test]
fn slow_slots_hang_nobody() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    remap.main.disk().spoil(0, 8, unwritable());
    remap
        .spare
        .disk()
        .hold(0..Remap::SPARE_SECTORS, Direction::Write);
    std::thread::scope(|scope| {
        let _released = remap.spare.release_at_end();
        let reports = HungTasks::sought_after(HUNG);
        let device = remap.open();
        scope.spawn(move || device.write(0, &stamps(0, 8, 1)).unwrap());
        let begun = || remap.main.disk().record().errors > 0;
        assert!(eventually(begun));
        reports.have_come_if_ever();
        remap.spare.disk().release();
    });
}

/// One repairer commits; another one, a message and the status wait until it has.
#[test]
fn slow_metadata_hangs_nobody() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let regions = [0, 4096, 8192];
    for sector in regions {
        remap.main.disk().spoil(sector, 8, unwritable());
    }
    let slots = remap.first_slot();
    remap.spare.disk().hold(0..slots, Direction::Write);
    std::thread::scope(|scope| {
        let _released = remap.spare.release_at_end();
        let reports = HungTasks::sought_after(HUNG);
        let errors = || remap.main.disk().record().errors;
        for sector in regions {
            let (before, device) = (errors(), remap.open());
            scope.spawn(move || device.write(sector, &stamps(sector, 8, 1)).unwrap());
            assert!(eventually(|| errors() > before));
        }
        scope.spawn(|| remap.device().message("metadata_status").unwrap());
        scope.spawn(|| remap.device().status());
        reports.have_come_if_ever();
        remap.spare.disk().release();
    });
    assert_eq!(remap.device().remapped(), 3);
}

/// A suspend waits for a move that goes on after its bio was answered.
#[test]
fn a_suspend_that_waits_for_a_slow_move_does_not_hang() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    remap
        .spare
        .disk()
        .hold(0..Remap::SPARE_SECTORS, Direction::Write);
    std::thread::scope(|scope| {
        let _released = remap.spare.release_at_end();
        // It is moved after it was answered, unless others are in the way: then it is found out again.
        assert!(eventually(|| {
            remap.main.disk().heal(0, 8);
            remap.main.disk().spoil(0, 1, unreadable().times(2));
            device.read(0, 8).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            !remap.spare.disk().waiting().is_empty()
        }));
        let reports = HungTasks::sought_after(HUNG);
        let suspending = scope.spawn(|| remap.device().suspend().unwrap());
        reports.have_come_if_ever();
        assert!(!suspending.is_finished());
        remap.spare.disk().release();
    });
    remap.device().resume().unwrap();
    assert_eq!(remap.device().remapped(), 1);
}
