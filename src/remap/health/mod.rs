// SPDX-License-Identifier: GPL-2.0

//! Whether disks work as such, and what users have yet to hear of flushes.

pub(super) mod life;
pub(super) mod probe;
