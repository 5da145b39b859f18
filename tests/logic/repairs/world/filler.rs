// SPDX-License-Identifier: GPL-2.0

//! Bringing data to slots as the machine for it says, and what it may do.
//!
//! It has a clock of its own, which begins at the world's: nothing else happens meanwhile.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use dm_remap_logic::classify::classify;
use dm_remap_logic::classify::Operation;
use dm_remap_logic::classify::Status;
use dm_remap_logic::classify::Verdict;
use dm_remap_logic::repair::MemberRun;
use dm_remap_logic::repair::PlaceAnswer;
use dm_remap_logic::repair::PlaceStep;
use dm_remap_logic::repair::Placing;
use dm_remap_logic::repair::SLOTS_TRIED;
use dm_remap_logic::repair::SLOW_MS;

use super::split;
use super::World;

/// After how many blocks the queue is shortened: so few that this happens.
const ROOMY: usize = 6;

/// What came of it.
pub(super) struct Filled {
    /// Blocks, and where they are.
    pub(super) placed: Vec<(usize, u32)>,
    /// Slots that are to be written off.
    pub(super) retired: Vec<u32>,
    /// Whether each block has a place.
    pub(super) all: bool,
}

pub(super) struct Filler<'a> {
    blocks: &'a [(usize, u64)],
    /// The slots that are set aside for them.
    own: Vec<Option<u32>>,
    /// Numbers of blocks, and whether their own slots are of no use.
    queue: Vec<(usize, bool)>,
    machine: Placing<Status>,
    now: u64,
    deadline: u64,
    /// Slots that were given out, and of which nothing has become so far.
    taken: BTreeSet<u32>,
    /// How often each slot has failed by itself.
    alone: BTreeMap<u32, u32>,
    /// How many slots of each member have failed since it has taken data.
    in_row: BTreeMap<usize, u32>,
    /// Whether one took long to fail.
    slow: bool,
    /// Members that rested, while others had slots.
    left: BTreeSet<usize>,
    filled: Filled,
}

impl<'a> Filler<'a> {
    pub(super) fn new(
        blocks: &'a [(usize, u64)],
        own: Vec<Option<u32>>,
        deadline: u64,
        now: u64,
    ) -> Self {
        Filler {
            blocks,
            own,
            queue: (0..blocks.len()).map(|number| (number, false)).collect(),
            machine: Placing::new(deadline, ROOMY),
            now,
            deadline,
            taken: BTreeSet::new(),
            alone: BTreeMap::new(),
            in_row: BTreeMap::new(),
            slow: false,
            left: BTreeSet::new(),
            filled: Filled {
                placed: Vec::new(),
                retired: Vec::new(),
                all: false,
            },
        }
    }

    pub(super) fn run(mut self, world: &mut World) -> Filled {
        let takes_all = self.takes_all(world);
        self.machine.begin(self.queue.len());
        let mut answer = PlaceAnswer::Good;
        for _ in 0..10_000 {
            let step = self.machine.advance(self.now, world.has_slots(), answer);
            let name = format!("Place{step:?}");
            let name = name.split([' ', '(']).next().unwrap_or_default();
            *world.seen.entry(name.to_owned()).or_default() += 1;
            if matches!(step, PlaceStep::Done | PlaceStep::Failed) {
                self.filled.all = step == PlaceStep::Done;
                self.end(takes_all);
                return self.filled;
            }
            answer = self.step(world, step);
        }
        panic!("placing does not end");
    }

    /// Whether there are slots for all that take data, so few bad ones that no spare can pass for dead, and nothing slow.
    fn takes_all(&self, world: &World) -> bool {
        let fine = |slot: &u32| {
            let (member, number) = split(*slot);
            world.spares[member].is_fine(number)
        };
        let works = |member: usize| {
            let spare = &world.spares[member];
            let bad = (0..spare.len()).filter(|number| !spare.is_fine(*number));
            let quick = bad.clone().all(|number| {
                spare.sick[number].is_some_and(|sick| {
                    sick.takes <= SLOW_MS
                        && classify(Operation::Write, sick.error, false) == Verdict::Suspect
                })
            });
            spare.whole.is_none() && quick && bad.count() < SLOTS_TRIED as usize
        };
        let all_work = (0..world.spares.len()).all(|m| world.is_lost(m) || works(m));
        let there = |slot: &&u32| !world.is_lost(split(**slot).0);
        let fine = world.free.iter().filter(there).filter(|slot| fine(slot));
        all_work && fine.count() >= self.blocks.len()
    }

