// SPDX-License-Identifier: GPL-2.0
//! A device on a sick main disk and several sick spares.

use std::io;
use std::ops::Range;
use std::ops::RangeInclusive;

use vmtest::guest::device_number;
use vmtest::guest::drop_caches;
use vmtest::guest::eventually;
use vmtest::guest::hurry;
use vmtest::guest::load;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::Power;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Refusal;

/// Sectors of a block.
pub(super) const BLOCK: u64 = 8;

/// Sectors of a tiny spare, of 1 MiB: room for some 180 blocks, or some 150 and a replica of another
/// one's table.
pub(super) const TINY: u64 = 2048;

/// A blank disk with blocks of 4096 bytes.
pub(super) fn disk(sectors: u64) -> SickDisk {
    let options = Options::memory(sectors * 512).logical_block(4096);
    SickDisk::start(options).expect("start a disk")
}

/// What is on a disk.
pub(super) fn content(disk: &SickDisk) -> Vec<u8> {
    let disk = disk.disk();
    let mut content = vec![0; disk.sectors() as usize * 512];
    disk.peek(0, &mut content).expect("read a disk");
    content
}

pub(super) struct Set {
    // First, because it has to go first.
    pub(super) device: Option<Mapped>,
    pub(super) main: SickDisk,
    pub(super) spares: Vec<SickDisk>,
}

impl Set {
    /// Main of 64 MiB and blank spares of so many MiB, not in use.
    pub(super) fn inactive(mib: &[u64]) -> Self {
        load();
        hurry();
        let disk = |mib: u64| {
            SickDisk::start(Options::memory(mib << 20).logical_block(4096)).expect("start a disk")
        };
        Set {
            device: None,
            main: disk(64),
            spares: mib.iter().map(|mib| disk(*mib)).collect(),
        }
    }

    /// The same, all in use.
    #[track_caller]
    pub(super) fn new(mib: &[u64]) -> Self {
        let mut set = Self::inactive(mib);
        let all: Vec<usize> = (0..mib.len()).collect();
        set.activate(&all, "");
        set
    }

    /// One more disk, not in use.
    pub(super) fn add_disk(&mut self, mib: u64) -> usize {
        let options = Options::memory(mib << 20).logical_block(4096);
        self.spares
            .push(SickDisk::start(options).expect("start a disk"));
        self.spares.len() - 1
    }

    /// A table line with these spares, and other arguments (as many words as there are).
    pub(super) fn line(&self, spares: &[usize], arguments: &str) -> String {
        let mut words: Vec<String> = arguments.split_whitespace().map(String::from).collect();
        for spare in &spares[1..] {
            words.push("spare".into());
            words.push(self.spares[*spare].path().display().to_string());
        }
        format!(
            "0 {} dm-remap {} {} {} {}",
            self.main.disk().sectors(),
            self.main.path().display(),
            self.spares[spares[0]].path().display(),
            words.len(),
            words.join(" ")
        )
    }

    pub(super) fn try_activate(
        &mut self,
        spares: &[usize],
        arguments: &str,
    ) -> Result<(), Refusal> {
        let line = self.line(spares, arguments);
        self.device = Some(Mapped::try_new(&line)?);
        self.wait_until_restored();
        Ok(())
    }

    #[track_caller]
    pub(super) fn activate(&mut self, spares: &[usize], arguments: &str) {
        if let Err(refusal) = self.try_activate(spares, arguments) {
            panic!("{}: {refusal:?}", self.line(spares, arguments));
        }
    }

    #[track_caller]
    pub(super) fn deactivate(&mut self) {
        self.device.take().expect("an active device").remove();
    }

    #[track_caller]
    pub(super) fn device(&self) -> &Mapped {
        self.device.as_ref().expect("an active device")
    }

    #[track_caller]
    pub(super) fn open(&self) -> Direct {
        Direct::open(&self.device().path())
    }

    /// Writes stamps of generation 1, a little at a time: spares are filled one after the other.
    #[track_caller]
    pub(super) fn write_in_parts(&self, sector: u64, sectors: u64) {
        let device = self.open();
        let mut at = sector;
        while at < sector + sectors {
            let part = (8 * BLOCK).min(sector + sectors - at);
            device.write(at, &stamps(at, part, 1)).expect("write");
            at += part;
        }
    }

