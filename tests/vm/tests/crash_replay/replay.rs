// SPDX-License-Identifier: GPL-2.0
//! Replay: the disks as a crash leaves them, and what the device then makes of them.
//!
//! One disk is rewritten from point to point, only where it differs.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::time::Instant;

use vmtest::guest::hurry;
use vmtest::guest::identify;
use vmtest::guest::Content;
use vmtest::guest::Dice;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::Patched;
use vmtest::guest::QuickDevice;

use crate::expect::Expect;
use crate::expect::Place;
use crate::medium::Crash;
use crate::medium::Medium;
use crate::medium::Overlay;
use crate::recording::is_remapped;
use crate::recording::read_all;
use crate::recording::table;
use crate::recording::Areas;
use crate::recording::Recorded;
use crate::recording::Shape;
use crate::thoroughness::Thoroughness;
use crate::timeline::Event;

/// Sectors of what is written at once.
const PAGE: u64 = 8;

/// How many points in a row have the spare's bad sectors, or do not. To change that takes time.
const TOGETHER: u64 = 16;

/// How many of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    points: u64,
    /// Of all these, how many were tried.
    tried: u64,
    torn: u64,
    reordered: u64,
    /// Of all these, how many found a spare whose formatting was cut off.
    unformatted: u64,
    failed: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} crash points, {} torn, {} reordered, {} failed ({} in the middle of formatting)",
            self.tried, self.points, self.torn, self.reordered, self.failed, self.unformatted
        )
    }
}

/// What a check needs.
pub(crate) struct Point<'a> {
    pub(crate) expect: &'a Expect<'a>,
    /// The device, active.
    pub(crate) device: &'a QuickDevice,
    shape: Shape,
    /// How many points there were before.
    pub(crate) number: u64,
}

/// Something that has to be so at each point.
pub(crate) type Check = fn(&Point<'_>) -> Result<(), String>;

/// What is checked while the spare is as the crash left it and no device is on it: it gets the
/// spare's path. The place for `dmremap check`.
pub(crate) type OfflineCheck = fn(&std::path::Path) -> Result<(), String>;

/// What a workload is judged by.
pub(crate) struct Checks {
    pub(crate) offline: &'static [OfflineCheck],
    pub(crate) online: &'static [Check],
    /// Whether the checks write to main.
    pub(crate) write_main: bool,
    /// Areas of main, first sector and count, of which the checks rely upon more than this device
    /// promises: that a crash does not tear them.
    pub(crate) as_one: &'static [(u64, u64)],
}

/// The disks of a replay.
struct Stage {
    shape: Shape,
    spare: Patched,
    main: Patched,
    _disk: NullBlk,
    direct: Direct,
    /// What the disk holds, as far as we wrote it.
    content: Vec<u8>,
    unwritable: Areas,
}

impl Stage {
    fn new(shape: Shape, base: &[u8]) -> Self {
        let disk = shape.disk();
        let direct = Direct::open(&disk.path());
        for (sector, part) in (0..).step_by(512).zip(base.chunks(512 * 512)) {
            direct.write(sector, part).expect("write the base");
        }
        Self {
            shape,
            main: Patched::new(&disk.path(), 0, shape.main),
            spare: Patched::new(&disk.path(), shape.main, shape.spare),
            _disk: disk,
            direct,
            content: base.to_vec(),
            unwritable: Areas::new(),
        }
    }

    /// Makes the disk hold what is durable, and the overlay on it. `suspects` are the sectors where
    /// it may differ.
    fn put(&mut self, durable: &[u8], overlay: &Overlay, suspects: &BTreeSet<u64>) {
        let suspects = suspects.iter().chain(overlay.keys());
        let pages: BTreeSet<u64> = suspects.map(|sector| sector / PAGE * PAGE).collect();
        let bytes = (PAGE * 512) as usize;
        for page in pages {
            let start = (page * 512) as usize;
            let mut wanted = durable[start..start + bytes].to_vec();
            for (sector, part) in (page..).zip(wanted.chunks_mut(512)) {
                if let Some(data) = overlay.get(&sector) {
                    part.copy_from_slice(data);
                }
            }
            if self.content[start..start + bytes] != wanted {
                self.direct.write(page, &wanted).expect("write");
                self.content[start..start + bytes].copy_from_slice(&wanted);
            }
        }
    }

    /// Looks what became of sectors, and returns those that are not what was put there.
    fn look(&mut self, first: u64, sectors: u64) -> BTreeSet<u64> {
        let mut differ = BTreeSet::new();
        for first in (first..first + sectors).step_by(512) {
            let found = self.direct.read(first, 512).expect("read");
            let start = (first * 512) as usize;
            let known = &mut self.content[start..start + found.len()];
            if *known == found {
                continue;
            }
            let parts = known.chunks_mut(512).zip(found.chunks(512));
            for (sector, (known, found)) in (first..).zip(parts) {
                if known != found {
                    known.copy_from_slice(found);
                    differ.insert(sector);
                }
            }
        }
        differ
    }
}

/// A workload's replay.
struct Replay<'a> {
    stage: Stage,
    checks: &'a Checks,
    count: Count,
    /// Where the disk may differ from what is durable.
    differ: BTreeSet<u64>,
    failures: Vec<String>,
}

