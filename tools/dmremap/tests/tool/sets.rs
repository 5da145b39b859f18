// SPDX-License-Identifier: GPL-2.0

//! Sets of several spares (M9).

use std::fs;
use std::os::unix::fs::FileExt;

use dm_remap_logic::format::sequence;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::REPLICAS;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::SlotState;
use dmremap::check::Severity;
use dmremap::set::Set;
use dmremap::spare::Access;
use dmremap::spare::Part;
use dmremap::spare::Spare;
use tempfile::TempDir;

use super::image::claim;
use super::image::codes;
use super::image::dmremap;
use super::image::same;
use super::image::Ran;

const SECTORS: u64 = 8192;

/// Three spares in files.
struct Files {
    folder: TempDir,
    paths: Vec<String>,
}

impl Files {
    fn blank() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| {
            let path = folder.path().join(name);
            fs::File::create(&path)
                .unwrap()
                .set_len(SECTORS * 512)
                .unwrap();
            path.to_str().unwrap().to_string()
        });
        Self {
            folder,
            paths: paths.into(),
        }
    }

    /// A set with a slot in use on each of its spares.
    fn used() -> Self {
        let files = Self::blank();
        let ran = files.run(
            "format",
            &["--main-sectors", "100000", "--main-block", "512"],
        );
        assert_eq!(ran.status, 0, "{ran:?}");
        let mut superblock = files.superblock();
        superblock.sequence += 1;
        superblock.epoch += 1;
        let sequence = sequence(superblock.epoch, 3).unwrap();
        for index in 0..3u8 {
            let member = superblock.member_mut(index).unwrap();
            member.high_water = member.high_water.max(1);
            let uuid = member.uuid;
            let id = BlockId {
                member: index,
                block: 0,
            };
            let entry = Entry {
                word: claim(100 + u64::from(index), SlotState::Valid),
                generation: sequence,
            };
            let mut image = [0; BLOCK_BYTES];
            table_block::encode(&mut image, &uuid, 0, sequence, [entry].into_iter());
            for replica in 0..REPLICAS {
                let place = superblock.table_place(replica, id).unwrap();
                files.write(place.member.into(), place.sector, &image);
            }
        }
        files.write_supers(&superblock, |_| true);
        files
    }

    fn run(&self, command: &str, more: &[&str]) -> Ran {
        self.run_on(&[0, 1, 2], command, more)
    }

    fn run_on(&self, which: &[usize], command: &str, more: &[&str]) -> Ran {
        let mut words = vec![command];
        words.extend(which.iter().map(|index| self.paths[*index].as_str()));
        words.extend(more);
        dmremap(&words)
    }

    fn set_of(&self, which: &[usize]) -> Set {
        Set::load(&mut self.open(which)).unwrap()
    }

    fn open(&self, which: &[usize]) -> Vec<Spare> {
        let paths = which.iter().map(|index| self.paths[*index].as_ref());
        paths
            .map(|path| Spare::open(path, Part::default(), Access::Read).unwrap())
            .collect()
    }

    fn severity(&self, which: &[usize]) -> (Severity, Vec<&'static str>) {
        let (report, _) = dmremap::check::check(&mut self.open(which)).unwrap();
        println!("{report:#?}");
        (report.severity, codes(&report))
    }

    fn superblock(&self) -> Superblock {
        (*self.set_of(&[0, 1, 2]).superblock).clone()
    }

    fn write(&self, spare: usize, sector: u64, block: &[u8]) {
        let file = fs::File::options()
            .write(true)
            .open(&self.paths[spare])
            .unwrap();
        file.write_all_at(block, sector * 512).unwrap();
    }

    /// Writes the superblock to the spares that `wanted` names.
    fn write_supers(&self, superblock: &Superblock, wanted: impl Fn(u8) -> bool) {
        for member in (0..3).filter(|member| wanted(*member)) {
            for copy in 0..SUPER_COPIES {
                let id = CopyId { member, copy };
                let mut image = [0; BLOCK_BYTES];
                superblock.encode(&mut image, id);
                let place = superblock.super_place(id).unwrap();
                self.write(member.into(), place.sector, &image);
            }
        }
    }

    fn beside(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().into()
    }

    fn wipe(&self, spare: usize) {
        self.write(spare, 0, &vec![0; SECTORS as usize * 512]);
    }
}

#[test]
fn a_formatted_set_is_in_order_and_spread() {
    let files = Files::blank();
    let ran = files.run(
        "format",
        &["--main-sectors", "100000", "--main-block", "512"],
    );
    assert_eq!(ran.status, 0, "{ran:?}");
    let ran = files.run("check", &[]);
    assert_eq!(ran.status, 0, "{ran:?}");
    // No table has both replicas on one spare.
    for (_, member) in files.superblock().members() {
        let [a, b] = member.areas;
        assert_ne!(a.host, b.host);
        assert_eq!(member.void_replicas, 0);
    }
    // In any order.
    assert_eq!(files.run_on(&[2, 0, 1], "check", &[]).status, 0);
    assert_eq!(files.severity(&[0, 1, 2]), (Severity::Note, vec![]));
}

