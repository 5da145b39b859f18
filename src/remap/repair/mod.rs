// SPDX-License-Identifier: GPL-2.0

//! What becomes of bios that failed.
//!
//! | file       | what it does                                                                     |
//! |------------|----------------------------------------------------------------------------------|
//! | `state`    | what waits for a repair, and who is at it                                        |
//! | `crew`     | who repairs: work items, and which bio is whose turn                             |
//! | `serve`    | one bio: carries out what [`logic::repair`](crate::logic::repair) decides        |
//! | `relocate` | moves blocks to slots, whatever the reason: data, flush, commit, publish         |
//! | `notes`    | blocks that main could not read, until they are set aside                        |

pub(super) mod crew;
pub(super) mod notes;
pub(super) mod relocate;
pub(super) mod serve;
pub(super) mod state;
