// SPDX-License-Identifier: GPL-2.0

//! What readers and writers share: SRCU, published pointers, locks whose holders wait for I/O.

pub(super) mod global;
pub(super) mod growing;
pub(super) mod load;
pub(super) mod lock;
pub(super) mod noio;
pub(super) mod published;
pub(super) mod srcu;

pub use global::{
    Global,
    GlobalGuard, //
};
pub use growing::Growing;
pub use load::{
    full_barrier,
    load_acquire,
    load_relaxed,
    store_release, //
};
pub use lock::IoMutex;
pub use noio::NoIoScope;
pub use published::{
    synchronize_rcu,
    Published,
    Replacement, //
};
pub use srcu::{
    Srcu,
    SrcuReader, //
};
