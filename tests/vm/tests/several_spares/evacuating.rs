// SPDX-License-Identifier: GPL-2.0
//! P7, P9: a spare that was evacuated is out of use, which is seen, and can be put back; never all of them.

use std::time::Duration;
use std::time::Instant;

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;

use super::set::Set;
use super::set::BLOCK;

/// The last spare in use is not evacuated: what fails afterwards has somewhere to go.
#[test]
fn the_last_spare_in_use_is_not_evacuated() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1, 1]);
    let (_, both) = set.device().status_fraction(0);
    set.expect("idle", "none");
    set.device().message("evacuate 0").unwrap();
    set.expect("idle", "0");
    set.expect("spares", "2/2");
    let (_, one) = set.device().status_fraction(0);
    assert!(one < both, "{one} of {both}");
    assert_eq!(set.of(0, "state").as_deref(), Some("idle"));
    assert_eq!(set.of(1, "state").as_deref(), Some("used"));

    let refusal = set.device().message("evacuate 1").unwrap_err();
    assert!(
        refusal.reason.contains("the last one in use"),
        "{refusal:?}"
    );
    set.expect("idle", "0");
    // Again is not worse.
    set.device().message("evacuate 0").unwrap();
    set.remap(0..one, 1);
    assert_eq!(set.device().status_fraction(0), (one, one));
    assert_eq!(set.place(0), Some(1));
    set.spoil(2000..2001);
    set.write(2000..2001, 1).unwrap_err();
    set.expect("condition", "degraded");
}

/// Nor is the only one of a device.
#[test]
fn the_only_spare_is_not_evacuated() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1]);
    let refusal = set.device().message("evacuate 0").unwrap_err();
    assert!(
        refusal.reason.contains("the last one in use"),
        "{refusal:?}"
    );
    set.remap(0..20, 1);
    set.expect("idle", "none");
}

/// A spare that was evacuated is put back by message, with all its slots: those of before, and those that it
/// never gave out.
#[test]
fn a_spare_is_put_back_by_message() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1, 1]);
    let (_, both) = set.device().status_fraction(0);
    set.remap(0..50, 1);
    assert_eq!(set.place(0), Some(0));
    let told = set.device().message("evacuate 0").unwrap();
    assert_eq!(told, "50 blocks moved to other spares, 0 stay");
    let told = set.device().message("use_spare 0").unwrap();
    assert_eq!(told, "spare 0 is in use");
    set.expect("idle", "none");
    assert_eq!(set.device().status_fraction(0), (50, both));
    assert_eq!(set.of(0, "state").as_deref(), Some("used"));
    set.remap(100..100 + both - 50, 2);
    assert_eq!(set.device().status_fraction(0), (both, both));
    set.check(0..50, 1);
    set.check(100..100 + both - 50, 2);
    // That changes nothing.
    set.device().message("use_spare 1").unwrap();
    let refusal = set.device().message("use_spare 2").unwrap_err();
    assert_eq!(refusal.error, "No such device", "{refusal:?}");
}

/// A spare that leaves with the next table is not put back, but by clearing that. One that is to stay is,
/// where no other one would be in use.
#[test]
fn a_spare_that_is_to_leave_is_not_put_back() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1, 1]);
    set.device().load(&set.line(&[1], "")).unwrap();
    set.expect("idle", "0");
    let refusal = set.device().message("use_spare 0").unwrap_err();
    assert!(refusal.error.contains("busy"), "{refusal:?}");
    set.device().message("evacuate 1").unwrap_err();
    vmtest::guest::succeed(&format!("dmsetup clear {}", set.device().name()));
    set.expect("idle", "none");

    set.device().message("evacuate 1").unwrap();
    set.device().load(&set.line(&[1], "")).unwrap();
    set.expect("idle", "0");
    set.remap(0..20, 1);
    assert_eq!(set.place(0), Some(1));
    set.device().suspend().unwrap();
    set.device().resume().unwrap();
    set.expect_whole(1);
    set.check(0..20, 1);
}

