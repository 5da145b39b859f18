// SPDX-License-Identifier: GPL-2.0

//! Counting in blocks: how many sectors a slot and a block of main have.

use crate::abstractions::trace;

/// How large a block is. It does not change while a state is in use.
#[derive(Clone, Copy)]
pub(in crate::remap) struct BlockSize {
    /// A slot and a block of main have `1 << shift` sectors.
    pub(in crate::remap) shift: u32,
}

impl BlockSize {
    /// Sectors of a number of blocks.
    #[inline(always)]
    pub(in crate::remap) fn sectors(self, blocks: u32) -> u32 {
        // Blocks are no larger than a page, and nothing is to be checked here.
        blocks << (self.shift & 7)
    }

    /// Blocks of a number of sectors.
    #[inline(always)]
    pub(in crate::remap) fn blocks(self, sectors: u32) -> u32 {
        sectors >> (self.shift & 7)
    }

    /// The block of main that a sector is in.
    #[inline(always)]
    pub(in crate::remap) fn block_of(self, sector: u64) -> u64 {
        sector >> (self.shift & 7)
    }

    /// Bytes of a number of blocks.
    #[inline(always)]
    pub(in crate::remap) fn bytes(self, blocks: u32) -> u32 {
        self.sectors(blocks) << 9
    }

    /// First sector of a main block.
    #[inline(always)]
    pub(in crate::remap) fn sector_of(self, main_block: u64) -> u64 {
        main_block << self.shift
    }

    /// The part of the device that a block of main is, for tracepoints.
    pub(in crate::remap) fn traced(self, main_block: u64) -> trace::Part {
        trace::Part {
            sector: self.sector_of(main_block),
            sectors: self.sectors(1),
        }
    }
}
