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

mod read;
mod slots;

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
use crate::logic::bisect::Bisect;
use crate::logic::bisect::Segment;
use crate::logic::classify::Operation;
use crate::logic::message::Blocks;
use crate::logic::slot::Origin;
use crate::logic::slot::SlotWord;
use crate::logic::slot::State as SlotState;
use crate::logic::table::RunKind;
use kernel::prelude::*;

/// How many blocks of a bio are served at a time, so that their changes fit into one commit with
/// room for what bad slots add.
const CHUNK_BLOCKS: u32 = STAGED_MAX as u32 / 2;

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
        self.bio.target_sector() >> self.state.block_shift
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
