// SPDX-License-Identifier: GPL-2.0

//! The members of the set: who joins, leaves, is lost and comes back (M9).
//!
//! Of each member it is known whether its spare is *present*. The superblock says whether the set goes on without it:
//! then it is *missing*, and everything on its spare is void. Slots of a member are used if it is present and not missing.
//!
//! - Who is not present any more is made missing before anything else is written, by [`Metadata::lose_member`]. That is
//!   not possible if it has the only good copy of something.
//! - Who is present again stays missing until all that is void on it was made again, and is taken back by
//!   [`Metadata::return_member`].
//! - The set epoch rises whenever a member is lost, and with the first pass of an activation without a member that was
//!   missing before: that one may have superblock copies from a pass that no other member saw the end of, and these
//!   must not pass for newer than what is written from here on.

use super::{
    super::{
        super::{
            format::{
                member_bit,
                Geometry,
                Member,
                MEMBERS_MAX,
                REPLICAS, //
            },
            load::Chosen,
            text::Uuid, //
        },
        Failure,
        ALL_REPLICAS, //
    },
    copies::{
        member_supers,
        Event, //
    },
    Metadata, //
};

impl Metadata {
    /// Gives a name of its own, before [`Metadata::open`], to a blank spare that loading takes for a
    /// member which is about to join. The spare that was to have the name may be another one, and may
    /// have got superblocks that the others know nothing of: met again, these must not pass for this
    /// one's, nor for newer than what is done from here on.
    pub fn name_anew(&mut self, chosen: &Chosen, mut fresh: impl FnMut() -> Uuid) {
        let blank = chosen.joining & !chosen.begun;
        let mut renamed = false;
        for (spare, place) in chosen.spares.iter().zip(&mut self.superblock.members) {
            let is_blank = spare.is_some_and(|spare| blank & member_bit(spare) != 0);
            if let Some(member) = place.as_mut().filter(|_| is_blank) {
                member.uuid = fresh();
                renamed = true;
            }
        }
        if renamed {
            self.raise_set_epoch();
        }
    }

    /// The names of all members; of a number without a member, none.
    pub fn member_names(&self) -> [Uuid; MEMBERS_MAX as usize] {
        let name = |member: &Option<Member>| member.as_ref().map_or(Uuid::NIL, |m| m.uuid);
        self.superblock.members.each_ref().map(name)
    }

    /// Whether the spare of a member is there.
    pub fn is_present(&self, member: u8) -> bool {
        self.present & member_bit(member) != 0
    }

    /// Whether the slots of a member can be used: its spare is there, and is believed.
    pub fn is_usable(&self, index: u8) -> bool {
        let member = self.superblock.member(index);
        self.is_present(index) && member.is_some_and(|member| !member.missing)
    }

    /// Says whether the spare of a member is there. Of one that is there again, the superblock copies
    /// are tried again, and what is void on it can be made again.
    pub fn set_present(&mut self, index: u8, present: bool) {
        if !present {
            self.present &= !member_bit(index);
            self.note_copies_on(index, Event::Away);
            return;
        }
        self.present |= member_bit(index);
        self.note_there(index);
        self.stale |= member_supers(index) & !self.superblock.live_supers() != 0;
    }

    /// Adds a spare to the set under a number that is free, as a member without any slots in use so far. It is one
    /// when the next [`Metadata::sync`] has succeeded; after a failure, [`Metadata::remove_member`] takes it back.
    ///
    /// First all members tell of it, then it gets superblock copies of its own.
    pub fn add_member(&mut self, index: u8, uuid: Uuid, geometry: Geometry) -> Result<(), Failure> {
        let place = self.superblock.members.get_mut(usize::from(index));
        let place = place.ok_or(Failure::TooMany)?;
        if place.is_some() || geometry.slot_sectors() != self.superblock.slot_sectors {
            return Err(Failure::Blocks);
        }
        *place = Some(Member::new(index, uuid, geometry));
        self.present |= member_bit(index);
        self.note_copies_on(index, Event::Joins);
        self.stale = true;
        Ok(())
    }

