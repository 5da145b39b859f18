// SPDX-License-Identifier: GPL-2.0
//! What a test uses inside the virtual machine.
//!
//! A test begins with [`begin!`](crate::begin), which names it in the kernel's log and reads that
//! log when it ends; then it makes disks and devices, which all go away by themselves, the last
//! one first:
//!
//! ```no_run
//! use vmtest::guest::Remap;
//!
//! #[test]
//! fn a_device_can_be_made() {
//!     let _test = vmtest::begin!();
//!     let remap = Remap::new(512);
//!     assert!(remap.device().status().contains("remap v3.0"));
//! }
//! ```
//!
//! How a test deals with time is said at [`eventually`]: its verdict depends neither on the machine's speed nor on what
//! runs beside it.

mod block_trace;
mod content;
mod device;
mod dice;
mod disks;
mod forge;
mod hung_tasks;
mod io;
mod ioctl;
mod kmsg;
mod leaks;
mod log_writes;
mod module;
mod needs;
mod nowait;
mod partition;
mod patched;
mod remap;
mod run;
mod spare_set;
mod stamp;
mod traffic;
mod udev;
mod uevents;
mod wait;
mod watched;

pub use block_trace::BlockTrace;
pub use block_trace::Request;
pub use block_trace::Traced;
pub use content::peek;
pub use content::super_copy;
pub use content::super_sector;
pub use content::superblock;
pub use device::Mapped;
pub use device::Refusal;
pub use dice::Dice;
pub use disks::NullBlk;
pub use disks::ScsiDebug;
pub use forge::forge_superblocks;
pub use forge::forge_table_blocks;
pub use forge::superblocks;
pub use forge::table_blocks;
pub use hung_tasks::HungTasks;
pub use io::drop_caches;
pub use io::read_only;
pub use io::Direct;
pub use ioctl::make_and_remove;
pub use ioctl::message;
pub use ioctl::message_here;
pub use ioctl::message_of_bytes;
pub use ioctl::message_without_rights;
pub use ioctl::Quick;
pub use ioctl::QuickDevice;
pub use kmsg::Kmsg;
pub use log_writes::Entry;
pub use log_writes::LogWrites;
pub use module::load;
pub use module::unload;
pub use needs::kernel_kind;
pub use needs::lacks;
pub use needs::Need;
pub use partition::Partition;
pub use patched::Patched;
pub use remap::device_number;
pub use remap::Remap;
pub use run::run;
pub use run::succeed;
pub use run::Ran;
pub use sickdisk;
pub use spare_set::SpareSet;
pub use spare_set::Used;
pub use stamp::identify;
pub use stamp::stamps;
pub use stamp::Content;
pub use traffic::Known;
pub use traffic::Traffic;
pub use udev::start_udev;
pub use uevents::Uevent;
pub use uevents::Uevents;
pub use wait::eventually;
pub use wait::hurry;
pub use wait::timed;
pub use watched::watched;

use crate::verdict;

/// Begins a test: to be the first line of each, kept in a variable that lives to its end.
#[macro_export]
macro_rules! begin {
    () => {{
        fn here() {}
        $crate::guest::Test::begin(std::any::type_name_of_val(&here))
    }};
}

/// A test that runs. When it is dropped, the kernel's log is read: a complaint there fails the
/// test.
pub struct Test {
    name: String,
    log: Kmsg,
    expected: Vec<String>,
}

impl Test {
    /// See [`begin!`](crate::begin).
    pub fn begin(path: &str) -> Self {
        let name = path.strip_suffix("::here").unwrap_or(path).to_string();
        let log = Kmsg::from_now();
        kmsg::say(&format!("begin {name}"));
        Self {
            name,
            log,
            expected: Vec::new(),
        }
    }

    /// Forgives lines of the kernel's log that hold this text, until the test ends.
    pub fn expects(&mut self, text: &str) {
        kmsg::say(&format!("expects {text}"));
        self.expected.push(text.into());
    }

    /// What the kernel said since the test began.
    pub fn kernel_log(&mut self) -> String {
        self.log.text()
    }
}

/// How many times slower than on the stock kernel everything may be here.
pub fn slowness() -> u32 {
    let told = std::env::var(crate::machine::SLOWNESS);
    told.ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Whether all cases are to be tried, and not only a sample of them in which each kind of case occurs: that takes
/// hours, and has its place in `make test-system`.
pub fn thorough() -> bool {
    std::env::var("DM_REMAP_THOROUGH").is_ok_and(|value| value == "1")
}

impl Drop for Test {
    fn drop(&mut self) {
        kmsg::say(&format!("end {}", self.name));
        let found = verdict::faults(&self.log.text());
        if found.is_empty() {
            return;
        }
        eprintln!("the kernel complained during {}:", self.name);
        for fault in &found {
            eprintln!("  {}", fault.line.trim());
        }
        if !std::thread::panicking() {
            panic!("the kernel complained");
        }
    }
}
