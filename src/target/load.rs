// SPDX-License-Identifier: GPL-2.0

//! Reading what is on a spare. Nothing is written here: this runs in the constructor, when the old
//! table may be in use (D2). What has to be made equal, freed or formatted is written down for
//! [`activate`](super::activate).

use super::io::is_suspect;
use super::io::read_twice;
use super::map::Map;
use super::writer::STAGED_MAX;
use crate::dm;
use crate::logic::classify::Operation;
use crate::logic::commit::Metadata;
use crate::logic::commit::EXTEND_BLOCKS_MAX;
use crate::logic::errno::Errno;
use crate::logic::format::is_zero;
use crate::logic::format::Block;
use crate::logic::format::Geometry;
use crate::logic::format::Superblock;
use crate::logic::format::BLOCK_BYTES;
use crate::logic::format::BLOCK_SECTORS;
use crate::logic::format::REPLICAS;
use crate::logic::format::SUPER_COPIES;
use crate::logic::load;
use crate::logic::load::Chosen;
use crate::logic::load::Claim;
use crate::logic::load::Found;
use crate::logic::load::Image;
use crate::logic::load::LoadError;
use crate::logic::load::Resolved;
use crate::logic::slot::Entry;
use crate::logic::slot::SlotWord;
use crate::logic::table::Counts;
use crate::logic::table::InsertError;
use kernel::prelude::*;

/// How many metadata blocks are read at a time.
const BATCH_BLOCKS: u32 = 64;

/// How much of the data area is read at least to see whether it is blank: 512 MiB at either end.
const BLANK_SECTORS: u64 = 1 << 20;

/// And how much of the metadata's ranges: 128 MiB at either end of each, which is all of them if the
/// window is not larger than 8 GiB.
const BLANK_TABLE_SECTORS: u64 = 1 << 18;

/// Why a spare could not be read.
pub(super) enum Refused {
    /// What is on it forbids to use it.
    Content(LoadError),
    /// What is on it and what the table line says do not go together.
    Text(Errno, &'static CStr),
    /// Something else went wrong.
    Errno(Error),
}

impl From<LoadError> for Refused {
    fn from(error: LoadError) -> Self {
        Refused::Content(error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Errno(error)
    }
}

impl From<kernel::alloc::AllocError> for Refused {
    fn from(error: kernel::alloc::AllocError) -> Self {
        Refused::Errno(error.into())
    }
}

/// A replica's table block that differs from the truth.
pub(super) struct Rewrite {
    pub(super) replica: u8,
    pub(super) block: u32,
    /// The replica that has the truth.
    pub(super) truth: u8,
}

/// What was found on a spare of ours, in the form in which it is used.
pub(super) struct Loaded {
    pub(super) metadata: KBox<Metadata>,
    pub(super) map: Map,
    pub(super) counts: Counts,
    pub(super) generations: KVVec<u64>,
    /// Replicas that have to be made equal (M3).
    pub(super) rewrites: KVec<Rewrite>,
    /// Table blocks with claims that lost against newer ones (M5).
    pub(super) dirty: KVec<u32>,
}

impl Loaded {
    /// What a spare without any table blocks gives.
    pub(super) fn empty(metadata: KBox<Metadata>) -> Result<Self> {
        let first = metadata.superblock().geometry.slots_in(EXTEND_BLOCKS_MAX);
        Ok(Self {
            metadata,
            map: Map::new(core::iter::empty(), first as usize, 0)?,
            counts: Counts::default(),
            generations: KVVec::new(),
            rewrites: KVec::new(),
            dirty: KVec::new(),
        })
    }
}

/// The window of a spare device, for reading.
pub(super) struct Window<'a> {
    pub(super) pool: &'a dm::BioPool,
    pub(super) spare: &'a dm::Device,
    /// First sector on the device.
    pub(super) start: u64,
    /// Number of sectors, as far as the table line and the device say.
    pub(super) sectors: u64,
}

impl Window<'_> {
    /// Reads `bytes` at `sector` of the window into the start of `buffer`. Gives whether that was
    /// possible; fails if it says nothing about the medium.
    fn read(&self, sector: u64, buffer: &mut dm::IoBuffer, bytes: usize) -> Result<bool> {
        let at = self.start.saturating_add(sector);
        match read_twice(self.pool, self.spare, at, buffer, bytes) {
            Ok(()) => Ok(true),
            Err(status) if is_suspect(Operation::Read, status) => Ok(false),
            Err(status) => Err(Error::from_errno(status.to_errno())),
        }
    }

