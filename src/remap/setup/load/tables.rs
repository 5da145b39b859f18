// SPDX-License-Identifier: GPL-2.0

//! Reading the slot tables.
//!
//! Both replicas of a table are read, in large parts. While a part is under way the one before it is looked
//! at, so that the processor and the disk do not wait for each other:
//!
//! ```text
//!   disk        0a 0b | 1b 1a | 2a 2b |
//!   processor         |   0   |   1   |   2
//! ```
//!
//! If both replicas are on one disk with arms, these move once for each part, and not twice: the replica that was
//! read last is the first of the next part.

use kernel::prelude::*;

use crate::{
    abstractions::{
        block,
        util, //
    },
    logic::{
        commit::{
            Metadata,
            EXTEND_BLOCKS_MAX, //
        },
        extents::Extents,
        format::{
            BlockId,
            Member,
            Place,
            Superblock,
            BLOCK_BYTES,
            BLOCK_SECTORS,
            MEMBERS_MAX,
            REPLICAS, //
        },
        load::{
            self,
            Chosen,
            Image,
            Resolved, //
        }, //
    },
    remap::path::map::{
        patient,
        Map, //
    }, //
};

use super::{
    block_image,
    filling::Filling,
    Loaded,
    Refused,
    Rewrite,
    Window, //
};

/// How many blocks a part has at most.
const PART_BLOCKS: u32 = 1024;

/// How many blocks one I/O reads. If one fails, its blocks are read one by one.
const PIECE_BLOCKS: u32 = 64;

const PIECES: usize = (PART_BLOCKS / PIECE_BLOCKS) as usize;

/// How many blocks a part has at least, also of those behind the high-water mark.
const PART_BLOCKS_MIN: u32 = 16;

/// Reads the slot tables of the set whose superblock is in `metadata`; `windows` are the spares that
/// there are.
#[inline(never)]
pub(in crate::remap) fn tables(
    windows: &[Window<'_>],
    chosen: &Chosen,
    mut metadata: KBox<Metadata>,
) -> Result<KBox<Loaded>, Refused> {
    let superblock = metadata.superblock();
    let extents = Extents::new(superblock.slot_sectors.trailing_zeros());
    let mut extents = KBox::new(extents, GFP_KERNEL)?;
    let mut table_blocks = [0; MEMBERS_MAX as usize];
    let read = read_members(windows, chosen, superblock, &mut extents, &mut table_blocks)?;
    metadata.open(chosen, &table_blocks);
    Ok(use_tables(metadata, KBox::into_inner(extents), read)?)
}

/// Makes a map of what was read.
#[inline(never)]
fn use_tables(
    metadata: KBox<Metadata>,
    extents: Extents,
    (mut filling, rewrites): (Filling, KVec<Rewrite>),
) -> Result<KBox<Loaded>> {
    let mut dirty = KVec::new();
    for lost in &filling.lost {
        let block = extents.block(*lost).ok_or(EINVAL)?;
        if dirty.last() != Some(&block) {
            dirty.push(block, GFP_KERNEL)?;
        }
    }
    filling.trim();
    let Filling {
        buckets,
        counts,
        slots,
        generations,
        ..
    } = filling;
    let map = Map::from_parts(buckets, slots, extents, patient())?;
    let loaded = Loaded {
        metadata,
        map: KBox::new(map, GFP_KERNEL)?,
        counts,
        generations,
        rewrites,
        dirty,
    };
    Ok(KBox::new(loaded, GFP_KERNEL)?)
}

/// Reads the tables of all members. Notes where their slots are, and how many blocks are in use of each.
#[inline(never)]
fn read_members(
    windows: &[Window<'_>],
    chosen: &Chosen,
    superblock: &Superblock,
    extents: &mut Extents,
    table_blocks: &mut [u32; MEMBERS_MAX as usize],
) -> Result<(Filling, KVec<Rewrite>), Refused> {
    let mut reader = Reader::new(windows, chosen, superblock)?;
    for (index, member) in superblock.members() {
        let first = reader.taker.filling.len();
        if first != 0 {
            // The number that is left out between two extents.
            reader.taker.filling.add_unknown(1)?;
        }
        let blocks = reader.read_all(index, member)?;
        if let Some(place) = table_blocks.get_mut(usize::from(index)) {
            *place = blocks;
        }
        let slots = member.slots_in(blocks);
        if slots == 0 {
            reader.taker.filling.truncate(first);
            continue;
        }
        // So that the map need not be replaced when the next blocks are initialised.
        let ahead = known_ahead(member, blocks);
        reader
            .taker
            .filling
            .add_unknown(ahead.saturating_sub(slots))?;
        if !extents.grow(index, member, ahead) {
            return Err(ENOMEM.into());
        }
    }
    let Taker {
        filling, rewrites, ..
    } = reader.taker;
    Ok((filling, rewrites))
}

/// How many slots of a member the map knows if `blocks` of its table are in use.
fn known_ahead(member: &Member, blocks: u32) -> u32 {
    member.slots_in(blocks.saturating_add(EXTEND_BLOCKS_MAX))
}

/// Where a replica of the blocks of a part is, if they are where they belong.
#[derive(Clone, Copy)]
struct ReplicaSource<'a> {
    window: &'a Window<'a>,
    sector: u64,
}

impl ReplicaSource<'_> {
    /// Its sector on the device.
    fn on_device(&self) -> u64 {
        self.window.start.saturating_add(self.sector)
    }
}

