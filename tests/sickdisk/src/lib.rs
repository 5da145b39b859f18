// SPDX-License-Identifier: GPL-2.0
//! A block device that fails as disks do, on command.
//!
//! [`Disk`] is the model: what the medium holds, what of it is still in the drive's cache, which
//! sectors are bad and how. It knows no kernel and can be tried anywhere. [`SickDisk`] serves one
//! to the kernel as `/dev/ublkbN`, from the process that made it, until it is dropped; meanwhile
//! the model can be changed and asked through [`SickDisk::disk`]:
//!
//! ```no_run
//! use sickdisk::Direction;
//! use sickdisk::Fault;
//! use sickdisk::Options;
//! use sickdisk::SickDisk;
//!
//! let disk = SickDisk::start(Options::memory(64 << 20))?;
//! disk.disk().spoil(2000, 8, Fault::bad(Direction::Both));
//! println!("reading sector 2000 of {} fails now", disk.path().display());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`control`] is the same in words, for people and scripts: the program `sickdisk`.
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

pub mod control;
mod fault;
mod model;
mod record;
mod server;
mod store;
mod ublk;

pub use fault::Direction;
pub use fault::Fading;
pub use fault::Fault;
pub use fault::Status;
pub use model::Answer;
pub use model::Disk;
pub use model::Operation;
pub use model::Power;
pub use model::PowerCut;
pub use model::Request;
pub use record::Entry;
pub use record::Record;
pub use server::Options;
pub use server::SickDisk;

/// Bytes in a sector, whatever the device's block size is.
pub const SECTOR: u64 = 512;
