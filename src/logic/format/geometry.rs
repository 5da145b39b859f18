// SPDX-License-Identifier: GPL-2.0

//! Where everything lies in the spare's window. See the picture in [`super`].
//!
//! All places are sectors counted from the start of the window, and all are computed from three
//! numbers: the window's size, the slot's size and the data area's alignment. The driver places
//! the window so that its start on the spare has that alignment, too.

use core::fmt;

use super::{
    super::{
        errno::Errno,
        table::SLOT_LAST, //
    },
    table_block::ENTRIES,
    BLOCK_SECTORS,
    REPLICAS,
    RESERVE_BLOCKS,
    SUPER_COPIES, //
};

/// The smallest window that can be formatted: 512 KiB.
pub const WINDOW_SECTORS_MIN: u64 = 1024;

/// The largest window that can be formatted: 2^48 sectors, 128 PiB.
pub const WINDOW_SECTORS_MAX: u64 = 1 << 48;

/// The coarsest alignment of the data area: 1 MiB.
pub const ALIGN_SECTORS_MAX: u32 = 2048;

/// The largest number of slots: what fits into a bucket of the remap table.
pub const SLOTS_MAX: u32 = SLOT_LAST + 1;

/// The metadata block of a superblock's alternate, counted from its end of the window.
const ALTERNATE: u64 = RESERVE_BLOCKS as u64 + 1;

/// The blocks at each end of the window that are neither table nor data.
const END_BLOCKS: u64 = ALTERNATE + 1;

/// Places and sizes of one spare's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    window_sectors: u64,
    slot_sectors: u32,
    align_sectors: u32,
    data_start: u64,
    slots: u32,
    table_blocks: u32,
}

/// Why there is no geometry for the numbers given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// No room for metadata and at least one slot.
    TooSmall {
        /// The sectors that there are.
        window_sectors: u64,
    },
    /// More than can be counted.
    TooLarge {
        /// The sectors that there are.
        window_sectors: u64,
    },
    /// Slots hold 1, 2, 4 or 8 sectors.
    SlotSize {
        /// The size asked for.
        slot_sectors: u32,
    },
    /// Not a power of two, or too coarse.
    Alignment {
        /// The alignment asked for.
        align_sectors: u32,
    },
    /// A place or size that was read is not what it must be.
    Mismatch,
}

impl GeometryError {
    /// The error number for the user.
    pub fn errno(&self) -> Errno {
        match self {
            GeometryError::TooSmall { .. } => Errno::NoSpace,
            GeometryError::TooLarge { .. } => Errno::Range,
            GeometryError::SlotSize { .. } | GeometryError::Alignment { .. } => Errno::NotSupported,
            GeometryError::Mismatch => Errno::Damaged,
        }
    }
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GeometryError::TooSmall { window_sectors } => write!(
                f,
                "spare of {window_sectors} sectors is too small, {WINDOW_SECTORS_MIN} are needed"
            ),
            GeometryError::TooLarge { window_sectors } => {
                write!(f, "spare of {window_sectors} sectors is too large")
            }
            GeometryError::SlotSize { slot_sectors } => {
                write!(f, "slots of {slot_sectors} sectors are not supported")
            }
            GeometryError::Alignment { align_sectors } => {
                write!(f, "alignment to {align_sectors} sectors is not supported")
            }
            GeometryError::Mismatch => f.write_str("sizes and places do not fit together"),
        }
    }
}

impl Geometry {
    /// Lays out a window of `window_sectors` for slots of `slot_sectors`, the data area aligned to
    /// `align_sectors` (the spare's physical block) or a metadata block, whichever is larger.
    ///
    /// A rest of the window that is no whole metadata block stays unused.
    pub fn new(
        window_sectors: u64,
        slot_sectors: u32,
        align_sectors: u32,
    ) -> Result<Self, GeometryError> {
        let too_small = GeometryError::TooSmall { window_sectors };
        if !slot_sectors.is_power_of_two() || u64::from(slot_sectors) > BLOCK_SECTORS {
            return Err(GeometryError::SlotSize { slot_sectors });
        }
        if !align_sectors.is_power_of_two() || align_sectors > ALIGN_SECTORS_MAX {
            return Err(GeometryError::Alignment { align_sectors });
        }
        if window_sectors > WINDOW_SECTORS_MAX {
            return Err(GeometryError::TooLarge { window_sectors });
        }
        if window_sectors < WINDOW_SECTORS_MIN {
            return Err(too_small);
        }
        // From here on all numbers are below 2^49 and nothing overflows; subtractions are checked.
        let align_sectors = align_sectors.max(BLOCK_SECTORS as u32);
        let slot_shift = slot_sectors.trailing_zeros();
        let slots_per_block = BLOCK_SECTORS >> slot_shift;
        let blocks = window_sectors / BLOCK_SECTORS;
        let inner = blocks.checked_sub(2 * END_BLOCKS).ok_or(too_small)?;

        // Of `inner` blocks, T go to each table and the rest holds slots, all of which must have
        // an entry: (inner - 2 T) * slots_per_block <= T * ENTRIES.
        let per_table_block = u64::from(ENTRIES) + u64::from(REPLICAS) * slots_per_block;
        let table_blocks = (inner * slots_per_block)
            .div_ceil(per_table_block)
            .min(u64::from(SLOTS_MAX).div_ceil(u64::from(ENTRIES)));

        let data_start = ((END_BLOCKS + table_blocks) * BLOCK_SECTORS)
            .next_multiple_of(u64::from(align_sectors));
        let data_end = (blocks - END_BLOCKS)
            .checked_sub(table_blocks)
            .ok_or(too_small)?
            * BLOCK_SECTORS;
        let slots = (data_end.checked_sub(data_start).ok_or(too_small)? >> slot_shift)
            .min(table_blocks * u64::from(ENTRIES))
            .min(u64::from(SLOTS_MAX));
        if slots == 0 {
            return Err(too_small);
        }
        Ok(Geometry {
            window_sectors,
            slot_sectors,
            align_sectors,
            data_start,
            slots: u32::try_from(slots).map_err(|_| GeometryError::Mismatch)?,
            table_blocks: u32::try_from(table_blocks).map_err(|_| GeometryError::Mismatch)?,
        })
    }