/// Slots that bios may be on their way to are given out again by the next activation at the latest, though
/// the move that freed them was interrupted.
#[test]
fn slots_of_an_interrupted_move_are_not_lost() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1]);
    let (_, slots) = set.device().status_fraction(0);
    set.remap(0..slots, 1);
    let (first, sectors) = (0, slots * BLOCK);
    set.main.disk().heal(first, sectors);
    let device = set.device();
    for round in 0..2 {
        set.main.disk().record_mut().restart(false);
        // A bio that hangs, elsewhere, which began when the move was there already.
        let slow = 1500 * BLOCK;
        set.main.disk().hold(slow..slow + BLOCK, Direction::Write);
        set.main.disk().slow(0..BLOCK, Duration::from_millis(1500));
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| device.message("remove_remap 0 128"));
            let begun = || set.main.disk().record().writes != 0;
            assert!(eventually(begun));
            let writer = scope.spawn(|| set.write(1500..1501, 1));
            let moved = || device.remapped() < slots;
            assert!(eventually(moved));
            let suspend = scope.spawn(|| device.suspend());
            assert!(eventually(|| mover.is_finished()));
            assert!(!writer.is_finished(), "round {round}");
            set.main.disk().release();
            writer.join().unwrap().unwrap();
            suspend.join().unwrap().unwrap();
            let _ = mover.join().unwrap();
        });
        set.main.disk().slow(0..BLOCK, Duration::ZERO);
        device.resume().unwrap();
        let moved = slots - device.remapped();
        assert!(moved > 0);
        set.remap(0..moved, 1);
        assert_eq!(device.status_fraction(0), (slots, slots));
        set.main.disk().heal(first, sectors);
    }
}

/// P13: blocks that lie anywhere are moved together, to another spare and back to main, and none of them changes: a
/// flush for 16 of them, and three metadata writes in each replica. E8: but a part that has taken 50 ms ends.
#[test]
fn scattered_blocks_are_moved_together() {
    const BLOCKS: u64 = 480;
    let _test = vmtest::begin!();
    let set = Set::new(&[4, 4]);
    let sector = |number: u64| number * 256;
    let bad = Fault::bad(Direction::Both);
    let device = set.open();
    for number in 0..BLOCKS {
        set.main.disk().spoil(sector(number), BLOCK, bad);
        device
            .write(sector(number), &stamps(sector(number), BLOCK, 1))
            .unwrap();
    }
    // Two of them are lost, and only known.
    for number in BLOCKS..BLOCKS + 2 {
        set.main.disk().spoil(sector(number), BLOCK, bad);
        device.read(sector(number), BLOCK).unwrap_err();
    }
    assert!(eventually(
        || set.device().status_fraction(2).0 == BLOCKS + 2
    ));
    set.expect("spares", "2/2");
    let from = set.place(0).expect("a remap");
    let all = || {
        for number in 0..BLOCKS {
            let content = device.read(sector(number), BLOCK).unwrap();
            assert!(
                content == stamps(sector(number), BLOCK, 1),
                "block {number}"
            );
        }
    };
    let disks = || set.spares.iter().chain([&set.main]);
    let restart = || disks().for_each(|disk| disk.disk().record_mut().restart(true));
    // Of each disk: flushes, and writes of blocks of slot tables.
    let costs = || -> Vec<(u64, u64)> {
        let cost = |disk: &SickDisk| {
            let disk = disk.disk();
            let (mut flushes, mut tables) = (0, 0);
            for entry in disk.record().entries() {
                let mut start = [0; 512];
                disk.peek(entry.sector, &mut start).unwrap();
                flushes += u64::from(entry.operation == Operation::Flush);
                let write = entry.operation == Operation::Write;
                tables += u64::from(write && start.starts_with(b"DMRMPTBL"));
            }
            (flushes, tables)
        };
        disks().map(cost).collect()
    };
    let is_cheap = |what: &str, begun: Instant| {
        let parts = BLOCKS / 16 + begun.elapsed().as_millis() as u64 / 50 + 1;
        let cost = costs();
        println!("{what}, {BLOCKS} blocks: {cost:?}, {parts} parts at most");
        // Each disk has one replica of each of the two tables at the most.
        let few =
            |(flushes, tables): &(u64, u64)| *flushes <= parts + 1 && *tables <= 2 * 3 * parts;
        assert!(cost.iter().all(few), "{what}: {cost:?}, {parts} parts");
    };

    restart();
    let begun = Instant::now();
    let told = set.device().message(&format!("evacuate {from}")).unwrap();
    assert!(told.contains(", 0 stay"), "{told}");
    is_cheap("evacuate", begun);
    all();
    assert_ne!(set.place(0), Some(from));

    set.main.disk().heal(0, sector(BLOCKS + 2));
    restart();
    let begun = Instant::now();
    set.device().message("clear_all").unwrap();
    is_cheap("clear_all", begun);
    assert_eq!(set.device().remapped(), 0);
    assert_eq!(set.device().status_fraction(2).0, 0);
    all();
}
