// SPDX-License-Identifier: GPL-2.0

//! Serving a bio that failed, or that `map` could not decide about.
//!
//! What is done, and in which order, says [`logic::repair`](crate::logic::repair). Here it is carried out: the I/O, the
//! look-ups, the locks, and the answer. A bio is looked up again when its turn comes, as the map may have changed since.
//!
//! | step                    | where                                                       |
//! |-------------------------|-------------------------------------------------------------|
//! | read, write, flush      | [`Driver`]                                                  |
//! | is the medium to blame? | [`life`](crate::remap::health::life), [`probe`]             |
//! | place                   | [`relocate`](crate::remap::repair::relocate)                |
//! | note what is unreadable | [`notes`](crate::remap::repair::notes), [`set_noted_aside`] |
//! | move weak blocks        | [`weak`](crate::remap::jobs::weak)                          |

use kernel::{
    prelude::*,
    sync::atomic::Relaxed,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        block::{
            self,
            BlkStatus, //
        },
        dm,
        trace,
        util, //
    },
    logic::{
        classify::{
            Operation,
            Status, //
        },
        event::Event,
        format::{
            member_bit,
            MEMBERS_MAX, //
        },
        latch::FlushTicket,
        limit::Limit,
        message::Blocks,
        repair::{
            self,
            Answer,
            Found,
            Now,
            Repair,
            Step,
            Times,
            Try,
            Way,
            CHUNK_BLOCKS, //
        },
        slot::{
            Origin,
            SlotState, //
        },
        table::RunKind, //
    },
    remap::{
        health::{
            life::{
                Direction,
                Disk,
                Life,
                SpareTickets, //
            },
            probe, //
        },
        meta::io::status_of,
        repair::{
            crew::RepairBuffers,
            relocate::{
                push,
                ListedBlock,
                Lists,
                Own,
                Relocation,
                Source, //
            }, //
        },
        session::state::State,
        setup::spares::Spares,
        user::state::UserState,
        DmRemap, //
    }, //
};

impl repair::Error for BlkStatus {
    const IO: Self = BlkStatus::IOERR;
    const MEDIUM: Self = BlkStatus::MEDIUM;

    fn status(self) -> Status {
        status_of(self)
    }
}

/// Serves a bio. The caller has its range at the desk.
pub(in crate::remap) fn serve(
    state: &State,
    mut bio: dm::OwnedBio<DmRemap>,
    tools: &mut RepairBuffers,
) {
    let now = util::monotonic_ms();
    let failed_at = bio.per_bio().failed_at(now);
    let member = bio.per_bio().member();
    let probes = bio.per_bio().probes;
    let part = trace::Part {
        sector: bio.target_sector(),
        sectors: bio.sectors(),
    };
    let main = bio.target().main.clone();
    let spares = bio.target().spares.clone();
    if bio.sectors() == 0 {
        return end_flush(state, &spares, bio);
    }
    let mut repair = Repair::new(
        repair::Bio {
            operation: match bio.op() {
                block::Op::Write => Operation::Write,
                block::Op::WriteZeroes => Operation::WriteZeroes,
                block::Op::Read => Operation::Read,
                _ => Operation::Other,
            },
            blocks: state.path.size.blocks(bio.sectors()),
            part: CHUNK_BLOCKS,
            fua: bio.opf().is_fua(),
            failed_at,
            error: match bio.status() {
                BlkStatus::OK => BlkStatus::IOERR,
                status => status,
            },
            on_spare: member.is_some(),
            probes,
        },
        now,
        u64::from(state.user.limits.get(Limit::DeadlineMs)),
    );
    tools.lists.begin();
    let mut driver = Driver {
        state,
        main: &main,
        spares: &spares,
        bio: &bio,
        member,
        data: &mut tools.data,
        lists: &mut tools.lists,
        times: repair.times(),
        patience: state.user.limits.patience(),
        probes_spare: member.is_some() && probes,
        tickets: (state.life.flush_sent(Disk::Main), state.life.spares_sent()),
        written: (false, 0),
        tell: false,
    };
    let first = driver.first();
    let Some(status) = driver.run(&mut repair) else {
        let status = bio.status();
        return bio.complete(status);
    };
    if failed_at.is_some() {
        let verdict = match status {
            BlkStatus::OK => trace::Verdict::Served,
            _ => trace::Verdict::Failed,
        };
        state.user.trace.verdict(part, bio.op(), verdict, status);
    }
    let mut tell = driver.tell;
    // Whoever has the lock writes metadata, and will need the memory, too.
    if let Some(mut locked) = state.meta.writer.try_lock() {
        tell |= locked.writer.copies_changed(&state.user);
        if locked.writer.wants_growth(&state.path) {
            let target = bio.target();
            let _ = target.growth.enqueue::<_, 1>((*target.state).clone());
        }
    }
    if tell {
        let target = bio.target();
        target.teller.tell_soon(&target.events);
    }
    bio.complete(status);

    loop {
        match repair.advance(what_is(&state.user), Answer::Good) {
            Step::MoveWeak => {
                let mut weak = state.jobs.weak.lock();
                for block in &tools.lists.weak {
                    weak.add(block.of_main(first));
                }
            }
            Step::Prepare => {
                // Others may wait for the range, and whoever has the lock comes here, too.
                let _ = state.with_writer_by(0, &spares, |writer, io| {
                    if writer.active {
                        writer.prepare(&state.path, io);
                    }
                });
            }
            _ => return,
        }
    }
}

