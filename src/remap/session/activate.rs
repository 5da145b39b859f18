// SPDX-License-Identifier: GPL-2.0

//! The first writes of an activation, before any bio is served.
//!
//! The order, and what a crash after each step finds:
//! 1. Members that are not there, or are not what they were, are void from here on, in every superblock
//!    that is written (M2, M9).
//! 2. New spares get their superblocks, with no table block in use: a complete, empty set.
//! 3. Replicas that differ are made equal (M3): the truth was chosen before, and is chosen again.
//! 4. Claims that lost against newer ones are freed (M5): they lose again.
//! 5. Superblock copies that miss something are written.
//!    Or, where all spares are dead, new ones [take over](take_over).
//! 6. Spares join and leave: each is one version of the superblock (see `meta/writer/members.rs`). Replicas are made
//!    again, and members come back, in the background ([`restorer`](crate::remap::jobs::restorer)).
//! 7. The first slots are initialised, if there are none.
//!
//! At the end, what users have yet to hear of flushes of spares that are in the table no more is left to main.
//!
//! A set in good order is not written to at all (M4).
//!
//! The first activation is refused if something of that cannot be written. Later ones are not (P15): main is
//! served, what is remapped as far as its spares answer, and what could not be written is written when that
//! is possible, before any other commit. Main must not be frozen by a spare that is dead.

use kernel::prelude::*;

use crate::{
    abstractions::block,
    logic::{
        commit::COMMIT_BLOCKS_MAX,
        format::{
            member_bit,
            BlockId,
            Superblock,
            MEMBERS_MAX, //
        },
        set::Plan, //
    },
    remap::{
        health::life::{
            Disk,
            Life, //
        },
        meta::{
            io::SpareIo,
            state::{
                Locked,
                MetaState, //
            },
            writer::{
                Restored,
                Writer, //
            }, //
        },
        path::state::PathState,
        repair::state::RepairState,
        setup::{
            load::{
                Return,
                Rewrite,
                Sight, //
            },
            spares::{
                Spare,
                Spares, //
            }, //
        },
        user::{
            names::Show,
            state::UserState, //
        }, //
    }, //
};

use super::{
    state::State,
    take_over, //
};

/// What the constructor found on the spares that has to be done first.
pub(in crate::remap) struct Start {
    /// The spares have no metadata.
    pub(in crate::remap) format: bool,
    /// Replicas that differ.
    pub(in crate::remap) rewrites: KVec<Rewrite>,
    /// Table blocks with claims that lost.
    pub(in crate::remap) dirty: KVec<BlockId>,
}

impl Start {
    /// The members that have what another replica is to get before that is good; a bit each.
    pub(in crate::remap) fn sources(&self, superblock: &Superblock) -> u8 {
        let truths = self.rewrites.iter().filter_map(|rewrite| {
            let member = superblock.member(rewrite.block.member)?;
            member.areas.get(usize::from(rewrite.replica ^ 1))
        });
        truths.fold(0, |mask, area| mask | member_bit(area.host))
    }
}

/// What a table that is resumed brings along.
pub(in crate::remap) struct Table<'a> {
    pub(in crate::remap) spares: &'a Spares,
    /// How it changes the set.
    pub(in crate::remap) plan: &'a Plan,
    /// If the set is new, or its spares are: the table line that names it.
    pub(in crate::remap) line: Option<&'a CStr>,
}

impl Table<'_> {
    /// Has users hear of what may be lost with the cache of a spare that is met under another name.
    pub(in crate::remap) fn tell_renamed(&self, life: &Life) {
        let renamed = self.plan.renamed;
        for member in (0..MEMBERS_MAX).filter(|member| renamed & member_bit(*member) != 0) {
            if life.needs_flush(Disk::Spare(member)) {
                life.own_flush_failed(Disk::Spare(member));
            }
        }
    }

    /// Tells users the line that names the set.
    pub(super) fn tell_line(&self, user: &UserState, when: &str) {
        if let Some(line) = self.line.and_then(|line| line.to_str().ok()) {
            pr_info!("{}: the line to use {when}: {line}\n", user.name);
        }
    }
}

