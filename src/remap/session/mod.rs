// SPDX-License-Identifier: GPL-2.0

//! What outlives tables, and what a resume and a suspend do to it.

pub(super) mod activate;
pub(super) mod state;
pub(super) mod take_over;