/// What is the case now.
fn what_is(user: &UserState) -> Now {
    Now {
        ms: util::monotonic_ms(),
        auto_remap: user.auto_remap.load(Relaxed),
        slots_left: user.counters.left.get() != 0,
        read_retries: user.limits.get(Limit::ReadRetries),
    }
}

/// Answers a flush that has failed on the spare of a member: with its error. But if that spare is gone,
/// the set goes on without it, and so do later flushes.
fn end_flush(state: &State, spares: &Spares, mut bio: dm::OwnedBio<DmRemap>) {
    let data = bio.per_bio();
    let (member, admitted) = (data.member(), data.probes || !data.failed);
    if admitted || !fails(&state.life, spares, &bio, member) {
        let tell = state.with_writer_by(state.user.limits.patience(), spares, |writer, io| {
            member.is_some_and(|member| writer.lose_if_gone(io, member))
                && writer.copies_changed(&state.user)
        });
        if tell == Some(true) {
            let target = bio.target();
            target.teller.tell_soon(&target.events);
        }
    }
    let status = bio.status();
    bio.complete(status);
}

/// Whether the device on which a bio failed, main or the spare of a member, was found to fail as a whole, since.
fn fails(life: &Life, spares: &Spares, bio: &dm::OwnedBio<DmRemap>, member: Option<u8>) -> bool {
    match (member, bio.op()) {
        (None, block::Op::Read) => life.is_open(Direction::MainRead),
        (None, _) => life.is_open(Direction::MainWrite),
        (Some(_), _) => life.all_spares_fail(spares),
    }
}

/// Remembers blocks of main that cannot be read, so that their next write goes to the spare. Waits for nobody.
/// Returns whether there are any.
fn note_lost(state: &State, (first, lists): (u64, &Lists)) -> bool {
    let lost = || lists.unreadable_blocks(first, false);
    let Some(first) = lost().next() else {
        return false;
    };
    let locked = state.meta.writer.try_lock();
    if locked.is_some_and(|locked| !locked.writer.active) {
        return false;
    }
    state.user.report(
        Event::Pending,
        lost().count(),
        state.path.size.sector_of(first),
    );
    // A full spare has better use for its slots.
    if state.user.counters.left.get() != 0 {
        for main_block in lost() {
            if state.path.slot_of(main_block).is_none() && !state.path.is_avoided(main_block, 1) {
                state
                    .repair
                    .note(&state.user, &state.life, state.path.size, main_block);
            }
        }
    }
    !state.repair.notes.is_empty()
}

