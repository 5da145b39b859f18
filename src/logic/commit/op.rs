// SPDX-License-Identifier: GPL-2.0

//! An operation under way: from the driver's last result to its next step.

use super::{
    super::format::{
        member_bit,
        BlockId,
        CopyId,
        REPLICAS, //
    },
    metadata::Unsettled,
    step::{
        Failure,
        Fault,
        Outcome,
        Step, //
    },
    Metadata,
    ALL_REPLICAS, //
};

/// What an operation is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job<'a> {
    Commit(&'a [BlockId]),
    Extend {
        member: u8,
        from: u32,
        to: u32,
    },
    Sync,
    Rewrite {
        replica: u8,
        block: BlockId,
    },
    Rebuild {
        member: u8,
        replica: u8,
        from: u32,
        to: u32,
    },
}

/// Where in its job an operation is. Superblocks are not a stage: they are written whenever they
/// are stale, before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Rewriting what an earlier commit left behind.
    Settle,
    /// Writing the job's own table blocks.
    Main,
    /// Making initialised blocks durable.
    Flush,
    /// Nothing but the superblocks is left.
    Supers,
}

/// Where a table block is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// Where it is.
    Current,
    /// Its own place, while it is in a reserve block.
    Home,
    /// Another reserve block.
    Reserve(u8),
}

/// The step that the driver is at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pending {
    Nothing,
    Check {
        index: u32,
    },
    Table {
        replica: u8,
        index: u32,
        place: Destination,
    },
    Audit {
        replica: u8,
        block: BlockId,
    },
    Super {
        copy: CopyId,
    },
    Flush,
}

/// A block that can't stay where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    /// Whether its own place is bad, too.
    pub(super) home_bad: bool,
}

/// What the table writes of a stage came to.
pub(super) enum Next {
    Step(Step),
    /// The superblocks have to be written first.
    Supers,
    Finished,
}

/// A pass over the superblock copies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// The copies to be written; a bit each.
    pub(super) todo: u16,
}

/// An operation under way. It borrows the metadata until it is done.
#[derive(Debug)]
pub struct Op<'a> {
    pub(super) metadata: &'a mut Metadata,
    pub(super) job: Job<'a>,
    pub(super) stage: Stage,
    pub(super) pending: Pending,
    /// The member whose spare the step goes to.
    pub(super) device: u8,
    /// The members that are still to be flushed; a bit each.
    pub(super) to_flush: u8,
    pub(super) round: Option<Round>,
    /// Void superblock copies that were tried again; a bit each.
    pub(super) revived: u16,
    /// The one that is being tried.
    pub(super) reviving: Option<CopyId>,
    /// Sequence of the current stage's blocks.
    pub(super) sequence: Option<u64>,
    /// For each replica, the blocks of the current stage that it has; a bit each.
    pub(super) done: [u64; REPLICAS as usize],
    /// For each replica, the blocks of the current stage that a write was issued for; a bit each.
    pub(super) touched: [u64; REPLICAS as usize],
    /// Blocks of the current stage whose second copy was read; a bit each.
    pub(super) checked: u64,
    /// Blocks of the current stage whose second copy proved bad and is written first; a bit each.
    pub(super) swapped: u64,
    /// Blocks of the current stage that wait until the other replica has got what it lacks; a bit
    /// each.
    pub(super) put_off: u64,
    /// The block whose place just failed.
    pub(super) moving: Option<Moving>,
    /// The next block of the only other replica to be looked at before one is written off.
    pub(super) audit: u32,
    /// One that was found bad there: the next commit re-creates it.
    pub(super) audit_failed: Option<Unsettled>,
    /// Whether a write was issued that carries the caller's changes.
    pub(super) issued: bool,
    pub(super) outcome: Option<Outcome>,
}

impl<'a> Op<'a> {
    pub(super) fn new(metadata: &'a mut Metadata, job: Job<'a>) -> Self {
        let stage = match job {
            Job::Commit(_) => Stage::Settle,
            Job::Extend { .. } | Job::Rewrite { .. } | Job::Rebuild { .. } => Stage::Main,
            Job::Sync => Stage::Supers,
        };
        let read_only = metadata.superblock.is_read_only();
        let foreign = metadata.foreign;
        let op = Op {
            metadata,
            job,
            stage,
            pending: Pending::Nothing,
            device: 0,
            to_flush: 0,
            round: None,
            revived: 0,
            reviving: None,
            sequence: None,
            done: [0; REPLICAS as usize],
            touched: [0; REPLICAS as usize],
            checked: 0,
            swapped: 0,
            put_off: 0,
            moving: None,
            audit: 0,
            audit_failed: None,
            issued: false,
            outcome: None,
        };
        if foreign {
            op.refused(Failure::Foreign)
        } else if read_only {
            op.refused(Failure::ReadOnly)
        } else {
            op
        }
    }

    pub(super) fn refused(mut self, why: Failure) -> Self {
        self.outcome = Some(Outcome::Failed { issued: false, why });
        self
    }

