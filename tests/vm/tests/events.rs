// SPDX-License-Identifier: GPL-2.0
//! What users hear of without asking: events of the mapped device, and uevents. docs/dm-remap.rst has these tests in
//! its table.

use std::io::BufRead;
use std::io::BufReader;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

use vmtest::guest::device_number;
use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Remap;
use vmtest::guest::Uevents;

/// Sectors of a block, where nothing else is said.
const BLOCK: u64 = 8;

fn unwritable() -> Fault {
    Fault::bad(Direction::Write)
}

/// A main and a spare that has few slots. Returns how many.
fn small(arguments: &str) -> (Remap, u64) {
    let main = Options::memory(16 << 20).logical_block(4096);
    let spare = Options::memory(1 << 20).logical_block(4096);
    let remap = Remap::on(main, spare, arguments);
    let (_, capacity) = remap.device().status_fraction(0);
    (remap, capacity)
}

/// Writes blocks that main does not take.
#[track_caller]
fn fail(remap: &Remap, first: u64, blocks: u64) {
    let (sector, sectors) = (first * BLOCK, blocks * BLOCK);
    remap.main.disk().spoil(sector, sectors, unwritable());
    let written = remap.open().write(sector, &stamps(sector, sectors, 1));
    written.expect("a write that is remapped");
}

/// P17: whoever listens learns what happened, to which device and where, and how it is now.
#[test]
fn a_remap_is_told() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let seen = remap.device().events();
    let uevents = Uevents::listen();
    fail(&remap, 100, 1);
    let told = uevents.wait_for("remap");
    let (_, capacity) = remap.device().status_fraction(0);
    let number = device_number(&remap.path()).unwrap();
    for (name, value) in [
        ("ACTION", "change"),
        ("SUBSYSTEM", "dm_remap"),
        ("DM_REMAP_DEVICE", &number),
        ("DM_REMAP_NAME", remap.device().name()),
        ("DM_REMAP_EVENT", "remap"),
        ("DM_REMAP_COUNT", "1"),
        ("DM_REMAP_LEVEL", "warning"),
        ("DM_REMAP_SECTOR", "800"),
        ("DM_REMAP_SLOTS_LEFT", &(capacity - 1).to_string()),
        ("DM_REMAP_HEALTH", "good"),
    ] {
        assert_eq!(told.get(name), Some(value), "{name} of {told:?}");
    }
    assert!(remap.device().wait_for_event(seen), "nobody was woken");
    assert_eq!(remap.device().events(), seen + 1);
}

/// Nothing that listens to disks is told to look at a disk that fails.
#[test]
fn no_other_subsystem_hears_of_it() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    let uevents = Uevents::listen();
    remap.main.disk().spoil(800, BLOCK, unwritable());
    device.write(800, &stamps(800, BLOCK, 1)).unwrap();
    remap
        .main
        .disk()
        .spoil(1600, BLOCK, Fault::bad(Direction::Read));
    device.read(1600, BLOCK).unwrap_err();
    let mut subsystems = Vec::new();
    let told = || {
        let come = uevents.all();
        subsystems.extend(
            come.iter()
                .map(|uevent| uevent.get("SUBSYSTEM").map(String::from)),
        );
        let pending = |uevent: &vmtest::guest::Uevent| uevent.count("pending") != 0;
        come.iter().any(pending)
    };
    assert!(eventually(told), "nobody was told");
    let own = Some("dm_remap".to_string());
    assert!(subsystems.iter().all(|name| *name == own), "{subsystems:?}");
}

/// A burst takes a uevent a second, and all of it is told in the end.
#[test]
fn a_burst_is_told_in_few_uevents_to_its_end() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    const BLOCKS: u64 = 1000;
    for block in 0..BLOCKS {
        remap
            .main
            .disk()
            .spoil(block * 2 * BLOCK, BLOCK, unwritable());
    }
    let device = remap.open();
    let uevents = Uevents::listen();
    let begun = Instant::now();
    for block in 0..BLOCKS {
        let sector = block * 2 * BLOCK;
        device.write(sector, &stamps(sector, BLOCK, 1)).unwrap();
    }
    let (mut count, mut told, mut last) = (0, 0, None);
    while count < BLOCKS {
        let uevent = uevents.wait_for("remap");
        count += uevent.count("remap");
        told += 1;
        last = uevent.get("DM_REMAP_SECTOR").map(String::from);
    }
    let seconds = begun.elapsed().as_secs();
    assert_eq!(count, BLOCKS);
    assert!(told <= seconds + 2, "{told} in {seconds} s");
    assert_eq!(last, Some(((BLOCKS - 1) * 2 * BLOCK).to_string()));
    assert!(uevents.come().is_empty());
}

