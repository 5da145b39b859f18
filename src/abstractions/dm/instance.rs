// SPDX-License-Identifier: GPL-2.0

//! What belongs to one target while it exists, and how it comes and goes.
//!
//! C source: [`drivers/md/dm-table.c`](srctree/drivers/md/dm-table.c), `dm_table_add_target()` and
//! `dm_table_destroy()`
//!
//! Everything is owned by a guard, so that a constructor which fails half way is unwound by dropping
//! what was made so far, in the opposite order.

use core::ops::Deref;

use kernel::{
    prelude::*,
    str::CStr,
    sync::Arc,
    types::ForeignOwnable, //
};

use crate::abstractions::bindings;

use super::{
    args::{
        Args,
        BioKind,
        CtrError, //
    },
    device::{
        Device,
        OpenDevices,
        Owner, //
    },
    events::{
        DeviceNames,
        Events,
        OwnTable, //
    },
    info::TargetInfo,
    per_bio::PerBio,
    target::Target, //
};

/// What device mapper has given to a target. Dropping it gives all back, which may sleep.
struct Resources {
    table: Arc<OwnTable>,
    devices: OpenDevices,
}

impl Resources {
    /// # Safety
    ///
    /// `ti` must be valid with its table set, and stay so until the result is dropped.
    unsafe fn new(ti: *mut bindings::dm_target) -> Result<Self> {
        Ok(Self {
            // SAFETY: The caller vouches for the target and its table. `drop` ends the use of that.
            table: unsafe { OwnTable::new((*ti).table) }?,
            // SAFETY: The caller vouches for the target. Tables are built and taken down by one
            // thread at a time.
            devices: unsafe { OpenDevices::new(ti) },
        })
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        self.table.end();
    }
}

/// A target and what it was given, where `ti->private` points to.
///
/// The target is declared, and so dropped, first.
///
/// # Invariants
///
/// - `ti` is a target of type `T`, and valid as long as `self` exists.
/// - `begin` is that of `ti`, which does not change.
#[pin_data]
pub(super) struct Instance<T: Target> {
    #[pin]
    target: T,
    ti: *mut bindings::dm_target,
    /// The mapped device's first sector that the target serves.
    begin: u64,
    resources: Resources,
}

impl<T: Target> Instance<T> {
    /// Runs the target's constructor.
    ///
    /// # Safety
    ///
    /// This must be called from the constructor callback of `ti`, which must be of type `T`.
    pub(super) unsafe fn construct(
        ti: *mut bindings::dm_target,
        args: Args<'_>,
    ) -> core::result::Result<(), CtrError> {
        // INVARIANT: By the caller's promise, this is the constructor callback.
        let mut constructor = Constructor {
            // SAFETY: The caller vouches for `ti`; until the end of the destructor it is valid.
            resources: unsafe { Resources::new(ti) }?,
            // SAFETY: As above.
            info: unsafe { TargetInfo::from_raw(ti) },
        };
        // INVARIANT: The caller vouches for `ti` and its type, and for the time in between.
        let instance = KBox::try_pin_init(
            try_pin_init!(Self {
                target <- T::ctr(&mut constructor, args),
                ti,
                begin: constructor.begin(),
                resources: constructor.resources,
            }? CtrError),
            GFP_KERNEL,
        )?;
        // SAFETY: In the constructor callback, nobody else uses `ti`.
        unsafe {
            (*ti).private = instance.into_foreign();
            (*ti).per_io_data_size = const { PerBio::<T>::SIZE as u32 };
            // Otherwise device mapper starts to account for a bio that `map` took over after `map`
            // returned, when its worker may have answered and so freed it. Those that are answered
            // without having been submitted are accounted for when they end, if they succeed.
            (*ti).set_accounts_remapped_io(true);
        }
        Ok(())
    }

    /// Drops the target and all that it was given.
    ///
    /// # Safety
    ///
    /// This must be called from the destructor callback of `ti`, for which `construct` succeeded.
    pub(super) unsafe fn destroy(ti: *mut bindings::dm_target) {
        // SAFETY: `construct` put the pointer there, and after the destructor nobody uses it.
        drop(unsafe { Pin::<KBox<Self>>::from_foreign((*ti).private) });
    }

    /// # Safety
    ///
    /// `construct` must have succeeded for `ti`, and `destroy` must not be called during `'a`.
    #[inline(always)]
    pub(super) unsafe fn of<'a>(ti: *mut bindings::dm_target) -> &'a Self {
        // SAFETY: `construct` put the pointer there, and the caller vouches for the time.
        unsafe { Pin::<KBox<Self>>::borrow((*ti).private) }.get_ref()
    }

    #[inline(always)]
    pub(super) fn target(&self) -> &T {
        &self.target
    }

    /// Returns the `struct dm_target` of this, which is valid as long as it is.
    #[inline(always)]
    pub(super) fn ti(&self) -> *mut bindings::dm_target {
        self.ti
    }

    /// Returns the sector of the target that is `sector` of the mapped device.
    #[inline(always)]
    pub(super) fn target_sector(&self, sector: u64) -> u64 {
        // Device mapper sends a target its own sectors only; a flush has sector 0, though.
        sector.wrapping_sub(self.begin)
    }

    #[inline(always)]
    pub(super) fn owner(&self) -> Owner {
        self.resources.devices.owner()
    }

    pub(super) fn devices(&self) -> &OpenDevices {
        &self.resources.devices
    }
}

/// What a target's constructor works with: its place in the table, as [`TargetInfo`], and what it may ask for.
///
/// # Invariants
///
/// This exists in the constructor callback of `info` only, where nobody else changes the target.
pub struct Constructor<'a> {
    resources: Resources,
    info: &'a TargetInfo,
}

impl Constructor<'_> {
    /// Opens a block device in the mode of the table, read-only or writable: `dm_get_device()`. Sleeps.
    ///
    /// `path` is a path or `major:minor`. The same device may be opened several times.
    pub fn device(&mut self, path: &CStr) -> Result<Device> {
        self.resources.devices.open(path)
    }

    /// Returns what raises events of the mapped device.
    pub fn events(&self) -> Events {
        Events::new(self.resources.table.clone())
    }

    /// Returns what knows the names of the mapped device.
    pub fn device_names(&self) -> DeviceNames {
        DeviceNames::new(self.resources.table.clone())
    }

    fn ti(&mut self) -> &mut bindings::dm_target {
        // SAFETY: By the type invariants, nobody else uses the target now. `TargetInfo` is opaque, so that no
        // reference to its inside exists.
        unsafe { &mut *self.info.as_raw() }
    }

    /// Sets how many bios of a kind the target gets for each one that is submitted, `ti->num_flush_bios` and the
    /// like; 0 until set.
    ///
    /// Device mapper counts those of all targets of a table in an `atomic_t`, and allocates all of one target
    /// at a time. So there may not be many: a table has up to a million targets.
    pub fn set_num_bios(&mut self, kind: BioKind, count: u8) {
        *kind.field(self.ti()) = count.into();
    }

    /// Lets the target get discards even if not all devices below support them: `ti->discards_supported`.
    pub fn set_discards_supported(&mut self, yes: bool) {
        self.ti().set_discards_supported(yes);
    }
}

impl Deref for Constructor<'_> {
    type Target = TargetInfo;

    fn deref(&self) -> &TargetInfo {
        self.info
    }
}
