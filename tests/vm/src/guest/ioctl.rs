// SPDX-License-Identifier: GPL-2.0
//! Device mapper's own interface: what `dmsetup` does, without a process for each step, which takes a tenth of a
//! second where everything is emulated. See include/uapi/linux/dm-ioctl.h.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::run::succeed;
use super::wait::eventually;

const CONTROL: &str = "/dev/mapper/control";

/// The length of `struct dm_ioctl`, behind which there is what belongs to the command.
const HEADER: usize = 312;

/// The length of `struct dm_target_spec`, behind which there are the target's parameters.
const TARGET: usize = 40;

/// How much room there is for an answer at first, as dmsetup has it: one that is longer has the command given again.
const ROOM: usize = 16 << 10;

/// Somebody without rights.
const NOBODY: libc::uid_t = 65534;

const DEV_CREATE: u32 = 3;
const DEV_REMOVE: u32 = 4;
const DEV_RENAME: u32 = 5;
const DEV_SUSPEND: u32 = 6;
const DEV_STATUS: u32 = 7;
const TABLE_LOAD: u32 = 9;
const TABLE_STATUS: u32 = 12;
const TARGET_MESSAGE: u32 = 14;

const FLAG_READ_ONLY: u32 = 1 << 0;
const FLAG_SUSPEND: u32 = 1 << 1;
const FLAG_STATUS_TABLE: u32 = 1 << 4;
const FLAG_BUFFER_FULL: u32 = 1 << 8;
pub(super) const FLAG_SKIP_LOCKFS: u32 = 1 << 10;
pub(super) const FLAG_NOFLUSH: u32 = 1 << 11;
const FLAG_QUERY_INACTIVE: u32 = 1 << 12;
const FLAG_DATA_OUT: u32 = 1 << 16;

/// A command.
struct Command<'a> {
    number: u32,
    name: &'a str,
    flags: u32,
    targets: u32,
    /// What stands behind the header.
    data: Vec<u8>,
}

impl<'a> Command<'a> {
    fn new(number: u32, name: &'a str) -> Self {
        Self {
            number,
            name,
            flags: 0,
            targets: 0,
            data: Vec::new(),
        }
    }

    fn flags(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    fn data(mut self, data: Vec<u8>) -> Self {
        self.data = data;
        self
    }

    fn targets(mut self, targets: u32) -> Self {
        self.targets = targets;
        self
    }

    /// A message. Its sector is zero, and the text ends with one.
    fn message(name: &'a str, text: &[u8]) -> Self {
        Self::new(TARGET_MESSAGE, name).data([&[0; 8], text, &[0]].concat())
    }

    /// Gives the command. In a thread of its own, as a process would be: suspends and long messages end at a signal, and the
    /// kernel sends something like it to who has had a ring of io_uring that is being taken apart, as disks of ours had.
    fn give(&self) -> io::Result<Answer> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.give_here());
            thread.join().expect("a command")
        })
    }

    /// The same, again and again until there is room for the answer.
    fn give_here(&self) -> io::Result<Answer> {
        if !Path::new(CONTROL).exists() {
            succeed("modprobe dm_mod");
        }
        self.give_to(&File::open(CONTROL)?)
    }

    fn give_to(&self, control: &File) -> io::Result<Answer> {
        let mut room = (HEADER + self.data.len()).next_multiple_of(ROOM);
        loop {
            let mut answer = Answer(vec![0; room / 8]);
            // Version 4.0.0 is what everybody speaks.
            answer.put(0, &4_u32.to_ne_bytes());
            answer.put(12, &(room as u32).to_ne_bytes());
            answer.put(16, &(HEADER as u32).to_ne_bytes());
            answer.put(20, &self.targets.to_ne_bytes());
            answer.put(Answer::FLAGS, &self.flags.to_ne_bytes());
            answer.put(48, self.name.as_bytes());
            answer.put(HEADER, &self.data);
            // _IOWR(DM_IOCTL, number, struct dm_ioctl)
            let request = (3 << 30) | ((HEADER as u32) << 16) | (0xfd << 8) | self.number;
            // SAFETY: the memory is as long as it says, and the kernel stays inside that.
            let result =
                unsafe { libc::ioctl(control.as_raw_fd(), request.into(), answer.0.as_mut_ptr()) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
            if answer.number(Answer::FLAGS) & FLAG_BUFFER_FULL == 0 {
                return Ok(answer);
            }
            room *= 2;
        }
    }
}

/// `struct dm_ioctl` and what is behind it, in words of 64 bits for their alignment.
struct Answer(Vec<u64>);

impl Answer {
    const DATA_START: usize = 16;
    const TARGETS: usize = 20;
    const FLAGS: usize = 28;
    const EVENTS: usize = 32;
    const DEVICE: usize = 40;

