// SPDX-License-Identifier: GPL-2.0
//! Reads what tests say about themselves while they run, one after the other, in the form of Rust's
//! own test programs (the scripts use it, too):
//!
//! ```text
//! running 2 tests
//! test moves::a ... ok
//! test moves::b ... FAILED
//! test result: FAILED. 1 passed; 1 failed; 0 ignored; ...
//! ```
//!
//! A test's time ends with its line and begins with the line before. Where a test or the kernel's
//! console wrote into that line, the verdict is at the end of the report: in the list of failures or not.
//! A line `dm-remap: ...` is a script's or a machine's own word on what went wrong, `not run: ...` a test's own
//! on why it did nothing.

use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Passed,
    Failed,
    /// It lacks something here, and said so.
    Skipped,
    /// Its program ended before.
    NotRun,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) time: Duration,
}

/// What one program reported.
#[derive(Debug, Default)]
pub(crate) struct Report {
    tests: Vec<Test>,
    /// The test whose verdict has not come.
    begun: Option<String>,
    /// Why that one did nothing.
    lacks: Option<String>,
    /// Those without a verdict, up to the end of a report.
    open: Vec<(String, Duration)>,
    last: Duration,
    in_failures: bool,
    failures: BTreeSet<String>,
    /// What the ends of the reports add up to.
    totals: Option<(usize, usize)>,
    said: Option<String>,
    skips: Vec<String>,
}

/// What became of a program's tests, and what is wrong with the program itself.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) tests: Vec<Test>,
    /// What the skipped ones said.
    pub(crate) skips: Vec<String>,
    pub(crate) fault: Option<String>,
}

impl Report {
    /// Takes the next line, and when it came since the program's start.
    pub(crate) fn line(&mut self, at: Duration, line: &str) {
        if let Some(said) = line.strip_prefix("dm-remap: ") {
            self.said = Some(said.to_string());
        }
        if line.starts_with("running ") && line.contains(" test") {
            self.last = at;
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            self.result(at, rest);
        } else if self.in_failures {
            if let Some(name) = line.strip_prefix("    ") {
                self.failures.insert(name.to_string());
            }
        } else if let Some((name, verdict)) = test_line(line) {
            self.ended(at, None);
            self.begun = Some(name.to_string());
            if let Some(state) = state(verdict) {
                self.ended(at, Some(state));
            } else if verdict.starts_with("ignored") {
                self.begun = None;
            }
        } else if line == "failures:" {
            self.ended(at, None);
            self.in_failures = true;
        } else if let Some(reason) = line.strip_prefix("not run: ") {
            self.lacks = Some(reason.to_string());
        } else if line == "ok" || line == "FAILED" {
            self.ended(at, state(line));
        }
    }

    /// How many tests have had their verdict.
    pub(crate) fn done(&self) -> usize {
        self.tests.len() + self.open.len()
    }

    /// The test that began is over; its verdict may be still to come.
    fn ended(&mut self, at: Duration, state: Option<State>) {
        let Some(name) = self.begun.take() else {
            return;
        };
        let time = at.saturating_sub(self.last);
        self.last = at;
        let lacks = self.lacks.take();
        match state {
            Some(State::Passed) if lacks.is_some() => {
                self.skips.extend(lacks);
                let state = State::Skipped;
                self.tests.push(Test { name, state, time });
            }
            Some(state) => self.tests.push(Test { name, state, time }),
            None => self.open.push((name, time)),
        }
    }

    fn result(&mut self, at: Duration, rest: &str) {
        self.ended(at, None);
        for (name, time) in self.open.drain(..) {
            let state = match self.failures.contains(&name) {
                true => State::Failed,
                false => State::Passed,
            };
            self.tests.push(Test { name, state, time });
        }
        self.failures.clear();
        self.in_failures = false;
        self.last = at;
        let (passed, failed) = self.totals.unwrap_or_default();
        self.totals = Some((
            passed + number_before(rest, " passed;"),
            failed + number_before(rest, " failed;"),
        ));
    }

