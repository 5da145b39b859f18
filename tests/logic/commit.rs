// SPDX-License-Identifier: GPL-2.0

//! The commit protocol, case by case: what the random histories of [`crash`](super::crash) meet
//! too rarely, or can't see.

use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Fault;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::commit::Step;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::Member;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::slot::SlotState;

use super::crash::World;
use super::disk::Disks;
use super::disk::Trouble;
use super::spare::Spare;
use super::spare::Stop;

/// Loads, and tells what it was refused for.
fn refusal(disk: &mut Disks) -> Option<LoadError> {
    match Spare::load(disk) {
        Ok(_) => None,
        Err(Stop::Refused(error)) => Some(error),
        Err(stop) => panic!("{stop:?}"),
    }
}

fn id(block: u32) -> BlockId {
    BlockId { member: 0, block }
}

fn sector_of(world: &World, replica: u8) -> u64 {
    let superblock = world.spare.metadata.superblock();
    let place = superblock.table_place(replica, id(0));
    place.expect("in range").sector
}

fn member(spare: &Spare) -> &Member {
    spare.metadata.superblock().member(0).expect("the first")
}

/// A superblock copy that missed a relocation, and is all that is left, is no truth (M2, M4).
#[test]
fn a_superblock_that_missed_a_relocation() {
    let mut world = World::new(1, 4096, 8);
    world.add().expect("no crash");
    let mut before = world.disk.clone();
    let sector = sector_of(&world, 1);
    world.disk.break_writes(sector);
    world.add().expect("no crash");
    world.add().expect("no crash");
    let geometry = member(&world.spare).geometry;
    assert_eq!(member(&world.spare).relocations().count(), 1);
    let sectors = [0, 1, 2, 3].map(|copy| geometry.superblock_sector(copy).expect("in range"));
    for sector in sectors {
        let mut disk = world.disk.clone();
        let mut old = [0; 4096];
        before.read(sector, &mut old).expect("good");
        disk.write(sector, &old, true).expect("good");
        assert_eq!(refusal(&mut disk.clone()), None, "the others outvote it");
        for other in sectors.into_iter().filter(|s| *s != sector) {
            disk.break_reads(other);
        }
        assert_eq!(
            refusal(&mut disk),
            Some(LoadError::SuperblockStale { block: id(0) })
        );
    }
}

/// When one superblock copy is left, it is not written any more (M1), and all still loads.
#[test]
fn the_last_superblock_copy() {
    let mut world = World::new(2, 4096, 8);
    world.add().expect("no crash");
    let geometry = member(&world.spare).geometry;
    let sector = |copy| geometry.superblock_sector(copy).expect("in range");
    for copy in 0..3 {
        world.disk.break_writes(sector(copy));
    }
    let left = world.disk.writes;
    let outcome = world.spare.sync(&mut world.disk);
    let why = Failure::NoSuperblock;
    let failed = Ok(Outcome::Failed { issued: false, why });
    assert_eq!(outcome, failed);
    assert!(world.disk.writes > left);
    let known = world.known.clone();
    let mut last = [0; 4096];
    world.disk.read(sector(3), &mut last).expect("good");
    // Nor by anything that comes later.
    assert_eq!(world.spare.sync(&mut world.disk), failed);
    world.add().expect("no crash");
    assert_eq!(world.known, known);
    let mut now = [0; 4096];
    world.disk.read(sector(3), &mut now).expect("good");
    assert_eq!(last, now);
    // It is enough to read all, and when the others work again, all is well again.
    let mut disk = world.disk.clone();
    disk.crash();
    assert!(matches!(
        Spare::load(&mut disk),
        Err(Stop::Failed(Failure::NoSuperblock))
    ));
    disk.heal();
    let spare = Spare::load(&mut disk).expect("healed");
    assert_eq!(spare.map, world.known);
    spare.check_redundancy(&mut disk);
}

/// A superblock copy that was written off is tried again by the next activation that writes.
#[test]
fn a_superblock_copy_that_comes_back() {
    let mut world = World::new(8, 4096, 8);
    let geometry = member(&world.spare).geometry;
    world
        .disk
        .break_writes(geometry.superblock_sector(1).expect("in range"));
    assert_eq!(world.spare.sync(&mut world.disk), Ok(Outcome::Committed));
    assert_eq!(member(&world.spare).void_supers, 0b0010);
    let mut spare = Spare::load(&mut world.disk).expect("three are left");
    assert_eq!(spare.sync(&mut world.disk), Ok(Outcome::Committed));
    assert_eq!(member(&spare).void_supers, 0b0010);
    world.disk.heal();
    // Not by the activation that has tried it, and not by one that writes nothing.
    assert_eq!(spare.sync(&mut world.disk), Ok(Outcome::Committed));
    assert_eq!(member(&spare).void_supers, 0b0010);
    let mut spare = Spare::load(&mut world.disk).expect("all read");
    assert_eq!(member(&spare).void_supers, 0b0010);
    assert_eq!(spare.sync(&mut world.disk), Ok(Outcome::Committed));
    assert_eq!(member(&spare).void_supers, 0);
    spare.check_redundancy(&mut world.disk);
}

