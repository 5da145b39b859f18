// SPDX-License-Identifier: GPL-2.0

//! What the machine asks for, and that it may.

use dm_remap_logic::classify::Operation;
use dm_remap_logic::classify::Status;
use dm_remap_logic::repair::Answer;
use dm_remap_logic::repair::Found;
use dm_remap_logic::repair::Step;
use dm_remap_logic::repair::Try;
use dm_remap_logic::repair::Way;
use dm_remap_logic::table::RunKind;

use super::slot_in;
use super::split;
use super::Held;
use super::Repairer;
use super::Request;
use super::World;

/// How many blocks are placed before there has to be a commit.
const PLACED_MAX: usize = 5;

impl World {
    pub(super) fn end_step(&mut self, place: usize) {
        let Some(mut repairer) = self.crew[place].take() else {
            return;
        };
        let answer = self.finish_step(&mut repairer);
        if matches!(repairer.step, Step::Done) {
            self.desk.end(repairer.job);
            let request = &self.requests[repairer.request];
            assert!(request.status.is_some(), "P10: a bio is never answered");
            return;
        }
        self.begin_step(&mut repairer, answer);
        self.crew[place] = Some(repairer);
    }

    pub(super) fn begin_step(&mut self, repairer: &mut Repairer, answer: Answer<Status>) {
        repairer.steps += 1;
        assert!(repairer.steps < 10_000, "the machine does not end");
        let before = std::mem::replace(&mut repairer.step, Step::Done);
        repairer.step = repairer.machine.advance(self.what_is(), answer);
        if let (Step::Place | Step::Commit, Step::Look { .. }) = (before, repairer.step) {
            let deadline = self.now + self.plan.allowance;
            repairer.witness.begins_part(deadline);
        }
        repairer.io = None;
        let name = format!("{:?}", repairer.step);
        let name = name.split([' ', '(']).next().unwrap_or_default();
        *self.seen.entry(name.to_owned()).or_default() += 1;
        let takes = match repairer.step {
            Step::Read(part) => self.send(repairer, part, false),
            Step::Write(part) => self.send(repairer, part, true),
            Step::Probe(_) | Step::Place | Step::Commit | Step::Flush | Step::Settle { .. } => {
                self.random.below(40)
            }
            _ => 0,
        };
        repairer.ends = self.now + takes;
    }

    /// Begins to read or write a part of a run.
    fn send(&mut self, repairer: &mut Repairer, part: Try, write: bool) -> u64 {
        let (first, count) = (part.part.first as usize, part.part.count as usize);
        let slot = slot_in(part.kind);
        let witness = &mut repairer.witness;
        witness.tries(self.now, part.at, slot.is_none(), part.part.count);
        assert!(!witness.answered, "P10: I/O for a bio that was answered");
        let io = match slot.map(split) {
            Some((member, _)) if write && self.is_lost(member) => return 0,
            Some((member, number)) => {
                self.spares[member].begin(write, number + first, count, &mut self.random)
            }
            None => {
                let start = self.requests[repairer.request].first + part.at as usize + first;
                let mut blocks = start..start + count;
                let avoided = blocks.any(|block| self.avoided.contains(&block));
                assert!(!avoided, "E4: main is asked for what is avoided");
                self.main.begin(write, start, count, &mut self.random)
            }
        };
        let takes = io.takes;
        repairer.io = Some(io);
        takes
    }

    /// An I/O has come back.
    fn receive(&mut self, repairer: &mut Repairer, part: Try) -> Answer<Status> {
        let slot = slot_in(part.kind);
        let request = &mut self.requests[repairer.request];
        let begins = (part.at + part.part.first) as usize;
        let first = request.first + begins;
        let data = &mut request.data[begins..begins + part.part.count as usize];
        let member = slot.map(|slot| split(slot).0);
        let result = match &repairer.io {
            // There is nothing there.
            None => Err(Status::IoErr),
            Some(io) => {
                let medium = match member {
                    Some(member) => &mut self.spares[member],
                    None => &mut self.main,
                };
                medium.end(io, data, request.fua);
                io.result
            }
        };
        let write = !repairer.witness.reads();
        let took = repairer.io.as_ref().map_or(0, |io| io.takes);
        if let (Ok(()), None) = (result, member) {
            let way = if write { Way::Write } else { Way::Read };
            self.prove(way, self.now - took);
        }
        let in_vain = write && member.is_some_and(|member| self.is_lost(member));
        if in_vain && result.is_ok() {
            self.in_vain.extend(first..first + part.part.count as usize);
        }
        let run = (took, part.at, member.is_none());
        let blocks = (part.part.first, part.part.count);
        match result {
            // It depends on what has become of the spare.
            Err(_) if write && member.is_some() => repairer.asks = Some((run, blocks, result)),
            _ => repairer.witness.tried(run, blocks, result, in_vain),
        }
        match result {
            Ok(()) if in_vain => Answer::InVain,
            Ok(()) => Answer::Good,
            Err(status) => Answer::Failed(status),
        }
    }

