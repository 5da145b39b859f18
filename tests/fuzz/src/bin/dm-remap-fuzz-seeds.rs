// SPDX-License-Identifier: GPL-2.0

//! Writes the inputs that the fuzzer begins with to `tests/fuzz/corpus`. Inputs that are no seeds,
//! such as those that once found something, stay.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for seed in fuzz::seeds::all() {
        let folder = corpus.join(seed.target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(seed.name), seed.bytes)?;
    }
    Ok(())
}
