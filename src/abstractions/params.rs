// SPDX-License-Identifier: GPL-2.0

//! Parameters of a module that check what they are set to, and that can be read and set in
//! `/sys/module/<module>/parameters`.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)
//!
//! Those of the kernel crate take any number of their type, once, and are not shown.

use core::{
    fmt::{
        self,
        Write, //
    },
    marker::PhantomData, //
};

use kernel::{
    error::from_result,
    ffi::{
        c_char,
        c_int, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::{
        as_char_ptr_in_const_context,
        CStr, //
    }, //
};

use crate::abstractions::bindings;

/// Something that users can set when the module is loaded, and later. Sets and shows of one module come one at a time.
pub trait Parameter: Sync + 'static {
    /// Takes a value, or says in the kernel log what is allowed, and changes nothing. An error of one that is given
    /// with `insmod` or `modprobe` refuses the module. May sleep; the module may not be initialised yet.
    fn set(&self, text: &str) -> Result;

    /// Shows the value. May sleep.
    fn show(&self, f: &mut dyn Write) -> fmt::Result;
}

/// A parameter's entry in the module: `struct kernel_param`. See [`parameter!`].
#[repr(transparent)]
pub struct Entry(bindings::kernel_param);

// SAFETY: The kernel reads it under a lock of the module, and nobody changes it.
unsafe impl Sync for Entry {}

impl Entry {
    /// Describes `parameter`, which anybody can read and root can set. `module` is the one that it is a parameter of.
    pub const fn new<P: Parameter>(
        name: &'static CStr,
        parameter: &'static P,
        module: *mut bindings::module,
    ) -> Self {
        // Zeroes mean that there is nothing.
        let mut inner: bindings::kernel_param = pin_init::zeroed();
        inner.name = as_char_ptr_in_const_context(name);
        inner.mod_ = module;
        inner.ops = Functions::<P>::ALL;
        inner.perm = 0o644;
        inner.level = -1;
        inner.__bindgen_anon_1.arg = core::ptr::from_ref(parameter).cast_mut().cast();
        Self(inner)
    }
}

/// What the kernel calls for parameters of a type.
struct Functions<P>(PhantomData<P>);

impl<P: Parameter> Functions<P> {
    const ALL: &'static bindings::kernel_param_ops = &bindings::kernel_param_ops {
        flags: 0,
        set: Some(Self::set),
        get: Some(Self::get),
        free: None,
    };

    /// # Safety
    ///
    /// `param` must be an [`Entry`] of a `P`.
    unsafe fn parameter(param: *const bindings::kernel_param) -> &'static P {
        // SAFETY: As the caller promises, this is what `Entry::new` made of a reference to a `P` that is there as long as
        // the module.
        unsafe { &*(*param).__bindgen_anon_1.arg.cast::<P>() }
    }

    /// # Safety
    ///
    /// `value` must be null or a terminated string, and `param` an [`Entry`] of a `P`.
    unsafe extern "C" fn set(value: *const c_char, param: *const bindings::kernel_param) -> c_int {
        from_result(|| {
            if value.is_null() {
                return Err(EINVAL);
            }
            // SAFETY: The caller vouches for the string.
            let text = unsafe { CStr::from_char_ptr(value) };
            let text = text.to_str().map_err(|_| EINVAL)?;
            // SAFETY: The caller vouches for the entry.
            let parameter = unsafe { Self::parameter(param) };
            // What comes by way of sysfs has the end of the line with it.
            parameter.set(text.trim_end_matches('\n')).map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// `buffer` must be a page that nobody else uses, and `param` an [`Entry`] of a `P`.
    unsafe extern "C" fn get(buffer: *mut c_char, param: *const bindings::kernel_param) -> c_int {
        from_result(|| {
            // SAFETY: The caller vouches for the page. All bytes of it are initialised first.
            let bytes = unsafe {
                buffer.cast::<u8>().write_bytes(0, PAGE_SIZE);
                core::slice::from_raw_parts_mut(buffer.cast::<u8>(), PAGE_SIZE)
            };
            let mut page = Page { bytes, used: 0 };
            // SAFETY: The caller vouches for the entry.
            let parameter = unsafe { Self::parameter(param) };
            let shown = parameter
                .show(&mut page)
                .and_then(|()| page.write_str("\n"));
            shown.map_err(|_| ENOSPC)?;
            c_int::try_from(page.used).map_err(|_| ENOSPC)
        })
    }
}

/// Text in a page.
struct Page<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.used.checked_add(text.len()).ok_or(fmt::Error)?;
        let place = self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

/// Returns the module that this is part of.
pub const fn this_module() -> *mut bindings::module {
    (&raw const bindings::__this_module).cast_mut()
}

/// How many bytes [`info`] takes.
pub const fn info_len(parts: &[&str]) -> usize {
    let (mut rest, mut len) = (parts, 1usize);
    while let [part, tail @ ..] = rest {
        len = len.saturating_add(part.len());
        rest = tail;
    }
    len
}

/// Puts parts of a text together to what `modinfo` shows, which ends with a zero. For constants: `N` is what
/// [`info_len`] says.
pub const fn info<const N: usize>(parts: &[&str]) -> [u8; N] {
    let (mut info, mut used, mut rest) = ([0; N], 0usize, parts);
    while let [part, tail @ ..] = rest {
        let mut bytes = part.as_bytes();
        while let [byte, left @ ..] = bytes {
            info[used] = *byte;
            used = used.saturating_add(1);
            bytes = left;
        }
        rest = tail;
    }
    info
}

/// Makes a parameter of the module: `module_param_cb()` and `MODULE_PARM_DESC()`.
///
/// The second word is what users call its type, and the last one a constant `&str` that tells them what it is.
macro_rules! parameter {
    ($name:ident: $kind:ident, $parameter:expr, $what:expr) => {
        const _: () = {
            use $crate::abstractions::params;

            const NAME: &::core::ffi::CStr = {
                let name = concat!(stringify!($name), "\0");
                match ::core::ffi::CStr::from_bytes_with_nul(name.as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                }
            };

            #[link_section = "__param"]
            #[used(compiler)]
            static ENTRY: params::Entry =
                params::Entry::new(NAME, $parameter, params::this_module());

            const WHAT: &[&str] = &["parm=", stringify!($name), ":", $what];
            #[link_section = ".modinfo"]
            #[used(compiler)]
            static PARM: [u8; params::info_len(WHAT)] = params::info(WHAT);

            const KIND: &[&str] = &["parmtype=", stringify!($name), ":", stringify!($kind)];
            #[link_section = ".modinfo"]
            #[used(compiler)]
            static PARMTYPE: [u8; params::info_len(KIND)] = params::info(KIND);
        };
    };
}

pub(crate) use parameter;
