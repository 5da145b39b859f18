// SPDX-License-Identifier: GPL-2.0
//! Which spare is what.

use vmtest::guest::stamps;
use vmtest::guest::Mapped;

use super::set::content;
use super::set::disk;
use super::set::Set;
use super::set::TINY;

/// What a table is refused with.
#[track_caller]
fn refused(line: &str, error: &str, reason: &str) {
    let refusal = Mapped::try_new(line).expect_err(line);
    assert!(refusal.error.contains(error), "{line}: {refusal:?}");
    assert!(refusal.reason.contains(reason), "{line}: {refusal:?}");
}

/// A blank spare does not pass for one that the table line names by its set; only what is foreign is
/// formatted; and a set that is complete takes no others.
#[test]
fn names_and_formatting() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1, 1]);
    set.activate(&[0], "");
    set.remap(0..4, 1);
    let uuid = set.uuid();
    let line = set.line(&[0, 1], &format!("uuid {uuid}"));
    let refusal = set.device().load(&line).unwrap_err();
    assert!(refusal.reason.contains("blank"), "{refusal:?}");
    set.deactivate();
    let blank = content(&set.spares[1]);
    refused(&line, "No data", "blank");
    assert!(
        content(&set.spares[1]) == blank,
        "the blank spare was written"
    );

    // Something else is on it.
    set.spares[1].disk().poke(1000, &stamps(0, 8, 1)).unwrap();
    let before = content(&set.spares[0]);
    refused(&set.line(&[0, 1], ""), "", "not blank");
    assert!(content(&set.spares[0]) == before, "our spare was written");
    set.activate(&[0, 1], "format");
    set.expect_whole(2);
    set.check(0..4, 1);
    assert_eq!(set.device().remapped(), 4);
    set.again(&[1, 0], &format!("uuid {uuid}"));
    set.expect_whole(2);
    set.check(0..4, 1);
    set.deactivate();
    refused(&set.line(&[0, 1], "format"), "File exists", "format");
    set.activate(&[0, 1], "");
    set.check(0..4, 1);
}

/// Read-only tables write to no spare, whole or not, and blank ones are refused there.
#[test]
fn read_only_tables_write_nothing() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[1, 1]);
    set.remap(0..200, 1);
    set.deactivate();
    for (spares, more) in [(&[0, 1][..], ""), (&[1, 0], ""), (&[0], "degraded")] {
        let before = [content(&set.spares[0]), content(&set.spares[1])];
        let device = Mapped::try_read_only(&set.line(spares, more)).unwrap();
        let read = vmtest::guest::read_only(&device.path(), 0, 64).unwrap();
        assert!(read == stamps(0, 64, 1));
        device.remove();
        let after = [content(&set.spares[0]), content(&set.spares[1])];
        assert!(before == after, "{spares:?} {more}");
    }
    set.spares.push(disk(TINY));
    let refusal = Mapped::try_read_only(&set.line(&[0, 1, 2], "")).unwrap_err();
    assert!(refusal.reason.contains("read-only"), "{refusal:?}");
}

/// Parts of a spare in use are nobody else's.
#[test]
fn spares_in_use_are_not_shared() {
    let _test = vmtest::begin!();
    let mut set = Set::inactive(&[1, 1, 1]);
    set.activate(&[0, 1], "");
    for spares in [[2, 0], [1, 2]] {
        refused(&set.line(&spares, ""), "busy", "used by another device");
    }
    set.expect_whole(2);
    assert!(content(&set.spares[2]).iter().all(|byte| *byte == 0));
}

/// A spare of another set is none of this one, and nothing is written to it.
#[test]
fn spares_of_two_sets_do_not_mix() {
    let _test = vmtest::begin!();
    let mut one = Set::new(&[1, 1]);
    one.remap(0..4, 1);
    let mut other = Set::new(&[1]);
    other.remap(8..12, 1);
    other.deactivate();
    // As one of the first set's disks.
    one.spares.append(&mut other.spares);
    let before = content(&one.spares[2]);
    let refusal = one.reload(&[0, 1, 2], "").unwrap_err();
    assert!(refusal.reason.contains("another set"), "{refusal:?}");
    one.check(0..4, 1);
    one.deactivate();
    let own = [content(&one.spares[0]), content(&one.spares[1])];
    for more in ["", "format", "degraded"] {
        for spares in [[0, 2], [2, 0]] {
            refused(&one.line(&spares, more), "", "superblock");
        }
    }
    assert!(content(&one.spares[2]) == before);
    assert!(content(&one.spares[0]) == own[0] && content(&one.spares[1]) == own[1]);
    one.activate(&[0, 1], "");
    one.expect_whole(2);
    one.check(0..4, 1);
}