    /// The program ended, with `status` saying how if not well. `expected` are the tests that it was
    /// to run, as far as that is known.
    pub(crate) fn end(
        mut self,
        at: Duration,
        status: Option<&str>,
        expected: &[String],
    ) -> Verdict {
        let died_in = self.begun.clone().or_else(|| {
            let (name, _) = self.open.last()?;
            Some(name.clone())
        });
        self.ended(at, None);
        for (name, time) in std::mem::take(&mut self.open) {
            let state = State::Failed;
            self.tests.push(Test { name, state, time });
        }
        let reported: BTreeSet<&str> = self.tests.iter().map(|test| test.name.as_str()).collect();
        let missing: Vec<Test> = expected
            .iter()
            .filter(|name| !reported.contains(name.as_str()))
            .map(|name| Test {
                name: name.clone(),
                state: State::NotRun,
                time: Duration::ZERO,
            })
            .collect();
        let count = |state| self.tests.iter().filter(|test| test.state == state).count();
        // Who skips a test does not know of it.
        let passed = count(State::Passed) + count(State::Skipped);
        let failed = count(State::Failed);

        let mut fault = if died_in.is_some() || !missing.is_empty() || self.totals.is_none() {
            Some(status.unwrap_or("it did not come to its end").to_string())
        } else if self.totals != Some((passed, failed)) {
            Some("what it reported does not add up".to_string())
        } else if passed + failed == 0 {
            Some("it ran no test".to_string())
        } else {
            status.filter(|_| failed == 0).map(str::to_string)
        };
        if let (Some(fault), Some(said)) = (&mut fault, self.said) {
            *fault = said;
        }
        if let (Some(fault), Some(test)) = (&mut fault, died_in) {
            *fault += &format!(", during {test}");
        }
        if let (Some(fault), false) = (&mut fault, missing.is_empty()) {
            *fault += &format!("; {} of its tests did not run", missing.len());
        }
        self.tests.extend(missing);
        Verdict {
            tests: self.tests,
            skips: self.skips,
            fault,
        }
    }

    /// The same of a program that is a test by itself.
    pub(crate) fn end_of_whole(self, at: Duration, status: Option<&str>, name: &str) -> Verdict {
        Verdict {
            tests: vec![Test {
                name: name.to_string(),
                state: match status {
                    None => State::Passed,
                    Some(_) => State::Failed,
                },
                time: at,
            }],
            skips: Vec::new(),
            fault: status.map(|status| self.said.unwrap_or_else(|| status.to_string())),
        }
    }
}

/// The name and what stands behind it.
fn test_line(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("test ")?;
    let (name, verdict) = rest
        .split_once(" ... ")
        .or_else(|| Some((rest.strip_suffix(" ...")?, "")))?;
    Some((
        name.strip_suffix(" - should panic").unwrap_or(name),
        verdict,
    ))
}

/// A verdict, behind which there may be more; but not every word that begins so is one.
fn state(text: &str) -> Option<State> {
    match text.split(|c: char| !c.is_alphanumeric()).next()? {
        "ok" => Some(State::Passed),
        "FAILED" => Some(State::Failed),
        _ => None,
    }
}

