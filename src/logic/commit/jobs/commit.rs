// SPDX-License-Identifier: GPL-2.0

//! Making entries durable: each block in one replica after the other (M1, M6).
//!
//! First what an earlier commit left behind is rewritten, then the blocks that were asked for. Of either, all go to the
//! replica that each is written to first, then all to the other one. Which is first: the suspect one of a block
//! that is unsettled; otherwise replica 0, if the block is good in the other one, which is read before (M1), or else that.
//!
//! ```text
//!                    written first   written second   if it fails here
//!   nothing is yet   old             good             as it was
//!   first is issued  ?               good             unsettled, first is suspect
//!   first is written new             old              unsettled, second is suspect
//!   second is issued new             ?                unsettled, second is suspect
//!   done             new             new
//! ```
//!
//! Of blocks that are written at a time all second copies are read before, and all are issued with it.
//!
//! With one replica left, that is never written where the block is ([`Way::Elsewhere`]), so nothing has to be settled.

use core::ops::Range;

use super::{
    super::{
        super::format::{
            BlockId,
            MEMBERS_MAX,
            REPLICAS, //
        },
        metadata::unsettled::Unsettled,
        step::{
            Content,
            Failure,
            Step, //
        },
        table_write::{
            run_length,
            Progress,
            TableWrite,
            Way, //
        },
        Metadata,
        Op,
        COMMIT_BLOCKS_MAX, //
    },
    Job, //
};

/// How far the write to one replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was written.
    Old,
    /// A write was issued: it may be damaged, or old, or new.
    Issued,
    /// It was written.
    New,
}

/// When and how a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// When it comes, and together with others if that is possible.
    Any,
    /// When it comes, and by itself, as a write of several has failed.
    Alone,
    /// Last: the other replica gets what it lacks first.
    Last,
}

/// A block, which both replicas are to get.
#[derive(Clone, Copy, Debug)]
struct Pair {
    id: BlockId,
    /// The replica that has no good copy, if one has none.
    suspect: Option<u8>,
    stages: [Stage; REPLICAS as usize],
    /// Whether the copy that is written second was read.
    is_checked: bool,
    /// The replica that this was, if it was bad.
    bad: Option<u8>,
    turn: Turn,
}

impl Pair {
    fn new(id: BlockId, suspect: Option<u8>) -> Self {
        Self {
            id,
            suspect,
            stages: [Stage::Old; REPLICAS as usize],
            is_checked: false,
            bad: None,
            turn: Turn::Any,
        }
    }

    /// Whether there is nothing else to it than being written where it is.
    fn is_plain(&self) -> bool {
        self.suspect.is_none() && self.bad.is_none() && self.turn == Turn::Any
    }

    /// The replicas, in the order in which they are written.
    fn order(&self) -> [u8; REPLICAS as usize] {
        match self.suspect {
            Some(1) => [1, 0],
            _ => [0, 1],
        }
    }

    fn stage(&self, replica: u8) -> Stage {
        let stage = self.stages.get(usize::from(replica));
        stage.copied().unwrap_or(Stage::Old)
    }

    fn set_stage(&mut self, replica: u8, now: Stage) {
        if let Some(stage) = self.stages.get_mut(usize::from(replica)) {
            *stage = now;
        }
    }

    /// Whether the other replica has the only good copy, which `replica` is to get.
    fn is_lacked_by(&self, replica: u8) -> bool {
        match self.stage(replica) {
            Stage::Old => self.suspect == Some(replica),
            // A write that failed may have damaged what was there.
            Stage::Issued => true,
            Stage::New => false,
        }
    }
}

/// The numbers of blocks that are written at a time.
fn pairs_of(at: usize, count: u32) -> Range<usize> {
    at..at.saturating_add(count as usize)
}

/// A commit under way.
#[derive(Debug)]
pub(in super::super) struct Commit<'a> {
    blocks: &'a [BlockId],
    /// Whether what an earlier commit left behind is being rewritten, and not the blocks yet.
    settling: bool,
    /// What is being rewritten.
    pairs: [Option<Pair>; COMMIT_BLOCKS_MAX],
    /// Which of them is; or the first one, if it is several.
    at: usize,
    /// Being written to one of the replicas.
    write: Option<TableWrite>,
    /// Sequence of these blocks.
    sequence: Option<u64>,
    /// A block that was found bad where it must not be: the next commit re-creates it.
    found_bad: Option<Unsettled>,
    /// Whether a write was issued that carries the caller's changes.
    issued: bool,
}

