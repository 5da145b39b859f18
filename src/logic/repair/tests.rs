// SPDX-License-Identifier: GPL-2.0

//! Single bios, step by step: what is asked for, and what follows from each answer.

use super::{
    super::{
        bisect::Segment,
        breaker::Need,
        classify::{
            Operation,
            Status, //
        },
        table::{
            Run,
            RunKind, //
        }, //
    },
    Answer,
    Bio,
    Found,
    Now,
    Repair,
    Step,
    Try,
    Way,
    CHUNK_BLOCKS,
    SLOW_MS, //
};

const BEGIN: u64 = 10_000;
const ALLOWANCE: u64 = 1000;

/// A bio that is being served, and the time.
struct Play {
    repair: Repair<Status>,
    now: Now,
}

fn bio(operation: Operation, blocks: u32) -> Bio<Status> {
    Bio {
        operation,
        blocks,
        part: CHUNK_BLOCKS,
        fua: false,
        failed_at: Some(BEGIN),
        error: Status::Medium,
        on_spare: false,
        probes: true,
    }
}

impl Play {
    fn new(bio: Bio<Status>) -> Self {
        Play::at(bio, BEGIN)
    }

    /// Its turn comes at `ms`.
    fn at(bio: Bio<Status>, ms: u64) -> Self {
        Play {
            repair: Repair::new(bio, ms, ALLOWANCE),
            now: Now {
                ms,
                auto_remap: true,
                slots_left: true,
                read_retries: 2,
            },
        }
    }

    /// The next step has to be this one, after the answer.
    fn step(&mut self, answer: Answer<Status>, step: Step<Status>) -> &mut Self {
        assert_eq!(self.repair.advance(self.now, answer), step);
        self
    }

    /// So long it takes to carry the last step out.
    fn after(&mut self, ms: u64) -> &mut Self {
        self.now.ms += ms;
        self
    }

    /// It ends with this status, and all that has to follow.
    fn ends(&mut self, answer: Answer<Status>, status: Result<(), Status>) {
        self.step(answer, Step::NoteFailing)
            .step(Answer::Good, Step::NoteUnreadable)
            .step(Answer::Good, Step::Answer(status))
            .step(Answer::Good, Step::MoveWeak);
        if self.repair.bio.operation != Operation::Read {
            self.step(Answer::Good, Step::Prepare);
        }
        self.step(Answer::Good, Step::Done)
            .step(Answer::Good, Step::Done);
    }
}

fn look(at: u32, count: u32) -> Step<Status> {
    Step::Look { at, count }
}

fn found(kind: RunKind, count: u32) -> Answer<Status> {
    Answer::Found {
        run: Run { kind, count },
        noted: None,
    }
}

fn part(kind: RunKind, at: u32, first: u32, count: u32) -> Try {
    let part = Segment { first, count };
    Try { kind, at, part }
}

fn write(kind: RunKind, at: u32, first: u32, count: u32) -> Step<Status> {
    Step::Write(part(kind, at, first, count))
}

fn read(kind: RunKind, at: u32, first: u32, count: u32) -> Step<Status> {
    Step::Read(part(kind, at, first, count))
}

fn moves(at: u32, count: u32) -> Step<Status> {
    Step::ListMoves { at, count }
}

const MAIN: RunKind = RunKind::Main;
const SLOTS: RunKind = RunKind::Slots { first: 70 };
const BAD: Answer<Status> = Answer::Failed(Status::Medium);
const ALIVE: Answer<Status> = Answer::Main {
    whole: true,
    proven: true,
};
const SILENT: Answer<Status> = Answer::Main {
    whole: true,
    proven: false,
};

fn need(need: Need) -> Answer<Status> {
    Answer::Need { need, read: false }
}

#[test]
fn bad_blocks_of_a_write_are_moved() {
    Play::new(bio(Operation::Write, 4))
        .step(Answer::Good, look(0, 4))
        .step(found(MAIN, 4), write(MAIN, 0, 0, 4))
        .step(BAD, write(MAIN, 0, 0, 2))
        .step(Answer::Good, write(MAIN, 0, 2, 2))
        .step(BAD, write(MAIN, 0, 2, 1))
        .step(BAD, Step::AskMain(Way::Write))
        .step(ALIVE, write(MAIN, 0, 3, 1))
        .step(BAD, moves(2, 2))
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(true), Step::Place)
        .step(Answer::Good, Step::Commit)
        .ends(Answer::Good, Ok(()));
}