/// What happened just before a device goes is told before it goes.
#[test]
fn what_comes_last_is_told_before_a_suspend() {
    let _test = vmtest::begin!();
    for removed in [false, true] {
        let mut remap = Remap::new(4096);
        let uevents = Uevents::listen();
        fail(&remap, 0, 1);
        uevents.wait_for("remap");
        // Within a second.
        fail(&remap, 2, 3);
        // The worker tells it after it has answered.
        assert!(eventually(|| remap.device().remapped() == 4));
        match removed {
            true => remap.deactivate(),
            false => remap.device().suspend().unwrap(),
        }
        let told: u64 = uevents.come().iter().map(|one| one.count("remap")).sum();
        if !removed {
            remap.device().resume().unwrap();
        }
        assert_eq!(told, 3, "removed: {removed}");
    }
}

/// P7: the mark and the end of the slots, and who got none.
#[test]
fn a_spare_that_runs_full_is_told() {
    let _test = vmtest::begin!();
    let (remap, capacity) = small("2 low_water 50");
    let uevents = Uevents::listen();
    fail(&remap, 0, capacity / 2 + 2);
    let told = uevents.wait_for("low_water");
    assert_eq!(told.count("low_water"), 1);
    assert_eq!(told.get("DM_REMAP_LEVEL"), Some("warning"));
    let used = capacity / 2 + 2;
    fail(&remap, used, capacity - used);
    let told = uevents.wait_for("exhausted");
    assert_eq!(told.count("exhausted"), 1);
    assert_eq!(told.get("DM_REMAP_LEVEL"), Some("error"));
    assert_eq!(told.get("DM_REMAP_SLOTS_LEFT"), Some("0"));
    assert_eq!(told.get("DM_REMAP_HEALTH"), Some("degraded"));
    let sector = capacity * BLOCK;
    remap.main.disk().spoil(sector, BLOCK, unwritable());
    let written = remap.open().write(sector, &stamps(sector, BLOCK, 1));
    written.unwrap_err();
    assert_eq!(uevents.wait_for("refused").count("refused"), 1);
    assert!(uevents.come().is_empty(), "something was told twice");
}

/// E4: what main cannot read, and what a slot cannot.
#[test]
fn unreadable_blocks_are_told() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    device.write(0, &stamps(0, 256, 1)).unwrap();
    let uevents = Uevents::listen();
    remap
        .main
        .disk()
        .spoil(160, BLOCK, Fault::bad(Direction::Read));
    device.read(160, BLOCK).unwrap_err();
    let told = uevents.wait_for("pending");
    assert_eq!(told.get("DM_REMAP_SECTOR"), Some("160"));
    assert_eq!(told.get("DM_REMAP_HEALTH"), Some("failing"));
    remap.device().message("remap 8 8").unwrap();
    let slot = remap.slot_of(8).expect("a slot");
    remap
        .spare
        .disk()
        .spoil(slot, BLOCK, Fault::bad(Direction::Read));
    device.read(8, BLOCK).unwrap_err();
    let told = uevents.wait_for("lost");
    assert_eq!(told.get("DM_REMAP_SECTOR"), Some("8"));
    assert_eq!(told.get("DM_REMAP_LEVEL"), Some("error"));
}

/// P6: a main that fails as a whole, and works again.
#[test]
fn a_breaker_is_told_when_it_opens_and_when_it_closes() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    let uevents = Uevents::listen();
    remap.main.disk().die(Status::Offline, Direction::Write);
    for sector in (0..2560).step_by(128) {
        device.write(sector, &stamps(sector, BLOCK, 1)).unwrap_err();
    }
    let told = uevents.wait_for("breaker_open");
    assert_eq!(told.count("breaker_open"), 1);
    assert_eq!(told.get("DM_REMAP_LEVEL"), Some("error"));
    assert_eq!(told.get("DM_REMAP_SECTOR"), None);
    remap.main.disk().revive();
    device.write(0, &stamps(0, BLOCK, 2)).unwrap();
    let told = uevents.wait_for("breaker_closed");
    assert_eq!(told.get("DM_REMAP_LEVEL"), Some("info"));
    assert_eq!(told.get("DM_REMAP_HEALTH"), Some("good"));
}

