// SPDX-License-Identifier: GPL-2.0

//! Having main not read any more where a user says that it is bad (`avoid`), until `retry` takes that back (E4).
//!
//! How that is made durable, and shown to bios, is in `meta/writer/records.rs`.

use crate::{
    abstractions::dm,
    logic::message::{
        Blocks,
        Denial, //
    },
    remap::DmRemap, //
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
    in_part(target, ti, |mover| {
        let (state, spares) = (mover.state, &mover.target.spares);
        state.with_writer(spares, |writer, io| writer.avoid(state, io, blocks))?;
        // What main takes from here on, nobody could read. Whoever does not wait for that long has it avoided all the same.
        let _ = Closed::wait(state, &[blocks]);
        Ok(())
    })
}

/// Lets main be read again in a range. Returns how many blocks of it were avoided.
pub(in crate::remap) fn end(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    blocks: Blocks,
) -> Result<u64, Denial<'static>> {
    if !target.state.is_avoided(blocks.first, blocks.count) {
        return Ok(0);
    }
    in_part(target, ti, |mover| {
        let (state, spares) = (mover.state, &mover.target.spares);
        state.with_writer(spares, |writer, io| writer.end_avoiding(state, io, blocks))
    })
}
