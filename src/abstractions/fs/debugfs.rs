// SPDX-License-Identifier: GPL-2.0

//! Files in debugfs that are made row by row.
//!
//! C headers: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)
//!
//! A file of [`kernel::debugfs`] is one text, which is made at once and has to be in memory as a whole. Here a file
//! consists of [`Rows`], of which one is in memory at a time, and nothing is locked between two of them: a million
//! take as much memory as one. What such a file says of things that change meanwhile is true for each row by itself.
//!
//! Debugfs is for root alone, and files in it can be read only (0400). Who has one open keeps the module loaded.

use core::{
    fmt::Write,
    mem::MaybeUninit, //
};

use kernel::{
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    str::CStr,
    sync::Arc, //
};

use crate::abstractions::bindings;

/// What a look for the next row has found.
pub enum Step<R> {
    /// A row, and its position.
    Row(u64, R),
    /// Nothing so far, as the look has taken long enough: there may be more from this position on.
    More(u64),
    /// There are no more rows.
    End,
}

/// What a file consists of.
///
/// # Examples
///
/// ```
/// # use kernel::fs::{Dir, RowFile, Rows, Step};
/// # use kernel::prelude::*;
/// struct Squares;
///
/// impl Rows for Squares {
///     type Row = u64;
///
///     const HEADER: &'static str = "number square\n";
///
///     fn next(&self, position: u64) -> Step<u64> {
///         match position {
///             0..1000 => Step::Row(position, position * position),
///             _ => Step::End,
///         }
///     }
///
///     fn show(&self, row: &u64, out: &mut dyn core::fmt::Write) -> Result {
///         Ok(writeln!(out, "{row}")?)
///     }
/// }
///
/// # fn example() -> Result {
/// let dir = Dir::new(c"numbers")?;
/// // As long as it is not dropped.
/// let file = RowFile::new(&dir, c"squares", Squares)?;
/// # Ok(())
/// # }
/// ```
pub trait Rows: Send + Sync + 'static {
    /// What has to be known of a row to write it.
    type Row: Copy + Send + 'static;

    /// The first line; empty if there is none.
    const HEADER: &'static str = "";

    /// Finds the first row at `position` or behind it, below 2^62. The next look begins behind the one that was found. May
    /// sleep, but should return at once: as long as it takes, the file cannot be removed.
    fn next(&self, position: u64) -> Step<Self::Row>;

    /// Writes a row. May sleep, and may be called again for the same row. If this fails, so does reading.
    fn show(&self, row: &Self::Row, out: &mut dyn Write) -> Result;
}

/// A directory in debugfs. It goes when the last handle to it is dropped, and those to the files and directories in it.
///
/// As everywhere with debugfs, nobody is told if there is none, or no memory: users have fewer files then.
#[derive(Clone)]
pub struct Dir(Arc<Entry>);

impl Dir {
    /// Makes a directory in the topmost one: `debugfs_create_dir()`. Sleeps.
    pub fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is terminated, and copied. Null stands for the topmost directory.
        let entry =
            unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), core::ptr::null_mut()) };
        // INVARIANT: It was just made.
        Ok(Self(Arc::new(
            Entry {
                entry,
                _within: None,
            },
            GFP_KERNEL,
        )?))
    }

    /// Makes a directory in this one. Sleeps.
    pub fn within(&self, name: &CStr) -> Result<Self> {
        // SAFETY: The name is terminated, and copied. The directory exists, by the type invariants of `Entry`.
        let entry = unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), self.0.entry) };
        let within = Some(self.0.clone());
        // INVARIANT: It was just made, and lies in `within`.
        Ok(Self(Arc::new(
            Entry {
                entry,
                _within: within,
            },
            GFP_KERNEL,
        )?))
    }
}

/// Something in debugfs: `struct dentry`.
///
/// # Invariants
///
/// `entry` is what debugfs has returned for it, and was not removed. It lies in `_within`, or in the topmost directory.
struct Entry {
    entry: *mut bindings::dentry,
    _within: Option<Arc<Entry>>,
}

// SAFETY: Debugfs may be used by all threads.
unsafe impl Send for Entry {}
// SAFETY: As above.
unsafe impl Sync for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this is what debugfs has returned, which may be an error.
        unsafe { bindings::debugfs_remove(self.entry) };
    }
}

/// A file of rows. Dropping it removes the file, which sleeps until nobody reads a part of it; who has it open merely gets
/// [`EIO`] from then on.
///
/// # Invariants
///
/// `_source.file` is where `helpers.c` finds what it needs for files with this source.
pub struct RowFile<T: Rows> {
    // First, as nobody reads any more when it is gone.
    _entry: Entry,
    _source: KBox<Source<T>>,
}

/// What `start` returns for the header: any pointer but null, and but one to a row.
const HEADER: *mut c_void = core::ptr::without_provenance_mut(1);

/// What the inode of a file points to.
#[repr(C)]
struct Source<T> {
    // Where it begins.
    file: bindings::dm_rust_rows,
    rows: T,
}

// SAFETY: `file` does not change, and names what is `'static`.
unsafe impl<T: Send> Send for Source<T> {}
// SAFETY: As above.
unsafe impl<T: Sync> Sync for Source<T> {}

/// What belongs to a file that is open.
#[repr(C)]
struct Reader<T: Rows> {
    // Where it begins: `helpers.c` sets it.
    source: *const Source<T>,
    row: MaybeUninit<T::Row>,
}