    /// Finds the superblock; `None` if the spare is blank. It is boxed because it is large for the
    /// kernel's stack.
    #[inline(never)]
    pub(super) fn superblock(&self) -> Result<Option<KBox<Chosen>>, Refused> {
        let mut buffers = KVec::with_capacity(SUPER_COPIES as usize, GFP_KERNEL)?;
        for _ in 0..SUPER_COPIES {
            buffers.push(dm::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let mut readable = [false; SUPER_COPIES as usize];
        // The copies at the head tell where the others are; otherwise the window does.
        let mut sectors = load::superblock_sectors(self.sectors).ok_or(ENOSPC)?;
        for copy in 0..SUPER_COPIES as usize {
            if copy == 2 {
                let head = [image(&buffers, &readable, 0), image(&buffers, &readable, 1)];
                if let Some(known) = load::window_sectors(&head)
                    .filter(|known| *known <= self.sectors)
                    .and_then(load::superblock_sectors)
                {
                    sectors = known;
                }
            }
            let (Some(sector), Some(buffer), Some(readable)) = (
                sectors.get(copy),
                buffers.get_mut(copy),
                readable.get_mut(copy),
            ) else {
                return Err(EINVAL.into());
            };
            *readable = self.read(*sector, buffer, BLOCK_BYTES)?;
        }
        let images = [
            image(&buffers, &readable, 0),
            image(&buffers, &readable, 1),
            image(&buffers, &readable, 2),
            image(&buffers, &readable, 3),
        ];
        match load::choose_superblock(&images)? {
            Found::Blank => Ok(None),
            Found::Ours(chosen) => Ok(Some(KBox::new(chosen, GFP_KERNEL)?)),
        }
    }

    /// Whether everything reads as zero: all of a window up to twice [`BLANK_SECTORS`]; of a larger one
    /// that much at either end of the data area, and [`BLANK_TABLE_SECTORS`] at either end of the two
    /// ranges of metadata. Reading a terabyte would take hours, as would its tables, of which nothing
    /// may ever be used; and no signature that tools know is in the middle.
    pub(super) fn is_blank(&self, geometry: &Geometry) -> Result<bool> {
        let mut buffer = dm::IoBuffer::new(BATCH_BLOCKS as usize * BLOCK_BYTES, GFP_KERNEL)?;
        let batch = u64::from(BATCH_BLOCKS) * BLOCK_SECTORS;
        let data = (geometry.data_start(), geometry.data_end());
        let [head, tail] = geometry.metadata_ranges();
        let ranges = [
            (head, BLANK_TABLE_SECTORS),
            (data, BLANK_SECTORS),
            (tail, BLANK_TABLE_SECTORS),
        ];
        let ends = ranges.into_iter().flat_map(|((start, end), most)| {
            let first_end = end.min(start.saturating_add(most));
            let last_start = first_end.max(end.saturating_sub(most));
            [(start, first_end), (last_start, end)]
        });
        for (start, end) in ends {
            let mut at = start;
            while at < end {
                let sectors = batch.min(end.saturating_sub(at));
                let bytes = sectors as usize * 512;
                if !self.read(at, &mut buffer, bytes)? {
                    return Ok(false);
                }
                if !is_zero(buffer.as_slice().get(..bytes).unwrap_or(&[1])) {
                    return Ok(false);
                }
                at = at.saturating_add(sectors);
            }
        }
        Ok(true)
    }

    /// Reads the slot table that belongs to `chosen`.
    pub(super) fn table(&self, chosen: KBox<Chosen>) -> Result<Loaded, Refused> {
        let superblock = &chosen.superblock;
        let mut reader = Reader {
            window: self,
            superblock,
            buffers: [
                dm::IoBuffer::new(BATCH_BLOCKS as usize * BLOCK_BYTES, GFP_KERNEL)?,
                dm::IoBuffer::new(BATCH_BLOCKS as usize * BLOCK_BYTES, GFP_KERNEL)?,
            ],
            readable: [[false; BATCH_BLOCKS as usize]; REPLICAS as usize],
            words: KVVec::new(),
            generations: KVVec::new(),
            rewrites: KVec::new(),
        };
        let blocks = reader.read_all()?;
        let Reader {
            words,
            mut generations,
            rewrites,
            ..
        } = reader;

        let claims = words
            .iter()
            .filter(|word| SlotWord::from_memory(**word).is_claim())
            .count();
        let claims = u32::try_from(claims).map_err(|_| ENOMEM)?;
        let reserve = claims.saturating_add(STAGED_MAX as u32);
        let map = Map::new(words.iter().copied(), words.len(), reserve)?;
        let mut counts = Counts::default();
        let mut dirty = KVec::new();
        for slot in 0..u32::try_from(words.len()).map_err(|_| ENOMEM)? {
            let lost = claim(&map, &mut counts, &generations, slot)?;
            if let Some(lost) = lost {
                map.view().set_slot(lost, SlotWord::FREE);
                if let Some(generation) = generations.get_mut(lost as usize) {
                    *generation = 0;
                }
                let (block, _) = superblock.geometry.entry_place(lost);
                if dirty.last() != Some(&block) {
                    dirty.push(block, GFP_KERNEL)?;
                }
            }
        }
        Ok(Loaded {
            metadata: open(chosen, blocks)?,
            map,
            counts,
            generations,
            rewrites,
            dirty,
        })
    }
}

#[inline(never)]
fn open(chosen: KBox<Chosen>, blocks: u32) -> Result<KBox<Metadata>> {
    Ok(KBox::new(
        Metadata::open(KBox::into_inner(chosen), blocks),
        GFP_KERNEL,
    )?)
}

/// Enters the claim of `slot`, if it has one. Gives the slot whose claim lost, if another slot has
/// claimed the same block.
fn claim(
    map: &Map,
    counts: &mut Counts,
    generations: &[u64],
    slot: u32,
) -> Result<Option<u32>, Refused> {
    let word = map.word(slot);
    if !word.is_claim() {
        return Ok(None);
    }
    let entry = |slot: u32| Entry {
        word: map.word(slot),
        generation: generations.get(slot as usize).copied().unwrap_or(0),
    };
    match map.view().insert(counts, word.main_block(), slot) {
        Ok(()) => Ok(None),
        Err(InsertError::Full) => Err(ENOMEM.into()),
        Err(InsertError::Exists { slot: other }) => {
            match load::settle_claims(&entry(other), &entry(slot))? {
                Claim::First => Ok(Some(slot)),
                Claim::Second => {
                    map.view().replace(word.main_block(), other, slot);
                    Ok(Some(other))
                }
            }
        }
    }
}

/// The image in one of several buffers.
fn image<'a>(buffers: &'a [dm::IoBuffer], readable: &[bool], index: usize) -> Image<'a> {
    match (readable.get(index), buffers.get(index)) {
        (Some(true), Some(buffer)) => block_image(buffer, 0),
        _ => Image::Unreadable,
    }
}