fn number_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or_default();
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Report {
        let mut report = Report::default();
        for (second, line) in text.lines().enumerate() {
            report.line(Duration::from_secs(second as u64), line);
        }
        report
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn states(verdict: &Verdict) -> Vec<(&str, State)> {
        let tests = verdict.tests.iter();
        tests.map(|test| (test.name.as_str(), test.state)).collect()
    }

    const END: Duration = Duration::from_secs(100);

    #[test]
    fn all_passed() {
        let report = read(
            "booting\nrunning 2 tests\ntest a ... ok\nhm\ntest b - should panic ... ok\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored;",
        );
        let verdict = report.end(END, None, &names(&["a", "b"]));
        assert_eq!(verdict.fault, None);
        assert_eq!(
            states(&verdict),
            [("a", State::Passed), ("b", State::Passed)]
        );
        let times: Vec<u64> = verdict.tests.iter().map(|t| t.time.as_secs()).collect();
        assert_eq!(times, [1, 2]);
    }

    #[test]
    fn a_failed_test_is_no_fault_of_its_program() {
        let report = read(
            "running 2 tests\ntest a ... FAILED\ntest b ... ok\n\nfailures:\n\n---- a stdout ----\n\
             boom\n\nfailures:\n    a\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored;",
        );
        let verdict = report.end(END, Some("exit status: 101"), &names(&["a", "b"]));
        assert_eq!(verdict.fault, None);
        assert_eq!(
            states(&verdict),
            [("a", State::Failed), ("b", State::Passed)]
        );
    }

    #[test]
    fn a_verdict_amid_other_output_is_found() {
        let report = read(
            "running 4 tests\ntest a ... noise\nmore\nok\ntest b ... noiseok\ntest c ... noise\nFAILED\n\
             test d ... noiseFAILED\n\nfailures:\n    c\n    d\n\n\
             test result: FAILED. 2 passed; 2 failed; 0 ignored;",
        );
        let verdict = report.end(END, Some("exit status: 101"), &names(&["a", "b", "c", "d"]));
        assert_eq!(verdict.fault, None);
        let mut found = states(&verdict);
        found.sort_by_key(|(name, _)| *name);
        assert_eq!(
            found,
            [
                ("a", State::Passed),
                ("b", State::Passed),
                ("c", State::Failed),
                ("d", State::Failed)
            ]
        );
    }

    #[test]
    fn a_machine_that_dies_names_its_test_and_what_did_not_run() {
        let report = read(
            "running 3 tests\ntest a ... ok\ntest b ... \ndm-remap: QEMU failed: signal: 9 (SIGKILL)",
        );
        let verdict = report.end(END, Some("exit status: 1"), &names(&["a", "b", "c"]));
        assert_eq!(
            verdict.fault.as_deref(),
            Some("QEMU failed: signal: 9 (SIGKILL), during b; 1 of its tests did not run")
        );
        assert_eq!(
            states(&verdict),
            [
                ("a", State::Passed),
                ("b", State::Failed),
                ("c", State::NotRun)
            ]
        );
    }

    #[test]
    fn what_ends_early_and_well_is_a_fault_too() {
        let verdict = read("running 2 tests\ntest a ... ok").end(END, None, &names(&["a", "b"]));
        let fault = "it did not come to its end; 1 of its tests did not run";
        assert_eq!(verdict.fault.as_deref(), Some(fault));
        let verdict = read("running 2 tests\ntest a ... ok").end(END, None, &[]);
        assert_eq!(verdict.fault.as_deref(), Some("it did not come to its end"));
    }

    #[test]
    fn a_program_can_fail_although_its_tests_passed() {
        let text = "running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed;\n\
                    dm-remap: the kernel complained";
        let verdict = read(text).end(END, Some("exit status: 1"), &names(&["a"]));
        assert_eq!(verdict.fault.as_deref(), Some("the kernel complained"));
        assert_eq!(states(&verdict), [("a", State::Passed)]);
    }

    #[test]
    fn a_test_that_lacks_something_is_skipped() {
        let text = "running 2 tests\ntest a ... \nnot run: p::a needs Clock\nok\ntest b ... ok\n\
                    test result: ok. 2 passed; 0 failed;";
        let verdict = read(text).end(END, None, &names(&["a", "b"]));
        assert_eq!(verdict.fault, None);
        assert_eq!(verdict.skips, ["p::a needs Clock"]);
        assert_eq!(
            states(&verdict),
            [("a", State::Skipped), ("b", State::Passed)]
        );
    }

    #[test]
    fn nothing_is_no_success() {
        let verdict = read("test result: ok. 0 passed; 0 failed;").end(END, None, &[]);
        assert_eq!(verdict.fault.as_deref(), Some("it ran no test"));
    }

    #[test]
    fn sums_must_be_right() {
        let text = "test a ... ok\ntest result: ok. 2 passed; 0 failed;";
        let verdict = read(text).end(END, None, &[]);
        assert!(verdict.fault.unwrap().contains("add up"));
    }

    #[test]
    fn several_reports_and_remarks_behind_verdicts() {
        let report = read(
            "test fuzz ... ok (7 inputs)\ntest x (line 3) ... ignored\n\
             test result: ok. 1 passed; 0 failed;\nrunning 1 test\ntest b ... FAILED, see x\n\
             test result: FAILED. 0 passed; 1 failed;",
        );
        assert_eq!(report.done(), 2);
        let verdict = report.end(END, Some("exit status: 1"), &[]);
        assert_eq!(verdict.fault, None);
        assert_eq!(
            states(&verdict),
            [("fuzz", State::Passed), ("b", State::Failed)]
        );
    }

    #[test]
    fn a_whole_program_is_one_test() {
        let verdict = Report::default().end_of_whole(END, None, "bench");
        assert_eq!(states(&verdict), [("bench", State::Passed)]);
        let report = read("dm-remap: no space");
        let verdict = report.end_of_whole(END, Some("exit status: 1"), "bench");
        assert_eq!(states(&verdict), [("bench", State::Failed)]);
        assert_eq!(verdict.fault.as_deref(), Some("no space"));
    }
}
