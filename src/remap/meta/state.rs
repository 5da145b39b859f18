// SPDX-License-Identifier: GPL-2.0

//! The writer's lock, and what is behind it. How long it may be held, and what comes before it, says
//! [`session::state`](crate::remap::session::state).

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        }, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        sync,
        util, //
    },
    remap::session::{
        activate::Start,
        leaving::Leaving, //
    }, //
};

use super::{
    io::IoMemory,
    writer::Writer, //
};

/// How often is looked whether the writer's lock is free, in milliseconds.
const LOCK_MS: i64 = 1;

/// How long those go first who look for it, in milliseconds.
const LET_MS: i64 = 100;

/// See the module's documentation.
#[pin_data]
pub(in crate::remap) struct MetaState {
    #[pin]
    pub(in crate::remap) writer: sync::IoMutex<KBox<Locked>>,
    /// How many look for the writer's lock now and then.
    waiting: Atomic<i32>,
    /// Who has this replaces the map.
    #[pin]
    pub(in crate::remap) growing: sync::IoMutex<()>,
}

/// What is behind the writer's lock.
pub(in crate::remap) struct Locked {
    pub(in crate::remap) writer: Writer,
    pub(in crate::remap) io: IoMemory,
    /// What is to be done before the first bio.
    pub(in crate::remap) start: Option<Start>,
    /// What the next table leaves out, if there is one.
    pub(in crate::remap) leaving: Option<KBox<Leaving>>,
}

impl MetaState {
    /// Begins with what was loaded.
    pub(in crate::remap) fn new(locked: KBox<Locked>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            writer <- sync::IoMutex::new(new_mutex!(locked, "dm_remap_writer")),
            waiting: Atomic::new(0),
            growing <- sync::IoMutex::new(new_mutex!((), "dm_remap_growing")),
        })
    }

    /// Takes the writer's lock, for who must not wait for it after `until`, in milliseconds: its holder may wait for a
    /// spare that hangs. None if it was not to be had.
    pub(in crate::remap) fn lock_by(
        &self,
        until: u64,
    ) -> Option<Guard<'_, KBox<Locked>, MutexBackend>> {
        if until == u64::MAX {
            return Some(self.writer.lock());
        }
        self.writer.try_lock().or_else(|| {
            self.waiting.fetch_add(1, Full);
            let locked = self.poll(until);
            self.waiting.fetch_sub(1, Full);
            locked
        })
    }

    fn poll(&self, until: u64) -> Option<Guard<'_, KBox<Locked>, MutexBackend>> {
        while util::monotonic_ms() < until {
            fsleep(Delta::from_millis(LOCK_MS));
            if let Some(locked) = self.writer.try_lock() {
                return Some(locked);
            }
        }
        None
    }

    /// Lets those go first who look for the writer's lock now and then, as they cannot wait for it: for who takes
    /// it again and again. Not with the lock.
    pub(in crate::remap) fn let_others_write(&self) {
        for _ in 0..LET_MS / LOCK_MS {
            if self.waiting.load(Relaxed) == 0 {
                break;
            }
            fsleep(Delta::from_millis(LOCK_MS));
        }
    }
}
