// SPDX-License-Identifier: GPL-2.0

//! Moving blocks of main to slots: whatever the reason, it is done here.
//!
//! The order is P3's: data to the slots, flush, commit, publish. The caller has the blocks' range at
//! the desk, so that nobody else changes where they are served from. Only the commit is made under
//! the writer's lock; data goes to slots that are held for it meanwhile. From the flush on, one does it for all
//! who have come as far ([`commit`]):
//!
//! ```text
//!   take slots (lock)    write data  |  flush    stage, commit, publish (lock)    retire (lock)
//!        ^                   |       |
//!        +--- a slot fails --+       |  together
//! ```
//!
//! The left part is [`Relocation::place`], the right one [`Relocation::commit`]. A bio's repairer places part by part, and
//! commits once (P13): what is moved is listed block by block, but what was placed is listed as runs.
//!
//! What follows when a slot fails is decided by `logic/repair/place.rs`, and done in [`place`].
//!
//! A crash before the commit leaves the old state, and slots that nobody knows of.
//!
//! Who has the writer's lock may wait for a spare that hangs. So a bio waits for it no longer than it can be
//! held (P10), and fails then; the slots that it had are given back by whoever has the lock next. It waits as long
//! for room in the map, if the others that fail at the same time have taken that.
//!
//! The flush or the commit may find out that a spare is gone, with the data that it has just taken: that goes
//! to others then, in the same way, before the caller acknowledges anything ([`Relocation::run`], or the repair machine).

mod commit;
mod place;

pub(in crate::remap) use commit::Request;

use core::ops::Range;

use kernel::prelude::*;

use crate::{
    abstractions::{
        block::{
            self,
            BlkStatus, //
        },
        dm, //
    },
    logic::{
        commit::{
            COMMIT_BLOCKS_MAX,
            RUN_BLOCKS_MAX, //
        },
        event::Event,
        format::table_block::ENTRIES,
        message::Blocks,
        repair::{
            Placing,
            BATCH_BLOCKS,
            CHUNK_BLOCKS, //
        },
        slot::Origin, //
    },
    remap::{
        health::life::{
            Life,
            SpareTickets, //
        },
        meta::writer::STAGED_MAX,
        path::{
            size::BlockSize,
            state::PathState, //
        },
        session::state::State,
        setup::spares::Spares,
        DmRemap, //
    }, //
};

/// A block of a bio or another source, by its number from the first one on, with a mark. There are many lists of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::remap) struct ListedBlock(u32);

impl ListedBlock {
    const MARK: u32 = 1 << 31;

    /// One that is not marked. No source has as many blocks as would reach the mark.
    pub(in crate::remap) const fn new(index: u32) -> Self {
        Self(index & !Self::MARK)
    }

    /// The same one, marked if `mark` says so, or if it was before.
    pub(in crate::remap) const fn mark_if(self, mark: bool) -> Self {
        match mark {
            true => Self(self.0 | Self::MARK),
            false => self,
        }
    }

    pub(in crate::remap) const fn is_marked(self) -> bool {
        self.0 & Self::MARK != 0
    }

    pub(in crate::remap) const fn index(self) -> u32 {
        self.0 & !Self::MARK
    }

    /// The block of main that it is, if that of the first one is `first`.
    pub(in crate::remap) const fn of_main(self, first: u64) -> u64 {
        first.saturating_add(self.index() as u64)
    }
}

/// Which blocks of main a source stands for; their ranges are the caller's.
#[derive(Clone, Copy)]
pub(in crate::remap) enum Own<'a> {
    /// Those that follow each other.
    Range(Blocks),
    /// Any. None of them has a slot that is set aside for another one of them.
    List(&'a [u64]),
}

impl Own<'_> {
    /// The block of main that one of the source is.
    fn main_block(&self, block: ListedBlock) -> u64 {
        match self {
            Own::Range(blocks) => block.of_main(blocks.first),
            // Whoever lists a block has it in the list.
            Own::List(blocks) => (blocks.get(block.index() as usize).copied()).unwrap_or(u64::MAX),
        }
    }

    /// The range, if it is one.
    fn range(&self) -> Option<Blocks> {
        match self {
            Own::Range(blocks) => Some(*blocks),
            Own::List(_) => None,
        }
    }
}

