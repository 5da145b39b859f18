// SPDX-License-Identifier: GPL-2.0

//! Work queues: what `kernel::workqueue` cannot do, to make and to wait for them.

pub(super) mod queue;

pub use queue::{
    wait_until_idle,
    WorkQueue, //
};
