// SPDX-License-Identifier: GPL-2.0
//! What each sector may hold: the reference that the device is compared with.
//!
//! Every change (write, write of zeroes, discard) has a begin and an end on one common clock. A
//! sector keeps the list of changes that it may show, its *candidates*. A change that is under way
//! may show at any time, come and go, until it ends; one that failed may show or not, and each of
//! its sectors decides for itself. So a candidate is out of the question for a read only if one of
//! these is sure:
//!
//! 1. Another change was acknowledged before the read began, and began after the candidate's end.
//! 2. An earlier read found something else, though the candidate's end lay before it.
//! 3. An earlier read found a change that began after the candidate's end.
//!
//! These are necessary conditions of any order that the operations can have had, so that what
//! they call a lie is one.
//!
//! A power cut brings back what was not replaced durably. A change is durable if it had FUA, or if
//! a flush that began after its end succeeded, unless a flush failed in between: a drive may drop
//! what it could not write. Candidates that a durable change replaced are *gone* for good; all
//! others may be there after the cut, whatever was read before. What is read after it was on the
//! medium, so another power cut cannot bring up anything else.

use std::fmt;

use vmtest::guest::Content;

/// A point on the clock.
pub(crate) type Time = u64;

/// Later than everything.
pub(crate) const NEVER: Time = Time::MAX;

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Stamps with the change's number as generation.
    Write,
    /// Zeroes.
    Zeroes,
    /// What was there, or zeroes.
    Discard,
}

/// The number of a change.
pub(crate) type Generation = u32;

#[derive(Clone, Debug)]
struct Change {
    kind: Kind,
    first: u64,
    sectors: u64,
    begun: Time,
    ended: Time,
    acknowledged: bool,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    change: Generation,
    /// Reads that begin later cannot find it.
    dead: Time,
    /// Not even a power cut brings it back.
    gone: bool,
}

/// An answer that cannot be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lie {
    /// The sector.
    pub(crate) sector: u64,
    /// What is wrong with it.
    pub(crate) what: String,
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {}: {}", self.sector, self.what)
    }
}

/// All that happened to the content of a device.
pub(crate) struct History {
    now: Time,
    changes: Vec<Change>,
    sectors: Vec<Vec<Candidate>>,
    /// Acknowledged changes that the next flush makes durable.
    unflushed: Vec<Generation>,
    /// When the last flush failed.
    flush_failed: Time,
    /// When the power was cut last.
    cut: Time,
}

impl History {
    /// A device of zeroes.
    pub(crate) fn new(sectors: u64) -> Self {
        let blank = Change {
            kind: Kind::Zeroes,
            first: 0,
            sectors,
            begun: 0,
            ended: 0,
            acknowledged: true,
        };
        let candidate = Candidate {
            change: 0,
            dead: NEVER,
            gone: false,
        };
        Self {
            now: 0,
            changes: vec![blank],
            sectors: vec![vec![candidate]; sectors as usize],
            unflushed: Vec::new(),
            flush_failed: 0,
            cut: 0,
        }
    }

    /// The next point on the clock.
    pub(crate) fn tick(&mut self) -> Time {
        self.now += 1;
        self.now
    }

    /// Begins a change; to be called before the device hears of it.
    pub(crate) fn begin(&mut self, kind: Kind, first: u64, sectors: u64) -> Generation {
        let generation = self.changes.len() as Generation;
        let begun = self.tick();
        self.changes.push(Change {
            kind,
            first,
            sectors,
            begun,
            ended: NEVER,
            acknowledged: false,
        });
        for sector in first..first + sectors {
            self.sectors[sector as usize].push(Candidate {
                change: generation,
                dead: NEVER,
                gone: false,
            });
        }
        generation
    }

    /// When a change began.
    pub(crate) fn begun(&self, generation: Generation) -> Time {
        self.changes[generation as usize].begun
    }

    /// Ends a change; to be called after the device answered.
    pub(crate) fn end(
        &mut self,
        generation: Generation,
        acknowledged: bool,
        durable: bool,
    ) -> Time {
        let now = self.tick();
        let change = &mut self.changes[generation as usize];
        change.ended = now;
        change.acknowledged = acknowledged;
        if !acknowledged || change.kind == Kind::Discard {
            return now;
        }
        let (first, sectors) = (change.first, change.sectors);
        self.replaced(first..first + sectors, generation, |candidate| {
            candidate.dead = candidate.dead.min(now);
        });
        if durable {
            self.is_durable(first..first + sectors, generation);
        } else {
            self.unflushed.push(generation);
        }
        now
    }

    /// Notes that some sectors of a change that was acknowledged are durable.
    pub(crate) fn is_durable(&mut self, sectors: std::ops::Range<u64>, generation: Generation) {
        self.replaced(sectors, generation, |candidate| candidate.gone = true);
    }

