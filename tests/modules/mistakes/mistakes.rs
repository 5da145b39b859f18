// SPDX-License-Identifier: GPL-2.0

//! Mistakes on demand, each of a kind that the debug kernel is there for: `insmod mistakes.ko plant=N` makes
//! mistake number N, or none. The test `outside_watchers` shows that each is seen.
//!
//! Those that Rust code with a wrong `unsafe` would make are here, those of a driver that uses the kernel's
//! objects wrongly in `mistakes_c.c`.

use kernel::prelude::*;

module! {
    type: Mistakes,
    name: "mistakes",
    authors: ["The dm-remap developers"],
    description: "Mistakes for a debug kernel to find",
    license: "GPL",
    params: {
        plant: u32 {
            default: 0,
            description: "Which mistake to make",
        },
    },
}

extern "C" {
    fn mistakes_plant(number: u32) -> c_int;
}

struct Mistakes;

impl kernel::Module for Mistakes {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        match module_parameters::plant.value() {
            0 => (),
            1 => use_after_free()?,
            2 => out_of_bounds()?,
            3 => leak()?,
            // SAFETY: It may be called with any number, and is wrong on purpose.
            number => kernel::error::to_result(unsafe { mistakes_plant(number) })?,
        }
        Ok(Self)
    }
}

fn use_after_free() -> Result {
    let object = KBox::into_raw(KBox::new([1_u64; 16], GFP_KERNEL)?);
    // SAFETY: It comes from `into_raw`.
    drop(unsafe { KBox::from_raw(object) });
    // SAFETY: There is none: it is gone.
    let found = unsafe { (&raw const (*object)[3]).read_volatile() };
    pr_info!("freed memory holds {found}\n");
    Ok(())
}

fn out_of_bounds() -> Result {
    let object = KBox::into_raw(KBox::new([1_u8; 24], GFP_KERNEL)?);
    // SAFETY: There is none: this is behind the end, where the allocator has no other object yet.
    let found = unsafe { object.cast::<u8>().add(24).read_volatile() };
    pr_info!("behind the end there is {found}\n");
    // SAFETY: It comes from `into_raw`.
    drop(unsafe { KBox::from_raw(object) });
    Ok(())
}

fn leak() -> Result {
    for _ in 0..16 {
        core::mem::forget(KBox::new([1_u64; 16], GFP_KERNEL)?);
    }
    Ok(())
}
