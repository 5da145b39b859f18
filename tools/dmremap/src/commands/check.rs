// SPDX-License-Identifier: GPL-2.0

//! `dmremap check`.

use clap::Args;

use crate::check;
use crate::check::Severity;
use crate::cli::Output;
use crate::cli::Spares;
use crate::error::Error;
use crate::error::Result;
use crate::put;
use crate::spare::Access;

const MORE: &str = "\
Every copy of everything is read: all superblock copies, and the blocks of the slot table \
that are in use, in each replica. Data is not read. Nothing is written, and the device may \
be in use.

Each line begins with how bad it is. The worst decides the exit status:
  note      0  nothing is wrong; worth knowing
  leftover  1  as a crash leaves it; the next activation mends it by itself
  damage    4  good copies make up for it; the next activation or repair mends it
  loss      8  no copy makes up for it, and the module refuses the set; dmremap
               repair tells what can be chosen
Other exit statuses: 16 if a spare can't be opened or read, 32 if it is none.";

/// Look for damage in the metadata; reads only
#[derive(Debug, Args)]
#[command(after_help = MORE)]
pub struct Check {
    #[command(flatten)]
    spares: Spares,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print nothing: the exit status says it
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

impl Check {
    /// Does it.
    pub fn run(&self, output: &mut Output<'_>) -> Result<u8> {
        let mut spares = self.spares.open(Access::Read)?;
        let (report, set) = check::check(&mut spares)?;
        if self.json {
            let text = serde_json::to_string_pretty(&report)
                .map_err(|error| Error::usage(error.to_string()))?;
            put!(output, "{text}\n")?;
        } else if !self.quiet {
            for finding in &report.findings {
                put!(output, "{:8}  {}", finding.severity.word(), finding.text)?;
                if let (Some(spare), Some(sector)) = (&finding.spare, finding.sector) {
                    put!(output, " (sector {sector} of {spare})")?;
                }
                put!(output, "\n")?;
            }
            let verdict = match report.severity {
                Severity::Note => "in order",
                Severity::Leftover => "in order; the next activation tidies up",
                Severity::Damage => "damaged, and good copies make up for it",
                Severity::Loss => "damaged, and no copy makes up for it",
            };
            match set {
                Some(set) => put!(
                    output,
                    "set {}: {} remaps in {} table blocks: {verdict}\n",
                    set.superblock.set_uuid,
                    set.claims.len(),
                    set.table.len()
                )?,
                None => put!(output, "{verdict}\n")?,
            }
        }
        Ok(report.exit_status)
    }
}
