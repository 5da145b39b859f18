// SPDX-License-Identifier: GPL-2.0
//! Which kernel a machine runs: the stock one of the root that we are in, or the debug kernel.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

/// Where a kernel looks for its modules.
const MODULES: &str = "/usr/lib/modules";

/// Names the debug kernel's folder (see scripts/debug-kernel) if that one is to be used.
const DEBUG_KERNEL: &str = "DM_REMAP_DEBUG_KERNEL";

/// A kernel to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    modules: PathBuf,
    debug: bool,
}

impl Kernel {
    /// The one that the environment asks for.
    pub(crate) fn wanted() -> io::Result<Self> {
        let debug = std::env::var_os(DEBUG_KERNEL).map(PathBuf::from);
        let folder = debug
            .as_ref()
            .map_or(PathBuf::from(MODULES), |folder| folder.join("modules"));
        let modules = match std::env::var_os("KVER") {
            Some(version) => folder.join(version),
            None => newest(&folder)?,
        };
        Ok(Self {
            modules,
            debug: debug.is_some(),
        })
    }

    /// The folder that holds its modules and, as `vmlinuz`, itself.
    pub(crate) fn modules(&self) -> &Path {
        &self.modules
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.modules.join("vmlinuz")
    }

    pub(crate) fn version(&self) -> &OsStr {
        self.modules.file_name().unwrap_or_default()
    }

    /// What goes to the end of its command line.
    pub(crate) fn arguments(&self) -> &str {
        match self.debug {
            // An interrupt while the first processor is identified finds the kernel in doubt for a
            // moment whether it has five levels of page tables, and KASAN then takes every address
            // for a wild one: it has four. And KASAN is to report every mistake, not only the
            // first one since boot.
            true => " no5lvl kasan_multi_shot",
            false => "",
        }
    }

    /// How many times slower everything is than on the stock kernel, at the most.
    pub(crate) fn slowness(&self) -> u32 {
        match self.debug {
            true => 8,
            false => 1,
        }
    }

    /// KASAN's shadow, freed memory in quarantine and kmemleak's notes come on top of what the
    /// tests use.
    pub(crate) fn memory_mib(&self) -> u32 {
        match self.debug {
            true => 3072,
            false => 2048,
        }
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

fn newest(folder: &Path) -> io::Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("vmlinuz").exists())
        .collect();
    found.sort_by_key(|path| version_key(path));
    found.pop().ok_or_else(|| {
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
