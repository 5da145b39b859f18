// SPDX-License-Identifier: GPL-2.0

//! Having main not read any more where a user says that it is bad (`avoid`), until `retry` takes that back (E4).
//!
//! How that is made durable, and shown to bios, is in `meta/writer/records.rs`.

use kernel::prelude::*;

use crate::{
    abstractions::dm,
    logic::{
        desk::MOVING_MAX,
        message::{
            Blocks,
            Denial, //
        }, //
    },
    remap::{
        path::size::BlockSize,
        DmRemap, //
    }, //
};

use super::{
    closed::Closed,
    mover::in_part, //
};

/// Has main not read any more in a range, whatever becomes of it (E4). Writes that are on their way to it are waited for.
pub(in crate::remap) fn begin(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
) -> Result<(), Denial<'static>> {
    let (ranges, count) = in_ranges(target.state.path.size, blocks)?;
    let ranges = ranges.get(..count).unwrap_or(&[]);
    in_part(target, ti, |mover| {
        let (state, spares) = (mover.state, &mover.target.spares);
        // What main takes from here on, nobody could read. So it is closed before, and writes that are on their way are
        // waited for; whoever does not wait for that long changes nothing.
        let _closed = Closed::wait(&state.path, &state.repair, &state.jobs, ranges)?;
        state.with_writer(spares, |writer, io| writer.avoid(&state.path, io, blocks))
    })
}

/// The ranges that stand for some blocks at the desk and the gate, where none is longer than 2^32 sectors; and how many.
/// Fails with [`ERANGE`] if there are too many: of more than 31 TiB, one part is avoided after the other.
fn in_ranges(size: BlockSize, blocks: Blocks) -> Result<([Blocks; MOVING_MAX], usize)> {
    let most = u64::from(u32::MAX) >> size.shift;
    let mut ranges = [Blocks { first: 0, count: 0 }; MOVING_MAX];
    let (mut rest, mut used) = (blocks, 0usize);
    for place in &mut ranges {
        if rest.count == 0 {
            break;
        }
        let count = rest.count.min(most);
        *place = Blocks {
            first: rest.first,
            count,
        };
        rest.first = rest.first.saturating_add(count);
        rest.count = rest.count.saturating_sub(count);
        used = used.saturating_add(1);
    }
    match rest.count {
        0 => Ok((ranges, used)),
        _ => Err(ERANGE),
    }
}

/// Lets main be read again in a range. Returns how many blocks of it were avoided.
pub(in crate::remap) fn end(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
) -> Result<u64, Denial<'static>> {
    if !target.state.path.is_avoided(blocks.first, blocks.count) {
        return Ok(0);
    }
    in_part(target, ti, |mover| {
        let (state, spares) = (mover.state, &mover.target.spares);
        state.with_writer(spares, |writer, io| {
            writer.end_avoiding(&state.path, io, blocks)
        })
    })
}