/// One replica's share of a part.
struct Side {
    buffer: block::IoBuffer,
    /// Which blocks could be read, a bit each, those of one piece in each word.
    readable: KVec<u64>,
}

impl Side {
    fn new(blocks: u32) -> Result<Self> {
        Ok(Self {
            buffer: block::IoBuffer::new(blocks as usize * BLOCK_BYTES, GFP_KERNEL)?,
            readable: KVec::from_elem(0, PIECES, GFP_KERNEL)?,
        })
    }

    /// Has `count` blocks read, in pieces.
    fn start<'env>(
        &'env mut self,
        batch: &mut block::Batch<'_, 'env>,
        source: &ReplicaSource<'env>,
        count: u32,
    ) -> Result {
        let bytes = count as usize * BLOCK_BYTES;
        let mut rest = self.buffer.slice_mut(0..bytes)?;
        let mut sector = source.on_device();
        while !rest.is_empty() {
            let len = rest.len().min(PIECE_BLOCKS as usize * BLOCK_BYTES);
            let (piece, tail) = rest.split_at(len)?;
            batch.read(source.window.spare, sector, piece, block::Opf::READ.sync())?;
            sector = sector.saturating_add((len / 512) as u64);
            rest = tail;
        }
        Ok(())
    }

    /// Notes how the pieces ended, and reads the blocks of those that failed one by one.
    fn finish(
        &mut self,
        source: &ReplicaSource<'_>,
        count: u32,
        statuses: &mut impl Iterator<Item = block::BlkStatus>,
    ) -> Result {
        for first in (0..count).step_by(PIECE_BLOCKS as usize) {
            let end = first.saturating_add(PIECE_BLOCKS).min(count);
            let failed = !statuses.next().is_some_and(block::BlkStatus::is_ok);
            for index in first..end {
                self.set_readable(index, true);
                if failed {
                    let offset = u64::from(index) * BLOCK_SECTORS;
                    self.read_one(index, source.window, source.sector.saturating_add(offset))?;
                }
            }
        }
        Ok(())
    }

    /// Reads one block from anywhere.
    fn read_one(&mut self, index: u32, window: &Window<'_>, sector: u64) -> Result {
        let mut single = block::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?;
        let readable = window.read(sector, &mut single, BLOCK_BYTES)?;
        let mut blocks = self.buffer.as_mut_slice().chunks_exact_mut(BLOCK_BYTES);
        if let Some(block) = blocks.nth(index as usize) {
            block.copy_from_slice(single.as_slice());
        }
        self.set_readable(index, readable);
        Ok(())
    }

    fn set_readable(&mut self, index: u32, readable: bool) {
        if let Some(piece) = self.readable.get_mut((index / PIECE_BLOCKS) as usize) {
            let bit = 1 << (index % PIECE_BLOCKS);
            *piece = if readable {
                *piece | bit
            } else {
                *piece & !bit
            };
        }
    }

    fn image(&self, index: u32) -> Image<'_> {
        let piece = self.readable.get((index / PIECE_BLOCKS) as usize);
        match piece.map(|piece| piece >> (index % PIECE_BLOCKS) & 1) {
            Some(1) => block_image(&self.buffer, index),
            _ => Image::Unreadable,
        }
    }
}

