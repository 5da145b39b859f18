// SPDX-License-Identifier: GPL-2.0

//! Spares that join the set, leave it, are lost and come back; and redundancy that is made again.
//!
//! Every step is one version of the superblock, so that a crash leaves the set as it was before or as
//! it is after. The order in which a spare joins:
//!
//! 1. The superblock names it, in all copies on all spares. It has no slots in use.
//! 2. A replica of its slot table goes to another spare, and one of theirs to it
//!    ([`Writer::restore`]): void first, then copied, then it counts.
//!
//! One leaves when nothing is on it: first the replicas that it holds for others are moved away, then
//! the superblock names it no more, and last its own copies are overwritten, so that it does not pass
//! for an incomplete set if it is met alone, and can be formatted. If that fails or the power does, it
//! is found to have left when it is met together with the others.
//!
//! One that was lost comes back as if it were blank, but for the content of its slots: superblock
//! copies are written, its replicas are copied from the others' anew, and only then are its slots used
//! (M9).
//!
//! | what happens                       | where that is decided                                                       |
//! |------------------------------------|-----------------------------------------------------------------------------|
//! | A spare is lost.                   | [`Writer::lose_if_gone`], and whatever writes                               |
//! | What is there again is that spare. | `logic/set/identity.rs`, asked by `setup/join.rs` and `session/activate.rs` |
//! | It is used again.                  | [`Writer::take_back`], by the restorer, once its metadata is whole          |
//! | A spare rests, and for how long.   | [`Writer::let_rest`], [`Writer::end_rest`]                                  |

use core::ops::Range;

use kernel::prelude::*;

use crate::{
    abstractions::{
        trace,
        util, //
    },
    logic::{
        breaker::PROBE_INTERVAL_MS,
        commit::{
            Failure,
            Outcome,
            Rebuild,
            REBUILD_BLOCKS_MAX, //
        },
        event::Event,
        format::{
            member_bit,
            BlockId,
            MEMBERS_MAX,
            REPLICAS,
            RESERVE_BLOCKS, //
        },
        limit::Limit,
        pool::{
            state::{
                PoolEvent,
                PoolState, //
            },
            Kind, //
        },
        set::InUse,
        slot::SlotWord, //
    },
    remap::{
        health::life::{
            Disk,
            Life, //
        },
        meta::io::SpareIo,
        path::{
            map::UNKNOWN,
            state::PathState, //
        },
        repair::state::RepairState,
        session::activate::Start,
        user::{
            counters::Counters,
            limits::Limits,
            state::UserState, //
        }, //
    }, //
};

use super::Writer;

/// How many replicas get another place in one activation at the most.
const MOVES_MAX: u8 = 2 * MEMBERS_MAX;

/// How many blocks are written anew in one activation at the most, to make replicas again from them.
const MENDS_MAX: u8 = 2 * RESERVE_BLOCKS;

/// How many blocks are looked at in one step.
const LOOK_BLOCKS: u32 = 32;

/// How long a spare is left alone to which writing has failed, in milliseconds.
const REST_MS: u64 = PROBE_INTERVAL_MS as u64;

/// How far the redundancy of the metadata is restored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::remap) enum Restored {
    /// As far as it can be.
    Done,
    /// There is more to do.
    More,
}

