// SPDX-License-Identifier: GPL-2.0

//! What operations are for. Each job says which table blocks are written next, and what if that is not possible.
//!
//! | job                             | what it writes                                             | in place | where no place is left |
//! |---------------------------------|------------------------------------------------------------|----------|------------------------|
//! | [`Commit`]                      | entries, to one replica after the other, FUA (M1)          | unless it is the only copy | the replica is written off, unless it has the only good copy of another block |
//! | [`Extend`]                      | empty blocks, to both; then a flush, and the high-water mark (M8) | yes | the same |
//! | [`Rewrite`]                     | what loading chose, to the other replica, FUA (M3)         | yes      | the same; if it has one, this block is left to the first commit |
//! | [`Part`] of a rebuild           | what the other replica has, to a void one; then a flush (M9a) | yes   | that fails, and the replica stays void |
//! | none                            | nothing but the superblocks                                |          |                        |

mod commit;
mod extend;
mod rebuild;
mod rewrite;

use self::{
    commit::Commit,
    extend::Extend,
    rebuild::Part,
    rewrite::Rewrite, //
};
use super::{
    super::format::member_bit,
    step::{
        Failure,
        Step, //
    },
    Metadata,
    Op, //
};

/// What an operation is for.
// There is one at a time, on the stack, and no memory for what is larger than the others.
#[expect(clippy::large_enum_variant)]
#[derive(Debug)]
pub(super) enum Job<'a> {
    Commit(Commit<'a>),
    Extend(Extend),
    Rewrite(Rewrite),
    Rebuild(Part),
    /// Nothing but the superblocks.
    Sync,
}

impl Job<'_> {
    /// The next step; none if there is none before the superblocks have been written, or none at all if these are not
    /// stale.
    pub(super) fn next(&mut self, metadata: &mut Metadata) -> Result<Option<Step>, Failure> {
        match self {
            Job::Commit(job) => job.next(metadata),
            Job::Extend(job) => job.next(metadata),
            Job::Rewrite(job) => job.next(metadata),
            Job::Rebuild(job) => job.next(metadata),
            Job::Sync => Ok(None),
        }
    }

    /// The last step went well; or it did not, and the medium is to blame.
    pub(super) fn absorb(
        &mut self,
        metadata: &mut Metadata,
        step: Step,
        good: bool,
    ) -> Result<(), Failure> {
        match self {
            Job::Commit(job) => job.absorb(metadata, good),
            Job::Extend(job) => job.absorb(metadata, step, good),
            Job::Rewrite(job) => job.absorb(metadata, good),
            Job::Rebuild(job) => job.absorb(metadata, step, good),
            Job::Sync => Ok(()),
        }
    }

    /// Goes on without a member whose spare fails as a whole (M9); or fails, if the job cannot.
    pub(super) fn go_without(
        &mut self,
        metadata: &mut Metadata,
        member: u8,
    ) -> Result<(), Failure> {
        match self {
            Job::Commit(job) => job.go_without(metadata, member),
            Job::Extend(job) => job.go_without(metadata, member),
            // While loading makes replicas equal, either of them may have the only good copy of blocks
            // that nobody has asked to be written yet.
            Job::Rewrite(_) => Err(Failure::Device),
            // There is no replica left that it could be for, or to copy from.
            Job::Rebuild(_) => metadata.lose_member(member).and(Err(Failure::Device)),
            Job::Sync => metadata.lose_member(member),
        }
    }

    /// Leaves behind what the next operation has to know, as this one fails.
    pub(super) fn failed(&mut self, metadata: &mut Metadata) {
        match self {
            Job::Commit(job) => job.failed(metadata),
            Job::Extend(job) => job.failed(metadata),
            Job::Rewrite(_) | Job::Rebuild(_) | Job::Sync => (),
        }
    }

    /// Whether a write was issued that carries the caller's changes.
    pub(super) fn is_issued(&self) -> bool {
        matches!(self, Job::Commit(job) if job.is_issued())
    }

    pub(super) fn succeeded(&mut self, metadata: &mut Metadata) {
        if let Job::Commit(_) = self {
            let statistics = &mut metadata.superblock.statistics;
            statistics.saves_done = statistics.saves_done.saturating_add(1);
        }
    }
}

impl Metadata {
    /// Writes the superblock to every live copy.
    pub fn sync(&mut self) -> Op<'_> {
        self.stale = true;
        Op::new(self, Job::Sync, true, false)
    }
}

/// Makes what was written without FUA durable.
#[derive(Debug)]
enum Flush {
    /// Not yet: blocks are still being written.
    Later,
    /// The members that are still to be flushed; a bit each.
    Now(u8),
    /// It is.
    Done,
}

impl Flush {
    /// The next step, of flushing the spares that hold these replicas of a member's table, a bit each.
    fn next(&mut self, metadata: &Metadata, member: u8, replicas: u8) -> Option<Step> {
        if let Flush::Later = self {
            let areas = metadata.superblock.member(member).map(|m| m.areas);
            let areas = areas.iter().flatten().zip(0u8..);
            let hosts = areas.filter(|(_, replica)| replicas & (1 << replica) != 0);
            let hosts = hosts.fold(0, |mask, (area, _)| mask | member_bit(area.host));
            *self = Flush::Now(hosts);
        }
        let Flush::Now(left) = self else {
            return None;
        };
        // At most 7.
        let member = left.trailing_zeros() as u8;
        (*left != 0).then_some(Step::Flush { member })
    }

    /// A member was flushed, or there is none any more. Returns whether it was the last one.
    fn forget(&mut self, member: u8) -> bool {
        let Flush::Now(left) = self else {
            return false;
        };
        *left &= !member_bit(member);
        let last = *left == 0;
        if last {
            *self = Flush::Done;
        }
        last
    }
}
