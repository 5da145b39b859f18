// SPDX-License-Identifier: GPL-2.0

//! The numbers that users can set, in the table line and by message.

/// A number that users can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// How often a block that cannot be read is tried again.
    ReadRetries,
    /// From how many failed bios in a row on a direction of main has to prove that it works; 0: never.
    ErrorThreshold,
    /// Percentage of free slots below which there is an event.
    LowWater,
    /// How long a failed bio may take to be answered, in milliseconds.
    DeadlineMs,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 4] = [
        Limit::ReadRetries,
        Limit::ErrorThreshold,
        Limit::LowWater,
        Limit::DeadlineMs,
    ];

    /// What users call it.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::ReadRetries => "read_retries",
            Limit::ErrorThreshold => "error_threshold",
            Limit::LowWater => "low_water",
            Limit::DeadlineMs => "deadline_ms",
        }
    }

    /// Finds it by its name.
    pub fn named(name: &str) -> Option<Self> {
        Limit::ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// The smallest number.
    pub const fn min(self) -> u32 {
        match self {
            Limit::DeadlineMs => 100,
            _ => 0,
        }
    }

    /// The largest number.
    pub const fn max(self) -> u32 {
        match self {
            Limit::ReadRetries | Limit::LowWater => 100,
            Limit::ErrorThreshold => 1_000_000,
            Limit::DeadlineMs => 600_000,
        }
    }

    /// The number that it has if nobody says anything.
    pub const fn default(self) -> u32 {
        match self {
            Limit::ReadRetries => 2,
            Limit::ErrorThreshold => 8,
            Limit::LowWater => 10,
            Limit::DeadlineMs => 30_000,
        }
    }

    /// Takes a value that it may have.
    pub fn checked(self, value: u64) -> Option<u32> {
        let value = u32::try_from(value).ok()?;
        (self.min()..=self.max()).contains(&value).then_some(value)
    }
}
