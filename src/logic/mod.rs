// SPDX-License-Identifier: GPL-2.0

//! The pure part of dm-remap: no kernel, no allocation, no I/O, no panic.
//!
//! Everything that can be decided without touching a device is decided here, by code that takes
//! and returns values. The kernel module compiles this directory as its module `logic`; Cargo
//! compiles the same files as the crate `dm-remap-logic` for the host's tests and tools.
//!
//! | module       | question that it answers                                                   |
//! |--------------|----------------------------------------------------------------------------|
//! | [`format`]   | Where does everything lie on the spare, and what do its bytes mean?        |
//! | [`load`]     | Of several copies, which is the truth, and what has to be written again?   |
//! | [`commit`]   | What is written next, in which order, and what if that write fails?        |
//! | [`set`]      | Which spares belong to the set, and how does a table change that?          |
//! | [`slot`]     | What does one word say about one slot?                                     |
//! | [`extents`]  | Where is a slot?                                                           |
//! | [`table`]    | Which slot serves a block of main?                                         |
//! | [`presence`] | Can there be any remap in this range at all?                               |
//! | [`avoid`]    | Which ranges of main are not read any more, as its user says that they are bad? |
//! | [`reach`]      | How far does a long range go that is served in one way?                    |
//! | [`pool`]     | Which slots take new data, and what are the others used for?               |
//! | [`classify`] | Does an error suspect the medium, or is it passed up?                      |
//! | [`bisect`]   | Which single blocks of a failed range are bad?                             |
//! | [`breaker`]  | Has a device failed as a whole?                                            |
//! | [`places`]   | Where is a device asked whether it lives?                                  |
//! | [`latch`]    | What follows from a flush that failed?                                     |
//! | [`cache`]    | Can a disk's cache hold what users wrote?                                  |
//! | [`desk`]     | Who may work on which blocks of main at a time?                            |
//! | [`group`]    | Who shares a flush and a commit with whom?                                 |
//! | [`repair`]   | What is done next for a bio that failed, and what if that fails?           |
//! | [`limit`]    | Which numbers can users set?                                               |
//! | [`recheck`]  | Is what is on the spares what memory knows?                                |
//! | [`args`]     | What does a table line ask for?                                            |
//! | [`message`]  | What does a message ask for?                                               |
//! | [`status`]   | How is the state told to users?                                            |
//! | [`figures`]  | Which single values are there, and how do monitors read them?              |
//! | [`listing`]  | Which ranges of main does `list` tell of?                                  |
//! | [`event`]    | What do users hear of without asking?                                      |
//!
//! Units: a *sector* is always 512 bytes. A *metadata block* is 4096 bytes. A *main block* is one
//! logical block of the main device, and a *slot* is the place on the spare that can hold one.

#![cfg_attr(not(any(MODULE, test)), no_std)]
#![forbid(unsafe_code)]
// In the module nothing here is reachable from outside of its crate, and it uses only what it needs
// of what tools and tests use, too.
#![cfg_attr(MODULE, allow(dead_code, unreachable_pub, unused_imports))]

pub mod args;
pub mod avoid;
pub mod bisect;
pub mod breaker;
pub mod cache;
pub mod classify;
pub mod commit;
pub mod crc32c;
pub mod desk;
pub mod errno;
pub mod event;
pub mod extents;
pub mod figures;
pub mod format;
pub mod group;
pub mod latch;
pub mod limit;
pub mod listing;
pub mod load;
pub mod message;
pub mod places;
pub mod pool;
pub mod presence;
pub mod reach;
pub mod recheck;
pub mod repair;
pub mod set;
pub mod slot;
pub mod status;
pub mod table;
pub mod text;
pub mod word;