/// Does what `locked.start` says, once, and what the table's plan says.
#[inline(never)]
pub(in crate::remap) fn activate(state: &State, locked: &mut Locked, table: &Table<'_>) -> Result {
    let Table { spares, plan, .. } = *table;
    let Locked {
        writer,
        io,
        start,
        leaving,
    } = locked;
    let leaving = leaving.take();
    // Before that, nobody has written anything.
    let used = start.is_none();
    let all = match &leaving {
        Some(leaving) => spares.with(&leaving.spares),
        None => spares.clone(),
    };
    // Whoever was silent a moment ago may be what is to be back.
    for index in 0..MEMBERS_MAX {
        state.life.note_answer(index);
    }
    let mut io = SpareIo::new(&state.user, &state.life, &all, io);
    go_without(
        &state.user,
        &state.life,
        &state.pool,
        writer,
        start.as_ref(),
        table,
    )?;
    writer.use_all(&state.user, &state.path, &state.repair);
    if let Some(todo) = start {
        begin(&state.path, &state.repair, writer, &mut io, todo, table)?;
    }
    if let Some(dead) = leaving.as_ref().and_then(|leaving| leaving.dead.as_ref()) {
        if take_over::begin(&state.path, &state.pool, writer, &mut io, dead, table).is_err() {
            // The table does without them all the same.
            for member in 0..MEMBERS_MAX {
                if plan.inherited & member_bit(member) != 0 {
                    writer.metadata.set_present(member, false);
                }
            }
            writer.show_members(&state.user, &state.life);
            leave_flushes(&state.life, writer, spares, used);
            return Ok(());
        }
    }
    let recorded = record(&state.path, &state.repair, writer, &mut io);
    match recorded {
        Err(error) if !used => return Err(error),
        Err(_) => pr_err!(
            "{}: going on without: nothing is remapped until metadata can be written\n",
            state.user.name
        ),
        Ok(()) => (),
    }
    // Who could not be written to a moment ago is not asked again.
    if recorded.is_ok() || plan.has_joining() {
        change_set(&state.path, &state.repair, writer, &mut io, table, used)?;
    }
    *start = None;
    leave_flushes(&state.life, writer, spares, used);
    Ok(())
}

/// What comes before anybody is served for the first time.
#[inline(never)]
fn begin(
    path: &PathState,
    repair: &RepairState,
    writer: &mut Writer,
    io: &mut SpareIo<'_>,
    todo: &mut Start,
    table: &Table<'_>,
) -> Result {
    let user = io.user;
    let name = &user.name;
    if todo.format {
        join(user, path, writer, table.plan)?;
        writer.sync(io)?;
        turn_away(path, repair, writer, io, table.plan)?;
        place_replicas(path, repair, writer, io);
        todo.format = false;
        pr_info!(
            "{name}: formatted spare {}\n",
            Show(writer.metadata.superblock().set_uuid)
        );
        table.tell_line(user, "from now on");
    }
    let repaired = todo.rewrites.len().saturating_add(todo.dirty.len());
    while let Some(rewrite) = todo.rewrites.last() {
        writer.equalise(io, rewrite)?;
        // Whoever tries again need not wait for the spare that this one was read from.
        let _ = todo.rewrites.pop();
    }
    for blocks in todo.dirty.chunks(COMMIT_BLOCKS_MAX) {
        writer.commit_blocks(path, repair, io, blocks)?;
    }
    todo.dirty.clear();
    if repaired != 0 {
        pr_info!("{name}: repaired {repaired} metadata blocks\n");
    }
    Ok(())
}

