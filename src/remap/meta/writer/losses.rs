// SPDX-License-Identifier: GPL-2.0

//! Remembering what was lost with spares that are given up: with one of several, or with all there were (see
//! `session/take_over.rs`).

use kernel::prelude::*;

use crate::{
    logic::{
        commit::Metadata,
        desk::Range,
        format::{
            member_bit,
            MEMBERS_MAX, //
        },
        slot::{
            SlotState,
            SlotWord, //
        }, //
    },
    remap::{
        health::life::Life,
        meta::io::SpareIo,
        path::{
            map::UNKNOWN,
            state::PathState, //
        },
        repair::state::RepairState,
        user::state::UserState, //
    }, //
};

use super::{
    members::Restored,
    Publish,
    Writer,
    STAGED_MAX, //
};

/// How many blocks are remembered at a time.
const PART: usize = STAGED_MAX / 4;

/// Stands for a slot behind all others.
const ALL: u32 = u32::MAX;

/// How all was before a take-over.
pub(in crate::remap) struct Before {
    metadata: KBox<Metadata>,
    durable: u64,
    inherited: u8,
}

/// What was done of it.
pub(in crate::remap) struct LostPart {
    /// How many blocks are lost now.
    pub(in crate::remap) lost: u32,
    /// From which slot on to look further; none if the spare has nothing any more.
    pub(in crate::remap) next: Option<u32>,
}

impl Writer {
    /// Gives blocks that the slots of a member serve, or are set aside for, other slots: the next write goes there,
    /// and until then they are lost, or still unreadable. A part of them, from a slot on. The superblocks must have
    /// announced it.
    pub(in crate::remap) fn lose_blocks(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        member: u8,
        from: u32,
    ) -> Result<LostPart> {
        let is_nowhere = self.is_inherited(member);
        if !is_nowhere && self.retire_older_claims(path, repair, io)? {
            return Ok(LostPart {
                lost: 0,
                next: Some(from),
            });
        }
        let mut left = core::mem::take(&mut self.stolen);
        left.clear();
        let staged = self.stage_losses(path, repair, io, member, &mut left, from);
        let committed = match &staged {
            Ok(_) => self.commit(path, repair, io),
            Err(_) => {
                self.forget_staged(path);
                Ok(())
            }
        };
        if is_nowhere {
            // Nothing is left to be retired, but in memory.
            for slot in left.iter().filter(|_| committed.is_ok()) {
                self.set_word(io.user, path, *slot, UNKNOWN);
            }
        } else if staged.is_ok() && committed.is_ok() {
            for slot in &left {
                if self.stage_retirement(io.user, path, *slot, true).is_err() {
                    self.note_older_claims();
                    break;
                }
            }
            if self.commit(path, repair, io).is_err() {
                self.note_older_claims();
            }
        } else if staged.is_ok() {
            // They may be replaced by now, as far as the commit went.
            self.note_older_claims();
        }
        self.stolen = left;
        committed?;
        staged
    }

    /// What [`Writer::undo_take_over`] has to know. Allocates: the copy is large for the kernel's stack.
    #[inline(never)]
    pub(in crate::remap) fn before_take_over(&self) -> Result<Before> {
        let mut metadata = KBox::new(Metadata::EMPTY, GFP_KERNEL)?;
        metadata.copy_from(&self.metadata);
        Ok(Before {
            metadata,
            durable: self.durable,
            inherited: self.inherited,
        })
    }

    /// New spares take over from dead members, a bit each. The superblocks do not say so yet.
    pub(in crate::remap) fn begin_take_over(&mut self, dead: u8) -> Result {
        let members = self.metadata.superblock().members();
        let all = members.fold(0, |mask, (index, _)| mask | member_bit(index));
        let begun = self.metadata.begin_take_over(dead);
        self.inherited |= dead & all;
        self.lost_from = None;
        begun.map_err(|why| Error::from_errno(-why.errno().number()))
    }

    /// All is as it was before [`Writer::begin_take_over`].
    pub(in crate::remap) fn undo_take_over(
        &mut self,
        user: &UserState,
        life: &Life,
        before: &Before,
    ) {
        self.metadata.undo_take_over(&before.metadata);
        self.durable = before.durable;
        self.inherited = before.inherited;
        self.show_members(user, life);
    }

