// SPDX-License-Identifier: GPL-2.0

//! Which numbers can users set, in the table line and by message?

use core::ffi::CStr;

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
    /// How often counters that have changed are written to the spares, in seconds; 0: not while the device is in use.
    AutosaveSeconds,
}

/// Why a word is no value for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is not a decimal number.
    NotNumber,
    /// It is too small or too large.
    OutOfRange,
}

/// What there is to know about a limit.
struct Row {
    name: &'static str,
    key: &'static CStr,
    default: u32,
    min: u32,
    max: u32,
    not_number: &'static CStr,
    out_of_range: &'static CStr,
    describes: &'static str,
}

macro_rules! row {
    ($name:literal, $default:literal, $min:literal, $max:literal, $what:literal) => {{
        const ROW: Row = Row {
            name: $name,
            key: text(concat!($name, "\0")),
            default: $default,
            min: $min,
            max: $max,
            not_number: text(concat!(
                $name,
                " is not a decimal number, ",
                $min,
                " to ",
                $max,
                " are allowed\0"
            )),
            out_of_range: text(concat!(
                $name,
                " is out of range, ",
                $min,
                " to ",
                $max,
                " are allowed\0"
            )),
            describes: concat!(
                $what,
                ", ",
                $min,
                " to ",
                $max,
                ": what new devices begin with (default ",
                $default,
                ")"
            ),
        };
        &ROW
    }};
}

const fn text(with_nul: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(with_nul.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    }
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 5] = [
        Limit::ReadRetries,
        Limit::ErrorThreshold,
        Limit::LowWater,
        Limit::DeadlineMs,
        Limit::AutosaveSeconds,
    ];

    const fn row(self) -> &'static Row {
        match self {
            //                          name           default min max
            Limit::ReadRetries => row!(
                "read_retries",
                2,
                0,
                100,
                "How often a block that cannot be read is tried again"
            ),
            Limit::ErrorThreshold => row!(
                "error_threshold",
                8,
                0,
                1_000_000,
                "From how many failed bios in a row on main has to prove that it works, 0: never"
            ),
            Limit::LowWater => row!(
                "low_water",
                10,
                0,
                100,
                "Percentage of free slots below which there is an event"
            ),
            Limit::DeadlineMs => row!(
                "deadline_ms",
                30_000,
                100,
                600_000,
                "How long a failed bio may take to be answered, in milliseconds"
            ),
            Limit::AutosaveSeconds => row!(
                "autosave_seconds",
                60,
                0,
                86_400,
                "After how many seconds counters that have changed are written to the spares, 0: not while in use"
            ),
        }
    }

    /// What users call it.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The same, as names of files are.
    pub const fn key(self) -> &'static CStr {
        self.row().key
    }

    /// Finds it by its name.
    pub fn named(name: &str) -> Option<Self> {
        Limit::ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// The smallest number.
    pub const fn min(self) -> u32 {
        self.row().min
    }

    /// The largest number.
    pub const fn max(self) -> u32 {
        self.row().max
    }

    /// The number that it has if nobody says anything.
    pub const fn default(self) -> u32 {
        self.row().default
    }

    /// What it is, which values it may have, and which one it has if nobody says anything: for `modinfo`.
    pub const fn describes(self) -> &'static str {
        self.row().describes
    }

    /// Reads a value of this limit.
    pub fn parse(self, word: &str) -> Result<u32, Wrong> {
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Wrong::NotNumber);
        }
        // Of digits only too many can be wrong.
        let value = word.parse().map_err(|_| Wrong::OutOfRange)?;
        if (self.min()..=self.max()).contains(&value) {
            Ok(value)
        } else {
            Err(Wrong::OutOfRange)
        }
    }

    /// What is wrong with a value, and what is allowed.
    pub const fn complaint(self, wrong: Wrong) -> &'static CStr {
        match wrong {
            Wrong::NotNumber => self.row().not_number,
            Wrong::OutOfRange => self.row().out_of_range,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{
        Limit,
        Wrong, //
    };

    #[test]
    fn every_limit_at_its_ends() {
        for limit in Limit::ALL {
            assert_eq!(Limit::named(limit.name()), Some(limit));
            assert_eq!(limit.key().to_str(), Ok(limit.name()));
            let (min, max) = (limit.min(), limit.max());
            for good in [min, limit.default(), max] {
                assert_eq!(limit.parse(&good.to_string()), Ok(good));
            }
            let above = (u64::from(max) + 1).to_string();
            let wraps = ((1u64 << 32) + u64::from(min)).to_string();
            for large in [&above, &wraps, "99999999999999999999"] {
                assert_eq!(limit.parse(large), Err(Wrong::OutOfRange), "{large}");
            }
            if let Some(below) = min.checked_sub(1) {
                assert_eq!(limit.parse(&below.to_string()), Err(Wrong::OutOfRange));
            }
            for word in ["", "x", "-1", "+1", "1.0", "0x10", " 1", "\u{661}"] {
                assert_eq!(limit.parse(word), Err(Wrong::NotNumber), "{word:?}");
            }
        }
        assert_eq!(Limit::named("read"), None);
        assert_eq!(Limit::named(""), None);
    }

    #[test]
    fn descriptions_name_range_and_default() {
        for limit in Limit::ALL {
            let text = limit.describes();
            let range = std::format!("{} to {}: ", limit.min(), limit.max());
            assert!(text.contains(&range), "{text}");
            let default = std::format!("(default {})", limit.default());
            assert!(text.ends_with(&default), "{text}");
        }
    }

    #[test]
    fn complaints_name_limit_and_range() {
        for limit in Limit::ALL {
            let range = std::format!("{} to {} are allowed", limit.min(), limit.max());
            for wrong in [Wrong::NotNumber, Wrong::OutOfRange] {
                let text = limit.complaint(wrong).to_str().unwrap();
                assert!(text.starts_with(limit.name()), "{text}");
                assert!(text.ends_with(&range), "{text}");
            }
        }
        assert_eq!(
            Limit::DeadlineMs.complaint(Wrong::OutOfRange),
            c"deadline_ms is out of range, 100 to 600000 are allowed"
        );
    }
}
