// SPDX-License-Identifier: GPL-2.0

//! What is in `/sys/kernel/debug/dm_remap`. What columns mean is in docs/dm-remap.rst.
//!
//! Rows are found one by one, in steps, with nothing locked in between. So a table is never seen as a whole: a block that is
//! moved meanwhile may be there twice, or not at all.

use core::fmt::Write;

use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::fs::{
        self,
        Step, //
    },
    logic::{
        desk::{
            self,
            Taken, //
        },
        format::{
            Place,
            MEMBERS_MAX, //
        },
        slot::{
            Origin,
            SlotState,
            SlotWord, //
        },
        text::Column, //
    },
    remap::{
        meta::state::Locked,
        path::map::Map,
        session::state::State, //
    }, //
};

use super::face::{
    Face,
    Faces,
    Shown, //
};

/// How many slots are looked at in one step.
const STEP: u32 = 256;

/// How often the writer's lock is looked for, with a millisecond in between, until its holder is taken for busy.
const TRIES: u32 = 50;

/// A slot, as it was when it was looked at.
#[derive(Clone, Copy)]
pub(super) struct SlotRow {
    slot: u32,
    word: SlotWord,
    place: Option<Place>,
    /// The first sector of its block of main, and of the slot on its spare's device.
    main_sector: u64,
    spare_sector: Option<u64>,
    lost: bool,
}

/// Which slots are told of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those that serve a block of main, or are set aside for one.
    Serving,
    /// All but those that are free, and that nothing else is to be said of.
    Used,
}

impl Which {
    fn has(self, map: &Map, slot: u32, word: SlotWord) -> bool {
        match self {
            Which::Serving => {
                let serves = || map.view().lookup(word.main_block());
                word.is_claim() && serves().is_some_and(|(other, _)| other == slot)
            }
            Which::Used => !word.is_available(),
        }
    }
}

/// The first of some slots from `first` on.
fn next_slot(shown: &Shown, which: Which, first: u64) -> Step<SlotRow> {
    let state = &shown.state;
    let Ok(first) = u32::try_from(first) else {
        return Step::End;
    };
    state.path.with_map(|map| {
        let end = map.end();
        let stop = first.saturating_add(STEP).min(end);
        for slot in first..stop {
            let word = map.word(slot);
            if !which.has(map, slot, word) {
                continue;
            }
            let place = map.extents().place(slot);
            let start = place.and_then(|place| *shown.starts.get(usize::from(place.member))?);
            let row = SlotRow {
                slot,
                word,
                place,
                main_sector: state.path.size.sector_of(word.main_block()),
                spare_sector: start
                    .zip(place)
                    .map(|(start, place)| start.saturating_add(place.sector)),
                lost: state.life.is_content_lost(map, slot),
            };
            return Step::Row(slot.into(), row);
        }
        match stop < end {
            true => Step::More(stop.into()),
            false => Step::End,
        }
    })
}

impl SlotRow {
    fn state(&self) -> &'static str {
        match self.word.state() {
            SlotState::Free => "free",
            SlotState::Bad => "bad",
            SlotState::Pending => "pending",
            _ if self.lost => "lost",
            SlotState::Valid | SlotState::Lost => "remapped",
        }
    }

    /// Writes main's sector, the spare, the sector there, how it is, and who made it so.
    fn write_columns(&self, out: &mut dyn Write) -> core::fmt::Result {
        match self.word.is_claim() {
            true => write!(out, "{} ", self.main_sector)?,
            false => out.write_str("- ")?,
        }
        match self.place {
            Some(place) => write!(out, "{} ", place.member)?,
            None => out.write_str("- ")?,
        }
        match self.spare_sector {
            Some(sector) => write!(out, "{sector} ")?,
            None => out.write_str("- ")?,
        }
        let origin = match self.word.origin() {
            _ if !self.word.is_claim() => "-",
            Origin::Auto => "auto",
            Origin::Manual => "manual",
        };
        let doubt = if self.word.is_doubt() { "doubt" } else { "-" };
        write!(out, "{} {origin} {doubt}", self.state())
    }

    /// Writes the rest of what a slot's word says.
    fn write_marks(&self, out: &mut dyn Write) -> core::fmt::Result {
        let word = self.word;
        let mut separator = "";
        for (is_so, mark) in [
            (word.is_held(), "held"),
            (word.is_failing(), "failing"),
            (word.is_raw(), "raw"),
            (word.is_given_up(), "given_up"),
            (
                word.is_claim() && !word.claims(word.main_block()),
                "replaced",
            ),
        ] {
            if is_so {
                write!(out, "{separator}{mark}")?;
                separator = ",";
            }
        }
        if separator.is_empty() {
            out.write_str("-")?;
        }
        Ok(())
    }
}

