// SPDX-License-Identifier: GPL-2.0

//! The kernel crate as it would be with src/abstractions in it: what the examples there are compiled against.

#![no_std]
#![feature(arbitrary_self_types, used_with_arg)]

#[path = "../../src/abstractions/mod.rs"]
mod abstractions;

pub use abstractions::dm;
pub use abstractions::util;
pub use abstractions::work;
pub use kernel::*;

/// `kernel::block` with what is to be added to it.
pub mod block {
    pub use crate::abstractions::block::*;
    pub use kernel::block::*;
}

/// The same of `kernel::fs`.
pub mod fs {
    pub use crate::abstractions::fs::*;
    pub use kernel::fs::*;
}

/// The same of `kernel::sync`. What both have is ours.
pub mod sync {
    pub use crate::abstractions::sync::GlobalGuard;
    pub use crate::abstractions::sync::Srcu;
    pub use crate::abstractions::sync::*;
    pub use kernel::sync::*;
}
