// SPDX-License-Identifier: GPL-2.0
//! Device-mapper devices.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::ioctl;
use super::ioctl::Lines;
use super::kmsg::Kmsg;
use super::run::run;
use super::wait::FOR_EVER;

/// A device-mapper device; removed when dropped.
#[derive(Debug)]
pub struct Mapped {
    name: String,
    path: PathBuf,
    removed: bool,
}

/// Device mapper's "no".
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The error in words: "Invalid argument".
    pub error: String,
    /// What the kernel's log says about it, without what device mapper puts in front.
    pub reason: String,
}

impl Mapped {
    /// Makes a device with this table.
    pub fn try_new(table: &str) -> Result<Self, Refusal> {
        Self::create(table, false)
    }

    /// Makes a read-only device with this table.
    pub fn try_read_only(table: &str) -> Result<Self, Refusal> {
        Self::create(table, true)
    }

    fn create(table: &str, read_only: bool) -> Result<Self, Refusal> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let path = told(|| ioctl::make(&name, table, read_only))?;
        Ok(Self {
            name,
            path,
            removed: false,
        })
    }

    /// The same, for what must succeed.
    #[track_caller]
    pub fn new(table: &str) -> Self {
        Self::try_new(table).unwrap_or_else(|refusal| panic!("{table}: {refusal:?}"))
    }

    /// The block device.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The name that it has for device mapper.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it another name.
    #[track_caller]
    pub fn rename(&mut self, new: &str) {
        if let Err(refusal) = told(|| ioctl::rename(&self.name, new)) {
            panic!("{} is not renamed {new:?}: {refusal:?}", self.name);
        }
        self.name = new.into();
    }

    /// Sends a message and returns the reply.
    pub fn message(&self, text: &str) -> Result<String, Refusal> {
        let words: Vec<&str> = text.split_whitespace().collect();
        told(|| ioctl::message(&self.name, &words.join(" ")))
    }

    /// The status line.
    #[track_caller]
    pub fn status(&self) -> String {
        self.lines(Lines::Status)
    }

    /// A value of the status line: `status_value("health")` of `... health=1 ...`.
    #[track_caller]
    pub fn status_value(&self, key: &str) -> Option<String> {
        self.status().split_whitespace().find_map(|word| {
            let (name, value) = word.split_once('=')?;
            (name == key).then(|| value.to_string())
        })
    }

    /// The fraction at this place of the status line, counted from the version: remapped, pending
    /// and used slots, each with the capacity.
    #[track_caller]
    pub fn status_fraction(&self, place: usize) -> (u64, u64) {
        let status = self.status();
        let read = || {
            let mut words = status.split_whitespace();
            words.find(|word| *word == "v3.0")?;
            let (part, whole) = words.nth(place)?.split_once('/')?;
            Some((part.parse().ok()?, whole.parse().ok()?))
        };
        read().unwrap_or_else(|| panic!("no fraction {place} in {status:?}"))
    }

    /// How many blocks are remapped.
    #[track_caller]
    pub fn remapped(&self) -> u64 {
        self.status_fraction(0).0
    }

    /// How many blocks are pending.
    #[track_caller]
    pub fn pending(&self) -> u64 {
        self.status_fraction(1).0
    }

    /// The table that is in use.
    #[track_caller]
    pub fn table(&self) -> String {
        self.lines(Lines::Table)
    }

    /// Loads another table, not yet in use.
    pub fn load(&self, table: &str) -> Result<(), Refusal> {
        told(|| ioctl::load(&self.name, table, false))
    }

    /// The same, read-only.
    pub fn load_read_only(&self, table: &str) -> Result<(), Refusal> {
        told(|| ioctl::load(&self.name, table, true))
    }

    /// The table that was loaded and is not yet in use; empty if there is none.
    #[track_caller]
    pub fn loaded_table(&self) -> String {
        self.lines(Lines::LoadedTable)
    }

    /// Suspends: waits for I/O, and flushes and freezes the filesystem above.
    pub fn suspend(&self) -> Result<(), Refusal> {
        self.suspend_with(&[])
    }

    /// Suspends without flushing: I/O under way may come back to be queued.
    pub fn suspend_noflush(&self) -> Result<(), Refusal> {
        self.suspend_with(&["--noflush", "--nolockfs"])
    }

    /// Suspends with these options of dmsetup: `--noflush`, `--nolockfs`.
    #[track_caller]
    pub fn suspend_with(&self, options: &[&str]) -> Result<(), Refusal> {
        let flag = |option: &&str| match *option {
            "--noflush" => ioctl::FLAG_NOFLUSH,
            "--nolockfs" => ioctl::FLAG_SKIP_LOCKFS,
            other => panic!("what is {other}?"),
        };
        let flags = options.iter().map(flag).fold(0, |all, flag| all | flag);
        told(|| ioctl::suspend(&self.name, flags))
    }

    /// How many events there were.
    #[track_caller]
    pub fn events(&self) -> u64 {
        told(|| ioctl::events(&self.name)).unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    /// Waits for an event after number `seen`. Tells whether there is one, or whether there is no hope.
    pub fn wait_for_event(&self, seen: u64) -> bool {
        let seconds = FOR_EVER.as_secs();
        let line = format!("timeout {seconds} dmsetup wait {} {seen}", self.name);
        run(&line).status == 0
    }

    /// Resumes, with the table that was loaded last.
    pub fn resume(&self) -> Result<(), Refusal> {
        told(|| ioctl::resume(&self.name))
    }

    /// Removes it with these options of dmsetup, and does not try again if that is refused.
    pub fn remove_with(&mut self, options: &[&str]) -> Result<(), Refusal> {
        dmsetup(&[&["remove"], options, &[self.name.as_str()]].concat())?;
        self.removed = true;
        Ok(())
    }

    /// Removes it; it may be in use for a moment yet, but no longer.
    #[track_caller]
    pub fn remove(mut self) {
        self.removed = true;
        if let Err(refusal) = told(|| ioctl::remove(&self.name)) {
            panic!("{} is not removed: {refusal:?}", self.name);
        }
    }

    #[track_caller]
    fn lines(&self, what: Lines) -> String {
        told(|| ioctl::lines(&self.name, what))
            .unwrap_or_else(|refusal| panic!("{what:?} of {}: {refusal:?}", self.name))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(refusal) = told(|| ioctl::remove(&self.name)) {
            eprintln!("{} is not removed: {refusal:?}", self.name);
            // Best effort: the disks below shall be able to go.
            let _ = dmsetup(&["remove", "--force", &self.name]);
            if !std::thread::panicking() {
                panic!("{} could not be removed", self.name);
            }
        }
    }
}

