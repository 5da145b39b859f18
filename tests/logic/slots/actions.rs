// SPDX-License-Identifier: GPL-2.0

//! What can happen to blocks and slots.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use dm_remap_logic::commit::Outcome;
use dm_remap_logic::pool::Kind;
use dm_remap_logic::pool::SlotRun;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::table::needs_rebuild;

use super::super::crash::Crashed;
use super::Change;
use super::Publish;
use super::Served;
use super::World;
use super::BLOCKS;

enum Taken {
    Run(SlotRun),
    Full,
    Failed,
}

impl World {
    /// Finds slots; in need those that are set aside for blocks outside of `range`.
    fn take(&mut self, want: u32, range: std::ops::Range<u64>) -> Result<Taken, Crashed> {
        let mut failed = false;
        if self.pools.available(1) < want {
            failed = !self.extend()? && self.spare.entries.len() < self.words.len();
        }
        if let Some(run) = self.with(|slots, pools| slots.take(pools, 1, want)) {
            return Ok(Taken::Run(run));
        }
        if failed {
            return Ok(Taken::Failed);
        }
        let free =
            |cell: &&AtomicU64| SlotWord::from_memory(cell.load(Ordering::Relaxed)).is_available();
        assert_eq!(self.words.iter().filter(free).count(), 0, "{:#?}", self.log);
        let slots = self.slots();
        let mut pending = slots.of_members(Kind::Pending, 1, 0);
        let found = pending.find(|(_, word)| !range.contains(&word.main_block()));
        drop(pending);
        let Some((slot, word)) = found else {
            let stealable = |(block, (served, _)): (&u64, &(Served, u64))| {
                served.pending && !range.contains(block) && !self.doubt.contains_key(block)
            };
            assert!(!self.known.iter().any(stealable), "{:#?}", self.log);
            self.tally.full += 1;
            return Ok(Taken::Full);
        };
        let block = word.main_block();
        let served = Served {
            slot,
            pending: true,
        };
        assert_eq!(
            self.known.get(&block).map(|(served, _)| *served),
            Some(served)
        );
        let done = self.commit(&[Change {
            slot,
            block: Some(block),
            word: SlotWord::FREE,
            publish: Publish::Remove,
            content: 0,
        }])?;
        if !done {
            return Ok(Taken::Failed);
        }
        self.tally.stolen += 1;
        Ok(Taken::Run(SlotRun {
            first: slot,
            count: 1,
        }))
    }

    /// Puts data on a slot that must not be anybody else's.
    fn fill(&mut self, slot: u32, block: u64, content: u64) -> bool {
        assert!(!self.written_off.contains(&slot), "{:#?}", self.log);
        assert!(!self.draining.contains(&slot), "{:#?}", self.log);
        assert!(!self.older.contains(&slot), "{:#?}", self.log);
        for (other, (served, _)) in &self.known {
            assert!(served.slot != slot || other == &block, "{:#?}", self.log);
        }
        for (other, doubt) in &self.doubt {
            let here = |served: &Option<Served>| served.is_some_and(|served| served.slot == slot);
            let theirs = doubt.served.iter().any(here);
            assert!(!theirs || other == &block, "{:#?}", self.log);
        }
        if self.sick.contains(&slot) {
            return false;
        }
        self.data[slot as usize] = content;
        true
    }

    /// A write that main cannot take.
    fn write(&mut self, first: u64, count: u64) -> Result<(), Crashed> {
        let range = first..first + count;
        self.clock += 1;
        let content = self.clock;
        self.note(format!("write {range:?} = {content}"));
        let mut moves: Vec<(u64, bool)> = Vec::new();
        for block in range.clone() {
            if self.doubt.contains_key(&block) {
                continue;
            }
            let slot = match self.known.get(&block) {
                Some((served, _)) if !served.pending => Some(served.slot),
                _ => None,
            };
            if slot.is_some_and(|slot| self.fill(slot, block, content)) {
                self.known.get_mut(&block).expect("there").1 = content;
            } else {
                moves.push((block, false));
            }
        }
        let (mut placed, mut failed) = (Vec::new(), Vec::new());
        let mut next = 0;
        while let Some((block, own_failed)) = moves.get(next).copied() {
            let own = self.known.get(&block).map(|(served, _)| *served);
            let own = own.filter(|own| own.pending && !own_failed);
            let run = match own {
                Some(own) => SlotRun {
                    first: own.slot,
                    count: 1,
                },
                None => {
                    let rest = moves[next..].iter().zip(block..);
                    let want = rest
                        .take_while(|((next, _), expected)| next == expected)
                        .count();
                    let want = if own_failed { 1 } else { want as u32 };
                    match self.take(want, range.clone())? {
                        Taken::Run(run) => run,
                        Taken::Full | Taken::Failed => break,
                    }
                }
            };
            for slot in run.first..run.first + run.count {
                let (block, _) = moves[next];
                next += 1;
                if self.fill(slot, block, content) {
                    placed.push((block, slot));
                } else {
                    moves.push((block, own.is_some()));
                    if own.is_none() {
                        failed.push(slot);
                    }
                }
            }
        }
        self.finish(&placed, failed, content)
    }

