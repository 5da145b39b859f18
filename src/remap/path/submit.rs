// SPDX-License-Identifier: GPL-2.0

//! Where a bio goes.

use crate::{
    abstractions::{
        block::{
            self,
            BlkStatus, //
        },
        dm,
        sync, //
    },
    logic::{
        presence::{
            Presence,
            SMALL, //
        },
        reach::reach,
        table::{
            Run,
            RunKind, //
        }, //
    },
    remap::{
        health::life::Disk,
        DmRemap, //
    }, //
};

use super::BioData;

/// The most blocks of a bio that are looked up at a time.
const BLOCKS_MAX: u32 = 4096;

impl DmRemap {
    // What is not inlined takes the target from the bio: one thing less to hand over, for each bio.

    /// Maps whatever changes data, and flushes.
    #[inline(never)]
    pub(in crate::remap) fn map_write(bio: dm::MapBio<'_, Self>, sector: u64) -> dm::Mapped<'_> {
        let target = bio.target();
        if bio.opf().is_preflush() || bio.opf().is_fua() {
            return Self::map_durable(bio, sector);
        }
        target.map_data(bio, sector)
    }

    /// Maps a read of what may be remapped, or of which it matters that it succeeds.
    #[inline(never)]
    pub(in crate::remap) fn map_read(bio: dm::MapBio<'_, Self>, sector: u64) -> dm::Mapped<'_> {
        let target = bio.target();
        // From here on, whoever removes a remap waits for this bio.
        let reader = target.state.path.readers().down_read();
        target.look_up::<false>(bio, sector, reader)
    }

    /// Maps what is to be on stable storage.
    #[inline(never)]
    fn map_durable(bio: dm::MapBio<'_, Self>, sector: u64) -> dm::Mapped<'_> {
        let target = bio.target();
        if bio.is_flush() {
            return target.map_flush(bio);
        }
        if target.state.life.is_flush_latched() {
            // Device mapper drops the error of a flush that came before the data.
            return bio.complete(BlkStatus::IOERR);
        }
        target.map_data(bio, sector)
    }

    #[inline(always)]
    fn map_data<'a>(&self, bio: dm::MapBio<'a, Self>, sector: u64) -> dm::Mapped<'a> {
        let state = &**self.state;
        // From here on, whoever closes the gate or removes a remap waits for this bio.
        let reader = state.path.readers().down_read();
        if !state.path.gate.covers(sector, bio.sectors())
            && state.path.is_clean(sector, bio.sectors())
            && !state.life.is_watched()
        {
            let context = dm::BioContext {
                reader: Some(reader),
                ..dm::BioContext::ERRORS_ONLY
            };
            return bio.remap_with(&self.main, sector, context);
        }
        Self::map_marked(bio, sector, reader)
    }

    /// Maps a registered write to what may be remapped or is behind the gate, or of which it matters that
    /// it succeeds.
    #[inline(never)]
    fn map_marked(
        bio: dm::MapBio<'_, Self>,
        sector: u64,
        reader: sync::SrcuReader,
    ) -> dm::Mapped<'_> {
        let target = bio.target();
        if target.state.path.gate.covers(sector, bio.sectors()) {
            drop(reader);
            return target.map_behind_gate(bio);
        }
        target.look_up::<true>(bio, sector, reader)
    }

