// SPDX-License-Identifier: GPL-2.0

//! What users say with `dmsetup message`.
//!
//! A message that succeeds has its reply printed. Of one that fails, device mapper hands on the
//! errno only, so what is wrong and what is allowed goes to the kernel log.

use super::io::SpareIo;
use super::life::Disk;
use super::mover;
use super::mover::Tally;
use super::names::Show;
use super::state::Locked;
use super::DmRemap;
use crate::dm;
use crate::logic::message;
use crate::logic::message::Message;
use crate::logic::message::MessageError;
use crate::logic::slot::Origin;
use crate::logic::slot::State as SlotState;
use core::fmt;
use core::fmt::Write;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;

/// Handles a message.
pub(super) fn handle(
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
    let _scope = dm::NoIoScope::enter();
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
                // A suspend waits for messages, so that the devices are there.
                let flush = |disk, device| {
                    let ticket = state.life.flush_sent(disk);
                    state.flush(disk, device, ticket)
                };
                flush(Disk::Main, &target.main)
                    .and(flush(Disk::Spare, &target.spare))
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
    let found = state.with_map(|map| map.view().lookup(main_block));
    let Some((slot, word)) = found else {
        return text.line(format_args!("sector {sector}: main"));
    };
    let origin = match word.origin() {
        Origin::Auto => "auto",
        Origin::Manual => "manual",
    };
    let place = state.slot_sector(slot).saturating_add(offset);
    match word.state() {
        _ if word.is_doubt() => text.line(format_args!(
            "sector {sector}: in doubt, spare sector {place} ({origin})"
        )),
        SlotState::Pending => text.line(format_args!(
            "sector {sector}: main, unreadable, next write to spare sector {place} ({origin})"
        )),
        _ => text.line(format_args!(
            "sector {sector}: spare sector {place} ({origin})"
        )),
    }
}

fn metadata_status(target: &DmRemap, text: &mut Text<'_, '_>) {
    let locked = target.state.writer.lock();
    let superblock = locked.writer.metadata.superblock();
    text.line(format_args!("set_uuid={}", superblock.set_uuid));
    text.line(format_args!("member_uuid={}", superblock.member_uuid));
    text.line(format_args!(
        "sequence={} epoch={}",
        superblock.sequence, superblock.epoch
    ));
    text.line(format_args!(
        "slots={} slot_sectors={} usable_slots={}",
        superblock.geometry.slots(),
        superblock.geometry.slot_sectors(),
        superblock.usable_slots()
    ));
    text.line(format_args!(
        "window_start={} window_sectors={} data_start={}",
        target.state.window_start,
        superblock.geometry.window_sectors(),
        superblock.geometry.data_start()
    ));
    text.line(format_args!(
        "main_sectors={} main_id={}",
        superblock.main_sectors,
        superblock.main_id.as_str()
    ));
    text.line(format_args!(
        "void_replicas={:#x} void_superblocks={:#x} relocated_blocks={}",
        superblock.void_replicas,
        superblock.void_supers,
        superblock.relocations().count()
    ));
}

/// The slot at a sector of the spare device, which must be the first of a slot in the data area.
fn first_slot(target: &DmRemap, spare_sector: u64, count: u64) -> Result<u32> {
    let state = &**target.state;
    let outside = || {
        let geometry = &state.geometry;
        pr_err!(
            "{}: add_remap: spare sectors {} to {} are allowed, in whole blocks of {}\n",
            state.name,
            state.window_start.saturating_add(geometry.data_start()),
            state
                .window_start
                .saturating_add(geometry.data_end())
                .saturating_sub(1),
            state.sectors(1)
        );
        ERANGE
    };
    let sector = spare_sector
        .checked_sub(state.window_start)
        .ok_or_else(outside)?;
    let end = sector.checked_add(count).ok_or_else(outside)?;
    let slot = state.geometry.slot_at(sector).ok_or_else(outside)?;
    if end > state.geometry.data_end() || state.geometry.slot_sector(slot) != Some(sector) {
        return Err(outside());
    }
    Ok(slot)
}

/// Writes the superblock.
fn save(target: &DmRemap, locked: &mut Locked) -> Result {
    let state = &**target.state;
    let mut io = SpareIo::new(state, &target.spare, &mut locked.block);
    locked.writer.sync(state, &mut io)
}
