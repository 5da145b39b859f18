// SPDX-License-Identifier: GPL-2.0

//! The layout of a window, for all sizes.

use dm_remap_logic::format::geometry::WINDOW_SECTORS_MAX;
use dm_remap_logic::format::geometry::WINDOW_SECTORS_MIN;
use dm_remap_logic::format::Geometry;

use super::Verdict;
use crate::check;
use crate::Input;

/// A size, a slot size, an alignment, and where to look.
pub(super) fn run(input: &mut Input<'_>) -> Verdict {
    let (window, slot, align) = (input.number(), input.number(), input.number());
    let (slot, align) = (slot as u32, align as u32);
    let probe = input.u64();
    let legal_sizes = slot.is_power_of_two() && slot <= 8;
    let legal_align = align.is_power_of_two() && align <= 2048;
    match Geometry::new(window, slot, align) {
        Ok(geometry) => {
            assert!(legal_sizes && legal_align);
            assert!((WINDOW_SECTORS_MIN..=WINDOW_SECTORS_MAX).contains(&window));
            assert_eq!(geometry.window_sectors(), window);
            assert_eq!(geometry.slot_sectors(), slot);
            assert_eq!(geometry.align_sectors(), align.max(8));
            check::geometry(&geometry, probe);
            Verdict::Accepted
        }
        Err(error) => {
            check::says_something(&error);
            // 1 MiB for metadata and alignment on top of the least is enough for anything.
            let roomy = (WINDOW_SECTORS_MIN + 2 * 2048..=WINDOW_SECTORS_MAX).contains(&window);
            assert!(!(legal_sizes && legal_align && roomy), "{error}");
            Verdict::Refused
        }
    }
}
