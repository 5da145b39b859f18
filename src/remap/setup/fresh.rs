// SPDX-License-Identifier: GPL-2.0

//! A table for a device that is not in use: its state is made of what is on the spares, or they are to be formatted.

use kernel::{
    new_work,
    prelude::*,
    sync::Arc, //
};

use crate::{
    abstractions::{
        block,
        trace, //
    },
    logic::{
        commit::Metadata,
        format::{
            Geometry,
            Superblock, //
        },
        load::{
            self,
            Chosen,
            LoadError, //
        },
        presence,
        set::{
            NamedSpare,
            Plan,
            Refusal,
            Seen, //
        }, //
    },
    remap::{
        health::life::Life,
        jobs::state::JobsState,
        meta::{
            io::IoMemory,
            state::{
                Locked,
                MetaState, //
            },
            writer::Writer, //
        },
        path::{
            avoided::{
                mark_avoided,
                AvoidedRanges, //
            },
            cells::{
                cells64,
                Cell64, //
            },
            map::Map,
            size::BlockSize,
            state::PathState, //
        },
        repair::state::RepairState,
        session::{
            activate::Start,
            leaving::Leaving,
            state::State, //
        },
        user::{
            counters::Counters,
            params,
            state::UserState, //
        }, //
    }, //
};

use super::{
    ctr::Prepared,
    line::{
        fresh_uuid,
        Line,
        POOL_BIOS, //
    },
    load::{
        find_superblock,
        tables,
        Loaded,
        Refused,
        Window, //
    },
    refuse::CtrResult,
    registry::Claims, //
};

