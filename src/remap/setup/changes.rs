// SPDX-License-Identifier: GPL-2.0

//! How a table that is resumed changes its set.

use kernel::{
    prelude::*,
    str::CString, //
};

use crate::{
    abstractions::util,
    logic::{
        format::{
            member_bit,
            Area,
            Geometry,
            Superblock,
            MEMBERS_MAX, //
        },
        text::Uuid, //
    },
    remap::{
        health::life::Disk,
        meta::writer::Writer,
        session::state::State, //
    }, //
};

use super::registry::Name;

/// How the set is to change when a table is resumed.
#[derive(Default)]
pub(in crate::remap) struct Changes {
    /// The spares that join, by the numbers that they get.
    pub(in crate::remap) joining: [Option<(Uuid, Geometry)>; MEMBERS_MAX as usize],
    /// The members that the table does not name, because they are to leave; a bit each.
    pub(in crate::remap) leaving: u8,
    /// Members that have another device than before, as nobody answers there any more; a bit each.
    pub(in crate::remap) renamed: u8,
    /// The members that those who join take over from, as nobody answers of them; a bit each.
    pub(in crate::remap) inherited: u8,
    /// If the set is new, or its spares are: the table line that names it.
    pub(in crate::remap) line: Option<CString>,
}

impl Changes {
    /// Adds a spare that joins, and returns the number that it gets.
    pub(in crate::remap) fn add(
        &mut self,
        superblock: &Superblock,
        geometry: Geometry,
    ) -> Option<u8> {
        let mut places = self.joining.iter_mut().zip(0u8..);
        let (place, index) =
            places.find(|(place, index)| place.is_none() && superblock.member(*index).is_none())?;
        *place = Some((Uuid::from_random(util::random_uuid()), geometry));
        Some(index)
    }

    /// Has those that join take over from all members.
    pub(in crate::remap) fn inherit(&mut self, superblock: &Superblock) {
        let members = superblock.members();
        self.inherited = members.fold(0, |mask, (index, _)| mask | member_bit(index));
        self.leaving = 0;
    }

    /// How many blocks those who join are to remember, of the members that they take over from.
    pub(in crate::remap) fn inherited_blocks(&self, writer: &Writer) -> u64 {
        let dead = (0..MEMBERS_MAX).filter(|index| self.inherited & member_bit(*index) != 0);
        dead.map(|index| u64::from(writer.claims(index))).sum()
    }

    /// How many slots those have that join, less what the replicas of one take that lie on another.
    pub(in crate::remap) fn joining_slots(&self) -> u64 {
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

    /// Adds a spare that joins under the name that another table gave it. False if its number is taken.
    pub(in crate::remap) fn add_as(
        &mut self,
        superblock: &Superblock,
        name: Name,
        geometry: Geometry,
    ) -> bool {
        match self.joining.get_mut(usize::from(name.index)) {
            Some(place) if place.is_none() && superblock.member(name.index).is_none() => {
                *place = Some((name.uuid, geometry));
                true
            }
            _ => false,
        }
    }

    /// Has users hear of what may be lost with the cache of a spare that is met under another name.
    pub(in crate::remap) fn tell_renamed(&self, state: &State) {
        for member in (0..MEMBERS_MAX).filter(|member| self.renamed & member_bit(*member) != 0) {
            if state.life.needs_flush(Disk::Spare(member)) {
                state.life.own_flush_failed(Disk::Spare(member));
            }
        }
    }

    /// Whether there are spares that join.
    pub(in crate::remap) fn has_joining(&self) -> bool {
        self.joining.iter().any(Option::is_some)
    }

    /// Whether a spare joins under this number.
    pub(in crate::remap) fn joins(&self, index: u8) -> bool {
        let change = self.joining.get(usize::from(index));
        change.is_some_and(Option::is_some)
    }

    /// The name of a member, or of a spare that joins under this number.
    pub(in crate::remap) fn name_of(&self, superblock: &Superblock, index: u8) -> Option<Name> {
        let joins = self.joining.get(usize::from(index)).copied().flatten();
        let member = || superblock.member(index).map(|member| member.uuid);
        let uuid = joins.map(|(uuid, _)| uuid).or_else(member)?;
        Some(Name { index, uuid })
    }

    /// Checks that no slot has a number that belongs to one who joins, as it would if who had that number in
    /// the set before could not be forgotten.
    pub(in crate::remap) fn check_forgotten(&self, state: &State) -> Result {
        let locked = state.writer.lock();
        let superblock = locked.writer.metadata.superblock();
        let mut joining = self.joining.iter().zip(0u8..);
        let mistaken = joining.any(|(change, index)| {
            change.is_some() && superblock.member(index).is_none() && has_numbers(state, index)
        });
        match mistaken {
            true => Err(ENOMEM),
            false => Ok(()),
        }
    }
}

/// Whether slots of a member, or of one that had its number before, have numbers.
pub(in crate::remap) fn has_numbers(state: &State, index: u8) -> bool {
    state.with_map(|map| map.extents().known(index)) != 0
}
