// SPDX-License-Identifier: GPL-2.0
//! A remapped device on two sick disks: what most tests stand on.

use std::io;
use std::path::Path;

use sickdisk::Options;
use sickdisk::PowerCut;
use sickdisk::SickDisk;

use super::device::Mapped;
use super::device::Refusal;
use super::io::Direct;
use super::module;

/// Main and spare, both sick when told so, and the device made of them.
pub struct Remap {
    // First, because it has to go first.
    device: Option<Mapped>,
    /// The main disk.
    pub main: SickDisk,
    /// The spare disk.
    pub spare: SickDisk,
    arguments: String,
}

impl Remap {
    /// Size of the main disk that `new` makes, in sectors.
    pub const MAIN_SECTORS: u64 = 64 << 11;
    /// Size of the spare disk that `new` makes, in sectors.
    pub const SPARE_SECTORS: u64 = 8 << 11;

    /// Main of 64 MiB, blank spare of 8 MiB, both with blocks of `block` bytes.
    #[track_caller]
    pub fn new(block: u32) -> Self {
        Self::with(block, "")
    }

    /// The same, with optional arguments ("2 auto_remap off").
    #[track_caller]
    pub fn with(block: u32, arguments: &str) -> Self {
        let main = Options::memory(Self::MAIN_SECTORS * sickdisk::SECTOR).logical_block(block);
        let spare = Options::memory(Self::SPARE_SECTORS * sickdisk::SECTOR).logical_block(block);
        Self::on(main, spare, arguments)
    }

    /// The device on disks of these kinds.
    #[track_caller]
    pub fn on(main: Options, spare: Options, arguments: &str) -> Self {
        let mut remap = Self::inactive(main, spare, arguments);
        remap.activate();
        remap
    }

    /// Only the disks, and the module loaded.
    #[track_caller]
    pub fn inactive(main: Options, spare: Options, arguments: &str) -> Self {
        module::load();
        Self {
            device: None,
            main: SickDisk::start(main).expect("start the main disk"),
            spare: SickDisk::start(spare).expect("start the spare disk"),
            arguments: arguments.into(),
        }
    }

    /// The table line.
    pub fn line(&self) -> String {
        format!(
            "0 {} dm-remap {} {} {}",
            self.main.disk().sectors(),
            self.main.path().display(),
            self.spare.path().display(),
            self.arguments
        )
    }

    /// Makes the device, if the spare allows it.
    pub fn try_activate(&mut self) -> Result<(), Refusal> {
        self.device = Some(Mapped::try_new(&self.line())?);
        Ok(())
    }

    /// Makes the device.
    #[track_caller]
    pub fn activate(&mut self) {
        if let Err(refusal) = self.try_activate() {
            panic!("{}: {refusal:?}", self.line());
        }
    }

    /// Removes the device; the disks stay.
    #[track_caller]
    pub fn deactivate(&mut self) {
        self.device.take().expect("an active device").remove();
    }

    /// Removes the device if there is one.
    #[track_caller]
    pub fn give_up(&mut self) {
        if let Some(device) = self.device.take() {
            device.remove();
        }
    }

    /// Removes the device while another thread does something to the spare.
    #[track_caller]
    pub fn deactivate_while(&mut self, act: impl FnOnce(&SickDisk) + Send) {
        let (device, spare) = (self.device.take(), &self.spare);
        std::thread::scope(|scope| {
            scope.spawn(move || act(spare));
            if let Some(device) = device {
                device.remove();
            }
        });
    }

    /// Removes the device and makes it again.
    #[track_caller]
    pub fn reactivate(&mut self) {
        self.deactivate();
        self.activate();
    }

    /// The device.
    #[track_caller]
    pub fn device(&self) -> &Mapped {
        self.device.as_ref().expect("an active device")
    }

    /// The device, to be renamed.
    #[track_caller]
    pub fn device_mut(&mut self) -> &mut Mapped {
        self.device.as_mut().expect("an active device")
    }

    /// The device's path.
    #[track_caller]
    pub fn path(&self) -> std::path::PathBuf {
        self.device().path()
    }

    /// Where the spare's slots begin, in sectors. Its metadata is in front of them.
    #[track_caller]
    pub fn first_slot(&self) -> u64 {
        let told = self.device().message("metadata_status");
        let told = told.expect("metadata_status");
        let mut words = told.split_whitespace();
        let place = words.find_map(|word| word.strip_prefix("data_start="));
        place.expect("data_start").parse().expect("a number")
    }

    /// Where on the spare a sector of main is served from, if it is.
    #[track_caller]
    pub fn slot_of(&self, sector: u64) -> Option<u64> {
        let told = self
            .device()
            .message(&format!("verify {sector}"))
            .expect("verify");
        let (_, place) = told.split_once(": spare sector ")?;
        place.split_whitespace().next()?.parse().ok()
    }

    /// The device, for direct I/O.
    #[track_caller]
    pub fn open(&self) -> Direct {
        Direct::open(&self.path())
    }

    /// The power fails: what was not flushed is at the mercy of `how`, and what the module does
    /// from now on reaches no disk. Active again afterwards.
    #[track_caller]
    pub fn power_cut(&mut self, how: PowerCut) {
        self.power_off();
        self.power_on(how);
        self.activate();
    }

    /// The first half of it: the disks answer no more, and the device is removed.
    #[track_caller]
    pub fn power_off(&mut self) {
        for disk in [&self.main, &self.spare] {
            disk.disk()
                .die(sickdisk::Status::Offline, sickdisk::Direction::Both);
        }
        self.deactivate();
    }

    /// The second half: the disks are back.
    #[track_caller]
    pub fn power_on(&mut self, how: PowerCut) {
        for disk in [&self.main, &self.spare] {
            let mut disk = disk.disk();
            disk.revive();
            disk.power_cut(how).expect("cut the power");
        }
        super::io::drop_caches();
    }

    /// Restarts the records of both disks.
    pub fn record(&self) {
        self.main.disk().record_mut().restart(true);
        self.spare.disk().record_mut().restart(true);
    }
}

/// Names a block device as device mapper prints it: major:minor.
pub fn device_number(path: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let number = std::fs::metadata(path)?.rdev();
    Ok(format!("{}:{}", libc::major(number), libc::minor(number)))
}
