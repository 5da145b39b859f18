// SPDX-License-Identifier: GPL-2.0

//! What users say with `dmsetup message`. What there is to say, help and parsing are in
//! [`logic::message`](crate::logic::message).
//!
//! A message that succeeds has its reply printed. Of one that fails, device mapper hands on the
//! errno only, so what is wrong and what is allowed goes to the kernel log.

use core::fmt::{
    self,
    Write, //
};

use kernel::{
    prelude::*,
    sync::atomic::Relaxed,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        dm,
        sync,
        util, //
    },
    logic::{
        message::{
            self,
            Message,
            MessageError, //
        },
        pool::state::Event,
        slot::{
            Origin,
            SlotState, //
        }, //
    },
    remap::{
        health::life::Disk,
        jobs::{
            closed::must_stop,
            forget,
            mover::{
                self,
                Tally, //
            }, //
        },
        meta::io::SpareIo,
        session::state::Locked,
        DmRemap, //
    }, //
};

use super::names::Show;

/// Handles a message.
pub(in crate::remap) fn handle(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    args: dm::Args<'_>,
    reply: &mut dm::ReplyBuffer<'_>,
) -> Result {
    let words = args.to_strs()?;
    let refuse = |error: MessageError<'_>| {
        pr_err!("{}: {}\n", target.state.name, Show(error));
        Error::from_errno(-error.errno().number())
    };
    let parsed = message::parse(&words).map_err(refuse)?;
    // From here on, an allocation must not wait for I/O: that may wait for the writer's lock.
    let _scope = sync::NoIoScope::enter();
    let state = &**target.state;
    let block_sectors = state.sectors(1);
    let mut text = Text(reply);
    match parsed {
        Message::Ping => text.line(format_args!("pong")),
        Message::Help => text.line(format_args!("{}", message::HELP)),
        Message::Status => text.line(format_args!("{}", target.status_line())),
        Message::SetAutoRemap(on) => {
            state.auto_remap.store(on, Relaxed);
            text.line(format_args!("auto_remap={}", u32::from(on)));
        }
        Message::Set(limit, value) => {
            state.limits.set(limit, value);
            text.line(format_args!("{}={value}", limit.name()));
        }
        Message::ClearStats => {
            let counters = &state.counters;
            for counter in [
                &counters.write_errors,
                &counters.read_errors,
                &counters.auto_remaps,
                &counters.manual_remaps,
                &counters.weak_moves,
                &counters.spare_write_errors,
                &counters.spare_read_errors,
            ] {
                counter.set(0);
            }
            text.line(format_args!("statistics cleared"));
        }
        Message::Verify { sector } => {
            let range = message::Sectors {
                first: sector,
                count: None,
            };
            range.blocks(target.len, block_sectors).map_err(refuse)?;
            verify(target, sector, &mut text);
        }
        Message::MetadataStatus => metadata_status(target, &mut text),
        Message::Save | Message::Sync => {
            let mut locked = target.lock_active(ti)?;
            let saved = save(target, &mut locked);
            drop(locked);
            target.tell_news();
            saved?;
            if parsed == Message::Sync {
                // A suspend waits for messages, so that the devices are there. Of a spare that is lost, users'
                // flushes tell what there is to tell.
                let used = !state.shut().lost();
                let (ticket, tickets) =
                    (state.life.flush_sent(Disk::Main), state.life.spares_sent());
                state
                    .flush(Disk::Main, &target.main, ticket)
                    .and(state.flush_spares(&target.spares, used, &tickets))
                    .map_err(|status| Error::from_errno(status.to_errno()))?;
                text.line(format_args!("synced"));
            } else {
                text.line(format_args!("saved"));
            }
        }
        Message::Remap(range) => {
            let blocks = range.blocks(target.len, block_sectors).map_err(refuse)?;
            let result = mover::to_spare(target, ti, blocks);
            target.tell_news();
            let tally =
                result.inspect_err(|_| state.complain("remap: not all blocks were moved"))?;
            text.tally("remapped", "remapped before", &tally);
        }
        Message::RemoveRemap(range) => {
            let blocks = range.blocks(target.len, block_sectors).map_err(refuse)?;
            let result = mover::to_main(target, ti, blocks);
            target.tell_news();
            let tally = result
                .inspect_err(|_| state.complain("remove_remap: not all blocks were moved back"))?;
            text.tally("moved back", "not remapped", &tally);
        }
        Message::ClearAll => {
            let result = mover::all_to_main(target, ti);
            target.tell_news();
            let tally = result
                .inspect_err(|_| state.complain("clear_all: not all blocks were moved back"))?;
            text.line(format_args!(
                "{} blocks moved back, {} stay on the spare",
                tally.moved, tally.failed
            ));
        }
        Message::Evacuate { spare } => {
            let member = u8::try_from(spare).ok();
            let member = member.filter(|member| target.spares.get(*member).is_some());
            let Some(member) = member else {
                state.complain("evacuate: no spare of that number, see metadata_status");
                return Err(ENODEV);
            };
            let result = mover::evacuate(target, ti, member);
            target.tell_news();
            let tally =
                result.inspect_err(|_| state.complain("evacuate: not all blocks were moved"))?;
            text.line(format_args!(
                "{} blocks moved to other spares, {} stay",
                tally.moved, tally.failed
            ));
        }
        Message::UseSpare { spare } => {
            let member = u8::try_from(spare).ok();
            let member = member.filter(|member| target.spares.get(*member).is_some());
            let Some(member) = member else {
                state.complain("use_spare: no spare of that number, see metadata_status");
                return Err(ENODEV);
            };
            let mut locked = target.lock_active(ti)?;
            if locked.is_leaving(member) {
                state.complain("use_spare: a table is loaded that leaves it out");
                return Err(EBUSY);
            }
            if !locked.writer.pool_state(member).is_usable() {
                state.complain("use_spare: the spare is lost");
                return Err(EIO);
            }
            locked.writer.change_pool(state, member, Event::Fill);
            drop(locked);
            text.line(format_args!("spare {member} is in use"));
        }
        Message::ForgetSpare { spare } => {
            let member = u8::try_from(spare).map_err(|_| ENODEV)?;
            let result = forget::forget(target, ti, member);
            target.tell_news();
            let lost = result
                .inspect_err(|_| state.complain("forget_spare: the spare is still a member"))?;
            text.line(format_args!(
                "spare {member} is given up, {lost} blocks are lost until they are written"
            ));
        }
        Message::AddRemap {
            main_sector,
            spare_sector,
            count,
        } => {
            let blocks = message::whole_blocks(main_sector, count, target.len, block_sectors)
                .map_err(refuse)?;
            let first = first_slot(target, spare_sector, count)?;
            mover::redirect(target, ti, blocks, first).inspect_err(|_| {
                state.complain("add_remap: a block is remapped already or a slot is not free")
            })?;
            text.line(format_args!("{} blocks redirected", blocks.count));
            target.tell_news();
        }
    }
    Ok(())
}

