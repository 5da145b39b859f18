// SPDX-License-Identifier: GPL-2.0

//! Which slots are given out, and room for them in memory.
//!
//! A slot that is given out is *held* until it serves a block, or is given back. One that is left by its block is held,
//! too, as bios may be on the way to it: until who left it has waited for them ([`Writer::give_back`], M7), or until
//! the next activation, before which there are none ([`Writer::use_all`]).

use kernel::prelude::*;

use crate::{
    abstractions::util,
    logic::{
        commit::EXTEND_BLOCKS_MAX,
        desk::Range,
        event::Event,
        format::{
            member_bit,
            Member, //
        },
        message::Blocks,
        pool::{
            state::PoolState,
            Kind,
            SlotRun, //
        },
        repair::BATCH_BLOCKS,
        slot::{
            Origin,
            SlotState,
            SlotWord, //
        }, //
    },
    remap::{
        jobs::closed::range,
        meta::io::SpareIo,
        path::{
            map::Map,
            state::PathState, //
        },
        repair::state::RepairState,
        setup::spares::Spares, //
    }, //
};

use super::{
    Publish,
    Writer,
    LOOKED_AT_MAX, //
};

/// How short of slots a spare is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shortage {
    None,
    Low,
    Exhausted,
}

impl Writer {
    /// The member whose slot table is extended next: the first one that has slots left.
    pub(super) fn next_member(&self) -> Option<(u8, &Member)> {
        let mut members = self.metadata.superblock().members();
        members.find(|(index, member)| {
            self.gives_slots(*index) && member.high_water < member.table_blocks()
        })
    }

    /// How many slots could still be given out, initialised or not.
    pub(in crate::remap) fn slots_left(&self) -> u32 {
        // Those of one that is about to be a member will be.
        let joining = self.pools.members(|state| state == PoolState::Joining);
        self.slots_of(self.giving() | joining)
    }

    /// The same of some members, a bit each.
    pub(super) fn slots_of(&self, members: u8) -> u32 {
        let all = self.metadata.superblock().members();
        let own = all.filter(|(index, _)| members & member_bit(*index) != 0);
        own.fold(self.pools.available(members), |left, (_, member)| {
            let behind = member.slots.saturating_sub(member.usable_slots());
            left.saturating_add(behind)
        })
    }

    /// What users have to be told if less than `percent` of all slots are left, or none (P7).
    pub(super) fn crosses_low_water(&mut self, percent: u32) -> Option<Event> {
        if self.pools.resting(util::monotonic_ms()) | self.pools.stalled() != 0 {
            // There are more than can be given out at the moment.
            return None;
        }
        let left = u64::from(self.slots_left());
        let members = self.metadata.superblock().members();
        let used = members.filter(|(index, _)| self.pools.state(*index).is_to_give());
        let slots: u64 = used.map(|(_, member)| u64::from(member.slots)).sum();
        let now = if left == 0 {
            Shortage::Exhausted
        } else if left * 100 < slots * u64::from(percent) {
            Shortage::Low
        } else {
            Shortage::None
        };
        let worse = now > self.told;
        self.told = now;
        match now {
            Shortage::Low if worse => Some(Event::LowWater),
            Shortage::Exhausted if worse => Some(Event::Exhausted),
            _ => None,
        }
    }

    /// Whether the table, as it is, takes `more` blocks and keeps some buckets empty.
    pub(in crate::remap) fn has_room(&self, path: &PathState, more: u32) -> bool {
        let buckets = path.with_map(Map::buckets);
        let taken = u64::from(self.counts.used)
            .saturating_add(u64::from(self.counts.tombstones))
            .saturating_add(u64::from(more));
        taken < buckets as u64 / 16 * 15
    }

    /// Initialises more of the slot table of the next member, so that more slots can be given out. Fails with
    /// [`ENOSPC`] if there are no more, and with [`ENOMEM`] if [`growth`](super::growth) has to come
    /// first.
    pub(in crate::remap) fn extend(&mut self, path: &PathState, io: &mut SpareIo<'_>) -> Result {
        let (index, _) = self.next_member().ok_or(ENOSPC)?;
        self.extend_member(path, io, index)
    }

    /// The same, of a given member.
    fn extend_member(&mut self, path: &PathState, io: &mut SpareIo<'_>, index: u8) -> Result {
        let member = self.metadata.superblock().member(index).ok_or(ENOSPC)?;
        // First the memory: what is initialised can be used.
        self.check_numbers(path, index, member)?;
        let before = member.usable_slots();
        let op = self.metadata.extend(index, EXTEND_BLOCKS_MAX);
        let outcome = io.drive(op, |_, _, _| ());
        self.note(io, &outcome)?;
        let member = self.metadata.superblock().member(index).ok_or(ENOSPC)?;
        self.free_held(io.user, path, index, (before, member.usable_slots()));
        Ok(())
    }