    /// Notes that a member answered when new ones were to take over from it, or that it is used again.
    pub(in crate::remap) fn note_answered(&mut self, member: u8, answered: bool) {
        self.answered &= !member_bit(member);
        if answered {
            self.answered |= member_bit(member);
        }
    }

    /// Whether a member was not to be given up when it was asked last, and has not been used since.
    pub(in crate::remap) fn has_answered(&self, member: u8) -> bool {
        self.answered & member_bit(member) != 0
    }

    /// Whether a member is one that new spares take over from.
    pub(in crate::remap) fn is_inherited(&self, member: u8) -> bool {
        self.inherited & member_bit(member) != 0
    }

    /// Whether new spares have to record what is lost with the dead ones before anything else is.
    pub(in crate::remap) fn is_taking_over(&self) -> bool {
        self.metadata.is_unfinished()
    }

    /// Does a step towards the end of a take-over, if there is one.
    pub(in crate::remap) fn take_over(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
    ) -> Result {
        if !self.is_taking_over() {
            return Ok(());
        }
        if let Some(member) = (0..MEMBERS_MAX).find(|index| self.is_inherited(*index)) {
            let (of, from) = self.lost_from.unwrap_or((u8::MAX, 0));
            if of != member {
                // Where one of several new ones dies, the others are to know what it has.
                if self.restore(path, repair, io, self.inherited)? == Restored::Done {
                    self.lost_from = Some((member, 0));
                }
                return Ok(());
            }
            if from == ALL {
                return self.remove_step(path, repair, io, member).map(drop);
            }
            self.recording = true;
            let part = self.lose_blocks(path, repair, io, member, from);
            self.recording = false;
            let next = part?.next.unwrap_or(ALL);
            if next == ALL {
                // Also what was replaced by an entry that is in doubt.
                self.forget_slots(io.user, path, member);
            }
            self.lost_from = Some((member, next));
            return Ok(());
        }
        if self.commit_again(path, repair, io, |_| true)? {
            return Ok(());
        }
        self.metadata.end_take_over();
        if let Err(error) = self.sync(io) {
            self.metadata.stay_unfinished();
            return Err(error);
        }
        self.older_claims = None;
        // What was given up meanwhile, after an error, is begun again.
        self.unrestored = true;
        pr_info!("{}: the new spares have taken over\n", io.user.name);
        Ok(())
    }

    /// Stages what [`Writer::lose_blocks`] does. `left` gets the slots that are left.
    fn stage_losses(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        member: u8,
        left: &mut KVec<u32>,
        from: u32,
    ) -> Result<LostPart> {
        let mut part = LostPart {
            lost: 0,
            next: Some(from),
        };
        let mut next = from;
        while left.len() < PART {
            let Some((slot, word)) = path.next_claim(member_bit(member), next) else {
                // Once more from the first one, until there is none.
                part.next = (from != 0 || !left.is_empty()).then_some(0);
                break;
            };
            let main_block = word.main_block();
            let range = Range::new(path.size.sector_of(main_block), path.size.sectors(1));
            if repair.desk.lock().is_busy(range) {
                // Its place changes for who has its range alone.
                part.next = Some(slot);
                break;
            }
            next = slot.saturating_add(1);
            part.next = Some(next);
            if word.is_doubt() && !self.is_inherited(member) {
                if !left.is_empty() {
                    // What is staged comes first.
                    part.next = Some(slot);
                    break;
                }
                self.settle(path, repair, io, main_block)?;
                next = slot;
                continue;
            }
            let lost = word.state() != SlotState::Pending;
            let fate = match lost {
                true => SlotState::Lost,
                false => SlotState::Pending,
            };
            let fresh = SlotWord::new(main_block, fate, word.origin()).ok_or(ERANGE)?;
            let run = match self.take_slots(path, repair, io, 1) {
                // What is staged comes first; the map may get memory then.
                Err(_) if !left.is_empty() => {
                    part.next = Some(slot);
                    break;
                }
                taken => taken?,
            };
            if let Err(error) = self.stage(io.user, path, run.first, fresh, Publish::Replace(slot))
            {
                self.give_back(path, run.first);
                return Err(error);
            }
            left.push_within_capacity(slot).map_err(|_| ENOMEM)?;
            part.lost = part.lost.saturating_add(u32::from(lost));
        }
        Ok(part)
    }
}