/// Writes what an earlier commit or superblock pass has left behind.
fn record(
    path: &PathState,
    repair: &RepairState,
    writer: &mut Writer,
    io: &mut SpareIo<'_>,
) -> Result {
    if writer.metadata.is_unsettled() {
        writer.commit_blocks(path, repair, io, &[])?;
    }
    writer.refresh(io)
}

/// Brings members and redundancy to what the table says.
#[inline(never)]
fn change_set(
    path: &PathState,
    repair: &RepairState,
    writer: &mut Writer,
    io: &mut SpareIo<'_>,
    table: &Table<'_>,
    used: bool,
) -> Result {
    let plan = table.plan;
    if join(io.user, path, writer, plan)? {
        let joined = match writer.sync(io) {
            Ok(()) => turn_away(path, repair, writer, io, plan),
            Err(error) => {
                withdraw(io.user, io.life, writer, plan);
                Err(error)
            }
        };
        if !used {
            joined?;
        }
    }
    check_members(io.user, writer, table, used)?;
    change_members(path, repair, writer, io, plan)?;
    let mut marks = writer.metadata.superblock().members();
    let unused = marks.all(|(_, member)| member.high_water == 0);
    drop(marks);
    if unused {
        let extended = writer.extend(path, io);
        if !used {
            extended?;
        }
    }
    Ok(())
}

/// Waits for no more flushes of spares that the table does not name: there will be none. `used` tells
/// whether there was another table before; if not, users have nothing to hear of a spare that is lost, or serves
/// nothing: what a device before this one may have left in its cache was not for it.
fn leave_flushes(life: &Life, writer: &Writer, spares: &Spares, used: bool) {
    for index in 0..MEMBERS_MAX {
        let there = spares.get(index).is_some();
        if used && !there {
            let serves = writer.metadata.superblock().member(index).is_some();
            life.leave_spare(index, serves);
        } else if !used && (!there || life.is_lost(index) || writer.claims(index) == 0) {
            life.reset_spare(index);
        }
    }
}

/// Goes on without the members that are not there, which the constructor has allowed, and with those
/// that are there again.
#[inline(never)]
fn go_without(
    user: &UserState,
    life: &Life,
    pool: &block::BioPool,
    writer: &mut Writer,
    start: Option<&Start>,
    table: &Table<'_>,
) -> Result {
    let Table { spares, plan, .. } = *table;
    let superblock = writer.metadata.superblock();
    let absent = superblock
        .members()
        .filter(|(index, member)| !member.missing && !plan.leaves(*index))
        .fold(0, |mask, (index, _)| mask | member_bit(index));
    let absent = absent & plan.unnamed(superblock);
    let needed = writer.set(start).not_without(absent);
    if let Some(index) = needed.filter(|_| start.is_some()) {
        // Nothing has changed so far: a table that names it does.
        tell_needed(user, index);
        return Err(EIO);
    }
    if start.is_none() {
        use_again(pool, writer, spares);
    }
    let mut strangers = 0;
    for index in 0..MEMBERS_MAX {
        let Some(member) = writer.metadata.superblock().member(index) else {
            continue;
        };
        let missing = member.missing;
        if let Some(spare) = spares.get(index) {
            if writer.metadata.is_usable(index) {
                writer.note_answered(index, false);
                continue;
            }
            let back = look_at(pool, writer, index, spare);
            match back {
                // It is brought up to date already.
                Return::Same if missing && writer.metadata.is_present(index) => continue,
                Return::Same => (),
                Return::Silent => pr_warn!("{}: spare {index} does not answer\n", user.name),
                Return::Refused(ref error) => {
                    pr_err!("{}: not taken back: {}\n", user.name, Show(error));
                    strangers |= member_bit(index);
                }
            }
            // Also where a read-only table went without it: nobody has compared its replicas.
            let lost = lose(user, writer, index);
            if start.is_some() || strangers & member_bit(index) != 0 {
                lost?;
            }
            let same = matches!(back, Return::Same);
            writer.metadata.set_present(index, same);
        } else if (plan.leaving | plan.inherited) & member_bit(index) == 0 {
            // If that is not possible any more, as another one has died since the table was loaded, nothing can
            // be written until a table names it.
            let lost = lose(user, writer, index);
            if start.is_some() {
                lost?;
            }
            writer.metadata.set_present(index, false);
        }
    }
    writer.set_strangers(strangers);
    writer.show_members(user, life);
    Ok(())
}

