// SPDX-License-Identifier: GPL-2.0

//! From a table line to devices and a state. What can be refused is refused here, and nothing is written. What the
//! spares of a line are to be is decided in `logic/set`, by what is read here.
//!
//! | file       | what it does                                                                        |
//! |------------|-------------------------------------------------------------------------------------|
//! | `ctr`      | the constructor: parses (`logic/args.rs`), opens, and puts the target together      |
//! | `devices`  | checks of the devices by themselves                                                 |
//! | `registry` | which part of which disk is in use as what, and by which state                      |
//! | `line`     | what both ways to a state need                                                      |
//! | `join`     | the one way: the mapped device is in use, and has a state                           |
//! | `fresh`    | the other one: the state is made of what is on the spares                           |
//! | `load`     | reads that                                                                          |
//! | `refuse`   | what is refused, and in which words                                                 |
//! | `spares`   | the spares of a table                                                               |

pub(super) mod ctr;
mod devices;
mod fresh;
mod join;
mod line;
pub(super) mod load;
mod refuse;
pub(super) mod registry;
pub(super) mod spares;
