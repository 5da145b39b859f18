// SPDX-License-Identifier: GPL-2.0
//! A spare that fails as a whole while the device is in use.

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::Uevents;

use super::set::disk;
use super::set::Set;
use super::set::BLOCK;
use super::set::TINY;

/// Two spares in use: blocks 0..140 on the first one, and those of the range given back on the second.
pub(super) fn both_in_use() -> (Set, std::ops::Range<u64>) {
    let set = Set::new(&[1, 1]);
    let second = fill_first(&set);
    (set, second)
}

/// The same of a set that is there.
pub(super) fn fill_first(set: &Set) -> std::ops::Range<u64> {
    set.remap(0..140, 1);
    let mut end = 140;
    while set.place(end - 1) != Some(1) {
        set.remap(end..end + 1, 1);
        end += 1;
    }
    set.remap(end..end + 20, 1);
    // Nobody knows what was in the caches before.
    set.open().flush().unwrap();
    end..end + 20
}

#[track_caller]
fn is_without(set: &Set, member: usize) {
    let status = set.device().status();
    assert!(status.contains("spares=1/2"), "{status}");
    assert!(status.contains("metadata=degraded"), "{status}");
    assert!(!status.contains("condition=good"), "{status}");
    let state = set.of(member as u8, "state");
    assert_eq!(state.as_deref(), Some("lost"));
}

/// New bad blocks are remapped to what is left; what the lost spare held reads as errors, and takes
/// writes.
#[test]
fn the_rest_goes_on() {
    let _test = vmtest::begin!();
    for status in [Status::Transport, Status::Offline, Status::Io] {
        for lost in [0, 1] {
            let (mut set, second) = both_in_use();
            let (gone, left) = match lost {
                0 => (0..20, second.clone()),
                _ => (second.clone(), 0..20),
            };
            // There is room on the one that is left.
            set.main.disk().heal(0, 2048 * BLOCK);
            let freed = format!("remove_remap {} {}", 40 * BLOCK, 60 * BLOCK);
            set.device().message(&freed).unwrap();
            let uevents = Uevents::listen();
            set.spares[lost].disk().die(status, Direction::Both);
            if lost == 0 {
                // What is new goes to the first free slot, which is on the lost one.
                set.remap(300..310, 1);
            } else {
                set.spoil(gone.clone());
                set.write(gone.start..gone.start + 2, 3).unwrap();
            }
            is_without(&set, lost);
            uevents.wait_for("spare_lost");

            set.remap(310..320, 2);
            set.check(310..320, 2);
            set.check(left.clone(), 1);
            set.check_lost(gone.start + 4..gone.end);
            set.write(gone.start + 4..gone.start + 8, 4).unwrap();
            set.check(gone.start + 4..gone.start + 8, 4);
            assert_eq!(set.place(gone.start + 4), Some(1 - lost as u8));
            set.check_lost(gone.start + 8..gone.end);
            set.open().flush().unwrap();
            Direct::open_dsync(&set.device().path())
                .write(310 * BLOCK, &vmtest::guest::stamps(310 * BLOCK, BLOCK, 5))
                .unwrap();
            set.check(310..311, 5);
            // Nothing else is wrong than that.
            let status = set.device().status();
            assert!(status.contains("breaker=none flush=good"), "{status}");
            assert!(!status.contains(" lost=0"), "{status}");

            // The same table again, with the spare still away.
            set.reload(&[0, 1], "").unwrap();
            is_without(&set, lost);
            set.check(gone.start + 4..gone.start + 8, 4);
            set.check_lost(gone.start + 8..gone.end);
            set.check(left.clone(), 1);

            // It works again: what was not rewritten is there, and what was is not what it was.
            set.spares[lost].disk().revive();
            set.reload(&[0, 1], "").unwrap();
            set.expect_whole(2);
            set.check(gone.start + 4..gone.start + 8, 4);
            set.check(gone.start + 8..gone.end, 1);
            set.again(&[0, 1], "");
            set.expect_whole(2);
            set.check(gone.start + 4..gone.start + 8, 4);
            set.check(gone.start + 8..gone.end, 1);
            set.check(left, 1);
            set.check(311..320, 2);
        }
    }
}

