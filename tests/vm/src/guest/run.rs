// SPDX-License-Identifier: GPL-2.0
//! Commands.

use std::process::Command;

/// What became of a command.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status, or -1 if a signal ended it.
    pub status: i32,
    /// What it printed.
    pub output: String,
    /// What it complained.
    pub errors: String,
}

/// Runs a program with arguments, words separated by blanks.
pub fn run(line: &str) -> Ran {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    Ran {
        status: output.status.code().unwrap_or(-1),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The same, for what must succeed; returns what it printed.
#[track_caller]
pub fn succeed(line: &str) -> String {
    let ran = run(line);
    assert!(
        ran.status == 0,
        "`{line}` ended with {}: {}{}",
        ran.status,
        ran.output,
        ran.errors
    );
    ran.output
}
