// SPDX-License-Identifier: GPL-2.0

//! What lies behind a name: whether two names, or two parts of devices, have sectors in common.
//!
//! A file is known by its inode, and a device by its number, whatever they are called. A partition is
//! a part of its disk, and a loop device a part of its file. Of what device mapper and md put
//! together, /sys tells the devices below but not which parts of them are used: these have something
//! in common for certain only with a device that is used as a whole.
//!
//! Nothing is opened for that: an opened device may be refused to the next one that asks for it.

use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::spare::Part;
use crate::sysfs;

/// How many devices may lie below each other: more than anyone stacks, and fewer than a loop.
const DEPTH_MAX: usize = 16;

/// What sectors are counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// A file, by the number of its filesystem and its own.
    File(u64, u64),
    /// A block device, by its number.
    Device(u64),
}

/// Sectors of something.
#[derive(Clone, Copy, Debug)]
struct Extent {
    base: Base,
    start: u64,
    end: u64,
    /// Whether all of them are meant, or some that nobody knows.
    all: bool,
}

impl Extent {
    fn meets(&self, other: &Extent) -> bool {
        let holds = |a: &Extent, b: &Extent| a.all && a.start <= b.start && b.end <= a.end;
        self.base == other.base
            && self.start < other.end
            && other.start < self.end
            && match (self.all, other.all) {
                (true, true) => true,
                _ => holds(self, other) || holds(other, self),
            }
    }
}

/// What a part of a device or file is, in terms of all that lies below it.
#[derive(Debug)]
pub struct Identity {
    name: String,
    part: Part,
    /// What the name itself stands for comes first.
    extents: Vec<Extent>,
}

impl Identity {
    /// Finds out.
    pub fn of(path: &Path, part: Part) -> Result<Self> {
        let found = fs::metadata(path).map_err(|e| Error::io(path, "open it", &e))?;
        let start = part.start.unwrap_or(0);
        let end = match part.len {
            Some(len) => start.saturating_add(len),
            None => u64::MAX,
        };
        let mut extents = Vec::new();
        add(&mut extents, &found, (start, end), true, 0);
        Ok(Self {
            name: path.display().to_string(),
            part,
            extents,
        })
    }

    /// Whether both have a sector in common.
    pub fn meets(&self, other: &Identity) -> bool {
        let pairs = self.extents.iter();
        let mut pairs = pairs.flat_map(|a| other.extents.iter().map(move |b| (a, b)));
        pairs.any(|(a, b)| a.meets(b))
    }

    fn base(&self) -> Option<Base> {
        self.extents.first().map(|extent| extent.base)
    }

    /// What both have in common, in words.
    fn text(&self, other: &Identity) -> String {
        let names = format!("{} and {}", self.name, other.name);
        let what = match self.base() {
            Some(Base::File(..)) => "file",
            _ => "device",
        };
        match (self.base() == other.base(), self.part == other.part) {
            (true, true) if self.name == other.name => format!("{}: given twice", self.name),
            (true, true) => format!("{names} are the same {what}"),
            (true, false) => format!("{names}: these parts of one {what} overlap"),
            (false, _) => {
                format!("{names} have sectors in common, as a disk and its partition do")
            }
        }
    }
}

fn add(
    extents: &mut Vec<Extent>,
    found: &Metadata,
    (start, end): (u64, u64),
    all: bool,
    depth: usize,
) {
    let is_device = found.file_type().is_block_device();
    let base = match is_device {
        true => Base::Device(found.rdev()),
        false => Base::File(found.dev(), found.ino()),
    };
    extents.push(Extent {
        base,
        start,
        end,
        all,
    });
    if is_device {
        add_below(extents, found.rdev(), (start, end), all, depth);
    }
}

fn add_below(
    extents: &mut Vec<Extent>,
    device: u64,
    (start, end): (u64, u64),
    all: bool,
    depth: usize,
) {
    if depth > DEPTH_MAX {
        return;
    }
    // To the end of this device, which need not be that of what lies below.
    let end = sysfs::sectors(device).map_or(end, |sectors| end.min(sectors));
    let below = |from: u64| (start.saturating_add(from), end.saturating_add(from));
    if let Some((disk, from)) = sysfs::disk_of(device) {
        let (start, end) = below(from);
        extents.push(Extent {
            base: Base::Device(disk),
            start,
            end,
            all,
        });
        add_below(extents, disk, (start, end), all, depth + 1);
    }
    if let Some((file, from)) = sysfs::file_behind(device) {
        add(extents, &file, below(from), all, depth + 1);
    }
    for slave in sysfs::slaves(device) {
        let whole = (0, u64::MAX);
        extents.push(Extent {
            base: Base::Device(slave),
            start: 0,
            end: sysfs::sectors(slave).unwrap_or(u64::MAX),
            all: false,
        });
        add_below(extents, slave, whole, false, depth + 1);
    }
}

/// Refuses spares of which two have sectors in common: each pair is compared.
pub fn refuse_twice(spares: &[Identity]) -> Result<()> {
    for (index, a) in spares.iter().enumerate() {
        if let Some(b) = spares.iter().skip(index + 1).find(|b| a.meets(b)) {
            return Err(Error::usage(format!(
                "{}; each spare is named once, and has a device, or a part of one, to itself",
                a.text(b)
            )));
        }
    }
    Ok(())
}

/// Refuses spares that have sectors in common with main.
pub fn refuse_main(main: &Identity, spares: &[Identity]) -> Result<()> {
    match spares.iter().find(|spare| main.meets(spare)) {
        None => Ok(()),
        Some(spare) => Err(Error::usage(format!(
            "main and spare must be apart: {}",
            main.text(spare)
        ))),
    }
}
