// SPDX-License-Identifier: GPL-2.0

//! Messages about the metadata: `metadata_status`, `save`, `sync`, `recheck`.

use kernel::prelude::*;

use crate::{
    abstractions::dm,
    logic::{
        format::{
            member_bit,
            MEMBERS_MAX, //
        },
        message::reply::Work, //
    },
    remap::{
        health::life::Disk,
        jobs,
        meta::{
            io::SpareIo,
            state::Locked,
            writer::recheck::Recheck, //
        },
        DmRemap, //
    }, //
};

use super::answer::{
    Answer,
    Heard, //
};

/// Writes the superblock, with the counters.
pub(super) fn save(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    write_superblock(target, ti)?;
    answer.line(format_args!("saved"));
    Ok(())
}

/// The same, and flushes all devices.
#[inline(never)]
pub(super) fn sync(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    write_superblock(target, ti)?;
    let state = &**target.state;
    // A suspend waits for messages, so that the devices are there. Of a spare that is lost, users' flushes tell what
    // there is to tell.
    let used = !state.life.shut().lost();
    let (ticket, tickets) = (state.life.flush_sent(Disk::Main), state.life.spares_sent());
    state
        .life
        .flush(&state.user, &state.pool, (Disk::Main, &target.main), ticket)
        .and(
            state
                .life
                .flush_spares(&state.user, &state.pool, (&target.spares, used), &tickets),
        )
        .map_err(|status| Error::from_errno(status.to_errno()))?;
    answer.line(format_args!("synced"));
    Ok(())
}

fn write_superblock(target: &DmRemap, ti: &dm::TargetInfo) -> Result {
    let state = &**target.state;
    let mut locked = target.lock_active(ti)?;
    let Locked { writer, io, .. } = &mut **locked;
    let saved = writer.sync(&mut SpareIo::new(
        &state.user,
        &state.life,
        &target.spares,
        io,
    ));
    drop(locked);
    target.tell_news();
    saved
}

/// Has a switch be as it is now when the device is used again.
pub(super) fn record_auto_remap(target: &DmRemap, ti: &dm::TargetInfo, on: bool) -> Result {
    let state = &**target.state;
    let mut locked = target.lock_active(ti)?;
    let Locked { writer, io, .. } = &mut **locked;
    let mut io = SpareIo::new(&state.user, &state.life, &target.spares, io);
    let recorded = writer.record_auto_remap(&mut io, on);
    drop(locked);
    target.tell_news();
    recorded
}

/// Reads all copies again.
#[inline(never)]
pub(super) fn recheck(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let mut recheck = Recheck::new()?;
    let result = jobs::recheck::recheck(target, ti, &mut recheck);
    answer.conclude((Work::Recheck, recheck.tally), None, result)?;
    for member in (0..MEMBERS_MAX).filter(|member| recheck.silent & member_bit(*member) != 0) {
        answer.line(format_args!(
            "spare {member} does not answer: what it has was not read"
        ));
    }
    Ok(())
}

/// Tells the state of the metadata and of each spare.
#[inline(never)]
pub(super) fn status(target: &DmRemap, answer: &mut Answer<'_, '_>) {
    let locked = target.state.meta.writer.lock();
    let superblock = locked.writer.metadata.superblock();
    answer.line(format_args!("set_uuid={}", superblock.set_uuid));
    answer.line(format_args!(
        "sequence={} epoch={} set_epoch={}",
        superblock.sequence, superblock.epoch, superblock.set_epoch
    ));
    answer.line(format_args!(
        "main_sectors={} main_id={}",
        superblock.main_sectors,
        superblock.main_id.as_str()
    ));
    for (index, member) in superblock.members() {
        let spare = target.spares.get(index);
        let idle = locked.writer.pool_state(index).is_idle();
        answer.line(format_args!(
            "spare={index} state={} uuid={} window_start={} window_sectors={} data_start={}",
            match (spare, member.missing) {
                (None, _) => "absent",
                (Some(_), true) => "lost",
                (Some(_), false) if idle => "idle",
                (Some(_), false) => "used",
            },
            member.uuid,
            spare.map_or(0, |spare| spare.start),
            member.geometry.window_sectors(),
            member.geometry.data_start()
        ));
        answer.line(format_args!(
            "spare={index} slots={} slot_sectors={} usable_slots={} replicas_on={},{}",
            member.slots,
            member.geometry.slot_sectors(),
            member.usable_slots(),
            member.areas[0].host,
            member.areas[1].host
        ));
        answer.line(format_args!(
            "spare={index} void_replicas={:#x} void_superblocks={:#x} relocated_blocks={}",
            member.void_replicas,
            member.void_supers,
            member.relocations().count()
        ));
    }
    for (what, is_so) in [
        ("restoring", locked.writer.is_restoring()),
        ("taking_over", locked.writer.is_taking_over()),
        ("foreign", locked.writer.metadata.is_foreign()),
    ] {
        answer.line(format_args!("{what}={}", if is_so { "yes" } else { "no" }));
    }
}
