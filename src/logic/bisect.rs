// SPDX-License-Identifier: GPL-2.0

//! Which single blocks of a failed range are bad?
//!
//! The range is tried in halves, from its start on, until every block either was part of a try
//! that succeeded or failed by itself. A range of n blocks with k bad ones takes about
//! 2 k log2(n / k) tries. A block that fails is reported with its neighbours that fail, too, so
//! that they can be moved in one go.
//!
//! ```text
//!   try 0..8 fails   0..4 good   4..8 fails   4..6 fails   4 good   5 bad   6..8 good
//!                                                                   `- reported: 5, 1 block
//! ```

/// The longest range, in blocks.
pub const BLOCKS_MAX: u32 = 1 << 16;

/// Each halving leaves one half to be tried later.
const DEPTH: usize = 17;

/// A part of the range: first block and number of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its first block, counted from the start of the range.
    pub first: u32,
    /// How many blocks it has.
    pub count: u32,
}

/// A search for the bad blocks of a range.
///
/// Call [`Bisect::next_try`] until it gives nothing, and after each try [`Bisect::report`]; at the
/// end [`Bisect::finish`].
#[derive(Clone, Debug)]
pub struct Bisect {
    /// What is still to be tried; the next one last.
    waiting: [Segment; DEPTH],
    depth: usize,
    current: Option<Segment>,
    bad: Option<Segment>,
    one_by_one: bool,
}

impl Bisect {
    /// Searches a range of `blocks`. None if there are none, or more than [`BLOCKS_MAX`].
    pub fn new(blocks: u32) -> Option<Self> {
        if blocks == 0 || blocks > BLOCKS_MAX {
            return None;
        }
        let mut bisect = Bisect {
            waiting: [Segment::default(); DEPTH],
            depth: 0,
            current: None,
            bad: None,
            one_by_one: false,
        };
        bisect.push(Segment {
            first: 0,
            count: blocks,
        });
        Some(bisect)
    }

    /// The next segment to try; none if every block is known.
    pub fn next_try(&mut self) -> Option<Segment> {
        if self.current.is_none() {
            let segment = self.pop()?;
            self.current = Some(if self.one_by_one {
                self.first_of(segment)
            } else {
                segment
            });
        }
        self.current
    }

    /// From now on, tries block by block. For ranges in which a failure takes long: k bad blocks are
    /// met k times then.
    pub fn one_by_one(&mut self) {
        self.one_by_one = true;
    }

    /// Gives up the search: gives, one after the other, what is known to be bad and what was not
    /// decided yet, in ascending order.
    pub fn rest(&mut self) -> Option<Segment> {
        if let Some(bad) = self.bad.take() {
            return Some(bad);
        }
        match self.current.take() {
            Some(segment) => Some(segment),
            None => self.pop(),
        }
    }

    /// The first block of a segment; the others are to be tried next.
    fn first_of(&mut self, segment: Segment) -> Segment {
        if segment.count > 1 {
            self.push(Segment {
                first: segment.first + 1,
                count: segment.count - 1,
            });
        }
        Segment {
            first: segment.first,
            count: 1,
        }
    }

    /// Takes the result of the try. Gives a run of bad blocks when one has come to its end.
    pub fn report(&mut self, good: bool) -> Option<Segment> {
        let segment = self.current.take()?;
        if good {
            return self.bad.take();
        }
        if segment.count == 1 {
            if let Some(bad) = &mut self.bad {
                if bad.first + bad.count == segment.first {
                    bad.count += 1;
                    return None;
                }
            }
            return self.bad.replace(segment);
        }
        if self.one_by_one {
            self.push(segment);
            return None;
        }
        let half = segment.count / 2;
        self.push(Segment {
            first: segment.first + half,
            count: segment.count - half,
        });
        self.push(Segment {
            first: segment.first,
            count: half,
        });
        None
    }

    /// Gives the last run of bad blocks.
    pub fn finish(mut self) -> Option<Segment> {
        self.bad.take()
    }

    fn pop(&mut self) -> Option<Segment> {
        self.depth = self.depth.checked_sub(1)?;
        self.waiting.get(self.depth).copied()
    }

