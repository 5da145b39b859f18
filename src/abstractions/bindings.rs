// SPDX-License-Identifier: GPL-2.0

//! The C interface of device mapper, translated by bindgen.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)
//!
//! The kernel's own bindings do not cover device mapper, so this is a translation of that one header
//! and of our helpers; every type that both know is the kernel's. Inside the kernel tree, this file
//! is `kernel::bindings`.

#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::cast_lossless,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

pub(super) use kernel::bindings::*;
use kernel::ffi;
use pin_init::MaybeZeroable;

include!(env!("DM_BINDINGS"));
