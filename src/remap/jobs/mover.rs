// SPDX-License-Identifier: GPL-2.0

//! Moving blocks that did not fail, because a user says so: to the spare, and back.
//!
//! The content is copied, and a write must not get lost in between. So writes to the range are kept
//! out, and those that are under way are waited for, before anything is read (E3):
//!
//! ```text
//!   to the spare                          back to main (M7)
//!   take the range, close the gate, drain take the range, close the gate, drain
//!   read main                             read the slot
//!   write slots, flush                    write main, flush, read main and compare
//!   commit: the slots are valid           commit: the slots are free
//!   publish                               unpublish
//!   open the gate                         open the gate
//!                                         drain: nobody is on the way to the slots; they can be used
//! ```
//!
//! Main is read again behind the flush: before, its cache can answer, which proves nothing (M7a).
//!
//! Reads go on all the time: both places have the same content whenever a reader can be sent to
//! either. A crash leaves the block where it was or where it was to go, with the same content.
//!
//! A block that cannot be read may take seconds. So each part is read before the gate is closed, too,
//! and only what could be read then is read again behind it.
//!
//! All of this runs in the context of a message: process context, which may sleep, and holds what a
//! suspend waits for. [`state`](crate::remap::session::state) has the order of locks.

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
        classify::Operation,
        desk::MOVING_MAX,
        format::{
            member_bit,
            MEMBERS_MAX, //
        },
        message::{
            reply::Tally,
            Blocks,
            Denial, //
        },
        pool::state::PoolEvent,
        repair::Found,
        slot::{
            Origin,
            SlotState,
            SlotWord, //
        },
        table::RunKind, //
    },
    remap::{
        health::{
            life::Disk,
            probe, //
        },
        meta::{
            io::{
                is_suspect,
                read_twice,
                read_twice_into, //
            },
            state::MetaState,
            writer::{
                Publish,
                Writer,
                STAGED_MAX, //
            }, //
        },
        path::{
            size::BlockSize,
            state::PathState, //
        },
        repair::relocate::{
            push,
            ListedBlock,
            Lists,
            Own,
            Relocation,
            Source, //
        },
        session::state::State,
        setup::spares::Spares,
        DmRemap, //
    }, //
};

use super::{
    closed::Closed,
    state::JobsState, //
};

/// Bytes that are copied at a time.
const DATA_BYTES: usize = 64 * 1024;

/// What one who moves blocks needs, and no other has meanwhile.
pub(in crate::remap) struct MoverBuffers {
    pub(super) lists: Lists,
    /// The blocks of a part, each in its own place.
    pub(super) data: block::IoBuffer,
    /// What main has of a part, to compare.
    check: block::IoBuffer,
    /// What was copied back, at most one for each block of a part.
    copied: KVec<Copied>,
    /// Slots that were freed, one for each block of a part.
    freed: KVec<u32>,
}

impl MoverBuffers {
    pub(in crate::remap) fn new() -> Result<Self> {
        Ok(Self {
            lists: Lists::new()?,
            data: block::IoBuffer::new(DATA_BYTES, GFP_KERNEL)?,
            check: block::IoBuffer::new(DATA_BYTES, GFP_KERNEL)?,
            copied: KVec::with_capacity(DATA_BYTES >> 9, GFP_KERNEL)?,
            freed: KVec::with_capacity(DATA_BYTES >> 9, GFP_KERNEL)?,
        })
    }
}

/// Slots that were left, and are held until nobody is on the way to them.
struct Left {
    slots: [u32; MOVING_MAX],
    count: usize,
    /// From the next activation on, they may be somebody else's.
    activation: u64,
}

impl Left {
    const NONE: Self = Self {
        slots: [0; MOVING_MAX],
        count: 0,
        activation: 0,
    };

    fn add(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(self.count) {
            *place = slot;
            self.count = self.count.saturating_add(1);
        }
    }

    /// Gives them back if nobody is on the way to them, or else has the next activation do so. The caller has the
    /// mover's lock, so that there is none meanwhile.
    fn give_back(&mut self, meta: &MetaState, path: &PathState, drained: bool) {
        let mut locked = meta.writer.lock();
        let writer = &mut locked.writer;
        for slot in self.slots.iter().take(self.count) {
            // It may still serve its block, or claim it.
            if drained && path.is_held(*slot) && writer.activation() == self.activation {
                writer.give_back(path, *slot);
            }
        }
        self.count = 0;
    }
}

/// Blocks that main serves again once their slots are free. Both follow each other.
#[derive(Clone, Copy)]
struct Copied {
    main_block: u64,
    slot: u32,
    count: u32,
    /// How many blocks of the part come before them.
    before: u64,
    /// Whether main had to take their content, which is at their place in the buffer: of what cannot be read,
    /// nobody knows it.
    has_content: bool,
}

/// Copies blocks of main to the spare and serves them from there. However it ends, `total` tells what was done, and
/// `next` which block comes next.
pub(in crate::remap) fn to_spare(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    total: &mut Tally,
    next: &mut u64,
) -> Result {
    in_parts(target, ti, blocks, next, |mover, part| {
        mover.copy_to_spare(part, total)
    })
}

