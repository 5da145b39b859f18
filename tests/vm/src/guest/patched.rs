// SPDX-License-Identifier: GPL-2.0
//! A part of a disk, made bad in places by device mapper alone: whatever is below sees only the
//! writes that succeed.

use std::path::Path;
use std::path::PathBuf;

use super::device::Mapped;
use super::run::succeed;

/// A part of a disk in which sectors can be made unwritable.
pub struct Patched {
    device: Mapped,
    // Behind the device, which has to go first.
    nowhere: Mapped,
    disk: PathBuf,
    start: u64,
    sectors: u64,
}

impl Patched {
    /// The sectors of `disk` from `start` on.
    #[track_caller]
    pub fn new(disk: &Path, start: u64, sectors: u64) -> Self {
        succeed("modprobe dm-delay");
        let table = format!("0 {sectors} linear {} {start}", disk.display());
        Self {
            device: Mapped::new(&table),
            nowhere: Mapped::new(&format!("0 {sectors} error")),
            disk: disk.into(),
            start,
            sectors,
        }
    }

    /// The device.
    pub fn path(&self) -> PathBuf {
        self.device.path()
    }

    /// Lets writes to these areas (first sector, sectors) fail, and to no others. They can be read.
    #[track_caller]
    pub fn unwritable(&self, areas: &[(u64, u64)]) {
        let mut bad = vec![false; self.sectors as usize];
        for &(first, sectors) in areas {
            bad[first as usize..(first + sectors) as usize].fill(true);
        }
        let mut table = String::new();
        let mut first = 0;
        for part in bad.chunk_by(|one, next| one == next) {
            let sectors = part.len() as u64;
            let place = format!("{} {}", self.disk.display(), self.start + first);
            table += &match part[0] {
                false => format!("{first} {sectors} linear {place}\n"),
                // Reads, writes and flushes have ways of their own; none of them takes longer.
                true => format!(
                    "{first} {sectors} delay {place} 0 {} {first} 0 {place} 0\n",
                    self.nowhere.path().display()
                ),
            };
            first += sectors;
        }
        self.device.load(table.trim_end()).expect("load a table");
        self.device.suspend_noflush().expect("suspend");
        self.device.resume().expect("resume");
    }
}
