// SPDX-License-Identifier: GPL-2.0

//! Reading what is on a spare. Nothing is written here: this runs in the constructor, when the old
//! table may be in use (D2). What has to be made equal, freed or formatted is written down for
//! [`activate`](super::activate).

use super::io::is_suspect;
use super::io::read_twice;
use super::map::Map;
use super::map::UNKNOWN;
use super::writer::STAGED_MAX;
use crate::dm;
use crate::logic::classify::Operation;
use crate::logic::commit::Metadata;
use crate::logic::commit::EXTEND_BLOCKS_MAX;
use crate::logic::errno::Errno;
use crate::logic::extents::Extents;
use crate::logic::format::is_zero;
use crate::logic::format::Block;
use crate::logic::format::BlockId;
use crate::logic::format::Geometry;
use crate::logic::format::Member;
use crate::logic::format::Place;
use crate::logic::format::Superblock;
use crate::logic::format::BLOCK_BYTES;
use crate::logic::format::BLOCK_SECTORS;
use crate::logic::format::MEMBERS_MAX;
use crate::logic::format::REPLICAS;
use crate::logic::format::SUPER_COPIES;
use crate::logic::load;
use crate::logic::load::Chosen;
use crate::logic::load::Claim;
use crate::logic::load::Found;
use crate::logic::load::Image;
use crate::logic::load::LoadError;
use crate::logic::load::Resolved;
use crate::logic::load::SuperImage;
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
    pub(super) block: BlockId,
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
    pub(super) dirty: KVec<BlockId>,
}

