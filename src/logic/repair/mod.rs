// SPDX-License-Identifier: GPL-2.0

//! What becomes of a bio that failed, or that `map` could not decide about: what is done next, and what if that fails?
//!
//! A bio is served piece by piece, each piece being as long as the map is uniform:
//!
//! ```text
//!   bio      |--------------------------------------------------|
//!   map      |   main   | slots 7,8 | main |   pending 9   | main |
//!   write      1 bisect   2 write     1      3 moved         1
//!   read       1 bisect   2 read      1      1 bisect        1
//! ```
//!
//! 1. Main: tried whole, in halves, down to single blocks. A block that fails by itself is bad (E2).
//! 2. Slots: the same; a slot that fails a write by itself is bad, and its block moves on.
//! 3. Pending blocks are not tried: they are known to be bad, and the bio has new content for them. So it is for
//!    blocks that were lost with a spare, and for those of which main is not to be read. Nor are slots that could not be
//!    read lately, as long as there are others.
//!
//! Bad blocks of a write are moved to slots: part by part their data is *placed* there, and all that was placed is made
//! durable by one *commit* at the end (P13), or where there is no room for more. However the bio ends, what was placed is
//! committed. If a spare is lost with some of it, what was served since the last commit is served once more. Blocks are
//! moved only if the medium is to blame: the capacity is what it was,
//! and main works otherwise (`blame.rs`). If not, it is the device that failed, and the error goes up.
//!
//! Bad blocks of a read fail the bio with the error that main gave, after everything that can be read was read into it.
//! Before it is answered they are noted, so that their next write goes to the spare, however soon it comes (E4). They are
//! set aside as pending when it is answered, as no read error of main waits for the spare (E7). That is a hint: if it cannot be stored,
//! the next read finds it out again. Blocks that could be read in the end, after they had failed by
//! themselves, are weak, and are moved to the spare then.
//!
//! A disk may take seconds for a bad block. From the first slow failure on, blocks are tried one by
//! one, which meets each bad block once. When the bio's deadline is over, the rest of a write is
//! moved unconfirmed, and the rest of a read fails and is not recorded (E7). But a bio that waited for others
//! until it was late gets one try: what it has waited for says nothing about its blocks. What the spare serves and
//! cannot take in time fails, too: moving it would be no faster.
//!
//! A crash at any point of a write finds the bio not acknowledged: the blocks have their old
//! content, or the new one, or an error.
//!
//! | what happens?                              | where that is decided                       |
//! |--------------------------------------------|---------------------------------------------|
//! | A write fails, on main or in its slot.     | `write.rs`, `judge_write`                   |
//! | Blocks of a read fail.                     | `read.rs`                                   |
//! | Is the medium to blame?                    | `blame.rs`                                  |
//! | A slot fails once, twice, many in a row.   | `place.rs`: `refused`, `judge`, `count_bad` |
//! | A spare fails as a whole while slots fill. | `place.rs`: `rest`                          |
//! | What is asked for, and answered?           | `step.rs`                                   |
//!
//! Nothing here does I/O, waits, or takes a lock: [`Repair::advance`] tells the driver what to do next and is told how
//! that went, so that a test can fail, delay and interleave every single step.

mod blame;
mod place;
mod read;
mod step;
#[cfg(test)]
mod tests;
mod write;

pub use self::{
    place::{
        MemberRun,
        PlaceAnswer,
        PlaceStep,
        Placing,
        SLOTS_TRIED, //
    },
    step::{
        Answer,
        Bio,
        Error,
        Found,
        Now,
        Step,
        Try,
        Way, //
    },
};

use self::blame::{
    Blame,
    Next, //
};
use super::{
    bisect::{
        Bisect,
        Segment, //
    },
    classify::{
        classify,
        Operation,
        Verdict, //
    },
    table::{
        Run,
        RunKind, //
    }, //
};

/// How many blocks of a bio are served, and placed, at a time at the most.
pub const CHUNK_BLOCKS: u32 = 256;

/// How many blocks are committed for a bio at a time at the most: a MiB of the smallest there are.
pub const BATCH_BLOCKS: u32 = 2048;

/// A failure that took longer, in milliseconds, is worth to be met once only.
pub const SLOW_MS: u64 = 100;

/// When a bio is to be answered, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it failed; for one that did not, when its turn came.
    pub failed_at: u64,
    /// When it has to be answered.
    pub deadline: u64,
}

