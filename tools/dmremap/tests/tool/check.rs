// SPDX-License-Identifier: GPL-2.0

//! Each kind of damage: how bad `check` finds it, and what `repair` makes of it (P4, P14).

use dm_remap_logic::format::head;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::Uuid;
use dmremap::check::Severity;
use proptest::prelude::*;

use super::image::claim;
use super::image::codes;
use super::image::dmremap;
use super::image::same;
use super::image::slot;
use super::image::Image;
use super::image::Ran;

const ZERO: Block = [0; BLOCK_BYTES];

fn repair(image: &Image) -> Ran {
    let backup = image.beside("backup");
    let _ = std::fs::remove_file(&backup);
    image.run("repair", &["--backup", &backup])
}

fn repair_with(image: &Image, choices: &[&str]) -> Ran {
    let backup = image.beside("backup");
    let _ = std::fs::remove_file(&backup);
    let mut words = vec!["--backup", &backup];
    for choice in choices {
        words.extend(["--choose", choice]);
    }
    image.run("repair", &words)
}

/// Expects a severity, and that repair mends everything: the set says what it said before.
#[track_caller]
fn mended(image: &Image, before: &dmremap::set::Set, severity: Severity, code: &str) {
    let report = image.check();
    assert_eq!(report.severity, severity, "{report:#?}");
    assert!(codes(&report).contains(&code), "{report:#?}");
    let ran = image.run("check", &[]);
    assert_eq!(ran.status, i32::from(severity.exit_status()), "{ran:?}");
    assert!(ran.out.contains(severity.word()), "{ran:?}");
    let damaged = image.bytes();
    let ran = repair(image);
    assert_eq!(ran.status, 0, "{ran:?}");
    let report = image.check();
    assert_eq!(report.severity, Severity::Note, "{report:#?}");
    assert!(same(&image.set(), before));
    // And back.
    let ran = image.run("repair", &["--undo", &image.beside("backup")]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(image.bytes() == damaged);
    image.set_bytes(&damaged);
}

/// Expects that nothing makes up for it, that repair alone writes nothing, and that it does with
/// the choice that it names.
#[track_caller]
fn chosen(image: &Image, choices: &[&str]) {
    let report = image.check();
    assert_eq!(report.severity, Severity::Loss, "{report:#?}");
    let before = image.bytes();
    let ran = repair(image);
    assert_eq!(ran.status, 8, "{ran:?}");
    assert!(image.bytes() == before);
    for choice in choices {
        assert!(ran.err.contains(choice), "{choice}: {ran:?}");
    }
    let ran = repair_with(image, choices);
    assert_eq!(ran.status, 0, "{ran:?}");
    let report = image.check();
    assert_eq!(report.severity, Severity::Note, "{report:#?}");
}

#[test]
fn a_formatted_spare_is_in_order() {
    for (sectors, block) in [(1024, 512), (4096, 4096), (100_000, 512)] {
        let image = Image::formatted_as(sectors, block);
        let ran = image.run("check", &[]);
        assert_eq!(ran.status, 0, "{ran:?}");
        assert!(ran.out.contains("in order"), "{ran:?}");
        assert_eq!(image.run("check", &["--quiet"]).out, "");
        let ran = repair(&image);
        assert_eq!(ran.status, 0);
        assert!(ran.out.contains("nothing to repair"), "{ran:?}");
    }
}

#[test]
fn a_used_spare_is_in_order() {
    let image = Image::used();
    let report = image.check();
    assert_eq!(codes(&report), ["bad-slots"], "{report:#?}");
    assert_eq!(report.exit_status, 0);
}

#[test]
fn every_superblock_copy_in_every_way() {
    let image = Image::used();
    let (good, before) = (image.bytes(), image.set());
    for copy in 0..4 {
        let sector = image.super_sector(copy);
        let block = image.read(sector);
        let other = image.read(image.super_sector(copy ^ 1));
        let mut flipped = block;
        flipped[90] ^= 4;
        for bad in [ZERO, [0x55; BLOCK_BYTES], flipped, other] {
            image.write(sector, &bad);
            mended(&image, &before, Severity::Damage, "superblock-bad");
            image.set_bytes(&good);
        }
    }
}

#[test]
fn a_superblock_copy_that_missed_an_epoch_is_damage() {
    let image = Image::used();
    let old = image.superblock();
    image.commit(2, &[(9, claim(200, SlotState::Valid))]);
    let before = image.set();
    for copy in 0..4 {
        let good = image.bytes();
        image.write_super(&old, copy);
        mended(&image, &before, Severity::Damage, "superblock-stale");
        image.set_bytes(&good);
    }
}

#[test]
fn superblock_copies_that_the_last_round_did_not_reach_are_leftovers() {
    let image = Image::used();
    let old = image.superblock();
    image.set_superblock(|superblock| superblock.statistics.saves += 1);
    let before = image.set();
    for copy in 1..4 {
        let good = image.bytes();
        for missed in copy..4 {
            image.write_super(&old, missed);
        }
        mended(&image, &before, Severity::Leftover, "superblock-behind");
        image.set_bytes(&good);
    }
}

#[test]
fn every_table_block_in_every_way() {
    let image = Image::used();
    let (good, before) = (image.bytes(), image.set());
    for block in [0, 1, 5] {
        for replica in 0..2 {
            let sector = image.table_sector(replica, block);
            let whole = image.read(sector);
            let other = image.read(image.table_sector(replica, block ^ 1));
            let mut foreign = whole;
            foreign[17] ^= 1;
            head::seal(&mut foreign);
            let mut bad = vec![ZERO, [0x55; BLOCK_BYTES], other, foreign];
            // One bit anywhere is no interrupted write.
            for byte in [8, 13, 20, 33, 37, 41, 47, 50, 64, 70, 72, 79, 600, 4095] {
                let mut flipped = whole;
                flipped[byte] ^= 1;
                bad.push(flipped);
            }
            for bad in bad {
                image.write(sector, &bad);
                mended(&image, &before, Severity::Damage, "table-bad");
                image.set_bytes(&good);
            }
        }
    }
}

#[test]
fn repair_writes_the_same_bytes_into_a_damaged_table_block() {
    let image = Image::used();
    let good = image.bytes();
    image.write(image.table_sector(1, 1), &ZERO);
    assert_eq!(repair(&image).status, 0);
    assert!(image.bytes() == good);
}

#[test]
fn a_replica_that_lacks_the_last_commit_is_a_leftover() {
    let image = Image::used();
    image.begin();
    let next = image.next(2, 0, &[(9, claim(200, SlotState::Valid))]);
    for replica in 0..2 {
        let good = image.bytes();
        image.write_table(replica, 0, &next);
        let before = image.set();
        assert_eq!(before.claims.get(&200), Some(&slot(9)));
        mended(&image, &before, Severity::Leftover, "table-behind");
        image.set_bytes(&good);
    }
}

#[test]
fn a_replica_that_lacks_an_older_commit_is_damage() {
    let image = Image::used();
    let old = image.read(image.table_sector(1, 0));
    image.begin();
    image.commit_more(1, &[(9, claim(200, SlotState::Valid))]);
    // Ended in order.
    let crashed = image.bytes();
    image.set_superblock(|superblock| superblock.clean = true);
    image.write_table(1, 0, &old);
    mended(&image, &image.set(), Severity::Damage, "table-stale");
    // Or followed by another activation, which would have mended it.
    image.set_bytes(&crashed);
    image.begin();
    image.commit_more(1, &[(300, claim(201, SlotState::Valid))]);
    image.write_table(1, 0, &old);
    mended(&image, &image.set(), Severity::Damage, "table-stale");
}

/// A mixture of old and new at any of the eight sectors.
#[test]
fn one_torn_table_block_is_a_leftover() {
    let image = Image::used();
    image.begin();
    let old = image.read(image.table_sector(0, 0));
    // Slots in the first, a middle and the last sector of the block.
    let changes = [(9, 200), (100, 201), (251, 202)].map(|(s, m)| (s, claim(m, SlotState::Valid)));
    let new = image.next(2, 0, &changes);
    let good = image.bytes();
    for cut in 1..8 {
        for (first, second) in [(&new, &old), (&old, &new)] {
            let mut torn = *first;
            torn[cut * 512..].copy_from_slice(&second[cut * 512..]);
            if torn == new {
                continue;
            }
            // The first replica of the two, with the old state in the other; then the second.
            for (replica, truth) in [(0, old), (1, new)] {
                image.write_table(replica, 0, &torn);
                image.write_table(replica ^ 1, 0, &truth);
                let before = image.set();
                let expected = image.check();
                assert_eq!(
                    expected.severity,
                    Severity::Leftover,
                    "{cut}: {expected:#?}"
                );
                mended(&image, &before, Severity::Leftover, "table-torn");
                image.set_bytes(&good);
            }
        }
    }
}

#[test]
fn two_torn_table_blocks_are_damage() {
    let image = Image::used();
    image.begin();
    for block in [0, 1] {
        let old = image.read(image.table_sector(0, block));
        let first = block * 252;
        let changes = [(first + 9, 200), (first + 251, 202)];
        let new = image.next(
            2,
            block,
            &changes.map(|(s, m)| (s, claim(m, SlotState::Valid))),
        );
        let mut torn = new;
        torn[2048..].copy_from_slice(&old[2048..]);
        image.write_table(0, block, &torn);
    }
    assert_eq!(image.check().severity, Severity::Damage);
}

#[test]
fn blocks_behind_the_mark_are_leftovers() {
    let image = Image::formatted_as(100_000, 512);
    let superblock = image.member();
    let mark = superblock.high_water;
    assert!(mark < superblock.geometry.table_blocks());
    image.begin();
    let mut block = image.next(1, mark - 1, &[]);
    block[32..36].copy_from_slice(&mark.to_le_bytes());
    head::seal(&mut block);
    image.write_table(0, mark, &block);
    let report = image.check();
    assert_eq!(report.severity, Severity::Leftover, "{report:#?}");
    assert_eq!(codes(&report), ["not-clean", "high-water", "table-new"]);
    assert_eq!(repair(&image).status, 0);
    assert_eq!(image.member().high_water, mark + 1);
    assert_eq!(image.check().severity, Severity::Note);
}

#[test]
fn the_older_of_two_claims_is_a_leftover() {
    let image = Image::used();
    image.begin();
    image.commit_more(2, &[(20, claim(100, SlotState::Valid))]);
    let report = image.check();
    assert_eq!(report.severity, Severity::Leftover, "{report:#?}");
    assert!(codes(&report).contains(&"double-claim"));
    assert_eq!(repair(&image).status, 0);
    let set = image.set();
    assert_eq!(set.claims.get(&100), Some(&slot(20)));
    assert_eq!(set.entries[0][0].word, SlotWord::FREE);
    assert_eq!(image.check().severity, Severity::Note);
}

#[test]
fn a_block_without_any_good_copy_is_a_loss() {
    let image = Image::used();
    let good = image.bytes();
    image.write_table(0, 1, &ZERO);
    image.write_table(1, 1, &[0x55; BLOCK_BYTES]);
    chosen(&image, &["table:0.1=empty"]);
    assert_eq!(image.set().claims.len(), 3);
    // A flipped bit can be overlooked.
    image.set_bytes(&good);
    let mut flipped = image.read(image.table_sector(1, 1));
    flipped[4000] ^= 1;
    image.write_table(0, 1, &ZERO);
    image.write_table(1, 1, &flipped);
    chosen(&image, &["table:0.1=replica1"]);
    assert_eq!(image.set().claims.get(&77), Some(&slot(300)));
    // Not where there is nothing.
    image.write_table(0, 1, &ZERO);
    image.write_table(1, 1, &ZERO);
    let ran = repair_with(&image, &["table:0.1=replica0"]);
    assert_eq!(ran.status, 8);
    assert!(
        ran.err.contains("can't be used: not dm-remap metadata"),
        "{ran:?}"
    );
}

#[test]
fn replicas_that_contradict_each_other_are_a_loss() {
    let image = Image::used();
    image.begin();
    let one = image.next(2, 0, &[(9, claim(200, SlotState::Valid))]);
    let other = image.next(2, 0, &[(9, claim(201, SlotState::Valid))]);
    image.write_table(0, 0, &one);
    image.write_table(1, 0, &other);
    chosen(&image, &["table:0.0=replica1"]);
    assert_eq!(image.set().claims.get(&201), Some(&slot(9)));
}

#[test]
fn claims_that_cannot_be_settled_are_a_loss() {
    let image = Image::used();
    image.commit(
        2,
        &[
            (20, claim(200, SlotState::Valid)),
            (21, claim(200, SlotState::Valid)),
        ],
    );
    chosen(&image, &["slot:0.20=free"]);
    assert_eq!(image.set().claims.get(&200), Some(&slot(21)));
    let image = Image::used();
    image.commit(2, &[(20, claim(MAIN_BLOCKS, SlotState::Valid))]);
    chosen(&image, &["slot:0.20=free"]);
}

const MAIN_BLOCKS: u64 = super::image::MAIN_SECTORS;

#[test]
fn superblocks_that_are_all_too_old_are_a_loss() {
    let image = Image::used();
    let old = image.superblock();
    image.commit(2, &[(9, claim(200, SlotState::Valid))]);
    for copy in 0..4 {
        image.write_super(&old, copy);
    }
    chosen(&image, &["super:0.0"]);
    assert_eq!(image.set().claims.get(&200), Some(&slot(9)));
}

#[test]
fn superblocks_that_contradict_each_other_are_a_loss() {
    let image = Image::used();
    let mut other = image.superblock();
    other.main_sectors += 8;
    image.write_super(&other, 3);
    chosen(&image, &["super:0.3"]);
    assert_eq!(image.superblock().main_sectors, other.main_sectors);
    other.set_uuid = Uuid([7; 16]);
    image.write_super(&other, 2);
    chosen(&image, &["super:0.1"]);
}

#[test]
fn without_any_superblock_only_a_dump_helps() {
    let image = Image::used();
    for (copy, sector) in [0, 1, 2, 3].map(|copy| (copy, image.super_sector(copy))) {
        let mut block = image.read(sector);
        block[100 + copy as usize] ^= 1;
        image.write(sector, &block);
    }
    let report = image.check();
    assert_eq!(report.severity, Severity::Loss, "{report:#?}");
    let ran = repair(&image);
    assert_eq!(ran.status, 8);
    assert!(ran.err.contains("dmremap restore"), "{ran:?}");
}

#[test]
fn void_copies_and_moved_blocks_are_told() {
    let image = Image::used();
    let home = image.table_sector(0, 1);
    let block = image.read(home);
    image.set_superblock(|superblock| {
        superblock.member_mut(0).unwrap().reserve[0].set(
            4,
            Reserve::Holds {
                block: 1,
                home_bad: true,
            },
        );
        superblock.member_mut(0).unwrap().reserve[0].set(3, Reserve::Bad);
    });
    image.write(image.table_sector(0, 1), &block);
    assert_ne!(image.table_sector(0, 1), home);
    image.write(home, &ZERO);
    let report = image.check();
    assert_eq!(codes(&report), ["reserve", "bad-slots"]);
    assert_eq!(report.exit_status, 0);

    image.set_superblock(|superblock| superblock.member_mut(0).unwrap().void_supers = 0b0100);
    image.write(image.super_sector(2), &ZERO);
    let report = image.check();
    assert!(codes(&report).contains(&"superblock-void"), "{report:#?}");
    assert_eq!(report.exit_status, 1);
    assert_eq!(repair(&image).status, 0);
    assert_eq!(image.member().void_supers, 0);
}

#[test]
fn what_is_no_spare_is_told_apart() {
    let blank = Image::blank(4096);
    let ran = blank.run("check", &[]);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(ran.err.contains("blank"), "{ran:?}");
    blank.write(0, &[0x55; BLOCK_BYTES]);
    let ran = blank.run("check", &[]);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(ran.err.contains("not dm-remap metadata"), "{ran:?}");

    let image = Image::used();
    let good = image.bytes();
    let mut block = image.read(0);
    block[12] = 2;
    head::seal(&mut block);
    image.write(0, &block);
    for command in ["check", "dump"] {
        let ran = image.run(command, &[]);
        assert_eq!(ran.status, 32, "{ran:?}");
        assert!(ran.err.contains("format 2 is newer"), "{ran:?}");
    }
    assert_eq!(repair(&image).status, 32);
    image.set_bytes(&good);
    let mut block = image.read(0);
    block[32] = 8;
    head::seal(&mut block);
    image.write(0, &block);
    let ran = image.run("check", &[]);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(ran.err.contains("features 0x8"), "{ran:?}");
}

#[test]
fn wrong_usage_names_what_is_wrong() {
    let image = Image::used();
    let spare = image.text();
    let backup = image.beside("backup");
    let cases: &[(&[&str], &str)] = &[
        (&["check"], "SPARE"),
        (&["check", "/nonexistent"], "No such file"),
        (
            &["check", "/dev/null"],
            "neither a block device nor an image",
        ),
        (
            &["check", spare, "--spare-start", "5000"],
            "which has 4096 sectors",
        ),
        (
            &["check", spare, "--spare-start", "3500"],
            "1024 are needed",
        ),
        (&["repair", spare], "--backup"),
        (&["repair", spare, "--backup", spare], "never overwritten"),
        (
            &[
                "repair",
                spare,
                "--backup",
                &backup,
                "--choose",
                "super:0.4",
            ],
            "super:SPARE.COPY",
        ),
        (&["repair", spare, "--undo", spare], "record 0"),
        (&["frobnicate"], "frobnicate"),
    ];
    for (words, text) in cases {
        let ran = dmremap(words);
        assert_eq!(ran.status, 16, "{words:?}: {ran:?}");
        assert!(ran.err.contains(text), "{words:?}: {ran:?}");
    }
}

#[test]
fn json_says_the_same() {
    let image = Image::used();
    image.write(image.table_sector(1, 1), &ZERO);
    let ran = image.run("check", &["--json"]);
    assert_eq!(ran.status, 4);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["exit_status"], 4);
    assert_eq!(json["severity"], "damage");
    let found = &json["findings"][0];
    assert_eq!(found["code"], "table-bad");
    assert_eq!(found["sector"], image.table_sector(1, 1));
}

