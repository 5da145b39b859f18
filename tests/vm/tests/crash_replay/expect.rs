// SPDX-License-Identifier: GPL-2.0
//! What has to be there after a crash, by what was acknowledged before it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::recording::Areas;
use crate::recording::Done;
use crate::recording::Step;
use crate::timeline::Disk;

/// Where a block may be served from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Main,
    Spare,
    Either,
}

/// What a sector may hold.
#[derive(Clone, Debug, Default)]
struct Content {
    /// Its last durable generation; zero is what was there at first.
    durable: u64,
    /// The last one that was acknowledged.
    acknowledged: u64,
    /// All that were issued since the durable one.
    issued: Vec<u64>,
}

/// Everything that is certain, and what is not.
pub(crate) struct Expect<'a> {
    steps: &'a [Done],
    unit: u64,
    content: BTreeMap<u64, Content>,
    /// What a flush that is under way is about.
    flushing: Vec<(u64, u64)>,
    places: BTreeMap<u64, Place>,
    main_unwritable: BTreeSet<u64>,
    /// Areas of the spare that cannot be written now.
    pub(crate) spare_unwritable: Areas,
    /// Whether the device was ever made.
    pub(crate) formatted: bool,
    /// Files that were fsynced.
    pub(crate) files: BTreeSet<u64>,
}

impl<'a> Expect<'a> {
    pub(crate) fn new(steps: &'a [Done], unit: u64) -> Self {
        Self {
            steps,
            unit,
            content: BTreeMap::new(),
            flushing: Vec::new(),
            places: BTreeMap::new(),
            main_unwritable: BTreeSet::new(),
            spare_unwritable: Areas::new(),
            formatted: false,
            files: BTreeSet::new(),
        }
    }

    fn blocks(&self, sector: u64, sectors: u64) -> impl Iterator<Item = u64> {
        (sector / self.unit * self.unit..sector + sectors).step_by(self.unit as usize)
    }

    /// Blocks of a write that main refuses and that are not on the spare yet.
    fn to_move(&self, sector: u64, sectors: u64) -> Vec<u64> {
        self.blocks(sector, sectors)
            .filter(|block| {
                let bad = self.main_unwritable.range(*block..block + self.unit);
                bad.count() > 0 && self.place(*block) != Place::Spare
            })
            .collect()
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, number: usize) {
        match &self.steps[number].step {
            Step::Write {
                sector,
                sectors,
                generation,
                ..
            } => {
                for sector in *sector..sector + sectors {
                    let content = self.content.entry(sector).or_default();
                    content.issued.push(*generation);
                }
                for block in self.to_move(*sector, *sectors) {
                    self.places.insert(block, Place::Either);
                }
            }
            Step::Flush => {
                let acknowledged = |(s, content): (&u64, &Content)| (*s, content.acknowledged);
                self.flushing = self.content.iter().map(acknowledged).collect();
            }
            Step::Message(blocks) => {
                for block in blocks {
                    self.places.insert(*block, Place::Either);
                }
            }
            Step::Unwritable(Disk::Main, areas) => {
                let sectors = areas
                    .iter()
                    .flat_map(|(first, count)| *first..first + count);
                self.main_unwritable = sectors.collect();
            }
            Step::Unwritable(Disk::Spare, areas) => self.spare_unwritable = areas.clone(),
            Step::File(_) => {
                // Which blocks it has, the filesystem knows.
                let unknown: Vec<u64> = self
                    .blocks_of_main_unwritable()
                    .filter(|block| self.place(*block) == Place::Main)
                    .collect();
                for block in unknown {
                    self.places.insert(block, Place::Either);
                }
            }
            Step::Activate | Step::Nothing => (),
        }
    }

    fn blocks_of_main_unwritable(&self) -> impl Iterator<Item = u64> + '_ {
        let blocks: BTreeSet<u64> = self
            .main_unwritable
            .iter()
            .map(|sector| sector / self.unit * self.unit)
            .collect();
        blocks.into_iter()
    }

    /// It was acknowledged.
    pub(crate) fn end(&mut self, number: usize) {
        let Done { step, remapped } = &self.steps[number];
        match step {
            Step::Write {
                sector,
                sectors,
                generation,
                fua,
            } => {
                // A remap is durable with its data before the write is acknowledged.
                let moved = self.to_move(*sector, *sectors);
                for sector in *sector..sector + sectors {
                    let is_moved = moved.contains(&(sector / self.unit * self.unit));
                    let content = self.content.entry(sector).or_default();
                    content.acknowledged = *generation;
                    if *fua || is_moved {
                        content.settle(*generation);
                    }
                }
                for block in moved {
                    self.places.insert(block, Place::Spare);
                }
            }
            Step::Flush => {
                for (sector, generation) in std::mem::take(&mut self.flushing) {
                    self.content.entry(sector).or_default().settle(generation);
                }
            }
            Step::Activate => self.formatted = true,
            Step::File(number) => {
                self.files.insert(*number);
            }
            Step::Message(_) | Step::Unwritable(..) | Step::Nothing => (),
        }
        for (block, is_remapped) in remapped {
            let place = match is_remapped {
                true => Place::Spare,
                false => Place::Main,
            };
            self.places.insert(*block, place);
        }
    }

    /// Where a block has to be served from.
    pub(crate) fn place(&self, block: u64) -> Place {
        self.places.get(&block).copied().unwrap_or(Place::Main)
    }

    /// All blocks that something was to do with.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, Place)> + '_ {
        self.places.iter().map(|(block, place)| (*block, *place))
    }

    /// How many remaps there are at least, and at most.
    pub(crate) fn remaps(&self) -> (u64, u64) {
        let count = |wanted| self.places.values().filter(|p| **p == wanted).count() as u64;
        let certain = count(Place::Spare);
        (certain, certain + count(Place::Either))
    }

    /// Whether a sector may hold this generation, and what it has to hold at least.
    pub(crate) fn may_hold(&self, sector: u64, generation: u64) -> Result<(), String> {
        let none = Content::default();
        let content = self.content.get(&sector).unwrap_or(&none);
        if generation == content.durable || content.issued.contains(&generation) {
            return Ok(());
        }
        Err(format!(
            "sector {sector} holds generation {generation}; {} is durable, {:?} were issued since",
            content.durable, content.issued
        ))
    }
}

impl Content {
    fn settle(&mut self, generation: u64) {
        self.durable = self.durable.max(generation);
        let durable = self.durable;
        self.issued.retain(|issued| *issued > durable);
    }
}
