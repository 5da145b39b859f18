// SPDX-License-Identifier: GPL-2.0

//! Tests of the module's pure part against simple models of what it must do.
//!
//! - [`format`], [`load`], [`table`], [`fill`], [`pool`], [`pool_states`], [`args`]: properties over random values.
//! - [`disk`] is a spare that tears, reorders, drops and fails writes; [`spare`] drives the commit
//!   protocol and loading over it as the module does; [`crash`] and [`slots`] run histories over both,
//!   [`set_histories`] over several spares, and [`commit`] and [`sets`] look at single cases.
//! - [`set_plans`] goes through what tables make of a set.
//! - [`repairs`]: repairers over disks that fail, with a clock.

mod args;
mod commit;
mod copy;
mod crash;
mod disk;
mod fill;
mod format;
mod load;
mod pool;
mod pool_states;
mod random;
mod recheck;
mod repairs;
mod schedules;
mod set_histories;
mod set_plans;
mod sets;
mod slots;
mod spare;
mod table;