/// Sets aside slots for blocks that are noted, until there are none. Returns whether there is something that users
/// wait for.
pub(in crate::remap) fn set_noted_aside(state: &State, spares: &Spares) -> bool {
    let low_water = state.user.limits.get(Limit::LowWater);
    let mut tell = false;
    while !state.repair.notes.is_empty() {
        if state.meta.writer.lock().writer.is_taking_over() {
            // They stay noted: there is no slot for them yet.
            break;
        }
        if state.repair.next_noted(state.path.size, 0).is_none() {
            // Somebody has their range.
            fsleep(Delta::from_millis(RANGE_MS));
            continue;
        }
        tell |= state.with_writer(spares, |writer, io| {
            let (mut taken, mut from) = ([0u64; NOTED_MAX], 0);
            let mut count = 0usize;
            for place in &mut taken {
                let Some(block) = state.repair.next_noted(state.path.size, from) else {
                    break;
                };
                (*place, from) = (block, block.saturating_add(1));
                count = count.saturating_add(1);
                let is_main =
                    state.path.slot_of(block).is_none() && !state.path.is_avoided(block, 1);
                if writer.active && is_main {
                    // A full spare has better use for its slots.
                    let _ = writer.set_aside(&state.path, &state.repair, io, block, Origin::Auto);
                }
            }
            // If this fails, the next read finds it out again.
            let _ = writer.commit(&state.path, &state.repair, io);
            for block in taken.iter().take(count) {
                // What is set aside is forgotten with that, and has its place in the count.
                if state.repair.forget_note(&state.life, *block) {
                    state.user.counters.pending.sub(1);
                }
            }
            if writer.active {
                writer.prepare(&state.path, io);
            }
            writer.has_news(&state.user, low_water)
        });
    }
    tell
}

/// How many blocks are set aside with one commit.
const NOTED_MAX: usize = 64;

/// How often is looked whether a range is free, in milliseconds.
const RANGE_MS: i64 = 5;

/// Remembers slots that cannot be read, so that the next write of their blocks goes to others: these
/// may take it and lose it again. A spare that cannot be read at all says nothing about them (P6). Waits for
/// nobody after `until`: the next read finds it out again.
/// Returns whether users have to be told.
fn note_failing(state: &State, until: u64, spares: &Spares, (first, lists): (u64, &Lists)) -> bool {
    let failing = || lists.unreadable_blocks(first, true);
    let Some(first) = failing().next() else {
        return false;
    };
    let noted = state.with_writer_by(until, spares, |writer, io| {
        let mut alive = [None; MEMBERS_MAX as usize];
        let mut noted = 0usize;
        for main_block in failing() {
            let Some((slot, word)) = state.path.slot_of(main_block) else {
                continue;
            };
            let member = state.path.member_of(slot);
            let Some((member, known)) = member.and_then(|member| {
                let known = alive.get_mut(usize::from(member))?;
                Some((member, known))
            }) else {
                continue;
            };
            let superblock = writer.metadata.superblock();
            let alive = *known.get_or_insert_with(|| io.is_alive(superblock, member, None));
            if alive && word.state() == SlotState::Valid {
                let known = state
                    .path
                    .with_map(|map| state.life.is_content_lost(map, slot));
                writer.set_word(&state.user, &state.path, slot, word.with_failing());
                state.user.counters.lost.add(u64::from(!known));
                noted = noted.saturating_add(1);
            }
        }
        if noted != 0 {
            state
                .user
                .report(Event::Lost, noted, state.path.size.sector_of(first));
        }
        noted != 0
    });
    noted.unwrap_or(false)
}

