// SPDX-License-Identifier: GPL-2.0

//! Can there be any remap in this range at all?
//!
//! One bit for each MiB of main says that some block of it, or of the next one, may be remapped, pending
//! or in doubt. It stands in front of the remap table, so that an I/O to a clean area costs one load and
//! one test: of the bit where it begins, as long as it is not larger than a MiB. The writer sets both bits
//! before the first such block of the MiB is published, and takes back those that stand for nothing any more.

use super::word::Word;

/// Sectors for each bit, as a power of two: 1 MiB.
const SHIFT: u32 = 11;

/// The most sectors that one bit tells about.
pub const SMALL: u32 = 1 << SHIFT;

/// How many 64-bit words main of `main_sectors` needs. None if that is more than can be addressed.
pub fn words_for(main_sectors: u64) -> Option<usize> {
    let bits = main_sectors.div_ceil(1 << SHIFT);
    usize::try_from(bits.div_ceil(64)).ok()
}

/// A presence bitmap in the caller's memory.
pub struct Presence<'a, W: Word<u64>> {
    words: &'a [W],
}

impl<'a, W: Word<u64>> Presence<'a, W> {
    /// Looks at a bitmap of [`words_for`] words.
    #[inline(always)]
    pub fn new(words: &'a [W]) -> Self {
        Presence { words }
    }

    /// Whether anything in a range of at most [`SMALL`] sectors may be remapped. Where the bitmap does not cover
    /// its beginning it may.
    #[inline(always)]
    pub fn any(&self, sector: u64) -> bool {
        self.bit(sector >> SHIFT)
    }

    /// How many sectors from `sector` on, at most `sectors`, are in whole MiB with nothing remapped. The MiB
    /// where they begin counts, too: of one that has something, both its bit and the one before are set.
    pub fn clean(&self, sector: u64, sectors: u32) -> u64 {
        let end = sector.saturating_add(sectors.into());
        let first = sector >> SHIFT;
        let mut word = first / 64;
        // The bits of MiB that are looked at, and the bit before the word.
        let mut wanted = u64::MAX << (first % 64);
        let mut before = match word.checked_sub(1) {
            Some(before) => self.word(before * 64).map_or(1, |word| word.load() >> 63),
            // Nothing is before the first MiB.
            None => 1,
        };
        let found = loop {
            let Some(bits) = self.word(word.saturating_mul(64)).map(Word::load) else {
                break word.saturating_mul(64);
            };
            let marked = bits & (bits << 1 | before) & wanted;
            if marked != 0 {
                break word
                    .saturating_mul(64)
                    .saturating_add(marked.trailing_zeros().into());
            }
            (wanted, before) = (u64::MAX, bits >> 63);
            word = word.saturating_add(1);
            if word.saturating_mul(64 << SHIFT) >= end {
                break u64::MAX;
            }
        };
        let found = found.saturating_mul(1 << SHIFT).max(sector);
        found.min(end) - sector
    }

    /// Marks the range. For the writer.
    #[inline]
    pub fn set(&self, sector: u64, sectors: u64) {
        let first = sector >> SHIFT;
        let last = sector.saturating_add(sectors).saturating_sub(1).max(sector) >> SHIFT;
        let mut bit = first.saturating_sub(1);
        while let Some(word) = self.word(bit) {
            // Whoever fills the bitmap comes to most bits many times.
            let (before, mark) = (word.load(), 1 << (bit % 64));
            if before & mark == 0 {
                word.store(before | mark);
            }
            if bit >= last {
                return;
            }
            bit = bit.wrapping_add(1);
        }
    }

    /// Takes back the marks that stand for nothing any more, of those that were set for `sector`. `is_used` tells
    /// whether something is remapped in the MiB that begins at a sector. For the writer.
    pub fn forget(&self, sector: u64, is_used: impl Fn(u64) -> bool) {
        let own = sector >> SHIFT;
        if is_used(own << SHIFT) {
            return;
        }
        // Each bit stands for a neighbour, too.
        for (bit, neighbour) in [
            (Some(own), own.checked_add(1)),
            (own.checked_sub(1), own.checked_sub(1)),
        ] {
            let used = neighbour.is_some_and(|mib| is_used(mib.saturating_mul(1 << SHIFT)));
            let Some(bit) = bit.filter(|_| !used) else {
                continue;
            };
            if let Some(word) = self.word(bit) {
                word.store(word.load() & !(1 << (bit % 64)));
            }
        }
    }

