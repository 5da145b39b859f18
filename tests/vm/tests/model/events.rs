// SPDX-License-Identifier: GPL-2.0
//! Everything that happens to the device, its disks and the machine, other than transfers.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fading;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::Status;

use super::World;
use super::MAIN_SECTORS;
use super::NOWHERE;
use super::THREADS;
use crate::history::Time;
use crate::plan::Area;
use crate::plan::Sick;
use crate::plan::Step;
use crate::plan::Which;
use crate::sickness::Excuse;
use crate::sys::Flags;

/// Sectors of a metadata block.
const METADATA_BLOCK: u64 = 8;

/// Who is not answered in that time waits for the spare.
const HUNG: Duration = Duration::from_secs(60);

/// How many slots may seem bad while their spare takes nothing: what fails first, before it is seen that all do.
const SEEM_BAD: u64 = 8;

/// Says so when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl World {
    /// Makes something happen, other than what needs the device for itself.
    pub(crate) fn event(&self, step: Step) {
        let mut book = self.book();
        let begun = book.history.tick();
        let entry = book.log.begin(0, step, begun);
        drop(book);
        let outcome = self.happen(step, begun);
        let mut book = self.book();
        let now = book.history.tick();
        let text = match &outcome {
            Ok(text) => text.clone(),
            Err(error) => error.to_string(),
        };
        book.log.end(entry, now, text.clone());
        let must = match step {
            Step::Say(_) | Step::NoRemapping(_) | Step::Remapping => {
                !book.sickness.excuses_everything(begun, now)
            }
            Step::Suspend { .. } | Step::Reload => true,
            _ => false,
        };
        if must && outcome.is_err() {
            let what = format!("{step:?} failed without reason: {text}");
            self.accuse(book, NOWHERE, &what);
        }
    }

    fn happen(&self, step: Step, begun: Time) -> io::Result<String> {
        let done = || Ok(String::from("done"));
        match step {
            Step::SpoilMain(area, sick) => {
                self.spoil_main(area, sick, begun);
                done()
            }
            Step::HealMain(area) => {
                self.heal_main(area, begun);
                done()
            }
            Step::SpoilSlots(area, sick) => {
                if sick.ailment().reads {
                    self.book().sickness.open(Excuse::SlotReads, begun);
                }
                let place = self.data_start + area.first;
                let mut disk = self.remap.spare.disk();
                disk.spoil(place, area.sectors, sick.fault());
                done()
            }
            Step::Refuse(milliseconds) => {
                let slots = self.data_start..self.data_start + self.shape.slots;
                let spare = || self.remap.spare.disk();
                let sectors = slots.end - slots.start;
                let bad = Fault::bad(Direction::Write);
                let bad_slots = || self.status_word("bad_slots=").parse::<u64>().unwrap_or(0);
                let before = bad_slots();
                spare().spoil(slots.start, sectors, bad);
                std::thread::sleep(Duration::from_millis(milliseconds));
                let lost = bad_slots() - before;
                spare().heal(slots.start, sectors);
                if lost > SEEM_BAD {
                    let what = format!("a spare that takes nothing has {lost} bad slots for that");
                    self.accuse(self.book(), NOWHERE, &what);
                }
                Ok(format!("{lost} slots seem bad"))
            }
            Step::SpoilMetadata(part, sick) => {
                // A place that is in use: it was written before.
                let mut used = self.metadata_written(0);
                used.sort_unstable();
                used.dedup();
                Ok(self.spoil_metadata(used[part as usize % used.len()], sick))
            }
            Step::SpoilMetadataAt(place, sick) => Ok(self.spoil_metadata(place, sick)),
            Step::HealSpare => {
                let mut disk = self.remap.spare.disk();
                let all = disk.sectors();
                disk.heal(0, all);
                drop(disk);
                self.closes(Excuse::SlotReads);
                done()
            }
            Step::Slow(which, area, milliseconds) => {
                let range = self.place(which, area).range();
                let delay = Duration::from_millis(milliseconds);
                self.disk(which).disk().slow(range.clone(), delay);
                std::thread::sleep(3 * delay);
                self.disk(which).disk().slow(range, Duration::ZERO);
                done()
            }
            Step::Hold(which, area, milliseconds) => {
                let range = self.place(which, area).range();
                self.disk(which).disk().hold(range, Direction::Both);
                std::thread::sleep(Duration::from_millis(milliseconds));
                self.disk(which).disk().release();
                done()
            }
            Step::MoveUnderWrites(area, milliseconds) => {
                let delay = Duration::from_millis(milliseconds);
                let main = || self.remap.main.disk();
                main().lag(area.range(), Direction::Write, delay);
                let told = self.during(Step::Write(area, Flags::default()), || {
                    std::thread::sleep(delay / 2);
                    (self.move_away(area), self.move_back(area, begun))
                });
                main().lag(area.range(), Direction::Write, Duration::ZERO);
                Ok(format!("{told:?}"))
            }
            Step::WeakUnderWrites(area, milliseconds) => {
                let delay = Duration::from_millis(milliseconds);
                let main = || self.remap.main.disk();
                // Once for the bio, and once for the block by itself.
                let weak = Sick::Times(Direction::Read, 2);
                self.spoil_main(Area { sectors: 1, ..area }, weak, begun);
                main().lag(area.range(), Direction::Write, delay);
                self.during(Step::Write(area, Flags::default()), || {
                    std::thread::sleep(delay / 2);
                    self.transfer(&mut self.open(), 0, Step::Read(area, Flags::default()));
                    std::thread::sleep(delay);
                });
                main().lag(area.range(), Direction::Write, Duration::ZERO);
                done()
            }
            Step::ReuseUnderReads(from, to, milliseconds) => {
                let delay = Duration::from_millis(milliseconds);
                let spare = || self.remap.spare.disk();
                let slots = self.data_start..self.data_start + self.shape.slots;
                self.heal_main(from, begun);
                let bad = Sick::Bad(Direction::Write, Status::Medium);
                self.spoil_main(to, bad, begun);
                let there = self.move_away(from);
                spare().lag(slots.clone(), Direction::Read, delay);
                let back = self.during(Step::Read(from, Flags::default()), || {
                    std::thread::sleep(delay / 2);
                    let back = self.move_back(from, begun);
                    // A repair takes slots, and waits for nobody.
                    self.transfer(&mut self.open(), 0, Step::Write(to, Flags::default()));
                    back
                });
                spare().lag(slots, Direction::Read, Duration::ZERO);
                Ok(format!("{there:?}, {back:?}"))
            }
            Step::BackOntoFading(area, fading) => self.move_back_onto_fading(area, fading, begun),
            Step::Pattern(number) => {
                self.revive();
                let all = Area {
                    first: 0,
                    sectors: MAIN_SECTORS,
                };
                self.heal_main(all, begun);
                let mut written = all;
                for (bad, at) in self.shape.pattern(MAIN_SECTORS).zip(0..) {
                    let sick = Sick::Bad(Direction::Both, Status::Medium);
                    self.spoil_main(bad, sick, begun);
                    if at == number {
                        written = bad;
                    }
                }
                // One with bad neighbours on either side, if it has two.
                let block = self.shape.block;
                let first = (written.first + written.sectors).saturating_sub(3 * block);
                let sectors = block;
                let area = Area { first, sectors };
                let write = Step::Write(area, Flags::default());
                self.transfer(&mut self.open(), 0, write);
                done()
            }
            Step::ReadWhileSpareHangs(area) => {
                // What was under way may hold blocks that are near.
                let name = self.remap.device().name();
                self.revive();
                self.control.suspend(name, false)?;
                self.control.resume(name)?;
                let bad = Sick::Bad(Direction::Read, Status::Medium);
                self.spoil_main(area, bad, begun);
                let spare = || self.remap.spare.disk();
                let all = 0..spare().sectors();
                spare().hold(all, Direction::Write);
                let read = Step::Read(area, Flags::default());
                let answered = std::thread::scope(|scope| {
                    let reader = scope.spawn(|| self.transfer(&mut self.open(), 0, read));
                    let begun = Instant::now();
                    while !reader.is_finished() && begun.elapsed() < HUNG {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    let answered = reader.is_finished();
                    spare().release();
                    reader.join().expect("the read");
                    answered
                });
                if !answered {
                    let what = format!("a read of {area:?} waits for a spare that takes no writes");
                    self.accuse(self.book(), area, &what);
                }
                done()
            }
            Step::MoveMany(area) => {
                self.revive();
                let block = self.shape.block;
                let _ = self.move_away(Area {
                    sectors: block,
                    ..area
                });
                let slots = self.data_start..self.data_start + self.shape.slots;
                // Some of those that come next.
                let next = self.remap.slot_of(area.first).unwrap_or(slots.start);
                for number in 0..12 {
                    let slot = next + (1 + 40 * number) * block;
                    if slots.contains(&slot) {
                        let fault = Fault::bad(Direction::Write);
                        self.remap.spare.disk().spoil(slot, block, fault);
                    }
                }
                let bad = Sick::Bad(Direction::Write, Status::Medium);
                self.spoil_main(area, bad, begun);
                let write = Step::Write(area, Flags::default());
                self.transfer(&mut self.open(), 0, write);
                done()
            }
            Step::FailFlush(which, times) => {
                let mut book = self.book();
                book.sickness.open(Excuse::Flush, begun);
                book.sickness.open(Excuse::Latched, begun);
                drop(book);
                let mut disk = self.disk(which).disk();
                disk.fail_flushes_and_forget(Status::Io, times);
                done()
            }
            Step::Die(which, status) => {
                self.expect_death(begun);
                self.disk(which).disk().die(status, Direction::Both);
                done()
            }
            Step::DieAfter(which, writes, status) => {
                self.expect_death(begun);
                self.disk(which).disk().die_after(writes, status);
                done()
            }
            Step::Revive => {
                self.revive();
                done()
            }
            Step::Remap(area) => self.move_away(area),
            Step::RemoveRemap(area) => self.move_back(area, begun),
            Step::ClearAll => self.move_all_back(begun),
            Step::NoRemapping(milliseconds) => {
                self.book().sickness.open(Excuse::NoRemapping, begun);
                let answer = self.say("set_auto_remap 0")?;
                if self.shape.alone {
                    return Ok(answer);
                }
                std::thread::sleep(Duration::from_millis(milliseconds));
                self.remapping()
            }
            Step::Remapping => self.remapping(),
            Step::Say(words) => self.say(words),
            Step::Suspend {
                noflush,
                milliseconds,
            } => {
                let name = self.remap.device().name();
                self.control.suspend(name, noflush)?;
                std::thread::sleep(Duration::from_millis(milliseconds));
                self.control.resume(name).map(|()| "resumed".into())
            }
            Step::Reload => {
                let device = self.remap.device();
                let refused = |refusal| io::Error::other(format!("{refusal:?}"));
                device.load(&self.remap.line()).map_err(refused)?;
                self.control
                    .resume(device.name())
                    .map(|()| "resumed".into())
            }
            Step::Wait(milliseconds) => {
                std::thread::sleep(Duration::from_millis(milliseconds));
                done()
            }
            _ => unreachable!("{step:?} is no event"),
        }
    }

    /// Where the spare's metadata was written, from this entry of its record on.
    pub(super) fn metadata_written(&self, from: usize) -> Vec<u64> {
        let disk = self.remap.spare.disk();
        let slots = self.data_start..self.data_start + self.shape.slots;
        let entries = disk.record().entries().iter().skip(from);
        entries
            .filter(|entry| entry.operation == Operation::Write && entry.error.is_none())
            .filter(|entry| entry.fua && !slots.contains(&entry.sector))
            .map(|entry| entry.sector)
            .collect()
    }

    /// Spoils a block of metadata: one at a time, and only while there are two of everything.
    fn spoil_metadata(&self, place: u64, sick: Sick) -> String {
        let superblocks = if self.shape.two_spares { "8" } else { "4" };
        let whole =
            self.status_word("replicas=") == "2" && self.status_word("superblocks=") == superblocks;
        if !whole {
            return "not now".into();
        }
        let mut disk = self.remap.spare.disk();
        let before = self.metadata_spoilt.swap(place, Ordering::Relaxed);
        disk.heal(before, METADATA_BLOCK);
        disk.spoil(place, METADATA_BLOCK, sick.fault());
        format!("sector {place}")
    }

    /// Main has nothing of what is moved back while it fades: whatever becomes of that, all that could be read
    /// before can be read.
    fn move_back_onto_fading(&self, area: Area, fading: Fading, begun: Time) -> io::Result<String> {
        let mut device = self.open();
        let flags = Flags::default();
        self.heal_main(area, begun);
        let there = self.move_away(area);
        let could_be_read = device.read(area.first, area.sectors, flags).is_ok();
        self.spoil_main(area, Sick::Fading(fading), begun);
        let back = self.move_back(area, begun);
        let answer = device.read(area.first, area.sectors, flags).map(drop);
        let mut book = self.book();
        let now = book.history.tick();
        let excused = book.sickness.excuses_everything(begun, now)
            || book.sickness.held(Excuse::SlotReads, begun, now);
        if let (Err(error), true, false) = (answer, could_be_read, excused) {
            let what = format!("{area:?} could be read before it was moved back: {error}");
            self.accuse(book, area, &what);
        }
        drop(book);
        self.transfer(&mut device, 0, Step::Read(area, flags));
        self.heal_main(area, begun);
        self.transfer(&mut device, 0, Step::Read(area, flags));
        Ok(format!("{there:?}, {back:?}"))
    }

    /// Where an area of main is on a disk; of the spare, slots are meant.
    fn place(&self, which: Which, area: Area) -> Area {
        match which {
            Which::Main => area,
            Which::Spare => Area {
                first: self.data_start + area.first % self.shape.slots,
                sectors: area.sectors,
            },
        }
    }

    fn spoil_main(&self, area: Area, sick: Sick, begun: Time) {
        if self.remap.main.disk().spoilt() as u64 + area.sectors > self.shape.bad {
            let half = Area {
                first: 0,
                sectors: self.shape.area / 2,
            };
            self.heal_main(half, begun);
        }
        let mut book = self.book();
        let now = book.history.tick();
        book.sickness.begins(area.range(), sick.ailment(), now);
        let mut disk = self.remap.main.disk();
        disk.spoil(area.first, area.sectors, sick.fault());
        drop(disk);
        let now = book.history.tick();
        book.sickness.began(area.range(), now);
    }

    fn heal_main(&self, area: Area, begun: Time) {
        let mut book = self.book();
        book.sickness.heals(area.range(), begun);
        self.remap.main.disk().heal(area.first, area.sectors);
        let now = book.history.tick();
        book.sickness.healed(area.range(), now);
    }

    /// Does something while another thread does the same transfer again and again.
    fn during<R>(&self, step: Step, act: impl FnOnce() -> R) -> R {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let again = scope.spawn(|| {
                let mut device = self.open();
                while !over.load(Ordering::Relaxed) {
                    self.transfer(&mut device, THREADS + 1, step);
                }
            });
            // Also when it ends in a panic.
            let until = Over(&over);
            let result = act();
            drop(until);
            again.join().expect("the transfers meanwhile");
            result
        })
    }

    fn expect_death(&self, begun: Time) {
        let mut book = self.book();
        for excuse in [Excuse::Dead, Excuse::Latched, Excuse::Breaker] {
            book.sickness.open(excuse, begun);
        }
    }

    fn move_away(&self, area: Area) -> io::Result<String> {
        self.book().sickness.touch(area.range());
        self.say(&format!("remap {} {}", area.first, area.sectors))
    }

    fn move_back(&self, area: Area, begun: Time) -> io::Result<String> {
        let words = format!("remove_remap {} {}", area.first, area.sectors);
        self.moves_back(area, &words, begun)
    }

    fn move_all_back(&self, begun: Time) -> io::Result<String> {
        let all = Area {
            first: 0,
            sectors: MAIN_SECTORS,
        };
        self.moves_back(all, "clear_all", begun)
    }

    fn moves_back(&self, area: Area, words: &str, begun: Time) -> io::Result<String> {
        let mut book = self.book();
        book.sickness.open(Excuse::Removal, begun);
        book.sickness.moves_back(area.range());
        drop(book);
        let answer = self.say(words);
        let mut book = self.book();
        let now = book.history.tick();
        book.sickness.moved_back(area.range(), now);
        book.sickness.close(Excuse::Removal, now);
        answer
    }

    /// Switches automatic remapping on. What could not be recorded is off again when the device is used anew.
    fn remapping(&self) -> io::Result<String> {
        let answer = self.say("set_auto_remap 1")?;
        if !answer.contains("could not be recorded") {
            self.closes(Excuse::NoRemapping);
        }
        Ok(answer)
    }

    fn closes(&self, excuse: Excuse) {
        let mut book = self.book();
        let now = book.history.tick();
        book.sickness.close(excuse, now);
    }

    pub(super) fn revive(&self) {
        for which in [Which::Main, Which::Spare] {
            self.disk(which).disk().revive();
        }
        self.closes(Excuse::Dead);
    }

    /// Notes which consequences of what was done are over. Only where nothing else happens.
    pub(super) fn look_what_is_over(&self) {
        let armed = [Which::Main, Which::Spare]
            .iter()
            .any(|which| self.disk(*which).disk().flushes_to_fail() != 0);
        if !armed {
            self.closes(Excuse::Flush);
        }
        let book = self.book();
        let asks = book.sickness.is_open(Excuse::Breaker) && !book.sickness.is_open(Excuse::Dead);
        drop(book);
        if asks && self.status_word("breaker=") == "none" {
            self.closes(Excuse::Breaker);
        }
    }

    /// Makes the device anew, with or without a power cut. Nobody uses it.
    pub(crate) fn again(&mut self, step: Step) {
        let mut book = self.book();
        let begun = book.history.tick();
        let entry = book.log.begin(0, step, begun);
        if book.sickness.is_open(Excuse::Latched) {
            // Whoever had to be told of a flush that failed is not there any more.
            book.history.flushed(begun, false);
        }
        let troubled = [Excuse::Dead, Excuse::Latched, Excuse::Breaker]
            .into_iter()
            .any(|excuse| book.sickness.is_open(excuse));
        drop(book);
        if !matches!(step, Step::Cut(_)) {
            self.revive();
        }
        if step == Step::Recreate {
            // Weak blocks are moved when nobody waits for that any more; a suspend does.
            let name = self.remap.device().name();
            let suspended = self.control.suspend(name, false);
            suspended.unwrap_or_else(|error| panic!("{}: suspend: {error}", self.title));
        }
        let slots = self.slots();
        for which in [Which::Main, Which::Spare] {
            self.disk(which).disk().fail_flushes(Status::Io, 0);
        }
        match step {
            Step::Cut(how) => {
                if let Some(disk) = &self.second {
                    disk.disk().die(Status::Offline, Direction::Both);
                }
                self.remap.power_off();
                self.book().history.power_cut();
                if let Some(disk) = &self.second {
                    let mut disk = disk.disk();
                    disk.revive();
                    disk.power_cut(how).expect("cut the power");
                }
                self.remap.power_on(how);
                self.closes(Excuse::Dead);
            }
            _ => self.remap.deactivate(),
        }
        let refused = self.remap.try_activate().err();
        let mut book = self.book();
        let now = book.history.tick();
        for over in [Excuse::Flush, Excuse::Latched, Excuse::Breaker] {
            book.sickness.close(over, now);
        }
        // What users said by message is gone with the device.
        book.sickness.close(Excuse::NoRemapping, now);
        match refused {
            None => {
                book.log.end(entry, now, "done".into());
                drop(book);
                let again = self.slots();
                let same = match step {
                    Step::Cut(_) => again.remapped >= slots.remapped,
                    _ => again == slots,
                };
                if !troubled && !same {
                    let what = format!("there were {slots:?}, and after {step:?} {again:?}");
                    self.accuse(self.book(), NOWHERE, &what);
                }
            }
            Some(refusal) => {
                let told = book.log.tell(NOWHERE);
                panic!("{}: it does not come back: {refusal:?}\n{told}", self.title);
            }
        }
    }
}