/// P4: a bad place for a superblock costs nothing, also where the spare was lost and is back.
#[test]
fn back_with_a_bad_superblock_place() {
    let _test = vmtest::begin!();
    let (mut set, second) = both_in_use();
    set.kill(1);
    set.spoil(second.clone());
    // There is room on the one that is left.
    set.main.disk().heal(0, 140 * BLOCK);
    let freed = format!("remove_remap {} {}", 40 * BLOCK, 60 * BLOCK);
    set.device().message(&freed).unwrap();
    set.write(second.start..second.start + 2, 3).unwrap();
    is_without(&set, 1);
    let bad = vmtest::guest::sickdisk::Fault::bad(Direction::Both);
    set.spares[1].disk().spoil(0, BLOCK, bad);
    set.revive(1);
    for _ in 0..2 {
        set.device().suspend().unwrap();
        set.device().resume().unwrap();
        set.expect("spares", "2/2");
        set.expect("superblocks", "7");
        set.expect("replicas", "2");
    }
    set.check(second.start + 2..second.end, 1);
    set.write(second.start + 4..second.start + 6, 4).unwrap();
    assert_eq!(set.place(second.start + 4), Some(1));
    set.again(&[0, 1], "");
    set.check(second.start + 4..second.start + 6, 4);
    set.check(second.start + 6..second.end, 1);
}

/// A write to a slot of the spare that is lost goes elsewhere at once.
#[test]
fn a_write_finds_the_spare_lost() {
    let _test = vmtest::begin!();
    for status in [Status::Transport, Status::Offline, Status::Io] {
        let (set, _) = both_in_use();
        set.spares[0].disk().die(status, Direction::Both);
        set.write(10..12, 2).unwrap();
        set.check(10..12, 2);
        is_without(&set, 0);
        set.check_lost(12..20);
    }
}

/// A spare takes the data of a bad block, and dies before the metadata says so: the block goes elsewhere
/// before it is acknowledged (P1).
#[test]
fn a_spare_is_lost_between_data_and_metadata() {
    let _test = vmtest::begin!();
    let mut rounds = 0;
    for writes in 0..3 {
        let mut set = Set::inactive(&[]);
        for _ in 0..2 {
            // Flushes are good as long as nothing is asked of it.
            let options = Options::memory(1 << 20).logical_block(4096);
            let spare = SickDisk::start(options.without_cache()).unwrap();
            set.spares.push(spare);
        }
        set.activate(&[0, 1], "");
        fill_first(&set);
        set.free_slots(40..100);
        set.remap(300..301, 1);
        assert_eq!(set.place(300), Some(1));
        set.spares[1].disk().die_after(writes, Status::Offline);
        set.remap(301..320, 2);
        if set.place(301) == Some(1) {
            // It has all of it, and lives.
            continue;
        }
        rounds += 1;
        set.check(301..320, 2);
        is_without(&set, 1);
        // Slots that were left are in order.
        set.expect("bad_slots", "0");
        set.remap(320..325, 3);
        set.again(&[0], "degraded");
        set.check(301..320, 2);
        set.check(320..325, 3);
    }
    assert!(rounds >= 2, "{rounds} rounds");
}

/// A flush that fails on the second spare is told, once and to all who rely on it; if the spare is gone
/// with it, flushes mean the others from then on.
#[test]
fn a_flush_that_fails_is_told() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    set.write(second.clone(), 2).unwrap();
    set.spares[1].disk().fail_flushes(Status::Io, 1);
    let device = set.open();
    assert!(device.flush().is_err(), "the error was not told");
    assert_eq!(set.device().status_value("health").as_deref(), Some("0"));
    let durable = Direct::open_dsync(&set.device().path());
    // Of another disk, but nobody knows what goes with what.
    let data = vmtest::guest::stamps(1000 * BLOCK, BLOCK, 1);
    device.flush().unwrap();
    durable.write(1000 * BLOCK, &data).unwrap();
    set.expect_whole(2);

    set.write(second.clone(), 3).unwrap();
    set.spares[1].disk().die(Status::Offline, Direction::Both);
    assert!(device.flush().is_err(), "the error was not told");
    let goes_on = || device.flush().is_ok();
    assert!(eventually(goes_on));
    durable.write(1000 * BLOCK, &data).unwrap();
    is_without(&set, 1);
    set.check(0..20, 1);
    set.check_lost(second);
}

