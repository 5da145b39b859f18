// SPDX-License-Identifier: GPL-2.0
//! P9: suspends, other tables and removals under users who know what must be there, with repairs
//! under way all the time. No write is lost, and no I/O is stuck.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use vmtest::guest::eventually;
use vmtest::guest::load;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::SickDisk;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Dice;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Remap;
use vmtest::guest::Traffic;

/// Where the users are.
const USED: std::ops::Range<u64> = 0..16384;

/// Every kind of suspend that device mapper knows.
const KINDS: [&[&str]; 4] = [
    &[],
    &["--noflush"],
    &["--nolockfs"],
    &["--noflush", "--nolockfs"],
];

fn unwritable() -> Fault {
    Fault::bad(Direction::Write)
}

/// More sectors of main go bad where the users are, so that there is something to repair.
fn decay(remap: &Remap, dice: &mut Dice) {
    for _ in 0..8 {
        let sector = USED.start + dice.roll(USED.end - USED.start - 2);
        remap.main.disk().spoil(sector, 2, unwritable());
    }
}

/// A device whose repairs take a moment.
fn decaying() -> Remap {
    let remap = Remap::new(512);
    let spare = remap.spare.disk().sectors();
    let delay = Duration::from_micros(500);
    remap.spare.disk().slow(0..spare, delay);
    remap
}

/// P1, P2, P9, E8: three dozen suspends of every kind, with I/O and repairs under way at each of them.
#[test]
fn dozens_of_suspends_lose_nothing() {
    let _test = vmtest::begin!();
    let mut remap = decaying();
    let mut dice = Dice::new(1);
    let known = Traffic::during(&remap.path(), USED, |traffic| {
        for round in 0..36 {
            decay(&remap, &mut dice);
            let repaired = remap.device().remapped();
            let more = || remap.device().remapped() > repaired;
            assert!(eventually(more), "round {round}");
            let kind = KINDS[round % 4];
            remap.device().suspend_with(kind).unwrap();
            let there = remap.device().remapped();
            sleep(Duration::from_millis(dice.roll(20)));
            assert_eq!(
                remap.device().remapped(),
                there,
                "{kind:?} has ended repairs"
            );
            remap.device().resume().unwrap();
            traffic.goes_on();
        }
    });
    known.verify(&remap.open());
    remap.reactivate();
    known.verify(&remap.open());
}

/// P1, P2, P9, D1: the same table again and again, with remaps by message while one is loaded and one
/// is live, and in between.
#[test]
fn remaps_between_load_and_resume_are_kept() {
    let _test = vmtest::begin!();
    let mut remap = decaying();
    let mut dice = Dice::new(2);
    let device = remap.open();
    let far = 100_000;
    device.write(far, &stamps(far, 64, 1)).unwrap();
    let known = Traffic::during(&remap.path(), USED, |traffic| {
        for round in 0..12 {
            decay(&remap, &mut dice);
            let sector = far + round;
            remap.device().load(&remap.line()).unwrap();
            remap.device().message(&format!("remap {sector}")).unwrap();
            if round >= 6 {
                let back = format!("remove_remap {}", far + round - 6);
                remap.device().message(&back).unwrap();
            }
            let is_moved = |sector| remap.slot_of(sector).is_some();
            assert!(is_moved(sector));
            remap.device().resume().unwrap();
            assert!(
                is_moved(sector),
                "round {round}: the new table knows nothing of it"
            );
            if round >= 6 {
                assert!(!is_moved(far + round - 6), "round {round}");
            }
            assert!(device.read(far, 64).unwrap() == stamps(far, 64, 1));
            traffic.goes_on();
        }
    });
    known.verify(&remap.open());
    drop(device);
    remap.reactivate();
    known.verify(&remap.open());
    let moved: Vec<u64> = (far..far + 12)
        .filter(|s| remap.slot_of(*s).is_some())
        .collect();
    assert_eq!(moved, (far + 6..far + 12).collect::<Vec<_>>());
}

