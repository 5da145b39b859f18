// SPDX-License-Identifier: GPL-2.0
//! Runs test programs one after the other and then looks for what they left behind.

use std::fs;
use std::process::Command;

use super::kmsg;
use super::leaks;
use super::module;
use super::run::run;
use super::Test;
use crate::together::PROGRAM;
use crate::together::PROGRAM_LIMIT;

/// Runs the programs (each a path, or `path::filter`), then looks for leaks. Returns whether all
/// was well. Stops early when the kernel looks for deadlocks no more: the caller begins the rest
/// in another machine.
pub fn in_turn(programs: &[String]) -> bool {
    leaks::forget();
    let mut all_well = true;
    for program in programs {
        kmsg::say(&format!("{PROGRAM} {program}"));
        all_well &= run_program(program);
        if !lockdep_works() {
            println!("lockdep has switched itself off: the rest is for another machine");
            break;
        }
    }
    leaks_nothing() && all_well
}

fn run_program(program: &str) -> bool {
    let (program, filter) = match program.split_once("::") {
        Some((program, filter)) => (program, Some(filter)),
        None => (program, None),
    };
    println!("\n     Running {program}");
    let limit = PROGRAM_LIMIT.saturating_mul(super::slowness()).as_secs();
    let status = Command::new("timeout")
        .args(["--kill-after=30", &limit.to_string(), program])
        .arg("--test-threads=1")
        .args(filter)
        .status();
    match status {
        Ok(status) if status.success() => true,
        // The program has told which of its tests failed.
        Ok(status) if status.code() == Some(101) => false,
        other => {
            println!("{program} did not come to its end: {other:?}");
            println!("test result: FAILED. 0 passed; 1 failed; (the program)");
            false
        }
    }
}

/// The first thing that lockdep reports is the last.
fn lockdep_works() -> bool {
    fs::read_to_string("/proc/lockdep_stats").map_or(true, |stats| {
        stats
            .lines()
            .filter_map(|line| line.trim().strip_prefix("debug_locks:"))
            .all(|value| value.trim() == "1")
    })
}

/// A test like others, but it has to be the last.
fn leaks_nothing() -> bool {
    println!("\nrunning 1 test");
    let well = std::panic::catch_unwind(|| {
        let _test = Test::begin("leaks");
        let place = run("grep ^dm_remap /proc/modules").output;
        if !place.is_empty() {
            module::unload();
        }
        let leaks = leaks::find();
        // Of a module that is gone, the kernel can only give addresses.
        assert!(leaks.is_empty(), "{leaks}\nthe module was at: {place}");
    })
    .is_ok();
    let (verdict, passed) = if well { ("ok", 1) } else { ("FAILED", 0) };
    println!("test leaks ... {verdict}");
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed;",
        1 - passed
    );
    well
}
