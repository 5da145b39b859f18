// SPDX-License-Identifier: GPL-2.0

//! Carrying out what the commit protocol decides: the same steps as in the module, as if (see
//! [`crate::spare`]).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use dm_remap_logic::commit::Content;
use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Fault;
use dm_remap_logic::commit::Metadata;
use dm_remap_logic::commit::Op;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::commit::Step;
use dm_remap_logic::commit::COMMIT_BLOCKS_MAX;
use dm_remap_logic::commit::EXTEND_BLOCKS_MAX;
use dm_remap_logic::format;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::MEMBERS_MAX;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::text::Uuid;

use crate::error::Error;
use crate::error::Result;
use crate::set::read;
use crate::set::write;
use crate::set::Copy;
use crate::set::Place;
use crate::set::Set;
use crate::spare::Spare;

type Entries = [Vec<Entry>; MEMBERS_MAX as usize];

/// The metadata of a set that is being changed.
pub(crate) struct Writer<'a> {
    spares: &'a mut [Spare],
    metadata: Box<Metadata>,
    /// Which spare each member is.
    places: [Option<u8>; MEMBERS_MAX as usize],
}

impl<'a> Writer<'a> {
    /// Starts with a new set, whose members are the spares in their order.
    pub(crate) fn create(spares: &'a mut [Spare], superblock: Superblock) -> Self {
        let mut metadata = Box::new(Metadata::EMPTY);
        *metadata.superblock_mut() = superblock;
        metadata.create();
        Self {
            spares,
            metadata,
            places: [0, 1, 2, 3].map(Some),
        }
    }

    /// Starts with a set that was read.
    pub(crate) fn open(spares: &'a mut [Spare], set: &Set) -> Result<Self> {
        let mut metadata = Box::new(Metadata::EMPTY);
        *metadata.superblock_mut() = (*set.superblock).clone();
        let mut names = [Uuid::NIL; MEMBERS_MAX as usize];
        for name in &mut names {
            *name = random_uuid()?;
        }
        let mut names = names.into_iter();
        metadata.name_anew(&set.chosen, || names.next().unwrap_or(Uuid::NIL));
        metadata.open(&set.chosen, &set.table_blocks());
        Ok(Self {
            spares,
            metadata,
            places: set.chosen.spares,
        })
    }