/// Where no member is used, as new spares were to take over from all and did not, those that are named again and are
/// what they were are used as before: nothing was written without them.
fn use_again(pool: &block::BioPool, writer: &mut Writer, spares: &Spares) {
    if writer.set(None).durable_alone().is_none() {
        return;
    }
    let mut back = 0;
    for (index, spare) in spares.iter() {
        let member = writer.metadata.superblock().member(index);
        if member.is_some_and(|member| !member.missing)
            && matches!(look_at(pool, writer, index, spare), Return::Same)
        {
            back |= member_bit(index);
        }
    }
    for index in (0..MEMBERS_MAX).filter(|index| back & member_bit(*index) != 0) {
        writer.metadata.set_present(index, true);
    }
}

/// Looks whether a spare that was away is the member that it was.
#[inline(never)]
fn look_at(pool: &block::BioPool, writer: &Writer, index: u8, spare: &Spare) -> Return {
    match Sight::of(pool, spare) {
        Ok(seen) => seen.check(&writer.set(None), index, index),
        // There is no memory for it, and it stays away.
        Err(_) => Return::Silent,
    }
}

fn lose(user: &UserState, writer: &mut Writer, index: u8) -> Result {
    writer.metadata.lose_member(index).map_err(|why| {
        tell_needed(user, index);
        Error::from_errno(-why.errno().number())
    })
}

fn tell_needed(user: &UserState, index: u8) {
    let name = &user.name;
    pr_err!("{name}: spare {index} has the only good copy of metadata: not without it\n");
}

/// Makes members of the spares that join. Returns whether there were any.
pub(super) fn join(
    user: &UserState,
    path: &PathState,
    writer: &mut Writer,
    plan: &Plan,
) -> Result<bool> {
    let mut joined = false;
    for (change, index) in plan.joining.iter().zip(0u8..) {
        let Some((uuid, geometry)) = change else {
            continue;
        };
        match writer.metadata.superblock().member(index) {
            Some(member) if member.uuid == *uuid => continue,
            Some(_) => return Err(EBUSY),
            None => (),
        }
        if has_numbers(path, index) {
            pr_err!(
                "{}: there is no memory to forget what was spare {index}\n",
                user.name
            );
            return Err(ENOMEM);
        }
        let added = writer.metadata.add_member(index, *uuid, *geometry);
        added.map_err(|why| Error::from_errno(-why.errno().number()))?;
        joined = true;
        pr_info!("{}: spare {index} joins the set\n", user.name);
    }
    Ok(joined)
}

/// Checks that no slot has a number that belongs to one who joins, as it would if who had that number in
/// the set before could not be forgotten.
pub(in crate::remap) fn check_forgotten(path: &PathState, meta: &MetaState, plan: &Plan) -> Result {
    let locked = meta.writer.lock();
    let superblock = locked.writer.metadata.superblock();
    let mut joining = (0..MEMBERS_MAX).filter(|index| plan.joins(*index));
    match joining.any(|index| superblock.member(index).is_none() && has_numbers(path, index)) {
        true => Err(ENOMEM),
        false => Ok(()),
    }
}

/// Whether slots of a member, or of one that had its number before, have numbers.
fn has_numbers(path: &PathState, index: u8) -> bool {
    path.with_map(|map| map.extents().known(index)) != 0
}

