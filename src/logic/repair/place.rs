// SPDX-License-Identifier: GPL-2.0

//! Bringing data to slots: which slots are asked for, what is written next, and what if that fails?
//!
//! The blocks stand in a queue of the driver's, and the machine knows them by their places in it:
//!
//! ```text
//!   queue    | placed, or put off |   slots 7,8,9   | waiting ... | put off, or in need of another slot |
//!                                  ^ next   ^ part                                                     ^ queued
//! ```
//!
//! 1. A block that has a slot set aside goes there. Others get slots together, as many as follow each other.
//! 2. Slots are written whole, in halves, down to single ones. One that fails by itself, twice, is bad (E2): its
//!    block goes to the end of the queue, and gets another one.
//! 3. After [`SLOTS_NEAR`] bad ones in a row, others are tried that are far away: these may be on a scratch. After
//!    [`SLOTS_TRIED`] in a row it is the spare that failed, which says nothing about those slots.
//! 4. A spare that fails as a whole rests, if another one has slots: its blocks go to the end of the queue. So it is
//!    with one that is gone. Otherwise that is the end.
//! 5. When the time is over, and a slot took long to fail, that is the end, too (E7).
//!
//! However it ends, what was placed is complete in itself. There can be several queues before a commit. Slots that nothing
//! became of are given back.
//!
//! Nothing here does I/O, waits, or takes a lock: see [`Placing::advance`].

use super::{
    super::{
        bisect::{
            Bisect,
            Segment, //
        },
        classify::{
            classify,
            Operation,
            Verdict, //
        },
        format::{
            member_bit,
            MEMBERS_MAX, //
        },
    },
    step::Error,
    SLOW_MS, //
};

/// How many slots of a spare may fail, one after the other without one there that takes data in between: more, and it
/// is the spare that failed and not its medium.
pub const SLOTS_TRIED: u32 = 16;

/// After how many of these others are tried that are far away.
const SLOTS_NEAR: u32 = 4;

/// Slots that follow each other, of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRun {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Whose they are.
    pub member: u8,
}

/// What to do next for placing blocks. Blocks are told by their places in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceStep {
    /// Tell whether a slot is set aside for a block that can be used, and was not tried in vain:
    /// [`PlaceAnswer::Slots`] of one, or that there is none.
    AskOwn {
        /// The block.
        at: usize,
    },
    /// Take slots for a block, and for those after it that can go with it: [`PlaceAnswer::Slots`].
    Take {
        /// The block.
        at: usize,
    },
    /// Write blocks to as many slots.
    Write {
        /// The first block.
        at: usize,
        /// Where they go.
        slots: MemberRun,
    },
    /// Note that blocks are placed, and that the spare works: it took them when this was `begun`.
    Placed {
        /// The first block.
        at: usize,
        /// Where they are.
        slots: MemberRun,
        /// When the write was begun, in milliseconds.
        begun: u64,
    },
    /// Tell whether the set goes on without a member, or has to: [`PlaceAnswer::Yes`].
    AskGone {
        /// The member.
        member: u8,
    },
    /// Put blocks to the end of the queue.
    PutOff {
        /// The first block.
        at: usize,
        /// How many.
        count: u32,
        /// Whether the slots that were set aside for them are of no use.
        marked: bool,
    },
    /// Put the last block of the queue in the place of another one, and that one last.
    Advance {
        /// The other one.
        at: usize,
    },
    /// Count that a slot is bad, and have it retired unless it is a block's `own`: then this is done with replacing it.
    Bad {
        /// The slot.
        slot: u32,
        /// Whose it is.
        member: u8,
        /// Whether it was set aside for the block.
        own: bool,
    },
    /// Take the next slots from somewhere else.
    Jump,
    /// Have a member rest, if others have slots: [`PlaceAnswer::Yes`] if so.
    Rest {
        /// The member.
        member: u8,
    },
    /// A member takes nothing, and none of its slots that failed is bad for that.
    GiveUp {
        /// The member.
        member: u8,
    },
    /// Give back slots that nothing became of.
    GiveBack {
        /// The first one.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Forget the first blocks of the queue.
    Forget {
        /// How many.
        count: usize,
    },
    /// Nothing: all are placed.
    Done,
    /// Nothing: what is not placed is not going to be.
    Failed,
}

/// How the last step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceAnswer<E> {
    /// It was done.
    Good,
    /// It was not.
    Failed(E),
    /// Whether it is so.
    Yes(bool),
    /// These are the slots.
    Slots(MemberRun),
}

