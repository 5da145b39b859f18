// SPDX-License-Identifier: GPL-2.0

//! What is known of each copy of the superblock.
//!
//! ```text
//!         void: the superblock says so        |  in use
//!                                             |
//!   Joining --told--> Untried --tried---------+-> Tried --written--> Good --writing--> Doubtful
//!                      ^   |                  |     |                  ^                 |   ^
//!                there |   | away             |     | bad, failed      +-----written-----+   | writing,
//!                      |   v                  |     |                                    |   | counted
//!                      Void <-----------------+-----+----------- bad, lost --------------+   |
//!                                             |                                           Damaged
//! ```
//!
//! A copy that cannot be written for what its medium has done (*bad*) is void from then on, and the other copies say so
//! before anything else is written (M2). Each activation tries once whether it can be written again, as the disk may
//! have found another place for it. When fewer than two copies are in use, each operation tries all that are void:
//! the only good copy is not rewritten before there is another one (M1).
//!
//! Those of a spare that is about to join wait until all copies in use tell of it: from the first one on it may be newer
//! than the others, which must not be used without it then (M9).

use super::{
    super::super::format::{
        CopyId,
        MEMBERS_MAX,
        SUPER_COPIES, //
    },
    Metadata, //
};

/// What is known of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Copy {
    /// Void, and not tried again.
    Void,
    /// Void. The next pass tries to write it.
    Untried,
    /// Void, on a spare that is about to join.
    Joining,
    /// It is being written for the first time since it was void: the others say that it still is.
    Tried,
    /// In use, and whole.
    Good,
    /// In use; it may be bad or old, as a write to it did not end well, or not yet.
    Doubtful,
    /// In use; it was read, and found bad or old.
    Damaged,
}

/// What may happen to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Event {
    /// Its spare is about to join.
    Joins,
    /// All copies in use tell of the spares that are about to join.
    Told,
    /// Its spare is there again.
    There,
    /// Its spare is not there any more.
    Away,
    /// The set goes on without its spare.
    Lost,
    /// It is about to be tried.
    Try,
    /// It is about to be written, or counted among those that are.
    Writing,
    /// It was written.
    Written,
    /// It cannot be written, and the medium is to blame.
    Bad,
    /// It was not written, for another reason.
    Failed,
    /// Reading it again found it bad or old.
    Found,
}

impl Copy {
    /// Whether it is in use: the superblock does not call it void.
    pub(in super::super) fn lives(self) -> bool {
        match self {
            Copy::Void | Copy::Untried | Copy::Joining => false,
            Copy::Tried | Copy::Good | Copy::Doubtful | Copy::Damaged => true,
        }
    }

    /// What is known of it after that.
    fn after(self, event: Event) -> Self {
        match (self, event) {
            (_, Event::Joins) => Copy::Joining,
            (Copy::Joining, Event::Told) => Copy::Untried,
            (Copy::Void, Event::There) => Copy::Untried,
            (Copy::Untried | Copy::Joining, Event::Away) => Copy::Void,
            (Copy::Void | Copy::Untried | Copy::Joining, Event::Try) => Copy::Tried,
            (Copy::Good | Copy::Damaged, Event::Writing) => Copy::Doubtful,
            (Copy::Tried | Copy::Doubtful, Event::Written) => Copy::Good,
            (Copy::Tried | Copy::Doubtful, Event::Bad) => Copy::Void,
            (Copy::Tried, Event::Failed) => Copy::Void,
            (Copy::Good | Copy::Doubtful, Event::Found) => Copy::Damaged,
            (_, Event::Lost) => Copy::Void,
            (same, _) => same,
        }
    }
}

/// What is known of all copies.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Copies([Copy; (MEMBERS_MAX * SUPER_COPIES) as usize]);

impl Copies {
    /// Those of no set at all.
    pub(in super::super) const NONE: Copies =
        Copies([Copy::Void; (MEMBERS_MAX * SUPER_COPIES) as usize]);

    /// The copies of which that is known; a bit each.
    pub(in super::super) fn which(&self, is: impl Fn(Copy) -> bool) -> u16 {
        let bits = (0u32..).map(|place| 1u16.checked_shl(place).unwrap_or(0));
        let known = self.0.iter().zip(bits).filter(|(copy, _)| is(**copy));
        known.fold(0, |mask, (_, bit)| mask | bit)
    }

    /// What is known of one.
    pub(in super::super) fn of(&self, id: CopyId) -> Copy {
        let place = id.bit().trailing_zeros() as usize;
        self.0.get(place).copied().unwrap_or(Copy::Void)
    }

