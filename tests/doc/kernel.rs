// SPDX-License-Identifier: GPL-2.0

//! The kernel crate as it would be with `dm` in it: what the examples in src/dm are compiled against.

#![no_std]
#![feature(arbitrary_self_types, used_with_arg)]

#[path = "../../src/dm/mod.rs"]
pub mod dm;

pub use kernel::*;
