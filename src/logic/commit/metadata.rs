// SPDX-License-Identifier: GPL-2.0

//! What an activation knows about the spare's metadata, and what can be done with it.

use super::{
    super::{
        format::{
            member::home,
            member_bit,
            reserve::{
                Reserve,
                Reserves, //
            },
            sequence,
            sequence_epoch,
            Area,
            Block,
            BlockId,
            CopyId,
            Geometry,
            Member,
            Statistics,
            Superblock,
            BLOCK_SECTORS,
            INCOMPAT_LOST,
            INCOMPAT_UNFINISHED,
            MEMBERS_MAX,
            REPLICAS,
            SUPER_COPIES, //
        },
        load::Chosen,
        text::{
            MainId,
            Uuid, //
        }, //
    },
    op::Job,
    step::Failure,
    Op,
    ALL_REPLICAS,
    COMMIT_BLOCKS_MAX,
    EXTEND_BLOCKS_MAX,
    REBUILD_BLOCKS_MAX, //
};

/// A block that a failed commit left in two states.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    pub(super) block: BlockId,
    /// The replica that is to be written first, the other one having a good copy.
    pub(super) suspect: u8,
}

/// A void replica that is being made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The member whose table it is.
    pub member: u8,
    /// Which replica.
    pub replica: u8,
    /// The first block that is not there, or not any more.
    pub next: u32,
}

/// What an activation knows about the metadata of a set, and must know to change it.
#[derive(Clone, Debug)]
pub struct Metadata {
    pub(super) superblock: Superblock,
    /// The members whose spares are there; a bit each.
    pub(super) present: u8,
    /// The last counter given out in this activation.
    pub(super) counter: u64,
    /// Whether the superblock's epoch is this activation's own.
    pub(super) raised: bool,
    /// Whether some live copy does not have the superblock as it is here. Nothing else is written
    /// before they do.
    pub(super) stale: bool,
    /// Whether a member is not there, and nothing on the others says so that it could not know of:
    /// what may have been written to it in its last moments must not pass for newer than they are.
    pub(super) without: bool,
    /// Superblock copies that may be bad or old; a bit each.
    pub(super) doubtful: u16,
    /// Void superblock copies that this activation has not tried to write; a bit each.
    pub(super) revive: u16,
    /// The same of members that are about to join: not before all live copies tell of them.
    pub(super) joining: u16,
    pub(super) rebuild: Option<Rebuild>,
    /// Superblock copies that loading found to be damaged or behind; a bit each.
    pub(super) damaged: u16,
    pub(super) unsettled: [Unsettled; COMMIT_BLOCKS_MAX],
    pub(super) unsettled_count: usize,
    /// Somebody else has written the metadata: nothing is written any more.
    pub(super) foreign: bool,
}

impl Metadata {
    /// What there is before a superblock was found or made.
    pub const EMPTY: Metadata = Metadata {
        superblock: Superblock::EMPTY,
        present: 0,
        counter: 0,
        raised: false,
        stale: false,
        without: false,
        doubtful: 0,
        revive: 0,
        joining: 0,
        damaged: 0,
        rebuild: None,
        unsettled: [Unsettled {
            block: BlockId {
                member: 0,
                block: 0,
            },
            suspect: 0,
        }; COMMIT_BLOCKS_MAX],
        unsettled_count: 0,
        foreign: false,
    };

    /// The place for the superblock that loading chooses, or that is made. Afterwards
    /// [`Metadata::open`] or [`Metadata::create`] is called.
    pub fn superblock_mut(&mut self) -> &mut Superblock {
        &mut self.superblock
    }

    /// Gives a name of its own, before [`Metadata::open`], to a blank spare that loading takes for a
    /// member which is about to join. The spare that was to have the name may be another one, and may
    /// have got superblocks that the others know nothing of: met again, these must not pass for this
    /// one's, nor for newer than what is done from here on.
    pub fn name_anew(&mut self, chosen: &Chosen, mut fresh: impl FnMut() -> Uuid) {
        let blank = chosen.joining & !chosen.begun;
        let mut renamed = false;
        for (spare, place) in chosen.spares.iter().zip(&mut self.superblock.members) {
            let is_blank = spare.is_some_and(|spare| blank & member_bit(spare) != 0);
            if let Some(member) = place.as_mut().filter(|_| is_blank) {
                member.uuid = fresh();
                renamed = true;
            }
        }
        if renamed {
            self.raise_set_epoch();
        }
    }

