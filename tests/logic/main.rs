// SPDX-License-Identifier: GPL-2.0

//! Tests of the module's pure part against simple models of what it must do.
//!
//! - [`format`], [`load`], [`table`], [`alloc`], [`args`]: properties over random values.
//! - [`disk`] is a spare that tears, reorders, drops and fails writes; [`spare`] drives the commit
//!   protocol and loading over it as the module does; [`crash`] and [`slots`] run histories over both, and
//!   [`commit`] looks at single cases.

mod alloc;
mod args;
mod commit;
mod crash;
mod disk;
mod format;
mod load;
mod random;
mod slots;
mod spare;
mod table;
