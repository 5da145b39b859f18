// SPDX-License-Identifier: GPL-2.0

//! Moving weak blocks: those that failed by themselves and could be read in the end.
//!
//! ```text
//!   repairer: read in the end -> answer -> list      weak mover: gate, drain, read again, slots, flush, commit
//!                                           `--------> up to 16 of them at a time, wherever they lie
//! ```
//!
//! What the bio got is not used, as the block may have been written since (E3): the gate is closed, writes that are
//! under way are waited for, and the block is read again. All of that is done as messages do it
//! ([`mover`](super::mover)), with the mover's lock and memory: one wait for writes, one flush and one commit for all
//! blocks of a part (P13). What is listed meanwhile is in the next one.
//!
//! Nothing depends on it: whatever comes in between, the block stays where it is and is found again. So users' writes
//! are waited for no longer than [`DRAIN_MS`], and a part takes no more blocks once it has taken its time. Its limits are
//! `MOVING_MAX` blocks a part, `WEAK_MAX` a bio and [`LISTED_MAX`] in the list; what is over is found again.

use kernel::{
    new_work,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue::{
        impl_has_work,
        Work,
        WorkItem, //
    }, //
};

use crate::{
    abstractions::{
        block::BlkStatus,
        dm,
        sync,
        util,
        work, //
    },
    logic::{
        desk::MOVING_MAX,
        message::Blocks,
        slot::{
            Origin,
            SlotState, //
        }, //
    },
    remap::{
        meta::{
            io::read_twice_into,
            writer::growth, //
        },
        repair::{
            crew::Teller,
            relocate::{
                push,
                ListedBlock,
                Own,
                Relocation,
                Source, //
            }, //
        },
        session::state::State,
        setup::spares::Spares, //
    }, //
};

use super::{
    closed::{
        range,
        Closed, //
    },
    mover::{
        is_over,
        MoverBuffers, //
    }, //
};

/// How long writes that are under way are waited for, in milliseconds.
const DRAIN_MS: u64 = 500;

/// How often is looked whether a range is free, in milliseconds.
const RANGE_MS: i64 = 5;

/// How many blocks are listed at a time; others are found again.
const LISTED_MAX: usize = 1024;

/// Weak blocks that are to be moved.
pub(in crate::remap) struct WeakBlocks {
    blocks: KVec<u64>,
}

impl WeakBlocks {
    /// None so far.
    pub(in crate::remap) fn new() -> Result<Self> {
        Ok(Self {
            blocks: KVec::with_capacity(LISTED_MAX, GFP_KERNEL)?,
        })
    }

    /// Lists a block of main, if there is room.
    pub(in crate::remap) fn add(&mut self, main_block: u64) {
        if !self.blocks.contains(&main_block) {
            let _ = self.blocks.push_within_capacity(main_block);
        }
    }

    /// Whether there are none.
    pub(in crate::remap) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes out the first ones that `wanted` picks, as many as are moved at a time.
    fn take(&mut self, wanted: impl Fn(u64) -> bool) -> Taken {
        let mut taken = Taken::default();
        self.blocks
            .retain(|block| !wanted(*block) || !taken.add(*block));
        taken
    }
}

/// Blocks that are moved together.
#[derive(Default)]
struct Taken {
    blocks: [u64; MOVING_MAX],
    count: usize,
}

impl Taken {
    /// Adds one. False if there is no room.
    fn add(&mut self, block: u64) -> bool {
        let Some(place) = self.blocks.get_mut(self.count) else {
            return false;
        };
        *place = block;
        self.count = self.count.saturating_add(1);
        true
    }

    fn all(&self) -> &[u64] {
        self.blocks.get(..self.count).unwrap_or(&[])
    }
}

/// Moves weak blocks for a table.
#[pin_data]
pub(in crate::remap) struct WeakMover {
    state: Arc<State>,
    main: dm::Device,
    spares: Spares,
    /// How many sectors of main the table has.
    len: u64,
    /// Runs the teller.
    events: Arc<work::WorkQueue>,
    teller: Arc<Teller>,
    #[pin]
    work: Work<WeakMover>,
}

impl_has_work! {
    impl HasWork<Self> for WeakMover { self.work }
}

impl WorkItem for WeakMover {
    type Pointer = Arc<WeakMover>;

    fn run(this: Arc<WeakMover>) {
        let _scope = sync::NoIoScope::enter();
        let state = &this.state;
        while !state.jobs.weak.lock().is_empty() {
            if state.jobs.is_stopping() {
                // They are found again.
                state.jobs.weak.lock().blocks.clear();
                break;
            }
            // A repairer that needs the lock cannot wait for it, and so has to be let in.
            let tries = state.jobs.probing.load(Relaxed) == 0;
            match tries.then(|| this.move_some()).flatten() {
                Some(count) => state.user.counters.weak_moves.add(count as u64),
                // Somebody else has their ranges.
                None => fsleep(Delta::from_millis(RANGE_MS)),
            }
        }
        this.teller.tell_news(&this.events);
    }
}

