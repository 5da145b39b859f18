// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of dm-remap, `dm_remap:*`: what happens to a bio that failed, and to the spare.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)
//!
//! All of this may be called from any context, and sleeps nowhere. While nobody listens, each function is a call and
//! a `nop`. None is on the way of a bio that comes back without an error.
//!
//! A new one is four things: its `TRACE_EVENT` in `events.h`, a function in `trace.h` and `trace.c`, and a method of
//! `Tracer`. docs/dm-remap.rst lists all.
//!
//! Sectors have 512 bytes; those of main are counted from the target's first one, and those of a spare from the first
//! one of its part that is used.

use crate::abstractions::{
    bindings,
    block::{
        BlkStatus,
        Op, //
    },
    dm::DeviceNumber, //
};

/// Where tracepoints say that something happened: the number of a mapped device.
#[derive(Clone, Copy)]
pub struct Tracer(DeviceNumber);

/// A part of a mapped device.
#[derive(Clone, Copy)]
pub struct Part {
    /// Its first sector.
    pub sector: u64,
    /// How many sectors it has.
    pub sectors: u32,
}

/// A disk: main, or the spare of a member.
#[derive(Clone, Copy)]
pub struct Disk(i32);

impl Disk {
    /// Main.
    pub const MAIN: Self = Self(-1);

    /// The spare of a member, or main.
    pub fn of(member: Option<u8>) -> Self {
        member.map_or(Self::MAIN, |member| Self(i32::from(member)))
    }
}

/// What becomes of a bio that failed.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// Its error goes up at once.
    PassedUp,
    /// It goes to the worker.
    Repair,
    /// It was served after all.
    Served,
    /// The worker answers it with an error.
    Failed,
}

impl Tracer {
    /// For a mapped device.
    pub const fn new(device: DeviceNumber) -> Self {
        Self(device)
    }

    /// Which mapped device it is.
    pub const fn device(self) -> DeviceNumber {
        self.0
    }

    fn dev(self) -> u32 {
        self.0.as_raw()
    }

    /// A bio came back from `disk` with an error.
    pub fn bio_failed(self, part: Part, op: Op, disk: Disk, status: BlkStatus) {
        let (Part { sector, sectors }, op) = (part, op as u32);
        // SAFETY: There are no demands.
        unsafe {
            bindings::dm_rust_trace_bio_failed(
                self.dev(),
                sector,
                sectors,
                op,
                disk.0,
                status.to_errno(),
            )
        };
    }

    /// It is decided about a bio that failed.
    pub fn verdict(self, part: Part, op: Op, verdict: Verdict, status: BlkStatus) {
        let (Part { sector, sectors }, op) = (part, op as u32);
        let (dev, verdict) = (self.dev(), verdict as u32);
        // SAFETY: There are no demands.
        unsafe {
            bindings::dm_rust_trace_verdict(dev, sector, sectors, op, verdict, status.to_errno())
        };
    }

    /// Whether somebody listens to [`remap`](Self::remap), [`pending`](Self::pending) or [`moved`](Self::moved): only
    /// then is it worth to look where slots are.
    pub fn follows_slots(self) -> bool {
        // SAFETY: There are no demands.
        unsafe { bindings::dm_rust_traces_slots() }
    }

    /// A block of main is served from sector `at` of `disk` from now on, and was served by main before.
    pub fn remap(self, part: Part, disk: Disk, at: u64, manual: bool) {
        let Part { sector, sectors } = part;
        // SAFETY: There are no demands.
        unsafe {
            bindings::dm_rust_trace_remap(
                self.dev(),
                sector,
                sectors,
                disk.0,
                at,
                u32::from(manual),
            )
        };
    }

    /// Main cannot read a block.
    pub fn pending(self, part: Part) {
        // SAFETY: There are no demands.
        unsafe { bindings::dm_rust_trace_pending(self.dev(), part.sector, part.sectors) };
    }

    /// A block that had a slot is served from somewhere else: main, or another slot.
    pub fn moved(self, part: Part, from: (Disk, u64), to: (Disk, u64)) {
        let Part { sector, sectors } = part;
        let ((from, from_sector), (disk, disk_sector)) = (from, to);
        // SAFETY: There are no demands.
        unsafe {
            bindings::dm_rust_trace_move(
                self.dev(),
                sector,
                sectors,
                from.0,
                from_sector,
                disk.0,
                disk_sector,
            )
        };
    }

    /// A write of metadata has ended: slot table and superblocks, or these alone. `sequence` is that of the superblock,
    /// and `error` 0 or an errno below zero.
    pub fn commit(self, sequence: u64, error: i32) {
        // SAFETY: There are no demands.
        unsafe { bindings::dm_rust_trace_commit(self.dev(), sequence, error) };
    }

    /// A step of making a replica again has ended, of the slot table of the member that `disk` is the spare of: blocks
    /// before `block` are done.
    pub fn restore(self, disk: Disk, replica: u8, block: u32, error: i32) {
        // SAFETY: There are no demands.
        unsafe {
            bindings::dm_rust_trace_restore(self.dev(), disk.0, u32::from(replica), block, error)
        };
    }

    /// A breaker opens or closes.
    pub fn breaker(self, disk: Disk, write: bool, open: bool) {
        let (write, open) = (u32::from(write), u32::from(open));
        // SAFETY: There are no demands.
        unsafe { bindings::dm_rust_trace_breaker(self.dev(), disk.0, write, open) };
    }

    /// A spare is lost, or is used again.
    pub fn spare(self, disk: Disk, lost: bool) {
        // SAFETY: There are no demands.
        unsafe { bindings::dm_rust_trace_spare(self.dev(), disk.0, u32::from(lost)) };
    }

    /// The table of remaps in memory has another number of buckets.
    pub fn resize(self, before: u64, after: u64) {
        // SAFETY: There are no demands.
        unsafe { bindings::dm_rust_trace_resize(self.dev(), before, after) };
    }
}
