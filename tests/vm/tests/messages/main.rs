// SPDX-License-Identifier: GPL-2.0
//! Messages: what they do, what they answer, what they refuse.

mod again;
mod nonsense;
mod said;
mod told;
