// SPDX-License-Identifier: GPL-2.0

//! From a table line to devices and a state. What can be refused is refused here, and nothing is written.

pub(super) mod changes;
pub(super) mod ctr;
pub(super) mod load;
pub(super) mod registry;
pub(super) mod spares;
