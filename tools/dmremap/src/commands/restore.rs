// SPDX-License-Identifier: GPL-2.0

//! `dmremap restore`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use crate::backup::Backup;
use crate::change::carry_out;
use crate::cli::Output;
use crate::cli::Spares;
use crate::dump;
use crate::error::Error;
use crate::error::Result;
use crate::put;
use crate::restore::check_content;
use crate::restore::check_order;
use crate::restore::restore;
use crate::set::names;
use crate::set::read_supers;
use crate::spare::Access;

const MORE: &str = "\
For a spare whose metadata is gone while its data is still there, or for a copy of its data on \
another device: the slots are where they were, at least as long as the spare was. What was \
remapped after the dump was made is not in it, and reads as it is on main from then on, which \
may be old or unreadable: try dmremap repair first.

Of a set of several, all spares are given, in the order of the dump.

A spare of another set is refused without --force, and so is one that is newer than the dump. \
As with repair, the backup file gets all blocks that will be overwritten, and \
dmremap repair --undo puts them back.";

/// Write the metadata anew from a dump
#[derive(Debug, Args)]
#[command(after_help = MORE)]
pub struct Restore {
    #[command(flatten)]
    spares: Spares,

    /// What dmremap dump --json printed
    #[arg(value_name = "DUMP")]
    dump: PathBuf,

    /// Save what will be overwritten to this new file
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    backup: Option<PathBuf>,

    /// Only show what would be written
    #[arg(long, short = 'n', conflicts_with = "backup")]
    dry_run: bool,

    /// Overwrite the metadata of another set, or newer one
    #[arg(long)]
    force: bool,
}

impl Restore {
    /// Does it.
    pub fn run(&self, output: &mut Output<'_>) -> Result<u8> {
        let dump = self.read()?;
        let backup = self.backup.as_deref().map(Backup::new).transpose()?;
        let access = match self.dry_run {
            true => Access::Read,
            false => Access::Write,
        };
        let mut spares = self.spares.open(access)?;
        let supers = read_supers(&mut spares)?;
        check_order(&spares, &supers, &dump)?;
        if !self.force {
            check_content(&spares, &supers, &dump)?;
        }
        carry_out(&mut spares, backup, output, |spares| {
            restore(spares, &supers, &dump)
        })?;
        let verdict = match self.dry_run {
            true => "nothing was written",
            false => "restored",
        };
        put!(output, "{}: {verdict}\n", names(&spares))?;
        Ok(0)
    }

    fn read(&self) -> Result<dump::Decoded> {
        let failed = |error: std::io::Error| Error::io(&self.dump, "read it", &error);
        let file = File::open(&self.dump).map_err(failed)?;
        let mut bytes = Vec::new();
        let mut limited = file.take(dump::BYTES_MAX + 1);
        limited.read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > dump::BYTES_MAX {
            return Err(Error::usage(format!(
                "{}: larger than any dump, which has {} bytes at most",
                self.dump.display(),
                dump::BYTES_MAX
            )));
        }
        dump::decode(&bytes)
            .map_err(|error| Error::usage(format!("{}: {error}", self.dump.display())))
    }
}
