// SPDX-License-Identifier: GPL-2.0
//! One, two and four jobs on four processors, with fio: the more there are, the less may not be left of
//! what dm-linear does (P10, P11).
//!
//! This runs outside; what runs in the machine is `inside`, at the end. Its processors take turns, and its clock
//! counts the instructions of all of them together. So what is seen is work that is done twice or again,
//! such as waiting for a lock; that no cache line is shared is seen by `shared_lines`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vmtest::guest::load;
use vmtest::guest::Need;
use vmtest::guest::NullBlk;
use vmtest::guest::QuickDevice;
use vmtest::machine::Machine;

const PROCESSORS: u32 = 4;
const MAIN_MIB: u32 = 4096;

/// The I/Os of all jobs: fio tells the time in milliseconds, each of which is a million instructions.
const IOS: u32 = 48_000;

/// What the ratio to dm-linear may lose from one job to several.
const LOSS: f64 = 0.02;

/// The ratio to dm-linear does not fall with the number of jobs.
#[test]
fn the_ratio_to_dm_linear_does_not_fall_with_jobs() {
    vmtest::needs!(Need::Clock);
    let program = std::env::current_exe().unwrap().into_os_string();
    let arguments = ["--exact", "inside", "--ignored", "--nocapture"].map(Into::into);
    let module = std::env::var_os("DM_REMAP_MODULE").expect("DM_REMAP_MODULE names the module");
    let outcome = Machine::new([vec![program], arguments.into()].concat())
        .unwrap()
        .env("DM_REMAP_MODULE", module)
        .processors(PROCESSORS)
        .counting()
        .time_limit(Duration::from_secs(600))
        .start()
        .unwrap()
        .wait()
        .unwrap();
    println!("{}", outcome.output);
    assert!(outcome.passed(), "{outcome}");
}

/// I/Os of 4 KiB in a second.
fn iops(path: &Path, op: &str, jobs: u32) -> f64 {
    let ran = Command::new("fio")
        .arg(format!("--filename={}", path.display()))
        .arg(format!("--rw={op}"))
        .arg(format!("--numjobs={jobs}"))
        .arg(format!("--number_ios={}", IOS / jobs))
        .arg(format!("--cpus_allowed=0-{}", PROCESSORS - 1))
        .args(["--name=job", "--direct=1", "--bs=4k", "--norandommap"])
        .args(["--ioengine=psync", "--thread", "--group_reporting"])
        .args(["--cpus_allowed_policy=split", "--output-format=terse"])
        .args(["--terse-version=3"])
        .output()
        .expect("run fio");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}{errors}");
    // Of each direction, the third number is the I/Os in a second.
    let place = if op == "randread" { 7 } else { 48 };
    let line = said.lines().find(|line| line.starts_with("3;"));
    let value = line.and_then(|line| line.split(';').nth(place));
    value.expect("a value").parse().expect("a number")
}

#[test]
#[ignore = "runs in the machine of the test above"]
fn inside() {
    let _test = vmtest::begin!();
    load();
    let main = NullBlk::hollow(MAIN_MIB, 4096);
    let spare = NullBlk::inline(64, 4096);
    let sectors = u64::from(MAIN_MIB) << 11;
    let (disk, slots) = (main.path(), spare.path());
    let (disk, slots) = (disk.display(), slots.display());
    let linear = QuickDevice::new(sectors, "linear", &format!("{disk} 0")).expect("linear");
    let remap = QuickDevice::new(sectors, "dm-remap", &format!("{disk} {slots}"));
    let remap = remap.expect("dm-remap");
    for remaps in [0, MAIN_MIB] {
        // One in each MiB, if there are any.
        for mib in 0..remaps {
            let sector = (u64::from(mib) << 11) + 8;
            remap.message(&format!("remap {sector}")).expect("remap");
        }
        for op in ["randread", "randwrite"] {
            let mut first = None;
            for jobs in [1, 2, 4] {
                let ours = iops(remap.path(), op, jobs);
                let theirs = iops(linear.path(), op, jobs);
                let ratio = ours / theirs;
                println!(
                    "{remaps} remaps, {op}, {jobs} jobs: {ours:.0} of {theirs:.0} I/Os a second, {ratio:.4}"
                );
                let one = *first.get_or_insert(ratio);
                assert!(ratio > one - LOSS, "{one:.4} with one job");
            }
        }
    }
    remap.remove().expect("remove");
    linear.remove().expect("remove");
}
