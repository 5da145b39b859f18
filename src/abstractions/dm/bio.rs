// SPDX-License-Identifier: GPL-2.0

//! Bios on their way through a target.
//!
//! C source: [`drivers/md/dm.c`](srctree/drivers/md/dm.c), `__map_bio()` and `clone_endio()`
//!
//! A bio that device mapper hands to a target has to be answered exactly once, by one of the things
//! that can be done with it. So [`MapBio`] and [`EndedBio`] are consumed by what decides about them,
//! and that is the only source of the [`Mapped`] and [`Ended`] values which `map` and `end_io` have
//! to return: a bio that is forgotten, answered twice or mistaken for another does not compile.
//!
//! ```text
//!             +--------- remap ----------> device ------+
//!             |                              ^          |
//!   map: MapBio --- take --> OwnedBio -- submit         v
//!             |                |  ^                  end_io: EndedBio --- done ---> caller
//!             |                |  +------- take --------+
//!             +-- complete ----+---- complete --------------------------------------> caller
//! ```
//!
//! What goes with a bio from `map` to `end_io` is a [`BioContext`]: data of the target's own, a registered reader
//! of an [`Srcu`](crate::abstractions::sync::Srcu) domain, and whether `end_io` is to see the bio if all went well.
//!
//! The lifetime `'a` is a different one in each call, which is what ties the answer to its bio.

use core::{
    marker::PhantomData,
    mem::{
        self,
        MaybeUninit, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    block::SECTOR_SHIFT,
    build_assert::build_assert,
    error::{
        code::*,
        Result, //
    },
    ffi::c_int,
    sync::rcu, //
};

use crate::abstractions::{
    bindings,
    block::{
        opf::{
            Op,
            Opf, //
        },
        status::BlkStatus, //
    },
    compat,
    sync::srcu::SrcuReader,
    warn::warn_once, //
};

use super::{
    device::Device,
    instance::Instance,
    owned::OwnedBio,
    per_bio::{
        Completion,
        CompletionFlag,
        PerBio, //
    },
    target::Target, //
};

/// Gives `bio` another device, as `bio_set_dev()` does, but for the cgroup: that is seen to by
/// `dm_submit_bio_remap()`, through which all clones go. And a bio that goes once more where it was before is
/// taken for a new one there.
///
/// # Safety
///
/// `bio` must be valid and owned by the caller; `bdev` must be valid until the bio is completed.
#[inline(always)]
pub(super) unsafe fn set_bdev(bio: NonNull<bindings::bio>, bdev: *mut bindings::block_device) {
    let bio = bio.as_ptr();
    // SAFETY: The caller owns the bio.
    unsafe {
        (*bio).bi_flags &= !compat::CLEARED_BY_SET_DEV;
        (*bio).bi_bdev = bdev;
    }
}

/// Makes a type invariant in a lifetime: no call's `'a` can pass for that of another call.
type Invariant<'a> = PhantomData<fn(&'a ()) -> &'a ()>;

/// The answer to a bio in [`Target::map`], one of `DM_MAPIO_*`. Only a [`MapBio`] can make one.
#[must_use]
pub struct Mapped<'a>(c_int, Invariant<'a>);

impl Mapped<'_> {
    #[inline(always)]
    pub(super) fn into_raw(self) -> c_int {
        self.0
    }
}

/// The answer to a bio in [`Target::end_io`], one of `DM_ENDIO_*`. Only an [`EndedBio`] can make one.
#[must_use]
pub struct Ended<'a> {
    action: c_int,
    status: BlkStatus,
    _invariant: Invariant<'a>,
}

impl Ended<'_> {
    #[inline(always)]
    pub(super) fn into_raw(self) -> (c_int, BlkStatus) {
        (self.action, self.status)
    }
}

/// Ends what [`EndedBio::take`] began, if the answer says that a bio was taken over.
///
/// # Safety
///
/// `action` must be the answer to a bio, and this must be called once for it, when the `end_io`
/// function of the target is done.
#[inline(always)]
pub(super) unsafe fn leave_taken(action: c_int) {
    if action == bindings::DM_ENDIO_INCOMPLETE as c_int {
        // SAFETY: Only `take` makes this answer, which took the read lock, and this is its end.
        unsafe { bindings::rcu_read_unlock() };
    }
}

