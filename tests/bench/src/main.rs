// SPDX-License-Identifier: GPL-2.0
//! `make bench`: how many instructions an I/O takes, on dm-remap and on others.
//!
//! The program has two sides. The one that a person starts boots a virtual machine whose clock counts
//! instructions, and sums up. With `inside` it is what runs in that machine and does the I/O.

mod engine;
mod inside;
mod limits;
mod outside;
mod report;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Counts the instructions that an I/O takes, in a virtual machine.
#[derive(Parser)]
struct Arguments {
    /// Bytes in a logical block of the disks: 512 or 4096.
    #[arg(long, default_value_t = 4096)]
    block: u32,
    /// Measures only rows whose description (such as "remap-0 randread 4096 psync") holds this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Writes the rows to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compares the rows with the limits of P11, and with the tables in this file.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// The side in the virtual machine.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.inside {
        inside::run(arguments.block, &arguments.only);
        return ExitCode::SUCCESS;
    }
    match outside::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
