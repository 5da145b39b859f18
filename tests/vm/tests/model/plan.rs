// SPDX-License-Identifier: GPL-2.0
//! What is done: chosen by dice, the same for the same seed.

use std::ops::Range;
use std::time::Duration;

use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fading;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::Dice;

use crate::sickness::Ailment;
use crate::sys::Flags;

/// Something that is done to the device, to its disks, or to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Step {
    Read(Area, Flags),
    Write(Area, Flags),
    Zero(Area),
    Discard(Area),
    Flush,
    SpoilMain(Area, Sick),
    HealMain(Area),
    HealSpare,
    /// Slots, by their place in the data area.
    SpoilSlots(Area, Sick),
    /// No slot of the first spare takes anything for so many milliseconds.
    Refuse(u64),
    /// A block of metadata, chosen by this number.
    SpoilMetadata(u64, Sick),
    /// The one at this sector of the spare.
    SpoilMetadataAt(u64, Sick),
    /// Makes accesses slow for a while: the disk, where, milliseconds.
    Slow(Which, Area, u64),
    /// Holds accesses back for a while.
    Hold(Which, Area, u64),
    /// Moves an area while writes to it linger in the disk for so many milliseconds.
    MoveUnderWrites(Area, u64),
    /// Moves an area back, and another one perhaps to the slots that it had, while reads linger in
    /// the spare.
    ReuseUnderReads(Area, Area, u64),
    /// A block is weak, so it is moved, while writes to it linger in the disk.
    WeakUnderWrites(Area, u64),
    FailFlush(Which, u32),
    Die(Which, Status),
    Revive,
    Remap(Area),
    RemoveRemap(Area),
    ClearAll,
    /// Switches automatic remapping off: for so many milliseconds, or so many steps.
    NoRemapping(u64),
    Remapping,
    Say(&'static str),
    Suspend {
        noflush: bool,
        milliseconds: u64,
    },
    Reload,
    Recreate,
    Cut(PowerCut),
    /// Sectors go bad and are written, and then the power is cut.
    CutAfterMove(Area, PowerCut),
    /// The same, but the spare takes only so many writes of that before the power is gone.
    CutDuringMove(Area, u32, PowerCut),
    /// The same, after a flush of the spare has failed and dropped what it was to write.
    CutAfterFailedFlush(Area, PowerCut),
    /// The spare takes only so many writes of a move, and then the power is cut; what it took last is bad
    /// from then on.
    CutAndSpoil(Area, u32, PowerCut),
    /// The spare takes only so many writes of a move. It is back when the same is written once more, to a
    /// main that takes it.
    HalfMove(Area, u32),
    /// Moves an area to the spare and back to where main takes it and does not have it then.
    BackOntoFading(Area, Fading),
    /// Main is bad in a pattern, and written at this one of the bad places.
    Pattern(u64),
    /// Reads what main cannot read, while the spare takes no writes and does not refuse them either.
    ReadWhileSpareHangs(Area),
    /// Writes a large area of which all is bad, to a spare some of whose slots are, too.
    MoveMany(Area),
    /// A disk dies after so many more writes.
    DieAfter(Which, u32, Status),
    Wait(u64),
}

/// Sectors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    /// The first one.
    pub(crate) first: u64,
    /// How many.
    pub(crate) sectors: u64,
}

impl Area {
    /// The same as a range.
    pub(crate) fn range(self) -> Range<u64> {
        self.first..self.first + self.sectors
    }

    /// Whether a sector lies in it.
    pub(crate) fn overlaps(self, other: Area) -> bool {
        self.first < other.first + other.sectors && other.first < self.first + self.sectors
    }
}

impl std::fmt::Debug for Area {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.first, self.sectors)
    }
}

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Which {
    Main,
    Spare,
}

/// How sectors get sick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Sick {
    Bad(Direction, Status),
    Times(Direction, u32),
    UntilWritten,
    Fading(Fading),
}

