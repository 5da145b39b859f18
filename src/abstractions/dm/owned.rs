// SPDX-License-Identifier: GPL-2.0

//! Bios that a target has taken over, to answer them later.
//!
//! C source: [`drivers/md/dm.c`](srctree/drivers/md/dm.c), `DM_MAPIO_SUBMITTED`, `DM_ENDIO_INCOMPLETE` and
//! `dm_submit_bio_remap()`

use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    block::{
        SECTOR_SHIFT,
        SECTOR_SIZE, //
    },
    error::{
        code::*,
        Result, //
    }, //
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
    warn::warn_once, //
};

use super::{
    bio::set_bdev,
    device::Device,
    instance::Instance,
    per_bio::{
        Completion,
        CompletionFlag,
        PerBio, //
    },
    target::Target, //
};

/// A bio that its target answers later: by [`complete`] or [`submit`]. A clone, out of all callbacks.
///
/// It is what it was when device mapper handed it to the target: whole, with the sector in the
/// mapped device, and with all its flags. Sectors have 512 bytes.
///
/// As long as there is one, the target and its devices exist: a table is destroyed only after its device
/// was suspended, which waits for all bios, or when nobody has the device open any more, and so there are
/// no bios. One that is dropped is completed with an I/O error, and there is a
/// warning, since a bio should never be lost by accident.
///
/// [`complete`]: OwnedBio::complete
/// [`submit`]: OwnedBio::submit
///
/// # Invariants
///
/// - `bio` is a clone that device mapper made for a target of type `T`; it went through that target's
///   `map`, is not answered, and belongs to `self` alone.
/// - Its `bi_next` is null, which is what submitting it demands.
/// - If `PerBio::<T>::USED`, its data is attached, and `instance` in there points to the target's
///   `Instance<T>`. Otherwise its `bi_private` does.
/// - If `T::HAS_END_IO`, `iter`, `opf`, `status` and `user` in its data are initialised, and `completion` is
///   [`CompletionFlag::Through`]. `reader` is not: none goes with the bio any more.
pub struct OwnedBio<T: Target> {
    bio: NonNull<bindings::bio>,
    _data: PhantomData<T::PerBio>,
}

// SAFETY: A bio has no ties to a thread. By the definition of `Target`, `PerBio` must be `Send`, and the target,
// which can be reached from here, `Sync`.
unsafe impl<T: Target> Send for OwnedBio<T> {}

impl<T: Target> OwnedBio<T> {
    /// # Safety
    ///
    /// - The type invariants must hold, except for the pointer to the instance.
    /// - `instance` must belong to the target of the bio.
    pub(super) unsafe fn new(bio: NonNull<bindings::bio>, instance: &Instance<T>) -> Self {
        let instance = ptr::from_ref(instance);
        if PerBio::<T>::USED {
            // SAFETY: The caller vouches for the bio and its data.
            unsafe { (&raw mut (*PerBio::<T>::of(bio.as_ptr())).instance).write(instance) };
        } else {
            // SAFETY: The caller vouches for the bio.
            unsafe { (*bio.as_ptr()).bi_private = instance.cast_mut().cast() };
        }
        // INVARIANT: The rest is the caller's promise.
        Self {
            bio,
            _data: PhantomData,
        }
    }