/// Replays all of it, and tells how many points failed.
pub(crate) fn replay(
    name: &str,
    recorded: &Recorded,
    checks: &Checks,
    thoroughness: &Thoroughness,
) {
    let start = Instant::now();
    hurry();
    let shape = recorded.shape;
    let mut medium = Medium::new(&recorded.timeline, recorded.base.clone(), checks.as_one);
    let mut expect = Expect::new(&recorded.steps, shape.unit());
    let mut replay = Replay {
        stage: Stage::new(shape, &recorded.base),
        checks,
        count: Count::default(),
        differ: BTreeSet::new(),
        failures: Vec::new(),
    };
    let mut dice = Dice::new(thoroughness.seed);
    let mut main_boundaries = 0;
    for (at, event) in recorded.timeline.events.iter().enumerate() {
        medium.advance(event);
        match event {
            Event::Begin(number) => expect.begin(*number),
            Event::End(number) => expect.end(*number),
            _ => (),
        }
        let mut crashes = Vec::new();
        match *event {
            Event::Issued(number) if medium.is_spare(number) => {
                let length = medium.length(number);
                for which in thoroughness.tears(length, &mut dice) {
                    crashes.push(Crash::Torn(number, which));
                }
                crashes.extend(thoroughness.reorders(medium.pending().len(), &mut dice));
            }
            Event::Answered(number) if medium.is_spare(number) => crashes.push(Crash::InOrder),
            Event::Answered(number) => {
                let boundary = medium.is_fua(number);
                main_boundaries += 1;
                if boundary || main_boundaries % thoroughness.main_stride == 0 {
                    crashes.push(Crash::InOrder);
                }
            }
            Event::FlushIssued(..) => {
                crashes.extend(thoroughness.reorders(medium.pending().len(), &mut dice));
            }
            Event::FlushAnswered(_) => crashes.push(Crash::InOrder),
            // What was acknowledged must not depend on anything that is not durable.
            Event::End(_) => crashes.push(Crash::Dropped),
            Event::Issued(_) | Event::Begin(_) => (),
        }
        for crash in crashes {
            let number = replay.count.points;
            replay.count.points += 1;
            if !thoroughness.includes(number) {
                continue;
            }
            if number % 100 == 99 {
                eprintln!("{name}: {}, {:.0?}", replay.count, start.elapsed());
            }
            if let Err(error) = replay.point(number, &mut medium, &expect, &crash) {
                replay.count.failed += 1;
                let text = format!("{name}: event {at} {event:?}, {crash:?}: {error}");
                eprintln!("{text}");
                replay.failures.push(text);
                assert!(
                    replay.failures.len() < 20,
                    "{name}: too many failures: {}",
                    replay.count
                );
            }
        }
    }
    eprintln!("{name}: {}, {:.0?}", replay.count, start.elapsed());
    assert!(replay.failures.is_empty(), "{:#?}", replay.failures);
}

