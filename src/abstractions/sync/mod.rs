// SPDX-License-Identifier: GPL-2.0

//! What readers and writers share: SRCU, published pointers, locks whose holders wait for I/O.

pub(super) mod global;
pub(super) mod growing;
pub(super) mod load;
pub(super) mod lock;
pub(super) mod noio;
pub(super) mod published;
pub(super) mod srcu;

pub use global::Global;
pub use global::GlobalGuard;
pub use growing::Growing;
pub use load::full_barrier;
pub use load::load_acquire;
pub use load::load_relaxed;
pub use load::store_release;
pub use lock::IoMutex;
pub use noio::NoIoScope;
pub use published::synchronize_rcu;
pub use published::Published;
pub use published::Replacement;
pub use srcu::Srcu;
pub use srcu::SrcuTicket;
