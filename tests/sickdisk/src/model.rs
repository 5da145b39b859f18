// SPDX-License-Identifier: GPL-2.0
//! The model of a disk: requests in, answers out.
//!
//! The drive's volatile cache is kept as a list of what was written since the last flush, each
//! entry with the bytes that it replaced. The medium itself always holds the newest bytes, so that
//! reads need no look-up. A power cut then goes back in time, over the whole list, and comes
//! forward again with what it lets survive: a part of the writes, and, if it tears, a part of the
//! sectors of each. FUA writes survive always. So every state is possible that a drive may be in
//! which writes its cache back in any order.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::fault::Direction;
use crate::fault::Fading;
use crate::fault::Fault;
use crate::fault::Status;
use crate::record::Entry;
use crate::record::Record;
use crate::store::Store;
use crate::SECTOR;

/// The cache writes back its oldest content when it holds more than this many bytes.
const CACHE_BYTES: usize = 64 << 20;

/// What can be asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
}

impl Operation {
    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub operation: Operation,
    /// The first sector.
    pub sector: u64,
    /// The number of sectors.
    pub sectors: u64,
    /// Whether it is to be on the medium before the answer.
    pub fua: bool,
}

impl Request {
    fn range(&self) -> Range<u64> {
        self.sector..self.sector + self.sectors
    }

    /// Whether it reads or writes there.
    fn concerns(&self, sectors: &Range<u64>, direction: Direction) -> bool {
        self.operation != Operation::Flush
            && direction.includes(self.operation.writes())
            && overlap(sectors, &self.range())
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub result: Result<(), Status>,
    /// How long it took.
    pub delay: Duration,
}

/// What a power cut leaves of writes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// All of them.
    Keep,
    /// None of them.
    Drop,
    /// Some of them, chosen by this seed, each whole.
    Some(u64),
    /// Some sectors of some of them, chosen by this seed.
    Tear(u64),
}

/// A write that the cache may still lose.
#[derive(Debug)]
struct Unflushed {
    offset: u64,
    before: Vec<u8>,
    /// It is on the medium: it stands here only because older entries may overlap it.
    durable: bool,
    /// A flush that failed gave it up: it is in the cache to be read, and never gets further.
    forgotten: bool,
}

/// How flushes fail.
#[derive(Clone, Copy, Debug)]
struct FlushError {
    status: Status,
    times: u32,
    forgets: bool,
}

/// Power for several disks that fails at some write: the same moment for all of them.
#[derive(Clone, Debug)]
pub struct Power(Arc<AtomicI64>);

impl Power {
    /// Power for so many writes.
    pub fn for_writes(writes: u32) -> Self {
        Self(Arc::new(AtomicI64::new(writes.into())))
    }

    /// Whether it has failed.
    pub fn is_off(&self) -> bool {
        self.0.load(Ordering::SeqCst) < 0
    }

    /// Whether there is power for one more request. A write is what uses it up.
    fn allows(&self, writing: bool) -> bool {
        match writing {
            true => self.0.fetch_sub(1, Ordering::SeqCst) > 0,
            false => !self.is_off(),
        }
    }
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    store: Store,
    sectors: u64,
    caches: bool,
    unflushed: Vec<Unflushed>,
    unflushed_bytes: usize,
    faults: BTreeMap<u64, Fault>,
    /// Sectors that were written and fade with the next flush, and what they held before.
    fading: BTreeMap<u64, [u8; SECTOR as usize]>,
    slow: Vec<(Range<u64>, Duration)>,
    held: Vec<(Range<u64>, Direction)>,
    holds_flushes: bool,
    /// Who had come by then is held no more.
    let_go: Option<Instant>,
    waiting: Vec<Request>,
    lagging: Vec<(Range<u64>, Direction, Duration)>,
    dead: Option<(Status, Direction)>,
    /// After so many more writes it dies.
    last_writes: Option<(u32, Status)>,
    /// So many more writes to these sectors are acknowledged and not made.
    losing: Vec<(Range<u64>, u32)>,
    /// What it lives on, perhaps together with others.
    power: Option<Power>,
    flush_error: Option<FlushError>,
    record: Record,
}

