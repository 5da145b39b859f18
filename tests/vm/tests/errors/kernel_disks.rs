// SPDX-License-Identifier: GPL-2.0
//! P6: the same faults on disks of the kernel's own: sense data and timeouts of scsi_debug, bad
//! blocks of null_blk, ranges of dm-flakey and dm-error.

use std::path::Path;
use std::sync::OnceLock;

use vmtest::guest::eventually;
use vmtest::guest::load;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;
use vmtest::guest::ScsiDebug;

const SECTORS: u64 = 64 << 11;

fn on(main: &Path, spare: &Path) -> Mapped {
    Mapped::new(&format!(
        "0 {SECTORS} dm-remap {} {}",
        main.display(),
        spare.display()
    ))
}

/// SCSI commands as rules name them.
const WRITE: &str = "0x2a";
const READ: &str = "0x28";

/// How often the kernel tries a command that fails with an error it thinks may pass.
const TRIES: i32 = 6;

/// The one SCSI disk: making it takes seconds, so that it stays.
fn scsi_disk() -> &'static ScsiDebug {
    static DISK: OnceLock<ScsiDebug> = OnceLock::new();
    DISK.get_or_init(|| ScsiDebug::new(64, 0, 0))
}

/// The SCSI disk with a spare, and rules for it.
struct Scsi {
    device: Direct,
    mapped: Mapped,
    disk: &'static ScsiDebug,
    _spare: NullBlk,
}

impl Scsi {
    fn new() -> Self {
        load();
        let disk = scsi_disk();
        let spare = NullBlk::new(8, 512);
        let mapped = on(&disk.path(), &spare.path());
        let device = Direct::open(&mapped.path());
        device.write(0, &stamps(0, 64, 1)).unwrap();
        Self {
            mapped,
            device,
            disk,
            _spare: spare,
        }
    }

    /// Runs `job` while commands fail with this host byte, status byte and sense data; `count` is
    /// negative for so many times, or 1 for always.
    fn failing<T>(
        &self,
        command: &str,
        count: i32,
        bytes: (u8, u8, [u8; 3]),
        job: impl FnOnce() -> T,
    ) -> T {
        let (host, status, [key, code, qualifier]) = bytes;
        self.disk.rule(&format!(
            "2 {count} {command} {host:#x} 0 {status:#x} {key:#x} {code:#x} {qualifier:#x}"
        ));
        let result = job();
        self.disk.end_rule(&format!("2 {command}"));
        result
    }
}

/// CHECK CONDITION with sense data.
fn sense(key: u8, code: u8, qualifier: u8) -> (u8, u8, [u8; 3]) {
    (0, 2, [key, code, qualifier])
}

/// A write error of the medium, for the user's write and for the worker's, is remapped.
#[test]
fn a_scsi_write_error_is_remapped() {
    let _test = vmtest::begin!();
    let scsi = Scsi::new();
    let data = stamps(8, 1, 2);
    let medium = sense(3, 0x0c, 0);
    scsi.failing(WRITE, -2 * TRIES, medium, || scsi.device.write(8, &data))
        .unwrap();
    assert!(scsi.device.read(8, 1).unwrap() == data);
    assert_eq!(scsi.mapped.remapped(), 1);
}

/// A hardware error is one of the target: suspect, but a write that works when tried again stays.
#[test]
fn a_scsi_hardware_error_that_passes_moves_nothing() {
    let _test = vmtest::begin!();
    let scsi = Scsi::new();
    let data = stamps(8, 8, 2);
    let hardware = sense(4, 0x44, 0);
    scsi.failing(WRITE, -1, hardware, || scsi.device.write(8, &data))
        .unwrap();
    assert!(scsi.device.read(8, 8).unwrap() == data);
    assert_eq!(scsi.mapped.status_value("errors").as_deref(), Some("W1:R0"));
    assert_eq!(scsi.mapped.status_fraction(2).0, 0);
}

