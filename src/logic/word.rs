// SPDX-License-Identifier: GPL-2.0

//! Memory cells that one writer changes while readers look at them.
//!
//! The data structures of this crate are views over slices of such cells, so that the kernel
//! brings its own atomics and its own memory, and a host test can bring instrumented ones.

use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    Ordering, //
};

/// A cell that holds one `T`, read and written whole.
///
/// A reader that sees a stored value also sees everything that the writer did before it stored
/// it: `store` releases, `load` acquires.
pub trait Word<T: Copy> {
    /// Reads the value; acquires.
    fn load(&self) -> T;

    /// Writes the value; releases. There is one writer at a time.
    fn store(&self, value: T);
}

impl Word<u32> for AtomicU32 {
    #[inline(always)]
    fn load(&self) -> u32 {
        AtomicU32::load(self, Ordering::Acquire)
    }

    #[inline(always)]
    fn store(&self, value: u32) {
        AtomicU32::store(self, value, Ordering::Release);
    }
}

impl Word<u64> for AtomicU64 {
    #[inline(always)]
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Acquire)
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Release);
    }
}
