// SPDX-License-Identifier: GPL-2.0

//! Who uses which part of which spare (D1).
//!
//! Device mapper lets two devices use the same spare, as it shares one claim among all its devices.
//! So every part of a disk that is used as a spare is written down here, and an overlap is refused,
//! but for one case: the same mapped device may load another table for the same window, and then
//! finds the state of the first one. It may have others besides, which join the set or leave it. (Two
//! targets of one table may not: they would serve different blocks from the same slots.) A state is
//! forgotten with the last table that uses it.
//!
//! Ranges cannot tell that two devices have the same content: a snapshot or a copy of a spare, or
//! another way to the same disk. The set's UUID can. A set that is in use is activated once only.

use super::state::State;
use crate::dm;
use crate::logic::format::MEMBERS_MAX;
use crate::logic::text::Uuid;
use kernel::prelude::*;
use kernel::sync::Arc;

static WINDOWS: dm::Global<KVec<Entry>> = dm::Global::new(KVec::new());

/// A part of a spare device.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) spare: &'a dm::Device,
    /// First sector on the spare device, and one past the last.
    pub(super) range: (u64, u64),
}

/// Whose parts are looked for.
#[derive(Clone, Copy)]
pub(super) struct User {
    pub(super) mapped_device: dm::MappedDeviceId,
    pub(super) table: dm::TableId,
}

/// Names a member of a set. A number alone may be another one's by now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) index: u8,
    pub(super) uuid: Uuid,
}

/// One part in use.
struct Entry {
    mapped_device: dm::MappedDeviceId,
    spare: dm::Device,
    range: (u64, u64),
    /// Which member of the set it is, or will be once a table is resumed that names it.
    member: Name,
    state: Arc<State>,
    /// The tables that use it: one that is live, and one that is to replace it.
    users: KVec<dm::TableId>,
}

impl Entry {
    fn overlaps(&self, part: &Part<'_>) -> bool {
        let (own, other) = (
            absolute(&self.spare, self.range),
            absolute(part.spare, part.range),
        );
        self.spare.is_same_disk(part.spare) && own.0 < other.1 && other.0 < own.1
    }

    fn is_same(&self, user: User, part: &Part<'_>) -> bool {
        self.mapped_device == user.mapped_device
            && self.spare == *part.spare
            && self.range.0 == part.range.0
    }
}

/// A range of a partition, counted on its disk.
pub(super) fn absolute(device: &dm::Device, (start, end): (u64, u64)) -> (u64, u64) {
    let offset = device.partition_start();
    (start.saturating_add(offset), end.saturating_add(offset))
}

/// A registered use of a state.
pub(super) struct StateRef {
    state: Arc<State>,
    table: dm::TableId,
}

impl core::ops::Deref for StateRef {
    type Target = Arc<State>;

    #[inline(always)]
    fn deref(&self) -> &Arc<State> {
        &self.state
    }
}

impl Drop for StateRef {
    fn drop(&mut self) {
        let unused = self.state.writer.lock().stay(&self.state, self.table);
        drop(unused);
        let mut windows = WINDOWS.lock();
        let mut forgotten = [const { None }; MEMBERS_MAX as usize];
        for place in &mut forgotten {
            let found = windows.iter_mut().position(|entry| {
                let own = Arc::ptr_eq(&entry.state, &self.state);
                if own {
                    entry.users.retain(|table| *table != self.table);
                }
                own && entry.users.is_empty()
            });
            *place = found.and_then(|index| windows.remove(index).ok());
        }
        if windows.is_empty() {
            // Nothing must be left when the module is unloaded.
            *windows = KVec::new();
        }
        drop(windows);
        drop(forgotten);
    }
}

/// A state that is in use, and which members its parts are.
pub(super) struct Known {
    pub(super) state: StateRef,
    /// In the order of the parts; none for one that is not in use so far. Of a spare that is to join
    /// there is a name before it is a member, and it never is one if that table is not resumed.
    pub(super) members: [Option<Name>; MEMBERS_MAX as usize],
}