impl Sick {
    /// What the sick disk is told.
    pub(crate) fn fault(self) -> Fault {
        match self {
            Sick::Bad(direction, status) => Fault::bad(direction).status(status),
            Sick::Times(direction, times) => Fault::bad(direction).times(times),
            Sick::UntilWritten => Fault::until_written(),
            Sick::Fading(fading) => Fault::fading(fading),
        }
    }

    /// What the journal is told.
    pub(crate) fn ailment(self) -> Ailment {
        let (direction, lasts, status) = match self {
            Sick::Bad(direction, status) => (direction, true, status),
            Sick::Times(direction, _) => (direction, false, Status::Medium),
            // It may be over when it is written, or begin then.
            Sick::UntilWritten | Sick::Fading(_) => (Direction::Read, false, Status::Medium),
        };
        Ailment {
            reads: direction != Direction::Write,
            writes: direction != Direction::Read,
            lasts,
            foreign: !matches!(status, Status::Medium | Status::Io | Status::Target),
            refuses_zeroes: status == Status::Target,
        }
    }
}

/// What a plan is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Sectors of a block.
    pub(crate) block: u64,
    /// Sectors that are read and written: the first ones of main.
    pub(crate) area: u64,
    /// Of these, the first so many are used more often than the rest.
    pub(crate) hot: u64,
    /// The longest transfer, in sectors.
    pub(crate) longest: u64,
    /// Sectors of the spare's data area.
    pub(crate) slots: u64,
    /// The most blocks of main that go bad together.
    pub(crate) run: u64,
    /// The most sectors of main that are bad at a time.
    pub(crate) bad: u64,
    /// Slots go bad, too.
    pub(crate) bad_slots: bool,
    /// Slots become unreadable, too: content is lost, and honestly so.
    pub(crate) unreadable_slots: bool,
    /// There are two spares, one of which takes nothing for a while.
    pub(crate) two_spares: bool,
    /// Flushes fail, where whole disks do.
    pub(crate) flushes_fail: bool,
    /// Whole disks fail, power is cut, the device is made again: only where nothing
    /// else happens at the same time.
    pub(crate) alone: bool,
}

impl Shape {
    fn blocks(&self, dice: &mut Dice) -> u64 {
        let most = self.longest / self.block;
        let most = match dice.roll(20) {
            0..=8 => 2,
            9..=14 => 16,
            15..=18 => 64,
            _ => most,
        }
        .min(most);
        1 + dice.roll(most)
    }

    fn place(&self, dice: &mut Dice, blocks: u64) -> Area {
        let whole = match dice.roll(4) {
            0 => self.area,
            _ => self.hot.max(blocks * self.block),
        };
        let places = whole / self.block - blocks + 1;
        Area {
            first: dice.roll(places) * self.block,
            sectors: blocks * self.block,
        }
    }

    fn somewhere(&self, dice: &mut Dice) -> Area {
        let blocks = self.blocks(dice);
        self.place(dice, blocks)
    }

    fn few(&self, dice: &mut Dice, most: u64) -> Area {
        let blocks = 1 + dice.roll(most);
        self.place(dice, blocks)
    }

    /// A transfer, or a flush.
    pub(crate) fn transfer(&self, dice: &mut Dice) -> Step {
        let area = self.somewhere(dice);
        let flags = |fua, nowait| Flags { fua, nowait };
        match dice.roll(40) {
            0..=13 => Step::Read(area, flags(false, false)),
            14 => Step::Read(area, flags(false, true)),
            15..=30 => Step::Write(area, flags(false, false)),
            31 => Step::Write(area, flags(false, true)),
            32 | 33 => Step::Write(area, flags(true, false)),
            34 | 35 => Step::Zero(area),
            36 => Step::Discard(area),
            _ => Step::Flush,
        }
    }

    /// Blocks, none of which is more likely than others: so most have never been touched.
    fn anywhere(&self, dice: &mut Dice, blocks: u64) -> Area {
        Area {
            first: dice.roll(self.area / self.block - blocks) * self.block,
            sectors: blocks * self.block,
        }
    }

