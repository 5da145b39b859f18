// SPDX-License-Identifier: GPL-2.0

//! Memory for the map, ahead of need.
//!
//! A repair must not wait for memory: what frees memory may be a write that waits for the repair
//! (P10). So there is always room for more remaps than a few bios can ask for, and when it gets less,
//! the map is replaced by a larger one, by work of its own on a queue of its own. Memory is allocated
//! outside of the writer's lock, and filled under it, in parts between which others get it (P16). Should there be none
//! for long, remaps go on until the map is full, and errors are passed up then.
//!
//! Where most remaps were removed it is replaced by a smaller one in the same way, after each part of a
//! message, and after a repair. When, says [`table::rebuild_for`].

use core::{
    mem::size_of,
    ops::Range, //
};

use kernel::{
    alloc::Flags,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::sync,
    logic::{
        commit::EXTEND_BLOCKS_MAX,
        event::Event,
        extents::Extents,
        format::{
            table_block::ENTRIES,
            Member,
            MEMBERS_MAX, //
        },
        table::{
            self,
            Progress, //
        }, //
    },
    remap::{
        path::{
            cells::Cell64,
            map::{
                patient,
                Map, //
            },
            state::PathState, //
        },
        session::state::State,
        user::state::UserState, //
    }, //
};

use super::{
    Writer,
    STAGED_MAX, //
};

/// How many more remaps there is room for.
pub(in crate::remap) const ROOM: u32 = 4 * STAGED_MAX as u32;

/// The most numbers that slots are given: one array has no more bytes than `i32::MAX`, and loading the same
/// spares may number some more slots of each.
const NUMBERS_MAX: u32 =
    (i32::MAX as usize / size_of::<Cell64>()) as u32 - MEMBERS_MAX as u32 * AHEAD_MAX;

/// How many numbers loading gives out ahead of need, and leaves out, for each member.
const AHEAD_MAX: u32 = EXTEND_BLOCKS_MAX * ENTRIES + 1;

/// Another map that is to be.
struct Plan {
    /// Whether the present one does not do for long.
    needed: bool,
    /// How many remaps it has room for.
    remaps: u32,
    /// Which slots it has words for.
    extents: Extents,
}

impl Writer {
    /// Whether the map should be replaced by a larger or a smaller one.
    pub(in crate::remap) fn wants_growth(&self, path: &PathState) -> bool {
        self.plan(path, None).is_some()
    }

    /// Plans for the next blocks of slots, those of `aim`'s member up to its slot if that is given.
    fn plan(&self, path: &PathState, aim: Option<(u8, u32)>) -> Option<Plan> {
        let (mut extents, remaps, full) = path.with_map(|map| {
            let remaps = table::rebuild_for(&self.counts, map.buckets(), ROOM);
            let full = table::needs_rebuild(&self.counts, map.buckets(), ROOM);
            (*map.extents(), remaps, full)
        });
        let before = extents.end();
        let forgotten = self.forget_gone(&mut extents);
        let superblock = self.metadata.superblock();
        let next = match aim {
            Some((index, slot)) => superblock
                .member(index)
                .map(|member| (index, member, slot / ENTRIES)),
            None => self
                .next_member()
                .map(|(index, member)| (index, member, member.high_water)),
        };
        if let Some((index, member, block)) = next {
            // If that is not possible, the buckets may still have to be others.
            number_ahead(&mut extents, index, member, block);
        }
        for (index, member) in superblock.members() {
            if extents.known(index) < member.usable_slots() {
                // Some that a replica had taken are there again.
                number_ahead(&mut extents, index, member, member.high_water);
            }
        }
        if extents.end() == before && remaps.is_none() && !forgotten {
            return None;
        }
        Some(Plan {
            needed: full || extents.end() != before,
            remaps: remaps.unwrap_or(table::remaps_for(&self.counts, ROOM)),
            extents,
        })
    }

