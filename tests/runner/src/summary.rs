// SPDX-License-Identifier: GPL-2.0
//! What came of everything: prints each job's output as it ends, and the sum at the end.

use std::time::Duration;

use crate::job::Counts;
use crate::job::Ended;
use crate::lanes::minutes;
use crate::remarks::Heavy;
use crate::report::State;
use crate::say;
use crate::times::Times;

/// How many of the slowest are named.
const SLOWEST: usize = 10;

/// How many lines of what failed are repeated at the end, and how much of each: who keeps only the end of a long
/// output still learns why.
const REPEATED: usize = 60;
const WIDTH: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct Summary {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<Failure>,
    /// What `make test-system` has besides, wholly and in part.
    left: Vec<String>,
    thinned: Vec<String>,
    times: Times,
}

#[derive(Debug)]
struct Failure {
    what: String,
    /// The last lines that it printed.
    end: Vec<String>,
}

impl Summary {
    pub(crate) fn skip(&mut self, reason: &str) {
        say(&format!("skipped: {reason}"));
        self.skipped += 1;
    }

    /// What did not run, or not all of it, as another run is for that. It is told at the end.
    pub(crate) fn leave(&mut self, heavy: Heavy) {
        match heavy {
            Heavy::Wholly(what) => {
                self.skipped += 1;
                self.left.push(what);
            }
            Heavy::Partly(what) => self.thinned.push(what),
        }
    }

    /// Takes what ended, and prints it: all of its output, but of tests that passed their lines alone.
    pub(crate) fn add(&mut self, ended: Ended) {
        let (passed, failed) = (ended.passed(), ended.failed());
        self.passed += passed;
        self.failed += failed;
        let name = &ended.job.name;
        let time = minutes(ended.time);
        match ended.failure() {
            None if ended.job.counts == Counts::IfItFails => {
                say(&format!("{name}: done ({time})"));
                let lines = ended.output.lines();
                for warning in lines.filter(|line| line.starts_with("dm-remap: warning: ")) {
                    println!("{warning}");
                }
            }
            None => {
                say(&format!("{name}: {passed} passed ({time})"));
                let whole = ended.job.counts == Counts::Whole;
                let lines = ended.output.lines();
                for line in lines.filter(|line| whole || line.starts_with("test ")) {
                    println!("{line}");
                }
            }
            Some(failure) => {
                say(&format!(
                    "{name}: {passed} passed, {failed} failed ({time})"
                ));
                let lines = ended.output.lines();
                let lines: Vec<&str> = lines.filter(|line| !line.starts_with('{')).collect();
                for line in &lines {
                    println!("{line}");
                }
                say(&format!("FAILED: {failure}"));
                self.failures.push(Failure {
                    what: failure,
                    end: end(&lines),
                });
            }
        }
        for reason in &ended.verdict.skips {
            self.skip(reason);
        }
        self.note_times(&ended);
    }

    /// What ran to its end, failed or not.
    fn note_times(&mut self, ended: &Ended) {
        let (Some((kernel, program)), None) = (&ended.job.times, &ended.verdict.fault) else {
            return;
        };
        let tests = ended.verdict.tests.iter();
        let tests = tests
            .filter(|test| test.state != State::NotRun)
            .map(|test| (test.name.as_str(), test.time));
        self.times.note(kernel, program, ended.time, tests);
    }

    pub(crate) fn times(&self) -> &Times {
        &self.times
    }

    pub(crate) fn print(&self, with_slowest: bool) {
        if with_slowest {
            let (programs, tests) = self.times.slowest();
            say("the slowest programs:");
            for (seconds, name) in programs.iter().take(SLOWEST) {
                println!("{:>8}  {name}", minutes(Duration::from_secs_f64(*seconds)));
            }
            say("the slowest tests:");
            for (seconds, name) in tests.iter().take(SLOWEST) {
                println!("{seconds:>7.1}s  {name}");
            }
        }
        for (list, what) in [
            (&self.left, "skipped, as make test-system has it"),
            (&self.thinned, "make test-system has more of this"),
        ] {
            if !list.is_empty() {
                say(&format!("{what}: {}", list.join(", ")));
            }
        }
        for Failure { what, end } in &self.failures {
            say(&format!("again, the end of what failed: {what}"));
            for line in end {
                println!("    {line}");
            }
        }
        for failure in &self.failures {
            say(&format!("FAILED: {}", failure.what));
        }
    }

    pub(crate) fn well(&self) -> bool {
        // Nothing that ran is nothing that is known.
        self.failed == 0 && self.passed + self.skipped > 0
    }

    /// The closing line.
    pub(crate) fn line(&self) -> String {
        let line = format!("{} passed, {} failed", self.passed, self.failed);
        match self.skipped {
            0 => line,
            skipped => format!("{line}, {skipped} skipped"),
        }
    }
}

/// The last lines that say something, none of them long.
fn end(lines: &[&str]) -> Vec<String> {
    let said = lines.iter().rev().filter(|line| !line.trim().is_empty());
    let mut end: Vec<String> = said
        .take(REPEATED)
        .map(|line| line.chars().take(WIDTH).collect())
        .collect();
    end.reverse();
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_short() {
        let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let mut lines: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let long = "é".repeat(300);
        lines.extend(["", &long, "  "]);
        let end = end(&lines);
        assert_eq!(end.len(), REPEATED);
        assert_eq!(end[0], "41");
        assert_eq!(end[REPEATED - 1], "é".repeat(WIDTH));
        assert!(super::end(&[]).is_empty());
    }
}
