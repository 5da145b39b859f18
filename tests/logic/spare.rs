// SPDX-License-Identifier: GPL-2.0

//! What the module does with a spare's metadata, over the model disk and without everything else:
//! format, load, make replicas equal, commit.

use std::collections::BTreeMap;
use std::ops::Index;
use std::ops::IndexMut;

use dm_remap_logic::commit::Content;
use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Fault;
use dm_remap_logic::commit::Metadata;
use dm_remap_logic::commit::Op;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::commit::Step;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Place;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::MEMBERS_MAX;
use dm_remap_logic::load;
use dm_remap_logic::load::Claim;
use dm_remap_logic::load::Found;
use dm_remap_logic::load::Image;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::load::Resolved;
use dm_remap_logic::load::SuperImage;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;

use super::disk::Disk;
use super::disk::Disks;
use super::disk::Trouble;

pub(super) const MAIN_SECTORS: u64 = 1 << 20;

/// Why there is no active spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Crash,
    Refused(LoadError),
    Failed(Failure),
    Device,
}

/// A slot: of which member, and its number there.
pub(super) fn slot_of(member: u8, slot: u32) -> u32 {
    u32::from(member) << 20 | slot
}

/// The member that has a slot, and its number there.
pub(super) fn split(slot: u32) -> (u8, u32) {
    ((slot >> 20) as u8, slot & 0xfffff)
}

/// The entries of every slot below the high-water marks. As a list, those of the first member.
#[derive(Clone, Default)]
pub(super) struct Entries([Vec<Entry>; MEMBERS_MAX as usize]);

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.0[0].len()
    }

    pub(super) fn of(&self, member: u8) -> &[Entry] {
        &self.0[usize::from(member)]
    }

    /// All slots.
    pub(super) fn ids(&self) -> Vec<u32> {
        let members = self.0.iter().zip(0u8..);
        members
            .flat_map(|(entries, member)| {
                (0..entries.len() as u32).map(move |slot| slot_of(member, slot))
            })
            .collect()
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.0[0].iter()
    }
}

impl Index<usize> for Entries {
    type Output = Entry;

    fn index(&self, slot: usize) -> &Entry {
        let (member, slot) = split(slot as u32);
        &self.0[usize::from(member)][slot as usize]
    }
}

impl IndexMut<usize> for Entries {
    fn index_mut(&mut self, slot: usize) -> &mut Entry {
        let (member, slot) = split(slot as u32);
        &mut self.0[usize::from(member)][slot as usize]
    }
}

/// An activation.
pub(super) struct Spare {
    pub(super) metadata: Box<Metadata>,
    /// Which disk each member is.
    pub(super) disks: [Option<u8>; MEMBERS_MAX as usize],
    pub(super) entries: Entries,
    /// The slot of every block of main that has one.
    pub(super) map: BTreeMap<u64, u32>,
    /// Whether blocks were found different or damaged, and were repaired.
    pub(super) repaired: usize,
}

type Places = [Option<u8>; MEMBERS_MAX as usize];

