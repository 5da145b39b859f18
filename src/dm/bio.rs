// SPDX-License-Identifier: GPL-2.0

//! Bios on their way through a target.
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
//!             +-- complete ----+---- complete, requeue -----------------------------> caller
//! ```
//!
//! The lifetime `'a` is a different one in each call, which is what ties the answer to its bio.

use super::bindings;
use super::device::Device;
use super::instance::Instance;
use super::opf::Op;
use super::opf::Opf;
use super::owned::OwnedBio;
use super::per_bio::Pass;
use super::per_bio::PerBio;
use super::status::BlkStatus;
use super::target::Target;
use super::warn::warn_once;
use core::marker::PhantomData;
use core::mem;
use core::ptr;
use core::ptr::NonNull;
use kernel::error::code::*;
use kernel::error::Result;
use kernel::ffi::c_int;
use kernel::sync::rcu;

/// Sends `bio` to another device, as `bio_set_dev()` does.
///
/// Besides the device, this clears `BIO_REMAPPED`. Without that, a bio which comes back from a
/// partition and goes to another one would miss the partition's start.
///
/// # Safety
///
/// `bio` must be valid and owned by the caller; `bdev` must be valid until the bio is completed.
#[inline(always)]
pub(super) unsafe fn set_bdev(bio: NonNull<bindings::bio>, bdev: *mut bindings::block_device) {
    let bio = bio.as_ptr();
    // SAFETY: The caller owns the bio.
    unsafe {
        let mut clear = 1 << bindings::BIO_REMAPPED;
        if (*bio).bi_bdev != bdev {
            clear |= 1 << bindings::BIO_BPS_THROTTLED;
        }
        (*bio).bi_flags &= !clear;
        (*bio).bi_bdev = bdev;
    }
    #[cfg(CONFIG_BLK_CGROUP)]
    // SAFETY: The caller owns the bio, whose device was just set.
    unsafe {
        bindings::bio_associate_blkg(bio)
    };
}

/// Flags that a bio has from where it was, and must not take to where it goes next: see
/// `blk_steal_bios()`. `BIO_QUIET` comes from a driver that did not want an error to be logged.
const LEFT_BEHIND: u16 = 1 << bindings::BIO_REMAPPED
    | 1 << bindings::BIO_QOS_THROTTLED
    | 1 << bindings::BIO_QOS_MERGED
    | 1 << bindings::BIO_QUIET;

/// Makes a type invariant in a lifetime: no call's `'a` can pass for that of another call.
type Brand<'a> = PhantomData<fn(&'a ()) -> &'a ()>;

/// The answer to a bio in [`Target::map`]. Only a [`MapBio`] can make one.
#[must_use]
pub struct Mapped<'a>(c_int, Brand<'a>);

impl Mapped<'_> {
    #[inline(always)]
    pub(super) fn into_raw(self) -> c_int {
        self.0
    }
}

/// The answer to a bio in [`Target::end_io`]. Only an [`EndedBio`] can make one.
#[must_use]
pub struct Ended<'a> {
    action: c_int,
    status: BlkStatus,
    _brand: Brand<'a>,
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

/// A bio that a target has to map.
///
/// # Invariants
///
/// - `bio` is a clone that device mapper made for a target of type `T`, is in that target's `map`
///   callback, and is not answered yet.
/// - `ti` is that target, and `instance` what belongs to it.
/// - If `PerBio::<T>::USED`, `data` is the bio's data, with `user` initialised.
pub struct MapBio<'a, T: Target> {
    bio: NonNull<bindings::bio>,
    ti: *mut bindings::dm_target,
    instance: &'a Instance<T>,
    data: *mut PerBio<T>,
    _brand: Brand<'a>,
}

impl<'a, T: Target> MapBio<'a, T> {
    /// # Safety
    ///
    /// - `bio` must be a clone that device mapper made for `ti`, which is a target of type `T` with
    ///   the data `instance`, and must be in its `map` callback.
    /// - `'a` must be a lifetime that no other `MapBio` has.
    #[inline(always)]
    pub(super) unsafe fn new(
        bio: NonNull<bindings::bio>,
        ti: *mut bindings::dm_target,
        instance: &'a Instance<T>,
    ) -> Self {
        let data = if PerBio::<T>::USED {
            // SAFETY: The caller vouches for the bio.
            let data = unsafe { PerBio::<T>::attach(bio.as_ptr()) };
            // SAFETY: The memory was allocated for this type, and belongs to the bio alone. There is
            // nothing to drop in it.
            unsafe { (&raw mut (*data).user).write(T::PerBio::default()) };
            data
        } else {
            // There is a value for `per_bio` now, for what it says and not for what it holds: it has
            // no size, and nothing to drop.
            mem::forget(T::PerBio::default());
            ptr::null_mut()
        };
        // INVARIANT: The caller vouches for the bio, and `user` was just initialised.
        Self {
            bio,
            ti,
            instance,
            data,
            _brand: PhantomData,
        }
    }

