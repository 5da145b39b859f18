// SPDX-License-Identifier: GPL-2.0

//! Giving up a spare that is lost (M9b).
//!
//! What only it has is gone for good then, and main must not answer for it with what it had before. So the set
//! lets the spare go in this order:
//!
//! 1. All superblocks say that there may be entries of lost blocks (M11): older modules refuse the set.
//! 2. Part by part, each block that the spare served gets such an entry on another spare, durable there before
//!    the old entry is freed. That it is newer makes it win, should the power fail in between, or the spare
//!    come back.
//! 3. The replicas that it held for others get another place, and the superblock names it no more. Should
//!    it come back, it is a stranger.
//!
//! A crash, a suspend or an error in between leaves a set with a missing spare, as it was before, which has less to
//! answer for. The message can be repeated.

use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::dm,
    logic::{
        format::member_bit,
        message::Denial, //
    },
    remap::{
        meta::writer::Restored,
        DmRemap, //
    }, //
};

/// Gives up the spare of a member. However it ends, `lost` tells how many blocks are recorded as lost with it.
pub(in crate::remap) fn forget(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    member: u8,
    lost: &mut u64,
) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    check(target, ti, member)?;
    let mut from = 0;
    loop {
        // A suspend waits for the mover's lock.
        let mover = state.jobs.mover.lock();
        target.check_active(ti)?;
        if state.jobs.must_stop() {
            return Err(EINTR.into());
        }
        let part = state.with_writer(&target.spares, |writer, io| {
            writer.lose_blocks(&state.path, &state.repair, io, member, from)
        })?;
        drop(mover);
        *lost = lost.saturating_add(u64::from(part.lost));
        // Here memory can be waited for.
        target.grow(None)?;
        let Some(next) = part.next else {
            break;
        };
        from = next;
        if part.lost == 0 {
            // Somebody has the next one's range.
            fsleep(Delta::from_millis(1));
        }
        state.meta.let_others_write();
    }
    loop {
        state.meta.let_others_write();
        let _mover = state.jobs.mover.lock();
        target.check_active(ti)?;
        if state.jobs.must_stop() {
            return Err(EINTR.into());
        }
        let done = state.with_writer(&target.spares, |writer, io| {
            if writer.metadata.superblock().member(member).is_none() {
                // The restorer was faster: it had nothing any more.
                return Ok(true);
            }
            match writer.restore(&state.path, &state.repair, io, member_bit(member))? {
                Restored::More => Ok(false),
                Restored::Done => writer
                    .remove_member(&state.path, &state.repair, io, member)
                    .map(|()| true),
            }
        })?;
        if done {
            return Ok(());
        }
    }
}

/// Refuses what can be refused before anything is done, and announces what is to come.
fn check(target: &DmRemap, ti: &dm::TargetInfo, member: u8) -> Result<(), Denial<'static>> {
    let state = &**target.state;
    target.check_active(ti)?;
    state.with_writer(&target.spares, |writer, io| {
        writer.check_open(&state.user)?;
        let Some(record) = writer.metadata.superblock().member(member) else {
            return Err(Denial::NoSpare {
                spare: member.into(),
            });
        };
        if !record.missing {
            return Err(Denial::SpareInUse { spare: member });
        }
        if target.spares.get(member).is_some() {
            return Err(Denial::SpareNamed { spare: member });
        }
        let blocks = writer.claims(member);
        let room = writer.slots_beside(member);
        if blocks > room {
            return Err(Denial::NoRoom {
                spare: member,
                blocks,
                room,
            });
        }
        if blocks != 0 {
            // Also if it was tried before: nobody knows what became of that.
            writer.metadata.announce_lost();
            writer.sync(io)?;
        }
        Ok(())
    })
}
