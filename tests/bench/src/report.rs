// SPDX-License-Identifier: GPL-2.0
//! Tables for people, which can be read back.

use std::fmt::Write;

use crate::rows::Engine;
use crate::rows::Job;
use crate::rows::Op;
use crate::rows::Row;
use crate::rows::DEVICES;

/// Writes a table for each way to do I/O, in Markdown: instructions for each I/O, and how many more than
/// on dm-linear.
pub(crate) fn tables(rows: &[Row]) -> String {
    let tables = Engine::ALL.map(|engine| table(rows, engine));
    tables.join("\n")
}

fn table(rows: &[Row], engine: Engine) -> String {
    let jobs: Vec<Job> = Job::all().filter(|job| job.engine == engine).collect();
    let mut lines = vec![vec![engine.name().to_string()]];
    lines[0].extend(jobs.iter().map(|job| title(*job)));
    for device in DEVICES {
        let cell = |job: &Job| {
            let row = rows
                .iter()
                .find(|row| row.device == device && row.job == *job);
            row.map(cell).unwrap_or_default()
        };
        let cells: Vec<String> = jobs.iter().map(cell).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            lines.push([vec![device.to_string()], cells].concat());
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let widths: Vec<usize> = (0..=jobs.len()).map(|c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = match column {
                0 => write!(text, "| {cell:<width$} "),
                _ => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if column == 0 { '-' } else { ':' };
                let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

fn title(job: Job) -> String {
    let op = match job.op {
        Op::Randread => "read",
        Op::Randwrite => "write",
    };
    match job.bs >> 10 {
        1024 => format!("{op} 1 MiB"),
        kib => format!("{op} {kib} KiB"),
    }
}

fn cell(row: &Row) -> String {
    match row.over_linear {
        Some(over) => format!("{} ({over:+})", row.instr_per_io),
        None => row.instr_per_io.to_string(),
    }
}

/// Reads tables as [`tables`] writes them, wherever they stand in a text. The last one counts, of several
/// for the same way to do I/O.
pub(crate) fn read(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut jobs: Vec<Job> = Vec::new();
    for line in text.lines() {
        let cells: Option<Vec<&str>> = line
            .strip_prefix('|')
            .and_then(|line| line.strip_suffix('|'))
            .map(|line| line.split('|').map(str::trim).collect());
        let Some([first, cells @ ..]) = cells.as_deref() else {
            jobs.clear();
            continue;
        };
        if let Some(engine) = Engine::ALL.into_iter().find(|known| known.name() == *first) {
            let known: Vec<Job> = Job::all().filter(|job| job.engine == engine).collect();
            let job = |name: &&str| known.iter().copied().find(|job| title(*job) == **name);
            jobs = cells.iter().filter_map(job).collect();
            rows.retain(|row| row.job.engine != engine);
        }
        for (job, text) in jobs.iter().zip(cells) {
            if let Some((instr_per_io, over)) = numbers(text) {
                rows.push(Row {
                    device: first.to_string(),
                    job: *job,
                    instr_per_io,
                    over_linear: Some(over),
                });
            }
        }
    }
    rows
}

/// The kernel whose figures a text says that it has.
pub(crate) fn kernel(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("from the stock kernel ")?;
    rest.split_whitespace().next()
}

/// `8570 (+93)`
fn numbers(cell: &str) -> Option<(u64, i64)> {
    let (all, over) = cell.split_once(" (")?;
    Some((all.parse().ok()?, over.strip_suffix(')')?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn performance_md_names_its_kernel() {
        let text = include_str!("../../../docs/performance.md");
        let name = kernel(text).unwrap();
        assert!(name.starts_with("7.") && name.ends_with("-amd64"), "{name}");
        assert!(!read(text).is_empty());
    }
}