    fn bytes(&self) -> &[u8] {
        let length = self.0.len() * 8;
        // SAFETY: these words, seen as the bytes that they are.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), length) }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let length = self.0.len() * 8;
        // SAFETY: as in `bytes`, and nobody else has them.
        let all: &mut [u8] =
            unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) };
        all[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn number(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.bytes()[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }

    fn long(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.bytes()[at..at + 8]);
        u64::from_ne_bytes(bytes)
    }

    /// The text that begins there and ends with a zero.
    fn text(&self, at: usize) -> String {
        let bytes = self.bytes().get(at..).unwrap_or(&[]);
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or(&[]);
        String::from_utf8_lossy(text).into_owned()
    }
}

/// Creates a device without a table, and tells its node: the kernel's own, as no udev runs here that makes others.
fn create(name: &str) -> io::Result<PathBuf> {
    let answer = Command::new(DEV_CREATE, name).give()?;
    let device = answer.long(Answer::DEVICE);
    // `huge_encode_dev` of the kernel: the upper part of the minor number is behind the major one.
    let minor = (device & 0xff) | (device >> 12 & 0xf_ff00);
    Ok(format!("/dev/dm-{minor}").into())
}

/// Makes a device with this table, in use, and tells its node. If that is refused, there is no device.
pub(super) fn make(name: &str, table: &str, read_only: bool) -> io::Result<PathBuf> {
    let path = create(name)?;
    let made = load(name, table, read_only).and_then(|()| resume(name));
    if made.is_err() {
        remove(name)?;
    }
    made.map(|()| path)
}

/// A table of one target.
fn whole(sectors: u64, target: &str, parameters: &str) -> String {
    format!("0 {sectors} {target} {parameters}")
}

/// Loads a table, one target a line: "0 1024 linear /dev/vda 0".
pub(super) fn load(name: &str, table: &str, read_only: bool) -> io::Result<()> {
    let mut data = Vec::new();
    let mut targets = 0;
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let target = target(line).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        data.extend(target);
        targets += 1;
    }
    let flags = match read_only {
        true => FLAG_READ_ONLY,
        false => 0,
    };
    let command = Command::new(TABLE_LOAD, name).flags(flags).data(data);
    command.targets(targets).give().map(drop)
}

/// `struct dm_target_spec` and the parameters behind it.
fn target(line: &str) -> Option<Vec<u8>> {
    let mut rest = line;
    let mut word = || {
        let (word, behind) = rest
            .trim_start()
            .split_once(' ')
            .unwrap_or((rest.trim(), ""));
        rest = behind;
        word
    };
    let (start, length, kind) = (word(), word(), word());
    let (start, length): (u64, u64) = (start.parse().ok()?, length.parse().ok()?);
    // The kernel takes one away again, as dmsetup knows.
    let parameters = rest.trim().replace('\\', "\\\\");
    let end = (TARGET + parameters.len() + 1).next_multiple_of(8);
    let mut spec = vec![0; end];
    spec[..8].copy_from_slice(&start.to_ne_bytes());
    spec[8..16].copy_from_slice(&length.to_ne_bytes());
    spec[20..24].copy_from_slice(&(end as u32).to_ne_bytes());
    spec[24..TARGET - 1]
        .get_mut(..kind.len())?
        .copy_from_slice(kind.as_bytes());
    spec[TARGET..TARGET + parameters.len()].copy_from_slice(parameters.as_bytes());
    Some(spec)
}

/// Suspends, with `FLAG_NOFLUSH` and `FLAG_SKIP_LOCKFS` or not.
pub(super) fn suspend(name: &str, flags: u32) -> io::Result<()> {
    let command = Command::new(DEV_SUSPEND, name).flags(FLAG_SUSPEND | flags);
    command.give().map(drop)
}

/// Resumes, with the table that was loaded last.
pub(super) fn resume(name: &str) -> io::Result<()> {
    // It is the suspend flag that makes it a suspend.
    Command::new(DEV_SUSPEND, name).give().map(drop)
}

/// Renames a device.
pub(super) fn rename(name: &str, new: &str) -> io::Result<()> {
    let data = [new.as_bytes(), &[0]].concat();
    Command::new(DEV_RENAME, name).data(data).give().map(drop)
}

/// Removes a device. It may be in use for a moment yet.
pub(super) fn remove(name: &str) -> io::Result<()> {
    let mut result = Ok(());
    eventually(|| {
        result = remove_now(name);
        !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EBUSY))
    });
    result
}

fn remove_now(name: &str) -> io::Result<()> {
    Command::new(DEV_REMOVE, name).give().map(drop)
}

/// Sends a message to the first target of a device, and returns the reply.
pub fn message(name: &str, text: &str) -> io::Result<String> {
    Command::message(name, text.as_bytes()).give().map(reply)
}

