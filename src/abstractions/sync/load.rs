// SPDX-License-Identifier: GPL-2.0

//! Loads and stores of atomics, and barriers, that become part of the function that they are in.
//!
//! C header: [`include/asm-generic/barrier.h`](srctree/include/asm-generic/barrier.h)
//!
//! The methods of [`Atomic`] call functions written in C, which costs more than the access itself
//! where each instruction counts. These here are what those functions do. None of them sleeps, and all may be
//! used in any context.

use core::{
    mem::size_of,
    sync::atomic::{
        fence,
        Ordering, //
    }, //
};

use kernel::sync::atomic::{
    Atomic,
    AtomicType, //
};

/// `READ_ONCE()`: loads the value, which orders nothing but what depends on it as an address.
#[inline(always)]
pub fn load_relaxed<T: AtomicType>(atomic: &Atomic<T>) -> T {
    const { assert!(size_of::<T>() <= size_of::<usize>()) };
    // SAFETY: The pointer is valid, and the value was just seen to fit into a machine word, so that a
    // volatile load takes all of it at once, as the kernel's memory model has it.
    unsafe { atomic.as_ptr().read_volatile() }
}

/// `smp_load_acquire()`: what comes after it in the program also happens after it.
#[inline(always)]
pub fn load_acquire<T: AtomicType>(atomic: &Atomic<T>) -> T {
    let value = load_relaxed(atomic);
    fence(Ordering::Acquire);
    value
}

/// `smp_store_release()`: what comes before it in the program also happens before it.
#[inline(always)]
pub fn store_release<T: AtomicType>(atomic: &Atomic<T>, value: T) {
    const { assert!(size_of::<T>() <= size_of::<usize>()) };
    fence(Ordering::Release);
    // SAFETY: The pointer is valid, and the value was just seen to fit into a machine word, so that a
    // volatile store writes all of it at once, as the kernel's memory model has it.
    unsafe { atomic.as_ptr().write_volatile(value) };
}

/// `smp_mb()`: what comes before it in the program also happens before what comes after it.
#[inline(always)]
pub fn full_barrier() {
    fence(Ordering::SeqCst);
}