    /// Does something to the candidates that a change replaces.
    fn replaced(
        &mut self,
        sectors: std::ops::Range<u64>,
        generation: Generation,
        act: impl Fn(&mut Candidate),
    ) {
        let begun = self.changes[generation as usize].begun;
        for candidates in &mut self.sectors[sectors.start as usize..sectors.end as usize] {
            for candidate in candidates {
                if self.changes[candidate.change as usize].ended < begun {
                    act(candidate);
                }
            }
        }
    }

    /// A flush that began at `begun` was answered.
    pub(crate) fn flushed(&mut self, begun: Time, good: bool) {
        let now = self.tick();
        if !good {
            self.flush_failed = now;
            return;
        }
        let waiting = std::mem::take(&mut self.unflushed);
        for generation in waiting {
            let change = &self.changes[generation as usize];
            if change.begun <= self.flush_failed {
                // Only writing it again makes it durable.
                continue;
            }
            if change.ended >= begun {
                self.unflushed.push(generation);
                continue;
            }
            let sectors = change.first..change.first + change.sectors;
            self.is_durable(sectors, generation);
        }
    }

    /// Compares what a read, begun at `begun`, has found.
    pub(crate) fn read(&mut self, begun: Time, first: u64, found: &[Content]) -> Result<(), Lie> {
        let now = self.tick();
        for (sector, content) in (first..).zip(found) {
            self.read_one(begun, now, sector, *content)
                .map_err(|what| Lie { sector, what })?;
        }
        Ok(())
    }

    fn read_one(
        &mut self,
        begun: Time,
        now: Time,
        sector: u64,
        content: Content,
    ) -> Result<(), String> {
        let changes = &self.changes;
        let change_of = |candidate: &Candidate| &changes[candidate.change as usize];
        let candidates = &mut self.sectors[sector as usize];
        let shows = |candidate: &Candidate| match content {
            Content::Stamp { generation, .. } => {
                u64::from(candidate.change) == generation
                    && change_of(candidate).kind == Kind::Write
            }
            _ => change_of(candidate).kind != Kind::Write,
        };
        match content {
            Content::Stamp { sector: other, .. } if other != sector => {
                return Err(format!("holds what belongs to sector {other}: {content:?}"));
            }
            Content::Stamp { .. } | Content::Blank => (),
            Content::Torn | Content::Foreign => return Err(format!("holds {content:?}")),
        }
        let possible = |candidate: &Candidate| shows(candidate) && candidate.dead >= begun;
        // Zeroes can be of several changes; one of them it is.
        let Some(earliest) = candidates
            .iter()
            .filter(|candidate| possible(candidate))
            .map(|candidate| change_of(candidate).begun)
            .min()
        else {
            let known: Vec<Generation> = candidates
                .iter()
                .filter(|candidate| candidate.dead >= begun)
                .map(|candidate| candidate.change)
                .collect();
            return Err(match candidates.iter().find(|candidate| shows(candidate)) {
                Some(stale) => format!(
                    "holds {content:?}, which was replaced before time {}; it may hold {known:?}",
                    stale.dead
                ),
                None => format!("holds {content:?}, which cannot be; it may hold {known:?}"),
            });
        };
        let of_the_medium = candidates
            .iter()
            .filter(|candidate| possible(candidate))
            .all(|candidate| change_of(candidate).begun < self.cut);
        for candidate in candidates {
            if possible(candidate) {
                continue;
            }
            let change = change_of(candidate);
            if change.ended < begun || change.ended < earliest {
                candidate.dead = candidate.dead.min(now);
            }
            candidate.gone |= of_the_medium && change.begun < self.cut;
        }
        Ok(())
    }

    /// The power was cut while nothing was under way.
    pub(crate) fn power_cut(&mut self) {
        let now = self.tick();
        self.cut = now;
        self.unflushed.clear();
        for change in &mut self.changes {
            change.ended = change.ended.min(now);
        }
        for candidates in &mut self.sectors {
            candidates.retain(|candidate| !candidate.gone);
            for candidate in candidates {
                candidate.dead = NEVER;
            }
        }
    }

