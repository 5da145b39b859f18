// SPDX-License-Identifier: GPL-2.0

//! Reading what is on a spare. Nothing is written here: this runs in the constructor, when the old
//! table may be in use (D2). What has to be made equal, freed or formatted is written down for
//! [`activate`](crate::remap::session::activate).
//!
//! | file        | what it does                             |
//! |-------------|------------------------------------------|
//! | `tables`    | reads the slot tables                    |
//! | `filling`   | the map while it is filled               |
//! | `returning` | looks at a spare that was away           |

mod filling;
pub(in crate::remap) mod returning;
mod tables;

use kernel::prelude::*;

use crate::{
    abstractions::{
        block,
        dm, //
    },
    logic::{
        classify::Operation,
        commit::{
            Metadata,
            EXTEND_BLOCKS_MAX, //
        },
        extents::Extents,
        format::{
            is_zero,
            Block,
            BlockId,
            Geometry,
            Superblock,
            BLOCK_BYTES,
            BLOCK_SECTORS,
            SUPER_COPIES, //
        },
        load::{
            self,
            Found,
            Image,
            LoadError,
            SuperImage, //
        },
        set::Refusal,
        table::Counts, //
    },
    remap::{
        meta::io::{
            is_suspect,
            read_twice, //
        },
        path::map::Map, //
    }, //
};
pub(in crate::remap) use returning::{
    Return,
    Sight, //
};
pub(in crate::remap) use tables::tables;

/// How many metadata blocks are read at a time.
const BATCH_BLOCKS: u32 = 64;

/// How much of the data area is read at least to see whether it is blank: 512 MiB at either end.
const BLANK_SECTORS: u64 = 1 << 20;

/// And how much of the metadata's ranges: 128 MiB at either end of each, which is all of them if the
/// window is not larger than 8 GiB.
const BLANK_TABLE_SECTORS: u64 = 1 << 18;

/// Why a spare could not be read.
pub(in crate::remap) enum Refused {
    /// What is on it forbids to use it, or does not go together with what the table line says.
    Why(Refusal),
    /// Something else went wrong.
    Errno(Error),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused::Why(refusal)
    }
}

impl From<LoadError> for Refused {
    fn from(error: LoadError) -> Self {
        Refused::Why(error.into())
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
pub(in crate::remap) struct Rewrite {
    pub(in crate::remap) replica: u8,
    pub(in crate::remap) block: BlockId,
}

/// What was found on a spare of ours, in the form in which it is used.
pub(in crate::remap) struct Loaded {
    pub(in crate::remap) metadata: KBox<Metadata>,
    pub(in crate::remap) map: KBox<Map>,
    pub(in crate::remap) counts: Counts,
    pub(in crate::remap) generations: KVVec<u64>,
    /// Replicas that have to be made equal (M3).
    pub(in crate::remap) rewrites: KVec<Rewrite>,
    /// Table blocks with claims that lost against newer ones (M5).
    pub(in crate::remap) dirty: KVec<BlockId>,
}

impl Loaded {
    /// What spares without any table blocks give.
    #[inline(never)]
    pub(in crate::remap) fn empty(metadata: KBox<Metadata>) -> Result<KBox<Self>> {
        let superblock = metadata.superblock();
        let mut extents = Extents::new(superblock.slot_sectors.trailing_zeros());
        if let Some(first) = superblock.member(0) {
            extents.grow(0, first, first.slots_in(EXTEND_BLOCKS_MAX));
        }
        let mut generations = KVVec::new();
        generations.resize(extents.end() as usize, 0, GFP_KERNEL)?;
        let map = Map::new(&extents, 0, GFP_KERNEL)?;
        let loaded = Self {
            metadata,
            map: KBox::new(map, GFP_KERNEL)?,
            counts: Counts::default(),
            generations,
            rewrites: KVec::new(),
            dirty: KVec::new(),
        };
        Ok(KBox::new(loaded, GFP_KERNEL)?)
    }
}

/// The window of a spare device, for reading.
pub(in crate::remap) struct Window<'a> {
    pub(in crate::remap) pool: &'a block::BioPool,
    pub(in crate::remap) spare: &'a dm::Device,
    /// First sector on the device.
    pub(in crate::remap) start: u64,
    /// Number of sectors, as far as the table line and the device say.
    pub(in crate::remap) sectors: u64,
}

impl Window<'_> {
    /// Reads `bytes` at `sector` of the window into the start of `buffer`. Gives whether that was
    /// possible; fails if it says nothing about the medium.
    fn read(&self, sector: u64, buffer: &mut block::IoBuffer, bytes: usize) -> Result<bool> {
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
            let mut buffer = block::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?;
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
    pub(in crate::remap) fn is_blank(&self, geometry: &Geometry) -> Result<bool> {
        self.is_zero_but_for(geometry, &[])
    }

    /// The same, whatever is in the places of the superblock copies.
    pub(in crate::remap) fn is_blank_but_for_supers(&self, geometry: &Geometry) -> Result<bool> {
        let mut supers = [0; SUPER_COPIES as usize];
        for (sector, copy) in supers.iter_mut().zip(0..) {
            *sector = geometry.superblock_sector(copy).ok_or(EINVAL)?;
        }
        self.is_zero_but_for(geometry, &supers)
    }

    /// The same, but for the metadata blocks at these sectors.
    fn is_zero_but_for(&self, geometry: &Geometry, except: &[u64]) -> Result<bool> {
        let mut buffer = block::IoBuffer::new(BATCH_BLOCKS as usize * BLOCK_BYTES, GFP_KERNEL)?;
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
    buffer: block::IoBuffer,
    readable: bool,
}

impl SuperRead {
    fn as_super(&self) -> SuperImage<'_> {
        SuperImage {
            spare: self.spare,
            copy: self.copy,
            image: self.image(),
        }
    }

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
pub(in crate::remap) fn find_superblock(
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
        images.push(read.as_super(), GFP_KERNEL)?;
    }
    let mut found = load::choose_superblock(&images, superblock)?;
    if let Found::Ours(chosen) = &mut found {
        chosen.blank |= ignored;
    }
    Ok(found)
}

/// Checks that what is to be main is no spare of some set. Where that cannot be read, it is none: main may
/// be bad anywhere.
#[inline(never)]
pub(in crate::remap) fn check_main(
    pool: &block::BioPool,
    main: &dm::Device,
) -> Result<(), Refused> {
    let window = Window {
        pool,
        spare: main,
        start: 0,
        sectors: main.sectors() & !(BLOCK_SECTORS - 1),
    };
    if load::superblock_sectors(window.sectors).is_none() {
        // There is no spare of that size.
        return Ok(());
    }
    let mut superblock = KBox::new(Superblock::EMPTY, GFP_KERNEL)?;
    let mut reads = KVec::new();
    match window.read_supers(0, &mut reads, &mut superblock) {
        Err(error) if error == ENOMEM => return Err(error.into()),
        _ => (),
    }
    let mut images = KVec::with_capacity(reads.len(), GFP_KERNEL)?;
    for read in &reads {
        images.push(read.as_super(), GFP_KERNEL)?;
    }
    Ok(load::check_main(&images, &mut superblock)?)
}

fn block_image(buffer: &block::IoBuffer, index: u32) -> Image<'_> {
    buffer
        .as_slice()
        .chunks_exact(BLOCK_BYTES)
        .nth(index as usize)
        .and_then(|bytes| bytes.first_chunk::<BLOCK_BYTES>())
        .map_or(Image::Unreadable, |block: &Block| Image::Read(block))
}
