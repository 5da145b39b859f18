// SPDX-License-Identifier: GPL-2.0

//! What the module does with a spare's metadata, over the model disk and without everything else:
//! format, load, make replicas equal, commit.

use std::collections::BTreeMap;

use dm_remap_logic::commit::Content;
use dm_remap_logic::commit::Failure;
use dm_remap_logic::commit::Fault;
use dm_remap_logic::commit::Metadata;
use dm_remap_logic::commit::Op;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::commit::Step;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::load;
use dm_remap_logic::load::Claim;
use dm_remap_logic::load::Found;
use dm_remap_logic::load::Image;
use dm_remap_logic::load::LoadError;
use dm_remap_logic::load::Resolved;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::slot::State;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;

use super::disk::Disk;
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

/// An activation.
pub(super) struct Spare {
    pub(super) metadata: Metadata,
    /// Every slot below the high-water mark.
    pub(super) entries: Vec<Entry>,
    /// The slot of every block of main that has one.
    pub(super) map: BTreeMap<u64, u32>,
    /// Whether blocks were found different or damaged, and were repaired.
    pub(super) repaired: usize,
}

/// Memory that operations encode from.
struct Memory<'a> {
    /// Only for commits.
    entries: Option<&'a [Entry]>,
    truth: Option<&'a Block>,
}

/// Carries an operation out. Err only if the power failed.
fn run(disk: &mut Disk, mut op: Op<'_>, memory: Memory<'_>) -> Result<Outcome, Trouble> {
    let mut image = [0; BLOCK_BYTES];
    let mut last = Ok(());
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < 10_000, "the operation does not end");
        let result = match op.advance(last) {
            Step::CheckTable { block, sector, .. } => {
                let member = op.metadata().superblock().member_uuid;
                disk.read(sector, &mut image).and_then(|()| {
                    TableBlock::decode(&image, &member, block)
                        .map(|_| ())
                        .map_err(|_| Trouble::Fault(Fault::Media))
                })
            }
            Step::WriteTable {
                block,
                sector,
                content,
                fua,
                ..
            } => {
                let superblock = op.metadata().superblock();
                let (first, end) = superblock.geometry.block_slots(block);
                let (entries, sequence) = match content {
                    Content::Truth => (&[][..], 0),
                    Content::Empty { sequence } => (&[][..], sequence),
                    Content::Current { sequence } => {
                        let entries = memory.entries.expect("only when committing");
                        (&entries[first as usize..end as usize], sequence)
                    }
                };
                let entries = entries.iter().copied();
                let member = &superblock.member_uuid;
                table_block::encode(&mut image, member, block, sequence, entries);
                if content == Content::Truth {
                    image = *memory.truth.expect("only when loading");
                }
                disk.write(sector, &image, fua)
            }
            Step::WriteSuper { copy, sector } => {
                op.metadata().encode_superblock(&mut image, copy);
                disk.write(sector, &image, true)
            }
            Step::Flush => disk.flush(),
            Step::Done(outcome) => return Ok(outcome),
        };
        last = match result {
            Ok(()) => Ok(()),
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

/// Formats a blank spare.
pub(super) fn format(disk: &mut Disk, slot_sectors: u32) -> Result<(), Stop> {
    let geometry = Geometry::new(disk.sectors(), slot_sectors, 8).expect("a legal size");
    let [high, low] = [(); 2].map(|()| u128::from(disk.random.next()));
    let random = high << 64 | low;
    let uuid = Uuid::from_random(random.to_le_bytes());
    let main_id = MainId::new("main").expect("a legal name");
    let superblock = Superblock::new(uuid, uuid, geometry, MAIN_SECTORS, main_id);
    let mut metadata = Metadata::create(superblock);
    let memory = Memory {
        entries: None,
        truth: None,
    };
    must(run(disk, metadata.sync(), memory))
}

fn read(disk: &mut Disk, sector: u64) -> Result<Option<Box<Block>>, Stop> {
    let mut image = Box::new([0; BLOCK_BYTES]);
    match disk.read(sector, &mut image[..]) {
        Ok(()) => Ok(Some(image)),
        Err(Trouble::Fault(Fault::Media)) => Ok(None),
        Err(Trouble::Fault(Fault::Other)) => Err(Stop::Device),
        Err(Trouble::Crash) => Err(Stop::Crash),
    }
}

fn image(read: &Option<Box<Block>>) -> Image<'_> {
    match read {
        Some(block) => Image::Read(block),
        None => Image::Unreadable,
    }
}