    /// Returns operation and flags.
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

    /// Returns the first sector, counted from the start of the target.
    #[inline(always)]
    pub fn target_sector(&self) -> u64 {
        self.instance.target_sector(self.sector())
    }

    /// Returns the number of sectors.
    #[inline(always)]
    pub fn sectors(&self) -> u32 {
        // SAFETY: By the type invariants, the bio is ours.
        unsafe { (*self.bio.as_ptr()).bi_iter.bi_size >> 9 }
    }

    /// Returns which of the copies this is, if device mapper was told to send several.
    pub fn target_bio_nr(&self) -> u32 {
        // SAFETY: By the type invariants, this is a clone that device mapper made.
        unsafe { bindings::dm_bio_get_target_bio_nr(self.bio.as_ptr()) }
    }

    /// Returns the target's own data of this bio, fresh from `Default`.
    #[inline(always)]
    pub fn per_bio(&mut self) -> &mut T::PerBio {
        if PerBio::<T>::USED {
            // SAFETY: By the type invariants, this is initialised, and nobody else has the bio.
            unsafe { &mut (*self.data).user }
        } else {
            // SAFETY: `USED` is false only if the type has no size, and then any aligned pointer is
            // valid. There is a value: `new` made it.
            unsafe { NonNull::dangling().as_mut() }
        }
    }

    /// Takes only the first `sectors` of this bio; the rest comes as another bio.
    ///
    /// Fails with [`EINVAL`] if the bio has less, for flushes and atomic writes, and if device mapper
    /// sends several copies of this kind of bio.
    pub fn accept_partial(&mut self, sectors: u32) -> Result {
        let opf = self.opf();
        let have = self.sectors();
        if sectors == have && have != 0 {
            return Ok(());
        }
        // SAFETY: By the type invariants, we are in the `map` callback, so the target is valid.
        let ti = unsafe { &*self.ti };
        let copies = match opf.op() {
            Op::Read | Op::Write => 1,
            Op::Discard => ti.num_discard_bios,
            Op::SecureErase => ti.num_secure_erase_bios,
            Op::WriteZeroes => ti.num_write_zeroes_bios,
            Op::Other => 0,
        };
        // SAFETY: By the type invariants, the bio is ours; its device is the mapped device so far.
        let zoned = unsafe {
            let limits = bindings::dm_rust_bdev_limits((*self.bio.as_ptr()).bi_bdev);
            (*limits).features & bindings::DM_FEAT_ZONED != 0
        };
        if sectors == 0
            || sectors > have
            || copies != 1
            || zoned
            || opf.is_preflush()
            || opf.is_atomic()
        {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariants, this is the bio in the `map` callback, and its device was
        // not set yet. What the function takes for a bug was excluded above.
        unsafe { bindings::dm_accept_partial_bio(self.bio.as_ptr(), sectors) };
        Ok(())
    }

    /// Remembers what a bio is before it is changed.
    #[inline(always)]
    fn record(&mut self, pass: Pass) {
        if T::HAS_END_IO {
            // SAFETY: By the type invariants, bio and data are ours; `USED` is true with `end_io`.
            unsafe {
                (&raw mut (*self.data).iter).write((*self.bio.as_ptr()).bi_iter);
                // Nobody may poll for a clone: whoever does goes by its device and by a cookie that
                // belongs to the device, of which a bio that is sent elsewhere has only one.
                let opf = Opf::from_raw((*self.bio.as_ptr()).bi_opf).not_polled();
                (*self.bio.as_ptr()).bi_opf = opf.as_raw();
                (&raw mut (*self.data).opf).write(opf.as_raw());
                (&raw mut (*self.data).pass).write(pass);
            }
        }
    }

    /// Sends the bio to `sector` of `device`. When it completes, `end_io` sees it.
    ///
    /// The device must be one that this target opened; otherwise there is a warning and the bio fails.
    #[inline(always)]
    pub fn remap(mut self, device: &Device, sector: u64) -> Mapped<'a> {
        if device.owner() != self.instance.owner() {
            return self.foreign_device();
        }
        self.record(Pass::Target);
        // SAFETY: By the type invariants, the bio is ours. It belongs to the target that the device
        // was opened for, so by the invariants of `Device`, that stays open until the bio is done.
        unsafe {
            set_bdev(self.bio, device.bdev());
            (*self.bio.as_ptr()).bi_iter.bi_sector = sector;
        }
        Mapped(bindings::DM_MAPIO_REMAPPED as c_int, PhantomData)
    }

