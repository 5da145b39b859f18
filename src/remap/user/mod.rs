// SPDX-License-Identifier: GPL-2.0

//! What users say and see.
//!
//! | file      | what it does                                                                      |
//! |-----------|-----------------------------------------------------------------------------------|
//! | `message` | does what a message asks for; `logic/message.rs` parses it                        |
//! | `status`  | the status line; `logic/status.rs` has its form                                   |
//! | `limits`  | limits that are in force; `logic/limit.rs` has their names and ranges             |
//! | `face`    | where users look at a device: its folders, and what is shown there                |
//! | `sysfs`   | files with one value each, some of which can be set; `logic/figures.rs` names them |
//! | `debugfs` | tables of any length                                                              |
//! | `names`   | how the kernel log calls things                                                   |

mod debugfs;
pub(crate) mod face;
pub(super) mod limits;
pub(super) mod message;
pub(super) mod names;
mod status;
mod sysfs;
