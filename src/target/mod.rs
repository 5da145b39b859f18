// SPDX-License-Identifier: GPL-2.0

//! The target: what a table line makes, and what device mapper asks of it.
//!
//! | file         | what it does                                                                |
//! |--------------|-----------------------------------------------------------------------------|
//! | `mod`        | the path of a bio: `map` and `end_io`; suspend and resume; limits           |
//! | `ctr`        | table lines: devices, checks, finding or loading the state                  |
//! | `registry`   | which part of which disk is in use as what, and by which state              |
//! | `state`      | what outlives tables, and the order of locks                                |
//! | `spares`     | the spares of a table                                                       |
//! | `map`, `cells`, `gate`, `notes` | what the path of a bio looks at                                   |
//! | `load`, `activate`     | from the spare's metadata to a state; its first writes            |
//! | `life`, `limits`       | breakers, latched flush errors; the numbers that users set        |
//! | `crew`       | who repairs what, and when                                                  |
//! | `repair`     | one failed bio                                                              |
//! | `relocate`   | moving blocks to slots                                                      |
//! | `mover`, `closed`      | moving blocks that did not fail, by message; keeping others out   |
//! | `forget`, `take_over`  | giving up spares that are lost: one, or all                       |
//! | `writer`, `io` | every change of the map, in memory and on the spare                       |
//! | `message`    | what users say                                                              |
//!
//! The way of a bio:
//!
//! ```text
//!   map: read, presence bit clear ---------------------------------> main; end_io sees errors only
//!   map: write, or presence bit set: register as reader (E5)
//!          write to a range behind the gate -------------> worker
//!          served by main --------------------------------------> main
//!          served by slots --------------------------------------> their spare
//!          served by slots of a spare that is not there ----------> worker, or an error
//!          pending: reads --------------------------------------> main
//!                   writes ------------------------------> worker
//!          lost: reads -----------------------------------------> an error
//!                writes ---------------------------------> worker
//!          in doubt -------------------------------------> worker
//!   end_io: unregister
//!          good, or an error that the medium did not make -------> done
//!          suspect --------------------------------------> worker
//! ```

mod activate;
mod cells;
mod changes;
mod closed;
mod crew;
mod ctr;
mod forget;
mod gate;
mod io;
mod life;
mod limits;
mod load;
mod map;
mod message;
mod mover;
mod names;
mod notes;
mod probe;
mod registry;
mod relocate;
mod repair;
mod restorer;
mod spares;
mod state;
mod take_over;
mod writer;

use crate::dm;
use crate::dm::BlkStatus;
use crate::logic::args;
use crate::logic::args::Options;
use crate::logic::breaker::Need;
use crate::logic::cache::Sent;
use crate::logic::classify::classify;
use crate::logic::classify::may_have_begun;
use crate::logic::classify::tells_of_device;
use crate::logic::classify::Operation;
use crate::logic::classify::Verdict;
use crate::logic::latch::Answer;
use crate::logic::latch::Ticket;
use crate::logic::limit::Limit;
use crate::logic::presence::Presence;
use crate::logic::presence::SMALL;
use crate::logic::reach::reach;
use crate::logic::status::Health;
use crate::logic::status::MetadataState;
use crate::logic::status::Status;
use crate::logic::table::RunKind;
use changes::Changes;
use core::fmt::Write;
use crew::Noter;
use crew::Repairer;
use crew::Teller;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;
use kernel::sync::atomic::Relaxed;
use kernel::sync::lock::mutex::MutexBackend;
use kernel::sync::lock::Guard;
use kernel::sync::Arc;
use life::Direction;
use life::Disk;
use registry::StateRef;
use restorer::Restorer;
use spares::Spares;
use state::Locked;
use writer::growth;

/// The most blocks of a bio that are looked up at a time.
const BLOCKS_MAX: u32 = 4096;

/// What goes with every bio.
#[derive(Default)]
pub(crate) struct BioData {
    /// For a flush, how the latch of its device was; for a bio that has failed, when that was, in
    /// milliseconds and without the higher bits.
    stamp: u32,
    /// For a flush, the epoch of its device's cache that it ends.
    epoch: u32,
    /// The bio has failed.
    failed: bool,
    /// It has to find out whether main works again.
    probes: bool,
    /// The device that it went to: main, or a spare by its number and one more.
    disk: u8,
}