impl Disk {
    /// A healthy disk of `sectors` sectors; `caches`: what is not flushed can be lost.
    pub(crate) fn new(store: Store, sectors: u64, caches: bool) -> Self {
        Self {
            store,
            sectors,
            caches,
            unflushed: Vec::new(),
            unflushed_bytes: 0,
            faults: BTreeMap::new(),
            fading: BTreeMap::new(),
            slow: Vec::new(),
            held: Vec::new(),
            holds_flushes: false,
            let_go: None,
            waiting: Vec::new(),
            lagging: Vec::new(),
            dead: None,
            last_writes: None,
            losing: Vec::new(),
            power: None,
            flush_error: None,
            record: Record::default(),
        }
    }

    /// Its size.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Makes sectors fail.
    pub fn spoil(&mut self, sector: u64, sectors: u64, fault: Fault) {
        for sector in sector..sector.saturating_add(sectors).min(self.sectors) {
            self.faults.insert(sector, fault);
        }
    }

    /// Makes sectors fail, unless they do already.
    pub fn spoil_if_good(&mut self, sector: u64, sectors: u64, fault: Fault) {
        for sector in sector..sector.saturating_add(sectors).min(self.sectors) {
            self.faults.entry(sector).or_insert(fault);
        }
    }

    /// Makes sectors good again; their content is what was last written.
    pub fn heal(&mut self, sector: u64, sectors: u64) {
        for sector in sector..sector.saturating_add(sectors).min(self.sectors) {
            self.faults.remove(&sector);
            self.fading.remove(&sector);
        }
    }

    /// How many sectors fail.
    pub fn spoilt(&self) -> usize {
        self.faults.len()
    }

    /// Makes everything fail from now on, flushes included unless only reads do.
    pub fn die(&mut self, status: Status, direction: Direction) {
        self.dead = Some((status, direction));
    }

    /// Makes everything fail once `writes` more writes have succeeded.
    pub fn die_after(&mut self, writes: u32, status: Status) {
        self.last_writes = Some((writes, status));
    }

    /// Makes everything fail once the power is used up, by this disk and all others on it.
    pub fn run_on(&mut self, power: &Power) {
        self.power = Some(power.clone());
    }

    /// Takes `die`, `die_after` and `run_on` back.
    pub fn revive(&mut self) {
        self.dead = None;
        self.last_writes = None;
        self.power = None;
    }

    /// Lies: the next `times` writes that touch these sectors are acknowledged, and nothing of them is
    /// written.
    pub fn lose_writes(&mut self, sectors: Range<u64>, times: u32) {
        self.losing.push((sectors, times));
    }

    /// How many writes are still to be lost.
    pub fn writes_to_lose(&self) -> u32 {
        self.losing.iter().map(|(_, times)| times).sum()
    }

    /// Ends all `lose_writes`.
    pub fn lose_no_more(&mut self) {
        self.losing.clear();
    }

    /// Makes the next `times` flushes fail; they write nothing back.
    pub fn fail_flushes(&mut self, status: Status, times: u32) {
        self.flush_error = Some(FlushError {
            status,
            times,
            forgets: false,
        });
    }

    /// The same; they give up what they could not write back, so that a later flush succeeds and
    /// a power cut takes it all the same. Drives do that, and so do kernels.
    pub fn fail_flushes_and_forget(&mut self, status: Status, times: u32) {
        self.flush_error = Some(FlushError {
            status,
            times,
            forgets: true,
        });
    }

    /// How many flushes are still to fail.
    pub fn flushes_to_fail(&self) -> u32 {
        self.flush_error.map_or(0, |error| error.times)
    }

    /// Makes accesses to these sectors take longer; no time at all ends that.
    pub fn slow(&mut self, sectors: Range<u64>, delay: Duration) {
        self.slow.retain(|(old, _)| *old != sectors);
        if !delay.is_zero() {
            self.slow.push((sectors, delay));
        }
    }

    /// Keeps accesses to these sectors waiting until `release`. They happen then, not before.
    pub fn hold(&mut self, sectors: Range<u64>, direction: Direction) {
        self.held.push((sectors, direction));
    }

