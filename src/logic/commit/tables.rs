// SPDX-License-Identifier: GPL-2.0

//! Writing table blocks: which one is next, where it goes, and what if it can't stay there.

use super::{
    super::format::{
        reserve::Reserve,
        BlockId,
        REPLICAS, //
    },
    metadata::Unsettled,
    op::{
        bit,
        Destination,
        Job,
        Moving,
        Next,
        Pending,
        Stage, //
    },
    step::{
        Content,
        Failure,
        Step, //
    },
    Op,
    ALL_REPLICAS, //
};

impl Op<'_> {
    /// The block at `index` of the current stage.
    pub(super) fn stage_block(&self, index: u32) -> Option<BlockId> {
        match (self.stage, self.job) {
            (Stage::Settle, _) => self
                .metadata
                .unsettled
                .iter()
                .take(self.metadata.unsettled_count)
                .nth(index as usize)
                .map(|unsettled| unsettled.block),
            (Stage::Main, Job::Commit(blocks)) => blocks.get(index as usize).copied(),
            (
                Stage::Main,
                Job::Extend { member, from, to }
                | Job::Rebuild {
                    member, from, to, ..
                },
            ) => {
                let block = from.checked_add(index).filter(|block| *block < to)?;
                Some(BlockId { member, block })
            }
            (Stage::Main, Job::Rewrite { block, .. }) => (index == 0).then_some(block),
            _ => None,
        }
    }

    /// The replicas that the block at `index` is written to, one after the other.
    pub(super) fn order(&self, index: u32, block: BlockId) -> [u8; REPLICAS as usize] {
        match (self.stage, self.job) {
            (Stage::Main, Job::Rewrite { replica, .. } | Job::Rebuild { replica, .. }) => {
                [replica, replica]
            }
            _ => match self.metadata.suspect(block) {
                Some(1) => [1, 0],
                Some(_) => [0, 1],
                None if self.swapped & bit(index) != 0 => [1, 0],
                None => [0, 1],
            },
        }
    }

    pub(super) fn is_done(&self, replica: u8, index: u32) -> bool {
        self.done
            .get(usize::from(replica))
            .is_some_and(|done| done & bit(index) != 0)
    }

    /// Whether the replica's copy may be damaged, or old, or new.
    pub(super) fn is_touched(&self, replica: u8, index: u32) -> bool {
        self.touched
            .get(usize::from(replica))
            .is_some_and(|touched| touched & bit(index) != 0)
    }

    /// Whether the only replica's blocks must not be rewritten in place: M1.
    fn is_single(&self, member: u8) -> bool {
        let keeps_entries = match (self.stage, self.job) {
            (Stage::Settle, _) | (_, Job::Commit(_)) => true,
            (_, Job::Extend { .. } | Job::Rewrite { .. } | Job::Rebuild { .. } | Job::Sync) => {
                false
            }
        };
        keeps_entries && self.metadata.live_replicas(member) != ALL_REPLICAS
    }

    /// Whether a replica is to be written.
    fn takes_writes(&self, replica: u8, member: u8) -> bool {
        let rebuilt = matches!(
            self.job,
            Job::Rebuild { member: m, replica: r, .. } if m == member && r == replica
        );
        rebuilt || self.metadata.live_replicas(member) & (1 << replica) != 0
    }

    /// The next block that some live replica does not have: all blocks in the replica that each is
    /// to be written to first, then all in the other, then those that were put off.
    fn next_target(&self) -> Option<(u8, u32, BlockId)> {
        [false, true].into_iter().find_map(|put_off| {
            (0..usize::from(REPLICAS)).find_map(|turn| self.next_target_of(turn, put_off))
        })
    }

    fn next_target_of(&self, turn: usize, put_off: bool) -> Option<(u8, u32, BlockId)> {
        let mut index = 0;
        while let Some(block) = self.stage_block(index) {
            let replica = self.order(index, block).get(turn).copied()?;
            let lives = self.takes_writes(replica, block.member);
            let wanted = (self.put_off & bit(index) != 0) == put_off;
            if lives && wanted && !self.is_done(replica, index) {
                return Some((replica, index, block));
            }
            index += 1;
        }
        None
    }

    pub(super) fn next_table(&mut self) -> Result<Next, Failure> {
        let Some((replica, index, block)) = self.next_target() else {
            return Ok(Next::Finished);
        };
        if let Some(step) = self.check_other(replica, index, block) {
            return Ok(Next::Step(step));
        }
        let Some(place) = self.choose_place(replica, block) else {
            return self.write_off(replica, index);
        };
        let superblock = &self.metadata.superblock;
        let to = match place {
            Destination::Current => superblock.table_place(replica, block),
            Destination::Home => superblock.own_place(replica, block),
            Destination::Reserve(i) => superblock.reserve_place(replica, block.member, i),
        };
        let to = to.ok_or(Failure::Blocks)?;
        let (content, fua) = self.content(replica, block)?;
        if let Job::Commit(blocks) = self.job {
            self.issued |= blocks.contains(&block);
            self.metadata.note_change(block);
        }
        if let Some(touched) = self.touched.get_mut(usize::from(replica)) {
            *touched |= bit(index);
        }
        self.pending = Pending::Table {
            replica,
            index,
            place,
        };
        self.device = to.member;
        Ok(Next::Step(Step::WriteTable {
            block,
            place: to,
            content,
            fua,
        }))
    }

    /// Before the first of two good copies is rewritten, the other one is looked at.
    fn check_other(&mut self, replica: u8, index: u32, block: BlockId) -> Option<Step> {
        let [first, second] = self.order(index, block);
        let needed = matches!(self.job, Job::Commit(_)) || self.stage == Stage::Settle;
        if !needed
            || self.is_single(block.member)
            || replica != first
            || self.checked & bit(index) != 0
        {
            return None;
        }
        self.checked |= bit(index);
        let place = self.metadata.superblock.table_place(second, block)?;
        self.pending = Pending::Check { index };
        self.device = place.member;
        Some(Step::CheckTable { block, place })
    }

    fn content(&mut self, replica: u8, block: BlockId) -> Result<(Content, bool), Failure> {
        let fua = match (self.stage, self.job) {
            (Stage::Main, Job::Rewrite { .. }) => Some(true),
            // Many at once, and made durable by the flush at the end.
            (Stage::Main, Job::Rebuild { .. }) => Some(false),
            _ => None,
        };
        if let Some(fua) = fua {
            let from = self.metadata.superblock.table_place(replica ^ 1, block);
            let from = from.ok_or(Failure::Blocks)?;
            return Ok((Content::Copy { from }, fua));
        }
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => self.metadata.next_sequence()?,
        };
        self.sequence = Some(sequence);
        Ok(match (self.stage, self.job) {
            (Stage::Main, Job::Extend { .. }) => (Content::Empty { sequence }, false),
            _ => (Content::Current { sequence }, true),
        })
    }

    /// Where `block` of `replica` is written to. None if there is no place left.
    fn choose_place(&self, replica: u8, block: BlockId) -> Option<Destination> {
        let home_bad = if self.is_single(block.member) {
            // The current place has the only good copy.
            match self.relocation(replica, block) {
                Some((_, home_bad)) => home_bad,
                None => true,
            }
        } else {
            match self.moving {
                Some(moving) => moving.home_bad,
                None => return Some(Destination::Current),
            }
        };
        if !home_bad {
            return Some(Destination::Home);
        }
        self.metadata
            .free_reserve(replica, block.member)
            .map(Destination::Reserve)
    }

    fn relocation(&self, replica: u8, block: BlockId) -> Option<(u8, bool)> {
        let member = self.metadata.superblock.member(block.member)?;
        member.relocation(replica, block.block)
    }

    pub(super) fn table_written(
        &mut self,
        replica: u8,
        index: u32,
        place: Destination,
    ) -> Result<(), Failure> {
        let Some(block) = self.stage_block(index) else {
            return Err(Failure::Blocks);
        };
        if let Some(done) = self.done.get_mut(usize::from(replica)) {
            *done |= bit(index);
        }
        let moving = self.moving.take();
        if place == Destination::Current {
            let rewritten = matches!((self.stage, self.job), (Stage::Main, Job::Rewrite { .. }));
            // It is the second copy that is looked at before.
            let was_bad = self.swapped & bit(index) != 0 && replica == 1;
            if rewritten || was_bad {
                self.metadata.count_repair();
            }
            return Ok(());
        }
        let member = block.member;
        let old = self.relocation(replica, block);
        if let Some((index, _)) = old {
            self.metadata
                .set_reserve(replica, member, index, Reserve::Free);
        }
        if let Destination::Reserve(index) = place {
            let home_bad = match (moving, old) {
                (Some(moving), _) => moving.home_bad,
                (None, Some((_, home_bad))) => home_bad,
                (None, None) => false,
            };
            let block = block.block;
            let holds = Reserve::Holds { block, home_bad };
            self.metadata.set_reserve(replica, member, index, holds);
        }
        self.metadata.stale = true;
        if moving.is_some() {
            self.metadata.count_repair();
            self.metadata.raise_epoch()?;
        }
        Ok(())
    }

    /// Remembers that a place is bad, so that the next one is chosen.
    pub(super) fn table_failed(
        &mut self,
        replica: u8,
        index: u32,
        place: Destination,
    ) -> Result<(), Failure> {
        let Some(block) = self.stage_block(index) else {
            return Err(Failure::Blocks);
        };
        let member = block.member;
        match (place, self.relocation(replica, block)) {
            (Destination::Current, Some((index, home_bad))) => {
                self.metadata
                    .set_reserve(replica, member, index, Reserve::Bad);
                self.moving = Some(Moving { home_bad });
            }
            (Destination::Current, None) => self.moving = Some(Moving { home_bad: true }),
            (Destination::Reserve(index), _) => {
                self.metadata
                    .set_reserve(replica, member, index, Reserve::Bad);
            }
            (Destination::Home, Some((index, _))) => {
                let holds = Reserve::Holds {
                    block: block.block,
                    home_bad: true,
                };
                self.metadata.set_reserve(replica, member, index, holds);
            }
            (Destination::Home, None) => self.moving = Some(Moving { home_bad: true }),
        }
        // Superblocks that say so before another place is found do no harm: the other replica has a
        // good copy.
        Ok(())
    }

    /// Records a replica as void that has no place left for the block at `index`. Not while it has
    /// the only good copy of another one.
    fn write_off(&mut self, replica: u8, index: u32) -> Result<Next, Failure> {
        let survivor = replica ^ 1;
        let block = self.stage_block(index).ok_or(Failure::Blocks)?;
        let member = block.member;
        if matches!(self.job, Job::Rebuild { .. })
            || self.metadata.live_replicas(member) & (1 << survivor) == 0
        {
            return Err(Failure::NoPlace);
        }
        if self.is_needed_by(survivor, member) {
            if let Job::Rewrite { .. } = self.job {
                self.leave_rewrite();
                return Ok(Next::Supers);
            }
            if self.put_off & bit(index) != 0 || self.stage == Stage::Main {
                return Err(Failure::NoPlace);
            }
            // First re-create what the survivor lacks.
            self.put_off |= bit(index);
            self.moving = None;
            return Ok(Next::Supers);
        }
        if let Some(step) = self.audit(survivor, member) {
            return Ok(Next::Step(step));
        }
        self.moving = None;
        if let Some(member) = self.metadata.superblock.member_mut(member) {
            member.void_replicas |= 1 << replica;
        }
        self.metadata.count_repair();
        self.metadata.raise_epoch()?;
        Ok(Next::Supers)
    }

    /// Whether what lies on the spare of member `device` is the only good copy of something that the
    /// job is about.
    pub(super) fn is_needed(&self, device: u8) -> bool {
        self.metadata.superblock.members().any(|(index, member)| {
            let replicas = member.areas.iter().zip(0u8..);
            let mut there = replicas.filter(|(area, _)| area.host == device);
            there.any(|(_, replica)| self.is_needed_by(replica ^ 1, index))
        })
    }

    /// Whether the other replica has the only good copy of a block that `survivor` must get, in the
    /// table of `member`.
    fn is_needed_by(&self, survivor: u8, member: u8) -> bool {
        let unsettled = &self.metadata.unsettled;
        let unsettled = unsettled.iter().take(self.metadata.unsettled_count);
        let mut unsettled = unsettled.filter(|u| u.block.member == member);
        if self.stage != Stage::Settle && unsettled.any(|u| u.suspect == survivor) {
            return true;
        }
        let mut index = 0;
        while let Some(block) = self.stage_block(index) {
            let bad = match self.metadata.suspect(block) {
                Some(suspect) => suspect == survivor,
                None => self.swapped & bit(index) != 0 && survivor == 1,
            };
            // A write that failed may have damaged what was there.
            let torn = matches!(self.job, Job::Commit(_)) && self.is_touched(survivor, index);
            if (bad || torn) && block.member == member && !self.is_done(survivor, index) {
                return true;
            }
            index += 1;
        }
        false
    }

    /// Leaves a block to the first commit that loading found bad: until then one replica lacks this
    /// one, and the other one lacks another.
    pub(super) fn leave_rewrite(&mut self) {
        if let Job::Rewrite { replica, block } = self.job {
            self.metadata.leave_unsettled(Unsettled {
                block,
                suspect: replica,
            });
        }
        self.moving = None;
        self.stage = Stage::Supers;
    }

    /// Looks at all blocks of the replica that will be the only one.
    fn audit(&mut self, survivor: u8, member: u8) -> Option<Step> {
        let superblock = &self.metadata.superblock;
        if self.audit >= superblock.member(member)?.high_water {
            self.audit = 0;
            return None;
        }
        let block = BlockId {
            member,
            block: self.audit,
        };
        let place = superblock.table_place(survivor, block)?;
        self.audit = self.audit.saturating_add(1);
        self.pending = Pending::Audit {
            replica: survivor,
            block,
        };
        self.device = place.member;
        Some(Step::CheckTable { block, place })
    }
}
