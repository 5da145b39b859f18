// SPDX-License-Identifier: GPL-2.0

//! What is known about a spare set in use (D1).
//!
//! The state outlives tables: when a table is reloaded, the new one finds the state of the old one
//! by mapped device and spare set. So nothing here refers to a table, a target or a device; whoever
//! works on the state brings the devices of the active table along.
//!
//! It consists of parts, each of which stands in the folder that it belongs to, with what it says and does by itself. Who
//! needs one or two of them is given these. Only what begins or ends something has all: what device mapper calls, an
//! activation, a message, a repair of a bio.
//!
//! | part     | folder   | what it is                                                              |
//! |----------|----------|-------------------------------------------------------------------------|
//! | `user`   | `user`   | what users see of the device and have set; has no lock but `why`        |
//! | `path`   | `path`   | what bios are looked up in; has no lock                                 |
//! | `life`   | `health` | whether main and the spares work as such; has no lock                   |
//! | `repair` | `repair` | what waits for a repair, and who is at it: `desk`, `group`, `leftover`  |
//! | `meta`   | `meta`   | who changes the map and the metadata: `writer`, `growing`               |
//! | `jobs`   | `jobs`   | who moves blocks that did not fail: `mover`, `weak`                     |
//!
//! Locks and contexts, in the order in which they are taken:
//! 1. `mover`, a mutex: moving blocks that did not fail. There is one gate, and whoever has this may
//!    close it. Messages wait for it; repairers only try, as its holder may wait for them.
//! 2. The desk's range: a repairer has that of its bio, the holder of `mover` that of its blocks. No
//!    range has two, so that a block's place in the map changes for its holder alone, but for four
//!    things that the holder of `writer` may do: settle a doubt, and with a block that is in nobody's range
//!    take away its slot if it is pending, give it one if it is noted, or another one if its spare is given up.
//! 3. `writer`, a mutex: everything that changes the map or the metadata. Held for metadata I/O and never for data I/O:
//!    for one commit with its superblock pass, one extension, or one step of the restorer, of `recheck` or of the
//!    growth (P16). Writes take `deadline_ms` each at most (`meta/io.rs`); a bio waits for it as long as
//!    [`Limits::patience`](crate::remap::user::limits::Limits::patience) says. A resume has it until all replicas are
//!    equal (M3). Nothing is allocated below it but in a resume.
//!    `growing`, a mutex of who replaces the map, is taken before it.
//! 4. `desk`, a mutex: who has which range, and which blocks are noted. Held for a moment.
//! 5. `leftover`, `weak`, `group` and `why`, mutexes: held for a moment, nothing is taken below them.
//! 6. RCU, for a moment: looking at the map. Not for bios: those are readers of an SRCU domain, and `map` and
//!    `end_io` take nothing else.
//!
//! The lock of the [`registry`](crate::remap::setup::registry) stands apart: it is taken with none of these, and none
//! below it.
//!
//! The map's readers are an SRCU domain: a bio is registered from its look-up to its completion if it is a
//! write, or if its presence bit is set (E5). It is unregistered before it is queued for the worker,
//! so that holders of all these locks may wait for it.
//!
//! What has no lock is single words, or published as a whole, and is read at any time. Counters are written under `writer`
//! or by rare events.

use kernel::{
    prelude::*,
    sync::Arc,
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
        block,
        work, //
    },
    logic::text::Uuid,
    remap::{
        health::life::Life,
        jobs::state::JobsState,
        meta::{
            io::SpareIo,
            state::{
                Locked,
                MetaState, //
            },
            writer::{
                growth,
                Writer, //
            }, //
        },
        path::state::PathState,
        repair::{
            crew,
            state::RepairState, //
        },
        setup::spares::Spares,
        user::state::UserState, //
    }, //
};

