// SPDX-License-Identifier: GPL-2.0
//! D2, M10: lines that a tired person types. What would lose data is refused, before anything is written.

use super::disk;
use super::line;
use super::refused;
use super::uuid;
use super::MAIN;
use super::SPARE;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Kmsg;
use vmtest::guest::Mapped;

const WRONG: &str = "No such device";

fn content(disk: &SickDisk) -> Vec<u8> {
    let disk = disk.disk();
    let mut content = vec![0; disk.sectors() as usize * 512];
    disk.peek(0, &mut content).unwrap();
    content
}

/// A main, and a spare of the same size that serves some of it; and the set's name.
fn used() -> (SickDisk, SickDisk, String) {
    let (main, spare) = (disk(MAIN), disk(MAIN));
    let device = Mapped::new(&line(&main, &spare, ""));
    Direct::open(&device.path())
        .write(1000, &stamps(1000, 8, 1))
        .unwrap();
    device.message("remap 1000 8").unwrap();
    let set = uuid(&device);
    device.remove();
    (main, spare, set)
}

/// Main and spare are mixed up, and a blank disk is at hand: what is a spare is no main, unless the line says
/// so. Nothing is written, to either of them.
#[test]
fn a_spare_is_not_taken_for_main() {
    let _test = vmtest::begin!();
    let (main, spare, set) = used();
    let blank = disk(SPARE);
    let before = content(&spare);
    for more in ["", "1 format"] {
        refused(
            &line(&spare, &blank, more),
            WRONG,
            &["Main is a spare", "mixed up", &set],
        );
    }
    // One copy of the superblock is enough to tell.
    for sector in vmtest::guest::superblocks(&spare).into_iter().skip(1) {
        spare.disk().spoil(sector, 8, Fault::bad(Direction::Read));
    }
    refused(&line(&spare, &blank, ""), WRONG, &[&set]);
    spare.disk().heal(0, MAIN);
    assert!(content(&spare) == before, "the spare was written to");
    assert!(content(&blank).iter().all(|byte| *byte == 0));

    // Both ways round with what is on them.
    refused(&line(&spare, &main, ""), WRONG, &[&set]);
    let device = Mapped::new(&line(&main, &spare, &format!("2 uuid {set}")));
    let opened = Direct::open(&device.path());
    assert!(opened.read(1000, 8).unwrap() == stamps(1000, 8, 1));
    drop(opened);
    device.remove();

    // By the user's word, which the table repeats.
    let device = Mapped::new(&line(&spare, &blank, "1 spare_as_main"));
    assert!(
        device.table().ends_with(" 1 spare_as_main"),
        "{}",
        device.table()
    );
    device.load(&line(&spare, &blank, "")).unwrap();
    device.remove();
}

/// A main that cannot be read where a spare has its superblocks is main all the same.
#[test]
fn a_main_that_is_bad_at_both_ends_is_main() {
    let _test = vmtest::begin!();
    let (main, spare) = (disk(MAIN), disk(SPARE));
    main.disk().spoil(0, 8, Fault::bad(Direction::Both));
    main.disk().spoil(MAIN - 8, 8, Fault::bad(Direction::Both));
    let device = Mapped::new(&line(&main, &spare, ""));
    Direct::open(&device.path())
        .write(0, &stamps(0, 8, 1))
        .unwrap();
    assert_eq!(device.remapped(), 8);
}

/// A main that is taken for the spare, with the word that overwrites what is there.
#[test]
fn a_larger_disk_is_not_formatted_unless_it_is_blank() {
    let _test = vmtest::begin!();
    let (main, spare) = (disk(2 * MAIN), disk(MAIN));
    main.disk().poke(0, &stamps(0, 64, 1)).unwrap();
    let before = content(&main);
    refused(
        &line(&spare, &main, "1 format"),
        "Wrong medium type",
        &["larger than main", "mixed up"],
    );
    assert!(content(&main) == before, "main was written to");
    main.disk().poke(0, &vec![0; 64 * 512]).unwrap();
    Mapped::new(&line(&spare, &main, "1 format")).remove();
}

/// A blank disk in the place of the spare: the line that README tells to use, and the log, refuses it.
#[test]
fn a_blank_disk_in_the_spares_place_is_refused_by_the_line_that_names_the_set() {
    let _test = vmtest::begin!();
    let (main, spare, blank) = (disk(MAIN), disk(SPARE), disk(SPARE));
    let mut log = Kmsg::from_now();
    let device = Mapped::new(&line(&main, &spare, "4 low_water 5 auto_remap on"));
    let told = log.text();
    let named = told
        .lines()
        .find_map(|line| line.split_once("the line to use from now on: "));
    let (_, named) = named.unwrap_or_else(|| panic!("no line in {told}"));
    let set = uuid(&device);
    assert!(named.ends_with(&format!(" uuid {set}")), "{named}");
    main.disk().spoil(1000, 8, Fault::bad(Direction::Both));
    Direct::open(&device.path())
        .write(1000, &stamps(1000, 8, 1))
        .unwrap();
    device.remove();

    let path = |disk: &SickDisk| disk.path().display().to_string();
    let swapped = named.replace(&path(&spare), &path(&blank));
    refused(
        &swapped,
        "No data available",
        &["Spare is blank, but the uuid argument names one"],
    );
    assert!(content(&blank).iter().all(|byte| *byte == 0));
    let mut log = Kmsg::from_now();
    let device = Mapped::new(named);
    assert!(
        !log.text().contains("the line to use"),
        "it is known by now"
    );
    let opened = Direct::open(&device.path());
    assert!(opened.read(1000, 8).unwrap() == stamps(1000, 8, 1));
}