impl Replay<'_> {
    /// One crash.
    fn point(
        &mut self,
        number: u64,
        medium: &mut Medium<'_>,
        expect: &Expect<'_>,
        crash: &Crash,
    ) -> Result<(), String> {
        self.count.tried += 1;
        match crash {
            Crash::Torn(..) => self.count.torn += 1,
            Crash::Reordered(_) | Crash::Scattered(_) => self.count.reordered += 1,
            Crash::InOrder | Crash::Dropped => (),
        }
        let overlay = medium.crash(crash);
        self.differ.extend(medium.take_changed());
        self.stage.put(&medium.durable, &overlay, &self.differ);
        self.differ = overlay.keys().copied().collect();

        // Of what is unwritable, a replay in two has it so.
        let unwritable = match number / TOGETHER % 2 {
            0 => Areas::new(),
            _ => expect.spare_unwritable.clone(),
        };
        if unwritable != self.stage.unwritable {
            self.stage.spare.unwritable(&unwritable);
            self.stage.unwritable = unwritable;
        }
        let result = self.judge(expect, number);

        // Whatever was done to the disks is undone before the next point.
        let Shape { main, spare, .. } = self.stage.shape;
        let in_spare = self.stage.look(main, spare);
        self.differ.extend(in_spare);
        if self.checks.write_main {
            let in_main = self.stage.look(0, main);
            self.differ.extend(in_main);
        }
        result
    }

    fn judge(&mut self, expect: &Expect<'_>, number: u64) -> Result<(), String> {
        let stage = &self.stage;
        for check in self.checks.offline {
            check(&stage.spare.path())?;
        }
        let line = table(stage.shape, &stage.main.path(), &stage.spare.path());
        let device = match make(&line) {
            Ok(device) => device,
            // Nobody was told yet that it is formatted. Nothing is on it, and it is refused until
            // somebody says that it may be overwritten.
            Err(_) if !expect.formatted => {
                self.count.unformatted += 1;
                make(&format!("{line} 1 format"))
                    .map_err(|error| format!("cannot be formatted again: {error}"))?
            }
            Err(error) => {
                let why = Mapped::try_new(&line).map(drop);
                return Err(format!("refused: {error}, then {why:?}"));
            }
        };
        let point = Point {
            expect,
            device: &device,
            shape: stage.shape,
            number,
        };
        let result = self
            .checks
            .online
            .iter()
            .try_for_each(|check| check(&point));
        device.remove().expect("remove");
        result
    }
}

/// Makes a device by its table line.
fn make(line: &str) -> io::Result<QuickDevice> {
    let mut words = line.splitn(4, ' ').skip(1);
    let mut next = || words.next().expect("a table line");
    let sectors = next().parse().expect("a table line");
    QuickDevice::new(sectors, next(), next())
}

/// Every acknowledged remap is there, and none that was taken back.
pub(crate) fn remaps(point: &Point<'_>) -> Result<(), String> {
    for (block, place) in point.expect.places() {
        let found = match is_remapped(point.device.name(), block)? {
            true => Place::Spare,
            false => Place::Main,
        };
        if place != Place::Either && place != found {
            return Err(format!(
                "block at {block}: {found:?} serves it, not {place:?}"
            ));
        }
    }
    Ok(())
}

/// The status tells no lies, and no damage is left.
pub(crate) fn status(point: &Point<'_>) -> Result<(), String> {
    let status = point.device.message("status");
    let status = status.map_err(|error| format!("status: {error}"))?;
    let refuse = |why: &str| Err(format!("{why}: {status}"));
    let mut parts = status.split_whitespace().filter_map(|word| {
        let (part, _) = word.split_once('/')?;
        part.parse::<u64>().ok()
    });
    let (Some(remapped), Some(pending)) = (parts.next(), parts.next()) else {
        return refuse("that is no status");
    };
    let (least, most) = point.expect.remaps();
    if !(least..=most).contains(&remapped) {
        return refuse(&format!("{least} to {most} remaps are right"));
    }
    let has = |word: &str| status.split_whitespace().any(|found| found == word);
    if !has("replicas=2") || !has("breaker=none") || !has("flush=good") {
        return refuse("something is missing");
    }
    if pending != 0 {
        return refuse("nothing was unreadable");
    }
    if point.expect.spare_unwritable.is_empty()
        && !(has("superblocks=4") && has("condition=good") && has("metadata=enabled"))
    {
        return refuse("nothing is broken");
    }
    if has("condition=failing") {
        return refuse("nothing was lost");
    }
    Ok(())
}

/// Every sector holds its last durable content, or something that was written later.
pub(crate) fn content(point: &Point<'_>) -> Result<(), String> {
    let data = read_all(&Direct::open(point.device.path()), point.shape.main);
    for (at, found) in (0..).zip(identify(&data)) {
        let generation = match found {
            Content::Blank => 0,
            Content::Stamp { sector, generation } if sector == at => generation,
            other => return Err(format!("sector {at} holds {other:?}")),
        };
        point.expect.may_hold(at, generation)?;
    }
    Ok(())
}
