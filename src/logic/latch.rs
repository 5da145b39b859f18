// SPDX-License-Identifier: GPL-2.0

//! What follows from a flush that failed? (E6)
//!
//! A disk that cannot write what is in its cache may drop it, and report success from then on. So
//! whoever relies on a flush has to hear of the failure, once, and nothing may be called durable by
//! a flush that was sent before the failure came back. Device mapper drops the error of a flush that
//! goes before a write, so FUA writes fail, too, as long as the latch is closed.
//!
//! What becomes of a user's flush that comes back:
//!
//! ```text
//!   the disk says   and since it was sent               the user hears   the latch is
//!   failure                                             failure          closed, one more failure
//!   success         a failure has come back             failure          closed
//!   success         none, but one of our own flushes
//!                   failed and nobody has heard of it   failure          closed, one more failure
//!   success         none                                success          open
//! ```
//!
//! - Second row: it cannot vouch for what was lost with that failure, even if another flush was good
//!   since: that one's user is not this one. It closes the latch again, as it may have been sent for
//!   a FUA write, which has no other way to hear of it. It does not count as a failure: flushes that
//!   always overlap would fail each other for ever.
//! - Third row: a flush of our own that fails has taken an error that was a user's. It counts as
//!   a failure once more when it is told, so that no flush that is under way opens the latch before
//!   a FUA write that hears of it in this way is there.
//!
//! What remains: of a flush that fails nobody can tell whether it goes before a FUA write. If it does,
//! and another user's flush is sent and good before device mapper has sent that write, the write is
//! acknowledged. Its own data is durable; what its sender wrote before it may not be. A write with a
//! pre-flush and without FUA does not hear of it at all: nobody can tell it from other writes. And of two
//! flushes that come back at the same time, the good one may be asked about before the other one is.
//!
//! A latch is one word, for callers that change it without a lock.

/// The latch of a disk. See the module's documentation.
///
/// ```text
///   bits 0..32   how many flushes have failed; nobody holds a ticket for as long as this takes to wrap
///   bit  32      closed
///   bit  33      somebody has yet to hear of it
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Latch(u64);

/// How many flushes had failed when a flush was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlushTicket(pub u32);

/// What a user's flush is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the disk said.
    Pass,
    /// An error, although the disk said that it is good.
    Fail,
}

impl Latch {
    const CLOSED: u64 = 1 << 32;
    const UNTOLD: u64 = 1 << 33;

    /// Reads it from a word.
    pub const fn from_word(word: u64) -> Self {
        Latch(word)
    }

    /// Returns the word.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// A user's flush is sent to the disk.
    pub const fn mapped(self) -> FlushTicket {
        FlushTicket(self.0 as u32)
    }

    /// A failure that a user hears of.
    const fn told(self) -> Self {
        Latch(Self::CLOSED | (self.0 as u32).wrapping_add(1) as u64)
    }

    /// A user's flush has come back. To be asked of every one: also of those that are good while the
    /// latch is open.
    pub const fn ended(self, ticket: FlushTicket, good: bool) -> (Self, Answer) {
        if !good {
            return (self.told(), Answer::Pass);
        }
        if self.0 & Self::UNTOLD != 0 {
            return (self.told(), Answer::Fail);
        }
        if ticket.0 != self.0 as u32 {
            return (Latch(self.0 | Self::CLOSED), Answer::Fail);
        }
        (Latch(self.0 & !Self::CLOSED), Answer::Pass)
    }

    /// A flush of our own has failed. One that is good changes nothing: users have to hear of failures
    /// first.
    pub const fn own_failed(self) -> Self {
        Latch(self.told().0 | Self::UNTOLD)
    }

    /// Another disk's latch is given up: what users have yet to hear of there, they hear of here. (A flush
    /// that failed there may go before a FUA write that is not mapped yet.)
    pub const fn with_that_of(self, other: Latch) -> Self {
        if other.0 & Self::UNTOLD != 0 {
            return self.own_failed();
        }
        Latch(self.0 | other.0 & Self::CLOSED)
    }

    /// The same, given up: open. What was sent before a failure still cannot vouch for anything.
    pub const fn given_up(self) -> Self {
        Latch(self.0 & !(Self::CLOSED | Self::UNTOLD))
    }

    /// Whether FUA writes fail. To be asked when one is mapped: a flush that goes before it has come
    /// back by then.
    pub const fn fails_fua(self) -> bool {
        self.0 & Self::CLOSED != 0
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        vec::Vec, //
    };

    use super::{
        Answer,
        FlushTicket,
        Latch, //
    };

    /// Whether a user hears of success.
    fn is_good(disk_good: bool, answer: Answer) -> bool {
        disk_good && answer == Answer::Pass
    }

    #[test]
    fn a_failure_is_told_and_latched() {
        let latch = Latch::default();
        let ticket = latch.mapped();
        let (latch, answer) = latch.ended(ticket, false);
        assert_eq!(answer, Answer::Pass);
        assert!(latch.fails_fua());
        // One that was sent before cannot vouch for anything.
        let (latch, answer) = latch.ended(ticket, true);
        assert_eq!((latch.fails_fua(), answer), (true, Answer::Fail));
        let (latch, answer) = latch.ended(latch.mapped(), true);
        assert_eq!((latch.fails_fua(), answer), (false, Answer::Pass));
        // Nor can it now that another was good.
        let (latch, answer) = latch.ended(ticket, true);
        assert_eq!((latch.fails_fua(), answer), (true, Answer::Fail));
    }

