// SPDX-License-Identifier: GPL-2.0
//! docs/errors.md and docs/dm-remap.rst are true: each test that they name exists, each test of `errors/` has its place
//! in the first, the second names all that there is, and each promise and rule about errors has a test.
//!
//! This runs outside, and needs no machine.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dm_remap_logic::event::Event;
use dm_remap_logic::figures::FIGURES;
use dm_remap_logic::limit::Limit;
use dm_remap_logic::message;
use dm_remap_logic::status::Status;

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

/// A term of a definition list, and what it is explained by.
struct Entry<'a> {
    section: &'a str,
    term: &'a str,
    tests: BTreeSet<String>,
}

/// The definition lists of docs/dm-remap.rst. Each entry ends with the tests that hold the module to it, in brackets.
fn entries(page: &str) -> Vec<Entry<'_>> {
    let lines: Vec<&str> = page.lines().collect();
    let mut section = "";
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut is_inside = false;
    for pair in lines.windows(2) {
        let [line, next] = pair else { continue };
        let is_rule = |line: &str| line.len() > 2 && line.chars().all(|c| c == '=' || c == '-');
        if is_rule(next) && !line.is_empty() && !is_rule(line) {
            (section, is_inside) = (line, false);
        } else if line.starts_with(' ') && is_inside {
            let tests = line.split(['[', ']', ',', ' ']);
            let tests = tests.filter(|word| word.contains("::") && !word.starts_with(':'));
            let entry = entries.last_mut().expect("an entry");
            entry.tests.extend(tests.map(str::to_string));
        } else if !line.is_empty() && !line.starts_with(' ') {
            is_inside = next.starts_with("    ");
            if is_inside {
                entries.push(Entry {
                    section,
                    term: line,
                    tests: BTreeSet::new(),
                });
            }
        }
    }
    entries
}

#[test]
fn the_reference_names_everything_and_tests_that_exist() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("../../docs/dm-remap.rst")).unwrap();
    let mut tests = Tests::new();
    read_folder(&here.join("tests"), &mut tests);
    let entries = entries(&page);
    for Entry {
        term,
        tests: named,
        section,
    } in &entries
    {
        let missing: Vec<_> = named
            .iter()
            .filter(|name| !tests.contains_key(*name))
            .collect();
        assert!(
            missing.is_empty(),
            "{term}: there are no such tests: {missing:#?}"
        );
        assert!(
            *section == "Glossary" || !named.is_empty(),
            "{section}: no test holds {term}"
        );
    }
    let has = |section: &str, term: &str| {
        let mut of_section = entries.iter().filter(|entry| entry.section == section);
        assert!(
            of_section.any(|entry| entry.term.split(", ").any(|one| one == term)),
            "{section}: no entry {term}"
        );
    };
    for form in message::table::ALL {
        let form = form.to_string();
        has(
            "Messages",
            &match form.starts_with("set ") {
                true => "``set <limit> <number>``".into(),
                false => format!("``{form}``"),
            },
        );
    }
    for event in Event::ALL {
        has(
            "Kinds",
            &format!("``{}`` ({})", event.name(), event.level().name()),
        );
    }
    for limit in Limit::ALL {
        let (default, min, max) = (limit.default(), limit.min(), limit.max());
        has(
            "Limits",
            &format!("``{}`` ({default}; {min} to {max})", limit.name()),
        );
    }
    for figure in &FIGURES {
        let name = figure.key.to_str().unwrap();
        has("/sys/kernel/dm_remap/dm-MINOR/", &format!("``{name}``"));
    }
    let status = Status::default().to_string();
    for key in status
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        has("Status", &format!("``{}``", key.0));
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
