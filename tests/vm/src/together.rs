// SPDX-License-Identifier: GPL-2.0
//! Several test programs in one machine, for kernels that take long to boot.
//!
//! Inside, [`guest::in_turn`](crate::guest::in_turn) runs them one after the other. It may stop
//! early, because the kernel died or sees nothing more (lockdep reports once); what has not begun by
//! then gets another machine. How far it came is in the kernel's log, which outlives all of that.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::machine::End;
use crate::machine::Machine;
use crate::machine::Outcome;
use crate::outside::outside;
use crate::verdict::MARK;

/// How long one program may take on the stock kernel.
pub(crate) const PROGRAM_LIMIT: Duration = Duration::from_secs(600);

/// Runs all of `programs`: each is a path, or `path::filter` for some of its tests. `runner` is the
/// program that calls [`guest::in_turn`](crate::guest::in_turn) when its first argument is
/// `in-turn`; `furnish` completes each machine. The kernel's logs are kept in `logs`. Returns
/// whether all was well.
pub fn run(
    runner: &Path,
    programs: &[OsString],
    logs: &Path,
    furnish: impl Fn(Machine) -> Machine,
) -> io::Result<bool> {
    let mut left = programs;
    let mut all_well = true;
    for boot in 1.. {
        let log = logs.join(format!("debug-{boot}.log"));
        let mut command = vec![runner.as_os_str().to_owned(), "in-turn".into()];
        command.extend_from_slice(left);
        let count = u32::try_from(left.len()).unwrap_or(u32::MAX);
        let machine = Machine::new(command)?
            .time_limit(PROGRAM_LIMIT.saturating_mul(count.saturating_add(1)))
            .keep_console(&log)
            .echo();
        let outcome = furnish(machine).start()?.wait()?;
        if !outcome.passed() {
            all_well = false;
            report(&outcome, &log);
        }
        let begun = programs_begun(&outcome.kernel_log);
        left = match left.get(begun..) {
            Some(left) if begun > 0 => left,
            _ => return Err(io::Error::other("the machine did not come to the tests")),
        };
        if left.is_empty() {
            break;
        }
    }
    Ok(all_well)
}

/// In the form of a test's report, so that whoever adds those up counts it.
fn report(outcome: &Outcome, log: &Path) {
    let by_itself = outcome.faults.iter().any(|fault| fault.during.is_none());
    if by_itself || !matches!(outcome.end, End::Command(_)) {
        println!("test result: FAILED. 0 passed; 1 failed; (the machine)");
    }
    print!("{outcome}");
    println!("the whole kernel log: {}", outside(log).display());
}

/// Names the program that begins, in the kernel's log.
pub(crate) const PROGRAM: &str = "program";

fn programs_begun(log: &str) -> usize {
    log.lines()
        .filter_map(|line| line.split_once(MARK))
        .filter(|(_, mark)| mark.split_whitespace().next() == Some(PROGRAM))
        .count()
}

#[cfg(test)]
mod tests {
    use super::programs_begun;

    #[test]
    fn a_program_has_begun_when_the_log_names_it() {
        let log = "\
[1.0] vm-test: program /a
[1.1] vm-test: begin a::program
[1.2] program
[1.3] vm-test: program /b
";
        assert_eq!(programs_begun(log), 2);
    }
}
