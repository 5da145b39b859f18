// SPDX-License-Identifier: GPL-2.0
//! The module under test.

use std::path::Path;
use std::path::PathBuf;

use super::run::succeed;

/// Loads the module, if it is not loaded: the file that `DM_REMAP_MODULE` names.
#[track_caller]
pub fn load() {
    if is_loaded("dm_remap") {
        return;
    }
    let file = std::env::var_os("DM_REMAP_MODULE").map(PathBuf::from);
    let file = file.expect("DM_REMAP_MODULE names no module: build it first");
    let file = file.display();
    assert!(
        std::path::Path::new(&file.to_string()).exists(),
        "there is no {file}: build it first"
    );
    succeed("modprobe dm_mod");
    let needs = succeed(&format!("modinfo -F depends {file}"));
    for module in needs.trim().split(',').filter(|name| !name.is_empty()) {
        succeed(&format!("modprobe {module}"));
    }
    // What is written then depends on how long a test takes; `autosave` has the tests of it.
    succeed(&format!("insmod {file} autosave_seconds=0"));
}

/// Unloads it, which must succeed.
#[track_caller]
pub fn unload() {
    succeed("rmmod dm_remap");
}

/// Whether the kernel has a module, or what would be one.
pub(super) fn is_loaded(name: &str) -> bool {
    Path::new("/sys/module").join(name).exists()
}
