// SPDX-License-Identifier: GPL-2.0

//! The same device in dm-linear and dm-error lines, for systems without the module.
//!
//! A block with a valid slot lies there; everything else lies on main. So do blocks that are set
//! aside (pending): main could not read them and still has the last word on that; the slot holds
//! nothing yet. What is not to be read from main, and has no valid slot, is an error, and so is a slot on a spare that
//! is not there. Neighbours that continue each other are one line.
//!
//! A table has at most 1,048,576 lines ([`LINES_MAX`]). What does not fit is put on inner devices,
//! each with as many lines as fit, and an outer one puts these together.

use std::fmt::Write;

use dm_remap_logic::message::Blocks;

/// The most lines that a table can have: DM_MAX_TARGETS of the kernel.
pub const LINES_MAX: usize = 1_048_576;

/// Where a range of the device lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// On a device.
    Linear {
        /// Which one.
        device: Device,
        /// The first sector there.
        sector: u64,
    },
    /// Nowhere: each access is an error.
    Error,
}

/// A device that a line points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Main.
    Main,
    /// A spare, by its number among those given.
    Spare(usize),
    /// Another table, by its number.
    Table(usize),
}

/// One line of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// First sector.
    pub start: u64,
    /// Number of sectors.
    pub len: u64,
    /// Where they lie.
    pub target: Target,
}

/// Makes the lines of a device of `sectors`. `slots` gives, in ascending order, the first sector of
/// each block that is served by a slot, and where that slot is; a block has `block_sectors`. `avoided` are ranges of
/// blocks that main is not to be read for, in ascending order.
pub fn lines(
    sectors: u64,
    block_sectors: u64,
    slots: impl Iterator<Item = (u64, Target)>,
    avoided: &[Blocks],
) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut at = 0;
    let add = |lines: &mut Vec<Line>, line: Line| match lines.last_mut() {
        _ if line.len == 0 => (),
        Some(last) if continues(last, &line) => last.len += line.len,
        _ => lines.push(line),
    };
    let on_main = |lines: &mut Vec<Line>, start: u64, end: u64| {
        let target = Target::Linear {
            device: Device::Main,
            sector: start,
        };
        let len = end - start;
        add(lines, Line { start, len, target });
    };
    let main = |lines: &mut Vec<Line>, from: u64, to: u64| {
        let mut start = from;
        for range in avoided {
            let first = range.first.saturating_mul(block_sectors).clamp(start, to);
            let end = range.first.saturating_add(range.count);
            let end = end.saturating_mul(block_sectors).clamp(start, to);
            on_main(lines, start, first);
            let error = Line {
                start: first,
                len: end - first,
                target: Target::Error,
            };
            add(lines, error);
            start = end;
        }
        on_main(lines, start, to);
    };
    for (start, target) in slots {
        let len = block_sectors.min(sectors.saturating_sub(start));
        if len == 0 {
            break;
        }
        if start > at {
            main(&mut lines, at, start);
        }
        add(&mut lines, Line { start, len, target });
        at = start + len;
    }
    if at < sectors {
        main(&mut lines, at, sectors);
    }
    lines
}

fn continues(last: &Line, next: &Line) -> bool {
    last.start + last.len == next.start
        && match (last.target, next.target) {
            (Target::Error, Target::Error) => true,
            (
                Target::Linear { device, sector },
                Target::Linear {
                    device: other,
                    sector: next,
                },
            ) => device == other && sector + last.len == next,
            _ => false,
        }
}

/// Spreads lines over tables of at most `max` lines, at least two; the last table is the device.
pub fn stack(mut lines: Vec<Line>, max: usize) -> Vec<Vec<Line>> {
    let max = max.max(2);
    let mut tables = Vec::new();
    while lines.len() > max {
        let mut outer = Vec::new();
        for part in lines.chunks(max) {
            let start = part.first().map_or(0, |line| line.start);
            let inner: Vec<Line> = part
                .iter()
                .map(|line| Line {
                    start: line.start - start,
                    ..*line
                })
                .collect();
            outer.push(Line {
                start,
                len: inner.iter().map(|line| line.len).sum(),
                target: Target::Linear {
                    device: Device::Table(tables.len()),
                    sector: 0,
                },
            });
            tables.push(inner);
        }
        lines = outer;
    }
    tables.push(lines);
    tables
}

/// A line that the kernel would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The table.
    pub table: usize,
    /// The line in it.
    pub line: Line,
    /// The logical block that it does not go with, in sectors.
    pub block: u64,
}

/// The first line that device mapper would refuse for its alignment; none if it takes all tables. `block` tells
/// the logical block of main or a spare in sectors.
///
/// A line must begin and end at whole blocks of its own device (device_area_is_invalid() in dm-table.c).
/// The table takes the largest block of all of them, and where lines meet inside of such a block, the next
/// ones up to its end must be of whole blocks of their own (validate_hardware_logical_block_alignment()).
pub fn refused(tables: &[Vec<Line>], block: impl Fn(Device) -> u64) -> Option<Refused> {
    let mut own: Vec<u64> = Vec::new();
    for (table, lines) in tables.iter().enumerate() {
        let block = |line: &Line| match line.target {
            Target::Error => 1,
            Target::Linear { device, .. } => match device {
                // Inner tables come before outer ones.
                Device::Table(inner) => own.get(inner).copied().unwrap_or(1),
                device => block(device).max(1),
            },
        };
        let refused = |line: &Line, block: u64| {
            Some(Refused {
                table,
                line: *line,
                block,
            })
        };
        let largest = lines.iter().map(block).max().unwrap_or(1);
        let mut rest = 0;
        for line in lines {
            let block = block(line);
            let sector = match line.target {
                Target::Linear { sector, .. } => sector,
                Target::Error => 0,
            };
            if sector % block != 0 || line.len % block != 0 {
                return refused(line, block);
            }
            if rest < line.len && rest % block != 0 {
                return refused(line, block);
            }
            let over = (line.start + line.len) % largest;
            rest = if over == 0 { 0 } else { largest - over };
        }
        if let (Some(last), true) = (lines.last(), rest != 0) {
            return refused(last, largest);
        }
        own.push(largest);
    }
    None
}

/// The text of a table; `name` tells what a device is called.
pub fn text(lines: &[Line], name: impl Fn(Device) -> String) -> String {
    let mut text = String::new();
    for Line { start, len, target } in lines {
        // Writing to a string does not fail.
        let _ = match target {
            Target::Error => writeln!(text, "{start} {len} error"),
            Target::Linear { device, sector } => {
                writeln!(text, "{start} {len} linear {} {sector}", name(*device))
            }
        };
    }
    text
}
