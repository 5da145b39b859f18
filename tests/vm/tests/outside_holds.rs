// SPDX-License-Identifier: GPL-2.0
//! P16: how long somebody waits for the writer's lock, with ten million slots in use and four spares.
//!
//! This runs outside; what runs in the machine is `inside`, at the end. Its clock counts instructions and its disks
//! take no time, so that what is seen of a hold is what it computes: a walk over all slots takes some hundred
//! milliseconds there.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use vmtest::guest::load;
use vmtest::guest::stamps;
use vmtest::guest::Direct;
use vmtest::guest::Mapped;
use vmtest::guest::Need;
use vmtest::guest::NullBlk;
use vmtest::guest::SpareSet;
use vmtest::machine::Machine;

const SLOTS: u32 = 10_000_000;

/// MiB of main, and of the spare that has them all.
const MIB: u32 = 41_000;

/// Sectors of a block.
const BLOCK: u64 = 8;

/// The longest time that anybody waits: as one commit of a large write takes there, and its preparations.
const LONGEST: Duration = Duration::from_millis(40);

#[test]
fn nobody_waits_long_for_the_lock() {
    vmtest::needs!(Need::Clock);
    let outcome = Machine::inside()
        .unwrap()
        .processors(2)
        .memory_mib(3072)
        .counting()
        .time_limit(Duration::from_secs(600))
        .start()
        .unwrap()
        .wait()
        .unwrap();
    println!("{}", outcome.output);
    assert!(outcome.passed(), "{outcome}");
}

/// The longest time that a message took which takes the lock and does nothing with it, while `work` went on.
fn longest_wait(device: &Mapped, what: &str, work: impl FnOnce()) -> Duration {
    let done = AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                device.message("metadata_status").expect("told");
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        work();
        done.store(true, Ordering::Relaxed);
        waits.join().expect("waits")
    });
    println!("{what}: {longest:?}");
    longest
}

#[test]
#[ignore = "runs in the machine of the test above"]
fn inside() {
    let _test = vmtest::begin!();
    load();
    let spare = |mib| NullBlk::new(mib, 4096);
    let set = SpareSet {
        main: NullBlk::new(MIB, 4096),
        spares: vec![spare(MIB), spare(3000), spare(64), spare(64)],
        sectors: u64::from(MIB) << 11,
        slot_sectors: BLOCK,
        place: SpareSet::scattered,
    };
    set.forge(SLOTS);
    let begun = Instant::now();
    let device = Mapped::new(&format!(
        "0 {} dm-remap {}",
        set.sectors,
        set.parameters("")
    ));
    println!("loaded in {:?}", begun.elapsed());
    assert_eq!(device.remapped(), u64::from(SLOTS));
    let message = |text: &str| {
        device
            .message(text)
            .unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
    };
    // Blocks that have no slot.
    let bad: Vec<u64> = (0..200).map(|n| set.block_of(SLOTS + n) * BLOCK).collect();
    let open = Direct::open(&device.path());
    let all = [
        longest_wait(&device, "nothing", || {
            std::thread::sleep(Duration::from_millis(50));
        }),
        longest_wait(&device, "failing writes", || {
            for sector in &bad {
                set.main.spoil(*sector, BLOCK);
                open.write(*sector, &stamps(*sector, BLOCK, 1))
                    .expect("write");
            }
        }),
        longest_wait(&device, "remove_remap", || {
            for slot in [0, SLOTS / 2, SLOTS - 1] {
                message(&format!("remove_remap {}", set.block_of(slot) * BLOCK));
            }
        }),
        longest_wait(&device, "remap", || {
            message(&format!("remap {}", set.block_of(SLOTS / 2) * BLOCK));
        }),
        longest_wait(&device, "an evacuation that is refused", || {
            device.message("evacuate 0").unwrap_err();
        }),
        longest_wait(&device, "evacuations of small spares", || {
            message("evacuate 3");
            message("evacuate 2");
        }),
        longest_wait(&device, "clear_all and a suspend that ends it", || {
            std::thread::scope(|scope| {
                let clearing = scope.spawn(|| device.message("clear_all"));
                std::thread::sleep(Duration::from_millis(100));
                device.suspend().expect("suspend");
                device.resume().expect("resume");
                let _ = clearing.join().expect("cleared");
            });
        }),
        longest_wait(&device, "another table", || {
            let table = device.table();
            device.load(&table).expect("load");
            device.suspend().expect("suspend");
            device.resume().expect("resume");
        }),
    ];
    for longest in all {
        assert!(longest < LONGEST, "{longest:?}");
    }
}