#[test]
fn a_run_that_is_pending_is_moved_untried() {
    for kind in [
        PENDING,
        RunKind::Lost { first: 3 },
        RunKind::Failing { first: 3 },
    ] {
        Play::new(bio(Operation::Write, 3))
            .step(Answer::Good, look(0, 3))
            .step(found(kind, 2), moves(0, 2))
            .step(Answer::Good, look(2, 1))
            .step(found(MAIN, 1), write(MAIN, 2, 0, 1))
            .step(Answer::Good, Step::AskMoves)
            .step(Answer::Yes(false), Step::Place)
            .step(Answer::Good, Step::Commit)
            .ends(Answer::Good, Ok(()));
    }
}

#[test]
fn what_is_noted_is_moved_untried() {
    let noted = |noted| Answer::Found {
        run: Run {
            kind: MAIN,
            count: 4,
        },
        noted: Some(noted),
    };
    Play::new(bio(Operation::Write, 4))
        .step(Answer::Good, look(0, 4))
        .step(noted(2), write(MAIN, 0, 0, 2))
        .step(Answer::Good, look(2, 2))
        .step(noted(0), moves(2, 1))
        .step(Answer::Good, look(3, 1))
        .step(found(MAIN, 1), write(MAIN, 3, 0, 1))
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(false), Step::Place)
        .step(Answer::Good, Step::Commit)
        .ends(Answer::Good, Ok(()));
    let mut full = Play::new(bio(Operation::Write, 4));
    full.now.slots_left = false;
    full.step(Answer::Good, look(0, 4))
        .step(noted(0), write(MAIN, 0, 0, 4));
}

#[test]
fn slots_that_could_not_be_read_are_used_if_there_are_no_others() {
    let kind = RunKind::Failing { first: 8 };
    let mut play = Play::new(bio(Operation::Write, 2));
    play.now.slots_left = false;
    play.step(Answer::Good, look(0, 2))
        .step(found(kind, 2), write(kind, 0, 0, 2))
        .step(Answer::Good, Step::Mend { first: 8, count: 2 })
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(false), Step::Place)
        .ends(Answer::Good, Ok(()));
}

#[test]
fn an_innocent_error_passes_up() {
    Play::new(bio(Operation::Write, 2))
        .step(Answer::Good, look(0, 2))
        .step(found(MAIN, 2), write(MAIN, 0, 0, 2))
        .ends(Answer::Failed(Status::Transport), Err(Status::Transport));
    Play::new(bio(Operation::Read, 2))
        .step(Answer::Good, look(0, 2))
        .step(found(MAIN, 1), read(MAIN, 0, 0, 1))
        .step(Answer::Failed(Status::Offline), look(1, 1))
        .step(found(MAIN, 1), read(MAIN, 1, 0, 1))
        .ends(Answer::Good, Err(Status::Offline));
}

#[test]
fn nothing_moves_without_life() {
    let asked = || {
        let mut play = Play::new(bio(Operation::Write, 1));
        play.step(Answer::Good, look(0, 1))
            .step(found(MAIN, 1), write(MAIN, 0, 0, 1))
            .step(BAD, Step::AskMain(Way::Write));
        play
    };
    let smaller = Answer::Main {
        whole: false,
        proven: true,
    };
    asked().ends(smaller, Err(Status::Medium));
    let probed = |found| {
        let mut play = asked();
        play.step(SILENT, Step::CountFailure(Way::Write))
            .step(need(Need::Life), Step::Probe(Way::Read));
        (play, Answer::Probed(found))
    };
    let (mut play, answer) = probed(Found::Alive);
    play.step(answer, moves(0, 1));
    let (mut play, answer) = probed(Found::Unknown);
    play.ends(answer, Err(Status::Medium));
    let (mut play, answer) = probed(Found::Dead);
    play.step(answer, Step::Disprove(Way::Write))
        .ends(Answer::Good, Err(Status::Medium));
    let mut play = asked();
    play.step(SILENT, Step::CountFailure(Way::Write))
        .step(
            Answer::Need {
                need: Need::Probe,
                read: true,
            },
            Step::Probe(Way::Write),
        )
        .step(Answer::Probed(Found::Dead), Step::Disprove(Way::Write))
        .ends(Answer::Good, Err(Status::Medium));
}

