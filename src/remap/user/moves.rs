// SPDX-License-Identifier: GPL-2.0

//! Messages that move blocks: to the spare, back to main, or that ask main again. What does it is in `jobs`.

use crate::{
    abstractions::dm,
    logic::message::{
        self,
        reply::{
            Tally,
            Work, //
        },
        Denial,
        Sectors, //
    },
    remap::{
        jobs::{
            avoid,
            mover,
            retry,
            zero, //
        },
        DmRemap, //
    }, //
};

use super::answer::{
    Answer,
    Heard, //
};

/// `remap`, `remove_remap`, `zero`, and what is left of `retry`.
pub(super) fn ranges(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    work: Work,
    range: Sectors,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let state = &**target.state;
    let blocks = range.blocks(target.len, state.path.size.sectors(1))?;
    let (mut tally, mut next) = (Tally::default(), blocks.first);
    let (total, at) = (&mut tally, &mut next);
    let result = match work {
        Work::Remap => mover::to_spare(target, ti, blocks, total, at).map_err(Denial::from),
        Work::RemoveRemap => mover::to_main(target, ti, blocks, total, at).map_err(Denial::from),
        Work::Zero => zero::zero(target, ti, blocks, total, at),
        _ => retry::retry(target, ti, blocks, total, at),
    };
    target.tell_news();
    let next = state.path.size.sector_of(next).max(range.first);
    answer.conclude((work, tally), Some(next), result)
}

/// `avoid`.
pub(super) fn avoid(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    range: Sectors,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let blocks = range.blocks(target.len, target.state.path.size.sectors(1))?;
    let result = avoid::begin(target, ti, blocks);
    target.tell_news();
    result?;
    answer.line(format_args!("{} blocks are avoided", blocks.count));
    Ok(())
}

/// `retry`: what is avoided there is so no more, and main is asked for what it could not read.
pub(super) fn retry(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    range: Sectors,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let blocks = range.blocks(target.len, target.state.path.size.sectors(1))?;
    let result = avoid::end(target, ti, blocks);
    target.tell_news();
    match result? {
        0 => (),
        count => answer.line(format_args!("{count} blocks are avoided no more")),
    }
    ranges(target, ti, Work::Retry, range, answer)
}

/// `clear_all`.
pub(super) fn clear_all(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let mut tally = Tally::default();
    let result = mover::all_to_main(target, ti, &mut tally);
    target.tell_news();
    answer.conclude((Work::ClearAll, tally), None, result.map_err(Denial::from))
}

/// `add_remap`, of main's sectors, the spare's, and how many these are.
#[inline(never)]
pub(super) fn add_remap(
    target: &DmRemap,
    ti: &dm::TargetInfo,
    (main_sector, spare_sector, count): (u64, u64, u64),
    answer: &mut Answer<'_, '_>,
) -> Heard<'static> {
    let block_sectors = target.state.path.size.sectors(1);
    let blocks = message::whole_blocks(main_sector, count, target.len, block_sectors)?;
    let first = first_slot(target, spare_sector, count)?;
    let mut tally = Tally::default();
    let result = mover::redirect(target, ti, blocks, first, &mut tally);
    target.tell_news();
    let next = main_sector.saturating_add(tally.moved << target.state.path.size.shift);
    answer.conclude((Work::AddRemap, tally), Some(next), result)
}

/// The slot at a sector of the first spare device, which must be the first of a slot in the data area;
/// and which member that spare is.
fn first_slot(
    target: &DmRemap,
    spare_sector: u64,
    count: u64,
) -> Result<(u8, u32), Denial<'static>> {
    let state = &**target.state;
    let none = Denial::NoSpare { spare: 0 };
    let member = target.spares.nth(0).ok_or(none)?;
    let start = target.spares.get(member).map_or(0, |spare| spare.start);
    let locked = state.meta.writer.lock();
    let superblock = locked.writer.metadata.superblock();
    let (geometry, slots_end) = match superblock.member(member) {
        Some(member) => (member.geometry, member.slots_end()),
        None => return Err(none),
    };
    drop(locked);
    let outside = Denial::NotSlots {
        first: start.saturating_add(geometry.data_start()),
        last: start.saturating_add(slots_end).saturating_sub(1),
        block_sectors: state.path.size.sectors(1),
    };
    let sector = spare_sector.checked_sub(start).ok_or(outside)?;
    let end = sector.checked_add(count).ok_or(outside)?;
    let slot = geometry.slot_at(sector).ok_or(outside)?;
    if end > slots_end || geometry.slot_sector(slot) != Some(sector) {
        return Err(outside);
    }
    Ok((member, slot))
}
