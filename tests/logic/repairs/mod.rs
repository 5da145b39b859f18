// SPDX-License-Identifier: GPL-2.0

//! Histories of failed bios over a model of main and its spares, with several repairers and a clock.
//!
//! The machine is that of [`repair`](dm_remap_logic::repair); [`world`] carries out what it asks for, over disks
//! ([`medium`]) that are bad here and there, once or for ever, slow, dead, hung, or fail for reasons that are not the
//! medium's. What has to hold is said without looking into the machine, by what is read in the end and what each repair was
//! seen to do ([`witness`]):
//!
//! - P1, P3: what is acknowledged is where it will be read, not in doubt, and durable where that was asked for;
//! - P2: a read gives what was acknowledged last, or what was written and failed since, or an error;
//! - P6, E7: blocks move that have failed by themselves, or for which there was no time;
//! - P6: an error that no medium makes ends a write, moves nothing, and is passed up as it came; so are all others;
//! - E2: nothing moves before main has shown that it lives; if it takes no writes, fewer bios than the threshold move
//!   anything;
//! - E4: what cannot be read is known before that is told, and its next write goes elsewhere; all else was read;
//! - E7, P10: each bio is answered, after a try, and nothing is tried when its time was over; a slow failure is met by
//!   itself from then on; no read waits for a spare.

mod medium;
mod witness;
mod world;

use std::collections::BTreeMap;

use dm_remap_logic::classify::Operation;

use self::medium::Sickness;
use self::world::slot_of;
use self::world::Held;
use self::world::World;

use super::crash::each_history;
use super::random::Random;

/// How large a world is, and what users have set.
#[derive(Clone, Copy, Debug)]
struct Plan {
    blocks: usize,
    spares: usize,
    slots: usize,
    crew: usize,
    allowance: u64,
    threshold: u32,
    retries: u32,
    auto_remap: bool,
    /// A commit fails once in so many times; never if that is 0.
    commit_fails: u64,
}

const SMALL: Plan = Plan {
    blocks: 8,
    spares: 1,
    slots: 8,
    crew: 1,
    allowance: 1000,
    threshold: 3,
    retries: 1,
    auto_remap: true,
    commit_fails: 0,
};

const SICKNESSES: [Sickness; 8] = [
    Sickness::BAD,
    Sickness::BAD,
    Sickness::UNREADABLE,
    Sickness::UNWRITABLE,
    Sickness::WEAK,
    Sickness::SLOW,
    Sickness::INNOCENT,
    Sickness::HUNG,
];

fn pick(random: &mut Random, of: &[Sickness]) -> Sickness {
    of[random.below(of.len() as u64) as usize]
}

fn random_plan(random: &mut Random) -> Plan {
    Plan {
        blocks: 8 + random.below(40) as usize,
        spares: 1 + random.below(2) as usize,
        slots: 2 + random.below(40) as usize,
        crew: 1 + random.below(4) as usize,
        allowance: 500 + random.below(4) * 500,
        threshold: random.below(4) as u32,
        retries: random.below(3) as u32,
        auto_remap: !random.once_in(10),
        commit_fails: random.below(3) * 8,
    }
}

/// Something changes that is not the machine's doing.
fn befall(world: &mut World, random: &mut Random) {
    let block = random.below(world.main.len() as u64) as usize;
    let spare = random.below(world.spares.len() as u64) as usize;
    let slot = random.below(world.spares[spare].len() as u64) as usize;
    let sickness = pick(random, &SICKNESSES);
    match random.below(18) {
        0..=6 => world.main.sick[block] = Some(sickness),
        7..=9 => world.spares[spare].sick[slot] = Some(sickness),
        10 => world.main.whole = Some(Sickness::BAD),
        11 => world.main.whole = Some(Sickness::UNWRITABLE),
        12 => world.spares[spare].whole = Some(sickness),
        13 => world.shrunk = random.once_in(8).then_some(world.now),
        14 => world.spares[spare].whole = None,
        15 | 16 if world.is_idle(block, 1) => {
            if !world.avoided.remove(&block) {
                world.avoided.insert(block);
            }
        }
        _ => world.main.whole = None,
    }
}