/// P9: other arguments count from the resume on and not before, with the device in use; and the table
/// prints back what was loaded.
#[test]
fn changed_arguments_count_from_the_resume_on() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let line = remap.line();
    let bad = 100_000;
    remap
        .main
        .disk()
        .spoil(bad, 1000, Fault::bad(Direction::Both));
    let told = remap.device().message("metadata_status").unwrap();
    let uuid = told
        .split_whitespace()
        .find_map(|w| w.strip_prefix("set_uuid="));
    let uuid = uuid.unwrap().to_string();
    // How often a block is read that cannot be read.
    let tries = |sector: u64| {
        remap.main.disk().record_mut().restart(true);
        assert!(remap.open().read(sector, 1).is_err());
        let disk = remap.main.disk();
        let reads = disk.record().entries().iter();
        reads
            .filter(|entry| entry.sector == sector && entry.sectors == 1)
            .count()
    };
    let switch = |arguments: &str| {
        let table = format!("{line} {arguments}");
        remap.device().load(&table).unwrap();
        table
    };
    Traffic::during(&remap.path(), USED, |traffic| {
        let writes = |sector: u64| remap.open().write(sector, &stamps(sector, 1, 1)).is_ok();

        switch("2 auto_remap off");
        assert!(writes(bad), "the old table is still the one");
        remap.device().resume().unwrap();
        assert!(!writes(bad + 1), "auto_remap is off");
        traffic.goes_on();
        switch("2 auto_remap on");
        assert!(!writes(bad + 1), "auto_remap is still off");
        remap.device().resume().unwrap();
        assert!(writes(bad + 1));

        let before = tries(bad + 10);
        switch("2 read_retries 12");
        assert_eq!(tries(bad + 11), before);
        remap.device().resume().unwrap();
        assert_eq!(tries(bad + 12), before + 10, "10 more than by default");
        // What the line does not say stays as it is.
        switch("0");
        remap.device().resume().unwrap();
        assert_eq!(tries(bad + 13), before + 10);

        switch(&format!("4 main_id disk-1 uuid {uuid}"));
        let has = |text: &str| {
            let told = remap.device().message("metadata_status").unwrap();
            told.contains(text)
        };
        assert!(!has("main_id=disk-1"), "not before the resume");
        remap.device().resume().unwrap();
        assert!(has("main_id=disk-1"));
        let printed = remap.device().table();
        let end = format!(" 4 main_id disk-1 uuid {uuid}");
        assert!(printed.ends_with(&end), "{printed}");
        traffic.goes_on();
    });
    remap.deactivate();
    // It is on the spare now.
    let refusal = Mapped::try_new(&format!("{line} 2 main_id disk-2")).unwrap_err();
    assert_eq!(refusal.error, "No such device", "{refusal:?}");
    Mapped::new(&format!("{line} 2 main_id disk-1")).remove();
    Mapped::new(&line).remove();
}

/// P2, P9, D1: what lies beyond a shorter table is kept, over removal too, and is served from the spare
/// as soon as the table is long again.
#[test]
fn remaps_beyond_a_shorter_table_are_kept() {
    let _test = vmtest::begin!();
    let mut remap = decaying();
    let mut dice = Dice::new(3);
    let full = remap.line();
    let short = full.replacen(&Remap::MAIN_SECTORS.to_string(), "65536", 1);
    let (cut, beyond) = (65528, 100_000);
    for sector in [cut, beyond] {
        remap.main.disk().spoil(sector, 16, unwritable());
        remap.open().write(sector, &stamps(sector, 16, 1)).unwrap();
    }
    let there = |device: &Direct| {
        assert!(device.read(cut, 16).unwrap() == stamps(cut, 16, 1));
        assert!(device.read(beyond, 16).unwrap() == stamps(beyond, 16, 1));
    };
    there(&remap.open());
    let known = Traffic::during(&remap.path(), USED, |traffic| {
        for _ in 0..5 {
            decay(&remap, &mut dice);
            remap.device().load(&short).unwrap();
            remap.device().resume().unwrap();
            let device = remap.open();
            assert!(device.read(cut, 8).unwrap() == stamps(cut, 8, 1));
            assert!(
                device.read(beyond, 16).is_err(),
                "there is no such sector now"
            );
            assert!(remap
                .device()
                .message(&format!("remove_remap {beyond}"))
                .is_err());
            traffic.goes_on();
            remap.device().load(&full).unwrap();
            remap.device().resume().unwrap();
            there(&remap.open());
            traffic.goes_on();
        }
    });
    remap.deactivate();
    Mapped::new(&short).remove();
    remap.activate();
    there(&remap.open());
    known.verify(&remap.open());
}

/// A file that is a disk, and can grow.
struct Loop {
    file: PathBuf,
    path: PathBuf,
}

impl Loop {
    fn new(name: &str, mib: u64) -> Self {
        succeed("modprobe loop");
        let file = PathBuf::from("/tmp").join(name);
        let mut disk = Self {
            file,
            path: PathBuf::new(),
        };
        disk.resize(mib);
        let told = succeed(&format!("losetup --find --show {}", disk.file.display()));
        disk.path = told.trim().into();
        disk
    }