    /// The metadata.
    pub(crate) fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Writes the superblock copies.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let op = self.metadata.sync();
        must(run(self.spares, &self.places, op, None)?)
    }

    /// Initialises the first slots of a member.
    pub(crate) fn extend(&mut self, member: u8) -> Result<()> {
        let op = self.metadata.extend(member, EXTEND_BLOCKS_MAX);
        must(run(self.spares, &self.places, op, None)?)
    }

    /// Gives the second replica of each member's table a place on another one, as the module does.
    pub(crate) fn spread(&mut self) -> Result<()> {
        let members = self.metadata.superblock().members();
        let members: Vec<u8> = members.map(|(index, _)| index).collect();
        for member in &members {
            let mut others = members.iter().filter(|host| *host != member);
            let place =
                others.find_map(|host| Some((*host, self.metadata.slots_beside(*host, *member)?)));
            let Some((host, slots)) = place else {
                continue;
            };
            self.metadata
                .rehost(*member, 1, host, slots)
                .map_err(refused)?;
            self.sync()?;
            self.make_again(*member, 1)?;
        }
        Ok(())
    }

    /// Writes down that this activation ends in order, if it wrote anything.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.metadata.is_touched() {
            let unsettled = self.metadata.is_unsettled();
            self.metadata.set_clean(!unsettled);
            self.sync()?;
        }
        Ok(())
    }

    /// Makes a set that was read equal and tidy, as an activation does (M3, M5), and makes void
    /// replicas again.
    pub(crate) fn tidy(&mut self, set: &Set) -> Result<()> {
        for found in &set.table {
            for copy in &found.copies {
                if let (Copy::Table { id, replica }, true) =
                    (copy.copy, copy.state.is_to_be_rewritten())
                {
                    let op = self.metadata.rewrite(replica, id);
                    must(run(self.spares, &self.places, op, None)?)?;
                }
            }
        }
        let mut entries = set.entries.clone();
        let mut blocks = Vec::new();
        for (loser, _) in &set.lost_claims {
            let own = entries.get_mut(usize::from(loser.member));
            if let Some(entry) = own.and_then(|own| own.get_mut(loser.slot as usize)) {
                *entry = Entry::UNUSED;
            }
            blocks.push(loser.block());
        }
        self.commit(&entries, blocks)?;
        if self.metadata.is_unsettled() {
            self.commit_some(&entries, &[])?;
        }
        let members = self.metadata.superblock().members();
        let void = members
            .filter(|(index, _)| self.metadata.is_present(*index))
            .any(|(_, member)| member.void_supers != 0);
        if self.metadata.is_stale() || void {
            self.sync()?;
        }
        let void: Vec<(u8, u8)> = self.metadata.void_replicas().collect();
        for (member, replica) in void {
            self.make_again(member, replica)?;
        }
        self.take_back()?;
        if self.is_unused() {
            self.extend(0)?;
        }
        Ok(())
    }

    fn is_unused(&self) -> bool {
        let mut members = self.metadata.superblock().members();
        members.all(|(_, member)| member.high_water == 0)
    }

    /// Members that were missing, are there again and are whole are used again (M9).
    fn take_back(&mut self) -> Result<()> {
        let superblock = self.metadata.superblock();
        let is_back = |(index, member): &(u8, &Member)| {
            let mut hosted = superblock.members().flat_map(|(_, other)| {
                let areas = (0u8..).zip(&other.areas);
                areas.map(move |(replica, area)| (area.host, other.replica_lives(replica)))
            });
            member.missing
                && self.metadata.is_present(*index)
                && member.void_replicas == 0
                && member.void_supers == 0
                && hosted.all(|(host, lives)| host != *index || lives)
        };
        let back: Vec<u8> = superblock.members().filter(is_back).map(|m| m.0).collect();
        if back.is_empty() {
            return Ok(());
        }
        for index in back {
            self.metadata.return_member(index);
        }
        self.sync()
    }

    /// Copies a void replica from the other one. Where there is no place for it, it stays void: the
    /// module may find another.
    fn make_again(&mut self, member: u8, replica: u8) -> Result<()> {
        self.metadata.begin_rebuild(member, replica);
        while self.metadata.rebuilding().is_some() {
            let op = self.metadata.rebuild();
            match run(self.spares, &self.places, op, None)? {
                Err(Failure::NoPlace) => self.metadata.give_up_rebuild(),
                other => must(other)?,
            }
        }
        Ok(())
    }

    /// Makes the entries of `blocks` durable.
    pub(crate) fn commit(&mut self, entries: &Entries, mut blocks: Vec<BlockId>) -> Result<()> {
        blocks.sort_unstable_by_key(|id| (id.member, id.block));
        blocks.dedup();
        for blocks in blocks.chunks(COMMIT_BLOCKS_MAX) {
            self.commit_some(entries, blocks)?;
        }
        Ok(())
    }

    fn commit_some(&mut self, entries: &Entries, blocks: &[BlockId]) -> Result<()> {
        let op = self.metadata.commit(blocks);
        must(run(self.spares, &self.places, op, Some(entries))?)
    }
}

fn must(outcome: Result<(), Failure>) -> Result<()> {
    outcome.map_err(refused)
}

/// What the protocol could not do.
pub(crate) fn refused(why: Failure) -> Error {
    Error::damage(format!("cannot write the metadata: {why}"))
}

