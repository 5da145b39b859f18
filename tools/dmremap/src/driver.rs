// SPDX-License-Identifier: GPL-2.0

//! Carrying out what the commit protocol decides: the same steps as in the module, as if (see
//! [`crate::spare`]).

use dm_remap_logic::commit::Content;
use dm_remap_logic::commit::Fault;
use dm_remap_logic::commit::Metadata;
use dm_remap_logic::commit::Op;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::commit::Step;
use dm_remap_logic::commit::COMMIT_BLOCKS_MAX;
use dm_remap_logic::commit::EXTEND_BLOCKS_MAX;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::slot::Entry;

use crate::error::Error;
use crate::error::Result;
use crate::set::Copy;
use crate::set::Place;
use crate::set::Set;
use crate::spare::Spare;

/// What table blocks are made from.
#[derive(Clone, Copy, Debug, Default)]
struct Memory<'a> {
    entries: &'a [Entry],
    truth: Option<&'a Block>,
}

/// The metadata of a set that is being changed.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    spares: &'a mut [Spare],
    metadata: Metadata,
}

impl<'a> Writer<'a> {
    /// Starts with this.
    pub(crate) fn new(spares: &'a mut [Spare], metadata: Metadata) -> Self {
        Self { spares, metadata }
    }

    /// Writes the superblock copies.
    pub(crate) fn sync(&mut self) -> Result<()> {
        run(self.spares, self.metadata.sync(), Memory::default())
    }

    /// Initialises the first slots.
    pub(crate) fn extend(&mut self) -> Result<()> {
        let op = self.metadata.extend(EXTEND_BLOCKS_MAX);
        run(self.spares, op, Memory::default())
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

    /// Makes a set that was read equal and tidy, as an activation does (M3, M5).
    pub(crate) fn tidy(&mut self, set: &Set) -> Result<()> {
        let member = set.superblock().member_uuid;
        for (found, block) in set.table.iter().zip(0u32..) {
            let truth = found.copies.get(usize::from(found.truth));
            let truth = truth.map(|copy| copy.place);
            for replica in 0..2u8 {
                if !set.is_to_be_rewritten(block, replica) {
                    continue;
                }
                let image = match truth {
                    Some(place) => read(self.spares, place)?,
                    None => None,
                };
                // It was read a moment ago.
                let Some(image) = image.filter(|i| TableBlock::decode(i, &member, block).is_ok())
                else {
                    return Err(Error::damage(format!(
                        "table block {block} changed meanwhile"
                    )));
                };
                let memory = Memory {
                    truth: Some(&image),
                    entries: &[],
                };
                run(self.spares, self.metadata.rewrite(replica, block), memory)?;
            }
        }
        let mut entries = set.entries.clone();
        let mut blocks = Vec::new();
        for (loser, _) in &set.lost_claims {
            if let Some(entry) = entries.get_mut(*loser as usize) {
                *entry = Entry::UNUSED;
            }
            blocks.push(set.superblock().geometry.entry_place(*loser).0);
        }
        self.commit(&entries, blocks)?;
        if self.metadata.is_unsettled() {
            self.commit_some(&entries, &[])?;
        }
        if self.metadata.is_stale() || self.metadata.superblock().void_supers != 0 {
            self.sync()?;
        }
        if self.metadata.superblock().high_water == 0 {
            self.extend()?;
        }
        Ok(())
    }

    /// Makes the entries of `blocks` durable.
    pub(crate) fn commit(&mut self, entries: &[Entry], mut blocks: Vec<u32>) -> Result<()> {
        blocks.sort_unstable();
        blocks.dedup();
        for blocks in blocks.chunks(COMMIT_BLOCKS_MAX) {
            self.commit_some(entries, blocks)?;
        }
        Ok(())
    }

    fn commit_some(&mut self, entries: &[Entry], blocks: &[u32]) -> Result<()> {
        let memory = Memory {
            entries,
            truth: None,
        };
        run(self.spares, self.metadata.commit(blocks), memory)
    }
}

/// Reads a block.
pub(crate) fn read(spares: &mut [Spare], place: Place) -> Result<Option<Box<Block>>> {
    match spares.get_mut(place.spare) {
        Some(spare) => spare.read(place.sector),
        None => Ok(None),
    }
}

fn run(spares: &mut [Spare], mut op: Op<'_>, memory: Memory<'_>) -> Result<()> {
    let mut image = [0; BLOCK_BYTES];
    let mut last = Ok(());
    loop {
        let (place, what) = match op.advance(last) {
            Step::Done(Outcome::Committed) => return Ok(()),
            Step::Done(Outcome::Failed { why, .. }) => {
                return Err(Error::damage(format!("cannot write the metadata: {why}")))
            }
            Step::Flush => {
                last = Ok(());
                continue;
            }
            Step::CheckTable { block, sector, .. } => {
                let member = op.metadata().superblock().member_uuid;
                let read = read(spares, Place { spare: 0, sector })?;
                let good = read.is_some_and(|i| TableBlock::decode(&i, &member, block).is_ok());
                last = if good { Ok(()) } else { Err(Fault::Media) };
                continue;
            }
            Step::WriteSuper { copy, sector } => {
                op.metadata().encode_superblock(&mut image, copy);
                (Place { spare: 0, sector }, Copy::Super { copy })
            }
            Step::WriteTable {
                replica,
                block,
                sector,
                content,
                ..
            } => {
                fill(&mut image, &op, memory, block, content)?;
                (Place { spare: 0, sector }, Copy::Table { block, replica })
            }
        };
        let spare = spares.get_mut(place.spare);
        let written =
            spare.is_some_and(|spare| spare.write(place.sector, &image, &what.to_string()));
        last = if written { Ok(()) } else { Err(Fault::Media) };
    }
}

fn fill(
    image: &mut Block,
    op: &Op<'_>,
    memory: Memory<'_>,
    block: u32,
    content: Content,
) -> Result<()> {
    let superblock = op.metadata().superblock();
    let (first, end) = superblock.geometry.block_slots(block);
    let (entries, sequence) = match (content, memory.truth) {
        (Content::Truth, Some(truth)) => {
            *image = *truth;
            return Ok(());
        }
        (Content::Truth, None) => return Err(Error::damage("no truth to write")),
        (Content::Empty { sequence }, _) => (&[][..], sequence),
        (Content::Current { sequence }, _) => {
            let entries = memory.entries.get(first as usize..).unwrap_or(&[]);
            (entries, sequence)
        }
    };
    let entries = entries.iter().take((end - first) as usize).copied();
    table_block::encode(image, &superblock.member_uuid, block, sequence, entries);
    Ok(())
}
