// SPDX-License-Identifier: GPL-2.0

//! What is known about a spare set in use (D1).
//!
//! The state outlives tables: when a table is reloaded, the new one finds the state of the old one
//! by mapped device and spare set. So nothing here refers to a table, a target or a device; whoever
//! works on the state brings the devices of the active table along.
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
//!    growth (P16). Writes take `deadline_ms` each at most (`meta/io.rs`); [`State::patience`] is how long a bio waits
//!    for it. A resume has it until all replicas are equal (M3). Nothing is allocated below it but in a resume.
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
//! Counters are written under `writer` or by rare events, and read at any time.

use core::fmt::Write;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        rcu,
        Arc,
        CondVar,
        Mutex, //
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
        block,
        dm,
        sync,
        trace,
        util,
        work, //
    },
    logic::{
        avoid::Avoided,
        desk::{
            Desk,
            Range,
            JOBS, //
        },
        event::{
            Event,
            Level, //
        },
        format::{
            Member,
            Place,
            Superblock,
            MEMBERS_MAX,
            REPLICAS, //
        },
        group::{
            self,
            Group, //
        },
        latch::FlushTicket,
        limit::Limit,
        message::{
            Blocks,
            Denial, //
        },
        pool::{
            state::{
                PoolEvent,
                PoolState,
                Shut, //
            },
            Pools, //
        },
        presence::{
            self,
            Presence, //
        },
        slot::{
            SlotState,
            SlotWord, //
        },
        table::Run,
        text::{
            Bounded,
            Uuid, //
        },
        word::Word, //
    },
    remap::{
        health::life::{
            Direction,
            Disk,
            Life,
            SpareTickets, //
        },
        jobs::{
            mover,
            weak::WeakBlocks, //
        },
        meta::{
            io::{
                IoMemory,
                SpareIo, //
            },
            writer::{
                growth,
                Writer, //
            }, //
        },
        path::{
            avoided::AvoidedRanges,
            cells::{
                cells64,
                Cell64, //
            },
            gate::Gate,
            map::{
                patient,
                Map, //
            }, //
        },
        repair::{
            crew,
            notes::Notes,
            relocate::{
                Request,
                MOVES_MAX, //
            }, //
        },
        setup::spares::Spares,
        user::{
            events::News,
            limits::Limits,
            names::LogName, //
        },
        DmRemap, //
    }, //
};

use super::activate::Start;

