// SPDX-License-Identifier: GPL-2.0

//! Serving a bio that failed, or that `map` could not decide about.
//!
//! A bio is looked up again when its turn comes, as the map may have changed since. It is then
//! served piece by piece, each piece being as long as the map is uniform:
//!
//! ```text
//!   bio      |--------------------------------------------------|
//!   map      |   main   | slots 7,8 | main |   pending 9   | main |
//!   write      1 bisect   2 write     1      3 moved         1
//!   read       1 bisect   2 read      1      1 bisect        1
//! ```
//!
//! 1. Main: tried whole, in halves, down to single blocks. A block that fails by itself is bad (E2).
//! 2. Slots: the same; a slot that fails a write by itself is bad, and its block moves on.
//! 3. Pending blocks are not tried: they are known to be bad, and the bio has new content for them. So it is for
//!    blocks that were lost with a spare. Nor
//!    are slots that could not be read lately, as long as there are others.
//!
//! Bad blocks of a write are moved to slots, as [`relocate`](crate::remap::repair::relocate) says. That happens only
//! if the medium is to blame: the capacity is what it was, and main works otherwise
//! ([`Repair::blames_medium`]). If not, it is the device that failed, and the error goes up.
//!
//! Bad blocks of a read fail the bio with the error that main gave, after everything that can be
//! read was read into it. Before it is answered they are [noted](crate::remap::repair::notes), so that their next
//! write goes to the spare, however soon it comes (E4). They are set aside as pending when it is
//! answered, as no read error of main waits for the spare (E7). That is a hint: if it cannot be stored,
//! the next read finds it out again. Blocks that could be read in the end, after they had failed by
//! themselves, are weak, and are moved to the spare then ([`weak`]).
//!
//! A disk may take seconds for a bad block. From the first slow failure on, blocks are tried one by
//! one, which meets each bad block once. When the bio's deadline is over, the rest of a write is
//! moved unconfirmed, and the rest of a read fails and is not recorded (E7). But a bio that waited for others
//! until it was late gets one try: what it has waited for says nothing about its blocks. What the spare serves and
//! cannot take in time fails, too: moving it would be no faster.
//!
//! A crash at any point of a write finds the bio not acknowledged: the blocks have their old
//! content, or the new one, or an error.

mod read;
mod weak;

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
        util, //
    },
    logic::{
        bisect::{
            Bisect,
            Segment, //
        },
        breaker::Need,
        classify::Operation,
        format::{
            member_bit,
            MEMBERS_MAX, //
        },
        latch::FlushTicket,
        limit::Limit,
        message::Blocks,
        slot::{
            Origin,
            SlotState, //
        },
        table::{
            Run,
            RunKind, //
        }, //
    },
    remap::{
        health::{
            life::{
                Direction,
                Disk,
                SpareTickets, //
            },
            probe::{
                self,
                Found, //
            }, //
        },
        meta::io::is_suspect,
        repair::{
            crew::RepairBuffers,
            relocate::{
                push,
                ListedBlock,
                Lists,
                Own,
                Relocation,
                Source,
                MOVES_MAX,
                SLOW_MS, //
            }, //
        },
        session::state::State,
        setup::spares::Spares,
        DmRemap, //
    }, //
};

/// How many blocks of a bio are served at a time.
const CHUNK_BLOCKS: u32 = MOVES_MAX as u32;

