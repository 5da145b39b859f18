// SPDX-License-Identifier: GPL-2.0

//! Who uses which part of which disk, as main or as a spare (D1, D1a).
//!
//! Device mapper lets two devices use the same disk, as it shares one claim among all its devices.
//! So every target claims its main and the parts that are its spares, from before anything is read until
//! it is destroyed, also in a table that is not in use. An overlap with what another target has is
//! refused, but for one case: the same mapped device may load another table, and what was main stays
//! main, and a window on a spare stays that window. (Two targets of one table may have nothing in
//! common: they would serve different blocks from the same slots.)
//!
//! The claim of a spare says which state it belongs to, once that is known: so the next table finds the
//! state of the one in use. It may have other spares besides, which join the set or leave it. A state is
//! forgotten with the last table that uses it.
//!
//! Ranges cannot tell that two devices have the same content: a snapshot or a copy of a spare, or
//! another way to the same disk. The set's UUID can. A set that is in use is activated once only.
//!
//! The lock is taken by constructors and destructors, with no other one held, and nothing is allocated
//! or dropped under it: memory may be made free by writing to one of our devices, which must not wait
//! for who holds it.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

use crate::{
    abstractions::{
        dm,
        sync, //
    },
    logic::{
        format::MEMBERS_MAX,
        set::Name,
        text::Uuid, //
    },
    remap::{
        session::state::State,
        user::names::LogName, //
    }, //
};

static CLAIMS: sync::Global<List> = sync::Global::new(List(None));

/// A part of a device.
#[derive(Clone, Copy)]
pub(in crate::remap) struct Part<'a> {
    pub(in crate::remap) device: &'a dm::Device,
    /// First sector on the device, and one past the last.
    pub(in crate::remap) range: (u64, u64),
}

/// Whose parts are looked for.
#[derive(Clone, Copy)]
pub(in crate::remap) struct User {
    pub(in crate::remap) mapped_device: dm::MappedDeviceId,
    pub(in crate::remap) table: dm::TableId,
}

/// What a part is used as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    Spare,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Main => "main",
            Role::Spare => "a spare",
        }
    }
}

/// A part that a target has.
struct Claim {
    /// Names the target.
    target: u64,
    user: User,
    /// How the kernel log calls its mapped device.
    name: LogName,
    device: dm::Device,
    range: (u64, u64),
    role: Role,
    /// Of a spare, once that is known: the state, and which member of the set it is, or will be when a
    /// table is resumed that names it.
    use_of: Option<(Arc<State>, Name)>,
    next: Option<KBox<Claim>>,
}

impl Claim {
    fn overlaps(&self, part: &Part<'_>) -> bool {
        let (own, other) = (
            absolute(&self.device, self.range),
            absolute(part.device, part.range),
        );
        self.device.is_same_disk(part.device) && own.0 < other.1 && other.0 < own.1
    }

    fn is_same(&self, part: &Part<'_>) -> bool {
        self.device == *part.device && self.range.0 == part.range.0
    }

    fn part(&self) -> Part<'_> {
        Part {
            device: &self.device,
            range: self.range,
        }
    }

    /// Whether another target may have what this one has a part of: the next table of the same mapped
    /// device, for the same purpose.
    fn suffers(&self, other: &Claim) -> bool {
        self.user.mapped_device == other.user.mapped_device
            && self.user.table != other.user.table
            && self.role == other.role
            && (self.role == Role::Main || self.is_same(&other.part()))
    }

    /// Whether it belongs to a state.
    fn is_of(&self, state: &Arc<State>) -> bool {
        let mut own = self.use_of.iter();
        own.any(|(known, _)| Arc::ptr_eq(known, state))
    }
}

/// Claims, one behind the other, so that none has to be moved when there are more.
struct List(Option<KBox<Claim>>);

impl List {
    fn iter(&self) -> impl Iterator<Item = &Claim> {
        core::iter::successors(self.0.as_deref(), |claim| claim.next.as_deref())
    }

    fn push(&mut self, mut claim: KBox<Claim>) {
        claim.next = self.0.take();
        self.0 = Some(claim);
    }

    fn pop(&mut self) -> Option<KBox<Claim>> {
        let mut claim = self.0.take()?;
        self.0 = claim.next.take();
        Some(claim)
    }

    /// Moves all claims of a target to another list.
    fn take(&mut self, target: u64, taken: &mut List) {
        let mut kept = List(None);
        while let Some(claim) = self.pop() {
            match claim.target == target {
                true => taken.push(claim),
                false => kept.push(claim),
            }
        }
        self.0 = kept.0.take();
    }