    /// Loads another table and goes on with it.
    pub(super) fn reload(&self, spares: &[usize], arguments: &str) -> Result<(), Refusal> {
        let device = self.device();
        device.load(&self.line(spares, arguments))?;
        device.suspend()?;
        device.resume()?;
        self.wait_until_restored();
        Ok(())
    }

    /// Waits until redundancy is what it can be: that is done in the background.
    #[track_caller]
    pub(super) fn wait_until_restored(&self) {
        assert!(
            eventually(|| self.is_restored()),
            "{}",
            self.device().status()
        );
    }

    #[track_caller]
    pub(super) fn is_restored(&self) -> bool {
        let told = self.device().message("metadata_status").expect("told");
        told.lines().all(|line| line != "restoring=yes")
    }

    /// A disk answers no more.
    pub(super) fn kill(&self, spare: usize) {
        self.spares[spare]
            .disk()
            .die(Status::Offline, Direction::Both);
    }

    pub(super) fn revive(&self, spare: usize) {
        self.spares[spare].disk().revive();
    }

    /// The power of all disks fails, and the device is gone.
    pub(super) fn power_cut(&mut self, how: impl Fn(u64) -> PowerCut) {
        let disks = || std::iter::once(&self.main).chain(&self.spares);
        for disk in disks() {
            disk.disk().die(Status::Offline, Direction::Both);
        }
        if let Some(device) = self.device.take() {
            device.remove();
        }
        for (number, disk) in (0..).zip(disks()) {
            let mut disk = disk.disk();
            disk.revive();
            disk.power_cut(how(number)).expect("cut the power");
        }
        drop_caches();
    }

    /// The number of a spare as device mapper prints it.
    pub(super) fn number(&self, spare: usize) -> String {
        device_number(&self.spares[spare].path()).expect("a device")
    }

    /// What `metadata_status` tells of a member: `of(0, "state")`.
    #[track_caller]
    pub(super) fn of(&self, member: u8, key: &str) -> Option<String> {
        let told = self.device().message("metadata_status").expect("told");
        let lines = told
            .lines()
            .filter(|line| line.starts_with(&format!("spare={member} ")));
        lines.flat_map(str::split_whitespace).find_map(|word| {
            let (name, value) = word.split_once('=')?;
            (name == key).then(|| value.to_string())
        })
    }

    /// The member that serves a sector, if one does.
    #[track_caller]
    pub(super) fn member_of(&self, sector: u64) -> Option<u8> {
        let told = self.device().message(&format!("verify {sector}"));
        let told = told.expect("verify");
        let (_, place) = told.split_once(": spare ")?;
        let mut words = place.split_whitespace();
        match words.next()? {
            "sector" => Some(0),
            number => number.parse().ok(),
        }
    }

    /// The sector of its spare that a block is served from.
    #[track_caller]
    pub(super) fn slot_of(&self, block: u64) -> u64 {
        let told = self.device().message(&format!("verify {}", block * BLOCK));
        let told = told.expect("verify");
        let mut words = told.split_whitespace().rev();
        // "... sector 1234 (auto)"
        let sector = words.nth(1).and_then(|word| word.parse().ok());
        sector.unwrap_or_else(|| panic!("block {block} has no slot: {told}"))
    }

    /// Frees slots of the first spare, whose blocks main takes back.
    #[track_caller]
    pub(super) fn free_slots(&self, blocks: Range<u64>) {
        let (first, sectors) = sectors_of(&blocks);
        self.heal(blocks);
        let line = format!("remove_remap {first} {sectors}");
        self.device().message(&line).expect("moved back");
    }

    /// Waits until the status says so: redundancy is made again in the background.
    #[track_caller]
    pub(super) fn expect(&self, key: &str, value: &str) {
        let is_so = || self.device().status_value(key).as_deref() == Some(value);
        assert!(
            eventually(is_so),
            "{key} is not {value} in {}",
            self.device().status()
        );
    }