#[test]
fn blocks_that_cannot_be_read_are_tried_again_and_noted() {
    Play::new(bio(Operation::Read, 2))
        .step(Answer::Good, look(0, 2))
        .step(found(MAIN, 2), read(MAIN, 0, 0, 2))
        .step(BAD, read(MAIN, 0, 0, 1))
        .step(BAD, Step::AskMain(Way::Read))
        .step(ALIVE, read(MAIN, 0, 0, 1))
        .step(BAD, read(MAIN, 0, 0, 1))
        .step(Answer::Good, Step::ListWeak { at: 0 })
        .step(Answer::Good, read(MAIN, 0, 1, 1))
        .step(BAD, read(MAIN, 0, 1, 1))
        .step(Answer::Failed(Status::IoErr), read(MAIN, 0, 1, 1))
        .step(
            Answer::Failed(Status::Target),
            Step::ListUnreadable {
                at: 1,
                from_slot: false,
            },
        )
        .ends(Answer::Good, Err(Status::Medium));
}

#[test]
fn slots_need_no_life_to_be_blamed() {
    Play::new(bio(Operation::Read, 1))
        .step(Answer::Good, look(0, 1))
        .step(found(SLOTS, 1), read(SLOTS, 0, 0, 1))
        .step(BAD, read(SLOTS, 0, 0, 1))
        .step(BAD, read(SLOTS, 0, 0, 1))
        .step(
            BAD,
            Step::ListUnreadable {
                at: 0,
                from_slot: true,
            },
        )
        .ends(Answer::Good, Err(Status::Medium));
    Play::new(bio(Operation::Write, 1))
        .step(Answer::Good, look(0, 1))
        .step(found(SLOTS, 1), write(SLOTS, 0, 0, 1))
        .step(BAD, Step::AskGone { slot: 70 })
        .step(Answer::Yes(false), Step::CountFailedSlot { slot: 70 })
        .step(Answer::Good, moves(0, 1))
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(false), Step::Place)
        .step(Answer::Good, Step::Commit)
        .ends(Answer::Good, Ok(()));
}

#[test]
fn what_a_lost_spare_took_goes_elsewhere() {
    let written = || {
        let mut play = Play::new(bio(Operation::Write, 1));
        play.step(Answer::Good, look(0, 1))
            .step(found(SLOTS, 1), write(SLOTS, 0, 0, 1));
        play
    };
    written().step(Answer::InVain, moves(0, 1));
    written()
        .step(
            Answer::Failed(Status::Transport),
            Step::AskGone { slot: 70 },
        )
        .step(Answer::Yes(true), moves(0, 1));
    written()
        .step(
            Answer::Failed(Status::Transport),
            Step::AskGone { slot: 70 },
        )
        .ends(Answer::Yes(false), Err(Status::Transport));
}

#[test]
fn a_slow_failure_is_met_once() {
    Play::new(bio(Operation::Write, 4))
        .step(Answer::Good, look(0, 4))
        .step(found(MAIN, 4), write(MAIN, 0, 0, 4))
        .after(SLOW_MS + 1)
        .step(BAD, write(MAIN, 0, 0, 1))
        .step(Answer::Good, write(MAIN, 0, 1, 1));
}

#[test]
fn past_the_deadline_the_rest_is_moved_or_fails() {
    let mut play = Play::new(bio(Operation::Write, 4));
    play.step(Answer::Good, look(0, 4))
        .step(found(MAIN, 4), write(MAIN, 0, 0, 4))
        .after(ALLOWANCE)
        .step(BAD, moves(0, 1))
        .step(Answer::Good, moves(1, 3))
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(true), Step::AskMain(Way::Write))
        .step(ALIVE, Step::Place)
        .step(Answer::Good, Step::Commit)
        .ends(Answer::Good, Ok(()));
    Play::new(bio(Operation::Read, 4))
        .step(Answer::Good, look(0, 4))
        .step(found(MAIN, 4), read(MAIN, 0, 0, 4))
        .after(ALLOWANCE)
        .ends(BAD, Err(Status::Medium));
    Play::new(bio(Operation::WriteZeroes, 4))
        .step(Answer::Good, look(0, 4))
        .step(found(MAIN, 4), write(MAIN, 0, 0, 4))
        .after(ALLOWANCE)
        .ends(BAD, Err(Status::Medium));
}

#[test]
fn late_in_the_queue_it_gets_a_try() {
    let late = BEGIN + 2 * ALLOWANCE;
    Play::at(bio(Operation::Write, 4), late)
        .step(Answer::Good, look(0, 4))
        .step(found(MAIN, 4), write(MAIN, 0, 0, 4))
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(false), Step::Place)
        .ends(Answer::Good, Ok(()));
    Play::at(bio(Operation::Read, 4), late)
        .step(Answer::Good, look(0, 4))
        .step(found(MAIN, 4), read(MAIN, 0, 0, 4))
        .ends(BAD, Err(Status::Medium));
}

