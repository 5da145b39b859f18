// SPDX-License-Identifier: GPL-2.0

//! The target: what a table line makes, and what device mapper asks of it.
//!
//! | file         | what it does                                                                |
//! |--------------|-----------------------------------------------------------------------------|
//! | `mod`        | the path of a bio: `map` and `end_io`; suspend and resume; limits           |
//! | `ctr`        | table lines: devices, checks, finding or loading the state                  |
//! | `registry`   | which part of which spare is in use, and by which state                     |
//! | `state`      | what outlives tables, and the order of locks                                |
//! | `map`, `cells`, `gate` | what the path of a bio looks at                                   |
//! | `load`, `activate`     | from the spare's metadata to a state; its first writes            |
//! | `repair`     | the worker: failed bios                                                     |
//! | `mover`      | moving blocks that did not fail                                             |
//! | `writer`, `io` | every change of the map, in memory and on the spare                       |
//! | `message`    | what users say                                                              |
//!
//! The way of a bio:
//!
//! ```text
//!   map: read, presence bit clear ---------------------------------> main
//!   map: write, or presence bit set: register as reader (E5)
//!          write to a range behind the gate -------------> worker
//!          served by main --------------------------------------> main
//!          served by slots --------------------------------------> spare
//!          pending: reads --------------------------------------> main
//!                   writes ------------------------------> worker
//!          in doubt -------------------------------------> worker
//!   end_io: unregister
//!          good, or an error that the medium did not make -------> done
//!          suspect --------------------------------------> worker
//! ```

mod activate;
mod cells;
mod ctr;
mod gate;
mod io;
mod load;
mod map;
mod message;
mod mover;
mod names;
mod probe;
mod registry;
mod repair;
mod state;
mod writer;

use crate::dm;
use crate::dm::BlkStatus;
use crate::logic::args;
use crate::logic::args::Options;
use crate::logic::classify::classify;
use crate::logic::classify::Operation;
use crate::logic::classify::Verdict;
use crate::logic::status::Health;
use crate::logic::status::MetadataState;
use crate::logic::status::Status;
use crate::logic::table::RunKind;
use core::fmt::Write;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::atomic::Relaxed;
use kernel::sync::lock::mutex::MutexBackend;
use kernel::sync::lock::Guard;
use registry::StateRef;
use state::Locked;

/// The most blocks of a discard that are looked up at a time.
const DISCARD_BLOCKS: u32 = 4096;

/// What the table line says about errors.
struct Settings {
    /// How often the worker tries again to read a block.
    read_retries: u32,
    /// Percentage of slots left below which there is an event.
    low_water: u32,
}

/// What goes with every bio.
#[derive(Default)]
pub(crate) struct BioData {
    /// The bio is registered as reader.
    ticket: Option<dm::SrcuTicket>,
    /// The bio went to the spare.
    redirected: bool,
}

/// One line of a table.
pub(crate) struct DmRemap {
    main: dm::Device,
    spare: dm::Device,
    options: Options,
    settings: Settings,
    /// Number of sectors.
    len: u64,
    /// Size of the main device when the table was loaded.
    main_sectors: u64,
    events: dm::Events,
    /// Whether this table was resumed before.
    resumed: Atomic<bool>,
    /// Runs the state's work. Dropping it waits for that, and comes before the state.
    queue: dm::WorkQueue,
    state: StateRef,
}

#[vtable]
impl dm::Target for DmRemap {
    type PerBio = BioData;

    const VERSION: [u32; 3] = [3, 0, 0];
    const FEATURES: dm::Features = dm::Features::NOWAIT;

    fn ctr(
        ctor: &mut dm::Constructor<'_>,
        args: dm::Args<'_>,
    ) -> Result<Pin<KBox<Self>>, dm::CtrError> {
        ctr::construct(ctor, args)
    }