    /// Whether all that there is is in order.
    #[track_caller]
    pub(super) fn expect_whole(&self, spares: usize) {
        self.wait_until_restored();
        self.expect("spares", &format!("{spares}/{spares}"));
        self.expect("metadata", "enabled");
        self.expect("superblocks", &(4 * spares).to_string());
        self.expect("replicas", "2");
    }

    /// The name of the set.
    #[track_caller]
    pub(super) fn uuid(&self) -> String {
        let told = self.device().message("metadata_status").expect("told");
        let uuid = told.lines().find_map(|line| line.strip_prefix("set_uuid="));
        uuid.expect("told").to_string()
    }

    /// Removes the device and makes it anew.
    #[track_caller]
    pub(super) fn again(&mut self, spares: &[usize], arguments: &str) {
        self.deactivate();
        self.activate(spares, arguments);
    }

    /// The same, after the power has failed or in order.
    #[track_caller]
    pub(super) fn again_after(&mut self, power: bool, spares: &[usize]) {
        if power {
            self.power_cut(|_| PowerCut::Drop);
        } else {
            self.deactivate();
        }
        self.activate(spares, "");
    }

    /// Main is good at these blocks from now on.
    pub(super) fn heal(&self, blocks: Range<u64>) {
        let (first, sectors) = sectors_of(&blocks);
        self.main.disk().heal(first, sectors);
    }

    /// Has main fail at these blocks from now on.
    pub(super) fn spoil(&self, blocks: Range<u64>) {
        let (first, sectors) = sectors_of(&blocks);
        let bad = Fault::bad(Direction::Both);
        self.main.disk().spoil(first, sectors, bad);
    }

    /// The same for writes only: what is there can still be read.
    pub(super) fn wear_out(&self, blocks: Range<u64>) {
        let (first, sectors) = sectors_of(&blocks);
        let bad = Fault::bad(Direction::Write);
        self.main.disk().spoil(first, sectors, bad);
    }

    /// Writes these blocks.
    pub(super) fn write(&self, blocks: Range<u64>, generation: u64) -> io::Result<()> {
        let (first, sectors) = sectors_of(&blocks);
        self.open()
            .write(first, &stamps(first, sectors, generation))
    }

    /// Has blocks remapped: main cannot take them any more, and they are written.
    #[track_caller]
    pub(super) fn remap(&self, blocks: Range<u64>, generation: u64) {
        self.spoil(blocks.clone());
        if let Err(error) = self.write(blocks.clone(), generation) {
            panic!("{blocks:?}: {error}, {}", self.device().status());
        }
    }

    /// Checks that blocks hold what was written.
    #[track_caller]
    pub(super) fn check(&self, blocks: Range<u64>, generation: u64) {
        let (first, sectors) = sectors_of(&blocks);
        let found = match self.open().read(first, sectors) {
            Ok(found) => found,
            Err(error) => panic!("{blocks:?}: {error}, {}", self.device().status()),
        };
        assert!(
            found == stamps(first, sectors, generation),
            "{blocks:?} are not of generation {generation}"
        );
    }

    /// Which of these generations a block is of; none if it is of no single one.
    #[track_caller]
    pub(super) fn generation_of(&self, block: u64, among: RangeInclusive<u64>) -> Option<u64> {
        let (first, sectors) = sectors_of(&(block..block + 1));
        let found = self.open().read(first, sectors).expect("read");
        let mut among = among.rev();
        among.find(|generation| found == stamps(first, sectors, *generation))
    }

    /// Checks that each of these blocks reads as an error.
    #[track_caller]
    pub(super) fn check_lost(&self, blocks: Range<u64>) {
        let device = self.open();
        for block in blocks {
            let read = device.read(block * BLOCK, BLOCK);
            assert!(read.is_err(), "block {block} can be read");
        }
    }

    /// The member that serves a block, if one does.
    #[track_caller]
    pub(super) fn place(&self, block: u64) -> Option<u8> {
        self.member_of(block * BLOCK)
    }

    /// Has all disks run on the same power.
    pub(super) fn run_on(&self, power: &Power) {
        for disk in std::iter::once(&self.main).chain(&self.spares) {
            disk.disk().run_on(power);
        }
    }
}

fn sectors_of(blocks: &Range<u64>) -> (u64, u64) {
    (blocks.start * BLOCK, (blocks.end - blocks.start) * BLOCK)
}