/// Carries an operation out. Err only if the power failed. `entries` are for commits.
fn run(
    disks: &mut Disks,
    places: &Places,
    mut op: Op<'_>,
    entries: Option<&Entries>,
) -> Result<Outcome, Trouble> {
    let mut image = [0; BLOCK_BYTES];
    let mut last = Ok(());
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < 10_000, "the operation does not end");
        let step = op.advance(last);
        let device = |place: &Place| places[usize::from(place.member)].expect("a spare is there");
        let (member, result) = match &step {
            Step::CheckTable { block, place } => {
                let superblock = op.metadata().superblock();
                let uuid = superblock.member(block.member).expect("a member").uuid;
                let disk = disks.at(device(place).into());
                let result = disk.read(place.sector, &mut image).and_then(|()| {
                    TableBlock::decode(&image, &uuid, block.block)
                        .map(|_| ())
                        .map_err(|_| Trouble::Fault(Fault::Media))
                });
                (place.member, result)
            }
            Step::WriteTable {
                block,
                count,
                place,
                content,
                fua,
                verify,
            } => {
                let superblock = op.metadata().superblock();
                let member = superblock.member(block.member).expect("a member");
                let mut images = vec![[0; BLOCK_BYTES]; *count as usize];
                let (mut made, owner) = (Ok(()), block.member);
                for (image, index) in images.iter_mut().zip(0u32..) {
                    let block = block.block + index;
                    let (first, end) = member.block_slots(block);
                    let range = first as usize..end as usize;
                    let encode = |image: &mut Block, entries: &[Entry], sequence| {
                        let entries = entries.iter().copied();
                        table_block::encode(image, &member.uuid, block, sequence, entries);
                    };
                    match content {
                        Content::Copy { from } => {
                            let sector = from.behind(index).sector;
                            let source = disks.at(device(from).into());
                            let good = source.read(sector, image).is_ok()
                                && TableBlock::decode(image, &member.uuid, block).is_ok();
                            if !good {
                                made = Err(Trouble::Fault(Fault::Other));
                            }
                        }
                        Content::Empty { sequence } => encode(image, &[], *sequence),
                        Content::Current { sequence } => {
                            let entries = entries.expect("only when committing");
                            encode(image, &entries.of(owner)[range], *sequence);
                        }
                    }
                }
                let result = made.and_then(|()| {
                    let disk = disks.begin_write(device(place).into());
                    disk.write(place.sector, images.as_flattened(), *fua)?;
                    let mut found = vec![[0; BLOCK_BYTES]; images.len()];
                    if *verify {
                        disk.read(place.sector, found.as_flattened_mut())?;
                        assert_eq!(found, images);
                    }
                    Ok(())
                });
                (place.member, result)
            }
            Step::WriteSuper { copy, place } => {
                op.metadata().encode_superblock(&mut image, *copy);
                let disk = disks.begin_write(device(place).into());
                (place.member, disk.write(place.sector, &image, true))
            }
            Step::Flush { member } => {
                let place = Place {
                    member: *member,
                    sector: 0,
                };
                (*member, disks.begin_write(device(&place).into()).flush())
            }
            Step::Done(outcome) => return Ok(*outcome),
        };
        last = match result {
            Ok(()) => Ok(()),
            Err(Trouble::Fault(Fault::Other)) => {
                let mut is_gone = |m: &Option<u8>| m.is_some_and(|m| disks.at(m.into()).gone);
                let own = is_gone(&places[usize::from(member)]);
                let others = op.metadata().superblock().members();
                let mut others = others.filter(|(index, m)| *index != member && !m.missing);
                let works = others.any(|(index, _)| {
                    places[usize::from(index)].is_some_and(|m| disks.at(m.into()).is_alive())
                });
                Err(if own && works {
                    Fault::Gone
                } else {
                    Fault::Other
                })
            }
            Err(Trouble::Fault(fault)) => Err(fault),
            Err(Trouble::Crash) => return Err(Trouble::Crash),
        };
    }
}

fn must(outcome: Result<Outcome, Trouble>) -> Result<(), Stop> {
    match outcome {
        Ok(Outcome::Committed) => Ok(()),
        Ok(Outcome::Failed { why, .. }) => Err(Stop::Failed(why)),
        Err(_) => Err(Stop::Crash),
    }
}

pub(super) fn random_uuid(disk: &mut Disk) -> Uuid {
    let [high, low] = [(); 2].map(|()| u128::from(disk.random.next()));
    let random = high << 64 | low;
    Uuid::from_random(random.to_le_bytes())
}

/// Formats a blank spare.
pub(super) fn format(disks: &mut Disks, slot_sectors: u32) -> Result<(), Stop> {
    let geometry = Geometry::new(disks.sectors(), slot_sectors, 8).expect("a legal size");
    let uuid = random_uuid(disks);
    let main_id = MainId::new("main").expect("a legal name");
    let mut metadata = Metadata::EMPTY;
    metadata
        .superblock_mut()
        .begin(uuid, uuid, geometry, MAIN_SECTORS, main_id);
    metadata.create();
    let places = [Some(0), None, None, None];
    must(run(disks, &places, metadata.sync(), None))
}

fn read(disk: &mut Disk, sector: u64) -> Result<Option<Box<Block>>, Stop> {
    let mut image = Box::new([0; BLOCK_BYTES]);
    match disk.read(sector, &mut image[..]) {
        Ok(()) => Ok(Some(image)),
        Err(Trouble::Fault(Fault::Media)) => Ok(None),
        Err(Trouble::Fault(_)) => Err(Stop::Device),
        Err(Trouble::Crash) => Err(Stop::Crash),
    }
}

