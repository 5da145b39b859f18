// SPDX-License-Identifier: GPL-2.0

//! Can a disk's cache hold what users wrote? (P8: flushes go to the disks concerned)
//!
//! A flush of a disk that was not written since the last good one tells nobody anything, but fails if
//! the disk is away. So it is sent only if it is needed, and it is as long as some write is
//! not known to be durable. A write is covered by a flush that was sent after the write had come
//! back, once that flush has come back, and is good:
//!
//! ```text
//!   epoch      7         |      8          |    9
//!   writes     a   b     |   c             |
//!   flushes              |A----------------+------good: a, b are durable, c may not be
//!                                          |B-------------good: c is, too
//! ```
//!
//! So each flush begins an epoch, and the newest one with a write in it is remembered. Flush A above does
//! not cover c, and until A is good a third flush is needed for a and b, too: its sender must not
//! be told sooner that they are durable.
//!
//! A cache is one word, for callers that change it without a lock. They have to see to two orders: a
//! write is noted after it has come back, and before it is acknowledged; an epoch begins before its
//! flush is sent.

/// The cache of a disk. See the module's documentation.
///
/// ```text
///   bits 0..31    the present epoch
///   bits 31..62   the newest epoch with a write, if
///   bit  62       not all writes are durable
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cache(u64);

/// The epoch that ended when a flush was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sent(pub u32);

impl Cache {
    const EPOCH: u64 = (1 << 31) - 1;
    const DIRTY: u64 = 1 << 62;

    /// Of a disk that nobody knows anything about: it may hold something.
    pub const fn new() -> Self {
        Cache(Self::DIRTY)
    }

    /// Reads it from a word.
    pub const fn from_word(word: u64) -> Self {
        Cache(word)
    }

    /// Returns the word.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    const fn epoch(self) -> u64 {
        self.0 & Self::EPOCH
    }

    /// A user's write has come back, and is about to be acknowledged. Of many in one epoch only the first
    /// changes anything.
    pub const fn written(self) -> Self {
        Cache(Self::DIRTY | self.epoch() << 31 | self.epoch())
    }

    /// Nobody relies on what is in it any more.
    pub const fn given_up(self) -> Self {
        Cache(self.0 & !Self::DIRTY)
    }

    /// Whether a user's flush has to go to the disk.
    pub const fn is_dirty(self) -> bool {
        self.0 & Self::DIRTY != 0
    }

    /// A flush is about to be sent.
    pub const fn sent(self) -> (Self, Sent) {
        let next = (self.epoch() + 1) & Self::EPOCH;
        let sent = Sent(self.epoch() as u32);
        (Cache(self.0 & !Self::EPOCH | next), sent)
    }

    /// A flush has come back and is good. One that failed changes nothing.
    pub const fn flushed(self, sent: Sent) -> Self {
        let newest = self.0 >> 31 & Self::EPOCH;
        // Epochs wrap around; a write that seems to lie ahead is not covered.
        let age = (sent.0 as u64).wrapping_sub(newest) & Self::EPOCH;
        if age <= Self::EPOCH / 2 {
            Cache(self.0 & !Self::DIRTY)
        } else {
            self
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{
        Cache,
        Sent, //
    };

    const WRITES: usize = 3;
    const FLUSHES: usize = 2;

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    enum Write {
        #[default]
        Absent,
        /// It has come back, and nobody knows yet.
        Back,
        Acknowledged,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Flush {
        sent: Sent,
        /// What its sender knew to be written, and expects to be durable.
        expected: [bool; WRITES],
        /// What the disk had when it got the flush, if it did.
        covers: Option<[bool; WRITES]>,
    }

    /// Some writes, some flushes, and what the disk would still know after a power cut.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct World {
        cache: Cache,
        writes: [Write; WRITES],
        durable: [bool; WRITES],
        flushes: [Option<Flush>; FLUSHES],
    }

    impl World {
        fn acknowledged(&self) -> [bool; WRITES] {
            self.writes.map(|write| write == Write::Acknowledged)
        }

        fn tell(&self, expected: [bool; WRITES]) {
            for (expected, durable) in expected.into_iter().zip(self.durable) {
                assert!(durable || !expected, "{self:?}");
            }
        }

        fn write(mut self, number: usize) -> Self {
            self.writes[number] = match self.writes[number] {
                Write::Absent => Write::Back,
                Write::Back => {
                    self.cache = self.cache.written();
                    Write::Acknowledged
                }
                // Another one, to the same place.
                Write::Acknowledged => {
                    self.durable[number] = false;
                    for flush in self.flushes.iter_mut().flatten() {
                        flush.expected[number] = false;
                        if let Some(covers) = &mut flush.covers {
                            covers[number] = false;
                        }
                    }
                    Write::Back
                }
            };
            self
        }

        fn flush(mut self, number: usize, good: bool) -> Self {
            let expected = self.acknowledged();
            match &mut self.flushes[number] {
                None if !self.cache.is_dirty() => self.tell(expected),
                None => {
                    let (cache, sent) = self.cache.sent();
                    self.cache = cache;
                    self.flushes[number] = Some(Flush {
                        sent,
                        expected,
                        covers: None,
                    });
                }
                Some(flush) if flush.covers.is_none() => {
                    flush.covers = Some(self.writes.map(|write| write != Write::Absent));
                }
                Some(flush) => {
                    let Flush {
                        sent,
                        expected,
                        covers,
                    } = *flush;
                    self.flushes[number] = None;
                    if good {
                        for (durable, covered) in self.durable.iter_mut().zip(covers.unwrap()) {
                            *durable |= covered;
                        }
                        self.cache = self.cache.flushed(sent);
                        self.tell(expected);
                    }
                }
            }
            self
        }

        /// A disk that is left alone and flushed is clean.
        fn rest(mut self) {
            self.flushes = [None; FLUSHES];
            for _ in 0..3 {
                self = self.flush(0, true);
            }
            assert!(!self.cache.is_dirty(), "{self:?}");
        }
    }

    fn explore(begin: Cache) {
        let begin = World {
            cache: begin,
            writes: Default::default(),
            durable: [false; WRITES],
            flushes: [None; FLUSHES],
        };
        let mut seen = HashSet::new();
        let mut level = HashSet::from([begin]);
        for _ in 0..14 {
            let mut next = HashSet::new();
            for world in level {
                world.rest();
                let writes = (0..WRITES).map(|number| world.write(number));
                let flushes = (0..FLUSHES)
                    .flat_map(|number| [true, false].map(|good| world.flush(number, good)));
                next.extend(writes.chain(flushes).filter(|world| seen.insert(*world)));
            }
            level = next;
        }
        assert!(seen.len() > 10_000, "{}", seen.len());
    }

    #[test]
    fn every_interleaving() {
        explore(Cache::new());
    }

    #[test]
    fn every_interleaving_where_epochs_wrap() {
        explore(Cache(Cache::EPOCH - 2).written());
        explore(Cache(Cache::EPOCH - 1).written());
    }

    #[test]
    fn begins_dirty_and_needs_one_flush() {
        let (cache, sent) = Cache::new().sent();
        assert!(cache.is_dirty());
        let cache = cache.flushed(sent);
        assert!(!cache.is_dirty());
        let cache = cache.written();
        assert!(cache.is_dirty());
        assert_eq!(cache.written(), cache);
        // One that was sent before does not cover it.
        assert!(cache.flushed(sent).is_dirty());
        assert_eq!(Cache::from_word(cache.to_word()), cache);
    }
}
