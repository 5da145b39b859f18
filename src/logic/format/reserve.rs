// SPDX-License-Identifier: GPL-2.0

//! What the superblock knows about reserve blocks.

use super::RESERVE_BLOCKS;

/// What one reserve block is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Nothing.
    Free,
    /// It failed.
    Bad,
    /// It stands in for a block of the slot table.
    Holds {
        /// The block of the slot table.
        block: u32,
        /// Whether that block's own place is bad.
        home_bad: bool,
    },
}

impl Reserve {
    const HOME_BAD: u32 = 1 << 31;

    /// What the superblock's word says.
    pub fn from_disk(word: u32) -> Self {
        match word {
            0 => Reserve::Free,
            u32::MAX => Reserve::Bad,
            word => Reserve::Holds {
                // A word of just the flag names no block that exists and is refused later.
                block: (word & !Self::HOME_BAD).wrapping_sub(1),
                home_bad: word & Self::HOME_BAD != 0,
            },
        }
    }

    /// The word for the superblock.
    pub fn to_disk(self) -> u32 {
        match self {
            Reserve::Free => 0,
            Reserve::Bad => u32::MAX,
            // The number of a table block has 25 bits.
            Reserve::Holds { block, home_bad } => {
                let flag = if home_bad { Self::HOME_BAD } else { 0 };
                (block & (Self::HOME_BAD - 1)).wrapping_add(1) | flag
            }
        }
    }
}

/// The reserve blocks of one replica.
pub type Reserves = [Reserve; RESERVE_BLOCKS as usize];
