// SPDX-License-Identifier: GPL-2.0
//! What a kernel log says about the code that ran: any of these words is a failed test.

use std::fmt;

/// Every line that our side writes into the kernel's log begins so.
pub const MARK: &str = "vm-test:";

/// Signs of a fault. Matched anywhere in a line, case matters.
const FAULTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "kernel BUG at",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "Unable to handle",
    "unable to handle",
    "rust_kernel: panicked",
    "Call Trace:",
    // Time.
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "workqueue lockup",
    "hogged CPU for",
    "rcu: INFO",
    "detected stalls",
    "self-detected stall",
    // Locks and contexts.
    "possible recursive locking",
    "possible circular locking",
    "possible deadlock",
    "possible irq lock",
    "inconsistent lock state",
    "inconsistent {",
    "suspicious RCU usage",
    "sleeping function called",
    "scheduling while atomic",
    "DEBUG_LOCKS_WARN_ON",
    "bad unlock balance",
    "held lock freed",
    "ODEBUG:",
    // Memory.
    "KASAN:",
    "KCSAN:",
    "UBSAN:",
    "kmemleak:",
    "refcount_t:",
    "use-after-free",
    "list_add corruption",
    "list_del corruption",
    "Bad page state",
    "nonzero _refcount",
    "Objects remaining",
    "still has objects",
    // Device mapper's own complaints about a target.
    "dm_bio_prison",
    "was not stopped",
    "bad map return value",
    "unimplemented target endio return value",
    "Out of memory",
    "page allocation failure",
];

/// Lines that hold such a word and mean nothing.
const HARMLESS: &[&str] = &[
    // Emulated processors are not in step.
    "clocksource: Watchdog remote CPU",
    // The kernel tells that memory leaks would be looked for.
    "kmemleak: Kernel memory leak detector initialized",
    "kmemleak: Automatic memory scanning thread started",
    // And that RCU looks at its callbacks.
    "use-after-free debug is enabled",
];

/// A line of the kernel's log that fails the test during which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The test that ran then, if any.
    pub during: Option<String>,
    /// The line.
    pub line: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let during = self.during.as_deref().unwrap_or("no test");
        write!(f, "during {during}: {}", self.line.trim())
    }
}

/// Reads a kernel log. Tests mark it as they go (see `guest::Test`), which tells here whose fault
/// a line is and what a test expected to see.
pub fn faults(log: &str) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut during = None;
    let mut expected: Vec<String> = Vec::new();
    for line in log.lines() {
        if let Some((_, mark)) = line.split_once(MARK) {
            let (word, rest) = mark.trim().split_once(' ').unwrap_or((mark.trim(), ""));
            match word {
                "begin" => during = Some(rest.to_string()),
                "expects" => expected.push(rest.to_string()),
                "end" => {
                    during = None;
                    expected.clear();
                }
                _ => (),
            }
            continue;
        }
        let is_fault = FAULTS.iter().any(|fault| line.contains(fault))
            && !HARMLESS.iter().any(|harmless| line.contains(harmless))
            && !expected.iter().any(|text| line.contains(text.as_str()));
        if is_fault {
            found.push(Fault {
                during: during.clone(),
                line: line.to_string(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::faults;

    #[test]
    fn a_quiet_log_has_no_fault() {
        assert_eq!(
            faults("[ 1.0] Linux version\n[ 2.0] dm_remap: loaded\n"),
            []
        );
    }

    #[test]
    fn a_warning_names_the_test_that_ran() {
        let log = "\
[1.0] vm-test: begin first
[1.1] all well
[1.2] vm-test: end first
[1.3] vm-test: begin second
[1.4] WARNING: CPU: 0 PID: 1 at block/bio.c:1
[1.5] vm-test: end second
";
        let found = faults(log);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].during.as_deref(), Some("second"));
    }

    #[test]
    fn an_expected_line_is_forgiven_only_to_its_test() {
        let log = "\
vm-test: begin first
vm-test: expects blocked for more than
task x blocked for more than 60 seconds
vm-test: end first
vm-test: begin second
task x blocked for more than 60 seconds
vm-test: end second
";
        let found = faults(log);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].during.as_deref(), Some("second"));
    }

    #[test]
    fn the_emulated_clock_is_forgiven() {
        assert_eq!(
            faults("clocksource: Watchdog remote CPU 1 read timed out WARNING:"),
            []
        );
    }
}
