// SPDX-License-Identifier: GPL-2.0
//! Sets of several spares: more room, redundancy across them, one that joins, leaves, is lost or comes
//! back.

mod adding;
mod crashes;
mod evacuating;
mod flushes;
mod forgetting;
mod growing;
mod hanging;
mod healing;
mod identity;
mod joining;
mod losing;
mod loss;
mod only_spare;
mod refusals;
mod refusing;
mod replacing;
mod resting;
mod restoring;
mod returning;
mod set;
mod taking_over;