/// Blocks whose data is on slots of a member. Both follow each other. If there are several, they had no slot before.
#[derive(Clone, Copy)]
struct Placed {
    main_block: u64,
    slot: u32,
    count: u32,
}

impl Placed {
    fn slots(self) -> Range<u32> {
        self.slot..self.slot.saturating_add(self.count)
    }

    fn has(&self, main_block: u64) -> bool {
        main_block.wrapping_sub(self.main_block) < u64::from(self.count)
    }

    /// How many blocks these are.
    fn blocks(all: &[Self]) -> usize {
        let counts = all.iter().map(|placed| placed.count as usize);
        counts.fold(0, usize::saturating_add)
    }
}

/// Lists that it takes, made beforehand: there may be no memory then.
pub(in crate::remap) struct Lists {
    /// Blocks that have to go to slots.
    pub(in crate::remap) moves: KVec<ListedBlock>,
    /// Those of them that have none so far, and those that are just being written; marked if the slot that was set
    /// aside for it failed.
    queue: KVec<ListedBlock>,
    filling: KBox<Filling>,
    placed: KVec<Placed>,
    /// Slots that failed, or that are replaced.
    retired: KVec<u32>,
    /// Blocks that cannot be read: from their slots if they are marked, else from main.
    pub(in crate::remap) unreadable: KVec<ListedBlock>,
    /// Blocks of main that could only be read after several tries.
    pub(in crate::remap) weak: KVec<ListedBlock>,
}

impl Lists {
    /// Makes the lists.
    pub(in crate::remap) fn new() -> Result<Self> {
        Ok(Self {
            moves: KVec::with_capacity(MOVES_MAX, GFP_KERNEL)?,
            queue: KVec::with_capacity(QUEUE_MAX, GFP_KERNEL)?,
            filling: new_filling()?,
            placed: KVec::with_capacity(PLACED_MAX, GFP_KERNEL)?,
            retired: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            unreadable: KVec::with_capacity(STAGED_MAX, GFP_KERNEL)?,
            weak: KVec::with_capacity(WEAK_MAX, GFP_KERNEL)?,
        })
    }

    /// Begins with nothing.
    pub(in crate::remap) fn begin(&mut self) {
        self.moves.clear();
        self.unreadable.clear();
        self.weak.clear();
        *self.filling = Filling::new();
    }

    /// Whether as many blocks as are moved at a time can be placed before there is a commit.
    pub(in crate::remap) fn has_room(&self) -> bool {
        let runs = self.placed.len().saturating_add(MOVES_MAX);
        let blocks = Placed::blocks(&self.placed).saturating_add(MOVES_MAX);
        // What was committed is still listed.
        let empty = self.filling.tickets.is_none();
        empty || runs <= PLACED_MAX && blocks <= BATCH_BLOCKS as usize
    }

    /// The blocks of main that cannot be read, from their slots or from main, if that of the first one of the bio
    /// is `first`.
    pub(in crate::remap) fn unreadable_blocks(
        &self,
        first: u64,
        from_slots: bool,
    ) -> impl Iterator<Item = u64> + '_ {
        let blocks = self.unreadable.iter();
        let blocks = blocks.filter(move |block| block.is_marked() == from_slots);
        blocks.map(move |block| block.of_main(first))
    }
}

/// How far slots are filled.
struct Filling {
    /// What is written next.
    placing: Placing<BlkStatus>,
    /// How many flushes had failed before what is placed was written; none if nothing was since the last commit.
    tickets: Option<SpareTickets>,
}

impl Filling {
    fn new() -> Self {
        Self {
            placing: Placing::new(u64::MAX, MOVES_MAX),
            tickets: None,
        }
    }
}

/// By itself, so that its stack is not that of all who make lists.
#[inline(never)]
fn new_filling() -> Result<KBox<Filling>> {
    Ok(KBox::new(Filling::new(), GFP_KERNEL)?)
}

/// How many blocks are moved at a time.
const MOVES_MAX: usize = CHUNK_BLOCKS as usize;

/// How many runs of slots are made durable at a time, so that their changes fit into one commit with room for what bad
/// slots add.
pub(in crate::remap) const PLACED_MAX: usize = STAGED_MAX / 2;