/// What goes with a bio to the device below, and back: a part of its per-bio data.
pub struct BioContext<D> {
    /// A reader that is registered until the bio comes back. It is given back before `end_io` sees the
    /// bio; a target without `end_io` cannot send one along, and is not built if it does.
    pub reader: Option<SrcuReader>,
    /// The target's own data, which `end_io` finds; without it, what `Default` makes.
    pub data: Option<D>,
    /// Whether `end_io` sees the bio only if it fails: for a target that does nothing about success.
    pub errors_only: bool,
}

impl<D> BioContext<D> {
    /// Nothing goes with it, and `end_io` sees it only if it fails.
    pub const ERRORS_ONLY: Self = Self {
        reader: None,
        data: None,
        errors_only: true,
    };
}

impl<D> Default for BioContext<D> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            reader: None,
            data: None,
            errors_only: false,
        }
    }
}

/// A bio that a target has to map: a clone, in the `map` callback.
///
/// Sectors have 512 bytes. Nothing that can be done with it here sleeps.
///
/// This is as small as two pointers, so that it takes no memory to pass it on.
///
/// # Invariants
///
/// - `bio` is a clone that device mapper made for a target of type `T`, is in that target's `map`
///   callback, and is not answered yet.
/// - `instance` is what belongs to that target.
pub struct MapBio<'a, T: Target> {
    // In this order, they are where device mapper's call leaves them.
    instance: &'a Instance<T>,
    bio: NonNull<bindings::bio>,
    _invariant: Invariant<'a>,
}

impl<'a, T: Target> MapBio<'a, T> {
    /// # Safety
    ///
    /// - `bio` must be a clone that device mapper made for a target of type `T` with the data `instance`,
    ///   and must be in its `map` callback.
    /// - `'a` must be a lifetime that no other `MapBio` has.
    #[inline(always)]
    pub(super) unsafe fn new(bio: NonNull<bindings::bio>, instance: &'a Instance<T>) -> Self {
        // INVARIANT: The caller vouches for the bio.
        Self {
            instance,
            bio,
            _invariant: PhantomData,
        }
    }

