// SPDX-License-Identifier: GPL-2.0

//! What is wrong with the device, and what can be done?
//!
//! The worst comes first, and what explains others before these. The `health` and `condition` of the status line are
//! those of the worst, so that one never says what the other does not.

use core::fmt;

use super::{
    super::figures::Spares,
    Health,
    Status, //
};

/// Something that is wrong. Displayed, it says what, and behind a semicolon what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Somebody else has written the metadata.
    Foreign,
    /// Main cannot be read anywhere.
    MainRead,
    /// Main cannot be written anywhere.
    MainWrite,
    /// A spare fails everywhere.
    Spare,
    /// The last flush of some disk failed.
    Flush,
    /// The metadata cannot be written.
    Stuck,
    /// New spares do not have yet what dead ones had.
    TakingOver,
    /// So many blocks are lost.
    Lost(u64),
    /// So many blocks cannot be read.
    Pending(u64),
    /// No slot is left.
    Exhausted,
    /// Few slots are left.
    Low(u64),
    /// Spares that are lost: how many of how many.
    SparesLost(u8, u8),
    /// There are fewer copies of the metadata than there should be.
    Copies {
        /// Replicas of each slot table.
        replicas: u8,
        /// Superblock copies.
        superblocks: u8,
    },
    /// So many slots failed.
    BadSlots(u64),
    /// Nothing is remapped, as that is switched off.
    Off,
    /// Spares that were evacuated; a bit each.
    Idle(u8),
}

impl Problem {
    /// How bad it is. What is good is just told.
    pub const fn severity(self) -> Health {
        match self {
            Problem::Foreign
            | Problem::MainRead
            | Problem::MainWrite
            | Problem::Spare
            | Problem::Flush
            | Problem::Stuck
            | Problem::TakingOver
            | Problem::Lost(_)
            | Problem::Pending(_) => Health::Failing,
            Problem::Exhausted
            | Problem::SparesLost(..)
            | Problem::Copies { .. }
            | Problem::BadSlots(_) => Health::Degraded,
            Problem::Low(_) | Problem::Off | Problem::Idle(_) => Health::Good,
        }
    }
}

/// All that is wrong, the worst first.
pub fn problems(status: &Status) -> impl Iterator<Item = Problem> + '_ {
    let is = |so: bool, problem| so.then_some(problem);
    let breakers = &status.breakers;
    let lost_spares = status.spares_all.saturating_sub(status.spares);
    let exhausted = status.slots_left == 0;
    [
        is(status.foreign, Problem::Foreign),
        is(breakers.main_read, Problem::MainRead),
        is(breakers.main_write, Problem::MainWrite),
        is(breakers.spare, Problem::Spare),
        is(status.flush_failed, Problem::Flush),
        is(status.stuck && !status.foreign, Problem::Stuck),
        is(status.taking_over, Problem::TakingOver),
        is(status.lost != 0, Problem::Lost(status.lost)),
        is(status.pending != 0, Problem::Pending(status.pending)),
        is(exhausted, Problem::Exhausted),
        is(
            lost_spares != 0,
            Problem::SparesLost(lost_spares, status.spares_all),
        ),
        is(
            status.degraded && lost_spares == 0,
            Problem::Copies {
                replicas: status.replicas,
                superblocks: status.superblocks,
            },
        ),
        is(status.slots_bad != 0, Problem::BadSlots(status.slots_bad)),
        is(status.is_low && !exhausted, Problem::Low(status.slots_left)),
        is(!status.auto_remap, Problem::Off),
        is(status.idle != 0, Problem::Idle(status.idle)),
    ]
    .into_iter()
    .flatten()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Foreign => f.write_str(
                "somebody else has written the metadata, and nothing is remapped any more; \
                 remove the device, and find out who uses its spare",
            ),
            Problem::MainRead => f.write_str(
                "reading main fails everywhere, and errors are passed up; look at its disk, cable and power",
            ),
            Problem::MainWrite => f.write_str(
                "writing main fails everywhere, errors are passed up and nothing is remapped; \
                 look at its disk, cable and power",
            ),
            Problem::Spare => f.write_str(
                "a spare fails everywhere; look at its disk, or add another spare",
            ),
            Problem::Flush => f.write_str(
                "a flush failed, and what was written before may be lost; \
                 flush again, and look at what was written last",
            ),
            Problem::Stuck => f.write_str(
                "metadata cannot be written, and nothing is remapped; \
                 look at the disks of the spares, or add another spare",
            ),
            Problem::TakingOver => f.write_str(
                "new spares are taking over, and nothing is remapped until they have; wait",
            ),
            Problem::Lost(count) => write!(
                f,
                "{count} blocks are lost with their slot or spare; \
                 restore what `list lost` tells, or write there"
            ),
            Problem::Pending(count) => write!(
                f,
                "{count} blocks of main cannot be read; restore what `list pending` tells, \
                 or write there, or try `retry`"
            ),
            Problem::Exhausted => f.write_str("no slot is left for another block; add a spare"),
            Problem::Low(left) => write!(f, "{left} slots are left; add a spare in time"),
            Problem::SparesLost(lost, all) => write!(
                f,
                "{lost} of {all} spares are lost; bring them back, \
                 or replace them and send `forget_spare`"
            ),
            Problem::Copies {
                replicas,
                superblocks,
            } => write!(
                f,
                "the metadata has less redundancy than it could have (replicas={replicas} \
                 superblocks={superblocks}); `metadata_status` tells where, replace that spare"
            ),
            Problem::BadSlots(count) => {
                write!(f, "{count} slots failed; the spare goes bad, replace it")
            }
            Problem::Off => f.write_str(
                "failed blocks are not remapped; `set_auto_remap 1` switches that on",
            ),
            Problem::Idle(idle) => write!(
                f,
                "spare {} is evacuated; take it out, or send `use_spare`",
                Spares(*idle)
            ),
        }
    }
}

