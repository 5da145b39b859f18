// SPDX-License-Identifier: GPL-2.0

//! Words of a table line or a message.
//!
//! C source: [`drivers/md/dm-table.c`](srctree/drivers/md/dm-table.c), `dm_split_args()`

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    ffi::{
        c_char,
        c_uint, //
    },
    prelude::*,
    str::CStr, //
};

use crate::abstractions::bindings;

/// The words that a table line or a message was split into.
///
/// # Invariants
///
/// `words` points to `len` pointers to NUL-terminated strings, none of which changes during `'a`.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    words: NonNull<*mut c_char>,
    len: usize,
    _memory: PhantomData<&'a CStr>,
}

impl<'a> Args<'a> {
    /// # Safety
    ///
    /// If `len` is not 0, `words` must point to `len` pointers to NUL-terminated strings, none of
    /// which changes during `'a`.
    pub(super) unsafe fn from_raw(len: c_uint, words: *mut *mut c_char) -> Self {
        let (words, len) = match NonNull::new(words) {
            Some(words) => (words, len as usize),
            None => (NonNull::dangling(), 0),
        };
        // INVARIANT: The caller's promise; nothing is needed where there are no words.
        Self {
            words,
            len,
            _memory: PhantomData,
        }
    }

    /// Returns the number of words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the word at `index`.
    pub fn get(&self, index: usize) -> Option<&'a CStr> {
        if index >= self.len {
            return None;
        }
        // SAFETY: `index` is below `len`, so by the invariants this is a pointer to a terminated
        // string that stays as it is during `'a`.
        Some(unsafe { CStr::from_char_ptr(self.words.add(index).read()) })
    }

    /// Returns the words, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> {
        let this = *self;
        (0..this.len).filter_map(move |index| this.get(index))
    }

    /// Returns all words as text, or [`EINVAL`] if one is not UTF-8. Sleeps for memory.
    pub fn to_strs(self) -> Result<KVVec<&'a str>> {
        let mut strs = KVVec::with_capacity(self.len, GFP_KERNEL)?;
        for word in self.iter() {
            strs.push(word.to_str().map_err(|_| EINVAL)?, GFP_KERNEL)?;
        }
        Ok(strs)
    }
}

/// A copy of the words of a message.
///
/// # Invariants
///
/// `words` points to the beginnings of the words in `text`, each of which is terminated there.
///
/// Device mapper hands the words of a message and the buffer for its reply in one and the same piece
/// of memory. As Rust reads the one while it writes the other, the words are copied first.
pub(super) struct OwnedArgs {
    text: KVVec<u8>,
    words: KVVec<*mut c_char>,
}

impl OwnedArgs {
    /// Copies all words.
    pub(super) fn copy(args: Args<'_>) -> Result<Self> {
        let mut text = KVVec::new();
        for word in args.iter() {
            text.extend_from_slice(word.to_bytes_with_nul(), GFP_KERNEL)?;
        }
        let mut words = KVVec::with_capacity(args.len(), GFP_KERNEL)?;
        let mut at = text.as_mut_ptr();
        for word in args.iter() {
            words.push(at.cast::<c_char>(), GFP_KERNEL)?;
            at = at.wrapping_add(word.to_bytes_with_nul().len());
        }
        // INVARIANT: `text` has all words in a row, each with its terminator.
        Ok(Self { text, words })
    }

    pub(super) fn args(&mut self) -> Args<'_> {
        debug_assert!(self.words.is_empty() || !self.text.is_empty());
        // SAFETY: The pointers point to the terminated copies in `text`, and neither vector can
        // change as long as `self` is borrowed.
        unsafe { Args::from_raw(self.words.len() as c_uint, self.words.as_mut_ptr()) }
    }
}

/// What went wrong in a constructor: its errno, and `ti->error`.
///
/// The message goes to the kernel log, together with the errno and the names of the device and the
/// target: `device-mapper: table: 252:0: linear: Invalid argument count (-EINVAL)`.
pub struct CtrError {
    pub(super) error: Error,
    pub(super) message: &'static CStr,
}

impl CtrError {
    /// Makes an error of errno and message.
    pub const fn new(error: Error, message: &'static CStr) -> Self {
        Self { error, message }
    }
}

impl From<Error> for CtrError {
    fn from(error: Error) -> Self {
        let message = if error == ENOMEM {
            c"Out of memory"
        } else {
            c"Cannot set up the target"
        };
        Self { error, message }
    }
}

impl From<kernel::alloc::AllocError> for CtrError {
    fn from(error: kernel::alloc::AllocError) -> Self {
        Error::from(error).into()
    }
}

impl From<core::convert::Infallible> for CtrError {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}

/// Adds a message to an error on its way out of a constructor.
///
/// # Examples
///
/// ```
/// # use kernel::dm;
/// # use kernel::dm::CtrMessage;
/// # use kernel::prelude::*;
/// # fn example(ctor: &mut dm::Constructor<'_>, path: &CStr) -> Result<dm::Device, dm::CtrError> {
/// let device = ctor.device(path).message(c"Device lookup failed")?;
/// # Ok(device)
/// # }
/// ```
pub trait CtrMessage<T> {
    /// Replaces the error's message.
    fn message(self, message: &'static CStr) -> core::result::Result<T, CtrError>;
}

impl<T, E> CtrMessage<T> for core::result::Result<T, E>
where
    Error: From<E>,
{
    fn message(self, message: &'static CStr) -> core::result::Result<T, CtrError> {
        self.map_err(|error| CtrError::new(error.into(), message))
    }
}

/// How many bios of a kind device mapper sends to a target for each one that it gets.
///
/// With 0, device mapper does not send this kind at all: flushes are not needed, the others are not
/// supported. Each copy carries its number, see `target_bio_nr` of the bio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BioKind {
    /// Empty bios that flush caches.
    Flush,
    /// Discards.
    Discard,
    /// Secure erase.
    SecureErase,
    /// Write zeroes.
    WriteZeroes,
}

impl BioKind {
    pub(super) fn field(self, ti: &mut bindings::dm_target) -> &mut c_uint {
        match self {
            BioKind::Flush => &mut ti.num_flush_bios,
            BioKind::Discard => &mut ti.num_discard_bios,
            BioKind::SecureErase => &mut ti.num_secure_erase_bios,
            BioKind::WriteZeroes => &mut ti.num_write_zeroes_bios,
        }
    }
}