impl Metadata {
    /// Makes the entries of `blocks`, each of them once, durable as they are in memory. First settles
    /// what an earlier commit left behind.
    pub fn commit<'a>(&'a mut self, blocks: &'a [BlockId]) -> Op<'a> {
        let statistics = &mut self.superblock.statistics;
        statistics.saves = statistics.saves.saturating_add(1);
        let in_use = |id: &BlockId| {
            let member = self.superblock.member(id.member);
            member.is_some_and(|member| id.block < member.high_water)
        };
        let legal = blocks.len() <= COMMIT_BLOCKS_MAX && blocks.iter().all(in_use);
        let writes = !blocks.is_empty() || self.is_unsettled();
        let mut commit = Commit {
            blocks,
            settling: true,
            pairs: [None; COMMIT_BLOCKS_MAX],
            at: 0,
            write: None,
            sequence: None,
            found_bad: None,
            issued: false,
        };
        let unsettled = self.unsettled.iter();
        commit.begin(unsettled.map(|left| Pair::new(left.block, Some(left.suspect))));
        Op::new(self, Job::Commit(commit), legal, writes)
    }
}

impl<'a> Commit<'a> {
    fn begin(&mut self, pairs: impl Iterator<Item = Pair>) {
        self.pairs = [None; COMMIT_BLOCKS_MAX];
        for (place, pair) in self.pairs.iter_mut().zip(pairs) {
            *place = Some(pair);
        }
        self.sequence = None;
    }

    pub(super) fn next(&mut self, metadata: &mut Metadata) -> Result<Option<Step>, Failure> {
        loop {
            if self.write.is_none() {
                let Some((at, replica)) = self.next_target(metadata) else {
                    if !self.settling {
                        return Ok(None);
                    }
                    self.settling = false;
                    metadata.unsettled.clear();
                    let blocks = self.blocks;
                    self.begin(blocks.iter().map(|id| Pair::new(*id, None)));
                    continue;
                };
                let count = self.run_length(metadata, at, replica);
                for each in pairs_of(at, count) {
                    self.at = each;
                    if let Some(step) = self.check_second(metadata, replica) {
                        return Ok(Some(step));
                    }
                }
                self.at = at;
                self.begin_write(metadata, replica, count)?;
            }
            match self.write_step(metadata)? {
                Some(step) => return Ok(Some(step)),
                None if metadata.stale => return Ok(None),
                None => (),
            }
        }
    }

    /// The next block that some live replica does not have: all in the replica that each is
    /// to be written to first, then all in the other, then those that were put off.
    fn next_target(&self, metadata: &Metadata) -> Option<(usize, u8)> {
        [false, true].into_iter().find_map(|last| {
            (0..usize::from(REPLICAS)).find_map(|turn| {
                let mut pairs = self.pairs.iter().flatten().zip(0usize..);
                pairs.find_map(|(pair, at)| {
                    let replica = *pair.order().get(turn)?;
                    let lives = metadata.replica_lives(replica, pair.id.member);
                    let lacks = lives && pair.stage(replica) != Stage::New;
                    (lacks && (pair.turn == Turn::Last) == last).then_some((at, replica))
                })
            })
        })
    }

    /// How many blocks from number `at` on are written to a replica at a time.
    fn run_length(&self, metadata: &Metadata, at: usize, replica: u8) -> u32 {
        let rest = self.pairs.get(at..).unwrap_or(&[]);
        let Some(Some(first)) = rest.first() else {
            return 1;
        };
        if !metadata.has_both(first.id.member) {
            return 1;
        }
        let goes = |(pair, block): &(&Pair, u32)| {
            let id = BlockId {
                block: *block,
                ..first.id
            };
            pair.is_plain() && pair.id == id && pair.stage(replica) != Stage::New
        };
        let pairs = rest.iter().flatten().zip(first.id.block..);
        // There are few.
        let most = pairs.take_while(goes).count() as u32;
        run_length(metadata, first.id, replica, most, false)
    }

    fn pair(&mut self) -> Result<&mut Pair, Failure> {
        let pair = self.pairs.get_mut(self.at).and_then(Option::as_mut);
        pair.ok_or(Failure::Blocks)
    }

    /// Those that are being written.
    fn written_pairs(&mut self, count: u32) -> impl Iterator<Item = &mut Pair> {
        let pairs = self.pairs.get_mut(pairs_of(self.at, count));
        pairs.unwrap_or(&mut []).iter_mut().flatten()
    }

    /// Before the first of two good copies is rewritten, the other one is looked at.
    fn check_second(&mut self, metadata: &Metadata, replica: u8) -> Option<Step> {
        let pair = self.pair().ok()?;
        let [first, second] = pair.order();
        if pair.is_checked || replica != first || !metadata.has_both(pair.id.member) {
            return None;
        }
        pair.is_checked = true;
        let block = pair.id;
        let place = metadata.superblock.table_place(second, block)?;
        Some(Step::CheckTable { block, place })
    }

