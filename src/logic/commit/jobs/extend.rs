// SPDX-License-Identifier: GPL-2.0

//! Initialising more blocks of a member's slot table (M8): empty in each live replica, flushed, and then the high-water
//! mark is raised. A crash before that leaves blocks behind the mark, which say that they are empty.

use super::{
    super::{
        super::format::{
            BlockId,
            Member,
            REPLICAS, //
        },
        step::{
            Content,
            Failure,
            Step, //
        },
        table_write::{
            run_length,
            Progress,
            TableWrite,
            Way, //
        },
        Metadata,
        Op,
        EXTEND_BLOCKS_MAX, //
    },
    Flush,
    Job, //
};

/// Blocks that are being initialised.
#[derive(Debug)]
pub(in super::super) struct Extend {
    member: u8,
    from: u32,
    to: u32,
    /// The replica and the block that are next: all blocks in one, then all in the other.
    at: (u8, u32),
    write: Option<TableWrite>,
    /// Blocks of that replica before this one are written by themselves, as a write of several has failed.
    apart_to: u32,
    /// Sequence of the blocks.
    sequence: Option<u64>,
    flush: Flush,
}

impl Metadata {
    /// Initialises the next `blocks` blocks of a member's slot table, or what is left of it, and
    /// raises the high-water mark over them.
    pub fn extend(&mut self, member: u8, blocks: u32) -> Op<'_> {
        let table = self.superblock.member(member);
        let from = table.map_or(0, |table| table.high_water);
        let to = from
            .saturating_add(blocks.min(EXTEND_BLOCKS_MAX))
            .min(table.map_or(0, Member::table_blocks));
        let legal = to > from && self.is_usable(member) && self.live_replicas(member) != 0;
        let job = Extend {
            member,
            from,
            to,
            at: (0, from),
            write: None,
            apart_to: from,
            sequence: None,
            flush: Flush::Later,
        };
        Op::new(self, Job::Extend(job), legal, true)
    }
}

impl Extend {
    pub(super) fn next(&mut self, metadata: &mut Metadata) -> Result<Option<Step>, Failure> {
        let Some((replica, block)) = self.next_target(metadata) else {
            let live = metadata.live_replicas(self.member);
            return Ok(self.flush.next(metadata, self.member, live));
        };
        let member = self.member;
        let id = BlockId { member, block };
        let most = match block < self.apart_to {
            true => 1,
            false => self.to.saturating_sub(block),
        };
        let new = || match run_length(metadata, id, replica, most, false) {
            1 => TableWrite::new(id, replica, Way::InPlace, false),
            count => TableWrite::of_several(id, count, replica),
        };
        let write = self.write.get_or_insert_with(new);
        if let Some(place) = write.place(metadata) {
            let sequence = match self.sequence {
                Some(sequence) => sequence,
                None => metadata.next_sequence()?,
            };
            self.sequence = Some(sequence);
            let content = Content::Empty { sequence };
            return Ok(Some(write.step(metadata, place, content, false)));
        }
        if metadata.unsettled.needs(replica, member) {
            return Err(Failure::NoPlace);
        }
        let step = write.write_off(metadata)?;
        if step.is_none() {
            self.write = None;
        }
        Ok(step)
    }

    fn next_target(&mut self, metadata: &Metadata) -> Option<(u8, u32)> {
        loop {
            let (replica, block) = self.at;
            if replica == REPLICAS {
                return None;
            }
            if block < self.to && metadata.replica_lives(replica, self.member) {
                return Some(self.at);
            }
            self.at = (replica + 1, self.from);
            self.apart_to = self.from;
        }
    }

    pub(super) fn absorb(
        &mut self,
        metadata: &mut Metadata,
        step: Step,
        good: bool,
    ) -> Result<(), Failure> {
        if let Step::Flush { member } = step {
            self.flushed(metadata, member);
            return Ok(());
        }
        let write = self.write.as_mut().ok_or(Failure::Blocks)?;
        let (replica, block) = self.at;
        let beyond = block.saturating_add(write.count());
        match write.absorb(metadata, good)? {
            Progress::More => Ok(()),
            Progress::Written => {
                self.write = None;
                self.at = (replica, beyond);
                Ok(())
            }
            Progress::Apart => {
                self.write = None;
                self.apart_to = beyond;
                Ok(())
            }
            Progress::OtherBad(bad) => {
                metadata.unsettled.add(bad);
                Err(Failure::NoPlace)
            }
        }
    }

    /// A member was flushed, or there is none any more.
    fn flushed(&mut self, metadata: &mut Metadata, member: u8) {
        if self.flush.forget(member) {
            self.set_mark(metadata, self.to);
        }
    }

    fn set_mark(&self, metadata: &mut Metadata, high_water: u32) {
        if let Some(table) = metadata.superblock.member_mut(self.member) {
            table.high_water = high_water;
        }
        metadata.stale = true;
    }

    pub(super) fn go_without(
        &mut self,
        metadata: &mut Metadata,
        member: u8,
    ) -> Result<(), Failure> {
        metadata.lose_member(member)?;
        if member == self.member || metadata.live_replicas(self.member) == 0 {
            return Err(Failure::Device);
        }
        self.write = None;
        self.flushed(metadata, member);
        Ok(())
    }

    /// Superblock copies may say more, which does no harm: what they speak of is initialised.
    pub(super) fn failed(&mut self, metadata: &mut Metadata) {
        self.set_mark(metadata, self.from);
    }
}
