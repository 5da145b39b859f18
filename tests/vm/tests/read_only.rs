// SPDX-License-Identifier: GPL-2.0
//! P9: read-only disks and tables. What can be read is read right, and nothing is written: not what is
//! damaged, not what was found out, and not by messages.

use vmtest::guest::read_only;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::superblocks;
use vmtest::guest::Mapped;
use vmtest::guest::Remap;

fn bad() -> Fault {
    Fault::bad(Direction::Both)
}

fn content(disk: &SickDisk) -> Vec<u8> {
    let mut content = vec![0; (disk.disk().sectors() * 512) as usize];
    disk.disk().peek(0, &mut content).expect("read a disk");
    content
}

/// A device with a few remaps and a lost sector, taken out of use.
fn used() -> Remap {
    let mut remap = Remap::new(512);
    let device = remap.open();
    device.write(0, &stamps(0, 2048, 1)).unwrap();
    remap.main.disk().spoil(100, 8, bad());
    remap.main.disk().spoil(500, 1, bad());
    device.write(96, &stamps(96, 16, 2)).unwrap();
    assert!(device.read(500, 1).is_err());
    drop(device);
    remap.deactivate();
    remap
}

/// Nothing was written to the disks since.
struct Before(Vec<u8>, Vec<u8>);

impl Before {
    fn new(remap: &Remap) -> Self {
        remap.record();
        Self(content(&remap.main), content(&remap.spare))
    }

    #[track_caller]
    fn holds(&self, remap: &Remap, what: &str) {
        for (disk, before) in [(&remap.main, &self.0), (&remap.spare, &self.1)] {
            let record = disk.disk().record().clone();
            assert_eq!(record.writes + record.discards, 0, "{what}");
            assert!(content(disk) == *before, "{what}");
        }
    }
}

/// Reads all that there is, also what main cannot read any more.
#[track_caller]
fn serves(device: &Mapped, what: &str) {
    let read = |sector, sectors| read_only(&device.path(), sector, sectors);
    assert!(read(0, 96).unwrap() == stamps(0, 96, 1), "{what}");
    assert!(read(96, 16).unwrap() == stamps(96, 16, 2), "{what}");
    assert!(read(112, 388).unwrap() == stamps(112, 388, 1), "{what}");
    assert!(read(500, 1).is_err(), "{what}");
    assert_eq!(device.remapped(), 8, "{what}");
    assert_eq!(device.pending(), 1, "{what}");
}

/// P9, M4: a read-only table on disks that take no writes; on one such disk; and on disks that do.
#[test]
fn a_read_only_table_serves_read_only_disks() {
    let _test = vmtest::begin!();
    let remap = used();
    let (main, spare) = (remap.main.path(), remap.spare.path());
    let before = Before::new(&remap);
    for (what, disks) in [
        ("main", vec![&main]),
        ("spare", vec![&spare]),
        ("both", vec![&main, &spare]),
        ("none", vec![]),
    ] {
        for disk in &disks {
            succeed(&format!("blockdev --setro {}", disk.display()));
        }
        let refused = Mapped::try_new(&remap.line());
        if disks.is_empty() {
            drop(refused.unwrap());
        } else {
            let refusal = refused.unwrap_err();
            assert_eq!(
                refusal.error, "Read-only file system",
                "{what}: {refusal:?}"
            );
        }
        let device = Mapped::try_read_only(&remap.line()).unwrap();
        serves(&device, what);
        // Also suspended, resumed, and with another table.
        device.suspend().unwrap();
        device.load_read_only(&remap.line()).unwrap();
        device.resume().unwrap();
        serves(&device, what);
        device.remove();
        for disk in disks {
            succeed(&format!("blockdev --setrw {}", disk.display()));
        }
        before.holds(&remap, what);
    }
}

/// P4, P9, M3: with damaged metadata a read-only table serves what the good copies say, and leaves the
/// damage to a table that may write, which repairs it.
#[test]
fn damage_is_not_repaired_read_only() {
    let _test = vmtest::begin!();
    let mut remap = used();
    let end = remap.spare.disk().sectors();
    let copies = superblocks(&remap.spare);
    // The first block of the slot table, behind the second copy; the other replica ends before the third.
    let whole = content(&remap.spare);
    let tables: Vec<u64> = (0..end)
        .step_by(8)
        .filter(|sector| whole[(sector * 512) as usize..].starts_with(b"DMRMPTBL"))
        .collect();
    let half = tables.iter().filter(|sector| **sector < end / 2).count();
    assert!(half > 0 && half * 2 == tables.len(), "{tables:?}");
    let (first, second) = tables.split_at(half);
    for (what, damage) in [
        ("two superblock copies", &copies[..2]),
        ("replica 0", first),
        ("replica 1", second),
    ] {
        for sector in damage {
            remap
                .spare
                .disk()
                .poke(sector + 1, &stamps(0, 1, 1))
                .unwrap();
        }
        let before = Before::new(&remap);
        let device = Mapped::try_read_only(&remap.line()).unwrap();
        serves(&device, what);
        device.remove();
        before.holds(&remap, what);
        remap.activate();
        remap.deactivate();
        for sector in damage {
            let mut block = [0; 4096];
            remap.spare.disk().peek(*sector, &mut block).unwrap();
            assert!(block[512..1024] != stamps(0, 1, 1), "{what} was repaired");
        }
    }
}

/// P9: what goes bad under a read-only table is an error or is read in the end, and nothing is set aside.
#[test]
fn new_errors_leave_no_trace() {
    let _test = vmtest::begin!();
    let remap = used();
    let before = Before::new(&remap);
    let device = Mapped::try_read_only(&remap.line()).unwrap();
    remap.main.disk().spoil(1000, 4, bad());
    let weak = Fault::bad(Direction::Read).times(3);
    remap.main.disk().spoil(1200, 1, weak);
    assert!(read_only(&device.path(), 1000, 4).is_err());
    assert!(read_only(&device.path(), 1200, 1).unwrap() == stamps(1200, 1, 1));
    serves(&device, "new errors");
    for message in [
        "remap 50",
        "remove_remap 100",
        "save",
        "sync",
        "add_remap 60 8192 1",
    ] {
        let refusal = device.message(message).expect_err(message);
        assert!(!refusal.error.is_empty(), "{message}: {refusal:?}");
    }
    assert_eq!(device.message("ping").unwrap(), "pong");
    serves(&device, "messages");
    device.remove();
    before.holds(&remap, "new errors and messages");
}

/// P9: a table that is loaded over a read-only one may write, and the other way round; each keeps to
/// what it is.
#[test]
fn read_only_and_back_while_in_use() {
    let _test = vmtest::begin!();
    let mut remap = used();
    remap.activate();
    for round in 0..3 {
        let sector = 3000 + 8 * round;
        remap.main.disk().spoil(sector, 1, bad());
        remap.open().write(sector, &stamps(sector, 8, 1)).unwrap();
        remap.device().load_read_only(&remap.line()).unwrap();
        remap.device().resume().unwrap();
        let before = Before::new(&remap);
        assert!(remap.device().message("remap 50").is_err());
        let read = read_only(&remap.path(), sector, 8).unwrap();
        assert!(read == stamps(sector, 8, 1));
        before.holds(&remap, "read-only");
        remap.device().load(&remap.line()).unwrap();
        remap.device().resume().unwrap();
        assert_eq!(remap.device().remapped(), 9 + round);
    }
}
