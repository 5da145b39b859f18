// SPDX-License-Identifier: GPL-2.0

//! The commit protocol: what is written to the spare's metadata next, and what if that fails.
//!
//! The slot table lies on the spare in two replicas, the superblock in four copies. A commit
//! rewrites, in place, the few table blocks whose entries changed. Both replicas are there for two
//! reasons: a sector that goes bad must not take remaps with it, and a write that a crash tears
//! must not, either. So a block is never written in both replicas at once, and the rules are:
//!
//! M1  *One replica after the other, each write FUA.* When the first is written, the second still
//!     holds the last state, whole; when the second is written, the first holds the new one. Never
//!     is the only good copy rewritten: before the first write the other replica's block is read,
//!     for it may have gone bad since, and if it has, it is the one that is written first. If a
//!     write fails in between, that replica's block is suspect: until further notice
//!     (`unsettled`), the next commit of any block begins with it. A crash between the two leaves
//!     a newer and an older block, and loading takes the newer.
//!
//! M2  *A place that stopped taking writes is written off before anyone is told.* A replica's block
//!     that can't be written where it is goes to a reserve block of that replica; the superblock
//!     tells which, in every live copy, before the commit goes on. When no reserve block is left,
//!     the whole replica is recorded as void. Otherwise the old content, readable again after a
//!     crash, could pass for the truth when the other replica's block is lost. In the same way a
//!     superblock copy that can't be written is recorded as void in the others.
//!
//! M4  *Sequence numbers begin with the activation epoch,* which is durable in every live
//!     superblock before the first commit that uses it. It is raised when it is first needed, so
//!     that an activation that changes nothing writes nothing. It is also raised whenever
//!     something is written off: a superblock copy that missed this knows of no such epoch, and
//!     table blocks from it show that the copy is not the truth.
//!
//! M6  *A commit that failed after its first write was issued is in doubt*: that write may be on
//!     the medium or not. The caller must not serve what it changed, and must not undo it, until a
//!     later commit of the same blocks succeeds ([`Outcome::Failed`], `issued`).
//!
//! M8  *Blocks are initialised in all replicas, then flushed, then the high-water mark is raised in
//!     all superblock copies, then they are used.* A block behind the mark therefore always has a
//!     checksum, and a block before it that has none was damaged.
//!
//! With one replica left there is no second copy to fall back to. Then a block is not rewritten in
//! place but written to another one, a free reserve block or its own place, by turns, and each
//! time the superblock is switched over to it. Likewise the superblock is not written any more
//! when one copy is left and no other can be revived; what is on the spare then still serves, but
//! changes no more.
//!
//! What survives a crash, step by step, for a commit of one block:
//!
//! | crash after                     | replica 0 | replica 1 | superblocks | loading finds        |
//! |---------------------------------|-----------|-----------|-------------|----------------------|
//! | nothing                         | old       | old       | old         | the old state        |
//! | write to replica 0, torn        | bad       | old       | old         | old, repairs 0       |
//! | write to replica 0              | new       | old       | old         | new, repairs 1       |
//! | failed write to replica 0       | ?         | old       | old         | either, repairs both |
//! | … written to reserve block      | ?         | old       | old         | either, repairs both |
//! | … some superblocks written      | new       | old       | newest wins | new, repairs 1       |
//! | write to replica 1, torn        | new       | bad       | old or new  | new, repairs 1       |
//! | write to replica 1              | new       | new       | old or new  | the new state        |
//!
//! Nothing here writes: [`Op::advance`] tells the driver what to write next and is told how that
//! went, so that a test can fail, tear and reorder every single step.

use core::fmt;

use super::errno::Errno;
use super::format::sequence;
use super::format::superblock::Reserve;
use super::format::Block;
use super::format::Statistics;
use super::format::Superblock;
use super::format::REPLICAS;
use super::format::SUPER_COPIES;
use super::load::Chosen;
use super::text::MainId;

/// The most blocks that one commit can rewrite.
pub const COMMIT_BLOCKS_MAX: usize = 16;

/// The most blocks that the high-water mark can be raised by in one go.
pub const EXTEND_BLOCKS_MAX: u32 = 64;

const ALL_REPLICAS: u8 = (1 << REPLICAS) - 1;
const ALL_SUPERS: u8 = (1 << SUPER_COPIES) - 1;

