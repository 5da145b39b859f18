// SPDX-License-Identifier: GPL-2.0
//! E4: mirrors heal what they meet: they write what the other leg has as soon as one leg fails, and
//! that goes to the spare.

use std::path::Path;

use super::bad;
use super::unreadable;
use vmtest::guest::drop_caches;
use vmtest::guest::eventually;
use vmtest::guest::run;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Direct;
use vmtest::guest::Remap;

/// E4: whoever is told that a sector cannot be read, and writes it in the same instant, is served
/// by the spare: so do mirrors.
#[test]
fn a_write_right_after_the_error_goes_to_the_spare() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    let device = remap.open();
    for sector in (0..800).step_by(8) {
        remap.main.disk().spoil(sector, 1, unreadable());
        assert!(device.read(sector, 1).is_err());
        device.write(sector, &stamps(sector, 1, 1)).unwrap();
        let read = device.read(sector, 1);
        assert!(
            read.is_ok_and(|data| data == stamps(sector, 1, 1)),
            "sector {sector} was written to where it cannot be read"
        );
    }
    assert_eq!(remap.device().remapped(), 100);
    assert_eq!(remap.device().pending(), 0);
}

/// A mirror of md over two of our devices, removed when dropped.
struct Mirror {
    path: &'static str,
}

impl Mirror {
    fn new(legs: [&Remap; 2]) -> Self {
        succeed("modprobe raid1");
        let path = "/dev/md8";
        let [one, two] = legs.map(|leg| leg.path().display().to_string());
        succeed(&format!(
            "mdadm --create {path} --run --assume-clean --metadata=1.0 --bitmap=none --level=1 \
             --raid-devices=2 {one} {two}"
        ));
        Self { path }
    }

    fn open(&self) -> Direct {
        Direct::open(Path::new(self.path))
    }

    fn attribute(name: &str) -> String {
        let path = format!("/sys/block/md8/md/{name}");
        let text = std::fs::read_to_string(&path).expect(&path);
        text.trim().to_string()
    }

    /// Has md read everything; `how` is `check` or `repair`.
    fn scrub(how: &str) {
        let action = "/sys/block/md8/md/sync_action";
        std::fs::write(action, how).expect("begin to scrub");
        let idle = || Self::attribute("sync_action") == "idle";
        assert!(eventually(idle), "{how} goes on");
    }

    fn is_whole() -> bool {
        let state = std::fs::read_to_string("/proc/mdstat").expect("read mdstat");
        state.contains("[UU]") && !state.contains("(F)")
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // The check's own openers may be there for a moment.
        let stopped = || run(&format!("mdadm --stop {}", self.path)).status == 0;
        let stopped = eventually(stopped);
        if !stopped && !std::thread::panicking() {
            panic!("the mirror could not be stopped");
        }
    }
}

/// Two devices, and a mirror over them whose sectors hold generation 1.
fn legs() -> [Remap; 2] {
    [(); 2].map(|()| {
        let main = Options::memory(16 << 20);
        Remap::on(main, Options::memory(8 << 20), "")
    })
}

const MIRRORED: u64 = 24 << 10;

