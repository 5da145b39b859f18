// SPDX-License-Identifier: GPL-2.0

//! What is counted for users, kept up to date so that it can be read without a lock.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

use crate::{
    logic::{
        format::{
            Member,
            Superblock,
            REPLICAS, //
        },
        pool::{
            state::PoolState,
            Pools, //
        },
        slot::{
            SlotState,
            SlotWord, //
        }, //
    },
    remap::path::map::Map, //
};

/// A number that is shown to users.
pub(in crate::remap) struct Counter(Atomic<u64>);

impl Counter {
    /// Starts from `value`.
    pub(in crate::remap) const fn new(value: u64) -> Self {
        Self(Atomic::new(value))
    }

    /// Reads it.
    pub(in crate::remap) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Sets it.
    pub(in crate::remap) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds to it.
    pub(in crate::remap) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Takes from it.
    pub(in crate::remap) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Relaxed);
    }
}

/// What the status line shows, kept up to date so that it can be read without a lock.
pub(in crate::remap) struct Counters {
    /// Slots that serve a block of main.
    pub(in crate::remap) remapped: Counter,
    /// Slots that are set aside for a block that could not be read.
    pub(in crate::remap) pending: Counter,
    /// Slots that serve a block of main and cannot be read: they failed, or their spare is lost or was given up.
    pub(in crate::remap) lost: Counter,
    /// Slots that failed.
    pub(in crate::remap) bad: Counter,
    /// Slots that can still be given out.
    pub(in crate::remap) left: Counter,
    /// Slots of all spares in use, but for those that are idle.
    pub(in crate::remap) capacity: Counter,
    /// Spares in use.
    pub(in crate::remap) spares: Counter,
    /// Spares that belong to the set.
    pub(in crate::remap) spares_all: Counter,
    /// Spares that give out no slots, as they are to be taken out; a bit each.
    pub(in crate::remap) idle: Counter,
    /// Writes that failed on main.
    pub(in crate::remap) write_errors: Counter,
    /// Reads that failed on main.
    pub(in crate::remap) read_errors: Counter,
    /// Blocks that the worker has remapped.
    pub(in crate::remap) auto_remaps: Counter,
    /// Blocks that users have remapped.
    pub(in crate::remap) manual_remaps: Counter,
    /// Blocks that the worker has remapped because they could only be read after several tries.
    pub(in crate::remap) weak_moves: Counter,
    /// Metadata commits that were begun.
    pub(in crate::remap) saves: Counter,
    /// Metadata commits that ended well.
    pub(in crate::remap) saves_done: Counter,
    /// Metadata blocks that were repaired or moved.
    pub(in crate::remap) metadata_repairs: Counter,
    /// Writes that failed on slots.
    pub(in crate::remap) spare_write_errors: Counter,
    /// Reads that failed on slots.
    pub(in crate::remap) spare_read_errors: Counter,
    /// Replicas of the slot table in use.
    pub(in crate::remap) replicas: Counter,
    /// Superblock copies in use.
    pub(in crate::remap) superblocks: Counter,
    /// Whether there could be more of both, 0 or 1.
    pub(in crate::remap) degraded: Counter,
    /// Whether the last metadata commit failed, 0 or 1.
    pub(in crate::remap) stuck: Counter,
    /// Whether somebody else has written the metadata, 0 or 1.
    pub(in crate::remap) foreign: Counter,
    /// Whether new spares take over from dead ones, 0 or 1.
    pub(in crate::remap) taking_over: Counter,
    /// Messages that were refused.
    pub(in crate::remap) refused: Counter,
}

