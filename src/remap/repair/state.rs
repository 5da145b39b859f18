// SPDX-License-Identifier: GPL-2.0

//! What waits for a repair, and who is at it.
//!
//! Its mutexes are held for a moment, and may be taken below the writer's lock: `desk` of who has which range and which
//! blocks are noted, and then `group` or `leftover`. [`session::state`](crate::remap::session::state) has the order of all.

use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    }, //
};

use crate::{
    abstractions::{
        block,
        dm, //
    },
    logic::{
        desk::{
            Desk,
            Range,
            JOBS, //
        },
        group::{
            self,
            Group, //
        },
        pool::SlotRun, //
    },
    remap::{
        health::life::Life,
        meta::state::MetaState,
        path::{
            size::BlockSize,
            state::PathState, //
        },
        user::state::UserState,
        DmRemap, //
    }, //
};

use super::{
    notes::Notes,
    relocate::{
        Request,
        PLACED_MAX, //
    }, //
};

/// How many zeroes are written at a time.
const ZEROES: usize = 64 * 1024;

/// How many runs of slots are kept that nothing became of: half as many as all repairers can have. Mostly these are few,
/// and long.
const LEFTOVER_MAX: usize = JOBS * PLACED_MAX / 2;

/// See the module's documentation.
#[pin_data]
pub(in crate::remap) struct RepairState {
    /// Bios that wait for a repairer.
    pub(in crate::remap) deferred: dm::BioList<DmRemap>,
    /// Which blocks are being worked on.
    #[pin]
    pub(in crate::remap) desk: Mutex<KBox<Desk>>,
    /// Signals that a range at the desk is free.
    #[pin]
    pub(in crate::remap) desk_changed: CondVar,
    /// Blocks that main could not read, until they are pending.
    pub(in crate::remap) notes: Notes,
    /// Those who wait for a flush and a commit.
    #[pin]
    pub(in crate::remap) group: Mutex<Group<KVec<group::Seat<Request>>>>,
    /// Signals that some of them need not wait any more, or that nobody leads.
    #[pin]
    pub(in crate::remap) group_changed: CondVar,
    /// Slots that nothing became of, to be given back by whoever has the writer's lock next.
    #[pin]
    leftover: Mutex<KVec<SlotRun>>,
    /// Zeroes, to be written.
    pub(in crate::remap) zeroes: block::IoBuffer,
}

impl RepairState {
    /// Nothing to do so far.
    pub(in crate::remap) fn new() -> Result<impl PinInit<Self, Error>> {
        let (desk, group, notes) = (make_desk()?, make_group()?, Notes::new()?);
        let leftover = KVec::with_capacity(LEFTOVER_MAX, GFP_KERNEL)?;
        let zeroes = block::IoBuffer::new(ZEROES, GFP_KERNEL)?;
        Ok(try_pin_init!(Self {
            deferred: dm::BioList::new(),
            desk <- new_mutex!(desk, "dm_remap_desk"),
            desk_changed <- new_condvar!("dm_remap_desk"),
            notes,
            group <- new_mutex!(group, "dm_remap_group"),
            group_changed <- new_condvar!("dm_remap_group"),
            leftover <- new_mutex!(leftover, "dm_remap_leftover"),
            zeroes,
        }))
    }

    /// Notes a block that main cannot read, and that has no slot. It counts as pending from here on. For who has
    /// its range.
    pub(in crate::remap) fn note(
        &self,
        user: &UserState,
        life: &Life,
        size: BlockSize,
        main_block: u64,
    ) {
        let _desk = self.desk.lock();
        if self.notes.add(main_block) {
            user.trace.pending(size.traced(main_block));
            user.counters.pending.add(1);
            life.watch_notes(true);
        }
    }

    /// A block is noted no more. Returns whether it was; whoever calls this sees to the count.
    pub(in crate::remap) fn forget_note(&self, life: &Life, main_block: u64) -> bool {
        if self.notes.is_empty() {
            return false;
        }
        self.drop_note(&self.desk.lock(), life, main_block)
    }

    /// The same, for who has the desk's lock.
    pub(in crate::remap) fn drop_note(&self, _desk: &Desk, life: &Life, main_block: u64) -> bool {
        let noted = self.notes.remove(main_block);
        life.watch_notes(!self.notes.is_empty());
        noted
    }

    /// The first noted block from `from` on that is in nobody's range.
    pub(in crate::remap) fn next_noted(&self, size: BlockSize, from: u64) -> Option<u64> {
        let desk = self.desk.lock();
        let range = |block| Range::new(size.sector_of(block), size.sectors(1));
        self.notes.next(from, |block| !desk.is_busy(range(block)))
    }

    /// Gives back those slots of some that are held, which nothing became of. Does not wait for who has the writer's lock.
    pub(in crate::remap) fn leave_slots(
        &self,
        meta: &MetaState,
        path: &PathState,
        slots: impl Iterator<Item = u32>,
    ) {
        let mut locked = meta.writer.try_lock();
        for slot in slots {
            if let Some(locked) = &mut locked {
                locked.writer.give_back(path, slot);
                continue;
            }
            // Others are set aside for a block, and what becomes of them later is not ours.
            if !path.is_held(slot) {
                continue;
            }
            // Where there are too many, they are held until the next activation.
            add_slot(&mut self.leftover.lock(), slot);
        }
    }

    /// Takes one out of the slots that nothing became of.
    pub(in crate::remap) fn pop_leftover(&self) -> Option<u32> {
        let mut runs = self.leftover.lock();
        let run = runs.last_mut()?;
        run.count = run.count.saturating_sub(1);
        let (slot, rest) = (run.first.saturating_add(run.count), run.count);
        if rest == 0 {
            runs.pop();
        }
        Some(slot)
    }
}

/// Adds a slot to runs of them, if there is room.
fn add_slot(runs: &mut KVec<SlotRun>, slot: u32) {
    match runs.last_mut() {
        Some(run) if run.first.saturating_add(run.count) == slot => {
            run.count = run.count.saturating_add(1);
        }
        _ => {
            let (first, count) = (slot, 1);
            let _ = runs.push_within_capacity(SlotRun { first, count });
        }
    }
}

/// Seats for all who move blocks.
fn make_group() -> Result<Group<KVec<group::Seat<Request>>>> {
    let mut seats = KVec::with_capacity(group::SEATS, GFP_KERNEL)?;
    for _ in 0..group::SEATS {
        seats.push_within_capacity(None)?;
    }
    Ok(Group::new(seats))
}

/// A desk at which nobody works. Not inline: it is too large to be made on a stack that others need.
#[inline(never)]
fn make_desk() -> Result<KBox<Desk>> {
    Ok(KBox::new(Desk::new(), GFP_KERNEL)?)
}