impl<T: Rows> RowFile<T> {
    /// A file's private data is aligned for anything that C has, and no more.
    const ALIGNED: () = assert!(core::mem::align_of::<Reader<T>>() <= core::mem::align_of::<u64>());

    const OPS: &'static bindings::seq_operations = &bindings::seq_operations {
        start: Some(Self::start),
        stop: Some(Self::stop),
        next: Some(Self::next),
        show: Some(Self::show),
    };

    /// Makes a file in a directory: `debugfs_create_file()`. Sleeps.
    pub fn new(dir: &Dir, name: &CStr, rows: T) -> Result<Self> {
        let source = Source {
            file: bindings::dm_rust_rows {
                ops: Self::OPS,
                reader_size: const { core::mem::size_of::<Reader<T>>() as c_int },
            },
            rows,
        };
        let source = KBox::new(source, GFP_KERNEL)?;
        let () = Self::ALIGNED;
        // SAFETY: The name is terminated, and copied; the directory exists, by the type invariants of `Entry`. The source
        // stays where it is until the file is removed.
        let entry = unsafe {
            bindings::dm_rust_rows_create(
                name.as_char_ptr(),
                dir.0.entry,
                core::ptr::from_ref(&*source).cast(),
            )
        };
        // INVARIANT: Of the entry, it was just made in `dir`. Of `self`, `file` was set above.
        Ok(Self {
            _entry: Entry {
                entry,
                _within: Some(dir.0.clone()),
            },
            _source: source,
        })
    }

    /// # Safety
    ///
    /// `seq` must belong to an open file of this type, whose source exists, and be used by nobody else during `'a`.
    unsafe fn reader<'a>(seq: *mut bindings::seq_file) -> (&'a T, &'a mut MaybeUninit<T::Row>) {
        // SAFETY: When the file was opened, `private` was set to `reader_size` bytes, which begin with the source, and
        // aligned as a reader is (`ALIGNED`).
        let reader = unsafe { &mut *(*seq).private.cast::<Reader<T>>() };
        // SAFETY: The caller vouches for the source.
        (unsafe { &(*reader.source).rows }, &mut reader.row)
    }

    /// Finds the row at a position or behind it, and puts it into the reader. Position 0 is that of the header.
    ///
    /// # Safety
    ///
    /// As of `reader`; and `position` must be valid for reading and writing.
    unsafe fn find(seq: *mut bindings::seq_file, position: *mut bindings::loff_t) -> *mut c_void {
        // SAFETY: The caller vouches for the reader.
        let (rows, place) = unsafe { Self::reader(seq) };
        // SAFETY: The caller vouches for the position.
        let mut at = u64::try_from(unsafe { *position })
            .unwrap_or(0)
            .saturating_sub(1);
        loop {
            match rows.next(at) {
                Step::Row(found, row) => {
                    place.write(row);
                    let found = found.saturating_add(1);
                    // SAFETY: As above.
                    unsafe { *position = i64::try_from(found).unwrap_or(i64::MAX) };
                    return place.as_mut_ptr().cast();
                }
                Step::More(next) if next > at => at = next,
                Step::More(_) | Step::End => return core::ptr::null_mut(),
            }
            // SAFETY: A file is read in process context, without any lock that is not to be slept with.
            unsafe { bindings::dm_rust_cond_resched() };
        }
    }

    /// # Safety
    ///
    /// As of `find`.
    unsafe extern "C" fn start(
        seq: *mut bindings::seq_file,
        position: *mut bindings::loff_t,
    ) -> *mut c_void {
        // SAFETY: The caller vouches for the position.
        if unsafe { *position } == 0 && !T::HEADER.is_empty() {
            return HEADER;
        }
        // SAFETY: As the caller promises.
        unsafe { Self::find(seq, position) }
    }

    /// # Safety
    ///
    /// As of `find`.
    unsafe extern "C" fn next(
        seq: *mut bindings::seq_file,
        _row: *mut c_void,
        position: *mut bindings::loff_t,
    ) -> *mut c_void {
        // SAFETY: The caller vouches for the position.
        unsafe { *position = (*position).saturating_add(1) };
        // SAFETY: As the caller promises.
        unsafe { Self::find(seq, position) }
    }

    /// Nothing is held between rows.
    extern "C" fn stop(_seq: *mut bindings::seq_file, _row: *mut c_void) {}

    /// # Safety
    ///
    /// As of `reader`; and `row` must be what `start` or `next` has returned last.
    unsafe extern "C" fn show(seq: *mut bindings::seq_file, row: *mut c_void) -> c_int {
        let mut out = Out(seq);
        let written = if row == HEADER {
            out.write_str(T::HEADER).map_err(Error::from)
        } else {
            // SAFETY: The caller vouches for the reader.
            let (rows, place) = unsafe { Self::reader(seq) };
            // SAFETY: `find` has written it, as the caller promises.
            rows.show(unsafe { place.assume_init_ref() }, &mut out)
        };
        match written {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }
}

/// Where a row is written.
///
/// # Invariants
///
/// This is a valid `struct seq_file` that nobody else uses.
struct Out(*mut bindings::seq_file);

impl Write for Out {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        // What does not fit is written again to a larger buffer, see `seq_read_iter()`.
        //
        // SAFETY: By the type invariants, the file is valid; so is the text.
        unsafe { bindings::seq_write(self.0, text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}
