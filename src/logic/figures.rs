// SPDX-License-Identifier: GPL-2.0

//! Which single values does a device have, and how do monitors read them?
//!
//! Each has one key, which is its file in sysfs and its line in `stats`, and a metric in the text form of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>):
//!
//! ```text
//! # HELP dm_remap_remapped_blocks Blocks of main that slots serve.
//! # TYPE dm_remap_remapped_blocks gauge
//! dm_remap_remapped_blocks{device="dm-3",name="data"}                    2
//! ```
//!
//! A new one is a row at the end of [`FIGURES`]. If its value is new, it is a field of [`Status`], which `State::status`
//! (`remap/user/status.rs`) fills, mostly from `Counters` (`remap/session/state.rs`).
//!
//! Numbers are padded, so that the text has the same length whatever they are: it is read in parts, each of which is made
//! of the numbers of its moment.

use core::{
    ffi::CStr,
    fmt::{
        self,
        Write, //
    }, //
};

use super::{
    limit::Limit,
    status::{
        Breakers,
        Health,
        MetadataState,
        Status, //
    },
    text::Uuid, //
};

/// What becomes of a value as time goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It goes up, unless users set it to zero.
    Counter,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// How many there are.
    Number(u64),
    /// Yes or no, as a word for users, and 1 or 0.
    Switch(&'static str, bool),
    /// One of several, as a word for users, and as a number.
    Word(&'static str, u64),
    /// A part of a hundred, which is one for monitors.
    Percent(u64),
    /// Milliseconds, which are seconds for monitors.
    Millis(u64),
    /// Which breakers are open; for monitors, how many.
    Breakers(Breakers),
    /// Some of the spares, a bit each; for monitors, how many.
    Spares(u8),
}

/// As users see it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Number(number) | Value::Percent(number) | Value::Millis(number) => {
                write!(f, "{number}")
            }
            Value::Switch(word, _) | Value::Word(word, _) => f.write_str(word),
            Value::Breakers(breakers) => write!(f, "{breakers}"),
            Value::Spares(mask) => write!(f, "{}", Spares(mask)),
        }
    }
}

/// Numbers of the spares that a mask has, or `none`.
pub struct Spares(pub u8);

impl fmt::Display for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for index in (0u8..8).filter(|index| self.0 >> index & 1 != 0) {
            write!(f, "{separator}{index}")?;
            separator = ",";
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

impl Value {
    /// Writes it as monitors read it, always as long.
    fn write_padded(self, out: &mut dyn Write) -> fmt::Result {
        let number = match self {
            Value::Number(number) | Value::Word(_, number) => number,
            Value::Switch(_, yes) => yes.into(),
            Value::Percent(percent) => {
                return write!(out, "{:>17}.{:02}", percent / 100, percent % 100)
            }
            Value::Millis(millis) => {
                return write!(out, "{:>16}.{:03}", millis / 1000, millis % 1000)
            }
            Value::Breakers(breakers) => {
                u64::from(breakers.main_read)
                    + u64::from(breakers.main_write)
                    + u64::from(breakers.spare)
            }
            Value::Spares(mask) => mask.count_ones().into(),
        };
        write!(out, "{number:>20}")
    }
}

/// A value that each device has.
pub struct Figure {
    /// What the status line and the file in sysfs call it.
    pub key: &'static CStr,
    /// Whether users can set it.
    pub settable: bool,
    /// What the metric is called behind `dm_remap_`.
    metric: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&Status) -> Value,
}

impl Figure {
    const fn new(
        kind: Kind,
        (key, metric): (&'static CStr, &'static str),
        value: fn(&Status) -> Value,
        help: &'static str,
    ) -> Self {
        Self {
            key,
            settable: false,
            metric,
            kind,
            help,
            value,
        }
    }

    const fn gauge(
        key: &'static CStr,
        metric: &'static str,
        value: fn(&Status) -> Value,
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Gauge, (key, metric), value, help)
    }

    const fn counter(
        key: &'static CStr,
        metric: &'static str,
        value: fn(&Status) -> Value,
        help: &'static str,
    ) -> Self {
        Self::new(Kind::Counter, (key, metric), value, help)
    }

    const fn settable(self) -> Self {
        Self {
            settable: true,
            ..self
        }
    }

    /// Its value.
    pub fn of(&self, status: &Status) -> Value {
        (self.value)(status)
    }
}

