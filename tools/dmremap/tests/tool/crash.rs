// SPDX-License-Identifier: GPL-2.0

//! P5: whatever a crash leaves, `check` does not take it for damage. A history of the commit
//! protocol is stopped before, after and in the middle of each of its writes.

use dm_remap_logic::commit::Content;
use dm_remap_logic::commit::Fault;
use dm_remap_logic::commit::Metadata;
use dm_remap_logic::commit::Op;
use dm_remap_logic::commit::Outcome;
use dm_remap_logic::commit::Step;
use dm_remap_logic::format::table_block;
use dm_remap_logic::format::Block;
use dm_remap_logic::format::Geometry;
use dm_remap_logic::format::Place;
use dm_remap_logic::format::BLOCK_BYTES;
use dm_remap_logic::format::BLOCK_SECTORS;
use dm_remap_logic::slot::Entry;
use dm_remap_logic::slot::SlotState;
use dm_remap_logic::text::MainId;
use dm_remap_logic::text::Uuid;
use dmremap::check::Severity;

use super::image::block_id;
use super::image::claim;
use super::image::Image;

const SECTORS: u64 = 100_000;

/// Carries an operation out, and writes down what it writes. A place that is bad takes no writes.
fn run(log: &mut Vec<(u64, Block)>, mut op: Op<'_>, entries: &[Entry], bad: Option<Place>) {
    let mut last = Ok(());
    loop {
        let mut image = [0; BLOCK_BYTES];
        match op.advance(std::mem::replace(&mut last, Ok(()))) {
            Step::WriteTable { place, count, .. } if touches(&place, count, bad) => {
                last = Err(Fault::Media);
            }
            Step::Done(Outcome::Committed) => return,
            Step::Done(outcome) => panic!("{outcome:?}"),
            Step::Flush { .. } | Step::CheckTable { .. } => (),
            Step::WriteSuper { copy, place } => {
                op.metadata().encode_superblock(&mut image, copy);
                log.push((place.sector, image));
            }
            Step::WriteTable {
                block,
                count,
                place,
                content,
                ..
            } => {
                let superblock = op.metadata().superblock();
                let member = superblock.member(block.member).unwrap();
                for step in 0..count {
                    let block = block.block + step;
                    let (first, end) = member.block_slots(block);
                    let (entries, sequence) = match content {
                        Content::Current { sequence } => {
                            (&entries[first as usize..end as usize], sequence)
                        }
                        Content::Empty { sequence } => (&[][..], sequence),
                        Content::Copy { .. } => panic!("nothing was read"),
                    };
                    let entries = entries.iter().copied();
                    table_block::encode(&mut image, &member.uuid, block, sequence, entries);
                    log.push((place.sector + u64::from(step) * BLOCK_SECTORS, image));
                }
            }
        }
    }
}

/// Whether a bad place is among those of some blocks.
fn touches(place: &Place, count: u32, bad: Option<Place>) -> bool {
    let end = place.sector + u64::from(count) * BLOCK_SECTORS;
    bad.is_some_and(|bad| bad.member == place.member && (place.sector..end).contains(&bad.sector))
}

fn history() -> Vec<(u64, Block)> {
    let geometry = Geometry::new(SECTORS, 1, 8).unwrap();
    let uuid = Uuid([9; 16]);
    let mut metadata = Box::new(Metadata::EMPTY);
    metadata
        .superblock_mut()
        .begin(uuid, uuid, geometry, 1 << 20, MainId::NONE);
    metadata.create();
    let mut log = Vec::new();
    run(&mut log, metadata.sync(), &[], None);
    run(&mut log, metadata.extend(0, 3), &[], None);
    let slots = metadata.superblock().member(0).unwrap().usable_slots();
    let mut entries = vec![Entry::UNUSED; slots as usize];
    for round in 0..3u64 {
        for (slot, main_block) in [(3, 7), (251, 9), (252, 30), (600, 31)] {
            let slot = slot + round as u32;
            entries[slot as usize] = Entry {
                word: claim(main_block + 100 * round, SlotState::Valid),
                generation: metadata.next_generation().unwrap(),
            };
        }
        // In the last round a block has to move.
        let bad = metadata
            .superblock()
            .own_place(1, block_id(1))
            .filter(|_| round == 2);
        run(
            &mut log,
            metadata.commit(&[0, 1, 2].map(block_id)),
            &entries,
            bad,
        );
        if round == 1 {
            metadata.set_clean(true);
            run(&mut log, metadata.sync(), &[], None);
        }
    }
    metadata.set_clean(true);
    run(&mut log, metadata.sync(), &[], None);
    log
}

#[test]
fn no_crash_looks_like_damage() {
    let log = history();
    let image = Image::blank(SECTORS);
    let mut worst = 0;
    for (index, (sector, block)) in log.iter().enumerate() {
        let old = image.read(*sector);
        // The first superblock makes the spare.
        let cuts = if index == 0 { 8..8 } else { 1..8 };
        for cut in cuts {
            for (a, b) in [(block, &old), (&old, block)] {
                let mut torn = *a;
                torn[cut * 512..].copy_from_slice(&b[cut * 512..]);
                image.write(*sector, &torn);
                let report = image.check();
                assert!(
                    report.severity <= Severity::Leftover,
                    "torn write {index} to {sector}, cut at {cut}: {report:#?}"
                );
                worst = worst.max(report.exit_status);
            }
        }
        image.write(*sector, block);
        let report = image.check();
        assert!(
            report.severity <= Severity::Leftover,
            "after write {index} to {sector}: {report:#?}"
        );
    }
    assert_eq!(worst, 1);
    assert_eq!(image.check().severity, Severity::Note);
}
