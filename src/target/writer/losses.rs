// SPDX-License-Identifier: GPL-2.0

//! Remembering what was lost with a spare that is given up.

use super::Publish;
use super::Writer;
use super::STAGED_MAX;
use crate::logic::desk::Range;
use crate::logic::slot::SlotWord;
use crate::logic::slot::State as SlotState;
use crate::target::io::SpareIo;
use crate::target::state::State;
use kernel::prelude::*;

/// How many blocks are remembered at a time.
const PART: usize = STAGED_MAX / 4;

/// What was done of it.
pub(in crate::target) struct Part {
    /// How many blocks are lost now.
    pub(in crate::target) lost: u32,
    /// From which slot on to look further; none if the spare has nothing any more.
    pub(in crate::target) next: Option<u32>,
}

impl Writer {
    /// Gives blocks that the slots of a member serve, or are set aside for, other slots: the next write goes there,
    /// and until then they are lost, or still unreadable. A part of them, from a slot on. The superblocks must have
    /// announced it.
    pub(in crate::target) fn lose_blocks(
        &mut self,
        state: &State,
        io: &mut SpareIo<'_>,
        member: u8,
        from: u32,
    ) -> Result<Part> {
        self.retire_older_claims(state, io)?;
        let mut left = core::mem::take(&mut self.stolen);
        left.clear();
        let staged = self.stage_losses(state, io, member, &mut left, from);
        let committed = match &staged {
            Ok(_) => self.commit(state, io),
            Err(_) => {
                self.forget_staged(state);
                Ok(())
            }
        };
        if staged.is_ok() && committed.is_ok() {
            for slot in &left {
                if self.stage_retirement(state, *slot, true).is_err() {
                    self.note_older_claims();
                    break;
                }
            }
            if self.commit(state, io).is_err() {
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

    /// Stages what [`Writer::lose_blocks`] does. `left` gets the slots that are left.
    fn stage_losses(
        &mut self,
        state: &State,
        io: &mut SpareIo<'_>,
        member: u8,
        left: &mut KVec<u32>,
        from: u32,
    ) -> Result<Part> {
        let mut part = Part {
            lost: 0,
            next: Some(from),
        };
        let mut next = from;
        while left.len() < PART {
            let Some((slot, word)) = next_claim(state, member, next) else {
                // Once more from the first one, until there is none.
                part.next = (from != 0 || !left.is_empty()).then_some(0);
                break;
            };
            let main_block = word.main_block();
            let range = Range::new(state.sector_of(main_block), state.sectors(1));
            if state.desk.lock().is_busy(range) {
                // Its place changes for who has its range alone.
                part.next = Some(slot);
                break;
            }
            next = slot.saturating_add(1);
            part.next = Some(next);
            if word.is_doubt() {
                if !left.is_empty() {
                    // What is staged comes first.
                    part.next = Some(slot);
                    break;
                }
                self.settle(state, io, main_block)?;
                next = slot;
                continue;
            }
            let lost = word.state() != SlotState::Pending;
            let fate = match lost {
                true => SlotState::Lost,
                false => SlotState::Pending,
            };
            let fresh = SlotWord::new(main_block, fate, word.origin()).ok_or(ERANGE)?;
            let run = self.take_slots(state, io, 1)?;
            if let Err(error) = self.stage(state, run.first, fresh, Publish::Replace(slot)) {
                self.give_back(state, run.first);
                return Err(error);
            }
            left.push_within_capacity(slot).map_err(|_| ENOMEM)?;
            part.lost = part.lost.saturating_add(u32::from(lost));
        }
        Ok(part)
    }
}

/// The first slot of a member from `first` on that has a block, and its word.
fn next_claim(state: &State, member: u8, first: u32) -> Option<(u32, SlotWord)> {
    state.with_map(|map| {
        let slots = u32::try_from(map.slots().len()).unwrap_or(u32::MAX);
        (first..slots).find_map(|slot| {
            let word = map.word(slot);
            let own = || {
                map.extents()
                    .slot(slot)
                    .is_some_and(|(owner, _)| owner == member)
            };
            if !word.is_claim() || !own() {
                return None;
            }
            let serves = map.view().lookup(word.main_block());
            serves
                .is_some_and(|(other, _)| other == slot)
                .then_some((slot, word))
        })
    })
}
