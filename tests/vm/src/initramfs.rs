// SPDX-License-Identifier: GPL-2.0
//! The small first root file system: it mounts the real root and hands over.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// What the stock kernel has only as modules and the real root cannot be reached without, in the
/// order in which they depend on each other. A kernel with one of them built in has no such file.
const MODULES: [&str; 5] = [
    "fs/netfs/netfs.ko",
    "net/9p/9pnet.ko",
    "net/9p/9pnet_virtio.ko",
    "fs/9p/9p.ko",
    "drivers/block/virtio_blk.ko",
];

/// Runs as process 1. The root is shared read-only and never changes while we run, so it may be
/// cached without asking back; the folder `vm` is how the two sides talk, so it may not.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
# Whatever goes wrong from here on is said where it is seen.
exec </dev/null >/dev/kmsg 2>&1
for m in $($b cat /modules/order); do $b insmod /modules/$m; done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /root
for d in proc sys dev; do $b mount --move /$d /root/$d; done
for d in tmp run mnt var/tmp; do $b mount -t tmpfs -o mode=1777 tmpfs /root/$d; done
$b mkdir -p /root/run/vm /root/run/lock /root/dev/shm
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none vm /root/run/vm
$b mount -t tmpfs tmpfs /root/dev/shm
exec $b switch_root /root /bin/sh /run/vm/start
"#;

/// Builds the archive for the kernel whose modules are in `modules` (`/usr/lib/modules/VERSION`).
pub(crate) fn build(modules: &Path, busybox: &Path) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "proc", "sys", "dev", "root", "modules"] {
        archive.add(folder, DIRECTORY, &[]);
    }
    archive.add("bin/busybox", EXECUTABLE, &std::fs::read(busybox)?);
    archive.add("init", EXECUTABLE, INIT.as_bytes());

    let mut order = String::new();
    for module in MODULES {
        let Some(image) = read_module(&modules.join("kernel").join(module))? else {
            continue;
        };
        let name = module.rsplit('/').next().unwrap_or(module);
        archive.add(&format!("modules/{name}"), FILE, &image);
        order.push_str(name);
        order.push('\n');
    }
    archive.add("modules/order", FILE, order.as_bytes());
    Ok(archive.finish())
}

/// Reads a module, unpacked; `None` if the kernel has no such module.
fn read_module(plain: &Path) -> io::Result<Option<Vec<u8>>> {
    if plain.exists() {
        return std::fs::read(plain).map(Some);
    }
    for (suffix, unpack) in [(".xz", "xz"), (".zst", "zstd"), (".gz", "gzip")] {
        let mut packed = plain.as_os_str().to_owned();
        packed.push(suffix);
        let packed = PathBuf::from(packed);
        if !packed.exists() {
            continue;
        }
        let output = Command::new(unpack).arg("-dc").arg(&packed).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!(
                "{unpack} -dc {}: {}",
                packed.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        return Ok(Some(output.stdout));
    }
    Ok(None)
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;

/// A cpio archive in the "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        self.bytes.extend_from_slice(b"070701");
        let fields = [
            self.entries, // inode
            mode,
            0, // uid
            0, // gid
            1, // links
            0, // mtime
            data.len() as u32,
            0, // device, major
            0, // device, minor
            0, // special file, major
            0, // special file, minor
            name.len() as u32 + 1,
            0, // checksum, unused in this form
        ];
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
