// SPDX-License-Identifier: GPL-2.0

//! Members that come back: old, used by themselves, or twice (M9).

use dm_remap_logic::commit::Outcome;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Member;
use dm_remap_logic::load::check_return;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;

use super::super::disk::Disks;
use super::super::disk::Trouble;
use super::super::spare;
use super::super::spare::slot_of;
use super::super::spare::Spare;
use super::super::spare::Stop;
use super::at_every_write;
use super::claim;
use super::id;
use super::member;
use super::one;
use super::refusal;
use super::ring;
use super::set_epoch;
use super::without;
use super::COMMITTED;

/// Nothing on a member that comes back is believed, whatever numbers it has (M9).
#[test]
fn a_stale_member() {
    let (mut disks, spare) = ring(11, 2);
    let old = spare.metadata.superblock().clone();
    let mut alone = Spare::load_of(&mut disks, &[0], true).expect("known");
    claim(&mut disks, &mut alone, 40, 40);
    for (set_epoch, epoch) in [(1, 1), (1, 99), (2, 99)] {
        let mut disks = disks.clone();
        // Its superblocks went on by themselves, and so did its tables.
        let mut high = old.clone();
        high.sequence += 1000;
        high.epoch += epoch;
        high.set_epoch = set_epoch;
        let mut image = [0; 4096];
        for copy in 0..4 {
            let copy = CopyId { member: 1, copy };
            high.encode(&mut image, copy);
            let place = high.super_place(copy).expect("in range");
            let own = set_epoch == 1 || copy.copy == 3;
            if own {
                // With the same set epoch, just one that is known to be void.
                if set_epoch == 2 {
                    continue;
                }
                disks.at(1).write(place.sector, &image, true).expect("good");
            }
        }
        let word = SlotWord::new(777, SlotState::Valid, Origin::Auto);
        let entry = Entry {
            word: word.expect("in range"),
            generation: 99 << 40,
        };
        for (of, replica) in [(0, 1), (1, 0)] {
            let uuid = member(&spare, of).uuid;
            for block in 0..2 {
                let entries = [entry; 252].into_iter();
                table_block::encode(&mut image, &uuid, block, 50 << 40, entries);
                let place = old.table_place(replica, id(of, block)).expect("in range");
                assert_eq!(place.member, 1);
                disks.at(1).write(place.sector, &image, true).expect("good");
            }
        }
        let mut both = Spare::load(&mut disks).expect("it is just old");
        assert_eq!(both.map, alone.map);
        assert!(member(&both, 1).missing);
        assert_eq!(both.resync(&mut disks), COMMITTED);
        assert!(!both.metadata.superblock().is_degraded());
        assert!(both.metadata.is_usable(1));
        both.check_redundancy(&mut disks);
        without(&disks, &both, 0);
        without(&disks, &both, 1);
    }
}

/// A member may be ahead of the others in a pass that was never finished.
#[test]
fn ahead_but_left_out() {
    let (mut disks, mut spare) = ring(12, 2);
    let before = disks.at(1).clone();
    for _ in 0..4 {
        disks.crash_in = Some(3);
        assert_eq!(spare.sync(&mut disks), Err(Trouble::Crash));
        disks.crash();
        disks.crash_in = Some(3);
        assert!(matches!(Spare::load(&mut disks), Err(Stop::Crash)));
        disks.crash();
        let (metadata, _) = spare::find(&mut disks, &[0, 1])
            .expect("whole")
            .expect("ours");
        *spare.metadata.superblock_mut() = metadata.superblock().clone();
    }
    // Nothing of that got to the other one.
    *disks.at(1) = before;
    let mut alone = Spare::load_of(&mut disks, &[1], true).expect("known");
    claim(&mut disks, &mut alone, slot_of(1, 50), 50);
    let found = Spare::load(&mut disks).expect("one of them is old");
    assert_eq!(found.map, alone.map);
    assert!(member(&found, 0).missing);
}