    /// The size of the window.
    pub fn window_sectors(&self) -> u64 {
        self.window_sectors
    }

    /// The size of a slot.
    pub fn slot_sectors(&self) -> u32 {
        self.slot_sectors
    }

    /// What the data area is aligned to.
    pub fn align_sectors(&self) -> u32 {
        self.align_sectors
    }

    /// The first sector of the data area.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// One past the last sector of the data area.
    pub fn data_end(&self) -> u64 {
        self.data_start + u64::from(self.slots) * u64::from(self.slot_sectors)
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// How many blocks each replica of the slot table has.
    pub fn table_blocks(&self) -> u32 {
        self.table_blocks
    }

    /// Where superblock copy `copy` lies.
    pub fn superblock_sector(&self, copy: u8) -> Option<u64> {
        match copy {
            0 | 1 => super_sector_at_head(copy),
            _ => super_sector_at_tail(copy, self.window_sectors),
        }
    }

    /// Where `replica` of the spare's own slot table has its place on this spare itself: its first
    /// reserve block, and its first table block.
    pub fn home(&self, replica: u8) -> Option<(u64, u64)> {
        let (reserve, table) = match replica {
            0 => (1, END_BLOCKS),
            1 => (
                self.blocks() - ALTERNATE,
                self.blocks() - END_BLOCKS - u64::from(self.table_blocks),
            ),
            _ => return None,
        };
        Some((reserve * BLOCK_SECTORS, table * BLOCK_SECTORS))
    }

    /// Where slot `slot` begins.
    #[inline]
    pub fn slot_sector(&self, slot: u32) -> Option<u64> {
        if slot >= self.slots {
            return None;
        }
        Some(self.data_start + u64::from(slot) * u64::from(self.slot_sectors))
    }

    /// The slot that holds `sector` of the window, if it lies in the data area.
    pub fn slot_at(&self, sector: u64) -> Option<u32> {
        let offset = sector.checked_sub(self.data_start)?;
        let slot = u32::try_from(offset >> self.slot_sectors.trailing_zeros()).ok()?;
        (slot < self.slots).then_some(slot)
    }

    /// The block of the slot table that holds the entry of `slot`, and the entry's place in it.
    pub fn entry_place(&self, slot: u32) -> (u32, u32) {
        (slot / ENTRIES, slot % ENTRIES)
    }

    /// The slots that table block `block` has entries for: the first, and one past the last. The
    /// table's last block has fewer than the others.
    pub fn block_slots(&self, block: u32) -> (u32, u32) {
        (self.slots_in(block), self.slots_in(block.saturating_add(1)))
    }

    /// How many slots the first `blocks` blocks of the slot table stand for.
    pub fn slots_in(&self, blocks: u32) -> u32 {
        blocks.saturating_mul(ENTRIES).min(self.slots)
    }

    /// The two ranges of metadata, before and behind the data area: of each the first sector, and
    /// one past the last.
    pub fn metadata_ranges(&self) -> [(u64, u64); 2] {
        let end = self.blocks() * BLOCK_SECTORS;
        [(0, self.data_start), (self.data_end(), end)]
    }

    fn blocks(&self) -> u64 {
        self.window_sectors / BLOCK_SECTORS
    }
}

/// Where superblock copies 0 and 1 lie in any window.
pub fn super_sector_at_head(copy: u8) -> Option<u64> {
    match copy {
        0 => Some(0),
        1 => Some(ALTERNATE * BLOCK_SECTORS),
        _ => None,
    }
}

/// Where superblock copies 2 and 3 lie in a window of `window_sectors`.
pub fn super_sector_at_tail(copy: u8, window_sectors: u64) -> Option<u64> {
    let behind = match copy {
        2 => 1,
        3 => 1 + ALTERNATE,
        _ => return None,
    };
    if copy >= SUPER_COPIES || window_sectors < WINDOW_SECTORS_MIN {
        return None;
    }
    Some((window_sectors / BLOCK_SECTORS).checked_sub(behind)? * BLOCK_SECTORS)
}
