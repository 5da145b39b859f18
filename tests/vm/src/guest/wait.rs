// SPDX-License-Identifier: GPL-2.0
//! Waiting for what happens by itself.

use std::time::Duration;
use std::time::Instant;

/// Waits until something is so, but not longer than `limit`. Tells whether it is.
pub fn eventually(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does something and tells how long it took.
pub fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = what();
    (result, start.elapsed())
}
