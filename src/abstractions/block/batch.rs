// SPDX-License-Identifier: GPL-2.0

//! Several I/Os of a target's own at a time.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)
//!
//! Each I/O of a batch has a slot, and is one bio or, if it is large, several. Who owns what:
//!
//! ```text
//!   BioPool::batch    BatchSlots --> Slot, Slot, Slot         of the caller, used again and again
//!     on its stack    UnderWay <------+-----+                 counts bios; the last one wakes us
//!   each bio          bi_private ---> Slot                    freed when it is done
//! ```
//!
//! The stack frame, the slots and what is borrowed for `'env` are left alone until no bio is under
//! way, whatever the closure does with its [`Batch`].

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    alloc::Flags,
    block::{
        SECTOR_SHIFT,
        SECTOR_SIZE, //
    },
    ffi::c_uint,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

use pin_init::stack_pin_init;

use crate::abstractions::{
    bindings,
    dm::{
        device::Device,
        owned::OwnedBio,
        target::Target, //
    },
    warn::warn_once, //
};

use super::{
    buffer::{
        IoSlice,
        IoSliceMut, //
    },
    io::BioPool,
    opf::{
        Op,
        Opf, //
    },
    status::BlkStatus, //
};

/// The largest number of pages in one bio.
const MAX_PAGES: usize = bindings::BIO_MAX_VECS as usize;

/// Collects bios of the current thread, so that neighbours are merged, until it is dropped or the
/// thread waits for something: `struct blk_plug`.
///
/// # Invariants
///
/// The plug was started by the current thread.
#[pin_data(PinnedDrop)]
struct Plug {
    #[pin]
    inner: Opaque<bindings::blk_plug>,
    _thread: NotThreadSafe,
}

impl Plug {
    fn start() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot: *mut bindings::blk_plug| {
                // SAFETY: `slot` is memory of the right size that does not move.
                unsafe { bindings::blk_start_plug(slot) };
            }),
            _thread: NotThreadSafe,
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Plug {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants, the current thread has started this.
        unsafe { bindings::blk_finish_plug(self.inner.get()) };
    }
}

/// The I/Os of a batch that are not done yet.
///
/// # Invariants
///
/// `done` is initialised.
#[pin_data]
struct UnderWay {
    /// How many bios, and one more for whoever submits them.
    count: Atomic<i32>,
    #[pin]
    done: Opaque<bindings::completion>,
}

