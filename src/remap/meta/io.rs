// SPDX-License-Identifier: GPL-2.0

//! Metadata I/O on the spares: carrying out what the commit protocol decides.
//!
//! All of it is done under the writer's lock, which everybody waits for. So no I/O is waited for longer than
//! `deadline_ms` (P15): one that takes longer counts as failed, whatever becomes of it, and nothing is sent to that
//! spare until it has come back. If another spare works, the set goes on without this one. Of several that hang at a
//! time, each may be waited for once. A suspend waits for what is late ([`IoMemory::is_idle`]), as the next table may
//! use that spare.
//!
//! What a late write does to the medium is harmless. If its spare was lost, all that is there is void. If it was not,
//! what it wrote is in doubt (M6), and whatever is written there next is written after it.

use core::ops::Range;

use kernel::{
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    abstractions::{
        block,
        dm,
        util, //
    },
    logic::{
        classify::{
            self,
            Operation,
            Status,
            Verdict, //
        },
        commit::{
            Content,
            Fault,
            Op,
            Outcome,
            Step,
            RUN_BLOCKS_MAX, //
        },
        crc32c::crc32c,
        format::{
            table_block::{
                self,
                TableBlock, //
            },
            Block,
            BlockId,
            CopyId,
            Geometry,
            Place,
            Superblock,
            BLOCK_BYTES,
            BLOCK_SECTORS,
            MEMBERS_MAX,
            SUPER_COPIES, //
        },
        latch::FlushTicket,
        limit::Limit,
        load::Image, //
    },
    remap::{
        health::life::{
            Disk,
            Life, //
        },
        setup::spares::{
            Spare,
            Spares, //
        },
        user::state::UserState, //
    }, //
};

/// What metadata I/O needs, allocated beforehand.
pub(in crate::remap) struct IoMemory {
    /// As many blocks as are written at a time; of others than table blocks it is the first.
    images: KBox<[Block; RUN_BLOCKS_MAX as usize]>,
    /// For each member's spare, one I/O at a time.
    spares: KVec<block::TimedIo>,
}

