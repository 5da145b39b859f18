// SPDX-License-Identifier: GPL-2.0

//! The pure part of dm-remap: no kernel, no allocation, no I/O.
#![forbid(unsafe_code)]
