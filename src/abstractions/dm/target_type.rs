// SPDX-License-Identifier: GPL-2.0

//! Making a target known to device mapper, and the functions that device mapper calls.
//!
//! C source: [`drivers/md/dm-target.c`](srctree/drivers/md/dm-target.c)
//!
//! Those that may run while the mapped device is suspended enter a [`NoIoScope`]: memory that is got by I/O
//! to that device would be waited for until it is resumed, and who resumes it may wait for them.

use core::{
    fmt::Write,
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    error::to_result,
    ffi::{
        c_char,
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    str::{
        as_char_ptr_in_const_context,
        CStr, //
    },
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    },
    types::Opaque, //
};

use crate::abstractions::{
    bindings,
    block::{
        limits::QueueLimits,
        status::BlkStatus, //
    },
    sync::noio::NoIoScope, //
};

use super::{
    args::{
        Args,
        OwnedArgs, //
    },
    bio::{
        leave_taken,
        EndedBio,
        MapBio, //
    },
    info::TargetInfo,
    instance::Instance,
    per_bio::{
        Completion,
        CompletionFlag,
        PerBio, //
    },
    target::{
        DeviceVisitor,
        Target, //
    },
    text::{
        ReplyBuffer,
        StatusBuffer,
        StatusKind, //
    }, //
};

/// A name in table lines, and the target that it stands for: `struct target_type`.
///
/// This has to be a `static`, since tables point to it for as long as they exist; these keep the
/// module loaded. Several names may stand for one target, which sees in
/// [`TargetInfo::target_name`] by which it was called.
///
/// # Examples
///
/// ```
/// # use kernel::dm;
/// # use kernel::prelude::*;
/// # struct Linear;
/// # #[vtable]
/// # impl dm::Target for Linear {
/// #     type PerBio = ();
/// #     const VERSION: [u32; 3] = [1, 0, 0];
/// #     fn ctr(
/// #         _ctor: &mut dm::Constructor<'_>,
/// #         _args: dm::Args<'_>,
/// #     ) -> impl PinInit<Self, dm::CtrError> {
/// #         Ok::<_, dm::CtrError>(Self)
/// #     }
/// #     fn map<'a>(&self, _ti: &dm::TargetInfo, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
/// #         bio.kill()
/// #     }
/// # }
/// static LINEAR: dm::TargetType<Linear> = dm::TargetType::new(c"linear_rust");
/// ```
///
/// # Invariants
///
/// All that `inner` names is `'static`, and its functions are those below, for targets of type `T`.
pub struct TargetType<T: Target> {
    inner: Opaque<bindings::target_type>,
    used: Atomic<bool>,
    _target: PhantomData<fn() -> T>,
}

// SAFETY: The inside is changed by `register` while nobody else knows of it, which `used` sees to, and by
// device mapper under its own lock. What a target's functions are is the same for all threads.
unsafe impl<T: Target> Sync for TargetType<T> {}

impl<T: Target> TargetType<T> {
    /// Describes the target under the name `name`, at compile time.
    pub const fn new(name: &'static CStr) -> Self {
        // Zeroes mean that there is nothing.
        let mut inner: bindings::target_type = pin_init::zeroed();
        inner.features = T::FEATURES.as_raw();
        inner.name = as_char_ptr_in_const_context(name);
        inner.version = T::VERSION;
        inner.ctr = Some(Self::ctr);
        inner.dtr = Some(Self::dtr);
        inner.map = Some(Self::map);
        if T::HAS_END_IO {
            inner.end_io = Some(Self::end_io);
        }
        if T::HAS_PRESUSPEND {
            inner.presuspend = Some(Self::presuspend);
        }
        if T::HAS_PRESUSPEND_UNDO {
            inner.presuspend_undo = Some(Self::presuspend_undo);
        }
        if T::HAS_POSTSUSPEND {
            inner.postsuspend = Some(Self::postsuspend);
        }
        if T::HAS_PRERESUME {
            inner.preresume = Some(Self::preresume);
        }
        if T::HAS_RESUME {
            inner.resume = Some(Self::resume);
        }
        if T::HAS_STATUS {
            inner.status = Some(Self::status);
        }
        if T::HAS_MESSAGE {
            inner.message = Some(Self::message);
        }
        if T::HAS_ITERATE_DEVICES {
            inner.iterate_devices = Some(Self::iterate_devices);
        }
        if T::HAS_IO_HINTS || T::HAS_END_IO {
            inner.io_hints = Some(Self::io_hints);
        }
        // INVARIANT: The name is `'static`, and the functions are our own.
        Self {
            inner: Opaque::new(inner),
            used: Atomic::new(false),
            _target: PhantomData,
        }
    }

