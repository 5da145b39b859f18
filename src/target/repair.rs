// SPDX-License-Identifier: GPL-2.0

//! The worker: bios that failed, or that `map` could not decide about.
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
//! 3. Pending blocks are not tried: they are known to be bad, and the bio has new content for them.
//!
//! Bad blocks of a write are moved: to slots, flushed, and then as [`writer`](super::writer) says.
//! That happens only after proof of life (E2): the capacity is what it was, and some other block
//! can be read. Otherwise it is the device that failed and not the medium, and the error goes up.
//!
//! Bad blocks of a read fail the bio with the error that main gave, after everything that can be
//! read was read into it. They are set aside as pending once the bio is answered: that is a hint
//! and nothing that anybody waits for (E4).
//!
//! A crash at any point of a write finds the bio not acknowledged: the blocks have their old
//! content, or the new one, or an error.

use super::io::is_suspect;
use super::io::SpareIo;
use super::probe;
use super::state::Locked;
use super::state::State;
use super::writer::Publish;
use super::writer::Writer;
use super::writer::STAGED_MAX;
use super::DmRemap;
use crate::dm;
use crate::dm::BlkStatus;
use crate::logic::alloc::SlotRun;
use crate::logic::bisect::Bisect;
use crate::logic::bisect::Segment;
use crate::logic::classify::Operation;
use crate::logic::message::Blocks;
use crate::logic::slot::Origin;
use crate::logic::slot::SlotWord;
use crate::logic::slot::State as SlotState;
use crate::logic::table::RunKind;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;

/// How many blocks of a bio are served at a time, so that their changes fit into one commit with
/// room for what bad slots add.
const CHUNK_BLOCKS: u32 = STAGED_MAX as u32 / 2;

/// How many slots may fail for one bio before any has taken data: more, and it is the spare that
/// failed and not its medium.
const SLOTS_TRIED: usize = 16;

/// A block that has to go to a slot.
#[derive(Clone, Copy)]
struct Move {
    main_block: u64,
    /// Where its data is in the bio, in bytes.
    offset: u32,
    /// Whether the slot that was set aside for it failed.
    own_failed: bool,
}

/// Lists that the worker needs, made beforehand: there may be no memory when it does.
pub(super) struct Scratch {
    /// Blocks that have to go to slots.
    moves: KVec<Move>,
    /// Slots that failed, or that are replaced.
    retired: KVec<u32>,
    /// Blocks of main that cannot be read.
    lost: KVec<u64>,
}

impl Scratch {
    /// Makes the lists.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            moves: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            retired: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            lost: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
        })
    }
}

/// Serves all deferred bios. Runs on a work queue of its own.
pub(super) fn run(state: &State) {
    let _scope = dm::NoIoScope::enter();
    for bio in state.deferred.take_all() {
        serve(state, bio);
    }
}

fn serve(state: &State, bio: dm::OwnedBio<DmRemap>) {
    let main = bio.target().main.clone();
    let spare = bio.target().spare.clone();
    let events = bio.target().events.clone();
    let low_water = bio.target().settings.low_water;
    let mut lock = state.writer.lock();
    let Locked {
        writer,
        block,
        data,
        scratch,
        ..
    } = &mut *lock;
    scratch.lost.clear();
    let mut repair = Repair {
        state,
        writer,
        io: SpareIo::new(state, &spare, block),
        probe: data,
        scratch,
        main: &main,
        bio: &bio,
        main_alive: false,
        spare_alive: false,
        error: bio.status(),
    };
    let status = match bio.op() {
        dm::Op::Write => repair.write(),
        dm::Op::Read => repair.read(),
        // A discard is a hint, and the block layer allows to do nothing.
        _ => Ok(()),
    };
    bio.complete(status.err().unwrap_or(BlkStatus::OK));
    finish(state, &mut lock, &spare);
    let tell = lock.writer.crosses_low_water(low_water);
    drop(lock);
    if tell {
        events.raise();
    }
}

