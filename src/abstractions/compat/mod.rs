// SPDX-License-Identifier: GPL-2.0

//! All that depends on a kernel's version, configuration or inside.
//!
//! What the rest of this tree uses of the kernel is declared in headers, so that a kernel with another interface
//! does not build. What the compiler does not see by itself is here, and nowhere else:
//!
//! - checks of a version (`compat.h`) or of a configuration ([`srcu`], and `compat.c`, its other half);
//! - constants that bindgen does not translate (`compat.h`);
//! - what other code takes for granted of structures and constants, as an assertion;
//! - what functions of C do to a bio, where this tree does the same without them;
//! - flags of the compiler that a configuration needs (`flags.kbuild`).
//!
//! A newer kernel is new to the checks of versions only: it takes the slow way there until someone has looked at
//! its sources, and raised the bound.

use core::mem::{
    align_of,
    size_of, //
};

use kernel::{
    block::SECTOR_SIZE,
    page::PAGE_SIZE,
    sync::Mutex, //
};

use super::{
    bindings,
    block::buffer, //
};

pub(super) mod srcu;

// `PerBio` keeps a copy of a bio's iterator, and the picture of it says where things are.
const _: () = assert!(size_of::<bindings::bvec_iter>() == 20);

// `op_is_write()`: an operation with an odd number brings data to the device, or changes it there.
const _: () = assert!(
    bindings::req_op_REQ_OP_READ & 1 == 0
        && bindings::req_op_REQ_OP_WRITE & 1 == 1
        && bindings::req_op_REQ_OP_DISCARD & 1 == 1
        && bindings::req_op_REQ_OP_SECURE_ERASE & 1 == 1
        && bindings::req_op_REQ_OP_WRITE_ZEROES & 1 == 1
);

// No I/O of a batch has failed until something says so.
const _: () = assert!(bindings::DM_STS_OK == 0);

// A buffer consists of units, which are in one page each and hold whole sectors.
const _: () = assert!(PAGE_SIZE % buffer::UNIT == 0 && buffer::UNIT % SECTOR_SIZE as usize == 0);

// `raw_mutex`: where there is nothing to protect, a lock is what its backend keeps, which so begins it.
const _: () = assert!(
    size_of::<Mutex<()>>() == size_of::<bindings::mutex>()
        && align_of::<Mutex<()>>() == align_of::<bindings::mutex>()
);

/// Returns the `struct mutex` of a [`Mutex`]: a `Lock` is laid out as in C, and begins with what its backend
/// keeps. Its own `from_raw` relies on that, too.
pub(super) fn raw_mutex<T>(mutex: &Mutex<T>) -> *mut bindings::mutex {
    core::ptr::from_ref(mutex).cast_mut().cast()
}

/// The flags of a bio that `bio_set_dev()` clears ([`include/linux/bio.h`](srctree/include/linux/bio.h)), the
/// second one if the device is another one.
///
/// With `BIO_REMAPPED`, a bio that comes back from a partition and goes to another one would miss the partition's
/// start. With `BIO_BPS_THROTTLED`, the limit of the bytes per second would not be applied to it again.
pub(super) const CLEARED_BY_SET_DEV: u16 =
    1 << bindings::BIO_REMAPPED | 1 << bindings::BIO_BPS_THROTTLED;

/// The flags of a bio that came back which it must not take to where it goes next.
///
/// `blk_steal_bios()` clears those of the queue that it was in ([`block/blk-mq.c`](srctree/block/blk-mq.c)), and
/// `bio_set_dev()` clears `BIO_REMAPPED`. `BIO_QUIET` comes from a driver that did not want an error to be logged,
/// and with `BIO_CGROUP_ACCT` its bytes would not be counted where it goes.
pub(super) const LEFT_BEHIND: u16 = 1 << bindings::BIO_REMAPPED
    | 1 << bindings::BIO_CGROUP_ACCT
    | 1 << bindings::BIO_QOS_THROTTLED
    | 1 << bindings::BIO_QOS_MERGED
    | 1 << bindings::BIO_QUIET;