    fn resize(&self, mib: u64) {
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.file);
        file.unwrap().set_len(mib << 20).unwrap();
    }

    fn grow(&self, mib: u64) {
        self.resize(mib);
        succeed(&format!("losetup --set-capacity {}", self.path.display()));
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = vmtest::guest::run(&format!("losetup --detach {}", self.path.display()));
        let _ = std::fs::remove_file(&self.file);
    }
}

/// P2, P5, P9: a main that becomes eight times as long while in use. What it did not have before is
/// remapped like the rest, and is there after the next activation.
#[test]
fn a_grown_main_is_taken_over_while_in_use() {
    let _test = vmtest::begin!();
    load();
    let (small, large) = (64 << 11, 512 << 11);
    let disk = SickDisk::start(Options::memory(large * 512)).unwrap();
    let spare = SickDisk::start(Options::memory(8 << 20)).unwrap();
    let volume = |sectors: u64| format!("0 {sectors} linear {} 0", disk.path().display());
    let below = Mapped::new(&volume(small));
    let line = |sectors: u64| {
        let (main, spare) = (below.path(), spare.path());
        format!(
            "0 {sectors} dm-remap {} {} 2 main_id grown",
            main.display(),
            spare.display()
        )
    };
    // In front of the old end, across it, and far behind it.
    let places = [small - 4096, small - 8, large - 16];
    let mut mapped = Mapped::new(&line(small));
    let known = Traffic::during(&mapped.path(), USED, |traffic| {
        mapped.message("remap 1000 100").unwrap();
        let refusal = mapped.load(&line(large)).unwrap_err();
        assert!(refusal.reason.contains("Main is smaller"), "{refusal:?}");
        below.load(&volume(large)).unwrap();
        below.resume().unwrap();
        traffic.goes_on();
        mapped.load(&line(large)).unwrap();
        mapped.resume().unwrap();
        traffic.goes_on();
        let device = Direct::open(&mapped.path());
        for place in places {
            disk.disk().spoil(place, 16, unwritable());
            device.write(place, &stamps(place, 16, 1)).unwrap();
        }
        assert_eq!(mapped.remapped(), 100 + 48);
        traffic.goes_on();
    });
    for _ in 0..2 {
        let device = Direct::open(&mapped.path());
        known.verify(&device);
        for place in places {
            assert!(device.read(place, 16).unwrap() == stamps(place, 16, 1));
        }
        assert_eq!(mapped.remapped(), 100 + 48);
        drop(device);
        mapped.remove();
        mapped = Mapped::new(&line(large));
    }
    // What is remapped behind the end of a main that has shrunk is remapped when it is as long again.
    mapped.remove();
    below.load(&volume(small)).unwrap();
    below.resume().unwrap();
    mapped = Mapped::new(&line(small));
    assert_eq!(mapped.remapped(), 100 + 48);
    below.load(&volume(large)).unwrap();
    below.resume().unwrap();
    mapped.load(&line(large)).unwrap();
    mapped.resume().unwrap();
    let device = Direct::open(&mapped.path());
    for place in places {
        assert!(device.read(place, 16).unwrap() == stamps(place, 16, 1));
    }
    drop(device);
    mapped.remove();
    below.remove();
}

/// P9: the same with a disk that grows by itself, below the live table.
#[test]
fn a_loop_device_may_grow_below() {
    let _test = vmtest::begin!();
    load();
    let main = Loop::new("growing-main", 64);
    let spare = Loop::new("its-spare", 8);
    let line = |mib: u64| {
        let (main, spare) = (main.path.display(), spare.path.display());
        format!("0 {} dm-remap {main} {spare}", mib << 11)
    };
    let mut mapped = Mapped::new(&line(64));
    let mut sizes = vec![64];
    let known = Traffic::during(&mapped.path(), USED, |traffic| {
        for mib in [65, 128, 300] {
            main.grow(mib);
            traffic.goes_on();
            mapped.load(&line(mib)).unwrap();
            mapped.resume().unwrap();
            let last = (mib << 11) - 8;
            let device = Direct::open(&mapped.path());
            device.write(last, &stamps(last, 8, 1)).unwrap();
            mapped.message(&format!("remap {last} 8")).unwrap();
            assert!(device.read(last, 8).unwrap() == stamps(last, 8, 1));
            sizes.push(mib);
            traffic.goes_on();
        }
    });
    for _ in 0..2 {
        let device = Direct::open(&mapped.path());
        known.verify(&device);
        for last in sizes[1..].iter().map(|mib| (mib << 11) - 8) {
            assert!(device.read(last, 8).unwrap() == stamps(last, 8, 1));
        }
        assert_eq!(mapped.remapped(), 24);
        drop(device);
        mapped.remove();
        mapped = Mapped::new(&line(300));
    }
    mapped.remove();
}

