// SPDX-License-Identifier: GPL-2.0

//! Users: what they send, and that the answers are true.

use std::collections::BTreeSet;

use dm_remap_logic::classify::classify;
use dm_remap_logic::classify::Operation;
use dm_remap_logic::classify::Status;
use dm_remap_logic::classify::Verdict;
use dm_remap_logic::repair::Way;
use dm_remap_logic::table::RunKind;

use super::content;
use super::split;
use super::Held;
use super::Phase;
use super::Request;
use super::World;

impl World {
    /// A user sends a bio, as long as the range is served in one way. Returns how long that is.
    pub(in super::super) fn submit(
        &mut self,
        operation: Operation,
        first: usize,
        count: usize,
        fua: bool,
    ) -> usize {
        let run = self.run(first, count);
        let reads = operation == Operation::Read;
        let count = run.count as usize;
        let noted = (first..first + count).any(|block| self.notes.contains(&block));
        let slot = match run.kind {
            RunKind::Slots { first } | RunKind::Failing { first } => Some(first),
            _ => None,
        };
        let deferred = match run.kind {
            RunKind::Doubt => true,
            RunKind::Main => !reads && noted,
            RunKind::Pending { .. }
            | RunKind::Lost { .. }
            | RunKind::Failing { .. }
            | RunKind::Avoided => !reads,
            RunKind::Slots { first } => !reads && self.is_lost(split(first).0),
        };
        let mut request = self.request(operation, first, count, fua);
        let error = match run.kind {
            RunKind::Lost { .. } => Some(Status::IoErr),
            RunKind::Avoided => Some(Status::Medium),
            _ => None,
        };
        if let Some(error) = error.filter(|_| reads) {
            request.status = Some(Err(error));
            request.phase = Phase::Answered;
        } else if !deferred {
            let write = !reads;
            let io = match slot.map(split) {
                Some((member, number)) => {
                    self.spares[member].begin(write, number, count, &mut self.random)
                }
                None => self.main.begin(write, first, count, &mut self.random),
            };
            let ends = self.now + io.takes;
            request.phase = Phase::Sent { io, slot, ends };
        }
        self.requests.push(request);
        count
    }

    /// A bio that waits for its turn.
    fn request(&mut self, operation: Operation, first: usize, count: usize, fua: bool) -> Request {
        let version = 1 + self.requests.len() as u64;
        let data = (first..first + count)
            .map(|block| match operation {
                Operation::Read => None,
                _ => Some(content(block, version)),
            })
            .collect();
        Request {
            operation,
            first,
            count,
            fua,
            version,
            since: self.now,
            failed_at: None,
            error: Status::IoErr,
            member: None,
            probes: false,
            data,
            phase: Phase::Queued,
            status: None,
        }
    }

    /// One that has failed on main, `ago`, wherever its blocks are now.
    pub(in super::super) fn submit_failed(
        &mut self,
        operation: Operation,
        count: usize,
        fua: bool,
        ago: u64,
    ) {
        let mut request = self.request(operation, 0, count, fua);
        request.failed_at = Some(self.now - ago);
        request.error = Status::Medium;
        self.requests.push(request);
    }

    /// A user's bio comes back, as `end_io` sees it.
    pub(super) fn end_sent(&mut self, number: usize) {
        let queued = Phase::Queued;
        let request = &mut self.requests[number];
        let Phase::Sent { io, slot, .. } = std::mem::replace(&mut request.phase, queued) else {
            return;
        };
        let place = slot.map(split);
        let medium = match place {
            Some((member, _)) => &mut self.spares[member],
            None => &mut self.main,
        };
        medium.end(&io, &mut request.data, request.fua);
        let way = match io.write {
            true => Way::Write,
            false => Way::Read,
        };
        let lost = place.is_some_and(|(member, _)| self.lost[member].is_some());
        match io.result {
            Ok(()) if lost && io.write => (),
            Ok(()) if request.fua && medium.emulates_fua && medium.flush().is_err() => {
                request.failed_at = Some(self.now);
                request.error = Status::IoErr;
                request.member = place.map(|(member, _)| member);
            }
            Ok(()) => {
                if place.is_none() {
                    self.breakers[way as usize].proven();
                    if io.write {
                        (self.written_at, self.moved_since) = (self.now, 0);
                    }
                }
                self.answer(number, Ok(()));
            }
            Err(status) => {
                let suspect = classify(request.operation, status, false) == Verdict::Suspect;
                let gone = io.write && place.is_some() && self.spares.len() > 1;
                let breaker = &mut self.breakers[way as usize];
                let probes = place.is_none() && breaker.is_open();
                let admitted = place.is_some() || breaker.admits(self.now);
                if !(suspect || gone) || !admitted {
                    return self.answer(number, Err(status));
                }
                request.failed_at = Some(self.now);
                request.error = status;
                request.member = place.map(|(member, _)| member);
                request.probes = probes;
            }
        }
    }

    /// A user gets an answer (P1, P2).
    pub(super) fn answer(&mut self, number: usize, status: Result<(), Status>) {
        let request = &mut self.requests[number];
        request.phase = Phase::Answered;
        request.status = Some(status);
        let (first, since, version) = (request.first, request.since, request.version);
        let fua = request.fua;
        let blocks = first..first + request.count;
        match (request.operation, status) {
            (Operation::Read, Ok(())) => {
                for (block, data) in blocks.zip(&request.data) {
                    let data = data.expect("P2: nothing was read");
                    let allowed = &self.allowed[block];
                    assert!(
                        allowed.contains(&data),
                        "P2: block {block} reads {data:#x}, not {allowed:x?}"
                    );
                }
            }
            (Operation::Read, Err(_)) => (),
            (_, Err(_)) => {
                for block in blocks {
                    self.allowed[block].insert(content(block, version));
                }
            }
            (_, Ok(())) => {
                for block in blocks {
                    let value = content(block, version);
                    self.allowed[block] = BTreeSet::from([value]);
                    self.check_written(block, value, (since, fua));
                }
            }
        }
    }

    /// A write of a block was acknowledged (P1, P3).
    fn check_written(&self, block: usize, value: u64, (since, fua): (u64, bool)) {
        let (medium, number, moved) = match self.map.get(&block) {
            Some(remap) => {
                assert_eq!(remap.held, Held::Valid, "P1: block {block} has no content");
                assert!(!remap.doubt, "P3: block {block} is in doubt");
                let (member, number) = split(remap.slot);
                let lost = self.lost[member].is_some_and(|lost| lost < since);
                let lost = lost || self.in_vain.contains(&block);
                assert!(!lost, "P1: block {block} is on a lost spare");
                (&self.spares[member], number, true)
            }
            None => {
                let avoided = self.avoided.contains(&block);
                assert!(!avoided, "P1: block {block} cannot be read from main");
                (&self.main, block, false)
            }
        };
        assert_eq!(
            medium.peek(number),
            value,
            "P1: block {block}, remapped: {moved}"
        );
        if fua {
            assert_eq!(
                medium.durable(number),
                value,
                "P1: block {block} is not durable"
            );
        }
        let noted = self.notes.contains(&block) && self.has_slots();
        assert!(!noted, "E4: block {block} went to main");
    }
}
