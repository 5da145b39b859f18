// SPDX-License-Identifier: GPL-2.0
//! Each metadata block with each fault, before the device is made and while it is in use.
//!
//! Every case goes on after the fault: blocks are remapped, the device is removed and made again.
//! Then there must be two good copies of everything again: the proof is to take the other copy away.

use std::fmt;
use std::time::Instant;

use super::bad;
use super::bench::need;
use super::bench::Bench;
use super::bench::Check;
use super::bench::Saved;
use super::image;
use super::unreadable;
use super::unwritable;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::thorough;
use vmtest::guest::Refusal;
use vmtest::guest::Uevent;
use vmtest::guest::Uevents;

/// The kinds of metadata blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A superblock copy.
    Super(u8),
    /// The table block that is written again and again, of this replica.
    Table(u8),
    /// The same, where it is in a reserve block.
    Moved(u8),
    /// A table block that is never written after it was initialised.
    Idle(u8),
}

/// What may happen to one of its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// Unreadable, until it is written.
    Lost,
    /// Unreadable, and takes writes as if it were not.
    Unreadable,
    /// Takes no writes.
    Unwritable,
    /// Neither.
    Dead,
    /// One bit is another.
    Rotten,
    /// A good block that belongs somewhere else.
    Misdirected,
    /// A good block of earlier times.
    Stale,
    /// A write that got half way.
    Torn,
    /// Zeroes.
    Zeroed,
}

const DAMAGES: [Damage; 9] = [
    Damage::Lost,
    Damage::Unreadable,
    Damage::Unwritable,
    Damage::Dead,
    Damage::Rotten,
    Damage::Misdirected,
    Damage::Stale,
    Damage::Torn,
    Damage::Zeroed,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Inactive,
    InUse,
}

/// One fault.
#[derive(Clone, Copy)]
struct Case {
    place: Place,
    damage: Damage,
    moment: Moment,
    /// The sector of the block that is hit.
    sector: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            place,
            damage,
            moment,
            sector,
        } = self;
        write!(f, "{place:?} {damage:?} {moment:?}, sector {sector}")
    }
}

impl Case {
    /// Whether the block can be made good where it is.
    fn is_curable(&self) -> bool {
        use Damage::*;
        !matches!(self.damage, Unreadable | Unwritable | Dead)
    }

    /// Whether anybody can notice: the module does not read what it is about to overwrite, but for the
    /// second replica's block before a commit, and does not write what is in order.
    fn is_noticed(&self) -> bool {
        let persists = !self.is_curable();
        match (self.place, self.moment) {
            (Place::Idle(_), _) => self.damage != Damage::Unwritable,
            (_, Moment::Inactive) => true,
            (Place::Super(_) | Place::Table(0) | Place::Moved(0), _) => persists,
            _ => self.damage != Damage::Stale,
        }
    }

    /// How many superblock copies are left: there is no other place for one.
    fn supers(&self) -> usize {
        match self.place {
            Place::Super(_) if !self.is_curable() => 3,
            _ => 4,
        }
    }
}

/// The states that cases begin with.
struct Start {
    /// The spare as it is to be damaged, and how it was some time before.
    home: (Saved, Saved),
    /// The same, with the block of replica 0, or of replica 1, in a reserve block.
    moved: [(Saved, Saved); 2],
}

impl Start {
    fn of(&self, place: Place) -> &(Saved, Saved) {
        match place {
            Place::Moved(replica) => &self.moved[usize::from(replica)],
            _ => &self.home,
        }
    }
}

/// Makes the states that cases begin with.
fn prepare(bench: &mut Bench) -> Start {
    let grow = |bench: &mut Bench, offset| {
        bench.write(offset, 4, 1).unwrap();
        bench.remap.deactivate();
        bench.save()
    };
    let older = grow(bench, 0);
    bench.activate().unwrap();
    let home = (grow(bench, 10), older);
    let moved = [0, 1].map(|replica| {
        bench.restore(&home.0);
        let spare = &bench.remap.spare;
        let superblock = image::superblock(spare);
        let block = image::home_sector(&superblock, replica, 0);
        spare.disk().spoil(block, 8, unwritable());
        bench.activate().unwrap();
        let older = grow(bench, 20);
        let spare = &bench.remap.spare;
        assert!(image::is_moved(&image::superblock(spare), replica, 0));
        // It is written well again, and what can be read there is old.
        spare.disk().heal(block, 8);
        bench.activate().unwrap();
        (grow(bench, 30), older)
    });
    Start { home, moved }
}

/// Where the block is, of the spare as it is.
fn sector_of(spare: &SickDisk, place: Place) -> u64 {
    let superblock = image::superblock(spare);
    match place {
        Place::Super(copy) => image::super_sector(spare, copy),
        Place::Table(replica) | Place::Moved(replica) => {
            image::table_sector(&superblock, replica, 0)
        }
        Place::Idle(replica) => image::table_sector(&superblock, replica, idle_block(spare)),
    }
}

