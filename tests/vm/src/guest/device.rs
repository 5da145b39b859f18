// SPDX-License-Identifier: GPL-2.0
//! Device-mapper devices, by way of dmsetup.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

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
    /// The error in words, as dmsetup gives it: "Invalid argument".
    pub error: String,
    /// What the kernel's log says about it, without what device mapper puts in front.
    pub reason: String,
}

impl Mapped {
    /// Makes a device with this table.
    pub fn try_new(table: &str) -> Result<Self, Refusal> {
        Self::create(&["--table", table])
    }

    /// Makes a read-only device with this table.
    pub fn try_read_only(table: &str) -> Result<Self, Refusal> {
        Self::create(&["--readonly", "--table", table])
    }

    fn create(arguments: &[&str]) -> Result<Self, Refusal> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        dmsetup(&[&["create", &name], arguments].concat())?;
        let mut device = Self {
            name,
            path: PathBuf::new(),
            removed: false,
        };
        device.path = device.find_node();
        Ok(device)
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

    /// The kernel's own node: those in /dev/mapper are made by udev, which does not run here.
    fn find_node(&self) -> PathBuf {
        let devices = std::fs::read_dir("/sys/class/block").expect("read /sys/class/block");
        let ours = devices.flatten().find(|device| {
            std::fs::read_to_string(device.path().join("dm/name"))
                .is_ok_and(|name| name.trim() == self.name)
        });
        let ours = ours.expect("the device has appeared").file_name();
        Path::new("/dev").join(ours)
    }

    /// The name that it has for device mapper.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message and returns the reply.
    pub fn message(&self, text: &str) -> Result<String, Refusal> {
        // What follows is no option, whatever it looks like.
        let mut arguments = vec!["message", "--", &self.name, "0"];
        arguments.extend(text.split_whitespace());
        dmsetup(&arguments).map(|reply| reply.trim_end().to_string())
    }

    /// The status line.
    #[track_caller]
    pub fn status(&self) -> String {
        self.must(&["status"])
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
        self.must(&["table"])
    }

    /// Loads another table, not yet in use.
    pub fn load(&self, table: &str) -> Result<(), Refusal> {
        dmsetup(&["load", &self.name, "--table", table]).map(drop)
    }

    /// The same, read-only.
    pub fn load_read_only(&self, table: &str) -> Result<(), Refusal> {
        dmsetup(&["load", &self.name, "--readonly", "--table", table]).map(drop)
    }

    /// The table that was loaded and is not yet in use; empty if there is none.
    #[track_caller]
    pub fn loaded_table(&self) -> String {
        self.must(&["table", "--inactive"])
    }

    /// Suspends: waits for I/O, and flushes and freezes the filesystem above.
    pub fn suspend(&self) -> Result<(), Refusal> {
        dmsetup(&["suspend", &self.name]).map(drop)
    }

    /// Suspends without flushing: I/O under way may come back to be queued.
    pub fn suspend_noflush(&self) -> Result<(), Refusal> {
        dmsetup(&["suspend", "--noflush", "--nolockfs", &self.name]).map(drop)
    }

    /// Suspends with these options of dmsetup.
    pub fn suspend_with(&self, options: &[&str]) -> Result<(), Refusal> {
        dmsetup(&[&["suspend"], options, &[self.name.as_str()]].concat()).map(drop)
    }

    /// How many events there were.
    #[track_caller]
    pub fn events(&self) -> u64 {
        let told = self.must(&["info", "--columns", "--noheadings", "-o", "events"]);
        told.trim()
            .parse()
            .unwrap_or_else(|_| panic!("{told:?} events"))
    }

    /// Waits for an event after number `seen`. Tells whether there is one, or whether there is no hope.
    pub fn wait_for_event(&self, seen: u64) -> bool {
        let seconds = FOR_EVER.as_secs();
        let line = format!("timeout {seconds} dmsetup wait {} {seen}", self.name);
        run(&line).status == 0
    }

    /// Resumes, with the table that was loaded last.
    pub fn resume(&self) -> Result<(), Refusal> {
        dmsetup(&["resume", &self.name]).map(drop)
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
        self.must(&["remove", "--retry"]);
    }

    #[track_caller]
    fn must(&self, arguments: &[&str]) -> String {
        let mut all = arguments.to_vec();
        all.push(&self.name);
        dmsetup(&all)
            .unwrap_or_else(|refusal| panic!("dmsetup {}: {refusal:?}", all.join(" ")))
            .trim_end()
            .to_string()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(refusal) = dmsetup(&["remove", "--retry", &self.name]) {
            eprintln!("dmsetup remove {}: {refusal:?}", self.name);
            // Best effort: the disks below shall be able to go.
            let _ = dmsetup(&["remove", "--force", &self.name]);
            if !std::thread::panicking() {
                panic!("{} could not be removed", self.name);
            }
        }
    }
}

/// Runs dmsetup; no udev is there to be waited for.
fn dmsetup(arguments: &[&str]) -> Result<String, Refusal> {
    let mut log = Kmsg::from_now();
    let output = Command::new("dmsetup")
        .arg("--noudevsync")
        .args(arguments)
        .output()
        .expect("run dmsetup");
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let error = errors
        .lines()
        .find(|line| line.contains("ioctl"))
        .or_else(|| errors.lines().next())
        .and_then(|line| line.rsplit(": ").next())
        .unwrap_or("")
        .to_string();
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
    Err(Refusal {
        error,
        reason: reason.join("\n"),
    })
}
