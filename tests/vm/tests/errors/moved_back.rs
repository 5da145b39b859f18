// SPDX-License-Identifier: GPL-2.0
//! M7, M7a: main has to have what is moved back, and not its write cache.

use super::bad;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fading;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

const KINDS: [Fading; 2] = [Fading::Unreadable, Fading::Stale];

/// Blocks 0 to 64 on the spare, with content that main never had; block 13 of main fades.
fn fading(kind: Fading) -> Remap {
    let remap = Remap::new(512);
    remap.device().message("remap 0 64").unwrap();
    remap.open().write(0, &stamps(0, 64, 1)).unwrap();
    remap.main.disk().spoil(13, 1, Fault::fading(kind));
    remap
}

/// M7a: main takes a block and flushes well, and does not have it then: it stays on the spare, and all that
/// was moved has its content.
#[test]
fn a_block_that_fades_from_main_stays_on_the_spare() {
    let _test = vmtest::begin!();
    for kind in KINDS {
        let remap = fading(kind);
        let device = remap.open();
        assert!(
            remap.device().message("remove_remap 0 64").is_err(),
            "{kind:?}"
        );
        assert!(remap.slot_of(13).is_some(), "{kind:?}");
        assert_eq!(remap.device().remapped(), 64 - 13, "{kind:?}");
        assert!(
            device.read(0, 64).unwrap() == stamps(0, 64, 1),
            "{kind:?}: something is lost"
        );
        remap.main.disk().heal(13, 1);
        remap.device().message("remove_remap 0 64").unwrap();
        assert_eq!(remap.device().remapped(), 0, "{kind:?}");
        assert!(device.read(0, 64).unwrap() == stamps(0, 64, 1), "{kind:?}");
    }
}

/// M7a: the same when everything is moved back: all others are.
#[test]
fn clear_all_leaves_what_fades_from_main() {
    let _test = vmtest::begin!();
    for kind in KINDS {
        let remap = fading(kind);
        let reply = remap.device().message("clear_all").unwrap();
        assert_eq!(reply, "63 blocks moved back, 1 stay on the spare");
        assert!(remap.slot_of(13).is_some(), "{kind:?}");
        let device = remap.open();
        assert!(device.read(0, 64).unwrap() == stamps(0, 64, 1), "{kind:?}");
    }
}

/// E8, P17: it ends where the device is to be suspended amid blocks that lie anywhere, and where each of them takes
/// long: it says so, or has moved them all.
#[test]
fn clear_all_that_is_interrupted_does_not_say_done() {
    const BLOCKS: u64 = 12;
    let _test = vmtest::begin!();
    for suspends in [true, false] {
        let remap = Remap::new(4096);
        let device = remap.open();
        let sector = |number: u64| number * 4096;
        for number in 0..BLOCKS {
            remap.main.disk().spoil(sector(number), 8, bad());
            let data = stamps(sector(number), 8, 1);
            device.write(sector(number), &data).unwrap();
        }
        remap.main.disk().heal(0, sector(BLOCKS));
        let slot = remap.slot_of(sector(5)).expect("a slot");
        remap.spare.disk().hold(slot..slot + 8, Direction::Read);
        std::thread::scope(|scope| {
            let _released = remap.spare.release_at_end();
            let clearing = scope.spawn(|| remap.device().message("clear_all"));
            assert!(eventually(|| !remap.spare.disk().waiting().is_empty()));
            let suspending = suspends.then(|| scope.spawn(|| remap.device().suspend().unwrap()));
            // So that the part is over, and the suspend has come, if it is going to.
            std::thread::sleep(std::time::Duration::from_millis(300));
            remap.spare.disk().release();
            let cleared = clearing.join().unwrap();
            if let Some(suspending) = suspending {
                suspending.join().unwrap();
                remap.device().resume().unwrap();
            }
            let left = remap.device().remapped();
            let reply = cleared.unwrap();
            let moved = BLOCKS - left;
            let done = format!("{moved} blocks moved back, 0 stay");
            assert!(reply.starts_with(&done), "{reply}, {left} left");
            let stopped = reply.contains("stopped by a suspend");
            assert_eq!(stopped, left != 0, "{reply}, {left} left");
            assert!(suspends || !stopped, "{reply}");
        });
        for number in 0..BLOCKS {
            let content = device.read(sector(number), 8).unwrap();
            assert!(content == stamps(sector(number), 8, 1), "block {number}");
        }
    }
}
