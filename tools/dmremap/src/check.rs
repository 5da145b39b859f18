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
use dm_remap_logic::format::Member;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::slot::SlotState;
use serde::Serialize;

use crate::error::Kind;
use crate::error::Result;
use crate::set::member_of;
use crate::set::read_supers;
use crate::set::CopyFound;
use crate::set::Set;
use crate::set::SlotId;
use crate::set::State;
use crate::set::TableFound;
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
    let refusal = supers.refusal(spares).map(|refusal| refusal.error);
    if let Some(error) = refusal.as_ref().filter(|e| e.kind() != Kind::Damage) {
        return Err(error.clone());
    }
    let mut findings = Findings {
        spares: spares
            .iter()
            .map(|spare| (spare.path().display().to_string(), spare.start()))
            .collect(),
        list: Vec::new(),
    };
    for spare in spares.iter().filter(|spare| spare.is_busy()) {
        let text = format!(
            "{}: in use, so that what was read may be changing meanwhile",
            spare.path().display()
        );
        findings.add(Severity::Note, "in-use", text);
    }
    if let Some(error) = refusal {
        for copy in &supers.copies {
            findings.doubtful(copy);
        }
        findings.add(Severity::Loss, "refused", error.to_string());
        return Ok((findings.report(None), None));
    }
    let set = Set::load_table(spares, supers)?;
    findings.superblocks(&set);
    findings.members(&set);
    findings.table(&set);
    findings.claims(&set);
    findings.reserves(&set);
    for problem in &set.problems {
        findings.add(Severity::Loss, "refused", problem.to_string());
    }
    let uuid = set.superblock.set_uuid.to_string();
    Ok((findings.report(Some(uuid)), Some(set)))
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
        let found = copy.place.and_then(|place| {
            let (name, start) = self.spares.get(place.spare)?;
            Some((name.clone(), start + place.sector))
        });
        let (spare, sector) = found.unzip();
        self.list.push(Finding {
            severity,
            code,
            text: format!("{}: {text}", copy.copy),
            spare,
            sector,
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
            State::True | State::Behind { .. } | State::Void | State::Absent | State::Torn => (),
        }
    }

    fn superblocks(&mut self, set: &Set) {
        let superblock = &set.superblock;
        let used = set.table_epoch();
        let torn = count_torn(set.supers.copies.iter());
        for (copy, said) in set.supers.copies.iter().zip(&set.supers.said) {
            let spare = copy.place.map_or(usize::MAX, |place| place.spare);
            let member = member_of(&set.chosen, spare).and_then(|m| superblock.member(m));
            match copy.state {
                State::Void if member.is_some_and(Member::is_joining) => (),
                State::True | State::Absent | State::Doubtful { .. } => (),
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
                    let epoch = said.as_ref().map_or(0, |said| said.superblock.epoch);
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
        if superblock.is_read_only() {
            let text = "uses features of a later version: it can be read, but not written".into();
            self.add(Severity::Note, "read-only", text);
        }
    }

    fn members(&mut self, set: &Set) {
        let blocks = set.table_blocks();
        for ((index, member), found) in numbered(set).zip(blocks_of(set, &blocks)) {
            let uuid = member.uuid;
            let claims = set.claims.values().filter(|id| id.member == index).count();
            match (set.chosen.spare_of(index), member.missing) {
                (Some(_), false) if member.is_joining() => {
                    let text = format!(
                        "spare {index}, {uuid}, was about to join the set; the next activation ends that"
                    );
                    self.add(Severity::Leftover, "member-joining", text);
                }
                (Some(_), false) => (),
                (Some(_), true) => {
                    let text = format!(
                        "spare {index}, {uuid}, was missing: the next activation takes it back"
                    );
                    self.add(Severity::Leftover, "member-back", text);
                }
                (None, true) if claims == 0 => {
                    let text = format!("spare {index}, {uuid}, is lost; it served nothing");
                    self.add(Severity::Note, "member-lost", text);
                }
                (None, true) => {
                    let text = format!(
                        "spare {index}, {uuid}, is lost, and with it {claims} blocks of main"
                    );
                    self.add(Severity::Loss, "member-lost", text);
                }
                (None, false) => {
                    let text = format!(
                        "spare {index}, {uuid}, is not given: name it, if it is there, for a check of all"
                    );
                    self.add(Severity::Loss, "member-absent", text);
                }
            }
            if found > member.high_water {
                let text = format!(
                    "spare {index}: {found} table blocks are in use, {} by the high-water mark, which a crash kept from being raised",
                    member.high_water
                );
                self.add(Severity::Leftover, "high-water", text);
            }
            for replica in 0..REPLICAS {
                let area = member.areas.get(usize::from(replica));
                let there = area.is_some_and(|area| set.chosen.spare_of(area.host).is_some());
                if !member.replica_lives(replica) && (there || !member.missing) {
                    let text = format!(
                        "replica {replica} of the slot table of spare {index} is void: there is no second copy until the next activation or repair"
                    );
                    self.add(Severity::Damage, "replica-void", text);
                }
            }
            let [a, b] = member.areas;
            if a.host == b.host && superblock_has_others(set, index) {
                let text = format!(
                    "both replicas of the slot table of spare {index} are on spare {}",
                    a.host
                );
                self.add(Severity::Note, "replicas-together", text);
            }
        }
    }

    fn table(&mut self, set: &Set) {
        let superblock = &set.superblock;
        let torn = count_torn(set.table.iter().flat_map(|block| &block.copies));
        let last = set.table.iter().filter_map(|block| block.sequence).max();
        for block in &set.table {
            let member = superblock.member(block.id.member);
            let mark = member.map_or(0, |member| member.high_water);
            // Behind the mark, blocks are made before they count.
            let making = block.id.block >= mark && block.sequence.is_some();
            // Of the last activation, which may have had several epochs, or the last commit.
            let current = !superblock.clean
                && block
                    .sequence
                    .is_some_and(|s| sequence_epoch(s) == superblock.epoch || Some(s) == last);
            for copy in &block.copies {
                match copy.state {
                    State::True | State::Void | State::Absent => (),
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
            self.generations(set, block);
        }
    }

    /// An entry is older than the block that carries it.
    fn generations(&mut self, set: &Set, block: &TableFound) {
        let (Some(sequence), Some(member)) =
            (block.sequence, set.superblock.member(block.id.member))
        else {
            return;
        };
        let (first, end) = member.block_slots(block.id.block);
        for slot in first..end {
            let id = SlotId {
                member: block.id.member,
                slot,
            };
            let generation = set.entry(id).map_or(0, |entry| entry.generation);
            if generation > sequence {
                let text = format!(
                    "{id}: generation {} is newer than its table block, {}",
                    show_sequence(generation),
                    show_sequence(sequence)
                );
                self.add(Severity::Loss, "generation", text);
            }
        }
    }

    fn claims(&mut self, set: &Set) {
        for (loser, winner) in &set.lost_claims {
            let entry = set.entry(*loser).unwrap_or_default();
            let text = format!(
                "{loser} and {winner} both claim block {} of main; the latter is newer, and the former will be freed",
                entry.word.main_block()
            );
            self.add(Severity::Leftover, "double-claim", text);
        }
    }

    fn reserves(&mut self, set: &Set) {
        for (index, member) in numbered(set) {
            for (reserves, replica) in member.reserve.iter().zip(0u8..) {
                let bad = reserves.iter().filter(|r| *r == Reserve::Bad).count();
                let held = reserves.held().count();
                if bad + held > 0 {
                    let free = reserves.iter().filter(|r| *r == Reserve::Free).count();
                    let text = format!(
                        "spare {index}, replica {replica}: {held} table blocks moved to reserve blocks, {bad} reserve blocks bad, {free} left"
                    );
                    self.add(Severity::Note, "reserve", text);
                }
            }
        }
        let count = |state| {
            let slots = set.slots();
            slots
                .filter(|(_, entry)| entry.word.state() == state)
                .count()
        };
        let lost = count(SlotState::Lost);
        if lost > 0 {
            let text = format!("{lost} blocks were lost with a spare that was given up, and are errors until they are written");
            self.add(Severity::Note, "lost-blocks", text);
        }
        let given_up = set.slots().filter(|(_, entry)| entry.word.is_given_up());
        let given_up = given_up.count();
        if given_up > 0 {
            let text = format!("{given_up} blocks were given up, and began as zeroes");
            self.add(Severity::Note, "given-up-blocks", text);
        }
        let avoided = set.superblock.avoided.ranges();
        if !avoided.is_empty() {
            let blocks: u64 = avoided.iter().map(|range| range.count).sum();
            let text = format!(
                "{blocks} blocks of main in {} ranges are not read, and are errors until they are written",
                avoided.len()
            );
            self.add(Severity::Note, "avoided-blocks", text);
        }
        let bad = count(SlotState::Bad);
        if bad > 0 {
            let text = format!("{bad} slots failed and are not used any more");
            self.add(Severity::Note, "bad-slots", text);
        }
    }
}

/// The members of a set, by number.
fn numbered(set: &Set) -> impl Iterator<Item = (u8, &Member)> {
    set.superblock.members()
}

/// What an array by members says of each member that there is.
fn blocks_of<'a>(set: &'a Set, blocks: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
    numbered(set).map(|(index, _)| blocks.get(usize::from(index)).copied().unwrap_or(0))
}

/// Whether there are other members that a replica could lie on.
fn superblock_has_others(set: &Set, index: u8) -> bool {
    numbered(set).any(|(other, member)| other != index && !member.missing)
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