/// Copies blocks back to main and serves them from there. Stops at the first that fails. However it ends, `total` tells
/// what was done, and `next` which block comes next.
pub(in crate::remap) fn to_main(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    total: &mut Tally,
    next: &mut u64,
) -> Result {
    in_parts(target, ti, blocks, next, |mover, part| {
        mover.copy_back(&[part], total)
    })
}

/// Copies all blocks back to main. Those that main cannot take stay on the spare. However it ends, `total` tells what was
/// done.
pub(in crate::remap) fn all_to_main(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    total: &mut Tally,
) -> Result {
    // Also where there is nothing to do.
    target.check_active(ti)?;
    let mut slot = 0;
    loop {
        let before = slot;
        let part = next_runs(target, &mut slot);
        let runs = part.ranges();
        if runs.is_empty() {
            return Ok(());
        }
        if runs.len() > 1 {
            let all = runs.iter().map(|run| run.count).sum::<u64>();
            match in_part(target, ti, |mover| mover.copy_back(runs, total)) {
                Err(error) if is_media(error) => (),
                copied => {
                    if copied? < all {
                        // It had to end. The rest comes again, and what is free by now is passed over.
                        slot = before;
                    }
                    continue;
                }
            }
        }
        // One after the other: slots that are free by now are passed over.
        slot = before;
        for _ in runs {
            if let Some(run) = next_run(target, &mut slot) {
                one_run_to_main(target, ti, run, total)?;
            }
        }
    }
}

/// Blocks that are moved together, wherever they lie.
struct Part {
    ranges: [Blocks; MOVING_MAX],
    count: usize,
    /// How many more blocks go into it.
    left: u64,
}

impl Part {
    fn new(size: BlockSize) -> Self {
        Self {
            ranges: [Blocks { first: 0, count: 1 }; MOVING_MAX],
            count: 0,
            left: part_blocks(size),
        }
    }

    fn ranges(&self) -> &[Blocks] {
        self.ranges.get(..self.count).unwrap_or(&[])
    }

    fn is_full(&self) -> bool {
        self.left == 0 || self.count == MOVING_MAX
    }

    /// Adds a range. False if there is no room for it.
    fn add(&mut self, range: Blocks) -> bool {
        let Some(left) = self.left.checked_sub(range.count) else {
            return false;
        };
        let Some(place) = self.ranges.get_mut(self.count) else {
            return false;
        };
        *place = range;
        (self.count, self.left) = (self.count.saturating_add(1), left);
        true
    }
}

/// The next runs of blocks that slots from `slot` on claim, as many as make a part.
fn next_runs(target: &DmRemap, slot: &mut u32) -> Part {
    let mut part = Part::new(target.state.path.size);
    while !part.is_full() {
        let from = *slot;
        let Some(mut run) = next_run(target, slot) else {
            break;
        };
        let known = || part.ranges().iter();
        if known().any(|known| run.first.wrapping_sub(known.first) < known.count) {
            continue;
        }
        for known in known().filter(|known| known.first > run.first) {
            run.count = run.count.min(known.first.saturating_sub(run.first));
        }
        if !part.add(run) {
            // It is in the next part.
            *slot = from;
            break;
        }
    }
    part
}

/// The blocks that the next slot from `slot` on claims, and those behind it that are served in the same way.
fn next_run(target: &DmRemap, slot: &mut u32) -> Option<Blocks> {
    let state = &**target.state;
    loop {
        let (at, word) = state.path.next_claim(u8::MAX, *slot)?;
        *slot = at.saturating_add(1);
        let main_block = word.main_block();
        if main_block >= target.len >> state.path.size.shift {
            // Beyond a table that was shortened: not ours to decide.
            continue;
        }
        let most = u32::try_from(part_blocks(state.path.size)).unwrap_or(u32::MAX);
        return Some(Blocks {
            first: main_block,
            count: u64::from(state.path.run(main_block, most).count),
        });
    }
}

/// Copies a run back. A block that main cannot take, or that cannot be read, is counted.
fn one_run_to_main(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    run: Blocks,
    total: &mut Tally,
) -> Result {
    let before = total.moved;
    let mut next = run.first;
    let moved = in_parts(target, ti, run, &mut next, |mover, part| {
        mover.copy_back(&[part], &mut *total)
    });
    match moved {
        Err(error) if is_media(error) => {
            // Only the first of a run is behind us; the others come again.
            if total.moved == before {
                total.failed = total.failed.saturating_add(1);
            }
            Ok(())
        }
        other => other,
    }
}

/// Moves all blocks that the slots of a member serve to other members, so that its spare can be taken
/// out. Those that cannot be read stay. From then on it takes no new ones, unless that fails. However it ends, `total`
/// tells what was done.
pub(in crate::remap) fn evacuate(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    member: u8,
    total: &mut Tally,
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    target.check_active(ti)?;
    let mut locked = state.meta.writer.lock();
    let writer = &mut locked.writer;
    writer.check_open(&state.user)?;
    writer.end_rest(&state.user);
    let mut others = (0..MEMBERS_MAX).filter(|index| *index != member);
    if !others.any(|index| writer.gives_slots(index)) {
        return Err(Denial::LastSpare { spare: member });
    }
    let blocks = writer.claims(member);
    let room = writer.slots_beside(member);
    if blocks > room {
        return Err(Denial::NoRoom {
            spare: member,
            blocks,
            room,
        });
    }
    let was_idle = writer.pool_state(member).is_idle();
    writer.change_pool(&state.user, member, PoolEvent::Empty);
    drop(locked);
    let moved = move_away(target, ti, member, total);
    if moved.is_err() && !was_idle {
        let mut locked = state.meta.writer.lock();
        locked
            .writer
            .change_pool(&state.user, member, PoolEvent::Fill);
    }
    Ok(moved?)
}

