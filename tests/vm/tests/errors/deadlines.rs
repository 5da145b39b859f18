// SPDX-License-Identifier: GPL-2.0
//! E7, P10: bounded time, on disks that take long for each bad block. It is counted in what the disk was
//! asked: each of its answers takes so long that only a few fit into the time.

use std::time::Duration;

use dm_remap_logic::desk::JOBS;

use super::bad;
use super::unreadable;
use super::unwritable;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

/// What the table says, in milliseconds.
const DEADLINE: u64 = 600;

/// More regions of main than repairers: each has one.
const REGIONS: u64 = JOBS as u64 + 4;

/// How long the slow region takes for each I/O.
const SLOW: Duration = Duration::from_millis(150);

/// What the slow region may be asked, one after the other, until a bio is answered: its own first try, as much
/// as fits into the time that the table gives, what is under way then, and one more to be sure of it.
const LIMIT: u64 = 1 + DEADLINE / 150 + 2;

/// Blocks of 4096 bytes, of which every second one of the first 64 is bad and slow.
fn slow(fault: Fault) -> Remap {
    let remap = Remap::with(4096, &format!("2 deadline_ms {DEADLINE}"));
    let device = remap.open();
    device.write(0, &stamps(0, 1024, 1)).unwrap();
    let mut main = remap.main.disk();
    for block in (1..64).step_by(2) {
        main.spoil(block * 8, 8, fault);
    }
    main.slow(0..512, SLOW);
    main.record_mut().restart(false);
    drop(main);
    remap
}

/// How often the slow region was asked.
fn asked(remap: &Remap) -> u64 {
    remap.main.disk().record().late
}

/// Past the deadline, the rest of a write is moved without being tried: it succeeds in time, and
/// all of it can be read.
#[test]
fn the_rest_of_a_late_write_is_moved_unconfirmed() {
    let _test = vmtest::begin!();
    let remap = slow(unwritable());
    let device = remap.open();
    device.write(0, &stamps(0, 512, 2)).unwrap();
    let asked = asked(&remap);
    assert!(asked <= LIMIT, "{asked} slow I/Os");
    // 32 blocks are bad. To find that out takes longer than there was.
    let moved = remap.device().remapped();
    assert!(moved > 40, "{moved} blocks were moved");
    remap.main.disk().slow(0..512, Duration::ZERO);
    assert!(device.read(0, 512).unwrap() == stamps(0, 512, 2));
    assert!(device.read(512, 512).unwrap() == stamps(512, 512, 1));
}

/// Past the deadline, the rest of a read fails, and is not recorded as anything.
#[test]
fn the_rest_of_a_late_read_fails_unrecorded() {
    let _test = vmtest::begin!();
    let remap = slow(unreadable());
    let device = remap.open();
    assert!(device.read(0, 512).is_err());
    let asked = asked(&remap);
    assert!(asked <= LIMIT, "{asked} slow I/Os");
    let pending = remap.device().pending();
    assert!(pending < 16, "{pending} blocks are pending");
    assert_eq!(remap.device().remapped(), 0);
    // And what was not tried is read when it is asked for.
    remap.main.disk().slow(0..512, Duration::ZERO);
    assert!(device.read(40 * 8, 8).unwrap() == stamps(40 * 8, 8, 1));
    assert!(device.read(41 * 8, 8).is_err());
}

