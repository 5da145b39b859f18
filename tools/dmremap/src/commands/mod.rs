// SPDX-License-Identifier: GPL-2.0

//! The commands: their arguments, and what they print.

pub mod check;
pub mod dump;
pub mod format;
pub mod linear_table;
pub mod repair;
pub mod restore;