impl BioData {
    /// When the bio failed, in milliseconds, if it did. That is not long ago.
    fn failed_at(&self, now: u64) -> Option<u64> {
        let age = (now as u32).wrapping_sub(self.stamp);
        self.failed.then(|| now.saturating_sub(u64::from(age)))
    }

    /// The member of the set that it went to; none if that was main.
    #[inline(always)]
    fn member(&self) -> Option<u8> {
        self.disk.checked_sub(1)
    }
}

/// One line of a table.
pub(crate) struct DmRemap {
    main: dm::Device,
    spares: Spares,
    /// How the set is to change when this table is resumed.
    changes: KBox<Changes>,
    options: KBox<Options>,
    /// Number of sectors.
    len: u64,
    /// Size of the main device when the table was loaded.
    main_sectors: u64,
    /// Whether this table was resumed before.
    resumed: Atomic<bool>,
    /// Runs the crew. Dropping it waits for that, and comes before crew and state.
    queue: dm::WorkQueue,
    /// Runs what waits for memory, and so must not keep a repair waiting.
    growth: dm::WorkQueue,
    /// Runs the teller, who waits for device mapper, the noter and the restorer.
    events: Arc<dm::WorkQueue>,
    crew: KVec<Arc<Repairer>>,
    teller: Arc<Teller>,
    noter: Arc<Noter>,
    restorer: Arc<Restorer>,
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
        if bio.opf().is_write() {
            return self.map_write(bio, sector);
        }
        let state = &**self.state;
        if state.is_clean(sector, bio.sectors()) && !state.life.is_watched() {
            return bio.remap_with(&self.main, sector, dm::Escort::ERRORS_ONLY);
        }
        self.map_read(bio, sector)
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
        self.state.stopping.store(true, Relaxed);
    }

    fn presuspend_undo(&self, _ti: &dm::TargetInfo) {
        self.state.stopping.store(false, Relaxed);
        let _ = self.events.enqueue(self.restorer.clone());
    }

    fn postsuspend(&self, ti: &dm::TargetInfo) {
        for repairer in &self.crew {
            repairer.wait_until_idle();
        }
        self.noter.wait_until_idle();
        self.state.wait_until_idle();
        self.restorer.wait_until_idle();
        self.queue.flush();
        self.growth.flush();
        self.events.flush();
        let _scope = dm::NoIoScope::enter();
        // A message that has this lock is about to see that it has to stop.
        let _mover = self.state.mover.lock();
        let mut locked = self.state.writer.lock();
        if !ti.is_read_only() {
            activate::deactivate(&self.state, &mut locked, &self.spares);
        }
        self.tell_later(&mut locked);
        locked.writer.active = false;
    }

    fn preresume(&self, ti: &dm::TargetInfo) -> Result {
        let _scope = dm::NoIoScope::enter();
        let mut locked = self.state.writer.lock();
        if !ti.is_read_only() {
            let main_id = self.options.main_id.as_ref();
            locked.writer.metadata.set_main(self.len, main_id);
            if !self.resumed.load(Relaxed) {
                self.changes.tell_renamed(&self.state);
            }
            activate::activate(&self.state, &mut locked, &self.spares, &self.changes)?;
        }
        drop(locked);
        // The new map may be there before the first bio, but nothing is served while memory is waited for.
        growth::grow_at_once(&self.state);
        Ok(())
    }

    fn resume(&self, ti: &dm::TargetInfo) {
        let mut locked = self.state.writer.lock();
        locked.writer.active = !ti.is_read_only();
        self.tell_later(&mut locked);
        if locked.writer.active {
            let _ = self.growth.enqueue::<_, 1>((*self.state).clone());
        }
        self.state.stopping.store(false, Relaxed);
        if locked.writer.active {
            let _ = self.events.enqueue(self.restorer.clone());
        }
        // Later, what users said by message counts.
        if !self.resumed.xchg(true, Relaxed) {
            self.state.limits.set_from(&self.options);
            if let Some(on) = self.options.auto_remap {
                self.state.auto_remap.store(on, Relaxed);
            }
        }
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
        message::handle(self, ti, args, reply)
    }

    fn iterate_devices(&self, _ti: &dm::TargetInfo, devices: &mut dm::DeviceVisitor<'_>) {
        devices.visit(&self.main, 0, self.len);
        for (_, spare) in self.spares.iter() {
            devices.visit(&spare.device, spare.start, spare.sectors);
        }
    }

    fn io_hints(&self, _ti: &dm::TargetInfo, limits: &mut dm::QueueLimits) {
        // An atomic write may have to be split.
        limits.clear_feature(dm::QueueFeature::Dax);
        limits.clear_feature(dm::QueueFeature::AtomicWrites);
        limits.limit_discard_sectors(self.main.max_discard_sectors());
    }
}

