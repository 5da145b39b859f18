// SPDX-License-Identifier: GPL-2.0

//! Where a reader of a fast up/down SRCU domain is counted.
//!
//! C headers: [`include/linux/srcutree.h`](srctree/include/linux/srcutree.h),
//! [`include/linux/srcutiny.h`](srctree/include/linux/srcutiny.h)
//!
//! A reader is named by a word that says where it is counted. With `TREE_SRCU` that is the address of a
//! counter; with `TINY_SRCU`, of kernels with one CPU and no preemption, the domain's address, and in its lowest
//! bit which of the two counters there. It has an address in it, and so is never 0.

use super::super::bindings;

// With a single CPU, its memory needs no register to find it. UML sets `CONFIG_X86_64`, too, and has none. With
// `PROVE_RCU`, the functions check who calls them.
#[cfg(not(all(CONFIG_X86_64, CONFIG_SMP, not(CONFIG_UML), not(CONFIG_PROVE_RCU))))]
pub(in crate::abstractions) use bindings::{
    dm_rust_srcu_down_read as down_read,
    dm_rust_srcu_up_read as up_read, //
};
#[cfg(all(CONFIG_X86_64, CONFIG_SMP, not(CONFIG_UML), not(CONFIG_PROVE_RCU)))]
pub(in crate::abstractions) use inlined::{
    down_read,
    up_read, //
};

/// What the C functions do, as a part of the function that they are in, where that is an increment each: they have
/// changed from version to version.
#[cfg(all(CONFIG_X86_64, CONFIG_SMP, not(CONFIG_UML), not(CONFIG_PROVE_RCU)))]
mod inlined {
    use super::*;

    const IS_INCREMENT: bool = bindings::DM_SRCU_IS_INCREMENT != 0;

    /// Registers a reader. Does not wait, and may be called from any context but an NMI.
    ///
    /// # Safety
    ///
    /// `domain` must be initialised as a fast up/down SRCU domain.
    #[inline(always)]
    pub(in crate::abstractions) unsafe fn down_read(domain: *mut bindings::srcu_struct) -> usize {
        if !IS_INCREMENT {
            // SAFETY: As the caller promises.
            return unsafe { bindings::dm_rust_srcu_down_read(domain) };
        }
        // SAFETY: The caller vouches for the domain. This changes while it is used, and is read once.
        let reader = unsafe { (&raw const (*domain).srcu_ctrp).read_volatile() };
        // SAFETY: This is a counter of the domain.
        unsafe { this_cpu_inc(&raw mut (*reader).srcu_locks) };
        reader.expose_provenance()
    }

    /// Ends a reader, in any context but an NMI.
    ///
    /// # Safety
    ///
    /// `reader` must come from [`down_read`], and be ended once.
    #[inline(always)]
    pub(in crate::abstractions) unsafe fn up_read(reader: usize) {
        if !IS_INCREMENT {
            // SAFETY: As the caller promises.
            return unsafe { bindings::dm_rust_srcu_up_read(reader) };
        }
        let reader = core::ptr::with_exposed_provenance_mut::<bindings::srcu_ctr>(reader);
        // SAFETY: This is a counter of the domain, which exists as long as it has readers.
        unsafe { this_cpu_inc(&raw mut (*reader).srcu_unlocks) };
    }

    /// `this_cpu_inc()`, which in C is part of the function that it is in, too.
    ///
    /// # Safety
    ///
    /// `counter` must be in memory that there is once for each CPU.
    #[inline(always)]
    unsafe fn this_cpu_inc(counter: *mut bindings::atomic_long_t) {
        // One instruction, so that nobody else on this CPU comes between. It is a compiler barrier too, as
        // nothing is said of memory.
        //
        // SAFETY: `gs` is where this CPU's memory begins, and the caller vouches for the counter.
        unsafe { core::arch::asm!("inc qword ptr gs:[{}]", in(reg) counter, options(nostack)) };
    }
}

/// Whether a reader is one of `domain`.
///
/// # Safety
///
/// `domain` must be initialised as a fast up/down SRCU domain.
#[inline(always)]
pub(in crate::abstractions) unsafe fn is_reader(
    domain: *mut bindings::srcu_struct,
    reader: usize,
) -> bool {
    #[cfg(CONFIG_TINY_SRCU)]
    let is_reader = reader & !1 == domain.addr();
    #[cfg(CONFIG_TREE_SRCU)]
    let is_reader = {
        const SIZE: usize = core::mem::size_of::<bindings::srcu_ctr>();
        const { assert!(SIZE.is_power_of_two()) };
        // SAFETY: The caller vouches for the domain; this does not change afterwards.
        let sda = unsafe { (*domain).sda };
        // SAFETY: This computes an address, in memory that there is once for each CPU.
        let first = unsafe { &raw const (*sda).srcu_ctrs }.addr();
        // The first one of two, or the second.
        reader.wrapping_sub(first) & !SIZE == 0
    };
    is_reader
}