fn move_away(target: &DmRemap, ti: &dm::TargetInfo, member: u8, total: &mut Tally) -> Result {
    let state = &**target.state;
    target.grow(None)?;
    let mut left = Left::NONE;
    let moved = move_claims(target, ti, member, &mut left, total);
    if left.count != 0 {
        let _mover = state.jobs.mover.lock();
        let stop = |waited| waited >= DRAIN_MS;
        let drained = state.path.readers().synchronize_unless(stop);
        left.give_back(&state.meta, &state.path, drained);
    }
    moved?;
    // What could not be retired at once still counts as a block of the member.
    let _mover = state.jobs.mover.lock();
    target.check_active(ti)?;
    retire_older_claims(state, &target.spares)
}

/// Sees to it that no slot claims a block that another one serves. Others get the writer's lock between its steps. For
/// who has the mover's lock.
fn retire_older_claims(state: &State, spares: &Spares) -> Result {
    while state.with_writer(spares, |writer, io| {
        writer.retire_older_claims(&state.path, &state.repair, io)
    })? {
        if state.jobs.must_stop() {
            return Err(EINTR);
        }
        state.meta.let_others_write();
    }
    Ok(())
}

/// How often is tried to find no older claims behind the gate.
const CLOSE_TRIES: u32 = 8;

/// Closes the gate for some blocks while no slot claims one that another one serves.
fn close<'a>(state: &'a State, spares: &Spares, blocks: &[Blocks]) -> Result<Closed<'a>> {
    for _ in 0..CLOSE_TRIES {
        retire_older_claims(state, spares)?;
        let closed = Closed::wait(&state.path, &state.repair, &state.jobs, blocks)?;
        // Repairs may have left some meanwhile. They are not looked for here, where users' writes wait.
        if !state.with_writer(spares, |writer, _| writer.has_older_claims()) {
            return Ok(closed);
        }
    }
    Err(EBUSY)
}

/// Moves some blocks after the others. The slots that were left last are in `left`, however it ends.
fn move_claims(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    member: u8,
    left: &mut Left,
    total: &mut Tally,
) -> Result {
    let mut slot = 0;
    loop {
        let part = next_blocks(target, member, &mut slot);
        let blocks = part.ranges();
        if blocks.is_empty() {
            return Ok(());
        }
        let mut move_blocks = |blocks: &[Blocks]| {
            in_part(target, ti, |mover| mover.leave_member(blocks, member, left))
        };
        // As many of the rest at a time as go together.
        let (mut rest, mut step) = (blocks, blocks.len());
        while !rest.is_empty() {
            let part = rest.get(..step.min(rest.len())).unwrap_or(rest);
            let (done, failed) = match move_blocks(part) {
                Err(error) if is_media(error) && part.len() > 1 => {
                    // Each by itself, then. Those that were moved are passed over.
                    step = 1;
                    continue;
                }
                Err(error) if is_media(error) => (1, 1),
                moved => moved?,
            };
            total.moved = total.moved.saturating_add(done.saturating_sub(failed));
            total.failed = total.failed.saturating_add(failed);
            rest = rest.get(done as usize..).unwrap_or(&[]);
        }
    }
}

/// The next blocks that slots of a member from `slot` on claim, as many as make a part.
fn next_blocks(target: &DmRemap, member: u8, slot: &mut u32) -> Part {
    let mut part = Part::new(target.state.path.size);
    while !part.is_full() {
        let Some((at, word)) = target.state.path.next_claim(member_bit(member), *slot) else {
            break;
        };
        *slot = at.saturating_add(1);
        part.add(Blocks {
            first: word.main_block(),
            count: 1,
        });
    }
    part
}

/// Whether an error of a block says nothing about others.
fn is_media(error: Error) -> bool {
    error == EIO || error == to_error(BlkStatus::MEDIUM) || error == to_error(BlkStatus::TARGET)
}