/// What nobody waits for: remembers blocks of main that cannot be read, so that their next write
/// goes to the spare, and gets ready for the next bio.
fn finish(state: &State, lock: &mut Locked, spare: &dm::Device) {
    let mut io = SpareIo::new(state, spare, &mut lock.block);
    let writer = &mut lock.writer;
    if let (true, Some(first)) = (writer.active, lock.scratch.lost.first()) {
        state.report("cannot be read", lock.scratch.lost.len(), *first);
    } else {
        lock.scratch.lost.clear();
    }
    for main_block in &lock.scratch.lost {
        if state.slot_of(*main_block).is_some() {
            continue;
        }
        // A full spare has better use for its slots.
        let Ok(run) = writer.take_slots(state, &mut io, 1) else {
            break;
        };
        let staged = SlotWord::new(*main_block, SlotState::Pending, Origin::Auto)
            .ok_or(ERANGE)
            .and_then(|word| writer.stage(state, run.first, word, Publish::Insert));
        if staged.is_err() {
            writer.give_back(state, run.first);
            break;
        }
    }
    // If this fails, the next read finds it out again.
    let _ = writer.commit(state, &mut io);
    if writer.active {
        writer.prepare(state, &mut io);
    }
}

struct Repair<'a> {
    state: &'a State,
    writer: &'a mut Writer,
    io: SpareIo<'a>,
    /// Where probes read to.
    probe: &'a mut dm::IoBuffer,
    scratch: &'a mut Scratch,
    main: &'a dm::Device,
    bio: &'a dm::OwnedBio<DmRemap>,
    /// Whether main has shown life since the bio failed.
    main_alive: bool,
    /// Whether a slot has taken data since.
    spare_alive: bool,
    /// The last error that was seen.
    error: BlkStatus,
}

