// SPDX-License-Identifier: GPL-2.0
//! Transfers, and whether their answers can be true.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use vmtest::guest::identify;
use vmtest::guest::stamps;

use super::Book;
use super::World;
use super::NOWHERE;
use super::THREADS;
use crate::history::Kind;
use crate::history::Time;
use crate::plan::Area;
use crate::plan::Step;
use crate::sickness::Excuse;
use crate::sys::Device;
use crate::sys::Flags;

/// An answer that takes longer than this is none.
const PATIENCE: Duration = Duration::from_secs(80);

impl World {
    /// Reads, writes or flushes, and judges the answer.
    pub(crate) fn transfer(&self, device: &mut Device, who: usize, step: Step) {
        let start = Instant::now();
        match step {
            Step::Read(area, flags) => self.read(device, who, area, flags),
            Step::Write(area, flags) => self.change(device, who, step, Kind::Write, area, flags),
            Step::Zero(area) => {
                self.change(device, who, step, Kind::Zeroes, area, Flags::default());
            }
            Step::Discard(area) => {
                self.change(device, who, step, Kind::Discard, area, Flags::default());
            }
            Step::Flush => self.flush(device, who),
            _ => unreachable!("{step:?} is no transfer"),
        }
        let took = start.elapsed();
        self.slowest
            .fetch_max(took.as_micros() as u64, Ordering::Relaxed);
        if took > PATIENCE {
            let what = format!("{step:?} of thread {who} took {took:?}");
            self.accuse(self.book(), NOWHERE, &what);
        }
    }

    fn read(&self, device: &mut Device, who: usize, area: Area, flags: Flags) {
        let mut book = self.book();
        let begun = book.history.tick();
        let entry = book.log.begin(who, Step::Read(area, flags), begun);
        drop(book);
        let answer = device.read(area.first, area.sectors, flags);
        let found = answer.map(identify);
        self.count(0, found.is_ok());
        let mut book = self.book();
        let now = book.history.tick();
        match found {
            Ok(found) => {
                book.log.end(entry, now, "good".into());
                if let Err(lie) = book.history.read(begun, area.first, &found) {
                    let sector = Area {
                        first: lie.sector,
                        sectors: 1,
                    };
                    let what = format!("a read of {area:?}, begun at {begun}, is wrong: {lie}");
                    self.accuse(book, sector, &what);
                }
            }
            Err(error) => {
                book.log.end(entry, now, error.to_string());
                let again = flags.nowait && error.kind() == io::ErrorKind::WouldBlock;
                if !again && !book.sickness.excuses_read(area.range(), begun, now) {
                    let what = format!("a read of {area:?} failed without reason: {error}");
                    self.accuse(book, area, &what);
                }
            }
        }
    }

    fn change(
        &self,
        device: &mut Device,
        who: usize,
        step: Step,
        kind: Kind,
        area: Area,
        flags: Flags,
    ) {
        let mut book = self.book();
        let generation = book.history.begin(kind, area.first, area.sectors);
        let begun = book.history.begun(generation);
        let entry = book.log.begin(who, step, begun);
        drop(book);
        let answer = match kind {
            Kind::Write => {
                let data = stamps(area.first, area.sectors, generation.into());
                device.write(area.first, &data, flags)
            }
            Kind::Zeroes => device.zero(area.first, area.sectors),
            Kind::Discard => device.discard(area.first, area.sectors),
        };
        self.count(1, answer.is_ok());
        let mut book = self.book();
        let Book {
            history,
            sickness,
            log,
        } = &mut *book;
        let now = history.end(generation, answer.is_ok(), flags.fua);
        let Err(error) = answer else {
            log.end(entry, now, format!("good, generation {generation}"));
            if kind == Kind::Discard {
                return;
            }
            for sector in sickness.written(area.range(), begun, now) {
                if self.shape.alone {
                    history.is_durable(sector..sector + 1, generation);
                }
            }
            return;
        };
        log.end(entry, now, format!("{error}, generation {generation}"));
        if flags.nowait && error.kind() == io::ErrorKind::WouldBlock {
            return;
        }
        sickness.touch(area.range());
        let latched = flags.fua && sickness.excuses_flush(begun, now);
        if latched {
            // It may have been the flush in it that failed.
            history.flushed(begun, false);
        }
        let excused = match kind {
            _ if latched => true,
            Kind::Discard => sickness.excuses_discard(area.range(), begun, now),
            _ => sickness.excuses_write(area.range(), kind == Kind::Zeroes, begun, now),
        };
        drop(book);
        if !excused && !self.no_slot_was_left(begun) {
            let what = format!("{step:?} failed without reason: {error}");
            self.accuse(self.book(), area, &what);
        }
    }

    /// Whether the spare may have been full. What is under way may have had slots and given them
    /// back by now.
    fn no_slot_was_left(&self, since: Time) -> bool {
        let slots = self.slots();
        let mut book = self.book();
        let now = book.history.tick();
        if book.sickness.held(Excuse::Removal, since, now) {
            return true;
        }
        drop(book);
        // And one that goes with the events, and the events.
        let threads = if self.shape.alone {
            1
        } else {
            THREADS as u64 + 2
        };
        let under_way = threads * self.shape.longest / self.shape.block;
        // Those that are set aside can be taken.
        slots.capacity + slots.pending < slots.used + under_way
    }

    fn flush(&self, device: &Device, who: usize) {
        let mut book = self.book();
        let begun = book.history.tick();
        let entry = book.log.begin(who, Step::Flush, begun);
        drop(book);
        let answer = device.flush();
        self.count(2, answer.is_ok());
        let mut book = self.book();
        book.history.flushed(begun, answer.is_ok());
        let now = book.history.tick();
        match answer {
            Ok(()) => {
                book.log.end(entry, now, "good".into());
                let sickness = &mut book.sickness;
                if !sickness.is_open(Excuse::Dead) && !sickness.is_open(Excuse::Flush) {
                    sickness.close(Excuse::Latched, now);
                }
            }
            Err(error) => {
                book.log.end(entry, now, error.to_string());
                if !book.sickness.excuses_flush(begun, now) {
                    let what = format!("a flush failed without reason: {error}");
                    self.accuse(book, NOWHERE, &what);
                }
            }
        }
    }
}
