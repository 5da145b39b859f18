// SPDX-License-Identifier: GPL-2.0

//! What is wrong with a set, by severity.
//!
//! A crash leaves traces that are no damage: replicas of which one has the last commit and the other
//! one has not, a block that was torn by the interrupted write, superblock copies that the last
//! round of writes did not reach. The next activation mends these before it serves anything. They
//! are told from damage by what a crash can do and nothing more: at most one torn block of each
//! kind, and nothing behind but what the last activation was about to write.

use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::sequence_epoch;
use dm_remap_logic::load::LoadError;
use serde::Serialize;

use crate::error::Error;
use crate::error::Kind;
use crate::error::Result;
use crate::set::names;
use crate::set::no_superblock;
use crate::set::read_supers;
use crate::set::Copy;
use crate::set::CopyFound;
use crate::set::Set;
use crate::set::State;
use crate::spare::Spare;

/// How bad something is. The worst one decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong; worth knowing.
    Note,
    /// The next activation mends it by itself.
    Leftover,
    /// Damage, which good copies make up for: the next activation or `repair` mends it.
    Damage,
    /// Damage that no copy makes up for. The module refuses the set.
    Loss,
}

impl Severity {
    /// The exit status that stands for it.
    pub fn exit_status(self) -> u8 {
        match self {
            Severity::Note => 0,
            Severity::Leftover => 1,
            Severity::Damage => 4,
            Severity::Loss => 8,
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Leftover => "leftover",
            Severity::Damage => "damage",
            Severity::Loss => "loss",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A name for programs.
    pub code: &'static str,
    /// A text for people.
    pub text: String,
    /// The spare that it is on, if it has a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spare: Option<String>,
    /// The sector on that device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sector: Option<u64>,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The set, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// The worst of it.
    pub severity: Severity,
    /// The exit status.
    pub exit_status: u8,
    /// Each thing.
    pub findings: Vec<Finding>,
}

/// Looks at every copy of everything. Fails if there is nothing to look at.
pub fn check(spares: &mut [Spare]) -> Result<(Report, Option<Set>)> {
    let supers = read_supers(spares)?;
    if let Err(error) = &supers.truth {
        let error = no_superblock(&names(spares), error);
        if error.kind() != Kind::Damage {
            return Err(error);
        }
    }
    let mut findings = Findings {
        spares: spares
            .iter()
            .map(|spare| (spare.path().display().to_string(), spare.start()))
            .collect(),
        list: Vec::new(),
    };
    for spare in spares.iter().filter(|spare| spare.is_busy()) {
        findings.add(
            Severity::Note,
            "in-use",
            format!(
                "{}: in use, so that what was read may be changing meanwhile",
                spare.path().display()
            ),
        );
    }
    if let Err(error) = supers.truth {
        for copy in &supers.copies {
            findings.doubtful(copy);
        }
        findings.problem(&error);
        return Ok((findings.report(None), None));
    }
    let set = Set::load_table(spares, supers)?;
    findings.superblocks(&set);
    findings.table(&set);
    findings.claims(&set);
    findings.reserves(&set);
    for problem in &set.problems {
        findings.problem(problem);
    }
    let uuid = set.superblock().set_uuid.to_string();
    Ok((findings.report(Some(uuid)), Some(set)))
}

/// What can be said of a set that has to be in order; an error if it is not.
pub fn refuse_damage(report: &Report, what: &str) -> Result<()> {
    if report.severity < Severity::Loss {
        return Ok(());
    }
    let texts: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Loss)
        .map(|finding| finding.text.as_str())
        .collect();
    Err(Error::damage(format!("{what}: {}", texts.join("; "))))
}

struct Findings {
    spares: Vec<(String, u64)>,
    list: Vec<Finding>,
}

impl Findings {
    fn report(self, set: Option<String>) -> Report {
        let worst = self.list.iter().map(|finding| finding.severity).max();
        let severity = worst.unwrap_or(Severity::Note);
        Report {
            set,
            severity,
            exit_status: severity.exit_status(),
            findings: self.list,
        }
    }

    fn add(&mut self, severity: Severity, code: &'static str, text: String) {
        self.list.push(Finding {
            severity,
            code,
            text,
            spare: None,
            sector: None,
        });
    }