/// Serves a bio. The caller has its range at the desk.
pub(in crate::remap) fn serve(
    state: &State,
    mut bio: dm::OwnedBio<DmRemap>,
    tools: &mut RepairBuffers,
) {
    let now = util::monotonic_ms();
    let failed_at = bio.per_bio().failed_at(now);
    let member = bio.per_bio().member();
    let probes_spare = member.is_some() && bio.per_bio().probes;
    if is_given_up(state, &mut bio) {
        let status = bio.status();
        return bio.complete(status);
    }
    let main = bio.target().main.clone();
    let spares = bio.target().spares.clone();
    if bio.sectors() == 0 {
        return end_flush(state, &spares, bio, member);
    }
    let deadline = u64::from(state.limits.get(Limit::DeadlineMs));
    tools.lists.unreadable.clear();
    tools.lists.weak.clear();
    let mut repair = Repair {
        state,
        main: &main,
        spares: &spares,
        bio: &bio,
        data: &mut tools.data,
        lists: &mut tools.lists,
        failed_at: failed_at.unwrap_or(now),
        deadline: failed_at.unwrap_or(now).saturating_add(deadline),
        patience: state.patience(),
        tried: false,
        verdicts: [None; 2],
        probes_spare,
        spare_slow: false,
        explained: false,
        written: (false, 0),
        tell: false,
        error: bio.status(),
    };
    let status = match bio.op() {
        block::Op::Write | block::Op::WriteZeroes => repair.write(),
        block::Op::Read => repair.read(),
        // A discard is a hint, and the block layer allows to do nothing.
        _ => Ok(()),
    };
    let (mut tell, first) = (repair.tell, repair.first());
    let unexplained = status.is_ok() && !repair.explained && failed_at.is_some();
    if unexplained && bio.op() == block::Op::Write && bio.opf().is_fua() {
        let (disk, device) = match member {
            Some(member) => (
                Disk::Spare(member),
                spares.get(member).map(|spare| &spare.device),
            ),
            None => (Disk::Main, Some(&main)),
        };
        if device.is_some_and(dm::Device::emulates_fua) {
            // What failed may have been the flush in it, and others' data is lost with that.
            state.life.own_flush_failed(disk);
        }
    }
    // Whoever has the lock writes metadata, and will need the memory, too.
    if let Some(mut locked) = state.writer.try_lock() {
        tell |= locked.writer.copies_changed(state);
        if locked.writer.wants_growth(state) {
            let target = bio.target();
            let _ = target.growth.enqueue::<_, 1>((*target.state).clone());
        }
    }
    // Before the answer: whoever has another copy, md or btrfs, writes it here at once, and that has to
    // go to the spare.
    let until = util::monotonic_ms().saturating_add(deadline);
    tell |= note_failing(state, until, &spares, (first, &tools.lists));
    if note_lost(state, (first, &tools.lists)) {
        let target = bio.target();
        let _ = target.queue.enqueue::<_, 0>(target.noter.clone());
    }
    let reads = bio.op() == block::Op::Read;
    if tell {
        let target = bio.target();
        let _ = target.events.enqueue::<_, 0>(target.teller.clone());
    }
    bio.complete(status.err().unwrap_or(BlkStatus::OK));

    weak::move_weak(state, &main, &spares, (first, tools));
    if reads {
        // Other reads may wait for the range, and none may wait for the spare.
        return;
    }
    // Others may wait for the range, and whoever has the lock comes here, too.
    let _ = state.with_writer_by(0, &spares, |writer, io| {
        if writer.active {
            writer.prepare(state, io);
        }
    });
}

/// Answers a flush that has failed on the spare of a member: with its error. But if that spare is gone,
/// the set goes on without it, and so do later flushes.
fn end_flush(state: &State, spares: &Spares, bio: dm::OwnedBio<DmRemap>, member: Option<u8>) {
    let tell = state.with_writer_by(state.patience(), spares, |writer, io| {
        member.is_some_and(|member| writer.lose_if_gone(state, io, member))
            && writer.copies_changed(state)
    });
    if tell == Some(true) {
        let target = bio.target();
        let _ = target.events.enqueue::<_, 0>(target.teller.clone());
    }
    let status = bio.status();
    bio.complete(status);
}