    /// What is known of one from here on.
    fn set(&mut self, id: CopyId, copy: Copy) {
        let place = id.bit().trailing_zeros() as usize;
        if let Some(known) = self.0.get_mut(place) {
            *known = copy;
        }
    }
}

impl Metadata {
    /// Takes over from the superblock which copies are in use; `damaged` ones of these are a bit each.
    pub(super) fn know_copies(&mut self, damaged: u16) {
        let live = self.superblock.live_supers();
        let all = (0..MEMBERS_MAX).flat_map(copies_on);
        for id in all {
            let copy = match (live & id.bit() != 0, damaged & id.bit() != 0) {
                (false, _) => Copy::Void,
                (true, false) => Copy::Good,
                (true, true) => Copy::Damaged,
            };
            self.copies.set(id, copy);
        }
    }

    /// Something happens to a copy. The only place where the superblock learns that one is void, or is not.
    pub(in super::super) fn note_copy(&mut self, id: CopyId, event: Event) {
        let copy = match self.superblock.member(id.member) {
            Some(_) => self.copies.of(id).after(event),
            None => Copy::Void,
        };
        self.copies.set(id, copy);
        self.superblock.set_super(id, copy.lives());
    }

    /// The spare of a member is there: what is void on it is tried again.
    pub(super) fn note_there(&mut self, index: u8) {
        let member = self.superblock.member(index);
        let joins = member.is_some_and(|member| member.is_joining());
        self.note_copies_on(index, if joins { Event::Joins } else { Event::There });
    }

    /// Something happens to all copies on a member.
    pub(super) fn note_copies_on(&mut self, member: u8, event: Event) {
        for id in copies_on(member) {
            self.note_copy(id, event);
        }
    }

    /// Something happens to all copies.
    pub(in super::super) fn note_all_copies(&mut self, event: Event) {
        for member in 0..MEMBERS_MAX {
            self.note_copies_on(member, event);
        }
    }
}

/// The copies on a member; a bit each.
pub(super) fn member_supers(member: u8) -> u16 {
    copies_on(member).fold(0, |mask, id| mask | id.bit())
}

fn copies_on(member: u8) -> impl Iterator<Item = CopyId> {
    (0..SUPER_COPIES).map(move |copy| CopyId { member, copy })
}

#[cfg(test)]
mod tests {
    use super::{
        Copy::{
            self,
            Damaged,
            Doubtful,
            Good,
            Joining,
            Tried,
            Untried,
            Void, //
        },
        Event::{
            self,
            Away,
            Bad,
            Failed,
            Found,
            Joins,
            Lost,
            There,
            Told,
            Try,
            Writing,
            Written, //
        }, //
    };

    const COPIES: [Copy; 7] = [Void, Untried, Joining, Tried, Good, Doubtful, Damaged];

    /// What each of them is after an event.
    const TABLE: [(Event, [Copy; 7]); 11] = [
        (Joins, [Joining; 7]),
        (
            Told,
            [Void, Untried, Untried, Tried, Good, Doubtful, Damaged],
        ),
        (
            There,
            [Untried, Untried, Joining, Tried, Good, Doubtful, Damaged],
        ),
        (Away, [Void, Void, Void, Tried, Good, Doubtful, Damaged]),
        (Lost, [Void; 7]),
        (Try, [Tried, Tried, Tried, Tried, Good, Doubtful, Damaged]),
        (
            Writing,
            [Void, Untried, Joining, Tried, Doubtful, Doubtful, Doubtful],
        ),
        (Written, [Void, Untried, Joining, Good, Good, Good, Damaged]),
        (Bad, [Void, Untried, Joining, Void, Good, Void, Damaged]),
        (
            Failed,
            [Void, Untried, Joining, Void, Good, Doubtful, Damaged],
        ),
        (
            Found,
            [Void, Untried, Joining, Tried, Damaged, Damaged, Damaged],
        ),
    ];

    #[test]
    fn each_row() {
        for (event, after) in TABLE {
            for (copy, after) in COPIES.into_iter().zip(after) {
                assert_eq!(copy.after(event), after, "{copy:?} after {event:?}");
            }
        }
    }

    /// M2, M9: none is in use but after it was tried, and none stays so whose medium is bad or whose spare is lost.
    #[test]
    fn in_use_only_when_written() {
        for (event, after) in TABLE {
            for (copy, after) in COPIES.into_iter().zip(after) {
                assert!(copy.lives() || !after.lives() || event == Try);
            }
        }
        for copy in [Tried, Doubtful] {
            assert!(!copy.after(Bad).lives());
        }
        assert!(COPIES.iter().all(|copy| !copy.after(Lost).lives()));
    }
}