fn idle_block(spare: &SickDisk) -> u32 {
    image::high_water(&image::superblock(spare)) - 1
}

/// A good block of earlier times for a place.
fn stale(spare: &SickDisk, place: Place, sector: u64, older: &Saved) -> [u8; 4096] {
    let block = match place {
        Place::Idle(replica) => {
            let superblock = image::superblock(spare);
            let block = idle_block(spare);
            let mut table = image::table(spare, &superblock, replica, block);
            table.sequence -= 1;
            image::encode_table(&superblock, block, &table)
        }
        _ => older.block(sector),
    };
    assert!(block != image::peek(spare, sector), "nothing has changed");
    block
}

/// A good block that belongs somewhere else.
fn misdirected(spare: &SickDisk, place: Place) -> [u8; 4096] {
    let other = match place {
        Place::Super(copy) => Place::Super((copy + 1) % 4),
        Place::Table(replica) | Place::Moved(replica) => Place::Idle(replica),
        Place::Idle(replica) => Place::Table(replica),
    };
    image::peek(spare, sector_of(spare, other))
}

/// What might be written over a block next, and how much of it a torn write writes: what follows
/// differs, too.
fn next_version(spare: &SickDisk, case: &Case) -> ([u8; 4096], usize) {
    let superblock = image::superblock(spare);
    let (replica, number) = match case.place {
        Place::Super(copy) => return (image::next_super(&superblock, copy), 512),
        Place::Table(replica) | Place::Moved(replica) => (replica, 0),
        Place::Idle(replica) => (replica, idle_block(spare)),
    };
    let mut table = image::table(spare, &superblock, replica, number);
    table.sequence += 1;
    for entry in &mut table.entries {
        entry.generation += 1;
    }
    let next = image::encode_table(&superblock, number, &table);
    (next, (case.sector as usize % 7 + 1) * 512)
}

/// Does the damage.
fn hurt(spare: &SickDisk, case: &Case, older: &Saved) {
    let sector = sector_of(spare, case.place);
    let spoil = |fault| spare.disk().spoil(sector + case.sector, 1, fault);
    let mut block = image::peek(spare, sector);
    let at = case.sector as usize * 512;
    match case.damage {
        Damage::Lost => return spoil(Fault::until_written()),
        Damage::Unreadable => return spoil(unreadable()),
        Damage::Unwritable => return spoil(unwritable()),
        Damage::Dead => return spoil(bad()),
        Damage::Rotten => block[at + 40] ^= 1 << case.sector,
        Damage::Misdirected => block = misdirected(spare, case.place),
        Damage::Stale => block = stale(spare, case.place, sector, older),
        Damage::Torn => {
            let (next, end) = next_version(spare, case);
            block[..end].copy_from_slice(&next[..end]);
        }
        Damage::Zeroed => block = [0; 4096],
    }
    assert!(block != image::peek(spare, sector), "{case}: no damage");
    image::poke(spare, sector, &block);
}

/// Takes all other copies of the block away.
fn hurt_others(spare: &SickDisk, place: Place, supers: usize) {
    let superblock = image::superblock(spare);
    let others: Vec<u64> = match place {
        Place::Super(copy) => {
            let live = image::live_supers(&superblock);
            let mut others: Vec<u8> = live.into_iter().filter(|other| *other != copy).collect();
            if supers < 4 {
                // One that could not be repaired: any of those that are left may go.
                others.truncate(1);
            }
            let sector = |copy: u8| image::super_sector(spare, copy);
            others.into_iter().map(sector).collect()
        }
        Place::Table(replica) | Place::Moved(replica) => {
            vec![image::table_sector(&superblock, 1 - replica, 0)]
        }
        Place::Idle(replica) => {
            let block = idle_block(spare);
            vec![image::table_sector(&superblock, 1 - replica, block)]
        }
    };
    for sector in others {
        spare.disk().spoil(sector, 8, bad());
    }
}