fn block_image(buffer: &dm::IoBuffer, index: u32) -> Image<'_> {
    buffer
        .as_slice()
        .chunks_exact(BLOCK_BYTES)
        .nth(index as usize)
        .and_then(|bytes| bytes.first_chunk::<BLOCK_BYTES>())
        .map_or(Image::Unreadable, |block: &Block| Image::Read(block))
}

/// Reads the replicas of the slot table side by side.
struct Reader<'a> {
    window: &'a Window<'a>,
    superblock: &'a Superblock,
    buffers: [dm::IoBuffer; REPLICAS as usize],
    readable: [[bool; BATCH_BLOCKS as usize]; REPLICAS as usize],
    words: KVVec<u64>,
    generations: KVVec<u64>,
    rewrites: KVec<Rewrite>,
}

impl Reader<'_> {
    /// Reads all blocks that are in use, and returns their number.
    fn read_all(&mut self) -> Result<u32, Refused> {
        let total = self.superblock.geometry.table_blocks();
        let mut first = 0;
        while first < total {
            // Behind the high-water mark there is most probably nothing: look at one block.
            let known = self.superblock.high_water.saturating_sub(first).max(1);
            let count = BATCH_BLOCKS.min(known).min(total.saturating_sub(first));
            for replica in 0..REPLICAS {
                self.read_batch(replica, first, count)?;
            }
            for index in 0..count {
                if !self.take(first.saturating_add(index), index)? {
                    return Ok(first.saturating_add(index));
                }
            }
            first = first.saturating_add(count);
        }
        Ok(total)
    }

    /// Reads `count` blocks of a replica: at one go, and one by one where that fails.
    fn read_batch(&mut self, replica: u8, first: u32, count: u32) -> Result<(), Refused> {
        let (Some(buffer), Some(readable)) = (
            self.buffers.get_mut(usize::from(replica)),
            self.readable.get_mut(usize::from(replica)),
        ) else {
            return Ok(());
        };
        let geometry = &self.superblock.geometry;
        let Some(home) = geometry.table_block_sector(replica, first) else {
            return Ok(());
        };
        let bytes = count as usize * BLOCK_BYTES;
        let whole = self.window.read(home, buffer, bytes)?;
        readable.fill(whole);
        let mut single = None;
        for (index, readable) in (0..count).zip(readable.iter_mut()) {
            let block = first.saturating_add(index);
            let moved = self.superblock.relocation(replica, block).is_some();
            if whole && !moved {
                continue;
            }
            let Some(place) = self.superblock.table_sector(replica, block) else {
                continue;
            };
            let single = match &mut single {
                Some(single) => single,
                None => single.insert(dm::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?),
            };
            *readable = self.window.read(place, single, BLOCK_BYTES)?;
            let at = index as usize * BLOCK_BYTES;
            if let Some(to) = buffer
                .as_mut_slice()
                .get_mut(at..at.saturating_add(BLOCK_BYTES))
            {
                to.copy_from_slice(single.as_slice());
            }
        }
        Ok(())
    }

    /// Takes over the truth about a block; false if it is not in use.
    fn take(&mut self, block: u32, index: u32) -> Result<bool, Refused> {
        let [a, b] = &self.buffers;
        let [readable_a, readable_b] = &self.readable;
        let image = |buffer, readable: &[bool]| match readable.get(index as usize) {
            Some(true) => block_image(buffer, index),
            _ => Image::Unreadable,
        };
        let images = [image(a, readable_a), image(b, readable_b)];
        let resolved = load::resolve_block(self.superblock, block, &images)?;
        let Resolved::Block {
            truth,
            replica,
            rewrite,
        } = resolved
        else {
            return Ok(false);
        };
        let (first, end) = self.superblock.geometry.block_slots(block);
        for (slot, entry) in (first..end).zip(truth.entries()) {
            load::check_entry(self.superblock, slot, &entry)?;
            self.words.push(entry.word.to_memory(), GFP_KERNEL)?;
            self.generations.push(entry.generation, GFP_KERNEL)?;
        }
        for other in (0..REPLICAS).filter(|other| rewrite & (1 << other) != 0) {
            self.rewrites.push(
                Rewrite {
                    replica: other,
                    block,
                    truth: replica,
                },
                GFP_KERNEL,
            )?;
        }
        Ok(true)
    }
}