use Value::{
    Number,
    Switch,
    Word, //
};

const fn yes(so: bool) -> Value {
    match so {
        true => Switch("yes", true),
        false => Switch("no", false),
    }
}

/// All of them. New ones go to the end.
pub static FIGURES: [Figure; 34] = [
    Figure::gauge(
        c"health",
        "healthy",
        |s| Number((s.health() != Health::Failing).into()),
        "Whether no errors are passed up and no data was lost.",
    ),
    Figure::gauge(
        c"condition",
        "condition",
        |s| match s.health() {
            Health::Good => Word("good", 0),
            Health::Degraded => Word("degraded", 1),
            Health::Failing => Word("failing", 2),
        },
        "0: good, 1: degraded, 2: failing.",
    ),
    Figure::gauge(
        c"remapped",
        "remapped_blocks",
        |s| Number(s.remapped),
        "Blocks of main that slots serve.",
    ),
    Figure::gauge(
        c"capacity",
        "capacity_blocks",
        |s| Number(s.capacity),
        "Blocks that can be remapped.",
    ),
    Figure::gauge(
        c"pending",
        "pending_blocks",
        |s| Number(s.pending),
        "Blocks that main could not read and that were not written since.",
    ),
    Figure::gauge(
        c"lost",
        "lost_blocks",
        |s| Number(s.lost),
        "Remapped blocks that no spare can read and that were not written since.",
    ),
    Figure::gauge(
        c"slots_used",
        "used_slots",
        |s| Number(s.slots_used),
        "Slots that hold something or went bad.",
    ),
    Figure::gauge(
        c"bad_slots",
        "bad_slots",
        |s| Number(s.slots_bad),
        "Slots that went bad.",
    ),
    Figure::counter(
        c"write_errors",
        "write_errors_total",
        |s| Number(s.write_errors),
        "Failed writes to main.",
    ),
    Figure::counter(
        c"read_errors",
        "read_errors_total",
        |s| Number(s.read_errors),
        "Failed reads from main.",
    ),
    Figure::counter(
        c"spare_write_errors",
        "spare_write_errors_total",
        |s| Number(s.spare_write_errors),
        "Failed writes to slots.",
    ),
    Figure::counter(
        c"spare_read_errors",
        "spare_read_errors_total",
        |s| Number(s.spare_read_errors),
        "Failed reads from slots.",
    ),
    Figure::counter(
        c"auto_remaps",
        "auto_remaps_total",
        |s| Number(s.auto_remaps),
        "Blocks remapped as they failed.",
    ),
    Figure::counter(
        c"manual_remaps",
        "manual_remaps_total",
        |s| Number(s.manual_remaps),
        "Blocks remapped by message.",
    ),
    Figure::counter(
        c"weak_moves",
        "weak_moves_total",
        |s| Number(s.weak_moves),
        "Blocks remapped as they took several tries to read.",
    ),
    Figure::gauge(
        c"scan",
        "scan_ratio",
        |s| Value::Percent(s.scan_percent.into()),
        "How far a scan of main has come.",
    ),
    Figure::gauge(
        c"metadata",
        "metadata_state",
        |s| match s.metadata() {
            MetadataState::Enabled => Word("enabled", 0),
            MetadataState::Degraded => Word("degraded", 1),
            MetadataState::ReadOnly => Word("readonly", 2),
        },
        "0: enabled, 1: degraded, 2: readonly.",
    ),
    Figure::gauge(
        c"autosave",
        "autosave",
        |s| match s.autosave {
            true => Switch("active", true),
            false => Switch("inactive", false),
        },
        "Whether every remap is made durable at once.",
    ),
    Figure::counter(
        c"saves",
        "saves_total",
        |s| Number(s.saves),
        "Metadata commits that were begun.",
    ),
    Figure::counter(
        c"saves_done",
        "saves_done_total",
        |s| Number(s.saves_done),
        "Metadata commits that succeeded.",
    ),
    Figure::gauge(
        c"auto_remap",
        "auto_remap",
        |s| match s.auto_remap {
            true => Switch("on", true),
            false => Switch("off", false),
        },
        "Whether blocks that fail are remapped.",
    )
    .settable(),
    Figure::gauge(
        c"replicas",
        "replicas",
        |s| Number(s.replicas.into()),
        "Replicas of the slot table in use, of the spare that has the fewest.",
    ),
    Figure::gauge(
        c"superblocks",
        "superblocks",
        |s| Number(s.superblocks.into()),
        "Superblock copies in use.",
    ),
    Figure::counter(
        c"metadata_repairs",
        "metadata_repairs_total",
        |s| Number(s.metadata_repairs),
        "Metadata blocks that were repaired or moved.",
    ),
    Figure::gauge(
        c"breaker",
        "open_breakers",
        |s| Value::Breakers(s.breakers),
        "In how many ways main or a spare has failed as a whole.",
    ),
    Figure::gauge(
        c"flush",
        "flush_failed",
        |s| match s.flush_failed {
            true => Switch("failed", true),
            false => Switch("good", false),
        },
        "Whether the last flush of some device failed.",
    ),
    Figure::gauge(
        c"spares",
        "spares",
        |s| Number(s.spares.into()),
        "Spares in use.",
    ),
    Figure::gauge(
        c"spares_all",
        "known_spares",
        |s| Number(s.spares_all.into()),
        "Spares that belong to the set.",
    ),
    Figure::gauge(
        c"idle",
        "idle_spares",
        |s| Value::Spares(s.idle),
        "Spares that give out no slots, as they are to be taken out.",
    ),
    Figure::gauge(
        c"slots_left",
        "left_slots",
        |s| Number(s.slots_left),
        "Slots that can still be given out.",
    ),
    Figure::gauge(
        c"taking_over",
        "taking_over",
        |s| yes(s.taking_over),
        "Whether new spares take over from dead ones.",
    ),
    Figure::gauge(
        c"stuck",
        "metadata_stuck",
        |s| yes(s.stuck),
        "Whether the metadata could not be written last.",
    ),
    Figure::gauge(
        c"foreign",
        "foreign_writer",
        |s| yes(s.foreign),
        "Whether somebody else has written the metadata.",
    ),
    Figure::counter(
        c"refused_messages",
        "refused_messages_total",
        |s| Number(s.refused),
        "Messages that were refused.",
    ),
];