/// Everything about a spare set in use, in parts, each of which is in the folder that it belongs to.
#[pin_data(PinnedDrop)]
pub(in crate::remap) struct State {
    /// The spare set.
    pub(in crate::remap) uuid: Uuid,
    /// What users see of the device, and what they have set.
    #[pin]
    pub(in crate::remap) user: UserState,
    /// What bios are looked up in.
    #[pin]
    pub(in crate::remap) path: PathState,
    /// Whether main and the spares work as such.
    pub(in crate::remap) life: Life,
    /// What waits for a repair, and who is at it.
    #[pin]
    pub(in crate::remap) repair: RepairState,
    /// Who changes the map and the metadata.
    #[pin]
    pub(in crate::remap) meta: MetaState,
    /// Who moves blocks that did not fail.
    #[pin]
    pub(in crate::remap) jobs: JobsState,
    /// Bios for I/O of our own.
    #[pin]
    pub(in crate::remap) pool: block::BioPool,
    /// Hands deferred bios to repairers.
    #[pin]
    pub(in crate::remap) dispatch: Work<State, 0>,
    /// Makes the map as large as it should be, and frees old ones. Runs for as long as there is one, and so
    /// for as long as the slowest bio; the queue has no other work.
    #[pin]
    pub(in crate::remap) growth: Work<State, 1>,
}

/// How often is looked whether an old map can be freed, in milliseconds.
const RECLAIM_MS: i64 = 20;

#[pinned_drop]
impl PinnedDrop for State {
    fn drop(self: Pin<&mut Self>) {
        // One that was never active was refused, and users know why.
        if self.meta.writer.lock().writer.activation() != 0 {
            let (name, remapped) = (&self.user.name, self.user.counters.remapped.get());
            pr_info!("{name}: removed, {remapped} blocks stay remapped on the spares\n");
        }
    }
}

impl_has_work! {
    impl HasWork<Self, 0> for State { self.dispatch }
    impl HasWork<Self, 1> for State { self.growth }
}

impl WorkItem<0> for State {
    type Pointer = Arc<State>;

    fn run(this: Arc<State>) {
        crew::dispatch(&this.repair);
    }
}

impl WorkItem<1> for State {
    type Pointer = Arc<State>;

    fn run(this: Arc<State>) {
        // If there is no memory, the next repair asks again.
        let _ = growth::grow(&this, None);
        // The old map is read for as long as some bio takes, and there may be need for a third one meanwhile.
        while !this.path.map.reclaim() {
            fsleep(Delta::from_millis(RECLAIM_MS));
            let _ = growth::grow(&this, None);
        }
    }
}

impl State {
    /// Waits until its work items seem to have nothing to do.
    pub(in crate::remap) fn wait_until_idle(&self) {
        work::wait_until_idle(&self.dispatch);
        work::wait_until_idle(&self.growth);
    }

    /// Calls `work` with the writer and the spares, under the writer's lock.
    pub(in crate::remap) fn with_writer<R>(
        &self,
        spares: &Spares,
        work: impl FnOnce(&mut Writer, &mut SpareIo<'_>) -> R,
    ) -> R {
        self.with_locked(&mut self.meta.writer.lock(), spares, work)
    }

    /// The same, for who must not wait for the lock after `until`: see [`MetaState::lock_by`].
    pub(in crate::remap) fn with_writer_by<R>(
        &self,
        until: u64,
        spares: &Spares,
        work: impl FnOnce(&mut Writer, &mut SpareIo<'_>) -> R,
    ) -> Option<R> {
        let mut locked = self.meta.lock_by(until)?;
        Some(self.with_locked(&mut locked, spares, work))
    }

    fn with_locked<R>(
        &self,
        locked: &mut Locked,
        spares: &Spares,
        work: impl FnOnce(&mut Writer, &mut SpareIo<'_>) -> R,
    ) -> R {
        let Locked { writer, io, .. } = locked;
        writer.note_stalled(&self.user.limits, &self.life);
        work(
            writer,
            &mut SpareIo::new(&self.user, &self.life, spares, io),
        )
    }
}
