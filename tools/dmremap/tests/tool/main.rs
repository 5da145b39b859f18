// SPDX-License-Identifier: GPL-2.0

//! Tests of `dmremap` on image files.
//!
//! [`image`] makes spares of any state with the encoders of the logic, and runs the program or its
//! library on them.

mod check;
mod crash;
mod dump;
mod files;
mod format;
mod image;
mod linear;
mod remains;
mod same;
mod sets;
