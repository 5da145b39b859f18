// SPDX-License-Identifier: GPL-2.0

//! What do users hear of without asking?
//!
//! Each event is a line of the kernel log, wakes who waits with `dmsetup wait`, and goes into a uevent. There is one
//! uevent a second at the most, so it tells of all events since the last one: `DM_REMAP_EVENT` names them, the worst one
//! first, and `DM_REMAP_COUNT` tells in the same order how often.
//!
//! A new one is a variant of [`Event`], in the order of its level, with its place in [`Event::ALL`] and its row.
//! `State::announce` raises it with a line in the log, `News::note` without. Its row in docs/dm-remap.rst names its
//! test.

use core::fmt;

/// Something that a person would want to hear of. The worst ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A device fails as a whole in one direction, and its breaker is open.
    BreakerOpen,
    /// The set goes on without a spare.
    SpareLost,
    /// Metadata could not be written, so nothing is remapped.
    MetadataFailed,
    /// A flush failed: what was written before may be lost.
    FlushFailed,
    /// The last slot was taken.
    Exhausted,
    /// A failed bio was not served because there was no slot for it.
    Refused,
    /// Blocks cannot be read from their slots.
    Lost,
    /// Blocks of main cannot be read.
    Pending,
    /// Fewer slots are left than `low_water` percent.
    LowWater,
    /// Copies of the metadata were given up.
    Degraded,
    /// Blocks of main were moved to the spare by themselves.
    Remap,
    /// Metadata blocks were written anew, or moved.
    Repaired,
    /// A device works again that had failed as a whole.
    BreakerClosed,
    /// A spare that was lost is used again.
    SpareBack,
    /// Metadata is written again, and in all its copies.
    Restored,
    /// A spare was evacuated.
    Evacuated,
    /// The table of remaps in memory was made larger.
    Grown,
}

/// How bad it is: the level of its line in the kernel log, and `DM_REMAP_LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is refused, or was lost.
    Error,
    /// Everything is served, and the disks become worse.
    Warning,
    /// All is as it should be.
    Info,
}

impl Level {
    /// The word that stands for it in a uevent.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        }
    }
}

/// How many events there are.
pub const EVENTS: usize = Event::ALL.len();

impl Event {
    /// All of them, each at its number.
    pub const ALL: [Event; 17] = [
        Event::BreakerOpen,
        Event::SpareLost,
        Event::MetadataFailed,
        Event::FlushFailed,
        Event::Exhausted,
        Event::Refused,
        Event::Lost,
        Event::Pending,
        Event::LowWater,
        Event::Degraded,
        Event::Remap,
        Event::Repaired,
        Event::BreakerClosed,
        Event::SpareBack,
        Event::Restored,
        Event::Evacuated,
        Event::Grown,
    ];

    const fn row(self) -> (&'static str, Level, &'static str) {
        use Level::*;
        match self {
            //                        name               level    what the log says of it
            Event::BreakerOpen => ("breaker_open", Error, "fails everywhere"),
            Event::SpareLost => ("spare_lost", Error, "is lost, going on without it"),
            Event::MetadataFailed => ("metadata_failed", Error, "metadata was not written"),
            Event::FlushFailed => ("flush_failed", Error, "cannot be flushed"),
            Event::Exhausted => ("exhausted", Error, "the last slot is taken"),
            Event::Refused => ("refused", Error, "no free slot is left"),
            Event::Lost => ("lost", Error, "cannot be read from the spare"),
            Event::Pending => ("pending", Warning, "cannot be read"),
            Event::LowWater => ("low_water", Warning, "few slots are left"),
            Event::Degraded => ("degraded", Warning, "copies of the metadata are given up"),
            Event::Remap => ("remap", Warning, "moved to the spare"),
            Event::Repaired => ("repaired", Info, "metadata was repaired"),
            Event::BreakerClosed => ("breaker_closed", Info, "works again"),
            Event::SpareBack => ("spare_back", Info, "is back"),
            Event::Restored => ("restored", Info, "metadata has all its copies"),
            Event::Evacuated => ("evacuated", Info, "was evacuated"),
            Event::Grown => ("grown", Info, "Adaptive hash table"),
        }
    }

    /// What it is called in `DM_REMAP_EVENT`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// How bad it is.
    pub const fn level(self) -> Level {
        self.row().1
    }

    /// Whether it happens to blocks of main, so that there is a sector to name.
    pub const fn is_of_blocks(self) -> bool {
        use Event::*;
        matches!(self, Lost | Pending | Remap)
    }

    /// What the kernel log says, of blocks or of a device or by itself.
    pub const fn what(self) -> &'static str {
        self.row().2
    }
}

/// How often each event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts(pub [u32; EVENTS]);

impl Counts {
    /// Those that came, the worst one first, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Event, u32)> + '_ {
        let counts = self.0.iter().copied();
        let all = Event::ALL.into_iter().zip(counts);
        all.filter(|(_, count)| *count != 0)
    }

    /// The level of the worst one; none if there is none.
    pub fn level(&self) -> Option<Level> {
        self.iter().next().map(|(event, _)| event.level())
    }

    /// Shows their names, as in `DM_REMAP_EVENT`.
    pub fn names(&self) -> Names<'_> {
        Names(self)
    }

    /// Shows how often they came, as in `DM_REMAP_COUNT`.
    pub fn numbers(&self) -> Numbers<'_> {
        Numbers(self)
    }
}

/// See [`Counts::names`].
pub struct Names<'a>(&'a Counts);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, self.0.iter().map(|(event, _)| event.name()))
    }
}

/// See [`Counts::numbers`].
pub struct Numbers<'a>(&'a Counts);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, self.0.iter().map(|(_, count)| count))
    }
}

fn join<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    words: impl Iterator<Item = T>,
) -> fmt::Result {
    let mut separator = "";
    for word in words {
        write!(f, "{separator}{word}")?;
        separator = ",";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::{
        Counts,
        Event,
        Level,
        EVENTS, //
    };

    fn counts(of: &[(Event, u32)]) -> Counts {
        let mut counts = Counts([0; EVENTS]);
        for (event, count) in of {
            counts.0[*event as usize] = *count;
        }
        counts
    }

    #[test]
    fn each_event_has_its_number_and_a_name_of_its_own() {
        for (number, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, number);
            let name = event.name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            let same = Event::ALL.into_iter().filter(|other| other.name() == name);
            assert_eq!(same.count(), 1, "{name}");
            assert!(!event.what().is_empty());
        }
    }

    /// Whoever reads the first word only hears of the worst.
    #[test]
    fn no_event_comes_before_a_worse_one() {
        for pair in Event::ALL.windows(2) {
            assert!(pair[0].level() as u8 <= pair[1].level() as u8, "{pair:?}");
        }
    }

    #[test]
    fn several_events_in_one_uevent() {
        let told = counts(&[(Event::Remap, 1000), (Event::LowWater, 1)]);
        assert_eq!(format!("{}", told.names()), "low_water,remap");
        assert_eq!(format!("{}", told.numbers()), "1,1000");
        assert_eq!(told.level(), Some(Level::Warning));
        let worse = counts(&[(Event::Grown, 1), (Event::SpareLost, 2)]);
        assert_eq!(format!("{}", worse.names()), "spare_lost,grown");
        assert_eq!(worse.level(), Some(Level::Error));
    }

    #[test]
    fn no_event_is_told_as_nothing() {
        let none = counts(&[]);
        assert_eq!(none.level(), None);
        assert_eq!(format!("{}", none.names()), "");
    }
}
