// SPDX-License-Identifier: GPL-2.0

//! What follows from a flush that failed? (E6)
//!
//! A disk that cannot write what is in its cache may drop it, and report success from then on. So
//! whoever relies on a flush has to hear of the failure, once, and nothing may be called durable by
//! a flush that was sent before the failure came back:
//!
//! - A user's flush that fails goes up as an error. Device mapper drops it if data comes with the
//!   flush, so FUA writes fail, too, as long as the latch is closed.
//! - A flush of our own that fails has taken an error that was the user's. The next user's flush that
//!   comes back fails in its place, even if the disk says that it is good.
//! - A flush that was sent before the last failure came back cannot vouch for what was lost with it,
//!   and fails. One that was sent afterwards opens the latch if it is good.
//!
//! A latch is one word, for callers that change it without a lock.

/// The latch of a disk. See the module's documentation.
///
/// ```text
///   bits 0..32   how many flushes have failed
///   bit  32      closed
///   bit  33      somebody has yet to hear of it
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latch(u64);

/// How many flushes had failed when a flush was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

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
    pub const fn mapped(self) -> Ticket {
        Ticket(self.0 as u32)
    }

    const fn failed(self) -> Self {
        Latch(self.0 & Self::UNTOLD | Self::CLOSED | (self.0 as u32).wrapping_add(1) as u64)
    }

    /// A user's flush has come back.
    pub const fn ended(self, ticket: Ticket, good: bool) -> (Self, Answer) {
        if !good {
            // This one hears of it; of one of our own that was before, it does as well.
            return (Latch(self.failed().0 & !Self::UNTOLD), Answer::Pass);
        }
        if self.0 & Self::CLOSED == 0 {
            return (self, Answer::Pass);
        }
        if self.0 & Self::UNTOLD != 0 {
            return (Latch(self.0 & !Self::UNTOLD), Answer::Fail);
        }
        if ticket.0 != self.0 as u32 {
            return (self, Answer::Fail);
        }
        (Latch(self.0 & !Self::CLOSED), Answer::Pass)
    }

    /// A flush of our own has failed.
    pub const fn own_failed(self) -> Self {
        Latch(self.failed().0 | Self::UNTOLD)
    }

    /// Whether FUA writes fail.
    pub const fn fails_fua(self) -> bool {
        self.0 & Self::CLOSED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;
    use super::Latch;
    use super::Ticket;
    use std::vec::Vec;

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
    }

    #[test]
    fn our_own_failure_is_told_to_the_next() {
        let latch = Latch::default().own_failed();
        let (latch, answer) = latch.ended(latch.mapped(), true);
        assert_eq!((latch.fails_fua(), answer), (true, Answer::Fail));
        let (latch, answer) = latch.ended(latch.mapped(), true);
        assert_eq!((latch.fails_fua(), answer), (false, Answer::Pass));
    }

    /// Two users' flushes and one of our own, in every order of being sent and coming back, with every
    /// result. The disk loses what it has when a flush fails. No user's flush that was sent afterwards
    /// may be good before some user was told.
    #[test]
    fn every_order() {
        #[derive(Clone, Copy, Debug, PartialEq)]
        enum Event {
            Send(usize),
            Back(usize, bool),
            Own,
        }
        fn go(
            latch: Latch,
            sent: [Option<Ticket>; 3],
            back: [bool; 3],
            own: bool,
            lost: bool,
            trace: &mut Vec<Event>,
        ) {
            for user in 0..3 {
                if sent[user].is_none() {
                    let mut sent = sent;
                    sent[user] = Some(latch.mapped());
                    trace.push(Event::Send(user));
                    go(latch, sent, back, own, lost, trace);
                    trace.pop();
                } else if !back[user] {
                    for good in [true, false] {
                        let (next, answer) = latch.ended(sent[user].unwrap(), good);
                        let mut back = back;
                        back[user] = true;
                        trace.push(Event::Back(user, good));
                        let reported_good = good && answer == Answer::Pass;
                        assert!(!(reported_good && lost), "{trace:?}");
                        // An error was told: whoever flushes knows.
                        go(next, sent, back, own, false, trace);
                        trace.pop();
                    }
                }
            }
            if !own {
                trace.push(Event::Own);
                go(latch.own_failed(), sent, back, true, true, trace);
                trace.pop();
            }
        }
        let mut trace = Vec::new();
        go(
            Latch::default(),
            [None; 3],
            [false; 3],
            false,
            false,
            &mut trace,
        );
    }
}
