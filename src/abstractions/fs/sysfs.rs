// SPDX-License-Identifier: GPL-2.0

//! Folders in sysfs, and the files in them.
//!
//! C headers: [`include/linux/kobject.h`](srctree/include/linux/kobject.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)
//!
//! An [`Object`] says which files its folder has, and what is in them; a [`Folder`] has one of them, and is there
//! as long as users can see it. Files are read and written in the context of whoever does it, several at a time.
//!
//! Removing a folder waits for those who are reading or writing one of its files at that moment, though not for
//! those who merely have it open: these get [`ENODEV`] from then on. So [`Object::show`] and [`Object::store`] must
//! not take a lock with which a folder is removed, nor one whose holder waits for I/O that may hang.

use core::ptr::NonNull;

use kernel::{
    error::to_result,
    ffi::c_char,
    page::PAGE_SIZE,
    prelude::*,
    str::CStr,
    types::Opaque, //
};

use crate::abstractions::bindings;

use super::text::TextPart;

/// What a folder in sysfs shows.
///
/// # Examples
///
/// ```
/// # use kernel::fs::{Attribute, Folder, Object, TextPart};
/// # use kernel::prelude::*;
/// # use kernel::sync::atomic::{Atomic, Relaxed};
/// # use core::fmt::Write;
/// struct Lamp {
///     brightness: Atomic<u32>,
/// }
///
/// impl Object for Lamp {
///     type Key = ();
///
///     const ATTRIBUTES: &'static [Attribute<()>] = &[Attribute::writable(c"brightness", ())];
///
///     fn show(&self, _key: (), out: &mut TextPart<'_>) -> Result {
///         let _ = writeln!(out, "{}", self.brightness.load(Relaxed));
///         Ok(())
///     }
///
///     fn store(&self, _key: (), text: &str) -> Result {
///         let number = text.parse().map_err(|_| EINVAL)?;
///         self.brightness.store(number, Relaxed);
///         Ok(())
///     }
/// }
///
/// # fn example() -> Result {
/// // /sys/kernel/lamp/brightness, until it is dropped.
/// let lamp = Folder::in_kernel(c"lamp", Lamp { brightness: Atomic::new(7) })?;
/// # Ok(())
/// # }
/// ```
pub trait Object: Send + Sync + Sized + 'static {
    /// Tells the files of a folder from each other.
    type Key: Copy + 'static;

    /// The files, each of which has a page at most.
    const ATTRIBUTES: &'static [Attribute<Self::Key>];

    /// Files that may be longer.
    const LONG_ATTRIBUTES: &'static [LongAttribute<Self>] = &[];

    /// Writes what is in a file. Sysfs wants a newline at its end. May sleep, see the [module](self).
    ///
    /// For a long file this is called for each page that is read of it, so that the text must have the same length each
    /// time, or else its reader gets what does not fit together.
    fn show(&self, key: Self::Key, out: &mut TextPart<'_>) -> Result;

    /// Takes what was written to a file, without the newline at its end. May sleep, see the [module](self).
    fn store(&self, key: Self::Key, text: &str) -> Result {
        let _ = (key, text);
        Err(EIO)
    }
}

/// A file of a folder: `struct attribute`.
///
/// # Invariants
///
/// All that `inner` names is `'static`.
#[repr(C)]
pub struct Attribute<K> {
    inner: bindings::attribute,
    key: K,
}

impl<K> Attribute<K> {
    /// Describes a file that all may read and nobody may write (0444).
    pub const fn new(name: &'static CStr, key: K) -> Self {
        Self::with_mode(name, 0o444, key)
    }

    /// Describes a file that all may read and root may write (0644).
    pub const fn writable(name: &'static CStr, key: K) -> Self {
        Self::with_mode(name, 0o644, key)
    }

    const fn with_mode(name: &'static CStr, mode: bindings::umode_t, key: K) -> Self {
        let mut inner: bindings::attribute = pin_init::zeroed();
        inner.name = kernel::str::as_char_ptr_in_const_context(name);
        inner.mode = mode;
        // INVARIANT: The name is `'static`, and nothing else is named.
        Self { inner, key }
    }
}