impl IoMemory {
    /// Allocates it.
    pub(in crate::remap) fn new() -> Result<Self> {
        let mut spares = KVec::with_capacity(usize::from(MEMBERS_MAX), GFP_KERNEL)?;
        for _ in 0..MEMBERS_MAX {
            spares.push(block::TimedIo::new(RUN_BYTES, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(Self {
            images: KBox::init(pin_init::init_zeroed(), GFP_KERNEL)?,
            spares,
        })
    }

    /// The first of the blocks.
    fn image(&mut self) -> &mut Block {
        let [image, ..] = &mut *self.images;
        image
    }

    /// Whether no I/O is under way.
    pub(in crate::remap) fn is_idle(&mut self) -> bool {
        self.spares.iter_mut().all(|io| io.is_idle())
    }
}

/// The spares, as the metadata writer needs them. Everything here waits for I/O, for `deadline_ms` at most each.
pub(in crate::remap) struct SpareIo<'a> {
    /// Who is told of what fails.
    pub(in crate::remap) user: &'a UserState,
    pub(in crate::remap) life: &'a Life,
    pub(in crate::remap) spares: &'a Spares,
    memory: &'a mut IoMemory,
    /// Whether every block of a slot table is read after it was written: some place has taken writes and could
    /// not be read.
    pub(in crate::remap) is_careful: bool,
}

/// The largest I/O, in bytes.
const RUN_BYTES: usize = RUN_BLOCKS_MAX as usize * BLOCK_BYTES;

/// One block, the first one, of those that there is memory for.
const FIRST: Range<usize> = 0..1;

/// How an I/O ended that nobody waits for any more.
const LATE: block::IoResult = Err(block::BlkStatus::TIMEOUT);

/// How often a write is tried that fails for reasons other than the medium, while other spares work.
const GONE_TRIES: u32 = 5;

/// How long between these, in milliseconds.
const GONE_WAIT_MS: i64 = 100;

impl<'a> SpareIo<'a> {
    /// For these spares.
    pub(in crate::remap) fn new(
        user: &'a UserState,
        life: &'a Life,
        spares: &'a Spares,
        memory: &'a mut IoMemory,
    ) -> Self {
        Self {
            user,
            life,
            spares,
            memory,
            is_careful: false,
        }
    }

    /// Carries out an operation of the commit protocol. `fill` makes the image of a table block
    /// from memory, with the sequence given.
    pub(in crate::remap) fn drive(
        &mut self,
        mut op: Op<'_>,
        mut fill: impl FnMut(&mut Block, BlockId, u64),
    ) -> Outcome {
        // Before anything is written that a flush is for.
        let tickets = self.life.spares_sent();
        let mut last = Ok(());
        loop {
            let step = op.advance(last);
            let superblock = op.metadata().superblock();
            last = match step {
                Step::Done(outcome) => return outcome,
                Step::Flush { member } => self.flush(superblock, member, tickets.of(member)),
                Step::CheckTable { block, place } => self.check(superblock, block, 1, place),
                Step::WriteSuper { copy, place } => {
                    op.metadata().encode_superblock(self.memory.image(), copy);
                    // Nobody reads it before the next activation, and its state is not known.
                    self.write(superblock, place, 1, true)
                        .and_then(|()| self.verify(superblock, place, 1))
                }
                Step::WriteTable {
                    block,
                    count,
                    place,
                    content,
                    fua,
                    verify,
                } => self
                    .make(superblock, (block, count), content, &mut fill)
                    .and_then(|()| self.write(superblock, place, count, fua))
                    .and_then(|()| match verify || self.is_careful {
                        true => self.verify(superblock, place, count),
                        false => Ok(()),
                    }),
            };
        }
    }

    /// Makes the images of some table blocks, from the first one on.
    fn make(
        &mut self,
        superblock: &Superblock,
        (first, count): (BlockId, u32),
        content: Content,
        fill: &mut impl FnMut(&mut Block, BlockId, u64),
    ) -> Result<(), Fault> {
        if let Content::Copy { from } = content {
            return match self.check(superblock, first, count, from) {
                Ok(()) => Ok(()),
                // That is none of the place that was to be written.
                Err(_) => Err(Fault::Other),
            };
        }
        let member = superblock.member(first.member).ok_or(Fault::Other)?;
        for (image, id) in self.memory.images.iter_mut().zip(run(first, count)) {
            match content {
                Content::Current { sequence } => fill(image, id, sequence),
                Content::Empty { sequence } => {
                    let nothing = core::iter::empty();
                    table_block::encode(image, &member.uuid, id.block, sequence, nothing);
                }
                Content::Copy { .. } => (),
            }
        }
        Ok(())
    }

    /// Has something done with a member's spare. None if that takes longer than it may, or something else there
    /// does.
    fn in_time(
        &mut self,
        member: u8,
        run: impl FnOnce(&mut block::TimedIo, &mut [Block], u32) -> Option<block::IoResult>,
    ) -> Option<block::IoResult> {
        let (user, life) = (self.user, self.life);
        let IoMemory { images, spares } = &mut *self.memory;
        let io = spares.get_mut(usize::from(member))?;
        let done = run(io, &mut **images, user.limits.get(Limit::DeadlineMs));
        match done {
            Some(Ok(())) => life.note_answer(member),
            Some(Err(_)) => (),
            None => {
                life.note_silent(member);
                user.complain("a spare takes longer than deadline_ms for metadata");
            }
        }
        done
    }

    /// How an I/O failed that was waited for in vain: a bad place that is slow, too, shows itself in no other way.
    fn take_late(
        &mut self,
        op: block::Op,
        place: Place,
        blocks: usize,
    ) -> Option<block::BlkStatus> {
        let (_, at) = self.spares.locate(place)?;
        let io = self.memory.spares.get_mut(usize::from(place.member))?;
        io.take_late(op, at, blocks.saturating_mul(BLOCK_BYTES))
    }

    /// Reads metadata blocks into a part of the memory, and once more if that fails.
    fn read(&mut self, place: Place, part: Range<usize>) -> block::IoResult {
        if let Some(status) = self.take_late(block::Op::Read, place, part.len()) {
            return Err(status);
        }
        let done = match self.read_once(place, part.clone()) {
            Some(Err(_)) => self.read_once(place, part),
            done => done,
        };
        done.unwrap_or(LATE)
    }

    fn read_once(&mut self, place: Place, part: Range<usize>) -> Option<block::IoResult> {
        let spares = self.spares;
        let Some((device, at)) = spares.locate(place) else {
            return Some(Err(block::BlkStatus::OFFLINE));
        };
        let opf = block::Opf::READ.sync();
        self.in_time(place.member, |io, images, deadline_ms| {
            let data = images.get_mut(part)?.as_flattened_mut();
            io.read(device, at, data, opf, deadline_ms)
        })
    }

    /// Overwrites the superblock copies of a spare that has left its set.
    pub(in crate::remap) fn wipe(&mut self, member: u8, geometry: &Geometry) -> block::IoResult {
        let spares = self.spares;
        self.memory.image().fill(0);
        let opf = block::Opf::WRITE.meta().sync();
        for sector in (0..SUPER_COPIES).filter_map(|copy| geometry.superblock_sector(copy)) {
            let place = Place { member, sector };
            let (device, at) = spares.locate(place).ok_or(block::BlkStatus::OFFLINE)?;
            self.in_time(member, |io, images, deadline_ms| {
                let data = images.get(FIRST)?.as_flattened();
                io.write(device, at, data, opf, deadline_ms)
            })
            .unwrap_or(LATE)?;
        }
        let spare = spares.get(member).ok_or(block::BlkStatus::OFFLINE)?;
        self.in_time(member, |io, _, deadline_ms| {
            io.flush(&spare.device, deadline_ms)
        })
        .unwrap_or(LATE)
    }

    /// Whether there are good copies of table blocks from a place on, which are read into the memory.
    fn check(
        &mut self,
        superblock: &Superblock,
        first: BlockId,
        count: u32,
        place: Place,
    ) -> Result<(), Fault> {
        let at_once = self.read(place, 0..count as usize);
        if let (Err(_), 2..) = (at_once, count) {
            // Perhaps a try for each gets them.
            for index in 0..count {
                let place = place.behind(index);
                let index = index as usize;
                let read = self.read(place, index..index.saturating_add(1));
                read.map_err(|status| self.unread(superblock, place, status))?;
            }
        } else {
            at_once.map_err(|status| self.unread(superblock, place, status))?;
        }
        let member = superblock.member(first.member).ok_or(Fault::Other)?;
        let mut images = self.memory.images.iter().zip(run(first, count));
        let good =
            images.all(|(image, id)| TableBlock::decode(image, &member.uuid, id.block).is_ok());
        good.then_some(()).ok_or(Fault::Media)
    }

    /// What it means that a table block cannot be read.
    fn unread(&mut self, superblock: &Superblock, place: Place, status: block::BlkStatus) -> Fault {
        match is_suspect(Operation::Read, status) {
            true => Fault::Media,
            false => self.other(superblock, place),
        }
    }

    /// Reads a metadata block. None if the spare does not answer, or not in time: for reasons other than its medium.
    pub(in crate::remap) fn read_image(&mut self, place: Place) -> Option<Image<'_>> {
        match self.read(place, FIRST) {
            Ok(()) => Some(Image::Read(self.memory.image())),
            Err(status) if is_suspect(Operation::Read, status) => Some(Image::Unreadable),
            Err(_) => None,
        }
    }

    /// Whether a table block is good where it is.
    pub(in crate::remap) fn is_good(
        &mut self,
        superblock: &Superblock,
        id: BlockId,
        place: Place,
    ) -> bool {
        self.check(superblock, id, 1, place).is_ok()
    }

    /// Writes blocks, those that are in memory from the first one on.
    fn write(
        &mut self,
        superblock: &Superblock,
        place: Place,
        count: u32,
        fua: bool,
    ) -> Result<(), Fault> {
        let spares = self.spares;
        let Some((device, at)) = spares.locate(place) else {
            return Err(self.other(superblock, place));
        };
        let late = self.take_late(block::Op::Write, place, count as usize);
        if late.is_some_and(|status| is_suspect(Operation::Write, status)) {
            return Err(self.blame(superblock, place));
        }
        let opf = block::Opf::WRITE.meta().sync();
        // Where FUA is a write and a flush, two errors are better than one.
        let flush = fua && device.emulates_fua();
        let opf = if fua && !flush { opf.fua() } else { opf };
        let ticket = self.life.flush_sent(Disk::Spare(place.member));
        let mut failed = false;
        let mut tries = 0;
        let several = self.spares.count() > 1;
        loop {
            let written = self.in_time(place.member, |io, images, deadline_ms| {
                let data = images.get(..count as usize)?.as_flattened();
                io.write(device, at, data, opf, deadline_ms)
            });
            match written {
                None => return Err(self.other(superblock, place)),
                Some(Ok(())) => {
                    return match flush {
                        true => self.flush(superblock, place.member, ticket),
                        false => Ok(()),
                    };
                }
                Some(Err(status)) if !is_suspect(Operation::Write, status) => {
                    tries += 1;
                    if !several || tries >= GONE_TRIES {
                        let refuses = several && classify::refuses(status_of(status));
                        return Err(
                            match refuses && self.another_works(superblock, place.member) {
                                // What it has can be read as before, and others do without its copies.
                                true => Fault::Gone,
                                false => self.other(superblock, place),
                            },
                        );
                    }
                    fsleep(Delta::from_millis(GONE_WAIT_MS));
                }
                Some(Err(_)) if failed => break,
                Some(Err(_)) => failed = true,
            }
        }
        Err(self.blame(superblock, place))
    }

    /// Reads back what was just written: a bad place may take writes all the same (P4).
    fn verify(&mut self, superblock: &Superblock, place: Place, count: u32) -> Result<(), Fault> {
        let part = 0..count as usize;
        let sum = |images: &[Block]| images.get(part.clone()).map(|b| crc32c(b.as_flattened()));
        let written = sum(&*self.memory.images);
        match self.read(place, part.clone()) {
            Ok(()) if sum(&*self.memory.images) == written => Ok(()),
            Err(status) if !is_suspect(Operation::Read, status) => {
                Err(self.other(superblock, place))
            }
            _ => Err(self.blame(superblock, place)),
        }
    }

    /// What is to blame for a place that fails. P6: it is written off only if the spare as such works.
    fn blame(&mut self, superblock: &Superblock, place: Place) -> Fault {
        if self.is_alive(superblock, place.member, Some(place.sector)) {
            Fault::Media
        } else {
            self.other(superblock, place)
        }
    }

    fn flush(
        &mut self,
        superblock: &Superblock,
        member: u8,
        ticket: FlushTicket,
    ) -> Result<(), Fault> {
        let place = Place { member, sector: 0 };
        let (user, life, spares, disk) = (self.user, self.life, self.spares, Disk::Spare(member));
        let flushed = match spares.get(member) {
            Some(spare) => {
                let flushed = self.in_time(member, |io, _, deadline_ms| {
                    io.flush(&spare.device, deadline_ms)
                });
                let flushed = flushed.unwrap_or(LATE);
                life.vouched(disk, ticket, life.note_flushed(user, disk, flushed))
            }
            None => Err(block::BlkStatus::OFFLINE),
        };
        flushed.map_err(|_| self.other(superblock, place))
    }

    /// What a failure says that the medium has not made: that the spare is gone, if it does not answer
    /// at all and another one does.
    fn other(&mut self, superblock: &Superblock, place: Place) -> Fault {
        if self.is_alive(superblock, place.member, None) {
            return Fault::Other;
        }
        if self.another_works(superblock, place.member) {
            Fault::Gone
        } else {
            Fault::Other
        }
    }

    /// Whether the spare of a member other than this one answers.
    fn another_works(&mut self, superblock: &Superblock, than: u8) -> bool {
        let mut others = superblock.members();
        others.any(|(index, member)| {
            index != than && !member.missing && self.is_alive(superblock, index, None)
        })
    }

    /// Whether the spare of a member can read a superblock copy other than the one at `except`. That
    /// takes the memory of the image, which is made anew for the next write. One that did not answer is not asked
    /// again for a while, as its silence may take long, under the writer's lock.
    pub(in crate::remap) fn is_alive(
        &mut self,
        superblock: &Superblock,
        member: u8,
        except: Option<u64>,
    ) -> bool {
        if self.life.is_silent(member) {
            return false;
        }
        let mut places = (0..SUPER_COPIES)
            .filter_map(|copy| superblock.super_place(CopyId { member, copy }))
            .filter(|place| Some(place.sector) != except);
        let alive = places.any(|place| self.read_once(place, FIRST) == Some(Ok(())));
        if !alive {
            self.life.note_silent(member);
        }
        alive
    }
}

/// Table blocks that follow each other.
fn run(first: BlockId, count: u32) -> impl Iterator<Item = BlockId> {
    (0..count).map(move |index| first.behind(index))
}

/// Reads `bytes` at `sector` into the start of `buffer`, and once more if that fails.
pub(in crate::remap) fn read_twice(
    pool: &block::BioPool,
    device: &dm::Device,
    sector: u64,
    buffer: &mut block::IoBuffer,
    bytes: usize,
) -> block::IoResult {
    read_twice_into(pool, device, sector, buffer, 0..bytes)
}

/// The same, into a part of the buffer.
pub(in crate::remap) fn read_twice_into(
    pool: &block::BioPool,
    device: &dm::Device,
    sector: u64,
    buffer: &mut block::IoBuffer,
    part: Range<usize>,
) -> block::IoResult {
    let mut once = || match buffer.slice_mut(part.clone()) {
        Ok(slice) => pool.read(device, sector, slice, block::Opf::READ.sync()),
        Err(error) => Err(error.into()),
    };
    once().or_else(|_| once())
}

/// At how many places is looked whether a spare is dead.
const PLACES: u64 = 8;

/// How long an error takes, in milliseconds, after which no other place is asked.
const PATIENCE_MS: u64 = 2000;

/// Whether nothing can be read of a spare anywhere, for reasons that a dead device has, and not one that somebody
/// else has reserved, or that lacks memory. Fails if there is no memory to find out.
pub(in crate::remap) fn is_dead(pool: &block::BioPool, spare: &Spare) -> Result<bool> {
    let mut buffer = block::IoBuffer::new(BLOCK_BYTES, GFP_KERNEL)?;
    let last = spare.sectors.saturating_sub(BLOCK_SECTORS);
    for step in 0..PLACES {
        // From end to end.
        let place = (last / (PLACES - 1)).saturating_mul(step) & !(BLOCK_SECTORS - 1);
        let at = spare.start.saturating_add(place);
        let data = buffer.slice_mut(0..BLOCK_BYTES)?;
        let begun = util::monotonic_ms();
        let Err(status) = pool.read(&spare.device, at, data, block::Opf::READ.sync()) else {
            return Ok(false);
        };
        let reserved = status == block::BlkStatus::RESV_CONFLICT;
        if reserved || !classify::tells_of_device(status_of(status)) {
            return Ok(false);
        }
        if util::monotonic_ms().saturating_sub(begun) > PATIENCE_MS {
            break;
        }
    }
    Ok(true)
}

/// Whether the medium may be at fault for a failed I/O.
pub(in crate::remap) fn is_suspect(operation: Operation, status: block::BlkStatus) -> bool {
    classify::classify(operation, status_of(status), false) == Verdict::Suspect
}

/// Whether a failed I/O may mean that the device is not there any more, although no medium is at fault.
pub(in crate::remap) fn may_be_gone(status: block::BlkStatus) -> bool {
    matches!(
        status,
        block::BlkStatus::TRANSPORT | block::BlkStatus::OFFLINE | block::BlkStatus::TIMEOUT
    )
}

/// The name that [`classify`] has for a status.
pub(in crate::remap) fn status_of(status: block::BlkStatus) -> Status {
    match status {
        block::BlkStatus::OK => Status::Ok,
        block::BlkStatus::NOTSUPP => Status::NotSupp,
        block::BlkStatus::TIMEOUT => Status::Timeout,
        block::BlkStatus::NOSPC => Status::NoSpc,
        block::BlkStatus::TRANSPORT => Status::Transport,
        block::BlkStatus::TARGET => Status::Target,
        block::BlkStatus::RESV_CONFLICT => Status::ResvConflict,
        block::BlkStatus::MEDIUM => Status::Medium,
        block::BlkStatus::PROTECTION => Status::Protection,
        block::BlkStatus::RESOURCE => Status::Resource,
        block::BlkStatus::IOERR => Status::IoErr,
        block::BlkStatus::DM_REQUEUE => Status::DmRequeue,
        block::BlkStatus::AGAIN => Status::Again,
        block::BlkStatus::DEV_RESOURCE => Status::DevResource,
        block::BlkStatus::ZONE_OPEN_RESOURCE => Status::ZoneOpenResource,
        block::BlkStatus::ZONE_ACTIVE_RESOURCE => Status::ZoneActiveResource,
        block::BlkStatus::OFFLINE => Status::Offline,
        block::BlkStatus::DURATION_LIMIT => Status::DurationLimit,
        block::BlkStatus::INVAL => Status::Inval,
        _ => Status::Other,
    }
}
