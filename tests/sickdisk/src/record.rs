// SPDX-License-Identifier: GPL-2.0
//! What was asked of a disk, in order.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::fault::Status;
use crate::model::Operation;

/// How many entries are kept.
const LIMIT: usize = 1 << 20;

/// One request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place among all requests to all disks of this process.
    pub order: u64,
    /// What was asked.
    pub operation: Operation,
    /// Where.
    pub sector: u64,
    /// How much.
    pub sectors: u64,
    /// Whether it had to be on the medium before it was answered.
    pub fua: bool,
    /// Why it failed.
    pub error: Option<Status>,
}

/// Counters since they were last cleared, and, when wanted, the requests themselves.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Reads, failed ones too.
    pub reads: u64,
    /// Writes, failed ones too.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Writes that had the FUA flag.
    pub fua_writes: u64,
    /// Discards and write-zeroes.
    pub discards: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests whose answer is slow, also if it has not come yet.
    pub late: u64,
    keep: bool,
    entries: Vec<Entry>,
}

impl Record {
    /// Forgets everything; `keep` says whether requests are kept from now on, or only counted.
    pub fn restart(&mut self, keep: bool) {
        *self = Self {
            keep,
            ..Self::default()
        };
    }

    /// The requests kept, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn add(&mut self, mut entry: Entry) {
        static ORDER: AtomicU64 = AtomicU64::new(1);
        entry.order = ORDER.fetch_add(1, Ordering::Relaxed);
        match entry.operation {
            Operation::Read => self.reads += 1,
            Operation::Write => self.writes += 1,
            Operation::Flush => self.flushes += 1,
            Operation::Discard | Operation::WriteZeroes => self.discards += 1,
        }
        if entry.fua {
            self.fua_writes += 1;
        }
        if entry.error.is_some() {
            self.errors += 1;
        }
        if self.keep && self.entries.len() < LIMIT {
            self.entries.push(entry);
        }
    }
}
