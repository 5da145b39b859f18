// SPDX-License-Identifier: GPL-2.0

//! Going through main from one block to another, and seeing what each part is: for those who list, or do something
//! with all of a kind.
//!
//! No lock is held, and RCU only for a moment (P16): where the presence bits say that nothing is remapped, nobody looks.
//! So what is seen may have changed when it is told, as with all that is told of a device in use.

use crate::{
    logic::{
        listing::{
            Kind,
            Range, //
        },
        presence::Presence,
        reach,
        table::RunKind, //
    },
    remap::{
        health::life::Life,
        path::{
            map::Map,
            state::PathState, //
        },
        repair::notes::Notes, //
    }, //
};

/// How many blocks are looked up before RCU is left.
const LOOKED_UP_MAX: u32 = 1024;

/// A part of main.
#[derive(Clone, Copy)]
pub(in crate::remap) struct Part {
    /// Its first block.
    pub(in crate::remap) first: u64,
    /// How many blocks it has; never none.
    pub(in crate::remap) count: u64,
    /// What it is; none if main serves it and that is all.
    pub(in crate::remap) kind: Option<Kind>,
}

impl Part {
    /// The same for a list; none if there is nothing to tell.
    pub(in crate::remap) fn listed(&self) -> Option<Range> {
        let Part { first, count, kind } = *self;
        Some(Range {
            first,
            count,
            kind: kind?,
        })
    }
}

/// How far somebody is.
pub(in crate::remap) struct Walk {
    next: u64,
    end: u64,
}

impl Walk {
    /// From block `first` to the one before `end`.
    pub(in crate::remap) const fn new(first: u64, end: u64) -> Self {
        Self { next: first, end }
    }

    /// Which block comes next.
    pub(in crate::remap) const fn position(&self) -> u64 {
        self.next
    }

    /// The next part; none at the end. What follows may be of the same kind.
    pub(in crate::remap) fn next(
        &mut self,
        path: &PathState,
        life: &Life,
        notes: &Notes,
    ) -> Option<Part> {
        let left = self.end.checked_sub(self.next).filter(|left| *left != 0)?;
        let mut part = path.with_map(|map| look(path, life, map, self.next, left));
        // What is noted has no slot so far, nor a presence bit.
        let noted = notes.first_in(part.first, part.count);
        if let Some(noted) = noted.filter(|_| part.kind.is_none()) {
            part = match noted.saturating_sub(part.first) {
                0 => Part {
                    count: 1,
                    kind: Some(Kind::Pending),
                    ..part
                },
                before => Part {
                    count: before,
                    ..part
                },
            };
        }
        self.next = self.next.saturating_add(part.count);
        Some(part)
    }
}

/// What the part that begins at a block is, of `left`.
fn look(path: &PathState, life: &Life, map: &Map, first: u64, left: u64) -> Part {
    let count = u32::try_from(left).unwrap_or(u32::MAX);
    let presence = Presence::new(path.presence.get());
    let view = map.view();
    let run = reach::reach(
        &presence,
        &view,
        (first, count),
        path.size.shift,
        LOOKED_UP_MAX,
    );
    let run = path.avoided.cut(first, run);
    let kind = match run.kind {
        RunKind::Main => None,
        RunKind::Slots { .. } => {
            // They may be of several members, one of which is lost.
            return slots(life, map, first, run.count);
        }
        RunKind::Failing { .. } | RunKind::Lost { .. } => Some(Kind::Lost),
        RunKind::Pending { .. } => Some(Kind::Pending),
        RunKind::Avoided => Some(Kind::Avoided),
        RunKind::Doubt => Some(Kind::Doubt),
    };
    Part {
        first,
        count: u64::from(run.count.max(1)),
        kind,
    }
}

/// The same where slots serve it, as far as these are of a kind.
fn slots(life: &Life, map: &Map, first: u64, count: u32) -> Part {
    let kind_of = |block: u64| {
        let (slot, word) = map.view().lookup(block)?;
        Some(match word {
            _ if life.is_content_lost(map, slot) => Kind::Lost,
            word if word.is_weak() => Kind::Weak,
            word if word.is_given_up() => Kind::GivenUp,
            _ => Kind::Remapped,
        })
    };
    let kind = kind_of(first);
    let mut length = 1u64;
    while length < u64::from(count) && kind_of(first.saturating_add(length)) == kind {
        length = length.saturating_add(1);
    }
    Part {
        first,
        count: length,
        kind,
    }
}
