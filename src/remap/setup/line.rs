// SPDX-License-Identifier: GPL-2.0

//! What is known of a table line once its devices are open, and what both ways to a state need.

use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};

use crate::{
    abstractions::{
        block,
        dm, //
    },
    logic::{
        args::{
            self,
            Options, //
        },
        errno::Errno,
        format::{
            geometry::ALIGN_SECTORS_MAX,
            Geometry,
            Member,
            BLOCK_SECTORS,
            MEMBERS_MAX, //
        },
        load::{
            self,
            Expected, //
        }, //
    },
    remap::{
        session::state::{
            Leaving,
            State, //
        },
        user::names::{
            LogName,
            Show, //
        }, //
    }, //
};

use super::{
    changes::Changes,
    ctr::Prepared,
    load::{
        check_main as check_main_content,
        Refused,
        Window, //
    },
    refuse::{
        in_use,
        refuse,
        CtrResult,
        LARGER,
        MAIN_IN_USE,
        SPARE_IN_USE, //
    },
    registry::{
        self,
        ClaimError,
        Claims,
        Name,
        Part,
        StateRef,
        User, //
    },
    spares::{
        Spare,
        Spares, //
    }, //
};

/// Bios of our own that are set aside.
pub(super) const POOL_BIOS: u16 = 16;

/// What is known of a table line once its devices are open.
pub(super) struct Line<'a> {
    pub(super) main: &'a dm::Device,
    /// Sectors of main that are used.
    pub(super) len: u64,
    /// In the order of the line.
    pub(super) spares: &'a [dm::Device],
    pub(super) options: &'a Options,
    pub(super) block_shift: u32,
    /// Where on the spares: first sector, and number of sectors.
    pub(super) windows: &'a [(u64, u64)],
    pub(super) read_only: bool,
    pub(super) user: User,
    pub(super) name: LogName,
}

/// Which member each spare of a table line is.
pub(super) type Members = [Option<u8>; MEMBERS_MAX as usize];