/// Everything about a spare set in use. See the module's documentation.
#[pin_data(PinnedDrop)]
pub(in crate::remap) struct State {
    /// How the kernel log calls the mapped device.
    pub(in crate::remap) name: LogName,
    /// What tracepoints call it.
    pub(in crate::remap) trace: trace::Tracer,
    /// What users have to hear of.
    pub(in crate::remap) news: News,
    /// The spare set.
    pub(in crate::remap) uuid: Uuid,
    /// A slot and a block of main have `1 << block_shift` sectors.
    pub(in crate::remap) block_shift: u32,
    #[pin]
    pub(in crate::remap) presence: sync::Growing<Cell64>,
    #[pin]
    pub(in crate::remap) map: sync::Published<Map>,
    /// Ranges of main that are not read. Changed under the writer's lock.
    pub(in crate::remap) avoided: KBox<AvoidedRanges>,
    pub(in crate::remap) gate: Gate,
    /// Blocks that main could not read, until they are pending.
    pub(in crate::remap) notes: Notes,
    /// Blocks that main can hardly read, until they are moved.
    #[pin]
    pub(in crate::remap) weak: Mutex<WeakBlocks>,
    /// Bios that wait for a repairer.
    pub(in crate::remap) deferred: dm::BioList<DmRemap>,
    /// Which blocks are being worked on.
    #[pin]
    pub(in crate::remap) desk: Mutex<KBox<Desk>>,
    /// Signals that a range at the desk is free.
    #[pin]
    pub(in crate::remap) desk_changed: CondVar,
    /// Those who wait for a flush and a commit.
    #[pin]
    pub(in crate::remap) group: Mutex<Group<KVec<group::Seat<Request>>>>,
    /// Signals that some of them need not wait any more, or that nobody leads.
    #[pin]
    pub(in crate::remap) group_changed: CondVar,
    pub(in crate::remap) life: Life,
    pub(in crate::remap) limits: Limits,
    pub(in crate::remap) counters: Counters,
    /// Why a message was refused last, for users. Held for a moment, nothing is taken below it.
    #[pin]
    pub(in crate::remap) why: Mutex<Bounded<WHY_BYTES>>,
    /// How many repairers want the mover's lock.
    pub(in crate::remap) probing: Atomic<i32>,
    /// How many look for the writer's lock now and then.
    pub(in crate::remap) waiting: Atomic<i32>,
    /// The device is about to be suspended: what takes long has to come to its end.
    pub(in crate::remap) stopping: Atomic<bool>,
    /// What the pools say, as a [`Shut`]: to which members' slots nothing is written, as the set goes on without them,
    /// and which are not read either.
    pub(in crate::remap) shut: Atomic<u32>,
    /// Whether failed I/O leads to remaps.
    pub(in crate::remap) auto_remap: Atomic<bool>,
    /// Keeps the log readable when a disk fails a million times.
    #[pin]
    pub(in crate::remap) log: util::RateLimit,
    /// Bios for I/O of our own.
    #[pin]
    pub(in crate::remap) pool: block::BioPool,
    /// Zeroes, to be written.
    pub(in crate::remap) zeroes: block::IoBuffer,
    /// Slots that nothing became of, to be given back by whoever has the writer's lock next.
    #[pin]
    pub(in crate::remap) leftover: Mutex<Leftover>,
    #[pin]
    pub(in crate::remap) mover: sync::IoMutex<mover::MoverBuffers>,
    #[pin]
    pub(in crate::remap) writer: sync::IoMutex<KBox<Locked>>,
    /// Hands deferred bios to repairers.
    #[pin]
    pub(in crate::remap) dispatch: Work<State, 0>,
    /// Who has this replaces the map. Taken before the writer's.
    #[pin]
    pub(in crate::remap) growing: sync::IoMutex<()>,
    /// Makes the map as large as it should be, and frees old ones. Runs for as long as there is one, and so
    /// for as long as the slowest bio; the queue has no other work.
    #[pin]
    pub(in crate::remap) growth: Work<State, 1>,
}

/// How long a reason may be that is kept for users: longer than any that there is, but for words of theirs.
const WHY_BYTES: usize = 640;

/// How often is looked whether the writer's lock is free, in milliseconds.
const LOCK_MS: i64 = 1;

/// How long a commit may take that has to do without a spare, in milliseconds.
const COMMIT_MS: u64 = 1000;

/// How long those go first who look for it, in milliseconds.
const LET_MS: i64 = 100;

/// How often is looked whether an old map can be freed, in milliseconds.
const RECLAIM_MS: i64 = 20;

/// How many slots are kept that nothing became of: as many as all repairers can have.
const LEFTOVER_MAX: usize = JOBS * MOVES_MAX;

/// Slots that nothing became of.
pub(in crate::remap) struct Leftover {
    slots: KVec<u32>,
}

impl Leftover {
    /// None so far.
    pub(in crate::remap) fn new() -> Result<Self> {
        Ok(Self {
            slots: KVec::with_capacity(LEFTOVER_MAX, GFP_KERNEL)?,
        })
    }

    /// Takes one out.
    pub(in crate::remap) fn pop(&mut self) -> Option<u32> {
        self.slots.pop()
    }
}

/// What is behind the writer's lock.
pub(in crate::remap) struct Locked {
    pub(in crate::remap) writer: Writer,
    pub(in crate::remap) io: IoMemory,
    /// What is to be done before the first bio.
    pub(in crate::remap) start: Option<Start>,
    /// What the next table leaves out, if there is one.
    pub(in crate::remap) leaving: Option<KBox<Leaving>>,
}

