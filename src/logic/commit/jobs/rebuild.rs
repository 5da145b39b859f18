// SPDX-License-Identifier: GPL-2.0

//! Making the next blocks of a void replica again ([`Metadata::begin_rebuild`]): what the other one has, byte by byte,
//! then a flush. With the last of them the replica counts, which the superblocks say next.

use super::{
    super::{
        super::format::BlockId,
        metadata::Rebuild,
        step::{
            Failure,
            Step, //
        },
        table_write::{
            Progress,
            TableWrite,
            Way, //
        },
        Metadata,
        Op,
        REBUILD_BLOCKS_MAX, //
    },
    Flush,
    Job, //
};

/// Blocks that a void replica gets from the other one.
#[derive(Debug)]
pub(in super::super) struct Part {
    member: u8,
    replica: u8,
    next: u32,
    to: u32,
    write: Option<TableWrite>,
    flush: Flush,
}

impl Metadata {
    /// Makes the next blocks again of the replica that [`Metadata::begin_rebuild`] named; when these
    /// were the last ones, [`Metadata::rebuilding`] tells of none any more, and the replica counts.
    pub fn rebuild(&mut self) -> Op<'_> {
        let Some(Rebuild {
            member,
            replica,
            next,
        }) = self.rebuild
        else {
            return Op::new(self, Job::Sync, false, false);
        };
        let table = self.superblock.member(member);
        let mark = table.map_or(0, |table| table.high_water);
        let to = next.saturating_add(REBUILD_BLOCKS_MAX).min(mark);
        let legal = self.void_replicas().any(|void| void == (member, replica));
        let part = Part {
            member,
            replica,
            next,
            to,
            write: None,
            flush: Flush::Later,
        };
        Op::new(self, Job::Rebuild(part), legal, false)
    }
}

impl Part {
    pub(super) fn next(&mut self, metadata: &mut Metadata) -> Result<Option<Step>, Failure> {
        let (member, replica) = (self.member, self.replica);
        if self.next >= self.to {
            return Ok(self.flush.next(metadata, member, 1 << replica));
        }
        let block = self.next;
        let id = BlockId { member, block };
        let new = || TableWrite::new(id, replica, Way::InPlace, false);
        let write = self.write.get_or_insert_with(new);
        let place = write.place(metadata).ok_or(Failure::NoPlace)?;
        let content = write.copy_of_other(metadata)?;
        Ok(Some(write.step(metadata, place, content, false)))
    }

    pub(super) fn absorb(
        &mut self,
        metadata: &mut Metadata,
        step: Step,
        good: bool,
    ) -> Result<(), Failure> {
        if let Step::Flush { member } = step {
            if self.flush.forget(member) {
                self.flushed(metadata);
            }
            return Ok(());
        }
        let write = self.write.as_mut().ok_or(Failure::Blocks)?;
        if let Progress::Written = write.absorb(metadata, good)? {
            self.write = None;
            self.next = self.next.saturating_add(1);
        }
        Ok(())
    }

    fn flushed(&self, metadata: &mut Metadata) {
        let Some(table) = metadata.superblock.member_mut(self.member) else {
            return;
        };
        if self.to < table.high_water {
            if let Some(rebuild) = &mut metadata.rebuild {
                rebuild.next = self.to;
            }
            return;
        }
        // From here on it counts, also if some superblock copies are not told in this operation:
        // whatever comes next tells them before it writes anything else.
        table.void_replicas &= !(1 << self.replica);
        metadata.rebuild = None;
        metadata.stale = true;
        metadata.count_repair();
    }
}
