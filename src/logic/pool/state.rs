// SPDX-License-Identifier: GPL-2.0

//! What is a member's pool used for: does it give slots, may they be read, does it count?
//!
//! Each member has one state, and this table says what becomes of it. An empty place is refused: nothing changes.
//!
//! ```text
//!             Nobody    Joining   Away     Used      Resting   Idle(w)     Lost(w)      Stranger
//!   Join      Joining   Joining   Joining
//!   Use       Used      Used      Used     Used      Resting   Idle(w)     Used (1)     Used
//!   Part      Away      Away      Away     Away      Away      Away        Away         Away
//!   Lose      Lost      Lost      Lost     Lost      Lost      Lost(w)     Lost(w)      Stranger
//!   Leave     Nobody    Nobody    Nobody   Nobody    Nobody    Nobody      Nobody       Nobody
//!   Activate  Nobody    Joining   Away     Used      Used      Used        Lost         Stranger
//!   Refuse                                                                 Stranger     Stranger
//!   Accept                                                                 Lost(w)      Lost
//!   Fail                                   Resting   Resting
//!   Recover                                Used      Used
//!   Empty                                  Idle(u)   Idle(u)   Idle(w)     Lost(w) (2)
//!   Omit                                   Idle(t)   Idle(t)   Idle(w)     Lost(w) (2)
//!   Fill                                   Used      Resting   Used        Lost
//!   Keep                                   Used      Resting   Used (3)    Lost (3)
//!
//!   w  whom it is idle for: a user (u) or a table (t); of one that is lost, if any
//!   1  Idle(w) if there is a w          2  Lost(u) or Lost(t) if there is none so far
//!   3  what it is if w is not t
//! ```
//!
//! - The first five are what superblocks and devices say ([`PoolEvent::said`]), again and again. So they are taken in each
//!   state, and where nothing is new nothing changes.
//! - That a spare is lost, and that it is to be taken out, can both be the case: it must not be filled again when it is
//!   back. So a state that is lost knows whom it was idle for.
//! - A member that is idle is not said to rest: it gives nothing anyway.
//!
//! That a member is to rest is decided by `logic/repair/place.rs`, and done by `Writer::let_rest`, for `REST_MS`, if others
//! have slots. When that is over it counts as used, without an event; `Recover` comes sooner.
//!
//! Two things are no states, as they are so of a member in any of these. Its writes may *stall*, which is measured
//! whenever somebody looks, and ends by itself ([`Pools::set_stalled`](super::Pools::set_stalled)). And new spares may
//! take over from it, which is a matter of what is recorded (`remap/session/take_over.rs`) and not of its slots.

use super::super::format::Member;

/// Whom a member is idle for that could give slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdleFor {
    /// A user, who has evacuated it.
    User,
    /// A table that is loaded and leaves it out. Until that is in use, or gone.
    Table,
}

/// What a member's pool is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PoolState {
    /// There is no such member.
    #[default]
    Nobody,
    /// It is about to be one: it has no superblock yet, and nothing lies on it.
    Joining,
    /// Its spare is not there, and the superblocks do not say so: they could not, or must not be written.
    Away,
    /// It gives slots.
    Used,
    /// It gives none for a while, as writing to them has failed.
    Resting,
    /// It gives none, as it is to be taken out.
    Idle(IdleFor),
    /// The set goes on without it. What is there may be read. When it is back, it is idle for whom it was before.
    Lost(Option<IdleFor>),
    /// It is lost, and something else is in its place. What is there is not read.
    Stranger,
}

/// What happens to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// Superblocks are to name it.
    Join,
    /// Superblocks name it, and its spare is there.
    Use,
    /// Its spare is not there, and superblocks do not say that it is missing.
    Part,
    /// Superblocks say that it is missing.
    Lose,
    /// Superblocks do not name it.
    Leave,
    /// A new activation begins: nobody is on the way to a slot, and what was asked for before counts no more.
    Activate,
    /// What is in its place was looked at, and is something else.
    Refuse,
    /// What is in its place is not known to be something else.
    Accept,
    /// A write to a slot has failed for reasons other than its medium, and others have slots.
    Fail,
    /// It gives slots again, although it has not rested for long enough: nobody else has some, or one is evacuated.
    Recover,
    /// A user wants no slots of it to be given out.
    Empty,
    /// A table is loaded that leaves it out.
    Omit,
    /// It is to be used, whoever wanted it to be idle.
    Fill,
    /// No table is loaded any more that leaves it out.
    Keep,
}

impl PoolEvent {
    /// All of them.
    pub const ALL: [PoolEvent; 14] = [
        PoolEvent::Join,
        PoolEvent::Use,
        PoolEvent::Part,
        PoolEvent::Lose,
        PoolEvent::Leave,
        PoolEvent::Activate,
        PoolEvent::Refuse,
        PoolEvent::Accept,
        PoolEvent::Fail,
        PoolEvent::Recover,
        PoolEvent::Empty,
        PoolEvent::Omit,
        PoolEvent::Fill,
        PoolEvent::Keep,
    ];

    /// What the superblock says of a member, if it names it, whose spare is `present` or not.
    pub fn said(member: Option<&Member>, present: bool) -> PoolEvent {
        match member {
            None => PoolEvent::Leave,
            Some(member) if member.missing => PoolEvent::Lose,
            Some(_) if !present => PoolEvent::Part,
            Some(member) if member.is_joining() => PoolEvent::Join,
            Some(_) => PoolEvent::Use,
        }
    }
}

