// SPDX-License-Identifier: GPL-2.0
//! dm-log-writes: a device that keeps all that is written to it, and what it has kept. The format
//! is that of drivers/md/dm-log-writes.c: a superblock, then for each entry a sector that describes
//! it and the data behind.
//!
//! The log holds writes in the order in which they can have become durable: FUA writes when they
//! are complete, others in front of the flush that came after them. In which order they were issued
//! is not to be seen; [`BlockTrace`](super::BlockTrace) tells.

use std::path::Path;
use std::path::PathBuf;

use super::device::Mapped;
use super::io::Direct;
use super::ioctl;
use super::run::succeed;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: u64 = 512;

const FLUSH: u64 = 1 << 0;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;

/// A device whose writes are kept.
pub struct LogWrites {
    device: Mapped,
    log: PathBuf,
}

/// What was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A write.
    Write {
        /// Where, in units of 512 bytes.
        sector: u64,
        /// What.
        data: Vec<u8>,
        /// Whether it was durable when it was answered.
        fua: bool,
    },
    /// A discard.
    Discard {
        /// From here.
        sector: u64,
        /// So many.
        sectors: u64,
    },
    /// A flush. What it made durable stands before it.
    Flush,
    /// What the test said.
    Mark(String),
}

impl LogWrites {
    /// Keeps in `log` what is written to `disk` by way of this.
    #[track_caller]
    pub fn new(disk: &Path, sectors: u64, log: &Path) -> Self {
        succeed("modprobe dm-log-writes");
        let table = format!(
            "0 {sectors} log-writes {} {}",
            disk.display(),
            log.display()
        );
        Self {
            device: Mapped::new(&table),
            log: log.into(),
        }
    }

    /// The device to write to.
    pub fn path(&self) -> PathBuf {
        self.device.path()
    }

    /// Puts a mark into the log, one word.
    #[track_caller]
    pub fn mark(&self, text: &str) {
        ioctl::message(self.device.name(), &format!("mark {text}")).expect("mark the log");
    }

    /// What is in the log up to the last mark or FUA write.
    #[track_caller]
    pub fn so_far(&self) -> Vec<Entry> {
        assert!(
            !self.device.status().contains("logging_disabled"),
            "the log is incomplete"
        );
        read(&self.log)
    }

    /// Ends it, and returns everything.
    #[track_caller]
    pub fn end(self) -> Vec<Entry> {
        assert!(
            !self.device.status().contains("logging_disabled"),
            "the log is incomplete"
        );
        self.device.remove();
        read(&self.log)
    }
}

/// Reads a log.
#[track_caller]
fn read(log: &Path) -> Vec<Entry> {
    let log = Direct::open(log);
    // Enough for any block size.
    let head = log.read(0, 8).expect("read the log");
    assert_eq!(number(&head, 0), MAGIC, "this is no log");
    assert_eq!(number(&head, 8), 1, "the log's version");
    let entries = number(&head, 16);
    let unit = u64::from(u32::from_le_bytes(head[24..28].try_into().unwrap())) / SECTOR;
    let mut at = unit;
    let mut found = Vec::new();
    for _ in 0..entries {
        let head = log.read(at, unit).expect("read the log");
        at += unit;
        let [sector, sectors, flags, length] = [0, 8, 16, 24].map(|place| number(&head, place));
        let (sector, sectors) = (sector * unit, sectors * unit);
        if flags & MARK != 0 {
            let text = head[32..].get(..length as usize).expect("a mark");
            found.push(Entry::Mark(String::from_utf8_lossy(text).into_owned()));
            continue;
        }
        if flags & DISCARD != 0 {
            found.push(Entry::Discard { sector, sectors });
            continue;
        }
        if sectors > 0 {
            let data = log.read(at, sectors).expect("read the log");
            at += sectors;
            let fua = flags & FUA != 0;
            found.push(Entry::Write { sector, data, fua });
        }
        if flags & FLUSH != 0 {
            found.push(Entry::Flush);
        }
    }
    found
}

fn number(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"))
}