/// Finds the superblock. None if the spare is blank.
pub(super) fn find(disk: &mut Disk) -> Result<Option<load::Chosen>, Stop> {
    let sectors = load::superblock_sectors(disk.sectors()).expect("a legal size");
    let mut reads = Vec::new();
    for sector in sectors {
        reads.push(read(disk, sector)?);
    }
    let images: [Image<'_>; 4] = std::array::from_fn(|i| image(&reads[i]));
    match load::choose_superblock(&images).map_err(Stop::Refused)? {
        Found::Blank => Ok(None),
        Found::Ours(chosen) => Ok(Some(chosen)),
    }
}

impl Spare {
    /// Activates a spare that was formatted.
    pub(super) fn load(disk: &mut Disk) -> Result<Self, Stop> {
        let chosen = find(disk)?.expect("it was formatted");
        let superblock = chosen.superblock.clone();
        let mut entries: Vec<Entry> = Vec::new();
        let mut rewrites = Vec::new();
        let mut blocks = 0;
        while blocks < superblock.geometry.table_blocks() {
            let mut reads = Vec::new();
            for replica in 0..2 {
                let sector = superblock.table_sector(replica, blocks).expect("in range");
                reads.push(read(disk, sector)?);
            }
            let images = [image(&reads[0]), image(&reads[1])];
            match load::resolve_block(&superblock, blocks, &images).map_err(Stop::Refused)? {
                Resolved::End => break,
                Resolved::Block { truth, rewrite, .. } => {
                    let (first, end) = superblock.geometry.block_slots(blocks);
                    entries.extend(truth.entries().take((end - first) as usize));
                    for replica in (0..2).filter(|r| rewrite & 1 << r != 0) {
                        rewrites.push((replica, blocks, *truth.image()));
                    }
                }
            }
            blocks += 1;
        }
        let mut spare = Spare {
            metadata: Metadata::open(chosen, blocks),
            entries,
            map: BTreeMap::new(),
            repaired: rewrites.len(),
        };
        for (replica, block, image) in rewrites {
            let memory = Memory {
                entries: None,
                truth: Some(&image),
            };
            must(run(disk, spare.metadata.rewrite(replica, block), memory))?;
        }
        spare.index(disk, &superblock)?;
        if spare.metadata.is_unsettled() {
            must(spare.commit(disk, &[]))?;
        }
        if spare.metadata.is_stale() {
            must(spare.sync(disk))?;
        }
        Ok(spare)
    }

    fn index(&mut self, disk: &mut Disk, superblock: &Superblock) -> Result<(), Stop> {
        let mut freed = Vec::new();
        for slot in 0..self.entries.len() as u32 {
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
            let block = self.metadata.superblock().geometry.entry_place(loser).0;
            must(self.commit(disk, &[block]))?;
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, disk: &mut Disk, blocks: &[u32]) -> Result<Outcome, Trouble> {
        let memory = Memory {
            entries: Some(&self.entries),
            truth: None,
        };
        run(disk, self.metadata.commit(blocks), memory)
    }

    pub(super) fn extend(&mut self, disk: &mut Disk, blocks: u32) -> Result<Outcome, Trouble> {
        let memory = Memory {
            entries: None,
            truth: None,
        };
        let outcome = run(disk, self.metadata.extend(blocks), memory)?;
        if outcome == Outcome::Committed {
            let slots = self.metadata.superblock().usable_slots() as usize;
            self.entries.resize(slots, Entry::UNUSED);
        }
        Ok(outcome)
    }

    pub(super) fn sync(&mut self, disk: &mut Disk) -> Result<Outcome, Trouble> {
        let memory = Memory {
            entries: None,
            truth: None,
        };
        run(disk, self.metadata.sync(), memory)
    }

    /// The blocks of the table that hold the entries of `slots`.
    pub(super) fn blocks_of(&self, slots: &[u32]) -> Vec<u32> {
        let geometry = &self.metadata.superblock().geometry;
        let mut blocks: Vec<u32> = slots.iter().map(|s| geometry.entry_place(*s).0).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    pub(super) fn claim(&mut self, slot: u32, main_block: u64, state: State) {
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
    pub(super) fn check_redundancy(&self, disk: &mut Disk) {
        let superblock = self.metadata.superblock();
        let sectors = load::superblock_sectors(disk.sectors()).expect("a legal size");
        let mut copies = Vec::new();
        for (sector, copy) in sectors.into_iter().zip(0..) {
            if superblock.super_lives(copy) {
                let found = read(disk, sector).expect("online").expect("readable");
                copies.push(Superblock::decode(&found, copy).expect("a good copy"));
            }
        }
        assert!(copies.len() >= 2);
        assert!(copies.iter().all(|copy| *copy == copies[0]), "{copies:#?}");
        // Statistics get to the spare when the occasion arises.
        let mut found = copies.swap_remove(0);
        found.statistics = superblock.statistics;
        assert_eq!(found, *superblock);
        for block in 0..superblock.high_water {
            let mut reads = Vec::new();
            for replica in 0..2 {
                let sector = superblock.table_sector(replica, block).expect("in range");
                reads.push(read(disk, sector).expect("online"));
            }
            let images = [image(&reads[0]), image(&reads[1])];
            match load::resolve_block(superblock, block, &images) {
                Ok(Resolved::Block { rewrite: 0, .. }) => (),
                other => panic!("table block {block}: {other:?}"),
            }
        }
    }
}
