// SPDX-License-Identifier: GPL-2.0

//! One flush and one commit for all who need them at the time (P13).
//!
//! Who shares with whom says [`logic::group`](crate::logic::group). The order of a batch is that of a single
//! relocation:
//!
//! 1. The data of all is on the slots before the batch is closed.
//! 2. The spares that have taken it are flushed. That vouches for the data of those only who have seen no flush fail
//!    since they wrote it; the others leave with an error.
//! 3. Under the writer's lock: what they placed is staged and committed, as far as there is room; the rest
//!    waits for the next batch. From here on nobody leaves before it is known how the commit ended.
//! 4. All are told, and answer their bios. What failed or is replaced is retired by a commit of its own (M5).
//!
//! A crash before the end of 3 finds no bio of the batch acknowledged, and each entry old or new by itself.
//!
//! A bio whose time is over leaves, unless I/O for it is under way: the flush, or the commit. However late it comes, it
//! has a second for others who lead at the time: that is the one try that every bio has.
//!
//! The group's mutex is taken under the writer's, and by itself; nothing else is taken under it, and no I/O is
//! waited for.

use core::mem;

use kernel::{
    prelude::*,
    sync::CondVarTimeoutResult,
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        block::BlkStatus,
        util, //
    },
    logic::{
        group::Progress,
        limit::Limit,
        pool::SlotRun,
        slot::{
            Origin,
            SlotState,
            SlotWord, //
        }, //
    },
    remap::{
        health::life::{
            Life,
            SpareTickets, //
        },
        meta::{
            io::SpareIo,
            writer::{
                Publish,
                Writer,
                STAGED_MAX, //
            }, //
        },
        path::state::PathState,
        user::state::UserState, //
    }, //
};

use super::{
    is_lost,
    is_to_blame,
    push,
    Placed,
    Relocation, //
};

/// How long whoever comes waits for others by all means, and how often is looked whether its time is over, in
/// milliseconds.
const WAIT_MS: u64 = 1000;

/// What somebody has on slots, and wants to be durable.
pub(in crate::remap) struct Request {
    placed: KVec<Placed>,
    /// Slots that failed. Those that are replaced are added by the commit.
    retired: KVec<u32>,
    origin: Origin,
    /// Whether slots that are replaced are in order.
    leaves: bool,
    /// Whether what the blocks held is given up.
    gives_up: bool,
    /// How many flushes had failed before the data was written.
    tickets: SpareTickets,
    /// Whether all that was placed could be staged.
    staged: Result,
    fate: Fate,
    /// Whether it tells users what they wait for.
    tells: bool,
    /// Whether there is something, and its leader does not tell.
    news: bool,
}

/// What became of a request.
#[derive(Clone, Copy)]
enum Fate {
    /// Nothing: its time was over.
    None,
    /// Its data may not be durable.
    Unflushed,
    Committed,
    /// Some of it may be durable and visible, the rest is in doubt or forgotten.
    Failed,
}

impl Request {
    /// Stages what was placed.
    fn stage(&mut self, user: &UserState, path: &PathState, writer: &mut Writer) {
        for placed in &self.placed {
            let Placed {
                main_block,
                slot,
                count,
            } = placed;
            let run = SlotRun {
                first: *slot,
                count: *count,
            };
            let before = path.slot_of(*main_block);
            let publish = match before {
                Some((old, _)) if old == *slot => Publish::Keep,
                Some((old, _)) => Publish::Replace(old),
                None => Publish::Insert,
            };
            let origin = match before {
                // It just goes elsewhere.
                Some((_, word)) if self.leaves => word.origin(),
                _ => self.origin,
            };
            let word = SlotWord::new(*main_block, SlotState::Valid, origin).ok_or(ERANGE);
            let stays = self.leaves && before.is_some_and(|(_, word)| word.is_given_up());
            let word = word.map(|word| match self.gives_up || stays {
                true => word.with_given_up(),
                false => word,
            });
            let done = word.and_then(|word| writer.stage_run(user, path, run, word, publish));
            match (done, publish) {
                (Err(error), _) => {
                    placed.slots().for_each(|slot| writer.give_back(path, slot));
                    self.staged = Err(error);
                }
                (Ok(()), Publish::Replace(old)) => {
                    // Unless very many slots have failed, there is room for it.
                    if push(&mut self.retired, old).is_err() {
                        writer.note_older_claims();
                    }
                }
                _ => (),
            }
        }
    }

