// SPDX-License-Identifier: GPL-2.0

//! Can there be any remap in this range at all?
//!
//! One bit for each MiB of main says that some block of it, or of the next one, may be remapped, pending
//! or in doubt. It stands in front of the remap table, so that an I/O to a clean area costs one load and
//! one test: of the bit where it begins, as long as it is not larger than a MiB. The writer sets both bits
//! before the first such block of the MiB is published.

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

    /// Whether anything in the range may be remapped. Ranges that begin where the bitmap does not cover
    /// them may.
    #[inline(always)]
    pub fn any(&self, sector: u64, sectors: u32) -> bool {
        if sectors <= SMALL {
            self.bit(sector >> SHIFT)
        } else {
            Self::any_bit(self.words, sector, sectors)
        }
    }

    /// How many sectors from `sector` on, at most `sectors`, are in whole MiB with nothing remapped. The MiB
    /// where they begin counts, too: of one that has something, both its bit and the one before are set.
    pub fn clean(&self, sector: u64, sectors: u64) -> u64 {
        let end = sector.saturating_add(sectors);
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

    /// Takes back all marks. For the writer, when no reader looks at this bitmap.
    pub fn clear(&self) {
        for word in self.words {
            word.store(0);
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

    /// Not inlined: large ranges are rare, and this takes registers that have to be saved.
    #[inline(never)]
    fn any_bit(words: &'a [W], sector: u64, sectors: u32) -> bool {
        let Some(end) = sector.checked_add(u64::from(sectors)) else {
            return true;
        };
        // The last one is looked after by the bit before.
        let last = end.saturating_sub(1) >> SHIFT;
        let last = last.saturating_sub(1);
        let mut at = sector >> SHIFT;
        while at <= last {
            let Some(word) = Presence::new(words).word(at) else {
                return true;
            };
            let word = word.load();
            let end = (at | 63).min(last);
            // Bits `at` to `end` of the word.
            let mask = (u64::MAX << (at % 64)) & (u64::MAX >> (63 - end % 64));
            if word & mask != 0 {
                return true;
            }
            let Some(next) = end.checked_add(1) else {
                return false;
            };
            at = next;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::words_for;
    use super::Presence;
    use core::sync::atomic::AtomicU64;

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
        assert!(presence.any(2048 * 69, 1));
        assert!(!presence.any(2048 * 69 - 1, 2048));
        assert!(presence.any(2048 * 70 - 1, 2));
        assert!(presence.any(2048 * 71 - 1, 1));
        assert!(!presence.any(2048 * 71, 1));
        assert!(presence.any(0, 2048 * 256));
        assert!(!presence.any(0, 2048 * 70));
        assert!(presence.any(0, 2048 * 70 + 1));
        assert!(presence.any(2048 * 70, 0));
        presence.clear();
        assert!(!presence.any(0, 2048 * 256));
        presence.set(0, 1);
        assert!(presence.any(0, 8));
        assert!(!presence.any(2048, 8));
    }

    /// Whatever begins where, of whatever size: nothing is missed, and what is more than a MiB away from
    /// all that is marked is clean.
    #[test]
    fn agrees_with_a_plain_list() {
        let words = bitmap(5);
        let presence = Presence::new(&words);
        let mut plain = [false; 322];
        let mut seed = 1u64;
        for _ in 0..60 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(99);
            let first = seed >> 33 & 255;
            let count = 1 + (seed >> 50 & 3);
            presence.set(first * 2048 + 5, (count - 1) * 2048 + 1);
            plain[first as usize..(first + count) as usize].fill(true);
            for from in (0..319u64).step_by(7) {
                for sectors in [1u32, 8, 2000, 2048, 2049, 4096, 5000, 20_000, 200_000] {
                    for at in [from * 2048, from * 2048 + 9, from * 2048 + 2047] {
                        let last = (at + u64::from(sectors) - 1) >> 11;
                        if last >= 319 {
                            continue;
                        }
                        let (from, last) = (from as usize, last as usize);
                        let told = presence.any(at, sectors);
                        let near = plain[from..=last + 1].contains(&true);
                        assert!(told || !plain[from..=last].contains(&true), "missed");
                        assert!(near || !told, "nothing is near");
                        let exact = plain[from..=last].iter().position(|marked| *marked);
                        let clean = presence.clean(at, sectors.into());
                        let first = |marked: usize| ((from + marked) as u64 * 2048).max(at) - at;
                        assert!(clean <= exact.map_or(sectors.into(), first), "missed");
                    }
                }
            }
        }
    }

    #[test]
    fn outside_is_possible() {
        let words = bitmap(1);
        let presence = Presence::new(&words);
        assert!(presence.any(64 * 2048, 8));
        assert!(presence.any(0, 66 * 2048));
        assert!(presence.any(u64::MAX - 1, 8));
        assert!(presence.any(u64::MAX - 1, 5000));
        presence.set(u64::MAX - 1, 8);
        presence.set(63 * 2048, 2 * 2048);
        assert!(presence.any(63 * 2048, 1));
        assert!(presence.any(62 * 2048, 1));
        assert!(!presence.any(61 * 2048, 1));
        assert_eq!(presence.clean(61 * 2048, 5000), 2048);
        assert_eq!(presence.clean(64 * 2048, 5), 0);
        assert_eq!(presence.clean(u64::MAX - 1, 5), 0);
        assert_eq!(presence.clean(0, u64::MAX), 62 * 2048);
        presence.clear();
        assert_eq!(presence.clean(3, u64::MAX), 64 * 2048 - 3);
        assert_eq!(presence.clean(64 * 2048 - 1, 1), 1);
        assert_eq!(presence.clean(5, 0), 0);
    }
}