/// As many as there are moves, and all of those that are being written once more at its end.
const QUEUE_MAX: usize = 2 * MOVES_MAX;

/// How many weak blocks of one bio are moved; the others will be found again.
const WEAK_MAX: usize = 64;

// Of a part each block may be a run, and another part has to have room beside those before it.
const _: () = assert!(2 * MOVES_MAX <= PLACED_MAX);

// The entries of a MiB fit into one commit, wherever they begin, in three writes for each replica (P13).
const _: () = {
    let table_blocks = BATCH_BLOCKS.div_ceil(ENTRIES) + 1;
    assert!(table_blocks as usize <= COMMIT_BLOCKS_MAX);
    assert!(table_blocks <= 3 * RUN_BLOCKS_MAX);
};

/// Adds to a list that was made large enough.
pub(in crate::remap) fn push<T>(list: &mut KVec<T>, value: T) -> block::IoResult {
    list.push_within_capacity(value)
        .map_err(|_| BlkStatus::RESOURCE)
}

/// Where data comes from.
#[derive(Clone, Copy)]
pub(in crate::remap) enum Source<'a> {
    /// A write.
    Bio(&'a dm::OwnedBio<DmRemap>),
    /// What was read before.
    Buffer(&'a block::IoBuffer),
    /// There is none: zeroes are written, as many as these at a time.
    Zeroes(&'a block::IoBuffer),
}

impl Source<'_> {
    /// Where a block is in it, in bytes. Zeroes have no data, and may be longer.
    pub(in crate::remap) fn offset(&self, size: BlockSize, block: u32) -> u32 {
        match self {
            Source::Zeroes(_) => 0,
            _ => size.bytes(block),
        }
    }

    /// Writes `bytes` from byte `offset` of the source on to `sector` of a device. Waits for it.
    pub(in crate::remap) fn write(
        &self,
        pool: &block::BioPool,
        (offset, bytes): (u32, u32),
        device: &dm::Device,
        sector: u64,
        opf: block::Opf,
    ) -> block::IoResult {
        match self {
            Source::Bio(bio) => pool.write_slice(bio, offset, bytes, device, sector, opf),
            Source::Buffer(buffer) => {
                let start = offset as usize;
                let end = start.saturating_add(bytes as usize);
                pool.write(device, sector, buffer.slice(start..end)?, opf)
            }
            Source::Zeroes(zeroes) => {
                let mut done = 0usize;
                while done < bytes as usize {
                    let step = zeroes.len().min((bytes as usize).saturating_sub(done));
                    let at = sector.saturating_add(done as u64 >> 9);
                    pool.write(device, at, zeroes.slice(0..step)?, opf)?;
                    done = done.saturating_add(step);
                }
                Ok(())
            }
        }
    }
}

/// Moves what is in `lists.moves`.
pub(in crate::remap) struct Relocation<'a> {
    pub(in crate::remap) state: &'a State,
    pub(in crate::remap) spares: &'a Spares,
    pub(in crate::remap) lists: &'a mut Lists,
    pub(in crate::remap) source: Source<'a>,
    pub(in crate::remap) own: Own<'a>,
    pub(in crate::remap) origin: Origin,
    /// What the blocks fail with if they cannot be moved.
    pub(in crate::remap) error: BlkStatus,
    /// When to give up, in milliseconds.
    pub(in crate::remap) deadline: u64,
    /// Until when others are waited for who have the writer's lock, or the room in the map.
    pub(in crate::remap) patience: u64,
    /// Whose map is enlarged if there is no room in it.
    pub(in crate::remap) target: Option<&'a DmRemap>,
    /// Whether this is to find out whether the spare works again.
    pub(in crate::remap) probes: bool,
    /// Whether the slots that served the blocks before are in order, and are just left.
    pub(in crate::remap) leaves: bool,
    /// Whether the user gives up what the blocks held.
    pub(in crate::remap) gives_up: bool,
    /// Whether everything has to be done once more.
    pub(in crate::remap) in_vain: bool,
    /// Whether the caller can tell users; if not, whoever comes next does.
    pub(in crate::remap) tells: bool,
    /// Whether something happened that users wait for.
    pub(in crate::remap) tell: bool,
}

