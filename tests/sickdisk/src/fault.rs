// SPDX-License-Identifier: GPL-2.0
//! How a sector fails.

use std::str::FromStr;

/// What the drive reports. The names are those of the kernel's `BLK_STS_*`, which ublk derives
/// from the error number (`errno_to_blk_status()` in block/blk-core.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The medium is bad here.
    Medium,
    /// Any error.
    Io,
    /// The drive refuses, for ever.
    Target,
    /// The way to the drive is disturbed.
    Transport,
    /// The drive is gone.
    Offline,
    /// The drive did not answer in time.
    Timeout,
    /// Someone else holds a reservation.
    Reservation,
    /// No space in the drive.
    NoSpace,
    /// The drive does not know this operation.
    Unsupported,
    /// The data's protection information is wrong.
    Protection,
}

impl Status {
    /// All of them, with their names in words.
    pub const ALL: [(Status, &'static str); 10] = [
        (Status::Medium, "medium"),
        (Status::Io, "io"),
        (Status::Target, "target"),
        (Status::Transport, "transport"),
        (Status::Offline, "offline"),
        (Status::Timeout, "timeout"),
        (Status::Reservation, "reservation"),
        (Status::NoSpace, "nospace"),
        (Status::Unsupported, "unsupported"),
        (Status::Protection, "protection"),
    ];

    /// The error number that stands for it in an answer to the kernel.
    pub fn errno(self) -> i32 {
        match self {
            Status::Medium => libc::ENODATA,
            Status::Io => libc::EIO,
            Status::Target => libc::EREMOTEIO,
            Status::Transport => libc::ENOLINK,
            Status::Offline => libc::ENODEV,
            Status::Timeout => libc::ETIMEDOUT,
            Status::Reservation => libc::EBADE,
            Status::NoSpace => libc::ENOSPC,
            Status::Unsupported => libc::EOPNOTSUPP,
            Status::Protection => libc::EILSEQ,
        }
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .find(|(_, name)| *name == word)
            .map(|(status, _)| *status)
            .ok_or_else(|| format!("unknown error '{word}'"))
    }
}

/// Which accesses fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Reads.
    Read,
    /// Writes, and whatever else changes the medium.
    Write,
    /// All of them.
    Both,
}

impl Direction {
    pub(crate) fn includes(self, writing: bool) -> bool {
        match self {
            Direction::Read => !writing,
            Direction::Write => writing,
            Direction::Both => true,
        }
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "read" => Ok(Direction::Read),
            "write" => Ok(Direction::Write),
            "both" => Ok(Direction::Both),
            _ => Err(format!("'{word}' is none of read, write, both")),
        }
    }
}

/// What becomes of a sector that takes writes well once they have to leave the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fading {
    /// It cannot be read.
    Unreadable,
    /// It holds what it held before.
    Stale,
}

impl FromStr for Fading {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "unreadable" => Ok(Fading::Unreadable),
            "stale" => Ok(Fading::Stale),
            _ => Err(format!("'{word}' is neither unreadable nor stale")),
        }
    }
}

/// What is wrong with one sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    direction: Direction,
    status: Status,
    /// Accesses that will fail before it works again.
    times: Option<u32>,
    /// Whether a write puts it right (and so does not fail): what firmware does that has spare
    /// sectors of its own, once it is given the content.
    heals_on_write: bool,
    /// It takes writes, which can be read as long as they are in the cache.
    fading: Option<Fading>,
    /// What was written has left the cache, and is gone.
    faded: bool,
}

impl Fault {
    /// Fails with a medium error, for ever.
    pub fn bad(direction: Direction) -> Self {
        Self {
            direction,
            status: Status::Medium,
            times: None,
            heals_on_write: false,
            fading: None,
            faded: false,
        }
    }

    /// Takes writes and flushes without an error; what was written is gone with the next flush.
    pub fn fading(fading: Fading) -> Self {
        Self {
            fading: Some(fading),
            ..Self::bad(Direction::Read)
        }
    }

    /// Unreadable until it is written.
    pub fn until_written() -> Self {
        Self {
            heals_on_write: true,
            ..Self::bad(Direction::Read)
        }
    }

    /// Fails `times` times and works then.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Fails with another error.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Meets an access: how it fails, if it does.
    pub(crate) fn hit(&mut self, writing: bool) -> Option<Status> {
        if !self.direction.includes(writing) {
            return None;
        }
        if self.fading.is_some() && !self.faded {
            return None;
        }
        match &mut self.times {
            None => (),
            Some(0) => return None,
            Some(times) => *times -= 1,
        }
        Some(self.status)
    }

    /// Whether nothing is left of it after a write that succeeded.
    pub(crate) fn healed_by_write(&self) -> bool {
        self.heals_on_write
    }

    /// What becomes of what is written there.
    pub(crate) fn fades(&self) -> Option<Fading> {
        self.fading
    }

    /// It was written: that is in the cache.
    pub(crate) fn refresh(&mut self) {
        self.faded = false;
    }

    /// What was written has to leave the cache.
    pub(crate) fn fade(&mut self) {
        self.faded = self.fading == Some(Fading::Unreadable);
    }

    /// Whether it will never be seen again.
    pub(crate) fn is_over(&self) -> bool {
        self.times == Some(0)
    }
}