fn image(read: &Option<Box<Block>>) -> Image<'_> {
    match read {
        Some(block) => Image::Read(block),
        None => Image::Unreadable,
    }
}

/// Finds the superblock on those spares that `wanted` names. None if they are blank.
pub(super) fn find(
    disks: &mut Disks,
    wanted: &[usize],
) -> Result<Option<(Box<Metadata>, load::Chosen)>, Stop> {
    let mut reads = Vec::new();
    for spare in wanted {
        let disk = disks.at(*spare);
        let sectors = load::superblock_sectors(disk.sectors()).expect("a legal size");
        for (sector, copy) in sectors.into_iter().zip(0..) {
            reads.push((*spare as u8, copy, read(disk, sector)?));
        }
    }
    let images: Vec<SuperImage<'_>> = reads
        .iter()
        .map(|(spare, copy, read)| SuperImage {
            spare: *spare,
            copy: *copy,
            image: image(read),
        })
        .collect();
    let mut metadata = Box::new(Metadata::EMPTY);
    match load::choose_superblock(&images, metadata.superblock_mut()).map_err(Stop::Refused)? {
        Found::Blank => Ok(None),
        Found::Ours(chosen) => Ok(Some((metadata, chosen))),
    }
}

/// Whether there is no superblock at all on these disks.
pub(super) fn is_blank(disks: &mut Disks, wanted: &[usize]) -> bool {
    matches!(find(disks, wanted), Ok(None))
}

impl Spare {
    /// Activates a set that was formatted, of all spares that there are.
    pub(super) fn load(disks: &mut Disks) -> Result<Self, Stop> {
        let all: Vec<usize> = (0..disks.count()).collect();
        Self::load_of(disks, &all, false)
    }

    /// Activates a set of the spares that `wanted` names. Not without all members, unless it is to
    /// be used degraded.
    pub(super) fn load_of(
        disks: &mut Disks,
        wanted: &[usize],
        degraded: bool,
    ) -> Result<Self, Stop> {
        let (mut metadata, chosen) = find(disks, wanted)?.expect("it was formatted");
        metadata.name_anew(&chosen, || random_uuid(disks.at(0)));
        let superblock = metadata.superblock().clone();
        if let Some(member) = chosen.absent(&superblock).filter(|_| !degraded) {
            let uuid = superblock.member(member).expect("it is one").uuid;
            return Err(Stop::Refused(LoadError::Incomplete { member, uuid }));
        }
        let places = chosen.spares;
        let mut entries = Entries::default();
        let mut rewrites = Vec::new();
        let mut table_blocks = [0; MEMBERS_MAX as usize];
        for (index, member) in superblock.members() {
            let blocks = &mut table_blocks[usize::from(index)];
            while *blocks < member.table_blocks() {
                let id = BlockId {
                    member: index,
                    block: *blocks,
                };
                let mut reads = Vec::new();
                for replica in 0..2 {
                    let place = superblock.table_place(replica, id).expect("in range");
                    reads.push(match places[usize::from(place.member)] {
                        Some(disk) => read(disks.at(disk.into()), place.sector)?,
                        None => None,
                    });
                }
                let images = [image(&reads[0]), image(&reads[1])];
                match load::resolve_block(&superblock, id, &images).map_err(Stop::Refused)? {
                    Resolved::End => break,
                    Resolved::Block { truth, rewrite, .. } => {
                        let (first, end) = member.block_slots(*blocks);
                        let list = &mut entries.0[usize::from(index)];
                        list.extend(truth.entries().take((end - first) as usize));
                        for replica in (0..2).filter(|r| rewrite & 1 << r != 0) {
                            rewrites.push((replica, id));
                        }
                    }
                }
                *blocks += 1;
            }
        }
        metadata.open(&chosen, &table_blocks);
        let mut spare = Spare {
            metadata,
            disks: places,
            entries,
            map: BTreeMap::new(),
            repaired: rewrites.len(),
        };
        // What is not there is void before anything else is written.
        for (index, _) in superblock.members() {
            if chosen.spare_of(index).is_none() {
                spare.metadata.lose_member(index).map_err(Stop::Failed)?;
            }
        }
        for (replica, id) in rewrites {
            let area = superblock.member(id.member).expect("a member").areas[usize::from(replica)];
            if chosen.spare_of(area.host).is_some() {
                must(run(
                    disks,
                    &places,
                    spare.metadata.rewrite(replica, id),
                    None,
                ))?;
            }
        }
        spare.index(disks, &superblock)?;
        if spare.metadata.is_unsettled() {
            must(spare.commit(disks, &[]))?;
        }
        if spare.metadata.is_stale() {
            must(spare.sync(disks))?;
        }
        Ok(spare)
    }