impl Repair<'_> {
    /// The bio's first block of main.
    fn first(&self) -> u64 {
        self.bio.target().main_sector(self.bio.sector()) >> self.state.block_shift
    }

    /// How many blocks the bio has.
    fn blocks(&self) -> u32 {
        self.bio.sectors() >> self.state.block_shift
    }

    fn write(&mut self) -> dm::IoResult {
        let mut done = 0;
        while done < self.blocks() {
            let count = CHUNK_BLOCKS.min(self.blocks().saturating_sub(done));
            self.scratch.moves.clear();
            self.scratch.retired.clear();
            self.write_in_place(done, count)?;
            self.move_blocks()?;
            done = done.saturating_add(count);
        }
        Ok(())
    }

    /// Writes what can be written where it belongs, and notes the rest as moves.
    fn write_in_place(&mut self, start: u32, count: u32) -> dm::IoResult {
        let end = start.saturating_add(count);
        let mut at = start;
        while at < end {
            let main_block = self.first().saturating_add(u64::from(at));
            let run = self.state.run(main_block, end.saturating_sub(at));
            match run.kind {
                RunKind::Doubt => {
                    self.settle(main_block)?;
                    continue;
                }
                RunKind::Pending { .. } => self.note_moves(at, run.count)?,
                RunKind::Main | RunKind::Slots { .. } => {
                    let mut search = Bisect::new(run.count).ok_or(BlkStatus::INVAL)?;
                    while let Some(part) = search.next_try() {
                        let good = self.write_part(run.kind, main_block, at, part)?;
                        if let Some(bad) = search.report(good) {
                            self.note_moves(at.saturating_add(bad.first), bad.count)?;
                        }
                    }
                    if let Some(bad) = search.finish() {
                        self.note_moves(at.saturating_add(bad.first), bad.count)?;
                    }
                }
            }
            at = at.saturating_add(run.count);
        }
        Ok(())
    }

    /// Tries to write a part of a run that starts at block `at` of the bio.
    fn write_part(
        &mut self,
        kind: RunKind,
        main_block: u64,
        at: u32,
        part: Segment,
    ) -> Result<bool, BlkStatus> {
        let (device, sector) = self.place(kind, main_block);
        let result = self.io.pool.write_slice(
            self.bio,
            self.bytes(at.saturating_add(part.first)),
            self.bytes(part.count),
            &device,
            sector.saturating_add(u64::from(self.state.sectors(part.first))),
            self.bio.opf().for_retry(),
        );
        self.judge(Operation::Write, kind, result)
    }

    /// Notes that `count` blocks from block `at` of the bio on have to move.
    fn note_moves(&mut self, at: u32, count: u32) -> dm::IoResult {
        for index in at..at.saturating_add(count) {
            let block = Move {
                main_block: self.first().saturating_add(u64::from(index)),
                offset: self.bytes(index),
                own_failed: false,
            };
            push(&mut self.scratch.moves, block)?;
        }
        Ok(())
    }

    /// Moves blocks to slots: data, flush, commit, publish.
    fn move_blocks(&mut self) -> dm::IoResult {
        if self.scratch.moves.is_empty() {
            return Ok(());
        }
        let fresh = self
            .scratch
            .moves
            .iter()
            .any(|block| self.state.slot_of(block.main_block).is_none());
        if fresh && (!self.state.auto_remap.load(Relaxed) || !self.proof_of_life()) {
            return Err(self.error_for_bio());
        }
        let written = self.write_to_slots();
        // What is staged is complete in itself, even if the rest found no place.
        let committed = self.flush_and_commit();
        if committed.is_ok() && self.spare_alive {
            if let Some(first) = self.scratch.moves.first() {
                let count = self.scratch.moves.len();
                self.state
                    .report("moved to the spare", count, first.main_block);
            }
            self.retire();
        } else {
            self.forget_retired();
        }
        written.and(committed)
    }

    /// Writes the data of all moves to slots and stages their entries. A block whose slot fails goes
    /// to the end of the queue and gets another one.
    fn write_to_slots(&mut self) -> dm::IoResult {
        let mut next = 0;
        while let Some(block) = self.scratch.moves.get(next).copied() {
            let old = self.state.slot_of(block.main_block);
            let own =
                old.filter(|(_, word)| word.state() == SlotState::Pending && !block.own_failed);
            let run = match own {
                Some((slot, _)) => SlotRun {
                    first: slot,
                    count: 1,
                },
                None => self.take_slots(self.run_length(next))?,
            };
            self.fill_slots(run, next, own.is_some())?;
            next = next.saturating_add(run.count as usize);
        }
        Ok(())
    }

    /// How many moves from number `next` on are of consecutive blocks with consecutive data and can
    /// go to new slots together.
    fn run_length(&self, next: usize) -> u32 {
        let rest = self.scratch.moves.get(next..).unwrap_or(&[]);
        let Some(first) = rest.first() else {
            return 0;
        };
        let mut count = 1u32;
        for block in rest.iter().skip(1) {
            let pending = |(_, word): (u32, SlotWord)| word.state() == SlotState::Pending;
            if block.main_block != first.main_block.saturating_add(u64::from(count))
                || self.state.slot_of(block.main_block).is_some_and(pending)
            {
                break;
            }
            count = count.saturating_add(1);
        }
        count
    }

    /// Writes the data of as many moves from number `next` on as there are slots in `run`.
    fn fill_slots(&mut self, run: SlotRun, next: usize, own: bool) -> dm::IoResult {
        let first = *self.scratch.moves.get(next).ok_or(BlkStatus::IOERR)?;
        let kind = RunKind::Slots { first: run.first };
        let mut search = Bisect::new(run.count).ok_or(BlkStatus::INVAL)?;
        // Slots before this one are staged, bad, or given back.
        let mut settled = 0u32;
        while let Some(part) = search.next_try() {
            let result = self.io.pool.write_slice(
                self.bio,
                first.offset.saturating_add(self.bytes(part.first)),
                self.bytes(part.count),
                self.io.spare,
                self.state.slot_sector(run.first.saturating_add(part.first)),
                dm::Opf::WRITE.sync(),
            );
            let good = self.judge(Operation::Write, kind, result);
            let taken = match good {
                Ok(true) => (part.first..part.first.saturating_add(part.count))
                    .try_for_each(|index| self.stage_slot(run.first, index, next)),
                Ok(false) if part.count == 1 => self.slot_failed(run.first, part.first, next, own),
                Ok(false) => {
                    search.report(false);
                    continue;
                }
                Err(status) => Err(status),
            };
            if let Err(status) = taken {
                if !own {
                    for index in settled..run.count {
                        let slot = run.first.saturating_add(index);
                        self.writer.give_back_unless_staged(self.state, slot);
                    }
                }
                return Err(status);
            }
            search.report(matches!(good, Ok(true)));
            settled = part.first.saturating_add(part.count);
        }
        Ok(())
    }

    /// Stages that a slot serves its block from now on.
    fn stage_slot(&mut self, first: u32, index: u32, next: usize) -> dm::IoResult {
        let slot = first.saturating_add(index);
        let block = self.move_at(next, index)?;
        let publish = match self.state.slot_of(block.main_block) {
            Some((old, _)) if old == slot => Publish::Keep,
            Some((old, _)) => Publish::Replace(old),
            None => Publish::Insert,
        };
        self.spare_alive = true;
        let word = SlotWord::new(block.main_block, SlotState::Valid, Origin::Auto)
            .ok_or(BlkStatus::IOERR)?;
        self.writer
            .stage(self.state, slot, word, publish)
            .map_err(|_| BlkStatus::RESOURCE)?;
        match publish {
            Publish::Replace(old) => push(&mut self.scratch.retired, old),
            _ => Ok(()),
        }
    }

    /// A slot cannot take data: its block needs another one.
    fn slot_failed(&mut self, first: u32, index: u32, next: usize, own: bool) -> dm::IoResult {
        let mut block = self.move_at(next, index)?;
        block.own_failed |= own;
        push(&mut self.scratch.moves, block)?;
        // One that has a claim is retired together with being replaced, and not before.
        if !own {
            push(&mut self.scratch.retired, first.saturating_add(index))?;
        }
        if !self.spare_alive && self.scratch.retired.len() > SLOTS_TRIED {
            self.state.complain("the spare fails everywhere");
            return Err(self.error_for_bio());
        }
        Ok(())
    }

    fn move_at(&self, next: usize, index: u32) -> Result<Move, BlkStatus> {
        self.scratch
            .moves
            .get(next.saturating_add(index as usize))
            .copied()
            .ok_or(BlkStatus::IOERR)
    }

    /// Data before metadata (P3). A flush that failed is not tried again: a disk may drop what it
    /// could not write, and report success for the rest.
    fn flush_and_commit(&mut self) -> dm::IoResult {
        let staged = self.writer.staged();
        let done = match self.io.pool.flush(self.io.spare) {
            Ok(()) => self
                .writer
                .commit(self.state, &mut self.io)
                .map_err(|_| BlkStatus::IOERR),
            Err(status) => {
                self.writer.forget_staged(self.state);
                Err(status)
            }
        };
        match done {
            Ok(()) => self.state.counters.auto_remaps.add(staged as u64),
            // What was to replace them did not make it.
            Err(_) => self.forget_retired(),
        }
        done
    }

    /// Gives back slots that failed or were to be replaced, to be found out again.
    fn forget_retired(&mut self) {
        while let Some(slot) = self.scratch.retired.pop() {
            self.writer.give_back(self.state, slot);
        }
    }

    /// Marks slots as bad, in a commit of their own (M5).
    fn retire(&mut self) {
        for slot in &self.scratch.retired {
            let staged = self.writer.stage_retirement(self.state, *slot);
            if staged.is_err() {
                break;
            }
            self.state.counters.spare_write_errors.add(1);
        }
        // If this fails, loading finds two claims and frees the older, and the slot fails again
        // when it is written.
        if self.writer.commit(self.state, &mut self.io).is_err() {
            self.writer.note_older_claims();
        }
    }

    /// Finds slots, in need those that are only set aside.
    fn take_slots(&mut self, want: u32) -> Result<SlotRun, BlkStatus> {
        match self.writer.take_slots(self.state, &mut self.io, want) {
            Ok(run) => return Ok(run),
            Err(error) if error != ENOSPC => return Err(self.error_for_bio()),
            Err(_) => (),
        }
        // Taking one away is a commit, which takes along what is staged.
        self.flush_and_commit()?;
        self.writer
            .steal_slot(self.state, &mut self.io)
            .map_err(|_| {
                self.state.complain("no free slot is left");
                self.error_for_bio()
            })
    }

    /// Reads what can be read, and notes the rest as lost.
    fn read(&mut self) -> dm::IoResult {
        let mut status = Ok(());
        let mut at = 0;
        while at < self.blocks() {
            let main_block = self.first().saturating_add(u64::from(at));
            let left = self.blocks().saturating_sub(at).min(CHUNK_BLOCKS);
            let run = self.state.run(main_block, left);
            if matches!(run.kind, RunKind::Doubt) {
                self.settle(main_block)?;
                continue;
            }
            let part = self.read_run(run.kind, main_block, at, run.count);
            status = status.and(part);
            at = at.saturating_add(run.count);
        }
        if !self.scratch.lost.is_empty() && !self.proof_of_life() {
            self.scratch.lost.clear();
        }
        status
    }

    fn read_run(&mut self, kind: RunKind, main_block: u64, at: u32, count: u32) -> dm::IoResult {
        let mut status = Ok(());
        let mut search = Bisect::new(count).ok_or(BlkStatus::INVAL)?;
        while let Some(part) = search.next_try() {
            let result = self.read_part(kind, main_block, at, part);
            let good = self.judge(Operation::Read, kind, result)?;
            if !good && part.count == 1 {
                self.note_lost(kind, main_block.saturating_add(u64::from(part.first)));
                status = status.and(result);
            }
            search.report(good);
        }
        status
    }

    /// Reads a part of a run that starts at block `at` of the bio. A single block is tried several
    /// times.
    fn read_part(
        &mut self,
        kind: RunKind,
        main_block: u64,
        at: u32,
        part: Segment,
    ) -> dm::IoResult {
        let (device, sector) = self.place(kind, main_block);
        let retries = match part.count {
            1 => self.bio.target().settings.read_retries,
            _ => 0,
        };
        let read = || {
            self.io.pool.read_slice(
                self.bio,
                self.bytes(at.saturating_add(part.first)),
                self.bytes(part.count),
                &device,
                sector.saturating_add(u64::from(self.state.sectors(part.first))),
            )
        };
        let mut result = read();
        for _ in 0..retries {
            if result.is_ok() {
                break;
            }
            result = read();
        }
        result
    }

    fn note_lost(&mut self, kind: RunKind, main_block: u64) {
        match kind {
            RunKind::Slots { .. } => self.state.counters.spare_read_errors.add(1),
            RunKind::Main if self.state.auto_remap.load(Relaxed) => {
                // What finds no room is found out again by the next read.
                let _ = push(&mut self.scratch.lost, main_block);
            }
            _ => (),
        }
    }

    /// Whether an I/O succeeded. Fails with its status if the medium is not to blame.
    fn judge(
        &mut self,
        operation: Operation,
        kind: RunKind,
        result: dm::IoResult,
    ) -> Result<bool, BlkStatus> {
        match result {
            Ok(()) => {
                self.main_alive |= !matches!(kind, RunKind::Slots { .. });
                Ok(true)
            }
            Err(status) => {
                self.error = status;
                if is_suspect(operation, status) {
                    Ok(false)
                } else {
                    Err(status)
                }
            }
        }
    }

    /// Whether main still works as such (E2).
    fn proof_of_life(&mut self) -> bool {
        if !self.main_alive {
            let suspects = Blocks {
                first: self.first(),
                count: u64::from(self.blocks()),
            };
            self.main_alive = probe::is_alive(self.bio.target(), suspects, self.probe);
        }
        self.main_alive && self.main.sectors() >= self.bio.target().main_sectors
    }

    fn settle(&mut self, main_block: u64) -> dm::IoResult {
        if !self.writer.active {
            return Err(BlkStatus::IOERR);
        }
        self.writer
            .settle(self.state, &mut self.io, main_block)
            .map_err(|_| BlkStatus::IOERR)
    }

    /// Where a run lies.
    fn place(&self, kind: RunKind, main_block: u64) -> (dm::Device, u64) {
        match kind {
            RunKind::Slots { first } => (self.io.spare.clone(), self.state.slot_sector(first)),
            _ => (self.main.clone(), self.state.sector_of(main_block)),
        }
    }

    /// The error that the bio fails with if there is no better one.
    fn error_for_bio(&self) -> BlkStatus {
        match self.error {
            BlkStatus::OK => BlkStatus::IOERR,
            status => status,
        }
    }

    fn bytes(&self, blocks: u32) -> u32 {
        self.state.bytes(blocks)
    }
}

/// Adds to a list that was made large enough.
fn push<T>(list: &mut KVec<T>, value: T) -> dm::IoResult {
    list.push_within_capacity(value)
        .map_err(|_| BlkStatus::RESOURCE)
}
