// SPDX-License-Identifier: GPL-2.0
//! E3, E5, M7: moves to the spare and back while the same blocks are in use.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::bad;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Request;
use vmtest::guest::stamps;
use vmtest::guest::Dice;
use vmtest::guest::Direct;
use vmtest::guest::Remap;

/// Writers at work in the same blocks, each with sectors of its own, so that each knows what it
/// wrote last, while `job` runs: so many times, and until each of them has written often. Whatever a writer reads
/// must be that.
fn contended(remap: &Remap, blocks: u64, unit: u64, times: u32, mut job: impl FnMut()) {
    const WRITERS: u64 = 4;
    let end = AtomicBool::new(false);
    let counts: [AtomicU64; WRITERS as usize] = Default::default();
    let path = remap.path();
    std::thread::scope(|scope| {
        let (end, path) = (&end, &path);
        let writers: Vec<_> = (0..WRITERS)
            .zip(&counts)
            .map(|(writer, count)| {
                scope.spawn(move || {
                    let device = Direct::open(path);
                    let mut dice = Dice::new(writer + 1);
                    let mut written = vec![0; blocks as usize];
                    let mut generation = 0;
                    while !end.load(Ordering::Relaxed) {
                        let block = dice.roll(blocks / WRITERS) * WRITERS + writer;
                        let sector = block * unit;
                        generation += 1;
                        device
                            .write(sector, &stamps(sector, unit, generation))
                            .unwrap();
                        written[block as usize] = generation;
                        // Another one, which was written some time ago.
                        let block = dice.roll(blocks / WRITERS) * WRITERS + writer;
                        check(&device, block, unit, &written);
                        count.store(generation, Ordering::Relaxed);
                    }
                    for block in (writer..blocks).step_by(WRITERS as usize) {
                        check(&device, block, unit, &written);
                    }
                })
            })
            .collect();
        let is_enough = || {
            let often = |count: &AtomicU64| count.load(Ordering::Relaxed) > 20;
            // One that is through has found a loss.
            counts.iter().all(often) || writers.iter().any(|writer| writer.is_finished())
        };
        let mut done = 0;
        while done < times || !is_enough() {
            job();
            done += 1;
        }
        end.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("a writer");
        }
    });
}

#[track_caller]
fn check(device: &Direct, block: u64, unit: u64, written: &[u64]) {
    let sector = block * unit;
    let expected = match written[block as usize] {
        0 => vec![0; (unit * 512) as usize],
        generation => stamps(sector, unit, generation),
    };
    assert!(
        device.read(sector, unit).unwrap() == expected,
        "an update of sector {sector} was lost"
    );
}

/// E3, E5: no update is lost while blocks go to the spare and back, again and again.
#[test]
fn no_update_is_lost_while_blocks_move_to_and_fro() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = Remap::new(block);
        let sectors = 64 * unit;
        contended(&remap, 64, unit, 3, || {
            remap
                .device()
                .message(&format!("remap 0 {sectors}"))
                .unwrap();
            let back = format!("remove_remap 0 {sectors}");
            remap.device().message(&back).unwrap();
        });
        assert_eq!(remap.device().remapped(), 0);
    }
}

/// E3, E5: the same while writes fail and are moved by themselves.
#[test]
fn no_update_is_lost_while_blocks_fail_and_move() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let mut dice = Dice::new(9);
    contended(&remap, 256, 1, 4, || {
        // What fails writes is read as before, so that nothing is lost by it.
        let sector = dice.roll(256);
        let fault = super::unwritable();
        remap.main.disk().spoil(sector, 1 + dice.roll(4), fault);
        let first = dice.roll(200);
        remap
            .device()
            .message(&format!("remap {first} 56"))
            .unwrap();
        remap.main.disk().heal(0, 256);
        remap.device().message("remove_remap 0 256").unwrap();
    });
    assert_eq!(remap.device().remapped(), 0);
}

/// E5: I/O elsewhere does not notice a long move, nor do reads of what is moved.
#[test]
fn others_do_not_notice_a_move() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 256, 1)).unwrap();
    let spare = remap.spare.disk().sectors();
    // The move cannot get further than its first write.
    remap.spare.disk().hold(0..spare, Direction::Write);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| remap.device().message("remap 0 256"));
        assert!(eventually(|| !remap.spare.disk().waiting().is_empty()));
        for round in 0..20 {
            let sector = 4096 + round * 64;
            device.write(sector, &stamps(sector, 64, 1)).unwrap();
            assert!(device.read(0, 256).unwrap() == stamps(0, 256, 1));
        }
        assert!(!mover.is_finished());
        remap.spare.disk().release();
        mover.join().unwrap().unwrap();
    });
    assert_eq!(remap.device().remapped(), 256);
}

/// E3: a move waits for writes that were on their way before, and has their content.
#[test]
fn a_move_waits_for_earlier_writes() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 64, 1)).unwrap();
    remap.main.disk().hold(8..16, Direction::Write);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| device.write(8, &stamps(8, 8, 2)));
        assert!(eventually(|| remap.main.disk().waiting().len() == 1));
        let mover = scope.spawn(|| remap.device().message("remap 0 64"));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!mover.is_finished(), "the move overtook a write");
        remap.main.disk().release();
        writer.join().unwrap().unwrap();
        mover.join().unwrap().unwrap();
    });
    assert_eq!(remap.device().remapped(), 64);
    assert!(device.read(8, 8).unwrap() == stamps(8, 8, 2));
    assert!(device.read(16, 48).unwrap() == stamps(16, 48, 1));
}