/// The spares that the next table leaves out because they are to leave the set: until then the table that
/// is in use has them open.
pub(in crate::remap) struct Leaving {
    /// The table that does.
    table: dm::TableId,
    pub(in crate::remap) spares: Spares,
    /// If new ones are to take over from dead ones: those of them that there are devices of.
    pub(in crate::remap) dead: Option<Spares>,
}

impl Leaving {
    /// What a table leaves out that is being made: nothing so far.
    pub(in crate::remap) fn new(table: dm::TableId) -> Result<KBox<Self>> {
        let leaving = Self {
            table,
            spares: Spares::default(),
            dead: None,
        };
        Ok(KBox::new(leaving, GFP_KERNEL)?)
    }
}

impl Locked {
    /// A table is loaded that leaves out spares. They have nothing, and get nothing from here on,
    /// unless another one is loaded. Afterwards `leaving` is what is not needed any more. Fails with [`EBUSY`] if
    /// one of them has got something meanwhile.
    pub(in crate::remap) fn leave(
        &mut self,
        state: &State,
        leaving: &mut Option<KBox<Leaving>>,
    ) -> Result {
        let serves = |member| self.writer.claims(member) != 0;
        let free = |next: &mut KBox<Leaving>| !next.spares.iter().any(|(member, _)| serves(member));
        let next = leaving.take_if(free).ok_or(EBUSY)?;
        *leaving = self.end_leaving(state);
        let spares = &next.spares;
        for (member, _) in spares.iter() {
            self.writer.change_pool(state, member, PoolEvent::Omit);
        }
        let alone = !(0..MEMBERS_MAX).any(|member| self.writer.gives_slots(member));
        if alone && spares.count() != 0 {
            // One that was evacuated and is kept is used again with the next table. Until then, there is no
            // other.
            for kept in (0..MEMBERS_MAX).filter(|member| spares.get(*member).is_none()) {
                self.writer.change_pool(state, kept, PoolEvent::Fill);
            }
        }
        self.leaving = Some(next);
        Ok(())
    }

    /// Nothing leaves for a table that was loaded. Returns what is not needed any more.
    fn end_leaving(&mut self, state: &State) -> Option<KBox<Leaving>> {
        let unused = self.leaving.take();
        if unused.is_some() {
            for member in 0..MEMBERS_MAX {
                self.writer.change_pool(state, member, PoolEvent::Keep);
            }
        }
        unused
    }

    /// Whether the table that is loaded leaves out a member.
    pub(in crate::remap) fn is_leaving(&self, member: u8) -> bool {
        let leaving = self.leaving.as_ref();
        leaving.is_some_and(|leaving| leaving.spares.get(member).is_some())
    }

    /// A table is gone. If it was not resumed, nothing leaves for it. Returns what is not needed any more.
    pub(in crate::remap) fn stay(
        &mut self,
        state: &State,
        table: dm::TableId,
    ) -> Option<KBox<Leaving>> {
        let own = |leaving: &KBox<Leaving>| leaving.table == table;
        match self.leaving.as_ref().is_some_and(own) {
            true => self.end_leaving(state),
            false => None,
        }
    }
}

#[pinned_drop]
impl PinnedDrop for State {
    fn drop(self: Pin<&mut Self>) {
        // One that was never active was refused, and users know why.
        if self.writer.lock().writer.activation() != 0 {
            let (name, remapped) = (&self.name, self.counters.remapped.get());
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
        crew::dispatch(&this);
    }
}

impl WorkItem<1> for State {
    type Pointer = Arc<State>;

    fn run(this: Arc<State>) {
        // If there is no memory, the next repair asks again.
        let _ = growth::grow(&this, None);
        // The old map is read for as long as some bio takes, and there may be need for a third one meanwhile.
        while !this.map.reclaim() {
            fsleep(Delta::from_millis(RECLAIM_MS));
            let _ = growth::grow(&this, None);
        }
    }
}

impl State {
    /// Whether nothing in the range is remapped, pending or in doubt, as far as can be told at once: of a
    /// large range it cannot.
    #[inline(always)]
    pub(in crate::remap) fn is_clean(&self, sector: u64, sectors: u32) -> bool {
        sectors <= presence::SMALL && !Presence::new(self.presence.get()).any(sector)
    }

