// SPDX-License-Identifier: GPL-2.0

//! What a single repair was seen to do, and what it may do after that.
//!
//! Nothing here looks into the machine: only at I/O, its results, the clock and the answer.

use std::collections::BTreeMap;

use dm_remap_logic::classify::classify;
use dm_remap_logic::classify::Operation;
use dm_remap_logic::classify::Status;
use dm_remap_logic::classify::Verdict;
use dm_remap_logic::repair::SLOW_MS;

use super::Plan;

#[derive(Clone, Debug)]
pub(super) struct Witness {
    operation: Operation,
    deadline: u64,
    retries: u32,
    /// Whether a try failed, or took long.
    hindered: bool,
    tries: u32,
    /// Whether there was something to be tried.
    pub(super) tryable: bool,
    /// How often blocks have failed by themselves, by their numbers in the bio.
    alone: BTreeMap<usize, u32>,
    /// What was met, as it was met.
    pub(super) errors: Vec<Status>,
    /// One that passes up whatever else happens.
    innocent: Option<Status>,
    /// The run in which several blocks took long to fail.
    slow_run: Option<u32>,
    /// Whether a slot took long to fail.
    slow_slot: bool,
    /// Whether main did not show that it lives.
    pub(super) dead: bool,
    pub(super) distrusted: bool,
    pub(super) placed: bool,
    pub(super) answered: bool,
}

fn is_suspect(operation: Operation, status: Status) -> bool {
    classify(operation, status, false) == Verdict::Suspect
}

impl Witness {
    pub(super) fn new(operation: Operation, failed_at: u64, plan: &Plan) -> Self {
        Witness {
            operation,
            deadline: failed_at + plan.allowance,
            retries: plan.retries,
            hindered: false,
            tries: 0,
            tryable: false,
            alone: BTreeMap::new(),
            errors: Vec::new(),
            innocent: None,
            slow_run: None,
            slow_slot: false,
            dead: false,
            distrusted: false,
            placed: false,
            answered: false,
        }
    }

    pub(super) fn reads(&self) -> bool {
        self.operation == Operation::Read
    }

    /// Another part is served from here on. Of zeroes, which may be many, each has the time of a bio.
    pub(super) fn begins_part(&mut self, deadline: u64) {
        if self.operation == Operation::WriteZeroes {
            self.deadline = deadline;
        }
    }

    fn is_late(&self, now: u64) -> bool {
        self.hindered && now >= self.deadline
    }

    /// Some blocks of a run that begins at block `run` are about to be tried (E7).
    pub(super) fn tries(&mut self, now: u64, run: u32, on_main: bool, count: u32) {
        let hopeless = self.reads() || on_main || self.slow_slot;
        assert!(
            !(self.is_late(now) && hopeless),
            "E7: tried when its time was over"
        );
        let slow = self.slow_run == Some(run);
        assert!(
            !slow || count == 1,
            "E7: a slow failure is met with others again"
        );
        let ends = self.innocent.is_some() && !self.reads();
        assert!(!ends, "P6: tried after an innocent error");
        self.tries += 1;
    }

    /// They were. If `elsewhere`, what was written there has to go elsewhere for another reason than the medium's.
    pub(super) fn tried(
        &mut self,
        (took, run, on_main): (u64, u32, bool),
        (first, count): (u32, u32),
        result: Result<(), Status>,
        elsewhere: bool,
    ) {
        let long = took > SLOW_MS;
        self.hindered |= result.is_err() || long;
        if let Err(status) = result {
            self.errors.push(status);
        }
        if result.is_ok() && !elsewhere {
            return;
        }
        let operation = match self.reads() {
            true => Operation::Read,
            false => Operation::Write,
        };
        let suspect = result.is_err_and(|status| is_suspect(operation, status));
        if !suspect && !elsewhere {
            self.innocent = self.innocent.or(result.err());
            return;
        }
        if long && count > 1 {
            self.slow_run = Some(run);
        }
        self.slow_slot |= long && !on_main;
        if count == 1 {
            let block = (run + first) as usize;
            *self.alone.entry(block).or_default() += 1;
        }
    }

    /// A block is to be moved that is not `known` to be unreadable (P6, E7).
    pub(super) fn moves(&self, now: u64, block: usize, known: bool) {
        assert!(
            self.innocent.is_none(),
            "P6: an innocent error moves blocks"
        );
        let confirmed = self.alone.contains_key(&block) || self.is_late(now);
        assert!(known || confirmed, "P6: block {block} moves unconfirmed");
    }

    /// Whether a block has failed by itself, as often as it had to be tried.
    pub(super) fn is_lost(&self, block: usize) -> bool {
        self.alone.get(&block) == Some(&(1 + self.retries))
    }

    /// The same, or as often as there was time for.
    pub(super) fn may_be_lost(&self, now: u64, block: usize) -> bool {
        self.is_lost(block) || self.failed_alone(block) && self.is_late(now)
    }

    pub(super) fn failed_alone(&self, block: usize) -> bool {
        self.alone.contains_key(&block)
    }

    /// Whether nothing is in the way of reading all that can be read.
    pub(super) fn has_read_all(&self, now: u64) -> bool {
        self.innocent.is_none() && !self.dead && !self.is_late(now)
    }

    /// Whether blocks explain that the bio has failed.
    pub(super) fn is_explained(&self) -> bool {
        !self.alone.is_empty()
    }

    /// The bio is answered; it had failed with `error` when it came.
    pub(super) fn answers(&mut self, status: Result<(), Status>, error: Status) {
        assert!(!self.answered);
        self.answered = true;
        let tried = self.tries != 0 || !self.tryable;
        assert!(tried, "E7: answered without a try");
        match (status, self.innocent) {
            (Ok(()), None) => (),
            (Ok(()), Some(error)) => panic!("P6: {error:?} is kept from the user"),
            (Err(status), Some(innocent)) if !self.reads() => {
                assert_eq!(status, innocent, "P6: an error is changed");
            }
            (Err(status), _) => {
                let known =
                    self.errors.contains(&status) || self.errors.is_empty() && status == error;
                assert!(known, "P6: {status:?} is none of {:?}", self.errors);
            }
        }
    }
}