/// E3: an unrecovered read error, met again when the block is tried by itself, and gone the third
/// time: the data is served, and moved away from there.
#[test]
fn a_scsi_read_error_that_passes_moves_the_weak_block() {
    let _test = vmtest::begin!();
    let scsi = Scsi::new();
    let medium = sense(3, 0x11, 0);
    let read = scsi.failing(READ, -2, medium, || scsi.device.read(8, 1));
    assert!(read.unwrap() == stamps(8, 1, 1));
    let moved = || scsi.mapped.status_value("weak_moves").as_deref() == Some("1");
    assert!(eventually(moved));
    assert_eq!(scsi.mapped.remapped(), 1);
    assert!(scsi.device.read(0, 64).unwrap() == stamps(0, 64, 1));
}

/// A path that fails fast, and a reservation of somebody else's: unchanged, and nothing is used.
#[test]
fn scsi_transport_and_reservation_errors_pass_up_unchanged() {
    let _test = vmtest::begin!();
    let scsi = Scsi::new();
    const DID_TRANSPORT_FAILFAST: u8 = 0x0f;
    const RESERVATION_CONFLICT: u8 = 0x18;
    for (bytes, errno) in [
        ((DID_TRANSPORT_FAILFAST, 0, [0; 3]), 67),
        ((0, RESERVATION_CONFLICT, [0; 3]), 52),
    ] {
        let data = stamps(8, 8, 2);
        let error = scsi.failing(WRITE, 1, bytes, || scsi.device.write(8, &data));
        assert_eq!(error.unwrap_err().raw_os_error(), Some(errno), "write");
        let error = scsi.failing(READ, 1, bytes, || scsi.device.read(8, 8));
        assert_eq!(error.unwrap_err().raw_os_error(), Some(errno), "read");
        assert_eq!(scsi.mapped.status_fraction(2).0, 0);
    }
    assert!(scsi.device.read(0, 64).unwrap() == stamps(0, 64, 1));
}

/// A command that nobody answers: the kernel gives it up as a plain error, and the block proves
/// good when it is tried by itself.
#[test]
fn a_scsi_command_that_times_out_moves_nothing() {
    let mut test = vmtest::begin!();
    let scsi = Scsi::new();
    let path = scsi.disk.path();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let device = std::fs::canonicalize(format!("/sys/block/{name}/device")).unwrap();
    let address = device.file_name().unwrap_or_default().to_string_lossy();
    let set = |seconds: &str, retries: &str| {
        for (attribute, value) in [
            (format!("/sys/block/{name}/device/timeout"), seconds),
            (
                format!("/sys/class/scsi_disk/{address}/max_retries"),
                retries,
            ),
        ] {
            std::fs::write(&attribute, value).expect(&attribute);
        }
    };
    set("1", "0");
    scsi.disk.rule(&format!("0 -1 {READ}"));
    let read = scsi.device.read(0, 64);
    scsi.disk.end_rule(&format!("0 {READ}"));
    set("30", "5");
    assert!(read.unwrap() == stamps(0, 64, 1));
    assert!(test.kernel_log().contains("timeout command"));
    assert_eq!(scsi.mapped.status_value("errors").as_deref(), Some("W0:R1"));
    assert_eq!(scsi.mapped.status_fraction(2).0, 0);
}

/// Reads of null_blk's bad blocks fail with a plain I/O error, are pending, and heal.
#[test]
fn bad_blocks_of_null_blk_are_pending_until_they_are_written() {
    let _test = vmtest::begin!();
    load();
    let main = NullBlk::new(64, 512);
    let spare = NullBlk::new(8, 512);
    let mapped = on(&main.path(), &spare.path());
    let device = Direct::open(&mapped.path());
    device.write(960, &stamps(960, 128, 1)).unwrap();
    main.spoil(1000, 3);
    assert!(device.read(960, 128).is_err());
    assert!(device.read(960, 40).unwrap() == stamps(960, 40, 1));
    assert!(device.read(1003, 85).unwrap() == stamps(1003, 85, 1));
    assert_eq!(mapped.pending(), 3);
    device.write(1000, &stamps(1000, 3, 2)).unwrap();
    assert!(device.read(1000, 3).unwrap() == stamps(1000, 3, 2));
    assert_eq!(mapped.pending(), 0);
}

