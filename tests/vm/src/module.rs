// SPDX-License-Identifier: GPL-2.0
//! The module under test, from outside: cargo does not know that the tests depend on it.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::outside::outside;

/// What the module is made from.
const SOURCES: [&str; 4] = ["src", "Kbuild", "scripts/bindgen.kbuild", "scripts/module"];

/// Beside the module: as old as the beginning of its last build, and only there if that succeeded.
const STAMP: &str = ".built";

/// Refuses the module that `DM_REMAP_MODULE` names if a source has changed since it was built.
pub fn check() -> io::Result<()> {
    let module = std::env::var_os("DM_REMAP_MODULE").map(PathBuf::from);
    let (Some(module), None) = (module, std::env::var_os("DM_REMAP_MODULE_IS_NEW")) else {
        return Ok(());
    };
    is_new(&module, checkout())
}

fn is_new(module: &Path, checkout: &Path) -> io::Result<()> {
    let advice = "run scripts/module, or the test by make test TEST=...";
    let built = fs::metadata(module.with_file_name(STAMP)).and_then(|stamp| stamp.modified());
    let built = built.map_err(|_| {
        let module = outside(module);
        io::Error::other(format!(
            "{} is not built to its end: {advice}",
            module.display()
        ))
    })?;
    for source in SOURCES {
        let source = checkout.join(source);
        if let Some(newer) = newer(&source, built)? {
            let newer = newer.strip_prefix(checkout).unwrap_or(&newer).display();
            return Err(io::Error::other(format!(
                "the module is older than {newer}: {advice}"
            )));
        }
    }
    Ok(())
}

/// A file in there, or a folder that lost one, that has changed since.
fn newer(path: &Path, time: SystemTime) -> io::Result<Option<PathBuf>> {
    let metadata = fs::metadata(path)?;
    // For editors; it makes its folder look new, too.
    let written = path.join("rust-project.json").exists() || path.ends_with("rust-project.json");
    if metadata.modified()? > time && !written {
        return Ok(Some(path.to_path_buf()));
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            if let Some(found) = newer(&entry?.path(), time)? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

/// The checkout that we were built in.
fn checkout() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    /// A checkout whose module was built an hour after its sources were written.
    struct Checkout(PathBuf);

    impl Checkout {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            let checkout = Self(path);
            for folder in ["src/logic", "scripts", "target/module/7"] {
                fs::create_dir_all(checkout.0.join(folder)).unwrap();
            }
            for source in ["src/a.rs", "src/logic/b.rs", "Kbuild"] {
                checkout.touch(source, 0);
            }
            for source in &SOURCES[2..] {
                checkout.touch(source, 0);
            }
            for folder in ["src/logic", "src"] {
                checkout.set_time(&File::open(checkout.0.join(folder)).unwrap(), 0);
            }
            checkout.touch("target/module/7/.built", 1);
            checkout
        }

        fn touch(&self, path: &str, hours: u64) {
            self.set_time(&File::create(self.0.join(path)).unwrap(), hours);
        }

        fn set_time(&self, file: &File, hours: u64) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * hours);
            file.set_modified(time).unwrap();
        }

        fn fault(&self) -> Option<String> {
            let module = self.0.join("target/module/7/dm_remap.ko");
            is_new(&module, &self.0)
                .err()
                .map(|error| error.to_string())
        }
    }

    impl Drop for Checkout {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_module_that_is_newer_than_its_sources_is_used() {
        assert_eq!(Checkout::new("new").fault(), None);
    }

    #[test]
    fn a_changed_source_is_named() {
        let checkout = Checkout::new("changed");
        checkout.touch("src/logic/b.rs", 2);
        let fault = checkout.fault().unwrap();
        assert!(
            fault.starts_with("the module is older than src/logic/b.rs: "),
            "{fault}"
        );
    }

    #[test]
    fn a_build_that_did_not_end_is_told() {
        let checkout = Checkout::new("unfinished");
        fs::remove_file(checkout.0.join("target/module/7/.built")).unwrap();
        let fault = checkout.fault().unwrap();
        assert!(fault.contains("not built to its end"), "{fault}");
    }
}
