// SPDX-License-Identifier: GPL-2.0

//! `format` makes what the module makes, and overwrites nothing of value (M10).

use dm_remap_logic::format::BLOCK_BYTES;

use super::image::Image;
use super::image::Ran;
use super::image::MAIN_SECTORS;

const UUID: &str = "01234567-89ab-4def-8edc-ba9876543210";

fn format(image: &Image, more: &[&str]) -> Ran {
    let main = MAIN_SECTORS.to_string();
    let words = ["--main-sectors", &main, "--main-block", "512"];
    image.run("format", &[words.as_slice(), more].concat())
}

#[test]
fn what_is_asked_for_is_there() {
    let image = Image::blank(100_000);
    let ran = format(&image, &["--uuid", UUID, "--main-id", "ata-1"]);
    assert_eq!((ran.status, ran.out.trim()), (0, UUID), "{ran:?}");
    let superblock = image.superblock();
    assert_eq!(superblock.set_uuid.to_string(), UUID);
    assert_eq!(superblock.main_id.as_str(), "ata-1");
    assert_eq!(superblock.main_sectors, MAIN_SECTORS);
    assert_eq!(superblock.main_block_bytes, 512);
    assert_eq!(image.member().high_water, 64);
    assert!(superblock.clean);
    assert_eq!(u8::from(superblock.is_degraded()), 0);
}