/// A table of main with other targets in places: `kind` from sector 1000 on.
fn patched(disk: &NullBlk, kind: &str) -> Mapped {
    let path = disk.path();
    let path = path.display();
    let kind = kind.replace("DISK", &path.to_string());
    Mapped::new(&format!(
        "0 1000 linear {path} 0\n1000 8 {kind}\n1008 {} linear {path} 1008",
        SECTORS - 1008
    ))
}

/// A range of dm-error in main: writes are moved, reads are told.
#[test]
fn a_range_of_dm_error_is_moved_when_written() {
    let _test = vmtest::begin!();
    load();
    let disk = NullBlk::new(64, 512);
    let spare = NullBlk::new(8, 512);
    let main = patched(&disk, "error");
    let mapped = on(&main.path(), &spare.path());
    let device = Direct::open(&mapped.path());
    assert!(device.read(992, 32).is_err());
    assert_eq!(mapped.pending(), 8);
    device.write(992, &stamps(992, 32, 1)).unwrap();
    assert!(device.read(992, 32).unwrap() == stamps(992, 32, 1));
    assert_eq!((mapped.remapped(), mapped.pending()), (8, 0));
    drop(device);
    mapped.remove();
    main.remove();
}

/// dm-flakey: a range that only fails writes is moved, one that only fails reads is pending, and
/// what flakey does to a range that it lets through is not our business.
#[test]
fn ranges_of_dm_flakey_fail_one_way_only() {
    let _test = vmtest::begin!();
    load();
    succeed("modprobe dm-flakey");
    for (feature, remapped, pending) in [("error_writes", 8, 0), ("error_reads", 0, 8)] {
        let disk = NullBlk::new(64, 512);
        let spare = NullBlk::new(8, 512);
        let main = patched(&disk, &format!("flakey DISK 1000 0 3600 1 {feature}"));
        let mapped = on(&main.path(), &spare.path());
        let device = Direct::open(&mapped.path());
        device.write(992, &stamps(992, 32, 1)).unwrap();
        assert_eq!(device.read(992, 32).is_ok(), pending == 0, "{feature}");
        assert_eq!(mapped.remapped(), remapped, "{feature}");
        assert_eq!(mapped.pending(), pending, "{feature}");
        device.write(992, &stamps(992, 32, 2)).unwrap();
        assert!(device.read(992, 32).unwrap() == stamps(992, 32, 2));
        assert_eq!((mapped.remapped(), mapped.pending()), (8, 0), "{feature}");
        drop(device);
        mapped.remove();
        main.remove();
    }
}

/// A main that fails as a whole for a while, as dm-flakey does by the clock: nothing is used up, and
/// it works when main does.
#[test]
fn a_main_that_is_down_for_a_while_costs_nothing() {
    let _test = vmtest::begin!();
    load();
    succeed("modprobe dm-flakey");
    let disk = NullBlk::new(64, 512);
    let spare = NullBlk::new(8, 512);
    let path = disk.path();
    let table = |up: u32, down: u32| {
        let path = path.display();
        format!("0 {SECTORS} flakey {path} 0 {up} {down}")
    };
    let main = Mapped::new(&table(3600, 0));
    let mapped = on(&main.path(), &spare.path());
    let device = Direct::open(&mapped.path());
    device.write(0, &stamps(0, 64, 1)).unwrap();
    main.load(&table(0, 3600)).unwrap();
    main.resume().unwrap();
    for sector in (0..1024).step_by(64) {
        assert!(device.read(sector, 64).is_err());
        assert!(device.write(sector, &stamps(sector, 64, 2)).is_err());
    }
    assert_eq!(mapped.status_fraction(2).0, 0);
    main.load(&table(3600, 0)).unwrap();
    main.resume().unwrap();
    assert!(device.read(0, 64).unwrap() == stamps(0, 64, 1));
    device.write(0, &stamps(0, 64, 3)).unwrap();
    assert!(device.read(0, 64).unwrap() == stamps(0, 64, 3));
    drop(device);
    mapped.remove();
    main.remove();
}