    /// Starts with what loading found: the superblock, how what is there differs from it, and for
    /// each member the number of table blocks in use, which is its high-water mark or more (M8).
    pub fn open(&mut self, chosen: &Chosen, table_blocks: &[u32; MEMBERS_MAX as usize]) {
        self.stale = chosen.rewrite != 0;
        self.damaged = chosen.rewrite;
        self.doubtful = chosen.rewrite;
        for (member, blocks) in self.superblock.members.iter_mut().zip(table_blocks) {
            if let Some(member) = member.as_mut().filter(|m| *blocks > m.high_water) {
                member.high_water = *blocks;
                self.stale = true;
            }
        }
        for (spare, index) in chosen.spares.iter().zip(0u8..) {
            if spare.is_some() {
                self.present |= member_bit(index);
            }
        }
        self.without = chosen.absent(&self.superblock).is_some();
        let joining = self.superblock.members().filter(|(_, m)| m.is_joining());
        self.joining = joining.fold(0, |mask, (index, _)| mask | member_supers(index))
            & self.reachable_supers();
        self.stale |= self.joining != 0;
        self.revive = self.reachable_supers() & !self.superblock.live_supers() & !self.joining;
    }

    /// Starts with a new superblock. The set is formatted when [`Metadata::sync`] succeeded, and
    /// can be used after a first [`Metadata::extend`].
    pub fn create(&mut self) {
        self.stale = true;
        for (index, _) in self.superblock.members() {
            self.present |= member_bit(index);
        }
    }

    /// The superblock as it is in memory.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The statistics; what is changed gets to the spare whenever the superblock is written.
    pub fn statistics_mut(&mut self) -> &mut Statistics {
        &mut self.superblock.statistics
    }

    /// Whether the superblock should be written soon ([`Metadata::sync`]): some live copy is older
    /// than others.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether a commit failed in between and another one is needed to settle it
    /// ([`Metadata::commit`], of no blocks if there is nothing else to commit).
    pub fn is_unsettled(&self) -> bool {
        self.unsettled_count != 0
    }

    /// Remembers that somebody else has written the metadata: every operation fails from here on, as what is on the
    /// spares is not what is in memory, and whoever wrote it may go on.
    pub fn set_foreign(&mut self) {
        self.foreign = true;
    }

    /// Whether somebody else has written the metadata.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Whether a table block's sequence is one that this activation has neither found nor given out.
    pub fn is_newer(&self, found: u64) -> bool {
        let own = sequence(self.superblock.epoch, self.counter);
        sequence_epoch(found) > self.superblock.epoch
            || self.raised && own.is_some_and(|own| found > own)
    }

    /// A superblock copy was found to be damaged or older: it is written again with the next [`Metadata::sync`].
    pub fn note_damaged(&mut self, copy: CopyId) {
        self.damaged |= copy.bit();
        self.doubtful |= copy.bit();
        self.stale = true;
    }

    /// Says how much of main is used, if that is more than ever before, and what the user calls it, if
    /// that is new. Entries may name the additional blocks after the next [`Metadata::sync`].
    pub fn set_main(&mut self, sectors: u64, id: Option<&MainId>) {
        if sectors > self.superblock.main_sectors {
            self.superblock.main_sectors = sectors;
            self.stale = true;
        }
        if let Some(id) = id.filter(|id| **id != self.superblock.main_id) {
            self.superblock.main_id = *id;
            self.stale = true;
        }
    }

    /// Says whether the activation is ended in order. Gets to the spare with the next
    /// [`Metadata::sync`]; the first commit takes it back, as it begins a new epoch.
    pub fn set_clean(&mut self, clean: bool) {
        self.superblock.clean = clean;
        self.raised &= !clean;
    }

    /// Whether this activation wrote anything that a clean end should be recorded for.
    pub fn is_touched(&self) -> bool {
        self.raised
    }

    /// A generation for entries that the next commit adds or changes: larger than all before (M5).
    /// None if the counters are at their end.
    pub fn next_generation(&mut self) -> Option<u64> {
        let epoch = if self.raised {
            self.superblock.epoch
        } else {
            self.superblock.epoch.checked_add(1)?
        };
        self.counter = self.counter.checked_add(1)?;
        sequence(epoch, self.counter)
    }