/// Some blocks of a table, as both replicas have them.
struct TablePart {
    first: u32,
    count: u32,
    sides: [Side; REPLICAS as usize],
}

impl TablePart {
    fn new(blocks: u32) -> Result<Self> {
        Ok(Self {
            first: 0,
            count: 0,
            sides: [Side::new(blocks)?, Side::new(blocks)?],
        })
    }
}

/// Takes over the truth about blocks.
struct Taker<'a> {
    superblock: &'a Superblock,
    filling: Filling,
    rewrites: KVec<Rewrite>,
}

impl Taker<'_> {
    /// Makes room for what is in all tables, if nothing was taken over so far.
    fn reserve(&mut self) -> Result {
        let (mut slots, mut used) = (0u32, 0u32);
        for (_, member) in self.superblock.members() {
            // And the number that is left out between two extents.
            let own = known_ahead(member, member.high_water).saturating_add(1);
            slots = slots.saturating_add(own);
            // There are no more remaps than slots.
            used = used.saturating_add(member.usable_slots());
        }
        self.filling.reserve(slots, used)
    }

    /// Takes over all blocks of a part. Gives the number of the first one that is not in use, if there is one.
    fn take(
        &mut self,
        index: u8,
        member: &Member,
        part: &TablePart,
    ) -> Result<Option<u32>, Refused> {
        let [a, b] = &part.sides;
        for at in 0..part.count {
            let block = part.first.saturating_add(at);
            let images = [a.image(at), b.image(at)];
            if !self.take_block(index, member, block, &images)? {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Takes over a block; false if it is not in use.
    fn take_block(
        &mut self,
        index: u8,
        member: &Member,
        block: u32,
        images: &[Image<'_>; REPLICAS as usize],
    ) -> Result<bool, Refused> {
        let id = BlockId {
            member: index,
            block,
        };
        let resolved = load::resolve_block_with(self.superblock, id, images, util::crc32c)?;
        let Resolved::Block { truth, rewrite, .. } = resolved else {
            return Ok(false);
        };
        let slots = member.block_slots(block);
        self.filling.add_block(self.superblock, slots, &truth)?;
        for replica in (0..REPLICAS).filter(|replica| rewrite & (1 << replica) != 0) {
            let rewrite = Rewrite { replica, block: id };
            self.rewrites.push(rewrite, GFP_KERNEL)?;
        }
        Ok(true)
    }
}

/// Which blocks a part has: the first, and how many.
type Blocks = (u32, u32);

/// Reads the replicas of slot tables side by side.
struct Reader<'a> {
    windows: &'a [Window<'a>],
    chosen: &'a Chosen,
    superblock: &'a Superblock,
    slots: block::BatchSlots,
    taker: Taker<'a>,
}

impl<'a> Reader<'a> {
    fn new(
        windows: &'a [Window<'a>],
        chosen: &'a Chosen,
        superblock: &'a Superblock,
    ) -> Result<Self> {
        Ok(Self {
            windows,
            chosen,
            superblock,
            slots: block::BatchSlots::new(PIECES * REPLICAS as usize, GFP_KERNEL)?,
            taker: Taker {
                superblock,
                filling: Filling::new(),
                rewrites: KVec::new(),
            },
        })
    }

    /// Reads all blocks of a member's table that are in use, and returns their number.
    fn read_all(&mut self, index: u8, member: &Member) -> Result<u32, Refused> {
        let total = member.table_blocks();
        // Behind the high-water mark there is most probably nothing: look at one block.
        let expected = member.high_water.saturating_add(1).min(total);
        let most = expected.clamp(PART_BLOCKS_MIN, PART_BLOCKS);
        let blocks_from = |first: u32| match expected.checked_sub(first) {
            None | Some(0) => (first, PART_BLOCKS_MIN.min(total.saturating_sub(first))),
            Some(left) => (first, most.min(left)),
        };
        let mut part = TablePart::new(most)?;
        let mut other = TablePart::new(if expected > most { most } else { 0 })?;
        let mut backwards = false;
        let reserve = |taker: &mut Taker<'_>| taker.reserve();
        self.read(&mut part, index, blocks_from(0), backwards, reserve)??;
        loop {
            let next = blocks_from(part.first.saturating_add(part.count));
            let end = if next.0 < expected {
                backwards = !backwards;
                let take = |taker: &mut Taker<'_>| taker.take(index, member, &part);
                let end = self.read(&mut other, index, next, backwards, take)??;
                core::mem::swap(&mut part, &mut other);
                end
            } else {
                let end = self.taker.take(index, member, &part)?;
                if end.is_none() && next.1 != 0 {
                    self.read(&mut part, index, next, backwards, |_| ())?;
                }
                end
            };
            match end {
                Some(blocks) => return Ok(blocks),
                None if next.1 == 0 => return Ok(total),
                None => (),
            }
        }
    }

    /// Reads blocks of a member's table into `part`, the last replica first if it is to be `backwards`, and
    /// does something else `meanwhile`.
    fn read<R>(
        &mut self,
        part: &mut TablePart,
        index: u8,
        blocks: Blocks,
        backwards: bool,
        meanwhile: impl FnOnce(&mut Taker<'a>) -> R,
    ) -> Result<R, Refused> {
        (part.first, part.count) = blocks;
        let mut replicas = [0, 1];
        let [a, b] = &mut part.sides;
        let mut sides = [a, b];
        if backwards {
            replicas.reverse();
            sides.reverse();
        }
        let sources = replicas.map(|replica| self.source(index, replica, blocks.0));
        let pool = self.windows.first().ok_or(EINVAL)?.pool;
        let started = &mut sides;
        let taker = &mut self.taker;
        let (started, done) = pool.batch_with(
            &mut self.slots,
            move |batch| -> Result {
                for (side, source) in started.iter_mut().zip(sources) {
                    side.readable.fill(0);
                    if let Some(source) = source {
                        side.start(batch, &source, blocks.1)?;
                    }
                }
                Ok(())
            },
            || meanwhile(taker),
        );
        started?;
        let mut statuses = self.slots.statuses();
        for (side, source) in sides.iter_mut().zip(sources) {
            if let Some(source) = source {
                side.finish(&source, blocks.1, &mut statuses)?;
            }
        }
        for (side, replica) in sides.iter_mut().zip(replicas) {
            self.read_moved(side, index, replica, blocks)?;
        }
        Ok(done)
    }

    fn window(&self, place: Place) -> Option<&'a Window<'a>> {
        let spare = self.chosen.spare_of(place.member)?;
        self.windows.get(usize::from(spare))
    }

    /// Where a replica of the blocks from `block` on is. What is void is not asked for, and what is not there
    /// can't be.
    fn source(&self, index: u8, replica: u8, block: u32) -> Option<ReplicaSource<'a>> {
        let lives = self.superblock.member(index)?.replica_lives(replica);
        let id = BlockId {
            member: index,
            block,
        };
        let home = self.superblock.own_place(replica, id).filter(|_| lives)?;
        Some(ReplicaSource {
            window: self.window(home)?,
            sector: home.sector,
        })
    }

    /// Reads what is not where it belongs, of these blocks.
    fn read_moved(&self, side: &mut Side, index: u8, replica: u8, blocks: Blocks) -> Result {
        let Some(member) = self.superblock.member(index) else {
            return Ok(());
        };
        let moved = member.relocations().filter(|moved| moved.0 == replica);
        for (_, block) in moved {
            let at = block.wrapping_sub(blocks.0);
            if at >= blocks.1 || self.source(index, replica, block).is_none() {
                continue;
            }
            let id = BlockId {
                member: index,
                block,
            };
            let place = self.superblock.table_place(replica, id);
            let place = place.and_then(|place| Some((self.window(place)?, place.sector)));
            if let Some((window, sector)) = place {
                side.read_one(at, window, sector)?;
            }
        }
        Ok(())
    }
}
