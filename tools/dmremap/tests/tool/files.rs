// SPDX-License-Identifier: GPL-2.0

//! Files that commands write: whole or not at all, and never over what is there unless told.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use dm_remap_logic::slot::SlotState;

use super::image::claim;
use super::image::dmremap;
use super::image::same;
use super::image::Image;
use super::image::Ran;

const GARBAGE: [u8; 4096] = [0x55; 4096];

fn listing(image: &Image) -> Vec<String> {
    let names = fs::read_dir(image.folder.path()).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn dump(image: &Image, file: &str) -> Ran {
    image.run("dump", &["--json", "--output", file])
}

/// Runs the program where no file may grow beyond `kib`: what a full filesystem does, short of the number.
fn dmremap_in(kib: u32, words: &[&str]) -> Ran {
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\"");
    let output = Command::new("bash")
        .args(["-c", &script, "bash", env!("CARGO_BIN_EXE_dmremap")])
        .args(words)
        .output()
        .unwrap();
    Ran {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_dump_goes_to_a_file_and_is_the_same() {
    let image = Image::used();
    let file = image.beside("dump.json");
    let ran = dump(&image, &file);
    assert_eq!((ran.status, ran.out.as_str()), (0, ""), "{ran:?}");
    let printed = image.run("dump", &["--json"]).out;
    assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    assert_eq!(listing(&image), ["dump.json", "spare.img"]);
    // The text, too.
    let text = image.beside("dump.txt");
    assert_eq!(image.run("dump", &["--output", &text]).status, 0);
    assert_eq!(
        fs::read_to_string(&text).unwrap(),
        image.run("dump", &[]).out
    );
    // Next month, with more in it. A link stays one.
    let link = image.beside("link");
    symlink(&file, &link).unwrap();
    image.commit(2, &[(9, claim(200, SlotState::Valid))]);
    assert_eq!(dump(&image, &link).status, 0);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let printed = image.run("dump", &["--json"]).out;
    assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    assert_eq!(image.run("dump", &["--output", &text]).status, 0);
}

#[test]
fn the_last_good_dump_survives_one_that_fails() {
    let image = Image::used();
    let file = image.beside("dump.json");
    assert_eq!(dump(&image, &file).status, 0);
    let (good, spare) = (fs::read(&file).unwrap(), image.bytes());
    let names = listing(&image);
    let kept = |ran: &Ran, status: i32, text: &str| {
        assert_eq!(ran.status, status, "{ran:?}");
        assert!(ran.err.contains(text), "{ran:?}");
        assert!(fs::read(&file).unwrap() == good);
        assert_eq!(listing(&image), names);
    };
    // No spare any more.
    image.set_bytes(&vec![0x55; spare.len()]);
    kept(&dump(&image, &file), 32, "not dm-remap metadata");
    image.set_bytes(&vec![0; spare.len()]);
    kept(&dump(&image, &file), 32, "blank");
    // Something of the table is gone, and with it entries.
    image.set_bytes(&spare);
    image.write_table(0, 1, &GARBAGE);
    image.write_table(1, 1, &GARBAGE);
    kept(&dump(&image, &file), 8, "is kept");
    // To another name, it is better than nothing.
    let other = image.beside("other.json");
    assert_eq!(dump(&image, &other).status, 8);
    assert!(fs::read_to_string(&other).unwrap().contains("\"entries\""));
    fs::remove_file(&other).unwrap();
    image.set_bytes(&spare);
    // The filesystem is full.
    let words = ["dump", image.text(), "--json", "--output", &file];
    kept(&dmremap_in(1, &words), 16, "cannot write it");
    // A superblock that is older than the dump: the newer ones are gone.
    let old = image.superblock();
    image.commit(2, &[(9, claim(200, SlotState::Valid))]);
    assert_eq!(dump(&image, &file).status, 0);
    let newer = fs::read(&file).unwrap();
    for copy in 0..4 {
        image.write_super(&old, copy);
    }
    for block in 0..2 {
        let image_of = |replica| image.table_sector(replica, block);
        let at = usize::try_from(image_of(0) * 512).unwrap();
        let block: [u8; 4096] = spare[at..at + 4096].try_into().unwrap();
        image.write(image_of(0), &block);
        image.write(image_of(1), &block);
    }
    let ran = dump(&image, &file);
    assert_eq!(ran.status, 8, "{ran:?}");
    assert!(ran.err.contains("newer"), "{ran:?}");
    assert!(fs::read(&file).unwrap() == newer);
    let ran = image.run("dump", &["--json", "--output", &file, "--force"]);
    assert_eq!(ran.status, 0, "{ran:?}");
}

#[test]
fn only_a_dump_of_the_same_set_is_replaced() {
    let (image, other) = (Image::used(), Image::used());
    let file = image.beside("dump.json");
    for (content, text) in [
        (other.run("dump", &["--json"]).out, "of set"),
        (other.run("dump", &[]).out, "of set"),
        ("thesis\n".into(), "no dump of this set"),
        ("{\"a\": 1}".into(), "no dump of this set"),
    ] {
        fs::write(&file, &content).unwrap();
        let ran = dump(&image, &file);
        assert_eq!(ran.status, 16, "{ran:?}");
        assert!(ran.err.contains(text), "{ran:?}");
        assert!(ran.err.contains("--force"), "{ran:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
    let ran = image.run("dump", &["--json", "--output", &file, "--force"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    // What `dump > file` leaves when it fails.
    fs::write(&file, "").unwrap();
    assert_eq!(dump(&image, &file).status, 0);
    // Never what is no file, and never a spare.
    let good = image.bytes();
    for (name, text) in [
        (image.text(), "is the spare itself"),
        ("/dev/null", "not a file"),
        (image.folder.path().to_str().unwrap(), "not a file"),
        ("/nonexistent/dump", "No such file"),
    ] {
        let ran = image.run("dump", &["--json", "--output", name, "--force"]);
        assert_eq!(ran.status, 16, "{ran:?}");
        assert!(ran.err.contains(text), "{text}: {ran:?}");
    }
    assert!(image.bytes() == good);
    let ran = image.run("dump", &["--force"]);
    assert_eq!(ran.status, 16, "{ran:?}");
}

#[test]
fn a_backup_is_whole_or_not_there() {
    let image = Image::used();
    image.write(image.table_sector(1, 1), &GARBAGE);
    let (bad, names) = (image.bytes(), listing(&image));
    let backup = image.beside("backup");
    let words = ["repair", image.text(), "--backup", &backup];
    let ran = dmremap_in(4, &words);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("cannot write the backup"), "{ran:?}");
    assert!(ran.err.contains("nothing was changed"), "{ran:?}");
    assert!(image.bytes() == bad);
    // So the same line works once there is room.
    assert_eq!(listing(&image), names);
    assert_eq!(dmremap(&words).status, 0);
    // A name that leads nowhere yet is taken, too.
    image.write(image.table_sector(1, 1), &GARBAGE);
    let dangling = image.beside("dangling");
    symlink("/nonexistent/backup", &dangling).unwrap();
    let ran = image.run("repair", &["--backup", &dangling]);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("never overwritten"), "{ran:?}");
    let ran = image.run("repair", &["--backup", "/nonexistent/backup"]);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("No such file"), "{ran:?}");
}

#[test]
fn undo_of_what_is_no_backup_is_no_success() {
    let image = Image::used();
    let sector = image.table_sector(1, 1);
    image.write(sector, &GARBAGE);
    let (backup, file) = (image.beside("backup"), image.beside("file"));
    assert_eq!(image.run("repair", &["--backup", &backup]).status, 0);
    let (good, whole) = (image.bytes(), fs::read(&backup).unwrap());
    for (content, text) in [
        (&[][..], "empty"),
        (b"hello", "no backup of dmremap"),
        (&[0; 100], "no backup of dmremap"),
        (&[0; 8192], "no record of a backup"),
        (&GARBAGE, "no backup of dmremap"),
        // Ours, but nothing whole.
        (&whole[..8191], "cut off"),
        (&whole[..8], "cut off"),
        (&whole[..3], "cut off"),
        (
            &[whole.as_slice(), b"hello"].concat(),
            "no backup of dmremap",
        ),
    ] {
        fs::write(&file, content).unwrap();
        for more in [&[][..], &["--force"], &["--dry-run"]] {
            let ran = image.run("repair", &[&["--undo", &file], more].concat());
            assert_eq!(ran.status, 16, "{text}: {ran:?}");
            assert!(ran.err.contains(text), "{text}: {ran:?}");
            assert!(image.bytes() == good);
        }
    }
    // What was done is said.
    let ran = image.run("repair", &["--undo", &backup, "--dry-run"]);
    assert!(ran.out.contains("nothing was written"), "{ran:?}");
    let ran = image.run("repair", &["--undo", &backup]);
    assert!(ran.out.contains("1 block put back"), "{ran:?}");
    let ran = image.run("repair", &["--undo", &backup]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.out.contains("nothing to put back"), "{ran:?}");
}

/// A repair of several blocks whose last record was being written when the machine went down.
#[test]
fn undo_goes_by_whole_records() {
    let image = Image::used();
    let bad = image.bytes();
    image.write(image.table_sector(1, 1), &GARBAGE);
    image.write(image.table_sector(0, 0), &GARBAGE);
    let backup = image.beside("backup");
    assert_eq!(image.run("repair", &["--backup", &backup]).status, 0);
    let mut bytes = fs::read(&backup).unwrap();
    bytes.extend_from_within(..5000);
    fs::write(&backup, bytes).unwrap();
    let ran = image.run("repair", &["--undo", &backup]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.err.contains("cut off"), "{ran:?}");
    assert!(ran.out.contains("2 blocks put back"), "{ran:?}");
    assert_eq!(image.read(image.table_sector(1, 1)), GARBAGE);
    assert!(image.bytes() != bad);
}

#[test]
fn tables_are_never_written_over_others() {
    let image = Image::used();
    let folder = image.beside("tables");
    let main = ["--main", "/dev/m", "--main-sectors", "110"];
    let words = [&main[..], &["--output-dir", &folder]].concat();
    let run = || image.run("linear-table", &words);
    assert_eq!(run().status, 0);
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}"));
    let names = ["rescued.table", "create.sh", "remove.sh"];
    let good = names.map(|name| read(name).unwrap());
    image.commit(2, &[(9, claim(20, SlotState::Valid))]);
    let ran = run();
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("is there already"), "{ran:?}");
    assert_eq!(names.map(|name| read(name).unwrap()), good);
    // Whichever of them it is; and then none is written.
    for name in names {
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(format!("{folder}/{name}"), "mine").unwrap();
        let ran = run();
        assert_eq!(ran.status, 16, "{ran:?}");
        assert!(ran.err.contains(name), "{ran:?}");
        assert_eq!(read(name).unwrap(), "mine");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
    // What else is there does not matter.
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(format!("{folder}/spare.json"), "mine").unwrap();
    assert_eq!(run().status, 0);
    // A full filesystem leaves nothing half done.
    fs::remove_dir_all(&folder).unwrap();
    for index in 0..100 {
        let slot = claim(1000 + 3 * index, SlotState::Valid);
        image.commit(10 + index, &[(20 + index as u32, slot)]);
    }
    let long = [
        &["linear-table", image.text(), "--main", "/dev/m"][..],
        &["--main-sectors", "5000", "--output-dir", &folder],
    ]
    .concat();
    let ran = dmremap_in(1, &long);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("cannot write it"), "{ran:?}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert_eq!(dmremap(&long).status, 0);
}

/// A sparse image on a filesystem that is full: some places take their writes, others don't, and that is no bad
/// medium.
#[test]
fn what_was_begun_can_be_undone() {
    let image = Image::used();
    let places = [0, 2].map(|copy| image.super_sector(copy));
    for sector in places {
        image.write(sector, &GARBAGE);
    }
    let bad = image.bytes();
    let backup = image.beside("backup");
    let ran = dmremap_in(1024, &["repair", image.text(), "--backup", &backup]);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("cannot write"), "{ran:?}");
    assert!(ran.err.contains(&format!("--undo {backup}")), "{ran:?}");
    assert!(image.bytes() != bad);
    let ran = image.run("repair", &["--undo", &backup]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(image.bytes() == bad);
}

/// The end is missing, as after a copy to a disk that is a little smaller.
#[test]
fn a_short_copy_is_told_how_long_it_must_be() {
    let image = Image::used();
    let (good, before) = (image.bytes(), image.set());
    let (dump, backup) = (image.beside("dump"), image.beside("backup"));
    assert_eq!(image.run("dump", &["--json", "-o", &dump]).status, 0);
    let main = ["--main", "/dev/m", "--main-sectors", "8"];
    for len in [good.len() - 1, good.len() - 4096, good.len() - 4096 * 20] {
        image.set_bytes(&good[..len]);
        for (command, words, status) in [
            ("check", &[][..], 8),
            ("dump", &[], 8),
            ("repair", &["--dry-run"], 8),
            ("linear-table", &main, 8),
            ("restore", &[&dump, "--backup", &backup], 16),
        ] {
            let ran = image.run(command, words);
            assert_eq!(ran.status, status, "{ran:?}");
            assert!(ran.err.contains("truncate --size 2097152"), "{ran:?}");
            assert_eq!(image.bytes(), &good[..len]);
        }
        // As it says.
        let file = fs::File::options().write(true).open(&image.path).unwrap();
        file.set_len(2_097_152).unwrap();
        let ran = image.run("repair", &["--backup", &backup]);
        assert_eq!(ran.status, 0, "{ran:?}");
        assert!(same(&image.set(), &before));
        // There is none where nothing was to be mended.
        let _ = fs::remove_file(&backup);
    }
    for (bytes, text) in [
        (&[][..], "empty"),
        (&good[..100], "1024 are needed"),
        (&good[..4096], "1024 are needed"),
    ] {
        image.set_bytes(bytes);
        let ran = image.run("check", &[]);
        assert_eq!(ran.status, 16, "{ran:?}");
        assert!(ran.err.contains(text), "{ran:?}");
    }
}