impl UnderWay {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            count: Atomic::new(1),
            // INVARIANT: It is initialised here.
            done <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` is memory of the right size that does not move.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    fn add(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// Returns `true` if this was the last one.
    fn sub(&self) -> bool {
        self.count.fetch_sub(1, Full) == 1
    }

    /// Waits until no I/O is under way. To be called once, at the end.
    fn wait(&self) {
        if !self.sub() {
            // SAFETY: By the type invariants, it is initialised. Nothing has to be held.
            unsafe { bindings::dm_rust_wait_for_io(self.done.get()) };
        }
    }
}

/// How the I/Os of a batch ended. Made beforehand, as there may be no memory when it is needed.
pub struct BatchSlots {
    slots: KVec<Slot>,
    used: usize,
}

impl BatchSlots {
    /// Makes slots for batches of up to `capacity` I/Os. Sleeps for memory, if `flags` let it.
    pub fn new(capacity: usize, flags: Flags) -> Result<Self> {
        let mut slots = KVec::with_capacity(capacity, flags)?;
        for _ in 0..capacity {
            slots.push(Slot::new(), flags)?;
        }
        Ok(Self { slots, used: 0 })
    }

    pub(super) fn run<'env, R, M>(
        &mut self,
        pool: &'env BioPool,
        start: impl FnOnce(&mut Batch<'_, 'env>) -> R,
        meanwhile: impl FnOnce() -> M,
    ) -> (R, M) {
        let (result, meantime, used) = Batch::run(pool, &mut self.slots, start, meanwhile);
        self.used = used;
        (result, meantime)
    }

    /// Returns how all of them ended, in the order in which they were started.
    pub fn statuses(&self) -> impl Iterator<Item = BlkStatus> + '_ {
        self.slots.iter().take(self.used).map(Slot::status)
    }

    /// Returns the first of them that is an error, or [`BlkStatus::OK`].
    pub fn first_error(&self) -> BlkStatus {
        self.statuses()
            .find(|status| status.is_err())
            .unwrap_or(BlkStatus::OK)
    }
}

/// One I/O of a batch; large ones are several bios.
///
/// # Invariants
///
/// While a bio points to it, `under_way` is valid, and neither it nor `vmap` changes.
pub(super) struct Slot {
    status: Atomic<i32>,
    under_way: UnsafeCell<*const UnderWay>,
    /// What was read into, for machines whose caches do not see it by another address.
    vmap: UnsafeCell<(*mut u8, usize)>,
}

// SAFETY: The cells are written by the thread that has the batch, before it submits bios. The
// pointers are to what any thread may use.
unsafe impl Send for Slot {}
// SAFETY: As above.
unsafe impl Sync for Slot {}

impl Slot {
    pub(super) const fn new() -> Self {
        Self {
            status: Atomic::new(0),
            under_way: UnsafeCell::new(ptr::null()),
            vmap: UnsafeCell::new((ptr::null_mut(), 0)),
        }
    }

    pub(super) fn status(&self) -> BlkStatus {
        BlkStatus::from_raw(self.status.load(Relaxed) as u8)
    }

    /// Lets the I/O count as failed although, or as far as, no bio was submitted for it. Returns the
    /// error for whoever starts it.
    #[cold]
    fn not_started(&self, error: Error) -> Error {
        self.failed(bindings::DM_STS_RESOURCE);
        error
    }

    /// Notes an error. The first one stays.
    fn failed(&self, status: bindings::blk_status_t) {
        let ok = i32::from(bindings::DM_STS_OK);
        let _ = self.status.cmpxchg(ok, i32::from(status), Relaxed);
    }

    /// # Safety
    ///
    /// This must be called by the batch that has set up the slot, when none of its bios is under way.
    unsafe fn finish(&self) {
        // SAFETY: Nobody else has the slot, by the caller's promise.
        let (start, len) = unsafe { *self.vmap.get() };
        if len != 0 {
            // SAFETY: This is memory of a buffer, which the batch has borrowed.
            unsafe { bindings::dm_rust_invalidate_vmap(start.cast(), len as c_uint) };
        }
    }
}

/// Several I/Os that are under way at a time. See [`BioPool::batch`].
///
/// The functions that start one return its number, in [`BatchSlots::statuses`]. They fail with
/// [`ENOSPC`] if there is no slot left, with [`EINVAL`] if the operation or the range is wrong, and
/// with [`EBUSY`] inside of a `map` function, where it would never end; then no slot is used. If bios
/// run out half way, which a pool prevents, they fail with [`ENOMEM`], and the slot says
/// [`BlkStatus::RESOURCE`].
///
/// Of the flags in an [`Opf`], these heed `FUA`, `PREFLUSH`, `SYNC` and `META`, the first two for writes
/// only: a read with one of them is wrong.
pub struct Batch<'a, 'env> {
    pool: &'env BioPool,
    slots: &'a [Slot],
    used: usize,
    under_way: Pin<&'a UnderWay>,
    /// Invariant in `'env`: what is borrowed for the batch is borrowed until it is done.
    _env: PhantomData<fn(&'env ()) -> &'env ()>,
}

impl<'env> Batch<'_, 'env> {
    /// Runs `start` and then `meanwhile`, and waits for what was started. Returns their results, and the
    /// number of I/Os.
    pub(super) fn run<R, M>(
        pool: &'env BioPool,
        slots: &mut [Slot],
        start: impl FnOnce(&mut Batch<'_, 'env>) -> R,
        meanwhile: impl FnOnce() -> M,
    ) -> (R, M, usize) {
        let slots: &[Slot] = slots;
        stack_pin_init!(let under_way = UnderWay::new());
        let under_way = under_way.into_ref();

        let mut batch = Batch {
            pool,
            slots,
            used: 0,
            under_way,
            _env: PhantomData,
        };
        let result = {
            stack_pin_init!(let _plug = Plug::start());
            start(&mut batch)
        };
        let used = batch.used;
        // Without the plug, which would hold the bios back.
        let meantime = meanwhile();

        under_way.get_ref().wait();
        for slot in slots.iter().take(used) {
            // SAFETY: These slots were set up by this batch, and all its bios were waited for.
            unsafe { slot.finish() };
        }
        (result, meantime, used)
    }
}