    /// The metadata that is operated on.
    pub fn metadata(&self) -> &Metadata {
        self.metadata
    }

    /// Takes the result of the last step (of the first call, nothing) and tells the next one.
    /// After [`Step::Done`] it tells the same again.
    pub fn advance(&mut self, last: Result<(), Fault>) -> Step {
        if let Some(outcome) = self.outcome {
            return Step::Done(outcome);
        }
        let step = match self.absorb(last) {
            Ok(()) => self.next_step(),
            Err(why) => Err(why),
        };
        step.unwrap_or_else(|why| self.fail(why))
    }

    fn absorb(&mut self, last: Result<(), Fault>) -> Result<(), Failure> {
        let pending = core::mem::replace(&mut self.pending, Pending::Nothing);
        match (pending, last) {
            (Pending::Nothing, _) => Ok(()),
            (_, Err(Fault::Gone)) => self.gone(),
            (Pending::Flush, Ok(())) => {
                self.to_flush &= !member_bit(self.device);
                if self.to_flush == 0 {
                    self.flushed();
                }
                Ok(())
            }
            (Pending::Flush, Err(_)) | (_, Err(Fault::Other)) => Err(Failure::Device),
            (Pending::Check { .. } | Pending::Audit { .. }, Ok(())) => Ok(()),
            (Pending::Audit { replica, block }, Err(Fault::Media)) => {
                let failed = Unsettled {
                    block,
                    suspect: replica,
                };
                match self.job {
                    Job::Rewrite { .. } => {
                        self.metadata.leave_unsettled(failed);
                        self.leave_rewrite();
                        Ok(())
                    }
                    _ => {
                        self.audit_failed = Some(failed);
                        Err(Failure::NoPlace)
                    }
                }
            }
            (Pending::Check { index }, Err(Fault::Media)) => {
                self.swapped |= bit(index);
                Ok(())
            }
            (Pending::Super { copy }, Ok(())) => {
                self.metadata.doubtful &= !copy.bit();
                if let Some(round) = &mut self.round {
                    round.todo &= !copy.bit();
                }
                if self.reviving.take().is_some() {
                    // The others call this one void.
                    self.round = None;
                }
                Ok(())
            }
            (Pending::Super { copy }, Err(Fault::Media)) => {
                self.metadata.superblock.set_super(copy, false);
                self.metadata.count_repair();
                self.reviving = None;
                // What the pass has written so far does not know of this: begin again.
                self.round = None;
                self.metadata.raise_epoch()
            }
            (
                Pending::Table {
                    replica,
                    index,
                    place,
                },
                Ok(()),
            ) => self.table_written(replica, index, place),
            (
                Pending::Table {
                    replica,
                    index,
                    place,
                },
                Err(Fault::Media),
            ) => self.table_failed(replica, index, place),
        }
    }

    fn next_step(&mut self) -> Result<Step, Failure> {
        if self.needs_epoch() && !self.metadata.raised {
            self.metadata.raise_epoch()?;
        }
        loop {
            if let Some(step) = self.next_super()? {
                return Ok(step);
            }
            match self.stage {
                Stage::Settle | Stage::Main => match self.next_table()? {
                    Next::Step(step) => return Ok(step),
                    Next::Supers => (),
                    Next::Finished => self.next_stage(),
                },
                Stage::Flush if self.to_flush == 0 => self.stage = Stage::Supers,
                Stage::Flush => {
                    // At most 7.
                    self.device = self.to_flush.trailing_zeros() as u8;
                    self.pending = Pending::Flush;
                    return Ok(Step::Flush {
                        member: self.device,
                    });
                }
                Stage::Supers => return Ok(self.succeed()),
            }
        }
    }

    /// Whether the job writes blocks with sequence numbers of its own.
    fn needs_epoch(&self) -> bool {
        match self.job {
            Job::Commit(blocks) => !blocks.is_empty() || self.metadata.unsettled_count != 0,
            Job::Extend { .. } => true,
            Job::Sync | Job::Rewrite { .. } | Job::Rebuild { .. } => false,
        }
    }

    /// The spare that the last step went to fails as a whole: go on without it (M9).
    fn gone(&mut self) -> Result<(), Failure> {
        // While loading makes replicas equal, either of them may have the only good copy of blocks
        // that nobody has asked to be written yet.
        if matches!(self.job, Job::Rewrite { .. }) || self.is_needed(self.device) {
            return Err(Failure::Device);
        }
        if let Some(copy) = self.reviving.take() {
            self.metadata.superblock.set_super(copy, false);
        }
        self.metadata.lose_member(self.device)?;
        self.metadata.present &= !member_bit(self.device);
        self.metadata.revive &= self.metadata.reachable_supers();
        self.metadata.joining &= self.metadata.reachable_supers();
        self.to_flush &= self.metadata.present;
        // What the pass has written so far does not know of this: begin again.
        self.round = None;
        self.moving = None;
        // The next replica that is looked through is another one.
        self.audit = 0;
        match self.job {
            // There is no member or replica left that it could be for.
            Job::Extend { member, .. } if member == self.device => return Err(Failure::Device),
            Job::Rebuild { .. } => return Err(Failure::Device),
            _ => (),
        }
        if self.stage == Stage::Flush && self.to_flush == 0 {
            // It was the last one to be flushed.
            self.flushed();
        }
        Ok(())
    }