impl Counters {
    /// Starts with what a spare says.
    pub(in crate::remap) fn new(superblock: &Superblock, map: &Map) -> Self {
        let statistics = &superblock.statistics;
        let counters = Self {
            remapped: Counter::new(0),
            pending: Counter::new(0),
            lost: Counter::new(0),
            bad: Counter::new(0),
            left: Counter::new(0),
            capacity: Counter::new(0),
            spares: Counter::new(0),
            spares_all: Counter::new(0),
            idle: Counter::new(0),
            write_errors: Counter::new(statistics.write_errors),
            read_errors: Counter::new(statistics.read_errors),
            auto_remaps: Counter::new(statistics.auto_remaps),
            manual_remaps: Counter::new(statistics.manual_remaps),
            weak_moves: Counter::new(0),
            saves: Counter::new(statistics.saves),
            saves_done: Counter::new(statistics.saves_done),
            metadata_repairs: Counter::new(statistics.metadata_repairs),
            spare_write_errors: Counter::new(statistics.spare_write_errors),
            spare_read_errors: Counter::new(statistics.spare_read_errors),
            replicas: Counter::new(0),
            superblocks: Counter::new(0),
            degraded: Counter::new(0),
            stuck: Counter::new(0),
            foreign: Counter::new(0),
            taking_over: Counter::new(0),
            refused: Counter::new(0),
        };
        let (mut remapped, mut pending, mut bad, mut lost) = (0u64, 0u64, 0u64, 0u64);
        for word in map.words() {
            let count = match word.state() {
                SlotState::Free => continue,
                SlotState::Valid => &mut remapped,
                SlotState::Lost => {
                    lost = lost.wrapping_add(1);
                    &mut remapped
                }
                SlotState::Pending => &mut pending,
                SlotState::Bad => &mut bad,
            };
            *count = count.wrapping_add(1);
        }
        counters.remapped.set(remapped);
        counters.pending.set(pending);
        counters.bad.set(bad);
        counters.lost.set(lost);
        counters
    }

    /// Shows which spares and which copies of the metadata are in use.
    pub(in crate::remap) fn show_copies(&self, superblock: &Superblock, pools: &Pools) {
        self.idle.set(u64::from(pools.members(PoolState::is_idle)));
        let replicas = |member: &Member| {
            let live = (0..REPLICAS).filter(|replica| member.replica_lives(*replica));
            live.count()
        };
        let all = superblock.members();
        let fewest = all.clone().map(|(_, member)| replicas(member)).min();
        self.replicas.set(fewest.unwrap_or(0) as u64);
        self.superblocks
            .set(u64::from(superblock.live_supers().count_ones()));
        self.degraded.set(u64::from(superblock.is_degraded()));
        let used = all.clone().filter(|(_, member)| !member.missing);
        self.spares.set(used.count() as u64);
        self.spares_all.set(all.clone().count() as u64);
        let counting = all.filter(|(index, _)| pools.state(*index).counts());
        let slots = counting.map(|(_, member)| u64::from(member.slots));
        self.capacity.set(slots.fold(0, u64::saturating_add));
    }

    /// Sets to zero what users can have set to zero: what has happened, and not what is so.
    pub(in crate::remap) fn clear_stats(&self) {
        for counter in [
            &self.write_errors,
            &self.read_errors,
            &self.auto_remaps,
            &self.manual_remaps,
            &self.weak_moves,
            &self.spare_write_errors,
            &self.spare_read_errors,
            &self.refused,
        ] {
            counter.set(0);
        }
    }

    /// Counts that a slot's word has changed.
    pub(in crate::remap) fn changed(&self, before: SlotWord, after: SlotWord) {
        if before.state() == after.state() {
            return;
        }
        if let Some(counter) = self.of(before.state()) {
            counter.sub(1);
        }
        if let Some(counter) = self.of(after.state()) {
            counter.add(1);
        }
    }

    fn of(&self, state: SlotState) -> Option<&Counter> {
        match state {
            SlotState::Free => None,
            SlotState::Valid | SlotState::Lost => Some(&self.remapped),
            SlotState::Pending => Some(&self.pending),
            SlotState::Bad => Some(&self.bad),
        }
    }
}
