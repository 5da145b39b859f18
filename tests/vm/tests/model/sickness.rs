// SPDX-License-Identifier: GPL-2.0
//! What is wrong with the disks and since when: which errors of the device can be true.
//!
//! Of main it is known for each sector. A fault that ends by itself, after some failures or when it
//! is written, may be over at any time, so it excuses errors as long as it was not healed by us,
//! but proves nothing. A fault that lasts proves that a write which was acknowledged meanwhile went
//! to the spare; from then on main's faults are no excuse for errors at that place, until somebody
//! asks to move it back.

use std::ops::Range;

use crate::history::Time;
use crate::history::NEVER;

/// A fault as the plan wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ailment {
    /// Reads fail.
    pub(crate) reads: bool,
    /// Writes fail.
    pub(crate) writes: bool,
    /// It stays until it is healed.
    pub(crate) lasts: bool,
    /// The error says something else than that the medium is bad.
    pub(crate) foreign: bool,
    /// It says so for writes of zeroes: that the drive has no such command (E2).
    pub(crate) refuses_zeroes: bool,
}

#[derive(Clone, Copy, Debug)]
struct Episode {
    ailment: Ailment,
    /// From here on it may be there.
    from: Time,
    /// From here on it is there, if it lasts.
    sure_from: Time,
    /// Up to here it is there, if it lasts.
    sure_to: Time,
    /// Up to here it may be there.
    to: Time,
}

/// A time in which something holds: from the moment before it began to the one after it ended.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Time,
    to: Time,
}

/// What excuses errors everywhere, while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// A disk fails as a whole.
    Dead,
    /// Flushes fail, those that a repair needs, too.
    Flush,
    /// A flush has failed, and none has succeeded since (E6).
    Latched,
    /// A device has failed as a whole, and has not shown yet that it is back (P6).
    Breaker,
    /// Slots cannot be read.
    SlotReads,
    /// Automatic remapping is off.
    NoRemapping,
    /// Somebody moves blocks back to main, so slots come and go.
    Removal,
}

/// The journal.
pub(crate) struct Sickness {
    sectors: Vec<Vec<Episode>>,
    /// Since when a sector of main is certainly served by the spare.
    on_spare: Vec<Option<Time>>,
    /// When it may have been moved back last.
    moved_back: Vec<Time>,
    /// Nothing has ever been wrong with it, nor has it been moved.
    untouched: Vec<bool>,
    windows: Vec<(Excuse, Window)>,
    /// Transfers come at the same time.
    merges: bool,
}

impl Sickness {
    /// Healthy disks.
    pub(crate) fn new(sectors: u64, merges: bool) -> Self {
        let sectors = sectors as usize;
        Self {
            sectors: vec![Vec::new(); sectors],
            on_spare: vec![None; sectors],
            moved_back: vec![0; sectors],
            untouched: vec![true; sectors],
            windows: Vec::new(),
            merges,
        }
    }

    /// Main's sectors are about to get a fault, in the place of what they had.
    pub(crate) fn begins(&mut self, sectors: Range<u64>, ailment: Ailment, now: Time) {
        for sector in sectors {
            let episodes = &mut self.sectors[sector as usize];
            if let Some(last) = episodes.last_mut() {
                last.sure_to = last.sure_to.min(now);
            }
            episodes.push(Episode {
                ailment,
                from: now,
                sure_from: NEVER,
                sure_to: NEVER,
                to: NEVER,
            });
        }
    }

    /// They have it.
    pub(crate) fn began(&mut self, sectors: Range<u64>, now: Time) {
        for sector in sectors {
            let mut episodes = self.sectors[sector as usize].iter_mut().rev();
            if let Some(last) = episodes.next() {
                last.sure_from = now;
            }
            if let Some(before) = episodes.next() {
                before.to = before.to.min(now);
            }
        }
    }

    /// Main's sectors are about to be healed.
    pub(crate) fn heals(&mut self, sectors: Range<u64>, now: Time) {
        for sector in sectors {
            if let Some(last) = self.sectors[sector as usize].last_mut() {
                last.sure_to = last.sure_to.min(now);
            }
        }
    }

    /// They are.
    pub(crate) fn healed(&mut self, sectors: Range<u64>, now: Time) {
        for sector in sectors {
            if let Some(last) = self.sectors[sector as usize].last_mut() {
                last.to = last.to.min(now);
            }
        }
    }

    /// Something else begins that excuses errors.
    pub(crate) fn open(&mut self, excuse: Excuse, now: Time) {
        if !self.is_open(excuse) {
            let window = Window {
                from: now,
                to: NEVER,
            };
            self.windows.push((excuse, window));
        }
    }

    /// It has ended.
    pub(crate) fn close(&mut self, excuse: Excuse, now: Time) {
        for (what, window) in &mut self.windows {
            if *what == excuse && window.to == NEVER {
                window.to = now;
            }
        }
    }

