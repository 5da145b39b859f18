// SPDX-License-Identifier: GPL-2.0
//! Remaps come back: after removal, after power cuts, and with damaged metadata.
//!
//! Also on the oldest kernel.

use vmtest::guest::identify;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::PowerCut;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::Content;
use vmtest::guest::Dice;
use vmtest::guest::Remap;

/// P1: remaps and their content are there again.
#[test]
fn remaps_survive_removal() {
    let _test = vmtest::begin!();
    for block in [512, 4096] {
        let unit = u64::from(block) / 512;
        let mut remap = Remap::new(block);
        let bad = Fault::bad(Direction::Both);
        remap.main.disk().spoil(80, 16, bad);
        remap.open().write(64, &stamps(64, 64, 1)).unwrap();
        for generation in 2..5 {
            assert_eq!(remap.device().remapped(), 16 / unit);
            remap.reactivate();
            assert_eq!(remap.device().remapped(), 16 / unit);
            let device = remap.open();
            assert!(device.read(64, 64).unwrap() == stamps(64, 64, generation - 1));
            device.write(64, &stamps(64, 64, generation)).unwrap();
        }
    }
}

/// P1, P3: what was acknowledged as durable survives the loss of everything that was not flushed.
#[test]
fn an_acknowledged_remap_survives_a_power_cut() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let bad = Fault::bad(Direction::Both);
    remap.main.disk().spoil(100, 4, bad);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    device.flush().unwrap();
    drop(device);
    remap.power_cut(PowerCut::Drop);
    assert_eq!(remap.device().remapped(), 4);
    assert!(remap.open().read(96, 16).unwrap() == stamps(96, 16, 1));
}

/// P3: the remap itself is durable when the write is acknowledged, even without a flush.
#[test]
fn a_remap_needs_no_flush() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let bad = Fault::bad(Direction::Both);
    remap.main.disk().spoil(100, 4, bad);
    let device = remap.open();
    device.write(100, &stamps(100, 4, 1)).unwrap();
    drop(device);
    remap.power_cut(PowerCut::Drop);
    assert_eq!(remap.device().remapped(), 4);
    assert!(remap.open().read(100, 4).unwrap() == stamps(100, 4, 1));
}

/// P2, P5: power cuts at any moment, with any part of the unflushed writes lost or torn: the
/// metadata loads, and every sector holds its last durable write or a later one.
#[test]
fn power_cuts_at_any_time() {
    let _test = vmtest::begin!();
    const SECTORS: u64 = 4096;
    let main = Options::memory(SECTORS * 512);
    let spare = Options::memory(4 << 20);
    let mut remap = Remap::on(main, spare, "");
    let mut durable = vec![0_u64; SECTORS as usize];
    let mut issued = vec![0_u64; SECTORS as usize];
    let mut generation = 0;
    let mut dice = Dice::new(1);
    let mut remapped = 0;
    for round in 0..40 {
        let device = remap.open();
        for _ in 0..dice.roll(12) {
            match dice.roll(5) {
                0 => {
                    let first = dice.roll(SECTORS - 32);
                    let bad = Fault::bad(Direction::Write);
                    remap.main.disk().spoil(first, 1 + dice.roll(24), bad);
                }
                1 => {
                    device.flush().unwrap();
                    durable.copy_from_slice(&issued);
                }
                _ => {
                    generation += 1;
                    let length = 1 + dice.roll(32);
                    let sector = dice.roll(SECTORS - length);
                    device
                        .write(sector, &stamps(sector, length, generation))
                        .unwrap();
                    issued[sector as usize..(sector + length) as usize].fill(generation);
                }
            }
        }
        drop(device);
        let how = match round % 3 {
            0 => PowerCut::Drop,
            1 => PowerCut::Some(round),
            _ => PowerCut::Tear(round),
        };
        let before = remap.device().remapped();
        assert!(before >= remapped, "round {round}: remaps were lost");
        remap.power_cut(how);
        remapped = remap.device().remapped();
        assert_eq!(remapped, before, "round {round}: remaps were lost");
        // What is there now is what there is.
        let device = remap.open();
        for sector in (0..SECTORS).step_by(1024) {
            let found = identify(&device.read(sector, 1024).unwrap());
            for (sector, found) in (sector..).zip(found) {
                let index = sector as usize;
                let generation = match found {
                    Content::Blank => 0,
                    Content::Stamp {
                        sector: place,
                        generation,
                    } if place == sector => generation,
                    other => panic!("round {round}, sector {sector}: {other:?}"),
                };
                assert!(
                    generation >= durable[index] && generation <= issued[index],
                    "round {round}, sector {sector}: generation {generation}, durable {}, \
                     issued {}",
                    durable[index],
                    issued[index]
                );
                durable[index] = generation;
                issued[index] = generation;
            }
        }
        device.flush().unwrap();
    }
    assert!(remapped > 0);
}

