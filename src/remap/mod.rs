// SPDX-License-Identifier: GPL-2.0

//! The target: what a table line makes, and what device mapper asks of it.
//!
//! | folder    | what is in it                                                                  |
//! |-----------|--------------------------------------------------------------------------------|
//! | `path`    | a bio, there and back: what `map` and `end_io` call, and look at               |
//! | `setup`   | from a table line to devices and a state: claims, checks, reading metadata     |
//! | `session` | what outlives tables, and the order of locks; what a resume and a suspend write |
//! | `meta`    | every change of the map, in memory and on the spares                           |
//! | `repair`  | what becomes of bios that failed                                               |
//! | `jobs`    | what is done by message or in the background: moves, losses, redundancy        |
//! | `health`  | do the disks work as such: breakers, flush errors that are remembered          |
//! | `user`    | messages, status, limits, sysfs, debugfs, events, parameters, names            |
//!
//! Here is what device mapper calls. What a suspend waits for is in `postsuspend`, and nowhere else: repairs, background
//! work, messages (the mover's lock), and metadata I/O that is late. All of it may be at a spare that hangs (P15).
//! `presuspend` waits for the teller only.

mod health;
mod jobs;
mod meta;
mod path;
mod repair;
mod session;
mod setup;
mod user;

use core::fmt::Write;

use kernel::{
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
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
        args::{
            self,
            Options, //
        },
        set::Plan, //
    }, //
};

use jobs::{
    autosave::Autosave,
    restorer::Restorer,
    weak::WeakMover, //
};
use meta::{
    state::Locked,
    writer::growth, //
};
use path::BioData;
use repair::crew::{
    Noter,
    Repairer,
    Teller, //
};
use session::{
    activate::Table,
    state::State, //
};
use setup::{
    registry::StateRef,
    spares::Spares, //
};
use user::face::FaceRef;

pub(crate) use user::face::Registration as Files;
use user::names::Show;

/// One line of a table.
pub(crate) struct DmRemap {
    main: dm::Device,
    spares: Spares,
    /// How the set is to change when this table is resumed.
    plan: KBox<Plan>,
    /// The line that names the set, if it is new or its spares are.
    line: Option<CString>,
    options: KBox<Options>,
    /// Number of sectors.
    len: u64,
    /// Size of the main device when the table was loaded.
    main_sectors: u64,
    /// Whether this table was resumed before.
    resumed: Atomic<bool>,
    /// Runs the crew. Dropping it waits for that, and comes before crew and state.
    queue: work::WorkQueue,
    /// Runs what waits for memory, and so must not keep a repair waiting.
    growth: work::WorkQueue,
    /// Runs the teller, who waits for device mapper, the noter, the restorer, the weak mover and the autosaver.
    events: Arc<work::WorkQueue>,
    crew: KVec<Arc<Repairer>>,
    teller: Arc<Teller>,
    noter: Arc<Noter>,
    restorer: Arc<Restorer>,
    weak_mover: Arc<WeakMover>,
    autosave: Pin<KBox<Autosave>>,
    // Behind the teller, who has the folder.
    face: FaceRef,
    state: StateRef,
}

#[vtable]
impl dm::Target for DmRemap {
    type PerBio = BioData;

    const VERSION: [u32; 3] = [3, 0, 0];
    const FEATURES: dm::Features = dm::Features::NOWAIT;

    fn ctr(ctor: &mut dm::Constructor<'_>, args: dm::Args<'_>) -> impl PinInit<Self, dm::CtrError> {
        pin_init::pin_init_scope(move || setup::ctr::construct(ctor, args))
    }

