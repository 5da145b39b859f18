// SPDX-License-Identifier: GPL-2.0
//! What is recorded on bare devices, which are written with stamps.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use vmtest::guest::message;
use vmtest::guest::stamps;
use vmtest::guest::Dice;
use vmtest::guest::Direct;

use crate::recording::table;
use crate::recording::Areas;
use crate::recording::Recorded;
use crate::recording::Recording;
use crate::recording::Shape;
use crate::recording::Step;
use crate::thoroughness::Thoroughness;
use crate::timeline::Disk;

/// Who does it.
struct Driver {
    recording: Recording,
    dice: Dice,
    generation: u64,
    /// Blocks that may be remapped: those of which it is asked.
    touched: BTreeSet<u64>,
    /// Sectors of main that cannot be written.
    bad: Areas,
}

impl Driver {
    fn new(shape: Shape, seed: u64) -> Self {
        Self {
            recording: Recording::new(shape, None),
            dice: Dice::new(seed),
            generation: 0,
            touched: BTreeSet::new(),
            bad: Areas::new(),
        }
    }

    /// Bad areas all over main, of `sectors` each.
    fn spoil_main(&mut self, every: u64, sectors: u64) {
        let Shape { main, .. } = self.recording.shape;
        let unit = self.recording.shape.unit();
        self.bad = (every / 2..main - every)
            .step_by(every as usize)
            .map(|first| (first / unit * unit, sectors))
            .collect();
        for &(first, sectors) in &self.bad {
            self.touched
                .extend((first..first + sectors).step_by(unit as usize));
        }
        self.recording.unwritable(Disk::Main, &self.bad);
    }

    /// A write somewhere, or over a bad area.
    fn write(&mut self, over_bad: bool) {
        let unit = self.recording.shape.unit();
        let length = (1 + self.dice.roll(12)) * unit;
        let sector = match over_bad {
            true => {
                let which = self.dice.roll(self.bad.len() as u64) as usize;
                let before = self.dice.roll(length / unit) * unit;
                self.bad[which].0.saturating_sub(before)
            }
            false => {
                let main = self.recording.shape.main;
                self.dice.roll((main - length) / unit) * unit
            }
        };
        self.write_at(sector, length.min(self.recording.shape.main - sector));
    }

    fn write_at(&mut self, sector: u64, sectors: u64) {
        self.generation += 1;
        let generation = self.generation;
        let fua = self.dice.roll(4) == 0;
        let step = Step::Write {
            sector,
            sectors,
            generation,
            fua,
        };
        let path = self.recording.device().path();
        let device = match fua {
            true => Direct::open_dsync(&path),
            false => Direct::open(&path),
        };
        let data = stamps(sector, sectors, generation);
        self.recording.step(step, || {
            (device.write(sector, &data).expect("write"), BTreeMap::new())
        });
    }

    fn flush(&mut self) {
        let device = Direct::open(&self.recording.device().path());
        self.recording.step(Step::Flush, || {
            (device.flush().expect("flush"), BTreeMap::new())
        });
    }

    /// Sends a message that may move these blocks.
    fn message(&mut self, text: &str, blocks: impl IntoIterator<Item = u64>) {
        let blocks: Vec<u64> = blocks.into_iter().collect();
        self.touched.extend(&blocks);
        let recording = &self.recording;
        recording.step(Step::Message(blocks.clone()), || {
            // What it could not move stays where it was.
            let _ = recording.device().message(text);
            ((), recording.remapped(blocks))
        });
    }

    fn slot_of(&self, block: u64) -> Option<u64> {
        let device = self.recording.device().name();
        let told = message(device, &format!("verify {block}")).expect("verify");
        let (_, place) = told.split_once(": spare sector ")?;
        place.split_whitespace().next()?.parse().ok()
    }

    /// A number of what `metadata_status` tells.
    fn told(&self, key: &str) -> u64 {
        let told = self.recording.device().message("metadata_status").unwrap();
        let mut words = told.split_whitespace().filter_map(|w| w.split_once('='));
        let (_, value) = words.find(|(name, _)| *name == key).expect("such a key");
        value.parse().expect("a number")
    }
}

