// SPDX-License-Identifier: GPL-2.0

//! The replicas of the slot tables: where each lies, which of them are void, and how one is made again.
//!
//! - A replica that gets another place is void from then on, and so is one whose member is lost, or that has no place
//!   left for a block. It counts again once all its blocks were copied from the other one and flushed.
//! - One replica at a time is made again, from its first block on. A commit that changes a block behind that
//!   point sends it back to it ([`Metadata::note_change`]). Whatever voids a replica or moves one begins that anew.
//! - The only good copy of a block is never made void: a table has another replica, or nothing in it
//!   ([`Metadata::rehost`]).
//! - A replica on another member lies behind the slots that are left there: these end where the first one begins.

use super::{
    super::{
        super::format::{
            member::home,
            reserve::{
                Reserve,
                Reserves, //
            },
            Area,
            BlockId,
            BLOCK_SECTORS,
            MEMBERS_MAX,
            REPLICAS, //
        },
        Failure,
        ALL_REPLICAS, //
    },
    Metadata, //
};

/// A void replica that is being made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The member whose table it is.
    pub member: u8,
    /// Which replica.
    pub replica: u8,
    /// The first block that is not there, or not any more.
    pub next: u32,
}

impl Metadata {
    /// The replicas that are void, lie on a spare that is there, and so can be made again: whose
    /// table, and which.
    pub fn void_replicas(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        let all = (0..MEMBERS_MAX * REPLICAS).map(|i| (i / REPLICAS, i % REPLICAS));
        all.filter(move |(member, replica)| self.can_be_made_again(*member, *replica))
    }

    fn can_be_made_again(&self, member: u8, replica: u8) -> bool {
        let Some(table) = self.superblock.member(member) else {
            return false;
        };
        let area = table.areas.get(usize::from(replica));
        let there = area.is_some_and(|area| self.is_present(area.host));
        let other = table.replica_lives(replica ^ 1) || table.high_water == 0;
        !table.replica_lives(replica) && other && there
    }

    /// The replicas of a member's table that are in use; a bit each.
    pub(in super::super) fn live_replicas(&self, member: u8) -> u8 {
        let member = self.superblock.member(member);
        member.map_or(0, |member| ALL_REPLICAS & !member.void_replicas)
    }

    /// Whether a replica of a member's table is in use.
    pub(in super::super) fn replica_lives(&self, replica: u8, member: u8) -> bool {
        self.live_replicas(member) & (1 << replica) != 0
    }

    /// Whether both replicas of a member's table are in use.
    pub(in super::super) fn has_both(&self, member: u8) -> bool {
        self.live_replicas(member) == ALL_REPLICAS
    }

    /// The replicas of a member's table that lie on member `host`; a bit each.
    pub(in super::super) fn replicas_on(&self, host: u8, member: u8) -> u8 {
        let areas = self.superblock.member(member).map(|member| member.areas);
        let hosts = areas.iter().flatten().zip(0u8..);
        hosts.fold(0u8, |mask, (area, replica)| {
            mask | u8::from(area.host == host) << replica
        })
    }

    /// Gives a replica another place: an area in the data area of member `host`, which loses the
    /// slots from `slots` on. These must not be in use. The replica is void until it was made again;
    /// not if the other one is known not to be good in every block ([`Metadata::is_unsettled`]).
    /// Whether it is, the caller finds out beforehand: it is the only one until then.
    pub fn rehost(&mut self, member: u8, replica: u8, host: u8, slots: u32) -> Result<(), Failure> {
        self.check_movable(member, replica)?;
        let room = self.slots_beside(host, member).ok_or(Failure::NoPlace)?;
        if slots > room || !self.is_present(host) {
            return Err(Failure::Blocks);
        }
        let place = self.superblock.member_mut(host).ok_or(Failure::Blocks)?;
        place.slots = slots;
        place.high_water = place.high_water.min(place.table_blocks());
        let start = place.slots_end().next_multiple_of(BLOCK_SECTORS);
        self.set_area(member, replica, Area::guest(host, start))
    }

    /// Gives a replica its place on its own member again, where it is when that is the only one. It is
    /// void until it was made again.
    pub fn rehome(&mut self, index: u8, replica: u8) -> Result<(), Failure> {
        self.check_movable(index, replica)?;
        let member = self.superblock.member(index).ok_or(Failure::Blocks)?;
        if !self.is_present(index) {
            return Err(Failure::Blocks);
        }
        let own = home(index, &member.geometry, replica);
        self.set_area(index, replica, own)
    }

