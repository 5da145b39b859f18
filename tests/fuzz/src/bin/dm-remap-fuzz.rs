// SPDX-License-Identifier: GPL-2.0

//! libFuzzer over one of the targets, which `DM_REMAP_FUZZ_TARGET` names. Its arguments are
//! libFuzzer's. At the end it says how many inputs the decoder accepted.
#![no_main]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::OnceLock;

use fuzz::Input;
use fuzz::Target;
use fuzz::Verdict;
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&Target> = OnceLock::new();
static INPUTS: AtomicU64 = AtomicU64::new(0);
static ACCEPTED: AtomicU64 = AtomicU64::new(0);

fn choose() -> &'static Target {
    let name = std::env::var("DM_REMAP_FUZZ_TARGET").unwrap_or_default();
    // SAFETY: `at_the_end` is a function as `atexit` wants it, and does not panic.
    unsafe { libc::atexit(at_the_end) };
    Target::named(&name).unwrap_or_else(|| {
        let names = fuzz::TARGETS.iter().map(|target| target.name);
        let names = names.collect::<Vec<_>>().join(", ");
        panic!("DM_REMAP_FUZZ_TARGET is {name:?}, and not one of {names}")
    })
}

extern "C" fn at_the_end() {
    use std::io::Write;
    let inputs = INPUTS.load(Ordering::Relaxed);
    // The inputs of libFuzzer's -fork are tried by other processes.
    if inputs == 0 {
        return;
    }
    let accepted = ACCEPTED.load(Ordering::Relaxed);
    let percent = accepted * 100 / inputs;
    let _ = writeln!(
        std::io::stderr(),
        "accepted: {accepted} of {inputs}, {percent} %"
    );
}

fuzz_target!(
    init: {
        TARGET.get_or_init(choose);
    },
    |bytes: &[u8]| {
        let verdict = (TARGET.get_or_init(choose).run)(&mut Input::new(bytes));
        INPUTS.fetch_add(1, Ordering::Relaxed);
        if verdict == Verdict::Accepted {
            ACCEPTED.fetch_add(1, Ordering::Relaxed);
        }
    }
);