/// What carries out the steps.
struct Driver<'a> {
    state: &'a State,
    main: &'a dm::Device,
    spares: &'a Spares,
    bio: &'a dm::OwnedBio<DmRemap>,
    /// The member on whose spare the bio failed; none if that was main.
    member: Option<u8>,
    /// One block, for probes.
    data: &'a mut block::IoBuffer,
    lists: &'a mut Lists,
    times: Times,
    /// Until when it waits for others who change the map: its own time for that begins with its turn.
    patience: u64,
    /// Whether the bio is to find out whether the spare works again.
    probes_spare: bool,
    /// How many flushes had failed before anything was written: of main, and of the spares.
    tickets: (FlushTicket, SpareTickets),
    /// Whether something was written in place on main, and on which members' spares; a bit each.
    written: (bool, u8),
    /// Whether something happened that users wait for.
    tell: bool,
}

impl<'a> Driver<'a> {
    /// Does what the machine asks for until the bio can be answered. None if nothing else is to be done.
    fn run(&mut self, repair: &mut Repair<BlkStatus>) -> Option<BlkStatus> {
        let mut answer = Answer::Good;
        loop {
            let step = repair.advance(what_is(&self.state.user), answer);
            if self.times != repair.times() {
                // Another part, which has time of its own.
                self.times = repair.times();
                self.patience = self.state.user.limits.patience();
            }
            answer = match step {
                Step::AskBreaker => {
                    Answer::Yes(fails(&self.state.life, self.spares, self.bio, self.member))
                }
                Step::Look { at, count } => self.look(at, count),
                Step::Settle { at } => answer_of(self.settle(self.main_block(at))),
                Step::Read(part) => self.read(part),
                Step::Write(part) => self.write(part),
                Step::AskGone { slot } => Answer::Yes(self.is_gone(slot)),
                Step::CountFailedSlot { slot } => {
                    if let Some((member, _, _)) =
                        self.state
                            .path
                            .locate(&self.state.life, self.spares, slot, true)
                    {
                        self.state.life.note_failed_slot(member);
                    }
                    Answer::Good
                }
                Step::Mend { first, count } => {
                    self.mend(first, count);
                    Answer::Good
                }
                Step::AskMain(way) => self.ask_main(way),
                Step::CountFailure(way) => self.count_failure(way),
                Step::Probe(way) => Answer::Probed(self.probe(way)),
                Step::Disprove(way) => {
                    self.tell |= self
                        .state
                        .life
                        .disproved(&self.state.user, direction_of(way));
                    Answer::Good
                }
                Step::ListMoves { at, count } => answer_of(self.list_moves(at, count)),
                Step::AskMoves => Answer::Yes(self.are_new()),
                Step::Place => self.place(repair.error()),
                Step::Commit => self.commit(repair.error()),
                Step::Flush => answer_of(self.flush()),
                Step::ListUnreadable { at, from_slot } => {
                    if from_slot {
                        self.state.user.counters.spare_read_errors.add(1);
                    }
                    let block = ListedBlock::new(at).mark_if(from_slot);
                    // What finds no room is found out again by the next read.
                    let _ = push(&mut self.lists.unreadable, block);
                    Answer::Good
                }
                Step::ListWeak { at } => {
                    // The same.
                    let _ = push(&mut self.lists.weak, ListedBlock::new(at));
                    Answer::Good
                }
                Step::DistrustFlush => {
                    self.distrust_flush();
                    Answer::Good
                }
                Step::NoteFailing => {
                    let patience = u64::from(self.state.user.limits.get(Limit::DeadlineMs));
                    let until = util::monotonic_ms().saturating_add(patience);
                    let lists = (self.first(), &*self.lists);
                    self.tell |= note_failing(self.state, until, self.spares, lists);
                    Answer::Good
                }
                Step::NoteUnreadable => {
                    if note_lost(self.state, (self.first(), self.lists)) {
                        let target = self.bio.target();
                        let _ = target.queue.enqueue::<_, 0>(target.noter.clone());
                    }
                    Answer::Good
                }
                Step::Answer(status) => return Some(status.err().unwrap_or(BlkStatus::OK)),
                Step::PassUp => return None,
                // These come after an answer.
                Step::MoveWeak | Step::Prepare | Step::Done => return Some(BlkStatus::IOERR),
            };
        }
    }

