// SPDX-License-Identifier: GPL-2.0
//! The disk in words: one line a command, one line an answer.

use std::time::Duration;

use crate::fault::Direction;
use crate::fault::Fault;
use crate::fault::Status;
use crate::model::Disk;
use crate::model::PowerCut;

/// What can be said.
pub const HELP: &str = "\
bad SECTOR COUNT read|write|both [times N] [error NAME]   make sectors fail
unreadable SECTOR COUNT          make sectors unreadable until they are written
fading SECTOR COUNT unreadable|stale   make sectors take writes, and lose them with the next flush
heal SECTOR COUNT                make sectors good again
slow SECTOR COUNT MILLISECONDS   delay accesses to sectors (0: no more)
hold SECTOR COUNT read|write|both    keep accesses waiting
release                          let them go on
die [NAME] [read|write|both]     make everything fail
revive                           take that back
fail-flush COUNT [NAME]          make the next flushes fail
power-cut keep|drop|some|tear [SEED]   lose what was not flushed
stats                            counters
clear                            counters to zero
errors: medium io target transport offline timeout reservation nospace unsupported protection";

/// Does what a line says, and returns the answer.
pub fn command(disk: &mut Disk, line: &str) -> Result<String, String> {
    let mut words = Words(line.split_whitespace());
    let done = || Ok(String::from("ok"));
    match words.next("a command")? {
        "bad" => {
            let (sector, count) = words.range(disk)?;
            let mut fault = Fault::bad(words.next("read, write or both")?.parse()?);
            while let Some(word) = words.0.next() {
                fault = match word {
                    "times" => fault.times(words.number("how many times")?),
                    "error" => fault.status(words.next("an error")?.parse()?),
                    _ => return Err(format!("unknown word '{word}'")),
                };
            }
            disk.spoil(sector, count, fault);
            done()
        }
        "unreadable" => {
            let (sector, count) = words.range(disk)?;
            words.end()?;
            disk.spoil(sector, count, Fault::until_written());
            done()
        }
        "fading" => {
            let (sector, count) = words.range(disk)?;
            let fading = words.next("unreadable or stale")?.parse()?;
            words.end()?;
            disk.spoil(sector, count, Fault::fading(fading));
            done()
        }
        "heal" => {
            let (sector, count) = words.range(disk)?;
            words.end()?;
            disk.heal(sector, count);
            done()
        }
        "slow" => {
            let (sector, count) = words.range(disk)?;
            let delay = Duration::from_millis(words.number("milliseconds")?);
            words.end()?;
            disk.slow(sector..sector + count, delay);
            done()
        }
        "hold" => {
            let (sector, count) = words.range(disk)?;
            let direction = words.next("read, write or both")?.parse()?;
            words.end()?;
            disk.hold(sector..sector + count, direction);
            done()
        }
        "release" => {
            words.end()?;
            disk.release();
            done()
        }
        "die" => {
            let status = words.optional(Status::Io)?;
            let direction = words.optional(Direction::Both)?;
            words.end()?;
            disk.die(status, direction);
            done()
        }
        "revive" => {
            words.end()?;
            disk.revive();
            done()
        }
        "fail-flush" => {
            let times = words.number("how many")?;
            let status = words.optional(Status::Io)?;
            words.end()?;
            disk.fail_flushes(status, times);
            done()
        }
        "power-cut" => {
            let how = words.next("keep, drop, some or tear")?;
            let seed = words.optional(1)?;
            words.end()?;
            let how = match how {
                "keep" => PowerCut::Keep,
                "drop" => PowerCut::Drop,
                "some" => PowerCut::Some(seed),
                "tear" => PowerCut::Tear(seed),
                _ => return Err(format!("'{how}' is none of keep, drop, some, tear")),
            };
            disk.power_cut(how).map_err(|error| error.to_string())?;
            done()
        }
        "stats" => {
            words.end()?;
            let record = disk.record();
            Ok(format!(
                "reads={} writes={} fua={} flushes={} discards={} errors={} bad_sectors={}",
                record.reads,
                record.writes,
                record.fua_writes,
                record.flushes,
                record.discards,
                record.errors,
                disk.spoilt()
            ))
        }
        "clear" => {
            words.end()?;
            disk.record_mut().restart(false);
            done()
        }
        "help" => Ok(HELP.into()),
        word => Err(format!("unknown command '{word}'")),
    }
}

struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let word = self.next(what)?;
        word.parse()
            .map_err(|_| format!("'{word}' is not a number ({what})"))
    }

    fn range(&mut self, disk: &Disk) -> Result<(u64, u64), String> {
        let sector: u64 = self.number("a sector")?;
        let count: u64 = self.number("a count")?;
        match sector.checked_add(count) {
            Some(end) if end <= disk.sectors() => Ok((sector, count)),
            _ => Err(format!("the disk has {} sectors", disk.sectors())),
        }
    }

    fn optional<T: std::str::FromStr>(&mut self, otherwise: T) -> Result<T, String> {
        match self.0.next() {
            None => Ok(otherwise),
            Some(word) => word.parse().map_err(|_| format!("unknown word '{word}'")),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        match self.0.next() {
            None => Ok(()),
            Some(word) => Err(format!("one word too many: '{word}'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::command;
    use crate::model::Disk;
    use crate::store::Store;

    #[test]
    fn words_reach_the_model() {
        let mut disk = Disk::new(Store::memory(1 << 20), 2048, true);
        assert_eq!(command(&mut disk, "bad 10 5 both"), Ok("ok".into()));
        assert_eq!(disk.spoilt(), 5);
        assert_eq!(command(&mut disk, "heal 10 4"), Ok("ok".into()));
        assert!(command(&mut disk, "stats").is_ok_and(|line| line.ends_with("bad_sectors=1")));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut disk = Disk::new(Store::memory(1 << 20), 2048, true);
        for line in [
            "",
            "frobnicate",
            "bad",
            "bad 1",
            "bad 1 1",
            "bad x 1 both",
            "bad 1 1 sideways",
            "bad 2048 1 both",
            "bad 18446744073709551615 2 both",
            "bad 1 1 both error nonsense",
            "heal 1 1 1",
            "fading 1 1",
            "fading 1 1 away",
            "power-cut maybe",
        ] {
            assert!(command(&mut disk, line).is_err(), "{line:?} was accepted");
        }
        assert_eq!(disk.spoilt(), 0);
    }
}
