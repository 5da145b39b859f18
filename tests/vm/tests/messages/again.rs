// SPDX-License-Identifier: GPL-2.0
//! Asking again: main for what it could not read (`retry`), the spares for their metadata (`recheck`).

use vmtest::guest::eventually;
use vmtest::guest::sickdisk::Direction;
use vmtest::guest::sickdisk::Fault;
use vmtest::guest::sickdisk::Options;
use vmtest::guest::sickdisk::Status;
use vmtest::guest::stamps;
use vmtest::guest::superblocks;
use vmtest::guest::table_blocks;
use vmtest::guest::Remap;

fn bad() -> Fault {
    Fault::bad(Direction::Both)
}

fn told(remap: &Remap, message: &str) -> String {
    let reply = remap.device().message(message);
    reply.unwrap_or_else(|refusal| panic!("{message}: {refusal:?}"))
}

/// E4: what main can read again is pending no more, and stays so; what it cannot, and what slots serve, stays as it is.
#[test]
fn retry_clears_what_main_can_read_again() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    let device = remap.open();
    device.write(96, &stamps(96, 16, 1)).unwrap();
    remap.main.disk().spoil(100, 3, bad());
    device.read(100, 3).unwrap_err();
    assert!(eventually(|| remap.device().pending() == 3));
    told(&remap, "remap 104");
    device.write(104, &stamps(104, 1, 2)).unwrap();
    assert_eq!(
        told(&remap, "retry 96 16"),
        "0 blocks can be read again, 3 still cannot, 1 are served by a spare"
    );
    assert_eq!(remap.device().pending(), 3);
    remap.main.disk().heal(100, 2);
    assert_eq!(
        told(&remap, "RETRY 0 131072"),
        "2 blocks can be read again, 1 still cannot, 1 are served by a spare"
    );
    assert_eq!(remap.device().status_fraction(1).0, 1);
    assert_eq!(remap.device().status_fraction(2).0, 2);
    assert!(device.read(100, 2).unwrap() == stamps(100, 2, 1));
    assert!(device.read(104, 1).unwrap() == stamps(104, 1, 2));
    // Main takes what is written there from here on.
    device.write(100, &stamps(100, 2, 3)).unwrap();
    let mut content = vec![0; 1024];
    remap.main.disk().peek(100, &mut content).unwrap();
    assert!(content == stamps(100, 2, 3));
    drop(device);
    remap.reactivate();
    assert_eq!(told(&remap, "list"), "102 1 pending\n104 1 remapped\nend");
}

/// P6: a main that is away tells nothing of its blocks.
#[test]
fn retry_of_a_main_that_is_away_is_an_error() {
    let _test = vmtest::begin!();
    let remap = Remap::new(512);
    remap.main.disk().spoil(100, 3, bad());
    remap.open().read(100, 3).unwrap_err();
    assert!(eventually(|| remap.device().pending() == 3));
    remap.main.disk().heal(100, 3);
    remap.main.disk().die(Status::Offline, Direction::Both);
    remap.device().message("retry 96 16").unwrap_err();
    let why = told(&remap, "why");
    assert!(
        why.contains("0 blocks can be read again") && why.contains("at sector 100"),
        "{why}"
    );
    assert_eq!(remap.device().pending(), 3);
    remap.main.disk().revive();
    told(&remap, "retry 96 16");
    assert_eq!(remap.device().pending(), 0);
}

/// Where the superblock copies, and the first block of each replica of the table, lie on the spare.
fn copies(remap: &Remap) -> Vec<u64> {
    let supers = superblocks(&remap.spare);
    let first = table_blocks(&remap.spare)[0];
    // The first block of both replicas, which has the entries.
    let same = |place: &u64| {
        let read = |sector| {
            let mut block = vec![0; 4096];
            remap.spare.disk().peek(sector, &mut block).unwrap();
            block
        };
        read(*place) == read(first)
    };
    let tables = table_blocks(&remap.spare).into_iter().filter(same);
    let places: Vec<u64> = supers.into_iter().chain(tables).collect();
    assert_eq!(places.len(), 6, "{places:?}");
    places
}

/// Damaged and older copies are written again, wherever they lie; afterwards each is good enough by itself. Nothing is
/// written where nothing is wrong.
#[test]
fn recheck_mends_what_is_damaged_or_old() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    told(&remap, "remap 100");
    told(&remap, "save");
    let places = copies(&remap);
    let read = |remap: &Remap, sector| {
        let mut block = vec![0; 4096];
        remap.spare.disk().peek(sector, &mut block).unwrap();
        block
    };
    let old: Vec<Vec<u8>> = places.iter().map(|place| read(&remap, *place)).collect();
    told(&remap, "remap 200");
    told(&remap, "save");
    remap.record();
    let reply = told(&remap, "recheck");
    assert!(
        reply.ends_with("copies read, 0 damaged or old, 0 written again"),
        "{reply}"
    );
    assert_eq!(remap.spare.disk().record().writes, 0);
    for (index, place) in places.iter().enumerate() {
        for content in [vec![0x5a; 4096], vec![0; 4096], old[index].clone()] {
            remap.spare.disk().poke(*place, &content).unwrap();
            let reply = told(&remap, "restore");
            assert!(
                reply.ends_with("copies read, 1 damaged or old, 1 written again"),
                "{place}: {reply}"
            );
            let reply = told(&remap, "recheck");
            assert!(reply.contains(" 0 damaged or old"), "{place}: {reply}");
        }
    }
    // One that cannot be read, whatever is written there, goes elsewhere.
    let last = places[places.len() - 1];
    remap
        .spare
        .disk()
        .spoil(last, 8, Fault::bad(Direction::Read));
    for found in [1, 0] {
        let reply = told(&remap, "recheck");
        assert!(
            reply.contains(&format!(" {found} damaged or old")),
            "{reply}"
        );
    }
    let metadata = told(&remap, "metadata_status");
    assert!(metadata.contains("relocated_blocks=1"), "{metadata}");
    assert_eq!(
        remap.device().status_value("metadata").as_deref(),
        Some("enabled")
    );
    remap.reactivate();
    assert_eq!(remap.device().remapped(), 2);
}