/// Why a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The medium is bad there; the spare as such works.
    Media,
    /// Anything else, such as a spare that is offline: tells nothing about the place (P6).
    Other,
}

/// What goes into a block of the slot table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The entries as they are in the driver's memory right now, with this sequence.
    Current {
        /// The block's sequence.
        sequence: u64,
    },
    /// Unused entries only, with this sequence.
    Empty {
        /// The block's sequence.
        sequence: u64,
    },
    /// The image that loading found to be the truth, byte by byte.
    Truth,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read a block of the slot table and check it ([`TableBlock::decode`]). A block that does not
    /// pass is reported as [`Fault::Media`], like one that can't be read.
    ///
    /// [`TableBlock::decode`]: super::format::table_block::TableBlock::decode
    CheckTable {
        /// The replica that it belongs to.
        replica: u8,
        /// The number of the block.
        block: u32,
        /// Where it is in the spare's window.
        sector: u64,
    },
    /// Write a block of the slot table.
    WriteTable {
        /// The replica that it belongs to.
        replica: u8,
        /// The number of the block.
        block: u32,
        /// Where to, in the spare's window.
        sector: u64,
        /// What to write.
        content: Content,
        /// Whether it must be on the medium before the step is done.
        fua: bool,
    },
    /// Write a superblock copy ([`Metadata::encode_superblock`]), FUA.
    WriteSuper {
        /// The copy.
        copy: u8,
        /// Where to, in the spare's window.
        sector: u64,
    },
    /// Flush the spare.
    Flush,
    /// Nothing: this is how it ended.
    Done(Outcome),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is durable in every copy that counts.
    Committed,
    /// It is not.
    Failed {
        /// Whether a write was issued that carries the caller's changes. If so they are in doubt
        /// (M6); if not they never happened, and the caller takes them back.
        issued: bool,
        /// What went wrong.
        why: Failure,
    },
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The spare failed, for reasons other than its medium. May succeed when tried again.
    Device,
    /// Metadata blocks are bad and there is no place left to move them to.
    NoPlace,
    /// Too few superblock copies can be written.
    NoSuperblock,
    /// The superblock forbids this version to write.
    ReadOnly,
    /// A counter is at its end.
    Exhausted,
    /// The blocks asked for are too many, or are not in use.
    Blocks,
}

impl Failure {
    /// The error number for the user.
    pub fn errno(self) -> Errno {
        match self {
            Failure::Device | Failure::NoPlace | Failure::NoSuperblock => Errno::Io,
            Failure::ReadOnly => Errno::ReadOnly,
            Failure::Exhausted => Errno::NoSpace,
            Failure::Blocks => Errno::Invalid,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Device => "the spare does not take writes",
            Failure::NoPlace => "metadata blocks are bad and no reserve block is left",
            Failure::NoSuperblock => "too few superblock copies can be written",
            Failure::ReadOnly => "the spare uses features that this module can only read",
            Failure::Exhausted => "sequence numbers are exhausted",
            Failure::Blocks => "no such metadata blocks",
        })
    }
}

/// A block that a failed commit left in two states.
#[derive(Clone, Copy, Debug)]
struct Unsettled {
    block: u32,
    /// The replica that is to be written first, the other one having a good copy.
    suspect: u8,
}

/// What an activation knows about the spare's metadata, and must know to change it.
#[derive(Clone, Debug)]
pub struct Metadata {
    superblock: Superblock,
    /// The last counter given out in this activation.
    counter: u64,
    /// Whether the superblock's epoch is this activation's own.
    raised: bool,
    /// Whether some live copy does not have the superblock as it is here. Nothing else is written
    /// before they do.
    stale: bool,
    unsettled: [Unsettled; COMMIT_BLOCKS_MAX],
    unsettled_count: usize,
}

impl Metadata {
    /// Starts with what loading found: the superblock, and the number of table blocks in use,
    /// which is the high-water mark or more (M8).
    pub fn open(chosen: Chosen, table_blocks: u32) -> Self {
        let mut metadata = Self::create(chosen.superblock);
        metadata.stale = chosen.rewrite != 0;
        if table_blocks > metadata.superblock.high_water {
            metadata.superblock.high_water = table_blocks;
            metadata.stale = true;
        }
        metadata
    }

