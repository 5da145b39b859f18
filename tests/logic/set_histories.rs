// SPDX-License-Identifier: GPL-2.0

//! Histories of remaps over a set of spares that crash, break, go away and come back (P3, P4, P5, M9).
//!
//! As those of [`crash`](super::crash), and: a set loads without a member if, and only if, nothing
//! is lost with it; what is claimed on the member that is not there is known still, and when that
//! comes back nothing of its own metadata is believed.

use std::collections::BTreeSet;

use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::Member;
use dm_remap_logic::load::LoadError;

use super::crash::each_history;
use super::crash::Crashed;
use super::crash::World;
use super::disk::Disk;
use super::random::Random;
use super::spare::Spare;
use super::spare::Stop;

/// A set of up to four spares, of which one may be away.
struct Set {
    world: World,
    /// The disk that is away.
    out: Option<usize>,
    broken: u32,
}

impl Set {
    fn new(seed: u64, disks: u64) -> Self {
        let sectors = |disk: u64| 2048 + 8 * ((seed + disk * 37) % 100);
        let mut world = World::new(seed, sectors(0), if seed % 3 == 0 { 8 } else { 1 });
        for disk in 1..disks {
            let seed = seed ^ (disk << 40);
            world.disk.push(Disk::new(sectors(disk), seed));
        }
        Set {
            world,
            out: None,
            broken: 0,
        }
    }

    /// A set of which all are members, each with a replica of its table on the next one.
    fn full(seed: u64, disks: u64) -> Self {
        let mut set = Set::new(seed, disks);
        let World { spare, disk, .. } = &mut set.world;
        for new in 1..disks as u8 {
            assert_eq!(spare.join(disk, new), Ok((new, Outcome::Committed)));
        }
        if disks > 1 {
            for member in 0..disks as u8 {
                assert!(spare.rehost(disk, member, 1, (member + 1) % disks as u8));
            }
        }
        assert_eq!(spare.resync(disk), Ok(Outcome::Committed));
        for member in 1..disks as u8 {
            let outcome = spare.extend_member(disk, member, 1);
            assert_eq!(outcome, Ok(Outcome::Committed));
        }
        set
    }

    fn random(&mut self) -> &mut Random {
        &mut self.world.random
    }

    fn pick(&mut self, of: &[u8]) -> u8 {
        let which = self.random().below(of.len() as u64);
        of[which as usize]
    }

    fn log(&mut self, line: String) {
        self.world.log.push(line);
    }

    /// The disks that are there.
    fn there(&mut self) -> Vec<usize> {
        (0..self.world.disk.count())
            .filter(|disk| !self.world.disk.at(*disk).gone)
            .collect()
    }

    fn members(&self) -> Vec<u8> {
        let superblock = self.world.spare.metadata.superblock();
        superblock.members().map(|(index, _)| index).collect()
    }

    fn is_settled(&self) -> bool {
        let world = &self.world;
        let metadata = &world.spare.metadata;
        world.doubt.is_empty()
            && world.retire.is_empty()
            && !metadata.is_unsettled()
            && !metadata.is_stale()
    }

    /// Whether everything is known without a member.
    fn can_go_without(&self, index: u8) -> bool {
        let metadata = &self.world.spare.metadata;
        let superblock = metadata.superblock();
        superblock.members().all(|(_, member)| {
            let areas = member.areas.iter().zip(0u8..);
            let mut left = areas.filter(|(area, replica)| {
                member.replica_lives(*replica)
                    && area.host != index
                    && metadata.is_present(area.host)
            });
            member.high_water == 0 || left.next().is_some()
        }) && superblock.members().count() > 1
    }

    fn extend(&mut self) -> Result<(), Crashed> {
        let members = self.members();
        let member = self.pick(&members);
        let World { spare, disk, .. } = &mut self.world;
        let outcome = spare.extend_member(disk, member, 2);
        self.log(format!("extend {member}: {outcome:?}"));
        outcome.map(|_| ()).map_err(|_| Crashed)
    }

    fn join(&mut self) -> Result<(), Crashed> {
        let World { spare, disk, .. } = &mut self.world;
        let places = spare.disks;
        let blank = (0..disk.count()).find(|d| !places.contains(&Some(*d as u8)));
        let Some(blank) = blank.filter(|_| self.out.is_none()) else {
            return Ok(());
        };
        let outcome = spare.join(disk, blank as u8);
        self.log(format!("join disk {blank}: {outcome:?}"));
        outcome.map(|_| ()).map_err(|_| Crashed)
    }