impl<'a, 'env> Batch<'a, 'env> {
    /// Starts to read from `sector` of `device` into `buffer`, as much as that holds.
    pub fn read(
        &mut self,
        device: &'env Device,
        sector: u64,
        mut buffer: IoSliceMut<'env>,
        opf: Opf,
    ) -> Result<usize> {
        if opf.op() != Op::Read || opf.is_fua() || opf.is_preflush() {
            return Err(EINVAL);
        }
        let (start, len) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: `buffer` is memory of an `IoBuffer` and nobody else's during `'env`.
        unsafe { self.transfer(device, sector, start, len, opf) }
    }

    /// Starts to write `buffer` to `sector` of `device`.
    pub fn write(
        &mut self,
        device: &'env Device,
        sector: u64,
        buffer: IoSlice<'env>,
        opf: Opf,
    ) -> Result<usize> {
        if opf.op() != Op::Write {
            return Err(EINVAL);
        }
        // SAFETY: `buffer` is memory of an `IoBuffer` that does not change during `'env`; a write only
        // reads it.
        unsafe {
            self.transfer(
                device,
                sector,
                buffer.as_ptr().cast_mut(),
                buffer.len(),
                opf,
            )
        }
    }

    /// Has `device` write `bytes` bytes of zeroes by itself from `sector` on, whole sectors. One that cannot says
    /// [`BlkStatus::NOTSUPP`], or [`BlkStatus::TARGET`].
    pub fn write_zeroes(
        &mut self,
        device: &'env Device,
        sector: u64,
        bytes: u32,
        opf: Opf,
    ) -> Result<usize> {
        if opf.op() != Op::WriteZeroes || bytes == 0 || bytes % SECTOR_SIZE != 0 {
            return Err(EINVAL);
        }
        // SAFETY: There is no memory.
        let (index, slot) = unsafe { self.next_slot(ptr::null_mut(), 0) }?;
        let bio = self.alloc(slot, device, 0, opf)?;
        // SAFETY: The bio is new and ours. One of this operation has a size and no data.
        unsafe {
            (*bio.as_ptr()).bi_iter.bi_sector = sector;
            (*bio.as_ptr()).bi_iter.bi_size = bytes;
        }
        // SAFETY: The bio was just made and has no data.
        unsafe { self.submit(slot, bio, None) };
        Ok(index)
    }

    /// Starts to flush the cache of `device`. What was not done before is not part of it.
    pub fn flush(&mut self, device: &'env Device) -> Result<usize> {
        // SAFETY: There is no memory.
        let (index, slot) = unsafe { self.next_slot(ptr::null_mut(), 0) }?;
        let bio = self.alloc(slot, device, 0, Opf::WRITE.preflush().sync())?;
        // SAFETY: The bio was just made and has no data.
        unsafe { self.submit(slot, bio, None) };
        Ok(index)
    }

