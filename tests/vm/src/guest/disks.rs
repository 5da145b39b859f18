// SPDX-License-Identifier: GPL-2.0
//! Disks that are not ours: other people's ideas of how a disk fails.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::module;
use super::run::succeed;
use super::wait::eventually;

/// As large as the requests of most disks may be, 1280 KiB: what an I/O of a MiB costs is not to depend on how
/// the driver splits it.
const LARGE: (&str, &str) = ("max_sectors", "2560");

/// Many requests at a time.
const TAGS: (&str, &str) = ("hw_queue_depth", "8192");

/// A disk of the null_blk driver, with memory behind it unless it is said otherwise.
#[derive(Debug)]
pub struct NullBlk {
    folder: PathBuf,
    index: String,
}

impl NullBlk {
    /// Makes a disk of `mib` MiB and these blocks.
    #[track_caller]
    pub fn new(mib: u32, block: u32) -> Self {
        Self::with(mib, block, &[])
    }

    /// The same, which does all I/O in the context of who asks for it: nobody ever waits for it.
    #[track_caller]
    pub fn inline(mib: u32, block: u32) -> Self {
        let disk = Self::with(mib, block, &[("irqmode", "0"), LARGE]);
        // With a scheduler, who is amid dispatching does so for others, and may be preempted.
        let queue = Path::new("/sys/class/block").join(disk.path().file_name().unwrap());
        fs::write(queue.join("queue/scheduler"), "none").expect("no scheduler");
        disk
    }

    /// The same, of zones of 4 MiB that are to be written from front to end.
    #[track_caller]
    pub fn zoned(mib: u32) -> Self {
        Self::with(mib, 4096, &[("zoned", "1"), ("zone_size", "4")])
    }

    /// The same, that reads and writes `mib_each_second` at most, with requests as small as many a disk
    /// wants them: the driver lets them through by whole requests, 50 times a second.
    #[track_caller]
    pub fn throttled(mib: u32, block: u32, mib_each_second: u32) -> Self {
        let speed = mib_each_second.to_string();
        Self::with(mib, block, &[("mbps", &speed), ("max_sectors", "256")])
    }

    /// A disk that takes and gives whatever it is asked for at once, without looking at the data: with no
    /// memory behind it, it costs nothing but the way through the block layer. That is the same for all such
    /// disks, but for one in 128: where a disk looks for a free tag is left to chance, and in the last 64
    /// it takes five instructions more.
    #[track_caller]
    pub fn hollow(mib: u32, block: u32) -> Self {
        Self::with(
            mib,
            block,
            &[("memory_backed", "0"), ("irqmode", "0"), TAGS, LARGE],
        )
    }

    #[track_caller]
    fn with(mib: u32, block: u32, more: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !module::is_loaded("null_blk") {
            succeed("modprobe null_blk nr_devices=0");
        }
        let configuration = Path::new("/sys/kernel/config");
        if !configuration.join("nullb").exists() {
            succeed("mount -t configfs configfs /sys/kernel/config");
        }
        let name = format!("nullb{}", 10 + COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = configuration.join("nullb").join(name);
        fs::create_dir(&folder).expect("make a null_blk device");
        let mut disk = Self {
            folder,
            index: String::new(),
        };
        disk.set("size", &mib.to_string());
        disk.set("blocksize", &block.to_string());
        disk.set("memory_backed", "1");
        for (attribute, value) in more {
            disk.set(attribute, value);
        }
        disk.set("power", "1");
        disk.index = disk.get("index");
        disk
    }

    /// Makes sectors fail, reads and writes.
    #[track_caller]
    pub fn spoil(&self, sector: u64, sectors: u64) {
        self.set("badblocks", &format!("+{sector}-{}", sector + sectors - 1));
    }

    /// Makes them good again.
    #[track_caller]
    pub fn heal(&self, sector: u64, sectors: u64) {
        self.set("badblocks", &format!("-{sector}-{}", sector + sectors - 1));
    }

    /// Bytes that were read of it so far.
    #[track_caller]
    pub fn bytes_read(&self) -> u64 {
        let path = self.path();
        let name = path.file_name().unwrap_or_default();
        let stat = Path::new("/sys/class/block").join(name).join("stat");
        let stat = fs::read_to_string(stat).expect("read the counters");
        let sectors = stat.split_whitespace().nth(2).map(str::parse::<u64>);
        sectors.expect("sectors").expect("a number") * sickdisk::SECTOR
    }

    /// The block device.
    pub fn path(&self) -> PathBuf {
        let by_name = self.folder.file_name().unwrap_or_default();
        let path = Path::new("/dev").join(by_name);
        if path.exists() {
            return path;
        }
        format!("/dev/nullb{}", self.index).into()
    }

    #[track_caller]
    fn set(&self, attribute: &str, value: &str) {
        let path = self.folder.join(attribute);
        fs::write(&path, value)
            .unwrap_or_else(|error| panic!("{value} > {}: {error}", path.display()));
    }

    #[track_caller]
    fn get(&self, attribute: &str) -> String {
        let path = self.folder.join(attribute);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_string()
    }
}

impl Drop for NullBlk {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("power"), "0");
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The disk of the scsi_debug driver: a real SCSI disk as far as the kernel can tell, with sense
/// data. There is one at a time.
#[derive(Debug)]
pub struct ScsiDebug {
    path: PathBuf,
}

impl ScsiDebug {
    /// Makes a disk of `mib` MiB; reads of the `bad` sectors from `first_bad` on fail with a
    /// medium error.
    #[track_caller]
    pub fn new(mib: u32, first_bad: u64, bad: u64) -> Self {
        succeed("modprobe sd_mod");
        // opts=2: medium errors, of all sectors if the count is 0. What comes by itself before a
        // probe must not fail.
        let opts = if bad == 0 { 0 } else { 2 };
        succeed(&format!(
            "modprobe scsi_debug dev_size_mb={mib} opts={opts} delay=0 \
             medium_error_start={first_bad} medium_error_count={bad}"
        ));
        let mut path = None;
        eventually(|| {
            path = Self::find();
            path.is_some()
        });
        Self {
            path: path.expect("scsi_debug made no disk"),
        }
    }

    fn find() -> Option<PathBuf> {
        let disks = fs::read_dir("/sys/class/block").ok()?;
        disks
            .flatten()
            .find(|disk| {
                fs::read_to_string(disk.path().join("device/model"))
                    .is_ok_and(|model| model.trim() == "scsi_debug")
            })
            .map(|disk| Path::new("/dev").join(disk.file_name()))
            .filter(|path| path.exists())
    }

    /// Adds a rule of scsi_debug's own: `2 -3 0x2a 0 0 2 3 0xc 0` fails the next three WRITE(10)
    /// with a check condition and this sense data.
    #[track_caller]
    pub fn rule(&self, rule: &str) {
        let path = self.rules();
        fs::write(&path, rule)
            .unwrap_or_else(|error| panic!("{rule} > {}: {error}", path.display()));
    }

    /// Removes rules by type and command: `2 0x2a`.
    #[track_caller]
    pub fn end_rule(&self, rule: &str) {
        self.rule(&format!("- {rule}"));
    }

    fn rules(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        let device = Path::new("/sys/class/block").join(name).join("device");
        let address = fs::canonicalize(&device).expect("the disk's SCSI device");
        let address = address.file_name().unwrap_or_default();
        Path::new("/sys/kernel/debug/scsi_debug")
            .join(address)
            .join("error")
    }

    /// The block device.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Drop for ScsiDebug {
    fn drop(&mut self) {
        let _ = super::run::run("modprobe -r scsi_debug");
    }
}
