// SPDX-License-Identifier: GPL-2.0

//! The command line: words in, texts and an exit status out.

use std::ffi::OsString;
use std::fmt;
use std::io::BufWriter;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;

use crate::commands::check;
use crate::commands::dump;
use crate::commands::format;
use crate::commands::linear_table;
use crate::commands::repair;
use crate::commands::restore;
use crate::error::Error;
use crate::error::Result;
use crate::identity;
use crate::identity::Identity;
use crate::spare::Access;
use crate::spare::Part;
use crate::spare::Spare;

const EXIT_STATUS: &str = "\
Exit status:
  0   all is well
  1   check: leftovers of a crash, which the next activation mends by itself
  4   check: damage that good copies make up for
  8   damage that loses information, or that this command does not go over
  16  wrong usage, or a device or file that can't be opened, read or written
  32  no dm-remap spare, another one than was named, or one of a later version

SPARE is a block device or an image file; of a set of several spares, all are given. \
dmremap does not need the kernel module, and nothing but format, repair and restore \
writes to a spare.";

/// Look after the spares of dm-remap devices, with or without the kernel module.
#[derive(Debug, Parser)]
#[command(name = "dmremap", version, after_help = EXIT_STATUS, max_term_width = 90)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Format(format::Format),
    Dump(dump::Dump),
    Check(check::Check),
    LinearTable(linear_table::LinearTable),
    Repair(repair::Repair),
    Restore(restore::Restore),
}

/// The spares that a command works on.
#[derive(Debug, Args)]
pub struct Spares {
    /// The spare: a block device or an image file
    #[arg(required = true, value_name = "SPARE")]
    pub spares: Vec<PathBuf>,

    /// First sector of the spare on its device, if it is only a part; once for all spares, or
    /// once for each
    #[arg(long, value_name = "SECTOR")]
    pub spare_start: Vec<u64>,

    /// Number of sectors of that part
    #[arg(long, value_name = "SECTORS")]
    pub spare_len: Vec<u64>,
}

impl Spares {
    /// Opens all of them.
    pub fn open(&self, access: Access) -> Result<Vec<Spare>> {
        self.open_with(&[], None, access)
    }

    /// Opens all of them, and some more. None may be there twice, nor be `main`.
    pub fn open_with(
        &self,
        more: &[PathBuf],
        main: Option<&Identity>,
        access: Access,
    ) -> Result<Vec<Spare>> {
        let count = self.spares.len() + more.len();
        for (name, list) in [
            ("--spare-start", &self.spare_start),
            ("--spare-len", &self.spare_len),
        ] {
            if list.len() > 1 && list.len() != count {
                return Err(Error::usage(format!(
                    "{name} is given {} times, but there are {count} spares: give it once for all, or once for each",
                    list.len()
                )));
            }
        }
        let nth = |list: &[u64], index: usize| list.get(index).or(list.first()).copied();
        let all = self.spares.iter().chain(more).enumerate();
        let all = all.map(|(index, path)| {
            let part = Part {
                start: nth(&self.spare_start, index),
                len: nth(&self.spare_len, index),
            };
            (path, part)
        });
        // Before any is opened: a device may be opened only once.
        let identities = all.clone().map(|(path, part)| Identity::of(path, part));
        let identities: Vec<Identity> = identities.collect::<Result<_>>()?;
        if let Some(main) = main {
            identity::refuse_main(main, &identities)?;
        }
        identity::refuse_twice(&identities)?;
        all.map(|(path, part)| Spare::open(path, part, access))
            .collect()
    }
}

/// Where a command writes to.
pub struct Output<'a> {
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// What people should know beside that.
    pub err: &'a mut dyn Write,
}

impl Output<'_> {
    /// Prints what was asked for.
    pub fn print(&mut self, text: fmt::Arguments<'_>) -> Result<()> {
        self.out
            .write_fmt(text)
            .map_err(|error| Error::usage(format!("cannot write the output: {error}")))
    }

    /// Tells people something. Whether they see it changes nothing.
    pub fn tell(&mut self, text: fmt::Arguments<'_>) {
        let _ = writeln!(self.err, "dmremap: {text}");
    }
}

/// Prints, as `print!` does, to an [`Output`].
#[macro_export]
macro_rules! put {
    ($output:expr, $($text:tt)*) => {
        $output.print(format_args!($($text)*))
    };
}

/// Runs a command line, the program's name included, and returns the exit status.
pub fn run<T: Into<OsString> + Clone>(
    words: impl IntoIterator<Item = T>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render();
            // There is nobody else to tell if that fails.
            return match error.use_stderr() {
                true => {
                    let _ = write!(err, "{text}");
                    16
                }
                false => {
                    let _ = write!(out, "{text}");
                    0
                }
            };
        }
    };
    let mut buffered = BufWriter::new(out);
    let mut output = Output {
        out: &mut buffered,
        err,
    };
    let result = match &cli.command {
        Command::Format(command) => command.run(&mut output),
        Command::Dump(command) => command.run(&mut output),
        Command::Check(command) => command.run(&mut output),
        Command::LinearTable(command) => command.run(&mut output),
        Command::Repair(command) => command.run(&mut output),
        Command::Restore(command) => command.run(&mut output),
    };
    let flushed = buffered
        .flush()
        .map_err(|error| Error::usage(format!("cannot write the output: {error}")));
    match result.and_then(|status| flushed.map(|()| status)) {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(err, "dmremap: {error}");
            error.exit_status()
        }
    }
}