    fn rehost(&mut self) {
        let members = self.members();
        let (member, host) = (self.pick(&members), self.pick(&members));
        let replica = self.random().below(2) as u8;
        let World { spare, disk, .. } = &mut self.world;
        let superblock = spare.metadata.superblock();
        let taken = |m: u8, r: u8| superblock.member(m).expect("one").areas[usize::from(r)].host;
        // One that holds both would be no gain, and small spares are soon full.
        let pointless = host == taken(member, replica ^ 1) || superblock.guests(host).count() > 3;
        if self.out.is_some() || host == member || pointless {
            return;
        }
        let done = spare.rehost(disk, member, replica, host);
        self.log(format!(
            "rehost replica {replica} of {member} to {host}: {done}"
        ));
    }

    /// Makes the next part again of what is void.
    fn rebuild(&mut self) -> Result<(), Crashed> {
        let World { spare, disk, .. } = &mut self.world;
        if spare.metadata.rebuilding().is_none() {
            let Some((member, replica)) = spare.metadata.void_replicas().next() else {
                spare.take_back();
                return Ok(());
            };
            spare.metadata.begin_rebuild(member, replica);
        }
        let what = spare.metadata.rebuilding();
        let outcome = spare.rebuild(disk);
        self.log(format!("rebuild {what:?}: {outcome:?}"));
        outcome.map(|_| ()).map_err(|_| Crashed)
    }

    fn step(&mut self) -> Result<(), Crashed> {
        if !self.world.settle()? {
            return Ok(());
        }
        match self.random().below(14) {
            0..=3 => self.world.add(),
            4..=5 => self.world.remove(),
            6 => self.world.replace(),
            7 => self.extend(),
            8 => self.join(),
            9 => {
                self.rehost();
                Ok(())
            }
            10..=12 => self.rebuild(),
            _ => match self.world.spare.sync(&mut self.world.disk) {
                Err(_) => Err(Crashed),
                Ok(_) => Ok(()),
            },
        }
    }

    /// A member goes away, and the set notices in the middle of something.
    fn lose(&mut self) -> Result<(), Crashed> {
        let members = self.members();
        let index = self.pick(&members);
        let Some(disk) = self.world.spare.disks[usize::from(index)] else {
            return Ok(());
        };
        if self.out.is_some() || self.world.fresh_damage || !self.is_settled() {
            return Ok(());
        }
        let superblock = self.world.spare.metadata.superblock();
        let believed = !superblock.member(index).expect("one").missing;
        let works = |(other, member): (u8, &Member)| other != index && !member.missing;
        let works = superblock.members().any(works);
        let can = self.can_go_without(index) && works;
        let epoch = self.set_epoch();
        self.log(format!("disk {disk} is lost, can go without: {can}"));
        self.world.disk.at(disk.into()).gone = true;
        let result = self.step();
        // It may be needed for more by now.
        let can = can && self.can_go_without(index);
        self.world.disk.crash_in = None;
        let World { spare, disk: d, .. } = &mut self.world;
        let member = spare.metadata.superblock().member(index);
        // What was done may have made it superfluous.
        let lost = believed && member.is_some_and(|member| member.missing);
        if result.is_ok() && (can && !spare.metadata.is_unsettled() || lost) {
            let outcome = spare.sync(d);
            assert_eq!(outcome, Ok(Outcome::Committed), "{:#?}", self.world.log);
            let member = spare.metadata.superblock().member(index);
            assert!(member.is_none_or(|member| member.missing));
            assert!(self.set_epoch() > epoch || !believed);
            self.out = Some(disk.into());
        } else {
            // Nothing could be done without it; or power failed and it is there again.
            d.at(disk.into()).gone = false;
            if result.is_ok() {
                self.reload();
            }
        }
        result
    }

    fn set_epoch(&self) -> u64 {
        self.world.spare.metadata.superblock().set_epoch
    }

