// SPDX-License-Identifier: GPL-2.0

//! Who is it that answers where a set in use looks for a spare (M9, M10)?
//!
//! A device number says nothing: behind it may be a disk that was made anew, a copy from another day, or the spare
//! as it was used elsewhere meanwhile.
//!
//! Whether one that was away is used again: `InUse::check_returning`.

use super::{
    super::{
        format::{
            member_bit,
            Geometry,
            Superblock,
            MEMBERS_MAX, //
        },
        load::{
            self,
            Chosen,
            LoadError, //
        },
        text::Uuid, //
    },
    InUse,
    Refusal, //
};

/// Who a spare is that a table line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The member that it was in the tables before: it is in use, or back, or does not answer.
    Known,
    /// A member that was found by its superblock.
    Member(u8),
    /// A member in use that has another device than before: nobody answers there any more.
    Renamed(u8),
    /// Nothing so far. It would be laid out like this.
    Blank(Geometry),
}

/// What the superblocks on a single spare say.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    superblock: &'a Superblock,
    own: Option<Uuid>,
    sectors: u64,
}

impl<'a> Shown<'a> {
    /// Of a spare of so many sectors, of which `chosen` and `superblock` are what was read of it alone.
    pub fn new(chosen: &Chosen, superblock: &'a Superblock, sectors: u64) -> Self {
        let mut members = (0..MEMBERS_MAX).filter(|index| chosen.spare_of(*index).is_some());
        let own = members.next().and_then(|index| superblock.member(index));
        Shown {
            superblock,
            own: own.map(|member| member.uuid),
            sectors,
        }
    }

    /// The name of the member that they lie on.
    pub fn own(&self) -> Option<Uuid> {
        self.own
    }
}

impl InUse<'_> {
    /// Finds out who a spare is that is not known by a table before. `gone` tells whether nobody answers where the
    /// member of that name was. `number` stands for the spare in messages.
    pub fn identify(&self, shown: &Shown<'_>, gone: bool, number: u8) -> Result<Seen, Refusal> {
        let superblock = self.metadata.superblock();
        let index = shown.own.and_then(|uuid| superblock.find_member(&uuid));
        // Others are recording that what it has is lost.
        let is_lost = |index: u8| self.inherited & member_bit(index) != 0;
        let index = index
            .filter(|index| shown.superblock.set_uuid == superblock.set_uuid && !is_lost(*index));
        match index {
            Some(index) if gone && self.metadata.is_usable(index) => {
                load::check_renamed(superblock, self.durable, shown.superblock, index)?;
                Ok(Seen::Renamed(index))
            }
            Some(index) if !self.metadata.is_present(index) => {
                self.check_returning(shown, index, number)?;
                Ok(Seen::Member(index))
            }
            Some(_) => Err(LoadError::Twice {
                uuid: shown.own.unwrap_or(Uuid::NIL),
            }
            .into()),
            None => Err(Refusal::Stranger),
        }
    }

    /// Checks that what answers where member `index` was is that one still. Nothing is shown where there are no
    /// superblocks of ours. `number` stands for it in messages.
    pub fn check_back(
        &self,
        shown: Option<&Shown<'_>>,
        index: u8,
        number: u8,
    ) -> Result<(), LoadError> {
        let superblock = self.metadata.superblock();
        let member = superblock.member(index);
        let member = member.ok_or(LoadError::NotMember { spare: number })?;
        let same = |shown: &&Shown<'_>| {
            shown.own == Some(member.uuid) && shown.superblock.set_uuid == superblock.set_uuid
        };
        match shown.filter(same) {
            Some(shown) => self.check_returning(shown, index, number),
            None => Err(LoadError::Another {
                member: index,
                uuid: member.uuid,
            }),
        }
    }

    /// Checks that the spare of member `index` can be used again. If no member is used, it has to be as it was left:
    /// nobody has gone without it then.
    fn check_returning(&self, shown: &Shown<'_>, index: u8, number: u8) -> Result<(), LoadError> {
        let superblock = self.metadata.superblock();
        let member = superblock.member(index);
        let member = member.ok_or(LoadError::NotMember { spare: number })?;
        match self.durable_alone() {
            Some(durable) => load::check_renamed(superblock, durable, shown.superblock, index)?,
            None => load::check_return(superblock, shown.superblock, index, number).map(drop)?,
        }
        load::check_window(member, shown.sectors)
    }
}
