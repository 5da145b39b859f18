// SPDX-License-Identifier: GPL-2.0

//! What `recheck` makes of each copy of the metadata while a device is in use.

use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::load::Image;
use dm_remap_logic::recheck;
use dm_remap_logic::recheck::Worth;

use super::crash::World;
use super::disk::Disks;
use super::spare::Spare;

/// What there is a copy of.
#[derive(Clone, Copy, Debug)]
enum Copy {
    Super(CopyId),
    Table(BlockId),
}

/// All copies, and where they are.
fn copies(spare: &Spare) -> Vec<(Copy, u64)> {
    let superblock = spare.metadata.superblock();
    let supers = (0..SUPER_COPIES).map(|copy| CopyId { member: 0, copy });
    let supers = supers.map(|id| (Copy::Super(id), superblock.super_place(id)));
    let blocks = 0..superblock.member(0).expect("the first").high_water;
    let tables = blocks.flat_map(|block| {
        let id = BlockId { member: 0, block };
        (0..REPLICAS).map(move |replica| (id, replica))
    });
    let tables = tables.map(|(id, replica)| {
        let place = superblock.table_place(replica, id);
        (Copy::Table(id), place)
    });
    let all = supers.chain(tables);
    all.map(|(copy, place)| (copy, place.expect("a place").sector))
        .collect()
}

fn read(disks: &mut Disks, sector: u64) -> Option<Box<Block>> {
    let mut block = Box::new([0; BLOCK_BYTES]);
    disks.read(sector, &mut *block).ok().map(|()| block)
}

fn judge(spare: &Spare, disks: &mut Disks, copy: Copy, sector: u64) -> Worth {
    let read = read(disks, sector);
    let image = match &read {
        Some(block) => Image::Read(block),
        None => Image::Unreadable,
    };
    match copy {
        Copy::Super(id) => {
            let mut scratch = Superblock::EMPTY;
            recheck::superblock(&spare.metadata, id, image, &mut scratch)
        }
        Copy::Table(id) => recheck::table_block(&spare.metadata, id, image, |found, sequence| {
            let name = spare.metadata.member_names()[0];
            let first = (id.block * ENTRIES) as usize;
            let entries = spare
                .entries
                .of(0)
                .iter()
                .skip(first)
                .take(ENTRIES as usize);
            let mut known = [0; BLOCK_BYTES];
            table_block::encode(&mut known, &name, id.block, sequence, entries.copied());
            known == *found
        }),
    }
}

/// What is there is good, what is damaged, older, moved or unreadable is to be written again, and nothing of that is taken for
/// somebody else's.
#[test]
fn each_copy_is_judged_by_itself() {
    for seed in 0..20 {
        let mut world = World::new(seed, 4096, 8);
        for _ in 0..seed {
            world.add().expect("no crash");
        }
        let before = world.disk.clone();
        for _ in 0..5 {
            world.add().expect("no crash");
            world.remove().expect("no crash");
            world.replace().expect("no crash");
        }
        assert_eq!(world.spare.sync(&mut world.disk), Ok(Outcome::Committed));
        let all = copies(&world.spare);
        for &(copy, sector) in &all {
            let mut disk = world.disk.clone();
            assert_eq!(
                judge(&world.spare, &mut disk, copy, sector),
                Worth::Good,
                "{copy:?}"
            );
            let good = read(&mut disk, sector).expect("good");
            let mut flipped = good.clone();
            flipped[1000] ^= 1;
            let old = read(&mut before.clone(), sector).expect("good");
            let other = all
                .iter()
                .find(|(_, other)| *other != sector)
                .expect("another");
            let moved = read(&mut disk, other.1).expect("good");
            let zero = Box::new([0; BLOCK_BYTES]);
            for wrong in [flipped, moved, zero, old] {
                if wrong == good || matches!(copy, Copy::Table(..)) && wrong[..] == good[..] {
                    continue;
                }
                disk.write(sector, &*wrong, true).expect("good");
                let worth = judge(&world.spare, &mut disk, copy, sector);
                // The other replica of a block is as good.
                let same = matches!((copy, other.0), (Copy::Table(a), Copy::Table(b)) if a == b);
                assert!(worth == Worth::Old || same, "{copy:?}: {worth:?}");
            }
            disk.break_reads(sector);
            assert_eq!(judge(&world.spare, &mut disk, copy, sector), Worth::Old);
        }
    }
}

/// Whoever uses the spare besides has written something newer, wherever it got to: that is known by the first such copy, and
/// nothing is written from then on.
#[test]
fn somebody_else_is_known() {
    let mut world = World::new(3, 4096, 8);
    world.add().expect("no crash");
    let mut theirs = world.disk.clone();
    let mut other = Spare::load(&mut theirs).expect("good");
    // Both go on; they go further.
    world.add().expect("no crash");
    for _ in 0..4 {
        let slots = [1];
        let blocks = other.blocks_of(&slots);
        let committed = other.commit(&mut theirs, &blocks);
        assert_eq!(committed, Ok(Outcome::Committed));
        assert_eq!(other.sync(&mut theirs), Ok(Outcome::Committed));
    }
    let first = |copy: &Copy| match copy {
        Copy::Super(_) => true,
        Copy::Table(id) => id.block == 0,
    };
    let written: Vec<_> = copies(&world.spare)
        .into_iter()
        .filter(|(copy, _)| first(copy))
        .collect();
    assert!(written.len() >= 6);
    for (copy, sector) in written {
        let mut disk = world.disk.clone();
        let newer = read(&mut theirs, sector).expect("good");
        disk.write(sector, &*newer, true).expect("good");
        assert_eq!(
            judge(&world.spare, &mut disk, copy, sector),
            Worth::Foreign,
            "{copy:?}"
        );
    }
    world.spare.metadata.set_foreign();
    let writes = world.disk.writes;
    let failed = Ok(Outcome::Failed {
        issued: false,
        why: Failure::Foreign,
    });
    assert_eq!(world.spare.sync(&mut world.disk), failed);
    let blocks = world.spare.blocks_of(&[0]);
    assert_eq!(world.spare.commit(&mut world.disk, &blocks), failed);
    assert_eq!(world.spare.extend(&mut world.disk, 1), failed);
    assert_eq!(world.disk.writes, writes);
}
