// SPDX-License-Identifier: GPL-2.0

//! Device-mapper targets.

// Inside the kernel crate all of this would be public. A module that includes it uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod args;
mod bindings;
mod bio;
mod buffer;
mod device;
mod events;
mod info;
mod instance;
mod io;
mod limits;
mod list;
mod noio;
mod owned;
mod per_bio;
mod published;
mod register;
mod srcu;
mod status;
mod target;
mod text;
mod util;
mod warn;
mod work;

pub use args::Args;
pub use args::BioKind;
pub use args::CtrError;
pub use args::CtrMessage;
pub use bio::Ended;
pub use bio::EndedBio;
pub use bio::MapBio;
pub use bio::Mapped;
pub use bio::Op;
pub use bio::Opf;
pub use buffer::IoBuffer;
pub use buffer::IoSlice;
pub use buffer::IoSliceMut;
pub use device::Device;
pub use device::DeviceNumber;
pub use events::Events;
pub use info::MappedDeviceId;
pub use info::TargetInfo;
pub use instance::Constructor;
pub use io::Batch;
pub use io::BatchSlots;
pub use io::BioPool;
pub use io::IoResult;
pub use limits::QueueFeature;
pub use limits::QueueLimits;
pub use list::BioList;
pub use list::TakenBios;
pub use noio::NoIoScope;
pub use owned::OwnedBio;
pub use published::synchronize_rcu;
pub use published::Published;
pub use published::Retired;
pub use register::Registration;
pub use register::TargetType;
pub use srcu::Srcu;
pub use srcu::SrcuTicket;
pub use status::BlkStatus;
pub use target::DeviceVisitor;
pub use target::Features;
pub use target::Target;
pub use text::ReplyBuffer;
pub use text::StatusBuffer;
pub use text::StatusKind;
pub use util::random_uuid;
pub use util::wall_clock_seconds;
pub use util::RateLimit;
pub use work::Placement;
pub use work::WorkQueue;
