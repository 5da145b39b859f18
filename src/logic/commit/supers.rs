// SPDX-License-Identifier: GPL-2.0

//! A pass over the superblock copies: all in use get the same, or one is written off.
//!
//! A pass writes one *version*, with a sequence of its own, to each copy in use, one after the other:
//!
//! 1. Those first that may be bad or old anyway: a crash or a bad sector meets the only good copy last (M1).
//! 2. A copy that cannot be written is void from then on. What was written so far does not say so: the next version
//!    begins, in a new epoch (M2, M4). So it does when a member is lost meanwhile.
//! 3. When all have the version, and spares are about to join, their copies are tried, as any that is void is tried once
//!    in an activation. That is a version which is written to this copy alone, and says that it is in use; when that is
//!    done, the next version tells the others.
//! 4. When each copy in use has the same version, the superblock is not stale any more.
//!
//! With fewer than two copies in use nothing is written but to those that are void: each operation tries these once.
//!
//! What becomes of a copy stands in [`copies`](super::metadata::copies).

use super::{
    super::format::CopyId,
    metadata::copies::{
        Copy,
        Event, //
    },
    step::{
        Failure,
        Step, //
    },
    Metadata, //
};

/// A pass over the superblock copies; or that there is none.
#[derive(Debug)]
pub(super) struct Pass {
    /// The copies that are to get the version that was begun and do not have it yet; a bit each.
    todo: Option<u16>,
    /// Void copies that were tried in this operation; a bit each.
    tried: u16,
}

impl Pass {
    /// None so far.
    pub(super) const NONE: Pass = Pass {
        todo: None,
        tried: 0,
    };

    /// The next copy to write, if any has to be.
    pub(super) fn next(&mut self, metadata: &mut Metadata) -> Result<Option<Step>, Failure> {
        if !metadata.stale {
            return Ok(None);
        }
        let mut todo = match self.todo {
            Some(todo) => todo,
            None => self.begin(metadata)?,
        };
        if todo == 0 && metadata.copies.which(|copy| copy == Copy::Joining) != 0 {
            metadata.note_all_copies(Event::Told);
            todo = self.begin(metadata)?;
        }
        let doubtful = metadata.copies.which(|copy| copy == Copy::Doubtful);
        let Some(copy) = CopyId::lowest(todo & doubtful).or(CopyId::lowest(todo)) else {
            self.todo = None;
            metadata.stale = false;
            return Ok(None);
        };
        self.todo = Some(todo);
        metadata.note_copy(copy, Event::Writing);
        let place = metadata.superblock.super_place(copy);
        let place = place.ok_or(Failure::Blocks)?;
        Ok(Some(Step::WriteSuper { copy, place }))
    }

    /// Begins a version. All copies get the same content with the same sequence. Returns which.
    fn begin(&mut self, metadata: &mut Metadata) -> Result<u16, Failure> {
        if metadata.without {
            metadata.raise_set_epoch();
        }
        let superblock = &mut metadata.superblock;
        superblock.sequence = superblock
            .sequence
            .checked_add(1)
            .ok_or(Failure::Exhausted)?;
        let live = superblock.live_supers();
        let enough = live.count_ones() >= 2;
        let void = match enough {
            true => metadata.copies.which(|copy| copy == Copy::Untried),
            false => metadata.reachable_supers() & !live & !self.tried,
        };
        if let Some(copy) = CopyId::lowest(void) {
            self.tried |= copy.bit();
            metadata.note_copy(copy, Event::Try);
            return Ok(copy.bit());
        }
        if !enough {
            return Err(Failure::NoSuperblock);
        }
        // Counted before they are written, as all copies say the same.
        let mut damaged = metadata.copies.which(|copy| copy == Copy::Damaged);
        while let Some(copy) = CopyId::lowest(damaged) {
            damaged &= !copy.bit();
            metadata.note_copy(copy, Event::Writing);
            metadata.count_repair();
        }
        Ok(live)
    }

    /// A copy was written, or could not be and the medium is to blame.
    pub(super) fn absorb(
        &mut self,
        metadata: &mut Metadata,
        copy: CopyId,
        good: bool,
    ) -> Result<(), Failure> {
        let tried = metadata.copies.of(copy) == Copy::Tried;
        if !good {
            metadata.note_copy(copy, Event::Bad);
            metadata.count_repair();
            self.restart();
            return metadata.raise_epoch();
        }
        metadata.note_copy(copy, Event::Written);
        match tried {
            // The others call this one void.
            true => self.restart(),
            false => self.todo = self.todo.map(|todo| todo & !copy.bit()),
        }
        Ok(())
    }

    /// What was written so far is not what the superblock says any more.
    pub(super) fn restart(&mut self) {
        self.todo = None;
    }
}