/// A reply of several lines.
struct Text<'a, 'b>(&'a mut dm::ReplyBuffer<'b>);

impl Text<'_, '_> {
    fn line(&mut self, text: fmt::Arguments<'_>) {
        let separator = if self.0.is_empty() { "" } else { "\n" };
        // Writing to the buffer does not fail.
        let _ = write!(self.0, "{separator}{text}");
    }

    fn tally(&mut self, moved: &str, there: &str, tally: &Tally) {
        self.line(format_args!(
            "{} blocks {moved}, {} {there}, {} unreadable",
            tally.moved, tally.there, tally.failed
        ));
    }
}

/// Tells where a sector is served from.
fn verify(target: &DmRemap, sector: u64, text: &mut Text<'_, '_>) {
    let state = &**target.state;
    let main_block = sector >> state.block_shift;
    let offset = sector & u64::from(state.sectors(1).saturating_sub(1));
    // What main could not read a moment ago is about to get its slot.
    let until = state.patience();
    while state.is_noted(main_block) && util::monotonic_ms() < until && !must_stop(state) {
        fsleep(Delta::from_millis(1));
    }
    if state.is_noted(main_block) {
        return text.line(format_args!("sector {sector}: main, unreadable"));
    }
    let found = state.with_map(|map| map.view().lookup(main_block));
    let Some((slot, word)) = found else {
        return text.line(format_args!("sector {sector}: main"));
    };
    let origin = match word.origin() {
        Origin::Auto => "auto",
        Origin::Manual => "manual",
    };
    let Some(place) = state.slot_place(slot) else {
        return text.line(format_args!("sector {sector}: main"));
    };
    let start = target
        .spares
        .get(place.member)
        .map_or(0, |spare| spare.start);
    let at = start.saturating_add(place.sector).saturating_add(offset);
    let spare = SpareName(place.member, target);
    match word.state() {
        _ if word.is_doubt() => text.line(format_args!(
            "sector {sector}: in doubt, {spare} sector {at} ({origin})"
        )),
        SlotState::Pending => text.line(format_args!(
            "sector {sector}: main, unreadable, next write to {spare} sector {at} ({origin})"
        )),
        SlotState::Lost => text.line(format_args!(
            "sector {sector}: lost, next write to {spare} sector {at} ({origin})"
        )),
        _ => text.line(format_args!(
            "sector {sector}: {spare} sector {at} ({origin})"
        )),
    }
}

