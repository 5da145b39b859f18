// SPDX-License-Identifier: GPL-2.0
//! The kernel's search for hung tasks. What it finds is in the kernel's log, and fails the test.

use std::time::Duration;

const TIMEOUT: &str = "/proc/sys/kernel/hung_task_timeout_secs";
const PANIC: &str = "/proc/sys/kernel/hung_task_panic";

/// While this exists, tasks are taken for hung sooner than else, and reported without a panic.
pub struct HungTasks {
    after: Duration,
    saved: [(&'static str, String); 2],
}

impl HungTasks {
    /// Tasks are taken for hung after this time, in whole seconds.
    #[track_caller]
    pub fn sought_after(after: Duration) -> Self {
        let saved = [TIMEOUT, PANIC].map(|path| {
            let value = std::fs::read_to_string(path).expect(path);
            (path, value)
        });
        std::fs::write(PANIC, "0").expect(PANIC);
        std::fs::write(TIMEOUT, after.as_secs().to_string()).expect(TIMEOUT);
        Self { after, saved }
    }

    /// Waits for so long that who has hung since before was reported: the kernel looks once in that time,
    /// and has to have seen a task before.
    pub fn have_come_if_ever(&self) {
        std::thread::sleep(self.after * 3);
    }
}

impl Drop for HungTasks {
    fn drop(&mut self) {
        for (path, value) in &self.saved {
            if let Err(error) = std::fs::write(path, value) {
                eprintln!("{path}: {error}");
            }
        }
    }
}
