// SPDX-License-Identifier: GPL-2.0

//! The spares of a table, by their numbers in the set.

use crate::{
    abstractions::dm,
    logic::format::{
        member_bit,
        Place,
        MEMBERS_MAX, //
    }, //
};

/// A part of a device that is used as a spare.
#[derive(Clone)]
pub(in crate::remap) struct Spare {
    pub(in crate::remap) device: dm::Device,
    /// First sector of the window on the device.
    pub(in crate::remap) start: u64,
    /// Sectors of the window.
    pub(in crate::remap) sectors: u64,
}

/// The spares of a table. A member of the set whose spare the table does not name is not there.
#[derive(Clone, Default)]
pub(in crate::remap) struct Spares {
    members: [Option<Spare>; MEMBERS_MAX as usize],
    /// The members in the order of the table line.
    order: [u8; MEMBERS_MAX as usize],
    count: u8,
}

impl Spares {
    /// Adds the spare that comes next in the table line. False if there is one of that number.
    pub(in crate::remap) fn add(&mut self, member: u8, spare: Spare) -> bool {
        let place = self.members.get_mut(usize::from(member));
        let (Some(place), Some(order)) = (place, self.order.get_mut(usize::from(self.count)))
        else {
            return false;
        };
        if place.is_some() {
            return false;
        }
        *place = Some(spare);
        *order = member;
        self.count = self.count.saturating_add(1);
        true
    }

    /// These, and others besides.
    pub(in crate::remap) fn with(&self, others: &Spares) -> Spares {
        let mut all = self.clone();
        for (member, spare) in others.iter() {
            all.add(member, spare.clone());
        }
        all
    }

    /// The spare of a member.
    #[inline]
    pub(in crate::remap) fn get(&self, member: u8) -> Option<&Spare> {
        self.members.get(usize::from(member))?.as_ref()
    }

    /// How many there are.
    pub(in crate::remap) fn count(&self) -> u8 {
        self.count
    }

    /// The member that stands at a place in the table line.
    pub(in crate::remap) fn nth(&self, index: usize) -> Option<u8> {
        let order = self.order.get(..usize::from(self.count))?;
        order.get(index).copied()
    }

    /// All of them, with their numbers.
    pub(in crate::remap) fn iter(&self) -> impl Iterator<Item = (u8, &Spare)> {
        let numbered = (0u8..).zip(&self.members);
        numbered.filter_map(|(member, spare)| Some((member, spare.as_ref()?)))
    }

    /// Those of them that `members` names, a bit each.
    pub(in crate::remap) fn named(&self, members: u8) -> impl Iterator<Item = (u8, &Spare)> {
        self.iter()
            .filter(move |(member, _)| members & member_bit(*member) != 0)
    }

    /// The device and the sector on it of a place in a member's window; none if that is not there.
    #[inline]
    pub(in crate::remap) fn locate(&self, place: Place) -> Option<(&dm::Device, u64)> {
        let spare = self.get(place.member)?;
        Some((&spare.device, spare.start.saturating_add(place.sector)))
    }
}