/// A scratch over slots that are set aside for blocks which follow each other.
fn scratch(world: &mut World, random: &mut Random) {
    let most = world.spares[0].len().min(world.main.len());
    for block in 0..most.min(4 + random.below(4) as usize) {
        world.preset(block, slot_of(0, block), Held::Pending, false);
        world.spares[0].sick[block] = Some(Sickness::BAD);
    }
}

fn history(seed: u64, seen: &mut BTreeMap<String, u32>) {
    let mut random = Random::new(seed);
    let mut world = World::new(random_plan(&mut random), seed);
    world.main.emulates_fua = random.once_in(2);
    if random.once_in(8) {
        scratch(&mut world, &mut random);
    }
    for number in 0..random.below(4) as usize {
        let held = [Held::Valid, Held::Pending, Held::Lost][random.below(3) as usize];
        let block = random.below(world.main.len() as u64) as usize;
        let slot = slot_of(0, number);
        if world.free.contains(&slot) && !world.map.contains_key(&block) {
            world.preset(block, slot, held, random.once_in(2));
        }
    }
    for _ in 0..60 {
        if random.once_in(4) {
            befall(&mut world, &mut random);
        }
        let first = random.below(world.main.len() as u64) as usize;
        let count = (1 + random.below(8) as usize).min(world.main.len() - first);
        let operation = match random.below(8) {
            0..=3 => Operation::Write,
            4 => Operation::WriteZeroes,
            _ => Operation::Read,
        };
        if world.is_idle(first, count) {
            world.submit(operation, first, count, random.once_in(3));
        }
        for _ in 0..random.below(24) {
            world.go_on();
        }
    }
    end(&mut world);
    for (step, count) in &world.seen {
        *seen.entry(step.clone()).or_default() += count;
    }
}

/// All is answered, and can be read by whoever cures the disks.
fn end(world: &mut World) {
    while world.go_on() {}
    world.main.cure();
    world.spares.iter_mut().for_each(|spare| spare.cure());
    for block in 0..world.main.len() {
        world.submit(Operation::Read, block, 1, false);
    }
    while world.go_on() {}
    assert!(
        world
            .requests
            .iter()
            .all(|request| request.status.is_some()),
        "P10: a bio is never answered"
    );
}

#[test]
fn histories() {
    let mut seen = BTreeMap::new();
    each_history(4000, |seed| history(seed, &mut seen));
    println!("{seen:?}");
    if std::env::var("DM_REMAP_SEED").is_err() && std::env::var("DM_REMAP_HISTORIES").is_err() {
        assert_eq!(seen.len(), 44, "each step occurs: {seen:?}");
    }
}

/// P1, P15: a spare takes a write, and others have found out meanwhile that it is gone.
#[test]
fn what_a_lost_spare_takes_goes_elsewhere() {
    let plan = Plan { spares: 2, ..SMALL };
    for seed in 0..20 {
        let mut world = World::new(plan, seed);
        world.preset(0, slot_of(0, 0), Held::Valid, false);
        world.submit_failed(Operation::Write, 1, false, 0);
        while !world.seen.contains_key("Write") {
            assert!(world.go_on());
        }
        world.spares[0].whole = Some(Sickness::BAD);
        assert!(world.is_gone(0));
        end(&mut world);
        assert_eq!(world.requests[0].status, Some(Ok(())));
        assert_eq!(world.moved, 1);
    }
}

/// What a block is when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Main,
    Noted,
    Slot(Held),
    Failing,
    Avoided,
}

const LAYOUTS: [Layout; 7] = [
    Layout::Main,
    Layout::Noted,
    Layout::Slot(Held::Valid),
    Layout::Slot(Held::Pending),
    Layout::Slot(Held::Lost),
    Layout::Failing,
    Layout::Avoided,
];

/// What the spare is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spare {
    Fine,
    Full,
    /// The first slots take nothing.
    Bad,
    Dead,
}

