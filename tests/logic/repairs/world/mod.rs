// SPDX-License-Identifier: GPL-2.0

//! Main, spares, the map, users and repairers, and a clock of their own.
//!
//! What surrounds the machine is as simple as can be: a map of blocks, slots that are taken one by one, a commit that
//! works or leaves its entries in doubt. Each step of each repairer, and each bio on its way there and back, ends when
//! its time has come; of those that end at the same time, any may be the first.

mod filler;
mod placing;
mod steps;
mod users;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use dm_remap_logic::breaker::Breaker;
use dm_remap_logic::classify::Operation;
use dm_remap_logic::classify::Status;
use dm_remap_logic::desk;
use dm_remap_logic::desk::Desk;
use dm_remap_logic::desk::Range;
use dm_remap_logic::repair::Answer;
use dm_remap_logic::repair::Bio;
use dm_remap_logic::repair::Now;
use dm_remap_logic::repair::Repair;
use dm_remap_logic::repair::Step;
use dm_remap_logic::repair::Way;
use dm_remap_logic::repair::CHUNK_BLOCKS;
use dm_remap_logic::table::Run;
use dm_remap_logic::table::RunKind;

use super::medium::Io;
use super::medium::Medium;
use super::witness::Witness;
use super::Plan;

use super::super::random::Random;

/// Sectors of a block: so few blocks are in a region that repairers meet at the desk.
const BLOCK_SECTORS: u64 = 512;

/// How many slots a spare can have.
const STRIDE: u32 = 1000;

/// The version that main has of a block that is elsewhere.
const OLD: u64 = 0xbad;

/// A slot of a member.
pub(super) fn slot_of(member: usize, number: usize) -> u32 {
    member as u32 * STRIDE + number as u32
}

fn split(slot: u32) -> (usize, usize) {
    ((slot / STRIDE) as usize, (slot % STRIDE) as usize)
}

/// What a block holds after the write number `version`: no neighbour's is the same.
fn content(block: usize, version: u64) -> u64 {
    version << 16 | block as u64
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Valid,
    Pending,
    Lost,
}

/// The slot that a block has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remap {
    pub(super) slot: u32,
    pub(super) held: Held,
    pub(super) doubt: bool,
    pub(super) failing: bool,
}

#[derive(Debug)]
enum Phase {
    /// On its way; to a slot, or to main.
    Sent {
        io: Io,
        slot: Option<u32>,
        ends: u64,
    },
    Queued,
    Served,
    Answered,
}

/// A user's bio.
#[derive(Debug)]
pub(super) struct Request {
    operation: Operation,
    first: usize,
    count: usize,
    fua: bool,
    version: u64,
    /// When it was sent, or its turn came.
    since: u64,
    failed_at: Option<u64>,
    error: Status,
    member: Option<usize>,
    probes: bool,
    data: Vec<Option<u64>>,
    phase: Phase,
    pub(super) status: Option<Result<(), Status>>,
}

/// How long a try took, of which run, and whether on main; its blocks; and how it ended.
type Tried = ((u64, u32, bool), (u32, u32), Result<(), Status>);

/// Somebody who serves a bio.
#[derive(Debug)]
struct Repairer {
    request: usize,
    job: usize,
    machine: Repair<Status>,
    witness: Witness,
    step: Step<Status>,
    io: Option<Io>,
    /// A write to a slot that has failed, and where it belongs.
    asks: Option<Tried>,
    ends: u64,
    steps: u32,
    moves: Vec<usize>,
    /// Blocks whose data is on slots, and slots that have failed, since the last commit.
    placed: Vec<(usize, u32)>,
    retired: Vec<u32>,
    /// Whether it has moved blocks from main that were not known to be bad.
    counted: bool,
    unreadable: Vec<(usize, bool)>,
    weak: Vec<usize>,
}

