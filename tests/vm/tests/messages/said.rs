// SPDX-License-Identifier: GPL-2.0
//! What messages do, and what they answer.

use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

#[test]
fn ping_is_answered() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    assert_eq!(remap.device().message("ping").unwrap(), "pong");
}

#[test]
fn help_names_every_message() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let help = remap.device().message("help").unwrap();
    for name in [
        "remap",
        "add_remap",
        "remove_remap",
        "verify",
        "save",
        "sync",
        "ping",
        "status",
        "set_auto_remap",
        "clear_stats",
        "metadata_status",
        "help",
    ] {
        assert!(help.contains(name), "{name} is not in: {help}");
    }
}

#[test]
fn the_status_line_has_the_form_that_users_know() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let status = remap.device().status();
    let words: Vec<&str> = status.split_whitespace().collect();
    let (_, capacity) = remap.device().status_fraction(0);
    let begin = [
        "0".to_string(),
        Remap::MAIN_SECTORS.to_string(),
        "dm-remap".into(),
        "v3.0".into(),
        format!("0/{capacity}"),
        format!("0/{capacity}"),
        format!("0/{capacity}"),
        "health=1".into(),
        "errors=W0:R0".into(),
        "auto_remaps=0".into(),
        "manual_remaps=0".into(),
        "scan=0%".into(),
        "metadata=enabled".into(),
        "autosave=active".into(),
    ];
    assert_eq!(words[2..14], begin[2..], "{status}");
    assert!(words[14].starts_with("saves="), "{status}");
    let told = remap.device().message("status").unwrap();
    assert!(told.contains(&format!("v3.0 0/{capacity}")), "{told}");
}

/// P2: what is moved by hand reads as before, from the spare.
#[test]
fn remap_moves_what_can_be_read() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = Remap::new(block);
        let device = remap.open();
        device.write(0, &stamps(0, 256, 1)).unwrap();
        remap
            .device()
            .message(&format!("remap {}", 2 * unit))
            .unwrap();
        assert_eq!(remap.device().remapped(), 1);
        remap
            .device()
            .message(&format!("remap {} {}", 4 * unit, 4 * unit))
            .unwrap();
        assert_eq!(remap.device().remapped(), 5);
        assert_eq!(
            remap.device().status_value("manual_remaps").as_deref(),
            Some("5")
        );
        // Main's own content plays no part any more.
        remap
            .main
            .disk()
            .spoil(4 * unit, 4 * unit, Fault::bad(Direction::Both));
        assert!(device.read(0, 256).unwrap() == stamps(0, 256, 1));
        device.write(0, &stamps(0, 256, 2)).unwrap();
        assert!(device.read(0, 256).unwrap() == stamps(0, 256, 2));
    }
}

#[test]
fn verify_tells_where_a_sector_is_served() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let before = remap.device().message("verify 100").unwrap();
    assert!(before.contains("main"), "{before}");
    remap.device().message("remap 100").unwrap();
    let after = remap.device().message("verify 100").unwrap();
    assert!(after.contains("spare"), "{after}");
    assert!(remap
        .device()
        .message("verify 101")
        .unwrap()
        .contains("main"));
}

/// P6: a main that is away loses nothing, and leaves nothing pending.
#[test]
fn remap_of_a_main_that_is_away_is_an_error() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    for status in [Status::Offline, Status::Transport, Status::Io] {
        remap.main.disk().die(status, Direction::Both);
        assert!(remap.device().message("remap 0 64").is_err(), "{status:?}");
        remap.main.disk().revive();
        assert_eq!(remap.device().pending(), 0, "{status:?}");
        assert_eq!(remap.device().remapped(), 0, "{status:?}");
    }
    remap.device().message("remap 0 64").unwrap();
    assert_eq!(remap.device().remapped(), 64);
}

/// P2: moving back brings what was written last, and frees the slot.
#[test]
fn remove_remap_moves_back() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    remap.device().message("remap 100 2").unwrap();
    device.write(96, &stamps(96, 16, 2)).unwrap();
    remap.device().message("remove_remap 100 2").unwrap();
    assert_eq!(remap.device().remapped(), 0);
    assert_eq!(remap.device().status_fraction(2).0, 0);
    assert!(device.read(96, 16).unwrap() == stamps(96, 16, 2));
    let mut content = vec![0; 1024];
    remap.main.disk().peek(100, &mut content).unwrap();
    assert!(content == stamps(100, 2, 2), "main has it");
    drop(device);
    remap.reactivate();
    assert_eq!(remap.device().remapped(), 0);
    assert!(remap.open().read(96, 16).unwrap() == stamps(96, 16, 2));
}

