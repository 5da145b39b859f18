// SPDX-License-Identifier: GPL-2.0

//! A table for a device that is not in use: its state is made of what is on the spares, or they are to be formatted.

use kernel::{
    new_condvar,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc, //
    }, //
};

use crate::{
    abstractions::{
        block,
        dm,
        sync,
        util, //
    },
    logic::{
        commit::Metadata,
        desk::Desk,
        errno::Errno,
        format::{
            Geometry,
            MEMBERS_MAX, //
        },
        group::{
            self,
            Group, //
        },
        load::{
            self,
            LoadError, //
        },
        presence,
        text::Uuid, //
    },
    remap::{
        health::life::Life,
        jobs::mover::{
            self,
            DATA_BYTES, //
        },
        meta::{
            io::IoMemory,
            writer::Writer, //
        },
        path::{
            cells::cells64,
            gate::Gate,
            map::Map, //
        },
        repair::{
            notes::Notes,
            relocate::Request, //
        },
        session::{
            activate::Start,
            state::{
                Counters,
                Leaving,
                Leftover,
                Locked,
                State, //
            }, //
        },
        user::limits::Limits, //
    }, //
};

use super::{
    changes::Changes,
    ctr::Prepared,
    line::{
        Line,
        Members,
        POOL_BIOS, //
    },
    load::{
        find_superblock,
        tables,
        Loaded,
        Refused,
        Window, //
    },
    refuse::{
        refuse,
        CtrResult,
        HAS_METADATA,
        READ_ONLY, //
    },
    registry::Claims, //
};

