// SPDX-License-Identifier: GPL-2.0

//! `dmremap repair`.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use dm_remap_logic::crc32c::crc32c;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BLOCK_BYTES;

use crate::backup;
use crate::backup::Backup;
use crate::change::apply;
use crate::change::carry_out;
use crate::cli::Output;
use crate::cli::Spares;
use crate::error::Error;
use crate::error::Result;
use crate::put;
use crate::repair::repair;
use crate::repair::Choice;
use crate::set::names;
use crate::spare::Access;
use crate::spare::Spare;

const MORE: &str = "\
Copies that are damaged, old or torn are written anew from the good ones, by the same rules as in the \
module; places that do not take writes are replaced. The module does the same when it activates \
the spare: repair is for those who want to see before, or have no module at hand.

Nothing is written before the backup file holds every block that will be overwritten; \
--undo puts these back. The form of the file stands in docs/format.md.

Where no copy can be trusted, repair lists what can be chosen:
  --choose super:SPARE.COPY            go by this superblock copy
  --choose table:SPARE.BLOCK=replica0  go by this replica's block, even with a bad
  --choose table:SPARE.BLOCK=replica1  checksum
  --choose table:SPARE.BLOCK=empty     give the block up: what its slots served reads
                                       as it is on main, which may be old or unreadable
  --choose slot:SPARE.SLOT=free        free this slot
SPARE is the number of the spare, from 0: for superblocks on the command line, else in \
the set, as dmremap dump counts.";

/// What a place was before a repair.
struct Was {
    /// What was there; none if it could not be read.
    before: Option<Box<Block>>,
    /// The checksums of what the repair may have left there.
    after: Vec<u32>,
}

/// Mend damaged metadata
#[derive(Debug, Args)]
#[command(after_help = MORE)]
pub struct Repair {
    #[command(flatten)]
    spares: Spares,

    /// Save what will be overwritten to this new file
    #[arg(long, value_name = "FILE", required_unless_present_any = ["dry_run", "undo"])]
    backup: Option<PathBuf>,

    /// Only show what would be written
    #[arg(long, short = 'n', conflicts_with = "backup")]
    dry_run: bool,

    /// How to go on where no copy can be trusted; may be given several times
    #[arg(long, value_name = "WHAT")]
    choose: Vec<Choice>,

    /// Put back what this backup file holds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backup", "choose"])]
    undo: Option<PathBuf>,

    /// With --undo: also where something else was written since
    #[arg(long, requires = "undo")]
    force: bool,
}

impl Repair {
    /// Does it.
    pub fn run(&self, output: &mut Output<'_>) -> Result<u8> {
        let backup = self.backup.as_deref().map(Backup::new).transpose()?;
        let access = match self.dry_run {
            true => Access::Read,
            false => Access::Write,
        };
        let mut spares = self.spares.open(access)?;
        if let Some(file) = &self.undo {
            return self.undo(&mut spares, file, output);
        }
        let todo = carry_out(&mut spares, backup, output, |spares| {
            repair(spares, &self.choose)
        })?;
        let verdict = match (todo, self.dry_run) {
            (false, _) => "nothing to repair",
            (true, true) => "nothing was written",
            (true, false) => "repaired",
        };
        put!(output, "{}: {verdict}\n", names(&spares))?;
        Ok(0)
    }

    fn undo(&self, spares: &mut [Spare], file: &Path, output: &mut Output<'_>) -> Result<u8> {
        let (records, cut) = backup::load(file)?;
        if cut {
            output.tell(format_args!(
                "{}: the last record is cut off; nothing was overwritten for it",
                file.display()
            ));
        }
        // The first record of a place says what was there, any later one what may be there now.
        let mut places: BTreeMap<(usize, u64), Was> = BTreeMap::new();
        for record in records {
            let number = record.spare as usize;
            let Some(spare) = spares.get(number) else {
                return Err(Error::usage(format!(
                    "{}: it is of {} spares, in the order of the repair",
                    file.display(),
                    number + 1
                )));
            };
            let sector = record.sector.checked_sub(spare.start());
            let (Some(sector), true) = (sector, record.device_sectors == spare.device_sectors())
            else {
                return Err(Error::foreign(format!(
                    "{}: it is of {}, which has {} sectors; {} has {}, and its window begins at {}",
                    file.display(),
                    record.name,
                    record.device_sectors,
                    spare.path().display(),
                    spare.device_sectors(),
                    spare.start()
                )));
            };
            let place = places.entry((number, sector));
            let was = place.or_insert_with(|| Was {
                before: record.before,
                after: Vec::new(),
            });
            was.after.push(record.after);
        }
        for ((number, sector), Was { before, after }) in places {
            let Some(spare) = spares.get_mut(number) else {
                continue;
            };
            let now = spare.read_as_it_is(sector)?;
            if now == before {
                continue;
            }
            let ours = now
                .as_ref()
                .is_none_or(|now| after.contains(&crc32c(&now[..])));
            if !ours && !self.force {
                return Err(Error::damage(format!(
                    "{}: sector {} was written since the repair; --force overwrites it",
                    spare.path().display(),
                    spare.start() + sector
                )));
            }
            let what = match before {
                Some(_) => "what was there",
                None => "zeroes, as the block was unreadable,",
            };
            let content = before.unwrap_or_else(|| Box::new([0; BLOCK_BYTES]));
            let order = spare.pending().len();
            spare.write(sector, &content, what, order);
        }
        let count = carry_out_undo(spares, self.dry_run, output)?;
        let verdict = match (count, self.dry_run) {
            (0, _) => "nothing to put back, all of it is as it was".into(),
            (_, true) => "nothing was written".into(),
            (1, false) => "1 block put back".into(),
            (count, false) => format!("{count} blocks put back"),
        };
        put!(output, "{}: {verdict}\n", names(spares))?;
        Ok(0)
    }
}

/// Tells how many blocks that are.
fn carry_out_undo(spares: &mut [Spare], dry_run: bool, output: &mut Output<'_>) -> Result<usize> {
    let count = spares.iter().map(|spare| spare.pending().len()).sum();
    for spare in spares.iter() {
        for write in spare.pending() {
            put!(
                output,
                "write {} back to sector {} of {}\n",
                write.what,
                spare.start() + write.sector,
                spare.path().display()
            )?;
        }
    }
    if dry_run {
        return Ok(count);
    }
    match apply(spares)? {
        None => Ok(count),
        Some(place) => Err(Error::usage(place)),
    }
}