    /// Anything else.
    pub(crate) fn event(&self, dice: &mut Dice) -> Step {
        match dice.roll(if self.alone { 76 } else { 56 }) {
            0..=20 => Step::SpoilMain(self.few(dice, self.run), self.sick(dice)),
            21..=23 => Step::HealMain(self.place(dice, 1 + self.hot / 8 / self.block)),
            24..=28 => Step::Remap(self.few(dice, 24)),
            29..=33 => Step::RemoveRemap(self.few(dice, 48)),
            34 => Step::ClearAll,
            35 | 36 => self.bad_slot(dice),
            37 => match dice.roll(2) {
                0 => Step::SpoilMetadata(
                    dice.roll(1 << 20),
                    Sick::Bad(self.direction(dice), Status::Medium),
                ),
                _ => Step::HealSpare,
            },
            // With nobody else there, being slow makes no difference.
            38..=41 if self.alone => Step::SpoilMain(self.few(dice, 2), self.sick(dice)),
            38 | 39 => Step::Slow(self.which(dice), self.few(dice, 64), 1 + dice.roll(20)),
            40 | 41 => Step::Hold(self.which(dice), self.few(dice, 64), 1 + dice.roll(40)),
            42 | 43 => Step::Suspend {
                noflush: dice.roll(2) == 0,
                milliseconds: dice.roll(20),
            },
            44 => Step::Reload,
            45..=47 => Step::Say(self.words(dice)),
            48 => match self.unreadable_slots {
                true => self.bad_slot(dice),
                false if self.two_spares => Step::Refuse(100 + dice.roll(200)),
                false => Step::Wait(1 + dice.roll(30)),
            },
            49 => Step::NoRemapping(1 + dice.roll(8)),
            50 | 51 if !self.alone => Step::MoveUnderWrites(self.few(dice, 16), 10 + dice.roll(30)),
            52 | 53 if !self.alone => {
                let [from, to] = [self.few(dice, 2), self.few(dice, 4)];
                Step::ReuseUnderReads(from, to, 10 + dice.roll(30))
            }
            54 | 55 if !self.alone => Step::WeakUnderWrites(self.few(dice, 1), 10 + dice.roll(30)),
            50..=53 => Step::Recreate,
            54 | 55 => Step::Cut(self.cut(dice)),
            56..=58 => {
                let blocks = 1 + dice.roll(8);
                let area = self.anywhere(dice, blocks);
                match dice.roll(3) {
                    0 => Step::CutAfterMove(area, self.cut(dice)),
                    _ => Step::CutDuringMove(area, dice.roll(8) as u32, self.cut(dice)),
                }
            }
            59 | 60 if self.flushes_fail => {
                Step::FailFlush(self.which(dice), 1 + dice.roll(2) as u32)
            }
            59..=62 => match self.status(dice) {
                // To the kernel, a flush that nobody knows is a good one.
                Status::Unsupported => Step::Die(self.which(dice), Status::Io),
                status => Step::Die(self.which(dice), status),
            },
            number @ 66..=74 => self.rare(number, dice),
            _ => Step::Revive,
        }
    }

    /// What dice may leave out for long, by its number.
    pub(crate) fn rare(&self, number: u64, dice: &mut Dice) -> Step {
        match number % 9 {
            0 => Step::CutAfterFailedFlush(self.anywhere(dice, 1), self.cut(dice)),
            1 | 2 => {
                let (area, writes) = (self.anywhere(dice, 1), 1 + dice.roll(3));
                Step::CutAndSpoil(area, writes as u32, self.cut(dice))
            }
            3 => Step::HalfMove(self.anywhere(dice, 1), 1 + dice.roll(3) as u32),
            4 => Step::BackOntoFading(self.few(dice, 24), Fading::Unreadable),
            5 => Step::BackOntoFading(self.few(dice, 24), Fading::Stale),
            6 => Step::Pattern(dice.roll(PATTERN)),
            7 => Step::ReadWhileSpareHangs(self.few(dice, 4)),
            // More blocks than a repair has lists for at a time.
            _ if self.block == 1 => Step::MoveMany(self.anywhere(dice, 600)),
            _ => Step::Revive,
        }
    }

