// SPDX-License-Identifier: GPL-2.0
//! The error contract: what the device answers under each kind of fault. docs/errors.md has these
//! tests in its tables.
//!
//! Also on the oldest kernel: moves.

mod block_sizes;
mod breaker;
mod classification;
mod deadlines;
mod exhaustion;
mod flush_errors;
mod giving_up;
mod gone;
mod healing;
mod hung_tasks;
mod kernel_disks;
mod limits;
mod mirrors;
mod moved_back;
mod moves;
mod nowait;
mod patterns;
mod retries;
mod suspends;
mod weak_sectors;
mod zeroes_and_discards;

use vmtest::guest::identify;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::Content;
use vmtest::guest::Remap;

/// Fails with a medium error, always.
fn bad() -> Fault {
    Fault::bad(Direction::Both)
}

/// The same, for reads only.
fn unreadable() -> Fault {
    Fault::bad(Direction::Read)
}

/// The same, for writes only.
fn unwritable() -> Fault {
    Fault::bad(Direction::Write)
}

/// Slots that are used, for whatever.
#[track_caller]
fn slots_used(remap: &Remap) -> u64 {
    remap.device().status_fraction(2).0
}

/// A number of the status line.
#[track_caller]
fn number(remap: &Remap, key: &str) -> u64 {
    let value = remap.device().status_value(key);
    let value = value.unwrap_or_else(|| panic!("no {key} in {}", remap.device().status()));
    value
        .parse()
        .unwrap_or_else(|_| panic!("{key}={value} is no number"))
}

/// The generation of each sector of `data`, which starts at `first`. Blank is 0.
#[track_caller]
fn generations(first: u64, data: &[u8]) -> Vec<u64> {
    (first..)
        .zip(identify(data))
        .map(|(place, content)| match content {
            Content::Blank => 0,
            Content::Stamp { sector, generation } if sector == place => generation,
            other => panic!("sector {place}: {other:?}"),
        })
        .collect()
}