/// What the message `stats` answers: `key=value`, a line each, so that a shell can read it as well as `grep` and `tr`.
pub struct Report<'a>(pub &'a Status);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for figure in &FIGURES {
            let key = figure.key.to_str().unwrap_or("");
            write!(f, "{separator}{key}={}", figure.of(self.0))?;
            separator = "\n";
        }
        Ok(())
    }
}

/// The metric of a limit, what it is, and how its number is to be read.
const fn limit_metric(limit: Limit) -> (&'static str, &'static str, fn(u64) -> Value) {
    match limit {
        Limit::ReadRetries => (
            "limit_read_retries",
            "How often a block that cannot be read is tried again.",
            Number,
        ),
        Limit::ErrorThreshold => (
            "limit_error_threshold",
            "After how many failures in a row main has to prove that it works.",
            Number,
        ),
        Limit::LowWater => (
            "limit_low_water_ratio",
            "Part of free slots below which there is an event.",
            Value::Percent,
        ),
        Limit::DeadlineMs => (
            "limit_deadline_seconds",
            "How long a failed bio may take to be answered.",
            Value::Millis,
        ),
        Limit::AutosaveSeconds => (
            "limit_autosave_seconds",
            "After which time counters that have changed are written to the spares.",
            Number,
        ),
    }
}

/// What all metrics of a device are labelled with, and what there is to say of it once.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    /// What tells it from all others: the name of its folder.
    pub device: &'a str,
    /// The name that users gave it, in any encoding.
    pub name: &'a [u8],
    /// Its UUID for device mapper; empty if there is none.
    pub uuid: &'a [u8],
    /// The set of its spares.
    pub set: Uuid,
    /// The version of the module.
    pub version: &'a str,
}

/// A label's value, with what would end it before its end escaped.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    other => f.write_char(other)?,
                }
            }
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

/// Writes what monitors read of one metric.
fn metric(
    out: &mut dyn Write,
    labels: &Labels<'_>,
    (name, kind, help): (&str, Kind, &str),
    value: Value,
) -> fmt::Result {
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    write!(
        out,
        "# HELP dm_remap_{name} {help}\n# TYPE dm_remap_{name} {kind}\n\
         dm_remap_{name}{{device=\"{}\",name=\"{}\"}} ",
        Escaped(labels.device.as_bytes()),
        Escaped(labels.name)
    )?;
    value.write_padded(out)?;
    out.write_str("\n")
}

