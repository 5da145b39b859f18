// SPDX-License-Identifier: GPL-2.0

//! All schedules of a writer and its readers: the remap table and the presence bitmap under loom.
//!
//! loom runs each of these small histories in every order of their steps, up to a number of
//! interruptions, and lets every load return everything that C11 allows it to. The table and the bitmap
//! are the real ones, over loom's atomics. What surrounds them in the kernel is modelled here:
//! - the order of steps of `publish` in src/remap/meta/writer/mod.rs: content, presence bit, slot word, bucket,
//!   acknowledgement;
//! - resizing as in src/remap/meta/writer/growth.rs: fill fresh arrays, exchange the pointer, wait for
//!   readers, free the old ones;
//! - readers as `map` and `end_io` are: registered from the look-up until the slot's content was
//!   read. RCU and SRCU are a flag for each reader, which the writer looks at;
//! - the dependency between the pointer and what it points to, which loom does not know, is an acquiring
//!   load.
//!
//! Each rule of the protocol can be broken ([`Rules`]), and loom has to find out about each.
#![expect(
    clippy::arc_with_non_send_sync,
    reason = "loom runs its threads one at a time"
)]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;
use std::sync::Arc;

use dm_remap_logic::presence::Presence;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::table::Counts;
use dm_remap_logic::table::View;
use dm_remap_logic::word::Word;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

/// Slots that there can be. The last one is special, as its bucket looks like a tombstone.
const SLOTS: usize = 4;
const LAST: u32 = SLOTS as u32 - 1;

/// How often a thread is interrupted at the most where it could go on.
const INTERRUPTIONS: usize = 2;

/// What the protocol demands.
#[derive(Clone, Copy)]
struct Rules {
    /// Whether a store to a word releases what was stored before.
    release: bool,
    /// Whether a slot's word names the block before a bucket leads there.
    word_first: bool,
    /// Whether the presence bit is set before the acknowledgement.
    bit_first: bool,
    /// Whether fresh buckets are filled before they are published.
    filled_first: bool,
    /// Whether readers are waited for before arrays are freed.
    waits_to_free: bool,
    /// Whether readers are waited for before a slot gets another block.
    waits_to_reuse: bool,
}

const RULES: Rules = Rules {
    release: true,
    word_first: true,
    bit_first: true,
    filled_first: true,
    waits_to_free: true,
    waits_to_reuse: true,
};

/// Memory that can be freed: who looks at it then, or in no order with that, is found out.
struct Memory {
    freed: AtomicBool,
    accesses: UnsafeCell<()>,
}

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Memory {
            freed: AtomicBool::new(false),
            accesses: UnsafeCell::new(()),
        })
    }

    fn look(&self) {
        assert!(!self.freed.load(Relaxed), "freed memory is read");
        self.accesses.with(|_| ());
    }

    fn free(&self) {
        self.accesses.with_mut(|_| ());
        self.freed.store(true, Relaxed);
    }
}

struct Cell32 {
    word: AtomicU32,
    memory: Arc<Memory>,
    release: bool,
}

struct Cell64 {
    word: AtomicU64,
    memory: Arc<Memory>,
    release: bool,
}

impl Word<u32> for Cell32 {
    fn load(&self) -> u32 {
        let value = self.word.load(Acquire);
        self.memory.look();
        value
    }

    fn store(&self, value: u32) {
        let order = if self.release { Release } else { Relaxed };
        self.word.store(value, order);
    }
}

impl Word<u64> for Cell64 {
    fn load(&self) -> u64 {
        let value = self.word.load(Acquire);
        self.memory.look();
        value
    }

    fn store(&self, value: u64) {
        let order = if self.release { Release } else { Relaxed };
        self.word.store(value, order);
    }
}

/// One generation of the arrays.
struct Map {
    memory: Arc<Memory>,
    buckets: Vec<Cell32>,
    slots: Vec<Cell64>,
}

type Table<'a> = View<'a, Cell32, Cell64, LAST>;