/// Serves blocks of main from slots that hold what they are to hold already. However it ends, `total` tells what was
/// done.
pub(in crate::remap) fn redirect(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    (member, first_slot): (u8, u32),
    total: &mut Tally,
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    let count = u32::try_from(blocks.count).map_err(|_| ERANGE)?;
    let slot_of = |main_block: u64| {
        // The range has less than 2^32 blocks, and its slots were checked to exist.
        first_slot.saturating_add(main_block.saturating_sub(blocks.first) as u32)
    };
    // Refuse what can be refused before anything is done.
    let last = first_slot.saturating_add(count.saturating_sub(1));
    target.check_active(ti)?;
    if state.life.is_lost(member) {
        return Err(Denial::SpareLost { spare: member });
    }
    let mut checked = false;
    loop {
        let ready = state.with_writer(&target.spares, |writer, io| {
            if !writer.active {
                // Suspended meanwhile: nothing is written then.
                return Err(Denial::Suspended);
            }
            if !checked {
                check_redirect(target, writer, blocks, member, slot_of)?;
                checked = true;
            }
            Ok(writer.extend_towards(&state.path, io, member, last))
        })?;
        match ready {
            Ok(true) => break,
            Ok(false) => (),
            Err(error) if error == ENOMEM => target.grow(Some((member, last)))?,
            Err(error) => return Err(error.into()),
        }
        if state.jobs.must_stop() {
            return Err(EINTR.into());
        }
        state.meta.let_others_write();
    }
    // Nothing is copied, so a part is what goes into one commit.
    let step = STAGED_MAX as u64;
    let mut next = blocks.first;
    in_parts_of(step, target, ti, blocks, &mut next, |_, part| {
        let _closed = Closed::wait(&state.path, &state.repair, &state.jobs, &[part])?;
        // What the slots hold may be in the spare's cache.
        let tickets = state.life.spares_sent();
        state
            .life
            .flush_spares(
                &state.user,
                &state.pool,
                (&target.spares, member_bit(member)),
                &tickets,
            )
            .map_err(to_error)?;
        state.with_writer(&target.spares, |writer, io| {
            check_redirect(target, writer, part, member, slot_of)?;
            for main_block in part.first..part.first.saturating_add(part.count) {
                let slot = slot_of(main_block);
                let slot = state
                    .path
                    .with_map(|map| map.extents().number(member, slot));
                let slot = slot.ok_or(ERANGE)?;
                let taken = writer.take_slot(&state.path, slot);
                let staged = taken.and_then(|()| {
                    let word = SlotWord::new(main_block, SlotState::Valid, Origin::Manual);
                    let word = word.ok_or(ERANGE)?.with_raw();
                    writer.stage(&state.user, &state.path, slot, word, Publish::Insert)
                });
                if staged.is_err() {
                    if taken.is_ok() {
                        writer.give_back(&state.path, slot);
                    }
                    writer.forget_staged(&state.path);
                    return Ok(staged?);
                }
            }
            Ok::<_, Denial<'static>>(writer.commit(&state.path, &state.repair, io)?)
        })?;
        state.user.counters.manual_remaps.add(part.count);
        total.moved = total.moved.saturating_add(part.count);
        Ok(part.count)
    })
}

/// Checks that blocks are served by main and that their slots are free.
fn check_redirect(
    target: &DmRemap,
    writer: &Writer,
    blocks: Blocks,
    member: u8,
    slot_of: impl Fn(u64) -> u32,
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    for main_block in blocks.first..blocks.first.saturating_add(blocks.count) {
        if state.path.slot_of(main_block).is_some() {
            return Err(Denial::HasSlot {
                sector: state.path.size.sector_of(main_block),
            });
        }
        let slot = slot_of(main_block);
        if !writer.is_free(&state.path, member, slot) {
            let sector = |slot| writer.slot_sector(&target.spares, member, slot);
            let count = u32::try_from(blocks.count).unwrap_or(u32::MAX);
            let first = writer.next_free(&state.path, member, slot, count);
            let free = first.and_then(|first| {
                let end = sector(first)?.checked_add(blocks.count << state.path.size.shift)?;
                Some((sector(first)?, end.saturating_sub(1)))
            });
            return Err(Denial::NotFree {
                sector: sector(slot).unwrap_or(0),
                free,
            });
        }
    }
    Ok(())
}