    /// Gives out up to `want` consecutive slots, held for whoever asked. Fails with [`ENOSPC`] if
    /// there is none.
    pub(in crate::remap) fn take_slots(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        want: u32,
    ) -> Result<SlotRun> {
        self.check_open(io.user)?;
        self.take_leftover(path, repair);
        if self.pools.stalled() != 0 {
            io.user
                .complain("a spare takes longer than deadline_ms for data");
        }
        match self.take_given_slots(path, io, want) {
            // Better one that has failed a moment ago than none.
            Err(_) if self.end_rest(io.user) => self.take_given_slots(path, io, want),
            taken => taken,
        }
    }

    fn take_given_slots(
        &mut self,
        path: &PathState,
        io: &mut SpareIo<'_>,
        want: u32,
    ) -> Result<SlotRun> {
        if self.pools.available(self.giving()) < want {
            match self.extend(path, io) {
                Err(error) if error != ENOSPC && self.pools.available(self.giving()) == 0 => {
                    return Err(error);
                }
                _ => (),
            }
        }
        // That may have found out that a spare is gone.
        let giving = self.giving();
        path.with_map(|map| map.slots().take(&mut self.pools, giving, want))
            .ok_or(ENOSPC)
    }

    /// Stages that a slot is set aside for the next write of a block that main cannot read, and that
    /// has none.
    pub(in crate::remap) fn set_aside(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        main_block: u64,
        origin: Origin,
    ) -> Result {
        let run = self.take_slots(path, repair, io, 1)?;
        let staged = SlotWord::new(main_block, SlotState::Pending, origin)
            .ok_or(ERANGE)
            .and_then(|word| self.stage(io.user, path, run.first, word, Publish::Insert));
        if staged.is_err() {
            self.give_back(path, run.first);
        }
        staged
    }

    /// Gives out a given free slot; [`EBUSY`] if it is not free.
    pub(in crate::remap) fn take_slot(&mut self, path: &PathState, slot: u32) -> Result {
        let taken = path.with_map(|map| {
            let member = map.extents().slot(slot).map(|(member, _)| member);
            member.is_some_and(|member| self.gives_slots(member))
                && map.slots().take_slot(&mut self.pools, slot)
        });
        taken.then_some(()).ok_or(EBUSY)
    }

    /// Initialises some of the slot table so that a given slot of a member can be used. Returns whether that is
    /// enough: a far slot takes many steps, and others wait for the lock.
    pub(in crate::remap) fn extend_towards(
        &mut self,
        path: &PathState,
        io: &mut SpareIo<'_>,
        index: u8,
        slot: u32,
    ) -> Result<bool> {
        let member = self.metadata.superblock().member(index).ok_or(ENODEV)?;
        if slot < member.usable_slots() {
            return Ok(true);
        }
        if slot >= member.slots {
            return Err(ERANGE);
        }
        self.extend_member(path, io, index)?;
        Ok(false)
    }

    /// Whether a slot of a member can be given out, initialised or not.
    pub(in crate::remap) fn is_free(&self, path: &PathState, index: u8, slot: u32) -> bool {
        let member = self.metadata.superblock().member(index);
        let Some(member) = member.filter(|_| self.gives_slots(index)) else {
            return false;
        };
        if slot >= member.usable_slots() && slot < member.slots {
            return true;
        }
        path.with_map(|map| {
            let number = map.extents().number(index, slot);
            number.is_some_and(|number| map.word(number).is_available())
        })
    }

    /// The first of some slots of a member that can all be given out, near a given one or where nothing is initialised
    /// yet; none if that is not found out at once.
    pub(in crate::remap) fn next_free(
        &self,
        path: &PathState,
        index: u8,
        near: u32,
        count: u32,
    ) -> Option<u32> {
        let member = self.metadata.superblock().member(index)?;
        let usable = member.usable_slots();
        let until = near.saturating_add(LOOKED_AT_MAX).min(usable);
        let mut first = near;
        for slot in near..until {
            if !self.is_free(path, index, slot) {
                first = slot.saturating_add(1);
            } else if slot.saturating_sub(first) >= count.saturating_sub(1) {
                return Some(first);
            }
        }
        // What is free up to there goes on behind.
        let first = if until == usable { first } else { usable };
        let end = first.max(near).checked_add(count)?;
        (self.gives_slots(index) && end <= member.slots).then_some(first)
    }

    /// Where a slot of a member lies on its device.
    pub(in crate::remap) fn slot_sector(
        &self,
        spares: &Spares,
        index: u8,
        slot: u32,
    ) -> Option<u64> {
        let member = self.metadata.superblock().member(index)?;
        let start = spares.get(index)?.start;
        start.checked_add(member.geometry.slot_sector(slot)?)
    }