    /// Returns the target that the bio is mapped by, which is there as long as the callback runs.
    #[inline(always)]
    pub fn target(&self) -> &'a T {
        self.instance.target()
    }

    /// Returns operation and flags: `bio->bi_opf`.
    #[inline(always)]
    pub fn opf(&self) -> Opf {
        // SAFETY: By the type invariants, the bio is ours.
        Opf::from_raw(unsafe { (*self.bio.as_ptr()).bi_opf })
    }

    /// Returns the operation.
    #[inline(always)]
    pub fn op(&self) -> Op {
        self.opf().op()
    }

    /// Whether this is a flush: a write without data. Its sector means nothing.
    #[inline(always)]
    pub fn is_flush(&self) -> bool {
        self.opf().is_preflush() && self.sectors() == 0
    }

    /// Returns the first sector, counted from the start of the mapped device.
    #[inline(always)]
    pub fn sector(&self) -> u64 {
        // SAFETY: By the type invariants, the bio is ours. The field may be unaligned, and is copied.
        unsafe { (*self.bio.as_ptr()).bi_iter.bi_sector }
    }

    /// Returns the first sector, counted from the start of the target: `dm_target_offset()`.
    #[inline(always)]
    pub fn target_sector(&self) -> u64 {
        self.instance.target_sector(self.sector())
    }

    /// Returns the number of sectors: `bio_sectors()`.
    #[inline(always)]
    pub fn sectors(&self) -> u32 {
        // SAFETY: By the type invariants, the bio is ours.
        unsafe { (*self.bio.as_ptr()).bi_iter.bi_size >> SECTOR_SHIFT }
    }

    /// Returns which of the copies this is, from 0 on, if device mapper was told to send several:
    /// `dm_bio_get_target_bio_nr()`.
    pub fn target_bio_nr(&self) -> u32 {
        // SAFETY: By the type invariants, this is a clone that device mapper made.
        unsafe { bindings::dm_bio_get_target_bio_nr(self.bio.as_ptr()) }
    }

    /// Takes only the first `sectors` of this bio; the rest comes as another bio: `dm_accept_partial_bio()`.
    ///
    /// Fails with [`EINVAL`] if the bio has less, for flushes and atomic writes, and if device mapper
    /// sends several copies of this kind of bio.
    #[inline(always)]
    pub fn accept_partial(&mut self, sectors: u32) -> Result {
        let have = self.sectors();
        if sectors == have && have != 0 {
            return Ok(());
        }
        self.split(sectors)
    }

    #[inline(never)]
    fn split(&mut self, sectors: u32) -> Result {
        let (opf, have) = (self.opf(), self.sectors());
        let ti = self.instance.ti();
        // SAFETY: By the type invariants, we are in the `map` callback of the target, and so it is valid.
        // These fields are set by the constructor only.
        let copies = unsafe {
            match opf.op() {
                Op::Read | Op::Write => 1,
                Op::Discard => (*ti).num_discard_bios,
                Op::SecureErase => (*ti).num_secure_erase_bios,
                Op::WriteZeroes => (*ti).num_write_zeroes_bios,
                Op::Other => 0,
            }
        };
        if sectors == 0 || sectors > have || copies != 1 || opf.is_preflush() || opf.is_atomic() {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariants, this is the bio in the `map` callback, as it came or shortened by
        // this function. Of what the function takes for a bug, duplicates, a wrong length and atomic writes
        // were excluded above; and the mapped device is not zoned, as no target here has the feature.
        unsafe { bindings::dm_accept_partial_bio(self.bio.as_ptr(), sectors) };
        Ok(())
    }

    /// Remembers what a bio is before it is changed, and what goes with it.
    #[inline(always)]
    fn record(&mut self, completion: Completion, context: BioContext<T::PerBio>) {
        let BioContext {
            reader,
            data: user,
            errors_only,
        } = context;
        // Without `end_io` nobody would give it back.
        build_assert!(T::HAS_END_IO || reader.is_none());
        if !PerBio::<T>::USED {
            return;
        }
        let completion = completion
            .with(CompletionFlag::Success, !errors_only)
            .with(CompletionFlag::Reader, reader.is_some())
            .with(CompletionFlag::User, user.is_some());
        // SAFETY: By the type invariants, the bio is ours.
        let data = unsafe { PerBio::<T>::attach(self.bio) }.as_ptr();
        // SAFETY: By the type invariants, bio and data are ours. There is nothing to drop in there.
        unsafe {
            (&raw mut (*data).iter).write((*self.bio.as_ptr()).bi_iter);
            (&raw mut (*data).opf).write((*self.bio.as_ptr()).bi_opf);
            (&raw mut (*data).completion).write(completion);
            if let Some(reader) = reader {
                (&raw mut (*data).reader).write(MaybeUninit::new(reader));
            }
            if let Some(user) = user {
                (&raw mut (*data).user).write(user);
            }
        }
    }

    /// Sends the bio to `sector` of `device`: `DM_MAPIO_REMAPPED`. When it completes, `end_io` sees it.
    ///
    /// The device must be one that this target opened; otherwise there is a warning and the bio fails.
    #[inline(always)]
    pub fn remap(self, device: &Device, sector: u64) -> Mapped<'a> {
        self.remap_with(device, sector, BioContext::default())
    }

    /// Sends the bio to `sector` of `device` as [`remap`](MapBio::remap) does, and `context` with it.
    #[inline(always)]
    pub fn remap_with(
        mut self,
        device: &Device,
        sector: u64,
        context: BioContext<T::PerBio>,
    ) -> Mapped<'a> {
        if device.owner() != self.instance.owner() {
            return self.foreign_device();
        }
        // SAFETY: By the type invariants, the bio is ours. It belongs to the target that the device
        // was opened for, so by the invariants of `Device`, that stays open until the bio is done.
        unsafe { set_bdev(self.bio, device.bdev()) };
        self.record(Completion::empty(), context);
        // SAFETY: By the type invariants, the bio is ours.
        unsafe { (*self.bio.as_ptr()).bi_iter.bi_sector = sector };
        Mapped(bindings::DM_MAPIO_REMAPPED as c_int, PhantomData)
    }

    /// Sends the bio to `device` as it is, which is for flushes: they have no sector.
    #[inline(always)]
    pub fn redirect(self, device: &Device) -> Mapped<'a> {
        self.redirect_with(device, BioContext::default())
    }

    /// Sends the bio to `device` as [`redirect`](MapBio::redirect) does, and `context` with it.
    #[inline(always)]
    pub fn redirect_with(self, device: &Device, context: BioContext<T::PerBio>) -> Mapped<'a> {
        let sector = self.sector();
        self.remap_with(device, sector, context)
    }

    #[cold]
    #[inline(never)]
    fn foreign_device(self) -> Mapped<'a> {
        warn_once!(c"a bio was mapped to a device of another target");
        self.kill()
    }

    /// Completes the bio, without any device: `bio_endio()`. `end_io` does not see it.
    pub fn complete(mut self, status: BlkStatus) -> Mapped<'a> {
        self.record(CompletionFlag::Through.into(), BioContext::default());
        // SAFETY: By the type invariants, the bio is ours, and now it is answered.
        unsafe {
            (*self.bio.as_ptr()).bi_status = status.as_raw();
            bindings::bio_endio(self.bio.as_ptr());
        }
        Mapped(bindings::DM_MAPIO_SUBMITTED as c_int, PhantomData)
    }

    /// Fails the bio with an I/O error: `DM_MAPIO_KILL`. `end_io` does not see it.
    pub fn kill(self) -> Mapped<'a> {
        Mapped(bindings::DM_MAPIO_KILL as c_int, PhantomData)
    }

    /// Takes the bio over, to be completed or submitted later: `DM_MAPIO_SUBMITTED`.
    ///
    /// That must happen, and soon: the bio's submitter waits, and the mapped device cannot be suspended.
    pub fn take(mut self) -> (OwnedBio<T>, Mapped<'a>) {
        let context = BioContext {
            data: Some(T::PerBio::default()),
            ..BioContext::default()
        };
        self.record(CompletionFlag::Through.into(), context);
        if PerBio::<T>::USED {
            // SAFETY: By the type invariants, the bio is ours, and the data was just attached.
            let data = unsafe { PerBio::<T>::of(self.bio.as_ptr()) };
            // SAFETY: As above.
            unsafe { (&raw mut (*data).status).write(bindings::DM_STS_OK) };
        }
        // SAFETY: By the type invariants, the bio is ours and not answered, and `instance` belongs to
        // its target. The result is the owner from here on, and the data is recorded.
        let owned = unsafe { OwnedBio::new(self.bio, self.instance) };
        (
            owned,
            Mapped(bindings::DM_MAPIO_SUBMITTED as c_int, PhantomData),
        )
    }
}

