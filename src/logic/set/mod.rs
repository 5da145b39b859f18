// SPDX-License-Identifier: GPL-2.0

//! Which spares belong to the set, and how does a table change that?
//!
//! A table line names spares, and the superblock says which of them are members. What differs is settled when the
//! table is resumed. Whether and how is decided when it is loaded, where the table in use is still whole, and from
//! values alone:
//!
//! 1. [`identity`]: who is it that answers where the line names a spare?
//! 2. [`plan`]: which member is each of them, who joins, who leaves, who is left out, and for whom do new ones take
//!    over? All of that is one [`Plan`].
//! 3. [`refusal`]: or why not, in the words that users see.
//!
//! What holds for each plan:
//! - Each spare of the line has a number, and no two have the same one. Who joins gets one that is free.
//! - Who serves blocks never leaves. A set goes without one that may hold something only at the user's explicit
//!   word (M9), and never without the only good copy of metadata.
//! - New spares take over only from members of which nobody answers, and only if they have room for all that these
//!   served (M9b).
//! - A line that names a set gets that one, and nothing is formatted for it (M10).
//! - Nothing of it is done in a read-only table that would have to be written down (M4).

pub mod identity;
pub mod plan;
pub mod refusal;

pub use self::{
    identity::{
        Seen,
        Shown, //
    },
    plan::Plan,
    refusal::Refusal, //
};

use super::{
    commit::Metadata,
    format::{
        member_bit,
        Superblock,
        MEMBERS_MAX, //
    },
    load::{
        self,
        Expected, //
    },
    text::Uuid, //
};

/// Names a member of a set. A number alone may be another one's by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its number.
    pub index: u8,
    /// Its UUID.
    pub uuid: Uuid,
}

impl Name {
    /// Whether a set has that member.
    pub fn is_in(&self, superblock: &Superblock) -> bool {
        let member = superblock.member(self.index);
        member.is_some_and(|member| member.uuid == self.uuid)
    }
}

/// A spare that a table line names.
#[derive(Clone, Copy, Debug)]
pub struct NamedSpare {
    /// Which member it is by the tables that were loaded before. Of one that is to join there is a name before it is
    /// a member, and it never is one if that table is not resumed.
    pub name: Option<Name>,
    /// Who it is by what it shows.
    pub seen: Seen,
    /// The sectors that the line gives.
    pub sectors: u64,
}

/// What a table line asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Which set, and of which main.
    pub expected: Expected<'a>,
    /// The set is to be used without the members that are not named.
    pub degraded: bool,
    /// What is on spares that are no members is overwritten.
    pub format: bool,
    /// Nothing is to be written.
    pub read_only: bool,
}

impl Wanted<'_> {
    /// Checks that a spare without metadata can be meant.
    pub fn check_blank(&self) -> Result<(), Refusal> {
        match self.expected.uuid {
            Some(_) => Err(Refusal::BlankWithUuid),
            None => Ok(()),
        }
    }

    /// Checks that there is something to be formatted, if that was asked for.
    fn check_format(&self, spares: &[NamedSpare]) -> Result<(), Refusal> {
        match self.format && !spares.iter().any(NamedSpare::is_blank) {
            true => Err(Refusal::HasMetadata),
            false => Ok(()),
        }
    }

    /// Checks that a set is the one that is meant, and that it can be used so.
    fn check_set(&self, superblock: &Superblock) -> Result<(), Refusal> {
        load::check_expected(superblock, &self.expected)?;
        match superblock.is_read_only() && !self.read_only {
            true => Err(Refusal::NewerFeatures),
            false => Ok(()),
        }
    }

    /// Whether new spares may take over from members that are dead: whether these are is asked only then.
    pub fn may_take_over(&self, spares: &[NamedSpare]) -> bool {
        self.degraded && spares.iter().all(NamedSpare::is_blank)
    }
}

impl NamedSpare {
    fn is_blank(&self) -> bool {
        matches!(self.seen, Seen::Blank(_))
    }
}

/// A set in use.
#[derive(Clone, Copy)]
pub struct InUse<'a> {
    /// What is known of it.
    pub metadata: &'a Metadata,
    /// How many blocks of main the slots of each member serve, or are set aside for.
    pub claims: [u32; MEMBERS_MAX as usize],
    /// The sequence of the last superblock that was written to its end.
    pub durable: u64,
    /// Members that new spares are taking over from; a bit each.
    pub inherited: u8,
    /// Members that have what another replica is to get before that is good; a bit each.
    pub sources: u8,
    /// Whether a table with it was resumed.
    pub activated: bool,
    /// Whether its spares have yet to get their first metadata.
    pub formatting: bool,
}

impl InUse<'_> {
    /// The first of these members, a bit each, that the set cannot go without, besides those of them that come
    /// before it.
    pub fn not_without(&self, members: u8) -> Option<u8> {
        (0..MEMBERS_MAX).find(|index| {
            let all = members & (member_bit(*index) | member_bit(*index).wrapping_sub(1));
            let needed = self.sources & all != 0 || !self.metadata.can_lose_all(all);
            members & member_bit(*index) != 0 && needed
        })
    }

    /// The sequence of the last superblock, if no member is used: as long as that is so, nobody goes without one that
    /// comes back.
    pub fn durable_alone(&self) -> Option<u64> {
        let mut members = self.metadata.superblock().members();
        let used = members.any(|(index, _)| self.metadata.is_usable(index));
        (!used).then_some(self.durable)
    }

    fn claims_of(&self, member: u8) -> u32 {
        self.claims.get(usize::from(member)).copied().unwrap_or(0)
    }
}