/// What follows once the rest of the slots is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    PutOff,
    Fail,
}

/// The step that the driver is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Next,
    Own,
    Take,
    Write,
    Placed,
    Gone,
    PutOff,
    /// A slot is bad, and its block has to get another one.
    Requeue,
    Bad,
    Elsewhere,
    Rest,
    /// A member was given up after one slot too many has failed there.
    TooMany,
    GiveUp,
    Leave(After),
    End(PlaceStep),
}

/// Blocks that are being placed. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Placing<E> {
    /// When to give up, in milliseconds.
    deadline: u64,
    /// How long the queue may get before what is done is forgotten.
    roomy: usize,
    /// How many are in the queue.
    queued: usize,
    /// The first one that is not placed.
    next: usize,
    /// Where it and the following ones go.
    slots: MemberRun,
    /// Whether it is a slot that was set aside for the block.
    own: bool,
    search: Option<Bisect>,
    /// Slots before this one are placed, or have failed.
    settled: u32,
    part: Segment,
    begun: u64,
    /// Whether the part is written for the second time.
    again: bool,
    fault: Option<E>,
    /// How long the part took to fail, in milliseconds.
    took: u64,
    /// Whether a slot took long to fail.
    slow: bool,
    /// The members whose slots have taken data; a bit each.
    written: u8,
    /// The members that others have stood in for; a bit each.
    left: u8,
    /// How many slots of each member have failed since one there has taken data.
    failed: [u32; MEMBERS_MAX as usize],
    stage: Stage,
}

impl<E: Error> Placing<E> {
    /// Places the blocks of queues that are not forgotten up to `roomy` blocks, until a time in milliseconds.
    pub fn new(deadline: u64, roomy: usize) -> Self {
        Placing {
            deadline,
            roomy,
            queued: 0,
            next: 0,
            slots: MemberRun {
                first: 0,
                count: 0,
                member: u8::MAX,
            },
            own: false,
            search: None,
            settled: 0,
            part: Segment::default(),
            begun: 0,
            again: false,
            fault: None,
            took: 0,
            slow: false,
            written: 0,
            left: 0,
            failed: [0; MEMBERS_MAX as usize],
            stage: Stage::Next,
        }
    }

    /// Begins with a queue of so many blocks.
    pub fn begin(&mut self, queued: usize) {
        self.queued = queued;
        self.next = 0;
        self.stage = Stage::Next;
    }

    /// What was placed so far is committed. What is known of members that were left stays.
    pub fn end_batch(&mut self) {
        self.written = 0;
        self.failed = [0; MEMBERS_MAX as usize];
    }

    /// Places blocks until another time, in milliseconds.
    pub fn set_deadline(&mut self, deadline: u64) {
        self.deadline = deadline;
    }

    /// The members whose slots have taken data; a bit each.
    pub fn written(&self) -> u8 {
        self.written
    }

    /// Whether others have stood in for a member.
    pub fn has_left(&self, member: u8) -> bool {
        self.left & member_bit(member) != 0
    }

    /// Takes the answer to the last step, and tells the next one. The first answer does not matter. `now` is in
    /// milliseconds; `slots_left`: whether there is a slot that can be given out.
    pub fn advance(&mut self, now: u64, slots_left: bool, answer: PlaceAnswer<E>) -> PlaceStep {
        use PlaceAnswer::{
            Failed,
            Good,
            Slots,
            Yes, //
        };
        match (self.stage, answer) {
            (Stage::Next, _) => self.next_block(),
            (Stage::Own, Slots(slots)) => self.fill(now, slots, true),
            (Stage::Own, Yes(false)) => self.ask(Stage::Take, PlaceStep::Take { at: self.next }),
            (Stage::Take, Slots(slots)) => self.fill(now, slots, false),
            (Stage::Write, Good) => self.taken(),
            (Stage::Write, Failed(error)) => self.refused(now, error),
            (Stage::Placed, Good) => self.end_part(now, true),
            // Not the slots have failed, but their spare: the others take what is left.
            (Stage::Gone, Yes(true)) => self.leave(After::PutOff),
            (Stage::Gone, Yes(false)) => self.judge(now),
            (Stage::Requeue, Good) => self.ask(
                Stage::Bad,
                PlaceStep::Bad {
                    slot: self.slot(),
                    member: self.slots.member,
                    own: self.own,
                },
            ),
            (Stage::Bad, Good) => self.count_bad(now, slots_left),
            (Stage::Elsewhere, _) => self.end_part(now, false),
            (Stage::TooMany, Good) => {
                // This slot is retired, or given back, already.
                self.settle_part();
                self.rest()
            }
            (Stage::Rest, Yes(true)) => self.leave(After::PutOff),
            (Stage::Rest, Yes(false)) if self.is_suspect() => self.leave(After::Fail),
            (Stage::Rest, Yes(false)) => self.give_up(Stage::GiveUp),
            (Stage::GiveUp, Good) => self.leave(After::Fail),
            (Stage::Leave(after), Good) => self.go_on(after),
            (Stage::PutOff, Good) => self.end_slots(),
            (Stage::End(step), _) => step,
            // No slots, or an answer to something else.
            (Stage::Own | Stage::Take | Stage::Leave(_) | Stage::PutOff, _) => self.fail(),
            // Lists are full, which were made long enough. What is noted of the part is not given back.
            (Stage::Placed | Stage::Bad, _) => {
                self.settle_part();
                self.leave(After::Fail)
            }
            _ => self.leave(After::Fail),
        }
    }