/// A slow region with much to repair stalls neither good I/O nor repairs elsewhere: this one is so slow that
/// it answers when all the others have been answered.
#[test]
fn a_slow_region_stalls_nobody_else() {
    let _test = vmtest::begin!();
    let remap = Remap::with(4096, "2 deadline_ms 3000");
    let device = remap.open();
    // Two regions of a MiB, each with several writers.
    for region in [0, 4096] {
        let mut main = remap.main.disk();
        main.spoil(region, 1024, unwritable());
        main.hold(region..region + 1024, Direction::Both);
    }
    let waiting = |region: u64| {
        let main = remap.main.disk();
        let there = main.waiting().iter();
        there
            .filter(|one| (region..region + 1024).contains(&one.sector))
            .count()
    };
    remap.main.disk().spoil(40_960, 2048, bad());
    std::thread::scope(|scope| {
        let _released = remap.main.release_at_end();
        let slow: Vec<_> = (0..8)
            .map(|number| {
                let device = remap.open();
                // Apart, or the kernel may make one request of two.
                let first = (number % 2) * 4096 + (number / 2) * 256;
                scope.spawn(move || device.write(first, &stamps(first, 248, 1)))
            })
            .collect();
        assert!(eventually(|| waiting(0) == 4 && waiting(4096) == 4));
        // They fail, and both regions are about to be repaired.
        remap.main.disk().let_go();
        assert!(eventually(|| remap.main.disk().record().errors == 8));
        assert!(eventually(|| waiting(0) > 0 && waiting(4096) > 0));
        for round in 0..8 {
            let sector = 20_480 + round * 64;
            device.write(sector, &stamps(sector, 64, 1)).unwrap();
            let sector = 40_960 + round * 64;
            device.write(sector, &stamps(sector, 16, 1)).unwrap();
            assert!(device.read(sector, 16).unwrap() == stamps(sector, 16, 1));
        }
        let answered = slow.iter().filter(|writer| writer.is_finished());
        assert_eq!(answered.count(), 0, "nothing was slow");
        remap.main.disk().release();
        for writer in slow {
            writer.join().unwrap().unwrap();
        }
    });
}

/// A bio that waits for the repair of others in its region is answered in time, too.
#[test]
fn those_that_wait_are_answered_in_time() {
    let _test = vmtest::begin!();
    let remap = slow(unwritable());
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let device = remap.open();
                let first = number * 128;
                scope.spawn(move || device.write(first, &stamps(first, 128, 2)))
            })
            .collect();
        for writer in writers {
            writer.join().unwrap().unwrap();
        }
    });
    // The first tries are made at the same time, and each of them has one more try, and one more I/O under way.
    let asked = asked(&remap);
    assert!(asked <= LIMIT + 3 * 3, "{asked} slow I/Os");
    remap.main.disk().slow(0..512, Duration::ZERO);
    assert!(remap.open().read(0, 512).unwrap() == stamps(0, 512, 2));
}

/// E8: a suspend in the middle of it ends in time, and the bio is answered.
#[test]
fn a_suspend_amid_a_slow_repair_ends_in_time() {
    let _test = vmtest::begin!();
    for kind in [&[][..], &["--noflush", "--nolockfs"]] {
        let remap = slow(unwritable());
        std::thread::scope(|scope| {
            let device = remap.open();
            let writer = scope.spawn(move || device.write(0, &stamps(0, 512, 2)));
            // The first try, and it is being repaired.
            assert!(eventually(|| asked(&remap) > 1));
            remap.device().suspend_with(kind).unwrap();
            let asked = asked(&remap);
            assert!(asked <= LIMIT, "{kind:?}: {asked} slow I/Os");
            remap.device().resume().unwrap();
            writer.join().unwrap().unwrap();
        });
        remap.main.disk().slow(0..512, Duration::ZERO);
        assert!(remap.open().read(0, 512).unwrap() == stamps(0, 512, 2));
    }
}

/// E8: removal, which suspends, is as quick.
#[test]
fn a_removal_after_a_slow_repair_ends_in_time() {
    let _test = vmtest::begin!();
    let mut remap = slow(unreadable());
    let device = remap.open();
    assert!(device.read(0, 256).is_err());
    drop(device);
    remap.deactivate();
    let asked = asked(&remap);
    assert!(asked <= LIMIT, "{asked} slow I/Os");
}

/// Too late to ask whether main lives is not an answer: three slow bad blocks in a row are three bad
/// blocks, and no breaker opens.
#[test]
fn late_is_not_dead() {
    let _test = vmtest::begin!();
    let remap = Remap::with(4096, "2 deadline_ms 100");
    let device = remap.open();
    device.write(0, &stamps(0, 512, 1)).unwrap();
    remap.main.disk().spoil(96, 24, bad());
    remap.main.disk().slow(96..120, Duration::from_millis(200));
    for round in 0..3 {
        device
            .write(104, &stamps(104, 8, round + 2))
            .unwrap_or_else(|error| panic!("write {round}: {error}"));
    }
    let read = device.read(96, 8).unwrap_err();
    assert_eq!(read.raw_os_error(), Some(61));
    let told = remap.device().status_value("breaker");
    assert_eq!(told.as_deref(), Some("none"));
    device.write(112, &stamps(112, 8, 9)).unwrap();
    assert!(device.read(104, 16).unwrap()[..4096] == stamps(104, 8, 4));
}

