// SPDX-License-Identifier: GPL-2.0

//! What users say and see.

pub(super) mod limits;
pub(super) mod message;
pub(super) mod names;
mod status;
