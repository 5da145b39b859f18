// SPDX-License-Identifier: GPL-2.0
//! The map grows for that spare whose slots are asked for.

use std::process::Command;

use vmtest::guest::eventually;
use vmtest::guest::load;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::Refusal;

use super::set::Set;
use super::set::BLOCK;

/// Slots of a block of the slot table, and how many blocks are initialised at a time.
const ENTRIES: u64 = 252;
const BLOCKS: u64 = 64;

impl Set {
    /// A number that `metadata_status` tells of a member.
    #[track_caller]
    fn number_of(&self, member: u8, key: &str) -> u64 {
        let told = self.of(member, key).expect(key);
        told.parse().expect("a number")
    }

    /// Has a sector of main served by a slot of a member, which must be the first in the table line.
    fn redirect(
        &self,
        sector: u64,
        member: u8,
        slot: u64,
        slot_sectors: u64,
    ) -> Result<(), Refusal> {
        let place = self.number_of(member, "data_start") + slot * slot_sectors;
        let message = format!("add_remap {sector} {place} {slot_sectors}");
        self.device().message(&message).map(|_| ())
    }
}

/// A raw redirect initialises the table of the spare whose slot it names, up to that slot, and of no other.
#[test]
fn a_redirect_extends_its_own_spare() {
    let _test = vmtest::begin!();
    let mut set = Set::new(&[160, 160]);
    assert_eq!(set.number_of(0, "usable_slots"), BLOCKS * ENTRIES);
    assert_eq!(set.number_of(1, "usable_slots"), 0);
    set.again(&[1, 0], "");
    for (sector, slot) in [(0, 100), (BLOCK, BLOCKS * ENTRIES + 5)] {
        set.redirect(sector, 1, slot, BLOCK).unwrap();
        assert_eq!(set.member_of(sector), Some(1));
        let usable = set.number_of(1, "usable_slots");
        assert!(
            slot < usable && usable <= slot + BLOCKS * ENTRIES,
            "{usable}"
        );
        assert_eq!(set.number_of(0, "usable_slots"), BLOCKS * ENTRIES);
    }
    let usable = set.number_of(1, "usable_slots");
    // Its slots are given out no more.
    set.device().message("evacuate 1").unwrap();
    for slot in [usable - 1, usable + 1] {
        let refusal = set.redirect(2 * BLOCK, 1, slot, BLOCK).unwrap_err();
        assert!(refusal.error.contains("busy"), "{refusal:?}");
    }
    assert_eq!(set.number_of(0, "usable_slots"), BLOCKS * ENTRIES);
    assert_eq!(set.number_of(1, "usable_slots"), usable);
    set.remap(100..110, 1);
    assert_eq!(set.place(100), Some(0));
}

/// Spares that are extended by turns have as many runs of slots as the map knows at the most. Then there are
/// no more slots until the device is made anew: what asks for one fails, and does not try for ever.
#[test]
fn an_end_to_all_turns() {
    let _test = vmtest::begin!();
    load();
    let disk = |mib: u64| SickDisk::start(Options::memory(mib << 20)).expect("start a disk");
    let mut set = Set {
        device: None,
        main: disk(16),
        spares: vec![disk(400), disk(400)],
    };
    set.activate(&[0, 1], "");
    let mut refused = None;
    for round in 0..20u8 {
        let (member, other) = (round % 2, (round + 1) % 2);
        set.reload(&[member.into(), other.into()], "").unwrap();
        // Behind all that has a number so far: what is initialised, and what is next, or a quarter more.
        let usable = set.number_of(member, "usable_slots");
        let slot = (usable + BLOCKS * ENTRIES).max(usable / 4 * 5 + ENTRIES);
        let sector = u64::from(round);
        match set.redirect(sector, member, slot, 1) {
            Ok(()) => assert_eq!(set.member_of(sector), Some(member)),
            Err(refusal) => {
                refused = Some((sector, member, slot, refusal));
                break;
            }
        }
    }
    let (sector, member, slot, refusal) = refused.expect("an end");
    assert!(refusal.error.contains("No space left"), "{refusal:?}");
    assert!(sector > 10, "{sector}");
    // There are others that it knows.
    set.remap(200..210, 1);
    set.again(&[member.into(), (1 - member).into()], "");
    set.check(200..210, 1);
    set.redirect(sector, member, slot, 1).unwrap();
    for sector in 0..=sector {
        assert_eq!(set.member_of(sector), Some((sector % 2) as u8));
    }
}

/// E8, P16: `add_remap` to a far slot initialises the slot table in front of it in parts, and ends within one
/// at a signal, or a suspend.
#[test]
fn a_far_slot_is_reached_in_parts() {
    let _test = vmtest::begin!();
    let set = Set::new(&[256]);
    let (before, slots) = (set.number_of(0, "usable_slots"), set.number_of(0, "slots"));
    assert!(before < slots / 3, "{before} of {slots}");
    // A block of the second part, behind superblock copies and reserve blocks: by then memory is no reason to stop.
    let next = (33 + before / ENTRIES + BLOCKS) * 8;
    set.spares[0].disk().hold(next..next + 8, Direction::Write);
    let far = set.number_of(0, "data_start") + (slots - 1) * BLOCK;
    let mut message = Command::new("dmsetup")
        .args(["message", set.device().name(), "0", "add_remap", "0"])
        .args([far.to_string(), BLOCK.to_string()])
        .spawn()
        .expect("run dmsetup");
    let waits = eventually(|| !set.spares[0].disk().waiting().is_empty());
    message.kill().expect("a signal");
    set.spares[0].disk().release();
    message.wait().expect("it ends");
    assert!(waits, "nothing is initialised");
    let after = set.number_of(0, "usable_slots");
    assert!(before < after && after < slots, "{after} of {slots}");
    // The next one goes on, and gets there.
    let line = format!("add_remap 0 {far} {BLOCK}");
    set.device().message(&line).unwrap();
    assert_eq!(set.slot_of(0), far);
}
