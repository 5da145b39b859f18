// SPDX-License-Identifier: GPL-2.0

//! The life of slots: taken, filled, failing, set aside, taken away, freed, used again (P4, P7, M5, M6, M7).
//!
//! Histories over a small spare that fills up, has slots that go bad, goes away in the middle of a
//! commit, and crashes. What the module does with a failed write is done here with the same parts:
//! allocator, table, commit protocol. Beside it a plain map knows what serves each block and what it
//! must hold.
//!
//! A history that fails names its seed: DM_REMAP_SEED=n runs that one again, DM_REMAP_HISTORIES=n
//! runs more of them.

mod actions;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use dm_remap_logic::commit::Outcome;
use dm_remap_logic::extents::Extents;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::pool::chunks_for;
use dm_remap_logic::pool::Kind;
use dm_remap_logic::pool::Pools;
use dm_remap_logic::pool::Slots;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::table::buckets_for;
use dm_remap_logic::table::Counts;
use dm_remap_logic::table::View;

use super::crash::each_history;
use super::crash::Crashed;
use super::disk::Disks;
use super::disk::Trouble;
use super::random::Random;
use super::spare;
use super::spare::Spare;
use super::spare::Stop;

/// A slot that is not initialised.
const UNKNOWN: SlotWord = SlotWord::FREE_HELD;

/// More blocks than slots.
const BLOCKS: u64 = 1200;

/// What serves a block, or will serve its next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Served {
    slot: u32,
    pending: bool,
}

/// What may be found for a block after a crash.
#[derive(Clone, Debug, Default)]
struct Doubt {
    served: Vec<Option<Served>>,
    contents: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Publish {
    Insert,
    Replace(u32),
    Keep,
    Remove,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    slot: u32,
    /// The block that this is about; none for a slot that is written off.
    block: Option<u64>,
    word: SlotWord,
    publish: Publish,
    /// What the block holds then.
    content: u64,
}

/// How often the interesting things happened.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    full: u32,
    stolen: u32,
    written_off: u32,
    in_doubt: u32,
}

struct World {
    disk: Disks,
    spare: Spare,
    words: Vec<AtomicU64>,
    chunks: Vec<AtomicU64>,
    extents: Extents,
    buckets: Vec<AtomicU32>,
    counts: Counts,
    pools: Pools,
    random: Random,
    /// What each slot holds.
    data: Vec<u64>,
    /// Slots that cannot be written.
    sick: BTreeSet<u32>,
    /// Slots that were written off durably.
    written_off: BTreeSet<u32>,
    /// What serves each block, and what it must hold.
    known: BTreeMap<u64, (Served, u64)>,
    doubt: BTreeMap<u64, Doubt>,
    /// Freed, but some bio may be on its way to them.
    draining: Vec<u32>,
    /// Replaced, but not yet written off.
    older: Vec<u32>,
    clock: u64,
    tally: Tally,
    log: Vec<String>,
}
impl World {
    fn new(seed: u64) -> Self {
        let mut disk = Disks::new(1280 + 8 * (seed % 8), seed);
        spare::format(&mut disk, 1).expect("a good disk");
        let spare = Spare::load(&mut disk).expect("just formatted");
        let member = spare.metadata.superblock().member(0).expect("the first");
        let mut extents = Extents::new(0);
        assert!(extents.grow(0, member, member.slots));
        let slots = member.slots as usize;
        assert!((BLOCKS / 3..BLOCKS).contains(&(slots as u64)), "{slots}");
        let mut world = World {
            disk,
            spare,
            words: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            chunks: (0..chunks_for(slots)).map(|_| AtomicU64::new(0)).collect(),
            extents,
            buckets: Vec::new(),
            counts: Counts::default(),
            pools: Pools::default(),
            random: Random::new(!seed),
            data: vec![0; slots],
            sick: BTreeSet::new(),
            written_off: BTreeSet::new(),
            known: BTreeMap::new(),
            doubt: BTreeMap::new(),
            draining: Vec::new(),
            older: Vec::new(),
            clock: 0,
            tally: Tally::default(),
            log: Vec::new(),
        };
        world.index();
        world
    }