    /// Adds something that has a place.
    fn copy(&mut self, severity: Severity, code: &'static str, copy: &CopyFound, text: &str) {
        let spare = self.spares.get(copy.place.spare);
        self.list.push(Finding {
            severity,
            code,
            text: format!("{}: {text}", copy.copy),
            spare: spare.map(|(name, _)| name.clone()),
            sector: spare.map(|(_, start)| start + copy.place.sector),
        });
    }

    fn doubtful(&mut self, copy: &CopyFound) {
        let code = "superblock";
        match copy.state {
            State::Doubtful { sequence } => {
                let text = format!("whole, sequence {sequence}");
                self.copy(Severity::Note, code, copy, &text);
            }
            State::Unreadable => self.copy(Severity::Damage, code, copy, "unreadable"),
            State::Bad(error) => self.copy(Severity::Damage, code, copy, &error.to_string()),
            State::True | State::Behind { .. } | State::Void | State::Torn => (),
        }
    }

    fn problem(&mut self, error: &LoadError) {
        self.add(Severity::Loss, "refused", error.to_string());
    }

    fn superblocks(&mut self, set: &Set) {
        let superblock = set.superblock();
        let used = set.table_epoch();
        let torn = count_torn(set.supers.copies.iter());
        for (copy, said) in set.supers.copies.iter().zip(&set.supers.said) {
            match copy.state {
                State::True | State::Doubtful { .. } => (),
                State::Void => self.copy(
                    Severity::Leftover,
                    "superblock-void",
                    copy,
                    "written off because it took no writes; the next activation tries it once",
                ),
                State::Unreadable => {
                    self.copy(
                        Severity::Damage,
                        "superblock-unreadable",
                        copy,
                        "unreadable",
                    );
                }
                State::Bad(_) | State::Torn if superblock.epoch == 0 => self.copy(
                    Severity::Leftover,
                    "superblock-new",
                    copy,
                    "not made yet when a crash came",
                ),
                State::Bad(error) => {
                    self.copy(Severity::Damage, "superblock-bad", copy, &error.to_string());
                }
                State::Torn if torn == 1 => self.copy(
                    Severity::Leftover,
                    "superblock-torn",
                    copy,
                    "half written, as a crash leaves it",
                ),
                State::Torn => {
                    self.copy(Severity::Damage, "superblock-bad", copy, "bad checksum");
                }
                State::Behind { sequence } => {
                    let epoch = said.as_ref().map_or(0, |said| said.epoch);
                    // An epoch is in every live copy before it is used.
                    let missed = epoch < superblock.epoch && used == Some(superblock.epoch);
                    let text = format!(
                        "sequence {sequence}, epoch {epoch}; the truth is {}, {}",
                        superblock.sequence, superblock.epoch
                    );
                    if missed {
                        let text = format!("missed writes that it should have: {text}");
                        self.copy(Severity::Damage, "superblock-stale", copy, &text);
                    } else {
                        let text = format!("not reached by the last writes: {text}");
                        self.copy(Severity::Leftover, "superblock-behind", copy, &text);
                    }
                }
            }
        }
        if !superblock.clean {
            self.add(
                Severity::Note,
                "not-clean",
                "the last activation was not ended in order: a crash, or it is still running"
                    .into(),
            );
        }
        let found = u32::try_from(set.table.len()).unwrap_or(u32::MAX);
        if found > superblock.high_water {
            let text = format!(
                "{found} table blocks are in use, {} by the high-water mark, which a crash kept from being raised",
                superblock.high_water
            );
            self.add(Severity::Leftover, "high-water", text);
        }
        if superblock.is_read_only() {
            let text = "uses features of a later version: it can be read, but not written".into();
            self.add(Severity::Note, "read-only", text);
        }
    }

