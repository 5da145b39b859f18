// SPDX-License-Identifier: GPL-2.0

//! The words in which the machine and its driver talk.

use super::super::{
    bisect::Segment,
    breaker::Need,
    classify::{
        Operation,
        Status, //
    },
    table::{
        Run,
        RunKind, //
    }, //
};

/// An error as the driver has it. It is passed up as it came, whatever the machine makes of it (P6).
pub trait Error: Copy {
    /// One of which nothing more can be told.
    const IO: Self;
    /// One of a medium.
    const MEDIUM: Self;

    /// What [`classify`](super::super::classify) calls it.
    fn status(self) -> Status;
}

impl Error for Status {
    const IO: Self = Status::IoErr;
    const MEDIUM: Self = Status::Medium;

    fn status(self) -> Status {
        self
    }
}

/// What is the case when the machine goes on.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The time, in milliseconds.
    pub ms: u64,
    /// Whether blocks that fail may be moved without being asked for.
    pub auto_remap: bool,
    /// Whether there is a slot that can be given out.
    pub slots_left: bool,
    /// How often a block that cannot be read is tried again.
    pub read_retries: u32,
}

/// A bio that is to be served.
#[derive(Clone, Copy, Debug)]
pub struct Bio<E> {
    /// What it wants. Of anything but reads, writes and zeroes, nothing is done.
    pub operation: Operation,
    /// How many blocks it has.
    pub blocks: u32,
    /// How many of them are served, and moved, at a time: [`CHUNK_BLOCKS`](super::CHUNK_BLOCKS) at the most.
    pub part: u32,
    /// Whether it has to be on the medium when it is answered.
    pub fua: bool,
    /// When it failed, in milliseconds; none if it was not tried so far.
    pub failed_at: Option<u64>,
    /// What it failed with; if it did not, [`Error::IO`].
    pub error: E,
    /// Whether that was on a spare.
    pub on_spare: bool,
    /// Whether it is the one that has to find out whether a device works again.
    pub probes: bool,
}

/// In which direction main is asked for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Reading it.
    Read,
    /// Writing it.
    Write,
}

/// What was found out about main.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has done what it was asked for.
    Alive,
    /// It has not, wherever it was asked.
    Dead,
    /// There was no time to ask, or nobody could be asked.
    Unknown,
}

/// A part of a run that is to be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// How the run is served.
    pub kind: RunKind,
    /// Its first block, counted from the bio's.
    pub at: u32,
    /// The part of it.
    pub part: Segment,
}

/// What to do next. Blocks are counted from the bio's first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<E> {
    /// Tell whether the device on which the bio failed is known to fail as a whole: [`Answer::Yes`].
    AskBreaker,
    /// Answer the bio with the error that it has, and do nothing else.
    PassUp,
    /// Look up how the first blocks of a range are served: [`Answer::Found`].
    Look {
        /// The first block.
        at: u32,
        /// How many there are.
        count: u32,
    },
    /// Settle the doubt about a block (M6).
    Settle {
        /// The block.
        at: u32,
    },
    /// Read from where they are, into the bio.
    Read(Try),
    /// Write from the bio to where they belong. [`Answer::InVain`] if that counts for nothing.
    Write(Try),
    /// Tell whether the set goes on without the spare that has these slots: [`Answer::Yes`].
    AskGone {
        /// The first slot.
        slot: u32,
    },
    /// Count that a slot did not take what was sent to it.
    CountFailedSlot {
        /// The first slot of its run.
        slot: u32,
    },
    /// Slots that could not be read have new content.
    Mend {
        /// The first slot.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Tell whether main has its size, and has shown life in this direction since the bio failed:
    /// [`Answer::Main`].
    AskMain(Way),
    /// Count that a bio has failed in this direction, and tell what it takes to blame the medium, and whether main was
    /// read since the bio failed: [`Answer::Need`].
    CountFailure(Way),
    /// Read another block of main, or write one back: [`Answer::Probed`].
    Probe(Way),
    /// Count that main does not do what it was asked for.
    Disprove(Way),
    /// List blocks that have to move.
    ListMoves {
        /// The first block.
        at: u32,
        /// How many.
        count: u32,
    },
    /// Tell whether some block of the list is main's, has no slot, and was not noted: [`Answer::Yes`]. Of what is
    /// [avoided](RunKind::Avoided), none is.
    AskMoves,
    /// Bring what is in the list to slots, and empty it. That is not durable, and serves nobody yet. [`Answer::Full`] if
    /// there has to be a commit before as much again can be placed.
    Place,
    /// Make durable what was placed since the last commit, and have it serve. [`Answer::InVain`] if some of it was placed on
    /// a spare that the set goes on without.
    Commit,
    /// Make durable what was written in place.
    Flush,
    /// List a block that cannot be read.
    ListUnreadable {
        /// The block.
        at: u32,
        /// Whether a slot serves it.
        from_slot: bool,
    },
    /// List a block of main that could only be read after several tries.
    ListWeak {
        /// The block.
        at: u32,
    },
    /// What failed may have been a flush that others wait for.
    DistrustFlush,
    /// Remember the slots in the list that cannot be read.
    NoteFailing,
    /// Remember the blocks of main in the list that cannot be read. Waits for nobody.
    NoteUnreadable,
    /// Answer the bio.
    Answer(Result<(), E>),
    /// Have the weak blocks in the list moved.
    MoveWeak,
    /// Have slots ready for the next bio that fails.
    Prepare,
    /// Nothing: all is done.
    Done,
}

/// How the last step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<E> {
    /// It was done.
    Good,
    /// It was done on a spare that the set goes on without.
    InVain,
    /// It was done, and there is no room for more.
    Full,
    /// It was not.
    Failed(E),
    /// Whether what was asked is so.
    Yes(bool),
    /// How a range is served, as far as it is in one way.
    Found {
        /// How, and how far.
        run: Run,
        /// How many blocks are before the first one that is noted as unreadable, if there is one in the range. To be
        /// looked up before the run.
        noted: Option<u32>,
    },
    /// What is known of main.
    Main {
        /// Whether it has the size that it had.
        whole: bool,
        /// Whether it has done something of the kind since the bio failed.
        proven: bool,
    },
    /// What it takes to blame the medium.
    Need {
        /// What else has to work.
        need: Need,
        /// Whether main was read since the bio failed.
        read: bool,
    },
    /// What came of a probe.
    Probed(Found),
}