    /// Starts with a new superblock. The spare is formatted when [`Metadata::sync`] succeeded, and
    /// can be used after a first [`Metadata::extend`].
    pub fn create(superblock: Superblock) -> Self {
        Metadata {
            superblock,
            counter: 0,
            raised: false,
            stale: true,
            unsettled: [Unsettled {
                block: 0,
                suspect: 0,
            }; COMMIT_BLOCKS_MAX],
            unsettled_count: 0,
        }
    }

    /// The superblock as it is in memory.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The statistics; what is changed gets to the spare whenever the superblock is written.
    pub fn statistics_mut(&mut self) -> &mut Statistics {
        &mut self.superblock.statistics
    }

    /// Whether the superblock should be written soon ([`Metadata::sync`]): some live copy is older
    /// than others.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether a commit failed in between and another one is needed to settle it
    /// ([`Metadata::commit`], of no blocks if there is nothing else to commit).
    pub fn is_unsettled(&self) -> bool {
        self.unsettled_count != 0
    }

    /// Says how large main is, if that is larger than ever before, and what the user calls it, if
    /// that is new. Entries may name the additional blocks after the next [`Metadata::sync`].
    pub fn set_main(&mut self, sectors: u64, id: Option<&MainId>) {
        if sectors > self.superblock.main_sectors {
            self.superblock.main_sectors = sectors;
            self.stale = true;
        }
        if let Some(id) = id.filter(|id| **id != self.superblock.main_id) {
            self.superblock.main_id = *id;
            self.stale = true;
        }
    }

    /// Says whether the activation is ended in order. Gets to the spare with the next
    /// [`Metadata::sync`]; the first commit takes it back.
    pub fn set_clean(&mut self, clean: bool) {
        self.superblock.clean = clean;
    }

    /// Whether this activation wrote anything that a clean end should be recorded for.
    pub fn is_touched(&self) -> bool {
        self.raised
    }

    /// A generation for entries that the next commit adds or changes: larger than all before (M5).
    /// None if the counters are at their end.
    pub fn next_generation(&mut self) -> Option<u64> {
        let epoch = if self.raised {
            self.superblock.epoch
        } else {
            self.superblock.epoch.checked_add(1)?
        };
        self.counter = self.counter.checked_add(1)?;
        sequence(epoch, self.counter)
    }

    /// Makes superblock copy `copy` for [`Step::WriteSuper`].
    pub fn encode_superblock(&self, image: &mut Block, copy: u8) {
        self.superblock.encode(image, copy);
    }

    /// Makes the entries of `blocks` durable as they are in memory. First settles what an earlier
    /// commit left behind.
    pub fn commit<'a>(&'a mut self, blocks: &'a [u32]) -> Op<'a> {
        let statistics = &mut self.superblock.statistics;
        statistics.saves = statistics.saves.saturating_add(1);
        let legal = blocks.len() <= COMMIT_BLOCKS_MAX
            && blocks.iter().all(|b| *b < self.superblock.high_water);
        let op = Op::new(self, Job::Commit(blocks));
        if legal {
            op
        } else {
            op.refused(Failure::Blocks)
        }
    }

