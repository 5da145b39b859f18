// SPDX-License-Identifier: GPL-2.0
//! Waiting for what happens by itself.

use std::time::Duration;
use std::time::Instant;

/// Whoever waits that long waits for ever, on any machine. Before that, the kernel has told of who hangs in it (its
/// watch is set to 90 seconds), and the module has given up (by default after 30).
pub(super) const FOR_EVER: Duration = Duration::from_secs(120);

/// Waits until something is so. Tells whether it is, or whether there is no hope.
///
/// A verdict is about the module, not about the machine: it is the same on a slow processor, and with others at
/// work beside it. A machine's clock goes on while somebody else has its processor. So:
///
/// * A test waits for what it needs, with this function, and not for a while in which that will have happened.
///   What has come to a disk is in its record (`Disk::record`), what it keeps there in `Disk::waiting`, and the
///   rest in the device's status. What tells a wait for ever from a long one is the same for all, and long.
/// * What has to be under way while something else is done is held (`Disk::hold`), and not slow: it still is,
///   then, however late that comes. That nobody waits for it is seen by their being done before it is released.
/// * "In time" is a number of I/Os: only so many fit into a time if the disk answers each of them late
///   (`Record::late`), and fewer on a slow machine.
/// * That something does *not* happen may be looked at after a while: who is early sees less, and nothing
///   wrong.
/// * What something costs is counted: I/Os, bytes, or instructions. A program that has to look at the clock
///   for that runs in a machine whose clock counts instructions
///   ([`Machine::counting`](crate::machine::Machine::counting)): `MEASURING` in the runner names it.
pub fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if begun.elapsed() >= FOR_EVER {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Has the kernel not take its time with grace periods from now on, for tests that make and remove devices all the time: that
/// waits for little else. What is waited for is the same.
pub fn hurry() {
    // Where there is one processor, there may be nothing to wait for.
    let _ = std::fs::write("/sys/kernel/rcu_expedited", "1");
}

/// Does something and tells how long it took: for people to know.
pub fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = what();
    (result, start.elapsed())
}
