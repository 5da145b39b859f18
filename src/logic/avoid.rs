// SPDX-License-Identifier: GPL-2.0

//! Which ranges of main are not read any more, as its user says that they are bad?
//!
//! They are few, in order, and none touches another one: [`Avoided`] is what the superblock says, and what a message
//! changes. Readers have the same as cells ([`Ranges`]), two for each range. A block that a slot serves is served as ever:
//! only what main would be asked for is cut by them.

use core::fmt;

use super::{
    message::Blocks,
    table::{
        Run,
        RunKind, //
    },
    word::Word, //
};

/// How many ranges there can be.
pub const AVOIDED_MAX: usize = 64;

/// How many cells hold as many.
pub const CELLS: usize = 2 * AVOIDED_MAX;

/// There would be more ranges than [`AVOIDED_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Ranges of main that are not read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Avoided {
    /// Those behind the last one are [`NONE`].
    ranges: [Blocks; AVOIDED_MAX],
    count: usize,
}

const NONE: Blocks = Blocks { first: 0, count: 0 };

/// One past the last block.
fn end(range: &Blocks) -> u64 {
    range.first.saturating_add(range.count)
}

impl fmt::Debug for Avoided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

impl Avoided {
    /// None.
    pub const NOTHING: Avoided = Avoided {
        ranges: [NONE; AVOIDED_MAX],
        count: 0,
    };

    /// The ranges in order.
    pub fn ranges(&self) -> &[Blocks] {
        self.ranges.get(..self.count).unwrap_or(&[])
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One past the last block of the last range; 0 if there is none.
    pub fn end(&self) -> u64 {
        self.ranges().last().map_or(0, end)
    }

    /// Adds a range behind all others. False if it is empty, is not behind them with a block between, or there are too
    /// many.
    pub fn push(&mut self, range: Blocks) -> bool {
        let behind = self.end().saturating_add(1);
        let legal = range.count != 0
            && (self.count == 0 || range.first >= behind)
            && range.first.checked_add(range.count).is_some();
        match self.ranges.get_mut(self.count) {
            Some(place) if legal => {
                *place = range;
                self.count += 1;
                true
            }
            _ => false,
        }
    }

    /// Adds a range, which may have parts in others. After an error, all is as it was.
    pub fn add(&mut self, range: Blocks) -> Result<(), TooMany> {
        if range.count == 0 {
            return Ok(());
        }
        // Those that touch it become one with it.
        let (first, last) = (range.first, end(&range));
        let before = |own: &&Blocks| end(own) < first;
        let from = self.ranges().iter().take_while(before).count();
        let not_behind = |own: &&Blocks| own.first <= last;
        let to = self.ranges().iter().take_while(not_behind).count();
        let touched = self.ranges.get(from..to).unwrap_or(&[]);
        let first = touched.first().map_or(first, |own| own.first.min(first));
        let last = touched.last().map_or(last, |own| end(own).max(last));
        let whole = Blocks {
            first,
            count: last - first,
        };
        self.splice(from, to, [Some(whole), None])
    }

    /// Takes a range out. Returns how many blocks of it were in. After an error, all is as it was.
    pub fn remove(&mut self, range: Blocks) -> Result<u64, TooMany> {
        if range.count == 0 {
            return Ok(0);
        }
        let (first, last) = (range.first, end(&range));
        let before = |own: &&Blocks| end(own) <= first;
        let from = self.ranges().iter().take_while(before).count();
        let not_behind = |own: &&Blocks| own.first < last;
        let to = self.ranges().iter().take_while(not_behind).count();
        let touched = self.ranges.get(from..to).unwrap_or(&[]);
        let (Some(head), Some(tail)) = (touched.first(), touched.last()) else {
            return Ok(0);
        };
        let part = |from: u64, to: u64| {
            let count = to.checked_sub(from).filter(|count| *count != 0)?;
            Some(Blocks { first: from, count })
        };
        let (left, right) = (part(head.first, first), part(last, end(tail)));
        let all = touched.iter().map(|own| own.count).sum::<u64>();
        let kept = [left, right].into_iter().flatten().map(|own| own.count);
        let removed = all - kept.sum::<u64>();
        self.splice(from, to, [left, right])?;
        Ok(removed)
    }

    /// Puts up to two ranges in the place of some.
    fn splice(&mut self, from: usize, to: usize, with: [Option<Blocks>; 2]) -> Result<(), TooMany> {
        let (old, new) = (to.saturating_sub(from), with.iter().flatten().count());
        let count = self.count.saturating_sub(old).saturating_add(new);
        if count > AVOIDED_MAX {
            return Err(TooMany);
        }
        // Those behind it keep their order, and what they leave is not used.
        match new.checked_sub(old) {
            Some(more) => {
                if let Some(rest) = self.ranges.get_mut(to..count) {
                    rest.rotate_right(more.min(rest.len()));
                }
            }
            None => {
                if let Some(rest) = self.ranges.get_mut(from.saturating_add(new)..self.count) {
                    rest.rotate_left(old.saturating_sub(new).min(rest.len()));
                }
            }
        }
        for (place, range) in self.ranges.iter_mut().skip(from).zip(with.iter().flatten()) {
            *place = *range;
        }
        self.count = count;
        self.ranges.iter_mut().skip(count).for_each(|r| *r = NONE);
        Ok(())
    }

    /// Tells cells what the ranges are; there are [`CELLS`]. Returns how many of them are used.
    pub fn store(&self, cells: &[impl Word<u64>]) -> usize {
        let bounds = self.ranges().iter().flat_map(|r| [r.first, end(r)]);
        let stored = cells.iter().zip(bounds).map(|(cell, at)| cell.store(at));
        stored.count()
    }

    /// Takes over what cells say.
    pub fn load(&mut self, ranges: &Ranges<'_, impl Word<u64>>) {
        *self = Self::NOTHING;
        for index in 0..ranges.len() {
            let (first, end) = ranges.nth(index);
            self.push(Blocks {
                first,
                count: end.saturating_sub(first),
            });
        }
    }
}

/// What [`Avoided::store`] has told cells: for each range its first block, and one past its last.
#[derive(Clone, Copy)]
pub struct Ranges<'a, W: Word<u64>> {
    cells: &'a [W],
}