/// A bio that came back from the device it was sent to: a clone, in the `end_io` callback.
///
/// Sector, size, operation and flags are those that the bio had when it was mapped. Sectors have 512 bytes.
/// Nothing that can be done with it here sleeps, and this may be an interrupt.
///
/// # Invariants
///
/// - `bio` is a clone that device mapper made for a target of type `T`, is in that target's `end_io`
///   callback, and is not answered yet.
/// - `instance` is what belongs to that target.
/// - The bio's data is attached; what was recorded when it was mapped is initialised, but for `reader`,
///   and so is `user`.
pub struct EndedBio<'a, T: Target> {
    bio: NonNull<bindings::bio>,
    instance: &'a Instance<T>,
    _invariant: Invariant<'a>,
}

impl<'a, T: Target> EndedBio<'a, T> {
    /// # Safety
    ///
    /// - `bio` must be a clone that device mapper made for a target of type `T`, must be in its
    ///   `end_io` callback, and must have been through its `map` callback.
    /// - `user` in the bio's data must be initialised.
    /// - `instance` must belong to the target.
    /// - `'a` must be a lifetime that no other `EndedBio` has.
    #[inline(always)]
    pub(super) unsafe fn new(bio: NonNull<bindings::bio>, instance: &'a Instance<T>) -> Self {
        // INVARIANT: The caller vouches for bio, instance and `user`, and `map` has recorded the rest.
        Self {
            bio,
            instance,
            _invariant: PhantomData,
        }
    }

    #[inline(always)]
    fn data(&self) -> *mut PerBio<T> {
        // SAFETY: By the type invariants, the bio is ours, and its data attached.
        unsafe { PerBio::<T>::of(self.bio.as_ptr()) }
    }

    /// Returns how the I/O ended: `bio->bi_status`.
    #[inline(always)]
    pub fn status(&self) -> BlkStatus {
        // SAFETY: By the type invariants, the bio is ours.
        BlkStatus::from_raw(unsafe { (*self.bio.as_ptr()).bi_status })
    }

