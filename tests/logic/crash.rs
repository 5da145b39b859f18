// SPDX-License-Identifier: GPL-2.0

//! Histories of remaps over a spare that crashes and breaks (P3, P4, P5).
//!
//! Whatever happens in between: a spare loads again, every remap that was acknowledged is there,
//! every one that was taken back is not, one that was under way is there or not but nothing else,
//! and afterwards all copies are equal.
//!
//! A history that fails names its seed: DM_REMAP_SEED=n runs that one again, DM_REMAP_HISTORIES=n
//! runs more of them.

use std::collections::BTreeMap;

use dm_remap_logic::commit::Outcome;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::RESERVE_BLOCKS;
use dm_remap_logic::slot::SlotState;

use super::disk::Disks;
use super::disk::Trouble;
use super::random::Random;
use super::spare;
use super::spare::Spare;
use super::spare::Stop;

/// What may be found for one block of main: one of these slots, or none.
pub(super) type Options = Vec<Option<u32>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breakage {
    Read,
    Write,
    Both,
}

pub(super) struct World {
    pub(super) disk: Disks,
    pub(super) spare: Spare,
    pub(super) random: Random,
    /// The slot of each block of main, as acknowledged.
    pub(super) known: BTreeMap<u64, u32>,
    /// Blocks of main whose last change was not acknowledged, and the slots it was about.
    pub(super) doubt: BTreeMap<u64, (Options, Vec<u32>)>,
    /// Slots that were replaced and are still to be freed.
    pub(super) retire: Vec<u32>,
    /// Whether something broke that no load has looked at since.
    pub(super) fresh_damage: bool,
    broken_supers: u32,
    broken_tables: u32,
    pub(super) log: Vec<String>,
}

/// The power failed.
#[derive(Debug)]
pub(super) struct Crashed;

impl World {
    pub(super) fn new(seed: u64, sectors: u64, slot_sectors: u32) -> Self {
        let mut disk = Disks::new(sectors, seed);
        spare::format(&mut disk, slot_sectors).expect("a good disk");
        let mut spare = Spare::load(&mut disk).expect("just formatted");
        assert_eq!(spare.extend(&mut disk, 1), Ok(Outcome::Committed));
        World {
            disk,
            spare,
            random: Random::new(!seed),
            known: BTreeMap::new(),
            doubt: BTreeMap::new(),
            retire: Vec::new(),
            fresh_damage: false,
            broken_supers: 0,
            broken_tables: 0,
            log: Vec::new(),
        }
    }

    pub(super) fn free_slots(&mut self, want: usize) -> Vec<u32> {
        let entries = &self.spare.entries;
        let doubt = self.doubt.values().flat_map(|d| d.1.clone());
        let held: Vec<u32> = doubt.chain(self.retire.iter().copied()).collect();
        let usable = |slot: u32| self.spare.metadata.is_usable(spare::split(slot).0);
        let free = |slot: &u32| {
            entries[*slot as usize].word.is_available() && !held.contains(slot) && usable(*slot)
        };
        let ids = entries.ids();
        let start = self.random.below(ids.len() as u64) as usize;
        let (before, behind) = ids.split_at(start);
        behind
            .iter()
            .chain(before)
            .copied()
            .filter(free)
            .take(want)
            .collect()
    }

    /// Commits what `slots` say now; `changes` are the blocks of main that this is about, and what
    /// they are served by when it succeeds. Taken back if nothing was written.
    pub(super) fn commit(
        &mut self,
        slots: &[u32],
        before: &[(u32, dm_remap_logic::slot::Entry)],
        changes: &[(u64, Option<u32>)],
    ) -> Result<bool, Crashed> {
        let blocks = self.spare.blocks_of(slots);
        let outcome = self.spare.commit(&mut self.disk, &blocks);
        self.log
            .push(format!("commit {blocks:?} {changes:?}: {outcome:?}"));
        match outcome {
            Ok(Outcome::Committed) => {
                for (main, slot) in changes {
                    match slot {
                        Some(slot) => self.known.insert(*main, *slot),
                        None => self.known.remove(main),
                    };
                    self.doubt.remove(main);
                }
                Ok(true)
            }
            Ok(Outcome::Failed { issued: false, .. }) => {
                for (slot, entry) in before {
                    self.spare.entries[*slot as usize] = *entry;
                }
                Ok(false)
            }
            failed => {
                for (main, slot) in changes {
                    let now = self.known.get(main).copied();
                    let doubt = self.doubt.entry(*main).or_default();
                    for option in [now, *slot] {
                        if !doubt.0.contains(&option) {
                            doubt.0.push(option);
                        }
                    }
                    doubt.1.extend(slots);
                }
                match failed {
                    Err(Trouble::Crash) => Err(Crashed),
                    _ => Ok(false),
                }
            }
        }
    }