/// A replica is not written off while it has the only good copy of another block.
#[test]
fn the_survivor_is_looked_at_first() {
    let mut world = World::new(9, 8192, 1);
    assert_eq!(
        world.spare.extend(&mut world.disk, 2),
        Ok(Outcome::Committed)
    );
    let places = world.spare.metadata.superblock().clone();
    for index in 0..31 {
        let place = places.reserve_place(0, 0, index).expect("in range");
        world.disk.break_writes(place.sector);
    }
    let home = |replica, block| {
        let place = places.own_place(replica, id(block));
        place.expect("in range").sector
    };
    world.disk.break_writes(home(0, 0));
    world.disk.break_reads(home(1, 2));
    let why = Failure::NoPlace;
    let failed = Ok(Outcome::Failed { issued: true, why });
    assert_eq!(world.spare.commit(&mut world.disk, &[id(0)]), failed);
    assert_eq!(member(&world.spare).void_replicas, 0);
    // Nothing but a commit touches what is left to settle.
    assert!(world.spare.metadata.is_unsettled());
    assert_eq!(
        world.spare.extend(&mut world.disk, 1),
        Ok(Outcome::Committed)
    );
    assert!(world.spare.metadata.is_unsettled());
    // The next one finds the survivor whole again.
    assert_eq!(
        world.spare.commit(&mut world.disk, &[id(0)]),
        Ok(Outcome::Committed)
    );
    assert!(!world.spare.metadata.is_unsettled());
    assert_eq!(member(&world.spare).void_replicas, 1);
    let spare = Spare::load(&mut world.disk).expect("one replica is whole");
    spare.check_redundancy(&mut world.disk);
}

/// A block that is bad in both replicas could speak of any block of main (M3).
#[test]
fn both_replicas_lost() {
    let mut world = World::new(3, 4096, 8);
    world.add().expect("no crash");
    for replica in 0..2 {
        let sector = sector_of(&world, replica);
        world.disk.break_reads(sector);
    }
    world.disk.crash();
    let expected = LoadError::TableBlock {
        block: id(0),
        error: None,
    };
    assert_eq!(refusal(&mut world.disk), Some(expected));
}

/// Reading alone changes nothing on the spare (M4).
#[test]
fn loading_what_is_whole_writes_nothing() {
    let mut world = World::new(4, 4096, 8);
    world.add().expect("no crash");
    world.disk.crash();
    let writes = world.disk.writes;
    let mut spare = Spare::load(&mut world.disk).expect("whole");
    assert_eq!(world.disk.writes, writes);
    assert!(!spare.metadata.is_touched());
    assert_eq!(spare.commit(&mut world.disk, &[]), Ok(Outcome::Committed));
    assert_eq!(world.disk.writes, writes);
}

/// A place that could not be read before a write has to show that it can be read after it, and what is written there
/// goes first (M1, P4).
#[test]
fn what_was_bad_is_read_back() {
    let mut world = World::new(10, 4096, 8);
    world.add().expect("no crash");
    let places = [0, 1].map(|replica| sector_of(&world, replica));
    for (found, order, read_back) in [
        (Ok(()), [places[0], places[1]], [false, false]),
        (Err(Fault::Media), [places[1], places[0]], [true, false]),
    ] {
        let blocks = [id(0)];
        let mut op = world.spare.metadata.commit(&blocks);
        let Step::CheckTable { place, .. } = op.advance(Ok(())) else {
            panic!("the second copy is not looked at");
        };
        assert_eq!(place.sector, places[1]);
        let mut last = found;
        let writes = [(); 2].map(
            |()| match op.advance(std::mem::replace(&mut last, Ok(()))) {
                Step::WriteTable { place, verify, .. } => (place.sector, verify),
                step => panic!("{step:?}"),
            },
        );
        assert_eq!(writes.map(|write| write.0), order);
        assert_eq!(writes.map(|write| write.1), read_back);
        assert_eq!(op.advance(Ok(())), Step::Done(Outcome::Committed));
    }
}

