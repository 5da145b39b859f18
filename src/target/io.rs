// SPDX-License-Identifier: GPL-2.0

//! Metadata I/O on the spare: carrying out what the commit protocol decides.

use super::life::Disk;
use super::state::State;
use crate::dm;
use crate::logic::classify;
use crate::logic::classify::Operation;
use crate::logic::classify::Status;
use crate::logic::classify::Verdict;
use crate::logic::commit::Content;
use crate::logic::commit::Fault;
use crate::logic::commit::Op;
use crate::logic::commit::Outcome;
use crate::logic::commit::Step;
use crate::logic::crc32c::crc32c;
use crate::logic::format::table_block;
use crate::logic::format::table_block::TableBlock;
use crate::logic::format::Block;
use crate::logic::format::Geometry;
use crate::logic::format::BLOCK_BYTES;
use crate::logic::format::SUPER_COPIES;
use crate::logic::latch::Ticket;
use crate::logic::text::Uuid;
use kernel::prelude::*;

/// The spare, as the metadata writer needs it. Everything here waits for I/O.
pub(super) struct SpareIo<'a> {
    state: &'a State,
    /// Where bios come from.
    pool: &'a dm::BioPool,
    /// The device.
    pub(super) spare: &'a dm::Device,
    /// First sector of the window on it.
    window_start: u64,
    /// Where everything lies in it.
    geometry: Geometry,
    /// One metadata block.
    pub(super) buffer: &'a mut dm::IoBuffer,
}

impl<'a> SpareIo<'a> {
    /// For the spare of a state; `buffer` holds a metadata block.
    pub(super) fn new(
        state: &'a State,
        spare: &'a dm::Device,
        buffer: &'a mut dm::IoBuffer,
    ) -> Self {
        Self {
            state,
            pool: &state.pool,
            spare,
            window_start: state.window_start,
            geometry: state.geometry,
            buffer,
        }
    }

    /// Carries out an operation of the commit protocol. `fill` makes the image of a table block
    /// from memory, with the sequence given; `truth` is where the image is that loading chose, in
    /// the window.
    pub(super) fn drive(
        &mut self,
        mut op: Op<'_>,
        truth: Option<u64>,
        mut fill: impl FnMut(&mut Block, u32, u64),
    ) -> Outcome {
        let member = op.metadata().superblock().member_uuid;
        // Before anything is written that the flush is for.
        let ticket = self.state.life.flush_sent(Disk::Spare);
        let mut last = Ok(());
        // A place that could not be read before a write has to show that it can be read after it.
        let mut suspicious = None;
        loop {
            last = match op.advance(last) {
                Step::Done(outcome) => return outcome,
                Step::Flush => self.flush(ticket),
                Step::CheckTable { block, sector, .. } => {
                    let checked = self.check(&member, block, sector);
                    suspicious = checked.is_err().then_some(sector);
                    checked
                }
                Step::WriteSuper { copy, sector } => {
                    if let Some(image) = image_of(self.buffer) {
                        op.metadata().encode_superblock(image, copy);
                    }
                    // Nobody reads it before the next activation, and its state is not known.
                    self.write(sector, true).and_then(|()| self.verify(sector))
                }
                Step::WriteTable {
                    block,
                    sector,
                    content,
                    fua,
                    ..
                } => {
                    let made = match (content, truth) {
                        (Content::Truth, Some(truth)) => self.read(truth).is_ok(),
                        (Content::Truth, None) => false,
                        (Content::Current { sequence }, _) => image_of(self.buffer)
                            .map(|image| fill(image, block, sequence))
                            .is_some(),
                        (Content::Empty { sequence }, _) => image_of(self.buffer)
                            .map(|image| {
                                let nothing = core::iter::empty();
                                table_block::encode(image, &member, block, sequence, nothing);
                            })
                            .is_some(),
                    };
                    let doubtful = content == Content::Truth || suspicious == Some(sector);
                    if made && doubtful {
                        self.write(sector, fua).and_then(|()| self.verify(sector))
                    } else if made {
                        self.write(sector, fua)
                    } else {
                        Err(Fault::Other)
                    }
                }
            };
        }
    }

    /// Reads the metadata block at `sector` of the window into the buffer.
    pub(super) fn read(&mut self, sector: u64) -> dm::IoResult {
        let at = self.window_start.saturating_add(sector);
        read_twice(self.pool, self.spare, at, self.buffer, BLOCK_BYTES)
    }

    /// Whether a replica has a good copy of a table block.
    fn check(&mut self, member: &Uuid, block: u32, sector: u64) -> Result<(), Fault> {
        match self.read(sector) {
            Ok(()) => (),
            Err(status) if is_suspect(Operation::Read, status) => return Err(Fault::Media),
            Err(_) => return Err(Fault::Other),
        }
        let image = self.buffer.as_slice().first_chunk::<BLOCK_BYTES>();
        match image.map(|image| TableBlock::decode(image, member, block)) {
            Some(Ok(_)) => Ok(()),
            _ => Err(Fault::Media),
        }
    }

