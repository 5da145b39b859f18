// SPDX-License-Identifier: GPL-2.0

//! What the fuzzer begins with: a few inputs for each target, which it would take long to find by
//! itself. `cargo run -p dm-remap-fuzz --bin dm-remap-fuzz-seeds` writes them to `corpus/`.

use dm_remap_logic::args::Form;
use dm_remap_logic::commit::Metadata;
use dm_remap_logic::format::reserve::Reserve;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Member;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::RO_COMPAT_AVOIDED;
use dm_remap_logic::format::RO_COMPAT_SWITCHES;
use dm_remap_logic::message::Blocks;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::text::MainId;

use super::image;
use super::image::FIRST;
use super::image::MEMBER;
use super::image::MEMBERS;
use super::image::SET;

/// An input to begin with.
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// The file's name.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
}

/// All of them.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name, bytes| {
        seeds.push(Seed {
            target,
            name,
            bytes,
        });
    };
    // Numbers: see `Input::number`; 0x80 + n is 2^n.
    add("geometry", "least", vec![0x80 + 10, 0x80, 0x80]);
    add("geometry", "plain", vec![0x80 + 20, 8, 8]);
    add("geometry", "largest", vec![0x80 + 48, 0x80, 0x80 + 11]);

    add("superblock", "plain", superblock(&image::plain()));
    add("superblock", "large", superblock(&large()));
    add("superblock", "crossed", superblock(&crossed()));
    add("superblock", "records", superblock(&records()));
    add(
        "superblock",
        "fields",
        vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0, 9, 3, 2, 8, b'd', 9, 1],
    );
    let used = image::table(&MEMBER, 2, 77, &entries());
    add(
        "table_block",
        "empty",
        block(0, &image::table(&MEMBER, 0, 1, &[])),
    );
    add("table_block", "used", block(2, &used));
    add(
        "table_block",
        "entries",
        [vec![1; 10], vec![5, 3, 1, 9, 8, 2, 7, 8, 3, 0, 8]].concat(),
    );

    add("load", "plain", vec![0]);
    for (name, states, spares) in LOADS {
        let mut bytes = states.to_vec();
        bytes.push(spares.len() as u8 - 1);
        for (kind, copies) in *spares {
            bytes.push(*kind);
            for (state, as_read) in copies {
                bytes.extend([*state, *as_read]);
            }
        }
        add("load", name, bytes);
    }

    // A plain set, all there: grows by a block, commits one, is synced.
    add(
        "commit",
        "plain",
        vec![0, 0, 0, 0, 0, 0, 0, 3, 2, 1, 0x7f, 0, 1, 0, 0, 0, 0x7f, 3],
    );
    // Two spares; a replica of each goes to the other one and is copied there.
    add(
        "commit",
        "crossed",
        vec![
            2, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 8, 2, 1, 0x7f, 0x12, 1, 0x7f, 0x46, 1, 4, 0x7f, 0x56,
            0, 4, 0x7f, 0, 1, 0, 0, 0, 0x7f, 0x18, 0x1b, 4, 0x7f,
        ],
    );
    add("extents", "one", vec![0, 3, 0, 1, 0, 0]);
    add(
        "extents",
        "turns",
        vec![
            6, 0, 0, 16, 0, 0, 32, 0, 0, 8, 5, 0, 1, 1, 2, 0, 1, 2, 1, 1, 9,
        ],
    );

    add(
        "table_line",
        "known",
        vec![2, 0, 2, 13, 9, 3, 13, 8, 6, 9, 13, 5, 12],
    );
    add(
        "message",
        "known",
        vec![7, 0x80 + 20, 2, 16, 8, 16, 8, 16, 8],
    );
    for (name, form, text) in LINES {
        let form = u8::from(*form == Form::Remap);
        add("table_line", name, [&[form], text.as_bytes()].concat());
    }
    for (name, text) in MESSAGES {
        // Blocks of 8 sectors, a device of 2^20.
        add("message", name, [&[3, 0x80 + 20], text.as_bytes()].concat());
    }
    for (name, text) in WORDS {
        add("text", name, text.as_bytes().to_vec());
    }
    seeds
}

/// Four superblock copies: in which state each is, and how it is read.
type OfSpare = (u8, [(u8, u8); 4]);

/// States of the superblock, see `image::superblock`, and what is read of each spare.
const LOADS: &[(&str, &[u8], &[OfSpare])] = &[
    // Two states, of which the later stands at the head.
    (
        "older",
        &[0, 0, 1, 1, 0],
        &[(0, [(1, 0), (1, 0), (0, 0), (0, 0)])],
    ),
    (
        "broken",
        &[0, 0, 0],
        &[(0, [(0, 9), (0, 10), (0, 11), (0, 0)])],
    ),
    // Each of two spares has a replica of the other one's table.
    (
        "crossed",
        &[18, 0, 0, 16, 0, 1, 1, 0, 1, 0, 1, 0, 0, 0],
        &[(0, [(0, 0); 4]), (0, [(0, 0); 4])],
    ),
    // The second of two was lost, and is there again; a blank one comes with it.
    (
        "lost",
        &[2, 0, 0, 16, 0, 1, 1, 1, 12, 1, 5],
        &[(0, [(1, 0); 4]), (0, [(0, 0); 4]), (0x80, [(0, 0); 4])],
    ),
];

