// SPDX-License-Identifier: GPL-2.0
//! Virtual machines, from outside.
//!
//! ```no_run
//! use vmtest::machine::Machine;
//!
//! let outcome = Machine::new(["uname", "-r"])?.start()?.wait()?;
//! assert!(outcome.passed(), "{outcome}");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A [`Machine`] is a description; [`Running`] owns the process that is it, QEMU or User Mode Linux, and
//! dropping it kills it; an [`Outcome`] is what is left: how it ended, what the command printed, what the
//! kernel said.
//!
//! Threads: one reads what the command prints; it ends when the machine does.

mod output;
mod qemu;
mod uml;

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::process::ExitStatus;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use self::output::Output;
use self::output::Tail;
use crate::kernel::Kernel;
pub use crate::kernel::Kind;
use crate::verdict;
use crate::verdict::Fault;

/// How often a waiting thread looks whether the machine still runs.
const POLL: Duration = Duration::from_millis(10);

/// How many times its limit a machine may be there, busy or not: one that waits for ever uses no time of a
/// processor, and one beside others is given little of it.
const PATIENCE: u32 = 3;

/// How long a task may wait before the machine ends, on the stock kernel.
const HUNG_TASK_SECONDS: u32 = 90;

/// Tells the command how many times slower than on the stock kernel everything may be.
pub(crate) const SLOWNESS: &str = "DM_REMAP_SLOWNESS";

/// Tells the command what [`Kind`] of kernel it is on.
pub(crate) const KIND: &str = "DM_REMAP_KERNEL_KIND";

/// A virtual machine to be started.
#[derive(Clone, Debug)]
pub struct Machine {
    kernel: Kernel,
    command: Vec<OsString>,
    directory: PathBuf,
    environment: Vec<(OsString, OsString)>,
    disks: Vec<PathBuf>,
    memory_mib: u32,
    processors: u32,
    counting: bool,
    time_limit: Duration,
    echo: bool,
    interactive: bool,
    console_copy: Option<PathBuf>,
}

