// SPDX-License-Identifier: GPL-2.0
//! E2, E4, M11: what users say about sectors of main that cannot be read: that their content is given up (`zero`), and
//! that main is not to be asked for them any more (`avoid`).

use super::bad;
use super::number;
use super::slots_used;
use super::unreadable;
use vmtest::guest::eventually;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::superblocks;
use vmtest::guest::Remap;

/// Where a superblock has its features.
const RO_COMPAT: usize = 24;
const INCOMPAT: usize = 32;

/// A feature word of each superblock copy.
fn features(remap: &Remap, at: usize) -> Vec<u64> {
    let mut image = [0; 512];
    let copies = superblocks(&remap.spare).into_iter().map(|sector| {
        remap.spare.disk().peek(sector, &mut image).unwrap();
        u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
    });
    copies.collect()
}

fn verify(remap: &Remap, sector: u64) -> String {
    let told = remap.device().message(&format!("verify {sector}"));
    told.unwrap()
}

/// The sectors of these that main was asked for since its record began.
fn reads_of_main(remap: &Remap, first: u64, sectors: u64) -> usize {
    let disk = remap.main.disk();
    let reads = disk.record().entries().iter().filter(|entry| {
        let end = entry.sector + entry.sectors;
        entry.operation == Operation::Read && entry.sector < first + sectors && first < end
    });
    reads.count()
}

/// A file system cannot be made where its first blocks cannot be read, as that reads before it writes; when they are
/// given up it can, and what was given up is known afterwards.
#[test]
fn a_file_system_is_made_where_blocks_were_given_up() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let mut remap = Remap::new(block);
        let blocks = 8 * 512 / u64::from(block);
        // It may get as far as writing what follows, which a drive can read then.
        remap.main.disk().spoil(0, 8, Fault::until_written());
        let make = format!("mkfs.ext4 -q -F {}", remap.path().display());
        assert_ne!(run(&make).status, 0, "it reads before it writes");
        let reply = remap.device().message("zero 0 16").unwrap();
        assert_eq!(
            reply,
            format!("{blocks} blocks given up, {blocks} copied, 0 left alone")
        );
        assert_eq!(remap.device().remapped(), 2 * blocks);
        assert_eq!(remap.device().pending(), 0);
        assert!(remap.open().read(0, 8).unwrap() == vec![0; 8 * 512]);
        succeed(&make);
        succeed(&format!("e2fsck -fn {}", remap.path().display()));
        remap.reactivate();
        assert!(verify(&remap, 0).contains("given up"));
        assert!(verify(&remap, 7).contains("given up"));
        assert!(!verify(&remap, 8).contains("given up"));
        let listed = remap.device().message("list").unwrap();
        assert_eq!(listed, "0 8 given_up\n8 8 remapped\nend");
        let given_up = remap.device().message("list GIVEN_UP").unwrap();
        assert_eq!(given_up, "0 8 given_up\nend");
        assert_eq!(features(&remap, INCOMPAT), [4; 4], "M11");
        // Where it was moved back, nothing is given up any more.
        remap.main.disk().heal(0, 8);
        remap.device().message("remove_remap 0 16").unwrap();
        assert!(!verify(&remap, 0).contains("given up"));
        succeed(&format!("e2fsck -fn {}", remap.path().display()));
    }
}

/// What main can read is copied, if at the last try only, and what a slot serves is left alone.
#[test]
fn only_what_cannot_be_read_is_given_up() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    device.write(0, &stamps(0, 48, 1)).unwrap();
    remap.device().message("remap 8 8").unwrap();
    remap.main.disk().spoil(8, 16, unreadable());
    remap.device().message("set read_retries 9").unwrap();
    remap.main.disk().spoil(40, 1, unreadable().times(8));
    let reply = remap.device().message("zero 0 48").unwrap();
    assert_eq!(reply, "1 blocks given up, 4 copied, 1 left alone");
    let expected = [stamps(0, 16, 1), vec![0; 4096], stamps(24, 24, 1)];
    assert!(device.read(0, 48).unwrap() == expected.concat());
    // Nor is it given up when it is said again.
    device.write(16, &stamps(16, 8, 2)).unwrap();
    let reply = remap.device().message("zero 0 48").unwrap();
    assert_eq!(reply, "0 blocks given up, 0 copied, 6 left alone");
    assert!(device.read(16, 8).unwrap() == stamps(16, 8, 2));
}

