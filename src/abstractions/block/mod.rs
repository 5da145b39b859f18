// SPDX-License-Identifier: GPL-2.0

//! The block layer, as far as a target uses it: bios of its own, operations, statuses, limits.

pub(super) mod batch;
pub(super) mod buffer;
pub(super) mod io;
pub(super) mod limits;
pub(super) mod opf;
pub(super) mod status;

pub use batch::Batch;
pub use batch::BatchSlots;
pub use buffer::IoBuffer;
pub use buffer::IoSlice;
pub use buffer::IoSliceMut;
pub use io::BioPool;
pub use io::IoResult;
pub use limits::QueueFeature;
pub use limits::QueueLimits;
pub use opf::Op;
pub use opf::Opf;
pub use status::BlkStatus;
