// SPDX-License-Identifier: GPL-2.0
//! P8: correct for every bio.

use std::fs::File;
use std::io::Read;
use std::io::Write;

use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Direct;
use vmtest::guest::Remap;

/// A device with every third block of its first MiB remapped, and generation 1 everywhere there.
fn chequered(block: u32) -> Remap {
    let remap = Remap::new(block);
    let unit = u64::from(block) / 512;
    let device = remap.open();
    device.write(0, &stamps(0, 2048, 1)).unwrap();
    for place in (0..2048).step_by(3 * unit as usize) {
        let bad = Fault::bad(Direction::Both);
        remap.main.disk().spoil(place, unit, bad);
    }
    for sector in (0..2048).step_by(256) {
        device.write(sector, &stamps(sector, 256, 1)).unwrap();
    }
    assert_eq!(remap.device().remapped(), (2048 / unit).div_ceil(3));
    remap
}

#[test]
fn any_place_and_length_across_remapped_blocks() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let remap = chequered(block);
        let device = remap.open();
        let mut generation = 1;
        let mut model = vec![1; 1024];
        for first in 0..8 {
            for length in [1, 3, 8, 31, 100] {
                let (sector, length) = (first * unit, (length * unit).min(512));
                generation += 1;
                device
                    .write(sector, &stamps(sector, length, generation))
                    .unwrap();
                model[sector as usize..(sector + length) as usize].fill(generation);
                let expected: Vec<u8> = (0..1024)
                    .zip(&model)
                    .flat_map(|(sector, &generation)| stamps(sector, 1, generation))
                    .collect();
                assert!(
                    device.read(0, 1024).unwrap() == expected,
                    "block {block}, sector {sector}, length {length}"
                );
            }
        }
    }
}

#[test]
fn a_flush_reaches_both_devices() {
    let _test = vmtest::begin!();
    let remap = chequered(512);
    let device = remap.open();
    device.write(0, &stamps(0, 8, 2)).unwrap();
    remap.record();
    device.flush().unwrap();
    assert!(remap.main.disk().record().flushes >= 1, "main");
    assert!(remap.spare.disk().record().flushes >= 1, "spare");
}

/// P8: a flush goes to all devices concerned. A spare that holds nothing that users wrote since the
/// last one is not, and may be away.
#[test]
fn a_flush_spares_a_spare_without_data() {
    use vmtest::guest::sickdisk::Direction;
    use vmtest::guest::sickdisk::Status;
    let _test = vmtest::begin!();
    let remap = chequered(512);
    let device = remap.open();
    device.write(0, &stamps(0, 8, 2)).unwrap();
    device.flush().unwrap();
    remap.spare.disk().die(Status::Offline, Direction::Both);
    device
        .write(4096, &stamps(4096, 8, 3))
        .expect("no slot there");
    device.flush().expect("nothing of it is on the spare");
    Direct::open_dsync(&remap.path())
        .write(4104, &stamps(4104, 8, 3))
        .expect("a FUA write to main");
    device.write(0, &stamps(0, 1, 3)).expect_err("a slot");
    remap.spare.disk().revive();
    device.write(0, &stamps(0, 8, 4)).unwrap();
    device.flush().unwrap();
}

#[test]
fn a_failed_flush_is_an_error() {
    use vmtest::guest::sickdisk::Status;
    let _test = vmtest::begin!();
    for main in [true, false] {
        let remap = chequered(512);
        let device = remap.open();
        device.write(0, &stamps(0, 8, 2)).unwrap();
        let disk = if main { &remap.main } else { &remap.spare };
        disk.disk().fail_flushes(Status::Io, 1_000_000);
        assert!(device.flush().is_err(), "main {main}");
        disk.disk().fail_flushes(Status::Io, 0);
        device.flush().unwrap();
    }
}

#[test]
fn fua_reaches_the_disk_that_serves() {
    let _test = vmtest::begin!();
    let remap = chequered(512);
    let device = Direct::open_dsync(&remap.path());
    remap.record();
    device.write(0, &stamps(0, 1, 2)).unwrap();
    let fua = remap.spare.disk().record().fua_writes;
    let flushes = remap.spare.disk().record().flushes;
    assert!(fua + flushes > 0, "a write to a slot was not made durable");
    remap.record();
    device.write(1, &stamps(1, 1, 2)).unwrap();
    let record = remap.main.disk();
    assert!(record.record().fua_writes + record.record().flushes > 0);
}