/// The files of a device.
pub(super) struct DeviceFiles {
    _remap_table: fs::RowFile<RemapTable>,
    _slots: fs::RowFile<Slots>,
    _desk: fs::RowFile<DeskTable>,
    _pools: fs::RowFile<PoolTable>,
    _metadata: fs::RowFile<Metadata>,
}

impl DeviceFiles {
    /// Makes those of a face.
    #[inline(never)]
    pub(super) fn new(dir: &fs::Dir, face: &Arc<Face>) -> Result<Self> {
        Ok(Self {
            _remap_table: fs::RowFile::new(dir, c"remap_table", RemapTable(face.clone()))?,
            _slots: fs::RowFile::new(dir, c"slots", Slots(face.clone()))?,
            _desk: fs::RowFile::new(dir, c"desk", DeskTable(face.clone()))?,
            _pools: fs::RowFile::new(dir, c"pools", PoolTable(face.clone()))?,
            _metadata: fs::RowFile::new(dir, c"metadata", Metadata(face.clone()))?,
        })
    }
}

/// Looks for a row of a device. Where there is none any more, there are no rows.
fn find<R>(face: &Face, look: impl FnOnce(&Shown) -> Result<Step<R>>) -> Step<R> {
    face.look(look).unwrap_or(Step::End)
}

/// `remap_table` of a device.
pub(super) struct RemapTable(Arc<Face>);

impl fs::Rows for RemapTable {
    type Row = SlotRow;

    const HEADER: &'static str = "main_sector spare spare_sector state origin doubt\n";

    fn next(&self, position: u64) -> Step<SlotRow> {
        find(&self.0, |shown| {
            Ok(next_slot(shown, Which::Serving, position))
        })
    }

    fn show(&self, row: &SlotRow, out: &mut dyn Write) -> Result {
        row.write_columns(out)?;
        Ok(out.write_str("\n")?)
    }
}

/// `slots` of a device.
pub(super) struct Slots(Arc<Face>);

impl fs::Rows for Slots {
    type Row = SlotRow;

    const HEADER: &'static str = "slot main_sector spare spare_sector state origin doubt marks\n";

    fn next(&self, position: u64) -> Step<SlotRow> {
        find(&self.0, |shown| Ok(next_slot(shown, Which::Used, position)))
    }

    fn show(&self, row: &SlotRow, out: &mut dyn Write) -> Result {
        write!(out, "{} ", row.slot)?;
        row.write_columns(out)?;
        out.write_str(" ")?;
        row.write_marks(out)?;
        Ok(out.write_str("\n")?)
    }
}

/// `remap_table` of all devices.
pub(super) struct DeviceRows(pub(super) Arc<Faces>);

/// In the position of a row, slots begin here, and behind them serial numbers of faces.
const SERIAL_SHIFT: u32 = 32;

/// The most that a name can have, with its end.
const NAME_BYTES: usize = 128;

/// A row, and what its device was called when it was found.
#[derive(Clone, Copy)]
pub(super) struct NamedRow {
    name: [u8; NAME_BYTES],
    len: u8,
    row: SlotRow,
}

impl fs::Rows for DeviceRows {
    type Row = NamedRow;

    const HEADER: &'static str = "name main_sector spare spare_sector state origin doubt\n";

    fn next(&self, position: u64) -> Step<NamedRow> {
        let (serial, slot) = (position >> SERIAL_SHIFT, position & u64::from(u32::MAX));
        let Some(face) = self.0.next(serial) else {
            return Step::End;
        };
        let base = face.serial << SERIAL_SHIFT;
        let slot = if face.serial == serial { slot } else { 0 };
        let found = find(&face, |shown| Ok(next_slot(shown, Which::Serving, slot)));
        match found {
            Step::Row(slot, row) => {
                let mut named = NamedRow {
                    name: [0; NAME_BYTES],
                    len: 0,
                    row,
                };
                // One that is being removed has none any more.
                let _ = face.names(|name, _| {
                    let name = name.to_bytes();
                    for (to, from) in named.name.iter_mut().zip(name) {
                        *to = *from;
                    }
                    named.len = name.len().min(NAME_BYTES) as u8;
                });
                Step::Row(base | slot, named)
            }
            Step::More(slot) => Step::More(base | slot),
            Step::End => Step::More(face.serial.saturating_add(1) << SERIAL_SHIFT),
        }
    }