/// What `health` answers: a line for each problem, or that there is none.
pub struct Diagnosis<'a>(pub &'a Status);

impl fmt::Display for Diagnosis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for problem in problems(self.0) {
            let condition = match problem.severity() {
                Health::Good => "note",
                severity => severity.name(),
            };
            write!(f, "{separator}{condition}: {problem}")?;
            separator = "\n";
        }
        if separator.is_empty() {
            f.write_str("good: nothing is wrong")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        format,
        string::{
            String,
            ToString, //
        },
        vec::Vec, //
    };

    use super::{
        super::{
            Breakers,
            Health,
            Status, //
        },
        problems,
        Diagnosis, //
    };

    /// All that can be wrong at a time, but for what excludes each other.
    fn sick() -> Status {
        Status {
            foreign: true,
            breakers: Breakers {
                main_read: true,
                main_write: true,
                spare: true,
            },
            flush_failed: true,
            taking_over: true,
            lost: 3,
            pending: 4,
            spares: 1,
            spares_all: 2,
            degraded: true,
            slots_bad: 5,
            is_low: true,
            slots_left: 6,
            idle: 1,
            ..Status::default()
        }
    }

    #[test]
    fn nothing_is_wrong() {
        let status = Status {
            slots_left: 9,
            auto_remap: true,
            spares: 1,
            spares_all: 1,
            ..Status::default()
        };
        assert_eq!(Diagnosis(&status).to_string(), "good: nothing is wrong");
        assert_eq!(status.health(), Health::Good);
    }

    /// The worst comes first, each in a line of its own and with what to do.
    #[test]
    fn the_worst_comes_first() {
        for status in [
            sick(),
            Status {
                foreign: false,
                stuck: true,
                spares: 2,
                slots_left: 0,
                ..sick()
            },
        ] {
            let all: Vec<Health> = problems(&status).map(|p| p.severity()).collect();
            assert!(all.is_sorted_by(|a, b| a >= b), "{all:?}");
            let text = Diagnosis(&status).to_string();
            assert_eq!(text.lines().count(), all.len());
            for (line, severity) in text.lines().zip(all) {
                let (condition, rest) = line.split_once(": ").unwrap();
                let name = match severity {
                    Health::Good => "note",
                    worse => worse.name(),
                };
                assert_eq!(condition, name, "{line}");
                let (what, then) = rest.split_once("; ").unwrap();
                assert!(!what.is_empty() && !then.is_empty(), "{line}");
            }
        }
    }

    /// Each problem that there is shows by itself.
    #[test]
    fn each_is_told() {
        let good = Status {
            slots_left: 9,
            auto_remap: true,
            spares: 2,
            spares_all: 2,
            ..Status::default()
        };
        let told = |change: fn(&mut Status)| -> String {
            let mut status = good;
            change(&mut status);
            assert_eq!(problems(&status).count(), 1, "{status:?}");
            format!("{}", Diagnosis(&status))
        };
        for (change, says) in [
            (
                (|s| s.foreign = true) as fn(&mut Status),
                "failing: somebody else",
            ),
            (|s| s.breakers.main_read = true, "failing: reading main"),
            (|s| s.breakers.main_write = true, "failing: writing main"),
            (|s| s.breakers.spare = true, "failing: a spare"),
            (|s| s.flush_failed = true, "failing: a flush"),
            (|s| s.stuck = true, "failing: metadata cannot"),
            (|s| s.taking_over = true, "failing: new spares"),
            (|s| s.lost = 7, "failing: 7 blocks are lost"),
            (|s| s.pending = 7, "failing: 7 blocks of main"),
            (|s| s.slots_left = 0, "degraded: no slot is left"),
            (|s| s.spares = 1, "degraded: 1 of 2 spares"),
            (|s| s.degraded = true, "degraded: the metadata"),
            (|s| s.slots_bad = 7, "degraded: 7 slots failed"),
            (|s| s.is_low = true, "note: 9 slots are left"),
            (|s| s.auto_remap = false, "note: failed blocks"),
            (|s| s.idle = 2, "note: spare 1 is evacuated"),
        ] {
            let text = told(change);
            assert!(text.starts_with(says), "{text}");
        }
    }
}