impl<'a> Relocation<'a> {
    pub(in crate::remap) fn new(
        state: &'a State,
        spares: &'a Spares,
        lists: &'a mut Lists,
        (source, own): (Source<'a>, Own<'a>),
        origin: Origin,
        error: BlkStatus,
    ) -> Self {
        Self {
            state,
            spares,
            lists,
            source,
            own,
            origin,
            error,
            deadline: u64::MAX,
            patience: u64::MAX,
            target: None,
            probes: false,
            leaves: false,
            gives_up: false,
            in_vain: false,
            tells: true,
            tell: false,
        }
    }

    /// Moves the blocks. Returns how many were moved; after an error, it may have been some.
    pub(in crate::remap) fn run(&mut self) -> Result<usize, BlkStatus> {
        *self.lists.filling = Filling::new();
        let mut done = 0usize;
        loop {
            let placed = self.place();
            // What was placed is complete in itself, even if the rest found no place.
            let committed = self.commit();
            done = done.saturating_add(committed.unwrap_or(0));
            if !self.in_vain {
                return placed.and(committed).map(|_| done);
            }
            // Once more, to others.
            if committed.is_ok() {
                self.leave_out_placed();
            }
        }
    }

    /// Brings the data of all moves to slots, beside what is there since the last commit. After an error some are.
    #[inline(always)]
    pub(in crate::remap) fn place(&mut self) -> block::IoResult {
        if self.lists.moves.is_empty() {
            return Ok(());
        }
        if !self.probes && !self.state.life.admits_to_spares(self.spares) {
            return Err(self.error);
        }
        if self.lists.filling.tickets.is_none() {
            self.lists.placed.clear();
            self.lists.retired.clear();
            self.lists.filling.tickets = Some(self.state.life.spares_sent());
        }
        self.lists.filling.placing.set_deadline(self.deadline);
        // Whoever sent the data to main gets to know what main said.
        self.place_moves().map_err(|_| self.error)
    }

    /// Makes durable what was placed, and has it serve. Returns how many blocks that are, but for those on spares that are
    /// lost: `in_vain` tells whether there are some, or may be after an error.
    pub(in crate::remap) fn commit(&mut self) -> Result<usize, BlkStatus> {
        self.in_vain = false;
        let Some(tickets) = self.lists.filling.tickets.take() else {
            return Ok(0);
        };
        let committed = self.commit_placed(&tickets);
        self.lists.filling.placing.end_batch();
        if let (Ok(count @ 1..), Some(first)) = (committed, self.lists.placed.first()) {
            let State { user, path, .. } = self.state;
            let sector = path.size.sector_of(first.main_block);
            match self.origin {
                Origin::Auto => user.report(Event::Remap, count, sector),
                // Whoever asked for it knows.
                Origin::Manual => user.log_blocks(Event::Remap, count, sector),
            }
        }
        committed.map_err(|_| self.error)
    }

    /// Leaves out the moves that were committed to spares which are there.
    fn leave_out_placed(&mut self) {
        let (state, own) = (self.state, self.own);
        let Lists { moves, placed, .. } = &mut *self.lists;
        let is_done = |block: &ListedBlock| {
            let (mut placed, main_block) = (placed.iter(), own.main_block(*block));
            let own = placed.find(|placed| placed.has(main_block));
            own.is_some_and(|placed| !is_lost(&state.path, &state.life, placed.slot))
        };
        moves.retain(|block| !is_done(block));
    }

    /// Whether the set goes on without one of the spares that have taken data.
    fn find_gone(&self) -> bool {
        let state = self.state;
        let gone = state.with_writer_by(self.patience, self.spares, |writer, io| {
            let mut spares = self.spares.named(self.lists.filling.placing.written());
            spares.any(|(member, _)| writer.lose_if_gone(io, member))
        });
        gone.unwrap_or(false)
    }
}

/// Whether a slot that failed is bad, as far as its spare is known to work.
fn is_to_blame(path: &PathState, life: &Life, slot: u32) -> bool {
    let member = path.member_of(slot);
    member.is_some_and(|member| life.blames_slots(member))
}

/// Whether the set goes on without the spare of a slot.
fn is_lost(path: &PathState, life: &Life, slot: u32) -> bool {
    let member = path.member_of(slot);
    member.is_some_and(|member| life.is_lost(member))
}
