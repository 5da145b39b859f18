// SPDX-License-Identifier: GPL-2.0

//! Spares that leave the set with a table that is loaded and not resumed so far. All of it is behind the writer's lock.

use kernel::prelude::*;

use crate::{
    abstractions::dm,
    logic::{
        format::MEMBERS_MAX,
        pool::state::PoolEvent, //
    },
    remap::{
        meta::state::Locked,
        setup::spares::Spares,
        user::state::UserState, //
    }, //
};

/// The spares that the next table leaves out because they are to leave the set: until then the table that
/// is in use has them open.
pub(in crate::remap) struct Leaving {
    /// The table that does.
    table: dm::TableId,
    pub(in crate::remap) spares: Spares,
    /// If new ones are to take over from dead ones: those of them that there are devices of.
    pub(in crate::remap) dead: Option<Spares>,
}

impl Leaving {
    /// What a table leaves out that is being made: nothing so far.
    pub(in crate::remap) fn new(table: dm::TableId) -> Result<KBox<Self>> {
        let leaving = Self {
            table,
            spares: Spares::default(),
            dead: None,
        };
        Ok(KBox::new(leaving, GFP_KERNEL)?)
    }
}

impl Locked {
    /// A table is loaded that leaves out spares. They have nothing, and get nothing from here on,
    /// unless another one is loaded. Afterwards `leaving` is what is not needed any more. Fails with [`EBUSY`] if
    /// one of them has got something meanwhile.
    pub(in crate::remap) fn leave(
        &mut self,
        user: &UserState,
        leaving: &mut Option<KBox<Leaving>>,
    ) -> Result {
        let serves = |member| self.writer.claims(member) != 0;
        let free = |next: &mut KBox<Leaving>| !next.spares.iter().any(|(member, _)| serves(member));
        let next = leaving.take_if(free).ok_or(EBUSY)?;
        *leaving = self.end_leaving(user);
        let spares = &next.spares;
        for (member, _) in spares.iter() {
            self.writer.change_pool(user, member, PoolEvent::Omit);
        }
        let alone = !(0..MEMBERS_MAX).any(|member| self.writer.gives_slots(member));
        if alone && spares.count() != 0 {
            // One that was evacuated and is kept is used again with the next table. Until then, there is no
            // other.
            for kept in (0..MEMBERS_MAX).filter(|member| spares.get(*member).is_none()) {
                self.writer.change_pool(user, kept, PoolEvent::Fill);
            }
        }
        self.leaving = Some(next);
        Ok(())
    }

    /// Nothing leaves for a table that was loaded. Returns what is not needed any more.
    fn end_leaving(&mut self, user: &UserState) -> Option<KBox<Leaving>> {
        let unused = self.leaving.take();
        if unused.is_some() {
            for member in 0..MEMBERS_MAX {
                self.writer.change_pool(user, member, PoolEvent::Keep);
            }
        }
        unused
    }

    /// Whether the table that is loaded leaves out a member.
    pub(in crate::remap) fn is_leaving(&self, member: u8) -> bool {
        let leaving = self.leaving.as_ref();
        leaving.is_some_and(|leaving| leaving.spares.get(member).is_some())
    }

    /// A table is gone. If it was not resumed, nothing leaves for it. Returns what is not needed any more.
    pub(in crate::remap) fn stay(
        &mut self,
        user: &UserState,
        table: dm::TableId,
    ) -> Option<KBox<Leaving>> {
        let own = |leaving: &KBox<Leaving>| leaving.table == table;
        match self.leaving.as_ref().is_some_and(own) {
            true => self.end_leaving(user),
            false => None,
        }
    }
}