    fn write(&mut self, sector: u64, fua: bool) -> Result<(), Fault> {
        let at = self.window_start.saturating_add(sector);
        let opf = dm::Opf::WRITE.meta().sync();
        // Where FUA is a write and a flush, two errors are better than one.
        let flush = fua && self.spare.emulates_fua();
        let opf = if fua && !flush { opf.fua() } else { opf };
        let ticket = self.state.life.flush_sent(Disk::Spare);
        let mut failed = false;
        loop {
            match self.pool.write(self.spare, at, self.buffer.all(), opf) {
                Ok(()) if flush => return self.flush(ticket),
                Ok(()) => return Ok(()),
                Err(status) if !is_suspect(Operation::Write, status) => return Err(Fault::Other),
                Err(_) if failed => break,
                Err(_) => failed = true,
            }
        }
        Err(self.blame(sector))
    }

    /// Reads back what was just written from the buffer: a bad place may take writes all the same (P4).
    fn verify(&mut self, sector: u64) -> Result<(), Fault> {
        let written = crc32c(self.buffer.as_slice());
        match self.read(sector) {
            Ok(()) if crc32c(self.buffer.as_slice()) == written => Ok(()),
            Err(status) if !is_suspect(Operation::Read, status) => Err(Fault::Other),
            _ => Err(self.blame(sector)),
        }
    }

    /// What is to blame for a place that fails. P6: it is written off only if the spare as such works.
    fn blame(&mut self, sector: u64) -> Fault {
        if self.is_alive(Some(sector)) {
            Fault::Media
        } else {
            Fault::Other
        }
    }

    fn flush(&mut self, ticket: Ticket) -> Result<(), Fault> {
        let flushed = self.state.flush(Disk::Spare, self.spare, ticket);
        flushed.map_err(|_| Fault::Other)
    }

    /// Whether the spare can read a metadata block, other than the one at `but`. That takes the
    /// buffer, whose content is made anew for the next write.
    pub(super) fn is_alive(&mut self, but: Option<u64>) -> bool {
        let geometry = self.geometry;
        (0..SUPER_COPIES)
            .filter_map(|copy| geometry.superblock_sector(copy))
            .any(|place| Some(place) != but && self.read(place).is_ok())
    }
}

fn image_of(buffer: &mut dm::IoBuffer) -> Option<&mut Block> {
    buffer.as_mut_slice().first_chunk_mut::<BLOCK_BYTES>()
}

/// Reads `bytes` at `sector` into the start of `buffer`, and once more if that fails.
pub(super) fn read_twice(
    pool: &dm::BioPool,
    device: &dm::Device,
    sector: u64,
    buffer: &mut dm::IoBuffer,
    bytes: usize,
) -> dm::IoResult {
    let mut once = || match buffer.slice_mut(0..bytes) {
        Ok(slice) => pool.read(device, sector, slice, dm::Opf::READ.sync()),
        Err(error) => Err(error.into()),
    };
    once().or_else(|_| once())
}

/// Whether the medium may be at fault for a failed I/O.
pub(super) fn is_suspect(operation: Operation, status: dm::BlkStatus) -> bool {
    classify::classify(operation, status_of(status), false) == Verdict::Suspect
}

/// The name that [`classify`] has for a status.
pub(super) fn status_of(status: dm::BlkStatus) -> Status {
    match status {
        dm::BlkStatus::OK => Status::Ok,
        dm::BlkStatus::NOTSUPP => Status::NotSupp,
        dm::BlkStatus::TIMEOUT => Status::Timeout,
        dm::BlkStatus::NOSPC => Status::NoSpc,
        dm::BlkStatus::TRANSPORT => Status::Transport,
        dm::BlkStatus::TARGET => Status::Target,
        dm::BlkStatus::RESV_CONFLICT => Status::ResvConflict,
        dm::BlkStatus::MEDIUM => Status::Medium,
        dm::BlkStatus::PROTECTION => Status::Protection,
        dm::BlkStatus::RESOURCE => Status::Resource,
        dm::BlkStatus::IOERR => Status::IoErr,
        dm::BlkStatus::DM_REQUEUE => Status::DmRequeue,
        dm::BlkStatus::AGAIN => Status::Again,
        dm::BlkStatus::DEV_RESOURCE => Status::DevResource,
        dm::BlkStatus::ZONE_OPEN_RESOURCE => Status::ZoneOpenResource,
        dm::BlkStatus::ZONE_ACTIVE_RESOURCE => Status::ZoneActiveResource,
        dm::BlkStatus::OFFLINE => Status::Offline,
        dm::BlkStatus::DURATION_LIMIT => Status::DurationLimit,
        dm::BlkStatus::INVAL => Status::Inval,
        _ => Status::Other,
    }
}
