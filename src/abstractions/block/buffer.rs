// SPDX-License-Identifier: GPL-2.0

//! Memory that block devices read from and write to.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h), `bio_add_vmalloc()`
//!
//! Not just any slice will do: a device may write to whole cache lines, and a bio wants pages. These
//! buffers are whole pages, and their parts are whole sectors.

use core::{
    marker::PhantomData,
    ops::Range, //
};

use kernel::{
    alloc::{
        flags::__GFP_ZERO,
        Flags, //
    },
    block::SECTOR_SIZE,
    prelude::*, //
};

/// The unit in which buffers are allocated, and to which they are aligned at least.
pub(in crate::abstractions) const UNIT: usize = 4096;

/// The sizes and positions of the parts of a buffer are multiples of this.
const SECTOR: usize = SECTOR_SIZE as usize;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Unit([u8; UNIT]);

/// A buffer for I/O, zeroed when it is made.
///
/// # Examples
///
/// ```
/// # use kernel::block::IoBuffer;
/// # use kernel::prelude::*;
/// # fn example() -> Result {
/// let mut buffer = IoBuffer::new(8192, GFP_KERNEL)?;
/// buffer.as_mut_slice().fill(0xff);
/// let second = buffer.slice(4096..8192)?; // for `Batch::write`
/// assert!(buffer.slice(1..8192).is_err()); // not in whole sectors
/// # let _ = second;
/// # Ok(())
/// # }
/// ```
pub struct IoBuffer {
    units: VVec<Unit>,
}

impl IoBuffer {
    /// Makes a buffer of at least `bytes` bytes, rounded up to 4096, of `vmalloc()` memory. Sleeps.
    pub fn new(bytes: usize, flags: Flags) -> Result<Self> {
        let len = bytes.div_ceil(UNIT);
        // Pages come zeroed, and need not be written to once more.
        let empty = VVec::<Unit>::with_capacity(len, flags | __GFP_ZERO)?;
        let (start, _, capacity) = empty.into_raw_parts();
        // SAFETY: These are the parts of a vector with room for `len` units, which are arrays of bytes
        // and zeroed.
        let units = unsafe { VVec::from_raw_parts(start, len, capacity) };
        Ok(Self { units })
    }

    /// Returns the size in bytes.
    pub fn len(&self) -> usize {
        // There cannot be more bytes than the address space has.
        self.units.len().wrapping_mul(UNIT)
    }

    /// Whether the size is 0.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Returns the content.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: The units are arrays of bytes without gaps.
        unsafe { core::slice::from_raw_parts(self.units.as_ptr().cast(), self.len()) }
    }

    /// Returns the content for changing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.len();
        // SAFETY: The units are arrays of bytes without gaps, and `self` is borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.units.as_mut_ptr().cast(), len) }
    }

    /// Returns all of it for writing to a device.
    pub fn all(&self) -> IoSlice<'_> {
        // INVARIANT: A unit consists of whole sectors.
        IoSlice {
            start: self.units.as_ptr().cast(),
            len: self.len(),
            _data: PhantomData,
        }
    }

    /// Returns all of it for reading from a device.
    pub fn all_mut(&mut self) -> IoSliceMut<'_> {
        // INVARIANT: A unit consists of whole sectors.
        IoSliceMut {
            start: self.units.as_mut_ptr().cast(),
            len: self.len(),
            _data: PhantomData,
        }
    }

    /// Returns a part of it for writing to a device; [`EINVAL`] if it is not inside, or not in whole
    /// sectors.
    pub fn slice(&self, range: Range<usize>) -> Result<IoSlice<'_>> {
        let (_, rest) = self.all().split_at(range.start)?;
        let len = range.end.checked_sub(range.start).ok_or(EINVAL)?;
        Ok(rest.split_at(len)?.0)
    }

    /// Returns a part of it for reading from a device; [`EINVAL`] if it is not inside, or not in whole
    /// sectors.
    pub fn slice_mut(&mut self, range: Range<usize>) -> Result<IoSliceMut<'_>> {
        let (_, rest) = self.all_mut().split_at(range.start)?;
        let len = range.end.checked_sub(range.start).ok_or(EINVAL)?;
        Ok(rest.split_at(len)?.0)
    }
}

fn check_split(len: usize, at: usize) -> Result<usize> {
    if at % SECTOR != 0 {
        return Err(EINVAL);
    }
    len.checked_sub(at).ok_or(EINVAL)
}

/// A part of an [`IoBuffer`] that is written to a device.
///
/// # Invariants
///
/// `start` points to `len` bytes in an [`IoBuffer`], which do not change during `'a`. Both the position
/// in the buffer and the length are in whole sectors.
#[derive(Clone, Copy)]
pub struct IoSlice<'a> {
    start: *const u8,
    len: usize,
    _data: PhantomData<&'a [u8]>,
}

impl<'a> IoSlice<'a> {
    /// Returns the size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the size is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the first `at` bytes and the rest; [`EINVAL`] if there are less, or they are not whole
    /// sectors.
    pub fn split_at(self, at: usize) -> Result<(Self, Self)> {
        let rest = check_split(self.len, at)?;
        // INVARIANT: Both are parts of this one, in whole sectors.
        Ok((
            Self { len: at, ..self },
            Self {
                start: self.start.wrapping_add(at),
                len: rest,
                ..self
            },
        ))
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        self.start
    }
}

/// A part of an [`IoBuffer`] that is read from a device.
///
/// # Invariants
///
/// `start` points to `len` bytes in an [`IoBuffer`], which are nobody else's during `'a`. Both the
/// position in the buffer and the length are in whole sectors.
pub struct IoSliceMut<'a> {
    start: *mut u8,
    len: usize,
    _data: PhantomData<&'a mut [u8]>,
}

impl<'a> IoSliceMut<'a> {
    /// Returns the size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the size is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the first `at` bytes and the rest; [`EINVAL`] if there are less, or they are not whole
    /// sectors.
    pub fn split_at(self, at: usize) -> Result<(Self, Self)> {
        let rest = check_split(self.len, at)?;
        // INVARIANT: Both are parts of this one, in whole sectors, and without overlap.
        Ok((
            Self {
                start: self.start,
                len: at,
                _data: PhantomData,
            },
            Self {
                start: self.start.wrapping_add(at),
                len: rest,
                _data: PhantomData,
            },
        ))
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start
    }
}