    /// Initialises the next `blocks` blocks of the slot table, or what is left of it, and raises
    /// the high-water mark over them.
    pub fn extend(&mut self, blocks: u32) -> Op<'_> {
        let mark = self.superblock.high_water;
        let to = mark
            .saturating_add(blocks.min(EXTEND_BLOCKS_MAX))
            .min(self.superblock.geometry.table_blocks());
        let job = Job::Extend { from: mark, to };
        if to > mark {
            Op::new(self, job)
        } else {
            Op::new(self, job).refused(Failure::Blocks)
        }
    }

    /// Writes the superblock to every live copy.
    pub fn sync(&mut self) -> Op<'_> {
        self.stale = true;
        Op::new(self, Job::Sync)
    }

    /// Writes the truth about `block`, as loading found it, to `replica`, which has something else
    /// or nothing (M3). Does nothing if that replica became void meanwhile.
    pub fn rewrite(&mut self, replica: u8, block: u32) -> Op<'_> {
        let legal = block < self.superblock.geometry.table_blocks();
        let op = Op::new(self, Job::Rewrite { replica, block });
        if legal {
            op
        } else {
            op.refused(Failure::Blocks)
        }
    }

    /// Begins a new epoch: of this activation, or because something is written off.
    fn raise_epoch(&mut self) -> Result<(), Failure> {
        let epoch = self.superblock.epoch.saturating_add(1);
        if sequence(epoch, 0).is_none() {
            return Err(Failure::Exhausted);
        }
        self.superblock.epoch = epoch;
        self.superblock.clean = false;
        self.raised = true;
        self.stale = true;
        Ok(())
    }

    fn next_sequence(&mut self) -> Result<u64, Failure> {
        self.counter = self.counter.saturating_add(1);
        sequence(self.superblock.epoch, self.counter).ok_or(Failure::Exhausted)
    }

    fn count_repair(&mut self) {
        let statistics = &mut self.superblock.statistics;
        statistics.metadata_repairs = statistics.metadata_repairs.saturating_add(1);
    }

    fn live_replicas(&self) -> u8 {
        ALL_REPLICAS & !self.superblock.void_replicas
    }

    fn live_supers(&self) -> u8 {
        ALL_SUPERS & !self.superblock.void_supers
    }

    fn reserve_mut(&mut self, replica: u8, index: u8) -> Option<&mut Reserve> {
        self.superblock
            .reserve
            .get_mut(usize::from(replica))?
            .get_mut(usize::from(index))
    }

    fn set_reserve(&mut self, replica: u8, index: u8, value: Reserve) {
        if let Some(reserve) = self.reserve_mut(replica, index) {
            *reserve = value;
            self.stale = true;
        }
    }

    fn free_reserve(&self, replica: u8) -> Option<u8> {
        let reserves = self.superblock.reserve.get(usize::from(replica))?;
        let index = reserves.iter().position(|r| *r == Reserve::Free)?;
        u8::try_from(index).ok()
    }

    fn suspect(&self, block: u32) -> Option<u8> {
        self.unsettled
            .iter()
            .take(self.unsettled_count)
            .find(|u| u.block == block)
            .map(|u| u.suspect)
    }
}

/// What an operation is for.
#[derive(Clone, Copy, Debug)]
enum Job<'a> {
    Commit(&'a [u32]),
    Extend { from: u32, to: u32 },
    Sync,
    Rewrite { replica: u8, block: u32 },
}

/// Where in its job an operation is. Superblocks are not a stage: they are written whenever they
/// are stale, before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Rewriting what an earlier commit left behind.
    Settle,
    /// Writing the job's own table blocks.
    Main,
    /// Making initialised blocks durable.
    Flush,
    /// Nothing but the superblocks is left.
    Supers,
}

/// Where a table block is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where it is.
    Current,
    /// Its own place, while it is in a reserve block.
    Home,
    /// Another reserve block.
    Reserve(u8),
}

/// The step that the driver is at.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Nothing,
    Check {
        index: u32,
    },
    Table {
        replica: u8,
        index: u32,
        place: Place,
    },
    Super {
        copy: u8,
    },
    Flush,
}

/// A block that can't stay where it is.
#[derive(Clone, Copy, Debug)]
struct Moving {
    /// Whether its own place is bad, too.
    home_bad: bool,
}

/// What the table writes of a stage came to.
enum Next {
    Step(Step),
    /// The superblocks have to be written first.
    Supers,
    Finished,
}

/// A pass over the superblock copies.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The copies to be written; a bit each.
    todo: u8,
}

/// An operation under way. It borrows the metadata until it is done.
#[derive(Debug)]
pub struct Op<'a> {
    metadata: &'a mut Metadata,
    job: Job<'a>,
    stage: Stage,
    pending: Pending,
    round: Option<Round>,
    /// Void superblock copies that were tried again; a bit each.
    revived: u8,
    /// The one that is being tried.
    reviving: Option<u8>,
    /// Sequence of the current stage's blocks.
    sequence: Option<u64>,
    /// For each replica, the blocks of the current stage that it has; a bit each.
    done: [u64; REPLICAS as usize],
    /// Blocks of the current stage that a write was issued for; a bit each.
    touched: u64,
    /// Blocks of the current stage whose second copy was read; a bit each.
    checked: u64,
    /// Blocks of the current stage whose second copy proved bad and is written first; a bit each.
    swapped: u64,
    /// The block whose place just failed.
    moving: Option<Moving>,
    /// Whether a write was issued that carries the caller's changes.
    issued: bool,
    outcome: Option<Outcome>,
}

