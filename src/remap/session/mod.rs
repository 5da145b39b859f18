// SPDX-License-Identifier: GPL-2.0

//! What outlives tables, and what a resume and a suspend do to it.
//!
//! | file        | what it does                                                                    |
//! |-------------|---------------------------------------------------------------------------------|
//! | `state`     | what all tables of a mapped device share, one after the other; locks            |
//! | `leaving`   | spares that the next table does without                                         |
//! | `activate`  | the first writes of a resume, and what a suspend writes                         |
//! | `take_over` | new spares in the place of dead ones                                            |
//! | `walk`      | going through main, and seeing how each part is served                          |
//!
//! What a suspend waits for is in `postsuspend`, in `remap/mod.rs`.

pub(super) mod activate;
pub(super) mod leaving;
pub(super) mod state;
pub(super) mod take_over;
pub(super) mod walk;
