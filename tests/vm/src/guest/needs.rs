// SPDX-License-Identifier: GPL-2.0
//! What a test needs that not every kernel has.

use std::io::Write;

use crate::kernel::Kernel;
use crate::machine::Kind;
use crate::machine::KIND;

/// Something that only some kernels have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The processor tells who writes to a word.
    DebugRegisters,
    /// A clock that tells how much was done, and goes on when nothing is.
    Clock,
    /// A kernel that looks for mistakes.
    Watchers,
    /// Disks with zones.
    Zones,
    /// Counters of what is written to swap.
    SwapCounters,
    /// A second processor.
    Processors,
    /// What trace-cmd and bpftrace are for.
    TracingTools,
}

impl Need {
    fn is_met_by(self, kind: Kind) -> bool {
        match self {
            Self::DebugRegisters
            | Self::Clock
            | Self::Zones
            | Self::SwapCounters
            | Self::Processors
            | Self::TracingTools => !kind.is_program(),
            Self::Watchers => kind.is_debug(),
        }
    }
}

/// The first line of a test that needs something: it ends there, and says so, where the kernel lacks it.
#[macro_export]
macro_rules! needs {
    ($need:expr) => {{
        fn here() {}
        if $crate::guest::lacks($need, std::any::type_name_of_val(&here)) {
            return;
        }
    }};
}

/// See [`needs!`](crate::needs).
pub fn lacks(need: Need, path: &str) -> bool {
    let kind = kernel_kind();
    let lacks = !need.is_met_by(kind);
    if lacks {
        let name = path.strip_suffix("::here").unwrap_or(path);
        // Not by a macro that prints: what a test prints is only shown where it fails. Nobody who is not there
        // misses it.
        let _ = writeln!(
            std::io::stderr(),
            "\nnot run: {name} needs {need:?}, which the {kind} kernel lacks"
        );
    }
    lacks
}

/// What kind of kernel this is; outside, the kind of those that machines have.
pub fn kernel_kind() -> Kind {
    std::env::var(KIND)
        .ok()
        .and_then(|name| Kind::named(&name))
        .or_else(|| Some(Kernel::wanted().ok()?.kind()))
        .unwrap_or(Kind::Stock)
}