impl<'a> Op<'a> {
    fn new(metadata: &'a mut Metadata, job: Job<'a>) -> Self {
        let stage = match job {
            Job::Commit(_) | Job::Extend { .. } => Stage::Settle,
            Job::Rewrite { .. } => Stage::Main,
            Job::Sync => Stage::Supers,
        };
        let read_only = metadata.superblock.is_read_only();
        let op = Op {
            metadata,
            job,
            stage,
            pending: Pending::Nothing,
            round: None,
            revived: 0,
            reviving: None,
            sequence: None,
            done: [0; REPLICAS as usize],
            touched: 0,
            checked: 0,
            swapped: 0,
            moving: None,
            issued: false,
            outcome: None,
        };
        if read_only {
            op.refused(Failure::ReadOnly)
        } else {
            op
        }
    }

    fn refused(mut self, why: Failure) -> Self {
        self.outcome = Some(Outcome::Failed { issued: false, why });
        self
    }

    /// The metadata that is operated on.
    pub fn metadata(&self) -> &Metadata {
        self.metadata
    }

    /// Takes the result of the last step (of the first call, nothing) and tells the next one.
    /// After [`Step::Done`] it tells the same again.
    pub fn advance(&mut self, last: Result<(), Fault>) -> Step {
        if let Some(outcome) = self.outcome {
            return Step::Done(outcome);
        }
        let step = match self.absorb(last) {
            Ok(()) => self.next_step(),
            Err(why) => Err(why),
        };
        step.unwrap_or_else(|why| self.fail(why))
    }

    fn absorb(&mut self, last: Result<(), Fault>) -> Result<(), Failure> {
        let pending = core::mem::replace(&mut self.pending, Pending::Nothing);
        match (pending, last) {
            (Pending::Nothing, _) => Ok(()),
            (Pending::Flush, Ok(())) => {
                if let Job::Extend { to, .. } = self.job {
                    self.metadata.superblock.high_water = to;
                    self.metadata.stale = true;
                }
                Ok(())
            }
            (Pending::Flush, Err(_)) | (_, Err(Fault::Other)) => Err(Failure::Device),
            (Pending::Check { .. }, Ok(())) => Ok(()),
            (Pending::Check { index }, Err(Fault::Media)) => {
                self.swapped |= bit(index);
                Ok(())
            }
            (Pending::Super { copy }, Ok(())) => {
                if let Some(round) = &mut self.round {
                    round.todo &= !(1 << copy);
                }
                if self.reviving.take().is_some() {
                    // The others call this one void.
                    self.round = None;
                }
                Ok(())
            }
            (Pending::Super { copy }, Err(Fault::Media)) => {
                self.metadata.superblock.void_supers |= 1 << copy;
                self.metadata.count_repair();
                self.reviving = None;
                // What the pass has written so far does not know of this: begin again.
                self.round = None;
                self.metadata.raise_epoch()
            }
            (
                Pending::Table {
                    replica,
                    index,
                    place,
                },
                Ok(()),
            ) => self.table_written(replica, index, place),
            (
                Pending::Table {
                    replica,
                    index,
                    place,
                },
                Err(Fault::Media),
            ) => self.table_failed(replica, index, place),
        }
    }

    fn next_step(&mut self) -> Result<Step, Failure> {
        if self.needs_epoch() && !self.metadata.raised {
            self.metadata.raise_epoch()?;
        }
        loop {
            if let Some(step) = self.next_super()? {
                return Ok(step);
            }
            match self.stage {
                Stage::Settle | Stage::Main => match self.next_table()? {
                    Next::Step(step) => return Ok(step),
                    Next::Supers => (),
                    Next::Finished => self.next_stage(),
                },
                Stage::Flush => {
                    self.stage = Stage::Supers;
                    self.pending = Pending::Flush;
                    return Ok(Step::Flush);
                }
                Stage::Supers => return Ok(self.succeed()),
            }
        }
    }

    /// Whether the job writes blocks with sequence numbers of its own.
    fn needs_epoch(&self) -> bool {
        match self.job {
            Job::Commit(blocks) => !blocks.is_empty() || self.metadata.unsettled_count != 0,
            Job::Extend { .. } => true,
            Job::Sync | Job::Rewrite { .. } => false,
        }
    }

