// SPDX-License-Identifier: GPL-2.0

//! Writing the superblock: all live copies get the same, or one is written off.

use super::{
    super::format::CopyId,
    op::{
        Pending,
        Round, //
    },
    step::{
        Failure,
        Step, //
    },
    Op, //
};

impl Op<'_> {
    /// The next superblock copy to write, if any has to be.
    pub(super) fn next_super(&mut self) -> Result<Option<Step>, Failure> {
        if !self.metadata.stale {
            return Ok(None);
        }
        let mut round = match self.round {
            Some(round) => round,
            None => self.begin_round()?,
        };
        if round.todo == 0 && self.metadata.joining != 0 {
            // All know of the new member by now.
            self.metadata.revive |= self.metadata.joining;
            self.metadata.joining = 0;
            round = self.begin_round()?;
        }
        self.round = Some(round);
        if round.todo == 0 {
            self.round = None;
            self.metadata.stale = false;
            return Ok(None);
        }
        // First those that are no loss: another one may be the only good copy (M1).
        let copy = CopyId::lowest(round.todo & self.metadata.doubtful)
            .or(CopyId::lowest(round.todo))
            .ok_or(Failure::Blocks)?;
        self.metadata.doubtful |= copy.bit();
        let place = self
            .metadata
            .superblock
            .super_place(copy)
            .ok_or(Failure::Blocks)?;
        self.pending = Pending::Super { copy };
        self.device = place.member;
        Ok(Some(Step::WriteSuper { copy, place }))
    }

    /// Begins a pass over all live copies. All of them get the same content with the same
    /// sequence: when something changes on the way, another pass begins.
    fn begin_round(&mut self) -> Result<Round, Failure> {
        if self.metadata.without {
            self.metadata.raise_set_epoch();
        }
        let superblock = &mut self.metadata.superblock;
        superblock.sequence = superblock
            .sequence
            .checked_add(1)
            .ok_or(Failure::Exhausted)?;
        let live = superblock.live_supers();
        let enough = live.count_ones() >= 2;
        // A drive may have found another place for the sector meanwhile: each activation tries
        // once, and every operation does when the only good copy is left, which is not rewritten
        // before another one is made.
        let untried = if enough {
            self.metadata.revive
        } else {
            self.metadata.reachable_supers() & !self.revived
        };
        let candidates = untried & !live;
        let Some(copy) = CopyId::lowest(candidates) else {
            if !enough {
                return Err(Failure::NoSuperblock);
            }
            // Counted before they are written, as all copies say the same.
            for _ in 0..(self.metadata.damaged & live).count_ones() {
                self.metadata.count_repair();
            }
            self.metadata.damaged = 0;
            return Ok(Round { todo: live });
        };
        self.metadata.revive &= !copy.bit();
        self.revived |= copy.bit();
        self.reviving = Some(copy);
        // Its own image must not call it void.
        self.metadata.superblock.set_super(copy, true);
        Ok(Round { todo: copy.bit() })
    }
}