    /// Sends the bio to `device` as it is, which is for flushes: they have no sector.
    #[inline(always)]
    pub fn redirect(self, device: &Device) -> Mapped<'a> {
        let sector = self.sector();
        self.remap(device, sector)
    }

    #[cold]
    #[inline(never)]
    fn foreign_device(self) -> Mapped<'a> {
        warn_once!(c"a bio was mapped to a device of another target");
        self.kill()
    }

    /// Completes the bio, without any device. `end_io` does not see it, so that what [`PerBio`] has to
    /// give back, such as an [`SrcuTicket`], has to be taken out before.
    ///
    /// [`PerBio`]: Target::PerBio
    /// [`SrcuTicket`]: super::SrcuTicket
    pub fn complete(mut self, status: BlkStatus) -> Mapped<'a> {
        self.record(Pass::Through);
        // SAFETY: By the type invariants, the bio is ours, and now it is answered.
        unsafe {
            (*self.bio.as_ptr()).bi_status = status.as_raw();
            bindings::bio_endio(self.bio.as_ptr());
        }
        Mapped(bindings::DM_MAPIO_SUBMITTED as c_int, PhantomData)
    }

    /// Fails the bio with an I/O error. `end_io` does not see it: see [`complete`](MapBio::complete).
    pub fn kill(self) -> Mapped<'a> {
        Mapped(bindings::DM_MAPIO_KILL as c_int, PhantomData)
    }

    /// Gives the bio back, to be mapped anew. Device mapper takes it only while it is suspending
    /// without a flush and makes it an I/O error otherwise. `end_io` does not see it: see
    /// [`complete`](MapBio::complete).
    pub fn requeue(self) -> Mapped<'a> {
        Mapped(bindings::DM_MAPIO_REQUEUE as c_int, PhantomData)
    }

    /// Takes the bio over, to be completed or submitted later.
    ///
    /// It must be, and soon: its submitter waits, and the mapped device cannot be suspended.
    pub fn take(mut self) -> (OwnedBio<T>, Mapped<'a>) {
        self.record(Pass::Through);
        if T::HAS_END_IO {
            // SAFETY: By the type invariants, the data is ours; `USED` is true with `end_io`.
            unsafe { (&raw mut (*self.data).status).write(bindings::DM_STS_OK) };
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

/// A bio that came back from the device it was sent to.
///
/// Sector, size, operation and flags are those that the bio had when it was mapped.
///
/// # Invariants
///
/// - `bio` is a clone that device mapper made for a target of type `T`, is in that target's `end_io`
///   callback, and is not answered yet.
/// - `instance` is what belongs to that target.
/// - `data` is the bio's data, initialised by [`MapBio`] or [`OwnedBio`].
pub struct EndedBio<'a, T: Target> {
    bio: NonNull<bindings::bio>,
    instance: &'a Instance<T>,
    data: *mut PerBio<T>,
    status: BlkStatus,
    _brand: Brand<'a>,
}

impl<'a, T: Target> EndedBio<'a, T> {
    /// # Safety
    ///
    /// - `bio` must be a clone that device mapper made for a target of type `T`, must be in its
    ///   `end_io` callback, and must have been through its `map` callback.
    /// - `instance` must belong to the target, and `data` to the bio.
    /// - `'a` must be a lifetime that no other `EndedBio` has.
    #[inline(always)]
    pub(super) unsafe fn new(
        bio: NonNull<bindings::bio>,
        instance: &'a Instance<T>,
        data: *mut PerBio<T>,
        status: BlkStatus,
    ) -> Self {
        // INVARIANT: The caller vouches for bio, instance and data.
        Self {
            bio,
            instance,
            data,
            status,
            _brand: PhantomData,
        }
    }

    /// Returns how the I/O ended.
    #[inline(always)]
    pub fn status(&self) -> BlkStatus {
        self.status
    }

    /// Returns operation and flags, as they were when the bio was mapped.
    #[inline(always)]
    pub fn opf(&self) -> Opf {
        // SAFETY: By the type invariants, the data is initialised.
        Opf::from_raw(unsafe { (*self.data).opf })
    }

    /// Returns the operation.
    #[inline(always)]
    pub fn op(&self) -> Op {
        self.opf().op()
    }

    /// Returns the first sector, counted from the start of the mapped device.
    #[inline(always)]
    pub fn sector(&self) -> u64 {
        // SAFETY: By the type invariants, the data is initialised.
        unsafe { (*self.data).iter.bi_sector }
    }

    /// Returns the first sector, counted from the start of the target.
    #[inline(always)]
    pub fn target_sector(&self) -> u64 {
        self.instance.target_sector(self.sector())
    }

    /// Returns the number of sectors.
    #[inline(always)]
    pub fn sectors(&self) -> u32 {
        // SAFETY: By the type invariants, the data is initialised.
        unsafe { (*self.data).iter.bi_size >> 9 }
    }

    /// Returns which of the copies this is, if device mapper was told to send several.
    pub fn target_bio_nr(&self) -> u32 {
        // SAFETY: By the type invariants, this is a clone that device mapper made.
        unsafe { bindings::dm_bio_get_target_bio_nr(self.bio.as_ptr()) }
    }

    /// Returns the target's own data of this bio.
    #[inline(always)]
    pub fn per_bio(&mut self) -> &mut T::PerBio {
        // SAFETY: By the type invariants, this is initialised, and nobody else has the bio.
        unsafe { &mut (*self.data).user }
    }

    /// Completes the bio as the device did.
    #[inline(always)]
    pub fn done(self) -> Ended<'a> {
        let status = self.status;
        self.done_with(status)
    }

    /// Completes the bio with another status.
    #[inline(always)]
    pub fn done_with(self, status: BlkStatus) -> Ended<'a> {
        Ended {
            action: bindings::DM_ENDIO_DONE as c_int,
            status,
            _brand: PhantomData,
        }
    }

    /// Gives the bio back, to be mapped anew. Device mapper takes it only while it is suspending
    /// without a flush and makes it an I/O error otherwise.
    pub fn requeue(self) -> Ended<'a> {
        Ended {
            action: bindings::DM_ENDIO_REQUEUE as c_int,
            status: self.status,
            _brand: PhantomData,
        }
    }

    /// Takes the bio over, restored to what it was when it was mapped, to be completed or submitted
    /// again later.
    ///
    /// It must be, and soon: its submitter waits, and the mapped device cannot be suspended.
    pub fn take(self) -> (OwnedBio<T>, Ended<'a>) {
        // From the moment that another thread can have the bio and answer it, nothing else keeps the
        // target while the rest of `end_io` runs: suspending waits for bios only. But whoever destroys
        // a table first waits for an RCU grace period (`dm_sync_table()`), which begins after the bio
        // is answered and so cannot end before this reader does, in `leave_taken`.
        //
        // A target's `map` needs nothing of the kind: device mapper holds `md->io_barrier` around it,
        // for which `dm_sync_table()` waits, too.
        mem::forget(rcu::read_lock());

        let bio = self.bio.as_ptr();
        // SAFETY: By the type invariants, bio and data are ours. The iterator stands for memory that
        // the bio's submitter keeps until the bio is answered.
        unsafe {
            (*bio).bi_iter = (*self.data).iter;
            (*bio).bi_opf = (*self.data).opf;
            (*bio).bi_flags &= !LEFT_BEHIND;
            (*bio).bi_status = bindings::DM_STS_OK;
            // The driver below links the bios that it merges into a request, and leaves it at that.
            (*bio).bi_next = ptr::null_mut();
            // A bio that was split below ends with a count of 0. If it were split again, it would be
            // done with the first part.
            (*bio).__bi_remaining.counter = 1;
            (*self.data).status = self.status.as_raw();
            (*self.data).pass = Pass::Through;
        }
        // SAFETY: By the type invariants, the bio is ours and not answered, and `instance` belongs to
        // its target. The result is the owner from here on, and the data is recorded.
        let owned = unsafe { OwnedBio::new(self.bio, self.instance) };
        (
            owned,
            Ended {
                action: bindings::DM_ENDIO_INCOMPLETE as c_int,
                status: self.status,
                _brand: PhantomData,
            },
        )
    }
}
