// SPDX-License-Identifier: GPL-2.0

//! New spares in the place of dead ones (P15, M9b).
//!
//! When nobody answers of all spares of a device in use, only memory knows what was on them. A table that names
//! new ones instead, and says `degraded`, has that recorded there: each block that a dead one served is *lost*, an
//! error until it is written, and main never answers for it. The order, and what a crash after each step finds:
//!
//! 1. The superblocks of the new spares: the dead ones are missing, and the set is *unfinished*. Met so, it is
//!    refused, as it does not know all that main must not answer for. The dead ones were not written to: if they
//!    are back, they are what they were. This is done before the table serves anything.
//! 2. Part by part, each block gets an entry on a new spare. This and the rest is done in the background, by the
//!    [`restorer`](crate::remap::jobs::restorer).
//! 3. The dead ones are no members any more. Should they come back, they are strangers.
//! 4. The set is not unfinished any more: the superblocks say so.
//!
//! Until step 4 nothing else is committed, so no write is acknowledged that needs a slot, and nothing that the
//! dead ones would contradict if they, and not the new ones, are there after a crash. Main's other sectors are
//! served as ever.
//!
//! A table tries this when it is first resumed, and never again: what nobody has asked since may be back.
//!
//! If a new spare dies in step 1, all is as it was before. If it does later, it is one of the dead ones.

use kernel::prelude::*;

use crate::{
    abstractions::block,
    logic::{
        format::MEMBERS_MAX,
        set::Plan, //
    },
    remap::{
        meta::{
            io::{
                is_dead,
                SpareIo, //
            },
            writer::Writer, //
        },
        path::state::PathState,
        setup::spares::Spares, //
    }, //
};

use super::activate::{
    join,
    Table, //
};

/// Does the first step. Afterwards the spares that join are members; or all is as it was, and the log says why.
pub(in crate::remap) fn begin(
    path: &PathState,
    pool: &block::BioPool,
    writer: &mut Writer,
    io: &mut SpareIo<'_>,
    dead: &Spares,
    table: &Table<'_>,
) -> Result {
    let (user, life) = (io.user, io.life);
    let name = &user.name;
    for (index, spare) in dead.iter() {
        // It may be back since the table was loaded, and have taken writes.
        if !is_dead(pool, spare)? {
            writer.note_answered(index, true);
            pr_err!("{name}: spare {index} answers again, and is not taken over from: load a table with it\n");
            return Err(EBUSY);
        }
    }
    // Nobody waits for memory that this lock would keep from being freed: the device is suspended.
    let before = writer.before_take_over()?;
    if let Err(error) = try_begin(path, writer, io, table.plan) {
        pr_err!("{name}: the new spares cannot take over: {error:?}\n");
        writer.undo_take_over(user, life, &before);
        return Err(error);
    }
    pr_warn!("{name}: new spares take over, what the old ones had is lost until it is written\n");
    table.tell_line(user, "once they have");
    Ok(())
}

fn try_begin(path: &PathState, writer: &mut Writer, io: &mut SpareIo<'_>, plan: &Plan) -> Result {
    // Repairs that were under way when the table was loaded may have added some.
    plan.check_room(&writer.set(None)).map_err(|_| ENOSPC)?;
    join(io.user, path, writer, plan)?;
    writer.begin_take_over(plan.inherited)?;
    writer.sync(io)?;
    let superblock = writer.metadata.superblock();
    let mut heirs = (0..MEMBERS_MAX).filter(|index| plan.joins(*index));
    let all = heirs.all(|index| {
        let heir = superblock.member(index);
        writer.metadata.is_usable(index) && heir.is_some_and(|heir| heir.has_supers())
    });
    all.then_some(()).ok_or(EIO)
}