/// Whether a bio failed on a device that was found to have failed as a whole, since.
fn is_given_up(state: &State, bio: &mut dm::OwnedBio<DmRemap>) -> bool {
    let reads = matches!(bio.op(), block::Op::Read);
    let spares = bio.target().spares.clone();
    let data = bio.per_bio();
    let fails = match (data.member(), reads) {
        (None, true) => state.life.is_open(Direction::MainRead),
        (None, false) => state.life.is_open(Direction::MainWrite),
        // Nothing that is read from a spare could come from elsewhere.
        (Some(_), true) => false,
        (Some(_), false) => state.all_spares_fail(&spares),
    };
    data.failed && !data.probes && fails
}

/// Remembers blocks of main that cannot be read, so that their next write goes to the spare. Waits for nobody.
/// Returns whether there are any.
fn note_lost(state: &State, (first, lists): (u64, &Lists)) -> bool {
    let lost = || lists.unreadable_blocks(first, false);
    let Some(first) = lost().next() else {
        return false;
    };
    let locked = state.writer.try_lock();
    if locked.is_some_and(|locked| !locked.writer.active) {
        return false;
    }
    state.report("cannot be read", lost().count(), first);
    // A full spare has better use for its slots.
    if state.counters.left.get() != 0 {
        for main_block in lost() {
            if state.slot_of(main_block).is_none() {
                state.note(main_block);
            }
        }
    }
    !state.notes.is_empty()
}

/// Sets aside slots for blocks that are noted, until there are none. Returns whether there is something that users
/// wait for.
pub(in crate::remap) fn set_noted_aside(state: &State, spares: &Spares) -> bool {
    let low_water = state.limits.get(Limit::LowWater);
    let mut tell = false;
    while !state.notes.is_empty() {
        if state.writer.lock().writer.is_taking_over() {
            // They stay noted: there is no slot for them yet.
            break;
        }
        if state.next_noted(0).is_none() {
            // Somebody has their range.
            fsleep(Delta::from_millis(RANGE_MS));
            continue;
        }
        tell |= state.with_writer(spares, |writer, io| {
            let (mut taken, mut from) = ([0u64; NOTED_MAX], 0);
            let mut count = 0usize;
            for place in &mut taken {
                let Some(block) = state.next_noted(from) else {
                    break;
                };
                (*place, from) = (block, block.saturating_add(1));
                count = count.saturating_add(1);
                if writer.active && state.slot_of(block).is_none() {
                    // A full spare has better use for its slots.
                    let _ = writer.set_aside(state, io, block, Origin::Auto);
                }
            }
            // If this fails, the next read finds it out again.
            let _ = writer.commit(state, io);
            for block in taken.iter().take(count) {
                // What is set aside is forgotten with that, and has its place in the count.
                if state.forget_note(*block) {
                    state.counters.pending.sub(1);
                }
            }
            if writer.active {
                writer.prepare(state, io);
            }
            writer.has_news(state, low_water)
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
            let Some((slot, word)) = state.slot_of(main_block) else {
                continue;
            };
            let member = state.member_of(slot);
            let Some((member, known)) = member.and_then(|member| {
                let known = alive.get_mut(usize::from(member))?;
                Some((member, known))
            }) else {
                continue;
            };
            let superblock = writer.metadata.superblock();
            let alive = *known.get_or_insert_with(|| io.is_alive(superblock, member, None));
            if alive && word.state() == SlotState::Valid {
                let known = state.with_map(|map| state.is_content_lost(map, slot));
                writer.set_word(state, slot, word.with_failing());
                state.counters.lost.add(u64::from(!known));
                noted = noted.saturating_add(1);
            }
        }
        if noted != 0 {
            state.report("cannot be read from the spare", noted, first);
        }
        noted != 0
    });
    noted.unwrap_or(false)
}

