// SPDX-License-Identifier: GPL-2.0

//! What becomes of a bio that came back.

use kernel::sync::atomic::Relaxed;

use crate::{
    abstractions::{
        block::{
            self,
            BlkStatus, //
        },
        dm,
        trace,
        util, //
    },
    logic::{
        breaker::Need,
        cache::Sent,
        classify::{
            classify,
            may_have_begun,
            tells_of_device,
            Operation,
            Verdict, //
        },
        latch::{
            Answer,
            FlushTicket, //
        },
        limit::Limit, //
    },
    remap::{
        health::life::{
            Direction,
            Disk, //
        },
        meta::io,
        DmRemap, //
    }, //
};

impl DmRemap {
    /// Decides about a bio that came back with an error. May run in an interrupt.
    #[cold]
    pub(in crate::remap) fn failed<'a>(&self, mut bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
        let state = &**self.state;
        let opf = bio.opf();
        let operation = operation_of(&bio);
        let member = bio.per_bio().member();
        let main = member.is_none();
        let disk = trace::Disk::of(match (operation, self.flushed(bio.target_bio_nr())) {
            (Operation::Flush, Some((Disk::Spare(member), _))) => Some(member),
            _ => member,
        });
        (state.user.trace).bio_failed(part_of(&bio), bio.op(), disk, bio.status());
        let direction = direction_of(operation, member);
        match classify(operation, io::status_of(bio.status()), opf.is_readahead()) {
            Verdict::Suspect => (),
            Verdict::Latch => {
                let flushed = self.flushed(bio.target_bio_nr());
                let data = bio.per_bio();
                let (ticket, sent) = (FlushTicket(data.stamp), Sent(data.epoch));
                if let Some((disk, _)) = flushed {
                    state.life.flush_ended(disk, ticket, sent, false);
                    state.user.tell_unflushed(disk);
                    self.teller.tell_soon(&self.events);
                }
                match flushed {
                    // It still fails, but first it is found out whether the set has to go without it.
                    Some((Disk::Spare(member), _)) if self.spares.count() > 1 => {
                        data.disk = member.saturating_add(1);
                        return self.to_worker(bio);
                    }
                    _ => return self.pass_up(bio),
                }
            }
            // What is written to a spare that is gone goes to another one.
            _ if !main
                && self.spares.count() > 1
                && matches!(operation, Operation::Write | Operation::WriteZeroes)
                && io::may_be_gone(bio.status()) => {}
            _ => {
                let begun = may_have_begun(io::status_of(bio.status()));
                if operation == Operation::Write && opf.is_fua() && begun {
                    if let Some((disk, device)) = self.disk(member) {
                        if device.emulates_fua() {
                            // Others' data may be lost with the flush in it.
                            state.life.own_flush_failed(disk);
                        }
                    }
                }
                let status = io::status_of(bio.status());
                if let Some(direction) = direction.filter(|_| tells_of_device(status)) {
                    self.count_error(direction);
                    self.passed_up(direction, opf.is_readahead());
                }
                return self.pass_up(bio);
            }
        }
        match direction {
            Some(direction) if main => self.count_error(direction),
            _ => (),
        }
        // Nobody asks whether a spare can be read.
        let asked = direction.filter(|direction| !matches!(direction, Direction::SpareRead(_)));
        let probes = asked.is_some_and(|direction| state.life.is_open(direction));
        let admitted = match asked {
            // If this one takes nothing, another one may.
            Some(Direction::SpareWrite(_)) => state.life.admits_to_spares(&self.spares),
            Some(direction) => state.life.admits(direction),
            None => true,
        };
        if !admitted {
            return self.pass_up(bio);
        }
        // Where main is no longer asked, slots are replaced and tried again all the same.
        if main && !state.user.auto_remap.load(Relaxed) {
            // But when nothing else comes back, somebody has to ask whether main lives.
            let threshold = state.user.limits.get(Limit::ErrorThreshold);
            let asks = |direction| state.life.failed(direction, threshold) == Need::Probe;
            if !direction.is_some_and(asks) {
                return self.pass_up(bio);
            }
        }
        let data = bio.per_bio();
        data.failed = true;
        data.probes = probes;
        data.stamp = util::monotonic_ms() as u32;
        self.to_worker(bio)
    }

    /// Hands on the error of a bio.
    fn pass_up<'a>(&self, bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
        let verdict = trace::Verdict::PassedUp;
        (self.state.user.trace).verdict(part_of(&bio), bio.op(), verdict, bio.status());
        bio.done()
    }

    /// Leaves a bio to the worker.
    fn to_worker<'a>(&self, bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
        let verdict = trace::Verdict::Repair;
        (self.state.user.trace).verdict(part_of(&bio), bio.op(), verdict, bio.status());
        let (owned, ended) = bio.take();
        self.state.repair.deferred.push(owned);
        self.kick();
        ended
    }

    /// Counts an error that users are told of, whatever becomes of it.
    fn count_error(&self, direction: Direction) {
        let counters = &self.state.user.counters;
        let counter = match direction {
            Direction::MainRead => &counters.read_errors,
            Direction::MainWrite => &counters.write_errors,
            Direction::SpareRead(_) => &counters.spare_read_errors,
            Direction::SpareWrite(_) => &counters.spare_write_errors,
        };
        counter.add(1);
    }

    /// An error is passed up without a look at the medium. If nothing but such errors comes back, the device
    /// is gone, and users are told so, whatever they are. May run in an interrupt.
    pub(in crate::remap) fn passed_up(&self, direction: Direction, readahead: bool) {
        let state = &**self.state;
        let threshold = state.user.limits.get(Limit::ErrorThreshold);
        // Of a spare that the set goes on without, all is said.
        let lost = match direction {
            Direction::SpareRead(member) | Direction::SpareWrite(member) => {
                state.life.is_lost(member)
            }
            Direction::MainRead | Direction::MainWrite => false,
        };
        if !readahead && !lost && state.life.passed_up(direction, threshold) {
            state.user.tell_opened(direction);
            self.teller.tell_soon(&self.events);
        }
    }

    /// Sees a flush that succeeded, a bio that the spare has served, or any where others did not succeed.
    /// May run in an interrupt.
    pub(in crate::remap) fn succeeded<'a>(&self, mut bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
        let life = &self.state.life;
        let member = bio.per_bio().member();
        let direction = match operation_of(&bio) {
            Operation::Flush => {
                let Some((disk, _)) = self.flushed(bio.target_bio_nr()) else {
                    return bio.done();
                };
                let data = bio.per_bio();
                let (ticket, sent) = (FlushTicket(data.stamp), Sent(data.epoch));
                return match life.flush_ended(disk, ticket, sent, true) {
                    Answer::Pass => bio.done(),
                    Answer::Fail => bio.done_with(BlkStatus::IOERR),
                };
            }
            Operation::Read => match member {
                Some(member) => Direction::SpareRead(member),
                None => Direction::MainRead,
            },
            Operation::Write | Operation::WriteZeroes => match member {
                // It was on the way when its spare was given up: it goes elsewhere, like any from then on.
                Some(member) if !self.state.life.note_written(member) => {
                    return self.to_worker(bio)
                }
                Some(member) => Direction::SpareWrite(member),
                None => Direction::MainWrite,
            },
            _ => return bio.done(),
        };
        if life.is_watched() {
            if member.is_none() {
                let sector = bio.target_sector();
                life.note_good(self.state.path.size.block_of(sector));
            }
            if life.succeeded(direction) {
                self.state.user.tell_closed(direction);
                self.teller.tell_soon(&self.events);
            }
        }
        bio.done()
    }
}

