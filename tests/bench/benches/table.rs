// SPDX-License-Identifier: GPL-2.0
//! The remap table and the presence bitmap, beside maps that others take care of: hashbrown, which the
//! standard library's is, as the yardstick for speed, and papaya, whose readers take no locks either.
//!
//! Remapped blocks are spread evenly, one of 64. Look-ups take them at random, so that with many remaps
//! the processor's caches are of little help to anybody.
#![expect(missing_docs, reason = "of functions that criterion's macros make")]

use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use std::time::Instant;

use criterion::criterion_group;
use criterion::criterion_main;
use criterion::BatchSize;
use criterion::BenchmarkGroup;
use criterion::BenchmarkId;
use criterion::Criterion;
use dm_remap_bench::Table;
use dm_remap_logic::presence::words_for;
use dm_remap_logic::presence::Presence;
use dm_remap_logic::table::RunKind;
use hashbrown::DefaultHashBuilder;

type Hashbrown = hashbrown::HashMap<u64, u32>;
type Papaya = papaya::HashMap<u64, u32, DefaultHashBuilder>;
type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

const REMAPS: [u32; 4] = [0, 1_000, 1_000_000, 10_000_000];

/// Each of so many blocks is remapped, of 4 KiB.
const SPREAD: u64 = 64;

/// Blocks of a MiB.
const MIB: u32 = 256;

/// How many blocks are inserted at a time.
const INSERTS: u32 = 1_000;

fn blocks(remaps: u32) -> impl ExactSizeIterator<Item = u64> {
    (0..remaps).map(|slot| u64::from(slot) * SPREAD)
}

fn hashbrown(remaps: u32) -> Hashbrown {
    blocks(remaps).zip(0..).collect()
}

fn papaya(remaps: u32) -> Papaya {
    let map = Papaya::with_hasher(DefaultHashBuilder::default());
    let pinned = map.pin();
    for (block, slot) in blocks(remaps).zip(0..) {
        pinned.insert(block, slot);
    }
    drop(pinned);
    map
}

/// Blocks to look for, in no order: `offset` blocks behind remapped ones.
struct Wanted {
    blocks: Vec<u64>,
    at: usize,
}

impl Wanted {
    fn new(remaps: u32, offset: u64) -> Self {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 32) % u64::from(remaps.max(1))
        };
        let blocks = (0..1 << 16).map(|_| next() * SPREAD + offset);
        Self {
            blocks: blocks.collect(),
            at: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.at = (self.at + 1) % self.blocks.len();
        self.blocks[self.at]
    }
}

fn look_up(group: &mut Group<'_>, remaps: u32, offset: u64) {
    let table = Table::new(blocks(remaps));
    let mut wanted = Wanted::new(remaps, offset);
    group.bench_function(BenchmarkId::new("dm-remap", remaps), |b| {
        let view = table.view();
        b.iter(|| black_box(view.lookup(wanted.next())));
    });
    let map = hashbrown(remaps);
    group.bench_function(BenchmarkId::new("hashbrown", remaps), |b| {
        b.iter(|| black_box(map.get(&wanted.next())));
    });
    let map = papaya(remaps);
    group.bench_function(BenchmarkId::new("papaya", remaps), |b| {
        b.iter(|| black_box(map.pin().get(&wanted.next()).copied()));
    });
}

fn look_ups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit");
    for remaps in REMAPS.into_iter().filter(|remaps| *remaps != 0) {
        look_up(&mut group, remaps, 0);
    }
    group.finish();
    let mut group = criterion.benchmark_group("miss");
    for remaps in REMAPS {
        look_up(&mut group, remaps, 1);
    }
    group.finish();
}

/// A MiB of which nothing is remapped, block by block: for where the presence bit is set nevertheless.
fn ranges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("range");
    for remaps in REMAPS {
        let clean = u64::from(remaps) * SPREAD + 1;
        let mut wanted = Wanted::new(remaps, clean);
        let table = Table::new(blocks(remaps));
        group.bench_function(BenchmarkId::new("dm-remap", remaps), |b| {
            let view = table.view();
            b.iter(|| {
                let run = view.run(wanted.next(), MIB);
                assert!(run.kind == RunKind::Main && run.count == MIB);
            });
        });
        let map = hashbrown(remaps);
        group.bench_function(BenchmarkId::new("hashbrown", remaps), |b| {
            b.iter(|| {
                let first = wanted.next();
                let mut all = first..first + u64::from(MIB);
                assert!(all.all(|block| !map.contains_key(&block)));
            });
        });
        let map = papaya(remaps);
        group.bench_function(BenchmarkId::new("papaya", remaps), |b| {
            b.iter(|| {
                let first = wanted.next();
                let mut all = first..first + u64::from(MIB);
                let map = map.pin();
                assert!(all.all(|block| !map.contains_key(&block)));
            });
        });
    }
    group.finish();
}

