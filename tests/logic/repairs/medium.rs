// SPDX-License-Identifier: GPL-2.0

//! A disk by its blocks: what each holds, how it is sick, and how long that takes.
//!
//! A write without FUA is durable after a flush. One that fails leaves old or new content in the blocks that are not
//! sick, each by itself; a sick one keeps what it had.

use dm_remap_logic::classify::Status;

use super::super::random::Random;

/// What is wrong with a block, or with all of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sickness {
    pub(super) reads: bool,
    pub(super) writes: bool,
    /// What I/O fails with.
    pub(super) error: Status,
    /// How long that takes, in milliseconds.
    pub(super) takes: u64,
    /// How often still.
    pub(super) times: u32,
}

impl Sickness {
    const EVER: u32 = u32::MAX;

    pub(super) const BAD: Self = Sickness {
        reads: true,
        writes: true,
        error: Status::Medium,
        takes: 3,
        times: Self::EVER,
    };
    pub(super) const UNREADABLE: Self = Sickness {
        writes: false,
        ..Self::BAD
    };
    pub(super) const UNWRITABLE: Self = Sickness {
        reads: false,
        error: Status::IoErr,
        ..Self::BAD
    };
    /// Fails by itself once, and with others before that.
    pub(super) const WEAK: Self = Sickness {
        times: 2,
        error: Status::Target,
        ..Self::BAD
    };
    pub(super) const SLOW: Self = Sickness {
        takes: 700,
        ..Self::BAD
    };
    /// Not the medium's fault.
    pub(super) const INNOCENT: Self = Sickness {
        error: Status::Transport,
        times: 3,
        ..Self::BAD
    };
    /// An answer comes when any deadline is long over.
    pub(super) const HUNG: Self = Sickness {
        takes: 9000,
        ..Self::BAD
    };

    fn concerns(&self, write: bool) -> bool {
        self.times != 0 && if write { self.writes } else { self.reads }
    }
}

/// An I/O that is under way.
#[derive(Clone, Debug)]
pub(super) struct Io {
    pub(super) write: bool,
    pub(super) first: usize,
    pub(super) takes: u64,
    pub(super) result: Result<(), Status>,
    /// The blocks that a write changes.
    reached: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Medium {
    content: Vec<u64>,
    durable: Vec<u64>,
    pub(super) sick: Vec<Option<Sickness>>,
    /// All of it.
    pub(super) whole: Option<Sickness>,
    /// Whether FUA is a write and a flush there.
    pub(super) emulates_fua: bool,
}

impl Medium {
    pub(super) fn new(content: Vec<u64>) -> Self {
        Medium {
            durable: content.clone(),
            sick: vec![None; content.len()],
            content,
            whole: None,
            emulates_fua: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.content.len()
    }

    /// Whether a block can be read and written.
    pub(super) fn is_fine(&self, block: usize) -> bool {
        let ends = |sick: Option<Sickness>| sick.is_none_or(|sick| sick.times == 0);
        ends(self.sick[block]) && ends(self.whole)
    }

    /// Whether what it has can be read now, and what that is.
    pub(super) fn peek(&self, block: usize) -> u64 {
        self.content[block]
    }

    pub(super) fn durable(&self, block: usize) -> u64 {
        self.durable[block]
    }

    /// Sends an I/O there: how it will end.
    pub(super) fn begin(
        &mut self,
        write: bool,
        first: usize,
        count: usize,
        random: &mut Random,
    ) -> Io {
        let blocks = first..first + count;
        let most = if random.once_in(8) { 400 } else { 3 };
        let mut io = Io {
            write,
            first,
            takes: random.below(most),
            result: Ok(()),
            reached: blocks.clone().collect(),
        };
        let own = self.sick[blocks].iter_mut().flatten();
        let mut sick = self.whole.iter_mut().chain(own);
        if let Some(sick) = sick.find(|sick| sick.concerns(write)) {
            if sick.times != Sickness::EVER {
                sick.times -= 1;
            }
            io.takes = sick.takes;
            io.result = Err(sick.error);
            let whole = self.whole;
            io.reached.retain(|block| {
                let refuses = |sick: Option<Sickness>| sick.is_some_and(|sick| sick.writes);
                !refuses(self.sick[*block]) && !refuses(whole) && random.once_in(2)
            });
        }
        io
    }

    /// It has ended: what a write brings, from its first block on, or what a read gives.
    pub(super) fn end(&mut self, io: &Io, data: &mut [Option<u64>], fua: bool) {
        if !io.write && io.result.is_err() {
            return;
        }
        for block in &io.reached {
            let place = &mut data[block - io.first];
            match io.write {
                true => self.content[*block] = place.expect("something is written"),
                false => *place = Some(self.content[*block]),
            }
            if io.write && io.result.is_ok() && fua && !self.emulates_fua {
                self.durable[*block] = self.content[*block];
            }
        }
    }

    /// Whatever was wrong with it, it works from here on.
    pub(super) fn cure(&mut self) {
        self.whole = None;
        self.sick.fill(None);
    }

    pub(super) fn flush(&mut self) -> Result<(), Status> {
        if let Some(sick) = self.whole.filter(|sick| sick.concerns(true)) {
            return Err(sick.error);
        }
        self.durable.clone_from(&self.content);
        Ok(())
    }
}
