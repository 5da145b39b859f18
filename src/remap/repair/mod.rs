// SPDX-License-Identifier: GPL-2.0

//! What becomes of bios that failed.

pub(super) mod crew;
pub(super) mod notes;
pub(super) mod relocate;
pub(super) mod serve;
