// SPDX-License-Identifier: GPL-2.0

//! Who moves blocks that did not fail, and whether jobs have to end.
//!
//! `mover` is the first of all locks, and `weak` one of the last: [`session::state`](crate::remap::session::state) has
//! their order.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Mutex, //
    }, //
};

use crate::abstractions::sync;

use super::{
    mover::MoverBuffers,
    weak::WeakBlocks, //
};

/// See the module's documentation.
#[pin_data]
pub(in crate::remap) struct JobsState {
    #[pin]
    pub(in crate::remap) mover: sync::IoMutex<KBox<MoverBuffers>>,
    /// How many repairers want the mover's lock.
    pub(in crate::remap) probing: Atomic<i32>,
    /// Blocks that main can hardly read, until they are moved.
    #[pin]
    pub(in crate::remap) weak: Mutex<WeakBlocks>,
    /// The device is about to be suspended: what takes long has to come to its end.
    stopping: Atomic<bool>,
}

impl JobsState {
    /// Nothing to do so far.
    pub(in crate::remap) fn new() -> Result<impl PinInit<Self, Error>> {
        let (buffers, weak) = (
            KBox::new(MoverBuffers::new()?, GFP_KERNEL)?,
            WeakBlocks::new()?,
        );
        Ok(try_pin_init!(Self {
            mover <- sync::IoMutex::new(new_mutex!(buffers, "dm_remap_mover")),
            probing: Atomic::new(0),
            weak <- new_mutex!(weak, "dm_remap_weak"),
            stopping: Atomic::new(false),
        }))
    }

    /// Says whether the device is about to be suspended.
    pub(in crate::remap) fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Relaxed);
    }

    /// Whether it is.
    pub(in crate::remap) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Whether who works for a message, or in the background, has to come to an end.
    pub(in crate::remap) fn must_stop(&self) -> bool {
        self.is_stopping() || kernel::current!().signal_pending()
    }
}