    #[inline(always)]
    fn map<'a>(&self, _ti: &dm::TargetInfo, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
        let sector = bio.target_sector();
        if bio.opf().is_write() {
            return Self::map_write(bio, sector);
        }
        let state = &**self.state;
        if state.path.is_clean(sector, bio.sectors()) && !state.life.is_watched() {
            return bio.remap_with(&self.main, sector, dm::BioContext::ERRORS_ONLY);
        }
        Self::map_read(bio, sector)
    }

    #[inline(always)]
    fn end_io<'a>(&self, _ti: &dm::TargetInfo, mut bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
        if bio.status().is_err() {
            return self.failed(bio);
        }
        let life = &self.state.life;
        match bio.per_bio().member() {
            // What is done most often, and with nothing out of the ordinary.
            Some(member) if !life.is_watched() && life.is_spare_written(member) => bio.done(),
            _ => self.succeeded(bio),
        }
    }

    fn presuspend(&self, _ti: &dm::TargetInfo) {
        self.state.jobs.set_stopping(true);
        // Messages that wait for others end now.
        let group = self.state.repair.group.lock();
        self.state.repair.group_changed.notify_all();
        drop(group);
        self.teller.tell_rest();
    }

    fn presuspend_undo(&self, _ti: &dm::TargetInfo) {
        self.state.jobs.set_stopping(false);
        let _ = self.events.enqueue(self.restorer.clone());
        self.teller.tell_due(&self.events);
    }

    fn postsuspend(&self, ti: &dm::TargetInfo) {
        for repairer in &self.crew {
            repairer.wait_until_idle();
        }
        self.noter.wait_until_idle();
        self.state.wait_until_idle();
        self.restorer.wait_until_idle();
        self.weak_mover.wait_until_idle();
        self.autosave.stop();
        self.queue.flush();
        self.growth.flush();
        self.events.flush();
        let _scope = sync::NoIoScope::enter();
        // A message that has this lock is about to see that it has to stop.
        let _mover = self.state.jobs.mover.lock();
        let mut locked = self.state.meta.writer.lock();
        if !ti.is_read_only() {
            let State { user, life, .. } = &**self.state;
            session::activate::deactivate(user, life, &mut locked, &self.spares);
        }
        self.tell_later(&mut locked);
        locked.writer.active = false;
        // The next table may use the spare, and one that does without it does not keep it open. Whoever asks for the
        // lock meanwhile is told that the device is suspended.
        while !locked.io.is_idle() {
            drop(locked);
            fsleep(Delta::from_millis(1));
            locked = self.state.meta.writer.lock();
        }
    }

    fn preresume(&self, ti: &dm::TargetInfo) -> Result {
        let _scope = sync::NoIoScope::enter();
        // The table before is gone, whether this one can be resumed or not.
        self.face.show(&self.state, &self.spares);
        let mut locked = self.state.meta.writer.lock();
        if !ti.is_read_only() {
            let main_id = self.options.main_id.as_ref();
            let before = locked.writer.metadata.superblock().main_sectors;
            if self.len > before {
                let (name, len) = (&self.state.user.name, self.len);
                pr_info!("{name}: main has grown from {before} to {len} sectors\n");
            }
            locked.writer.metadata.set_main(self.len, main_id);
            let table = Table {
                spares: &self.spares,
                plan: &self.plan,
                line: self.line.as_deref(),
            };
            if !self.resumed.load(Relaxed) {
                table.tell_renamed(&self.state.life);
            }
            session::activate::activate(&self.state, &mut locked, &table)?;
        }
        drop(locked);
        // The new map may be there before the first bio, but nothing is served while memory is waited for.
        growth::grow_at_once(&self.state);
        Ok(())
    }

    fn resume(&self, ti: &dm::TargetInfo) {
        let mut locked = self.state.meta.writer.lock();
        locked.writer.active = !ti.is_read_only();
        self.tell_later(&mut locked);
        if locked.writer.active {
            let _ = self.growth.enqueue::<_, 1>((*self.state).clone());
        }
        self.state.jobs.set_stopping(false);
        if locked.writer.active {
            let _ = self.events.enqueue(self.restorer.clone());
        }
        self.teller.tell_due(&self.events);
        // Later, what users said by message counts.
        if !self.resumed.xchg(true, Relaxed) {
            let counters = &self.state.user.counters;
            pr_info!(
                "{}: active: set {}, {} blocks remapped, room for {} more\n",
                self.state.user.name,
                Show(self.state.uuid),
                counters.remapped.get(),
                counters.left.get()
            );
            self.state.user.limits.set_from(&self.options);
            if let Some(on) = self.options.auto_remap {
                self.state.user.auto_remap.store(on, Relaxed);
            }
        }
        if locked.writer.active {
            self.autosave.start();
        }
        drop(locked);
    }

    fn status(&self, _ti: &dm::TargetInfo, kind: dm::StatusKind, out: &mut dm::StatusBuffer<'_>) {
        // Writing to the buffer does not fail.
        let _ = match kind {
            dm::StatusKind::Info => write!(out, "{}", self.status_line()),
            dm::StatusKind::Table => {
                let nth = |index: usize| {
                    let spare = self.spares.get(self.spares.nth(index)?)?;
                    Some(spare.device.number())
                };
                let more = |number: usize| nth(number.saturating_add(1));
                match nth(0) {
                    Some(spare) => args::print(out, self.main.number(), spare, more, &self.options),
                    // There is a first one in every table.
                    None => Ok(()),
                }
            }
            dm::StatusKind::Ima => write!(
                out,
                ",main={},spares={},uuid={};",
                self.main.number(),
                self.spares.count(),
                self.state.uuid,
            ),
        };
    }

    fn message(
        &self,
        ti: &dm::TargetInfo,
        args: dm::Args<'_>,
        reply: &mut dm::ReplyBuffer<'_>,
    ) -> Result {
        user::message::handle(self, ti, args, reply)
    }

    fn iterate_devices(&self, _ti: &dm::TargetInfo, devices: &mut dm::DeviceVisitor<'_>) {
        devices.visit(&self.main, 0, self.len);
        for (_, spare) in self.spares.iter() {
            devices.visit(&spare.device, spare.start, spare.sectors);
        }
    }

    fn io_hints(&self, _ti: &dm::TargetInfo, limits: &mut block::QueueLimits) {
        // An atomic write may have to be split.
        limits.clear_feature(block::QueueFeature::Dax);
        limits.clear_feature(block::QueueFeature::AtomicWrites);
        limits.limit_discard_sectors(self.main.max_discard_sectors());
    }
}