    /// Returns operation and flags, as they were when the bio was mapped.
    #[inline(always)]
    pub fn opf(&self) -> Opf {
        // SAFETY: By the type invariants, the data is initialised.
        Opf::from_raw(unsafe { (*self.data()).opf })
    }

    /// Returns the operation.
    #[inline(always)]
    pub fn op(&self) -> Op {
        self.opf().op()
    }

    /// Returns the first sector, counted from the start of the target.
    pub fn target_sector(&self) -> u64 {
        // SAFETY: By the type invariants, the data is initialised. The field may be unaligned, and is copied.
        let sector = unsafe { (*self.data()).iter.bi_sector };
        self.instance.target_sector(sector)
    }

    /// Returns the number of sectors.
    #[inline(always)]
    pub fn sectors(&self) -> u32 {
        // SAFETY: By the type invariants, the data is initialised.
        unsafe { (*self.data()).iter.bi_size >> SECTOR_SHIFT }
    }

    /// Returns which of the copies this is, if device mapper was told to send several.
    pub fn target_bio_nr(&self) -> u32 {
        // SAFETY: By the type invariants, this is a clone that device mapper made.
        unsafe { bindings::dm_bio_get_target_bio_nr(self.bio.as_ptr()) }
    }

    /// Returns the target's own data of this bio: `dm_per_bio_data()`.
    #[inline(always)]
    pub fn per_bio(&mut self) -> &mut T::PerBio {
        // SAFETY: By the type invariants, this is initialised, and nobody else has the bio.
        unsafe { &mut (*self.data()).user }
    }

    /// Completes the bio as the device did: `DM_ENDIO_DONE`.
    #[inline(always)]
    pub fn done(self) -> Ended<'a> {
        let status = self.status();
        self.done_with(status)
    }

    /// Completes the bio with `status` in place of the device's: `DM_ENDIO_DONE`.
    #[inline(always)]
    pub fn done_with(self, status: BlkStatus) -> Ended<'a> {
        Ended {
            action: bindings::DM_ENDIO_DONE as c_int,
            status,
            _invariant: PhantomData,
        }
    }

    /// Takes the bio over, restored to what it was when it was mapped, to be completed or submitted
    /// again later: `DM_ENDIO_INCOMPLETE`.
    ///
    /// That must happen, and soon: the bio's submitter waits, and the mapped device cannot be suspended.
    pub fn take(self) -> (OwnedBio<T>, Ended<'a>) {
        // From the moment that another thread can have the bio and answer it, nothing else keeps the
        // target while the rest of `end_io` runs: suspending waits for bios only. But whoever destroys
        // a table first waits for an RCU grace period (`dm_sync_table()`), which begins after the bio
        // is answered and so cannot end before this reader does, in `leave_taken`.
        //
        // A target's `map` needs nothing of the kind: device mapper holds `md->io_barrier` around it,
        // for which `dm_sync_table()` waits, too.
        mem::forget(rcu::read_lock());

        let (bio, data, status) = (self.bio.as_ptr(), self.data(), self.status());
        // SAFETY: By the type invariants, bio and data are ours. The iterator stands for memory that
        // the bio's submitter keeps until the bio is answered.
        unsafe {
            (*bio).bi_iter = (*data).iter;
            (*bio).bi_opf = (*data).opf;
            (*bio).bi_flags &= !compat::LEFT_BEHIND;
            (*bio).bi_status = bindings::DM_STS_OK;
            // The driver below links the bios that it merges into a request, and leaves it at that.
            (*bio).bi_next = ptr::null_mut();
            // A bio that was split below ends with a count of 0. If it were split again, it would be
            // done with the first part.
            (*bio).__bi_remaining.counter = 1;
            (*data).status = status.as_raw();
            (*data).completion = CompletionFlag::Through | CompletionFlag::User;
        }
        // SAFETY: By the type invariants, the bio is ours and not answered, and `instance` belongs to
        // its target. The result is the owner from here on, and the data is recorded.
        let owned = unsafe { OwnedBio::new(self.bio, self.instance) };
        (
            owned,
            Ended {
                action: bindings::DM_ENDIO_INCOMPLETE as c_int,
                status,
                _invariant: PhantomData,
            },
        )
    }
}