#[test]
fn zeroes_have_time_for_each_part() {
    let mut play = Play::new(bio(Operation::WriteZeroes, CHUNK_BLOCKS + 1));
    play.step(Answer::Good, look(0, CHUNK_BLOCKS))
        .step(found(MAIN, CHUNK_BLOCKS), write(MAIN, 0, 0, CHUNK_BLOCKS))
        .after(ALLOWANCE)
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(false), Step::Place)
        .step(Answer::Good, look(CHUNK_BLOCKS, 1));
    assert_eq!(play.repair.times().deadline, BEGIN + 2 * ALLOWANCE);
}

/// Who has less memory serves a bio in smaller parts, each to its end.
#[test]
fn a_bio_is_served_in_parts() {
    for operation in [Operation::Write, Operation::Read] {
        let mut play = Play::new(Bio {
            part: 4,
            ..bio(operation, 9)
        });
        let mut answer = Answer::Good;
        for (at, count) in [(0, 4), (4, 4), (8, 1)] {
            play.step(answer, look(at, count));
            if operation == Operation::Read {
                play.step(found(MAIN, count), read(MAIN, at, 0, count));
                answer = Answer::Good;
                continue;
            }
            play.step(found(MAIN, count), write(MAIN, at, 0, count))
                .step(Answer::Good, Step::AskMoves)
                .step(Answer::Yes(false), Step::Place);
        }
        play.ends(Answer::Good, Ok(()));
    }
}

impl Play {
    /// Blocks of a part are placed, untried.
    fn places(&mut self, answer: Answer<Status>, at: u32, count: u32) -> &mut Self {
        self.step(answer, look(at, count))
            .step(found(PENDING, count), moves(at, count))
            .step(Answer::Good, Step::AskMoves)
            .step(Answer::Yes(false), Step::Place)
    }
}

const PENDING: RunKind = RunKind::Pending { first: 3 };

/// A write in four parts.
fn in_parts() -> Play {
    Play::new(Bio {
        part: 4,
        ..bio(Operation::Write, 13)
    })
}

/// P13
#[test]
fn what_is_placed_in_parts_is_committed_once() {
    in_parts()
        .places(Answer::Good, 0, 4)
        .places(Answer::Good, 4, 4)
        .places(Answer::Good, 8, 4)
        .places(Answer::Good, 12, 1)
        .step(Answer::Good, Step::Commit)
        .ends(Answer::Good, Ok(()));
}

#[test]
fn where_there_is_no_room_there_is_a_commit() {
    in_parts()
        .places(Answer::Good, 0, 4)
        .places(Answer::Good, 4, 4)
        .step(Answer::Full, Step::Commit)
        .places(Answer::Good, 8, 4)
        .step(Answer::Full, Step::Commit)
        .step(Answer::Good, look(12, 1))
        .step(found(MAIN, 1), write(MAIN, 12, 0, 1))
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(false), Step::Place)
        .ends(Answer::Good, Ok(()));
}

/// However a bio ends, what was placed is not left.
#[test]
fn what_was_placed_before_an_error_is_committed() {
    let full = Answer::Failed(Status::NoSpc);
    in_parts()
        .places(Answer::Good, 0, 4)
        .places(Answer::Good, 4, 4)
        .step(full, Step::Commit)
        .ends(Answer::Good, Err(Status::NoSpc));
    in_parts()
        .places(Answer::Good, 0, 4)
        .step(Answer::Good, look(4, 4))
        .step(found(MAIN, 4), write(MAIN, 4, 0, 4))
        .step(Answer::Failed(Status::Transport), Step::Commit)
        .ends(BAD, Err(Status::Transport));
    in_parts()
        .places(Answer::Good, 0, 4)
        .step(Answer::Full, Step::Commit)
        .ends(BAD, Err(Status::Medium));
}