    /// How many changes it may take to commit it, or to retire what it replaces.
    fn changes(&self) -> usize {
        self.placed.len().saturating_add(self.retired.len())
    }

    /// What was staged was committed, or not.
    fn end(
        &mut self,
        user: &UserState,
        path: &PathState,
        life: &Life,
        writer: &mut Writer,
        committed: Result,
    ) {
        match committed {
            Ok(()) => self.stage_retirements(user, path, life, writer),
            Err(_) => {
                // They may be replaced by now, as far as the commit went.
                writer.note_older_claims();
                for slot in &self.retired {
                    writer.give_back(path, *slot);
                }
            }
        }
        self.fate = match committed.and(self.staged) {
            Ok(()) => Fate::Committed,
            Err(_) => Fate::Failed,
        };
    }

    /// Stages that the slots which failed or are replaced are not used any more, after what was placed was committed.
    fn stage_retirements(
        &self,
        user: &UserState,
        path: &PathState,
        life: &Life,
        writer: &mut Writer,
    ) {
        for slot in &self.retired {
            let leaves = self.leaves || !is_to_blame(path, life, *slot);
            if leaves && path.is_held(*slot) {
                // No commit has known it, and no bio was ever on the way to it.
                writer.give_back(path, *slot);
                continue;
            }
            // Not marked as bad, it is found out again.
            if writer.stage_retirement(user, path, *slot, leaves).is_err() {
                writer.note_older_claims();
                break;
            }
            if !leaves {
                user.counters.spare_write_errors.add(1);
            }
        }
    }
}

