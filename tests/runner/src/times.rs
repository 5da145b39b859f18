// SPDX-License-Identifier: GPL-2.0
//! How long everything took the last time, in seconds: by kernel, program and test. It decides what runs
//! first and what is cut into parts, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Times {
    kernels: BTreeMap<String, BTreeMap<String, ProgramTimes>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProgramTimes {
    /// What each start of it takes besides its tests: a machine's boot.
    pub(crate) start: f64,
    pub(crate) tests: BTreeMap<String, f64>,
}

/// Seconds, and whose they are.
pub(crate) type Slowest = Vec<(f64, String)>;

impl ProgramTimes {
    pub(crate) fn total(&self) -> f64 {
        self.start + self.tests.values().sum::<f64>()
    }
}

impl Times {
    /// What a file holds; nothing, if there is none or it cannot be understood.
    pub(crate) fn load(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(new, path)
    }

    pub(crate) fn of(&self, kernel: &str, program: &str) -> Option<&ProgramTimes> {
        self.kernels.get(kernel)?.get(program)
    }

    /// Notes one start of a program that took `whole`; tests of it that did not run keep their times.
    pub(crate) fn note<'a>(
        &mut self,
        kernel: &str,
        program: &str,
        whole: Duration,
        tests: impl IntoIterator<Item = (&'a str, Duration)>,
    ) {
        let kernel = self.kernels.entry(kernel.to_string()).or_default();
        let times = kernel.entry(program.to_string()).or_default();
        let mut start = whole;
        for (test, time) in tests {
            start = start.saturating_sub(time);
            times.tests.insert(test.to_string(), rounded(time));
        }
        times.start = rounded(start);
    }

    /// Puts what another one has over what we have.
    pub(crate) fn update(&mut self, newer: &Times) {
        for (kernel, programs) in &newer.kernels {
            let ours = self.kernels.entry(kernel.clone()).or_default();
            for (program, times) in programs {
                let ours = ours.entry(program.clone()).or_default();
                ours.start = times.start;
                ours.tests.extend(times.tests.clone());
            }
        }
    }

    /// Programs and tests, the slowest first.
    pub(crate) fn slowest(&self) -> (Slowest, Slowest) {
        let (mut programs, mut all_tests) = (Vec::new(), Vec::new());
        for (kernel, of_kernel) in &self.kernels {
            for (program, times) in of_kernel {
                let place = match kernel.as_str() {
                    "oldest" => " on the oldest kernel",
                    _ => "",
                };
                programs.push((times.total(), format!("{program}{place}")));
                let tests = times.tests.iter();
                all_tests.extend(
                    tests
                        .filter(|(test, _)| *test != program)
                        .map(|(test, time)| (*time, format!("{program}::{test}{place}"))),
                );
            }
        }
        for list in [&mut programs, &mut all_tests] {
            list.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        }
        (programs, all_tests)
    }
}

fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_start_is_what_the_tests_do_not_take() {
        let mut times = Times::default();
        times.note(
            "stock",
            "p",
            SECOND * 10,
            [("a", SECOND), ("b", SECOND * 2)],
        );
        let found = times.of("stock", "p").unwrap();
        assert_eq!(found.start, 7.0);
        assert_eq!(found.total(), 10.0);
    }

    #[test]
    fn parts_of_a_program_add_up_and_what_did_not_run_is_kept() {
        let mut old = Times::default();
        old.note("stock", "p", SECOND * 9, [("a", SECOND), ("b", SECOND * 2)]);
        let mut new = Times::default();
        new.note("stock", "p", SECOND * 7, [("b", SECOND)]);
        new.note("quick", "p", SECOND, [("b", SECOND)]);
        old.update(&new);
        let found = old.of("stock", "p").unwrap();
        assert_eq!(
            (found.start, found.tests["a"], found.tests["b"]),
            (6.0, 1.0, 1.0)
        );
        assert!(old.of("quick", "p").is_some());
    }

    #[test]
    fn the_slowest_are_first() {
        let mut times = Times::default();
        times.note("stock", "p", SECOND * 3, [("a", SECOND), ("b", SECOND * 2)]);
        times.note("stock", "bench", SECOND * 9, [("bench", SECOND * 9)]);
        let (programs, tests) = times.slowest();
        assert_eq!(programs[0], (9.0, "bench".to_string()));
        assert_eq!(tests[0], (2.0, "p::b".to_string()));
        assert_eq!(tests.len(), 2);
    }

    #[test]
    fn a_file_survives_and_a_damaged_one_is_forgotten() {
        let path = std::env::temp_dir().join(format!("run-tests-times-{}", std::process::id()));
        let mut times = Times::default();
        times.note("stock", "p", SECOND, [("a", SECOND)]);
        times.save(&path).unwrap();
        assert_eq!(Times::load(&path).of("stock", "p"), times.of("stock", "p"));
        fs::write(&path, "{\"stock\": {\"p\": 7}}").unwrap();
        assert!(Times::load(&path).of("stock", "p").is_none());
        fs::remove_file(path).unwrap();
    }
}