/// E4: a mirror over two of our devices with unreadable sectors on both, in different places, is
/// scrubbed clean: md writes what the other leg has, and that goes to the spare.
#[test]
fn md_scrubs_two_sick_legs_clean() {
    let _test = vmtest::begin!();
    let legs = legs();
    let [one, two] = &legs;
    let mirror = Mirror::new([one, two]);
    let device = mirror.open();
    for sector in (0..MIRRORED).step_by(2048) {
        device.write(sector, &stamps(sector, 2048, 1)).unwrap();
    }
    for (how, first) in [("check", 0), ("repair", 10_000)] {
        one.main.disk().spoil(first + 1000, 3, unreadable());
        one.main.disk().spoil(first + 9000, 40, bad());
        two.main.disk().spoil(first + 2000, 1, unreadable());
        two.main.disk().spoil(first + 12_345, 17, bad());
        // Some of it is known to be pending before.
        assert!(one.open().read(first + 1000, 1).is_err());
        assert_eq!(one.device().pending(), 1);

        Mirror::scrub(how);
        assert!(Mirror::is_whole(), "{how}: a leg was lost");
        Mirror::scrub("check");
        for leg in [one, two] {
            let status = leg.device().status();
            assert_eq!(leg.device().pending(), 0, "{how}: {status}");
            assert!(leg.device().remapped() > 0, "{how}: {status}");
            // Each leg has everything by itself.
            let alone = leg.open();
            for sector in (0..MIRRORED).step_by(2048) {
                let read = alone.read(sector, 2048).unwrap();
                assert!(read == stamps(sector, 2048, 1), "{how}, from {sector} on");
            }
        }
        assert_eq!(Mirror::attribute("mismatch_cnt"), "0", "{how}");
    }
}

/// E4: a mirror heals what it meets when it reads, without a scrub.
#[test]
fn md_heals_what_it_reads() {
    let _test = vmtest::begin!();
    let legs = legs();
    let [one, two] = &legs;
    let mirror = Mirror::new([one, two]);
    let device = mirror.open();
    device.write(0, &stamps(0, 1024, 1)).unwrap();
    for (leg, sector) in [(one, 100), (two, 500)] {
        leg.main.disk().spoil(sector, 2, unreadable());
    }
    // Each read asks one leg only.
    for _ in 0..8 {
        for sector in (0..1024).step_by(64) {
            let read = device.read(sector, 64).unwrap();
            assert!(read == stamps(sector, 64, 1));
        }
    }
    assert!(Mirror::is_whole());
    let (pending, healed) = [one, two].iter().fold((0, 0), |(pending, healed), leg| {
        let device = leg.device();
        (pending + device.pending(), healed + device.remapped())
    });
    assert_eq!(pending, 0);
    assert!(healed > 0, "no unreadable sector was met");
}

/// E4: btrfs over two of our devices heals what it scrubs, by itself.
#[test]
fn btrfs_scrubs_itself_clean() {
    let _test = vmtest::begin!();
    succeed("modprobe btrfs");
    let legs = [(); 2].map(|()| {
        let main = Options::memory(128 << 20).logical_block(4096);
        Remap::on(main, Options::memory(8 << 20), "")
    });
    let [one, two] = legs.each_ref().map(|leg| leg.path().display().to_string());
    succeed(&format!("mkfs.btrfs -q -f -m raid1 -d raid1 {one} {two}"));
    succeed("mkdir -p /mnt/btrfs");
    succeed(&format!(
        "mount -t btrfs -o device={one},device={two} {one} /mnt/btrfs"
    ));
    let content = stamps(0, 16384, 1);
    std::fs::write("/mnt/btrfs/file", &content).unwrap();
    succeed("sync");
    // Wherever the file's content lies on the first leg.
    let mut spoilt = 0;
    {
        let mut disk = legs[0].main.disk();
        let mut data = vec![0; 4096];
        for sector in (0..disk.sectors()).step_by(8) {
            disk.peek(sector, &mut data).unwrap();
            if data[..8] == content[..8] && sector % 256 == 0 {
                disk.spoil(sector, 8, unreadable());
                spoilt += 1;
            }
        }
    }
    drop_caches();
    let scrub = run("btrfs scrub start -B /mnt/btrfs");
    let read = std::fs::read("/mnt/btrfs/file");
    succeed("umount /mnt/btrfs");
    assert!(spoilt > 4, "{spoilt} sectors of the file were found");
    assert!(read.unwrap() == content);
    assert_eq!(legs[0].device().pending(), 0, "{scrub:?}");
    assert_eq!(legs[0].device().remapped(), spoilt, "{scrub:?}");
}