    fn begin_write(&mut self, metadata: &Metadata, replica: u8, count: u32) -> Result<(), Failure> {
        let pair = self.pair()?;
        if count > 1 {
            self.write = Some(TableWrite::of_several(pair.id, count, replica));
            return Ok(());
        }
        let way = match metadata.has_both(pair.id.member) {
            true => Way::InPlace,
            false => Way::Elsewhere,
        };
        let was_bad = pair.bad == Some(replica);
        self.write = Some(TableWrite::new(pair.id, replica, way, was_bad));
        Ok(())
    }

    /// The next step of the write; none if there is no place for it.
    fn write_step(&mut self, metadata: &mut Metadata) -> Result<Option<Step>, Failure> {
        let write = self.write.as_mut().ok_or(Failure::Blocks)?;
        let (replica, count) = (write.replica(), write.count());
        let Some(place) = write.place(metadata) else {
            return self.no_place(metadata, replica);
        };
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => metadata.next_sequence()?,
        };
        self.sequence = Some(sequence);
        let step = write.step(metadata, place, Content::Current { sequence }, true);
        let (blocks, mut issued) = (self.blocks, self.issued);
        for pair in self.written_pairs(count) {
            issued |= blocks.contains(&pair.id);
            metadata.note_change(pair.id);
            pair.set_stage(replica, Stage::Issued);
        }
        self.issued = issued;
        Ok(Some(step))
    }

    /// There is no place left for a block in a replica, which is written off. Not while it has
    /// the only good copy of another one.
    fn no_place(&mut self, metadata: &mut Metadata, replica: u8) -> Result<Option<Step>, Failure> {
        let settling = self.settling;
        let pair = self.pair()?;
        let (member, last) = (pair.id.member, pair.turn == Turn::Last);
        if !metadata.replica_lives(replica ^ 1, member) {
            return Err(Failure::NoPlace);
        }
        if self.needs(replica, member) {
            if last || !settling {
                return Err(Failure::NoPlace);
            }
            // First re-create what the other one lacks.
            self.pair()?.turn = Turn::Last;
            self.write = None;
            return Ok(None);
        }
        let write = self.write.as_mut().ok_or(Failure::Blocks)?;
        let step = write.write_off(metadata)?;
        if step.is_none() {
            self.write = None;
        }
        Ok(step)
    }

    /// Whether `replica` has the only good copy of a block in the table of `member`.
    fn needs(&self, replica: u8, member: u8) -> bool {
        let mut own = self
            .pairs
            .iter()
            .flatten()
            .filter(|pair| pair.id.member == member);
        own.any(|pair| pair.is_lacked_by(replica ^ 1))
    }

    pub(super) fn absorb(&mut self, metadata: &mut Metadata, good: bool) -> Result<(), Failure> {
        let Some(write) = &mut self.write else {
            let pair = self.pair()?;
            if !good {
                let [_, second] = pair.order();
                pair.bad = Some(second);
                pair.suspect = pair.suspect.or(Some(second));
            }
            return Ok(());
        };
        let (replica, count) = (write.replica(), write.count());
        match write.absorb(metadata, good)? {
            Progress::More => (),
            Progress::Written => {
                self.write = None;
                self.written_pairs(count)
                    .for_each(|pair| pair.set_stage(replica, Stage::New));
            }
            Progress::Apart => {
                self.write = None;
                self.written_pairs(count)
                    .for_each(|pair| pair.turn = Turn::Alone);
            }
            Progress::OtherBad(bad) => {
                self.found_bad = Some(bad);
                return Err(Failure::NoPlace);
            }
        }
        Ok(())
    }

    pub(super) fn go_without(
        &mut self,
        metadata: &mut Metadata,
        member: u8,
    ) -> Result<(), Failure> {
        let needed = (0..MEMBERS_MAX).any(|table| {
            let there = metadata.replicas_on(member, table);
            let mut there = (0..REPLICAS).filter(|replica| there & (1 << replica) != 0);
            there.any(|replica| self.needs(replica, table))
        });
        if needed {
            return Err(Failure::Device);
        }
        self.write = None;
        metadata.lose_member(member)
    }

    /// Remembers the blocks that are not the same in both replicas now.
    pub(super) fn failed(&mut self, metadata: &mut Metadata) {
        metadata.unsettled.clear();
        for pair in self.pairs.iter().flatten() {
            // With one replica left, what is on the spare was not touched.
            if !metadata.has_both(pair.id.member) {
                continue;
            }
            let [first, second] = pair.order();
            let suspect = match (pair.stage(first), pair.stage(second)) {
                // It was suspect before.
                (Stage::Old, _) => self.settling.then_some(first),
                (Stage::Issued, _) => Some(first),
                (Stage::New, Stage::New) => None,
                (Stage::New, _) => Some(second),
            };
            if let Some(suspect) = suspect {
                let block = pair.id;
                metadata.unsettled.add(Unsettled { block, suspect });
            }
        }
        if let Some(bad) = self.found_bad {
            metadata.unsettled.add(bad);
        }
    }

    pub(super) fn is_issued(&self) -> bool {
        self.issued
    }
}
