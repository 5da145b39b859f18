// SPDX-License-Identifier: GPL-2.0

//! Files in which users look at what the kernel knows: sysfs and debugfs.
//!
//! | module    | there             | what                                                                |
//! |-----------|-------------------|---------------------------------------------------------------------|
//! | `sysfs`   | `kernel::kobject` | folders in sysfs with small files, each of which says one thing     |
//! | `debugfs` | `kernel::debugfs` | files in debugfs that are made row by row, however many there are   |
//! | `text`    | `kernel::str`     | the part of a text that somebody reads                              |

pub(super) mod debugfs;
pub(super) mod sysfs;
pub(super) mod text;

pub use debugfs::{
    Dir,
    RowFile,
    Rows,
    Step, //
};
pub use sysfs::{
    Attribute,
    Folder,
    LongAttribute,
    Object, //
};
pub use text::TextPart;
