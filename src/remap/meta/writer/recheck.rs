// SPDX-License-Identifier: GPL-2.0

//! Reading all copies of the metadata again, and writing those anew that do not say what memory knows.
//!
//! First the superblocks, then each table, some blocks at a time. A step is a few reads or one commit, as others wait
//! for the writer's lock: no more than 64 metadata I/Os (M9a). What changes between two steps is written by a commit,
//! and so is good. A spare that does not answer is asked no more; what it has is left to whoever notices that it is
//! lost (P15).

use kernel::prelude::*;

use crate::{
    abstractions::util,
    logic::{
        format::{
            member_bit,
            table_block,
            Block,
            BlockId,
            CopyId,
            Place,
            Superblock,
            MEMBERS_MAX,
            REPLICAS,
            SUPER_COPIES, //
        },
        load::Image,
        message::reply::Tally,
        recheck::{
            self,
            Worth, //
        }, //
    },
    remap::{
        meta::io::SpareIo,
        path::state::PathState,
        repair::state::RepairState,
        user::state::UserState, //
    }, //
};

use super::{
    entries,
    Writer, //
};

/// How many table blocks are looked at in a step: two copies each, and each once more if that fails.
const BLOCKS: u32 = 16;

/// How long a step takes more of them, in milliseconds: a suspend waits for it (E8).
const STEP_MS: u64 = 50;

/// Where it is.
enum Stage {
    /// The superblocks are to be read.
    Supers,
    /// So many of them are to be written.
    Write(u32),
    /// This block of this member's table is next.
    Table(u8, u32),
}

/// How far the metadata was read again.
pub(in crate::remap) struct Recheck {
    stage: Stage,
    /// A block of which some copy is not good, and how many of them are not.
    bad: Option<(BlockId, u32)>,
    /// Members whose spares do not answer; a bit each.
    pub(in crate::remap) silent: u8,
    /// Copies: read (`there`), damaged or old (`failed`), written again (`moved`).
    pub(in crate::remap) tally: Tally,
    superblock: KBox<Superblock>,
    expected: KBox<Block>,
}

impl Recheck {
    /// Begins. Sleeps for memory.
    pub(in crate::remap) fn new() -> Result<Self> {
        Ok(Self {
            stage: Stage::Supers,
            bad: None,
            silent: 0,
            tally: Tally::default(),
            superblock: KBox::new(Superblock::EMPTY, GFP_KERNEL)?,
            expected: KBox::init(pin_init::init_zeroed(), GFP_KERNEL)?,
        })
    }

    /// Reads a copy. None if its spare does not answer.
    fn read<'a>(&mut self, io: &'a mut SpareIo<'_>, place: Place) -> Option<Image<'a>> {
        if self.silent & member_bit(place.member) != 0 {
            return None;
        }
        let image = io.read_image(place);
        if image.is_none() {
            self.silent |= member_bit(place.member);
        }
        self.tally.there = self.tally.there.saturating_add(u64::from(image.is_some()));
        image
    }
}

impl Writer {
    /// Does the next step. Returns whether there is more to do. Fails with `EMEDIUMTYPE` if somebody else has written
    /// the metadata, which is not written from then on.
    pub(in crate::remap) fn recheck(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        progress: &mut Recheck,
    ) -> Result<bool> {
        if let Some((id, copies)) = progress.bad.take() {
            // Each is read once more when it is written, as some may only seem to take it.
            io.is_careful = true;
            let written = self.commit_blocks(path, repair, io, &[id]);
            io.is_careful = false;
            written?;
            progress.count_written(copies);
            return Ok(true);
        }
        match progress.stage {
            Stage::Supers => self.recheck_supers(io, progress)?,
            Stage::Write(copies) => {
                self.sync(io)?;
                progress.count_written(copies);
                progress.stage = Stage::Table(0, 0);
            }
            Stage::Table(member, _) if member >= MEMBERS_MAX => return Ok(false),
            Stage::Table(member, block) => {
                self.recheck_table(path, io, progress, member, block)?;
            }
        }
        Ok(true)
    }

