// SPDX-License-Identifier: GPL-2.0

//! Moving weak blocks: those that failed by themselves and could be read in the end.
//!
//! What the bio got is not used, as the block may have been written since (E3): the gate is closed,
//! writes that are under way are waited for, and the block is read again.
//!
//! This happens when the bio is answered, in the time of the repairer and with the range of the bio.
//! Nothing depends on it: whatever comes in between, the block stays where it is and is found again.
//! So it waits for nobody for long: for users' writes at most [`DRAIN_MS`], for another mover not at
//! all.

use kernel::sync::atomic::Relaxed;

use crate::{
    abstractions::{
        block,
        dm,
        util, //
    },
    logic::{
        message::Blocks,
        slot::{
            Origin,
            SlotState, //
        }, //
    },
    remap::{
        meta::io::read_twice,
        repair::{
            crew::RepairBuffers,
            relocate::{
                push,
                ListedBlock,
                Own,
                Relocation,
                Source, //
            }, //
        },
        session::state::State,
        setup::spares::Spares, //
    }, //
};

/// How long writes that are under way are waited for, in milliseconds. No further block is begun when
/// that has passed.
const DRAIN_MS: u64 = 500;

/// Moves what is in `lists.weak`.
pub(super) fn move_weak(
    state: &State,
    main: &dm::Device,
    spares: &Spares,
    (first, tools): (u64, &mut RepairBuffers),
) {
    if tools.lists.weak.is_empty() {
        return;
    }
    let Some(_mover) = state.mover.try_lock() else {
        return;
    };
    let begun = util::monotonic_ms();
    while let Some(block) = tools.lists.weak.pop() {
        let main_block = block.of_main(first);
        // Others may wait for the range.
        let late = util::monotonic_ms().saturating_sub(begun) > DRAIN_MS;
        if late || !state.deferred.is_empty() || state.stopping.load(Relaxed) {
            return;
        }
        let until = begun.saturating_add(DRAIN_MS);
        let active = state.with_writer_by(until, spares, |writer, _| writer.active);
        if active != Some(true) {
            return;
        }
        let range = (state.sector_of(main_block), u64::from(state.sectors(1)));
        state.gate.close(core::iter::once(range));
        let moved = state.readers().synchronize_within(DRAIN_MS)
            && move_one(state, main, spares, tools, main_block);
        // What came to the gate has our range, and is served when that is free.
        state.gate.open();
        if !moved {
            return;
        }
        state.counters.weak_moves.add(1);
        // For users. If somebody else has the lock for long, it is remapped like others.
        state.with_writer_by(until, spares, |writer, _| {
            if let Some((slot, word)) = state.slot_of(main_block) {
                if word.state() == SlotState::Valid {
                    writer.set_word(state, slot, word.with_weak());
                }
            }
        });
    }
}

/// Moves a block whose gate is closed.
fn move_one(
    state: &State,
    main: &dm::Device,
    spares: &Spares,
    tools: &mut RepairBuffers,
    main_block: u64,
) -> bool {
    let served_by_main = match state.slot_of(main_block) {
        None => true,
        Some((_, word)) => word.state() == SlotState::Pending && !word.is_doubt(),
    };
    let sector = state.sector_of(main_block);
    let bytes = state.bytes(1) as usize;
    let read =
        served_by_main.then(|| read_twice(&state.pool, main, sector, &mut tools.data, bytes));
    let Some(Ok(())) = read else {
        return false;
    };
    tools.lists.moves.clear();
    if push(&mut tools.lists.moves, ListedBlock::new(0)).is_err() {
        return false;
    }
    let source = Source::Buffer(&tools.data);
    let error = block::BlkStatus::IOERR;
    let lists = &mut tools.lists;
    let own = Blocks {
        first: main_block,
        count: 1,
    };
    let mut relocation = Relocation::new(
        state,
        spares,
        lists,
        (source, Own::Range(own)),
        Origin::Auto,
        error,
    );
    // The bio is answered, and its target may be gone.
    relocation.tells = false;
    relocation.patience = util::monotonic_ms().saturating_add(DRAIN_MS);
    relocation.run().is_ok()
}
