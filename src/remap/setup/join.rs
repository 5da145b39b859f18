// SPDX-License-Identifier: GPL-2.0

//! A table for a device that is in use: which state it goes on with, and how the set is to change for it.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    abstractions::{
        block,
        dm, //
    },
    logic::{
        errno::Errno,
        format::{
            member_bit,
            Geometry,
            Member,
            Superblock,
            MEMBERS_MAX, //
        },
        load::{
            self,
            LoadError, //
        },
        text::Uuid, //
    },
    remap::{
        meta::io::is_dead,
        session::{
            activate::not_without,
            state::{
                Leaving,
                State, //
            }, //
        }, //
    }, //
};

use super::{
    changes::Changes,
    ctr::Prepared,
    line::{
        spare_of,
        Line,
        POOL_BIOS, //
    },
    load::{
        find_superblock,
        returning,
        Refused,
        Return,
        Sight,
        Window, //
    },
    refuse::{
        in_use,
        refuse,
        too_many,
        CtrResult,
        HAS_METADATA,
        NO_ROOM,
        READ_ONLY,
        STILL_SERVES, //
    },
    registry::{
        Claims,
        Known,
        Name, //
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
            known.state.cover(self.main.sectors())?;
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
            let used = state.writer.lock().writer.metadata.is_present(index);
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
            Err(Refused::Content(error)) if self.options.format && error.may_be_formatted() => {
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
        let Known {
            state,
            members: names,
        } = known;
        let state = claims.with(state);
        let mut fresh = KVec::new();
        let all = self.spares.iter().zip(self.windows).zip(0u8..);
        for (((spare, window), number), name) in all.zip(&names) {
            let member = {
                let locked = state.writer.lock();
                let metadata = &locked.writer.metadata;
                let name = name.filter(|name| member_named(metadata.superblock(), *name).is_some());
                name.map(|name| (name, metadata.is_usable(name.index)))
            };
            let found = match member {
                None => Some(self.identify(&state, number, spare, *window)?),
                Some((_, true)) => None,
                Some((name, false)) => {
                    self.check_back(&state, name, number, spare, *window)?;
                    None
                }
            };
            fresh.push(found, GFP_KERNEL)?;
        }
        let mut members = [None; MEMBERS_MAX as usize];
        let mut changes = KBox::new(Changes::default(), GFP_KERNEL)?;
        let mut left = [None; MEMBERS_MAX as usize];
        let mut leaving = Leaving::new(self.user.table)?;
        if self.options.degraded {
            self.find_dead(&state, &fresh, &mut leaving.dead)?;
        }
        let locked = state.writer.lock();
        let formatting = locked.start.as_ref().is_some_and(|start| start.format);
        if self.options.format && !formatting && fresh.iter().all(Option::is_none) {
            return Err(refuse(Errno::Exists, HAS_METADATA));
        }
        let superblock = locked.writer.metadata.superblock();
        load::check_expected(superblock, &self.expected())
            .map_err(|error| self.refuse_content(&error))?;
        self.check_writable(superblock)?;
        for ((name, place), (_, sectors)) in names.iter().zip(&mut members).zip(self.windows) {
            let Some(name) = *name else {
                continue;
            };
            if let Some(member) = member_named(superblock, name) {
                *place = Some(name.index);
                load::check_window(member, *sectors)
                    .map_err(|error| self.refuse_content(&error))?;
                self.tell_grown(name.index, member, *sectors);
            }
        }
        // Those that have numbers from another table come first, so that these are not given away.
        for named in [true, false] {
            let all = fresh.iter().zip(&names).zip(&mut members);
            let rest = all.filter(|((_, name), place)| place.is_none() && name.is_some() == named);
            for ((found, name), place) in rest {
                let index = match (found, name) {
                    (None, None) => continue,
                    (Some(Identity::Member(index)), None) => *index,
                    (Some(Identity::Renamed(index)), None) => {
                        changes.renamed |= member_bit(*index);
                        *index
                    }
                    (Some(Identity::Blank(geometry)), None) => {
                        changes.add(superblock, *geometry).ok_or_else(too_many)?
                    }
                    (Some(Identity::Blank(geometry)), Some(name))
                        if changes.add_as(superblock, *name, *geometry) =>
                    {
                        name.index
                    }
                    // It is another one than that table found, or its number is another one's by now.
                    (_, Some(_)) => {
                        return Err(refuse(
                            Errno::Busy,
                            c"A spare was to join by a table that was not resumed: clear that first",
                        ));
                    }
                };
                *place = Some(index);
            }
        }
        if (formatting || changes.has_joining()) && self.read_only {
            return Err(refuse(Errno::ReadOnly, READ_ONLY));
        }
        let mut left_out = 0u8;
        for (index, member) in superblock.members() {
            if members.contains(&Some(index)) {
                continue;
            }
            if !locked.writer.metadata.is_present(index) {
                // A read-only table went without it, and a resume of this one would write that down.
                if !member.missing && !self.read_only {
                    left_out |= member_bit(index);
                }
                continue;
            }
            left_out |= member_bit(index);
            let claims = locked.writer.claims(index);
            if claims != 0 && self.options.degraded {
                continue;
            }
            if claims != 0 {
                let name = &self.name;
                pr_err!("{name}: spare {index} has {claims} blocks: evacuate it first\n");
                return Err(refuse(Errno::Busy, STILL_SERVES));
            }
            changes.leaving |= member_bit(index);
            if let Some(place) = left.get_mut(usize::from(index)) {
                *place = Some(Name {
                    index,
                    uuid: member.uuid,
                });
            }
        }
        // Those that are to leave, too: what they have has to be elsewhere by then.
        let left_out = if formatting { 0 } else { left_out };
        let start = locked.start.as_ref();
        let needed = not_without(&locked.writer.metadata, start, left_out);
        if needed.is_some() && leaving.dead.is_some() {
            left = [None; MEMBERS_MAX as usize];
            changes.inherit(superblock);
            let blocks = changes.inherited_blocks(&locked.writer);
            let room = changes.joining_slots();
            if blocks > room {
                let name = &self.name;
                pr_err!(
                    "{name}: {blocks} blocks are to be remembered, and there is room for {room}\n"
                );
                return Err(refuse(Errno::NoSpace, NO_ROOM));
            }
        } else if let Some(index) = needed {
            let name = &self.name;
            pr_err!("{name}: spare {index} has the only good copy of metadata\n");
            return Err(refuse(
                Errno::Io,
                c"A spare that is left out has the only good copy of metadata",
            ));
        }
        let absent = superblock.members().find(|(index, member)| {
            !members.contains(&Some(*index))
                && changes.leaving & member_bit(*index) == 0
                && !member.is_dispensable()
        });
        if let Some((member, _)) = absent.filter(|_| !self.options.degraded) {
            return Err(self.refuse_content(&LoadError::incomplete(superblock, member)));
        }
        drop(locked);
        if changes.inherited == 0 {
            leaving.dead = None;
        }
        for name in left.into_iter().flatten() {
            if let Some(spare) = spare_of(&state, name) {
                leaving.spares.add(name.index, spare);
            }
        }
        self.found(state, &members, changes, leaving)
    }

    /// The spares that a state in use has had, if all of them are dead, and all that the table names are new.
    #[inline(never)]
    fn find_dead(
        &self,
        state: &Arc<State>,
        fresh: &KVec<Option<Identity>>,
        found: &mut Option<Spares>,
    ) -> Result {
        let mut fresh = fresh.iter();
        if !fresh.all(|found| matches!(found, Some(Identity::Blank(_)))) {
            return Ok(());
        }
        let mut dead = Spares::default();
        for index in 0..MEMBERS_MAX {
            // Not under the lock: it may take its time to answer.
            let (name, is_away) = {
                let locked = state.writer.lock();
                if locked.start.is_some() {
                    return Ok(());
                }
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
                    dead.add(index, spare);
                }
                None if is_away => (),
                _ => return Ok(()),
            }
        }
        *found = Some(dead);
        Ok(())
    }

    /// Finds out what a spare is that a set in use is to have besides; it has this number in the table
    /// line.
    #[inline(never)]
    fn identify(
        &self,
        state: &Arc<State>,
        number: u8,
        spare: &dm::Device,
        (start, sectors): (u64, u64),
    ) -> CtrResult<Identity> {
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let window = Window {
            pool: &pool,
            spare,
            start,
            sectors,
        };
        let refused = |refused| self.refuse_read(refused);
        let mut scratch = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
        let found = find_superblock(core::slice::from_ref(&window), 0, &mut scratch);
        match found {
            Ok(load::Found::Ours(chosen)) => {
                let uuid = returning::own_name(&chosen, &scratch);
                let gone = match uuid {
                    Some(uuid) => self.is_gone_by_name(state, uuid)?,
                    None => false,
                };
                let locked = state.writer.lock();
                let superblock = locked.writer.metadata.superblock();
                let same = scratch.set_uuid == superblock.set_uuid;
                let index = uuid.and_then(|uuid| superblock.find_member(&uuid));
                // Others are recording that what it has is lost.
                match index.filter(|index| same && !locked.writer.is_inherited(*index)) {
                    Some(index) if gone && locked.writer.metadata.is_usable(index) => {
                        let durable = locked.writer.durable();
                        load::check_renamed(superblock, durable, &scratch, index)
                            .map_err(|error| self.refuse_content(&error))?;
                        Ok(Identity::Renamed(index))
                    }
                    Some(index) if !locked.writer.metadata.is_present(index) => {
                        let alone = locked.writer.durable_alone();
                        returning::check(superblock, alone, &scratch, index, number, sectors)
                            .map_err(|error| self.refuse_content(&error))?;
                        Ok(Identity::Member(index))
                    }
                    Some(_) => {
                        let uuid = uuid.unwrap_or(Uuid::NIL);
                        Err(self.refuse_content(&LoadError::Twice { uuid }))
                    }
                    None => Err(refuse(
                        Errno::WrongDevice,
                        c"Spare belongs to another set, or has left this one",
                    )),
                }
            }
            Ok(load::Found::Blank) => Ok(Identity::Blank(
                self.blank(&window, spare, true).map_err(refused)?,
            )),
            Err(Refused::Content(error)) if self.options.format && error.may_be_formatted() => Ok(
                Identity::Blank(self.blank(&window, spare, false).map_err(refused)?),
            ),
            Err(error) => Err(refused(error)),
        }
    }

    /// Whether a member is in use, and nobody answers where it was.
    fn is_gone_by_name(&self, state: &Arc<State>, uuid: Uuid) -> Result<bool> {
        let index = {
            let locked = state.writer.lock();
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
        state: &State,
        name: Name,
        number: u8,
        spare: &dm::Device,
        (start, sectors): (u64, u64),
    ) -> CtrResult<()> {
        let spare = Spare {
            device: spare.clone(),
            start,
            sectors,
        };
        // Not under the lock: it may take its time to answer.
        let seen = Sight::of(&state.pool, &spare)?;
        let locked = state.writer.lock();
        let superblock = locked.writer.metadata.superblock();
        match seen.check(
            superblock,
            locked.writer.durable_alone(),
            name.index,
            number,
        ) {
            Return::Same | Return::Silent => Ok(()),
            Return::Refused(error) => Err(self.refuse_content(&error)),
        }
    }
}

/// What a spare is that a set in use is to have besides.
pub(super) enum Identity {
    /// A member that was missing.
    Member(u8),
    /// A member that is in use, and of which nobody answers where it was.
    Renamed(u8),
    /// Nothing so far.
    Blank(Geometry),
}

/// Whether nobody answers where the spare of a member is.
pub(super) fn is_gone(state: &Arc<State>, name: Name) -> Result<bool> {
    match spare_of(state, name) {
        Some(spare) => Ok(Sight::of(&state.pool, &spare)?.is_silent()),
        None => Ok(false),
    }
}

/// The member of this name, if there is one.
fn member_named(superblock: &Superblock, name: Name) -> Option<&Member> {
    let member = superblock.member(name.index);
    member.filter(|member| member.uuid == name.uuid)
}