impl Map {
    fn new(buckets: usize, rules: Rules) -> Self {
        let memory = Memory::new();
        let bucket = |_| Cell32 {
            word: AtomicU32::new(0),
            memory: memory.clone(),
            release: rules.release,
        };
        let slot = |_| cell64(&memory, rules);
        Map {
            buckets: (0..buckets).map(bucket).collect(),
            slots: (0..SLOTS).map(slot).collect(),
            memory,
        }
    }

    fn table(&self) -> Table<'_> {
        View::with_last(&self.buckets, &self.slots)
    }
}

fn cell64(memory: &Arc<Memory>, rules: Rules) -> Cell64 {
    Cell64 {
        word: AtomicU64::new(0),
        memory: memory.clone(),
        release: rules.release,
    }
}

/// Content: which block it is of, and which of the writes to that block.
fn content(block: usize, version: u64) -> u64 {
    block as u64 * 100 + version
}

/// What readers and the writer share. Blocks are called by their index in `names`.
struct World {
    rules: Rules,
    names: Vec<u64>,
    /// All maps that there will be, one after the other.
    maps: Vec<Map>,
    current: AtomicUsize,
    presence: Vec<Cell64>,
    /// Whether a reader is registered.
    registered: Vec<AtomicUsize>,
    /// What main and the slots hold.
    main: Vec<AtomicU64>,
    slots: Vec<AtomicU64>,
    /// The latest version of each block whose write was acknowledged.
    acknowledged: Vec<AtomicU64>,
}

impl World {
    /// `blocks` blocks, which belong into the same bucket of four; maps with these numbers of buckets.
    fn new(rules: Rules, blocks: usize, maps: &[usize], readers: usize) -> Self {
        let memory = Memory::new();
        let contents = |count: usize, block: fn(usize) -> u64| -> Vec<AtomicU64> {
            (0..count).map(|at| AtomicU64::new(block(at))).collect()
        };
        World {
            rules,
            names: neighbours(blocks),
            maps: maps.iter().map(|count| Map::new(*count, rules)).collect(),
            current: AtomicUsize::new(0),
            presence: vec![cell64(&memory, rules)],
            registered: (0..readers).map(|_| AtomicUsize::new(0)).collect(),
            main: contents(blocks, |block| content(block, 0)),
            slots: contents(SLOTS, |_| content(99, 0)),
            acknowledged: contents(blocks, |_| 0),
        }
    }

    /// Reads a block, as a user does.
    fn read(&self, reader: usize, block: usize) {
        let least = self.acknowledged[block].load(Acquire);
        let name = self.names[block];
        let registered = &self.registered[reader];
        let read = if Presence::new(&self.presence).any(name * 8) {
            registered.fetch_add(1, AcqRel);
            let map = &self.maps[self.current.load(Acquire)];
            let found = map.table().lookup(name);
            let read = match found {
                Some((slot, word)) => {
                    assert!(word.claims(name));
                    self.slots[slot as usize].load(Relaxed)
                }
                None => self.main[block].load(Relaxed),
            };
            registered.fetch_sub(1, AcqRel);
            read
        } else {
            self.main[block].load(Relaxed)
        };
        let (of, version) = (read / 100, read % 100);
        assert!(of == block as u64, "read block {of} for {block}");
        assert!(version >= least, "read version {version}, not {least}");
    }
}

/// The writer, of whom there is one.
struct Writer<'a> {
    world: &'a World,
    counts: Counts,
    at: usize,
}

impl<'a> Writer<'a> {
    fn new(world: &'a World) -> Self {
        Writer {
            world,
            counts: Counts::default(),
            at: 0,
        }
    }

