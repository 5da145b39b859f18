// SPDX-License-Identifier: GPL-2.0

//! What blocks were before they were overwritten, in a file.
//!
//! ```text
//!  The file is a sequence of records of 8192 bytes, each for one write. All numbers are
//!  little-endian.
//!
//!  offset  size
//!       0     8  magic "DMRMPBAK"
//!       8     4  crc32c of everything behind it in the record
//!      12     4  version of this form, 1
//!      16     4  number of the spare on the command line, from 0
//!      20     4  1 if the block could not be read: its content is zeroes here, else 0
//!      24     8  where on the device the block is, in sectors of 512 bytes
//!      32     8  size of the device in sectors
//!      40     4  crc32c of what the block was overwritten with
//!      44    20  zero
//!      64  4032  name of the device, padded with zeroes
//!    4096  4096  the block as it was
//! ```
//!
//! Records are durable before the first write is made. If a repair had to be begun anew because a
//! place did not take its write, there are several records of a place: the first one tells what was
//! there. A record that is cut off was not followed by any write.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use dm_remap_logic::crc32c::crc32c;
use dm_remap_logic::format::bytes;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BLOCK_BYTES;

use crate::error::Error;
use crate::error::Result;
use crate::save;

const MAGIC: [u8; 8] = *b"DMRMPBAK";
const VERSION: u32 = 1;
const NAME_BYTES: usize = BLOCK_BYTES - AT_NAME;

const AT_CRC: usize = 8;
const AT_VERSION: usize = 12;
const AT_SPARE: usize = 16;
const AT_UNREADABLE: usize = 20;
const AT_SECTOR: usize = 24;
const AT_DEVICE_SECTORS: usize = 32;
const AT_AFTER: usize = 40;
const AT_NAME: usize = 64;

/// What a block was, and what it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The spare, by its number among those given.
    pub spare: u32,
    /// The sector on the device.
    pub sector: u64,
    /// The size of the device in sectors.
    pub device_sectors: u64,
    /// The name of the device.
    pub name: String,
    /// What was there; none if it could not be read.
    pub before: Option<Box<Block>>,
    /// The crc32c of what it was overwritten with.
    pub after: u32,
}

impl Record {
    /// The bytes of the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut head: Block = [0; BLOCK_BYTES];
        bytes::put(&mut head, 0, &MAGIC);
        bytes::put(&mut head, AT_VERSION, &VERSION.to_le_bytes());
        bytes::put(&mut head, AT_SPARE, &self.spare.to_le_bytes());
        let unreadable = u32::from(self.before.is_none());
        bytes::put(&mut head, AT_UNREADABLE, &unreadable.to_le_bytes());
        bytes::put(&mut head, AT_SECTOR, &self.sector.to_le_bytes());
        bytes::put(
            &mut head,
            AT_DEVICE_SECTORS,
            &self.device_sectors.to_le_bytes(),
        );
        bytes::put(&mut head, AT_AFTER, &self.after.to_le_bytes());
        let name = self.name.as_bytes();
        let name = name.get(..NAME_BYTES).unwrap_or(name);
        bytes::put(&mut head, AT_NAME, name);
        let mut record = head.to_vec();
        match &self.before {
            Some(block) => record.extend_from_slice(&block[..]),
            None => record.resize(2 * BLOCK_BYTES, 0),
        }
        let crc = crc32c(record.get(AT_VERSION..).unwrap_or(&[]));
        if let Some(place) = record.get_mut(AT_CRC..AT_VERSION) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        record
    }

    /// Reads a record.
    pub fn decode(record: &[u8]) -> Result<Self, &'static str> {
        let head = record.first_chunk::<BLOCK_BYTES>();
        let content = record.get(BLOCK_BYTES..).unwrap_or(&[]);
        let (Some(head), Ok(content)) = (head, <&Block>::try_from(content)) else {
            return Err("cut off");
        };
        if bytes::get(head, 0) != MAGIC {
            return Err("no record of a backup");
        }
        if bytes::get_u32(head, AT_CRC) != crc32c(record.get(AT_VERSION..).unwrap_or(&[])) {
            return Err("bad checksum");
        }
        if bytes::get_u32(head, AT_VERSION) != VERSION {
            return Err("of a version that this dmremap does not know");
        }
        let name = head.get(AT_NAME..).unwrap_or(&[]);
        let name = name.split(|b| *b == 0).next().unwrap_or(&[]);
        Ok(Record {
            spare: bytes::get_u32(head, AT_SPARE),
            sector: bytes::get_u64(head, AT_SECTOR),
            device_sectors: bytes::get_u64(head, AT_DEVICE_SECTORS),
            name: String::from_utf8_lossy(name).into_owned(),
            before: (bytes::get_u32(head, AT_UNREADABLE) == 0).then(|| Box::new(*content)),
            after: bytes::get_u32(head, AT_AFTER),
        })
    }
}

