// SPDX-License-Identifier: GPL-2.0
//! The side that a person started: boots machines, one after the other, and sums up.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use vmtest::machine::End;
use vmtest::machine::Machine;
use vmtest::machine::Outcome;

use crate::files::Files;

/// What fits the files with room to spare.
const MAIN_BYTES: u64 = 512 << 20;
const SPARE_BYTES: u64 = 64 << 20;

/// What the guest prints when the time has come to cut its power.
pub(crate) const CUT_NOW: &str = "the power fails now";

/// What the guest tells of where the copy was, for the next machine.
pub(crate) const REACHED: &str = "reached:";

/// The outcome of a part, told to the person and to the exit status.
type Told = Result<(), String>;

pub(crate) fn run() -> Told {
    let start = Instant::now();
    let work = Work::new().map_err(|error| format!("a folder to work in: {error}"))?;
    println!("A failing disk, without dm-remap and with it, on the stock Debian kernel.");
    let files = Files::choose()?;
    let list = work.path.join("files");
    let failed = |error: io::Error| error.to_string();
    files.save(&list).map_err(failed)?;
    println!(
        "What is copied: {} files, {} MiB. The disk: 512 MiB, ext4, and it goes bad meanwhile.",
        files.count(),
        files.mib()
    );

    title("a", "The disk without dm-remap");
    let outcome = machine("without", &list)?.start().and_then(|vm| vm.wait());
    finished(&outcome.map_err(failed)?)?;

    title("b", "The same disk, the same bad sectors, with dm-remap");
    let outcome = machine("with", &list)?.start().and_then(|vm| vm.wait());
    finished(&outcome.map_err(failed)?)?;

    title("c", "The same again, and the power fails in the middle");
    let main = work.image("main", MAIN_BYTES).map_err(failed)?;
    let spare = work.image("spare", SPARE_BYTES).map_err(failed)?;
    let running = machine("until-cut", &list)?
        .disk(&main)
        .disk(&spare)
        .start()
        .map_err(failed)?;
    let came = running.wait_for_text(CUT_NOW);
    let outcome = running.power_cut().map_err(failed)?;
    if !came || outcome.end != End::PowerCut {
        return Err(format!("the copy ended before the power did\n{outcome}"));
    }
    quiet(&outcome)?;
    println!("  (the virtual machine was killed)");
    let reached = outcome
        .output
        .lines()
        .filter_map(|line| line.trim().strip_prefix(REACHED))
        .next_back()
        .ok_or("the copy did not tell how far it came")?
        .trim()
        .to_string();
    println!("  Booting again, with the same disks ...");
    let mut after = machine("after-cut", &list)?.disk(&main).disk(&spare);
    after = after.env("DEMO_REACHED", reached);
    let outcome = after.start().and_then(|vm| vm.wait()).map_err(failed)?;
    finished(&outcome)?;

    println!("\nAll as promised, in {} s.", start.elapsed().as_secs());
    Ok(())
}

fn title(letter: &str, text: &str) {
    println!("\n({letter}) {text}");
}

fn machine(part: &str, list: &Path) -> Result<Machine, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command: Vec<OsString> = vec![program.into()];
    command.extend(["inside", part].map(OsString::from));
    command.push(list.into());
    let mut machine = Machine::new(command)
        .map_err(|error| error.to_string())?
        .memory_mib(3072)
        .time_limit(Duration::from_secs(300))
        .echo();
    if let Some(module) = std::env::var_os("DM_REMAP_MODULE") {
        machine = machine.env("DM_REMAP_MODULE", module);
    }
    Ok(machine)
}

/// The part says itself what was wrong; the kernel may have something to add.
fn finished(outcome: &Outcome) -> Told {
    match outcome.end {
        End::Command(0) => quiet(outcome),
        End::Command(_) => Err(String::from("this part failed, see above")),
        _ => Err(outcome.to_string()),
    }
}

fn quiet(outcome: &Outcome) -> Told {
    match outcome.faults.is_empty() {
        true => Ok(()),
        false => Err(outcome.to_string()),
    }
}

/// A folder for images and lists, gone when dropped. Beside the program, because temporary
/// folders may be memory.
struct Work {
    path: PathBuf,
}

impl Work {
    fn new() -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let folder = program.parent().unwrap_or(Path::new("/tmp"));
        let path = folder.join(format!("demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// An image of zeroes that takes no room yet.
    fn image(&self, name: &str, bytes: u64) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        File::create(&path)?.set_len(bytes)?;
        Ok(path)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Nothing depends on it being gone.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