    fn table(&self) -> Table<'a> {
        self.world.maps[self.at].table()
    }

    fn word(&self, block: usize) -> SlotWord {
        SlotWord::new(self.world.names[block], SlotState::Valid, Origin::Auto).unwrap()
    }

    fn set_presence(&self, block: usize) {
        Presence::new(&self.world.presence).set(self.world.names[block] * 8, 8);
    }

    /// Writes a block to a slot, where it is served from then on.
    fn write(&mut self, block: usize, version: u64, slot: u32, old: Option<u32>) {
        let (world, table) = (self.world, self.table());
        let (rules, name, word) = (world.rules, world.names[block], self.word(block));
        world.slots[slot as usize].store(content(block, version), Relaxed);
        if rules.bit_first {
            self.set_presence(block);
        }
        if rules.word_first {
            table.set_slot(slot, word);
        }
        match old {
            Some(old) => assert!(table.replace(name, old, slot)),
            None => table.insert(&mut self.counts, name, slot).unwrap(),
        }
        if !rules.word_first {
            table.set_slot(slot, word);
        }
        world.acknowledged[block].store(version, Release);
        if !rules.bit_first {
            self.set_presence(block);
        }
    }

    /// Moves a block back to main.
    fn remove(&mut self, block: usize, slot: u32) {
        let (world, table) = (self.world, self.table());
        let moved = world.slots[slot as usize].load(Relaxed);
        world.main[block].store(moved, Relaxed);
        assert!(table.remove(&mut self.counts, world.names[block], slot));
        table.set_slot(slot, SlotWord::FREE_HELD);
    }

    /// Takes a slot that was replaced out of use, and lets it take another block.
    fn retire(&self, slot: u32) {
        self.table().set_slot(slot, SlotWord::FREE_HELD);
        self.give_back(slot);
    }

    /// Lets a slot take another block.
    fn give_back(&self, slot: u32) {
        if self.world.rules.waits_to_reuse {
            self.wait();
        }
        self.table().set_slot(slot, SlotWord::FREE);
    }

    /// Replaces the map by the next one.
    fn resize(&mut self) {
        let world = self.world;
        let (old, new) = (&world.maps[self.at], &world.maps[self.at + 1]);
        self.at += 1;
        if !world.rules.filled_first {
            world.current.swap(self.at, AcqRel);
        }
        for (place, cell) in new.slots.iter().zip(&old.slots) {
            place.store(cell.load());
        }
        self.counts = old.table().rebuild(&new.buckets).unwrap();
        if world.rules.filled_first {
            world.current.swap(self.at, AcqRel);
        }
        if world.rules.waits_to_free {
            self.wait();
        }
        old.memory.free();
    }

    /// Waits until each reader was seen outside.
    fn wait(&self) {
        for reader in &self.world.registered {
            while reader.fetch_add(0, AcqRel) != 0 {
                thread::yield_now();
            }
        }
    }
}

/// Blocks that belong into the same bucket of four, and into different ones of eight.
fn neighbours(count: usize) -> Vec<u64> {
    let home = |block: u64, buckets: usize| {
        let cell = |_| std::sync::atomic::AtomicU32::new(0);
        let buckets: Vec<_> = (0..buckets).map(cell).collect();
        let slots: [std::sync::atomic::AtomicU64; 0] = [];
        let table = View::new(&buckets, &slots);
        table.insert(&mut Counts::default(), block, 0).unwrap();
        let place = buckets.iter().position(|bucket| bucket.load(Relaxed) != 0);
        place.unwrap()
    };
    let alike = (1..).filter(|block| home(*block, 4) == home(1, 4));
    let mut found: Vec<u64> = Vec::new();
    for block in alike {
        if found.len() == count {
            break;
        }
        let differs = found
            .last()
            .is_none_or(|last| home(*last, 8) != home(block, 8));
        if differs {
            found.push(block);
        }
    }
    found
}

