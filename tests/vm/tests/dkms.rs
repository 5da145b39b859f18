// SPDX-License-Identifier: GPL-2.0
//! The module as DKMS installs it: `modprobe dm_remap` finds it, and it works.
//!
//! Needs: dkms-package.
//! Only in test-system: it takes what a package installed.

use vmtest::guest::run;
use vmtest::guest::succeed;

/// What DKMS added to /lib/modules/VERSION, as `scripts/test-dkms` left it.
fn installed(version: &str) -> String {
    format!("{}/../../target/dkms/{version}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn modprobe_finds_the_module() {
    let _test = vmtest::begin!();
    let version = succeed("uname -r").trim().to_string();
    let installed = installed(&version);
    if !std::path::Path::new(&installed).exists() {
        panic!("there is no {installed}: run scripts/test-dkms first");
    }
    succeed("modprobe overlay");
    let modules = format!("/usr/lib/modules/{version}");
    succeed(&format!(
        "mount -t overlay overlay -o lowerdir={installed}:{modules} {modules}"
    ));
    assert!(succeed("modinfo -n dm_remap").contains("/updates/"));
    succeed("modprobe dm_remap");
    let targets = succeed("dmsetup targets");
    for name in ["dm-remap", "remap"] {
        assert!(
            targets
                .lines()
                .any(|line| line.split_whitespace().next() == Some(name)),
            "{targets}"
        );
    }
    succeed("modprobe -r dm_remap");
    succeed(&format!("umount {modules}"));
    // It was that one.
    assert_ne!(run("modinfo -n dm_remap").status, 0);
}
