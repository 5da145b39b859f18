// SPDX-License-Identifier: GPL-2.0

//! What is kept with every bio while a target has it.
//!
//! C source: [`drivers/md/dm.c`](srctree/drivers/md/dm.c), `dm_per_bio_data()`
//!
//! A bio comes back from the device below changed: its iterator is advanced by what was done, the
//! block layer strips `FUA` and `PREFLUSH` for devices without a cache, and the device and the flags
//! are those of the last place it went to. To send a bio somewhere else after it failed, the
//! iterator and the operation have to be remembered when it is mapped, in memory that device mapper
//! allocates in front of each bio:
//!
//! ```text
//!   offset
//!     0    bvec_iter   where the data is, and the sector in the mapped device    20 bytes
//!    20    opf         operation and flags                                        4
//!    24    completion  how the bio is with the target: the next completion        1
//!    25    status      how the bio failed, when it was taken over                 1
//!    32    reader      a registered reader that goes with the bio                 8
//!    40    instance    what belongs to the target, when the bio was taken over    8
//!    48    user        the target's own data
//! ```
//!
//! Nothing is cleared: each field is written before it is read, the first three when the bio leaves
//! the target, and `completion` tells which of the others were. `bi_private`, which a target may use while
//! it has a clone, points to the data, which is faster than to ask device mapper again. Where there is
//! no data, it points to the instance.

use core::{
    mem::{
        align_of,
        offset_of,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

use kernel::impl_flags;

use crate::abstractions::{
    bindings,
    sync::srcu::SrcuReader, //
};

use super::{
    instance::Instance,
    target::Target, //
};

impl_flags!(
    /// What the next completion of a bio means. Without any flag, the device below completes the bio, and the
    /// target's `end_io` is to see it if it fails.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(super) struct Completion(u8);

    /// One of the things that it may mean.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(super) enum CompletionFlag {
        /// `end_io` is also to see the bio if it succeeds.
        Success = 1 << 0,
        /// `reader` is initialised, and has to be given back.
        Reader = 1 << 1,
        /// `user` is initialised.
        User = 1 << 2,
        /// The target completes the bio itself, and `end_io` is not to see it again.
        Through = 1 << 3,
    }
);

impl Completion {
    /// These, and `flag` if `yes`.
    #[inline(always)]
    pub(super) fn with(self, flag: CompletionFlag, yes: bool) -> Self {
        if yes {
            self | flag
        } else {
            self
        }
    }
}

/// The data in front of each bio. See the module's documentation.
#[repr(C)]
pub(super) struct PerBio<T: Target> {
    pub(super) iter: bindings::bvec_iter,
    pub(super) opf: bindings::blk_opf_t,
    pub(super) completion: Completion,
    pub(super) status: u8,
    /// Initialised as long as `completion` says so.
    pub(super) reader: MaybeUninit<SrcuReader>,
    pub(super) instance: *const Instance<T>,
    pub(super) user: T::PerBio,
}

impl<T: Target> PerBio<T> {
    /// Whether this target needs the data at all.
    pub(super) const USED: bool = T::HAS_END_IO || core::mem::size_of::<T::PerBio>() != 0;

    /// The size that device mapper is asked for. The data ends where something begins that contains
    /// the bio, and is aligned as a bio is if its size is a multiple of that.
    pub(super) const SIZE: usize = {
        assert!(align_of::<Self>() <= align_of::<bindings::bio>());
        // Device mapper frees bios without telling the target.
        assert!(!core::mem::needs_drop::<T::PerBio>());
        assert!(core::mem::size_of::<Self>() <= 512);
        // As the picture has it.
        assert!(
            offset_of!(Self, opf) == 20
                && offset_of!(Self, completion) == 24
                && offset_of!(Self, status) == 25
                && offset_of!(Self, reader) == 32
                && offset_of!(Self, instance) == 40
        );
        if Self::USED {
            core::mem::size_of::<Self>().next_multiple_of(align_of::<bindings::bio>())
        } else {
            0
        }
    };

    /// Finds the data of a new clone, which is not initialised, and lets `bi_private` point to it.
    ///
    /// # Safety
    ///
    /// `bio` must be a clone that device mapper made for a target of type `T`, and belong to the
    /// caller.
    #[inline(always)]
    pub(super) unsafe fn attach(bio: NonNull<bindings::bio>) -> NonNull<Self> {
        // SAFETY: The caller's promise means that the memory was allocated with this size.
        let data = unsafe { bindings::dm_per_bio_data(bio.as_ptr(), Self::SIZE) };
        // SAFETY: The caller has the bio.
        unsafe { (*bio.as_ptr()).bi_private = data };
        // SAFETY: This is an address in front of the bio.
        unsafe { NonNull::new_unchecked(data.cast::<Self>()) }
    }

    /// Returns the data of `bio`.
    ///
    /// # Safety
    ///
    /// `bio` must belong to the caller, and `attach` must have been called for it.
    #[inline(always)]
    pub(super) unsafe fn of(bio: *mut bindings::bio) -> *mut Self {
        // Whoever had the bio meanwhile left this pointer alone, or restored it.
        //
        // SAFETY: The caller has the bio.
        unsafe { (*bio).bi_private.cast::<Self>() }
    }
}