/// One bio, whose blocks are `sick` and lie as `layout` says, after it has failed `ago`.
fn single(
    (operation, fua): (Operation, bool),
    sick: &[Option<Sickness>],
    layout: &[Layout],
    spare: Spare,
    (whole, ago): (Option<Sickness>, u64),
) -> u32 {
    let mut world = World::new(SMALL, 7);
    world.main.emulates_fua = fua;
    for (block, layout) in layout.iter().enumerate() {
        let slot = slot_of(0, block);
        match layout {
            Layout::Main => (),
            Layout::Noted => assert!(world.notes.insert(block)),
            Layout::Slot(held) => world.preset(block, slot, *held, false),
            Layout::Failing => world.preset(block, slot, Held::Valid, true),
            Layout::Avoided => assert!(world.avoided.insert(block)),
        }
        let serves = matches!(layout, Layout::Slot(Held::Valid) | Layout::Failing);
        match serves {
            true => world.spares[0].sick[block] = sick[block],
            false => world.main.sick[block] = sick[block],
        }
    }
    match spare {
        Spare::Fine => (),
        Spare::Full => world.free.clear(),
        Spare::Bad => (4..6).for_each(|slot| world.spares[0].sick[slot] = Some(Sickness::BAD)),
        Spare::Dead => world.spares[0].whole = Some(Sickness::BAD),
    }
    world.main.whole = whole;
    world.submit_failed(operation, sick.len(), fua, ago);
    end(&mut world);
    let answer = world.requests[0].status;
    if has_to_succeed(operation, sick, layout) && spare_takes(spare) && whole.is_none() {
        assert_eq!(
            answer,
            Some(Ok(())),
            "P1: {sick:?} {layout:?} {spare:?} {ago}"
        );
    }
    world.moved
}

fn spare_takes(spare: Spare) -> bool {
    matches!(spare, Spare::Fine | Spare::Bad)
}

/// Whether a bio cannot but succeed while main lives and the spare takes data (P1, P2).
fn has_to_succeed(operation: Operation, sick: &[Option<Sickness>], layout: &[Layout]) -> bool {
    let mut blocks = sick.iter().zip(layout);
    blocks.all(|(sick, layout)| match operation {
        Operation::Read if *layout == Layout::Avoided => false,
        Operation::Read => sick.is_none() && *layout != Layout::Slot(Held::Lost),
        // Of zeroes, and of what a slot serves, nothing is moved when there is no time.
        Operation::Write if *layout == Layout::Slot(Held::Valid) => {
            !sick.is_some_and(|sick| sick == Sickness::INNOCENT || sick == Sickness::SLOW)
        }
        Operation::Write => *sick != Some(Sickness::INNOCENT),
        _ => sick.is_none(),
    })
}

/// All that can befall the blocks of a small bio.
#[test]
fn each_small_bio() {
    let sicknesses = [
        None,
        Some(Sickness::BAD),
        Some(Sickness::WEAK),
        Some(Sickness::SLOW),
        Some(Sickness::INNOCENT),
    ];
    let wholes = [None, Some(Sickness::BAD), Some(Sickness::UNWRITABLE)];
    let operations = [
        (Operation::Read, false),
        (Operation::Write, false),
        (Operation::Write, true),
        (Operation::WriteZeroes, false),
    ];
    let mut moved = 0;
    for blocks in 1..=4u32 {
        for kinds in 0..5usize.pow(blocks) {
            let sick: Vec<_> = (0..blocks)
                .map(|block| sicknesses[kinds / 5usize.pow(block) % 5])
                .collect();
            // The first block lies in each way, and the second one, too; of many, all are main's.
            for layout in 0..if blocks > 2 { 1 } else { 49 } {
                let of = |block: u32| match block {
                    0 => LAYOUTS[layout % 7],
                    1 => LAYOUTS[layout / 7],
                    _ => Layout::Main,
                };
                let layout: Vec<_> = (0..blocks).map(of).collect();
                for spare in [Spare::Fine, Spare::Full, Spare::Bad, Spare::Dead] {
                    for operation in operations {
                        for state in wholes.map(|whole| [(whole, 0), (whole, 5000)]).concat() {
                            moved += single(operation, &sick, &layout, spare, state);
                        }
                    }
                }
            }
        }
    }
    assert!(moved > 0);
}