    /// The names of all members; of a number without a member, none.
    pub fn member_names(&self) -> [Uuid; MEMBERS_MAX as usize] {
        let name = |member: &Option<Member>| member.as_ref().map_or(Uuid::NIL, |m| m.uuid);
        self.superblock.members.each_ref().map(name)
    }

    /// Whether the spare of a member is there.
    pub fn is_present(&self, member: u8) -> bool {
        self.present & member_bit(member) != 0
    }

    /// Whether the slots of a member can be used: its spare is there, and is believed.
    pub fn is_usable(&self, index: u8) -> bool {
        let member = self.superblock.member(index);
        self.is_present(index) && member.is_some_and(|member| !member.missing)
    }

    /// Says whether the spare of a member is there. Of one that is there again, the superblock copies
    /// are tried again, and what is void on it can be made again.
    pub fn set_present(&mut self, member: u8, present: bool) {
        if present {
            let void = member_supers(member) & !self.superblock.live_supers();
            self.present |= member_bit(member);
            self.revive |= void & self.reachable_supers();
            self.stale |= void != 0;
        } else {
            self.present &= !member_bit(member);
            self.revive &= self.reachable_supers();
            self.joining &= self.reachable_supers();
        }
    }

    /// Adds a spare to the set under a number that is free, as a member without any slots in use so far. It is one
    /// when the next [`Metadata::sync`] has succeeded; after a failure, [`Metadata::remove_member`] takes it back.
    ///
    /// First all members tell of it, then it gets superblock copies of its own: from the first of
    /// these on it may be newer than the others, which therefore must not be used without it.
    pub fn add_member(&mut self, index: u8, uuid: Uuid, geometry: Geometry) -> Result<(), Failure> {
        let place = self.superblock.members.get_mut(usize::from(index));
        let place = place.ok_or(Failure::TooMany)?;
        if place.is_some() || geometry.slot_sectors() != self.superblock.slot_sectors {
            return Err(Failure::Blocks);
        }
        *place = Some(Member {
            void_supers: (1 << SUPER_COPIES) - 1,
            ..Member::new(index, uuid, geometry)
        });
        self.present |= member_bit(index);
        self.joining |= member_supers(index);
        self.stale = true;
        Ok(())
    }

    /// Takes a spare out of the set, whose slots serve nothing and which holds no replica of another
    /// member's table. It has left when the next [`Metadata::sync`] has succeeded.
    pub fn remove_member(&mut self, index: u8) -> Result<(), Failure> {
        let rest = self.superblock.members().any(|(other, _)| other != index);
        if !rest || self.superblock.guests(index).next().is_some() {
            return Err(Failure::NoPlace);
        }
        let supers = self.superblock.live_supers() & !member_supers(index);
        if supers.count_ones() < 2 {
            return Err(Failure::NoSuperblock);
        }
        if let Some(place) = self.superblock.members.get_mut(usize::from(index)) {
            *place = None;
        }
        self.present &= !member_bit(index);
        if self.rebuild.is_some_and(|rebuild| rebuild.member == index) {
            self.rebuild = None;
        }
        self.revive &= !member_supers(index);
        self.joining &= !member_supers(index);
        self.settle_all_of(index);
        self.stale = true;
        Ok(())
    }

    /// What is unsettled of a member does not matter any more.
    fn settle_all_of(&mut self, index: u8) {
        let all = self.unsettled;
        let others = all.iter().take(self.unsettled_count);
        let others = others.filter(|u| u.block.member != index);
        let mut count = 0;
        for (place, unsettled) in self.unsettled.iter_mut().zip(others) {
            *place = *unsettled;
            count += 1;
        }
        self.unsettled_count = count;
    }

    /// Goes on without a member (M9): what lies on its spare is void. Not if that is the only replica
    /// of a table that is in use.
    pub fn lose_member(&mut self, index: u8) -> Result<(), Failure> {
        let Some(lost) = self.superblock.member(index) else {
            return Err(Failure::Blocks);
        };
        // While it is brought up to date it is missing still, and parts of it count already.
        let live_supers = self.superblock.live_supers() & member_supers(index);
        let lives = |(_, member): (u8, &Member)| member.lives_on(index);
        let counts = self.superblock.members().any(lives);
        if lost.missing && !counts && live_supers == 0 {
            return Ok(());
        }
        if !self.can_lose(index) {
            return Err(Failure::Device);
        }
        for other in 0..MEMBERS_MAX {
            let void = self.replicas_on(index, other);
            if let Some(member) = self.superblock.member_mut(other) {
                member.void_replicas |= void;
            }
        }
        if let Some(member) = self.superblock.member_mut(index) {
            member.void_supers = (1 << SUPER_COPIES) - 1;
            member.missing = true;
        }
        self.raise_set_epoch();
        self.rebuild = None;
        self.raise_epoch()
    }