/// E2, P6: an error that says nothing of the medium gives up nothing, and neither does a main that is dead.
#[test]
fn other_errors_give_up_nothing() {
    let _test = vmtest::begin!();
    for status in [
        Status::Medium,
        Status::Io,
        Status::Transport,
        Status::Offline,
    ] {
        let remap = Remap::new(512);
        remap.main.disk().die(status, Direction::Both);
        remap.device().message("zero 0 64").unwrap_err();
        assert_eq!(slots_used(&remap), 0, "{status:?}");
        assert_eq!(features(&remap, INCOMPAT), [0; 4], "{status:?}");
    }
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 64, 1)).unwrap();
    let away = unreadable().status(Status::Transport);
    remap.main.disk().spoil(20, 1, unreadable());
    remap.main.disk().spoil(40, 1, away);
    let refusal = remap.device().message("zero 0 64").unwrap_err();
    let said = "1 blocks given up, 20 copied, 0 left alone, then: ";
    assert!(refusal.reason.contains(said), "{refusal:?}");
    remap.main.disk().heal(0, 64);
    let mut expected = stamps(0, 64, 1);
    expected[20 * 512..21 * 512].fill(0);
    assert!(device.read(0, 64).unwrap() == expected);
}

/// P1, E3: a block that is written while main is asked for it has what was written.
#[test]
fn a_write_meanwhile_is_not_given_up() {
    let _test = vmtest::begin!();
    for pending in [true, false] {
        let remap = Remap::new(4096);
        let device = remap.open();
        remap.main.disk().spoil(8, 8, Fault::until_written());
        if pending {
            device.read(8, 8).unwrap_err();
            assert!(verify(&remap, 8).contains("unreadable"));
        }
        remap.main.disk().hold(8..16, Direction::Read);
        let reply = std::thread::scope(|scope| {
            let zero = scope.spawn(|| remap.device().message("zero 8 8"));
            assert!(eventually(|| !remap.main.disk().waiting().is_empty()));
            device.write(8, &stamps(8, 8, 1)).unwrap();
            remap.main.disk().release();
            zero.join().unwrap().unwrap()
        });
        assert!(reply.starts_with("0 blocks given up"), "{reply}");
        assert!(device.read(8, 8).unwrap() == stamps(8, 8, 1), "{pending}");
    }
}

/// What only a slot had is given up when the slot cannot be read, and not before.
#[test]
fn a_slot_that_cannot_be_read_is_given_up() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    remap.device().message("remap 0 16").unwrap();
    device.write(0, &stamps(0, 16, 1)).unwrap();
    for sector in [0, 8] {
        let slot = remap.slot_of(sector).unwrap();
        remap.spare.disk().spoil(slot, 8, unreadable());
        device.read(sector, 8).unwrap_err();
    }
    assert_eq!(number(&remap, "lost"), 2);
    let slot = remap.slot_of(0).unwrap();
    remap.spare.disk().heal(slot, 8);
    let reply = remap.device().message("zero 0 16").unwrap();
    assert_eq!(reply, "1 blocks given up, 0 copied, 1 left alone");
    assert!(device.read(0, 8).unwrap() == stamps(0, 8, 1));
    assert!(device.read(8, 8).unwrap() == vec![0; 4096]);
    assert_eq!(
        number(&remap, "lost"),
        1,
        "nobody has written the other one"
    );
}