    fn next_stage(&mut self) {
        self.done = [0; REPLICAS as usize];
        self.touched = 0;
        self.checked = 0;
        self.swapped = 0;
        self.sequence = None;
        self.stage = match (self.stage, self.job) {
            (Stage::Settle, _) => {
                self.metadata.unsettled_count = 0;
                Stage::Main
            }
            (Stage::Main, Job::Extend { .. }) => Stage::Flush,
            _ => Stage::Supers,
        };
    }

    fn succeed(&mut self) -> Step {
        if let Job::Commit(_) = self.job {
            let statistics = &mut self.metadata.superblock.statistics;
            statistics.saves_done = statistics.saves_done.saturating_add(1);
        }
        self.outcome = Some(Outcome::Committed);
        Step::Done(Outcome::Committed)
    }

    fn fail(&mut self, why: Failure) -> Step {
        if let Some(copy) = self.reviving {
            self.metadata.superblock.void_supers |= 1 << copy;
        }
        match (self.stage, self.job) {
            (Stage::Settle, _) | (Stage::Main, Job::Commit(_)) => self.leave_unsettled(),
            (_, Job::Extend { from, .. }) => {
                // Copies may say more, which does no harm: what they speak of is initialised.
                self.metadata.superblock.high_water = from;
                self.metadata.stale = true;
            }
            _ => (),
        }
        let outcome = Outcome::Failed {
            issued: self.issued,
            why,
        };
        self.outcome = Some(outcome);
        Step::Done(outcome)
    }

    /// Remembers the blocks that are not the same in both replicas now.
    fn leave_unsettled(&mut self) {
        let mut left = self.metadata.unsettled;
        let mut count = 0;
        // With one replica left, what is on the spare was not touched (see `choose_place`).
        let both = self.metadata.live_replicas() == ALL_REPLICAS;
        let mut index = 0;
        while let Some(block) = self.stage_block(index).filter(|_| both) {
            let [first, second] = self.order(index, block);
            let suspect = if !self.is_done(first, index) {
                let known = self.stage == Stage::Settle || self.touched & bit(index) != 0;
                known.then_some(first)
            } else if !self.is_done(second, index) {
                Some(second)
            } else {
                None
            };
            if let (Some(suspect), Some(place)) = (suspect, left.get_mut(count)) {
                *place = Unsettled { block, suspect };
                count += 1;
            }
            index += 1;
        }
        self.metadata.unsettled = left;
        self.metadata.unsettled_count = count;
    }

    // Superblocks.

    /// The next superblock copy to write, if any has to be.
    fn next_super(&mut self) -> Result<Option<Step>, Failure> {
        if !self.metadata.stale {
            return Ok(None);
        }
        let round = match self.round {
            Some(round) => round,
            None => self.begin_round()?,
        };
        self.round = Some(round);
        if round.todo == 0 {
            self.round = None;
            self.metadata.stale = false;
            return Ok(None);
        }
        let copy = lowest(round.todo);
        let geometry = &self.metadata.superblock.geometry;
        let sector = geometry.superblock_sector(copy).ok_or(Failure::Blocks)?;
        self.pending = Pending::Super { copy };
        Ok(Some(Step::WriteSuper { copy, sector }))
    }

    /// Begins a pass over all live copies. All of them get the same content with the same
    /// sequence: when something changes on the way, another pass begins.
    fn begin_round(&mut self) -> Result<Round, Failure> {
        let superblock = &mut self.metadata.superblock;
        superblock.sequence = superblock
            .sequence
            .checked_add(1)
            .ok_or(Failure::Exhausted)?;
        let live = self.metadata.live_supers();
        if live.count_ones() >= 2 {
            return Ok(Round { todo: live });
        }
        // The only good copy is not rewritten: first another one has to be made.
        let candidates = ALL_SUPERS & !live & !self.revived;
        if candidates == 0 {
            return Err(Failure::NoSuperblock);
        }
        let copy = lowest(candidates);
        self.revived |= 1 << copy;
        self.reviving = Some(copy);
        // Its own image must not call it void.
        self.metadata.superblock.void_supers &= !(1 << copy);
        Ok(Round { todo: 1 << copy })
    }

    // Table blocks.

