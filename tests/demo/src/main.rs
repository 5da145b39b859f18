// SPDX-License-Identifier: GPL-2.0
//! `make demo`: a failing disk without dm-remap and with it.
//!
//! The program has two sides. Without arguments it is the one that a person started: it boots
//! virtual machines, cuts their power, and sums up. With `inside PART` it is what runs in such a
//! machine and does the work.
//!
//! Both tell what they see in sentences; whatever had to be true and was not is told by
//! `unexpected`, and makes the exit status 1.

mod files;
mod inside;
mod outside;
mod sickness;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] => outside::run(),
        ["inside", part, arguments @ ..] => inside::run(part, arguments),
        _ => Err("usage: demo".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n  UNEXPECTED: {error}");
            ExitCode::FAILURE
        }
    }
}