    fn show(&self, row: &NamedRow, out: &mut dyn Write) -> Result {
        let name = row.name.get(..usize::from(row.len)).unwrap_or(&[]);
        write!(out, "{} ", Column(name))?;
        row.row.write_columns(out)?;
        Ok(out.write_str("\n")?)
    }
}

/// `desk` of a device.
pub(super) struct DeskTable(Arc<Face>);

impl fs::Rows for DeskTable {
    type Row = (Taken, desk::Range);

    const HEADER: &'static str = "taken_for sector sectors\n";

    fn next(&self, position: u64) -> Step<Self::Row> {
        find(&self.0, |shown| {
            let desk = shown.state.repair.desk.lock();
            let places = usize::try_from(position).unwrap_or(usize::MAX)..desk::PLACES;
            let mut taken = places.filter_map(|place| Some((place, desk.taken(place)?)));
            Ok(match taken.next() {
                Some((place, row)) => Step::Row(place as u64, row),
                None => Step::End,
            })
        })
    }

    fn show(&self, (taken, range): &Self::Row, out: &mut dyn Write) -> Result {
        let what = match taken {
            Taken::Job => "repair",
            Taken::Moving => "move",
        };
        let (first, count) = range.sectors();
        Ok(writeln!(out, "{what} {first} {count}")?)
    }
}

/// Looks at what the writer's lock protects. Its holder may wait for a disk, and then this fails with [`EBUSY`] at once.
fn with_locked<R>(face: &Face, mut look: impl FnMut(&State, &Locked) -> Result<R>) -> Result<R> {
    for _ in 0..TRIES {
        let seen = face.look(|shown| {
            let state = &shown.state;
            state
                .meta
                .writer
                .try_lock()
                .map(|locked| look(state, &locked))
                .transpose()
        })?;
        if let Some(seen) = seen {
            return Ok(seen);
        }
        fsleep(Delta::from_millis(1));
    }
    Err(EBUSY)
}

/// `pools` of a device: one row for each spare.
pub(super) struct PoolTable(Arc<Face>);

impl fs::Rows for PoolTable {
    type Row = u8;

    const HEADER: &'static str = "spare slots usable claims gives\n";

    fn next(&self, position: u64) -> Step<u8> {
        match u8::try_from(position) {
            Ok(index) if index < MEMBERS_MAX => Step::Row(position, index),
            _ => Step::End,
        }
    }

    fn show(&self, index: &u8, out: &mut dyn Write) -> Result {
        with_locked(&self.0, |_, locked| {
            let writer = &locked.writer;
            let superblock = writer.metadata.superblock();
            let Some(member) = superblock.member(*index) else {
                return Ok(());
            };
            Ok(writeln!(
                out,
                "{index} {} {} {} {}",
                member.slots,
                member.usable_slots(),
                writer.claims(*index),
                if writer.gives_slots(*index) {
                    "yes"
                } else {
                    "no"
                },
            )?)
        })
    }
}

/// `metadata` of a device: what is said of the set, and of each spare.
pub(super) struct Metadata(Arc<Face>);

impl fs::Rows for Metadata {
    type Row = u8;

    fn next(&self, position: u64) -> Step<u8> {
        match u8::try_from(position) {
            Ok(line) if line <= MEMBERS_MAX => Step::Row(position, line),
            _ => Step::End,
        }
    }

    fn show(&self, line: &u8, out: &mut dyn Write) -> Result {
        with_locked(&self.0, |_, locked| {
            let superblock = locked.writer.metadata.superblock();
            let Some(index) = line.checked_sub(1) else {
                let yes = |is_so| if is_so { "yes" } else { "no" };
                return Ok(writeln!(
                    out,
                    "set_uuid={} sequence={} epoch={} set_epoch={} main_sectors={} active={} restoring={} taking_over={}",
                    superblock.set_uuid,
                    superblock.sequence,
                    superblock.epoch,
                    superblock.set_epoch,
                    superblock.main_sectors,
                    yes(locked.writer.active),
                    yes(locked.writer.is_restoring()),
                    yes(locked.writer.is_taking_over()),
                )?);
            };
            let Some(member) = superblock.member(index) else {
                return Ok(());
            };
            let how = locked.writer.pool_state(index).name();
            Ok(writeln!(
                out,
                "spare={index} state={how} uuid={} window_sectors={} data_start={} slot_sectors={} high_water={} \
                 void_replicas={:#x} void_superblocks={:#x} relocated_blocks={}",
                member.uuid,
                member.geometry.window_sectors(),
                member.geometry.data_start(),
                member.geometry.slot_sectors(),
                member.high_water,
                member.void_replicas,
                member.void_supers,
                member.relocations().count()
            )?)
        })
    }
}