/// A bio that is being served. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Repair<E> {
    bio: Bio<E>,
    times: Times,
    /// How long one may take, in milliseconds.
    allowance: u64,
    /// The last error that was seen.
    error: E,
    /// Whether it had its try: one that failed, or took long.
    tried: bool,
    /// Whether the medium is to blame for failures of main, once that was asked.
    verdict: Option<bool>,
    /// Whether a slot took long to fail.
    spare_slow: bool,
    /// Whether some block failed by itself, which explains that the bio did.
    explained: bool,
    /// How it goes: for a read, the first error of blocks that cannot be read.
    status: Result<(), E>,
    /// Where the blocks end that are served before what failed of them is placed.
    chunk_end: u32,
    /// Where those end that are served for good.
    served: u32,
    /// Whether blocks were listed for being placed.
    listed: bool,
    /// Whether blocks may have been placed since the last commit.
    placed: bool,
    /// Whether some were placed in vain.
    in_vain: bool,
    /// The first block of the run.
    at: u32,
    run: Run,
    /// The same as `status` of the run.
    run_status: Result<(), E>,
    /// What is left to be tried of the run.
    search: Option<Bisect>,
    /// The part that is tried.
    part: Segment,
    /// Since when, in milliseconds.
    begun: u64,
    /// What it failed with.
    fault: Option<E>,
    /// Whether that took long.
    slow: bool,
    /// Whether anything that was written did.
    slow_before: bool,
    /// How the block is tried again that could not be read by itself.
    again: Option<Again<E>>,
    stage: Stage,
}

/// A block that could not be read by itself.
#[derive(Clone, Copy, Debug)]
struct Again<E> {
    /// How often it is tried still.
    left: u32,
    /// What it failed with at first.
    error: E,
}

/// The step that the driver is at.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Begin,
    Breaker,
    Look,
    Settle,
    Try,
    Gone,
    /// What follows from a part of a run that was tried.
    Part {
        good: bool,
    },
    Blame(Blame),
    /// Listing a whole run as moves, or the last of one.
    Run,
    /// Listing what failed in the middle of a run.
    Middle,
    /// Listing all that is left of a run.
    Rest,
    Moves,
    Place,
    Commit,
    Flush,
    Distrust,
    Failing,
    Unreadable,
    Answer,
    Weak,
    Prepare,
}

impl<E: Error> Repair<E> {
    /// Begins to serve a bio, whose turn has come. It may take `allowance` milliseconds.
    pub fn new(bio: Bio<E>, now: u64, allowance: u64) -> Self {
        let failed_at = bio.failed_at.unwrap_or(now);
        Repair {
            bio,
            times: Times {
                failed_at,
                deadline: failed_at.saturating_add(allowance),
            },
            allowance,
            error: bio.error,
            tried: false,
            verdict: None,
            spare_slow: false,
            explained: false,
            status: Ok(()),
            chunk_end: 0,
            served: 0,
            listed: false,
            placed: false,
            in_vain: false,
            at: 0,
            run: Run {
                kind: RunKind::Main,
                count: 0,
            },
            run_status: Ok(()),
            search: None,
            part: Segment::default(),
            begun: now,
            fault: None,
            slow: false,
            slow_before: false,
            again: None,
            stage: Stage::Begin,
        }
    }

    /// When the bio is to be answered.
    pub fn times(&self) -> Times {
        self.times
    }

    /// The error that the bio fails with if there is no better one.
    pub fn error(&self) -> E {
        self.error
    }