    /// Reads `len` bytes from `sector` of `device` to where `bio`, a read, wants them from its byte
    /// `offset` on. The bio itself stays as it is.
    pub fn read_slice<T: Target>(
        &mut self,
        bio: &'env OwnedBio<T>,
        offset: u32,
        len: u32,
        device: &'env Device,
        sector: u64,
    ) -> Result<usize> {
        // Only a read promises that its memory may be written to.
        if bio.op() != Op::Read {
            return Err(EINVAL);
        }
        let opf = Opf::READ.sync();
        // SAFETY: A read's memory may be written to until it is answered, which needs the bio itself.
        unsafe { self.slice(bio, offset, len, device, sector, opf) }
    }

    /// Writes `len` bytes to `sector` of `device`, which are those of `bio`, a write, from its byte
    /// `offset` on. The bio itself stays as it is.
    pub fn write_slice<T: Target>(
        &mut self,
        bio: &'env OwnedBio<T>,
        offset: u32,
        len: u32,
        device: &'env Device,
        sector: u64,
        opf: Opf,
    ) -> Result<usize> {
        if bio.op() != Op::Write || opf.op() != Op::Write {
            return Err(EINVAL);
        }
        // SAFETY: A write's memory may be read until it is answered, which needs the bio itself.
        unsafe { self.slice(bio, offset, len, device, sector, opf) }
    }

    /// # Safety
    ///
    /// `start` must point to `len` bytes of an `IoBuffer`, which stay during `'env`, if `len` is not 0.
    unsafe fn next_slot(&mut self, start: *mut u8, len: usize) -> Result<(usize, &'a Slot)> {
        // SAFETY: This looks at the current thread.
        if unsafe { bindings::dm_rust_in_submission() } {
            warn_once!(c"map waits for I/O");
            return Err(EBUSY);
        }
        let index = self.used;
        let slot = self.slots.get(index).ok_or(ENOSPC)?;
        self.used = index.wrapping_add(1);
        slot.status.store(0, Relaxed);
        // SAFETY: No bio points to the slot yet, and we are the thread that has the batch.
        // INVARIANT: `under_way` is valid until the batch is done.
        unsafe {
            *slot.under_way.get() = self.under_way.get_ref();
            *slot.vmap.get() = (start, len);
        }
        Ok((index, slot))
    }

    fn alloc(
        &self,
        slot: &Slot,
        device: &Device,
        pages: usize,
        opf: Opf,
    ) -> Result<NonNull<bindings::bio>> {
        // SAFETY: The device is open, and the pool initialised. As it may wait, this does not fail.
        let bio = unsafe {
            bindings::bio_alloc_bioset(
                device.bdev(),
                pages as u16,
                opf.as_own(),
                bindings::DM_GFP_NOIO,
                self.pool.as_raw(),
            )
        };
        NonNull::new(bio).ok_or_else(|| slot.not_started(ENOMEM))
    }

    /// # Safety
    ///
    /// `start` must point to `len` bytes of an `IoBuffer`, in whole sectors, that stay during `'env`,
    /// and are read or written by nobody else as far as `opf` conflicts with it.
    unsafe fn transfer(
        &mut self,
        device: &'env Device,
        sector: u64,
        start: *mut u8,
        len: usize,
        opf: Opf,
    ) -> Result<usize> {
        if len == 0 || c_uint::try_from(len).is_err() {
            return Err(EINVAL);
        }
        let invalidate = if opf.is_write() { 0 } else { len };
        // SAFETY: As the caller promises.
        let (index, slot) = unsafe { self.next_slot(start, invalidate) }?;

        let mut at = 0;
        while at < len {
            let size = (len - at).min(MAX_PAGES * PAGE_SIZE);
            // Buffers start at a page, but parts of them need not: one more page for the odd ends.
            let odd = usize::from(start.addr() % PAGE_SIZE != 0);
            let size = size.min((MAX_PAGES - odd) * PAGE_SIZE);
            let pages = size.div_ceil(PAGE_SIZE) + odd;
            let bio = self.alloc(slot, device, pages, opf)?;
            // SAFETY: The bio is new and has room for all pages, as counted above. The memory is an
            // `IoBuffer`, which is vmalloc memory.
            unsafe {
                (*bio.as_ptr()).bi_iter.bi_sector =
                    sector.wrapping_add((at >> SECTOR_SHIFT) as u64);
                if !bindings::bio_add_vmalloc(bio.as_ptr(), start.add(at).cast(), size as c_uint) {
                    bindings::bio_put(bio.as_ptr());
                    return Err(slot.not_started(EINVAL));
                }
            }
            // SAFETY: The memory stays until the batch is done, by the caller's promise.
            unsafe { self.submit(slot, bio, None) };
            at += size;
        }
        Ok(index)
    }

