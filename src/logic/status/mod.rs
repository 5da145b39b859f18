// SPDX-License-Identifier: GPL-2.0

//! How is the state told to users?
//!
//! ```text
//! v3.0 2/1000 0/1000 2/1000 health=1 errors=W0:R0 auto_remaps=0 manual_remaps=2 scan=0%
//! metadata=enabled autosave=active saves=5/5 …
//! ```
//!
//! in one line. Scripts read this by place and by key, so order and spelling never change, and new
//! keys go to the end.
//!
//! | file     | what is in it                                                             |
//! |----------|---------------------------------------------------------------------------|
//! | `health` | what is wrong, the worst first, and what to do; says how the device is    |

mod health;

pub use self::health::{
    problems,
    Diagnosis,
    Problem, //
};

use core::fmt;

use super::figures::Spares;

/// The version of the status line.
pub const VERSION: &str = "v3.0";

/// How the device is: `health`, 1 or 0, and `condition`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// `health=1 condition=good`: all is well, as far as anybody can tell.
    #[default]
    Good,
    /// `health=1 condition=degraded`: everything is served, but room or redundancy is short.
    Degraded,
    /// `health=0 condition=failing`: errors are passed up, or data was lost.
    Failing,
}

impl Health {
    /// The word for `condition`.
    pub const fn name(self) -> &'static str {
        match self {
            Health::Good => "good",
            Health::Degraded => "degraded",
            Health::Failing => "failing",
        }
    }
}

/// Whether the metadata is kept on the spare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetadataState {
    /// In every copy.
    #[default]
    Enabled,
    /// In fewer copies than there should be.
    Degraded,
    /// It can't be changed any more.
    ReadOnly,
}

impl MetadataState {
    /// The word for `metadata`.
    pub const fn name(self) -> &'static str {
        match self {
            MetadataState::Enabled => "enabled",
            MetadataState::Degraded => "degraded",
            MetadataState::ReadOnly => "readonly",
        }
    }
}

/// Everything that the status line tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Blocks of main that slots serve.
    pub remapped: u64,
    /// How many there can be.
    pub capacity: u64,
    /// Blocks of main that could not be read and were not written since.
    pub pending: u64,
    /// Blocks whose slots could not be read, or are on a spare that is lost, and that were not written since.
    pub lost: u64,
    /// Slots that hold something.
    pub slots_used: u64,
    /// Failed writes to main.
    pub write_errors: u64,
    /// Failed reads from main.
    pub read_errors: u64,
    /// Remaps that the repair path made.
    pub auto_remaps: u64,
    /// Remaps that the user made.
    pub manual_remaps: u64,
    /// How far a scan has come.
    pub scan_percent: u8,
    /// Slots that can still be given out.
    pub slots_left: u64,
    /// Whether fewer are left than users want to be told of.
    pub is_low: bool,
    /// Whether there are fewer copies of the metadata than there should be.
    pub degraded: bool,
    /// Whether the metadata could not be written last.
    pub stuck: bool,
    /// Whether somebody else has written it, so that it is not written any more.
    pub foreign: bool,
    /// Whether new spares take over from dead ones.
    pub taking_over: bool,
    /// Messages that were refused.
    pub refused: u64,
    /// Whether every remap is made durable at once.
    pub autosave: bool,
    /// Metadata commits that succeeded.
    pub saves_done: u64,
    /// Metadata commits that were asked for.
    pub saves: u64,
    /// Whether failed writes are remapped.
    pub auto_remap: bool,
    /// Slots that went bad.
    pub slots_bad: u64,
    /// Failed writes to slots.
    pub spare_write_errors: u64,
    /// Failed reads from slots.
    pub spare_read_errors: u64,
    /// Replicas of the slot table in use.
    pub replicas: u8,
    /// Superblock copies in use.
    pub superblocks: u8,
    /// Metadata blocks that were repaired or moved.
    pub metadata_repairs: u64,
    /// What has failed as a whole.
    pub breakers: Breakers,
    /// Whether the last flush of some device failed.
    pub flush_failed: bool,
    /// Blocks that were moved because they could only be read after several tries.
    pub weak_moves: u64,
    /// Spares in use.
    pub spares: u8,
    /// Spares that belong to the set.
    pub spares_all: u8,
    /// Spares of which no slots are given out, as they are to be taken out; a bit each.
    pub idle: u8,
}

/// Which breakers are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakers {
    /// Main cannot be read.
    pub main_read: bool,
    /// Main cannot be written.
    pub main_write: bool,
    /// The spare cannot be written.
    pub spare: bool,
}

impl Breakers {
    /// Whether one is open.
    pub const fn any(&self) -> bool {
        self.main_read || self.main_write || self.spare
    }
}

impl fmt::Display for Breakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.main_read, "main_read"),
            (self.main_write, "main_write"),
            (self.spare, "spare"),
        ];
        let mut separator = "";
        for (_, name) in all.iter().filter(|(open, _)| *open) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