    /// Loads the set, through as many more crashes as there are.
    fn reload(&mut self) {
        self.world.disk.crash();
        if self.out.is_some() && self.random().once_in(3) {
            let out = self.out.take().expect("away");
            self.log(format!("disk {out} is there again"));
            self.world.disk.at(out).gone = false;
        }
        let there = self.there();
        if self.out.is_some() {
            let refused = Spare::load_of(&mut self.world.disk, &there, false).err();
            let incomplete = matches!(refused, Some(Stop::Refused(LoadError::Incomplete { .. })));
            assert!(incomplete, "{refused:?} after {:#?}", self.world.log);
        }
        let degraded = self.out.is_some();
        let mut tries = 0;
        self.world.spare = loop {
            tries += 1;
            if tries < 4 && self.random().once_in(3) {
                self.world.disk.crash_in = Some(self.random().below(16) as u32);
            }
            match Spare::load_of(&mut self.world.disk, &there, degraded) {
                Ok(spare) => break spare,
                Err(Stop::Crash) => self.world.disk.crash(),
                Err(stop) => panic!("{stop:?} after {:#?}", self.world.log),
            }
        };
        self.world.disk.crash_in = None;
        let superblock = self.world.spare.metadata.superblock();
        let repaired = self.world.spare.repaired;
        let epochs = (superblock.set_epoch, superblock.epoch);
        self.log(format!("load, {repaired} repairs, epochs {epochs:?}"));
        self.world.retire.clear();
        self.world.compare();
        self.check();
        self.world.fresh_damage = false;
    }

    /// All copies are equal, and no commit had the number of another.
    fn check(&mut self) {
        let World { spare, disk, .. } = &mut self.world;
        spare.check_redundancy(disk);
        let mut generations = BTreeSet::new();
        let last = spare.metadata.superblock().epoch;
        for slot in spare.entries.ids() {
            let generation = spare.entries[slot as usize].generation;
            assert!(generation == 0 || generations.insert(generation));
            assert!(sequence_epoch(generation) <= last);
        }
    }

    /// Without a member, nothing goes on that needs it.
    fn check_refusals(&mut self) {
        let single = self.members().len() == 1;
        if !self.is_settled() || self.out.is_some() || self.world.fresh_damage || single {
            return;
        }
        for index in self.members() {
            let superblock = self.world.spare.metadata.superblock();
            let knows = |(other, m): (u8, &Member)| other != index && !m.is_left_out();
            if !superblock.members().any(knows) {
                // What is left are old members that can't tell that they are.
                continue;
            }
            let can = self.can_go_without(index);
            let away = self.world.spare.disks[usize::from(index)].map(usize::from);
            let mut disks = self.world.disk.clone();
            disks.crash();
            let there: Vec<usize> = (0..disks.count()).filter(|d| Some(*d) != away).collect();
            match Spare::load_of(&mut disks, &there, true) {
                Ok(spare) => {
                    assert!(can);
                    assert_eq!(spare.map, self.world.known);
                    assert!(!spare.metadata.is_usable(index));
                    spare.check_redundancy(&mut disks);
                }
                Err(stop) => assert!(
                    !can && matches!(
                        stop,
                        Stop::Failed(Failure::Device)
                            | Stop::Refused(
                                LoadError::TableBlock { .. } | LoadError::Superblock { .. }
                            )
                    ),
                    "{stop:?} without {index} after {:#?}",
                    self.world.log
                ),
            }
        }
    }

    /// One more sector of the metadata goes bad, if all was whole.
    fn break_something(&mut self) {
        let superblock = self.world.spare.metadata.superblock().clone();
        if !self.is_settled()
            || self.out.is_some()
            || self.world.fresh_damage
            || superblock.is_degraded()
            || self.broken == 12
        {
            return;
        }
        self.broken += 1;
        let members = self.members();
        let index = self.pick(&members);
        let member = superblock.member(index).expect("one");
        let replica = self.random().below(2) as u8;
        let place = match self.random().below(8) {
            0 => superblock.reserve_place(replica, index, 0),
            _ if member.high_water == 0 => return,
            _ => {
                let block = self.random().below(member.high_water.into()) as u32;
                let id = BlockId {
                    member: index,
                    block,
                };
                superblock.table_place(replica, id)
            }
        };
        let place = place.expect("in range");
        let disk = self.world.spare.disks[usize::from(place.member)].expect("there");
        let sector = place.sector + self.random().below(8);
        let how = self.random().below(3);
        self.log(format!("sector {sector} of disk {disk} breaks, {how}"));
        self.world.fresh_damage = true;
        let disk = self.world.disk.at(disk.into());
        if how != 0 {
            disk.break_writes(sector);
        }
        if how != 1 {
            disk.break_reads(sector);
        }
    }
}

