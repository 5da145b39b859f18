// SPDX-License-Identifier: GPL-2.0

//! Replicas that are made again, at their place or at another.

use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::commit::REBUILD_BLOCKS_MAX;
use dm_remap_logic::commit::RUN_BLOCKS_MAX;
use dm_remap_logic::format::reserve::Reserves;

use super::super::disk::Disk;
use super::super::disk::Disks;
use super::super::spare;
use super::super::spare::Spare;
use super::at_every_write;
use super::claim;
use super::id;
use super::member;
use super::one;
use super::ring;
use super::try_claim;
use super::unsettle;
use super::without;
use super::COMMITTED;

/// A replica moves while commits go on, and nothing is lost wherever that ends.
#[test]
fn moving_a_replica() {
    let build = |tear| {
        let (mut disks, mut spare) = one(tear << 32, 1);
        assert_eq!(spare.join(&mut disks, 1), Ok((1, Outcome::Committed)));
        (disks, spare)
    };
    let act = |disks: &mut Disks, spare: &mut Spare| {
        assert!(spare.rehost(disks, 0, 1, 1));
        try_claim(disks, spare, 20, 20)?;
        spare.metadata.begin_rebuild(0, 1);
        spare.rebuild(disks)?;
        assert_eq!(spare.metadata.rebuilding(), None);
        try_claim(disks, spare, 21, 21)?;
        try_claim(disks, spare, 300, 300).map(|_| ())
    };
    let writes = at_every_write(build, act, |mut disks, spare, ended| {
        let mut found = Spare::load(&mut disks).expect("never refused");
        let known = spare.map.iter();
        assert!(known
            .clone()
            .all(|(main, slot)| found.map.get(main) == Some(slot)));
        assert!(found.map.len() <= spare.map.len() + 1);
        found.check_redundancy(&mut disks);
        assert!(!ended || member(&found, 0).void_replicas == 0);
        if member(&found, 0).void_replicas == 0 && member(&found, 0).areas[1].host == 1 {
            without(&disks, &found, 0);
            without(&disks, &found, 1);
        }
        assert_eq!(found.resync(&mut disks), COMMITTED);
        assert_eq!(member(&found, 0).void_replicas, 0);
        found.check_redundancy(&mut disks);
    });
    assert!(writes > 20);
}

/// A commit sends a replica that is being made again back to what it changes.
#[test]
fn a_commit_behind_the_rebuild() {
    let mut disks = Disks::new(30_000, 8);
    spare::format(&mut disks, 1).expect("a good disk");
    let mut spare = Spare::load(&mut disks).expect("just formatted");
    assert_eq!(spare.extend(&mut disks, 64), COMMITTED);
    assert_eq!(spare.extend(&mut disks, 16), COMMITTED);
    disks.push(Disk::new(4096, 88));
    assert_eq!(spare.join(&mut disks, 1), Ok((1, Outcome::Committed)));
    assert!(spare.rehost(&mut disks, 0, 1, 1));
    spare.metadata.begin_rebuild(0, 1);
    let next = |spare: &Spare| spare.metadata.rebuilding().map(|rebuild| rebuild.next);
    assert_eq!(spare.rebuild(&mut disks), COMMITTED);
    assert_eq!(next(&spare), Some(REBUILD_BLOCKS_MAX));
    claim(&mut disks, &mut spare, 3 * 252, 1);
    assert_eq!(next(&spare), Some(3));
    claim(&mut disks, &mut spare, 70 * 252, 2);
    assert_eq!(next(&spare), Some(3));
    assert_eq!(spare.rebuild(&mut disks), COMMITTED);
    // The only copy of block 3 went to a reserve block, so it is a write of its own, and others have one less.
    assert_eq!(next(&spare), Some(4 + REBUILD_BLOCKS_MAX - RUN_BLOCKS_MAX));
    while next(&spare).is_some() {
        assert_eq!(member(&spare, 0).void_replicas, 2);
        assert_eq!(spare.rebuild(&mut disks), COMMITTED);
    }
    assert_eq!(member(&spare, 0).void_replicas, 0);
    spare.check_redundancy(&mut disks);
    without(&disks, &spare, 0);
    without(&disks, &spare, 1);
}

