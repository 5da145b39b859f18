// SPDX-License-Identifier: GPL-2.0
//! Spares that are used together from the start, join later, and leave.

use super::set::Set;
use super::set::BLOCK;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;

/// M9: blank spares become one set, whose metadata lies on different spares, and whose table prints back.
#[test]
fn blank_spares_become_one_set() {
    let _test = vmtest::begin!();
    for count in [2usize, 4] {
        let mut set = Set::inactive(&vec![2; count]);
        let all: Vec<usize> = (0..count).collect();
        set.activate(&all, "auto_remap on");
        set.expect_whole(count);
        let one = {
            let mut single = Set::inactive(&[2]);
            single.activate(&[0], "");
            single.device().status_fraction(0).1
        };
        let (_, capacity) = set.device().status_fraction(0);
        let lost = one * count as u64 - capacity;
        // Less what the replicas of others take.
        assert!(
            lost < 40 * count as u64,
            "{capacity} of {count} times {one}"
        );
        for member in 0..count as u8 {
            let hosts = set.of(member, "replicas_on").expect("told");
            let (a, b) = hosts.split_once(',').expect("two");
            assert_ne!(a, b, "spare {member}");
        }
        let table = set.device().table();
        let more: Vec<String> = (1..count)
            .map(|spare| format!(" spare {}", set.number(spare)))
            .collect();
        let more = more.concat();
        assert!(
            table.ends_with(&format!("{} auto_remap on{more}", 2 * count)),
            "{table}"
        );
        // It loads as it was printed.
        set.device().load(&table).unwrap();
        set.device().suspend().unwrap();
        set.device().resume().unwrap();
        assert_eq!(set.device().table(), table);
        set.expect_whole(count);
    }
}

/// P1: what goes on from one spare to the next is all there again, whatever the order in the line, and
/// after a power cut.
#[test]
fn remaps_on_several_spares_come_back() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1, 1]);
    let (_, capacity) = set.device().status_fraction(0);
    let sectors = (capacity - 4) * BLOCK;
    set.main
        .disk()
        .spoil(0, sectors, Fault::bad(Direction::Both));
    set.write_in_parts(0, sectors);
    assert_eq!(set.device().remapped(), capacity - 4);
    assert_eq!(set.member_of(0), Some(0));
    assert_eq!(set.member_of(sectors - BLOCK), Some(1));
    for order in [[0, 1], [1, 0]] {
        set.deactivate();
        set.activate(&order, "");
        set.expect_whole(2);
        assert_eq!(set.device().remapped(), capacity - 4);
        assert!(set.open().read(0, sectors).unwrap() == stamps(0, sectors, 1));
    }
    let device = set.open();
    device.write(0, &stamps(0, sectors, 2)).unwrap();
    device.flush().unwrap();
    drop(device);
    set.power_cut(|_| PowerCut::Drop);
    set.activate(&[0, 1], "");
    assert!(set.open().read(0, sectors).unwrap() == stamps(0, sectors, 2));
}

/// P9: a spare joins while the device is used: more room, and each spare holds a replica for the other.
#[test]
fn a_spare_joins_a_device_in_use() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1]);
    let (_, before) = set.device().status_fraction(0);
    set.main.disk().spoil(0, 4096, Fault::bad(Direction::Both));
    let first = before / 2 * BLOCK;
    set.open().write(0, &stamps(0, first, 1)).unwrap();
    let more = set.add_disk(4);
    std::thread::scope(|scope| {
        let path = set.device().path();
        let writer = scope.spawn(move || {
            let device = vmtest::guest::Direct::open(&path);
            for round in 2..12 {
                device
                    .write(0, &stamps(0, first, round))
                    .expect("no error above");
            }
        });
        set.reload(&[0, more], "").unwrap();
        writer.join().unwrap();
    });
    set.expect_whole(2);
    assert!(set.device().status_fraction(0).1 > before + 300);
    for member in 0..2 {
        let hosts = set.of(member, "replicas_on").expect("told");
        assert!(hosts == "0,1" || hosts == "1,0", "{hosts}");
    }
    assert!(set.open().read(0, first).unwrap() == stamps(0, first, 11));
    // More than the first one has.
    set.open().write(0, &stamps(0, 4096, 20)).unwrap();
    assert_eq!(set.device().remapped(), 4096 / BLOCK);
    set.deactivate();
    set.activate(&[0, more], "");
    assert!(set.open().read(0, 4096).unwrap() == stamps(0, 4096, 20));
}

/// P5: a spare dies and the power fails while it joins: it is a member, or it is not and the set goes on
/// without it.
#[test]
fn a_power_cut_while_a_spare_joins() {
    let _test = vmtest::begin!();
    let mut joined = 0;
    for writes in 0..14 {
        let mut set = Set::new(&[1]);
        set.main.disk().spoil(0, 64, Fault::bad(Direction::Both));
        set.open().write(0, &stamps(0, 64, 1)).unwrap();
        let more = set.add_disk(1);
        // The one or the other stops; the power goes then.
        let victim = if writes % 2 == 0 { 0 } else { more };
        set.spares[victim]
            .disk()
            .die_after(writes / 2, Status::Offline);
        let _ = set.reload(&[0, more], "");
        set.power_cut(|number| PowerCut::Tear(u64::from(writes) * 4 + number));
        match set.try_activate(&[0, more], "") {
            Ok(()) => {
                joined += 1;
                set.expect_whole(2);
            }
            Err(refusal) => {
                // It failed in the middle, and was turned away.
                assert!(refusal.reason.contains("left its set"), "{refusal:?}");
                assert_eq!(victim, more);
                set.activate(&[0], "");
                set.expect_whole(1);
            }
        }
        let found = set.open().read(0, 64).unwrap();
        assert!(found == stamps(0, 64, 1), "after {writes}");
    }
    assert!(joined >= 7, "{joined}");
}