/// P1, P9: `dmsetup remove --force` in the middle of repairs. Users get errors, nothing hangs, and what
/// was acknowledged is there when the device is made again.
#[test]
fn a_forced_removal_amid_repairs_loses_nothing() {
    let _test = vmtest::begin!();
    load();
    let remap = Remap::inactive(Options::memory(64 << 20), Options::memory(8 << 20), "");
    let spare = remap.spare.disk().sectors();
    let delay = Duration::from_millis(1);
    remap.spare.disk().slow(0..spare, delay);
    let mut mapped = Mapped::new(&remap.line());
    let mut dice = Dice::new(4);
    for _ in 0..20 {
        decay(&remap, &mut dice);
    }
    let known = Traffic::until_gone(&mapped.path(), USED, |traffic| {
        let user = Direct::open(&mapped.path());
        traffic.goes_on();
        assert!(eventually(|| mapped.remapped() > 0));
        // While it is in use it stays, with a table that only gives errors.
        assert!(mapped.remove_with(&["--force"]).is_err());
        assert!(mapped.table().contains("error"), "{}", mapped.table());
        assert!(user.read(0, 8).is_err());
    });
    mapped.remove();
    let mapped = Mapped::new(&remap.line());
    assert!(mapped.remapped() > 0);
    known.verify(&Direct::open(&mapped.path()));
}

/// P1, P9: a removal that is put off until the last user has gone changes nothing for the users.
#[test]
fn a_deferred_removal_waits_for_the_last_user() {
    let _test = vmtest::begin!();
    load();
    let remap = Remap::inactive(Options::memory(64 << 20), Options::memory(8 << 20), "");
    let mut mapped = Mapped::new(&remap.line());
    let name = mapped.name().to_string();
    let is_there = || vmtest::guest::run(&format!("dmsetup info {name}")).status == 0;
    let mut dice = Dice::new(5);
    let known = Traffic::during(&mapped.path(), USED, |traffic| {
        decay(&remap, &mut dice);
        assert!(mapped.remove_with(&[]).is_err(), "it is in use");
        mapped.remove_with(&["--deferred"]).unwrap();
        for _ in 0..5 {
            decay(&remap, &mut dice);
            traffic.goes_on();
            assert!(is_there());
        }
    });
    assert!(eventually(|| !is_there()));
    // Its name is gone before its table is.
    let mut again = None;
    assert!(eventually(|| {
        again = Mapped::try_new(&remap.line()).ok();
        again.is_some()
    }));
    let mapped = again.expect("a device");
    assert!(mapped.remapped() > 0);
    known.verify(&Direct::open(&mapped.path()));
}

/// P2, P9: a removal while nobody uses the device any more and weak blocks are still being moved.
#[test]
fn a_removal_amid_moves_loses_nothing() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let spare = remap.spare.disk().sectors();
    // Fails when it is read, and once more when it is tried by itself.
    let weak = Fault::bad(Direction::Read).times(2);
    let sectors = || (0..8).map(|mib| mib * 2048);
    let mut cut_short = 0;
    for round in 1..=6 {
        let device = remap.open();
        for sector in sectors() {
            device.write(sector, &stamps(sector, 8, round)).unwrap();
            remap.main.disk().spoil(sector, 1, weak);
        }
        remap.spare.disk().hold(0..spare, Direction::Write);
        for sector in sectors() {
            assert!(device.read(sector, 1).unwrap() == stamps(sector, 1, round));
        }
        drop(device);
        assert!(eventually(|| !remap.spare.disk().waiting().is_empty()));
        let before = remap.device().remapped();
        remap.deactivate_while(|spare| {
            // The removal waits for the move by then, or comes after it where it takes longer to begin.
            sleep(Duration::from_millis(200));
            spare.disk().release();
        });
        remap.main.disk().heal(0, 8 * 2048);
        remap.activate();
        cut_short += u64::from(remap.device().remapped() > before);
        let device = remap.open();
        for sector in sectors() {
            let read = device.read(sector, 8).unwrap();
            assert!(read == stamps(sector, 8, round), "{round}, sector {sector}");
            let back = format!("remove_remap {sector}");
            remap.device().message(&back).unwrap();
        }
    }
    assert!(
        cut_short > 0,
        "no removal came while blocks were being moved"
    );
}