/// Does something, and tells what the kernel's log says if that is refused.
fn told<T>(what: impl FnOnce() -> io::Result<T>) -> Result<T, Refusal> {
    let mut log = Kmsg::from_now();
    what().map_err(|error| Refusal::new(words(&error), &mut log))
}

/// An error as dmsetup has it.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    words.to_string()
}

impl Refusal {
    /// The reason is what the log has by now.
    fn new(error: String, log: &mut Kmsg) -> Self {
        let log = log.text();
        let reason: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("device-mapper:") || line.contains("dm-remap"))
            .filter(|line| !line.contains("ioctl: error adding target to table"))
            .map(|line| {
                line.rsplit_once("device-mapper: ")
                    .map_or(line, |(_, rest)| rest)
            })
            .collect();
        Self {
            error,
            reason: reason.join("\n"),
        }
    }
}

/// Runs dmsetup; no udev is there to be waited for.
fn dmsetup(arguments: &[&str]) -> Result<(), Refusal> {
    let mut log = Kmsg::from_now();
    let output = Command::new("dmsetup")
        .arg("--noudevsync")
        .args(arguments)
        .output()
        .expect("run dmsetup");
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let error = errors
        .lines()
        .find(|line| line.contains("ioctl"))
        .or_else(|| errors.lines().next())
        .and_then(|line| line.rsplit(": ").next())
        .unwrap_or("");
    Err(Refusal::new(error.to_string(), &mut log))
}
