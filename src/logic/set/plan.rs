// SPDX-License-Identifier: GPL-2.0

//! How does a table change its set when it is resumed?

use super::{
    super::{
        format::{
            member_bit,
            Area,
            Geometry,
            Superblock,
            MEMBERS_MAX, //
        },
        load::{
            self,
            LoadError, //
        },
        text::Uuid, //
    },
    InUse,
    Name,
    NamedSpare,
    Refusal,
    Seen,
    Wanted, //
};

/// How a table changes its set when it is resumed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Which member each spare of the line is, or will be, in the order of the line.
    pub members: [Option<u8>; MEMBERS_MAX as usize],
    /// Those that join, by the numbers that they get.
    pub joining: [Option<(Uuid, Geometry)>; MEMBERS_MAX as usize],
    /// The members that are not named because they are to leave; a bit each.
    pub leaving: u8,
    /// Members that have another device than before; a bit each.
    pub renamed: u8,
    /// The members that those who join take over from, as nobody answers of them; a bit each.
    pub inherited: u8,
}

impl Plan {
    /// Plans for a table of a device that is in use. `dead` are members of which nobody answers, a bit each: who
    /// calls this finds that out if it matters ([`Wanted::may_take_over`]). `fresh` makes names.
    pub fn for_set_in_use(
        wanted: &Wanted<'_>,
        set: &InUse<'_>,
        spares: &[NamedSpare],
        dead: u8,
        fresh: impl FnMut() -> Uuid,
    ) -> Result<Self, Refusal> {
        let superblock = set.metadata.superblock();
        // A spare that is back, or has another name, is taken back by whatever line names it.
        let all_known = spares.iter().all(|spare| matches!(spare.seen, Seen::Known));
        if !set.formatting && wanted.format && all_known {
            return Err(Refusal::HasMetadata);
        }
        wanted.check_set(superblock)?;
        let mut plan = Plan::default();
        plan.number_members(superblock, spares)?;
        plan.number_joining(wanted, superblock, spares, fresh)?;
        if (set.formatting || plan.has_joining()) && wanted.read_only {
            return Err(Refusal::ReadOnly);
        }
        let left_out = plan.leave(wanted, set)?;
        // Those that are to leave, too: what they have has to be elsewhere by then. Of a new set, nobody has any.
        let needed = set.not_without(left_out).filter(|_| !set.formatting);
        if let Some(member) = needed {
            let members = superblock.members();
            let all = members.fold(0, |mask, (index, _)| mask | member_bit(index));
            if !wanted.may_take_over(spares) || !set.activated || all & !dead != 0 {
                return Err(Refusal::OnlyCopy { member });
            }
            plan.leaving = 0;
            plan.inherited = all;
            plan.check_room(set)?;
        }
        plan.check_complete(wanted, superblock)?;
        Ok(plan)
    }

    /// Plans for the spares of a device that is not in use, which have a set.
    pub fn for_loaded(
        wanted: &Wanted<'_>,
        superblock: &Superblock,
        spares: &[NamedSpare],
        fresh: impl FnMut() -> Uuid,
    ) -> Result<Self, Refusal> {
        wanted.check_format(spares)?;
        wanted.check_set(superblock)?;
        let mut plan = Plan::default();
        plan.number_members(superblock, spares)?;
        plan.check_complete(wanted, superblock)?;
        plan.number_joining(wanted, superblock, spares, fresh)?;
        if plan.has_joining() && wanted.read_only {
            return Err(Refusal::ReadOnly);
        }
        Ok(plan)
    }

    /// Plans for spares of which none has a set: `superblock` is that of a new one with the first of them.
    /// `leaves_remaps` tells whether the table before has remaps on other spares.
    pub fn for_new(
        wanted: &Wanted<'_>,
        superblock: &Superblock,
        spares: &[NamedSpare],
        leaves_remaps: bool,
        fresh: impl FnMut() -> Uuid,
    ) -> Result<Self, Refusal> {
        wanted.check_blank()?;
        let mut plan = Plan::default();
        plan.number_members(superblock, spares)?;
        plan.number_joining(wanted, superblock, spares, fresh)?;
        if wanted.read_only {
            return Err(Refusal::ReadOnly);
        }
        if leaves_remaps {
            return Err(Refusal::LeavesRemaps);
        }
        Ok(plan)
    }

    /// Whether there are spares that join.
    pub fn has_joining(&self) -> bool {
        self.joining.iter().any(Option::is_some)
    }

    /// Whether a spare joins under this number.
    pub fn joins(&self, index: u8) -> bool {
        let change = self.joining.get(usize::from(index));
        change.is_some_and(Option::is_some)
    }

    /// Whether a member is to leave.
    pub fn leaves(&self, index: u8) -> bool {
        self.leaving & member_bit(index) != 0
    }

    /// The name of a member, or of a spare that joins under this number.
    pub fn name_of(&self, superblock: &Superblock, index: u8) -> Option<Name> {
        let joins = self.joining.get(usize::from(index)).copied().flatten();
        let member = || superblock.member(index).map(|member| member.uuid);
        let uuid = joins.map(|(uuid, _)| uuid).or_else(member)?;
        Some(Name { index, uuid })
    }

    /// The members that the line does not name; a bit each.
    pub fn unnamed(&self, superblock: &Superblock) -> u8 {
        let members = superblock.members();
        let unnamed = members.filter(|(index, _)| !self.names(*index));
        unnamed.fold(0, |mask, (index, _)| mask | member_bit(index))
    }