    /// The same for flushes.
    pub fn hold_flushes(&mut self) {
        self.holds_flushes = true;
    }

    /// Ends all `hold`s.
    pub fn release(&mut self) {
        self.held.clear();
        self.holds_flushes = false;
    }

    /// Lets those go on that wait now. Who comes later waits as before.
    pub fn let_go(&mut self) {
        self.let_go = Some(Instant::now());
    }

    /// Whether a request has to wait that has come at this time.
    pub fn holds(&self, request: &Request, since: Instant) -> bool {
        let is_held = |(range, direction): &(_, _)| request.concerns(range, *direction);
        let held = match request.operation {
            Operation::Flush => self.holds_flushes,
            _ => self.held.iter().any(is_held),
        };
        held && self.let_go.is_none_or(|time| since > time)
    }

    /// Those that have come and have not happened yet, because of `hold` or `lag`.
    pub fn waiting(&self) -> &[Request] {
        &self.waiting
    }

    pub(crate) fn set_waiting(&mut self, waiting: Vec<Request>) {
        self.waiting = waiting;
    }

    /// Makes accesses to these sectors wait in the drive before they happen, as they do in a queue;
    /// with `slow`, it is only the answer that comes late. No time at all ends that.
    pub fn lag(&mut self, sectors: Range<u64>, direction: Direction, delay: Duration) {
        self.lagging.retain(|(old, _, _)| *old != sectors);
        if !delay.is_zero() {
            self.lagging.push((sectors, direction, delay));
        }
    }

    /// How long a request waits before it happens.
    pub fn lag_of(&self, request: &Request) -> Duration {
        self.lagging
            .iter()
            .filter(|(range, direction, _)| request.concerns(range, *direction))
            .map(|(_, _, delay)| *delay)
            .max()
            .unwrap_or_default()
    }