/// Slots that fail and metadata blocks that have to move, while blocks of main are remapped.
pub(crate) fn a_spare_that_goes_bad(thoroughness: &Thoroughness) -> Recorded {
    let shape = Shape {
        block: 4096,
        main: 2 << 11,
        spare: 2 << 11,
    };
    let mut driver = Driver::new(shape, thoroughness.seed);
    driver.recording.activate();
    driver.spoil_main(64, 16);
    let data = driver.told("data_start");
    let data = data..data + driver.told("slots") * shape.unit();
    let mut spoilt = Areas::new();
    let (mut slots, mut metadata) = (0, 0);
    for round in 0..thoroughness.steps(20) {
        driver.write(true);
        if driver.dice.roll(3) == 0 {
            driver.write(false);
        }
        match round % 4 {
            // A slot that holds something, and the next ones. They are written next.
            1 => {
                let held: Vec<u64> = driver
                    .touched
                    .iter()
                    .filter_map(|block| driver.slot_of(*block))
                    .collect();
                let slot = held[driver.dice.roll(held.len() as u64) as usize];
                let last = held.iter().max().expect("a slot");
                spoilt.push((slot, shape.unit()));
                spoilt.push((last + shape.unit(), 2 * shape.unit()));
                spoilt.retain(|(first, sectors)| first + sectors <= shape.spare);
                slots += 1;
                driver.recording.unwritable(Disk::Spare, &spoilt);
                let bad = driver.bad.clone();
                let (first, sectors) = bad
                    .into_iter()
                    .find(|(first, _)| driver.slot_of(*first) == Some(slot))
                    .unwrap_or((0, shape.unit()));
                driver.write_at(first, sectors);
            }
            // A metadata block that was just written. Of the superblocks, one at the most.
            3 => {
                let places = driver.recording.durable_places();
                let table = |place: &&u64| {
                    !data.contains(*place)
                        && !superblocks(shape).contains(place)
                        && !spoilt.iter().any(|(first, _)| first == *place)
                };
                let place = match round {
                    11 => Some(superblocks(shape)[1]),
                    _ => places.iter().rev().find(table).copied(),
                };
                if let Some(place) = place {
                    spoilt.push((place, 8));
                    metadata += 1;
                    driver.recording.unwritable(Disk::Spare, &spoilt);
                }
            }
            _ => driver.flush(),
        }
    }
    let moved = driver.told("relocated_blocks");
    let retired = driver.recording.device().status_value("bad_slots");
    eprintln!(
        "a_spare_that_goes_bad: {slots} times slots spoilt ({retired:?} retired), {metadata} \
         metadata blocks ({moved} moved), {} remaps",
        driver.recording.device().remapped()
    );
    assert!(moved > 0 && retired.is_some_and(|count| count != "0"));
    driver.recording.end()
}

/// The places of the superblock copies: both ends, and behind the reserve blocks there.
fn superblocks(shape: Shape) -> [u64; 4] {
    let alternate = 32 * 8;
    let end = shape.spare - 8;
    [0, alternate, end - alternate, end]
}

/// Everything that users say to a device.
pub(crate) fn messages_and_reloads(thoroughness: &Thoroughness) -> Recorded {
    let shape = Shape {
        block: 512,
        main: 1 << 11,
        spare: 1 << 11,
    };
    let mut driver = Driver::new(shape, !thoroughness.seed);
    driver.recording.activate();
    driver.spoil_main(256, 2);
    for round in 0..thoroughness.steps(30) {
        let over_bad = driver.dice.roll(4) == 0;
        driver.write(over_bad);
        let first = driver.dice.roll(shape.main - 16);
        let count = 1 + driver.dice.roll(8);
        match driver.dice.roll(8) {
            0..=2 => driver.message(&format!("remap {first} {count}"), first..first + count),
            3..=4 => {
                let touched = driver.touched.clone();
                let which = driver.dice.roll(touched.len() as u64) as usize;
                let first = touched.into_iter().nth(which).unwrap_or(0);
                let end = (first + count).min(shape.main);
                let text = format!("remove_remap {first} {}", end - first);
                driver.message(&text, first..end);
            }
            5 => driver.flush(),
            6 => driver.message("save", []),
            _ => (),
        }
        match round % 12 {
            5 => reload(&mut driver),
            8 => {
                let all = driver.touched.clone();
                driver.message("clear_all", all);
            }
            10 => {
                driver.recording.deactivate();
                driver.recording.activate();
            }
            _ => (),
        }
    }
    driver.recording.end()
}

/// Another table with the same devices, while the device is there.
fn reload(driver: &mut Driver) {
    let recording = &driver.recording;
    let line = table(
        recording.shape,
        &recording.main.path(),
        &recording.spare.path(),
    );
    recording.step(Step::Nothing, || {
        let device = recording.device();
        device
            .load(&format!("{line} 2 read_retries 3"))
            .expect("load");
        device.suspend().expect("suspend");
        device.resume().expect("resume");
        ((), BTreeMap::new())
    });
}