    /// Makes the target known to device mapper, for as long as the result exists: `dm_register_target()`. Sleeps.
    ///
    /// Fails with [`EEXIST`] if there is a target of this name, and with [`EBUSY`] if this was
    /// registered before.
    pub fn register(&'static self, module: &'static ThisModule) -> Result<Registration> {
        // One who failed is done with the inside before the next one begins.
        if self.used.xchg(true, Acquire) {
            return Err(EBUSY);
        }
        let inner = self.inner.get();
        // SAFETY: `used` was false, so device mapper does not know this yet, and nobody else gets
        // here now.
        unsafe { (*inner).module = module.as_ptr() };
        // SAFETY: All that device mapper demands is set, and `self` exists for ever: whoever uses the
        // target holds a reference to the module.
        let result = to_result(unsafe { bindings::dm_register_target(inner) });
        if result.is_err() {
            // Device mapper does not know this, so that it may be tried again.
            self.used.store(false, Release);
        }
        result?;
        // INVARIANT: The registration succeeded.
        Ok(Registration { inner })
    }

    /// # Safety
    ///
    /// Device mapper must call this as the constructor of `ti`, a target of this type, with `argc`
    /// terminated strings in `argv`.
    unsafe extern "C" fn ctr(
        ti: *mut bindings::dm_target,
        argc: c_uint,
        argv: *mut *mut c_char,
    ) -> c_int {
        // SAFETY: The caller vouches for `ti`, whose table is set.
        let suspended = unsafe { TargetInfo::from_raw(ti) }.is_suspended();
        let _scope = suspended.then(NoIoScope::enter);
        // SAFETY: The caller promises the strings, and nobody changes them while this runs.
        let args = unsafe { Args::from_raw(argc, argv) };
        // SAFETY: By the caller's promise, this is the constructor callback.
        match unsafe { Instance::<T>::construct(ti, args) } {
            Ok(()) => 0,
            Err(error) => {
                // SAFETY: `ti` is valid, and device mapper only reads the message, which is static.
                unsafe { (*ti).error = error.message.as_char_ptr().cast_mut() };
                error.error.to_errno()
            }
        }
    }

    /// # Safety
    ///
    /// Device mapper must call this as the destructor of `ti`, whose constructor succeeded.
    unsafe extern "C" fn dtr(ti: *mut bindings::dm_target) {
        let _scope = NoIoScope::enter();
        // SAFETY: By the caller's promise, this is the destructor callback.
        unsafe { Instance::<T>::destroy(ti) };
    }

