// SPDX-License-Identifier: GPL-2.0
//! ext4 on the device: what is recorded, and what has to be there.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use vmtest::guest::run;
use vmtest::guest::stamps;
use vmtest::guest::succeed;
use vmtest::guest::Dice;
use vmtest::guest::Kmsg;
use vmtest::guest::Mapped;

use crate::recording::Areas;
use crate::recording::Recorded;
use crate::recording::Recording;
use crate::recording::Shape;
use crate::recording::Step;
use crate::replay::Point;
use crate::thoroughness::Thoroughness;
use crate::timeline::Disk;

/// Every so many sectors of main, eight are bad.
const BAD_EVERY: u64 = 8 * 31;

/// One in so many points is looked at by e2fsck, too.
const FSCK_EVERY: u64 = 16;

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join("crash-replay");
    fs::create_dir_all(&folder).expect("make a folder");
    folder
}

fn mount(device: &Path) -> Result<PathBuf, String> {
    let folder = folder();
    let mut log = Kmsg::from_now();
    let ran = run(&format!(
        "mount -t ext4 {} {}",
        device.display(),
        folder.display()
    ));
    match ran.status {
        0 => Ok(folder),
        _ => Err(format!("mount: {}{}", ran.errors, log.text())),
    }
}

fn unmount() {
    succeed(&format!("umount {}", folder().display()));
}

/// What a file holds.
fn content(number: u64) -> Vec<u8> {
    stamps(number << 16, 1 + number * 7 % 40, number)
}

/// Files are written and fsynced, and every third one removed again, on a disk with bad blocks.
pub(crate) fn record(thoroughness: &Thoroughness) -> Recorded {
    let shape = Shape {
        block: 512,
        main: 12 << 11,
        spare: 2 << 11,
    };
    let make = |device: &Mapped| {
        let path = device.path();
        succeed(&format!(
            "mke2fs -q -t ext4 -b 4096 -J size=4 -E nodiscard,lazy_itable_init=0 {}",
            path.display()
        ));
    };
    let mut recording = Recording::new(shape, Some(&make));
    recording.activate();
    let bad: Areas = (BAD_EVERY / 2..shape.main - 8)
        .step_by(BAD_EVERY as usize)
        .map(|first| (first / 8 * 8, 8))
        .collect();
    recording.unwritable(Disk::Main, &bad);
    let blocks: Vec<u64> = bad
        .iter()
        .flat_map(|(first, n)| *first..first + n)
        .collect();
    // What is not on the spare now may be a moment later: files that are not fsynced are written whenever the
    // kernel likes, and the journal, too.
    let moved = || {
        let mut known = recording.remapped(blocks.iter().copied());
        known.retain(|_, is_remapped| *is_remapped);
        known
    };
    let folder = recording.step(Step::Message(blocks.clone()), || {
        let folder = mount(&recording.device().path()).expect("mount");
        (folder, moved())
    });
    let mut dice = Dice::new(thoroughness.seed);
    for number in 1..=thoroughness.steps(24) {
        recording.step(Step::File(number), || {
            let mut file = File::create(folder.join(number.to_string())).expect("create");
            file.write_all(&content(number)).expect("write");
            // The folder's entry is durable with a new file's own journal transaction.
            file.sync_all().expect("fsync");
            ((), moved())
        });
        if dice.roll(3) == 0 {
            // Not fsynced: it may be there or not, in whatever state.
            let name = folder.join(format!("scratch{}", number % 4));
            let _ = fs::remove_file(&name);
            fs::write(&name, vec![number as u8; 30_000]).expect("write");
        }
    }
    eprintln!(
        "remaps_under_ext4: {} remaps",
        recording.device().remapped()
    );
    assert!(recording.device().remapped() > 0, "nothing was remapped");
    let at_last = recording.step(Step::Message(blocks.clone()), || {
        unmount();
        let known = recording.remapped(blocks.iter().copied());
        (known.clone(), known)
    });
    let mut recorded = recording.end();
    // Nothing is moved back here: what is on main at last was never anywhere else.
    let never = at_last.iter().filter(|(_, is_remapped)| !**is_remapped);
    for done in &mut recorded.steps {
        done.remapped.extend(never.clone());
    }
    recorded
}

/// The filesystem mounts, and has every file that was fsynced.
pub(crate) fn check(point: &Point<'_>) -> Result<(), String> {
    let folder = mount(point.device.path())?;
    let mut wrong = Vec::new();
    for number in &point.expect.files {
        match fs::read(folder.join(number.to_string())) {
            Ok(found) if found == content(*number) => (),
            Ok(found) => wrong.push(format!("file {number} has {} other bytes", found.len())),
            Err(error) => wrong.push(format!("file {number}: {error}")),
        }
    }
    unmount();
    if point.number % FSCK_EVERY == 0 {
        let ran = run(&format!("e2fsck -fn {}", point.device.path().display()));
        if ran.status != 0 {
            wrong.push(format!("e2fsck: {}{}", ran.output, ran.errors));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("; ")),
    }
}
