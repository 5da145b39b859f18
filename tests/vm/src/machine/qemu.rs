// SPDX-License-Identifier: GPL-2.0
//! A machine that is emulated, by QEMU.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use super::Machine;
use super::Share;
use super::HUNG_TASK_SECONDS;
use crate::initramfs;

/// What comes before the start script of all machines.
pub(super) const PRELUDE: &str = "\
console=/dev/ttyS0
for port in /sys/class/virtio-ports/*; do
    [ \"$(cat $port/name)\" = output ] && output=/dev/${port##*/}
done
";

/// The command that is the machine. All that it needs is in `share` then.
pub(super) fn command(machine: &Machine, share: &Share) -> io::Result<Command> {
    let initramfs = share.path.join("initramfs");
    let busybox = Path::new("/usr/bin/busybox");
    fs::write(
        &initramfs,
        initramfs::build(machine.kernel.modules(), busybox)?,
    )?;
    // setpriv: the machine must not outlive whoever waits for it.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        // One thread for all processors: with several, a processor now and then executes what
        // another has patched over already, and the kernel dies of a breakpoint of its own
        // (`Oops: int3`). It takes no longer, as there are but few cores.
        .args(["-no-reboot", "-accel", "tcg,thread=single", "-cpu", "max"])
        .args(["-smp", &machine.processors.to_string()])
        .args(["-m", &machine.memory_mib.to_string()])
        .arg("-kernel")
        .arg(machine.kernel.image())
        .arg("-initrd")
        .arg(&initramfs)
        // Anything that hangs or breaks ends the machine at once, with the reason in its log.
        .arg("-append")
        .arg(format!(
            "console=ttyS0 loglevel={} printk.devkmsg=on panic=-1 oops=panic mitigations=off no_timer_check \
             sysctl.kernel.hung_task_timeout_secs={} sysctl.kernel.hung_task_panic=1{}",
            machine.log_level(),
            HUNG_TASK_SECONDS,
            // Addresses are the same each time, too.
            if machine.counting {
                " nokaslr norandmaps"
            } else {
                ""
            },
        ))
        .arg("-chardev")
        .arg(match machine.interactive {
            true => OsString::from("stdio,id=console,signal=off"),
            false => file_option("file,id=console,path=", &share.console()),
        })
        .args(["-serial", "chardev:console"])
        .arg("-virtfs")
        .arg("local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap")
        .arg("-virtfs")
        .arg(file_option(
            "local,mount_tag=vm,security_model=none,path=",
            &share.path,
        ))
        .args(["-device", "virtio-serial-pci"])
        // Not "stdio": where standard input ends, QEMU takes that for the other side gone.
        .args(["-chardev", "file,id=output,path=/proc/self/fd/1"])
        .args(["-device", "virtserialport,chardev=output,name=output"])
        .args(["-device", "virtio-rng-pci"]);
    // Not for all machines, which would not notice then that others have our processor: it makes them take
    // half as much time again.
    if machine.counting {
        qemu.args(["-icount", "shift=0,sleep=off", "-seed", "1"])
            .args(["-rtc", "base=2026-01-01,clock=vm"]);
    }
    for disk in &machine.disks {
        qemu.arg("-drive").arg(file_option(
            "if=virtio,format=raw,cache=writeback,discard=unmap,file=",
            disk,
        ));
    }
    if !machine.interactive {
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    }
    Ok(qemu)
}

/// An option whose last value is a file name; QEMU doubles commas inside values.
fn file_option(before: &str, path: &Path) -> OsString {
    let mut option = before.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        option.push(byte);
        if byte == b',' {
            option.push(byte);
        }
    }
    OsStr::from_bytes(&option).to_owned()
}
