// SPDX-License-Identifier: GPL-2.0

//! A table for a device that is in use: which state it goes on with, and how the set is to change for it.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    abstractions::block,
    logic::{
        format::{
            member_bit,
            Superblock,
            MEMBERS_MAX, //
        },
        load,
        set::{
            Name,
            NamedSpare,
            Plan,
            Refusal,
            Seen,
            Shown, //
        },
        text::Uuid, //
    },
    remap::{
        meta::{
            io::is_dead,
            state::MetaState, //
        },
        session::{
            leaving::Leaving,
            state::State, //
        }, //
    }, //
};

use super::{
    ctr::Prepared,
    line::{
        fresh_uuid,
        spare_of,
        Line,
        POOL_BIOS, //
    },
    load::{
        find_superblock,
        Refused,
        Return,
        Sight,
        Window, //
    },
    refuse::{
        in_use,
        CtrResult, //
    },
    registry::{
        Claims,
        Known, //
    },
    spares::{
        Spare,
        Spares, //
    }, //
};

impl Line<'_> {
    /// Finds the state that the old table uses.
    pub(super) fn find_state(&self, claims: &Claims) -> CtrResult<Option<Known>> {
        let mut known = claims.find(&self.parts()?).map_err(in_use)?;
        if known.is_none() {
            let unnamed = match self.find_renamed(claims)? {
                None => self.find_orphaned(claims)?,
                renamed => renamed,
            };
            known = unnamed.map(|state| Known {
                state,
                members: [None; MEMBERS_MAX as usize],
            });
        }
        if let Some(known) = &known {
            known
                .state
                .path
                .cover(&known.state.meta, self.main.sectors())?;
        }
        Ok(known)
    }

    /// Finds the state that the old table uses, if all of its spares that this one names have other names now,
    /// and nobody answers under the old ones.
    fn find_renamed(&self, claims: &Claims) -> CtrResult<Option<Arc<State>>> {
        if !claims.has_before() {
            return Ok(None);
        }
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let windows = self.windows(&pool)?;
        let mut superblock = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
        let found = find_superblock(&windows, 0, &mut superblock);
        let Ok(load::Found::Ours(chosen)) = found else {
            // Loading tells why.
            return Ok(None);
        };
        let Some(state) = claims.find_set(&superblock.set_uuid) else {
            return Ok(None);
        };
        for (index, member) in superblock.members() {
            let name = Name {
                index,
                uuid: member.uuid,
            };
            let used = state.meta.writer.lock().writer.metadata.is_present(index);
            if chosen.spare_of(index).is_some() && used && !is_gone(&state, name)? {
                return Ok(None);
            }
        }
        Ok(Some(state))
    }

    /// Finds the state that the old table uses, if all spares that this one names are new, and it says that the old
    /// ones are to be done without.
    fn find_orphaned(&self, claims: &Claims) -> CtrResult<Option<Arc<State>>> {
        if !self.options.degraded || !claims.leaves_remaps() {
            return Ok(None);
        }
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let windows = self.windows(&pool)?;
        let mut superblock = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
        match find_superblock(&windows, 0, &mut superblock) {
            Ok(load::Found::Blank) => Ok(claims.find_by_main(self.main)),
            Err(Refused::Why(Refusal::Content(error)))
                if self.options.format && error.may_be_formatted() =>
            {
                Ok(claims.find_by_main(self.main))
            }
            // Loading tells what is wrong.
            _ => Ok(None),
        }
    }

    /// Checks that a state which is in use is what the line means, and finds out how the set is to
    /// change.
    #[inline(never)]
    pub(super) fn join_state(&self, claims: Claims, known: Known) -> CtrResult<KBox<Prepared>> {
        let Known { state, members } = known;
        let state = claims.with(state);
        let mut spares = KVec::new();
        for (number, name) in (0u8..).zip(members).take(self.spares.len()) {
            spares.push(self.look_at(&state, number, name)?, GFP_KERNEL)?;
        }
        let mut leaving = Leaving::new(self.user.table)?;
        let mut dead = 0;
        if self.wanted().may_take_over(&spares) && state.meta.writer.lock().start.is_none() {
            dead = self.find_dead(&state, leaving.dead.insert(Spares::default()))?;
        }
        let mut plan = KBox::new(Plan::default(), GFP_KERNEL)?;
        let left = self.plan_in_use(&state.meta, &spares, dead, &mut plan)?;
        if plan.inherited == 0 {
            leaving.dead = None;
        }
        for name in left.into_iter().flatten() {
            if let Some(spare) = spare_of(&state, name) {
                leaving.spares.add(name.index, spare);
            }
        }
        self.found(state, plan, leaving)
    }

    /// Plans for a set in use. Returns the names of those that are to leave.
    #[inline(never)]
    fn plan_in_use(
        &self,
        meta: &MetaState,
        spares: &[NamedSpare],
        dead: u8,
        plan: &mut Plan,
    ) -> CtrResult<[Option<Name>; MEMBERS_MAX as usize]> {
        let locked = meta.writer.lock();
        let set = locked.writer.set(locked.start.as_ref());
        *plan = Plan::for_set_in_use(&self.wanted(), &set, spares, dead, fresh_uuid)
            .map_err(|refusal| self.refuse_spares(&refusal))?;
        let superblock = set.metadata.superblock();
        self.tell_grown(superblock, plan);
        let leaving = |index: u8| {
            plan.name_of(superblock, index)
                .filter(|_| plan.leaves(index))
        };
        Ok(core::array::from_fn(|index| leaving(index as u8)))
    }

    /// The members of a set in use of which nobody answers, a bit each; `found` gets the spares of those that there
    /// are devices of. Whoever answers ends that.
    #[inline(never)]
    fn find_dead(&self, state: &Arc<State>, found: &mut Spares) -> Result<u8> {
        let mut dead = 0;
        for index in 0..MEMBERS_MAX {
            // Not under the lock: it may take its time to answer.
            let (name, is_away) = {
                let locked = state.meta.writer.lock();
                let metadata = &locked.writer.metadata;
                let Some(member) = metadata.superblock().member(index) else {
                    continue;
                };
                let uuid = member.uuid;
                let away = !metadata.is_present(index) && !locked.writer.has_answered(index);
                (Name { index, uuid }, away)
            };
            match spare_of(state, name) {
                Some(spare) if is_dead(&state.pool, &spare)? => {
                    found.add(index, spare);
                }
                None if is_away => (),
                _ => break,
            }
            dead |= member_bit(index);
        }
        Ok(dead)
    }

    /// Looks who a spare of the line is. `name` is what tables before say.
    #[inline(never)]
    fn look_at(&self, state: &Arc<State>, number: u8, name: Option<Name>) -> CtrResult<NamedSpare> {
        let part = self.part(number.into())?;
        let spare = Spare {
            device: part.device.clone(),
            start: part.range.0,
            sectors: part.range.1.saturating_sub(part.range.0),
        };
        let member = {
            let locked = state.meta.writer.lock();
            let metadata = &locked.writer.metadata;
            let name = name.filter(|name| name.is_in(metadata.superblock()));
            name.map(|name| (name.index, metadata.is_usable(name.index)))
        };
        let seen = match member {
            None => self.identify(state, number, &spare)?,
            Some((_, true)) => Seen::Known,
            Some((index, false)) => {
                self.check_back(&state.meta, &state.pool, index, number, &spare)?;
                Seen::Known
            }
        };
        Ok(NamedSpare {
            name,
            seen,
            sectors: spare.sectors,
        })
    }

    /// Finds out who a spare is that a set in use is to have besides; it has this number in the table
    /// line.
    #[inline(never)]
    fn identify(&self, state: &Arc<State>, number: u8, spare: &Spare) -> CtrResult<Seen> {
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let window = Window {
            pool: &pool,
            spare: &spare.device,
            start: spare.start,
            sectors: spare.sectors,
        };
        let mut scratch = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
        let found = find_superblock(core::slice::from_ref(&window), 0, &mut scratch);
        let must_be_zero = match found {
            Ok(load::Found::Ours(chosen)) => {
                let shown = Shown::new(&chosen, &scratch, spare.sectors);
                let gone = match shown.own() {
                    Some(uuid) => self.is_gone_by_name(state, uuid)?,
                    None => false,
                };
                let locked = state.meta.writer.lock();
                let set = locked.writer.set(locked.start.as_ref());
                let seen = set.identify(&shown, gone, number);
                return seen.map_err(|refusal| self.refuse_spares(&refusal));
            }
            Ok(load::Found::Blank) => true,
            Err(Refused::Why(Refusal::Content(error)))
                if self.options.format && error.may_be_formatted() =>
            {
                false
            }
            Err(refused) => return Err(self.refuse_read(refused)),
        };
        let blank = self.blank(&window, must_be_zero);
        blank
            .map(Seen::Blank)
            .map_err(|refused| self.refuse_read(refused))
    }

    /// Whether a member is in use, and nobody answers where it was.
    fn is_gone_by_name(&self, state: &Arc<State>, uuid: Uuid) -> Result<bool> {
        let index = {
            let locked = state.meta.writer.lock();
            let metadata = &locked.writer.metadata;
            let index = metadata.superblock().find_member(&uuid);
            index.filter(|index| metadata.is_usable(*index))
        };
        match index {
            Some(index) => is_gone(state, Name { index, uuid }),
            None => Ok(false),
        }
    }

    /// Checks that a spare which was lost is still the member that it was, as far as it answers.
    fn check_back(
        &self,
        meta: &MetaState,
        pool: &block::BioPool,
        index: u8,
        number: u8,
        spare: &Spare,
    ) -> CtrResult<()> {
        // Not under the lock: it may take its time to answer.
        let seen = Sight::of(pool, spare)?;
        let locked = meta.writer.lock();
        let set = locked.writer.set(locked.start.as_ref());
        match seen.check(&set, index, number) {
            Return::Same | Return::Silent => Ok(()),
            Return::Refused(error) => Err(self.refuse_spares(&error.into())),
        }
    }
}

/// Whether nobody answers where the spare of a member is.
pub(super) fn is_gone(state: &Arc<State>, name: Name) -> Result<bool> {
    match spare_of(state, name) {
        Some(spare) => Ok(Sight::of(&state.pool, &spare)?.is_silent()),
        None => Ok(false),
    }
}