    /// Shows what was placed, and writes off what failed or was replaced.
    fn finish(
        &mut self,
        placed: &[(u64, u32)],
        mut failed: Vec<u32>,
        content: u64,
    ) -> Result<(), Crashed> {
        let mut replaced = Vec::new();
        let mut changes = Vec::new();
        for (block, slot) in placed {
            let publish = match self.known.get(block) {
                Some((old, _)) if old.slot == *slot => Publish::Keep,
                Some((old, _)) => {
                    replaced.push(old.slot);
                    Publish::Replace(old.slot)
                }
                None => Publish::Insert,
            };
            changes.push(Change {
                slot: *slot,
                block: Some(*block),
                word: SlotWord::new(*block, SlotState::Valid, Origin::Auto).expect("small"),
                publish,
                content,
            });
        }
        self.make_room(changes.len() as u32);
        if changes.is_empty() || !self.commit(&changes)? {
            // Found out again.
            for slot in failed {
                self.give_back(slot);
            }
            return Ok(());
        }
        failed.extend(&replaced);
        self.older.extend(&replaced);
        self.write_off(&failed)
    }

    fn write_off(&mut self, slots: &[u32]) -> Result<(), Crashed> {
        if slots.is_empty() {
            return Ok(());
        }
        let change = |slot: &u32| Change {
            slot: *slot,
            block: None,
            word: SlotWord::BAD,
            publish: Publish::Keep,
            content: 0,
        };
        let changes: Vec<Change> = slots.iter().map(change).collect();
        if self.commit(&changes)? {
            self.older.retain(|slot| !slots.contains(slot));
        }
        Ok(())
    }

    fn make_room(&mut self, more: u32) {
        if needs_rebuild(&self.counts, self.buckets.len(), more) {
            let fresh: Vec<_> = self.buckets.iter().map(|_| AtomicU32::new(0)).collect();
            self.counts = self.table().rebuild(&fresh).expect("room");
            self.buckets = fresh;
        }
    }

    /// A block that main cannot read gets a slot set aside, if there is one to spare.
    fn lose(&mut self, block: u64) -> Result<(), Crashed> {
        if self.known.contains_key(&block) || self.doubt.contains_key(&block) {
            return Ok(());
        }
        let Some(run) = self.with(|slots, pools| slots.take(pools, 1, 1)) else {
            return self.extend().map(|_| ());
        };
        self.make_room(1);
        let word = SlotWord::new(block, SlotState::Pending, Origin::Auto).expect("small");
        let change = Change {
            slot: run.first,
            block: Some(block),
            word,
            publish: Publish::Insert,
            content: 0,
        };
        self.commit(&[change]).map(|_| ())
    }

    /// A block goes back to main.
    fn remove(&mut self) -> Result<(), Crashed> {
        let certain = |(block, _): &(&u64, _)| !self.doubt.contains_key(*block);
        let blocks: Vec<_> = self.known.iter().filter(certain).collect();
        let which = self.random.below(blocks.len().max(1) as u64) as usize;
        let Some((block, (served, _))) = blocks.get(which).copied() else {
            return Ok(());
        };
        let change = Change {
            slot: served.slot,
            block: Some(*block),
            word: SlotWord::FREE,
            publish: Publish::Remove,
            content: 0,
        };
        let slot = served.slot;
        if self.commit(&[change])? {
            self.draining.push(slot);
        }
        Ok(())
    }

    /// Tries again what failed half way.
    fn settle(&mut self) -> Result<bool, Crashed> {
        let in_doubt = |slot: &u32| self.word(*slot).is_doubt();
        let slots: Vec<u32> = (0..self.spare.entries.len() as u32)
            .filter(in_doubt)
            .collect();
        if !slots.is_empty() || self.spare.metadata.is_unsettled() {
            let blocks = self.spare.blocks_of(&slots);
            let outcome = self.spare.commit(&mut self.disk, &blocks);
            self.note(format!("settle {slots:?}: {outcome:?}"));
            match outcome {
                Err(_) => return Err(Crashed),
                Ok(Outcome::Failed { .. }) => return Ok(false),
                Ok(Outcome::Committed) => (),
            }
            self.clear_doubt(&blocks);
        }
        let older = self.older.clone();
        self.write_off(&older)?;
        Ok(self.older.is_empty() && self.doubt.is_empty())
    }

    pub(super) fn step(&mut self) -> Result<(), Crashed> {
        // What is not settled keeps others from nothing but taking blocks back.
        let settled = self.random.below(3) != 0 && self.settle()?;
        match self.random.below(16) {
            0..=5 => {
                let first = self.random.below(BLOCKS - 60);
                let count = 1 + self.random.below(60);
                self.write(first, count)
            }
            6..=9 => {
                let block = self.random.below(BLOCKS);
                self.lose(block)
            }
            10..=12 if settled => self.remove(),
            13 => {
                let slot = self.random.below(self.words.len() as u64) as u32;
                self.note(format!("slot {slot} goes bad"));
                self.sick.insert(slot);
                Ok(())
            }
            _ => {
                for slot in std::mem::take(&mut self.draining) {
                    self.note(format!("slot {slot} is free"));
                    self.give_back(slot);
                }
                Ok(())
            }
        }
    }
}
