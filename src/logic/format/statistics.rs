// SPDX-License-Identifier: GPL-2.0

//! What the superblock counts.

/// What is counted over the whole life of a spare, in the order of the superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Metadata commits that were asked for.
    pub saves: u64,
    /// Metadata commits that succeeded.
    pub saves_done: u64,
    /// Remaps that the repair path made.
    pub auto_remaps: u64,
    /// Remaps that the user made.
    pub manual_remaps: u64,
    /// Failed writes to main.
    pub write_errors: u64,
    /// Failed reads from main.
    pub read_errors: u64,
    /// Failed writes to slots.
    pub spare_write_errors: u64,
    /// Failed reads from slots.
    pub spare_read_errors: u64,
    /// Blocks of main that were found unreadable.
    pub lost: u64,
    /// Remaps that were taken back.
    pub removed: u64,
    /// Metadata blocks that were repaired or moved.
    pub metadata_repairs: u64,
    /// Activations.
    pub activations: u64,
    /// Bytes that slots served for reading.
    pub redirected_reads: u64,
    /// Bytes that slots took in writing.
    pub redirected_writes: u64,
    /// No meaning yet.
    pub reserved: [u64; 2],
}

impl Statistics {
    /// Nothing was counted so far.
    pub const ZERO: Statistics = Statistics {
        saves: 0,
        saves_done: 0,
        auto_remaps: 0,
        manual_remaps: 0,
        write_errors: 0,
        read_errors: 0,
        spare_write_errors: 0,
        spare_read_errors: 0,
        lost: 0,
        removed: 0,
        metadata_repairs: 0,
        activations: 0,
        redirected_reads: 0,
        redirected_writes: 0,
        reserved: [0; 2],
    };

    /// How many there are, those without meaning included.
    pub const WORDS: usize = 16;

    /// In the superblock's order.
    pub fn to_words(self) -> [u64; Self::WORDS] {
        [
            self.saves,
            self.saves_done,
            self.auto_remaps,
            self.manual_remaps,
            self.write_errors,
            self.read_errors,
            self.spare_write_errors,
            self.spare_read_errors,
            self.lost,
            self.removed,
            self.metadata_repairs,
            self.activations,
            self.redirected_reads,
            self.redirected_writes,
            self.reserved[0],
            self.reserved[1],
        ]
    }

    /// From the superblock's order.
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [saves, saves_done, auto_remaps, manual_remaps, write_errors, read_errors, spare_write_errors, spare_read_errors, lost, removed, metadata_repairs, activations, redirected_reads, redirected_writes, r0, r1] =
            words;
        Statistics {
            saves,
            saves_done,
            auto_remaps,
            manual_remaps,
            write_errors,
            read_errors,
            spare_write_errors,
            spare_read_errors,
            lost,
            removed,
            metadata_repairs,
            activations,
            redirected_reads,
            redirected_writes,
            reserved: [r0, r1],
        }
    }
}