    /// Fills memory from what was loaded.
    fn index(&mut self) {
        for word in &self.words {
            // What is not initialised is not given out.
            word.store(UNKNOWN.to_memory(), Ordering::Relaxed);
        }
        for (cell, entry) in self.words.iter().zip(&self.spare.entries) {
            cell.store(entry.word.to_memory(), Ordering::Relaxed);
        }
        let buckets = buckets_for(self.words.len() as u32).expect("small");
        self.buckets = (0..buckets).map(|_| AtomicU32::new(0)).collect();
        self.counts = Counts::default();
        let table = View::new(&self.buckets, &self.words);
        for (block, slot) in &self.spare.map {
            let inserted = table.insert(&mut self.counts, *block, *slot);
            inserted.expect("one slot a block");
        }
        self.slots().count();
        self.pools = Pools::new(&self.slots());
    }

    fn slots(&self) -> Slots<'_, AtomicU64, AtomicU64> {
        Slots::new(&self.words, &self.chunks, &self.extents)
    }

    /// Does something with slots and pools.
    fn with<R>(
        &mut self,
        what: impl FnOnce(&Slots<'_, AtomicU64, AtomicU64>, &mut Pools) -> R,
    ) -> R {
        let slots = Slots::new(&self.words, &self.chunks, &self.extents);
        what(&slots, &mut self.pools)
    }

    fn set(&mut self, slot: u32, word: SlotWord) {
        self.with(|slots, pools| slots.set(pools, slot, word));
    }

    fn usable(&self) -> &[AtomicU64] {
        &self.words[..self.spare.entries.len()]
    }

    fn table(&self) -> View<'_, AtomicU32, AtomicU64> {
        View::new(&self.buckets, &self.words)
    }

    fn word(&self, slot: u32) -> SlotWord {
        self.table().slot(slot).expect("in range")
    }

    fn note(&mut self, text: impl Into<String>) {
        self.log.push(text.into());
    }

    /// Commits changes, and shows them as far as that went.
    fn commit(&mut self, changes: &[Change]) -> Result<bool, Crashed> {
        let slots: Vec<u32> = changes.iter().map(|change| change.slot).collect();
        let before: Vec<Entry> = slots
            .iter()
            .map(|slot| self.spare.entries[*slot as usize])
            .collect();
        for change in changes {
            self.spare.entries[change.slot as usize] = Entry {
                word: change.word,
                generation: self
                    .spare
                    .metadata
                    .next_generation()
                    .expect("not at its end"),
            };
        }
        let blocks = self.spare.blocks_of(&slots);
        let outcome = self.spare.commit(&mut self.disk, &blocks);
        self.note(format!("commit {changes:?}: {outcome:?}"));
        match outcome {
            Ok(Outcome::Committed) => {
                for change in changes {
                    self.publish(change, false);
                }
                self.clear_doubt(&blocks);
                Ok(true)
            }
            Ok(Outcome::Failed { issued: false, .. }) => {
                for (change, entry) in changes.iter().zip(before) {
                    self.spare.entries[change.slot as usize] = entry;
                    self.give_back(change.slot);
                }
                Ok(false)
            }
            other => {
                self.tally.in_doubt += 1;
                for (change, entry) in changes.iter().zip(before) {
                    self.publish(change, true);
                    if let Publish::Remove = change.publish {
                        // Rolled back, with the new generation.
                        self.spare.entries[change.slot as usize].word = entry.word;
                    }
                }
                match other {
                    Err(Trouble::Crash) => Err(Crashed),
                    _ => Ok(false),
                }
            }
        }
    }

    fn publish(&mut self, change: &Change, doubt: bool) {
        let Change { slot, word, .. } = *change;
        let table = View::new(&self.buckets, &self.words);
        match (change.publish, change.block) {
            (Publish::Remove, _) if doubt => {
                self.set(slot, self.word(slot).with_doubt(true));
            }
            (Publish::Remove, Some(block)) => {
                assert!(table.remove(&mut self.counts, block, slot));
                self.set(slot, SlotWord::FREE_HELD);
            }
            (Publish::Replace(old), Some(block)) => {
                self.set(slot, word.with_doubt(doubt));
                let before = self.word(old);
                let table = View::new(&self.buckets, &self.words);
                assert!(table.replace(block, old, slot));
                let after = self.word(old);
                self.with(|slots, pools| slots.changed(pools, old, before, after));
            }
            (Publish::Insert, Some(block)) => {
                self.set(slot, word.with_doubt(doubt));
                let table = View::new(&self.buckets, &self.words);
                let inserted = table.insert(&mut self.counts, block, slot);
                inserted.expect("room, and no other slot");
            }
            _ => self.set(slot, word.with_doubt(doubt)),
        }
        let Some(block) = change.block else {
            if !doubt {
                self.written_off.insert(slot);
                self.tally.written_off += 1;
            }
            return;
        };
        let served = Served {
            slot,
            pending: word.state() == SlotState::Pending,
        };
        let after = word.is_claim().then_some((served, change.content));
        if doubt {
            let now = self.known.get(&block).copied();
            let entry = self.doubt.entry(block).or_default();
            for (served, content) in [now.unzip(), after.unzip()] {
                entry.served.push(served);
                entry.contents.extend(content);
            }
        } else {
            match after {
                Some(after) => self.known.insert(block, after),
                None => self.known.remove(&block),
            };
        }
    }

    fn give_back(&mut self, slot: u32) {
        self.with(|slots, pools| slots.give_back(pools, slot));
    }

    /// Initialises more of the slot table. False if that failed, or there is no more.
    fn extend(&mut self) -> Result<bool, Crashed> {
        let known = self.spare.entries.len();
        if known == self.words.len() {
            return Ok(false);
        }
        let outcome = self.spare.extend(&mut self.disk, 1);
        self.note(format!("extend: {outcome:?}"));
        let Ok(outcome) = outcome else {
            return Err(Crashed);
        };
        let more = self.spare.entries.len() - known;
        assert_eq!(more != 0, outcome == Outcome::Committed);
        let range = (known as u32, (known + more) as u32);
        let free = (Kind::Held, SlotWord::FREE);
        self.with(|slots, pools| slots.change_all(pools, 0, range, free));
        Ok(more != 0)
    }

    /// What is in these blocks of the slot table is durable now.
    fn clear_doubt(&mut self, blocks: &[BlockId]) {
        let superblock = self.spare.metadata.superblock();
        let member = *superblock.member(0).expect("the first");
        for slot in blocks.iter().flat_map(|block| {
            let (first, end) = member.block_slots(block.block);
            first..end
        }) {
            let word = self.word(slot);
            if !word.is_doubt() {
                continue;
            }
            self.set(slot, word.with_doubt(false));
            if word.state() == SlotState::Bad {
                self.written_off.insert(slot);
                self.older.retain(|older| *older != slot);
                continue;
            }
            // Rolled forward; but for a removal, which is rolled back.
            let block = word.main_block();
            let served = Served {
                slot,
                pending: word.state() == SlotState::Pending,
            };
            assert_eq!(self.table().lookup(block).map(|found| found.0), Some(slot));
            let doubt = self.doubt.remove(&block).expect("its word said so");
            assert!(doubt.served.contains(&Some(served)), "{:#?}", self.log);
            let now = (served, self.data[slot as usize]);
            if let Some((old, _)) = self.known.insert(block, now) {
                let old = Some(old.slot).filter(|old| *old != slot);
                self.older.extend(old);
            }
        }
    }

    /// Everything that can be known without a crash.
    fn check(&self) {
        let free =
            |cell: &&AtomicU64| SlotWord::from_memory(cell.load(Ordering::Relaxed)).is_available();
        let free = self.usable().iter().filter(free).count();
        assert_eq!(self.pools.available(1) as usize, free, "{:#?}", self.log);
        let counted = Pools::new(&self.slots());
        assert_eq!(self.pools.claims(0), counted.claims(0), "{:#?}", self.log);
        assert_eq!(self.pools.serving(0), counted.serving(0), "{:#?}", self.log);
        let slots = self.slots();
        (0..slots.chunks()).for_each(|chunk| slots.take_changed(chunk));
        let before: Vec<u64> = self
            .chunks
            .iter()
            .map(|c| c.load(Ordering::Relaxed))
            .collect();
        self.slots().count();
        let after: Vec<u64> = self
            .chunks
            .iter()
            .map(|c| c.load(Ordering::Relaxed))
            .collect();
        assert_eq!(before, after, "{:#?}", self.log);
        let mut used = 0;
        for block in 0..BLOCKS {
            let found = self.table().lookup(block);
            used += u32::from(found.is_some());
            if self.doubt.contains_key(&block) {
                assert!(
                    found.is_some_and(|(_, word)| word.is_doubt()),
                    "{:#?}",
                    self.log
                );
                continue;
            }
            let served = found.map(|(slot, word)| {
                assert!(!word.is_doubt(), "{:#?}", self.log);
                let pending = word.state() == SlotState::Pending;
                Served { slot, pending }
            });
            let known = self.known.get(&block).copied();
            assert_eq!(served, known.map(|(served, _)| served), "{:#?}", self.log);
            if let Some((
                Served {
                    slot,
                    pending: false,
                },
                content,
            )) = known
            {
                assert_eq!(self.data[slot as usize], content, "{:#?}", self.log);
            }
        }
        assert_eq!(self.counts.used, used);
        for slot in &self.written_off {
            assert_eq!(self.word(*slot).state(), SlotState::Bad, "{:#?}", self.log);
        }
    }

    fn reload(&mut self) {
        self.disk.crash();
        self.spare = loop {
            if self.random.once_in(4) {
                self.disk.crash_in = Some(self.random.below(12) as u32);
            }
            match Spare::load(&mut self.disk) {
                Ok(spare) => break spare,
                Err(Stop::Crash) => self.disk.crash(),
                Err(stop) => panic!("{stop:?} after {:#?}", self.log),
            }
        };
        self.disk.crash_in = None;
        self.note("load");
        self.draining.clear();
        self.older.clear();
        self.index();
        for (block, doubt) in std::mem::take(&mut self.doubt) {
            let found = self.table().lookup(block).map(|(slot, word)| Served {
                slot,
                pending: word.state() == SlotState::Pending,
            });
            assert!(
                doubt.served.contains(&found),
                "{block}: {found:?}, {doubt:?} {:#?}",
                self.log
            );
            self.known.remove(&block);
            if let Some(served) = found {
                let content = self.data[served.slot as usize];
                let right = served.pending || doubt.contents.contains(&content);
                assert!(right, "{block}: {content}, {doubt:?} {:#?}", self.log);
                self.known.insert(block, (served, content));
            }
        }
        self.check();
    }
}
fn history(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..150 {
        match world.random.below(12) {
            0 => world.disk.crash_in = Some(world.random.below(14) as u32),
            1..=2 => {
                let (from, more) = (world.random.below(8), world.random.below(8));
                world.disk.away_in = Some((from as u32, more as u32));
            }
            _ => (),
        }
        if world.step().is_err() || world.random.once_in(40) {
            world.reload();
        }
        world.disk.crash_in = None;
        world.disk.away_in = None;
        world.check();
    }
    world.reload();
    world.tally
}

#[test]
fn slots_from_first_to_last() {
    let mut all = Tally::default();
    each_history(300, |seed| {
        let tally = history(seed);
        all.full += tally.full;
        all.stolen += tally.stolen;
        all.written_off += tally.written_off;
        all.in_doubt += tally.in_doubt;
    });
    let least = all
        .full
        .min(all.stolen)
        .min(all.written_off)
        .min(all.in_doubt);
    assert!(
        least > 300 || std::env::var_os("DM_REMAP_SEED").is_some(),
        "{all:?}"
    );
}
