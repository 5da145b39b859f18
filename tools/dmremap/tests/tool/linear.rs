// SPDX-License-Identifier: GPL-2.0

//! `linear-table` says of every block what the module's own table says (P14).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;

use dm_remap_logic::format::INCOMPAT_GIVEN_UP;
use dm_remap_logic::format::RO_COMPAT_AVOIDED;
use dm_remap_logic::message::Blocks;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::table::buckets_for;
use dm_remap_logic::table::Counts;
use dm_remap_logic::table::RunKind;
use dm_remap_logic::table::View;
use dmremap::linear;
use dmremap::linear::Device;
use dmremap::linear::Line;
use dmremap::linear::Target;
use proptest::prelude::*;

use super::image::claim;
use super::image::Image;
use super::image::Ran;

const BLOCKS: u64 = 300;
const SLOT_START: u64 = 1000;

/// Where a sector lies, by the last of several tables.
fn resolve(tables: &[Vec<Line>], sector: u64) -> Target {
    let (mut table, mut sector) = (tables.len() - 1, sector);
    loop {
        let mut lines = tables[table].iter();
        let line = lines
            .find(|line| (line.start..line.start + line.len).contains(&sector))
            .expect("every sector has a line");
        let offset = sector - line.start;
        match line.target {
            Target::Linear {
                device: Device::Table(inner),
                sector: start,
            } => (table, sector) = (inner, start + offset),
            Target::Linear {
                device,
                sector: start,
            } => {
                return Target::Linear {
                    device,
                    sector: start + offset,
                }
            }
            Target::Error => return Target::Error,
        }
    }
}