    /// Forgets what can never be read again. Nothing is under way.
    pub(crate) fn tidy(&mut self) {
        let now = self.tick();
        for candidates in &mut self.sectors {
            candidates.retain(|candidate| !candidate.gone || candidate.dead >= now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sector: u64, generation: Generation) -> Content {
        Content::Stamp {
            sector,
            generation: generation.into(),
        }
    }

    fn write(history: &mut History, first: u64, sectors: u64, good: bool) -> Generation {
        let generation = history.begin(Kind::Write, first, sectors);
        history.end(generation, good, false);
        generation
    }

    fn read(history: &mut History, sector: u64, content: Content) -> Result<(), Lie> {
        let begun = history.tick();
        history.read(begun, sector, &[content])
    }

    fn flush(history: &mut History, good: bool) {
        let begun = history.tick();
        history.flushed(begun, good);
    }

    #[test]
    fn the_last_acknowledged_write_is_the_truth() {
        let mut history = History::new(8);
        assert!(read(&mut history, 3, Content::Blank).is_ok());
        let first = write(&mut history, 2, 4, true);
        assert!(read(&mut history, 3, stamp(3, first)).is_ok());
        assert!(read(&mut history, 3, Content::Blank).is_err());
        let second = write(&mut history, 3, 1, true);
        assert!(read(&mut history, 3, stamp(3, first)).is_err(), "stale");
        assert!(read(&mut history, 3, stamp(3, second)).is_ok());
        assert!(read(&mut history, 2, stamp(2, first)).is_ok());
        assert!(read(&mut history, 3, stamp(2, first)).is_err(), "moved");
        assert!(read(&mut history, 3, Content::Torn).is_err());
        assert!(read(&mut history, 3, Content::Foreign).is_err());
        assert!(read(&mut history, 3, stamp(3, 77)).is_err(), "unknown");
    }

    #[test]
    fn a_failed_write_shows_or_not_and_stays_with_that() {
        for shows in [false, true] {
            let mut history = History::new(8);
            let old = write(&mut history, 0, 8, true);
            let failed = write(&mut history, 0, 8, false);
            let (is, is_not) = match shows {
                true => (failed, old),
                false => (old, failed),
            };
            assert!(read(&mut history, 1, stamp(1, is)).is_ok());
            assert!(read(&mut history, 1, stamp(1, is_not)).is_err());
            assert!(read(&mut history, 2, stamp(2, is_not)).is_ok(), "each");
        }
    }

    #[test]
    fn what_is_under_way_comes_and_goes() {
        let mut history = History::new(8);
        let old = write(&mut history, 0, 1, true);
        let new = history.begin(Kind::Write, 0, 1);
        assert!(read(&mut history, 0, stamp(0, new)).is_ok());
        let other = write(&mut history, 0, 1, true);
        assert!(read(&mut history, 0, stamp(0, other)).is_ok());
        assert!(read(&mut history, 0, stamp(0, new)).is_ok());
        assert!(read(&mut history, 0, stamp(0, old)).is_err());
        history.end(new, true, false);
        assert!(read(&mut history, 0, stamp(0, other)).is_err(), "replaced");
        assert!(read(&mut history, 0, stamp(0, new)).is_ok());
    }

    #[test]
    fn a_read_that_overlaps_a_write_may_find_either() {
        let mut history = History::new(1);
        let old = write(&mut history, 0, 1, true);
        let begun = history.tick();
        let new = write(&mut history, 0, 1, true);
        assert!(history.read(begun, 0, &[stamp(0, old)]).is_ok());
        assert!(history.read(begun, 0, &[stamp(0, new)]).is_ok());
        assert!(read(&mut history, 0, stamp(0, old)).is_err());
    }

    #[test]
    fn a_discard_leaves_old_content_or_zeroes() {
        let mut history = History::new(2);
        let old = write(&mut history, 0, 2, true);
        let discard = history.begin(Kind::Discard, 0, 2);
        history.end(discard, true, false);
        assert!(read(&mut history, 0, Content::Blank).is_ok());
        assert!(read(&mut history, 0, stamp(0, old)).is_err(), "decided");
        assert!(read(&mut history, 1, stamp(1, old)).is_ok());
        assert!(read(&mut history, 1, Content::Blank).is_err(), "decided");
    }

    #[test]
    fn a_power_cut_takes_what_was_not_flushed_and_only_that() {
        for reads in [0, 1] {
            let mut history = History::new(1);
            let lost = write(&mut history, 0, 1, true);
            let kept = write(&mut history, 0, 1, true);
            flush(&mut history, true);
            let late = write(&mut history, 0, 1, true);
            history.power_cut();
            let (is, is_not) = [(late, kept), (kept, late)][reads];
            assert!(read(&mut history, 0, stamp(0, lost)).is_err());
            assert!(read(&mut history, 0, stamp(0, is)).is_ok());
            assert!(read(&mut history, 0, stamp(0, is_not)).is_err());
            history.power_cut();
            assert!(read(&mut history, 0, stamp(0, is_not)).is_err(), "again");
        }
    }

    #[test]
    fn a_failed_flush_vouches_for_nothing_later() {
        let mut history = History::new(1);
        let old = write(&mut history, 0, 1, true);
        flush(&mut history, true);
        let dropped = write(&mut history, 0, 1, true);
        flush(&mut history, false);
        flush(&mut history, true);
        history.power_cut();
        assert!(read(&mut history, 0, stamp(0, old)).is_ok());
        assert!(read(&mut history, 0, stamp(0, dropped)).is_err());
    }
}
