// SPDX-License-Identifier: GPL-2.0

//! Members that join and leave.

use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::load::LoadError;

use super::super::disk::Disk;
use super::super::disk::Disks;
use super::super::disk::Trouble;
use super::super::spare;
use super::super::spare::slot_of;
use super::super::spare::Spare;
use super::super::spare::Stop;
use super::at_every_write;
use super::claim;
use super::member;
use super::one;
use super::refusal;
use super::ring;
use super::set_epoch;
use super::unsettle;
use super::COMMITTED;

/// With all spares given, either the old set or the new one is there. The old spare alone is used
/// only if no other could be newer.
#[test]
fn joining() {
    let join = |disks: &mut Disks, spare: &mut Spare| {
        assert_eq!(spare.join(disks, 1)?, (1, Outcome::Committed));
        Ok(())
    };
    let torn = std::cell::Cell::new(0);
    let writes = at_every_write(
        |tear| one(tear << 32, 1),
        join,
        |mut disks, spare, ended| {
            let found = spare::find(&mut disks, &[0, 1]).expect("never refused");
            let (metadata, chosen) = found.expect("ours");
            let new = metadata.superblock().member(1).is_some();
            assert!(new || !ended);
            assert_eq!(chosen.blank, if new { 0 } else { 2 });
            torn.set(torn.get() + u32::from(chosen.joining != 0));
            let (mut alone, mut later) = (disks.clone(), disks.clone());
            // The old spare alone.
            if new {
                let uuid = metadata.superblock().member(1).expect("new").uuid;
                let incomplete = LoadError::Incomplete { member: 1, uuid };
                assert_eq!(refusal(&mut alone, &[0], false), Some(incomplete));
            }
            let mut old = Spare::load_of(&mut alone, &[0], true).expect("nothing on the other");
            assert_eq!(set_epoch(&old), if new { 2 } else { 1 });
            claim(&mut alone, &mut old, 7, 7);
            alone.crash();
            match Spare::load_of(&mut alone, &[0, 1], true) {
                Ok(both) => assert_eq!(both.map, old.map),
                // It has no good copy, and is not about to join any more.
                Err(stop) => assert!(matches!(
                    stop,
                    Stop::Refused(LoadError::Superblock { spare: 1, .. })
                )),
            }
            // Both.
            let mut both = Spare::load(&mut disks).expect("never refused");
            assert_eq!(
                both.metadata.superblock().members().count(),
                1 + usize::from(new)
            );
            both.map.iter().for_each(|found| {
                assert_eq!(spare.map.get(found.0), Some(found.1));
            });
            both.check_redundancy(&mut disks);
            if new {
                assert_eq!(member(&both, 1).void_supers, 0);
                assert_eq!(both.extend_member(&mut disks, 1, 1), COMMITTED);
            } else {
                let joined = both.join(&mut later, 1);
                assert_eq!(joined, Ok((1, Outcome::Committed)));
            }
        },
    );
    assert!(writes >= 16);
    assert!(torn.get() > 10);
}

/// P2: another blank spare in the place of one whose joining was cut short is another one also when the
/// first, which may have got superblocks by then, is met again.
#[test]
fn another_one_joins_instead() {
    let join = |disks: &mut Disks, spare: &mut Spare| {
        assert_eq!(spare.join(disks, 1)?, (1, Outcome::Committed));
        Ok(())
    };
    let instead = std::cell::Cell::new(0);
    at_every_write(
        |tear| one(tear << 32, 2),
        join,
        |mut disks, _, _| {
            let Ok(mut other) = Spare::load_of(&mut disks, &[0, 2], false) else {
                return;
            };
            if other.metadata.superblock().members().count() == 1 {
                return;
            }
            assert!(other.rehost(&mut disks, 1, 1, 0));
            assert_eq!(other.resync(&mut disks), COMMITTED);
            assert_eq!(other.extend_member(&mut disks, 1, 1), COMMITTED);
            claim(&mut disks, &mut other, slot_of(1, 9), 50);
            disks.crash();
            let first = Spare::load_of(&mut disks, &[0, 1], false);
            assert!(first.is_err(), "what the other one holds is read from it");
            let again = Spare::load_of(&mut disks, &[0, 2], false).expect("the right one");
            assert_eq!(again.map, other.map);
            instead.set(instead.get() + 1);
        },
    );
    assert!(instead.get() > 10);
}