    /// Checks that nothing is lost with a replica.
    fn check_movable(&self, member: u8, replica: u8) -> Result<(), Failure> {
        let table = self.superblock.member(member).ok_or(Failure::Blocks)?;
        let other = table.replica_lives(replica ^ 1) || table.high_water == 0;
        match other && !self.unsettled.needs(replica, member) {
            true => Ok(()),
            false => Err(Failure::NoPlace),
        }
    }

    fn set_area(&mut self, member: u8, replica: u8, to: Area) -> Result<(), Failure> {
        let moved = self.superblock.member_mut(member).ok_or(Failure::Blocks)?;
        let index = usize::from(replica);
        if let (Some(area), Some(reserve)) =
            (moved.areas.get_mut(index), moved.reserve.get_mut(index))
        {
            *area = to;
            *reserve = Reserves::FREE;
        }
        moved.void_replicas |= 1 << replica;
        self.rebuild = None;
        self.raise_epoch()
    }

    /// Gives a member the slots back that a replica of another one's table took which is not there any more.
    /// They can be used after the next [`Metadata::sync`]. Returns whether there were any.
    pub fn regain_slots(&mut self, host: u8) -> bool {
        let taken = self.superblock.guests(host).map(|(_, _, range)| range.0);
        let first = taken.min();
        let Some(member) = self.superblock.member_mut(host) else {
            return false;
        };
        let geometry = &member.geometry;
        let end = first.unwrap_or(geometry.data_end());
        let room = end.saturating_sub(geometry.data_start());
        let slots = room >> geometry.slot_sectors().trailing_zeros();
        let slots = u32::try_from(slots)
            .unwrap_or(u32::MAX)
            .min(geometry.slots());
        let more = slots > member.slots;
        if more {
            member.slots = slots;
            self.stale = true;
        }
        more
    }

    /// How many slots member `host` would keep if it took a replica of the table of `member`; none if
    /// it has no room for it.
    pub fn slots_beside(&self, host: u8, member: u8) -> Option<u32> {
        let table = self.superblock.member(member)?.geometry.table_blocks();
        let place = self.superblock.member(host)?;
        // What lies there already is in front.
        let taken = self.superblock.guests(host).map(|(_, _, range)| range.0);
        let end = taken.min().unwrap_or(place.geometry.data_end());
        let start = end.checked_sub(Area::guest_sectors(table))? & !(BLOCK_SECTORS - 1);
        let room = start.checked_sub(place.geometry.data_start())?;
        let slots = room >> place.geometry.slot_sectors().trailing_zeros();
        let slots = u32::try_from(slots).ok()?.min(place.slots);
        (slots != 0).then_some(slots)
    }

    /// Begins to make a void replica again. If another one is under way, that begins anew later.
    pub fn begin_rebuild(&mut self, member: u8, replica: u8) {
        self.rebuild = Some(Rebuild {
            member,
            replica,
            next: 0,
        });
    }

    /// Gives up what [`Metadata::begin_rebuild`] has begun: the replica stays void.
    pub fn give_up_rebuild(&mut self) {
        self.rebuild = None;
    }

    /// What is being made again.
    pub fn rebuilding(&self) -> Option<Rebuild> {
        self.rebuild
    }

    /// Remembers that a block of a table is about to change: a replica that is made again has to
    /// get it anew.
    pub(in super::super) fn note_change(&mut self, block: BlockId) {
        if let Some(rebuild) = &mut self.rebuild {
            if rebuild.member == block.member {
                rebuild.next = rebuild.next.min(block.block);
            }
        }
    }

    /// Says what a reserve block is used for from here on.
    pub(in super::super) fn set_reserve(
        &mut self,
        replica: u8,
        member: u8,
        index: u8,
        value: Reserve,
    ) {
        let reserves = self
            .superblock
            .member_mut(member)
            .and_then(|member| member.reserve.get_mut(usize::from(replica)));
        if let Some(reserves) = reserves {
            self.stale |= reserves.set(index, value);
        }
    }

    /// A reserve block that nothing is in.
    pub(in super::super) fn free_reserve(&self, replica: u8, member: u8) -> Option<u8> {
        self.superblock
            .member(member)?
            .reserve
            .get(usize::from(replica))?
            .first_free()
    }
}
