// SPDX-License-Identifier: GPL-2.0

//! What must hold for any input whatsoever of everything that decodes: metadata blocks, table lines,
//! messages, names.
//!
//! A [`Target`] takes bytes, makes an input of the decoder of them, and panics where the decoder, or
//! what it accepted, breaks a rule. Nothing here knows a fuzzer: the program `dm-remap-fuzz` hands
//! over what libFuzzer thinks up (`scripts/fuzz`), and `tests/corpus.rs` the inputs kept in `corpus/`.
//!
//! Random bytes never have the right checksum, so most of these inputs are not the bytes themselves:
//! - [`Input`] reads numbers and choices from the bytes, and zeroes when they end. Any bytes are a
//!   legal input, and what is short is simple.
//! - [`image`] makes metadata blocks from it: whole ones, of values as they may be or just may not
//!   be, with some bytes changed and the checksum made right again, or not.
//!
//! To add a target: a file in `targets/` with its `run`, a line in [`TARGETS`], a few inputs in
//! [`seeds`], and a number of runs in `scripts/fuzz`. What depends on the signatures of `load` and
//! `format` stands in [`image`] as far as possible.

pub mod check;
pub mod image;
mod input;
pub mod seeds;
mod targets;
pub mod words;

pub use self::input::Input;
pub use self::targets::Target;
pub use self::targets::Verdict;
pub use self::targets::TARGETS;
