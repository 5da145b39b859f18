// SPDX-License-Identifier: GPL-2.0

//! Messages about a spare: `evacuate`, `use_spare`, `forget_spare`.

use kernel::prelude::*;

use crate::{
    abstractions::dm,
    logic::{
        event::Event,
        message::{
            reply::{
                Tally,
                Work, //
            },
            Denial, //
        },
        pool::state::PoolEvent, //
    },
    remap::{
        jobs::{
            forget,
            mover, //
        },
        DmRemap, //
    }, //
};

use super::answer::{
    Answer,
    Heard, //
};

/// Moves everything off a spare.
pub(super) fn evacuate(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    spare: u64,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let member = named(target, spare)?;
    let mut tally = Tally::default();
    let result = mover::evacuate(target, ti, member, &mut tally);
    if result.is_ok() {
        let state = &target.state;
        let what = Event::Evacuated.what();
        pr_info!("{}: spare {member} {what}\n", state.user.name);
        state.user.news.note(Event::Evacuated, 1, None);
    }
    target.tell_news();
    answer.conclude((Work::Evacuate, tally), None, result)
}

/// Uses a spare again that was evacuated.
pub(super) fn use_again(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    spare: u64,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let member = named(target, spare)?;
    let mut locked = target.lock_active(ti)?;
    if locked.is_leaving(member) {
        return Err(Denial::SpareLeaves { spare: member });
    }
    if !locked.writer.pool_state(member).is_usable() {
        return Err(Denial::SpareLost { spare: member });
    }
    locked
        .writer
        .change_pool(&target.state.user, member, PoolEvent::Fill);
    drop(locked);
    answer.line(format_args!("spare {member} is in use"));
    Ok(())
}

/// Gives up a spare that is lost.
pub(super) fn forget(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    spare: u64,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let member = u8::try_from(spare).map_err(|_| Denial::NoSpare { spare })?;
    let mut lost = 0;
    let result = forget::forget(target, ti, member, &mut lost);
    target.tell_news();
    if result.is_ok() {
        answer.line(format_args!(
            "spare {member} is given up, {lost} blocks are lost until they are written"
        ));
        return Ok(());
    }
    let tally = Tally {
        moved: lost,
        ..Tally::default()
    };
    answer.conclude((Work::ForgetSpare, tally), None, result)
}

/// The member that the table has under a number.
fn named(target: &DmRemap, spare: u64) -> Result<u8, Denial<'static>> {
    let member = u8::try_from(spare).ok();
    let member = member.filter(|member| target.spares.get(*member).is_some());
    member.ok_or(Denial::NoSpare { spare })
}
