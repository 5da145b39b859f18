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
        dm,
        util, //
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
            Superblock,
            BLOCK_SECTORS, //
        },
        load::Expected,
        set::{
            Name,
            Plan,
            Refusal,
            Wanted, //
        },
        text::Uuid, //
    },
    remap::{
        session::{
            leaving::Leaving,
            state::State, //
        },
        user::names::{
            LogName,
            Show, //
        }, //
    }, //
};

use super::{
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
        MAIN_IN_USE,
        SPARE_IN_USE, //
    },
    registry::{
        self,
        ClaimError,
        Claims,
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
    /// The number of the mapped device.
    pub(super) number: dm::DeviceNumber,
}

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

    /// The line that is to be used once the set is made, if it is new.
    pub(super) fn name_set(
        &self,
        state: &State,
        words: &[&str],
        begin: u64,
        plan: &Plan,
    ) -> CtrResult<Option<CString>> {
        let locked = state.meta.writer.lock();
        let formats = locked.start.as_ref().is_some_and(|start| start.format);
        drop(locked);
        if !formats && plan.inherited == 0 {
            return Ok(None);
        }
        let named = Show(args::Named {
            words,
            options: self.options,
            uuid: state.uuid,
        });
        let line = CString::try_from_fmt(fmt!("{begin} {} {named}", self.len))?;
        Ok(Some(line))
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
    fn register(&self, state: &StateRef, plan: &Plan) -> CtrResult<Spares> {
        let mut spares = Spares::default();
        for (index, spare) in self.spares.iter().enumerate() {
            let member = plan.members.get(index).copied().flatten().ok_or(EINVAL)?;
            let part = self.part(index)?;
            let name = {
                let locked = state.meta.writer.lock();
                plan.name_of(locked.writer.metadata.superblock(), member)
            };
            let name = name.ok_or(EINVAL)?;
            state.add(&part, name).map_err(|error| {
                if error == EEXIST {
                    let (name, uuid) = (&state.user.name, Show(state.uuid));
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
                return Err(EINVAL.into());
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

    /// What the line asks for of the set.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            expected: self.expected(),
            degraded: self.options.degraded,
            format: self.options.format,
            read_only: self.read_only,
        }
    }

    /// Registers the spares.
    #[inline(never)]
    pub(super) fn found(
        &self,
        state: StateRef,
        plan: KBox<Plan>,
        leaving: KBox<Leaving>,
    ) -> CtrResult<KBox<Prepared>> {
        let spares = self.register(&state, &plan)?;
        let found = Prepared {
            state,
            spares,
            plan,
            leaving,
        };
        Ok(KBox::new(found, GFP_KERNEL)?)
    }

    /// Says of which spares there is more than they were formatted with, and how that can be used.
    pub(super) fn tell_grown(&self, superblock: &Superblock, plan: &Plan) {
        for (index, (_, sectors)) in plan.members.iter().zip(self.windows) {
            let member = index.and_then(|index| Some((index, superblock.member(index)?)));
            let Some((index, member)) = member else {
                continue;
            };
            let more = sectors.saturating_sub(member.geometry.window_sectors());
            if more != 0 {
                pr_info!(
                    "{}: spare {index} has grown by {more} sectors, which are not used: to use them, \
                     add another spare, evacuate this one, take it out, and add it again\n",
                    self.name
                );
            }
        }
    }

    /// Lays out a spare that is to be formatted, and checks that there is nothing on it that matters.
    pub(super) fn blank(
        &self,
        window: &Window<'_>,
        must_be_zero: bool,
    ) -> Result<Geometry, Refused> {
        self.wanted().check_blank()?;
        let geometry = self.lay_out(window)?;
        self.check_empty(window, &geometry, must_be_zero)?;
        Ok(geometry)
    }

    /// Lays out a spare that is to be formatted.
    pub(super) fn lay_out(&self, window: &Window<'_>) -> Result<Geometry, Refused> {
        let physical = window.spare.physical_block_size() >> 9;
        let align = physical.clamp(BLOCK_SECTORS as u32, ALIGN_SECTORS_MAX);
        let geometry = Geometry::new(window.sectors, 1 << self.block_shift, align);
        Ok(geometry.map_err(Refusal::Size)?)
    }

    /// Checks that there is nothing on a spare that is to be formatted, or that this may be overwritten.
    pub(super) fn check_empty(
        &self,
        window: &Window<'_>,
        geometry: &Geometry,
        must_be_zero: bool,
    ) -> Result<(), Refused> {
        if must_be_zero && !self.options.format && !window.is_blank(geometry)? {
            return Err(Refusal::NotBlank.into());
        }
        // Who mixes up main and spare destroys main with one word.
        let larger = window.spare.sectors() > self.main.sectors();
        if self.options.format && larger && !window.is_blank(geometry)? {
            return Err(Refusal::LargerThanMain.into());
        }
        Ok(())
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

/// A name for a new set, or a new spare.
pub(super) fn fresh_uuid() -> Uuid {
    Uuid::from_random(util::random_uuid())
}
