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

/// What the reserve blocks of one replica are used for. Kept as the superblock's words, which are
/// half as large: superblocks lie on the kernel's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserves([u32; RESERVE_BLOCKS as usize]);

impl Reserves {
    /// All are free.
    pub const FREE: Reserves = Reserves([0; RESERVE_BLOCKS as usize]);

    /// What each is used for.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Reserve> + Clone + '_ {
        self.0.iter().map(|word| Reserve::from_disk(*word))
    }

    /// Says what the one at `index` is used for from now on; false if there is none.
    pub fn set(&mut self, index: u8, reserve: Reserve) -> bool {
        match self.0.get_mut(usize::from(index)) {
            Some(word) => {
                *word = reserve.to_disk();
                true
            }
            None => false,
        }
    }

    /// The first one that is free.
    pub fn first_free(&self) -> Option<u8> {
        let index = self.iter().position(|reserve| reserve == Reserve::Free)?;
        u8::try_from(index).ok()
    }

    /// The one that stands in for table block `block`, and whether the block's own place is bad.
    pub fn find(&self, block: u32) -> Option<(u8, bool)> {
        self.iter()
            .zip(0u8..)
            .find_map(|(reserve, i)| match reserve {
                Reserve::Holds {
                    block: held,
                    home_bad,
                } if held == block => Some((i, home_bad)),
                _ => None,
            })
    }

    /// The table blocks that they stand in for.
    pub fn held(&self) -> impl Iterator<Item = u32> + Clone + '_ {
        self.iter().filter_map(|reserve| match reserve {
            Reserve::Holds { block, .. } => Some(block),
            Reserve::Free | Reserve::Bad => None,
        })
    }

    /// The superblock's words.
    pub fn words_mut(&mut self) -> &mut [u32; RESERVE_BLOCKS as usize] {
        &mut self.0
    }

    /// The superblock's words.
    pub fn words(&self) -> &[u32; RESERVE_BLOCKS as usize] {
        &self.0
    }
}