    fn finish_step(&mut self, repairer: &mut Repairer) -> Answer<Status> {
        let Request {
            first,
            count,
            failed_at,
            error,
            member,
            operation,
            fua,
            ..
        } = self.requests[repairer.request];
        let reads = operation == Operation::Read;
        let since = repairer.machine.times().failed_at;
        match repairer.step {
            Step::AskBreaker => {
                let way = if reads { Way::Read } else { Way::Write };
                Answer::Yes(member.is_none() && self.breakers[way as usize].is_open())
            }
            Step::PassUp => {
                self.answer(repairer.request, Err(error));
                Answer::Good
            }
            Step::Look { at, count } => {
                let first = first + at as usize;
                let noted = self.notes.range(first..first + count as usize).next();
                let noted = noted.map(|block| (*block - first) as u32);
                let run = self.run(first, count as usize);
                let untried = match run.kind {
                    RunKind::Slots { .. } => false,
                    RunKind::Main => noted == Some(0) && !reads,
                    RunKind::Pending { .. } | RunKind::Failing { .. } => !reads,
                    RunKind::Lost { .. } | RunKind::Avoided | RunKind::Doubt => true,
                };
                if reads && matches!(run.kind, RunKind::Lost { .. }) {
                    repairer.witness.errors.push(Status::IoErr);
                }
                if reads && run.kind == RunKind::Avoided {
                    repairer.witness.errors.push(Status::Medium);
                }
                repairer.witness.tryable |= !untried;
                Answer::Found { run, noted }
            }
            Step::Settle { at } => match self.commits() {
                true => {
                    let remap = self.map.get_mut(&(first + at as usize));
                    remap.expect("it is in doubt").doubt = false;
                    Answer::Good
                }
                false => {
                    repairer.witness.errors.push(Status::IoErr);
                    Answer::Failed(Status::IoErr)
                }
            },
            Step::Read(part) | Step::Write(part) => self.receive(repairer, part),
            Step::AskGone { slot } => {
                let (member, _) = split(slot);
                let gone = self.is_gone(member);
                if let Some((run, blocks, result)) = repairer.asks.take() {
                    repairer.witness.tried(run, blocks, result, gone);
                }
                Answer::Yes(gone)
            }
            Step::CountFailedSlot { .. } => Answer::Good,
            Step::Mend { first, count } => {
                let mended = first..first + count;
                let own = self.map.values_mut();
                own.filter(|remap| mended.contains(&remap.slot))
                    .for_each(|remap| remap.failing = false);
                Answer::Good
            }
            Step::AskMain(way) => {
                repairer.witness.dead |= self.shrunk.is_some();
                Answer::Main {
                    whole: self.shrunk.is_none(),
                    proven: self.proven[way as usize] >= Some(since),
                }
            }
            Step::CountFailure(way) => Answer::Need {
                need: self.breakers[way as usize].failed(self.plan.threshold),
                read: self.proven[Way::Read as usize] >= Some(since),
            },
            Step::Probe(way) => {
                let found = self.probe(way, first, count);
                repairer.witness.dead |= found != Found::Alive;
                Answer::Probed(found)
            }
            Step::Disprove(way) => {
                self.breakers[way as usize].disproved(self.now);
                Answer::Good
            }
            Step::ListMoves { at, count } => {
                for at in at as usize..(at + count) as usize {
                    let block = first + at;
                    let known = self.notes.contains(&block)
                        || self.avoided.contains(&block)
                        || self
                            .map
                            .get(&block)
                            .is_some_and(|remap| remap.held != Held::Valid || remap.failing);
                    repairer.witness.moves(self.now, at, known);
                    assert!(!repairer.moves.contains(&at), "block {at} is listed twice");
                    repairer.moves.push(at);
                }
                Answer::Good
            }
            Step::AskMoves => Answer::Yes(repairer.moves.iter().any(|at| {
                let block = first + at;
                !self.map.contains_key(&block)
                    && !self.notes.contains(&block)
                    && !self.avoided.contains(&block)
            })),
            Step::Place => {
                assert!(!reads, "E7: a read waits for the spare");
                repairer.witness.placed = true;
                match self.place(repairer) {
                    true if repairer.placed.len() >= PLACED_MAX => {
                        *self.seen.entry("full".to_owned()).or_default() += 1;
                        Answer::Full
                    }
                    true => Answer::Good,
                    false => Answer::Failed(repairer.machine.error()),
                }
            }
            Step::Commit => self.commit(repairer, since),
            Step::Flush => {
                let mut result = self.main.flush();
                for spare in &mut self.spares {
                    result = result.and(spare.flush());
                }
                match result {
                    Ok(()) => Answer::Good,
                    Err(status) => {
                        repairer.witness.errors.push(status);
                        Answer::Failed(status)
                    }
                }
            }
            Step::ListUnreadable { at, from_slot } => {
                let at = at as usize;
                let tried = repairer.witness.may_be_lost(self.now, at);
                assert!(tried, "E4: block {at} was not tried");
                repairer.unreadable.push((at, from_slot));
                Answer::Good
            }
            Step::ListWeak { at } => {
                let at = at as usize;
                assert!(
                    repairer.witness.failed_alone(at),
                    "P6: block {at} is not weak"
                );
                repairer.weak.push(at);
                Answer::Good
            }
            Step::DistrustFlush => {
                repairer.witness.distrusted = true;
                Answer::Good
            }
            Step::NoteFailing => {
                for (at, _) in repairer.unreadable.iter().filter(|(_, slot)| *slot) {
                    let remap = self.map.get_mut(&(first + at));
                    if let Some(remap) = remap.filter(|remap| remap.held == Held::Valid) {
                        remap.failing = true;
                    }
                }
                Answer::Good
            }
            Step::NoteUnreadable => {
                for (at, _) in repairer.unreadable.iter().filter(|(_, slot)| !slot) {
                    let block = first + at;
                    if self.has_slots() && !self.map.contains_key(&block) {
                        self.notes.insert(block);
                    }
                }
                Answer::Good
            }
            Step::Answer(status) => {
                assert!(repairer.placed.is_empty(), "P7: slots are lost");
                if status.is_err() && reads {
                    self.check_read(repairer);
                }
                let doubtful = status.is_ok()
                    && fua
                    && failed_at.is_some()
                    && operation == Operation::Write
                    && !repairer.witness.is_explained();
                assert_eq!(repairer.witness.distrusted, doubtful, "E6: a flush failed");
                repairer.witness.answers(status, error);
                self.answer(repairer.request, status);
                Answer::Good
            }
            Step::MoveWeak => {
                assert!(
                    repairer.witness.answered,
                    "E7: an answer waits for weak blocks"
                );
                for at in std::mem::take(&mut repairer.weak) {
                    self.move_weak(first + at);
                }
                Answer::Good
            }
            Step::Prepare => {
                assert!(
                    repairer.witness.answered && !reads,
                    "E7: a read waits for the spare"
                );
                Answer::Good
            }
            Step::Done => Answer::Good,
        }
    }

    /// A read fails: all that can be read was read, and what cannot is known (E4).
    fn check_read(&self, repairer: &Repairer) {
        let request = &self.requests[repairer.request];
        let all = repairer.witness.has_read_all(self.now);
        for (at, data) in request.data.iter().enumerate() {
            let block = request.first + at;
            let remap = self.map.get(&block);
            let fine = match remap {
                Some(remap) if remap.held == Held::Lost => false,
                Some(remap) if remap.held == Held::Valid => {
                    let (member, number) = split(remap.slot);
                    self.spares[member].is_fine(number)
                }
                _ => self.main.is_fine(block) && !self.avoided.contains(&block),
            };
            let in_doubt = remap.is_some_and(|remap| remap.doubt);
            let read = data.is_some() || repairer.witness.failed_alone(at);
            assert!(
                !(all && fine && !in_doubt) || read,
                "block {at} was not read"
            );
            let lost = repairer.witness.is_lost(at) && data.is_none() && !repairer.witness.dead;
            if lost && self.plan.auto_remap && self.plan.retries != 0 && self.has_slots() {
                let known = remap.is_some() || self.notes.contains(&block);
                assert!(known, "E4: block {at} is answered before it is noted");
            }
        }
    }
}