/// P4: any one metadata block that becomes unreadable costs nothing.
#[test]
fn any_unreadable_metadata_block_costs_nothing() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let bad = Fault::bad(Direction::Both);
    remap.main.disk().spoil(100, 4, bad);
    remap.record();
    remap.open().write(96, &stamps(96, 16, 1)).unwrap();
    remap.deactivate();
    // Whatever was written as metadata, of a block of 4 KiB.
    let mut blocks: Vec<u64> = {
        let spare = remap.spare.disk();
        let record = spare.record();
        let written = record.entries().iter().filter(|entry| entry.fua);
        written.map(|entry| entry.sector & !7).collect()
    };
    blocks.sort_unstable();
    blocks.dedup();
    assert!(blocks.len() >= 2, "{blocks:?}");
    for block in blocks {
        remap.spare.disk().spoil(block, 8, bad);
        remap.activate();
        assert_eq!(remap.device().remapped(), 4, "block {block}");
        let device = remap.open();
        assert!(device.read(96, 16).unwrap() == stamps(96, 16, 1));
        drop(device);
        remap.deactivate();
        remap.spare.disk().heal(block, 8);
    }
}

/// P2: a lost sector stays an error over removal, and its next write goes to the spare.
#[test]
fn a_lost_sector_stays_lost_until_it_is_written() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    remap.main.disk().spoil(100, 1, Fault::bad(Direction::Both));
    assert!(device.read(100, 1).is_err());
    drop(device);
    remap.reactivate();
    let device = remap.open();
    assert!(device.read(100, 1).is_err());
    device.write(100, &stamps(100, 1, 2)).unwrap();
    drop(device);
    remap.reactivate();
    assert!(remap.open().read(100, 1).unwrap() == stamps(100, 1, 2));
    assert_eq!(remap.device().pending(), 0);
}

/// P2, M5: a slot that was replaced while the metadata could be written half way only does not come
/// back with its old content, once the newer remap is taken back.
#[test]
fn a_replaced_slot_does_not_come_back() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    remap.device().message("remap 100").unwrap();
    let told = remap.device().message("verify 100").unwrap();
    let slot: u64 = told
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .expect("the slot's sector");
    let device = remap.open();
    device.write(100, &stamps(100, 1, 1)).unwrap();

    // The slot fails, and so does the way to the second replica, at the end of the spare.
    let end = remap.spare.disk().sectors();
    let away = Fault::bad(Direction::Write).status(Status::Transport);
    remap
        .spare
        .disk()
        .spoil(slot, 1, Fault::bad(Direction::Write));
    remap.spare.disk().spoil(end - 1200, 1200, away);
    assert!(device.write(100, &stamps(100, 1, 2)).is_err());
    remap.spare.disk().heal(0, end);

    device.write(100, &stamps(100, 1, 3)).unwrap();
    remap.device().message("remove_remap 100").unwrap();
    assert_eq!(remap.device().remapped(), 0);
    drop(device);
    remap.reactivate();
    assert_eq!(remap.device().remapped(), 0);
    assert!(remap.open().read(100, 1).unwrap() == stamps(100, 1, 3));
}