    fn recheck_supers(&mut self, io: &mut SpareIo<'_>, progress: &mut Recheck) -> Result {
        let live = self.metadata.superblock().live_supers();
        let copies = (0..MEMBERS_MAX)
            .flat_map(|member| (0..SUPER_COPIES).map(move |copy| CopyId { member, copy }));
        let mut old = 0u32;
        for id in copies.filter(|id| live & id.bit() != 0) {
            let Some(place) = self.metadata.superblock().super_place(id) else {
                continue;
            };
            let Some(image) = progress.read(io, place) else {
                continue;
            };
            match recheck::superblock(&self.metadata, id, image, &mut progress.superblock) {
                Worth::Good => (),
                Worth::Old => {
                    self.metadata.note_damaged(id);
                    old = old.saturating_add(1);
                }
                Worth::Foreign => return self.note_foreign(io.user),
            }
        }
        progress.count_old(old);
        progress.stage = match old {
            0 => Stage::Table(0, 0),
            _ => Stage::Write(old),
        };
        Ok(())
    }

    fn recheck_table(
        &mut self,
        path: &PathState,
        io: &mut SpareIo<'_>,
        progress: &mut Recheck,
        member: u8,
        first: u32,
    ) -> Result {
        let table = self.metadata.superblock().member(member);
        let end = table.map_or(0, |table| table.high_water);
        let mut until = first.saturating_add(BLOCKS).min(end);
        let begun = util::monotonic_ms();
        for block in first..until {
            if util::monotonic_ms().saturating_sub(begun) > STEP_MS {
                until = block;
                break;
            }
            let id = BlockId { member, block };
            let mut old = 0u32;
            for replica in 0..REPLICAS {
                match self.recheck_block(path, io, progress, id, replica) {
                    Some(Worth::Foreign) => return self.note_foreign(io.user),
                    Some(Worth::Old) => old = old.saturating_add(1),
                    Some(Worth::Good) | None => (),
                }
            }
            if old != 0 {
                progress.count_old(old);
                progress.bad = Some((id, old));
                progress.stage = Stage::Table(member, block.saturating_add(1));
                return Ok(());
            }
        }
        progress.stage = match until < end {
            true => Stage::Table(member, until),
            false => Stage::Table(member.saturating_add(1), 0),
        };
        Ok(())
    }

    /// What a copy of a table block is worth; none if there is none, or nobody answers.
    fn recheck_block(
        &self,
        path: &PathState,
        io: &mut SpareIo<'_>,
        progress: &mut Recheck,
        id: BlockId,
        replica: u8,
    ) -> Option<Worth> {
        let superblock = self.metadata.superblock();
        let member = superblock.member(id.member)?;
        let place = superblock.table_place(replica, id)?;
        if !member.replica_lives(replica) {
            return None;
        }
        let image = progress.read(io, place)?;
        let expected = &mut progress.expected;
        let is_known = |found: &Block, sequence| {
            path.with_map(|map| {
                let entries = entries(map, &self.generations, &[], id);
                table_block::encode(expected, &member.uuid, id.block, sequence, entries);
            });
            **expected == *found
        };
        let worth = recheck::table_block(&self.metadata, id, image, is_known);
        Some(worth)
    }

    /// Somebody else has written the metadata.
    fn note_foreign(&mut self, user: &UserState) -> Result {
        self.metadata.set_foreign();
        self.show_copies(user);
        pr_err!(
            "{}: somebody else has written the metadata: nothing is remapped any more\n",
            user.name
        );
        self.check_own()
    }
}

impl Recheck {
    fn count_old(&mut self, copies: u32) {
        self.tally.failed = self.tally.failed.saturating_add(copies.into());
    }

    fn count_written(&mut self, copies: u32) {
        self.tally.moved = self.tally.moved.saturating_add(copies.into());
    }
}