    fn push(&mut self, segment: Segment) {
        // 2^16 blocks are halved 16 times, so that there is always room. A segment that is taken block
        // by block gives back what it has taken.
        if let Some(place) = self.waiting.get_mut(self.depth) {
            *place = segment;
            self.depth += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{
        Bisect,
        Segment,
        BLOCKS_MAX, //
    };

    fn search(mut bisect: Bisect, bad: &dyn Fn(u32) -> bool) -> (Vec<Segment>, u32) {
        let mut runs = Vec::new();
        let mut tries = 0;
        while let Some(segment) = bisect.next_try() {
            tries += 1;
            let good = !(segment.first..segment.first + segment.count).any(bad);
            runs.extend(bisect.report(good));
        }
        runs.extend(bisect.finish());
        (runs, tries)
    }

    fn plain(blocks: u32, bad: &dyn Fn(u32) -> bool) -> Vec<Segment> {
        let mut runs: Vec<Segment> = Vec::new();
        for first in (0..blocks).filter(|b| bad(*b)) {
            match runs.last_mut() {
                Some(run) if run.first + run.count == first => run.count += 1,
                _ => runs.push(Segment { first, count: 1 }),
            }
        }
        runs
    }

    #[test]
    fn finds_what_is_bad_and_only_that() {
        for blocks in [1, 2, 3, 7, 8, 9, 12] {
            for bits in 0u32..1 << blocks {
                let bad = |b: u32| bits >> b & 1 != 0;
                let expected = plain(blocks, &bad);
                assert_eq!(search(Bisect::new(blocks).unwrap(), &bad).0, expected);
            }
        }
    }

    #[test]
    fn one_by_one_meets_each_bad_block_once() {
        for blocks in [1, 2, 7, 12] {
            for bits in 0u32..1 << blocks {
                for slow_from in 0..4 {
                    let bad = |b: u32| bits >> b & 1 != 0;
                    let mut bisect = Bisect::new(blocks).unwrap();
                    let (mut runs, mut tries, mut failures) = (Vec::new(), 0, 0);
                    while let Some(segment) = bisect.next_try() {
                        let good = !(segment.first..segment.first + segment.count).any(bad);
                        tries += 1;
                        if !good {
                            failures += 1;
                        }
                        if tries > slow_from && !good {
                            bisect.one_by_one();
                        }
                        runs.extend(bisect.report(good));
                    }
                    runs.extend(bisect.finish());
                    assert_eq!(runs, plain(blocks, &bad));
                    assert!(failures <= bits.count_ones() + slow_from + 1);
                }
            }
        }
    }

    #[test]
    fn the_rest_is_what_is_not_known_to_be_good() {
        for blocks in [1, 2, 7, 12] {
            for bits in 0u32..1 << blocks {
                for tries in 0..8 {
                    for slow in [false, true] {
                        let bad = |b: u32| bits >> b & 1 != 0;
                        let mut bisect = Bisect::new(blocks).unwrap();
                        let mut open: Vec<bool> = (0..blocks).map(|_| true).collect();
                        let mut given: Vec<bool> = (0..blocks).map(|_| false).collect();
                        for _ in 0..tries {
                            let Some(segment) = bisect.next_try() else {
                                break;
                            };
                            let range = segment.first..segment.first + segment.count;
                            let good = !range.clone().any(bad);
                            if slow {
                                bisect.one_by_one();
                            }
                            if good {
                                range.for_each(|b| open[b as usize] = false);
                            }
                            if let Some(run) = bisect.report(good) {
                                (run.first..run.first + run.count)
                                    .for_each(|b| given[b as usize] = true);
                            }
                        }
                        let mut last = None;
                        while let Some(segment) = bisect.rest() {
                            assert!(last < Some(segment.first));
                            last = Some(segment.first);
                            for block in segment.first..segment.first + segment.count {
                                assert!(!given[block as usize]);
                                given[block as usize] = true;
                            }
                        }
                        assert_eq!(given, open, "{blocks} {bits:b} {tries}");
                    }
                }
            }
        }
    }

    #[test]
    fn longest_range() {
        let all = |_: u32| true;
        let (runs, _) = search(Bisect::new(BLOCKS_MAX).unwrap(), &all);
        assert_eq!(
            runs,
            [Segment {
                first: 0,
                count: BLOCKS_MAX
            }]
        );
        let last = |b: u32| b == BLOCKS_MAX - 1;
        let (runs, tries) = search(Bisect::new(BLOCKS_MAX).unwrap(), &last);
        assert_eq!(runs, plain(BLOCKS_MAX, &last));
        assert!(tries <= 33, "{tries}");
        assert!(Bisect::new(0).is_none());
        assert!(Bisect::new(BLOCKS_MAX + 1).is_none());
    }
}