#[test]
fn any_block_on_any_spare_is_mended() {
    let files = Files::used();
    let before = files.set_of(&[0, 1, 2]);
    assert_eq!(before.claims.len(), 3);
    let backup = files.beside("backup");
    for member in 0..3 {
        for replica in 0..REPLICAS {
            let id = BlockId { member, block: 0 };
            let place = before.superblock.table_place(replica, id).unwrap();
            files.write(place.member.into(), place.sector, &[1; BLOCK_BYTES]);
            let copy = CopyId {
                member,
                copy: replica,
            };
            let place = before.superblock.super_place(copy).unwrap();
            files.write(place.member.into(), place.sector, &[2; BLOCK_BYTES]);
            assert_eq!(files.severity(&[0, 1, 2]).0, Severity::Damage);
            let ran = files.run("repair", &["--backup", &backup]);
            assert_eq!(ran.status, 0, "{ran:?}");
            assert_eq!(files.severity(&[0, 1, 2]).0, Severity::Note);
            assert!(same(&files.set_of(&[0, 1, 2]), &before));
            fs::remove_file(&backup).unwrap();
        }
    }
}

#[test]
fn a_spare_that_is_not_given_is_asked_for() {
    let files = Files::used();
    let (severity, codes) = files.severity(&[0, 2]);
    assert_eq!(severity, Severity::Loss);
    assert!(codes.contains(&"member-absent"));
    let backup = files.beside("backup");
    let ran = files.run_on(&[0, 2], "repair", &["--backup", &backup]);
    assert_eq!(ran.status, 8, "{ran:?}");
    assert!(ran.err.contains("is not given"), "{ran:?}");
    let main = ["--main", "/dev/m", "--main-sectors", "200"];
    let ran = files.run_on(&[0, 2], "linear-table", &main);
    assert_eq!(ran.status, 8, "{ran:?}");
    assert!(ran.err.contains("--degraded"), "{ran:?}");
    // What the others say of it is known without it.
    let ran = files.run_on(
        &[0, 2],
        "linear-table",
        &[main.as_slice(), &["--degraded"]].concat(),
    );
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.out.contains("\n101 1 error\n"), "{ran:?}");
    let ran = files.run("linear-table", &main);
    assert_eq!(ran.out.matches("/dev/m").count(), 2, "{ran:?}");
    for path in &files.paths {
        assert_eq!(ran.out.matches(path.as_str()).count(), 1, "{ran:?}");
    }
    // Given by another option, too.
    let more = ["--spare", &files.paths[1], "--spare", &files.paths[2]];
    let again = files.run_on(&[0], "linear-table", &[main.as_slice(), &more].concat());
    assert_eq!(again.out, ran.out);
}

#[test]
fn a_spare_that_was_lost_comes_back() {
    let files = Files::used();
    let mut superblock = files.superblock();
    let before = files.set_of(&[0, 1, 2]);
    // As the set is when it went on without the second one.
    superblock.sequence += 1;
    superblock.epoch += 1;
    superblock.set_epoch += 1;
    for index in 0..3 {
        let member = superblock.member_mut(index).unwrap();
        for (area, replica) in member.areas.iter().zip(0..) {
            member.void_replicas |= u8::from(area.host == 1) << replica;
        }
    }
    let lost = superblock.member_mut(1).unwrap();
    lost.missing = true;
    lost.void_supers = 15;
    files.write_supers(&superblock, |member| member != 1);
    let (severity, found) = files.severity(&[0, 2]);
    assert_eq!(severity, Severity::Loss);
    assert!(found.contains(&"member-lost"), "{found:?}");
    // It is there again, with what it said when it was lost.
    let (severity, found) = files.severity(&[0, 1, 2]);
    assert_eq!(severity, Severity::Damage);
    assert!(found.contains(&"member-back"), "{found:?}");
    assert!(found.contains(&"replica-void"), "{found:?}");
    let ran = files.run("repair", &["--backup", &files.beside("backup")]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(files.severity(&[0, 1, 2]), (Severity::Note, vec![]));
    let after = files.set_of(&[0, 1, 2]);
    assert_eq!(after.claims, before.claims);
    assert!(!after.superblock.is_degraded());
}

#[test]
fn a_set_is_restored_from_a_dump() {
    let files = Files::used();
    let before = files.set_of(&[0, 1, 2]);
    let dump = files.beside("dump.json");
    fs::write(&dump, files.run("dump", &["--json"]).out).unwrap();
    let words = [dump.as_str(), "--backup", &files.beside("backup")];
    // The first spare says what it is, and must be first.
    files.wipe(1);
    files.wipe(2);
    let ran = files.run_on(&[1, 0, 2], "restore", &words);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("number 1 in the dump"), "{ran:?}");
    let ran = files.run_on(&[0, 1], "restore", &words);
    assert_eq!(ran.status, 16, "{ran:?}");
    assert!(ran.err.contains("of 3 spares"), "{ran:?}");
    let ran = files.run("restore", &words);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(files.severity(&[0, 1, 2]), (Severity::Note, vec![]));
    assert!(same(&files.set_of(&[0, 1, 2]), &before));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (files, other) = (Files::used(), Files::used());
    let (a, b) = (files.paths[0].as_str(), other.paths[1].as_str());
    let (copy, five) = (files.beside("copy"), &other.paths);
    fs::copy(a, &copy).unwrap();
    for (words, status, text) in [
        (vec!["check", a, &copy], 32, "is there twice"),
        (vec!["check", a, b], 8, "different spares"),
        (vec!["dump", a, b], 8, "different spares"),
        (
            vec!["check", a, b, &copy, &five[0], &five[2]],
            16,
            "4 spares at most",
        ),
    ] {
        let ran = dmremap(&words);
        assert_eq!(ran.status, status, "{ran:?}");
        let told = format!("{}{}", ran.out, ran.err);
        assert!(told.contains(text), "{ran:?}");
    }
    files.wipe(2);
    let ran = files.run("check", &[]);
    assert_eq!(ran.status, 32, "{ran:?}");
    assert!(ran.err.contains("leave it out"), "{ran:?}");
}