    /// # Safety
    ///
    /// - `ti` must be a target of this type, between its constructor and its destructor.
    /// - `bio` must be a clone that device mapper made for it, and hand over to it by this call.
    unsafe extern "C" fn map(ti: *mut bindings::dm_target, bio: *mut bindings::bio) -> c_int {
        // SAFETY: By the caller's promise, the target was constructed. It exists during this call, even
        // if the bio is answered meanwhile: device mapper holds `md->io_barrier`.
        let instance = unsafe { Instance::<T>::of(ti) };
        // SAFETY: The caller vouches for `ti`.
        let info = unsafe { TargetInfo::from_raw(ti) };
        // SAFETY: The caller vouches for the bio, and `instance` belongs to its target. The lifetime is that of
        // this call, which the generic `T::map` cannot take for that of another.
        let bio = unsafe { MapBio::<'_, T>::new(NonNull::new_unchecked(bio), instance) };
        instance.target().map(info, bio).into_raw()
    }

    /// # Safety
    ///
    /// - `ti` must be a target of this type, between its constructor and its destructor.
    /// - `bio` must be a clone that device mapper made for it, must have been through `map`, and be
    ///   handed over by this call.
    /// - `error` must be valid for reading and writing, and hold the bio's status.
    unsafe extern "C" fn end_io(
        ti: *mut bindings::dm_target,
        bio: *mut bindings::bio,
        error: *mut bindings::blk_status_t,
    ) -> c_int {
        // SAFETY: The caller vouches for the bio, and `map` has attached the data.
        let data = unsafe { PerBio::<T>::of(bio) };
        // SAFETY: `MapBio` and `OwnedBio` initialise `completion` before they let go of a bio.
        let completion = unsafe { (*data).completion };
        // SAFETY: The caller vouches for `error`.
        let good = unsafe { error.read() } == bindings::DM_STS_OK;
        if completion == Completion::empty() && good {
            return bindings::DM_ENDIO_DONE as c_int;
        }
        if completion.contains(CompletionFlag::Reader) {
            // SAFETY: The reader is initialised, and is not used any more.
            unsafe { (*data).reader.assume_init_drop() };
        }
        if completion.contains(CompletionFlag::Through)
            || (good && !completion.contains(CompletionFlag::Success))
        {
            return bindings::DM_ENDIO_DONE as c_int;
        }
        // SAFETY: As the caller promises; the data is that of the bio, and it is to be seen.
        unsafe { Self::see(ti, bio, error, data) }
    }

    /// Not inlined: most bios are not to be seen, and this takes registers that have to be saved.
    ///
    /// # Safety
    ///
    /// - As for `end_io`.
    /// - `data` must be the bio's data, and `completion` in it one with which `end_io` is to see the bio.
    #[inline(never)]
    unsafe fn see(
        ti: *mut bindings::dm_target,
        bio: *mut bindings::bio,
        error: *mut bindings::blk_status_t,
        data: *mut PerBio<T>,
    ) -> c_int {
        // SAFETY: The caller vouches for the data.
        if unsafe { !(*data).completion.contains(CompletionFlag::User) } {
            // SAFETY: The memory was allocated for this type, belongs to the bio alone, and was not
            // initialised.
            unsafe { (&raw mut (*data).user).write(T::PerBio::default()) };
        }
        // SAFETY: By the caller's promise, the target was constructed. It exists until its bios are
        // answered, and from when this one is taken over to be answered, until `leave_taken`.
        let instance = unsafe { Instance::<T>::of(ti) };
        // SAFETY: The caller vouches for `ti`, which exists as long as the target.
        let info = unsafe { TargetInfo::from_raw(ti) };
        // SAFETY: The caller vouches for the bio, `user` was written when it was mapped or above, and
        // `instance` belongs to the target. The lifetime is that of this call, which the generic `T::end_io`
        // cannot take for that of another.
        let bio = unsafe { EndedBio::<'_, T>::new(NonNull::new_unchecked(bio), instance) };
        let (action, status) = instance.target().end_io(info, bio).into_raw();
        // SAFETY: The caller vouches for `error`.
        unsafe { error.write(status.as_raw()) };
        // SAFETY: This is the answer to the bio, and the target is not used from here on.
        unsafe { leave_taken(action) };
        action
    }

    /// # Safety
    ///
    /// `ti` must be a target of this type, between its constructor and its destructor, and stay so
    /// during `'a`.
    unsafe fn target_of<'a>(ti: *mut bindings::dm_target) -> (&'a T, &'a TargetInfo) {
        // SAFETY: The caller vouches for `ti`.
        unsafe { (Instance::<T>::of(ti).target(), TargetInfo::from_raw(ti)) }
    }

    /// # Safety
    ///
    /// `ti` must be a target of this type, between its constructor and its destructor.
    unsafe extern "C" fn presuspend(ti: *mut bindings::dm_target) {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        target.presuspend(info);
    }

    /// # Safety
    ///
    /// `ti` must be a target of this type, between its constructor and its destructor.
    unsafe extern "C" fn presuspend_undo(ti: *mut bindings::dm_target) {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        target.presuspend_undo(info);
    }

    /// # Safety
    ///
    /// `ti` must be a target of this type, between its constructor and its destructor.
    unsafe extern "C" fn postsuspend(ti: *mut bindings::dm_target) {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        target.postsuspend(info);
    }

    /// # Safety
    ///
    /// `ti` must be a target of this type, between its constructor and its destructor.
    unsafe extern "C" fn preresume(ti: *mut bindings::dm_target) -> c_int {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        match target.preresume(info) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// `ti` must be a target of this type, between its constructor and its destructor.
    unsafe extern "C" fn resume(ti: *mut bindings::dm_target) {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        target.resume(info);
    }

    /// # Safety
    ///
    /// - `ti` must be a target of this type, between its constructor and its destructor.
    /// - `result` must point to `maxlen` bytes that nobody else uses while this runs.
    unsafe extern "C" fn status(
        ti: *mut bindings::dm_target,
        kind: bindings::status_type_t,
        _flags: c_uint,
        result: *mut c_char,
        maxlen: c_uint,
    ) {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        let kind = match kind {
            bindings::status_type_t_STATUSTYPE_TABLE => StatusKind::Table,
            bindings::status_type_t_STATUSTYPE_IMA => StatusKind::Ima,
            _ => StatusKind::Info,
        };
        // SAFETY: The caller vouches for the buffer.
        let mut out = unsafe { StatusBuffer::new(result, maxlen) };
        if kind == StatusKind::Ima {
            let name = info.target_name().to_str().unwrap_or("");
            let [major, minor, patch] = T::VERSION;
            // Writing to the buffer does not fail.
            let _ = write!(
                out,
                "target_name={name},target_version={major}.{minor}.{patch}"
            );
        }
        target.status(info, kind, &mut out);
    }

    /// # Safety
    ///
    /// - `ti` must be a target of this type, between its constructor and its destructor.
    /// - There must be `argc` terminated strings in `argv`.
    /// - `result` must point to `maxlen` bytes that nobody else uses while this runs; the strings may
    ///   be in there.
    unsafe extern "C" fn message(
        ti: *mut bindings::dm_target,
        argc: c_uint,
        argv: *mut *mut c_char,
        result: *mut c_char,
        maxlen: c_uint,
    ) -> c_int {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        // SAFETY: The caller promises the strings. They stay as they are until `out` is made, and
        // after that only the copies are used.
        let mut args = match OwnedArgs::copy(unsafe { Args::from_raw(argc, argv) }) {
            Ok(args) => args,
            Err(error) => return error.to_errno(),
        };
        // SAFETY: The caller vouches for the buffer, and the strings in it are not used any more.
        let mut reply = unsafe { ReplyBuffer::new(result, maxlen) };
        match target.message(info, args.args(), &mut reply) {
            Ok(()) if reply.is_empty() => 0,
            // This tells device mapper that there is a reply.
            Ok(()) => 1,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// - `ti` must be a target of this type, between its constructor and its destructor.
    /// - `callout` must be callable with devices of `ti` and `data`.
    unsafe extern "C" fn iterate_devices(
        ti: *mut bindings::dm_target,
        callout: bindings::iterate_devices_callout_fn,
        data: *mut c_void,
    ) -> c_int {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        // SAFETY: As above.
        let devices = unsafe { Instance::<T>::of(ti) }.devices();
        // SAFETY: These are the arguments of this callback, and the devices of its target.
        let mut visitor = unsafe { DeviceVisitor::new(ti, callout, data, devices) };
        target.iterate_devices(info, &mut visitor);
        visitor.into_result()
    }

    /// # Safety
    ///
    /// - `ti` must be a target of this type, between its constructor and its destructor.
    /// - `limits` must be valid, and used by nobody else while this runs.
    unsafe extern "C" fn io_hints(
        ti: *mut bindings::dm_target,
        limits: *mut bindings::queue_limits,
    ) {
        let _scope = NoIoScope::enter();
        // SAFETY: The caller vouches for `ti`, which exists while this runs.
        let (target, info) = unsafe { Self::target_of(ti) };
        // SAFETY: The caller vouches for the limits.
        let limits = unsafe { QueueLimits::from_raw(limits) };
        if T::HAS_END_IO {
            // Nobody may poll for a clone: whoever does goes by its device and by a cookie that belongs
            // to the device, of which a bio that is sent elsewhere has only one.
            limits.never_poll();
        }
        if T::HAS_IO_HINTS {
            target.io_hints(info, limits);
        }
    }
}

/// A target that device mapper knows. Dropping this makes device mapper forget its name, by
/// `dm_unregister_target()`; tables that have the target keep it.
///
/// # Invariants
///
/// `inner` is registered, and valid for ever.
#[must_use]
pub struct Registration {
    inner: *mut bindings::target_type,
}

// SAFETY: Registering and unregistering may be done by any thread.
unsafe impl Send for Registration {}
// SAFETY: There is nothing that a shared reference could be used for.
unsafe impl Sync for Registration {}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this is registered.
        unsafe { bindings::dm_unregister_target(self.inner) };
    }
}