/// What is not blank and not ours is not taken for a spare that was about to join.
#[test]
fn joining_does_not_excuse_everything() {
    let (mut disks, mut spare) = one(3, 1);
    disks.crash_in = Some(4);
    assert_eq!(spare.join(&mut disks, 1), Err(Trouble::Crash));
    disks.crash();
    for (sector, byte) in [(0, 0x33), (1, 0x45), (2, 1), (4, 1), (7, 1), (256, 7)] {
        let mut disks = disks.clone();
        *disks.at(1) = Disk::new(2560, 1);
        assert_eq!(refusal(&mut disks.clone(), &[0, 1], false), None);
        disks.at(1).write(sector, &[byte; 512], true).expect("good");
        let error = refusal(&mut disks, &[0, 1], false);
        assert!(matches!(
            error,
            Some(LoadError::Superblock { spare: 1, .. })
        ));
    }
}

#[test]
fn leaving() {
    let build = |tear| {
        let (mut disks, mut spare) = one(tear << 32, 1);
        assert_eq!(spare.join(&mut disks, 1), Ok((1, Outcome::Committed)));
        (disks, spare)
    };
    let leave = |disks: &mut Disks, spare: &mut Spare| {
        spare.metadata.remove_member(1).expect("nothing on it");
        spare.sync(disks).map(|_| ())
    };
    at_every_write(build, leave, |mut disks, _, ended| {
        let refused = refusal(&mut disks.clone(), &[0, 1], false);
        assert!(refused.is_none() && !ended || refused == Some(LoadError::NotMember { spare: 1 }));
        // What has left does not come back by being used alone, with no one knowing.
        let mut left = disks.clone();
        if refused.is_some() {
            let spare = Spare::load_of(&mut disks, &[0], false).expect("it is all");
            spare.check_redundancy(&mut disks);
            let refused = refusal(&mut left, &[1], true);
            assert!(refused.is_none() || matches!(refused, Some(LoadError::TableBlock { .. })));
        }
    });
}

#[test]
fn what_may_not_leave() {
    let (mut disks, mut spare) = ring(5, 2);
    assert_eq!(spare.metadata.remove_member(1), Err(Failure::NoPlace));
    let (mut disks1, mut alone) = one(5, 0);
    assert_eq!(alone.metadata.remove_member(0), Err(Failure::NoPlace));
    assert_eq!(alone.sync(&mut disks1), COMMITTED);
    // The one with all superblock copies but one.
    let (mut disks2, mut pair) = one(5, 1);
    assert_eq!(pair.join(&mut disks2, 1), Ok((1, Outcome::Committed)));
    let geometry = member(&pair, 0).geometry;
    for copy in 0..3 {
        disks2.break_writes(geometry.superblock_sector(copy).expect("in range"));
    }
    assert_eq!(pair.sync(&mut disks2), COMMITTED);
    assert_eq!(pair.metadata.remove_member(1), Err(Failure::NoSuperblock));
    assert_eq!(spare.sync(&mut disks), COMMITTED);
}

/// What is unsettled in one table is not forgotten when another one's member leaves.
#[test]
fn leaving_settles_nothing_of_others() {
    let (mut disks, mut spare) = ring(6, 2);
    disks.push(Disk::new(3000, 66));
    assert_eq!(spare.join(&mut disks, 2), Ok((2, Outcome::Committed)));
    unsettle(&mut disks, &mut spare);
    spare.metadata.remove_member(2).expect("nothing on it");
    assert!(spare.metadata.is_unsettled());
}
