// SPDX-License-Identifier: GPL-2.0

//! Who may work on which blocks of main at a time?
//!
//! Jobs serve failed bios, several at a time, but no two in the same region: each block is changed by
//! one at a time, and a slow region has one job and not all of them. Besides them, some ranges may be
//! moved by somebody else. Some places are kept, so that no kind of bio waits for all of another kind.

/// How many jobs there are at a time.
pub const JOBS: usize = 34;

/// How many ranges can be moved at a time.
pub const MOVING_MAX: usize = 16;

/// The places that are for all. Each of those behind them is kept for one kind of bio.
const COMMON: usize = JOBS - 2;

/// What a job serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bio {
    /// One that failed, and may have to wait for main and for spares.
    Failed,
    /// A read that failed on main: what main cannot read is told without asking a spare.
    MainRead,
    /// One that has not met a bad block yet.
    Deferred,
}

impl Bio {
    /// The place that is kept for it.
    const fn own_place(self) -> Option<usize> {
        match self {
            Bio::Failed => None,
            Bio::MainRead => Some(COMMON),
            Bio::Deferred => Some(COMMON + 1),
        }
    }

    /// Whether it may have this place.
    fn may_have(self, place: usize) -> bool {
        place < COMMON || self.own_place() == Some(place)
    }
}

/// A region has this many sectors, as a power of two: 1 MiB.
const REGION_SHIFT: u32 = 11;

/// A range of regions of main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u64,
    last: u64,
}

impl Range {
    /// No region at all: what has it keeps nobody from anything.
    pub const NOTHING: Range = Range {
        first: u64::MAX,
        last: 0,
    };

    /// The regions that some sectors touch.
    pub const fn new(sector: u64, sectors: u32) -> Self {
        let last = sector.saturating_add((sectors as u64).saturating_sub(1));
        Range {
            first: sector >> REGION_SHIFT,
            last: last >> REGION_SHIFT,
        }
    }

    /// Its first sector, and how many there are.
    pub const fn sectors(&self) -> (u64, u64) {
        let regions = self.last.saturating_sub(self.first).saturating_add(1);
        (
            self.first << REGION_SHIFT,
            regions.saturating_mul(1 << REGION_SHIFT),
        )
    }

    /// Whether both touch the same region.
    pub const fn overlaps(&self, other: &Range) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// How many ranges can be taken.
pub const PLACES: usize = JOBS + MOVING_MAX;

/// What a range is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A job.
    Job,
    /// Being moved.
    Moving,
}

/// Which ranges are taken.
#[derive(Clone, Debug)]
pub struct Desk {
    jobs: [Option<Range>; JOBS],
    /// Those behind the last one are [`Range::NOTHING`].
    moving: [Range; MOVING_MAX],
}

impl Desk {
    /// Nobody works.
    pub const fn new() -> Self {
        Desk {
            jobs: [None; JOBS],
            moving: [Range::NOTHING; MOVING_MAX],
        }
    }

    fn has_job(&self, range: &Range) -> bool {
        self.jobs.iter().flatten().any(|job| job.overlaps(range))
    }

    /// Whether anybody has a part of a range.
    pub fn is_busy(&self, range: Range) -> bool {
        self.has_job(&range) || self.moving.iter().any(|moving| moving.overlaps(&range))
    }

    /// What is taken at place `number`, of [`PLACES`]: by a job, or else to be moved.
    pub fn taken(&self, number: usize) -> Option<(Taken, Range)> {
        match number.checked_sub(JOBS) {
            None => Some((Taken::Job, (*self.jobs.get(number)?)?)),
            Some(number) => {
                let moving = self.moving.get(number)?;
                (*moving != Range::NOTHING).then_some((Taken::Moving, *moving))
            }
        }
    }

    /// Starts a job and returns its number; none if somebody has a part of its range, or there is no
    /// place.
    pub fn start(&mut self, range: Range, bio: Bio) -> Option<usize> {
        if self.is_busy(range) {
            return None;
        }
        let mut places = self.jobs.iter_mut().enumerate();
        let (number, place) =
            places.find(|(number, place)| place.is_none() && bio.may_have(*number))?;
        *place = Some(range);
        Some(number)
    }

