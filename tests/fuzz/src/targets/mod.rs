// SPDX-License-Identifier: GPL-2.0

//! One target for each decoder.

use super::Input;

mod commit;
mod extents;
mod geometry;
mod load;
mod message;
mod superblock;
mod table_block;
mod table_line;
mod text;

/// What a decoder said to an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took it, and all that follows from it held.
    Accepted,
    /// It refused it, for a reason that holds.
    Refused,
}

impl Verdict {
    fn accepted(accepted: bool) -> Self {
        if accepted {
            Verdict::Accepted
        } else {
            Verdict::Refused
        }
    }
}

/// A decoder with what must hold for it.
pub struct Target {
    /// What it is called, and its folder in `corpus/`.
    pub name: &'static str,
    /// Tries an input; panics if something does not hold.
    pub run: fn(&mut Input<'_>) -> Verdict,
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $name::run }),*
        ];
    };
}

targets![
    geometry,
    superblock,
    table_block,
    load,
    commit,
    extents,
    table_line,
    message,
    text
];

impl Target {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}
