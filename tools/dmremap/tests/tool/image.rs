// SPDX-License-Identifier: GPL-2.0

//! A spare in a file, in any state.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use dm_remap_logic::format::sequence;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::TableBlock;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dmremap::check::Report;
use dmremap::set::Set;
use dmremap::set::SlotId;
use dmremap::spare::Access;
use dmremap::spare::Part;
use dmremap::spare::Spare;
use tempfile::TempDir;

pub(crate) const MAIN_SECTORS: u64 = 1 << 20;

/// What became of a run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program.
pub(crate) fn dmremap(words: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_dmremap"))
        .args(words)
        .output()
        .unwrap();
    Ran {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A spare in a file of its own folder.
pub(crate) struct Image {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Image {
    /// A file of zeroes.
    pub(crate) fn blank(sectors: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spare.img");
        File::create(&path).unwrap().set_len(sectors * 512).unwrap();
        Self { folder, path }
    }

    /// A formatted one of 2 MiB with slots of one sector.
    pub(crate) fn formatted() -> Self {
        Self::formatted_as(4096, 512)
    }

    pub(crate) fn formatted_as(sectors: u64, block: u32) -> Self {
        let image = Self::blank(sectors);
        let (main, block) = (MAIN_SECTORS.to_string(), block.to_string());
        let ran = image.run("format", &["--main-sectors", &main, "--main-block", &block]);
        assert_eq!(ran.status, 0, "{ran:?}");
        image
    }

    /// One with a few remaps of all kinds.
    pub(crate) fn used() -> Self {
        let image = Self::formatted();
        image.commit(
            1,
            &[
                (0, claim(100, SlotState::Valid)),
                (1, claim(101, SlotState::Valid)),
                (7, claim(5000, SlotState::Pending)),
                (8, SlotWord::BAD),
                (300, claim(77, SlotState::Valid)),
            ],
        );
        image
    }

    pub(crate) fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Another file in the same folder.
    pub(crate) fn beside(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().into()
    }

    /// Runs a command of the program on the spare.
    pub(crate) fn run(&self, command: &str, words: &[&str]) -> Ran {
        dmremap(&[&[command, self.text()], words].concat())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    pub(crate) fn set_bytes(&self, bytes: &[u8]) {
        fs::write(&self.path, bytes).unwrap();
    }

    pub(crate) fn read(&self, sector: u64) -> Block {
        let mut block = [0; BLOCK_BYTES];
        let file = File::open(&self.path).unwrap();
        file.read_exact_at(&mut block, sector * 512).unwrap();
        block
    }

    pub(crate) fn write(&self, sector: u64, block: &Block) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(block, sector * 512).unwrap();
    }

    pub(crate) fn open(&self) -> Vec<Spare> {
        let access = Access::Read;
        vec![Spare::open(&self.path, Part::default(), access).unwrap()]
    }

    /// What `check` finds.
    pub(crate) fn check(&self) -> Report {
        dmremap::check::check(&mut self.open()).unwrap().0
    }

    /// What is on it, if there is a superblock to go by.
    pub(crate) fn set(&self) -> Set {
        Set::load(&mut self.open()).unwrap()
    }

    pub(crate) fn superblock(&self) -> Superblock {
        (*self.set().superblock).clone()
    }

    /// The only member.
    pub(crate) fn member(&self) -> Member {
        *self.superblock().member(0).unwrap()
    }

    pub(crate) fn super_sector(&self, copy: u8) -> u64 {
        self.member().geometry.superblock_sector(copy).unwrap()
    }

    pub(crate) fn table_sector(&self, replica: u8, block: u32) -> u64 {
        let place = self.superblock().table_place(replica, block_id(block));
        place.unwrap().sector
    }

    /// Writes all superblock copies, changed and one newer.
    pub(crate) fn set_superblock(&self, change: impl FnOnce(&mut Superblock)) {
        let mut superblock = self.superblock();
        superblock.sequence += 1;
        change(&mut superblock);
        for copy in 0..4 {
            self.write_super(&superblock, copy);
        }
    }

    pub(crate) fn write_super(&self, superblock: &Superblock, copy: u8) {
        let mut block = [0; BLOCK_BYTES];
        let id = CopyId { member: 0, copy };
        superblock.encode(&mut block, id);
        self.write(superblock.super_place(id).unwrap().sector, &block);
    }

    /// What a commit makes of a table block: these slots changed, in the superblock's epoch.
    pub(crate) fn next(&self, counter: u64, block: u32, changes: &[(u32, SlotWord)]) -> Block {
        let superblock = self.superblock();
        let member = self.member();
        let sequence = sequence(superblock.epoch, counter).unwrap();
        let old = self.read(self.table_sector(0, block));
        let old = TableBlock::decode(&old, &member.uuid, block).unwrap();
        let mut entries: Vec<Entry> = old.entries().collect();
        let (first, _) = member.block_slots(block);
        for (slot, word) in changes {
            let index = slot.wrapping_sub(first) as usize;
            if let Some(entry) = entries.get_mut(index) {
                *entry = Entry {
                    word: *word,
                    generation: sequence,
                };
            }
        }
        let mut image = [0; BLOCK_BYTES];
        table_block::encode(
            &mut image,
            &member.uuid,
            block,
            sequence,
            entries.into_iter(),
        );
        image
    }

    /// A commit in an activation of its own, ended in order.
    pub(crate) fn commit(&self, counter: u64, changes: &[(u32, SlotWord)]) {
        self.begin();
        self.commit_more(counter, changes);
        self.set_superblock(|superblock| superblock.clean = true);
    }

    /// A new activation.
    pub(crate) fn begin(&self) {
        self.set_superblock(|superblock| {
            superblock.epoch += 1;
            superblock.clean = false;
        });
    }

    /// A commit in the same activation.
    pub(crate) fn commit_more(&self, counter: u64, changes: &[(u32, SlotWord)]) {
        let mut blocks: Vec<u32> = changes.iter().map(|(slot, _)| slot / ENTRIES).collect();
        blocks.sort_unstable();
        blocks.dedup();
        for block in blocks {
            let image = self.next(counter, block, changes);
            self.write_table(0, block, &image);
            self.write_table(1, block, &image);
        }
    }

    pub(crate) fn write_table(&self, replica: u8, block: u32, image: &Block) {
        self.write(self.table_sector(replica, block), image);
    }
}

/// A block of the only member's table.
pub(crate) fn block_id(block: u32) -> BlockId {
    BlockId { member: 0, block }
}

/// A slot of the only member.
pub(crate) fn slot(slot: u32) -> SlotId {
    SlotId { member: 0, slot }
}

/// A claim by the repair path.
pub(crate) fn claim(main_block: u64, state: SlotState) -> SlotWord {
    SlotWord::new(main_block, state, Origin::Auto).unwrap()
}

/// The codes of what was found.
pub(crate) fn codes(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|f| f.code).collect()
}

/// Whether two sets say the same, however often they were written.
pub(crate) fn same(a: &Set, b: &Set) -> bool {
    let neutral = |set: &Set| {
        let mut superblock = (*set.superblock).clone();
        superblock.sequence = 0;
        superblock.epoch = 0;
        superblock.clean = true;
        superblock.statistics = Default::default();
        superblock
    };
    neutral(a) == neutral(b) && a.claims == b.claims && a.entries == b.entries
}
