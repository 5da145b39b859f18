// SPDX-License-Identifier: GPL-2.0

//! A disk that does everything that disks may do.
//!
//! - A write without FUA is durable only after a flush. Until then a crash leaves, sector by
//!   sector, any of the versions written since, or the old one: that covers writes that are torn,
//!   dropped and reordered.
//! - A write during which the power fails is torn in the same way, also with FUA.
//! - Sectors can be bad for reading, for writing or for both. A write that fails leaves old, new
//!   or unreadable sectors; a write that succeeds cures a sector that is bad for reading only.
//! - The whole disk can go away for a while: then every I/O fails, and a write that fails may have
//!   reached it or not.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::ops::DerefMut;

use dm_remap_logic::commit::Fault;

use super::random::Random;

const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// Why an I/O did not come back with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The disk says so.
    Fault(Fault),
    /// The power failed in the middle.
    Crash,
}

#[derive(Clone)]
pub(super) struct Disk {
    durable: Vec<Sector>,
    /// What was written since the last flush, oldest first.
    volatile: BTreeMap<u64, Vec<Sector>>,
    unreadable: BTreeSet<u64>,
    unwritable: BTreeSet<u64>,
    /// The power fails during the next write or flush.
    crash: bool,
    /// The disk goes away at the n-th write from now, and comes back after as many more.
    pub(super) away_in: Option<(u32, u32)>,
    /// The disk is gone until further notice.
    pub(super) gone: bool,
    pub(super) random: Random,
}

impl Disk {
    pub(super) fn new(sectors: u64, seed: u64) -> Self {
        Disk {
            durable: vec![[0; SECTOR]; sectors as usize],
            volatile: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            unwritable: BTreeSet::new(),
            crash: false,
            away_in: None,
            gone: false,
            random: Random::new(seed),
        }
    }

    pub(super) fn sectors(&self) -> u64 {
        self.durable.len() as u64
    }

    pub(super) fn break_reads(&mut self, sector: u64) {
        self.unreadable.insert(sector);
    }

    pub(super) fn break_writes(&mut self, sector: u64) {
        self.unwritable.insert(sector);
    }

    /// All sectors work again.
    pub(super) fn heal(&mut self) {
        self.unreadable.clear();
        self.unwritable.clear();
    }

    pub(super) fn is_bad(&self, sector: u64) -> bool {
        self.unreadable.contains(&sector) || self.unwritable.contains(&sector)
    }

    /// Whether it works at all.
    pub(super) fn is_alive(&self) -> bool {
        !self.is_away()
    }

    pub(super) fn read(&mut self, sector: u64, data: &mut [u8]) -> Result<(), Trouble> {
        if self.is_away() {
            return Err(Trouble::Fault(Fault::Other));
        }
        for (i, chunk) in data.chunks_mut(SECTOR).enumerate() {
            let at = sector + i as u64;
            if self.unreadable.contains(&at) {
                return Err(Trouble::Fault(Fault::Media));
            }
            let newest = self.volatile.get(&at).and_then(|v| v.last());
            chunk.copy_from_slice(newest.unwrap_or(&self.durable[at as usize]));
        }
        Ok(())
    }

