// SPDX-License-Identifier: GPL-2.0
//! A program to run, and what became of it.

use std::path::PathBuf;
use std::time::Duration;

use crate::report::State;
use crate::report::Verdict;

/// What a job adds to the sum.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Counts {
    /// The tests that it reports: these, if that is known.
    Tests(Vec<String>),
    /// It is one test by itself.
    Whole,
    /// A build: nothing, but a failure if it fails.
    IfItFails,
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    pub(crate) directory: PathBuf,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The jobs that have to be over, and well.
    pub(crate) after: Vec<String>,
    /// Nothing runs beside it.
    pub(crate) alone: bool,
    pub(crate) counts: Counts,
    /// How many seconds it is believed to take.
    pub(crate) seconds: f64,
    /// Where its times belong: the kernel's and the program's name.
    pub(crate) times: Option<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) job: Job,
    pub(crate) verdict: Verdict,
    pub(crate) time: Duration,
    pub(crate) output: String,
    /// Where its output is, from the checkout; none if it never ran.
    pub(crate) log: Option<PathBuf>,
}

impl Ended {
    pub(crate) fn passed(&self) -> usize {
        self.count(|state| state == State::Passed)
    }

    /// At least one if anything at all went wrong.
    pub(crate) fn failed(&self) -> usize {
        let failed = self.count(|state| matches!(state, State::Failed | State::NotRun));
        failed.max(usize::from(self.verdict.fault.is_some()))
    }

    fn count(&self, which: impl Fn(State) -> bool) -> usize {
        let tests = self.verdict.tests.iter();
        tests.filter(|test| which(test.state)).count()
    }

    /// Why it failed, in one line; none if it did not.
    pub(crate) fn failure(&self) -> Option<String> {
        if self.failed() == 0 {
            return None;
        }
        let tests = self.verdict.tests.iter();
        let failed: Vec<&str> = tests
            .filter(|test| test.state == State::Failed)
            .map(|test| test.name.as_str())
            .collect();
        let mut line = self.job.name.clone();
        if let Some(fault) = &self.verdict.fault {
            line += &format!(": {fault}");
        }
        if !failed.is_empty() && self.job.counts != Counts::Whole {
            line += &format!("; failed: {}", failed.join(", "));
        }
        if let Some(log) = &self.log {
            line += &format!("; see {}", log.display());
        }
        Some(line)
    }
}