/// Finds the state that the same mapped device uses for one of these parts. Fails with [`EBUSY`] if
/// somebody else uses a part of them.
pub(super) fn find(user: User, parts: &[Part<'_>]) -> Result<Option<Known>> {
    let mut windows = WINDOWS.lock();
    let mut state: Option<Arc<State>> = None;
    let mut members = [None; MEMBERS_MAX as usize];
    for (part, place) in parts.iter().zip(&mut members) {
        let mut overlapping = windows.iter().filter(|entry| entry.overlaps(part));
        let Some(entry) = overlapping.next() else {
            continue;
        };
        let other = |known: &Arc<State>| !Arc::ptr_eq(known, &entry.state);
        if !entry.is_same(user, part)
            || overlapping.next().is_some()
            || state.as_ref().is_some_and(other)
        {
            return Err(EBUSY);
        }
        state = Some(entry.state.clone());
        *place = Some(entry.member);
    }
    let Some(state) = state else {
        return Ok(None);
    };
    let own = |entry: &&mut Entry| Arc::ptr_eq(&entry.state, &state);
    if windows
        .iter_mut()
        .filter(own)
        .any(|entry| entry.users.contains(&user.table))
    {
        // Two targets of one table.
        return Err(EBUSY);
    }
    let known = Known {
        state: StateRef {
            state: state.clone(),
            table: user.table,
        },
        members,
    };
    let mut pushed = Ok(());
    for entry in windows.iter_mut().filter(own) {
        let used = parts.iter().any(|part| entry.is_same(user, part));
        if used && pushed.is_ok() {
            pushed = entry.users.push(user.table, GFP_KERNEL);
        }
    }
    drop(windows);
    pushed?;
    Ok(Some(known))
}

/// Whether the same mapped device has remaps that a table would leave behind: on spares that the table
/// has not named so far.
pub(super) fn leaves_remaps(user: User) -> bool {
    let windows = WINDOWS.lock();
    let mut others = windows.iter().filter(|entry| {
        entry.mapped_device == user.mapped_device && !entry.users.contains(&user.table)
    });
    others.any(|entry| {
        let counters = &entry.state.counters;
        counters.remapped.get() != 0 || counters.pending.get() != 0
    })
}

/// Whether a part is registered as one that a state uses.
pub(super) fn is_known(state: &StateRef, part: &Part<'_>) -> bool {
    let windows = WINDOWS.lock();
    let mut own = windows
        .iter()
        .filter(|entry| Arc::ptr_eq(&entry.state, &state.state));
    own.any(|entry| entry.overlaps(part))
}

/// The spare of a member that a state has in use: the device, and which part of it.
pub(super) fn spare_of(state: &StateRef, member: Name) -> Option<(dm::Device, (u64, u64))> {
    let windows = WINDOWS.lock();
    let mut own = windows
        .iter()
        .filter(|entry| Arc::ptr_eq(&entry.state, &state.state) && entry.member == member);
    own.next().map(|entry| (entry.spare.clone(), entry.range))
}

/// Registers a new state.
pub(super) fn register(user: User, state: Arc<State>) -> StateRef {
    StateRef {
        state,
        table: user.table,
    }
}

impl StateRef {
    /// Registers one more part that the state uses, as the spare of a member. Fails with [`EBUSY`] if
    /// somebody was faster, and with [`EEXIST`] if the same set is in use already: what was found is a
    /// copy of it, or another way to it.
    pub(super) fn add(&self, user: User, part: &Part<'_>, member: Name) -> Result {
        let mut windows = WINDOWS.lock();
        if windows.iter().any(|entry| entry.overlaps(part)) {
            return Err(EBUSY);
        }
        let same = |entry: &Entry| entry.state.uuid == self.state.uuid;
        let own = |entry: &Entry| Arc::ptr_eq(&entry.state, &self.state);
        if windows.iter().any(|entry| same(entry) && !own(entry)) {
            return Err(EEXIST);
        }
        let mut users = KVec::with_capacity(2, GFP_KERNEL)?;
        users.push(self.table, GFP_KERNEL)?;
        windows.push(
            Entry {
                mapped_device: user.mapped_device,
                spare: part.spare.clone(),
                range: part.range,
                member,
                state: self.state.clone(),
                users,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }
}