    /// Has presence bits for a main of so many sectors. Allocates, and takes the writer's lock for as long as it takes to
    /// copy the bits that there are, a word for 64 MiB of main: no slot is looked at. (What is remapped or avoided has bits
    /// already, though main may have been larger once: see [`Map::claimed_sectors`].)
    pub(in crate::remap) fn cover(&self, main_sectors: u64) -> Result {
        let words = presence::words_for(main_sectors).ok_or(ENOMEM)?;
        if words <= self.presence.get().len() {
            return Ok(());
        }
        // Old ones are kept, so let there be few.
        let roomy = words.saturating_add(words / 2);
        let longer = cells64(core::iter::empty(), roomy, patient())?;
        let _locked = self.writer.lock();
        for (new, old) in longer.iter().zip(self.presence.get()) {
            new.store(old.load());
        }
        self.presence.grow(longer)
    }

    /// Where bios are registered.
    #[inline(always)]
    pub(in crate::remap) fn readers(&self) -> &sync::Srcu {
        self.map.readers()
    }

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
        let mut locked = self.writer.lock();
        self.with_locked(&mut locked, spares, work)
    }

    fn with_locked<R>(
        &self,
        locked: &mut Locked,
        spares: &Spares,
        work: impl FnOnce(&mut Writer, &mut SpareIo<'_>) -> R,
    ) -> R {
        let Locked { writer, io, .. } = locked;
        writer.note_stalled(self);
        work(writer, &mut SpareIo::new(self, spares, io))
    }

    /// The same, for who must not wait for the lock after `until`, in milliseconds: its holder may wait for a
    /// spare that hangs. None if it was not to be had.
    pub(in crate::remap) fn with_writer_by<R>(
        &self,
        until: u64,
        spares: &Spares,
        work: impl FnOnce(&mut Writer, &mut SpareIo<'_>) -> R,
    ) -> Option<R> {
        if until == u64::MAX {
            return Some(self.with_writer(spares, work));
        }
        let locked = match self.writer.try_lock() {
            None => {
                self.waiting.fetch_add(1, Full);
                let locked = self.poll_writer(until);
                self.waiting.fetch_sub(1, Full);
                locked
            }
            at_once => at_once,
        };
        let mut locked = locked?;
        Some(self.with_locked(&mut locked, spares, work))
    }

    /// Until when the writer's lock is worth waiting for, in milliseconds: whoever has it waits `deadline_ms` at most for
    /// a spare that hangs, and then does what the others need.
    pub(in crate::remap) fn patience(&self) -> u64 {
        let deadline = u64::from(self.limits.get(Limit::DeadlineMs));
        let patience = deadline.saturating_add(COMMIT_MS);
        util::monotonic_ms().saturating_add(patience)
    }

    fn poll_writer(&self, until: u64) -> Option<Guard<'_, KBox<Locked>, MutexBackend>> {
        while util::monotonic_ms() < until {
            fsleep(Delta::from_millis(LOCK_MS));
            if let Some(locked) = self.writer.try_lock() {
                return Some(locked);
            }
        }
        None
    }

    /// Lets those go first who look for the writer's lock now and then, as they cannot wait for it: for who takes
    /// it again and again. Not with the lock.
    pub(in crate::remap) fn let_others_write(&self) {
        for _ in 0..LET_MS / LOCK_MS {
            if self.waiting.load(Relaxed) == 0 {
                break;
            }
            fsleep(Delta::from_millis(LOCK_MS));
        }
    }

    /// Gives back those slots of some that are held, which nothing became of. Does not wait for who has the writer's lock.
    pub(in crate::remap) fn leave_slots(&self, slots: impl Iterator<Item = u32>) {
        let mut locked = self.writer.try_lock();
        for slot in slots {
            if let Some(locked) = &mut locked {
                locked.writer.give_back(self, slot);
                continue;
            }
            // Others are set aside for a block, and what becomes of them later is not ours.
            if !self.is_held(slot) {
                continue;
            }
            // Where there are too many, they are held until the next activation.
            let _ = self.leftover.lock().slots.push_within_capacity(slot);
        }
    }

    /// Flushes the cache of a disk, for what was written since `ticket` was taken. A flush that failed
    /// is not tried again, nor is one trusted that comes after a failure: a disk may drop what it could
    /// not write, and report success for the rest.
    pub(in crate::remap) fn flush(
        &self,
        disk: Disk,
        device: &dm::Device,
        since: FlushTicket,
    ) -> block::IoResult {
        let flushed = self.flush_cache(disk, device);
        self.vouched(disk, since, flushed)
    }

    /// Whether a flush that has ended vouches for what was written since the ticket `since` was taken.
    pub(in crate::remap) fn vouched(
        &self,
        disk: Disk,
        since: FlushTicket,
        flushed: block::IoResult,
    ) -> block::IoResult {
        match self.life.is_unbroken(disk, since) {
            true => flushed,
            false => flushed.and(Err(block::BlkStatus::IOERR)),
        }
    }

    /// Flushes the cache of a disk. That vouches only for what was written since the last flush that failed.
    pub(in crate::remap) fn flush_cache(&self, disk: Disk, device: &dm::Device) -> block::IoResult {
        self.note_flushed(disk, self.pool.flush(device))
    }

    /// A flush of our own has ended.
    pub(in crate::remap) fn note_flushed(
        &self,
        disk: Disk,
        flushed: block::IoResult,
    ) -> block::IoResult {
        if flushed.is_err() {
            self.life.own_flush_failed(disk);
            self.tell_unflushed(disk);
        }
        flushed
    }

    /// Flushes the caches of those spares that `members` names, a bit each, as [`State::flush`] does.
    pub(in crate::remap) fn flush_spares(
        &self,
        spares: &Spares,
        members: u8,
        since: &SpareTickets,
    ) -> block::IoResult {
        self.flush_caches(spares, members)?;
        match self.are_unbroken(spares, members, since) {
            true => Ok(()),
            false => Err(block::BlkStatus::IOERR),
        }
    }

    /// The same as [`State::flush_cache`] does, of all of them, also if one fails.
    pub(in crate::remap) fn flush_caches(&self, spares: &Spares, members: u8) -> block::IoResult {
        let mut result = Ok(());
        for (member, spare) in spares.named(members) {
            let flushed = self.flush_cache(Disk::Spare(member), &spare.device);
            result = result.and(flushed);
        }
        result
    }

    /// Whether no flush of any of them has failed since the tickets were taken.
    pub(in crate::remap) fn are_unbroken(
        &self,
        spares: &Spares,
        members: u8,
        since: &SpareTickets,
    ) -> bool {
        let unbroken = |member| self.life.is_unbroken(Disk::Spare(member), since.of(member));
        spares.named(members).all(|(member, _)| unbroken(member))
    }

    /// Whether the set goes on without a member.
    #[inline]
    pub(in crate::remap) fn is_lost(&self, member: u8) -> bool {
        self.is_shut(member, true)
    }

    /// A write to the spare of a member has succeeded: its cache may hold it from here on. False if the set
    /// goes on without that one, and so what is written there counts for nothing.
    pub(in crate::remap) fn note_written(&self, member: u8) -> bool {
        if self.is_lost(member) {
            return false;
        }
        self.life.spare_written(member);
        // Of this and `leave_lost`, one sees what the other has done: there the cache is looked at last.
        !self.is_lost(member)
    }

    /// An I/O of the worker's that began at `begun` has succeeded. Returns whether that closes a breaker.
    pub(in crate::remap) fn proven(&self, direction: Direction, begun: u64) -> bool {
        let closed = self.life.proven(direction, begun);
        if closed {
            self.tell_closed(direction);
        }
        closed
    }

    /// Says that a disk cannot be flushed. From any context.
    pub(in crate::remap) fn tell_unflushed(&self, disk: Disk) {
        self.news.note(Event::FlushFailed, 1, None);
        if !self.log.allow() {
            return;
        }
        let (name, what) = (&self.name, Event::FlushFailed.what());
        match disk {
            Disk::Main => pr_err!("{name}: main {what}\n"),
            Disk::Spare(_) => pr_err!("{name}: the spare {what}\n"),
        }
    }

    /// Says that a breaker is closed. From any context.
    pub(in crate::remap) fn tell_closed(&self, direction: Direction) {
        self.news.note(Event::BreakerClosed, 1, None);
        let (disk, write) = direction.traced();
        self.trace.breaker(disk, write, false);
        if self.log.allow() {
            let what = Event::BreakerClosed.what();
            pr_info!("{}: {direction} {what}\n", self.name);
        }
    }

    /// A device does not do what was asked for. Says so if that opens the breaker, and returns whether it does.
    pub(in crate::remap) fn disproved(&self, direction: Direction) -> bool {
        let opened = self.life.disproved(direction);
        if opened {
            self.tell_opened(direction);
        }
        opened
    }

    /// Says that a breaker is open. From any context.
    pub(in crate::remap) fn tell_opened(&self, direction: Direction) {
        self.news.note(Event::BreakerOpen, 1, None);
        let (disk, write) = direction.traced();
        self.trace.breaker(disk, write, true);
        if !self.log.allow() {
            return;
        }
        let (name, what) = (&self.name, Event::BreakerOpen.what());
        match direction {
            Direction::MainRead | Direction::MainWrite => {
                pr_err!("{name}: {direction} {what}, nothing is remapped until it works\n");
            }
            Direction::SpareRead(_) | Direction::SpareWrite(_) => {
                pr_err!("{name}: {direction} {what}\n");
            }
        }
    }

    /// Whether a write may be moved to some spare: one that is not lost and works, as far as anybody knows, or
    /// is to be asked again.
    pub(in crate::remap) fn admits_to_spares(&self, spares: &Spares) -> bool {
        self.usable(spares)
            .any(|member| self.life.admits(Direction::SpareWrite(member)))
    }

    /// Whether all spares that are not lost fail to be written.
    pub(in crate::remap) fn all_spares_fail(&self, spares: &Spares) -> bool {
        self.usable(spares)
            .all(|member| self.life.is_open(Direction::SpareWrite(member)))
    }

    fn usable<'a>(&'a self, spares: &'a Spares) -> impl Iterator<Item = u8> + 'a {
        let members = spares.iter().map(|(member, _)| member);
        members.filter(|member| !self.is_lost(*member))
    }

    /// Calls `look` with the map. Must not sleep in there.
    #[inline]
    pub(in crate::remap) fn with_map<R>(&self, look: impl FnOnce(&Map) -> R) -> R {
        let guard = rcu::read_lock();
        look(self.map.load(&guard))
    }

    /// How the longest uniform part of a range of main blocks is served.
    pub(in crate::remap) fn run(&self, main_block: u64, count: u32) -> Run {
        self.cut(
            main_block,
            self.with_map(|map| map.view().run(main_block, count)),
        )
    }

    /// How far what starts at a block is served in one way, if the map says `run`.
    pub(in crate::remap) fn cut(&self, main_block: u64, run: Run) -> Run {
        match self.life.is_avoiding() {
            true => self.avoided.cut(main_block, run),
            false => run,
        }
    }

    /// The first of some blocks of main that is not to be read there.
    pub(in crate::remap) fn first_avoided(&self, blocks: Blocks) -> Option<u64> {
        let first = || self.avoided.first_in(blocks.first, blocks.count);
        self.life.is_avoiding().then(first).flatten()
    }

    /// Whether a part of some blocks of main is not to be read there.
    pub(in crate::remap) fn is_avoided(&self, main_block: u64, count: u64) -> bool {
        let first = main_block;
        self.first_avoided(Blocks { first, count }).is_some()
    }

    /// Remembers why a message is refused, which is called so, and tells the kernel log. Of several at a time, one is
    /// remembered. May sleep.
    pub(in crate::remap) fn refuse(&self, message: &str, denial: &Denial<'_>) -> Error {
        self.counters.refused.add(1);
        let errno = denial.errno();
        let mut why = self.why.lock();
        why.clear();
        // Writing to it does not fail.
        let _ = write!(why, "{message}: {denial} (errno {errno})");
        pr_err!("{}: {}\n", self.name, why.as_str());
        drop(why);
        Error::from_errno(errno.saturating_neg())
    }

    /// Calls `tell` with why a message was refused last; with nothing if none was. May sleep.
    pub(in crate::remap) fn with_why<R>(&self, tell: impl FnOnce(&str) -> R) -> R {
        tell(self.why.lock().as_str())
    }

    /// Says in the kernel log what went wrong, unless that was said too often.
    pub(in crate::remap) fn complain(&self, what: &str) {
        if self.log.allow() {
            pr_err!("{}: {what}\n", self.name);
        }
    }

    /// Has users hear of what happened to blocks of main: by an event, which whoever calls this has to see to, and in the
    /// kernel log.
    pub(in crate::remap) fn report(&self, event: Event, blocks: usize, first: u64) {
        let count = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.news.note(event, count, Some(self.sector_of(first)));
        self.log_blocks(event, blocks, first);
    }

    /// Says in the kernel log what happened to blocks of main, unless that was said too often.
    pub(in crate::remap) fn log_blocks(&self, event: Event, blocks: usize, first: u64) {
        if self.log.allow() {
            let (what, sector) = (event.what(), self.sector_of(first));
            pr_warn!(
                "{}: {blocks} blocks {what}, from sector {sector} on\n",
                self.name
            );
        }
    }

    /// Has users hear of something that is about no block: by an event, which whoever calls this has to see to, and in
    /// the kernel log, unless that was said too often.
    pub(in crate::remap) fn announce(&self, event: Event) {
        self.news.note(event, 1, None);
        if !self.log.allow() {
            return;
        }
        let (name, what) = (&self.name, event.what());
        match event.level() {
            Level::Error => pr_err!("{name}: {what}\n"),
            Level::Warning => pr_warn!("{name}: {what}\n"),
            Level::Info => pr_info!("{name}: {what}\n"),
        }
    }

    /// The part of the device that a block of main is, for tracepoints.
    pub(in crate::remap) fn traced(&self, main_block: u64) -> trace::Part {
        trace::Part {
            sector: self.sector_of(main_block),
            sectors: self.sectors(1),
        }
    }

    /// Notes a block that main cannot read, and that has no slot. It counts as pending from here on. For who has
    /// its range.
    pub(in crate::remap) fn note(&self, main_block: u64) {
        let _desk = self.desk.lock();
        if self.notes.add(main_block) {
            self.trace.pending(self.traced(main_block));
            self.counters.pending.add(1);
            self.life.watch_notes(true);
        }
    }

    /// Whether a block is noted.
    pub(in crate::remap) fn is_noted(&self, main_block: u64) -> bool {
        self.notes.has(main_block)
    }

    /// A block is noted no more. Returns whether it was; whoever calls this sees to the count.
    pub(in crate::remap) fn forget_note(&self, main_block: u64) -> bool {
        if self.notes.is_empty() {
            return false;
        }
        self.drop_note(&self.desk.lock(), main_block)
    }

    /// The same, for who has the desk's lock.
    pub(in crate::remap) fn drop_note(&self, _desk: &Desk, main_block: u64) -> bool {
        let noted = self.notes.remove(main_block);
        self.life.watch_notes(!self.notes.is_empty());
        noted
    }

    /// The first noted block from `from` on that is in nobody's range.
    pub(in crate::remap) fn next_noted(&self, from: u64) -> Option<u64> {
        let desk = self.desk.lock();
        let range = |block| Range::new(self.sector_of(block), self.sectors(1));
        self.notes.next(from, |block| !desk.is_busy(range(block)))
    }

    /// The slot that a main block has now, and its word.
    pub(in crate::remap) fn slot_of(&self, main_block: u64) -> Option<(u32, SlotWord)> {
        self.with_map(|map| map.view().lookup(main_block))
    }

    /// See [`Map::next_claim`].
    pub(in crate::remap) fn next_claim(&self, members: u8, first: u32) -> Option<(u32, SlotWord)> {
        self.with_map(|map| map.next_claim(members, first))
    }

    /// Whether a slot serves a block of main, and its content is lost until that is written.
    pub(in crate::remap) fn is_content_lost(&self, map: &Map, slot: u32) -> bool {
        let word = map.word(slot);
        if word.state() == SlotState::Lost {
            return word.claims(word.main_block());
        }
        let serves = word.state() == SlotState::Valid && word.claims(word.main_block());
        let away = || {
            let place = map.extents().place(slot);
            place.is_some_and(|place| self.is_lost(place.member))
        };
        serves && (word.is_failing() || away())
    }

    /// Where a slot lies.
    #[inline]
    pub(in crate::remap) fn slot_place(&self, slot: u32) -> Option<Place> {
        self.with_map(|map| map.extents().place(slot))
    }

    /// The member that has a slot.
    pub(in crate::remap) fn member_of(&self, slot: u32) -> Option<u8> {
        self.slot_place(slot).map(|place| place.member)
    }

    /// Whether a slot is free, and held.
    pub(in crate::remap) fn is_held(&self, slot: u32) -> bool {
        self.with_map(|map| map.word(slot)) == SlotWord::FREE_HELD
    }

    /// Whether the slots of a member must not be read, or written.
    #[inline(always)]
    fn is_shut(&self, member: u8, write: bool) -> bool {
        self.shut().has(member, write)
    }

    /// Which members' slots must not be read, or written.
    #[inline(always)]
    pub(in crate::remap) fn shut(&self) -> Shut {
        Shut::from_word(sync::load_relaxed(&self.shut))
    }

    /// Sets that, and orders what follows behind it. Returns what it was.
    pub(in crate::remap) fn set_shut(&self, shut: Shut) -> Shut {
        Shut::from_word(self.shut.xchg(shut.to_word(), Full))
    }

    /// The device and the sector on it of a slot; none if its spare is not there, if it is to be written
    /// and its spare is lost, or if something else is in its place.
    pub(in crate::remap) fn locate<'a>(
        &self,
        spares: &'a Spares,
        slot: u32,
        write: bool,
    ) -> Option<(u8, &'a dm::Device, u64)> {
        self.with_map(|map| self.locate_in(map, spares, slot, write))
    }