    #[inline(always)]
    fn map<'a>(&self, _ti: &dm::TargetInfo, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
        let sector = bio.target_sector();
        if !bio.opf().is_write() && !self.state.may_be_remapped(sector, bio.sectors()) {
            return bio.remap(&self.main, sector);
        }
        self.map_registered(bio, sector)
    }

    #[inline(always)]
    fn end_io<'a>(&self, _ti: &dm::TargetInfo, mut bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
        if let Some(ticket) = bio.per_bio().ticket.take() {
            self.state.readers.up_read(ticket);
        }
        if bio.status().is_ok() {
            return bio.done();
        }
        self.failed(bio)
    }

    fn presuspend(&self, _ti: &dm::TargetInfo) {
        self.state.stopping.store(true, Relaxed);
    }

    fn presuspend_undo(&self, _ti: &dm::TargetInfo) {
        self.state.stopping.store(false, Relaxed);
    }

    fn postsuspend(&self, ti: &dm::TargetInfo) {
        self.queue.flush();
        let _scope = dm::NoIoScope::enter();
        let mut locked = self.state.writer.lock();
        if !ti.is_read_only() {
            activate::deactivate(&self.state, &mut locked, &self.spare);
        }
        locked.writer.active = false;
    }

    fn preresume(&self, ti: &dm::TargetInfo) -> Result {
        let _scope = dm::NoIoScope::enter();
        let mut locked = self.state.writer.lock();
        if !ti.is_read_only() {
            let main_id = self.options.main_id.as_ref();
            locked.writer.metadata.set_main(self.main_sectors, main_id);
            activate::activate(&self.state, &mut locked, &self.spare)?;
        }
        Ok(())
    }

    fn resume(&self, ti: &dm::TargetInfo) {
        let mut locked = self.state.writer.lock();
        locked.writer.active = !ti.is_read_only();
        self.state.stopping.store(false, Relaxed);
        // Later, what users said by message counts.
        if let (Some(on), false) = (self.options.auto_remap, self.resumed.xchg(true, Relaxed)) {
            self.state.auto_remap.store(on, Relaxed);
        }
    }

    fn status(&self, ti: &dm::TargetInfo, kind: dm::StatusKind, out: &mut dm::StatusBuffer<'_>) {
        // Writing to the buffer does not fail.
        let _ = match kind {
            dm::StatusKind::Info => write!(out, "{}", self.status_line()),
            dm::StatusKind::Table => {
                args::print(out, self.main.number(), self.spare.number(), &self.options)
            }
            dm::StatusKind::Ima => write!(
                out,
                "target_name={},target_version={}.{}.{},main={},spare={},uuid={};",
                ti.target_name().to_str().unwrap_or(""),
                Self::VERSION[0],
                Self::VERSION[1],
                Self::VERSION[2],
                self.main.number(),
                self.spare.number(),
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
        message::handle(self, ti, args, reply)
    }

    fn iterate_devices(&self, _ti: &dm::TargetInfo, devices: &mut dm::DeviceVisitor<'_>) {
        let window = self.state.geometry.window_sectors();
        devices.visit(&self.main, 0, self.len);
        devices.visit(&self.spare, self.state.window_start, window);
    }

    fn io_hints(&self, _ti: &dm::TargetInfo, limits: &mut dm::QueueLimits) {
        // Completions come from the worker, too, and an atomic write may have to be split.
        limits.clear_feature(dm::QueueFeature::Poll);
        limits.clear_feature(dm::QueueFeature::Dax);
        limits.clear_feature(dm::QueueFeature::AtomicWrites);
        limits.limit_discard_sectors(self.main.max_discard_sectors());
        limits.limit_write_zeroes_sectors(0);
    }
}

impl DmRemap {
    /// Maps a bio that has to be registered while it is under way: see the module's picture.
    fn map_registered<'a>(&self, mut bio: dm::MapBio<'a, Self>, sector: u64) -> dm::Mapped<'a> {
        if bio.is_flush() {
            // One for each device, and the first number is for main.
            let device = match bio.target_bio_nr() {
                0 => &self.main,
                _ => &self.spare,
            };
            return bio.redirect(device);
        }
        let state = &**self.state;
        let write = bio.opf().is_write();
        // From here on, whoever closes the gate or removes a remap waits for this bio.
        let ticket = state.readers.down_read();
        if write && state.gate.covers(sector, bio.sectors()) {
            state.readers.up_read(ticket);
            return self.leave_to_worker(bio);
        }
        if !state.may_be_remapped(sector, bio.sectors()) {
            bio.per_bio().ticket = Some(ticket);
            return bio.remap(&self.main, sector);
        }
        let mut blocks = bio.sectors() >> state.block_shift;
        if bio.op() == dm::Op::Discard {
            // Discards can be gigabytes long, and each block is looked up.
            blocks = blocks.min(DISCARD_BLOCKS);
        }
        let run = state.run(sector >> state.block_shift, blocks);
        if bio.accept_partial(state.sectors(run.count)).is_err() {
            // Neither a read nor a write nor a discard of whole blocks.
            state.readers.up_read(ticket);
            return bio.complete(BlkStatus::NOTSUPP);
        }
        match run.kind {
            RunKind::Main => {}
            RunKind::Pending { .. } if !write => {}
            RunKind::Slots { .. } | RunKind::Pending { .. } if bio.op() == dm::Op::Discard => {
                // A hint only. The slot keeps its content, which is as good as any other.
                state.readers.up_read(ticket);
                return bio.complete(BlkStatus::OK);
            }
            RunKind::Slots { first } => {
                *bio.per_bio() = BioData {
                    ticket: Some(ticket),
                    redirected: true,
                };
                return bio.remap(&self.spare, state.slot_sector(first));
            }
            RunKind::Pending { .. } | RunKind::Doubt => {
                state.readers.up_read(ticket);
                return self.leave_to_worker(bio);
            }
        }
        bio.per_bio().ticket = Some(ticket);
        bio.remap(&self.main, sector)
    }

    /// Queues a bio that `map` cannot decide about.
    fn leave_to_worker<'a>(&self, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
        if bio.opf().is_nowait() {
            return bio.complete(BlkStatus::AGAIN);
        }
        let (owned, mapped) = bio.take();
        self.state.deferred.push(owned);
        self.kick();
        mapped
    }

    /// Decides about a bio that came back with an error. May run in an interrupt.
    #[cold]
    fn failed<'a>(&self, mut bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
        let opf = bio.opf();
        let operation = match opf.op() {
            dm::Op::Read => Operation::Read,
            dm::Op::Write if bio.sectors() == 0 => Operation::Flush,
            dm::Op::Write => Operation::Write,
            dm::Op::Discard => Operation::Discard,
            _ => Operation::Other,
        };
        let main = !bio.per_bio().redirected;
        let verdict = classify(operation, io::status_of(bio.status()), opf.is_readahead());
        if verdict != Verdict::Suspect {
            return bio.done();
        }
        match operation {
            Operation::Read if main => self.state.counters.read_errors.add(1),
            Operation::Write if main => self.state.counters.write_errors.add(1),
            _ => (),
        }
        if !self.state.auto_remap.load(Relaxed) {
            return bio.done();
        }
        let (owned, ended) = bio.take();
        self.state.deferred.push(owned);
        self.kick();
        ended
    }

    /// Lets the worker look at what is deferred.
    fn kick(&self) {
        // If the work is queued already, it will see what is deferred now.
        let _ = self.queue.enqueue((*self.state).clone());
    }

    /// Takes the writer's lock for a message that needs the devices. Fails with [`EBUSY`] while the
    /// device is suspended, and with [`EROFS`] in a read-only table.
    fn lock_active(&self, ti: &dm::TargetInfo) -> Result<Guard<'_, Locked, MutexBackend>> {
        if ti.is_read_only() {
            return Err(EROFS);
        }
        let locked = self.state.writer.lock();
        if !locked.writer.active {
            pr_err!("{}: not while the device is suspended\n", self.state.name);
            return Err(EBUSY);
        }
        Ok(locked)
    }

    /// Raises an event if slots run low (P7).
    fn tell_shortage(&self) {
        let low = self.settings.low_water;
        if self.state.writer.lock().writer.crosses_low_water(low) {
            self.events.raise();
        }
    }

    fn status_line(&self) -> Status {
        let state = &**self.state;
        let counters = &state.counters;
        let capacity = u64::from(state.geometry.slots());
        let (remapped, pending) = (counters.remapped.get(), counters.pending.get());
        let bad = counters.bad.get();
        let degraded = counters.replicas.get() < 2 || counters.superblocks.get() < 4;
        Status {
            remapped,
            capacity,
            pending,
            slots_used: remapped.saturating_add(pending).saturating_add(bad),
            health: if pending != 0 {
                Health::Failing
            } else if degraded || bad != 0 || counters.left.get() == 0 {
                Health::Degraded
            } else {
                Health::Good
            },
            write_errors: counters.write_errors.get(),
            read_errors: counters.read_errors.get(),
            auto_remaps: counters.auto_remaps.get(),
            manual_remaps: counters.manual_remaps.get(),
            scan_percent: 0,
            metadata: if degraded {
                MetadataState::Degraded
            } else {
                MetadataState::Enabled
            },
            autosave: true,
            saves_done: counters.saves_done.get(),
            saves: counters.saves.get(),
            auto_remap: state.auto_remap.load(Relaxed),
            slots_bad: bad,
            spare_write_errors: counters.spare_write_errors.get(),
            spare_read_errors: counters.spare_read_errors.get(),
            replicas: counters.replicas.get() as u8,
            superblocks: counters.superblocks.get() as u8,
            metadata_repairs: counters.metadata_repairs.get(),
        }
    }
}