    /// Takes the answer to the last step, and tells the next one. The first answer does not matter.
    pub fn advance(&mut self, now: Now, answer: Answer<E>) -> Step<E> {
        match (self.stage, answer) {
            (Stage::Begin, _) if self.may_be_given_up() => {
                self.ask(Stage::Breaker, Step::AskBreaker)
            }
            (Stage::Breaker, Answer::Yes(true)) => self.ask(Stage::Prepare, Step::PassUp),
            (Stage::Begin | Stage::Breaker, _) => self.begin(now),
            (Stage::Look, Answer::Found { run, noted }) => self.looked(now, run, noted),
            (Stage::Settle, Answer::Good) => self.next_run(),
            (Stage::Try, Answer::Good | Answer::InVain | Answer::Failed(_)) => {
                self.tried(now, answer)
            }
            (Stage::Gone, Answer::Yes(gone)) => self.judge_write(now, false, gone),
            (Stage::Part { good }, Answer::Good) => self.end_part(now, good),
            (Stage::Blame(blame), answer) => self.go_on_blaming(now, blame, answer),
            (Stage::Run, Answer::Good) => self.end_run(now),
            (Stage::Middle, Answer::Good) => self.next_part(now),
            (Stage::Rest, Answer::Good) => self.list_rest(now),
            (Stage::Moves, Answer::Yes(new)) => self.move_listed(now, new),
            (Stage::Place, Answer::Good) => self.next_chunk(now),
            (Stage::Place, Answer::Full) => self.commit(),
            (Stage::Commit, Answer::Good | Answer::InVain) => {
                self.committed(now, matches!(answer, Answer::Good))
            }
            (Stage::Commit, Answer::Failed(error)) => self.end(self.status.and(Err(error))),
            (Stage::Flush, Answer::Good) => self.end(Ok(())),
            (Stage::Distrust, _) => self.ask(Stage::Failing, Step::NoteFailing),
            (Stage::Failing, _) => self.ask(Stage::Unreadable, Step::NoteUnreadable),
            (Stage::Unreadable, _) => self.ask(Stage::Answer, Step::Answer(self.status)),
            (Stage::Answer, _) => self.ask(Stage::Weak, Step::MoveWeak),
            // Other reads may wait for the range, and none may wait for the spare.
            (Stage::Weak, _) if !self.reads() => self.ask(Stage::Prepare, Step::Prepare),
            (Stage::Weak | Stage::Prepare, _) => self.ask(Stage::Prepare, Step::Done),
            (_, Answer::Failed(error)) => self.end(Err(error)),
            // The driver answers what it was asked.
            _ => self.end(Err(E::IO)),
        }
    }

    fn ask(&mut self, stage: Stage, step: Step<E>) -> Step<E> {
        self.stage = stage;
        step
    }

    fn reads(&self) -> bool {
        self.bio.operation == Operation::Read
    }

    /// Whether its time is over.
    fn is_late(&self, now: Now) -> bool {
        self.tried && now.ms >= self.times.deadline
    }

    /// Whether the device on which it failed may have been found to fail as a whole, since. Nothing that is read
    /// from a spare could come from elsewhere.
    fn may_be_given_up(&self) -> bool {
        let stays = self.bio.on_spare && self.reads();
        self.bio.failed_at.is_some() && !self.bio.probes && !stays
    }

    fn begin(&mut self, now: Now) -> Step<E> {
        match self.bio.operation {
            Operation::Write | Operation::WriteZeroes => self.next_chunk(now),
            Operation::Read => self.next_run(),
            // A discard is a hint, and the block layer allows to do nothing.
            _ => self.end(Ok(())),
        }
    }

    /// Goes on behind the last run.
    fn next_run(&mut self) -> Step<E> {
        let at = self.at;
        let (end, count) = match self.reads() {
            true => (self.bio.blocks, self.bio.part),
            false => (self.chunk_end, u32::MAX),
        };
        match end.saturating_sub(at) {
            0 if self.reads() => self.end(self.status),
            0 => self.ask(Stage::Moves, Step::AskMoves),
            left => {
                let count = left.min(count);
                self.ask(Stage::Look, Step::Look { at, count })
            }
        }
    }

    fn looked(&mut self, now: Now, run: Run, noted: Option<u32>) -> Step<E> {
        self.run = run;
        let at = self.at;
        match run.kind {
            RunKind::Doubt => self.ask(Stage::Settle, Step::Settle { at }),
            _ if self.reads() => self.read_run(now),
            _ => self.write_run(now, noted),
        }
    }

    /// Begins to try a run.
    fn search(&mut self, now: Now) -> Step<E> {
        self.search = Bisect::new(self.run.count);
        match &mut self.search {
            Some(search) => {
                // What is served once more may be slow once more.
                if self.slow_before && self.in_vain {
                    search.one_by_one();
                }
                self.next_part(now)
            }
            // What was not tried is not done.
            None => self.end(Err(E::IO)),
        }
    }

    fn next_part(&mut self, now: Now) -> Step<E> {
        let part = self.search.as_mut().and_then(Bisect::next_try);
        match part {
            None => self.end_search(now),
            Some(_) if self.is_late(now) && self.reads() => {
                self.run_status = Err(self.error);
                self.end_run(now)
            }
            Some(_) if self.is_late(now) && (self.is_on_main() || self.spare_slow) => {
                self.end_late(now)
            }
            Some(part) => {
                self.part = part;
                self.try_part(now)
            }
        }
    }

    fn try_part(&mut self, now: Now) -> Step<E> {
        self.begun = now.ms;
        let part = Try {
            kind: self.run.kind,
            at: self.at,
            part: self.part,
        };
        let step = match self.reads() {
            true => Step::Read(part),
            false => Step::Write(part),
        };
        self.ask(Stage::Try, step)
    }