    /// The bio's first block of main.
    fn first(&self) -> u64 {
        self.state.path.size.block_of(self.bio.target_sector())
    }

    /// The block of main that a block of the bio is.
    fn main_block(&self, at: u32) -> u64 {
        self.first().saturating_add(u64::from(at))
    }

    /// The bio's blocks.
    fn own(&self) -> Blocks {
        Blocks {
            first: self.first(),
            count: u64::from(self.state.path.size.blocks(self.bio.sectors())),
        }
    }

    fn look(&self, at: u32, count: u32) -> Answer<BlkStatus> {
        let main_block = self.main_block(at);
        // Before the map, as the noter forgets a block behind having published its slot.
        let writes = self.bio.op() != block::Op::Read;
        let noted = writes.then(|| {
            self.state
                .repair
                .notes
                .first_in(main_block, u64::from(count))
        });
        let noted = noted.flatten();
        Answer::Found {
            run: self.state.path.run(main_block, count),
            noted: noted.and_then(|noted| u32::try_from(noted.wrapping_sub(main_block)).ok()),
        }
    }

    fn settle(&self, main_block: u64) -> block::IoResult {
        let settled = self
            .state
            .with_writer_by(self.patience, self.spares, |writer, io| {
                if !writer.active {
                    return Err(BlkStatus::IOERR);
                }
                writer
                    .settle(&self.state.path, &self.state.repair, io, main_block)
                    .map_err(|_| BlkStatus::IOERR)
            });
        settled.unwrap_or(Err(BlkStatus::IOERR))
    }

    /// Where a run lies. Of a spare that is not there,
    /// or is lost and should be written, it fails like a bad medium: what is written goes elsewhere.
    fn place_of(&self, run: Try, write: bool) -> Result<(&dm::Device, u64), BlkStatus> {
        let skipped = u64::from(self.state.path.size.sectors(run.part.first));
        let (device, sector) = match run.kind {
            RunKind::Slots { first } | RunKind::Failing { first } => {
                let place = self
                    .state
                    .path
                    .locate(&self.state.life, self.spares, first, write);
                let (_, device, sector) = place.ok_or(BlkStatus::IOERR)?;
                (device, sector)
            }
            RunKind::Lost { .. } => return Err(BlkStatus::IOERR),
            _ => {
                let first = self.main_block(run.at);
                let tried = first.saturating_add(u64::from(run.part.first));
                let count = u64::from(run.part.count);
                if !write && self.state.path.is_avoided(tried, count) {
                    // Since it was looked up.
                    return Err(BlkStatus::MEDIUM);
                }
                (self.main, self.state.path.size.sector_of(first))
            }
        };
        Ok((device, sector.saturating_add(skipped)))
    }

    fn read(&mut self, run: Try) -> Answer<BlkStatus> {
        let begun = util::monotonic_ms();
        let read = self.place_of(run, false).and_then(|(device, sector)| {
            let index = run.at.saturating_add(run.part.first);
            let offset = self.source().offset(self.state.path.size, index);
            let bytes = self.state.path.size.bytes(run.part.count);
            (self.state.pool).read_slice(self.bio, offset, bytes, device, sector)
        });
        let direction = match run.kind {
            RunKind::Slots { first } | RunKind::Failing { first } => {
                self.state.path.member_of(first).map(Direction::SpareRead)
            }
            _ => Some(Direction::MainRead),
        };
        if let (Ok(()), Some(direction)) = (read, direction) {
            self.tell |= self.state.life.proven(&self.state.user, direction, begun);
        }
        answer_of(read)
    }

    fn write(&mut self, run: Try) -> Answer<BlkStatus> {
        let begun = util::monotonic_ms();
        if let Err(status) = self.write_part(run) {
            return Answer::Failed(status);
        }
        let direction = match run.kind {
            RunKind::Slots { first } | RunKind::Failing { first } => {
                let Some(member) = self.state.path.member_of(first) else {
                    return Answer::Good;
                };
                if !self.state.life.note_written(member) {
                    // It was given up meanwhile.
                    return Answer::InVain;
                }
                self.written.1 |= member_bit(member);
                Direction::SpareWrite(member)
            }
            _ => {
                self.written.0 = true;
                Direction::MainWrite
            }
        };
        self.tell |= self.state.life.proven(&self.state.user, direction, begun);
        Answer::Good
    }