struct Repair<'a> {
    state: &'a State,
    main: &'a dm::Device,
    spares: &'a Spares,
    bio: &'a dm::OwnedBio<DmRemap>,
    /// One block, for probes.
    data: &'a mut block::IoBuffer,
    lists: &'a mut Lists,
    /// When the bio failed, in milliseconds; for one that did not, when its turn came.
    failed_at: u64,
    /// When it has to be answered.
    deadline: u64,
    /// Until when it waits for others who change the map: its own time for that begins with its turn.
    patience: u64,
    /// Whether it had its try: one that failed, or took long.
    tried: bool,
    /// Whether the medium is to blame for failures to read and to write main, once that was asked.
    verdicts: [Option<bool>; 2],
    /// Whether the bio is to find out whether the spare works again.
    probes_spare: bool,
    /// Whether a slot took long to fail.
    spare_slow: bool,
    /// Whether some block failed by itself, which explains that the bio did.
    explained: bool,
    /// Whether something was written in place on main, and on which members' spares; a bit each.
    written: (bool, u8),
    /// Whether something happened that users wait for.
    tell: bool,
    /// The last error that was seen.
    error: BlkStatus,
}

impl<'a> Repair<'a> {
    /// The bio's first block of main.
    fn first(&self) -> u64 {
        self.bio.target_sector() >> self.state.block_shift
    }

    /// How many blocks the bio has.
    fn blocks(&self) -> u32 {
        self.bio.sectors() >> self.state.block_shift
    }

    /// The bio's blocks.
    fn own(&self) -> Blocks {
        Blocks {
            first: self.first(),
            count: u64::from(self.blocks()),
        }
    }

    /// Whether its time is over.
    fn is_late(&self) -> bool {
        self.tried && util::monotonic_ms() >= self.deadline
    }

    fn write(&mut self) -> block::IoResult {
        let life = &self.state.life;
        let tickets = (life.flush_sent(Disk::Main), life.spares_sent());
        let mut done = 0;
        while done < self.blocks() {
            let count = CHUNK_BLOCKS.min(self.blocks().saturating_sub(done));
            self.lists.moves.clear();
            if done != 0 && self.bio.op() == block::Op::WriteZeroes {
                // There can be gigabytes of them. Each part has the time of a bio of its own.
                let limit = u64::from(self.state.limits.get(Limit::DeadlineMs));
                self.deadline = util::monotonic_ms().saturating_add(limit);
                self.patience = self.state.patience();
            }
            self.write_in_place(done, count)?;
            self.move_blocks()?;
            done = done.saturating_add(count);
        }
        self.make_durable(tickets)
    }

    /// Ends a FUA write where FUA is a write and a flush: the flush, for all parts at once, so that its
    /// error is not taken for one of theirs.
    fn make_durable(&self, (main, spares): (FlushTicket, SpareTickets)) -> block::IoResult {
        if !self.bio.opf().is_fua() {
            return Ok(());
        }
        let (on_main, on_spares) = self.written;
        if on_main && self.main.emulates_fua() {
            self.state.flush(Disk::Main, self.main, main)?;
        }
        let emulate = self.spares.iter().filter(|(_, s)| s.device.emulates_fua());
        let members = emulate.fold(0, |mask, (member, _)| mask | member_bit(member));
        self.state
            .flush_spares(self.spares, members & on_spares, &spares)
    }

    /// Writes what can be written where it belongs, and notes the rest as moves.
    fn write_in_place(&mut self, start: u32, count: u32) -> block::IoResult {
        let end = start.saturating_add(count);
        let mut at = start;
        while at < end {
            let main_block = self.first().saturating_add(u64::from(at));
            let left = end.saturating_sub(at);
            // Before the map, as the noter forgets a block behind having published its slot.
            let noted = self.state.notes.first_in(main_block, u64::from(left));
            let run = self.state.run(main_block, left);
            let noted = noted.filter(|noted| {
                // With no slot left, main may take it.
                let takes = run.kind == RunKind::Main && self.state.counters.left.get() != 0;
                takes && noted.wrapping_sub(main_block) < u64::from(run.count)
            });
            // Up to there it is main's.
            let run = Run {
                count: match noted.map(|noted| noted.wrapping_sub(main_block)) {
                    Some(0) => 1,
                    Some(before) => u32::try_from(before).unwrap_or(run.count),
                    None => run.count,
                },
                ..run
            };
            match run.kind {
                RunKind::Doubt => {
                    self.settle(main_block)?;
                    continue;
                }
                RunKind::Main if noted == Some(main_block) => self.note_moves(at, run.count)?,
                RunKind::Pending { .. } | RunKind::Lost { .. } => self.note_moves(at, run.count)?,
                // With no other slot left, these are better than none.
                RunKind::Failing { .. } if self.state.counters.left.get() != 0 => {
                    self.note_moves(at, run.count)?;
                }
                RunKind::Main | RunKind::Slots { .. } | RunKind::Failing { .. } => {
                    self.write_run(run.kind, main_block, at, run.count)?;
                }
            }
            at = at.saturating_add(run.count);
        }
        Ok(())
    }