    fn index(&mut self, disks: &mut Disks, superblock: &Superblock) -> Result<(), Stop> {
        let mut freed = Vec::new();
        for slot in self.entries.ids() {
            let entry = self.entries[slot as usize];
            load::check_entry(superblock, slot, &entry).map_err(Stop::Refused)?;
            if !entry.word.is_claim() {
                continue;
            }
            if let Some(other) = self.map.insert(entry.word.main_block(), slot) {
                let before = self.entries[other as usize];
                let claim = load::settle_claims(&before, &entry).map_err(Stop::Refused)?;
                let loser = match claim {
                    Claim::First => {
                        self.map.insert(entry.word.main_block(), other);
                        slot
                    }
                    Claim::Second => other,
                };
                freed.push(loser);
            }
        }
        for loser in freed {
            self.free(loser);
            let blocks = self.blocks_of(&[loser]);
            must(self.commit(disks, &blocks))?;
        }
        Ok(())
    }

    pub(super) fn commit(
        &mut self,
        disks: &mut Disks,
        blocks: &[BlockId],
    ) -> Result<Outcome, Trouble> {
        let op = self.metadata.commit(blocks);
        run(disks, &self.disks, op, Some(&self.entries))
    }

    pub(super) fn extend(&mut self, disks: &mut Disks, blocks: u32) -> Result<Outcome, Trouble> {
        self.extend_member(disks, 0, blocks)
    }

    pub(super) fn extend_member(
        &mut self,
        disks: &mut Disks,
        member: u8,
        blocks: u32,
    ) -> Result<Outcome, Trouble> {
        let op = self.metadata.extend(member, blocks);
        let outcome = run(disks, &self.disks, op, None)?;
        if outcome == Outcome::Committed {
            let superblock = self.metadata.superblock();
            let slots = superblock.member(member).expect("one").usable_slots() as usize;
            self.entries.0[usize::from(member)].resize(slots, Entry::UNUSED);
        }
        Ok(outcome)
    }

    pub(super) fn sync(&mut self, disks: &mut Disks) -> Result<Outcome, Trouble> {
        run(disks, &self.disks, self.metadata.sync(), None)
    }

    /// Makes a blank disk a member. Tells its number in the set.
    pub(super) fn join(&mut self, disks: &mut Disks, disk: u8) -> Result<(u8, Outcome), Trouble> {
        let member = self.add(disks, disk);
        Ok((member, self.sync(disks)?))
    }

    /// The same, but nothing is written.
    pub(super) fn add(&mut self, disks: &mut Disks, disk: u8) -> u8 {
        let new = disks.at(disk.into());
        let uuid = random_uuid(new);
        let superblock = self.metadata.superblock();
        let member = (0..MEMBERS_MAX).find(|index| superblock.member(*index).is_none());
        let member = member.expect("room");
        let geometry = Geometry::new(new.sectors(), superblock.slot_sectors, 8);
        let geometry = geometry.expect("a legal size");
        let added = self.metadata.add_member(member, uuid, geometry);
        added.expect("its number is free");
        self.disks[usize::from(member)] = Some(disk);
        member
    }

    /// Moves a replica to another member, as far as there is room without slots that are in use. It
    /// is there when it was made again.
    pub(super) fn rehost(&mut self, disks: &mut Disks, member: u8, replica: u8, host: u8) -> bool {
        if !self.is_whole(disks, member, replica ^ 1) {
            return false;
        }
        let Some(slots) = self.metadata.slots_beside(host, member) else {
            return false;
        };
        let lost = self.entries.of(host).iter().skip(slots as usize);
        if lost.into_iter().any(|entry| entry.word != SlotWord::FREE) {
            return false;
        }
        let done = self.metadata.rehost(member, replica, host, slots).is_ok();
        self.cut(host);
        done
    }

