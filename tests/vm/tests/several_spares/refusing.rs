// SPDX-License-Identifier: GPL-2.0
//! P15: a spare that takes no writes, and can still be read, does not keep the others from being used.

use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;

use super::set::Set;
use super::set::BLOCK;

/// What fails on main goes to the other spare, no slot is taken for bad, and all that the spare has
/// can be moved away.
#[test]
fn others_take_what_one_refuses() {
    let _test = vmtest::begin!();
    for status in [Status::Medium, Status::Io, Status::Target] {
        let set = Set::new(&[8, 8]);
        let device = set.open();
        let bad = vmtest::guest::sickdisk::Fault::bad(Direction::Both);
        set.main.disk().spoil(0, 256 * BLOCK, bad);
        device.write(0, &stamps(0, 8 * BLOCK, 1)).unwrap();
        assert_eq!(set.member_of(0), Some(0), "{status:?}");

        set.spares[0].disk().die(status, Direction::Write);
        for block in 8..40 {
            let sector = block * BLOCK;
            let written = device.write(sector, &stamps(sector, BLOCK, 1));
            written.unwrap_or_else(|error| panic!("{status:?}, block {block}: {error}"));
            assert_eq!(set.member_of(sector), Some(1), "{status:?}");
        }
        // What it has is still read from there, and what is written goes elsewhere.
        assert!(device.read(0, BLOCK).unwrap() == stamps(0, BLOCK, 1));
        device.write(0, &stamps(0, BLOCK, 2)).unwrap();
        assert!(device.read(0, 8 * BLOCK).unwrap()[..4096] == stamps(0, BLOCK, 2));
        set.expect("bad_slots", "0");

        set.device().message("evacuate 0").unwrap();
        for block in 0..40 {
            assert_eq!(set.member_of(block * BLOCK), Some(1), "{status:?}: {block}");
        }
        let generation = |block| if block == 0 { 2 } else { 1 };
        for block in 0..40 {
            let read = device.read(block * BLOCK, BLOCK).unwrap();
            assert!(read == stamps(block * BLOCK, BLOCK, generation(block)));
        }
    }
}

/// The same where the spare has other reasons than its medium: a thin volume whose pool is full, a path that
/// takes no writes, somebody else's reservation.
#[test]
fn others_take_what_one_refuses_for_other_reasons() {
    let _test = vmtest::begin!();
    for status in [Status::NoSpace, Status::Transport, Status::Reservation] {
        let set = Set::new(&[8, 8]);
        set.remap(0..8, 1);
        assert_eq!(set.place(0), Some(0), "{status:?}");
        set.open().flush().unwrap();

        set.spares[0].disk().die(status, Direction::Write);
        set.remap(8..40, 1);
        assert_eq!(set.place(39), Some(1), "{status:?}");
        set.write(0..1, 2).unwrap();
        assert_eq!(set.place(0), Some(1), "{status:?}");
        set.check(0..1, 2);
        set.check(1..40, 1);
        set.expect("bad_slots", "0");
        let told = set.device().message("evacuate 0").unwrap();
        assert!(told.contains(", 0 stay"), "{told}");
        set.check(1..40, 1);
    }
}
