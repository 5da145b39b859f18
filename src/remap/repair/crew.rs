// SPDX-License-Identifier: GPL-2.0

//! Who repairs what, and when.
//!
//! ```text
//!   map, end_io --> deferred bios --> dispatch --> repairer 0 --> answered
//!                        ^               |         repairer 1 --> answered
//!                        +-- its blocks -+            ...
//!                            are taken, or nobody is free
//! ```
//!
//! A disk may take seconds for each bad block, and must not keep others waiting (E7). So several
//! bios are repaired at a time, each with lists and a buffer of its own, made beforehand. Two of the
//! same region never are: repairs are serialised for each block, and a region that is slow gets hold
//! of one repairer and not of all. One repairer is kept for bios that `map` has deferred, as these
//! have not met a bad block of main yet, and one for reads that failed on main, which no spare is asked for.
//!
//! Repairers belong to a table and the bios to its mapped device, which exist as long as there is a
//! bio to be answered. What comes after the answer ends before the table's queue does.

use kernel::{
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
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
        dm,
        sync,
        work, //
    },
    logic::{
        desk::{
            Bio,
            Range,
            JOBS, //
        },
        limit::Limit, //
    },
    remap::{
        jobs::{
            restorer::Restorer,
            weak::WeakMover, //
        },
        session::state::State,
        setup::spares::Spares,
        user::face::DeviceFolderRef,
        DmRemap, //
    }, //
};

use super::{
    relocate::Lists,
    serve,
    state::RepairState, //
};

/// Serves one bio at a time.
#[pin_data]
pub(in crate::remap) struct Repairer {
    state: Arc<State>,
    /// Where the others run.
    background: Arc<work::WorkQueue>,
    teller: Arc<Teller>,
    restorer: Arc<Restorer>,
    weak_mover: Arc<WeakMover>,
    /// Its number at the desk.
    number: usize,
    /// What to do next.
    #[pin]
    bio: Mutex<Option<dm::OwnedBio<DmRemap>>>,
    #[pin]
    tools: Mutex<RepairBuffers>,
    #[pin]
    work: Work<Repairer>,
}

/// What a repairer needs: there may be no memory when it does.
pub(in crate::remap) struct RepairBuffers {
    pub(in crate::remap) lists: Lists,
    /// One block.
    pub(in crate::remap) data: block::IoBuffer,
}

impl_has_work! {
    impl HasWork<Self> for Repairer { self.work }
}

impl WorkItem for Repairer {
    type Pointer = Arc<Repairer>;

    fn run(this: Arc<Repairer>) {
        let _scope = sync::NoIoScope::enter();
        let bio = this.bio.lock().take();
        if let Some(bio) = bio {
            serve::serve(&this.state, bio, &mut this.tools.lock());
        }
        let mut desk = this.state.repair.desk.lock();
        desk.end(this.number);
        drop(desk);
        this.state.repair.desk_changed.notify_all();
        if this.state.user.counters.degraded.get() != 0 {
            // Whatever it is that was lost, others need not wait for it.
            let _ = this.background.enqueue(this.restorer.clone());
        }
        if !this.state.jobs.weak.lock().is_empty() {
            let _ = this.background.enqueue(this.weak_mover.clone());
        }
        this.teller.tell_due(&this.background);
        dispatch(&this.state.repair);
    }
}

impl Repairer {
    /// Waits until it seems to have nothing to do.
    pub(in crate::remap) fn wait_until_idle(&self) {
        work::wait_until_idle(&self.work);
    }
}

/// Tells users what they wait for, by events of the mapped device and uevents. Whoever does that waits for a lock of
/// device mapper's or of others who send uevents, whose holder may wait for memory and so for a repair; no repairer may do it.
#[pin_data]
pub(in crate::remap) struct Teller {
    state: Arc<State>,
    events: dm::Events,
    names: dm::DeviceNames,
    folder: Arc<DeviceFolderRef>,
    #[pin]
    work: Work<Teller>,
}

impl Teller {
    pub(in crate::remap) fn new(
        state: Arc<State>,
        events: dm::Events,
        names: dm::DeviceNames,
        folder: Arc<DeviceFolderRef>,
    ) -> Result<Arc<Self>> {
        let teller = try_pin_init!(Self {
            state,
            events,
            names,
            folder,
            work <- new_work!("dm_remap_teller"),
        });
        Arc::pin_init(teller, GFP_KERNEL)
    }

    /// Raises an event of the mapped device now, if there is something to be told. Not for repairers. The uevent is sent
    /// when this is queued.
    pub(in crate::remap) fn raise(&self) {
        if self.state.user.news.take_silent() {
            self.events.raise();
        }
    }

    /// Has users told when `queue` comes to it. From any context.
    pub(in crate::remap) fn tell_soon(self: &Arc<Self>, queue: &work::WorkQueue) {
        let _ = queue.enqueue::<_, 0>(self.clone());
    }

    /// The same, if there is something to be told.
    pub(in crate::remap) fn tell_due(self: &Arc<Self>, queue: &work::WorkQueue) {
        if self.state.user.news.is_due() {
            self.tell_soon(queue);
        }
    }

    /// Raises an event if slots run low (P7), or if something became of the metadata (P4), and has users told of all there
    /// is. Waits for the writer's lock; not for repairers.
    pub(in crate::remap) fn tell_news(self: &Arc<Self>, queue: &work::WorkQueue) {
        let low_water = self.state.user.limits.get(Limit::LowWater);
        (self.state.meta.writer.lock().writer).has_news(&self.state.user, low_water);
        self.raise();
        self.tell_due(queue);
    }