/// What a commit costs: one write to each replica for blocks that follow each other, up to four of them, and once in
/// an activation the superblocks (P13).
#[test]
fn what_a_commit_costs() {
    let mut world = World::new(5, 8192, 1);
    assert_eq!(
        world.spare.extend(&mut world.disk, 3),
        Ok(Outcome::Committed)
    );
    let before = world.disk.writes;
    assert_eq!(
        world.spare.commit(&mut world.disk, &[id(1)]),
        Ok(Outcome::Committed)
    );
    assert_eq!(world.disk.writes - before, 2);
    assert_eq!(
        world.spare.commit(&mut world.disk, &[id(0), id(1), id(2)]),
        Ok(Outcome::Committed)
    );
    assert_eq!(world.disk.writes - before, 2 + 2);
    assert_eq!(
        world.spare.commit(&mut world.disk, &[id(0), id(2)]),
        Ok(Outcome::Committed)
    );
    assert_eq!(world.disk.writes - before, 2 + 2 + 4);
    let mut spare = Spare::load(&mut world.disk).expect("whole");
    let before = world.disk.writes;
    assert_eq!(
        spare.commit(&mut world.disk, &[id(0)]),
        Ok(Outcome::Committed)
    );
    assert_eq!(world.disk.writes - before, 4 + 2);
}

/// As many blocks as a commit has cost four writes a replica (P13).
#[test]
fn what_a_large_commit_costs() {
    let mut world = World::new(5, 1 << 16, 1);
    assert_eq!(
        world.spare.extend(&mut world.disk, 64),
        Ok(Outcome::Committed)
    );
    let all: Vec<BlockId> = (0..16).map(id).collect();
    let before = world.disk.writes;
    assert_eq!(
        world.spare.commit(&mut world.disk, &all),
        Ok(Outcome::Committed)
    );
    assert_eq!(world.disk.writes - before, 8);
    // A block that is bad in one replica is written by itself, and first.
    let places = world.spare.metadata.superblock().clone();
    let sector = |replica, block| {
        let place = places.table_place(replica, id(block));
        place.expect("in range").sector
    };
    world.disk.break_reads(sector(1, 3));
    let before = world.disk.writes;
    assert_eq!(
        world.spare.commit(&mut world.disk, &all),
        Ok(Outcome::Committed)
    );
    // Replica 0: 0..3, 3, and three times four; replica 1 the same.
    assert_eq!(world.disk.writes - before, 10);
    world.spare.check_redundancy(&mut world.disk);
}

/// Of blocks that are written at a time and fail, only those move whose places are bad, in whichever replica (M2).
#[test]
fn blocks_that_fail_together_are_told_apart() {
    for replica in 0..2 {
        let mut world = World::new(10 + u64::from(replica), 1 << 16, 1);
        assert_eq!(
            world.spare.extend(&mut world.disk, 64),
            Ok(Outcome::Committed)
        );
        let all: Vec<BlockId> = (0..8).map(id).collect();
        let places = world.spare.metadata.superblock().clone();
        for block in [2, 5] {
            let place = places.table_place(replica, id(block));
            // Any sector of it.
            let sector = place.expect("in range").sector + u64::from(block);
            world.disk.break_writes(sector);
        }
        assert_eq!(
            world.spare.commit(&mut world.disk, &all),
            Ok(Outcome::Committed)
        );
        let table = member(&world.spare);
        let moved: Vec<_> = table.relocations().collect();
        assert_eq!(moved.len(), 2, "{moved:?}");
        for block in 0..8 {
            let relocated = table.relocation(replica, block).is_some();
            assert_eq!(relocated, [2, 5].contains(&block), "block {block}");
        }
        world.spare.check_redundancy(&mut world.disk);
        let map = world.spare.map.clone();
        world.disk.crash();
        let spare = Spare::load(&mut world.disk).expect("whole");
        assert_eq!(spare.map, map);
    }
}

/// Whatever of the blocks that are written at a time a power cut leaves, it is old or new block by block (M1, P5); also if
/// the other copy of one of them has gone bad before.
#[test]
fn a_power_cut_amid_several_blocks() {
    for (seed, bad) in (0..40).flat_map(|seed| [None, Some(2)].map(|bad| (seed, bad))) {
        for crash_in in 0.. {
            if !is_whole_after_a_power_cut(seed, bad, crash_in) {
                // First replica, second replica; the bad block by itself in either.
                assert_eq!(crash_in, if bad.is_some() { 6 } else { 2 });
                break;
            }
        }
    }
}