impl Line<'_> {
    /// Claims main and spares.
    pub(super) fn claim(&self) -> CtrResult<Claims> {
        let main = Part {
            device: self.main,
            range: (0, self.len),
        };
        let claimed = registry::claim(self.user, &self.name, main, &self.parts()?);
        claimed.map_err(|error| match error {
            ClaimError::Main => refuse(Errno::Busy, MAIN_IN_USE),
            ClaimError::Spare => refuse(Errno::Busy, SPARE_IN_USE),
            ClaimError::Errno(error) => error.into(),
        })
    }

    /// Checks that main is no spare, unless the line says that it is, or it is main already.
    pub(super) fn check_main(&self, claims: &Claims) -> CtrResult<()> {
        if self.options.spare_as_main || claims.knows_main(self.main) {
            return Ok(());
        }
        let pool = KBox::pin_init(block::BioPool::new(POOL_BIOS), GFP_KERNEL)?;
        check_main_content(&pool, self.main).map_err(|error| self.refuse_read(error))
    }

    pub(super) fn windows<'w>(&'w self, pool: &'w block::BioPool) -> Result<KVec<Window<'w>>> {
        let mut windows = KVec::new();
        for (spare, (start, sectors)) in self.spares.iter().zip(self.windows) {
            let window = Window {
                pool,
                spare,
                start: *start,
                sectors: *sectors,
            };
            windows.push(window, GFP_KERNEL)?;
        }
        Ok(windows)
    }

    /// Has the line told that is to be used once the set is made, if it is new.
    pub(super) fn name_set(
        &self,
        state: &State,
        words: &[&str],
        begin: u64,
        changes: &mut Changes,
    ) -> CtrResult<()> {
        let locked = state.writer.lock();
        let formats = locked.start.as_ref().is_some_and(|start| start.format);
        drop(locked);
        if formats || changes.inherited != 0 {
            let named = Show(args::Named {
                words,
                options: self.options,
                uuid: state.uuid,
            });
            changes.line = Some(CString::try_from_fmt(fmt!("{begin} {} {named}", self.len))?);
        }
        Ok(())
    }

    pub(super) fn part(&self, index: usize) -> Result<Part<'_>> {
        let device = self.spares.get(index).ok_or(EINVAL)?;
        let (start, sectors) = self.windows.get(index).copied().ok_or(EINVAL)?;
        Ok(Part {
            device,
            range: (start, start.saturating_add(sectors)),
        })
    }

    /// The windows on the spares.
    pub(super) fn parts(&self) -> Result<KVec<Part<'_>>> {
        let mut parts = KVec::new();
        for index in 0..self.spares.len() {
            parts.push(self.part(index)?, GFP_KERNEL)?;
        }
        Ok(parts)
    }

    /// Registers the spares as the members that they are, and gives them their numbers.
    pub(super) fn number(
        &self,
        state: &StateRef,
        members: &Members,
        changes: &Changes,
    ) -> CtrResult<Spares> {
        let mut spares = Spares::default();
        for (index, spare) in self.spares.iter().enumerate() {
            let member = members.get(index).copied().flatten().ok_or(EINVAL)?;
            let part = self.part(index)?;
            let name = {
                let locked = state.writer.lock();
                changes.name_of(locked.writer.metadata.superblock(), member)
            };
            let name = name.ok_or(EINVAL)?;
            state.add(&part, name).map_err(|error| {
                if error == EEXIST {
                    let (name, uuid) = (&state.name, Show(state.uuid));
                    pr_err!("{name}: spare {uuid} is in use already\n");
                }
                in_use(error)
            })?;
            let spare = Spare {
                device: spare.clone(),
                start: part.range.0,
                sectors: part.range.1.saturating_sub(part.range.0),
            };
            if !spares.add(member, spare) {
                return Err(refuse(
                    Errno::Exists,
                    c"Two spares are the same member of the set",
                ));
            }
        }
        Ok(spares)
    }

    pub(super) fn expected(&self) -> Expected<'_> {
        Expected {
            uuid: self.options.uuid,
            main_id: self.options.main_id.as_ref(),
            main_sectors: self.main.sectors(),
            main_block_bytes: self.main.logical_block_size(),
        }
    }

    /// Registers the spares.
    #[inline(never)]
    pub(super) fn found(
        &self,
        state: StateRef,
        members: &Members,
        changes: KBox<Changes>,
        leaving: KBox<Leaving>,
    ) -> CtrResult<KBox<Prepared>> {
        let spares = self.number(&state, members, &changes)?;
        let found = Prepared {
            state,
            spares,
            changes,
            leaving,
        };
        Ok(KBox::new(found, GFP_KERNEL)?)
    }

    /// Says that a spare has more room than it was formatted with, and how that can be used.
    pub(super) fn tell_grown(&self, index: u8, member: &Member, sectors: u64) {
        let more = sectors.saturating_sub(member.geometry.window_sectors());
        if more != 0 {
            pr_info!(
                "{}: spare {index} has grown by {more} sectors, which are not used: to use them, \
                 add another spare, evacuate this one, take it out, and add it again\n",
                self.name
            );
        }
    }

    /// Lays out a spare that is to be formatted.
    pub(super) fn blank(
        &self,
        window: &Window<'_>,
        spare: &dm::Device,
        must_be_zero: bool,
    ) -> Result<Geometry, Refused> {
        if self.options.uuid.is_some() {
            return Err(Refused::Text(
                Errno::NoData,
                c"Spare is blank, but the uuid argument names one that was formatted",
            ));
        }
        let align =
            (spare.physical_block_size() >> 9).clamp(BLOCK_SECTORS as u32, ALIGN_SECTORS_MAX);
        let geometry =
            Geometry::new(window.sectors, 1 << self.block_shift, align).map_err(|e| {
                pr_err!("{}: {}\n", self.name, Show(e));
                Refused::Text(e.errno(), c"Spare is too small or too large")
            })?;
        if must_be_zero && !self.options.format && !window.is_blank(&geometry)? {
            return Err(Refused::Text(Errno::Foreign, load::NOT_BLANK));
        }
        // Who mixes up main and spare destroys main with one word.
        let larger = spare.sectors() > self.main.sectors();
        if self.options.format && larger && !window.is_blank(&geometry)? {
            return Err(Refused::Text(Errno::Foreign, LARGER));
        }
        Ok(geometry)
    }
}

/// The spare of a member that a state has in use.
pub(super) fn spare_of(state: &Arc<State>, name: Name) -> Option<Spare> {
    let (device, (start, end)) = registry::spare_of(state, name)?;
    Some(Spare {
        device,
        start,
        sectors: end.saturating_sub(start),
    })
}