    /// Tries to write a run, and notes what fails as moves.
    fn write_run(
        &mut self,
        kind: RunKind,
        main_block: u64,
        at: u32,
        count: u32,
    ) -> block::IoResult {
        let mut search = Bisect::new(count).ok_or(BlkStatus::INVAL)?;
        while let Some(part) = search.next_try() {
            let on_main = kind == RunKind::Main;
            if self.is_late() && (on_main || self.spare_slow) {
                if !on_main || self.bio.op() == block::Op::WriteZeroes {
                    // The spare is slow, so that moving there would not be in time. Zeroes are many,
                    // and nobody's data is lost with them.
                    return Err(self.error_for_bio());
                }
                while let Some(rest) = search.rest() {
                    self.note_moves(at.saturating_add(rest.first), rest.count)?;
                }
                break;
            }
            let begun = util::monotonic_ms();
            let result = self.write_part(kind, main_block, at, part);
            let good = self.judge(Operation::Write, kind, begun, result)?;
            if !good {
                if util::monotonic_ms().saturating_sub(begun) > SLOW_MS {
                    search.one_by_one();
                    self.spare_slow |= !on_main;
                }
                self.explained |= part.count == 1;
                if part.count == 1 {
                    self.note_failed_slot(kind, main_block, result);
                }
                if part.count == 1 && on_main && !self.blames_medium(WRITE) {
                    return Err(self.error_for_bio());
                }
            }
            if let (true, RunKind::Failing { first }) = (good, kind) {
                self.mend(first.saturating_add(part.first), part.count);
            }
            if let Some(bad) = search.report(good) {
                self.note_moves(at.saturating_add(bad.first), bad.count)?;
            }
        }
        if let Some(bad) = search.finish() {
            self.note_moves(at.saturating_add(bad.first), bad.count)?;
        }
        Ok(())
    }

    /// Counts that a slot did not take what was sent to it.
    fn note_failed_slot(&self, kind: RunKind, main_block: u64, result: block::IoResult) {
        let suspect = result.is_err_and(|status| is_suspect(Operation::Write, status));
        if let (true, Ok((Some(member), _, _))) = (suspect, self.place(kind, main_block, true)) {
            self.state.life.note_failed_slot(member);
        }
    }

    /// Slots that could not be read have new content.
    fn mend(&self, first: u32, count: u32) {
        let state = self.state;
        // If that takes too long, the next write of them does it.
        let _ = state.with_writer_by(self.patience, self.spares, |writer, _| {
            for slot in first..first.saturating_add(count) {
                let lost = || state.with_map(|map| state.is_content_lost(map, slot));
                let (before, word) = (lost(), state.with_map(|map| map.word(slot)));
                if word.is_failing() && word.state() == SlotState::Valid {
                    writer.set_word(state, slot, word.without_failing());
                }
                state.counters.lost.sub(u64::from(before && !lost()));
            }
        });
    }