/// P9: a spare is replaced by another one while the device is used: join, evacuate, leave.
#[test]
fn a_spare_is_replaced() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1]);
    set.main.disk().spoil(0, 512, Fault::bad(Direction::Both));
    set.open().write(0, &stamps(0, 512, 1)).unwrap();
    // One block that main cannot read and that was not written.
    set.main.disk().spoil(1024, 8, Fault::bad(Direction::Both));
    set.open().read(1024, 8).unwrap_err();
    assert_eq!(set.device().pending(), 1);
    let new = set.add_disk(2);
    set.reload(&[0, new], "").unwrap();
    // It is in use.
    let refusal = set.device().load(&set.line(&[new], "")).unwrap_err();
    assert!(refusal.reason.contains("evacuate"), "{refusal:?}");
    assert_eq!(set.device().loaded_table(), "");
    let told = set.device().message("evacuate 0").unwrap();
    assert_eq!(told, "65 blocks moved to other spares, 0 stay");
    assert_eq!(set.member_of(0), Some(1));
    assert_eq!((set.device().remapped(), set.device().pending()), (64, 1));
    set.reload(&[new], "").unwrap();
    set.expect_whole(1);
    assert!(set.open().read(0, 512).unwrap() == stamps(0, 512, 1));
    set.open().read(1024, 8).unwrap_err();
    set.open().write(1024, &stamps(1024, 8, 2)).unwrap();
    // The old one is not needed, and is no member any more.
    let refusal = set.device().load(&set.line(&[0, new], "")).unwrap_err();
    assert!(refusal.reason.contains("not blank"), "{refusal:?}");
    set.kill(0);
    set.deactivate();
    set.activate(&[new], "");
    set.expect_whole(1);
    assert!(set.open().read(0, 512).unwrap() == stamps(0, 512, 1));
    assert!(set.open().read(1024, 8).unwrap() == stamps(1024, 8, 2));
    // As new it can be used again.
    set.revive(0);
    set.reload(&[new, 0], "format").unwrap();
    set.expect_whole(2);
}

/// P8: a flush goes to each spare that users have written to.
#[test]
fn flushes_go_to_the_spares_that_need_them() {
    let _test = vmtest::begin!();
    let set = Set::new(&[1, 1]);
    let (_, capacity) = set.device().status_fraction(0);
    let sectors = (capacity - 4) * BLOCK;
    set.main
        .disk()
        .spoil(0, sectors, Fault::bad(Direction::Both));
    set.write_in_parts(0, sectors);
    let last = sectors - BLOCK;
    assert_eq!(set.member_of(last), Some(1));
    let device = set.open();
    device.flush().unwrap();
    device.write(last, &stamps(last, BLOCK, 2)).unwrap();
    assert!(set.spares[1].disk().unflushed_bytes() > 0);
    device.flush().unwrap();
    assert_eq!(set.spares[1].disk().unflushed_bytes(), 0);
    device.write(0, &stamps(0, BLOCK, 2)).unwrap();
    device.write(last, &stamps(last, BLOCK, 3)).unwrap();
    device.flush().unwrap();
    for spare in &set.spares {
        assert_eq!(spare.disk().unflushed_bytes(), 0);
    }
    // One that fails on the second spare only is told.
    device.write(last, &stamps(last, BLOCK, 4)).unwrap();
    set.spares[1].disk().fail_flushes(Status::Io, 1);
    device.flush().unwrap_err();
    set.expect("flush", "failed");
    device.flush().unwrap();
    set.expect("flush", "good");
}

/// P7: the slots that a replica of another spare's table took are there again once that spare has left, and
/// what they serve then is there after a power cut.
#[test]
fn slots_behind_a_replica_that_left_are_used_again() {
    let _test = vmtest::begin!();
    for used in [0, 40] {
        let mut set = Set::new(&[1]);
        let (_, capacity) = set.device().status_fraction(0);
        set.remap(0..used, 1);
        let new = set.add_disk(1);
        set.reload(&[0, new], "").unwrap();
        set.expect_whole(2);
        let (_, both) = set.device().status_fraction(0);
        assert!(both < 2 * capacity, "no replica is on the other one");
        set.reload(&[0], "").unwrap();
        set.expect_whole(1);
        let (_, left) = set.device().status_fraction(0);
        assert_eq!(left, capacity, "with {used} in use");
        set.remap(used..capacity, 1);
        assert_eq!(set.device().remapped(), capacity);
        set.spoil(capacity..capacity + 1);
        set.write(capacity..capacity + 1, 1).unwrap_err();
        set.open().flush().unwrap();
        set.power_cut(|_| PowerCut::Drop);
        set.activate(&[0], "");
        set.expect_whole(1);
        set.check(0..capacity, 1);
        // They can be taken once more.
        set.free_slots(0..capacity);
        set.reload(&[0, new], "format").unwrap();
        set.expect_whole(2);
        assert_eq!(set.device().status_fraction(0).1, both);
    }
}