    /// The block at `index` of the current stage.
    fn stage_block(&self, index: u32) -> Option<u32> {
        match (self.stage, self.job) {
            (Stage::Settle, _) => self
                .metadata
                .unsettled
                .iter()
                .take(self.metadata.unsettled_count)
                .nth(index as usize)
                .map(|unsettled| unsettled.block),
            (Stage::Main, Job::Commit(blocks)) => blocks.get(index as usize).copied(),
            (Stage::Main, Job::Extend { from, to }) => {
                from.checked_add(index).filter(|block| *block < to)
            }
            (Stage::Main, Job::Rewrite { block, .. }) => (index == 0).then_some(block),
            _ => None,
        }
    }

    /// The replicas that the block at `index` is written to, one after the other.
    fn order(&self, index: u32, block: u32) -> [u8; REPLICAS as usize] {
        match (self.stage, self.job) {
            (Stage::Main, Job::Rewrite { replica, .. }) => [replica, replica],
            _ => match self.metadata.suspect(block) {
                Some(1) => [1, 0],
                Some(_) => [0, 1],
                None if self.swapped & bit(index) != 0 => [1, 0],
                None => [0, 1],
            },
        }
    }

    fn is_done(&self, replica: u8, index: u32) -> bool {
        self.done
            .get(usize::from(replica))
            .is_some_and(|done| done & bit(index) != 0)
    }

    /// Whether the only replica's blocks must not be rewritten in place: M1.
    fn is_single(&self) -> bool {
        let keeps_entries = match (self.stage, self.job) {
            (Stage::Settle, _) | (_, Job::Commit(_)) => true,
            (_, Job::Extend { .. } | Job::Rewrite { .. } | Job::Sync) => false,
        };
        keeps_entries && self.metadata.live_replicas() != ALL_REPLICAS
    }

    /// The next block that some live replica does not have: all blocks in the replica that each is
    /// to be written to first, then all in the other.
    fn next_target(&self) -> Option<(u8, u32, u32)> {
        for turn in 0..usize::from(REPLICAS) {
            let mut index = 0;
            while let Some(block) = self.stage_block(index) {
                let replica = self.order(index, block).get(turn).copied()?;
                if self.metadata.superblock.replica_lives(replica) && !self.is_done(replica, index)
                {
                    return Some((replica, index, block));
                }
                index += 1;
            }
        }
        None
    }

    fn next_table(&mut self) -> Result<Next, Failure> {
        let Some((replica, index, block)) = self.next_target() else {
            return Ok(Next::Finished);
        };
        if let Some(step) = self.check_other(replica, index, block) {
            return Ok(Next::Step(step));
        }
        let Some(place) = self.choose_place(replica, block) else {
            self.write_off(replica)?;
            return Ok(Next::Supers);
        };
        let superblock = &self.metadata.superblock;
        let sector = match place {
            Place::Current => superblock.table_sector(replica, block),
            Place::Home => superblock.geometry.table_block_sector(replica, block),
            Place::Reserve(i) => superblock.geometry.reserve_block_sector(replica, i),
        };
        let sector = sector.ok_or(Failure::Blocks)?;
        let (content, fua) = self.content()?;
        if let Job::Commit(blocks) = self.job {
            self.issued |= blocks.contains(&block);
        }
        self.touched |= bit(index);
        self.pending = Pending::Table {
            replica,
            index,
            place,
        };
        Ok(Next::Step(Step::WriteTable {
            replica,
            block,
            sector,
            content,
            fua,
        }))
    }

    /// Before the first of two good copies is rewritten, the other one is looked at.
    fn check_other(&mut self, replica: u8, index: u32, block: u32) -> Option<Step> {
        let [first, second] = self.order(index, block);
        let needed = matches!(self.job, Job::Commit(_)) || self.stage == Stage::Settle;
        if !needed || self.is_single() || replica != first || self.checked & bit(index) != 0 {
            return None;
        }
        self.checked |= bit(index);
        let sector = self.metadata.superblock.table_sector(second, block)?;
        self.pending = Pending::Check { index };
        Some(Step::CheckTable {
            replica: second,
            block,
            sector,
        })
    }

