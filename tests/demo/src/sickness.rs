// SPDX-License-Identifier: GPL-2.0
//! How the demo's disk falls ill: the same way each time, so that the two runs can be compared,
//! and so that it is as ill after a power cut as before.
//!
//! Spots of one to four blocks, all over the disk, go bad one after the other while the copy runs.
//! A spot that holds nothing yet fails altogether. One that holds data can still be read, but
//! takes no more writes. Others are weak in the end: they are read at the third try. So nothing is
//! lost yet, and nothing needs to be lost.

use sickdisk::Direction;
use sickdisk::Disk;
use sickdisk::Fault;

/// How many spots go bad in the course of a copy.
pub(crate) const SPOTS: usize = 400;

/// Sectors that need more than one try to be read, when they are looked at.
const WEAK: usize = 200;

/// Sectors of a block of the file system.
const BLOCK: u64 = 8;

/// A place that goes bad.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    sector: u64,
    sectors: u64,
}

/// The spots of a disk of this many sectors, in the order in which they go bad.
pub(crate) fn spots(sectors: u64) -> Vec<Spot> {
    places(sectors, SPOTS)
}

/// The first MiB is spared, so that the disk can be recognised without dm-remap, too.
fn places(sectors: u64, count: usize) -> Vec<Spot> {
    let mut state: u64 = 0x0123_4567_89ab_cdef;
    let mut roll = |sides: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % sides
    };
    (0..count)
        .map(|_| Spot {
            sector: (2048 + roll(sectors - 4096)) / BLOCK * BLOCK,
            sectors: (1 + roll(4)) * BLOCK,
        })
        .collect()
}

/// Makes some sectors weak: reading them fails twice before it succeeds.
pub(crate) fn weaken(disk: &mut Disk) {
    // Others than those that are bad.
    for spot in places(disk.sectors(), SPOTS + WEAK).iter().skip(SPOTS) {
        let weak = Fault::bad(Direction::Read).times(2);
        disk.spoil_if_good(spot.sector, 1, weak);
    }
}

impl Spot {
    /// Goes bad.
    pub(crate) fn spoil(&self, disk: &mut Disk) {
        let mut content = vec![0; (self.sectors * sickdisk::SECTOR) as usize];
        let empty =
            disk.peek(self.sector, &mut content).is_ok() && content.iter().all(|&byte| byte == 0);
        let direction = match empty {
            true => Direction::Both,
            false => Direction::Write,
        };
        disk.spoil(self.sector, self.sectors, Fault::bad(direction));
    }

    /// Is bad again after a power cut: what was written there before can still be read.
    pub(crate) fn spoil_again(&self, disk: &mut Disk) {
        disk.spoil(self.sector, self.sectors, Fault::bad(Direction::Write));
    }
}
