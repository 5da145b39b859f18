// SPDX-License-Identifier: GPL-2.0

//! What is done because a user says so, or in the background: moves, spares that are given up, redundancy.

pub(super) mod closed;
pub(super) mod forget;
pub(super) mod mover;
pub(super) mod restorer;