    /// Has members that join take over from these, a bit each, which are all others: nobody answers of
    /// them, and the only replicas of their tables are gone. What they had is what memory knows, and is recorded as
    /// lost before [`Metadata::end_take_over`] (M9b). Until then the set is of no use after a crash, and the
    /// superblocks say so: nothing that users are told may depend on it. Nothing was written to the dead ones, which
    /// are what they were if the one that joins dies, too, and this is forgotten.
    pub fn begin_take_over(&mut self, dead: u8) -> Result<(), Failure> {
        let is_dead = |index: u8| dead & member_bit(index) != 0;
        let heirs = || self.superblock.members().filter(|(i, _)| !is_dead(*i));
        if heirs().next().is_none() || !heirs().all(|(_, heir)| heir.is_joining()) {
            return Err(Failure::Blocks);
        }
        for index in (0..MEMBERS_MAX).filter(|index| is_dead(*index)) {
            if let Some(member) = self.superblock.member_mut(index) {
                *member = Member {
                    missing: true,
                    void_supers: (1 << SUPER_COPIES) - 1,
                    void_replicas: ALL_REPLICAS,
                    ..Member::new(index, member.uuid, member.geometry)
                };
            }
        }
        self.present &= !dead;
        self.doubtful = 0;
        self.damaged = 0;
        self.revive = 0;
        self.joining &= self.reachable_supers();
        self.rebuild = None;
        self.unsettled_count = 0;
        self.superblock.incompat |= INCOMPAT_LOST | INCOMPAT_UNFINISHED;
        self.raise_set_epoch();
        self.raise_epoch()
    }

    /// Takes back what [`Metadata::begin_take_over`] did: all is as it is in `before`, but for the sequence, as the one
    /// that joined may have superblocks.
    pub fn undo_take_over(&mut self, before: &Metadata) {
        let sequence = self.superblock.sequence;
        self.clone_from(before);
        self.superblock.sequence = self.superblock.sequence.max(sequence);
    }

    /// Whether members that joined have to record what is lost with those that they take over from.
    pub fn is_unfinished(&self) -> bool {
        self.superblock.is_unfinished()
    }

    /// All is recorded, and the dead ones are no members any more. That holds after the next
    /// [`Metadata::sync`]; if it fails, [`Metadata::stay_unfinished`] takes this back.
    pub fn end_take_over(&mut self) {
        self.superblock.incompat &= !INCOMPAT_UNFINISHED;
        self.stale = true;
    }

    /// Not all superblocks say so: users are not to count on it.
    pub fn stay_unfinished(&mut self) {
        self.superblock.incompat |= INCOMPAT_UNFINISHED;
        self.stale = true;
    }

    /// Whether the set can go on without a member: it does not have the only good copy of anything.
    pub fn can_lose(&self, index: u8) -> bool {
        self.can_lose_all(member_bit(index))
    }

    /// The same of several at once, a bit each.
    pub fn can_lose_all(&self, members: u8) -> bool {
        let all = || (0..MEMBERS_MAX).filter(|index| members & member_bit(*index) != 0);
        let needed = self.superblock.members().any(|(other, member)| {
            let void = all().fold(0, |void, index| void | self.replicas_on(index, other));
            let mut gone = (0..REPLICAS).filter(|replica| void & (1 << replica) != 0);
            let only = gone.any(|replica| self.is_good_only_in(replica, other));
            let left = ALL_REPLICAS & !(member.void_replicas | void);
            void != 0 && member.high_water != 0 && (left == 0 || only)
        });
        let lost = all().fold(0, |mask, index| mask | member_supers(index));
        let supers = self.superblock.live_supers() & !lost;
        !needed && supers.count_ones() >= 2
    }

    /// The replicas of a member's table that lie on member `host`; a bit each.
    fn replicas_on(&self, host: u8, member: u8) -> u8 {
        let areas = self.superblock.member(member).map(|member| member.areas);
        let hosts = areas.iter().flatten().zip(0u8..);
        hosts.fold(0u8, |mask, (area, replica)| {
            mask | u8::from(area.host == host) << replica
        })
    }

