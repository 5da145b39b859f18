// SPDX-License-Identifier: GPL-2.0

//! Has a device failed as a whole? (P6, E2)
//!
//! A breaker stands for one direction of a device: reads, or writes. It counts bios that failed with
//! no success in between, and says what it takes to blame the medium for the next one:
//!
//! ```text
//!              failed: Life                 disproved
//!   quiet ------------------> counting ---------------------> open
//!     ^                         |  | failed, from the threshold on: Probe
//!     |         proven          |  +--> counting
//!     +-------------------------+                               |
//!     +---------------------------------------------------------+ proven
//! ```
//!
//! While it is open, errors pass up at once, but for one bio a second, which is to probe.
//!
//! A breaker fits into one word, for callers that change it without a lock.

/// How long an open breaker passes errors up between probes, in milliseconds.
pub const PROBE_INTERVAL_MS: u32 = 1000;

/// What it takes to blame the medium for a failed bio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// That the device does something at all: another block can be read.
    Life,
    /// That another block does what failed for this one.
    Probe,
}

/// The breaker of one direction. See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Bios in a row that failed; below 2^31.
    failures: u32,
    open: bool,
    /// When the next bio is to probe, in milliseconds and without the higher bits.
    probe_at: u32,
}

impl Breaker {
    const OPEN: u64 = 1 << 31;
    const FAILURES_MAX: u32 = (1 << 31) - 1;

    /// Reads it from a word.
    pub const fn from_word(word: u64) -> Self {
        Breaker {
            failures: word as u32 & Self::FAILURES_MAX,
            open: word & Self::OPEN != 0,
            probe_at: (word >> 32) as u32,
        }
    }

    /// Packs it into a word; one that is quiet into 0.
    pub const fn to_word(self) -> u64 {
        let open = if self.open { Self::OPEN } else { 0 };
        (self.probe_at as u64) << 32 | open | self.failures as u64
    }

    /// Whether it is open.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a success would tell nothing new.
    pub const fn is_quiet(&self) -> bool {
        !self.open && self.failures == 0
    }

    /// A bio has failed, and nothing of its direction has succeeded since. With a threshold of 0,
    /// failures are not counted.
    pub fn failed(&mut self, threshold: u32) -> Need {
        self.failures = self.failures.saturating_add(1).min(Self::FAILURES_MAX);
        if self.open || (threshold != 0 && self.failures >= threshold) {
            Need::Probe
        } else {
            Need::Life
        }
    }

    /// Something of its direction has succeeded. Returns whether that closes it.
    pub fn proven(&mut self) -> bool {
        let was_open = self.open;
        *self = Breaker::default();
        was_open
    }

    /// What [`Breaker::failed`] asked for was not to be had at `now`, in milliseconds. Returns whether
    /// that opens it.
    pub fn disproved(&mut self, now: u64) -> bool {
        let opens = !self.open;
        self.open = true;
        self.probe_at = (now as u32).wrapping_add(PROBE_INTERVAL_MS);
        opens
    }

    /// Whether a bio that failed at `now` is to be looked at, rather than passed up.
    pub fn admits(&mut self, now: u64) -> bool {
        if !self.open {
            return true;
        }
        let now = now as u32;
        // Times wrap around; one that is far ahead is long past.
        let wait = self.probe_at.wrapping_sub(now);
        if wait != 0 && wait <= PROBE_INTERVAL_MS {
            return false;
        }
        self.probe_at = now.wrapping_add(PROBE_INTERVAL_MS);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{
        Breaker,
        Need,
        PROBE_INTERVAL_MS, //
    };

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Failed,
        Proven,
        Disproved,
        Admits,
        /// Time goes on by so much.
        Wait(u64),
    }

    const INTERVAL: u64 = PROBE_INTERVAL_MS as u64;

    const EVENTS: [Event; 6] = [
        Event::Failed,
        Event::Proven,
        Event::Disproved,
        Event::Admits,
        Event::Wait(1),
        Event::Wait(INTERVAL - 1),
    ];

    /// All that happened since the last success, and when. Everything follows from that.
    #[derive(Clone, Default)]
    struct Naive {
        events: Vec<(u64, &'static str)>,
    }

    impl Naive {
        fn count(&self, name: &str) -> usize {
            let events = self.events.iter();
            events.filter(|(_, event)| *event == name).count()
        }

        fn is_open(&self) -> bool {
            self.count("disproved") != 0
        }

        fn admits(&self, now: u64) -> bool {
            let mut events = self.events.iter().rev();
            let last = events.find(|(_, event)| *event != "failed");
            !self.is_open() || last.is_none_or(|(at, _)| now - at >= INTERVAL)
        }
    }

