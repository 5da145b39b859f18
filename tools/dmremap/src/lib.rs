// SPDX-License-Identifier: GPL-2.0

//! Looks after the spares of dm-remap devices, without the kernel module: on devices and on image
//! files, on any machine.
//!
//! | module       | what                                                                          |
//! |--------------|-------------------------------------------------------------------------------|
//! | [`spare`]    | a device or image file, and what is to be written to it                       |
//! | [`identity`] | whether two names stand for the same sectors                                  |
//! | [`set`]      | what is on the spares of a set; the only place that knows where copies lie    |
//! | [`check`]    | what is wrong with it, by severity                                            |
//! | [`dump`]     | all that it says, as JSON                                                     |
//! | [`linear`]   | the same device in lines of dm-linear                                         |
//! | [`repair`]   | mending it                                                                    |
//! | [`restore`]  | writing it anew from a dump                                                   |
//! | [`backup`]   | what blocks were before they were overwritten                                 |
//! | [`cli`]      | the command line                                                              |
//!
//! What the metadata means and which copy is true is decided by `dm_remap_logic`, which the module
//! is made of, too.

#![forbid(unsafe_code)]

pub mod backup;
mod change;
pub mod check;
pub mod cli;
pub mod commands;
mod driver;
pub mod dump;
pub mod error;
pub mod identity;
pub mod linear;
pub mod repair;
pub mod restore;
mod save;
pub mod set;
pub mod spare;
mod sysfs;
mod torn;
