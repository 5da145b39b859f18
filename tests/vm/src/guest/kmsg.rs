// SPDX-License-Identifier: GPL-2.0
//! The kernel's log, read and written from inside.

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::OpenOptionsExt;

use crate::verdict::MARK;

const PATH: &str = "/dev/kmsg";

/// A place in the log, from which on it is collected.
pub struct Kmsg {
    file: File,
    text: String,
}

impl Kmsg {
    /// Collects what comes from now on.
    pub fn from_now() -> Self {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(PATH)
            .expect("open /dev/kmsg");
        file.seek(SeekFrom::End(0)).expect("seek /dev/kmsg");
        Self {
            file,
            text: String::new(),
        }
    }

    /// Everything so far, one message a line.
    pub fn text(&mut self) -> String {
        let mut record = [0; 8192];
        loop {
            let length = match self.file.read(&mut record) {
                Ok(length) => length,
                // Overwritten before we read it; the next read goes on behind the gap.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(_) => break,
            };
            let record = String::from_utf8_lossy(&record[..length]);
            // "priority,number,time,flags;message", then lines of "key=value".
            let message = record.split_once(';').map_or("", |(_, message)| message);
            self.text.push_str(message.lines().next().unwrap_or(""));
            self.text.push('\n');
        }
        self.text.clone()
    }
}

/// Writes a mark into the log.
pub(crate) fn say(text: &str) {
    // A full log is no reason to fail a test.
    let _ = std::fs::write(PATH, format!("{MARK} {text}\n"));
}