impl DmRemap {
    /// Checks that a message may use the devices, as [`DmRemap::lock_active`] does. It may as long as
    /// the caller has the mover's lock.
    fn check_active(&self, ti: &dm::TargetInfo) -> Result {
        self.lock_active(ti).map(drop)
    }

    /// Takes the writer's lock for a message that needs the devices. Fails with [`EBUSY`] while the
    /// device is suspended, with [`EROFS`] in a read-only table, and with `EMEDIUMTYPE` if somebody else has written the
    /// metadata.
    fn lock_active(&self, ti: &dm::TargetInfo) -> Result<Guard<'_, KBox<Locked>, MutexBackend>> {
        if ti.is_read_only() {
            return Err(EROFS);
        }
        let locked = self.state.meta.writer.lock();
        if !locked.writer.active {
            return Err(EBUSY);
        }
        locked.writer.check_own()?;
        Ok(locked)
    }

    /// Makes the map as large as it should be, up to `aim` if that is given, a member and its slot. For who
    /// can wait for memory. What can't be freed yet is freed later.
    fn grow(&self, aim: Option<(u8, u32)>) -> Result {
        let grown = growth::grow(&self.state, aim);
        if !self.state.path.map.reclaim() {
            let _ = self.growth.enqueue::<_, 1>((*self.state).clone());
        }
        grown
    }

    /// Raises an event if slots run low (P7), or if something became of the metadata (P4).
    fn tell_news(&self) {
        self.teller.tell_news(&self.events);
    }

    /// Has an event raised if something became of the metadata (P4): for contexts that must not wait
    /// for it, as the device serves nothing meanwhile.
    fn tell_later(&self, locked: &mut Locked) {
        if locked.writer.copies_changed(&self.state.user) {
            self.teller.tell_soon(&self.events);
        }
    }
}