    /// Checks that those who join have a slot for each block that dead members had.
    pub fn check_room(&self, set: &InUse<'_>) -> Result<(), Refusal> {
        let dead = (0..MEMBERS_MAX).filter(|index| self.inherited & member_bit(*index) != 0);
        let blocks = dead.map(|index| u64::from(set.claims_of(index))).sum();
        let room = self.joining_slots();
        match blocks > room {
            true => Err(Refusal::NoRoom { blocks, room }),
            false => Ok(()),
        }
    }

    /// How many slots those have that join, less what the replicas of one take that lie on another.
    fn joining_slots(&self) -> u64 {
        let joining = || self.joining.iter().flatten();
        let slots = joining().map(|(_, geometry)| u64::from(geometry.slots()));
        let sectors = joining().map(|(_, geometry)| Area::guest_sectors(geometry.table_blocks()));
        let largest = sectors.max().unwrap_or(0);
        let taken = joining().map(|(_, geometry)| largest.div_ceil(geometry.slot_sectors().into()));
        match joining().count() {
            0 | 1 => slots.sum(),
            _ => slots.sum::<u64>().saturating_sub(taken.sum()),
        }
    }

    fn names(&self, index: u8) -> bool {
        self.members.contains(&Some(index))
    }

    /// Gives each spare that is a member its number.
    fn number_members(
        &mut self,
        superblock: &Superblock,
        spares: &[NamedSpare],
    ) -> Result<(), Refusal> {
        for (spare, place) in spares.iter().zip(0..) {
            if let Some(index) = self.find(superblock, spare)? {
                let member = superblock.member(index).ok_or(Refusal::Stranger)?;
                load::check_window(member, spare.sectors)?;
                self.put(place, index)?;
            }
        }
        Ok(())
    }

    /// Gives each spare that joins a number. Those that have one from another table come first, so that these are not
    /// given away.
    fn number_joining(
        &mut self,
        wanted: &Wanted<'_>,
        superblock: &Superblock,
        spares: &[NamedSpare],
        mut fresh: impl FnMut() -> Uuid,
    ) -> Result<(), Refusal> {
        for is_named in [true, false] {
            for (spare, place) in spares.iter().zip(0..) {
                let is_member = matches!(self.members.get(place), Some(Some(_)));
                if is_member || spare.name.is_some() != is_named {
                    continue;
                }
                let Seen::Blank(geometry) = spare.seen else {
                    continue;
                };
                wanted.check_blank()?;
                let name = self.name_new(superblock, spare.name, &mut fresh)?;
                let joining = self.joining.get_mut(usize::from(name.index));
                *joining.ok_or(LoadError::TooMany)? = Some((name.uuid, geometry));
                self.put(place, name.index)?;
            }
        }
        Ok(())
    }

    /// Which member a spare is; none if it is to join.
    fn find(&mut self, superblock: &Superblock, spare: &NamedSpare) -> Result<Option<u8>, Refusal> {
        match (spare.name, spare.seen) {
            (Some(name), _) if name.is_in(superblock) => Ok(Some(name.index)),
            (None, Seen::Member(index)) => Ok(Some(index)),
            (None, Seen::Renamed(index)) => {
                self.renamed |= member_bit(index);
                Ok(Some(index))
            }
            (_, Seen::Blank(_)) => Ok(None),
            // It is another one than that table found.
            _ => Err(Refusal::NotResumed),
        }
    }

    /// The name of a spare that joins: that which another table gave it, or a new one.
    fn name_new(
        &self,
        superblock: &Superblock,
        given: Option<Name>,
        fresh: &mut impl FnMut() -> Uuid,
    ) -> Result<Name, Refusal> {
        let is_free = |index: &u8| superblock.member(*index).is_none() && !self.joins(*index);
        match given {
            Some(name) if is_free(&name.index) => Ok(name),
            // Its number is another one's by now.
            Some(_) => Err(Refusal::NotResumed),
            None => {
                let index = (0..MEMBERS_MAX).find(is_free).ok_or(LoadError::TooMany)?;
                let uuid = fresh();
                Ok(Name { index, uuid })
            }
        }
    }

    fn put(&mut self, place: usize, index: u8) -> Result<(), Refusal> {
        if self.names(index) {
            return Err(Refusal::SameMember);
        }
        let member = self.members.get_mut(place).ok_or(LoadError::TooMany)?;
        *member = Some(index);
        Ok(())
    }

    /// Has the members leave that are not named, and are there. Returns these and those that have yet to be written
    /// down as missing, a bit each.
    fn leave(&mut self, wanted: &Wanted<'_>, set: &InUse<'_>) -> Result<u8, Refusal> {
        let mut left_out = 0;
        for (index, member) in set.metadata.superblock().members() {
            if self.names(index) {
                continue;
            }
            if !set.metadata.is_present(index) {
                // A read-only table went without it, and a resume of this one would write that down.
                if !member.missing && !wanted.read_only {
                    left_out |= member_bit(index);
                }
                continue;
            }
            left_out |= member_bit(index);
            match set.claims_of(index) {
                0 => self.leaving |= member_bit(index),
                _ if wanted.degraded => (),
                claims => {
                    return Err(Refusal::StillServes {
                        member: index,
                        claims,
                    })
                }
            }
        }
        Ok(left_out)
    }

    /// Checks that nobody is left out who may hold something, but at the user's word.
    fn check_complete(&self, wanted: &Wanted<'_>, superblock: &Superblock) -> Result<(), Refusal> {
        let mut absent = superblock.members().filter(|(index, member)| {
            !self.names(*index) && !self.leaves(*index) && !member.is_dispensable()
        });
        match absent.next() {
            Some((member, _)) if !wanted.degraded => {
                Err(LoadError::incomplete(superblock, member).into())
            }
            _ => Ok(()),
        }
    }
}
