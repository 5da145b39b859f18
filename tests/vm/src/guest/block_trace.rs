// SPDX-License-Identifier: GPL-2.0
//! In which order devices were given I/O and answered it: the kernel's own tracepoints
//! `block_bio_queue` and `block_bio_complete`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::remap::device_number;

const TRACING: &str = "/sys/kernel/tracing/instances";

/// A trace that is being taken.
pub struct BlockTrace {
    folder: PathBuf,
    /// As the kernel prints them: major,minor.
    devices: Vec<String>,
}

/// Something that happened, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traced {
    /// A device was given something that changes it.
    Issued(Request),
    /// It answered.
    Answered(Request, bool),
    /// What the test said.
    Mark(String),
}

/// A write or a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which of the devices, counted in the order in which they were given.
    pub device: usize,
    /// From here.
    pub sector: u64,
    /// So many; none for a flush.
    pub sectors: u64,
    /// Whether it begins with a flush.
    pub flush: bool,
    /// Whether it is durable when it is answered.
    pub fua: bool,
    /// Whether it is a discard.
    pub discard: bool,
}

impl BlockTrace {
    /// Traces these devices.
    #[track_caller]
    pub fn start(devices: &[&Path]) -> Self {
        let trace = Self {
            folder: Path::new(TRACING).join(format!("vmtest{}", std::process::id())),
            devices: devices
                .iter()
                .map(|path| device_number(path).expect("a device").replace(':', ","))
                .collect(),
        };
        fs::create_dir(&trace.folder).expect("make a trace");
        trace.set("buffer_size_kb", "16384");
        // What matters is the order.
        trace.set("trace_clock", "counter");
        let filter: Vec<String> = trace
            .devices
            .iter()
            .filter_map(|device| device.split_once(','))
            .map(|(major, minor)| {
                let [major, minor] = [major, minor].map(|part| part.parse::<u32>().unwrap());
                format!("dev == {}", (major << 20) | minor)
            })
            .collect();
        for event in ["block_bio_queue", "block_bio_complete"] {
            trace.set(
                &format!("events/block/{event}/filter"),
                &filter.join(" || "),
            );
            trace.set(&format!("events/block/{event}/enable"), "1");
        }
        trace.set("tracing_on", "1");
        trace
    }

    #[track_caller]
    fn set(&self, file: &str, value: &str) {
        let path = self.folder.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Puts a mark into it, one word.
    #[track_caller]
    pub fn mark(&self, text: &str) {
        self.set("trace_marker", text);
    }

    /// Ends it, and returns everything.
    #[track_caller]
    pub fn end(self) -> Vec<Traced> {
        self.set("tracing_on", "0");
        for processor in fs::read_dir(self.folder.join("per_cpu")).expect("processors") {
            let told = fs::read_to_string(processor.unwrap().path().join("stats")).unwrap();
            let lost = |line: &str| line.starts_with("overrun: ") && line != "overrun: 0";
            assert!(!told.lines().any(lost), "the trace is too long: {told}");
        }
        let text = fs::read_to_string(self.folder.join("trace")).expect("read the trace");
        text.lines().filter_map(|line| self.parse(line)).collect()
    }

    fn parse(&self, line: &str) -> Option<Traced> {
        if line.starts_with('#') {
            return None;
        }
        if let Some((_, text)) = line.split_once("tracing_mark_write: ") {
            return Some(Traced::Mark(text.trim().into()));
        }
        if let Some((_, text)) = line.split_once("block_bio_queue: ") {
            return self.request(text).map(Traced::Issued);
        }
        let (_, text) = line.split_once("block_bio_complete: ")?;
        let well = text.trim_end().ends_with("[0]");
        let request = self.request(text)?;
        Some(Traced::Answered(request, well))
    }

    /// `254,3 WFS 1234 + 8 [...]`, if it is no read.
    fn request(&self, text: &str) -> Option<Request> {
        let mut words = text.split_whitespace();
        let device = words.next()?;
        let device = self.devices.iter().position(|known| known == device)?;
        let kind = words.next()?;
        let flush = kind.starts_with('F');
        let kind = kind.strip_prefix('F').unwrap_or(kind);
        let sector = words.next()?.parse().ok()?;
        let sectors = words.nth(1)?.parse().ok()?;
        (flush || kind.starts_with(['W', 'D'])).then(|| Request {
            device,
            sector,
            sectors,
            flush,
            fua: kind.get(1..).is_some_and(|rest| rest.contains('F')),
            discard: kind.starts_with('D'),
        })
    }
}

impl Drop for BlockTrace {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("tracing_on"), "0");
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}
