// SPDX-License-Identifier: GPL-2.0
//! E3: a block that fails by itself and can be read in the end is moved to the spare, from a read
//! behind the gate.

use std::time::Duration;
use std::time::Instant;

use super::number;
use super::slots_used;
use super::unreadable;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

/// Fails for the user's read and for the worker's first try, and is read then.
fn weak() -> Fault {
    unreadable().times(2)
}

#[track_caller]
fn assert_moved(remap: &Remap, blocks: u64) {
    assert!(
        eventually(|| number(remap, "weak_moves") >= blocks),
        "{}",
        remap.device().status()
    );
    assert_eq!(remap.device().remapped(), blocks);
}

/// The data is served, and comes from the spare from then on, also later.
#[test]
fn a_weak_block_is_read_and_moved() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let mut remap = Remap::new(block);
        let device = remap.open();
        let place = 12 * unit;
        device.write(0, &stamps(0, 64 * unit, 1)).unwrap();
        remap.main.disk().spoil(place, 1, weak());
        assert!(device.read(place, unit).unwrap() == stamps(place, unit, 1));
        assert_moved(&remap, 1);
        assert!(remap.slot_of(place).is_some());
        assert_eq!(remap.device().pending(), 0);
        drop(device);
        remap.reactivate();
        // Main is not asked any more.
        remap.main.disk().spoil(place, unit, super::bad());
        let device = remap.open();
        assert!(device.read(0, 64 * unit).unwrap() == stamps(0, 64 * unit, 1));
        device.write(place, &stamps(place, unit, 2)).unwrap();
        assert!(device.read(place, unit).unwrap() == stamps(place, unit, 2));
    }
}

/// In the middle of a larger read: only the weak block is moved, none of its neighbours.
#[test]
fn only_the_weak_block_is_moved() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 256, 1)).unwrap();
    // Often enough to fail for each part that it is in, and for itself once.
    for times in 2..12 {
        remap.main.disk().spoil(77, 1, unreadable().times(times));
        assert!(device.read(64, 64).unwrap() == stamps(64, 64, 1));
        // If it comes later, one more failure does no harm.
        std::thread::sleep(Duration::from_millis(300));
        if slots_used(&remap) != 0 {
            break;
        }
    }
    assert_moved(&remap, 1);
    assert!(remap.slot_of(77).is_some());
    assert!(device.read(0, 256).unwrap() == stamps(0, 256, 1));
}

/// A read that works when the worker tries it proves nothing about any block, and moves nothing.
#[test]
fn what_works_at_the_first_try_stays() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    for length in [1, 16] {
        remap.main.disk().spoil(100, 1, unreadable().times(1));
        let first = 101 - length.min(5);
        assert!(device.read(first, length).unwrap() == stamps(first, length, 1));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(number(&remap, "weak_moves"), 0);
    assert_eq!(slots_used(&remap), 0);
}

/// Nothing is moved when that is switched off; the data is served as ever.
#[test]
fn nothing_weak_is_moved_when_that_is_switched_off() {
    let _test = vmtest::begin!();
    let remap = Remap::with(512, "2 auto_remap off");
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    remap.main.disk().spoil(100, 1, weak());
    let _ = device.read(100, 1);
    let _ = device.read(100, 1);
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 1));
    assert_eq!(slots_used(&remap), 0);
}

/// What is written while the block moves is not lost: the move reads again behind the gate, and
/// uses nothing that was read before.
#[test]
fn a_write_during_the_move_is_not_lost() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 1024, 1)).unwrap();
    for round in 0..60 {
        let sector = round * 16;
        remap.main.disk().spoil(sector, 1, weak());
        assert!(device.read(sector, 1).unwrap() == stamps(sector, 1, 1));
        // The move is under way now.
        std::thread::sleep(Duration::from_micros(round * 50));
        device.write(sector, &stamps(sector, 1, 2)).unwrap();
    }
    let moved = || number(&remap, "weak_moves");
    assert!(eventually(|| moved() > 0), "{}", remap.device().status());
    for round in 0..60 {
        let sector = round * 16;
        let read = device.read(sector, 1).unwrap();
        assert!(
            read == stamps(sector, 1, 2),
            "an update of sector {sector} was lost"
        );
    }
}

