// SPDX-License-Identifier: GPL-2.0
//! Memory that is exhausted, with swap on a device whose main disk fails writes: each page that is
//! to be freed has to be written first, so that whatever a repair needs must be there already.
//!
//! This runs outside; what runs in the machine, which has little memory, is `inside`, at the end.
//! Nothing below the device is a program, as that might wait for memory itself.

use std::fmt::Write;
use std::fs;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use vmtest::guest::load;
use vmtest::guest::succeed;
use vmtest::guest::Mapped;
use vmtest::guest::Need;
use vmtest::machine::Machine;

const MIB: u64 = 1 << 20;

/// What the machine has. Its kernel needs about a third of it.
const MEMORY_MIB: u32 = 256;

/// What the program uses.
const USED_MIB: u64 = 200;

const MAIN_MIB: u64 = 320;
const SPARE_MIB: u64 = 32;

/// P10: swap moves on, no page is lost, and nothing has to be killed.
#[test]
fn swap_moves_on_when_sectors_fail_and_memory_is_short() {
    vmtest::needs!(Need::SwapCounters);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("swap");
    fs::create_dir_all(&folder).unwrap();
    let image = |name: &str, mib: u64| {
        let path = folder.join(name);
        File::create(&path).unwrap().set_len(mib * MIB).unwrap();
        path
    };
    let outcome = Machine::inside()
        .unwrap()
        .disk(image("main", MAIN_MIB))
        .disk(image("spare", SPARE_MIB))
        .memory_mib(MEMORY_MIB)
        .keep_console(folder.join("console"))
        .time_limit(Duration::from_secs(180))
        .start()
        .unwrap()
        .wait()
        .unwrap();
    println!("{}", outcome.output);
    assert!(outcome.passed(), "{outcome}");
    fs::remove_dir_all(&folder).unwrap();
}

/// Main: 16 KiB of each MiB fail.
fn table() -> String {
    let mut table = String::new();
    for mib in 0..MAIN_MIB {
        let (start, bad) = (mib * 2048, mib * 2048 + 1000);
        let (end, rest) = (bad + 32, 2048 - 1032);
        writeln!(table, "{start} 1000 linear /dev/vda {start}").unwrap();
        writeln!(table, "{bad} 32 error").unwrap();
        writeln!(table, "{end} {rest} linear /dev/vda {end}").unwrap();
    }
    table
}

/// A number of /proc/vmstat.
fn counter(name: &str) -> u64 {
    let all = fs::read_to_string("/proc/vmstat").unwrap();
    let line = all.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("").trim().parse().expect(name)
}

/// What page number `page` holds in round `round`.
fn content(page: usize, round: u64) -> u64 {
    (page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round
}

/// Uses more memory than there is, on swap whose sectors fail.
#[test]
#[ignore = "runs in the machine of the test above"]
fn inside() {
    let mut test = vmtest::begin!();
    // Swap's own: it asks for a table with these flags, and uses another cluster if there is none.
    test.expects("mode:0xc0de0(GFP_KERNEL|__GFP_HIGH|__GFP_ZERO|__GFP_COMP|__GFP_NOMEMALLOC)");
    test.expects("Call Trace:");
    load();
    let main = Mapped::new(&table());
    // A table with dm-error in it cannot be flushed, and swap has nothing to flush.
    let name = main.path();
    let name = name.file_name().unwrap().to_string_lossy();
    let cache = format!("/sys/block/{name}/queue/write_cache");
    fs::write(cache, "write through").unwrap();
    let mapped = Mapped::new(&format!(
        "0 {} dm-remap {} /dev/vdb",
        MAIN_MIB * 2048,
        main.path().display()
    ));
    let path = mapped.path();
    succeed(&format!("mkswap -q {}", path.display()));
    succeed(&format!("swapon {}", path.display()));

    const WORDS: usize = 512;
    let mut memory = vec![0_u64; (USED_MIB * MIB / 8) as usize];
    for round in 0..2 {
        for (number, page) in memory.chunks_mut(WORDS).enumerate() {
            if round != 0 {
                let before = content(number, round - 1);
                let same = page.iter().all(|&word| word == before);
                assert!(same, "page {number} is not what it was in round {round}");
            }
            page.fill(content(number, round));
        }
    }
    let written = counter("pswpout ") * 4096 / MIB;
    drop(memory);
    let (remapped, status) = (mapped.remapped(), mapped.status());
    println!("{written} MiB were written to swap, {remapped} blocks are remapped");
    succeed(&format!("swapoff {}", path.display()));
    assert!(written > 80, "memory was not short: {written} MiB");
    assert!(remapped > 50, "{remapped} blocks: swap met no bad ones");
    let log = test.kernel_log();
    for complaint in [
        "Write-error on swap",
        "Read-error on swap",
        "oom-kill",
        "Out of memory",
    ] {
        let ours = || log.lines().filter(|line| line.contains("dm-remap"));
        let ours = || ours().collect::<Vec<_>>().join("\n");
        assert!(
            !log.contains(complaint),
            "{complaint}: {status}\n{}",
            ours()
        );
    }
    mapped.remove();
    main.remove();
}
