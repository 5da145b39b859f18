// SPDX-License-Identifier: GPL-2.0

//! What a write that a crash interrupted looks like: some of the block's sectors are new, the rest
//! are old. It happens to one copy of one block at a time (M1) and is no sign of a bad medium, so
//! it is told apart from damage as far as that is possible: old and new differ in sequence and
//! checksum, and in entries that differ in their generation, too. A flipped bit changes one of them.

use dm_remap_logic::format::Block;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;

const SECTOR: usize = 512;

/// What both states of a block of the slot table have in common, and its sequence and entries. The
/// same offsets stand in docs/format.md.
const TABLE_SAME: [(usize, usize); 3] = [(0, 8), (12, 40), (48, 64)];
const TABLE_CHECKSUM: (usize, usize) = (8, 12);
const TABLE_SEQUENCE: (usize, usize) = (40, 48);
const TABLE_ENTRIES: usize = 64;
const ENTRY_BYTES: usize = 16;

/// The same of a superblock copy. The members begin at the second sector.
const SUPER_SAME: [(usize, usize); 4] = [(0, 8), (12, 16), (40, 80), (100, 112)];
const SUPER_CHECKSUM: (usize, usize) = (8, 12);
const SUPER_SEQUENCE: (usize, usize) = (88, 96);
const SUPER_HEADER: (usize, usize) = (0, SECTOR);
const SUPER_ZERO: (usize, usize) = (1920, BLOCK_BYTES);

/// Whether a block of the slot table with a wrong checksum may be a mixture of `truth` and the
/// state before or after it.
pub(crate) fn is_torn_table(block: &Block, truth: &Block) -> bool {
    let same = |range: (usize, usize)| block.get(range.0..range.1) == truth.get(range.0..range.1);
    if !TABLE_SAME.into_iter().all(same) {
        return false;
    }
    // The first sector is of the one state or of the other.
    if same(TABLE_CHECKSUM) != same(TABLE_SEQUENCE) {
        return false;
    }
    let entries = |block: &'_ Block| -> Vec<[u8; ENTRY_BYTES]> {
        let bytes = block.get(TABLE_ENTRIES..).unwrap_or(&[]);
        bytes
            .chunks_exact(ENTRY_BYTES)
            .filter_map(|entry| entry.first_chunk().copied())
            .collect()
    };
    let differ = entries(block)
        .into_iter()
        .zip(entries(truth))
        .filter(|(a, b)| a != b)
        .collect::<Vec<_>>();
    let changed = |(a, b): &([u8; ENTRY_BYTES], [u8; ENTRY_BYTES])| {
        a.get(..8) != b.get(..8) && a.get(8..) != b.get(8..)
    };
    differ.iter().all(changed) && is_mixed(block, truth, differ.is_empty())
}

/// A mixture has a sector that is the truth's. Where no entry differs from the truth, the one that
/// changed must be the truth's, and the header the other state's.
fn is_mixed(block: &Block, truth: &Block, no_entry_differs: bool) -> bool {
    let mut sectors = block.chunks_exact(SECTOR).zip(truth.chunks_exact(SECTOR));
    let header_is_true = sectors.next().is_some_and(|(a, b)| a == b);
    !(header_is_true && no_entry_differs) && sectors.any(|(a, b)| a == b)
}

/// Whether a superblock copy with a wrong checksum may be a mixture of `truth` and the state before
/// or after it. If its first sector is the truth's, only what is said of members differs, and that
/// by more than one bit.
pub(crate) fn is_torn_super(block: &Block, truth: &Superblock, id: CopyId) -> bool {
    let mut whole = [0; BLOCK_BYTES];
    truth.encode(&mut whole, id);
    let same = |range: (usize, usize)| block.get(range.0..range.1) == whole.get(range.0..range.1);
    if !SUPER_SAME.into_iter().all(same) || !same(SUPER_ZERO) {
        return false;
    }
    if same(SUPER_HEADER) {
        let bits = block.iter().zip(&whole).map(|(a, b)| (a ^ b).count_ones());
        bits.sum::<u32>() > 1
    } else {
        !same(SUPER_CHECKSUM) && !same(SUPER_SEQUENCE)
    }
}