/// P1, P15: a spare is lost with what it took: all since the last commit is served once more, as the map says then.
#[test]
fn what_was_placed_in_vain_is_served_once_more() {
    in_parts()
        .places(Answer::Good, 0, 4)
        .step(Answer::Full, Step::Commit)
        .places(Answer::Good, 4, 4)
        .places(Answer::Good, 8, 4)
        .step(Answer::Full, Step::Commit)
        .step(Answer::InVain, look(4, 4))
        .step(found(SLOTS, 4), write(SLOTS, 4, 0, 4))
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(false), Step::Place)
        .places(Answer::Good, 8, 4)
        .places(Answer::Good, 12, 1)
        .step(Answer::Good, Step::Commit)
        .ends(Answer::Good, Ok(()));
    in_parts()
        .places(Answer::Good, 0, 4)
        .step(Answer::Failed(Status::NoSpc), Step::Commit)
        .ends(Answer::InVain, Err(Status::NoSpc));
}

#[test]
fn nothing_is_moved_where_that_is_switched_off() {
    let mut play = Play::new(bio(Operation::Write, 1));
    play.now.auto_remap = false;
    play.step(Answer::Good, look(0, 1))
        .step(found(RunKind::Pending { first: 1 }, 1), moves(0, 1))
        .step(Answer::Good, Step::AskMoves)
        .ends(Answer::Yes(true), Err(Status::Medium));
    let mut play = Play::new(bio(Operation::Read, 1));
    play.now.auto_remap = false;
    play.now.read_retries = 0;
    play.step(Answer::Good, look(0, 1))
        .step(found(MAIN, 1), read(MAIN, 0, 0, 1))
        .step(BAD, Step::AskMain(Way::Read))
        .ends(ALIVE, Err(Status::Medium));
}

#[test]
fn a_bio_whose_device_failed_meanwhile_is_not_served() {
    let failed = Bio {
        probes: false,
        ..bio(Operation::Write, 1)
    };
    Play::new(failed)
        .step(Answer::Good, Step::AskBreaker)
        .step(Answer::Yes(true), Step::PassUp)
        .step(Answer::Good, Step::Done);
    Play::new(failed)
        .step(Answer::Good, Step::AskBreaker)
        .step(Answer::Yes(false), look(0, 1));
    // Nothing else has what is read from a spare.
    let read = Bio {
        on_spare: true,
        probes: false,
        ..bio(Operation::Read, 1)
    };
    Play::new(read).step(Answer::Good, look(0, 1));
    let deferred = Bio {
        failed_at: None,
        ..failed
    };
    Play::new(deferred).step(Answer::Good, look(0, 1));
}

#[test]
fn a_fua_write_ends_with_a_flush() {
    let fua = Bio {
        fua: true,
        ..bio(Operation::Write, 1)
    };
    let placed = || {
        let mut play = Play::new(fua);
        play.step(Answer::Good, look(0, 1))
            .step(found(MAIN, 1), write(MAIN, 0, 0, 1));
        play
    };
    // What failed was no block of it.
    placed()
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(false), Step::Place)
        .step(Answer::Good, Step::Flush)
        .step(Answer::Good, Step::DistrustFlush)
        .ends(Answer::Good, Ok(()));
    placed()
        .step(BAD, Step::AskMain(Way::Write))
        .step(ALIVE, moves(0, 1))
        .step(Answer::Good, Step::AskMoves)
        .step(Answer::Yes(true), Step::Place)
        .step(Answer::Good, Step::Commit)
        .step(Answer::Good, Step::Flush)
        .ends(Answer::Failed(Status::Timeout), Err(Status::Timeout));
}

#[test]
fn doubt_is_settled_first() {
    for operation in [Operation::Read, Operation::Write] {
        let mut play = Play::new(bio(operation, 2));
        play.step(Answer::Good, look(0, 2))
            .step(found(RunKind::Doubt, 1), Step::Settle { at: 0 })
            .step(Answer::Good, look(0, 2))
            .step(found(RunKind::Doubt, 1), Step::Settle { at: 0 })
            .ends(Answer::Failed(Status::IoErr), Err(Status::IoErr));
    }
}

#[test]
fn what_was_lost_with_a_spare_is_an_error_until_it_is_written() {
    Play::new(bio(Operation::Read, 2))
        .step(Answer::Good, look(0, 2))
        .step(found(RunKind::Lost { first: 9 }, 1), look(1, 1))
        .step(found(MAIN, 1), read(MAIN, 1, 0, 1))
        .ends(Answer::Good, Err(Status::IoErr));
}

#[test]
fn a_discard_may_do_nothing() {
    Play::new(bio(Operation::Discard, 1 << 20)).ends(Answer::Good, Ok(()));
}

#[test]
fn answers_to_other_questions_are_errors() {
    Play::new(bio(Operation::Write, 2))
        .step(Answer::Good, look(0, 2))
        .ends(Answer::Yes(true), Err(Status::IoErr));
}