/// A copy that is newer than anything that was written here: somebody else has the spare. Nothing is written there any
/// more, also not by a suspend or a removal, and users are told; what is remapped is served.
#[test]
fn recheck_finds_who_else_writes() {
    let _test = vmtest::begin!();
    let mut remap = Remap::new(512);
    told(&remap, "remap 100");
    remap.open().write(100, &stamps(100, 1, 1)).unwrap();
    remap.deactivate();
    let sectors = remap.spare.disk().sectors();
    let image = |remap: &Remap| {
        let mut content = vec![0; (sectors * 512) as usize];
        remap.spare.disk().peek(0, &mut content).unwrap();
        content
    };
    let before = image(&remap);
    // The other machine goes further than this one.
    remap.activate();
    for sector in 200..210 {
        told(&remap, &format!("remap {sector}"));
    }
    remap.deactivate();
    let theirs = image(&remap);
    let places = {
        remap.activate();
        let places = copies(&remap);
        remap.deactivate();
        places
    };
    // A superblock copy, and a block of a table.
    for place in [places[0], places[places.len() - 1]] {
        remap.spare.disk().poke(0, &before).unwrap();
        remap.activate();
        told(&remap, "remap 300");
        let at = (place * 512) as usize;
        let theirs = &theirs[at..at + 4096];
        remap.spare.disk().poke(place, theirs).unwrap();
        remap.record();
        let refusal = remap.device().message("recheck").unwrap_err();
        assert!(refusal.error.contains("Wrong medium type"), "{refusal:?}");
        let device = remap.device();
        for message in [
            "save",
            "remap 400",
            "remove_remap 100",
            "clear_all",
            "recheck",
        ] {
            let refusal = device.message(message).unwrap_err();
            assert!(
                refusal.error.contains("Wrong medium type"),
                "{message}: {refusal:?}"
            );
            let why = told(&remap, "why");
            assert!(
                why.contains("somebody else has written"),
                "{message}: {why}"
            );
        }
        assert_eq!(device.status_value("metadata").as_deref(), Some("readonly"));
        assert_eq!(device.status_value("condition").as_deref(), Some("failing"));
        assert!(told(&remap, "health").starts_with("failing: somebody else has written"));
        assert!(remap.open().read(100, 1).unwrap() == stamps(100, 1, 1));
        remap.main.disk().spoil(500, 1, bad());
        remap.open().write(500, &stamps(500, 1, 1)).unwrap_err();
        remap.main.disk().heal(500, 1);
        device.suspend().unwrap();
        device.resume().unwrap();
        assert_eq!(remap.spare.disk().record().writes, 0);
        remap.deactivate();
        assert_eq!(remap.spare.disk().record().writes, 0);
    }
}

/// P15: a spare that hangs has `recheck` wait for a deadline at most, and main is read and written meanwhile.
#[test]
fn recheck_does_not_wait_for_a_spare_that_hangs() {
    let _test = vmtest::begin!();
    let remap = Remap::with(512, "2 deadline_ms 500");
    told(&remap, "remap 100");
    let sectors = remap.spare.disk().sectors();
    remap.spare.disk().hold(0..sectors, Direction::Both);
    let _released = remap.spare.release_at_end();
    let reply = told(&remap, "recheck");
    assert!(reply.contains("spare 0 does not answer"), "{reply}");
    remap.open().write(5000, &stamps(5000, 8, 1)).unwrap();
    assert!(remap.open().read(5000, 8).unwrap() == stamps(5000, 8, 1));
}

/// E8: it ends with a suspend, and says so.
#[test]
fn recheck_ends_with_a_suspend() {
    let _test = vmtest::begin!();
    let main = Options::memory(Remap::MAIN_SECTORS * 512);
    let spare = Options::memory(Remap::SPARE_SECTORS * 512);
    let remap = Remap::on(main, spare, "");
    told(&remap, "remap 0 2048");
    let sectors = remap.spare.disk().sectors();
    let slow = std::time::Duration::from_millis(300);
    remap.spare.disk().slow(0..sectors, slow);
    let device = remap.device();
    std::thread::scope(|scope| {
        remap.record();
        let checking = scope.spawn(|| device.message("recheck"));
        assert!(eventually(|| remap.spare.disk().record().reads > 1));
        device.suspend().unwrap();
        let reply = checking.join().unwrap().unwrap();
        assert!(reply.contains("stopped by a suspend"), "{reply}");
        device.message("recheck").unwrap_err();
        device.resume().unwrap();
    });
    remap
        .spare
        .disk()
        .slow(0..sectors, std::time::Duration::ZERO);
    let reply = told(&remap, "recheck");
    assert!(reply.contains(" 0 damaged or old"), "{reply}");
}
