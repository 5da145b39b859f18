// SPDX-License-Identifier: GPL-2.0

//! Writing the superblock: all live copies get the same, or one is written off.

use super::op::Pending;
use super::op::Round;
use super::step::Failure;
use super::step::Step;
use super::Op;
use super::ALL_SUPERS;

impl Op<'_> {
    /// The next superblock copy to write, if any has to be.
    pub(super) fn next_super(&mut self) -> Result<Option<Step>, Failure> {
        if !self.metadata.stale {
            return Ok(None);
        }
        let round = match self.round {
            Some(round) => round,
            None => self.begin_round()?,
        };
        self.round = Some(round);
        if round.todo == 0 {
            self.round = None;
            self.metadata.stale = false;
            return Ok(None);
        }
        let copy = lowest(round.todo);
        let geometry = &self.metadata.superblock.geometry;
        let sector = geometry.superblock_sector(copy).ok_or(Failure::Blocks)?;
        self.pending = Pending::Super { copy };
        Ok(Some(Step::WriteSuper { copy, sector }))
    }

    /// Begins a pass over all live copies. All of them get the same content with the same
    /// sequence: when something changes on the way, another pass begins.
    fn begin_round(&mut self) -> Result<Round, Failure> {
        let superblock = &mut self.metadata.superblock;
        superblock.sequence = superblock
            .sequence
            .checked_add(1)
            .ok_or(Failure::Exhausted)?;
        let live = self.metadata.live_supers();
        let enough = live.count_ones() >= 2;
        // A drive may have found another place for the sector meanwhile: each activation tries
        // once, and every operation does when the only good copy is left, which is not rewritten
        // before another one is made.
        let untried = if enough {
            self.metadata.revive
        } else {
            ALL_SUPERS & !self.revived
        };
        let candidates = untried & !live;
        if candidates == 0 {
            if !enough {
                return Err(Failure::NoSuperblock);
            }
            // Counted before they are written, as all copies say the same.
            for _ in 0..(self.metadata.damaged & live).count_ones() {
                self.metadata.count_repair();
            }
            self.metadata.damaged = 0;
            return Ok(Round { todo: live });
        }
        let copy = lowest(candidates);
        self.metadata.revive &= !(1 << copy);
        self.revived |= 1 << copy;
        self.reviving = Some(copy);
        // Its own image must not call it void.
        self.metadata.superblock.void_supers &= !(1 << copy);
        Ok(Round { todo: 1 << copy })
    }
}

/// The number of the lowest bit of a mask that is not empty.
fn lowest(mask: u8) -> u8 {
    // At most 7.
    mask.trailing_zeros().min(7) as u8
}