    #[inline(always)]
    fn word(&self, bit: u64) -> Option<&'a W> {
        self.words.get(usize::try_from(bit / 64).ok()?)
    }

    #[inline(always)]
    fn bit(&self, bit: u64) -> bool {
        match self.word(bit) {
            Some(word) => (word.load() >> (bit % 64)) & 1 != 0,
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;

    use super::{
        super::word::Word,
        words_for,
        Presence, //
    };

    fn bitmap(words: usize) -> std::vec::Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn sizes() {
        assert_eq!(words_for(0), Some(0));
        assert_eq!(words_for(1), Some(1));
        assert_eq!(words_for(64 * 2048), Some(1));
        assert_eq!(words_for(64 * 2048 + 1), Some(2));
    }

    #[test]
    fn borders_of_a_mebibyte() {
        let words = bitmap(4);
        let presence = Presence::new(&words);
        presence.set(2048 * 70, 8);
        // I/O that ends before the MiB does not need to be told so, if it begins in the one before.
        assert!(presence.any(2048 * 69));
        assert!(!presence.any(2048 * 69 - 1));
        assert!(presence.any(2048 * 71 - 1));
        assert!(!presence.any(2048 * 71));
        assert_eq!(presence.clean(3, 2048 * 100), 2048 * 70 - 3);
        assert_eq!(presence.clean(2048 * 70, 1), 0);
        assert_eq!(presence.clean(2048 * 71, 2048 * 100), 2048 * 100);
        assert_eq!(presence.clean(2048 * 71, 0), 0);
        presence.set(0, 1);
        assert!(presence.any(8));
        assert!(!presence.any(2048));
        assert_eq!(presence.clean(2047, 5000), 0);
        assert_eq!(presence.clean(2048, 5000), 5000);
    }

    /// Whatever begins where: nothing is missed, and what is more than a MiB away from all that is marked is
    /// clean. So it is again for what was marked once.
    #[test]
    fn agrees_with_a_plain_list() {
        let mut seed = 1u64;
        let mut below = |bound: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(99);
            (seed >> 33) % bound
        };
        let words = bitmap(6);
        let presence = Presence::new(&words);
        let mut plain = [false; 330];
        for round in 0..300 {
            let (first, count) = (below(256), 1 + below(4));
            let own = first as usize..(first + count) as usize;
            if round % 3 == 0 {
                presence.set(first * 2048 + 5, (count - 1) * 2048 + 1);
                plain[own].fill(true);
            } else {
                for mib in own.filter(|mib| *mib % 5 != 1) {
                    plain[mib] = false;
                    let is_used = |sector| plain[(sector / 2048) as usize];
                    presence.forget(mib as u64 * 2048 + 7, is_used);
                }
            }
            for from in (0..319u64).step_by(7) {
                for at in [from * 2048, from * 2048 + 9, from * 2048 + 2047] {
                    let from = from as usize;
                    assert_eq!(presence.any(at), plain[from] || plain[from + 1]);
                    for sectors in [1u32, 8, 2048, 2049, 5000, 20_000] {
                        let last = ((at + u64::from(sectors) - 1) >> 11) as usize;
                        let exact = plain[from..=last].iter().position(|marked| *marked);
                        let clean = presence.clean(at, sectors);
                        let first = |marked: usize| ((from + marked) as u64 * 2048).max(at) - at;
                        let exact = exact.map_or(sectors.into(), first);
                        assert!(clean <= exact, "missed");
                        // Between two that are marked nobody knows.
                        let alone = plain[from..=last + 1].iter().all(|marked| !marked);
                        assert!(!alone || clean == exact, "nothing is near");
                    }
                }
            }
        }
        for mib in 0..330 {
            presence.forget(mib * 2048, |_| false);
        }
        assert!(words.iter().all(|word| Word::load(word) == 0));
    }

    #[test]
    fn outside_is_possible() {
        let presence = Presence::<AtomicU64>::new(&[]);
        assert!(presence.any(0) && presence.any(u64::MAX));
        presence.set(0, 8);
        presence.forget(0, |_| false);
        presence.forget(u64::MAX, |_| false);
        assert_eq!(presence.clean(0, 9), 0);

        let words = bitmap(1);
        let presence = Presence::new(&words);
        assert!(presence.any(64 * 2048) && presence.any(u64::MAX));
        assert_eq!(presence.clean(u64::MAX - 1, 5), 0);
        assert_eq!(presence.clean(3, u32::MAX), 64 * 2048 - 3);
        assert_eq!(presence.clean(64 * 2048 - 1, 1), 1);
        presence.set(u64::MAX - 1, 8);
        presence.set(63 * 2048, 2 * 2048);
        assert!(presence.any(63 * 2048) && presence.any(62 * 2048));
        assert!(!presence.any(61 * 2048));
        assert_eq!(presence.clean(61 * 2048, 50_000), 2 * 2048);
    }
}
