// SPDX-License-Identifier: GPL-2.0

//! Text for user space: status lines and replies to messages.
//!
//! C source: [`drivers/md/dm-ioctl.c`](srctree/drivers/md/dm-ioctl.c), `retrieve_status()` and `target_message()`

use kernel::{
    ffi::{
        c_char,
        c_uint, //
    },
    fmt, //
};

use core::marker::PhantomData;

/// A text buffer of the caller, kept terminated.
///
/// What does not fit is cut off. Device mapper sees from the length that the buffer was filled, and
/// `dmsetup` calls again with a larger one.
///
/// # Invariants
///
/// - `start` points to `capacity` bytes that nobody else uses during `'a`.
/// - `len < capacity`, and the byte at `len` is 0, unless `capacity` is 0.
struct Buffer<'a> {
    start: *mut u8,
    capacity: usize,
    len: usize,
    written: bool,
    _memory: PhantomData<&'a mut [u8]>,
}

impl Buffer<'_> {
    /// # Safety
    ///
    /// `start` must point to `capacity` bytes that nobody else uses during the lifetime.
    unsafe fn new(start: *mut c_char, capacity: c_uint) -> Self {
        let start = start.cast::<u8>();
        if capacity > 0 {
            // SAFETY: There is at least one byte, by the caller's promise.
            unsafe { start.write(0) };
        }
        // INVARIANT: The memory is the caller's promise, and the terminator was just written.
        Self {
            start,
            capacity: capacity as usize,
            len: 0,
            written: false,
            _memory: PhantomData,
        }
    }

    fn append(&mut self, text: &str) {
        self.written |= !text.is_empty();
        // One byte stays for the terminator. By the invariants, this is 0 only for a full buffer.
        let room = self.capacity.saturating_sub(self.len).saturating_sub(1);
        let count = text.len().min(room);
        if count == 0 {
            return;
        }
        // SAFETY: `len + count < capacity`, so both the text and the terminator are inside the
        // buffer, which is ours alone; so `text` cannot overlap it.
        unsafe {
            self.start
                .add(self.len)
                .copy_from_nonoverlapping(text.as_ptr(), count);
            self.start.add(self.len).add(count).write(0);
        }
        // INVARIANT: `len` is still below `capacity`, and the terminator is there.
        self.len = self.len.wrapping_add(count);
    }
}

macro_rules! text_buffer {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<'a>(Buffer<'a>);

        impl<'a> $name<'a> {
            /// # Safety
            ///
            /// `start` must point to `capacity` bytes that nobody else uses during `'a`.
            pub(super) unsafe fn new(start: *mut c_char, capacity: c_uint) -> Self {
                // SAFETY: The caller promises just this.
                Self(unsafe { Buffer::new(start, capacity) })
            }

            /// Whether nothing was written so far.
            pub fn is_empty(&self) -> bool {
                !self.0.written
            }
        }

        impl fmt::Write for $name<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.append(text);
                Ok(())
            }
        }
    };
}

text_buffer! {
    /// Where a target writes its part of a status or table line.
    ///
    /// Writing never fails: what does not fit is cut off, device mapper notices, and the caller
    /// comes again with a larger buffer. The text must not contain NUL.
    StatusBuffer
}

text_buffer! {
    /// Where a target writes the reply to a message.
    ///
    /// A message that wrote a reply and succeeded makes `dmsetup message` print it. When the message
    /// fails, the caller gets the errno only, and what was written here is dropped.
    ///
    /// A reply that does not fit is not handed out either: the caller is told to come again with a larger
    /// buffer, and *sends the message again*. The first buffer of `dmsetup` has 16 KiB, but others may have
    /// less. So a message that has a reply must be harmless when it is done twice, and still succeed; or
    /// its reply must not be longer than the message itself, whose place it takes.
    ReplyBuffer
}

impl ReplyBuffer<'_> {
    /// Returns how many more bytes can be written so that the reply is handed out: for a reply that ends earlier
    /// rather than have the caller come again.
    pub fn room(&self) -> usize {
        // Device mapper takes a buffer for too small that has no byte left behind the terminator.
        let free = self.0.capacity.saturating_sub(self.0.len);
        free.saturating_sub(2)
    }
}

/// Which text [`Target::status`](super::Target::status) is to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusKind {
    /// The status, `dmsetup status`.
    Info,
    /// The arguments of the table line, such that loading them gives the same target again.
    Table,
    /// What the integrity measurement architecture is to know: `,key=value` for each argument, and `;`. The
    /// name of the target and its version are there already.
    Ima,
}
