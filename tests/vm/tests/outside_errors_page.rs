// SPDX-License-Identifier: GPL-2.0
//! docs/errors.md and docs/observability.md are true: each test that they name exists, each test of `errors/`
//! has its place in the first, each event its row in the second, and each promise and rule about errors has a test.
//!
//! This runs outside, and needs no machine.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dm_remap_logic::event::Event;
use dm_remap_logic::limit::Limit;

/// What the error contract is made of. The format has its own tests.
const IDS: [&str; 15] = [
    "P1", "P2", "P3", "P6", "P7", "P8", "P10", "E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8",
];

/// A test, and the promises and rules that its documentation names.
type Tests = BTreeMap<String, BTreeSet<String>>;

/// The tests of a file, as `file::test`.
fn read_file(path: &Path, tests: &mut Tests) {
    let text = fs::read_to_string(path).unwrap();
    let file = path.file_stem().unwrap().to_string_lossy();
    let (mut of_file, mut of_test, mut is_test) = (BTreeSet::new(), BTreeSet::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("//!") {
            of_file.extend(ids(words));
        } else if let Some(words) = line.strip_prefix("///") {
            of_test.extend(ids(words));
        } else if line == "#[test]" {
            is_test = true;
        } else if let (Some(rest), true) = (line.strip_prefix("fn "), is_test) {
            let name = rest.split('(').next().unwrap_or(rest);
            let named = of_file.union(&of_test).cloned().collect();
            tests.insert(format!("{file}::{name}"), named);
            (of_test, is_test) = (BTreeSet::new(), false);
        } else if !line.starts_with("#[") {
            (of_test, is_test) = (BTreeSet::new(), false);
        }
    }
}

/// Words such as P6 and E2.
fn ids(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| IDS.contains(word))
        .map(str::to_string)
}

fn read_folder(folder: &Path, tests: &mut Tests) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(&path, tests);
        } else if path.extension().is_some_and(|end| end == "rs") {
            read_file(&path, tests);
        }
    }
}

/// What stands in backquotes and looks like a test.
fn named(page: &str) -> BTreeSet<String> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains("::") && word.split_once("::") != Some(("file", "test")))
        .map(str::to_string)
        .collect()
}

#[test]
fn the_page_of_errors_names_tests_that_exist() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("../../docs/errors.md")).unwrap();
    let mut tests = Tests::new();
    read_folder(&here.join("tests"), &mut tests);
    let named = named(&page);
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !tests.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
}

#[test]
fn the_page_of_events_names_them_all_and_tests_that_exist() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("../../docs/observability.md")).unwrap();
    let mut tests = Tests::new();
    read_folder(&here.join("tests"), &mut tests);
    let named = named(&page);
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !tests.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
    for event in Event::ALL {
        let row = format!("| `{}` | {} | ", event.name(), event.level().name());
        assert!(page.contains(&row), "no row begins with {row}");
    }
    for limit in Limit::ALL {
        let row = format!(
            "| `{}` | {} | {} to {} | ",
            limit.name(),
            limit.default(),
            limit.min(),
            limit.max()
        );
        assert!(page.contains(&row), "no row begins with {row}");
    }
}

#[test]
fn each_test_of_an_error_is_on_the_page() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("../../docs/errors.md")).unwrap();
    let mut tests = Tests::new();
    read_folder(&here.join("tests/errors"), &mut tests);
    assert!(tests.len() > 50, "{tests:?}");
    let named = named(&page);
    let left_out: Vec<_> = tests.keys().filter(|name| !named.contains(*name)).collect();
    assert!(left_out.is_empty(), "the page does not name {left_out:#?}");
}

#[test]
fn each_promise_about_errors_has_a_test() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Tests::new();
    read_folder(&here.join("tests"), &mut tests);
    for id in IDS {
        let held = tests.values().any(|named| named.contains(id));
        assert!(held, "no test names {id}");
    }
}