    /// The bad places of [`Step::Pattern`]: around the ends and all eighths of main, a bad run each.
    pub(crate) fn pattern(&self, sectors: u64) -> impl Iterator<Item = Area> {
        let (block, blocks) = (self.block, sectors / self.block);
        (0..=PATTERN).map(move |number| {
            let middle = blocks / PATTERN * number;
            let (first, end) = (middle.saturating_sub(6), (middle + 2).min(blocks));
            Area {
                first: first * block,
                sectors: (end - first) * block,
            }
        })
    }

    fn cut(&self, dice: &mut Dice) -> PowerCut {
        let seed = dice.roll(1 << 30);
        match dice.roll(4) {
            0 => PowerCut::Keep,
            1 => PowerCut::Drop,
            2 => PowerCut::Some(seed),
            _ => PowerCut::Tear(seed),
        }
    }

    fn which(&self, dice: &mut Dice) -> Which {
        match dice.roll(2) {
            0 => Which::Main,
            _ => Which::Spare,
        }
    }

    fn status(&self, dice: &mut Dice) -> Status {
        Status::ALL[dice.roll(Status::ALL.len() as u64) as usize].0
    }

    fn direction(&self, dice: &mut Dice) -> Direction {
        match dice.roll(4) {
            0 => Direction::Read,
            1 => Direction::Both,
            _ => Direction::Write,
        }
    }

    fn sick(&self, dice: &mut Dice) -> Sick {
        let direction = self.direction(dice);
        match dice.roll(10) {
            0..=3 => Sick::Bad(direction, Status::Medium),
            4 => Sick::Bad(direction, Status::Io),
            5 => Sick::Bad(direction, Status::Target),
            6 => Sick::Times(direction, 1 + dice.roll(8) as u32),
            7 => Sick::Times(Direction::Read, 1 + dice.roll(6) as u32),
            8 => Sick::UntilWritten,
            // Neighbours in one request would get the same answer, and could not be told apart.
            _ if self.alone => Sick::Bad(direction, self.status(dice)),
            _ => Sick::Times(direction, 1),
        }
    }

    fn bad_slot(&self, dice: &mut Dice) -> Step {
        if !self.bad_slots {
            return Step::Wait(1);
        }
        let blocks = 1 + dice.roll(3);
        // Those at the beginning are in use.
        let slots = match dice.roll(2) {
            0 => self.slots,
            _ => self.slots.min(128 * self.block),
        };
        let area = Area {
            first: dice.roll((slots / self.block).saturating_sub(blocks)) * self.block,
            sectors: blocks * self.block,
        };
        let direction = match dice.roll(6) {
            0 if self.unreadable_slots => Direction::Both,
            1 | 2 if self.unreadable_slots => Direction::Read,
            _ => Direction::Write,
        };
        match dice.roll(3) {
            0 => Step::SpoilSlots(area, Sick::Times(direction, 1 + dice.roll(3) as u32)),
            _ => Step::SpoilSlots(area, Sick::Bad(direction, Status::Medium)),
        }
    }

    fn words(&self, dice: &mut Dice) -> &'static str {
        const WORDS: [&str; 12] = [
            "save",
            "sync",
            "status",
            "metadata_status",
            "ping",
            "clear_stats",
            "set read_retries 0",
            "set read_retries 3",
            "set error_threshold 2",
            "set error_threshold 8",
            "set low_water 20",
            "set deadline_ms 30000",
        ];
        WORDS[dice.roll(WORDS.len() as u64) as usize]
    }
}

/// Into how many parts a pattern divides main.
const PATTERN: u64 = 8;

/// How long to wait between events.
pub(crate) fn pause(dice: &mut Dice) -> Duration {
    Duration::from_millis(dice.roll(8))
}
