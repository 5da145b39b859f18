// SPDX-License-Identifier: GPL-2.0
//! E8: suspends of every kind, in the middle of repairs and of long messages, and suspends that are
//! given up.

use std::process::Child;
use std::process::Command;
use std::time::Duration;

use super::bad;
use super::unwritable;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

/// Every kind that device mapper knows.
const KINDS: [&[&str]; 4] = [
    &[],
    &["--noflush"],
    &["--nolockfs"],
    &["--noflush", "--nolockfs"],
];

/// A device on slow disks that has much to repair when it is written to.
fn slow() -> Remap {
    let remap = Remap::new(512);
    remap.main.disk().spoil(0, 4096, unwritable());
    let spare = remap.spare.disk().sectors();
    let delay = Duration::from_millis(5);
    remap.spare.disk().slow(0..spare, delay);
    remap
}

/// E8: a suspend in the middle of a repair waits for the repair or has the bio queued; either way
/// the bio ends well.
#[test]
fn every_kind_of_suspend_amid_a_repair() {
    let _test = vmtest::begin!();
    let remap = slow();
    for (round, kind) in (0..).zip(KINDS) {
        let first = round * 1024;
        std::thread::scope(|scope| {
            let device = remap.open();
            let writer = scope.spawn(move || device.write(first, &stamps(first, 256, 1)));
            let begun = || remap.main.disk().record().errors > 0;
            assert!(eventually(begun));
            let suspended = remap.device().suspend_with(kind);
            suspended.unwrap_or_else(|refusal| panic!("{kind:?}: {refusal:?}"));
            remap.device().resume().unwrap();
            writer.join().unwrap().unwrap();
        });
        let read = remap.open().read(first, 256).unwrap();
        assert!(read == stamps(first, 256, 1), "{kind:?}");
        remap.main.disk().record_mut().restart(false);
    }
    assert_eq!(remap.device().remapped(), 1024);
}

/// E8: a suspend in the middle of a long message ends it, and the message answers with what was done and where to go
/// on. That stays, and the message can be given again.
#[test]
fn every_kind_of_suspend_amid_a_long_message() {
    let _test = vmtest::begin!();
    let disk = || Options::memory(32 << 20).logical_block(4096);
    let remap = Remap::on(disk(), disk(), "");
    let device = remap.open();
    let steps = || (0..SECTORS).step_by(2048);
    for sector in steps() {
        device.write(sector, &stamps(sector, 2048, 1)).unwrap();
    }
    // It takes half a minute by itself, and a suspend that waits for it finds it done.
    const SECTORS: u64 = 16_384;
    let delay = Duration::from_millis(250);
    remap.main.disk().slow(0..SECTORS, delay);
    for message in [
        format!("remap 0 {SECTORS}"),
        format!("remove_remap 0 {SECTORS}"),
    ] {
        for kind in KINDS {
            std::thread::scope(|scope| {
                let before = remap.device().remapped();
                let sender = scope.spawn(|| remap.device().message(&message));
                let begun = || remap.device().remapped() != before;
                assert!(eventually(begun), "{message} does not begin");
                let suspended = remap.device().suspend_with(kind);
                suspended.unwrap_or_else(|refusal| panic!("{kind:?}: {refusal:?}"));
                let reply = sender.join().unwrap().expect("what was done");
                let there = remap.device().remapped();
                let (done, next) = reply.split_once('\n').expect("where it stopped");
                let blocks = there.abs_diff(before);
                assert!(done.starts_with(&format!("{blocks} blocks ")), "{reply}");
                let next: u64 = next.rsplit_once("next=").unwrap().1.parse().unwrap();
                assert!(next >= blocks * 8 && next < SECTORS, "{reply}");
                remap.device().resume().unwrap();
                assert_eq!(remap.device().remapped(), there, "{message}, {kind:?}");
            });
        }
        remap.main.disk().slow(0..SECTORS, Duration::ZERO);
        remap.device().message(&message).unwrap();
        let moved = if message.starts_with("remap") {
            SECTORS / 8
        } else {
            0
        };
        assert_eq!(remap.device().remapped(), moved, "{message}");
        for sector in steps() {
            let read = device.read(sector, 2048).unwrap();
            assert!(read == stamps(sector, 2048, 1), "{message}");
        }
        remap.main.disk().slow(0..SECTORS, delay);
    }
}