/// One case, from an inactive bench to an inactive bench.
fn survive(bench: &mut Bench, case: &Case, older: &Saved) -> Check {
    let mut told = 0;
    let uevents = Uevents::listen();
    if case.moment == Moment::InUse {
        bench.activate()?;
        need(bench.device().events() == 0, || {
            "an event for nothing".into()
        })?;
    }
    hurt(&bench.remap.spare, case, older);
    if case.moment == Moment::Inactive {
        bench.activate()?;
    }
    bench.check_content()?;
    bench.write(100, 4, 2)?;
    save(bench)?;
    bench.check_content()?;
    // What is told in the background is told before a suspend ends.
    bench
        .device()
        .suspend()
        .map_err(|error| format!("suspend: {error:?}"))?;
    bench
        .device()
        .resume()
        .map_err(|error| format!("resume: {error:?}"))?;
    told += events(
        &uevents,
        case.is_noticed() && case.moment == Moment::Inactive,
    );

    bench.remap.deactivate();
    bench.activate()?;
    bench.check_content()?;
    bench.check_redundancy(case.supers())?;
    check_status(bench, case)?;
    told += events(&uevents, case.is_noticed() && told == 0);
    need((told != 0) == case.is_noticed(), || {
        format!("{told} events, noticed: {}", case.is_noticed())
    })?;
    bench.remap.deactivate();

    hurt_others(&bench.remap.spare, case.place, case.supers());
    let again = bench.activate().and_then(|()| bench.check_content());
    again.map_err(|what| format!("without the other copies: {what}"))?;
    bench.write(110, 4, 3).or_else(|what| {
        // With one superblock copy left, there is nothing to be changed.
        match case.place {
            Place::Super(_) if case.is_curable() => Ok(()),
            _ => Err(what),
        }
    })?;
    bench.remap.deactivate();
    Ok(())
}

/// How many events there were about metadata. They come in the background: one that is `due` is waited for.
fn events(uevents: &Uevents, due: bool) -> u64 {
    let about = ["metadata_failed", "degraded", "repaired", "restored"];
    let count = |uevent: &Uevent| about.iter().map(|event| uevent.count(event)).sum::<u64>();
    let mut told = 0;
    let mut is_told = || {
        told += uevents.come().iter().map(count).sum::<u64>();
        told != 0
    };
    if !is_told() && due {
        eventually(is_told);
    }
    told
}

/// Has the superblock written.
fn save(bench: &Bench) -> Check {
    let saved = bench.device().message("save");
    saved
        .map(drop)
        .map_err(|Refusal { error, reason }| format!("save: {error}: {reason}"))
}

/// Checks what users are told.
fn check_status(bench: &Bench, case: &Case) -> Check {
    let status = bench.device().status();
    let (metadata, condition) = match case.supers() {
        4 => ("metadata=enabled", "condition=good"),
        _ => ("metadata=degraded", "condition=degraded"),
    };
    let supers = format!("superblocks={}", case.supers());
    for word in [metadata, condition, &supers, "replicas=2"] {
        need(status.split_whitespace().any(|found| found == word), || {
            format!("no {word} in {status}")
        })?;
    }
    // Preparing a moved block was a repair, too.
    let before = u64::from(matches!(case.place, Place::Moved(_)));
    let repairs = bench.number("metadata_repairs");
    need((repairs > before) == case.is_noticed(), || {
        format!("metadata_repairs={repairs}, noticed: {}", case.is_noticed())
    })
}

/// The places of the same kind: superblock copies, or the replicas of one block.
const KINDS: [&[Place]; 4] = [
    &[
        Place::Super(0),
        Place::Super(1),
        Place::Super(2),
        Place::Super(3),
    ],
    &[Place::Table(0), Place::Table(1)],
    &[Place::Moved(0), Place::Moved(1)],
    &[Place::Idle(0), Place::Idle(1)],
];

/// The faults to be tried: each combination of a kind of place with everything that may happen there, and whenever, at
/// one of the places and in one sector of it, by turns; or at all places and in all sectors, if that is wanted.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut number = 0;
    for places in KINDS {
        for (turn, damage) in DAMAGES.into_iter().enumerate() {
            for moment in [Moment::Inactive, Moment::InUse] {
                // Each place has both moments, with as many damages.
                let chosen = (turn + moment as usize) % places.len();
                for (at, &place) in places.iter().enumerate() {
                    let sectors = match damage {
                        _ if at != chosen && !thorough() => 0..0,
                        Damage::Misdirected | Damage::Stale | Damage::Zeroed => 0..1,
                        _ if thorough() => 0..8,
                        _ => number % 7..number % 7 + 1,
                    };
                    cases.extend(sectors.map(|sector| Case {
                        place,
                        damage,
                        moment,
                        sector,
                    }));
                }
                number += 1;
            }
        }
    }
    cases
}

/// P4, M1, M3: whatever happens to a metadata block, and whenever: nothing is lost, there are two good
/// copies again, the status and an event tell.
#[test]
fn any_fault_of_any_metadata_block_is_survived() {
    let _test = vmtest::begin!();
    let mut bench = Bench::new();
    let start = prepare(&mut bench);
    let cases = cases();
    let begun = Instant::now();
    let mut failed = Vec::new();
    for case in &cases {
        let (state, older) = start.of(case.place);
        bench.restore(state);
        if let Err(what) = survive(&mut bench, case, older) {
            println!("{case}: {what}");
            failed.push(format!("{case}: {what}"));
            bench.remap.give_up();
        }
    }
    super::say(&format!(
        "faults of metadata sectors: {} tried, {} survived, in {:?}",
        cases.len(),
        cases.len() - failed.len(),
        begun.elapsed()
    ));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