/// Does a part of the range at a time, each with the lock taken and the gate closed anew: whoever
/// waits for these waits for one part. `work` tells how many blocks it has done. Ends early if the
/// device is to be suspended (E8) or the caller was interrupted; what was moved by then stays moved. However it ends,
/// `next` tells which block comes next.
pub(super) fn in_parts(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    next: &mut u64,
    work: impl FnMut(&mut Mover<'_>, Blocks) -> Result<u64>,
) -> Result {
    in_parts_of(
        part_blocks(target.state.path.size),
        target,
        ti,
        blocks,
        next,
        work,
    )
}

/// How many blocks are moved at a time.
fn part_blocks(size: BlockSize) -> u64 {
    (DATA_BYTES >> 9 >> size.shift) as u64
}

/// The same, of `step` blocks.
fn in_parts_of<E: From<Error>>(
    step: u64,
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
    next: &mut u64,
    mut work: impl FnMut(&mut Mover<'_>, Blocks) -> Result<u64, E>,
) -> Result<(), E> {
    let end = blocks.first.saturating_add(blocks.count);
    *next = blocks.first;
    while *next < end {
        let part = Blocks {
            first: *next,
            count: step.min(end.saturating_sub(*next)),
        };
        let done = in_part(target, ti, |mover| work(mover, part))?;
        *next = next.saturating_add(done);
    }
    Ok(())
}

/// Does one part.
pub(super) fn in_part<R, E: From<Error>>(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    work: impl FnOnce(&mut Mover<'_>) -> Result<R, E>,
) -> Result<R, E> {
    let state = &**target.state;
    // A repairer that needs the lock cannot wait for it, and so has to be let in.
    while state.jobs.probing.load(Relaxed) != 0 && !state.jobs.must_stop() {
        fsleep(Delta::from_millis(1));
    }
    // A suspend that has come past this waits for the mover's lock.
    let mut tools = state.jobs.mover.lock();
    target.check_active(ti)?;
    if state.jobs.must_stop() {
        return Err(EINTR.into());
    }
    let mut mover = Mover {
        target,
        state,
        tools: &mut tools,
        bytes: state.path.size.bytes(1) as usize,
        tries: 2,
    };
    let done = work(&mut mover)?;
    drop(tools);
    target.tell_news();
    // Here memory can be waited for.
    target.grow(None)?;
    Ok(done)
}

/// One who has the mover's lock.
pub(super) struct Mover<'a> {
    pub(super) target: &'a DmRemap,
    pub(super) state: &'a State,
    pub(super) tools: &'a mut MoverBuffers,
    /// Bytes of a block.
    pub(super) bytes: usize,
    /// How often a block that cannot be read is tried before that is believed, at least twice.
    pub(super) tries: u32,
}

impl Mover<'_> {
    /// Copies the first blocks of a part, as far as they are of a kind, and returns how many these
    /// are.
    pub(super) fn copy_to_spare(&mut self, part: Blocks, tally: &mut Tally) -> Result<u64> {
        let state = self.state;
        let count = u32::try_from(part.count).map_err(|_| ERANGE)?;
        let run = state.path.run(part.first, count);
        let count = match run.kind {
            RunKind::Slots { .. } | RunKind::Failing { .. } | RunKind::Lost { .. } => {
                tally.there = tally.there.saturating_add(u64::from(run.count));
                return Ok(u64::from(run.count));
            }
            RunKind::Doubt => {
                self.settle(part.first)?;
                return Ok(0);
            }
            RunKind::Avoided => {
                // Nobody asks main.
                tally.failed = tally.failed.saturating_add(u64::from(run.count));
                return Ok(u64::from(run.count));
            }
            RunKind::Main => run.count,
            // Each has a slot already, so they are of no use together.
            RunKind::Pending { .. } => 1,
        };
        let readable = self.readable(part.first, count)?;
        if readable == 0 {
            // It took its time, so the part ends with it.
            self.note_unreadable(part.first)?;
            tally.failed = tally.failed.saturating_add(1);
            return Ok(1);
        }
        let blocks = Blocks {
            first: part.first,
            count: u64::from(readable),
        };
        let _closed = Closed::wait(&state.path, &state.repair, &state.jobs, &[blocks])?;
        let now = state.path.run(blocks.first, readable);
        if now.kind != run.kind || now.count < readable {
            // A write was faster, and some of them are on the spare already.
            return Ok(0);
        }
        let sector = state.path.size.sector_of(blocks.first);
        let bytes = self.bytes.saturating_mul(readable as usize);
        let (main, spares) = (&self.target.main, &self.target.spares);
        read_twice(&state.pool, main, sector, &mut self.tools.data, bytes).map_err(to_error)?;
        let lists = &mut self.tools.lists;
        lists.moves.clear();
        for index in 0..readable {
            push(&mut lists.moves, ListedBlock::new(index)).map_err(to_error)?;
        }
        let source = Source::Buffer(&self.tools.data);
        let error = BlkStatus::IOERR;
        let mut relocation = Relocation::new(
            state,
            spares,
            lists,
            (source, Own::Range(blocks)),
            Origin::Manual,
            error,
        );
        // That is done after each part.
        relocation.tells = false;
        let moved = relocation.run();
        let moved = moved.map_err(|_| self.why())? as u64;
        state.user.counters.manual_remaps.add(moved);
        tally.moved = tally.moved.saturating_add(moved);
        Ok(blocks.count)
    }

    /// Why blocks could not be moved to the spare: there was no time, it has no slot left, or it failed.
    pub(super) fn why(&self) -> Error {
        if self.state.jobs.must_stop() {
            EINTR
        } else if self.state.meta.writer.lock().writer.slots_left() == 0 {
            ENOSPC
        } else {
            EIO
        }
    }

    /// How many blocks from `first` on main can read, of `count`.
    pub(super) fn readable(&mut self, first: u64, count: u32) -> Result<u32> {
        let state = self.state;
        let main = &self.target.main;
        let tries = self.tries;
        let bytes = self.bytes.saturating_mul(count as usize);
        let data = &mut self.tools.data;
        let all = read_twice(
            &state.pool,
            main,
            state.path.size.sector_of(first),
            data,
            bytes,
        );
        if all.is_ok() {
            return Ok(count);
        }
        for index in 0..count {
            let block = first.saturating_add(u64::from(index));
            let sector = state.path.size.sector_of(block);
            let bytes = self.bytes;
            let Err(status) =
                read_often(&state.jobs, &state.pool, (main, sector), data, bytes, tries)
            else {
                continue;
            };
            let suspect = Blocks {
                first: block,
                count: 1,
            };
            let deadline = util::monotonic_ms().saturating_add(PROBE_MS);
            if !is_suspect(Operation::Read, status)
                || probe::can_read(self.target, suspect, deadline, data) != Found::Alive
            {
                return Err(to_error(status));
            }
            return Ok(index);
        }
        Ok(count)
    }

    /// Sets a slot aside for a block that main cannot read, unless there is one.
    fn note_unreadable(&mut self, main_block: u64) -> Result {
        let state = self.state;
        let block = Blocks {
            first: main_block,
            count: 1,
        };
        let _closed = Closed::wait(&state.path, &state.repair, &state.jobs, &[block])?;
        if state.path.slot_of(main_block).is_some() {
            return Ok(());
        }
        state.with_writer(&self.target.spares, |writer, io| {
            // It may have been noted, and nobody had its range before.
            if state.path.slot_of(main_block).is_some() {
                return Ok(());
            }
            writer.set_aside(&state.path, &state.repair, io, main_block, Origin::Manual)?;
            writer.commit(&state.path, &state.repair, io)
        })
    }

    fn settle(&self, main_block: u64) -> Result {
        let state = self.state;
        state.with_writer(&self.target.spares, |writer, io| {
            writer.settle(&state.path, &state.repair, io, main_block)
        })
    }

    /// Copies the blocks of a part back, and returns how many are done. It has at most [`MOVING_MAX`] ranges, and no
    /// more blocks than fit into the buffer.
    fn copy_back(&mut self, part: &[Blocks], tally: &mut Tally) -> Result<u64> {
        let state = self.state;
        let (main, spares) = (&self.target.main, &self.target.spares);
        if let [range] = part {
            let count = u32::try_from(range.count).map_err(|_| ERANGE)?;
            let run = state.path.run(range.first, count);
            if run.kind == RunKind::Main {
                // Nothing to do for these.
                tally.there = tally.there.saturating_add(u64::from(run.count));
                return Ok(u64::from(run.count));
            }
        }
        let closed = close(state, spares, part)?;
        let ticket = state.life.flush_sent(Disk::Main);
        self.tools.copied.clear();
        self.tools.freed.clear();
        let (mut done, mut result) = (0u64, Ok(()));
        let begun = util::monotonic_ms();
        for range in part {
            if done != 0 && is_over(begun) {
                break;
            }
            result = self.copy_range_back(*range, &mut done);
            if result.is_err() {
                break;
            }
        }
        state
            .life
            .flush(&state.user, &state.pool, (Disk::Main, main), ticket)
            .map_err(to_error)?;
        // What was copied before an error may be committed, as far as main has it.
        let mut moved = 0u64;
        for index in 0..self.tools.copied.len() {
            let Some(copied) = self.tools.copied.get(index).copied() else {
                break;
            };
            let (good, compared) = self.compare(&copied);
            for slot in copied.slot..copied.slot.saturating_add(good) {
                let freed = &mut self.tools.freed;
                freed.push_within_capacity(slot).map_err(|_| ENOMEM)?;
            }
            if copied.has_content {
                moved = moved.saturating_add(u64::from(good));
            }
            if compared.is_err() {
                done = copied.before.saturating_add(u64::from(good));
                result = compared;
                break;
            }
        }
        let freed = &self.tools.freed;
        let committed = state.with_writer(spares, |writer, io| {
            let staged = freed.iter().try_for_each(|slot| {
                let main_block = state.path.with_map(|map| map.word(*slot)).main_block();
                writer.stage(
                    &state.user,
                    &state.path,
                    *slot,
                    SlotWord::FREE,
                    Publish::Remove(main_block),
                )
            });
            if staged.is_err() {
                writer.forget_staged(&state.path);
                return staged;
            }
            writer.commit(&state.path, &state.repair, io)
        });
        // Those that still serve may become something else once the gate is open.
        self.tools.freed.retain(|slot| state.path.is_held(*slot));
        // Writes go to main again, and must not wait for what follows.
        drop(closed);
        // Nobody is on the way to these slots when the readers are gone. If that takes too long for who has to
        // stop, the slots are given out no more until the next activation.
        let stop = |waited| waited >= DRAIN_MS && state.jobs.must_stop();
        let drained = state.path.readers().synchronize_unless(stop);
        if drained {
            let mut locked = state.meta.writer.lock();
            for slot in &self.tools.freed {
                locked.writer.give_back(&state.path, *slot);
            }
        }
        committed?;
        tally.moved = tally.moved.saturating_add(moved);
        // Main serves the others, if perhaps by an error.
        let there = done.saturating_sub(moved);
        tally.there = tally.there.saturating_add(there);
        result?;
        Ok(done)
    }

    /// Moves blocks, each a range, from the slots of a member that serve them to others. `left` are the slots that were
    /// left before, if any, and then theirs. Returns how many of them are done, at least one, and how many of these
    /// cannot be read and stay.
    fn leave_member(
        &mut self,
        blocks: &[Blocks],
        member: u8,
        left: &mut Left,
    ) -> Result<(u64, u64)> {
        let state = self.state;
        let spares = &self.target.spares;
        let _closed = close(state, spares, blocks)?;
        // Who was on the way to them is done by now.
        left.give_back(&state.meta, &state.path, true);
        left.activation = state.meta.writer.lock().writer.activation();
        let (mut sources, mut slots, mut count) = ([0u64; MOVING_MAX], [0u32; MOVING_MAX], 0usize);
        self.tools.lists.moves.clear();
        let (mut done, mut failed, mut ends) = (0u64, 0u64, Ok(()));
        let begun = util::monotonic_ms();
        for block in blocks {
            if state.jobs.must_stop() {
                ends = Err(EINTR);
                break;
            }
            if done != 0 && is_over(begun) {
                break;
            }
            done = done.saturating_add(1);
            let main_block = block.first;
            self.settle(main_block)?;
            let Some((slot, word)) = state.path.slot_of(main_block) else {
                continue;
            };
            // A repair may have moved it while claims were looked for, so that it was found twice.
            let known = sources.iter().take(count).any(|known| *known == main_block);
            if known || state.path.member_of(slot) != Some(member) {
                continue;
            }
            if word.is_set_aside() {
                self.set_aside_elsewhere(main_block, slot, word)?;
                left.add(slot);
                continue;
            }
            let place = state.path.locate(&state.life, spares, slot, false);
            let (_, device, from) = place.ok_or(EIO)?;
            let at = count.saturating_mul(self.bytes);
            let part = at..at.saturating_add(self.bytes);
            let read = read_twice_into(&state.pool, device, from, &mut self.tools.data, part);
            match read.map_err(to_error) {
                Ok(()) => (),
                Err(error) if is_media(error) => {
                    failed = failed.saturating_add(1);
                    continue;
                }
                Err(error) => {
                    // Those before it are moved all the same.
                    ends = Err(error);
                    break;
                }
            }
            push(&mut self.tools.lists.moves, ListedBlock::new(count as u32)).map_err(to_error)?;
            if let Some((source, from)) = sources.get_mut(count).zip(slots.get_mut(count)) {
                (*source, *from) = (main_block, slot);
            }
            count = count.saturating_add(1);
        }
        let sources = sources.get(..count).unwrap_or(&[]);
        let (source, own) = (Source::Buffer(&self.tools.data), Own::List(sources));
        let lists = &mut self.tools.lists;
        // Each keeps its own origin.
        let (origin, error) = (Origin::Manual, BlkStatus::IOERR);
        let mut relocation = Relocation::new(state, spares, lists, (source, own), origin, error);
        relocation.tells = false;
        relocation.leaves = true;
        let moved = relocation.run();
        for (source, slot) in sources.iter().zip(slots) {
            // Where it serves still, others may leave it later, and that is not ours.
            if state
                .path
                .slot_of(*source)
                .is_some_and(|(now, _)| now != slot)
            {
                left.add(slot);
            }
        }
        moved.map_err(|_| self.why()).and(ends)?;
        Ok((done, failed))
    }

    /// Sets another slot aside for a block that cannot be read, and leaves the one that it has.
    fn set_aside_elsewhere(&mut self, main_block: u64, old: u32, word: SlotWord) -> Result {
        let state = self.state;
        state.with_writer(&self.target.spares, |writer, io| {
            let run = writer.take_slots(&state.path, &state.repair, io, 1)?;
            let fresh = SlotWord::new(main_block, word.state(), word.origin());
            let staged = fresh.ok_or(ERANGE).and_then(|fresh| {
                writer.stage(
                    &state.user,
                    &state.path,
                    run.first,
                    fresh,
                    Publish::Replace(old),
                )
            });
            if staged.is_err() {
                writer.give_back(&state.path, run.first);
                return staged;
            }
            writer.commit(&state.path, &state.repair, io)?;
            let retired = writer.stage_retirement(&state.user, &state.path, old, true);
            if retired
                .and_then(|()| writer.commit(&state.path, &state.repair, io))
                .is_err()
            {
                writer.note_older_claims();
            }
            Ok(())
        })
    }

    /// Copies the blocks of a range to main, as far as slots serve them. `done` are those of the part that are.
    fn copy_range_back(&mut self, range: Blocks, done: &mut u64) -> Result {
        let state = self.state;
        let before = *done;
        while !state.jobs.must_stop() {
            let behind = done.saturating_sub(before);
            let left = range.count.saturating_sub(behind);
            if left == 0 {
                break;
            }
            let main_block = range.first.saturating_add(behind);
            let run = state
                .path
                .run(main_block, u32::try_from(left).map_err(|_| ERANGE)?);
            let copied = match run.kind {
                RunKind::Main => run.count,
                // Where that fails, it is seen block by block for which.
                RunKind::Slots { first: slot }
                    if run.count > 1
                        && self
                            .copy_run_back(*done, main_block, slot, run.count)
                            .is_ok() =>
                {
                    run.count
                }
                _ => {
                    let beyond = done.saturating_add(u64::from(run.count));
                    while *done < beyond && !state.jobs.must_stop() {
                        let behind = done.saturating_sub(before);
                        self.copy_one_back(*done, range.first.saturating_add(behind))?;
                        *done = done.saturating_add(1);
                    }
                    0
                }
            };
            *done = done.saturating_add(u64::from(copied));
        }
        Ok(())
    }

    /// Copies a block to main, if a slot serves it; `before` are in the part before it.
    fn copy_one_back(&mut self, before: u64, main_block: u64) -> Result {
        self.settle(main_block)?;
        match self.state.path.slot_of(main_block) {
            None => Ok(()),
            Some((slot, word)) if word.state() == SlotState::Pending => self.note_copied(Copied {
                main_block,
                slot,
                count: 1,
                before,
                has_content: false,
            }),
            // Main would show what it had before.
            Some((_, word)) if word.state() == SlotState::Lost => Err(EIO),
            Some((slot, _)) => self.copy_run_back(before, main_block, slot, 1),
        }
    }

    /// Copies blocks to main that are served by slots which follow each other; `before` are in the part before
    /// them. If that fails, nothing is noted.
    fn copy_run_back(&mut self, before: u64, main_block: u64, slot: u32, count: u32) -> Result {
        let state = self.state;
        let (main, to) = (&self.target.main, state.path.size.sector_of(main_block));
        // Numbers that follow each other may be of two members.
        let others = count.saturating_sub(1);
        let start = state.path.slot_place(slot).ok_or(EIO)?;
        let last = state
            .path
            .slot_place(slot.saturating_add(others))
            .ok_or(EIO)?;
        let sectors = u64::from(state.path.size.sectors(others));
        if start.member != last.member || last.sector.checked_sub(start.sector) != Some(sectors) {
            return Err(EIO);
        }
        let place = state
            .path
            .locate(&state.life, &self.target.spares, slot, false);
        let (_, spare, from) = place.ok_or(EIO)?;
        if state.path.is_avoided(main_block, u64::from(count)) {
            state.user.complain(
                "main is not asked whether it takes back what avoid names: use retry first",
            );
            return Err(EIO);
        }
        let (pool, bytes) = (&state.pool, self.bytes);
        // A part is no larger than the buffer.
        let at = (before as usize).saturating_mul(bytes);
        let place = at..at.saturating_add(bytes.saturating_mul(count as usize));
        let data = &mut self.tools.data;
        read_twice_into(pool, spare, from, data, place.clone()).map_err(to_error)?;
        // It is flushed with the others of the part.
        let opf = block::Opf::WRITE.sync();
        pool.write(main, to, data.slice(place)?, opf)
            .map_err(to_error)?;
        self.note_copied(Copied {
            main_block,
            slot,
            count,
            before,
            has_content: true,
        })
    }

    fn note_copied(&mut self, next: Copied) -> Result {
        let copied = &mut self.tools.copied;
        copied.push_within_capacity(next).map_err(|_| ENOMEM)
    }

    /// How many blocks main has of those that were copied there and flushed, up to the first that it
    /// has not.
    fn compare(&mut self, copied: &Copied) -> (u32, Result) {
        if !copied.has_content {
            return (copied.count, Ok(()));
        }
        let at = (copied.before as usize).saturating_mul(self.bytes);
        if self
            .compare_run(copied.main_block, at, copied.count)
            .is_ok()
        {
            return (copied.count, Ok(()));
        }
        for index in 0..copied.count {
            let main_block = copied.main_block.saturating_add(u64::from(index));
            let at = at.saturating_add((index as usize).saturating_mul(self.bytes));
            if let Err(error) = self.compare_run(main_block, at, 1) {
                return (index, Err(error));
            }
        }
        (copied.count, Ok(()))
    }

    /// Checks that main has what is at a place of the buffer.
    fn compare_run(&mut self, main_block: u64, at: usize, count: u32) -> Result {
        let state = self.state;
        let bytes = self.bytes.saturating_mul(count as usize);
        let sector = state.path.size.sector_of(main_block);
        let (data, check) = (&self.tools.data, &mut self.tools.check);
        read_twice(&state.pool, &self.target.main, sector, check, bytes).map_err(to_error)?;
        let written = data.as_slice().get(at..at.saturating_add(bytes));
        if written.is_some() && check.as_slice().get(..bytes) == written {
            Ok(())
        } else {
            Err(EIO)
        }
    }
}

/// Reads a block into the start of `data`, and again as often as `tries` says, at least twice, until that works. If it is to
/// come to an end meanwhile, that is [`BlkStatus::AGAIN`], which says nothing of the medium.
pub(super) fn read_often(
    jobs: &JobsState,
    pool: &block::BioPool,
    (device, sector): (&dm::Device, u64),
    data: &mut block::IoBuffer,
    bytes: usize,
    tries: u32,
) -> block::IoResult {
    let mut result = read_twice(pool, device, sector, data, bytes);
    for _ in 2..tries {
        if result.is_ok() {
            break;
        }
        if jobs.must_stop() {
            return Err(BlkStatus::AGAIN);
        }
        let slice = data.slice_mut(0..bytes)?;
        result = pool.read(device, sector, slice, block::Opf::READ.sync());
    }
    result
}

/// How long bios that may be on their way to slots are waited for by all means, in milliseconds.
const DRAIN_MS: u64 = 200;

/// Whether a part that has begun then is to take no more blocks: users' writes wait for it, and who wants to suspend.
pub(super) fn is_over(begun: u64) -> bool {
    util::monotonic_ms().saturating_sub(begun) > PART_MS
}

/// How long a part takes more blocks, in milliseconds.
const PART_MS: u64 = 50;

/// How long it may take to find out whether main works, in milliseconds.
const PROBE_MS: u64 = 10_000;

pub(super) fn to_error(status: BlkStatus) -> Error {
    Error::from_errno(status.to_errno())
}
