// SPDX-License-Identifier: GPL-2.0

//! `dmremap dump`.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Seek;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Place;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;

use crate::check::show_sequence;
use crate::cli::Output;
use crate::cli::Spares;
use crate::dump;
use crate::dump::StatisticsSaid;
use crate::error::Error;
use crate::error::Result;
use crate::identity::Identity;
use crate::put;
use crate::save::Replacement;
use crate::set::CopyFound;
use crate::set::Set;
use crate::set::SlotId;
use crate::set::State;
use crate::spare::Access;
use crate::spare::Part;
use crate::spare::Spare;

const MORE: &str = "\
The text is for people and may change. The JSON has a version and holds everything that \
dmremap restore needs to write the metadata anew: keep one beside your backups, and make \
a new one now and then: with --output, the last one stays until all of the new one is on disk, \
and stays if that one would lack something.

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

    /// Write it to this file, which is replaced once all of the new one is on disk
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Replace that file even if it is something else, or has what this dump lacks
    #[arg(long, requires = "output")]
    force: bool,
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
        match &self.output {
            None => self.print(&set, &spares, output)?,
            Some(path) => {
                if !self.force {
                    check_old(path, &set)?;
                }
                refuse_spare(path, &spares)?;
                let mut file = Replacement::new(path)?;
                let mut inner = Output {
                    out: &mut file,
                    err: output.err,
                };
                let printed = self.print(&set, &spares, &mut inner);
                // The file knows better what went wrong with it.
                if printed.is_ok() || file.has_failed() {
                    file.finish()?;
                }
                printed?;
            }
        }
        Ok(if set.problems.is_empty() { 0 } else { 8 })
    }

    fn print(&self, set: &Set, spares: &[Spare], output: &mut Output<'_>) -> Result<()> {
        match self.json {
            true => json(set, output),
            false => text(set, spares, output),
        }
    }
}