/// Each table begins at 0 and has no holes.
fn check_shape(tables: &[Vec<Line>], max: usize) {
    for table in tables {
        assert!(table.len() <= max && !table.is_empty());
        let mut at = 0;
        for line in table {
            assert_eq!(line.start, at);
            assert!(line.len > 0);
            at += line.len;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_block_is_where_the_module_has_it(
        // Runs of main blocks that go to runs of slots, of either state.
        runs in prop::collection::vec((0..BLOCKS, 1..12u64, any::<bool>()), 0..40),
        unit in prop_oneof![Just(1u64), Just(8)],
        max in 2..40usize,
    ) {
        let mut words: Vec<u64> = Vec::new();
        let mut claims = BTreeMap::new();
        for (first, count, pending) in runs {
            for block in first..(first + count).min(BLOCKS) {
                if claims.contains_key(&block) {
                    continue;
                }
                let state = if pending { SlotState::Pending } else { SlotState::Valid };
                claims.insert(block, words.len() as u32);
                words.push(claim(block, state).to_memory());
            }
        }
        let buckets = buckets_for(words.len() as u32).unwrap();
        let buckets: Vec<AtomicU32> = (0..buckets).map(|_| AtomicU32::new(0)).collect();
        let cells: Vec<AtomicU64> = words.iter().map(|word| AtomicU64::new(*word)).collect();
        let view = View::new(&buckets, &cells);
        let mut counts = Counts::default();
        for (block, slot) in &claims {
            view.insert(&mut counts, *block, *slot).unwrap();
        }

        let slot_sector = |slot: u32| SLOT_START + u64::from(slot) * unit;
        let slots = claims
            .iter()
            .filter(|(_, slot)| {
                SlotWord::from_memory(words[**slot as usize]).state() == SlotState::Valid
            })
            .map(|(block, slot)| {
                let sector = slot_sector(*slot);
                let device = Device::Spare(0);
                (block * unit, Target::Linear { device, sector })
            });
        let lines = linear::lines(BLOCKS * unit, unit, slots, &[]);
        // Neighbours that continue each other are one line.
        let mut at = 0;
        let mut runs = 0;
        let mut before = None;
        while at < BLOCKS {
            let run = view.run(at, (BLOCKS - at) as u32);
            let kind = match run.kind {
                RunKind::Pending { .. } => RunKind::Main,
                kind => kind,
            };
            runs += usize::from(kind != RunKind::Main || before != Some(RunKind::Main));
            before = Some(kind);
            at += u64::from(run.count);
        }
        prop_assert_eq!(lines.len(), runs);

        let tables = linear::stack(lines, max);
        check_shape(&tables, max);
        for block in 0..BLOCKS {
            for offset in 0..unit {
                let sector = block * unit + offset;
                let expected = match view.run(block, 1).kind {
                    RunKind::Main | RunKind::Pending { .. } => Target::Linear {
                        device: Device::Main,
                        sector,
                    },
                    RunKind::Slots { first } | RunKind::Failing { first } => Target::Linear {
                        device: Device::Spare(0),
                        sector: slot_sector(first) + offset,
                    },
                    RunKind::Lost { .. } => Target::Error,
                    RunKind::Doubt | RunKind::Avoided => unreachable!("the table knows none"),
                };
                prop_assert_eq!(resolve(&tables, sector), expected);
            }
        }
    }
}

#[test]
fn errors_are_merged_and_the_end_is_cut() {
    let slots = [(8, Target::Error), (16, Target::Error), (32, Target::Error)];
    let lines = linear::lines(36, 8, slots.into_iter(), &[]);
    let text = linear::text(&lines, |_| "main".into());
    assert_eq!(
        text,
        "0 8 linear main 0\n8 16 error\n24 8 linear main 24\n32 4 error\n"
    );
}

/// The table of a main of 110 sectors.
fn table(image: &Image) -> String {
    let ran = image.run(
        "linear-table",
        &["--main", "/dev/m", "--main-sectors", "110"],
    );
    assert_eq!(ran.status, 0, "{ran:?}");
    ran.out
}

#[test]
fn the_command_prints_what_dmsetup_takes() {
    let image = Image::used();
    let first = image.member().geometry.data_start();
    let (table, spare) = (table(&image), image.text());
    let expected = format!(
        "0 77 linear /dev/m 0\n77 1 linear {spare} {}\n78 22 linear /dev/m 78\n\
         100 2 linear {spare} {first}\n102 8 linear /dev/m 102\n",
        first + 300
    );
    assert_eq!(table, expected);
}

/// M9b: a block that was lost with a spare is an error, and not what main has there; `check` and `dump` tell of it.
#[test]
fn lost_blocks_are_errors() {
    let image = Image::formatted();
    let claims = [
        (0, claim(40, SlotState::Lost)),
        (1, claim(41, SlotState::Lost)),
        (2, claim(42, SlotState::Valid)),
    ];
    image.commit(1, &claims);
    let first = image.member().geometry.data_start() + 2;
    let (table, spare) = (table(&image), image.text());
    let expected = format!(
        "0 40 linear /dev/m 0\n40 2 error\n42 1 linear {spare} {first}\n43 67 linear /dev/m 43\n"
    );
    assert_eq!(table, expected);
    let ran = image.run("check", &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.out.contains("2 blocks were lost"), "{ran:?}");
    let ran = image.run("dump", &[]);
    assert!(ran.out.contains("2 for sectors that were lost"), "{ran:?}");
    let ran = image.run("dump", &["--json"]);
    assert!(ran.out.contains("\"lost\""), "{ran:?}");
}

/// E4, P14: what is avoided is an error wherever no slot serves it, also where one is set aside.
#[test]
fn avoided_blocks_are_errors() {
    let slots = [(16, Target::Error), (48, on_spare(7))];
    let range = |first, count| Blocks { first, count };
    let avoided = [range(0, 1), range(3, 5), range(9, 100)];
    let lines = linear::lines(100, 8, slots.into_iter(), &avoided);
    let text = linear::text(&lines, |device| match device {
        Device::Main => "main".into(),
        _ => "spare".into(),
    });
    assert_eq!(
        text,
        "0 8 error\n8 8 linear main 8\n16 32 error\n48 8 linear spare 7\n56 8 error\n64 8 linear main 64\n\
         72 28 error\n"
    );

    let image = Image::formatted();
    let claims = [
        (
            0,
            SlotWord::new(40, SlotState::Valid, Origin::Manual)
                .unwrap()
                .with_given_up(),
        ),
        (1, claim(41, SlotState::Pending)),
    ];
    image.commit(1, &claims);
    image.set_superblock(|superblock| {
        superblock.incompat |= INCOMPAT_GIVEN_UP;
        superblock.ro_compat |= RO_COMPAT_AVOIDED;
        superblock.avoided.add(range(39, 4)).unwrap();
    });
    let first = image.member().geometry.data_start();
    let (table, spare) = (table(&image), image.text());
    let expected = format!(
        "0 39 linear /dev/m 0\n39 1 error\n40 1 linear {spare} {first}\n41 2 error\n43 67 linear /dev/m 43\n"
    );
    assert_eq!(table, expected);
    let ran = image.run("check", &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    for note in ["1 blocks were given up", "4 blocks of main in 1 ranges"] {
        assert!(ran.out.contains(note), "{ran:?}");
    }
    let ran = image.run("dump", &[]);
    for line in ["zeroed", "4 sectors from 39 on"] {
        assert!(ran.out.contains(line), "{ran:?}");
    }
}

fn on_spare(sector: u64) -> Target {
    let device = Device::Spare(0);
    Target::Linear { device, sector }
}

#[test]
fn a_window_within_a_device_counts() {
    let image = Image::blank(10_000);
    let part = ["--spare-start", "2001", "--spare-len", "4200"];
    let main = ["--main-sectors", "1000", "--main-block", "512"];
    let ran = image.run("format", &[part.as_slice(), &main].concat());
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(image.run("check", &[]).status, 32);
    assert_eq!(image.run("check", &part).status, 0);
    // By a dump, which can be changed.
    let (dump, backup) = (image.beside("dump"), image.beside("backup"));
    let json = image
        .run("dump", &[part.as_slice(), &["--json"]].concat())
        .out;
    let entry = r#""entries": [{"slot":2,"state":"valid","main_block":10,"generation":1}"#;
    fs::write(&dump, json.replace("\"entries\": [", entry)).unwrap();
    let words = [&[dump.as_str()], part.as_slice(), &["--backup", &backup]].concat();
    let ran = image.run("restore", &words);
    assert_eq!(ran.status, 0, "{ran:?}");
    let words = [part.as_slice(), &["--main", "m", "--main-sectors", "1000"]].concat();
    let ran = image.run("linear-table", &words);
    // The window begins at a whole metadata block.
    let geometry = dm_remap_logic::format::Geometry::new(4192, 1, 8).unwrap();
    let sector = 2008 + geometry.data_start() + 2;
    let line = format!("10 1 linear {} {sector}\n", image.text());
    assert!(ran.out.contains(&line), "{ran:?} {line}");
}

#[test]
fn what_does_not_fit_is_stacked() {
    let image = Image::used();
    let words = [
        "--main",
        "/dev/m",
        "--main-sectors",
        "110",
        "--max-lines",
        "3",
    ];
    let ran = image.run("linear-table", &words);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("--output-dir"), "{ran:?}");
    let folder = image.beside("tables");
    let ran = image.run(
        "linear-table",
        &[&words, ["--output-dir", &folder].as_slice()].concat(),
    );
    assert_eq!(ran.status, 0, "{ran:?}");
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).unwrap();
    assert_eq!(
        read("rescued.table"),
        "0 100 linear /dev/mapper/rescued-1 0\n100 10 linear /dev/mapper/rescued-2 0\n"
    );
    let second = format!(
        "0 2 linear {} {}\n2 8 linear /dev/m 102\n",
        image.text(),
        image.member().geometry.data_start()
    );
    assert_eq!(read("rescued-2.table"), second);
    // In the right order; and if one fails, those before it go again.
    let fake = image.beside("fake");
    fs::create_dir(&fake).unwrap();
    let log = image.beside("log");
    let dmsetup = format!("{fake}/dmsetup");
    let script = format!("#!/bin/sh\necho \"$@\" >> {log}\n[ \"$*\" != \"$FAIL\" ]\n");
    fs::write(&dmsetup, script).unwrap();
    fs::set_permissions(&dmsetup, fs::Permissions::from_mode(0o755)).unwrap();
    let sh = |script: &str, fail: &str| {
        let _ = fs::remove_file(&log);
        let path = format!("{fake}:{}", std::env::var("PATH").unwrap());
        let ran = Command::new("sh")
            .args([&format!("{folder}/{script}"), "--readonly"])
            .current_dir("/")
            .env("PATH", path)
            .env("FAIL", fail)
            .status()
            .unwrap();
        (ran.success(), fs::read_to_string(&log).unwrap())
    };
    let make = "create --readonly rescued-1 rescued-1.table\n\
                create --readonly rescued-2 rescued-2.table\n\
                create --readonly rescued rescued.table\n";
    assert_eq!(sh("create.sh", ""), (true, make.into()));
    let undone = format!("{make}remove rescued-2\nremove rescued-1\n");
    let failed = sh("create.sh", "create --readonly rescued rescued.table");
    assert_eq!(failed, (false, undone));
    let (_, removed) = sh("remove.sh", "");
    let expected = ["rescued", "rescued-2", "rescued-1"];
    let expected = expected.map(|name| format!("remove --readonly {name}\n"));
    assert_eq!(removed, expected.concat());
}

/// Case by case what the kernel does; tests in virtual machines ask it.
#[test]
fn lines_that_divide_blocks_are_refused() {
    let main = |start, len| Line {
        start,
        len,
        target: Target::Linear {
            device: Device::Main,
            sector: start,
        },
    };
    let spare = |start, len, sector| Line {
        start,
        len,
        target: Target::Linear {
            device: Device::Spare(0),
            sector,
        },
    };
    let hole = |start, len| Line {
        start,
        len,
        target: Target::Error,
    };
    for (lines, blocks, refused) in [
        (
            vec![main(0, 1001), spare(1001, 1, 745), main(1002, 6)],
            (1, 1),
            None,
        ),
        (
            vec![main(0, 1001), spare(1001, 1, 745), main(1002, 6)],
            (1, 8),
            Some(1001),
        ),
        (
            vec![main(0, 1001), spare(1001, 1, 744), main(1002, 6)],
            (8, 1),
            Some(0),
        ),
        (
            vec![main(0, 1000), spare(1000, 8, 744), main(1008, 8)],
            (8, 8),
            None,
        ),
        (
            vec![main(0, 1000), spare(1000, 8, 744), main(1008, 8)],
            (8, 1),
            None,
        ),
        (
            vec![main(0, 1000), spare(1000, 8, 744), main(1008, 8)],
            (1, 8),
            None,
        ),
        (
            vec![main(0, 1000), spare(1000, 8, 745), main(1008, 8)],
            (1, 8),
            Some(1000),
        ),
        (
            vec![main(0, 1001), hole(1001, 1), main(1002, 6)],
            (8, 1),
            Some(0),
        ),
        // Whole blocks of the spare, but not at whole blocks of the device.
        (
            vec![main(0, 1001), spare(1001, 8, 744), main(1009, 7)],
            (1, 8),
            Some(1001),
        ),
        (
            vec![main(0, 1001), hole(1001, 7), spare(1008, 8, 744)],
            (1, 8),
            None,
        ),
        // The end, too.
        (vec![spare(0, 8, 744), main(8, 3)], (1, 8), Some(8)),
    ] {
        let block = |device: Device| match device {
            Device::Main => blocks.0,
            _ => blocks.1,
        };
        let found = linear::refused(&[lines.clone()], block).map(|found| found.line.start);
        assert_eq!(found, refused, "{lines:?} {blocks:?}");
    }
    // An inner table has the largest block of its own.
    let tables = linear::stack(
        vec![main(0, 8), spare(8, 8, 744), main(16, 8), main(24, 3)],
        2,
    );
    let small = linear::refused(&tables, |_| 1);
    assert_eq!(small, None);
    let block = |device: Device| if device == Device::Main { 1 } else { 8 };
    let found = linear::refused(&tables, block).unwrap();
    assert_eq!((found.table, found.block), (tables.len() - 1, 8));
}

#[test]
fn names_are_found_from_anywhere() {
    let image = Image::used();
    let folder = image.folder.path();
    let run = |spare: &str, main: &str, more: &[&str]| -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_dmremap"))
            .args([
                "linear-table",
                spare,
                "--main",
                main,
                "--main-sectors",
                "110",
            ])
            .args(more)
            .current_dir(folder)
            .output()
            .unwrap();
        Ran {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    };
    let (spare, main) = (image.text(), image.beside("disk"));
    for more in [&[][..], &["--output-dir", "tables"]] {
        let ran = run("spare.img", "disk", more);
        assert_eq!(ran.status, 0, "{ran:?}");
        let text = match more {
            [] => ran.out,
            _ => fs::read_to_string(image.beside("tables/rescued.table")).unwrap(),
        };
        assert!(
            text.contains(&format!("0 77 linear {main} 0\n77 1 linear {spare} ")),
            "{text}"
        );
    }
    // As device mapper names devices, too.
    assert!(run("spare.img", "8:16", &[])
        .out
        .starts_with("0 77 linear 8:16 0\n"));
    // udev's names for what has blanks in it.
    let ran = run("spare.img", "/dev/disk/by-label/My\\x20disk", &[]);
    assert!(
        ran.out
            .starts_with("0 77 linear /dev/disk/by-label/My\\\\x20disk 0\n"),
        "{ran:?}"
    );
    for main in ["/dev/a b", "/dev/a#b", "/dev/a\nb"] {
        let ran = run("spare.img", main, &[]);
        assert_eq!((ran.status, ran.out.as_str()), (16, ""), "{ran:?}");
        assert!(ran.err.contains("blanks or '#'"), "{ran:?}");
    }
    for name in ["", "-x", "a/b", "..", "control", &"x".repeat(101)] {
        let ran = run(
            "spare.img",
            "disk",
            &["--output-dir", "more", &format!("--name={name}")],
        );
        assert_eq!(ran.status, 16, "{ran:?}");
        assert!(ran.err.contains("are allowed"), "{ran:?}");
    }
}

#[test]
fn damage_and_another_main_are_refused() {
    let image = Image::used();
    let main = image.beside("main.img");
    let file = fs::File::create(&main).unwrap();
    file.set_len(512 * (super::image::MAIN_SECTORS - 8))
        .unwrap();
    let ran = image.run("linear-table", &["--main", &main]);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(ran.err.contains("this one has 1048568"), "{ran:?}");
    let words = ["--main", &main, "--main-sectors", "1048568"];
    assert!(ran.err.contains(&words[2..].join(" ")), "{ran:?}");
    let ran = image.run("linear-table", &words);
    assert_eq!(ran.status, 0, "{ran:?}");
    file.set_len(512 * super::image::MAIN_SECTORS).unwrap();
    let ran = image.run("linear-table", &["--main", &main]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.err.contains("losetup"), "{ran:?}");
    image.write_table(0, 1, &[0; 4096]);
    image.write_table(1, 1, &[0; 4096]);
    let ran = image.run("linear-table", &["--main", &main]);
    assert_eq!((ran.status, ran.out.as_str()), (8, ""), "{ran:?}");
    let ran = image.run(
        "linear-table",
        &["--main", "/dev/a b", "--main-sectors", "8"],
    );
    assert_eq!(ran.status, 8);
}