    /// # Safety
    ///
    /// The type invariants must hold.
    pub(super) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            bio,
            _data: PhantomData,
        }
    }

    /// Gives up the ownership without an answer.
    pub(super) fn into_raw(self) -> NonNull<bindings::bio> {
        ManuallyDrop::new(self).bio
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::bio {
        self.bio.as_ptr()
    }

    fn data(&self) -> *mut PerBio<T> {
        // SAFETY: By the type invariants, the data is attached. This is called only where it is used.
        unsafe { PerBio::<T>::of(self.bio.as_ptr()) }
    }

    fn instance(&self) -> &Instance<T> {
        let instance = if PerBio::<T>::USED {
            // SAFETY: By the type invariants, the data is attached, and this is set.
            unsafe { (*self.data()).instance }
        } else {
            // SAFETY: By the type invariants, this is the instance.
            unsafe { (*self.bio.as_ptr()).bi_private.cast_const().cast() }
        };
        // SAFETY: As above, and it exists as long as its bios.
        unsafe { &*instance }
    }

    /// Returns the target that the bio belongs to.
    pub fn target(&self) -> &T {
        self.instance().target()
    }

    /// Returns operation and flags, as they were when the bio was mapped.
    pub fn opf(&self) -> Opf {
        // SAFETY: By the type invariants, the bio is ours.
        Opf::from_raw(unsafe { (*self.bio.as_ptr()).bi_opf })
    }

    /// Returns the operation.
    pub fn op(&self) -> Op {
        self.opf().op()
    }

    /// Whether this is a flush: a write without data.
    pub fn is_flush(&self) -> bool {
        self.opf().is_preflush() && self.bytes() == 0
    }

    /// Returns the first sector, counted from the start of the mapped device.
    pub fn sector(&self) -> u64 {
        // SAFETY: By the type invariants, the bio is ours. The field may be unaligned, and is copied.
        unsafe { (*self.bio.as_ptr()).bi_iter.bi_sector }
    }

    /// Returns the first sector, counted from the start of the target.
    pub fn target_sector(&self) -> u64 {
        self.instance().target_sector(self.sector())
    }

    /// Returns the number of sectors.
    pub fn sectors(&self) -> u32 {
        self.bytes() >> SECTOR_SHIFT
    }

    /// Returns the number of bytes.
    pub fn bytes(&self) -> u32 {
        // SAFETY: By the type invariants, the bio is ours.
        unsafe { (*self.bio.as_ptr()).bi_iter.bi_size }
    }

    /// Returns which of the copies this is, if device mapper was told to send several.
    pub fn target_bio_nr(&self) -> u32 {
        // SAFETY: By the type invariants, this is a clone that device mapper made.
        unsafe { bindings::dm_bio_get_target_bio_nr(self.bio.as_ptr()) }
    }

    /// Returns how the bio failed before it was taken over in `end_io`; [`BlkStatus::OK`] if it was
    /// taken over in `map`.
    pub fn status(&self) -> BlkStatus {
        if T::HAS_END_IO {
            // SAFETY: By the type invariants, the data is initialised.
            BlkStatus::from_raw(unsafe { (*self.data()).status })
        } else {
            BlkStatus::OK
        }
    }

    /// Returns the target's own data of this bio.
    pub fn per_bio(&mut self) -> &mut T::PerBio {
        if PerBio::<T>::USED {
            // SAFETY: `map` has initialised this, and by the type invariants, nobody else has it.
            unsafe { &mut (*self.data()).user }
        } else {
            // SAFETY: The type has no size, so any aligned pointer is valid; `map` made the value.
            unsafe { NonNull::dangling().as_mut() }
        }
    }

    /// Completes the bio: `bio_endio()`. From any context. `end_io` does not see it again, so that what
    /// [`PerBio`](Target::PerBio) has to give back has to be taken out before.
    pub fn complete(self, status: BlkStatus) {
        let bio = self.into_raw().as_ptr();
        // SAFETY: By the type invariants, the bio was ours, and this answers it.
        unsafe {
            (*bio).bi_status = status.as_raw();
            bindings::bio_endio(bio);
        }
    }

    /// Sends the bio to `sector` of `device`: `dm_submit_bio_remap()`. When it completes, `end_io` sees it,
    /// like the first time.
    ///
    /// The flags are those of [`Opf::for_retry`]. The device must be one that this target opened;
    /// otherwise there is a warning and the bio fails. May sleep.
    pub fn submit(self, device: &Device, sector: u64) {
        if device.owner() != self.instance().owner() {
            warn_once!(c"a bio was submitted to a device of another target");
            return self.complete(BlkStatus::IOERR);
        }
        if T::HAS_END_IO {
            // SAFETY: By the type invariants, the data is initialised and ours.
            unsafe { (*self.data()).completion = CompletionFlag::Success | CompletionFlag::User };
        }
        let opf = self.opf().for_retry();
        let bio = self.into_raw();
        // SAFETY: By the type invariants, the bio was ours, and submitting answers it. It belongs to
        // the target that the device was opened for, so by the invariants of `Device`, that stays open
        // until the bio is done.
        unsafe {
            set_bdev(bio, device.bdev());
            (*bio.as_ptr()).bi_opf = opf.as_raw();
            (*bio.as_ptr()).bi_iter.bi_sector = sector;
            (*bio.as_ptr()).bi_status = bindings::DM_STS_OK;
            // This also starts to account for the bio, unless that was done when it was mapped, and
            // gives it the cgroup of whom it is for, which it lost when it was completed below.
            bindings::dm_submit_bio_remap(bio.as_ptr(), ptr::null_mut());
        }
    }

    /// Whether `[offset, offset + len)` is inside the data of the bio, in whole sectors.
    pub(crate) fn has_range(&self, offset: u32, len: u32) -> bool {
        offset % SECTOR_SIZE == 0
            && len % SECTOR_SIZE == 0
            && len != 0
            && offset
                .checked_add(len)
                .is_some_and(|end| end <= self.bytes())
    }
}

impl<T: Target> Drop for OwnedBio<T> {
    fn drop(&mut self) {
        warn_once!(c"a bio was lost");
        // SAFETY: `self` is not used any more, so the ownership moves to `owned`.
        let owned = unsafe { OwnedBio::<T>::from_raw(self.bio) };
        owned.complete(BlkStatus::IOERR);
    }
}