    fn ask(&mut self, stage: Stage, step: PlaceStep) -> PlaceStep {
        self.stage = stage;
        step
    }

    fn fail(&mut self) -> PlaceStep {
        self.ask(Stage::End(PlaceStep::Failed), PlaceStep::Failed)
    }

    fn next_block(&mut self) -> PlaceStep {
        match self.next < self.queued {
            true => self.ask(Stage::Own, PlaceStep::AskOwn { at: self.next }),
            false => self.ask(Stage::End(PlaceStep::Done), PlaceStep::Done),
        }
    }

    /// Begins to fill slots.
    fn fill(&mut self, now: u64, slots: MemberRun, own: bool) -> PlaceStep {
        self.slots = slots;
        self.own = own;
        self.settled = 0;
        self.search = Bisect::new(slots.count);
        self.next_part(now)
    }

    fn next_part(&mut self, now: u64) -> PlaceStep {
        let part = self.search.as_mut().and_then(Bisect::next_try);
        match part {
            None => self.end_slots(),
            Some(_) if self.is_late(now) => self.leave(After::Fail),
            // These may be on a scratch: the others try somewhere else.
            Some(_) if self.settled != 0 && self.is_scratched() => self.leave(After::PutOff),
            Some(part) => {
                self.part = part;
                self.begun = now;
                self.again = false;
                self.write()
            }
        }
    }

    /// Whether there is no time for a slot that may take long to fail.
    fn is_late(&self, now: u64) -> bool {
        self.slow && now >= self.deadline
    }

    /// The slots of the part.
    fn part(&self) -> MemberRun {
        MemberRun {
            first: self.slot(),
            count: self.part.count,
            member: self.slots.member,
        }
    }

    /// The first slot of the part.
    fn slot(&self) -> u32 {
        self.slots.first.saturating_add(self.part.first)
    }

    /// The place of the part's first block.
    fn at(&self) -> usize {
        self.next.saturating_add(self.part.first as usize)
    }

    fn write(&mut self) -> PlaceStep {
        let (at, slots) = (self.at(), self.part());
        self.ask(Stage::Write, PlaceStep::Write { at, slots })
    }

    /// The part has its data.
    fn taken(&mut self) -> PlaceStep {
        let (at, slots, begun) = (self.at(), self.part(), self.begun);
        self.written |= member_bit(slots.member);
        if let Some(failed) = self.failed.get_mut(usize::from(slots.member)) {
            *failed = 0;
        }
        self.ask(Stage::Placed, PlaceStep::Placed { at, slots, begun })
    }

    /// The part did not take its data.
    fn refused(&mut self, now: u64, error: E) -> PlaceStep {
        self.fault = Some(error);
        self.took = now.saturating_sub(self.begun);
        self.slow |= self.took > SLOW_MS;
        if self.part.count == 1 && self.is_suspect() && !self.again {
            // A slot is written off for good, so it gets another chance. If there is no time for that, it is not.
            self.again = true;
            return match self.is_late(now) {
                true => self.leave(After::Fail),
                false => self.write(),
            };
        }
        let member = self.slots.member;
        self.ask(Stage::Gone, PlaceStep::AskGone { member })
    }

    /// Whether the medium can have made the last error.
    fn is_suspect(&self) -> bool {
        let suspect =
            |error: E| classify(Operation::Write, error.status(), false) == Verdict::Suspect;
        self.fault.is_some_and(suspect)
    }

