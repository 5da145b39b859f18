// SPDX-License-Identifier: GPL-2.0
//! Everything that happens to the device, its disks and the machine, other than transfers.

use std::io;
use std::time::Duration;

use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Status;

use super::World;
use super::MAIN_SECTORS;
use crate::history::Time;
use crate::plan::Area;
use crate::plan::Sick;
use crate::plan::Step;
use crate::plan::Which;
use crate::sickness::Excuse;

impl World {
    /// Makes something happen, other than what needs the device for itself.
    pub fn event(&self, step: Step) {
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
            let nowhere = Area {
                first: 0,
                sectors: 0,
            };
            let what = format!("{step:?} failed without reason: {text}");
            self.accuse(book, nowhere, &what);
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
                let mut book = self.book();
                book.sickness.open(Excuse::Dead, begun);
                book.sickness.open(Excuse::Latched, begun);
                book.sickness.open(Excuse::Breaker, begun);
                drop(book);
                self.disk(which).disk().die(status, Direction::Both);
                done()
            }
            Step::Revive => {
                self.revive();
                done()
            }
            Step::Remap(area) => {
                self.book().sickness.touch(area.range());
                self.say(&format!("remap {} {}", area.first, area.sectors))
            }
            Step::RemoveRemap(area) => {
                let words = format!("remove_remap {} {}", area.first, area.sectors);
                self.move_back(area, &words, begun)
            }
            Step::ClearAll => {
                let all = Area {
                    first: 0,
                    sectors: MAIN_SECTORS,
                };
                self.move_back(all, "clear_all", begun)
            }
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

    fn move_back(&self, area: Area, words: &str, begun: Time) -> io::Result<String> {
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

    fn remapping(&self) -> io::Result<String> {
        let answer = self.say("set_auto_remap 1")?;
        self.closes(Excuse::NoRemapping);
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
    pub fn again(&mut self, step: Step) {
        let mut book = self.book();
        let begun = book.history.tick();
        let entry = book.log.begin(0, step, begun);
        if book.sickness.is_open(Excuse::Latched) {
            // Whoever had to be told of a flush that failed is not there any more.
            book.history.flushed(begun, false);
        }
        drop(book);
        self.revive();
        for which in [Which::Main, Which::Spare] {
            self.disk(which).disk().fail_flushes(Status::Io, 0);
        }
        match step {
            Step::Cut(how) => {
                self.remap.power_off();
                self.book().history.power_cut();
                self.remap.power_on(how);
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
            None => book.log.end(entry, now, "done".into()),
            Some(refusal) => {
                let nowhere = Area {
                    first: 0,
                    sectors: 0,
                };
                let told = book.log.tell(nowhere);
                panic!("{}: it does not come back: {refusal:?}\n{told}", self.title);
            }
        }
    }
}