impl DmRemap {
    /// Maps whatever changes data, and flushes.
    #[inline(never)]
    fn map_write<'a>(&self, bio: dm::MapBio<'a, Self>, sector: u64) -> dm::Mapped<'a> {
        if bio.opf().is_preflush() || bio.opf().is_fua() {
            return self.map_durable(bio, sector);
        }
        self.map_data(bio, sector)
    }

    /// Maps what is to be on stable storage.
    #[inline(never)]
    fn map_durable<'a>(&self, bio: dm::MapBio<'a, Self>, sector: u64) -> dm::Mapped<'a> {
        if bio.is_flush() {
            return self.map_flush(bio);
        }
        if self.state.life.is_flush_latched() {
            // Device mapper drops the error of a flush that came before the data.
            return bio.complete(BlkStatus::IOERR);
        }
        self.map_data(bio, sector)
    }

    #[inline(always)]
    fn map_data<'a>(&self, bio: dm::MapBio<'a, Self>, sector: u64) -> dm::Mapped<'a> {
        let state = &**self.state;
        // From here on, whoever closes the gate or removes a remap waits for this bio.
        let ticket = state.readers().down_read();
        if !state.gate.covers(sector, bio.sectors())
            && state.is_clean(sector, bio.sectors())
            && !state.life.is_watched()
        {
            let escort = dm::Escort {
                ticket: Some(ticket),
                ..dm::Escort::ERRORS_ONLY
            };
            return bio.remap_with(&self.main, sector, escort);
        }
        self.map_marked(bio, sector, ticket)
    }

    /// Maps a registered write to what may be remapped or is behind the gate, or of which it matters that
    /// it succeeds.
    #[inline(never)]
    fn map_marked<'a>(
        &self,
        bio: dm::MapBio<'a, Self>,
        sector: u64,
        ticket: dm::SrcuTicket,
    ) -> dm::Mapped<'a> {
        if self.state.gate.covers(sector, bio.sectors()) {
            drop(ticket);
            return self.map_behind_gate(bio);
        }
        self.look_up::<true>(bio, sector, ticket)
    }

    /// Maps a read of what may be remapped, or of which it matters that it succeeds.
    #[inline(never)]
    fn map_read<'a>(&self, bio: dm::MapBio<'a, Self>, sector: u64) -> dm::Mapped<'a> {
        // From here on, whoever removes a remap waits for this bio.
        let ticket = self.state.readers().down_read();
        self.look_up::<false>(bio, sector, ticket)
    }

    /// Maps a registered bio to where its first block is served, as far as that goes.
    #[inline(always)]
    fn look_up<'a, const WRITE: bool>(
        &self,
        bio: dm::MapBio<'a, Self>,
        sector: u64,
        ticket: dm::SrcuTicket,
    ) -> dm::Mapped<'a> {
        let state = &**self.state;
        let Some(map) = state.map.load_registered(&ticket) else {
            // The ticket is from there.
            return bio.kill();
        };
        // What is done most often, and with nothing out of the ordinary.
        if bio.sectors() == state.sectors(1) && !state.life.is_watched() {
            match map.view().lookup(state.block_of(sector)) {
                None => return self.map_to_main::<WRITE>(bio, sector, ticket, false),
                Some((slot, word)) if word.is_plain() && bio.op() != dm::Op::Discard => {
                    if let Some(place) = state.locate_in(map, &self.spares, slot, WRITE) {
                        return self.map_to_slot::<WRITE>(bio, place, ticket, false);
                    }
                }
                Some(_) => (),
            }
        }
        self.look_up_run::<WRITE>(bio, sector, ticket)
    }

    /// Sends a registered bio to main.
    #[inline(always)]
    fn map_to_main<'a, const WRITE: bool>(
        &self,
        bio: dm::MapBio<'a, Self>,
        sector: u64,
        ticket: dm::SrcuTicket,
        watched: bool,
    ) -> dm::Mapped<'a> {
        let escort = dm::Escort {
            // A read that goes to main need not be waited for.
            ticket: WRITE.then_some(ticket),
            data: None,
            errors_only: !watched,
        };
        bio.remap_with(&self.main, sector, escort)
    }

    /// Sends a registered bio to a slot: a sector of a member's device.
    #[inline(always)]
    fn map_to_slot<'a, const WRITE: bool>(
        &self,
        bio: dm::MapBio<'a, Self>,
        (member, device, sector): (u8, &dm::Device, u64),
        ticket: dm::SrcuTicket,
        watched: bool,
    ) -> dm::Mapped<'a> {
        let data = BioData {
            disk: member.saturating_add(1),
            ..BioData::default()
        };
        let escort = dm::Escort {
            ticket: Some(ticket),
            data: Some(data),
            // What was written is in the spare's cache.
            errors_only: !WRITE && !watched,
        };
        bio.remap_with(device, sector, escort)
    }

    /// As [`DmRemap::look_up`], whatever the bio is and whatever is found.
    #[inline(never)]
    fn look_up_run<'a, const WRITE: bool>(
        &self,
        mut bio: dm::MapBio<'a, Self>,
        sector: u64,
        ticket: dm::SrcuTicket,
    ) -> dm::Mapped<'a> {
        let state = &**self.state;
        let watched = state.life.is_watched();
        let Some(map) = state.map.load_registered(&ticket) else {
            return bio.kill();
        };
        let blocks = state.blocks(bio.sectors());
        if WRITE && watched {
            let first = state.block_of(sector);
            if state.notes.first_in(first, u64::from(blocks)).is_some() {
                // Like what is pending, but the map does not know of it so far.
                drop(ticket);
                return self.map_behind_gate(bio);
            }
        }
        let run = match bio.sectors() > SMALL {
            // Those without data can be gigabytes long.
            true => reach(
                &Presence::new(state.presence.get()),
                &map.view(),
                (state.block_of(sector), blocks),
                state.block_shift,
                BLOCKS_MAX,
            ),
            false => map.view().run(state.block_of(sector), blocks),
        };
        if bio.accept_partial(state.sectors(run.count)).is_err() {
            // None of whole blocks.
            return bio.complete(BlkStatus::NOTSUPP);
        }
        match run.kind {
            RunKind::Main => self.map_to_main::<WRITE>(bio, sector, ticket, watched),
            RunKind::Pending { .. } if !WRITE => {
                self.map_to_main::<WRITE>(bio, sector, ticket, watched)
            }
            RunKind::Slots { .. }
            | RunKind::Failing { .. }
            | RunKind::Pending { .. }
            | RunKind::Lost { .. }
                if bio.op() == dm::Op::Discard =>
            {
                // A hint only. The slot keeps its content, which is as good as any other.
                bio.complete(BlkStatus::OK)
            }
            RunKind::Failing { .. }
            | RunKind::Pending { .. }
            | RunKind::Lost { .. }
            | RunKind::Doubt
                if WRITE =>
            {
                drop(ticket);
                self.leave_to_worker(bio)
            }
            RunKind::Slots { first } | RunKind::Failing { first } => {
                match state.locate_in(map, &self.spares, first, WRITE) {
                    Some(place) => self.map_to_slot::<WRITE>(bio, place, ticket, watched),
                    // Its spare is not there: what it held is lost, and what is written goes elsewhere.
                    None if !WRITE => bio.complete(BlkStatus::IOERR),
                    None => {
                        drop(ticket);
                        self.leave_to_worker(bio)
                    }
                }
            }
            // Only a write can be served.
            RunKind::Lost { .. } => bio.complete(BlkStatus::IOERR),
            RunKind::Pending { .. } | RunKind::Doubt => {
                drop(ticket);
                self.leave_to_worker(bio)
            }
        }
    }

    /// Leaves a write to a range behind the gate, or with a noted block, to the worker.
    #[cold]
    fn map_behind_gate<'a>(&self, mut bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
        if bio.op() == dm::Op::Discard {
            // A hint only.
            return bio.complete(BlkStatus::OK);
        }
        // The worker serves it whole, so let it be small.
        let blocks = bio.sectors().min(self.state.sectors(BLOCKS_MAX));
        match bio.accept_partial(blocks) {
            Ok(()) => self.leave_to_worker(bio),
            Err(_) => bio.complete(BlkStatus::NOTSUPP),
        }
    }

    /// Maps one of the flushes that there are, one for each device.
    fn map_flush<'a>(&self, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
        let Some((disk, device)) = self.flushed(bio.target_bio_nr()) else {
            return bio.complete(BlkStatus::OK);
        };
        let life = &self.state.life;
        if !life.needs_flush(disk) {
            return bio.complete(BlkStatus::OK);
        }
        if let Disk::Spare(member) = disk {
            if self.state.is_lost(member) {
                return bio.complete(match life.flush_lost(member) {
                    true => BlkStatus::OK,
                    false => BlkStatus::IOERR,
                });
            }
        }
        let (sent, flushed) = (life.begin_epoch(disk), life.flush_sent(disk));
        let data = BioData {
            epoch: sent.0,
            stamp: flushed.0,
            ..BioData::default()
        };
        let escort = dm::Escort {
            data: Some(data),
            ..dm::Escort::default()
        };
        bio.redirect_with(device, escort)
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
        let state = &**self.state;
        let opf = bio.opf();
        let operation = operation_of(&bio);
        let member = bio.per_bio().member();
        let main = member.is_none();
        let direction = direction_of(operation, member);
        match classify(operation, io::status_of(bio.status()), opf.is_readahead()) {
            Verdict::Suspect => (),
            Verdict::Latch => {
                let flushed = self.flushed(bio.target_bio_nr());
                let data = bio.per_bio();
                let (ticket, sent) = (Ticket(data.stamp), Sent(data.epoch));
                if let Some((disk, _)) = flushed {
                    state.life.flush_ended(disk, ticket, sent, false);
                }
                match flushed {
                    // It still fails, but first it is found out whether the set has to go without it.
                    Some((Disk::Spare(member), _)) if self.spares.count() > 1 => {
                        data.disk = member.saturating_add(1);
                        let (owned, ended) = bio.take();
                        state.deferred.push(owned);
                        self.kick();
                        return ended;
                    }
                    _ => return bio.done(),
                }
            }
            // What is written to a spare that is gone goes to another one.
            _ if !main
                && self.spares.count() > 1
                && matches!(operation, Operation::Write | Operation::WriteZeroes)
                && io::may_be_gone(bio.status()) => {}
            _ => {
                let begun = may_have_begun(io::status_of(bio.status()));
                if operation == Operation::Write && opf.is_fua() && begun {
                    if let Some((disk, device)) = self.disk(member) {
                        if device.emulates_fua() {
                            // Others' data may be lost with the flush in it.
                            state.life.own_flush_failed(disk);
                        }
                    }
                }
                let status = io::status_of(bio.status());
                if let Some(direction) = direction.filter(|_| tells_of_device(status)) {
                    self.count_error(direction);
                    self.passed_up(direction, opf.is_readahead());
                }
                return bio.done();
            }
        }
        match direction {
            Some(direction) if main => self.count_error(direction),
            _ => (),
        }
        // Nobody asks whether a spare can be read.
        let asked = direction.filter(|direction| !matches!(direction, Direction::SpareRead(_)));
        let probes = asked.is_some_and(|direction| state.life.is_open(direction));
        let admitted = match asked {
            // If this one takes nothing, another one may.
            Some(Direction::SpareWrite(_)) => state.admits_to_spares(&self.spares),
            Some(direction) => state.life.admits(direction),
            None => true,
        };
        if !admitted {
            return bio.done();
        }
        // Where main is no longer asked, slots are replaced and tried again all the same.
        if main && !state.auto_remap.load(Relaxed) {
            // But when nothing else comes back, somebody has to ask whether main lives.
            let threshold = state.limits.get(Limit::ErrorThreshold);
            let asks = |direction| state.life.failed(direction, threshold) == Need::Probe;
            if !direction.is_some_and(asks) {
                return bio.done();
            }
        }
        let data = bio.per_bio();
        data.failed = true;
        data.probes = probes;
        data.stamp = dm::monotonic_ms() as u32;
        let (owned, ended) = bio.take();
        state.deferred.push(owned);
        self.kick();
        ended
    }

    /// Counts an error that users are told of, whatever becomes of it.
    fn count_error(&self, direction: Direction) {
        let counters = &self.state.counters;
        let counter = match direction {
            Direction::MainRead => &counters.read_errors,
            Direction::MainWrite => &counters.write_errors,
            Direction::SpareRead(_) => &counters.spare_read_errors,
            Direction::SpareWrite(_) => &counters.spare_write_errors,
        };
        counter.add(1);
    }

    /// An error is passed up without a look at the medium. If nothing but such errors comes back, the device
    /// is gone, and users are told so, whatever they are. May run in an interrupt.
    fn passed_up(&self, direction: Direction, readahead: bool) {
        let state = &**self.state;
        let threshold = state.limits.get(Limit::ErrorThreshold);
        // Of a spare that the set goes on without, all is said.
        let lost = match direction {
            Direction::SpareRead(member) | Direction::SpareWrite(member) => state.is_lost(member),
            Direction::MainRead | Direction::MainWrite => false,
        };
        if !readahead && !lost && state.life.passed_up(direction, threshold) {
            state.tell_opened(direction);
            let _ = self.events.enqueue::<_, 0>(self.teller.clone());
        }
    }

    /// Sees a flush that succeeded, a bio that the spare has served, or any where others did not succeed.
    /// May run in an interrupt.
    fn succeeded<'a>(&self, mut bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
        let life = &self.state.life;
        let member = bio.per_bio().member();
        let direction = match operation_of(&bio) {
            Operation::Flush => {
                let Some((disk, _)) = self.flushed(bio.target_bio_nr()) else {
                    return bio.done();
                };
                let data = bio.per_bio();
                let (ticket, sent) = (Ticket(data.stamp), Sent(data.epoch));
                return match life.flush_ended(disk, ticket, sent, true) {
                    Answer::Pass => bio.done(),
                    Answer::Fail => bio.done_with(BlkStatus::IOERR),
                };
            }
            Operation::Read => match member {
                Some(member) => Direction::SpareRead(member),
                None => Direction::MainRead,
            },
            Operation::Write | Operation::WriteZeroes => match member {
                // It was on the way when its spare was given up: it goes elsewhere, like any from then on.
                Some(member) if !self.state.note_written(member) => {
                    let (owned, ended) = bio.take();
                    self.state.deferred.push(owned);
                    self.kick();
                    return ended;
                }
                Some(member) => Direction::SpareWrite(member),
                None => Direction::MainWrite,
            },
            _ => return bio.done(),
        };
        if life.is_watched() {
            if member.is_none() {
                let sector = bio.target_sector();
                life.note_good(self.state.block_of(sector));
            }
            if life.succeeded(direction) {
                self.state.tell_closed(direction);
                let _ = self.events.enqueue::<_, 0>(self.teller.clone());
            }
        }
        bio.done()
    }

    /// Where a flush goes: there is one for each device, and the first number is for main.
    fn flushed(&self, number: u32) -> Option<(Disk, &dm::Device)> {
        match number.checked_sub(1) {
            None => self.disk(None),
            Some(index) => self.disk(Some(self.spares.nth(index as usize)?)),
        }
    }

    /// Main, or the spare of a member.
    fn disk(&self, member: Option<u8>) -> Option<(Disk, &dm::Device)> {
        match member {
            None => Some((Disk::Main, &self.main)),
            Some(member) => Some((Disk::Spare(member), &self.spares.get(member)?.device)),
        }
    }

    /// Lets the worker look at what is deferred.
    fn kick(&self) {
        // If the work is queued already, it will see what is deferred now.
        let _ = self.queue.enqueue::<_, 0>((*self.state).clone());
    }

    /// Checks that a message may use the devices, as [`DmRemap::lock_active`] does. It may as long as
    /// the caller has the mover's lock.
    fn check_active(&self, ti: &dm::TargetInfo) -> Result {
        self.lock_active(ti).map(drop)
    }

    /// Takes the writer's lock for a message that needs the devices. Fails with [`EBUSY`] while the
    /// device is suspended, and with [`EROFS`] in a read-only table.
    fn lock_active(&self, ti: &dm::TargetInfo) -> Result<Guard<'_, KBox<Locked>, MutexBackend>> {
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

    /// Makes the map as large as it should be, up to `aim` if that is given, a member and its slot. For who
    /// can wait for memory. What can't be freed yet is freed later.
    fn grow(&self, aim: Option<(u8, u32)>) -> Result {
        let grown = growth::grow(&self.state, aim);
        if !self.state.map.reclaim() {
            let _ = self.growth.enqueue::<_, 1>((*self.state).clone());
        }
        grown
    }

    /// Raises an event if slots run low (P7), or if something became of the metadata (P4).
    fn tell_news(&self) {
        let low = self.state.limits.get(Limit::LowWater);
        if self.state.writer.lock().writer.has_news(&self.state, low) {
            self.teller.raise();
        }
    }

    /// Has an event raised if something became of the metadata (P4): for contexts that must not wait
    /// for it, as the device serves nothing meanwhile.
    fn tell_later(&self, locked: &mut Locked) {
        if locked.writer.copies_changed(&self.state) {
            let _ = self.events.enqueue::<_, 0>(self.teller.clone());
        }
    }

    fn status_line(&self) -> Status {
        let state = &**self.state;
        let counters = &state.counters;
        let capacity = counters.capacity.get();
        let (remapped, pending) = (counters.remapped.get(), counters.pending.get());
        let bad = counters.bad.get();
        let lost = counters.lost.get();
        let breakers = state.life.breakers();
        let flush_failed = state.life.is_flush_latched();
        let stuck = counters.stuck.get() != 0;
        let degraded = stuck || counters.degraded.get() != 0;
        Status {
            remapped,
            capacity,
            pending,
            lost,
            slots_used: remapped.saturating_add(pending).saturating_add(bad),
            health: if pending != 0 || lost != 0 || breakers.any() || flush_failed || stuck {
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
            breakers,
            flush_failed,
            weak_moves: counters.weak_moves.get(),
            spares: counters.spares.get() as u8,
            spares_all: counters.spares_all.get() as u8,
            idle: counters.idle.get() as u8,
        }
    }
}

/// Of what reading and writing a bio tells, that went to main or to the spare of a member.
fn direction_of(operation: Operation, member: Option<u8>) -> Option<Direction> {
    match (operation, member) {
        (Operation::Read, None) => Some(Direction::MainRead),
        (Operation::Read, Some(member)) => Some(Direction::SpareRead(member)),
        (Operation::Write | Operation::WriteZeroes, None) => Some(Direction::MainWrite),
        (Operation::Write | Operation::WriteZeroes, Some(member)) => {
            Some(Direction::SpareWrite(member))
        }
        _ => None,
    }
}

/// What a bio wanted.
fn operation_of(bio: &dm::EndedBio<'_, DmRemap>) -> Operation {
    match bio.op() {
        dm::Op::Read => Operation::Read,
        dm::Op::Write if bio.sectors() == 0 => Operation::Flush,
        dm::Op::Write => Operation::Write,
        dm::Op::WriteZeroes => Operation::WriteZeroes,
        dm::Op::Discard => Operation::Discard,
        _ => Operation::Other,
    }
}
