// SPDX-License-Identifier: GPL-2.0
//! Which kernel a machine runs: the stock one of the root that we are in, or one of ours.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// Where a kernel looks for its modules.
const MODULES: &str = "/usr/lib/modules";

/// Names the quick kernel's folder (see scripts/quick-kernel) if that one is to be used.
const QUICK_KERNEL: &str = "DM_REMAP_QUICK_KERNEL";

/// Names the debug kernel's folder if that one is to be used.
const DEBUG_KERNEL: &str = "DM_REMAP_DEBUG_KERNEL";

/// What sorts of kernels there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's own, in QEMU: what people have.
    Stock,
    /// A program of this machine, User Mode Linux, which boots at once.
    Quick,
    /// The same, and it looks for mistakes.
    Debug,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Stock, Self::Quick, Self::Debug];

    /// Whether it is a program of this machine, instead of a kernel for an emulated one. There is one
    /// processor then, without debug registers, and where all disks are inside, its clock goes on at once
    /// when everything waits.
    pub fn is_program(self) -> bool {
        self != Self::Stock
    }

    /// Whether it looks for mistakes that another one overlooks, and takes its time.
    pub fn is_debug(self) -> bool {
        self == Self::Debug
    }

    /// How many times slower everything is than on the stock kernel, at the most.
    pub fn slowness(self) -> u32 {
        match self {
            Self::Stock | Self::Quick => 1,
            Self::Debug => 4,
        }
    }

    /// What its command line has besides.
    pub(crate) fn arguments(self) -> Option<&'static str> {
        match self {
            Self::Stock | Self::Quick => None,
            // KASAN is to report every mistake, not only the first one since boot. What each processor keeps
            // of a slab (a sheaf) still names the objects that it gave out, so that kmemleak overlooks these;
            // there are none where slabs are checked (calculate_sheaf_capacity in mm/slub.c).
            Self::Debug => Some("kasan_multi_shot slab_debug=F"),
        }
    }

    /// KASAN's shadow, freed memory in quarantine and kmemleak's notes come on top of what the
    /// tests use.
    pub(crate) fn memory_mib(self) -> u32 {
        match self.is_debug() {
            true => 3072,
            false => 2048,
        }
    }

    /// What its folder has beside the modules, to be booted.
    fn image(self) -> &'static str {
        match self.is_program() {
            true => "linux",
            false => "vmlinuz",
        }
    }

    /// The one that a machine is told of by its [name](fmt::Display).
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stock => "stock",
            Self::Quick => "quick",
            Self::Debug => "debug",
        })
    }
}

/// A kernel to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    modules: PathBuf,
    kind: Kind,
}

impl Kernel {
    /// The one that the environment asks for.
    pub(crate) fn wanted() -> io::Result<Self> {
        let named = |name| std::env::var_os(name).map(PathBuf::from);
        let (folder, kind) = match (named(QUICK_KERNEL), named(DEBUG_KERNEL)) {
            (None, None) => {
                let folder = PathBuf::from(MODULES);
                if let Some(version) = std::env::var_os("KVER") {
                    let modules = folder.join(version);
                    return Ok(Self {
                        modules,
                        kind: Kind::Stock,
                    });
                }
                (folder, Kind::Stock)
            }
            (Some(folder), None) => (folder.join("modules"), Kind::Quick),
            (None, Some(folder)) => (folder.join("modules"), Kind::Debug),
            (Some(_), Some(_)) => {
                return Err(io::Error::other(format!(
                    "both {QUICK_KERNEL} and {DEBUG_KERNEL} are set: one at a time"
                )));
            }
        };
        let modules = newest(&folder, kind)?;
        Ok(Self { modules, kind })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The folder that holds its modules and itself.
    pub(crate) fn modules(&self) -> &Path {
        &self.modules
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.modules.join(self.kind.image())
    }

    pub(crate) fn version(&self) -> &OsStr {
        self.modules.file_name().unwrap_or_default()
    }

    /// Commands of the guest that put the modules where it looks for them.
    pub(crate) fn mount_modules(&self) -> Option<String> {
        (self.modules.parent() != Some(Path::new(MODULES))).then(|| {
            format!(
                "mount -t tmpfs tmpfs {MODULES} && ln -s {} {MODULES}/",
                self.modules.display()
            )
        })
    }
}

fn newest(folder: &Path, kind: Kind) -> io::Result<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(kind.image()).exists())
        .max_by_key(|path| version_key(path))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no kernel with a boot image in {}", folder.display()),
            )
        })
}

/// Makes 7.10 newer than 7.9.
fn version_key(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}