/// The same, step by step: a write that comes when the block was read for the move, and is not on
/// the spare yet, waits for the move and is what is read from then on.
#[test]
fn a_write_between_read_and_move_waits() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    let spare = remap.spare.disk().sectors();
    remap.spare.disk().hold(0..spare, Direction::Write);
    remap.main.disk().spoil(100, 1, weak());
    std::thread::scope(|scope| {
        assert!(device.read(100, 1).unwrap() == stamps(100, 1, 1));
        assert!(eventually(|| !remap.spare.disk().waiting().is_empty()));
        let writer = scope.spawn(|| device.write(100, &stamps(100, 1, 2)));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!writer.is_finished(), "the write passed the gate");
        remap.spare.disk().release();
        writer.join().unwrap().unwrap();
    });
    assert_moved(&remap, 1);
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 2));
}

/// P13: weak blocks that lie anywhere are moved together, 16 with one flush, and with one metadata write in each
/// replica. E8: but a part that has taken 50 ms ends.
#[test]
fn scattered_weak_blocks_are_moved_together() {
    const BLOCKS: u64 = 97;
    const APART: u64 = 1 << 12;
    let _test = vmtest::begin!();
    let main = Options::memory((BLOCKS + 1) * APART * sickdisk::SECTOR).logical_block(4096);
    let spare = Options::memory(Remap::SPARE_SECTORS * sickdisk::SECTOR).logical_block(4096);
    let remap = Remap::on(main, spare, "");
    remap.device().message("set deadline_ms 600000").unwrap();
    let device = remap.open();
    let sector = |number: u64| number * APART;
    // What only the first repair does: raise the epoch, initialise blocks.
    remap.main.disk().spoil(sector(BLOCKS), 8, super::bad());
    device
        .write(sector(BLOCKS), &stamps(sector(BLOCKS), 8, 1))
        .unwrap();
    for number in 0..BLOCKS {
        device
            .write(sector(number), &stamps(sector(number), 8, 1))
            .unwrap();
        remap.main.disk().spoil(sector(number), 1, weak());
    }
    // The first one waits for the spare, and the others are found meanwhile.
    let holding = remap.spare.release_at_end();
    let sectors = remap.spare.disk().sectors();
    remap.spare.disk().hold(0..sectors, Direction::Write);
    remap.record();
    for number in 0..BLOCKS {
        assert!(device.read(sector(number), 8).unwrap() == stamps(sector(number), 8, 1));
        if number == 0 {
            assert!(eventually(|| !remap.spare.disk().waiting().is_empty()));
        }
    }
    let begun = Instant::now();
    drop(holding);
    assert!(
        eventually(|| number(&remap, "weak_moves") == BLOCKS),
        "{}",
        remap.device().status()
    );
    // The first and the last one may be alone.
    let parts = (BLOCKS - 1).div_ceil(16) + begun.elapsed().as_millis() as u64 / 50 + 2;
    let disk = remap.spare.disk();
    let entries = disk.record().entries();
    let of = |operation| entries.iter().filter(move |e| e.operation == operation);
    let is_table = |sector| {
        let mut start = [0; 512];
        disk.peek(sector, &mut start).unwrap();
        start.starts_with(b"DMRMPTBL")
    };
    let flushes = of(Operation::Flush).count() as u64;
    let tables = of(Operation::Write).filter(|e| is_table(e.sector)).count() as u64;
    println!(
        "{BLOCKS} weak blocks: {flushes} flushes, {tables} table blocks, {parts} parts at most"
    );
    assert!(flushes <= parts, "{flushes} flushes for {parts} parts");
    // However slow the machine is: each by itself is worse.
    assert!(flushes * 2 < BLOCKS, "{flushes} flushes");
    // Two replicas, and a part may end one table block and begin the next.
    assert!(
        tables <= 2 * (parts + 1),
        "{tables} table blocks for {parts} parts"
    );
    drop(disk);
    for number in 0..BLOCKS {
        remap.main.disk().spoil(sector(number), 8, super::bad());
        assert!(device.read(sector(number), 8).unwrap() == stamps(sector(number), 8, 1));
    }
}