    /// Does something to the claims of a target.
    fn each_of(&mut self, target: u64, mut work: impl FnMut(&mut Claim)) {
        let mut at = self.0.as_deref_mut();
        while let Some(claim) = at {
            if claim.target == target {
                work(claim);
            }
            at = claim.next.as_deref_mut();
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // One after the other: the kernel's stack is small.
        while self.pop().is_some() {}
    }
}

/// A range of a partition, counted on its disk.
pub(in crate::remap) fn absolute(device: &dm::Device, (start, end): (u64, u64)) -> (u64, u64) {
    let offset = device.partition_start();
    (start.saturating_add(offset), end.saturating_add(offset))
}

/// The parts that a target has, until this is dropped.
pub(in crate::remap) struct Claims {
    target: u64,
    user: User,
}

impl Drop for Claims {
    fn drop(&mut self) {
        let mut taken = List(None);
        CLAIMS.lock().take(self.target, &mut taken);
    }
}

/// Why a target does not get what it claims.
pub(in crate::remap) enum ClaimError {
    /// Another one has a part of what is to be main.
    Main,
    /// Another one has a part of what is to be a spare.
    Spare,
    /// Something else went wrong.
    Errno(Error),
}

impl From<Error> for ClaimError {
    fn from(error: Error) -> Self {
        ClaimError::Errno(error)
    }
}

/// Claims main and the spares for a target. If another one has a part of them, the log tells its name.
pub(in crate::remap) fn claim(
    user: User,
    name: &LogName,
    main: Part<'_>,
    spares: &[Part<'_>],
) -> core::result::Result<Claims, ClaimError> {
    static NEXT: Atomic<u64> = Atomic::new(0);
    let target = NEXT.fetch_add(1, Relaxed);
    let mut fresh = List(None);
    let spares = spares.iter().map(|part| (Role::Spare, *part));
    for (role, part) in Iterator::chain(core::iter::once((Role::Main, main)), spares) {
        let claim = Claim {
            target,
            user,
            name: name.try_clone()?,
            device: part.device.clone(),
            range: part.range,
            role,
            use_of: None,
            next: None,
        };
        fresh.push(KBox::new(claim, GFP_KERNEL).map_err(Error::from)?);
    }
    let mut claims = CLAIMS.lock();
    for own in fresh.iter() {
        let mut overlapping = claims.iter().filter(|claim| claim.overlaps(&own.part()));
        if let Some(other) = overlapping.find(|claim| !claim.suffers(own)) {
            let (device, role) = (own.device.number(), other.role.name());
            pr_err!(
                "{name}: {device}, or a part of it, is {role} of {}\n",
                other.name
            );
            return Err(match own.role {
                Role::Main => ClaimError::Main,
                Role::Spare => ClaimError::Spare,
            });
        }
    }
    while let Some(claim) = fresh.pop() {
        claims.push(claim);
    }
    Ok(Claims { target, user })
}

/// A registered use of a state.
pub(in crate::remap) struct StateRef {
    state: Arc<State>,
    claims: Claims,
}

impl core::ops::Deref for StateRef {
    type Target = Arc<State>;

    #[inline(always)]
    fn deref(&self) -> &Arc<State> {
        &self.state
    }
}

impl Drop for StateRef {
    fn drop(&mut self) {
        let table = self.claims.user.table;
        let unused = self.state.meta.writer.lock().stay(&self.state.user, table);
        drop(unused);
    }
}

/// A state that is in use, and which members its parts are.
pub(in crate::remap) struct Known {
    pub(in crate::remap) state: Arc<State>,
    /// In the order of the parts; none for one that is not in use so far. Of a spare that is to join
    /// there is a name before it is a member, and it never is one if that table is not resumed.
    pub(in crate::remap) members: [Option<Name>; MEMBERS_MAX as usize],
}

impl Claims {
    /// Finds the state that the same mapped device uses for one of these parts. Fails with [`EBUSY`] if
    /// they are of several, or if another target of the table has it.
    pub(in crate::remap) fn find(&self, parts: &[Part<'_>]) -> Result<Option<Known>> {
        let mut members = [None; MEMBERS_MAX as usize];
        let mut state: Option<Arc<State>> = None;
        let mut claims = CLAIMS.lock();
        let known = || claims.iter().filter(|claim| self.is_before(claim));
        for (part, place) in parts.iter().zip(&mut members) {
            let mut same = known().filter(|claim| claim.is_same(part));
            let Some((found, name)) = same.find_map(|claim| claim.use_of.as_ref()) else {
                continue;
            };
            let other = |state: &Arc<State>| !Arc::ptr_eq(state, found);
            if state.as_ref().is_some_and(other) {
                return Err(EBUSY);
            }
            state = Some(found.clone());
            *place = Some(*name);
        }
        let Some(state) = state else {
            return Ok(None);
        };
        if self.has(&claims, &state) {
            return Err(EBUSY);
        }
        // From here on the state is in use, whatever becomes of the other table.
        for (part, name) in parts.iter().zip(&members) {
            claims.each_of(self.target, |claim| {
                if claim.role == Role::Spare && claim.is_same(part) {
                    claim.use_of = name.map(|name| (state.clone(), name));
                }
            });
        }
        Ok(Some(Known { state, members }))
    }

    /// Whether some target of the same table uses a state.
    fn has(&self, claims: &List, state: &Arc<State>) -> bool {
        let mut own = claims
            .iter()
            .filter(|claim| claim.user.table == self.user.table);
        own.any(|claim| claim.is_of(state))
    }

    /// Whether a claim is one of an earlier table of the same mapped device.
    fn is_before(&self, claim: &Claim) -> bool {
        claim.user.mapped_device == self.user.mapped_device && claim.user.table != self.user.table
    }

    /// Whether the same mapped device has remaps that a table would leave behind: on spares that the
    /// table has not named so far.
    pub(in crate::remap) fn leaves_remaps(&self) -> bool {
        let claims = CLAIMS.lock();
        let mut before = claims.iter().filter(|claim| self.is_before(claim));
        let named = |before: &Claim| {
            let mut own = claims
                .iter()
                .filter(|claim| claim.user.table == self.user.table);
            own.any(|claim| claim.is_same(&before.part()))
        };
        before.any(|claim| {
            let Some((state, _)) = claim.use_of.as_ref().filter(|_| !named(claim)) else {
                return false;
            };
            state.user.counters.remapped.get() != 0 || state.user.counters.pending.get() != 0
        })
    }

    /// Finds a state that earlier tables of the same mapped device use, and no other target of this one, by
    /// the name of its set.
    pub(in crate::remap) fn find_set(&self, uuid: &Uuid) -> Option<Arc<State>> {
        let claims = CLAIMS.lock();
        let mut before = claims.iter().filter(|claim| self.is_before(claim));
        let (state, _) = before.find_map(|claim| {
            let mut known = claim.use_of.iter();
            known.find(|(state, _)| state.uuid == *uuid)
        })?;
        (!self.has(&claims, state)).then(|| state.clone())
    }

    /// The state that earlier tables of the same mapped device have for this main, if no other target of this
    /// one has it.
    pub(in crate::remap) fn find_by_main(&self, main: &dm::Device) -> Option<Arc<State>> {
        let claims = CLAIMS.lock();
        let is_main = |claim: &Claim| claim.role == Role::Main && claim.device == *main;
        let mut mains = claims
            .iter()
            .filter(|claim| self.is_before(claim) && is_main(claim));
        let (state, _) = mains.find_map(|main| {
            let mut spares = claims.iter().filter(|claim| claim.target == main.target);
            spares.find_map(|claim| claim.use_of.as_ref())
        })?;
        (!self.has(&claims, state)).then(|| state.clone())
    }

    /// Whether earlier tables of the same mapped device have a state.
    pub(in crate::remap) fn has_before(&self) -> bool {
        let claims = CLAIMS.lock();
        let mut before = claims.iter().filter(|claim| self.is_before(claim));
        before.any(|claim| claim.use_of.is_some())
    }

    /// Whether main is what it was before in the same mapped device.
    pub(in crate::remap) fn knows_main(&self, main: &dm::Device) -> bool {
        let claims = CLAIMS.lock();
        let mut before = claims.iter().filter(|claim| self.is_before(claim));
        before.any(|claim| claim.role == Role::Main && claim.device == *main)
    }

    /// Begins to use a state.
    pub(in crate::remap) fn with(self, state: Arc<State>) -> StateRef {
        StateRef {
            state,
            claims: self,
        }
    }
}

/// The spare of a member that a state has in use: the device, and which part of it.
pub(in crate::remap) fn spare_of(
    state: &Arc<State>,
    member: Name,
) -> Option<(dm::Device, (u64, u64))> {
    let claims = CLAIMS.lock();
    let mut all = claims.iter();
    let of = |claim: &&Claim| {
        let mut own = claim.use_of.iter();
        own.any(|(known, name)| Arc::ptr_eq(known, state) && *name == member)
    };
    all.find(of)
        .map(|claim| (claim.device.clone(), claim.range))
}

impl StateRef {
    /// Says that a part which was claimed is the spare of a member. Fails with [`EEXIST`] if the same set
    /// is in use already: what was found is a copy of it, or another way to it.
    pub(in crate::remap) fn add(&self, part: &Part<'_>, member: Name) -> Result {
        let mut claims = CLAIMS.lock();
        let elsewhere = |(state, _): &(Arc<State>, Name)| {
            state.uuid == self.state.uuid && !Arc::ptr_eq(state, &self.state)
        };
        let in_use = |claim: &Claim| claim.use_of.iter().any(elsewhere);
        if claims.iter().any(in_use) {
            return Err(EEXIST);
        }
        claims.each_of(self.claims.target, |claim| {
            if claim.role == Role::Spare && claim.is_same(part) {
                claim.use_of = Some((self.state.clone(), member));
            }
        });
        Ok(())
    }
}
