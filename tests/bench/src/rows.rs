// SPDX-License-Identifier: GPL-2.0
//! What is measured: devices, kinds of I/O, and what is found.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// What everything is compared with.
pub(crate) const LINEAR: &str = "linear";

/// The disk with the slots is another kind of disk than main, which takes longer by itself. So I/O that
/// is redirected there is compared with dm-linear on that disk.
pub(crate) const LINEAR_ON_SPARE: &str = "linear-on-spare";

/// What is redirected, all of it.
pub(crate) const REDIRECTED: &str = "remap-redirected";

/// The devices, as they are told to users.
pub(crate) const DEVICES: [&str; 9] = [
    "raw",
    LINEAR,
    "unstriped",
    "flakey",
    "remap-0",
    "remap-1k",
    "remap-1m-elsewhere",
    "remap-1m-spread",
    REDIRECTED,
];

/// The ways to do I/O, as fio calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Engine {
    /// One `pread` or `pwrite` after the other.
    Psync,
    /// io_uring, 32 at a time.
    IoUring,
}

impl Engine {
    pub(crate) const ALL: [Engine; 2] = [Engine::Psync, Engine::IoUring];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Psync => "psync",
            Engine::IoUring => "io_uring",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Op {
    Randread,
    Randwrite,
}

impl Op {
    pub(crate) const ALL: [Op; 2] = [Op::Randread, Op::Randwrite];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Op::Randread => "randread",
            Op::Randwrite => "randwrite",
        }
    }
}

/// A kind of I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Job {
    pub(crate) op: Op,
    /// Bytes.
    pub(crate) bs: u32,
    pub(crate) engine: Engine,
}

impl Job {
    pub(crate) const SIZES: [u32; 3] = [4 << 10, 64 << 10, 1 << 20];

    /// All kinds.
    pub(crate) fn all() -> impl Iterator<Item = Job> {
        Engine::ALL.into_iter().flat_map(|engine| {
            Op::ALL.into_iter().flat_map(move |op| {
                Self::SIZES
                    .into_iter()
                    .map(move |bs| Job { op, bs, engine })
            })
        })
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.op.name(), self.bs, self.engine.name())
    }
}

/// What one side tells the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) device: String,
    pub(crate) job: Job,
    /// How many instructions an I/O takes.
    pub(crate) instructions: u64,
    /// What that was before it was measured once more.
    pub(crate) before: u64,
}

impl Measured {
    const MARK: &'static str = "measured:";
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured {
            device,
            job,
            instructions,
            before,
        } = self;
        write!(
            f,
            "{} {device:<18} {job:<24} {instructions:>7} {before:>7}",
            Self::MARK
        )
    }
}

impl FromStr for Measured {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [Self::MARK, device, op, bs, engine, instructions, before] = words[..] else {
            return Err(());
        };
        let op = Op::ALL.into_iter().find(|known| known.name() == op);
        let engine = Engine::ALL.into_iter().find(|known| known.name() == engine);
        Ok(Self {
            device: device.into(),
            job: Job {
                op: op.ok_or(())?,
                bs: bs.parse().map_err(drop)?,
                engine: engine.ok_or(())?,
            },
            instructions: instructions.parse().map_err(drop)?,
            before: before.parse().map_err(drop)?,
        })
    }
}

/// A row of `target/bench.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) device: String,
    #[serde(flatten)]
    pub(crate) job: Job,
    /// Instructions that one I/O takes, all in all.
    pub(crate) instr_per_io: u64,
    /// How many more than on dm-linear. None if that was not measured.
    pub(crate) over_linear: Option<i64>,
}

/// Puts beside each other what belongs together.
pub(crate) fn rows(measured: &[Measured]) -> Vec<Row> {
    let told = measured.iter().filter(|one| one.device != LINEAR_ON_SPARE);
    let row = |one: &Measured| {
        let base = match one.device.as_str() {
            REDIRECTED => LINEAR_ON_SPARE,
            _ => LINEAR,
        };
        let base = measured
            .iter()
            .find(|other| other.device == base && other.job == one.job);
        Row {
            device: one.device.clone(),
            job: one.job,
            instr_per_io: one.instructions,
            over_linear: base.map(|base| one.instructions as i64 - base.instructions as i64),
        }
    };
    told.map(row).collect()
}