impl Loaded {
    /// What spares without any table blocks give.
    pub(super) fn empty(metadata: KBox<Metadata>) -> Result<Self> {
        let superblock = metadata.superblock();
        let mut extents = Extents::new(superblock.slot_sectors.trailing_zeros());
        if let Some(first) = superblock.member(0) {
            extents.grow(0, first, first.slots_in(EXTEND_BLOCKS_MAX));
        }
        let mut generations = KVVec::new();
        generations.resize(extents.end() as usize, 0, GFP_KERNEL)?;
        Ok(Self {
            map: Map::new(core::iter::empty(), extents, 0)?,
            metadata,
            counts: Counts::default(),
            generations,
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

    /// Reads the superblock copies into `reads`, as those of spare number `number`. What is decoded on
    /// the way is left in `scratch`.
    fn read_supers(
        &self,
        number: u8,
        reads: &mut KVec<SuperRead>,
        scratch: &mut Superblock,
    ) -> Result {
        // The copies at the head tell where the others are; otherwise the window does.
        let mut sectors = load::superblock_sectors(self.sectors).ok_or(ENOSPC)?;
        let first = reads.len();
        for copy in 0..SUPER_COPIES {
            if copy == 2 {
                let at = |index: usize| {
                    let read = reads.get(first.saturating_add(index));
                    read.map_or(Image::Unreadable, SuperRead::image)
                };
                if let Some(known) = load::window_sectors(&[at(0), at(1)], scratch)
                    .filter(|known| *known <= self.sectors)
                    .and_then(load::superblock_sectors)
                {
                    sectors = known;
                }
            }
            let sector = sectors.get(usize::from(copy)).ok_or(EINVAL)?;
            let mut buffer = dm::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?;
            let readable = self.read(*sector, &mut buffer, BLOCK_BYTES)?;
            let read = SuperRead {
                spare: number,
                copy,
                buffer,
                readable,
            };
            reads.push(read, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Whether everything reads as zero: all of a window up to twice [`BLANK_SECTORS`]; of a larger one
    /// that much at either end of the data area, and [`BLANK_TABLE_SECTORS`] at either end of the two
    /// ranges of metadata. Reading a terabyte would take hours, as would its tables, of which nothing
    /// may ever be used; and no signature that tools know is in the middle.
    pub(super) fn is_blank(&self, geometry: &Geometry) -> Result<bool> {
        self.is_zero_but_for(geometry, &[])
    }

    /// The same, whatever is in the places of the superblock copies.
    pub(super) fn is_blank_but_for_supers(&self, geometry: &Geometry) -> Result<bool> {
        let mut supers = [0; SUPER_COPIES as usize];
        for (sector, copy) in supers.iter_mut().zip(0..) {
            *sector = geometry.superblock_sector(copy).ok_or(EINVAL)?;
        }
        self.is_zero_but_for(geometry, &supers)
    }

    /// The same, but for the metadata blocks at these sectors.
    fn is_zero_but_for(&self, geometry: &Geometry, except: &[u64]) -> Result<bool> {
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
                for sector in except {
                    let offset = sector.checked_sub(at).filter(|offset| *offset < sectors);
                    let place = offset.and_then(|offset| {
                        let tail = buffer.as_mut_slice().get_mut(offset as usize * 512..)?;
                        tail.get_mut(..BLOCK_BYTES)
                    });
                    if let Some(place) = place {
                        place.fill(0);
                    }
                }
                if !is_zero(buffer.as_slice().get(..bytes).unwrap_or(&[1])) {
                    return Ok(false);
                }
                at = at.saturating_add(sectors);
            }
        }
        Ok(true)
    }
}

/// A superblock copy that was read.
struct SuperRead {
    spare: u8,
    copy: u8,
    buffer: dm::IoBuffer,
    readable: bool,
}

impl SuperRead {
    fn image(&self) -> Image<'_> {
        if self.readable {
            block_image(&self.buffer, 0)
        } else {
            Image::Unreadable
        }
    }
}

/// Finds the superblock on the spares in `windows`, and leaves it in `superblock`. Those that `ignored`
/// names, a bit each, are to be formatted whatever is on them.
#[inline(never)]
pub(super) fn find_superblock(
    windows: &[Window<'_>],
    ignored: u8,
    superblock: &mut Superblock,
) -> Result<Found, Refused> {
    let mut reads = KVec::new();
    for (window, number) in windows.iter().zip(0u8..) {
        if ignored & (1 << number.min(7)) == 0 {
            window.read_supers(number, &mut reads, superblock)?;
        }
    }
    let mut images = KVec::with_capacity(reads.len(), GFP_KERNEL)?;
    for read in &reads {
        let image = SuperImage {
            spare: read.spare,
            copy: read.copy,
            image: read.image(),
        };
        images.push(image, GFP_KERNEL)?;
    }
    let mut found = load::choose_superblock(&images, superblock)?;
    if let Found::Ours(chosen) = &mut found {
        chosen.blank |= ignored;
    }
    Ok(found)
}

/// Reads the slot tables of the set whose superblock is in `metadata`; `windows` are the spares that
/// there are.
pub(super) fn tables(
    windows: &[Window<'_>],
    chosen: &Chosen,
    mut metadata: KBox<Metadata>,
) -> Result<Loaded, Refused> {
    let superblock = metadata.superblock();
    let mut reader = Reader {
        windows,
        chosen,
        superblock,
        member: 0,
        buffers: [
            dm::IoBuffer::new(BATCH_BLOCKS as usize * BLOCK_BYTES, GFP_KERNEL)?,
            dm::IoBuffer::new(BATCH_BLOCKS as usize * BLOCK_BYTES, GFP_KERNEL)?,
        ],
        readable: [[false; BATCH_BLOCKS as usize]; REPLICAS as usize],
        words: KVVec::new(),
        generations: KVVec::new(),
        rewrites: KVec::new(),
    };
    let mut extents = Extents::new(superblock.slot_sectors.trailing_zeros());
    let mut table_blocks = [0; MEMBERS_MAX as usize];
    for (index, member) in superblock.members() {
        reader.member = index;
        let gap = extents.end() != 0;
        let first = reader.words.len();
        if gap {
            // The number that is left out between two extents.
            reader.words.push(UNKNOWN.to_memory(), GFP_KERNEL)?;
            reader.generations.push(0, GFP_KERNEL)?;
        }
        let blocks = reader.read_all(member)?;
        if let Some(place) = table_blocks.get_mut(usize::from(index)) {
            *place = blocks;
        }
        let slots = member.slots_in(blocks);
        if slots == 0 {
            reader.words.truncate(first);
            reader.generations.truncate(first);
        }
        if !extents.grow(index, member, slots) {
            return Err(ENOMEM.into());
        }
    }
    let Reader {
        mut words,
        mut generations,
        rewrites,
        ..
    } = reader;
    metadata.open(chosen, &table_blocks);
    for (word, number) in words.iter_mut().zip(0u32..) {
        let member = extents.slot(number).map(|(member, _)| member);
        let usable = member.is_some_and(|member| metadata.is_usable(member));
        if !usable && SlotWord::from_memory(*word).is_available() {
            *word = UNKNOWN.to_memory();
        }
    }

    let claims = words
        .iter()
        .filter(|word| SlotWord::from_memory(**word).is_claim())
        .count();
    let claims = u32::try_from(claims).map_err(|_| ENOMEM)?;
    let reserve = claims.saturating_add(STAGED_MAX as u32);
    let map = Map::new(words.iter().copied(), extents, reserve)?;
    let mut counts = Counts::default();
    let mut dirty = KVec::new();
    for slot in 0..u32::try_from(words.len()).map_err(|_| ENOMEM)? {
        let lost = claim(&map, &mut counts, &generations, slot)?;
        if let Some(lost) = lost {
            let owner = extents.slot(lost).map(|(member, _)| member);
            let usable = owner.is_some_and(|member| metadata.is_usable(member));
            map.view()
                .set_slot(lost, if usable { SlotWord::FREE } else { UNKNOWN });
            if let Some(generation) = generations.get_mut(lost as usize) {
                *generation = 0;
            }
            let block = extents.block(lost).ok_or(EINVAL)?;
            if dirty.last() != Some(&block) {
                dirty.push(block, GFP_KERNEL)?;
            }
        }
    }
    Ok(Loaded {
        metadata,
        map,
        counts,
        generations,
        rewrites,
        dirty,
    })
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

fn block_image(buffer: &dm::IoBuffer, index: u32) -> Image<'_> {
    buffer
        .as_slice()
        .chunks_exact(BLOCK_BYTES)
        .nth(index as usize)
        .and_then(|bytes| bytes.first_chunk::<BLOCK_BYTES>())
        .map_or(Image::Unreadable, |block: &Block| Image::Read(block))
}

/// Reads the replicas of a slot table side by side.
struct Reader<'a> {
    windows: &'a [Window<'a>],
    chosen: &'a Chosen,
    superblock: &'a Superblock,
    /// Whose table is read.
    member: u8,
    buffers: [dm::IoBuffer; REPLICAS as usize],
    readable: [[bool; BATCH_BLOCKS as usize]; REPLICAS as usize],
    words: KVVec<u64>,
    generations: KVVec<u64>,
    rewrites: KVec<Rewrite>,
}

impl<'a> Reader<'a> {
    /// Reads all blocks that are in use, and returns their number.
    fn read_all(&mut self, member: &Member) -> Result<u32, Refused> {
        let total = member.table_blocks();
        let mut first = 0;
        while first < total {
            // Behind the high-water mark there is most probably nothing: look at one block.
            let known = member.high_water.saturating_sub(first).max(1);
            let count = BATCH_BLOCKS.min(known).min(total.saturating_sub(first));
            for replica in 0..REPLICAS {
                self.read_batch(member, replica, first, count)?;
            }
            for index in 0..count {
                if !self.take(member, first.saturating_add(index), index)? {
                    return Ok(first.saturating_add(index));
                }
            }
            first = first.saturating_add(count);
        }
        Ok(total)
    }

    fn window(&self, place: Place) -> Option<&'a Window<'a>> {
        let spare = self.chosen.spare_of(place.member)?;
        self.windows.get(usize::from(spare))
    }

    /// Reads `count` blocks of a replica: at one go, and one by one where that fails.
    fn read_batch(
        &mut self,
        member: &Member,
        replica: u8,
        first: u32,
        count: u32,
    ) -> Result<(), Refused> {
        let (superblock, index) = (self.superblock, self.member);
        let id = |block| BlockId {
            member: index,
            block,
        };
        let home = superblock.own_place(replica, id(first));
        let window = home.and_then(|home| self.window(home));
        let (Some(buffer), Some(readable)) = (
            self.buffers.get_mut(usize::from(replica)),
            self.readable.get_mut(usize::from(replica)),
        ) else {
            return Ok(());
        };
        readable.fill(false);
        // What is void is not asked for, and what is not there can't be.
        let (Some(home), Some(window), true) = (home, window, member.replica_lives(replica)) else {
            return Ok(());
        };
        let bytes = count as usize * BLOCK_BYTES;
        let whole = window.read(home.sector, buffer, bytes)?;
        readable.fill(whole);
        let mut single = None;
        for (index, readable) in (0..count).zip(readable.iter_mut()) {
            let block = first.saturating_add(index);
            let moved = member.relocation(replica, block).is_some();
            if whole && !moved {
                continue;
            }
            let Some(place) = superblock.table_place(replica, id(block)) else {
                continue;
            };
            let single = match &mut single {
                Some(single) => single,
                None => single.insert(dm::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?),
            };
            *readable = window.read(place.sector, single, BLOCK_BYTES)?;
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
    fn take(&mut self, member: &Member, block: u32, index: u32) -> Result<bool, Refused> {
        let id = BlockId {
            member: self.member,
            block,
        };
        let [a, b] = &self.buffers;
        let [readable_a, readable_b] = &self.readable;
        let image = |buffer, readable: &[bool]| match readable.get(index as usize) {
            Some(true) => block_image(buffer, index),
            _ => Image::Unreadable,
        };
        let images = [image(a, readable_a), image(b, readable_b)];
        let resolved = load::resolve_block(self.superblock, id, &images)?;
        let Resolved::Block { truth, rewrite, .. } = resolved else {
            return Ok(false);
        };
        let (first, end) = member.block_slots(block);
        for (slot, entry) in (first..end).zip(truth.entries()) {
            load::check_entry(self.superblock, slot, &entry)?;
            self.words.push(entry.word.to_memory(), GFP_KERNEL)?;
            self.generations.push(entry.generation, GFP_KERNEL)?;
        }
        for replica in (0..REPLICAS).filter(|replica| rewrite & (1 << replica) != 0) {
            let rewrite = Rewrite { replica, block: id };
            self.rewrites.push(rewrite, GFP_KERNEL)?;
        }
        Ok(true)
    }
}