    fn table(&mut self, set: &Set) {
        let superblock = set.superblock();
        for replica in 0..2 {
            if !superblock.replica_lives(replica) {
                let text =
                    format!("replica {replica} of the slot table is void: there is no second copy");
                self.add(Severity::Damage, "replica-void", text);
            }
        }
        let torn = count_torn(set.table.iter().flat_map(|block| &block.copies));
        let last = set.table.iter().filter_map(|block| block.sequence).max();
        for (block, number) in set.table.iter().zip(0u32..) {
            // Behind the mark, blocks are made before they count.
            let making = number >= superblock.high_water && block.sequence.is_some();
            // Of the last activation, which may have had several epochs, or the last commit.
            let current = !superblock.clean
                && block
                    .sequence
                    .is_some_and(|s| sequence_epoch(s) == superblock.epoch || Some(s) == last);
            for copy in &block.copies {
                match copy.state {
                    State::True | State::Void => (),
                    State::Doubtful { sequence } => {
                        let text = format!("whole, sequence {sequence}");
                        self.copy(Severity::Note, "table-doubtful", copy, &text);
                    }
                    _ if making => self.copy(
                        Severity::Leftover,
                        "table-new",
                        copy,
                        "not made yet when a crash came",
                    ),
                    State::Torn if torn == 1 && !superblock.clean => self.copy(
                        Severity::Leftover,
                        "table-torn",
                        copy,
                        "half written, as a crash leaves it",
                    ),
                    State::Torn => self.copy(Severity::Damage, "table-bad", copy, "bad checksum"),
                    State::Bad(error) => {
                        self.copy(Severity::Damage, "table-bad", copy, &error.to_string());
                    }
                    State::Unreadable => {
                        self.copy(Severity::Damage, "table-unreadable", copy, "unreadable");
                    }
                    State::Behind { sequence } => {
                        let truth = block.sequence.map_or_else(String::new, show_sequence);
                        let text =
                            format!("sequence {}, the truth is {truth}", show_sequence(sequence));
                        if current {
                            let text = format!("lacks the last commit: {text}");
                            self.copy(Severity::Leftover, "table-behind", copy, &text);
                        } else {
                            let text = format!("missed a write that it should have: {text}");
                            self.copy(Severity::Damage, "table-stale", copy, &text);
                        }
                    }
                }
            }
            self.generations(set, number, block.sequence);
        }
    }

    /// An entry is older than the block that carries it.
    fn generations(&mut self, set: &Set, block: u32, sequence: Option<u64>) {
        let Some(sequence) = sequence else {
            return;
        };
        let (first, end) = set.superblock().geometry.block_slots(block);
        let entries = set.entries.iter().skip(first as usize);
        for (slot, entry) in (first..end).zip(entries) {
            if entry.generation > sequence {
                let text = format!(
                    "slot {slot}: generation {} is newer than its table block, {}",
                    show_sequence(entry.generation),
                    show_sequence(sequence)
                );
                self.add(Severity::Loss, "generation", text);
            }
        }
    }

    fn claims(&mut self, set: &Set) {
        for (loser, winner) in &set.lost_claims {
            let main_block = set
                .entries
                .get(*loser as usize)
                .map_or(0, |entry| entry.word.main_block());
            let text = format!(
                "slots {loser} and {winner} both claim block {main_block} of main; {winner} is newer, and {loser} will be freed"
            );
            self.add(Severity::Leftover, "double-claim", text);
        }
    }

    fn reserves(&mut self, set: &Set) {
        let superblock = set.superblock();
        for (reserves, replica) in superblock.reserve.iter().zip(0u8..) {
            let bad = reserves.iter().filter(|r| *r == Reserve::Bad).count();
            let held = reserves.held().count();
            if bad + held > 0 {
                let free = reserves.iter().filter(|r| *r == Reserve::Free).count();
                let text = format!(
                    "replica {replica}: {held} table blocks moved to reserve blocks, {bad} reserve blocks bad, {free} left"
                );
                self.add(Severity::Note, "reserve", text);
            }
        }
        let slots = set.entries.iter();
        let bad = slots
            .filter(|e| e.word.state() == dm_remap_logic::slot::State::Bad)
            .count();
        if bad > 0 {
            let text = format!("{bad} slots failed and are not used any more");
            self.add(Severity::Note, "bad-slots", text);
        }
    }
}

fn count_torn<'a>(copies: impl Iterator<Item = &'a CopyFound>) -> usize {
    copies.filter(|copy| copy.state == State::Torn).count()
}

/// A sequence as people read it: epoch and counter.
pub fn show_sequence(sequence: u64) -> String {
    format!(
        "{}.{}",
        sequence_epoch(sequence),
        sequence & ((1 << 40) - 1)
    )
}

/// The copies that the next activation or `repair` would write anew.
pub fn to_mend(set: &Set) -> impl Iterator<Item = Copy> + '_ {
    let supers = set.supers.copies.iter();
    let table = set.table.iter().flat_map(|block| &block.copies);
    supers
        .chain(table)
        .filter(|copy| !matches!(copy.state, State::True | State::Void))
        .map(|copy| copy.copy)
}