#[test]
fn undo_leaves_alone_what_was_written_since() {
    let image = Image::used();
    let sector = image.table_sector(1, 1);
    image.write(sector, &ZERO);
    assert_eq!(repair(&image).status, 0);
    let backup = image.beside("backup");
    image.write(sector, &[3; BLOCK_BYTES]);
    let ran = image.run("repair", &["--undo", &backup]);
    assert_eq!(ran.status, 8, "{ran:?}");
    assert!(ran.err.contains("written since"), "{ran:?}");
    assert_eq!(image.read(sector), [3; BLOCK_BYTES]);
    let ran = image.run("repair", &["--undo", &backup, "--force"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(image.read(sector), ZERO);
}

#[test]
fn a_dry_run_writes_nothing() {
    let image = Image::used();
    image.write(image.table_sector(1, 1), &ZERO);
    let before = image.bytes();
    let ran = image.run("repair", &["--dry-run"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(
        ran.out
            .contains("write table block 1 of spare 0, replica 1"),
        "{ran:?}"
    );
    assert!(ran.out.contains("nothing was written"), "{ran:?}");
    assert!(image.bytes() == before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// P4: any one block of the metadata, with anything in it, is mended.
    #[test]
    fn any_one_block_with_anything_in_it(
        pick in any::<prop::sample::Index>(),
        fill in prop_oneof![Just(None), any::<u8>().prop_map(Some)],
        flip in 0..BLOCK_BYTES * 8,
    ) {
        let image = Image::used();
        let before = image.set();
        let superblock = image.member();
        let mut places: Vec<u64> = (0..4).map(|copy| image.super_sector(copy)).collect();
        for block in 0..superblock.high_water {
            places.extend((0..2).map(|replica| image.table_sector(replica, block)));
        }
        let sector = places[pick.index(places.len())];
        let mut block = match fill {
            Some(byte) => [byte; BLOCK_BYTES],
            None => image.read(sector),
        };
        block[flip / 8] ^= 1 << (flip % 8);
        image.write(sector, &block);
        prop_assert_eq!(image.check().severity, Severity::Damage);
        let ran = repair(&image);
        prop_assert_eq!(ran.status, 0, "{:?}", ran);
        prop_assert_eq!(image.check().severity, Severity::Note);
        prop_assert!(same(&image.set(), &before));
    }
}