    /// # Safety
    ///
    /// The memory of `bio` must be good for `opf` until it is answered.
    unsafe fn slice<T: Target>(
        &mut self,
        bio: &'env OwnedBio<T>,
        offset: u32,
        len: u32,
        device: &'env Device,
        sector: u64,
        opf: Opf,
    ) -> Result<usize> {
        if !bio.has_range(offset, len) {
            return Err(EINVAL);
        }
        // SAFETY: There is no memory of ours.
        let (index, slot) = unsafe { self.next_slot(ptr::null_mut(), 0) }?;
        // SAFETY: The bio has this range, and the pool is initialised.
        let slice = unsafe {
            bindings::dm_rust_bio_slice(
                bio.as_raw(),
                device.bdev(),
                offset,
                len,
                sector,
                opf.as_own(),
                self.pool.as_raw(),
            )
        };
        let slice = NonNull::new(slice).ok_or_else(|| slot.not_started(ENOMEM))?;
        // SAFETY: The bio, and so its memory, is not answered before the batch is done, as it is
        // borrowed for that long.
        unsafe { self.submit(slot, slice, Some(bio.as_raw())) };
        Ok(index)
    }

    /// # Safety
    ///
    /// `bio` must be new, from the pool, to a device that stays open during `'env`, and its memory must
    /// be good for it during `'env`. `slot` must have been set up by this batch. `on_behalf_of` must be
    /// a clone that device mapper made and that is not answered, if there is one.
    unsafe fn submit(
        &self,
        slot: &'a Slot,
        bio: NonNull<bindings::bio>,
        on_behalf_of: Option<*mut bindings::bio>,
    ) {
        self.under_way.add();
        let bio = bio.as_ptr();
        // SAFETY: The caller vouches for the bio. The slot is there until the batch is done.
        unsafe {
            (*bio).bi_private = ptr::from_ref(slot).cast_mut().cast();
            (*bio).bi_end_io = Some(Self::end_io);
            match on_behalf_of {
                // The I/O is accounted for as that of the clone's submitter, and in its cgroup.
                Some(clone) => bindings::dm_submit_bio_remap(clone, bio),
                None => bindings::submit_bio(bio),
            }
        }
    }

    /// # Safety
    ///
    /// The block layer must call this for a bio that `submit` has submitted, once.
    unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
        // SAFETY: `submit` put a slot there, which is valid until `sub` below.
        let slot = unsafe { &*(*bio).bi_private.cast::<Slot>() };
        // SAFETY: The bio is ours again.
        let status = unsafe { (*bio).bi_status };
        if status != bindings::DM_STS_OK {
            slot.failed(status);
        }
        // SAFETY: By the invariants of `Slot`, this is valid while a bio points to it.
        let under_way = unsafe { &**slot.under_way.get() };
        // SAFETY: The bio is ours and not used any more.
        unsafe { bindings::bio_put(bio) };
        if under_way.sub() {
            // Whoever waits for this lets `under_way` go only when the completion is done with it.
            //
            // SAFETY: By the type invariants, it is initialised, and it is still there.
            unsafe { bindings::complete_all(under_way.done.get()) };
        }
    }
}
