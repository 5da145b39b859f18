// SPDX-License-Identifier: GPL-2.0
//! Disks that are in use already, that are mixed up in a table line, or that are not what they were: each
//! mistake is refused before anything is written, and each disk that is the right one is taken.

mod claims;
mod renamed;
mod sizes;
mod wrong_disks;

use std::path::Path;

use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::Mapped;
use vmtest::guest::Refusal;
use vmtest::guest::Remap;

const MAIN: u64 = Remap::MAIN_SECTORS;
const SPARE: u64 = Remap::SPARE_SECTORS;

const BUSY: &str = "Device or resource busy";

/// A blank disk of so many sectors.
fn disk(sectors: u64) -> SickDisk {
    vmtest::guest::load();
    SickDisk::start(Options::memory(sectors * 512)).expect("start a disk")
}

/// A table of the size of main, with what stands behind the two disks.
fn line_of(main: &Path, spare: &Path, more: &str) -> String {
    format!(
        "0 {MAIN} dm-remap {} {} {more}",
        main.display(),
        spare.display()
    )
}

fn line(main: &SickDisk, spare: &SickDisk, more: &str) -> String {
    line_of(&main.path(), &spare.path(), more)
}

/// Checks that a table is refused, and why.
#[track_caller]
fn refused(table: &str, error: &str, says: &[&str]) -> Refusal {
    let refusal = Mapped::try_new(table).expect_err(table);
    assert_eq!(refusal.error, error, "{table}: {refusal:?}");
    for part in says {
        assert!(refusal.reason.contains(part), "{table}: {refusal:?}");
    }
    refusal
}

/// The name of the set that a device uses.
#[track_caller]
fn uuid(device: &Mapped) -> String {
    let told = device.message("metadata_status").expect("told");
    let uuid = told.lines().find_map(|line| line.strip_prefix("set_uuid="));
    uuid.expect("a name").to_string()
}
