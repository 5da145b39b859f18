// SPDX-License-Identifier: GPL-2.0
//! The side that runs in a virtual machine.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use sickdisk::Direction;
use sickdisk::Fault;
use sickdisk::Options;
use sickdisk::SickDisk;
use vmtest::guest::drop_caches;
use vmtest::guest::load;
use vmtest::guest::run as command;
use vmtest::guest::Kmsg;
use vmtest::guest::Mapped;

use crate::files::place;
use crate::files::Damage;
use crate::files::Files;
use crate::outside::CUT_NOW;
use crate::outside::REACHED;
use crate::sickness;
use crate::sickness::Spot;
use crate::sickness::SPOTS;

const MAIN_BYTES: u64 = 512 << 20;
const SPARE_BYTES: u64 = 64 << 20;

type Told = Result<(), String>;

/// Does a part of the demo.
pub(crate) fn run(part: &str, arguments: &[&str]) -> Told {
    let [list] = arguments else {
        return Err("a list of files is missing".into());
    };
    let files = Files::load(Path::new(list))?;
    match part {
        "without" => without(&files),
        "with" => with(&files),
        "until-cut" => until_cut(&files),
        "after-cut" => after_cut(&files),
        _ => Err(format!("no such part: {part}")),
    }
}

/// Part a: what a failing disk does to a filesystem.
fn without(files: &Files) -> Told {
    let disk = start(Options::memory(MAIN_BYTES).logical_block(4096))?;
    let mounted = Mounted::make(&disk.path())?;
    let mut log = Kmsg::from_now();
    let copied = copy(files, &disk, &mounted.folder, |_, _| Ok(()));
    tell_copy(files, &copied);
    let _ = sync(&mounted.folder);
    let _ = mounted.unmount();
    drop_caches();
    println!(
        "  The disk failed {} requests. The kernel's log says, among others:",
        disk.disk().record().errors
    );
    let log = log.text();
    for text in ["critical medium error", "EXT4-fs", "lost async page write"] {
        if let Some(line) = log.lines().find(|line| line.contains(text)) {
            println!("    {line}");
        }
    }
    let fsck = command(&format!("e2fsck -fn {}", disk.path().display()));
    println!("  e2fsck finds the filesystem {}.", verdict(fsck.status));
    let harm = match Mounted::again(&disk.path()) {
        Err(_) => {
            println!("  It cannot be mounted any more.");
            true
        }
        Ok(mounted) => {
            sickness::weaken(&mut disk.disk());
            let damaged = files.damaged(files.paths(), &mounted.folder);
            let _ = mounted.unmount();
            tell_damage(files.count(), &damaged);
            !damaged.is_empty()
        }
    };
    match harm {
        true => Ok(()),
        false => Err("the failing disk did no harm, so this shows nothing".into()),
    }
}

/// Part b: the same with a spare.
fn with(files: &Files) -> Told {
    load();
    let disk = start(Options::memory(MAIN_BYTES).logical_block(4096))?;
    let spare = start(Options::memory(SPARE_BYTES).logical_block(4096))?;
    let mapped = activate(&disk, &spare, "")?;
    println!("  before: {}", short_status(&mapped));
    let mounted = Mounted::make(&mapped.path())?;
    let copied = copy(files, &disk, &mounted.folder, |_, _| Ok(()));
    tell_copy(files, &copied);
    sync(&mounted.folder)?;
    mounted.unmount()?;
    drop_caches();
    println!("  after:  {}", short_status(&mapped));
    if copied.failed > 0 {
        return Err("files could not be copied".into());
    }
    sickness::weaken(&mut disk.disk());
    whole(files, &mapped, files.paths())?;
    if mapped.remapped() == 0 {
        return Err("nothing was remapped, so this shows nothing".into());
    }
    Ok(())
}

/// Part c, up to the power cut.
fn until_cut(files: &Files) -> Told {
    load();
    let disk = start(Options::file("/dev/vda").logical_block(4096))?;
    let spare = start(Options::file("/dev/vdb").logical_block(4096))?;
    let mapped = activate(&disk, &spare, "")?;
    let set = set_of(&mapped)?;
    let mounted = Mounted::make(&mapped.path())?;
    let mut safe = 0;
    let half = files.mib() * 3 / 5;
    let copied = copy(files, &disk, &mounted.folder, |progress, folder| {
        // What is synced is promised to be there; what comes later is not.
        if progress.mib / 16 != safe / 16 {
            safe = progress.mib;
            sync(folder)?;
            if progress.mib >= half {
                let remapped = mapped.remapped();
                println!(
                    "  {REACHED} {} files are synced, {} spots are bad, {remapped} blocks remapped, set {set}",
                    progress.files, progress.spots
                );
            }
        }
        if progress.mib >= half + 20 && safe >= half {
            println!("  after {} of {} MiB, {CUT_NOW}", progress.mib, files.mib());
        }
        Ok(())
    });
    Err(format!(
        "nobody cut the power, and {} files failed",
        copied.failed
    ))
}