impl Machine {
    /// A machine that runs `command` (a program and its arguments, found in the root that this
    /// process has), and is switched off when the command ends.
    ///
    /// The kernel is the newest in `/usr/lib/modules` that has a bootable image, or the one whose
    /// version `KVER` holds; or the quick kernel or a debug kernel, if `DM_REMAP_QUICK_KERNEL` or
    /// `DM_REMAP_DEBUG_KERNEL` names its folder.
    pub fn new<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let kernel = Kernel::wanted()?;
        Ok(Self {
            memory_mib: kernel.kind().memory_mib(),
            kernel,
            command: command.into_iter().map(Into::into).collect(),
            directory: std::env::current_dir()?,
            environment: Vec::new(),
            disks: Vec::new(),
            processors: 2,
            counting: false,
            time_limit: Duration::from_secs(300),
            echo: false,
            interactive: false,
            console_copy: None,
        })
    }

    /// A machine that runs the ignored test `inside` of this very program, with the module that
    /// `DM_REMAP_MODULE` names: for tests that need a machine of their own.
    pub fn inside() -> io::Result<Self> {
        let program = std::env::current_exe()?.into_os_string();
        let arguments = ["--exact", "inside", "--ignored", "--nocapture"].map(Into::into);
        let module = std::env::var_os("DM_REMAP_MODULE")
            .ok_or_else(|| io::Error::other("DM_REMAP_MODULE does not name the module"))?;
        let machine = Self::new([vec![program], arguments.into()].concat())?;
        Ok(machine.env("DM_REMAP_MODULE", module))
    }

    /// Adds a disk: an image file, seen by the guest as the next `/dev/vdX`. What the guest wrote
    /// is in the file as soon as the guest was told so, also if the machine is killed.
    #[must_use]
    pub fn disk(mut self, image: impl Into<PathBuf>) -> Self {
        self.disks.push(image.into());
        self
    }

    /// Sets an environment variable of the command.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the machine's memory.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Sets how many processors there are, if the kernel can have several.
    #[must_use]
    pub fn processors(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// Makes the guest's clock stand for nothing but instructions, of all processors together, and the same
    /// program takes the same time again: waiting takes no time outside, and what is left to chance is the
    /// same each time.
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.counting = true;
        self
    }

    /// Sets how much time of a processor the machine may use, boot included, before it is killed, if it has
    /// the stock kernel; slower ones get more. On the clock it may take some times as long.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Passes on what the command prints while it runs.
    #[must_use]
    pub fn echo(mut self) -> Self {
        self.echo = true;
        self
    }

    /// Connects the command with our terminal, by way of the machine's console. The kernel's log
    /// is not read then.
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.interactive = true;
        self
    }

    /// Keeps a copy of the console's log at this place.
    #[must_use]
    pub fn keep_console(mut self, path: impl Into<PathBuf>) -> Self {
        self.console_copy = Some(path.into());
        self
    }

    /// What kind of kernel will run.
    pub fn kernel_kind(&self) -> Kind {
        self.kernel.kind()
    }

    /// The version of the kernel that will run.
    pub fn kernel_version(&self) -> &OsStr {
        self.kernel.version()
    }

    /// Switches the machine on.
    pub fn start(self) -> io::Result<Running> {
        let share = Share::new()?;
        fs::write(share.path.join("start"), self.start_script())?;
        let ended = Arc::new(AtomicBool::new(false));
        let is_program = self.kernel.kind().is_program();
        // Of what is printed inside, all is read; who talks to a person is not overheard.
        let printed = match is_program && !self.interactive {
            true => Some(Tail::new(uml::output(&share)?, Arc::clone(&ended))),
            false => None,
        };
        let mut command = match is_program {
            true => uml::command(&self, &share)?,
            false => qemu::command(&self, &share)?,
        };
        let mut child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start the machine: {error}"))
        })?;
        let output = Arc::new(Output::default());
        let reader = match (printed, child.stdout.take()) {
            (Some(tail), _) => Some(output.read(tail, self.echo)),
            (None, Some(stdout)) => Some(output.read(stdout, self.echo)),
            (None, None) => None,
        };
        Ok(Running {
            child,
            reader,
            ended,
            is_program,
            output,
            share,
            started: Instant::now(),
            time_limit: self.time_limit * self.kernel.kind().slowness(),
            console_copy: self.console_copy,
        })
    }

    /// What the console shows of the kernel's log.
    fn log_level(&self) -> u32 {
        match self.interactive {
            true => 4,
            false => 7,
        }
    }

    /// The script that the guest runs once the real root is there.
    fn start_script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        script.extend_from_slice(
            b"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/tmp TMPDIR=/tmp LC_ALL=C.UTF-8
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
ip link set lo up 2>/dev/null
",
        );
        let kind = self.kernel.kind();
        let prelude = match kind.is_program() {
            true => uml::prelude(self),
            false => qemu::PRELUDE.to_string(),
        };
        script.extend_from_slice(prelude.as_bytes());
        if let Some(commands) = self.kernel.mount_modules() {
            script.extend_from_slice(commands.as_bytes());
            script.push(b'\n');
        }
        script.extend_from_slice(b"cd ");
        quote(&mut script, self.directory.as_os_str());
        script.extend_from_slice(match self.interactive {
            true => b"\nbusybox setsid -c env",
            false => b"\nenv",
        });
        let ours = [
            (SLOWNESS, kind.slowness().to_string()),
            (KIND, kind.to_string()),
        ]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        for (name, value) in self.environment.iter().chain(&ours) {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            script.push(b' ');
            quote(&mut script, &pair);
        }
        for word in &self.command {
            script.push(b' ');
            quote(&mut script, word);
        }
        // A terminal that controls the command: for a shell's job control.
        let streams: &[u8] = match self.interactive {
            true => b" <$console >$console 2>&1",
            false => b" </dev/null >$output 2>&1",
        };
        script.extend_from_slice(streams);
        script.extend_from_slice(b"\necho $? > /run/vm/status\nexec busybox poweroff -f\n");
        script
    }
}

/// Appends a word in the shell's single quotes.
fn quote(script: &mut Vec<u8>, word: &OsStr) {
    script.push(b'\'');
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend_from_slice(b"'\\''"),
            _ => script.push(byte),
        }
    }
    script.push(b'\'');
}

/// The time of processors that a process has used, all its threads together; none if it is not there.
fn time_used(process: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = ticks.next()?.ok()? + ticks.next()?.ok()?;
    // What programs are told has always been in hundredths of a second.
    Some(Duration::from_millis(ticks * 10))
}

/// The folder that both sides see, gone when dropped. The console's log stands in it too.
#[derive(Debug)]
struct Share {
    path: PathBuf,
}