    pub(super) fn raise_set_epoch(&mut self) {
        self.superblock.set_epoch = self.superblock.set_epoch.saturating_add(1);
        self.without = false;
    }

    /// A member that was missing is there again, and everything on it that is void was made again as
    /// far as possible: its slots can be used after the next [`Metadata::sync`].
    pub fn return_member(&mut self, index: u8) {
        if let Some(member) = self.superblock.member_mut(index) {
            self.stale |= member.missing;
            member.missing = false;
        }
    }

    /// The replicas that are void, lie on a spare that is there, and so can be made again: whose
    /// table, and which.
    pub fn void_replicas(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        self.superblock.members().flat_map(move |(index, member)| {
            let areas = member.areas.iter().zip(0u8..);
            areas.filter_map(move |(area, replica)| {
                let void = !member.replica_lives(replica);
                let other = member.replica_lives(replica ^ 1) || member.high_water == 0;
                (void && other && self.is_present(area.host)).then_some((index, replica))
            })
        })
    }

    /// Gives a replica another place: an area in the data area of member `host`, which loses the
    /// slots from `slots` on. These must not be in use. The replica is void until it was made again;
    /// not if the other one is known not to be good in every block ([`Metadata::is_unsettled`]).
    /// Whether it is, the caller finds out beforehand: it is the only one until then.
    pub fn rehost(&mut self, member: u8, replica: u8, host: u8, slots: u32) -> Result<(), Failure> {
        let table = self.superblock.member(member).ok_or(Failure::Blocks)?;
        let other = table.replica_lives(replica ^ 1) || table.high_water == 0;
        if !other || self.is_good_only_in(replica, member) {
            return Err(Failure::NoPlace);
        }
        let room = self.slots_beside(host, member).ok_or(Failure::NoPlace)?;
        if slots > room || !self.is_present(host) {
            return Err(Failure::Blocks);
        }
        let superblock = &mut self.superblock;
        let place = superblock.member_mut(host).ok_or(Failure::Blocks)?;
        place.slots = slots;
        place.high_water = place.high_water.min(place.table_blocks());
        let start = place.slots_end().next_multiple_of(BLOCK_SECTORS);
        let moved = superblock.member_mut(member).ok_or(Failure::Blocks)?;
        let index = usize::from(replica);
        if let (Some(area), Some(reserve)) =
            (moved.areas.get_mut(index), moved.reserve.get_mut(index))
        {
            *area = Area::guest(host, start);
            *reserve = Reserves::FREE;
        }
        moved.void_replicas |= 1 << replica;
        self.rebuild = None;
        self.raise_epoch()
    }

    /// Gives a replica its place on its own member again, where it is when that is the only one. It is
    /// void until it was made again.
    pub fn rehome(&mut self, index: u8, replica: u8) -> Result<(), Failure> {
        let table = self.superblock.member(index).ok_or(Failure::Blocks)?;
        let other = table.replica_lives(replica ^ 1) || table.high_water == 0;
        if !other || self.is_good_only_in(replica, index) {
            return Err(Failure::NoPlace);
        }
        if !self.is_present(index) {
            return Err(Failure::Blocks);
        }
        let member = self.superblock.member_mut(index).ok_or(Failure::Blocks)?;
        let own = home(index, &member.geometry, replica);
        let place = usize::from(replica);
        if let (Some(area), Some(reserve)) =
            (member.areas.get_mut(place), member.reserve.get_mut(place))
        {
            *area = own;
            *reserve = Reserves::FREE;
        }
        member.void_replicas |= 1 << replica;
        self.rebuild = None;
        self.raise_epoch()
    }

    /// Says that there may be entries of lost blocks. There may be when the next [`Metadata::sync`] has
    /// succeeded (M11).
    pub fn announce_lost(&mut self) {
        self.superblock.incompat |= INCOMPAT_LOST;
        self.stale = true;
    }