/// A flush goes to main and to those spares that have something to write.
#[test]
fn flushes_go_where_something_was_written() {
    let _test = vmtest::begin!();
    let (set, second) = both_in_use();
    let device = set.open();
    device.flush().unwrap();
    let flushes = |action: &dyn Fn()| {
        for disk in [&set.main, &set.spares[0], &set.spares[1]] {
            disk.disk().record_mut().restart(false);
        }
        action();
        [&set.main, &set.spares[0], &set.spares[1]].map(|disk| disk.disk().record().flushes)
    };
    assert_eq!(flushes(&|| device.flush().unwrap()), [1, 0, 0]);
    let on_first = || {
        set.write(0..2, 1).unwrap();
        device.flush().unwrap();
    };
    assert_eq!(flushes(&on_first), [1, 1, 0]);
    let on_second = || {
        set.write(second.start..second.start + 2, 1).unwrap();
        device.flush().unwrap();
    };
    assert_eq!(flushes(&on_second), [1, 0, 1]);
    let on_both = || {
        set.write(0..2, 1).unwrap();
        set.write(second.start..second.start + 2, 1).unwrap();
        device.flush().unwrap();
    };
    assert_eq!(flushes(&on_both), [1, 1, 1]);
}

/// The kernel takes the disk away.
#[test]
fn a_disk_that_is_pulled() {
    let _test = vmtest::begin!();
    vmtest::guest::load();
    let main = disk(4096);
    let spare = disk(TINY);
    let pulled = NullBlk::new(1, 4096);
    let line = |spares: &str| format!("0 4096 dm-remap {} {spares}", main.path().display());
    let both = line(&format!(
        "{} 2 spare {}",
        pulled.path().display(),
        spare.path().display()
    ));
    let remap = Mapped::new(&both);
    let bad = vmtest::guest::sickdisk::Fault::bad(Direction::Both);
    main.disk().spoil(0, 16 * BLOCK, bad);
    let device = Direct::open(&remap.path());
    let write = |block: u64, generation| {
        device.write(
            block * BLOCK,
            &vmtest::guest::stamps(block * BLOCK, BLOCK, generation),
        )
    };
    write(0, 1).unwrap();
    write(1, 1).unwrap();
    assert!(remap.message("verify 0").unwrap().contains("spare 0"));
    drop(pulled);
    write(2, 1).unwrap();
    write(0, 2).unwrap();
    let read = device.read(0, BLOCK).unwrap();
    assert!(read == vmtest::guest::stamps(0, BLOCK, 2));
    assert!(device.read(BLOCK, BLOCK).is_err());
    let status = remap.status();
    assert!(status.contains("spares=1/2"), "{status}");
    drop(device);
    remap.remove();
    let alone = line(&spare.path().display().to_string());
    assert!(Mapped::try_new(&alone).is_err());
    let remap = Mapped::new(&format!("{alone} 1 degraded"));
    let device = Direct::open(&remap.path());
    assert!(device.read(0, BLOCK).unwrap() == vmtest::guest::stamps(0, BLOCK, 2));
    assert!(device.read(BLOCK, BLOCK).is_err());
    // Once nothing is there that only the lost one has, it is forgotten.
    let data = vmtest::guest::stamps(BLOCK, BLOCK, 3);
    device.write(BLOCK, &data).unwrap();
    assert!(device.read(BLOCK, BLOCK).unwrap() == data);
    drop(device);
    remap.remove();
    let remap = Mapped::new(&format!("{alone} 1 degraded"));
    let is_forgotten = || remap.status().contains("spares=1/1");
    assert!(eventually(is_forgotten), "{}", remap.status());
    remap.remove();
    let remap = Mapped::new(&alone);
    let device = Direct::open(&remap.path());
    assert!(device.read(BLOCK, BLOCK).unwrap() == data);
}