impl Line<'_> {
    /// Makes a state of what is on the spares.
    #[inline(never)]
    pub(super) fn load(&self, claims: Claims) -> CtrResult<KBox<Prepared>> {
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let windows = self.windows(&pool)?;
        let mut plan = KBox::new(Plan::default(), GFP_KERNEL)?;
        let read = self.read(&windows, &claims, &mut plan);
        let (loaded, format) = read.map_err(|error| self.refuse_read(error))?;
        let state = claims.with(self.make_state(loaded, format)?);
        self.found(state, plan, Leaving::new(self.user.table)?)
    }

    /// Reads what is on the spares, or decides that they are to be formatted.
    #[inline(never)]
    fn read(
        &self,
        windows: &[Window<'_>],
        claims: &Claims,
        plan: &mut Plan,
    ) -> Result<(KBox<Loaded>, bool), Refused> {
        let mut metadata = KBox::new(Metadata::EMPTY, GFP_KERNEL)?;
        let mut ignored = 0u8;
        let found = loop {
            match find_superblock(windows, ignored, metadata.superblock_mut()) {
                Err(Refused::Why(Refusal::Content(error)))
                    if self.options.format && error.may_be_formatted() =>
                {
                    // Each spare once.
                    match error {
                        LoadError::Superblock { spare, .. } | LoadError::Unfinished { spare } => {
                            ignored |= 1 << spare.min(7);
                        }
                        _ => return Err(error.into()),
                    }
                }
                other => break other?,
            }
        };
        match found {
            load::Found::Ours(chosen) => {
                metadata.name_anew(&chosen, fresh_uuid);
                self.plan_for(metadata.superblock(), windows, ignored, &chosen, plan)?;
                Ok((tables(windows, &chosen, metadata)?, false))
            }
            load::Found::Blank => {
                self.format(metadata.superblock_mut(), windows, ignored, claims, plan)?;
                metadata.create();
                Ok((Loaded::empty(metadata)?, true))
            }
        }
    }

    /// Plans for a set that was found, and checks that there is nothing on those that join.
    #[inline(never)]
    fn plan_for(
        &self,
        superblock: &Superblock,
        windows: &[Window<'_>],
        ignored: u8,
        chosen: &Chosen,
        plan: &mut Plan,
    ) -> Result<(), Refused> {
        let mut spares = KVec::new();
        for (window, number) in windows.iter().zip(0u8..) {
            let seen = match chosen.member_on(number) {
                Some(index) => Seen::Member(index),
                None => Seen::Blank(self.lay_out(window)?),
            };
            spares.push(named(window, seen), GFP_KERNEL)?;
        }
        *plan = Plan::for_loaded(&self.wanted(), superblock, &spares, fresh_uuid)?;
        self.tell_grown(superblock, plan);
        for ((window, number), spare) in windows.iter().zip(0u8..).zip(&spares) {
            match spare.seen {
                Seen::Blank(geometry) => {
                    let must_be_zero = ignored & (1 << number.min(7)) == 0;
                    self.check_empty(window, &geometry, must_be_zero)?;
                }
                // It was to be a member when the power failed, and this one is not another.
                Seen::Member(index) if chosen.joining & (1 << number.min(7)) != 0 => {
                    let member = superblock.member(index).ok_or(EINVAL)?;
                    self.check_still_blank(window, &member.geometry)?;
                }
                _ => (),
            }
        }
        Ok(())
    }

    /// Checks that there is nothing on a spare but what its becoming a member has left.
    fn check_still_blank(&self, window: &Window<'_>, geometry: &Geometry) -> Result<(), Refused> {
        if window.is_blank_but_for_supers(geometry)? {
            Ok(())
        } else {
            Err(Refusal::NotBlank.into())
        }
    }

    /// Makes the superblock of new spares, and plans for these. Nothing is written yet.
    #[inline(never)]
    fn format(
        &self,
        superblock: &mut Superblock,
        windows: &[Window<'_>],
        ignored: u8,
        claims: &Claims,
        plan: &mut Plan,
    ) -> Result<(), Refused> {
        let mut spares = KVec::new();
        for (window, number) in windows.iter().zip(0u8..) {
            let must_be_zero = ignored & (1 << number.min(7)) == 0;
            let geometry = self.blank(window, must_be_zero)?;
            let seen = if number == 0 {
                superblock.begin(
                    fresh_uuid(),
                    fresh_uuid(),
                    geometry,
                    self.len,
                    self.options.main_id.unwrap_or_default(),
                );
                Seen::Member(0)
            } else {
                Seen::Blank(geometry)
            };
            spares.push(named(window, seen), GFP_KERNEL)?;
        }
        let leaves = claims.leaves_remaps();
        *plan = Plan::for_new(&self.wanted(), superblock, &spares, leaves, fresh_uuid)?;
        Ok(())
    }

    #[inline(never)]
    fn make_state(&self, loaded: KBox<Loaded>, format: bool) -> CtrResult<Arc<State>> {
        let uuid = loaded.metadata.superblock().set_uuid;
        let (presence, avoided) = self.make_presence(&loaded)?;
        let auto_remap = loaded.metadata.superblock().switches.auto_remap;
        let auto_remap = auto_remap.unwrap_or_else(params::auto_remap);
        let (locked, map, counters) = self.make_locked(loaded, format)?;
        let (name, tracer) = (self.name.try_clone()?, trace::Tracer::new(self.number));
        let size = BlockSize {
            shift: self.block_shift,
        };
        let state = Arc::pin_init(
            try_pin_init!(State {
                uuid,
                user <- UserState::new(name, tracer, counters, auto_remap)?,
                path <- PathState::new(size, presence, map, avoided),
                life: Life::new(),
                repair <- RepairState::new()?,
                meta <- MetaState::new(locked),
                jobs <- JobsState::new()?,
                pool <- block::BioPool::new(POOL_BIOS),
                dispatch <- new_work!("dm_remap_dispatch"),
                growth <- new_work!("dm_remap_growth"),
            }),
            GFP_KERNEL,
        )?;
        state.life.set_avoiding(!state.path.avoided.is_empty());
        Ok(state)
    }

    /// Makes what tells bios where main does not just serve them.
    #[inline(never)]
    fn make_presence(&self, loaded: &Loaded) -> CtrResult<(KVVec<Cell64>, KBox<AvoidedRanges>)> {
        let (superblock, block_shift) = (loaded.metadata.superblock(), self.block_shift);
        let mut sectors = self.main.sectors();
        if superblock.main_sectors > sectors {
            // Main was larger once, and may be again while this state is in use.
            sectors = sectors.max(loaded.map.claimed_sectors(block_shift));
            sectors = sectors.max(superblock.avoided.end() << block_shift);
        }
        let words = presence::words_for(sectors).ok_or(ENOMEM)?;
        let presence = cells64(core::iter::empty(), words, GFP_KERNEL)?;
        loaded.map.mark_presence(&presence, block_shift);
        mark_avoided(&superblock.avoided, &presence, block_shift);
        let avoided = AvoidedRanges::new(&superblock.avoided)?;
        Ok((presence, KBox::new(avoided, GFP_KERNEL)?))
    }

    /// Makes what the writer's lock protects, of what was read.
    #[inline(never)]
    fn make_locked(
        &self,
        loaded: KBox<Loaded>,
        format: bool,
    ) -> CtrResult<(KBox<Locked>, KBox<Map>, Counters)> {
        let Loaded {
            mut metadata,
            map,
            counts,
            generations,
            rewrites,
            dirty,
        } = KBox::into_inner(loaded);
        metadata.set_main(self.len, self.options.main_id.as_ref());
        let counters = Counters::new(metadata.superblock(), &map);
        let writer = Writer::new(metadata, &map, counts, generations)?;
        let locked = Locked {
            writer,
            io: IoMemory::new()?,
            start: Some(Start {
                format,
                rewrites,
                dirty,
            }),
            leaving: None,
        };
        let mut locked = KBox::new(locked, GFP_KERNEL)?;
        locked.writer.begin(&counters);
        Ok((locked, map, counters))
    }
}

/// A spare that no table before has named.
fn named(window: &Window<'_>, seen: Seen) -> NamedSpare {
    NamedSpare {
        name: None,
        seen,
        sectors: window.sectors,
    }
}