/// The presence bitmap, on a main four times as large as the remapped part.
fn presence(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("presence");
    for remaps in REMAPS {
        let sectors = (u64::from(remaps) * SPREAD * 8 * 4).max(1 << 21);
        let words = words_for(sectors).expect("not too many");
        let words: Vec<_> = (0..words).map(|_| AtomicU64::new(0)).collect();
        let presence = Presence::new(&words);
        for block in blocks(remaps) {
            presence.set(block * 8, 8);
        }
        // Behind the remapped part, in the same cache lines as far as there are any.
        let mut wanted = Wanted::new(remaps, u64::from(remaps) * SPREAD + u64::from(MIB));
        group.bench_function(BenchmarkId::new("up to 1 MiB", remaps), |b| {
            b.iter(|| assert!(!presence.any(wanted.next() * 8)));
        });
    }
    group.finish();
}

/// Adds [`INSERTS`] blocks with `insert`, takes them back with `remove`, and counts the time of the first.
fn insert_time<T>(
    rounds: u64,
    map: &mut T,
    insert: impl Fn(&mut T, u64, u32),
    remove: impl Fn(&mut T, u64, u32),
    remaps: u32,
) -> Duration {
    let mut time = Duration::ZERO;
    let new = || (0..INSERTS).map(move |at| (u64::from(at) * SPREAD * 7 + 1, remaps + at));
    for _ in 0..rounds {
        let begun = Instant::now();
        for (block, slot) in new() {
            insert(map, block, slot);
        }
        time += begun.elapsed();
        for (block, slot) in new() {
            remove(map, block, slot);
        }
    }
    time / INSERTS
}

fn inserts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert");
    for remaps in REMAPS {
        let mut table = Table::new(blocks(remaps));
        group.bench_function(BenchmarkId::new("dm-remap", remaps), |b| {
            b.iter_custom(|rounds| {
                insert_time(rounds, &mut table, Table::insert, Table::remove, remaps)
            });
        });
        let mut map = hashbrown(remaps);
        map.reserve(INSERTS as usize);
        group.bench_function(BenchmarkId::new("hashbrown", remaps), |b| {
            let insert = |map: &mut Hashbrown, block, slot| {
                map.insert(block, slot);
            };
            let remove = |map: &mut Hashbrown, block, _| {
                map.remove(&block);
            };
            b.iter_custom(|rounds| insert_time(rounds, &mut map, insert, remove, remaps));
        });
        let mut map = papaya(remaps);
        group.bench_function(BenchmarkId::new("papaya", remaps), |b| {
            let insert = |map: &mut Papaya, block, slot| {
                map.pin().insert(block, slot);
            };
            let remove = |map: &mut Papaya, block, _| {
                map.pin().remove(&block);
            };
            b.iter_custom(|rounds| insert_time(rounds, &mut map, insert, remove, remaps));
        });
    }
    group.finish();
}

/// All remaps into a table with twice the room. papaya does that bit by bit, so there is nothing to compare.
fn growing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("grow");
    group.sample_size(10);
    for remaps in REMAPS {
        let table = Table::new(blocks(remaps));
        group.bench_function(BenchmarkId::new("dm-remap", remaps), |b| {
            b.iter_with_large_drop(|| table.rebuild());
        });
        let map = hashbrown(remaps);
        group.bench_function(BenchmarkId::new("hashbrown", remaps), |b| {
            let grow = |mut map: Hashbrown| {
                map.reserve(map.capacity() + 1 - map.len());
                map
            };
            b.iter_batched(|| map.clone(), grow, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Pages that this process has in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1);
    pages.map_or(0, |pages| pages.parse().unwrap_or(0)) * 4096
}

/// Printed, as there is nothing to time.
fn memory(_: &mut Criterion) {
    for remaps in REMAPS.into_iter().filter(|remaps| *remaps != 0) {
        let each = |bytes: usize| bytes as f64 / f64::from(remaps);
        let table = each(Table::new(blocks(remaps)).bytes());
        let hashbrown = each(hashbrown(remaps).allocation_size());
        let before = resident();
        let map = papaya(remaps);
        let papaya = each(resident().saturating_sub(before));
        drop(map);
        println!(
            "bytes per remap at {remaps}: dm-remap {table:.1}, hashbrown {hashbrown:.1}, \
             papaya about {papaya:.0}"
        );
    }
}

criterion_group! {
    name = table;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20);
    targets = memory, look_ups, ranges, presence, inserts, growing
}
criterion_main!(table);