impl Relocation<'_> {
    /// Makes what was placed durable, and then visible. Data before metadata (P3): `tickets` were taken before the data
    /// was written.
    pub(super) fn commit_placed(&mut self, tickets: &SpareTickets) -> Result<usize, BlkStatus> {
        if self.lists.placed.is_empty() {
            self.give_back(self.lists.retired.iter().copied());
            return Ok(0);
        }
        let request = Request {
            placed: mem::take(&mut self.lists.placed),
            retired: mem::take(&mut self.lists.retired),
            origin: self.origin,
            leaves: self.leaves,
            gives_up: self.gives_up,
            tickets: *tickets,
            staged: Ok(()),
            fate: Fate::None,
            tells: self.tells,
            news: false,
        };
        let request = self.share(request);
        self.tell |= request.news;
        self.lists.placed = request.placed;
        self.lists.retired = request.retired;
        match request.fate {
            Fate::None => self.give_up(),
            Fate::Unflushed => {
                self.in_vain = self.find_gone();
                self.give_up();
            }
            Fate::Committed => {
                // The commit may have found out that a spare is gone. Nobody knows yet that it has them.
                let placed = self.lists.placed.iter();
                let there = placed
                    .filter(|placed| !is_lost(&self.state.path, &self.state.life, placed.slot));
                let count = there.fold(0usize, |all, run| all.saturating_add(run.count as usize));
                self.in_vain = count != Placed::blocks(&self.lists.placed);
                return Ok(count);
            }
            Fate::Failed => (),
        }
        Err(self.error)
    }

    /// Nothing becomes of what was placed.
    fn give_up(&self) {
        self.give_back(self.lists.placed.iter().flat_map(|placed| placed.slots()));
        self.give_back(self.lists.retired.iter().copied());
    }

    /// Waits until a request is done, or its time is over; does it for all who wait if nobody else does.
    fn share(&mut self, request: Request) -> Request {
        let state = self.state;
        self.wait_for_others();
        let mut group = state.repair.group.lock();
        let seat = match group.join(self.lists.filling.placing.written(), request) {
            Ok(seat) => seat,
            // There is a seat for everybody who moves blocks.
            Err(request) => return request,
        };
        loop {
            if let Some(request) = group.done(seat) {
                return request;
            }
            let mut ends = util::monotonic_ms() >= self.patience || self.must_stop();
            if group.lead(seat) {
                drop(group);
                self.lead(seat);
                group = state.repair.group.lock();
                group.end(seat);
                state.repair.group_changed.notify_all();
                ends = true;
            }
            if ends {
                if let Some(request) = group.leave(seat) {
                    return request;
                }
            }
            let waited = (state.repair.group_changed)
                .wait_interruptible_timeout(&mut group, msecs_to_jiffies(WAIT_MS as u32));
            if matches!(waited, CondVarTimeoutResult::Signal { .. }) {
                // The I/O that is under way does not end with that.
                drop(group);
                fsleep(Delta::from_millis(1));
                group = state.repair.group.lock();
            }
        }
    }

    /// However late it is, others have a second from here on: who leads, or has the writer's lock.
    fn wait_for_others(&mut self) {
        let patience = util::monotonic_ms().saturating_add(WAIT_MS);
        self.patience = self.patience.max(patience);
    }

    /// Whether this is for a message that has to come to an end.
    fn must_stop(&self) -> bool {
        self.target.is_none() && self.state.jobs.must_stop()
    }

    /// Flushes and commits for a batch. Afterwards all that was taken is done.
    fn lead(&mut self, seat: usize) {
        let state = self.state;
        if self.target.is_some() {
            // Those who wait for slots get them now, and bring their data while this batch is made durable.
            state.meta.let_others_write();
        }
        state.repair.group.lock().close(seat);
        if !self.flush(seat) {
            return;
        }
        self.wait_for_others();
        let mut waits = self.target.is_some();
        loop {
            let done = state.with_writer_by(self.patience, self.spares, |writer, io| {
                self.commit_batch(writer, io, seat, waits)
            });
            if done != Some(false) {
                return;
            }
            waits = self.waits_for_room();
        }
    }

    /// Flushes the spares that have taken data. Returns whether that vouches for the data of the leader.
    fn flush(&self, seat: usize) -> bool {
        let state = self.state;
        let flushed = state
            .life
            .flush_caches(
                &state.user,
                &state.pool,
                (self.spares, self.lists.filling.placing.written()),
            )
            .is_ok();
        let unbroken = |tickets: &SpareTickets| {
            state
                .life
                .are_unbroken(self.spares, self.lists.filling.placing.written(), tickets)
        };
        let (mut own, mut left) = (None, false);
        state
            .repair
            .group
            .lock()
            .advance(seat, Progress::Closed, |request| {
                let vouched = flushed && unbroken(&request.tickets);
                // The leader's is the first.
                own.get_or_insert(vouched);
                if vouched {
                    return Progress::Flushed;
                }
                request.fate = Fate::Unflushed;
                left = true;
                Progress::Done
            });
        if left {
            state.repair.group_changed.notify_all();
        }
        own == Some(true)
    }

    /// Commits what is in a batch, as far as there is room. False if there is none for what the leader has itself,
    /// which `waits` for it.
    fn commit_batch(
        &mut self,
        writer: &mut Writer,
        io: &mut SpareIo<'_>,
        seat: usize,
        waits: bool,
    ) -> bool {
        let (state, tells) = (self.state, self.tells);
        let low_water = state.user.limits.get(Limit::LowWater);
        let (mut placed, mut changes, mut own) = (0usize, 0usize, None);
        state
            .repair
            .group
            .lock()
            .advance(seat, Progress::Flushed, |request| {
                let is_own = own.is_none();
                // All may replace others, which are retired in one commit, too.
                let all = changes.saturating_add(request.changes());
                let count = placed.saturating_add(Placed::blocks(&request.placed));
                let room = writer.has_room(&state.path, u32::try_from(count).unwrap_or(u32::MAX));
                // Those that have a slot already need no room: without hope for more, the leader tries.
                let goes = match is_own {
                    true => room || !waits,
                    false => room && all <= STAGED_MAX,
                };
                own.get_or_insert(goes);
                if !goes {
                    return Progress::Flushed;
                }
                (placed, changes) = (count, all);
                request.stage(&state.user, &state.path, writer);
                Progress::Taken
            });
        if placed != 0 {
            let committed = writer.commit(&state.path, &state.repair, io);
            state
                .repair
                .group
                .lock()
                .advance(seat, Progress::Taken, |request| {
                    request.end(&state.user, &state.path, &state.life, writer, committed);
                    if request.tells && !tells {
                        request.news = writer.has_news(&state.user, low_water);
                    }
                    Progress::Done
                });
            state.repair.group_changed.notify_all();
            // If this fails, loading finds two claims and frees the older, and the slot fails
            // again when it is written.
            if writer.commit(&state.path, &state.repair, io).is_err() {
                writer.note_older_claims();
            }
            self.tell |= tells && writer.has_news(&state.user, low_water);
        }
        own == Some(true)
    }
}
