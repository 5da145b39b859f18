// SPDX-License-Identifier: GPL-2.0

//! Checks of the devices that a table line names: kinds, sizes, blocks, overlaps. Nothing is read from them.

use crate::{
    abstractions::dm,
    logic::{
        args::Options,
        errno::Errno,
        format::{
            geometry::WINDOW_SECTORS_MIN,
            BLOCK_BYTES,
            BLOCK_SECTORS, //
        }, //
    }, //
};

use super::{
    refuse::{
        refuse,
        CtrResult,
        ZONED, //
    },
    registry, //
};

/// Checks what main is. Returns how many sectors a block has, as a power of two.
pub(super) fn check_main(main: &dm::Device, len: u64) -> CtrResult<u32> {
    if main.is_zoned() {
        return Err(refuse(Errno::NotSupported, ZONED));
    }
    let block = main.logical_block_size();
    if u64::from(block) > BLOCK_BYTES as u64 {
        return Err(refuse(
            Errno::NotSupported,
            c"Logical blocks of main are larger than 4096 bytes",
        ));
    }
    let sectors = block >> 9;
    if !sectors.is_power_of_two() || len & u64::from(sectors.saturating_sub(1)) != 0 {
        return Err(refuse(
            Errno::Invalid,
            c"Length is not a multiple of main's logical block",
        ));
    }
    if len > main.sectors() {
        return Err(refuse(Errno::Range, c"Main is smaller than the target"));
    }
    Ok(sectors.trailing_zeros())
}

/// Checks what a spare is.
pub(super) fn check_spare(main: &dm::Device, spare: &dm::Device) -> CtrResult<()> {
    if main == spare {
        return Err(refuse(Errno::Busy, c"Main and spare are the same device"));
    }
    if spare.is_zoned() {
        return Err(refuse(Errno::NotSupported, ZONED));
    }
    if spare.logical_block_size() > main.logical_block_size() {
        return Err(refuse(
            Errno::NotSupported,
            c"Spare has larger logical blocks than main",
        ));
    }
    Ok(())
}

/// Checks that no two spares of a table have anything in common.
pub(super) fn check_apart(spares: &[dm::Device], windows: &[(u64, u64)]) -> CtrResult<()> {
    let parts = || spares.iter().zip(windows).enumerate();
    for (index, (spare, (start, sectors))) in parts() {
        let own = registry::absolute(spare, (*start, start.saturating_add(*sectors)));
        for (_, (other, (start, sectors))) in parts().take(index) {
            let taken = registry::absolute(other, (*start, start.saturating_add(*sectors)));
            if spare.is_same_disk(other) && own.0 < taken.1 && taken.0 < own.1 {
                return Err(refuse(Errno::Busy, c"Two spares overlap on the same disk"));
            }
        }
    }
    Ok(())
}

/// Device mapper opens a device for writing even if it refuses writes.
pub(super) fn check_write_access(main: &dm::Device, spares: &[dm::Device]) -> CtrResult<()> {
    if main.is_read_only() {
        return Err(refuse(
            Errno::ReadOnly,
            c"Main device is read-only: load the table read-only",
        ));
    }
    if spares.iter().any(dm::Device::is_read_only) {
        return Err(refuse(
            Errno::ReadOnly,
            c"Spare device is read-only: load the table read-only",
        ));
    }
    Ok(())
}

/// First sector of the window on the spare, and number of sectors. Metadata blocks are aligned on
/// the device, so the start is rounded up. Without options it is the whole device.
pub(super) fn find_window(
    main: &dm::Device,
    spare: &dm::Device,
    options: Option<&Options>,
    len: u64,
) -> CtrResult<(u64, u64)> {
    let outside = || refuse(Errno::Range, c"Spare range is outside of the spare device");
    let start = options.and_then(|options| options.spare_start).unwrap_or(0);
    let end = match options.and_then(|options| options.spare_len) {
        Some(len) => start.checked_add(len).ok_or_else(outside)?,
        None => spare.sectors(),
    };
    if start >= spare.sectors() || end > spare.sectors() {
        return Err(outside());
    }
    // Whole metadata blocks, which are whole blocks for main, too.
    let start = start.next_multiple_of(BLOCK_SECTORS);
    let sectors = end.saturating_sub(start) & !(BLOCK_SECTORS - 1);
    if sectors < WINDOW_SECTORS_MIN {
        return Err(refuse(
            Errno::NoSpace,
            c"Spare is too small, 512 KiB are needed",
        ));
    }
    let on_main = registry::absolute(main, (0, len));
    let on_spare = registry::absolute(spare, (start, end));
    if main.is_same_disk(spare) && on_main.0 < on_spare.1 && on_spare.0 < on_main.1 {
        return Err(refuse(
            Errno::Busy,
            c"Main and spare overlap on the same disk",
        ));
    }
    Ok((start, sectors))
}