/// Even whoever insists does not mean that.
fn refuse_spare(path: &Path, spares: &[Spare]) -> Result<()> {
    let Ok(file) = Identity::of(path, Part::default()) else {
        // There is nothing yet.
        return Ok(());
    };
    for spare in spares {
        if file.meets(&Identity::of(spare.path(), Part::default())?) {
            return Err(Error::usage(format!(
                "{}: --output is the spare itself",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Refuses to replace what is no dump of this set, or has more in it than the new one.
fn check_old(path: &Path, set: &Set) -> Result<()> {
    let name = path.display();
    let found = match fs::metadata(path) {
        Ok(found) if found.is_file() => found,
        // Nothing, or what is refused whatever is in it.
        _ => return Ok(()),
    };
    if found.len() == 0 {
        return Ok(());
    }
    let superblock = &set.superblock;
    let Some(old) = Head::read(path)? else {
        return Err(Error::usage(format!(
            "{name}: no dump of this set, and not replaced: give another name, or --force"
        )));
    };
    if old.uuid != superblock.set_uuid.to_string() {
        return Err(Error::usage(format!(
            "{name}: a dump of set {}, and not replaced by one of {}: give another name, or --force",
            old.uuid, superblock.set_uuid
        )));
    }
    if !set.problems.is_empty() {
        return Err(Error::damage(format!(
            "{name}: the last dump is kept, as the new one lacks what is damaged; \
             give another name, or --force"
        )));
    }
    if (old.set_epoch, old.sequence) > (superblock.set_epoch, superblock.sequence) {
        return Err(Error::damage(format!(
            "{name}: the last dump is kept, as it is newer than what is on the spare (superblock \
             sequence {} to {}): give another name, or --force",
            old.sequence, superblock.sequence
        )));
    }
    Ok(())
}

/// What a dump begins with, in either form.
#[derive(Debug)]
struct Head {
    uuid: String,
    set_epoch: u64,
    sequence: u64,
}

impl Head {
    /// None if the file is no dump.
    fn read(path: &Path) -> Result<Option<Self>> {
        let failed = |error: io::Error| Error::io(path, "read it", &error);
        let mut start = [0; 512];
        let mut len = 0;
        let mut file = File::open(path).map_err(failed)?;
        while let Some(room) = start.get_mut(len..).filter(|room| !room.is_empty()) {
            match file.read(room).map_err(failed)? {
                0 => break,
                more => len += more,
            }
        }
        let start = String::from_utf8_lossy(start.get(..len).unwrap_or(&[]));
        if !start.trim_start().starts_with('{') {
            return Ok(Self::of_text(&start));
        }
        file.rewind().map_err(failed)?;
        Ok(dump::head(BufReader::new(file)).map(|said| Self {
            uuid: said.uuid,
            set_epoch: said.set_epoch,
            sequence: said.sequence,
        }))
    }

    /// The counterpart of [`text`].
    fn of_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let uuid = lines.next()?.strip_prefix("set ")?;
        let mut words = lines.next()?.split([' ', ',']);
        words.find(|word| *word == "sequence")?;
        let sequence = words.next()?.parse().ok()?;
        let set_epoch = words.next_back()?.parse().ok()?;
        Some(Self {
            uuid: uuid.into(),
            set_epoch,
            sequence,
        })
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
    let superblock = &set.superblock;
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
    if let Some(on) = superblock.switches.auto_remap {
        let on = if on { "on" } else { "off" };
        put!(output, "  switches     auto_remap {on}\n")?;
    }
    for range in superblock.avoided.ranges() {
        let sectors = |blocks: u64| blocks * set.slot_sectors();
        let (first, count) = (sectors(range.first), sectors(range.count));
        put!(
            output,
            "  avoided      {count} sectors from {first} on: main is not read there\n"
        )?;
    }
    for (index, member) in superblock.members() {
        let number = set.chosen.spare_of(index).map(usize::from);
        let spare = number.and_then(|number| spares.get(number));
        member_text(set, index, member, spare, output)?;
        if let Some(number) = number {
            supers_text(set, number, spare, output)?;
        }
        tables_text(set, spares, index, member, output)?;
    }
    put!(output, "\nstatistics\n")?;
    for (name, value) in StatisticsSaid::from(superblock.statistics).list() {
        put!(output, "  {:20} {value}\n", name.replace('_', " "))?;
    }
    slots(set, spares, output)
}

fn member_text(
    set: &Set,
    index: u8,
    member: &Member,
    spare: Option<&Spare>,
    output: &mut Output<'_>,
) -> Result<()> {
    let geometry = &member.geometry;
    let name = spare.map_or("not given".into(), |s| s.path().display().to_string());
    let missing = match member.missing {
        true => " (the set goes on without it)",
        false => "",
    };
    put!(
        output,
        "\nspare {index}, {}: {name}{missing}\n",
        member.uuid
    )?;
    let start = spare.map_or(0, Spare::start);
    put!(
        output,
        "  window       from sector {start}, {} sectors\n",
        geometry.window_sectors()
    )?;
    put!(
        output,
        "  data         from sector {}, {} slots of {} bytes, aligned to {} sectors\n",
        start + geometry.data_start(),
        member.slots,
        set.superblock.main_block_bytes,
        geometry.align_sectors()
    )
}

fn supers_text(
    set: &Set,
    number: usize,
    spare: Option<&Spare>,
    output: &mut Output<'_>,
) -> Result<()> {
    let start = spare.map_or(0, Spare::start);
    put!(output, "  superblock copies\n")?;
    for (found, said) in set.supers.copies.iter().zip(&set.supers.said) {
        let Some(place) = found.place.filter(|place| place.spare == number) else {
            continue;
        };
        let sequence = said.as_ref().map_or_else(String::new, |said| {
            format!("sequence {}, ", said.superblock.sequence)
        });
        put!(
            output,
            "    {:14} sector {:<12} {sequence}{}\n",
            found.copy.to_string().replace("superblock ", ""),
            start + place.sector,
            show_super(found)
        )?;
    }
    Ok(())
}

fn tables_text(
    set: &Set,
    spares: &[Spare],
    index: u8,
    member: &Member,
    output: &mut Output<'_>,
) -> Result<()> {
    let used = set.table_blocks();
    put!(
        output,
        "  slot table   {} of {} blocks in use, high-water mark {}\n",
        used.get(usize::from(index)).copied().unwrap_or(0),
        member.table_blocks(),
        member.high_water
    )?;
    for (replica, area) in (0u8..).zip(&member.areas) {
        let at = |sector| sector_text(set, spares, area.host, sector);
        let copies = || {
            let own = set
                .table
                .iter()
                .filter(move |found| found.id.member == index);
            own.filter_map(move |found| found.copies.get(usize::from(replica)))
        };
        let good = copies().filter(|copy| copy.state == State::True).count();
        let void = match member.replica_lives(replica) {
            true => "",
            false => " (void: nobody looks at it)",
        };
        put!(
            output,
            "    replica {replica}    from {}: {good} blocks true{void}\n",
            at(area.table)
        )?;
        for copy in copies().filter(|copy| copy.state.is_to_be_rewritten()) {
            let place = copy
                .place
                .and_then(|place| Some(spares.get(place.spare)?.start() + place.sector));
            put!(
                output,
                "      {}: sector {}: {}\n",
                copy.copy,
                place.unwrap_or(0),
                show_state(copy)
            )?;
        }
        let Some(reserves) = member.reserve.get(usize::from(replica)) else {
            continue;
        };
        let free = reserves.iter().filter(|r| *r == Reserve::Free).count();
        put!(
            output,
            "    reserve      from {}: {free} blocks free\n",
            at(area.reserve)
        )?;
        for (reserve, number) in reserves.iter().zip(0u8..) {
            match reserve {
                Reserve::Free => (),
                Reserve::Bad => put!(output, "      reserve block {number} is bad\n")?,
                Reserve::Holds { block, home_bad } => {
                    let home = match home_bad {
                        true => "bad",
                        false => "good",
                    };
                    put!(
                        output,
                        "      reserve block {number} holds table block {block}, whose own place is {home}\n"
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// A sector in the window of a member: on its device, and on which, if that is another one.
fn sector_text(set: &Set, spares: &[Spare], host: u8, sector: u64) -> String {
    let place = set.place(Place {
        member: host,
        sector,
    });
    let spare = place.and_then(|place| spares.get(place.spare));
    match spare {
        Some(spare) => format!("sector {} of spare {host}", spare.start() + sector),
        None => format!("sector {sector} of spare {host}, which is not given"),
    }
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
        State::Absent => "not there".into(),
        State::Unreadable => "unreadable".into(),
        State::Torn => "half written, as a crash leaves it".into(),
        State::Bad(error) => error.to_string(),
        State::Doubtful { sequence } => {
            format!("whole, {}, but not to be believed", show_sequence(sequence))
        }
    }
}

fn slots(set: &Set, spares: &[Spare], output: &mut Output<'_>) -> Result<()> {
    let count = |state| {
        let slots = set.slots();
        slots
            .filter(|(_, entry)| entry.word.state() == state)
            .count()
    };
    let members = set.superblock.members();
    let all: u64 = members.map(|(_, member)| u64::from(member.slots)).sum();
    put!(
        output,
        "\nslots: {} hold data, {} set aside for unreadable sectors, {} bad, of {all}\n",
        count(SlotState::Valid),
        count(SlotState::Pending),
        count(SlotState::Bad),
    )?;
    let lost = count(SlotState::Lost);
    if lost != 0 {
        put!(
            output,
            "  and {lost} for sectors that were lost with a spare that was given up\n"
        )?;
    }
    if set.claims.is_empty() && count(SlotState::Bad) == 0 {
        return Ok(());
    }
    put!(
        output,
        "  {:>14} {:>6} {:>10} {:>14}  {:8} {:7} {}\n",
        "main sector",
        "spare",
        "slot",
        "spare sector",
        "state",
        "origin",
        "generation"
    )?;
    for (main_block, id) in &set.claims {
        let sector = main_block * set.slot_sectors();
        line(set, spares, &sector.to_string(), *id, output)?;
    }
    for (loser, _) in &set.lost_claims {
        line(set, spares, "(superseded)", *loser, output)?;
    }
    for (id, entry) in set.slots() {
        if entry.word.state() == SlotState::Bad {
            line(set, spares, "-", id, output)?;
        }
    }
    Ok(())
}

fn line(
    set: &Set,
    spares: &[Spare],
    main: &str,
    id: SlotId,
    output: &mut Output<'_>,
) -> Result<()> {
    let entry = set.entry(id).unwrap_or_default();
    let place = set.slot_place(spares, id);
    let sector = place.map_or("not given".into(), |place| place.sector.to_string());
    let state = match entry.word.state() {
        SlotState::Free => "free",
        SlotState::Valid => "valid",
        SlotState::Pending => "pending",
        SlotState::Bad => "bad",
        SlotState::Lost => "lost",
    };
    let origin = match (
        entry.word.is_claim(),
        entry.word.origin(),
        entry.word.is_raw(),
    ) {
        (false, ..) => "-",
        (true, _, true) => "raw",
        (true, Origin::Auto, _) => "auto",
        (true, Origin::Manual, _) if entry.word.is_given_up() => "zeroed",
        (true, Origin::Manual, _) => "manual",
    };
    put!(
        output,
        "  {main:>14} {:>6} {:>10} {sector:>14}  {state:8} {origin:7} {}\n",
        id.member,
        id.slot,
        show_sequence(entry.generation)
    )
}