    /// A part was tried.
    fn tried(&mut self, now: Now, answer: Answer<E>) -> Step<E> {
        self.tried |= self.took_long(now);
        if let Answer::Failed(error) = answer {
            self.tried = true;
            self.error = error;
        }
        self.fault = match answer {
            Answer::Failed(error) => Some(error),
            _ => None,
        };
        let good = matches!(answer, Answer::Good);
        match (self.fault, self.slot()) {
            _ if self.reads() => self.judge_read(now, good),
            (Some(_), Some(slot)) => self.ask(Stage::Gone, Step::AskGone { slot }),
            _ => self.judge_write(now, good, false),
        }
    }

    /// Whether the last try took long.
    fn took_long(&self, now: Now) -> bool {
        now.ms.saturating_sub(self.begun) > SLOW_MS
    }

    /// The error of the last try if it is none that the medium can have made.
    fn innocent_error(&self, operation: Operation) -> Option<E> {
        self.fault
            .filter(|error| classify(operation, error.status(), false) != Verdict::Suspect)
    }

    /// Ends a run of which nothing is left to be tried.
    fn end_search(&mut self, now: Now) -> Step<E> {
        let bad = self.search.take().and_then(Bisect::finish);
        match bad {
            Some(bad) if !self.reads() => self.list_moves(Stage::Run, bad),
            _ => self.end_run(now),
        }
    }

    /// The first slot of a run that slots serve.
    fn slot(&self) -> Option<u32> {
        match self.run.kind {
            RunKind::Slots { first } | RunKind::Failing { first } => Some(first),
            _ => None,
        }
    }

    fn is_on_main(&self) -> bool {
        self.run.kind == RunKind::Main
    }

    /// Asks whether the medium is to blame. The answer is the same for all of a bio.
    fn blame(&mut self, now: Now) -> Step<E> {
        let way = match self.reads() {
            true => Way::Read,
            false => Way::Write,
        };
        match self.verdict {
            Some(verdict) => self.blamed(now, verdict),
            None => self.ask(Stage::Blame(Blame::new(way)), Step::AskMain(way)),
        }
    }

    fn go_on_blaming(&mut self, now: Now, mut blame: Blame, answer: Answer<E>) -> Step<E> {
        match blame.advance(answer) {
            Next::Step(step) => self.ask(Stage::Blame(blame), step),
            Next::Verdict(verdict) => {
                self.verdict = Some(verdict);
                self.blamed(now, verdict)
            }
        }
    }

    fn blamed(&mut self, now: Now, medium: bool) -> Step<E> {
        match (medium, self.reads(), self.search.is_some()) {
            (true, true, _) => self.read_again(now),
            (true, false, true) => self.end_part(now, false),
            (true, false, false) => self.place(),
            (false, true, _) => {
                self.run_status = Err(self.fault.unwrap_or(self.error));
                self.end_run(now)
            }
            (false, false, _) => self.end(Err(self.error)),
        }
    }

    /// What is known of the part is taken into account.
    fn end_part(&mut self, now: Now, good: bool) -> Step<E> {
        if let (false, true, Some(search)) = (good, self.slow, &mut self.search) {
            search.one_by_one();
        }
        let bad = self.search.as_mut().and_then(|search| search.report(good));
        match bad {
            Some(bad) if !self.reads() => self.list_moves(Stage::Middle, bad),
            _ => self.next_part(now),
        }
    }

    /// Goes on to the next run, if there is hope and time.
    fn end_run(&mut self, now: Now) -> Step<E> {
        self.search = None;
        if self.reads() {
            self.status = self.status.and(self.run_status);
            let hopeless = self.verdict == Some(false);
            if self.status.is_err() && (hopeless || self.is_late(now)) {
                // It is not the medium, or there is no time.
                return self.end(self.status);
            }
        }
        self.at = self.at.saturating_add(self.run.count);
        self.next_run()
    }

    /// All was done that can be, but for what is told and what follows from it.
    fn end(&mut self, status: Result<(), E>) -> Step<E> {
        self.status = status;
        if self.placed {
            return self.commit();
        }
        let unexplained = status.is_ok() && !self.explained && self.bio.failed_at.is_some();
        if unexplained && self.bio.operation == Operation::Write && self.bio.fua {
            return self.ask(Stage::Distrust, Step::DistrustFlush);
        }
        self.ask(Stage::Failing, Step::NoteFailing)
    }
}