    /// Frees up to `want` slots that were set aside for the next writes of blocks that main cannot read, in one go:
    /// blocks that fail now need them more. Reads of the others are errors as before. Fails with [`ENOSPC`] if there
    /// is none.
    pub(in crate::remap) fn steal_slots(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        own: Option<Blocks>,
        want: u32,
    ) -> Result {
        // Whoever has a pending block's range may be about to use its slot. The caller does that for its
        // own blocks, and for no others of its range.
        let desk = repair.desk.lock();
        let is_busy = |word: SlotWord| {
            let block = word.main_block();
            let one = Range::new(path.size.sector_of(block), path.size.sectors(1));
            match own.filter(|own| range(path.size, *own).overlaps(&one)) {
                Some(own) => block.wrapping_sub(own.first) < own.count,
                None => desk.is_busy(one),
            }
        };
        let mut stolen = core::mem::take(&mut self.stolen);
        stolen.clear();
        let (mut next, giving) = (Some(0u32), self.giving());
        while let Some(first) = next.filter(|_| stolen.len() < want as usize) {
            let found = path.with_map(|map| {
                let slots = map.slots();
                let mut pending = slots.of_members(Kind::Pending, giving, first);
                pending.find(|(_, word)| !is_busy(*word))
            });
            let Some((slot, word)) = found else {
                break;
            };
            next = slot.checked_add(1);
            let removal = Publish::Remove(word.main_block());
            if self
                .stage(io.user, path, slot, SlotWord::FREE, removal)
                .is_err()
                || stolen.push_within_capacity(slot).is_err()
            {
                break;
            }
        }
        drop(desk);
        // Who gets a range from here on looks for the block's slot under the writer's lock, which is
        // ours until the slots are free.
        let committed = match stolen.is_empty() {
            true => Err(ENOSPC),
            false => self.commit(path, repair, io),
        };
        // No bio was on its way to any of them. What is in doubt stays what it was.
        for slot in &stolen {
            self.give_back(path, *slot);
        }
        self.stolen = stolen;
        committed
    }

    /// Blocks that main can read again are pending no more. Takes those out of `blocks` that are done, as they are or
    /// were not pending any more, and returns how many were; who is in somebody's range stays.
    pub(in crate::remap) fn clear_pending(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        blocks: &mut KVec<u64>,
    ) -> Result<u64> {
        let mut stolen = core::mem::take(&mut self.stolen);
        stolen.clear();
        let mut failed = Ok(());
        let mut noted = 0u64;
        // As in `steal_slots`.
        let desk = repair.desk.lock();
        blocks.retain(|block| {
            let range = Range::new(path.size.sector_of(*block), path.size.sectors(1));
            if failed.is_err() || desk.is_busy(range) {
                return true;
            }
            match path.slot_of(*block) {
                Some((slot, word)) if word.state() == SlotState::Pending && !word.is_doubt() => {
                    failed =
                        self.stage(io.user, path, slot, SlotWord::FREE, Publish::Remove(*block));
                    if failed.is_ok() {
                        // There is room for as many as can be staged.
                        let _ = stolen.push_within_capacity(slot);
                    }
                    failed.is_err()
                }
                Some(_) => false,
                None => {
                    noted =
                        noted.saturating_add(u64::from(repair.drop_note(&desk, io.life, *block)));
                    false
                }
            }
        });
        drop(desk);
        io.user.counters.pending.sub(noted);
        let freed = stolen.len() as u64;
        let committed = match stolen.is_empty() {
            true => failed,
            false => self.commit(path, repair, io),
        };
        // No bio was on its way to any of them. What is in doubt stays what it was.
        for slot in &stolen {
            self.give_back(path, *slot);
        }
        self.stolen = stolen;
        committed.map(|()| freed.saturating_add(noted))
    }

    /// Has the next slots taken from somewhere else.
    pub(in crate::remap) fn jump(&mut self) {
        self.pools
            .jump(u32::try_from(self.generations.len()).unwrap_or(u32::MAX));
    }

    /// Gives back a slot that is held. No bio may be on its way to it.
    pub(in crate::remap) fn give_back(&mut self, path: &PathState, slot: u32) {
        let superblock = self.metadata.superblock();
        path.with_map(|map| {
            let member = map.extents().slot(slot).map(|(member, _)| member);
            // Of one that has left the set meanwhile, there are none.
            if member.is_some_and(|member| superblock.member(member).is_some()) {
                map.slots().give_back(&mut self.pools, slot);
            }
        });
    }

    /// Gives back what others have left who could not wait for the lock.
    pub(in crate::remap) fn take_leftover(&mut self, path: &PathState, repair: &RepairState) {
        loop {
            let slot = repair.pop_leftover();
            match slot {
                Some(slot) => self.give_back(path, slot),
                None => return,
            }
        }
    }

    /// Has slots ready for the next bio that fails, so that nothing has to be waited for then. If that
    /// is not possible, the next bio tries again.
    pub(in crate::remap) fn prepare(&mut self, path: &PathState, io: &mut SpareIo<'_>) {
        if self.pools.available(self.giving()) < BATCH_BLOCKS {
            let _ = self.extend(path, io);
        }
    }
}
