// SPDX-License-Identifier: GPL-2.0

//! A spare that was away: whether it is still the member that it was (M9, M10).
//!
//! A device number says nothing: behind it may be a disk that was made anew, a copy from another day,
//! or the spare as it was used elsewhere meanwhile.

use kernel::prelude::*;

use crate::{
    abstractions::block,
    logic::{
        format::{
            Superblock,
            MEMBERS_MAX, //
        },
        load::{
            self,
            Chosen,
            Found,
            LoadError, //
        },
        text::Uuid, //
    },
    remap::setup::spares::Spare, //
};

use super::{
    find_superblock,
    Refused,
    Window, //
};

/// What can be said of a spare that was away.
pub(in crate::remap) enum Return {
    /// It is back.
    Same,
    /// It does not answer, or cannot be read.
    Silent,
    /// It is not what it was, for this reason.
    Refused(LoadError),
}

/// The name of the only spare of which superblocks were looked at, as these have it.
pub(in crate::remap) fn own_name(chosen: &Chosen, superblock: &Superblock) -> Option<Uuid> {
    let own = (0..MEMBERS_MAX).find(|index| chosen.spare_of(*index).is_some())?;
    superblock.member(own).map(|member| member.uuid)
}

/// Checks that what is `returning`, a superblock from a spare of so many sectors, can be member `index` of a
/// set in use again. If no member of that is used, `alone` is what [`load::check_renamed`] asks for: nobody has
/// gone without it then. `number` stands for it in messages.
pub(in crate::remap) fn check(
    set: &Superblock,
    alone: Option<u64>,
    returning: &Superblock,
    index: u8,
    number: u8,
    sectors: u64,
) -> Result<(), LoadError> {
    match alone {
        Some(durable) => load::check_renamed(set, durable, returning, index)?,
        None => load::check_return(set, returning, index, number).map(drop)?,
    }
    let member = set.member(index);
    load::check_window(
        member.ok_or(LoadError::NotMember { spare: number })?,
        sectors,
    )
}

/// What was read of a spare that was away.
pub(in crate::remap) struct Sight {
    superblock: KBox<Superblock>,
    /// The name of the member, if it is one; or why that is not known.
    found: Result<Option<Uuid>, Refused>,
    sectors: u64,
}

impl Sight {
    /// Reads the superblock on a spare.
    #[inline(never)]
    pub(in crate::remap) fn of(pool: &block::BioPool, spare: &Spare) -> Result<Self> {
        let mut superblock = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
        let window = Window {
            pool,
            spare: &spare.device,
            start: spare.start,
            sectors: spare.sectors,
        };
        let found = find_superblock(core::slice::from_ref(&window), 0, &mut superblock);
        let found = found.map(|found| {
            let Found::Ours(chosen) = found else {
                return None;
            };
            own_name(&chosen, &superblock)
        });
        Ok(Self {
            superblock,
            found,
            sectors: spare.sectors,
        })
    }

    /// Whether nobody answers there.
    pub(in crate::remap) fn is_silent(&self) -> bool {
        matches!(
            self.found,
            Err(Refused::Errno(_) | Refused::Content(LoadError::SuperblockUnreadable { .. }))
        )
    }

    /// Holds it against a set in use, whose member `index` it was. `alone` and `number` as in [`check`].
    pub(in crate::remap) fn check(
        &self,
        set: &Superblock,
        alone: Option<u64>,
        index: u8,
        number: u8,
    ) -> Return {
        let Some(was) = set.member(index).map(|member| member.uuid) else {
            return Return::Silent;
        };
        if self.is_silent() {
            return Return::Silent;
        }
        let checked = match &self.found {
            Ok(Some(uuid)) if *uuid == was && self.superblock.set_uuid == set.set_uuid => {
                check(set, alone, &self.superblock, index, number, self.sectors)
            }
            _ => Err(LoadError::Another {
                member: index,
                uuid: was,
            }),
        };
        match checked {
            Ok(()) => Return::Same,
            Err(error) => Return::Refused(error),
        }
    }
}
