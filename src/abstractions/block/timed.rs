// SPDX-License-Identifier: GPL-2.0

//! I/O that is waited for as long as said, and no longer.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)
//!
//! The block layer has no way to take back a bio that a drive does not answer. So what the bio needs stays with it:
//! the memory, the device, and the bio itself are those of a [`TimedIo`], which can be used again when the bio has
//! come back.
//!
//! The time begins when the block layer has taken the bio. Where a queue is frozen, or has no request left, that
//! itself takes as long as the drive likes.

use kernel::{
    alloc::Flags,
    block::SECTOR_SIZE,
    ffi::c_uint,
    prelude::*,
    types::Opaque, //
};

use crate::abstractions::{
    bindings,
    dm::device::Device,
    warn::warn_once, //
};

use super::{
    buffer::{
        IoBuffer,
        UNIT, //
    },
    io::IoResult,
    opf::{
        Op,
        Opf, //
    },
    status::BlkStatus, //
};

/// One I/O at a time, of up to [`TimedIo::BYTES_MAX`] bytes, with a bio, memory and an open device of its own.
///
/// All of it is allocated beforehand, so that an I/O needs no memory: it is `bio_init()` and `submit_bio()`. The
/// functions sleep, and so are not for [`map`](crate::abstractions::dm::Target::map) and `end_io`. Dropping it waits, for
/// as long as that takes, for the I/O that is under way.
///
/// # Examples
///
/// ```
/// # use kernel::block::Opf;
/// # use kernel::block::TimedIo;
/// # use kernel::dm::Device;
/// # use kernel::prelude::*;
/// # fn example(io: &mut TimedIo, spare: &Device, block: &mut [u8]) -> Result {
/// match io.read(spare, 0, block, Opf::READ.sync(), 1000) {
///     Some(Ok(())) => Ok(()),
///     Some(Err(status)) => status.to_result(),
///     None => Err(ETIMEDOUT),
/// }
/// # }
/// ```
///
/// # Invariants
///
/// If `device` is none, no bio is under way. Otherwise one was submitted to it, and `done` is completed when it has
/// come back.
pub struct TimedIo {
    bio: Pin<KBox<OwnBio>>,
    buffer: IoBuffer,
    device: Option<Device>,
    /// What is under way, or was: its operation, its sector, and its length in bytes.
    what: (Op, u64, usize),
    /// The same of what came back late with an error.
    late: Option<((Op, u64, usize), BlkStatus)>,
}

/// What the block layer has while the bio is under way.
#[pin_data]
struct OwnBio {
    #[pin]
    bio: Opaque<bindings::bio>,
    #[pin]
    vecs: Opaque<[bindings::bio_vec; VECS]>,
    #[pin]
    done: Opaque<bindings::completion>,
}

/// The most pages that an I/O needs: the smallest there are have 4096 bytes.
const VECS: usize = TimedIo::BYTES_MAX / UNIT;

// SAFETY: A bio may be submitted by one thread and waited for by another one.
unsafe impl Send for OwnBio {}
// SAFETY: There is nothing that could be done with a shared reference.
unsafe impl Sync for OwnBio {}

impl TimedIo {
    /// The largest I/O that there can be, in bytes.
    pub const BYTES_MAX: usize = 16 * 1024;

    /// Allocates what an I/O of up to `bytes` bytes needs; fails with [`EINVAL`] if that is more than
    /// [`TimedIo::BYTES_MAX`]. Sleeps for memory, if `flags` let it.
    pub fn new(bytes: usize, flags: Flags) -> Result<Self> {
        if bytes > Self::BYTES_MAX {
            return Err(EINVAL);
        }
        let bio = KBox::pin_init(
            pin_init!(OwnBio {
                bio <- Opaque::uninit(),
                vecs <- Opaque::uninit(),
                done <- Opaque::uninit(),
            }),
            flags,
        )?;
        // INVARIANT: No bio is under way.
        Ok(Self {
            bio,
            buffer: IoBuffer::new(bytes, flags)?,
            device: None,
            what: (Op::Read, 0, 0),
            late: None,
        })
    }

    /// Reads `data.len()` bytes, whole sectors, from `sector` of `device`. None if that takes longer than
    /// `timeout_ms` milliseconds, or an earlier I/O is still under way.
    ///
    /// Like the other functions, it fails with [`EINVAL`] if the operation or the length is wrong, and with [`EBUSY`]
    /// inside of a `map` function, where it would never end.
    pub fn read(
        &mut self,
        device: &Device,
        sector: u64,
        data: &mut [u8],
        opf: Opf,
        timeout_ms: u32,
    ) -> Option<IoResult> {
        if opf.op() != Op::Read {
            return Some(Err(EINVAL.into()));
        }
        let done = self.run(device, sector, data.len(), opf, timeout_ms)?;
        if done.is_ok() {
            if let Some(read) = self.buffer.as_slice().get(..data.len()) {
                data.copy_from_slice(read);
            }
        }
        Some(done)
    }

