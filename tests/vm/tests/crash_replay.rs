// SPDX-License-Identifier: GPL-2.0
//! P5: a crash at any instant, with any torn or reordered unflushed write, leaves metadata that
//! loads, with every acknowledged remap in it. P2: and each sector holds its last durable write or a
//! later one.
//!
//! A workload runs once, on disks under which dm-log-writes keeps all that is written
//! ([`recording`]). With a trace of the order in which that was issued and answered it becomes a
//! [`timeline`], and at each instant of it [`medium`] knows which disks a crash may leave behind and
//! [`expect`] what has to be on them. [`replay`] makes these disks, makes the device of them, and
//! looks.
//!
//! Crash points are all answers to writes to the spare, all flushes and FUA writes of main, some
//! other writes to main, and all acknowledgements, there with nothing but what is durable. At each
//! write to the spare there are torn and reordered ones in addition.
//!
//! | variable               | what                                          |
//! |------------------------|-----------------------------------------------|
//! | `DM_REMAP_CRASH_SEED`  | another choice of workloads, tears and orders |
//! | `DM_REMAP_CRASH_POINT` | only the point of this number                 |
//!
//! More in test-system: all crash points, every tear of each write, many orders, longer workloads.

#[path = "crash_replay/expect.rs"]
mod expect;
#[path = "crash_replay/files.rs"]
mod files;
#[path = "crash_replay/medium.rs"]
mod medium;
#[path = "crash_replay/recording.rs"]
mod recording;
#[path = "crash_replay/replay.rs"]
mod replay;
#[path = "crash_replay/thoroughness.rs"]
mod thoroughness;
#[path = "crash_replay/timeline.rs"]
mod timeline;
#[path = "crash_replay/workloads.rs"]
mod workloads;

use replay::replay;
use replay::Checks;
use thoroughness::Thoroughness;

/// For devices that are written with stamps.
const STAMPS: Checks = Checks {
    offline: &[],
    online: &[replay::status, replay::remaps, replay::content],
    write_main: false,
    as_one: &[],
};

/// For devices with a filesystem. It is mounted, and so its journal is replayed. But ext4 looks at its
/// superblock's checksum before that. The superblock is 1024 bytes long, and refused if only one of its
/// two sectors is new, be it on this device or on a disk.
const FILES: Checks = Checks {
    offline: &[],
    online: &[replay::status, replay::remaps, files::check],
    write_main: true,
    as_one: &[(2, 2)],
};

/// P5: remaps while ext4 writes and fsyncs files.
#[test]
fn remaps_under_ext4() {
    let _test = vmtest::begin!();
    let thoroughness = Thoroughness::wanted();
    let recorded = files::record(&thoroughness);
    replay("remaps_under_ext4", &recorded, &FILES, &thoroughness);
}

/// P4, P5: slots and metadata blocks that cannot be written, one after the other, while remaps
/// happen.
#[test]
fn a_spare_that_goes_bad() {
    let _test = vmtest::begin!();
    let thoroughness = Thoroughness::wanted();
    let recorded = workloads::a_spare_that_goes_bad(&thoroughness);
    replay("a_spare_that_goes_bad", &recorded, &STAMPS, &thoroughness);
}

/// P5, P9: formatting, then remaps that are made, taken back and cleared by messages, and the
/// device suspended, reloaded and made anew in between.
#[test]
fn messages_and_reloads() {
    let _test = vmtest::begin!();
    let thoroughness = Thoroughness::wanted();
    let recorded = workloads::messages_and_reloads(&thoroughness);
    replay("messages_and_reloads", &recorded, &STAMPS, &thoroughness);
}