    /// Everything is flushed that was written without FUA.
    fn flushed(&mut self) {
        match self.job {
            Job::Extend { member, to, .. } => {
                if let Some(member) = self.metadata.superblock.member_mut(member) {
                    member.high_water = to;
                }
                self.metadata.stale = true;
            }
            Job::Rebuild {
                member: index,
                replica,
                to,
                ..
            } => {
                let Some(member) = self.metadata.superblock.member_mut(index) else {
                    return;
                };
                if to < member.high_water {
                    if let Some(rebuild) = &mut self.metadata.rebuild {
                        rebuild.next = to;
                    }
                    return;
                }
                // From here on it counts, also if some superblock copies are not told in this operation:
                // whatever comes next tells them before it writes anything else.
                member.void_replicas &= !(1 << replica);
                self.metadata.rebuild = None;
                self.metadata.stale = true;
                self.metadata.count_repair();
            }
            _ => (),
        }
    }

    fn next_stage(&mut self) {
        self.done = [0; REPLICAS as usize];
        self.touched = [0; REPLICAS as usize];
        self.checked = 0;
        self.swapped = 0;
        self.put_off = 0;
        self.sequence = None;
        self.stage = match (self.stage, self.job) {
            (Stage::Settle, _) => {
                self.metadata.unsettled_count = 0;
                Stage::Main
            }
            (Stage::Main, Job::Extend { .. } | Job::Rebuild { .. }) => Stage::Flush,
            _ => Stage::Supers,
        };
        if self.stage == Stage::Flush {
            self.to_flush = self.hosts();
        }
    }

    /// The members that hold what the job writes without FUA; a bit each.
    fn hosts(&self) -> u8 {
        let (member, wanted) = match self.job {
            Job::Extend { member, .. } => (member, self.metadata.live_replicas(member)),
            Job::Rebuild {
                member, replica, ..
            } => (member, 1 << replica),
            _ => return 0,
        };
        let areas = self.metadata.superblock.member(member).map(|m| m.areas);
        let areas = areas.iter().flatten().zip(0u8..);
        areas
            .filter(|(_, replica)| wanted & (1 << replica) != 0)
            .fold(0, |mask, (area, _)| mask | member_bit(area.host))
    }

    fn succeed(&mut self) -> Step {
        if let Job::Commit(_) = self.job {
            let statistics = &mut self.metadata.superblock.statistics;
            statistics.saves_done = statistics.saves_done.saturating_add(1);
        }
        self.outcome = Some(Outcome::Committed);
        Step::Done(Outcome::Committed)
    }

    fn fail(&mut self, why: Failure) -> Step {
        if let Some(copy) = self.reviving {
            self.metadata.superblock.set_super(copy, false);
        }
        match (self.stage, self.job) {
            (Stage::Settle, _) | (Stage::Main, Job::Commit(_)) => self.leave_unsettled(),
            (_, Job::Extend { member, from, .. }) => {
                // Copies may say more, which does no harm: what they speak of is initialised.
                if let Some(member) = self.metadata.superblock.member_mut(member) {
                    member.high_water = from;
                }
                self.metadata.stale = true;
            }
            _ => (),
        }
        if let Some(unsettled) = self.audit_failed {
            self.metadata.leave_unsettled(unsettled);
        }
        let outcome = Outcome::Failed {
            issued: self.issued,
            why,
        };
        self.outcome = Some(outcome);
        Step::Done(outcome)
    }

    /// Remembers the blocks that are not the same in both replicas now.
    fn leave_unsettled(&mut self) {
        let mut left = self.metadata.unsettled;
        let mut count = 0;
        let mut index = 0;
        while let Some(block) = self.stage_block(index) {
            if self.metadata.live_replicas(block.member) != ALL_REPLICAS {
                // With one replica left, what is on the spare was not touched (see `choose_place`).
                index += 1;
                continue;
            }
            let [first, second] = self.order(index, block);
            let suspect = if !self.is_done(first, index) {
                let known = self.stage == Stage::Settle || self.is_touched(first, index);
                known.then_some(first)
            } else if !self.is_done(second, index) {
                Some(second)
            } else {
                None
            };
            if let (Some(suspect), Some(place)) = (suspect, left.get_mut(count)) {
                *place = Unsettled { block, suspect };
                count += 1;
            }
            index += 1;
        }
        self.metadata.unsettled = left;
        self.metadata.unsettled_count = count;
    }
}

/// The bit for a block of a stage; a stage has at most 64.
pub(super) fn bit(index: u32) -> u64 {
    1u64.checked_shl(index).unwrap_or(0)
}
