// SPDX-License-Identifier: GPL-2.0
//! Power cuts that are real: a machine is killed while it writes to a device whose main disk has
//! bad sectors, and another one boots with the same disks.
//!
//! This runs outside; what runs in the machines is `inside`, at the end.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use vmtest::guest::identify;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::stamps;
use vmtest::guest::Content;
use vmtest::guest::Dice;
use vmtest::guest::Remap;
use vmtest::machine::End;
use vmtest::machine::Machine;

const SECTORS: u64 = 16 << 11;
const SPARE_SECTORS: u64 = 4 << 11;

/// Names the file of what was acknowledged, for the machine that checks.
const ACKNOWLEDGED: &str = "POWER_CUT_ACKNOWLEDGED";

/// Printed once there is something to lose.
const READY: &str = "ready for the power cut";

/// P1, P3, P5: after the machine was killed, the metadata loads, all remaps are there, and every
/// write that was flushed can be read.
#[test]
fn what_was_acknowledged_survives_the_machine() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("power-cut");
    fs::create_dir_all(&folder).unwrap();
    let image = |name: &str, sectors: u64| {
        let path = folder.join(name);
        File::create(&path).unwrap().set_len(sectors * 512).unwrap();
        path
    };
    let main = image("main", SECTORS);
    let spare = image("spare", SPARE_SECTORS);
    let list = folder.join("acknowledged");
    fs::write(&list, "").unwrap();
    let mut acknowledged = String::new();
    for round in 0..3 {
        let last = round == 2;
        let running = machine(&main, &spare, &list, last).start().unwrap();
        if last {
            let outcome = running.wait().unwrap();
            assert!(outcome.passed(), "{}{outcome}", outcome.output);
            break;
        }
        let ready = running.wait_for_text(READY);
        // Somewhere in the middle of something.
        std::thread::sleep(Duration::from_millis(137 * (1 + round)));
        let outcome = running.power_cut().unwrap();
        assert!(ready, "{}{outcome}", outcome.output);
        assert_eq!(outcome.end, End::PowerCut, "{}{outcome}", outcome.output);
        assert_eq!(outcome.faults, [], "{outcome}");
        // What was being printed does not count.
        let whole = outcome
            .output
            .rsplit_once('\n')
            .map_or("", |(whole, _)| whole);
        let told = whole.lines().filter(|line| line.starts_with("ack "));
        let before = acknowledged.len();
        acknowledged.extend(told.flat_map(|line| [line, "\n"]));
        assert!(acknowledged.len() > before, "nothing was acknowledged");
        fs::write(&list, &acknowledged).unwrap();
    }
    fs::remove_dir_all(&folder).unwrap();
}

fn machine(main: &Path, spare: &Path, list: &Path, last: bool) -> Machine {
    Machine::inside()
        .unwrap()
        .disk(main)
        .disk(spare)
        .env(ACKNOWLEDGED, list)
        .env("POWER_CUT_LAST", if last { "1" } else { "0" })
        .time_limit(Duration::from_secs(180))
}

/// Checks what was acknowledged before, then writes until the power is cut.
#[test]
#[ignore = "runs in the machines of the test above"]
fn inside() {
    let _test = vmtest::begin!();
    let disk = |path: &str| Options::file(path);
    let remap = Remap::on(disk("/dev/vda"), disk("/dev/vdb"), "");
    // The same sectors are bad in each machine. What main holds there can be read: if it were
    // served, it would show as old.
    for sector in (0..SECTORS).step_by(64) {
        let bad = Fault::bad(Direction::Write);
        remap.main.disk().spoil(sector + 20, 3, bad);
    }
    let list = fs::read_to_string(std::env::var_os(ACKNOWLEDGED).unwrap()).unwrap();
    let mut generation = check(&remap, &list);
    if std::env::var("POWER_CUT_LAST").as_deref() == Ok("1") {
        return;
    }
    let device = remap.open();
    let mut dice = Dice::new(generation);
    for round in 0.. {
        generation += 1;
        let length = 1 + dice.roll(100);
        let sector = dice.roll(SECTORS - length);
        device
            .write(sector, &stamps(sector, length, generation))
            .unwrap();
        // Acknowledged for good are those that were flushed.
        if round % 3 == 0 {
            device.flush().unwrap();
            println!(
                "ack {sector} {length} {generation} {}",
                remap.device().remapped()
            );
        }
        if round == 30 {
            println!("{READY}");
        }
    }
}

/// Returns a generation above all that were used.
fn check(remap: &Remap, list: &str) -> u64 {
    let mut durable = vec![0; SECTORS as usize];
    let mut newest = 0;
    let mut remaps = 0;
    for line in list.lines() {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let &[sector, length, generation, remapped] = numbers.as_slice() else {
            panic!("{line:?}");
        };
        durable[sector as usize..(sector + length) as usize].fill(generation);
        newest = generation.max(newest);
        remaps = remapped.max(remaps);
    }
    assert!(
        remap.device().remapped() >= remaps,
        "{remaps} blocks were remapped, now {}",
        remap.device().status()
    );
    let device = remap.open();
    for first in (0..SECTORS).step_by(2048) {
        let found = identify(&device.read(first, 2048).unwrap());
        for (sector, found) in (first..).zip(found) {
            let generation = match found {
                Content::Blank => 0,
                Content::Stamp {
                    sector: place,
                    generation,
                } if place == sector => generation,
                other => panic!("sector {sector}: {other:?}"),
            };
            let wanted = durable[sector as usize];
            assert!(
                generation >= wanted,
                "sector {sector}: generation {generation}, durable {wanted}"
            );
        }
    }
    // Writes that were not acknowledged may be there, too.
    newest + 1000
}