fn run(
    spares: &mut [Spare],
    places: &[Option<u8>; MEMBERS_MAX as usize],
    mut op: Op<'_>,
    entries: Option<&Entries>,
) -> Result<Result<(), Failure>> {
    let find = |place: &format::Place| {
        let spare = places.get(usize::from(place.member)).copied().flatten()?;
        Some(Place {
            spare: spare.into(),
            sector: place.sector,
        })
    };
    let mut image = [0; BLOCK_BYTES];
    let mut last = Ok(());
    'steps: loop {
        let (place, what) = match op.advance(last) {
            Step::Done(Outcome::Committed) => return Ok(Ok(())),
            Step::Done(Outcome::Failed { why, .. }) => return Ok(Err(why)),
            Step::Flush { .. } => {
                last = Ok(());
                continue;
            }
            Step::CheckTable { block, place } => {
                let good = good_block(spares, op.metadata(), block, find(&place))?.is_some();
                last = if good { Ok(()) } else { Err(Fault::Media) };
                continue;
            }
            Step::WriteSuper { copy, place } => {
                op.metadata().encode_superblock(&mut image, copy);
                (place, Copy::Super { copy: copy.copy })
            }
            Step::WriteTable {
                block,
                count,
                place,
                content,
                ..
            } => {
                for step in 0..count {
                    let (block, place) = (block.behind(step), place.behind(step));
                    let (sequence, entries) = match content {
                        Content::Copy { from } => {
                            let from = find(&from.behind(step));
                            match good_block(spares, op.metadata(), block, from)? {
                                Some(found) => image = *found,
                                None => {
                                    last = Err(Fault::Other);
                                    continue 'steps;
                                }
                            }
                            (None, None)
                        }
                        Content::Empty { sequence } => (Some(sequence), None),
                        Content::Current { sequence } => (Some(sequence), entries),
                    };
                    if let Some(sequence) = sequence {
                        fill(&mut image, op.metadata(), block, sequence, entries);
                    }
                    let replica = replica_at(op.metadata(), block, &place);
                    let what = Copy::Table { id: block, replica };
                    let written =
                        find(&place).is_some_and(|place| write(spares, place, &image, what));
                    last = if written { Ok(()) } else { Err(Fault::Media) };
                    if !written {
                        break;
                    }
                }
                continue;
            }
        };
        let written = find(&place).is_some_and(|place| write(spares, place, &image, what));
        last = if written { Ok(()) } else { Err(Fault::Media) };
    }
}

/// A table block, if it is good.
fn good_block(
    spares: &mut [Spare],
    metadata: &Metadata,
    id: BlockId,
    place: Option<Place>,
) -> Result<Option<Box<Block>>> {
    let member = metadata.superblock().member(id.member);
    let (Some(member), Some(place)) = (member, place) else {
        return Ok(None);
    };
    let found = read(spares, place)?;
    Ok(found.filter(|image| TableBlock::decode(image, &member.uuid, id.block).is_ok()))
}

fn fill(
    image: &mut Block,
    metadata: &Metadata,
    id: BlockId,
    sequence: u64,
    entries: Option<&Entries>,
) {
    let Some(member) = metadata.superblock().member(id.member) else {
        return;
    };
    let (first, end) = member.block_slots(id.block);
    let entries = entries.and_then(|all| all.get(usize::from(id.member)));
    let entries = entries
        .and_then(|own| own.get(first as usize..))
        .unwrap_or(&[]);
    let entries = entries.iter().take((end - first) as usize).copied();
    table_block::encode(image, &member.uuid, id.block, sequence, entries);
}

/// Which replica a table block's place belongs to, for people.
fn replica_at(metadata: &Metadata, id: BlockId, place: &format::Place) -> u8 {
    let superblock = metadata.superblock();
    let own = |replica: u8| {
        let reserves = (0..format::RESERVE_BLOCKS)
            .filter_map(move |index| superblock.reserve_place(replica, id.member, index));
        let home = superblock.own_place(replica, id);
        reserves.chain(home).any(|own| own == *place)
    };
    u8::from(own(1))
}

/// A name for a set or a spare.
pub(crate) fn random_uuid() -> Result<Uuid> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::io(path, "read", &error))?;
    Ok(Uuid::from_random(bytes))
}
