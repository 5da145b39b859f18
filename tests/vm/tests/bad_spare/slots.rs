// SPDX-License-Identifier: GPL-2.0
//! Each state of a slot with each fault of its sector.

use std::fmt;

use super::bad;
use super::bench::check_sector;
use super::bench::need;
use super::bench::Bench;
use super::bench::Check;
use super::bench::Saved;
use super::bench::WORN;
use super::unreadable;
use super::unwritable;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::thorough;
use vmtest::guest::Direct;

/// What the slot is used for when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing; the next block gets it.
    Free,
    /// A block.
    Valid,
    /// The next write of a block that main cannot read.
    Pending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// Unreadable, until it is written.
    Lost,
    /// Unreadable, and takes writes as if it were not.
    Unreadable,
    /// Can be read at the third try.
    Weak,
    /// Takes no writes.
    Unwritable,
    /// Takes no writes once, for whatever reason.
    Startled,
    /// Neither.
    Dead,
}

const DAMAGES: [Damage; 6] = [
    Damage::Lost,
    Damage::Unreadable,
    Damage::Weak,
    Damage::Unwritable,
    Damage::Startled,
    Damage::Dead,
];

/// What comes after the block was written again.
#[derive(Clone, Copy, Debug)]
enum Next {
    Removal,
    PowerCut,
}

#[derive(Clone, Copy)]
struct Case {
    state: State,
    damage: Damage,
    status: Status,
    next: Next,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            state,
            damage,
            status,
            next,
        } = self;
        write!(f, "{state:?} {damage:?} ({status:?}), then {next:?}")
    }
}

impl Case {
    fn fault(&self) -> Fault {
        let fault = match self.damage {
            Damage::Lost => Fault::until_written(),
            Damage::Unreadable => unreadable(),
            Damage::Weak => unreadable().times(2),
            Damage::Unwritable => unwritable(),
            Damage::Startled => unwritable().times(1),
            Damage::Dead => bad(),
        };
        fault.status(self.status)
    }

    /// Whether what is on the slot when it fails is gone.
    fn loses(&self) -> bool {
        use Damage::*;
        self.state == State::Valid && matches!(self.damage, Lost | Unreadable | Dead)
    }

    /// Whether the slot cannot be used any more.
    fn is_for_ever(&self) -> bool {
        use Damage::*;
        matches!(self.damage, Unreadable | Unwritable | Dead)
    }
}

/// A sector that main can be written at.
const PENDING: u64 = 500;

/// Sets the slot up. Returns the sector of main, and where the slot is.
fn victim(bench: &Bench, state: State) -> Result<(u64, u64), String> {
    let slot = |sector| bench.remap.slot_of(sector).ok_or("no slot");
    match state {
        State::Valid => Ok((WORN + 1, slot(WORN + 1)?)),
        // Slots are given out in order.
        State::Free => Ok((WORN + 100, slot(WORN + 3)? + 1)),
        State::Pending => {
            bench.remap.main.disk().spoil(PENDING, 1, unreadable());
            let read = bench.remap.open().read(PENDING, 1);
            need(read.is_err(), || "main could be read".into())?;
            let told = bench.device().message(&format!("verify {PENDING}"));
            let told = told.map_err(|refusal| format!("{refusal:?}"))?;
            let place = told
                .split_once("next write to spare sector ")
                .and_then(|(_, rest)| rest.split_whitespace().next())
                .and_then(|word| word.parse().ok());
            Ok((PENDING, place.ok_or(told)?))
        }
    }
}

/// What the others of `WORN..WORN + 4` hold.
fn check_others(device: &Direct, sector: u64) -> Check {
    let mut others = (WORN..WORN + 4).filter(|other| *other != sector);
    others.try_for_each(|other| check_sector(device, other, 1))
}

