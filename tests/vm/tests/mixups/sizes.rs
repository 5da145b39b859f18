// SPDX-License-Identifier: GPL-2.0
//! D3, P9: disks that had another size once.

use super::disk;
use super::line;
use super::refused;
use super::uuid;
use super::MAIN;
use super::SPARE;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Kmsg;
use vmtest::guest::Mapped;

/// What was seen of a main once counts nothing, only what a table used.
#[test]
fn a_main_that_was_once_larger_is_still_the_one() {
    let _test = vmtest::begin!();
    let (main, larger, spare) = (disk(MAIN), disk(MAIN + 2048), disk(SPARE));
    for main in [&main, &larger, &main] {
        let device = Mapped::new(&line(main, &spare, ""));
        device.message("remap 1000 8").unwrap();
        device.remove();
    }
    // Formatted on the larger one.
    let spare = disk(SPARE);
    for main in [&larger, &main] {
        let device = Mapped::new(&line(main, &spare, ""));
        // In use, too.
        device.load(&line(&larger, &spare, "")).unwrap();
        device.resume().unwrap();
        device.load(&line(main, &spare, "")).unwrap();
        device.resume().unwrap();
        device.remove();
    }
    let all = line(&larger, &spare, "").replacen(&MAIN.to_string(), &(MAIN + 8).to_string(), 1);
    Mapped::new(&all).remove();
    refused(
        &line(&main, &spare, ""),
        "No such device",
        &["larger main", &(MAIN + 8).to_string(), &MAIN.to_string()],
    );
}

/// A remap at the end of what is used is there in the same main, and refuses one that does not reach so far.
#[test]
fn a_remap_beyond_the_end_refuses() {
    let _test = vmtest::begin!();
    let (main, spare) = (disk(MAIN), disk(SPARE));
    main.disk().spoil(MAIN - 8, 8, Fault::bad(Direction::Both));
    let device = Mapped::new(&line(&main, &spare, ""));
    Direct::open(&device.path())
        .write(MAIN - 8, &stamps(MAIN - 8, 8, 1))
        .unwrap();
    device.remove();
    let smaller = disk(MAIN - 8);
    let short = line(&smaller, &spare, "").replacen(&MAIN.to_string(), "65536", 1);
    refused(&short, "No such device", &["larger main"]);
    let device = Mapped::new(&line(&main, &spare, ""));
    let opened = Direct::open(&device.path());
    assert!(opened.read(MAIN - 8, 8).unwrap() == stamps(MAIN - 8, 8, 1));
}

/// A spare that was formatted smaller than it is keeps its capacity; that is told at each load, with the way
/// to more, and that way is one.
#[test]
fn a_spare_that_has_grown_is_told_and_can_be_used() {
    let _test = vmtest::begin!();
    let (main, spare, second) = (disk(MAIN), disk(2 * SPARE), disk(SPARE));
    let part = format!("4 spare_start 0 spare_len {SPARE}");
    let device = Mapped::new(&line(&main, &spare, &part));
    device.message("remap 1000 8").unwrap();
    let before = device.status_fraction(0).1;
    let set = uuid(&device);
    device.remove();
    let told = |log: &mut Kmsg| {
        log.text()
            .contains(&format!("spare 0 has grown by {SPARE} sectors"))
    };
    let mut log = Kmsg::from_now();
    let device = Mapped::new(&line(&main, &spare, &format!("2 uuid {set}")));
    assert!(told(&mut log), "nothing is said");
    assert_eq!(device.status_fraction(0), (8, before));
    let both = |first, more| line(&main, first, &format!("2 spare {more}"));
    let (grown, other) = (spare.path(), second.path());
    let mut log = Kmsg::from_now();
    device.load(&both(&spare, other.display())).unwrap();
    assert!(told(&mut log), "nothing is said");
    device.resume().unwrap();
    device.message("evacuate 0").unwrap();
    device.load(&line(&main, &second, "")).unwrap();
    device.resume().unwrap();
    // What was on it is there still: the user has to say that it may go.
    let again = format!("3 spare {} format", grown.display());
    device.load(&line(&main, &second, &again)).unwrap();
    device.resume().unwrap();
    assert!(
        device.status_fraction(0).1 > 2 * before,
        "{}",
        device.status()
    );
    let mut log = Kmsg::from_now();
    device.load(&both(&second, grown.display())).unwrap();
    assert!(!told(&mut log));
}
