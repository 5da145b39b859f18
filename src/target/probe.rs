// SPDX-License-Identifier: GPL-2.0

//! Does main still work as such? (E2)

use super::life::Direction;
use super::mover::Closed;
use super::state::State;
use super::DmRemap;
use crate::dm;
use crate::logic::message::Blocks;

/// Whether any block of main can be read, other than those in question and those that are known to
/// be bad. Near ones are tried first. Waits for I/O, but begins none after `deadline`, save for the
/// first; `buffer` holds a block.
pub(super) fn can_read(
    target: &DmRemap,
    suspects: Blocks,
    deadline: u64,
    buffer: &mut dm::IoBuffer,
) -> bool {
    let mut tried = false;
    candidates(target, suspects).any(|block| {
        if tried && dm::monotonic_ms() >= deadline {
            return false;
        }
        tried = true;
        read(target, block, buffer)
    })
}

/// Whether any block of main can be written. One that can be read is written back, behind the gate,
/// with what was just read. The range of the bio in question is at the desk, so another one is chosen.
///
/// Nobody can be asked whether writes work but the disk; this is done when many in a row have failed,
/// and not before.
pub(super) fn can_write(
    target: &DmRemap,
    suspects: Blocks,
    deadline: u64,
    buffer: &mut dm::IoBuffer,
) -> bool {
    let state = &**target.state;
    let Some(_mover) = state.mover.try_lock() else {
        // Somebody moves blocks, and so will find out. Rather believe the disk once too often.
        return true;
    };
    let mut tried = 0;
    let good = candidates(target, suspects).any(|block| {
        let one = Blocks {
            first: block,
            count: 1,
        };
        if tried >= WRITES || (tried != 0 && dm::monotonic_ms() >= deadline) {
            return false;
        }
        let Some(_closed) = Closed::attempt(state, one, DRAIN_MS) else {
            return false;
        };
        if !read(target, block, buffer) {
            return false;
        }
        tried += 1;
        write_back(target, state, block, buffer)
    });
    // If repairers are everywhere, nothing is known.
    good || tried == 0
}

/// How many blocks may fail to be written before the answer is no.
const WRITES: u32 = 2;

/// How long writes that are under way are waited for, in milliseconds.
const DRAIN_MS: u64 = 1000;

/// Blocks that should be good, the near ones first.
fn candidates(target: &DmRemap, suspects: Blocks) -> impl Iterator<Item = u64> + '_ {
    let state = &**target.state;
    let blocks = target.main_sectors >> state.block_shift;
    let last = blocks.saturating_sub(1);
    let region = REGION_SECTORS >> state.block_shift;
    let places = [
        suspects.first.wrapping_sub(1),
        suspects.first.saturating_add(suspects.count),
        suspects.first.wrapping_sub(region),
        suspects
            .first
            .saturating_add(suspects.count)
            .saturating_add(region),
        0,
        last,
        last / 2,
        last / 4,
        last / 4 * 3,
        last / 8,
    ];
    places.into_iter().filter(move |block| {
        let in_question = block.wrapping_sub(suspects.first) < suspects.count;
        *block < blocks && !in_question && state.slot_of(*block).is_none()
    })
}

/// Twice as much as is at the desk for a bio besides its own blocks.
const REGION_SECTORS: u64 = 2 << 11;

fn read(target: &DmRemap, block: u64, buffer: &mut dm::IoBuffer) -> bool {
    let state = &**target.state;
    let begun = dm::monotonic_ms();
    let sector = state.sector_of(block);
    let good = buffer
        .slice_mut(0..state.bytes(1) as usize)
        .is_ok_and(|data| {
            let opf = dm::Opf::READ.sync();
            state.pool.read(&target.main, sector, data, opf).is_ok()
        });
    if good {
        state.life.proven(Direction::MainRead, begun);
    }
    good
}

fn write_back(target: &DmRemap, state: &State, block: u64, buffer: &dm::IoBuffer) -> bool {
    let begun = dm::monotonic_ms();
    let sector = state.sector_of(block);
    let good = buffer.slice(0..state.bytes(1) as usize).is_ok_and(|data| {
        let opf = dm::Opf::WRITE.sync();
        state.pool.write(&target.main, sector, data, opf).is_ok()
    });
    if good {
        state.life.proven(Direction::MainWrite, begun);
    }
    good
}