/// Takes those back that were to join, as the other spares could not be told.
fn withdraw(user: &UserState, life: &Life, writer: &mut Writer, plan: &Plan) {
    for (change, index) in plan.joining.iter().zip(0u8..) {
        let member = writer.metadata.superblock().member(index);
        let Some(member) = member.filter(|_| change.is_some()) else {
            continue;
        };
        if !member.has_supers() && writer.metadata.remove_member(index).is_ok() {
            pr_err!("{}: spare {index} cannot join the set\n", user.name);
        }
    }
    writer.show_members(user, life);
}

/// Fails if a spare that was to join did not take its superblocks: it is none. It was lost at once, or
/// nearly all of its copies were written off.
fn turn_away(
    path: &PathState,
    repair: &RepairState,
    writer: &mut Writer,
    io: &mut SpareIo<'_>,
    plan: &Plan,
) -> Result {
    let mut result = Ok(());
    for (change, index) in plan.joining.iter().zip(0u8..) {
        let member = writer.metadata.superblock().member(index);
        let Some(member) = member.filter(|_| change.is_some()) else {
            continue;
        };
        if !writer.metadata.is_usable(index) || !member.has_supers() {
            let name = &io.user.name;
            pr_err!("{name}: spare {index} does not take its superblocks: not a member\n");
            writer.remove_member(path, repair, io, index)?;
            result = Err(EIO);
        }
    }
    result
}

/// Fails if the table names a spare that is no member: users would count on it. Where others are `used`, one
/// that could not join is told and that is all.
fn check_members(user: &UserState, writer: &Writer, table: &Table<'_>, used: bool) -> Result {
    let superblock = writer.metadata.superblock();
    let joins = |index: u8| table.plan.joins(index) && used;
    let mut stranger = table.spares.iter();
    match stranger.find(|(index, _)| superblock.member(*index).is_none() && !joins(*index)) {
        None => Ok(()),
        Some((index, _)) => {
            pr_err!("{}: spare {index} is not a member of the set\n", user.name);
            Err(EIO)
        }
    }
}

/// Takes those out of the set that are to leave it. What is not possible is tried again by the next activation,
/// and the status tells of it. The rest is done in the background (see `jobs/restorer.rs`).
fn change_members(
    path: &PathState,
    repair: &RepairState,
    writer: &mut Writer,
    io: &mut SpareIo<'_>,
    plan: &Plan,
) -> Result {
    for index in 0..MEMBERS_MAX {
        if !plan.leaves(index) || writer.metadata.superblock().member(index).is_none() {
            continue;
        }
        if writer.claims(index) != 0 {
            // A repair was under way to it when the table was loaded. Its data would be an error.
            let name = &io.user.name;
            pr_err!("{name}: spare {index} serves blocks by now: load a table with it\n");
            return Err(EBUSY);
        }
        let mut removed = writer.remove_member(path, repair, io, index);
        if removed.is_err() && !writer.metadata.is_usable(index) {
            // It was lost with that, and then there is less to do.
            removed = writer.remove_member(path, repair, io, index);
        }
        if let Err(error) = removed {
            let name = &io.user.name;
            pr_warn!("{name}: spare {index} cannot leave the set yet: {error:?}\n");
        }
    }
    Ok(())
}

/// The tables of a new set have nothing in them, and each replica gets its place before that changes. What is not
/// possible is tried again in the background.
fn place_replicas(
    path: &PathState,
    repair: &RepairState,
    writer: &mut Writer,
    io: &mut SpareIo<'_>,
) {
    while matches!(writer.restore(path, repair, io, 0), Ok(Restored::More)) {}
}

/// Writes down that everything is in order. If this fails, nothing is lost: the metadata is good
/// without it.
pub(in crate::remap) fn deactivate(
    user: &UserState,
    life: &Life,
    locked: &mut Locked,
    spares: &Spares,
) {
    if !locked.writer.metadata.is_touched() {
        return;
    }
    let mut io = SpareIo::new(user, life, spares, &mut locked.io);
    let unsettled = locked.writer.metadata.is_unsettled();
    locked.writer.metadata.set_clean(!unsettled);
    let _ = locked.writer.sync(&mut io);
}