/// A member comes back and is gone again at any moment while it is brought up to date; what the
/// others do then counts.
#[test]
fn back_and_gone_again() {
    let build = |tear| {
        let (mut disks, _) = ring(tear << 32, 2);
        let mut alone = Spare::load_of(&mut disks, &[1], true).expect("known");
        claim(&mut disks, &mut alone, slot_of(1, 60), 60);
        let both = Spare::load(&mut disks).expect("one is old");
        (disks, both)
    };
    let act = |disks: &mut Disks, spare: &mut Spare| spare.resync(disks).map(|_| ());
    at_every_write(build, act, |mut disks, spare, ended| {
        let mut alone = Spare::load_of(&mut disks, &[1], true).expect("known");
        assert_eq!(alone.map, spare.map);
        assert!(member(&alone, 0).missing);
        claim(&mut disks, &mut alone, slot_of(1, 61), 61);
        alone.metadata.set_main(1 << 30, None);
        assert_eq!(alone.sync(&mut disks), COMMITTED);
        alone.check_redundancy(&mut disks);
        let mut both = Spare::load(&mut disks).expect("one is old");
        assert_eq!(both.map, alone.map);
        assert_eq!(both.metadata.superblock().main_sectors, 1 << 30);
        assert!(member(&both, 0).missing);
        assert_eq!(both.resync(&mut disks), COMMITTED);
        both.check_redundancy(&mut disks);
        assert!(!both.metadata.superblock().is_degraded());
        assert!(ended || set_epoch(&both) >= 3);
    });
    // And while the set is in use.
    let (mut disks, mut spare) = build(9);
    for (member, replica) in spare.metadata.void_replicas().collect::<Vec<_>>() {
        spare.metadata.begin_rebuild(member, replica);
        assert_eq!(spare.rebuild(&mut disks), COMMITTED);
    }
    assert!(member(&spare, 0).missing && member(&spare, 0).void_supers == 0);
    disks.at(0).gone = true;
    claim(&mut disks, &mut spare, slot_of(1, 62), 62);
    assert_eq!(member(&spare, 0).void_supers, 15);
    assert_eq!(member(&spare, 1).void_replicas, 2);
    spare.check_redundancy(&mut disks);
    without(&disks, &spare, 0);
}

/// A spare that has left is used alone, and so are the others.
#[test]
fn left_and_used_apart() {
    let (mut disks, mut spare) = one(4, 1);
    assert_eq!(spare.join(&mut disks, 1), Ok((1, Outcome::Committed)));
    assert!(spare.rehost(&mut disks, 0, 1, 1));
    assert_eq!(spare.resync(&mut disks), COMMITTED);
    let mut apart = disks.clone();
    Spare::load_of(&mut apart, &[1], true).expect("all is known");
    // As if both replicas had come home.
    let home = Member::new(0, member(&spare, 0).uuid, member(&spare, 0).geometry);
    let superblock = spare.metadata.superblock_mut();
    let place = superblock.member_mut(0).expect("one");
    place.areas = home.areas;
    place.void_replicas = 2;
    spare.metadata.remove_member(1).expect("nothing on it");
    assert_eq!(spare.resync(&mut disks), COMMITTED);
    *disks.at(1) = apart.at(1).clone();
    assert_eq!(
        refusal(&mut disks, &[0, 1], true),
        Some(LoadError::Apart { spare: 0 })
    );
}

/// Each side has what the other does not know, however often each was used.
#[test]
fn split_brain() {
    for (left, right) in [(1, 1), (1, 2), (2, 1), (3, 1), (2, 2)] {
        let (mut disks, _) = ring(14, 2);
        for (disk, times) in [(0, left), (1, right)] {
            for time in 0..times {
                let mut alone = Spare::load_of(&mut disks, &[disk], true).expect("known");
                if time > 0 {
                    let slot = slot_of(disk as u8, 70 + time);
                    claim(&mut disks, &mut alone, slot, 70);
                    alone.free(slot);
                    assert_eq!(alone.commit(&mut disks, &[id(disk as u8, 0)]), COMMITTED);
                }
            }
        }
        for order in [[0, 1], [1, 0]] {
            let apart = refusal(&mut disks, &order, true);
            assert!(matches!(apart, Some(LoadError::Apart { .. })), "{apart:?}");
        }
        assert_eq!(refusal(&mut disks, &[0], true), None);
        assert_eq!(refusal(&mut disks, &[1], true), None);
    }
    // One against two.
    let (mut disks, mut spare) = one(15, 2);
    for disk in 1..3 {
        assert_eq!(spare.join(&mut disks, disk), Ok((disk, Outcome::Committed)));
    }
    assert!(spare.rehost(&mut disks, 0, 1, 2));
    assert_eq!(spare.resync(&mut disks), COMMITTED);
    for side in [&[0, 1][..], &[2]] {
        assert_eq!(refusal(&mut disks, side, true), None);
    }
    let apart = refusal(&mut disks, &[0, 1, 2], true);
    assert!(matches!(apart, Some(LoadError::Apart { .. })), "{apart:?}");
}