/// Part c, after the power cut, and part d.
fn after_cut(files: &Files) -> Told {
    let reached = std::env::var("DEMO_REACHED").unwrap_or_default();
    let numbers: Vec<u64> = reached
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let mut words = reached.split_whitespace();
    let set = words.find(|word| *word == "set").and(words.next());
    let (&[synced, spots, remaps], Some(set)) = (numbers.as_slice(), set) else {
        return Err("how far the copy came is missing".into());
    };
    load();
    let disk = start(Options::file("/dev/vda").logical_block(4096))?;
    let spare = start(Options::file("/dev/vdb").logical_block(4096))?;
    for spot in spots_of(&disk).iter().take(spots as usize) {
        spot.spoil_again(&mut disk.disk());
    }
    // No other spare, and no blank one, is taken for it.
    let mapped = activate(&disk, &spare, &format!(" 2 uuid {set}"))?;
    println!("  again:  {}", short_status(&mapped));
    if mapped.remapped() < remaps {
        return Err(format!(
            "{remaps} blocks were remapped before the power cut"
        ));
    }
    // Mounting replays the journal, as it would after any power cut.
    let mounted = Mounted::again(&mapped.path())?;
    mounted.unmount()?;
    whole(files, &mapped, files.paths().take(synced as usize))?;

    println!("\n(d) What is truly lost is an error, not wrong data, and heals when it is written");
    lost(files, &disk, &mapped, synced as usize)
}

/// Part d: a block of a file is lost on the disk itself.
fn lost(files: &Files, disk: &SickDisk, mapped: &Mapped, synced: usize) -> Told {
    let mounted = Mounted::again(&mapped.path())?;
    let folder = mounted.folder.clone();
    // A file whose first block is on the main disk still.
    let (victim, sector) = files
        .paths()
        .take(synced)
        .filter(|path| files.size(path) >= 4 << 20)
        .find_map(|path| {
            let sector = first_sector(&place(path, &folder))?;
            let told = mapped.message(&format!("verify {sector}")).ok()?;
            told.contains("main").then_some((path, sector))
        })
        .ok_or("no file to lose a block of")?;
    let target = place(victim, &folder);
    let whole = fs::read(victim).map_err(|error| format!("{}: {error}", victim.display()))?;
    let bad = Fault::bad(Direction::Both);
    disk.disk().spoil(sector, 8, bad);
    drop_caches();
    let mut first = vec![0; 4096];
    let read = File::open(&target).and_then(|mut file| file.read_exact(&mut first));
    match read {
        Err(error) => println!(
            "  The first 4 KiB of {} are lost: reading them gives \"{error}\".",
            victim.display()
        ),
        Ok(()) => return Err("a lost block was read".into()),
    }
    let damaged = files.damaged(files.paths().take(synced), &folder);
    tell_damage(synced, &damaged);
    if damaged != [(victim.to_path_buf(), Damage::Unreadable)] {
        return Err(format!("not just that file: {damaged:?}"));
    }
    println!("  lost:   {}", short_status(mapped));

    let rewrite = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(&target)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(whole.get(..4096).unwrap_or_default())?;
        file.sync_all()
    };
    rewrite().map_err(|error| format!("writing the lost block again: {error}"))?;
    drop_caches();
    println!("  Those 4 KiB are written again.");
    println!("  healed: {}", short_status(mapped));
    mounted.unmount()?;
    if mapped.pending() != 0 {
        return Err("the lost block is pending still".into());
    }
    self::whole(files, mapped, files.paths().take(synced))
}

/// Where a file begins on its filesystem's device.
fn first_sector(path: &Path) -> Option<u64> {
    let told = command(&format!("filefrag -e -b512 {}", path.display()));
    // "   0:        0..    8191:     270336..    278527:   8192:  ..."
    let line = told
        .output
        .lines()
        .find(|line| line.trim_start().starts_with("0:"))?;
    line.split(':')
        .nth(2)?
        .split("..")
        .next()?
        .trim()
        .parse()
        .ok()
}

/// Says that everything is whole, or that it is not.
fn whole<'a>(files: &Files, mapped: &Mapped, which: impl Iterator<Item = &'a Path>) -> Told {
    let fsck = command(&format!("e2fsck -fn {}", mapped.path().display()));
    println!("  e2fsck finds the filesystem {}.", verdict(fsck.status));
    let which: Vec<&Path> = which.collect();
    let mounted = Mounted::again(&mapped.path())?;
    let damaged = files.damaged(which.iter().copied(), &mounted.folder);
    mounted.unmount()?;
    tell_damage(which.len(), &damaged);
    match (fsck.status, damaged.first()) {
        (0, None) => Ok(()),
        (0, Some((path, damage))) => Err(format!("{} is {damage:?}", path.display())),
        _ => Err(format!("{}{}", fsck.output, fsck.errors)),
    }
}

