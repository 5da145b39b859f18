// SPDX-License-Identifier: GPL-2.0

//! Reading all copies of the metadata again, because a user says so. What is read, and what is done about it, is in
//! `meta/writer/recheck.rs`; here is who waits for it, step by step.

use kernel::prelude::*;

use crate::{
    abstractions::dm,
    logic::message::Denial,
    remap::{
        meta::writer::recheck::Recheck,
        DmRemap, //
    }, //
};

/// Reads all copies of the metadata again. However it ends, `recheck` tells what was done.
pub(in crate::remap) fn recheck(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    recheck: &mut Recheck,
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    loop {
        target.check_active(ti)?;
        if state.jobs.must_stop() {
            return Err(EINTR.into());
        }
        state.meta.let_others_write();
        let more = state.with_writer(&target.spares, |writer, io| {
            if !writer.active {
                return Err(Denial::Suspended);
            }
            writer.check_open(&state.user)?;
            Ok(writer.recheck(&state.path, &state.repair, io, recheck)?)
        });
        target.tell_news();
        if !more? {
            return Ok(());
        }
    }
}
