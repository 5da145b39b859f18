// SPDX-License-Identifier: GPL-2.0
//! What the disks may hold when the power fails.
//!
//! A write is durable when it was answered, if it has FUA, or when a flush was answered that was
//! issued after the write's answer; a flush of one disk does nothing for the other. Until then each
//! of its sectors is on the medium or not, whatever became of its other sectors and of writes
//! before and after it. So a write that is torn, dropped or overtaken is a choice of versions,
//! sector by sector.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use vmtest::guest::Dice;

use crate::timeline::Disk;
use crate::timeline::Event;
use crate::timeline::Timeline;
use crate::timeline::Write;

/// What a crash makes of what is not durable.
#[derive(Clone, Debug)]
pub(crate) enum Crash {
    /// All writes that were answered are there, and none that was not.
    InOrder,
    /// Nothing of it is there.
    Dropped,
    /// What was answered, and these sectors of a write that was under way.
    Torn(usize, Vec<bool>),
    /// Whole writes are there or not, in any order.
    Reordered(u64),
    /// Each sector has any of its versions; what is taken for written as one has the same.
    Scattered(u64),
}

/// Sectors and what they hold, other than what is durable.
pub(crate) type Overlay = BTreeMap<u64, Vec<u8>>;

/// The disks, at some moment.
pub(crate) struct Medium<'a> {
    timeline: &'a Timeline,
    /// Areas of main, first sector and count, that are taken for written as one.
    as_one: &'static [(u64, u64)],
    /// What is durable.
    pub(crate) durable: Vec<u8>,
    /// Which sectors of it changed since somebody asked.
    changed: BTreeSet<u64>,
    /// The writes of each sector that are not durable, oldest first.
    versions: BTreeMap<u64, Vec<usize>>,
    answered: BTreeSet<usize>,
    flushes: BTreeMap<usize, Vec<(u64, usize)>>,
}

impl<'a> Medium<'a> {
    pub(crate) fn new(
        timeline: &'a Timeline,
        base: Vec<u8>,
        as_one: &'static [(u64, u64)],
    ) -> Self {
        Self {
            timeline,
            as_one,
            durable: base,
            changed: BTreeSet::new(),
            versions: BTreeMap::new(),
            answered: BTreeSet::new(),
            flushes: BTreeMap::new(),
        }
    }

    fn write(&self, number: usize) -> &'a Write {
        &self.timeline.writes[number]
    }

    /// One more event.
    pub(crate) fn advance(&mut self, event: &Event) {
        match *event {
            Event::Issued(number) => {
                for (sector, _) in self.write(number).sectors() {
                    self.versions.entry(sector).or_default().push(number);
                }
            }
            Event::Answered(number) => {
                self.answered.insert(number);
                if self.write(number).fua {
                    for (sector, _) in self.write(number).sectors() {
                        self.settle(sector, number);
                    }
                }
            }
            Event::FlushIssued(disk, flush) => {
                let last = |(sector, versions): (&u64, &Vec<usize>)| {
                    let on_disk = |number: &&usize| {
                        self.answered.contains(number) && self.write(**number).disk == disk
                    };
                    let last = versions.iter().rev().find(on_disk)?;
                    Some((*sector, *last))
                };
                let taken = self.versions.iter().filter_map(last).collect();
                self.flushes.insert(flush, taken);
            }
            Event::FlushAnswered(flush) => {
                for (sector, number) in self.flushes.remove(&flush).unwrap_or_default() {
                    self.settle(sector, number);
                }
            }
            Event::Begin(_) | Event::End(_) => (),
        }
    }

    /// This version of a sector is durable: what was answered before cannot come back.
    fn settle(&mut self, sector: u64, number: usize) {
        let Some(versions) = self.versions.get_mut(&sector) else {
            return;
        };
        let Some(place) = versions.iter().position(|version| *version == number) else {
            return;
        };
        let answered = &self.answered;
        let mut at = 0..;
        versions.retain(|version| {
            at.next().is_some_and(|at| at > place) || !answered.contains(version)
        });
        if versions.is_empty() {
            self.versions.remove(&sector);
        }
        let data = data(self.timeline, number, sector);
        let start = (sector * 512) as usize;
        self.durable[start..start + 512].copy_from_slice(data);
        self.changed.insert(sector);
    }

    /// The sectors whose durable content changed since the last time.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.changed)
    }

    /// The writes that are not durable.
    pub(crate) fn pending(&self) -> BTreeSet<usize> {
        self.versions.values().flatten().copied().collect()
    }

    /// What a crash leaves.
    pub(crate) fn crash(&self, crash: &Crash) -> Overlay {
        let mut overlay = Overlay::new();
        let mut put = |sector: u64, number: usize| {
            overlay.insert(sector, data(self.timeline, number, sector).to_vec());
        };
        let in_order = |put: &mut dyn FnMut(u64, usize)| {
            for (sector, versions) in &self.versions {
                let last = versions.iter().rev().find(|n| self.answered.contains(n));
                if let Some(last) = last {
                    put(*sector, *last);
                }
            }
        };
        match crash {
            Crash::Dropped => (),
            Crash::InOrder => in_order(&mut put),
            Crash::Torn(number, which) => {
                in_order(&mut put);
                for ((sector, _), there) in self.write(*number).sectors().zip(which) {
                    if *there {
                        put(sector, *number);
                    }
                }
            }
            Crash::Reordered(seed) => {
                let mut dice = Dice::new(*seed);
                let mut writes: Vec<usize> = self.pending().into_iter().collect();
                writes.retain(|_| dice.roll(2) == 0);
                while !writes.is_empty() {
                    let number = writes.swap_remove(dice.roll(writes.len() as u64) as usize);
                    for (sector, _) in self.write(number).sectors() {
                        let version = self.versions.get(&sector);
                        if version.is_some_and(|versions| versions.contains(&number)) {
                            put(sector, number);
                        }
                    }
                }
            }
            Crash::Scattered(seed) => {
                let mut dice = Dice::new(*seed);
                let mut chosen = BTreeMap::new();
                for (sector, versions) in &self.versions {
                    let area =
                        |(first, count): &&(u64, u64)| (*first..first + count).contains(sector);
                    let first = self.as_one.iter().find(area).map_or(*sector, |area| area.0);
                    let choice = chosen.entry(first).or_insert_with(|| {
                        let choice = dice.roll(versions.len() as u64 + 1) as usize;
                        versions.get(choice).copied()
                    });
                    if let Some(number) = choice.filter(|number| versions.contains(number)) {
                        put(*sector, number);
                    }
                }
            }
        }
        overlay
    }

    /// Whether a write touches the spare.
    pub(crate) fn is_spare(&self, number: usize) -> bool {
        self.write(number).disk == Disk::Spare
    }

    /// How many sectors a write has.
    pub(crate) fn length(&self, number: usize) -> usize {
        self.write(number).data.len() / 512
    }

    /// Whether it has FUA.
    pub(crate) fn is_fua(&self, number: usize) -> bool {
        self.write(number).fua
    }
}

fn data(timeline: &Timeline, number: usize, sector: u64) -> &[u8] {
    let write = &timeline.writes[number];
    let start = ((sector - write.sector) * 512) as usize;
    &write.data[start..start + 512]
}
