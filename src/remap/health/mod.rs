// SPDX-License-Identifier: GPL-2.0

//! Whether disks work as such, and what users have yet to hear of flushes.
//!
//! | file    | what it does                                                                        |
//! |---------|-------------------------------------------------------------------------------------|
//! | `life`  | what is counted: a breaker for each direction of each disk, flushes that failed     |
//! | `shut`  | which members the set goes on without                                               |
//! | `flush` | flushes of our own, and what they vouch for                                         |
//! | `probe` | asks main whether it lives: reads, and writes what is there                         |
//!
//! Whether the medium is to blame for an error of main, or all of main, is decided in `logic/repair/blame.rs`, by
//! `logic/breaker.rs`. That a spare is lost is found out where metadata is written:
//! `meta/io.rs` asks whether it answers, or `Writer::lose_if_gone` for who had an error of a slot or a
//! flush, and `Writer::leave_lost` says so.

mod flush;
pub(super) mod life;
pub(super) mod probe;
mod shut;