impl<'a, W: Word<u64>> Ranges<'a, W> {
    /// Looks at the cells that are used.
    pub fn new(cells: &'a [W]) -> Self {
        Ranges { cells }
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.cells.len() / 2
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn cell(&self, index: usize) -> u64 {
        self.cells.get(index).map_or(u64::MAX, Word::load)
    }

    fn nth(&self, index: usize) -> (u64, u64) {
        let first = index.saturating_mul(2);
        (self.cell(first), self.cell(first.saturating_add(1)))
    }

    /// The first range from `block` on: its part that is not before it, as first block and one past the last.
    pub fn next(&self, block: u64) -> Option<(u64, u64)> {
        // All before `low` end before or at the block, and none from `high` on does.
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.nth(middle).1 <= block {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let (first, end) = self.nth(low);
        (low < self.len()).then_some((first.max(block), end))
    }

    /// The first of some blocks that is not to be read.
    pub fn first_in(&self, first: u64, count: u64) -> Option<u64> {
        let (avoided, _) = self.next(first)?;
        (avoided - first < count).then_some(avoided)
    }

    /// How far what starts at `first` is served in one way, if `run` is what the remap table says of it.
    pub fn cut(&self, first: u64, run: Run) -> Run {
        if !matches!(run.kind, RunKind::Main | RunKind::Pending { .. }) {
            return run;
        }
        let within = |blocks: u64| u32::try_from(blocks).map_or(run.count, |c| c.min(run.count));
        match self.next(first) {
            None => run,
            Some((avoided, end)) if avoided == first => Run {
                kind: RunKind::Avoided,
                count: within(end - first),
            },
            Some((avoided, _)) => Run {
                kind: run.kind,
                count: within(avoided - first),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;

    use std::{
        collections::BTreeSet,
        vec::Vec, //
    };

    use super::{
        super::{
            message::Blocks,
            table::{
                Run,
                RunKind, //
            }, //
        },
        Avoided,
        Ranges,
        TooMany,
        AVOIDED_MAX,
        CELLS, //
    };

    fn blocks(first: u64, count: u64) -> Blocks {
        Blocks { first, count }
    }

    /// Whatever is added and taken out: it is what a plain set of blocks says, in as few ranges as can be, and readers
    /// see the same.
    #[test]
    fn agrees_with_a_plain_set() {
        let mut seed = 1u64;
        let mut below = |bound: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(99);
            (seed >> 33) % bound
        };
        let mut full = 0;
        for most in [4, 30, 300] {
            let mut avoided = Avoided::NOTHING;
            let mut plain = BTreeSet::new();
            for _ in 0..2000 {
                let range = blocks(below(500), below(most));
                let all = range.first..range.first + range.count;
                let before = avoided;
                let mut after = plain.clone();
                let changed = match below(5) {
                    0..=2 => {
                        after.extend(all);
                        avoided.add(range).map(|()| None)
                    }
                    _ => {
                        after.retain(|block| !all.contains(block));
                        avoided.remove(range).map(Some)
                    }
                };
                let starts = |set: &BTreeSet<u64>| {
                    let first = |block: &&u64| **block == 0 || !set.contains(&(**block - 1));
                    set.iter().filter(first).count()
                };
                match changed {
                    Ok(removed) => {
                        let gone = plain.len().saturating_sub(after.len()) as u64;
                        assert!(removed.is_none_or(|removed| removed == gone));
                        plain = after;
                    }
                    Err(TooMany) => {
                        full += 1;
                        assert!(starts(&after) > AVOIDED_MAX);
                        assert_eq!(avoided, before);
                    }
                }
                assert_eq!(avoided.ranges().len(), starts(&plain));
                let ranges = avoided.ranges().iter();
                let listed: Vec<u64> = ranges
                    .flat_map(|range| range.first..range.first + range.count)
                    .collect();
                assert!(listed.iter().eq(&plain));
                let mut again = Avoided::NOTHING;
                assert!(avoided.ranges().iter().all(|range| again.push(*range)));
                assert_eq!(again, avoided);
            }
            readers_see_it(&avoided, &plain);
        }
        assert!(full > 10, "{full}");
    }

    fn readers_see_it(avoided: &Avoided, plain: &BTreeSet<u64>) {
        let cells: Vec<AtomicU64> = (0..CELLS).map(|_| AtomicU64::new(7)).collect();
        let used = avoided.store(&cells);
        let ranges = Ranges::new(&cells[..used]);
        let mut copy = Avoided::NOTHING;
        copy.load(&ranges);
        assert_eq!(&copy, avoided);
        for first in 0..600 {
            for count in [1u32, 2, 7, 100] {
                let mut all = first..first + u64::from(count);
                let bad = all.find(|block| plain.contains(block));
                assert_eq!(ranges.first_in(first, count.into()), bad);
                let is_in = plain.contains(&first);
                let same = |block: &u64| plain.contains(block) == is_in;
                let length = (first..first + u64::from(count)).take_while(same).count();
                for kind in [RunKind::Main, RunKind::Pending { first: 3 }] {
                    let cut = ranges.cut(first, Run { kind, count });
                    let kind = if is_in { RunKind::Avoided } else { kind };
                    let count = length as u32;
                    assert_eq!(cut, Run { kind, count });
                }
                let kind = RunKind::Slots { first: 3 };
                assert_eq!(
                    ranges.cut(first, Run { kind, count }),
                    Run { kind, count },
                    "what a slot serves is served"
                );
            }
        }
    }

    #[test]
    fn what_is_pushed_is_in_order() {
        let mut avoided = Avoided::NOTHING;
        assert!(!avoided.push(blocks(3, 0)));
        assert!(!avoided.push(blocks(3, u64::MAX)));
        assert!(avoided.push(blocks(0, 3)));
        assert!(!avoided.push(blocks(2, 3)));
        assert!(!avoided.push(blocks(3, 3)), "these are one");
        assert!(avoided.push(blocks(4, 3)));
        for number in 2..AVOIDED_MAX as u64 {
            assert!(avoided.push(blocks(10 * number, 1)));
        }
        assert!(!avoided.push(blocks(1000, 1)));
        assert_eq!(avoided.add(blocks(1000, 1)), Err(TooMany));
        assert_eq!(avoided.remove(blocks(5, 1)), Err(TooMany));
        assert_eq!(avoided.remove(blocks(4, 1)), Ok(1));
        assert_eq!(avoided.remove(blocks(2000, 9)), Ok(0));
        assert_eq!(avoided.remove(blocks(0, u64::MAX)), Ok(3 + 2 + 62));
        assert!(avoided.is_empty());
        let cell = AtomicU64::new(0);
        assert_eq!(avoided.store(core::slice::from_ref(&cell)), 0);
        let nothing = Ranges::<AtomicU64>::new(&[]);
        assert!(nothing.is_empty() && nothing.first_in(0, u64::MAX).is_none());
    }
}
