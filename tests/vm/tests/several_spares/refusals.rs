// SPDX-License-Identifier: GPL-2.0
//! What is refused, and leaves everything as it is.

use super::set::Set;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;

fn image(disk: &SickDisk) -> Vec<u8> {
    let disk = disk.disk();
    let mut data = vec![0; disk.sectors() as usize * 512];
    disk.peek(0, &mut data).expect("peek");
    data
}

/// M9, M10: a spare that is another set's, a copy, not blank, or named by a uuid that it does not have.
#[test]
fn spares_that_do_not_belong() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1, 1]);
    set.main.disk().spoil(0, 64, Fault::bad(Direction::Both));
    set.open().write(0, &stamps(0, 64, 1)).unwrap();
    let uuid = {
        let told = set.device().message("metadata_status").unwrap();
        let line = told.lines().find_map(|line| line.strip_prefix("set_uuid="));
        line.expect("told").to_string()
    };
    let other = Set::new(&[1]);
    let before = image(&other.spares[0]);
    let foreign = set.add_disk(1);
    set.spares[foreign].disk().poke(1080, &[0x53; 512]).unwrap();
    let blank = set.add_disk(1);
    let copy = set.add_disk(1);
    let content = image(&set.spares[1]);
    set.spares[copy].disk().poke(0, &content).unwrap();
    let table = set.device().table();
    let stranger = set.line(&[0, 1], "").replacen(" 2 ", " 4 ", 1)
        + &format!(" spare {}", other.spares[0].path().display());
    for (line, text) in [
        (stranger, "used by another device"),
        (set.line(&[0, 1, foreign], ""), "not blank"),
        (set.line(&[0, 1, copy], ""), "twice"),
        (set.line(&[0, 1, blank], &format!("uuid {uuid}")), "uuid"),
        (set.line(&[0, 1, 1], ""), "overlap"),
        (set.line(&[0, 1], "format"), "format argument"),
    ] {
        let refusal = set.device().load(&line).unwrap_err();
        assert!(refusal.reason.contains(text), "{line}: {refusal:?}");
        assert_eq!(set.device().loaded_table(), "");
        assert_eq!(set.device().table(), table);
    }
    assert!(
        before == image(&other.spares[0]),
        "the other set was written to"
    );
    assert!(set.open().read(0, 64).unwrap() == stamps(0, 64, 1));
    // Formatted at the user's word, and only the one that is not ours.
    set.reload(&[0, 1, foreign], "format").unwrap();
    set.expect_whole(3);
    assert!(!set.device().table().contains("format"));
    assert!(set.open().read(0, 64).unwrap() == stamps(0, 64, 1));
}

/// D1: remaps are not left behind by a table that names another, blank spare only.
#[test]
fn another_spare_instead() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1]);
    let other = set.add_disk(1);
    // Nothing is lost with a spare that serves nothing.
    set.device().load(&set.line(&[other], "")).unwrap();
    set.main.disk().spoil(0, 64, Fault::bad(Direction::Write));
    set.open().write(0, &stamps(0, 64, 1)).unwrap();
    let third = set.add_disk(1);
    let refusal = set.device().load(&set.line(&[third], "")).unwrap_err();
    assert!(refusal.reason.contains("on another spare"), "{refusal:?}");
    assert!(set.open().read(0, 64).unwrap() == stamps(0, 64, 1));
}

/// Five spares, main as a spare, larger blocks.
#[test]
fn lines_that_cannot_be() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1, 1, 1, 1]);
    let refusal = set.try_activate(&[0, 1, 2, 3, 4], "").unwrap_err();
    assert!(
        refusal.reason.contains("four spares at most"),
        "{refusal:?}"
    );
    let main = SickDisk::start(Options::memory(16 << 20).logical_block(512)).unwrap();
    let small = SickDisk::start(Options::memory(1 << 20).logical_block(512)).unwrap();
    let line = |more: &SickDisk| {
        format!(
            "0 32768 dm-remap {} {} 2 spare {}",
            main.path().display(),
            small.path().display(),
            more.path().display()
        )
    };
    for (more, text) in [
        (&set.spares[0], "larger logical blocks"),
        (&main, "same device"),
    ] {
        let refusal = vmtest::guest::Mapped::try_new(&line(more)).unwrap_err();
        assert!(refusal.reason.contains(text), "{refusal:?}");
    }
    // None of them was formatted.
    for disk in &set.spares {
        assert!(image(disk).iter().all(|byte| *byte == 0));
    }
}

/// M4: a read-only table writes to no spare.
#[test]
fn read_only_tables_write_nothing() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1, 1]);
    set.main.disk().spoil(0, 64, Fault::bad(Direction::Write));
    set.open().write(0, &stamps(0, 64, 1)).unwrap();
    set.deactivate();
    let before: Vec<Vec<u8>> = set.spares.iter().map(image).collect();
    let device = vmtest::guest::Mapped::try_read_only(&set.line(&[1, 0], "")).unwrap();
    let opened = std::fs::File::open(device.path()).unwrap();
    let mut data = vec![0; 64 * 512];
    std::os::unix::fs::FileExt::read_exact_at(&opened, &mut data, 0).unwrap();
    assert!(data == stamps(0, 64, 1));
    drop(opened);
    device.remove();
    assert!(before == set.spares.iter().map(image).collect::<Vec<_>>());
}
