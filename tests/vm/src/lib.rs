// SPDX-License-Identifier: GPL-2.0
//! Tests of the kernel module in virtual machines.
//!
//! Two sides, which meet only in the kernel's log and in one shared folder:
//!
//! * **Outside** ([`machine`]): starts QEMU or User Mode Linux, with the running system's own root
//!   (read-only) as root file system, and one command to run. `dm-remap-vm`, the cargo runner, is
//!   a thin wrapper around it. A test that needs more than one boot, or a power cut, uses it
//!   directly.
//! * **Inside** ([`guest`]): what a test uses when it already runs in the machine: disks,
//!   device-mapper devices, stamped I/O, the module.
//!
//! In both, [`verdict`] reads the kernel's log: a warning there is a failed test, whatever the
//! test itself thought.
//!
//! Which tests run where is decided by the name of the test file: `tests/*.rs` run inside, one
//! machine per file, but `tests/outside_*.rs` run outside and start machines themselves.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod guest;
mod initramfs;
mod kernel;
pub mod machine;
pub mod module;
pub mod outside;
pub mod verdict;
