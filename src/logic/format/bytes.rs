// SPDX-License-Identifier: GPL-2.0

//! Little-endian fields at fixed places of a metadata block.

use super::{
    Block,
    BLOCK_BYTES, //
};

/// The `N` bytes at `at`.
///
/// Every caller names a place inside the block; anything else reads as zeroes and so fails the
/// checks that follow.
pub fn get<const N: usize>(block: &Block, at: usize) -> [u8; N] {
    block
        .get(at..)
        .and_then(|tail| tail.first_chunk::<N>())
        .copied()
        .unwrap_or([0; N])
}

/// The 16-bit number at `at`.
pub fn get_u16(block: &Block, at: usize) -> u16 {
    u16::from_le_bytes(get(block, at))
}

/// The 32-bit number at `at`.
pub fn get_u32(block: &Block, at: usize) -> u32 {
    u32::from_le_bytes(get(block, at))
}

/// The 64-bit number at `at`.
pub fn get_u64(block: &Block, at: usize) -> u64 {
    u64::from_le_bytes(get(block, at))
}

/// The byte at `at`.
pub fn get_u8(block: &Block, at: usize) -> u8 {
    u8::from_le_bytes(get(block, at))
}

/// Puts `bytes` at `at`.
pub fn put(block: &mut Block, at: usize, bytes: &[u8]) {
    debug_assert!(at + bytes.len() <= BLOCK_BYTES);
    if let Some(place) = block
        .get_mut(at..)
        .and_then(|tail| tail.get_mut(..bytes.len()))
    {
        place.copy_from_slice(bytes);
    }
}
