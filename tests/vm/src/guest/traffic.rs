// SPDX-License-Identifier: GPL-2.0
//! Users of a device who know what must be there.

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use super::dice::Dice;
use super::io::Direct;
use super::stamp::identify;
use super::stamp::stamps;
use super::stamp::Content;
use super::wait::eventually;

/// How many users there are, each with a part of its own.
const USERS: u64 = 4;

/// They write and read in multiples of this many sectors, up to 128.
const UNIT: u64 = 8;

/// How long they rest in between, so that others come to their turn under emulation.
const REST: Duration = Duration::from_millis(2);

/// Users who write and read all the time, and compare.
pub struct Traffic {
    path: PathBuf,
    users: Vec<User>,
    end: AtomicBool,
    /// An error does not fail the test, but ends the user: the device may go away.
    may_fail: bool,
}

struct User {
    /// I/Os that were answered.
    done: AtomicU64,
    known: Mutex<Part>,
}

/// What is known of a part of the device.
#[derive(Clone, Debug)]
struct Part {
    first: u64,
    /// For each sector, the generation of the last write that was acknowledged; 0 if there was none.
    generations: Vec<u64>,
    /// The write that was not acknowledged.
    in_doubt: Option<(Range<u64>, u64)>,
}

/// What is known of the whole.
#[derive(Clone, Debug)]
pub struct Known(Vec<Part>);

impl Traffic {
    /// Has users on these sectors of a device, which must be blank, while `job` runs. They fail the
    /// test when an I/O fails, or when a read does not give what was written last.
    #[track_caller]
    pub fn during(path: &Path, sectors: Range<u64>, job: impl FnOnce(&Traffic)) -> Known {
        Self::run(path, sectors, false, job)
    }

    /// The same with a device that goes away: the first error ends a user.
    #[track_caller]
    pub fn until_gone(path: &Path, sectors: Range<u64>, job: impl FnOnce(&Traffic)) -> Known {
        Self::run(path, sectors, true, job)
    }

    fn run(path: &Path, sectors: Range<u64>, may_fail: bool, job: impl FnOnce(&Traffic)) -> Known {
        let share = (sectors.end - sectors.start) / USERS / UNIT * UNIT;
        let user = |number| User {
            done: AtomicU64::new(0),
            known: Mutex::new(Part {
                first: sectors.start + number * share,
                generations: vec![0; share as usize],
                in_doubt: None,
            }),
        };
        let traffic = Self {
            path: path.into(),
            users: (0..USERS).map(user).collect(),
            end: AtomicBool::new(false),
            may_fail,
        };
        std::thread::scope(|scope| {
            // Also when the job panics, or the scope would never end.
            let _end = End(&traffic.end);
            for (number, user) in (1..).zip(&traffic.users) {
                let traffic = &traffic;
                scope.spawn(move || traffic.work(user, number));
            }
            job(&traffic);
        });
        let parts = traffic.users.into_iter();
        Known(parts.map(|user| user.known().clone()).collect())
    }

    fn work(&self, user: &User, number: u64) {
        let cached = Direct::open(&self.path);
        let durable = Direct::open_dsync(&self.path);
        let mut dice = Dice::new(number);
        let mut generation = 0;
        while !self.end.load(Ordering::Relaxed) {
            std::thread::sleep(REST);
            let mut part = user.known();
            let room = part.generations.len() as u64 / UNIT;
            let length = (1 + dice.roll(16)).min(room) * UNIT;
            let first = dice.roll(room - length / UNIT + 1) * UNIT + part.first;
            let result = if dice.roll(3) == 0 {
                cached.read(first, length).map(|data| {
                    part.compare(first, &data);
                })
            } else {
                generation += 1;
                let device = [&cached, &durable][usize::from(dice.roll(4) == 0)];
                let written = device.write(first, &stamps(first, length, generation));
                part.written(first..first + length, generation, written.is_ok());
                written
            };
            match result {
                Ok(()) => user.done.fetch_add(1, Ordering::Relaxed),
                Err(_) if self.may_fail => return,
                Err(error) => panic!("{length} sectors at {first}: {error}"),
            };
        }
    }

    /// Waits until every user has begun and ended an I/O: none is stuck.
    #[track_caller]
    pub fn goes_on(&self) {
        let done = || {
            self.users
                .iter()
                .map(|user| user.done.load(Ordering::Relaxed))
        };
        let before: Vec<u64> = done().collect();
        let all = || before.iter().zip(done()).all(|(was, is)| is >= was + 2);
        assert!(eventually(all), "an I/O is stuck, or a user is gone");
    }
}

impl User {
    fn known(&self) -> MutexGuard<'_, Part> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Part {
    fn written(&mut self, sectors: Range<u64>, generation: u64, acknowledged: bool) {
        if acknowledged {
            let (start, end) = (sectors.start - self.first, sectors.end - self.first);
            self.generations[start as usize..end as usize].fill(generation);
        } else {
            self.in_doubt = Some((sectors, generation));
        }
    }

    /// Compares what was read with what is known.
    fn compare(&self, first: u64, data: &[u8]) {
        for (place, content) in (first..).zip(identify(data)) {
            let found = match content {
                Content::Blank => 0,
                Content::Stamp { sector, generation } if sector == place => generation,
                other => panic!("sector {place}: {other:?}"),
            };
            let known = self.generations[(place - self.first) as usize];
            let maybe = self
                .in_doubt
                .as_ref()
                .filter(|(range, _)| range.contains(&place));
            assert!(
                found == known || maybe.is_some_and(|(_, generation)| found == *generation),
                "sector {place}: generation {found}, and {known} was acknowledged"
            );
        }
    }
}

impl Known {
    /// Checks all of it.
    #[track_caller]
    pub fn verify(&self, device: &Direct) {
        const STEP: u64 = 1024;
        assert!(self.writes() > 0, "nobody has written");
        for part in &self.0 {
            let end = part.first + part.generations.len() as u64;
            for first in (part.first..end).step_by(STEP as usize) {
                let data = device
                    .read(first, STEP.min(end - first))
                    .unwrap_or_else(|error| panic!("sector {first}: {error}"));
                part.compare(first, &data);
            }
        }
    }

    /// How many sectors have been written.
    pub fn writes(&self) -> usize {
        let all = self.0.iter().flat_map(|part| &part.generations);
        all.filter(|generation| **generation > 0).count()
    }
}
