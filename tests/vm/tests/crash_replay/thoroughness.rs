// SPDX-License-Identifier: GPL-2.0
//! How many of the possible crashes are tried.

use vmtest::guest::thorough;
use vmtest::guest::Dice;

use crate::medium::Crash;

/// Of the points, one in so many is tried where it is to be a sample.
const SAMPLE: u64 = 2;

/// How many.
pub(crate) struct Thoroughness {
    exhaustive: bool,
    /// Only this one, to look at a failure.
    only: Option<u64>,
    pub(crate) seed: u64,
    /// Of the writes to main without FUA, one in so many is a crash point.
    pub(crate) main_stride: u64,
}

impl Thoroughness {
    /// As the environment asks for.
    pub(crate) fn wanted() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(
                text.parse()
                    .unwrap_or_else(|_| panic!("{name}: {text:?} is no number")),
            )
        };
        let exhaustive = thorough();
        Self {
            exhaustive,
            only: number("DM_REMAP_CRASH_POINT"),
            seed: number("DM_REMAP_CRASH_SEED").unwrap_or(1),
            main_stride: if exhaustive { 1 } else { 40 },
        }
    }

    /// How long a workload is.
    pub(crate) fn steps(&self, normally: u64) -> u64 {
        normally * if self.exhaustive { 3 } else { 1 }
    }

    /// Whether a point is to be tried. Of a sample it is chance, so that no kind of point is left out: kinds come by turns.
    pub(crate) fn includes(&self, point: u64) -> bool {
        match self.only {
            Some(only) => only == point,
            None => self.exhaustive || Dice::new(self.seed.wrapping_add(point)).roll(SAMPLE) == 0,
        }
    }

    /// Which sectors of a write are there when it is torn.
    pub(crate) fn tears(&self, sectors: usize, dice: &mut Dice) -> Vec<Vec<bool>> {
        let prefix = |length: usize| (0..sectors).map(|at| at < length).collect();
        let suffix = |length: usize| (0..sectors).map(|at| at >= sectors - length).collect();
        let subset = |dice: &mut Dice| (0..sectors).map(|_| dice.roll(2) == 0).collect();
        if sectors < 2 {
            return Vec::new();
        }
        if self.exhaustive {
            let lengths = 1..sectors;
            let step = (sectors / 8).max(1);
            let mut all: Vec<Vec<bool>> = lengths.clone().step_by(step).map(prefix).collect();
            all.extend(lengths.step_by(step).map(suffix));
            all.extend((0..4).map(|_| subset(dice)));
            return all;
        }
        let length = 1 + dice.roll(sectors as u64 - 1) as usize;
        vec![match dice.roll(3) {
            0 => prefix(length),
            1 => suffix(length),
            _ => subset(dice),
        }]
    }

    /// In which other ways writes may be there or not, of which so many are not durable.
    pub(crate) fn reorders(&self, pending: usize, dice: &mut Dice) -> Vec<Crash> {
        let mut seed = || dice.roll(u64::MAX);
        match (pending, self.exhaustive) {
            (0, _) => Vec::new(),
            (_, true) => {
                let whole = (0..4).map(|_| Crash::Reordered(seed()));
                let mut all: Vec<Crash> = whole.collect();
                all.extend((0..4).map(|_| Crash::Scattered(seed())));
                all.push(Crash::Dropped);
                all
            }
            (_, false) if seed() % 2 == 0 => vec![Crash::Reordered(seed())],
            (_, false) => vec![Crash::Scattered(seed())],
        }
    }
}
