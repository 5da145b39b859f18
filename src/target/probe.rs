// SPDX-License-Identifier: GPL-2.0

//! Does main still work as such? (E2)

use super::DmRemap;
use crate::dm;
use crate::logic::message::Blocks;

/// Whether any block of main can be read, other than those in question and those that are known to
/// be bad. Near ones are tried first. Waits for I/O; `buffer` holds a block.
pub(super) fn is_alive(target: &DmRemap, suspects: Blocks, buffer: &mut dm::IoBuffer) -> bool {
    let state = &**target.state;
    let Some(last) = (target.main_sectors >> state.block_shift).checked_sub(1) else {
        return false;
    };
    let candidates = [
        suspects.first.wrapping_sub(1),
        suspects.first.saturating_add(suspects.count),
        0,
        last,
        last / 2,
        last / 4,
        last / 4 * 3,
        last / 8,
    ];
    let alive = candidates.into_iter().any(|block| {
        let in_question = block.wrapping_sub(suspects.first) < suspects.count;
        if block > last || in_question || state.slot_of(block).is_some() {
            return false;
        }
        let bytes = state.bytes(1) as usize;
        buffer.slice_mut(0..bytes).is_ok_and(|data| {
            state
                .pool
                .read(
                    &target.main,
                    state.sector_of(block),
                    data,
                    dm::Opf::READ.sync(),
                )
                .is_ok()
        })
    });
    if !alive {
        state.complain("main fails everywhere, nothing is remapped");
    }
    alive
}