/// Of what reading and writing a bio tells, that went to main or to the spare of a member.
fn direction_of(operation: Operation, member: Option<u8>) -> Option<Direction> {
    match (operation, member) {
        (Operation::Read, None) => Some(Direction::MainRead),
        (Operation::Read, Some(member)) => Some(Direction::SpareRead(member)),
        (Operation::Write | Operation::WriteZeroes, None) => Some(Direction::MainWrite),
        (Operation::Write | Operation::WriteZeroes, Some(member)) => {
            Some(Direction::SpareWrite(member))
        }
        _ => None,
    }
}

/// The part of the device that a bio is about, for tracepoints.
fn part_of(bio: &dm::EndedBio<'_, DmRemap>) -> trace::Part {
    trace::Part {
        sector: bio.target_sector(),
        sectors: bio.sectors(),
    }
}

/// What a bio wanted.
fn operation_of(bio: &dm::EndedBio<'_, DmRemap>) -> Operation {
    match bio.op() {
        block::Op::Read => Operation::Read,
        block::Op::Write if bio.sectors() == 0 => Operation::Flush,
        block::Op::Write => Operation::Write,
        block::Op::WriteZeroes => Operation::WriteZeroes,
        block::Op::Discard => Operation::Discard,
        _ => Operation::Other,
    }
}
