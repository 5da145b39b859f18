// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate lacks, made safe: written to go there, a series for each folder.
//!
//! | folder  | there          | what                                                                     |
//! |---------|----------------|--------------------------------------------------------------------------|
//! | `block` | `kernel::block`| bios of one's own, operations, statuses, limits of queues                |
//! | `dm`    | `kernel::dm`   | device-mapper targets: begin here                                        |
//! | `fs`    | `kernel::kobject`, `kernel::debugfs` | files in sysfs and debugfs                      |
//! | `sync`  | `kernel::sync` | SRCU, published pointers, locks whose holders wait for I/O               |
//! | `work`  | `kernel::workqueue` | work queues                                                         |
//! | `params`| `kernel::module_param` | parameters that are checked, and shown                           |
//! | `trace` | with its driver| the tracepoints of dm-remap                                              |
//!
//! The C code is in `helpers.c`, for what is inline or a macro there; `bindings` is what bindgen makes of
//! `bindings_helper.h`; `compat` knows versions and configurations of kernels, and what has to be so in all of them.

// Inside the kernel crate all of this would be public. A module that includes it uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports, unused_macros)]

mod bindings;
pub mod block;
mod compat;
pub mod dm;
pub mod fs;
pub mod params;
pub mod sync;
pub mod trace;
pub mod util;
mod warn;
pub mod work;
