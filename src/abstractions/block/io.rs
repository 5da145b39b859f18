// SPDX-License-Identifier: GPL-2.0

//! I/O of a target's own: reading and writing metadata, trying again what failed.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h), `struct bio_set`
//!
//! Everything here waits until the I/O is done, and so is for workers, `preresume` and messages;
//! never for `map` and `end_io`. The bios come from a pool, and one that cannot be had is waited for
//! until one of those under way is done: this always gets on, whatever the state of the memory.
//!
//! Several I/Os at a time are a [`batch`](BioPool::batch). It is a scope, like that of scoped threads:
//! all I/O that is started in it ends in it, so that buffers can be borrowed.

use kernel::{
    ffi::c_uint,
    prelude::*,
    types::Opaque, //
};

use crate::abstractions::{
    bindings,
    dm::{
        device::Device,
        owned::OwnedBio,
        target::Target, //
    }, //
};

use super::{
    batch::{
        Batch,
        BatchSlots,
        Slot, //
    },
    buffer::{
        IoSlice,
        IoSliceMut, //
    },
    opf::Opf,
    status::BlkStatus, //
};

/// How an I/O of one's own ended.
pub type IoResult = core::result::Result<(), BlkStatus>;

/// Bios for I/O of a target's own, enough of them set aside that it always gets on: `struct bio_set`.
///
/// # Invariants
///
/// `set` is an initialised bio set, and bios from it exist only while one of the functions runs.
#[pin_data(PinnedDrop)]
pub struct BioPool {
    #[pin]
    set: Opaque<bindings::bio_set>,
}

// SAFETY: A bio set may be used from all threads.
unsafe impl Send for BioPool {}
// SAFETY: A bio set may be used from all threads.
unsafe impl Sync for BioPool {}

impl BioPool {
    /// Makes a pool that sets `reserve` bios aside, `bioset_init()`; a few will do for a worker. Sleeps for memory.
    pub fn new(reserve: u16) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: It is initialised here.
            set <- Opaque::try_ffi_init(move |slot: *mut bindings::bio_set| {
                // SAFETY: `slot` is memory of the right size that does not move. The function wants it
                // to be zeroed.
                kernel::error::to_result(unsafe {
                    slot.write_bytes(0, 1);
                    bindings::bioset_init(
                        slot,
                        c_uint::from(reserve.max(1)),
                        0,
                        bindings::BIOSET_NEED_BVECS as kernel::ffi::c_int,
                    )
                })
            }),
        })
    }

    /// Starts several I/Os in `start`, and waits for all of them. Sleeps.
    ///
    /// How each ended is in `slots` afterwards.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::block::BatchSlots;
    /// # use kernel::block::BioPool;
    /// # use kernel::dm::Device;
    /// # use kernel::block::IoBuffer;
    /// # use kernel::block::Opf;
    /// # use kernel::prelude::*;
    /// # fn example(pool: &BioPool, spare: &Device, first: u64, second: u64, block: &IoBuffer) -> Result {
    /// let mut slots = BatchSlots::new(2, GFP_KERNEL)?;
    /// pool.batch(&mut slots, |batch| {
    ///     batch.write(spare, first, block.all(), Opf::WRITE.fua())?;
    ///     batch.write(spare, second, block.all(), Opf::WRITE.fua())
    /// })?;
    /// slots.first_error().to_result()
    /// # }
    /// ```
    pub fn batch<'env, R>(
        &'env self,
        slots: &mut BatchSlots,
        start: impl FnOnce(&mut Batch<'_, 'env>) -> R,
    ) -> R {
        slots.run(self, start, || ()).0
    }

    /// Starts several I/Os in `start`, does something else in `meanwhile` when all of them have been sent, and
    /// waits for them. Sleeps.
    pub fn batch_with<'env, R, M>(
        &'env self,
        slots: &mut BatchSlots,
        start: impl FnOnce(&mut Batch<'_, 'env>) -> R,
        meanwhile: impl FnOnce() -> M,
    ) -> (R, M) {
        slots.run(self, start, meanwhile)
    }

    /// Reads from `sector` of `device` into `buffer`, as much as that holds, and waits for it.
    pub fn read(&self, device: &Device, sector: u64, buffer: IoSliceMut<'_>, opf: Opf) -> IoResult {
        self.one(|batch| batch.read(device, sector, buffer, opf))
    }

    /// Writes `buffer` to `sector` of `device`, and waits for it.
    pub fn write(&self, device: &Device, sector: u64, buffer: IoSlice<'_>, opf: Opf) -> IoResult {
        self.one(|batch| batch.write(device, sector, buffer, opf))
    }

    /// Writes zeroes and waits for it, see [`Batch::write_zeroes`].
    pub fn write_zeroes(&self, device: &Device, sector: u64, bytes: u32, opf: Opf) -> IoResult {
        self.one(|batch| batch.write_zeroes(device, sector, bytes, opf))
    }

    /// Flushes the cache of `device`, and waits for it.
    pub fn flush(&self, device: &Device) -> IoResult {
        self.one(|batch| batch.flush(device))
    }

    /// Reads a part of what the bio `bio` wants to read, see [`Batch::read_slice`].
    pub fn read_slice<T: Target>(
        &self,
        bio: &OwnedBio<T>,
        offset: u32,
        len: u32,
        device: &Device,
        sector: u64,
    ) -> IoResult {
        self.one(|batch| batch.read_slice(bio, offset, len, device, sector))
    }

    /// Writes a part of what the bio `bio` wants to write, see [`Batch::write_slice`].
    pub fn write_slice<T: Target>(
        &self,
        bio: &OwnedBio<T>,
        offset: u32,
        len: u32,
        device: &Device,
        sector: u64,
        opf: Opf,
    ) -> IoResult {
        self.one(|batch| batch.write_slice(bio, offset, len, device, sector, opf))
    }

    fn one<'env>(
        &'env self,
        start: impl FnOnce(&mut Batch<'_, 'env>) -> Result<usize>,
    ) -> IoResult {
        let mut slots = [Slot::new()];
        match Batch::run(self, &mut slots, start, || ()).0 {
            Ok(_) => slots[0].status().ok(),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::bio_set {
        self.set.get()
    }
}

#[pinned_drop]
impl PinnedDrop for BioPool {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, the set is initialised and has no bios out.
        unsafe { bindings::bioset_exit(self.set.get()) };
    }
}