    fn write_part(&self, run: Try) -> block::IoResult {
        let (device, sector) = self.place_of(run, true)?;
        let bytes = self.state.path.size.bytes(run.part.count);
        let index = run.at.saturating_add(run.part.first);
        let offset = self.source().offset(self.state.path.size, index);
        if run.kind == RunKind::Main && self.bio.op() == block::Op::WriteZeroes {
            // As they came to it.
            let opf = block::Opf::WRITE_ZEROES.sync();
            match self.state.pool.write_zeroes(device, sector, bytes, opf) {
                // It cannot, or not so many.
                Err(BlkStatus::NOTSUPP | BlkStatus::TARGET) => (),
                written => return written,
            }
        }
        let opf = block::Opf::WRITE.sync();
        let fua = self.bio.opf().is_fua() && !device.emulates_fua();
        let opf = if fua { opf.fua() } else { opf };
        self.source()
            .write(&self.state.pool, (offset, bytes), device, sector, opf)
    }

    fn source(&self) -> Source<'a> {
        match self.bio.op() {
            block::Op::WriteZeroes => Source::Zeroes(&self.state.repair.zeroes),
            _ => Source::Bio(self.bio),
        }
    }

    /// Whether a slot is on a spare that the set goes on without.
    fn is_gone(&mut self, slot: u32) -> bool {
        let state = self.state;
        let gone = state.path.member_of(slot).is_some_and(|member| {
            let gone = state.with_writer_by(self.patience, self.spares, |writer, io| {
                writer.lose_if_gone(io, member)
            });
            gone.unwrap_or(false)
        });
        self.tell |= gone;
        gone
    }

    /// Slots that could not be read have new content.
    fn mend(&self, first: u32, count: u32) {
        let state = self.state;
        // If that takes too long, the next write of them does it.
        let _ = state.with_writer_by(self.patience, self.spares, |writer, _| {
            for slot in first..first.saturating_add(count) {
                let lost = || {
                    state
                        .path
                        .with_map(|map| state.life.is_content_lost(map, slot))
                };
                let (before, word) = (lost(), state.path.with_map(|map| map.word(slot)));
                if word.is_failing() && word.state() == SlotState::Valid {
                    writer.set_word(&state.user, &state.path, slot, word.without_failing());
                }
                state.user.counters.lost.sub(u64::from(before && !lost()));
            }
        });
    }

    fn ask_main(&self, way: Way) -> Answer<BlkStatus> {
        let whole = self.main.sectors() >= self.bio.target().main_sectors;
        if !whole {
            self.state.user.complain("main is smaller than it was");
        }
        Answer::Main {
            whole,
            proven: self.is_proven(way),
        }
    }

    /// Whether main has done something of the kind since the bio failed.
    fn is_proven(&self, way: Way) -> bool {
        (self.state.life).is_proven_since(direction_of(way), self.times.failed_at)
    }

    fn count_failure(&self, way: Way) -> Answer<BlkStatus> {
        let threshold = self.state.user.limits.get(Limit::ErrorThreshold);
        Answer::Need {
            need: self.state.life.failed(direction_of(way), threshold),
            read: self.is_proven(Way::Read),
        }
    }

    fn probe(&mut self, way: Way) -> Found {
        let (target, suspects) = (self.bio.target(), self.own());
        let Times {
            failed_at,
            deadline,
        } = self.times;
        match way {
            Way::Read => probe::can_read(target, suspects, deadline, self.data),
            Way::Write => probe::can_write(target, suspects, (failed_at, deadline), self.data),
        }
    }

    fn list_moves(&mut self, at: u32, count: u32) -> block::IoResult {
        let mut blocks = at..at.saturating_add(count);
        blocks.try_for_each(|index| push(&mut self.lists.moves, ListedBlock::new(index)))
    }

    /// Whether some of the blocks that have to move have no slot, and were not noted.
    fn are_new(&self) -> bool {
        let mut blocks = self.lists.moves.iter();
        blocks.any(|block| {
            let main_block = block.of_main(self.first());
            self.state.path.slot_of(main_block).is_none()
                && !self.state.repair.notes.has(main_block)
                && !self.state.path.is_avoided(main_block, 1)
        })
    }

    /// Brings what was listed to slots. What cannot be moved fails with `error`.
    fn place(&mut self, error: BlkStatus) -> Answer<BlkStatus> {
        let mut relocation = self.relocation(error);
        let placed = relocation.place();
        let tell = relocation.tell;
        self.tell |= tell;
        self.lists.moves.clear();
        match placed {
            Ok(()) if !self.lists.has_room() => Answer::Full,
            placed => answer_of(placed),
        }
    }

    /// Makes durable what was placed.
    fn commit(&mut self, error: BlkStatus) -> Answer<BlkStatus> {
        let mut relocation = self.relocation(error);
        let committed = relocation.commit();
        let (tell, in_vain) = (relocation.tell, relocation.in_vain);
        self.tell |= tell;
        let grows = self.state.with_writer_by(0, self.spares, |writer, _| {
            writer.wants_growth(&self.state.path)
        });
        if grows == Some(true) {
            let target = self.bio.target();
            let _ = target.growth.enqueue::<_, 1>((*target.state).clone());
        }
        let moved = committed.unwrap_or(0);
        self.state.user.counters.auto_remaps.add(moved as u64);
        match in_vain {
            true => Answer::InVain,
            false => answer_of(committed.map(drop)),
        }
    }

    fn relocation(&mut self, error: BlkStatus) -> Relocation<'_> {
        let (own, source) = (Own::Range(self.own()), self.source());
        let lists = &mut *self.lists;
        let origin = Origin::Auto;
        let mut relocation =
            Relocation::new(self.state, self.spares, lists, (source, own), origin, error);
        relocation.deadline = self.times.deadline;
        relocation.patience = self.patience;
        relocation.target = Some(self.bio.target());
        relocation.probes = self.probes_spare;
        relocation
    }

    /// Ends a FUA write where FUA is a write and a flush: the flush, for all parts at once, so that its
    /// error is not taken for one of theirs.
    fn flush(&self) -> block::IoResult {
        let (on_main, on_spares) = self.written;
        let (main, spares) = &self.tickets;
        if on_main && self.main.emulates_fua() {
            self.state.life.flush(
                &self.state.user,
                &self.state.pool,
                (Disk::Main, self.main),
                *main,
            )?;
        }
        let emulate = self.spares.iter().filter(|(_, s)| s.device.emulates_fua());
        let members = emulate.fold(0, |mask, (member, _)| mask | member_bit(member));
        self.state.life.flush_spares(
            &self.state.user,
            &self.state.pool,
            (self.spares, members & on_spares),
            spares,
        )
    }

    /// Where FUA is a write and a flush, what failed may have been the flush, and others' data is lost with that.
    fn distrust_flush(&self) {
        let (disk, device) = match self.member {
            Some(member) => (
                Disk::Spare(member),
                self.spares.get(member).map(|spare| &spare.device),
            ),
            None => (Disk::Main, Some(self.main)),
        };
        if device.is_some_and(dm::Device::emulates_fua) {
            self.state.life.own_flush_failed(disk);
        }
    }
}

fn direction_of(way: Way) -> Direction {
    match way {
        Way::Read => Direction::MainRead,
        Way::Write => Direction::MainWrite,
    }
}

fn answer_of(result: block::IoResult) -> Answer<BlkStatus> {
    match result {
        Ok(()) => Answer::Good,
        Err(status) => Answer::Failed(status),
    }
}
