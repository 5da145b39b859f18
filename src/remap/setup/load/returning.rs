// SPDX-License-Identifier: GPL-2.0

//! Looking at a spare that was away (`logic/set/identity.rs` decides what that tells).

use kernel::prelude::*;

use crate::{
    abstractions::block,
    logic::{
        format::Superblock,
        load::{
            Chosen,
            Found,
            LoadError, //
        },
        set::{
            InUse,
            Refusal,
            Shown, //
        }, //
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

/// What was read of a spare that was away.
pub(in crate::remap) struct Sight {
    superblock: KBox<Superblock>,
    /// None if there is nothing of ours; or why that is not known.
    found: Result<Option<Chosen>, Refused>,
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
        let found = found.map(|found| match found {
            Found::Ours(chosen) => Some(chosen),
            Found::Blank => None,
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
            Err(Refused::Errno(_)
                | Refused::Why(Refusal::Content(LoadError::SuperblockUnreadable { .. })))
        )
    }

    /// Holds it against a set in use, whose member `index` it was. `number` stands for it in messages.
    pub(in crate::remap) fn check(&self, set: &InUse<'_>, index: u8, number: u8) -> Return {
        if self.is_silent() || set.metadata.superblock().member(index).is_none() {
            return Return::Silent;
        }
        let chosen = self.found.as_ref().ok().and_then(Option::as_ref);
        let shown = chosen.map(|chosen| Shown::new(chosen, &self.superblock, self.sectors));
        match set.check_back(shown.as_ref(), index, number) {
            Ok(()) => Return::Same,
            Err(error) => Return::Refused(error),
        }
    }
}