    pub(super) fn add(&mut self) -> Result<(), Crashed> {
        let want = 1 + self.random.below(8) as usize;
        let slots = self.free_slots(want);
        let first = self.random.below(2000);
        let mut changes = Vec::new();
        let mut used = Vec::new();
        let mut before = Vec::new();
        for (slot, main) in slots.into_iter().zip(first..) {
            if self.known.contains_key(&main) || self.doubt.contains_key(&main) {
                continue;
            }
            before.push((slot, self.spare.entries[slot as usize]));
            self.spare.claim(slot, main, SlotState::Valid);
            used.push(slot);
            changes.push((main, Some(slot)));
        }
        if !used.is_empty() {
            self.commit(&used, &before, &changes)?;
        }
        Ok(())
    }

    fn some_known(&mut self) -> Option<(u64, u32)> {
        let certain: Vec<(u64, u32)> = self
            .known
            .iter()
            .map(|(m, s)| (*m, *s))
            .filter(|(m, _)| !self.doubt.contains_key(m))
            .collect();
        let which = self.random.below(certain.len().max(1) as u64) as usize;
        certain.get(which).copied()
    }

    pub(super) fn remove(&mut self) -> Result<(), Crashed> {
        let Some((main, slot)) = self.some_known() else {
            return Ok(());
        };
        let before = [(slot, self.spare.entries[slot as usize])];
        self.spare.free(slot);
        self.commit(&[slot], &before, &[(main, None)])?;
        Ok(())
    }

    /// Another slot for the same block: first the addition, then the retirement (M5).
    pub(super) fn replace(&mut self) -> Result<(), Crashed> {
        let Some((main, old)) = self.some_known() else {
            return Ok(());
        };
        let Some(&new) = self.free_slots(1).first() else {
            return Ok(());
        };
        let before = [(new, self.spare.entries[new as usize])];
        self.spare.claim(new, main, SlotState::Valid);
        if self.commit(&[new], &before, &[(main, Some(new))])? {
            self.retire.push(old);
            self.settle().map(|_| ())?;
        }
        Ok(())
    }

    fn extend(&mut self) -> Result<(), Crashed> {
        let blocks = 1 + self.random.below(3) as u32;
        let outcome = self.spare.extend(&mut self.disk, blocks);
        self.log.push(format!("extend {blocks}: {outcome:?}"));
        match outcome {
            Err(_) => Err(Crashed),
            Ok(_) => Ok(()),
        }
    }

    /// Tries again what is in doubt, and retires slots that were replaced. Until that is done, what
    /// they serve must not change again: a removal would bring an older claim back (M5).
    pub(super) fn settle(&mut self) -> Result<bool, Crashed> {
        if !self.doubt.is_empty() || self.spare.metadata.is_unsettled() {
            let slots: Vec<u32> = self.doubt.values().flat_map(|d| d.1.clone()).collect();
            let blocks = self.spare.blocks_of(&slots);
            let outcome = self.spare.commit(&mut self.disk, &blocks);
            self.log.push(format!("settle {blocks:?}: {outcome:?}"));
            match outcome {
                Err(_) => return Err(Crashed),
                Ok(Outcome::Failed { .. }) => return Ok(false),
                Ok(Outcome::Committed) => (),
            }
            assert!(!self.spare.metadata.is_unsettled());
            for (main, (_, slots)) in std::mem::take(&mut self.doubt) {
                let serves = |s: &&u32| self.spare.entries[**s as usize].word.claims(main);
                let slot = slots.iter().rev().find(serves).copied();
                let before = match slot {
                    Some(slot) => self.known.insert(main, slot),
                    None => self.known.remove(&main),
                };
                self.retire
                    .extend(before.filter(|b| slot.is_some_and(|s| s != *b)));
            }
        }
        while let Some(&slot) = self.retire.last() {
            self.spare.free(slot);
            let blocks = self.spare.blocks_of(&[slot]);
            let outcome = self.spare.commit(&mut self.disk, &blocks);
            self.log.push(format!("retire {slot}: {outcome:?}"));
            match outcome {
                Err(_) => return Err(Crashed),
                Ok(Outcome::Failed { .. }) => return Ok(false),
                Ok(Outcome::Committed) => self.retire.pop(),
            };
        }
        Ok(true)
    }

