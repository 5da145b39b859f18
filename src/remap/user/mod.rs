// SPDX-License-Identifier: GPL-2.0

//! What users say and see.
//!
//! | file       | what it does                                                                       |
//! |------------|------------------------------------------------------------------------------------|
//! | `message`  | finds out what a message asks for, and has it done; `logic/message` parses it      |
//! | `answer`   | replies, and reasons to refuse                                                     |
//! | `moves`    | messages that move blocks                                                          |
//! | `spares`   | messages about a spare                                                             |
//! | `metadata` | messages about the metadata                                                        |
//! | `places`   | where sectors are served: `verify`, `list`                                         |
//! | `state`    | what users see of a device and have set; tells them, and the kernel log             |
//! | `counters` | what is counted                                                                    |
//! | `status`   | makes a `Status` of what is counted; `logic/status` has the form                   |
//! | `limits`   | limits that are in force; `logic/limit.rs` has their names and ranges              |
//! | `face`     | where users look at a device: its folders, and what is shown there                 |
//! | `sysfs`    | files with one value each, some of which can be set; `logic/figures.rs` names them |
//! | `debugfs`  | tables of any length                                                               |
//! | `params`   | the module's parameters: what new devices begin with                               |
//! | `events`   | events and uevents; `logic/event.rs` says which. Tracepoints: `abstractions/trace` |
//! | `names`    | how the kernel log calls things                                                    |

mod answer;
pub(super) mod counters;
mod debugfs;
pub(super) mod events;
pub(crate) mod face;
pub(super) mod limits;
pub(super) mod message;
mod metadata;
mod moves;
pub(super) mod names;
pub(super) mod params;
mod places;
mod spares;
pub(super) mod state;
mod status;
mod sysfs;
