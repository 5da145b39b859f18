// SPDX-License-Identifier: GPL-2.0

//! The kept inputs, without a fuzzer: nothing that was found once comes back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use fuzz::Input;
use fuzz::Verdict;
use fuzz::TARGETS;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// What it is called from the checkout, wherever that is.
fn called(target: &str, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("tests/fuzz/corpus/{target}/{name}")
}

fn inputs(target: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(corpus().join(target)).expect("a folder for each target");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths
        .map(|path| {
            let bytes = fs::read(&path).expect("a readable file");
            (path, bytes)
        })
        .collect()
}

/// Each target's rules hold for its inputs, of which it accepts some: otherwise the corpus would be of
/// another format, and the fuzzer would see nothing but refusals.
#[test]
fn kept_inputs_keep_the_rules() {
    for target in TARGETS {
        let mut accepted = 0;
        for (path, bytes) in inputs(target.name) {
            println!("{}", called(target.name, &path));
            accepted += usize::from((target.run)(&mut Input::new(&bytes)) == Verdict::Accepted);
        }
        assert!(accepted >= 2, "{} accepts {accepted}", target.name);
    }
}

/// The seeds are there as they would be written now.
#[test]
fn seeds_are_up_to_date() {
    for seed in fuzz::seeds::all() {
        let path = corpus().join(seed.target).join(seed.name);
        let found = fs::read(&path).unwrap_or_default();
        let called = called(seed.target, &path);
        assert_eq!(found, seed.bytes, "{called}: make the seeds again");
    }
}

/// Nothing at all, zeroes, ones: as inputs go, these are as odd as any.
#[test]
fn plain_inputs_keep_the_rules() {
    for target in TARGETS {
        for length in [0, 1, 16, 100, 5000] {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                (target.run)(&mut Input::new(&vec![byte; length]));
            }
        }
    }
}
