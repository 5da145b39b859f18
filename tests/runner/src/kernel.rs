// SPDX-License-Identifier: GPL-2.0
//! The kernels that the programs run on. Whoever starts us has made the kernel and says where it is by
//! the environment (KVER, DM_REMAP_MODULE, DM_REMAP_DEBUG_KERNEL ...), which every job has from us.

use std::path::Path;
use std::path::PathBuf;

use clap::ValueEnum;

/// Decides which tests there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum On {
    /// Everything, on the kernel that people have.
    Stock,
    /// What runs on this machine, and the programs in virtual machines on User Mode Linux.
    Quick,
    /// The programs in virtual machines, on a kernel that looks for mistakes.
    Debug,
}

impl On {
    pub(crate) fn name(self) -> &'static str {
        match self {
            On::Stock => "stock",
            On::Quick => "quick",
            On::Debug => "debug",
        }
    }
}

/// The oldest kernel that is supported and in the root, beside the one that everything is for.
pub(crate) struct Oldest {
    pub(crate) version: String,
    module: PathBuf,
}

impl Oldest {
    /// `None` if there is no other one, or something else is asked for.
    pub(crate) fn of_root(on: On, checkout: &Path) -> Option<Self> {
        let version = std::env::var("OLDEST_KVER").ok()?;
        let ours = std::env::var("KVER").unwrap_or_default();
        (on == On::Stock && !version.is_empty() && version != ours).then(|| Self {
            module: checkout.join(format!("target/module/{version}/dm_remap.ko")),
            version,
        })
    }

    #[cfg(test)]
    pub(crate) fn imagined(version: &str) -> Self {
        Self {
            version: version.into(),
            module: PathBuf::new(),
        }
    }

    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("KVER", self.version.clone()),
            ("DM_REMAP_MODULE", self.module.display().to_string()),
        ]
    }
}
