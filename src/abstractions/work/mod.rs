// SPDX-License-Identifier: GPL-2.0

//! Work queues.

pub(super) mod queue;

pub use queue::{
    wait_until_idle,
    WorkQueue, //
};
