// SPDX-License-Identifier: GPL-2.0

//! What users hear of without asking. Which events there are says [`logic::event`](crate::logic::event).
//!
//! ```text
//!   any context: note --> counts --> teller: event of device mapper at once,
//!                                            a uevent with all counts, once a second at the most
//! ```
//!
//! Notes are counters, so that none is lost however many there are, and nothing is waited for: whoever has noted
//! something has the [`Teller`](crate::remap::repair::crew::Teller) queued, which takes all that is there. What is noted
//! while it is at work has it run once more.
//!
//! Sending a uevent waits for others who send one, and they may wait for memory, and so for I/O to our device. So none is
//! sent from presuspend's end to resume: what is noted then is told afterwards.

use kernel::{
    prelude::*,
    str::CString,
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        dm,
        util, //
    },
    logic::event::{
        Counts,
        Event,
        Level,
        EVENTS, //
    },
    remap::{
        health::life::Life,
        jobs::state::JobsState, //
    }, //
};

use super::{
    face::DeviceFolderRef,
    names::Show,
    state::UserState, //
};

/// How long after a uevent the next one comes, in milliseconds.
const UEVENT_MS: u64 = 1000;

/// How often is looked whether it need not be waited for, in milliseconds.
const SLICE_MS: i64 = 20;

/// What happened and is not told yet, for a spare set in use.
pub(in crate::remap) struct News {
    counts: [Atomic<u32>; EVENTS],
    /// Whether there is something of which no event of device mapper was raised.
    silent: Atomic<bool>,
    /// The last sector of main that something happened to, and one more; 0 if there was none.
    sector: Atomic<u64>,
    /// When the last uevent was sent, in milliseconds; 0 if there was none.
    told_at: Atomic<u64>,
}

impl News {
    /// Nothing so far.
    pub(in crate::remap) const fn new() -> Self {
        Self {
            counts: [const { Atomic::new(0) }; EVENTS],
            silent: Atomic::new(false),
            sector: Atomic::new(0),
            told_at: Atomic::new(0),
        }
    }

    /// Something has happened so many times, the last time to this sector of main. Whoever calls this has the teller
    /// queued, or knows who will. From any context.
    pub(in crate::remap) fn note(&self, event: Event, count: u32, sector: Option<u64>) {
        if let Some(sector) = sector {
            self.sector.store(sector.saturating_add(1), Relaxed);
        }
        if let Some(counter) = self.counts.get(event as usize) {
            counter.fetch_add(count, Full);
        }
        self.silent.store(true, Relaxed);
    }

    /// Whether something is to be told.
    pub(in crate::remap) fn is_due(&self) -> bool {
        self.silent.load(Relaxed) || self.counts.iter().any(|count| count.load(Relaxed) != 0)
    }

    /// Whether there is something of which no event of device mapper was raised, which there is then not any more.
    pub(in crate::remap) fn take_silent(&self) -> bool {
        self.silent.xchg(false, Full)
    }

    fn take(&self) -> Counts {
        let mut counts = Counts([0; EVENTS]);
        for (count, counter) in counts.0.iter_mut().zip(&self.counts) {
            *count = counter.xchg(0, Full);
        }
        counts
    }

    /// Waits until another uevent may be sent. False if none is to be sent, as the device is about to be suspended.
    pub(in crate::remap) fn wait_for_turn(&self, jobs: &JobsState) -> bool {
        loop {
            if jobs.is_stopping() {
                return false;
            }
            let told_at = self.told_at.load(Relaxed);
            let until = told_at.saturating_add(UEVENT_MS);
            if told_at == 0 || util::monotonic_ms() >= until {
                return true;
            }
            fsleep(Delta::from_millis(SLICE_MS));
        }
    }

    /// Sends a uevent with all that has happened. If that fails, the next one has it. Sleeps for others who send uevents.
    pub(in crate::remap) fn tell(
        &self,
        user: &UserState,
        life: &Life,
        names: &dm::DeviceNames,
        folder: &DeviceFolderRef,
    ) {
        let counts = self.take();
        let Some(level) = counts.level() else {
            return;
        };
        self.told_at.store(util::monotonic_ms().max(1), Relaxed);
        if let Err(error) = self.send(user, life, names, folder, &counts, level) {
            for (event, count) in counts.iter() {
                if let Some(counter) = self.counts.get(event as usize) {
                    counter.fetch_add(count, Full);
                }
            }
            if user.log.allow() {
                pr_warn!("{}: no uevent could be sent: {error:?}\n", user.name);
            }
        }
    }

    fn send(
        &self,
        user: &UserState,
        life: &Life,
        names: &dm::DeviceNames,
        folder: &DeviceFolderRef,
        counts: &Counts,
        level: Level,
    ) -> Result {
        let text = CString::try_from_fmt;
        let of_blocks = counts.iter().any(|(event, _)| event.is_of_blocks());
        let sector = self.sector.load(Relaxed).checked_sub(1);
        let sector = sector.filter(|_| of_blocks);
        let device = text(fmt!("DM_REMAP_DEVICE={}", user.trace.device()))?;
        // One that is being removed has none any more.
        let name = names.read(|name, _| {
            let name = name.to_str().unwrap_or("");
            text(fmt!("DM_REMAP_NAME={name}"))
        });
        let name = name.ok().transpose()?;
        let event = text(fmt!("DM_REMAP_EVENT={}", Show(counts.names())))?;
        let count = text(fmt!("DM_REMAP_COUNT={}", Show(counts.numbers())))?;
        let level = text(fmt!("DM_REMAP_LEVEL={}", level.name()))?;
        let left = text(fmt!("DM_REMAP_SLOTS_LEFT={}", user.counters.left.get()))?;
        let health = text(fmt!(
            "DM_REMAP_HEALTH={}",
            user.status(life).health().name()
        ))?;
        let sector = sector.map(|sector| text(fmt!("DM_REMAP_SECTOR={sector}")));
        let sector = sector.transpose()?;
        let mut all = [c""; 8];
        let known = [&device, &event, &count, &level, &left, &health].map(Some);
        let known = Iterator::chain(known.into_iter(), [name.as_ref(), sector.as_ref()]);
        let mut used = 0usize;
        for (place, text) in all.iter_mut().zip(known.flatten()) {
            (*place, used) = (text, used.saturating_add(1));
        }
        folder.uevent(all.get(..used).unwrap_or(&[]))
    }
}
