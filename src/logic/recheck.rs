// SPDX-License-Identifier: GPL-2.0

//! What is on the spares while they are in use, held against what memory knows.
//!
//! Memory is the truth, as nobody else writes there: a copy that says something older, or nothing, is to be written
//! again. One that is newer than anything that was written from here shows that somebody else does, on another machine
//! or behind another name of the disk. Then it cannot be told any more what is true, and nothing is written (see
//! [`Metadata::set_foreign`]).

use super::{
    commit::Metadata,
    format::{
        table_block::TableBlock,
        Block,
        BlockId,
        CopyId,
        FormatError,
        Superblock, //
    },
    load::Image, //
};

/// What a copy is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It says what memory knows.
    Good,
    /// It says something older or nothing that can be read: it is to be written again.
    Old,
    /// Somebody else has written it.
    Foreign,
}

/// Judges a superblock copy. What it decodes is left in `scratch`.
pub fn superblock(
    metadata: &Metadata,
    id: CopyId,
    image: Image<'_>,
    scratch: &mut Superblock,
) -> Worth {
    let Image::Read(block) = image else {
        return Worth::Old;
    };
    let own = match scratch.decode_into(block, id.copy) {
        Ok(own) => own,
        // In good order, and not by us.
        Err(FormatError::Newer { .. } | FormatError::Features { .. }) => return Worth::Foreign,
        Err(_) => return Worth::Old,
    };
    let known = metadata.superblock();
    let name = |superblock: &Superblock, index| superblock.member(index).map(|m| m.uuid);
    if scratch.set_uuid != known.set_uuid || name(scratch, own) != name(known, id.member) {
        return Worth::Foreign;
    }
    let age = |superblock: &Superblock| (superblock.set_epoch, superblock.sequence);
    match age(scratch).cmp(&age(known)) {
        core::cmp::Ordering::Greater => Worth::Foreign,
        core::cmp::Ordering::Less => Worth::Old,
        core::cmp::Ordering::Equal => Worth::Good,
    }
}

/// Judges a copy of a table block. `is_known` tells whether the block is what memory would write with the sequence that
/// it is given.
pub fn table_block(
    metadata: &Metadata,
    id: BlockId,
    image: Image<'_>,
    is_known: impl FnOnce(&Block, u64) -> bool,
) -> Worth {
    let (Image::Read(block), Some(member)) = (image, metadata.superblock().member(id.member))
    else {
        return Worth::Old;
    };
    match TableBlock::decode(block, &member.uuid, id.block) {
        Ok(found) if metadata.is_newer(found.sequence()) => Worth::Foreign,
        Ok(found) if is_known(block, found.sequence()) => Worth::Good,
        Err(FormatError::Newer { .. }) => Worth::Foreign,
        _ => Worth::Old,
    }
}