/// One of the spares lost its superblocks. The others know all that is needed.
#[test]
fn the_others_give_the_dump_for_a_ruined_one() {
    for over in [0, 0x55] {
        let files = Files::used();
        let before = files.set_of(&[0, 1, 2]);
        let uuid = before.superblock.member(1).unwrap().uuid.to_string();
        for copy in 0..SUPER_COPIES {
            let id = CopyId { member: 1, copy };
            let place = before.superblock.super_place(id).unwrap();
            files.write(1, place.sector, &[over; BLOCK_BYTES]);
        }
        let backup = files.beside("backup");
        for (command, words) in [
            ("check", &[][..]),
            ("dump", &[]),
            ("repair", &["--backup", &backup]),
        ] {
            let ran = files.run(command, words);
            assert_eq!(ran.status, 8, "{ran:?}");
            let told = ran.out + &ran.err;
            for text in [uuid.as_str(), "named alone", "dmremap restore"] {
                assert!(told.contains(text), "{told}");
            }
        }
        let dump = files.beside("dump.json");
        let ran = files.run_on(&[0, 2], "dump", &["--json", "--output", &dump]);
        assert_eq!(ran.status, 0, "{ran:?}");
        let ran = files.run("restore", &[&dump, "--backup", &backup]);
        assert_eq!(ran.status, 0, "{ran:?}");
        assert_eq!(files.severity(&[0, 1, 2]), (Severity::Note, vec![]));
        assert!(same(&files.set_of(&[0, 1, 2]), &before));
        // A stranger's disk in its place is none of the set, whatever the others are.
        fs::remove_file(&backup).unwrap();
        let ran = files.run("dump", &["--json", "--output", &dump]);
        assert_eq!(ran.status, 0, "{ran:?}");
        files.wipe(1);
        files.write(1, 0, &[0x55; BLOCK_BYTES]);
        let ran = files.run("restore", &[&dump, "--backup", &backup]);
        assert_eq!(ran.status, 32, "{ran:?}");
        assert!(ran.err.contains("--force"), "{ran:?}");
    }
}

/// A crash came when the others knew of a new spare, and nothing was on it yet.
#[test]
fn a_spare_that_was_about_to_join_is_a_leftover() {
    let files = Files::used();
    let mut superblock = files.superblock();
    // Nothing of the third one, and nothing on it.
    superblock.sequence += 1;
    for index in 0..2 {
        let member = superblock.member_mut(index).unwrap();
        assert!(member.areas.iter().all(|area| area.host != 2));
    }
    let joining = superblock.member(2).unwrap();
    let fresh = Member::new(2, joining.uuid, joining.geometry);
    superblock.members[2] = Some(Member {
        void_supers: 15,
        ..fresh
    });
    // Its guest on the others is gone with it.
    files.write_supers(&superblock, |member| member != 2);
    files.wipe(2);
    let found = files.severity(&[0, 1, 2]);
    let codes = vec!["member-joining", "replicas-together"];
    assert_eq!(found, (Severity::Leftover, codes));
    // It must be blank still, or it is something else.
    let sector = superblock.member(2).unwrap().geometry.data_start() + 16;
    files.write(2, sector, &[1; BLOCK_BYTES]);
    let ran = files.run("repair", &["--dry-run"]);
    assert_eq!(ran.status, 32, "{ran:?}");
    files.write(2, sector, &[0; BLOCK_BYTES]);
    let ran = files.run("repair", &["--backup", &files.beside("backup")]);
    assert_eq!(ran.status, 0, "{ran:?}");
    let (severity, codes) = files.severity(&[0, 1, 2]);
    assert_eq!(severity, Severity::Note, "{codes:?}");
    assert!(!files.superblock().is_degraded());
}