    pub(super) fn write(&mut self, sector: u64, data: &[u8], fua: bool) -> Result<(), Trouble> {
        let crash = self.crash;
        let away = self.tick_away();
        let sectors = || (sector..).zip(data.chunks(SECTOR));
        if crash || away {
            if crash || self.random.once_in(2) {
                for (at, chunk) in sectors() {
                    self.push(at, chunk);
                }
            }
            return Err(if crash {
                Trouble::Crash
            } else {
                Trouble::Fault(Fault::Other)
            });
        }
        if sectors().any(|(at, _)| self.unwritable.contains(&at)) {
            for (at, chunk) in sectors() {
                match self.random.below(3) {
                    0 => self.store(at, chunk),
                    1 if self.unwritable.contains(&at) => {
                        self.unreadable.insert(at);
                    }
                    _ => (),
                }
            }
            return Err(Trouble::Fault(Fault::Media));
        }
        for (at, chunk) in sectors() {
            self.unreadable.remove(&at);
            if fua {
                self.store(at, chunk);
            } else {
                self.push(at, chunk);
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Trouble> {
        if self.crash {
            return Err(Trouble::Crash);
        }
        if self.tick_away() {
            return Err(Trouble::Fault(Fault::Other));
        }
        for (at, versions) in std::mem::take(&mut self.volatile) {
            self.durable[at as usize] = *versions.last().expect("at least one");
        }
        Ok(())
    }

    /// The power fails and comes back.
    fn crash(&mut self) {
        for (at, versions) in std::mem::take(&mut self.volatile) {
            let which = self.random.below(versions.len() as u64 + 1);
            if let Some(version) = versions.get(which as usize) {
                self.durable[at as usize] = *version;
            }
        }
        self.crash = false;
        self.away_in = None;
    }

    fn push(&mut self, at: u64, chunk: &[u8]) {
        let chunk = chunk.try_into().expect("whole sectors");
        self.volatile.entry(at).or_default().push(chunk);
    }

    /// Durable at once; what was written to the sector before can't come back.
    fn store(&mut self, at: u64, chunk: &[u8]) {
        self.volatile.remove(&at);
        self.durable[at as usize].copy_from_slice(chunk);
    }

    fn is_away(&self) -> bool {
        self.gone || matches!(self.away_in, Some((0, _)))
    }

    fn tick_away(&mut self) -> bool {
        match &mut self.away_in {
            _ if self.gone => true,
            Some((0, 0)) => {
                self.away_in = None;
                false
            }
            Some((0, more)) => {
                *more -= 1;
                true
            }
            Some((n, _)) => {
                *n -= 1;
                false
            }
            None => false,
        }
    }
}

/// The spares of a set, whose power fails together. As a disk, it is the first one.
#[derive(Clone)]
pub(super) struct Disks {
    all: Vec<Disk>,
    /// The power fails during the n-th write or flush from now.
    pub(super) crash_in: Option<u32>,
    /// The n-th write or flush from now finds that disk gone.
    pub(super) gone_in: Option<(u32, usize)>,
    /// Writes and flushes so far.
    pub(super) writes: u64,
}

impl Deref for Disks {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.all[0]
    }
}

impl DerefMut for Disks {
    fn deref_mut(&mut self) -> &mut Disk {
        &mut self.all[0]
    }
}

impl Disks {
    pub(super) fn new(sectors: u64, seed: u64) -> Self {
        Disks {
            all: vec![Disk::new(sectors, seed)],
            crash_in: None,
            gone_in: None,
            writes: 0,
        }
    }

    /// One more.
    pub(super) fn push(&mut self, disk: Disk) {
        self.all.push(disk);
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn at(&mut self, index: usize) -> &mut Disk {
        &mut self.all[index]
    }

    /// All sectors work again.
    pub(super) fn heal(&mut self) {
        self.all.iter_mut().for_each(Disk::heal);
    }

    /// The power fails and comes back.
    pub(super) fn crash(&mut self) {
        self.all.iter_mut().for_each(Disk::crash);
        self.crash_in = None;
    }

    /// A write to a disk, or its flush, begins.
    pub(super) fn begin_write(&mut self, index: usize) -> &mut Disk {
        self.writes += 1;
        match &mut self.crash_in {
            Some(0) => self.all.iter_mut().for_each(|disk| disk.crash = true),
            Some(n) => *n -= 1,
            None => (),
        }
        match &mut self.gone_in {
            Some((0, disk)) => {
                self.all[*disk].gone = true;
                self.gone_in = None;
            }
            Some((n, _)) => *n -= 1,
            None => (),
        }
        &mut self.all[index]
    }
}
