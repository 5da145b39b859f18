// SPDX-License-Identifier: GPL-2.0

//! All members are dead, and new ones take over (P15, M9b).

use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::format::member_bit;
use dm_remap_logic::format::INCOMPAT_LOST;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::slot::SlotState;

use super::super::disk::Disks;
use super::super::disk::Trouble;
use super::super::spare::slot_of;
use super::super::spare::Spare;
use super::super::spare::Stop;
use super::claim;
use super::one;
use super::refusal;
use super::ring;
use super::try_claim;
use super::COMMITTED;

/// Adds the disk as a member that takes over from all others, which no step names from then on. Nothing is written.
fn begin(disks: &mut Disks, spare: &mut Spare, disk: u8) -> u8 {
    let all = (0..4).filter(|index| spare.metadata.superblock().member(*index).is_some());
    let dead = all.fold(0, |mask, index| mask | member_bit(index));
    spare.disks = [None; 4];
    let heir = spare.add(disks, disk);
    spare.metadata.begin_take_over(dead).expect("one joins");
    heir
}

/// The whole of it: what main blocks the dead ones had is claimed by slots of the heir.
fn take_over(disks: &mut Disks, spare: &mut Spare, disk: u8) -> Result<(), Trouble> {
    let heir = begin(disks, spare, disk);
    assert_eq!(spare.sync(disks)?, Outcome::Committed);
    assert_eq!(spare.extend_member(disks, heir, 1)?, Outcome::Committed);
    let before: Vec<u64> = spare.map.keys().copied().collect();
    for (main, slot) in before.into_iter().zip(0..) {
        let slot = slot_of(heir, slot);
        spare.claim(slot, main, SlotState::Lost);
        let blocks = spare.blocks_of(&[slot]);
        assert_eq!(spare.commit(disks, &blocks)?, Outcome::Committed);
        spare.map.insert(main, slot);
    }
    for index in (0..4).filter(|index| *index != heir) {
        if spare.metadata.superblock().member(index).is_some() {
            spare
                .metadata
                .remove_member(index)
                .expect("nothing is on it");
        }
    }
    assert_eq!(spare.sync(disks)?, Outcome::Committed);
    spare.metadata.end_take_over();
    assert_eq!(spare.sync(disks)?, Outcome::Committed);
    Ok(())
}

/// A crash at every write: the heir has all of it, or is refused and the old ones are what they were. With the
/// old ones, it is never taken for one of them.
#[test]
fn a_crash_while_a_new_one_takes_over() {
    for (old, count) in [(1u8, 1usize), (2, 2)] {
        let build = |seed| {
            let (mut disks, spare) = match old {
                1 => one(seed, 1),
                _ => {
                    let (mut disks, spare) = ring(seed, 2);
                    let sectors = 2400 + 160 * 7;
                    disks.push(super::super::disk::Disk::new(sectors, seed ^ 77));
                    (disks, spare)
                }
            };
            disks.crash();
            (disks, spare)
        };
        let map = build(0).1.map;
        let writes = super::at_every_write(
            build,
            |disks, spare| take_over(disks, spare, old),
            |disks, _, ended| {
                let all: Vec<usize> = (0..count).collect();
                let mut alone = disks.clone();
                let found = Spare::load_of(&mut alone, &all, false).expect("as they were");
                assert_eq!(found.map, map);
                found.check_redundancy(&mut alone);

                let heir = [count];
                let mut alone = disks.clone();
                let loaded = match super::super::spare::is_blank(&mut alone, &heir) {
                    true => return assert!(!ended),
                    false => Spare::load_of(&mut alone, &heir, false),
                };
                let both: Vec<usize> = (0..=count).collect();
                let together = refusal(&mut disks.clone(), &both, true);
                match loaded {
                    Ok(found) => {
                        assert!(found.map.keys().eq(map.keys()), "{:?}", found.map);
                        let superblock = found.metadata.superblock();
                        assert_eq!(superblock.incompat, INCOMPAT_LOST);
                        assert_eq!(superblock.members().count(), 1);
                        for slot in found.map.values() {
                            let word = found.entries[*slot as usize].word;
                            assert_eq!(word.state(), SlotState::Lost);
                        }
                        found.check_redundancy(&mut alone);
                        assert!(matches!(together, Some(LoadError::NotMember { .. })));
                    }
                    Err(Stop::Refused(LoadError::Unfinished { .. })) => {
                        assert!(!ended);
                        assert!(matches!(together, Some(LoadError::Unfinished { .. })));
                    }
                    // The first copy was torn.
                    Err(Stop::Refused(LoadError::Superblock { .. })) => assert!(!ended),
                    Err(stop) => panic!("{stop:?}"),
                }
            },
        );
        assert!(writes > 12, "{writes}");
    }
}

/// Only if one joins, and all others are given up.
#[test]
fn who_can_take_over() {
    let (mut disks, mut spare) = one(3, 1);
    let refused = Err(Failure::Blocks);
    assert_eq!(spare.metadata.begin_take_over(0), refused);
    assert_eq!(spare.metadata.begin_take_over(1), refused);
    spare.add(&mut disks, 1);
    assert_eq!(spare.metadata.begin_take_over(2), refused);
    assert!(!spare.metadata.is_unfinished());
    assert_eq!(spare.metadata.begin_take_over(1), Ok(()));
    assert!(spare.metadata.is_unfinished());
}

/// The heir dies, too, and is the one that the next one takes over from; what is committed afterwards is all there.
#[test]
fn one_after_the_other() {
    let (mut disks, mut spare) = one(5, 2);
    claim(&mut disks, &mut spare, 4, 4);
    let map = spare.map.clone();
    let first = begin(&mut disks, &mut spare, 1);
    assert_eq!(spare.sync(&mut disks), COMMITTED);
    assert_eq!(spare.extend_member(&mut disks, first, 1), COMMITTED);
    let slot = slot_of(first, 0);
    spare.claim(slot, 3, SlotState::Lost);
    let blocks = spare.blocks_of(&[slot]);
    assert_eq!(spare.commit(&mut disks, &blocks), COMMITTED);
    spare.map.insert(3, slot);
    take_over(&mut disks, &mut spare, 2).expect("no crash");
    let heir = spare
        .disks
        .iter()
        .position(|disk| *disk == Some(2))
        .expect("there");
    claim(&mut disks, &mut spare, slot_of(heir as u8, 40), 99);
    disks.crash();
    let mut found = Spare::load_of(&mut disks, &[2], false).expect("all is there");
    assert!(found.map.contains_key(&99));
    assert_eq!(found.map.len(), map.len() + 1);
    assert!(try_claim(&mut disks, &mut found, slot_of(heir as u8, 41), 100).is_ok());
    found.check_redundancy(&mut disks);
}