    fn content(&mut self) -> Result<(Content, bool), Failure> {
        if let (Stage::Main, Job::Rewrite { .. }) = (self.stage, self.job) {
            return Ok((Content::Truth, true));
        }
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => self.metadata.next_sequence()?,
        };
        self.sequence = Some(sequence);
        Ok(match (self.stage, self.job) {
            // Many at once, and made durable by the flush at the end.
            (Stage::Main, Job::Extend { .. }) => (Content::Empty { sequence }, false),
            _ => (Content::Current { sequence }, true),
        })
    }

    /// Where `block` of `replica` is written to. None if there is no place left.
    fn choose_place(&self, replica: u8, block: u32) -> Option<Place> {
        let home_bad = if self.is_single() {
            // The current place has the only good copy.
            match self.metadata.superblock.relocation(replica, block) {
                Some((_, home_bad)) => home_bad,
                None => true,
            }
        } else {
            match self.moving {
                Some(moving) => moving.home_bad,
                None => return Some(Place::Current),
            }
        };
        if !home_bad {
            return Some(Place::Home);
        }
        self.metadata.free_reserve(replica).map(Place::Reserve)
    }

    fn table_written(&mut self, replica: u8, index: u32, place: Place) -> Result<(), Failure> {
        let Some(block) = self.stage_block(index) else {
            return Err(Failure::Blocks);
        };
        if let Some(done) = self.done.get_mut(usize::from(replica)) {
            *done |= bit(index);
        }
        let moving = self.moving.take();
        if place == Place::Current {
            if let (Stage::Main, Job::Rewrite { .. }) = (self.stage, self.job) {
                self.metadata.count_repair();
            }
            return Ok(());
        }
        let old = self.metadata.superblock.relocation(replica, block);
        if let Some((index, _)) = old {
            self.metadata.set_reserve(replica, index, Reserve::Free);
        }
        if let Place::Reserve(index) = place {
            let home_bad = match (moving, old) {
                (Some(moving), _) => moving.home_bad,
                (None, Some((_, home_bad))) => home_bad,
                (None, None) => false,
            };
            let holds = Reserve::Holds { block, home_bad };
            self.metadata.set_reserve(replica, index, holds);
        }
        self.metadata.stale = true;
        if moving.is_some() {
            self.metadata.count_repair();
            self.metadata.raise_epoch()?;
        }
        Ok(())
    }

    /// Remembers that a place is bad, so that the next one is chosen.
    fn table_failed(&mut self, replica: u8, index: u32, place: Place) -> Result<(), Failure> {
        let Some(block) = self.stage_block(index) else {
            return Err(Failure::Blocks);
        };
        let relocation = self.metadata.superblock.relocation(replica, block);
        match (place, relocation) {
            (Place::Current, Some((index, home_bad))) => {
                self.metadata.set_reserve(replica, index, Reserve::Bad);
                self.moving = Some(Moving { home_bad });
            }
            (Place::Current, None) => self.moving = Some(Moving { home_bad: true }),
            (Place::Reserve(index), _) => self.metadata.set_reserve(replica, index, Reserve::Bad),
            (Place::Home, Some((index, _))) => {
                let holds = Reserve::Holds {
                    block,
                    home_bad: true,
                };
                self.metadata.set_reserve(replica, index, holds);
            }
            (Place::Home, None) => self.moving = Some(Moving { home_bad: true }),
        }
        // The superblocks are told with the place that is found in the end, not before: until then
        // what they say about this block is as true as it was.
        Ok(())
    }

    /// Records a replica as void that has no place left for a block.
    fn write_off(&mut self, replica: u8) -> Result<(), Failure> {
        let survivor = replica ^ 1;
        if !self.metadata.superblock.replica_lives(survivor) {
            return Err(Failure::NoPlace);
        }
        // Nor may it be written off while it has the only good copy of another block.
        let mut index = 0;
        while let Some(block) = self.stage_block(index) {
            let bad = match self.metadata.suspect(block) {
                Some(suspect) => suspect == survivor,
                None => self.swapped & bit(index) != 0 && survivor == 1,
            };
            if bad && !self.is_done(survivor, index) {
                return Err(Failure::NoPlace);
            }
            index += 1;
        }
        self.moving = None;
        self.metadata.superblock.void_replicas |= 1 << replica;
        self.metadata.count_repair();
        self.metadata.raise_epoch()
    }
}

/// The bit for a block of a stage; a stage has at most 64.
fn bit(index: u32) -> u64 {
    1u64.checked_shl(index).unwrap_or(0)
}

/// The number of the lowest bit of a mask that is not empty.
fn lowest(mask: u8) -> u8 {
    // At most 7.
    mask.trailing_zeros().min(7) as u8
}
