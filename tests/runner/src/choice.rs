// SPDX-License-Identifier: GPL-2.0
//! Which tests a person asked for: `program`, `program::module`, `program::module::test`, or how the
//! last part begins.

use std::collections::BTreeSet;
use std::fmt;

/// How like two names have to be for one to be offered for the other, from 0 to 1.
const LIKE: f64 = 0.75;

/// How many names are offered.
const OFFERS: usize = 3;

/// What was asked for; nothing is everything.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    words: Vec<Word>,
}

#[derive(Debug)]
struct Word {
    program: String,
    filter: Option<String>,
}

/// A name that is none, and what is like it.
#[derive(Debug, PartialEq)]
pub(crate) struct Unknown {
    name: String,
    like: Vec<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no test '{}'", self.name)?;
        match self.like.is_empty() {
            true => write!(f, ", nor anything like it"),
            false => write!(f, "; like it: {}", self.like.join(", ")),
        }
    }
}

impl std::error::Error for Unknown {}

impl Choice {
    /// Each text holds names between blanks.
    pub(crate) fn new(texts: &[String]) -> Self {
        let words = texts.iter().flat_map(|text| text.split_whitespace());
        Self {
            words: words
                .map(|word| match word.split_once("::") {
                    Some((program, filter)) => Word {
                        program: program.to_string(),
                        filter: Some(filter.to_string()),
                    },
                    None => Word {
                        program: word.to_string(),
                        filter: None,
                    },
                })
                .collect(),
        }
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.words.is_empty()
    }

    pub(crate) fn wants(&self, program: &str) -> bool {
        self.is_everything() || self.words.iter().any(|word| word.program == program)
    }

    /// Whether every name begins with one of these programs.
    pub(crate) fn check<'a>(
        &self,
        programs: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Unknown> {
        let programs: BTreeSet<&str> = programs.into_iter().collect();
        let unknown = self
            .words
            .iter()
            .find(|word| !programs.contains(word.program.as_str()));
        unknown.map_or(Ok(()), |word| {
            Err(Unknown {
                like: like(&word.program, programs.iter().copied()),
                name: word.program.clone(),
            })
        })
    }

    /// Those of a program's tests that were asked for, in their order.
    pub(crate) fn tests(&self, program: &str, all: &[String]) -> Result<Vec<String>, Unknown> {
        let ours = || self.words.iter().filter(|word| word.program == program);
        if self.is_everything() || ours().any(|word| word.filter.is_none()) {
            return Ok(all.to_vec());
        }
        let mut chosen = BTreeSet::new();
        for filter in ours().filter_map(|word| word.filter.as_deref()) {
            let found = matching(filter, all);
            if found.is_empty() {
                let like = like(filter, paths(all).iter().map(String::as_str));
                return Err(Unknown {
                    name: format!("{program}::{filter}"),
                    like: like
                        .iter()
                        .map(|path| format!("{program}::{path}"))
                        .collect(),
                });
            }
            chosen.extend(found);
        }
        let chosen = all.iter().filter(|test| chosen.contains(test.as_str()));
        Ok(chosen.cloned().collect())
    }
}

/// The test or module of that name, else those whose name begins so.
pub(crate) fn matching<'a>(filter: &str, all: &'a [String]) -> Vec<&'a str> {
    let module = format!("{}::", filter.trim_end_matches("::"));
    let by = |matches: &dyn Fn(&str) -> bool| -> Vec<&'a str> {
        all.iter()
            .map(String::as_str)
            .filter(|test| matches(test))
            .collect()
    };
    let exact = by(&|test| test == filter || test.starts_with(&module));
    match exact.is_empty() {
        true => by(&|test| test.starts_with(filter)),
        false => exact,
    }
}

/// All modules and tests that can be named.
fn paths(tests: &[String]) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = tests.iter().cloned().collect();
    for test in tests {
        let ends = test.match_indices("::").map(|(at, _)| at);
        paths.extend(ends.filter_map(|end| test.get(..end)).map(str::to_string));
    }
    paths
}

/// The names that are most like this one, the best first.
fn like<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<(f64, &str)> = names
        .into_iter()
        .map(|other| (likeness(name, other), other))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    found.truncate(OFFERS);
    found
        .into_iter()
        .map(|(_, name)| name.to_string())
        .collect()
}

/// A name may be like another one, like its last part, or be a part of it.
fn likeness(name: &str, other: &str) -> f64 {
    let last = other.rsplit("::").next().unwrap_or(other);
    let part = match other.contains(name) {
        true => 0.9,
        false => 0.0,
    };
    strsim::jaro_winkler(name, other)
        .max(strsim::jaro_winkler(name, last))
        .max(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<String> {
        [
            "moves::a",
            "moves::b",
            "moves_late::c",
            "power_cuts_at_any_time",
            "power",
        ]
        .map(String::from)
        .into()
    }

    fn choice(text: &str) -> Choice {
        Choice::new(&[text.to_string()])
    }

    #[test]
    fn nothing_is_everything() {
        let choice = choice(" ");
        assert!(choice.is_everything() && choice.wants("errors"));
        assert_eq!(choice.tests("errors", &tests()), Ok(tests()));
    }

    #[test]
    fn a_module_is_not_what_begins_like_it() {
        let chosen = choice("errors::moves").tests("errors", &tests()).unwrap();
        assert_eq!(chosen, ["moves::a", "moves::b"]);
    }

    #[test]
    fn the_beginning_of_a_name_is_enough() {
        let chosen = choice("p::power_cuts").tests("p", &tests()).unwrap();
        assert_eq!(chosen, ["power_cuts_at_any_time"]);
    }

    #[test]
    fn a_whole_name_is_that_test_alone() {
        let chosen = choice("p::power").tests("p", &tests()).unwrap();
        assert_eq!(chosen, ["power"]);
    }

    #[test]
    fn several_names_of_one_program_add_up_in_its_order() {
        let chosen = choice("p::power p::moves::b p::moves::b other").tests("p", &tests());
        assert_eq!(chosen.unwrap(), ["moves::b", "power"]);
        assert_eq!(choice("p::moves p").tests("p", &tests()), Ok(tests()));
    }

    #[test]
    fn an_unknown_program_is_refused_with_what_is_like_it() {
        let error = choice("errors erors").check(["errors", "model", "messages"]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "there is no test 'erors'; like it: errors"
        );
        let error = choice("x").check(["errors"]).unwrap_err().to_string();
        assert_eq!(error, "there is no test 'x', nor anything like it");
    }

    #[test]
    fn an_unknown_test_is_refused_with_what_is_like_it() {
        let error = choice("errors::movs")
            .tests("errors", &tests())
            .unwrap_err();
        let offered = error.to_string();
        assert!(offered.starts_with("there is no test 'errors::movs'; like it: errors::moves"));
        let error = choice("errors::cuts")
            .tests("errors", &tests())
            .unwrap_err();
        assert!(error.to_string().contains("errors::power_cuts_at_any_time"));
    }
}