/// Whether the power fails while four blocks are committed, at write number `crash_in` of that.
fn is_whole_after_a_power_cut(seed: u64, bad: Option<u32>, crash_in: u32) -> bool {
    let mut world = World::new(seed, 1 << 16, 1);
    assert_eq!(
        world.spare.extend(&mut world.disk, 4),
        Ok(Outcome::Committed)
    );
    let all: Vec<BlockId> = (0..4).map(id).collect();
    let slots: Vec<u32> = (0..4).map(|block| block * ENTRIES).collect();
    let claim = |spare: &mut Spare, from: u64| {
        for (slot, main_block) in slots.iter().zip(from..) {
            spare.claim(*slot, main_block, SlotState::Valid);
        }
    };
    claim(&mut world.spare, 1000);
    assert_eq!(
        world.spare.commit(&mut world.disk, &all),
        Ok(Outcome::Committed)
    );
    claim(&mut world.spare, 2000);
    if let Some(block) = bad {
        let place = world.spare.metadata.superblock().table_place(1, id(block));
        world.disk.break_reads(place.expect("in range").sector);
    }
    world.disk.crash_in = Some(crash_in);
    let cut = match world.spare.commit(&mut world.disk, &all) {
        Err(Trouble::Crash) => true,
        done => {
            assert_eq!(done, Ok(Outcome::Committed));
            false
        }
    };
    world.disk.crash_in = None;
    world.disk.crash();
    let mut spare = Spare::load(&mut world.disk).expect("each block is whole somewhere");
    spare.check_redundancy(&mut world.disk);
    for (index, slot) in slots.iter().enumerate() {
        let at = |from: u64| spare.map.get(&(from + index as u64)) == Some(slot);
        assert!(at(1000) != at(2000), "seed {seed}, slot {slot}");
        assert!(cut || at(2000), "what was committed is there");
    }
    assert_eq!(spare.commit(&mut world.disk, &all), Ok(Outcome::Committed));
    cut
}

/// A replica of 65 blocks is made again from the other one, several at a time: eight writes and a flush for 32 of them.
/// Bad places in it are found block by block, in steps that are no longer, and it is whole in the end.
#[test]
fn a_replica_is_made_again_in_large_steps() {
    for bad in [None, Some(3), Some(20)] {
        let mut world = World::new(11, 1 << 16, 1);
        assert_eq!(
            world.spare.extend(&mut world.disk, 64),
            Ok(Outcome::Committed)
        );
        if let Some(block) = bad {
            let places = world.spare.metadata.superblock();
            let place = places.own_place(0, id(block)).expect("in range");
            world.disk.break_writes(place.sector);
        }
        world
            .spare
            .metadata
            .rehome(0, 0)
            .expect("the other one is whole");
        assert_eq!(world.spare.sync(&mut world.disk), Ok(Outcome::Committed));
        assert_eq!(member(&world.spare).void_replicas, 0b01);
        world.spare.metadata.begin_rebuild(0, 0);
        let (first, mut most) = (world.disk.writes, 0);
        while world.spare.metadata.rebuilding().is_some() {
            let before = world.disk.writes;
            assert_eq!(world.spare.rebuild(&mut world.disk), Ok(Outcome::Committed));
            most = most.max(world.disk.writes - before);
        }
        let all = world.disk.writes - first;
        println!("{bad:?}: {all} writes and flushes, {most} in a step");
        match bad {
            // The superblocks say in the end that it counts.
            None => assert_eq!((all, most), (2 * (8 + 1) + (1 + 1) + 4, 9)),
            // And that a block is in reserve.
            Some(_) => assert!(all <= 2 * (8 + 1) + (1 + 1) + 4 + 8 + 12 && most <= 20),
        }
        assert_eq!(member(&world.spare).void_replicas, 0);
        world.spare.check_redundancy(&mut world.disk);
    }
}

/// What can't be carried out is refused before anything is written.
#[test]
fn nonsense_is_refused() {
    let mut world = World::new(6, 4096, 8);
    let blocks: Vec<BlockId> = (0..17).map(id).collect();
    let writes = world.disk.writes;
    let why = Failure::Blocks;
    let failed = Ok(Outcome::Failed { issued: false, why });
    assert_eq!(world.spare.commit(&mut world.disk, &blocks), failed);
    assert_eq!(world.spare.commit(&mut world.disk, &[id(1)]), failed);
    assert_eq!(world.spare.extend(&mut world.disk, 0), failed);
    let all = member(&world.spare).table_blocks();
    assert_eq!(all, 2);
    assert_eq!(world.disk.writes, writes);
    assert_eq!(
        world.spare.extend(&mut world.disk, 64),
        Ok(Outcome::Committed)
    );
    assert_eq!(member(&world.spare).high_water, all);
    assert_eq!(world.spare.extend(&mut world.disk, 1), failed);
}