    /// Ends a job.
    pub fn end(&mut self, number: usize) {
        if let Some(job) = self.jobs.get_mut(number) {
            *job = None;
        }
    }

    /// Keeps jobs from starting in ranges that are to be moved, at most [`MOVING_MAX`]. There must be no others.
    pub fn move_begin(&mut self, ranges: impl Iterator<Item = Range>) {
        for (place, range) in self.moving.iter_mut().zip(ranges) {
            *place = range;
        }
    }

    /// Whether the ranges that are to be moved are free of jobs.
    pub fn move_clear(&self) -> bool {
        !self.moving.iter().any(|moving| self.has_job(moving))
    }

    /// Lets jobs start everywhere.
    pub fn move_end(&mut self) {
        self.moving = [Range::NOTHING; MOVING_MAX];
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{
        Bio,
        Desk,
        Range,
        Taken,
        JOBS,
        PLACES, //
    };

    const MIB: u64 = 2048;

    #[test]
    fn one_job_a_region() {
        let mut desk = Desk::new();
        let first = desk.start(Range::new(0, 8), Bio::Failed).unwrap();
        assert_eq!(desk.start(Range::new(2040, 8), Bio::Failed), None);
        assert_eq!(desk.start(Range::new(2040, 16), Bio::Deferred), None);
        let second = desk.start(Range::new(MIB, 8), Bio::Failed).unwrap();
        assert_ne!(first, second);
        desk.end(first);
        assert_eq!(desk.start(Range::new(2040, 16), Bio::Deferred), None);
        desk.end(second);
        assert!(desk.start(Range::new(2040, 16), Bio::Deferred).is_some());
    }

    #[test]
    fn places_are_kept() {
        let mut desk = Desk::new();
        for job in 0..JOBS as u64 - 2 {
            let range = Range::new(job * MIB, 1);
            assert!(desk.start(range, Bio::Failed).is_some());
        }
        let range = |number| Range::new((JOBS as u64 + number) * MIB, 1);
        assert_eq!(desk.start(range(0), Bio::Failed), None);
        assert_eq!(desk.start(range(0), Bio::Deferred), Some(JOBS - 1));
        assert_eq!(desk.start(range(1), Bio::Deferred), None);
        assert_eq!(desk.start(range(1), Bio::MainRead), Some(JOBS - 2));
        assert_eq!(desk.start(range(2), Bio::MainRead), None);
    }

    #[test]
    fn moving_waits_for_jobs_and_keeps_them_out() {
        let mut desk = Desk::new();
        let job = desk.start(Range::new(0, 8), Bio::Failed).unwrap();
        desk.move_begin([Range::new(100, 8)].into_iter());
        assert!(!desk.move_clear());
        assert_eq!(desk.start(Range::new(200, 8), Bio::Failed), None);
        desk.end(job);
        assert!(desk.move_clear());
        assert_eq!(desk.start(Range::new(200, 8), Bio::Failed), None);
        assert!(desk.start(Range::new(5 * MIB, 8), Bio::Failed).is_some());
        desk.move_end();
        assert!(desk.start(Range::new(200, 8), Bio::Failed).is_some());
    }

    #[test]
    fn what_is_taken_can_be_seen() {
        let mut desk = Desk::new();
        let job = desk
            .start(Range::new(3 * MIB + 8, 8), Bio::Deferred)
            .unwrap();
        desk.move_begin([Range::new(0, 1), Range::new(7 * MIB, 2 * MIB as u32)].into_iter());
        let taken = |number| {
            desk.taken(number)
                .map(|(what, range)| (what, range.sectors()))
        };
        let all: Vec<_> = (0..PLACES + 9).filter_map(taken).collect();
        assert_eq!(taken(job), Some((Taken::Job, (3 * MIB, MIB))));
        let moving = [(0, MIB), (7 * MIB, 2 * MIB)].map(|sectors| (Taken::Moving, sectors));
        assert_eq!(all[1..], moving);
    }

    /// The jobs by their numbers, and the regions that they have.
    #[derive(Default)]
    struct Naive {
        jobs: Vec<(usize, Vec<u64>)>,
        moving: Vec<u64>,
    }

    impl Naive {
        fn has_job(&self, regions: &[u64]) -> bool {
            let meets = |job: &[u64]| job.iter().any(|region| regions.contains(region));
            self.jobs.iter().any(|(_, job)| meets(job))
        }

        fn is_busy(&self, regions: &[u64]) -> bool {
            self.has_job(regions) || regions.iter().any(|region| self.moving.contains(region))
        }

        fn has_place(&self, bio: Bio) -> bool {
            let own = match bio {
                Bio::Failed => None,
                Bio::MainRead => Some(JOBS - 2),
                Bio::Deferred => Some(JOBS - 1),
            };
            let is_free = |place| self.jobs.iter().all(|(job, _)| *job != place);
            (0..JOBS - 2).chain(own).any(is_free)
        }
    }

    #[test]
    fn against_a_naive_one() {
        let mut seed = 1u64;
        let mut below = |bound: u64| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) % bound
        };
        let mut desk = Desk::new();
        let mut naive = Naive::default();
        let (mut started, mut taken, mut full) = (0, 0, 0);
        for _ in 0..50_000 {
            let (first, count) = (below(240 * MIB), 1 + below(3 * MIB));
            let range = Range::new(first, count as u32);
            let mut regions: Vec<u64> = (first..first + count).map(|s| s / MIB).collect();
            regions.dedup();
            match below(9) {
                0..=5 => {
                    let bio = match below(4) {
                        0 => Bio::Deferred,
                        1 => Bio::MainRead,
                        _ => Bio::Failed,
                    };
                    let (busy, place) = (naive.is_busy(&regions), naive.has_place(bio));
                    assert_eq!(desk.is_busy(range), busy);
                    let job = desk.start(range, bio);
                    assert_eq!(job.is_some(), !busy && place);
                    if let Some(job) = job {
                        assert!(job < JOBS && naive.jobs.iter().all(|(other, _)| *other != job));
                        naive.jobs.push((job, regions));
                        started += 1;
                    }
                    taken += u32::from(busy);
                    full += u32::from(!place);
                }
                6 | 7 if !naive.jobs.is_empty() => {
                    let index = below(naive.jobs.len() as u64) as usize;
                    let (job, _) = naive.jobs.swap_remove(index);
                    desk.end(job);
                }
                8 if naive.moving.is_empty() => {
                    // Two ranges, which need not be next to each other.
                    let other = below(240 * MIB);
                    desk.move_begin([range, Range::new(other, 1)].into_iter());
                    naive.moving = regions;
                    naive.moving.push(other / MIB);
                }
                8 => {
                    desk.move_end();
                    naive.moving.clear();
                }
                _ => (),
            }
            assert_eq!(desk.move_clear(), !naive.has_job(&naive.moving));
        }
        // All of it was met.
        assert!(
            started.min(taken).min(full) > 1000,
            "{started} {taken} {full}"
        );
    }

    #[test]
    fn ranges_reach_to_the_end() {
        assert!(Range::new(u64::MAX, 8).overlaps(&Range::new(u64::MAX - 1, 1)));
        assert!(Range::new(0, 0).overlaps(&Range::new(0, 1)));
    }

    #[test]
    fn nothing_is_in_nobodys_way() {
        let all = Range {
            first: 0,
            last: Range::new(u64::MAX, 1).last,
        };
        assert!(!all.overlaps(&Range::NOTHING) && !Range::NOTHING.overlaps(&all));
        assert!(!Range::NOTHING.overlaps(&Range::NOTHING));
        let mut desk = Desk::new();
        desk.move_begin([all].into_iter());
        assert!(desk.start(Range::NOTHING, Bio::Failed).is_some() && desk.move_clear());
        assert!(desk.start(Range::NOTHING, Bio::Failed).is_some());
    }
}
