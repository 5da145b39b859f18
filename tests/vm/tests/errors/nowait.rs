// SPDX-License-Identifier: GPL-2.0
//! P8: REQ_NOWAIT: EAGAIN where it would have to wait, served where not.

use std::io;

use super::bad;
use super::unreadable;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

/// What BLK_STS_AGAIN becomes.
const EAGAIN: i32 = 11;

#[track_caller]
fn assert_again<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.expect_err("it did not wait, and did not say so");
    assert_eq!(error.raw_os_error(), Some(EAGAIN), "{error}");
}

/// Good blocks, slots, and both in one bio.
#[test]
fn nowait_is_served_where_nothing_waits() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(100, 3, bad());
    device.write(96, &stamps(96, 16, 1)).unwrap();
    assert_eq!(remap.device().remapped(), 3);
    for (sector, length) in [(4096, 8), (100, 3), (96, 16)] {
        let data = stamps(sector, length, 2);
        device.write_nowait(sector, &data).unwrap();
        assert!(device.read_nowait(sector, length).unwrap() == data);
        assert!(device.read(sector, length).unwrap() == data);
    }
}

/// A write of a pending block needs the worker.
#[test]
fn nowait_writes_of_pending_blocks_are_to_come_again() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    remap.main.disk().spoil(100, 1, unreadable());
    assert!(device.read(100, 1).is_err());
    assert_eq!(remap.device().pending(), 1);
    assert_again(device.write_nowait(100, &stamps(100, 1, 2)));
    assert_eq!(remap.device().pending(), 1);
    device.write(100, &stamps(100, 1, 2)).unwrap();
    // Now it has a place, and waits no more.
    device.write_nowait(100, &stamps(100, 1, 3)).unwrap();
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 3));
}

/// A write behind the gate would have to wait for the move; a read would not.
#[test]
fn nowait_writes_behind_the_gate_are_to_come_again() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 256, 1)).unwrap();
    let spare = remap.spare.disk().sectors();
    remap.spare.disk().hold(0..spare, Direction::Write);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| remap.device().message("remap 64 8"));
        let gated = || {
            let answer = device.write_nowait(64, &stamps(64, 8, 2));
            answer.is_err_and(|error| error.raw_os_error() == Some(EAGAIN))
        };
        let gated = eventually(gated);
        let read = device.read_nowait(64, 8);
        let elsewhere = device.write_nowait(4096, &stamps(4096, 8, 1));
        remap.spare.disk().release();
        mover.join().unwrap().unwrap();
        assert!(gated, "the gate never closed");
        read.unwrap();
        elsewhere.unwrap();
    });
    device.write_nowait(64, &stamps(64, 8, 3)).unwrap();
    assert!(device.read(64, 8).unwrap() == stamps(64, 8, 3));
    assert_eq!(remap.device().remapped(), 8);
}