    /// Tries to write a part of a run that starts at block `at` of the bio.
    fn write_part(
        &self,
        kind: RunKind,
        main_block: u64,
        at: u32,
        part: Segment,
    ) -> block::IoResult {
        let (_, device, sector) = self.place(kind, main_block, true)?;
        let bytes = self.state.bytes(part.count);
        let offset = (self.source()).offset(self.state, at.saturating_add(part.first));
        let sector = sector.saturating_add(u64::from(self.state.sectors(part.first)));
        if kind == RunKind::Main && self.bio.op() == block::Op::WriteZeroes {
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
            .write(self.state, (offset, bytes), device, sector, opf)
    }

    fn source(&self) -> Source<'a> {
        match self.bio.op() {
            block::Op::WriteZeroes => Source::Zeroes,
            _ => Source::Bio(self.bio),
        }
    }

    /// Notes that `count` blocks from block `at` of the bio on have to move.
    fn note_moves(&mut self, at: u32, count: u32) -> block::IoResult {
        let mut blocks = at..at.saturating_add(count);
        blocks.try_for_each(|index| push(&mut self.lists.moves, ListedBlock::new(index)))
    }

    /// Moves what was noted.
    fn move_blocks(&mut self) -> block::IoResult {
        let moves = self.lists.moves.iter();
        let fresh = moves
            .filter(|block| {
                let main_block = block.of_main(self.first());
                self.state.slot_of(main_block).is_none() && !self.state.is_noted(main_block)
            })
            .count();
        let allowed =
            fresh == 0 || (self.state.auto_remap.load(Relaxed) && self.blames_medium(WRITE));
        if !allowed {
            return Err(self.error_for_bio());
        }
        let (error, own) = (self.error_for_bio(), self.own());
        let source = self.source();
        let lists = &mut *self.lists;
        let mut relocation = Relocation::new(
            self.state,
            self.spares,
            lists,
            (source, Own::Range(own)),
            Origin::Auto,
            error,
        );
        relocation.deadline = self.deadline;
        relocation.patience = self.patience;
        relocation.target = Some(self.bio.target());
        relocation.probes = self.probes_spare;
        let moved = relocation.run();
        self.tell |= relocation.tell;
        let grows = self
            .state
            .with_writer_by(0, self.spares, |writer, _| writer.wants_growth(self.state));
        if grows == Some(true) {
            let target = self.bio.target();
            let _ = target.growth.enqueue::<_, 1>((*target.state).clone());
        }
        self.state.counters.auto_remaps.add(moved? as u64);
        Ok(())
    }

    /// Whether an I/O that began at `begun` succeeded. Fails with its status if the medium is not to
    /// blame.
    fn judge(
        &mut self,
        operation: Operation,
        kind: RunKind,
        begun: u64,
        result: block::IoResult,
    ) -> Result<bool, BlkStatus> {
        let direction = match (kind, operation) {
            (RunKind::Slots { .. } | RunKind::Failing { .. }, operation) => {
                self.member_of(kind).map(|member| match operation {
                    Operation::Read => Direction::SpareRead(member),
                    _ => Direction::SpareWrite(member),
                })
            }
            (_, Operation::Read) => Some(Direction::MainRead),
            _ => Some(Direction::MainWrite),
        };
        let took = util::monotonic_ms().saturating_sub(begun);
        self.tried |= result.is_err() || took > SLOW_MS;
        match result {
            Ok(()) => {
                match direction {
                    Some(Direction::MainWrite) => self.written.0 = true,
                    Some(Direction::SpareWrite(member)) => {
                        if !self.state.note_written(member) {
                            // It was given up meanwhile.
                            return Ok(false);
                        }
                        self.written.1 |= member_bit(member);
                    }
                    _ => (),
                }
                if let Some(direction) = direction {
                    self.tell |= self.state.proven(direction, begun);
                }
                Ok(true)
            }
            Err(status) => {
                self.error = status;
                if operation == Operation::Write && self.is_gone(kind) {
                    // Like a slot that failed: what is written goes elsewhere.
                    self.tell = true;
                    return Ok(false);
                }
                if is_suspect(operation, status) {
                    Ok(false)
                } else {
                    Err(status)
                }
            }
        }
    }

