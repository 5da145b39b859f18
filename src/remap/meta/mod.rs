// SPDX-License-Identifier: GPL-2.0

//! Every change of the map, in memory and on the spares: drives [`logic::commit`](crate::logic::commit).
//!
//! | file             | what it does                                                               |
//! |------------------|----------------------------------------------------------------------------|
//! | `state`          | the writer's lock, and what is behind it                                   |
//! | `writer`         | one change after the other, durable first and visible then                 |
//! | `writer/slots`   | slots, from being given out to being given back                            |
//! | `writer/members` | spares that join, leave, rest, are lost and come back; redundancy          |
//! | `writer/losses`  | what was lost with spares that are given up                                |
//! | `writer/growth`  | how large the map is (`Published::reclaim` frees old ones)                 |
//! | `writer/news`    | what users wait for                                                        |
//! | `writer/recheck` | reads all copies again, and writes those anew that differ                  |
//! | `io`             | the I/O that `logic::commit` asks for; whether a spare answers             |

pub(super) mod io;
pub(super) mod state;
pub(super) mod writer;
