// SPDX-License-Identifier: GPL-2.0
//! P1, P2, P3, P4, P6, P7, P8, P9, E3, E4, E5, M7: random histories against a reference that knows
//! what each sector may hold and which errors can be true.
//!
//! The seed of a run decides what is done. With one thread a seed that fails fails again in the
//! same way. With several, each thread does the same as before, but how they meet is chance, so
//! that it may take a few runs. A failure tells its seed and the history of the sector.
//!
//! | variable                 | what                                                            |
//! |--------------------------|-----------------------------------------------------------------|
//! | `DM_REMAP_MODEL_SEED`    | the first seed                                                  |
//! | `DM_REMAP_MODEL_SEEDS`   | how many seeds, one after the other, each on new disks          |
//! | `DM_REMAP_MODEL_OPS`     | transfers of each scenario and seed                             |
//!
//! More in test-system: longer histories of more seeds.

#[path = "model/history.rs"]
mod history;
#[path = "model/log.rs"]
mod log;
#[path = "model/plan.rs"]
mod plan;
#[path = "model/sickness.rs"]
mod sickness;
#[path = "model/sys.rs"]
mod sys;
#[path = "model/world.rs"]
mod world;

use std::time::Instant;

use vmtest::guest::thorough;

use plan::Shape;
use plan::Step;
use world::World;
use world::MAIN_SECTORS;
use world::THREADS;

/// How often the device is made anew in a scenario of several threads.
const ROUNDS: u64 = 3;

/// A spare that has room for all of main.
const AMPLE: u64 = 12 << 11;

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: {text} is no number"))
    })
}

/// Runs a scenario for all seeds that are asked for.
fn for_seeds(name: &str, transfers: u64, run: impl Fn(String, u64, u64)) {
    let (longer, seeds) = match thorough() {
        true => (4, 8),
        false => (1, 1),
    };
    let first = variable("DM_REMAP_MODEL_SEED", 1);
    let transfers = variable("DM_REMAP_MODEL_OPS", longer * transfers);
    for seed in first..first + variable("DM_REMAP_MODEL_SEEDS", seeds) {
        run(
            format!("{name}, DM_REMAP_MODEL_SEED={seed} DM_REMAP_MODEL_OPS={transfers}"),
            seed,
            transfers,
        );
    }
}

fn shape(block_bytes: u64) -> Shape {
    Shape {
        block: block_bytes / 512,
        area: MAIN_SECTORS,
        hot: MAIN_SECTORS / 16,
        longest: 2048,
        // Known when the device is there.
        slots: 0,
        run: 8,
        bad: MAIN_SECTORS / 20,
        bad_slots: true,
        unreadable_slots: false,
        flushes_fail: true,
        two_spares: false,
        alone: false,
    }
}

fn told(title: &str, world: &World, start: Instant) {
    eprintln!("{title}: {:?}, {}", start.elapsed(), world.summary());
}

/// Everything that can happen, one after the other: faults of all kinds, flushes that fail, disks
/// that are away, power cuts, new devices.
fn alone(name: &str, block_bytes: u64, transfers: u64) {
    for_seeds(name, transfers, |title, seed, transfers| {
        let start = Instant::now();
        let shape = Shape {
            alone: true,
            hot: MAIN_SECTORS / 32,
            unreadable_slots: seed % 2 == 0,
            ..shape(block_bytes)
        };
        let mut world = World::new(title.clone(), shape, AMPLE);
        world.stroll(seed, transfers);
        told(&title, &world, start);
        world.finish();
    });
}

/// Threads that read and write all over each other; of large blocks, with two spares.
fn together(name: &str, block_bytes: u64, transfers: u64) {
    for_seeds(name, transfers, |title, seed, transfers| {
        let start = Instant::now();
        let shape = Shape {
            area: MAIN_SECTORS / 2,
            two_spares: block_bytes == 4096,
            ..shape(block_bytes)
        };
        let mut world = World::new(title.clone(), shape, AMPLE);
        for round in 0..ROUNDS {
            world.rush(seed * ROUNDS + round, transfers / THREADS as u64 / ROUNDS);
            told(&title, &world, start);
            world.look_everywhere();
            world.again(Step::Recreate);
        }
        world.finish();
    });
}

/// The same on a spare that is too small, and whose slots go bad, too.
fn exhausted(name: &str, block_bytes: u64, transfers: u64) {
    for_seeds(name, transfers, |title, seed, transfers| {
        let start = Instant::now();
        let shape = Shape {
            area: MAIN_SECTORS / 4,
            longest: 8 * (block_bytes / 512),
            run: if block_bytes == 4096 { 8 } else { 40 },
            bad: MAIN_SECTORS * 3 / 16,
            unreadable_slots: true,
            ..shape(block_bytes)
        };
        let spare = if block_bytes == 4096 { 1792 } else { 1024 };
        let mut world = World::new(title.clone(), shape, spare);
        world.fill();
        let failed = world.failed_changes();
        assert!(failed > 0, "{title}: there was room for everything");
        world.rush(seed, transfers / THREADS as u64);
        world.reuse_slots();
        told(&title, &world, start);
        world.finish();
    });
}

#[test]
fn one_thread_and_blocks_of_4096() {
    let _test = vmtest::begin!();
    alone("one_thread_and_blocks_of_4096", 4096, 600);
}

#[test]
fn one_thread_and_blocks_of_512() {
    let _test = vmtest::begin!();
    alone("one_thread_and_blocks_of_512", 512, 600);
}

#[test]
fn threads_and_blocks_of_4096() {
    let _test = vmtest::begin!();
    together("threads_and_blocks_of_4096", 4096, 4000);
}

#[test]
fn threads_and_blocks_of_512() {
    let _test = vmtest::begin!();
    together("threads_and_blocks_of_512", 512, 4000);
}

#[test]
fn threads_and_a_full_spare_of_4096() {
    let _test = vmtest::begin!();
    exhausted("threads_and_a_full_spare_of_4096", 4096, 3000);
}

#[test]
fn threads_and_a_full_spare_of_512() {
    let _test = vmtest::begin!();
    exhausted("threads_and_a_full_spare_of_512", 512, 3000);
}