const LINES: &[(&str, Form, &str)] = &[
    ("short", Form::DmRemap, "/dev/a /dev/b"),
    ("quoted", Form::DmRemap, r"/dev/a\ b /dev/b 2 main_id a\\b"),
    ("signed", Form::Remap, "/dev/a /dev/b +8 +16"),
    ("old", Form::Remap, "/dev/a /dev/b 2048 4096"),
    (
        "window",
        Form::DmRemap,
        "a b 8 spare_start 8 spare_len 4096 auto_remap off main_id ata-x",
    ),
    (
        "named",
        Form::DmRemap,
        "a b 4 uuid 01234567-89ab-4def-8edc-ba9876543210 low_water 5",
    ),
    (
        "spares",
        Form::DmRemap,
        "a b 7 spare c spare d degraded spare e",
    ),
    (
        "limits",
        Form::DmRemap,
        "a b 7 read_retries 3 error_threshold 9 deadline_ms 500 format",
    ),
];

const MESSAGES: &[(&str, &str)] = &[
    ("remap", "remap 1000 16"),
    ("signed", "remap +8"),
    ("add_remap", "add_remap 8 16 24"),
    ("remove_remap", "remove_remap 8"),
    ("verify", "verify 99"),
    ("evacuate", "evacuate 1"),
    ("forget_spare", "forget_spare 1"),
    ("use-spare", "use_spare 1"),
    ("set", "set low_water 5"),
    ("set_auto_remap", "set_auto_remap 1"),
    ("clear_all", "clear_all"),
    ("status", "metadata_status"),
];

const WORDS: &[(&str, &str)] = &[
    ("uuid", "01234567-89ab-4def-8edc-ba9876543210"),
    ("main_id", "ata-WDC_1"),
    ("limit", "deadline_ms"),
    ("number", "500"),
];

fn superblock(superblock: &Superblock) -> Vec<u8> {
    let bytes = image::raw_input(&image::copy(superblock, FIRST));
    [vec![0; 9], bytes].concat()
}

fn block(number: u8, image: &Block) -> Vec<u8> {
    [vec![0; 9], vec![number], image::raw_input(image)].concat()
}

/// A superblock with something in every field.
fn large() -> Superblock {
    let geometry = Geometry::new(1 << 30, 1, 2048).expect("a legal size");
    let main_id = MainId::new("ata-x").expect("a legal name");
    let mut superblock = Superblock::new(SET, MEMBER, geometry, 1 << 40, main_id);
    superblock.epoch = 7;
    superblock.statistics.lost = 5;
    let first = superblock.member_mut(0).expect("the first");
    first.high_water = 1000;
    first.void_replicas = 2;
    first.void_supers = 4;
    let moved = Reserve::Holds {
        block: 900,
        home_bad: true,
    };
    first.reserve[0].set(3, moved);
    first.reserve[1].set(0, Reserve::Bad);
    superblock
}

/// Two spares, each with a replica of the other one's table.
fn crossed() -> Superblock {
    let mut superblock = image::plain();
    let geometry = Geometry::new(5000, 8, 8).expect("a legal size");
    superblock.members[1] = Some(Member::new(1, MEMBERS[1], geometry));
    let mut metadata = Metadata::EMPTY;
    *metadata.superblock_mut() = superblock;
    metadata.create();
    for (member, host) in [(0, 1), (1, 0)] {
        let slots = metadata.slots_beside(host, member).expect("room");
        let moved = metadata.rehost(member, 1, host, slots);
        moved.expect("the other one lives");
    }
    metadata.superblock().clone()
}

/// What users have said.
fn records() -> Superblock {
    let mut superblock = image::plain();
    superblock.ro_compat = RO_COMPAT_AVOIDED | RO_COMPAT_SWITCHES;
    superblock.switches.auto_remap = Some(false);
    for first in [3, 9, 77] {
        let added = superblock.avoided.add(Blocks { first, count: 2 });
        added.expect("room");
    }
    superblock
}

fn entries() -> Vec<Entry> {
    let states = [
        SlotState::Free,
        SlotState::Valid,
        SlotState::Pending,
        SlotState::Bad,
    ];
    let entry = |(state, at)| Entry {
        word: SlotWord::new(at * 1000, state, Origin::Manual).expect("it is in range"),
        generation: at,
    };
    states.into_iter().zip(0..).map(entry).collect()
}