    /// Why the slot table of a member cannot be extended, if more of its slots have to have numbers first:
    /// [`ENOMEM`] if they can get them, and [`ENOSPC`] if not.
    pub(super) fn check_numbers(&self, path: &PathState, index: u8, member: &Member) -> Result {
        let mut extents = path.with_map(|map| *map.extents());
        let ahead = member.high_water.saturating_add(EXTEND_BLOCKS_MAX);
        if member.slots_in(ahead) <= extents.known(index) {
            return Ok(());
        }
        self.forget_gone(&mut extents);
        match number_ahead(&mut extents, index, member, member.high_water) {
            true => Err(ENOMEM),
            false => Err(ENOSPC),
        }
    }

    /// Gives up the numbers of members that have left. Returns whether there were any.
    fn forget_gone(&self, extents: &mut Extents) -> bool {
        let superblock = self.metadata.superblock();
        let gone = (0..MEMBERS_MAX).filter(|index| superblock.member(*index).is_none());
        gone.fold(false, |any, index| any | extents.forget(index))
    }

    /// Copies a part of the map to another one. Returns whether that one has all now.
    fn copy_part(&self, path: &PathState, next: &mut Next) -> Result<bool> {
        let Next {
            map,
            generations,
            progress,
        } = next;
        let copied = |numbers: Range<u32>| {
            let numbers = numbers.start as usize..numbers.end as usize;
            let mine = generations.get_mut(numbers.clone());
            if let (Some(mine), Some(theirs)) = (mine, self.generations.get(numbers)) {
                mine.copy_from_slice(theirs);
            }
        };
        path.with_map(|old| map.copy_part(old, progress, copied))
    }

    /// Takes over another map, which has all, unless the present one has gone another way meanwhile. Returns what is to
    /// be freed, not under the lock.
    fn adopt(
        &mut self,
        user: &UserState,
        path: &PathState,
        next: Next,
    ) -> core::result::Result<KVVec<u64>, Next> {
        let was = path.with_map(Map::buckets);
        let buckets = next.map.buckets();
        // Somebody else may have had other slots numbered, and these may be in use by now: a number must not
        // come to mean another slot.
        let mut extents = path.with_map(|old| *old.extents());
        self.forget_gone(&mut extents);
        let outdated = next.generations.len() < self.generations.len()
            || !next.map.extents().continues(&extents)
            || !table::is_enough(&self.counts, buckets, ROOM);
        if outdated {
            return Err(next);
        }
        let Next {
            map,
            generations,
            progress,
        } = next;
        self.counts = progress.counts;
        let known = path.with_map(|old| {
            core::array::from_fn::<_, { MEMBERS_MAX as usize }, _>(|member| {
                old.extents().known(member as u8)
            })
        });
        path.map.replace(map);
        for (member, known) in (0u8..).zip(known) {
            // Without numbers they could not be given out when they were initialised, or came back.
            let usable = self.usable_slots(member);
            self.free_held(user, path, member, (known, usable));
        }
        let unused = core::mem::replace(&mut self.generations, generations);
        if buckets != was {
            let (name, what) = (&user.name, Event::Grown.what());
            let used = self.counts.used;
            pr_info!(
                "{name}: {what}: {was} -> {buckets} buckets, for {used} remaps and {ROOM} more\n"
            );
            user.trace.resize(was as u64, buckets as u64);
            // What a device begins with is no news.
            if self.active {
                user.news.note(Event::Grown, 1, None);
            }
        }
        Ok(unused)
    }
}

