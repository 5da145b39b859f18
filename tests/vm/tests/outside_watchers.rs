// SPDX-License-Identifier: GPL-2.0
//! What goes wrong in a machine is seen. A kernel that gives up is a crash, on each kind of machine; and
//! the debug kernel sees mistakes: each kind that it is there for is planted, by a module that makes it when
//! it is loaded, and the verdict on that machine names it.
//!
//! Needs: the example modules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use vmtest::guest::Need;
use vmtest::machine::End;
use vmtest::machine::Machine;
use vmtest::machine::Outcome;

/// Has a machine do what test programs are run by, with a program that plants mistake number `number`.
fn planted(number: u32) -> Outcome {
    let module = std::env::var_os("DM_REMAP_MODULE").map(PathBuf::from);
    let module = module.expect("DM_REMAP_MODULE names no module");
    let mistakes = module.with_file_name("mistakes").join("mistakes.ko");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join(format!("plant-{number}"));
    let script = format!(
        "#!/bin/sh\nexec insmod {} plant={number}\n",
        mistakes.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();

    // Beside the folder of the tests.
    let us = std::env::current_exe().unwrap();
    let runner = us.ancestors().nth(2).unwrap().join("dm-remap-vm");
    let command = [runner.as_os_str(), "watched".as_ref(), program.as_os_str()];
    let outcome = Machine::new(command).unwrap().start().unwrap();
    let outcome = outcome.wait().unwrap();
    fs::remove_file(&program).unwrap();
    outcome
}

/// The verdict on mistake `number` has a line with all of `words`.
#[track_caller]
fn is_seen(number: u32, words: &[&str]) {
    let outcome = planted(number);
    assert!(!outcome.passed());
    let named = outcome
        .faults
        .iter()
        .any(|fault| words.iter().all(|word| fault.line.contains(word)));
    assert!(named, "{}{outcome}", outcome.output);
}

#[test]
fn a_module_without_mistakes_passes() {
    vmtest::needs!(Need::Watchers);
    let outcome = planted(0);
    assert!(outcome.passed(), "{}{outcome}", outcome.output);
}

/// A kernel that gives up is a crash, on each kind of machine.
#[test]
fn a_bug() {
    let outcome = planted(10);
    assert_eq!(outcome.end, End::Crash, "{}{outcome}", outcome.output);
    assert!(!outcome.faults.is_empty());
}

#[test]
fn a_mistake_that_is_none_is_a_failure_of_the_program() {
    vmtest::needs!(Need::Watchers);
    let outcome = planted(1000);
    assert_eq!(outcome.end, End::Command(1), "{}{outcome}", outcome.output);
    assert_eq!(outcome.faults, []);
}

/// KASAN.
#[test]
fn use_after_free() {
    vmtest::needs!(Need::Watchers);
    is_seen(1, &["BUG: KASAN: slab-use-after-free"]);
}

/// KASAN.
#[test]
fn out_of_bounds() {
    vmtest::needs!(Need::Watchers);
    is_seen(2, &["BUG: KASAN: slab-out-of-bounds"]);
}

/// kmemleak, which the programs' runner asks when they are through.
#[test]
fn a_leak() {
    vmtest::needs!(Need::Watchers);
    let outcome = planted(3);
    assert_eq!(outcome.end, End::Command(1), "{}{outcome}", outcome.output);
    assert!(outcome.output.contains("test leaves_nothing ... FAILED"));
    assert!(outcome.output.contains("unreferenced object"));
}

/// DEBUG_ATOMIC_SLEEP.
#[test]
fn sleeping_in_atomic_context() {
    vmtest::needs!(Need::Watchers);
    is_seen(4, &["BUG: sleeping function called from invalid context"]);
}

/// lockdep, PROVE_LOCKING.
#[test]
fn locks_in_another_order() {
    vmtest::needs!(Need::Watchers);
    is_seen(5, &["possible circular locking dependency"]);
}

/// ODEBUG, DEBUG_OBJECTS_FREE.
#[test]
fn a_timer_that_is_freed_while_it_runs() {
    vmtest::needs!(Need::Watchers);
    is_seen(6, &["ODEBUG: free active", "timer_list"]);
}

/// ODEBUG, DEBUG_OBJECTS_RCU_HEAD.
#[test]
fn memory_given_to_rcu_twice() {
    vmtest::needs!(Need::Watchers);
    is_seen(7, &["ODEBUG: activate active", "rcu_head"]);
}

/// PROVE_RCU.
#[test]
fn rcu_outside_of_a_reader() {
    vmtest::needs!(Need::Watchers);
    is_seen(8, &["suspicious RCU usage"]);
}

/// UBSAN.
#[test]
fn a_shift_that_is_too_far() {
    vmtest::needs!(Need::Watchers);
    is_seen(9, &["UBSAN: shift-out-of-bounds"]);
}