    /// Gives a member the slots back that a replica of another one's table took which is not there any more.
    /// They can be used after the next [`Metadata::sync`]. Returns whether there were any.
    pub fn regain_slots(&mut self, host: u8) -> bool {
        let taken = self.superblock.guests(host).map(|(_, _, range)| range.0);
        let first = taken.min();
        let Some(member) = self.superblock.member_mut(host) else {
            return false;
        };
        let geometry = &member.geometry;
        let end = first.unwrap_or(geometry.data_end());
        let room = end.saturating_sub(geometry.data_start());
        let slots = room >> geometry.slot_sectors().trailing_zeros();
        let slots = u32::try_from(slots)
            .unwrap_or(u32::MAX)
            .min(geometry.slots());
        let more = slots > member.slots;
        if more {
            member.slots = slots;
            self.stale = true;
        }
        more
    }

    /// How many slots member `host` would keep if it took a replica of the table of `member`; none if
    /// it has no room for it.
    pub fn slots_beside(&self, host: u8, member: u8) -> Option<u32> {
        let table = self.superblock.member(member)?.geometry.table_blocks();
        let place = self.superblock.member(host)?;
        // What lies there already is in front.
        let taken = self.superblock.guests(host).map(|(_, _, range)| range.0);
        let end = taken.min().unwrap_or(place.geometry.data_end());
        let start = end.checked_sub(Area::guest_sectors(table))? & !(BLOCK_SECTORS - 1);
        let room = start.checked_sub(place.geometry.data_start())?;
        let slots = room >> place.geometry.slot_sectors().trailing_zeros();
        let slots = u32::try_from(slots).ok()?.min(place.slots);
        (slots != 0).then_some(slots)
    }

    /// Begins to make a void replica again. If another one is under way, that begins anew later.
    pub fn begin_rebuild(&mut self, member: u8, replica: u8) {
        self.rebuild = Some(Rebuild {
            member,
            replica,
            next: 0,
        });
    }

    /// Gives up what [`Metadata::begin_rebuild`] has begun: the replica stays void.
    pub fn give_up_rebuild(&mut self) {
        self.rebuild = None;
    }

    /// What is being made again.
    pub fn rebuilding(&self) -> Option<Rebuild> {
        self.rebuild
    }

