// SPDX-License-Identifier: GPL-2.0

//! `dmremap`: see the library, and `dmremap --help`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    ExitCode::from(dmremap::cli::run(std::env::args_os(), &mut out, &mut err))
}