/// Many that fail in one slow region at the same time: the last is not answered after all the
/// others have had their time, but after they have had one try each.
#[test]
fn many_that_wait_are_answered_in_time() {
    let _test = vmtest::begin!();
    let remap = slow(unwritable());
    std::thread::scope(|scope| {
        let remap = &remap;
        let writers: Vec<_> = (0..32)
            .map(|number| {
                let device = remap.open();
                // Bad blocks only.
                let first = (2 * number + 1) * 8;
                scope.spawn(move || device.write(first, &stamps(first, 8, 2)))
            })
            .collect();
        for (number, writer) in writers.into_iter().enumerate() {
            let written = writer.join().unwrap();
            written.unwrap_or_else(|error| panic!("number {number}: {error}"));
        }
    });
    // The first tries are made at the same time.
    let asked = asked(&remap);
    assert!(asked <= LIMIT + 31 * 2 + 2, "{asked} slow I/Os");
    remap.main.disk().slow(0..512, Duration::ZERO);
    for number in 0..32 {
        let first = (2 * number + 1) * 8;
        assert!(remap.open().read(first, 8).unwrap() == stamps(first, 8, 2));
    }
}

/// Time in a queue is not the disk's fault: who has waited for others until it was late gets one try, and what
/// can be written or read by then is neither moved nor an error.
#[test]
fn late_in_the_queue_gets_one_try() {
    let _test = vmtest::begin!();
    let remap = Remap::with(4096, &format!("2 deadline_ms {DEADLINE}"));
    remap.open().write(0, &stamps(0, 1024, 1)).unwrap();
    let errors = || remap.main.disk().record().errors;
    {
        let mut main = remap.main.disk();
        main.record_mut().restart(false);
        main.spoil(0, 8, unwritable());
        main.hold(0..8, Direction::Write);
        // These fail once.
        main.spoil(80, 1, unwritable().times(1));
        main.spoil(160, 1, unreadable().times(1));
        main.spoil(248, 1, unwritable().times(1));
        // And this one for good.
        main.spoil(320, 8, unwritable());
    }
    std::thread::scope(|scope| {
        let write = |sector, sectors| {
            let device = remap.open();
            scope.spawn(move || device.write(sector, &stamps(sector, sectors, 2)))
        };
        let held = || remap.main.disk().waiting().len();
        let first = write(0, 8);
        assert!(eventually(|| held() == 1));
        remap.main.disk().let_go();
        // It fails, and the repairer is about to try it again.
        assert!(eventually(|| errors() == 1 && held() == 1));
        let mut others = vec![write(80, 8)];
        let device = remap.open();
        let read = scope.spawn(move || device.read(160, 8));
        // Of several blocks.
        others.push(write(240, 32));
        others.push(write(320, 8));
        assert!(eventually(|| errors() == 5));
        std::thread::sleep(Duration::from_millis(DEADLINE + 100));
        assert!(!first.is_finished());
        remap.main.disk().release();
        first.join().unwrap().unwrap();
        for other in others {
            other.join().unwrap().unwrap();
        }
        assert!(read.join().unwrap().unwrap() == stamps(160, 8, 1));
    });
    assert_eq!(remap.device().remapped(), 2);
    assert_eq!(remap.device().pending(), 0);
    let device = remap.open();
    for (sector, sectors) in [(0, 8), (80, 8), (240, 32), (320, 8)] {
        assert!(device.read(sector, sectors).unwrap() == stamps(sector, sectors, 2));
    }
}

/// P10: a write that waits for the commit of another one is answered in time: by an error, if that is under way for
/// as long.
#[test]
fn those_that_wait_for_a_commit_are_answered_in_time() {
    let _test = vmtest::begin!();
    let remap = Remap::with(4096, &format!("2 deadline_ms {DEADLINE}"));
    let regions = [0, 4096, 8192];
    for sector in regions {
        remap.main.disk().spoil(sector, 8, unwritable());
    }
    let metadata = 0..remap.first_slot();
    remap.spare.disk().hold(metadata, Direction::Write);
    std::thread::scope(|scope| {
        let write = |sector| {
            let device = remap.open();
            scope.spawn(move || device.write(sector, &stamps(sector, 8, 1)))
        };
        let first = write(regions[0]);
        assert!(eventually(|| remap.spare.disk().waiting().len() == 1));
        let all = [first, write(regions[1]), write(regions[2])];
        let answered = eventually(|| all.iter().all(|one| one.is_finished()));
        remap.spare.disk().release();
        assert!(answered, "they wait for the spare");
        for one in all {
            // Main's own error.
            assert_eq!(
                one.join().unwrap().unwrap_err().raw_os_error(),
                Some(Status::Medium.errno())
            );
        }
    });
    for sector in regions {
        // It is asked once a second.
        let write = || remap.open().write(sector, &stamps(sector, 8, 2)).is_ok();
        assert!(eventually(write));
        assert!(remap.open().read(sector, 8).unwrap() == stamps(sector, 8, 2));
    }
    assert_eq!(remap.device().remapped(), 3);
}