    /// Lets every event follow, and compares.
    fn explore(breaker: Breaker, naive: &Naive, threshold: u32, base: u64, now: u64, depth: u32) {
        assert_eq!(breaker.is_open(), naive.is_open());
        let quiet = naive.count("failed") == 0 && !naive.is_open();
        assert_eq!(breaker.is_quiet(), quiet);
        if depth == 0 {
            return;
        }
        for event in EVENTS {
            let mut breaker = Breaker::from_word(breaker.to_word());
            let (mut naive, mut now) = (naive.clone(), now);
            let clock = base.wrapping_add(now);
            match event {
                Event::Failed => {
                    naive.events.push((now, "failed"));
                    let many = threshold != 0 && naive.count("failed") >= threshold as usize;
                    let need = match many || naive.is_open() {
                        true => Need::Probe,
                        false => Need::Life,
                    };
                    assert_eq!(breaker.failed(threshold), need);
                }
                Event::Proven => {
                    assert_eq!(breaker.proven(), naive.is_open());
                    naive.events.clear();
                }
                Event::Disproved => {
                    assert_eq!(breaker.disproved(clock), !naive.is_open());
                    naive.events.push((now, "disproved"));
                }
                Event::Admits => {
                    let admits = naive.admits(now);
                    assert_eq!(breaker.admits(clock), admits, "{:?}", naive.events);
                    if admits && naive.is_open() {
                        naive.events.push((now, "admitted"));
                    }
                }
                Event::Wait(ms) => now += ms,
            }
            explore(breaker, &naive, threshold, base, now, depth - 1);
        }
    }

    #[test]
    fn every_history() {
        let wraps = u64::from(u32::MAX);
        for threshold in [0, 1, 2, 3] {
            for base in [0, wraps - INTERVAL, wraps, u64::MAX] {
                explore(Breaker::default(), &Naive::default(), threshold, base, 0, 6);
            }
        }
    }

    #[test]
    fn counts_no_further_than_a_word_holds() {
        let mut breaker = Breaker::from_word(u64::from(Breaker::FAILURES_MAX - 1));
        for _ in 0..3 {
            assert_eq!(breaker.failed(1_000_000), Need::Probe);
            assert!(!breaker.is_open());
            assert_eq!(Breaker::from_word(breaker.to_word()), breaker);
        }
    }

    #[test]
    fn counts_to_the_threshold() {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            assert_eq!(breaker.failed(3), Need::Life);
        }
        assert_eq!(breaker.failed(3), Need::Probe);
        assert_eq!(breaker.failed(3), Need::Probe);
        assert!(!breaker.proven());
        assert!(breaker.is_quiet());
        assert_eq!(breaker.failed(3), Need::Life);
    }

    #[test]
    fn a_threshold_of_nothing_does_not_count() {
        let mut breaker = Breaker::default();
        for _ in 0..1000 {
            assert_eq!(breaker.failed(0), Need::Life);
        }
    }

    #[test]
    fn open_until_proven() {
        let mut breaker = Breaker::default();
        assert!(breaker.admits(5));
        assert!(breaker.disproved(1000));
        assert!(!breaker.disproved(1000));
        assert!(!breaker.admits(1000));
        assert!(!breaker.admits(1999));
        assert!(breaker.admits(2000));
        assert!(!breaker.admits(2001));
        assert!(breaker.admits(3000));
        // What is let through has to probe, whatever the threshold is.
        assert_eq!(breaker.failed(0), Need::Probe);
        assert!(breaker.proven());
        assert!(breaker.admits(3001));
        assert_eq!(breaker.to_word(), 0);
    }

    #[test]
    fn times_wrap_around() {
        for begin in [u64::from(u32::MAX) - 500, u64::from(u32::MAX), 1 << 32] {
            let mut breaker = Breaker::default();
            breaker.disproved(begin);
            assert!(!breaker.admits(begin));
            assert!(!breaker.admits(begin + 999));
            assert!(breaker.admits(begin + 1000));
            // Nothing happened for weeks.
            breaker.disproved(begin);
            assert!(breaker.admits(begin + (1 << 31) + 5));
        }
    }

    #[test]
    fn a_word_holds_it() {
        let mut breaker = Breaker::default();
        breaker.failed(1);
        breaker.disproved(12345);
        assert_eq!(Breaker::from_word(breaker.to_word()), breaker);
        assert_eq!(Breaker::from_word(0), Breaker::default());
    }
}