#[test]
fn good_metadata_takes_the_uuid_to_overwrite() {
    let image = Image::used();
    let uuid = image.superblock().set_uuid.to_string();
    let good = image.bytes();
    for (more, status, text) in [
        (&[][..], 32, uuid.as_str()),
        (&["--force"], 32, "--force-uuid"),
        (
            &["--force", "--force-uuid", UUID],
            32,
            "not what --force-uuid names",
        ),
        (&["--force", "--force-uuid", "x"], 16, "no UUID"),
        (&["--force-uuid", &uuid], 16, "--force"),
    ] {
        let ran = format(&image, more);
        assert_eq!(ran.status, status, "{more:?}: {ran:?}");
        assert!(ran.err.contains(text), "{more:?}: {ran:?}");
        assert!(image.bytes() == good);
    }
    // One good copy is enough for that.
    for copy in [0, 1, 3] {
        image.write(image.super_sector(copy), &[0; BLOCK_BYTES]);
    }
    assert_eq!(format(&image, &["--force"]).status, 32);
    let ran = format(&image, &["--force", "--force-uuid", &uuid]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let set = image.set();
    assert_eq!(set.claims.len(), 0);
    assert_eq!(image.check().exit_status, 0);
}

#[test]
fn the_table_line_is_told() {
    let image = Image::blank(4096);
    let ran = format(&image, &["--uuid", UUID, "--main-id", "ata-1"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let spare = image.text();
    let line = format!("\n0 {MAIN_SECTORS} dm-remap MAIN {spare} 4 uuid {UUID} main_id ata-1\n");
    assert!(ran.err.contains(&line), "{ran:?}");
    // Whole blocks of main, and all names.
    let image = Image::blank(8192);
    let main = image.beside("main.img");
    let second = image.beside("second.img");
    for (name, sectors) in [(&main, 100_003), (&second, 8192)] {
        let file = std::fs::File::create(name).unwrap();
        file.set_len(sectors * 512).unwrap();
    }
    let words = [
        &second,
        "--main",
        &main,
        "--main-block",
        "4096",
        "--uuid",
        UUID,
    ];
    let ran = image.run("format", &words);
    assert_eq!(ran.status, 0, "{ran:?}");
    let spare = image.text();
    let line = format!("\n0 100000 dm-remap {main} {spare} 4 spare {second} uuid {UUID}\n");
    assert!(ran.err.contains(&line), "{ran:?}");
    assert!(ran.err.contains("losetup"), "{ran:?}");
    let image = Image::blank(8192);
    let ran = format(
        &image,
        &["--spare-start", "8", "--spare-len", "4096", "--uuid", UUID],
    );
    let line = format!(" 6 spare_start 8 spare_len 4096 uuid {UUID}\n");
    assert!(ran.err.contains(&line), "{ran:?}");
}

/// The two names are mixed up, and a blank disk is at hand.
#[test]
fn a_spare_is_not_taken_for_main() {
    let (image, fresh) = (Image::used(), Image::blank(4096));
    let uuid = image.superblock().set_uuid.to_string();
    let words = ["--main", image.text(), "--main-block", "512"];
    let ran = fresh.run("format", &words);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(
        ran.err.contains(&uuid) && ran.err.contains("mixed up"),
        "{ran:?}"
    );
    assert!(fresh.bytes().iter().all(|byte| *byte == 0));
    let ran = fresh.run("format", &[&words[..], &["--force"]].concat());
    assert_eq!(ran.status, 0, "{ran:?}");
    // A table can be made; it is told.
    let other = Image::used();
    other.set_superblock(|superblock| superblock.main_sectors = 4000);
    other.commit(5, &[(7, dm_remap_logic::slot::SlotWord::BAD)]);
    let ran = other.run("linear-table", &["--main", image.text()]);
    assert!(ran.err.contains(&uuid), "{ran:?}");
}

#[test]
fn what_is_not_blank_takes_force() {
    let image = Image::blank(4096);
    for sector in [0, 500, 2000, 4088] {
        image.write(sector, &[0; BLOCK_BYTES]);
        let mut block = [0; BLOCK_BYTES];
        block[BLOCK_BYTES - 1] = 1;
        image.write(sector, &block);
        let ran = format(&image, &[]);
        assert_eq!(ran.status, 32, "{sector}: {ran:?}");
        let text = format!("not blank, there is something at sector {}:", sector + 7);
        assert!(ran.err.contains(&text), "{ran:?}");
        image.write(sector, &[0; BLOCK_BYTES]);
    }
    image.write(500, &[7; BLOCK_BYTES]);
    assert_eq!(format(&image, &["--force"]).status, 0);
    assert_eq!(image.read(500), [7; BLOCK_BYTES]);
}

#[test]
fn a_later_version_is_not_overwritten() {
    let image = Image::used();
    let mut block = image.read(0);
    block[12] = 2;
    dm_remap_logic::format::head::seal(&mut block);
    for sector in [0, 1, 2, 3].map(|copy| image.super_sector(copy)) {
        image.write(sector, &block);
    }
    let good = image.bytes();
    let ran = format(&image, &["--force"]);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(ran.err.contains("later version"), "{ran:?}");
    assert!(image.bytes() == good);
}

#[test]
fn wrong_arguments_name_what_is_allowed() {
    let image = Image::blank(4096);
    let spare = image.text();
    for (words, text) in [
        (&["--main-sectors", "100"][..], "--main-block"),
        (
            &["--main", spare, "--main-block", "512"],
            "main and spare must be apart",
        ),
        (
            &["--main-sectors", "100", "--main-block", "8192"],
            "512, 1024, 2048 and 4096",
        ),
        (
            &["--main-sectors", "0", "--main-block", "512"],
            "from 1 to 2^48",
        ),
        (
            &[
                "--main-sectors",
                "8",
                "--main-block",
                "512",
                "--main-id",
                "a b",
            ],
            "without blanks",
        ),
        (
            &["--main-sectors", "8", "--main-block", "512", "--uuid", "1"],
            "look like",
        ),
        (&["--main", "/nonexistent"], "No such file"),
        (&[], "--main"),
    ] {
        let ran = image.run("format", words);
        assert_eq!(ran.status, 16, "{words:?}: {ran:?}");
        assert!(ran.err.contains(text), "{words:?}: {ran:?}");
    }
    assert!(image.bytes().iter().all(|byte| *byte == 0));
}