/// M11: however far it comes, what is found after a power cut is the error or zeroes, and no entry that the superblocks do
/// not announce.
#[test]
fn a_power_cut_while_blocks_are_given_up() {
    let _test = vmtest::begin!();
    let mut given_up = 0;
    for writes in 0..20 {
        let mut remap = Remap::new(512);
        remap.main.disk().spoil(8, 1, unreadable());
        remap.open().read(8, 1).unwrap_err();
        assert!(verify(&remap, 8).contains("unreadable"));
        remap.spare.disk().die_after(writes, Status::Offline);
        let done = remap.device().message("zero 8").is_ok();
        remap.power_cut(PowerCut::Drop);
        let known = verify(&remap, 8).contains("given up");
        assert!(known || !done, "{writes}");
        match remap.open().read(8, 1) {
            Ok(data) => assert!(known && data == [0; 512], "{writes}"),
            Err(_) => assert!(!known, "{writes}"),
        }
        let announced = features(&remap, INCOMPAT) == [4; 4];
        assert!(announced || !known, "{writes}");
        given_up += u32::from(known);
    }
    assert!((1..20).contains(&given_up), "{given_up}");
}

/// E4: where main is not to be read it is not, by whatever; other sectors are read, and what is written is on the spare.
#[test]
fn main_is_not_asked_for_what_is_avoided() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let at = |blocks: u64| blocks * unit;
        let remap = Remap::new(block);
        let device = remap.open();
        device.write(0, &stamps(0, at(64), 1)).unwrap();
        remap.main.disk().spoil(at(16), at(8), bad());
        device.read(at(20), at(1)).unwrap_err();
        assert!(verify(&remap, at(20)).contains("unreadable"));
        let avoid = format!("avoid {} {}", at(16), at(8));
        let reply = remap.device().message(&avoid).unwrap();
        assert_eq!(reply, "8 blocks are avoided");
        assert_eq!(slots_used(&remap), 1, "it takes no slots");

        remap.record();
        for number in 16..24 {
            let error = device.read(at(number), at(1)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(61), "a medium error");
        }
        device.read(at(8), at(16)).unwrap_err();
        device.read(at(20), at(16)).unwrap_err();
        let reply = remap
            .device()
            .message(&format!("remap {} {}", at(16), at(8)));
        let counted = "0 blocks remapped, 0 remapped before, 8 unreadable";
        assert_eq!(reply.unwrap(), counted);
        let zero = format!("zero {} {}", at(12), at(8));
        let refusal = remap.device().message(&zero).unwrap_err();
        assert!(refusal.reason.contains("retry it first"), "{refusal:?}");
        succeed(&format!(
            "blkdiscard --force -o {} -l {} {}",
            at(16) * 512,
            at(8) * 512,
            remap.path().display()
        ));
        assert_eq!(slots_used(&remap), 1);
        assert!(device.read(at(15), at(1)).unwrap() == stamps(at(15), at(1), 1));
        assert!(device.read(at(24), at(40)).unwrap() == stamps(at(24), at(40), 1));

        // One that begins before the range, one within it, and one that ends behind it.
        for (first, count, generation) in [(14, 3, 2), (19, 2, 3), (23, 3, 4)] {
            let data = stamps(at(first), at(count), generation);
            device.write(at(first), &data).unwrap();
            assert!(device.read(at(first), at(count)).unwrap() == data);
        }
        assert_eq!(remap.device().remapped(), 4);
        assert!(remap.slot_of(at(14)).is_none() && remap.slot_of(at(25)).is_none());
        for number in [17, 18, 21, 22] {
            device.read(at(number), at(1)).unwrap_err();
            assert!(verify(&remap, at(number)).contains("avoided"));
        }
        let line = |(first, count)| format!("{} {} avoided\n", at(first), at(count));
        let avoided: String = [(17, 2), (21, 2)].map(line).concat();
        let listed = remap.device().message("list avoided").unwrap();
        assert_eq!(listed, avoided + "end");
        // What would be moved back could not be compared.
        let back = format!("remove_remap {} {}", at(19), at(1));
        assert!(remap.device().message(&back).is_err());
        let reply = remap.device().message("clear_all").unwrap();
        assert!(reply.ends_with("4 stay on the spare"), "{reply}");
        assert!(device.read(at(19), at(2)).unwrap() == stamps(at(19), at(2), 3));
        assert_eq!(reads_of_main(&remap, at(16), at(8)), 0, "main was asked");
    }
}

