// SPDX-License-Identifier: GPL-2.0

//! Who uses which part of which spare (D1).
//!
//! Device mapper lets two devices use the same spare, as it shares one claim among all its devices.
//! So every part of a disk that is used as a spare is written down here, and an overlap is refused,
//! but for one case: the same mapped device may load another table for the same window, and then
//! finds the state of the first one. (Two targets of one table may not: they would serve different
//! blocks from the same slots.) A state is forgotten with the last table that uses it.
//!
//! Ranges cannot tell that two devices have the same content: a snapshot or a copy of a spare, or
//! another way to the same disk. The set's UUID can. A set that is in use is activated once only.

use super::state::State;
use crate::dm;
use kernel::prelude::*;
use kernel::sync::Arc;

static WINDOWS: dm::Global<KVec<Entry>> = dm::Global::new(KVec::new());

/// A part of a spare device.
pub(super) struct Part<'a> {
    pub(super) mapped_device: dm::MappedDeviceId,
    pub(super) table: dm::TableId,
    pub(super) spare: &'a dm::Device,
    /// First sector on the spare device, and one past the last.
    pub(super) range: (u64, u64),
}

struct Entry {
    mapped_device: dm::MappedDeviceId,
    spare: dm::Device,
    range: (u64, u64),
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

    fn is_same(&self, part: &Part<'_>) -> bool {
        self.mapped_device == part.mapped_device
            && self.spare == *part.spare
            && self.range.0 == part.range.0
            && !self.users.contains(&part.table)
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
        let mut windows = WINDOWS.lock();
        let mut forgotten = None;
        let found = windows
            .iter_mut()
            .position(|entry| Arc::ptr_eq(&entry.state, &self.state));
        if let Some(index) = found {
            if let Some(entry) = windows.get_mut(index) {
                entry.users.retain(|table| *table != self.table);
                if entry.users.is_empty() {
                    forgotten = windows.remove(index).ok();
                }
            }
        }
        if windows.is_empty() {
            // Nothing must be left when the module is unloaded.
            *windows = KVec::new();
        }
        drop(windows);
        drop(forgotten);
    }
}

/// Finds the state that the same mapped device uses for this window. Fails with [`EBUSY`] if
/// somebody else uses a part of it.
pub(super) fn find(part: &Part<'_>) -> Result<Option<StateRef>> {
    let mut windows = WINDOWS.lock();
    let mut overlapping = windows.iter_mut().filter(|entry| entry.overlaps(part));
    let Some(entry) = overlapping.next() else {
        return Ok(None);
    };
    if !entry.is_same(part) || overlapping.next().is_some() {
        return Err(EBUSY);
    }
    entry.users.push(part.table, GFP_KERNEL)?;
    Ok(Some(StateRef {
        state: entry.state.clone(),
        table: part.table,
    }))
}

/// Registers a new state. Fails with [`EBUSY`] if somebody was faster, and with [`EEXIST`] if the same
/// set is in use already: what was found is a copy of it, or another way to it.
pub(super) fn register(part: &Part<'_>, state: Arc<State>) -> Result<StateRef> {
    let mut windows = WINDOWS.lock();
    if windows.iter().any(|entry| entry.overlaps(part)) {
        return Err(EBUSY);
    }
    if windows.iter().any(|entry| entry.state.uuid == state.uuid) {
        return Err(EEXIST);
    }
    let mut users = KVec::with_capacity(2, GFP_KERNEL)?;
    users.push(part.table, GFP_KERNEL)?;
    windows.push(
        Entry {
            mapped_device: part.mapped_device,
            spare: part.spare.clone(),
            range: part.range,
            state: state.clone(),
            users,
        },
        GFP_KERNEL,
    )?;
    Ok(StateRef {
        state,
        table: part.table,
    })
}