/// P10, M7: what was moved back is written to again while the move waits for slow bios elsewhere before it
/// gives the slots back.
#[test]
fn writes_do_not_wait_for_slots_to_be_free() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    device.write(0, &stamps(0, 128, 1)).unwrap();
    remap.device().message("remap 0 128").unwrap();
    let elsewhere = 8192..8200;
    for sectors in [0..128, elsewhere.clone()] {
        remap.main.disk().hold(sectors, Direction::Write);
    }
    let waits = |sectors: Range<u64>| {
        let main = remap.main.disk();
        let is_there = |one: &Request| sectors.contains(&one.sector);
        main.waiting().iter().any(is_there)
    };
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| remap.device().message("remove_remap 0 128"));
        // The other write comes while the gate is closed.
        assert!(eventually(|| waits(0..128)), "nothing is moved");
        let slow = scope.spawn(|| device.write(8192, &stamps(8192, 8, 1)));
        assert!(eventually(|| waits(elsewhere.clone())));
        {
            let mut main = remap.main.disk();
            main.release();
            main.hold(elsewhere.clone(), Direction::Write);
        }
        let moved = || remap.device().remapped() == 0;
        assert!(eventually(moved));
        let writer = scope.spawn(|| device.write(0, &stamps(0, 8, 2)));
        let written = eventually(|| writer.is_finished());
        let overtaken = mover.is_finished() || slow.is_finished();
        remap.main.disk().release();
        assert!(written, "a write waited for another one");
        assert!(!overtaken, "slots were free too early");
        slow.join().unwrap().unwrap();
        writer.join().unwrap().unwrap();
        mover.join().unwrap().unwrap();
    });
    // The same slots again.
    remap.device().message("remap 0 128").unwrap();
    assert_eq!(remap.device().remapped(), 16);
    assert!(device.read(0, 8).unwrap() == stamps(0, 8, 2));
    assert!(device.read(8, 120).unwrap() == stamps(8, 120, 1));
}

/// M7: a move back that main refuses leaves the block on the spare, with all its updates.
#[test]
fn a_move_back_that_main_refuses_changes_nothing() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    remap.main.disk().spoil(13, 1, bad());
    remap.device().message("remap 0 64").unwrap();
    // It was unreadable, so it is pending, and a write gives it content.
    let device = remap.open();
    device.write(0, &stamps(0, 64, 1)).unwrap();
    assert_eq!(remap.device().remapped(), 64);
    assert!(remap.device().message("remove_remap 0 64").is_err());
    assert!(remap.slot_of(13).is_some(), "{}", remap.device().status());
    assert!(device.read(0, 64).unwrap() == stamps(0, 64, 1));
    device.write(0, &stamps(0, 64, 2)).unwrap();
    assert!(device.read(0, 64).unwrap() == stamps(0, 64, 2));
    remap.main.disk().heal(13, 1);
    remap.device().message("remove_remap 0 64").unwrap();
    assert_eq!(remap.device().remapped(), 0);
    assert!(device.read(0, 64).unwrap() == stamps(0, 64, 2));
}

/// M7: what is moved back is durable on main before the slot is free.
#[test]
fn a_move_back_survives_a_power_cut() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    {
        let device = remap.open();
        remap.device().message("remap 0 64").unwrap();
        device.write(0, &stamps(0, 64, 1)).unwrap();
        device.flush().unwrap();
        remap.device().message("remove_remap 0 64").unwrap();
    }
    remap.power_cut(vmtest::guest::sickdisk::PowerCut::Drop);
    assert_eq!(remap.device().remapped(), 0);
    assert!(remap.open().read(0, 64).unwrap() == stamps(0, 64, 1));
}

/// M7: everything goes back, and all slots are free; updates that come meanwhile are not lost.
#[test]
fn clear_all_moves_everything_back() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    {
        let device = remap.open();
        device.write(0, &stamps(0, 2048, 1)).unwrap();
        remap.device().message("remap 0 64").unwrap();
        remap.device().message("remap 1000 100").unwrap();
        remap.main.disk().spoil(500, 9, bad());
        device.write(496, &stamps(496, 32, 1)).unwrap();
        assert_eq!(remap.device().remapped(), 173);
        remap.main.disk().heal(500, 9);
        remap.device().message("clear_all").unwrap();
        assert_eq!(remap.device().status_fraction(2).0, 0);
        assert!(device.read(0, 2048).unwrap() == stamps(0, 2048, 1));
    }
    remap.reactivate();
    assert_eq!(remap.device().status_fraction(2).0, 0);
    assert!(remap.open().read(0, 2048).unwrap() == stamps(0, 2048, 1));
    let remap = Remap::new(512);
    contended(&remap, 256, 1, 3, || {
        remap.device().message("remap 0 256").unwrap();
        remap.device().message("clear_all").unwrap();
    });
    assert_eq!(remap.device().remapped(), 0);
}

/// M7: what main refuses stays on the spare, and the rest goes back.
#[test]
fn clear_all_leaves_what_main_refuses() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(20, 3, bad());
    device.write(0, &stamps(0, 64, 1)).unwrap();
    remap.device().message("remap 0 64").unwrap();
    assert_eq!(remap.device().remapped(), 64);
    let reply = remap.device().message("clear_all").unwrap();
    assert!(reply.contains("61 blocks moved back"), "{reply}");
    assert!(reply.contains("3 stay"), "{reply}");
    assert_eq!(remap.device().remapped(), 3);
    assert!(device.read(0, 64).unwrap() == stamps(0, 64, 1));
}