    /// What was asked so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The same, to restart it.
    pub fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }

    /// How many bytes a power cut could lose.
    pub fn unflushed_bytes(&self) -> usize {
        self.unflushed_bytes
    }

    /// Looks at the newest content past all faults, unrecorded: the tester's own eye.
    pub fn peek(&self, sector: u64, data: &mut [u8]) -> io::Result<()> {
        self.store.read(sector * SECTOR, data)
    }

    /// Changes the content past everything: damage that no error tells of.
    pub fn poke(&mut self, sector: u64, data: &[u8]) -> io::Result<()> {
        self.store.write(sector * SECTOR, data)
    }

    /// Cuts the power and comes back. Bad sectors stay bad.
    pub fn power_cut(&mut self, how: PowerCut) -> io::Result<()> {
        let list = std::mem::take(&mut self.unflushed);
        self.unflushed_bytes = 0;
        // Back, collecting what each write had written.
        let mut written = Vec::with_capacity(list.len());
        for entry in list.into_iter().rev() {
            let mut after = vec![0; entry.before.len()];
            self.store.read(entry.offset, &mut after)?;
            self.store.write(entry.offset, &entry.before)?;
            written.push((entry, after));
        }
        // And forward again.
        let mut dice = Dice::new(match how {
            PowerCut::Some(seed) | PowerCut::Tear(seed) => seed,
            PowerCut::Keep | PowerCut::Drop => 0,
        });
        for (entry, after) in written.into_iter().rev() {
            let offset = entry.offset;
            let whole = match how {
                _ if entry.durable => true,
                _ if entry.forgotten => false,
                PowerCut::Keep => true,
                PowerCut::Drop => false,
                PowerCut::Some(_) => dice.coin(),
                PowerCut::Tear(_) => {
                    for (at, sector) in (offset..)
                        .step_by(SECTOR as usize)
                        .zip(after.chunks(SECTOR as usize))
                    {
                        if dice.coin() {
                            self.store.write(at, sector)?;
                        }
                    }
                    false
                }
            };
            if whole {
                self.store.write(offset, &after)?;
            }
        }
        self.fade()
    }

    /// What is in the cache reaches the medium, or does not where that is not able to keep it.
    fn fade(&mut self) -> io::Result<()> {
        for (sector, before) in std::mem::take(&mut self.fading) {
            let Some(fault) = self.faults.get_mut(&sector) else {
                continue;
            };
            fault.fade();
            if fault.fades() == Some(Fading::Stale) {
                self.store.write(sector * SECTOR, &before)?;
            }
        }
        Ok(())
    }

    /// Serves a request. `data` is as long as what is read or written, and empty otherwise.
    pub fn serve(&mut self, request: &Request, data: &mut [u8]) -> Answer {
        let result = self.perform(request, data);
        self.record.add(Entry {
            order: 0,
            operation: request.operation,
            sector: request.sector,
            sectors: request.sectors,
            fua: request.fua,
            error: result.err(),
        });
        let wanted = request.range();
        let delay = self
            .slow
            .iter()
            .filter(|(range, _)| overlap(range, &wanted))
            .map(|(_, delay)| *delay)
            .max()
            .unwrap_or_default();
        if !delay.is_zero() {
            self.record.late += 1;
        }
        Answer { result, delay }
    }

    fn perform(&mut self, request: &Request, data: &mut [u8]) -> Result<(), Status> {
        let writing = request.operation.writes();
        if let (true, Some((writes, status))) = (writing, &mut self.last_writes) {
            match writes.checked_sub(1) {
                Some(left) => *writes = left,
                None => self.dead = Some((*status, Direction::Both)),
            }
        }
        if let Some(power) = &self.power {
            if !power.allows(writing) {
                return Err(Status::Offline);
            }
        }
        if let Some((status, direction)) = self.dead {
            let spared = match direction {
                Direction::Read => request.operation != Operation::Read,
                Direction::Write => request.operation == Operation::Read,
                Direction::Both => false,
            };
            if !spared {
                return Err(status);
            }
        }
        match request.operation {
            Operation::Flush => return self.flush(),
            _ if request.range().end > self.sectors => return Err(Status::Io),
            _ => (),
        }
        let failed = self.first_fault(request.range(), writing);
        match request.operation {
            Operation::Read => {
                if let Some((_, status)) = failed {
                    return Err(status);
                }
                self.store
                    .read(request.sector * SECTOR, data)
                    .map_err(|_| Status::Io)
            }
            Operation::Discard => failed.map_or(Ok(()), |(_, status)| Err(status)),
            _ => {
                let zeroes;
                let data = match request.operation {
                    Operation::Write => &*data,
                    _ => {
                        zeroes = vec![0; (request.sectors * SECTOR) as usize];
                        &zeroes
                    }
                };
                // A drive writes in order and stops at the sector that fails.
                let end = failed.map_or(request.range().end, |(sector, _)| sector);
                let length = ((end - request.sector) * SECTOR) as usize;
                let good = data.get(..length).ok_or(Status::Io)?;
                if self.loses(&request.range()) {
                    return failed.map_or(Ok(()), |(_, status)| Err(status));
                }
                self.remember_fading(request.sector..end)
                    .map_err(|_| Status::Io)?;
                self.write(request.sector * SECTOR, good, request.fua)?;
                for sector in request.sector..end {
                    if self.faults.get(&sector).is_some_and(Fault::healed_by_write) {
                        self.faults.remove(&sector);
                    }
                }
                if request.fua || !self.caches {
                    self.fade().map_err(|_| Status::Io)?;
                }
                failed.map_or(Ok(()), |(_, status)| Err(status))
            }
        }
    }

    /// Remembers what is in sectors that are about to be written, and fade afterwards.
    fn remember_fading(&mut self, sectors: Range<u64>) -> io::Result<()> {
        for (&sector, fault) in self.faults.range_mut(sectors) {
            if fault.fades().is_none() {
                continue;
            }
            fault.refresh();
            let mut before = [0; SECTOR as usize];
            self.store.read(sector * SECTOR, &mut before)?;
            self.fading.entry(sector).or_insert(before);
        }
        Ok(())
    }

    /// Whether a write is one of those that are lost.
    fn loses(&mut self, sectors: &Range<u64>) -> bool {
        let losing = self.losing.iter_mut();
        let mut wanted = losing.filter(|(range, times)| *times > 0 && overlap(range, sectors));
        match wanted.next() {
            Some((_, times)) => {
                *times -= 1;
                true
            }
            None => false,
        }
    }

    fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> Result<(), Status> {
        if self.caches && !data.is_empty() {
            let mut before = vec![0; data.len()];
            self.store
                .read(offset, &mut before)
                .map_err(|_| Status::Io)?;
            self.unflushed_bytes += before.len();
            self.unflushed.push(Unflushed {
                offset,
                before,
                durable: fua,
                forgotten: false,
            });
            if self.unflushed_bytes > CACHE_BYTES {
                let half = self.unflushed.len() / 2;
                let written_back = self.unflushed.drain(..half);
                self.unflushed_bytes -= written_back.map(|entry| entry.before.len()).sum::<usize>();
            }
        }
        self.store.write(offset, data).map_err(|_| Status::Io)?;
        if fua {
            self.store.flush().map_err(|_| Status::Io)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Status> {
        if let Some(error) = &mut self.flush_error {
            if error.times > 0 {
                error.times -= 1;
                let failed = *error;
                for entry in &mut self.unflushed {
                    entry.forgotten |= failed.forgets && !entry.durable;
                }
                return Err(failed.status);
            }
            self.flush_error = None;
        }
        self.fade().map_err(|_| Status::Io)?;
        self.store.flush().map_err(|_| Status::Io)?;
        if self.unflushed.iter().any(|entry| entry.forgotten) {
            for entry in &mut self.unflushed {
                entry.durable |= !entry.forgotten;
            }
            return Ok(());
        }
        self.unflushed.clear();
        self.unflushed_bytes = 0;
        Ok(())
    }

    /// The first sector that fails. Only that one counts its failure: the drive stops there.
    fn first_fault(&mut self, range: Range<u64>, writing: bool) -> Option<(u64, Status)> {
        if self.faults.is_empty() {
            return None;
        }
        let mut found = None;
        for (&sector, fault) in self.faults.range_mut(range) {
            if let Some(status) = fault.hit(writing) {
                found = Some((sector, status, fault.is_over()));
                break;
            }
        }
        let (sector, status, is_over) = found?;
        if is_over {
            self.faults.remove(&sector);
        }
        Some((sector, status))
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Chance that repeats: xorshift64*.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn coin(&mut self) -> bool {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk::new(Store::memory(1 << 20), 2048, true)
    }

    fn request(operation: Operation, sector: u64, sectors: u64) -> Request {
        Request {
            operation,
            sector,
            sectors,
            fua: false,
        }
    }

    fn write(disk: &mut Disk, sector: u64, sectors: u64, byte: u8) -> Result<(), Status> {
        let mut data = vec![byte; (sectors * SECTOR) as usize];
        disk.serve(&request(Operation::Write, sector, sectors), &mut data)
            .result
    }

    fn write_fua(disk: &mut Disk, sector: u64, byte: u8) {
        let mut request = request(Operation::Write, sector, 1);
        request.fua = true;
        assert_eq!(disk.serve(&request, &mut [byte; 512]).result, Ok(()));
    }

    fn read(disk: &mut Disk, sector: u64) -> Result<u8, Status> {
        let mut data = [0; 512];
        let answer = disk.serve(&request(Operation::Read, sector, 1), &mut data);
        answer.result.map(|()| data[0])
    }

    fn flush(disk: &mut Disk) -> Result<(), Status> {
        disk.serve(&request(Operation::Flush, 0, 0), &mut []).result
    }

    #[test]
    fn a_healthy_disk_keeps_what_it_is_given() {
        let mut disk = disk();
        write(&mut disk, 120, 20, 7).unwrap();
        assert_eq!(read(&mut disk, 119), Ok(0));
        assert_eq!(read(&mut disk, 120), Ok(7));
        assert_eq!(read(&mut disk, 139), Ok(7));
        assert_eq!(read(&mut disk, 140), Ok(0));
        assert!(write(&mut disk, 2047, 2, 7).is_err());
    }

    #[test]
    fn a_failed_write_stops_at_the_bad_sector() {
        let mut disk = disk();
        disk.spoil(5, 1, Fault::bad(Direction::Write));
        assert_eq!(write(&mut disk, 4, 3, 9), Err(Status::Medium));
        assert_eq!(read(&mut disk, 4), Ok(9));
        assert_eq!(read(&mut disk, 5), Ok(0));
        assert_eq!(read(&mut disk, 6), Ok(0));
    }

    #[test]
    fn a_weak_sector_fails_its_times() {
        let mut disk = disk();
        disk.spoil(5, 1, Fault::bad(Direction::Read).times(2));
        assert!(read(&mut disk, 5).is_err());
        assert!(read(&mut disk, 5).is_err());
        assert!(read(&mut disk, 5).is_ok());
        assert_eq!(disk.spoilt(), 0);
    }

    #[test]
    fn firmware_heals_an_unreadable_sector_when_it_is_written() {
        let mut disk = disk();
        disk.spoil(5, 1, Fault::until_written());
        assert_eq!(read(&mut disk, 5), Err(Status::Medium));
        write(&mut disk, 4, 4, 3).unwrap();
        assert_eq!(read(&mut disk, 5), Ok(3));
    }

    #[test]
    fn a_sector_fades_when_its_content_leaves_the_cache() {
        let mut disk = disk();
        write(&mut disk, 0, 8, 1).unwrap();
        disk.spoil(2, 1, Fault::fading(Fading::Unreadable));
        disk.spoil(3, 1, Fault::fading(Fading::Stale));
        flush(&mut disk).unwrap();
        assert_eq!(read(&mut disk, 2), Ok(1), "nothing was written since");
        for generation in [2, 3] {
            write(&mut disk, 0, 8, generation).unwrap();
            assert_eq!(read(&mut disk, 2), Ok(generation));
            assert_eq!(read(&mut disk, 3), Ok(generation));
            flush(&mut disk).unwrap();
            assert_eq!(read(&mut disk, 1), Ok(generation));
            assert_eq!(read(&mut disk, 2), Err(Status::Medium));
            assert_eq!(read(&mut disk, 3), Ok(1));
        }
        write_fua(&mut disk, 2, 4);
        write_fua(&mut disk, 3, 4);
        assert_eq!(read(&mut disk, 2), Err(Status::Medium));
        assert_eq!(read(&mut disk, 3), Ok(1));
        disk.heal(0, 8);
        write(&mut disk, 0, 8, 5).unwrap();
        flush(&mut disk).unwrap();
        assert_eq!(read(&mut disk, 2), Ok(5));
        assert_eq!(read(&mut disk, 3), Ok(5));
    }

    #[test]
    fn a_dead_disk_answers_nothing_until_it_is_revived() {
        let mut disk = disk();
        disk.die(Status::Offline, Direction::Both);
        assert_eq!(read(&mut disk, 5), Err(Status::Offline));
        assert_eq!(flush(&mut disk), Err(Status::Offline));
        disk.revive();
        assert_eq!(read(&mut disk, 5), Ok(0));
    }

    #[test]
    fn a_power_cut_drops_what_was_not_flushed_and_only_that() {
        let mut disk = disk();
        write(&mut disk, 0, 8, 1).unwrap();
        flush(&mut disk).unwrap();
        write(&mut disk, 0, 4, 2).unwrap();
        write_fua(&mut disk, 2, 3);
        write(&mut disk, 3, 1, 4).unwrap();
        disk.power_cut(PowerCut::Drop).unwrap();
        let content: Vec<u8> = (0..5).map(|s| read(&mut disk, s).unwrap()).collect();
        assert_eq!(content, [1, 1, 3, 1, 1]);
    }

    #[test]
    fn a_torn_write_leaves_each_sector_old_or_new() {
        let mut seen_old = 0;
        let mut seen_new = 0;
        for seed in 0..32 {
            let mut disk = disk();
            write(&mut disk, 0, 16, 1).unwrap();
            flush(&mut disk).unwrap();
            write(&mut disk, 0, 16, 2).unwrap();
            disk.power_cut(PowerCut::Tear(seed)).unwrap();
            for sector in 0..16 {
                match read(&mut disk, sector).unwrap() {
                    1 => seen_old += 1,
                    2 => seen_new += 1,
                    other => panic!("sector {sector} holds {other}"),
                }
            }
        }
        assert!(seen_old > 100 && seen_new > 100);
    }

    #[test]
    fn who_has_come_may_go_and_who_comes_later_waits() {
        let mut disk = disk();
        disk.hold(0..8, Direction::Write);
        let request = request(Operation::Write, 4, 1);
        let before = Instant::now();
        assert!(disk.holds(&request, before));
        disk.let_go();
        assert!(!disk.holds(&request, before));
        let later = Instant::now() + Duration::from_secs(1);
        assert!(disk.holds(&request, later));
        disk.release();
        assert!(!disk.holds(&request, later));
    }

    #[test]
    fn slow_answers_are_counted() {
        let mut disk = disk();
        disk.slow(4..8, Duration::from_millis(1));
        assert_eq!(write(&mut disk, 0, 4, 1), Ok(()));
        assert_eq!(disk.record().late, 0);
        assert_eq!(write(&mut disk, 3, 2, 1), Ok(()));
        assert_eq!(read(&mut disk, 7), Ok(0));
        assert_eq!(disk.record().late, 2);
    }

    #[test]
    fn a_failed_flush_keeps_nothing_safe() {
        let mut disk = disk();
        write(&mut disk, 0, 1, 1).unwrap();
        disk.fail_flushes(Status::Io, 1);
        assert_eq!(flush(&mut disk), Err(Status::Io));
        disk.power_cut(PowerCut::Drop).unwrap();
        assert_eq!(read(&mut disk, 0), Ok(0));
    }

    #[test]
    fn a_flush_that_forgets_is_not_made_good_by_a_later_one() {
        let mut disk = disk();
        write(&mut disk, 0, 2, 1).unwrap();
        disk.fail_flushes_and_forget(Status::Io, 1);
        assert_eq!(flush(&mut disk), Err(Status::Io));
        write(&mut disk, 1, 2, 2).unwrap();
        assert_eq!(flush(&mut disk), Ok(()));
        assert_eq!(read(&mut disk, 0), Ok(1), "it is still in the cache");
        disk.power_cut(PowerCut::Keep).unwrap();
        let content: Vec<u8> = (0..3).map(|s| read(&mut disk, s).unwrap()).collect();
        assert_eq!(content, [0, 2, 2]);
    }

    #[test]
    fn a_disk_dies_in_the_middle_of_what_it_is_told() {
        let mut disk = disk();
        disk.die_after(2, Status::Offline);
        assert_eq!(write(&mut disk, 0, 1, 1), Ok(()));
        assert_eq!(read(&mut disk, 0), Ok(1));
        assert_eq!(write(&mut disk, 1, 1, 1), Ok(()));
        assert_eq!(write(&mut disk, 2, 1, 1), Err(Status::Offline));
        assert_eq!(read(&mut disk, 0), Err(Status::Offline));
        disk.revive();
        assert_eq!(read(&mut disk, 2), Ok(0));
        assert_eq!(write(&mut disk, 2, 1, 1), Ok(()));
    }

    #[test]
    fn a_lost_write_is_acknowledged_and_not_made() {
        let mut disk = disk();
        assert_eq!(write(&mut disk, 0, 8, 1), Ok(()));
        disk.lose_writes(4..6, 1);
        assert_eq!(write(&mut disk, 0, 4, 2), Ok(()), "it does not touch them");
        assert_eq!(disk.writes_to_lose(), 1);
        assert_eq!(write(&mut disk, 3, 2, 3), Ok(()));
        assert_eq!(read(&mut disk, 3), Ok(2));
        assert_eq!(read(&mut disk, 4), Ok(1));
        assert_eq!(disk.writes_to_lose(), 0);
        assert_eq!(write(&mut disk, 3, 2, 4), Ok(()));
        assert_eq!(read(&mut disk, 4), Ok(4));
    }
}