    /// Sends a uevent, if there is something to be told.
    fn tell(&self) {
        let State { user, life, .. } = &*self.state;
        user.news.tell(user, life, &self.names, &self.folder);
    }

    /// The device is about to be suspended, and still serves: what is to be told is told before. From here to resume no
    /// uevent is sent.
    pub(in crate::remap) fn tell_rest(&self) {
        work::wait_until_idle(&self.work);
        self.raise();
        self.tell();
    }
}

impl_has_work! {
    impl HasWork<Self> for Teller { self.work }
}

impl WorkItem for Teller {
    type Pointer = Arc<Teller>;

    fn run(this: Arc<Teller>) {
        let _scope = sync::NoIoScope::enter();
        this.raise();
        if this.state.user.news.wait_for_turn(&this.state.jobs) {
            this.raise();
            this.tell();
        }
    }
}

/// Sets aside what main could not read, once that was told: a spare may take long for it. Nothing else depends on it
/// but that what it is told of is in nobody's range.
#[pin_data]
pub(in crate::remap) struct Noter {
    state: Arc<State>,
    spares: Spares,
    /// Runs the others.
    events: Arc<work::WorkQueue>,
    teller: Arc<Teller>,
    restorer: Arc<Restorer>,
    #[pin]
    work: Work<Noter>,
}

impl Noter {
    pub(in crate::remap) fn new(
        state: &Arc<State>,
        spares: &Spares,
        events: &Arc<work::WorkQueue>,
        teller: &Arc<Teller>,
        restorer: &Arc<Restorer>,
    ) -> Result<Arc<Self>> {
        let noter = try_pin_init!(Self {
            state: state.clone(),
            spares: spares.clone(),
            events: events.clone(),
            teller: teller.clone(),
            restorer: restorer.clone(),
            work <- new_work!("dm_remap_noter"),
        });
        Arc::pin_init(noter, GFP_KERNEL)
    }

    /// Waits until it seems to have nothing to do.
    pub(in crate::remap) fn wait_until_idle(&self) {
        work::wait_until_idle(&self.work);
    }
}

impl_has_work! {
    impl HasWork<Self> for Noter { self.work }
}

impl WorkItem for Noter {
    type Pointer = Arc<Noter>;

    fn run(this: Arc<Noter>) {
        let _scope = sync::NoIoScope::enter();
        if serve::set_noted_aside(&this.state, &this.spares) {
            this.teller.tell_soon(&this.events);
        }
        if this.state.user.counters.degraded.get() != 0 {
            let _ = this.events.enqueue::<_, 0>(this.restorer.clone());
        }
    }
}

/// Makes the repairers for a table. The others run on the queue `background`, so that no repair waits for them.
pub(in crate::remap) fn hire(
    state: &Arc<State>,
    background: &Arc<work::WorkQueue>,
    teller: &Arc<Teller>,
    restorer: &Arc<Restorer>,
    weak_mover: &Arc<WeakMover>,
) -> Result<KVec<Arc<Repairer>>> {
    let mut crew = KVec::with_capacity(JOBS, GFP_KERNEL)?;
    for number in 0..JOBS {
        let tools = RepairBuffers {
            lists: Lists::new()?,
            data: block::IoBuffer::new(state.path.size.bytes(1) as usize, GFP_KERNEL)?,
        };
        let (state, background) = (state.clone(), background.clone());
        let (teller, restorer, weak_mover) = (teller.clone(), restorer.clone(), weak_mover.clone());
        let repairer = Arc::pin_init(
            try_pin_init!(Repairer {
                state,
                background,
                teller,
                restorer,
                weak_mover,
                number,
                bio <- new_mutex!(None, "dm_remap_bio"),
                tools <- new_mutex!(tools, "dm_remap_tools"),
                work <- new_work!("dm_remap_repair"),
            }),
            GFP_KERNEL,
        )?;
        crew.push(repairer, GFP_KERNEL)?;
    }
    Ok(crew)
}

/// Gives deferred bios to repairers, as far as possible. Whoever frees a range has to call this.
/// May sleep.
pub(in crate::remap) fn dispatch(repair: &RepairState) {
    // Held all the time: who frees a range meanwhile waits, and then sees what was put back.
    let mut desk = repair.desk.lock();
    for mut bio in repair.deferred.take_all() {
        let range = match bio.sectors() {
            // A flush, which is of no place.
            0 => Range::NOTHING,
            sectors => Range::new(bio.target_sector(), sectors),
        };
        let is_read = bio.op() == block::Op::Read;
        let what = match bio.per_bio() {
            data if !data.failed => Bio::Deferred,
            data if is_read && data.member().is_none() => Bio::MainRead,
            _ => Bio::Failed,
        };
        let Some(number) = desk.start(range, what) else {
            repair.deferred.push(bio);
            continue;
        };
        let target = bio.target();
        let Some(repairer) = target.crew.get(number).cloned() else {
            // There are as many as places at the desk.
            desk.end(number);
            bio.complete(block::BlkStatus::IOERR);
            continue;
        };
        // It runs at once, if it likes, and waits for the lock.
        let mut next = repairer.bio.lock();
        let _ = target.queue.enqueue(repairer.clone());
        *next = Some(bio);
    }
}
