// SPDX-License-Identifier: GPL-2.0
//! Sets of several spares: more room, redundancy across them, one that joins, leaves, is lost or comes
//! back.

mod joining;
mod loss;
mod refusals;
mod set;
