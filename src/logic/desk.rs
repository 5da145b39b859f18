// SPDX-License-Identifier: GPL-2.0

//! Who may work on which blocks of main at a time?
//!
//! Jobs serve failed bios, several at a time, but no two in the same region: each block is changed by
//! one at a time, and a slow region has one job and not all of them. Besides them, one range may be
//! moved by somebody else. One place is kept for jobs that are quick.

/// How many jobs there are at a time.
pub const JOBS: usize = 8;

/// A region has this many sectors, as a power of two: 1 MiB.
const REGION_SHIFT: u32 = 11;

/// A range of regions of main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u64,
    last: u64,
}

impl Range {
    /// The regions that some sectors touch.
    pub const fn new(sector: u64, sectors: u32) -> Self {
        let last = sector.saturating_add((sectors as u64).saturating_sub(1));
        Range {
            first: sector >> REGION_SHIFT,
            last: last >> REGION_SHIFT,
        }
    }

    const fn overlaps(&self, other: &Range) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Which ranges are taken.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    jobs: [Option<Range>; JOBS],
    moving: Option<Range>,
}

impl Desk {
    /// Nobody works.
    pub const fn new() -> Self {
        Desk {
            jobs: [None; JOBS],
            moving: None,
        }
    }

    fn has_job(&self, range: &Range) -> bool {
        self.jobs.iter().flatten().any(|job| job.overlaps(range))
    }

    /// Whether anybody has a part of a range.
    pub fn is_busy(&self, range: Range) -> bool {
        self.has_job(&range) || self.moving.is_some_and(|moving| moving.overlaps(&range))
    }

    /// Starts a job and returns its number; none if somebody has a part of its range, or there is no
    /// place.
    pub fn start(&mut self, range: Range, quick: bool) -> Option<usize> {
        if self.is_busy(range) {
            return None;
        }
        let places = if quick { JOBS } else { JOBS - 1 };
        let free = |place: &Option<Range>| place.is_none();
        let number = self.jobs.iter().take(places).position(free)?;
        *self.jobs.get_mut(number)? = Some(range);
        Some(number)
    }

    /// Ends a job.
    pub fn end(&mut self, number: usize) {
        if let Some(job) = self.jobs.get_mut(number) {
            *job = None;
        }
    }

    /// Keeps jobs from starting in a range that is to be moved. There must be no other.
    pub fn move_begin(&mut self, range: Range) {
        self.moving = Some(range);
    }

    /// Whether the range that is to be moved is free of jobs.
    pub fn move_clear(&self) -> bool {
        self.moving.is_none_or(|moving| !self.has_job(&moving))
    }

    /// Lets jobs start everywhere.
    pub fn move_end(&mut self) {
        self.moving = None;
    }
}

#[cfg(test)]
mod tests {
    use super::Desk;
    use super::Range;
    use super::JOBS;

    const MIB: u64 = 2048;

    #[test]
    fn one_job_a_region() {
        let mut desk = Desk::new();
        let first = desk.start(Range::new(0, 8), false).unwrap();
        assert_eq!(desk.start(Range::new(2040, 8), false), None);
        assert_eq!(desk.start(Range::new(2040, 16), true), None);
        let second = desk.start(Range::new(MIB, 8), false).unwrap();
        assert_ne!(first, second);
        desk.end(first);
        assert_eq!(desk.start(Range::new(2040, 16), true), None);
        desk.end(second);
        assert!(desk.start(Range::new(2040, 16), true).is_some());
    }

    #[test]
    fn one_place_is_kept() {
        let mut desk = Desk::new();
        for job in 0..JOBS as u64 - 1 {
            assert!(desk.start(Range::new(job * MIB, 1), false).is_some());
        }
        let last = JOBS as u64 * MIB;
        assert_eq!(desk.start(Range::new(last, 1), false), None);
        assert_eq!(desk.start(Range::new(last, 1), true), Some(JOBS - 1));
        assert_eq!(desk.start(Range::new(last + MIB, 1), true), None);
    }

    #[test]
    fn moving_waits_for_jobs_and_keeps_them_out() {
        let mut desk = Desk::new();
        let job = desk.start(Range::new(0, 8), false).unwrap();
        desk.move_begin(Range::new(100, 8));
        assert!(!desk.move_clear());
        assert_eq!(desk.start(Range::new(200, 8), false), None);
        desk.end(job);
        assert!(desk.move_clear());
        assert_eq!(desk.start(Range::new(200, 8), false), None);
        assert!(desk.start(Range::new(5 * MIB, 8), false).is_some());
        desk.move_end();
        assert!(desk.start(Range::new(200, 8), false).is_some());
    }

    #[test]
    fn ranges_reach_to_the_end() {
        assert!(Range::new(u64::MAX, 8).overlaps(&Range::new(u64::MAX - 1, 1)));
        assert!(Range::new(0, 0).overlaps(&Range::new(0, 1)));
    }
}