/// The same in the caller's thread, for who watches what that one does.
pub fn message_here(name: &str, text: &str) -> io::Result<String> {
    Command::message(name, text.as_bytes())
        .give_here()
        .map(reply)
}

/// The same of any bytes but zero.
pub fn message_of_bytes(name: &str, bytes: &[u8]) -> io::Result<String> {
    Command::message(name, bytes).give().map(reply)
}

/// The same as [`message`], by somebody without any rights, whom root has let open the way to device mapper.
pub fn message_without_rights(name: &str, text: &str) -> io::Result<String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let control = File::open(CONTROL)?;
            // SAFETY: this call changes the user of this thread alone, which ends here; no memory is involved.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(result, 0, "be somebody else");
            let command = Command::message(name, text.as_bytes());
            command.give_to(&control).map(reply)
        });
        thread.join().expect("a command")
    })
}

fn reply(answer: Answer) -> String {
    if answer.number(Answer::FLAGS) & FLAG_DATA_OUT == 0 {
        return String::new();
    }
    let reply = answer.text(answer.number(Answer::DATA_START) as usize);
    reply.trim_end().to_string()
}

/// What can be asked of a device, line by line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    Status,
    /// The table that is in use.
    Table,
    /// The one that was loaded and is not in use yet.
    LoadedTable,
}

/// What a device's targets say, each in a line behind its place and its name.
pub(super) fn lines(name: &str, what: Lines) -> io::Result<String> {
    let flags = match what {
        Lines::Status => 0,
        Lines::Table => FLAG_STATUS_TABLE,
        Lines::LoadedTable => FLAG_STATUS_TABLE | FLAG_QUERY_INACTIVE,
    };
    let answer = Command::new(TABLE_STATUS, name).flags(flags).give()?;
    let first = answer.number(Answer::DATA_START) as usize;
    let mut at = first;
    let mut text = String::new();
    for _ in 0..answer.number(Answer::TARGETS) {
        let (start, length) = (answer.long(at), answer.long(at + 8));
        let (kind, told) = (answer.text(at + 24), answer.text(at + TARGET));
        text += &format!("{start} {length} {kind} {told}\n");
        at = first + answer.number(at + 20) as usize;
    }
    Ok(text.trim_end().to_string())
}

/// How many events there were on a device.
pub(super) fn events(name: &str) -> io::Result<u64> {
    let answer = Command::new(DEV_STATUS, name).give()?;
    Ok(answer.number(Answer::EVENTS).into())
}

/// A device-mapper device with a table of one target, for tests that make hundreds of them. It is
/// removed when dropped.
pub struct QuickDevice {
    name: String,
    path: PathBuf,
    removed: bool,
}

impl QuickDevice {
    /// Makes it.
    pub fn new(sectors: u64, target: &str, parameters: &str) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("quick{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let path = make(&name, &whole(sectors, target, parameters), false)?;
        Ok(Self {
            name,
            path,
            removed: false,
        })
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that it has for device mapper.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message and returns the reply.
    pub fn message(&self, text: &str) -> io::Result<String> {
        message(&self.name, text)
    }

    /// Removes it. It may be in use for a moment yet.
    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        remove(&self.name)
    }
}

impl Drop for QuickDevice {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if let Err(error) = remove(&self.name) {
            eprintln!("{} could not be removed: {error}", self.name);
        }
    }
}

/// A device that is made, given tables and removed step by step. Removed when dropped.
pub struct Quick {
    name: String,
    removed: bool,
}

impl Quick {
    /// Makes the device, without a table.
    pub fn new(name: &str) -> io::Result<Self> {
        create(name)?;
        let name = name.to_string();
        Ok(Self {
            name,
            removed: false,
        })
    }

    /// Loads a table of one target.
    pub fn load(&self, sectors: u64, target: &str, parameters: &str) -> io::Result<()> {
        load(&self.name, &whole(sectors, target, parameters), false)
    }

    /// Resumes, with the table that was loaded last.
    pub fn resume(&self) -> io::Result<()> {
        resume(&self.name)
    }

    /// Sends a message and returns the reply.
    pub fn message(&self, text: &str) -> io::Result<String> {
        message(&self.name, text)
    }

    /// Removes it.
    pub fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        remove_now(&self.name)
    }
}

impl Drop for Quick {
    fn drop(&mut self) {
        if !self.removed {
            let _ = remove_now(&self.name);
        }
    }
}

/// Makes a device with a table of this one target, and removes it, whatever came of it. Says
/// whether the device was there in between.
pub fn make_and_remove(name: &str, sectors: u64, target: &str, parameters: &str) -> io::Result<()> {
    make(name, &whole(sectors, target, parameters), false)?;
    remove_now(name)
}