impl Writer {
    /// The set as it is in use. `start` is what its first activation has to do, if there was none.
    pub(in crate::remap) fn set(&self, start: Option<&Start>) -> InUse<'_> {
        InUse {
            metadata: &self.metadata,
            claims: core::array::from_fn(|member| self.claims(member as u8)),
            durable: self.durable,
            inherited: self.inherited,
            sources: start.map_or(0, |start| start.sources(self.metadata.superblock())),
            activated: start.is_none(),
            formatting: start.is_some_and(|start| start.format),
        }
    }

    /// Whether slots of a member are given out.
    pub(in crate::remap) fn gives_slots(&self, member: u8) -> bool {
        self.giving() & member_bit(member) != 0
    }

    /// Members whose slots are given out, a bit each.
    pub(super) fn giving(&self) -> u8 {
        self.pools.giving(util::monotonic_ms())
    }

    /// What the pool of a member is used for.
    pub(in crate::remap) fn pool_state(&self, member: u8) -> PoolState {
        self.pools.state(member)
    }

    /// Looks where writes to slots do not end: nothing more is sent there (P15). Done whenever somebody gets the lock.
    pub(in crate::remap) fn note_stalled(&mut self, limits: &Limits, life: &Life) {
        let deadline_ms = limits.get(Limit::DeadlineMs);
        self.pools.set_stalled(life.stalled(deadline_ms));
    }

    /// Something happens to what the pool of a member is used for: nothing changes if that is refused.
    pub(in crate::remap) fn change_pool(&mut self, user: &UserState, member: u8, event: PoolEvent) {
        self.pools.apply(member, event);
        self.show_copies(user);
    }

    /// Tells the pools what superblocks and devices say of members.
    fn follow_members(&mut self) {
        for index in 0..MEMBERS_MAX {
            let member = self.metadata.superblock().member(index);
            let said = PoolEvent::said(member, self.metadata.is_present(index));
            self.pools.apply(index, said);
        }
    }

    /// Shows users which spares and which copies of the metadata are in use.
    pub(super) fn show_copies(&self, user: &UserState) {
        self.show(&user.counters);
    }

    /// Begins with what was loaded, and shows it.
    pub(in crate::remap) fn begin(&mut self, counters: &Counters) {
        self.follow_members();
        self.show(counters);
    }

    fn show(&self, counters: &Counters) {
        counters.show_copies(self.metadata.superblock(), &self.pools);
        counters.taking_over.set(u64::from(self.is_taking_over()));
        counters.foreign.set(u64::from(self.metadata.is_foreign()));
        counters.left.set(u64::from(self.slots_left()));
    }

    /// Shows users how many slots are left.
    pub(super) fn show_left(&self, user: &UserState) {
        user.counters.left.set(u64::from(self.slots_left()));
    }

    /// Which activation this is. What was held in another one may be somebody's by now.
    pub(in crate::remap) fn activation(&self) -> u64 {
        self.activation
    }

    /// Gives out no slots of a member for a while, as writing there fails: only if others have some, of
    /// which it returns whether that is so.
    pub(in crate::remap) fn let_rest(&mut self, user: &UserState, member: u8) -> bool {
        if self.slots_beside(member) == 0 {
            return false;
        }
        if self.pools.rest(member, util::monotonic_ms(), REST_MS) && user.log.allow() {
            let name = &user.name;
            pr_warn!("{name}: spare {member} fails, others take its blocks for a while\n");
        }
        self.show_left(user);
        true
    }

    /// Gives out slots again of the members that had to rest. Returns whether there were any.
    pub(in crate::remap) fn end_rest(&mut self, user: &UserState) -> bool {
        let any = self.pools.end_rests(util::monotonic_ms());
        self.show_left(user);
        any
    }

    /// How many slots other members can give out, initialised or not.
    pub(in crate::remap) fn slots_beside(&self, member: u8) -> u32 {
        self.slots_of(self.giving() & !member_bit(member))
    }

    /// Begins a new activation: gives out slots of all members again that are there.
    pub(in crate::remap) fn use_all(
        &mut self,
        user: &UserState,
        path: &PathState,
        repair: &RepairState,
    ) {
        self.take_leftover(path, repair);
        self.pools.apply_to_all(PoolEvent::Activate);
        self.activation = self.activation.wrapping_add(1);
        self.unrestored = true;
        self.moves = 0;
        self.mends = 0;
        self.hopeless = 0;
        self.failed_places = 0;
        for member in 0..MEMBERS_MAX {
            // Nobody fills any, and no bio is on its way to them now.
            let usable = self.usable_slots(member);
            self.free_held(user, path, member, (0, usable));
        }
        self.show_copies(user);
    }

    pub(super) fn usable_slots(&self, member: u8) -> u32 {
        let member = self.metadata.superblock().member(member);
        member.map_or(0, |member| member.usable_slots())
    }

    /// Slots from `range.0` to before `range.1` of a member that are held for nobody can be given out. No bio may
    /// be on its way to them.
    pub(super) fn free_held(
        &mut self,
        user: &UserState,
        path: &PathState,
        member: u8,
        range: (u32, u32),
    ) {
        self.change_all(path, member, range, (Kind::Held, SlotWord::FREE));
        self.show_left(user);
    }

    fn change_all(
        &mut self,
        path: &PathState,
        member: u8,
        range: (u32, u32),
        to: (Kind, SlotWord),
    ) {
        let pools = &mut self.pools;
        path.with_map(|map| map.slots().change_all(pools, member, range, to));
    }

    /// Says in whose place there is something else, a bit each: what is there is not read either. That holds from
    /// [`Writer::show_members`] on.
    pub(in crate::remap) fn set_strangers(&mut self, members: u8) {
        self.follow_members();
        for index in 0..MEMBERS_MAX {
            let looked_at = match members & member_bit(index) {
                0 => PoolEvent::Accept,
                _ => PoolEvent::Refuse,
            };
            self.pools.apply(index, looked_at);
        }
    }

    /// Brings up to date which members there are, and which the set goes on without, and shows that.
    pub(in crate::remap) fn show_members(&mut self, user: &UserState, life: &Life) {
        self.follow_members();
        self.show_copies(user);
        self.leave_lost(user, life);
    }

    /// Has readers of the map and users know which members the set goes on without.
    fn leave_lost(&mut self, user: &UserState, life: &Life) {
        let shut = self.pools.shut();
        let lost = shut.lost();
        // Before the caches are looked at: whoever has written sees this, or is seen there.
        let before = life.set_shut(shut).lost();
        for member in 0..MEMBERS_MAX {
            let bit = member_bit(member);
            let serving = u64::from(self.pools.serving(member));
            if before & !lost & bit != 0 {
                user.counters.lost.sub(serving);
                // Unless it has left.
                if self.metadata.superblock().member(member).is_some() {
                    user.trace.spare(trace::Disk::of(Some(member)), false);
                    user.news.note(Event::SpareBack, 1, None);
                }
            }
            if lost & !before & bit != 0 {
                user.counters.lost.add(serving);
                let what = Event::SpareLost.what();
                pr_err!("{}: spare {member} {what}\n", user.name);
                user.trace.spare(trace::Disk::of(Some(member)), true);
                user.news.note(Event::SpareLost, 1, None);
                life.forget_breakers_of(member);
                // What was on it can be made again on others.
                self.restored_at = u64::MAX;
                if self.active && life.needs_flush(Disk::Spare(member)) {
                    // What users wrote there since the last flush may be gone; they have to hear of it.
                    life.own_flush_failed(Disk::Spare(member));
                }
            }
        }
    }

    /// Whether the set goes on without a member, as its spare fails as a whole and others work. That is
    /// found out by writing superblocks, once it does not answer a read.
    pub(in crate::remap) fn lose_if_gone(&mut self, io: &mut SpareIo<'_>, member: u8) -> bool {
        if io.life.is_lost(member) {
            return true;
        }
        let superblock = self.metadata.superblock();
        if io.spares.count() < 2 || !self.active || io.is_alive(superblock, member, None) {
            return false;
        }
        let _ = self.sync(io);
        io.life.is_lost(member)
    }

    /// How many blocks of main the slots of a member serve or are set aside for.
    pub(in crate::remap) fn claims(&self, member: u8) -> u32 {
        self.pools.claims(member)
    }

    /// Whether redundancy is to be restored: in a new activation, or as some was lost since it was restored
    /// last.
    pub(in crate::remap) fn wants_restoring(&self) -> bool {
        let superblock = self.metadata.superblock();
        let lost = self.restored_at != superblock.statistics.metadata_repairs;
        self.unrestored || superblock.is_degraded() && lost
    }

    /// Redundancy is what it can be for now, or that has `failed` until something else happens.
    pub(in crate::remap) fn end_restoring(&mut self, failed: bool) {
        self.unrestored = false;
        self.restoring_failed = failed;
        if failed {
            self.restored_at = self.metadata.superblock().statistics.metadata_repairs;
        }
    }

    /// Whether redundancy is being restored.
    pub(in crate::remap) fn is_restoring(&self) -> bool {
        self.unrestored || !self.restoring_failed && self.wants_restoring()
    }

    /// Takes one step towards full redundancy: a part of a void replica is copied from the other one, or a
    /// replica is given another place. `shunned` members get no replicas, and those that they have are
    /// moved away; a bit each.
    ///
    /// Others wait for the lock that the caller has, so each step is short (M9a). And there is an end to them:
    /// places that fail are not tried again, nor is a replica whose source cannot be read wherever it is
    /// written, until the next activation. Then the log has said so.
    pub(in crate::remap) fn restore(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        shunned: u8,
    ) -> Result<Restored> {
        if self.metadata.is_unsettled() {
            self.commit_blocks(path, repair, io, &[])?;
            return Ok(Restored::More);
        }
        if self.metadata.rebuilding().is_some() {
            return self.rebuild(path, repair, io);
        }
        if let Some((member, replica)) = self.next_void(shunned) {
            self.metadata.begin_rebuild(member, replica);
            self.is_source_bad = false;
            return self.rebuild(path, repair, io);
        }
        // Where one place after the other turns out bad, an end has to be made of it: each takes slots.
        let may_move = self.moves < MOVES_MAX;
        match self.next_move(path, shunned).filter(|_| may_move) {
            Some((member, replica, host)) => {
                // From then on the other one is the only one.
                if !self.look_through(path, repair, io, member, replica)? {
                    return Ok(Restored::More);
                }
                self.moves = self.moves.saturating_add(1);
                self.give_place(io.user, path, member, replica, host)?;
                let outcome = io.drive(self.metadata.sync(), |_, _, _| ());
                self.note(io, &outcome)?;
                Ok(Restored::More)
            }
            None => {
                self.restored_at = self.metadata.superblock().statistics.metadata_repairs;
                Ok(Restored::Done)
            }
        }
    }

    fn rebuild(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
    ) -> Result<Restored> {
        let Some(rebuild) = self.metadata.rebuilding() else {
            return Ok(Restored::Done);
        };
        let Rebuild {
            member, replica, ..
        } = rebuild;
        if core::mem::take(&mut self.is_source_bad) {
            // What memory has is good.
            let blocks = rebuild.next..rebuild.next.saturating_add(REBUILD_BLOCKS_MAX);
            return match self.mend(path, repair, io, member, replica, blocks)? {
                Some(_) => Ok(Restored::More),
                // It was something else.
                None => Err(EIO),
            };
        }
        let outcome = io.drive(self.metadata.rebuild(), |_, _, _| ());
        let error = match &outcome {
            Outcome::Committed => 0,
            Outcome::Failed { why, .. } => -why.errno().number(),
        };
        let disk = trace::Disk::of(Some(member));
        io.user.trace.restore(disk, replica, rebuild.next, error);
        match outcome {
            Outcome::Failed {
                why: Failure::NoPlace,
                ..
            } => {
                // There it is not possible.
                self.failed_places |= place_bit(member, replica);
                self.metadata.give_up_rebuild();
                return Ok(Restored::More);
            }
            Outcome::Failed { .. } => {
                self.note(io, &outcome).or_else(|error| {
                    // It may have been the source.
                    self.is_source_bad = self.metadata.rebuilding().is_some();
                    self.is_source_bad.then_some(()).ok_or(error)
                })?;
                return Ok(Restored::More);
            }
            Outcome::Committed => self.note(io, &outcome)?,
        }
        if self.metadata.rebuilding().is_none() {
            pr_info!(
                "{}: replica {replica} of the slot table of spare {member} is complete again\n",
                io.user.name
            );
        }
        Ok(Restored::More)
    }

    /// Looks at the next blocks of what is the only replica without this one. Returns whether all of it was
    /// looked at, and is good.
    fn look_through(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        member: u8,
        replica: u8,
    ) -> Result<bool> {
        let table = self.metadata.superblock().member(member);
        let end = table.map_or(0, |table| table.high_water);
        let looked = self.looked.take();
        let looked = looked.filter(|(of, other, _)| (*of, *other) == (member, replica));
        let first = looked.map_or(0, |(_, _, next)| next);
        let last = first.saturating_add(LOOK_BLOCKS).min(end);
        let mended = self.mend(path, repair, io, member, replica, first..last)?;
        let next = mended.unwrap_or(last);
        if mended.is_none() && next >= end {
            return Ok(true);
        }
        self.looked = Some((member, replica, next));
        Ok(false)
    }

    /// Reads blocks of what is the only replica without this one, and writes the first one anew that is not
    /// good. Tells which one that was.
    fn mend(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        member: u8,
        replica: u8,
        blocks: Range<u32>,
    ) -> Result<Option<u32>> {
        let used = self.metadata.superblock().member(member);
        let used = used.map_or(0, |member| member.high_water);
        for block in blocks.start..blocks.end.min(used) {
            let id = BlockId { member, block };
            if self.is_settled(io, id, replica ^ 1) {
                continue;
            }
            self.mends = self.mends.saturating_add(1);
            io.is_careful = true;
            let outcome = self.write_blocks(path, io, &[id], &[]);
            io.is_careful = false;
            let written = self.finish(path, repair, io, &[id], &[], &outcome);
            let no_place = matches!(
                outcome,
                Outcome::Failed {
                    why: Failure::NoPlace,
                    ..
                }
            );
            if no_place || self.mends >= MENDS_MAX || !self.is_settled(io, id, replica ^ 1) {
                let name = &io.user.name;
                pr_err!(
                    "{name}: replica {replica} of the slot table of spare {member} cannot be made \
                     again: block {block} of the other one cannot be read, wherever it is written\n"
                );
                self.hopeless |= place_bit(member, replica);
                self.metadata.give_up_rebuild();
            } else {
                written?;
            }
            return Ok(Some(block));
        }
        Ok(None)
    }

    /// Whether a block of a replica is good, or that replica does not count any more.
    fn is_settled(&self, io: &mut SpareIo<'_>, id: BlockId, replica: u8) -> bool {
        let superblock = self.metadata.superblock();
        let table = superblock.member(id.member);
        let place = superblock.table_place(replica, id);
        let place = place.filter(|_| table.is_some_and(|table| table.replica_lives(replica)));
        place.is_none_or(|place| io.is_good(superblock, id, place))
    }

    /// A void replica that may be copied to where it is.
    fn next_void(&self, shunned: u8) -> Option<(u8, u8)> {
        let superblock = self.metadata.superblock();
        let mut void = self.metadata.void_replicas();
        void.find(|(index, replica)| {
            if shunned & member_bit(*index) != 0 {
                // It goes with its slots.
                return false;
            }
            let member = superblock.member(*index);
            let host = member.and_then(|m| m.areas.get(usize::from(*replica)));
            let host = host.map_or(u8::MAX, |area| area.host);
            let failed = self.failed_places | self.hopeless;
            failed & place_bit(*index, *replica) == 0 && shunned & member_bit(host) == 0
        })
    }

    /// A replica that should lie elsewhere, and the member that takes it: one that is void and cannot be
    /// made again where it is, one of two on the same spare if there are others, one on a spare that is
    /// shunned. Those of different members go to different ones, as far as possible.
    fn next_move(&self, path: &PathState, shunned: u8) -> Option<(u8, u8, u8)> {
        let superblock = self.metadata.superblock();
        let hosts = |own: u8| {
            let usable = move |host: &u8| {
                self.metadata.is_present(*host)
                    && superblock.member(*host).is_some()
                    && shunned & member_bit(*host) == 0
                    && (self.metadata.is_usable(*host) || *host == own)
            };
            let all = (0..MEMBERS_MAX).map(move |step| own.saturating_add(step) % MEMBERS_MAX);
            all.filter(usable)
        };
        let mut members = superblock
            .members()
            .filter(|(index, _)| shunned & member_bit(*index) == 0);
        members.find_map(|(index, member)| {
            let [a, b] = member.areas.map(|area| area.host);
            // First the one that need not stay at home.
            [1u8, 0].into_iter().find_map(|replica| {
                if self.hopeless & place_bit(index, replica) != 0 {
                    return None;
                }
                let (own, other) = if replica == 0 { (a, b) } else { (b, a) };
                let alive = member.replica_lives(replica);
                let stays = alive && shunned & member_bit(own) == 0;
                let both = own == other && member.replica_lives(replica ^ 1);
                let alone = stays && both && (own != index || replica == 1);
                if stays && !alone {
                    return None;
                }
                if !stays && !member.replica_lives(replica ^ 1) && member.high_water != 0 {
                    return None;
                }
                let fits = |host: &u8| {
                    let home = *host == index && !member.is_home(index, replica);
                    home || self.slots_without(path, *host, index).is_some()
                };
                let better = hosts(index).filter(|host| *host != other).find(fits);
                match better {
                    Some(host) if host != own || !alive => Some((index, replica, host)),
                    // Better on the same spare than nowhere.
                    None if !stays => hosts(index).find(fits).map(|host| (index, replica, host)),
                    _ => None,
                }
            })
        })
    }

    /// How many slots a member keeps that takes a replica of another one's table, if none of those that
    /// it loses is in use.
    fn slots_without(&self, path: &PathState, host: u8, member: u8) -> Option<u32> {
        let kept = self.metadata.slots_beside(host, member)?;
        let usable = self.metadata.superblock().member(host)?.usable_slots();
        // One that is held may be about to be used, and those of a spare that is idle or lost are not touched.
        let free = kept >= usable
            || self.pools.state(host).is_to_give()
                && path.with_map(|map| map.slots().are_available(host, (kept, usable)));
        free.then_some(kept)
    }

    fn give_place(
        &mut self,
        user: &UserState,
        path: &PathState,
        member: u8,
        replica: u8,
        host: u8,
    ) -> Result {
        let own = self.metadata.superblock().member(member).ok_or(EINVAL)?;
        let gone_from = own.areas.get(usize::from(replica)).map(|area| area.host);
        let failed = self.failed_places & place_bit(member, replica) != 0;
        let home = host == member
            && !own.is_home(member, replica)
            && !(failed && gone_from == Some(member));
        let done = if home {
            self.metadata.rehome(member, replica)
        } else {
            let kept = self.slots_without(path, host, member).ok_or(ENOSPC)?;
            // What is cut off is free; nobody may get it from here on.
            let range = (kept, self.usable_slots(host));
            let held = SlotWord::FREE_HELD;
            self.change_all(path, host, range, (Kind::Available, held));
            self.metadata.rehost(member, replica, host, kept)
        };
        self.failed_places &= !place_bit(member, replica);
        done.map_err(|why| Error::from_errno(-why.errno().number()))?;
        self.show_left(user);
        Ok(())
    }

    /// A spare that was lost and whose metadata was made again is used again.
    pub(in crate::remap) fn take_back(
        &mut self,
        io: &mut SpareIo<'_>,
        index: u8,
    ) -> Result<Restored> {
        if !self.pools.state(index).is_lost() || !self.metadata.is_present(index) {
            return Ok(Restored::Done);
        }
        let name = &io.user.name;
        if !self.is_whole(index) {
            pr_warn!("{name}: spare {index} is not used: its metadata is not complete\n");
            return Ok(Restored::Done);
        }
        self.metadata.return_member(index);
        self.sync(io)?;
        let what = Event::SpareBack.what();
        pr_info!("{name}: spare {index} {what}\n");
        Ok(Restored::Done)
    }

    /// One that is lost, and that serves nothing, is not waited for. Does a step of that.
    pub(in crate::remap) fn give_up(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        index: u8,
    ) -> Result<Restored> {
        if !self.pools.state(index).is_lost() || self.claims(index) != 0 {
            return Ok(Restored::Done);
        }
        self.remove_step(path, repair, io, index).or_else(|error| {
            let name = &io.user.name;
            pr_warn!("{name}: spare {index} cannot leave the set yet: {error:?}\n");
            Ok(Restored::Done)
        })
    }

    /// Whether everything of a member that is missing, and everything that it holds for others, was made
    /// again as far as it can be: bad places are no reason to go without it.
    pub(in crate::remap) fn is_whole(&self, index: u8) -> bool {
        let superblock = self.metadata.superblock();
        let Some(member) = superblock.member(index) else {
            return false;
        };
        let mut void = self.metadata.void_replicas();
        let waits = void.any(|(owner, replica)| {
            let table = superblock.member(owner);
            let area = table.and_then(|table| table.areas.get(usize::from(replica)));
            let here = owner == index || area.is_some_and(|area| area.host == index);
            let failed = self.failed_places | self.hopeless;
            here && failed & place_bit(owner, replica) == 0
        });
        let known = (0..REPLICAS).any(|replica| member.replica_lives(replica));
        !waits && member.has_supers() && (known || member.high_water == 0)
    }

    /// Takes a member out of the set on which nothing is left. Fails with [`EBUSY`] if something is.
    pub(in crate::remap) fn remove_member(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        index: u8,
    ) -> Result {
        while self.remove_step(path, repair, io, index)? == Restored::More {}
        Ok(())
    }

    /// One step of that.
    pub(super) fn remove_step(
        &mut self,
        path: &PathState,
        repair: &RepairState,
        io: &mut SpareIo<'_>,
        index: u8,
    ) -> Result<Restored> {
        if self.claims(index) != 0 {
            return Err(EBUSY);
        }
        self.change_pool(io.user, index, PoolEvent::Empty);
        if self.restore(path, repair, io, member_bit(index) | self.inherited)? == Restored::More {
            return Ok(Restored::More);
        }
        let member = self.metadata.superblock().member(index).ok_or(ENODEV)?;
        let (geometry, missing) = (member.geometry, member.missing);
        self.metadata
            .remove_member(index)
            .map_err(|why| Error::from_errno(-why.errno().number()))?;
        // What its replicas took from others is theirs again, if this gets to the spares.
        let before: [u32; MEMBERS_MAX as usize] =
            core::array::from_fn(|member| self.usable_slots(member as u8));
        for member in 0..MEMBERS_MAX {
            let _ = self.metadata.regain_slots(member);
        }
        // Nobody asks for these any more, whatever becomes of the superblocks.
        self.forget_slots(io.user, path, index);
        self.inherited &= !member_bit(index);
        self.failed_places &= !(place_bit(index, 0) | place_bit(index, 1));
        self.sync(io)?;
        for (member, before) in (0u8..).zip(before) {
            let usable = self.usable_slots(member);
            self.free_held(io.user, path, member, (before, usable));
        }
        self.show_copies(io.user);
        pr_info!("{}: spare {index} has left the set\n", io.user.name);
        if !missing && io.spares.get(index).is_some() && io.wipe(index, &geometry).is_err() {
            pr_warn!(
                "{}: the superblocks on spare {index} are still there\n",
                io.user.name
            );
        }
        Ok(Restored::Done)
    }

    /// The slots of a member that has left are nothing any more. Those that are free may stay what they are: nobody
    /// is given one of them.
    #[inline(never)]
    pub(super) fn forget_slots(&mut self, user: &UserState, path: &PathState, index: u8) {
        for kind in [Kind::Claim, Kind::Bad, Kind::Doubt] {
            let mut next = 0;
            while let Some((slot, _)) = path.with_map(|map| {
                let slots = map.slots();
                let mut own = slots.of_members(kind, member_bit(index), next);
                own.next()
            }) {
                self.set_word(user, path, slot, UNKNOWN);
                next = slot.saturating_add(1);
            }
        }
        self.pools.forget(index);
    }
}

/// The bit of a replica in a mask of all members' replicas.
fn place_bit(member: u8, replica: u8) -> u16 {
    let index = u32::from(member) * u32::from(REPLICAS) + u32::from(replica);
    1u16.checked_shl(index).unwrap_or(0)
}
