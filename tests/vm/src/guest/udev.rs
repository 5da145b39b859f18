// SPDX-License-Identifier: GPL-2.0
//! udev, for tests of what people see: nodes in `/dev/mapper` are links then, and dmsetup waits for them.

use std::path::Path;

use super::run::succeed;

/// Starts it, if it does not run, and waits until it has seen all devices.
#[track_caller]
pub fn start_udev() {
    if !Path::new("/run/udev/control").exists() {
        succeed("/usr/lib/systemd/systemd-udevd --daemon");
        succeed("udevadm trigger");
    }
    succeed("udevadm settle");
}