impl Line<'_> {
    /// Makes a state of what is on the spares.
    #[inline(never)]
    pub(super) fn load(&self, claims: Claims) -> CtrResult<KBox<Prepared>> {
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        let windows = self.windows(&pool)?;
        let mut changes = KBox::new(Changes::default(), GFP_KERNEL)?;
        let read = self.read(&windows, &mut changes);
        let (loaded, format, members) = read.map_err(|error| self.refuse_read(error))?;
        if (format || changes.has_joining()) && self.read_only {
            return Err(refuse(Errno::ReadOnly, READ_ONLY));
        }
        self.check_writable(loaded.metadata.superblock())?;
        if format && claims.leaves_remaps() {
            return Err(refuse(
                Errno::Busy,
                c"The device has remaps on another spare: name that, too, and evacuate it later, \
                  or, if it is dead, use degraded",
            ));
        }
        let state = claims.with(self.make_state(loaded, format)?);
        self.found(state, &members, changes, Leaving::new(self.user.table)?)
    }

    /// Reads what is on the spares, or decides that they are to be formatted.
    #[inline(never)]
    pub(super) fn read(
        &self,
        windows: &[Window<'_>],
        changes: &mut Changes,
    ) -> Result<(KBox<Loaded>, bool, Members), Refused> {
        let mut metadata = KBox::new(Metadata::EMPTY, GFP_KERNEL)?;
        let mut ignored = 0u8;
        let found = loop {
            match find_superblock(windows, ignored, metadata.superblock_mut()) {
                Err(Refused::Content(error)) if self.options.format && error.may_be_formatted() => {
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
        let mut members = [None; MEMBERS_MAX as usize];
        let load::Found::Ours(chosen) = found else {
            return self.format(windows, ignored, metadata, changes);
        };
        metadata.name_anew(&chosen, || Uuid::from_random(util::random_uuid()));
        if self.options.format && chosen.blank == 0 {
            return Err(Refused::Text(Errno::Exists, HAS_METADATA));
        }
        let superblock = metadata.superblock();
        load::check_expected(superblock, &self.expected())?;
        for (index, member) in superblock.members() {
            let Some(spare) = chosen.spare_of(index) else {
                continue;
            };
            let window = windows.get(usize::from(spare)).ok_or(EINVAL)?;
            load::check_window(member, window.sectors)?;
            self.tell_grown(index, member, window.sectors);
            if chosen.joining & (1 << spare.min(7)) != 0 {
                // It was to be a member when the power failed, and this one is not another.
                self.check_still_blank(window, &member.geometry)?;
            }
            if let Some(place) = members.get_mut(usize::from(spare)) {
                *place = Some(index);
            }
        }
        if let Some(member) = chosen
            .asked_for(superblock)
            .filter(|_| !self.options.degraded)
        {
            return Err(LoadError::incomplete(superblock, member).into());
        }
        for (window, spare) in windows.iter().zip(0u8..) {
            if chosen.blank & (1 << spare.min(7)) == 0 {
                continue;
            }
            let must_be_zero = ignored & (1 << spare.min(7)) == 0;
            let geometry = self.blank(window, window.spare, must_be_zero)?;
            let index = changes.add(superblock, geometry);
            let index = index.ok_or(Refused::Content(LoadError::TooMany))?;
            if let Some(place) = members.get_mut(usize::from(spare)) {
                *place = Some(index);
            }
        }
        Ok((tables(windows, &chosen, metadata)?, false, members))
    }

    /// Checks that there is nothing on a spare but what its becoming a member has left.
    fn check_still_blank(&self, window: &Window<'_>, geometry: &Geometry) -> Result<(), Refused> {
        if window.is_blank_but_for_supers(geometry)? {
            Ok(())
        } else {
            Err(Refused::Text(Errno::Foreign, load::NOT_BLANK))
        }
    }

    /// Makes the metadata of new spares. Nothing is written yet.
    #[inline(never)]
    pub(super) fn format(
        &self,
        windows: &[Window<'_>],
        ignored: u8,
        mut metadata: KBox<Metadata>,
        changes: &mut Changes,
    ) -> Result<(KBox<Loaded>, bool, Members), Refused> {
        let mut members = [None; MEMBERS_MAX as usize];
        for (window, spare) in windows.iter().zip(0u8..) {
            let must_be_zero = ignored & (1 << spare.min(7)) == 0;
            let geometry = self.blank(window, window.spare, must_be_zero)?;
            if spare == 0 {
                metadata.superblock_mut().begin(
                    Uuid::from_random(util::random_uuid()),
                    Uuid::from_random(util::random_uuid()),
                    geometry,
                    self.len,
                    self.options.main_id.unwrap_or_default(),
                );
            } else {
                let added = changes.add(metadata.superblock(), geometry);
                added.ok_or(Refused::Content(LoadError::TooMany))?;
            }
            if let Some(place) = members.get_mut(usize::from(spare)) {
                *place = Some(spare);
            }
        }
        metadata.create();
        Ok((Loaded::empty(metadata)?, true, members))
    }

    #[inline(never)]
    fn make_state(&self, loaded: KBox<Loaded>, format: bool) -> CtrResult<Arc<State>> {
        let (uuid, block_shift) = (loaded.metadata.superblock().set_uuid, self.block_shift);
        let words = presence::words_for(self.main.sectors()).ok_or(ENOMEM)?;
        let presence = cells64(core::iter::empty(), words, GFP_KERNEL)?;
        loaded.map.mark_presence(&presence, block_shift);
        let (locked, map, counters) = self.make_locked(loaded, format)?;
        let tools = mover::MoverBuffers::new()?;
        let leftover = Leftover::new()?;
        let notes = Notes::new()?;
        let (desk, group) = (make_desk()?, make_group()?);
        let zeroes = block::IoBuffer::new(DATA_BYTES, GFP_KERNEL)?;
        let name = self.name.try_clone()?;
        Ok(Arc::pin_init(
            try_pin_init!(State {
                name,
                uuid,
                block_shift,
                presence <- sync::Growing::new(presence),
                map <- sync::Published::new(map),
                gate: Gate::new(),
                notes,
                probing: Atomic::new(0),
                waiting: Atomic::new(0),
                stopping: Atomic::new(false),
                lost: Atomic::new(0),
                deferred: dm::BioList::new(),
                desk <- new_mutex!(desk, "dm_remap_desk"),
                desk_changed <- new_condvar!("dm_remap_desk"),
                group <- new_mutex!(group, "dm_remap_group"),
                group_changed <- new_condvar!("dm_remap_group"),
                life: Life::new(),
                limits: Limits::new(),
                counters,
                auto_remap: Atomic::new(true),
                log <- util::RateLimit::new(5, 10),
                pool <- block::BioPool::new(POOL_BIOS),
                zeroes,
                leftover <- new_mutex!(leftover, "dm_remap_leftover"),
                mover <- sync::IoMutex::new(new_mutex!(tools, "dm_remap_mover")),
                writer <- sync::IoMutex::new(new_mutex!(locked, "dm_remap_writer")),
                dispatch <- new_work!("dm_remap_dispatch"),
                growth <- new_work!("dm_remap_growth"),
            }),
            GFP_KERNEL,
        )?)
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
        counters.left.set(u64::from(writer.slots_left()));
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
        Ok((KBox::new(locked, GFP_KERNEL)?, map, counters))
    }
}

/// Seats for all who move blocks.
fn make_group() -> Result<Group<KVec<group::Seat<Request>>>> {
    let mut seats = KVec::with_capacity(group::SEATS, GFP_KERNEL)?;
    for _ in 0..group::SEATS {
        seats.push_within_capacity(None)?;
    }
    Ok(Group::new(seats))
}

/// A desk at which nobody works. Not inline: it is too large to be made on a stack that others need.
#[inline(never)]
fn make_desk() -> Result<KBox<Desk>> {
    Ok(KBox::new(Desk::new(), GFP_KERNEL)?)
}
