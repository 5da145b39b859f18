// SPDX-License-Identifier: GPL-2.0

//! Every change of the map, in memory and on the spares: drives [`logic::commit`](crate::logic::commit).

pub(super) mod io;
pub(super) mod writer;
