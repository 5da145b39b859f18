// SPDX-License-Identifier: GPL-2.0

//! Members that die, and what goes on without them (M9).

use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::load::LoadError;

use super::super::disk::Disks;
use super::super::disk::Trouble;
use super::super::spare::slot_of;
use super::super::spare::Spare;
use super::super::spare::Stop;
use super::claim;
use super::id;
use super::member;
use super::one;
use super::refusal;
use super::ring;
use super::set_epoch;
use super::try_claim;
use super::without;
use super::COMMITTED;

const FAILED: Result<Outcome, Trouble> = Ok(Outcome::Failed {
    issued: false,
    why: Failure::Device,
});

/// A member dies in the middle of everything, at every write: the rest goes on.
#[test]
fn losing_a_member() {
    let ops = ["commit", "settle", "extend", "sync", "rebuild"];
    for (victim, op) in (0..2u8).flat_map(|victim| ops.map(|op| (victim, op))) {
        // Replicas on this one, or the last one to be flushed, is what dies.
        let grown = if victim == 1 { 0 } else { 2 };
        for at in 0.. {
            assert!(at < 100, "it does not end");
            let (mut disks, mut spare) = ring(u64::from(at), 3);
            if op == "rebuild" {
                assert!(spare.rehost(&mut disks, 0, 0, 2));
                spare.metadata.begin_rebuild(0, 0);
            }
            let epoch = set_epoch(&spare);
            disks.gone_in = Some((at, victim.into()));
            let run = |disks: &mut Disks, spare: &mut Spare| match op {
                "commit" => try_claim(disks, spare, 30, 30),
                "settle" => try_claim(disks, spare, slot_of(1, 30), 30),
                "extend" => spare.extend_member(disks, grown, 2),
                "rebuild" => spare.rebuild(disks),
                _ => spare.sync(disks),
            };
            let outcome = run(&mut disks, &mut spare).expect("no crash");
            let noticed = disks.gone_in.take().is_none();
            if outcome != Outcome::Committed {
                // It has the only good copy of something, or what was asked for is void now.
                let there = !member(&spare, victim).missing;
                disks.at(victim.into()).gone &= !there;
                if op != "rebuild" {
                    assert_eq!(run(&mut disks, &mut spare), COMMITTED);
                } else if there {
                    continue;
                }
            }
            if !noticed {
                assert_eq!(outcome, Outcome::Committed);
                break;
            }
            assert_eq!(spare.sync(&mut disks), COMMITTED);
            if disks.at(victim.into()).gone {
                assert!(member(&spare, victim).missing);
                assert_eq!(set_epoch(&spare), epoch + 1);
                spare.check_redundancy(&mut disks);
                if op == "extend" {
                    assert!(spare.entries.of(grown).len() >= 4 * 252);
                }
                without(&disks, &spare, victim.into());
            }
            // And when it comes back, all is well again.
            disks.at(victim.into()).gone = false;
            disks.crash();
            let mut found = Spare::load(&mut disks).expect("never refused");
            assert_eq!(found.map, spare.map, "{op} {victim} {at}");
            assert_eq!(found.resync(&mut disks), COMMITTED);
            assert_eq!(found.resync(&mut disks), COMMITTED);
            assert!(!found.metadata.superblock().is_degraded());
            found.check_redundancy(&mut disks);
            for disk in 0..3 {
                without(&disks, &found, disk);
            }
        }
    }
}

/// A member that has the only replicas of its table can't be gone without.
#[test]
fn what_can_not_be_lost() {
    let (mut disks, mut spare) = one(9, 1);
    assert_eq!(spare.join(&mut disks, 1), Ok((1, Outcome::Committed)));
    let map = spare.map.clone();
    disks.at(0).gone = true;
    assert_eq!(spare.sync(&mut disks), FAILED);
    assert_eq!(try_claim(&mut disks, &mut spare, 8, 8), FAILED);
    assert!(!member(&spare, 0).missing);
    disks.at(0).gone = false;
    let mut alone = disks.clone();
    let load = Spare::load_of(&mut alone, &[1], true);
    assert!(matches!(
        load,
        Err(Stop::Refused(LoadError::TableBlock { .. }))
    ));
    assert_eq!(Spare::load(&mut disks).expect("whole").map, map);
    // The one that holds nothing can.
    without(&disks, &Spare::load(&mut disks.clone()).expect("whole"), 1);
}

