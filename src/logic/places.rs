// SPDX-License-Identifier: GPL-2.0

//! Where is a device asked whether it lives?
//!
//! Media fail in patterns: a dead head takes every n-th stripe, a dead channel the same part of each
//! unit, a scratch one area. Places that lie alike, such as halves and quarters of a device, may all
//! be in the pattern, while nearly everything is good. So places are drawn, other ones each time, in an
//! order that no pattern shares: if a part `p` of the device is bad, `n` of them all are with `p^n`.

/// Blocks of a device, drawn without end; none of a device without blocks.
#[derive(Clone, Debug)]
pub struct Places {
    state: u64,
    blocks: u64,
}

impl Places {
    /// Draws from blocks 0 to `blocks`, exclusive. Another seed gives other ones.
    pub const fn new(seed: u64, blocks: u64) -> Self {
        Places {
            state: seed,
            blocks,
        }
    }
}

impl Iterator for Places {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.blocks == 0 {
            return None;
        }
        // SplitMix64 (Steele, Lea, Flood 2014): seeds that follow each other give unlike numbers.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Some(((u128::from(z) * u128::from(self.blocks)) >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    const TRIED: usize = 16;

    /// How many of 10,000 times all places that are asked are bad.
    fn missed(blocks: u64, is_bad: impl Fn(u64) -> bool) -> usize {
        let all_bad = |seed: u64| Places::new(seed, blocks).take(TRIED).all(&is_bad);
        (0..10_000).filter(|seed| all_bad(*seed)).count()
    }

    #[test]
    fn none_of_nothing() {
        assert_eq!(Places::new(1, 0).next(), None);
        assert!(Places::new(1, 1).take(100).all(|place| place == 0));
    }

    #[test]
    fn all_of_the_device_is_drawn_from() {
        for blocks in [2, 3, 1000, u64::MAX] {
            let tenths: std::collections::BTreeSet<u64> = Places::new(7, blocks)
                .take(1000)
                .inspect(|place| assert!(*place < blocks))
                .map(|place| place / (blocks / 10).max(1))
                .collect();
            assert!(tenths.len() as u64 >= blocks.min(10), "{blocks}");
        }
    }

    /// E2: media that are bad in a regular pattern, of every period that is a power of two and of some that
    /// are none, at every phase that was tried: an eighth of it bad is never taken for all.
    #[test]
    fn no_regular_pattern_looks_like_all() {
        for blocks in [1 << 17, 1 << 20, 1_953_525_168 / 8] {
            for period in (3..20).map(|power| 1u64 << power).chain([24, 1000, 4095]) {
                for phase in [0, 1, period / 3, period - 1] {
                    let bad = |place: u64| (place + phase) % period < period / 8;
                    assert_eq!(missed(blocks, bad), 0, "{period} {phase} of {blocks}");
                }
            }
        }
    }

    /// Half of it bad, in one piece or every second block, is taken for all once in 65,536 times.
    #[test]
    fn a_half_rarely_looks_like_all() {
        let blocks = 1 << 20;
        assert!(missed(blocks, |place| place >= blocks / 2) < 4);
        assert!(missed(blocks, |place| place % 2 == 0) < 4);
    }
}