    fn end(&self, takes_all: bool) {
        if takes_all {
            assert!(self.filled.all, "P1: there are slots for all blocks");
        }
        assert!(
            self.taken.is_empty(),
            "P7: slots are lost: {:?}",
            self.taken
        );
        let blocks = self.filled.placed.iter().map(|(block, _)| *block);
        let once: BTreeSet<usize> = blocks.clone().collect();
        assert_eq!(once.len(), blocks.count(), "a block is placed twice");
        if self.filled.all {
            assert_eq!(once.len(), self.blocks.len(), "P1: a block has no place");
        }
    }

    fn step(&mut self, world: &mut World, step: PlaceStep) -> PlaceAnswer<Status> {
        match step {
            PlaceStep::AskOwn { at } => self.own_slot(world, at),
            PlaceStep::Take { at } => self.take(world, at),
            PlaceStep::Write { at, slots } => self.write(world, at, slots),
            PlaceStep::Placed { at, slots, begun } => {
                assert!(begun <= self.now);
                let blocks = &self.queue[at..at + slots.count as usize];
                for ((number, _), slot) in blocks.iter().zip(slots.first..) {
                    self.taken.remove(&slot);
                    let block = self.blocks[*number].0;
                    self.filled.placed.push((block, slot));
                }
                self.in_row.remove(&usize::from(slots.member));
                PlaceAnswer::Good
            }
            PlaceStep::AskGone { member } => PlaceAnswer::Yes(world.is_gone(usize::from(member))),
            PlaceStep::PutOff { at, count, marked } => {
                let blocks = self.queue[at..at + count as usize].to_vec();
                let blocks = blocks.iter().map(|(number, no)| (*number, *no || marked));
                self.queue.extend(blocks);
                PlaceAnswer::Good
            }
            PlaceStep::Advance { at } => {
                let last = self.queue.len() - 1;
                assert!(at < last);
                self.queue.swap(at, last);
                PlaceAnswer::Good
            }
            PlaceStep::Bad { slot, member, own } => {
                assert!(self.alone[&slot] >= 2, "E2: a slot is written off");
                if !own {
                    assert!(self.taken.remove(&slot));
                    self.filled.retired.push(slot);
                }
                let in_row = self.in_row.entry(usize::from(member)).or_default();
                *in_row += 1;
                assert!(*in_row <= SLOTS_TRIED + 1, "E2: a spare is worn down");
                PlaceAnswer::Good
            }
            PlaceStep::Jump => {
                world.cursor = world.random.below(u64::from(super::STRIDE) * 2) as u32;
                PlaceAnswer::Good
            }
            PlaceStep::Rest { member } => self.rest(world, usize::from(member)),
            PlaceStep::GiveUp { member } => {
                let (given_up, retired) = self
                    .filled
                    .retired
                    .iter()
                    .partition(|slot| split(**slot).0 == usize::from(member));
                self.filled.retired = retired;
                let given_up: Vec<u32> = given_up;
                world.free.extend(given_up);
                self.in_row.remove(&usize::from(member));
                PlaceAnswer::Good
            }
            PlaceStep::GiveBack { first, count } => {
                for slot in first..first + count {
                    assert!(self.taken.remove(&slot), "slot {slot} is given back twice");
                    world.free.insert(slot);
                }
                PlaceAnswer::Good
            }
            PlaceStep::Forget { count } => {
                assert!(self.queue.len() > ROOMY);
                self.queue.drain(..count);
                PlaceAnswer::Good
            }
            PlaceStep::Done | PlaceStep::Failed => unreachable!(),
        }
    }

