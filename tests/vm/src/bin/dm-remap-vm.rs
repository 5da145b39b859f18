// SPDX-License-Identifier: GPL-2.0
//! Runs programs in virtual machines.
//!
//! * `dm-remap-vm PROGRAM [ARGUMENT...]`, as cargo's runner: a test program, in a machine or as it
//!   is if its name says so. Ends as the program does; a complaint of the guest's kernel is a
//!   failure, too. `DM_REMAP_VM_LIMIT` is the time of a processor that a machine gets, in seconds
//!   (1200 if it is not set, or six hours where all cases are tried), `DM_REMAP_VM_LOG` where the kernel's log goes. A module that is older than its sources
//!   is refused, unless `DM_REMAP_MODULE_IS_NEW` says that somebody takes care of that.
//! * `dm-remap-vm shell [COMMAND...]`: a shell in a machine that has the module loaded, or a
//!   command instead of the shell.
//! * `dm-remap-vm watched PROGRAM [ARGUMENT...]`: what a machine runs whose kernel looks for mistakes.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::time::Duration;

use vmtest::guest;
use vmtest::machine::End;
use vmtest::machine::Machine;
use vmtest::module;
use vmtest::outside::outside;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!(
            "usage: dm-remap-vm PROGRAM [ARGUMENT...]\n       dm-remap-vm shell [COMMAND...]"
        );
        return ExitCode::from(2);
    };
    let arguments: Vec<OsString> = arguments.collect();
    let result = if program == "shell" {
        shell(arguments)
    } else if program == "watched" {
        watched(&arguments)
    } else {
        run(&program, arguments)
    };
    result.unwrap_or_else(|error| {
        eprintln!("dm-remap: {}: {error}", program.to_string_lossy());
        ExitCode::FAILURE
    })
}

/// Test programs that look at the clock: the machine has one processor, and counts what that does.
const MEASURING: &[&str] = &["load_time"];

fn measures(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    // Cargo puts a number behind it.
    let name = name.rsplit_once('-').map_or(&*name, |(name, _)| name);
    MEASURING.contains(&name)
}

/// As cargo's runner: in a machine, or as it is.
fn run(program: &OsStr, arguments: Vec<OsString>) -> io::Result<ExitCode> {
    let name = Path::new(program).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    // Tests of this package's own library need no module, and a list is no run.
    let lists = arguments.iter().any(|argument| argument == "--list");
    if !name.starts_with("vmtest-") && !lists {
        module::check()?;
    }
    match name.starts_with("vmtest-") || name.starts_with("outside_") || lists {
        true => Err(Command::new(program).args(arguments).exec()),
        false => run_inside(program, arguments),
    }
}

fn run_inside(program: &OsStr, arguments: Vec<OsString>) -> io::Result<ExitCode> {
    let program = std::path::absolute(program)?;
    let mut command = vec![program.clone().into_os_string()];
    // Tests share one kernel, whose complaints must find the right one.
    if !arguments
        .iter()
        .any(|argument| argument == "--test-threads=1")
    {
        command.push("--test-threads=1".into());
    }
    command.extend(arguments);

    let mut machine = Machine::new(command.clone())?;
    if machine.kernel_kind().is_debug() {
        let us = std::env::current_exe()?.into_os_string();
        machine = Machine::new([us, "watched".into()].into_iter().chain(command))?;
    }
    let console = console_path(&program);
    let machine = machine
        .time_limit(time_limit())
        .keep_console(&console)
        .echo();
    // Where the clock cannot, the tests say so.
    let machine = match measures(&program) && !machine.kernel_kind().is_program() {
        true => machine.counting().processors(1),
        false => machine,
    };
    let outcome = with_environment(machine).start()?.wait()?;
    if outcome.passed() {
        return Ok(ExitCode::SUCCESS);
    }
    let report = outcome.to_string();
    eprint!("{report}");
    let log = format!("the kernel's log is {}", outside(&console).display());
    Ok(match outcome.end {
        End::Command(status @ 1..=255) if outcome.faults.is_empty() => {
            eprintln!("{log}");
            ExitCode::from(status as u8)
        }
        _ => {
            let reason = report.lines().next().unwrap_or_default();
            eprintln!("{log}");
            eprintln!("dm-remap: {}", reason.trim_end_matches(':'));
            ExitCode::FAILURE
        }
    })
}

/// What of our environment is for the tests.
fn with_environment(machine: Machine) -> Machine {
    std::env::vars_os()
        .filter(|(name, _)| {
            name.as_encoded_bytes().starts_with(b"DM_REMAP_")
                || name == "RUST_BACKTRACE"
                || name == "KVER"
        })
        .fold(machine, |machine, (name, value)| machine.env(name, value))
}

fn watched(command: &[OsString]) -> io::Result<ExitCode> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::other("watched what?"))?;
    Ok(exit_code(guest::watched(program, arguments)))
}

fn exit_code(well: bool) -> ExitCode {
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What a machine's own shell does before it is the user's.
const WELCOME: &str = "
modprobe dm_mod && insmod \"$DM_REMAP_MODULE\" || exit 1
export PS1='vm# ' PATH=\"$1:$PATH\"
shift
[ $# -gt 0 ] && exec \"$@\"
# As on a machine that people have before them.
modprobe loop
/usr/lib/systemd/systemd-udevd --daemon && udevadm trigger && udevadm settle
stty sane 2>/dev/null
echo
echo 'The module is loaded. Bad disks to try it on: sickdisk serve NAME --size 64M &, then'
echo 'sickdisk NAME bad SECTOR COUNT both. The machine ends with this shell.'
exec bash --norc -i
";

fn shell(command: Vec<OsString>) -> io::Result<ExitCode> {
    if std::env::var_os("DM_REMAP_MODULE").is_none() {
        return Err(io::Error::other("DM_REMAP_MODULE names no module"));
    }
    let programs = std::env::current_exe()?
        .parent()
        .map(|folder| folder.as_os_str().to_owned())
        .unwrap_or_default();
    let interactive = command.is_empty();
    let mut words: Vec<OsString> = ["sh", "-c", WELCOME, "shell"].map(OsString::from).into();
    words.push(programs);
    words.extend(command);
    let machine =
        with_environment(Machine::new(words)?).time_limit(Duration::from_secs(7 * 24 * 3600));
    let machine = match interactive {
        true => machine.interactive(),
        false => machine.echo(),
    };
    let outcome = machine.start()?.wait()?;
    if interactive && matches!(outcome.end, End::Command(_)) {
        // What a person's last command ended with is nobody's business.
        return Ok(ExitCode::SUCCESS);
    }
    eprint!("{outcome}");
    Ok(match outcome.end {
        End::Command(status @ 0..=255) => ExitCode::from(status as u8),
        _ => ExitCode::FAILURE,
    })
}

/// Beside cargo's `deps`, so that `cargo clean` takes it away.
fn console_path(program: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("DM_REMAP_VM_LOG") {
        return path.into();
    }
    let name = program.file_name().unwrap_or_default();
    let folder = program.ancestors().nth(2).unwrap_or(Path::new("/tmp"));
    folder.join("vm-logs").join(name).with_extension("log")
}

fn time_limit() -> Duration {
    let seconds = std::env::var("DM_REMAP_VM_LIMIT")
        .ok()
        .and_then(|text| text.parse().ok());
    let usual = match guest::thorough() {
        true => 6 * 3600,
        false => 1200,
    };
    Duration::from_secs(seconds.unwrap_or(usual))
}
