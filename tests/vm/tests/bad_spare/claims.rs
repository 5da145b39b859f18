// SPDX-License-Identifier: GPL-2.0
//! M5: entries that contradict each other.

use super::bench::check_sector;
use super::bench::Bench;
use super::bench::Saved;
use super::bench::WORN;
use super::image;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::stamps;

/// The sector of main that two slots claim.
const CLAIMED: u64 = WORN + 1;

/// A spare on which a sector of main has a slot, and another slot, in another table block, is free.
struct Claims {
    bench: Bench,
    saved: Saved,
    /// Where the slot is that serves it, on the spare.
    served: u64,
    /// Where the other one is.
    other: u64,
}

impl Claims {
    fn new() -> Self {
        let mut bench = Bench::new();
        bench.write(0, 4, 1).unwrap();
        let served = bench.remap.slot_of(CLAIMED).expect("a slot");
        bench.remap.deactivate();
        let superblock = image::superblock(&bench.remap.spare);
        let slot = image::first_slot(&superblock, 2) + 7;
        let other = image::slot_sector(&superblock, slot);
        let saved = bench.save();
        Self {
            bench,
            saved,
            served,
            other,
        }
    }

    /// Has the other slot claim the sector, too, with a generation that is so much higher, in these
    /// replicas. Its content is generation 9.
    fn forge(&mut self, replicas: &[u8], distance: i64) {
        self.bench.restore(&self.saved);
        let spare = &self.bench.remap.spare;
        let superblock = image::superblock(spare);
        let [from, to] = [self.served, self.other]
            .map(|sector| image::entry_place(image::slot_at(&superblock, sector)));
        let claim = image::table(spare, &superblock, 0, from.0).entries[from.1];
        for replica in replicas {
            let mut table = image::table(spare, &superblock, *replica, to.0);
            table.sequence += 1;
            let entry = &mut table.entries[to.1];
            *entry = claim;
            entry.generation = claim.generation.checked_add_signed(distance).unwrap();
            image::forge_table(spare, &superblock, *replica, to.0, &table);
        }
        let data = stamps(CLAIMED, 1, 9);
        spare.disk().poke(self.other, &data).unwrap();
    }

    /// Whether the entry of the slot at `sector` claims anything, in each replica.
    fn claims(&self, sector: u64) -> [bool; 2] {
        let spare = &self.bench.remap.spare;
        let superblock = image::superblock(spare);
        let (block, index) = image::entry_place(image::slot_at(&superblock, sector));
        [0, 1].map(|replica| {
            let table = image::table(spare, &superblock, replica, block);
            table.entries[index].word.is_claim()
        })
    }
}

/// Of two claims the newer wins, and the older is gone for good before anybody reads: also when the
/// power fails right then, and when the newer is taken back.
#[test]
fn of_two_claims_the_newer_wins_and_the_older_is_freed() {
    let _test = vmtest::begin!();
    let mut claims = Claims::new();
    for replicas in [&[0][..], &[1], &[0, 1]] {
        for distance in [-1, 1] {
            let what = format!("in {replicas:?}, {distance}");
            claims.forge(replicas, distance);
            let (winner, loser, generation) = match distance {
                1 => (claims.other, claims.served, 9),
                _ => (claims.served, claims.other, 1),
            };
            claims.bench.activate().unwrap();
            assert_eq!(claims.bench.remap.slot_of(CLAIMED), Some(winner), "{what}");
            assert_eq!(claims.bench.device().remapped(), 4, "{what}");
            assert_eq!(claims.claims(loser), [false; 2], "{what}: not freed");
            assert_eq!(claims.claims(winner), [true; 2], "{what}: not equal");
            let device = claims.bench.remap.open();
            check_sector(&device, CLAIMED, generation).unwrap();
            drop(device);

            claims.bench.remap.power_cut(PowerCut::Drop);
            assert_eq!(claims.claims(loser), [false; 2], "{what}: not durable");
            assert_eq!(claims.bench.remap.slot_of(CLAIMED), Some(winner), "{what}");

            let main = &claims.bench.remap.main;
            main.disk().heal(CLAIMED, 1);
            let message = format!("remove_remap {CLAIMED}");
            claims.bench.device().message(&message).unwrap();
            claims.bench.remap.reactivate();
            assert_eq!(claims.bench.remap.slot_of(CLAIMED), None, "{what}");
            assert_eq!(claims.bench.device().remapped(), 3, "{what}");
            let device = claims.bench.remap.open();
            check_sector(&device, CLAIMED, generation).unwrap();
            drop(device);
            claims.bench.remap.deactivate();
        }
    }
}

/// Two claims with the same generation, and a claim on what main does not have: nobody can tell what is
/// true, so the device does not come up, says what it is, and leaves the spare alone.
#[test]
fn claims_that_cannot_be_resolved_are_refused() {
    let _test = vmtest::begin!();
    let mut claims = Claims::new();
    for replicas in [&[0][..], &[1], &[0, 1]] {
        claims.forge(replicas, 0);
        let same_right = format!("two slots claim block {CLAIMED} of main");
        refused(&mut claims.bench, &same_right);

        claims.forge(replicas, 1);
        let spare = &claims.bench.remap.spare;
        let superblock = image::superblock(spare);
        let slot = image::slot_at(&superblock, claims.other);
        let (block, index) = image::entry_place(slot);
        let beyond = claims.bench.remap.main.disk().sectors();
        for replica in replicas {
            let mut table = image::table(spare, &superblock, *replica, block);
            table.entries[index].word = image::claim_of(beyond);
            image::forge_table(spare, &superblock, *replica, block, &table);
        }
        let what = format!("slot {slot} claims block {beyond}, which main does not have");
        refused(&mut claims.bench, &what);
    }
}

#[track_caller]
fn refused(bench: &mut Bench, reason: &str) {
    bench.remap.record();
    let refusal = bench.remap.try_activate().expect_err(reason);
    assert!(refusal.reason.contains(reason), "{refusal:?}");
    assert_eq!(bench.remap.spare.disk().record().writes, 0, "{reason}");
}
