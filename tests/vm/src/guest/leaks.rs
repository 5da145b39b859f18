// SPDX-License-Identifier: GPL-2.0
//! Memory that nothing points to any more, found by the kernel's own detector (kmemleak) if it has
//! one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Test;

const PATH: &str = "/sys/kernel/debug/kmemleak";

/// Younger memory is not reported yet (MSECS_MIN_AGE in mm/kmemleak.c).
const MIN_AGE: Duration = Duration::from_secs(6);

/// What has leaked up to now is nobody's fault: of the file system that a kernel boots with, some is found.
pub(super) fn forget() {
    if !Path::new(PATH).exists() {
        return;
    }
    let mut test = Test::begin("what_the_boot_left");
    test.expects("kmemleak:");
    scan();
    tell("clear");
}

/// The leaks since then, as the kernel describes them.
pub(super) fn find() -> String {
    if !Path::new(PATH).exists() {
        return String::new();
    }
    scan();
    fs::read_to_string(PATH).expect("read the leaks")
}

/// Has the kernel look. What changed since the last time is taken for alive, so one look does not do.
fn scan() {
    for _ in 0..2 {
        std::thread::sleep(MIN_AGE);
        tell("scan");
    }
}

fn tell(command: &str) {
    fs::write(PATH, command).expect("tell kmemleak what to do");
}