/// E8: what needs the disks answers EBUSY on a suspended device; what does not is answered.
#[test]
fn messages_to_a_suspended_device() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.device();
    device.message("remap 100").unwrap();
    for kind in KINDS {
        device.suspend_with(kind).unwrap();
        for message in [
            "remap 200",
            "remove_remap 100",
            "add_remap 300 8192 1",
            "save",
            "sync",
        ] {
            let refusal = device.message(message).unwrap_err();
            assert!(refusal.error.contains("busy"), "{message}: {refusal:?}");
        }
        assert_eq!(device.message("ping").unwrap(), "pong");
        assert!(device.message("verify 100").unwrap().contains("spare"));
        assert_eq!(device.remapped(), 1);
        device.resume().unwrap();
    }
    device.message("remap 200").unwrap();
    assert_eq!(device.remapped(), 2);
}

/// A `dmsetup suspend` that cannot end, as I/O of main is held.
fn stuck_suspend(remap: &Remap, kind: &[&str]) -> Child {
    let mut suspend = Command::new("dmsetup");
    suspend.arg("--noudevsync").arg("suspend").args(kind);
    let child = suspend.arg(remap.device().name()).spawn();
    child.expect("run dmsetup")
}

/// E8: a suspend that is given up while it waits for I/O leaves the device as it was: I/O goes on,
/// failed writes are moved, long messages run to their end.
#[test]
fn an_interrupted_suspend_leaves_everything_as_it_was() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    for kind in KINDS {
        std::thread::scope(|scope| {
            remap.main.disk().hold(0..8, Direction::Write);
            let device = remap.open();
            let writer = scope.spawn(move || device.write(0, &stamps(0, 8, 1)));
            assert!(eventually(|| remap.main.disk().waiting().len() == 1));
            let mut suspend = stuck_suspend(&remap, kind);
            // It is in the middle of it, or the test sees less.
            std::thread::sleep(Duration::from_millis(400));
            assert!(
                suspend.try_wait().unwrap().is_none(),
                "{kind:?} did not wait"
            );
            suspend.kill().unwrap();
            suspend.wait().unwrap();
            remap.main.disk().release();
            writer.join().unwrap().unwrap();
        });
        let state = vmtest::guest::succeed(&format!(
            "dmsetup info -c --noheadings -o suspended {}",
            remap.device().name()
        ));
        assert_eq!(state.trim(), "Active", "{kind:?}");
        let device = remap.open();
        remap.main.disk().spoil(64, 1, bad());
        device.write(64, &stamps(64, 8, 2)).unwrap();
        assert!(device.read(64, 8).unwrap() == stamps(64, 8, 2));
        remap.main.disk().heal(64, 1);
        // More than one step of a mover.
        remap.device().message("remap 1024 300").unwrap();
        remap.device().message("remove_remap 64").unwrap();
        remap.device().message("remove_remap 1024 300").unwrap();
        assert_eq!(remap.device().remapped(), 0, "{kind:?}");
    }
}

/// E8: bios that come back while a noflush suspend is under way are queued, not failed, and served
/// by the table that comes next.
#[test]
fn a_noflush_suspend_queues_what_comes_meanwhile() {
    let _test = vmtest::begin!();
    let remap = slow();
    let device = remap.device();
    device.suspend_with(&["--noflush"]).unwrap();
    std::thread::scope(|scope| {
        let path = remap.path();
        let writer =
            scope.spawn(move || vmtest::guest::Direct::open(&path).write(100, &stamps(100, 8, 1)));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!writer.is_finished());
        device.load(&remap.line()).unwrap();
        device.resume().unwrap();
        writer.join().unwrap().unwrap();
    });
    assert!(remap.open().read(100, 8).unwrap() == stamps(100, 8, 1));
    assert_eq!(device.remapped(), 8);
}
