// SPDX-License-Identifier: GPL-2.0

//! From a plan to the devices: shown, backed up, then done.

use std::collections::BTreeSet;

use dm_remap_logic::crc32c::crc32c;

use crate::backup::Backup;
use crate::backup::Record;
use crate::cli::Output;
use crate::error::Error;
use crate::error::Result;
use crate::put;
use crate::spare::Spare;

/// How often a plan is made anew because a place does not take its write.
const ATTEMPTS: usize = 100;

/// Makes a plan, shows it and carries it out, or only shows it if there is no backup. A place that
/// does not take its write is known as bad from then on, and the plan is made anew. Tells whether
/// there was anything to do.
pub(crate) fn carry_out(
    spares: &mut [Spare],
    mut backup: Option<Backup>,
    output: &mut Output<'_>,
    mut plan: impl FnMut(&mut [Spare]) -> Result<()>,
) -> Result<bool> {
    for _ in 0..ATTEMPTS {
        spares.iter_mut().for_each(Spare::forget);
        plan(spares)?;
        show(spares, output)?;
        if spares.iter().all(|spare| spare.pending().is_empty()) {
            return Ok(false);
        }
        let Some(backup) = &mut backup else {
            return Ok(true);
        };
        backup.save(&records(spares)?)?;
        let applied = apply(spares).map_err(|error| {
            Error::usage(format!(
                "{error}; what was written before that is put back by dmremap repair --undo {}",
                backup.path().display()
            ))
        });
        match applied? {
            None => return Ok(true),
            Some(place) => output.tell(format_args!("{place}; looking for another place")),
        }
    }
    Err(Error::damage(format!(
        "gave up after {ATTEMPTS} places that do not take writes"
    )))
}

/// Writes all that is to be written, in order, each write durable before the next begins. Returns a text
/// if a place does not take its write; the rest is forgotten then.
pub(crate) fn apply(spares: &mut [Spare]) -> Result<Option<String>> {
    let mut writes = Vec::new();
    for (number, spare) in spares.iter_mut().enumerate() {
        writes.extend(
            spare
                .take_pending()
                .into_iter()
                .map(|write| (number, write)),
        );
    }
    writes.sort_by_key(|(_, write)| write.order);
    for (number, write) in writes {
        let Some(spare) = spares.get_mut(number) else {
            continue;
        };
        if !spare.apply(&write)? {
            return Ok(Some(format!(
                "{}: sector {} does not take its write",
                spare.path().display(),
                spare.start() + write.sector
            )));
        }
    }
    Ok(None)
}

fn show(spares: &[Spare], output: &mut Output<'_>) -> Result<()> {
    for spare in spares {
        let mut told = BTreeSet::new();
        for write in spare.pending() {
            if told.insert(write.sector) {
                put!(
                    output,
                    "write {} to sector {} of {}\n",
                    write.what,
                    spare.start() + write.sector,
                    spare.path().display()
                )?;
            }
        }
    }
    Ok(())
}

/// What will be overwritten, as it is.
fn records(spares: &mut [Spare]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for (spare, number) in spares.iter_mut().zip(0u32..) {
        let outcome: Vec<(u64, u32)> = spare
            .pending()
            .iter()
            .map(|write| (write.sector, crc32c(&write.content[..])))
            .collect();
        for (sector, after) in outcome {
            records.push(Record {
                spare: number,
                sector: spare.start() + sector,
                device_sectors: spare.device_sectors(),
                name: spare.path().display().to_string(),
                before: spare.read_as_it_is(sector)?,
                after,
            });
        }
    }
    Ok(records)
}