    fn step(&mut self) -> Result<(), Crashed> {
        if !self.settle()? {
            return Ok(());
        }
        match self.random.below(10) {
            0..=4 => self.add(),
            5..=6 => self.remove(),
            7 => self.replace(),
            8 => self.extend(),
            _ => match self.spare.sync(&mut self.disk) {
                Err(_) => Err(Crashed),
                Ok(_) => Ok(()),
            },
        }
    }

    /// Loads the spare, through as many more crashes as there are.
    fn reload(&mut self) {
        self.disk.crash();
        let mut tries = 0;
        self.spare = loop {
            tries += 1;
            if tries < 4 && self.random.once_in(3) {
                self.disk.crash_in = Some(self.random.below(12) as u32);
            }
            match Spare::load(&mut self.disk) {
                Ok(spare) => break spare,
                Err(Stop::Crash) => self.disk.crash(),
                Err(stop) => panic!("{stop:?} after {:#?}", self.log),
            }
        };
        self.disk.crash_in = None;
        self.log
            .push(format!("load, {} repairs", self.spare.repaired));
        self.retire.clear();
        self.compare();
        self.spare.check_redundancy(&mut self.disk);
        self.fresh_damage = false;
    }

    pub(super) fn compare(&mut self) {
        let mut found = self.spare.map.clone();
        for (main, (options, _)) in std::mem::take(&mut self.doubt) {
            let slot = found.get(&main).copied();
            assert!(
                options.contains(&slot),
                "block {main}: {slot:?} is none of {options:?} after {:#?}",
                self.log
            );
            self.known.remove(&main);
            if let Some(slot) = found.remove(&main) {
                found.insert(main, slot);
                self.known.insert(main, slot);
            }
        }
        assert_eq!(found, self.known, "after {:#?}", self.log);
    }

    /// One more sector of the metadata goes bad, if all was whole.
    fn break_something(&mut self) {
        let whole = !self.fresh_damage && !self.spare.metadata.is_unsettled();
        if !whole
            || self.spare.metadata.is_stale()
            || !self.doubt.is_empty()
            || !self.retire.is_empty()
        {
            return;
        }
        let superblock = self.spare.metadata.superblock();
        let member = superblock.member(0).expect("the first");
        let geometry = member.geometry;
        let reserve = self.random.once_in(6);
        let sector = if reserve {
            if self.broken_tables == 12 {
                return;
            }
            self.broken_tables += 1;
            let (replica, index) = (self.random.below(2) as u8, self.random.below(4) as u8);
            superblock
                .reserve_place(replica, 0, index)
                .expect("in range")
                .sector
        } else if self.random.once_in(4) {
            if self.broken_supers == 2 {
                return;
            }
            self.broken_supers += 1;
            let copy = self.random.below(4) as u8;
            geometry.superblock_sector(copy).expect("in range")
        } else {
            if self.broken_tables == 12 {
                return;
            }
            self.broken_tables += 1;
            let block = self.random.below(u64::from(member.high_water)) as u32;
            let replica = self.random.below(2) as u8;
            let id = BlockId { member: 0, block };
            superblock
                .table_place(replica, id)
                .expect("in range")
                .sector
        };
        let sector = sector + self.random.below(8);
        if self.disk.is_bad(sector) {
            return;
        }
        let void = member.void_replicas != 0;
        self.fresh_damage = true;
        let how = match self.random.below(3) {
            // Or else the next one to break could be another block's last good copy.
            _ if void => Breakage::Write,
            0 => Breakage::Read,
            1 => Breakage::Write,
            _ => Breakage::Both,
        };
        self.break_sector(sector, how);
    }

    fn break_sector(&mut self, sector: u64, how: Breakage) {
        self.log.push(format!("sector {sector} breaks: {how:?}"));
        if how != Breakage::Write {
            self.disk.break_reads(sector);
        }
        if how != Breakage::Read {
            self.disk.break_writes(sector);
        }
    }
}

/// What a history is about.
#[derive(Clone, Copy)]
struct Plan {
    steps: u32,
    breakage: bool,
    absence: bool,
    /// A replica has next to no reserve blocks from the start.
    worn: bool,
}

impl Plan {
    const CRASHES: Plan = Plan {
        steps: 40,
        breakage: false,
        absence: false,
        worn: false,
    };
}

