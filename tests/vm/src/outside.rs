// SPDX-License-Identifier: GPL-2.0
//! What files are called by those who read our messages.

use std::path::Path;
use std::path::PathBuf;

/// A file of the checkout from there: the root in which the tests run has it in another place than its owner.
pub fn outside(path: &Path) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checkout = here.ancestors().nth(2).unwrap_or(here);
    path.strip_prefix(checkout).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_checkout_are_named_from_there() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
        assert_eq!(outside(&here), Path::new("tests/vm/src/lib.rs"));
        assert_eq!(outside(Path::new("/proc/kmsg")), Path::new("/proc/kmsg"));
    }
}