    fn own_slot(&self, world: &World, at: usize) -> PlaceAnswer<Status> {
        let (number, of_no_use) = self.queue[at];
        let own = self.own[number].filter(|slot| {
            let (member, _) = split(*slot);
            !of_no_use && !self.machine.has_left(member as u8) && !world.is_lost(member)
        });
        own.map_or(PlaceAnswer::Yes(false), |first| {
            PlaceAnswer::Slots(MemberRun {
                first,
                count: 1,
                member: split(first).0 as u8,
            })
        })
    }

    /// Takes the longest run of slots that is wanted, at the cursor or before it.
    fn take(&mut self, world: &mut World, at: usize) -> PlaceAnswer<Status> {
        let (number, _) = self.queue[at];
        let rest = self.queue[at..].iter().enumerate();
        let follows = |(more, (next, _)): &(usize, &(usize, bool))| {
            self.blocks[*next].0 == self.blocks[number].0 + more
                && *next == number + more
                && (*more == 0 || self.own[*next].is_none())
        };
        let want = rest.take_while(follows).count() as u32;
        let there = |slot: &u32| !world.is_lost(split(*slot).0);
        let rests = |slot: &u32| world.resting.contains(&split(*slot).0);
        let free: Vec<u32> = world.free.iter().copied().filter(there).collect();
        let awake: Vec<u32> = free.iter().copied().filter(|slot| !rests(slot)).collect();
        let free = if awake.is_empty() { free } else { awake };
        let behind = free.iter().copied().find(|slot| *slot >= world.cursor);
        let Some(first) = behind.or(free.first().copied()) else {
            return PlaceAnswer::Failed(Status::NoSpc);
        };
        let run = (first..first + want).take_while(|slot| free.contains(slot));
        let count = run.count() as u32;
        for slot in first..first + count {
            world.free.remove(&slot);
            self.taken.insert(slot);
        }
        world.cursor = first + count;
        PlaceAnswer::Slots(MemberRun {
            first,
            count,
            member: split(first).0 as u8,
        })
    }

    fn write(&mut self, world: &mut World, at: usize, slots: MemberRun) -> PlaceAnswer<Status> {
        let (member, number) = split(slots.first);
        assert!(
            !(self.slow && self.now >= self.deadline),
            "E7: a slot is written when the time is over"
        );
        assert_eq!(member, usize::from(slots.member));
        let blocks = &self.queue[at..at + slots.count as usize];
        for ((block, _), slot) in blocks.iter().zip(slots.first..) {
            let own = self.own[*block] == Some(slot);
            assert!(
                own || self.taken.contains(&slot),
                "slot {slot} is another's"
            );
        }
        if world.is_lost(member) {
            return PlaceAnswer::Failed(Status::Offline);
        }
        let mut data: Vec<Option<u64>> = blocks
            .iter()
            .map(|(number, _)| Some(self.blocks[*number].1))
            .collect();
        let count = slots.count as usize;
        let spare = &mut world.spares[member];
        let io = spare.begin(true, number, count, &mut world.random);
        spare.end(&io, &mut data, false);
        self.now += io.takes;
        match io.result {
            Ok(()) => PlaceAnswer::Good,
            Err(status) => {
                self.slow |= io.takes > SLOW_MS;
                if count == 1 {
                    *self.alone.entry(slots.first).or_default() += 1;
                }
                PlaceAnswer::Failed(status)
            }
        }
    }

    fn rest(&mut self, world: &mut World, member: usize) -> PlaceAnswer<Status> {
        assert!(self.left.insert(member), "a spare is left twice");
        world.resting.insert(member);
        let gives = |slot: &u32| {
            let other = split(*slot).0;
            !world.is_lost(other) && !world.resting.contains(&other)
        };
        let rests = world.free.iter().any(gives);
        if !rests {
            world.resting.remove(&member);
        }
        PlaceAnswer::Yes(rests)
    }
}
