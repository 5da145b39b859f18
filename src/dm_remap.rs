// SPDX-License-Identifier: GPL-2.0

//! dm-remap: a failing disk and a spare together make a block device without bad sectors.
//!
//! | module         | what it is                                                                   |
//! |----------------|------------------------------------------------------------------------------|
//! | `abstractions` | device mapper and the block layer, made safe; the only place with `unsafe`   |
//! | `logic`        | what can be decided without a kernel: formats, protocols, tables, parsing    |
//! | `remap`        | the target: mapping bios, repairing failed ones, metadata, messages, status  |

mod abstractions;
mod logic;
mod remap;

use kernel::prelude::*;

use abstractions::dm;
use remap::{
    DmRemap,
    Files, //
};

module! {
    type: DmRemapModule,
    name: "dm_remap",
    authors: ["The dm-remap developers"],
    description: "Device mapper target that remaps bad sectors to a spare device",
    license: "GPL",
    alias: ["dm-remap", "dm-dm-remap", "dm-dm-remap-v4"],
}

static DM_REMAP: dm::TargetType<DmRemap> = dm::TargetType::new(c"dm-remap");
// What tables of two older tools name.
static REMAP: dm::TargetType<DmRemap> = dm::TargetType::new(c"remap");
static DM_REMAP_V4: dm::TargetType<DmRemap> = dm::TargetType::new(c"dm-remap-v4");

struct DmRemapModule {
    // First: there are no targets any more when files go.
    _names: [dm::Registration; 3],
    _files: Files,
}

impl kernel::Module for DmRemapModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let files = Files::new()?;
        Ok(Self {
            _names: [
                DM_REMAP.register(module)?,
                REMAP.register(module)?,
                DM_REMAP_V4.register(module)?,
            ],
            _files: files,
        })
    }
}