/// The status line as far as people need it.
fn short_status(mapped: &Mapped) -> String {
    let status = mapped.status();
    let end = status.find(" auto_remap=").unwrap_or(status.len());
    status.get(..end).unwrap_or(&status).to_string()
}

fn verdict(fsck: i32) -> &'static str {
    match fsck {
        0 => "clean",
        _ => "damaged",
    }
}

fn tell_copy(files: &Files, copied: &Copied) {
    println!(
        "  {} of {} files were copied, {} of {} bad spots of the disk were there at the end.",
        files.count() - copied.failed,
        files.count(),
        copied.spots,
        SPOTS
    );
    if let Some(error) = &copied.first_error {
        println!("  The first error: {error}.");
    }
}

fn tell_damage(of: usize, damaged: &[(PathBuf, Damage)]) {
    let wrong = damaged
        .iter()
        .filter(|(_, damage)| *damage == Damage::Wrong)
        .count();
    match damaged.len() {
        0 => println!("  The checksums of all {of} files match."),
        all => println!(
            "  Of {of} files, {} are whole, {} cannot be read, {wrong} hold wrong data.",
            of - all,
            all - wrong
        ),
    }
}

fn start(options: Options) -> Result<SickDisk, String> {
    SickDisk::start(options).map_err(|error| format!("a sick disk: {error}"))
}

/// The name of the set that a device uses.
fn set_of(mapped: &Mapped) -> Result<String, String> {
    let told = mapped.message("metadata_status");
    let told = told.map_err(|refusal| format!("{refusal:?}"))?;
    let set = told.lines().find_map(|line| line.strip_prefix("set_uuid="));
    set.map(String::from).ok_or("the set has no name".into())
}

fn activate(disk: &SickDisk, spare: &SickDisk, more: &str) -> Result<Mapped, String> {
    let sectors = disk.disk().sectors();
    let table = format!(
        "0 {sectors} dm-remap {} {}{more}",
        disk.path().display(),
        spare.path().display()
    );
    println!("  table:  {table}");
    Mapped::try_new(&table).map_err(|refusal| format!("{refusal:?}"))
}

fn spots_of(disk: &SickDisk) -> Vec<Spot> {
    sickness::spots(disk.disk().sectors())
}

/// How far a copy has come.
struct Progress {
    files: usize,
    mib: u64,
    spots: usize,
}

/// How a copy ended.
struct Copied {
    failed: usize,
    spots: usize,
    first_error: Option<String>,
}

/// Copies everything; the disk gets worse with every MiB. `each` is called behind each file.
fn copy(
    files: &Files,
    disk: &SickDisk,
    folder: &Path,
    mut each: impl FnMut(&Progress, &Path) -> Told,
) -> Copied {
    let spots = spots_of(disk);
    let mut copied = Copied {
        failed: 0,
        spots: 0,
        first_error: None,
    };
    let mut bytes = 0;
    for (number, path) in files.paths().enumerate() {
        let result = files
            .copy(path, folder)
            .map_err(|error| format!("{}: {error}", path.display()));
        bytes += files.size(path);
        let due = (bytes >> 20) as usize * SPOTS / files.mib().max(1) as usize;
        for spot in spots.iter().take(due).skip(copied.spots) {
            spot.spoil(&mut disk.disk());
        }
        copied.spots = due.clamp(copied.spots, SPOTS);
        let progress = Progress {
            files: number + 1,
            mib: bytes >> 20,
            spots: copied.spots,
        };
        let result = result.and_then(|()| each(&progress, folder));
        if let Err(error) = result {
            copied.failed += 1;
            copied.first_error.get_or_insert(error);
        }
    }
    copied
}

/// Brings everything of the filesystem to its device.
fn sync(folder: &Path) -> Told {
    let ran = command(&format!("sync -f {}", folder.display()));
    match ran.status {
        0 => Ok(()),
        _ => Err(ran.errors),
    }
}

/// A mounted filesystem.
struct Mounted {
    folder: PathBuf,
}

impl Mounted {
    /// Makes an ext4 filesystem on a device, and mounts it.
    fn make(device: &Path) -> Result<Self, String> {
        let made = command(&format!("mkfs.ext4 -q -F {}", device.display()));
        match made.status {
            0 => Self::again(device),
            _ => Err(made.errors),
        }
    }

    /// Mounts a filesystem that is there.
    fn again(device: &Path) -> Result<Self, String> {
        let folder = PathBuf::from("/mnt/demo");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let ran = command(&format!("mount {} {}", device.display(), folder.display()));
        match ran.status {
            0 => Ok(Self { folder }),
            _ => Err(ran.errors),
        }
    }

    fn unmount(self) -> Told {
        let ran = command(&format!("umount {}", self.folder.display()));
        match ran.status {
            0 => Ok(()),
            _ => Err(ran.errors),
        }
    }
}
