// SPDX-License-Identifier: GPL-2.0
//! A machine of User Mode Linux: the kernel is a program of ours, the root's files are read by it as they
//! are, and nothing is emulated.
//!
//! Its console is standard error, what the command prints is a file. Processes of the guest are processes
//! of ours that end with the kernel, as it has asked for (`arch/um/kernel/skas/stub_exe.c`).
//!
//! Where nothing is waited for that happens outside, time travels (`time-travel`): the clock goes on by
//! itself while the guest works, and at once when all of it waits. So a sleep takes no time here, and who
//! waits for a while within the guest does so in vain however slow this machine is. With disks of ours
//! it must not: the guest would wait for them for years.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use super::Machine;
use super::Share;
use super::HUNG_TASK_SECONDS;

/// Runs as process 1. Whatever goes wrong is said where it is seen.
const INIT: &str = r#"#!/usr/bin/busybox sh
b=/usr/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
exec </dev/null >/dev/kmsg 2>&1
for d in tmp run mnt var/tmp; do $b mount -t tmpfs -o mode=1777 tmpfs /$d; done
$b mkdir -p /run/vm /run/lock /dev/shm
$b mount -t hostfs -o SHARE vm /run/vm
$b mount -t tmpfs tmpfs /dev/shm
exec /bin/sh /run/vm/start
"#;

/// What the command prints. It is outside as soon as it was printed.
const OUTPUT: &str = "output";

/// What comes before the start script of all machines.
pub(super) fn prelude(machine: &Machine) -> String {
    let mut script = match machine.interactive {
        true => "console=/dev/tty0\n".to_string(),
        false => format!("output=/run/vm/{OUTPUT}\n"),
    };
    for letter in ('a'..='z').take(machine.disks.len()) {
        script += &format!("ln -s ubd{letter} /dev/vd{letter}\n");
    }
    script
}

/// Where the command's output is to be read.
pub(super) fn output(share: &Share) -> io::Result<fs::File> {
    fs::File::create_new(share.path.join(OUTPUT))?;
    fs::File::open(share.path.join(OUTPUT))
}

/// The command that is the machine. All that it needs is in `share` then.
pub(super) fn command(machine: &Machine, share: &Share) -> io::Result<Command> {
    if machine.counting {
        return Err(io::Error::other(
            "the quick kernel's clock cannot count instructions: this needs QEMU",
        ));
    }
    let init = share.path.join("init");
    fs::write(&init, INIT.replace("SHARE", text(&share.path)?))?;
    fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;

    // The machine must not outlive whoever waits for it, nor leave its memory behind when it dies.
    let mut uml = Command::new("setpriv");
    // Where its memory is: /dev/shm may be small, and not for programs.
    uml.env("TMPDIR", std::env::temp_dir());
    uml.args(["--pdeathsig", "KILL", "prlimit", "--core=0", "--"])
        .arg(machine.kernel.image())
        .args(["seccomp=on", "ncpus=1"])
        .arg(format!("mem={}M", machine.memory_mib))
        .arg(joined("uml_dir=", &share.path))
        .arg("umid=uml")
        .args(["root=none", "rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(joined("init=", &init))
        .args(["con=null", "console=tty0"])
        .arg(match machine.interactive {
            true => "con0=fd:0,fd:1",
            false => "con0=null,fd:2",
        })
        .arg(format!("loglevel={}", machine.log_level()))
        // Anything that hangs or breaks ends the machine at once, with the reason in its log.
        .args(["printk.devkmsg=on", "panic=-1", "oops=panic"])
        .arg(format!(
            "sysctl.kernel.hung_task_timeout_secs={}",
            HUNG_TASK_SECONDS * machine.kernel.kind().slowness()
        ))
        .arg("sysctl.kernel.hung_task_panic=1")
        .args(machine.kernel.kind().arguments());
    if machine.disks.is_empty() && !machine.interactive {
        uml.arg("time-travel");
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        // What comes behind a comma or a colon is a second file.
        if text(disk)?.contains([',', ':']) {
            return Err(io::Error::other(format!(
                "{}: the quick kernel takes no such name",
                disk.display()
            )));
        }
        uml.arg(joined(&format!("ubd{index}="), disk));
    }
    if !machine.interactive {
        uml.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(share.console())?);
    }
    Ok(uml)
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut joined = OsString::from(option);
    joined.push(path);
    joined
}

/// The kernel's command line is made of words.
fn text(path: &Path) -> io::Result<&str> {
    path.as_os_str()
        .to_str()
        .filter(|text| !text.contains(char::is_whitespace))
        .ok_or_else(|| {
            io::Error::other(format!(
                "{}: a name that a kernel cannot be told",
                OsStr::new(path).to_string_lossy()
            ))
        })
}
