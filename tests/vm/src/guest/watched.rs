// SPDX-License-Identifier: GPL-2.0
//! Runs a test program on a kernel that looks for mistakes, and then looks for what it left behind.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::process::Command;

use super::leaks;
use super::module;
use super::run::run;
use super::Test;

/// Runs the program; then memory that has leaked is looked for, in the form of one more test. Returns whether
/// all was well.
pub fn watched(program: &OsStr, arguments: &[OsString]) -> bool {
    leaks::forget();
    let well = match Command::new(program).args(arguments).status() {
        // If not, the program has told which of its tests failed.
        Ok(status) if status.code().is_some() => status.success(),
        other => {
            println!(
                "{} did not come to its end: {other:?}",
                program.to_string_lossy()
            );
            false
        }
    };
    println!("\nrunning 1 test");
    let nothing_left = std::panic::catch_unwind(leaves_nothing).is_ok();
    let (verdict, passed) = if nothing_left {
        ("ok", 1)
    } else {
        ("FAILED", 0)
    };
    println!("test leaves_nothing ... {verdict}");
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed;",
        1 - passed
    );
    nothing_left && well
}

/// A test like others, but it has to be the last.
fn leaves_nothing() {
    let _test = Test::begin("leaves_nothing");
    // The first thing that lockdep reports is the last: that is in the log. Nothing else may end it.
    assert!(lockdep_works(), "lockdep has switched itself off");
    let place = run("grep ^dm_remap /proc/modules").output;
    if !place.is_empty() {
        module::unload();
    }
    let leaks = leaks::find();
    // Of a module that is gone, the kernel can only give addresses.
    assert!(leaks.is_empty(), "{leaks}\nthe module was at: {place}");
}

fn lockdep_works() -> bool {
    fs::read_to_string("/proc/lockdep_stats").map_or(true, |stats| {
        stats
            .lines()
            .filter_map(|line| line.trim().strip_prefix("debug_locks:"))
            .all(|value| value.trim() == "1")
    })
}
