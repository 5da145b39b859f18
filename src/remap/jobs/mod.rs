// SPDX-License-Identifier: GPL-2.0

//! What is done because a user says so, or in the background: moves, spares that are given up, redundancy.
//!
//! | file       | what it does                                                                     |
//! |------------|----------------------------------------------------------------------------------|
//! | `state`    | who moves blocks, and whether jobs have to end                                   |
//! | `mover`    | messages that move blocks: to the spare, back to main, away from a spare         |
//! | `zero`     | gives up what main cannot read                                                   |
//! | `avoid`    | has main not read any more in a range, and read again                            |
//! | `closed`   | a range that nobody else works on meanwhile; and when a job has to stop          |
//! | `forget`   | gives up a spare that is lost                                                    |
//! | `retry`    | asks main again for what it could not read                                       |
//! | `recheck`  | reads all copies of the metadata again                                           |
//! | `restorer` | makes redundancy again, in the background                                        |
//! | `weak`     | moves blocks that main can hardly read, in the background                        |
//! | `autosave` | writes the counters to the spares now and then                                   |
//!
//! A suspend says in `stopping` that jobs have to end after the part that they are at, and waits for the mover's
//! lock; from then on there is none, as nothing is active (`presuspend` and `postsuspend` of
//! [`DmRemap`](super::DmRemap)). But `retry` reads main without that lock: what it reads it takes back only while the
//! device is active.

pub(super) mod autosave;
pub(super) mod avoid;
pub(super) mod closed;
pub(super) mod forget;
pub(super) mod mover;
pub(super) mod recheck;
pub(super) mod restorer;
pub(super) mod retry;
pub(super) mod state;
pub(super) mod weak;
pub(super) mod zero;
