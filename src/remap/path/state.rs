// SPDX-License-Identifier: GPL-2.0

//! What bios are looked up in: how each block of main is served.
//!
//! It is read without a lock. Bios are readers of the map's SRCU domain, from their look-up to their completion if they
//! are writes, or if their presence bit is set (E5); all others look at the map under RCU, for a moment. All but the gate
//! is changed under the writer's lock, and the gate by who has the mover's.

use kernel::{
    prelude::*,
    sync::rcu, //
};

use crate::{
    abstractions::{
        dm,
        sync, //
    },
    logic::{
        format::Place,
        message::Blocks,
        presence::{
            self,
            Presence, //
        },
        slot::SlotWord,
        table::Run,
        word::Word, //
    },
    remap::{
        health::life::Life,
        meta::state::MetaState,
        setup::spares::Spares, //
    }, //
};

use super::{
    avoided::AvoidedRanges,
    cells::{
        cells64,
        Cell64, //
    },
    gate::Gate,
    map::{
        patient,
        Map, //
    },
    size::BlockSize, //
};

/// See the module's documentation.
#[pin_data]
pub(in crate::remap) struct PathState {
    pub(in crate::remap) size: BlockSize,
    #[pin]
    pub(in crate::remap) presence: sync::Growing<Cell64>,
    #[pin]
    pub(in crate::remap) map: sync::Published<Map>,
    /// Ranges of main that are not read.
    pub(in crate::remap) avoided: KBox<AvoidedRanges>,
    pub(in crate::remap) gate: Gate,
}

impl PathState {
    /// Begins with what was loaded.
    pub(in crate::remap) fn new(
        size: BlockSize,
        presence: KVVec<Cell64>,
        map: KBox<Map>,
        avoided: KBox<AvoidedRanges>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            size,
            presence <- sync::Growing::new(presence),
            map <- sync::Published::new(map),
            avoided,
            gate: Gate::new(),
        })
    }

    /// Whether nothing in the range is remapped, pending or in doubt, as far as can be told at once: of a
    /// large range it cannot.
    #[inline(always)]
    pub(in crate::remap) fn is_clean(&self, sector: u64, sectors: u32) -> bool {
        sectors <= presence::SMALL && !Presence::new(self.presence.get()).any(sector)
    }

    /// Has presence bits for a main of so many sectors. Allocates, and takes the writer's lock for as long as it takes to
    /// copy the bits that there are, a word for 64 MiB of main: no slot is looked at. (What is remapped or avoided has bits
    /// already, though main may have been larger once: see [`Map::claimed_sectors`].)
    pub(in crate::remap) fn cover(&self, meta: &MetaState, main_sectors: u64) -> Result {
        let words = presence::words_for(main_sectors).ok_or(ENOMEM)?;
        if words <= self.presence.get().len() {
            return Ok(());
        }
        // Old ones are kept, so let there be few.
        let roomy = words.saturating_add(words / 2);
        let longer = cells64(core::iter::empty(), roomy, patient())?;
        let _locked = meta.writer.lock();
        for (new, old) in longer.iter().zip(self.presence.get()) {
            new.store(old.load());
        }
        self.presence.grow(longer)
    }

    /// Where bios are registered.
    #[inline(always)]
    pub(in crate::remap) fn readers(&self) -> &sync::Srcu {
        self.map.readers()
    }

    /// Calls `look` with the map. Must not sleep in there.
    #[inline]
    pub(in crate::remap) fn with_map<R>(&self, look: impl FnOnce(&Map) -> R) -> R {
        let guard = rcu::read_lock();
        look(self.map.load(&guard))
    }

    /// How the longest uniform part of a range of main blocks is served.
    pub(in crate::remap) fn run(&self, main_block: u64, count: u32) -> Run {
        let run = self.with_map(|map| map.view().run(main_block, count));
        self.avoided.cut(main_block, run)
    }

    /// The first of some blocks of main that is not to be read there.
    pub(in crate::remap) fn first_avoided(&self, blocks: Blocks) -> Option<u64> {
        self.avoided.first_in(blocks.first, blocks.count)
    }

    /// Whether a part of some blocks of main is not to be read there.
    pub(in crate::remap) fn is_avoided(&self, main_block: u64, count: u64) -> bool {
        self.avoided.first_in(main_block, count).is_some()
    }

    /// The slot that a main block has now, and its word.
    pub(in crate::remap) fn slot_of(&self, main_block: u64) -> Option<(u32, SlotWord)> {
        self.with_map(|map| map.view().lookup(main_block))
    }

    /// See [`Map::next_claim`].
    pub(in crate::remap) fn next_claim(&self, members: u8, first: u32) -> Option<(u32, SlotWord)> {
        self.with_map(|map| map.next_claim(members, first))
    }

    /// Where a slot lies.
    #[inline]
    pub(in crate::remap) fn slot_place(&self, slot: u32) -> Option<Place> {
        self.with_map(|map| map.extents().place(slot))
    }

    /// The member that has a slot.
    pub(in crate::remap) fn member_of(&self, slot: u32) -> Option<u8> {
        self.slot_place(slot).map(|place| place.member)
    }

    /// Whether a slot is free, and held.
    pub(in crate::remap) fn is_held(&self, slot: u32) -> bool {
        self.with_map(|map| map.word(slot)) == SlotWord::FREE_HELD
    }

    /// The device and the sector on it of a slot; none if its spare is not there, if it is to be written
    /// and its spare is lost, or if something else is in its place.
    pub(in crate::remap) fn locate<'a>(
        &self,
        life: &Life,
        spares: &'a Spares,
        slot: u32,
        write: bool,
    ) -> Option<(u8, &'a dm::Device, u64)> {
        self.with_map(|map| life.locate(map, spares, slot, write))
    }
}