impl PoolState {
    /// What it is after an event; none if it is refused.
    pub const fn after(self, event: PoolEvent) -> Option<PoolState> {
        use IdleFor::{
            Table,
            User, //
        };
        use PoolEvent as E;
        use PoolState as S;
        Some(match (self, event) {
            (S::Nobody | S::Joining | S::Away, E::Join) => S::Joining,

            (S::Nobody | S::Joining | S::Away | S::Lost(None) | S::Stranger, E::Use) => S::Used,
            (S::Lost(Some(whom)), E::Use) => S::Idle(whom),
            (S::Used | S::Resting | S::Idle(_), E::Use) => self,

            (_, E::Part) => S::Away,
            (_, E::Leave) => S::Nobody,

            (S::Idle(whom), E::Lose) => S::Lost(Some(whom)),
            (S::Lost(_) | S::Stranger, E::Lose) => self,
            (_, E::Lose) => S::Lost(None),

            (S::Used | S::Resting | S::Idle(_), E::Activate) => S::Used,
            (S::Lost(_), E::Activate) => S::Lost(None),
            (_, E::Activate) => self,

            (S::Lost(_) | S::Stranger, E::Refuse) => S::Stranger,
            (S::Stranger, E::Accept) => S::Lost(None),
            (S::Lost(_), E::Accept) => self,

            (S::Used | S::Resting, E::Fail) => S::Resting,
            (S::Used | S::Resting, E::Recover) => S::Used,

            (S::Used | S::Resting, E::Empty) => S::Idle(User),
            (S::Used | S::Resting, E::Omit) => S::Idle(Table),
            (S::Lost(None), E::Empty) => S::Lost(Some(User)),
            (S::Lost(None), E::Omit) => S::Lost(Some(Table)),
            (S::Idle(_) | S::Lost(Some(_)), E::Empty | E::Omit) => self,

            (S::Idle(_), E::Fill) | (S::Idle(Table), E::Keep) => S::Used,
            (S::Lost(_), E::Fill) | (S::Lost(Some(Table)), E::Keep) => S::Lost(None),
            (S::Used | S::Resting, E::Fill) => self,
            (S::Used | S::Resting | S::Idle(User), E::Keep) => self,
            (S::Lost(None | Some(User)), E::Keep) => self,

            _ => return None,
        })
    }

    /// What users are told.
    pub const fn name(self) -> &'static str {
        match self {
            PoolState::Nobody => "nobody",
            PoolState::Joining => "joining",
            PoolState::Away => "away",
            PoolState::Used => "used",
            PoolState::Resting => "resting",
            PoolState::Idle(_) => "idle",
            PoolState::Lost(_) => "lost",
            PoolState::Stranger => "stranger",
        }
    }

    /// Whether slots are given out, unless its writes stall.
    pub const fn gives_slots(self) -> bool {
        matches!(self, PoolState::Used)
    }

    /// Whether it is to give some, now or as soon as it can.
    pub const fn is_to_give(self) -> bool {
        matches!(
            self,
            PoolState::Joining | PoolState::Used | PoolState::Resting
        )
    }

    /// Whether it is a member whose spare is there and is believed.
    pub const fn is_usable(self) -> bool {
        matches!(self, PoolState::Idle(_)) || self.is_to_give()
    }

    /// Whether its slots count as capacity: of one that is idle or lost they do not.
    pub const fn counts(self) -> bool {
        matches!(self, PoolState::Away) || self.is_to_give()
    }

    /// Whether the set goes on without it: nothing is written there, and what is acknowledged is not there.
    pub const fn is_lost(self) -> bool {
        matches!(self, PoolState::Lost(_) | PoolState::Stranger)
    }

    /// Whether its slots are not to be read either.
    pub const fn is_unread(self) -> bool {
        matches!(self, PoolState::Stranger)
    }

    /// Whether somebody wants no slots of it to be given out.
    pub const fn is_idle(self) -> bool {
        matches!(self, PoolState::Idle(_) | PoolState::Lost(Some(_)))
    }
}

/// Which members' slots must not be read, or written, as one word: what `map` and `end_io` look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shut(u32);

impl Shut {
    /// From here on, a bit for each member of which nothing is read; before, for each to which nothing is written.
    const UNREAD_SHIFT: u32 = 8;

    /// Members that are lost, and those of them that are not read, a bit each.
    pub const fn new(lost: u8, unread: u8) -> Self {
        Shut(lost as u32 | (unread as u32) << Self::UNREAD_SHIFT)
    }

    /// Reads it from a word.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Shut(word)
    }

    /// Returns the word.
    pub const fn to_word(self) -> u32 {
        self.0
    }

    /// Whether slots of a member must not be read, or written.
    #[inline(always)]
    pub const fn has(self, member: u8, write: bool) -> bool {
        let shift = if write { 0 } else { Self::UNREAD_SHIFT };
        (self.0 >> ((member as u32 & 7) + shift)) & 1 != 0
    }

    /// The members that are lost, a bit each.
    pub const fn lost(self) -> u8 {
        self.0 as u8
    }
}