/// Writes all figures and limits of a device in the text form of Prometheus.
pub fn write_prometheus(
    out: &mut dyn Write,
    labels: &Labels<'_>,
    status: &Status,
    limit: impl Fn(Limit) -> u32,
) -> fmt::Result {
    write!(
        out,
        "# HELP dm_remap_info What there is to say of the device.\n# TYPE dm_remap_info gauge\n\
         dm_remap_info{{device=\"{}\",name=\"{}\",uuid=\"{}\",set_uuid=\"{}\",version=\"{}\"}} 1\n",
        Escaped(labels.device.as_bytes()),
        Escaped(labels.name),
        Escaped(labels.uuid),
        labels.set,
        Escaped(labels.version.as_bytes())
    )?;
    for figure in &FIGURES {
        let head = (figure.metric, figure.kind, figure.help);
        metric(out, labels, head, figure.of(status))?;
    }
    for one in Limit::ALL {
        let (name, help, value) = limit_metric(one);
        let value = value(limit(one).into());
        metric(out, labels, (name, Kind::Gauge, help), value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{
            BTreeMap,
            BTreeSet, //
        },
        format,
        string::{
            String,
            ToString, //
        },
        vec::Vec, //
    };

    use super::{
        write_prometheus,
        Breakers,
        Labels,
        Limit,
        Report,
        Status,
        Uuid,
        FIGURES, //
    };

    /// Every value as large as it can be.
    fn large() -> Status {
        Status {
            remapped: u64::MAX,
            capacity: u64::MAX,
            pending: u64::MAX,
            lost: u64::MAX,
            slots_used: u64::MAX,
            write_errors: u64::MAX,
            scan_percent: 100,
            saves: 7,
            saves_done: 6,
            breakers: Breakers {
                main_read: true,
                main_write: true,
                spare: true,
            },
            flush_failed: true,
            idle: 0b1010,
            auto_remap: true,
            autosave: true,
            spares: 3,
            spares_all: 4,
            ..Status::default()
        }
    }

    fn labels(name: &[u8]) -> Labels<'_> {
        Labels {
            device: "dm-3",
            name,
            uuid: b"LVM-x",
            set: Uuid([7; 16]),
            version: "3.0",
        }
    }

    fn text(name: &[u8], status: &Status, limit: impl Fn(Limit) -> u32) -> String {
        let mut text = String::new();
        write_prometheus(&mut text, &labels(name), status, limit).unwrap();
        text
    }

    /// A metric as a parser sees it.
    #[derive(Debug, Default)]
    struct Parsed {
        help: Option<String>,
        kind: Option<String>,
        samples: Vec<(BTreeMap<String, String>, f64)>,
    }

    fn is_name(text: &str) -> bool {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(inner)
    }

    /// Reads labels up to the brace that ends them, and returns what follows.
    fn parse_labels(mut rest: &str) -> (BTreeMap<String, String>, &str) {
        let mut labels = BTreeMap::new();
        loop {
            let (key, after) = rest.split_once("=\"").unwrap();
            assert!(is_name(key), "{key}");
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\n') => panic!("a label goes over the end of its line"),
                    (_, '\\') => value.push(match characters.next().unwrap().1 {
                        'n' => '\n',
                        same @ ('\\' | '"') => same,
                        other => panic!("\\{other} stands for nothing"),
                    }),
                    (_, other) => value.push(other),
                }
            };
            assert_eq!(labels.insert(key.to_string(), value), None);
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return (labels, rest.strip_prefix('}').unwrap()),
            }
        }
    }

    /// Reads what `promtool check metrics` reads, as strictly: each metric is a group with a HELP, a TYPE and samples.
    fn parse(text: &str) -> BTreeMap<String, Parsed> {
        let mut all: BTreeMap<String, Parsed> = BTreeMap::new();
        let mut group = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let what = words.next().unwrap();
                let (name, said) = (words.next().unwrap(), words.next().unwrap().to_string());
                assert!(is_name(name) && !said.is_empty());
                if what == "HELP" {
                    assert!(!all.contains_key(name), "{name} twice");
                    group = name.to_string();
                }
                let metric = all.entry(name.to_string()).or_default();
                assert!(metric.samples.is_empty() && group == name);
                let place = match what {
                    "HELP" => &mut metric.help,
                    "TYPE" => &mut metric.kind,
                    other => panic!("{other}"),
                };
                assert_eq!(place.replace(said), None);
                continue;
            }
            let (name, rest) = line.split_once('{').unwrap();
            assert_eq!(name, group);
            let (labels, rest) = parse_labels(rest);
            let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
            let value: f64 = words.next().unwrap().parse().unwrap();
            assert_eq!(words.next(), None);
            let metric = all.get_mut(name).unwrap();
            metric.samples.push((labels, value));
        }
        all
    }

    /// What `promtool check metrics` finds fault with, of what could happen here.
    fn lint(name: &str, metric: &Parsed) {
        assert!(metric.help.is_some(), "{name} has no help");
        let kind = metric.kind.as_deref().unwrap();
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        let abbreviated = [
            "s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d",
        ];
        let other_units = [
            "percent",
            "milliseconds",
            "minutes",
            "hours",
            "bits",
            "sectors",
        ];
        for word in name.split('_') {
            assert!(!["gauge", "counter", "summary", "histogram"].contains(&word));
            assert!(!other_units.contains(&word), "{name}");
        }
        for end in ["_sum", "_count", "_bucket", "_info_total"] {
            assert!(!name.ends_with(end), "{name}");
        }
        assert!(
            !abbreviated.contains(&name.rsplit('_').next().unwrap()),
            "{name}"
        );
        assert!(!name.contains(|c: char| c.is_uppercase() || c == ':'));
    }

    /// P17: monitors read it, and find nothing wrong.
    #[test]
    fn prometheus_is_content() {
        for status in [Status::default(), large()] {
            let parsed = parse(&text(b"data", &status, |limit| limit.max()));
            assert_eq!(parsed.len(), 1 + FIGURES.len() + Limit::ALL.len());
            for (name, metric) in &parsed {
                lint(name, metric);
                let [(labels, _)] = &metric.samples[..] else {
                    panic!("{name}: {metric:?}");
                };
                assert_eq!((&*labels["device"], &*labels["name"]), ("dm-3", "data"));
            }
            assert_eq!(
                parsed["dm_remap_limit_deadline_seconds"].samples[0].1,
                600.0
            );
            assert_eq!(parsed["dm_remap_limit_low_water_ratio"].samples[0].1, 1.0);
        }
        let parsed = parse(&text(b"data", &large(), Limit::min));
        let number = |name: &str| parsed[name].samples[0].1;
        assert_eq!(number("dm_remap_remapped_blocks"), u64::MAX as f64);
        assert_eq!(number("dm_remap_healthy"), 0.0);
        assert_eq!(number("dm_remap_condition"), 2.0);
        assert_eq!(number("dm_remap_open_breakers"), 3.0);
        assert_eq!(number("dm_remap_idle_spares"), 2.0);
        assert_eq!(number("dm_remap_scan_ratio"), 1.0);
        assert_eq!(number("dm_remap_limit_deadline_seconds"), 0.1);
        let (labels, _) = &parsed["dm_remap_info"].samples[0];
        assert_eq!(labels["version"], "3.0");
        assert_eq!(labels["set_uuid"], Uuid([7; 16]).to_string());
    }

    /// Users may call a device what they like.
    #[test]
    fn labels_are_escaped() {
        for name in ["", "a b", "\"", "\\", "\\n\n\"}", "\u{e4},x=\"1\"", "{}"] {
            let parsed = parse(&text(name.as_bytes(), &large(), Limit::default));
            for metric in parsed.values() {
                assert_eq!(metric.samples[0].0["name"], name);
            }
        }
        let parsed = parse(&text(b"a\xffb\xc3", &large(), Limit::default));
        assert_eq!(
            parsed["dm_remap_lost_blocks"].samples[0].0["name"],
            "a\u{fffd}b\u{fffd}"
        );
    }

    /// The text is read in parts, between which the numbers may change.
    #[test]
    fn the_length_does_not_depend_on_numbers() {
        let small = text(b"data", &Status::default(), Limit::min);
        let large = text(b"data", &large(), Limit::max);
        assert_eq!(small.len(), large.len());
        let places =
            |text: &str| -> Vec<usize> { text.match_indices('\n').map(|(at, _)| at).collect() };
        assert_eq!(places(&small), places(&large));
    }

    /// What a key says is what the status line says with it.
    #[test]
    fn keys_are_those_of_the_status_line() {
        let keys: BTreeSet<_> = FIGURES.iter().map(|figure| figure.key).collect();
        assert_eq!(keys.len(), FIGURES.len());
        for status in [Status::default(), large()] {
            let line = status.to_string();
            let mut met = 0;
            for word in line.split(' ').filter(|word| word.contains('=')) {
                let (key, value) = word.split_once('=').unwrap();
                let Some(figure) = FIGURES.iter().find(|f| f.key.to_str() == Ok(key)) else {
                    assert!(["errors", "spare_errors"].contains(&key), "{key}");
                    continue;
                };
                let told = figure.of(&status).to_string();
                // `scan=0%`; `saves` and `spares` have a part and a whole, in opposite order of names.
                let value = match key {
                    "scan" => value.strip_suffix('%').unwrap(),
                    "saves" => value.split_once('/').unwrap().1,
                    "spares" => value.split_once('/').unwrap().0,
                    _ => value,
                };
                assert_eq!(told, value, "{key}");
                met += 1;
            }
            assert_eq!(met, 19, "{line}");
        }
        let limits: Vec<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
        assert!(keys
            .iter()
            .all(|key| !limits.contains(&key.to_str().unwrap())));
        assert_eq!(format!("{}", FIGURES[0].of(&large())), "0");
    }

    #[test]
    fn a_line_each() {
        let status = Status {
            remapped: 7,
            weak_moves: 8,
            ..Status::default()
        };
        let text = Report(&status).to_string();
        assert_eq!(text.lines().count(), FIGURES.len());
        assert!(text.contains("\nremapped=7\n"), "{text}");
        assert!(text.contains("\nweak_moves=8\n"), "{text}");
    }

    /// What the status line says under a key, the list says, too.
    #[test]
    fn the_same_words_as_in_the_status_line() {
        let status = Status {
            foreign: true,
            idle: 5,
            flush_failed: true,
            ..Status::default()
        };
        let line = status.to_string();
        let report = Report(&status).to_string();
        let mut same = 0;
        for word in line.split_whitespace() {
            let own = report.lines().find(|line| {
                let key = |text: &str| text.split('=').next().map(str::to_string);
                key(line) == key(word)
            });
            // Some keys of the line have two numbers.
            if let Some(own) = own.filter(|_| !word.contains(['/', '%'])) {
                assert_eq!(own, word);
                same += 1;
            }
        }
        assert!(same > 10, "{same}");
    }

    /// Each field of the status is told: one that is another one changes the list.
    #[test]
    fn none_is_missing() {
        let plain = Status {
            slots_left: 9,
            ..Status::default()
        };
        for change in [
            (|s| s.remapped += 1) as fn(&mut Status),
            |s| s.capacity += 1,
            |s| s.pending += 1,
            |s| s.lost += 1,
            |s| s.slots_used += 1,
            |s| s.write_errors += 1,
            |s| s.read_errors += 1,
            |s| s.auto_remaps += 1,
            |s| s.manual_remaps += 1,
            |s| s.scan_percent += 1,
            |s| s.slots_left += 1,
            |s| s.degraded = true,
            |s| s.stuck = true,
            |s| s.foreign = true,
            |s| s.taking_over = true,
            |s| s.refused += 1,
            |s| s.autosave = true,
            |s| s.saves_done += 1,
            |s| s.saves += 1,
            |s| s.auto_remap = true,
            |s| s.slots_bad += 1,
            |s| s.spare_write_errors += 1,
            |s| s.spare_read_errors += 1,
            |s| s.replicas += 1,
            |s| s.superblocks += 1,
            |s| s.metadata_repairs += 1,
            |s| s.breakers.main_read = true,
            |s| s.breakers.main_write = true,
            |s| s.breakers.spare = true,
            |s| s.flush_failed = true,
            |s| s.weak_moves += 1,
            |s| s.spares += 1,
            |s| s.spares_all += 1,
            |s| s.idle = 2,
        ] {
            let mut changed = plain;
            change(&mut changed);
            assert_ne!(Report(&plain).to_string(), Report(&changed).to_string());
        }
    }
}