/// P2: a block that main still refuses stays where it is.
#[test]
fn remove_remap_keeps_what_main_refuses() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(100, 1, Fault::bad(Direction::Both));
    device.write(100, &stamps(100, 1, 1)).unwrap();
    assert!(remap.device().message("remove_remap 100").is_err());
    assert_eq!(remap.device().remapped(), 1);
    assert!(device.read(100, 1).unwrap() == stamps(100, 1, 1));
}

/// The one exception to P2, by the user's word: main is served what the spare holds there.
#[test]
fn add_remap_serves_what_the_spare_holds() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    let place = 4096;
    remap.spare.disk().poke(place, &stamps(7, 2, 7)).unwrap();
    remap
        .device()
        .message(&format!("add_remap 100 {place} 2"))
        .unwrap();
    assert_eq!(remap.device().remapped(), 2);
    assert!(device.read(100, 2).unwrap() == stamps(7, 2, 7));
    assert!(device.read(96, 4).unwrap() == stamps(96, 4, 1));
    // The slot is taken, and so is the sector.
    let refused = |message: &str| {
        remap.device().message(message).expect_err(message);
        remap.device().message("why").unwrap()
    };
    // Each refusal names what would do.
    let why = refused(&format!("add_remap 200 {place} 3"));
    let free = format!(
        "spare sector {place} is not free, {} to {} are",
        place + 2,
        place + 4
    );
    assert!(why.contains(&free), "{why}");
    let why = refused(&format!("add_remap 100 {} 1", place + 8));
    assert!(why.contains("sector 100 is remapped already"), "{why}");
    // Metadata is no data area.
    let why = refused("add_remap 300 0 1");
    let first = remap.first_slot();
    assert!(why.contains(&format!("spare sectors {first} to ")), "{why}");
    remap
        .device()
        .message(&format!("add_remap 200 {} 3", place + 2))
        .unwrap();
    remap.device().message("remove_remap 200 3").unwrap();
    drop(device);
    remap.reactivate();
    assert!(remap.open().read(100, 2).unwrap() == stamps(7, 2, 7));
}

#[test]
fn save_and_sync_succeed() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    remap.device().message("remap 100").unwrap();
    remap.device().message("save").unwrap();
    remap.record();
    remap.device().message("sync").unwrap();
    assert!(remap.main.disk().record().flushes > 0, "main is flushed");
    assert!(remap.spare.disk().record().flushes > 0, "the spare is, too");
    let metadata = remap.device().message("metadata_status").unwrap();
    assert!(!metadata.is_empty());
}

#[test]
fn clear_stats_clears_counters_and_nothing_else() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    remap.main.disk().spoil(100, 1, Fault::bad(Direction::Both));
    remap.open().write(100, &stamps(100, 1, 1)).unwrap();
    remap.device().message("clear_stats").unwrap();
    assert_eq!(
        remap.device().status_value("errors").as_deref(),
        Some("W0:R0")
    );
    assert_eq!(
        remap.device().status_value("auto_remaps").as_deref(),
        Some("0")
    );
    assert_eq!(remap.device().remapped(), 1);
}

/// "Bad input": each is refused with its own words, and changes nothing.
#[test]
fn nonsense_is_refused() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let beyond = Remap::MAIN_SECTORS;
    let mut reasons = Vec::new();
    for (message, error, why) in [
        ("frobnicate".to_string(), "not supported", "unknown"),
        ("remap".into(), "Invalid argument", "words"),
        ("remap 1 2 3".into(), "Invalid argument", "words"),
        ("remap x".into(), "Invalid argument", "number"),
        ("remap -1".into(), "Invalid argument", "number"),
        (
            "remap 18446744073709551616".into(),
            "out of range",
            "too large",
        ),
        (format!("remap {beyond}"), "out of range", "beyond"),
        (
            "remap 18446744073709551615".into(),
            "out of range",
            "beyond",
        ),
        (
            "remap 1 18446744073709551615".into(),
            "out of range",
            "beyond",
        ),
        ("remap 1 0".into(), "Invalid argument", "0"),
        ("verify".into(), "Invalid argument", "words"),
        (format!("verify {beyond}"), "out of range", "beyond"),
        (
            "set_auto_remap 2".into(),
            "Invalid argument",
            "none of 0 (off), 1 (on)",
        ),
        ("add_remap 1 2".into(), "Invalid argument", "words"),
        ("ping pong".into(), "Invalid argument", "words"),
    ] {
        let refusal = remap
            .device()
            .message(&message)
            .expect_err(&format!("`{message}` was accepted"));
        assert!(
            refusal.error.contains(error),
            "`{message}`: {refusal:?}, not {error}"
        );
        assert!(
            refusal.reason.contains(why),
            "`{message}`: {refusal:?} does not say {why}"
        );
        reasons.push(refusal.reason);
    }
    assert_eq!(remap.device().remapped(), 0);
    assert_eq!(remap.device().status_fraction(2).0, 0);
}