    /// Takes a spare out of the set, whose slots serve nothing and which holds no replica of another
    /// member's table. It has left when the next [`Metadata::sync`] has succeeded.
    pub fn remove_member(&mut self, index: u8) -> Result<(), Failure> {
        let rest = self.superblock.members().any(|(other, _)| other != index);
        if !rest || self.superblock.guests(index).next().is_some() {
            return Err(Failure::NoPlace);
        }
        let supers = self.superblock.live_supers() & !member_supers(index);
        if supers.count_ones() < 2 {
            return Err(Failure::NoSuperblock);
        }
        if let Some(place) = self.superblock.members.get_mut(usize::from(index)) {
            *place = None;
        }
        self.present &= !member_bit(index);
        self.note_copies_on(index, Event::Lost);
        if self.rebuild.is_some_and(|rebuild| rebuild.member == index) {
            self.rebuild = None;
        }
        self.unsettled.forget_member(index);
        self.stale = true;
        Ok(())
    }

    /// Goes on without a member (M9): what lies on its spare is void, and nothing more is done with it. Not if that is
    /// the only replica of a table that is in use.
    pub fn lose_member(&mut self, index: u8) -> Result<(), Failure> {
        let Some(lost) = self.superblock.member(index) else {
            return Err(Failure::Blocks);
        };
        // While it is brought up to date it is missing still, and parts of it count already.
        let live_supers = self.superblock.live_supers() & member_supers(index);
        let lives = |(_, member): (u8, &Member)| member.lives_on(index);
        let counts = self.superblock.members().any(lives) || live_supers != 0;
        if lost.missing && !counts {
            self.set_present(index, false);
            return Ok(());
        }
        if !self.can_lose(index) {
            return Err(Failure::Device);
        }
        for other in 0..MEMBERS_MAX {
            let void = self.replicas_on(index, other);
            if let Some(member) = self.superblock.member_mut(other) {
                member.void_replicas |= void;
            }
        }
        if let Some(member) = self.superblock.member_mut(index) {
            member.missing = true;
        }
        self.present &= !member_bit(index);
        self.note_copies_on(index, Event::Lost);
        self.rebuild = None;
        self.raise_set_epoch();
        self.raise_epoch()
    }

    /// Whether the set can go on without a member: it does not have the only good copy of anything.
    pub fn can_lose(&self, index: u8) -> bool {
        self.can_lose_all(member_bit(index))
    }

    /// The same of several at once, a bit each.
    pub fn can_lose_all(&self, members: u8) -> bool {
        let all = || (0..MEMBERS_MAX).filter(|index| members & member_bit(*index) != 0);
        let needed = self.superblock.members().any(|(other, member)| {
            let void = all().fold(0, |void, index| void | self.replicas_on(index, other));
            let mut gone = (0..REPLICAS).filter(|replica| void & (1 << replica) != 0);
            let only = gone.any(|replica| self.unsettled.needs(replica, other));
            let left = ALL_REPLICAS & !(member.void_replicas | void);
            void != 0 && member.high_water != 0 && (left == 0 || only)
        });
        let lost = all().fold(0, |mask, index| mask | member_supers(index));
        let supers = self.superblock.live_supers() & !lost;
        !needed && supers.count_ones() >= 2
    }

    /// A member that was missing is there again, and everything on it that is void was made again as
    /// far as possible: its slots can be used after the next [`Metadata::sync`].
    pub fn return_member(&mut self, index: u8) {
        if let Some(member) = self.superblock.member_mut(index) {
            self.stale |= member.missing;
            member.missing = false;
        }
    }

    /// The superblock copies on spares that are there; a bit each.
    pub(in super::super) fn reachable_supers(&self) -> u16 {
        (0..MEMBERS_MAX)
            .filter(|member| self.is_present(*member))
            .fold(0, |mask, member| mask | member_supers(member))
            & self.superblock.all_supers()
    }

    /// The set is used without a member, or a name in it changes.
    pub(in super::super) fn raise_set_epoch(&mut self) {
        self.superblock.set_epoch = self.superblock.set_epoch.saturating_add(1);
        self.without = false;
    }
}
