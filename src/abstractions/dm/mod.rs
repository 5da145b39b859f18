// SPDX-License-Identifier: GPL-2.0

//! Device-mapper targets.
//!
//! This module lets a kernel module implement a device-mapper target: what stands behind a line
//! `<start> <length> <name> <arguments>` of a table. It is written to become `kernel::dm`.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)
//!
//! # What an implementer does
//!
//! 1. Implement [`Target`] for a type. A value of it stands for one line of a table: what [`Target::ctr`]
//!    returns makes it from the arguments, [`Target::map`] decides about each bio, dropping it is the
//!    destructor. Only these two functions and two more items must be there.
//! 2. Give it a name with a `static` [`TargetType`], and keep the [`Registration`] in the module.
//!
//! All functions but the constructor take `&self`, since device mapper calls them in parallel; what
//! may run when, and may sleep or not, is in the table at [`Target`].
//!
//! # The types, and who owns what
//!
//! | type | in C | owned by |
//! |---|---|---|
//! | [`TargetType`], [`Registration`] | `target_type` | the module |
//! | [`Constructor`] | `dm_target`, while it is made | the abstraction, during `ctr` |
//! | [`TargetInfo`] | `dm_target` | device mapper; each function gets a reference |
//! | [`Device`] | `dm_dev`, and a reference to its file | whoever has one, for as long as wanted |
//! | [`MapBio`] | a clone that is being mapped | `map`, which must decide about it |
//! | [`EndedBio`] | a clone that came back | `end_io`, which must decide about it |
//! | [`OwnedBio`] | a clone between the two | the target, until it answers it |
//! | [`BioContext`] | per-bio data | the bio that it goes with, until `end_io` |
//! | [`BioPool`], [`Batch`] | `bio_set`, and bios from it | the target; bios by the call that waits |
//! | [`Events`] | `dm_table`, for its events | whoever has one; does nothing once the table is gone |
//! | [`SrcuReader`] | what `srcu_down_read_fast()` returns | whoever has one, or a bio |
//! | [`Srcu`], [`Published`], [`WorkQueue`] | `srcu_struct`, an RCU pointer, `workqueue_struct` | the target |
//!
//! A target lives as long as its table. Device mapper destroys a table only when all its bios are
//! answered and nothing calls into the target; then the abstraction drops the value, ends its
//! [`Events`], and closes its devices. A constructor that fails is undone by dropping what it made.
//!
//! # Bios
//!
//! [`MapBio`] and [`EndedBio`] are taken by value by what decides about them, and only that gives the
//! [`Mapped`] or [`Ended`] that `map` and `end_io` must return. See the `bio` module for the ways
//! that a bio can take. Some things are easily got wrong in C and are seen to here:
//!
//! - A bio comes back with its iterator used up, and with `FUA` stripped if the device had no cache.
//!   [`EndedBio::take`] restores both, so that it can go to another device.
//! - A bio that was split further down comes back with a count that does not allow for splitting it
//!   again. It is set anew.
//! - When a target completes a bio that it took over, device mapper calls `end_io` once more. The
//!   abstraction keeps that call to itself.
//! - A bio that was part of a request comes back linked to the others. The link is cut.
//! - A bio that was taken over may be answered, and the table be destroyed, before `end_io` returns. The
//!   target is kept until then.
//! - A reader that is registered for a bio has to be given back once, however the bio ends. A
//!   [`SrcuReader`] that goes with it in its [`BioContext`] is, before `end_io` sees the bio.
//! - A bio that went to a partition is marked as remapped, and would miss the start of the next one.
//!   Changing the device removes the mark.
//!
//! # Example
//!
//! dm-linear, which maps to a device from some sector on. The same is in
//! `tests/modules/dm_linear_rust`, as a module.
//!
//! ```
//! use kernel::block;
//! use kernel::dm;
//! use kernel::work;
//! use kernel::dm::CtrMessage;
//! use kernel::prelude::*;
//!
//! struct Linear {
//!     device: dm::Device,
//!     start: u64,
//! }
//!
//! #[vtable]
//! impl dm::Target for Linear {
//!     type PerBio = ();
//!     const VERSION: [u32; 3] = [1, 0, 0];
//!     const FEATURES: dm::Features = dm::Features::NOWAIT;
//!
//!     fn ctr(
//!         ctor: &mut dm::Constructor<'_>,
//!         args: dm::Args<'_>,
//!     ) -> impl PinInit<Self, dm::CtrError> {
//!         pin_init::pin_init_scope(move || {
//!             let (Some(path), Some(start), 2) = (args.get(0), args.get(1), args.len()) else {
//!                 return Err(dm::CtrError::new(EINVAL, c"Invalid argument count"));
//!             };
//!             let start = start.to_str().ok().and_then(|start| start.parse().ok());
//!             let start = start.ok_or(EINVAL).message(c"Invalid device sector")?;
//!             let device = ctor.device(path).message(c"Device lookup failed")?;
//!
//!             ctor.set_num_bios(dm::BioKind::Flush, 1);
//!             ctor.set_num_bios(dm::BioKind::Discard, 1);
//!             Ok(try_init!(Self { device, start }? dm::CtrError))
//!         })
//!     }
//!
//!     #[inline(always)]
//!     fn map<'a>(&self, _ti: &dm::TargetInfo, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
//!         let sector = self.start.wrapping_add(bio.target_sector());
//!         bio.remap(&self.device, sector)
//!     }
//!
//!     fn iterate_devices(&self, ti: &dm::TargetInfo, devices: &mut dm::DeviceVisitor<'_>) {
//!         devices.visit(&self.device, self.start, ti.len());
//!     }
//! }
//!
//! static LINEAR: dm::TargetType<Linear> = dm::TargetType::new(c"linear_rust");
//!
//! struct LinearModule {
//!     _registration: dm::Registration,
//! }
//!
//! impl kernel::Module for LinearModule {
//!     fn init(module: &'static ThisModule) -> Result<Self> {
//!         Ok(Self {
//!             _registration: LINEAR.register(module)?,
//!         })
//!     }
//! }
//! ```
//!
//! `map` and `end_io` run for each bio. Mark them `#[inline(always)]`, so that they become part of the
//! function that device mapper calls; what this module adds is then a handful of instructions.
//!
//! # Bios that failed
//!
//! ```
//! # use kernel::block;
//! # use kernel::dm;
//! # use kernel::work;
//! # use kernel::prelude::*;
//! # use kernel::sync::Arc;
//! # use kernel::workqueue::Work;
//! # #[pin_data]
//! # struct Shared {
//! #     failed: dm::BioList<Retry>,
//! #     #[pin]
//! #     work: Work<Shared>,
//! # }
//! # kernel::impl_has_work! { impl HasWork<Self> for Shared { self.work } }
//! # impl kernel::workqueue::WorkItem for Shared {
//! #     type Pointer = Arc<Shared>;
//! #     fn run(shared: Arc<Shared>) {
//! #         for bio in shared.failed.take_all() {
//! #             bio.complete(block::BlkStatus::IOERR);
//! #         }
//! #     }
//! # }
//! # struct Retry {
//! #     queue: work::WorkQueue,
//! #     shared: Arc<Shared>,
//! # }
//! # #[vtable]
//! # impl dm::Target for Retry {
//! #     type PerBio = ();
//! #     const VERSION: [u32; 3] = [1, 0, 0];
//! #     fn ctr(
//! #         _ctor: &mut dm::Constructor<'_>,
//! #         _args: dm::Args<'_>,
//! #     ) -> impl PinInit<Self, dm::CtrError> {
//! #         Err(dm::CtrError::new(EINVAL, c"an example"))
//! #     }
//! #     fn map<'a>(&self, _ti: &dm::TargetInfo, bio: dm::MapBio<'a, Self>) -> dm::Mapped<'a> {
//! #         bio.kill()
//! #     }
//! fn end_io<'a>(&self, _ti: &dm::TargetInfo, bio: dm::EndedBio<'a, Self>) -> dm::Ended<'a> {
//!     if bio.status() != block::BlkStatus::MEDIUM {
//!         return bio.done();
//!     }
//!     let (bio, ended) = bio.take();
//!     if self.shared.failed.push(bio) {
//!         let _ = self.queue.enqueue(self.shared.clone());
//!     }
//!     ended
//! }
//! # }
//! ```
//!
//! The worker takes them with [`BioList::take_all`] and answers each: it does the I/O itself in parts
//! ([`BioPool::write_slice`]) and completes the bio, or it sends the bio on ([`OwnedBio::submit`]).
//!
//! [`Batch`]: super::block::Batch
//! [`BioPool`]: super::block::BioPool
//! [`BioPool::write_slice`]: super::block::BioPool::write_slice
//! [`Published`]: super::sync::Published
//! [`Srcu`]: super::sync::Srcu
//! [`SrcuReader`]: super::sync::SrcuReader
//! [`WorkQueue`]: super::work::WorkQueue

pub(super) mod args;
pub(super) mod bio;
pub(super) mod device;
pub(super) mod events;
pub(super) mod info;
pub(super) mod instance;
pub(super) mod list;
pub(super) mod owned;
pub(super) mod per_bio;
pub(super) mod target;
pub(super) mod target_type;
pub(super) mod text;

pub use args::{
    Args,
    BioKind,
    CtrError,
    CtrMessage, //
};
pub use bio::{
    BioContext,
    Ended,
    EndedBio,
    MapBio,
    Mapped, //
};
pub use device::{
    Device,
    DeviceNumber, //
};
pub use events::{
    DeviceNames,
    Events, //
};
pub use info::{
    MappedDeviceId,
    TableId,
    TargetInfo, //
};
pub use instance::Constructor;
pub use list::{
    BioList,
    TakenBios, //
};
pub use owned::OwnedBio;
pub use target::{
    DeviceVisitor,
    Features,
    Target, //
};
pub use target_type::{
    Registration,
    TargetType, //
};
pub use text::{
    ReplyBuffer,
    StatusBuffer,
    StatusKind, //
};