    /// The same, for who has the map already.
    #[inline(always)]
    pub(in crate::remap) fn locate_in<'a>(
        &self,
        map: &Map,
        spares: &'a Spares,
        slot: u32,
        write: bool,
    ) -> Option<(u8, &'a dm::Device, u64)> {
        let place = map.extents().place(slot)?;
        if self.is_shut(place.member, write) {
            return None;
        }
        let (device, sector) = spares.locate(place)?;
        Some((place.member, device, sector))
    }

    /// Sectors of a number of blocks.
    #[inline(always)]
    pub(in crate::remap) fn sectors(&self, blocks: u32) -> u32 {
        // Blocks are no larger than a page, and nothing is to be checked here.
        blocks << (self.block_shift & 7)
    }

    /// Blocks of a number of sectors.
    #[inline(always)]
    pub(in crate::remap) fn blocks(&self, sectors: u32) -> u32 {
        sectors >> (self.block_shift & 7)
    }

    /// The block of main that a sector is in.
    #[inline(always)]
    pub(in crate::remap) fn block_of(&self, sector: u64) -> u64 {
        sector >> (self.block_shift & 7)
    }

    /// Bytes of a number of blocks.
    #[inline(always)]
    pub(in crate::remap) fn bytes(&self, blocks: u32) -> u32 {
        self.sectors(blocks) << 9
    }

    /// First sector of a main block.
    #[inline(always)]
    pub(in crate::remap) fn sector_of(&self, main_block: u64) -> u64 {
        main_block << self.block_shift
    }
}

/// Sets the presence bits of what is not to be read.
pub(in crate::remap) fn mark_avoided(avoided: &Avoided, words: &[Cell64], block_shift: u32) {
    let presence = Presence::new(words);
    for range in avoided.ranges() {
        presence.set(range.first << block_shift, range.count << block_shift);
    }
}

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
