// SPDX-License-Identifier: GPL-2.0

//! The kernel's atomics as the cells that [`logic`](crate::logic) works on, and arrays of them.

use kernel::{
    alloc::{
        AllocError,
        Flags, //
    },
    prelude::*,
    sync::atomic::Atomic, //
};

use crate::{
    abstractions::sync,
    logic::word::Word, //
};

/// A 32-bit cell: one writer, readers at any time.
pub(in crate::remap) struct Cell32(Atomic<u32>);

/// A 64-bit cell: one writer, readers at any time.
pub(in crate::remap) struct Cell64(Atomic<u64>);

impl Word<u32> for Cell32 {
    #[inline(always)]
    fn load(&self) -> u32 {
        sync::load_acquire(&self.0)
    }

    #[inline(always)]
    fn store(&self, value: u32) {
        sync::store_release(&self.0, value);
    }
}

impl Word<u64> for Cell64 {
    #[inline(always)]
    fn load(&self) -> u64 {
        sync::load_acquire(&self.0)
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        sync::store_release(&self.0, value);
    }
}

// For arrays of cells, which nobody shares so far.
impl Clone for Cell32 {
    fn clone(&self) -> Self {
        Self(Atomic::new(self.load()))
    }
}

impl Cell64 {
    /// A cell that holds `value`.
    #[inline(always)]
    pub(in crate::remap) fn new(value: u64) -> Self {
        Self(Atomic::new(value))
    }
}

/// Makes an array of `len` cells that hold 0.
pub(in crate::remap) fn cells32(len: usize, flags: Flags) -> Result<KVVec<Cell32>, AllocError> {
    KVVec::from_elem(Cell32(Atomic::new(0)), len, flags)
}

/// Makes an array of `len` cells that hold what `values` gives, then 0.
pub(in crate::remap) fn cells64(
    values: impl Iterator<Item = u64>,
    len: usize,
    flags: Flags,
) -> Result<KVVec<Cell64>, AllocError> {
    let mut cells = KVVec::with_capacity(len, flags)?;
    for value in values.chain(core::iter::repeat(0)).take(len) {
        cells.push(Cell64(Atomic::new(value)), flags)?;
    }
    Ok(cells)
}