/// What a history came to.
#[derive(Default)]
struct Sums {
    lost: u32,
    returned: u32,
    members: u32,
}

fn history(seed: u64, breakage: bool, full: bool, sums: &mut Sums) {
    let disks = 1 + seed % 4;
    let mut set = if full {
        Set::full(seed, disks)
    } else {
        Set::new(seed, disks)
    };
    for _ in 0..40 {
        if breakage && set.random().once_in(3) {
            set.break_something();
        }
        if set.random().once_in(4) {
            set.world.disk.crash_in = Some(set.random().below(20) as u32);
        }
        let away = set.out.is_some();
        let result = if set.random().once_in(6) {
            set.lose()
        } else {
            set.step()
        };
        sums.lost += u32::from(!away && set.out.is_some());
        if result.is_err() || set.random().once_in(8) {
            let away = set.out.is_some();
            set.reload();
            sums.returned += u32::from(away && set.out.is_none());
        }
        set.world.disk.crash_in = None;
        if set.random().once_in(16) {
            set.check_refusals();
        }
    }
    set.reload();
    sums.members += set.members().len() as u32;
}

fn histories(count: u64, breakage: bool, full: bool) {
    let mut sums = Sums::default();
    let mut ran = 0;
    each_history(count, |seed| {
        history(seed, breakage, full, &mut sums);
        ran += 1;
    });
    // What the histories are for does happen in them.
    if ran >= 100 {
        assert!(sums.lost > ran / 4, "{} of {ran}", sums.lost);
        assert!(sums.returned > ran / 8, "{} of {ran}", sums.returned);
        assert!(sums.members > ran * 2, "{} of {ran}", sums.members);
    }
}

#[test]
fn sets_that_grow() {
    histories(120, false, false);
}

#[test]
fn sets_that_are_full() {
    histories(120, false, true);
}

#[test]
fn sets_with_sectors_that_go_bad() {
    histories(120, true, true);
}

/// A short history of everything that can happen to a set of two.
fn script(set: &mut Set) -> Result<(), Crashed> {
    let done = |outcome: Result<Outcome, _>| match outcome {
        Ok(outcome) => {
            assert_eq!(outcome, Outcome::Committed);
            Ok(())
        }
        Err(_) => Err(Crashed),
    };
    set.world.add()?;
    set.join()?;
    let World { spare, disk, .. } = &mut set.world;
    assert!(spare.rehost(disk, 0, 1, 1));
    set.world.add()?;
    set.rebuild()?;
    let World { spare, disk, .. } = &mut set.world;
    assert!(spare.rehost(disk, 1, 0, 0));
    set.rebuild()?;
    let World { spare, disk, .. } = &mut set.world;
    done(spare.extend_member(disk, 1, 1))?;
    for _ in 0..3 {
        set.world.add()?;
    }
    for away in 0..2 {
        set.world.disk.at(away).gone = true;
        set.out = Some(away);
        set.world.replace()?;
        set.world.add()?;
        set.world.remove()?;
        set.world.disk.at(away).gone = false;
        set.out = None;
        set.world.spare = match Spare::load(&mut set.world.disk) {
            Ok(spare) => spare,
            Err(Stop::Crash) => return Err(Crashed),
            Err(stop) => panic!("{stop:?} after {:#?}", set.world.log),
        };
        set.world.add()?;
        let World { spare, disk, .. } = &mut set.world;
        done(spare.resync(disk))?;
        set.world.add()?;
    }
    Ok(())
}

/// With a crash at every single write, torn in several ways.
#[test]
fn a_crash_at_every_step() {
    for tear in 0..3 {
        for at in 0.. {
            assert!(at < 1000, "it does not end");
            let mut set = Set::new(7 + (tear << 32), 2);
            set.world.random = Random::new(40 + tear);
            set.world.disk.crash_in = Some(at);
            let ended = script(&mut set).is_ok();
            set.reload();
            if ended {
                assert!(at > 150, "the history is too short: {at} writes");
                assert!(!set.world.spare.metadata.superblock().is_degraded());
                break;
            }
        }
    }
}