/// Members that were away one after the other were not used apart.
#[test]
fn not_apart() {
    // A copy that was written off said so of the other member, long ago.
    let (mut disks, _) = ring(16, 2);
    let mut alone = Spare::load_of(&mut disks, &[0], true).expect("known");
    let sector = member(&alone, 0)
        .geometry
        .superblock_sector(3)
        .expect("in range");
    let mut old = [0; 4096];
    disks.at(0).read(sector, &mut old).expect("good");
    disks.at(0).break_writes(sector);
    assert_eq!(alone.sync(&mut disks), COMMITTED);
    let mut both = Spare::load(&mut disks).expect("one is old");
    assert_eq!(both.resync(&mut disks), COMMITTED);
    assert_eq!(member(&both, 0).void_supers, 0b1000);
    disks.at(0).heal();
    disks.at(0).write(sector, &old, true).expect("good again");
    let mut alone = Spare::load_of(&mut disks, &[1], true).expect("known");
    claim(&mut disks, &mut alone, slot_of(1, 80), 80);
    assert_eq!(Spare::load(&mut disks).expect("one is old").map, alone.map);
    // Of three, one was away, and then another one.
    let (mut disks, _) = ring(17, 3);
    let mut pair = Spare::load_of(&mut disks, &[1, 2], true).expect("known");
    claim(&mut disks, &mut pair, slot_of(1, 81), 81);
    let old = disks.at(1).clone();
    let mut all = Spare::load(&mut disks).expect("one is old");
    assert_eq!(all.resync(&mut disks), COMMITTED);
    let mut pair = Spare::load_of(&mut disks, &[0, 2], true).expect("known");
    claim(&mut disks, &mut pair, slot_of(2, 82), 82);
    *disks.at(1) = old;
    let all = Spare::load(&mut disks).expect("one is old");
    assert_eq!(all.map, pair.map);
    assert!(member(&all, 1).missing);
    // Two were never there together, but each with the one that is not there now.
    let (mut disks, mut spare) = one(18, 2);
    assert_eq!(spare.join(&mut disks, 1), Ok((1, Outcome::Committed)));
    assert!(spare.rehost(&mut disks, 0, 1, 1));
    assert_eq!(spare.resync(&mut disks), COMMITTED);
    let mut alone = Spare::load_of(&mut disks, &[0], true).expect("known");
    assert_eq!(alone.join(&mut disks, 2), Ok((2, Outcome::Committed)));
    let mut pair = Spare::load_of(&mut disks, &[0, 1], true).expect("known");
    assert_eq!(pair.resync(&mut disks), COMMITTED);
    claim(&mut disks, &mut pair, 83, 83);
    let rest = Spare::load_of(&mut disks, &[1, 2], true).expect("one is old");
    assert_eq!(rest.map, pair.map);
}

#[test]
fn a_clone() {
    let (mut disks, spare) = ring(18, 2);
    let copy = disks.at(1).clone();
    disks.push(copy);
    let uuid = member(&spare, 1).uuid;
    let twice = Some(LoadError::Twice { uuid });
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        assert_eq!(refusal(&mut disks, &order, true), twice);
    }
    // Also when it was used, or the original was.
    let mut set = Spare::load_of(&mut disks, &[0, 2], false).expect("either will do");
    claim(&mut disks, &mut set, 90, 90);
    assert_eq!(refusal(&mut disks, &[0, 1, 2], true), twice);
    assert_eq!(refusal(&mut disks, &[1, 2], true), twice);
    // Also when both were used by themselves, and differ with the same numbers.
    let (mut disks, spare) = ring(19, 2);
    let copy = disks.at(1).clone();
    disks.push(copy);
    for (disk, sectors) in [(1, 1 << 30), (2, 1 << 31)] {
        let mut alone = Spare::load_of(&mut disks, &[disk], true).expect("known");
        alone.metadata.set_main(sectors, None);
        assert_eq!(alone.sync(&mut disks), COMMITTED);
    }
    let uuid = member(&spare, 1).uuid;
    let twice = Some(LoadError::Twice { uuid });
    assert_eq!(refusal(&mut disks, &[1, 2], true), twice);
}

/// A set that is in use gets a spare back that was just away, and none that was used meanwhile.
#[test]
fn back_to_a_set_in_use() {
    let (mut disks, spare) = ring(19, 2);
    assert!(spare.metadata.can_lose(0) && spare.metadata.can_lose(1));
    let old = spare.metadata.superblock().clone();
    let mut apart = disks.clone();
    let alone = Spare::load_of(&mut disks, &[0], true).expect("all is known");
    assert!(!alone.metadata.can_lose(0), "it is the last one");
    let live = alone.metadata.superblock();
    let back = check_return(live, &old, 1, 7).expect("it was away");
    assert_eq!(back.uuid, member(&spare, 1).uuid);
    let other = Spare::load_of(&mut apart, &[1], true).expect("all is known");
    let returning = other.metadata.superblock();
    assert_eq!(
        check_return(live, returning, 1, 7).err(),
        Some(LoadError::Apart { spare: 7 })
    );
}

/// So it is where nobody wrote down what the set in use goes without, and only the others were used:
/// they counted on each other, but what they did is newer.
#[test]
fn back_to_a_set_that_nobody_told() {
    let (mut disks, spare) = ring(19, 3);
    let live = spare.metadata.superblock().clone();
    check_return(&live, &live, 1, 7).expect("it was away");
    let others = Spare::load_of(&mut disks, &[1, 2], true).expect("all is known");
    assert_eq!(
        check_return(&live, others.metadata.superblock(), 1, 7).err(),
        Some(LoadError::Apart { spare: 7 })
    );
}
