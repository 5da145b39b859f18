// SPDX-License-Identifier: GPL-2.0
//! P8, D3: logical blocks of 512 and 4096 bytes on either side, and the limits that follow.

use super::bad;
use super::unreadable;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::Remap;

fn main_of(block: u32) -> Options {
    Options::memory(16 << 20).logical_block(block)
}

fn spare_of(block: u32) -> Options {
    Options::memory(4 << 20).logical_block(block)
}

fn limit(remap: &Remap, name: &str) -> u64 {
    let path = remap.path();
    let device = path.file_name().unwrap_or_default().to_string_lossy();
    let path = format!("/sys/block/{device}/queue/{name}");
    let text = std::fs::read_to_string(&path).expect(&path);
    text.trim().parse().expect(&path)
}

/// Every pair that is allowed serves, remaps, heals and comes back.
#[test]
fn allowed_pairs_of_block_sizes_are_served() {
    let _test = vmtest::begin!();
    for (main, spare) in [
        (512, 512),
        (4096, 512),
        (4096, 4096),
        (2048, 1024),
        (1024, 1024),
    ] {
        let unit = u64::from(main) / 512;
        let mut remap = Remap::on(main_of(main), spare_of(spare), "");
        let device = remap.open();
        device.write(0, &stamps(0, 64 * unit, 1)).unwrap();
        remap.main.disk().spoil(10 * unit, 1, bad());
        remap.main.disk().spoil(20 * unit, 1, unreadable());
        device
            .write(8 * unit, &stamps(8 * unit, 8 * unit, 2))
            .unwrap();
        assert!(device.read(20 * unit, unit).is_err());
        assert_eq!(remap.device().remapped(), 1, "{main} on {spare}");
        assert_eq!(remap.device().pending(), 1, "{main} on {spare}");
        device
            .write(20 * unit, &stamps(20 * unit, unit, 1))
            .unwrap();
        drop(device);
        remap.reactivate();
        let mut expected = stamps(0, 8 * unit, 1);
        expected.extend(stamps(8 * unit, 8 * unit, 2));
        expected.extend(stamps(16 * unit, 48 * unit, 1));
        assert!(
            remap.open().read(0, 64 * unit).unwrap() == expected,
            "{main} on {spare}"
        );
        assert_eq!(limit(&remap, "logical_block_size"), u64::from(main));
    }
}

/// D3: a spare that cannot write one block of main by itself is refused, and nothing is written.
#[test]
fn larger_blocks_on_the_spare_are_refused() {
    let _test = vmtest::begin!();
    for (main, spare) in [(512, 4096), (512, 1024), (2048, 4096)] {
        let mut remap = Remap::inactive(main_of(main), spare_of(spare), "");
        let refusal = remap.try_activate().unwrap_err();
        assert!(
            refusal.reason.contains("larger logical blocks"),
            "{refusal:?}"
        );
        assert_eq!(remap.spare.disk().record().writes, 0);
        assert_eq!(remap.main.disk().record().writes, 0);
    }
}

/// The physical block and what follows from it are the larger ones of the two.
#[test]
fn physical_blocks_are_stacked() {
    let _test = vmtest::begin!();
    for (main, spare) in [(4096, 512), (512, 4096)] {
        let remap = Remap::on(
            main_of(512).physical_block(main),
            spare_of(512).physical_block(spare),
            "",
        );
        assert_eq!(limit(&remap, "logical_block_size"), 512);
        assert_eq!(limit(&remap, "physical_block_size"), 4096);
        assert_eq!(limit(&remap, "minimum_io_size"), 4096);
    }
}

/// A bio is never larger than either disk takes.
#[test]
fn the_largest_request_is_the_smaller_of_the_two() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let sizes = [&remap.main, &remap.spare].map(|disk| {
        let name = format!("/sys/block/ublkb{}/queue/max_hw_sectors_kb", disk.number());
        let text = std::fs::read_to_string(&name).expect(&name);
        text.trim().parse::<u64>().expect(&name)
    });
    assert!(limit(&remap, "max_hw_sectors_kb") <= sizes[0].min(sizes[1]));
}

/// Discards are offered if main takes them, whatever the spare does.
#[test]
fn discards_follow_main() {
    let _test = vmtest::begin!();
    vmtest::guest::load();
    // null_blk takes none unless it is told to.
    let without = NullBlk::new(16, 512);
    let with = SickDisk::start(main_of(512)).unwrap();
    for (main, spare, offered) in [
        (with.path(), without.path(), true),
        (without.path(), with.path(), false),
    ] {
        let (main, spare) = (main.display(), spare.display());
        let mapped = Mapped::new(&format!(
            "0 32768 dm-remap {main} {spare} 2 format spare_as_main"
        ));
        let path = mapped.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/sys/block/{name}/queue/discard_max_bytes");
        let text = std::fs::read_to_string(&path).expect(&path);
        assert_eq!(text.trim() != "0", offered, "{main}");
    }
}
