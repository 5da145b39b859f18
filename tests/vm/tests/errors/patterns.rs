// SPDX-License-Identifier: GPL-2.0
//! E2: a main that is bad in a pattern is not dead, however the bad places lie: every write is served as
//! long as there are slots, and no breaker opens.

use std::time::Duration;

use super::bad;
use super::unwritable;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::stamps;
use vmtest::guest::Remap;

/// Writes one sector at each of these places, all of which are bad, and reads them all.
fn check(what: &str, remap: &Remap, places: impl Iterator<Item = u64> + Clone) {
    let device = remap.open();
    for sector in places.clone() {
        let written = device.write(sector, &stamps(sector, 1, 1));
        written.unwrap_or_else(|error| panic!("{what}: sector {sector}: {error}"));
    }
    for sector in places {
        assert!(
            device.read(sector, 1).unwrap() == stamps(sector, 1, 1),
            "{what}"
        );
    }
    let told = remap.device().status_value("breaker");
    assert_eq!(told.as_deref(), Some("none"), "{what}");
}

/// A dead channel (a part of each unit), and sectors around each multiple of something: among them where
/// halves, quarters and ends are.
#[test]
fn bad_places_that_lie_alike() {
    let _test = vmtest::begin!();
    let cases = [
        ("the end of each 512 KiB", 1024, 896..1024),
        ("the begin of each 512 KiB", 1024, 0..128),
        ("around each 2 MiB", 4096, 0..128),
    ];
    for (what, unit, part) in cases {
        let remap = Remap::new(512);
        let length = part.end - part.start;
        for first in (0..Remap::MAIN_SECTORS).step_by(unit) {
            let mut main = remap.main.disk();
            main.spoil(first + part.start, length, bad());
            if unit == 4096 && first != 0 {
                main.spoil(first - length, length, bad());
            }
        }
        // Where older versions asked for life, nobody is asked when it is remapped.
        for sector in [0, Remap::MAIN_SECTORS - 1, Remap::MAIN_SECTORS / 2] {
            remap.device().message(&format!("remap {sector}")).unwrap();
        }
        let first = part.start + 5;
        let units = (first..Remap::MAIN_SECTORS).step_by(unit);
        check(what, &remap, units.skip(1).take(60));
    }
}

/// One large bad area, when all places that lie at regular fractions of main are remapped.
#[test]
fn a_large_bad_area() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let last = Remap::MAIN_SECTORS - 1;
    for sector in [
        0,
        last,
        last / 2,
        last / 4,
        last / 4 * 3,
        last / 8,
        last / 8 * 5,
    ] {
        remap.device().message(&format!("remap {sector}")).unwrap();
    }
    remap.main.disk().spoil(16 << 11, 32 << 11, bad());
    let places = (17u64 << 11..46 << 11).step_by(701);
    check("a large area", &remap, places);
}

/// A main of 2 MiB, half of which somebody has to himself who asks whether it lives: the other half answers.
#[test]
fn a_small_main_is_not_taken_for_dead() {
    let _test = vmtest::begin!();
    let disk = |mib: u64| Options::memory(mib << 20);
    let remap = Remap::on(disk(2), disk(1), "2 error_threshold 1");
    remap.main.disk().spoil(100, 100, unwritable());
    let places = (100..200).inspect(|_| {
        // What was found out before a write failed is asked again.
        std::thread::sleep(Duration::from_millis(20));
    });
    check("a small main", &remap, places);
}
