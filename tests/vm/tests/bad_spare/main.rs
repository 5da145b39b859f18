// SPDX-License-Identifier: GPL-2.0
//! P4: any one bad sector of the spare, at any time: nothing is lost, the damage is repaired or moved,
//! and users are told. And the rules for the metadata (M1 to M8) held against the module: each test
//! builds what the rule forbids, or what comes after it.
//!
//! More in test-system: each sector of each metadata block.

mod bench;
mod claims;
mod commits;
mod image;
mod metadata_blocks;
mod replicas;
mod slots;

use std::io::Write;

use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;

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

/// Prints a line also if the test passes.
fn say(line: &str) {
    // Behind the back of the test harness, which keeps what `println` prints.
    let _ = writeln!(std::io::stderr(), "\n{line}");
}