    /// Writes `data`, whole sectors, to `sector` of `device`. None if that takes longer than `timeout_ms`: it may
    /// yet happen at any time. None, too, if an earlier I/O is still under way; then it will not.
    pub fn write(
        &mut self,
        device: &Device,
        sector: u64,
        data: &[u8],
        opf: Opf,
        timeout_ms: u32,
    ) -> Option<IoResult> {
        if opf.op() != Op::Write {
            return Some(Err(EINVAL.into()));
        }
        if !self.is_idle() {
            return None;
        }
        match self.buffer.as_mut_slice().get_mut(..data.len()) {
            Some(buffer) => buffer.copy_from_slice(data),
            None => return Some(Err(EINVAL.into())),
        }
        self.run(device, sector, data.len(), opf, timeout_ms)
    }

    /// Flushes the cache of `device`. None if that takes longer than `timeout_ms`, or an earlier I/O is still under way.
    pub fn flush(&mut self, device: &Device, timeout_ms: u32) -> Option<IoResult> {
        self.run(device, 0, 0, Opf::WRITE.preflush().sync(), timeout_ms)
    }

    /// Whether no I/O is under way.
    pub fn is_idle(&mut self) -> bool {
        if self.device.is_none() {
            return true;
        }
        // SAFETY: The completion was initialised when the bio was submitted.
        let done = unsafe { bindings::completion_done(self.bio.done.get()) };
        if done {
            // INVARIANT: The bio has come back. `completion_done` says so only when `complete` is done with its
            // memory.
            self.device = None;
            // SAFETY: The bio is ours again.
            let status = BlkStatus::from_raw(unsafe { (*self.bio.bio.get()).bi_status });
            self.late = status.is_err().then_some((self.what, status));
        }
        done
    }

    /// Returns how the I/O ended that was waited for in vain the last time, if it was this one and has failed; once.
    pub fn take_late(&mut self, op: Op, sector: u64, bytes: usize) -> Option<BlkStatus> {
        if !self.is_idle() {
            return None;
        }
        let late = self.late.take_if(|(late, _)| *late == (op, sector, bytes));
        late.map(|(_, status)| status)
    }

    fn run(
        &mut self,
        device: &Device,
        sector: u64,
        bytes: usize,
        opf: Opf,
        timeout_ms: u32,
    ) -> Option<IoResult> {
        // SAFETY: This looks at the current thread.
        if unsafe { bindings::dm_rust_in_submission() } {
            warn_once!(c"map waits for I/O");
            return Some(Err(EBUSY.into()));
        }
        if bytes > self.buffer.len() || bytes % SECTOR_SIZE as usize != 0 {
            return Some(Err(EINVAL.into()));
        }
        if !self.is_idle() {
            return None;
        }
        let (bio, done) = (self.bio.bio.get(), self.bio.done.get());
        let start: *mut u8 = self.buffer.as_mut_slice().as_mut_ptr();
        let vecs: *mut bindings::bio_vec = self.bio.vecs.get().cast();
        // SAFETY: No bio is under way, so that all of this is ours. There are `VECS` `bio_vec`s, and as many pages at the
        // most: a buffer has up to as many times 4096 bytes, and begins at a multiple of that. The device is open.
        unsafe {
            bindings::init_completion(done);
            bindings::bio_init(bio, device.bdev(), vecs, VECS as u16, opf.as_own());
            (*bio).bi_iter.bi_sector = sector;
            (*bio).bi_private = done.cast();
            (*bio).bi_end_io = Some(Self::end_io);
            if bytes != 0 && !bindings::bio_add_vmalloc(bio, start.cast(), bytes as c_uint) {
                bindings::bio_uninit(bio);
                return Some(Err(EINVAL.into()));
            }
        }
        // INVARIANT: It is submitted to this device just now.
        self.device = Some(device.clone());
        self.what = (opf.op(), sector, bytes);
        // SAFETY: The bio, its memory and its device are left alone until it has come back, as `device` is set.
        let in_time = unsafe {
            bindings::submit_bio(bio);
            bindings::dm_rust_wait_for_io_timeout(done, timeout_ms)
        };
        if !in_time {
            return None;
        }
        // INVARIANT: The bio has come back.
        self.device = None;
        if bytes != 0 && opf.op() == Op::Read {
            // SAFETY: This is memory of the buffer.
            unsafe { bindings::dm_rust_invalidate_vmap(start.cast(), bytes as c_uint) };
        }
        // SAFETY: The bio is ours again.
        Some(BlkStatus::from_raw(unsafe { (*bio).bi_status }).ok())
    }

    /// # Safety
    ///
    /// The block layer must call this for a bio that `run` has submitted, once.
    unsafe extern "C" fn end_io(bio: *mut bindings::bio) {
        // SAFETY: `run` put an initialised completion there, and it stays until it is completed.
        unsafe { bindings::complete((*bio).bi_private.cast()) };
    }
}

impl Drop for TimedIo {
    fn drop(&mut self) {
        if self.device.is_some() {
            // SAFETY: The completion was initialised when the bio was submitted. Nobody else waits for it.
            unsafe { bindings::dm_rust_wait_for_io(self.bio.done.get()) };
        }
    }
}