/// A replica that had no place left is made again where it was when its sectors work again.
#[test]
fn a_replica_that_healed() {
    let build = |tear| {
        let (mut disks, mut spare) = one(tear << 32, 0);
        let superblock = spare.metadata.superblock().clone();
        for index in 0..31 {
            let place = superblock.reserve_place(0, 0, index).expect("in range");
            disks.break_writes(place.sector);
        }
        let place = superblock.own_place(0, id(0, 0)).expect("in range");
        disks.break_writes(place.sector);
        claim(&mut disks, &mut spare, 5, 5);
        assert_eq!(member(&spare, 0).void_replicas, 1);
        // Not before.
        spare.metadata.begin_rebuild(0, 0);
        let why = Failure::NoPlace;
        let failed = Outcome::Failed { issued: false, why };
        assert_eq!(spare.rebuild(&mut disks), Ok(failed));
        disks.heal();
        let mut spare = Spare::load(&mut disks).expect("one is left");
        claim(&mut disks, &mut spare, 300, 300);
        (disks, spare)
    };
    let act = |disks: &mut Disks, spare: &mut Spare| {
        // What was tried in vain is not tried again; the block's own place is.
        let superblock = spare.metadata.superblock_mut();
        let table = superblock.member_mut(0).expect("one");
        table.reserve[0] = Reserves::FREE;
        spare.resync(disks).map(|_| ())
    };
    at_every_write(build, act, |mut disks, spare, ended| {
        let mut found = Spare::load(&mut disks).expect("never refused");
        assert_eq!(found.map, spare.map);
        assert!(!ended || member(&found, 0).void_replicas == 0);
        claim(&mut disks, &mut found, 6, 6);
        found.check_redundancy(&mut disks);
    });
}

/// The old replica's member dies while the superblocks are told of the new one.
#[test]
fn the_old_replica_is_lost_with_the_new_one_whole() {
    let mut cases = 0;
    for at in 0..40 {
        let (mut disks, mut spare) = ring(13, 3);
        // From member 1 to member 2, and member 0 dies.
        assert!(spare.rehost(&mut disks, 0, 1, 2));
        spare.metadata.begin_rebuild(0, 1);
        disks.gone_in = Some((at, 0));
        let outcome = spare.rebuild(&mut disks);
        disks.gone_in = None;
        assert_ne!(member(&spare, 0).void_replicas, 3);
        if member(&spare, 0).missing {
            assert_ne!(outcome, COMMITTED);
            assert_eq!(spare.sync(&mut disks), COMMITTED);
            without(&disks, &spare, 0);
            cases += 1;
        }
    }
    assert!(cases > 0);
}

/// A table that is not in use needs no replica, but is not taken into use without one.
#[test]
fn no_replica_at_all() {
    let (mut disks, mut spare) = one(23, 2);
    for disk in 1..3 {
        assert_eq!(spare.join(&mut disks, disk), Ok((disk, Outcome::Committed)));
    }
    for replica in 0..2 {
        assert!(spare.rehost(&mut disks, 1, replica, 2));
        assert_eq!(spare.resync(&mut disks), COMMITTED);
    }
    disks.at(2).gone = true;
    assert_eq!(spare.sync(&mut disks), COMMITTED);
    assert_eq!(member(&spare, 1).void_replicas, 3);
    let why = Failure::Blocks;
    let failed = Ok(Outcome::Failed { issued: false, why });
    assert_eq!(spare.extend_member(&mut disks, 1, 1), failed);
    for replica in 0..2 {
        assert!(spare.rehost(&mut disks, 1, replica, replica ^ 1));
    }
    assert_eq!(spare.resync(&mut disks), COMMITTED);
    assert_eq!(spare.extend_member(&mut disks, 1, 1), COMMITTED);
    spare.check_redundancy(&mut disks);
    without(&disks, &spare, 2);
}

/// What would leave a table without a good copy of something is refused.
#[test]
fn what_may_not_move() {
    let (mut disks, mut spare) = ring(21, 2);
    let rehost = |spare: &mut Spare, member, replica, host| {
        let room = spare.metadata.slots_beside(host, member).expect("room");
        spare.metadata.rehost(member, replica, host, room)
    };
    // Into another replica.
    let place = member(&spare, 1).slots;
    assert_eq!(spare.metadata.rehost(0, 1, 1, place), Err(Failure::Blocks));
    // The good one of a block that is not settled.
    unsettle(&mut disks, &mut spare);
    assert_eq!(rehost(&mut spare, 0, 1, 1), Err(Failure::NoPlace));
    assert_eq!(rehost(&mut spare, 0, 0, 1), Ok(()));
    // The only one.
    assert_eq!(rehost(&mut spare, 0, 1, 1), Err(Failure::NoPlace));
    // One that is in use is not made again, nor from one that is not.
    let why = Failure::Blocks;
    let failed = Ok(Outcome::Failed { issued: false, why });
    spare.metadata.begin_rebuild(0, 1);
    assert_eq!(spare.rebuild(&mut disks), failed);
    assert_eq!(spare.resync(&mut disks), COMMITTED);
    assert_eq!(spare.commit(&mut disks, &[id(0, 0)]), COMMITTED);
    spare.check_redundancy(&mut disks);
}
