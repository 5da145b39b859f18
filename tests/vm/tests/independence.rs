// SPDX-License-Identifier: GPL-2.0
//! The main promises again, on disks that are not ours: if our sick disk and our target agree on
//! something that is wrong, this shows it.

use vmtest::guest::load;
use vmtest::guest::run;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::ScsiDebug;

/// P1: null_blk's bad blocks fail for reads and writes, with a plain I/O error.
#[test]
fn writes_to_bad_blocks_of_null_blk_are_remapped() {
    let _test = vmtest::begin!();
    load();
    for block in [512, 4096] {
        let main = NullBlk::new(64, block);
        let spare = NullBlk::new(8, block);
        let table = format!(
            "0 131072 dm-remap {} {}",
            main.path().display(),
            spare.path().display()
        );
        let mapped = Mapped::new(&table);
        let device = Direct::open(&mapped.path());
        main.spoil(1000, 16);
        device.write(960, &stamps(960, 128, 1)).unwrap();
        assert!(device.read(960, 128).unwrap() == stamps(960, 128, 1));
        let blocks = match block {
            512 => 16,
            _ => 2,
        };
        assert_eq!(mapped.remapped(), blocks);
        drop(device);
        mapped.remove();
        let mapped = Mapped::new(&table);
        assert_eq!(mapped.remapped(), blocks);
        let device = Direct::open(&mapped.path());
        assert!(device.read(960, 128).unwrap() == stamps(960, 128, 1));
    }
}

/// P2, E4: a SCSI disk that reports unreadable sectors with sense data, and takes writes to them.
#[test]
fn unreadable_sectors_of_a_scsi_disk_heal_when_written() {
    let _test = vmtest::begin!();
    load();
    let main = ScsiDebug::new(64, 2000, 4);
    let spare = NullBlk::new(8, 512);
    let table = format!(
        "0 131072 dm-remap {} {}",
        main.path().display(),
        spare.path().display()
    );
    let mapped = Mapped::new(&table);
    let device = Direct::open(&mapped.path());
    device.write(1984, &stamps(1984, 16, 1)).unwrap();
    device.write(2004, &stamps(2004, 12, 1)).unwrap();
    for sector in 2000..2004 {
        assert!(device.read(sector, 1).is_err(), "sector {sector}");
    }
    assert!(device.read(1984, 16).unwrap() == stamps(1984, 16, 1));
    assert!(device.read(2004, 12).unwrap() == stamps(2004, 12, 1));
    assert_eq!(mapped.pending(), 4);
    device.write(2000, &stamps(2000, 4, 2)).unwrap();
    assert!(device.read(2000, 4).unwrap() == stamps(2000, 4, 2));
    assert_eq!(mapped.pending(), 0);
    assert_eq!(mapped.remapped(), 4);
}

/// The device stands below a mirror of md as any other would.
#[test]
fn md_stands_on_it() {
    let _test = vmtest::begin!();
    load();
    let main = NullBlk::new(64, 4096);
    let spare = NullBlk::new(8, 4096);
    let other = NullBlk::new(64, 4096);
    let mapped = Mapped::new(&format!(
        "0 131072 dm-remap {} {}",
        main.path().display(),
        spare.path().display()
    ));
    succeed("modprobe raid1");
    succeed(&format!(
        "mdadm --create /dev/md9 --run --assume-clean --metadata=1.0 --level=1 --raid-devices=2 \
         {} {}",
        mapped.path().display(),
        other.path().display()
    ));
    main.spoil(8192, 64);
    let device = Direct::open(std::path::Path::new("/dev/md9"));
    device.write(8000, &stamps(8000, 512, 1)).unwrap();
    assert!(device.read(8000, 512).unwrap() == stamps(8000, 512, 1));
    drop(device);
    let state = std::fs::read_to_string("/proc/mdstat").unwrap();
    let stopped = run("mdadm --stop /dev/md9");
    assert_eq!(stopped.status, 0, "{stopped:?}");
    assert!(state.contains("[UU]"), "{state}");
    assert_eq!(mapped.remapped(), 8);
}