/// After write-zeroes, everything reads as zeroes, from main and from slots.
#[test]
fn write_zeroes_zeroes_slots_too() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let remap = chequered(block);
        succeed(&format!(
            "fallocate -z -o 0 -l 524288 {}",
            remap.path().display()
        ));
        let device = remap.open();
        assert!(device.read(0, 1024).unwrap().iter().all(|&byte| byte == 0));
        assert!(device.read(1024, 1024).unwrap() == stamps(1024, 1024, 1));
    }
}

/// A discard harms nothing that was not discarded.
#[test]
fn discard_stays_in_its_range() {
    let _test = vmtest::begin!();
    let remap = chequered(512);
    succeed(&format!(
        "blkdiscard -o 131072 -l 131072 {}",
        remap.path().display()
    ));
    let device = remap.open();
    assert!(device.read(0, 256).unwrap() == stamps(0, 256, 1));
    assert!(device.read(512, 512).unwrap() == stamps(512, 512, 1));
    device.write(256, &stamps(256, 256, 2)).unwrap();
    assert!(device.read(256, 256).unwrap() == stamps(256, 256, 2));
}

/// The queue's limits are those of the stricter disk.
#[test]
fn limits_are_stacked() {
    let _test = vmtest::begin!();
    let main = Options::memory(64 << 20).logical_block(4096);
    let spare = Options::memory(8 << 20).logical_block(512);
    let remap = Remap::on(main, spare, "");
    let path = std::fs::canonicalize(remap.path()).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let attribute = |name: &str, attribute: &str| {
        let path = format!("/sys/block/{name}/queue/{attribute}");
        let text = std::fs::read_to_string(&path).expect(&path);
        text.trim().to_string()
    };
    assert_eq!(attribute(&name, "logical_block_size"), "4096");
    assert_eq!(attribute(&name, "write_cache"), "write back");
    assert_eq!(attribute(&name, "fua"), "1");
}

/// Many at once, through the page cache and past it.
#[test]
fn a_crowd_of_readers_and_writers() {
    let _test = vmtest::begin!();
    let remap = chequered(4096);
    let path = remap.path();
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let path = &path;
            scope.spawn(move || {
                let device = Direct::open(path);
                let first = worker * 512;
                for generation in 2..20 {
                    let data = stamps(first, 512, generation);
                    device.write(first, &data).unwrap();
                    assert!(device.read(first, 512).unwrap() == data);
                }
            });
        }
    });
    let mut file = File::open(&path).unwrap();
    let mut data = vec![0; 1 << 20];
    file.read_exact(&mut data).unwrap();
    assert!(data == stamps(0, 2048, 19));
}

/// A filesystem on a disk that goes bad under it.
#[test]
fn ext4_does_not_notice() {
    let _test = vmtest::begin!();
    let main = Options::memory(64 << 20).logical_block(4096);
    let spare = Options::memory(16 << 20).logical_block(4096);
    let remap = Remap::on(main, spare, "");
    let path = remap.path();
    let path = path.display();
    succeed(&format!("mkfs.ext4 -q {path}"));
    succeed("mkdir -p /mnt/test");
    succeed(&format!("mount {path} /mnt/test"));
    let content: Vec<u8> = stamps(0, 4096, 1);
    for number in 0..12 {
        for sector in (number * 8192..number * 8192 + 4096).step_by(512) {
            remap
                .main
                .disk()
                .spoil(sector, 16, Fault::bad(Direction::Write));
        }
        let mut file = File::create(format!("/mnt/test/{number}")).unwrap();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
    }
    succeed("umount /mnt/test");
    assert!(remap.device().remapped() > 0);
    succeed(&format!("e2fsck -fn {path}"));
    succeed(&format!("mount {path} /mnt/test"));
    for number in 0..12 {
        assert!(std::fs::read(format!("/mnt/test/{number}")).unwrap() == content);
    }
    succeed("umount /mnt/test");
}
