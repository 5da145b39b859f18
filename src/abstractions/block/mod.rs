// SPDX-License-Identifier: GPL-2.0

//! The block layer, as far as a target uses it: bios of its own, operations, statuses, limits.

pub(super) mod batch;
pub(super) mod buffer;
pub(super) mod io;
pub(super) mod limits;
pub(super) mod opf;
pub(super) mod status;
pub(super) mod timed;

pub use batch::{
    Batch,
    BatchSlots, //
};
pub use buffer::{
    IoBuffer,
    IoSlice,
    IoSliceMut, //
};
pub use io::{
    BioPool,
    IoResult, //
};
pub use limits::{
    QueueFeature,
    QueueLimits, //
};
pub use opf::{
    Op,
    Opf, //
};
pub use status::BlkStatus;
pub use timed::TimedIo;
