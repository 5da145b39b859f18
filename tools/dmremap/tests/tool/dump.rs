// SPDX-License-Identifier: GPL-2.0

//! Dumps: all that the metadata says gets into them, and out again (P14).

use std::fs;

use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::RO_COMPAT_AVOIDED;
use dm_remap_logic::format::RO_COMPAT_SWITCHES;
use dm_remap_logic::message::Blocks;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::MainId;
use dmremap::check::Severity;
use dmremap::dump;
use proptest::prelude::*;

use super::image::claim;
use super::image::same;
use super::image::Image;

fn json(image: &Image) -> String {
    let ran = image.run("dump", &["--json"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    ran.out
}

fn restore(image: &Image, dump: &str, more: &[&str]) -> super::image::Ran {
    let (file, backup) = (image.beside("dump.json"), image.beside("backup"));
    fs::write(&file, dump).unwrap();
    let _ = fs::remove_file(&backup);
    let words = [&[file.as_str(), "--backup", &backup], more].concat();
    image.run("restore", &words)
}

#[test]
fn a_restored_spare_says_what_it_said() {
    let image = Image::used();
    image.set_superblock(|superblock| {
        superblock.main_id = MainId::new("ata-1").unwrap();
        superblock.statistics.lost = 3;
        superblock.member_mut(0).unwrap().reserve[1].set(30, Reserve::Bad);
    });
    let (before, good) = (image.set(), image.bytes());
    let dump = json(&image);
    // Everything else on a new medium of zeroes.
    image.set_bytes(&vec![0; good.len()]);
    let ran = restore(&image, &dump, &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let report = image.check();
    assert_eq!(report.severity, Severity::Note, "{report:#?}");
    assert!(same(&image.set(), &before));
    assert_eq!(image.superblock().statistics, before.superblock.statistics);
    // And back.
    let ran = image.run("repair", &["--undo", &image.beside("backup")]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(image.bytes() == vec![0; good.len()]);
}

/// What was written after the dump was made does not come back.
#[test]
fn nothing_newer_than_the_dump_comes_back() {
    let image = Image::formatted_as(100_000, 512);
    image.commit(1, &[(3, claim(30, SlotState::Valid))]);
    let (before, dump) = (image.set(), json(&image));
    let mark = image.member().high_water;
    let member = image.member().uuid;
    image.begin();
    image.commit_more(5, &[(4, claim(40, SlotState::Valid))]);
    // More of the table in use, with a claim in it.
    let epoch = image.superblock().epoch;
    let sequence = dm_remap_logic::format::sequence(epoch, 9).unwrap();
    for block in mark..mark + 10 {
        let mut bytes = [0; 4096];
        let entry = Entry {
            word: claim(u64::from(block), SlotState::Valid),
            generation: sequence,
        };
        table_block::encode(&mut bytes, &member, block, sequence, [entry].into_iter());
        image.write_table(0, block, &bytes);
        image.write_table(1, block, &bytes);
    }
    assert_eq!(image.set().claims.len(), 12);
    let ran = restore(&image, &dump, &[]);
    assert_eq!(ran.status, 8, "{ran:?}");
    assert!(ran.err.contains("newer than the dump"), "{ran:?}");
    let ran = restore(&image, &dump, &["--force"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(same(&image.set(), &before));
    assert_eq!(image.check().severity, Severity::Note);
}

#[test]
fn another_set_is_not_overwritten() {
    let (image, other) = (Image::used(), Image::used());
    let good = image.bytes();
    let ran = restore(&image, &json(&other), &[]);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(image.bytes() == good);
    assert_eq!(restore(&image, &json(&other), &["--force"]).status, 0);
    assert!(same(&image.set(), &other.set()));
    let small = Image::blank(2048);
    let ran = restore(&small, &json(&other), &[]);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("smaller than the 4096"), "{ran:?}");
    let foreign = Image::blank(4096);
    foreign.write(0, &[1; 4096]);
    let ran = restore(&foreign, &json(&other), &[]);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(ran.err.contains("--force"), "{ran:?}");
}

#[test]
fn what_is_no_dump_is_told() {
    let image = Image::used();
    let good = json(&image);
    for (from, to, text) in [
        ("{", "[", "no dump of dmremap"),
        ("\"dmremap_dump\": 1", "\"dmremap_dump\": 2", "version 2"),
        ("\"dmremap_dump\": 1,", "", "there is no dmremap_dump"),
        ("\"format\": 1", "\"format\": 7", "of format 7"),
        ("\"epoch\": 2", "\"epoch\": 16777216", "activation epoch"),
        (
            "\"epoch\": 2",
            "\"epoch\": 2, \"more\": 1",
            "unknown field `more`",
        ),
        ("\"slot\":7,", "\"slot\":8,", "listed twice"),
        (
            "\"slot\":7,",
            "\"slot\":70000,",
            "below the high-water mark",
        ),
        (
            "\"main_block\":5000",
            "\"main_block\":5000000",
            "which main does not have",
        ),
        (
            "\"data_start\": ",
            "\"data_start\": 1",
            "do not fit together",
        ),
        (
            "\"void_replicas\": []",
            "\"void_replicas\": [2]",
            "void_replicas: 2",
        ),
        (
            "\"void_replicas\": []",
            "\"void_replicas\": [0, 1]",
            "void replicas",
        ),
        ("\"main_id\": \"\"", "\"main_id\": \"a b\"", "main_id"),
        ("\"incompat\": 0", "\"incompat\": 8", "features 0x8"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let error = dump::decode(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(text), "{from}: {error}");
        assert_eq!(restore(&image, &bad, &[]).status, 16);
    }
}

#[test]
fn the_text_names_everything() {
    let image = Image::used();
    let ran = image.run("dump", &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let first = image.member().geometry.data_start();
    let line = |main: &str, slot: u64, state: &str| {
        ran.out.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let sector = (first + slot).to_string();
            words.first() == Some(&main)
                && words.get(3) == Some(&sector.as_str())
                && words.contains(&state)
        })
    };
    assert!(line("100", 0, "valid"), "{ran:?}");
    assert!(line("101", 1, "valid"));
    assert!(line("5000", 7, "pending"));
    assert!(line("77", 300, "valid"));
    assert!(line("-", 8, "bad"));
}

fn words() -> impl Strategy<Value = SlotWord> {
    let state = prop_oneof![
        Just(SlotState::Free),
        Just(SlotState::Valid),
        Just(SlotState::Pending),
        Just(SlotState::Bad),
        Just(SlotState::Lost)
    ];
    let origin = prop_oneof![Just(Origin::Auto), Just(Origin::Manual)];
    (0..super::image::MAIN_SECTORS, state, origin, 0..3).prop_map(
        |(main_block, state, origin, kind)| {
            let word = SlotWord::new(main_block, state, origin).unwrap();
            match kind {
                1 => word.with_raw(),
                2 if state == SlotState::Valid => word.with_given_up(),
                _ => word,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn there_and_back(
        changes in prop::collection::btree_map(0..2000u32, words(), 0..60),
        statistics in any::<[u64; 16]>(),
        reserve in prop::collection::vec(0..31u8, 0..4),
        avoided in prop::collection::vec((0..1000u64, 1..9u64), 0..20),
        auto_remap in any::<Option<bool>>(),
    ) {
        let image = Image::formatted();
        let changes: Vec<(u32, SlotWord)> = changes.into_iter().collect();
        image.commit(1, &changes);
        image.set_superblock(|superblock| {
            superblock.statistics = dm_remap_logic::format::Statistics::from_words(statistics);
            superblock.ro_compat = RO_COMPAT_AVOIDED | RO_COMPAT_SWITCHES;
            superblock.switches.auto_remap = auto_remap;
            for (first, count) in avoided {
                superblock.avoided.add(Blocks { first, count }).unwrap();
            }
            for index in reserve {
                superblock.member_mut(0).unwrap().reserve[0].set(index, Reserve::Bad);
            }
        });
        let set = image.set();
        let text = serde_json::to_vec(&dump::encode(&set)).unwrap();
        let decoded = dump::decode(&text).unwrap();
        prop_assert_eq!(&decoded.superblock, &*set.superblock);
        for (id, entry) in set.slots() {
            let found = decoded.entries.get(&id).copied().unwrap_or_default();
            prop_assert_eq!(&found, entry);
        }
    }
}
