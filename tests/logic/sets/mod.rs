// SPDX-License-Identifier: GPL-2.0

//! Sets of several spares, case by case: what the random histories of
//! [`set_histories`](super::set_histories) meet too rarely, or can't see.

mod joining;
mod losing;
mod moving;
mod returning;
mod taking_over;

use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::load;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::slot::SlotState;

use super::disk::Disk;
use super::disk::Disks;
use super::disk::Trouble;
use super::spare;
use super::spare::slot_of;
use super::spare::Spare;
use super::spare::Stop;

const COMMITTED: Result<Outcome, Trouble> = Ok(Outcome::Committed);

/// A set of one, and blank disks of other sizes.
fn one(seed: u64, blank: u64) -> (Disks, Spare) {
    let mut disks = Disks::new(2400, seed);
    spare::format(&mut disks, 1).expect("a good disk");
    let mut spare = Spare::load(&mut disks).expect("just formatted");
    assert_eq!(spare.extend(&mut disks, 2), COMMITTED);
    for disk in 1..=blank {
        disks.push(Disk::new(2400 + 160 * disk, seed ^ (disk << 50)));
    }
    claim(&mut disks, &mut spare, 3, 3);
    (disks, spare)
}

/// A set of `count`, each with a replica of its table on the next one, and a claim.
fn ring(seed: u64, count: u8) -> (Disks, Spare) {
    let (mut disks, mut spare) = one(seed, u64::from(count) - 1);
    for disk in 1..count {
        assert_eq!(spare.join(&mut disks, disk), Ok((disk, Outcome::Committed)));
    }
    for member in 0..count {
        assert!(spare.rehost(&mut disks, member, 1, (member + 1) % count));
    }
    assert_eq!(spare.resync(&mut disks), COMMITTED);
    for member in 1..count {
        assert_eq!(spare.extend_member(&mut disks, member, 2), COMMITTED);
        claim(
            &mut disks,
            &mut spare,
            slot_of(member, 9),
            u64::from(member),
        );
    }
    assert!(!spare.metadata.superblock().is_degraded());
    spare.check_redundancy(&mut disks);
    (disks, spare)
}

fn try_claim(
    disks: &mut Disks,
    spare: &mut Spare,
    slot: u32,
    main: u64,
) -> Result<Outcome, Trouble> {
    spare.claim(slot, main, SlotState::Valid);
    let blocks = spare.blocks_of(&[slot]);
    let outcome = spare.commit(disks, &blocks)?;
    if outcome == Outcome::Committed {
        spare.map.insert(main, slot);
    }
    Ok(outcome)
}

fn claim(disks: &mut Disks, spare: &mut Spare, slot: u32, main: u64) {
    assert_eq!(try_claim(disks, spare, slot, main), COMMITTED);
}

fn member(spare: &Spare, index: u8) -> &Member {
    spare.metadata.superblock().member(index).expect("one")
}

fn set_epoch(spare: &Spare) -> u64 {
    spare.metadata.superblock().set_epoch
}

fn refusal(disks: &mut Disks, wanted: &[usize], degraded: bool) -> Option<LoadError> {
    match Spare::load_of(disks, wanted, degraded) {
        Ok(_) => None,
        Err(Stop::Refused(error)) => Some(error),
        Err(stop) => panic!("{stop:?}"),
    }
}

/// Says which claims there are without one of the disks, and that nothing is refused for it.
fn without(disks: &Disks, spare: &Spare, disk: usize) {
    let mut disks = disks.clone();
    disks.crash();
    let rest: Vec<usize> = (0..disks.count()).filter(|d| *d != disk).collect();
    let found = Spare::load_of(&mut disks, &rest, true).expect("nothing is lost with it");
    assert_eq!(found.map, spare.map);
    found.check_redundancy(&mut disks);
}

/// Does something with a crash at every single write, torn in several ways, and looks at what is
/// left. Tells how many writes there are.
fn at_every_write(
    build: impl Fn(u64) -> (Disks, Spare),
    act: impl Fn(&mut Disks, &mut Spare) -> Result<(), Trouble>,
    check: impl Fn(Disks, &Spare, bool),
) -> u32 {
    let mut writes = 0;
    for tear in 0..6 {
        for at in 0.. {
            let (mut disks, mut spare) = build(tear);
            disks.crash_in = Some(at);
            let ended = act(&mut disks, &mut spare).is_ok();
            disks.crash();
            check(disks, &spare, ended);
            assert!(at < 1000, "it does not end");
            if ended {
                writes = at;
                break;
            }
        }
    }
    writes
}

/// What the model does to a block in a crash, if nothing was flushed.
#[test]
fn blocks_are_torn_between_sectors() {
    let mut disks = Disks::new(1024, 1);
    let mut seen = [false; 2];
    for round in 1..=20 {
        disks.write(8, &[round; 4096], true).expect("good");
        disks.write(8, &[0; 4096], false).expect("good");
        disks.crash();
        let mut found = [9; 4096];
        disks.read(8, &mut found).expect("good");
        let sectors = found.chunks(512);
        let torn = sectors.clone().any(|s| s[0] != found[0]);
        assert!(sectors.into_iter().all(|s| s.iter().all(|b| *b == s[0])));
        seen[usize::from(torn)] = true;
    }
    assert!(seen[1]);
}

/// A commit to block 0 of member 0 fails at its first write, for no reason that tells anything.
fn unsettle(disks: &mut Disks, spare: &mut Spare) {
    assert_eq!(spare.commit(disks, &[id(0, 0)]), COMMITTED);
    disks.at(0).away_in = Some((0, 9));
    let why = Failure::Device;
    let failed = Outcome::Failed { issued: true, why };
    assert_eq!(try_claim(disks, spare, 11, 11), Ok(failed));
    disks.at(0).away_in = None;
    assert!(spare.metadata.is_unsettled());
}

fn id(member: u8, block: u32) -> BlockId {
    BlockId { member, block }
}

/// Superblocks are found on spares of any size, also if those grew.
#[test]
fn windows_of_all_sizes() {
    let (mut disks, spare) = ring(22, 3);
    let mut sizes = Vec::new();
    for disk in 0..3u8 {
        let sectors = disks.at(disk.into()).sectors();
        let formatted = member(&spare, disk).geometry.window_sectors();
        assert_eq!(formatted, sectors);
        let places = load::superblock_sectors(sectors).expect("a legal size");
        assert_eq!(places, [0, 256, sectors - 8, sectors - 8 - 256]);
        for copy in 0..4 {
            let place = spare
                .metadata
                .superblock()
                .super_place(CopyId { member: disk, copy });
            assert_eq!(place.expect("in range").sector, places[usize::from(copy)]);
        }
        let mut image = [0; 4096];
        disks.at(disk.into()).read(256, &mut image).expect("good");
        let head = [load::Image::Unreadable, load::Image::Read(&image)];
        let found = load::window_sectors(&head, &mut Superblock::EMPTY.clone());
        assert_eq!(found, Some(formatted));
        sizes.push(formatted);
    }
    sizes.dedup();
    assert_eq!(sizes.len(), 3);
}
