// SPDX-License-Identifier: GPL-2.0
//! What the command prints, read while it runs.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a file is looked at that grows.
const POLL: Duration = Duration::from_millis(5);

/// A file that grows, and comes to its end when the machine does.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    ended: Arc<AtomicBool>,
}

impl Tail {
    /// Somebody else writes to `file`, until `ended`.
    pub(super) fn new(file: File, ended: Arc<AtomicBool>) -> Self {
        Self { file, ended }
    }
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Asked first: the last of it may come in between.
            let ended = self.ended.load(Ordering::Acquire);
            match self.file.read(buffer)? {
                0 if !ended => std::thread::sleep(POLL),
                count => return Ok(count),
            }
        }
    }
}

/// What the command has printed so far.
#[derive(Debug, Default)]
pub(super) struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutputState {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    /// Begins to read; `echo` passes it on.
    pub(super) fn read(
        self: &Arc<Self>,
        printed: impl Read + Send + 'static,
        echo: bool,
    ) -> JoinHandle<()> {
        let output = Arc::clone(self);
        std::thread::spawn(move || output.fill_from(printed, echo))
    }

    fn fill_from(&self, mut printed: impl Read, echo: bool) {
        let mut buffer = [0; 4096];
        loop {
            let count = match printed.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            let Some(new) = buffer.get(..count) else {
                break;
            };
            if echo {
                // A reader that went away does not end the test.
                let mut stdout = io::stdout().lock();
                let _ = stdout.write_all(new).and_then(|()| stdout.flush());
            }
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.bytes.extend_from_slice(new);
            self.changed.notify_all();
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended = true;
        self.changed.notify_all();
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&state.bytes).into_owned()
    }

    /// Waits until `text` was printed: `false` if that will not happen, or if it `is_late`.
    pub(super) fn wait_for(&self, text: &str, is_late: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if String::from_utf8_lossy(&state.bytes).contains(text) {
                return true;
            }
            if state.ended || is_late() {
                return false;
            }
            state = self
                .changed
                .wait_timeout(state, POLL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
