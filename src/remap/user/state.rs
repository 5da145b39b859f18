// SPDX-License-Identifier: GPL-2.0

//! What users see of a device, and what they have set.
//!
//! Counters, limits and switches are single words, which are read at any time. Counters are written under the writer's
//! lock or by rare events. `why` is a mutex that is held for a moment; nothing is taken below it. All that tells users
//! something may be called in any context, but [`UserState::refuse`] and [`UserState::with_why`], which sleep.

use core::fmt::Write;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::Atomic,
        Mutex, //
    }, //
};

use crate::{
    abstractions::{
        trace,
        util, //
    },
    logic::{
        event::{
            Event,
            Level, //
        },
        message::Denial,
        text::Bounded, //
    },
    remap::health::life::{
        Direction,
        Disk, //
    }, //
};

use super::{
    counters::Counters,
    events::News,
    limits::Limits,
    names::LogName, //
};

/// How long a reason may be that is kept for users: longer than any that there is, but for words of theirs.
const WHY_BYTES: usize = 640;

/// See the module's documentation.
#[pin_data]
pub(in crate::remap) struct UserState {
    /// How the kernel log calls the mapped device.
    pub(in crate::remap) name: LogName,
    /// What tracepoints call it.
    pub(in crate::remap) trace: trace::Tracer,
    /// What users have to hear of.
    pub(in crate::remap) news: News,
    pub(in crate::remap) counters: Counters,
    pub(in crate::remap) limits: Limits,
    /// Whether failed I/O leads to remaps.
    pub(in crate::remap) auto_remap: Atomic<bool>,
    /// Why a message was refused last.
    #[pin]
    why: Mutex<KBox<Bounded<WHY_BYTES>>>,
    /// Keeps the log readable when a disk fails a million times.
    #[pin]
    pub(in crate::remap) log: util::RateLimit,
}

impl UserState {
    /// Begins with what the spares say.
    pub(in crate::remap) fn new(
        name: LogName,
        trace: trace::Tracer,
        counters: Counters,
        auto_remap: bool,
    ) -> Result<impl PinInit<Self, Error>> {
        let why = new_why()?;
        Ok(try_pin_init!(Self {
            name,
            trace,
            news: News::new(),
            counters,
            limits: Limits::new(),
            auto_remap: Atomic::new(auto_remap),
            why <- new_mutex!(why, "dm_remap_why"),
            log <- util::RateLimit::new(5, 10),
        }))
    }

    /// Remembers why a message is refused, which is called so, and tells the kernel log. Of several at a time, one is
    /// remembered. May sleep.
    pub(in crate::remap) fn refuse(&self, message: &str, denial: &Denial<'_>) -> Error {
        self.counters.refused.add(1);
        let errno = denial.errno();
        let mut why = self.why.lock();
        why.clear();
        // Writing to it does not fail.
        let _ = write!(why, "{message}: {denial} (errno {errno})");
        pr_err!("{}: {}\n", self.name, why.as_str());
        drop(why);
        Error::from_errno(errno.saturating_neg())
    }

    /// Calls `tell` with why a message was refused last; with nothing if none was. May sleep.
    pub(in crate::remap) fn with_why<R>(&self, tell: impl FnOnce(&str) -> R) -> R {
        tell(self.why.lock().as_str())
    }

    /// Says in the kernel log what went wrong, unless that was said too often.
    pub(in crate::remap) fn complain(&self, what: &str) {
        if self.log.allow() {
            pr_err!("{}: {what}\n", self.name);
        }
    }

    /// Has users hear of what happened to blocks of main: by an event, which whoever calls this has to see to, and in the
    /// kernel log.
    pub(in crate::remap) fn report(&self, event: Event, blocks: usize, sector: u64) {
        let count = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.news.note(event, count, Some(sector));
        self.log_blocks(event, blocks, sector);
    }

    /// Says in the kernel log what happened to blocks of main, unless that was said too often.
    pub(in crate::remap) fn log_blocks(&self, event: Event, blocks: usize, sector: u64) {
        if self.log.allow() {
            let what = event.what();
            pr_warn!(
                "{}: {blocks} blocks {what}, from sector {sector} on\n",
                self.name
            );
        }
    }

    /// Has users hear of something that is about no block: by an event, which whoever calls this has to see to, and in
    /// the kernel log, unless that was said too often.
    pub(in crate::remap) fn announce(&self, event: Event) {
        self.news.note(event, 1, None);
        if !self.log.allow() {
            return;
        }
        let (name, what) = (&self.name, event.what());
        match event.level() {
            Level::Error => pr_err!("{name}: {what}\n"),
            Level::Warning => pr_warn!("{name}: {what}\n"),
            Level::Info => pr_info!("{name}: {what}\n"),
        }
    }

    /// Says that a disk cannot be flushed. From any context.
    pub(in crate::remap) fn tell_unflushed(&self, disk: Disk) {
        self.news.note(Event::FlushFailed, 1, None);
        if !self.log.allow() {
            return;
        }
        let (name, what) = (&self.name, Event::FlushFailed.what());
        match disk {
            Disk::Main => pr_err!("{name}: main {what}\n"),
            Disk::Spare(_) => pr_err!("{name}: the spare {what}\n"),
        }
    }

    /// Says that a breaker is closed. From any context.
    pub(in crate::remap) fn tell_closed(&self, direction: Direction) {
        self.news.note(Event::BreakerClosed, 1, None);
        let (disk, write) = direction.traced();
        self.trace.breaker(disk, write, false);
        if self.log.allow() {
            let what = Event::BreakerClosed.what();
            pr_info!("{}: {direction} {what}\n", self.name);
        }
    }

    /// Says that a breaker is open. From any context.
    pub(in crate::remap) fn tell_opened(&self, direction: Direction) {
        self.news.note(Event::BreakerOpen, 1, None);
        let (disk, write) = direction.traced();
        self.trace.breaker(disk, write, true);
        if !self.log.allow() {
            return;
        }
        let (name, what) = (&self.name, Event::BreakerOpen.what());
        match direction {
            Direction::MainRead | Direction::MainWrite => {
                pr_err!("{name}: {direction} {what}, nothing is remapped until it works\n");
            }
            Direction::SpareRead(_) | Direction::SpareWrite(_) => {
                pr_err!("{name}: {direction} {what}\n");
            }
        }
    }
}

/// By itself, so that its stack is not that of who makes a state.
#[inline(never)]
fn new_why() -> Result<KBox<Bounded<WHY_BYTES>>> {
    Ok(KBox::new(Bounded::EMPTY, GFP_KERNEL)?)
}
