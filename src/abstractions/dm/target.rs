// SPDX-License-Identifier: GPL-2.0

//! What a target implements: the functions of a `struct target_type`.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

use core::marker::PhantomData;

use kernel::{
    build_error,
    error::VTABLE_DEFAULT_ERROR,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};

use crate::abstractions::{
    bindings,
    block::limits::QueueLimits, //
};

use super::{
    args::{
        Args,
        CtrError, //
    },
    bio::{
        Ended,
        EndedBio,
        MapBio,
        Mapped, //
    },
    device::{
        Device,
        OpenDevices, //
    },
    info::TargetInfo,
    instance::Constructor,
    text::{
        ReplyBuffer,
        StatusBuffer,
        StatusKind, //
    }, //
};

/// What a target can do or demands: `DM_TARGET_*`.
#[derive(Clone, Copy)]
pub struct Features(u64);

impl Features {
    /// The target can do nothing special, and demands nothing.
    pub const NONE: Self = Self(0);
    /// The target heeds `NOWAIT`. Without it, io_uring leaves all I/O of the mapped device to threads of its own.
    pub const NOWAIT: Self = Self(bindings::DM_TARGET_NOWAIT as u64);
    pub(super) const fn as_raw(self) -> u64 {
        self.0
    }
}

/// A device-mapper target: `struct target_type`.
///
/// One value stands for one line of a table. It is made by [`ctr`](Target::ctr) and dropped when its
/// table is destroyed. All other functions take a shared reference, as device mapper calls them in
/// parallel. Which function runs when, and what it may do:
///
/// | function | context | meanwhile |
/// |---|---|---|
/// | `ctr` | process, may sleep | the old table may be in use |
/// | `map` | process, must not wait for I/O or memory | anything |
/// | `end_io` | any, interrupts too | anything |
/// | `presuspend`, `presuspend_undo` | process, may sleep | bios come and go |
/// | `postsuspend` | process, may sleep | all bios are done, none comes |
/// | `preresume`, `resume` | process, may sleep | no bio comes yet |
/// | `status`, `message` | process, may sleep | anything, suspended or not |
/// | `iterate_devices`, `io_hints` | process, may sleep | the table is being built |
///
/// Where the device may be suspended, functions are called in a
/// [`NoIoScope`](crate::abstractions::sync::NoIoScope), so that they may allocate memory: all but `map` and
/// `end_io`, and `ctr` only if it is.
///
/// Functions that a target does not implement are left out of the `target_type`, just as in C.
#[vtable]
pub trait Target: Sized + Send + Sync + 'static {
    /// Data of the target's own that accompanies a bio from `map` to `end_io`. It comes with
    /// [`MapBio::remap_with`], or is what `Default` makes, which may be called in an interrupt and must
    /// neither sleep nor take locks. As device mapper frees bios without asking, this must not need
    /// dropping, and it should be small.
    type PerBio: Default + Send + 'static;

    /// Version of the target, shown by `dmsetup targets`.
    const VERSION: [u32; 3];

    /// What the target can do or demands.
    const FEATURES: Features = Features::NONE;

    /// Returns what makes the target from the words of its table line, where it stays.
    ///
    /// While this and what it returns run, the old table of the device may be in use, and what is made here
    /// may never be: nothing may be written to the devices.
    fn ctr(ctor: &mut Constructor<'_>, args: Args<'_>) -> impl PinInit<Self, CtrError>;

    /// Decides about a bio.
    ///
    /// This may not wait: neither for other bios nor for memory nor, if the bio says so, for anything
    /// at all. Bios that are submitted from here start when this returns, so that waiting for one
    /// of them never ends.
    fn map<'a>(&self, ti: &TargetInfo, bio: MapBio<'a, Self>) -> Mapped<'a>;

    /// Sees a bio that comes back from the device that `map` or `submit` sent it to.
    ///
    /// This may run in an interrupt and so may not sleep. Completions of a mapped device that has a target
    /// with this function cannot be polled for.
    fn end_io<'a>(&self, _ti: &TargetInfo, _bio: EndedBio<'a, Self>) -> Ended<'a> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The mapped device is about to be suspended. Bios still come, and those that the target has
    /// taken must still be answered.
    fn presuspend(&self, _ti: &TargetInfo) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The mapped device is not going to be suspended after all.
    fn presuspend_undo(&self, _ti: &TargetInfo) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The mapped device is suspended: all bios are done. Whatever else the target has under way ends
    /// here, and when this returns, it must not do I/O any more.
    fn postsuspend(&self, _ti: &TargetInfo) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The mapped device is about to be resumed with this table. I/O of the target's own is
    /// possible from here on. On an error the device stays suspended.
    fn preresume(&self, _ti: &TargetInfo) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The mapped device is resumed; bios come from here on.
    fn resume(&self, _ti: &TargetInfo) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes status or table line, without start, length and name.
    fn status(&self, _ti: &TargetInfo, _kind: StatusKind, _out: &mut StatusBuffer<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handles a message, which has at least one word.
    ///
    /// A reply is printed by `dmsetup message` if the message succeeded. A message that fails can
    /// return an errno only; say the rest in the kernel log. The device may be suspended.
    fn message(&self, _ti: &TargetInfo, _args: Args<'_>, _reply: &mut ReplyBuffer<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Names each part of a device that the target uses for its data. The queue limits of the mapped
    /// device come from these.
    fn iterate_devices(&self, _ti: &TargetInfo, _devices: &mut DeviceVisitor<'_>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes the queue limits.
    fn io_hints(&self, _ti: &TargetInfo, _limits: &mut QueueLimits) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Where a target names the devices that it uses: the arguments of `iterate_devices`.
///
/// # Invariants
///
/// `ti`, `callout` and `data` are the arguments of one `iterate_devices` callback, which lasts for `'a`, and
/// `devices` are those of its target.
pub struct DeviceVisitor<'a> {
    ti: *mut bindings::dm_target,
    callout: bindings::iterate_devices_callout_fn,
    data: *mut c_void,
    devices: &'a OpenDevices,
    result: c_int,
    _data: PhantomData<&'a mut ()>,
}

impl<'a> DeviceVisitor<'a> {
    /// # Safety
    ///
    /// The arguments must be those of one `iterate_devices` callback, which lasts for `'a`, and
    /// `devices` those of its target.
    pub(super) unsafe fn new(
        ti: *mut bindings::dm_target,
        callout: bindings::iterate_devices_callout_fn,
        data: *mut c_void,
        devices: &'a OpenDevices,
    ) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            ti,
            callout,
            data,
            devices,
            result: 0,
            _data: PhantomData,
        }
    }

    /// Names `len` sectors of 512 bytes of `device` from sector `start` on.
    ///
    /// Device mapper may have seen enough already; then this does nothing.
    pub fn visit(&mut self, device: &Device, start: u64, len: u64) {
        if self.result != 0 {
            return;
        }
        let (Some(dm_dev), Some(callout)) = (self.devices.find(device), self.callout) else {
            // Not a device of this target.
            self.result = EINVAL.to_errno();
            return;
        };
        // SAFETY: By the type invariants, the arguments come from the callback, and the device is open, as
        // `find` only returns such.
        self.result = unsafe { callout(self.ti, dm_dev.as_ptr(), start, len, self.data) };
    }

    pub(super) fn into_result(self) -> c_int {
        self.result
    }
}