    /// Whether the medium is to blame for what fails on main, and not the device as a whole (E2): its
    /// capacity is what it was, and since the bio failed it has done something else of the kind. The
    /// answer is the same for all of a bio.
    fn blames_medium(&mut self, way: usize) -> bool {
        if let Some(Some(verdict)) = self.verdicts.get(way) {
            return *verdict;
        }
        let verdict = self.ask_for_life(way);
        if let Some(known) = self.verdicts.get_mut(way) {
            *known = Some(verdict);
        }
        verdict
    }

    fn ask_for_life(&mut self, way: usize) -> bool {
        let (state, life) = (self.state, &self.state.life);
        let direction = if way == WRITE {
            Direction::MainWrite
        } else {
            Direction::MainRead
        };
        if self.main.sectors() < self.bio.target().main_sectors {
            state.complain("main is smaller than it was");
            return false;
        }
        if life.is_proven_since(direction, self.failed_at) {
            return true;
        }
        let need = life.failed(direction, state.limits.get(Limit::ErrorThreshold));
        let suspects = self.own();
        let target = self.bio.target();
        let mut found = if life.is_proven_since(Direction::MainRead, self.failed_at) {
            Found::Alive
        } else {
            probe::can_read(target, suspects, self.deadline, self.data)
        };
        if found == Found::Alive && need == Need::Probe && way == WRITE {
            let times = (self.failed_at, self.deadline);
            found = probe::can_write(target, suspects, times, self.data);
        }
        if found == Found::Dead {
            self.tell |= state.disproved(direction);
        }
        // No answer is none to blame the medium with.
        found == Found::Alive
    }

    fn settle(&mut self, main_block: u64) -> block::IoResult {
        let settled = self
            .state
            .with_writer_by(self.patience, self.spares, |writer, io| {
                if !writer.active {
                    return Err(BlkStatus::IOERR);
                }
                writer
                    .settle(self.state, io, main_block)
                    .map_err(|_| BlkStatus::IOERR)
            });
        settled.unwrap_or(Err(BlkStatus::IOERR))
    }

    /// Where a run lies: whether on the spare of a member, and where there. Of a spare that is not there,
    /// or is lost and should be written, it fails like a bad medium: what is written goes elsewhere.
    fn place(
        &self,
        kind: RunKind,
        main_block: u64,
        write: bool,
    ) -> Result<(Option<u8>, &dm::Device, u64), BlkStatus> {
        match kind {
            RunKind::Slots { first } | RunKind::Failing { first } => {
                let place = self.state.locate(self.spares, first, write);
                let (member, device, sector) = place.ok_or(BlkStatus::IOERR)?;
                Ok((Some(member), device, sector))
            }
            RunKind::Lost { .. } => Err(BlkStatus::IOERR),
            _ => Ok((None, self.main, self.state.sector_of(main_block))),
        }
    }

    /// The member whose slots serve a run.
    fn member_of(&self, kind: RunKind) -> Option<u8> {
        match kind {
            RunKind::Slots { first } | RunKind::Failing { first } => self.state.member_of(first),
            _ => None,
        }
    }

    /// Whether a run lies on a spare that the set goes on without.
    fn is_gone(&self, kind: RunKind) -> bool {
        self.member_of(kind).is_some_and(|member| {
            let state = self.state;
            let gone = state.with_writer_by(self.patience, self.spares, |writer, io| {
                writer.lose_if_gone(state, io, member)
            });
            gone.unwrap_or(false)
        })
    }

    /// The error that the bio fails with if there is no better one.
    fn error_for_bio(&self) -> BlkStatus {
        match self.error {
            BlkStatus::OK => BlkStatus::IOERR,
            status => status,
        }
    }
}

/// Numbers of the verdicts.
const READ: usize = 0;
const WRITE: usize = 1;
