// SPDX-License-Identifier: GPL-2.0

//! Where sectors are served: `verify` tells of one, `list` of all that main does not just serve.

use core::fmt::{
    self,
    Write, //
};

use kernel::time::{
    delay::fsleep,
    Delta, //
};

use crate::{
    abstractions::util,
    logic::{
        listing::{
            Kind,
            Range,
            Ranges, //
        },
        message::{
            MessageError,
            Sectors, //
        },
        slot::{
            Origin,
            SlotState, //
        },
        text::Bounded, //
    },
    remap::{
        session::walk::Walk,
        DmRemap, //
    }, //
};

use super::answer::{
    Answer,
    Heard, //
};

/// How long a list takes before the caller is asked to go on, in milliseconds: a suspend waits for messages (E8).
const LIST_MS: u64 = 1000;

/// The longest line of a list, and the separator before it.
const LINE_BYTES: usize = 64;

/// Lists ranges of main, ascending, a line each: first sector, sectors, kind. The last line is `end`, or `next=` and
/// the sector to go on from: where the reply is full, where it takes long, or where the device is to be suspended.
#[inline(never)]
pub(super) fn list(
    target: &DmRemap,
    kind: Option<Kind>,
    from: u64,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let state = &**target.state;
    if from > target.len {
        return Err(MessageError::OutOfRange {
            sectors: target.len,
        }
        .into());
    }
    let until = util::monotonic_ms().saturating_add(LIST_MS);
    let mut ranges = Ranges::new(kind);
    let mut walk = Walk::new(
        state.path.size.block_of(from),
        target.len >> state.path.size.shift,
    );
    loop {
        let part = walk.next(&state.path, &state.life, &state.repair.notes);
        let range = match &part {
            Some(part) => part.listed().and_then(|part| ranges.add(part)),
            None => ranges.finish(),
        };
        if let Some(range) = range {
            if let Err(next) = tell(target, &range, answer) {
                answer.line(format_args!("next={next}"));
                return Ok(());
            }
        }
        if part.is_none() {
            answer.line(format_args!("end"));
            return Ok(());
        }
        if state.jobs.must_stop() || util::monotonic_ms() > until {
            // A range that goes on is told in parts then, so that each page is a step forward.
            let told = ranges.finish().map(|range| tell(target, &range, answer));
            let next = match told {
                Some(Err(next)) => next,
                _ => state.path.size.sector_of(walk.position()),
            };
            answer.line(format_args!("next={next}"));
            return Ok(());
        }
    }
}

/// Adds the line of a range, if that leaves room for the last line. If not, it is the sector to go on from. The first
/// line is added in any case: if there is no room for two, the caller has to come with a larger buffer.
fn tell(target: &DmRemap, range: &Range, answer: &mut Answer<'_, '_>) -> Result<(), u64> {
    let state = &**target.state;
    let first = state.path.size.sector_of(range.first);
    let sectors = range.count << state.path.size.shift;
    let mut line = Bounded::<LINE_BYTES>::EMPTY;
    // Writing to it does not fail.
    let _ = write!(line, "{first} {sectors} {}", range.kind.name());
    let needed = line.as_str().len().saturating_add(LINE_BYTES);
    if !answer.is_empty() && needed > answer.room() {
        return Err(first);
    }
    answer.line(format_args!("{}", line.as_str()));
    Ok(())
}

/// Tells where a sector is served from.
#[inline(never)]
pub(super) fn verify(target: &DmRemap, sector: u64, answer: &mut Answer<'_, '_>) -> Heard<'static> {
    let state = &**target.state;
    let range = Sectors {
        first: sector,
        count: None,
    };
    range.blocks(target.len, state.path.size.sectors(1))?;
    let main_block = sector >> state.path.size.shift;
    let offset = sector & u64::from(state.path.size.sectors(1).saturating_sub(1));
    // What main could not read a moment ago is about to get its slot.
    let until = state.user.limits.patience();
    while state.repair.notes.has(main_block)
        && util::monotonic_ms() < until
        && !state.jobs.must_stop()
    {
        fsleep(Delta::from_millis(1));
    }
    if state.repair.notes.has(main_block) {
        answer.line(format_args!("sector {sector}: main, unreadable"));
        return Ok(());
    }
    let found = state.path.with_map(|map| map.view().lookup(main_block));
    let is_avoided = state.path.is_avoided(main_block, 1);
    let Some((slot, word)) = found else {
        let how = if is_avoided { "main, avoided" } else { "main" };
        answer.line(format_args!("sector {sector}: {how}"));
        return Ok(());
    };
    let origin = match word.origin() {
        Origin::Auto => "auto",
        Origin::Manual => "manual",
    };
    let Some(place) = state.path.slot_place(slot) else {
        answer.line(format_args!("sector {sector}: main"));
        return Ok(());
    };
    let start = target
        .spares
        .get(place.member)
        .map_or(0, |spare| spare.start);
    let at = start.saturating_add(place.sector).saturating_add(offset);
    let spare = SpareName(place.member, target);
    match word.state() {
        _ if word.is_doubt() => answer.line(format_args!(
            "sector {sector}: in doubt, {spare} sector {at} ({origin})"
        )),
        SlotState::Pending => answer.line(format_args!(
            "sector {sector}: main, {}, next write to {spare} sector {at} ({origin})",
            if is_avoided { "avoided" } else { "unreadable" }
        )),
        SlotState::Lost => answer.line(format_args!(
            "sector {sector}: lost, next write to {spare} sector {at} ({origin})"
        )),
        _ => answer.line(format_args!(
            "sector {sector}: {spare} sector {at} ({origin}{})",
            if word.is_given_up() { ", given up" } else { "" }
        )),
    }
    Ok(())
}

/// How a spare is called where there may be several.
struct SpareName<'a>(u8, &'a DmRemap);

impl fmt::Display for SpareName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1.spares.count()) {
            (0, 1) => f.write_str("spare"),
            (member, _) => write!(f, "spare {member}"),
        }
    }
}