/// E4: it is so until `retry` says otherwise, after a power cut, too, and with other tables; then main has what it had.
#[test]
fn what_is_avoided_stays_so() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let data = stamps(96, 16, 1);
    let end = Remap::MAIN_SECTORS - 16;
    {
        let device = remap.open();
        device.write(96, &data).unwrap();
        device.write(end, &stamps(end, 16, 1)).unwrap();
        device.flush().unwrap();
    }
    remap.device().message("avoid 96 4").unwrap();
    remap.device().message("avoid 104 4").unwrap();
    remap.device().message(&format!("avoid {end} 16")).unwrap();
    let check = |remap: &Remap| {
        let device = remap.open();
        for (first, count, is_read) in [(96, 4, false), (100, 4, true), (104, 4, false)] {
            let read = device.read(first, count);
            assert_eq!(read.is_ok(), is_read, "{first}");
        }
    };
    check(&remap);
    remap.power_cut(PowerCut::Drop);
    check(&remap);
    let line = remap.line();
    let shorter = line.replacen(
        &format!("0 {} ", Remap::MAIN_SECTORS),
        &format!("0 {} ", end - 16),
        1,
    );
    for table in [&shorter, &line] {
        remap.device().load(table).unwrap();
        remap.device().suspend().unwrap();
        remap.device().resume().unwrap();
        check(&remap);
    }
    remap.open().read(end, 8).unwrap_err();
    assert_eq!(features(&remap, RO_COMPAT), [1; 4], "M11");
    let reply = remap.device().message("retry 97 9").unwrap();
    let nothing = "0 blocks can be read again, 0 still cannot, 0 are served by a spare";
    assert_eq!(reply, format!("5 blocks are avoided no more\n{nothing}"));
    let device = remap.open();
    assert!(device.read(97, 9).unwrap() == stamps(97, 9, 1));
    device.read(96, 1).unwrap_err();
    device.read(106, 1).unwrap_err();
    let all = format!("retry 0 {}", Remap::MAIN_SECTORS);
    let reply = remap.device().message(&all).unwrap();
    assert_eq!(reply, format!("19 blocks are avoided no more\n{nothing}"));
    drop(device);
    remap.reactivate();
    assert!(remap.open().read(96, 16).unwrap() == data);
    assert!(remap.open().read(end, 16).unwrap() == stamps(end, 16, 1));
}

/// One `retry` takes back all that keeps main from being asked: what is avoided, and what is pending and can be read again.
#[test]
fn retry_takes_back_both() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 8, 1)).unwrap();
    remap.main.disk().spoil(98, 2, bad());
    device.read(96, 8).unwrap_err();
    assert!(eventually(|| remap.device().pending() == 2));
    remap.device().message("avoid 99 3").unwrap();
    let listed = remap.device().message("list").unwrap();
    assert_eq!(listed, "98 1 pending\n99 3 avoided\nend");
    remap.main.disk().heal(99, 1);
    assert_eq!(
        remap.device().message("retry 96 8").unwrap(),
        "3 blocks are avoided no more\n\
         1 blocks can be read again, 1 still cannot, 0 are served by a spare"
    );
    let listed = remap.device().message("list").unwrap();
    assert_eq!(listed, "98 1 pending\nend");
    assert!(device.read(99, 5).unwrap() == stamps(99, 5, 1));
    remap.main.disk().heal(98, 1);
    assert_eq!(
        remap.device().message("retry 96 8").unwrap(),
        "1 blocks can be read again, 0 still cannot, 0 are served by a spare"
    );
    assert_eq!(remap.device().message("list").unwrap(), "end");
    assert_eq!(slots_used(&remap), 0);
}