/// A file of a folder that may be longer than a page: `struct bin_attribute`. All may read it (0444).
///
/// # Invariants
///
/// All that `inner` names is `'static`, and its function is that of a `Folder<T>`.
#[repr(C)]
pub struct LongAttribute<T: Object> {
    inner: bindings::bin_attribute,
    key: T::Key,
}

impl<T: Object> LongAttribute<T> {
    /// Describes the file.
    pub const fn new(name: &'static CStr, key: T::Key) -> Self {
        let mut inner: bindings::bin_attribute = pin_init::zeroed();
        inner.attr.name = kernel::str::as_char_ptr_in_const_context(name);
        inner.attr.mode = 0o444;
        inner.read = Some(Folder::<T>::read);
        // INVARIANT: The name is `'static`, and so is the function.
        Self { inner, key }
    }
}

/// What sysfs has of a folder.
#[repr(C)]
struct Inner<T> {
    // Where it begins.
    kobj: Opaque<bindings::kobject>,
    object: T,
    /// Of a folder in `/sys/kernel`. The kobject names it, also when it was taken out of sysfs, where folders in it may
    /// still find it.
    kset: Option<Kset>,
}

/// A set of objects, `struct kset`, that is in no folder itself.
///
/// # Invariants
///
/// `self` owns a reference to it.
struct Kset(NonNull<bindings::kset>);

impl Kset {
    /// Makes one that gives its name to the uevents of what is in it. Sleeps for memory.
    fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is terminated, and copied.
        let kset = unsafe { bindings::dm_rust_kset_create(name.as_char_ptr()) };
        // INVARIANT: It was just made, with one reference.
        Ok(Self(NonNull::new(kset).ok_or(ENOMEM)?))
    }
}

impl Drop for Kset {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the reference is ours.
        unsafe { bindings::dm_rust_kset_put(self.0.as_ptr()) };
    }
}

/// The most variables of one uevent.
const VARIABLES_MAX: usize = 16;

/// A folder in sysfs: `struct kobject`. It goes when this is dropped, which sleeps until nobody reads or writes a file
/// of it: see the [module](self).
///
/// The object is dropped with the last reference to the kobject. These are ours, and those of folders in it, which
/// are to go first; only with `CONFIG_DEBUG_KOBJECT_RELEASE` it is dropped later, by a work item.
///
/// # Invariants
///
/// `inner` comes from `KBox::into_raw`, its kobject was added to sysfs, and `self` owns a reference to it.
pub struct Folder<T: Object> {
    inner: NonNull<Inner<T>>,
}

// SAFETY: An object may be used by all threads and dropped by any, and the kobject has its own locks.
unsafe impl<T: Object> Send for Folder<T> {}
// SAFETY: As above.
unsafe impl<T: Object> Sync for Folder<T> {}