impl Share {
    fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!(
            "dm-remap-vm-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    fn console(&self) -> PathBuf {
        self.path.join("console")
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Nothing depends on it being gone.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A machine that is switched on. Dropping it is a power cut.
#[derive(Debug)]
pub struct Running {
    child: Child,
    reader: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
    is_program: bool,
    output: Arc<Output>,
    share: Share,
    started: Instant,
    time_limit: Duration,
    console_copy: Option<PathBuf>,
}

impl Running {
    /// Waits until the command has printed `text`: `false` if the machine ended or its time was
    /// over before.
    pub fn wait_for_text(&self, text: &str) -> bool {
        self.output.wait_for(text, || self.is_late())
    }

    fn is_late(&self) -> bool {
        let used = time_used(self.child.id()).unwrap_or_default();
        used >= self.time_limit || self.started.elapsed() >= self.time_limit * PATIENCE
    }

    /// Waits for the end.
    pub fn wait(mut self) -> io::Result<Outcome> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                let end = self.how_it_ended(status);
                return self.outcome(end);
            }
            if self.is_late() {
                self.kill()?;
                return self.outcome(End::TimeLimit);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Cuts the power: nothing is shut down, nothing is written back.
    pub fn power_cut(mut self) -> io::Result<Outcome> {
        let status = self.kill()?;
        let end = match status.signal() {
            Some(libc::SIGKILL) => End::PowerCut,
            // It ended by itself, before.
            _ => self.how_it_ended(status),
        };
        self.outcome(end)
    }

    fn how_it_ended(&self, status: ExitStatus) -> End {
        // A kernel that is a program dies as one.
        let is_crash = match status.signal() {
            Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE) => {
                self.is_program
            }
            _ => status.success(),
        };
        match self.command_status() {
            Some(status) => End::Command(status),
            None if is_crash => End::Crash,
            None => End::Failed(status.to_string()),
        }
    }

    fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    fn command_status(&self) -> Option<i32> {
        let text = fs::read_to_string(self.share.path.join("status")).ok()?;
        text.trim().parse().ok()
    }

    fn outcome(mut self, end: End) -> io::Result<Outcome> {
        self.ended.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            // It only panics if standard output does, and has nothing to say then.
            let _ = reader.join();
        }
        // An interactive machine has no log.
        let kernel_log = fs::read(self.share.console()).unwrap_or_default();
        let kernel_log = String::from_utf8_lossy(&kernel_log).replace('\r', "");
        if let Some(path) = &self.console_copy {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, &kernel_log)?;
        }
        Ok(Outcome {
            end,
            output: self.output.text(),
            faults: verdict::faults(&kernel_log),
            kernel_log,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.ended.store(true, Ordering::Release);
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The command ended with this exit status, and the machine was switched off.
    Command(i32),
    /// We cut the power.
    PowerCut,
    /// It ran too long, so we killed it.
    TimeLimit,
    /// The kernel gave up before the command ended.
    Crash,
    /// What the machine is made of failed: QEMU, or the program that is the kernel, before it was one.
    Failed(String),
}

/// What is left of a machine.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What the command printed, standard error included.
    pub output: String,
    /// The kernel's log.
    pub kernel_log: String,
    /// The lines of it that nobody wants to see.
    pub faults: Vec<Fault>,
}

impl Outcome {
    /// Whether the command succeeded and the kernel had nothing to complain about.
    pub fn passed(&self) -> bool {
        self.end == End::Command(0) && self.faults.is_empty()
    }

    /// The last lines of the kernel's log.
    pub fn kernel_log_tail(&self, lines: usize) -> String {
        let all: Vec<&str> = self.kernel_log.lines().collect();
        let tail = all.get(all.len().saturating_sub(lines)..);
        tail.unwrap_or_default().join("\n")
    }
}

impl fmt::Display for Outcome {
    /// What went wrong, with what helps to find out why; nothing if it passed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            End::Command(0) => (),
            End::Command(status) => writeln!(f, "the command ended with exit status {status}")?,
            End::PowerCut => writeln!(f, "the power was cut")?,
            End::TimeLimit => writeln!(f, "the machine ran too long and was killed")?,
            End::Crash => writeln!(f, "the kernel stopped before the command ended")?,
            End::Failed(status) => writeln!(f, "the machine itself failed: {status}")?,
        }
        if !self.faults.is_empty() {
            writeln!(f, "the kernel complained, {} times:", self.faults.len())?;
            for fault in self.faults.iter().take(20) {
                writeln!(f, "  {fault}")?;
            }
        }
        if matches!(self.end, End::TimeLimit | End::Crash | End::Failed(_))
            || !self.faults.is_empty()
        {
            writeln!(
                f,
                "the end of the kernel's log:\n{}",
                self.kernel_log_tail(40)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::time_used;

    #[test]
    fn time_is_what_a_process_has_used() {
        let us = std::process::id();
        let before = time_used(us).expect("we are there");
        let mut value = 1_u64;
        while time_used(us) < Some(before + Duration::from_millis(50)) {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("run sleep");
        assert!(time_used(child.id()) < Some(Duration::from_secs(10)));
        child.kill().expect("end it");
        child.wait().expect("wait for it");
        assert_eq!(time_used(child.id()), None);
    }
}