/// A backup that is being written. The file is made with the first record.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    file: Option<File>,
}

impl Backup {
    /// Will write to this file, which must not exist.
    pub fn new(path: &Path) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(Error::usage(format!(
                "{}: exists already; a backup is never overwritten",
                path.display()
            )));
        }
        Ok(Self {
            path: path.into(),
            file: None,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes records durable.
    pub fn save(&mut self, records: &[Record]) -> Result<()> {
        match &mut self.file {
            Some(file) => append(file, &self.path, records).map_err(|error| {
                Error::usage(format!(
                    "{}: cannot write the backup: {error}; what was changed before is put back by \
                     dmremap repair --undo {}",
                    self.path.display(),
                    self.path.display()
                ))
            }),
            None => {
                let file = begin(&self.path, records).map_err(|error| {
                    Error::usage(format!(
                        "{}: cannot write the backup: {error}; nothing was changed",
                        self.path.display()
                    ))
                })?;
                self.file = Some(file);
                Ok(())
            }
        }
    }
}

/// Makes the file, or leaves none.
fn begin(path: &Path, records: &[Record]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).open(path)?;
    match append(&mut file, path, records) {
        Ok(()) => Ok(file),
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

fn append(file: &mut File, path: &Path, records: &[Record]) -> io::Result<()> {
    for record in records {
        file.write_all(&record.encode())?;
    }
    file.sync_all()?;
    // Its name, too.
    save::sync_folder(path)
}

/// Reads a backup, which has a record at least. Tells whether its end is cut off.
pub fn load(path: &Path) -> Result<(Vec<Record>, bool)> {
    let failed = |error: io::Error| Error::io(path, "read the backup", &error);
    let name = path.display();
    let mut content = Vec::new();
    let mut file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::usage(format!("{name}: not a file")));
    }
    file.read_to_end(&mut content).map_err(failed)?;
    if content.is_empty() {
        return Err(Error::usage(format!(
            "{name}: empty: there is nothing in it to put back"
        )));
    }
    let whole = content.chunks_exact(2 * BLOCK_BYTES);
    let rest = whole.remainder();
    if rest
        .iter()
        .zip(&MAGIC)
        .any(|(found, wanted)| found != wanted)
    {
        return Err(Error::usage(format!(
            "{name}: no backup of dmremap, or not from byte {} on",
            content.len() - rest.len()
        )));
    }
    let cut = !rest.is_empty();
    let records: Vec<Record> = whole
        .enumerate()
        .map(|(index, record)| {
            Record::decode(record)
                .map_err(|what| Error::usage(format!("{name}: record {index}: {what}")))
        })
        .collect::<Result<_>>()?;
    if records.is_empty() {
        return Err(Error::usage(format!(
            "{name}: cut off in its first record: nothing was overwritten when it was made, or this is not all of it"
        )));
    }
    Ok((records, cut))
}