fn metadata_status(target: &DmRemap, text: &mut Text<'_, '_>) {
    let locked = target.state.writer.lock();
    let superblock = locked.writer.metadata.superblock();
    text.line(format_args!("set_uuid={}", superblock.set_uuid));
    text.line(format_args!(
        "sequence={} epoch={} set_epoch={}",
        superblock.sequence, superblock.epoch, superblock.set_epoch
    ));
    text.line(format_args!(
        "main_sectors={} main_id={}",
        superblock.main_sectors,
        superblock.main_id.as_str()
    ));
    for (index, member) in superblock.members() {
        let spare = target.spares.get(index);
        let pool = locked.writer.pool_state(index);
        text.line(format_args!(
            "spare={index} state={} uuid={} window_start={} window_sectors={} data_start={}",
            match spare {
                None => "absent",
                Some(_) if pool.is_lost() => "lost",
                Some(_) if pool.is_idle() => "idle",
                Some(_) => "used",
            },
            member.uuid,
            spare.map_or(0, |spare| spare.start),
            member.geometry.window_sectors(),
            member.geometry.data_start()
        ));
        text.line(format_args!(
            "spare={index} slots={} slot_sectors={} usable_slots={} replicas_on={},{}",
            member.slots,
            member.geometry.slot_sectors(),
            member.usable_slots(),
            member.areas[0].host,
            member.areas[1].host
        ));
        text.line(format_args!(
            "spare={index} void_replicas={:#x} void_superblocks={:#x} relocated_blocks={}",
            member.void_replicas,
            member.void_supers,
            member.relocations().count()
        ));
    }
    for (what, is_so) in [
        ("restoring", locked.writer.is_restoring()),
        ("taking_over", locked.writer.is_taking_over()),
    ] {
        text.line(format_args!("{what}={}", if is_so { "yes" } else { "no" }));
    }
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

/// The slot at a sector of the first spare device, which must be the first of a slot in the data area;
/// and which member that spare is.
fn first_slot(target: &DmRemap, spare_sector: u64, count: u64) -> Result<(u8, u32)> {
    let state = &**target.state;
    let member = target.spares.nth(0).ok_or(ENODEV)?;
    let start = target.spares.get(member).map_or(0, |spare| spare.start);
    let locked = state.writer.lock();
    let superblock = locked.writer.metadata.superblock();
    let (geometry, slots_end) = match superblock.member(member) {
        Some(member) => (member.geometry, member.slots_end()),
        None => return Err(ENODEV),
    };
    drop(locked);
    let outside = || {
        pr_err!(
            "{}: add_remap: spare sectors {} to {} are allowed, in whole blocks of {}\n",
            state.name,
            start.saturating_add(geometry.data_start()),
            start.saturating_add(slots_end).saturating_sub(1),
            state.sectors(1)
        );
        ERANGE
    };
    let sector = spare_sector.checked_sub(start).ok_or_else(outside)?;
    let end = sector.checked_add(count).ok_or_else(outside)?;
    let slot = geometry.slot_at(sector).ok_or_else(outside)?;
    if end > slots_end || geometry.slot_sector(slot) != Some(sector) {
        return Err(outside());
    }
    Ok((member, slot))
}

/// Writes the superblock.
fn save(target: &DmRemap, locked: &mut Locked) -> Result {
    let state = &**target.state;
    let mut io = SpareIo::new(state, &target.spares, &mut locked.io);
    locked.writer.sync(state, &mut io)
}