/// There are as many ranges as there is room for, and what is refused changes nothing.
#[test]
fn ranges_to_avoid_have_an_end() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    for message in ["avoid 8", "avoid 8 0", "avoid 8 8 8", "retry", "zero"] {
        assert!(remap.device().message(message).is_err(), "{message}");
    }
    let beyond = format!("avoid 8 {}", Remap::MAIN_SECTORS);
    let refusal = remap.device().message(&beyond).unwrap_err();
    assert!(refusal.error.contains("out of range"), "{refusal:?}");
    assert_eq!(features(&remap, RO_COMPAT), [0; 4]);
    for number in 0..64 {
        let message = format!("avoid {} 3", 100 * number);
        remap.device().message(&message).unwrap();
    }
    let refusal = remap.device().message("avoid 9000 1").unwrap_err();
    assert!(refusal.error.contains("No space left"), "{refusal:?}");
    assert!(refusal.reason.contains("room for 64 ranges"), "{refusal:?}");
    assert!(remap.device().message("retry 101 1").is_err());
    // Those that touch are one.
    remap.device().message("avoid 103 97").unwrap();
    remap.device().message("avoid 9000 1").unwrap();
    remap.reactivate();
    let device = remap.open();
    for sector in [101, 150, 202, 6302, 9000] {
        device.read(sector, 1).unwrap_err();
    }
    for sector in [99, 203, 6303, 8999, 9001] {
        device.read(sector, 1).unwrap();
    }
}

/// M11: the feature is durable before the first record is written, and whatever a power cut leaves is one or the other.
#[test]
fn a_power_cut_while_ranges_are_recorded() {
    let _test = vmtest::begin!();
    let mut seen = [0; 3];
    for writes in 0..10 {
        let mut remap = Remap::new(512);
        let device = remap.open();
        device.write(96, &stamps(96, 16, 1)).unwrap();
        device.flush().unwrap();
        drop(device);
        remap.spare.disk().die_after(writes, Status::Offline);
        let done = remap.device().message("avoid 100 4").is_ok();
        remap.power_cut(PowerCut::Drop);
        let avoided = remap.open().read(100, 4).is_err();
        assert!(avoided || !done, "{writes}");
        assert!(remap.open().read(96, 4).unwrap() == stamps(96, 4, 1));
        let announced = features(&remap, RO_COMPAT) == [1; 4];
        assert!(announced || !avoided, "{writes}");
        seen[usize::from(announced) + usize::from(avoided)] += 1;
        remap.device().message("avoid 100 4").unwrap();
        remap.device().message("retry 100 4").unwrap();
        assert!(remap.open().read(96, 16).unwrap() == stamps(96, 16, 1));
    }
    assert!(seen.iter().all(|count| *count != 0), "{seen:?}");
}

/// A switch is as it was left when the device is used again, unless the table says otherwise.
#[test]
fn a_switch_is_remembered() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    assert_eq!(features(&remap, RO_COMPAT), [0; 4], "nobody said anything");
    remap.device().message("set_auto_remap 0").unwrap();
    assert_eq!(features(&remap, RO_COMPAT), [2; 4], "M11");
    remap.power_cut(PowerCut::Drop);
    assert_eq!(
        remap.device().status_value("auto_remap").as_deref(),
        Some("off")
    );
    remap.main.disk().spoil(8, 1, bad());
    assert!(remap.open().write(8, &stamps(8, 1, 1)).is_err());
    remap.device().message("set_auto_remap 1").unwrap();
    remap.reactivate();
    remap.open().write(8, &stamps(8, 1, 1)).unwrap();
}
