// SPDX-License-Identifier: GPL-2.0

//! `dmremap dump`.

use clap::Args;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::State as SlotState;

use crate::check::show_sequence;
use crate::cli::Output;
use crate::cli::Spares;
use crate::dump;
use crate::dump::StatisticsSaid;
use crate::error::Error;
use crate::error::Result;
use crate::put;
use crate::set::CopyFound;
use crate::set::Set;
use crate::set::State;
use crate::spare::Access;
use crate::spare::Spare;

const MORE: &str = "\
The text is for people and may change. The JSON has a version and holds everything that \
dmremap restore needs to write the metadata anew: keep one beside your backups, and make \
a new one now and then.

Sectors are counted on the device that they are on. A generation is the number of an \
activation and of a commit in it: larger is newer. Exit status: 8 if the metadata is damaged \
so that something is missing here, else as in dmremap --help.";

/// Print what the metadata says
#[derive(Debug, Args)]
#[command(after_help = MORE)]
pub struct Dump {
    #[command(flatten)]
    spares: Spares,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Dump {
    /// Does it.
    pub fn run(&self, output: &mut Output<'_>) -> Result<u8> {
        let mut spares = self.spares.open(Access::Read)?;
        let set = Set::load(&mut spares)?;
        for spare in spares.iter().filter(|spare| spare.is_busy()) {
            output.tell(format_args!(
                "{}: in use, so that this may be changing meanwhile",
                spare.path().display()
            ));
        }
        for problem in &set.problems {
            output.tell(format_args!("damaged: {problem}"));
        }
        if self.json {
            json(&set, output)?;
        } else {
            text(&set, &spares, output)?;
        }
        Ok(if set.problems.is_empty() { 0 } else { 8 })
    }
}

/// Entries one to a line: many programs choke on long lines, and people like to compare dumps.
fn json(set: &Set, output: &mut Output<'_>) -> Result<()> {
    let failed = |error: serde_json::Error| Error::usage(error.to_string());
    let mut said = dump::encode(set);
    let entries = std::mem::take(&mut said.entries);
    let text = serde_json::to_string_pretty(&said).map_err(failed)?;
    let Some(head) = text.strip_suffix("[]\n}") else {
        return Err(Error::usage("a dump does not end as it should"));
    };
    put!(output, "{head}[")?;
    let mut comma = "";
    for entry in &entries {
        let entry = serde_json::to_string(entry).map_err(failed)?;
        put!(output, "{comma}\n    {entry}")?;
        comma = ",";
    }
    put!(output, "\n  ]\n}}\n")
}

fn text(set: &Set, spares: &[Spare], output: &mut Output<'_>) -> Result<()> {
    let superblock = set.superblock();
    put!(output, "set {}\n", superblock.set_uuid)?;
    let clean = match superblock.clean {
        true => "ended in order",
        false => "not ended in order",
    };
    put!(
        output,
        "  superblock   sequence {}, activation epoch {} ({clean}), set epoch {}\n",
        superblock.sequence,
        superblock.epoch,
        superblock.set_epoch
    )?;
    let id = match superblock.main_id.as_str() {
        "" => "nobody said what it is",
        id => id,
    };
    put!(
        output,
        "  main         {} sectors, logical blocks of {} bytes ({id})\n",
        superblock.main_sectors,
        superblock.main_block_bytes
    )?;
    put!(
        output,
        "  features     compat {:#x}, ro-compat {:#x}, incompat {:#x}\n",
        superblock.compat,
        superblock.ro_compat,
        superblock.incompat
    )?;
    for spare in spares {
        member(set, spare, output)?;
    }
    put!(output, "\nstatistics\n")?;
    for (name, value) in StatisticsSaid::from(superblock.statistics).list() {
        put!(output, "  {:20} {value}\n", name.replace('_', " "))?;
    }
    slots(set, spares, output)
}

fn member(set: &Set, spare: &Spare, output: &mut Output<'_>) -> Result<()> {
    let superblock = set.superblock();
    let geometry = &superblock.geometry;
    let at = |sector: u64| spare.start() + sector;
    put!(
        output,
        "\nspare {}: {}\n",
        superblock.member_uuid,
        spare.path().display()
    )?;
    put!(
        output,
        "  window       from sector {}, {} sectors\n",
        spare.start(),
        geometry.window_sectors()
    )?;
    put!(
        output,
        "  data         from sector {}, {} slots of {} bytes, aligned to {} sectors\n",
        at(geometry.data_start()),
        geometry.slots(),
        superblock.main_block_bytes,
        geometry.align_sectors()
    )?;
    put!(output, "  superblock copies\n")?;
    for (copy, said) in set.supers.copies.iter().zip(&set.supers.said) {
        let sequence = said
            .as_ref()
            .map_or_else(String::new, |said| format!("sequence {}, ", said.sequence));
        let sector = at(copy.place.sector);
        put!(
            output,
            "    {:14} sector {sector:<12} {sequence}{}\n",
            copy.copy.to_string().replace("superblock ", ""),
            show_super(copy)
        )?;
    }
    put!(
        output,
        "  slot table   {} of {} blocks in use, high-water mark {}\n",
        set.table.len(),
        geometry.table_blocks(),
        superblock.high_water
    )?;
    for replica in 0..2u8 {
        replica_text(set, spare, replica, output)?;
    }
    Ok(())
}

fn show_super(copy: &CopyFound) -> String {
    match copy.state {
        State::True => "the truth: none is newer".into(),
        State::Behind { .. } => "older than the truth".into(),
        _ => show_state(copy),
    }
}

fn show_state(copy: &CopyFound) -> String {
    match copy.state {
        State::True => "true".into(),
        State::Behind { sequence } => format!("older: {}", show_sequence(sequence)),
        State::Void => "void: it took no writes, nobody looks at it".into(),
        State::Unreadable => "unreadable".into(),
        State::Torn => "half written, as a crash leaves it".into(),
        State::Bad(error) => error.to_string(),
        State::Doubtful { sequence } => {
            format!("whole, {}, but not to be believed", show_sequence(sequence))
        }
    }
}

fn replica_text(set: &Set, spare: &Spare, replica: u8, output: &mut Output<'_>) -> Result<()> {
    let superblock = set.superblock();
    let first = superblock.geometry.table_block_sector(replica, 0);
    let first = spare.start() + first.unwrap_or(0);
    let copies = || {
        set.table
            .iter()
            .flat_map(|block| block.copies.get(usize::from(replica)))
    };
    let good = copies().filter(|copy| copy.state == State::True).count();
    let void = match superblock.replica_lives(replica) {
        true => "",
        false => " (void: nobody looks at it)",
    };
    put!(
        output,
        "    replica {replica}    from sector {first}: {good} blocks true{void}\n"
    )?;
    for copy in copies().filter(|copy| !matches!(copy.state, State::True | State::Void)) {
        let sector = spare.start() + copy.place.sector;
        put!(
            output,
            "      {}: sector {sector}: {}\n",
            copy.copy,
            show_state(copy)
        )?;
    }
    let Some(reserves) = superblock.reserve.get(usize::from(replica)) else {
        return Ok(());
    };
    let free = reserves.iter().filter(|r| *r == Reserve::Free).count();
    put!(output, "    reserve      {free} blocks free\n")?;
    for (reserve, index) in reserves.iter().zip(0u8..) {
        let sector = superblock.geometry.reserve_block_sector(replica, index);
        let sector = spare.start() + sector.unwrap_or(0);
        match reserve {
            Reserve::Free => (),
            Reserve::Bad => put!(output, "      reserve {index}: sector {sector}: bad\n")?,
            Reserve::Holds { block, home_bad } => {
                let home = match home_bad {
                    true => "whose own place is bad",
                    false => "whose own place is good",
                };
                put!(
                    output,
                    "      reserve {index}: sector {sector}: holds table block {block}, {home}\n"
                )?;
            }
        }
    }
    Ok(())
}

fn slots(set: &Set, spares: &[Spare], output: &mut Output<'_>) -> Result<()> {
    let count = |state| {
        let entries = set.entries.iter();
        entries.filter(|entry| entry.word.state() == state).count()
    };
    put!(
        output,
        "\nslots: {} hold data, {} set aside for unreadable sectors, {} bad, of {}\n",
        count(SlotState::Valid),
        count(SlotState::Pending),
        count(SlotState::Bad),
        set.superblock().geometry.slots()
    )?;
    if set.claims.is_empty() && count(SlotState::Bad) == 0 {
        return Ok(());
    }
    put!(
        output,
        "  {:>14} {:>10} {:>14}  {:8} {:7} {}\n",
        "main sector",
        "slot",
        "spare sector",
        "state",
        "origin",
        "generation"
    )?;
    for (main_block, slot) in &set.claims {
        let sector = main_block * set.slot_sectors();
        line(set, spares, &sector.to_string(), *slot, output)?;
    }
    for (loser, winner) in &set.lost_claims {
        line(set, spares, &format!("(lost to {winner})"), *loser, output)?;
    }
    for (slot, entry) in (0u32..).zip(&set.entries) {
        if entry.word.state() == SlotState::Bad {
            line(set, spares, "-", slot, output)?;
        }
    }
    Ok(())
}

fn line(set: &Set, spares: &[Spare], main: &str, slot: u32, output: &mut Output<'_>) -> Result<()> {
    let Some(entry) = set.entries.get(slot as usize) else {
        return Ok(());
    };
    let place = set.slot_place(spares, slot);
    let sector = place.map_or(0, |place| place.sector);
    let state = match entry.word.state() {
        SlotState::Free => "free",
        SlotState::Valid => "valid",
        SlotState::Pending => "pending",
        SlotState::Bad => "bad",
    };
    let origin = match (
        entry.word.is_claim(),
        entry.word.origin(),
        entry.word.is_raw(),
    ) {
        (false, ..) => "-",
        (true, _, true) => "raw",
        (true, Origin::Auto, _) => "auto",
        (true, Origin::Manual, _) => "manual",
    };
    put!(
        output,
        "  {main:>14} {slot:>10} {sector:>14}  {state:8} {origin:7} {}\n",
        show_sequence(entry.generation)
    )
}