impl Status {
    /// How the device is: as bad as the worst that is wrong with it.
    pub fn health(&self) -> Health {
        let all = problems(self).map(|problem| problem.severity());
        all.max().unwrap_or(Health::Good)
    }

    /// Whether the metadata is kept on the spares.
    pub const fn metadata(&self) -> MetadataState {
        if self.foreign {
            MetadataState::ReadOnly
        } else if self.degraded || self.stuck {
            MetadataState::Degraded
        } else {
            MetadataState::Enabled
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capacity = self.capacity;
        write!(
            f,
            "{VERSION} {}/{capacity} {}/{capacity} {}/{capacity}",
            self.remapped,
            self.pending.saturating_add(self.lost),
            self.slots_used
        )?;
        let health = u8::from(self.health() != Health::Failing);
        let condition = self.health().name();
        write!(
            f,
            " health={health} errors=W{}:R{} auto_remaps={} manual_remaps={} scan={}%",
            self.write_errors,
            self.read_errors,
            self.auto_remaps,
            self.manual_remaps,
            self.scan_percent
        )?;
        let metadata = self.metadata().name();
        let autosave = if self.autosave { "active" } else { "inactive" };
        write!(
            f,
            " metadata={metadata} autosave={autosave} saves={}/{}",
            self.saves_done, self.saves
        )?;
        // Keys from here on are newer than the line itself.
        let auto_remap = if self.auto_remap { "on" } else { "off" };
        write!(
            f,
            " auto_remap={auto_remap} bad_slots={} spare_errors=W{}:R{} replicas={} superblocks={} \
             metadata_repairs={} breaker={} flush={} weak_moves={} spares={}/{} idle={} \
             condition={condition} lost={}",
            self.slots_bad,
            self.spare_write_errors,
            self.spare_read_errors,
            self.replicas,
            self.superblocks,
            self.metadata_repairs,
            self.breakers,
            if self.flush_failed { "failed" } else { "good" },
            self.weak_moves,
            self.spares,
            self.spares_all,
            Spares(self.idle),
            self.lost
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Breakers,
        Health,
        MetadataState,
        Status, //
    };

    #[test]
    fn the_line_that_users_know() {
        let status = Status {
            remapped: 2,
            capacity: 1000,
            slots_used: 2,
            slots_left: 998,
            manual_remaps: 2,
            autosave: true,
            saves: 5,
            saves_done: 5,
            auto_remap: true,
            replicas: 2,
            superblocks: 4,
            spares: 1,
            spares_all: 1,
            ..Status::default()
        };
        assert_eq!(
            std::format!("{status}"),
            "v3.0 2/1000 0/1000 2/1000 health=1 errors=W0:R0 auto_remaps=0 manual_remaps=2 \
             scan=0% metadata=enabled autosave=active saves=5/5 auto_remap=on bad_slots=0 \
             spare_errors=W0:R0 replicas=2 superblocks=4 metadata_repairs=0 breaker=none \
             flush=good weak_moves=0 spares=1/1 idle=none condition=good lost=0"
        );
    }

    /// P17: monitors of the older tool know 1 and 0 only, and what is lost counts with what is pending.
    #[test]
    fn health_and_what_is_lost() {
        let good = Status {
            capacity: 9,
            slots_left: 9,
            ..Status::default()
        };
        for (status, number, condition) in [
            (good, 1, Health::Good),
            (
                Status {
                    degraded: true,
                    ..good
                },
                1,
                Health::Degraded,
            ),
            (
                Status {
                    pending: 1,
                    lost: 2,
                    ..good
                },
                0,
                Health::Failing,
            ),
        ] {
            let line = std::format!("{status}");
            let gone = status.pending + status.lost;
            let begin = std::format!("v3.0 0/9 {gone}/9 0/9 health={number} ");
            assert!(line.starts_with(&begin), "{line}");
            let name = condition.name();
            let end = std::format!(" condition={name} lost={}", status.lost);
            assert!(line.ends_with(&end), "{line}");
            assert_eq!(status.health(), condition);
        }
    }

    /// Nothing is written any more where somebody else has written, whatever else is wrong.
    #[test]
    fn how_the_metadata_is() {
        let mut status = Status::default();
        assert_eq!(status.metadata(), MetadataState::Enabled);
        status.stuck = true;
        assert_eq!(status.metadata(), MetadataState::Degraded);
        status.foreign = true;
        assert_eq!(status.metadata(), MetadataState::ReadOnly);
        assert!(std::format!("{status}").contains(" metadata=readonly "));
    }

    #[test]
    fn idle_spares_by_number() {
        let line = |idle| {
            let status = Status {
                idle,
                ..Status::default()
            };
            std::format!("{status}")
        };
        assert!(line(1).contains(" idle=0 "));
        assert!(line(0b1010).contains(" idle=1,3 "));
    }

    #[test]
    fn breakers_by_name() {
        let mut breakers = Breakers {
            spare: true,
            ..Breakers::default()
        };
        assert_eq!(std::format!("{breakers}"), "spare");
        breakers.main_write = true;
        assert_eq!(std::format!("{breakers}"), "main_write,spare");
    }
}