/// A history: what there is at first, what the writer then does, and what each reader reads.
struct History {
    blocks: usize,
    maps: &'static [usize],
    first: fn(&mut Writer<'_>),
    then: fn(&mut Writer<'_>),
    readers: &'static [&'static [usize]],
}

impl History {
    /// Runs it in all ways.
    fn explore(&'static self, rules: Rules) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(INTERRUPTIONS);
        let ways = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = ways.clone();
        builder.check(move || {
            count.fetch_add(1, Relaxed);
            let world = World::new(rules, self.blocks, self.maps, self.readers.len());
            let world = Arc::new(world);
            let mut writer = Writer::new(&world);
            (self.first)(&mut writer);
            let readers: Vec<_> = (0..self.readers.len())
                .map(|reader| {
                    let world = world.clone();
                    thread::spawn(move || {
                        for block in self.readers[reader] {
                            world.read(reader, *block);
                        }
                    })
                })
                .collect();
            (self.then)(&mut writer);
            for reader in readers {
                reader.join().unwrap();
            }
        });
        println!("{} ways", ways.load(Relaxed));
    }
}

/// A block that appears is there for all who see its acknowledgement, bit and bucket.
static APPEARING: History = History {
    blocks: 2,
    maps: &[4],
    first: |_| (),
    then: |writer| {
        writer.write(0, 1, 0, None);
        writer.write(1, 1, 1, None);
    },
    readers: &[&[1, 0], &[0, 1]],
};

/// A block changes its slot, and the old one gets another block.
static REPLACING: History = History {
    blocks: 2,
    maps: &[4],
    first: |writer| writer.write(0, 1, 0, None),
    then: |writer| {
        writer.write(0, 2, 1, Some(0));
        writer.retire(0);
        writer.write(1, 1, 0, None);
    },
    readers: &[&[0, 1], &[0]],
};

/// One of three blocks that belong into one bucket goes, from the middle and then from the end, and another
/// one takes its bucket and its slot.
static REMOVING: History = History {
    blocks: 4,
    maps: &[4],
    first: |writer| {
        for block in 0..3 {
            writer.write(block, 1, block as u32, None);
        }
    },
    then: |writer| {
        writer.remove(1, 1);
        writer.give_back(1);
        writer.write(3, 1, 1, None);
        writer.remove(2, 2);
        writer.remove(3, 1);
    },
    readers: &[&[2, 0], &[3]],
};

/// The last slot is in use, and tombstones look like its bucket.
static LAST_SLOT: History = History {
    blocks: 3,
    maps: &[4, 4],
    first: |writer| {
        writer.write(0, 1, 0, None);
        writer.write(1, 1, LAST, None);
    },
    then: |writer| {
        writer.remove(0, 0);
        writer.write(1, 2, 1, Some(LAST));
        writer.retire(LAST);
        writer.write(2, 1, LAST, None);
        writer.resize();
    },
    readers: &[&[1, 2]],
};

/// The table grows, gets one more, loses one and shrinks again.
static RESIZING: History = History {
    blocks: 3,
    maps: &[4, 8, 4],
    first: |writer| {
        writer.write(0, 1, 0, None);
        writer.write(1, 1, 1, None);
    },
    then: |writer| {
        writer.resize();
        writer.write(2, 1, 2, None);
        writer.remove(0, 0);
        writer.resize();
    },
    readers: &[&[1, 2], &[0]],
};

#[test]
fn appearing() {
    APPEARING.explore(RULES);
}

#[test]
fn replacing() {
    REPLACING.explore(RULES);
}

#[test]
fn removing() {
    REMOVING.explore(RULES);
}

#[test]
fn the_last_slot() {
    LAST_SLOT.explore(RULES);
}

#[test]
fn resizing() {
    RESIZING.explore(RULES);
}

#[test]
#[should_panic(expected = "read")]
fn stores_that_do_not_release_are_seen() {
    REPLACING.explore(Rules {
        release: false,
        ..RULES
    });
}

#[test]
#[should_panic(expected = "read version")]
fn a_bucket_before_the_slot_is_seen() {
    REPLACING.explore(Rules {
        word_first: false,
        ..RULES
    });
}

#[test]
#[should_panic(expected = "read version")]
fn a_bit_after_the_acknowledgement_is_seen() {
    APPEARING.explore(Rules {
        bit_first: false,
        ..RULES
    });
}

#[test]
#[should_panic(expected = "read version")]
fn buckets_that_are_filled_too_late_are_seen() {
    RESIZING.explore(Rules {
        filled_first: false,
        ..RULES
    });
}

#[test]
#[should_panic(expected = "freed memory")]
fn freeing_without_waiting_is_seen() {
    RESIZING.explore(Rules {
        waits_to_free: false,
        ..RULES
    });
}

#[test]
#[should_panic(expected = "read block")]
fn reuse_without_waiting_is_seen() {
    REPLACING.explore(Rules {
        waits_to_reuse: false,
        ..RULES
    });
}