/// Tells whether a replica became void.
fn history(seed: u64, plan: Plan) -> bool {
    let sectors = 1024 + 8 * (seed % 200);
    let mut world = World::new(seed, sectors, if seed % 3 == 0 { 8 } else { 1 });
    if plan.worn {
        for index in 2..RESERVE_BLOCKS {
            let superblock = world.spare.metadata.superblock();
            let place = superblock.reserve_place(seed as u8 & 1, 0, index);
            world.disk.break_writes(place.expect("in range").sector);
        }
    }
    for _ in 0..plan.steps {
        if plan.breakage && world.random.once_in(3) {
            world.break_something();
        }
        if !world.doubt.is_empty() && world.random.once_in(2) {
            world.disk.crash_in = Some(world.random.below(3) as u32);
        } else if world.random.once_in(3) {
            world.disk.crash_in = Some(world.random.below(14) as u32);
        }
        if plan.absence && world.random.once_in(4) {
            let (from, more) = (world.random.below(8), world.random.below(8));
            world.disk.away_in = Some((from as u32, more as u32));
        }
        if world.step().is_err() || world.random.once_in(8) {
            world.reload();
        }
        world.disk.crash_in = None;
        world.disk.away_in = None;
    }
    world.reload();
    let superblock = world.spare.metadata.superblock();
    superblock.member(0).expect("the first").void_replicas != 0
}

/// Runs histories number 0 to `count`, or those that the environment asks for.
pub(super) fn each_history(count: u64, mut run: impl FnMut(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("DM_REMAP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DM_REMAP_HISTORIES").unwrap_or(count),
    };
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| run(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("DM_REMAP_SEED={seed}");
            std::panic::resume_unwind(panic)
        }
    }
}

/// Tells in how many histories a replica became void.
fn histories(count: u64, plan: Plan) -> u32 {
    let mut void = 0;
    each_history(count, |seed| void += u32::from(history(seed, plan)));
    void
}

#[test]
fn crashes() {
    histories(400, Plan::CRASHES);
}

#[test]
fn crashes_and_a_spare_that_goes_away() {
    let plan = Plan {
        absence: true,
        ..Plan::CRASHES
    };
    histories(800, plan);
}

#[test]
fn crashes_and_sectors_that_go_bad() {
    let plan = Plan {
        breakage: true,
        ..Plan::CRASHES
    };
    histories(800, plan);
}

#[test]
fn everything_at_once() {
    let plan = Plan {
        breakage: true,
        absence: true,
        ..Plan::CRASHES
    };
    histories(800, plan);
}

/// One replica runs out of reserve blocks and becomes void; from then on the other one must not
/// be rewritten in place.
#[test]
fn the_last_replica() {
    let plan = Plan {
        breakage: true,
        absence: true,
        worn: true,
        ..Plan::CRASHES
    };
    assert!(histories(800, plan) > 100);
}

/// The same short history, with a crash at every single write, torn in several ways.
#[test]
fn a_crash_at_every_step() {
    for tear in 0..8 {
        let mut at = 0;
        while crash_at(at, tear, |_| ()) {
            at += 1;
        }
        assert!(at > 40, "the history is too short: {at} writes");
    }
}

/// And with any one sector of the metadata bad from the start, in any way (P4).
#[test]
fn a_crash_at_every_step_and_any_bad_sector() {
    let ways = [Breakage::Read, Breakage::Write, Breakage::Both];
    for place in 0..8 {
        for (how, tear) in ways.into_iter().zip(0..) {
            let mut at = 0;
            while crash_at(at, tear, |world| {
                let superblock = world.spare.metadata.superblock();
                let id = BlockId {
                    member: 0,
                    block: u32::from(place >> 1 & 1),
                };
                let member = superblock.member(0).expect("the first");
                let sector = match place {
                    0..4 => member.geometry.superblock_sector(place),
                    _ => superblock.table_place(place & 1, id).map(|p| p.sector),
                };
                let within = u64::from(at) % 8;
                world.break_sector(sector.expect("in range") + within, how);
            }) {
                at += 1;
            }
        }
    }
}

/// Runs a short history up to its write number `at`; false if it is shorter than that.
fn crash_at(at: u32, tear: u64, prepare: impl Fn(&mut World)) -> bool {
    let mut world = World::new(7 + (tear << 32), 1536, 1);
    assert_eq!(
        world.spare.extend(&mut world.disk, 1),
        Ok(Outcome::Committed)
    );
    prepare(&mut world);
    world.random = Random::new(42);
    world.disk.crash_in = Some(at);
    let ended = (0..20).all(|_| world.step().is_ok());
    world.reload();
    !ended
}