    #[test]
    fn our_own_failure_is_told_to_the_next() {
        let latch = Latch::default().own_failed();
        let (first, second) = (latch.mapped(), latch.mapped());
        let (latch, answer) = latch.ended(first, true);
        assert_eq!((latch.fails_fua(), answer), (true, Answer::Fail));
        // The first may go before a FUA write that is not there yet.
        let (latch, answer) = latch.ended(second, true);
        assert_eq!((latch.fails_fua(), answer), (true, Answer::Fail));
        let (latch, answer) = latch.ended(latch.mapped(), true);
        assert_eq!((latch.fails_fua(), answer), (false, Answer::Pass));
    }

    #[test]
    fn flushes_that_always_overlap_come_right() {
        let (mut latch, _) = Latch::default().ended(FlushTicket(0), false);
        let mut under_way = FlushTicket(0);
        let mut answers = Vec::new();
        for _ in 0..4 {
            let sent = latch.mapped();
            let (next, answer) = latch.ended(under_way, true);
            (latch, under_way) = (next, sent);
            answers.push(answer);
        }
        use Answer::{
            Fail,
            Pass, //
        };
        assert_eq!(answers, [Fail, Pass, Pass, Pass]);
    }

    #[test]
    fn what_is_given_up_is_told_by_another() {
        let open = Latch::default();
        let (told, _) = open.ended(open.mapped(), false);
        let untold = open.own_failed();
        assert_eq!(open.with_that_of(open), open);
        let after = open.with_that_of(told);
        let (after, answer) = (after.fails_fua(), after.ended(after.mapped(), true));
        assert_eq!((after, answer), (true, (open, Answer::Pass)));
        let after = open.with_that_of(untold);
        let (after, answer) = after.ended(after.mapped(), true);
        assert_eq!((after.fails_fua(), answer), (true, Answer::Fail));
        for latch in [told, untold] {
            let given_up = latch.given_up();
            assert!(!given_up.fails_fua());
            assert_eq!(given_up.ended(open.mapped(), true).1, Answer::Fail);
            let now = given_up.mapped();
            assert_eq!(given_up.ended(now, true), (given_up, Answer::Pass));
        }
    }

    #[test]
    fn the_count_wraps_into_nothing_else() {
        let latch = Latch(u64::from(u32::MAX)).own_failed();
        assert_eq!(latch.to_word(), Latch::CLOSED | Latch::UNTOLD);
        let (latch, _) = latch.ended(latch.mapped(), true);
        assert_eq!(latch.ended(latch.mapped(), true).0.to_word(), 1);
    }

    /// Two users who have one flush under way at most, FUA writes, flushes of our own, and what is
    /// true.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    struct World {
        latch: Latch,
        flushes: [Option<Flush>; 2],
        /// A flush has failed, and nobody was told since.
        secret: bool,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    struct Flush {
        ticket: FlushTicket,
        /// Another has failed since it was sent.
        overtaken: bool,
    }

    impl World {
        fn disk_failed(&mut self) {
            self.secret = true;
            for flush in self.flushes.iter_mut().flatten() {
                flush.overtaken = true;
            }
        }

        fn tell(&mut self, good: bool) {
            assert!(!(good && self.secret), "good is told before bad: {self:?}");
            self.secret = false;
        }

        fn send(mut self, user: usize) -> Option<Self> {
            if self.flushes[user].is_some() {
                return None;
            }
            self.flushes[user] = Some(Flush {
                ticket: self.latch.mapped(),
                overtaken: false,
            });
            Some(self)
        }

        /// A flush comes back. Also returns what its user hears.
        fn end(mut self, user: usize, disk_good: bool) -> Option<(Self, bool)> {
            let flush = self.flushes[user].take()?;
            let (latch, answer) = self.latch.ended(flush.ticket, disk_good);
            let good = is_good(disk_good, answer);
            if !disk_good {
                self.disk_failed();
            }
            assert!(!(good && flush.overtaken), "{self:?}");
            // If device mapper drops the error, the write behind it has to fail.
            assert_eq!(latch.fails_fua(), !good, "{self:?}");
            self.latch = latch;
            self.tell(good);
            Some((self, good))
        }

        fn own_failed(mut self) -> Self {
            self.disk_failed();
            self.latch = self.latch.own_failed();
            self
        }

        fn fua(mut self) -> Self {
            self.tell(!self.latch.fails_fua());
            self
        }

        fn next(self) -> impl Iterator<Item = World> {
            let user = move |user| {
                let ends = [true, false].map(|good| self.end(user, good).map(|(world, _)| world));
                [self.send(user), ends[0], ends[1]]
            };
            let all = [user(0), user(1)].into_iter().flatten().flatten();
            all.chain([self.own_failed(), self.fua()])
        }

        /// What flushes hear that are sent one after the other while the disk is well.
        fn quiet(mut self) -> [bool; 3] {
            self.flushes = [None; 2];
            [(); 3].map(|()| {
                let sent = self.send(0).unwrap();
                let (world, good) = sent.end(0, true).unwrap();
                self = world;
                good
            })
        }
    }

    /// Every history of some length: what must never be told is never told, and a disk that is well
    /// again is believed soon.
    #[test]
    fn every_interleaving() {
        let mut seen = HashSet::new();
        let mut level = HashSet::from([World::default()]);
        for _ in 0..12 {
            let mut next = HashSet::new();
            for world in level {
                let untold = world.latch.to_word() & Latch::UNTOLD != 0;
                assert_eq!(world.quiet(), [!untold, true, true]);
                next.extend(world.next().filter(|world| seen.insert(*world)));
            }
            level = next;
        }
        assert!(seen.len() > 1000, "{}", seen.len());
    }
}