    /// Whether it lasts.
    pub(crate) fn is_open(&self, excuse: Excuse) -> bool {
        self.windows
            .iter()
            .any(|(what, window)| *what == excuse && window.to == NEVER)
    }

    /// Whether everything may have failed at some time in between.
    pub(crate) fn excuses_everything(&self, from: Time, to: Time) -> bool {
        self.held(Excuse::Dead, from, to) || self.held(Excuse::Flush, from, to)
    }

    /// Whether flushes and writes with FUA may have failed.
    pub(crate) fn excuses_flush(&self, from: Time, to: Time) -> bool {
        self.excuses_everything(from, to) || self.held(Excuse::Latched, from, to)
    }

    /// Whether it held at any time in between.
    pub(crate) fn held(&self, excuse: Excuse, from: Time, to: Time) -> bool {
        self.windows
            .iter()
            .any(|(what, window)| *what == excuse && window.from <= to && from <= window.to)
    }

    /// These sectors may be moved back to main from now on.
    pub(crate) fn moves_back(&mut self, sectors: Range<u64>) {
        for sector in sectors {
            self.on_spare[sector as usize] = None;
            self.moved_back[sector as usize] = NEVER;
        }
    }

    /// That has ended.
    pub(crate) fn moved_back(&mut self, sectors: Range<u64>, now: Time) {
        for sector in sectors {
            self.moved_back[sector as usize] = now;
        }
    }

    /// Somebody asks to move sectors to the spare.
    pub(crate) fn touch(&mut self, sectors: Range<u64>) {
        for sector in sectors {
            self.untouched[sector as usize] = false;
        }
    }

    /// A write was acknowledged. Returns which of its sectors went to the spare for the first
    /// time, and so are durable (P3).
    pub(crate) fn written(&mut self, sectors: Range<u64>, from: Time, to: Time) -> Vec<u64> {
        let mut durable = Vec::new();
        for sector in sectors {
            let at = sector as usize;
            let Some(last) = self.sectors[at].last() else {
                continue;
            };
            let remapped = last.ailment.writes
                && last.ailment.lasts
                && last.sure_from < from
                && to < last.sure_to
                && self.moved_back[at] < from;
            if !remapped {
                continue;
            }
            if self.untouched[at] && self.sectors[at].len() == 1 {
                durable.push(sector);
            }
            self.untouched[at] = false;
            self.on_spare[at].get_or_insert(to);
        }
        durable
    }

    /// Whether main may have refused a read (or a write) of a sector in between.
    fn may_fail(&self, at: usize, writing: bool, from: Time, to: Time) -> bool {
        self.sectors[at].iter().any(|episode| {
            let concerned = match writing {
                true => episode.ailment.writes,
                false => episode.ailment.reads,
            };
            concerned && episode.from <= to && from <= episode.to
        })
    }

    /// Whether a good sector may fail because a bad one was in the same request: the block layer
    /// merges what comes at the same time, and while automatic remapping is off nobody looks
    /// closer.
    fn neighbours_excuse(&self, from: Time, to: Time) -> bool {
        self.merges && self.held(Excuse::NoRemapping, from, to)
    }

    /// Whether the device may fail a read.
    pub(crate) fn excuses_read(&self, sectors: Range<u64>, from: Time, to: Time) -> bool {
        if self.excuses_everything(from, to)
            || self.held(Excuse::SlotReads, from, to)
            || self.neighbours_excuse(from, to)
        {
            return true;
        }
        sectors.into_iter().any(|sector| {
            let at = sector as usize;
            let on_spare = self.on_spare[at].is_some_and(|since| since < from);
            !on_spare && self.may_fail(at, false, from, to)
        })
    }

    /// Whether the device may fail a write (or a write of zeroes), as long as there are free slots.
    pub(crate) fn excuses_write(
        &self,
        sectors: Range<u64>,
        zeroes: bool,
        from: Time,
        to: Time,
    ) -> bool {
        // A block that could not be read once goes to the spare when it is written.
        let spare_off = self.held(Excuse::Breaker, from, to);
        let off = spare_off || self.held(Excuse::NoRemapping, from, to);
        self.excuses_everything(from, to)
            || self.neighbours_excuse(from, to)
            || sectors.into_iter().any(|sector| {
                let episodes = &self.sectors[sector as usize];
                spare_off && !episodes.is_empty()
                    || episodes.iter().any(|episode| {
                        episode.ailment.writes
                            && (off
                                || episode.ailment.foreign
                                || zeroes && episode.ailment.refuses_zeroes)
                            && episode.from <= to
                            && from <= episode.to
                    })
            })
    }

    /// Whether a discard may fail: nobody is obliged to find another place for nothing.
    pub(crate) fn excuses_discard(&self, sectors: Range<u64>, from: Time, to: Time) -> bool {
        self.excuses_everything(from, to)
            || sectors
                .into_iter()
                .any(|sector| self.may_fail(sector as usize, true, from, to))
    }
}