/// What main cannot read is told at once, whatever the spare does: it hangs here, and none waits for it. What
/// is written there afterwards goes to the spare all the same.
#[test]
fn a_read_error_does_not_wait_for_the_spare() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    remap.open().write(0, &stamps(0, 1024, 1)).unwrap();
    // Two blocks in each region.
    let sectors = || (0..REGIONS).flat_map(|region| [region * 2048, region * 2048 + 80]);
    for sector in sectors() {
        remap.main.disk().spoil(sector, 8, unreadable());
    }
    remap
        .spare
        .disk()
        .hold(0..Remap::SPARE_SECTORS, Direction::Both);
    std::thread::scope(|scope| {
        let readers: Vec<_> = sectors()
            .map(|sector| {
                let device = remap.open();
                scope.spawn(move || device.read(sector, 8))
            })
            .collect();
        let answered = || readers.iter().all(|reader| reader.is_finished());
        let answered = eventually(answered);
        if !answered {
            remap.spare.disk().release();
        }
        assert!(answered, "a read waits for the spare");
        for reader in readers {
            let error = reader.join().unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Status::Medium.errno()));
        }
        // What is near them is read and written.
        let device = remap.open();
        device.write(16, &stamps(16, 8, 2)).unwrap();
        assert!(device.read(16, 8).unwrap() == stamps(16, 8, 2));
        let writer = scope.spawn(move || device.write(80, &stamps(80, 8, 2)));
        assert_eq!(remap.device().pending(), 2 * REGIONS);
        remap.spare.disk().release();
        writer.join().unwrap().unwrap();
    });
    assert!(remap.open().read(80, 8).unwrap() == stamps(80, 8, 2));
    assert_eq!(remap.device().remapped(), 1);
    assert_eq!(remap.device().pending(), 2 * REGIONS - 1);
}

/// E7: nor does it wait for writes that fail on main and do: more of them than there are repairers.
#[test]
fn a_read_error_does_not_wait_for_writes_that_move() {
    let _test = vmtest::begin!();
    // How many fail in a row is not what this is about, nor what it takes then to blame the medium.
    let remap = Remap::with(4096, "2 error_threshold 1000");
    let region = |number: u64| number * 2048;
    for number in 0..REGIONS {
        remap.main.disk().spoil(region(number), 8, unwritable());
    }
    for number in REGIONS..REGIONS + 4 {
        remap.main.disk().spoil(region(number), 8, unreadable());
    }
    remap
        .spare
        .disk()
        .hold(0..Remap::SPARE_SECTORS, Direction::Both);
    std::thread::scope(|scope| {
        let _released = remap.spare.release_at_end();
        let start = |number| {
            let device = remap.open();
            scope.spawn(move || device.write(region(number), &stamps(region(number), 8, 1)))
        };
        let writers: Vec<_> = (0..REGIONS).map(start).collect();
        // As many as may are with the spare.
        assert!(eventually(|| remap.spare.disk().waiting().len() >= JOBS - 2));
        let readers: Vec<_> = (REGIONS..REGIONS + 4)
            .map(|number| {
                let device = remap.open();
                scope.spawn(move || device.read(region(number), 8))
            })
            .collect();
        let answered = eventually(|| readers.iter().all(|reader| reader.is_finished()));
        remap.spare.disk().release();
        assert!(answered, "a read waits for writes");
        for reader in readers {
            let error = reader.join().unwrap().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Status::Medium.errno()));
        }
        for writer in writers {
            writer.join().unwrap().unwrap();
        }
    });
    assert_eq!(remap.device().remapped(), REGIONS);
}
