// SPDX-License-Identifier: GPL-2.0
//! How long it takes to load remaps, and how much memory they take (P12).

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use dm_remap_logic::format::table_block;
use dm_remap_logic::format::table_block::ENTRIES;
use dm_remap_logic::format::BlockId;
use dm_remap_logic::format::CopyId;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Superblock;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::SUPER_COPIES;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::Origin;
use dm_remap_logic::slot::SlotWord;
use dm_remap_logic::slot::State;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;
use vmtest::guest::drop_caches;
use vmtest::guest::load;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::NullBlk;

/// MiB of main and of the spare: a million blocks of 4096 bytes and some more.
const MIB: u32 = 4500;

/// Writes the metadata of a spare with `remaps` remaps, spread over main. Returns what one replica's used
/// part is: where it starts and how long it is, in bytes.
fn forge(spare: &Path, remaps: u32) -> (u64, u64) {
    let sectors = u64::from(MIB) << 11;
    let geometry = Geometry::new(sectors, 8, 8).expect("a legal size");
    let member = Uuid([9; 16]);
    let mut superblock = Superblock::new(Uuid([7; 16]), member, geometry, sectors, MainId::NONE);
    superblock.epoch = 8;
    superblock.sequence = 1;
    let blocks = remaps.div_ceil(ENTRIES);
    superblock.member_mut(0).expect("the first").high_water = blocks;
    // Past the page cache, whose pages would be missing when memory is counted.
    let file = Direct::open(spare);
    let put = |sector: u64, data: &[u8]| file.write(sector, data).expect("write");
    let mut image = [0; BLOCK_BYTES];
    for copy in 0..SUPER_COPIES {
        let id = CopyId { member: 0, copy };
        superblock.encode(&mut image, id);
        put(superblock.super_place(id).expect("there").sector, &image);
    }
    let main_blocks = sectors / 8;
    let mut table = Vec::new();
    for block in 0..blocks {
        let entries = (block * ENTRIES..(block + 1) * ENTRIES).map(|slot| {
            if slot >= remaps {
                return Entry::UNUSED;
            }
            // An odd number, and so each block once.
            let main_block = u64::from(slot) * 7919 % main_blocks;
            let word = SlotWord::new(main_block, State::Valid, Origin::Auto);
            Entry {
                word: word.expect("in range"),
                generation: (8 << 40) + 1,
            }
        });
        table_block::encode(&mut image, &member, block, (8 << 40) + 1, entries);
        table.extend_from_slice(&image);
    }
    for replica in 0..2 {
        let id = BlockId {
            member: 0,
            block: 0,
        };
        let mut at = superblock.own_place(replica, id).expect("there").sector;
        for part in table.chunks(64 * BLOCK_BYTES) {
            put(at, part);
            at += part.len() as u64 / 512;
        }
    }
    file.flush().expect("flush");
    let start = geometry.home(0).expect("there").1 * 512;
    (start, u64::from(blocks) * BLOCK_BYTES as u64)
}

/// The time that reading one replica takes, in large reads past the page cache.
fn read(spare: &Path, (start, bytes): (u64, u64)) -> Duration {
    let begun = Instant::now();
    let file = Direct::open(spare);
    let mut at = start / 512;
    let end = (start + bytes).div_ceil(512);
    while at < end {
        let sectors = 512.min(end - at);
        file.read(at, sectors).expect("read");
        at += sectors;
    }
    begun.elapsed()
}

fn available() -> u64 {
    drop_caches();
    let info = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = info.lines().find(|line| line.starts_with("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a number").parse::<u64>().expect("a number") * 1024
}

/// P12: a million remaps are all there, load in a time that reading them explains, and take no more than 40
/// bytes each.
#[test]
fn remaps_load_fast_and_take_little_memory() {
    let _test = vmtest::begin!();
    load();
    let main = NullBlk::new(MIB, 4096);
    let main = main.path();
    let mut empty = 0;
    for remaps in [0, 1000, 1_000_000] {
        let disk = NullBlk::new(MIB, 4096);
        let spare = disk.path();
        let line = format!(
            "0 {} dm-remap {} {}",
            u64::from(MIB) << 11,
            main.display(),
            spare.display()
        );
        let replica = forge(&spare, remaps);
        let reading = read(&spare, replica);
        let before = available();
        let begun = Instant::now();
        let mapped = Mapped::try_new(&line).expect("load");
        let loading = begun.elapsed();
        let used = before.saturating_sub(available());
        assert_eq!(mapped.remapped(), u64::from(remaps));
        println!(
            "{remaps} remaps: loaded in {loading:?}, one replica read in {reading:?}, \
             {} KiB of memory",
            used / 1024
        );
        if remaps == 0 {
            empty = used;
        } else if remaps == 1_000_000 {
            let each = used.saturating_sub(empty) / u64::from(remaps);
            assert!(each <= 40, "{each} bytes for a remap");
            // Under emulation the processor is the slow part, where a disk is elsewhere.
            let limit = Duration::from_secs(60) * vmtest::guest::slowness();
            assert!(loading < limit, "{loading:?}");
        }
        mapped.remove();
    }
}
