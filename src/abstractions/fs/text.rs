// SPDX-License-Identifier: GPL-2.0

//! The part of a text that somebody reads.

use kernel::fmt;

/// Keeps those bytes of a text that lie in a window, while all of the text is written to it.
///
/// So whoever makes a text need not know which part of it is asked for. Writing never fails: what is in front of
/// the window is counted, and what is behind it is dropped.
///
/// # Examples
///
/// ```
/// # use kernel::fs::TextPart;
/// # use core::fmt::Write;
/// # fn example() -> core::fmt::Result {
/// let mut window = [0; 5];
/// let mut part = TextPart::new(&mut window, 6);
/// write!(part, "hello {}", "world!")?;
/// assert_eq!((part.len(), part.is_cut()), (5, true));
/// assert_eq!(&window, b"world");
/// # Ok(())
/// # }
/// ```
pub struct TextPart<'a> {
    window: &'a mut [u8],
    first: bool,
    /// How many bytes are still in front of the window.
    skip: u64,
    len: usize,
    cut: bool,
}

impl<'a> TextPart<'a> {
    /// Makes the part from byte `offset` of the text on, as long as `window` is.
    pub fn new(window: &'a mut [u8], offset: u64) -> Self {
        Self {
            window,
            first: offset == 0,
            skip: offset,
            len: 0,
            cut: false,
        }
    }

    /// Returns how many bytes of the window the text has filled so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the text has not reached the window so far.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the window is at the beginning of the text.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Whether the text goes on behind the window.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Writes bytes of the text, which may be in any encoding.
    pub fn write_bytes(&mut self, bytes: &[u8]) {
        let before = usize::try_from(self.skip).unwrap_or(usize::MAX);
        let skipped = before.min(bytes.len());
        self.skip = self.skip.saturating_sub(skipped as u64);
        let bytes = bytes.get(skipped..).unwrap_or(&[]);
        let room = self.window.get_mut(self.len..).unwrap_or(&mut []);
        let count = bytes.len().min(room.len());
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.len = self.len.saturating_add(count);
        self.cut |= count < bytes.len();
    }
}

impl fmt::Write for TextPart<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_bytes(text.as_bytes());
        Ok(())
    }
}