fn survive(bench: &mut Bench, case: &Case) -> Check {
    bench.activate()?;
    let (sector, slot) = victim(bench, case.state)?;
    bench.remap.spare.disk().spoil(slot, 1, case.fault());
    let device = bench.remap.open();
    if case.state == State::Valid {
        for _ in 0..2 {
            let read = check_sector(&device, sector, 1);
            need(read.is_err() == case.loses(), || format!("read: {read:?}"))?;
            check_others(&device, sector)?;
        }
    }
    let write = |generation| {
        device
            .write(sector, &stamps(sector, 1, generation))
            .map_err(|error| format!("write: {error}"))
    };
    write(2)?;
    let mut last = 2;
    if case.damage == Damage::Unreadable && case.state != State::Valid {
        // Nobody could know; but the error is honest, and the next write is safe.
        let error = device.read(sector, 1).map(drop).unwrap_err();
        need(error.raw_os_error() == Some(case.status.errno()), || {
            format!("{error}")
        })?;
        write(3)?;
        last = 3;
    }
    check_sector(&device, sector, last)?;
    check_others(&device, sector)?;
    // What stays where it is needs it.
    device.flush().map_err(|error| format!("flush: {error}"))?;
    drop(device);
    let moved = bench.remap.slot_of(sector) != Some(slot);
    need(moved || !case.is_for_ever(), || "it was not moved".into())?;
    let marked = u64::from(case.is_for_ever());
    let bad_slots = bench.number("bad_slots");
    let may_be_marked = case.damage == Damage::Lost && bad_slots == 1;
    need(bad_slots == marked || may_be_marked, || {
        format!("{bad_slots} slots are marked")
    })?;
    let condition = bench.device().status_value("condition");
    let expected = if bad_slots == 0 { "good" } else { "degraded" };
    need(condition.as_deref() == Some(expected), || {
        bench.device().status()
    })?;

    match case.next {
        Next::Removal => bench.remap.reactivate(),
        Next::PowerCut => bench.remap.power_cut(PowerCut::Drop),
    }
    let device = bench.remap.open();
    check_sector(&device, sector, last)?;
    check_others(&device, sector)?;
    need(bench.number("bad_slots") == bad_slots, || {
        "the mark is lost".into()
    })?;
    // Nobody gets it again, and nothing else is in its place.
    for other in WORN + 200..WORN + 208 {
        let written = device.write(other, &stamps(other, 1, 4));
        written.map_err(|error| format!("another block: {error}"))?;
        check_sector(&device, other, 4)?;
        let same = bench.remap.slot_of(other) == Some(slot);
        need(!same || bad_slots == 0, || {
            "a bad slot was given out".into()
        })?;
    }
    drop(device);
    bench.remap.deactivate();
    Ok(())
}

fn with_remaps() -> (Bench, Saved) {
    let mut bench = Bench::new();
    bench.write(0, 4, 1).unwrap();
    // What slots are expected to be given out.
    let (sector, slot) = victim(&bench, State::Free).unwrap();
    bench.remap.deactivate();
    let saved = bench.save();
    bench.activate().unwrap();
    bench.write(sector - WORN, 1, 1).unwrap();
    assert_eq!(bench.remap.slot_of(sector), Some(slot));
    bench.remap.deactivate();
    (bench, saved)
}

/// P4: a slot that fails costs at most what is on it, which is an error until it is written again; and
/// then it is safe, wherever.
#[test]
fn any_fault_of_any_slot_is_survived() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    let mut failed = Vec::new();
    let mut tried = 0;
    for state in [State::Free, State::Valid, State::Pending] {
        for damage in DAMAGES {
            for status in [Status::Medium, Status::Io] {
                // By turns, if it is to be a sample.
                let nexts = match tried % 3 {
                    _ if thorough() => &[Next::Removal, Next::PowerCut][..],
                    0 => &[Next::Removal],
                    _ => &[Next::PowerCut],
                };
                for next in nexts {
                    let case = Case {
                        state,
                        damage,
                        status,
                        next: *next,
                    };
                    bench.restore(&saved);
                    bench.remap.main.disk().heal(PENDING, 1);
                    tried += 1;
                    if let Err(what) = survive(&mut bench, &case) {
                        println!("{case}: {what}");
                        failed.push(format!("{case}: {what}"));
                        bench.remap.give_up();
                    }
                }
            }
        }
    }
    super::say(&format!(
        "faults of slots: {tried} tried, {} survived",
        tried - failed.len()
    ));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// P2, P4: a block whose slot cannot be read stays where it is, an error: main has something older. So it
/// is with `remove_remap` and `clear_all`, and after an activation; until it is written.
#[test]
fn an_unreadable_slot_is_not_moved_back() {
    let _test = vmtest::begin!();
    let (mut bench, saved) = with_remaps();
    for message in [
        format!("remove_remap {} 4", WORN),
        format!("remove_remap {}", WORN + 1),
        "clear_all".to_string(),
    ] {
        bench.restore(&saved);
        bench.activate().unwrap();
        let sectors = bench.remap.main.disk().sectors();
        bench.remap.main.disk().heal(0, sectors);
        let slot = bench.remap.slot_of(WORN + 1).expect("a slot");
        bench.remap.spare.disk().spoil(slot, 1, unreadable());
        let _ = bench.device().message(&message);
        for _ in 0..2 {
            let device = bench.remap.open();
            assert!(device.read(WORN + 1, 1).is_err(), "{message}");
            check_others(&device, WORN + 1).unwrap();
            assert_eq!(bench.remap.slot_of(WORN + 1), Some(slot), "{message}");
            drop(device);
            bench.remap.reactivate();
        }
        let device = bench.remap.open();
        device.write(WORN + 1, &stamps(WORN + 1, 1, 2)).unwrap();
        drop(device);
        // After an activation, nobody knew; the write is tried where it is.
        if bench.remap.open().read(WORN + 1, 1).is_err() {
            let device = bench.remap.open();
            device.write(WORN + 1, &stamps(WORN + 1, 1, 2)).unwrap();
        }
        bench.device().message("clear_all").unwrap();
        assert_eq!(bench.device().remapped(), 0, "{message}");
        for _ in 0..2 {
            let device = bench.remap.open();
            check_sector(&device, WORN + 1, 2).unwrap();
            check_others(&device, WORN + 1).unwrap();
            drop(device);
            bench.remap.reactivate();
        }
        bench.remap.deactivate();
    }
}