    /// Maps a registered bio to where its first block is served, as far as that goes.
    #[inline(always)]
    fn look_up<'a, const WRITE: bool>(
        &self,
        bio: dm::MapBio<'a, Self>,
        sector: u64,
        reader: sync::SrcuReader,
    ) -> dm::Mapped<'a> {
        let state = &**self.state;
        let Some(map) = state.path.map.load_registered(&reader) else {
            // It is a reader of that.
            return bio.kill();
        };
        // What is done most often, and with nothing out of the ordinary.
        if bio.sectors() == state.path.size.sectors(1) && state.life.is_plain() {
            match map.view().lookup(state.path.size.block_of(sector)) {
                None => return self.map_to_main::<WRITE>(bio, sector, reader, false),
                Some((slot, word)) if word.is_plain() && bio.op() != block::Op::Discard => {
                    if let Some(place) = state.life.locate(map, &self.spares, slot, WRITE) {
                        return self.map_to_slot::<WRITE>(bio, place, reader, false);
                    }
                }
                Some(_) => (),
            }
        }
        Self::look_up_run::<WRITE>(bio, sector, reader)
    }

    /// Sends a registered bio to main.
    #[inline(always)]
    fn map_to_main<'a, const WRITE: bool>(
        &self,
        bio: dm::MapBio<'a, Self>,
        sector: u64,
        reader: sync::SrcuReader,
        watched: bool,
    ) -> dm::Mapped<'a> {
        let context = dm::BioContext {
            // A read that goes to main need not be waited for.
            reader: WRITE.then_some(reader),
            data: None,
            errors_only: !watched,
        };
        bio.remap_with(&self.main, sector, context)
    }

    /// Sends a registered bio to a slot: a sector of a member's device.
    #[inline(always)]
    fn map_to_slot<'a, const WRITE: bool>(
        &self,
        bio: dm::MapBio<'a, Self>,
        (member, device, sector): (u8, &dm::Device, u64),
        reader: sync::SrcuReader,
        watched: bool,
    ) -> dm::Mapped<'a> {
        let data = BioData {
            disk: member.saturating_add(1),
            ..BioData::default()
        };
        let context = dm::BioContext {
            reader: Some(reader),
            data: Some(data),
            // What was written is in the spare's cache.
            errors_only: !WRITE && !watched,
        };
        bio.remap_with(device, sector, context)
    }

    /// As [`DmRemap::look_up`], whatever the bio is and whatever is found.
    #[inline(never)]
    fn look_up_run<const WRITE: bool>(
        mut bio: dm::MapBio<'_, Self>,
        sector: u64,
        reader: sync::SrcuReader,
    ) -> dm::Mapped<'_> {
        let target = bio.target();
        let state = &**target.state;
        let watched = state.life.is_watched();
        let Some(map) = state.path.map.load_registered(&reader) else {
            return bio.kill();
        };
        let blocks = state.path.size.blocks(bio.sectors());
        if WRITE && watched {
            let first = state.path.size.block_of(sector);
            if state
                .repair
                .notes
                .first_in(first, u64::from(blocks))
                .is_some()
            {
                // Like what is pending, but the map does not know of it so far.
                drop(reader);
                return target.map_behind_gate(bio);
            }
        }
        let run = match bio.sectors() > SMALL {
            // Those without data can be gigabytes long.
            true => reach(
                &Presence::new(state.path.presence.get()),
                &map.view(),
                (state.path.size.block_of(sector), blocks),
                state.path.size.shift,
                BLOCKS_MAX,
            ),
            false => map.view().run(state.path.size.block_of(sector), blocks),
        };
        let run = match state.life.is_avoiding() {
            true => target.cut(state.path.size.block_of(sector), run),
            false => run,
        };
        if bio
            .accept_partial(state.path.size.sectors(run.count))
            .is_err()
        {
            // None of whole blocks.
            return bio.complete(BlkStatus::NOTSUPP);
        }
        match run.kind {
            RunKind::Main => target.map_to_main::<WRITE>(bio, sector, reader, watched),
            RunKind::Pending { .. } if !WRITE => {
                target.map_to_main::<WRITE>(bio, sector, reader, watched)
            }
            RunKind::Slots { .. }
            | RunKind::Failing { .. }
            | RunKind::Pending { .. }
            | RunKind::Lost { .. }
            | RunKind::Avoided
                if bio.op() == block::Op::Discard =>
            {
                // A hint only. The slot keeps its content, which is as good as any other.
                bio.complete(BlkStatus::OK)
            }
            RunKind::Failing { .. }
            | RunKind::Pending { .. }
            | RunKind::Lost { .. }
            | RunKind::Avoided
            | RunKind::Doubt
                if WRITE =>
            {
                drop(reader);
                target.leave_to_worker(bio)
            }
            RunKind::Slots { first } | RunKind::Failing { first } => {
                match state.life.locate(map, &target.spares, first, WRITE) {
                    Some(place) => target.map_to_slot::<WRITE>(bio, place, reader, watched),
                    // Its spare is not there: what it held is lost, and what is written goes elsewhere.
                    None if !WRITE => bio.complete(BlkStatus::IOERR),
                    None => {
                        drop(reader);
                        target.leave_to_worker(bio)
                    }
                }
            }
            // Only a write can be served.
            RunKind::Lost { .. } => bio.complete(BlkStatus::IOERR),
            RunKind::Avoided => bio.complete(BlkStatus::MEDIUM),
            RunKind::Pending { .. } | RunKind::Doubt => {
                drop(reader);
                target.leave_to_worker(bio)
            }
        }
    }

    /// How far what starts at a block is served in one way, where some ranges of main are not read.
    #[cold]
    #[inline(never)]
    fn cut(&self, first: u64, run: Run) -> Run {
        let run = self.state.path.avoided.cut(first, run);
        match run.kind {
            // What is written there goes to the worker.
            RunKind::Avoided => Run {
                count: run.count.min(BLOCKS_MAX),
                ..run
            },
            _ => run,
        }
    }

    /// Leaves a write to a range behind the gate, or with a noted block, to the worker.
    #[cold]
    fn map_behind_gate<'a>(&self, mut bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
        if bio.op() == block::Op::Discard {
            // A hint only.
            return bio.complete(BlkStatus::OK);
        }
        // The worker serves it whole, so let it be small.
        let blocks = bio.sectors().min(self.state.path.size.sectors(BLOCKS_MAX));
        match bio.accept_partial(blocks) {
            Ok(()) => self.leave_to_worker(bio),
            Err(_) => bio.complete(BlkStatus::NOTSUPP),
        }
    }

    /// Maps one of the flushes that there are, one for each device.
    fn map_flush<'a>(&self, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
        let Some((disk, device)) = self.flushed(bio.target_bio_nr()) else {
            return bio.complete(BlkStatus::OK);
        };
        let life = &self.state.life;
        if !life.needs_flush(disk) {
            return bio.complete(BlkStatus::OK);
        }
        if let Disk::Spare(member) = disk {
            if self.state.life.is_lost(member) {
                return bio.complete(match life.flush_lost(member) {
                    true => BlkStatus::OK,
                    false => BlkStatus::IOERR,
                });
            }
        }
        let (sent, flushed) = (life.begin_epoch(disk), life.flush_sent(disk));
        let data = BioData {
            epoch: sent.0,
            stamp: flushed.0,
            ..BioData::default()
        };
        let context = dm::BioContext {
            data: Some(data),
            ..dm::BioContext::default()
        };
        bio.redirect_with(device, context)
    }

    /// Queues a bio that `map` cannot decide about.
    fn leave_to_worker<'a>(&self, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
        if bio.opf().is_nowait() {
            return bio.complete(BlkStatus::AGAIN);
        }
        let (owned, mapped) = bio.take();
        self.state.repair.deferred.push(owned);
        self.kick();
        mapped
    }
}