    /// Makes the next blocks again of the replica that [`Metadata::begin_rebuild`] named; when these
    /// were the last ones, [`Metadata::rebuilding`] tells of none any more, and the replica counts.
    pub fn rebuild(&mut self) -> Op<'_> {
        let (job, legal) = match self.rebuild {
            Some(Rebuild {
                member,
                replica,
                next,
            }) => {
                let table = self.superblock.member(member);
                let mark = table.map_or(0, |table| table.high_water);
                let to = next.saturating_add(REBUILD_BLOCKS_MAX).min(mark);
                let job = Job::Rebuild {
                    member,
                    replica,
                    from: next.min(to),
                    to,
                };
                let legal = self.void_replicas().any(|void| void == (member, replica));
                (job, legal)
            }
            None => (Job::Sync, false),
        };
        let op = Op::new(self, job);
        if legal {
            op
        } else {
            op.refused(Failure::Blocks)
        }
    }

    /// Makes a superblock copy for [`Step::WriteSuper`](super::Step::WriteSuper).
    pub fn encode_superblock(&self, image: &mut Block, copy: CopyId) {
        self.superblock.encode(image, copy);
    }

    /// Makes the entries of `blocks`, each of them once, durable as they are in memory. First settles
    /// what an earlier commit left behind.
    pub fn commit<'a>(&'a mut self, blocks: &'a [BlockId]) -> Op<'a> {
        let statistics = &mut self.superblock.statistics;
        statistics.saves = statistics.saves.saturating_add(1);
        let in_use = |id: &BlockId| {
            let member = self.superblock.member(id.member);
            member.is_some_and(|member| id.block < member.high_water)
        };
        let legal = blocks.len() <= COMMIT_BLOCKS_MAX && blocks.iter().all(in_use);
        let op = Op::new(self, Job::Commit(blocks));
        if legal {
            op
        } else {
            op.refused(Failure::Blocks)
        }
    }

    /// Initialises the next `blocks` blocks of a member's slot table, or what is left of it, and
    /// raises the high-water mark over them.
    pub fn extend(&mut self, index: u8, blocks: u32) -> Op<'_> {
        let member = self.superblock.member(index);
        let mark = member.map_or(0, |member| member.high_water);
        let to = mark
            .saturating_add(blocks.min(EXTEND_BLOCKS_MAX))
            .min(member.map_or(0, Member::table_blocks));
        let job = Job::Extend {
            member: index,
            from: mark,
            to,
        };
        let legal = to > mark && self.is_usable(index) && self.live_replicas(index) != 0;
        let op = Op::new(self, job);
        if legal {
            op
        } else {
            op.refused(Failure::Blocks)
        }
    }

    /// Writes the superblock to every live copy.
    pub fn sync(&mut self) -> Op<'_> {
        self.stale = true;
        Op::new(self, Job::Sync)
    }

    /// Writes the truth about `block`, as loading found it, to `replica`, which has something else
    /// or nothing (M3). Does nothing if that replica became void meanwhile. If the replica would
    /// have to become void but has the only good copy of another block, this one is left to the
    /// first commit ([`Metadata::is_unsettled`]).
    pub fn rewrite(&mut self, replica: u8, block: BlockId) -> Op<'_> {
        let legal = self.superblock.own_place(replica, block).is_some();
        let op = Op::new(self, Job::Rewrite { replica, block });
        if legal {
            op
        } else {
            op.refused(Failure::Blocks)
        }
    }

    /// Begins a new epoch: of this activation, or because something is written off.
    pub(super) fn raise_epoch(&mut self) -> Result<(), Failure> {
        let epoch = self.superblock.epoch.saturating_add(1);
        if sequence(epoch, 0).is_none() {
            return Err(Failure::Exhausted);
        }
        self.superblock.epoch = epoch;
        self.superblock.clean = false;
        self.raised = true;
        self.stale = true;
        Ok(())
    }

    pub(super) fn next_sequence(&mut self) -> Result<u64, Failure> {
        self.counter = self.counter.saturating_add(1);
        sequence(self.superblock.epoch, self.counter).ok_or(Failure::Exhausted)
    }

    pub(super) fn count_repair(&mut self) {
        let statistics = &mut self.superblock.statistics;
        statistics.metadata_repairs = statistics.metadata_repairs.saturating_add(1);
    }

    pub(super) fn live_replicas(&self, member: u8) -> u8 {
        let member = self.superblock.member(member);
        member.map_or(0, |member| ALL_REPLICAS & !member.void_replicas)
    }

    /// The superblock copies on spares that are there; a bit each.
    pub(super) fn reachable_supers(&self) -> u16 {
        (0..MEMBERS_MAX)
            .filter(|member| self.is_present(*member))
            .fold(0, |mask, member| mask | member_supers(member))
            & self.superblock.all_supers()
    }

    pub(super) fn set_reserve(&mut self, replica: u8, member: u8, index: u8, value: Reserve) {
        let reserves = self
            .superblock
            .member_mut(member)
            .and_then(|member| member.reserve.get_mut(usize::from(replica)));
        if let Some(reserves) = reserves {
            self.stale |= reserves.set(index, value);
        }
    }

    pub(super) fn free_reserve(&self, replica: u8, member: u8) -> Option<u8> {
        self.superblock
            .member(member)?
            .reserve
            .get(usize::from(replica))?
            .first_free()
    }

    /// Remembers that a block of a table is about to change: a replica that is made again has to
    /// get it anew.
    pub(super) fn note_change(&mut self, block: BlockId) {
        if let Some(rebuild) = &mut self.rebuild {
            if rebuild.member == block.member {
                rebuild.next = rebuild.next.min(block.block);
            }
        }
    }

    /// Remembers one more block that is not the same in both replicas. If there is no room, it is
    /// found again when it matters.
    pub(super) fn leave_unsettled(&mut self, unsettled: Unsettled) {
        if self.suspect(unsettled.block).is_some() {
            return;
        }
        if let Some(place) = self.unsettled.get_mut(self.unsettled_count) {
            *place = unsettled;
            self.unsettled_count += 1;
        }
    }

    /// Whether what is unsettled in the table of `member` has its only good copy in `replica`.
    fn is_good_only_in(&self, replica: u8, member: u8) -> bool {
        let unsettled = self.unsettled.iter().take(self.unsettled_count);
        let mut unsettled = unsettled.filter(|u| u.block.member == member);
        unsettled.any(|u| u.suspect == replica ^ 1)
    }

    pub(super) fn suspect(&self, block: BlockId) -> Option<u8> {
        self.unsettled
            .iter()
            .take(self.unsettled_count)
            .find(|u| u.block == block)
            .map(|u| u.suspect)
    }
}

/// The superblock copies on a member; a bit each.
fn member_supers(member: u8) -> u16 {
    (0..SUPER_COPIES).fold(0, |mask, copy| mask | CopyId { member, copy }.bit())
}