impl WeakMover {
    /// For the table that has these devices, and `len` sectors of main.
    pub(in crate::remap) fn new(
        state: Arc<State>,
        (main, len): (&dm::Device, u64),
        spares: &Spares,
        events: &Arc<work::WorkQueue>,
        teller: &Arc<Teller>,
    ) -> Result<Arc<Self>> {
        let (events, teller) = (events.clone(), teller.clone());
        Arc::pin_init(
            try_pin_init!(Self {
                state,
                main: main.clone(),
                spares: spares.clone(),
                len,
                events,
                teller,
                work <- new_work!("dm_remap_weak"),
            }),
            GFP_KERNEL,
        )
    }

    /// Waits until it seems to have nothing to do.
    pub(in crate::remap) fn wait_until_idle(&self) {
        work::wait_until_idle(&self.work);
    }

    /// Moves some of the blocks that are listed, and returns how many were moved. None if others have the ranges of
    /// all of them.
    fn move_some(&self) -> Option<usize> {
        let state = &*self.state;
        // Here memory can be waited for.
        let _ = growth::grow(state, None);
        // A suspend that has come past this waits for the mover's lock.
        let mut tools = state.jobs.mover.lock();
        if state.jobs.is_stopping() {
            return Some(0);
        }
        if !state.user.auto_remap.load(Relaxed)
            || state.user.counters.left.get() == 0
            || !state.life.admits_to_spares(&self.spares)
        {
            // They stay where they are, and nobody waits at a gate for nothing.
            state.jobs.weak.lock().blocks.clear();
            return Some(0);
        }
        let one = |first| Blocks { first, count: 1 };
        let desk = state.repair.desk.lock();
        let is_free = |block| !desk.is_busy(range(state.path.size, one(block)));
        let taken = state.jobs.weak.lock().take(is_free);
        drop(desk);
        let ranges = taken.blocks.map(one);
        let ranges = ranges.get(..taken.count).unwrap_or(&[]);
        if ranges.is_empty() {
            return None;
        }
        let Some(closed) = Closed::begin(&state.path, &state.repair, ranges) else {
            taken
                .all()
                .iter()
                .for_each(|block| state.jobs.weak.lock().add(*block));
            return None;
        };
        let patience = util::monotonic_ms().saturating_add(DRAIN_MS);
        let active = state.with_writer_by(patience, &self.spares, |writer, _| writer.active);
        if active != Some(true) || !closed.drain(ranges, DRAIN_MS) {
            return Some(0);
        }
        Some(self.move_part(&mut tools, taken.all()))
    }

    /// Moves blocks whose gate is closed. Returns how many were moved; the others are listed again if there was no time
    /// for them.
    fn move_part(&self, tools: &mut MoverBuffers, blocks: &[u64]) -> usize {
        let (state, spares) = (&*self.state, &self.spares);
        let bytes = state.path.size.bytes(1) as usize;
        let (mut sources, mut count) = ([0u64; MOVING_MAX], 0usize);
        tools.lists.moves.clear();
        let begun = util::monotonic_ms();
        for block in blocks {
            if is_over(begun) || state.jobs.is_stopping() {
                state.jobs.weak.lock().add(*block);
                continue;
            }
            if !self.is_on_main(*block) {
                continue;
            }
            let (sector, at) = (
                state.path.size.sector_of(*block),
                count.saturating_mul(bytes),
            );
            let part = at..at.saturating_add(bytes);
            let read = read_twice_into(&state.pool, &self.main, sector, &mut tools.data, part);
            let listed = ListedBlock::new(count as u32);
            if read.is_err() || push(&mut tools.lists.moves, listed).is_err() {
                continue;
            }
            if let Some(source) = sources.get_mut(count) {
                *source = *block;
            }
            count = count.saturating_add(1);
        }
        let sources = sources.get(..count).unwrap_or(&[]);
        let (source, own) = (Source::Buffer(&tools.data), Own::List(sources));
        let lists = &mut tools.lists;
        let (origin, error) = (Origin::Auto, BlkStatus::IOERR);
        let mut relocation = Relocation::new(state, spares, lists, (source, own), origin, error);
        // That is done at the end.
        relocation.tells = false;
        relocation.patience = util::monotonic_ms().saturating_add(DRAIN_MS);
        relocation.deadline = relocation.patience;
        // After an error some may have been moved.
        let _ = relocation.run();
        self.mark(sources)
    }

    /// Marks those of the blocks that have a slot now, for users, and counts them. If somebody else has the lock for long,
    /// they are remapped like others.
    fn mark(&self, blocks: &[u64]) -> usize {
        let state = &*self.state;
        let until = util::monotonic_ms().saturating_add(DRAIN_MS);
        let marked = state.with_writer_by(until, &self.spares, |writer, _| {
            let mut count = 0usize;
            for (slot, word) in blocks.iter().filter_map(|block| state.path.slot_of(*block)) {
                if word.state() == SlotState::Valid {
                    writer.set_word(&state.user, &state.path, slot, word.with_weak());
                    count = count.saturating_add(1);
                }
            }
            count
        });
        marked.unwrap_or(0)
    }

    /// Whether main serves a block of the table.
    fn is_on_main(&self, main_block: u64) -> bool {
        let state = &self.state;
        let inside = main_block < self.len >> state.path.size.shift;
        let by_main = match state.path.slot_of(main_block) {
            _ if state.path.is_avoided(main_block, 1) => false,
            None => true,
            Some((_, word)) => word.state() == SlotState::Pending && !word.is_doubt(),
        };
        inside && by_main && state.user.auto_remap.load(Relaxed)
    }
}
