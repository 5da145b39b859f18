// SPDX-License-Identifier: GPL-2.0

//! dm-linear in Rust: a target that maps its sectors to those of another device, in order.
//!
//! This is the example of the documentation of `dm`, as a module that can be loaded.

use core::fmt::Write;

use kernel::prelude::*;

use abstractions::dm::{
    self,
    Args,
    BioKind,
    Constructor,
    CtrError,
    CtrMessage,
    Device,
    DeviceVisitor,
    Features,
    MapBio,
    Mapped,
    Registration,
    StatusBuffer,
    StatusKind,
    TargetInfo,
    TargetType, //
};

#[path = "../../../src/abstractions/mod.rs"]
mod abstractions;

module! {
    type: LinearModule,
    name: "dm_linear_rust",
    authors: ["The dm-remap developers"],
    description: "dm-linear in Rust",
    license: "GPL",
}

struct Linear {
    device: Device,
    start: u64,
}

#[vtable]
impl dm::Target for Linear {
    type PerBio = ();
    const VERSION: [u32; 3] = [1, 0, 0];
    const FEATURES: Features = Features::NOWAIT;

    fn ctr(ctor: &mut Constructor<'_>, args: Args<'_>) -> impl PinInit<Self, CtrError> {
        pin_init::pin_init_scope(move || {
            let (Some(path), Some(start), 2) = (args.get(0), args.get(1), args.len()) else {
                return Err(CtrError::new(EINVAL, c"Invalid argument count"));
            };
            let start = start.to_str().ok().and_then(|start| start.parse().ok());
            let start = start.ok_or(EINVAL).message(c"Invalid device sector")?;
            let device = ctor.device(path).message(c"Device lookup failed")?;

            ctor.set_num_bios(BioKind::Flush, 1);
            ctor.set_num_bios(BioKind::Discard, 1);
            ctor.set_num_bios(BioKind::SecureErase, 1);
            ctor.set_num_bios(BioKind::WriteZeroes, 1);
            Ok(try_init!(Self { device, start }? CtrError))
        })
    }

    #[inline(always)]
    fn map<'a>(&self, _ti: &TargetInfo, bio: MapBio<'a, Self>) -> Mapped<'a> {
        let sector = self.start.wrapping_add(bio.target_sector());
        bio.remap(&self.device, sector)
    }

    fn status(&self, _ti: &TargetInfo, kind: StatusKind, out: &mut StatusBuffer<'_>) {
        let (device, start) = (self.device.number(), self.start);
        let _ = match kind {
            StatusKind::Info => Ok(()),
            StatusKind::Table => write!(out, "{device} {start}"),
            StatusKind::Ima => write!(out, ",device_name={device},start={start};"),
        };
    }

    fn iterate_devices(&self, ti: &TargetInfo, devices: &mut DeviceVisitor<'_>) {
        devices.visit(&self.device, self.start, ti.len());
    }
}

static LINEAR: TargetType<Linear> = TargetType::new(c"linear_rust");

struct LinearModule {
    _registration: Registration,
}

impl kernel::Module for LinearModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _registration: LINEAR.register(module)?,
        })
    }
}