    /// What follows from an error of a spare that is there.
    fn judge(&mut self, now: u64) -> PlaceStep {
        if !self.is_suspect() {
            return self.rest();
        }
        if self.part.count != 1 {
            if let (true, Some(search)) = (self.took > SLOW_MS, &mut self.search) {
                search.one_by_one();
            }
            return self.end_try(now, false);
        }
        self.put_off(Stage::Requeue, self.at(), 1)
    }

    /// Puts blocks to the end of the queue. Slots of their own are of no use to them.
    fn put_off(&mut self, stage: Stage, at: usize, count: u32) -> PlaceStep {
        self.queued = self.queued.saturating_add(count as usize);
        let marked = self.own;
        self.ask(stage, PlaceStep::PutOff { at, count, marked })
    }

    /// A slot is bad, and its block has to get another one.
    fn count_bad(&mut self, now: u64, slots_left: bool) -> PlaceStep {
        let Some(failed) = self.failed.get_mut(usize::from(self.slots.member)) else {
            return self.end_part(now, false);
        };
        *failed = failed.saturating_add(1);
        if *failed > SLOTS_TRIED {
            *failed = 0;
            return self.give_up(Stage::TooMany);
        }
        let following = self.at().saturating_add(1);
        match (self.is_scratched(), self.own) {
            (true, false) => self.ask(Stage::Elsewhere, PlaceStep::Jump),
            // What comes next may have its own slots on the same scratch: a block that needs another slot
            // goes first, which tells whether the spare takes anything elsewhere.
            (true, true) if slots_left && following.saturating_add(1) < self.queued => {
                self.ask(Stage::Elsewhere, PlaceStep::Advance { at: following })
            }
            _ => self.end_part(now, false),
        }
    }

    /// Whether so many slots near this one have failed that it is better to try elsewhere.
    fn is_scratched(&self) -> bool {
        let failed = self.failed.get(usize::from(self.slots.member));
        failed.is_some_and(|failed| *failed != 0 && *failed % SLOTS_NEAR == 0)
    }

    /// The part is settled: placed, or put off.
    fn settle_part(&mut self) {
        self.settled = self.part.first.saturating_add(self.part.count);
    }

    fn end_part(&mut self, now: u64, good: bool) -> PlaceStep {
        self.settle_part();
        self.end_try(now, good)
    }

    fn end_try(&mut self, now: u64, good: bool) -> PlaceStep {
        if let Some(search) = &mut self.search {
            search.report(good);
        }
        self.next_part(now)
    }

    /// Uses no slots of the member for a while, if others have some. Not twice: then there was no other in the end.
    fn rest(&mut self) -> PlaceStep {
        let member = self.slots.member;
        let first = !self.has_left(member);
        self.left |= member_bit(member);
        match (first, self.is_suspect()) {
            (true, _) => self.ask(Stage::Rest, PlaceStep::Rest { member }),
            (false, true) => self.leave(After::Fail),
            (false, false) => self.give_up(Stage::GiveUp),
        }
    }

    fn give_up(&mut self, stage: Stage) -> PlaceStep {
        let member = self.slots.member;
        self.ask(stage, PlaceStep::GiveUp { member })
    }

    /// Leaves the rest of the slots.
    fn leave(&mut self, after: After) -> PlaceStep {
        let rest = self.slots.count.saturating_sub(self.settled);
        if self.own || rest == 0 {
            return self.go_on(after);
        }
        let first = self.slots.first.saturating_add(self.settled);
        let step = PlaceStep::GiveBack { first, count: rest };
        self.ask(Stage::Leave(after), step)
    }

    fn go_on(&mut self, after: After) -> PlaceStep {
        let rest = self.slots.count.saturating_sub(self.settled);
        match after {
            After::Fail => self.fail(),
            After::PutOff if rest == 0 => self.end_slots(),
            After::PutOff => {
                let at = self.next.saturating_add(self.settled as usize);
                self.put_off(Stage::PutOff, at, rest)
            }
        }
    }

    /// Goes on behind the slots.
    fn end_slots(&mut self) -> PlaceStep {
        self.search = None;
        self.next = self.next.saturating_add(self.slots.count as usize);
        if self.queued <= self.roomy {
            return self.next_block();
        }
        // Many had to look for another slot. No block is in the rest twice.
        let count = self.next;
        self.queued = self.queued.saturating_sub(count);
        self.next = 0;
        self.ask(Stage::Next, PlaceStep::Forget { count })
    }
}