pub(super) struct World {
    plan: Plan,
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) main: Medium,
    pub(super) spares: Vec<Medium>,
    /// Since when main is smaller than it was.
    pub(super) shrunk: Option<u64>,
    pub(super) map: BTreeMap<usize, Remap>,
    pub(super) free: BTreeSet<u32>,
    /// Slots that are written off.
    pub(super) bad: BTreeSet<u32>,
    /// Where slots are taken next.
    cursor: u32,
    /// Members of which none are taken as long as others have some.
    resting: BTreeSet<usize>,
    pub(super) notes: BTreeSet<usize>,
    /// Blocks that main is not to be read for.
    pub(super) avoided: BTreeSet<usize>,
    /// Since when the set goes on without a spare.
    lost: Vec<Option<u64>>,
    /// Blocks that were written there after that.
    in_vain: BTreeSet<usize>,
    breakers: [Breaker; 2],
    /// When the latest I/O of a repairer's that succeeded on main began.
    proven: [Option<u64>; 2],
    desk: Desk,
    pub(super) requests: Vec<Request>,
    crew: Vec<Option<Repairer>>,
    /// What a read of each block may give.
    allowed: Vec<BTreeSet<u64>>,
    /// When a write to main has succeeded last, and how many bios have moved blocks since that failed later.
    written_at: u64,
    moved_since: u32,
    pub(super) moved: u32,
    /// How often each step was asked for.
    pub(super) seen: BTreeMap<String, u32>,
}

impl World {
    pub(super) fn new(plan: Plan, seed: u64) -> Self {
        let main: Vec<u64> = (0..plan.blocks).map(|block| content(block, 0)).collect();
        let members = 0..plan.spares;
        World {
            now: 100_000,
            random: Random::new(seed),
            allowed: main.iter().map(|value| BTreeSet::from([*value])).collect(),
            main: Medium::new(main),
            spares: members
                .clone()
                .map(|_| Medium::new(vec![u64::MAX; plan.slots]))
                .collect(),
            shrunk: None,
            map: BTreeMap::new(),
            free: members
                .flat_map(|member| (0..plan.slots).map(move |slot| slot_of(member, slot)))
                .collect(),
            bad: BTreeSet::new(),
            cursor: 0,
            resting: BTreeSet::new(),
            notes: BTreeSet::new(),
            avoided: BTreeSet::new(),
            lost: vec![None; plan.spares],
            in_vain: BTreeSet::new(),
            breakers: [Breaker::default(); 2],
            proven: [None; 2],
            desk: Desk::new(),
            requests: Vec::new(),
            crew: (0..plan.crew).map(|_| None).collect(),
            written_at: 0,
            moved_since: 0,
            moved: 0,
            seen: BTreeMap::new(),
            plan,
        }
    }

    /// Gives a block a slot, as if that had been done before.
    pub(super) fn preset(&mut self, block: usize, slot: u32, held: Held, failing: bool) {
        assert!(self.free.remove(&slot));
        let (member, number) = split(slot);
        if held == Held::Valid {
            let io = self.spares[member].begin(true, number, 1, &mut self.random);
            self.spares[member].end(&io, &mut [Some(content(block, 0))], true);
        }
        if held == Held::Lost {
            self.allowed[block].clear();
        }
        if held != Held::Pending {
            // What main has there is old.
            let io = self.main.begin(true, block, 1, &mut self.random);
            self.main.end(&io, &mut [Some(content(block, OLD))], true);
        }
        let doubt = false;
        self.map.insert(
            block,
            Remap {
                slot,
                held,
                doubt,
                failing,
            },
        );
    }

    fn is_lost(&self, member: usize) -> bool {
        self.lost[member].is_some()
    }

    /// Whether the set goes on without a spare, which may be found out now.
    pub(super) fn is_gone(&mut self, member: usize) -> bool {
        if self.lost[member].is_none() && self.is_dead(member) {
            self.lost[member] = Some(self.now);
        }
        self.is_lost(member)
    }

    fn has_slots(&self) -> bool {
        self.free.iter().any(|slot| !self.is_lost(split(*slot).0))
    }

    /// How a range is served, as far as it is in one way.
    fn run(&self, first: usize, count: usize) -> Run {
        let kind = |block: usize| match self.map.get(&block) {
            None if self.avoided.contains(&block) => RunKind::Avoided,
            None => RunKind::Main,
            Some(remap) if remap.held == Held::Pending && self.avoided.contains(&block) => {
                RunKind::Avoided
            }
            Some(remap) if remap.doubt => RunKind::Doubt,
            Some(remap) => {
                let first = remap.slot;
                match remap.held {
                    Held::Pending => RunKind::Pending { first },
                    Held::Lost => RunKind::Lost { first },
                    Held::Valid if remap.failing => RunKind::Failing { first },
                    Held::Valid => RunKind::Slots { first },
                }
            }
        };
        let own = kind(first);
        let slot = |kind| match kind {
            RunKind::Pending { first }
            | RunKind::Lost { first }
            | RunKind::Failing { first }
            | RunKind::Slots { first } => Some(first),
            _ => None,
        };
        let alike = |more: usize| {
            let next = kind(first + more);
            std::mem::discriminant(&next) == std::mem::discriminant(&own)
                && slot(next) == slot(own).map(|slot| slot + more as u32)
        };
        let count = 1 + (1..count).take_while(|more| alike(*more)).count();
        Run {
            kind: own,
            count: count as u32,
        }
    }

