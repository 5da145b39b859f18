// SPDX-License-Identifier: GPL-2.0

//! Making the next blocks of a void replica again ([`Metadata::begin_rebuild`]): what the other one has, byte by byte,
//! then a flush. With the last of them the replica counts, which the superblocks say next.
//!
//! Others wait meanwhile, so a go ends after [`WRITES_MAX`] writes. Where a write of several fails, a go ends before it, or
//! does nothing but these, one by one.

use super::{
    super::{
        super::format::BlockId,
        metadata::Rebuild,
        step::{
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
        REBUILD_BLOCKS_MAX,
        RUN_BLOCKS_MAX, //
    },
    Flush,
    Job, //
};

/// How many writes there are in one go, so that with reading before and after them these are no more I/Os than others
/// can wait for: with the flush, and a pass over all superblock copies at the end, 64 (M9a).
const WRITES_MAX: u32 = REBUILD_BLOCKS_MAX / RUN_BLOCKS_MAX;

/// Blocks that a void replica gets from the other one.
#[derive(Debug)]
pub(in super::super) struct Part {
    member: u8,
    replica: u8,
    from: u32,
    next: u32,
    to: u32,
    write: Option<TableWrite>,
    /// Whether blocks are written by themselves, as a write of several has failed.
    apart: bool,
    /// How many more writes there can be.
    writes: u32,
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
            from: next,
            next,
            to,
            write: None,
            apart: false,
            writes: WRITES_MAX,
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
        let most = match self.apart {
            true => 1,
            false => self.to.saturating_sub(block),
        };
        let new = || match run_length(metadata, id, replica, most, true) {
            1 => TableWrite::new(id, replica, Way::InPlace, false),
            count => TableWrite::of_several(id, count, replica),
        };
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
        let beyond = self.next.saturating_add(write.count());
        match write.absorb(metadata, good)? {
            Progress::Written => {
                self.write = None;
                self.next = beyond;
                self.writes = self.writes.saturating_sub(1);
                if self.writes == 0 {
                    self.to = self.to.min(beyond);
                }
            }
            Progress::Apart => {
                self.write = None;
                // What was written before it is made durable; otherwise it is the whole go.
                self.apart = self.next == self.from;
                self.to = match self.apart {
                    true => beyond,
                    false => self.next,
                };
            }
            _ => (),
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