/// E6: a flush that failed, whoever sent it.
#[test]
fn a_failed_flush_is_told() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let device = remap.open();
    let uevents = Uevents::listen();
    remap.main.disk().fail_flushes(Status::Io, 1);
    device.write(0, &stamps(0, BLOCK, 1)).unwrap();
    device.flush().unwrap_err();
    let told = uevents.wait_for("flush_failed");
    assert_eq!(told.get("DM_REMAP_HEALTH"), Some("failing"));
    device.flush().unwrap();
}

/// P4: metadata that cannot be written, and can be again.
#[test]
fn metadata_that_is_in_doubt_is_told() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let uevents = Uevents::listen();
    let metadata = remap.first_slot();
    let away = Fault::bad(Direction::Write).status(Status::Transport);
    remap.spare.disk().spoil(0, metadata, away);
    let _ = remap.device().message("save");
    let told = uevents.wait_for("metadata_failed");
    assert_eq!(told.get("DM_REMAP_LEVEL"), Some("error"));
    remap.spare.disk().heal(0, metadata);
    remap.device().message("save").unwrap();
    uevents.wait_for("restored");
}

/// M9: one of two spares is lost, and is back with the next table.
#[test]
fn a_spare_that_is_lost_and_back_is_told() {
    let _test = vmtest::begin!();
    let options = || Options::memory(16 << 20).logical_block(4096);
    let second = SickDisk::start(options()).expect("start the second spare");
    let arguments = format!("2 spare {}", second.path().display());
    let remap = Remap::on(options(), options(), &arguments);
    let uevents = Uevents::listen();
    // Redundancy has been made.
    assert!(eventually(|| {
        let told = remap.device().message("metadata_status").unwrap();
        told.contains("restoring=no")
    }));
    second.disk().die(Status::Offline, Direction::Both);
    fail(&remap, 0, 1);
    remap.device().message("save").unwrap();
    let told = uevents.wait_for("spare_lost");
    assert_eq!(told.get("DM_REMAP_LEVEL"), Some("error"));
    assert_eq!(
        remap.device().status_value("spares").as_deref(),
        Some("1/2")
    );
    second.disk().revive();
    remap.device().load(&remap.line()).unwrap();
    remap.device().suspend().unwrap();
    remap.device().resume().unwrap();
    uevents.wait_for("spare_back");
    let back = || remap.device().status_value("spares").as_deref() == Some("2/2");
    assert!(eventually(back));

    remap.device().message("evacuate 0").unwrap();
    uevents.wait_for("evacuated");
}

/// Tools that people have hear of it.
#[test]
fn dmsetup_and_udevadm_hear_of_it() {
    let _test = vmtest::begin!();
    let remap = Remap::new(4096);
    let mut monitor = Command::new("udevadm")
        .args([
            "monitor",
            "--kernel",
            "--property",
            "--subsystem-match=dm_remap",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("udevadm");
    let output = monitor.stdout.take().expect("its output");
    let mut lines = BufReader::new(output).lines();
    // It says so when it listens.
    assert!(lines.any(|line| line.expect("a line").starts_with("KERNEL - ")));
    let seen = remap.device().events().to_string();
    let mut waits = Command::new("dmsetup")
        .args(["--noudevsync", "wait", remap.device().name(), &seen])
        .spawn()
        .expect("dmsetup");
    fail(&remap, 100, 1);
    assert!(waits.wait().expect("dmsetup").success());
    let told = lines.any(|line| line.expect("a line") == "DM_REMAP_EVENT=remap");
    monitor.kill().expect("udevadm ends");
    let _ = monitor.wait();
    assert!(told);
}

/// P12: the table in memory; nothing waits for it, so the next event has it.
#[test]
fn a_table_that_grows_is_told() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let uevents = Uevents::listen();
    remap.device().message("remap 0 10000").unwrap();
    fail(&remap, 4096, 1);
    uevents.wait_for("grown");
}

/// Several devices tell for themselves.
#[test]
fn each_device_has_its_own() {
    let _test = vmtest::begin!();
    let devices = [Remap::new(4096), Remap::new(4096)];
    let uevents = Uevents::listen();
    for remap in &devices {
        fail(remap, 10, 2);
    }
    let told = [uevents.wait_for("remap"), uevents.wait_for("remap")];
    let mut names = told
        .iter()
        .map(|one| one.get("DM_REMAP_NAME").unwrap_or(""));
    let mut names = [names.next().unwrap(), names.next().unwrap()];
    names.sort_unstable();
    let mut own = devices.each_ref().map(|remap| remap.device().name());
    own.sort_unstable();
    assert_eq!(names, own);
    assert_ne!(told[0].get("DEVPATH"), told[1].get("DEVPATH"));
}
