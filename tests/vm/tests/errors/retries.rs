// SPDX-License-Identifier: GPL-2.0
//! E1: what the worker sends again is the user's bio: same place, same data, same durability, and
//! none of the user's haste.

use super::bad;
use super::unwritable;
use vmtest::guest::sickdisk::Operation;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Partition;
use vmtest::guest::Remap;

/// E1: a main that is a partition: parts that are tried again land behind the partition's offset.
#[test]
fn a_partition_as_main_is_hit_in_the_right_place() {
    let _test = vmtest::begin!();
    vmtest::guest::load();
    const OFFSET: u64 = 2048;
    let disk = SickDisk::start(Options::memory(32 << 20)).unwrap();
    let spare = SickDisk::start(Options::memory(8 << 20)).unwrap();
    let around = stamps(0, 16384, 9);
    disk.disk().poke(0, &around).unwrap();
    {
        let main = Partition::new(&disk.path(), OFFSET, 8192);
        let mapped = Mapped::new(&format!(
            "0 8192 dm-remap {} {}",
            main.path().display(),
            spare.path().display()
        ));
        let device = Direct::open(&mapped.path());
        disk.disk().spoil(OFFSET + 100, 1, bad());
        device.write(64, &stamps(64, 128, 1)).unwrap();
        assert!(device.read(64, 128).unwrap() == stamps(64, 128, 1));
        assert_eq!(mapped.remapped(), 1);
    }
    let mut content = vec![0; around.len()];
    disk.disk().peek(0, &mut content).unwrap();
    let (start, end) = ((OFFSET + 64) * 512, (OFFSET + 192) * 512);
    let (start, end) = (start as usize, end as usize);
    assert!(content[..start] == around[..start], "in front");
    assert!(content[end..] == around[end..], "behind");
    let hole = start + 36 * 512;
    assert!(content[start..hole] == stamps(64, 36, 1), "before it");
    assert!(content[hole + 512..end] == stamps(101, 91, 1), "after it");
}

/// E1, P1: a failed FUA write is durable in all its parts when it is acknowledged, those that went
/// to main again included.
#[test]
fn a_failed_fua_write_is_durable_in_every_part() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    {
        let device = remap.open();
        device.write(0, &stamps(0, 64, 1)).unwrap();
        device.flush().unwrap();
    }
    remap.main.disk().spoil(20, 2, unwritable());
    remap.record();
    let device = Direct::open_dsync(&remap.path());
    device.write(0, &stamps(0, 64, 2)).unwrap();
    drop(device);
    let again: Vec<_> = {
        let main = remap.main.disk();
        let entries = main.record().entries().iter();
        entries
            .filter(|entry| entry.operation == Operation::Write && entry.error.is_none())
            .copied()
            .collect()
    };
    assert!(!again.is_empty());
    assert!(again.iter().all(|entry| entry.fua), "{again:?}");
    remap.power_cut(PowerCut::Drop);
    assert!(remap.open().read(0, 64).unwrap() == stamps(0, 64, 2));
}

/// E1: a bio that asked not to wait has its haste behind it when it has failed.
#[test]
fn a_failed_nowait_write_is_remapped_like_any_other() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    remap.main.disk().spoil(100, 2, bad());
    device.write_nowait(96, &stamps(96, 16, 1)).unwrap();
    assert!(device.read(96, 16).unwrap() == stamps(96, 16, 1));
    assert_eq!(remap.device().remapped(), 2);
}

/// P1: failed writes of any size and place down to the logical block, the bad block in front, in
/// the middle and at the end.
#[test]
fn any_size_with_the_bad_block_anywhere() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = Remap::new(block);
        let device = remap.open();
        let mut place = 3 * unit;
        let mut moved = 0;
        for blocks in [1, 2, 3, 5, 8, 17, 64] {
            for at in [0, blocks / 2, blocks - 1] {
                let length = blocks * unit;
                remap
                    .main
                    .disk()
                    .spoil(place + at * unit, unit, unwritable());
                let data = stamps(place, length, blocks + 1);
                device.write(place, &data).unwrap();
                assert!(
                    device.read(place, length).unwrap() == data,
                    "blocks of {block}: {blocks}, number {at} bad"
                );
                moved += 1;
                assert_eq!(remap.device().remapped(), moved);
                place += length + unit;
            }
        }
    }
}
