// SPDX-License-Identifier: GPL-2.0

//! A spare whose superblock copies are all gone is told from a stranger's disk, and what helps is named.

use std::fs;

use dm_remap_logic::format::BLOCK_BYTES;
use dmremap::check::Severity;

use super::image::codes;
use super::image::same;
use super::image::Image;

/// What overwrites superblocks: a partition table or mkfs, wipefs, a bad cable.
const OVER: [[u8; BLOCK_BYTES]; 2] = [[0x55; BLOCK_BYTES], [0; BLOCK_BYTES]];

fn ruin(image: &Image, content: &[u8; BLOCK_BYTES]) {
    for sector in [0, 1, 2, 3].map(|copy| image.super_sector(copy)) {
        image.write(sector, content);
    }
}

#[test]
fn four_ruined_superblocks_are_no_stranger() {
    for (sectors, block) in [(4096, 512), (4096, 1024), (9000, 2048), (100_000, 4096)] {
        let image = Image::formatted_as(sectors, block);
        let (uuid, first) = (image.member().uuid.to_string(), image.table_sector(0, 0));
        let (good, before) = (image.bytes(), image.set());
        let dump = image.beside("dump.json");
        assert_eq!(image.run("dump", &["--json", "-o", &dump]).status, 0);
        for over in &OVER {
            ruin(&image, over);
            let ruined = image.bytes();
            let report = image.check();
            assert_eq!(report.severity, Severity::Loss);
            assert!(codes(&report).contains(&"refused"));
            let backup = image.beside("backup");
            let main = ["--main", "/dev/m", "--main-sectors", "8"];
            for (command, words) in [
                ("check", &[][..]),
                ("dump", &[]),
                ("dump", &["--json", "-o", &dump]),
                ("repair", &["--backup", &backup]),
                ("linear-table", &main),
            ] {
                let ran = image.run(command, words);
                assert_eq!(ran.status, 8, "{ran:?}");
                let told = ran.out + &ran.err;
                for text in [uuid.as_str(), "dmremap restore", &format!("sector {first}")] {
                    assert!(told.contains(text), "{command}: {text}: {told}");
                }
                assert!(!told.contains("leave it out"), "{told}");
            }
            // One replica is enough to tell.
            for replica in 0..2 {
                for block in 0..before.superblock.member(0).unwrap().high_water {
                    let place = before
                        .superblock
                        .table_place(replica, super::image::block_id(block));
                    image.write(place.unwrap().sector, over);
                }
                let wanted = if replica == 0 { 8 } else { 32 };
                assert_eq!(image.run("check", &[]).status, wanted, "{sectors} {block}");
                if replica == 0 {
                    continue;
                }
                image.set_bytes(&ruined);
            }
            // Formatting it takes the word for it.
            let size = block.to_string();
            let main = ["--main-sectors", "1048576", "--main-block", &size];
            let ran = image.run("format", &[&main[..], &["--force"]].concat());
            assert_eq!(ran.status, 32, "{ran:?}");
            assert!(ran.err.contains(&format!("--force-uuid {uuid}")), "{ran:?}");
            assert!(image.bytes() == ruined);
            // The way out needs no force.
            let ran = image.run("restore", &[&dump, "--backup", &backup]);
            assert_eq!(ran.status, 0, "{ran:?}");
            assert!(same(&image.set(), &before));
            fs::remove_file(&backup).unwrap();
            let over = ["--force", "--force-uuid", &uuid];
            image.set_bytes(&ruined);
            let ran = image.run("format", &[&main[..], &over].concat());
            assert_eq!(ran.status, 0, "{ran:?}");
            image.set_bytes(&good);
        }
    }
}

/// In a part of a device.
#[test]
fn the_part_counts() {
    let image = Image::blank(10_000);
    let part = ["--spare-start", "2001", "--spare-len", "4200"];
    let main = ["--main-sectors", "1000", "--main-block", "512"];
    let ran = image.run("format", &[part.as_slice(), &main].concat());
    assert_eq!(ran.status, 0, "{ran:?}");
    for block in [0, 32, 523, 491] {
        image.write(2008 + block * 8, &OVER[0]);
    }
    let ran = image.run("check", &part);
    assert_eq!(ran.status, 8, "{ran:?}");
    assert!(ran.out.contains("sector 2272;"), "{ran:?}");
}

#[test]
fn another_spares_remains_are_not_overwritten() {
    let (image, other) = (Image::used(), Image::used());
    let dump = image.beside("dump.json");
    assert_eq!(other.run("dump", &["--json", "-o", &dump]).status, 0);
    let backup = image.beside("backup");
    for over in &OVER {
        let good = image.bytes();
        ruin(&image, over);
        let ruined = image.bytes();
        let ran = image.run("restore", &[&dump, "--backup", &backup]);
        assert_eq!(ran.status, 32, "{ran:?}");
        assert!(ran.err.contains("--force"), "{ran:?}");
        assert!(image.bytes() == ruined);
        image.set_bytes(&good);
    }
}