/// Gives numbers to the slots of a member up to those that are initialised from `block` on, and to some more.
/// Returns whether they all have one.
fn number_ahead(extents: &mut Extents, index: u8, member: &Member, block: u32) -> bool {
    let needed = member.slots_in(block.saturating_add(EXTEND_BLOCKS_MAX));
    let known = extents.known(index);
    if needed <= known {
        return true;
    }
    // And the number that is left out between two extents.
    let left = NUMBERS_MAX.saturating_sub(extents.end().saturating_add(1));
    // By whole blocks of the slot table.
    let roomy = known.saturating_add(known / 4).div_ceil(ENTRIES);
    let roomy = member.slots_in(roomy).max(needed);
    let mut counts = [roomy, needed]
        .map(|slots| slots.saturating_sub(known))
        .into_iter();
    counts.any(|count| count <= left && extents.grow(index, member, count))
}

/// Another map that is being filled.
struct Next {
    map: sync::Replacement<Map>,
    generations: KVVec<u64>,
    progress: Progress,
}

impl Plan {
    fn allocate(&self, flags: Flags) -> Result<Next> {
        let map = Map::new(&self.extents, self.remaps, flags)?;
        Ok(Next {
            map: sync::Replacement::new(map, flags)?,
            generations: KVVec::from_elem(0, self.extents.end() as usize, flags)?,
            progress: Progress::default(),
        })
    }
}

/// Makes the map as large as it should be. Allocates, and so is not for repairs; nor may the caller
/// hold locks. If `aim` is given, a slot of a member, it can be initialised then. Does not wait for those who
/// read the old map, which is freed later.
///
/// Ends without an error when the device is to be suspended, or the caller is interrupted: the next one goes on.
pub(in crate::remap) fn grow(state: &State, aim: Option<(u8, u32)>) -> Result {
    grow_by(
        state,
        aim,
        (true, patient()),
        || state.jobs.must_stop(),
        |_| true,
    )
}

/// The same for a table that is made, perhaps while the one before is suspended.
pub(in crate::remap) fn grow_for_table(state: &State) -> Result {
    grow_by(state, None, (true, patient()), || false, |_| true)
}

/// The same for who cannot wait for memory: does only what is needed soon, and that if it can be done at
/// once.
#[inline(never)] // The kernel's stack is small, and the caller does other things, too.
pub(in crate::remap) fn grow_at_once(state: &State) {
    let flags = GFP_NOWAIT | __GFP_NOWARN;
    let stops = || state.jobs.is_stopping();
    let _ = grow_by(state, None, (false, flags), stops, |plan| plan.needed);
}

fn grow_by(
    state: &State,
    aim: Option<(u8, u32)>,
    (waits, flags): (bool, Flags),
    stops: impl Fn() -> bool,
    wanted: impl Fn(&Plan) -> bool,
) -> Result {
    let _scope = sync::NoIoScope::enter();
    // What has changed is known to one at a time.
    let _growing = loop {
        match state.meta.growing.try_lock() {
            Some(growing) => break growing,
            None if !waits || stops() => return Ok(()),
            None => fsleep(Delta::from_millis(1)),
        }
    };
    let all_freed = state.path.map.reclaim();
    loop {
        let plan = {
            let locked = state.meta.writer.lock();
            locked.writer.plan(&state.path, aim)
        };
        // Old maps that are still read take memory, and what is not needed can wait.
        let plan = plan.filter(|plan| wanted(plan) && (all_freed || plan.needed));
        let Some(plan) = plan else {
            return Ok(());
        };
        let mut next = match plan.allocate(flags) {
            Ok(memory) => memory,
            // The larger one does as well.
            Err(_) if !plan.needed => return Ok(()),
            Err(error) => return Err(error),
        };
        loop {
            if stops() {
                return Ok(());
            }
            let mut locked = state.meta.writer.lock();
            match locked.writer.copy_part(&state.path, &mut next) {
                Ok(false) => {
                    drop(locked);
                    state.meta.let_others_write();
                }
                Ok(true) => {
                    let unused = locked.writer.adopt(&state.user, &state.path, next);
                    drop(locked);
                    drop(unused);
                    break;
                }
                // More was added than the plan had room for: it is outdated.
                Err(_) => {
                    drop(locked);
                    break;
                }
            }
        }
    }
}