impl<T: Object> Folder<T> {
    const SYSFS_OPS: &'static bindings::sysfs_ops = &bindings::sysfs_ops {
        show: Some(Self::show),
        store: Some(Self::store),
    };

    const KTYPE: &'static bindings::kobj_type = &{
        let mut ktype: bindings::kobj_type = pin_init::zeroed();
        ktype.release = Some(Self::release);
        ktype.sysfs_ops = Self::SYSFS_OPS;
        ktype
    };

    /// Makes the folder `/sys/kernel/NAME`. Its name is the subsystem in the uevents of all that is in it. Fails with
    /// [`EEXIST`] if there is one. Sleeps for memory.
    pub fn in_kernel(name: &CStr, object: T) -> Result<Self> {
        let kset = Kset::new(name)?;
        // SAFETY: It is set when the kernel boots, and not changed any more.
        let parent = unsafe { bindings::kernel_kobj };
        // SAFETY: This kobject is never released.
        unsafe { Self::new(parent, name, object, Some(kset)) }
    }

    /// Makes a folder in another one. Fails with [`EEXIST`] if there is one of this name. Sleeps for memory.
    ///
    /// When the outer one is dropped, users see neither any more.
    pub fn within<P: Object>(outer: &Folder<P>, name: &CStr, object: T) -> Result<Self> {
        // SAFETY: By the type invariants, this is a kobject in sysfs.
        unsafe { Self::new(outer.kobj(), name, object, None) }
    }

    /// # Safety
    ///
    /// `parent` must be a kobject in sysfs, and stay there while this runs.
    unsafe fn new(
        parent: *mut bindings::kobject,
        name: &CStr,
        object: T,
        kset: Option<Kset>,
    ) -> Result<Self> {
        let mut kobj: bindings::kobject = pin_init::zeroed();
        if let Some(kset) = &kset {
            kobj.kset = kset.0.as_ptr();
        }
        let inner = Inner {
            kobj: Opaque::new(kobj),
            object,
            kset,
        };
        let inner = KBox::into_raw(KBox::new(inner, GFP_KERNEL)?);
        let kobj = inner.cast::<bindings::kobject>();
        // SAFETY: The kobject is zeroed but for its set, which is there as long as it is, and does not move; its type is
        // `'static`.
        unsafe { bindings::kobject_init(kobj, Self::KTYPE) };
        // SAFETY: It was just initialised, the caller vouches for the parent, and the format takes one string, which
        // is terminated, and copied.
        let added =
            unsafe { bindings::kobject_add(kobj, parent, c"%s".as_char_ptr(), name.as_char_ptr()) };
        if let Err(error) = to_result(added) {
            // SAFETY: This is the only reference, and `release` frees all.
            unsafe { bindings::kobject_put(kobj) };
            return Err(error);
        }
        // INVARIANT: The pointer comes from a box, the kobject was added, and its reference is ours.
        let folder = Self {
            // SAFETY: A box is not null.
            inner: unsafe { NonNull::new_unchecked(inner) },
        };
        for attribute in T::ATTRIBUTES {
            // SAFETY: The kobject is in sysfs, and the attribute, with which `Attribute` begins, is `'static`.
            to_result(unsafe {
                bindings::sysfs_create_file_ns(
                    kobj,
                    core::ptr::from_ref(attribute).cast(),
                    core::ptr::null(),
                )
            })?;
        }
        for attribute in T::LONG_ATTRIBUTES {
            // SAFETY: As above.
            to_result(unsafe {
                bindings::sysfs_create_bin_file(kobj, core::ptr::from_ref(attribute).cast())
            })?;
        }
        Ok(folder)
    }

    /// Tells whoever listens that something about the folder is new: `kobject_uevent_env()`. Each variable is `NAME=value`;
    /// there may be 16, and some 2000 bytes together, or this fails with [`EINVAL`] or [`ENOMEM`]. So it does with
    /// [`EINVAL`] of a folder that is not in one of [`in_kernel`](Self::in_kernel).
    ///
    /// Sleeps for memory, which is not waited for by I/O inside of a
    /// [`NoIoScope`](crate::abstractions::sync::NoIoScope), and for others who do the same, and may wait for that.
    pub fn uevent(&self, variables: &[&CStr]) -> Result {
        // Behind the last one there is a null pointer.
        let mut all = [core::ptr::null_mut(); VARIABLES_MAX + 1];
        if variables.len() > VARIABLES_MAX {
            return Err(EINVAL);
        }
        for (place, variable) in all.iter_mut().zip(variables) {
            *place = variable.as_char_ptr().cast_mut();
        }
        let action = bindings::kobject_action_KOBJ_CHANGE;
        // SAFETY: By the type invariants, the kobject is in sysfs; it holds those that it is in, which hold their sets.
        // The strings are terminated and are only read.
        to_result(unsafe { bindings::kobject_uevent_env(self.kobj(), action, all.as_mut_ptr()) })
    }

    fn kobj(&self) -> *mut bindings::kobject {
        self.inner.as_ptr().cast()
    }

    /// # Safety
    ///
    /// `kobj` must be that of a folder of this type, which is not released during `'a`.
    unsafe fn object<'a>(kobj: *mut bindings::kobject) -> &'a T {
        // SAFETY: The caller vouches for the kobject, with which its `Inner` begins.
        unsafe { &(*kobj.cast::<Inner<T>>()).object }
    }

    /// # Safety
    ///
    /// - `kobj` must be that of a folder of this type, and `attr` one of its attributes.
    /// - Sysfs must hold an active reference to the file.
    /// - `buf` must be a page that nobody else uses, and initialised.
    unsafe extern "C" fn show(
        kobj: *mut bindings::kobject,
        attr: *mut bindings::attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: The caller vouches for the kobject. Removing the folder waits for active references.
        let object = unsafe { Self::object(kobj) };
        // SAFETY: All attributes are those of `T::ATTRIBUTES`, and begin with what sysfs knows of them.
        let key = unsafe { (*attr.cast::<Attribute<T::Key>>()).key };
        // The last byte stays: a text that fills the page is taken for one that was cut off.
        //
        // SAFETY: The caller vouches for the page.
        let page = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), PAGE_SIZE - 1) };
        let mut out = TextPart::new(page, 0);
        match object.show(key, &mut out) {
            Ok(()) if out.is_cut() => EFBIG.to_errno() as isize,
            // A page's length fits.
            Ok(()) => out.len() as isize,
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// - `kobj` must be that of a folder of this type, and `attr` one of its attributes.
    /// - Sysfs must hold an active reference to the file.
    /// - There must be `count` bytes at `buf`, which nobody changes.
    unsafe extern "C" fn store(
        kobj: *mut bindings::kobject,
        attr: *mut bindings::attribute,
        buf: *const c_char,
        count: usize,
    ) -> isize {
        // SAFETY: The caller vouches for the kobject. Removing the folder waits for active references.
        let object = unsafe { Self::object(kobj) };
        // SAFETY: All attributes are those of `T::ATTRIBUTES`, and begin with what sysfs knows of them.
        let key = unsafe { (*attr.cast::<Attribute<T::Key>>()).key };
        // SAFETY: The caller vouches for the bytes.
        let bytes = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), count) };
        let text = core::str::from_utf8(bytes).map_err(|_| EINVAL);
        let stored =
            text.and_then(|text| object.store(key, text.strip_suffix('\n').unwrap_or(text)));
        match stored {
            // A page's length fits.
            Ok(()) => count as isize,
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// - `kobj` must be that of a folder of this type, and `attr` one of its long attributes.
    /// - Sysfs must hold an active reference to the file.
    /// - There must be `count` bytes at `buf`, which nobody else uses.
    unsafe extern "C" fn read(
        _file: *mut bindings::file,
        kobj: *mut bindings::kobject,
        attr: *const bindings::bin_attribute,
        buf: *mut c_char,
        offset: bindings::loff_t,
        count: usize,
    ) -> isize {
        let Ok(offset) = u64::try_from(offset) else {
            return EINVAL.to_errno() as isize;
        };
        // SAFETY: The caller vouches for the kobject. Removing the folder waits for active references.
        let object = unsafe { Self::object(kobj) };
        // SAFETY: The attribute is one of `T::LONG_ATTRIBUTES`, and begins with what sysfs knows of it.
        let key = unsafe { (*attr.cast::<LongAttribute<T>>()).key };
        // SAFETY: The caller vouches for the bytes, which need not be initialised.
        unsafe { buf.write_bytes(0, count) };
        // SAFETY: They are now.
        let window = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), count) };
        let mut out = TextPart::new(window, offset);
        match object.show(key, &mut out) {
            // A page's length fits.
            Ok(()) => out.len() as isize,
            Err(error) => error.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `kobj` must be that of a folder of this type, and nobody may use it any more.
    unsafe extern "C" fn release(kobj: *mut bindings::kobject) {
        // SAFETY: It begins an `Inner`, which comes from a box.
        drop(unsafe { KBox::from_raw(kobj.cast::<Inner<T>>()) });
    }
}

impl<T: Object> core::ops::Deref for Folder<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants, `self` owns a reference.
        unsafe { &self.inner.as_ref().object }
    }
}

impl<T: Object> Drop for Folder<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the kobject was added, which is taken back here. Files go with their folder.
        unsafe { bindings::kobject_del(self.kobj()) };
        // SAFETY: By the type invariants, `self` owns this reference.
        unsafe { bindings::kobject_put(self.kobj()) };
    }
}