    /// Whether a replica has a good copy of every block.
    fn is_whole(&self, disks: &mut Disks, member: u8, replica: u8) -> bool {
        let superblock = self.metadata.superblock();
        let table = superblock.member(member).expect("one");
        (0..table.high_water).all(|block| {
            let id = BlockId { member, block };
            let place = superblock.table_place(replica, id).expect("in range");
            let mut image = [0; BLOCK_BYTES];
            let disk = self.disks[usize::from(place.member)].expect("a spare is there");
            let read = disks.at(disk.into()).read(place.sector, &mut image);
            read.is_ok() && TableBlock::decode(&image, &table.uuid, block).is_ok()
        })
    }

    /// Makes everything again that is void and can be, and takes back members that were missing.
    pub(super) fn resync(&mut self, disks: &mut Disks) -> Result<Outcome, Trouble> {
        let void: Vec<(u8, u8)> = self.metadata.void_replicas().collect();
        for (member, replica) in void {
            self.metadata.begin_rebuild(member, replica);
            while self.metadata.rebuilding().is_some() {
                let outcome = self.rebuild(disks)?;
                if outcome != Outcome::Committed {
                    return Ok(outcome);
                }
            }
        }
        self.take_back();
        self.sync(disks)
    }

    /// The members that are there are not missing any more.
    pub(super) fn take_back(&mut self) {
        for member in 0..MEMBERS_MAX {
            if self.metadata.is_present(member) {
                self.metadata.return_member(member);
            }
        }
    }

    /// Makes the next part again of what is being made again.
    pub(super) fn rebuild(&mut self, disks: &mut Disks) -> Result<Outcome, Trouble> {
        run(disks, &self.disks, self.metadata.rebuild(), None)
    }

    /// The slots of a member from `slots` on are used for something else now.
    pub(super) fn cut(&mut self, member: u8) {
        let superblock = self.metadata.superblock();
        let slots = superblock.member(member).expect("one").usable_slots() as usize;
        self.entries.0[usize::from(member)].truncate(slots);
    }

    /// The blocks of the tables that hold the entries of `slots`.
    pub(super) fn blocks_of(&self, slots: &[u32]) -> Vec<BlockId> {
        let mut blocks: Vec<(u8, u32)> = slots
            .iter()
            .map(|slot| {
                let (member, slot) = split(*slot);
                (member, slot / ENTRIES)
            })
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        let ids = blocks.into_iter();
        ids.map(|(member, block)| BlockId { member, block })
            .collect()
    }

    pub(super) fn claim(&mut self, slot: u32, main_block: u64, state: SlotState) {
        self.entries[slot as usize] = Entry {
            word: SlotWord::new(main_block, state, Origin::Auto).expect("in range"),
            generation: self.metadata.next_generation().expect("not exhausted"),
        };
    }

    pub(super) fn free(&mut self, slot: u32) {
        self.entries[slot as usize] = Entry {
            word: SlotWord::FREE,
            generation: self.metadata.next_generation().expect("not exhausted"),
        };
    }

    /// Checks that every live copy of everything says the same.
    pub(super) fn check_redundancy(&self, disks: &mut Disks) {
        let superblock = self.metadata.superblock();
        let mut copies = Vec::new();
        let mut at = |member: u8, sector| {
            let disk = self.disks[usize::from(member)].expect("there");
            read(disks.at(disk.into()), sector).expect("online")
        };
        let mut live = superblock.live_supers();
        while let Some(id) = CopyId::lowest(live) {
            live &= !id.bit();
            let place = superblock.super_place(id).expect("in range");
            let found = at(id.member, place.sector).expect("readable");
            copies.push(Superblock::decode(&found, id.copy).expect("a good copy"));
        }
        assert!(copies.len() >= 2);
        assert!(copies.iter().all(|copy| *copy == copies[0]), "{copies:#?}");
        // Statistics get to the spare when the occasion arises.
        let mut found = copies.swap_remove(0);
        found.statistics = superblock.statistics;
        assert_eq!(found, *superblock);
        for (index, member) in superblock.members() {
            for block in 0..member.high_water {
                let id = BlockId {
                    member: index,
                    block,
                };
                let mut reads = Vec::new();
                for replica in 0..2 {
                    let place = superblock.table_place(replica, id).expect("in range");
                    let lives = member.replica_lives(replica);
                    reads.push(lives.then(|| at(place.member, place.sector)).flatten());
                }
                let images = [image(&reads[0]), image(&reads[1])];
                match load::resolve_block(superblock, id, &images) {
                    Ok(Resolved::Block { rewrite: 0, .. }) => (),
                    other => panic!("{id}: {other:?}"),
                }
            }
        }
    }
}