    /// Whether a bio can be sent there without meeting another one.
    pub(super) fn is_idle(&self, first: usize, count: usize) -> bool {
        self.requests.iter().all(|request| {
            let apart = first + count <= request.first || request.first + request.count <= first;
            apart || matches!(request.phase, Phase::Answered)
        })
    }

    /// Lets whatever ends next end. False if nothing is under way.
    pub(super) fn go_on(&mut self) -> bool {
        self.dispatch();
        let sent = self
            .requests
            .iter()
            .enumerate()
            .filter_map(|(number, request)| match request.phase {
                Phase::Sent { ends, .. } => Some((ends, false, number)),
                _ => None,
            });
        let crew = self.crew.iter().enumerate();
        let served =
            crew.filter_map(|(number, repairer)| Some((repairer.as_ref()?.ends, true, number)));
        let all: Vec<(u64, bool, usize)> = sent.chain(served).collect();
        let Some(soonest) = all.iter().map(|(ends, ..)| *ends).min() else {
            return false;
        };
        let next: Vec<_> = all.iter().filter(|(ends, ..)| *ends == soonest).collect();
        let (_, is_step, number) = *next[self.random.below(next.len() as u64) as usize];
        self.now = self.now.max(soonest);
        match is_step {
            true => self.end_step(number),
            false => self.end_sent(number),
        }
        if self.random.once_in(8) {
            self.set_noted_aside();
            self.resting.clear();
        }
        true
    }

    fn dispatch(&mut self) {
        for number in 0..self.requests.len() {
            let Some(place) = self.crew.iter().position(Option::is_none) else {
                return;
            };
            let request = &mut self.requests[number];
            if !matches!(request.phase, Phase::Queued) {
                continue;
            }
            let sectors = request.count as u32 * BLOCK_SECTORS as u32;
            let range = Range::new(request.first as u64 * BLOCK_SECTORS, sectors);
            let Some(job) = self.desk.start(range, desk::Bio::Failed) else {
                continue;
            };
            request.phase = Phase::Served;
            request.since = self.now;
            let bio = Bio {
                operation: request.operation,
                blocks: request.count as u32,
                // Some have little memory.
                part: [CHUNK_BLOCKS, 3][number % 2],
                fua: request.fua,
                failed_at: request.failed_at,
                error: request.error,
                on_spare: request.member.is_some(),
                probes: request.probes,
            };
            let failed_at = request.failed_at.unwrap_or(self.now);
            let mut repairer = Repairer {
                request: number,
                job,
                machine: Repair::new(bio, self.now, self.plan.allowance),
                witness: Witness::new(request.operation, failed_at, &self.plan),
                step: Step::Done,
                io: None,
                asks: None,
                ends: self.now,
                steps: 0,
                moves: Vec::new(),
                placed: Vec::new(),
                retired: Vec::new(),
                counted: false,
                unreadable: Vec::new(),
                weak: Vec::new(),
            };
            self.begin_step(&mut repairer, Answer::Good);
            self.crew[place] = Some(repairer);
        }
    }

    fn what_is(&self) -> Now {
        Now {
            ms: self.now,
            auto_remap: self.plan.auto_remap,
            slots_left: self.has_slots(),
            read_retries: self.plan.retries,
        }
    }

    /// Something has succeeded on main.
    fn prove(&mut self, way: Way, begun: u64) {
        let proven = &mut self.proven[way as usize];
        *proven = (*proven).max(Some(begun));
        self.breakers[way as usize].proven();
        if way == Way::Write {
            (self.written_at, self.moved_since) = (self.now, 0);
        }
    }

    /// Whether a spare does not work while another one does.
    fn is_dead(&self, member: usize) -> bool {
        let dead = |spare: &Medium| spare.whole.is_some_and(|sick| sick.reads);
        let mut others = self.spares.iter().zip(&self.lost).enumerate();
        dead(&self.spares[member])
            && others
                .any(|(other, (spare, lost))| other != member && lost.is_none() && !dead(spare))
    }
}

/// The first slot of a run that slots serve.
fn slot_in(kind: RunKind) -> Option<u32> {
    match kind {
        RunKind::Slots { first } | RunKind::Failing { first } => Some(first),
        _ => None,
    }
}