/// Without a member only by the user's word, which raises the set epoch, as does everything that is
/// written later without it. What is claimed on it is known.
#[test]
fn degraded() {
    let (mut disks, spare) = ring(10, 2);
    let map = spare.map.clone();
    let uuid = member(&spare, 1).uuid;
    let incomplete = Some(LoadError::Incomplete { member: 1, uuid });
    let writes = disks.writes;
    assert_eq!(refusal(&mut disks, &[0], false), incomplete);
    assert_eq!((disks.writes, set_epoch(&spare)), (writes, 1));
    let mut alone = Spare::load_of(&mut disks, &[0], true).expect("known");
    assert_eq!((set_epoch(&alone), &alone.map), (2, &map));
    assert!(member(&alone, 1).missing && !alone.metadata.is_usable(1));
    assert_eq!(
        alone.extend_member(&mut disks, 1, 1),
        Ok(Outcome::Failed {
            issued: false,
            why: Failure::Blocks,
        })
    );
    // The slot of the missing one is given up.
    alone.free(slot_of(1, 9));
    assert_eq!(alone.commit(&mut disks, &[id(1, 0)]), COMMITTED);
    claim(&mut disks, &mut alone, 12, 1);
    assert_eq!(set_epoch(&alone), 2);
    // Reading changes nothing; writing goes on from there.
    assert_eq!(refusal(&mut disks, &[0], false), incomplete);
    let writes = disks.writes;
    let mut again = Spare::load_of(&mut disks, &[0], true).expect("known");
    assert_eq!((disks.writes, set_epoch(&again)), (writes, 2));
    claim(&mut disks, &mut again, 13, 13);
    assert_eq!(set_epoch(&again), 3);
    claim(&mut disks, &mut again, 14, 14);
    assert_eq!(set_epoch(&again), 3);
    let both = Spare::load(&mut disks).expect("one is old");
    assert_eq!((&both.map, both.map.get(&1)), (&again.map, Some(&12)));
    assert_eq!((set_epoch(&both), both.repaired), (3, 0));
}

/// While loading makes replicas equal, each member may have what the other one lacks: none of them
/// is given up then.
#[test]
fn no_loss_while_loading() {
    for victim in 0..2 {
        for at in 0..20 {
            let (mut disks, mut spare) = ring(19, 2);
            let map = spare.map.clone();
            let superblock = spare.metadata.superblock().clone();
            for (replica, block) in [(0, 0), (1, 1)] {
                let place = superblock
                    .table_place(replica, id(0, block))
                    .expect("in range");
                disks.at(place.member.into()).break_reads(place.sector);
            }
            let place = superblock.super_place(CopyId { member: 0, copy: 1 });
            disks.at(0).break_reads(place.expect("in range").sector);
            disks.gone_in = Some((at, victim));
            let load = Spare::load(&mut disks).map(|spare| spare.map);
            assert!(load.is_ok() || load == Err(Stop::Failed(Failure::Device)));
            disks.gone_in = None;
            disks.at(victim).gone = false;
            disks.crash();
            spare = Spare::load(&mut disks).expect("never refused");
            assert_eq!(spare.map, map);
        }
    }
}

/// A block whose write failed is good in the other replica only: its member is not given up.
#[test]
fn no_loss_of_the_only_good_copy() {
    let mut refused = 0;
    for (replica, at) in (0..2u8).flat_map(|replica| (0..16).map(move |at| (replica, at))) {
        let (mut disks, mut spare) = ring(20 + u64::from(at), 2);
        assert_eq!(spare.sync(&mut disks), COMMITTED);
        let superblock = spare.metadata.superblock().clone();
        let bad = superblock.table_place(replica, id(0, 0)).expect("in range");
        disks.at(bad.member.into()).break_writes(bad.sector);
        // Reserve blocks are bad, too, so that the superblock tells of that meanwhile.
        for index in 0..2 {
            let place = superblock
                .reserve_place(replica, 0, index)
                .expect("in range");
            disks.at(bad.member.into()).break_writes(place.sector);
        }
        let other = 1 - usize::from(bad.member);
        disks.gone_in = Some((at, other));
        let map = spare.map.clone();
        let outcome = try_claim(&mut disks, &mut spare, 100, 100).expect("no crash");
        refused += u32::from(outcome != Outcome::Committed);
        disks.gone_in = None;
        disks.at(other).gone = false;
        disks.crash();
        let found = Spare::load(&mut disks).expect("never refused");
        let slot = found.map.get(&100);
        assert!(slot.is_none() || slot == Some(&100));
        assert!(slot.is_some() || outcome != Outcome::Committed);
        assert!(map
            .iter()
            .all(|(main, slot)| found.map.get(main) == Some(slot)));
    }
    assert!(refused > 0);
}
