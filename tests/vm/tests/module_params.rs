// SPDX-License-Identifier: GPL-2.0
//! The module's parameters: what new devices begin with. docs/dm-remap.rst has them in a table.

use std::fs;
use std::path::PathBuf;

use vmtest::guest::eventually;
use vmtest::guest::load;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::unload;
use vmtest::guest::Remap;

const DEFAULTS: [(&str, &str); 6] = [
    ("auto_remap", "on"),
    ("autosave_seconds", "60"),
    ("deadline_ms", "30000"),
    ("error_threshold", "8"),
    ("low_water", "10"),
    ("read_retries", "2"),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from("/sys/module/dm_remap/parameters").join(name)
}

#[track_caller]
fn get(name: &str) -> String {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.trim_end().to_string()
}

#[track_caller]
fn set(name: &str, value: &str) {
    fs::write(path(name), value).unwrap_or_else(|error| panic!("{name} {value}: {error}"));
}

/// Loads the module with parameters.
fn insert(parameters: &str) -> vmtest::guest::Ran {
    let module = std::env::var("DM_REMAP_MODULE").expect("DM_REMAP_MODULE");
    run(&format!("insmod {module} {parameters}"))
}

/// Loads it without any: what other tests have said is gone.
fn load_bare() {
    // What it needs stays.
    load();
    unload();
    assert_eq!(insert("").status, 0);
}

/// All of them, each with what it is and which values it may have.
#[test]
fn they_are_shown_and_described() {
    let _test = vmtest::begin!();
    load_bare();
    let names = fs::read_dir("/sys/module/dm_remap/parameters").expect("parameters");
    let mut names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, DEFAULTS.map(|(name, _)| name));
    for (name, value) in DEFAULTS {
        assert_eq!(get(name), value, "{name}");
    }
    let module = std::env::var("DM_REMAP_MODULE").expect("DM_REMAP_MODULE");
    let told = succeed(&format!("modinfo -p {module}"));
    for (name, value) in DEFAULTS {
        let own = |line: &&str| line.starts_with(&format!("{name}:"));
        let line = told.lines().find(own);
        let line = line.unwrap_or_else(|| panic!("no {name} in {told}"));
        assert!(line.contains(&format!("(default {value})")), "{line}");
    }
}

/// A bad value refuses the module, or is refused, with a text that tells what is allowed; it changes nothing.
#[test]
fn bad_values_are_refused() {
    let mut test = vmtest::begin!();
    let bad = [
        ("auto_remap", "maybe", "auto_remap is on or off"),
        (
            "deadline_ms",
            "99",
            "deadline_ms is out of range, 100 to 600000 are allowed",
        ),
        (
            "error_threshold",
            "-1",
            "error_threshold is not a decimal number, 0 to 1000000 are allowed",
        ),
        (
            "low_water",
            "101",
            "low_water is out of range, 0 to 100 are allowed",
        ),
        (
            "read_retries",
            "4294967298",
            "read_retries is out of range, 0 to 100 are allowed",
        ),
        (
            "read_retries",
            "0x2",
            "read_retries is not a decimal number, 0 to 100 are allowed",
        ),
    ];
    load_bare();
    for (name, value, text) in bad {
        let error = fs::write(path(name), value).expect_err(name);
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name} {value}");
        let log = test.kernel_log();
        assert!(log.contains(text), "{name} {value}: {log}");
    }
    for (name, value) in DEFAULTS {
        assert_eq!(get(name), value, "{name}");
    }
    unload();
    for (name, value, _) in bad {
        let ran = insert(&format!("{name}={value}"));
        assert_ne!(ran.status, 0, "{name} {value}");
        assert!(!path(name).exists(), "{name} {value}");
    }
    load();
}

/// A device begins with what the parameters say, and keeps it: with other ones, and when its table is loaded again. What the
/// line says counts more, and is all that the table prints; so does what a message has left on the spare.
#[test]
fn new_devices_begin_with_them() {
    let _test = vmtest::begin!();
    // With what it needs.
    load();
    unload();
    let loaded = insert("auto_remap=off low_water=90");
    assert_eq!(loaded.status, 0, "{loaded:?}");
    assert_eq!(
        (get("auto_remap"), get("low_water")),
        ("off".into(), "90".into())
    );
    let off = Remap::new(4096);
    let says = |remap: &Remap| remap.device().status_value("auto_remap");
    assert_eq!(says(&off).as_deref(), Some("off"));
    let line = off.device().table();
    assert!(
        !line.contains("auto_remap") && !line.contains("low_water"),
        "{line}"
    );
    // So many slots are left that there is no event with the usual mark.
    let (_, capacity) = off.device().status_fraction(0);
    let seen = off.device().events();
    off.device()
        .message(&format!("remap 0 {}", capacity / 5 * 8))
        .unwrap();
    assert!(off.device().events() > seen);

    set("auto_remap", "on\n");
    set("low_water", "10");
    assert_eq!(get("auto_remap"), "on");
    let on = Remap::new(4096);
    assert_eq!(says(&on).as_deref(), Some("on"));
    let unwritable = Fault::bad(Direction::Write);
    on.main.disk().spoil(0, 8, unwritable);
    on.open().write(0, &stamps(0, 8, 1)).unwrap();
    assert!(eventually(|| on.device().remapped() == 1));

    // The first one is as it was.
    off.device().load(&off.line()).unwrap();
    off.device().suspend().unwrap();
    off.device().resume().unwrap();
    assert_eq!(says(&off).as_deref(), Some("off"));
    assert_eq!(off.device().table(), line);

    set("auto_remap", "off");
    let named = Remap::with(4096, "2 auto_remap on");
    assert_eq!(says(&named).as_deref(), Some("on"));
    assert!(named.device().table().contains("auto_remap on"));
    // What a message has said is remembered.
    let mut told = on;
    told.device().message("set_auto_remap 1").unwrap();
    told.reactivate();
    assert_eq!(says(&told).as_deref(), Some("on"));
    drop((off, told, named));
    unload();
    load();
}
